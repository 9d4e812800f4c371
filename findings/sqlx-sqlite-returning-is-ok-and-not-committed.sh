#!/usr/bin/env bash
# sqlx with SQLite: INSERT … RETURNING by `fetch_one` gives the new row's id, and the row is not there: the commit comes
# after the answer, and its error is nobody's.
#
# Versions:  crate sqlx 0.9.0 with the SQLite that it brings.
# Expected:  a statement outside of a transaction is committed when its call is `Ok`; one that cannot be committed is an
#            error. So it is with the same INSERT by `execute`, and by `fetch_all`.
# Seen:      `fetch_one` and `fetch_optional` take the first row, and give the statement up. That ends the statement and
#            commits; if another connection reads just then, with the journal that is SQLite's default, the commit is
#            refused as "database is locked" and the row is taken back, while the caller has its id. With `journal_mode =
#            WAL` readers are in no writer's way, and the row is there.
# Matters:   an account or a session gets an id that exists nowhere, and the visitor is told that all went well. Read such
#            rows by `fetch_all`, or put the statement into a transaction, whose `commit` says so; or switch to WAL.
# Source:    https://www.sqlite.org/lang_returning.html#processing_order says that all changes are made before the first row is
#            given; that they are not committed by then, it does not.
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
use std::{process::ExitCode, time::Duration};

use sqlx::{
    ConnectOptions, Connection, SqliteConnection,
    sqlite::{SqliteConnectOptions, SqliteJournalMode},
};

const INSERT: &str = "INSERT INTO person (name) VALUES ('ann') RETURNING id";

#[derive(Clone, Copy)]
enum Call {
    FetchOne,
    FetchAll,
    Execute,
}

async fn insert(connection: &mut SqliteConnection, call: Call) -> Result<(), sqlx::Error> {
    let query = sqlx::query(INSERT);
    match call {
        Call::FetchOne => query.fetch_one(connection).await.map(|_| ()),
        Call::FetchAll => query.fetch_all(connection).await.map(|_| ()),
        Call::Execute => query.execute(connection).await.map(|_| ()),
    }
}

/// Inserts while another connection reads. Whether that is `Ok`, and how many rows there are then.
async fn beside_a_reader(what: &str, file: &str, journal: SqliteJournalMode, call: Call) -> (bool, i64) {
    let options = SqliteConnectOptions::new()
        .filename(file)
        .create_if_missing(true)
        .journal_mode(journal)
        .busy_timeout(Duration::from_millis(200));
    let mut writer = options.connect().await.unwrap();
    let made = "CREATE TABLE person (id INTEGER PRIMARY KEY, name TEXT)";
    sqlx::query(made).execute(&mut writer).await.unwrap();
    let mut reader = options.connect().await.unwrap();
    let mut reading = reader.begin().await.unwrap();
    sqlx::query("SELECT * FROM person").fetch_all(&mut *reading).await.unwrap();

    let inserted = insert(&mut writer, call).await;
    reading.rollback().await.unwrap();
    let count = sqlx::query_scalar("SELECT count(*) FROM person");
    let rows: i64 = count.fetch_one(&mut reader).await.unwrap();
    println!("{what:22} {:40} rows: {rows}", format!("{:?}", inserted.as_ref().map_err(|error| error.to_string())));
    (inserted.is_ok(), rows)
}

#[tokio::main]
async fn main() -> ExitCode {
    let folder = std::env::args().nth(1).unwrap();
    let file = |name: &str| format!("{folder}/{name}.db");
    let seen = [
        beside_a_reader("fetch_one", &file("one"), SqliteJournalMode::Delete, Call::FetchOne).await,
        beside_a_reader("fetch_all", &file("all"), SqliteJournalMode::Delete, Call::FetchAll).await,
        beside_a_reader("execute", &file("execute"), SqliteJournalMode::Delete, Call::Execute).await,
        beside_a_reader("fetch_one, WAL", &file("wal"), SqliteJournalMode::Wal, Call::FetchOne).await,
    ];
    if seen == [(true, 0), (false, 0), (false, 0), (true, 1)] { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
END
cargo build --quiet --manifest-path "$T/Cargo.toml" || { echo "it could not be built"; exit 2; }
if cargo run --quiet --manifest-path "$T/Cargo.toml" -- "$T"; then
    echo "as described: the row's id is given, and the row taken back"
else
    echo "CHANGED: it no longer behaves as described"
    exit 1
fi
