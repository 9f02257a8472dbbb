#!/usr/bin/env python3
"""Data sets through the command: webdataset shards (braces, gzip, double suffixes, a damaged picture, a sample without caption), folders, Parquet,
`data info`, `data verify`, `data convert`, and training on them: skipped rows, captions of class names, the same order after --resume."""
import gzip
import io
import json
import os
import struct
import tarfile
import zlib

import harness
from harness import OWN, TMP, check, contains, equal, exits, finish, golden, tiny_merges


def run(*args):
    return harness.run(*[a if isinstance(a, os.PathLike) else str(a) for a in args])


def png(k, size=20):
    rows = b"".join(b"\0" + bytes((x * 7 + y * (k + 3) + c * 40 + k * 31) % 256 for x in range(size) for c in range(3)) for y in range(size))
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", size, size, 8, 2, 0, 0, 0)) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def tar(path, members, mode="w"):
    with tarfile.open(path, mode) as t:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            t.addfile(info, io.BytesIO(data))


def one(r):
    return r.rows()[0]


MODEL, CONFIG, TOK = OWN / "clip/openclip_vit.safetensors", OWN / "clip/openclip_vit.config.json", tiny_merges()
TRAIN = ["-m", MODEL, "--config", CONFIG, "--tokenizer", TOK, "--batch-size", "4", "--lr", "1e-4", "--warmup", "0", "--logs", TMP / "logs", "--quiet", "--seed", "3"]


def train(name, *args, code=0):
    r = run("train", *TRAIN, "--name", name, *args)
    exits(r, code, f"train {name}")
    return r


def log(name):
    return (TMP / "logs" / name / "log.jsonl").read_text().splitlines()


def shards():
    for s in range(2):
        members = [("__meta__/info.json", b"{}"), ("d/.hidden", b"x")]
        for i in range(6):
            k = 6 * s + i
            picture = b"\x89PNG\r\n\x1a\nbroken" if k == 7 else png(k)
            members += [(f"d/{k:03}.png", picture), (f"d/{k:03}.seg.png", b"mask")]
            if k != 4:
                members.append((f"d/{k:03}.txt", f"picture number {k} 한글".encode()))
        tar(TMP / f"s-{s:04}.tar", members)
    (TMP / "s-0002.tgz").write_bytes(gzip.compress((TMP / "s-0000.tar").read_bytes()))


def look():
    r = run("data", "info", TMP / "s-{0000..0001}.tar", "--rows", 5)
    if exits(r, 0, "info of shards"):
        i = one(r)
        equal((i["rows"], [p["rows"] for p in i["parts"]], i["parts"][0]["format"]), (11, [5, 6], "webdataset"), "the sample without caption is left out")
        equal(i["first"][4]["captions"], ["picture number 5 한글"], "caption")
        equal((i["first"][0]["picture"], i["first"][0]["width"]), ("PNG", 20), "picture, not its mask")
    equal(one(run("data", "info", TMP / "s-0002.tgz"))["rows"], 5, "gzip")
    equal(one(run("data", "info", f"{TMP}/s-*.tar::{TMP}/s-0002.tgz"))["rows"], 16, "wildcards and ::")
    r = run("data", "verify", TMP / "s-0001.tar")
    exits(r, 2, "verify finds the damaged picture")
    equal(one(r)["unreadable"], 1, "one of them")
    contains(r.err, "d/007", "and names it")
    (TMP / "cut.tar").write_bytes((TMP / "s-0000.tar").read_bytes()[:2700])
    contains(run("data", "info", TMP / "cut.tar").err, "truncated", "a truncated shard")
    (TMP / "cut.tgz").write_bytes((TMP / "s-0002.tgz").read_bytes()[:300])
    contains(run("data", "info", TMP / "cut.tgz").err, "damaged or truncated", "a truncated gzip")
    i = one(run("data", "info", OWN / "parquet/delta_bytes_v2.parquet", "--rows", 2))
    equal((i["rows"], i["class_names"], i["first"][1]["class"], i["first"][1]["captions"]), (300, ["cat", "dog", "한국"], "dog", ["row 0 한글"]), "Parquet")
    contains(run("data", "info", OWN / "parquet/required.parquet").err, "no column of pictures", "a table without pictures")
    contains(run("data", "info", OWN / "parquet/no_rows.parquet").err, "empty", "no rows")


def folder():
    for name, ks in (("ㄱ 고양이", (0, 1, 2, 3)), ("b", (4, 5, 6)), ("a", (7, 8))):
        (TMP / "folder" / name).mkdir(parents=True)
        for k in ks:
            (TMP / "folder" / name / f"{k}.png").write_bytes(png(k))
    i = one(run("data", "info", TMP / "folder"))
    equal((i["rows"], i["class_names"], i["first"][0]["class"]), (9, ["a", "b", "ㄱ 고양이"], "a"), "classes are folders")
    contains(train("none", "--train-data", TMP / "folder", "--epochs", 1, code=1).err, "--templates", "no captions")
    (TMP / "t.txt").write_text("a photo of {}\n{} 사진\n")
    (TMP / "names.json").write_text(json.dumps([{"label": 1, "name": "dog"}, {"label": 0, "synset": "cat"}]))
    train("folder", "--train-data", TMP / "folder", "--templates", TMP / "t.txt", "--epochs", 1, "--aug-cfg", "pad_crop=4 hflip=0.5")
    equal(len(log("folder")), 2, "two steps")
    r = train("names", "--train-data", TMP / "folder", "--templates", "simple", "--class-names", TMP / "names.json", "--epochs", 1, code=3)
    contains(r.err, "none of the 2 given names", "a class that was not named")
    contains(train("aug", "--train-data", TMP / "folder", "--templates", "simple", "--aug-cfg", "zoom=2", code=1).err, "zoom", "an unknown augmentation")


def training():
    data = TMP / "s-{0000..0001}.tar"
    r = train("a", "--train-data", data, "--epochs", 4)
    rows = [json.loads(x) for x in (TMP / "logs/a/skipped.jsonl").read_text().splitlines()]
    check(rows and all("d/007" in x["input"] and x["error"] for x in rows), f"the damaged picture is in the ledger: {rows}")
    equal(len(log("a")), 8, "steps of 11 rows, 4 epochs")
    contains(r.err, "could not be read", "and said")
    train("b", "--train-data", data, "--epochs", 4)
    equal(log("b"), log("a"), "the same seed, the same run")
    for f in (TMP / "logs/b/checkpoints").iterdir():
        if f.name != "epoch_2.pt":
            f.unlink()
    train("b", "--train-data", data, "--epochs", 4, "--resume", "latest", "--workers", 1)
    equal(log("b"), log("a"), "the same rows after --resume, whatever the number of workers")
    equal((TMP / "logs/b/skipped.jsonl").read_text(), (TMP / "logs/a/skipped.jsonl").read_text(), "the ledger goes on too")
    contains(train("c", "--train-data", data, "--epochs", 4, "--max-skipped", 0, code=3).err, "--max-skipped 0", "above the limit")
    train("d", "--train-data", data, "--epochs", 2, "--train-num-samples", 8)
    equal([json.loads(x)["epoch"] for x in log("d")], [0, 0, 1, 1], "--train-num-samples")


def convert():
    (TMP / "p.jsonl").write_text("".join(json.dumps({"filepath": f"folder/b/{k}.png", "title": f"title {k}", "label": k - 4}) + "\n" for k in (4, 5, 6)) +
                                 json.dumps({"filepath": "missing.png", "title": "gone"}) + "\n")
    out = TMP / "out"
    r = run("data", "convert", "--out", out, "--shard-rows", 2, TMP / "p.jsonl")
    exits(r, 2, "convert names the missing picture")
    contains(r.err, "missing.png", "by its path")
    equal((out / "sizes.json").read_text(), '{"00000.tar": 2, "00001.tar": 1}\n', "sizes")
    with tarfile.open(out / "00000.tar") as t:
        equal(t.getnames(), ["00000000000.cls", "00000000000.png", "00000000000.txt", "00000000001.cls", "00000000001.png", "00000000001.txt"], "members")
        equal(t.extractfile("00000000001.png").read(), png(5), "the picture's bytes")
    i = one(run("data", "info", out))
    equal((i["rows"], [x["captions"] for x in i["first"]], [x["label"] for x in i["first"]]), (3, [["title 4"], ["title 5"], ["title 6"]], [0, 1, 2]), "and back")
    before = os.stat(out / "00000.tar").st_mtime_ns
    os.unlink(out / "00001.tar")
    exits(run("data", "convert", "--out", out, "--shard-rows", 2, TMP / "p.jsonl"), 2, "goes on")
    check(os.stat(out / "00000.tar").st_mtime_ns == before and (out / "00001.tar").exists(), "finished shards are kept, missing ones made")
    exits(run("data", "convert", "--out", out, "--shard-rows", 3, TMP / "p.jsonl"), 1, "another size in the same folder")
    r = run("data", "convert", "--out", TMP / "named", TMP / "folder")
    exits(r, 0, "a folder")
    equal((TMP / "named/classnames.txt").read_text(), "a\nb\nㄱ 고양이\n", "class names")


def published():
    """webdataset's and clip-retrieval's own shards (golden/eval/shards/expected.json)."""
    s = golden("eval", "shards")
    if s is None:
        return
    i = one(run("data", "info", s / "sample.tgz", "--rows", 90))
    equal((i["rows"], i["first"][0]["label"], i["first"][0]["name"].endswith("sample.tgz: 10"), i["first"][89]["name"].endswith(": 99")), (90, 0, True, True), "sample.tgz")
    i = one(run("data", "info", s / "image3.tar"))
    equal((i["rows"], i["first"][0]["name"].endswith(": 123_456"), i["first"][1]["name"].endswith(": 208_495")), (2, True, True), "image3.tar")
    contains(run("data", "info", s / "compressed.tar").err, "empty", "compressed.tar holds no pictures")
    contains(run("data", "info", s / "test_1000.parquet").err, "links", "links are no pictures")


shards()
look()
folder()
training()
convert()
published()
finish()
