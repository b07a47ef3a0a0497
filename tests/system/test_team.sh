#!/usr/bin/env bash
# Large models, of which all threads of a worker share every unit and units are computed together: workers of three
# and of two threads, of which one is killed, with layers computed again; one unit a step, in bf16. Each must end with the manifest of a straight loop that
# computes one unit after the other.
set -u
cd "$(dirname "$0")/../.." || exit 1
spec=tests/system/team.yaml last_step=3
. tests/lib/cluster.sh

run() { # scenario, threads of w1, of w2 ("": there is none) [options of submit]
    local name=$1 first=$2 second=$3
    shift 3
    begin "$name"
    worker w1 "$first"
    [ -z "$second" ] || worker w2 "$second"
    gathered $((second > 0 ? 2 : 1))
    submit "$@"
    [ -z "$second" ] || { step 1 >/dev/null; end KILL w2; must_move='promoted rolled_back recomputed overtaken'; }
    finish "$name"
    rm -rf "$dir"
}
run killed 3 2 --set train.recompute=true
spec=$top/bf16.yaml want=''
{ sed "s#\.\./\.\./#$PWD/#" tests/system/team.yaml; echo "numerics: bf16"; } >"$spec"
run bf16-one-unit 2 "" --set train.units=1
exit $failed
