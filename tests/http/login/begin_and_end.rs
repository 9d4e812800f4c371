//! A login begins a session of its user, and a logout ends it: what stays, what goes, and for how long.

use std::{sync::Arc, time::Duration};

use axum::{Router, extract::Path, routing::get};
use http::StatusCode;
use sessions::{
    ErrorKind, Keys, Lifetime, MemoryStore, Session, SessionLayer,
    testing::{ManualClock, SessionChange, TestClient},
};
use sessions_tests::Server;

use super::{
    Customer, DAY, HOUR, MINUTE, Shop, account, key, login, logout, put_into_cart, routes, shop_of,
    shop_with, who,
};
use crate::COOKIE;

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
    client.login_as(9).await;
    client.with_session(async |session| session.logout().await.unwrap()).await;
    assert_eq!(client.cookie(), None);
}
