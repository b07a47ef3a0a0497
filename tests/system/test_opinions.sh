#!/usr/bin/env bash
# Second opinions: a worker whose gradients are wrong is found by the audit, named and put in quarantine; the run ends with the manifest
# that a straight loop computes. It is turned away with the reason, also by a coordinator that was started again, until it is released.
# May run beside others: it mostly waits.
set -u
cd "$(dirname "$0")/../.." || exit 1
spec=tests/system/bits.yaml
. tests/lib/cluster.sh

quarantined() { # name of a worker's directory: waits until it is in quarantine
    local id
    id=$(cat "$dir/$1/worker.id" 2>/dev/null || cat "$dir/$1/id" 2>/dev/null)
    for _ in $(seq 200); do
        "$bin/steerctl" worker ls 2>/dev/null | grep -q "QUARANTINED.*$id" && return 0
        sleep 0.1
    done
    fail "$1 ($id) is not in quarantine: $("$bin/steerctl" worker ls)"
    return 1
}

# Nothing is wrong: two workers agree about every node, and nobody is in quarantine.
start audited 3
"$bin/steerctl" cancel "$job" >>"$dir/steerctl.log" 2>&1
submit --set audit=0.3
finish audited kept
more_than audited 20
[ "$(counter quarantined)" = 0 ] || fail "somebody is in quarantine for nothing"
kill_all

begin corrupt
worker w1 1; worker w2 1; faulty worker.grad.corrupt:40:every bad
submit --set audit=1
finish corrupt kept
quarantined bad
more_than disputed 0
more_than quarantined 0
for _ in $(seq 50); do kill -0 "${pid[bad]}" 2>/dev/null || break; sleep 0.1; done
end KILL c; coordinator
end KILL bad; worker bad 1
for _ in $(seq 300); do grep -q "in quarantine" "$dir/bad.log" && break; sleep 0.1; done
grep -q "in quarantine" "$dir/bad.log" || fail "the worker was not told why it is turned away"
more_than refused 0
"$bin/steerctl" worker release bad >>"$dir/steerctl.log" 2>&1 || "$bin/steerctl" worker release "$(cat "$dir"/bad/*id)" >>"$dir/steerctl.log" 2>&1 ||
    fail "release: $(tail -n 2 "$dir/steerctl.log")"
: >"$dir/bad.log"; end KILL bad; worker bad 1
for _ in $(seq 300); do grep -q coordinator.welcome "$dir/bad.log" && break; sleep 0.1; done
grep -q coordinator.welcome "$dir/bad.log" || fail "it was released, and is not welcome"
kill_all

# Rows: the same, with outputs instead of gradients.
rows_of() { "$bin/steerctl" status "$job" -o json | tr -d ' \n' | grep -oE '"outputs":\{"data":\["[0-9a-f]{64}' | head -1 | grep -oE '[0-9a-f]{64}'; }
rows() { # options of submit
    spec=tests/system/rows.yaml submit "$@"
    "$bin/steerctl" wait "$job" --timeout 100 >>"$dir/steerctl.log" 2>&1 || fail "rows: ended with $?: $("$bin/steerctl" status "$job")"
}
begin rows
worker w1 1; worker w2 1
rows
right=$(rows_of)
faulty worker.rows.corrupt:3:every bad
for _ in $(seq 600); do "$bin/steerctl" worker ls 2>/dev/null | grep -q "bad.*READY" && break; sleep 0.05; done
rows --set audit=1
[ -n "$right" ] && [ "$(rows_of)" = "$right" ] || fail "rows: data $(rows_of), must be $right"
quarantined bad
more_than audited 10
more_than disputed 0
echo "ok   corrupt-rows ${right:0:12}"
kill_all
exit $failed
