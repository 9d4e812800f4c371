#!/usr/bin/env bash
# PgBouncer and sqlx: one client's LISTEN behind a pooler fails the COMMIT of another, which was carried out.
#
# Versions:  PgBouncer 1.18.0, PostgreSQL 15 (Debian 12), crate sqlx 0.9.0.
# Expected:  in `pool_mode = transaction` a LISTEN is of no use, because the next transaction may have another
#            connection of the server. It harms nobody else.
# Seen:      the LISTEN stays on the server's connection when its client's transaction is over, also when that
#            client is gone. The next client that is given the connection gets the notification in the middle of
#            the answer to its own statement. An sqlx connection that has never listened does not skip it: the
#            statement is `Protocol("execute: unexpected message: NotificationResponse …")`. If that is a COMMIT,
#            the transaction is committed and reported as failed.
# Matters:   one program that listens through the pooler, a library's cache perhaps, makes unrelated statements
#            of other programs fail now and then, as often as somebody notifies. Whoever repeats what has failed
#            does it twice. A program that wants to listen has to look first whether it has a connection of its
#            own, or to connect past the pooler.
# Source:    PgBouncer: in transaction mode `server_reset_query` (DISCARD ALL) is not sent between clients.
#            sqlx-postgres, src/connection/stream.rs, `recv_unchecked`: a notification is skipped where there is
#            a buffer for it, which a `PgListener` alone has; src/connection/executor.rs refuses the rest.
set -euo pipefail

bin=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -1)
[ -x "$bin/initdb" ] || { echo "PostgreSQL is missing: apt-get install postgresql"; exit 2; }
bouncer=$(PATH=$PATH:/usr/sbin command -v pgbouncer) || { echo "pgbouncer is missing: apt-get install pgbouncer"; exit 2; }
command -v python3 >/dev/null || { echo "python3 is missing: apt-get install python3"; exit 2; }
command -v cargo >/dev/null || { echo "cargo is missing: install Rust"; exit 2; }
T=$(mktemp -d)
P=()
trap 'kill "${P[@]}" 2>/dev/null || true; wait; rm -rf "$T"' EXIT
"$bin/postgres" --version
"$bouncer" --version | head -1
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
use std::{env, process::ExitCode};

use sqlx::{Connection, Executor, PgConnection, Row, raw_sql};

async fn connect(port: &str) -> PgConnection {
    let url = format!("postgres://app@127.0.0.1:{port}/postgres");
    PgConnection::connect(&url).await.unwrap()
}

#[tokio::main]
async fn main() -> ExitCode {
    let ports: Vec<_> = env::args().skip(1).collect();
    let mut direct = connect(&ports[0]).await;
    direct.execute(raw_sql("CREATE TABLE orders (id INT)")).await.unwrap();

    let mut one = connect(&ports[1]).await;
    one.execute(raw_sql("LISTEN news")).await.unwrap();
    one.close().await.unwrap();

    // Another client, which listens to nothing. Its transaction keeps the server's only connection.
    let mut other = connect(&ports[1]).await;
    let mut transaction = other.begin().await.unwrap();
    let channels = transaction.fetch_all(raw_sql("SELECT pg_listening_channels()")).await.unwrap();
    println!("what the other client's connection listens to: {}", channels.len());
    transaction.execute(raw_sql("INSERT INTO orders VALUES (1)")).await.unwrap();
    // The server tells of it when the transaction is over.
    direct.execute(raw_sql("NOTIFY news")).await.unwrap();
    let commit = transaction.commit().await;
    println!("the other client's COMMIT: {commit:?}");
    let orders = direct.fetch_one(raw_sql("SELECT count(*) FROM orders")).await.unwrap();
    let orders: i64 = orders.get(0);
    println!("orders: {orders}");

    let refused = "execute: unexpected message: NotificationResponse";
    let is_refused = matches!(&commit, Err(sqlx::Error::Protocol(why)) if why.starts_with(refused));
    let as_described = channels.len() == 1 && is_refused && orders == 1;
    if as_described { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
END
cargo build --quiet --manifest-path "$T/Cargo.toml" || { echo "it could not be built"; exit 2; }

as=()
mkdir "$T/db"
# Neither runs as root.
[ "$(id -u)" != 0 ] || {
    chmod 755 "$T"
    chown nobody "$T/db"
    as=(setpriv --reuid=nobody --regid=nogroup --clear-groups)
}
free() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
direct=$(free)
pooled=$(free)
(
    cd "$T/db"
    "${as[@]}" "$bin/initdb" -D "$T/db" -A trust -U app --no-sync --no-locale >/dev/null
)
"${as[@]}" "$bin/postgres" -D "$T/db" -p "$direct" -k "$T/db" -c listen_addresses=127.0.0.1 \
    >"$T/postgres.log" 2>&1 &
P+=($!)
cat >"$T/bouncer.ini" <<END
[databases]
postgres = host=127.0.0.1 port=$direct user=app
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = $pooled
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 1
ignore_startup_parameters = extra_float_digits
END
"${as[@]}" "$bouncer" "$T/bouncer.ini" >"$T/bouncer.log" 2>&1 &
P+=($!)
for port in "$direct" "$pooled"; do
    for _ in $(seq 100); do "$bin/pg_isready" -q -h 127.0.0.1 -p "$port" && break || sleep 0.1; done
done

if cargo run --quiet --manifest-path "$T/Cargo.toml" -- "$direct" "$pooled"; then
    echo "as described: a COMMIT that was carried out is an error, because another client has listened"
else
    echo "CHANGED: it no longer behaves as described"
    exit 1
fi
