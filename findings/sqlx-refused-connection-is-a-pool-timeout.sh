#!/usr/bin/env bash
# sqlx: a pool whose server refuses connections waits for its whole timeout, and then blames the pool.
#
# Version:   crate sqlx 0.9.0.
# Expected:  a server that is not running refuses the connection within a millisecond, and the caller gets
#            that error (`Io`, ConnectionRefused), as from a single connection; or, if the pool tries again,
#            an error at the end of the wait that says why no connection could be made.
# Seen:      the pool tries again for `acquire_timeout` (30 s by default) and returns `PoolTimedOut`, "pool
#            timed out while waiting for an open connection", without a source: the same error as that of a
#            pool whose connections are all in use.
# Matters:   an operator who reads it raises the size of the pool, while the server is down or the port is
#            wrong. And a login page hangs for half a minute before it says 503. A store has to set a short
#            `acquire_timeout`, and to make one connection by itself to learn the reason.
# Source:    sqlx-core, src/pool/inner.rs, `connect`: refused connections, and errors that a driver counts
#            as passing, are dropped in the loop; what leaves it is the timeout.
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
sqlx = { version = "=0.9.0", default-features = false, features = ["runtime-tokio", "postgres"] }
tokio = { version = "=1.54.1", features = ["full"] }
END
cat >"$T/src/main.rs" <<'END'
use std::{
    error::Error,
    process::ExitCode,
    time::{Duration, Instant},
};
use sqlx::{Connection, PgConnection, postgres::PgPoolOptions};

#[tokio::main]
async fn main() -> ExitCode {
    // A port at which nobody listens.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("postgres://app@127.0.0.1:{}/app", listener.local_addr().unwrap().port());
    drop(listener);

    let begun = Instant::now();
    let single = PgConnection::connect(&url).await.unwrap_err();
    println!("a connection: after {:>8.1?}: {single:?}", begun.elapsed());
    let at_once = begun.elapsed() < Duration::from_millis(500);

    let begun = Instant::now();
    let wait = Duration::from_secs(3);
    let pool = PgPoolOptions::new().acquire_timeout(wait).connect_lazy(&url).unwrap();
    let pooled = pool.acquire().await.unwrap_err();
    println!("a pool:       after {:>8.1?}: {pooled:?}, source {:?}", begun.elapsed(), pooled.source());
    println!("              \"{pooled}\"");
    let waited = begun.elapsed() + Duration::from_millis(100) >= wait;

    let as_described = matches!(single, sqlx::Error::Io(_))
        && at_once
        && matches!(pooled, sqlx::Error::PoolTimedOut)
        && pooled.source().is_none()
        && waited;
    if as_described { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
END
cargo build --quiet --manifest-path "$T/Cargo.toml" || { echo "it could not be built"; exit 2; }
if cargo run --quiet --manifest-path "$T/Cargo.toml"; then
    echo "as described: nothing says that the connection was refused"
else
    echo "CHANGED: it no longer behaves as described"
    exit 1
fi
