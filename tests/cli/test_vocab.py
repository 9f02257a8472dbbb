#!/usr/bin/env python3
"""`noema data vocab`: the merges are those of byte-pair encoding written the slow way, the file is the same at every run, the tokenizer
reads it, and bad input is refused."""
import collections
import gzip
import json

from harness import TMP, check, finish, ran

TEXT = """a photo of a cat
A photo of the Cat, the tabby cat
the photographer's photos: 12 cats
고양이 사진
작은 고양이의 사진
고양이와 개, 고양이와 개
aaaa aaaaa aa aaaaaaa
naïve café — naïve café
"""


def byte_names():
    order = list(range(33, 127)) + list(range(161, 173)) + list(range(174, 256))
    rest = [b for b in range(256) if b not in order]
    return {b: chr(b) for b in order} | {b: chr(256 + i) for i, b in enumerate(rest)}, order + rest


def split(text):
    """CLIP's pieces of an already simple text: 's and friends, letters, single digits, other signs."""
    out, i = [], 0
    kind = lambda c: 3 if c.isspace() else 1 if c.isalpha() else 2 if c.isnumeric() else 0
    while i < len(text):
        k = kind(text[i])
        j = i + 1
        if k == 0 and text[i] == "'":
            for tail in ("'s", "'t", "'re", "'ve", "'m", "'ll", "'d"):
                if text.startswith(tail, i):
                    j = i + len(tail)
                    break
        if j == i + 1 and k in (0, 1):
            while j < len(text) and kind(text[j]) == k:
                j += 1
        if k != 3:
            out.append(text[i:j])
        i = j
    return out


def slow_bpe(text, merges):
    name, order = byte_names()
    number = {name[b]: i for i, b in enumerate(order)} | {name[b] + "</w>": 256 + i for i, b in enumerate(order)}
    words = collections.Counter(w for line in text.lower().splitlines() for w in split(line))
    spelled = {}
    for w in words:
        s = [name[b] for b in w.encode()]
        spelled[w] = s[:-1] + [s[-1] + "</w>"]
    ids = {w: [number[x] for x in s] for w, s in spelled.items()}
    names = {i: n for n, i in number.items()}
    out = []
    for rank in range(merges):
        pairs = collections.Counter()
        for w, s in ids.items():
            for p in zip(s, s[1:]):
                pairs[p] += words[w]
        if not pairs:
            break
        best = min(pairs, key=lambda p: (-pairs[p], p))
        if pairs[best] < 2:
            break
        new = 512 + rank
        names[new] = names[best[0]] + names[best[1]]
        out.append(f"{names[best[0]]} {names[best[1]]}")
        for w, s in ids.items():
            t, i = [], 0
            while i < len(s):
                if i + 1 < len(s) and (s[i], s[i + 1]) == best:
                    t.append(new)
                    i += 2
                else:
                    t.append(s[i])
                    i += 1
            ids[w] = t
    return out, {w: s for w, s in ids.items()}


(TMP / "text.txt").write_text(TEXT)
lists = []
for name in ("a.txt.gz", "b.txt.gz"):
    r = json.loads(ran("data", "vocab", "--text-file", TMP / "text.txt", "--size", 545, "--out", TMP / name).out)
    check(r["rows"] == 545, f"rows {r['rows']}")
    lists.append((TMP / name).read_bytes())
check(lists[0] == lists[1], "two runs, one file")
lines = gzip.decompress(lists[0]).decode().splitlines()
want, ids = slow_bpe(TEXT, 545 - 514)
check(lines[1:] == want, f"merges: {[(a, b) for a, b in zip(lines[1:], want) if a != b][:3]}, {len(lines) - 1} of {len(want)}")
config = TMP / "config.json"
config.write_text(json.dumps({"embed_dim": 8, "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16},
                              "text_cfg": {"context_length": 16, "vocab_size": 545, "width": 64, "heads": 1, "layers": 1}}))
for text in ("the cat", "고양이의 사진", "aaaaaaa", "photos"):
    got = json.loads(ran("inspect", "tokens", "--tokenizer", TMP / "a.txt.gz", "--config", config, "--text", text).out)["ids"]
    words = text.split()
    if all(w in ids for w in words):
        check(got == [543] + [i for w in words for i in ids[w]] + [544], f"{text}: {got}")
# more rows than the text has pairs: said, and the list is as long as it gets
r = ran("data", "vocab", "--text-file", TMP / "text.txt", "--size", 5000, "--out", TMP / "c.txt")
rows = json.loads(r.out)["rows"]
check(514 < rows < 5000 and "no pair comes twice" in r.err, f"exhausted: {rows}, {r.err}")
check(len((TMP / "c.txt").read_text().splitlines()) == rows - 514 + 1, "lines of the exhausted list")
(TMP / "empty.txt").write_text(" \n\n")
ran("data", "vocab", "--text-file", TMP / "empty.txt", "--out", TMP / "d.txt", code=3)
ran("data", "vocab", "--text-file", TMP / "none.txt", "--out", TMP / "d.txt", code=3)
ran("data", "vocab", "--text-file", TMP / "text.txt", "--size", 100, "--out", TMP / "d.txt", code=1)
ran("data", "vocab", code=1)
(TMP / "latin.txt").write_bytes(b"caf\xe9 cat cat\n")
ran("data", "vocab", "--text-file", TMP / "latin.txt", "--size", 520, "--out", TMP / "d.txt", code=3)
check(not (TMP / "d.txt").exists(), "no file after an error")
finish()
