#!/usr/bin/env bash
# Real daemons on loopback, both roles. workers: the throughput of two workers with one thread each against one with two, a Llama of 15M
# parameters, about 8,192 tokens a step, by turns; and what leases, copies of parameters and bytes in fp32 cost the two. memory: the peak of one worker with two threads that trains a Llama of GPT-2's size
# (memory.yaml), and of 15M; VmHWM, shared pages counted once. On a quiet machine; ROUNDS pairs (3), STEPS a run (6).
# TURN: who comes first. ONLY: names of runs, instead of all.
# usage: tests/bench/bench_workers.sh [workers|memory] [--json FILE]    one line a run (to FILE in the form of README.md), one `figure:` line
# a question
set -u
cd "$(dirname "$0")/../.." || exit 1
spec=tests/bench/replicate.yaml
. tests/lib/cluster.sh
question=${1:-workers} json=/dev/null
[ "${2:-}" != --json ] || json=$3
rounds=${ROUNDS:-3} steps=${STEPS:-6} turn=${TURN:-1}
declare -A took=() used=()
median() { tr ' ' '\n' <<<"$1" | sed '/^$/d' | sort -n | awk '{v[NR] = $1} END {print NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2}'; }

# Of the workers of this run, milliseconds: unlike the time of a step it says the same on a machine that others use.
cpu_ms() { for i in $(seq "$n"); do sed 's/.*) //' "/proc/${pid[w$i]}/stat"; done | awk -v hz="$(getconf CLK_TCK)" '{t += $12 + $13} END {printf "%d", t * 1000 / hz}'; }

run() { # name, workers, threads of each, more options of submit: milliseconds of a step in took[name], of its processor time in used[name], MiB in peak
    local name=$1 n=$2 threads=$3 now known='' version first=0 from=0 until=0 begun cpu
    shift 3
    begin "$name-$RANDOM"
    for i in $(seq "$n"); do worker "w$i" "$threads"; done
    for _ in $(seq 200); do [ "$("$bin/steerctl" worker ls -o json | grep -cE '"state": ?"READY"')" -ge "$n" ] && break; sleep 0.05; done
    submit --set "train.max_steps=$steps" --set reuse_verified=false "$@"
    begun=$SECONDS
    while :; do
        # Answered when something has changed, so that looking costs nothing.
        now=$(curl -s -m 40 "http://$http/v1/jobs/$job${known:+?since=$known&wait=5s}")
        [[ $now =~ \"state\":\"[A-Z]+\",\"version\":([0-9]+),\"workers\" ]] && known=${BASH_REMATCH[1]} || sleep 0.05
        version=$(grep -oE '"session":\{.*' <<<"$now" | grep -oE '"version":[0-9]+' | head -n 1 | grep -oE '[0-9]+')
        if [ "${version:-0}" -ge 1 ] && [ "$from" -eq 0 ]; then first=$version from=$(date +%s%N) cpu=$(cpu_ms); fi
        if [ "${version:-0}" -ge $((steps - 1)) ] && [ "$until" -eq 0 ]; then until=$(date +%s%N) last=$version cpu=$(($(cpu_ms) - cpu)); fi
        grep -qE '"state":"(SUCCEEDED|FAILED|CANCELLED)"' <<<"$now" && [ "$until" -gt 0 ] && break
        [ "$question" = memory ] || [ "$until" -eq 0 ] || break
        [ $((SECONDS - begun)) -lt 170 ] || break
    done
    peak=0
    for i in $(seq "$n"); do peak=$((peak + $(awk '/VmHWM/ {print int($2 / 1024)}' "/proc/${pid[w$i]}/status"))); done
    [ "$until" -gt 0 ] || "$bin/steerctl" status "$job"
    kill_all
    rm -rf "$dir"
    [ "$until" -gt 0 ] && [ "$last" -gt "$first" ] || { echo "FAIL $name did not train"; failed=1; return; }
    took[$name]+="$(((until - from) / 1000000 / (last - first))) "
    used[$name]+="$((cpu / (last - first))) "
    echo "$name: $(((until - from) / 1000000 / (last - first))) ms a step, $((cpu / (last - first))) ms of processors, peak $peak MiB"
    write "${case[$name]}" ms $(((until - from) / 1000000 / (last - first)))
    write "processor time of a ${case[$name]}" ms $((cpu / (last - first)))
}
write() { echo "{\"bench\":\"workers\",\"case\":\"$1\",\"unit\":\"$2\",\"median\":$3,\"min\":$3,\"max\":$3,\"runs\":1}" >>"$json"; }
say() { echo "figure: $1: $2 $3 (bound $4)"; } # name, value, unit, bound
two="step of 8,192 tokens, 15M, 2 workers x 1 thread"
declare -A case=([two-of-one]="$two" [one-of-two]="step of 8,192 tokens, 15M, 1 worker x 2 threads" [lease-600s]="$two, leases of 600 s"
    [no-copy]="$two, no copy" [wire-bf16]="$two, wire bf16" [gpt2-size]="step of 4 x 64, GPT-2's size" [15M]="step of 8 rows of chat, 15M")
arm() { # name: one of the runs that are compared
    coordinator_more=()
    case $1 in
    one-of-two) run one-of-two 1 2 ;;
    two-of-one) run two-of-one 2 1 ;;
    lease-600s) coordinator_more=(--lease-ms 600000); run lease-600s 2 1 ;;
    no-copy) coordinator_more=(--replicate 0); run no-copy 2 1 ;;
    wire-bf16) run wire-bf16 2 1 --set train.wire=bf16 ;;
    *) echo "bench_workers: no run is called $1"; exit 2 ;;
    esac
}
compare() { # name of one, name of the other, what, bound, [used]: ratio of the one to the other, of time or of what was used
    local x y
    local -n of=${5:-took}
    [ -n "${of[$1]:-}" ] && [ -n "${of[$2]:-}" ] || return
    x=$(median "${of[$1]}") y=$(median "${of[$2]}")
    say "$1 against $2: $3, 15M, $y and $x ms a step" "$(awk -v a="$x" -v b="$y" 'BEGIN {printf "%.3f", a / b}')" ratio "$4"
}

case $question in
workers)
    read -ra names <<<"${ONLY:-one-of-two two-of-one lease-600s no-copy wire-bf16}"
    for i in $(seq "$rounds"); do # round by round somebody else begins
        for k in "${!names[@]}"; do arm "${names[$(((k + i + turn) % ${#names[@]}))]}"; done
    done
    coordinator_more=()
    compare one-of-two two-of-one "throughput" ">= 0.95"
    compare lease-600s two-of-one "leases of 600 s to the default" ">= 0.91"
    compare no-copy two-of-one "no copy to one" ">= 0.91"
    compare two-of-one wire-bf16 "wire in fp32 to bf16" none
    compare one-of-two two-of-one "processor time" none used
    ;;
memory)
    spec=tests/bench/memory.yaml
    run gpt2-size 1 2
    say "peak memory of worker and host, 124M, 4 x 64" "$peak" MiB "<= 2662"
    write "memory with a checkpoint, 124M, 4 x 64 fp32, 2 threads" MiB "$peak"
    spec=tests/bench/replicate.yaml
    run 15M 1 2 --set train.global_batch=8 --set train.units=4
    say "peak memory of worker and host, 15M" "$peak" MiB "<= 614"
    write "memory with a checkpoint, 15M, 8 rows of chat fp32, 2 threads" MiB "$peak"
    ;;
esac
exit $failed
