#!/usr/bin/env bash
# Hung and slow workers: a compute thread that never returns, and one that is much slower than the others, hold nobody up for long. The
# units of a hung one run elsewhere within 7 s; each run ends with the manifest that a straight loop computes, and its counter has moved.
set -u
cd "$(dirname "$0")/../.." || exit 1
spec=tests/system/bits.yaml
. tests/lib/cluster.sh

hung_for() { # the longest time that a step took, in ms, by the log of the coordinator; until the job is over
    local from=$1
    echo $(($(date +%s%3N) - from))
}

first() {
begin hung
export STEER_FAULT=worker.compute.slow:1:sleep=20:every # the job is not over when it is noticed
worker w1 1; worker w2 1; faulty worker.compute.hang:60 bad
unset STEER_FAULT
gathered 3
submit
for _ in $(seq 400); do grep -q "^fault worker.compute.hang" "$dir/bad.log" && break; sleep 0.05; done
since=$(date +%s%3N)
for _ in $(seq 200); do grep -qs session.hung "$dir/coordinator.log" && break; sleep 0.05; done
took=$(hung_for "$since")
grep -qs session.hung "$dir/coordinator.log" || { echo "FAIL hung: nobody noticed"; failed=1; }
[ "$took" -le 7000 ] || grep -q clock.gap "$dir/coordinator.log" || { echo "FAIL hung: others took over after $took ms"; failed=1; }
echo "figure: a hung worker's units run elsewhere after $took ms"
more_than overtaken 0
finish hung

# One thread of two: the worker's other thread goes on, and must not hide it.
begin one-thread-hung
STEER_FAULT=worker.compute.slow:1:sleep=20:every worker w1 1; faulty worker.compute.hang:60 bad 2
gathered 2
submit
for _ in $(seq 500); do grep -qs session.hung "$dir/coordinator.log" && break; sleep 0.05; done
more_than overtaken 0
finish one-thread-hung
}
second() {
begin slow
worker w1 1; worker w2 1; faulty worker.compute.slow:1:sleep=1500:every bad
gathered 3
submit
step 5 >/dev/null
for _ in $(seq 200); do grep -q session.overtake "$dir/coordinator.log" && break; sleep 0.05; done
more_than overtaken 0
for _ in $(seq 400); do grep -qs session.pace "$dir/coordinator.log" && break; sleep 0.05; done
grep -q session.pace "$dir/coordinator.log" || { echo "FAIL slow: the slow worker has as many units as before"; failed=1; }
finish slow

# Row ranges: the last one is at a slow worker, or at one that hangs.
rows_of() { "$bin/steerctl" status "$job" -o json | tr -d ' \n' | grep -oE '"outputs":\{"data":\["[0-9a-f]{64}' | head -1 | grep -oE '[0-9a-f]{64}'; }
rows() { # scenario
    spec=tests/system/rows.yaml submit
    "$bin/steerctl" wait "$job" --timeout 40 >>"$dir/steerctl.log" 2>&1 || { echo "FAIL $1: ended with $?"; failed=1; }
    right=${right:-$(rows_of)}
    if [ -n "$right" ] && [ "$(rows_of)" = "$right" ]; then echo "ok   $1 ${right:0:12}"; else echo "FAIL $1: data $(rows_of), must be $right"; failed=1; fi
}
begin rows
worker w1 1
rows rows-undisturbed
faulty worker.compute.hang:4 bad
for _ in $(seq 100); do "$bin/steerctl" worker ls 2>/dev/null | grep -q "bad.*READY" && break; sleep 0.05; done
rows rows-hung
for _ in $(seq 80); do "$bin/steerctl" worker ls 2>/dev/null | grep -q "HUNG" && break; sleep 0.1; done
"$bin/steerctl" worker ls | grep -q "HUNG" || { echo "FAIL rows-hung: the worker is not shown as HUNG"; failed=1; }
more_than overtaken 0
kill_all
begin rows-slow
worker w1 1; faulty worker.compute.slow:3:sleep=8000:every bad
gathered 2
rows rows-slow
more_than overtaken 0
more_than stale -1
kill_all
}
halves
exit $failed
