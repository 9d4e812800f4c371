#!/usr/bin/env bash
# MariaDB: `sql_select_limit` also cuts short what SHOW COLUMNS answers, and a SELECT whose LIMIT is in its subquery.
#
# Version:   MariaDB 10.11 (Debian 12).
# Expected:  a limit on the rows of a SELECT, which an administrator sets so that nobody fetches a whole table by mistake,
#            concerns results of tables. What the server says of itself is complete.
# Seen:      with a limit of 2, SHOW COLUMNS and DESCRIBE have two of the table's five columns, SHOW INDEX two of its three
#            indexes, SHOW TABLES two tables, and SHOW VARIABLES two variables: without a warning. (SHOW GRANTS has all.) A
#            SELECT whose limit stands in a subquery only has two rows as well. A LIMIT of its own, however large, makes a
#            SELECT whole again; SHOW takes none.
# Matters:   a program that looks whether its table has all its columns finds that some are missing, and refuses to start,
#            or adds those that are there. "All sessions of this user" are two, and a logout everywhere ends two. Write a
#            LIMIT behind each SELECT that has to be complete, and read information_schema in place of SHOW.
# Source:    https://mariadb.com/kb/en/server-system-variables/#sql_select_limit speaks of SELECT.
set -euo pipefail

server=$(PATH=$PATH:/usr/sbin command -v mariadbd) || { echo "MariaDB is missing: apt-get install mariadb-server"; exit 2; }
T=$(mktemp -d)
P=()
trap 'kill "${P[@]}" 2>/dev/null || true; wait; rm -rf "$T"' EXIT
"$server" --version

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
ask() { mariadb --no-defaults --socket="$T/db/socket" --user=root --batch --skip-column-names "$@"; }
for _ in $(seq 200); do ask -e "SELECT 1" >/dev/null 2>&1 && break || sleep 0.1; done
ask -e "CREATE DATABASE finding; USE finding;
    CREATE TABLE one (a INT PRIMARY KEY, b INT, c INT, d INT, e INT, INDEX (b), INDEX (c));
    CREATE TABLE two (a INT); CREATE TABLE three (a INT);
    INSERT INTO two VALUES (1), (2), (3), (4), (5);
    CREATE USER app; GRANT SELECT ON one TO app; GRANT SELECT ON two TO app; GRANT SELECT ON three TO app;
    SET GLOBAL sql_select_limit = 2"

seen=()
rows() { # WORDS STATEMENT
    local count
    count=$(ask finding -e "$2" | wc -l)
    printf '%-48s %s rows\n' "$1" "$count"
    seen+=("$count")
}
rows "SELECT of five rows" "SELECT a FROM two"
rows "the same, LIMIT 18446744073709551615" "SELECT a FROM two LIMIT 18446744073709551615"
rows "SELECT from a subquery with LIMIT 4" "SELECT a FROM (SELECT a FROM two LIMIT 4) AS some"
rows "SHOW COLUMNS of five" "SHOW COLUMNS FROM one"
rows "DESCRIBE" "DESCRIBE one"
rows "SHOW INDEX of three" "SHOW INDEX FROM one"
rows "SHOW TABLES of three" "SHOW TABLES"
rows "SHOW GRANTS of four" "SHOW GRANTS FOR app"
rows "SHOW VARIABLES, of hundreds" "SHOW GLOBAL VARIABLES"
rows "information_schema.columns with a LIMIT" \
    "SELECT column_name FROM information_schema.columns WHERE table_schema = DATABASE() AND table_name = 'one' LIMIT 1000"
warnings=$(ask finding -e "SHOW COLUMNS FROM one; SELECT @@warning_count" | tail -1)
echo "warnings: $warnings"

if [ "${seen[*]} $warnings" = "2 5 2 2 2 2 2 4 2 5 0" ]; then
    echo "as described: the limit cuts short what SHOW answers"
else
    echo "CHANGED: it no longer behaves as described"
    exit 1
fi
