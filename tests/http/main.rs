//! What the library promises, from outside: over real sockets, with a client that keeps cookies.

mod adopt;
mod concurrency;
mod cookies;
mod csrf;
mod devices;
mod ended;
mod evolution;
mod failing_stores;
mod fields;
mod flood;
mod in_between;
mod keys;
mod kinds;
mod layers;
mod lifecycle;
mod login;
mod login_failures;
mod merging;
mod private_cookie;
mod races;
mod responses;
mod resting;
mod runtimes;
mod security;
mod tasks;
mod update_each;
mod user_sessions;
mod values;

use std::{convert::Infallible, time::Duration};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::Path,
    routing::get,
};
use sessions::{
    Keys, MemoryStore, Session, SessionLayer, SessionLayerBuilder,
    testing::{Gate, ManualClock, Operation, SpyStore},
};
use sessions_tests::{Client, Server};
use tokio_stream::StreamExt;

/// The name of the default cookie.
const COOKIE: &str = "__Host-id";

/// The session of most tests.
#[derive(Session)]
struct Visitor {
    name: Option<String>,
    #[session(default = "light")]
    theme: String,
    visits: u32,
    seen: Vec<u32>,
    points: i64,
}

/// An app with a session, a store that counts its calls, and a clock that is set by hand.
struct App {
    server: Server,
    store: SpyStore<MemoryStore>,
    clock: ManualClock,
    keys: Keys,
    layer: SessionLayer<Visitor>,
}

impl App {
    async fn start(routes: Router) -> Self {
        Self::with(routes, |builder| builder).await
    }

    async fn with(
        routes: Router,
        settings: impl FnOnce(SessionLayerBuilder<Visitor>) -> SessionLayerBuilder<Visitor>,
    ) -> Self {
        let clock = ManualClock::new();
        let store = SpyStore::new(MemoryStore::builder().with_clock(&clock).build());
        Self::on(store, clock, Keys::generate(), routes, settings).await
    }

    /// Another process on the same store: for sessions that is what another layer is.
    async fn twin(&self) -> Self {
        let (store, clock, keys) = (self.store.clone(), self.clock.clone(), self.keys.clone());
        Self::on(store, clock, keys, Router::new(), |builder| builder).await
    }

    async fn on(
        store: SpyStore<MemoryStore>,
        clock: ManualClock,
        keys: Keys,
        routes: Router,
        settings: impl FnOnce(SessionLayerBuilder<Visitor>) -> SessionLayerBuilder<Visitor>,
    ) -> Self {
        let builder = SessionLayer::builder(store.clone(), keys.clone()).with_clock(&clock);
        let layer = settings(builder).build().expect("possible settings");
        let app = routes.merge(basics()).layer(layer.clone());
        Self { server: Server::start(app).await, store, clock, keys, layer }
    }

    fn client(&self) -> Client {
        self.server.client()
    }

    /// A client that has a session.
    async fn visitor(&self) -> Client {
        let client = self.client();
        client.get("/name/Zoe").await.text();
        assert!(client.cookie(COOKIE).is_some());
        client
    }
}

/// Lets the call at this gate go on, and holds the next one of the same kind.
async fn hold_the_next(store: &SpyStore<MemoryStore>, gate: Gate, operation: Operation) -> Gate {
    gate.wait_for_caller().await;
    let next = store.hold(operation);
    gate.release();
    next.wait_for_caller().await;
    next
}

/// Routes that most tests need.
fn basics() -> Router {
    Router::new()
        .route("/ignore", get(async || "ignored"))
        .route("/name", get(name))
        .route("/name/{name}", get(set_name))
        .route("/visit", get(visit))
        .route("/destroy", get(destroy))
        .route("/renew", get(renew))
        .route("/late", get(late))
}

async fn name(session: Session<Visitor>) -> String {
    session.read().await.name().unwrap_or("nobody").to_string()
}

async fn set_name(Path(name): Path<String>, session: Session<Visitor>) {
    session.write().await.set_name(name);
}

async fn visit(session: Session<Visitor>) -> String {
    let mut s = session.write().await;
    let visits = s.visits() + 1;
    s.set_visits(visits);
    visits.to_string()
}

async fn destroy(session: Session<Visitor>) -> sessions::Result<()> {
    session.destroy().await
}

async fn renew(session: Session<Visitor>) -> sessions::Result<()> {
    session.renew_id().await
}

/// Writes and saves when the response has left, says how that went, and writes once more.
async fn late(session: Session<Visitor>) -> Body {
    Body::from_stream(tokio_stream::once(session).then(async |session| {
        tokio::time::sleep(Duration::from_millis(1)).await;
        session.write().await.set_name("streamed");
        let saved = session.save().await.map_err(|error| error.kind());
        session.write().await.set_visits(77);
        Ok::<_, Infallible>(Bytes::from(format!("{saved:?}")))
    }))
}
