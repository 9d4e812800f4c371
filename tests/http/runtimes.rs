//! Requests whose first guard is taken in a runtime of its own, which has ended when something has to go on without
//! the request.

use std::{future::pending, sync::Arc, time::Duration};

use axum::{Router, routing::get};
use sessions::{Keys, LockGuard, MemoryStore, Session, SessionLayer, testing::SpyStore};
use sessions_tests::{Server, eventually};
use tokio::{runtime, sync::Notify, task::spawn_blocking};

use crate::{App, Visitor, basics};

/// Writes in a runtime that has ended when this is done.
async fn write_elsewhere(session: &Session<Visitor>) {
    let session = session.clone();
    let elsewhere = move || {
        let runtime = runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async { session.write().await.set_name("from elsewhere") });
    };
    spawn_blocking(elsewhere).await.unwrap();
}

/// Of a layer that was built here, or where there is no runtime.
async fn written_elsewhere_before_a_hang_up(is_built_here: bool) {
    let arrived = Arc::new(Notify::new());
    let hangs = {
        let arrived = arrived.clone();
        async move |session: Session<Visitor>| {
            write_elsewhere(&session).await;
            arrived.notify_one();
            pending::<()>().await;
        }
    };
    let routes = Router::new().route("/hangs", get(hangs));
    let store = SpyStore::new(MemoryStore::new());
    let build = {
        let store = store.clone();
        move || SessionLayer::<Visitor>::new(store, Keys::generate())
    };
    let layer = match is_built_here {
        true => build(),
        false => std::thread::spawn(build).join().unwrap(),
    };
    let server = Server::start(routes.merge(basics()).layer(layer.clone())).await;
    let client = server.client();
    client.get("/name/Zoe").await.text();
    let hanging = tokio::spawn({
        let client = client.clone();
        async move { client.get("/hangs").await }
    });
    arrived.notified().await;
    hanging.abort();
    eventually("the handler is gone", async || layer.sessions_in_use() == 0).await;
    layer.wait_for_background_saves().await;
    assert_eq!(client.get("/name").await.text(), "from elsewhere");
}

#[tokio::test]
async fn what_was_written_in_a_runtime_that_has_ended_is_saved_after_a_hang_up() {
    written_elsewhere_before_a_hang_up(true).await;
}

#[tokio::test]
async fn so_it_is_with_a_layer_that_was_built_in_no_runtime() {
    written_elsewhere_before_a_hang_up(false).await;
}

#[tokio::test]
async fn a_session_is_renewed_and_ended_after_a_write_in_a_runtime_that_has_ended() {
    async fn renews(session: Session<Visitor>) -> sessions::Result<()> {
        write_elsewhere(&session).await;
        session.renew_id().await
    }
    async fn ends(session: Session<Visitor>) -> sessions::Result<()> {
        write_elsewhere(&session).await;
        session.destroy().await
    }
    let routes = Router::new().route("/renews", get(renews)).route("/ends", get(ends));
    let app = App::start(routes).await;
    let client = app.visitor().await;
    assert_eq!(client.get("/renews").await.status, 200);
    assert_eq!(client.get("/name").await.text(), "from elsewhere");
    assert_eq!(client.get("/ends").await.status, 200);
    assert_eq!(client.get("/name").await.text(), "nobody");
}

#[tokio::test]
async fn a_lease_is_renewed_after_a_write_in_a_runtime_that_has_ended() {
    let (locked, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let locks = {
        let (locked, go_on) = (locked.clone(), go_on.clone());
        async move |session: Session<Visitor>| {
            write_elsewhere(&session).await;
            let guard = session.lock().await.unwrap();
            locked.notify_one();
            go_on.notified().await;
            format!("{:?}", LockGuard::fencing_token(&guard))
        }
    };
    let routes = Router::new().route("/locks", get(locks));
    let lease = Duration::from_millis(30);
    let app = App::with(routes, |builder| builder.with_lease_time(lease)).await;
    let client = app.visitor().await;
    let locking = tokio::spawn({
        let client = client.clone();
        async move { client.get("/locks").await }
    });
    locked.notified().await;
    app.store.reset();
    eventually("the lease is renewed", async || app.store.calls().replace > 0).await;
    go_on.notify_one();
    assert_eq!(locking.await.unwrap().status, 200);
}
