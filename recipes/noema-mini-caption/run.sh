#!/usr/bin/env bash
# Trains noema-mini-caption. usage: run.sh NOEMA DATA MINI OUT   (the command; the folder that recipes/noema-mini/run.sh has filled: pictures, emoji, lists of rows; the
# model noema-mini to start from; a folder for everything that is made)
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
names=$here/../noema-mini/names.tsv
noema=$1 data=$2 mini=$3 out=$4
epochs=${EPOCHS:-3} # of 166,404 pictures: about 4 minutes each on two Zen 4 cores
mkdir -p "$out"
python3 "$here/captions.py" "$names" "$data/emoji/emoji.tsv" "$out"
"$noema" train --config "$here/config.json" --init "$mini" --tokenizer "$mini/bpe_simple_vocab_16e6.txt.gz" --train-data "$data/train.jsonl" --captions "$out/captions.jsonl" \
    --lock-image --lock-image-unlocked-groups 1 --lock-image-freeze-bn-stats --coca-contrastive-loss-weight 0 --coca-caption-loss-weight 1 --precision amp_bf16 \
    --aug-cfg "scale=0.75,1 hflip=0.5" --batch-size 256 --epochs "$epochs" --lr 4e-3 --beta2 0.98 --eps 1e-6 --wd 0.05 --warmup 50 --grad-clip-norm 1 --seed 1 --workers 1 \
    --logs "$out/logs" --name captions
"$noema" models convert -m "$out/logs/captions" --dtype f16 --out "$out/noema-mini-caption"
for language in en:1 ko:2; do
    for set in ci:cit:200 ti:tiv:0; do
        IFS=: read -r l column <<<"$language"
        IFS=: read -r s folder first <<<"$set"
        "$noema" caption -m "$out/noema-mini-caption" --language "$l" -r "$data/$folder" --quiet >"$out/${s}_$l.jsonl"
        echo "$s $l"
        python3 "$here/evaluate.py" "$out/${s}_$l.jsonl" "$data/val_$s.jsonl" "$names" "$column" "$first" "$out/${s}_$l.references.json" "$out/${s}_$l.results.json"
        "$noema" eval captions --references "$out/${s}_$l.references.json" --results "$out/${s}_$l.results.json" --json
    done
done
