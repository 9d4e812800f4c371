#!/usr/bin/env bash
# PostgreSQL: a DELETE leaves a row that meets its condition before and after, because another transaction has just moved
# the row from one alternative to the other.
#
# Version:   PostgreSQL 15 (Debian 12), its default `read committed`.
# Expected:  a DELETE that waits for a row's lock looks at the row as it is then, and deletes what meets the condition: a
#            row that has changed and still does is deleted, as where a counter of it was raised.
# Seen:      that is so of rows which met the condition when the DELETE began. A row that comes to meet it while the
#            DELETE waits is not seen at all; one that is replaced (DELETE and INSERT of the same session in one
#            transaction, as a login that renews the id does) is gone for the old row and invisible for the new one. "End
#            all sessions of ann" answers DELETE 0, while one session of ann was there before, one is there now, and at
#            no moment there was none.
# Matters:   a logout everywhere beside a login that renews the id leaves that session alive, in one statement and without
#            an error. Repeat the DELETE until it finds none, or lock the user's own row in both transactions.
# Source:    https://www.postgresql.org/docs/15/transaction-iso.html#XACT-READ-COMMITTED shows it of rows whose number is
#            changed; that a renewed session is one of these has to be seen.
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
ask() { "$bin/psql" -X -t -A -h "$T/db" -U postgres "$@" 2>&1; }
for _ in $(seq 100); do ask -c "SELECT 1" >/dev/null && break || sleep 0.1; done
ask -q -c "CREATE TABLE session (id text PRIMARY KEY, person text, visits int)"
waiting() { for _ in $(seq 100); do [ "$(ask -c "SELECT count(*) FROM pg_locks WHERE NOT granted")" != "$1" ] || return 0; sleep 0.1; done; }

seen=()
# What the DELETE says that begins while this change is open, and how many sessions ann has then.
beside() { # WORDS CHANGE
    ask -q -c "TRUNCATE session; INSERT INTO session VALUES ('old', 'ann', 1)"
    rm -f "$T/go" "$T/changed"
    ask -q <<<"BEGIN; $2;
        \! touch $T/changed
        \! for i in \$(seq 100); do [ ! -e $T/go ] || break; sleep 0.1; done
        COMMIT;" >/dev/null &
    local change=$!
    for _ in $(seq 100); do [ ! -e "$T/changed" ] || break; sleep 0.1; done
    ask -c "DELETE FROM session WHERE person = 'ann'" >"$T/deleted" &
    local delete=$!
    waiting 1
    touch "$T/go"
    wait "$change" "$delete"
    local left
    left=$(ask -c "SELECT count(*) FROM session WHERE person = 'ann'")
    printf '%-44s %s; sessions of ann: %s\n' "$1" "$(cat "$T/deleted")" "$left"
    seen+=("$(cat "$T/deleted") $left")
}
beside "beside a visit that is counted" "UPDATE session SET visits = visits + 1 WHERE id = 'old'"
beside "beside an id that is renewed by UPDATE" "UPDATE session SET id = 'new' WHERE id = 'old'"
beside "beside one that is renewed by DELETE, INSERT" \
    "DELETE FROM session WHERE id = 'old'; INSERT INTO session VALUES ('new', 'ann', 1)"

if [ "${seen[*]}" = "DELETE 1 0 DELETE 1 0 DELETE 0 1" ]; then
    echo "as described: of a session that is replaced meanwhile the DELETE finds neither the old row nor the new one"
else
    echo "CHANGED: it no longer behaves as described"
    exit 1
fi
