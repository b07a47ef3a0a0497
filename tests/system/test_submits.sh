#!/usr/bin/env bash
# An acknowledged submit is never lost and never doubled: clients submit under fresh keys and repeat until they are answered, while the
# coordinator is killed again and again. At the end every acknowledged job is there, there is no other, no key has two, and a key that
# is sent once more names the same job. The kills count only if some struck a request that was on its way (ambiguous).
#
#   SUBMITS_KILLS 100   SUBMITS_BATCH 100 kills on one state directory   SUBMITS_ACKS 1 at least   SUBMITS_SEED
# With STEER_RESULTS each batch is a line there, and batches that are there for this commit are not run again.
set -u
cd "$(dirname "$0")/../.." || exit 1
. tests/lib/submits.sh
bin=${STEER_BIN:-build/release/bin}
submitter=${STEER_SUBMITTER:-$(dirname "$bin")/tests/lib/submitter}
kills_wanted=${SUBMITS_KILLS:-100}
batch=${SUBMITS_BATCH:-100}
acks_wanted=${SUBMITS_ACKS:-1}
seed=${SUBMITS_SEED:-1}
commit=$(tests/lib/commit)
results=${STEER_RESULTS:-}
dir='' pid=0 load=0
unset STEER_TOKEN STEER_SERVER

cleanup() {
    [ -n "$dir" ] || return
    touch "$dir/stop"
    [ "$pid" -eq 0 ] || kill -9 "$pid" 2>/dev/null
    [ "$load" -eq 0 ] || kill -9 "$load" 2>/dev/null
    wait 2>/dev/null
    rm -rf "$dir"
}
trap cleanup EXIT
trap '[ -z "$dir" ] || tail -n 20 "$dir/log"; exit 1' INT TERM

# What the database holds after the last restart, against what was acknowledged.
jobs_list() {
    local token='' page
    : >"$dir/jobs"
    while :; do
        page=$(curl -sf "http://$http/v1/jobs?limit=1000&page_token=$token") || { echo "no list"; exit 1; }
        grep -oE '"id":"job_[0-9a-z]{13}"' <<<"$page" | cut -d'"' -f4 >>"$dir/jobs"
        token=$(sed -nE 's/.*"next_page_token":"(job_[0-9a-z]*)".*/\1/p' <<<"$page")
        [ -n "$token" ] || break
    done
    sort -u "$dir/jobs" >"$dir/ids"
}

batch_run() { # seed: sets kills acks ambiguous lost doubled seconds
    local began=$SECONDS n pause
    dir=$(mktemp -d /tmp/steer-submits.XXXXXX)
    http='' control=''
    RANDOM=$1
    start
    x=$(byte_upload "$http" "$dir") || { echo "no upload"; exit 1; }
    body_make jobs/specs/sft.yaml "$x" "$dir/body"
    "$submitter" "$http" "$dir/body" "s$1" 6 0 "$dir/stop" 5 >"$dir/acks" 2>>"$dir/log" &
    load=$!
    kills=0
    while [ $kills -lt "$batch" ]; do
        printf -v pause 0.%03d $((RANDOM % 200 + 20)) # not in $( ), where RANDOM has a seed of its own
        sleep "$pause"
        kill -9 $pid
        wait $pid 2>/dev/null
        kills=$((kills + 1))
        start
    done
    touch "$dir/stop"
    wait $load || { echo "FAIL a client got no answer"; failed=1; }
    load=0
    kill -9 $pid
    wait $pid 2>/dev/null
    start
    jobs_list
    grep '^ack ' "$dir/acks" | sort -u >"$dir/ack"
    acks=$(cut -d' ' -f2 "$dir/ack" | sort -u | wc -l)
    lost=$(cut -d' ' -f3 "$dir/ack" | sort -u | comm -23 - "$dir/ids" | wc -l)
    n=$(cut -d' ' -f3 "$dir/ack" | sort -u | comm -13 - "$dir/ids" | wc -l) # every key was brought to its answer: no other job may be there
    doubled=$((n + $(cut -d' ' -f2 "$dir/ack" | sort | uniq -d | wc -l) + $(sed -n 's/^total.*differ=//p' "$dir/acks")))
    ambiguous=$(sed -nE 's/^total.*ambiguous=([0-9]+).*/\1/p' "$dir/acks")
    seconds=$((SECONDS - began))
    kill -9 $pid
    wait $pid 2>/dev/null
    pid=0
    rm -rf "$dir"
    dir=''
}

failed=0
tally=${results:-$(mktemp)}
touch "$tally"
sum() { awk -v f="$1" -v c="commit=$commit" '$1 == "suite=submits" && $2 == c {for (i = 3; i <= NF; i++) {split($i, p, "="); if (p[1] == f) n += p[2]}} END {print n + 0}' "$tally"; }
while [ "$(sum kills)" -lt "$kills_wanted" ] || [ "$(sum acks)" -lt "$acks_wanted" ]; do
    while grep -q "^suite=submits commit=$commit seed=$seed " "$tally"; do seed=$((seed + 1)); done
    batch_run $seed
    echo "suite=submits commit=$commit seed=$seed kills=$kills acks=$acks ambiguous=$ambiguous lost=$lost doubled=$doubled seconds=$seconds" >>"$tally"
    tail -n 1 "$tally"
    [ "$acks" -gt 0 ] || break
done
echo "figure: submits: $(sum kills) kills, $(sum acks) acknowledged, $(sum ambiguous) ambiguous, $(sum lost) lost, $(sum doubled) doubled"
[ "$(sum acks)" -ge "$acks_wanted" ] && [ "$(sum ambiguous)" -gt 0 ] && [ "$(sum lost)" -eq 0 ] && [ "$(sum doubled)" -eq 0 ] || failed=1
[ -n "$results" ] || rm -f "$tally"
exit $failed
