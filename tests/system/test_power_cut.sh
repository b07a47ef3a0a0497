#!/usr/bin/env bash
# The power goes: the coordinator's state is on an ext4 image of its own; while submits are acknowledged and a job trains, the daemons are
# stopped and the image is copied. The copy lacks what was not synced, as after a power cut. A second cluster starts on it: every
# acknowledged submit is there, none twice, every visible blob is whole, and the job ends with the bits of the undisturbed run.
# STEER_LONG=1: CUTS (default 60) cuts; short: until 30 s are over. Needs root and loop mounts. SEED=n repeats the moments.
# May run beside others: it mostly waits.
set -u
cd "$(dirname "$0")/../.." || exit 1
. tests/lib/submits.sh
export STEER_BIN=${STEER_BIN:-build/release/bin}
bin=$STEER_BIN
[ "$(id -u)" -eq 0 ] || { echo "loop mounts need root"; exit 77; }
top=$(mktemp -d /tmp/steer-power.XXXXXX)
seed=${SEED:-$$}
RANDOM=$seed
if [ -n "${STEER_LONG:-}" ]; then cuts_max=${CUTS:-60} seconds_max=100000; else cuts_max=${CUTS:-100} seconds_max=28; fi
declare -A pid=()
failed=0 cuts=0 acks=0 lost=0 doubled=0 torn=0 begun=$SECONDS
unset STEER_TOKEN STEER_SERVER

end_all() {
    local p
    touch "$top/stop"
    for p in "${pid[@]}"; do kill -CONT "$p" 2>/dev/null; kill -9 "$p" 2>/dev/null; wait "$p" 2>/dev/null; done
    pid=()
    for p in live copy; do mountpoint -q "$top/$p" && umount "$top/$p"; done
    return 0
}
cleanup() {
    end_all
    [ $failed -eq 0 ] && rm -rf "$top" || echo "logs are in $top"
}
trap cleanup EXIT
trap 'failed=1; exit 1' TERM INT

mkdir "$top/live" "$top/copy"
truncate -s 256M "$top/empty.img"
mkfs.ext4 -q -F "$top/empty.img" || { echo "no mkfs.ext4 here"; exit 77; }
mount -o loop "$top/empty.img" "$top/live" 2>"$top/mount.err" || { rm -rf "$top"; trap - EXIT; echo "loop mounts are not allowed here"; exit 77; }
umount "$top/live"

mkdir "$top/tests" "$top/tests/system"
ln -s "$PWD/data" "$PWD/models" "$top/"
spec=$top/tests/system/power.yaml
sed '/name: rows/,$d; s/max_steps: 12/max_steps: 30/' tests/system/fault.yaml >"$spec"
want=$(tests/lib/fault_case.sh "$top/undisturbed" "$spec" 60 2>/dev/null | cut -d' ' -f2)
[ ${#want} -eq 64 ] || { echo "FAIL the undisturbed run: $want"; failed=1; exit 1; }

coordinator() { # directory of the mount
    rm -f "$1/state/endpoint.json"
    "$bin/steer-coordinator" --dir "$1/state" --http 127.0.0.1:0 --control tcp://127.0.0.1:0 >>"$top/c.log" 2>&1 &
    pid[c]=$!
    for _ in $(seq 1500); do [ -s "$1/state/endpoint.json" ] && break; sleep 0.02; done
    http=$(sed -E 's/.*"http":"http:\/\/([^"]*)".*/\1/' "$1/state/endpoint.json")
    export STEER_DIR=$1/state
}
worker() { # name
    "$bin/steer-worker" --coordinator-dir "$STEER_DIR" --dir "$top/$1" --threads 1 --name "$1" >>"$top/$1.log" 2>&1 &
    pid[$1]=$!
}
submit_key() { # key [seconds]: the id that was answered
    curl -sf -m "${2:-2}" -H "Idempotency-Key: $1" -H 'Content-Type: application/json' --data-binary "@$top/body" "http://$http/v1/jobs" |
        grep -oE '"id":"job_[0-9a-z]{13}"' | head -1
}
client() { # name
    local n=0 id
    while [ ! -e "$top/stop" ]; do
        n=$((n + 1))
        echo "$1-$n" >"$top/flying.$1"
        id=$(submit_key "$1-$n")
        [ -n "$id" ] && [ ! -e "$top/stop" ] && echo "$1-$n $id" >>"$top/acks.$1"
        sleep 0.02
    done
}
complain() {
    echo "FAIL cut $cuts: $*"
    failed=1
}

live_run() { # a cluster on a fresh image, until the power goes
    rm -rf "$top/stop" "$top"/acks.* "$top"/flying.* "$top/wl" "$top/wc"
    cp --sparse=always "$top/empty.img" "$top/live.img"
    mount -o loop "$top/live.img" "$top/live"
    mkdir "$top/live/state"
    coordinator "$top/live"
    worker wl
    x=$(byte_upload "$http" "$top") || { complain "no upload"; return 1; }
    body_make jobs/specs/sft.yaml "$x" "$top/body"
    job=$("$bin/steerctl" submit "$spec" -o name 2>>"$top/steerctl.log") || { complain "no submit"; return 1; }
    touch "$top/acks.a" "$top/acks.b"
    client a & pid[a]=$!
    client b & pid[b]=$!
    sleep "$((RANDOM % 2)).$((RANDOM % 10))$((RANDOM % 10))"
    kill -STOP "${pid[c]}" "${pid[wl]}"
    touch "$top/stop" # acknowledgements that were read before this moment count
    cp --sparse=always "$top/live.img" "$top/copy.img"
    cat "$top"/acks.* >"$top/acks"
    end_all
}
copy_check() {
    local f hex id key page token='' known
    mount -o loop "$top/copy.img" "$top/copy" || { complain "the copy can't be mounted"; return; }
    find "$top/copy/state/blobs" -type f -path '*/blobs/??/*' | while read -r f; do
        hex=${f#"$top/copy/state/blobs/"}
        [ "$(sha256sum <"$f" | cut -c1-64)" = "${hex//\//}" ] || echo "$f"
    done >"$top/torn"
    torn=$((torn + $(wc -l <"$top/torn")))
    [ -s "$top/torn" ] && complain "torn: $(head -1 "$top/torn")"
    coordinator "$top/copy"
    [ -n "$http" ] || { complain "no start on the copy"; return; }
    : >"$top/ids"
    while :; do
        page=$(curl -sf "http://$http/v1/jobs?limit=1000&page_token=$token")
        grep -oE '"id":"job_[0-9a-z]{13}"' <<<"$page" >>"$top/ids"
        token=$(sed -nE 's/.*"next_page_token":"(job_[0-9a-z]*)".*/\1/p' <<<"$page")
        [ -n "$token" ] || break
    done
    while read -r key id; do
        acks=$((acks + 1))
        grep -qF "$id" "$top/ids" || { lost=$((lost + 1)); complain "lost: $key $id"; }
    done <"$top/acks"
    grep -qF "$job" "$top/ids" || { lost=$((lost + 1)); complain "lost: $job"; return; }
    known=$(sort -u "$top/ids" | wc -l)
    [ "$known" -le $(($(wc -l <"$top/acks") + 3)) ] || { doubled=$((doubled + 1)); complain "$known jobs for $(wc -l <"$top/acks") acknowledged submits"; }
    while read -r key id; do # the last ones again: the same answers
        [ "$(submit_key "$key" 20)" = "$id" ] || { doubled=$((doubled + 1)); complain "doubled: $key"; }
    done < <(tail -n 3 "$top/acks")
    mkdir -p "$top/wc" && cp "$top/wl/worker.id" "$top/wc/" # the same machine, without what it had in memory
    worker wc
    "$bin/steerctl" wait "$job" --timeout 60 >>"$top/steerctl.log" 2>&1 || complain "the job did not end well on the copy"
    [ -s "$top/copy/state/blobs/${want:0:2}/${want:2}" ] || complain "the last checkpoint is not ${want:0:12}"
    rm -rf "$top/wl" "$top/wc"
}

while [ $cuts -lt "$cuts_max" ] && [ $((SECONDS - begun)) -lt "$seconds_max" ] && [ $failed -eq 0 ]; do
    cuts=$((cuts + 1))
    live_run && copy_check
    [ $failed -eq 0 ] && end_all
done
line="suite=power-cut commit=$(tests/lib/commit) seed=$seed cuts=$cuts acks=$acks lost=$lost doubled=$doubled torn=$torn seconds=$((SECONDS - begun))"
echo "figure: $line"
[ -z "${STEER_RESULTS:-}" ] || echo "$line" >>"$STEER_RESULTS"
[ $acks -gt 0 ] || { echo "FAIL nothing was acknowledged before a cut"; failed=1; }
exit $failed
