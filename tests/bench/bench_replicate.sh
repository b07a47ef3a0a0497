#!/usr/bin/env bash
# What do replication and leases cost? Step time of two workers with both roles, real daemons on loopback, a Llama of 15M parameters: pairs of
# runs, alternating which comes first, and the ratio of the medians. On a quiet machine; ROUNDS pairs (3), about a minute each.
# usage: tests/bench/bench_replicate.sh [--json FILE] [leases|replication]      prints one line a run (to FILE in the form of README.md) and one
# `figure:` line a question; exit 1 above 1.10. TURN: which of a pair comes first.
set -u
cd "$(dirname "$0")/../.." || exit 1
spec=tests/bench/replicate.yaml
. tests/lib/cluster.sh
json=/dev/null
[ "${1:-}" != --json ] || { json=$2; shift; shift; }
rounds=${ROUNDS:-3} steps=${STEPS:-6} turn=${TURN:-1}
declare -A took=()

run() { # name, options of the coordinator: milliseconds of a step, in took[name]
    local name=$1 now known='' version first=0 from=0 until=0
    shift
    dir=$top/$name-$RANDOM
    mkdir -p "$dir"
    export STEER_DIR=$dir
    "$bin/steer-coordinator" --dir "$dir" --http 127.0.0.1:0 --control tcp://127.0.0.1:0 "$@" >"$dir/coordinator.log" 2>&1 &
    pid[c]=$!
    for _ in $(seq 100); do [ -s "$dir/endpoint.json" ] && break; sleep 0.05; done
    http=$(sed -E 's/.*"http":"http:\/\/([^"]*)".*/\1/' "$dir/endpoint.json")
    worker w1 1
    worker w2 1
    for _ in $(seq 200); do [ "$("$bin/steerctl" worker ls -o json | grep -cE '"state": ?"READY"')" -ge 2 ] && break; sleep 0.05; done
    submit --set "train.max_steps=$steps" --set reuse_verified=false
    local begun=$SECONDS
    while :; do
        # Answered when something has changed, so that looking costs nothing.
        now=$(curl -s -m 40 "http://$http/v1/jobs/$job${known:+?since=$known&wait=5s}")
        [[ $now =~ \"state\":\"[A-Z]+\",\"version\":([0-9]+),\"workers\" ]] && known=${BASH_REMATCH[1]} || sleep 0.05
        version=$(grep -oE '"session":\{.*' <<<"$now" | grep -oE '"version":[0-9]+' | head -n 1 | grep -oE '[0-9]+')
        if [ "${version:-0}" -ge 1 ] && [ "$from" -eq 0 ]; then first=$version from=$(date +%s%N); fi
        if [ "${version:-0}" -ge $((steps - 1)) ]; then until=$(date +%s%N); break; fi
        grep -qE '"state":"(FAILED|CANCELLED)"' <<<"$now" && break
        [ $((SECONDS - begun)) -lt 600 ] || break
    done
    [ "$until" -gt 0 ] || "$bin/steerctl" status "$job"
    kill_all
    rm -rf "$dir"
    [ "$until" -gt 0 ] && [ "$from" -gt 0 ] && [ "$version" -gt "$first" ] || { echo "FAIL $name did not train"; failed=1; return; }
    took[$name]+="$(((until - from) / 1000000 / (version - first))) "
    now=$(((until - from) / 1000000 / (version - first)))
    echo "$name: $now ms a step"
    echo "{\"bench\":\"replicate\",\"case\":\"step of 8,192 tokens, 15M, 2 workers, $name\",\"unit\":\"ms\",\"median\":$now,\"min\":$now,\"max\":$now,\"runs\":1}" >>"$json"
}
median() { tr ' ' '\n' <<<"$1" | sed '/^$/d' | sort -n | awk '{v[NR] = $1} END {print NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2}'; }
pair() { # question, name and options with, name and options without
    local a b
    for i in $(seq "$rounds"); do
        if [ $(((i + turn) % 2)) -eq 0 ]; then run "$2" $3; run "$4" $5; else run "$4" $5; run "$2" $3; fi
    done
    a=$(median "${took[$2]:-}") b=$(median "${took[$4]:-}")
    awk -v q="$1" -v a="$a" -v b="$b" -v n="$rounds" 'BEGIN {printf "figure: cost of %s: %s ms a step with, %s without, ratio %.3f (bound 1.10), %d pairs\n", q, a, b, a / b, n; exit a / b > 1.10}' || failed=1
}

[ "${1:-leases}" != leases ] || pair leases lease-default "" lease-600s "--lease-ms 600000"
if [ "${1:-replication}" != replication ]; then
    :
elif "$bin/steer-coordinator" --help | grep -q -- --replicate; then
    pair replication replicate-1 "--replicate 1" replicate-0 "--replicate 0"
else
    echo "replication: this coordinator has no --replicate"
fi
exit $failed
