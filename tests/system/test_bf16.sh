#!/usr/bin/env bash
# numerics: bf16: one set of bits on one worker, on three, and with a worker that makes the products in software; other bits than fp32's, but the
# same way down; the checkpoint says so. A worker with --bf16 off gets no such work and is told why.
set -u
cd "$(dirname "$0")/../.." || exit 1
. tests/lib/cluster.sh
spec=$top/bf16.yaml
{ sed "s#\.\./\.\./#$PWD/#" tests/system/bits.yaml; echo "numerics: bf16"; } >"$spec"

field() { sed -nE "s/.* worker\.start .* $2=([^ ]*).*/\1/p" "$dir/$1.log" | tail -n 1; } # worker key
reference() { # file: what a straight loop makes of the job: the losses of every step into the file, the manifest into want
    "$bin/steerctl" wait "$job" --timeout 120 >>"$dir/steerctl.log" 2>&1
    "$ref" "$spec" "" "$(manifest_of 120)" "$dir/blobs" >"$1"
    want=$(sed -n 's/^manifest //p' "$1")
    echo "reference ${want:0:12}"
}

start one-worker 1
sleep 0.5
if [ "$(field w1 bf16)" = none ]; then
    echo "this CPU makes no products of bfloat16"
    exit 77
fi
reference "$top/bf16.loss"
finish one-worker kept
grep -q '"numerics":"bf16"' "$(manifest_of 120)" || fail "the manifest does not name the numerics"
"$bin/steerctl" status "$job" -o json | grep -qE '"numerics": ?"bf16"' || fail "the result does not say numerics: bf16"
kill_all
start three-workers 3; finish three-workers

begin software
worker w1 1; worker w2 1 --bf16 software; worker w3 1 --bf16 software
gathered 3
submit
finish software kept
[ "$(field w2 bf16)" = software ] || fail "w2 makes its products by $(field w2 bf16)"
[ "$(field w1 bf16_class)" = "$(field w2 bf16_class)" ] || fail "the two ways have two classes"
[ "$(field w1 bf16_class)" != "$(field w1 class)" ] || fail "bf16 and fp32 are one class"
grep -q session.open "$dir/w2.log" || fail "w2 took no part"
kill_all

begin off
worker off 2 --bf16 off
submit
for _ in $(seq 100); do
    reasons=$(curl -s "http://$http/v1/jobs/$job")
    grep -qE '"other_class":1[,}]' <<<"$reasons" && break
    sleep 0.1
done
grep -q 'numerics: bf16 needs workers with' <<<"$reasons" || fail "the job does not say what it waits for: $reasons"
for _ in $(seq 50); do grep -q "worker.no_work.*AVX512_BF16" "$dir/off.log" && break; sleep 0.1; done
grep -q "worker.no_work.*AVX512_BF16" "$dir/off.log" || fail "the worker was not told why: $(tail -n 3 "$dir/off.log")"
worker on 1
finish off kept
if grep -q session.open "$dir/off.log"; then fail "it took part"; fi
kill_all

bf16=$want
spec=$top/fp32.yaml
grep -v ^numerics "$top/bf16.yaml" >"$spec"
start fp32 2
reference "$top/fp32.loss"
finish fp32 kept
[ "$got" != "$bf16" ] || fail "fp32 has the bits of bf16"
if grep -q numerics "$(manifest_of 120)"; then fail "fp32's manifest names its numerics"; fi
kill_all
paste -d ' ' <(grep ^step "$top/fp32.loss") <(grep ^step "$top/bf16.loss") | awk '
    $2 != $5 { bad = 1 }
    { d = ($6 - $3) / $3; d = d < 0 ? -d : d; worst = d > worst ? d : worst; n++ }
    $2 == 1 || $2 % 20 == 0 { printf "figure: loss at step %d: fp32 %.5f, bf16 %.5f\n", $2, $3, $6 }
    END { printf "figure: loss of bf16 and fp32 over %d steps: %.3f %% apart at most\n", n, 100 * worst
          exit bad || n != 120 || worst == 0 || worst > 0.01 }' || fail "the losses are not within 1 % of each other in every step"
exit $failed
