#!/usr/bin/env bash
# Our kernels are one numerics class, with AVX-512 and without. OpenBLAS is another, and another one again with another OPENBLAS_CORETYPE: their fingerprints
# differ, and a strict job never uses them. A job whose only worker of its class is killed waits, says why, and ends with its own bits when one of its class comes back.
# May run beside others: it mostly waits.
set -u
cd "$(dirname "$0")/../.." || exit 1
spec=tests/system/bits.yaml
. tests/lib/cluster.sh
class_of() { # name: the class in its log, once it is up
    local class=''
    for _ in $(seq 600); do
        class=$(sed -nE 's/.* worker\.start .* class=([0-9a-f]{12}).*/\1/p' "$dir/$1.log" 2>/dev/null | tail -n 1)
        [ -n "$class" ] && break
        sleep 0.05
    done
    echo "$class"
}
kernels_of() { sed -nE 's/.* worker\.start .* blas=([^ ]*) .*/\1/p' "$dir/$1.log" | tail -n 1; }
computes() { curl -s "http://$http/v1/jobs/$job" | grep -qE "\"compute\":$1[,}]"; } # so many workers

begin classes
STEER_FAULT=worker.compute.slow:1:sleep=30:every worker own 1 # it trains on while the others come and go
own=$(class_of own)
submit
step 3 >/dev/null
worker plain 1 --kernels plain
plain=$(class_of plain)
[ -n "$own" ] && [ "$plain" = "$own" ] || fail "fingerprints: '$own' of $(kernels_of own), '$plain' of $(kernels_of plain), must be equal"
for _ in $(seq 100); do computes 2 && break; sleep 0.05; done
computes 2 || fail "plain computes with own"
sleep 0.5 # it has units: when it is killed a step waits for them, and own is given them as well
end KILL plain
worker other 2 --kernels openblas
other=$(class_of other)
[ -n "$other" ] && [ "$own" != "$other" ] || fail "fingerprints: '$own' of $(kernels_of own), '$other' of $(kernels_of other), must differ"
OPENBLAS_CORETYPE=Sandybridge worker older 1 --kernels openblas # no FMA: other bits by the same library
older=$(class_of older)
[ -n "$older" ] && [ "$older" != "$other" ] && [ "$older" != "$own" ] || fail "fingerprints: '$older' of $(kernels_of older), '$other' of $(kernels_of other), must differ"
for _ in $(seq 300); do computes 1 && break; sleep 0.1; done # until the loss of plain is noticed
sleep 1
computes 1 || fail "a worker of another class computes"
end KILL older
end KILL own
for _ in $(seq 300); do
    reasons=$(curl -s "http://$http/v1/jobs/$job")
    grep -qE '"other_class":1[,}]' <<<"$reasons" && grep -q 'arithmetic differs' <<<"$reasons" && break
    sleep 0.1
done
before=$("$bin/steerctl" status "$job" -o json | grep -oE '"step": ?[0-9]+' | tail -n 1)
grep -qE '"other_class":1[,}]' <<<"$reasons" || fail "the job does not say that the worker is of another class: $reasons"
grep -q 'arithmetic differs' <<<"$reasons" || fail "nothing is said to do about it: $reasons"
sleep 2
after=$("$bin/steerctl" status "$job" -o json | grep -oE '"step": ?[0-9]+' | tail -n 1)
[ -n "$before" ] && [ "$before" = "$after" ] || fail "training went on without a worker of its class: '$before', '$after'"
worker again 1
finish "another class, never used"
echo "figure: class: $(kernels_of own) and $(kernels_of plain) $own, $(kernels_of other) $other: refused"
exit $failed
