#!/usr/bin/env bash
# Seeded chaos: rounds of one training run in which, at random moments, workers are killed, stopped, resumed, drained and added and the coordinator is
# killed. Every round must end with the bits of the straight loop. Not part of `make check`; a round takes 10 to 40 s.
# usage: tests/system/chaos.sh [SEED [ROUNDS]]
set -u
cd "$(dirname "$0")/../.." || exit 1
spec=tests/system/bits.yaml
. tests/lib/cluster.sh
seed=${1:-1} rounds=${2:-10}
RANDOM=$seed
declare -A count=()

pick() { # a living worker, at random
    local names=() name
    for name in "${!pid[@]}"; do [ "$name" = c ] || names+=("$name"); done
    [ ${#names[@]} -gt 0 ] && echo "${names[$((RANDOM % ${#names[@]}))]}"
}
running() { "$bin/steerctl" status "$job" -o json 2>/dev/null | grep -qE '"state": ?"(PENDING|STARTING|RUNNING|RECOVERING|FINALIZING)"' || [ -z "${pid[c]:-}" ]; }
act() {
    local what=$((RANDOM % 8)) w
    w=$(pick)
    case $what in
    0 | 1) [ -n "$w" ] && { end KILL "$w"; say=killed; } ;;
    2) [ -n "$w" ] && { end STOP "$w"; stopped+=("$w"); say=stopped; } ;;
    3) [ -n "$w" ] && { kill -TERM "${pid[$w]}"; unset "pid[$w]"; say=drained; } ;;
    4 | 5) born=$((born + 1)); worker "r${round}n$born" $((1 + RANDOM % 2)); say=joined ;;
    6) end KILL c; sleep 0.$((RANDOM % 9)); coordinator; say=coordinator ;;
    7) for w in "${stopped[@]}"; do [ -n "${pid[$w]:-}" ] && end CONT "$w"; done; stopped=(); say=resumed ;;
    esac
    count[$say]=$((${count[$say]:-0} + 1))
}

for round in $(seq "$rounds"); do
    born=0 stopped=() say=nothing
    start "round-$round" $((1 + RANDOM % 3))
    for _ in $(seq $((3 + RANDOM % 6))); do
        sleep "$((RANDOM % 2)).$((RANDOM % 10))"
        running || break
        act
    done
    for w in "${stopped[@]}"; do [ -n "${pid[$w]:-}" ] && end CONT "$w"; done
    worker "r${round}last" 1 # so that somebody is there to finish
    finish "seed $seed round $round"
    [ $failed -eq 0 ] || break
done
for say in "${!count[@]}"; do printf '%s %d  ' "$say" "${count[$say]}"; done
echo
exit $failed
