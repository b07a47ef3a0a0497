#!/usr/bin/env bash
# Do the tests bite? Each patch in this folder takes out one safeguard. For each one: the built tree is copied (hard links, so that only
# what the patch touches is compiled again), the patch applied, the named targets built and the named test run, which must fail, and with
# the words that tell that it failed for this reason. Anything else is loud: a patch that does not apply any more, a mutant that does not
# compile, a test that still passes (the mutant was missed), a test that fails without the patch.
# usage: tests/mutants/run.sh [--rotate N | --list] [NAME...]
#   --rotate N   N of them, chosen by the commit's hash, within SECONDS_MAX; their tests are taken to pass without the patch. That each of
#                the others still applies is seen to as well
# A patch begins with lines `key: value`: safeguard, promise, make (targets below build/MODE), run (a command in the copy), expect
# (an extended regular expression that the failing test prints), seconds (about, on 2 cores).
set -u
unset MAKEFLAGS MFLAGS MAKELEVEL
cd "$(dirname "$0")/../.." || exit 1
mode=${MODE:-release}
seconds_max=${MUTANTS_SECONDS:-80}
work=build/mutants/$$ # its own: two may run at once
commit=$(git rev-parse --short=12 HEAD 2>/dev/null || echo 000000000000)
rotate=0
if [ "${1:-}" = --rotate ]; then rotate=$2; shift 2; fi

field() { sed -n "/^diff /q; s/^$2: *//p" "tests/mutants/$1.patch" | head -n 1; }
names=()
if [ "${1:-}" = --list ]; then
    for p in tests/mutants/*.patch; do n=$(basename "$p" .patch); printf '%-22s %-3s %s\n' "$n" "$(field "$n" promise)" "$(field "$n" safeguard)"; done
    exit 0
fi
if [ $# -gt 0 ]; then names=("$@"); else for p in tests/mutants/*.patch; do names+=("$(basename "$p" .patch)"); done; fi
if [ "$rotate" -gt 0 ]; then
    all=("${names[@]}") names=() sum=0 at=$((16#${commit:0:7} % ${#all[@]}))
    for ((i = 0; i < ${#all[@]} && ${#names[@]} < rotate; i++)); do
        n=${all[$(((at + i) % ${#all[@]}))]}
        s=$(field "$n" seconds)
        [ $((sum + s)) -gt "$seconds_max" ] || { names+=("$n"); sum=$((sum + s)); }
    done
fi

# A fresh copy of the tree as it stands, and a compiler that never writes through a link.
copy() {
    rm -rf "$work/tree"
    mkdir -p "$work/tree/build"
    { git ls-files -co --exclude-standard 2>/dev/null || find . -path ./build -prune -o -type f -print; } |
        while IFS= read -r f; do [ -e "$f" ] && printf '%s\0' "$f"; done | xargs -0 cp -al --parents -t "$work/tree" &&
        cp -al "build/$mode" build/gen "$work/tree/build/" &&
        cat >"$work/cc" <<'CC'
#!/bin/sh
prev=
for a in "$@"; do
    if [ "$prev" = -o ]; then rm -f "$a" "${a%.o}.d"; fi
    prev=$a
done
exec gcc "$@"
CC
    chmod +x "$work/cc"
}
build() { # targets
    local t targets=()
    for t in $1; do if [ "$t" = all ]; then targets+=(all); else targets+=("build/$mode/$t"); fi; done
    nice make -C "$work/tree" --no-print-directory -j2 MODE="$mode" CC="$PWD/$work/cc" "${targets[@]}" >"$work/build.log" 2>&1
}
run() { # command, limit: into run.log
    local rc
    (cd "$work/tree" && B=build/$mode STEER_BIN=$PWD/build/$mode/bin STEER_RESULTS='' exec timeout -k 10 "$2" bash -c "$1") >"$work/run.log" 2>&1 </dev/null &
    running=$!
    wait $running
    rc=$?
    running=''
    return $rc
}

declare -A sound=()
caught=0 bad=0 skipped=0
failed() { # name, what, log
    bad=$((bad + 1))
    printf 'FAIL    %-22s %s\n' "$1" "$2"
    [ -z "${3:-}" ] || tail -n 20 "$3" | sed 's/^/        /'
}
mutant() {
    local name=$1 patch=tests/mutants/$1.patch run expect make seconds start rc f
    [ -e "$patch" ] || { failed "$name" "there is no $patch"; return; }
    run=$(field "$name" run) expect=$(field "$name" expect) make=$(field "$name" make) seconds=$(field "$name" seconds)
    [ -n "$run" ] && [ -n "$expect" ] && [ -n "$make" ] && [ -n "$seconds" ] && [ -n "$(field "$name" safeguard)" ] && [ -n "$(field "$name" promise)" ] ||
        { failed "$name" "its head lacks one of safeguard, promise, make, run, expect, seconds"; return; }
    start=$(date +%s%N)
    copy || { failed "$name" "the tree could not be copied"; return; }
    if [ "$rotate" -eq 0 ] && [ -z "${sound[$run]:-}" ]; then
        build "$make" || { failed "$name" "the tree does not build without the patch" "$work/build.log"; return; }
        run "$run" $((seconds * 10 + 60))
        rc=$?
        if [ $rc -eq 77 ]; then skipped=$((skipped + 1)); printf 'skip    %-22s %s\n' "$name" "$(tail -n 1 "$work/run.log")"; return; fi
        [ $rc -eq 0 ] || { failed "$name" "its test fails without the patch: exit $rc of $run" "$work/run.log"; return; }
        sound[$run]=1
        copy
    fi
    for f in $(sed -n 's/^+++ b\///p' "$patch"); do cp -p "$work/tree/$f" "$work/own" 2>/dev/null && mv -f "$work/own" "$work/tree/$f"; done
    patch -d "$work/tree" -p1 -s -F1 --no-backup-if-mismatch -r - <"$patch" >"$work/patch.log" 2>&1 ||
        { failed "$name" "the patch does not apply any more: mend it" "$work/patch.log"; return; }
    build "$make" || { failed "$name" "the mutant does not build" "$work/build.log"; return; }
    run "$run" $((seconds * 10 + 60))
    rc=$?
    seconds=$((($(date +%s%N) - start) / 1000000000))
    if [ $rc -eq 77 ]; then
        skipped=$((skipped + 1))
        printf 'skip    %-22s %s\n' "$name" "$(tail -n 1 "$work/run.log")"
        return
    fi
    if [ $rc -ne 0 ] && grep -qE -- "$expect" "$work/run.log"; then
        caught=$((caught + 1))
        printf 'caught  %-22s %3d s  %s  (%s)\n' "$name" "$seconds" "$(field "$name" promise)" "$(field "$name" safeguard)"
        ok=1
    else
        failed "$name" "missed by $run: exit $rc, \"$expect\" not said: $(field "$name" safeguard)" "$work/run.log"
        ok=0
    fi
    [ -z "${STEER_RESULTS:-}" ] ||
        echo "suite=mutants commit=$commit mutant=$name promise=$(field "$name" promise) caught=$ok by=$(echo "$run" | sed -E 's/^([A-Z_]+=[^ ]* )*//; s/^"?\$B\///; s/ .*//') seconds=$seconds" >>"$STEER_RESULTS"
}

# What failed is kept without its tree, which is large. The test that runs has a process group of its own, which Ctrl-C does not reach.
running=''
cleanup() {
    rm -rf "$work/tree"
    [ $bad -gt 0 ] && echo "logs are in $work" || rm -rf "$work"
    rmdir build/mutants 2>/dev/null
}
begin=$SECONDS
mkdir -p "$work"
trap cleanup EXIT
trap 'bad=1; [ -z "$running" ] || kill "$running"; wait; exit 1' INT TERM
if [ "$rotate" -gt 0 ]; then
    for name in "${all[@]}"; do
        patch -p1 -s -F1 --dry-run <"tests/mutants/$name.patch" >"$work/patch.log" 2>&1 || failed "$name" "the patch does not apply any more: mend it" "$work/patch.log"
    done
fi
for name in "${names[@]}"; do mutant "$name"; done
echo "figure: mutants: $caught of $((caught + bad)) removed safeguards caught, $skipped skipped, in $((SECONDS - begin)) s (${names[*]})"
[ $bad -eq 0 ] && [ $((caught + skipped)) -gt 0 ]
