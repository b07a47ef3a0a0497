#!/usr/bin/env bash
# Whoever writes a checkpoint is killed while it does so, again and again: clusters that checkpoint at every step, whose workers and coordinator
# die at failpoints of the writer, one after the other. No visible blob may be torn, and the last checkpoint must be that of the undisturbed run.
# KILLS: at least so many (50; STEER_LONG=1: 1,000). SEED=n repeats the schedule. PARALLEL=n clusters at once.
set -u
cd "$(dirname "$0")/../.." || exit 1
export STEER_BIN=${STEER_BIN:-build/release/bin}
kills_min=${KILLS:-$([ -n "${STEER_LONG:-}" ] && echo 1000 || echo 50)}
seed=${SEED:-$$}
parallel=${PARALLEL:-8}
RANDOM=$seed
top=$(mktemp -d /tmp/steer-ckptkill.XXXXXX)
failed=0 begun=$SECONDS
trap 'touch "$top/stop"; wait; [ $failed -eq 0 ] && rm -rf "$top" || echo "logs are in $top"' EXIT
trap 'failed=1; exit 1' TERM INT
mkdir -p "$top/tests/system"
ln -s "$PWD/data" "$PWD/models" "$top/"
spec=$top/tests/system/kill.yaml
sed '/name: rows/,$d; s/checkpoint_every_steps: 3/checkpoint_every_steps: 1/; s/max_steps: 12/max_steps: 20/' tests/system/fault.yaml >"$spec"

writer=(ckpt.chunk.before ckpt.chunk.after ckpt.manifest.before ckpt.manifest.after ckpt.saved.before ckpt.report.before ckpt.report.after
    artifact.upload.mid artifact.upload.mid)
keeper=(artifact.put.mid artifact.put.after blob.write.mid blob.fsync.before blob.rename.before blob.rename.after blob.dirsync.before
    session.ack.before journal.commit.before journal.commit.after)
lives() { # variable, how many lives, names of places: sets it to "name:n;name:n...". Not in $( ), where RANDOM has a seed of its own
    local -n list=$1
    local n=$2
    shift 2
    local places=("$@")
    list=''
    for _ in $(seq "$n"); do list+="${places[$((RANDOM % ${#places[@]}))]}:$((RANDOM % 20 + 3));"; done
    list=${list%;}
}
case_run() { # number c w1 w2
    local outcome exits
    outcome=$(tests/lib/fault_case.sh "$top/$1" "$spec" 240 c "$2" w1 "$3" w2 "$4" 2>/dev/null)
    exits=${outcome##* }
    find "$top/$1/state/blobs" -type f -path '*/blobs/??/*' | while read -r f; do
        hex=${f#"$top/$1/state/blobs/"}
        [ "$(sha256sum <"$f" | cut -c1-64)" = "${hex//\//}" ] || echo "$f"
    done >"$top/$1.torn"
    echo "$(grep -o ':137' <<<"$exits" | wc -l) $(wc -l <"$top/$1.torn") $(cut -d' ' -f1,2 <<<"$outcome") $exits" >"$top/$1.result"
}
want=$(tests/lib/fault_case.sh "$top/undisturbed" "$spec" 60 2>/dev/null | cut -d' ' -f2)
[ ${#want} -eq 64 ] || { echo "FAIL the undisturbed run: $want"; failed=1; exit 1; }
rm -rf "$top/undisturbed"

ends_well='^(-|[cw12]+:(137|0)(,[cw12]+:(137|0))*)$' # nobody ends but at a failpoint, or told to
kills=0 runs=0 torn=0 other=0
while [ $kills -lt "$kills_min" ] && [ $runs -lt $((kills_min * 2)) ] && [ $failed -eq 0 ]; do
    first=$((runs + 1))
    for _ in $(seq "$parallel"); do
        runs=$((runs + 1))
        lives of_c 3 "${keeper[@]}"
        lives of_w1 3 "${writer[@]}"
        lives of_w2 2 "${writer[@]}"
        case_run $runs "$of_c" "$of_w1" "$of_w2" &
    done
    wait
    for n in $(seq $first $runs); do
        read -r k t state manifest exits <"$top/$n.result"
        kills=$((kills + k)) torn=$((torn + t))
        if [ "$state" != SUCCEEDED ] || [ "$manifest" != "$want" ] || [ "$t" -ne 0 ] || ! [[ $exits =~ $ends_well ]]; then
            other=$((other + 1)) failed=1
            echo "FAIL run $n: $state ${manifest:0:12}, must be ${want:0:12}; torn $t; exits $exits"
        else
            rm -rf "${top:?}/$n" "$top/$n".*
        fi
    done
done
line="suite=ckpt-kill commit=$(tests/lib/commit) seed=$seed kills=$kills runs=$runs torn=$torn unequal=$other seconds=$((SECONDS - begun))"
echo "figure: $line"
[ -z "${STEER_RESULTS:-}" ] || echo "$line" >>"$STEER_RESULTS"
[ $kills -ge "$kills_min" ] || { echo "FAIL only $kills kills"; failed=1; }
exit $failed
