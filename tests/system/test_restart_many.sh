#!/usr/bin/env bash
# A coordinator with 10,000 jobs in its database (most pending, a fifth of them pipelines, some cancelled, some paused) is ready within 2 s
# after a kill: it answers and takes a submit. It keeps little memory, is idle while the jobs wait, and its lists are right. MANY_JOBS for
# another number; the jobs come in through the API.
set -u
cd "$(dirname "$0")/../.." || exit 1
. tests/lib/submits.sh
bin=${STEER_BIN:-build/release/bin}
submitter=${STEER_SUBMITTER:-$(dirname "$bin")/tests/lib/submitter}
many=${MANY_JOBS:-10000}
limit_ms=${MANY_LIMIT_MS:-2000}
dir=$(mktemp -d /tmp/steer-many.XXXXXX)
pid=0
failed=0
unset STEER_TOKEN STEER_SERVER
export STEER_DIR=$dir

cleanup() {
    [ "$pid" -eq 0 ] || kill -9 "$pid" 2>/dev/null
    wait 2>/dev/null
    rm -rf "$dir"
}
trap cleanup EXIT
trap 'tail -n 20 "$dir/log"; exit 1' INT TERM

now_ms() { echo $(($(date +%s%N) / 1000000)); }
cpu_ticks() { awk '{print $14 + $15}' "/proc/$pid/stat"; }
count() { curl -sf "http://$http/metrics" | sed -n "s/^steer_jobs{state=\"$1\"} //p"; }
check() { [ "$1" "$2" "$3" ] || { echo "FAIL $4: $1 is not $2 $3"; failed=1; }; }

http='' control=''
start
x=$(byte_upload "$http" "$dir") || exit 1
body_make jobs/specs/sft.yaml "$x" "$dir/one"
body_make jobs/specs/smoke.yaml "$x" "$dir/pipeline"
began=$(now_ms)
"$submitter" "$http" "$dir/pipeline" p 8 $((many / 40)) "$dir/stop" >"$dir/acks" || failed=1
"$submitter" "$http" "$dir/one" s 8 $((many / 10)) "$dir/stop" >>"$dir/acks" || failed=1
filled=$(($(now_ms) - began))
ids=$(sed -n 's/^ack [^ ]* //p' "$dir/acks" | sort | awk 'NR % 97 == 0' | head -60)
"$bin/steerctl" cancel $(head -n 40 <<<"$ids") >/dev/null || failed=1
"$bin/steerctl" pause $(tail -n 20 <<<"$ids") >/dev/null || failed=1
pending=$(count PENDING)

kill -9 "$pid"
wait "$pid" 2>/dev/null
began=$(now_ms)
"$bin/steer-coordinator" --dir "$dir" --http "$http" --control "$control" >>"$dir/log" 2>&1 &
pid=$!
until curl -sf -m 1 "http://$http/readyz" >/dev/null; do
    [ $(($(now_ms) - began)) -lt 60000 ] || break
    sleep 0.01
done
ready=$(($(now_ms) - began))
curl -sf -m 5 -H 'Content-Type: application/json' --data-binary "@$dir/one" "http://$http/v1/jobs" | grep -q '"state":"PENDING"' || { echo "FAIL no submit after the restart"; failed=1; }
submitted=$(($(now_ms) - began))
rss=$(awk '/^VmRSS/ {print int($2 / 1024)}' "/proc/$pid/status")
check "$submitted" -le "$limit_ms" "ready to take submits, in ms"
check "$rss" -le $((64 + many / 1000)) "memory in MB"
check "$(count PENDING)" -eq $((pending + 1)) "pending jobs after the restart"
check "$(count CANCELLED)" -ge 38 "cancelled jobs"
check "$(count PAUSED)" -ge 18 "paused jobs"

# Lists: all of them, page by page, none twice, with what people look for.
token='' pages=0 began=$(now_ms)
while :; do
    curl -sf "http://$http/v1/jobs?limit=1000&page_token=$token" >"$dir/page" || { echo "FAIL no page"; failed=1; break; }
    grep -oE '"id":"job_[0-9a-z]{13}"' "$dir/page" >>"$dir/listed"
    [ "$(grep -oE '"kind":"(sft|pipeline)","latest|"created_at":"20' "$dir/page" | wc -l)" -gt 0 ] || { echo "FAIL a page without kinds and times"; failed=1; }
    pages=$((pages + 1))
    token=$(sed -nE 's/.*"next_page_token":"(job_[0-9a-z]*)".*/\1/p' "$dir/page")
    [ -n "$token" ] || break
done
page_ms=$((($(now_ms) - began) / pages))
check "$(sort -u "$dir/listed" | wc -l)" -eq $((many + 1)) "jobs in the lists"
check "$(wc -l <"$dir/listed")" -eq $((many + 1)) "lines in the lists"
curl -sf "http://$http/v1/jobs?state=paused" | grep -q '"state":"PAUSED"' || { echo "FAIL no paused job in the list"; failed=1; }

ticks=$(cpu_ticks)
sleep 2
idle=$((($(cpu_ticks) - ticks) * 1000 / $(getconf CLK_TCK) / 2))
check "$idle" -le 100 "processor time while all wait, in ms a second"
rss_end=$(awk '/^VmRSS/ {print int($2 / 1024)}' "/proc/$pid/status")
size=$(du -sm "$dir" | cut -f1)
echo "figure: restart: $many jobs ($pending pending), ready after $ready ms, submit taken after $submitted ms, $rss MB of memory ($rss_end after listing all), $idle ms of processor a second while they wait, a page of 1,000 in $page_ms ms; filled in $filled ms, $size MB on disk"
exit $failed
