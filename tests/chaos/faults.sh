# The faults of tests/chaos/run. Of each: plan_NAME sets the cluster that it needs (workers_of: how many workers; host_n: how many of them may be
# parameter hosts; target: train or rows; with[]: failpoints that daemons start with; disk: size of the coordinator's) and expect, the counters
# of which one must move; by_itself: it strikes when its failpoint does, not before; strike_NAME does it. What has to be healed or started again is put off with `later`.
fault_names=(kill_worker kill_host kill_leader kill_alone kill_buddies kill_everybody kill_coordinator coordinator_away stop_short stop_long
    cut_both cut_one_way cut_flapping lossy_network join_host leave_host leave_leader disk_full slow_worker hung_worker corrupt_gradient
    damaged_push damaged_messages corrupt_rows torn_checkpoint foreign_worker failpoint_worker failpoint_host failpoint_coordinator late_answer rows_killed rows_stopped
    rows_hung rows_coordinator)

# ---- who -----------------------------------------------------------------------------------------------------------------------------------
host() { name_of "${hosts[$1]:-}"; } # the n-th host
alive() { # name: it has a process
    [ -n "${pid[$1]:-}" ]
}
kill9() {
    say "kill -9 $1"
    end KILL "$1"
}
again() { # a killed worker comes back, after a while, as a new process
    later $((RANDOM % 2500)) launch "$1"
}
noticed() { # from now on: how long until the coordinator says that this worker is lost; it comes back then (both by watch_lost)
    now_ms
    lost_who=$1 lost_at=$now
}
lost_who='' lost_at=0 measured=''
watch_lost() {
    [ -n "$lost_who" ] || return 0
    roster
    [[ $(entry "$lost_who") =~ \"state\":\"LOST\" ]] || return 0
    now_ms
    grep -q clock.gap "$dir/coordinator.log" || measured+=" noticed_ms=$((now - lost_at))" # who was kept waiting itself gives everybody time
    launch "$lost_who"
    lost_who=''
}
running_one() { # a worker that runs a range now, if any
    local i
    roster
    for i in $(seq "$workers"); do [[ $(entry "w$i") =~ \"running\":[1-9] ]] && { echo "w$i"; return; }; done
}
strikes_in_log() { log_of=$1; } # worker: run looks for the fault in its log
log_of='' odd=''
second() { # with luck, something else on top, harmless to what the first is expected to move
    rnd 0 5
    case $rolled in
    0) later $((RANDOM % 4000)) coordinator_blinks ;;
    1) later $((RANDOM % 3000)) joins "x$((workers + 1))" compute ;;
    2) later $((RANDOM % 3000)) pauses "w$workers" $((200 + RANDOM % 1000)) ;;
    esac
}
coordinator_blinks() {
    alive c || return 0
    count
    counters_keep
    kill9 c
    later $((RANDOM % 800)) launch_coordinator
}
joins() { # name roles
    roles[$1]=$2
    launch "$1"
}
pauses() { # name ms: shorter than what makes it lost
    alive "$1" || return 0
    end STOP "$1"
    later "$2" resumes "$1"
}
resumes() { ! alive "$1" || end CONT "$1"; }

# ---- nothing -------------------------------------------------------------------------------------------------------------------------------
plan_none() { :; }
strike_none() { :; }

# ---- kill -9 -------------------------------------------------------------------------------------------------------------------------------
plan_kill_worker() { workers_of=(2 4 7) host_n=1 expect='recomputed|overtaken'; }
strike_kill_worker() { kill9 "w$workers"; noticed "w$workers"; [ "$workers" -gt 2 ] && second; }
watch_kill_worker() { watch_lost; }
plan_kill_host() { workers_of=(2 4 7) host_n=3 expect='promoted|rolled_back'; }
strike_kill_host() { local h; h=$(host 1); kill9 "$h"; again "$h"; second; }
plan_kill_leader() { workers_of=(2 4 7) host_n=3 expect='promoted|rolled_back'; }
strike_kill_leader() { local h; h=$(host 0); kill9 "$h"; again "$h"; second; }
plan_kill_alone() { workers_of=(1) expect='rolled_back'; }
strike_kill_alone() { kill9 w1; again w1; }
plan_kill_buddies() { workers_of=(4 7) host_n=3 expect=rolled_back; }
strike_kill_buddies() { # a host and who has the copy of its chunks
    local a b i=$((RANDOM % 3))
    a=$(host $i) b=$(host $(((i + 1) % 3)))
    kill9 "$a"; kill9 "$b"; again "$a"; again "$b"
}
plan_kill_everybody() { workers_of=(1 2 4) expect=rolled_back; rnd 30 90; strike_at=$rolled; }
strike_kill_everybody() {
    local i
    counters_keep
    kill9 c
    for i in $(seq "$workers"); do kill9 "w$i"; again "w$i"; done
    later $((RANDOM % 1000)) launch_coordinator
}
plan_kill_coordinator() { workers_of=(1 2 4 7) expect=adopted; }
strike_kill_coordinator() { counters_keep; kill9 c; later $((RANDOM % 800)) launch_coordinator; }
plan_coordinator_away() { workers_of=(1 2 4 7) expect='adopted|rolled_back'; }
strike_coordinator_away() { counters_keep; kill9 c; later 4500 launch_coordinator; }

# ---- stopped and continued -----------------------------------------------------------------------------------------------------------------
plan_stop_short() { workers_of=(2 4 7) expect='recomputed|promoted|rolled_back|overtaken'; rnd 0 1; [ $rolled -eq 1 ] || host_n=1; }
strike_stop_short() { end STOP "w$workers"; later 4500 resumes "w$workers"; }
plan_stop_long() { workers_of=(2 4) expect='recomputed|promoted|rolled_back|overtaken'; rnd 0 1; [ $rolled -eq 1 ] || host_n=1; }
strike_stop_long() { end STOP "w$workers"; later 12000 resumes "w$workers"; }

# ---- the network ---------------------------------------------------------------------------------------------------------------------------
network() { if net_probe; then net_open; else echo "chaos: missing netns"; exit 77; fi; }
heals() { net_heal "$1"; }
plan_cut_both() { workers_of=(2 4) expect='recomputed|promoted|rolled_back|duplicate|stale|overtaken'; network; }
strike_cut_both() { net_cut "w$workers" both; later 5000 heals "w$workers"; }
plan_cut_one_way() { workers_of=(2 4) expect='recomputed|promoted|rolled_back|duplicate|stale|overtaken'; network; }
strike_cut_one_way() { rnd 0 1; if [ $rolled -eq 0 ]; then net_cut "w$workers" in; else net_cut "w$workers" out; fi; later 5000 heals "w$workers"; }
plan_cut_flapping() { workers_of=(2 4) expect='recomputed|promoted|rolled_back|duplicate|stale|overtaken'; network; }
strike_cut_flapping() {
    local i
    for i in 0 1 2 3 4; do
        later $((i * 2200)) net_cut "w$workers" both
        later $((i * 2200 + 1000 + RANDOM % 1000)) heals "w$workers"
    done
}
plan_lossy_network() { workers_of=(2 4) expect='recomputed|promoted|rolled_back|duplicate|stale|overtaken'; network; }
strike_lossy_network() { net_cut "w$workers" loss; later 10000 heals "w$workers"; }

# ---- coming and going ----------------------------------------------------------------------------------------------------------------------
plan_join_host() { workers_of=(1 2 4) expect=respread; rnd 5 20; strike_at=$rolled; }
strike_join_host() { joins "j$((workers + 1))" compute,params; }
leaves() {
    leaving[$1]=1
    kill -TERM "${pid[$1]}"
}
plan_leave_host() { workers_of=(2 4 7) host_n=3 expect='respread|promoted'; rnd 5 40; strike_at=$rolled; }
strike_leave_host() { leaves "$(host 1)"; }
plan_leave_leader() { workers_of=(2 4 7) host_n=3 expect='respread|promoted'; rnd 5 40; strike_at=$rolled; }
strike_leave_leader() { leaves "$(host 0)"; }

# ---- the disk ------------------------------------------------------------------------------------------------------------------------------
plan_disk_full() { # a tmpfs of its own for the coordinator
    workers_of=(1 2 4) expect=parked disk=64m
    rnd 5 20
    strike_at=$rolled
    [ "$(id -u)" -eq 0 ] || { echo "chaos: missing tmpfs"; exit 77; }
}
strike_disk_full() {
    dd if=/dev/zero of="$top/run/filler" bs=64k >/dev/null 2>&1
    filled=1
    later 12000 frees
}
filled=0
frees() { rm -f "$top/run/filler"; filled=0; }
watch_disk_full() { # long enough full as soon as somebody noticed
    [ $filled -eq 1 ] && [ "$(counted parked)" -gt "${before[parked]}" ] && { filled=0; later $((RANDOM % 2000)) frees; }
}

# ---- slow, hung, lying -----------------------------------------------------------------------------------------------------------------------
plan_slow_worker() { by_itself=1 workers_of=(2 4 7) host_n=1 expect=overtaken; with[w2]=worker.compute.slow:30:sleep=1200:every strike_at=1; }
strike_slow_worker() { strikes_in_log w2; later 6000 replaced w2; }
plan_hung_worker() { by_itself=1 workers_of=(2 4 7) host_n=1 expect=overtaken; with[w2]=worker.compute.hang:40 strike_at=1; }
strike_hung_worker() { strikes_in_log w2; later 12000 replaced w2; }
watch_hung_worker() { # from the moment that its thread hangs until its units are somebody else's
    if [ -z "${hung_at:-}" ]; then
        grep -q 'fault worker.compute.hang' "$wdir/w2.log" || return 0
        now_ms
        hung_at=$now hung_over=$(counted overtaken)
    elif [ -z "$measured" ]; then
        count
        [ "$(counted overtaken)" -gt "$hung_over" ] || return 0
        now_ms
        measured+=" overtaken_ms=$((now - hung_at))"
    fi
}
replaced() { # a worker that is no good any more is killed, and starts again without its fault
    ! alive "$1" || kill9 "$1"
    launch "$1"
}
plan_corrupt_gradient() { # every gradient is audited: what one worker says alone cannot be known to be wrong
    by_itself=1
    workers_of=(4 7) host_n=1 expect='disputed|quarantined' train_options='--set audit=1' strike_at=1 odd=w2
    rnd 20 80
    with[w2]=worker.grad.corrupt:$rolled:every
}
strike_corrupt_gradient() { strikes_in_log w2; }
plan_damaged_push() { # every worker, once
    by_itself=1 strike_at=1
    workers_of=(2 4 7) expect=damaged
    rnd 10 200
    with[all]=ps.push.damage:$rolled
}
strike_damaged_push() { strikes_in_log w1; }
plan_damaged_messages() { # one or two in a thousand, of whatever anybody says to anybody
    by_itself=1 strike_at=1
    workers_of=(2 4 7) expect=bad_frames
    rnd 20 200
    with[all]=net.message.damage:$rolled:every=600 with[c]=net.message.damage:5:every=20
}
strike_damaged_messages() { strikes_in_log w1; }
# Everything that the rows job does is audited. The other job is not, so that it waits until who lies is gone: else its examples could be wrong.
plan_corrupt_rows() {
    by_itself=1
    workers_of=(4 7) target=rows expect='disputed|quarantined' rows_options='--set audit=1' strike_at=1 odd=w2 alone=1
    rnd 2 5
    with[all]=$rows_slow with[w2]=worker.rows.corrupt:$rolled:every,$rows_slow
}
strike_corrupt_rows() { strikes_in_log w2; }
watch_corrupt_rows() { ! { finished "$rows_state" && alive w2; } || kill9 w2; }
plan_torn_checkpoint() { workers_of=(1 2) expect=fallback; rnd 55 90; strike_at=$rolled; }
strike_torn_checkpoint() { # the newest checkpoint's first chunk gets another byte, and everybody who had it in memory is gone
    local m chunk i
    [[ $text =~ \"checkpoint\":\"([0-9a-f]{64})\" ]] || return 0
    m=${BASH_REMATCH[1]}
    chunk=$(grep -oE '"chunks":\[[^]]*' "$dir/blobs/${m:0:2}/${m:2}" | grep -oE '[0-9a-f]{64}' | head -1)
    for i in $(seq "$workers"); do kill9 "w$i"; rm -rf "$wdir/w$i/cache"; again "w$i"; done
    chmod u+w "$dir/blobs/${chunk:0:2}/${chunk:2}"
    printf 'x' | dd of="$dir/blobs/${chunk:0:2}/${chunk:2}" bs=1 seek=9 conv=notrunc 2>/dev/null
}
plan_foreign_worker() { workers_of=(1 2 4) expect=refused; rnd 5 20; strike_at=$rolled; }
strike_foreign_worker() { # its matrix products take another path, so its bits differ
    left_with[f]=0
    STEER_KERNELS=openblas worker f 1 --roles compute ${where:-}
}

# ---- at named places -------------------------------------------------------------------------------------------------------------------------
points() { # of which daemon, pattern: their names
    "$bin/$1" --faults | awk -F'\t' -v p="$2" '$1 ~ p && $3 != "deed" {print $1}'
}
draw() { # from the lines of stdin; sets drawn
    mapfile -t lines
    drawn=${lines[RANDOM % ${#lines[@]}]}
}
plan_failpoint_worker() {
    by_itself=1
    workers_of=(2 4 7) host_n=1 expect='recomputed|duplicate'
    draw < <(points steer-worker '^ps[.]push[.](before|after)$')
    rnd 5 120
    with[w2]=$drawn:$rolled
    strike_at=1
}
strike_failpoint_worker() { :; }
plan_failpoint_host() {
    by_itself=1
    workers_of=(2 4 7) host_n=3 expect='promoted|rolled_back|recomputed'
    draw < <(points steer-worker '^ps[.](roots|close|apply|chunks|replica|replica.ack|push.ack)[.]|^ckpt[.]')
    case $drawn in ckpt*) rolled=1 ;; *) rnd 5 40 ;; esac
    rnd_n=$rolled
    rnd 1 2
    case $drawn in
    ps.close* | ckpt.manifest* | ckpt.report*) with[all]=$drawn:$rnd_n ;; # only who leads comes by
    *) with[w$rolled]=$drawn:$rnd_n ;;
    esac
    strike_at=1
}
strike_failpoint_host() { :; }
plan_failpoint_coordinator() {
    by_itself=1
    workers_of=(1 2 4 7) expect='adopted|rolled_back|recomputed|stale|fenced'
    # Places that are come by while steps are open: checkpoints arrive, and the journal is written.
    draw < <(points steer-coordinator '^(session[.]ack|journal[.]commit)[.]|^artifact[.]put[.]after$')
    case $drawn in
    session*) rnd 1 3 ;;
    artifact*) rnd 20 50 ;;
    *) rnd 10 16 ;;
    esac
    with[c]=$drawn:$rolled
    strike_at=1
}
strike_failpoint_coordinator() { :; }
plan_late_answer() { by_itself=1 workers_of=(2 4) host_n=1 expect='duplicate|stale'; rnd 10 200; with[w1]=ps.push.ack.before:$rolled:sleep=2300; strike_at=1; }
strike_late_answer() { strikes_in_log w1; }

# ---- row ranges --------------------------------------------------------------------------------------------------------------------------------
rows_slow=task.start.before:1:sleep=250:every # a range is in somebody's hands for long enough to be struck
plan_rows_killed() { workers_of=(1 2 4) target=rows expect='recomputed|overtaken' with[all]=$rows_slow; rnd 12 96; strike_at=$rolled; }
strike_rows_killed() { local v; v=$(running_one); v=${v:-w1}; kill9 "$v"; noticed "$v"; }
watch_rows_killed() { watch_lost; }
plan_rows_stopped() { workers_of=(2 4) target=rows expect='recomputed|overtaken|stale'; with[all]=$rows_slow; rnd 12 60; strike_at=$rolled; }
strike_rows_stopped() { local v; v=$(running_one); v=${v:-w1}; end STOP "$v"; rnd 4000 12000; later $rolled resumes "$v"; }
plan_rows_hung() { by_itself=1 workers_of=(2 4) target=rows expect='overtaken|recomputed'; with[all]=$rows_slow with[w2]=worker.compute.hang:4,$rows_slow; strike_at=1; }
strike_rows_hung() { strikes_in_log w2; later 12000 replaced w2; }
plan_rows_coordinator() { workers_of=(1 2 4) target=rows expect='adopted|recomputed|stale'; with[all]=$rows_slow; }
strike_rows_coordinator() { counters_keep; kill9 c; later $((RANDOM % 1500)) launch_coordinator; }
