#!/usr/bin/env bash
# Does steerctl plan predict the step? Real daemons, each in a network namespace of its own behind a link that tc tbf shapes; one and two
# workers compute, more wait a fixed time a unit instead (worker.compute.skip and .slow). Every prediction must be within BOUND (20 %).
# Needs root, iproute2, nftables; addresses exist in namespaces that this script makes, and nowhere else.
# A machine has QUEUE (20 ms) of buffer in front of its link in each direction, as a switch's port has, and TCP gives way where packets
# are lost: cubic as Debian has it, or reno where cubic may not be chosen. SPEEDS=FILE: speeds that were measured before. Links of more than 1 Gb/s are tried with a raw connection first.
# usage: tests/bench/bench_plan.sh [--json FILE] [RATE:WORKERS ...]   default: 100Mb/s, 1Gb/s and 10Gb/s; exit 77: cannot be done here
set -u
cd "$(dirname "$0")/../.." || exit 1
json=/dev/null
[ "${1:-}" = --json ] && { json=$2; shift; shift; }
seed=plan spec='' # what the library expects
. tests/chaos/lib.sh
cleanup_more() { net_close; }
cases=("${@:-}")
[ -n "${1:-}" ] || cases=(100Mb/s:2 1Gb/s:2 10Gb/s:2 100Mb/s:4 1Gb/s:4 100Mb/s:8)
probe=$(dirname "$bin")/tests/bench/bench_bounds
bound=${BOUND:-0.20} sleep_ms=${SLEEP_MS:-150} seconds=${SECONDS_EACH:-8}
net_probe && command -v tc >/dev/null || { echo "plan: not measured, needs root, iproute2 (ip, tc) and nftables"; exit 77; }

# Processes of one machine would find each other by /proc and share memory instead of the link: each worker gets one of its own.
place() { # worker
    enter='' where=''
    if [ "$1" != c ]; then
        [ -n "${number[$1]:-}" ] || number[$1]=$((++numbers))
        net_join "$1" "${number[$1]}"
        for congestion in ${CONGESTION:-cubic reno}; do
            nsenter --net="/run/netns/$(space "$1")" sh -c "echo $congestion >/proc/sys/net/ipv4/tcp_congestion_control" 2>/dev/null && break
        done
        where="--listen tcp://10.77.0.$((number[$1] + 1)):0"
    fi
    enter="nsenter --net=/run/netns/$(space "$1")"
    [ "$1" = c ] || enter+=" unshare --pid --fork --kill-child --mount-proc"
}
wall_ms() { echo $((${EPOCHREALTIME/./} / 1000)); }
shape() { # worker, RATE of plan: both directions of its link
    local rate=${2/b\/s/bit} burst=64kb
    case $2 in 1Gb/s) burst=256kb ;; 10Gb/s) burst=2mb ;; esac
    nsenter --net="/run/netns/$(space "$1")" tc qdisc add dev eth0 root tbf rate "$rate" burst $burst latency "${QUEUE:-20ms}" &&
        nsenter --net="/run/netns/$(space c)" tc qdisc add dev "v${number[$1]}" root tbf rate "$rate" burst $burst latency "${QUEUE:-20ms}"
}
gigabits() { awk -v r="$1" 'BEGIN {print (r + 0) * (r ~ /Gb/ ? 1 : 0.001)}'; } # of a RATE
probe() { # RATE: what a raw connection from the second worker's place to the first's reaches; false: less than 0.9 of the link
    local got
    nsenter --net="/run/netns/$(space w1)" "$probe" listen 10.77.0.2 >"$top/probe" &
    sleep 0.2
    nsenter --net="/run/netns/$(space w2)" "$probe" send 10.77.0.2
    wait $!
    got=$(awk '{print $1 * 8}' "$top/probe") # GB/s
    echo "figure: plan, a raw connection through a link of $1: $got Gb/s"
    echo "{\"bench\":\"plan_link\",\"case\":\"raw connection through a link of $1\",\"unit\":\"Gb/s\",\"median\":$got,\"min\":$got,\"max\":$got,\"runs\":1,\"bound\":{\"name\":\"the link\",\"value\":$(gigabits "$1")},\"ratio\":$(awk -v g="$got" -v r="$(gigabits "$1")" 'BEGIN {printf "%.3f", g / r}')}" >>"$json"
    awk -v g="$got" -v r="$(gigabits "$1")" 'BEGIN {exit !(g >= 0.9 * r)}'
}
# Milliseconds of a step: of as many as fit into `seconds` after the second.
steps_ms() {
    local begun=$SECONDS from=0 at=0 seen=0 now bytes
    took=''
    while [ $SECONDS -lt $((begun + 60 + seconds)) ]; do
        sleep 0.25 # looking costs what computing needs
        look "$job"
        now=$(wall_ms)
        case $state in FAILED | CANCELLED) return ;; esac
        [ "$version" -ge 2 ] || continue
        # The time of a version is when it changed, not when somebody looked: from a change to a change.
        [ "$seen" -ne 0 ] || seen=$version
        [ "$version" -ne "$seen" ] || continue
        seen=$version bytes=$(wire_bytes)
        if [ "$from" -eq 0 ] || [ "$version" -lt "$at" ]; then from=$now at=$version moved=$bytes used=$(cpu_ms); continue; fi
        [ $((now - from)) -ge $((seconds * 1000)) ] && { moved=$(((bytes - moved) / (version - at))) used=$((($(cpu_ms) - used) / (version - at))) took=$(awk -v t=$((now - from)) -v n=$((version - at)) 'BEGIN {printf "%.1f", t / n}'); return; }
    done
}
# Of all workers and the coordinator, milliseconds: the places share one machine's processors, so a step can take no less than its part.
cpu_ms() { for i in "${pid[@]}" $(pgrep -P "$(tr ' ' , <<<"${pid[*]}")"); do cat "/proc/$i/stat"; done 2>/dev/null | sed 's/.*) //' | awk -v hz="$(getconf CLK_TCK)" '{t += $12 + $13} END {printf "%d", t * 1000 / hz}'; }
wire_bytes() { nsenter --net="/run/netns/$(space w1)" awk '/eth0:/ {print ($2 > $10 ? $2 : $10)}' /proc/net/dev; } # of the first worker's busier direction
measure() { # file: the speeds of this machine
    "$bin/steer-worker" --measure "$top/plan.yaml" --threads 2 --row-tokens 128 >"$1" || { echo "FAIL measuring"; failed=1; exit 1; }
}
predict() { # speeds: sets predicted, rules, ms
    predicted=$("$bin/steerctl" plan "$spec" -o json --measured "$1" --workers "$n" --threads 1 --link "$rate" --latency 0.05ms 2>/dev/null)
    rules=$(grep -oE '"bound":[[:space:]]*"[a-z]+"' <<<"$predicted" | sed 's/.*"\([a-z]*\)"$/\1/')
    ms=$(number_of step_s <<<"$predicted" | awk '{printf "%.1f", $1 * 1000}')
}
number_of() { grep -oE "\"$1\":[[:space:]]*[-+.0-9e]+" | head -n 1 | sed 's/.*:[[:space:]]*//'; }

run() { # rate workers
    local rate=$1 n=$2 i predicted ms before fault='' speeds=$top/speeds.json ratio rules
    [ -z "${SPEEDS:-}" ] || cp "$SPEEDS" "$speeds"
    [ "$n" -gt 2 ] && [ -s "$speeds" ] || measure "$speeds"
    dir=$top/$n-${rate%%/*}
    mkdir -p "$dir"
    http='' control='' number=() numbers=0 net=0
    net_id=$((net_id + 1))
    export STEER_DIR=$dir
    wdir=$dir
    net_open
    launch_coordinator
    if [ "$n" -gt 2 ]; then
        fault="worker.compute.skip:1:every,worker.compute.slow:1:sleep=$sleep_ms:every"
        # Nobody computes here, and a machine's share of the processors that all use encrypts its bytes.
        sed -E "s/(\"unit_s\":[[:space:]]*)[-+.0-9e]+/\1$(awk -v s="$sleep_ms" 'BEGIN {print s / 1000}')/; s/(\"(backward|early)\":[[:space:]]*)[-+.0-9e]+/\10/; s/(\"(forward|later)\":[[:space:]]*)[-+.0-9e]+/\11/" "$speeds" |
            awk -v share="$(awk -v c="$(nproc)" -v n="$n" 'BEGIN {print (c < n ? c / n : 1)}')" '/"(crypt_bytes_s|fold_bytes_s|apply_params_s)"/ {match($0, /[-+.0-9e]+,?$/); v = substr($0, RSTART); sub(/[-+.0-9e]+,?$/, ""); $0 = $0 v * share (v ~ /,/ ? "," : "")} {print}' >"$top/stub.json"
        speeds=$top/stub.json
    fi
    for i in $(seq "$n"); do launch "w$i" "$fault"; done
    for i in $(seq "$n"); do shape "w$i" "$rate" || { echo "plan: not measured, tc refused tbf"; exit 77; }; done
    if awk -v r="$(gigabits "$rate")" 'BEGIN {exit !(r > 1)}' && ! probe "$rate"; then
        echo "plan: not measured, $rate is not reached here"
        kill_all
        net_close
        net_spaces=()
        return
    fi
    for i in $(seq 200); do
        roster
        [ "$(grep -oE '"state":"READY"' <<<"$workers_text" | wc -l)" -ge "$n" ] && break
        sleep 0.05
    done
    spec=$top/plan.yaml
    enter="nsenter --net=/run/netns/$(space c)"
    submit
    enter=''
    steps_ms
    kill_all
    net_close
    net_spaces=()
    predict "$speeds"
    if [ "$n" -le 2 ]; then # the speed of such machines drifts: what it was before and after
        before=$ms
        measure "$speeds"
        predict "$speeds"
        ms=$(awk -v a="$before" -v b="$ms" 'BEGIN {printf "%.1f", (a + b) / 2}')
    fi
    [ -n "$took" ] || { echo "FAIL $rate, $n workers: did not train"; tail -n 3 "$dir"/*.log; failed=1; return; }
    ratio=$(awk -v p="$ms" -v m="$took" 'BEGIN {printf "%.3f", p / m}')
    echo "figure: plan, $n workers, $rate$([ "$n" -gt 2 ] && echo ", fixed sleep"): a step predicted $ms ms, measured $took ms, ratio $ratio, bound by $rules; $used ms of processors, $moved bytes a step through the first worker, predicted $(awk -v a="$(number_of push_bytes <<<"$predicted")" -v b="$(number_of pull_bytes <<<"$predicted")" 'BEGIN {printf "%.0f", a + b}') and the copies"
    echo "{\"bench\":\"plan\",\"case\":\"step of $n workers at $rate$([ "$n" -gt 2 ] && echo ", fixed sleep")\",\"unit\":\"ms\",\"median\":$took,\"min\":$took,\"max\":$took,\"runs\":1,\"bound\":{\"name\":\"prediction ($rules)\",\"value\":$ms},\"ratio\":$ratio}" >>"$json"
    awk -v r="$ratio" -v b="$bound" 'BEGIN {exit !(r > 1 - b && r < 1 + b)}' || { echo "FAIL the prediction is off by more than $bound"; failed=1; }
}
cp tests/bench/plan.yaml "$top/plan.yaml"
awk 'function text(k,  s) {s = ""; while (k-- > 0) s = s sprintf("%c", 97 + int(rand() * 26)); return s}
    BEGIN {srand(7); for (i = 0; i < 64; i++) printf "{\"prompt\":\"%s\",\"response\":\"%s\"}\n", text(20), text(89)}' >"$top/rows.jsonl"
for c in "${cases[@]}"; do run "${c%:*}" "${c##*:}"; done
exit $failed
