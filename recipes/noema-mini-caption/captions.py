#!/usr/bin/env python3
"""captions.py NAMES.tsv EMOJI.tsv OUT: captions.jsonl in OUT, the captions of each label (as captions.awk of noema-mini names the columns), each behind the word
that the model's configuration begins its language with. The first name counts four times, an alternative once; both languages equally often."""
import json
import pathlib
import sys

names, emoji, out = map(pathlib.Path, sys.argv[1:4])


def article(name):
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"


def phrases(text, form):
    first, *others = text.split("|")
    return [form(first)] * 4 + [form(x) for x in others]


def both(en, ko):
    """Either list repeated until they are of one length."""
    return ["en: " + x for x in en * len(ko)] + ["ko: " + x for x in ko * len(en)] if ko else ["en: " + x for x in en]


with (out / "captions.jsonl").open("w") as f:
    for line in names.read_text().splitlines():
        label, en, ko = line.split("\t")[:3]
        f.write(json.dumps({"label": label, "captions": both(phrases(en, lambda x: "a photo of " + article(x)), phrases(ko, lambda x: x + " 사진"))}, ensure_ascii=False) + "\n")
    for line in emoji.read_text().splitlines():
        _, label, en, ko = line.split("\t")[:4]
        f.write(json.dumps({"label": label, "captions": both([f"an emoji of {en}"], [f"{ko} 이모지"] if ko else [])}, ensure_ascii=False) + "\n")
