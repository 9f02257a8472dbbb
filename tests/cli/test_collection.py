#!/usr/bin/env python3
"""noema index, search, similar, collections: incremental indexing, moved and failed files, queries, kills, full disks, memory."""
import json
import math
import os
import random
import resource
import shutil
import signal
import struct
import subprocess
import time
import zlib

from harness import BINARY, OWN, TMP, check, close, contains, equal, exits, finish, read_npy, run, tiny_merges

MODEL = OWN / "clip" / "openclip_vit.safetensors"
CONFIG = OWN / "clip" / "openclip_vit.config.json"
ENV = {"XDG_DATA_HOME": str(TMP / "data")}
COL = TMP / "col"


def png(path, seed, size=40):
    rng = random.Random(seed)
    a, b, c = (rng.randrange(256) for _ in range(3))
    rows = b"".join(b"\0" + bytes(v & 255 for x in range(size) for v in (a + x * (seed % 7), b + y * (seed % 5), c ^ x * y)) for y in range(size))
    chunk = lambda kind, data: struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", size, size, 8, 2, 0, 0, 0)) +
                     chunk(b"IDAT", zlib.compress(rows, 1)) + chunk(b"IEND", b""))


MERGES = tiny_merges()
MODEL_ARGS = ["-m", MODEL, "--config", CONFIG, "--tokenizer", MERGES]


def noema(*args, **kw):
    return run(*args, env=ENV, **kw)


def counts(r, **want):
    got = r.rows()[-1] if r.out else {}
    for k, v in want.items():
        equal(got.get(k), v, f"{k} of {got}")


def results(r):
    return [[(x["path"], x["score"]) for x in q["results"]] for q in r.rows()]


def vectors(*inputs):
    r = noema("embed", *MODEL_ARGS, *inputs)
    exits(r, 0, "embed")
    return [row["embedding"] for row in r.rows()]


def test_incremental():
    pics = TMP / "pics"
    (pics / "sub").mkdir(parents=True)
    for i in range(20):
        png((pics / "sub" if i % 4 == 0 else pics) / f"p{i:02}.png", i)
    (pics / "bad.jpg").write_bytes(b"not a picture")
    (pics / "notes.txt").write_text("left alone")
    r = noema("index", *MODEL_ARGS, "--collection", COL, pics)
    exits(r, 2, "one bad file")
    counts(r, added=15, failed=1, items=15)
    contains(r.err, "bad.jpg", "the bad file is named")
    r = noema("index", "--collection", COL, "-r", pics)  # the model is remembered, with its options
    exits(r, 2, "known failure")
    counts(r, added=5, unchanged=15, failed=1, failed_before=1, items=20)
    r = noema("index", "--collection", COL, "-r", "--retry-failed", pics)
    counts(r, added=0, unchanged=20, failed=1, failed_before=0)
    png(pics / "bad.jpg", 99)
    os.rename(pics / "p01.png", pics / "sub" / "moved.png")
    shutil.copy(pics / "p02.png", pics / "copy.png")
    png(pics / "p03.png", 1003, 44)
    os.utime(pics / "p05.png", (1, 1))
    os.remove(pics / "p06.png")
    r = noema("index", "--collection", COL, "-r", pics)
    exits(r, 0, "all well")
    counts(r, added=2, copied=1, changed=1, moved=1, unchanged=17, deleted=0, failed=0, items=22)
    r = noema("index", "--collection", COL, "-r", "--prune", pics)
    counts(r, added=0, changed=0, unchanged=21, deleted=1, items=21)
    r = noema("index", "--collection", COL, "--prune", TMP / "not-mounted")
    exits(r, 3, "a missing root is a failure, not a reason to delete")
    counts(r, deleted=0, items=21)
    r = noema("collections", "check", COL)
    exits(r, 0, "check")
    # every vector is the one that embed gives, whatever way it took into the collection
    out = TMP / "all.npy"
    exits(noema("collections", "export", COL, "--out", out), 0, "export")
    rows = [json.loads(x) for x in (TMP / "all.npy.inputs.jsonl").read_text().splitlines()]
    _, shape, values = read_npy(out)
    equal(shape, (21, 32), "exported shape")
    want = vectors(*[x["input"] for x in rows])
    close(values, [v for w in want for v in w], 1e-6, "exported vectors")
    equal(sorted(x["input"] for x in rows), sorted(str(p) for p in pics.rglob("*") if p.suffix in (".png", ".jpg")), "exported paths")
    return pics


def test_queries(pics):
    dot = lambda a, b: sum(x * y for x, y in zip(a, b))
    unit = lambda v: [x / math.sqrt(dot(v, v)) for x in v]
    files = sorted(str(p) for p in pics.rglob("*") if p.suffix in (".png", ".jpg"))
    vec = dict(zip(files, vectors(*files)))
    t = dict(zip(["a dog", "a cat", "one - two"], vectors("--text", "a dog", "--text", "a cat", "--text", "one - two")))

    def expect(r, what, q, k, among=files):
        exits(r, 0, what)
        got = results(r)[0]
        ranked = sorted(among, key=lambda f: -dot(q, vec[f]))[:k]
        equal(len(got), k, f"{what}: number of results")
        close([s for _, s in got], [dot(q, vec[f]) for f in ranked], 1e-5, f"{what}: scores")
        close([s for _, s in got], [dot(q, vec[f]) for f, _ in got], 1e-5, f"{what}: score of its path")

    expect(noema("search", "--collection", COL, "--text", "a dog", "--top", "5"), "text", t["a dog"], 5)
    expect(noema("search", "--collection", COL, "a dog", "-k", "100"), "positional", t["a dog"], 21)
    q = unit([a + b - 0.5 * c for a, b, c in zip(t["a dog"], t["a cat"], vec[files[3]])])
    expect(noema("search", "--collection", COL, f"a dog + a cat - 0.5*@{files[3]}", "-k", "4"), "sum", q, 4)
    expect(noema("search", "--collection", COL, '"one - two"', "-k", "4"), "quoted", t["one - two"], 4)
    expect(noema("search", "--collection", COL, "--text", "one - two", "-k", "4"), "--text is literal", t["one - two"], 4)
    expect(noema("search", "--collection", COL, "--image", files[2], "-k", "3"), "image", vec[files[2]], 3)
    expect(noema("search", "--collection", COL, "--text", "a dog", "--path", "*/sub/*", "-k", "3"), "glob", t["a dog"], 3,
           [f for f in files if "/sub/" in f])
    r = noema("search", "--collection", COL, "--text", "a dog", "--name", "p1", "-k", "100")
    equal(sorted(p for p, _ in results(r)[0]), [f for f in files if "/p1" in f], "--name")
    r = noema("search", "--collection", COL, "a dog", "--threshold", "2")
    equal(results(r), [[]], "--threshold")
    r = noema("search", "--collection", COL, "a dog", "a dog + ", "a cat")
    exits(r, 2, "one bad query of three")
    equal(len(r.rows()), 2, "the others are answered")
    contains(r.err, "both sides", "bad query")
    r = noema("similar", "--collection", COL, files[4], "-k", "2")
    equal(results(r)[0][0][0], files[4], "similar finds the picture itself")
    close([results(r)[0][0][1]], [1], 1e-5, "its score")
    r = noema("similar", "--collection", COL, "--exclude-self", files[4], "-k", "30")
    equal(len(results(r)[0]), 20, "all but itself")
    check(files[4] not in [p for p, _ in results(r)[0]], "itself left out")
    stranger = TMP / "stranger.png"
    png(stranger, 5000)
    vec[str(stranger)] = vectors(stranger)[0]
    expect(noema("similar", "--collection", COL, stranger, "-k", "3"), "a picture from outside", vec[str(stranger)], 3)
    sheet = TMP / "sheet.png"
    exits(noema("search", "--collection", COL, "a dog", "-k", "5", "--contact-sheet", sheet), 0, "contact sheet")
    w, h = struct.unpack(">II", sheet.read_bytes()[16:24])
    check(w > 600 and h > 400, f"contact sheet of {w}x{h}")
    exits(noema("search", "--collection", COL), 1, "no query")
    exits(noema("search", "--collection", TMP / "nowhere", "x"), 3, "no collection")


def test_texts_names_f16():
    texts = TMP / "texts.txt"
    texts.write_text("a dog\na cat\na dog\nfish and chips\n")
    r = noema("index", *MODEL_ARGS, "--collection", "words", "--store", "f16", "--text-file", texts, "--text", "a cat")
    exits(r, 0, "texts under a bare name")
    counts(r, added=3, unchanged=2, items=3)
    check((TMP / "data/noema/collections/words/catalog.sqlite").exists(), "a bare name lies in XDG_DATA_HOME")
    r = noema("search", "--collection", "words", "a cat", "--top", "1", "--kind", "text")
    equal(results(r)[0][0][0], "a cat", "the text itself")
    close([results(r)[0][0][1]], [1], 1e-3, "its score in f16")
    r = noema("collections", "list")
    equal([(x["items"], x["dtype"]) for x in r.rows()], [(3, "f16")], "list")
    other = OWN / "clip" / "hf_siglip"
    r = noema("index", "-m", other, "--collection", "words", TMP / "stranger.png")
    exits(r, 3, "another model")
    for part in ("openclip_vit.safetensors", "hf_siglip"):
        contains(r.err, part, "both models are named")


def test_thumbnails(pics):
    r = noema("index", *MODEL_ARGS, "--collection", TMP / "thumbs", "-r", "--thumbnails", "16", pics)
    exits(r, 0, "thumbnails")
    import sqlite3
    db = sqlite3.connect(TMP / "thumbs/catalog.sqlite")
    heads = [d[0][:3] for d in db.execute("SELECT data FROM thumbs")]
    equal(heads, [b"\xff\xd8\xff"] * 21, "a JPEG for each picture")
    db.close()


def many(n):
    folder = TMP / f"many{n}"
    folder.mkdir()
    for i in range(n):
        png(folder / f"{i:05}.png", i, 24)
    return folder


def contents(col):
    out = TMP / "contents.npy"
    r = noema("collections", "export", col, "--out", out)
    exits(r, 0, "export")
    rows = [json.loads(x)["input"] for x in (TMP / "contents.npy.inputs.jsonl").read_text().splitlines()]
    return sorted(zip(rows, zip(*[iter(read_npy(out)[2])] * 32)))


def test_kills():
    """kill -9 at random moments, many times: afterwards the collection is that of an undisturbed run."""
    folder = many(1500)
    args = ["index", *MODEL_ARGS, "-r", "--batch", "8", folder]
    start = time.time()
    counts(noema(*args, "--collection", TMP / "whole"), added=1500, items=1500)
    span = time.time() - start
    rng = random.Random(3)
    kills = 0
    for _ in range(40):
        p = subprocess.Popen([BINARY, *map(str, args), "--collection", str(TMP / "torn")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            p.wait(rng.uniform(0.02, 0.3 * span + 0.1))
            break
        except subprocess.TimeoutExpired:
            p.send_signal(signal.SIGKILL)
            p.wait()
            kills += 1
    check(kills >= 2, f"{kills} kills")
    exits(noema(*args, "--collection", TMP / "torn"), 0, "the last run")
    exits(noema("collections", "check", TMP / "torn"), 0, "check after kills")
    check(contents(TMP / "torn") == contents(TMP / "whole"), "the same items and vectors as without kills")
    print(f"{kills} kills")
    return folder


def test_full_disk(folder):
    col = TMP / "tight"
    have = 0
    for kib in (40, 120, 200, 260):
        r = subprocess.run([BINARY, *map(str, ["index", *MODEL_ARGS, "--collection", col, "-r", folder])], capture_output=True,
                           preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (kib << 10, kib << 10)))
        check(r.returncode in (2, 3), f"limit {kib} KiB: exit {r.returncode}")
        contains(r.stderr.decode(), str(col), "the message names the collection")
        if not (col / "catalog.sqlite").exists():
            continue
        r = noema("collections", "info", col)
        if have or r.code == 0:
            exits(r, 0, "it opens afterwards")
            items = r.rows()[0]["items"]
            check(items >= have, f"{items} items, there were {have}")
            have = items
            exits(noema("collections", "check", col), 0, "and is whole")
    check(have > 0, "some were kept")
    counts(noema("index", "--collection", col, "-r", folder), items=1500, unchanged=have, added=1500 - have)
    check(contents(col) == contents(TMP / "whole"), "with room again: the same as without limits")


def test_stdin_and_interrupt(folder):
    paths = sorted(folder.iterdir())[:30]
    r = noema("index", *MODEL_ARGS, "--collection", TMP / "piped", "-", stdin="\n".join(map(str, paths)).encode())
    counts(r, added=30, items=30)
    r = noema("index", "--collection", TMP / "piped", paths[0], paths[0], folder.name, cwd=TMP)
    counts(r, added=1470, unchanged=32, items=1500)


def test_damage():
    seg = TMP / "torn" / "vectors-000001.seg"
    data = bytearray(seg.read_bytes())
    data[4096 + 70 * 128] ^= 1
    seg.write_bytes(data)
    r = noema("search", "--collection", TMP / "torn", "a dog")
    exits(r, 0, "search goes on")
    contains(r.err, "64 rows do not match their checksum", "what was dropped is said")
    exits(noema("collections", "check", TMP / "torn"), 3, "check finds it")
    r = noema("index", "--collection", TMP / "torn", "-r", TMP / "many1500")
    counts(r, changed=64, unchanged=1436)
    exits(noema("collections", "compact", TMP / "torn"), 0, "compact")
    r = noema("collections", "check", TMP / "torn")
    exits(r, 0, "whole again")
    equal(r.rows()[0]["deleted"], 0, "no dead rows")
    check(contents(TMP / "torn") == contents(TMP / "whole"), "the same vectors as before")


pics = test_incremental()
test_queries(pics)
test_thumbnails(pics)
test_texts_names_f16()
folder = test_kills()
test_full_disk(folder)
test_stdin_and_interrupt(folder)
test_damage()
finish()
