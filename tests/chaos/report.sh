#!/usr/bin/env bash
# docs/reliability.md from a results file: what was run, on what, and what came out. Written by `make chaos`, never by hand. Long suites take
# hours, and commits go on meanwhile: of each suite the last commit that it was run on is taken, whole, and named.
# usage: tests/chaos/report.sh [RESULTS]
set -u
cd "$(dirname "$0")/../.." || exit 1
results=${1:-${STEER_RESULTS:-build/results.txt}}
commit=$(tests/lib/commit)
last() { grep -E "^suite=$1 " "$results" | tail -n 1 | grep -oE ' commit=[^ ]+' | cut -d= -f2; } # commit of a suite's last line
# Of the disturbed runs, the commit of the last whole suite: a seed may have been run again since.
chaos_commit=$(grep -E "^suite=run name=chaos " "$results" | tail -n 1 | grep -oE ' commit=[^ ]+' | head -n 1 | cut -d= -f2)
chaos_commit=${chaos_commit:-$(last chaos)} mutants_commit=$(last mutants) sim_commit=$(last sim)
. tests/chaos/counters.sh
lines=$(grep "^suite=chaos commit=$chaos_commit " "$results" | tests/chaos/last_of seed)
chaos() { grep -c "$1" <<<"$lines"; }
seeds() { grep -oE ' seed=[0-9]+' <<<"$lines" | cut -d= -f2 | sort -n | sed -n "$1"; }
figure_of() { grep "^suite=run name=$1 " "$results" | tail -n 1; }
came() { # suite: its figures in short, with the commit
    local line
    line=$(figure_of "$1")
    [ -n "$line" ] || { echo "not run"; return; }
    echo "$(sed 's/.* figures=//; s/suite=[^ ]* commit=[^ ]* //; s/^[a-z ]*: //' <<<"$line" | tr '|' ';') ($(grep -oE ' commit=[^ ]+' <<<"$line" | head -n 1 | cut -d= -f2))"
}
unequal() { # seeds that did not end equal, and how they ended when they were run again on a later commit
    local seed line
    for seed in $(grep ' equal=0 ' <<<"$lines" | grep -oE ' seed=[0-9]+' | cut -d= -f2); do
        line=$(grep "^suite=chaos .* seed=$seed " "$results" | tail -n 1)
        echo "Seed $seed ($(grep -oE ' fault=[a-z_]+' <<<"$line" | cut -d= -f2)) did not end equal; its last run ($(grep -oE ' commit=[^ ]+' <<<"$line" | cut -d= -f2)) did$(grep -q ' equal=1 ' <<<"$line" || echo " not either")."
    done
}
most() { grep -oE "$1=[0-9]+" <<<"$lines" | cut -d= -f2 | sort -n | awk '{v[NR] = $1; s += $1} END {if (NR) printf "%d of them, mean %d ms, most %d ms", NR, s / NR, v[NR]; else printf "not measured"}'; }
sim_sum() { grep "^suite=sim commit=$sim_commit " "$results" | tests/chaos/last_of seeds | awk '{for (i = 1; i <= NF; i++) {if ($i ~ /^seeds=/) {split(substr($i, 7), r, "[.][.]"); n += r[2] - r[1] + 1} if ($i ~ /^violations=/) v += substr($i, 12)}} END {printf "%d seeds, %d violations", n, v}'; }

cat <<EOF
# What was done to it, and what came of it

Written by \`make chaos\` from its results file, never by hand. How the tests work: [tests/README.md](../tests/README.md),
[faults.md](faults.md).

| | |
|---|---|
| commit | $commit; figures name the one that they are of |
| date | $(date -u +%Y-%m-%d) |
| processor | $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1), $(nproc) cores, $(awk '/MemTotal/ {printf "%.0f GiB", $2 / 1048576}' /proc/meminfo) |
| disk | $(df -T . | awk 'NR == 2 {print $2 ", " $1}') |
| system | $(. /etc/os-release && echo "$PRETTY_NAME"), Linux $(uname -r) |

## Promises and figures

| promise | asked in \`make check\` | asked in \`make chaos\` | came out |
|---|---|---|---|
| disturbed runs of real daemons on 1, 2, 4, 7 workers end with the bits of the undisturbed run | 20, all equal | 300, all equal | $(chaos '^suite=chaos') runs, seeds $(seeds 1p) to $(seeds '$p'): $(chaos ' counted=1 equal=1 ') count, $(chaos ' equal=1 ') equal, $(chaos ' equal=0 ') not ($chaos_commit) |
| a worker killed with -9 is noticed | 3 s | 3 s | $(most noticed_ms) |
| the units of a hung worker run elsewhere | 7 s | 7 s | $(most overtaken_ms) |
| the coordinator killed under submits: none that was acknowledged lost, none doubled | 100 kills, 0 / 0 | 2,000 kills, >= 50,000 acks, 0 / 0 | $(came submits) |
| the writer of checkpoints killed: none torn or corrupt is loaded | 50 kills, 0 | 1,000 kills, 0 | $(came ckpt_kill) |
| the coordinator ready after a kill, 10,000 jobs | 2 s | 2 s | $(came restart_many) |
| power cut: nothing acknowledged lost, doubled or torn | as many cuts as fit in 30 s | 60 | $(came power_cut) |
| machines whose cores are all busy are never declared dead | 20 s | 180 s | $(came busy) |
| simulated clusters: no invariant broken | 5,000 seeds | 1,000,000 seeds | $(sim_sum) ($sim_commit) |
| safeguards that were taken out, and the test that failed | 3 in rotation | all | $(grep "^suite=mutants commit=$mutants_commit " "$results" | tests/chaos/last_of mutant | grep -c ' caught=1 ') of $(find tests/mutants -name '*.patch' | wc -l) (${mutants_commit:0:7}) |

What copies of every chunk and leases cost a step is measured by \`make bench\` ([performance.md](performance.md): at most a tenth).
$(unequal)
A run counts if its fault struck an open step or an open row range and a counter that belongs to the fault moved. Runs on
$(grep -oE ' workers=[0-9]+' <<<"$lines" | sort -t= -k2n | uniq -c | awk '{sub("workers=", "", $2); printf "%s%s workers: %d", (NR > 1 ? ", " : ""), $2, $1}').

## What the faults did

| fault | runs | struck | count | equal |
|---|---|---|---|---|
EOF
awk '{f = h = c = q = ""; for (i = 1; i <= NF; i++) {split($i, kv, "="); if (kv[1] == "fault") f = kv[2]; if (kv[1] == "hit") h = kv[2]; if (kv[1] == "counted") c = kv[2]; if (kv[1] == "equal") q = kv[2]}
    if (f != "") {n[f]++; hit[f] += h; cnt[f] += c; eq[f] += q}} END {for (f in n) {g = f; gsub("_", " ", g); printf "| %s | %d | %d | %d | %d |\n", g, n[f], hit[f], cnt[f], eq[f]}}' <<<"$lines" | sort
printf '\n## Counters, summed over these runs\n\n| counter | sum | runs in which it moved |\n|---|---|---|\n'
for k in "${counters[@]}"; do
    grep -oE " $k=[0-9]+" <<<"$lines" | awk -F= -v k="$k" '{s += $2; n += $2 > 0} END {printf "| %s | %d | %d |\n", k, s, n}'
done
printf '\n## Every suite\n'
for name in $(grep "^suite=run " "$results" | grep -oE ' name=[a-z_]+' | cut -d= -f2 | awk '!seen[$0]++'); do
    line=$(figure_of "$name")
    head=${line%% figures=*}
    rc=$(grep -oE ' rc=[0-9]+' <<<"$head" | cut -d= -f2)
    printf '\n**%s** (commit %s, size %s): %s, %s s\n\n' "$name" "$(grep -oE ' commit=[^ ]+' <<<"$head" | cut -d= -f2)" "$(grep -oE ' size=[^ ]+' <<<"$head" | cut -d= -f2)" "$([ "$rc" = 0 ] && echo passed || echo "FAILED with $rc")" "$(grep -oE ' seconds=[0-9]+' <<<"$head" | cut -d= -f2)"
    sed 's/.* figures=//' <<<"$line" | tr '|' '\n' | sed '/^$/d; s/^/    /'
done
missing=$(grep -hoE "^suite=missing commit=$chaos_commit .*" "$results" | grep -oE 'what=[a-z]+' | sort | uniq -c | awk '{sub("what=", "", $2); printf "%s%s (%d runs)", (NR > 1 ? ", " : ""), $2, $1}')
cat <<EOF

Facilities that this machine lacked: ${missing:-none}.

## Not promised

* A coordinator that is always there: one process decides. It is back within seconds, what was acknowledged is there, and workers go on meanwhile.
* Anything on a disk that says "synced" and lies, or that loses what was synced.
* The right bits when most of those who are asked about a gradient collude, or, without \`audit\`, when one worker computes wrongly and nobody computes the same again.
* The same bits with \`--kernels openblas\`, which follow the family of processors: such workers are told apart by their fingerprint, and a strict job runs on workers of one class only, that of those which it began on.
* More than a rollback to the last checkpoint when a parameter host and the one with its copy are lost together.
EOF
