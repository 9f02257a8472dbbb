"""What the command's tests share: running the binary given as argv[1], checks that collect failures, golden folders."""
import gzip
import json
import os
import pathlib
import struct
import subprocess
import sys
import tempfile
import zlib

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARY = sys.argv[1] if len(sys.argv) > 1 else str(ROOT / "build" / "noema")
SHARED = ROOT.parent / "shared" / "golden"
OWN = ROOT / "tests" / "golden"
KINDS = {"F32": "f", "I32": "i", "I64": "q", "U8": "B", "F64": "d"}  # of safetensors, as struct names them
failures, checks, skipped = [], 0, []


class Result:
    def __init__(self, code, out, err):
        self.code, self.raw, self.err = code, out, err.decode("utf-8", "replace")
        self.out = out.decode("utf-8", "replace")

    def rows(self):
        return [json.loads(line) for line in self.out.splitlines()]


def run(*args, stdin=b"", env=None, timeout=120, cwd=None):
    """Runs noema with args; never on a terminal, never with the caller's hub settings or proxies."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "NOEMA_OPENAI")) and not k.lower().endswith("_proxy")}
    clean["NO_PROXY"] = "*"
    clean.update(env or {})
    p = subprocess.run([BINARY, *[os.fspath(a) for a in args]], input=stdin, capture_output=True, env=clean, timeout=timeout, cwd=cwd)
    return Result(p.returncode, p.stdout, p.stderr)


def ran(*args, code=0, **how):
    """run() of numbers, paths and texts, whose exit code is the expected one or the test ends."""
    r = run(*map(str, args), **how)
    if not exits(r, code, " ".join(map(str, args))[:400]):
        finish()
    return r


def check(ok, what):
    global checks
    checks += 1
    if not ok:
        failures.append(what)
        print(f"FAILED: {what}", file=sys.stderr)
    return ok


def equal(got, want, what):
    return check(got == want, f"{what}: expected {want!r}, got {got!r}"[:2000])


def contains(text, part, what):
    return check(part in text, f"{what}: expected {part!r} in {text!r}"[:2000])


def exits(r, code, what):
    return check(r.code == code, f"{what}: expected exit {code}, got {r.code}; stderr: {r.err[-600:]}")


def close(got, want, tol, what):
    """Two flat lists of numbers; NaN equals nothing."""
    if not equal(len(got), len(want), f"{what}: length"):
        return False
    worst = max((abs(a - b) if abs(a - b) == abs(a - b) else float("inf") for a, b in zip(got, want)), default=0.0)
    return check(worst <= tol, f"{what}: largest difference {worst:g}, allowed {tol:g}")


def golden(*parts):
    """A path below the shared goldens or, without those, the ones in the repository; None (and a loud note) when neither has it."""
    for base in (SHARED, OWN):
        p = base.joinpath(*parts)
        if p.exists():
            return p
    skip(f"golden {'/'.join(parts)}")
    return None


def skip(what):
    skipped.append(what)
    print(f"SKIPPED, not there: {what}", file=sys.stderr)


def tiny_merges():
    """A merge list with the 62 merges that the tiny CLIP's vocabulary of 576 has room for (2 * 256 bytes, 62 merges, 2 specials)."""
    pairs = [f"{a} {b}" for a in "abcdefgh" for b in "aeiourst"][:62]
    path = TMP / "bpe.txt.gz"
    path.write_bytes(gzip.compress(("#version: 0.2\n" + "\n".join(pairs) + "\n").encode()))
    return path


def read_npy(path):
    """(type, shape, flat list) of a little-endian f32 or u8 array."""
    data = pathlib.Path(path).read_bytes()
    assert data[:6] == b"\x93NUMPY", path
    size = struct.unpack("<H", data[8:10])[0] if data[6] == 1 else struct.unpack("<I", data[8:12])[0]
    start = (10 if data[6] == 1 else 12) + size
    head = eval(data[start - size:start].decode("latin-1"), {"__builtins__": {}}, {"True": True, "False": False})
    count = 1
    for n in head["shape"]:
        count *= n
    kind = {"<f4": "f", "|u1": "B"}[head["descr"]]
    return head["descr"], head["shape"], list(struct.unpack_from(f"<{count}{kind}", data, start))


def write_npy(path, shape, values):
    head = repr({"descr": "<f4", "fortran_order": False, "shape": tuple(shape)}).encode()
    head += b" " * ((-len(head) - 11) % 64) + b"\n"
    pathlib.Path(path).write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + struct.pack(f"<{len(values)}f", *values))


def safetensors_head(path):
    data = pathlib.Path(path).read_bytes()
    return json.loads(data[8:8 + struct.unpack("<Q", data[:8])[0]])


def read_safetensors(path):
    """name -> (type, shape, flat list) for f32, i32, i64 and u8 tensors."""
    data = pathlib.Path(path).read_bytes()
    n = struct.unpack("<Q", data[:8])[0]
    out = {}
    for name, t in json.loads(data[8:8 + n]).items():
        if name != "__metadata__" and t["dtype"] in KINDS:
            a, b = t["data_offsets"]
            part, kind = data[8 + n + a:8 + n + b], KINDS[t["dtype"]]
            out[name] = (t["dtype"], t["shape"], list(struct.unpack(f"<{len(part) // struct.calcsize(kind)}{kind}", part)))
    return out


def write_safetensors(path, tensors, metadata=None):
    """tensors: name -> (type, shape, flat list) as read_safetensors gives them."""
    head, body = {"__metadata__": metadata} if metadata else {}, b""
    for name, (dtype, shape, values) in tensors.items():
        part = struct.pack(f"<{len(values)}{KINDS[dtype]}", *values)
        head[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [len(body), len(body) + len(part)]}
        body += part
    text = json.dumps(head).encode()
    pathlib.Path(path).write_bytes(struct.pack("<Q", len(text)) + text + body)


def write_png(path, width, height, rgb):
    """rgb: bytes, three a pixel."""
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    rows = b"".join(b"\0" + bytes(rgb[3 * width * y:3 * width * (y + 1)]) for y in range(height))
    pathlib.Path(path).write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">2I5B", width, height, 8, 2, 0, 0, 0)) +
                                   chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


def f32(x):
    return struct.unpack("<f", struct.pack("<f", x))[0]


def finish():
    print(f"{checks} checks, {len(failures)} failed" + (f", SKIPPED: {', '.join(skipped)}" if skipped else ""))
    sys.exit(1 if failures or not checks else 0)


tmp = tempfile.TemporaryDirectory(prefix="noema-test-")
TMP = pathlib.Path(tmp.name)
