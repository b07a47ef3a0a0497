#!/usr/bin/env bash
# The same bits whatever happens: one short training run on 1..5 workers, with workers killed, stopped, added and drained and the coordinator
# killed while it trains. Every run must end with the manifest that a straight loop computes.
set -u
cd "$(dirname "$0")/../.." || exit 1
spec=tests/system/bits.yaml
. tests/lib/cluster.sh
lost='promoted rolled_back recomputed overtaken' # what may come of a worker that goes

start one-worker 1; finish one-worker
start three-workers 3; finish three-workers
start seven-workers 7; finish seven-workers
start two-threads-and-three 2; worker more 3; finish two-threads-and-three
begin layers-computed-again; worker w1 1; worker w2 2; gathered 2; submit --set train.recompute=true; finish layers-computed-again
begin pinned; worker w1 1 --pin auto; worker w2 1 --pin auto; worker w3 1 --pin auto; gathered 3; submit; finish pinned
STEER_FAULT=worker.compute.slow:1:sleep=5:every start join-and-drain 1; step 30 >/dev/null; worker late 1; step 60 >/dev/null; end TERM w1; must_move='respread promoted rolled_back'; finish join-and-drain
start worker-killed 3; step 20 >/dev/null; end KILL w2; must_move=$lost; finish worker-killed
start every-worker-killed-in-turn 3
for i in 1 2 3; do step $((i * 25)) >/dev/null; end KILL "w$i"; worker "w$i" 1; done
must_move=$lost; finish every-worker-killed-in-turn
start worker-stopped-for-good 3; step 20 >/dev/null; end STOP w3; must_move=$lost; finish worker-stopped-for-good
start worker-stopped-for-a-while 2; step 20 >/dev/null; end STOP w2; sleep 4; end CONT w2; must_move=$lost; finish worker-stopped-for-a-while
start coordinator-killed 2; step 20 >/dev/null; end KILL c; sleep 0.5; coordinator; step 70 >/dev/null; end KILL c; coordinator; must_move='adopted rolled_back'; finish coordinator-killed
start everybody-killed 2; step 40 >/dev/null; end KILL c; end KILL w1; end KILL w2; coordinator; worker w1 1; worker w2 1; must_move=rolled_back; finish everybody-killed
export STEER_TOKEN="a secret that only some have"
start with-a-secret 2
(unset STEER_TOKEN; worker stranger 4; echo "${pid[stranger]}" >"$dir/stranger.pid")
pid[stranger]=$(cat "$dir/stranger.pid")
finish with-a-secret
if ! grep -q worker.start "$dir/stranger.log" || grep -q coordinator.welcome "$dir/stranger.log"; then echo "FAIL with-a-secret: a worker without it was let in"; failed=1; fi
exit $failed
