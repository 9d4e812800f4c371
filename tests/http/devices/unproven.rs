//! What a request gets that does not show its device, and what the browser keeps.

use http::StatusCode;
use sessions::{DeviceBinding, DeviceProof, Store, Unproven, UnprovenPolicy, testing::Operation};
use sessions_tests::{
    devices::{BOUND, LINK, with_headers},
    eventually,
};

use super::{MINUTE, Shop, link_of, pair};
use crate::COOKIE;

/// What a browser says of a request for a frame in a page of a sister site.
const FRAME: &[(&str, &str)] = &[("sec-fetch-site", "same-site")];

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
        let waiting = owner.client.copy().spawn_get("/wait");
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

#[test]
fn what_a_request_shows_can_be_compared() {
    let why = Unproven::NoCookie;
    assert_ne!(DeviceProof::Unbound, DeviceProof::Unproven { why });
    assert_eq!(why.to_string(), "it has no bound cookie");
}
