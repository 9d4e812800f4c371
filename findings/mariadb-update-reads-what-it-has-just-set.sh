#!/usr/bin/env bash
# MariaDB: in one UPDATE, an assignment sees the new values of the assignments before it.
#
# Version:   MariaDB 10.11.19 (Debian 12).
# Expected:  SQL's UPDATE computes all right sides from the row as it was, so that the order of assignments
#            does not matter and `SET a = b, b = a` swaps. PostgreSQL and SQLite do so.
# Seen:      from left to right, on the row that is being changed: `SET version = version + 1, previous =
#            version` leaves the *new* version in both columns; with the assignments exchanged it is right.
#            `SET a = b, b = a` copies. The mode SIMULTANEOUS_ASSIGNMENT does it the standard's way.
# Matters:   a store that keeps the version before, or moves an expiry by "old + x" and sets the column in the
#            same statement, is right in tests against SQLite and wrong in MariaDB, without any error.
# Source:    https://mariadb.com/kb/en/update/ and https://mariadb.com/kb/en/sql-mode/
set -euo pipefail

server=$(PATH=$PATH:/usr/sbin command -v mariadbd) || { echo "mariadbd is missing: apt-get install mariadb-server"; exit 2; }
command -v python3 >/dev/null || { echo "python3 is missing: apt-get install python3"; exit 2; }
T=$(mktemp -d)
P=()
trap 'kill "${P[@]}" 2>/dev/null || true; wait; rm -rf "$T"' EXIT
"$server" --version
python3 -c 'import sqlite3; print("SQLite", sqlite3.sqlite_version)'

as=()
mkdir "$T/db"
# It does not run as root.
[ "$(id -u)" != 0 ] || {
    chmod 755 "$T"
    chown nobody "$T/db"
    as=(setpriv --reuid=nobody --regid=nogroup --clear-groups)
}
cd "$T/db"
"${as[@]}" mariadb-install-db --no-defaults --datadir="$T/db" --auth-root-authentication-method=normal >/dev/null 2>&1
"${as[@]}" "$server" --no-defaults --datadir="$T/db" --skip-networking --socket="$T/db/socket" \
    --pid-file="$T/db/pid" >"$T/log" 2>&1 &
P+=($!)
ask() { mariadb --no-defaults --socket="$T/db/socket" --user=root --skip-column-names --batch "$@"; }
for _ in $(seq 200); do ask -e "SELECT 1" >/dev/null 2>&1 && break || sleep 0.1; done
ask -e "CREATE DATABASE finding"

rows="DROP TABLE IF EXISTS s; CREATE TABLE s (version INT, previous INT); INSERT INTO s VALUES (5, 0);"
in_mariadb() { ask finding -e "$1 $rows $2; SELECT version, previous FROM s" | tr '\t' ' '; }
in_sqlite() {
    python3 - "$rows" "$1" <<'END'
import sqlite3, sys
db = sqlite3.connect(":memory:")
db.executescript(sys.argv[1] + sys.argv[2])
print(*db.execute("SELECT version, previous FROM s").fetchone())
END
}
failed=0
check() { # the statement, and what SQLite, MariaDB, and MariaDB in the standard's mode make of (5, 0)
    local standard mariadb mode
    standard=$(in_sqlite "$1")
    mariadb=$(in_mariadb "" "$1")
    mode=$(in_mariadb "SET sql_mode = CONCAT(@@sql_mode, ',SIMULTANEOUS_ASSIGNMENT');" "$1")
    printf '%-62s SQLite (%s)  MariaDB (%s)  with the mode (%s)\n' "$1" "$standard" "$mariadb" "$mode"
    [ "$standard/$mariadb/$mode" = "$2" ] || failed=1
}
check "UPDATE s SET version = version + 1, previous = version" "6 5/6 6/6 5"
check "UPDATE s SET previous = version, version = version + 1" "6 5/6 5/6 5"
check "UPDATE s SET version = previous, previous = version" "0 5/0 0/0 5"

if [ $failed = 0 ]; then
    echo "as described: the order of the assignments matters"
else
    echo "CHANGED: it no longer behaves as described"
    exit 1
fi
