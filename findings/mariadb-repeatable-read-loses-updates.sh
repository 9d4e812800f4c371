#!/usr/bin/env bash
# MariaDB: a `REPEATABLE READ` transaction, which is the default, overwrites what others have committed since it read,
# and says nothing; its own UPDATE finds rows that its SELECT does not.
#
# Versions:  MariaDB 10.11 and PostgreSQL 15 (Debian 12), crate sqlx 0.9.0.
# Expected:  read, compute, write within one transaction, at an isolation by which what was read stays as it was: whoever
#            changes the row meanwhile is in the way of that, and one of the two is an error. So it is in PostgreSQL
#            (40001, at REPEATABLE READ), and in SQLite.
# Seen:      in MariaDB both are told that they have committed, and of two visitors' clicks one counts. Only its SELECTs
#            look at the state of the beginning: an UPDATE looks at that of now. `UPDATE … WHERE version = 5`, for a
#            version that the SELECT after it still shows, has affected no row; and one for the version 6, which nobody
#            in the transaction has seen, has affected one.
# Matters:   a cart, a balance or a list of JSON that is read, changed in the program and written, "in a transaction, to
#            be safe", loses changes; a test on PostgreSQL or SQLite would have failed. Read with FOR UPDATE, or write
#            with the version as a condition and look how many rows that has affected. `innodb_snapshot_isolation = ON`
#            (from 10.6.18 on; the default from 11.6.2 on) makes it an error, as in PostgreSQL.
# Source:    https://mariadb.com/kb/en/innodb-system-variables/#innodb_snapshot_isolation.
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
use std::process::ExitCode;

use sqlx::{Connection, MySqlConnection, PgConnection};

fn said<T>(done: &sqlx::Result<T>) -> String {
    match done {
        Ok(_) => "Ok".into(),
        Err(error) => error.as_database_error().unwrap().code().unwrap().into_owned(),
    }
}

/// Two read a cart of one teapot, and each adds one and writes it. What the second is told, and how many there are then.
macro_rules! clicks {
    ($ours:expr, $others:expr, $begin:expr, $before:expr) => {{
        for statement in
            ["DROP TABLE IF EXISTS cart", "CREATE TABLE cart (teapots INT)", "INSERT INTO cart VALUES (1)", $before]
        {
            sqlx::query(statement).execute(&mut $ours).await.unwrap();
        }
        let read = "SELECT teapots FROM cart";
        let mut first = $others.begin_with($begin).await.unwrap();
        let mut second = $ours.begin_with($begin).await.unwrap();
        let seen = [
            sqlx::query_scalar::<_, i32>(read).fetch_one(&mut *first).await.unwrap(),
            sqlx::query_scalar::<_, i32>(read).fetch_one(&mut *second).await.unwrap(),
        ];
        assert_eq!(seen, [1, 1]);
        // What was computed from what was read.
        let write = "UPDATE cart SET teapots = 2";
        sqlx::query(write).execute(&mut *first).await.unwrap();
        first.commit().await.unwrap();
        let wrote = sqlx::query(write).execute(&mut *second).await;
        let is_ok = wrote.is_ok();
        if is_ok {
            second.commit().await.unwrap()
        } else {
            second.rollback().await.unwrap()
        }
        let left: i32 = sqlx::query_scalar(read).fetch_one(&mut $ours).await.unwrap();
        (said(&wrote), left)
    }};
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, postgres, mariadb] = &arguments[..] else { panic!() };
    let url = format!("postgres://postgres@127.0.0.1:{postgres}/postgres");
    let pg = async || PgConnection::connect(&url).await.unwrap();
    let url = format!("mysql://tester@127.0.0.1:{mariadb}/finding");
    let my = async || MySqlConnection::connect(&url).await.unwrap();
    let (mut a, mut b, mut c, mut d) = (pg().await, pg().await, my().await, my().await);

    let level: String = sqlx::query_scalar("SELECT @@tx_isolation").fetch_one(&mut c).await.unwrap();
    println!("MariaDB: by default {level}");
    let postgres = clicks!(a, b, "BEGIN ISOLATION LEVEL REPEATABLE READ", "SELECT 1");
    let mariadb = clicks!(c, d, "START TRANSACTION", "SET innodb_snapshot_isolation = OFF");
    let strict = clicks!(c, d, "START TRANSACTION", "SET innodb_snapshot_isolation = ON");
    println!("PostgreSQL: the second UPDATE: {postgres:?}");
    println!("MariaDB: the second UPDATE: {mariadb:?}");
    println!("MariaDB, innodb_snapshot_isolation = ON: the second UPDATE: {strict:?}");

    // What one transaction sees, and what its statements find.
    sqlx::query("SET innodb_snapshot_isolation = OFF").execute(&mut c).await.unwrap();
    for statement in ["CREATE TABLE record (version INT)", "INSERT INTO record VALUES (5)"] {
        sqlx::query(statement).execute(&mut c).await.unwrap();
    }
    let mut transaction = c.begin().await.unwrap();
    let read = "SELECT version FROM record";
    let before: i32 = sqlx::query_scalar(read).fetch_one(&mut *transaction).await.unwrap();
    sqlx::query("UPDATE record SET version = 6").execute(&mut d).await.unwrap();
    let mut rows = Vec::new();
    for statement in
        ["UPDATE record SET version = 7 WHERE version = 5", "UPDATE record SET version = 7 WHERE version = 6"]
    {
        let seen: i32 = sqlx::query_scalar(read).fetch_one(&mut *transaction).await.unwrap();
        let done = sqlx::query(statement).execute(&mut *transaction).await.unwrap().rows_affected();
        println!("MariaDB: it reads version {seen}; {statement}: rows {done}");
        rows.push((seen, done));
    }
    transaction.rollback().await.unwrap();
    let so = |said: &str, left| (said.to_string(), left);
    let is_so = level == "REPEATABLE-READ"
        && [&postgres, &mariadb, &strict] == [&so("40001", 2), &so("Ok", 2), &so("HY000", 2)]
        && before == 5
        && rows == [(5, 0), (5, 1)];
    if is_so { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
END
cargo build --quiet --manifest-path "$T/Cargo.toml" || { echo "it could not be built"; exit 2; }
if cargo run --quiet --manifest-path "$T/Cargo.toml" -- "$pg" "$my"; then
    echo "as described: both have committed, and one of them counts"
else
    echo "CHANGED: it no longer behaves as described"
    exit 1
fi
