#!/usr/bin/env bash
# A job that is paused in the middle of training, over a restart of the coordinator, and one that is cancelled and tried again, end
# with the bits of the straight loop. While it is paused its workers do another job. What cannot be answers 409 with words.
# May run beside others: it mostly waits.
set -u
cd "$(dirname "$0")/../.." || exit 1
spec=tests/system/bits.yaml
. tests/lib/cluster.sh
ctl=$bin/steerctl
export STEER_FAULT=worker.compute.slow:1:sleep=5:every # so that a job is not over before somebody has said something about it

is() { # wanted state of the job, after what
    local got
    got=$(curl -sf "http://$http/v1/jobs/$job" | sed -E 's/"stages":\[.*\],"started/"started/; s/.*"state":"([A-Z]+)".*/\1/')
    [ "$got" = "$1" ] || { echo "FAIL $2: the job is $got, must be $1"; failed=1; }
}
refused() { # verb, words that must be said
    local said
    said=$(curl -s -o - -w ' %{http_code}' -X POST "http://$http/v1/jobs/$job/$1" ${3:+-d "$3"})
    case $said in *"$2"*" 409"*) ;; *) echo "FAIL $1: said '$said', must refuse with '$2'"; failed=1 ;; esac
}

start paused 2
step 30 >/dev/null || failed=1
"$ctl" pause "$job" >/dev/null || { echo "FAIL pause"; failed=1; }
is PAUSED "after pause"
refused retry "resume"
"$ctl" pause "$job" >/dev/null || { echo "FAIL pause of a paused job"; failed=1; }
"$ctl" status "$job" | grep -q "paused by" || { echo "FAIL status does not say that it is paused"; failed=1; }
end KILL c
coordinator
is PAUSED "after a restart"
other=$("$ctl" submit tests/system/bits.yaml --set name=other --set train.max_steps=5 -o name 2>>"$dir/steerctl.log")
"$ctl" wait "$other" --timeout 60 >>"$dir/steerctl.log" 2>&1 || { echo "FAIL the other job got no worker"; failed=1; }
is PAUSED "while another job ran"
"$ctl" resume "$job" >/dev/null || { echo "FAIL resume"; failed=1; }
refused resume "only a paused job"
"$ctl" events "$job" | grep -oE 'stopped at version.*' | head -1 | sed 's/^/figure: pause: /'
finish paused
restarted=$(grep -c 'session.open' "$dir/coordinator.log")
[ "$restarted" -ge 2 ] || { echo "FAIL the session was not opened again: the pause hit nothing"; failed=1; }

start retried 2
step 60 >/dev/null || failed=1
checkpoint 50 >/dev/null
"$ctl" cancel "$job" >/dev/null
is CANCELLED "after cancel"
refused pause "not over"
refused resume "retry"
refused retry "there are: 25, 50" '{"from":26}'
end KILL c
coordinator
"$ctl" retry "$job" >/dev/null || { echo "FAIL retry"; failed=1; }
finish retried

start from-an-older-checkpoint 2
step 60 >/dev/null || failed=1
checkpoint 50 >/dev/null
"$ctl" cancel "$job" >/dev/null
"$ctl" retry "$job" --from 25 >/dev/null || { echo "FAIL retry --from"; failed=1; }
finish from-an-older-checkpoint
grep -q 'from version 25 on' "$dir/coordinator.log" || { echo "FAIL it did not go on from version 25"; failed=1; }
exit $failed
