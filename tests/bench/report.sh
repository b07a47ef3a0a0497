#!/usr/bin/env bash
# docs/performance.md from the results of tests/bench/run: what was asked, what was measured, by whom it was measured against. Written by
# `make bench`, never by hand.  usage: tests/bench/report.sh [RESULTS]
set -u
cd "$(dirname "$0")/../.." || exit 1
results=${1:-${BENCH_RESULTS:-build/bench/results.jsonl}}
bin=${STEER_BIN:-build/release/bin}
[ -s "$results" ] || { echo "report: $results has no figures" >&2; exit 1; }

merged=$(mktemp)
trap 'rm -f "$merged"' EXIT
awk -f tests/bench/merge.awk "$results" >"$merged"

field() { # line, key: a text or number of a result
    sed -nE "s/.*\"$2\":\"?([^\",}]*)\"?[,}].*/\1/p" <<<"$1"
}
line() { # case (a regular expression), peer (one too) or "": its result
    if [ -n "${2:-}" ]; then grep -E "\"case\":\"$1\"" "$merged" | grep -E "\"peer\":\"$2" | tail -n 1
    else grep -E "\"case\":\"$1\"" "$merged" | grep -v '"peer":' | tail -n 1; fi
}
best() { # case, peer, "" or r (less is better): the result with the best median
    grep -E "\"case\":\"$1\"" "$merged" | grep -E "\"peer\":\"$2" | sed -E 's/.*"median":([^,]*),.*/\1 &/' | sort "-g${3:-}" | tail -n 1 | cut -d' ' -f2-
}
case_of() { sed -nE 's/.*"case":"([^"]*)".*/\1/p' <<<"$1"; }
value() { field "$(line "$@")" median; }
tell() { # a result: "1302 tokens/s [982, 1515] of 3, PyTorch 2.1", and how busy others were
    local peer others unit
    [ -n "$1" ] || { echo "not measured"; return; }
    peer=$(field "$1" peer) others=$(field "$1" others) unit=$(field "$1" unit)
    printf '%.4g %s [%.4g, %.4g] of %d%s%s' "$(field "$1" median)" "$unit" "$(field "$1" min)" "$(field "$1" max)" "$(field "$1" runs)" \
        "${peer:+, $peer}" "$([ "${others:-0}" -le 5 ] || echo " (others kept $others % busy)")"
}
show() { tell "$(line "$@")"; }
over() { # ours, theirs: ratio, cut and not rounded, so that 0.997 is not 1; or a dash
    awk -v a="${1:-}" -v b="${2:-}" 'BEGIN {if (a + 0 > 0 && b + 0 > 0) printf "%.3f", int(1000 * a / b) / 1000; else printf "-"}'
}
verdict() { # ratio, least
    awk -v r="$1" -v w="$2" 'BEGIN {print (r == "-" ? "not measured" : w == "" ? "printed" : r + 0 >= w + 0 ? "held" : "**missed**")}'
}
row() { # work, wanted, least ratio or "", ratio, ours in words, theirs in words
    echo "| $1 | $2 | $6 | $5 | $4 | $(verdict "$4" "$3")$([[ $5$6 != *"busy)"* ]] || echo ", not quiet") |"
}
# Ours against one peer, higher is better.
against() { # work, factor wanted, our case, peer's case, peer, name of the peer
    local theirs
    theirs=$(best "$4" "$5")
    row "$1" ">= $2 x $6" "$2" "$(over "$(value "$3")" "$(field "$theirs" median)")" "$(show "$3")" "$(tell "$theirs")"
}
of_bound() { # work, least or "", our case, name of the bound
    local l
    l=$(line "$3")
    row "$1" "${2:+>= $2 of }$4" "$2" "$(r=$(field "$l" ratio); echo "${r:--}")" "$(tell "$l")" "$(v=$(field "$l" value); [ -z "$v" ] || printf '%.4g %s' "$v" "$(field "$l" unit)")"
}
at_most() { # work, most, unit, our case, peer's case, peer: the ratio is what was asked to ours
    row "$1" "<= $2 $3" 1 "$(over "$2" "$(value "$4")")" "$(show "$4")" "$(tell "$(best "$5" "$6" r)")"
}
pair() { # work, wanted, least or "", case of one, case of the other, [swap]: their ratio, one to the other; swap: the one is the work
    if [ -n "${6:-}" ]; then row "$1" "$2" "$3" "$(over "$(value "$4")" "$(value "$5")")" "$(show "$4")" "$(show "$5")"
    else row "$1" "$2" "$3" "$(over "$(value "$4")" "$(value "$5")")" "$(show "$5")" "$(show "$4")"; fi
}

cat <<EOF
# How fast, and against whom

Written by \`make bench\` from its results, never by hand. The programs, the form of a figure and the peers: [tests/bench/README.md](../tests/bench/README.md).
Ours and the peers run by turns in one run; a value is the median [least, most] of so many measurements. Speed of this kind of machine drifts by
a third within minutes, so the ratios are what counts. Where others used more than 5 % of the processors during a piece, the figure says so.

| | |
|---|---|
| commit | $(grep '"bench":"commit"' "$results" | sed -nE 's/.*"case":"([^"]*)".*/\1/p' | paste -sd' ') |
| date | $(d=$(sed -nE 's/.*"bench":"commit".*"date":"([^"]*)".*/\1/p' "$results" | tail -n 1); echo "${d:-$(date -u +%Y-%m-%d)}") |
| processor | $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1), $(nproc) cores, $(awk '/MemTotal/ {printf "%.0f GiB", $2 / 1048576}' /proc/meminfo) |
| kernels | $(grep -oE '"class":"[^"]*"' "$results" | tail -n 1 | cut -d'"' -f4) |
| system | $(. /etc/os-release && echo "$PRETTY_NAME"), Linux $(uname -r), $(gcc --version | head -n 1) |
| sgemm, 2 threads | $(show 'sgemm .*, 2 threads') |
| memory read, 2 threads | $(show 'memory read.*, 2 threads') |
| memcpy, 2 threads | $(show 'memcpy.*, 2 threads') |
| 4 KiB appended and synced | $(show '4 KiB appended.*') |
| loopback TCP | $(show 'TCP to 127.0.0.1.*') |

## Figures asked for

Ratio: ours to the peer or bound; where a most is asked (ms, MiB), what was asked to ours. Held: the ratio is as asked.

| work | wanted | peer or bound | ours | ratio | |
|---|---|---|---|---|---|
EOF
for c in "15M, 4 x 256" "124M, 4 x 64" "124M, 1 x 512"; do
    case $c in 15M*) old=1.5 ;; *) old=1.4 ;; esac
    [ "$c" != "15M, 4 x 256" ] || of_bound "train $c fp32, a real job" 0.85 "$c fp32, 2 threads" "OpenBLAS's sgemm"
    against "train $c fp32, a real job" $old "$c fp32, 2 threads" "$c fp32, 2 threads" 'PyTorch 1\.[^b]*"' "PyTorch 1.13, fp32"
    against "train $c fp32, a real job" 1.0 "$c fp32, 2 threads" "$c fp32, 2 threads" 'PyTorch [2-9][^b]*"' "the current PyTorch, fp32"
    against "train $c bf16, a real job" 1.2 "$c bf16, 2 threads" "$c fp32, 2 threads" 'PyTorch .*bf16' "PyTorch's best bf16"
done
against "train 124M, 4 x 64 fp32" 4 "124M, 4 x 64 fp32, 2 threads" "124M, 4 x 64 fp32, 2 threads" "llm.c" "llm.c"
tiny='stories260K, rows of 80 fp32, 2 threads' half='15M, 4 x 256, half masked fp32, 2 threads' whole='15M, 4 x 256 fp32 beside it, 2 threads'
row "train stories260K, rows of 80" ">= 60,000 tokens/s" 1 "$(over "$(value "$tiny")" 60000)" "$(show "$tiny")" "$(tell "$(best "$tiny" PyTorch)")"
row "train 15M, half of the rows masked" ">= 1.25 x unmasked" 1.25 "$(over "$(value "$half")" "$(value "$whole")")" "$(show "$half")" "$(show "$whole")"
at_most "memory, 124M, 4 x 64, worker with both roles" 2662 MiB "memory, 124M, 4 x 64 fp32, 2 threads" "memory, 124M, 4 x 64 fp32, 2 threads" PyTorch
at_most "memory, 15M, 4 x 256, worker with both roles" 614 MiB "memory, 15M, 4 x 256 fp32, 2 threads" "memory, 15M, 4 x 256 fp32, 2 threads" PyTorch
at_most "memory to the end with a checkpoint, 124M, 4 x 64" 2662 MiB "memory with a checkpoint, 124M.*" - -
against "annotate, regression head, 15M, rows of 128" 2 "annotation 15M, regression head.*" "prefill 15m-f32.*" "llama.cpp" "llama.cpp's prefill"
against "decode 15M fp32, one stream" 1 "decode 15M, one stream, fp32, 2 .*" "decode 15m-f32.*" "llama" "llama.cpp, llama2.c"
against "decode 110M fp32, one stream" 1 "decode 110M, one stream, fp32, 2 .*" "decode 110m-f32.*" "llama" "llama.cpp, llama2.c"
against "decode 110M int8, one stream" 1 "decode 110M, one stream, int8, 2 .*" "decode 110m-q8_0.*" "llama" "llama.cpp's q8_0"
against "decode 15M int8, one stream" 1 "decode 15M, one stream, int8, 2 .*" "decode 15m-q8_0.*" "llama" "llama.cpp's q8_0"
for m in 15M 110M; do of_bound "decode $m fp32, one stream" "" "decode $m, one stream, fp32, 2 .*" "reading the weights, printed"; done
against "generate, 64 rows, 15M fp32" 2 "generation 15M, 64 rows, fp32, .*" "generation, 64 rows.*" "llama.cpp" "llama.cpp batched"
of_bound "generate, 64 rows, 15M fp32" 0.6 "generation 15M, 64 rows, fp32, .*" "what sgemm allows"
uneven='rows of uneven length, 260K, 12 slots'
pair "rows of uneven length, 12 slots: continuous against static batches" ">= 1.3 x" 1.3 "$uneven, continuous" "$uneven, static batches, computed to the end.*" swap
pair "the same, where static batches pay nothing for rows that ended" "printed" "" "$uneven, continuous" "$uneven, static batches, rows that ended.*" swap
at_most "push, fold and pull of 64 MiB, 1 host, 1 worker" 45 ms "push, fold, AdamW, pull of 64 MiB, two processes, shared memory" "push and pull of 64 MiB.*" ps-lite
at_most "push, fold and pull of 16 MiB, 1 host, 1 worker" 12 ms "push, fold, AdamW, pull of 16 MiB, two processes, shared memory" "push and pull of 16 MiB.*" ps-lite
eight='step of 8,192 tokens, 15M'
pair "2 workers x 1 thread against 1 x 2, 15M, 8,192 tokens a step" ">= 0.95 of the throughput" 0.95 "$eight, 1 worker x 2 threads" "$eight, 2 workers x 1 thread"
pair "the same in processor time of the workers, which others do not change" "printed" "" "processor time of a $eight, 1 worker x 2 threads" "processor time of a $eight, 2 workers x 1 thread"
one='15M, 8,192 tokens a step, 1 process x 2 threads' two='15M, 8,192 tokens a step, 2 processes x 1 thread'
row "the same by PyTorch and gloo" "-" "" "$(over "$(value "$two" PyTorch)" "$(value "$one" PyTorch)")" "-" "1 process: $(show "$one" PyTorch); 2 processes: $(show "$two" PyTorch)"
noop='no-op tasks, durable.*'
row "tasks that do nothing, durable" ">= 20,000 tasks/s" 1 "$(over "$(value "$noop")" 20000)" "$(show "$noop")" "in memory $(show 'tasks that do nothing.*' 'gearmand.*memory'); with SQLite $(show 'tasks that do nothing.*' 'gearmand.*sqlite')"
for t in "stories260K, English" "gpt2, English" "gpt2, many scripts"; do
    c=$(case_of "$(line "tokenize $t, .*")")
    row "tokenizing, per thread: $t" ">= 10 MB/s" 1 "$(over "$(value "tokenize $t, .*")" 10)" "$(show "tokenize $t, .*")" "${c##*, }"
done
pair "growth: a step of stub workers that sleep 50 ms, 1 against 32" "flat, printed" "" "step of 1 stub worker that.*" "step of 32 stub workers that.*"
pair "growth: coordinator's time a task, 100 jobs queued against 100,000" "flat, printed" "" "coordinator's time a task, 100 jobs.*" "coordinator's time a task, 100000 jobs.*"
pair "cost of leases: 600 s against the default" "<= 1.10, so >= 0.91" 0.91 "$eight, 2 workers x 1 thread, leases of 600 s" "$eight, 2 workers x 1 thread"
pair "cost of copies: none against one" "<= 1.10, so >= 0.91" 0.91 "$eight, 2 workers x 1 thread, no copy" "$eight, 2 workers x 1 thread"
pair "wire in bf16, 2 workers of one machine: fp32 against bf16" "printed" "" "$eight, 2 workers x 1 thread" "$eight, 2 workers x 1 thread, wire bf16"
echo
echo "## The scaling model"
echo
echo "Real daemons behind links that \`tc tbf\` shapes, each in a network namespace of its own; the ratio is predicted to measured (within 20 % is asked)."
echo
echo "| step | measured | predicted, and what bounds it | ratio | within 20 % |"
echo "|---|---|---|---|---|"
grep '"bench":"plan"' "$merged" | while read -r l; do
    r=$(field "$l" ratio)
    echo "| $(case_of "$l") | $(field "$l" median) ms | $(field "$l" value) ms, $(field "$l" name) | $r | $(awk -v r="$r" 'BEGIN {print (r > 0.8 && r < 1.2 ? "held" : "**missed**")}')$(o=$(field "$l" others); [ "${o:-0}" -le 5 ] || echo ", not quiet: others used $o %") |"
done
grep -q '"bench":"plan"' "$merged" || echo "| - | not measured | - | - | - |"
l=$(line 'raw connection through a link of .*')
[ -z "$l" ] || { echo; echo "$(case_of "$l"): $(tell "$l")$(awk -v r="$(field "$l" ratio)" 'BEGIN {if (r < 0.9) print "; the link is not reached here, so nothing is measured on it"}')."; }
echo
echo "## Every figure of the run"
echo
echo "| bench | case | whose | median | least to most | runs | share of its bound | others busy |"
echo "|---|---|---|---|---|---|---|---|"
grep -v '"bench":"plan"' "$merged" | while read -r l; do
    p=$(field "$l" peer) n=$(field "$l" name)
    printf '| %s | %s | %s | %.5g %s | %.4g to %.4g | %d | %s | %d %% |\n' "$(field "$l" bench)" "$(case_of "$l")" "${p:-ours}" "$(field "$l" median)" "$(field "$l" unit)" \
        "$(field "$l" min)" "$(field "$l" max)" "$(field "$l" runs)" "$([ -z "$n" ] || echo "$(field "$l" ratio) of $n")" "$(field "$l" others)"
done
echo
absent=$(grep '"bench":"absent"' "$results" | sed -nE 's/.*"case":"([^"]*)","peer":"([^"]*)".*/\2 (\1)/p' | sort -u | paste -sd ';' | sed 's/;/; /g')
echo "Peers that were not measured: ${absent:-none}."
