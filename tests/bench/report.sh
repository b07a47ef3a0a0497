#!/usr/bin/env bash
# docs/performance.md from the results of tests/bench/run: what was asked, what was measured, by whom it was measured against. Written by
# `make bench`, never by hand.  usage: tests/bench/report.sh [RESULTS]
set -u
cd "$(dirname "$0")/../.." || exit 1
results=${1:-${BENCH_RESULTS:-build/bench/results.jsonl}}
bin=${STEER_BIN:-build/release/bin}
[ -s "$results" ] || { echo "report: $results has no figures" >&2; exit 1; }

field() { # line, key: a text or number of a result
    sed -nE "s/.*\"$2\":\"?([^\",}]*)\"?[,}].*/\1/p" <<<"$1"
}
line() { # case (a regular expression), peer (one too) or "": the last result of it
    if [ -n "${2:-}" ]; then grep -E "\"case\":\"$1\"" "$results" | grep -E "\"peer\":\"$2" | grep -v '"bench":"absent"' | tail -n 1
    else grep -E "\"case\":\"$1\"" "$results" | grep -v '"peer":' | tail -n 1; fi
}
case_of() { sed -nE 's/.*"case":"([^"]*)".*/\1/p' <<<"$1"; }
value() { field "$(line "$@")" median; }
show() { # the same: "1302 [982, 1515] of 3", or what was not measured
    local l
    l=$(line "$@")
    [ -n "$l" ] || { echo "not measured"; return; }
    printf '%.4g %s [%.4g, %.4g] of %d' "$(field "$l" median)" "$(field "$l" unit)" "$(field "$l" min)" "$(field "$l" max)" "$(field "$l" runs)"
}
best() { # case, peer: the largest median of all settings, "VALUE PEER"
    grep -E "\"case\":\"$1\"" "$results" | grep -E "\"peer\":\"$2" | grep -v '"bench":"absent"' | sed -nE 's/.*"median":([^,]*),.*"peer":"([^"]*)".*/\1 \2/p' | sort -g | tail -n 1
}
over() { # ours, theirs: ratio, or a dash
    awk -v a="${1:-}" -v b="${2:-}" 'BEGIN {if (a + 0 > 0 && b + 0 > 0) printf "%.2f", a / b; else printf "-"}'
}
verdict() { # ratio, least: yes or **no**
    awk -v r="$1" -v w="$2" 'BEGIN {print (r == "-" ? "-" : (r + 0 >= w ? "yes" : "**no**"))}'
}
row() { # work, wanted, bound of the ratio, ratio, ours in words, theirs in words
    echo "| $1 | $2 | $5 | $6 | $4 | $(verdict "$4" "$3") |"
}
# Ours against one peer, higher is better.
against() { # work, factor wanted, our case, peer's case, peer, name of the peer
    local theirs
    theirs=$(best "$4" "$5")
    row "$1" ">= $2 x $6" "$2" "$(over "$(value "$3")" "${theirs%% *}")" "$(show "$3")" "${theirs:-not measured}"
}
of_bound() { # work, least, our case
    local l
    l=$(line "$3")
    row "$1" ">= $2 of $(field "$l" name)" "$2" "$(r=$(field "$l" ratio); echo "${r:--}")" "$(show "$3")" "$(v=$(field "$l" value); [ -z "$v" ] || printf '%.4g' "$v")"
}
at_most() { # work, most, unit, our case, peer's case, peer
    local v
    v=$(value "$4")
    row "$1" "<= $2 $3" 1 "$(over "$2" "$v")" "$(show "$4")" "$(show "$5" "$6")"
}

cat <<EOF
# How fast, and against whom

Written by \`make bench\` from its results, never by hand. The programs, the form of a figure and the peers: [tests/bench/README.md](../tests/bench/README.md).
Ours and the peers run by turns in one run; a value is the median [least, most] of so many turns. Speed of this kind of machine drifts by a third
within minutes, so the ratios are what counts.

| | |
|---|---|
| commit | $(git describe --always --dirty --exclude "*" 2>/dev/null) |
| date | $(date -u +%Y-%m-%d) |
| processor | $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1), $(nproc) cores, $(awk '/MemTotal/ {printf "%.0f GiB", $2 / 1048576}' /proc/meminfo) |
| kernels of OpenBLAS | $(grep -oE '"class":"[^"]*"' "$results" | tail -n 1 | cut -d'"' -f4) |
| system | $(. /etc/os-release && echo "$PRETTY_NAME"), Linux $(uname -r), $(gcc --version | head -n 1) |
| sgemm, 2 threads | $(show 'sgemm .*, 2 threads') |
| memory read, 2 threads | $(show 'memory read.*, 2 threads') |
| memcpy, 2 threads | $(show 'memcpy.*, 2 threads') |
| 4 KiB appended and synced | $(show '4 KiB appended.*') |
| loopback TCP | $(show 'TCP to 127.0.0.1.*') |

## Figures asked for

| work | wanted | ours | peer or bound | ratio | reached |
|---|---|---|---|---|---|
EOF
for c in "15M, 4 x 256" "124M, 4 x 64" "124M, 1 x 512"; do
    case $c in 15M*) old=1.5 ;; *) old=1.4 ;; esac
    [ "$c" != "15M, 4 x 256" ] || of_bound "train $c fp32, a real job" 0.85 "$c fp32, 2 threads"
    against "train $c fp32, a real job" $old "$c fp32, 2 threads" "$c fp32, 2 threads" 'PyTorch 1\.[^b]*"' "PyTorch 1.13, fp32"
    against "train $c fp32, a real job" 1.0 "$c fp32, 2 threads" "$c fp32, 2 threads" 'PyTorch [2-9][^b]*"' "the current PyTorch, fp32"
    against "train $c bf16, a real job" 1.2 "$c bf16, 2 threads" "$c fp32, 2 threads" 'PyTorch .*bf16' "PyTorch's best bf16"
done
against "train 124M, 4 x 64 fp32" 4 "124M, 4 x 64 fp32, 2 threads" "124M, 4 x 64 fp32, 2 threads" "llm.c" "llm.c"
tiny='stories260K, rows of 80 fp32, 2 threads' half='15M, 4 x 256, half masked fp32, 2 threads' whole='15M, 4 x 256 fp32, 2 threads'
row "train stories260K, rows of 80" ">= 60,000 tokens/s" 1 "$(over "$(value "$tiny")" 60000)" "$(show "$tiny")" "$(best "$tiny" PyTorch)"
row "train 15M, half of the rows masked" ">= 1.25 x unmasked" 1.25 "$(over "$(value "$half")" "$(value "$whole")")" "$(show "$half")" "$(show "$whole")"
at_most "memory, 124M, 4 x 64, worker with both roles" 2662 MiB "memory, 124M, 4 x 64 fp32, 2 threads" "memory, 124M, 4 x 64 fp32, 2 threads" PyTorch
at_most "memory, 15M, 4 x 256, worker with both roles" 614 MiB "memory, 15M, 4 x 256 fp32, 2 threads" "memory, 15M, 4 x 256 fp32, 2 threads" PyTorch
against "annotate, regression head, 15M, rows of 128" 2 "annotation 15M, regression head.*" "prefill 15m-f32.*" "llama.cpp" "llama.cpp's prefill"
against "decode 15M fp32, one stream" 1 "decode 15M, one stream, fp32, .*" "decode 15m-f32.*" "llama" "llama.cpp, llama2.c"
against "decode 110M fp32, one stream" 1 "decode 110M, one stream, fp32, .*" "decode 110m-f32.*" "llama" "llama.cpp, llama2.c"
against "decode 110M int8, one stream" 1 "decode 110M, one stream, int8, .*" "decode 110m-q8_0.*" "llama" "llama.cpp's q8_0"
against "decode 15M int8, one stream" 1 "decode 15M, one stream, int8, .*" "decode 15m-q8_0.*" "llama" "llama.cpp's q8_0"
against "generate, 64 rows, 15M fp32" 2 "generation 15M, 64 rows, fp32, .*" "generation, 64 rows.*" "llama.cpp" "llama.cpp batched"
at_most "push, fold and pull of 64 MiB, 1 host, 1 worker" 45 ms "push, fold, AdamW, pull of 64 MiB, two processes.*" "push and pull of 64 MiB.*" ps-lite
at_most "push, fold and pull of 16 MiB, 1 host, 1 worker" 12 ms "push, fold, AdamW, pull of 16 MiB, two processes.*" "push and pull of 16 MiB.*" ps-lite
of_bound "2 workers x 1 thread, 8,192 tokens a step" 0.95 "15M, 8,192 tokens a step, 2 workers x 1 thread"
one='15M, 8,192 tokens a step, 1 process x 2 threads' two='15M, 8,192 tokens a step, 2 processes x 1 thread'
row "the same by PyTorch and gloo" "" 0 "$(over "$(value "$two" PyTorch)" "$(value "$one" PyTorch)")" "-" "$(show "$two" PyTorch)"
noop='tasks a second, .*'
row "tasks that do nothing, durable" ">= 20,000 tasks/s" 1 "$(over "$(value "$noop")" 20000)" "$(show "$noop")" "gearmand: in memory $(show 'tasks that do nothing.*' 'gearmand.*memory'); with SQLite $(show 'tasks that do nothing.*' 'gearmand.*sqlite')"
row "tokenizing, per thread" ">= 10 MB/s" 1 "$(over "$(value 'tokenize .*')" 10)" "$(show 'tokenize .*')" "-"
echo
echo "## The scaling model"
echo
echo "Real daemons behind links that \`tc tbf\` shapes, each in a network namespace of its own; the ratio is predicted to measured (within 20 % is asked)."
echo
echo "| step | measured | predicted, and what bounds it | ratio | within 20 % |"
echo "|---|---|---|---|---|"
grep '"bench":"plan"' "$results" | while read -r l; do
    r=$(field "$l" ratio)
    echo "| $(case_of "$l") | $(field "$l" median) ms | $(field "$l" value) ms, $(field "$l" name) | $r | $(awk -v r="$r" 'BEGIN {print (r > 0.8 && r < 1.2 ? "yes" : "**no**")}') |"
done
grep -q '"bench":"plan"' "$results" || echo "| - | not measured | - | - | - |"
echo
echo "## Every figure of the run"
echo
echo "| bench | case | whose | median | least to most | runs | share of its bound |"
echo "|---|---|---|---|---|---|---|"
grep -vE '"bench":"(absent|plan)"' "$results" | while read -r l; do
    p=$(field "$l" peer) n=$(field "$l" name)
    printf '| %s | %s | %s | %.5g %s | %.4g to %.4g | %d | %s |\n' "$(field "$l" bench)" "$(case_of "$l")" "${p:-ours}" "$(field "$l" median)" "$(field "$l" unit)" \
        "$(field "$l" min)" "$(field "$l" max)" "$(field "$l" runs)" "$([ -z "$n" ] || echo "$(field "$l" ratio) of $n")"
done
echo
absent=$(grep '"bench":"absent"' "$results" | sed -nE 's/.*"case":"([^"]*)","peer":"([^"]*)".*/\2 (\1)/p' | sort -u | paste -sd ';' | sed 's/;/; /g')
echo "Peers that were not measured: ${absent:-none}."
