#!/usr/bin/env bash
# One round of peer_gearman against a gearmand of its own, on loopback.  usage: peer_gearman.sh PEERS memory|sqlite     (LD_LIBRARY_PATH is set)
set -u
dir=$(mktemp -d /tmp/steer-gearman.XXXXXX)
port=$((20000 + RANDOM % 10000)) tasks=10000 more=''
[ "$2" = memory ] || { tasks=2000 more="-q libsqlite3 --libsqlite3-db $dir/queue.db"; }
"$1/debian/usr/sbin/gearmand" -L 127.0.0.1 -p $port -l "$dir/log" -P "$dir/pid" $more >"$dir/out" 2>&1 &
server=$!
sleep 1
"$1/peer_gearman" $port $tasks
kill $server
wait $server 2>/dev/null
rm -rf "$dir"
