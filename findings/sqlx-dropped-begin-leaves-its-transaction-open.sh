#!/usr/bin/env bash
# sqlx: a `begin()` that is dropped while the server answers leaves its transaction open on the pooled connection, and
# what the next user of the connection writes is not committed.
#
# Versions:  crate sqlx 0.9.0, PostgreSQL 15 and MariaDB 10.11 (Debian 12).
# Expected:  a transaction that is dropped is rolled back, as the documentation promises; one that has not even begun
#            when its future is dropped leaves nothing behind.
# Seen:      the driver counts a transaction from the server's answer to BEGIN on. Dropped before, it sends no ROLLBACK;
#            the connection goes back to the pool with BEGIN on its way, passes the pool's test, and is given to the next
#            call. Its INSERT is `Ok`, one row affected, and nobody else sees the row; it is gone when the pool is
#            closed. With PostgreSQL and with MariaDB.
# Matters:   hyper drops a handler whose client has gone, and `tokio::time::timeout` and `select!` what was too slow. It
#            takes one dropped `pool.begin()`, in whatever handler, and the logins and orders of others that come by that
#            connection are answered with welcome and not saved, until it has lived its half hour. Run what begins a
#            transaction in a task of its own (`tokio::spawn`), or close the connection if it is dropped meanwhile
#            (`close_on_drop`).
# Source:    https://github.com/launchbadge/sqlx/issues/4385, /4393 (mended after 0.9.0 for PostgreSQL).
set -euo pipefail

T=$(mktemp -d)
P=()
trap 'kill "${P[@]}" 2>/dev/null || true; wait; rm -rf "$T"' EXIT
command -v cargo >/dev/null || { echo "cargo is missing: install Rust"; exit 2; }
bin=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -1)
[ -x "$bin/initdb" ] || { echo "PostgreSQL is missing: apt-get install postgresql"; exit 2; }
mariadb=$(PATH=$PATH:/usr/sbin command -v mariadbd) || { echo "MariaDB is missing: apt-get install mariadb-server"; exit 2; }
echo "crate sqlx 0.9.0; $("$bin/postgres" --version)"
"$mariadb" --version

as=()
mkdir "$T/pg" "$T/my"
# Neither runs as root.
[ "$(id -u)" != 0 ] || {
    chmod 755 "$T"
    chown nobody "$T/pg" "$T/my"
    as=(setpriv --reuid=nobody --regid=nogroup --clear-groups)
}
free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
cd "$T/pg"
pg=$(free_port)
"${as[@]}" "$bin/initdb" -D "$T/pg" -A trust -U postgres --no-sync --no-locale >/dev/null
"${as[@]}" "$bin/postgres" -D "$T/pg" -p "$pg" -k "$T/pg" -c listen_addresses=127.0.0.1 >"$T/pg.log" 2>&1 &
P+=($!)
cd "$T/my"
my=$(free_port)
"${as[@]}" mariadb-install-db --no-defaults --datadir="$T/my" --auth-root-authentication-method=normal >/dev/null 2>&1
"${as[@]}" "$mariadb" --no-defaults --datadir="$T/my" --bind-address=127.0.0.1 --port="$my" --socket="$T/my/socket" \
    --pid-file="$T/my/pid" >"$T/my.log" 2>&1 &
P+=($!)
for _ in $(seq 100); do "$bin/pg_isready" -q -h 127.0.0.1 -p "$pg" && break || sleep 0.1; done
ask() { mariadb --no-defaults --socket="$T/my/socket" --user=root -e "$1"; }
for _ in $(seq 200); do ask "SELECT 1" >/dev/null 2>&1 && break || sleep 0.1; done
ask "CREATE DATABASE finding; CREATE USER tester@127.0.0.1; GRANT ALL ON finding.* TO tester@127.0.0.1"

mkdir "$T/src"
cat >"$T/Cargo.toml" <<'END'
[package]
name = "finding"
version = "0.0.0"
edition = "2024"

[dependencies]
sqlx = { version = "=0.9.0", default-features = false, features = ["runtime-tokio", "postgres", "mysql"] }
tokio = { version = "=1.54.1", features = ["full"] }
END
cat >"$T/src/main.rs" <<'END'
use std::{
    future::{Future, poll_fn},
    pin::pin,
    process::ExitCode,
    task::Poll,
};

use sqlx::pool::PoolOptions;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
};

/// Hands on what comes to a port of its own, within the one thread of this program: while a future is being asked, no
/// answer arrives.
async fn relay(to: String) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut server = TcpStream::connect(format!("127.0.0.1:{to}")).await.unwrap();
            tokio::spawn(async move { copy_bidirectional(&mut client, &mut server).await });
        }
    });
    port
}

/// Asks a future as often as said, and drops it. Whether it was ready before.
async fn drop_after<F: Future>(asked: usize, future: F) -> bool {
    let mut future = pin!(future);
    let mut count = 0;
    poll_fn(|context| match future.as_mut().poll(context) {
        Poll::Ready(_) => Poll::Ready(true),
        Poll::Pending => {
            count += 1;
            if count == asked { Poll::Ready(false) } else { Poll::Pending }
        }
    })
    .await
}

/// Drops `pool.begin()` at each point at which it waits; then inserts a row by way of the pool. Of how many of these
/// rows another connection knows while the pool is open, and when it is closed; and how many there are.
macro_rules! lost {
    ($database:ty, $url:expr) => {{
        let others = PoolOptions::<$database>::new().max_connections(1).connect(&$url).await.unwrap();
        sqlx::query("CREATE TABLE orders (number INT)").execute(&others).await.unwrap();
        let (mut rows, mut open, mut closed) = (0, 0, 0);
        for asked in 1.. {
            let pool = PoolOptions::<$database>::new().max_connections(1).connect(&$url).await.unwrap();
            let has_begun = drop_after(asked, pool.begin()).await;
            let done = sqlx::query("INSERT INTO orders VALUES (7)").execute(&pool).await.unwrap();
            assert_eq!(done.rows_affected(), 1);
            rows += 1;
            let count = "SELECT count(*) FROM orders";
            open += sqlx::query_scalar::<_, i64>(count).fetch_one(&others).await.unwrap();
            pool.close().await;
            closed += sqlx::query_scalar::<_, i64>(count).fetch_one(&others).await.unwrap();
            sqlx::query("DELETE FROM orders").execute(&others).await.unwrap();
            if has_begun {
                break;
            }
        }
        (rows, open, closed)
    }};
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, postgres, mariadb] = &arguments[..] else { panic!() };
    let postgres = relay(postgres.clone()).await;
    let postgres = format!("postgres://postgres@127.0.0.1:{postgres}/postgres");
    let mariadb = relay(mariadb.clone()).await;
    let mariadb = format!("mysql://tester@127.0.0.1:{mariadb}/finding");
    let seen = [("PostgreSQL", lost!(sqlx::Postgres, postgres)), ("MariaDB", lost!(sqlx::MySql, mariadb))];
    for (what, (rows, open, closed)) in seen {
        println!(
            "{what}: dropped at each of {} points and once not: {rows} rows inserted, {open} that others see, {closed} that are there afterwards",
            rows - 1
        );
    }
    let loses = |(rows, open, closed): (i64, i64, i64)| open < rows && closed == open;
    if seen.iter().all(|(_, seen)| loses(*seen)) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
END
cargo build --quiet --manifest-path "$T/Cargo.toml" || { echo "it could not be built"; exit 2; }
if cargo run --quiet --manifest-path "$T/Cargo.toml" -- "$pg" "$my"; then
    echo "as described: what is written next on that connection is not committed"
else
    echo "CHANGED: it no longer behaves as described"
    exit 1
fi
