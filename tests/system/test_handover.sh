#!/usr/bin/env bash
# Parameter hosts that are lost, join, drain, stop or come back while a model trains, checkpoints that are damaged, and a coordinator that is killed
# while hosts change. Each scenario must show the event of its fault (and that no step went back to a checkpoint, where a copy was there), and every
# run must end with the manifest that a straight loop computes.
set -u
cd "$(dirname "$0")/../.." || exit 1
spec=tests/system/bits.yaml
. tests/lib/cluster.sh
export STEER_RESPREAD_MS=600000 # joins change the hosts only where that is the point

in_order() { # the workers as the coordinator lists them: by their ids; the first one is the step leader
    for name in "${!pid[@]}"; do [ "$name" = c ] || echo "$(cat "$dir/$name"/worker.id "$dir/$name"/id 2>/dev/null) $name"; done | sort | sed 's/.* //'
}
hosts() { mapfile -t host < <(in_order); }
events() { grep -c " $1 " "$dir/coordinator.log"; }
must_see() { for e in "$@"; do [ "$(events "$e")" -gt 0 ] || { echo "FAIL $name_of: no event $e"; failed=1; }; done; }
must_not_see() { for e in "$@"; do [ "$(events "$e")" -eq 0 ] || { echo "FAIL $name_of: event $e"; grep " $e " "$dir/coordinator.log"; failed=1; }; done; }
await() { # event [times]: waits until the log has it
    for _ in $(seq 400); do [ "$(events "$1")" -ge "${2:-1}" ] && return 0; sleep 0.02; done
    echo "FAIL $name_of: event $1 did not come"; failed=1
}
scenario() { name_of=$1; start "$1" "$2"; step "${3:-20}" >/dev/null; hosts; }
now_ms() { echo $(($(date +%s%N) / 1000000)); }
kill_timed() { # kills a worker and says how long it took to notice and to go on
    local t0 t1
    t0=$(now_ms); end KILL "$1"; await worker.lost; t1=$(now_ms); await session.promote
    echo "     noticed after $((t1 - t0)) ms, hosts changed after $(($(now_ms) - t0)) ms"
    # A coordinator that was itself kept waiting gives everybody the time again.
    [ $((t1 - t0)) -le 3500 ] || [ "$(events clock.gap)" -gt 0 ] || { echo "FAIL $name_of: noticed after $((t1 - t0)) ms"; failed=1; }
}

last_manifest() { # that was committed; a later one may be in the store
    local d
    d=$(sed -nE 's/.* session\.checkpoint .*version [0-9]+ ([0-9a-f]{64}).*/\1/p' "$dir/coordinator.log" | tail -n 1)
    echo "$dir/blobs/${d:0:2}/${d:2}"
}
everybody_back() {
    rm -rf "$dir"/w1 "$dir"/w2
    coordinator; worker w1 1; worker w2 1
}

# They mostly wait, for silence to be noticed and for hosts to answer: two halves at once, each with its own clusters.
first() {
scenario host-killed 3; kill_timed "${host[1]}"; finish "$name_of"; must_see session.freeze session.promote; must_not_see session.recover
scenario leader-killed 3; kill_timed "${host[0]}"; finish "$name_of"; must_see session.promote; must_not_see session.recover
scenario one-of-two-killed 2; kill_timed "${host[1]}"; finish "$name_of"; must_see session.promote; must_not_see session.recover
scenario two-apart-killed 4; end KILL "${host[0]}"; end KILL "${host[2]}"; finish "$name_of"; must_see session.promote; must_not_see session.recover
scenario neighbours-killed 4; end KILL "${host[1]}"; end KILL "${host[2]}"; finish "$name_of"; must_see session.recover
scenario one-after-the-other 4
for i in 0 1 2; do end KILL "${host[i]}"; await session.promote $((i + 1)); s=$(step 1); step $((s + 4)) >/dev/null; done; finish "$name_of"
must_see session.promote; must_not_see session.recover
export STEER_RESPREAD_MS=300
STEER_FAULT=worker.compute.slow:1:sleep=5:every scenario host-joins 2 5; worker late 1; await session.respread; finish "$name_of"; must_see session.respread; must_not_see session.recover
export STEER_RESPREAD_MS=600000
scenario host-drains 3 20; end TERM "${host[1]}"
grep -q worker.drained "$dir/${host[1]}.log" || { echo "FAIL host-drains: it did not leave by itself"; failed=1; }
finish "$name_of"; must_see session.respread; must_not_see session.recover
scenario leader-drains 2 20; end TERM "${host[0]}"; finish "$name_of"; must_see session.respread; must_not_see session.recover
scenario host-stopped-and-continued 3; end STOP "${host[1]}"; await session.promote; sleep 1; end CONT "${host[1]}"; finish "$name_of"
must_see session.promote; must_not_see session.recover
}
second() {
# The coordinator dies between FREEZE and the next attempt: one host is lost, another one stands still and so keeps the answers incomplete.
scenario coordinator-killed-in-between 3
end KILL "${host[1]}"; await worker.suspect; end STOP "${host[2]}"; await session.freeze; end KILL c; must_not_see session.promote
end CONT "${host[2]}"; coordinator; finish "$name_of"; must_see session.adopt session.promote; must_not_see session.recover
# ... and right after the next attempt was committed.
scenario coordinator-killed-after 3; end KILL "${host[1]}"; await session.promote; end KILL c; coordinator; finish "$name_of"; must_see session.promote
must_not_see session.recover
# A host is killed while the coordinator is away.
scenario host-and-coordinator-killed 3; end KILL c; end KILL "${host[1]}"; coordinator; finish "$name_of"; must_see session.adopt session.promote
must_not_see session.recover

# A byte of the last checkpoint is flipped, or its manifest is gone, while nobody runs; workers come back with empty directories.
scenario checkpoint-damaged 2 60; kill_all
m=$(last_manifest); chunk=$(grep -oE '[0-9a-f]{64}' "$m" | sed -n 3p)
for d in $(grep -oE '"chunks":\[[^]]*' "$m" | grep -oE '[0-9a-f]{64}' | head -1); do chunk=$d; done
blob=$dir/blobs/${chunk:0:2}/${chunk:2}
[ -f "$blob" ] || { echo "FAIL checkpoint-damaged: no blob $chunk of $m"; failed=1; }
chmod u+w "$blob"; printf '\x5a' | dd of="$blob" bs=1 seek=1000 conv=notrunc status=none
everybody_back; finish "$name_of"; must_see session.fallback
grep -q "is damaged: going on from version" "$dir/coordinator.log" || { echo "FAIL checkpoint-damaged: no word about it"; failed=1; }
[ "$(sha256sum "$blob" | cut -d' ' -f1)" = "$chunk" ] || { echo "FAIL checkpoint-damaged: the blob was not written again"; failed=1; }
scenario manifest-gone 2 60; kill_all
rm -f "$(last_manifest)"
everybody_back; finish "$name_of"; must_see session.fallback
}
halves
exit $failed
