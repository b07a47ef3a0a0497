#!/usr/bin/env bash
# A busy machine is not a dead one: twice as many spinning processes as there are processors, at the same priority as ours, for BUSY_SECONDS while a
# job trains under the default liveness settings. Nobody may be declared dead and no lease or session lost, and the bits are those of the
# straight loop. The counters of the coordinator tell, not the absence of a line in a log alone.
set -u
cd "$(dirname "$0")/../.." || exit 1
spec=tests/system/bits.yaml
. tests/lib/cluster.sh
seconds=${BUSY_SECONDS:-20}
spinners=()
quiet() {
    [ ${#spinners[@]} -eq 0 ] || { kill -9 "${spinners[@]}"; wait "${spinners[@]}"; } 2>/dev/null
    spinners=()
}
trap 'quiet; cleanup' EXIT
counter() { # name: of /metrics, where it stands also when it is 0; fails if it does not
    curl -sf "http://$http/metrics" | sed -nE "s/^steer_$1_total ([0-9]+)\$/\1/p" | grep .
}

begin busy
worker w1 1
worker w2 2
for i in $(seq $((2 * $(nproc)))); do
    (exec -a spinner awk 'BEGIN {for (;;) n++}') &
    spinners+=($!)
done
from=$SECONDS runs=0
while [ $runs -eq 0 ] || [ $((SECONDS - from)) -lt "$seconds" ]; do
    runs=$((runs + 1))
    submit --idempotency-key "busy-$runs" --set reuse_verified=false
    "$bin/steerctl" wait "$job" --timeout 300 >>"$dir/steerctl.log" 2>&1 || { echo "FAIL run $runs did not end well"; failed=1; break; }
done
load=$(cut -d' ' -f1 /proc/loadavg)
for spinner in "${spinners[@]}"; do kill -0 "$spinner" 2>/dev/null || { echo "FAIL a spinner ended early"; failed=1; }; done
for name in fenced recomputed rolled_back promoted; do # (a slow unit may be overtaken: that is its purpose)
    n=$(counter $name) || { echo "FAIL /metrics has no steer_${name}_total"; failed=1; continue; }
    [ "$n" -eq 0 ] || { echo "FAIL steer_$name is $n on a machine that is only busy"; failed=1; }
done
lost=$(grep -cE ' worker\.(lost|replaced) ' "$dir/coordinator.log")
suspect=$(grep -c ' worker.suspect ' "$dir/coordinator.log")
attempts=$(grep -c ' session.recover ' "$dir/coordinator.log")
[ "$lost" -eq 0 ] && [ "$attempts" -eq 0 ] || { echo "FAIL $lost workers declared dead, $attempts sessions begun again:"; grep -E ' worker\.|session\.(recover|leave)|clock.gap' "$dir/coordinator.log" | tail -n 10; failed=1; }
quiet
finish "a busy machine"
echo "figure: busy: $runs runs in $((SECONDS - from)) s under $((2 * $(nproc))) spinners (load $load): $lost declared dead, $suspect suspected"
exit $failed
