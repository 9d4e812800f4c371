#!/usr/bin/env bash
# MariaDB: a deadlock ends the whole transaction, and not only its statement; what is executed on it afterwards is
# committed at once, and `rollback()` undoes nothing.
#
# Versions:  MariaDB 10.11 (Debian 12), crate sqlx 0.9.0.
# Expected:  an error is its statement's: the transaction goes on, and commit or rollback decide about all of it. That is
#            so with every other error in MariaDB, also with the one that looks the same, "Lock wait timeout exceeded".
#            Where an error ends the transaction, as in PostgreSQL, the server takes no further statement.
# Seen:      after "Deadlock found when trying to get lock; try restarting transaction" there is no transaction. Neither
#            the server nor the driver refuses what comes next: it is committed by itself. The `Transaction` of the
#            driver is there as before; its `rollback()` is `Ok(())`. What was written before the deadlock is gone, what
#            was written after it stays.
# Matters:   whoever repeats the statement that met a deadlock (rather than the transaction), or logs its error and goes
#            on, stores half a transaction: the money arrives, and was never taken. Of a transaction's errors, return
#            each by `?` and begin the whole anew.
# Source:    https://dev.mysql.com/doc/refman/8.0/en/innodb-error-handling.html says that the transaction is rolled back;
#            that the next statement is committed was seen by running it.
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
    --pid-file="$T/db/pid" --innodb-lock-wait-timeout=2 >"$T/log" 2>&1 &
P+=($!)
ask() { mariadb --no-defaults --socket="$T/db/socket" --user=root --batch -e "$1"; }
for _ in $(seq 200); do ask "SELECT 1" >/dev/null 2>&1 && break || sleep 0.1; done
ask "CREATE DATABASE finding"

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

use sqlx::{Connection, MySqlConnection, mysql::MySqlConnectOptions};

const MOVE: &str = "UPDATE account SET euros = euros + ? WHERE id = ?";

/// Moves ten euros from the first account to the second, while somebody else has locked the second, and wants the first
/// as well if there is to be a deadlock. Goes on after the error, and rolls back at the end. The error's number, and what
/// there is on both accounts then.
async fn moves(options: &MySqlConnectOptions, deadlock: bool) -> (u16, Vec<i64>) {
    let mut ours = MySqlConnection::connect_with(options).await.unwrap();
    let mut others = MySqlConnection::connect_with(options).await.unwrap();
    for made in [
        "CREATE OR REPLACE TABLE account (id INT PRIMARY KEY, euros INT)",
        "INSERT INTO account VALUES (1, 100), (2, 100), (3, 0), (4, 0), (5, 0)",
    ] {
        sqlx::query(made).execute(&mut ours).await.unwrap();
    }
    // It has changed more rows, so that the deadlock is ours.
    let mut theirs = others.begin().await.unwrap();
    sqlx::query("UPDATE account SET euros = euros + 1 WHERE id > 1").execute(&mut *theirs).await.unwrap();

    let mut transaction = ours.begin().await.unwrap();
    let add = |euros: i32, id: i32| sqlx::query(MOVE).bind(euros).bind(id);
    add(-10, 1).execute(&mut *transaction).await.unwrap();
    let (arrives, theirs) = if deadlock {
        tokio::join!(add(10, 2).execute(&mut *transaction), async {
            add(1, 1).execute(&mut *theirs).await.unwrap();
            theirs
        })
    } else {
        (add(10, 2).execute(&mut *transaction).await, theirs)
    };
    let error = arrives.unwrap_err();
    let number = error.as_database_error().unwrap();
    let number = number.downcast_ref::<sqlx::mysql::MySqlDatabaseError>().number();
    println!("the second account: {error}");
    theirs.rollback().await.unwrap();

    let again = add(10, 2).execute(&mut *transaction).await.unwrap();
    println!("once more: Ok, rows: {}; rollback(): {:?}", again.rows_affected(), transaction.rollback().await);
    let accounts = sqlx::query_scalar("SELECT CAST(euros AS SIGNED) FROM account WHERE id < 3 ORDER BY id");
    let accounts = accounts.fetch_all(&mut others).await.unwrap();
    println!("the accounts, which had 100 each: {accounts:?}\n");
    (number, accounts)
}

#[tokio::main]
async fn main() -> ExitCode {
    let socket = std::env::args().nth(1).unwrap();
    let options = MySqlConnectOptions::new().socket(socket).username("root").database("finding");
    let waited = moves(&options, false).await;
    let deadlock = moves(&options, true).await;
    let is_so = waited == (1205, vec![100, 100]) && deadlock == (1213, vec![100, 110]);
    if is_so { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
END
cargo build --quiet --manifest-path "$T/Cargo.toml" || { echo "it could not be built"; exit 2; }
if cargo run --quiet --manifest-path "$T/Cargo.toml" -- "$T/db/socket"; then
    echo "as described: after a deadlock each statement is committed, whatever becomes of the transaction"
else
    echo "CHANGED: it no longer behaves as described"
    exit 1
fi
