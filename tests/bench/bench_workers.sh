#!/usr/bin/env bash
# Real daemons on loopback, both roles. workers: the throughput of two workers with one thread each against one with two, a Llama of 15M
# parameters, about 8,192 tokens a step, by turns. memory: the peak of one worker with two threads that trains a Llama of GPT-2's size
# (memory.yaml), and of 15M; VmHWM, shared pages counted once. On a quiet machine; ROUNDS pairs (3), STEPS a run (6).
# wire: two workers, gradients and parameters in bf16 against fp32. TURN: which of a pair comes first.
# usage: tests/bench/bench_workers.sh [workers|memory|wire] [--json FILE]    one line a run (to FILE in the form of README.md), one `figure:` line
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
declare -A case=([two-of-one]="step of 8,192 tokens, 15M, 2 workers x 1 thread" [one-of-two]="step of 8,192 tokens, 15M, 1 worker x 2 threads"
    [two-bf16]="step of 8,192 tokens, 15M, 2 workers x 1 thread, wire bf16" [two-fp32]="step of 8,192 tokens, 15M, 2 workers x 1 thread, wire fp32"
    [gpt2-size]="step of 4 x 64, GPT-2's size" [15M]="step of 8 rows of chat, 15M")

case $question in
workers | wire)
    a=(two-of-one 2 1) b=(one-of-two 1 2)
    [ "$question" = workers ] || a=(two-bf16 2 1 --set train.wire=bf16) b=(two-fp32 2 1)
    for i in $(seq "$rounds"); do
        if [ $(((i + turn) % 2)) -eq 0 ]; then run "${a[@]}"; run "${b[@]}"; else run "${b[@]}"; run "${a[@]}"; fi
    done
    x=$(median "${took[${a[0]}]:-0}") y=$(median "${took[${b[0]}]:-0}")
    say "${a[0]} against ${b[0]}: throughput, 15M, $x and $y ms a step" "$(awk -v a="$x" -v b="$y" 'BEGIN {printf "%.3f", b / a}')" ratio ">= 0.95"
    x=$(median "${used[${a[0]}]:-0}") y=$(median "${used[${b[0]}]:-0}")
    say "${a[0]} against ${b[0]}: processor time, 15M, $x and $y ms a step" "$(awk -v a="$x" -v b="$y" 'BEGIN {printf "%.3f", b / a}')" ratio none
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
