#!/usr/bin/env bash
# Runs tests and ends with one line: `N passed, N failed, N skipped`.
# A program counts each cmocka test of its output; a script counts once (exit 77 = skipped, with its reason on the last line). What a
# program skips is named, with the line that it said before.
# Every suite has a budget of seconds (tests/lib/budgets); what each used is printed at the end, and more than that is said loudly.
# usage: run_tests.sh NAME PROGRAM...     a program may be written label:path. STEER_TIMEOUT=SECONDS that one program may take (600)
set -u
budgets=$(dirname "$0")/budgets
declare -A used=()
suite_of() { # item: its label; a script's own name; else the folder below tests/
    local path=${1#*:}
    case $1 in
    *:*) echo "${1%%:*}" ;;
    *.sh) basename "$path" .sh ;;
    *) path=${path#"$PWD"/}; path=${path##*tests/}; echo "${path%%/*}" ;;
    esac
}
name=$1
shift
passed=0 failed=0 skipped=0
work=$(mktemp -d)
begun=$SECONDS
limit=${STEER_TIMEOUT:-600}
trap 'rm -rf "$work"' EXIT
trap stop INT TERM

# `timeout` has a process group of its own: Ctrl-C does not reach it, and it outlives the shell that waits for it. So it is told by its pid;
# it passes that on to its group, and kills it 10 s later.
stop() {
    local f
    trap '' INT TERM
    touch "$work/stop"
    for f in "$work"/*.pid; do [ ! -s "$f" ] || kill "$(cat "$f")"; done 2>/dev/null
    wait
    for f in "$work"/*.pid; do # left only if the shell that waited for it was killed too
        for _ in $(seq 120); do kill -0 "$(cat "$f")" || break; sleep 0.1; done
    done 2>/dev/null
    grep -h '^logs are in ' "$work"/*.log
    exit 1
}
run_one() { # item, in a shell of its own: its output, then how it ended and how long it took, into files of its number
    local start rc
    start=$(date +%s%N)
    timeout -k 10 "$limit" "${items[$1]#*:}" >"$work/$1.log" 2>&1 </dev/null &
    echo $! >"$work/$1.pid"
    [ ! -e "$work/stop" ] || kill $! # whoever stops us has seen the pid, or we see that we are stopped
    wait $!
    rc=$?
    rm -f "$work/$1.pid"
    echo "$rc $((($(date +%s%N) - start) / 1000000))" >"$work/$1.ended"
    mv "$work/$1.ended" "$work/$1.end"
}
tell() { # item: what came out of it
    local item=${items[$1]} log=$work/$1.log program rc took suite ok bad skips
    program=${item#*:}
    read -r rc took <"$work/$1.end"
    suite=$(suite_of "$item")
    used[$suite]=$((${used[$suite]:-0} + took))
    ok=$(grep -c '^\[       OK \]' "$log")
    bad=$(grep -c '^\[  FAILED  \] [a-z_0-9]*$' "$log")
    skips=$(awk '/^\[==========\] .* run/ {exit} /^\[  SKIPPED \] / {print $4 ": " said} {said = $0}' "$log")
    if [ "$rc" -eq 0 ]; then
        [ "$ok" -gt 0 ] || [ -n "$skips" ] || ok=1
        passed=$((passed + ok))
        printf 'ok    %-55s %4d tests %6d ms\n' "${program#"$PWD"/}" "$ok" "$took"
        grep -h '^figure:' "$log"
        while IFS= read -r skip; do
            skipped=$((skipped + 1))
            printf 'skip  %-55s %s\n' "${program#"$PWD"/}" "$skip"
        done < <(printf '%s' "${skips:+$skips$'\n'}")
    elif [ "$rc" -eq 77 ]; then
        skipped=$((skipped + 1))
        printf 'skip  %-55s %s\n' "${program#"$PWD"/}" "$(tail -n 1 "$log")"
    else
        [ "$bad" -gt 0 ] || bad=1
        passed=$((passed + ok))
        failed=$((failed + bad))
        printf 'FAIL  %-55s exit %d after %d ms\n' "${program#"$PWD"/}" "$rc" "$took"
        sed 's/^/      /' "$log" | tail -n 60
    fi
}
# As many at once as there are cores; scripts that start daemons and watch clocks then one by one, but for those whose head says that they
# may run beside others.
is_alone() { [[ $1 == *.sh ]] && ! head -n 20 "${1#*:}" | grep -q '^# May run beside others'; }
items=() alone=()
for item in "$@"; do if is_alone "$item"; then alone+=("$item"); else items+=("$item"); fi; done
beside=${#items[@]}
items+=("${alone[@]}")
for ((n = 0, told = 0; n < ${#items[@]}; n++)); do
    if [ "$n" -ge "$beside" ]; then
        wait
        run_one $n &
        wait
    else
        [ "$(jobs -rp | wc -l)" -lt "$(nproc)" ] || wait -n
        run_one $n &
    fi
    while [ -e "$work/$told.end" ]; do tell $((told++)); done
done
wait
while [ "$told" -lt "${#items[@]}" ]; do tell $((told++)); done
over=''
printf 'seconds used (budget):'
for suite in $(printf '%s\n' "${!used[@]}" | sort); do
    budget=$(awk -v s="$suite" '$1 == s {print $2}' "$budgets")
    budget=${budget:-30}
    printf ' %s %d (%d)' "$suite" $(((used[$suite] + 999) / 1000)) "$budget"
    [ "${used[$suite]}" -le $((budget * 1000)) ] || over+=" $suite"
done
printf '; in all %d (1200)\n' $((SECONDS - begun))
[ -z "$over" ] || echo "***** OVER BUDGET:$over *****"
echo "$name:"
if [ $skipped -gt 0 ]; then
    echo "$passed passed, $failed failed, $skipped skipped"
else
    echo "$passed passed, $failed failed"
fi
[ $failed -eq 0 ] && [ $((passed + failed)) -gt 0 ]
