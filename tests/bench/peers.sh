#!/usr/bin/env bash
# Installs what the benchmarks are compared with into a folder of its own, $PEERS (build/peers): the product never needs any of it, and nothing
# is installed into the system. What cannot be had is said, and is then "not measured" in docs/performance.md.
#   venv/   the current PyTorch (with its gloo), transformers and gguf from PyPI
#   llama/  llama-bench and llama-batched-bench, compiled for this processor from the sources that PyPI's llama-cpp-python brings along
#   debian/ Debian's python3-torch, OpenBLAS for OpenMP, gearmand and its library, unpacked and not installed
# usage: tests/bench/peers.sh [debian|torch|llama ...]     one job at a time; nice it where others work
set -u
cd "$(dirname "$0")/../.." || exit 1
peers=${PEERS:-$PWD/build/peers}
python=${PEERS_PYTHON:-/usr/bin/python3}
jobs=${PEERS_JOBS:-1}
missing=0
mkdir -p "$peers"
lack() { echo "bench-peers: no $1: $2"; missing=1; }

debian() {
    local packages="python3-torch libopenblas0-openmp gearman-job-server gearman-tools libgearman8 libgearman-dev"
    [ -e "$peers/debian/done" ] && return
    mkdir -p "$peers/debs/partial" "$peers/debian"
    # All that is not on the machine, dependencies too, only fetched.
    apt-get install -y --no-install-recommends --download-only -o Dir::Cache::archives="$peers/debs" $packages >"$peers/debian.log" 2>&1 ||
        { lack "Debian's python3-torch, gearmand" "see $peers/debian.log (apt-get update?)"; return; }
    for deb in "$peers"/debs/*.deb; do dpkg -x "$deb" "$peers/debian" || { lack "${deb##*/}" "dpkg -x failed"; return; }; done
    rm -rf "$peers/debs"
    touch "$peers/debian/done"
}
torch() {
    [ -e "$peers/venv/done" ] && return
    "$python" -m venv "$peers/venv" >"$peers/torch.log" 2>&1 || { lack PyTorch "$python -m venv failed, see $peers/torch.log"; return; }
    "$peers/venv/bin/pip" install -q torch numpy transformers gguf >>"$peers/torch.log" 2>&1 || { lack PyTorch "see $peers/torch.log"; return; }
    touch "$peers/venv/done"
}
llama() {
    local source
    [ -e "$peers/llama/done" ] && return
    mkdir -p "$peers/llama-source" "$peers/llama"
    source=$(ls -d "$peers"/llama-source/*/vendor/llama.cpp 2>/dev/null | head -n 1)
    if [ -z "$source" ]; then
        "$python" -m pip download -q --no-deps --no-binary :all: -d "$peers/llama-source" llama-cpp-python >"$peers/llama.log" 2>&1
        ls "$peers"/llama-source/*.tar.gz >/dev/null 2>&1 || { lack llama.cpp "see $peers/llama.log"; return; }
        tar -xzf "$peers"/llama-source/*.tar.gz -C "$peers/llama-source"
        source=$(ls -d "$peers"/llama-source/*/vendor/llama.cpp | head -n 1)
    fi
    [ -n "$source" ] && command -v cmake >/dev/null && command -v g++ >/dev/null || { lack llama.cpp "needs cmake, g++ and the sources in llama-cpp-python"; return; }
    cmake -S "$source" -B "$peers/llama-build" -DCMAKE_BUILD_TYPE=Release -DBUILD_SHARED_LIBS=OFF -DGGML_NATIVE=ON -DGGML_OPENMP=ON -DLLAMA_OPENSSL=OFF \
        -DLLAMA_BUILD_COMMON=ON -DLLAMA_BUILD_TOOLS=ON -DLLAMA_BUILD_SERVER=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF \
        -DLLAMA_BUILD_APP=OFF -DLLAMA_TOOLS_INSTALL=OFF >>"$peers/llama.log" 2>&1 &&
        cmake --build "$peers/llama-build" -j "$jobs" --target llama-bench llama-batched-bench llama-quantize >>"$peers/llama.log" 2>&1 ||
        { lack llama.cpp "see $peers/llama.log"; return; }
    cp "$peers"/llama-build/bin/llama-bench "$peers"/llama-build/bin/llama-batched-bench "$peers"/llama-build/bin/llama-quantize "$peers/llama/"
    (cd "$peers/llama-source" && ls -d llama*/ | tr -d /) >"$peers/llama/done"
}
if [ $# -gt 0 ]; then for what in "$@"; do "$what"; done; else debian; torch; llama; fi
exit $missing
