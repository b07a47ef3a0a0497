#!/usr/bin/env bash
# All long forms, one after the other, and docs/reliability.md from what they found. Every suite goes on where it stopped: what the results file
# has for this commit is not run again. Sizes:
#   CHAOS_RUNS 300 disturbed runs that count      SEEDS 1000000 of the simulator      SUBMITS_KILLS 2000 of the coordinator under submits
# usage: tests/chaos/long.sh [SUITE...]       suites: see the end of this file; default: all
set -u
cd "$(dirname "$0")/../.." || exit 1
export STEER_BIN=${STEER_BIN:-$PWD/build/release/bin}
export STEER_RESULTS=${STEER_RESULTS:-build/results.txt}
mkdir -p "$(dirname "$STEER_RESULTS")"
touch "$STEER_RESULTS"
commit=$(tests/lib/commit)
export STEER_COMMIT=$commit
failed='' wanted=" $* "

# A suite's run as one line: how it ended and the figures that it printed. A run that ended well is not repeated for the same commit and size.
record() { # name size command...
    local name=$1 size=$2 start=$SECONDS log rc
    shift 2
    [ "$wanted" = "  " ] || [[ $wanted == *" $name "* ]] || return 0
    if grep -q "^suite=run name=$name commit=$commit size=$size rc=0 " "$STEER_RESULTS"; then
        echo "$name: done before"
        return 0
    fi
    echo "== $name ($size)"
    log=$(mktemp)
    "$@" 2>&1 | tee "$log"
    rc=${PIPESTATUS[0]}
    [ "$rc" -eq 0 ] || failed+=" $name"
    echo "suite=run name=$name commit=$commit size=$size rc=$rc seconds=$((SECONDS - start)) figures=$(grep -h '^figure:' "$log" | sed 's/^figure: *//; s/["|]//g' | tail -n 40 | paste -sd'|')" >>"$STEER_RESULTS"
    rm -f "$log"
}

record grid 24 env GRID=all tests/system/test_grid.sh
record chaos "${CHAOS_RUNS:-300}" env CHAOS_RUNS="${CHAOS_RUNS:-300}" tests/chaos/test_chaos.sh
record submits "${SUBMITS_KILLS:-2000}" env SUBMITS_KILLS="${SUBMITS_KILLS:-2000}" SUBMITS_ACKS="${SUBMITS_ACKS:-50000}" tests/system/test_submits.sh
record failpoints all env STEER_LONG=1 tests/system/test_failpoints.sh
for script in tests/system/test_power_cut.sh tests/system/test_ckpt_kill.sh tests/system/test_io_faults.sh; do
    [ ! -x $script ] || record "$(basename $script .sh | sed 's/^test_//')" long env STEER_LONG=1 $script
done
record restart_many 10000 tests/system/test_restart_many.sh
record busy 180 env BUSY_SECONDS=180 tests/system/test_busy.sh
record ckpt_damage 100000 env STEER_LONG=1 "$(dirname "$STEER_BIN")/tests/unit/ps/test_ckpt_damage"
record mutants all tests/mutants/run.sh
record simulator "${SEEDS:-1000000}" tests/sim/campaign.sh "${SEEDS:-1000000}"
tests/chaos/report.sh "$STEER_RESULTS" >docs/reliability.md.new && mv docs/reliability.md.new docs/reliability.md
[ -z "$failed" ] || { echo "FAILED:$failed"; exit 1; }
