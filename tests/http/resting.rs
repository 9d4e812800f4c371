//! Slots that rest: a request finds what the one before it has decoded, and of what was changed through
//! setters nothing that is not in the store.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
    time::SystemTime,
};

use axum::{Router, extract::Path, routing::get};
use serde::{Deserialize, Deserializer, Serialize};
use sessions::{
    Created, Keys, MemoryStore, Record, Replaced, Secret, Session, SessionData, SessionLayer,
    Store, StoreError, StoreKey,
};
use sessions_tests::{Client, Server, eventually};
use tokio::sync::Notify;

use crate::{App, COOKIE, Visitor};

static DECODED: AtomicU32 = AtomicU32::new(0);

/// Counts how often it is decoded.
#[derive(Serialize, Default)]
struct Counting(u32);

impl<'de> Deserialize<'de> for Counting {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        DECODED.fetch_add(1, SeqCst);
        u32::deserialize(deserializer).map(Self)
    }
}

#[derive(Session)]
struct Counted {
    number: Counting,
}

async fn set_number(Path(number): Path<u32>, session: Session<Counted>) {
    session.write().await.set_number(Counting(number));
}

async fn number(session: Session<Counted>) -> String {
    session.read().await.number.0.to_string()
}

async fn serve<T: SessionData>(routes: Router, store: impl Store, keys: Keys) -> Server {
    Server::start(routes.layer(SessionLayer::<T>::new(store, keys))).await
}

#[tokio::test]
async fn only_what_has_changed_is_decoded() {
    let (store, keys) = (MemoryStore::new(), Keys::generate());
    let routes = || Router::new().route("/set/{number}", get(set_number)).route("/", get(number));
    let here = serve::<Counted>(routes(), store.clone(), keys.clone()).await;
    let there = serve::<Counted>(routes(), store, keys).await;
    let client = here.client();
    client.get("/set/1").await.text();
    let elsewhere = there.client();
    elsewhere.set_cookie(COOKIE, client.cookie(COOKIE).as_deref());
    let decoded = async |client: &Client, expected: &str| {
        let before = DECODED.load(SeqCst);
        for _ in 0..3 {
            assert_eq!(client.get("/").await.text(), expected);
        }
        DECODED.load(SeqCst) - before
    };
    // The first two requests of a cookie leave nothing for the next.
    assert_eq!(decoded(&client, "1").await, 3);
    assert_eq!(decoded(&client, "1").await, 0);
    elsewhere.get("/set/2").await.text();
    assert_eq!(decoded(&client, "2").await, 1);
}

#[tokio::test]
async fn a_session_that_ended_elsewhere_opens_nothing() {
    let (app, twin) = {
        let app = App::start(Router::new()).await;
        let twin = app.twin().await;
        (app, twin)
    };
    let client = app.visitor().await;
    for _ in 0..3 {
        assert_eq!(client.get("/name").await.text(), "Zoe");
    }
    let elsewhere = twin.client();
    elsewhere.set_cookie(COOKIE, client.cookie(COOKIE).as_deref());
    elsewhere.get("/destroy").await.text();
    // Its cookie verifies, as it did before, and names nothing.
    for _ in 0..3 {
        assert_eq!(client.get("/name").await.text(), "nobody");
    }
    let loads = app.store.calls().load;
    client.get("/name").await.text();
    assert_eq!(app.store.calls().load, loads + 1, "the store decides, every time");
}

#[tokio::test]
async fn an_expired_session_opens_nothing() {
    let app = App::start(Router::new()).await;
    let client = app.visitor().await;
    for _ in 0..3 {
        assert_eq!(client.get("/name").await.text(), "Zoe");
    }
    app.clock.advance(std::time::Duration::from_secs(2 * 3_600));
    assert_eq!(client.get("/name").await.text(), "nobody");
    assert_eq!(app.layer.sessions_in_use(), 0);
}

/// What a store with one session answers when it is asked for it.
#[derive(Clone, Default)]
struct One(Arc<Mutex<Option<Record>>>);

impl One {
    fn record(&self) -> std::sync::MutexGuard<'_, Option<Record>> {
        self.0.lock().unwrap()
    }
}

impl Store for One {
    async fn load(&self, _: &StoreKey) -> Result<Option<Record>, StoreError> {
        // Bytes of its own, as from a server.
        let copy = |record: &Record| record.clone().with_payload(&*record.payload);
        Ok(self.record().as_ref().map(copy))
    }

    async fn create(&self, _: &StoreKey, record: &Record) -> Result<Created, StoreError> {
        *self.record() = Some(record.clone());
        Ok(Created::Done)
    }

    async fn replace(&self, _: &StoreKey, record: &Record, _: u64) -> Result<Replaced, StoreError> {
        *self.record() = Some(record.clone());
        Ok(Replaced::Done)
    }

    async fn touch(&self, _: &StoreKey, _: SystemTime) -> Result<(), StoreError> {
        Ok(())
    }

    async fn delete(&self, _: &StoreKey) -> Result<bool, StoreError> {
        Ok(self.record().take().is_some())
    }
}

#[tokio::test]
async fn a_store_that_has_gone_back_is_believed() {
    let store = One::default();
    let server = serve::<Visitor>(crate::basics(), store.clone(), Keys::generate()).await;
    let client = server.client();
    client.get("/name/Ann").await.text();
    let first = store.record().clone();
    for _ in 0..3 {
        client.get("/name/Zoe").await.text();
        assert_eq!(client.get("/name").await.text(), "Zoe");
    }
    let second = store.record().clone();
    // As after a failover that has lost the last save,
    *store.record() = first.clone();
    assert_eq!(client.get("/name").await.text(), "Ann");
    // and after a save whose version another process has used since.
    store.record().clone_from(&second);
    assert_eq!(client.get("/name").await.text(), "Zoe");
    let version = second.expect("a session").version;
    *store.record() = first.map(|record| record.with_version(version));
    assert_eq!(client.get("/name").await.text(), "Ann");
}

/// Not all of it is stored.
#[derive(Serialize, Deserialize, Default)]
struct Noted {
    kept: u32,
    #[serde(skip)]
    lost: u32,
}

#[derive(Session)]
struct Forgetful {
    noted: Noted,
    #[session(skip)]
    skipped: Mutex<u32>,
}

#[tokio::test]
async fn what_is_not_stored_does_not_reach_the_next_request() {
    async fn look(session: Session<Forgetful>) -> String {
        let s = session.read().await;
        let mut skipped = s.skipped().lock().unwrap();
        *skipped += 1;
        format!("{} {} {}", s.noted().kept, s.noted().lost, *skipped)
    }
    async fn note(session: Session<Forgetful>) {
        session.write().await.set_noted(Noted { kept: 1, lost: 1 });
    }
    let routes = Router::new().route("/", get(look)).route("/note", get(note));
    let server = serve::<Forgetful>(routes, MemoryStore::new(), Keys::generate()).await;
    let client = server.client();
    client.get("/note").await.text();
    for _ in 0..5 {
        assert_eq!(client.get("/").await.text(), "1 0 1");
    }
}

#[tokio::test]
async fn a_write_that_was_refused_does_not_reach_the_next_request() {
    use sessions::testing::Operation::Replace;
    let app = App::start(Router::new()).await;
    let client = app.visitor().await;
    for _ in 0..3 {
        assert_eq!(client.get("/name").await.text(), "Zoe");
    }
    app.store.fail_next(Replace, 1);
    assert_eq!(client.get("/name/Ann").await.status, 503);
    assert_eq!(client.get("/name").await.text(), "Zoe");
}

#[tokio::test]
async fn a_repeated_cookie_is_signed_anew_after_a_rotation() {
    let (store, old) = (MemoryStore::new(), Keys::generate());
    let before = serve::<Visitor>(crate::basics(), store.clone(), old.clone()).await;
    let client = before.client();
    client.get("/name/Zoe").await.text();
    let cookie = client.cookie(COOKIE);

    let both = Keys::generate().with_previous(old);
    let after = serve::<Visitor>(crate::basics(), store.clone(), both).await;
    for _ in 0..5 {
        let client = after.client();
        client.set_cookie(COOKIE, cookie.as_deref());
        let reply = client.get("/name").await;
        assert_eq!((reply.text(), reply.set_cookies().len()), ("Zoe", 1));
    }
    let without = serve::<Visitor>(crate::basics(), store, Keys::generate()).await;
    let client = without.client();
    client.set_cookie(COOKIE, cookie.as_deref());
    assert_eq!(client.get("/name").await.text(), "nobody");
}

static DROPPED: AtomicU32 = AtomicU32::new(0);

/// Counts how often it is dropped.
#[derive(Serialize, Deserialize, Default)]
struct Dropping;

impl Drop for Dropping {
    fn drop(&mut self) {
        DROPPED.fetch_add(1, SeqCst);
    }
}

/// What is encrypted in the store does not lie about in the clear once nobody uses it.
#[tokio::test]
async fn a_session_with_a_secret_does_not_rest() {
    #[derive(Session)]
    struct Guarded {
        #[session(secret)]
        code: Option<Secret<String>>,
        noticed: Dropping,
    }
    async fn set_code(session: Session<Guarded>) {
        session.write().await.set_code("hush");
    }
    async fn code(session: Session<Guarded>) -> String {
        session.read().await.code().map_or("none".to_string(), |code| code.expose().clone())
    }
    let routes = Router::new().route("/set", get(set_code)).route("/", get(code));
    let server = serve::<Guarded>(routes, MemoryStore::new(), Keys::generate()).await;
    let client = server.client();
    client.get("/set").await.text();
    for _ in 0..5 {
        let before = DROPPED.load(SeqCst);
        assert_eq!(client.get("/").await.text(), "hush");
        eventually("its fields are gone", async || DROPPED.load(SeqCst) > before).await;
    }
}

#[tokio::test]
async fn what_was_saved_beside_a_guard_is_not_dirty_for_the_next_one() {
    #[derive(Session)]
    struct Tally {
        count: u32,
    }
    // One request saves while another one has the guard.
    let [released, held, saved] = [(); 3].map(|()| Arc::new(Notify::new()));
    let (is_released, is_held, is_saved) = (released.clone(), held.clone(), saved.clone());
    let count = async move |session: Session<Tally>| {
        *session.write().await.count_mut() += 1;
        released.notify_one();
        held.notified().await;
        session.save().await.unwrap();
        saved.notify_one();
        session.read().await.count_is_dirty().to_string()
    };
    let hold = async move |session: Session<Tally>| {
        is_released.notified().await;
        let guard = session.write().await;
        is_held.notify_one();
        is_saved.notified().await;
        drop(guard);
        session.read().await.count_is_dirty().to_string()
    };
    async fn is_dirty(session: Session<Tally>) -> String {
        session.read().await.count_is_dirty().to_string()
    }
    async fn begin(session: Session<Tally>) {
        session.write().await.set_count(7);
    }
    let routes = Router::new()
        .route("/", get(is_dirty))
        .route("/begin", get(begin))
        .route("/count", get(count))
        .route("/hold", get(hold));
    let server = serve::<Tally>(routes, MemoryStore::new(), Keys::generate()).await;
    let client = server.client();
    client.get("/begin").await.text();
    let mut seen = Vec::new();
    for _ in 0..3 {
        let (count, hold) = tokio::join!(client.get("/count"), client.get("/hold"));
        seen.extend([count.text().to_string(), hold.text().to_string()]);
        seen.push(client.get("/").await.text().to_string());
    }
    assert_eq!(seen, ["false"; 9]);
}
