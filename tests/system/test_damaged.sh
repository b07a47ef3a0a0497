#!/usr/bin/env bash
# One bit of every 250th message that a worker takes is flipped, and of every 20th of the coordinator, as by a network whose checksums see nothing: gradients, sums, parameters,
# what the coordinator says. What is damaged is thrown away and said again, so the bits stay those of a straight loop; a daemon must not end, nor a job.
# May run beside others: it mostly waits.
set -u
cd "$(dirname "$0")/../.." || exit 1
spec=tests/system/bits.yaml
. tests/lib/cluster.sh
# Not all that is damaged can be told by its seal only: of some not even the envelope can be read. The coordinator hears much less than workers.
often() { STEER_FAULT=net.message.damage:5:every=20 "$@"; }
seldom() { STEER_FAULT=net.message.damage:10:every=250 "$@"; }

struck() { # daemon pattern: its log has it, and that many times
    local n
    n=$(grep -cE "$2" "$dir/$1.log")
    [ "$n" -gt 0 ] || fail "$1 was never given a damaged message: no '$2' in its log"
    total=$((total + n))
}
total=0
often begin damaged-messages
seldom worker w1; seldom worker w2; seldom worker w3 2
gathered 3
submit
step 60 >/dev/null
seldom worker w4 # a host that joins takes its chunks from the memory of others
last=$(step 110)
finish damaged-messages kept
for name in coordinator w1 w2 w3; do struck "$name" "was changed on its way"; done
kill_all
echo "figure: damaged: $total messages thrown away, step ${last:-?} of 120 reached with them"
exit $failed
