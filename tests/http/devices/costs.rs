//! What bindings cost: bytes, calls of the store, and the browser's signatures.

use std::time::Duration;

use http::StatusCode;
use sessions::{DeviceBinding, UserIndex, testing::Calls};
use sessions_tests::devices::Browser;

use super::{MINUTE, SECOND, Shop};

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
