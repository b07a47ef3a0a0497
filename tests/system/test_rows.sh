#!/usr/bin/env bash
# Generated text is the same bytes on one thread, on two, on several workers, with a worker killed in the middle, and after a restart of
# everything: the digest of the data set tells.
# May run beside others: it mostly waits.
set -u
cd "$(dirname "$0")/../.." || exit 1
bin=${STEER_BIN:-build/release/bin}
top=$(mktemp -d /tmp/steer-rows.XXXXXX)
export STEER_DIR=$top/state
mkdir "$STEER_DIR"
declare -A pid=()
failed=0 want=''
cleanup() {
    for name in "${!pid[@]}"; do kill -9 "${pid[$name]}" 2>/dev/null; done
    wait 2>/dev/null
    [ $failed -eq 0 ] && rm -rf "$top" || echo "logs are in $top"
}
trap cleanup EXIT
coordinator() {
    rm -f "$STEER_DIR/endpoint.json"
    "$bin/steer-coordinator" --dir "$STEER_DIR" --http 127.0.0.1:0 --control tcp://127.0.0.1:0 >>"$top/coordinator.log" 2>&1 &
    pid[c]=$!
    for _ in $(seq 100); do [ -s "$STEER_DIR/endpoint.json" ] && return; sleep 0.05; done
}
worker() { # name threads
    "$bin/steer-worker" --coordinator-dir "$STEER_DIR" --dir "$top/$1" --threads "$2" --name "$1" >>"$top/$1.log" 2>&1 &
    pid[$1]=$!
}
end() { # signal name
    kill "-$1" "${pid[$2]}" 2>/dev/null
    wait "${pid[$2]}" 2>/dev/null
    unset "pid[$2]"
}
submit() { job=$("$bin/steerctl" submit tests/system/rows.yaml -o name 2>>"$top/steerctl.log"); }
check() { # what
    "$bin/steerctl" wait "$job" --timeout 100 >>"$top/steerctl.log" 2>&1
    local rc=$? got
    got=$("$bin/steerctl" status "$job" -o json | tr -d ' \n' | grep -oE '"outputs":\{"data":\["[0-9a-f]{64}' | head -1 | grep -oE '[0-9a-f]{64}')
    want=${want:-$got}
    if [ $rc -eq 0 ] && [ -n "$got" ] && [ "$got" = "$want" ]; then
        echo "ok   $1 ${got:0:12}"
    else
        echo "FAIL $1: exit $rc, data ${got:0:12}, must be ${want:0:12}"
        failed=1
    fi
}
done_rows() { "$bin/steerctl" status "$job" -o json | tr -d ' \n' | grep -oE '"done":[0-9]+' | grep -oE '[0-9]+' | sort -n | tail -1; }

coordinator
worker one 1; submit; check "one thread"; end TERM one
worker two 2; submit; check "two threads"; end TERM two
worker a 1; worker b 1; worker d 2; submit; check "three workers"
submit
for _ in $(seq 200); do [ "$(done_rows)" -ge 24 ] 2>/dev/null && break; sleep 0.02; done
end KILL d
check "a worker killed"
end TERM a; end TERM b; end TERM c
coordinator; worker again 1; submit; check "after a restart"
exit $failed
