#!/usr/bin/env python3
"""evaluate.py CAPTIONS.jsonl ROWS.jsonl NAMES.tsv COLUMN FIRST REFERENCES.json RESULTS.json: the share of pictures whose caption (`noema caption`) has a name of its class, with
Wilson's interval, and the two files in COCO's form that `noema eval captions` reads.

ROWS: {"filepath", "label"}, label k is line FIRST + k of NAMES; COLUMN: 1 English, 2 Korean names, "|" between alternatives. A name counts where no letter
stands before or behind it (behind a Korean one a particle may)."""
import json
import math
import pathlib
import re
import sys

captions, rows, names, column, first, references, results = sys.argv[1:8]
classes = [line.split("\t")[int(column)].split("|") for line in pathlib.Path(names).read_text().splitlines()]
said = {pathlib.Path(x["input"]).name: x["caption"] for x in map(json.loads, pathlib.Path(captions).read_text().splitlines())}
behind = "" if column == "2" else r"(?!\w)"
form = (lambda n: f"{n} 사진") if column == "2" else (lambda n: f"a photo of {'an' if n[0].lower() in 'aeiou' else 'a'} {n}")
right, images, wanted, given = 0, [], [], []
for k, row in enumerate(map(json.loads, pathlib.Path(rows).read_text().splitlines())):
    mine = classes[int(first) + row["label"]]
    text = said.get(pathlib.Path(row["filepath"]).name, "")
    right += any(re.search(rf"(?<!\w){re.escape(n.lower())}{behind}", text.lower()) is not None for n in mine)
    images.append({"id": k, "file_name": row["filepath"]})
    wanted += [{"id": len(wanted) + i, "image_id": k, "caption": form(n)} for i, n in enumerate(mine)]
    given.append({"image_id": k, "caption": text})
n, z = len(images), 1.959963984540054
p, d = right / n, 1 + z * z / n
middle, half = (p + z * z / (2 * n)) / d, z / d * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
pathlib.Path(references).write_text(json.dumps({"images": images, "annotations": wanted}, ensure_ascii=False))
pathlib.Path(results).write_text(json.dumps(given, ensure_ascii=False))
print(json.dumps({"rows": n, "named": p, "interval": [middle - half, middle + half]}))
