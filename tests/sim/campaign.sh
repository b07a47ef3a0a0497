#!/usr/bin/env bash
# The simulator's long form: seeds 1..N (1,000,000) in slices, each a line appended to the results file. Started again it
# goes on after the last slice of this commit.
# usage: campaign.sh [N] [RESULTS]
set -u
cd "$(dirname "$0")/../.."
last=${1:-1000000}
results=${2:-${STEER_RESULTS:-build/results.txt}}
sim=${STEER_SIM:-build/release/tests/sim/steer_sim}
slice=${STEER_SIM_SLICE:-20000}
commit=$("$sim" --version)
bad=0
touch "$results"
# The end of what was run without a gap; a slice with violations is run again.
done_to=$(sed -nE "s/^suite=sim commit=$commit seeds=([0-9]+)\.\.([0-9]+) violations=0 .*/\1 \2/p" "$results" | sort -n |
    awk '$1 <= to + 1 && $2 > to {to = $2} END {print to + 0}')
for ((from = ${done_to:-0} + 1; from <= last; from += slice)); do
    to=$((from + slice - 1 < last ? from + slice - 1 : last))
    "$sim" --seeds "$from..$to" --all-struck --jobs "$(nproc)" --results "$results" || bad=1
done
exit $bad
