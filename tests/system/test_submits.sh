#!/usr/bin/env bash
# An acknowledged submit is never lost and never doubled: clients submit under fresh keys and repeat until they are answered, while the
# coordinator is killed again and again. At the end every acknowledged job is there, and no key has two.
set -u
cd "$(dirname "$0")/../.." || exit 1
bin=${STEER_BIN:-build/release/bin}
seconds=${SUBMITS_SECONDS:-10}
dir=$(mktemp -d /tmp/steer-submits.XXXXXX)
pid=0

cleanup() {
    touch "$dir/stop"
    kill -9 "$pid" 2>/dev/null
    wait 2>/dev/null
    rm -rf "$dir"
}
trap cleanup EXIT

start() {
    "$bin/steer-coordinator" --dir "$dir" --http "${http:-127.0.0.1:0}" --control "${control:-tcp://127.0.0.1:0}" 2>>"$dir/log" &
    pid=$!
    for _ in $(seq 200); do
        grep -q "\"pid\":$pid," "$dir/endpoint.json" 2>/dev/null && break
        sleep 0.02
    done
    http=$(sed -E 's/.*"http":"http:\/\/([^"]*)".*/\1/' "$dir/endpoint.json")
    control=$(sed -E 's/.*"control":"([^"]*)".*/\1/' "$dir/endpoint.json")
}

client() { # name: one key after the other, each until it is answered
    local n=0 id
    while [ ! -e "$dir/stop" ]; do
        n=$((n + 1))
        while [ ! -e "$dir/stop" ]; do
            id=$(curl -sf -m 3 -H "Idempotency-Key: $1-$n" -H 'Content-Type: application/json' --data-binary "@$dir/body" \
                "http://$http/v1/jobs" | grep -oE '"id":"job_[0-9a-z]{13}"' | head -1)
            [ -n "$id" ] && { echo "$1-$n $id" >>"$dir/acks.$1"; break; }
            sleep 0.05
        done
    done
}

start
printf x >"$dir/x"
x=$(sha256sum <"$dir/x" | cut -c1-64)
curl -sf -T "$dir/x" "http://$http/v1/artifacts/$x" >/dev/null || { echo "no upload"; exit 1; }
yaml=$(sed 's/\\/\\\\/g; s/"/\\"/g; s/$/\\n/' jobs/specs/sft.yaml | tr -d '\n')
files=$(grep -oE 'file:[^"]*' jobs/specs/sft.yaml | sed 's/^file://' | sort -u)
files+=$'\n'$(sed -nE 's/^ *files: \[(.*)\]/\1/p' jobs/specs/sft.yaml)
map=$(echo "$files" | sed '/^$/d' | sed -E "s/.*/\"&\":\"$x\"/" | paste -sd,)
echo "{\"spec\":\"$yaml\",\"files\":{$map}}" >"$dir/body"

for name in a b c; do client $name & done
kills=0
end=$((SECONDS + seconds))
while [ $SECONDS -lt $end ]; do
    sleep "0.$((RANDOM % 5 + 1))"
    kill -9 $pid
    wait $pid 2>/dev/null
    kills=$((kills + 1))
    start
done
touch "$dir/stop"
sleep 0.5
sort -u "$dir"/acks.* >"$dir/acks"
token=''
while :; do
    page=$(curl -sf "http://$http/v1/jobs?limit=1000&page_token=$token")
    echo "$page" | grep -oE '"id":"job_[0-9a-z]{13}"' >>"$dir/jobs"
    token=$(echo "$page" | sed -nE 's/.*"next_page_token":"(job_[0-9a-z]*)".*/\1/p')
    [ -n "$token" ] || break
done
sort -u "$dir/jobs" >"$dir/ids"
acked=$(cut -d' ' -f1 "$dir/acks" | sort -u | wc -l)
doubled=$(cut -d' ' -f1 "$dir/acks" | sort | uniq -d | wc -l)
lost=$(cut -d' ' -f2 "$dir/acks" | sort -u | comm -23 - "$dir/ids" | wc -l)
jobs=$(wc -l <"$dir/ids")
echo "figure: submits: $kills kills, $acked acknowledged, $lost lost, $doubled doubled, $((jobs - acked)) in flight at the end"
[ "$acked" -gt 0 ] && [ "$kills" -gt 5 ] && [ "$lost" -eq 0 ] && [ "$doubled" -eq 0 ] && [ $((jobs - acked)) -le 3 ]
