#!/usr/bin/env bash
# sqlx with SQLite: a time that was bound is later than any `datetime('now')` of the same day, so that what has expired
# lives until midnight.
#
# Versions:  crates sqlx 0.9.0 (with the SQLite in it), chrono 0.4.45, time 0.3.55.
# Expected:  a `DateTime<Utc>` and what SQLite itself says of the time are two texts of one form, and `expires_at <
#            datetime('now')` compares moments; so does CURRENT_TIMESTAMP, as the default of a column.
# Seen:      the driver writes 2026-12-01T09:00:00+00:00, and SQLite 2026-12-01 09:00:00. They are compared as texts, and
#            T is greater than a space: on one day, whatever was bound comes after whatever SQLite says, by up to 24
#            hours; from the next day on it is right. With `OffsetDateTime` of time likewise; not with `NaiveDateTime`
#            and `PrimitiveDateTime`, which have the space. An index on the column, and ORDER BY, mix them up as well.
# Matters:   "DELETE FROM session WHERE expires_at < datetime('now')" works in the test of yesterday's session. A session
#            of fifteen minutes is good until midnight UTC, as is the link to reset a password; and "the last five
#            logins" are those of bound times. Bind the time of now as well, store seconds since 1970, or compare
#            `unixepoch(expires_at) < unixepoch()`.
# Source:    https://docs.rs/sqlx/0.9.0/sqlx/sqlite/types/index.html says that both are texts.
set -euo pipefail

T=$(mktemp -d)
trap 'rm -rf "$T"' EXIT
command -v cargo >/dev/null || { echo "cargo is missing: install Rust"; exit 2; }
echo "crates sqlx 0.9.0, chrono 0.4.45, time 0.3.55"

mkdir "$T/src"
cat >"$T/Cargo.toml" <<'END'
[package]
name = "finding"
version = "0.0.0"
edition = "2024"

[dependencies]
chrono = "=0.4.45"
sqlx = { version = "=0.9.0", default-features = false, features = ["runtime-tokio", "sqlite", "chrono", "time"] }
time = { version = "=0.3.55", features = ["macros"] }
tokio = { version = "=1.54.1", features = ["full"] }
END
cat >"$T/src/main.rs" <<'END'
use std::process::ExitCode;

use chrono::{DateTime, NaiveDateTime, Utc};
use sqlx::{Connection, SqliteConnection};
use time::macros::datetime;

#[tokio::main]
async fn main() -> ExitCode {
    let mut connection = SqliteConnection::connect("sqlite::memory:").await.unwrap();
    let table = "CREATE TABLE session (what TEXT, expires_at TEXT)";
    sqlx::query(table).execute(&mut connection).await.unwrap();
    let version: String = sqlx::query_scalar("SELECT sqlite_version()").fetch_one(&mut connection).await.unwrap();
    println!("SQLite {version}");

    // All have expired when it is noon on the first of December.
    macro_rules! insert {
        ($what:expr, $time:expr) => {
            sqlx::query("INSERT INTO session VALUES (?, ?)")
                .bind($what)
                .bind($time)
                .execute(&mut connection)
                .await
                .unwrap()
        };
    }
    let nine: DateTime<Utc> = "2026-12-01T09:00:00Z".parse().unwrap();
    let yesterday: DateTime<Utc> = "2026-11-30T23:59:59Z".parse().unwrap();
    let naive: NaiveDateTime = nine.naive_utc();
    insert!("DateTime<Utc>, yesterday", yesterday);
    insert!("DateTime<Utc>, at nine", nine);
    insert!("OffsetDateTime, at nine", datetime!(2026-12-01 09:00 UTC));
    insert!("NaiveDateTime, at nine", naive);
    insert!("PrimitiveDateTime, at nine", datetime!(2026-12-01 09:00));
    sqlx::query("INSERT INTO session VALUES ('datetime(), at nine', datetime('2026-12-01 09:00:00'))")
        .execute(&mut connection)
        .await
        .unwrap();

    let noon: DateTime<Utc> = "2026-12-01T12:00:00Z".parse().unwrap();
    let compare = "SELECT what, expires_at, expires_at < datetime('2026-12-01 12:00:00'), \
                       expires_at < ?, unixepoch(expires_at) < unixepoch('2026-12-01 12:00:00') FROM session";
    let rows = sqlx::query_as::<_, (String, String, bool, bool, bool)>(compare).bind(noon);
    let rows = rows.fetch_all(&mut connection).await.unwrap();
    for (what, text, datetime, bound, epoch) in &rows {
        println!("{what}: {text}: before datetime(noon) {datetime}, before a bound noon {bound}, by unixepoch {epoch}");
    }
    let by_datetime: Vec<bool> = rows.iter().map(|row| row.2).collect();
    let is_so = by_datetime == [true, false, false, true, true, true] && rows.iter().all(|row| row.3 && row.4);
    if is_so { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
END
cargo build --quiet --manifest-path "$T/Cargo.toml" || { echo "it could not be built"; exit 2; }
if cargo run --quiet --manifest-path "$T/Cargo.toml"; then
    echo "as described: what was bound is later than all that SQLite says of the same day"
else
    echo "CHANGED: it no longer behaves as described"
    exit 1
fi
