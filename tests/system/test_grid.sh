#!/usr/bin/env bash
# The same bits on every shape of a cluster: 1, 2, 3, 5 compute workers x 1, 2 threads x 1, 2, 3 parameter hosts, real daemons. Every run must
# end with the manifest that a straight loop computes, and every exported model.safetensors must have one SHA-256. That a run had the shape
# that it was meant to have (hosts, at least two chunks at each, compute workers) is read from the coordinator while it trains, not assumed.
# Where there are more hosts than compute workers the rest are workers with the role params only.
# GRID=all runs all 24; 0, 1 or 2 a third of them; otherwise the third that the day of the year says.
set -u
cd "$(dirname "$0")/../.." || exit 1
spec=tests/system/bits.yaml
. tests/lib/cluster.sh
third=${GRID:-$((10#$(date +%j) % 3))}

live() { "$bin/steerctl" worker ls -o json 2>/dev/null | grep -cE '"state": ?"READY"'; }
shape() { # sets hosts, fewest (chunks at a host), compute: of the session, once it has closed a step
    local now shards
    hosts=0 fewest=0 compute=0
    for _ in $(seq 600); do
        now=$(curl -s "http://$http/v1/jobs/$job" | grep -oE '"session":\{.*\}')
        grep -qE '"version":[1-9]' <<<"$now" && break
        sleep 0.02
    done
    shards=$(grep -oE '"shards":\[[^]]*\]' <<<"$now" | grep -oE '"begin":[0-9]+,"end":[0-9]+' | tr -cs '0-9\n' ' ')
    read -r hosts fewest < <(awk 'NF == 2 {n++; if (n == 1 || $2 - $1 < m) m = $2 - $1} END {print n + 0, m + 0}' <<<"$shards")
    compute=$(grep -oE '"compute":[0-9]+' <<<"$now" | grep -oE '[0-9]+')
}
run() { # workers threads hosts
    local name="$1 workers, $2 threads, $3 hosts" sum i
    begin "$1-$2-$3"
    for i in $(seq "$1"); do
        if [ "$i" -le "$3" ]; then worker "w$i" "$2"; else worker "w$i" "$2" --roles compute; fi
    done
    for i in $(seq $(($1 + 1)) "$3"); do worker "p$i" 1 --roles params; done
    for _ in $(seq 400); do [ "$(live)" -ge $(($1 > $3 ? $1 : $3)) ] && break; sleep 0.05; done
    submit --set train.units=11 # so that ten threads all have something to do
    shape
    finish "$name" kept
    "$bin/steerctl" artifact get "$job/sft/model" "$dir/model" >>"$dir/steerctl.log" 2>&1
    sum=$(sha256sum <"$dir/model/model.safetensors" | cut -c1-64)
    want_model=${want_model:-$sum}
    kill_all
    table+=$(printf 'figure: grid %7d %7d %5d %15d %7d  %.16s  %.16s' "$1" "$2" "$hosts" "$fewest" "$compute" "$got" "$sum")$'\n'
    [ "$hosts" -eq "$3" ] && [ "$fewest" -ge 2 ] || { echo "FAIL $name: $hosts hosts, the smallest with $fewest chunks"; failed=1; }
    [ "${compute:-0}" -eq "$1" ] || { echo "FAIL $name: $compute workers computed"; failed=1; }
    [ -n "$sum" ] && [ "$sum" = "$want_model" ] || { echo "FAIL $name: model.safetensors ${sum:0:12}, must be ${want_model:0:12}"; failed=1; }
}

table='' n=0 ran=0
for workers in 1 2 3 5; do
    for threads in 1 2; do
        for hosts in 1 2 3; do
            n=$((n + 1))
            [ "$third" = all ] || [ $(((n + n / 3) % 3)) -eq "$third" ] || continue
            ran=$((ran + 1))
            run $workers $threads $hosts
        done
    done
done
echo "figure: grid workers threads hosts chunks at least compute  manifest          model.safetensors"
printf '%s' "$table"
echo "figure: grid: $ran of 24 shapes, reference ${want:0:16}"
exit $failed
