#!/usr/bin/env bash
# sqlx with SQLite: a compare-and-swap that found nothing to change says "one row affected", if the one before it did.
#
# Version:   crate sqlx 0.9.0.
# Expected:  `rows_affected()` is the number of rows that these statements have changed: a BEGIN and a COMMIT change
#            none, neither does a SELECT.
# Seen:      each statement adds what SQLite's `changes()` says after it, which is the number of the last INSERT, UPDATE
#            or DELETE of that connection, however long ago. `BEGIN IMMEDIATE; UPDATE …; COMMIT` in one call counts its
#            rows twice, and at BEGIN those of whoever had the connection before: an UPDATE that changed nothing,
#            because another was faster, is one row affected. A SELECT has affected rows, too.
# Matters:   a store that sends its transaction as one text, to take the lock for writing at once and to save the way
#            to the driver's thread, and asks for more than no row, believes that it has won a race that it has lost:
#            only on a pool's used connections, and not in a test that opens its own. Ask with RETURNING, or send the
#            UPDATE by itself.
# Source:    sqlx-sqlite, src/connection/execute.rs, asks `changes()` after each statement, whatever it was;
#            https://www.sqlite.org/c3ref/changes.html says that other statements leave the number as it was.
set -euo pipefail

T=$(mktemp -d)
trap 'rm -rf "$T"' EXIT
command -v cargo >/dev/null || { echo "cargo is missing: install Rust"; exit 2; }
echo "crate sqlx 0.9.0"

mkdir "$T/src"
cat >"$T/Cargo.toml" <<'END'
[package]
name = "finding"
version = "0.0.0"
edition = "2024"

[dependencies]
sqlx = { version = "=0.9.0", default-features = false, features = ["runtime-tokio", "sqlite"] }
tokio = { version = "=1.54.1", features = ["full"] }
END
cat >"$T/src/main.rs" <<'END'
use std::process::ExitCode;

use sqlx::{Connection, Row, SqliteConnection};

const ALONE: &str = "UPDATE session SET version = version + 1 WHERE id = ? AND version = ?";
const LOCKED: &str = "BEGIN IMMEDIATE; \
    UPDATE session SET version = version + 1 WHERE id = ? AND version = ?; COMMIT";

#[tokio::main]
async fn main() -> ExitCode {
    let file = std::env::args().nth(1).unwrap();
    let url = format!("sqlite://{file}?mode=rwc");
    let mut seen = Vec::new();
    for (statement, based_on, what) in [
        (ALONE, 1, "an UPDATE that wins"),
        (ALONE, 7, "an UPDATE that loses"),
        (LOCKED, 1, "BEGIN, UPDATE and COMMIT that win"),
        (LOCKED, 7, "BEGIN, UPDATE and COMMIT that lose"),
        ("SELECT 1", 0, "a SELECT"),
    ] {
        for is_used in [false, true] {
            // A connection is new, or has changed something for somebody else.
            let mut connection = SqliteConnection::connect(&url).await.unwrap();
            for sql in [
                "DROP TABLE IF EXISTS session",
                "CREATE TABLE session (id INTEGER PRIMARY KEY, version INTEGER)",
                "INSERT INTO session VALUES (1, 1), (2, 1)",
            ] {
                sqlx::query(sql).execute(&mut connection).await.unwrap();
            }
            connection.close().await.unwrap();
            let mut connection = SqliteConnection::connect(&url).await.unwrap();
            if is_used {
                let other = sqlx::query(ALONE).bind(2).bind(1).execute(&mut connection).await.unwrap();
                assert_eq!(other.rows_affected(), 1);
            }
            let mut query = sqlx::query(statement);
            if statement.contains('?') {
                query = query.bind(1).bind(based_on);
            }
            let affected = query.execute(&mut connection).await.unwrap().rows_affected();
            let row = sqlx::query("SELECT version FROM session WHERE id = 1");
            let version: i64 = row.fetch_one(&mut connection).await.unwrap().get(0);
            let has_changed = version == 2;
            println!(
                "{what:35} on a {:15} rows affected: {affected}, the version is {}",
                if is_used { "used connection" } else { "new connection" },
                if has_changed { "raised" } else { "as before" },
            );
            seen.push((has_changed, affected));
            connection.close().await.unwrap();
        }
    }
    let described = [
        [(true, 1), (true, 1)],
        [(false, 0), (false, 0)],
        [(true, 2), (true, 3)],
        [(false, 0), (false, 1)],
        [(false, 0), (false, 1)],
    ];
    if seen == described.as_flattened() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
END
cargo build --quiet --manifest-path "$T/Cargo.toml" || { echo "it could not be built"; exit 2; }
if cargo run --quiet --manifest-path "$T/Cargo.toml" -- "$T/sessions.db"; then
    echo "as described: what has lost looks like what has won"
else
    echo "CHANGED: it no longer behaves as described"
    exit 1
fi
