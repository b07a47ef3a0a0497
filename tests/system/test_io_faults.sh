#!/usr/bin/env bash
# The n-th call by which the coordinator (or, short form: once, long form: in modes eio and fsync, a worker) changes its state fails: EIO, a failed fsync, a call that is done and reported as failed, a full disk,
# a short write, an interrupted write (tests/lib/io_fault.c). After EIO or a failed fsync it must be gone, having acknowledged nothing more;
# started again it finds a legal state: the submit once, the job ends with the rows of the undisturbed run. Short and interrupted writes and a
# full disk are no harm. Short form: CASES of them at random (SEED=n); STEER_LONG=1: every mode, n = 1, 2, ... until nothing is left to strike.
# May run beside others: it mostly waits.
set -u
cd "$(dirname "$0")/../.." || exit 1
export STEER_BIN=${STEER_BIN:-build/release/bin}
spec=tests/system/rows_small.yaml
seed=${SEED:-$$}
parallel=${PARALLEL:-8}
cases=${CASES:-24}
RANDOM=$seed
top=$(mktemp -d /tmp/steer-iofaults.XXXXXX)
failed=0 begun=$SECONDS runs=0 struck=0 gone=0
trap 'touch "$top/stop"; wait; [ $failed -eq 0 ] && rm -rf "$top" || echo "logs are in $top"' EXIT
trap 'failed=1; exit 1' TERM INT
case "$(file -bL "$STEER_BIN/steer-coordinator" 2>/dev/null)$(ldd "$STEER_BIN/steer-coordinator")" in
*libasan* | *libtsan*) echo "a sanitizer wants to be loaded first"; exit 77 ;;
esac
export STEER_IO_FAULT=$top/io_fault.so
gcc -std=c11 -D_GNU_SOURCE -O1 -Wall -Wextra -Werror -shared -fPIC tests/lib/io_fault.c -o "$STEER_IO_FAULT" -ldl || { failed=1; exit 1; }
want=$(tests/lib/fault_case.sh "$top/undisturbed" "$spec" 60 2>/dev/null)
case "$want" in
"SUCCEEDED - "*" 1 -") want=${want% -} ;;
*) echo "FAIL the undisturbed run: $want"; failed=1; exit 1 ;;
esac

role=c
case_run() { # mode n
    local dir=$top/$1-$2
    tests/lib/fault_case.sh "$dir" "$spec" 120 $role "io:$1:$2" >"$dir.result" 2>/dev/null
}
case_check() { # mode n: true if it struck
    local dir=$top/$1-$2 outcome exits call
    read -r outcome <"$dir.result"
    exits=${outcome##* }
    runs=$((runs + 1))
    call=$(cut -d' ' -f2- "$dir/struck" 2>/dev/null | sed "s#$dir/##; s#^\([a-z]*\) state/#\1 #")
    [[ "$outcome" == "$want "* ]] || { echo "FAIL $1:$2 ($call): $outcome"; failed=1; }
    # After the error nothing may be acknowledged before the next start.
    awk '/coordinator.start/ {bad = 0} /storage.failed/ {bad = 1; next} bad && /job.accepted|task.end|session.checkpoint/ {exit 1}' "$dir/c.log" ||
        { echo "FAIL $1:$2 ($call): acknowledged after the error"; failed=1; }
    [ -n "$call" ] || { rm -rf "$dir" "$dir.result"; return 1; }
    struck=$((struck + 1))
    case "$1" in
    eio | fsync | late)
        if [[ ",$exits," == *,$role:1,* ]]; then gone=$((gone + 1)); else echo "FAIL $1:$2 ($call): $role went on ($exits)"; failed=1; fi ;;
    enospc) [[ ",$exits," =~ ^,(-|$role:1),$ ]] || { echo "FAIL $1:$2 ($call): exits $exits"; failed=1; } ;;
    *) [ "$exits" = - ] || { echo "FAIL $1:$2 ($call): exits $exits"; failed=1; } ;;
    esac
    [ $failed -eq 0 ] && rm -rf "$dir" "$dir.result"
    return 0
}
batch() { # mode n...: how many struck in $hit
    local mode=$1 n
    shift
    for n in "$@"; do case_run "$mode" "$n" & done
    wait
    hit=0
    for n in "$@"; do case_check "$mode" "$n" && hit=$((hit + 1)); done
}

if [ -n "${STEER_LONG:-}" ]; then
    for mode in eio fsync late enospc short eintr; do
        n=1 hit=1
        while [ $hit -gt 0 ]; do
            batch $mode $(seq $n $((n + parallel - 1)))
            n=$((n + parallel))
        done
        echo "$mode: clean from n = $n on"
    done
    role=w1
    for mode in eio fsync; do
        n=1 hit=1
        while [ $hit -gt 0 ]; do
            batch $mode $(seq $n $((n + parallel - 1)))
            n=$((n + parallel))
        done
        echo "$mode at a worker: clean from n = $n on"
    done
else
    role=w1
    batch fsync 1 2 3 4
    role=c
    modes=(eio fsync late enospc eio fsync short eintr)
    for i in $(seq $((cases / parallel))); do
        mode=${modes[$(((seed + i) % ${#modes[@]}))]}
        most=100
        [ $mode = fsync ] && most=40
        drawn=() # each once; not in $( ), where RANDOM has a seed of its own
        for _ in $(seq "$parallel"); do n=$((RANDOM % most + 1)); drawn[n]=$n; done
        batch $mode "${drawn[@]}"
    done
fi
line="suite=io-faults commit=$(tests/lib/commit) seed=$seed runs=$runs struck=$struck gone=$gone failed=$failed seconds=$((SECONDS - begun))"
echo "figure: $line"
[ -z "${STEER_RESULTS:-}" ] || echo "$line" >>"$STEER_RESULTS"
[ $struck -gt 0 ] || { echo "FAIL nothing was struck"; failed=1; }
exit $failed
