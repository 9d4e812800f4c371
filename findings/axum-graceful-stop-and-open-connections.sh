#!/usr/bin/env bash
# axum: a graceful stop waits for a stream of events until its visitor leaves, and for a websocket not at all.
#
# Versions:  crates axum 0.8.9, tokio 1.54.1.
# Expected:  `with_graceful_shutdown` treats connections that stay open alike: it waits until each handler has come to its
#            end, or ends them all.
# Seen:      a stream of events is a response that has not ended: the server waits for it, without a limit, for as long
#            as somebody has the page open. A websocket's connection has been handed over to a task with the upgrade,
#            and is nothing to the server any more: `serve` returns at once, while the socket is open and its task runs.
# Matters:   a page that listens for the end of its session holds up each deploy until the process is killed, together
#            with what it had still to save; and behind a websocket the program goes on to its end, and drops the task in
#            the middle of whatever it awaits. Tell both that the server stops (a `watch` channel), wait for the tasks
#            yourself, and stop waiting after some seconds.
# Source:    https://docs.rs/axum/0.8.9/axum/serve/struct.Serve.html#method.with_graceful_shutdown mentions neither.
set -euo pipefail

T=$(mktemp -d)
trap 'rm -rf "$T"' EXIT
command -v cargo >/dev/null || { echo "cargo is missing: install Rust"; exit 2; }
echo "crates axum 0.8.9, tokio 1.54.1"

mkdir "$T/src"
cat >"$T/Cargo.toml" <<'END'
[package]
name = "finding"
version = "0.0.0"
edition = "2024"

[dependencies]
axum = { version = "=0.8.9", features = ["ws"] }
futures-util = "=0.3.34"
tokio = { version = "=1.54.1", features = ["full"] }
END
cat >"$T/src/main.rs" <<'END'
use std::{convert::Infallible, process::ExitCode, time::Duration};

use axum::{
    Router,
    extract::ws::{Message, WebSocket, WebSocketUpgrade},
    response::sse::{Event, Sse},
    routing::get,
};
use futures_util::stream::{self, Stream, StreamExt};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::oneshot,
    time::timeout,
};

const PATIENCE: Duration = Duration::from_secs(10);
/// A text of three letters, as a client sends it, which masks it with zeros.
const HEY: &[u8] = b"\x81\x83\0\0\0\0hey";

async fn page() -> &'static str {
    "hello"
}

/// An event, and no other one.
async fn events() -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    Sse::new(stream::iter([Ok(Event::default().data("hello"))]).chain(stream::pending()))
}

/// Says hello, and sends back what comes.
async fn socket(upgrade: WebSocketUpgrade) -> axum::response::Response {
    upgrade.on_upgrade(async |mut socket: WebSocket| {
        let _ = socket.send(Message::text("hello")).await;
        while let Some(Ok(message)) = socket.recv().await {
            let _ = socket.send(message).await;
        }
    })
}

async fn read_until(client: &mut TcpStream, end: &str) -> bool {
    let (mut read, mut buffer) = (Vec::<u8>::new(), [0; 1024]);
    while !read.windows(end.len()).any(|it| it == end.as_bytes()) {
        match timeout(PATIENCE, client.read(&mut buffer)).await {
            Ok(Ok(length @ 1..)) => read.extend(&buffer[..length]),
            _ => return false,
        }
    }
    true
}

/// Whether the server stops while the client has this open, whether that still works then, and whether the server
/// stops once the client has left.
async fn stop_with(path: &str) -> (bool, bool, bool) {
    let app = Router::new().route("/page", get(page)).route("/events", get(events));
    let app = app.route("/socket", get(socket));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, told) = oneshot::channel::<()>();
    let server = axum::serve(listener, app).with_graceful_shutdown(async { told.await.unwrap() });
    let mut server = tokio::spawn(server.into_future());

    let mut client = TcpStream::connect(address).await.unwrap();
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Key: c2Vzc2lvbnMgb24gdGhlbQ==\r\n";
    let more = if path == "/socket" { upgrade } else { "" };
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{more}\r\n");
    client.write_all(request.as_bytes()).await.unwrap();
    assert!(read_until(&mut client, "hello").await);

    stop.send(()).unwrap();
    let stops = timeout(Duration::from_secs(3), &mut server).await.is_ok();
    let works = path == "/socket" && {
        client.write_all(HEY).await.is_ok() && read_until(&mut client, "hey").await
    };
    drop(client);
    let stops_then = stops || timeout(PATIENCE, server).await.is_ok();
    let when = match (stops, stops_then) {
        (true, _) => "at once",
        (false, true) => "when its client leaves",
        (false, false) => "never",
    };
    let still = if works { ", and the socket's task still answers" } else { "" };
    println!("{path:8} the server stops {when}{still}");
    (stops, works, stops_then)
}

#[tokio::main]
async fn main() -> ExitCode {
    let mut seen = Vec::new();
    for path in ["/page", "/events", "/socket"] {
        seen.push(stop_with(path).await);
    }
    let described = [(true, false, true), (false, false, true), (true, true, true)];
    if seen == described { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
END
cargo build --quiet --manifest-path "$T/Cargo.toml" || { echo "it could not be built"; exit 2; }
if cargo run --quiet --manifest-path "$T/Cargo.toml"; then
    echo "as described: it waits for the one, and not for the other"
else
    echo "CHANGED: it no longer behaves as described"
    exit 1
fi
