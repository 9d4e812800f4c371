#!/usr/bin/env bash
# sqlx with SQLite: a database in memory is gone after ten minutes in which nobody has asked, and after half an hour in
# any case if its pool has one connection.
#
# Versions:  crate sqlx 0.9.0.
# Expected:  `SqlitePool::connect("sqlite::memory:")` is a database for as long as the pool is there. That each
#            connection would have a database of its own, without a shared cache, is known; `max_connections(1)` is the
#            remedy.
# Seen:      the database lives as long as one connection to it, and a pool closes connections that were idle for ten
#            minutes, and any that is half an hour old: those are the defaults. The next call gets a new connection, and
#            "no such table". One connection is no remedy, but makes it certain: where there are several, one may be
#            left. Asked here with a second in place of the minutes.
# Matters:   sessions in memory for a demonstration, a preview or an administrator's tool: after a coffee break all are
#            logged out, or each request is an error, since the tables are gone too. Say `min_connections(1)`,
#            `idle_timeout(None)` and `max_lifetime(None)`.
# Source:    https://github.com/launchbadge/sqlx/issues/2510, /1647.
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

use sqlx::{SqlitePool, sqlite::SqlitePoolOptions};
use tokio::time::sleep;

/// Whether a session is there after more than a second, in which it was asked for or not.
async fn is_there(options: SqlitePoolOptions, asks: bool) -> Result<i64, String> {
    let pool: SqlitePool = options.connect("sqlite::memory:").await.unwrap();
    sqlx::query("CREATE TABLE session (id INT)").execute(&pool).await.unwrap();
    sqlx::query("INSERT INTO session VALUES (7)").execute(&pool).await.unwrap();
    let count = async || {
        let count = sqlx::query_scalar("SELECT count(*) FROM session").fetch_one(&pool).await;
        count.map_err(|error| error.as_database_error().unwrap().message().to_string())
    };
    assert_eq!(count().await, Ok(1));
    for _ in 0..30 {
        sleep(Duration::from_millis(100)).await;
        if asks && let Err(error) = count().await {
            return Err(error);
        }
    }
    count().await
}

#[tokio::main]
async fn main() -> ExitCode {
    let new = || SqlitePoolOptions::new();
    let (idle, lifetime) = (new().get_idle_timeout(), new().get_max_lifetime());
    println!("by default: idle_timeout {idle:?}, max_lifetime {lifetime:?}");
    let second = Duration::from_secs(1);
    let never = || new().min_connections(1).idle_timeout(None).max_lifetime(None);
    let seen = [
        ("idle for more than idle_timeout", is_there(new().idle_timeout(second), false).await),
        (
            "one connection, in use, older than max_lifetime",
            is_there(new().max_connections(1).max_lifetime(second), true).await,
        ),
        ("neither timeout", is_there(never().max_connections(1), false).await),
    ];
    for (what, seen) in &seen {
        println!("{what}: {seen:?}");
    }
    let gone = Err("no such table: session".to_string());
    let is_so = (idle, lifetime) == (Some(Duration::from_secs(600)), Some(Duration::from_secs(1800)))
        && seen.map(|(_, seen)| seen) == [gone.clone(), gone, Ok(1)];
    if is_so { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
END
cargo build --quiet --manifest-path "$T/Cargo.toml" || { echo "it could not be built"; exit 2; }
if cargo run --quiet --manifest-path "$T/Cargo.toml"; then
    echo "as described: the database is gone with the connection"
else
    echo "CHANGED: it no longer behaves as described"
    exit 1
fi
