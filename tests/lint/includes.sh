#!/usr/bin/env bash
# Which room may include which: the arrows of docs/architecture.md, checked against every #include "...".
set -u
cd "$(dirname "$0")/../.."
declare -A may=(
    [base]="base" [json]="base json" [types]="base types" [model]="base types model"
    [data]="base json types data model/transformer.h model/dims.h" [modelfile]="base json types data modelfile model/dims.h data/template.h"
    [eval]="base json types data eval" [ps]="base json types model ps" [wire]="base types wire net/link.h" [net]="base net"
    [store]="base json types store" [artifact]="base json store artifact"
)
bad=0
complain() { echo "$1:$2: room '$3' must not include \"$4\""; bad=1; }
allowed() { # file room include
    local inc=$3 entry
    for entry in $2; do
        case "$inc" in "$entry" | "$entry"/*) return 0 ;; esac
    done
    return 1
}
scan() { # room-name allowed files...
    local room=$1 list=$2 f n inc
    shift 2
    for f in "$@"; do
        while IFS=: read -r n inc; do
            allowed "$f" "$list" "$inc" || complain "$f" "$n" "$room" "$inc"
        done < <(grep -nE '^#include "' "$f" | sed -E 's/^([0-9]+):#include "([^"]+)".*/\1:\2/')
    done
}
shopt -s nullglob
for room in "${!may[@]}"; do
    list=${may[$room]}
    [ "$room" = wire ] && list="$list control.pb-c.h params.pb-c.h"
    scan "$room" "$list" common/$room/*.[ch]
done
jobs="base json types data jobs model/dims.h model/optim.h model/decode.h model/transformer.h ps/units.h store/blob.h"
for f in jobs/*.[ch]; do
    case "$f" in
    jobs/run*) scan "jobs/run" "base json types data jobs model modelfile eval ps store" "$f" ;;
    *) scan jobs "$jobs" "$f" ;;
    esac
done
scan coordinator "base json types data modelfile jobs store wire net coordinator model/dims.h" coordinator/*.[ch]
scan worker "base json types model data modelfile eval ps wire net store/blob.h artifact jobs worker" worker/*.[ch]
scan steerctl "base json types data modelfile jobs steerctl store/blob.h artifact" steerctl/*.[ch]
if grep -rnE '#include "[a-z]*\.pb-c\.h"' --include='*.[ch]' common jobs coordinator worker steerctl | grep -v '^common/wire/'; then
    echo "only common/wire includes generated messages"
    bad=1
fi
if grep -rnE '\b(expf|logf|powf|rsqrt)\b|-ffast-math' --include='*.[ch]' common/model Makefile | grep -v '^Makefile.*No fast-math'; then
    echo "common/model has its own vmath; nothing is built with fast-math"
    bad=1
fi
for place in $(grep -oE 'X\([A-Z_]+, "' common/base/fault.h | sed 's/X(//; s/, "//'); do
    grep -rqE "\bFAULT_$place\b" --include='*.c' common jobs coordinator worker || { echo "failpoint $place is in the list and nowhere else"; bad=1; }
done
[ $bad -eq 0 ] && echo "include arrows hold"
exit $bad
