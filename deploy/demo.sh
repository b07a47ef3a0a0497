#!/usr/bin/env bash
# The demo: a coordinator and two workers on this machine, one pipeline, its report, and how to go on.
# usage: demo.sh SPEC OUT    (STEER_BIN: where the programs are; STEER_DEMO_DIR: state, kept between runs)
set -euo pipefail
cd "$(dirname "$0")/.."
spec=$1
out=$2
bin=${STEER_BIN:-$PWD/build/release/bin}
dir=${STEER_DEMO_DIR:-$PWD/build/demo-state}
export PATH=$bin:$PATH
finish() {
    steerctl down --dir "$dir" >/dev/null 2>&1 || echo "demo: could not stop the daemons; try: steerctl down --dir $dir" >&2
}
trap finish EXIT
steerctl up --workers 2 --threads 1 --dir "$dir"
start=$(date +%s)
job=$(steerctl submit "$spec" --dir "$dir" --follow)
rm -rf "$out"
mkdir -p "$(dirname "$out")"
steerctl artifact get "$job/report/report" "$out" --dir "$dir" >/dev/null
steerctl artifact get "$job/steer/model" "$out/model" --dir "$dir" >/dev/null
seconds=$(($(date +%s) - start))
echo
cat "$out/report.md"
echo
echo "The pipeline took $((seconds / 60)) min $((seconds % 60)) s."
echo "Report with pictures: $out/report.md    The steered model: $out/model (Hugging Face directory)"
echo "Go on:"
echo "  export PATH=$bin:\$PATH"
echo "  steerctl up --workers 2 --dir $dir"
echo "  steerctl submit jobs/specs/generate.yaml --set inputs.model=job:$job/steer --dir $dir --follow"
echo "  steerctl help"
