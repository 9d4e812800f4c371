#!/usr/bin/env bash
# sqlx with PostgreSQL: `commit()` of a transaction in which a statement has failed is `Ok(())`, and nothing is committed.
#
# Versions:  crate sqlx 0.9.0, PostgreSQL 15 (Debian 12).
# Expected:  an error that is met ("that key is there already, so be it") does no harm: in SQLite, and in MySQL, only the
#            statement has failed, and the commit commits the others. PostgreSQL is known to want a ROLLBACK after an
#            error: whatever comes next is refused, "current transaction is aborted"; so will be the COMMIT, and
#            whoever sees `Ok` from it has committed.
# Seen:      COMMIT is the one statement that is not refused. The server rolls back, and answers ROLLBACK in place of
#            COMMIT, as a success; the driver does not look at that word. `commit()` is `Ok(())`, and of the session,
#            the user and the order that were written before the error nothing is there. A SAVEPOINT (`begin()` on the
#            transaction) around the statement that may fail keeps the rest.
# Matters:   "insert, and if it exists, go on" within a transaction passes all tests against SQLite. With PostgreSQL a
#            login is answered with welcome, and no session was saved, without an error in any log. Return each error of
#            a statement by `?` before the commit, or write ON CONFLICT DO NOTHING, which is no error.
# Source:    https://www.postgresql.org/docs/15/sql-commit.html does not say it; the drivers that have looked at the word
#            since: https://github.com/tlocke/pg8000/issues/36; for tokio-postgres see
#            https://github.com/rust-postgres/rust-postgres/issues/1334
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
sqlx = { version = "=0.9.0", default-features = false, features = ["runtime-tokio", "postgres", "sqlite"] }
tokio = { version = "=1.54.1", features = ["full"] }
END
cat >"$T/src/main.rs" <<'END'
use std::process::ExitCode;

use sqlx::{Connection, PgConnection, SqliteConnection};

/// Saves a session and a user who is known already, each in its own way. What the commit says, and how many sessions
/// are there afterwards.
macro_rules! log_in {
    ($connection:expr, $with_savepoint:expr) => {{
        let mut transaction = $connection.begin().await.unwrap();
        sqlx::query("INSERT INTO session VALUES (7)").execute(&mut *transaction).await.unwrap();
        let known = "INSERT INTO person VALUES ('ada')";
        let saved = if $with_savepoint {
            let mut inner = transaction.begin().await.unwrap();
            let saved = sqlx::query(known).execute(&mut *inner).await;
            inner.rollback().await.unwrap();
            saved
        } else {
            sqlx::query(known).execute(&mut *transaction).await
        };
        let error = saved.unwrap_err();
        assert!(error.as_database_error().unwrap().is_unique_violation());
        let commit = transaction.commit().await;
        let count = sqlx::query_scalar("SELECT count(*) FROM session");
        let count: i64 = count.fetch_one(&mut $connection).await.unwrap();
        sqlx::query("DELETE FROM session").execute(&mut $connection).await.unwrap();
        (format!("{commit:?}"), count)
    }};
}

const TABLES: &str = "CREATE TABLE session (id INT); CREATE TABLE person (name TEXT PRIMARY KEY); \
                      INSERT INTO person VALUES ('ada')";

#[tokio::main]
async fn main() -> ExitCode {
    let url = format!("postgres://postgres@127.0.0.1:{}/postgres", std::env::args().nth(1).unwrap());
    let mut postgres = PgConnection::connect(&url).await.unwrap();
    sqlx::raw_sql(TABLES).execute(&mut postgres).await.unwrap();
    let mut sqlite = SqliteConnection::connect("sqlite::memory:").await.unwrap();
    sqlx::raw_sql(TABLES).execute(&mut sqlite).await.unwrap();

    let seen = [
        ("SQLite", log_in!(sqlite, false)),
        ("PostgreSQL", log_in!(postgres, false)),
        ("PostgreSQL, with a savepoint", log_in!(postgres, true)),
    ];
    for (what, (commit, count)) in &seen {
        println!("{what}: commit() is {commit}, sessions that are there: {count}");
    }
    let is_so = seen.iter().all(|(_, (commit, _))| commit == "Ok(())")
        && seen.each_ref().map(|(_, (_, count))| *count) == [1, 0, 1];
    if is_so { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
END
cargo build --quiet --manifest-path "$T/Cargo.toml" || { echo "it could not be built"; exit 2; }
if cargo run --quiet --manifest-path "$T/Cargo.toml" -- "$port"; then
    echo "as described: it is told as committed, and is not there"
else
    echo "CHANGED: it no longer behaves as described"
    exit 1
fi
