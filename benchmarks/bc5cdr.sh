#!/usr/bin/env bash
# BC5CDR with configs/bc5cdr.cfg: trains on the train split, chooses on dev, scores the test split once.
#   benchmarks/bc5cdr.sh BASE DATA OUT      BASE: a 4-bit base; DATA: train.jsonl, dev.jsonl, test.jsonl; OUT: a new folder
# Leaves OUT/metrics.json, OUT/config.cfg and OUT/seconds.json beside the corpus and the pipelines, and in
# OUT/metrics_apart.json the scores of the test split in lone sentences.
set -euo pipefail
base=${1:?BASE} data=${2:?DATA} out=${3:?OUT}
config=$(dirname "$0")/../configs/bc5cdr.cfg
mkdir -p "$out"

python -m spacy qlora convert --train "$data/train.jsonl" --dev "$data/dev.jsonl" --test "$data/test.jsonl" \
    --join 400 --views 4 "$out/corpus"
start=$SECONDS
python -m spacy qlora train "$config" --output "$out/training" --paths.base "$base" \
    --paths.train "$out/corpus/train.spacy" --paths.dev "$out/corpus/dev.spacy"
trained=$SECONDS
python -m spacy qlora evaluate "$out/training/model-best" "$out/corpus/test.spacy" \
    --train "$out/corpus/train.spacy" --output "$out/metrics.json"
evaluated=$SECONDS
cp "$config" "$out/config.cfg"
printf '{"train": %d, "evaluate": %d, "threads": %d}\n' $((trained - start)) $((evaluated - trained)) "${OMP_NUM_THREADS:-$(nproc)}" > "$out/seconds.json"
python -m spacy qlora convert --train "$data/train.jsonl" --dev "$data/dev.jsonl" --test "$data/test.jsonl" "$out/apart"
python -m spacy qlora evaluate "$out/training/model-best" "$out/apart/test.spacy" --output "$out/metrics_apart.json"
