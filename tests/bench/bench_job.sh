#!/usr/bin/env bash
# How fast does a real job train? A coordinator and one worker with both roles and all threads, on loopback; the step times that the coordinator
# hears of, so encoding, push, fold, AdamW and pull are in. sgemm by the same BLAS before and after is the bound: 6 FLOP a weight of a matrix and
# row (head: rows with a target only) and the causal half of attention.
# usage: tests/bench/bench_job.sh [--json FILE] CASE...     CASE: 15m 15m-half 124m 124m-512 260k; THREADS (all cores), ROUNDS (3),
# SECONDS_EACH (4), SETS ("--set numerics=bf16": more options of submit), LABEL (" bf16": behind
# the case's name)
set -u
cd "$(dirname "$0")/../.." || exit 1
. tests/bench/lib.sh
threads=${THREADS:-$(nproc)} rounds=${ROUNDS:-3} each=${SECONDS_EACH:-4} sets=${SETS:-} label=${LABEL:- fp32}
bounds=$(dirname "$bin")/tests/bench/bench_bounds
rss=''

# Sets what a case is: name, init, rows a step, their tokens, those of the prompt, loss_on, units.
case_of() {
    small='{width: 288, layers: 6, heads: 6, kv_heads: 6, ffn: 768, vocab: 32000, context: 512}'
    large='{width: 768, layers: 12, heads: 12, kv_heads: 12, ffn: 2048, vocab: 50257, context: 1024}'
    prompt=19 on=all more=''
    case $1 in
    15m) name="15M, 4 x 256" init=$small rows=4 length=256 ;;
    15m-half) name="15M, 4 x 256, half masked" init=$small rows=4 length=256 prompt=110 on=response ;;
    124m) name="124M, 4 x 64" init=$large rows=4 length=64 ;;
    124m-512) name="124M, 1 x 512" init=$large rows=1 length=512 ;;
    260k) name="stories260K, rows of 80" init='{width: 64, layers: 5, heads: 8, kv_heads: 4, ffn: 172, vocab: 512, context: 512}' rows=48 length=80
        more='--set train.chunk_elems=16384' ;;
    *) echo "bench_job: no case is called $1"; exit 2 ;;
    esac
    # A unit for every thread, so that none waits; a single row cannot be shared.
    units=$((rows < threads ? 1 : rows < 8 ? threads : 8))
}
flops() { # of a token, from init and the rows: FLOP
    awk -v init="$init" -v t="$length" -v on="$on" -v prompt="$prompt" 'function of(key) {match(init, key ": [0-9]+"); return substr(init, RSTART + length(key) + 2, RLENGTH - length(key) - 2)}
        BEGIN {c = of("width"); l = of("layers"); h = of("heads"); k = of("kv_heads"); f = of("ffn"); v = of("vocab")
               share = on == "all" ? 1 : 1 - (prompt + 7) / t
               printf "%.6g", 6 * l * (2 * c * c + 2 * c * c * k / h + 3 * c * f) + 6 * v * c * share + 14 * l * (t + 1) / 2 * c}'
}
spec_make() {
    cp tests/bench/job.yaml "$top/job.yaml"
    sed -i "s/^  init: .*/  init: $init/; s/loss_on: all/loss_on: $on/; s/^  global_batch: .*/  global_batch: $rows/; s/^  units: .*/  units: $units/" "$top/job.yaml"
    rows_make "$top/rows.jsonl" 256 $((prompt - 18)) $((length - prompt - 1))
}
rate_of() { awk -v took="$1" -v n=$((rows * length)) 'BEGIN {k = split(took, t, " "); for (i = 1; i <= k; i++) printf "%.5g ", n * 1000 / t[i]}'; }
bound_of() { awk -v a="$1" -v b="$2" -v f="$(flops)" 'BEGIN {printf "%.6g", (a + b) / 2 * 1e9 / f}'; }

train() { # case: its figure, and the memory of the worker
    local before after
    case_of "$1"
    spec_make
    cluster_up 1 "$threads" || return
    before=$("$bounds" sgemm "$threads")
    if job_steps "$rounds" "$each" $sets $more "$top/job.yaml"; then
        rss=$(cluster_rss | awk '$1 == "steer-worker" {print $2}')
        cluster_down
        after=$("$bounds" sgemm "$threads")
        figure job "$name$label, $threads threads" tokens/s "sgemm" "$(bound_of "$before" "$after")" $(rate_of "$took")
        figure job "memory, $name$label, $threads threads" MiB "" "" "$rss"
    else
        cluster_down
    fi
}
for c in "${@:-15m}"; do train "$c"; done
exit $failed
