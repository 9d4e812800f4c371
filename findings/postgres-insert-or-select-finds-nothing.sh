#!/usr/bin/env bash
# PostgreSQL: "insert it, or give me the one that is there" in one statement answers with no row when another transaction
# has just inserted it.
#
# Version:   PostgreSQL 15 (Debian 12), its default `read committed`.
# Expected:  INSERT … ON CONFLICT DO NOTHING RETURNING id, and by UNION ALL a SELECT of what is there, has exactly one row:
#            either the row was inserted, or the conflict was with a row that the SELECT finds.
# Seen:      the INSERT waits for the other transaction, meets its row, and does nothing. The SELECT is part of the same
#            statement and sees the tables as they were when that began: without the row. There is no row in the answer,
#            and no error. DO UPDATE SET id = EXCLUDED.id RETURNING has one, as has the same statement once more.
# Matters:   a user of a sign-in at a provider who arrives in two tabs: the second request has no id for the user, which
#            `fetch_one` makes an error of 500 and `fetch_optional` a stranger. No test with one request at a time shows it.
# Source:    https://www.postgresql.org/docs/15/sql-insert.html#SQL-ON-CONFLICT
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
ask -c "CREATE TABLE person (id int GENERATED ALWAYS AS IDENTITY, subject text UNIQUE)"
waiting() { for _ in $(seq 100); do [ "$(ask -c "SELECT count(*) FROM pg_locks WHERE NOT granted")" != "$1" ] || return 0; sleep 0.1; done; }

SELECTS="WITH made AS (INSERT INTO person (subject) VALUES ('ann') ON CONFLICT DO NOTHING RETURNING id)
    SELECT id FROM made UNION ALL SELECT id FROM person WHERE subject = 'ann'"
UPDATES="INSERT INTO person (subject) VALUES ('ann') ON CONFLICT (subject) DO UPDATE SET subject = EXCLUDED.subject
    RETURNING id"
seen=()
# How many rows the answer has: with an empty table, beside a transaction that has inserted the row, and once more.
answers() { # WORDS STATEMENT
    local alone beside again
    ask -c "TRUNCATE person"
    alone=$(ask -c "$2" | wc -l)
    ask -c "TRUNCATE person"
    rm -f "$T/go" "$T/made"
    ask <<<"BEGIN; INSERT INTO person (subject) VALUES ('ann');
        \! touch $T/made
        \! for i in \$(seq 100); do [ ! -e $T/go ] || break; sleep 0.1; done
        COMMIT;" >/dev/null &
    local first=$!
    for _ in $(seq 100); do [ ! -e "$T/made" ] || break; sleep 0.1; done
    ask -c "$2" >"$T/answer" &
    local second=$!
    waiting 1
    touch "$T/go"
    wait "$first" "$second"
    beside=$(wc -l <"$T/answer")
    again=$(ask -c "$2" | wc -l)
    echo "$1: rows alone: $alone; beside another one: $beside; once more: $again"
    seen+=("$alone $beside $again")
}
answers "DO NOTHING, and a SELECT" "$SELECTS"
answers "DO UPDATE              " "$UPDATES"

if [ "${seen[*]}" = "1 0 1 1 1 1" ]; then
    echo "as described: the statement that inserts or selects does neither beside another one"
else
    echo "CHANGED: it no longer behaves as described"
    exit 1
fi
