//! A browser that sends several sessions' cookies, or has several bindings.

use http::StatusCode;
use sessions_tests::devices::{BOUND, Browser};

use super::{MINUTE, Shop, pair};
use crate::COOKIE;

#[tokio::test]
async fn of_several_cookies_one_that_shows_its_device_counts() {
    let shop = Shop::start().await;
    let owner = shop.bound(1, 7).await;
    let other = shop.bound(2, 8).await;
    for (cookies, who) in [
        (vec![pair(&owner, COOKIE), pair(&other, COOKIE), pair(&other, BOUND)], "Some(8)"),
        (vec![pair(&other, COOKIE), pair(&owner, COOKIE), pair(&other, BOUND)], "Some(8)"),
        (vec![pair(&other, COOKIE), pair(&owner, COOKIE)], "None"),
    ] {
        let line = cookies.join("; ").into_bytes();
        assert_eq!(shop.server.client().get_with("/who", &[line]).await.text(), who);
    }
}

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
