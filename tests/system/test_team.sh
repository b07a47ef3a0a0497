#!/usr/bin/env bash
# Large models, of which all threads of a worker share every unit and units are computed together: three threads; two
# workers of which one is killed, with layers computed again; one unit a step, in bf16. Each must end with the manifest of a straight loop that
# computes one unit after the other.
set -u
cd "$(dirname "$0")/../.." || exit 1
spec=tests/system/team.yaml last_step=3
. tests/lib/cluster.sh

run() { # scenario workers threads [options of submit]
    local name=$1 workers=$2 threads=$3
    shift 3
    begin "$name"
    for i in $(seq "$workers"); do worker "w$i" "$threads"; done
    gathered "$workers"
    submit "$@"
    if [ "$name" = killed ]; then step 1 >/dev/null; end KILL w2; fi
    finish "$name"
    rm -rf "$dir"
}
run three-threads 1 3
run killed 2 2 --set train.recompute=true
spec=$top/bf16.yaml want=''
{ sed "s#\.\./\.\./#$PWD/#" tests/system/team.yaml; echo "numerics: bf16"; } >"$spec"
run bf16-one-unit 1 2 --set train.units=1
exit $failed
