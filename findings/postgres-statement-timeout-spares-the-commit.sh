#!/usr/bin/env bash
# PostgreSQL: `statement_timeout` does not hold while a commit waits for its standby, and a cancelled commit is a success.
#
# Version:   PostgreSQL 15.18 (Debian 12).
# Expected:  with `statement_timeout = 1s` no statement takes longer, an INSERT by itself included: if it has to wait for
#            a synchronous standby that is away, it is an error after a second. Who cancels it gets an error as well, and
#            nothing has been written.
# Seen:      the timeout is turned off before the transaction is committed. The INSERT waits for the standby without a
#            limit, and so does a COMMIT. Meanwhile its row is seen by nobody. `pg_cancel_backend` ends the waiting, but as
#            a success: "INSERT 0 1", with a warning, and everybody sees the row. If the client goes, the waiting goes on.
# Matters:   who has relied on `statement_timeout` to bound what a request takes has each login and each save wait for
#            ever when the standby goes. A client that gives up by itself, and connects anew, leaves one of the server's
#            connections waiting each time, up to `max_connections`, and does not know what became of its write: the row
#            is on the server's disk, will be there when the standby is back or the server starts anew, and until then
#            whoever writes it again waits behind the first. Have sessions wait for no standby (`synchronous_commit =
#            local` for their role), or give calls a time limit in the client, and let a write know itself.
# Source:    https://www.postgresql.org/docs/15/runtime-config-client.html#GUC-STATEMENT-TIMEOUT does not mention it;
#            src/backend/tcop/postgres.c, finish_xact_command: "cancel active statement timeout after each command".
set -euo pipefail

bin=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | tail -1)
[ -n "$bin" ] || { echo "PostgreSQL is missing: apt-get install postgresql"; exit 2; }
command -v python3 >/dev/null || { echo "python3 is missing: apt-get install python3"; exit 2; }
T=$(mktemp -d)
as=()
if [ "$(id -u)" = 0 ]; then
    chown nobody "$T"
    as=(setpriv --reuid=nobody --regid=nogroup --clear-groups)
fi
P=()
# Immediately: a backend that waits for a standby would go on.
trap '"${as[@]}" "$bin/pg_ctl" -D "$T/data" -m immediate stop >/dev/null 2>&1 || true; kill "${P[@]}" 2>/dev/null || true; wait; rm -rf "$T"' EXIT
"$bin/postgres" --version

port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
"${as[@]}" "$bin/initdb" -D "$T/data" -U tester -A trust >/dev/null
"${as[@]}" "$bin/pg_ctl" -D "$T/data" -w -l "$T/log" -o "-p $port -c listen_addresses=127.0.0.1 \
    -c unix_socket_directories=$T -c synchronous_standby_names=away" start >/dev/null

# One statement; the connection has a statement_timeout of one second.
ask() {
    PGOPTIONS="-c statement_timeout=1s" psql -h 127.0.0.1 -p "$port" -U tester -X -q -A -t -d postgres -c "$1" 2>&1
}
waiting() { ask "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"; }
rows() { ask "SELECT coalesce(string_agg(id, ' ' ORDER BY id), 'none') FROM sessions"; }
ask "BEGIN; SET LOCAL synchronous_commit = local; CREATE TABLE sessions (id text PRIMARY KEY); COMMIT"

changed=0
expect() {
    echo "$1: $2"
    [ "$2" = "$3" ] || changed=1
}
slow=$(ask "SELECT pg_sleep(5)" || true)
expect "a SELECT of five seconds" "$slow" "ERROR:  canceling statement due to statement timeout"

ask "INSERT INTO sessions VALUES ('one')" >"$T/one" &
P+=($!)
ask "BEGIN; INSERT INTO sessions VALUES ('two'); COMMIT" >"$T/two" &
P+=($!)
sleep 4
expect "statements that wait after four seconds" "$(waiting)" 2
expect "rows that others see" "$(rows)" none

ask "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'" >/dev/null
code=0
for job in "${P[@]}"; do
    wait "$job" || code=$?
done
P=()
expect "the two clients that were cancelled ended with" "$code" 0
expect "one of them was told" "$(head -1 "$T/one")" "WARNING:  canceling wait for synchronous replication due to user request"
expect "rows that others see now" "$(rows)" "one two"

# Its client is killed after a second.
(timeout -s KILL 1 psql -h 127.0.0.1 -p "$port" -U tester -X -q -d postgres \
    -c "SET statement_timeout = '1s'" -c "INSERT INTO sessions VALUES ('three')" || true) 2>/dev/null
sleep 4
expect "statements that wait although their client has gone" "$(waiting)" 1

if [ "$changed" = 0 ]; then
    echo "as described: no timeout for a commit, and a cancelled one has happened"
else
    echo "CHANGED: it no longer behaves as described"
    exit 1
fi
