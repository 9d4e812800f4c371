//! Processes with other keys or another setting on one store, as while a deploy is under way.

use http::{Method, StatusCode};
use sessions::{DeviceBinding, Keys};
use sessions_tests::devices::{REFRESH, parameter, request};

use super::{MINUTE, OFFER, Shop, in_front_of};
use crate::COOKIE;

#[tokio::test]
async fn another_process_and_another_key_know_the_device() {
    let shop = Shop::start().await;
    let mut browser = shop.bound(1, 7).await;
    let rotated = Keys::generate().with_previous(shop.keys.clone());
    let (store, clock) = (shop.store.clone(), shop.clock.clone());
    let twin = Shop::on(store, clock, rotated, Some(DeviceBinding::new())).await;
    let client = in_front_of(&twin.server, &browser.client);
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
    let client = in_front_of(&other.server, &browser.client);
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
    assert_eq!(reply.header(OFFER), "");

    // What another process has offered.
    let mut browser = shop.browser(1);
    let reply = browser.client.get("/login/7").await;
    browser.client = in_front_of(&quiet.server, &browser.client);
    let offer = reply.header(OFFER);
    assert_eq!(browser.register(&offer).await.status, StatusCode::OK);
    shop.clock.advance(9 * MINUTE);
    assert_eq!(browser.refresh().await.status, StatusCode::OK);
    assert!(browser.get("/proof").await.text().starts_with("Proven"));
    let thief = browser.thief();
    shop.clock.advance(10 * MINUTE);
    assert_eq!(thief.get("/who").await.text(), "None");
    assert_eq!(browser.get("/who").await.text(), "Some(7)");
}
