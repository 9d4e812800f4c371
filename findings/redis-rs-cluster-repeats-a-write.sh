#!/usr/bin/env bash
# redis-rs: the cluster client sends a write again when its answer was lost, and does not say so.
#
# Versions:  crate redis 1.8.1, Redis 7.0.15 (Debian 12), one node with all slots.
# Expected:  a connection that ends after INCR was sent and before its answer came is an error: whether the
#            command was carried out is not known. So it is with this crate's plain connections.
# Seen:      the cluster client connects again, sends INCR a second time, and returns its answer as if it
#            were the first: the counter is 2 after one call, and no error tells of it.
# Matters:   INCR, APPEND, RPUSH, LPOP, SET NX (a lock that one has got is reported as taken) are done
#            twice or misreported. A store's commands have to know themselves again, as by a mark.
# Source:    cluster_handling: a lost connection leads to a retry of the request, whatever its command;
#            `ClusterClientBuilder::retries` (16 by default) is the only switch.
set -euo pipefail

T=$(mktemp -d)
trap 'rm -rf "$T"' EXIT
command -v cargo >/dev/null || { echo "cargo is missing: install Rust"; exit 2; }
command -v redis-server >/dev/null || { echo "redis-server is missing: apt-get install redis-server"; exit 2; }
echo "crate redis 1.8.1; $(redis-server --version)"

mkdir "$T/src" "$T/data"
cat >"$T/Cargo.toml" <<'END'
[package]
name = "finding"
version = "0.0.0"
edition = "2024"

[dependencies]
redis = { version = "=1.8.1", features = ["tokio-comp", "cluster-async"] }
tokio = { version = "=1.54.1", features = ["full"] }
END
cat >"$T/src/main.rs" <<'END'
use std::{
    process::{Child, Command, ExitCode, Stdio},
    sync::{Arc, atomic::{AtomicBool, AtomicU32, Ordering::SeqCst}},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Passes bytes on; when it is armed, it ends a connection once in place of the answer to an INCR.
async fn relay(mut client: TcpStream, port: u16, armed: Arc<AtomicBool>, seen: Arc<AtomicU32>) {
    let mut server = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let (mut up, mut down) = ([0; 4096], [0; 4096]);
    let mut cut = false;
    loop {
        tokio::select! {
            n = client.read(&mut up) => match n {
                Ok(n) if n > 0 => {
                    if up[..n].windows(4).any(|word| word == b"INCR") {
                        seen.fetch_add(1, SeqCst);
                        cut = armed.swap(false, SeqCst);
                    }
                    server.write_all(&up[..n]).await.unwrap();
                }
                _ => return,
            },
            n = server.read(&mut down) => match n {
                Ok(n) if n > 0 && !cut => client.write_all(&down[..n]).await.unwrap(),
                _ => return,
            },
        }
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let folder = std::env::args().nth(1).unwrap();
    // The bus is at the port and 10000 more.
    let port = loop {
        let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
        if port < 55_000 && TcpListener::bind(("127.0.0.1", port + 10_000)).await.is_ok() {
            break port;
        }
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let _server = Server(
        Command::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""])
            .args(["--cluster-enabled", "yes", "--dir", &folder])
            .args(["--cluster-announce-ip", "127.0.0.1"])
            .args(["--cluster-announce-port", &address.port().to_string()])
            .args(["--cluster-announce-bus-port", &(port + 10_000).to_string()])
            .stdout(Stdio::null())
            .spawn()
            .unwrap(),
    );
    while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut admin = redis::Client::open(format!("redis://127.0.0.1:{port}")).unwrap();
    let () = redis::cmd("CLUSTER").arg("ADDSLOTSRANGE").arg(0).arg(16383).query(&mut admin).unwrap();
    while !redis::cmd("CLUSTER").arg("INFO").query::<String>(&mut admin).unwrap().contains("state:ok") {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    let (armed, seen) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
    tokio::spawn({
        let (armed, seen) = (armed.clone(), seen.clone());
        async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(relay(client, port, armed.clone(), seen.clone()));
            }
        }
    });

    let single = redis::Client::open(format!("redis://{address}")).unwrap();
    let mut single = single.get_multiplexed_async_connection().await.unwrap();
    armed.store(true, SeqCst);
    let answer: redis::RedisResult<u32> = redis::cmd("INCR").arg("plain").query_async(&mut single).await;
    println!("plain connection:  INCR was sent {} time(s), and returns {answer:?}", seen.swap(0, SeqCst));
    assert!(answer.is_err());

    let client = redis::cluster::ClusterClient::new([format!("redis://{address}")]).unwrap();
    let mut cluster = client.get_async_connection().await.unwrap();
    armed.store(true, SeqCst);
    let answer: redis::RedisResult<u32> =
        redis::cmd("INCR").arg("counter").query_async(&mut cluster).await;
    println!("cluster client:    INCR was sent {} time(s), and returns {answer:?}", seen.load(SeqCst));
    let as_described = answer.is_ok_and(|n| n == 2) && seen.load(SeqCst) == 2;
    if as_described { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
END
cargo build --quiet --manifest-path "$T/Cargo.toml" || { echo "it could not be built"; exit 2; }
if cargo run --quiet --manifest-path "$T/Cargo.toml" -- "$T/data"; then
    echo "as described: one call, carried out twice, no error"
else
    echo "CHANGED: it no longer behaves as described"
    exit 1
fi
