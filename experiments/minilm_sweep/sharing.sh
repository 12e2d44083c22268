#!/usr/bin/env bash
# Twelve points that share pruning and recovery: as one sweep, then one by one, each with an empty store.
#   experiments/minilm_sweep/sharing.sh FOLDER       (about 40 minutes; FOLDER gets times.txt and the logs)
# EVERY=3 runs only every third of the twelve alone, STEPS=100 is the default of the recovery.
# Downloads are fetched once before and not timed. `compress` has to be on the PATH.
set -eu
mkdir -p "$1" && cd "$1"
OPTIONS=(experiment=minilm recover.steps=${STEPS:-100} benchmark.max_seconds=10 quantize.min_coverage=0)
EXCLUDE=("[]" "[attention/output]" "[intermediate]")

export COMPRESS_CACHE=$PWD/downloads
compress run experiment=minilm recover=none benchmark.max_seconds=1 > downloads.log

timed() { # NAME WORD...
    local name=$1 start
    shift
    rm -rf cache && mkdir cache && cp -a downloads/sources cache/
    export COMPRESS_CACHE=$PWD/cache
    start=$(date +%s)
    "$@" > "$name.log" 2>&1
    echo "$name $(($(date +%s) - start)) s" | tee -a times.txt
}

timed sweep compress run -m "${OPTIONS[@]}" quantize.per_channel=true,false quantize.embeddings=true,false \
    "quantize.exclude=$(IFS=,; echo "${EXCLUDE[*]}")"
number=0
for channel in true false; do
    for table in true false; do
        for exclude in "${EXCLUDE[@]}"; do
            number=$((number + 1))
            [ $((number % ${EVERY:-1})) -eq 0 ] || continue
            timed "single $channel $table $exclude" compress run "${OPTIONS[@]}" \
                quantize.per_channel=$channel quantize.embeddings=$table "quantize.exclude=$exclude"
        done
    done
done
