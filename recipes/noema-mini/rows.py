#!/usr/bin/env python3
"""rows.py DATA OUT: unpacks the Parquet files of DATA (tiny-imagenet-32/, cifar10/) into pictures and lists of rows in OUT, where emoji/ and
emoji.tsv (`noema data emoji --names en,ko`) and captions.jsonl (captions.awk) already are. Needs pyarrow.

    train.jsonl   all 150,000 photos and every emoji twelve times      val.jsonl     3,000 photos of the test sets, with the labels of training
    classes.jsonl the same with every emoji four times                texts.jsonl   46,000 photos and every emoji 16 times
    val_ti.jsonl, val_ci.jsonl (numbers as labels), ti_en.txt, ti_ko.txt, ci_en.txt, ci_ko.txt, emoji_en.jsonl, emoji_ko.jsonl"""
import glob
import json
import pathlib
import random
import sys

import pyarrow.parquet as pq

DATA, OUT = map(pathlib.Path, sys.argv[1:3])
HERE = pathlib.Path(__file__).resolve().parent
WORDNET = [c["wnid"] for c in json.loads((DATA / "tiny-imagenet-32/classes.json").read_text())]
NAMES = [line.split("\t") for line in (HERE / "names.tsv").read_text().splitlines()]
EMOJI = [line.split("\t") for line in (OUT / "emoji/emoji.tsv").read_text().splitlines()]


def unpack(pattern, folder, label):
    (OUT / folder).mkdir(exist_ok=True)
    rows = []
    for f in sorted(glob.glob(str(DATA / pattern))):
        table = pq.read_table(f)
        for image, k in zip(table["image"].to_pylist(), table["label"].to_pylist()):
            name = f"{folder}/{len(rows):06d}.jpg"
            (OUT / name).write_bytes(image["bytes"])
            rows.append({"filepath": name, "label": label(k)})
    return rows


def write(name, rows):
    (OUT / name).write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows))


tiny = unpack("tiny-imagenet-32/train-*", "ti", lambda k: WORDNET[k])
cifar = unpack("cifar10/train-*", "ci", lambda k: f"cifar10:{k}")
emoji = [{"filepath": f"emoji/{e[0]}", "label": e[1]} for e in EMOJI]
write("train.jsonl", tiny + cifar + emoji * 12)
write("classes.jsonl", tiny + cifar + emoji * 4)
random.seed(9)
write("texts.jsonl", random.sample(tiny, 36000) + random.sample(cifar, 10000) + emoji * 16)
first = lambda names: names.split("|")[0]
tiny, cifar = unpack("tiny-imagenet-32/val-*", "tiv", lambda k: k), unpack("cifar10/test-*", "cit", lambda k: k)
write("val_ti.jsonl", tiny)
write("val_ci.jsonl", cifar)
write("val.jsonl", [r | {"label": WORDNET[r["label"]]} for r in random.sample(tiny, 2000)] +
      [r | {"label": f"cifar10:{r['label']}"} for r in random.sample(cifar, 1000)])
for k, language in ((1, "en"), (2, "ko")):
    (OUT / f"ti_{language}.txt").write_text("".join(first(n[k]) + "\n" for n in NAMES[:200]))
    (OUT / f"ci_{language}.txt").write_text("".join(first(n[k]) + "\n" for n in NAMES[200:]))
    write(f"emoji_{language}.jsonl", [{"filepath": f"emoji/{e[0]}", "title": e[1 + k]} for e in EMOJI if e[1 + k]])
