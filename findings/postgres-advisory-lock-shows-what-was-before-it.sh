#!/usr/bin/env bash
# PostgreSQL: a transaction that takes an advisory lock before anything else sees the tables as they were before it got
# the lock, where transactions are `repeatable read` or `serializable`.
#
# Version:   PostgreSQL 15 (Debian 12).
# Expected:  who waits for a lock with the first statement of a transaction looks afterwards, and finds what the one before
#            has done: "take the lock, look whether it is there, make it" is how programs that start at the same time make
#            their tables once. With `LOCK TABLE` it is so.
# Seen:      `SELECT pg_advisory_xact_lock(…)` is a query like any other: what the transaction sees is settled when the wait
#            for the lock begins. The second one gets the lock, finds nothing, and makes it once more: an error if a name
#            or a key is in the way, a second row if not. With `read committed`, the default, each statement looks anew.
# Matters:   where a database or a role has another `default_transaction_isolation`, a deploy that starts several processes
#            at once has some of them fail, and a job that is to run once runs twice. Begin such a transaction with
#            `SET TRANSACTION ISOLATION LEVEL READ COMMITTED`.
# Source:    https://www.postgresql.org/docs/15/applevel-consistency.html#NON-SERIALIZABLE-CONSISTENCY says that explicit locks
#            have to be obtained before any query; the function that obtains this one is called in a query.
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
ask() { "$bin/psql" -X -q -t -A -h "$T/db" -U postgres "$@" 2>&1; }
for _ in $(seq 100); do ask -c "SELECT 1" >/dev/null && break || sleep 0.1; done
ask -c "CREATE TABLE job (name text)"
# Waits until so many transactions wait for a lock.
waiting() { for _ in $(seq 100); do [ "$(ask -c "SELECT count(*) FROM pg_locks WHERE NOT granted")" != "$1" ] || return 0; sleep 0.1; done; }

ADVISORY="SELECT FROM pg_advisory_xact_lock(7)"
TABLE="LOCK TABLE job"
seen=()
# Two transactions of the same statements, the second of which begins to wait while the first has the lock.
twice() {
    local level=$1 lock=$2 rows
    ask -c "TRUNCATE job"
    local job="INSERT INTO job SELECT 'nightly' WHERE NOT EXISTS (SELECT FROM job WHERE name = 'nightly')"
    ask <<<"BEGIN ISOLATION LEVEL $level; $lock;
        \! touch $T/has
        \! for i in \$(seq 100); do [ ! -e $T/go ] || break; sleep 0.1; done
        $job; COMMIT;" >/dev/null &
    local first=$!
    for _ in $(seq 100); do [ ! -e "$T/has" ] || break; sleep 0.1; done
    ask <<<"BEGIN ISOLATION LEVEL $level; $lock; $job; COMMIT;" >/dev/null &
    local second=$!
    waiting 1
    touch "$T/go"
    wait "$first" "$second"
    rm -f "$T/go" "$T/has"
    rows=$(ask -c "SELECT count(*) FROM job")
    printf '    %-16s %-42s %s\n' "$level" "$lock" "is there $rows times"
    seen+=("$rows")
}
echo "\"take the lock, look whether the job is there, put it there\", by two at once:"
for level in "READ COMMITTED" "REPEATABLE READ"; do
    for lock in "$TABLE" "$ADVISORY"; do twice "$level" "$lock"; done
done

if [ "${seen[*]}" = "1 1 1 2" ]; then
    echo "as described: the lock was had in time, and the look was too early"
else
    echo "CHANGED: it no longer behaves as described"
    exit 1
fi
