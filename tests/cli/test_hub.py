#!/usr/bin/env python3
"""`models pull` against a small hub on loopback: layout of the cache, redirects, etags, resume, tokens, wrong content, offline."""
import hashlib
import os
import random

import hub_server
from harness import TMP, check, contains, equal, exits, finish, golden, run, write_npy

hub = hub_server.start()
random.seed(1)
BIG = random.randbytes(300_000)
COMMIT = "0123456789abcdef0123456789abcdef01234567"
hub.repos["org/tiny"] = {"commit": COMMIT, "refs": ["main", "v1"], "files": {
    "config.json": b'{"model_type": "clip"}', "model.safetensors": BIG, "tokenizer.json": b"{}", "1_Pooling/config.json": b"[]", "other.bin": BIG[:50],
    "notes.txt": b"not needed"}}


def pull(cache, *args, **env):
    return run("models", "pull", *args, env={"HF_ENDPOINT": hub.url, "HF_HUB_CACHE": str(cache), "HF_HOME": str(TMP / "home"), **env})


def layout():
    cache = TMP / "a"
    r = pull(cache, "hf-hub:org/tiny")
    exits(r, 0, "pull")
    repo = cache / "models--org--tiny"
    snap = repo / "snapshots" / COMMIT
    equal(r.rows(), [{"model": "hf-hub:org/tiny", "path": str(snap)}], "result")
    equal((repo / "refs" / "main").read_text(), COMMIT, "refs/main")
    equal((snap / "model.safetensors").read_bytes(), BIG, "content")
    equal(os.readlink(snap / "model.safetensors"), "../../blobs/" + hashlib.sha256(BIG).hexdigest(), "link of a large file")
    check(os.readlink(snap / "1_Pooling" / "config.json").startswith("../../../blobs/"), "link of a nested file")
    check(not (snap / "notes.txt").exists() and not (snap / "other.bin").exists(), "only what is needed")
    check(not list(repo.rglob("*.incomplete")), "nothing left behind")
    sent = hub.storage.count("GET")
    exits(pull(cache, "hf-hub:org/tiny"), 0, "second pull")
    equal(hub.storage.count("GET"), sent, "content is not fetched twice")
    exits(pull(cache, "org/tiny@v1", "--all"), 0, "pull of a tag")
    check((snap / "notes.txt").exists() and (repo / "refs" / "v1").exists(), "--all and a tag")
    exits(pull(cache, f"org/tiny@{COMMIT}"), 0, "pull of a commit")
    hub.renamed["old/name"] = "org/tiny"
    exits(pull(TMP / "moved", "hf-hub:old/name"), 0, "a repository that was renamed")
    check((TMP / "moved" / "models--old--name" / "refs" / "main").exists(), "kept under the name asked for")


def resume():
    hub.storage.cuts = 3
    before = len(hub.storage.log)
    exits(pull(TMP / "b", "hf-hub:org/tiny"), 0, "connection broken three times")
    ranges = [h.get("Range") for m, _, h in hub.storage.log[before:] if m == "GET"]
    equal(ranges[:3], [None, "bytes=150000-", "bytes=225000-"], "ranges asked for")
    # what an earlier process left is continued
    repo = TMP / "c" / "models--org--tiny"
    (repo / "blobs").mkdir(parents=True)
    sha = hashlib.sha256(BIG).hexdigest()
    (repo / "blobs" / (sha + ".incomplete")).write_bytes(BIG[:100_000])
    before = len(hub.storage.log)
    exits(pull(TMP / "c", "hf-hub:org/tiny"), 0, "continued")
    equal([h.get("Range") for m, _, h in hub.storage.log[before:] if m == "GET"], ["bytes=100000-"], "range of the rest")
    # a server without ranges sends all of it again; a left-over that is too long is thrown away
    for name, left, ranges_on in (("d", BIG[:1000], False), ("e", BIG + b"more", True), ("f", b"wrong" * 10, False)):
        blobs = TMP / name / "models--org--tiny" / "blobs"
        blobs.mkdir(parents=True)
        (blobs / (sha + ".incomplete")).write_bytes(left)
        hub.storage.ranges = ranges_on
        exits(pull(TMP / name, "hf-hub:org/tiny"), 0, f"left-over {name}")
        equal((blobs / sha).read_bytes(), BIG, f"content after left-over {name}")
    hub.storage.ranges = True
    # a connection that never brings more gives up and keeps what came
    hub.storage.cuts, hub.storage.stall = 100, True
    r = pull(TMP / "g", "hf-hub:org/tiny")
    hub.storage.cuts, hub.storage.stall = 0, False
    exits(r, 3, "gives up")
    contains(r.err, "the next try goes on there", "message")
    check((TMP / "g" / "models--org--tiny" / "blobs" / (sha + ".incomplete")).stat().st_size > 1000, "what came is kept")
    exits(pull(TMP / "g", "hf-hub:org/tiny"), 0, "next try")


def wrong_content():
    hub.repos["org/wrong"] = {"commit": COMMIT, "refs": ["main"], "files": {"model.safetensors": BIG}, "sha": {"model.safetensors": "ab" * 32}}
    r = pull(TMP / "w", "hf-hub:org/wrong")
    exits(r, 3, "wrong digest")
    contains(r.err, "SHA-256", "message")
    left = [p.name for p in (TMP / "w").rglob("*") if p.is_file() or p.is_symlink()]
    check(not any(p.startswith("abab") and not p.endswith(".lock") for p in left), f"nothing kept: {left}")
    # names from the hub that point elsewhere are not followed
    hub.repos["org/evil"] = {"commit": COMMIT, "refs": ["main"], "files": {"model.safetensors": BIG}, "listed": ["../../../evil", "/etc/evil", "a//b"]}
    exits(pull(TMP / "evil", "hf-hub:org/evil", "--all"), 0, "hostile names")
    check(not any(p.name == "evil" for p in (TMP / "evil").rglob("*") if p.is_file()), "nothing outside the snapshot")
    hub.repos["org/badetag"] = {"commit": "../../x", "refs": ["main"], "files": {"model.safetensors": BIG}}
    r = pull(TMP / "w", "hf-hub:org/badetag")
    exits(r, 3, "hostile commit")


def tokens():
    hub.repos["org/gated"] = {"commit": COMMIT, "refs": ["main"], "token": "hf_secret", "files": {"model.safetensors": BIG, "config.json": b"{}"}}
    r = pull(TMP / "t", "hf-hub:org/gated")
    exits(r, 3, "no token")
    contains(r.err, "HF_TOKEN", "message says what to do")
    before = len(hub.storage.log)
    exits(pull(TMP / "t", "hf-hub:org/gated", HF_TOKEN="hf_secret"), 0, "with the token")
    seen = hub.storage.log[before:]
    check(seen and not any("Authorization" in h for _, _, h in seen), "the token goes to the hub only")
    (TMP / "home").mkdir(exist_ok=True)
    (TMP / "home" / "token").write_text("hf_secret\n")
    exits(pull(TMP / "t2", "hf-hub:org/gated"), 0, "token from HF_HOME/token")
    (TMP / "home" / "token").unlink()


def refusals():
    for name, code, part in (("hf-hub:org/nothing", 3, "401"), ("hf-hub:org/tiny@nosuch", 3, "404"), ("hf-hub:a/b/c", 3, "ORG/NAME"),
                             ("hf-hub:../x", 3, "ORG/NAME")):
        r = pull(TMP / "r", name)
        exits(r, code, name)
        contains(r.err, part, name)
    exits(pull(TMP / "r"), 1, "no model named")
    exits(pull(TMP / "r2", "hf-hub:org/nothing", "hf-hub:org/tiny"), 2, "one of two")
    before = len(hub.log)
    for r in (pull(TMP / "r3", "hf-hub:org/tiny", "--offline"), pull(TMP / "r3", "hf-hub:org/tiny", HF_HUB_OFFLINE="1")):
        exits(r, 3, "offline")
        contains(r.err, "offline", "message")
    equal(len(hub.log), before, "offline opens no socket")
    r = run("models", "pull", "hf-hub:org/tiny", env={"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_CACHE": str(TMP / "r4")})
    exits(r, 3, "no hub there")


def models():
    """A model that is named by its hub name: fetched once, then taken from the cache, also offline."""
    out = TMP / "converted"
    exits(run("models", "convert", "-m", golden("clip", "openclip_vit.safetensors"), "--config", golden("clip", "openclip_vit.config.json"), "--out", out), 0,
          "convert")
    hub.repos["org/clip"] = {"commit": COMMIT, "refs": ["main"], "files": {p.name: p.read_bytes() for p in out.iterdir()}}
    write_npy(TMP / "x.npy", [1, 3, 32, 32], [(i % 31) / 16 - 1 for i in range(3 * 32 * 32)])
    want = run("embed", "-m", out, TMP / "x.npy").rows()
    env = {"HF_ENDPOINT": hub.url, "HF_HUB_CACHE": str(TMP / "m")}
    before = len(hub.log)
    r = run("embed", "-m", "hf-hub:org/clip", TMP / "x.npy", env=env)
    exits(r, 0, "embed by hub name")
    equal([x["embedding"] for x in r.rows()], [x["embedding"] for x in want], "the same vectors")
    check(len(hub.log) > before, "the first use fetches")
    before = len(hub.log)
    for extra in ([], ["--offline"]):
        exits(run("embed", "-m", "hf-hub:org/clip", *extra, TMP / "x.npy", env=env), 0, f"again {extra}")
    equal(len(hub.log), before, "what is in the cache opens no socket")
    r = run("embed", "-m", "hf-hub:org/other", "--offline", TMP / "x.npy", env=env)
    exits(r, 3, "offline, not in the cache")
    equal(len(hub.log), before, "offline opens no socket")
    hub.repos["org/cut"] = {"commit": COMMIT, "refs": ["main"], "files": {"open_clip_config.json": (out / "open_clip_config.json").read_bytes(),
                                                                        "open_clip_model.safetensors": (out / "open_clip_model.safetensors").read_bytes()[:5000]}}
    exits(run("embed", "-m", "hf-hub:org/cut", TMP / "x.npy", env=env), 3, "a truncated checkpoint on the hub")


def openai():
    name = "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af/ViT-B-32.pt"
    hub.openai[name] = BIG
    env = {"NOEMA_OPENAI_ENDPOINT": hub.url, "XDG_CACHE_HOME": str(TMP / "xdg")}
    r = run("models", "info", "-m", "ViT-B/32", env=env)
    exits(r, 3, "OpenAI's file with other content")
    contains(r.err, "SHA-256", "says what differs")
    check(hub.count("GET", name) == 1, "asked at the overridden place")
    check(not (TMP / "xdg" / "clip" / "ViT-B-32.pt").exists(), "nothing kept")
    before = len(hub.log)
    exits(run("models", "info", "-m", "ViT-B/32", "--offline", env=env), 3, "offline")
    equal(len(hub.log), before, "offline opens no socket")
    for spelling in ("ViT-B/32", "ViT-B-32/openai"):
        r = run("models", "pull", spelling, env=env)
        exits(r, 3, f"pull {spelling}: other content")
        contains(r.err, "SHA-256", f"pull {spelling}")
    (TMP / "xdg" / "clip" / "ViT-B-32.pt").write_bytes(b"left by something else")
    r = run("models", "pull", "ViT-B/32", env=env)
    exits(r, 3, "a file in the cache that is not OpenAI's")
    contains(r.err, "remove it", "says what to do")
    (TMP / "xdg" / "clip" / "ViT-B-32.pt").unlink()
    hub.repos["laion/CLIP-ViT-B-32-laion2B-s34B-b79K"] = hub.repos["org/clip"]
    r = run("models", "pull", "ViT-B-32/laion2b_s34b_b79k", env={"HF_ENDPOINT": hub.url, "HF_HUB_CACHE": str(TMP / "m")})
    exits(r, 0, "pull of a published name")
    contains(r.out, "models--laion--CLIP-ViT-B-32-laion2B-s34B-b79K", "the hub's folder")
    r = run("models", "list", "--cached", env={"HF_HUB_CACHE": str(TMP / "m"), "XDG_CACHE_HOME": str(TMP / "xdg")})
    equal([row["name"] for row in r.rows() if "laion2B-s34B-b79K" in (row["path"] or "") and row["name"].startswith("ViT-B-32/")],
          ["ViT-B-32/laion2b_s34b_b79k"], "the list knows where it is")
    del hub.openai[name]
    exits(run("models", "info", "-m", "ViT-B/32", env=env), 3, "not there")


layout()
resume()
wrong_content()
tokens()
refusals()
models()
openai()
finish()
