#!/usr/bin/env bash
# sqlx with SQLite: a transaction that has read and then writes is "database is locked" at once, though sqlx sets a
# timeout of five seconds for that.
#
# Versions:  crate sqlx 0.9.0 (with the SQLite in it), a file in WAL mode.
# Expected:  one writes at a time, and the others wait: sqlx sets a `busy_timeout` of five seconds, and WAL mode lets all
#            read meanwhile. What is locked for longer is an error.
# Seen:      `begin()` is a BEGIN without a lock, and the first SELECT settles what the transaction sees. If somebody has
#            committed since, its first INSERT is "database is locked" (517) at once: what was read is old, and no
#            waiting makes it new. The same INSERT fails again until all is rolled back. For a single statement, and with
#            `begin_with("BEGIN IMMEDIATE")`, the five seconds count.
# Matters:   "look whether the name is free, then insert" in a transaction fails as soon as two visitors do it at once,
#            be it for a moment; raising the timeout changes nothing, and a retry of the statement neither. Begin what
#            writes with BEGIN IMMEDIATE.
# Source:    https://www.sqlite.org/isolation.html and https://www.sqlite.org/rescode.html#busy_snapshot.
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
use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use sqlx::{
    Connection, SqliteConnection,
    sqlite::{SqliteConnectOptions, SqliteJournalMode},
};
use tokio::time::sleep;

const LOOK: &str = "SELECT count(*) FROM person WHERE name = 'ada'";
const INSERT: &str = "INSERT INTO person VALUES ('ada')";

/// What the INSERT says, and whether it has waited for the half second that another one takes.
fn said(done: sqlx::Result<sqlx::sqlite::SqliteQueryResult>, begun: Instant) -> (String, bool) {
    let said = match done {
        Ok(_) => "done".into(),
        Err(error) => {
            let error = error.into_database_error().unwrap();
            format!("{} ({})", error.message(), error.code().unwrap())
        }
    };
    (said, begun.elapsed() > Duration::from_millis(400))
}

#[tokio::main]
async fn main() -> ExitCode {
    let file = std::env::args().nth(1).unwrap();
    let options =
        SqliteConnectOptions::new().filename(file).create_if_missing(true).journal_mode(SqliteJournalMode::Wal);
    let connect = async || SqliteConnection::connect_with(&options).await.unwrap();
    let (mut ours, mut others) = (connect().await, connect().await);
    sqlx::query("CREATE TABLE person (name TEXT)").execute(&mut ours).await.unwrap();
    let timeout: i64 = sqlx::query_scalar("PRAGMA busy_timeout").fetch_one(&mut ours).await.unwrap();
    println!("busy_timeout: {timeout} ms");

    // Somebody else writes for half a second, and commits.
    macro_rules! others_write {
        () => {{
            let mut theirs = others.begin_with("BEGIN IMMEDIATE").await.unwrap();
            sqlx::query(INSERT).execute(&mut *theirs).await.unwrap();
            async move {
                sleep(Duration::from_millis(500)).await;
                theirs.commit().await.unwrap();
            }
        }};
    }

    let plain = {
        let theirs = others_write!();
        let begun = Instant::now();
        let (done, ()) = tokio::join!(sqlx::query(INSERT).execute(&mut ours), theirs);
        said(done, begun)
    };
    let (first, again) = {
        let mut transaction = ours.begin().await.unwrap();
        sqlx::query(LOOK).fetch_one(&mut *transaction).await.unwrap();
        others_write!().await;
        let begun = Instant::now();
        let first = said(sqlx::query(INSERT).execute(&mut *transaction).await, begun);
        let again = said(sqlx::query(INSERT).execute(&mut *transaction).await, begun);
        transaction.rollback().await.unwrap();
        (first, again)
    };
    let immediate = {
        let theirs = others_write!();
        let begun = Instant::now();
        let write = async {
            let mut transaction = ours.begin_with("BEGIN IMMEDIATE").await.unwrap();
            sqlx::query(LOOK).fetch_one(&mut *transaction).await.unwrap();
            let done = sqlx::query(INSERT).execute(&mut *transaction).await;
            transaction.commit().await.unwrap();
            done
        };
        let (done, ()) = tokio::join!(write, theirs);
        said(done, begun)
    };
    let seen = [
        ("an INSERT by itself, while another one writes", plain),
        ("begin(), SELECT, another one commits, INSERT", first),
        ("the same INSERT again", again),
        ("BEGIN IMMEDIATE, SELECT, INSERT, while another one writes", immediate),
    ];
    for (what, (said, has_waited)) in &seen {
        println!("{what}: {said}; it has waited: {has_waited}");
    }
    let described =
        [("done", true), ("database is locked (517)", false), ("database is locked (517)", false), ("done", true)];
    let is_so = seen.iter().zip(described).all(|((_, seen), described)| (seen.0.as_str(), seen.1) == described);
    if is_so { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
END
cargo build --quiet --manifest-path "$T/Cargo.toml" || { echo "it could not be built"; exit 2; }
if cargo run --quiet --manifest-path "$T/Cargo.toml" -- "$T/persons.db"; then
    echo "as described: who has read first does not wait, and fails"
else
    echo "CHANGED: it no longer behaves as described"
    exit 1
fi
