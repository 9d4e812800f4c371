//! The sessions of a user while they begin, end and exchange their ids.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, Ordering::SeqCst},
};

use axum::{Router, extract::Path, routing::get};
use sessions::{
    Created, DynUserIndex, ErrorKind, Keys, MemoryStore, Record, Session, SessionLayer, Store,
    StoreError, StoreKey, UserIndex, UserSessions,
};
use sessions_tests::{Client, Server, hand_on};
use tokio::sync::Notify;

#[derive(Session)]
struct Customer {
    #[session(user)]
    user: Option<u64>,
    cart: Vec<u32>,
}

const USER: &str = "Customer:7";

/// Stops each request that comes by, until the test lets the requests go on.
#[derive(Clone, Default)]
struct Stop {
    is_set: Arc<AtomicBool>,
    arrived: Arc<Notify>,
    go_on: Arc<Notify>,
}

impl Stop {
    async fn here(&self) {
        if self.is_set.load(SeqCst) {
            self.arrived.notify_one();
            self.go_on.notified().await;
        }
    }
}

/// A memory store that a test can stop where a store of another kind, or another process, could be slow.
#[derive(Clone)]
struct Slow {
    store: MemoryStore,
    after_list: Stop,
    before_end: Stop,
    /// The answers of the next calls of `create` are lost.
    loses_creates: Arc<Mutex<u32>>,
}

impl Slow {
    fn new() -> Self {
        let (after_list, before_end, loses_creates) = Default::default();
        Self { store: MemoryStore::new(), after_list, before_end, loses_creates }
    }

    async fn live(&self) -> usize {
        self.store.sessions_of(USER).await.unwrap().len()
    }
}

impl Store for Slow {
    hand_on!(store: load, replace, touch, delete);

    async fn create(&self, key: &StoreKey, record: &Record) -> Result<Created, StoreError> {
        let created = self.store.create(key, record).await;
        let mut left = self.loses_creates.lock().unwrap();
        if *left > 0 {
            *left -= 1;
            return Err(StoreError::new("slow", "create", "the answer was lost"));
        }
        created
    }

    fn user_index(&self) -> Option<&dyn DynUserIndex> {
        Some(self)
    }
}

impl UserIndex for Slow {
    async fn sessions_of(&self, user: &str) -> Result<Vec<(StoreKey, Record)>, StoreError> {
        let found = self.store.sessions_of(user).await;
        self.after_list.here().await;
        found
    }

    async fn delete_sessions_of(
        &self,
        user: &str,
        except: Option<&StoreKey>,
    ) -> Result<u64, StoreError> {
        let found = self.store.sessions_of(user).await?;
        self.before_end.here().await;
        let mut deleted = 0;
        for (key, _) in found {
            deleted += u64::from(Some(&key) != except && self.store.delete(&key).await?);
        }
        Ok(deleted)
    }
}

struct Shop {
    store: Slow,
    layer: SessionLayer<Customer>,
    server: Server,
}

impl Shop {
    async fn start() -> Self {
        let store = Slow::new();
        let layer = SessionLayer::<Customer>::new(store.clone(), Keys::generate());
        let app = Router::new()
            .route("/who", get(who))
            .route("/cart/{item}", get(put_into_cart))
            .route("/login/{user}", get(login))
            .route("/login-anew/{user}", get(login_anew))
            .route("/renew", get(async |session: Session<Customer>| session.renew_id().await));
        let server = Server::start(app.layer(layer.clone())).await;
        Self { store, layer, server }
    }

    fn sessions(&self) -> UserSessions<Customer> {
        self.layer.user_sessions().unwrap()
    }

    async fn logged_in(&self) -> Client {
        let client = self.server.client();
        client.get("/login/7").await.text();
        client
    }
}

async fn who(session: Session<Customer>) -> String {
    format!("{:?}", session.read().await.user())
}

async fn put_into_cart(Path(item): Path<u32>, session: Session<Customer>) {
    session.write().await.cart_mut().push(item);
}

async fn login(Path(user): Path<u64>, session: Session<Customer>) -> sessions::Result<()> {
    session.login(user).await
}

async fn login_anew(Path(user): Path<u64>, session: Session<Customer>) -> sessions::Result<()> {
    session.login(user).without_earlier_data().await
}

/// Who is told that a session has ended is told of that session, and not of the old id that it has left.
#[tokio::test]
async fn a_session_that_is_renewed_while_it_is_ended_has_ended_or_is_said_to_be_there() {
    let shop = Shop::start().await;
    let client = shop.logged_in().await;
    let key = shop.sessions().list(&7).await.unwrap()[0].key;
    let stop = shop.store.after_list.clone();
    stop.is_set.store(true, SeqCst);
    let sessions = shop.sessions();
    let ending = tokio::spawn(async move { sessions.end(&7, &key).await });
    stop.arrived.notified().await;
    stop.is_set.store(false, SeqCst);
    client.get("/renew").await.text();
    stop.go_on.notify_one();
    assert!(!ending.await.unwrap().unwrap(), "it has another id");
    assert_eq!(client.get("/who").await.text(), "Some(7)");

    // A write in between is no reason to let it live.
    let key = shop.sessions().list(&7).await.unwrap()[0].key;
    stop.is_set.store(true, SeqCst);
    let sessions = shop.sessions();
    let ending = tokio::spawn(async move { sessions.end(&7, &key).await });
    stop.arrived.notified().await;
    stop.is_set.store(false, SeqCst);
    client.get("/cart/1").await.text();
    stop.go_on.notify_one();
    assert!(ending.await.unwrap().unwrap());
    assert_eq!(client.get("/who").await.text(), "None");
    assert!(!shop.sessions().end(&7, &key).await.unwrap());
    assert_eq!((shop.store.live().await, shop.store.store.load(&key).await.unwrap()), (0, None));
}

/// A session that goes from one id to the next faster than it can be ended is not said to have ended.
#[tokio::test]
async fn a_session_that_slips_away_again_and_again_is_told_of() {
    let shop = Shop::start().await;
    let client = shop.logged_in().await;
    let stop = shop.store.before_end.clone();
    stop.is_set.store(true, SeqCst);
    let sessions = shop.sessions();
    let mut ending = tokio::spawn(async move { sessions.end_all(&7).await });
    let outcome = loop {
        tokio::select! {
            outcome = &mut ending => break outcome.unwrap(),
            () = stop.arrived.notified() => {
                client.get("/renew").await.text();
                stop.go_on.notify_one();
            }
        }
    };
    assert_eq!(client.get("/who").await.text(), "Some(7)");
    assert_eq!(outcome.map_err(|error| error.kind()), Err(ErrorKind::Contended));
}

/// The store has carried out what it has not answered.
#[tokio::test]
async fn a_login_or_renewal_whose_answer_was_lost_leaves_no_session() {
    let shop = Shop::start().await;
    for (begins, path) in [
        ("/who", "/login/7"),
        ("/who", "/login-anew/7"),
        ("/cart/1", "/login/7"),
        ("/cart/1", "/login-anew/7"),
        ("/login/7", "/login/7"),
        ("/login/7", "/login-anew/7"),
        ("/login/7", "/renew"),
        ("/login/8", "/login/7"),
    ] {
        let client = shop.server.client();
        client.get(begins).await.text();
        let before = client.get("/who").await.text().to_string();
        let live = shop.store.live().await;
        *shop.store.loses_creates.lock().unwrap() = 1;
        assert_eq!(client.get(path).await.status, 503, "{begins}, {path}");
        assert_eq!(*shop.store.loses_creates.lock().unwrap(), 0);
        assert_eq!(shop.store.live().await, live, "{begins}, {path}");
        assert_eq!(client.get("/who").await.text(), before, "it is what it was");
    }
}
