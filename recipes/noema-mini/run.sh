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
common=(--wd 0.05 --grad-clip-norm 3 --logs "$out/logs" --workers 1)
"$noema" models new --config "$here/config.json" --out "$out/start" --seed 1
cp "$out/bpe_simple_vocab_16e6.txt.gz" "$out/start/"
# 1. the image tower as a classifier of all labels
"$noema" finetune -m "$out/start" --train-data "$out/train.jsonl" --val-data "$out/val.jsonl" --before none --label-smoothing 0.1 --precision amp_bf16 \
    --aug-cfg "scale=0.6,1 hflip=0.5" --batch-size 128 --epochs 7 --lr 1.5e-3 --warmup 400 "${common[@]}" --seed 1 --name classes
# 2. the text tower and the projection on it, image tower locked
"$noema" train -m "$out/logs/classes" --train-data "$out/texts.jsonl" --captions "$out/captions.jsonl" --unicl --lock-image --lock-image-freeze-bn-stats \
    --lock-image-unlocked-groups 1 --aug-cfg "scale=0.75,1 hflip=0.5" --batch-size 256 --epochs 4 --lr 2e-3 --warmup 50 "${common[@]}" --seed 3 --name texts
# 3. both
"$noema" train -m "$out/logs/texts" --train-data "$out/train.jsonl" --captions "$out/captions.jsonl" --unicl --precision amp_bf16 \
    --aug-cfg "scale=0.6,1 hflip=0.5" --batch-size 256 --epochs 1 --lr 5e-4 --warmup 30 "${common[@]}" --seed 5 --name both
"$noema" models convert -m "$out/logs/both" --dtype f16 --out "$out/noema-mini"
for l in en ko; do
    for s in ti ci; do
        "$noema" eval zeroshot -m "$out/noema-mini" --classes "$out/${s}_$l.txt" --templates "$here/eval.$l.txt" "$out/val_$s.jsonl" --json
    done
    "$noema" eval retrieval -m "$out/noema-mini" "$out/emoji_$l.jsonl" --k 1,5 --json
done
