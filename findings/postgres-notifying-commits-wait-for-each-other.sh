#!/usr/bin/env bash
# PostgreSQL: a commit that has notified somebody waits for every other commit that does, in whatever database.
#
# Version:   PostgreSQL 15 (Debian 12).
# Expected:  NOTIFY puts a message for a channel of this database into a queue. Two transactions of different
#            applications, with different tables and channels, have nothing to do with each other, and at the most meet
#            for the moment in which the messages are put there.
# Seen:      each takes a lock that the whole server has once, at its COMMIT, and keeps it until the commit is done: until
#            it is on the disk, and at a synchronous standby. So of all commits with a NOTIFY (or a trigger's
#            `pg_notify`) one is written at a time, and none shares the write of another. While one waits for a standby
#            that is away, a bare NOTIFY in another database, on another channel, that nobody listens to, and whose
#            client asked for no standby (`synchronous_commit = off`), waits as well. What does not notify goes on.
# Matters:   a store whose triggers tell the caches of other processes of each save has as many saves a second as the
#            disk has writes, and one slow commit by any other application on the server holds up all of them; in its
#            own tables there is no lock to be seen. Notify for what has to be known at once only, and save more than
#            one session in a transaction.
# Source:    https://www.postgresql.org/docs/15/sql-notify.html does not mention it; the lock is taken in
#            src/backend/commands/async.c, PreCommit_Notify, so that messages are in the order of the commits.
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
ask() { "$bin/psql" -X -q -t -A -h "$T/db" -U postgres -d "$1" -c "SET lock_timeout = '2s'" "${@:2}" 2>&1; }
for _ in $(seq 100); do ask postgres -c "SELECT 1" >/dev/null && break || sleep 0.1; done
for database in shop other; do
    ask postgres -c "CREATE DATABASE $database" >/dev/null
    ask "$database" -c "CREATE TABLE session (id int)"
done

# Each attempt has two seconds to get its locks, and asks for no standby.
attempt() {
    local answer
    answer=$(ask other -c "SET synchronous_commit = off" -c "$1") && [ -z "$answer" ] && answer="done"
    echo "    in another database, $1: $answer"
    seen+=("$answer")
}
SAVE="INSERT INTO session VALUES (1)"
attempts() { attempt "$SAVE"; attempt "NOTIFY other"; attempt "BEGIN; $SAVE; NOTIFY other; COMMIT"; }
waits() { ask postgres -c "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"; }

# From here on whoever commits in the shop's database waits for a standby that is not there.
ask postgres -c "ALTER SYSTEM SET synchronous_standby_names = 'away'" -c "SELECT pg_reload_conf()" >/dev/null
held=()
for commit in "BEGIN; $SAVE; COMMIT" "BEGIN; $SAVE; NOTIFY shop; COMMIT"; do
    # In case the server has not yet read its new setting, once more.
    for _ in $(seq 20); do
        ask shop -c "$commit" >/dev/null 2>&1 &
        client=$!
        for _ in $(seq 20); do [ "$(waits)" = 0 ] || break 2; kill -0 "$client" 2>/dev/null || break; sleep 0.1; done
    done
    seen=()
    echo "while a standby is waited for by $commit"
    attempts
    held+=("$(IFS="|"; echo "${seen[*]}")")
    ask postgres -c "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'" >/dev/null
    wait "$client" || true
done
lock="ERROR:  canceling statement due to lock timeout"
if [ "${held[0]}" = "done|done|done" ] && [ "${held[1]}" = "done|$lock|$lock" ]; then
    echo "as described: those that notify wait for one another"
else
    echo "CHANGED: it no longer behaves as described"
    exit 1
fi
