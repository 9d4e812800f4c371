//! Stores below an application.

use std::time::Duration;

use axum::{Router, routing::get};
use sessions::{
    Keys, Session, SessionLayer, Store,
    testing::{Calls, SpyStore},
};
use sessions_tests::Server;
use tokio::time::sleep;

const COOKIE: &str = "__Host-id";

#[derive(Session)]
struct Visitor {
    visits: u32,
}

async fn visit(session: Session<Visitor>) -> String {
    let mut s = session.write().await;
    *s.visits_mut() += 1;
    s.visits().to_string()
}

async fn look(session: Session<Visitor>) -> String {
    session.read().await.visits().to_string()
}

async fn leave(session: Session<Visitor>) -> &'static str {
    session.destroy().await.expect("the store answers");
    "gone"
}

pub(crate) async fn app(store: impl Store, keys: Keys) -> Server {
    let router = Router::new()
        .route("/visit", get(visit))
        .route("/look", get(look))
        .route("/leave", get(leave))
        .route("/ignore", get(async || "nothing"));
    Server::start(router.layer(SessionLayer::<Visitor>::new(store, keys))).await
}

/// A read-only request is one load, a write one load and one save; ignoring the session touches
/// nothing.
pub(crate) async fn counts_its_calls(store: impl Store) {
    let spy = SpyStore::new(store);
    let server = app(spy.clone(), Keys::generate()).await;
    let client = server.client();
    let calls = async |path: &str| {
        spy.reset();
        assert!(client.get(path).await.status.is_success());
        spy.calls()
    };
    assert_eq!(calls("/visit").await, Calls { create: 1, ..Calls::default() });
    assert_eq!(calls("/look").await, Calls { load: 1, ..Calls::default() });
    assert_eq!(calls("/visit").await, Calls { load: 1, replace: 1, ..Calls::default() });
    assert_eq!(calls("/ignore").await, Calls::default());
    assert_eq!(client.get("/look").await.text(), "2");
    assert!(client.get("/leave").await.status.is_success());
}

/// The same, counted by the server: how often it has loaded, created, saved and deleted so far.
pub(crate) async fn counts_on_the_server(store: impl Store, counted: impl AsyncFn() -> [i64; 4]) {
    let server = app(store, Keys::generate()).await;
    let client = server.client();
    let calls = async |path: &str, expected: [i64; 4]| {
        let before = counted().await;
        assert!(client.get(path).await.status.is_success());
        // A server may count a statement a moment after it has answered.
        let mut difference = [0; 4];
        for _ in 0..20 {
            sleep(Duration::from_millis(10)).await;
            let after = counted().await;
            difference = std::array::from_fn(|at| after[at] - before[at]);
        }
        assert_eq!(difference, expected, "loads, creates, saves, deletes of {path}");
    };
    // The first write creates.
    calls("/visit", [0, 1, 0, 0]).await;
    // A read is one load, and writes nothing.
    calls("/look", [1, 0, 0, 0]).await;
    calls("/look", [1, 0, 0, 0]).await;
    // A write is one load and one save.
    calls("/visit", [1, 0, 1, 0]).await;
    // Who does not ask does not pay.
    calls("/ignore", [0; 4]).await;
}

/// A session goes on in the next process that has the same keys and the same store.
pub(crate) async fn sessions_outlive_the_app(store: impl Store + Clone) {
    let keys = Keys::generate();
    let first = app(store.clone(), keys.clone()).await;
    let before = first.client();
    assert_eq!(before.get("/visit").await.text(), "1");
    drop(first);
    let second = app(store, keys).await;
    let after = second.client();
    after.set_cookie(COOKIE, before.cookie(COOKIE).as_deref());
    assert_eq!(after.get("/visit").await.text(), "2");
    assert!(after.get("/leave").await.status.is_success());
}
