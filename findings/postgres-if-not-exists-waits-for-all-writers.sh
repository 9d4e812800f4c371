#!/usr/bin/env bash
# PostgreSQL: `CREATE INDEX IF NOT EXISTS` for an index that is there waits for whoever is writing to the table, and has
# everybody else wait meanwhile.
#
# Version:   PostgreSQL 15 (Debian 12).
# Expected:  it looks whether the index is there, says "already exists, skipping", and that is all: which is why it stands
#            in what a program does at each start. `CREATE TABLE IF NOT EXISTS` is like that.
# Seen:      it takes the lock for making an index first, and looks then. The lock waits for each transaction that has
#            written to the table and is not over, for a VACUUM, for a CREATE INDEX CONCURRENTLY; and all who come to write
#            meanwhile stand in line behind it, though they would not be in the way of the transaction. `ALTER TABLE …
#            ADD COLUMN IF NOT EXISTS` waits for readers as well, and readers stand in line behind it.
#            `CREATE INDEX CONCURRENTLY IF NOT EXISTS` waits for no writer.
# Matters:   a deploy, or a process that is started anew, beside one transaction that somebody has left open, or a VACUUM
#            of a large table, stops all saves of all processes until that is over, to make an index that was made a
#            year ago. Ask the catalogue first, or make indexes once, in migrations, with a `lock_timeout`.
# Source:    https://www.postgresql.org/docs/15/sql-createindex.html says of IF NOT EXISTS that "a notice is issued"; the lock
#            is taken in src/backend/commands/indexcmds.c, DefineIndex, before the name is looked at.
set -euo pipefail

bin=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -1)
[ -x "$bin/initdb" ] || { echo "PostgreSQL is missing: apt-get install postgresql"; exit 2; }
T=$(mktemp -d)
P=()
trap 'kill -s INT "${P[@]}" 2>/dev/null || true; wait; rm -rf "$T"' EXIT
"$bin/postgres" --version

mkdir "$T/db"
as=()
# PostgreSQL does not run as root.
[ "$(id -u)" != 0 ] || { chmod 755 "$T"; chown nobody "$T/db"; as=(setpriv --reuid=nobody --regid=nogroup --clear-groups); }
cd "$T/db"
"${as[@]}" "$bin/initdb" -D "$T/db" -A trust -U postgres --no-sync --no-locale >/dev/null
"${as[@]}" "$bin/postgres" -D "$T/db" -k "$T/db" -c listen_addresses= >"$T/log" 2>&1 &
P+=($!)
ask() { "$bin/psql" -X -q -t -A -h "$T/db" -U postgres -c "SET client_min_messages = error" "$@" 2>&1; }
for _ in $(seq 100); do ask -c "SELECT 1" >/dev/null && break || sleep 0.1; done
ask -c "CREATE TABLE session (id int PRIMARY KEY, expires int)" -c "CREATE INDEX session_expires ON session (expires)" \
    -c "INSERT INTO session VALUES (1, 1), (2, 2)"

# Each attempt has a second to get its locks.
attempt() {
    local answer
    answer=$(ask -c "SET lock_timeout = '1s'" -c "$1") || true
    case $answer in *"lock timeout"*) answer=waits ;; *ERROR*) ;; *) answer=done ;; esac
    printf '    %-75s %s\n' "$1" "$answer"
    seen+=("$answer")
}
waits() { ask -c "SELECT count(*) FROM pg_locks WHERE NOT granted"; }
MAKE="CREATE INDEX IF NOT EXISTS session_expires ON session (expires)"
ADD="ALTER TABLE session ADD COLUMN IF NOT EXISTS expires int"
seen=()
echo "while nobody writes:"
attempt "$MAKE"

ask -c "BEGIN" -c "UPDATE session SET expires = 9 WHERE id = 1" -c "SELECT pg_sleep(600)" >/dev/null &
for _ in $(seq 100); do [ "$(ask -c "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'")" = 0 ] || break; sleep 0.1; done
echo "while a transaction that has saved session 1 is open:"
attempt "UPDATE session SET expires = 3 WHERE id = 2"
attempt "CREATE TABLE IF NOT EXISTS session (id int)"
attempt "$MAKE"
attempt "${MAKE/INDEX/INDEX CONCURRENTLY}"
attempt "$ADD"
for waiting in "$MAKE" "$ADD"; do
    ask -c "$waiting" >/dev/null &
    for _ in $(seq 100); do [ "$(waits)" = 0 ] || break; sleep 0.1; done
    echo "and while this waits: $waiting"
    attempt "UPDATE session SET expires = 3 WHERE id = 2"
    attempt "SELECT expires FROM session WHERE id = 2"
    ask -c "SELECT pg_cancel_backend(pid) FROM pg_locks WHERE NOT granted" >/dev/null
    for _ in $(seq 100); do [ "$(waits)" != 0 ] || break; sleep 0.1; done
done
ask -c "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'PgSleep'" >/dev/null

if [ "${seen[*]}" = "done done done waits done waits waits done waits waits" ]; then
    echo "as described: it waits for the writers, and the others for it"
else
    echo "CHANGED: it no longer behaves as described"
    exit 1
fi
