#!/usr/bin/env bash
# Trains noema-mini. usage: run.sh NOEMA DATA OUT   (the command, the folder of the data sets, a folder for everything that is made)
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
noema=$1 data=$2 out=$3
mkdir -p "$out"
"$noema" data emoji --out "$out/emoji" --names en,ko
awk -v en="$here/templates.en.txt" -v ko="$here/templates.ko.txt" -f "$here/captions.awk" "$here/names.tsv" "$out/emoji/emoji.tsv" >"$out/captions.jsonl"
# one caption per line, as the vocabulary's text
python3 -c 'import json,sys
for line in open(sys.argv[1]): print("\n".join(json.loads(line)["captions"]))' "$out/captions.jsonl" >"$out/captions.txt"
"$noema" data vocab --text-file "$out/captions.txt" --size 4096 --out "$out/bpe_simple_vocab_16e6.txt.gz"
python3 "$here/rows.py" "$data" "$out"
common=(--unicl --wd 0.05 --grad-clip-norm 3 --epochs 1 --logs "$out/logs" --threads 1)
# 1. both towers on everything
"$noema" train --config "$here/config.json" --tokenizer "$out/bpe_simple_vocab_16e6.txt.gz" --train-data "$out/train.jsonl" \
    --captions "$out/captions.jsonl" --aug-cfg "scale=0.75,1 hflip=0.5" --batch-size 128 "${common[@]}" --epochs 3 --lr 2e-3 --warmup 150 --seed 1 --name both
# 2. names alone, more emoji
"$noema" train -m "$out/logs/both" --train-data "$out/photos.jsonl" --captions "$out/names.jsonl" --aug-cfg "scale=0.75,1 hflip=0.5" --batch-size 128 \
    "${common[@]}" --lr 2e-3 --warmup 40 --seed 2 --name photos
# 3. the text tower alone on all captions
"$noema" train -m "$out/logs/photos" --train-data "$out/texts.jsonl" --captions "$out/captions.jsonl" --lock-image --lock-image-freeze-bn-stats --no-augment --batch-size 256 \
    "${common[@]}" --lr 2e-3 --warmup 20 --seed 3 --name texts
"$noema" models convert -m "$out/logs/texts" --dtype f16 --out "$out/noema-mini"
for l in en ko; do
    for s in ti ci; do
        "$noema" eval zeroshot -m "$out/noema-mini" --classes "$out/${s}_$l.txt" --templates "$here/eval.$l.txt" "$out/val_$s.jsonl" --json
    done
    "$noema" eval retrieval -m "$out/noema-mini" "$out/emoji_$l.jsonl" --k 1,5 --json
done
