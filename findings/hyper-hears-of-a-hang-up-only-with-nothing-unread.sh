#!/usr/bin/env bash
# hyper: a client that hangs up has its request dropped; with an upload that nobody reads the handler goes on to its end.
#
# Versions:  crates axum 0.8.9, hyper 1.12.0, tokio 1.54.1.
# Expected:  a client that closes its connection has the future of its request dropped, whatever the request was: so it is
#            with a GET, and with a POST whose handler has read the body.
# Seen:      an upload of 100,000 bytes that its handler has not read keeps the handler alive: the server does not look at
#            the connection while something that came on it waits to be read. So does a second request that was sent behind
#            the first one. An upload of five bytes does not: the server takes those by itself.
# Matters:   a handler that waits, for a lock, a queue or another service, before it reads the upload goes on after its
#            client has left: its lock is held, its permit of a limit is taken. Read the body first, or put a timeout
#            around what waits. A test with a small body shows nothing of it.
# Source:    https://docs.rs/hyper/1.12.0/hyper/server/conn/http1/struct.Builder.html#method.half_close says that a client
#            which closes its side ends the request; that the input has to be read up to there, it does not.
set -euo pipefail

T=$(mktemp -d)
trap 'rm -rf "$T"' EXIT
command -v cargo >/dev/null || { echo "cargo is missing: install Rust"; exit 2; }
echo "crates axum 0.8.9, hyper 1.12.0, tokio 1.54.1"

mkdir "$T/src"
cat >"$T/Cargo.toml" <<'END'
[package]
name = "finding"
version = "0.0.0"
edition = "2024"

[dependencies]
axum = "=0.8.9"
hyper = "=1.12.0"
tokio = { version = "=1.54.1", features = ["full"] }
END
cat >"$T/src/main.rs" <<'END'
use std::{future::pending, process::ExitCode, sync::Arc, time::Duration};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    routing::post,
};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
    sync::Notify,
    time::{sleep, timeout},
};

#[derive(Clone, Default)]
struct Events {
    arrived: Arc<Notify>,
    dropped: Arc<Notify>,
}

/// Says that the handler's future is gone.
struct Tells(Arc<Notify>);

impl Drop for Tells {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

async fn waits(events: Events) {
    let _tells = Tells(events.dropped);
    events.arrived.notify_one();
    pending::<()>().await;
}

async fn reads(State(events): State<Events>, _: Bytes) {
    waits(events).await;
}

async fn does_not_read(State(events): State<Events>, _body: Body) {
    waits(events).await;
}

/// Whether the handler's future is dropped once the client has closed its connection.
async fn is_dropped(what: &str, request: &str) -> bool {
    let events = Events::default();
    let app = Router::new()
        .route("/reads", post(reads).get(reads))
        .route("/unread", post(does_not_read))
        .with_state(events.clone());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(axum::serve(listener, app).into_future());
    let mut client = TcpStream::connect(address).await.unwrap();
    client.write_all(request.as_bytes()).await.unwrap();
    events.arrived.notified().await;
    sleep(Duration::from_millis(300)).await;
    drop(client);
    let is_dropped = timeout(Duration::from_secs(3), events.dropped.notified()).await.is_ok();
    println!("{what:42} the handler {}", if is_dropped { "is dropped" } else { "goes on" });
    is_dropped
}

#[tokio::main]
async fn main() -> ExitCode {
    let get = "GET /reads HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let post = |path, length| {
        let head = format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n");
        head + &"x".repeat(length)
    };
    let seen = [
        is_dropped("a GET", get).await,
        is_dropped("a POST of 100,000 bytes that are read", &post("/reads", 100_000)).await,
        is_dropped("a POST of five bytes that nobody reads", &post("/unread", 5)).await,
        is_dropped("a POST of 100,000 bytes that nobody reads", &post("/unread", 100_000)).await,
        is_dropped("a GET with another one behind it", &get.repeat(2)).await,
    ];
    if seen == [true, true, true, false, false] { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
END
cargo build --quiet --manifest-path "$T/Cargo.toml" || { echo "it could not be built"; exit 2; }
if cargo run --quiet --manifest-path "$T/Cargo.toml"; then
    echo "as described: a hang-up is heard of when all that the client has sent is read"
else
    echo "CHANGED: it no longer behaves as described"
    exit 1
fi
