#!/usr/bin/env bash
# sqlx with MySQL: of `INSERT … ON DUPLICATE KEY UPDATE id = id`, a row that was there already counts as one that was
# inserted.
#
# Versions:  crate sqlx 0.9.0, MariaDB 10.11 (Debian 12).
# Expected:  one row for what was inserted, two for what was changed, and none for what was left as it is: so it is in
#            the shell, and in the manual of the statement. "Did I get it?" is `rows_affected() == 1`.
# Seen:      sqlx asks the server to count rows that were found in place of rows that were changed (CLIENT_FOUND_ROWS),
#            and cannot be told otherwise. An UPDATE that finds a row and changes nothing is 1 then, which helps a
#            compare-and-swap; and so is an INSERT that met a duplicate and left it as it is: 1, as if it had been
#            inserted. `INSERT IGNORE` is 0.
# Matters:   a lock, a code that may be used once, an order's number: whoever comes second is told that he was the first.
#            A test in the shell, or with a client that does not ask for it, says that all is well. Use INSERT IGNORE, or
#            a plain INSERT and its error.
# Source:    https://dev.mysql.com/doc/refman/8.0/en/insert-on-duplicate.html says it of the flag; that sqlx sets it,
#            https://github.com/launchbadge/sqlx/blob/main/sqlx-mysql/src/connection/stream.rs.
set -euo pipefail

command -v cargo >/dev/null || { echo "cargo is missing: install Rust"; exit 2; }
server=$(PATH=$PATH:/usr/sbin command -v mariadbd) || { echo "MariaDB is missing: apt-get install mariadb-server"; exit 2; }
T=$(mktemp -d)
P=()
trap 'kill "${P[@]}" 2>/dev/null || true; wait; rm -rf "$T"' EXIT
echo "crate sqlx 0.9.0"
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
ask -e "CREATE DATABASE finding"
tables="CREATE OR REPLACE TABLE used (code INT PRIMARY KEY, by_whom TEXT)"
cat >"$T/statements" <<'END'
INSERT INTO used VALUES (7, 'ann') ON DUPLICATE KEY UPDATE code = code
INSERT INTO used VALUES (7, 'bob') ON DUPLICATE KEY UPDATE code = code
INSERT INTO used VALUES (7, 'eve') ON DUPLICATE KEY UPDATE by_whom = VALUES(by_whom)
INSERT IGNORE INTO used VALUES (7, 'bob')
UPDATE used SET by_whom = 'eve' WHERE code = 7
END
# In the shell, on one connection.
shell=$({ echo "$tables;"; sed 's/$/; SELECT ROW_COUNT();/' "$T/statements"; } | ask finding | tr '\n' ' ')

mkdir "$T/src"
cat >"$T/Cargo.toml" <<'END'
[package]
name = "finding"
version = "0.0.0"
edition = "2024"

[dependencies]
sqlx = { version = "=0.9.0", default-features = false, features = ["runtime-tokio", "mysql"] }
tokio = { version = "=1.54.1", features = ["full"] }
END
cat >"$T/src/main.rs" <<'END'
use std::process::ExitCode;

use sqlx::{AssertSqlSafe, Connection, MySqlConnection, mysql::MySqlConnectOptions};

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, socket, tables, statements, shell] = &arguments[..] else { panic!() };
    let options = MySqlConnectOptions::new().socket(socket).username("root").database("finding");
    let mut connection = MySqlConnection::connect_with(&options).await.unwrap();
    sqlx::query(AssertSqlSafe(tables.clone())).execute(&mut connection).await.unwrap();
    let shell: Vec<u64> = shell.split_whitespace().map(|count| count.parse().unwrap()).collect();
    let mut seen = Vec::new();
    for (statement, shell) in std::fs::read_to_string(statements).unwrap().lines().zip(&shell) {
        let done = sqlx::query(AssertSqlSafe(statement.to_string())).execute(&mut connection).await.unwrap();
        println!("{statement}: {shell} in the shell, {} in sqlx", done.rows_affected());
        seen.push(done.rows_affected());
    }
    if shell == [1, 0, 2, 0, 0] && seen == [1, 1, 2, 0, 1] { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
END
cargo build --quiet --manifest-path "$T/Cargo.toml" || { echo "it could not be built"; exit 2; }
if cargo run --quiet --manifest-path "$T/Cargo.toml" -- "$T/db/socket" "$tables" "$T/statements" "$shell"; then
    echo "as described: who comes second has inserted a row, too"
else
    echo "CHANGED: it no longer behaves as described"
    exit 1
fi
