#!/usr/bin/env bash
# sqlx with PostgreSQL: a `begin()` within a transaction that is refused ends the transaction; what is written through it
# afterwards is committed at once, and `rollback()` undoes nothing.
#
# Versions:  crate sqlx 0.9.0, PostgreSQL 15 (Debian 12).
# Expected:  after an error, a transaction of PostgreSQL takes no statement any more until it is rolled back (25P02). One
#            of them may fail unnoticed, but nothing that comes after it can be written.
# Seen:      `transaction.begin()` is a SAVEPOINT. If the server refuses it, as it does after an error, the driver sends
#            a ROLLBACK to clear up: not to the savepoint, which there is none, but of the whole transaction; and counts
#            itself as outside of one. The `Transaction` is still there, and all that is executed on it is committed by
#            itself. `rollback()` is `Ok(())` and sends nothing, and so is `commit()`: what was written before the error
#            is gone, what was written after it is there, whichever of the two is called.
# Matters:   functions that take `impl Acquire` begin a transaction of their own, so that they can be called alone and
#            within one. Where the caller goes on after such a one has failed ("no entry in the log is no reason to
#            refuse the order"), half of the transaction is stored, and what was to be rolled back stands. Return every
#            error of a transaction by `?`; what may fail needs a savepoint before it, not after it.
# Source:    seen by running it; that a refused BEGIN is rolled back was added by
#            https://github.com/launchbadge/sqlx/pull/2819.
set -euo pipefail

T=$(mktemp -d)
P=()
trap 'kill "${P[@]}" 2>/dev/null || true; wait; rm -rf "$T"' EXIT
command -v cargo >/dev/null || { echo "cargo is missing: install Rust"; exit 2; }
bin=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -1)
[ -x "$bin/initdb" ] || { echo "PostgreSQL is missing: apt-get install postgresql"; exit 2; }
echo "crate sqlx 0.9.0; $("$bin/postgres" --version)"

as=()
mkdir "$T/db"
# PostgreSQL does not run as root.
[ "$(id -u)" != 0 ] || { chmod 755 "$T"; chown nobody "$T/db"; as=(setpriv --reuid=nobody --regid=nogroup --clear-groups); }
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
cd "$T/db"
"${as[@]}" "$bin/initdb" -D "$T/db" -A trust -U postgres --no-sync --no-locale >/dev/null
"${as[@]}" "$bin/postgres" -D "$T/db" -p "$port" -k "$T/db" -c listen_addresses=127.0.0.1 >"$T/log" 2>&1 &
P+=($!)
for _ in $(seq 100); do "$bin/pg_isready" -q -h 127.0.0.1 -p "$port" && break || sleep 0.1; done

mkdir "$T/src"
cat >"$T/Cargo.toml" <<'END'
[package]
name = "finding"
version = "0.0.0"
edition = "2024"

[dependencies]
sqlx = { version = "=0.9.0", default-features = false, features = ["runtime-tokio", "postgres"] }
tokio = { version = "=1.54.1", features = ["full"] }
END
cat >"$T/src/main.rs" <<'END'
use std::process::ExitCode;

use sqlx::{Acquire, Connection, PgConnection, Postgres};

/// Writes into the log, in a transaction of its own or in its caller's.
async fn note(connection: impl Acquire<'_, Database = Postgres>) -> sqlx::Result<()> {
    let mut transaction = connection.begin().await?;
    sqlx::query("INSERT INTO log VALUES ('an order')").execute(&mut *transaction).await?;
    transaction.commit().await
}

#[tokio::main]
async fn main() -> ExitCode {
    let url = format!("postgres://postgres@127.0.0.1:{}/postgres", std::env::args().nth(1).unwrap());
    let mut connection = PgConnection::connect(&url).await.unwrap();
    let tables = "CREATE TABLE log (text TEXT); CREATE TABLE orders (number INT PRIMARY KEY)";
    sqlx::raw_sql(tables).execute(&mut connection).await.unwrap();

    let mut is_so = true;
    for (asks, commits, described) in [(false, false, ""), (false, true, ""), (true, false, "3"), (true, true, "3")] {
        let mut transaction = Connection::begin(&mut connection).await.unwrap();
        let insert = |number: i32| sqlx::query("INSERT INTO orders VALUES ($1)").bind(number);
        insert(1).execute(&mut *transaction).await.unwrap();
        // The same number again.
        insert(1).execute(&mut *transaction).await.unwrap_err();
        if asks {
            note(&mut transaction).await.unwrap_err();
        }
        let last = insert(3).execute(&mut *transaction).await.map(|done| done.rows_affected());
        let end = if commits { transaction.commit().await } else { transaction.rollback().await };
        let orders = "SELECT coalesce(string_agg(number::text, ' '), '') FROM orders";
        let orders: String = sqlx::query_scalar(orders).fetch_one(&mut connection).await.unwrap();
        sqlx::query("DELETE FROM orders").execute(&mut connection).await.unwrap();
        println!(
            "orders 1, 1 again (refused){}, 3 ({}), {} ({end:?}): there are orders [{orders}]",
            if asks { ", begin() (refused)" } else { "" },
            last.map_or_else(|_| "refused".into(), |rows| format!("Ok, rows: {rows}")),
            if commits { "commit()" } else { "rollback()" },
        );
        is_so &= orders == described && end.is_ok();
    }
    if is_so { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
END
cargo build --quiet --manifest-path "$T/Cargo.toml" || { echo "it could not be built"; exit 2; }
if cargo run --quiet --manifest-path "$T/Cargo.toml" -- "$port"; then
    echo "as described: what follows a refused begin() is committed, whether the transaction is or not"
else
    echo "CHANGED: it no longer behaves as described"
    exit 1
fi
