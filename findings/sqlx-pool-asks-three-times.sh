#!/usr/bin/env bash
# sqlx: a pool asks the server three times for each query, and still twice when it is told not to ask before.
#
# Version:   crate sqlx 0.9.0, PostgreSQL 15 (Debian 12).
# Expected:  a query on a pool costs the round trip of the query. `test_before_acquire`, which is on, is documented to
#            add another; turned off, it leaves one.
# Seen:      whenever a connection is given back, the pool asks the server once more whether it is alive, and no setting
#            turns that off. The caller has its rows by then, but the connection is nobody else's until the answer is
#            there: a pool of one connection, 20 ms from its server, has an answer to a query each 60 ms, and each 40
#            ms with `test_before_acquire(false)`, where the connection by itself has one each 20 ms.
# Matters:   a pool that was measured on one machine has a half or a third of the throughput with a server elsewhere,
#            and callers wait for a connection while all of them are idle, as it seems, in the application. It needs
#            two or three times the connections, and the server counts two or three times the messages. Several
#            queries of one request belong on one connection that has been acquired for all of them.
# Source:    sqlx-core, src/pool/connection.rs, `return_to_pool`, ends with a `ping`; the documentation of
#            `PoolOptions::test_before_acquire` speaks of the other one.
set -euo pipefail

T=$(mktemp -d)
P=()
trap 'kill "${P[@]}" 2>/dev/null || true; wait; rm -rf "$T"' EXIT
command -v cargo >/dev/null || { echo "cargo is missing: install Rust"; exit 2; }
command -v python3 >/dev/null || { echo "python3 is missing: apt-get install python3"; exit 2; }
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
use std::{
    process::ExitCode,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    time::{Duration, Instant},
};

use sqlx::{Connection, PgConnection, postgres::PgPoolOptions};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy},
    net::{TcpListener, TcpStream},
    time::sleep,
};

const QUERIES: usize = 20;
const AWAY: Duration = Duration::from_millis(20);
/// The message with which the server ends each of its answers.
const READY: &[u8] = b"Z\0\0\0\x05";
static ANSWERS: AtomicUsize = AtomicUsize::new(0);

/// Carries one connection to the server, counts what comes back, and takes its time for it.
async fn carry(client: TcpStream, server: u16) {
    let server = TcpStream::connect(("127.0.0.1", server)).await.unwrap();
    let ((mut from_client, mut to_client), (mut from_server, mut to_server)) = (client.into_split(), server.into_split());
    tokio::spawn(async move { copy(&mut from_client, &mut to_server).await });
    let mut bytes = vec![0; 1 << 16];
    while let Ok(length @ 1..) = from_server.read(&mut bytes).await {
        ANSWERS.fetch_add(bytes[..length].windows(READY.len()).filter(|it| *it == READY).count(), Relaxed);
        sleep(AWAY).await;
        to_client.write_all(&bytes[..length]).await.unwrap();
    }
}

/// How many answers there were, for how many a query is, once the last of them has come.
async fn report(what: &str, before: usize, begin: Instant) -> usize {
    let each = begin.elapsed() / QUERIES as u32;
    sleep(Duration::from_millis(500)).await;
    let answers = ANSWERS.load(Relaxed) - before;
    println!("{what:45} {answers} answers to {QUERIES} queries, of which each took {} ms", each.as_millis());
    answers
}

#[tokio::main]
async fn main() -> ExitCode {
    let server = std::env::args().nth(1).unwrap().parse().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("postgres://postgres@{}/postgres?sslmode=disable", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(carry(client, server));
        }
    });

    let mut seen = Vec::new();
    let mut connection = PgConnection::connect(&url).await.unwrap();
    sqlx::query("SELECT 1").execute(&mut connection).await.unwrap();
    let (before, begin) = (ANSWERS.load(Relaxed), Instant::now());
    for _ in 0..QUERIES {
        sqlx::query("SELECT 1").execute(&mut connection).await.unwrap();
    }
    seen.push(report("a connection by itself", before, begin).await);

    for test_before in [false, true] {
        let options = PgPoolOptions::new().max_connections(1).test_before_acquire(test_before);
        let pool = options.connect(&url).await.unwrap();
        sqlx::query("SELECT 1").execute(&pool).await.unwrap();
        sleep(Duration::from_millis(500)).await;
        let (before, begin) = (ANSWERS.load(Relaxed), Instant::now());
        for _ in 0..QUERIES {
            sqlx::query("SELECT 1").execute(&pool).await.unwrap();
        }
        seen.push(report(&format!("a pool, test_before_acquire({test_before})"), before, begin).await);

        let (before, begin) = (ANSWERS.load(Relaxed), Instant::now());
        let mut connection = pool.acquire().await.unwrap();
        for _ in 0..QUERIES {
            sqlx::query("SELECT 1").execute(&mut *connection).await.unwrap();
        }
        drop(connection);
        seen.push(report("    all of them on a connection acquired once", before, begin).await);
    }
    let n = QUERIES;
    if seen == [n, 2 * n, n + 1, 3 * n, n + 2] { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
END
cargo build --quiet --manifest-path "$T/Cargo.toml" || { echo "it could not be built"; exit 2; }
if cargo run --quiet --manifest-path "$T/Cargo.toml" -- "$port"; then
    echo "as described: a connection that is given back is asked first"
else
    echo "CHANGED: it no longer behaves as described"
    exit 1
fi
