#!/usr/bin/env bash
# The command line against the real daemons on loopback, in a directory of its own: exit codes, what errors say, that a second
# coordinator is refused, that a kill of the coordinator loses nothing.
# May run beside others: it mostly waits.
set -u
cd "$(dirname "$0")/../.."
bin=${STEER_BIN:?the folder of the three programs}
work=$(mktemp -d)
export STEER_DIR=$work/state XDG_CACHE_HOME=$work/cache STEER_BIN_DIR=$bin NO_COLOR=1
unset STEER_SERVER STEER_TOKEN
cleanup() {
    "$bin/steerctl" down >"$work/down.log" 2>&1
    rm -rf "$work"
}
trap cleanup EXIT

die() {
    echo "FAILED: $*"
    echo "--- stdout"; cat "$work/out"
    echo "--- stderr"; cat "$work/err"
    tail -n 20 "$work"/state/logs/*.log
    exit 1
}
trap 'die "ended by a signal"' INT TERM
# expect CODE WHAT ARGS...: runs steerctl, checks the exit code; WHAT must be in stdout or stderr ("" = anything).
expect() {
    local want=$1 what=$2 got
    shift 2
    "$bin/steerctl" "$@" >"$work/out" 2>"$work/err"
    got=$?
    [ $got -eq "$want" ] || die "steerctl $* gave exit $got, not $want"
    [ -z "$what" ] || grep -qF -- "$what" "$work/out" "$work/err" || die "steerctl $*: \"$what\" is nowhere"
    if [ "$want" -ne 0 ] && [ "$want" -ne 130 ]; then
        grep -q '^  try: ' "$work/err" || die "steerctl $* does not say what to type next"
    fi
}
job_state() { "$bin/steerctl" status "$1" -o json | sed -n 's/^  "state": "\(.*\)",*$/\1/p'; }

cat >"$work/job.yaml" <<'YAML'
apiVersion: steerlm/v1
kind: sft
name: tiny
seed: 1
inputs: {base: "file:model", train: "data:rows"}
data: {rows: {files: [rows.jsonl], format: messages}}
condition: {labels: none, template: plain}
train: {max_steps: 2, global_batch: 2, units: 2, optimizer: {name: adamw, lr: 1.0e-3}, schedule: {name: constant}}
YAML
mkdir "$work/model"
cp models/stories260K/* "$work/model/"
for i in 1 2 3 4; do
    echo "{\"messages\":[{\"role\":\"user\",\"content\":\"question $i\"},{\"role\":\"assistant\",\"content\":\"answer $i\"}]}"
done >"$work/rows.jsonl"

# Nobody there: 7, and what to type.
expect 7 "steerctl up" ls
expect 7 "steerctl up" submit "$work/job.yaml"
expect 0 "nothing is up" down

# A coordinator alone: jobs wait for workers and say so.
expect 0 "http://127.0.0.1:" up --workers 0 --http 0
expect 0 "already up" up
expect 0 "no jobs" ls
sed 's/max_steps/max_stepz/' "$work/job.yaml" >"$work/bad.yaml"
expect 3 "bad.yaml:8:9: " submit "$work/bad.yaml"
expect 3 "bad.yaml:8:9: " validate "$work/bad.yaml"
expect 3 "did you mean" validate "$work/bad.yaml"
expect 0 "no jobs" ls
expect 0 "rows: 4" data check "$work/rows.jsonl" --spec "$work/job.yaml"
expect 0 "][" data show "$work/rows.jsonl" --spec "$work/job.yaml" --rows 1
expect 2 "--spec" data check "$work/rows.jsonl"
expect 0 "rows.jsonl" plan "$work/job.yaml"
expect 4 "no such file" submit "$work/absent.yaml"
expect 4 "nothing" status nothing
expect 0 "job_" submit "$work/job.yaml" --idempotency-key k1
id=$(cat "$work/out")
expect 0 "$id" submit "$work/job.yaml" --idempotency-key k1
expect 5 "" submit "$work/job.yaml" --idempotency-key k1 --set seed=2
[ "$("$bin/steerctl" ls -o name | wc -l)" -eq 1 ] || die "one key made several jobs"
expect 0 "waits for a worker" status tiny
expect 8 "" wait tiny --timeout 1

# A second coordinator on the same directory is refused; the first goes on.
"$bin/steer-coordinator" --dir "$STEER_DIR" --http 127.0.0.1:0 --control tcp://127.0.0.1:0 >"$work/out" 2>"$work/err" && die "two coordinators"
expect 0 "$id" ls

# Killed: it comes back on its ports, with the job.
pid=$(sed -n 's/.*"pid":\([0-9]*\).*/\1/p' "$STEER_DIR/endpoint.json")
url=$(sed -n 's/.*"http":"\([^"]*\)".*/\1/p' "$STEER_DIR/endpoint.json")
kill -9 "$pid"
for _ in $(seq 300); do
    curl -fs "$url/readyz" >"$work/out" 2>"$work/err" && break
    sleep 0.1
done
expect 0 "$id" ls -o name

# A follower survives another kill, and is told of the cancellation.
"$bin/steerctl" watch "$id" >"$work/watch.out" 2>"$work/watch.err" &
watcher=$!
sleep 1
kill -9 "$(sed -n 's/.*"pid":\([0-9]*\).*/\1/p' "$STEER_DIR/endpoint.json")"
sleep 1
for _ in $(seq 300); do
    curl -fs "$url/readyz" >"$work/out" 2>"$work/err" && break
    sleep 0.1
done
expect 0 "" cancel "$id"
wait "$watcher"
[ $? -eq 11 ] || die "the follower did not end with 11: $(cat "$work/watch.err")"
expect 11 "" wait "$id"
[ "$(job_state "$id")" = CANCELLED ] || die "state is $(job_state "$id")"

# Artefacts, there and back.
expect 0 "" artifact put "$work/model"
digest=$(cat "$work/out")
expect 0 "$digest" artifact get "$digest" "$work/back"
diff -r "$work/model" "$work/back" >"$work/out" || die "the model came back changed"
expect 0 "stopped" down
expect 7 "steerctl up" ls
[ -z "$(ls "$STEER_DIR/supervisor.json" 2>"$work/err")" ] || die "down left supervisor.json"

# Everything: workers join, the job runs to its end.
expect 0 "http://127.0.0.1:" up --workers 2 --threads 1 --http 0
expect 0 "worker-2" worker ls
expect 0 "stale" counters
expect 0 "job_" submit "$work/job.yaml" --follow --timeout 120
id=$(head -n 1 "$work/out")
expect 0 "SUCCEEDED" status "$id"
expect 0 "" artifact get "$id/sft/model" "$work/model-out"
[ -s "$work/model-out/model.safetensors" ] || die "the job left no model"
expect 0 "" logs "$id"
expect 0 "SUCCEEDED" events "$id"
expect 0 "stopped" down

# With a key, everything works for those who have it and nothing for others.
export STEER_TOKEN=a-secret-of-the-team
expect 0 "http://127.0.0.1:" up --workers 1 --threads 1 --http 0
expect 0 "job_" submit "$work/job.yaml" --set seed=3 --wait --timeout 120
STEER_TOKEN=wrong expect 6 "" ls
STEER_TOKEN='' expect 6 "" artifact put "$work/rows.jsonl"
expect 0 "stopped" down
echo "cli: all as promised"
