//! How long a binding lasts, and the link that leads from the binding to its session.

use axum::{Router, routing::get};
use http::StatusCode;
use sessions::{
    DeviceBinding, Keys, MemoryStore, SessionLayer, Store, UnprovenPolicy,
    testing::{ManualClock, Operation},
};
use sessions_tests::{Server, devices::Browser};

use super::{Customer, HOUR, MINUTE, OFFER, Shop, in_front_of, link_of, login, offer_at, who};

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
    assert_ne!(reply.header(OFFER), "", "another user");
    assert_eq!(browser.client.get("/proof").await.text(), "Unbound");
    assert_eq!(browser.refresh().await.status, StatusCode::UNAUTHORIZED);
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
        let offer = offer_at(&first.client, "/login/7").await;
        let mut second = Browser { key: shop.browser(2).key, ..first.clone() };
        second.client = in_front_of(&twin.server, &first.client);
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
