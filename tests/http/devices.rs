//! UserSessions that are bound to a device: a browser that has a key, others that have none, and a thief.

use std::{collections::BTreeMap, future::pending, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{Path, State},
    routing::{get, post},
};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD as BASE64};
use http::{Method, StatusCode};
use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use sessions::{
    DeviceBinding, DeviceProof, Keys, MemoryStore, RequireLogin, Session, SessionLayer, Store,
    StoreKey, Unproven, UnprovenPolicy, UserIndex, UserSessions,
    store::Cached,
    testing::{Calls, Fault, FaultyStore, ManualClock, Operation, SpyStore},
};
use sessions_tests::{
    Client, Server, at_once,
    devices::{BOUND, Bound, Browser, LINK, REFRESH, parameter, request, with_headers},
    eventually,
};
use sha2::{Digest, Sha256};
use tokio::sync::Notify;

use crate::COOKIE;

const REGISTER: &str = "/device-binding/register";

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);

#[derive(Session)]
struct Customer {
    #[session(user)]
    user: Option<u64>,
    visits: u32,
}

type Spied = SpyStore<MemoryStore>;

struct Shop {
    store: Spied,
    clock: ManualClock,
    keys: Keys,
    layer: SessionLayer<Customer>,
    server: Server,
    locked: Arc<Notify>,
}

impl Shop {
    async fn start() -> Self {
        Self::with(DeviceBinding::new()).await
    }

    async fn with(binding: DeviceBinding) -> Self {
        Self::or_without(Some(binding)).await
    }

    async fn or_without(binding: Option<DeviceBinding>) -> Self {
        let clock = ManualClock::new();
        let store = SpyStore::new(MemoryStore::builder().with_clock(&clock).build());
        Self::on(store, clock, Keys::generate(), binding).await
    }

    async fn on(
        store: Spied,
        clock: ManualClock,
        keys: Keys,
        binding: Option<DeviceBinding>,
    ) -> Self {
        let mut builder = SessionLayer::<Customer>::builder(store.clone(), keys.clone())
            .with_clock(&clock)
            .in_another_process();
        if let Some(binding) = binding {
            builder = builder.bind_to_device(binding);
        }
        let layer = builder.build().expect("possible settings");
        let locked = Arc::new(Notify::new());
        let sessions = layer.user_sessions().expect("the store can list them");
        let app = routes().with_state((sessions, locked.clone())).layer(layer.clone());
        let server = Server::start(app).await;
        Self { store, clock, keys, layer, server, locked }
    }

    /// Another process on the same store.
    async fn twin(&self) -> Self {
        let (store, clock, keys) = (self.store.clone(), self.clock.clone(), self.keys.clone());
        Self::on(store, clock, keys, Some(DeviceBinding::new())).await
    }

    fn browser(&self, number: u8) -> Browser {
        Browser::new(self.server.client(), &self.clock, number)
    }

    /// A browser that is logged in and bound, and past the first minute.
    async fn bound(&self, number: u8, user: u64) -> Browser {
        let mut browser = self.browser(number);
        browser.get(&format!("/login/{user}")).await.text();
        assert!(browser.bound.is_some(), "it is not bound");
        self.clock.advance(2 * MINUTE);
        browser
    }

    async fn sessions_of(&self, user: u64) -> usize {
        let user = format!("Customer:{user}");
        self.store.store().sessions_of(&user).await.expect("it answers").len()
    }
}

type AppState = (UserSessions<Customer>, Arc<Notify>);

fn routes() -> Router<AppState> {
    let users = RequireLogin::<Customer>::builder().with_login_page("/login-page");
    let users = users.build().expect("a path");
    Router::new()
        .route("/account", get(who).layer(users))
        .route("/who", get(who).post(who))
        .route("/proof", get(proof))
        .route("/visit", get(visit).post(visit))
        .route("/login/{user}", get(login))
        .route("/logout", get(logout))
        .route("/renew", get(renew))
        .route("/devices/{user}", get(devices))
        .route("/end-others", get(end_others))
        .route("/lock", get(lock))
        .route("/wait", get(wait))
        .route("/still", get(async || "still"))
}

async fn who(session: Session<Customer>) -> String {
    format!("{:?}", session.read().await.user())
}

async fn proof(session: Session<Customer>) -> String {
    format!("{:?}", session.device_binding())
}

async fn visit(session: Session<Customer>) -> String {
    let mut s = session.write().await;
    *s.visits_mut() += 1;
    s.visits.to_string()
}

async fn login(Path(user): Path<u64>, session: Session<Customer>) -> sessions::Result<()> {
    session.login(user).await
}

async fn logout(session: Session<Customer>) -> sessions::Result<()> {
    session.logout().await
}

async fn renew(session: Session<Customer>) -> sessions::Result<()> {
    session.renew_id().await
}

async fn devices(
    Path(user): Path<u64>,
    State((sessions, _)): State<AppState>,
) -> sessions::Result<String> {
    let list = sessions.list(&user).await?;
    Ok(format!("{:?}", list.iter().map(|it| it.bound_since.is_some()).collect::<Vec<_>>()))
}

async fn end_others(
    State((sessions, _)): State<AppState>,
    session: Session<Customer>,
) -> sessions::Result<()> {
    sessions.end_others(&session).await?;
    Ok(())
}

/// Holds its session's lock until its client is gone.
async fn lock(State((_, locked)): State<AppState>, session: Session<Customer>) {
    let _guard = session.write().await;
    locked.notify_one();
    pending::<()>().await;
}

/// Has its session, and takes its time.
async fn wait(State((_, done)): State<AppState>, session: Session<Customer>) -> String {
    done.notified().await;
    who(session).await
}

/// Where the store has the link of the browser's binding.
fn link_of(browser: &Browser) -> StoreKey {
    let id = BASE64.decode(&browser.bound().id).expect("base64");
    let hash = Sha256::new_with_prefix("sessions: link of a device binding: ");
    StoreKey::from_bytes(hash.chain_update(&id[..16]).finalize().into())
}

// ---- registration ----

#[tokio::test]
async fn a_login_offers_a_binding_and_a_browser_that_takes_it_is_bound() {
    let shop = Shop::start().await;
    let mut browser = shop.browser(1);
    assert_eq!(browser.get("/proof").await.text(), "Unbound");
    let login = browser.client.get("/login/7").await;
    let offer = login.header("secure-session-registration");
    assert!(offer.contains(&format!("path=\"{REGISTER}\"")), "{offer}");
    assert!(login.header("cache-control").contains("no-store"));
    assert_eq!(browser.client.get("/proof").await.text(), "Unbound");
    assert_eq!(browser.client.get("/devices/7").await.text(), "[false]");

    let reply = browser.register(&offer).await;
    assert_eq!(reply.header("content-type"), "application/json");
    assert_eq!(reply.header("cache-control"), "no-store");
    let cookie = reply.set_cookies().remove(0);
    let (_, attributes) = cookie.split_once("; ").expect("attributes");
    assert_eq!(attributes, "HttpOnly; SameSite=Lax; Secure; Path=/; Max-Age=590");
    let proof = browser.get("/proof").await;
    assert!(proof.text().starts_with("Proven"), "{proof:?}");
    assert_eq!(proof.header("secure-session-registration"), "", "it is bound already");
    assert_eq!(browser.client.get("/devices/7").await.text(), "[true]");
}

#[tokio::test]
async fn nobody_is_offered_a_binding_who_is_not_logged_in_and_nobody_twice_in_ten_minutes() {
    let shop = Shop::start().await;
    let client = shop.server.client();
    let is_offered = async |path: &str| {
        let reply = client.get(path).await;
        reply.text();
        reply.headers.contains_key("secure-session-registration")
    };
    assert!(!is_offered("/visit").await, "nobody is logged in");
    assert!(is_offered("/login/7").await);
    for path in ["/who", "/visit", "/still"] {
        assert!(!is_offered(path).await);
    }
    assert!(is_offered("/renew").await, "the first offer was for another id");
    shop.clock.advance(9 * MINUTE);
    assert!(!is_offered("/who").await);
    shop.clock.advance(MINUTE);
    assert!(!is_offered("/still").await, "the handler does not ask for its session");
    assert!(is_offered("/who").await);
    assert!(!is_offered("/who").await);
}

#[tokio::test]
async fn a_registration_with_anything_wrong_binds_nobody() {
    let shop = Shop::start().await;
    let (mut browser, mut other) = (shop.browser(1), shop.browser(2));
    let offer = browser.client.get("/login/7").await.header("secure-session-registration");
    let others = other.client.get("/login/8").await.header("secure-session-registration");
    let (challenge, others) = (parameter(&offer, "challenge"), parameter(&others, "challenge"));
    let post = async |client: &Client, proof: &str| {
        let headers = [("secure-session-response", proof)];
        client.call(request(Method::POST, REGISTER, &headers)).await.status.as_u16()
    };
    let good = browser.registration(challenge);
    // The first letter of the signature: each of its bits counts, which the last one's do not.
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let other_first = if signature.starts_with('A') { "B" } else { "A" };
    let forged = format!("{signed}.{other_first}{}", &signature[1..]);
    let client = &browser.client.clone();
    let bare = client.call(request(Method::POST, REGISTER, &[])).await;
    assert_eq!(bare.status, StatusCode::BAD_REQUEST);
    for (what, proof) in [
        ("no JWT", "x".to_string()),
        ("another session's challenge", browser.registration(others)),
        ("no challenge of ours", browser.registration("abc")),
        ("without a key", browser.proof(challenge)),
        ("a changed signature", forged),
    ] {
        assert_eq!(post(client, &proof).await, 403, "{what}");
    }
    assert_eq!(post(&other.client, &good).await, 403, "it is another session's");
    assert_eq!(post(&shop.server.client(), &good).await, 401, "there is no session");
    let visitor = shop.server.client();
    visitor.get("/visit").await.text();
    assert_eq!(post(&visitor, &good).await, 403, "nobody is logged in");
    assert_eq!(client.get("/devices/7").await.text(), "[false]");

    shop.clock.advance(5 * MINUTE + SECOND);
    assert_eq!(post(client, &good).await, 403, "too old");
    let again = client.get("/who").await.header("secure-session-registration");
    assert_ne!(again, "", "the next page makes the offer again");
    assert_eq!(browser.register(&again).await.status, StatusCode::OK);
    let second = other.registration(parameter(&again, "challenge"));
    assert_eq!(post(client, &second).await, 403, "it is bound already");
    shop.clock.advance(2 * MINUTE);
    assert!(browser.get("/proof").await.text().starts_with("Proven"));
}

#[tokio::test]
async fn of_two_devices_that_register_at_once_one_is_bound() {
    for round in 0..20 {
        let shop = Shop::start().await;
        let twin = shop.twin().await;
        let first = shop.browser(1);
        let offer = first.client.get("/login/7").await.header("secure-session-registration");
        let mut second = Browser { key: shop.browser(2).key, ..first.clone() };
        if round % 2 == 0 {
            second.client = twin.server.client();
            second.client.set_cookie(COOKIE, first.client.cookie(COOKIE).as_deref());
        }
        let browsers = [first, second];
        // Each has found the session unbound before either binds the session.
        let gate = shop.store.hold(Operation::Create);
        let created = shop.store.calls().create;
        let registering = at_once(2, |number| {
            let (mut browser, offer) = (browsers[number].clone(), offer.clone());
            async move { (browser.register(&offer).await.status, browser) }
        });
        let both_are_there = async || shop.store.calls().create == created + 2;
        let releasing = async {
            eventually("both are about to bind the session", both_are_there).await;
            gate.release();
        };
        let (replies, ()) = tokio::join!(registering, releasing);
        shop.clock.advance(2 * MINUTE);
        let mut bound = 0;
        for (status, mut browser) in replies {
            let proof = browser.get("/proof").await;
            match status.as_u16() {
                200 => {
                    bound += 1;
                    assert!(proof.text().starts_with("Proven"), "{proof:?}");
                }
                403 => {}
                status => panic!("{status}"),
            }
        }
        assert_eq!(bound, 1);
    }
}

// ---- the thief ----

#[tokio::test]
async fn a_stolen_cookie_opens_nothing_once_the_bound_cookie_is_over() {
    let shop = Shop::start().await;
    let mut owner = shop.bound(1, 7).await;
    let thief = owner.thief();
    let Bound { id, challenge, .. } = owner.bound().clone();
    // Two of its ten minutes are over.
    for second in 0..480 {
        shop.clock.advance(SECOND);
        let expected = if second < 479 { "Some(7)" } else { "None" };
        assert_eq!(thief.get("/who").await.text(), expected, "second {second}");
    }
    for _ in 0..20 {
        assert_eq!(owner.get("/who").await.text(), "Some(7)", "the owner goes on");
        assert_eq!(thief.get("/who").await.text(), "None");
        shop.clock.advance(5 * MINUTE);
    }
    // With what was stolen besides: the names and challenges that the browser was sent. And with a challenge
    // that whoever knows the name is given.
    let mut other_key = shop.browser(2);
    other_key.bound = owner.bound.clone();
    let old = other_key.proof(&challenge.expect("a challenge"));
    let reply = other_key.refresh_with(&id, None).await;
    other_key.note_challenge(&reply);
    let fresh = other_key.bound().challenge.clone().expect("a challenge");
    let fresh = other_key.proof(&fresh);
    for proof in [None, Some(&*old), Some(&*fresh), Some("x")] {
        let reply = other_key.refresh_with(&id, proof).await;
        assert_eq!(reply.status, StatusCode::FORBIDDEN);
        assert!(reply.set_cookies().is_empty());
    }
    // What a browser says of itself proves nothing.
    for skipped in ["quota_exceeded", "server_error", "unreachable"] {
        let value = format!("{skipped};session_identifier=\"{id}\"");
        let reply = with_headers(&thief, "/who", &[("secure-session-skipped", &value)]).await;
        assert_eq!(reply.text(), "None");
        assert!(reply.set_cookies().is_empty(), "the owner's cookie stays");
    }
    assert_eq!(with_headers(&thief, "/who", LINK).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(thief.get("/account").await.status, StatusCode::SEE_OTHER);
    assert_eq!(owner.get("/who").await.text(), "Some(7)");
}

/// A bound cookie is of one binding, and a proof answers one binding's challenge.
#[tokio::test]
async fn what_proves_one_session_proves_no_other() {
    let shop = Shop::start().await;
    let (mut owner, mut other) = (shop.bound(1, 7).await, shop.bound(2, 8).await);
    shop.clock.advance(10 * MINUTE);
    other.refresh().await.text();
    let mixed = owner.client.copy();
    mixed.set_cookie(BOUND, other.client.cookie(BOUND).as_deref());
    let proof = mixed.copy().get("/proof").await;
    assert_eq!(proof.text(), "Unproven { why: AnotherBinding }");
    assert_eq!(mixed.get("/who").await.text(), "None");

    let id = owner.bound().id.clone();
    let challenges = [owner.bound().challenge.clone(), other.bound().challenge.clone()];
    let [ours, theirs] = challenges.map(|it| it.expect("a challenge"));
    for (what, proof) in [
        ("another's key", other.proof(&ours)),
        ("another's challenge", owner.proof(&theirs)),
        ("another's proof", other.proof(&theirs)),
        ("a registration's", other.registration(&ours)),
    ] {
        let reply = owner.refresh_with(&id, Some(&proof)).await;
        assert_eq!(reply.status, StatusCode::FORBIDDEN, "{what}");
    }
    assert_eq!(owner.get("/who").await.text(), "Some(7)");
    assert!(owner.bound.is_some(), "nothing of that has harmed the owner");
}

// ---- refresh ----

#[tokio::test]
async fn a_challenge_is_good_for_twenty_minutes_and_an_old_one_is_answered_with_another() {
    let shop = Shop::start().await;
    let mut browser = shop.bound(1, 7).await;
    let Bound { id, challenge, .. } = browser.bound().clone();
    let proof = browser.proof(&challenge.expect("a challenge"));
    // Tabs, and a browser that has got no other one.
    for _ in 0..3 {
        let reply = browser.refresh_with(&id, Some(&proof)).await;
        assert_eq!(reply.status, StatusCode::OK);
        assert_eq!(reply.header("cache-control"), "no-store");
        assert_ne!(reply.header("secure-session-challenge"), "");
    }
    shop.clock.advance(18 * MINUTE);
    assert_eq!(browser.refresh_with(&id, Some(&proof)).await.status, StatusCode::OK);
    shop.clock.advance(SECOND);
    let reply = browser.refresh_with(&id, Some(&proof)).await;
    assert_eq!(reply.status, StatusCode::FORBIDDEN);
    browser.note_challenge(&reply);
    assert_eq!(browser.refresh().await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_binding_that_the_layer_has_not_named_never_reaches_the_store() {
    let shop = Shop::start().await;
    let browser = shop.bound(1, 7).await;
    let id = browser.bound().id.clone();
    shop.store.reset();
    let other_first = if id.starts_with('_') { "-" } else { "_" };
    for wrong in ["", "abc", &id[1..], &format!("{other_first}{}", &id[1..])] {
        let reply = browser.refresh_with(wrong, None).await;
        assert_eq!(reply.status, StatusCode::UNAUTHORIZED, "{wrong:?}");
    }
    let reply = browser.client.call(request(Method::POST, REFRESH, &[])).await;
    assert_eq!(reply.status, StatusCode::UNAUTHORIZED);
    assert_eq!(shop.store.calls(), Calls::default());
    // In quotes, as the specification has it.
    let quoted = format!("\"{id}\"");
    assert_eq!(browser.refresh_with(&quoted, None).await.status, StatusCode::FORBIDDEN);
    // Other methods are the application's.
    let reply = browser.client.get(REFRESH).await;
    assert_eq!(reply.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_store_that_is_down_ends_no_binding() {
    let shop = Shop::start().await;
    let mut browser = shop.bound(1, 7).await;
    let mut new = shop.browser(2);
    let offer = new.client.get("/login/8").await.header("secure-session-registration");
    shop.clock.advance(10 * MINUTE);
    shop.store.fail(Operation::Load);
    let status = browser.refresh().await.status;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(new.register(&offer).await.status, StatusCode::SERVICE_UNAVAILABLE);
    shop.store.heal(Operation::Load);
    assert_eq!(browser.get("/who").await.text(), "Some(7)");

    let offer = new.client.get("/who").await.header("secure-session-registration");
    for operation in [Operation::Create, Operation::Replace] {
        shop.store.fail(operation);
        assert_eq!(new.register(&offer).await.status, StatusCode::SERVICE_UNAVAILABLE);
        shop.store.heal(operation);
    }
    let offer = new.client.get("/who").await.header("secure-session-registration");
    assert_eq!(new.register(&offer).await.status, StatusCode::OK);
    shop.clock.advance(2 * MINUTE);
    assert_eq!(new.get("/who").await.text(), "Some(8)");
}

#[tokio::test]
async fn no_endpoint_waits_for_the_sessions_lock() {
    let shop = Shop::start().await;
    let mut browser = shop.browser(1);
    let offer = browser.client.get("/login/7").await.header("secure-session-registration");
    let holder = {
        let client = browser.client.clone();
        tokio::spawn(async move { client.get("/lock").await })
    };
    shop.locked.notified().await;
    assert_eq!(browser.register(&offer).await.status, StatusCode::OK);
    shop.clock.advance(10 * MINUTE);
    assert_eq!(browser.refresh().await.status, StatusCode::OK);
    holder.abort();
    assert_eq!(browser.get("/who").await.text(), "Some(7)");
}

#[tokio::test]
async fn a_session_that_another_process_has_locked_is_bound_later() {
    let shop = Shop::start().await;
    let twin = shop.twin().await;
    let mut browser = shop.browser(1);
    let offer = browser.client.get("/login/7").await.header("secure-session-registration");
    let (locked, unlock) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let holder = {
        let (locked, unlock) = (locked.clone(), unlock.clone());
        let handler = get(async move |session: Session<Customer>| {
            let _guard = session.lock().await.expect("the lease");
            locked.notify_one();
            unlock.notified().await;
        });
        let server = Server::start(Router::new().route("/", handler).layer(twin.layer.clone()));
        let server = server.await;
        let client = server.client();
        client.set_cookie(COOKIE, browser.client.cookie(COOKIE).as_deref());
        tokio::spawn(async move { (client.get("/").await, server).0 })
    };
    locked.notified().await;
    assert_eq!(browser.register(&offer).await.status, StatusCode::SERVICE_UNAVAILABLE);
    unlock.notify_one();
    holder.await.unwrap().text();
    eventually("the lease is given back", async || {
        let offer = browser.client.get("/who").await.header("secure-session-registration");
        !offer.is_empty() && browser.register(&offer).await.status == StatusCode::OK
    })
    .await;
}

// ---- the session's life ----

#[tokio::test]
async fn the_end_of_a_session_is_the_end_of_its_binding() {
    let shop = Shop::start().await;
    let refresh = async |browser: &Browser| {
        let id = &browser.bound().id;
        browser.refresh_with(id, None).await.status
    };
    let mut browser = shop.bound(1, 7).await;
    let logout = browser.client.get("/logout").await;
    let cookies = logout.set_cookies();
    assert_eq!(cookies.len(), 2, "both cookies go: {cookies:?}");
    assert!(cookies.iter().all(|cookie| cookie.contains("Max-Age=0")), "{cookies:?}");
    assert_eq!(refresh(&browser).await, StatusCode::UNAUTHORIZED);
    assert_eq!(browser.get("/who").await.text(), "None");
    assert!(browser.bound.is_none(), "the browser has dropped it");

    // Elsewhere.
    let (ended, other) = (shop.bound(2, 7).await, shop.bound(3, 7).await);
    other.client.get("/end-others").await.text();
    assert_eq!(refresh(&ended).await, StatusCode::UNAUTHORIZED);
    assert_eq!(refresh(&other).await, StatusCode::FORBIDDEN, "its own goes on");

    // By itself.
    shop.clock.advance(2 * HOUR);
    assert_eq!(refresh(&other).await, StatusCode::UNAUTHORIZED);
    assert_eq!(shop.sessions_of(7).await, 0);
}

#[tokio::test]
async fn a_refresh_is_no_use_of_the_session() {
    let shop = Shop::start().await;
    let mut browser = shop.bound(1, 7).await;
    for _ in 0..11 {
        shop.clock.advance(10 * MINUTE);
        assert_eq!(browser.refresh().await.status, StatusCode::OK);
    }
    shop.clock.advance(10 * MINUTE);
    assert_eq!(browser.refresh().await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_binding_survives_renewals_and_logins_of_its_user_and_no_others() {
    let shop = Shop::start().await;
    let mut browser = shop.bound(1, 7).await;
    let id = browser.bound().id.clone();
    for _ in 0..6 {
        browser.get("/renew").await.text();
        browser.get("/login/7").await.text();
        shop.clock.advance(10 * MINUTE);
        assert_eq!(browser.get("/who").await.text(), "Some(7)");
        assert!(browser.get("/proof").await.text().starts_with("Proven"));
        assert_eq!(browser.bound().id, id);
    }
    let reply = browser.client.get("/login/8").await;
    assert_ne!(reply.header("secure-session-registration"), "", "another user");
    assert_eq!(browser.client.get("/proof").await.text(), "Unbound");
    assert_eq!(browser.refresh().await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_logout_that_meets_a_renewal_in_another_process_leaves_the_way_to_the_session() {
    let shop = Shop::start().await;
    let twin = shop.twin().await;
    let mut browser = shop.bound(1, 7).await;
    let ending = twin.server.client();
    for name in [COOKIE, BOUND] {
        ending.set_cookie(name, browser.client.cookie(name).as_deref());
    }
    let gate = shop.store.hold(Operation::Delete);
    let logout = tokio::spawn(async move { ending.get("/logout").await });
    gate.wait_for_caller().await;
    browser.get("/renew").await.text();
    gate.release();
    assert_eq!(logout.await.unwrap().status, StatusCode::OK);
    assert!(shop.store.store().load(&link_of(&browser)).await.unwrap().is_some());
    shop.clock.advance(10 * MINUTE);
    // As for a link of another site: without the session's cookie.
    assert_eq!(browser.refresh().await.status, StatusCode::OK);
    assert_eq!(browser.get("/who").await.text(), "Some(7)");
}

#[tokio::test]
async fn no_refresh_falls_between_two_ids_in_a_thousand_renewals() {
    let shop = Shop::start().await;
    let twin = shop.twin().await;
    let mut browser = shop.bound(1, 7).await;
    let Bound { id, challenge, .. } = browser.bound().clone();
    let proof = browser.proof(&challenge.expect("a challenge"));
    let refreshing = {
        let (browser, id) =
            (Browser { client: twin.server.client(), ..browser.clone() }, id.clone());
        tokio::spawn(async move {
            loop {
                let status = browser.refresh_with(&id, Some(&proof)).await.status;
                assert_eq!(status, StatusCode::OK);
            }
        })
    };
    for _ in 0..1_000 {
        browser.client.get("/renew").await.text();
    }
    assert!(!refreshing.is_finished(), "a refresh failed");
    refreshing.abort();
    shop.clock.advance(10 * MINUTE);
    assert_eq!(browser.get("/who").await.text(), "Some(7)");
}

/// Two tabs have one set of cookies and the same challenge; in another process, if the fleet has two.
#[tokio::test]
async fn two_tabs_that_refresh_at_once_both_show_their_device() {
    let shop = Shop::start().await;
    let twin = shop.twin().await;
    let mut browser = shop.bound(1, 7).await;
    for round in 0..20 {
        shop.clock.advance(10 * MINUTE);
        let second = match round % 2 {
            0 => browser.client.copy(),
            _ => {
                let client = twin.server.client();
                client.set_cookie(COOKIE, browser.client.cookie(COOKIE).as_deref());
                client
            }
        };
        let tabs = [browser.clone(), Browser { client: second, ..browser.clone() }];
        let mut tabs = at_once(2, |number| {
            let mut tab = tabs[number].clone();
            async move {
                let status = tab.refresh_from(true).await.status;
                let proof = tab.get("/proof").await;
                (status, proof, tab)
            }
        })
        .await;
        for (status, proof, _) in &tabs {
            assert_eq!(*status, StatusCode::OK);
            assert!(proof.text().starts_with("Proven"), "{proof:?}");
        }
        // The challenge and the cookie of either answer are good for the next time.
        let (.., last) = tabs.swap_remove(round % 2);
        let cookie = last.client.cookie(BOUND);
        browser.bound = last.bound;
        browser.client.set_cookie(BOUND, cookie.as_deref());
        assert_eq!(browser.refreshes, 0, "the tabs are copies");
    }
    assert_eq!(browser.get("/who").await.text(), "Some(7)");
}

/// A browser that has lost its session's cookie logs in and registers its new session, while a page of
/// before refreshes the old one.
#[tokio::test]
async fn a_registration_beside_a_refresh_of_another_binding_is_carried_out_with_both() {
    for round in 0..20 {
        let shop = Shop::start().await;
        let old = shop.bound(1, 7).await;
        old.client.set_cookie(COOKIE, None);
        let offer = old.client.get("/login/7").await.header("secure-session-registration");
        let new = Browser { bound: None, ..old.clone() };
        let from_here = round % 2 == 0;
        let browsers = [old, new];
        let replies = at_once(2, |number| {
            let (mut browser, offer) = (browsers[number].clone(), offer.clone());
            async move {
                let reply = match number {
                    0 => browser.refresh_from(from_here).await,
                    _ => browser.register(&offer).await,
                };
                (reply.status, browser)
            }
        })
        .await;
        let [(refreshed, _), (registered, mut new)] = replies.try_into().ok().expect("two");
        assert_eq!(registered, StatusCode::OK);
        // From here the session that is not bound yet is nobody's; a binding of another session is
        // over, once there is one.
        let is_expected = match refreshed.as_u16() {
            200 => true,
            401 => from_here,
            _ => false,
        };
        assert!(is_expected, "{refreshed}");
        shop.clock.advance(10 * MINUTE);
        assert_eq!(new.get("/who").await.text(), "Some(7)");
        assert!(new.get("/proof").await.text().starts_with("Proven"));
    }
}

/// A late registration for a session that is bound, beside a refresh of the binding.
#[tokio::test]
async fn a_second_registration_beside_a_refresh_changes_nothing() {
    let shop = Shop::start().await;
    let mut owner = shop.browser(1);
    let offer = owner.client.get("/login/7").await.header("secure-session-registration");
    assert_eq!(owner.register(&offer).await.status, StatusCode::OK);
    for _ in 0..20 {
        // A thief of the cookie has the offer as well, but not the key.
        let other = Browser { client: owner.client.copy(), bound: None, ..shop.browser(2) };
        let browsers = [owner.clone(), other];
        let replies = at_once(2, |number| {
            let (mut browser, offer) = (browsers[number].clone(), offer.clone());
            async move {
                match number {
                    0 => browser.refresh_from(true).await.status,
                    _ => browser.register(&offer).await.status,
                }
            }
        })
        .await;
        assert_eq!(replies, [StatusCode::OK, StatusCode::FORBIDDEN]);
    }
    shop.clock.advance(2 * MINUTE);
    assert!(owner.get("/proof").await.text().starts_with("Proven"));
}

/// Of two renewals at once one wins, wherever its key stands in the link.
#[tokio::test]
async fn renewals_at_once_in_two_processes_keep_the_way_to_the_session() {
    let shop = Shop::start().await;
    let twin = shop.twin().await;
    let mut browser = shop.bound(1, 7).await;
    for _ in 0..50 {
        let clients = [browser.client.copy(), {
            let client = twin.server.client();
            for name in [COOKIE, BOUND] {
                client.set_cookie(name, browser.client.cookie(name).as_deref());
            }
            client
        }];
        let before = browser.client.cookie(COOKIE);
        let replies = at_once(2, |number| {
            let client = clients[number].clone();
            async move { (client.get("/renew").await.status, client.cookie(COOKIE)) }
        })
        .await;
        let winner = replies.into_iter().find(|(status, cookie)| {
            *status == StatusCode::OK && cookie.is_some() && *cookie != before
        });
        let (_, cookie) = winner.expect("one of them wins");
        browser.client.set_cookie(COOKIE, cookie.as_deref());
        assert_eq!(browser.refresh().await.status, StatusCode::OK);
        assert_eq!(browser.get("/who").await.text(), "Some(7)");
    }
}

#[tokio::test]
async fn a_registration_that_is_dropped_anywhere_leaves_a_session_that_works() {
    for operation in [Operation::Load, Operation::Create, Operation::Replace] {
        let shop = Shop::start().await;
        let mut browser = shop.browser(1);
        let offer = browser.client.get("/login/7").await.header("secure-session-registration");
        let gate = shop.store.hold(operation);
        let call = {
            let (mut browser, offer) = (browser.clone(), offer.clone());
            tokio::spawn(async move { browser.register(&offer).await })
        };
        gate.wait_for_caller().await;
        call.abort();
        assert!(call.await.unwrap_err().is_cancelled());
        gate.release();
        assert_eq!(browser.client.get("/who").await.text(), "Some(7)", "{operation:?}");
        assert_eq!(browser.client.get("/visit").await.text(), "1");
        // It comes too late, is bound, or was bound already.
        let status = browser.register(&offer).await.status;
        assert!([StatusCode::OK, StatusCode::FORBIDDEN].contains(&status), "{status}");
        assert_eq!(browser.client.get("/visit").await.text(), "2");
    }
}

#[tokio::test]
async fn a_logout_during_a_registration_stays_one() {
    for operation in [Operation::Create, Operation::Replace] {
        let shop = Shop::start().await;
        let browser = shop.browser(1);
        let offer = browser.client.get("/login/7").await.header("secure-session-registration");
        let gate = shop.store.hold(operation);
        let call = {
            let mut browser = browser.clone();
            tokio::spawn(async move { browser.register(&offer).await.status })
        };
        gate.wait_for_caller().await;
        // In another process, which does not wait for this one.
        let keys = shop.store.store().sessions_of("Customer:7").await.unwrap();
        assert!(shop.store.store().delete(&keys[0].0).await.unwrap());
        gate.release();
        assert_eq!(call.await.unwrap(), StatusCode::UNAUTHORIZED, "{operation:?}");
        assert_eq!(shop.sessions_of(7).await, 0, "it has not come back");
    }
}

#[tokio::test]
async fn a_registration_whose_answer_from_the_store_is_lost_is_one() {
    let clock = ManualClock::new();
    let store = MemoryStore::builder().with_clock(&clock).build();
    let mut answers = [0; 2];
    for seed in 0..40 {
        let faulty = FaultyStore::new(store.clone(), seed).with_fault(Fault::AnswerLost, 300);
        let keys = Keys::generate();
        let layer = |builder: sessions::SessionLayerBuilder<Customer>| {
            builder
                .with_clock(&clock)
                .in_another_process()
                .bind_to_device(DeviceBinding::new())
                .build()
                .expect("possible settings")
        };
        let sound = layer(SessionLayer::builder(store.clone(), keys.clone()));
        let unsound = layer(SessionLayer::builder(faulty.clone(), keys));
        let routes = || {
            Router::new()
                .route("/login/{user}", get(login))
                .route("/who", get(who))
                .route("/proof", get(proof))
        };
        let sound = Server::start(routes().layer(sound)).await;
        let unsound = Server::start(routes().layer(unsound)).await;
        let client = sound.client();
        let offer = client.get("/login/7").await.header("secure-session-registration");
        let through = unsound.client();
        through.set_cookie(COOKIE, client.cookie(COOKIE).as_deref());
        let mut browser = Browser::new(through.clone(), &clock, 1);
        let status = browser.register(&offer).await.status;
        client.set_cookie(BOUND, through.cookie(BOUND).as_deref());
        clock.advance(2 * MINUTE);
        // If it is bound, the browser knows it.
        let proof = client.get("/proof").await;
        match (proof.text(), status.as_u16()) {
            ("Unbound", 200 | 503) => {}
            (proof, status) => {
                assert_eq!(status, 200, "seed {seed}");
                assert!(proof.starts_with("Proven"), "{proof}, seed {seed}");
                answers[0] += 1;
            }
        }
        answers[1] += 1;
        assert_eq!(client.get("/who").await.text(), "Some(7)", "seed {seed}");
    }
    let [bound, all] = answers;
    assert!((1..all).contains(&bound), "{bound} of {all} are bound");
}

#[tokio::test]
async fn a_browser_whose_binding_is_in_doubt_is_logged_in_whether_there_is_one_or_not() {
    let shop = Shop::start().await;
    let browser = shop.browser(1);
    let offer = browser.client.get("/login/7").await.header("secure-session-registration");
    let gate = shop.store.hold(Operation::Replace);
    let registering = {
        let (mut browser, offer) = (browser.clone(), offer.clone());
        tokio::spawn(async move { (browser.register(&offer).await.status, browser) })
    };
    gate.wait_for_caller().await;
    // From here on nothing answers, so that nobody can look whether the session is bound. It is not.
    for operation in [Operation::Replace, Operation::Load] {
        shop.store.fail(operation);
    }
    gate.release();
    let (status, mut first) = registering.await.unwrap();
    assert_eq!(status, StatusCode::OK);
    for operation in [Operation::Replace, Operation::Load] {
        shop.store.heal(operation);
    }
    let reply = browser.client.get("/proof").await;
    assert_eq!(reply.text(), "Unbound");
    // The next page offers a binding again. What the browser has for nothing is refused, and dropped.
    let offer = reply.header("secure-session-registration");
    let mut second = Browser { key: shop.browser(2).key, ..browser.clone() };
    assert_eq!(second.register(&offer).await.status, StatusCode::OK);
    assert_eq!(first.refresh_from(true).await.status, StatusCode::UNAUTHORIZED);
    for _ in 0..3 {
        shop.clock.advance(10 * MINUTE);
        assert_eq!(second.get("/who").await.text(), "Some(7)");
        assert!(second.get("/proof").await.text().starts_with("Proven"));
    }
}

/// Where a connection is closed before its answer is there, a browser sends the request again on another one.
#[tokio::test]
async fn a_registration_that_is_repeated_is_answered_as_the_first_was() {
    let shop = Shop::start().await;
    let twin = shop.twin().await;
    let mut browser = shop.browser(1);
    let offer = browser.client.get("/login/7").await.header("secure-session-registration");
    let challenge = parameter(&offer, "challenge");
    let proof = browser.registration(challenge);
    let other = shop.browser(2).registration(challenge);
    let elsewhere = twin.server.client();
    elsewhere.set_cookie(COOKIE, browser.client.cookie(COOKIE).as_deref());
    let post = async |client: &Client, proof: &str| {
        let headers = [("secure-session-response", proof)];
        client.call(request(Method::POST, REGISTER, &headers)).await
    };
    // The first is still under way when the second comes, in another process.
    let gate = shop.store.hold(Operation::Create);
    let created = shop.store.calls().create;
    let registering = at_once(2, |number| {
        let client = [&browser.client, &elsewhere][number].copy();
        let proof = proof.clone();
        async move { post(&client, &proof).await }
    });
    let both_are_there = async || shop.store.calls().create == created + 2;
    let releasing = async {
        eventually("both are about to bind the session", both_are_there).await;
        gate.release();
    };
    let (mut replies, ()) = tokio::join!(registering, releasing);
    // And when all is over.
    replies.push(post(&browser.client, &proof).await);
    replies.push(post(&elsewhere, &proof).await);
    let named: Vec<_> = replies.iter().map(|reply| reply.text()).collect();
    assert!(named.iter().all(|it| *it == named[0]), "one binding: {named:?}");
    assert!(replies.iter().all(|reply| reply.set_cookies()[0].starts_with(BOUND)));
    assert_eq!(post(&elsewhere, &other).await.status, StatusCode::FORBIDDEN, "another device");

    shop.clock.advance(6 * MINUTE);
    assert!(browser.client.get("/proof").await.text().starts_with("Proven"));
    assert_eq!(post(&browser.client, &proof).await.status, StatusCode::FORBIDDEN, "too late");
}

// ---- what an unproven request gets ----

#[tokio::test]
async fn an_unproven_request_is_logged_out_asked_again_or_let_through() {
    use UnprovenPolicy::{Allow, LogOut, Reload};
    for policy in [LogOut, Reload, Allow] {
        let shop = Shop::with(DeviceBinding::new().with_unproven_policy(policy)).await;
        let mut owner = shop.bound(1, 7).await;
        let unproven = owner.client.copy();
        unproven.set_cookie(BOUND, None);
        let is_let_through = policy == Allow;
        let who = if is_let_through { "Some(7)" } else { "None" };
        assert_eq!(unproven.get("/who").await.text(), who, "{policy:?}");
        let proof = unproven.get("/proof").await;
        assert_eq!(proof.text(), "Unproven { why: NoCookie }");
        // A guard of a route asks for a proof also where the layer does not.
        let account = unproven.get("/account").await;
        assert_eq!(account.status, StatusCode::SEE_OTHER, "{policy:?}");
        assert_eq!(account.header("location"), "/login-page?next=%2Faccount");

        let link = with_headers(&unproven, "/who", LINK).await;
        match policy {
            Reload => {
                assert_eq!(link.status, StatusCode::UNAUTHORIZED);
                assert_eq!(link.header("refresh"), "0");
                assert!(link.header("cache-control").contains("no-store"));
                assert!(link.body.contains("One moment"));
            }
            _ => assert_eq!(link.text(), who),
        }
        let account = with_headers(&unproven, "/account", LINK).await;
        match policy {
            LogOut => assert_eq!(account.status, StatusCode::SEE_OTHER),
            _ => assert_eq!(account.header("refresh"), "0", "{policy:?}"),
        }
        // What a link brings from a bound browser is as always.
        let link = with_headers(&owner.client, "/who", LINK).await;
        assert_eq!((link.text(), link.header("refresh")), ("Some(7)", String::new()));
        assert_eq!(owner.get("/account").await.text(), "Some(7)");
    }
}

#[tokio::test]
async fn an_unproven_request_takes_no_cookie_from_a_browser_that_may_have_the_key() {
    let shop = Shop::with(DeviceBinding::new().with_unproven_policy(UnprovenPolicy::LogOut)).await;
    let mut owner = shop.bound(1, 7).await;
    let cookie = owner.client.cookie(COOKIE);
    let bound = owner.client.cookie(BOUND);
    owner.client.set_cookie(BOUND, None);
    const SKIPPED: &[(&str, &str)] = &[("secure-session-skipped", "quota_exceeded")];
    const FRAME: &[(&str, &str)] = &[("sec-fetch-site", "same-site")];
    for headers in [LINK, SKIPPED, FRAME] {
        let reply = with_headers(&owner.client, "/visit", headers).await;
        assert_eq!((reply.text(), reply.set_cookies()), ("1", vec![]), "{headers:?}");
        assert_eq!(owner.client.cookie(COOKIE), cookie);
        let login = with_headers(&owner.client.copy(), "/login/9", headers).await;
        assert_eq!(login.set_cookies().len(), 1, "a login is one all the same: {login:?}");
    }
    owner.client.set_cookie(BOUND, bound.as_deref());
    assert_eq!(owner.get("/who").await.text(), "Some(7)");
    assert_eq!(owner.get("/visit").await.text(), "1", "nothing of that was kept");
}

/// As where the request was long under way, or a clock is wrong: the browser's, or that of one of two processes.
#[tokio::test]
async fn a_bound_cookie_that_is_too_old_takes_nothing_from_its_browser_and_goes() {
    use UnprovenPolicy::{Allow, LogOut, Reload};
    for policy in [LogOut, Reload, Allow] {
        let shop = Shop::with(DeviceBinding::new().with_unproven_policy(policy)).await;
        let mut owner = shop.bound(1, 7).await;
        let cookie = owner.client.cookie(COOKIE);
        shop.clock.advance(10 * MINUTE);
        let late = owner.client.get("/visit").await;
        let cookies = late.set_cookies();
        assert!(
            matches!(&cookies[..], [one] if one.starts_with(BOUND) && one.contains("Max-Age=0")),
            "{policy:?}: {cookies:?}"
        );
        assert_eq!(owner.client.cookie(COOKIE), cookie, "{policy:?}");
        // The browser asks for another one, and has its session.
        assert!(owner.get("/proof").await.text().starts_with("Proven"));
        let visits = if policy == Allow { "2" } else { "1" };
        assert_eq!(owner.get("/visit").await.text(), visits, "{policy:?}");
        assert_eq!(owner.refreshes, 1);
        // A request that was good when it came says nothing of what its browser has got since.
        let waiting = {
            let client = owner.client.copy();
            tokio::spawn(async move { client.get("/wait").await })
        };
        eventually("it has its session", async || shop.layer.sessions_in_use() == 1).await;
        shop.clock.advance(10 * MINUTE);
        assert_eq!(owner.get("/who").await.text(), "Some(7)");
        shop.locked.notify_one();
        let reply = waiting.await.unwrap();
        assert_eq!((reply.text(), reply.set_cookies()), ("Some(7)", vec![]));
        // One of no session, and one that is good, stay.
        assert!(owner.client.get("/who").await.set_cookies().is_empty());
        owner.client.set_cookie(COOKIE, None);
        assert!(owner.client.get("/who").await.set_cookies().is_empty());
    }
}

#[tokio::test]
async fn a_logout_is_one_whatever_its_request_shows_of_the_device() {
    const SKIPPED: &[(&str, &str)] = &[("secure-session-skipped", "server_error")];
    const FRAME: &[(&str, &str)] = &[("sec-fetch-site", "same-site")];
    let shop = Shop::start().await;
    for headers in [&[], SKIPPED, FRAME] {
        for bound_cookie in [None, Some("of no binding")] {
            let mut owner = shop.bound(1, 7).await;
            let link = link_of(&owner);
            let other = shop.bound(2, 8).await;
            let page = owner.client.copy();
            page.set_cookie(BOUND, bound_cookie);
            assert_eq!(with_headers(&page, "/who", headers).await.text(), "None");
            shop.store.fail(Operation::Delete);
            let failed = with_headers(&page, "/logout", headers).await;
            assert_eq!(failed.status, StatusCode::SERVICE_UNAVAILABLE);
            shop.store.heal(Operation::Delete);
            assert_eq!(shop.sessions_of(7).await, 1);

            let logout = with_headers(&page, "/logout", headers).await;
            assert_eq!(logout.status, StatusCode::OK);
            assert_eq!(page.cookie(COOKIE), None, "{:?}", logout.set_cookies());
            assert_eq!((shop.sessions_of(7).await, shop.sessions_of(8).await), (0, 1));
            assert!(shop.store.store().load(&link).await.unwrap().is_none());
            assert_eq!(owner.get("/who").await.text(), "None");
            assert_eq!(owner.refresh().await.status, StatusCode::UNAUTHORIZED);
            // Of two sessions the one that the request has.
            owner.get("/login/7").await.text();
            shop.clock.advance(2 * MINUTE);
            let pair = |browser: &Browser, name| {
                format!("{name}={}", browser.client.cookie(name).expect("a cookie"))
            };
            let cookies = [pair(&owner, COOKIE), pair(&other, COOKIE), pair(&other, BOUND)];
            let line = cookies.join("; ").into_bytes();
            shop.server.client().get_with("/logout", &[line]).await.text();
            assert_eq!((shop.sessions_of(7).await, shop.sessions_of(8).await), (1, 0));
            owner.get("/logout").await.text();
        }
    }
}

#[tokio::test]
async fn a_browser_that_has_lost_its_key_can_log_in_again() {
    let shop = Shop::start().await;
    let mut browser = shop.bound(1, 7).await;
    browser.bound = None;
    shop.clock.advance(10 * MINUTE);
    assert_eq!(browser.get("/who").await.text(), "None");
    browser.get("/visit").await.text();
    assert_eq!(browser.get("/login/7").await.status, StatusCode::OK);
    assert!(browser.bound.is_some(), "it is bound anew");
    shop.clock.advance(2 * MINUTE);
    assert_eq!(browser.get("/who").await.text(), "Some(7)");
}

/// The layer lets it through, with the session; the guard does not, and sends it to the login page.
#[tokio::test]
async fn a_browser_that_has_lost_its_key_can_log_in_again_where_the_session_is_let_through() {
    let shop = Shop::with(DeviceBinding::new().with_unproven_policy(UnprovenPolicy::Allow)).await;
    let mut browser = shop.bound(1, 7).await;
    browser.bound = None;
    browser.client.set_cookie(BOUND, None);
    assert_eq!(browser.get("/account").await.status, StatusCode::SEE_OTHER);
    assert_eq!(browser.get("/login/7").await.status, StatusCode::OK);
    assert!(browser.bound.is_some(), "it is bound anew");
    assert_eq!(browser.get("/account").await.text(), "Some(7)");
    shop.clock.advance(10 * MINUTE);
    assert_eq!(browser.get("/account").await.text(), "Some(7)");
}

#[tokio::test]
async fn of_several_cookies_one_that_shows_its_device_counts() {
    let shop = Shop::start().await;
    let owner = shop.bound(1, 7).await;
    let other = shop.bound(2, 8).await;
    let pair = |browser: &Browser, name| {
        format!("{name}={}", browser.client.cookie(name).expect("a cookie"))
    };
    for (cookies, who) in [
        (vec![pair(&owner, COOKIE), pair(&other, COOKIE), pair(&other, BOUND)], "Some(8)"),
        (vec![pair(&other, COOKIE), pair(&owner, COOKIE), pair(&other, BOUND)], "Some(8)"),
        (vec![pair(&other, COOKIE), pair(&owner, COOKIE)], "None"),
    ] {
        let line = cookies.join("; ").into_bytes();
        assert_eq!(shop.server.client().get_with("/who", &[line]).await.text(), who);
    }
}

// ---- two bindings of one browser ----

/// A browser keeps a binding when its session's cookie goes, as at its restart, and after the next login it
/// has two, for one cookie.
#[tokio::test]
async fn of_two_bindings_of_a_browser_the_one_of_its_session_counts() {
    let shop = Shop::start().await;
    let mut first = shop.bound(1, 7).await;
    first.client.set_cookie(COOKIE, None);
    assert_eq!(first.refresh_from(true).await.status, StatusCode::OK, "no other session is there");
    // Of one client, with one set of cookies.
    let mut second = Browser { bound: None, ..first.clone() };
    second.get("/login/7").await.text();
    assert!(second.bound.is_some() && shop.sessions_of(7).await == 2);
    shop.clock.advance(2 * MINUTE);
    assert_eq!(second.get("/who").await.text(), "Some(7)");

    // For a link of another site, without the session's cookie, nobody sees that there is another binding.
    let cookie = second.client.cookie(COOKIE);
    assert_eq!(first.refresh().await.status, StatusCode::OK);
    let refused = second.client.get("/visit").await;
    assert_eq!(refused.text(), "1", "an empty session");
    let cookies = refused.set_cookies();
    assert!(
        matches!(&cookies[..], [one] if one.starts_with(BOUND) && one.contains("Max-Age=0")),
        "the cookie that stands in the way goes, and the session's stays: {cookies:?}"
    );
    assert_eq!(second.client.cookie(COOKIE), cookie);

    // Whichever the browser asks for first.
    let mut again = Browser { bound: first.bound.clone(), ..second.clone() };
    second.refreshes = 0;
    assert_eq!(again.refresh_from(true).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(second.client.cookie(BOUND), None);
    assert_eq!(second.get("/who").await.text(), "Some(7)");
    assert_eq!(second.refreshes, 1);
    assert_eq!(second.refresh_from(true).await.status, StatusCode::OK, "its own goes on");

    // Neither a renewed id nor a visitor's session beside it is another binding.
    second.get("/renew").await.text();
    assert_eq!(second.refresh_from(true).await.status, StatusCode::OK);
    second.client.set_cookie(COOKIE, None);
    second.client.set_cookie(BOUND, None);
    second.client.get("/visit").await.text();
    assert_eq!(second.refresh_from(true).await.status, StatusCode::OK);
}

// ---- links ----

#[tokio::test]
async fn a_link_that_the_store_has_lost_is_written_anew_for_who_has_the_sessions_cookie() {
    let shop = Shop::start().await;
    let mut browser = shop.bound(1, 7).await;
    let (link, store) = (link_of(&browser), shop.store.store());
    for path in ["/who", "/renew"] {
        assert!(store.delete(&link).await.unwrap(), "there is a link");
        browser.get(path).await.text();
        assert_eq!(browser.refresh_from(true).await.status, StatusCode::OK);
        assert_eq!(browser.refresh().await.status, StatusCode::OK, "also without cookies");
    }
    assert!(store.delete(&link).await.unwrap());
    assert_eq!(browser.clone().refresh().await.status, StatusCode::UNAUTHORIZED);
    let mut other = shop.bound(2, 8).await;
    let mut thief = Browser { client: other.client.copy(), ..browser.clone() };
    assert_eq!(thief.refresh_from(true).await.status, StatusCode::UNAUTHORIZED, "another's cookie");
    assert_eq!(other.get("/who").await.text(), "Some(8)");
    // A store that is down while the link is written ends nothing.
    shop.store.fail(Operation::Create);
    let kept = browser.bound.clone();
    assert_eq!(browser.refresh_from(true).await.status, StatusCode::SERVICE_UNAVAILABLE);
    shop.store.heal(Operation::Create);
    browser.bound = kept;
    assert_eq!(browser.refresh_from(true).await.status, StatusCode::OK);
}

/// A link that nobody needs is gone with the logout, or a day after its session, and not when the session
/// would have ended at the latest.
#[tokio::test]
async fn links_do_not_outlast_their_sessions_by_more_than_a_day() {
    let shop = Shop::start().await;
    let browser = shop.bound(1, 7).await;
    let (link, store) = (link_of(&browser), shop.store.store());
    assert_eq!(store.len(), 2);
    // The session's record goes first: nobody is logged in whose link could not be removed.
    shop.store.fail_next(Operation::Delete, 1);
    assert_eq!(browser.client.get("/logout").await.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(store.len(), 2);
    browser.client.get("/logout").await.text();
    assert_eq!((store.len(), store.load(&link).await.unwrap()), (0, None));

    // Of two devices that register at once, the loser's is gone.
    let twin = shop.twin().await;
    for round in 0..10 {
        let mut first = shop.browser(1);
        let offer = first.client.get("/login/7").await.header("secure-session-registration");
        let mut second = Browser { key: shop.browser(2).key, ..first.clone() };
        let client = twin.server.client();
        client.set_cookie(COOKIE, first.client.cookie(COOKIE).as_deref());
        second.client = client;
        tokio::join!(first.register(&offer), second.register(&offer));
        assert_eq!(store.len(), 2 * (round + 1));
    }

    for (policy, days) in [(UnprovenPolicy::Reload, 1), (UnprovenPolicy::Allow, 400)] {
        let clock = ManualClock::new();
        let store = MemoryStore::builder().with_clock(&clock).build();
        let layer = SessionLayer::<Customer>::builder(store.clone(), Keys::generate())
            .with_clock(&clock)
            .with_absolute_timeout(None)
            .in_another_process()
            .bind_to_device(DeviceBinding::new().with_unproven_policy(policy))
            .build()
            .unwrap();
        let routes = Router::new().route("/login/{user}", get(login)).route("/who", get(who));
        let server = Server::start(routes.layer(layer)).await;
        let mut browser = Browser::new(server.client(), &clock, 1);
        browser.get("/login/7").await.text();
        let left = async |browser: &Browser| {
            let link = store.load(&link_of(browser)).await.unwrap().expect("a link");
            link.expires_at.duration_since(clock.now()).unwrap()
        };
        assert_eq!(left(&browser).await.as_secs() / (24 * 3_600), days, "{policy:?}");
        // As long as the session is in use there is one, which lasts as long as the session does.
        for _ in 0..100 {
            clock.advance(HOUR);
            assert_eq!(browser.get("/who").await.text(), "Some(7)");
            assert!(left(&browser).await > 2 * HOUR + 10 * MINUTE);
        }
    }
}

// ---- where the layer stands ----

#[tokio::test]
async fn neither_a_guard_nor_a_csrf_check_nor_a_limit_of_the_application_is_in_the_way() {
    let clock = ManualClock::new();
    let layer = SessionLayer::<Customer>::builder(MemoryStore::new(), Keys::generate())
        .bind_to_device(DeviceBinding::new())
        .build()
        .unwrap();
    let session = layer.clone();
    let app = Router::new()
        .route("/who", get(who))
        .fallback(async || StatusCode::TOO_MANY_REQUESTS)
        .layer(RequireLogin::<Customer>::new())
        .layer(Customer::csrf_layer())
        .route("/login/{user}", get(login))
        .layer(session);
    let server = Server::start(app).await;
    let mut browser = Browser::new(server.client(), &clock, 1);
    browser.get("/login/7").await.text();
    assert!(browser.bound.is_some());
    assert_eq!(browser.refresh().await.status, StatusCode::OK);
    assert_eq!(browser.get("/who").await.text(), "Some(7)");
}

#[tokio::test]
async fn another_process_and_another_key_know_the_device() {
    let shop = Shop::start().await;
    let mut browser = shop.bound(1, 7).await;
    let rotated = Keys::generate().with_previous(shop.keys.clone());
    let (store, clock) = (shop.store.clone(), shop.clock.clone());
    let twin = Shop::on(store, clock, rotated, Some(DeviceBinding::new())).await;
    let client = twin.server.client();
    for name in [COOKIE, BOUND] {
        client.set_cookie(name, browser.client.cookie(name).as_deref());
    }
    assert_eq!(client.get("/who").await.text(), "Some(7)");
    browser.client = client;
    shop.clock.advance(10 * MINUTE);
    let name = browser.bound().id.clone();
    let challenged = browser.refresh_with(&name, None).await;
    assert_eq!(parameter(&challenged.header("secure-session-challenge"), "id"), name);
    for refreshes in 1..4 {
        assert_eq!(browser.get("/who").await.text(), "Some(7)");
        assert_eq!((browser.refreshes, &browser.bound().id), (refreshes, &name));
        shop.clock.advance(10 * MINUTE);
    }
}

/// As while `bind_to_device` is being rolled out.
#[tokio::test]
async fn a_process_that_binds_nobody_keeps_the_way_to_a_session() {
    let shop = Shop::start().await;
    let mut browser = shop.bound(1, 7).await;
    let (store, clock) = (shop.store.clone(), shop.clock.clone());
    let other = Shop::on(store, clock, shop.keys.clone(), None).await;
    let client = other.server.client();
    for path in ["/renew", "/visit", "/renew"] {
        client.set_cookie(COOKIE, browser.client.cookie(COOKIE).as_deref());
        client.get(path).await.text();
        browser.client.set_cookie(COOKIE, client.cookie(COOKIE).as_deref());
        assert_eq!(browser.refresh().await.status, StatusCode::OK, "{path}");
    }
    assert_eq!(browser.get("/visit").await.text(), "2");
    assert!(browser.get("/proof").await.text().starts_with("Proven"));
}

/// Its browser has forgotten the key at a refresh that the process has answered with 404.
#[tokio::test]
async fn whoever_logs_in_at_a_process_that_binds_nobody_is_logged_in_at_one_that_binds() {
    let shop = Shop::start().await;
    let mut browser = shop.bound(1, 7).await;
    let (store, clock) = (shop.store.clone(), shop.clock.clone());
    let other = Shop::on(store, clock, shop.keys.clone(), None).await;
    assert_eq!(other.server.client().call(request(Method::POST, REFRESH, &[])).await.status, 404);
    browser.bound = None;
    shop.clock.advance(10 * MINUTE);
    assert_eq!(browser.get("/who").await.text(), "None");
    let client = other.server.client();
    client.set_cookie(COOKIE, browser.client.cookie(COOKIE).as_deref());
    assert_eq!(client.get("/who").await.text(), "Some(7)", "it asks for no device");
    assert_eq!(client.get("/login/7").await.status, StatusCode::OK);
    browser.client.set_cookie(COOKIE, client.cookie(COOKIE).as_deref());
    assert_eq!(browser.get("/who").await.text(), "Some(7)");
    assert!(browser.bound.is_some(), "it is bound anew");
}

/// The deploy before the one that begins to bind.
#[tokio::test]
async fn a_layer_that_makes_no_offers_binds_refreshes_and_asks_for_the_device() {
    let shop = Shop::start().await;
    let (store, clock) = (shop.store.clone(), shop.clock.clone());
    let quiet = Some(DeviceBinding::new().without_offers());
    let quiet = Shop::on(store, clock, shop.keys.clone(), quiet).await;
    let reply = quiet.server.client().get("/login/8").await;
    assert_eq!(reply.header("secure-session-registration"), "");

    // What another process has offered.
    let mut browser = shop.browser(1);
    let reply = browser.client.get("/login/7").await;
    let client = quiet.server.client();
    client.set_cookie(COOKIE, browser.client.cookie(COOKIE).as_deref());
    browser.client = client;
    let offer = reply.header("secure-session-registration");
    assert_eq!(browser.register(&offer).await.status, StatusCode::OK);
    shop.clock.advance(9 * MINUTE);
    assert_eq!(browser.refresh().await.status, StatusCode::OK);
    assert!(browser.get("/proof").await.text().starts_with("Proven"));
    let thief = browser.thief();
    shop.clock.advance(10 * MINUTE);
    assert_eq!(thief.get("/who").await.text(), "None");
    assert_eq!(browser.get("/who").await.text(), "Some(7)");
}

/// However often its user logs in: so that it ends with its key is no question of the longest session.
#[tokio::test]
async fn a_binding_outlives_its_users_logins_and_ends_with_the_key_that_has_named_it() {
    let shop = Shop::start().await;
    let mut browser = shop.bound(1, 7).await;
    let id = browser.bound().id.clone();
    let (old, new) = (shop.keys.clone(), Keys::generate());
    shop.layer.replace_keys(new.clone().with_previous(old)).unwrap();
    // Longer than any session lasts without a login.
    for _ in 0..100 {
        shop.clock.advance(HOUR);
        browser.get("/login/7").await.text();
    }
    assert_eq!(browser.get("/who").await.text(), "Some(7)");
    assert_eq!(browser.bound().id, id);
    assert!(browser.get("/proof").await.text().starts_with("Proven"));

    shop.layer.replace_keys(new).unwrap();
    shop.clock.advance(10 * MINUTE);
    assert_eq!(browser.refresh().await.status, StatusCode::UNAUTHORIZED);
    browser.bound = None;
    assert_eq!(browser.get("/who").await.text(), "None");
    browser.get("/login/7").await.text();
    assert!(browser.bound.is_some(), "it is bound anew, under a name of the new key");
    shop.clock.advance(10 * MINUTE);
    assert_eq!(browser.get("/who").await.text(), "Some(7)");
}

#[tokio::test]
async fn renewals_that_fail_leave_the_way_to_the_session() {
    for operation in [Operation::Create, Operation::Replace] {
        let shop = Shop::start().await;
        let mut browser = shop.bound(1, 7).await;
        shop.store.fail(operation);
        for _ in 0..10 {
            let status = browser.client.get("/renew").await.status;
            assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        }
        shop.store.heal(operation);
        assert_eq!(browser.refresh().await.status, StatusCode::OK, "{operation:?}");
        browser.get("/renew").await.text();
        assert_eq!(browser.refresh().await.status, StatusCode::OK, "{operation:?}");
        assert_eq!(browser.get("/who").await.text(), "Some(7)");
    }
}

/// The way to the session, and the session, are remembered for as long as each was seen.
#[tokio::test]
async fn a_cache_that_is_behind_ends_no_binding() {
    let clock = ManualClock::new();
    let store = MemoryStore::builder().with_clock(&clock).build();
    let keys = Keys::generate();
    let layer = |cached: bool| {
        let cache = MemoryStore::builder().with_clock(&clock).build();
        let builder = match cached {
            true => {
                let cached = Cached::builder(cache, store.clone(), 10 * SECOND);
                let cached = cached.with_clock(&clock).build();
                SessionLayer::<Customer>::builder(cached, keys.clone())
            }
            false => SessionLayer::<Customer>::builder(store.clone(), keys.clone()),
        };
        let builder = builder.with_clock(&clock).in_another_process();
        builder.bind_to_device(DeviceBinding::new()).build().expect("possible settings")
    };
    let routes = || {
        Router::new()
            .route("/login/{user}", get(login))
            .route("/renew", get(renew))
            .route("/who", get(who))
    };
    let cached = Server::start(routes().layer(layer(true))).await;
    let other = Server::start(routes().layer(layer(false))).await;
    let mut browser = Browser::new(cached.client(), &clock, 1);
    browser.get("/login/7").await.text();
    clock.advance(MINUTE);
    browser.client.get("/who").await.text();
    clock.advance(6 * SECOND);
    // The way is seen now, and the session was six seconds ago.
    assert_eq!(browser.refresh().await.status, StatusCode::OK);
    let elsewhere = other.client();
    for name in [COOKIE, BOUND] {
        elsewhere.set_cookie(name, browser.client.cookie(name).as_deref());
    }
    elsewhere.get("/renew").await.text();
    browser.client.set_cookie(COOKIE, elsewhere.cookie(COOKIE).as_deref());
    clock.advance(6 * SECOND);
    assert_eq!(browser.refresh().await.status, StatusCode::OK);
    assert_eq!(browser.get("/who").await.text(), "Some(7)");
}

/// A session that the binding would make too large stays unbound, and its browser is asked to register
/// now and then, and not with every page.
#[tokio::test]
async fn a_registration_that_cannot_succeed_is_not_offered_with_every_page() {
    for (payload_limit, offers) in [(60, 1), (10_000, 5)] {
        let clock = ManualClock::new();
        let store = SpyStore::new(MemoryStore::builder().with_clock(&clock).build());
        let layer = SessionLayer::<Customer>::builder(store.clone(), Keys::generate())
            .with_clock(&clock)
            .with_payload_limit(payload_limit)
            .in_another_process()
            .bind_to_device(DeviceBinding::new())
            .build()
            .unwrap();
        let routes = Router::new().route("/login/{user}", get(login)).route("/who", get(who));
        let server = Server::start(routes.layer(layer)).await;
        let mut browser = Browser::new(server.client(), &clock, 1);
        if payload_limit > 100 {
            // This one passes.
            store.fail(Operation::Replace);
        }
        assert_eq!(browser.client.get("/who").await.text(), "None");
        let mut reply = browser.client.get("/login/7").await;
        let mut made = 0;
        for _ in 0..5 {
            assert_eq!(reply.status, StatusCode::OK);
            let offer = reply.header("secure-session-registration");
            if !offer.is_empty() {
                made += 1;
                let registered = browser.register(&offer).await;
                assert_eq!(registered.status, StatusCode::SERVICE_UNAVAILABLE);
            }
            reply = browser.client.get("/who").await;
        }
        assert_eq!(made, offers, "with a limit of {payload_limit} bytes");
    }
}

// ---- several layers ----

/// Two types with the same keys and the same cookie's name, as two applications of one host may have them.
#[tokio::test]
async fn what_a_layer_signs_about_devices_is_nothing_to_a_layer_of_another_type() {
    #[derive(Session)]
    #[session(name = "Clerk")]
    struct Clerk {
        #[session(user)]
        user: Option<u64>,
    }
    let shop = Shop::start().await;
    let store = MemoryStore::builder().with_clock(&shop.clock).build();
    let layer = SessionLayer::<Clerk>::builder(store, shop.keys.clone())
        .with_clock(&shop.clock)
        .in_another_process()
        .bind_to_device(DeviceBinding::new())
        .build()
        .unwrap();
    let clerk_login = async |session: Session<Clerk>| session.login(7).await;
    let clerk_proof = async |session: Session<Clerk>| format!("{:?}", session.device_binding());
    let app = Router::new()
        .route("/login/{user}", get(clerk_login))
        .route("/proof", get(clerk_proof))
        .layer(layer);
    let server = Server::start(app).await;
    let customer = shop.bound(1, 7).await;
    let mut clerk = Browser::new(server.client(), &shop.clock, 1);
    let offer = clerk.client.get("/login/7").await.header("secure-session-registration");

    // The challenge of a customer's login, answered with a clerk's cookie.
    let others = shop.browser(3).client.get("/login/9").await;
    let others = others.header("secure-session-registration");
    assert_eq!(clerk.register(&others).await.status, StatusCode::FORBIDDEN);
    assert_eq!(clerk.register(&offer).await.status, StatusCode::OK);
    shop.clock.advance(2 * MINUTE);
    assert!(clerk.client.get("/proof").await.text().starts_with("Proven"));
    // The name of a customer's binding.
    let named = clerk.refresh_with(&customer.bound().id, None).await;
    assert_eq!(named.status, StatusCode::UNAUTHORIZED);
    // The bound cookie of a customer is none here, not even another one's.
    clerk.client.set_cookie(BOUND, customer.client.cookie(BOUND).as_deref());
    let proof = clerk.client.get("/proof").await;
    assert_eq!(proof.text(), "Unproven { why: NoCookie }");
}

/// With keys of its own each of the two builds, and only the offer shows that they stand in one application.
#[tokio::test]
async fn of_two_layers_with_the_same_paths_the_inner_one_makes_no_offer_that_the_outer_one_would_refuse()
 {
    #[derive(Session)]
    struct Clerk {
        #[session(user)]
        user: Option<u64>,
    }
    let layer_of = |path: Option<&'static str>, keys: Keys| {
        let mut binding = DeviceBinding::new();
        if let Some(path) = path {
            binding = binding.with_path(path);
        }
        SessionLayer::<Clerk>::builder(MemoryStore::new(), keys)
            .with_cookie_name("__Host-clerk")
            .bind_to_device(binding)
            .build()
    };
    let customers = Keys::generate();
    let outer = SessionLayer::<Customer>::builder(MemoryStore::new(), customers.clone())
        .bind_to_device(DeviceBinding::new())
        .build()
        .unwrap();
    let both = async |customer: Session<Customer>, clerk: Session<Clerk>| {
        customer.login(7).await?;
        clerk.login(8).await
    };
    let clerks = async |clerk: Session<Clerk>| clerk.login(8).await;
    let refused = layer_of(None, customers.clone()).unwrap_err().to_string();
    assert!(refused.contains("`DeviceBinding::with_path`"), "{refused}");
    let theirs = "/device-binding/register";
    // Also where the request asks the outer layer for nothing.
    for (inner, of_both, of_clerks) in [
        (layer_of(None, Keys::generate()), &[theirs][..], &[][..]),
        (layer_of(Some("/clerk"), customers), &["/clerk/register", theirs], &["/clerk/register"]),
    ] {
        let app = Router::new()
            .route("/both", get(both))
            .route("/clerks", get(clerks))
            .layer(inner.unwrap())
            .layer(outer.clone());
        let server = Server::start(app).await;
        for (path, offers) in [("/both", of_both), ("/clerks", of_clerks)] {
            let login = server.client().get(path).await;
            let made = login.headers.get_all("secure-session-registration").iter();
            let paths: Vec<_> = made.map(|it| parameter(it.to_str().unwrap(), "path")).collect();
            assert_eq!(paths, offers, "{path}");
        }
    }
}

// ---- what it costs ----

#[tokio::test]
async fn a_session_that_is_not_bound_costs_no_byte_and_no_call() {
    let mut payloads = Vec::new();
    let mut calls = Vec::new();
    for binding in [None, Some(DeviceBinding::new())] {
        let shop = Shop::or_without(binding).await;
        let client = shop.server.client();
        for path in ["/visit", "/login/7", "/who", "/visit", "/renew", "/visit", "/account"] {
            client.get(path).await.text();
        }
        let found = shop.store.store().sessions_of("Customer:7").await.unwrap();
        payloads.push(found[0].1.payload.len());
        client.get("/logout").await.text();
        calls.push(shop.store.calls());
    }
    assert_eq!(payloads[0], payloads[1]);
    assert_eq!(calls[0], calls[1]);
}

#[tokio::test]
async fn a_bound_session_costs_two_loads_a_refresh_and_nothing_a_request() {
    let shop = Shop::start().await;
    let mut browser = shop.bound(1, 7).await;
    let calls = async |browser: &mut Browser, path: &str| {
        shop.store.reset();
        browser.get(path).await.text();
        shop.store.calls()
    };
    let load = Calls { load: 1, ..Calls::default() };
    assert_eq!(calls(&mut browser, "/who").await, load);
    assert_eq!(calls(&mut browser, "/visit").await, Calls { replace: 1, ..load });
    shop.store.reset();
    assert_eq!(browser.refresh().await.status, StatusCode::OK);
    assert_eq!(shop.store.calls(), Calls { load: 2, ..Calls::default() });
    // The record itself: an id, a key and a date.
    let size = async || {
        let found = shop.store.store().sessions_of("Customer:7").await.unwrap();
        found[0].1.payload.len()
    };
    let bound = size().await;
    assert!(bound < 100, "{bound}");
}

/// Chromium makes six signatures in nine minutes, refreshes ahead of time when less than two minutes are
/// left, and before a request when nothing is left.
#[tokio::test]
async fn an_hour_of_use_stays_within_the_browsers_quota() {
    const LEFT: Duration = Duration::from_secs(120);
    let lifetimes = [600, 300, 240, 239, 200, 180].map(Duration::from_secs);
    for (lifetime, pause) in lifetimes.into_iter().flat_map(|it| [(it, 10), (it, 45)]) {
        let shop = Shop::with(DeviceBinding::new().with_lifetime(lifetime)).await;
        let mut browser = shop.browser(1);
        browser.get("/login/7").await.text();
        let (mut waited, mut most, mut signatures) = (0, 0, 0);
        for _ in 0..3_600 / pause {
            shop.clock.advance(u32::try_from(pause).unwrap() * SECOND);
            let now = shop.clock.now();
            let left = browser.bound().until.duration_since(now).unwrap_or_default();
            let before = browser.signatures.len();
            if !left.is_zero() && left < LEFT {
                // Beside the page, which does not wait.
                assert_eq!(browser.refresh_from(true).await.status, StatusCode::OK);
            }
            let refreshes = browser.refreshes;
            assert_eq!(browser.get("/who").await.text(), "Some(7)");
            waited += browser.refreshes - refreshes;
            signatures += browser.signatures.len() - before;
            browser.signatures.retain(|at| *at + 9 * MINUTE > now);
            most = most.max(browser.signatures.len());
        }
        println!(
            "{lifetime:?}, a page every {pause} s: {most} signatures in nine minutes at most, \
             {signatures} in an hour, {} refreshes",
            browser.refreshes
        );
        assert!(most <= 6, "{most} signatures with {lifetime:?}");
        // Who comes more seldom than a cookie with a short lifetime is due may have to wait.
        assert!(waited == 0 || pause > 30, "{waited} pages waited, with {lifetime:?}");
    }
}

/// The layer asks for a proof of such a cookie in the last half minute alone, and what it gives until then
/// is no longer good than the proof is.
#[tokio::test]
async fn a_cookie_of_three_minutes_ends_three_minutes_after_its_proof() {
    let shop = Shop::with(DeviceBinding::new().with_lifetime(3 * MINUTE)).await;
    let mut browser = shop.browser(1);
    browser.get("/login/7").await.text();
    shop.clock.advance(2 * MINUTE);
    let calls = shop.store.calls();
    browser.signatures.clear();
    for left in [50, 40] {
        let reply = browser.refresh_from(true).await;
        assert!(reply.set_cookies()[0].ends_with(&format!("Max-Age={left}")), "{reply:?}");
        shop.clock.advance(10 * SECOND);
    }
    assert_eq!((browser.signatures.len(), shop.store.calls()), (0, calls), "nobody was asked");
    let thief = browser.thief();
    assert_eq!(thief.get("/who").await.text(), "Some(7)");
    // A copy can be given again as well, for no longer; and without a proof there is no more.
    let id = browser.bound().id.clone();
    let headers = [("sec-secure-session-id", &*id)];
    let again = thief.call(request(Method::POST, REFRESH, &headers)).await;
    assert_eq!(again.status, StatusCode::FORBIDDEN, "it is due");
    shop.clock.advance(40 * SECOND);
    assert_eq!(thief.get("/who").await.text(), "None");
    assert_eq!(browser.get("/who").await.text(), "Some(7)");
    assert_eq!(browser.signatures.len(), 1);
}

#[test]
fn what_a_request_shows_can_be_compared() {
    let why = Unproven::NoCookie;
    assert_ne!(DeviceProof::Unbound, DeviceProof::Unproven { why });
    assert_eq!(why.to_string(), "it has no bound cookie");
}

/// Writes nothing, so that a page of the application may do what the endpoints do.
#[tokio::test]
async fn a_type_without_a_user_is_bound_as_soon_as_it_is_stored() {
    #[derive(Session)]
    struct Visitor {
        visits: u32,
    }
    let layer = SessionLayer::<Visitor>::builder(MemoryStore::new(), Keys::generate())
        .bind_to_device(DeviceBinding::new())
        .build()
        .unwrap();
    let visit = async |session: Session<Visitor>| *session.write().await.visits_mut() += 1;
    let app = Router::new().route("/", get(async || "nothing").merge(post(visit))).layer(layer);
    let server = Server::start(app).await;
    let client = server.client();
    let header = "secure-session-registration";
    assert_eq!(client.get("/").await.header(header), "");
    let stored = client.request(Method::POST, "/").await;
    assert_ne!(stored.header(header), "");
}

// ---- metrics ----

#[tokio::test]
async fn the_metrics_tell_who_is_bound_and_what_is_refused_and_why() {
    let recorder = DebuggingRecorder::new();
    // Of this thread, which runs the server too.
    let _here = metrics::set_default_local_recorder(&recorder);
    let shop = Shop::start().await;
    let register = async |client: &Client, proof: Option<&str>| {
        let header = proof.map(|proof| ("secure-session-response", proof));
        let headers: Vec<_> = header.into_iter().collect();
        client.call(request(Method::POST, REGISTER, &headers)).await.status.as_u16()
    };
    let mut browser = shop.browser(1);
    let offer = browser.client.get("/login/7").await.header("secure-session-registration");
    let client = &browser.client.clone();
    let strange = browser.registration("abc");
    assert_eq!(register(client, None).await, 400);
    assert_eq!(register(client, Some("x")).await, 403);
    assert_eq!(register(client, Some(&strange)).await, 403);
    assert_eq!(register(&shop.server.client(), Some(&strange)).await, 401);
    let visitor = shop.server.client();
    visitor.get("/visit").await.text();
    assert_eq!(register(&visitor, Some(&strange)).await, 403);
    assert_eq!(browser.register(&offer).await.status, StatusCode::OK);
    let others = shop.browser(2).registration("abc");
    assert_eq!(register(client, Some(&others)).await, 403);

    shop.clock.advance(2 * MINUTE);
    let thief = browser.thief();
    let Bound { id, challenge, .. } = browser.bound().clone();
    let old = browser.proof(&challenge.expect("a challenge"));
    assert_eq!(browser.refresh_with("no-id-of-ours", None).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(browser.refresh_with(&id, Some("x")).await.status, StatusCode::FORBIDDEN);
    shop.clock.advance(21 * MINUTE);
    assert_eq!(browser.refresh_with(&id, Some(&old)).await.status, StatusCode::FORBIDDEN);
    assert_eq!(browser.get("/who").await.text(), "Some(7)");

    // However often its handler and the guards look.
    assert_eq!(thief.get("/account").await.status, StatusCode::SEE_OTHER);
    thief.set_cookie(BOUND, None);
    assert_eq!(thief.get("/who").await.text(), "None");
    let mut other = shop.bound(2, 8).await;
    thief.set_cookie(BOUND, other.client.cookie(BOUND).as_deref());
    assert_eq!(thief.get("/who").await.text(), "None");
    other.get("/logout").await.text();
    assert_eq!(other.refresh().await.status, StatusCode::UNAUTHORIZED);

    // Where they are let through, as at first, the same is known.
    let allowing = DeviceBinding::new().with_unproven_policy(UnprovenPolicy::Allow);
    let shop = Shop::with(allowing).await;
    let thief = shop.bound(3, 9).await.thief();
    assert_eq!(thief.get("/who").await.text(), "Some(9)");
    thief.set_cookie(BOUND, None);
    assert_eq!(thief.get("/who").await.text(), "Some(9)");

    let counted = recorder.snapshotter().snapshot().into_vec().into_iter();
    let counted: BTreeMap<_, _> = counted
        .filter(|(key, ..)| key.key().name().starts_with("sessions_devices_"))
        .map(|(key, _, _, value)| {
            let labels: Vec<_> = key.key().labels().map(|label| label.value()).collect();
            let name = key.key().name().trim_start_matches("sessions_devices_");
            let DebugValue::Counter(count) = value else { panic!("{name} is no counter") };
            ([&[name][..], &labels].concat().join(" "), count)
        })
        .collect();
    let expected = [
        ("bound_total", 3),
        ("let_through_total no_cookie", 1),
        ("refreshed_total", 1),
        // The browser too has one that is too old, and gets another.
        ("refused_total refresh challenge", 2),
        ("refused_total refresh no_binding", 1),
        ("refused_total refresh no_session", 1),
        ("refused_total refresh proof", 1),
        ("refused_total register bound_already", 1),
        ("refused_total register challenge", 1),
        ("refused_total register login_required", 1),
        ("refused_total register no_session", 1),
        ("refused_total register proof", 2),
        ("refused_total use another_binding", 1),
        ("refused_total use expired", 1),
        ("refused_total use no_cookie", 1),
    ];
    let expected = expected.map(|(name, count)| (name.to_string(), count));
    assert_eq!(counted, BTreeMap::from(expected));
}
