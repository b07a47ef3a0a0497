# Sourced by tests/chaos/run: looks into a running cluster and disturbs it. Built on tests/lib/cluster.sh; `place` gives every daemon a network
# namespace of its own where the plan wants cuts.
. tests/lib/cluster.sh

export STEER_RESPREAD_MS=${STEER_RESPREAD_MS:-200} # hosts change as soon as somebody comes
. tests/chaos/counters.sh
declare -A sum=() last=() before=() names=() struck=() expected_dead=() roles=()
faults='' notes=''

say() { notes+="  $(($(date +%s%3N) - born)) ms: $*"$'\n'; }
rnd() { # lo hi
    rolled=$(($1 + RANDOM % ($2 - $1 + 1)))
}
now_ms() { now=$((${EPOCHREALTIME/./} / 1000)); }

# ---- networks: one namespace for the coordinator with a bridge, one for each worker behind a veth pair ----------------------------------
net=0 net_id=$((BASHPID % 100000))
net_spaces=()
net_probe() { [ "$(id -u)" -eq 0 ] && command -v nft ip nsenter >/dev/null && ip netns add "st$net_id-p" 2>/dev/null && ip netns del "st$net_id-p"; }
space() { echo "st$net_id-$1"; }
net_open() { # before the coordinator starts
    local s
    s=$(space c)
    net=1 address=10.77.0.1
    export STEER_TOKEN=chaos-$seed-secret-of-the-team
    ip netns add "$s" && net_spaces+=("$s")
    nsenter --net="/run/netns/$s" sh -c "ip link set lo up && ip link add name br0 type bridge && ip link set br0 up && ip addr add $address/24 dev br0"
}
net_join() { # worker, number
    local s c
    s=$(space "$1") c=$(space c)
    [ -e "/run/netns/$s" ] && return
    ip netns add "$s" && net_spaces+=("$s")
    ip link add name eth0 netns "$s" type veth peer name "v$2" netns "$c"
    nsenter --net="/run/netns/$c" sh -c "ip link set v$2 master br0 && ip link set v$2 up"
    nsenter --net="/run/netns/$s" sh -c "ip link set lo up && ip addr add 10.77.0.$(($2 + 1))/24 dev eth0 && ip link set eth0 up && nft add table inet cut &&
        nft add chain inet cut in '{ type filter hook input priority 0; }' && nft add chain inet cut out '{ type filter hook output priority 0; }'"
}
net_cut() { # worker in|out|both|loss
    local s=/run/netns/$(space "$1") rule=drop
    [ "$2" = loss ] && rule='numgen random mod 100 \< 40 drop' # for sh
    nsenter --net="$s" sh -c "[ $2 = out ] || nft add rule inet cut in iif eth0 $rule; [ $2 = in ] || nft add rule inet cut out oif eth0 $rule"
}
net_heal() { nsenter --net="/run/netns/$(space "$1")" nft flush table inet cut; }
net_close() {
    local s
    for s in "${net_spaces[@]}"; do ip netns del "$s" 2>/dev/null; done
}

# ---- daemons ------------------------------------------------------------------------------------------------------------------------------
place() { # worker: sets enter and where, its place in the network
    enter='' where=''
    [ $net -eq 1 ] || return 0
    if [ "$1" != c ]; then
        [ -n "${number[$1]:-}" ] || number[$1]=$((++numbers))
        net_join "$1" "${number[$1]}"
        where="--listen tcp://10.77.0.$((number[$1] + 1)):0"
    fi
    enter="nsenter --net=/run/netns/$(space "$1")"
}
declare -A number=()
numbers=0
launch() { # worker [fault]: with the roles and threads that the plan gave it. The seed draws the ids, so that it tells who leads
    place "$1"
    if [[ $1 =~ ^w[0-9]$ ]] && [ ! -e "$wdir/$1/worker.id" ]; then
        mkdir -p "$wdir/$1"
        printf 'w%08x0000000%s' $((RANDOM * 32768 + RANDOM)) "${1#w}" >"$wdir/$1/worker.id"
    fi
    if [ -n "${2:-}" ]; then
        STEER_FAULT=$2 worker "$1" "${threads[$1]:-1}" --roles "${roles[$1]:-compute,params}" $where
        faulted[$1]=1
    else
        worker "$1" "${threads[$1]:-1}" --roles "${roles[$1]:-compute,params}" $where
        unset "faulted[$1]"
    fi
    enter=''
}
declare -A threads=() faulted=()
launch_coordinator() { # [fault]
    place c
    if [ -n "${1:-}" ]; then STEER_FAULT=$1 coordinator; faulted[c]=1; else coordinator; unset "faulted[c]"; fi
    enter=''
}
counters_keep() { # the coordinator is about to go: what it counted counts on
    local k
    for k in "${counters[@]}"; do sum[$k]=$((${sum[$k]:-0} + ${last[$k]:-0})) last[$k]=0; done
}

# ---- looking ------------------------------------------------------------------------------------------------------------------------------
get() { # path
    if [ $net -eq 1 ]; then nsenter --net="/run/netns/$(space c)" curl -s -m 3 -H "Authorization: Bearer $STEER_TOKEN" "http://$http$1"
    else curl -s -m 3 "http://$http$1"; fi
}
count() { # reads the counters; keeps what was known when nobody answers
    local text k
    text=$(get /v1/info)
    for k in "${counters[@]}"; do [[ $text =~ \"$k\":([0-9]+) ]] && last[$k]=${BASH_REMATCH[1]}; done
}
counted() { echo $((${sum[$1]:-0} + ${last[$1]:-0})); }
look() { # job: sets state, version (of its open session, else 0), rows, hosts (ids, leader first), text
    text=$(get "/v1/jobs/$1")
    state=''
    [ -n "$text" ] || return 0 # nobody answers: what was known stays
    version=0 rows=0 hosts=()
    [[ $text =~ \"state\":\"([A-Z]+)\",\"version\":[0-9]+,\"workers\" ]] && state=${BASH_REMATCH[1]}
    if [[ $text =~ \"shards\":\[([^]]+)\] ]]; then
        local shards=${BASH_REMATCH[1]}
        while [[ $shards =~ \"worker\":\"([^\"]+)\"(.*) ]]; do hosts+=("${BASH_REMATCH[1]}") shards=${BASH_REMATCH[2]}; done
        [[ $text =~ \"tokens_per_s\":[^,]*,\"version\":([0-9]+)\} ]] && version=${BASH_REMATCH[1]}
    fi
    [[ $text =~ \"phase\":\"generate.rows\",\"rate_per_s\":[^,]*,\"total\":([0-9]+) ]] && [[ $text =~ \"progress\":\{\"done\":([0-9]+) ]] && rows=${BASH_REMATCH[1]}
}
name_of() { # worker id: the name under which it was started
    local f
    for f in "$wdir"/*/worker.id; do [ "$(cat "$f")" = "$1" ] && { f=${f%/worker.id}; echo "${f##*/}"; return; }; done
}
roster() { # sets workers_text; is_ready NAME and running NAME read it
    workers_text=$(get /v1/workers)
}
entry() { # worker: its object in workers_text
    grep -oE '\{[^{}]*"name":"'"$1"'"[^{}]*\}' <<<"$workers_text" | tail -1
}
