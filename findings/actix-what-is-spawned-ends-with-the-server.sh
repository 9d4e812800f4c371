#!/usr/bin/env bash
# actix-web: what a handler spawns ends with the server, also after a graceful stop.
#
# Versions:  crates actix-web 4.18.1, actix-server 2.10.0, tokio 1.54.1.
# Expected:  the program runs on tokio (`#[tokio::main]`), and its server is one task in it. What a handler
#            spawns with `tokio::spawn`, as under axum, runs in the program's runtime and is independent of the
#            server: when that has stopped, the task goes on.
# Seen:      each worker has a thread and a runtime of its own, in which `tokio::spawn` and
#            `actix_web::rt::spawn` put the task. `ServerHandle::stop(true)` waits for responses, and not for
#            tasks: with the worker its runtime is dropped, and the task in the middle of whatever it awaits.
#            What is spawned through a handle of the program's runtime goes on.
# Matters:   work that a request leaves behind (a mail, an audit entry, a write that is to outlive its client's
#            connection) is lost at every deploy, without a word, though the program waits for its tasks. It
#            belongs into a runtime that outlives the server, or has to notice that it is dropped.
# Source:    actix-server, src/worker.rs, `ServerWorker::start`: `rt.block_on(worker_fut)` in a thread, where
#            `rt` is a runtime for one thread that goes out of scope after it; without a tokio runtime around,
#            the same with an `Arbiter`.
set -euo pipefail

T=$(mktemp -d)
trap 'rm -rf "$T"' EXIT
command -v cargo >/dev/null || { echo "cargo is missing: install Rust"; exit 2; }
echo "crates actix-web 4.18.1, actix-server 2.10.0, tokio 1.54.1"

mkdir "$T/src"
cat >"$T/Cargo.toml" <<'END'
[package]
name = "finding"
version = "0.0.0"
edition = "2024"

[dependencies]
actix-server = "=2.10.0"
actix-web = { version = "=4.18.1", default-features = false }
tokio = { version = "=1.54.1", features = ["full"] }
END
cat >"$T/src/main.rs" <<'END'
use std::{process::ExitCode, time::Duration};

use actix_web::{App, HttpServer, web};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    runtime::Handle,
    sync::{mpsc, watch},
    time::timeout,
};

type Told = mpsc::UnboundedSender<(&'static str, &'static str)>;

/// Says what becomes of the task that it is in.
struct Task {
    name: &'static str,
    end: &'static str,
    told: Told,
}

impl Drop for Task {
    fn drop(&mut self) {
        let _ = self.told.send((self.name, self.end));
    }
}

async fn work(name: &'static str, told: Told, mut may_end: watch::Receiver<bool>) {
    let mut task = Task { name, end: "dropped", told };
    may_end.wait_for(|it| *it).await.unwrap();
    task.end = "done";
}

type Shared = web::Data<(Handle, Told, watch::Receiver<bool>)>;

async fn handler(shared: Shared) -> &'static str {
    let (program, told, may_end) = &**shared;
    let work = |name| work(name, told.clone(), may_end.clone());
    actix_web::rt::spawn(work("actix_web::rt::spawn"));
    tokio::spawn(work("tokio::spawn"));
    program.spawn(work("the program's runtime"));
    "three tasks are running"
}

#[tokio::main]
async fn main() -> ExitCode {
    let (told, mut tells) = mpsc::unbounded_channel();
    let (let_end, may_end) = watch::channel(false);
    let shared = web::Data::new((Handle::current(), told, may_end));
    let app = move || App::new().app_data(shared.clone()).route("/", web::get().to(handler));
    let server = HttpServer::new(app).workers(1).disable_signals().shutdown_timeout(30);
    let server = server.bind("127.0.0.1:0").unwrap();
    let address = server.addrs()[0];
    let server = server.run();
    let handle = server.handle();
    let running = tokio::spawn(server);

    let mut client = TcpStream::connect(address).await.unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut response = String::new();
    client.read_to_string(&mut response).await.unwrap();
    println!("the response: {}", response.lines().last().unwrap());

    handle.stop(true).await;
    running.await.unwrap().unwrap();
    println!("the server has stopped, and has waited for its responses");
    let mut ends = Vec::new();
    for _ in 0..2 {
        let end = timeout(Duration::from_secs(10), tells.recv()).await;
        ends.extend(end.ok().flatten());
    }
    // From here on the tasks may come to their end.
    let_end.send(true).unwrap();
    while ends.len() < 3 {
        ends.push(timeout(Duration::from_secs(10), tells.recv()).await.unwrap().unwrap());
    }
    ends.sort();
    for (name, end) in &ends {
        println!("{name}: {end}");
    }
    let described = [
        ("actix_web::rt::spawn", "dropped"),
        ("the program's runtime", "done"),
        ("tokio::spawn", "dropped"),
    ];
    if ends == described { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
END
cargo build --quiet --manifest-path "$T/Cargo.toml" || { echo "it could not be built"; exit 2; }
if cargo run --quiet --manifest-path "$T/Cargo.toml"; then
    echo "as described: a graceful stop drops what handlers have spawned"
else
    echo "CHANGED: it no longer behaves as described"
    exit 1
fi
