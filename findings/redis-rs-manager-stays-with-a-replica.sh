#!/usr/bin/env bash
# redis-rs: a ConnectionManager never leaves a server that has been demoted.
#
# Versions:  crate redis 1.8.1, Redis 7.0.15 (Debian 12).
# Expected:  the manager "automatically reconnects when necessary". After a failover the address (a DNS
#            name, a virtual address, a proxy) leads to the new master, and the old one answers every
#            write with READONLY. After one or a few of those the manager connects to the address again.
# Seen:      READONLY does not count as a reason to reconnect. The connection is alive, so all writes fail
#            for as long as the demoted server runs; a new connection to the same address writes at once.
# Matters:   logins and saves fail until the process is restarted, long after the failover is over. A
#            store has to end the connection by itself (`QUIT`, or a new client) when it sees READONLY.
# Source:    aio/connection_manager.rs, `reconnect_if_dropped!`: only `is_unrecoverable_error()` counts.
set -euo pipefail

T=$(mktemp -d)
trap 'rm -rf "$T"' EXIT
command -v cargo >/dev/null || { echo "cargo is missing: install Rust"; exit 2; }
command -v redis-server >/dev/null || { echo "redis-server is missing: apt-get install redis-server"; exit 2; }
echo "crate redis 1.8.1; $(redis-server --version)"

mkdir "$T/src"
cat >"$T/Cargo.toml" <<'END'
[package]
name = "finding"
version = "0.0.0"
edition = "2024"

[dependencies]
redis = { version = "=1.8.1", features = ["tokio-comp", "connection-manager"] }
tokio = { version = "=1.54.1", features = ["full"] }
END
cat >"$T/src/main.rs" <<'END'
use std::{
    process::{Child, Command, ExitCode, Stdio},
    sync::{Arc, atomic::{AtomicU16, Ordering::SeqCst}},
    time::Duration,
};
use tokio::net::{TcpListener, TcpStream};

struct Server(Child, u16);

impl Server {
    async fn start() -> Self {
        let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
        let text = port.to_string();
        let child = Command::new("redis-server")
            .args(["--port", &text, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .current_dir(std::env::args().nth(1).unwrap())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Self(child, port)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let (old, new) = (Server::start().await, Server::start().await);

    // The address that the application knows: it leads each new connection to the master of the day.
    let master = Arc::new(AtomicU16::new(old.1));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn({
        let master = master.clone();
        async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let mut server = TcpStream::connect(("127.0.0.1", master.load(SeqCst))).await.unwrap();
                tokio::spawn(async move {
                    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                });
            }
        }
    });

    let client = redis::Client::open(format!("redis://{address}/?protocol=resp3")).unwrap();
    let mut manager = client.get_connection_manager().await.unwrap();
    let () = redis::cmd("SET").arg("key").arg(1).query_async(&mut manager).await.unwrap();
    println!("before the failover:  the manager writes");

    let mut admin = redis::Client::open(format!("redis://127.0.0.1:{}", old.1)).unwrap();
    let () = redis::cmd("REPLICAOF").arg("127.0.0.1").arg(new.1).query(&mut admin).unwrap();
    master.store(new.1, SeqCst);

    let (mut refused, mut last) = (0, None);
    for _ in 0..50 {
        let answer: redis::RedisResult<()> =
            redis::cmd("SET").arg("key").arg(2).query_async(&mut manager).await;
        if let Err(error) = answer {
            refused += i32::from(error.code() == Some("READONLY"));
            last = Some(error.to_string());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    println!("after it:             {refused} of 50 writes in 5 s: READONLY");
    println!("                      {}", last.unwrap_or_default());
    let mut fresh = client.get_multiplexed_async_connection().await.unwrap();
    let written: redis::RedisResult<()> =
        redis::cmd("SET").arg("key").arg(3).query_async(&mut fresh).await;
    println!("a new connection:     {written:?}");
    if refused == 50 && written.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
END
cargo build --quiet --manifest-path "$T/Cargo.toml" || { echo "it could not be built"; exit 2; }
if cargo run --quiet --manifest-path "$T/Cargo.toml" -- "$T"; then
    echo "as described: it stays with the replica"
else
    echo "CHANGED: it no longer behaves as described"
    exit 1
fi
