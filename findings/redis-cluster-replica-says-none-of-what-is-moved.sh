#!/usr/bin/env bash
# Redis Cluster: while a slot is moved to another master, its replica answers "there is none" for what has been moved.
#
# Version:   Redis 7.0.15 (Debian 12). Valkey redirects from version 8.0 on.
# Expected:  a replica that is read from (READONLY) is behind by some milliseconds, and apart from that answers as its
#            master does. The master says ASK, and where, for a key that it has handed over, and TRYAGAIN if a
#            command names one that it has handed over and one that it has not: clients follow, and nobody notices.
# Seen:      the replica does not know that its master is handing the slot over. It has seen the key go, and answers
#            that there is none: no error, and nothing that a client could follow. Until the whole slot has moved,
#            which is as long as that takes; then it says MOVED.
# Matters:   a visitor whose session is moved is a stranger while the cluster is enlarged, and an application that
#            removes cookies which lead to no session has logged the visitor out for good; a list of a user's
#            sessions that has been moved is empty, and "log out everywhere" ends none of them. Sessions, and lists of
#            them, are to be read from masters.
# Source:    https://github.com/redis/redis/issues/11312; https://github.com/valkey-io/valkey/pull/495.
#            https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/ speaks of stale data only.
set -euo pipefail

command -v redis-server >/dev/null || { echo "redis-server is missing: apt-get install redis-server"; exit 2; }
command -v python3 >/dev/null || { echo "python3 is missing: apt-get install python3"; exit 2; }
T=$(mktemp -d)
P=()
trap 'kill "${P[@]}" 2>/dev/null || true; wait; rm -rf "$T"' EXIT
redis-server --version

# Each has a second port, for the cluster.
mapfile -t ports < <(python3 - <<'END'
import socket
sockets = [socket.socket() for _ in range(6)]
for it in sockets:
    it.bind(("127.0.0.1", 0))
print(*(it.getsockname()[1] for it in sockets), sep="\n")
END
)
old=${ports[0]} new=${ports[1]} replica=${ports[2]}
for n in 0 1 2; do
    mkdir "$T/$n"
    redis-server --port "${ports[n]}" --bind 127.0.0.1 --cluster-enabled yes --cluster-port "${ports[n + 3]}" \
        --dir "$T/$n" --save "" --repl-diskless-sync-delay 0 >"$T/$n/log" &
    P+=($!)
done
at() { redis-cli -p "$@" 2>&1; }
wait_for() { # what, and a command that says so at last
    for _ in $(seq 300); do [[ "$("${@:2}")" != *$1* ]] || return 0; sleep 0.1; done
    echo "it never said $1: ${*:2}"
    exit 2
}
for port in "$old" "$new" "$replica"; do wait_for PONG at "$port" ping; done
at "$old" cluster addslotsrange 0 16383 >/dev/null
for n in 1 2; do at "${ports[n]}" cluster meet 127.0.0.1 "$old" "${ports[3]}" >/dev/null; done
for port in "$old" "$new" "$replica"; do wait_for cluster_known_nodes:3 at "$port" cluster info; done
old_id=$(at "$old" cluster myid) new_id=$(at "$new" cluster myid)
wait_for OK at "$replica" cluster replicate "$old_id"
wait_for master_link_status:up at "$replica" info replication
for port in "$old" "$replica"; do wait_for cluster_state:ok at "$port" cluster info; done

seen=()
ask() { # who, and the keys
    local answer
    answer=$(printf 'READONLY\nMGET %s\n' "${*:2}" | at "${!1}" | tail -n +2 | sed 's/^$/none/' | tr '\n' ' ')
    # The address of the redirection is another one each time.
    answer=${answer%% [0-9]*}
    answer=${answer%% Multiple*}
    answer=${answer% }
    printf '    the %-8s says of %-16s %s\n' "$([ "$1" = old ] && echo master || echo "$1")" "${*:2}" "$answer"
    seen+=("$answer")
}
replica_says() { printf 'READONLY\nGET %s\n' "$1" | at "$replica"; }
all() { ask old "{ada}1"; ask replica "{ada}1"; ask old "{ada}1" "{ada}2"; ask replica "{ada}1" "{ada}2"; }
at "$old" mset "{ada}1" one "{ada}2" two >/dev/null
wait_for two replica_says "{ada}2"
echo "before:"
all
slot=$(at "$old" cluster keyslot "{ada}1")
at "$new" cluster setslot "$slot" importing "$old_id" >/dev/null
at "$old" cluster setslot "$slot" migrating "$new_id" >/dev/null
at "$old" migrate 127.0.0.1 "$new" "{ada}1" 0 5000 >/dev/null
is_gone() { [ -z "$(replica_says "{ada}1" | tail -1)" ] && echo gone; }
wait_for gone is_gone
echo "the first of both keys has been moved to another master:"
all
at "$old" migrate 127.0.0.1 "$new" "{ada}2" 0 5000 >/dev/null
for port in "$new" "$old"; do at "$port" cluster setslot "$slot" node "$new_id" >/dev/null; done
wait_for MOVED replica_says "{ada}1"
echo "and now the whole slot:"
all

words=$(IFS="|"; echo "${seen[*]}")
if [ "$words" = "one|one|one two|one two|ASK|none|TRYAGAIN|none two|MOVED|MOVED|MOVED|MOVED" ]; then
    echo "as described: the replica says that there is none"
else
    echo "CHANGED: it no longer behaves as described: $words"
    exit 1
fi
