"""A small Hugging Face hub on loopback: resolve, redirects to a storage host, etags, Range, tokens, broken connections."""
import hashlib
import http.server
import json
import threading
import urllib.parse


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, handler):
        super().__init__(("127.0.0.1", 0), handler)
        self.log = []  # (method, path, headers)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, request, client_address):
        pass  # connections that this server breaks itself

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"

    def count(self, method, part=""):
        return sum(1 for m, p, _ in self.log if m == method and part in p)


class Base(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def note(self):
        self.server.log.append((self.command, self.path, dict(self.headers)))

    def answer(self, status, body=b"", headers=()):
        self.send_response(status)
        for k, v in headers:
            self.send_header(k, v)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_HEAD(self):
        self.do_GET()

    def content(self, data, headers=()):
        """The bytes, by Range when asked; cut off in the middle as often as the server's `cuts` say."""
        start, status, headers = 0, 200, list(headers)
        wanted = self.headers.get("Range")
        if wanted and self.server.ranges:
            start = int(wanted.split("=")[1].split("-")[0])
            if start >= len(data):
                return self.answer(416)
            status = 206
            headers.append(("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}"))
        body = data[start:]
        if self.command == "GET" and self.server.cuts > 0 and len(body) > 1000:
            self.server.cuts -= 1
            self.send_response(status)
            for k, v in headers:
                self.send_header(k, v)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[:0 if self.server.stall and start else len(body) // 2])
            self.wfile.flush()
            self.connection.shutdown(2)
            self.close_connection = True
            return
        self.answer(status, body, headers)


class Storage(Base):
    """Where large files live; must never see a token."""

    def do_GET(self):
        self.note()
        data = self.server.blobs.get(self.path.split("?")[0])
        if data is None:
            return self.answer(404)
        self.content(data)


class Hub(Base):
    def do_GET(self):
        self.note()
        hub = self.server
        path = urllib.parse.unquote(self.path.split("?")[0])
        parts = path.strip("/").split("/")
        new = hub.renamed.get("/".join(parts[2:4] if parts[:1] == ["api"] else parts[:2]))
        if new:
            moved = ["api", "models", new, *parts[4:]] if parts[:1] == ["api"] else [new, *parts[2:]]
            return self.answer(307, b"moved", [("Location", "/" + "/".join(moved))])
        if parts[:2] == ["api", "models"]:
            return self.listing("/".join(parts[2:4]), parts[5])
        if parts[:2] == ["clip", "models"]:
            data = hub.openai.get("/".join(parts[2:]))
            return self.answer(404) if data is None else self.content(data)
        repo = hub.repos.get("/".join(parts[:2]))
        if repo is None:
            return self.answer(401, b"x", [("X-Error-Code", "RepoNotFound")])
        if repo.get("token") and self.headers.get("Authorization") != f"Bearer {repo['token']}":
            return self.answer(401, b"x", [("X-Error-Code", "GatedRepo")])
        revision, name = parts[3], "/".join(parts[4:])
        if revision not in (repo["commit"], *repo["refs"]):
            return self.answer(404, b"x", [("X-Error-Code", "RevisionNotFound")])
        data = repo["files"].get(name)
        if data is None:
            return self.answer(404, b"x", [("X-Error-Code", "EntryNotFound"), ("X-Repo-Commit", repo["commit"])])
        headers = [("X-Repo-Commit", repo["commit"])]
        if name.endswith((".safetensors", ".bin", ".pt")):
            sha = repo.get("sha", {}).get(name) or hashlib.sha256(data).hexdigest()
            hub.storage.blobs["/" + sha] = data
            headers += [("X-Linked-Etag", f'"{sha}"'), ("X-Linked-Size", str(len(data))), ("ETag", '"of-the-redirect"'),
                        ("Location", f"{hub.storage.url}/{sha}?signature=abc")]
            return self.answer(302, b"to the storage", headers)
        etag = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
        self.content(data, [*headers, ("ETag", f'W/"{etag}"')])

    def listing(self, name, revision):
        repo = self.server.repos.get(name)
        if repo is None or (repo.get("token") and self.headers.get("Authorization") != f"Bearer {repo['token']}"):
            return self.answer(401, b"x", [("X-Error-Code", "RepoNotFound")])
        if revision not in (repo["commit"], *repo["refs"]):
            return self.answer(404, b"x", [("X-Error-Code", "RevisionNotFound")])
        names = [*repo["files"], *repo.get("listed", [])]
        self.answer(200, json.dumps({"sha": repo["commit"], "siblings": [{"rfilename": n} for n in names]}).encode())


def start():
    storage = Server(Storage)
    hub = Server(Hub)
    hub.storage, hub.repos, hub.openai, hub.renamed = storage, {}, {}, {}
    storage.blobs = {}
    hub.cuts = storage.cuts = 0
    hub.ranges = storage.ranges = True
    hub.stall = storage.stall = False  # a broken connection brings nothing after the first
    return hub
