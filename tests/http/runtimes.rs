//! Requests whose first guard is taken in a runtime of its own, which has ended when something has to go on without
//! the request.

use std::{
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering::SeqCst},
    },
    time::{Duration, SystemTime},
};

use axum::{Router, routing::get};
use sessions::{
    Created, Keys, LockGuard, MemoryStore, Record, Replaced, Session, SessionLayer, Store,
    StoreError, StoreKey,
    testing::{Operation, SpyStore},
};
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

/// Here the runtime ends while the guard lives, and there it had ended before.
#[tokio::test]
async fn a_lease_is_renewed_after_the_runtime_in_which_it_was_taken_has_ended() {
    let (locked, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let locks = {
        let (locked, go_on) = (locked.clone(), go_on.clone());
        async move |session: Session<Visitor>| {
            let elsewhere = move || {
                let runtime = runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(session.lock()).unwrap()
            };
            let guard = spawn_blocking(elsewhere).await.unwrap();
            locked.notify_one();
            go_on.notified().await;
            drop(guard);
        }
    };
    let routes = Router::new().route("/locks", get(locks));
    let lease = Duration::from_millis(30);
    let app = App::with(routes, |builder| builder.with_lease_time(lease)).await;
    let client = app.visitor().await;
    let locking = client.spawn_get("/locks");
    locked.notified().await;
    app.store.reset();
    eventually("the lease is renewed", async || app.store.calls().replace > 2).await;
    go_on.notify_one();
    assert_eq!(locking.await.unwrap().status, 200);
    app.layer.wait_for_background_saves().await;
    app.store.reset();
    tokio::time::sleep(2 * lease).await;
    assert_eq!(app.store.calls().replace, 0, "and not after its guard is gone");
}

/// Writes in a runtime that ends by a panic, while that runtime saves what a request wrote whose client hung up.
#[tokio::test]
async fn what_a_runtime_that_panics_was_saving_is_saved() {
    let (arrived, panics) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let hangs = {
        let (arrived, panics) = (arrived.clone(), panics.clone());
        async move |session: Session<Visitor>| {
            let of_thread = session.clone();
            std::thread::spawn(move || {
                let runtime = runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(async move {
                    of_thread.write().await.set_name("from elsewhere");
                    drop(of_thread);
                    arrived.notify_one();
                    panics.notified().await;
                    panic!("the runtime ends in the middle of a save");
                });
            });
            let _session = session;
            pending::<()>().await;
        }
    };
    let app = App::start(Router::new().route("/hangs", get(hangs))).await;
    let client = app.visitor().await;
    let gate = app.store.hold(Operation::Replace);
    let hanging = client.spawn_get("/hangs");
    arrived.notified().await;
    hanging.abort();
    gate.wait_for_caller().await;
    panics.notify_one();
    eventually("it is begun anew", async || app.store.calls().replace == 2).await;
    gate.release();
    app.layer.wait_for_background_saves().await;
    assert_eq!(client.get("/name").await.text(), "from elsewhere");
}

/// Panics in each `replace`, until it is told not to.
#[derive(Clone)]
struct Panics {
    store: MemoryStore,
    replaces: Arc<AtomicU32>,
    is_well: Arc<AtomicBool>,
}

impl Store for Panics {
    async fn load(&self, key: &StoreKey) -> Result<Option<Record>, StoreError> {
        self.store.load(key).await
    }

    async fn create(&self, key: &StoreKey, record: &Record) -> Result<Created, StoreError> {
        self.store.create(key, record).await
    }

    async fn replace(
        &self,
        key: &StoreKey,
        record: &Record,
        based_on: u64,
    ) -> Result<Replaced, StoreError> {
        self.replaces.fetch_add(1, SeqCst);
        assert!(self.is_well.load(SeqCst), "a store of a user's panics");
        self.store.replace(key, record, based_on).await
    }

    async fn touch(&self, key: &StoreKey, expires_at: SystemTime) -> Result<(), StoreError> {
        self.store.touch(key, expires_at).await
    }

    async fn delete(&self, key: &StoreKey) -> Result<bool, StoreError> {
        self.store.delete(key).await
    }
}

/// It would panic there as well; and the session is there for the next request.
#[tokio::test]
async fn a_background_save_that_panics_is_not_begun_anew_in_another_runtime() {
    let arrived = Arc::new(Notify::new());
    let hangs = {
        let arrived = arrived.clone();
        async move |session: Session<Visitor>| {
            session.write().await.set_name("Ann");
            arrived.notify_one();
            pending::<()>().await;
        }
    };
    let (replaces, is_well) = (Arc::default(), Arc::default());
    let store = Panics { store: MemoryStore::new(), replaces, is_well };
    let build = {
        let store = store.clone();
        move || {
            // The layer knows of this runtime, too.
            let runtime = runtime::Builder::new_multi_thread().build().unwrap();
            let _inside = runtime.enter();
            let layer = SessionLayer::<Visitor>::new(store, Keys::generate());
            (layer, runtime)
        }
    };
    let (layer, home) = spawn_blocking(build).await.unwrap();
    let routes = Router::new().route("/hangs", get(hangs));
    let server = Server::start(routes.merge(basics()).layer(layer.clone())).await;
    let client = server.client();
    client.get("/name/Zoe").await.text();
    let hanging = client.spawn_get("/hangs");
    arrived.notified().await;
    hanging.abort();
    eventually("the handler is gone", async || layer.sessions_in_use() == 0).await;
    layer.wait_for_background_saves().await;
    // The request's own save, and that of its last handle, which finds that there is something left.
    assert_eq!(store.replaces.load(SeqCst), 2);
    store.is_well.store(true, SeqCst);
    assert_eq!(client.get("/name/Bob").await.status, 200);
    assert_eq!(client.get("/name").await.text(), "Bob");
    home.shutdown_background();
}
