#!/usr/bin/env python3
"""`noema train` on labels: captions by class, the label-aware loss, mirrored and cropped pictures; what is wrong is named."""
import json
import math

from harness import TMP, check, exits, finish, run

CONFIG = {"embed_dim": 16, "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16},
          "text_cfg": {"context_length": 16, "vocab_size": 530, "width": 64, "heads": 1, "layers": 1}}
CAPTIONS = [{"label": "cat", "captions": ["a cat", "고양이", "고양이 사진", "a photo of a cat"]}, {"label": "dog", "captions": ["a dog", "개"]},
            {"label": "unused", "captions": ["nothing"]}]


def write(path, rows):
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))


def prepare():
    for i in range(8):
        (TMP / f"{i}.ppm").write_bytes(b"P6 24 20 255 " + bytes((j * (i + 3) + j // 7) % 256 for j in range(24 * 20 * 3)))
    write(TMP / "two.jsonl", [{"filepath": f"{i}.ppm", "label": ("cat", "dog")[i % 2]} for i in range(8)])
    write(TMP / "one.jsonl", [{"filepath": f"{i}.ppm", "label": "cat"} for i in range(8)])
    write(TMP / "own.jsonl", [{"filepath": f"{i}.ppm", "label": f"c{i}"} for i in range(8)])
    write(TMP / "titles.jsonl", [{"filepath": f"{i}.ppm", "title": f"picture {i}"} for i in range(8)])
    write(TMP / "captions.jsonl", CAPTIONS)
    write(TMP / "own_captions.jsonl", [{"label": f"c{i}", "captions": [f"picture {i}"]} for i in range(8)])
    (TMP / "config.json").write_text(json.dumps(CONFIG))
    (TMP / "text.txt").write_text("a cat a dog a cat a dog\n고양이 사진 고양이 사진\na photo of a cat\n" * 3)
    exits(run("data", "vocab", "--text-file", TMP / "text.txt", "--size", "530", "--out", TMP / "v.txt.gz"), 0, "vocabulary")


def train(name, data, *more):
    return run("train", "--config", TMP / "config.json", "--tokenizer", TMP / "v.txt.gz", "--train-data", TMP / data, "--batch-size", "8", "--lr", "0",
               "--warmup", "0", "--wd", "0", "--quiet", "--logs", TMP / "logs", "--name", name, *more)


def losses(name, data, *more):
    if not exits(train(name, data, *more), 0, name):
        return []
    return [json.loads(line)["loss"] for line in (TMP / "logs" / name / "log.jsonl").read_text().splitlines()]


def works():
    a = losses("a", "two.jsonl", "--captions", TMP / "captions.jsonl", "--unicl", "--epochs", "4", "--seed", "3")
    b = losses("b", "two.jsonl", "--captions", TMP / "captions.jsonl", "--unicl", "--epochs", "4", "--seed", "3")
    check(len(a) == 4 and a == b, f"a seed, the same captions: {a} {b}")
    check(len(set(a)) > 1, f"captions and crops change from epoch to epoch: {a}")
    still = losses("still", "two.jsonl", "--captions", TMP / "captions.jsonl", "--unicl", "--epochs", "4", "--no-augment")
    check(len(set(still)) > 1, f"captions alone change: {still}")
    crop = losses("crop", "titles.jsonl", "--epochs", "2", "--aug-cfg", "scale=0.3,1 hflip=0.5", "--no-shuffle")
    check(len(set(crop)) == 2, f"crops alone change: {crop}")
    one = losses("one", "one.jsonl", "--captions", TMP / "captions.jsonl", "--unicl", "--epochs", "1")
    check(one and one[0] >= math.log(8) - 1e-6, f"one class: every target is flat, the loss is at least ln 8: {one}")
    for data, captions in (("own.jsonl", ["--captions", TMP / "own_captions.jsonl"]), ("titles.jsonl", [])):
        u = losses("u" + data[0], data, *captions, "--unicl", "--epochs", "1", "--no-augment")
        i = losses("i" + data[0], data, *captions, "--epochs", "1", "--no-augment")
        check(u and i and abs(u[0] - i[0]) < 1e-5, f"{data}: rows that differ are groups of their own: {u} {i}")
    write(TMP / "equal.jsonl", [{"filepath": f"{i}.ppm", "title": "the same"} for i in range(8)])
    e = losses("equal", "equal.jsonl", "--unicl", "--epochs", "1")
    check(e and e[0] >= math.log(8) - 1e-6, f"equal texts without a label are one group: {e}")


def refused():
    def says(what, data, captions, *more):
        path = TMP / "bad.jsonl"
        path.write_text(captions)
        r = train("bad", data, "--captions", path, *more)
        check(r.code != 0 and what in r.err, f"{captions[:40]!r}: expected '{what}', got {r.code}: {r.err[-200:]}")
    says('no captions for the class "dog"', "two.jsonl", '{"label": "cat", "captions": ["a"]}\n')
    says("has no label", "titles.jsonl", '{"label": "cat", "captions": ["a"]}\n')
    says("line 2", "two.jsonl", '{"label": "cat", "captions": ["a"]}\n{"label": "dog", "captions": []}\n')
    says("caption 2", "two.jsonl", '{"label": "cat", "captions": ["a", ""]}\n')
    says("line 1", "two.jsonl", "not json\n")
    says("line 1", "two.jsonl", '{"label": -1, "captions": ["a"]}\n')
    exits(train("bad", "two.jsonl", "--captions", TMP / "missing.jsonl"), 3, "a captions file that is not there")
    exits(train("bad", "titles.jsonl", "--unicl", "--siglip"), 1, "two losses")


prepare()
works()
refused()
finish()
