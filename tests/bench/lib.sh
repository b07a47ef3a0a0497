# Sourced by the benches that are scripts: figures in the form of README.md, spreads, a cluster on loopback, and the speed of a real job.
bin=${STEER_BIN:-build/release/bin}
top=$(mktemp -d /tmp/steer-bench.XXXXXX)
json=${BENCH_JSON:-/dev/null}
failed=0
unset STEER_TOKEN STEER_SERVER
cleanup_more() { :; }
cleanup() {
    [ -z "${up:-}" ] || "$bin/steerctl" down --dir "$up" >/dev/null 2>&1
    cleanup_more
    rm -rf "$top"
}
trap cleanup EXIT
while [ "${1:-}" = --json ]; do json=$2; shift; shift; done

say() { echo "$*"; }
spread() { # numbers: "median min max runs"
    tr ' ' '\n' <<<"$*" | sed '/^$/d' | sort -g |
        awk '{v[NR] = $1} END {printf "%.6g %.6g %.6g %d", NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2, v[1], v[NR], NR}'
}
figure() { # bench, case, unit, bound name or "", bound value or "", numbers...: says it and writes it down; $PEER: whose it is
    local bench=$1 case=$2 unit=$3 bound=$4 value=$5 more='' median least most runs
    shift; shift; shift; shift; shift
    read -r median least most runs < <(spread "$*"; echo)
    [ -n "${runs:-}" ] && [ "$runs" -gt 0 ] || { say "not measured: ${PEER:+$PEER: }$case"; return 1; }
    [ -z "$bound" ] || more=$(awk -v n="$bound" -v b="$value" -v m="$median" -v u="$unit" \
        'BEGIN {printf ",\"bound\":{\"name\":\"%s\",\"value\":%.6g},\"ratio\":%.4g", n, b, u ~ /\/s/ ? m / b : b / m}')
    say "figure: ${PEER:+$PEER: }$case: $median $unit [$least, $most] of $runs runs${bound:+, $(sed 's/.*ratio"://' <<<"$more") of $bound}"
    echo "{\"bench\":\"$bench\",\"case\":\"$case\",\"unit\":\"$unit\",\"median\":$median,\"min\":$least,\"max\":$most,\"runs\":$runs$more${PEER:+,\"peer\":\"$PEER\"}}" >>"$json"
}

# ---- a cluster and a job --------------------------------------------------------------------------------------------------------
cluster_up() { # workers, threads of each
    up=$top/cluster-$RANDOM
    export STEER_DIR=$up
    "$bin/steerctl" up --dir "$up" --workers "$1" --threads "$2" --http 0 >"$top/up.log" 2>&1 || { cat "$top/up.log"; failed=1; return 1; }
    http=$(sed -E 's/.*"http":"http:\/\/([^"]*)".*/\1/' "$up/endpoint.json")
}
cluster_down() { "$bin/steerctl" down --dir "$up" >/dev/null 2>&1; rm -rf "$up"; up=''; }
cluster_rss() { # largest memory that each process of the cluster had, MiB: "name MiB" a line
    local p name
    for p in $(pgrep -f -- "$up"); do
        name=$(tr '\0' ' ' <"/proc/$p/cmdline" 2>/dev/null | grep -oE 'steer-[a-z]+' | head -n 1)
        [ -z "$name" ] || awk -v n="$name" '/^VmHWM/ {print n, $2 / 1024}' "/proc/$p/status" 2>/dev/null
    done
}
rows_make() { # file, rows, tokens of prompt, tokens of reply: with the synthetic tokenizer and no names of speakers a byte is a token
    awk -v n="$2" -v p="$3" -v r="$4" 'function text(k,  s) {s = ""; while (k-- > 0) s = s sprintf("%c", 97 + int(rand() * 26)); return s}
        BEGIN {srand(7); for (i = 0; i < n; i++) printf "{\"prompt\":\"%s\",\"response\":\"%s\"}\n", text(p), text(r)}' >"$1"
}
job_look() { # [version of the job object that is known]: sets text, version (steps done), tokens, state
    text=$(curl -s -m 40 "http://$http/v1/jobs/$job${1:+?since=$1&wait=5s}")
    state='' version=0 seen=''
    [[ $text =~ \"state\":\"([A-Z]+)\",\"version\":([0-9]+),\"workers\" ]] && state=${BASH_REMATCH[1]} seen=${BASH_REMATCH[2]}
    [[ $text =~ \"tokens_per_s\":[^,]*,\"version\":([0-9]+)\} ]] && version=${BASH_REMATCH[1]}
}
# Milliseconds of a step of a job in training, in took: `rounds` numbers, each the mean over as many steps as fit into `seconds`. The
# coordinator is asked to answer when something has changed, so that looking costs nothing.
job_steps() { # rounds, seconds, options of submit...
    local rounds=$1 seconds=$2 begun from at known='' now
    shift; shift
    took=''
    job=$("$bin/steerctl" submit -o name "$@" 2>"$top/submit.log") || { cat "$top/submit.log"; failed=1; return 1; }
    begun=$SECONDS from=0
    while [ $SECONDS -lt $((begun + 60 + rounds * seconds)) ]; do
        job_look "$known"
        known=$seen now=$(date +%s%N)
        case $state in FAILED | CANCELLED | SUCCEEDED) break ;; esac
        [ "$version" -ge 2 ] || continue # the first steps touch memory and open connections
        if [ "$from" -eq 0 ]; then from=$now at=$version; continue; fi
        [ "$version" -gt "$at" ] && [ $((now - from)) -ge $((seconds * 1000000000)) ] || continue
        took+="$(awk -v t=$((now - from)) -v n=$((version - at)) 'BEGIN {printf "%.3f ", t / 1e6 / n}')"
        from=$now at=$version
        [ "$(wc -w <<<"$took")" -lt "$rounds" ] || break
    done
    [ -n "$took" ] || { say "the job did not train: $state"; "$bin/steerctl" status "$job"; failed=1; return 1; }
    case $state in SUCCEEDED | FAILED) ;; *) "$bin/steerctl" cancel "$job" >/dev/null 2>&1 ;; esac
}
