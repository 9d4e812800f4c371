//! How a session begins, lives and ends.

use std::time::Duration;

use axum::{Router, routing::get};
use sessions::{
    ErrorKind, Lifetime, Session,
    testing::{Calls, Operation},
};

use crate::{App, COOKIE, Visitor, hold_the_next};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(24 * 3_600);

#[tokio::test]
async fn renewing_keeps_the_data_and_ends_the_old_id() {
    async fn login(session: Session<Visitor>) -> sessions::Result<String> {
        session.write().await.set_points(100);
        session.renew_id().await?;
        session.write().await.set_theme("dark");
        let s = session.read().await;
        Ok(format!("{:?} {} {}", s.name(), s.points(), s.theme()))
    }
    let app = App::start(Router::new().route("/login", get(login))).await;
    let client = app.visitor().await;
    let before = client.copy();
    let reply = client.get("/login").await;
    assert_eq!(reply.text(), r#"Some("Zoe") 100 dark"#);
    assert_eq!(reply.set_cookies().len(), 1);
    assert_eq!(before.get("/name").await.text(), "nobody");
    assert_eq!(client.get("/login").await.text(), r#"Some("Zoe") 100 dark"#);
    // And what each renewal leaves for a moment.
    assert_eq!(app.store.store().len(), 1 + 2);
}

#[tokio::test]
async fn renewing_does_not_extend_the_absolute_timeout() {
    let app = App::start(Router::new()).await;
    let client = app.visitor().await;
    for _ in 0..23 {
        app.clock.advance(HOUR);
        client.get("/renew").await.text();
    }
    assert_eq!(client.get("/name").await.text(), "Zoe");
    app.clock.advance(HOUR);
    assert_eq!(client.get("/name").await.text(), "nobody");
}

#[tokio::test]
async fn a_renewal_that_cannot_be_done_leaves_the_session_as_it_was() {
    use Operation::{Create, Load, Replace};
    let app = App::start(Router::new()).await;
    let client = app.visitor().await;
    let cookie = client.cookie(COOKIE);
    for operation in [Load, Create, Replace] {
        // The first load is the opening's.
        let calls = if operation == Load { u64::MAX } else { 1 };
        app.store.fail_next(operation, calls);
        assert_eq!(client.get("/renew").await.status, 503, "{operation:?}");
        app.store.heal(operation);
        assert_eq!(client.cookie(COOKIE), cookie);
        assert_eq!(client.get("/name").await.text(), "Zoe", "{operation:?}");
        assert_eq!(app.store.store().len(), 1, "{operation:?}");
    }
}

#[tokio::test]
async fn a_renewed_id_opens_nothing_even_if_the_store_fails_in_the_middle() {
    let app = App::start(Router::new()).await;
    let client = app.visitor().await;
    let before = client.copy();
    let replaced = app.store.hold(Operation::Replace);
    let renewing = tokio::spawn({
        let client = client.clone();
        async move { client.get("/renew").await }
    });
    let confirmed = hold_the_next(&app.store, replaced, Operation::Replace).await;
    app.store.fail_next(Operation::Replace, 1);
    confirmed.release();
    assert_eq!(renewing.await.unwrap().text(), "");
    assert_eq!(before.get("/name").await.text(), "nobody");
    assert_eq!(client.get("/name").await.text(), "Zoe");
}

#[tokio::test]
async fn of_many_renewals_at_once_exactly_one_wins() {
    for _ in 0..50 {
        let app = App::start(Router::new()).await;
        let twin = app.twin().await;
        let client = app.visitor().await;
        let (tx, gate) = tokio::sync::watch::channel(false);
        let racing: Vec<_> = [&app, &twin, &app, &twin]
            .map(|process| {
                let browser = process.client();
                browser.set_cookie(COOKIE, client.cookie(COOKIE).as_deref());
                let mut gate = gate.clone();
                tokio::spawn(async move {
                    gate.changed().await.unwrap();
                    browser.get("/renew").await.set_cookies().len()
                })
            })
            .into();
        tx.send(true).unwrap();
        let mut cookies = 0;
        for renewal in racing {
            cookies += renewal.await.unwrap();
        }
        assert_eq!(cookies, 1);
        // And what the renewal leaves for a moment.
        assert_eq!(app.store.store().len(), 1 + 1);
        assert_eq!(client.get("/name").await.text(), "nobody");
    }
}

#[tokio::test]
async fn a_new_session_has_no_id_to_renew() {
    async fn renews_new(session: Session<Visitor>) -> sessions::Result<()> {
        session.renew_id().await?;
        session.write().await.set_name("Ada");
        session.renew_id().await
    }
    let app = App::start(Router::new().route("/new", get(renews_new))).await;
    let client = app.client();
    assert_eq!(client.get("/new").await.set_cookies().len(), 1);
    assert_eq!(client.get("/name").await.text(), "Ada");
    assert_eq!(app.store.calls(), Calls { create: 1, load: 1, ..Calls::default() });
}

#[tokio::test]
async fn a_renewal_under_ones_own_guard_is_an_error_and_no_hang() {
    async fn nested(session: Session<Visitor>) -> String {
        let _guard = session.write().await;
        format!("{:?}", session.renew_id().await.unwrap_err().kind())
    }
    let app = App::with(Router::new().route("/nested", get(nested)), |builder| {
        builder.with_lock_timeout(Duration::from_millis(30))
    })
    .await;
    let client = app.visitor().await;
    assert_eq!(client.get("/nested").await.text(), format!("{:?}", ErrorKind::Locked));
    assert_eq!(client.get("/name").await.text(), "Zoe");
}

#[tokio::test]
async fn after_the_end_a_request_can_begin_anew() {
    async fn logs_out(session: Session<Visitor>) -> sessions::Result<String> {
        session.destroy().await?;
        let old = session.read().await.name().map(str::to_string);
        session.write().await.set_theme("you are logged out");
        Ok(format!("{old:?} {}", session.is_new()))
    }
    async fn theme(session: Session<Visitor>) -> String {
        session.read().await.theme().to_string()
    }
    let routes = Router::new().route("/out", get(logs_out)).route("/theme", get(theme));
    let app = App::start(routes).await;
    let client = app.visitor().await;
    let before = client.copy();
    let reply = client.get("/out").await;
    assert_eq!(reply.text(), "None true");
    assert_eq!(reply.set_cookies().len(), 1);
    assert_ne!(client.cookie(COOKIE), before.cookie(COOKIE));
    assert_eq!(client.get("/theme").await.text(), "you are logged out");
    assert_eq!(client.get("/name").await.text(), "nobody");
    assert_eq!(before.get("/theme").await.text(), "light");
}

#[tokio::test]
async fn an_end_that_the_store_did_not_take_is_an_error_and_can_be_repeated() {
    let app = App::start(Router::new()).await;
    let client = app.visitor().await;
    app.store.fail_next(Operation::Delete, 1);
    let reply = client.get("/destroy").await;
    assert_eq!((reply.status.as_u16(), reply.set_cookies()), (503, vec![]));
    assert_eq!(client.get("/name").await.text(), "Zoe");
    client.get("/destroy").await.text();
    assert_eq!(client.cookie(COOKIE), None);
    assert!(app.store.store().is_empty());
}

#[tokio::test]
async fn is_new_is_the_request_that_begins_it() {
    async fn describe(session: Session<Visitor>) -> String {
        let before = session.is_new();
        session.write().await.set_name("x");
        session.save().await.unwrap();
        format!("{before} {}", session.is_new())
    }
    let app = App::start(Router::new().route("/new", get(describe))).await;
    let client = app.client();
    assert_eq!(client.get("/new").await.text(), "true true");
    assert_eq!(client.get("/new").await.text(), "false false");
}

#[tokio::test]
async fn an_idle_session_ends_and_one_in_use_does_not() {
    let app = App::start(Router::new()).await;
    let (busy, idle) = (app.visitor().await, app.visitor().await);
    for _ in 0..4 {
        app.clock.advance(HOUR);
        assert_eq!(busy.get("/name").await.text(), "Zoe");
    }
    assert_eq!(idle.get("/name").await.text(), "nobody");
}

#[tokio::test]
async fn a_session_in_use_ends_at_the_absolute_timeout() {
    let app = App::start(Router::new()).await;
    let client = app.visitor().await;
    for _ in 0..23 {
        app.clock.advance(HOUR);
        assert_eq!(client.get("/name").await.text(), "Zoe");
    }
    app.clock.advance(HOUR - Duration::from_millis(1));
    assert_eq!(client.get("/name").await.text(), "Zoe");
    app.clock.advance(Duration::from_millis(1));
    assert_eq!(client.get("/name").await.text(), "nobody");
}

#[tokio::test]
async fn sliding_writes_once_a_refresh_window() {
    let app = App::start(Router::new()).await;
    let client = app.visitor().await;
    app.store.reset();
    for _ in 0..11 {
        app.clock.advance(MINUTE);
        client.get("/name").await.text();
    }
    assert_eq!(app.store.calls(), Calls { load: 11, touch: 1, ..Calls::default() });
}

#[tokio::test]
async fn a_touch_that_fails_does_not_fail_the_request() {
    let app = App::start(Router::new()).await;
    let client = app.visitor().await;
    app.store.fail(sessions::testing::Operation::Touch);
    app.clock.advance(HOUR);
    assert_eq!(client.get("/name").await.text(), "Zoe");
    app.store.heal(sessions::testing::Operation::Touch);
    app.clock.advance(HOUR - MINUTE);
    assert_eq!(client.get("/name").await.text(), "Zoe");
    app.clock.advance(HOUR);
    assert_eq!(client.get("/name").await.text(), "Zoe");
}

#[tokio::test]
async fn a_session_keeps_its_own_lifetime() {
    async fn remember(session: Session<Visitor>) {
        let lifetime = Lifetime::new().idle(30 * DAY).absolute(90 * DAY).persistent(true);
        session.set_lifetime(lifetime);
    }
    async fn expires(session: Session<Visitor>) -> String {
        let left = session.expires_at().duration_since(session.created_at()).unwrap();
        left.as_secs().to_string()
    }
    let routes = Router::new().route("/remember", get(remember)).route("/expires", get(expires));
    let app = App::start(routes).await;
    let client = app.visitor().await;
    let cookie = client.get("/remember").await.set_cookies().remove(0);
    assert!(cookie.contains(&format!("; Max-Age={}", (90 * DAY).as_secs())), "{cookie}");
    assert_eq!(client.get("/remember").await.set_cookies(), Vec::<String>::new(), "no news");
    assert_eq!(client.get("/expires").await.text(), (30 * DAY).as_secs().to_string());
    // A later write does not fall back to the layer's limits, nor does a renewal.
    client.get("/visit").await.text();
    app.clock.advance(29 * DAY);
    let cookie = client.get("/renew").await.set_cookies().remove(0);
    assert!(cookie.contains(&format!("; Max-Age={}", (61 * DAY).as_secs())), "{cookie}");
    app.clock.advance(29 * DAY);
    assert_eq!(client.get("/visit").await.text(), "2");
    app.clock.advance(30 * DAY);
    assert_eq!(client.get("/name").await.text(), "nobody");
}

#[tokio::test]
async fn a_lifetime_alone_makes_no_session() {
    async fn remember(session: Session<Visitor>) {
        session.set_lifetime(Lifetime::new().persistent(true));
    }
    let app = App::start(Router::new().route("/remember", get(remember))).await;
    assert_eq!(app.client().get("/remember").await.set_cookies(), Vec::<String>::new());
    assert_eq!(app.store.calls(), Calls::default());
}

#[tokio::test]
async fn a_session_that_expires_under_a_request_is_not_revived_by_its_save() {
    async fn slow(session: Session<Visitor>) -> String {
        // The test's clock goes on while the handler is in the middle.
        tokio::time::sleep(Duration::from_millis(50)).await;
        session.write().await.set_name("too late");
        format!("{:?}", session.save().await.map_err(|error| error.kind()))
    }
    let app = App::start(Router::new().route("/slow", get(slow))).await;
    let client = app.visitor().await;
    let request = tokio::spawn({
        let client = client.clone();
        async move { client.get("/slow").await }
    });
    sessions_tests::eventually("it is open", async || app.layer.sessions_in_use() == 1).await;
    tokio::time::sleep(Duration::from_millis(5)).await;
    app.clock.advance(3 * HOUR);
    let reply = request.await.unwrap();
    assert_eq!((reply.text(), reply.set_cookies()), ("Err(Ended)", vec![]));
    assert_eq!(client.get("/name").await.text(), "nobody");
}
