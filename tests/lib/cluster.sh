# Sourced by tests that train on real daemons: starts, kills and stops them, and compares the manifest of a run with what a straight loop
# (tests/lib/ref_train) makes of it. Expects: spec, a training spec of 120 steps (or last_step). Sets: failed, dir, http, job, want and got (manifests).
. tests/lib/ports.sh
bin=${STEER_BIN:-build/release/bin}
ref=${STEER_REF:-$(dirname "$bin")/tests/lib/ref_train}
top=$(mktemp -d /tmp/steer-bits.XXXXXX)
declare -A pid=()
failed=0
enter=''            # what a daemon is started with, such as "nsenter ...": of one network or the other
address=127.0.0.1   # where the coordinator listens
coordinator_more=() # more options of the coordinator
wdir=''             # where the workers' directories are, if not below the coordinator's
cleanup_more() { :; }
unset STEER_TOKEN STEER_SERVER
fail() { echo "FAIL $*"; failed=1; }

# A daemon that ended without being told to is a failure, whatever the bits are: unless it ended well (0), or at its failpoint (may_end).
declare -A may_end=()
ended_look() {
    local name rc
    for name in "${!pid[@]}"; do
        kill -0 "${pid[$name]}" 2>/dev/null && continue
        wait "${pid[$name]}" 2>/dev/null
        rc=$?
        [ $rc -eq 0 ] || [ $rc -eq 127 ] || [ "${may_end[$name]:-}" = $rc ] || fail "$name ended by itself with $rc"
        unset "pid[$name]"
    done
}
cleanup() {
    ended_look
    for name in "${!pid[@]}"; do kill -CONT "${pid[$name]}" 2>/dev/null; kill -9 "${pid[$name]}" 2>/dev/null; done
    wait 2>/dev/null
    cleanup_more
    [ $failed -eq 0 ] && rm -rf "$top" || echo "logs are in $top"
}
trap cleanup EXIT
trap 'failed=1; exit 1' INT TERM # out of time: the logs tell where it hung

coordinator() {
    $enter "$bin/steer-coordinator" --dir "$dir" --http "${http:-$address:$(free_port)}" --control "${control:-tcp://$address:$(free_port)}" "${coordinator_more[@]}" >>"$dir/coordinator.log" 2>&1 &
    pid[c]=$!
    for _ in $(seq 100); do
        [ -s "$dir/endpoint.json" ] && grep -q "\"pid\":${pid[c]}," "$dir/endpoint.json" && break
        sleep 0.05
    done
    http=$(sed -E 's/.*"http":"http:\/\/([^"]*)".*/\1/' "$dir/endpoint.json")
    control=$(sed -E 's/.*"control":"([^"]*)".*/\1/' "$dir/endpoint.json")
}
worker() { # name [threads] [more options]
    local name=$1 threads=${2:-1}
    shift; shift
    $enter "$bin/steer-worker" --coordinator-dir "$dir" --dir "${wdir:-$dir}/$name" --threads "$threads" --name "$name" "$@" >>"${wdir:-$dir}/$name.log" 2>&1 &
    pid[$name]=$!
}
faulty() { # fault name [threads]: a worker that is not well
    STEER_FAULT=$1 worker "$2" "${3:-1}"
    may_end[$2]=137
}
end() { # signal name
    kill "-$1" "${pid[$2]}" 2>/dev/null
    [ "$1" = STOP ] || [ "$1" = CONT ] || { wait "${pid[$2]}" 2>/dev/null; unset "pid[$2]"; }
}
begin() { # scenario: a coordinator with a directory of its own
    dir=$top/$1
    mkdir -p "$dir"
    http='' control=''
    export STEER_DIR=$dir
    coordinator
}
submit() { # [options of steerctl submit]
    job=$($enter "$bin/steerctl" submit "$spec" -o name "$@" 2>>"$dir/steerctl.log") || echo "submit failed: $(cat "$dir/steerctl.log")"
}
start() { # scenario workers
    begin "$1"
    for i in $(seq "$2"); do worker "w$i" 1; done
    gathered "$2"
    submit
}
gathered() { # waits until so many workers have said hello, so that a session begins with all of them
    for _ in $(seq 200); do
        [ "$("$bin/steerctl" worker ls -o name 2>/dev/null | wc -l)" -ge "$1" ] && return
        sleep 0.05
    done
    echo "FAIL $1 workers did not come"
    failed=1
}
step() { # waits until training has reached a step; prints it
    for _ in $(seq 600); do
        s=$("$bin/steerctl" status "$job" -o json 2>/dev/null | grep -oE '"step": ?[0-9]+' | grep -oE '[0-9]+' | sort -n | tail -1)
        [ "${s:-0}" -ge "$1" ] && { echo "$s"; return 0; }
        sleep 0.05
    done
    echo "step $1 was not reached" >&2
    failed=1
    return 1
}
checkpoint() { # version: waits until that checkpoint is committed; prints its digest
    local d
    for _ in $(seq 600); do
        d=$(sed -nE "s/.* session\.checkpoint .*version $1 ([0-9a-f]{64}).*/\1/p" "$dir/coordinator.log" | tail -n 1)
        [ -n "$d" ] && { echo "$d"; return 0; }
        sleep 0.05
    done
    echo "checkpoint $1 did not come" >&2
    failed=1
    return 1
}
counter() { # name
    "$bin/steerctl" counters -o json 2>/dev/null | grep -oE "\"$1\": ?[0-9]+" | grep -oE '[0-9]+$'
}
more_than() { # counter least
    local n
    n=$(counter "$1")
    [ "${n:-0}" -gt "$2" ] || fail "$1 is ${n:-unknown}, must be above $2"
}
some_of() { # counters of which one must have moved: else what was done to the run struck nothing
    local k n
    for k in "$@"; do
        n=$(counter "$k")
        [ "${n:-0}" -eq 0 ] || return 0
    done
    fail "nothing was struck: none of $* moved"
}
manifest_of() { # step: path of the blob that describes this run at that step; of more than one, if bits differ
    grep -lr "\"format\":\"steer-checkpoint-1\".*\"step\":$1," "$dir/blobs" --exclude-dir=tmp
}
kill_all() {
    local name
    ended_look
    for name in "${!pid[@]}"; do kill -CONT "${pid[$name]}" 2>/dev/null; kill -9 "${pid[$name]}" 2>/dev/null; wait "${pid[$name]}" 2>/dev/null; done
    pid=()
}
# Scenarios that mostly wait: the functions first and second at once, each with its own clusters. The last line of such a script.
halves() {
    if [ -n "${HALF:-}" ]; then "$HALF"; return; fi
    { HALF=second "$0"; echo $? >"$top/second"; } &
    disown # kill_all waits for whom it knows
    first
    until [ -s "$top/second" ]; do sleep 0.1; done
    [ "$(cat "$top/second")" = 0 ] || failed=1
}
# name of the scenario [kept: the daemons go on]. must_move: counters of which one must have moved, for this scenario.
finish() {
    "$bin/steerctl" wait "$job" --timeout 120 >>"$dir/steerctl.log" 2>&1
    local rc=$?
    local manifest
    manifest=$(manifest_of "${last_step:-120}")
    got=${manifest#"$dir"/blobs/}
    got=${got//\//}
    if [ $rc -ne 0 ] || [ -z "$got" ]; then
        echo "FAIL $1: the job ended with $rc, manifest '${got:0:12}'"
        "$bin/steerctl" status "$job"
        failed=1
    fi
    if [ -z "${want:-}" ]; then
        want=$("$ref" $spec "" "$manifest" "$dir/blobs" | sed -n 's/^manifest //p')
        echo "reference ${want:0:12}"
    fi
    if [ "$got" = "$want" ]; then echo "ok   $1 ${got:0:12}"; else echo "FAIL $1: manifest ${got:0:12}, must be ${want:0:12}"; failed=1; fi
    [ -z "${must_move:-}" ] || some_of $must_move
    must_move=''
    [ "${2:-}" = kept ] || kill_all
}
