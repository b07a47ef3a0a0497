#!/usr/bin/env bash
# A wire of bf16 has bits of its own, and is as strict as any: whoever computes, whoever is killed, the manifest is that of a straight
# loop which rounds at the same places; and it is not that of fp32.
# May run beside others: it mostly waits.
set -u
cd "$(dirname "$0")/../.." || exit 1
spec=tests/system/wire.yaml
. tests/lib/cluster.sh

start one-worker 1; finish one-worker kept
fp32=$("$ref" tests/system/bits.yaml "" "$(manifest_of 120)" "$dir/blobs" | sed -n 's/^manifest //p')
if [ -z "$fp32" ] || [ "$fp32" = "$want" ]; then echo "FAIL bf16 gives the bits of fp32: nothing was rounded"; failed=1; fi
kill_all
start three-workers 3; finish three-workers
start two-threads-killed 2; worker more 2; step 30 >/dev/null; end KILL w1; must_move='promoted rolled_back recomputed overtaken'; finish two-threads-killed
exit $failed
