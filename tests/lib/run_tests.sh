#!/usr/bin/env bash
# Runs test programs one after another and ends with one line: `N passed, N failed, N skipped`.
# A program counts each cmocka test of its output; a script counts once (exit 77 = skipped, with its reason on the last line).
# Every suite has a budget of seconds (tests/lib/budgets); what each used is printed at the end, and more than that is said loudly.
# usage: run_tests.sh NAME PROGRAM...     a program may be written label:path
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
log=$(mktemp)
trap 'rm -f "$log"' EXIT
for item in "$@"; do
    program=${item#*:}
    start=$(date +%s%N)
    limit=600
    timeout -k 10 "$limit" "$program" >"$log" 2>&1 </dev/null
    rc=$?
    took=$((($(date +%s%N) - start) / 1000000))
    suite=$(suite_of "$item")
    used[$suite]=$((${used[$suite]:-0} + took))
    ok=$(grep -c '^\[       OK \]' "$log")
    bad=$(grep -c '^\[  FAILED  \] [a-z_0-9]*$' "$log")
    if [ $rc -eq 0 ]; then
        [ "$ok" -gt 0 ] || ok=1
        passed=$((passed + ok))
        printf 'ok    %-55s %4d tests %6d ms\n' "${program#"$PWD"/}" "$ok" "$took"
        grep -h '^figure:' "$log"
    elif [ $rc -eq 77 ]; then
        skipped=$((skipped + 1))
        printf 'skip  %-55s %s\n' "${program#"$PWD"/}" "$(tail -n 1 "$log")"
    else
        [ "$bad" -gt 0 ] || bad=1
        passed=$((passed + ok))
        failed=$((failed + bad))
        printf 'FAIL  %-55s exit %d after %d ms\n' "${program#"$PWD"/}" "$rc" "$took"
        sed 's/^/      /' "$log" | tail -n 60
    fi
done
total=0 over=''
printf 'seconds used (budget):'
for suite in $(printf '%s\n' "${!used[@]}" | sort); do
    budget=$(awk -v s="$suite" '$1 == s {print $2}' "$budgets")
    budget=${budget:-30}
    total=$((total + used[$suite]))
    printf ' %s %d (%d)' "$suite" $(((used[$suite] + 999) / 1000)) "$budget"
    [ "${used[$suite]}" -le $((budget * 1000)) ] || over+=" $suite"
done
printf '; in all %d (1200)\n' $(((total + 999) / 1000))
[ -z "$over" ] || echo "***** OVER BUDGET:$over *****"
echo "$name:"
if [ $skipped -gt 0 ]; then
    echo "$passed passed, $failed failed, $skipped skipped"
else
    echo "$passed passed, $failed failed"
fi
[ $failed -eq 0 ] && [ $((passed + failed)) -gt 0 ]
