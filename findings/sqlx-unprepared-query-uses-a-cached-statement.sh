#!/usr/bin/env bash
# sqlx: `persistent(false)` still runs a prepared statement, if another query with the same text was cached.
#
# Version:   crate sqlx 0.9.0, PostgreSQL 15 (Debian 12).
# Expected:  `query(…).persistent(false)` is sent as an unnamed statement, every time. That is how one gets
#            along with a pooler that hands each transaction another connection to the server, where named
#            statements are missing.
# Seen:      the flag says only whether the statement is to be *put into* the cache. If the same text is in
#            the connection's cache already, from a query without the flag, its named statement is used: once
#            the server does not know that name (here DEALLOCATE ALL in place of a pooler), the query that
#            was to be unprepared fails with 26000.
# Matters:   a store that has switched to unprepared statements, since it saw a pooler, goes on failing with
#            the statements of before. The switch needs new connections, `statement_cache_capacity(0)`, or
#            another text.
# Source:    sqlx-postgres, src/connection/executor.rs, get_or_prepare: the cache is looked at first.
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

use sqlx::{Connection, PgConnection, Row};

const TEXT: &str = "SELECT 1 + $1";

async fn unprepared(connection: &mut PgConnection) -> Result<i32, String> {
    let row = sqlx::query(TEXT).persistent(false).bind(1).fetch_one(connection).await;
    row.map(|row| row.get(0)).map_err(|error| error.to_string())
}

#[tokio::main]
async fn main() -> ExitCode {
    let url = format!("postgres://postgres@127.0.0.1:{}/postgres", std::env::args().nth(1).unwrap());

    let mut fresh = PgConnection::connect(&url).await.unwrap();
    let first = unprepared(&mut fresh).await;
    sqlx::raw_sql("DEALLOCATE ALL").execute(&mut fresh).await.unwrap();
    let after = unprepared(&mut fresh).await;
    println!("never prepared:               {first:?}, after DEALLOCATE ALL: {after:?}");

    let mut used = PgConnection::connect(&url).await.unwrap();
    sqlx::query(TEXT).bind(1).fetch_one(&mut used).await.unwrap();
    let first = unprepared(&mut used).await;
    sqlx::raw_sql("DEALLOCATE ALL").execute(&mut used).await.unwrap();
    let again = unprepared(&mut used).await;
    println!("the same text prepared once:  {first:?}, after DEALLOCATE ALL: {again:?}");

    let as_described = after == Ok(2)
        && first == Ok(2)
        && again.is_err_and(|text| text.contains("prepared statement \"sqlx_s_1\" does not exist"));
    if as_described { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
END
cargo build --quiet --manifest-path "$T/Cargo.toml" || { echo "it could not be built"; exit 2; }
if cargo run --quiet --manifest-path "$T/Cargo.toml" -- "$port"; then
    echo "as described: an unprepared query ran a prepared statement"
else
    echo "CHANGED: it no longer behaves as described"
    exit 1
fi
