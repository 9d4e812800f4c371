//! Logins: who is logged in, how it begins and ends, and that no other cookie opens it.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::Path,
    response::{Html, IntoResponse, Response},
    routing::{MethodRouter, any, get, post},
};
use http::{Method, Request, StatusCode, request::Parts};
use http_body_util::Full;
use hyper::body::Bytes;
use sessions::{
    Device, ErrorKind, Keys, Lifetime, LoggedIn, MemoryStore, Rejection, RequireLogin,
    RequireLoginBuilder, Session, SessionLayer, Store, StoreKey, UserIndex, UserSessions,
    testing::{Gate, ManualClock, Operation, SessionChange, SpyStore, TestClient},
};
use sessions_tests::{Client, Reply, Server, at_once, eventually};
use tokio::{sync::Notify, task::JoinHandle};
use tower_http::cors::CorsLayer;

use crate::{COOKIE, hold_the_next};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(24 * 3_600);

#[derive(Session)]
struct Customer {
    #[session(user)]
    user: Option<u64>,
    cart: Vec<u32>,
    is_admin: bool,
}

type Spied = SpyStore<MemoryStore>;

/// A shop, and as many layers on its store as a test wants.
struct Shop {
    store: Spied,
    clock: ManualClock,
    layer: SessionLayer<Customer>,
    server: Server,
}

impl Shop {
    async fn start() -> Self {
        let clock = ManualClock::new();
        let store = SpyStore::new(MemoryStore::builder().with_clock(&clock).build());
        Self::on(store, clock, Keys::generate()).await
    }

    /// Two processes on one store.
    async fn two() -> [Self; 2] {
        let clock = ManualClock::new();
        let store = SpyStore::new(MemoryStore::builder().with_clock(&clock).build());
        let keys = Keys::generate();
        [
            Self::on(store.clone(), clock.clone(), keys.clone()).await,
            Self::on(store, clock, keys).await,
        ]
    }

    async fn on(store: Spied, clock: ManualClock, keys: Keys) -> Self {
        let builder = SessionLayer::<Customer>::builder(store.clone(), keys).with_clock(&clock);
        let layer = builder.build().expect("possible settings");
        let server = Server::start(routes().layer(layer.clone())).await;
        Self { store, clock, layer, server }
    }

    fn client(&self) -> Client {
        self.server.client()
    }

    /// Somebody with a cart, who is not logged in.
    async fn visitor(&self) -> Client {
        let client = self.client();
        client.get("/cart/1").await.text();
        client
    }

    async fn logged_in(&self, user: u64) -> Client {
        let client = self.visitor().await;
        client.get(&format!("/login/{user}")).await.text();
        client
    }

    async fn sessions_of(&self, user: &str) -> usize {
        self.store.store().sessions_of(&format!("Customer:{user}")).await.unwrap().len()
    }

    /// The same browser in front of another process.
    fn in_front_of(&self, client: &Client) -> Client {
        let other = self.client();
        other.set_cookie(COOKIE, client.cookie(COOKIE).as_deref());
        other
    }
}

fn routes() -> Router {
    Router::new()
        .route("/who", get(who))
        .route("/cart/{item}", get(put_into_cart))
        .route("/cart", get(cart))
        .route("/login/{user}", get(login))
        .route("/login-afresh/{user}", get(login_afresh))
        .route("/logout", get(logout))
        .route("/renew", get(renew))
        .route("/lock", get(lock))
        .route("/account", get(account))
        .route("/key", get(key))
        .route("/end-others", get(end_others))
        .route("/end-all", get(end_all))
}

async fn who(session: Session<Customer>) -> String {
    format!("{:?}", session.read().await.user())
}

async fn put_into_cart(Path(item): Path<u32>, session: Session<Customer>) {
    session.write().await.cart_mut().push(item);
}

async fn cart(session: Session<Customer>) -> String {
    format!("{:?}", session.read().await.cart())
}

async fn login(Path(user): Path<u64>, session: Session<Customer>) -> sessions::Result<()> {
    session.login(user).await
}

async fn logout(session: Session<Customer>) -> sessions::Result<()> {
    session.logout().await
}

async fn login_afresh(Path(user): Path<u64>, session: Session<Customer>) -> sessions::Result<()> {
    session.login(user).without_earlier_data().await
}

async fn renew(session: Session<Customer>) -> sessions::Result<()> {
    session.renew_id().await
}

async fn lock(session: Session<Customer>) -> sessions::Result<()> {
    drop(session.lock().await?);
    Ok(())
}

async fn account(LoggedIn { user, session }: LoggedIn<Customer>) -> String {
    format!("user {user} with {} items", session.read().await.cart().len())
}

/// What the store calls the session, after it is saved if need be.
async fn key(session: Session<Customer>) -> sessions::Result<String> {
    session.save().await?;
    Ok(session.store_key().map(|key| key.to_string()).unwrap_or_default())
}

async fn end_others(
    sessions: UserSessions<Customer>,
    session: Session<Customer>,
) -> sessions::Result<String> {
    Ok(sessions.end_others(&session).await?.to_string())
}

async fn end_all(
    sessions: UserSessions<Customer>,
    LoggedIn { user, .. }: LoggedIn<Customer>,
) -> sessions::Result<String> {
    Ok(sessions.end_all(&user).await?.to_string())
}

/// A shop with one more route.
async fn shop_with<H, A>(path: &str, handler: H) -> Shop
where
    H: axum::handler::Handler<A, ()>,
    A: 'static,
{
    shop_of(Router::new().route(path, get(handler))).await
}

async fn shop_of(more: Router) -> Shop {
    let shop = Shop::start().await;
    let app = routes().merge(more).layer(shop.layer.clone());
    Shop { server: Server::start(app).await, ..shop }
}

// ---- begin and end ----

#[tokio::test]
async fn a_login_keeps_the_cart_and_ends_the_old_id() {
    let shop = Shop::start().await;
    let client = shop.visitor().await;
    let before = client.copy();
    let reply = client.get("/login/7").await;
    assert_eq!((reply.text(), reply.set_cookies().len()), ("", 1));
    assert_ne!(client.cookie(COOKIE), before.cookie(COOKIE));
    assert_eq!(client.get("/account").await.text(), "user 7 with 1 items");
    assert_eq!(before.get("/who").await.text(), "None");
    assert_eq!(before.get("/cart").await.text(), "[]");
    // And what the login leaves for a moment.
    assert_eq!((shop.store.store().len(), shop.sessions_of("7").await), (1 + 1, 1));
    client.get("/cart/2").await.text();
    assert_eq!(client.get("/account").await.text(), "user 7 with 2 items");
    assert_eq!(shop.sessions_of("7").await, 1, "a later save is the user's too");
}

#[tokio::test]
async fn a_new_visitor_can_log_in() {
    let shop = Shop::start().await;
    let client = shop.client();
    client.get("/login/7").await.text();
    assert_eq!(client.get("/account").await.text(), "user 7 with 0 items");
    assert_eq!((shop.store.store().len(), shop.sessions_of("7").await), (1, 1));
}

#[tokio::test]
async fn what_guards_have_written_before_a_login_comes_along() {
    async fn both(session: Session<Customer>) -> sessions::Result<String> {
        session.write().await.cart_mut().push(5);
        session.login(7).await?;
        session.write().await.cart_mut().push(6);
        let s = session.read().await;
        Ok(format!("{:?} {:?} {}", s.user(), s.cart(), s.user_is_dirty()))
    }
    let shop = shop_with("/both", both).await;
    for (client, cart) in [(shop.visitor().await, "[1, 5, 6]"), (shop.client(), "[5, 6]")] {
        assert_eq!(client.get("/both").await.text(), format!("Some(7) {cart} false"));
        assert_eq!(client.get("/cart").await.text(), cart);
    }
}

#[tokio::test]
async fn a_login_can_leave_the_visitors_data_behind() {
    async fn afresh(session: Session<Customer>) -> sessions::Result<()> {
        session.write().await.cart_mut().push(5);
        session.login(7).without_earlier_data().await
    }
    let shop = shop_with("/afresh", afresh).await;
    for client in [shop.visitor().await, shop.client()] {
        let before = client.copy();
        client.get("/afresh").await.text();
        assert_eq!(client.get("/account").await.text(), "user 7 with 0 items");
        assert_eq!(before.get("/cart").await.text(), "[]", "the old session has ended");
    }
    // And what the visitor's login leaves for a moment.
    assert_eq!((shop.store.store().len(), shop.sessions_of("7").await), (2 + 1, 2));
}

#[tokio::test]
async fn a_logout_ends_this_session_and_no_other() {
    let shop = Shop::start().await;
    let (here, there) = (shop.logged_in(7).await, shop.logged_in(7).await);
    let stolen = here.copy();
    let reply = here.get("/logout").await;
    assert!(reply.set_cookies()[0].contains("Max-Age=0"), "{reply:?}");
    assert_eq!((here.cookie(COOKIE), stolen.get("/who").await.text()), (None, "None"));
    assert_eq!(there.get("/account").await.text(), "user 7 with 1 items");
}

#[tokio::test]
async fn a_login_begins_both_timeouts_anew() {
    let shop = Shop::start().await;
    let client = shop.visitor().await;
    for _ in 0..23 {
        shop.clock.advance(HOUR);
        client.get("/cart").await.text();
    }
    client.get("/login/7").await.text();
    for _ in 0..23 {
        shop.clock.advance(HOUR);
        client.get("/account").await.text();
    }
    shop.clock.advance(HOUR);
    assert_eq!(client.get("/account").await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn remember_me_outlives_the_browser_and_the_layers_timeouts() {
    async fn remember(
        Path((user, days)): Path<(u64, String)>,
        session: Session<Customer>,
    ) -> sessions::Result<()> {
        let login = session.login(user);
        match days.as_str() {
            "not-asked" => login.await,
            "unticked" => login.remember_for(None).await,
            days => login.remember_for(DAY * days.parse::<u32>().unwrap()).await,
        }
    }
    let shop = shop_with("/remember/{user}/{days}", remember).await;
    let client = shop.visitor().await;
    let line = client.get("/remember/7/30").await.set_cookies().remove(0);
    assert!(line.contains("Max-Age=2592000"), "{line}");
    shop.clock.advance(29 * DAY);
    assert_eq!(client.get("/account").await.text(), "user 7 with 1 items");

    // The password once more: nobody is forgotten for that.
    let line = client.get("/remember/7/not-asked").await.set_cookies().remove(0);
    assert!(line.contains("Max-Age=2592000"), "{line}");
    shop.clock.advance(29 * DAY);
    assert_eq!(client.get("/account").await.text(), "user 7 with 1 items");

    // Somebody else at the same browser has not asked to be remembered.
    let line = client.get("/remember/8/not-asked").await.set_cookies().remove(0);
    assert!(!line.contains("Max-Age"), "{line}");
    shop.clock.advance(3 * HOUR);
    assert_eq!(client.get("/account").await.status, StatusCode::UNAUTHORIZED);

    let client = shop.client();
    let line = client.get("/remember/7/unticked").await.set_cookies().remove(0);
    assert!(!line.contains("Max-Age"), "{line}");
}

#[tokio::test]
async fn who_unticks_remember_me_at_the_next_login_is_not_remembered_any_more() {
    async fn log_in(Path(days): Path<u32>, session: Session<Customer>) -> sessions::Result<()> {
        session.login(7).remember_for((days > 0).then_some(DAY * days)).await
    }
    async fn own_limits(session: Session<Customer>) -> sessions::Result<()> {
        let own = Lifetime::new().with_idle_timeout(MINUTE);
        session.login(7).with_lifetime(own).remember_for(None).await
    }
    let routes = Router::new().route("/in/{days}", get(log_in)).route("/own", get(own_limits));
    let shop = shop_of(routes).await;
    let client = shop.visitor().await;
    let line = client.get("/in/30").await.set_cookies().remove(0);
    assert!(line.contains("Max-Age"), "{line}");
    let line = client.get("/in/0").await.set_cookies().remove(0);
    assert!(!line.contains("Max-Age"), "{line}");
    assert_eq!(client.get("/account").await.text(), "user 7 with 1 items");
    shop.clock.advance(3 * HOUR);
    assert_eq!(client.get("/account").await.status, StatusCode::UNAUTHORIZED);
    // What the login says of its limits besides stays.
    client.get("/own").await.text();
    shop.clock.advance(MINUTE * 2);
    assert_eq!(client.get("/account").await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_login_can_have_limits_of_its_own() {
    async fn short(session: Session<Customer>) -> sessions::Result<()> {
        session.login(7).with_lifetime(Lifetime::new().with_absolute_timeout(MINUTE)).await
    }
    let shop = shop_with("/short", short).await;
    for client in [shop.visitor().await, shop.client()] {
        client.get("/short").await.text();
        shop.clock.advance(MINUTE - Duration::from_millis(1));
        client.get("/account").await.text();
        shop.clock.advance(Duration::from_millis(1));
        assert_eq!(client.get("/account").await.status, StatusCode::UNAUTHORIZED);
    }
}

#[tokio::test]
async fn another_user_in_the_same_browser_takes_the_session_over() {
    let shop = Shop::start().await;
    let client = shop.logged_in(7).await;
    let before = client.copy();
    client.get("/login/8").await.text();
    assert_eq!(client.get("/account").await.text(), "user 8 with 0 items", "not user 7's");
    assert_eq!(before.get("/account").await.status, StatusCode::UNAUTHORIZED);
    assert_eq!((shop.sessions_of("7").await, shop.sessions_of("8").await), (0, 1));
}

#[tokio::test]
async fn a_login_does_not_show_whose_it_is() {
    async fn shown(session: Session<Customer>) -> String {
        format!("{:?}", session.login(471_147).without_earlier_data())
    }
    let shop = Shop::start().await;
    let layer = SessionLayer::<Customer>::new(shop.store.clone(), Keys::generate());
    let server = Server::start(Router::new().route("/", get(shown)).layer(layer)).await;
    assert_eq!(
        server.client().get("/").await.text(),
        "Login { keeps_data: false, lifetime: None, .. }"
    );
}

#[tokio::test]
async fn a_login_that_cannot_be_is_an_error() {
    async fn under_a_guard(session: Session<Customer>) -> String {
        let _guard = session.read().await;
        format!("{:?}", session.login(7).await.map_err(|error| error.kind()))
    }
    let shop = Shop::start().await;
    let layer = SessionLayer::<Customer>::new(shop.store.clone(), Keys::generate());
    let app = Router::new().route("/", get(under_a_guard)).layer(layer);
    let server = Server::start(app).await;
    let held = format!("Err({:?})", ErrorKind::GuardHeld);
    assert_eq!(server.client().get("/").await.text(), held);

    // In a task that outlives its request.
    let (told, outcome) = tokio::sync::oneshot::channel();
    let told = Arc::new(std::sync::Mutex::new(Some(told)));
    let late = async move |session: Session<Customer>| {
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(50)).await;
            let kind = session.login(7).await.map_err(|error| error.kind());
            let _ = told.lock().unwrap().take().map(|told| told.send(kind));
        });
    };
    let shop = shop_with("/late", late).await;
    shop.client().get("/late").await.text();
    assert_eq!(outcome.await.unwrap(), Err(ErrorKind::NoCookie));
    assert_eq!(shop.sessions_of("7").await, 0);
}

// ---- a store that fails, a client that hangs up ----

#[tokio::test]
async fn a_login_that_the_store_refuses_changes_nothing() {
    let shop = Shop::start().await;
    let client = shop.visitor().await;
    let cookie = client.cookie(COOKIE);
    for operation in [Operation::Create, Operation::Replace] {
        shop.store.fail_next(operation, 1);
        assert_eq!(client.get("/login/7").await.status, 503, "{operation:?}");
        assert_eq!(client.cookie(COOKIE), cookie);
        assert_eq!(client.get("/who").await.text(), "None");
        assert_eq!(client.get("/cart").await.text(), "[1]");
        assert_eq!((shop.store.store().len(), shop.sessions_of("7").await), (1, 0));
    }
    client.get("/login/7").await.text();
    assert_eq!(client.get("/account").await.text(), "user 7 with 1 items");

    let visitor = shop.client();
    shop.store.fail_next(Operation::Create, 1);
    assert_eq!(visitor.get("/login/7").await.status, 503);
    assert_eq!((visitor.cookie(COOKIE), shop.sessions_of("7").await), (None, 1));
}

#[tokio::test]
async fn without_the_visitors_data_a_login_that_fails_changes_nothing_either() {
    async fn afresh(session: Session<Customer>) -> sessions::Result<()> {
        session.login(7).without_earlier_data().await
    }
    let shop = shop_with("/afresh", afresh).await;
    let client = shop.visitor().await;
    const ALL: u64 = u64::MAX;
    for (operation, deletes, left) in
        [(Operation::Create, ALL, 1), (Operation::Replace, 1, 1), (Operation::Replace, ALL, 2)]
    {
        // Of the last, the record that nobody got to know cannot be taken back, however often that is tried.
        shop.store.fail_next(operation, 1);
        shop.store.fail_next(Operation::Delete, deletes);
        assert_eq!(client.get("/afresh").await.status, 503, "{operation:?}");
        shop.store.heal(Operation::Delete);
        assert_eq!(client.get("/who").await.text(), "None");
        assert_eq!(client.get("/cart").await.text(), "[1]");
        assert_eq!(shop.store.store().len(), left);
    }
}

#[tokio::test]
async fn a_login_is_carried_to_its_end_when_the_client_hangs_up() {
    let shop = Shop::start().await;
    // It creates the new record, and replaces the old one twice.
    let steps = [(Operation::Create, 1), (Operation::Replace, 1), (Operation::Replace, 2)];
    for (user, (operation, times)) in (100..).zip(steps) {
        let client = shop.visitor().await;
        let before = client.copy();
        let mut gate = shop.store.hold(operation);
        let request = tokio::spawn(async move { client.get(&format!("/login/{user}")).await });
        for _ in 1..times {
            gate = hold_the_next(&shop.store, gate, operation).await;
        }
        gate.wait_for_caller().await;
        request.abort();
        gate.release();
        eventually("the login is done", async || {
            shop.sessions_of(&user.to_string()).await == 1 && shop.layer.sessions_in_use() == 0
        })
        .await;
        assert_eq!(before.get("/cart").await.text(), "[]", "{operation:?}: the old id is dead");
    }
}

// ---- late requests with the old cookie ----

async fn key_of(client: &Client) -> StoreKey {
    let digits = client.get("/key").await.text().to_string();
    let byte = |at: usize| u8::from_str_radix(&digits[2 * at..][..2], 16).unwrap();
    StoreKey::from_bytes(std::array::from_fn(byte))
}

/// For so long the old cookie begins no session.
const GRACE: Duration = Duration::from_secs(10);

/// Somebody who has another session since a moment ago, and the same browser a moment ago.
async fn after(shop: &Shop, paths: &[&str]) -> (Client, Client) {
    let client = shop.visitor().await;
    let mut late = client.copy();
    for path in paths {
        late = client.copy();
        assert!(client.get(path).await.status.is_success(), "{path}");
        assert_ne!(client.cookie(COOKIE), late.cookie(COOKIE), "{path}");
    }
    (client, late)
}

/// With the same user, with another one, and without a user.
const EXCHANGES: [&[&str]; 4] =
    [&["/login/7"], &["/login/7", "/login/7"], &["/login/7", "/login/8"], &["/renew"]];

#[tokio::test]
async fn a_late_request_does_not_put_another_cookie_in_the_logins_place() {
    for paths in EXCHANGES {
        for two in [false, true] {
            let shops = Shop::two().await;
            let (client, late) = after(&shops[0], paths).await;
            let late = shops[usize::from(two)].in_front_of(&late);
            let stored = shops[0].store.store().len();
            for _ in 0..2 {
                let reply = late.get("/cart/2").await;
                assert_eq!((reply.text(), reply.set_cookies()), ("", vec![]), "{paths:?}");
            }
            assert_eq!(late.get("/cart").await.text(), "[]", "{paths:?}");
            assert_eq!(
                late.get("/key").await.status,
                StatusCode::OK,
                "nothing to save is no error"
            );
            assert_eq!(shops[0].store.store().len(), stored, "{paths:?}");

            shops[0].clock.advance(GRACE);
            assert_eq!(late.get("/cart/2").await.set_cookies().len(), 1, "{paths:?}");
            assert_eq!(late.get("/cart").await.text(), "[2]", "{paths:?}");
            assert_ne!(late.cookie(COOKIE), client.cookie(COOKIE));
        }
    }
}

#[tokio::test]
async fn a_late_request_is_told_that_it_cannot_save() {
    async fn saves(session: Session<Customer>) -> String {
        session.write().await.cart_mut().push(2);
        format!(
            "{:?} {}",
            session.save().await.map_err(|error| error.kind()),
            session.began_in_request()
        )
    }
    let shop = shop_with("/saves", saves).await;
    for paths in EXCHANGES {
        let (_, late) = after(&shop, paths).await;
        let reply = late.get("/saves").await;
        assert_eq!((reply.text(), reply.set_cookies()), ("Err(Ended) true", vec![]), "{paths:?}");
    }
}

#[tokio::test]
async fn a_late_login_is_a_login_of_its_own() {
    let shop = Shop::start().await;
    for paths in EXCHANGES {
        let (client, late) = after(&shop, paths).await;
        assert_eq!(late.get("/login/9").await.set_cookies().len(), 1, "{paths:?}");
        assert_eq!(late.get("/account").await.text(), "user 9 with 0 items");
        assert_eq!(client.get("/cart").await.status, StatusCode::OK);
    }
}

#[tokio::test]
async fn a_late_logout_leaves_the_logins_cookie_alone() {
    let shop = Shop::start().await;
    for paths in EXCHANGES {
        let (client, late) = after(&shop, paths).await;
        let reply = late.get("/logout").await;
        assert_eq!((reply.text(), reply.set_cookies()), ("", vec![]), "{paths:?}");
        if paths[0] != "/renew" {
            assert_eq!(client.get("/account").await.status, StatusCode::OK, "{paths:?}");
        }
        // Its own new session is as good as any.
        assert_eq!(late.get("/cart").await.text(), "[]");
    }
}

/// The session goes on under another id between the look of the logout and its end.
#[tokio::test]
async fn a_logout_in_another_process_that_meets_a_login_does_not_clear_the_way_for_a_late_request()
{
    for path in ["/login/7", "/login-afresh/7", "/renew"] {
        let [one, two] = Shop::two().await;
        let client = one.visitor().await;
        let [ending, late] = [(); 2].map(|()| two.in_front_of(&client));
        let gate = one.store.hold(Operation::Delete);
        let logout = tokio::spawn(async move { ending.get("/logout").await });
        gate.wait_for_caller().await;
        assert!(client.get(path).await.status.is_success(), "{path}");
        gate.release();
        assert_eq!(logout.await.unwrap().status, StatusCode::OK, "{path}");
        let stored = one.store.store().len();
        let reply = late.get("/cart/2").await;
        assert_eq!((reply.text(), reply.set_cookies()), ("", vec![]), "{path}");
        assert_eq!(one.store.store().len(), stored, "{path}");
        assert_eq!(client.get("/cart").await.status, StatusCode::OK, "{path}");
    }
}

#[tokio::test]
async fn an_old_id_that_somebody_touches_is_not_held_for_longer() {
    let shop = Shop::start().await;
    let visitor = shop.visitor().await;
    let old = key_of(&visitor).await;
    let late = visitor.copy();
    visitor.get("/login/7").await.text();
    // By a request that was under way in another process.
    let store = shop.store.store();
    store.touch(&old, shop.clock.now() + HOUR).await.unwrap();
    shop.clock.advance(GRACE);
    assert!(store.load(&old).await.unwrap().is_some());
    assert_eq!(late.get("/cart/2").await.set_cookies().len(), 1);
    assert_eq!(late.get("/cart").await.text(), "[2]");
}

#[tokio::test]
async fn of_two_cookies_the_one_that_still_opens_a_session_does() {
    let shop = Shop::start().await;
    let (client, late) = after(&shop, &["/login/7"]).await;
    let [new, old] = [&client, &late].map(|it| it.cookie(COOKIE).unwrap());
    for pairs in [[&old, &new], [&new, &old]] {
        let line = format!("{COOKIE}={}; {COOKIE}={}", pairs[0], pairs[1]);
        let browser = shop.client();
        assert_eq!(browser.get_with("/who", &[line.into_bytes()]).await.text(), "Some(7)");
    }
}

/// A save, a renewal and a lease that are based on the very first version, and come late.
#[tokio::test]
async fn nothing_brings_back_what_a_login_has_ended() {
    for end in ["/login/8", "/login-afresh/8"] {
        for path in ["/cart/2", "/renew", "/lock"] {
            let [one, two] = Shop::two().await;
            // Without a visit before: its first record is the login's.
            let client = one.client();
            client.get("/login/7").await.text();
            let old = two.in_front_of(&client);
            let late = one.store.hold(Operation::Replace);
            let request = tokio::spawn({
                let old = old.clone();
                async move { old.get(path).await }
            });
            late.wait_for_caller().await;
            // Whoever comes now is not held.
            one.store.hold(Operation::Replace).release();
            client.get(end).await.text();
            late.release();
            let reply = request.await.unwrap();
            assert_eq!(reply.set_cookies(), Vec::<String>::new(), "{end} {path}");
            assert_eq!(old.get("/who").await.text(), "None", "{end} {path}");
            assert_eq!(one.sessions_of("7").await, 0, "{end} {path}");
            assert_eq!(client.get("/account").await.text(), "user 8 with 0 items");
        }
    }
}

/// A renewal of the client's session that has replaced the old record once, and is about to confirm it.
async fn renewal_between_its_steps(shop: &Shop, client: &Client) -> (JoinHandle<Reply>, Gate) {
    let first = shop.store.hold(Operation::Replace);
    let client = client.clone();
    let renewing = tokio::spawn(async move { client.get("/renew").await });
    (renewing, hold_the_next(&shop.store, first, Operation::Replace).await)
}

#[tokio::test]
async fn a_renewal_may_take_its_time() {
    let shop = Shop::start().await;
    let client = shop.visitor().await;
    let (renewing, gate) = renewal_between_its_steps(&shop, &client).await;
    shop.clock.advance(3 * GRACE);
    gate.release();
    assert_eq!(renewing.await.unwrap().set_cookies().len(), 1);
    assert_eq!(client.get("/cart").await.text(), "[1]");
}

#[tokio::test]
async fn an_end_between_the_steps_of_a_renewal_counts_even_if_the_store_fails() {
    let shop = Shop::start().await;
    for fails in [false, true] {
        let client = shop.visitor().await;
        let key = key_of(&client).await;
        let (renewing, gate) = renewal_between_its_steps(&shop, &client).await;
        assert!(shop.store.store().delete(&key).await.unwrap());
        shop.store.fail_next(Operation::Replace, u64::from(fails));
        gate.release();
        let reply = renewing.await.unwrap();
        assert_eq!((reply.status, reply.set_cookies()), (StatusCode::CONFLICT, vec![]));
        assert!(shop.store.store().is_empty(), "its new session is not kept");
    }
}

/// Writes of every other tab meet the login: whatever the order, the browser is logged in.
#[tokio::test(flavor = "multi_thread")]
async fn writes_beside_a_login_never_log_it_out() {
    for shops in [&[Shop::start().await][..], &Shop::two().await[..]] {
        for round in 0..400 {
            // With another user's data, without a user, and twice at once.
            let (path, logins) = [("/login/7", 1), ("/renew", 1), ("/login/7", 2)][round % 3];
            let visitor = match round % 4 {
                0 => shops[0].logged_in(8).await,
                _ => shops[0].visitor().await,
            };
            let replies = Arc::new(std::sync::Mutex::new(Vec::new()));
            at_once(6, |who| {
                // Each with the cookie from before: what comes back is looked at below.
                let tab = shops[who % shops.len()].in_front_of(&visitor);
                let replies = replies.clone();
                async move {
                    let path = if who < logins { path } else { "/cart/2" };
                    let reply = tab.get(path).await;
                    assert!(reply.status.is_success(), "{path}: {}", reply.status);
                    replies.lock().unwrap().push((path, reply.set_cookies().len()));
                    0
                }
            })
            .await;
            for (path, cookies) in replies.lock().unwrap().iter() {
                assert_eq!(*cookies, usize::from(*path != "/cart/2"), "{path}");
            }
        }
    }
}

// ---- fixation ----

/// What somebody with a planted or stolen cookie tries while its victim logs in.
const ATTACKS: [&str; 4] = ["/who", "/cart/2", "/cart", "/logout"];

async fn planted_cookies_open_no_login(shops: &[Shop], attacks: &[&'static str]) {
    for round in 0..1_000 {
        let victim = shops[0].visitor().await;
        let planted = victim.copy();
        let attack = attacks[round % attacks.len()];
        let user = 1_000 + round as u64;
        // In both orders, and with two tabs of the attacker's.
        at_once(3, |who| {
            let client = match who {
                1 => victim.clone(),
                _ => shops[who % shops.len()].in_front_of(&planted),
            };
            async move {
                let path = if who == 1 { format!("/login/{user}") } else { attack.to_string() };
                let status = client.get(&path).await.status;
                assert!(!status.is_server_error(), "{path}: {status}");
                if who != 1 {
                    // Whatever cookie the attacker has been given: it is nobody's login.
                    assert_eq!(client.get("/who").await.text(), "None", "{attack}");
                }
                0
            }
        })
        .await;
        for shop in shops {
            assert_eq!(shop.in_front_of(&planted).get("/who").await.text(), "None", "{attack}");
            let mine = shop.in_front_of(&victim).get("/who").await;
            assert_eq!(mine.text(), format!("Some({user})"), "{attack}");
        }
        assert_eq!(shops[0].sessions_of(&user.to_string()).await, 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_planted_cookie_never_opens_the_login_in_a_thousand_rounds() {
    planted_cookies_open_no_login(&[Shop::start().await], &ATTACKS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_planted_cookie_never_opens_the_login_in_another_process_either() {
    planted_cookies_open_no_login(&Shop::two().await, &ATTACKS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewal_by_somebody_else_meets_the_login_in_a_thousand_rounds() {
    planted_cookies_open_no_login(&[Shop::start().await], &["/renew"]).await;
    planted_cookies_open_no_login(&Shop::two().await, &["/renew"]).await;
}

/// The old id keeps what a request that is under way with it has seen: not who has logged in since.
#[tokio::test]
async fn a_request_under_way_does_not_see_who_logs_in() {
    let (arrived, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let slow = {
        let (arrived, go_on) = (arrived.clone(), go_on.clone());
        async move |session: Session<Customer>| {
            arrived.notify_one();
            go_on.notified().await;
            let s = session.read().await;
            format!("{:?} {:?} {:?}", s.user(), s.cart(), session.logged_in_at())
        }
    };
    let shop = shop_with("/slow", slow).await;
    for client in [shop.visitor().await, shop.logged_in(6).await] {
        let user = client.get("/who").await.body;
        let under_way = tokio::spawn({
            let client = client.copy();
            async move { client.get("/slow").await }
        });
        arrived.notified().await;
        client.get("/cart/2").await.text();
        client.get("/login/7").await.text();
        client.get("/cart/3").await.text();
        go_on.notify_one();
        let seen = under_way.await.unwrap();
        assert!(seen.text().starts_with(&format!("{user} [1, 2] ")), "{seen:?}");
        assert_eq!(user == "None", seen.text().ends_with("None"), "{seen:?}");
        let kept = if user == "None" { "[1, 2, 3]" } else { "[3]" };
        assert_eq!(client.get("/cart").await.text(), kept);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_tabs_that_log_in_at_once_are_both_logged_in() {
    let shops = Arc::new(Shop::two().await);
    for _ in 0..200 {
        let before = shops[0].visitor().await;
        at_once(2, |tab| {
            let client = shops[tab].in_front_of(&before);
            async move {
                client.get("/login/7").await.text();
                assert_eq!(client.get("/who").await.text(), "Some(7)");
                0
            }
        })
        .await;
        assert_eq!(before.get("/who").await.text(), "None");
    }
}

// ---- guards for routes ----

#[tokio::test]
async fn an_extractor_asks_for_a_login_or_takes_what_there_is() {
    async fn perhaps(login: Option<LoggedIn<Customer>>) -> String {
        login.map_or("nobody".into(), |login| login.user.to_string())
    }
    let shop = shop_with("/perhaps", perhaps).await;
    let client = shop.client();
    let reply = client.get("/account").await;
    assert_eq!((reply.status.as_u16(), &*reply.body), (401, "Please log in."));
    assert_eq!(client.get("/perhaps").await.text(), "nobody");
    client.get("/login/7").await.text();
    assert_eq!(client.get("/account").await.text(), "user 7 with 0 items");
    assert_eq!(client.get("/perhaps").await.text(), "7");
    shop.store.fail_next(Operation::Load, 1);
    assert_eq!(client.get("/perhaps").await.status, 503);
}

#[tokio::test]
async fn a_router_can_be_for_users_only() {
    let shop = Shop::start().await;
    let page = async || "for users";
    let api = Customer::require_login();
    let pages = RequireLogin::<Customer>::builder().with_login_page("/login");
    let recent = pages.clone().with_recent_login(10 * MINUTE).build().unwrap();
    let admin = Customer::require_login_builder().with_requirement(|fields| fields.is_admin);
    let guarded = Router::new()
        .route("/page", get(page).post(page).layer(pages.build().unwrap()))
        .route("/recent", post(page).get(page).layer(recent))
        .route("/admin", get(page).layer::<_, Infallible>(admin.build().unwrap()))
        .route("/api", get(page))
        .route(
            "/promote",
            get(async |session: Session<Customer>| {
                session.write().await.set_is_admin(true);
            }),
        )
        .route_layer(api.clone());
    let app = guarded
        .route("/cors", get(page).options(async || "any").layer(api))
        .merge(Router::new().route("/login/{user}", get(login)));
    let server = Server::start(app.layer(shop.layer.clone())).await;
    let client = server.client();

    assert_eq!(client.get("/api").await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(client.get("/nowhere").await.status, StatusCode::NOT_FOUND);
    assert_eq!(client.request(Method::OPTIONS, "/cors").await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(client.cookie(COOKIE), None, "who is only refused gets no session");

    client.get("/login/7").await.text();
    for path in ["/api", "/page", "/recent"] {
        assert_eq!(client.get(path).await.text(), "for users", "{path}");
    }
    assert_eq!(client.get("/admin").await.status, StatusCode::FORBIDDEN);
    client.get("/promote").await.text();
    assert_eq!(client.get("/admin").await.text(), "for users");

    shop.clock.advance(10 * MINUTE);
    assert_eq!(client.get("/recent").await.text(), "for users");
    shop.clock.advance(Duration::from_millis(1));
    let reply = client.get("/recent").await;
    assert_eq!((reply.status.as_u16(), &*reply.header("location")), (303, "/login?next=%2Frecent"));
    let reply = client.request(Method::POST, "/recent").await;
    assert_eq!((reply.status.as_u16(), &*reply.header("location")), (303, "/login"));
    client.get("/login/7").await.text();
    assert_eq!(client.get("/recent").await.text(), "for users");

    shop.store.fail_next(Operation::Load, 1);
    assert_eq!(client.get("/api").await.status, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn who_is_not_logged_in_is_sent_to_the_login_page_and_back() {
    let shop = Shop::start().await;
    let login =
        RequireLogin::<Customer>::builder().with_login_page("/login?lang=de").build().unwrap();
    let app = Router::new().route("/{*page}", get(async || "in")).layer(login);
    let server = Server::start(app.layer(shop.layer.clone())).await;
    let reply = server.client().get("/orders/7?page=2&sort=a%20b").await;
    assert_eq!(reply.status, StatusCode::SEE_OTHER);
    let location = reply.header("location");
    assert_eq!(location, "/login?lang=de&next=%2Forders%2F7%3Fpage%3D2%26sort%3Da%2520b");
    assert_eq!(reply.header("vary"), "Cookie");
}

/// A router has its way back from any depth, also where a proxy has taken something away.
#[tokio::test]
async fn the_way_back_leads_out_of_nested_routers() {
    let shop = Shop::start().await;
    let page = || get(async || "in");
    let login = RequireLogin::<Customer>::builder().with_login_page("/shop/login");
    let orders = || Router::new().route("/{id}", page());
    let guarded =
        |login: RequireLogin<Customer>| Router::new().nest("/orders", orders().layer(login));
    let behind = login.clone().with_path_prefix("/shop").build().unwrap();
    let login = login.build().unwrap();
    let app = Router::new()
        .nest("/nested", guarded(login.clone()))
        .nest("/behind", guarded(behind.clone()))
        .nest_service("/service", guarded(login.clone()))
        .nest("/own-session", guarded(login.clone()).layer(shop.layer.clone()))
        .route("/flat", page().layer(behind))
        .layer(shop.layer.clone());
    let server = Server::start(app).await;
    for (path, next) in [
        ("/nested/orders/7?page=2", "%2Fnested%2Forders%2F7%3Fpage%3D2"),
        ("/behind/orders/7?page=2", "%2Fshop%2Fbehind%2Forders%2F7%3Fpage%3D2"),
        ("/service/orders/7", "%2Fservice%2Forders%2F7"),
        ("/own-session/orders/7", "%2Fown-session%2Forders%2F7"),
        ("/flat", "%2Fshop%2Fflat"),
    ] {
        let reply = server.client().get(path).await;
        assert_eq!(reply.status, StatusCode::SEE_OTHER);
        assert_eq!(reply.header("location"), format!("/shop/login?next={next}"));
        let reply =
            server.client().call_http2(Request::get(path).body(Full::default()).unwrap()).await;
        assert_eq!(reply.header("location"), format!("/shop/login?next={next}"), "over HTTP/2");
    }
}

#[test]
fn what_is_no_address_of_a_login_page_is_refused_in_words() {
    for page in
        ["/login", "/", "/login?lang=de#form", "https://id.example/login", "HTTP://id.example"]
    {
        RequireLogin::<Customer>::builder().with_login_page(page).build().unwrap();
    }
    let refused = |builder: RequireLoginBuilder<Customer>, what| {
        let message = builder.build().unwrap_err().to_string();
        assert!(message.contains(&format!("`{what}` is no")), "{message}");
        assert!(message.contains("begins with one `/`"), "{message}");
    };
    for page in [
        "",
        "login",
        "./login",
        "?login",
        "#login",
        "login.example/login",
        "//id.example/login",
        "javascript:alert(1)",
        "mailto:a@shop.example",
        "https://",
        "https:login",
        " /login",
        "/login\n",
        "/login\0",
    ] {
        refused(RequireLogin::builder().with_login_page(page), page);
    }
    for prefix in
        ["", "/", "shop", "/shop/", "//shop", "https://shop.example", "/a?b", "/a#b", "/a b"]
    {
        refused(RequireLogin::builder().with_path_prefix(prefix), prefix);
    }
}

/// What a browser asks without cookies, before a request to another site: it gets the headers that
/// answer it. Nothing else passes as one, and nobody reads a page by it.
#[tokio::test]
async fn a_preflight_passes_without_what_is_not_its_own() {
    let shop = Shop::start().await;
    let cors = CorsLayer::new().allow_origin(["https://app.example".parse().unwrap()]);
    let any_page = || -> MethodRouter { any(async || ([("content-length", "9")], "for users")) };
    let never = RequireLogin::<Customer>::builder().with_requirement(|_| false).build().unwrap();
    let app = Router::new()
        .route("/cors", any_page().layer::<_, Infallible>(cors).layer(never.clone()))
        .route("/any", any_page().layer(never))
        .layer(shop.layer.clone());
    let server = Server::start(app).await;
    let client = server.client();
    let asks = async |path: &str, headers: &[(&str, &str)]| {
        let mut request = Request::builder().method(Method::OPTIONS).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        client.call(request.body(Full::default()).unwrap()).await
    };
    let origin = ("origin", "https://app.example");
    let method = ("access-control-request-method", "GET");
    let reply = asks("/cors", &[origin, method]).await;
    assert_eq!(reply.text(), "");
    assert_eq!(reply.header("access-control-allow-origin"), origin.1);
    assert_eq!(asks("/any", &[origin, method]).await.text(), "");
    for headers in [&[][..], &[origin], &[method]] {
        for path in ["/cors", "/any"] {
            let reply = asks(path, headers).await;
            assert_eq!(reply.status, StatusCode::UNAUTHORIZED, "{path} {headers:?}");
        }
    }
}

#[tokio::test]
async fn who_does_not_pass_is_answered_as_the_application_wants() {
    fn rejected(rejection: &Rejection, request: &Parts) -> Response {
        match rejection.login_page() {
            Some(page) if request.headers.contains_key("hx-request") => {
                [("hx-redirect", page)].into_response()
            }
            Some(_) => rejection.response().into_response(),
            None => {
                let kind = rejection.kind();
                (rejection.status(), Html(format!("<h1>{kind:?}</h1>"))).into_response()
            }
        }
    }
    let shop = Shop::start().await;
    let page = || get(async || "for users");
    let pages = RequireLogin::<Customer>::builder()
        .with_login_page("/login")
        .with_rejection_response(rejected);
    let admin = pages.clone().with_requirement(|fields| fields.is_admin).build().unwrap();
    let pages = pages.build().unwrap();
    let api = RequireLogin::<Customer>::builder();
    let api = api.with_rejection_response(rejected).build().unwrap();
    let app = Router::new()
        .route("/page", page().layer(pages.clone()))
        .route("/admin", page().layer(admin))
        .route("/api", page().layer(api))
        .route("/login/{user}", get(login))
        .layer(shop.layer.clone());
    let server = Server::start(app).await;
    let client = server.client();
    let htmx = Request::get("/page?a=b").header("hx-request", "true");
    let reply = client.call(htmx.body(Full::<Bytes>::default()).unwrap()).await;
    assert_eq!(reply.status, StatusCode::OK);
    assert_eq!(reply.header("hx-redirect"), "/login?next=%2Fpage%3Fa%3Db");
    assert_eq!(
        (reply.header("location"), reply.header("cache-control")),
        ("".into(), "no-store".into())
    );
    let reply = client.get("/page").await;
    assert_eq!((reply.status.as_u16(), &*reply.header("location")), (303, "/login?next=%2Fpage"));
    let reply = client.get("/api").await;
    assert_eq!((reply.status.as_u16(), &*reply.body), (401, "<h1>LoginRequired</h1>"));
    client.get("/login/7").await.text();
    let reply = client.get("/admin").await;
    assert_eq!((reply.status.as_u16(), &*reply.body), (403, "<h1>Forbidden</h1>"));
    shop.store.fail_next(Operation::Load, 1);
    let reply = client.get("/page").await;
    assert_eq!((reply.status.as_u16(), &*reply.body), (503, "<h1>Session</h1>"));
    assert_eq!(client.get("/page").await.text(), "for users");
}

// ---- devices ----

async fn with_device(
    Path((user, agent)): Path<(u64, String)>,
    session: Session<Customer>,
) -> sessions::Result<()> {
    let device = Device::new().with_user_agent(&agent).with_address("192.0.2.1");
    session.login(user).with_device(device).await
}

#[tokio::test]
async fn a_user_sees_where_they_are_logged_in() {
    let shop = shop_with("/device/{user}/{agent}", with_device).await;
    let sessions = shop.layer.user_sessions().unwrap();
    let (phone, laptop) = (shop.client(), shop.visitor().await);
    phone.get("/device/7/phone").await.text();
    shop.clock.advance(MINUTE);
    laptop.get("/device/7/laptop").await.text();
    shop.logged_in(8).await;
    let list = async || {
        let list = sessions.list(&7).await.unwrap();
        let shown = list.iter().map(|info| {
            let agent = info.device.user_agent().unwrap_or("?");
            let seen = info.last_seen.unwrap().duration_since(info.logged_in_at).unwrap();
            format!("{agent} {} {}", info.device.address().unwrap_or("?"), seen.as_secs() / 60)
        });
        shown.collect::<Vec<_>>()
    };
    assert_eq!(list().await, ["laptop 192.0.2.1 0", "phone 192.0.2.1 0"]);

    // Seen again, even if it only reads.
    shop.clock.advance(30 * MINUTE);
    phone.get("/who").await.text();
    assert_eq!(list().await, ["phone 192.0.2.1 31", "laptop 192.0.2.1 0"]);
    shop.clock.advance(MINUTE);
    laptop.get("/cart/9").await.text();
    assert_eq!(list().await, ["laptop 192.0.2.1 31", "phone 192.0.2.1 31"]);
    // The device stays known through a renewal, and through another login.
    laptop.get("/renew").await.text();
    laptop.get("/login/7").await.text();
    assert_eq!(list().await, ["laptop 192.0.2.1 0", "phone 192.0.2.1 31"]);
}

#[tokio::test]
async fn a_request_that_is_no_use_leaves_the_device_as_it_was_seen() {
    let clock = ManualClock::new();
    let store = MemoryStore::builder().with_clock(&clock).build();
    let builder = SessionLayer::<Customer>::builder(store.clone(), Keys::generate());
    let layer = builder.with_clock(&clock).build().unwrap();
    let sessions = layer.user_sessions().unwrap();
    let seen = async || {
        let list = sessions.list(&7).await.unwrap();
        let seen = list[0].last_seen.unwrap().duration_since(list[0].logged_in_at).unwrap();
        seen.as_secs() / 60
    };
    let mut client = TestClient::new((), &layer);
    let device = Device::new().with_user_agent("phone");
    client.with_session(async |s| s.login(7).with_device(device).await.unwrap()).await;
    clock.advance(30 * MINUTE);
    client.with_session(async |s| drop(s.without_refresh())).await;
    assert_eq!(seen().await, 0);
    let write = async |s: Session<Customer>| {
        s.without_refresh().write().await.set_cart([1]);
    };
    client.with_session(write).await;
    assert_eq!(seen().await, 0);
    client.with_session(async |_| {}).await;
    assert_eq!(seen().await, 30);
}

#[tokio::test]
async fn a_session_knows_itself_in_the_list() {
    let shop = Shop::start().await;
    let sessions = shop.layer.user_sessions().unwrap();
    assert_eq!(shop.client().get("/key").await.text(), "", "nothing is stored");
    let clients = [shop.logged_in(7).await, shop.logged_in(7).await];
    let own = futures(clients.iter().map(async |client| client.get("/key").await.body)).await;
    let list = sessions.list(&7).await.unwrap();
    let mut listed: Vec<_> = list.iter().map(|info| info.key.to_string()).collect();
    listed.sort();
    assert_ne!(own[0], own[1]);
    assert_eq!(listed, {
        let mut own = own.clone();
        own.sort();
        own
    });
    clients[0].get("/renew").await.text();
    assert_ne!(clients[0].get("/key").await.text(), own[0]);
}

#[tokio::test]
async fn what_a_device_says_is_cut_to_a_bounded_length() {
    let long = "ä".repeat(1_000);
    let device = Device::new().with_user_agent(&long).with_address(&long);
    assert_eq!(device.user_agent(), Some(&*"ä".repeat(128)));
    assert_eq!(device.address().unwrap().len(), 256);
    assert_eq!(Device::new().with_user_agent("").user_agent(), None);
}

/// A list of devices is read in a terminal and in a log as well as in a page.
#[test]
fn a_device_has_no_characters_that_change_what_stands_beside_it() {
    let of = |text| Device::new().with_user_agent(text).user_agent().map(str::to_string);
    assert_eq!(of("a\r\nb\u{7}\u{1b}[31m\u{7f}\u{85}c\0"), Some("ab[31mc".into()));
    // "gpj.exe" would be shown as "exe.jpg".
    let overrides = "\u{202e}gpj.exe\u{202c}\u{2066}\u{2069}\u{200f}\u{61c}\u{2028}\u{feff}";
    assert_eq!(of(overrides), Some("gpj.exe".into()));
    assert_eq!(of("\u{e0041}\u{200b}"), None);
    assert_eq!(Device::new().with_address("::1\n").address(), Some("::1"));
    // Letters of all scripts stay, and markup: whoever shows it escapes it.
    let text = "Mözilla <b> 浏览器 مرحبا 👩\u{200d}💻";
    assert_eq!(of(text), Some(text.into()));
}

#[tokio::test]
async fn a_user_ends_one_session_and_nobody_elses() {
    let shop = Shop::start().await;
    let sessions = shop.layer.user_sessions().unwrap();
    let (mine, other, stranger) =
        (shop.logged_in(7).await, shop.logged_in(7).await, shop.logged_in(8).await);
    let strangers = sessions.list(&8).await.unwrap()[0].key;
    assert!(!sessions.end(&7, &strangers).await.unwrap());
    assert_eq!(stranger.get("/who").await.text(), "Some(8)");
    let list = sessions.list(&7).await.unwrap();
    assert_eq!(list.len(), 2);
    assert!(sessions.end(&7, &list[0].key).await.unwrap());
    assert!(!sessions.end(&7, &list[0].key).await.unwrap());
    let left = [&mine, &other].map(async |client| client.get("/who").await.body);
    let mut left = futures(left).await;
    left.sort();
    assert_eq!(left, ["None", "Some(7)"]);
}

async fn futures<R>(futures: impl IntoIterator<Item = impl Future<Output = R>>) -> Vec<R> {
    let mut done = Vec::new();
    for future in futures {
        done.push(future.await);
    }
    done
}

#[tokio::test]
async fn logging_out_everywhere_else_ends_the_others_in_every_process() {
    let [one, two] = Shop::two().await;
    let here = one.logged_in(7).await;
    let others = [one.logged_in(7).await, two.logged_in(7).await, two.logged_in(7).await];
    let stranger = two.logged_in(8).await;
    assert_eq!(one.client().get("/end-others").await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(here.get("/end-others").await.text(), "3");
    for other in &others {
        for shop in [&one, &two] {
            assert_eq!(shop.in_front_of(other).get("/who").await.text(), "None");
        }
    }
    assert_eq!(here.get("/who").await.text(), "Some(7)");
    assert_eq!(stranger.get("/who").await.text(), "Some(8)");
    assert_eq!(here.get("/end-all").await.text(), "1");
    assert_eq!(here.get("/who").await.text(), "None");
    assert_eq!((one.sessions_of("7").await, one.sessions_of("8").await), (0, 1));
}

#[tokio::test]
async fn a_request_under_way_saves_nothing_once_its_session_was_ended_elsewhere() {
    let [one, two] = Shop::two().await;
    let here = one.logged_in(7).await;
    for shop in [&one, &two] {
        let victim = shop.in_front_of(&two.logged_in(7).await);
        let gate = shop.store.hold(Operation::Replace);
        let writing = tokio::spawn({
            let victim = victim.clone();
            async move { victim.get("/cart/2").await }
        });
        gate.wait_for_caller().await;
        assert_eq!(here.get("/end-others").await.text(), "1");
        gate.release();
        let reply = writing.await.unwrap();
        assert_eq!((reply.text(), reply.set_cookies().len()), ("", 0), "it did nothing wrong");
        assert_eq!(victim.get("/who").await.text(), "None");
    }
    assert_eq!(one.sessions_of("7").await, 1);
}

/// A session that exchanges its id just then must not slip through.
#[tokio::test(flavor = "multi_thread")]
async fn logging_out_everywhere_beats_a_renewal_in_a_thousand_rounds() {
    let shops = Arc::new(Shop::two().await);
    for round in 0..1_000 {
        let here = shops[0].logged_in(7).await;
        let there = shops[1].logged_in(7).await;
        let path = ["/renew", "/cart/2"][round % 2];
        at_once(2, |who| {
            let client = if who == 0 { here.clone() } else { there.clone() };
            async move { client.get(["/end-others", path][who]).await.status.as_u16() }
        })
        .await;
        assert_eq!(there.get("/who").await.text(), "None", "{path}");
        assert_eq!(shops[0].sessions_of("7").await, 1, "{path}");
        assert_eq!(here.get("/end-all").await.text(), "1");
    }
}

// ---- without a store, and in tests ----

#[tokio::test]
async fn a_session_in_its_cookie_can_be_logged_in_too() {
    let layer = SessionLayer::<Customer>::new(sessions::PrivateCookie, Keys::generate());
    let app = Router::new()
        .route("/who", get(who))
        .route("/cart/{item}", get(put_into_cart))
        .route("/account", get(account))
        .route("/key", get(key))
        .route("/login/{user}", get(login))
        .route("/logout", get(logout))
        .layer(layer);
    let server = Server::start(app).await;
    for visits_first in [false, true] {
        let client = server.client();
        if visits_first {
            client.get("/cart/1").await.text();
        }
        client.get("/login/7").await.text();
        let items = usize::from(visits_first);
        assert_eq!(client.get("/account").await.text(), format!("user 7 with {items} items"));
        client.get("/logout").await.text();
        assert_eq!(client.get("/who").await.text(), "None");
    }
}

#[tokio::test]
async fn a_test_client_is_logged_in_with_one_line() {
    let clock = ManualClock::new();
    let store = MemoryStore::builder().with_clock(&clock).build();
    let builder = SessionLayer::<Customer>::builder(store.clone(), Keys::generate());
    let layer = builder.with_clock(&clock).build().unwrap();
    let app = routes().layer(layer.clone());
    let mut client = TestClient::new(app, &layer);
    assert_eq!(client.get("/account").await.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(client.get("/cart/1").await.change, SessionChange::Begun);
    assert_eq!(client.get("/cart/2").await.change, SessionChange::Kept);
    client.login_as(7).await;
    let mut thief = client.copy();
    assert_eq!(client.get("/account").await.status(), StatusCode::OK);
    let items = client.with_session(async |session| session.read().await.cart().len()).await;
    assert_eq!(items, 2);
    assert_eq!(client.get("/renew").await.change, SessionChange::Renewed);
    assert_eq!(thief.get("/account").await.status(), StatusCode::UNAUTHORIZED);
    clock.advance(3 * HOUR);
    assert_eq!(client.get("/account").await.status(), StatusCode::UNAUTHORIZED);
    client.login_as(8).await;
    assert!(client.cookie().unwrap().starts_with("__Host-id="));
    assert_eq!(client.get("/logout").await.change, SessionChange::Ended);
    assert_eq!(client.cookie(), None);
}
