#!/usr/bin/env bash
# One bit of every 250th message that a daemon takes is flipped, as by a network whose checksums see nothing: gradients, sums, parameters,
# what the coordinator says. What is damaged is thrown away and said again, so the bits stay those of a straight loop; a daemon must not end, nor a job.
# May run beside others: it mostly waits.
set -u
cd "$(dirname "$0")/../.." || exit 1
spec=tests/system/bits.yaml
. tests/lib/cluster.sh
export STEER_FAULT=net.message.damage:10:every=250

struck() { # daemon pattern: its log has it, and that many times
    local n
    n=$(grep -cE "$2" "$dir/$1.log")
    [ "$n" -gt 0 ] || fail "$1 was never given a damaged message: no '$2' in its log"
    total=$((total + n))
}
total=0
start damaged-messages 2
worker w3 2
step 60 >/dev/null
worker w4 1 # a host that joins takes its chunks from the memory of others
last=$(step 110)
finish damaged-messages kept
for name in coordinator w1 w2 w3; do struck "$name" "was changed on its way"; done
kill_all
echo "figure: damaged: $total messages thrown away, step ${last:-?} of 120 reached with them"
exit $failed
