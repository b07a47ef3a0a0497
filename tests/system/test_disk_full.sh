#!/usr/bin/env bash
# The coordinator's disk fills while a job trains: submits are refused by name, the job is parked, nothing torn is visible; when space
# returns the job goes on by itself and ends, and the refused submit is taken. Needs root (a small tmpfs).
# May run beside others: it mostly waits.
set -u
cd "$(dirname "$0")/../.." || exit 1
bin=${STEER_BIN:-build/release/bin}
[ "$(id -u)" -eq 0 ] || { echo "a tmpfs needs root"; exit 77; }
top=$(mktemp -d /tmp/steer-full.XXXXXX)
mkdir "$top/disk"
mount -t tmpfs -o size=96m tmpfs "$top/disk" 2>/dev/null || { rmdir "$top/disk" "$top"; echo "tmpfs can't be mounted here"; exit 77; }
export STEER_DIR=$top/disk/state
mkdir "$STEER_DIR"
cpid='' wpid=''
cleanup() {
    kill -9 $cpid $wpid 2>/dev/null
    wait 2>/dev/null
    umount "$top/disk" && rm -rf "$top"
}
trap cleanup EXIT
fail() {
    echo "FAIL: $*"
    tail -n 20 "$top"/*.log
    "$bin/steerctl" status bits
    exit 1
}
trap 'fail "ended by a signal"' INT TERM
until_says() { # seconds pattern command...
    local end=$((SECONDS + $1)) pattern=$2
    shift 2
    while [ $SECONDS -lt $end ]; do
        "$@" 2>&1 | grep -qE "$pattern" && return 0
        sleep 0.2
    done
    return 1
}

"$bin/steer-coordinator" --dir "$STEER_DIR" --http 127.0.0.1:0 --control tcp://127.0.0.1:0 >"$top/coordinator.log" 2>&1 &
cpid=$!
until_says 30 pid cat "$STEER_DIR/endpoint.json" || fail "the coordinator did not start"
"$bin/steer-worker" --coordinator-dir "$STEER_DIR" --dir "$top/worker" --threads 1 >"$top/worker.log" 2>&1 &
wpid=$!
job=$("$bin/steerctl" submit tests/system/bits.yaml --set train.max_steps=400 -o name 2>"$top/submit.log") || fail "submit"
until_says 60 '"step": ?[1-9]' "$bin/steerctl" status "$job" -o json || fail "training did not begin"

dd if=/dev/zero of="$top/disk/filler" bs=64k >/dev/null 2>&1 # until ENOSPC
"$bin/steerctl" submit tests/system/smaller.yaml --idempotency-key full >"$top/refused.log" 2>&1
[ $? -ne 0 ] || fail "a submit on a full disk was accepted"
grep -qiE 'space|disk' "$top/refused.log" || fail "the refusal does not say why: $(cat "$top/refused.log")"
grep -q -- '--idempotency-key full' "$top/refused.log" || fail "the refusal does not say how to ask again: $(cat "$top/refused.log")"
until_says 60 'PARKED|DiskFull' "$bin/steerctl" status "$job" || fail "the job does not say that it waits for space"
kill -0 $cpid 2>/dev/null || fail "the coordinator left"

rm "$top/disk/filler"
"$bin/steerctl" wait "$job" --timeout 150 >"$top/wait.log" 2>&1 || fail "the job did not end well after space returned: $(tail -n 3 "$top/wait.log")"
"$bin/steerctl" submit tests/system/smaller.yaml --idempotency-key full --wait >"$top/again.log" 2>&1 || fail "the refused submit: $(tail -n 3 "$top/again.log")"
jobs=$("$bin/steerctl" ls -o json | grep -o '"id":' | wc -l)
[ "$jobs" -eq 2 ] || fail "$jobs jobs, must be 2"

# A coordinator that starts on a full disk waits for space.
kill -9 $cpid
wait $cpid 2>/dev/null
dd if=/dev/zero of="$top/disk/filler" bs=64k >/dev/null 2>&1
"$bin/steer-coordinator" --dir "$STEER_DIR" --http 127.0.0.1:0 --control tcp://127.0.0.1:0 >"$top/again.coordinator.log" 2>&1 &
cpid=$!
until_says 20 'disk.full' cat "$top/again.coordinator.log" || fail "it does not say that the disk is full"
kill -0 $cpid 2>/dev/null || fail "the coordinator did not wait for space"
rm "$top/disk/filler"
until_says 20 succeeded "$bin/steerctl" status "$job" || until_says 5 SUCCEEDED "$bin/steerctl" status "$job" || fail "it did not start when there was space"
find "$STEER_DIR/blobs" -type f -path '*/??/*' | while read -r f; do
    hex=${f#"$STEER_DIR"/blobs/}
    [ "$(sha256sum <"$f" | cut -c1-64)" = "${hex//\//}" ] || echo "$f"
done >"$top/torn"
[ -s "$top/torn" ] && fail "torn blobs: $(head -n 3 "$top/torn")"
echo "refused, parked, resumed, started when there was space; every blob is whole"
