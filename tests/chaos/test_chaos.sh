#!/usr/bin/env bash
# The disturbed runs of tests/chaos/run, several clusters at once: every fault of its list, whatever it strikes, must leave the bits of the
# undisturbed run. A run counts only if its fault struck an open step or range and a counter that belongs to it moved; over the suite every
# counter must have moved. What the machine lacks is named and counted; for root nothing may be missing.
#   CHAOS_RUNS=N      so many runs that count (default 20, of one run of each fault; more: seeds go on until there are so many)
#   CHAOS_FIRST=N     first seed (default 0)         CHAOS_PARALLEL=N   clusters at once (default 4)
# Every run appends a line to the results file (STEER_RESULTS, default build/results.txt); with more than 20 runs, seeds that are there for
# this commit are not run again, so a long run goes on where it stopped.
set -u
cd "$(dirname "$0")/../.." || exit 1
export STEER_BIN=${STEER_BIN:-$PWD/build/release/bin}
runs=${CHAOS_RUNS:-20} seed=${CHAOS_FIRST:-0} parallel=${CHAOS_PARALLEL:-4}
results=${STEER_RESULTS:-build/results.txt}
work=$(mktemp -d /tmp/steer-chaos.XXXXXX)
begun=$SECONDS
trap 'touch "$work/stop"; wait; rm -rf "$work"' EXIT
trap 'touch "$work/stop"; cat "$work"/pid.* 2>/dev/null | xargs -r kill; exit 1' INT TERM
mkdir -p "$(dirname "$results")"
touch "$results"
. tests/chaos/counters.sh
mapfile -t fault_names < <(tests/chaos/run --list) # seed N has number N modulo their count
faults=${#fault_names[@]}
commit=$(tests/lib/commit)
export STEER_COMMIT=$commit

tests/chaos/run --reference "$work/want" || exit 1
[ "$runs" -gt 20 ] && grep "^suite=chaos commit=$commit " "$results" | tests/chaos/last_of seed >"$work/lines"
touch "$work/lines"

one() { # seed
    [ ! -e "$work/stop" ] || return
    local rc
    nice tests/chaos/run --seed "$1" --want "$work/want" --results "$work/lines" >"$work/out.$1" 2>&1 &
    echo $! >"$work/pid.$1"
    wait $!
    rc=$?
    rm -f "$work/pid.$1"
    case $rc in
    0 | 3) ;;
    77)
        grep -o 'missing .*' "$work/out.$1" | sed "s/\$/ fault=${fault_names[$1 % faults]}/" >>"$work/missing"
        echo "suite=missing commit=$commit seed=$1 what=$(grep -o 'missing .*' "$work/out.$1" | cut -d' ' -f2)" >>"$results"
        ;;
    *) cp "$work/out.$1" "$work/failed.$1" ;;
    esac
    [ -z "${CHAOS_VERBOSE:-}" ] || cat "$work/out.$1"
    grep "^suite=chaos" "$work/out.$1" >>"$results"
}
counted() { grep -c ' counted=1 equal=1 ' "$work/lines"; }
counts() { grep -q " fault=$1 .* counted=1 equal=1 " "$work/lines"; } # some run of this fault does
last=$((seed + faults)) # every fault once, then until enough count
run_seed() { # as soon as there is room, if it has not been run
    while [ "$(jobs -rp | wc -l)" -ge "$parallel" ]; do wait -n; done
    grep -q " seed=$1 " "$work/lines" || one "$1" &
}
while [ "$seed" -lt "$last" ] || { [ "$(counted)" -lt "$runs" ] && [ "$seed" -lt $((last + 3 * runs)) ]; }; do
    run_seed "$seed"
    seed=$((seed + 1))
done
wait
for _ in 1 2 3; do # a fault that by chance hit nothing that was open gets other seeds
    for seed in $(seq "$seed" $((seed + faults - 1))); do
        counts "${fault_names[seed % faults]}" || run_seed "$seed"
    done
    seed=$((seed + 1))
    wait
done

failed=0
if grep -q ' equal=0 ' "$work/lines"; then failed=1; fi
for f in "$work"/failed.*; do
    [ -e "$f" ] || continue
    failed=1
    cat "$f"
done
sums='' zero=''
for k in "${counters[@]}"; do
    n=$(grep -oE " $k=[0-9]+" "$work/lines" | awk -F= '{n += $2} END {print n + 0}')
    sums+=" $k=$n"
    [ "$n" -gt 0 ] || zero+=" $k"
done
echo "figure: chaos: $(wc -l <"$work/lines") runs, $(counted) that count, $(grep -c ' equal=1 ' "$work/lines") equal, in $((SECONDS - begun)) s"
echo "figure: chaos: workers $(grep -oE ' workers=[0-9]+' "$work/lines" | sort | uniq -c | awk '{print $2 " x" $1}' | tr '\n' ' ')"
echo "figure: chaos:$sums"
for what in noticed_ms:3000 overtaken_ms:7000; do
    grep -oE "${what%:*}=[0-9]+" "$work/lines" | awk -F= -v name="${what%:*}" -v bound="${what#*:}" \
        '{n++; s += $2; if ($2 > m) m = $2} END {if (n) printf "figure: chaos: %s of %d: mean %d, most %d, bound %d\n", name, n, s / n, m, bound; exit n == 0 || s / n > bound}' ||
        { echo "FAIL: ${what%:*} takes too long, or was never measured"; failed=1; }
done
echo "equal, but struck nothing that counts: $(grep ' counted=0 equal=1 ' "$work/lines" | grep -oE 'fault=[a-z_]+' | sort | uniq -c | awk '{print $2 " x" $1}' | tr '\n' ' ')"
if [ -s "$work/missing" ]; then
    sed 's/ fault=.*//' "$work/missing" | sort | uniq -c | sed 's/^/figure: chaos: /'
    [ "$(id -u)" -ne 0 ] || { echo "FAIL: root must have these"; failed=1; }
fi
for f in "${fault_names[@]}"; do
    counts "$f" || grep -q "fault=$f" "$work/missing" 2>/dev/null || { echo "FAIL: no run of $f struck anything that counts"; failed=1; }
done
[ -z "$zero" ] || { echo "FAIL: no run moved:$zero"; failed=1; }
[ "$(counted)" -ge "$runs" ] || { echo "FAIL: only $(counted) of $runs runs count"; failed=1; }
[ $failed -eq 0 ]
