//! How a browser gets its next bound cookie, and what a refresh does not do.

use axum::{Router, routing::get};
use http::{Method, StatusCode};
use sessions::{
    DeviceBinding, Keys, MemoryStore, SessionLayer,
    store::Cached,
    testing::{Calls, ManualClock, Operation},
};
use sessions_tests::{
    Server,
    devices::{Bound, Browser, REFRESH, request},
};

use super::{Customer, MINUTE, SECOND, Shop, in_front_of, login, offer_at, renew, who};
use crate::COOKIE;

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
    let offer = offer_at(&new.client, "/login/8").await;
    shop.clock.advance(10 * MINUTE);
    shop.store.fail(Operation::Load);
    let status = browser.refresh().await.status;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(new.register(&offer).await.status, StatusCode::SERVICE_UNAVAILABLE);
    shop.store.heal(Operation::Load);
    assert_eq!(browser.get("/who").await.text(), "Some(7)");

    let offer = offer_at(&new.client, "/who").await;
    for operation in [Operation::Create, Operation::Replace] {
        shop.store.fail(operation);
        assert_eq!(new.register(&offer).await.status, StatusCode::SERVICE_UNAVAILABLE);
        shop.store.heal(operation);
    }
    let offer = offer_at(&new.client, "/who").await;
    assert_eq!(new.register(&offer).await.status, StatusCode::OK);
    shop.clock.advance(2 * MINUTE);
    assert_eq!(new.get("/who").await.text(), "Some(8)");
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
    let elsewhere = in_front_of(&other, &browser.client);
    elsewhere.get("/renew").await.text();
    browser.client.set_cookie(COOKIE, elsewhere.cookie(COOKIE).as_deref());
    clock.advance(6 * SECOND);
    assert_eq!(browser.refresh().await.status, StatusCode::OK);
    assert_eq!(browser.get("/who").await.text(), "Some(7)");
}

#[tokio::test]
async fn no_endpoint_waits_for_the_sessions_lock() {
    let shop = Shop::start().await;
    let mut browser = shop.browser(1);
    let offer = offer_at(&browser.client, "/login/7").await;
    let holder = browser.client.spawn_get("/lock");
    shop.locked.notified().await;
    assert_eq!(browser.register(&offer).await.status, StatusCode::OK);
    shop.clock.advance(10 * MINUTE);
    assert_eq!(browser.refresh().await.status, StatusCode::OK);
    holder.abort();
    assert_eq!(browser.get("/who").await.text(), "Some(7)");
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
