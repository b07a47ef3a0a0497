#!/usr/bin/env bash
# Another kernel family of OpenBLAS is another numerics class: its fingerprint differs, and a strict job never uses it. A job whose only worker
# of its class is killed waits, says why, and ends with its own bits when one of its class comes back.
set -u
cd "$(dirname "$0")/../.." || exit 1
spec=tests/system/bits.yaml
. tests/lib/cluster.sh
fail() { echo "FAIL $*"; failed=1; }
class_of() { # name: the class in its log, once it is up
    local class=''
    for _ in $(seq 200); do
        class=$(sed -nE 's/.* worker\.start .* class=([0-9a-f]{12}).*/\1/p' "$dir/$1.log" | tail -n 1)
        [ -n "$class" ] && break
        sleep 0.05
    done
    echo "$class"
}
blas_of() { sed -nE 's/.* worker\.start .* blas=([^ ]*) .*/\1/p' "$dir/$1.log" | tail -n 1; }

begin classes
worker own 1
own=$(class_of own)
submit
step 3 >/dev/null
other=''
for core in Sandybridge Nehalem Haswell Zen Prescott; do
    OPENBLAS_CORETYPE=$core worker "other-$core" 2
    other=$(class_of "other-$core")
    [ "$other" != "$own" ] && break
    end KILL "other-$core" # the family that this machine has anyway
done
[ -n "$own" ] && [ -n "$other" ] && [ "$own" != "$other" ] || fail "fingerprints: '$own' of $(blas_of own), '$other' of $(blas_of "other-$core")"
sleep 1
curl -s "http://$http/v1/jobs/$job" | grep -qE '"compute":1[,}]' || fail "a worker of another class computes"
end KILL own
for _ in $(seq 100); do
    reasons=$(curl -s "http://$http/v1/jobs/$job")
    grep -qE '"other_class":1[,}]' <<<"$reasons" && break
    sleep 0.1
done
before=$("$bin/steerctl" status "$job" -o json | grep -oE '"step": ?[0-9]+' | tail -n 1)
grep -qE '"other_class":1[,}]' <<<"$reasons" || fail "the job does not say that the worker is of another class: $reasons"
grep -q 'arithmetic differs' <<<"$reasons" || fail "nothing is said to do about it: $reasons"
sleep 2
after=$("$bin/steerctl" status "$job" -o json | grep -oE '"step": ?[0-9]+' | tail -n 1)
[ "$before" = "$after" ] || fail "training went on without a worker of its class: $before, $after"
worker again 1
finish "another class, never used"
echo "figure: class: $(blas_of own) $own, $(blas_of "other-$core") $other: refused"
exit $failed
