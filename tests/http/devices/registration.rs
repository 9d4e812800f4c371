//! A login offers a binding, and the browser that takes the offer is bound.

use std::sync::Arc;

use axum::{
    Router,
    routing::{get, post},
};
use http::{Method, StatusCode};
use sessions::{
    DeviceBinding, Keys, MemoryStore, Session, SessionLayer,
    testing::{ManualClock, Operation, SpyStore},
};
use sessions_tests::{
    Client, Reply, Server, at_once,
    devices::{BOUND, Browser, parameter, request},
    eventually,
};
use tokio::sync::Notify;

use super::{Customer, MINUTE, OFFER, REGISTER, SECOND, Shop, in_front_of, login, offer_at, who};

#[tokio::test]
async fn a_login_offers_a_binding_and_a_browser_that_takes_it_is_bound() {
    let shop = Shop::start().await;
    let mut browser = shop.browser(1);
    assert_eq!(browser.get("/proof").await.text(), "Unbound");
    let login = browser.client.get("/login/7").await;
    let offer = login.header(OFFER);
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
    assert_eq!(proof.header(OFFER), "", "it is bound already");
    assert_eq!(browser.client.get("/devices/7").await.text(), "[true]");
}

#[tokio::test]
async fn nobody_is_offered_a_binding_who_is_not_logged_in_and_nobody_twice_in_ten_minutes() {
    let shop = Shop::start().await;
    let client = shop.server.client();
    let is_offered = async |path: &str| {
        let reply = client.get(path).await;
        reply.text();
        reply.headers.contains_key(OFFER)
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
    assert_eq!(client.get("/").await.header(OFFER), "");
    let stored = client.request(Method::POST, "/").await;
    assert_ne!(stored.header(OFFER), "");
}

async fn register_with(client: &Client, proof: &str) -> Reply {
    client.call(request(Method::POST, REGISTER, &[("secure-session-response", proof)])).await
}

#[tokio::test]
async fn a_registration_with_anything_wrong_binds_nobody() {
    let shop = Shop::start().await;
    let (mut browser, mut other) = (shop.browser(1), shop.browser(2));
    let offer = offer_at(&browser.client, "/login/7").await;
    let others = offer_at(&other.client, "/login/8").await;
    let (challenge, others) = (parameter(&offer, "challenge"), parameter(&others, "challenge"));
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
        assert_eq!(register_with(client, &proof).await.status, 403, "{what}");
    }
    assert_eq!(register_with(&other.client, &good).await.status, 403, "it is another session's");
    assert_eq!(
        register_with(&shop.server.client(), &good).await.status,
        401,
        "there is no session"
    );
    let visitor = shop.server.client();
    visitor.get("/visit").await.text();
    assert_eq!(register_with(&visitor, &good).await.status, 403, "nobody is logged in");
    assert_eq!(client.get("/devices/7").await.text(), "[false]");

    shop.clock.advance(5 * MINUTE + SECOND);
    assert_eq!(register_with(client, &good).await.status, 403, "too old");
    let again = offer_at(client, "/who").await;
    assert_ne!(again, "", "the next page makes the offer again");
    assert_eq!(browser.register(&again).await.status, StatusCode::OK);
    let second = other.registration(parameter(&again, "challenge"));
    assert_eq!(register_with(client, &second).await.status, 403, "it is bound already");
    shop.clock.advance(2 * MINUTE);
    assert!(browser.get("/proof").await.text().starts_with("Proven"));
}

/// Where a connection is closed before its answer is there, a browser sends the request again on another one.
#[tokio::test]
async fn a_registration_that_is_repeated_is_answered_as_the_first_was() {
    let shop = Shop::start().await;
    let twin = shop.twin().await;
    let mut browser = shop.browser(1);
    let offer = offer_at(&browser.client, "/login/7").await;
    let challenge = parameter(&offer, "challenge");
    let proof = browser.registration(challenge);
    let other = shop.browser(2).registration(challenge);
    let elsewhere = in_front_of(&twin.server, &browser.client);
    // The first is still under way when the second comes, in another process.
    let gate = shop.store.hold(Operation::Create);
    let created = shop.store.calls().create;
    let registering = at_once(2, |number| {
        let client = [&browser.client, &elsewhere][number].copy();
        let proof = proof.clone();
        async move { register_with(&client, &proof).await }
    });
    let both_are_there = async || shop.store.calls().create == created + 2;
    let releasing = async {
        eventually("both are about to bind the session", both_are_there).await;
        gate.release();
    };
    let (mut replies, ()) = tokio::join!(registering, releasing);
    // And when all is over.
    replies.push(register_with(&browser.client, &proof).await);
    replies.push(register_with(&elsewhere, &proof).await);
    let named: Vec<_> = replies.iter().map(|reply| reply.text()).collect();
    assert!(named.iter().all(|it| *it == named[0]), "one binding: {named:?}");
    assert!(replies.iter().all(|reply| reply.set_cookies()[0].starts_with(BOUND)));
    assert_eq!(
        register_with(&elsewhere, &other).await.status,
        StatusCode::FORBIDDEN,
        "another device"
    );

    shop.clock.advance(6 * MINUTE);
    assert!(browser.client.get("/proof").await.text().starts_with("Proven"));
    assert_eq!(
        register_with(&browser.client, &proof).await.status,
        StatusCode::FORBIDDEN,
        "too late"
    );
}

#[tokio::test]
async fn a_session_that_another_process_has_locked_is_bound_later() {
    let shop = Shop::start().await;
    let twin = shop.twin().await;
    let mut browser = shop.browser(1);
    let offer = offer_at(&browser.client, "/login/7").await;
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
        let client = in_front_of(&server, &browser.client);
        tokio::spawn(async move { (client.get("/").await, server).0 })
    };
    locked.notified().await;
    assert_eq!(browser.register(&offer).await.status, StatusCode::SERVICE_UNAVAILABLE);
    unlock.notify_one();
    holder.await.unwrap().text();
    eventually("the lease is given back", async || {
        let offer = offer_at(&browser.client, "/who").await;
        !offer.is_empty() && browser.register(&offer).await.status == StatusCode::OK
    })
    .await;
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
            let offer = reply.header(OFFER);
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
