//! Logins between failures, leases and renewals: what must not come of them.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{Router, extract::Path, routing::get};
use sessions::{
    Device, DynUserIndex, ErrorKind, Keys, LoggedIn, MemoryStore, PrivateCookie, Record,
    RequireLogin, Session, SessionLayer, Store, StoreError, StoreKey, UserIndex, UserSessions,
    store::{Cached, Migrating, Mirrored},
    testing::{Fault, FaultyStore, ManualClock, Operation, SpyStore, TestClient},
};
use sessions_tests::{Client, Server, Steps, hand_on};

use crate::COOKIE;

const MINUTE: Duration = Duration::from_secs(60);

#[derive(Session)]
struct Customer {
    #[session(user)]
    user: Option<u64>,
    cart: Vec<u32>,
    note: String,
    is_admin: bool,
}

fn routes() -> Router {
    Router::new()
        .route("/who", get(who))
        .route("/cart", get(cart))
        .route("/cart/{item}", get(put_into_cart))
        .route("/login/{user}", get(login))
        .route("/device/{user}", get(login_with_device))
        .route("/renew", get(async |session: Session<Customer>| session.renew_id().await))
}

async fn who(session: Session<Customer>) -> String {
    format!("{:?}", session.read().await.user())
}

async fn cart(session: Session<Customer>) -> String {
    format!("{:?}", session.read().await.cart())
}

async fn put_into_cart(Path(item): Path<u32>, session: Session<Customer>) {
    session.write().await.cart_mut().push(item);
}

async fn login(Path(user): Path<u64>, session: Session<Customer>) -> sessions::Result<()> {
    session.login(user).await
}

async fn login_with_device(
    Path(user): Path<u64>,
    session: Session<Customer>,
) -> sessions::Result<()> {
    let device = Device::new().with_user_agent(&"u".repeat(256)).with_address("192.0.2.1");
    session.login(user).with_device(device).await
}

fn spied() -> SpyStore<MemoryStore> {
    SpyStore::new(MemoryStore::new())
}

async fn serve(layer: &SessionLayer<Customer>, more: Router) -> Server {
    Server::start(routes().merge(more).layer(layer.clone())).await
}

fn same_browser(server: &Server, client: &Client) -> Client {
    let other = server.client();
    other.set_cookie(COOKIE, client.cookie(COOKIE).as_deref());
    other
}

// ---- a login that fails ----

/// The record of a login whose answer was lost must not be what the next save goes on with.
#[tokio::test]
async fn a_login_that_failed_does_not_come_true_with_the_next_save() {
    for with_token in [false, true] {
        let store = FaultyStore::new(MemoryStore::new(), 1).with_fault(Fault::AnswerLost, 1000);
        let faulty = store.clone();
        let tries = async move |session: Session<Customer>| {
            let outcome = session.login(7).await.map_err(|error| error.kind());
            faulty.heal();
            if with_token {
                session.csrf_token().await.unwrap();
            }
            session.write().await.cart_mut().push(1);
            format!("{outcome:?}")
        };
        let layer = SessionLayer::<Customer>::new(store.clone(), Keys::generate());
        let server = serve(&layer, Router::new().route("/tries", get(tries))).await;
        let client = server.client();
        assert_eq!(client.get("/tries").await.text(), format!("Err({:?})", ErrorKind::Store));
        assert_eq!(client.get("/cart").await.text(), "[1]");
        assert_eq!(client.get("/who").await.text(), "None");
        assert!(store.store().sessions_of("Customer:7").await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn a_login_or_renewal_that_failed_leaves_nothing_to_save() {
    let store = spied();
    let layer = SessionLayer::<Customer>::new(store.clone(), Keys::generate());
    let fails = async |session: Session<Customer>| {
        assert!(session.login(7).await.is_err());
        assert!(session.renew_id().await.is_err());
        session.save().await
    };
    let server = serve(&layer, Router::new().route("/fails", get(fails))).await;
    let client = server.client();
    client.get("/cart/1").await.text();
    store.reset();
    store.fail_next(Operation::Create, 2);
    client.get("/fails").await.text();
    assert_eq!(store.calls().replace, 0);
    assert_eq!(client.get("/cart").await.text(), "[1]");
}

// ---- whose data it is ----

/// What one user had, as rights, is not the next one's.
#[tokio::test]
async fn another_user_in_the_same_browser_begins_anew() {
    let store = MemoryStore::new();
    let layer = SessionLayer::<Customer>::new(store.clone(), Keys::generate());
    let promote = async |session: Session<Customer>| {
        session.write().await.set_is_admin(true);
    };
    let begins = async |Path(user): Path<u64>, session: Session<Customer>| {
        session.login(user).await.unwrap();
        session.began_in_request().to_string()
    };
    let admin = get(async || "for admins");
    let admins_only = RequireLogin::<Customer>::builder().with_requirement(|it| it.is_admin);
    let more = Router::new()
        .route("/admin", admin.layer(admins_only.build().unwrap()))
        .route("/promote", get(promote))
        .route("/begins/{user}", get(begins));
    let server = serve(&layer, more).await;
    let client = server.client();
    client.get("/cart/1").await.text();
    client.get("/device/7").await.text();
    assert_eq!(client.get("/cart").await.text(), "[1]", "what the visitor had stays");
    client.get("/promote").await.text();
    client.get("/login/7").await.text();
    assert_eq!(client.get("/admin").await.text(), "for admins", "the same user");

    assert_eq!(client.get("/begins/7").await.text(), "false", "the session goes on");
    assert_eq!(client.get("/begins/8").await.text(), "true");
    assert_eq!(client.get("/who").await.text(), "Some(8)");
    assert_eq!(client.get("/admin").await.status, 403);
    assert_eq!(client.get("/cart").await.text(), "[]");
    let list = layer.user_sessions().unwrap().list(&8).await.unwrap();
    assert_eq!(list[0].device, Device::new(), "nor is the address of user 7");
}

/// A user who was written into the field before it was one that only a login sets: stores know
/// nothing of that, and `end_all` does not find it.
#[tokio::test]
async fn a_user_who_has_not_logged_in_is_not_logged_in() {
    mod before {
        #[derive(sessions::Session)]
        pub(super) struct Customer {
            pub(super) user: Option<u64>,
        }
    }
    let (store, keys) = (MemoryStore::new(), Keys::generate());
    let before = SessionLayer::<before::Customer>::builder(store.clone(), keys.clone());
    let before = before.in_another_process().build().unwrap();
    let sets = async |session: Session<before::Customer>| {
        session.write().await.set_user(7_u64);
    };
    let before = Server::start(Router::new().route("/", get(sets)).layer(before)).await;
    let client = before.client();
    client.get("/").await.text();

    let layer = SessionLayer::<Customer>::new(store.clone(), keys);
    let account = async |LoggedIn { user, .. }: LoggedIn<Customer>| user.to_string();
    let guarded = get(async || "in").layer(RequireLogin::<Customer>::new());
    let more = Router::new().route("/account", get(account)).route("/guarded", guarded);
    let server = serve(&layer, more).await;
    let client = same_browser(&server, &client);
    for path in ["/account", "/guarded"] {
        assert_eq!(client.get(path).await.status, 401, "{path}");
    }
    client.get("/login/7").await.text();
    assert_eq!(client.get("/account").await.text(), "7");
    assert_eq!(client.get("/guarded").await.text(), "in");
    assert_eq!(layer.user_sessions().unwrap().end_all(&7).await.unwrap(), 1);
    assert_eq!(client.get("/account").await.status, 401);
}

/// Fields that change places with another session's take everything along but the user.
#[tokio::test]
async fn a_user_does_not_come_along_with_another_sessions_fields() {
    let layer = SessionLayer::<Customer>::new(MemoryStore::new(), Keys::generate());
    for in_update in [false, true] {
        let mut user = TestClient::new(routes().layer(layer.clone()), &layer);
        let mut other = user.copy();
        user.login_as(7).await;
        other.with_session(async |session| session.write().await.cart_mut().push(1)).await;
        let swaps = async |mine: Session<Customer>| {
            let theirs = async |theirs: Session<Customer>| {
                let mut mine = mine.write().await;
                if in_update {
                    let swap = |theirs: &mut _| std::mem::swap(&mut *mine, theirs);
                    theirs.update(swap).await.unwrap();
                } else {
                    std::mem::swap(&mut *mine, &mut *theirs.write().await);
                }
                drop(mine);
                let s = theirs.read().await;
                assert_eq!((s.user(), s.cart().len()), (None, 0));
            };
            other.with_session(theirs).await;
        };
        user.with_session(swaps).await;
        let seen = |s: &CustomerFields| (s.user(), s.cart().len());
        assert_eq!(other.with_session(async |it| seen(&*it.read().await)).await, (None, 0));
        assert_eq!(user.with_session(async |it| seen(&*it.read().await)).await, (Some(7), 1));
    }
}

// ---- leases ----

/// A request that only reads does not wait for another process, whether the session has a device or not.
#[tokio::test]
async fn a_reader_does_not_wait_for_another_processs_lease() {
    let clock = ManualClock::new();
    let store = MemoryStore::builder().with_clock(&clock).build();
    let keys = Keys::generate();
    let steps = Steps::default();
    let locks = {
        let steps = steps.clone();
        async move |session: Session<Customer>| {
            let _guard = session.lock().await.unwrap();
            steps.stop().await;
        }
    };
    let layers = [(); 2].map(|()| {
        let builder = SessionLayer::<Customer>::builder(store.clone(), keys.clone());
        builder.with_clock(&clock).build().unwrap()
    });
    let one = serve(&layers[0], Router::new().route("/locks", get(locks))).await;
    let two = serve(&layers[1], Router::new()).await;
    for path in ["/login/7", "/device/7"] {
        let client = one.client();
        client.get(path).await.text();
        let locking = client.spawn_get("/locks");
        steps.arrived.notified().await;
        clock.advance(30 * MINUTE);
        let reader = same_browser(&two, &client);
        let seen = tokio::time::timeout(Duration::from_secs(2), reader.get("/who")).await;
        assert_eq!(seen.expect("it does not wait").text(), "Some(7)", "{path}");
        let list = store.sessions_of("Customer:7").await.unwrap();
        let expires_at = list.iter().map(|(_, record)| record.expires_at).max().unwrap();
        assert_eq!(expires_at, clock.now() + 120 * MINUTE, "{path}: and its use counts");
        steps.go_on.notify_one();
        locking.await.unwrap().text();
        client.get("/renew").await.text();
        layers[0].user_sessions().unwrap().end_all(&7).await.unwrap();
    }
}

// ---- when it was last seen ----

/// Remember-me lasts for as long as it lasts: nothing has to be extended, and it is seen all the same.
#[tokio::test]
async fn a_remembered_session_says_when_it_was_last_seen() {
    const DAY: Duration = Duration::from_secs(24 * 3600);
    async fn remember(session: Session<Customer>) -> sessions::Result<()> {
        session.login(7).remember_for(30 * DAY).with_device(Device::new()).await
    }
    let clock = ManualClock::new();
    let store = SpyStore::new(MemoryStore::builder().with_clock(&clock).build());
    let builder = SessionLayer::<Customer>::builder(store.clone(), Keys::generate());
    let layer = builder.with_clock(&clock).build().unwrap();
    let server = serve(&layer, Router::new().route("/remember", get(remember))).await;
    let client = server.client();
    client.get("/remember").await.text();
    let begun = clock.now();
    clock.advance(10 * DAY);
    store.reset();
    for (minutes, saves) in [(0, 1), (0, 1), (5, 1), (1, 2)] {
        clock.advance(minutes * MINUTE);
        assert_eq!(client.get("/who").await.text(), "Some(7)");
        assert_eq!(store.calls().replace, saves, "{minutes} minutes later");
    }
    let list = layer.user_sessions().unwrap().list(&7).await.unwrap();
    assert_eq!(list[0].last_seen, Some(begun + 10 * DAY + 6 * MINUTE));
    assert_eq!(list[0].expires_at, begun + 30 * DAY);
    assert_eq!(store.calls().touch, 0);
}

// ---- without a store ----

#[tokio::test]
async fn a_renewal_or_login_that_no_cookie_can_hold_is_an_error() {
    async fn fill(Path(size): Path<usize>, session: Session<Customer>) {
        session.write().await.set_note("x".repeat(size));
    }
    async fn fill_and_renew(session: Session<Customer>) -> String {
        session.write().await.set_note("x".repeat(5_000));
        let outcome = session.renew_id().await.map_err(|error| error.kind());
        session.discard_request_changes();
        format!("{outcome:?}")
    }
    let layer = SessionLayer::<Customer>::new(PrivateCookie, Keys::generate());
    let more = Router::new()
        .route("/fill/{size}", get(fill))
        .route("/fill-and-renew", get(fill_and_renew));
    let server = serve(&layer, more).await;
    let client = server.client();
    client.get("/fill/2800").await.text();
    let too_large = format!("Err({:?})", ErrorKind::TooLarge);
    assert_eq!(client.get("/fill-and-renew").await.text(), too_large);
    let reply = client.get("/device/7").await;
    assert!(reply.status.is_server_error(), "{:?}", reply.set_cookies().iter().map(String::len));
    client.get("/fill/100").await.text();
    client.get("/device/7").await.text();
    assert_eq!(client.get("/who").await.text(), "Some(7)");
}

#[tokio::test]
async fn an_update_in_a_cookie_is_repeated_when_its_ground_has_changed() {
    let updates = async |session: Session<Customer>| {
        let mut times = 0;
        let outcome = session.update(|fields| {
            times += 1;
            if times == 1 {
                session.discard_request_changes();
            }
            fields.cart_mut().push(5);
        });
        outcome.await
    };
    let layer = SessionLayer::<Customer>::new(PrivateCookie, Keys::generate());
    let server = serve(&layer, Router::new().route("/updates", get(updates))).await;
    let client = server.client();
    client.get("/cart/1").await.text();
    client.get("/updates").await.text();
    assert_eq!(client.get("/cart").await.text(), "[1, 5]");
}

// ---- ending a user's sessions ----

/// An index that is read in two steps, as those of `MemoryStore` and `RedisStore`: first which
/// sessions there are, then each of them. Stops in between, the first time.
#[derive(Clone)]
struct TwoSteps {
    store: MemoryStore,
    steps: Arc<Mutex<Option<Steps>>>,
}

impl Store for TwoSteps {
    hand_on!(store: load, create, replace, touch, delete);

    fn user_index(&self) -> Option<&dyn DynUserIndex> {
        Some(self)
    }
}

impl UserIndex for TwoSteps {
    async fn sessions_of(&self, user: &str) -> Result<Vec<(StoreKey, Record)>, StoreError> {
        let listed = self.store.sessions_of(user).await?;
        let steps = self.steps.lock().unwrap().take();
        if let Some(steps) = steps {
            steps.stop().await;
        }
        let mut found = Vec::new();
        for (key, _) in listed {
            let record = self.store.load(&key).await?;
            found.extend(record.filter(|it| it.user.as_deref() == Some(user)).map(|it| (key, it)));
        }
        Ok(found)
    }

    async fn delete_sessions_of(
        &self,
        user: &str,
        except: Option<&StoreKey>,
    ) -> Result<u64, StoreError> {
        self.store.delete_sessions_of(user, except).await
    }
}

#[tokio::test]
async fn a_session_that_is_renewed_between_two_looks_is_ended_all_the_same() {
    let (store, steps) = (MemoryStore::new(), Steps::default());
    let index = TwoSteps { store, steps: Arc::new(Mutex::new(None)) };
    let layer = SessionLayer::<Customer>::new(index.clone(), Keys::generate());
    let server = serve(&layer, Router::new()).await;
    let client = server.client();
    client.get("/login/7").await.text();
    *index.steps.lock().unwrap() = Some(steps.clone());
    let sessions: UserSessions<Customer> = layer.user_sessions().unwrap();
    let ending = tokio::spawn(async move { sessions.end_all(&7).await });
    steps.arrived.notified().await;
    client.get("/renew").await.text();
    steps.go_on.notify_one();
    assert_eq!(ending.await.unwrap().unwrap(), 1);
    assert_eq!(client.get("/who").await.text(), "None");
}

/// A request under way whose session has ended meanwhile has no say any more over the others.
#[tokio::test]
async fn an_ended_session_ends_no_others() {
    let store = MemoryStore::new();
    let keys = Keys::generate();
    let steps = Steps::default();
    let one = SessionLayer::<Customer>::new(store.clone(), keys.clone());
    let two = SessionLayer::<Customer>::new(store.clone(), keys);
    let ends_others = {
        let (sessions, steps) = (one.user_sessions().unwrap(), steps.clone());
        async move |LoggedIn { session, .. }: LoggedIn<Customer>| {
            steps.stop().await;
            let ended = sessions.end_others(&session).await.map_err(|error| error.kind());
            format!("{ended:?}")
        }
    };
    let more = Router::new().route("/ends-others", get(ends_others));
    let servers = [serve(&one, more).await, serve(&two, Router::new()).await];
    for server in &servers {
        let client = servers[0].client();
        client.get("/login/7").await.text();
        let under_way = client.copy().spawn_get("/ends-others");
        steps.arrived.notified().await;
        let here = same_browser(server, &client);
        // The password once more: the session has another id.
        here.get("/login/7").await.text();
        steps.go_on.notify_one();
        assert_eq!(under_way.await.unwrap().text(), format!("Err({:?})", ErrorKind::Ended));
        assert_eq!(here.get("/who").await.text(), "Some(7)");
    }
}

// ---- in tests ----

/// What outlives the request of a test client has no response either.
#[tokio::test]
async fn after_the_request_of_a_test_client_there_is_no_login() {
    let layer = SessionLayer::<Customer>::new(MemoryStore::new(), Keys::generate());
    let mut client = TestClient::new(routes().layer(layer.clone()), &layer);
    for _ in 0..2 {
        let kept = client.with_session(async |session| {
            session.write().await.cart_mut().push(1);
            session
        });
        let kept = kept.await;
        assert_eq!(kept.login(7).await.map_err(|error| error.kind()), Err(ErrorKind::NoCookie));
        let items = client.with_session(async |session| session.read().await.cart().len()).await;
        assert!(items > 0, "the client's cookie is still good");
    }
}

/// Whose store cannot list a user's sessions is told so: by the layer, and by the extractor, which asks
/// the store nothing.
#[tokio::test]
async fn a_store_without_an_index_of_users_says_so() {
    /// Does all but list the sessions of a user.
    struct Plain(MemoryStore);

    impl Store for Plain {
        hand_on!(0: load, create, replace, touch, delete);
    }

    async fn count(sessions: UserSessions<Customer>) -> sessions::Result<String> {
        Ok(sessions.list(&7).await?.len().to_string())
    }

    let plain = || Plain(MemoryStore::new());
    let cache = || Cached::new(MemoryStore::new(), plain(), Duration::from_secs(1));
    let keys = Keys::generate();
    let builder = |store| SessionLayer::<Customer>::builder(store, keys.clone());
    for layer in [
        SessionLayer::<Customer>::new(plain(), Keys::generate()),
        SessionLayer::<Customer>::new(Arc::new(plain()), Keys::generate()),
        SessionLayer::<Customer>::new(cache(), Keys::generate()),
        SessionLayer::<Customer>::new(Mirrored::new(MemoryStore::new(), plain()), Keys::generate()),
        SessionLayer::<Customer>::new(
            Migrating::new(plain(), MemoryStore::new()),
            Keys::generate(),
        ),
        SessionLayer::<Customer>::new(PrivateCookie, Keys::generate()),
    ] {
        assert_eq!(layer.user_sessions().unwrap_err().kind(), ErrorKind::NoUserIndex);
        let app: Router = Router::new().route("/count", get(count)).layer(layer.clone());
        let server = Server::start(app).await;
        assert_eq!(server.client().get("/count").await.status, 500);
    }
    assert_eq!(cache().sessions_of("Customer:7").await.unwrap_err().operation(), "sessions_of");

    // And the layer asks its own store, through whatever stands around it.
    let spied = builder(SpyStore::new(MemoryStore::new())).in_another_process().build().unwrap();
    let app: Router = Router::new().route("/count", get(count)).layer(spied.clone());
    let server = Server::start(app).await;
    let client = server.client();
    assert_eq!(client.get("/count").await.text(), "0");
    TestClient::new((), &spied).login_as(7).await;
    assert_eq!(client.get("/count").await.text(), "1");
    assert_eq!(spied.user_sessions().unwrap().end_all(&7).await.unwrap(), 1);
    // Outside of the layer there are none.
    let app: Router = Router::new().route("/count", get(count));
    let server = Server::start(app).await;
    assert_eq!(server.client().get("/count").await.status, 500);
}
