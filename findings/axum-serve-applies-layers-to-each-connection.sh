#!/usr/bin/env bash
# axum: `serve(listener, app)` builds the layers anew for each connection, so that a limit of one request lets any number
# through.
#
# Versions:  crates axum 0.8.9, tower 0.5.3, tokio 1.54.1.
# Expected:  `Router::layer` calls `Layer::layer` once, while the application is put together, and all connections get
#            clones of that service. What such a service shares among its clones, all requests share: tower's
#            `ConcurrencyLimit` clones itself with the same semaphore.
# Seen:      the router keeps layer and handler apart until its state is known. `axum::serve(listener, app)` says so for
#            each connection, and a call of the router itself (`oneshot`, as in tests) for each request: the layer is
#            called anew, and what it makes is new. Behind a `ConcurrencyLimitLayer::new(1)`, three requests on three
#            connections run at the same time. With `app.into_make_service()`, or `app.with_state(())`, which changes no
#            type, the layers are called once, and the limit is one.
# Matters:   a limit that protects the password hashes of a login, or a pool of connections, is none in HTTP/1, where a
#            browser has six connections; and tower's `BufferLayer` starts a worker for each connection, with a
#            `RateLimit` of its own. A layer's author must keep what is shared in the layer, not make it in `layer`. End
#            the router with `with_state(())`, or use `GlobalConcurrencyLimitLayer`, whose semaphore is in the layer.
# Source:    axum, src/routing/mod.rs, `impl Service<IncomingStream> for Router<()>`; the page of `Router::with_state`
#            calls it "a note about performance".
set -euo pipefail

T=$(mktemp -d)
trap 'rm -rf "$T"' EXIT
command -v cargo >/dev/null || { echo "cargo is missing: install Rust"; exit 2; }
echo "crates axum 0.8.9, tower 0.5.3, tokio 1.54.1"

mkdir "$T/src"
cat >"$T/Cargo.toml" <<'END'
[package]
name = "finding"
version = "0.0.0"
edition = "2024"

[dependencies]
axum = "=0.8.9"
tokio = { version = "=1.54.1", features = ["full"] }
tower = { version = "=0.5.3", features = ["limit"] }
END
cat >"$T/src/main.rs" <<'END'
use std::{
    net::SocketAddr,
    process::ExitCode,
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
    time::Duration,
};

use axum::{Router, routing::get};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::sleep,
};
use tower::{
    Layer,
    limit::{ConcurrencyLimitLayer, GlobalConcurrencyLimitLayer},
};

static LAYERED: AtomicUsize = AtomicUsize::new(0);
static RUNNING: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

/// Counts how often it is called.
#[derive(Clone)]
struct Counted;

impl<S> Layer<S> for Counted {
    type Service = S;

    fn layer(&self, service: S) -> S {
        LAYERED.fetch_add(1, SeqCst);
        service
    }
}

async fn login() -> &'static str {
    MOST.fetch_max(RUNNING.fetch_add(1, SeqCst) + 1, SeqCst);
    sleep(Duration::from_millis(500)).await;
    RUNNING.fetch_sub(1, SeqCst);
    "welcome"
}

async fn ask(at: SocketAddr) {
    let mut client = TcpStream::connect(at).await.unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nhost: shop\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    assert!(answer.ends_with("welcome"), "{answer}");
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    Router,
    WithState,
    IntoMakeService,
    GlobalLimit,
}

/// How often the layers were called for three connections, and how many requests ran at once.
async fn outcome(way: Way) -> (usize, usize) {
    let app = Router::new().route("/", get(login)).layer(Counted);
    let app = match way {
        Way::GlobalLimit => app.layer(GlobalConcurrencyLimitLayer::new(1)),
        _ => app.layer(ConcurrencyLimitLayer::new(1)),
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let before = LAYERED.load(SeqCst);
    MOST.store(0, SeqCst);
    tokio::spawn(async move {
        match way {
            Way::WithState => axum::serve(listener, app.with_state(())).await,
            Way::IntoMakeService => axum::serve(listener, app.into_make_service()).await,
            Way::Router | Way::GlobalLimit => axum::serve(listener, app).await,
        }
    });
    tokio::join!(ask(at), ask(at), ask(at));
    (LAYERED.load(SeqCst) - before, MOST.load(SeqCst))
}

#[tokio::main]
async fn main() -> ExitCode {
    let described = [
        (Way::Router, (3, 3)),
        (Way::WithState, (1, 1)),
        (Way::IntoMakeService, (1, 1)),
        (Way::GlobalLimit, (3, 1)),
    ];
    let mut is_as_described = true;
    for (way, expected) in described {
        let seen = outcome(way).await;
        let (layered, most) = seen;
        let name = format!("{way:?}");
        println!("{name:16} the layer was called {layered} times, and {most} requests ran at once");
        is_as_described &= seen == expected;
    }
    if is_as_described { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
END
cargo build --quiet --manifest-path "$T/Cargo.toml" || { echo "it could not be built"; exit 2; }
if cargo run --quiet --manifest-path "$T/Cargo.toml"; then
    echo "as described: a router that is served as it is has a limit for each connection"
else
    echo "CHANGED: it no longer behaves as described"
    exit 1
fi
