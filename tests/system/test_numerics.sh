#!/usr/bin/env bash
# Numerics classes: a worker whose arithmetic differs (--kernels openblas) has another fingerprint, gets no work of a strict job, and
# is told why; with `numerics: any` it works, and the result says so.
# May run beside others: it mostly waits.
set -u
cd "$(dirname "$0")/../.." || exit 1
spec=tests/system/bits.yaml
. tests/lib/cluster.sh

fingerprints() { "$bin/steerctl" worker ls -o json | grep -oE '"fingerprint": ?"[0-9a-f]+"' | sort -u | wc -l; }
foreign() { worker odd 1 --kernels openblas; }
joined() { # how many workers
    for _ in $(seq 600); do
        [ "$("$bin/steerctl" worker ls -o json 2>/dev/null | grep -oE '"state": ?"READY"' | wc -l)" -ge "$1" ] && return
        sleep 0.05
    done
    fail "$1 workers have not joined"
}

begin strict
worker w1 1; worker w2 1; foreign
joined 3
[ "$(fingerprints)" = 2 ] || fail "$(fingerprints) numerics classes"
submit
finish strict kept
grep -q "worker.no_work.*numerics class" "$dir/odd.log" || fail "the worker was not told why: $(tail -n 3 "$dir/odd.log")"
"$bin/steerctl" worker ls | grep -q "odd.*numerics class" || fail "worker ls does not say why: $("$bin/steerctl" worker ls)"
[ "$(counter refused)" -gt 0 ] || fail "nobody was counted as refused"
"$bin/steerctl" events "$job" | grep -q "gets no work: its numerics class" || fail "the job's events do not say it"
if grep -q session.open "$dir/odd.log"; then fail "it took part"; fi
kill_all

begin any
worker w1 1; foreign
joined 2
submit --set numerics=any
"$bin/steerctl" wait "$job" --timeout 120 >>"$dir/steerctl.log" 2>&1 || fail "the job with numerics: any ended with $?"
grep -q session.open "$dir/odd.log" || fail "it took no part"
"$bin/steerctl" status "$job" -o json | grep -qE '"numerics": ?"any"' || fail "the result does not say numerics: any"
[ "$(counter quarantined)" = 0 ] || fail "somebody is in quarantine for being different"
kill_all
exit $failed
