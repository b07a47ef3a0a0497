#!/usr/bin/env bash
# Every failpoint (docs/faults.md) at its first hits: a small training and row job on real daemons, of which one is gone at that point (137)
# and is started again. The last checkpoint and the rows must be those of the undisturbed run, and there must be one job.
# Short form: every other point once; which, and at which hit and worker, SEED decides (of the commit). STEER_LONG=1: hits 1..3 of every
# point and role.
# usage: tests/system/test_failpoints.sh [NAME-PATTERN]     SEED=n PARALLEL=n
set -u
cd "$(dirname "$0")/../.." || exit 1
bin=${STEER_BIN:-build/release/bin}
export STEER_BIN=$bin
spec=tests/system/fault.yaml
pattern=${1:-.}
seed=${SEED:-$((16#$(git rev-parse --short=7 HEAD 2>/dev/null || echo 1)))}
parallel=${PARALLEL:-8}
long=${STEER_LONG:-}
top=$(mktemp -d /tmp/steer-failpoints.XXXXXX)
failed=0
begun=$SECONDS
trap 'touch "$top/stop"; wait; [ $failed -eq 0 ] && rm -rf "$top" || echo "logs are in $top"' EXIT
trap 'failed=1; exit 1' TERM INT

# What has to have gone wrong before some points are reached: on the other worker, or on the coordinator.
with() { # name: role and fault of the companion, or nothing
    case "$1" in
    session.freeze.*) echo "other ps.push.ack.before:45" ;; # when the coordinator has heard of a version
    ps.frozen.* | session.close.* | ps.state.*) echo "other ps.push.ack.before:9" ;;
    esac
}
roles() { # c, w or b: who can be hit
    case "$1" in c) echo c ;; w) echo w1 w2 ;; b) echo c w1 ;; esac
}
case_run() { # name role hit: one line in $top/results
    local dir=$top/$1-$2-$3 outcome more=()
    [ -e "$top/stop" ] && return
    read -r -a more <<<"$(with "$1")"
    if [ ${#more[@]} -gt 0 ] && [ "${more[0]}" = other ]; then
        [ "$2" = w1 ] && more[0]=w2 || more[0]=w1
    fi
    outcome=$(tests/lib/fault_case.sh "$dir" "$spec" 120 "$2" "$1:$3" "${more[@]}" 2>"$top/case.err")
    echo "$1 $2 $3 $outcome" >>"$top/results"
    case "$outcome" in "$want "*) rm -rf "$dir" ;; esac
}
reached() { # name role: that role has been gone by it
    awk -v name="$1" -v role="$2" '$1 == name && $2 == role && ("," $8 ",") ~ ("," role ":137,") {n = 1} END {exit !n}' "$top/results"
}
wave() { # runs the lines "name role hit" of stdin, some at a time
    local n=0
    while read -r name role hit; do
        case_run "$name" "$role" "$hit" &
        n=$((n + 1))
        [ $n -ge "$parallel" ] && wait -n
    done
    wait
}

want=$(tests/lib/fault_case.sh "$top/undisturbed" "$spec" 60 2>/dev/null)
case "$want" in
"SUCCEEDED "*" 1 -") ;;
*) echo "FAIL the undisturbed run: $want"; failed=1; exit 1 ;;
esac
want=${want% -}
"$bin/steer-worker" --faults | awk -F'\t' '$3 != "deed" {print $1, $2}' | grep -E "$pattern" |
    if [ -n "$long" ] || [ "$pattern" != . ]; then cat; else awk -v seed="$seed" '(NR + seed) % 2 == 0'; fi >"$top/points"
touch "$top/results"

i=0
while read -r name who; do
    read -r -a all <<<"$(roles "$who")"
    for hit in 1 2 3; do
        for k in "${!all[@]}"; do
            i=$((i + 1))
            [ -n "$long" ] || { [ $hit -eq $(((seed + i / 6) % 3 + 1)) ] && [ "$k" -eq $(((seed / 3 + i / 6) % ${#all[@]})) ]; } || continue
            echo "$name ${all[$k]} $hit"
        done
    done
done <"$top/points" >"$top/cases"
wave <"$top/cases"
# What was not come by: its first hit, at everybody who can.
while read -r name who; do
    for role in $(roles "$who"); do reached "$name" "$role" && continue 2; done
    for role in $(roles "$who"); do grep -q "^$name $role 1 " "$top/results" || echo "$name $role 1"; done
done <"$top/points" >"$top/again"
wave <"$top/again"

ends_well='^(-|[cw12]+:(137|0)(,[cw12]+:(137|0))*)$' # nobody ends but at a failpoint, or told to
runs=0 struck=0
while read -r name role hit outcome; do
    runs=$((runs + 1))
    exits=${outcome##* }
    [[ ",$exits," == *",$role:137,"* ]] && struck=$((struck + 1))
    case "$outcome" in
    "$want "*) [[ $exits =~ $ends_well ]] || { echo "FAIL $name:$hit at $role: daemons ended by themselves: $exits"; failed=1; } ;;
    *) echo "FAIL $name:$hit at $role: $outcome"; failed=1 ;;
    esac
done <"$top/results"
never=()
while read -r name who; do
    for role in $(roles "$who"); do reached "$name" "$role" && continue 2; done
    never+=("$name")
done <"$top/points"
points=$(wc -l <"$top/points")
echo "never reached: ${never[*]:-none}"
line="suite=failpoints commit=$(tests/lib/commit) seed=$seed points=$points reached=$((points - ${#never[@]})) runs=$runs struck=$struck failed=$failed seconds=$((SECONDS - begun))"
echo "figure: $line"
[ -z "${STEER_RESULTS:-}" ] || echo "$line" >>"$STEER_RESULTS"
[ -z "$long" ] || [ ${#never[@]} -eq 0 ] || { echo "FAIL points that nobody came by"; failed=1; }
[ "$struck" -gt 0 ] || { echo "FAIL no fault struck"; failed=1; }
exit $failed
