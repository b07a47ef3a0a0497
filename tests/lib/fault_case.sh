#!/usr/bin/env bash
# One run of a small job on real daemons (a coordinator and two workers), each kept alive as systemd would: who exits without being told
# is started again, without the fault or with its next one. Used by tests of faults; one line of outcome on stdout.
# usage: fault_case.sh DIR SPEC SECONDS [ROLE STEER_FAULT[;STEER_FAULT...]]...   ROLE: c, w1, w2; one STEER_FAULT for each life
#        io:MODE:N instead of a STEER_FAULT: tests/lib/io_fault.c, built as $STEER_IO_FAULT; what it struck is in DIR/struck
# outcome: SUCCEEDED|FAILED|UNKNOWN SHA256-OF-THE-LAST-CHECKPOINT SHA256-OF-THE-ROWS JOBS EXITS   with EXITS as role:code,... or -
set -u
dir=$1 spec=$2 seconds=$3
shift 3
bin=${STEER_BIN:-build/release/bin}
declare -A fault=()
while [ $# -gt 1 ]; do fault[$1]=$2; shift 2; done
mkdir -p "$dir/state"
export STEER_DIR=$dir/state
unset STEER_TOKEN STEER_SERVER STEER_FAULT

cleanup() {
    touch "$dir/stop"
    for f in "$dir"/pid.*; do [ -s "$f" ] && kill -9 "$(cat "$f")" 2>/dev/null; done
    wait 2>/dev/null
}
trap cleanup EXIT
trap 'exit 1' TERM INT

. tests/lib/ports.sh
http=127.0.0.1:$(free_port) control=tcp://127.0.0.1:$(free_port)
daemon() { # role: one life
    if [ "$1" = c ]; then exec "$bin/steer-coordinator" --dir "$STEER_DIR" --http "$http" --control "$control"; fi
    exec "$bin/steer-worker" --coordinator-dir "$STEER_DIR" --dir "$dir/$1" --threads 1 --name "$1"
}
life() { # role fault
    local state=$STEER_DIR
    [ "$1" = c ] || state=$dir/$1
    case "$2" in
    io:*) export LD_PRELOAD=$STEER_IO_FAULT IO_FAULT=${2#io:} IO_FAULT_DIR=$state IO_FAULT_LOG=$dir/struck ;;
    *) export STEER_FAULT=$2 ;;
    esac
    daemon "$1"
}
keep() { # role: until the test is over
    local rc list=${fault[$1]:-} with
    while [ -d "$dir" ] && [ ! -e "$dir/stop" ]; do
        with=${list%%;*} # of this life
        [ "$with" = "$list" ] && list='' || list=${list#*;}
        life "$1" "$with" >>"$dir/$1.log" 2>&1 &
        echo $! >"$dir/pid.$1"
        [ -e "$dir/stop" ] && kill -9 $!
        wait $!
        rc=$?
        [ -e "$dir/stop" ] && break
        echo "$1:$rc" >>"$dir/exits"
        [ $rc -eq 0 ] && break
        sleep 0.1
    done
}
# Ids in order and both there before the job, so that w1 is the first host, which leads the steps; a fault may keep one from coming.
for i in 1 2; do mkdir -p "$dir/w$i" && printf 'w000000000000000%d' $i >"$dir/w$i/worker.id"; done
for role in c w1 w2; do
    keep $role 2>>"$dir/keep.log" &
    for _ in $(seq 30); do
        if [ $role = c ]; then
            [ -s "$STEER_DIR/endpoint.json" ] && break
            sleep 0.1
            continue
        fi
        "$bin/steerctl" worker ls 2>>"$dir/steerctl.log" | grep -qw $role && break
        sleep 0.1
    done
done

end=$((SECONDS + seconds))
job=''
while [ $SECONDS -lt $end ] && [ -z "$job" ]; do
    job=$(timeout 20 "$bin/steerctl" submit "$spec" --idempotency-key once -o name 2>>"$dir/steerctl.log") || sleep 0.1
done
state=UNKNOWN
while [ $SECONDS -lt $end ] && [ -n "$job" ]; do
    "$bin/steerctl" wait "$job" --timeout 5 >>"$dir/steerctl.log" 2>&1
    case $? in
    0) state=SUCCEEDED ;;
    9 | 10 | 11) state=FAILED ;;
    *) sleep 0.1; continue ;;
    esac
    "$bin/steerctl" status "$job" -o json >"$dir/status.json" 2>>"$dir/steerctl.log" && break
done
rows=$(tr -d ' \n' <"$dir/status.json" 2>/dev/null | grep -oE '"rows/data":\["[0-9a-f]{64}' | head -1 | grep -oE '[0-9a-f]{64}')
[ -n "$rows" ] || rows=$(tr -d ' \n' <"$dir/status.json" 2>/dev/null | grep -oE '"data":\["[0-9a-f]{64}' | head -1 | grep -oE '[0-9a-f]{64}')
steps=$(sed -nE 's/.*max_steps: ([0-9]+).*/\1/p' "$spec" | head -1)
manifest=''
[ -z "$steps" ] || manifest=$(grep -lrE "\"format\":\"steer-checkpoint-1\".*\"step\":$steps," "$STEER_DIR/blobs" | grep -v /blobs/tmp/ | sort | tr '\n' ' ')
manifest=${manifest//"$STEER_DIR"\/blobs\//}
manifest=$(tr -d "/ " <<<"$manifest")
jobs=$("$bin/steerctl" ls -o json 2>/dev/null | grep -oE '"id": ?"job_' | wc -l)
exits=$(paste -sd, "$dir/exits" 2>/dev/null)
echo "$state ${manifest:--} ${rows:--} $jobs ${exits:--}"
