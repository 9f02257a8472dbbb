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
pairs=(--captions "$out/captions.jsonl" --unicl --batch-size 256 --beta2 0.98 --eps 1e-6 "${common[@]}")
"$noema" models new --config "$here/config.json" --out "$out/start" --seed 1
cp "$out/bpe_simple_vocab_16e6.txt.gz" "$out/start/"
from=$out/start
# One round; each starts from the model of the one before, with a new head. usage: round NUMBER ROWS EPOCHS WARM-UP SMALLEST-CROP SEED
round() {
    # 1. the image tower as a classifier of all labels
    "$noema" finetune -m "$from" --train-data "$out/$2" --val-data "$out/val.jsonl" --before none --label-smoothing 0.1 --precision amp_bf16 \
        --aug-cfg "scale=$5,1 hflip=0.5" --batch-size 128 --epochs "$3" --lr 1.5e-3 --warmup "$4" "${common[@]}" --seed "$6" --name "classes$1"
    # 2. the text tower and the projection on it, image tower locked
    "$noema" train -m "$out/logs/classes$1" --train-data "$out/texts.jsonl" --lock-image --lock-image-freeze-bn-stats --lock-image-unlocked-groups 1 \
        --aug-cfg "scale=0.75,1 hflip=0.5" --epochs 4 --lr 2e-3 --warmup 50 "${pairs[@]}" --seed 3 --name "texts$1"
    # 3. both
    "$noema" train -m "$out/logs/texts$1" --train-data "$out/train.jsonl" --precision amp_bf16 \
        --aug-cfg "scale=0.6,1 hflip=0.5" --epochs 1 --lr 5e-4 --warmup 30 "${pairs[@]}" --seed 5 --name "both$1"
    from=$out/logs/both$1
}
round 1 train.jsonl 7 400 0.6 1
round 2 classes.jsonl 10 300 0.5 7
round 3 classes.jsonl 12 300 0.6 11
"$noema" models convert -m "$from" --dtype f16 --out "$out/noema-mini"
for l in en ko; do
    for s in ti ci; do
        "$noema" eval zeroshot -m "$out/noema-mini" --classes "$out/${s}_$l.txt" --templates "$here/eval.$l.txt" "$out/val_$s.jsonl" --json
    done
    "$noema" eval retrieval -m "$out/noema-mini" "$out/emoji_$l.jsonl" --k 1,5 --json
done
