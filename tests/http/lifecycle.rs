//! How a session begins, lives and ends.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use axum::{Router, extract::State, routing::get};
use sessions::{
    ErrorKind, Keys, Lifetime, MemoryStore, Session, SessionLayer, SessionLayerBuilder,
    testing::{Calls, Operation},
};
use sessions_tests::Server;
use tokio::sync::Notify;

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

/// The layer and its memory store share their looks at the system's clock; not longer than a handler runs
/// without a pause.
#[tokio::test]
async fn a_session_begins_when_its_handler_is_done() {
    async fn begin(State(paused): State<Arc<Mutex<SystemTime>>>, session: Session<Visitor>) {
        session.write().await.set_points(1);
        tokio::time::sleep(Duration::from_millis(5)).await;
        *paused.lock().unwrap() = SystemTime::now();
    }
    async fn begun(session: Session<Visitor>) -> String {
        let since = session.created_at().duration_since(SystemTime::UNIX_EPOCH);
        since.unwrap().as_millis().to_string()
    }
    let paused = Arc::new(Mutex::new(SystemTime::UNIX_EPOCH));
    let app = Router::new().route("/begin", get(begin)).route("/begun", get(begun));
    let layer = SessionLayer::<Visitor>::new(MemoryStore::new(), Keys::generate());
    let server = Server::start(app.with_state(paused.clone()).layer(layer)).await;
    let client = server.client();
    client.get("/begin").await.text();
    let begun: u128 = client.get("/begun").await.text().parse().unwrap();
    let paused = paused.lock().unwrap().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    assert!(begun >= paused.as_millis(), "{begun} {paused:?}");
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
    let renewing = client.spawn_get("/renew");
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
    let app = App::start(Router::new().route("/nested", get(nested))).await;
    let client = app.visitor().await;
    assert_eq!(client.get("/nested").await.text(), format!("{:?}", ErrorKind::GuardHeld));
    assert_eq!(client.get("/name").await.text(), "Zoe");
}

#[tokio::test]
async fn after_the_end_a_request_can_begin_anew() {
    async fn logs_out(session: Session<Visitor>) -> sessions::Result<String> {
        session.destroy().await?;
        let old = session.read().await.name().map(str::to_string);
        session.write().await.set_theme("you are logged out");
        Ok(format!("{old:?} {}", session.began_in_request()))
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
        let before = session.began_in_request();
        session.write().await.set_name("x");
        session.save().await.unwrap();
        format!("{before} {}", session.began_in_request())
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
        let lifetime = Lifetime::new()
            .with_idle_timeout(30 * DAY)
            .with_absolute_timeout(90 * DAY)
            .with_persistent_cookie();
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

// ---- a cookie that the browser would drop ----

async fn remembered(routes: Router) -> App {
    App::with(routes, remembers).await
}

fn remembers(builder: SessionLayerBuilder<Visitor>) -> SessionLayerBuilder<Visitor> {
    let builder = builder.with_persistent_cookie().with_idle_timeout(60 * DAY);
    builder.with_absolute_timeout(None)
}

/// Until when the session lasts, in seconds since it began; without being a use of it.
async fn ends(session: Session<Visitor>) -> String {
    let session = session.without_refresh();
    let left = session.expires_at().duration_since(session.created_at()).unwrap();
    left.as_secs().to_string()
}

#[tokio::test]
async fn a_persistent_cookie_is_sent_again_before_the_browser_drops_it() {
    async fn fixed(session: Session<Visitor>) {
        session.set_lifetime(
            Lifetime::new().with_idle_timeout(730 * DAY).with_absolute_timeout(730 * DAY),
        );
    }
    let app = remembered(Router::new().route("/fixed", get(fixed))).await;
    let (store, clock, keys) = (app.store.clone(), app.clock.clone(), app.keys.clone());
    let twin = App::on(store, clock, keys, Router::new(), remembers).await;
    // One is only read, by two processes in turn; one is written to each time; one ends on a fixed day.
    let clients = [app.visitor().await, app.visitor().await, app.visitor().await];
    clients[2].get("/fixed").await.text();
    let elsewhere = twin.client();
    elsewhere.set_cookie(COOKIE, clients[0].cookie(COOKIE).as_deref());
    for day in (3..=700).step_by(3) {
        app.clock.advance(3 * DAY);
        let reader = if day % 2 == 0 { &clients[0] } else { &elsewhere };
        let replies = [
            reader.get("/name").await,
            clients[1].get("/visit").await,
            clients[2].get("/name").await,
        ];
        for (number, reply) in replies.iter().enumerate() {
            let lines = reply.set_cookies();
            let is_due = day % 30 == 0 && (number < 2 || day <= 330);
            assert_eq!(lines.len(), usize::from(is_due), "day {day}, number {number}");
            // The one that ends on a fixed day has the last of them for as long as it lasts.
            let left = if number < 2 { 400 } else { (730 - day).min(400) };
            let age = format!("; Max-Age={}", left * DAY.as_secs());
            assert!(lines.iter().all(|line| line.contains(&age)), "{lines:?}");
        }
    }
    assert_eq!(clients[0].cookie(COOKIE), elsewhere.cookie(COOKIE), "it is the same session");
}

#[tokio::test]
async fn sending_the_cookie_again_costs_one_write_and_fails_nobody() {
    let app = remembered(Router::new().route("/ends", get(ends))).await;
    let client = app.visitor().await;
    let before = client.cookie(COOKIE);
    let sent = async |path| client.get(path).await.set_cookies().len();
    app.clock.advance(29 * DAY);
    assert_eq!(sent("/name").await, 0);
    app.clock.advance(DAY);
    app.store.reset();
    assert_eq!(sent("/ends").await, 0, "no use of the session");
    assert_eq!(app.store.calls(), Calls { load: 1, ..Calls::default() });
    app.store.fail_next(Operation::Replace, 1);
    assert_eq!(sent("/name").await, 0, "the store failed");
    app.store.reset();
    assert_eq!(sent("/name").await, 1);
    assert_eq!(client.cookie(COOKIE), before, "the same once more");
    assert_eq!(app.store.calls(), Calls { load: 1, replace: 1, ..Calls::default() });
    assert_eq!(sent("/name").await, 0, "only once");

    // Of many requests at once one gets it.
    app.clock.advance(30 * DAY);
    let request = || {
        let client = client.clone();
        tokio::spawn(async move { client.get("/name").await.set_cookies().len() })
    };
    let mut cookies = 0;
    for racing in (0..20).map(|_| request()).collect::<Vec<_>>() {
        cookies += racing.await.unwrap();
    }
    assert_eq!(cookies, 1);

    // And one that the session's end overtakes gets none.
    app.clock.advance(30 * DAY);
    let held = app.store.hold(Operation::Replace);
    let late = request();
    held.wait_for_caller().await;
    let (store, clock, keys) = (app.store.clone(), app.clock.clone(), app.keys.clone());
    let twin = App::on(store, clock, keys, Router::new(), remembers).await;
    let browser = twin.client();
    browser.set_cookie(COOKIE, before.as_deref());
    browser.get("/destroy").await.text();
    held.release();
    assert_eq!(late.await.unwrap(), 0);
}

// ---- without a refresh ----

#[tokio::test]
async fn a_page_that_asks_how_long_is_left_does_not_keep_the_session_alive() {
    async fn note(session: Session<Visitor>) -> sessions::Result<()> {
        let session = session.without_refresh();
        session.write().await.set_theme("dark");
        session.save().await?;
        session.update(|s| *s.points_mut() += 1).await?;
        session.write().await.set_seen([1]);
        Ok(())
    }
    async fn points(session: Session<Visitor>) -> String {
        session.without_refresh().read().await.points().to_string()
    }
    let routes = Router::new()
        .route("/ends", get(ends))
        .route("/note", get(note))
        .route("/points", get(points));
    let app = App::start(routes).await;
    let client = app.visitor().await;
    let end = async || client.get("/ends").await.text().to_string();
    let begun_with = end().await;
    for minute in 1..120 {
        app.clock.advance(MINUTE);
        assert_eq!(end().await, begun_with, "minute {minute}");
    }
    // What it writes is kept, and keeps nobody alive either.
    client.get("/note").await.text();
    assert_eq!(client.get("/points").await.text(), "1");
    assert_eq!(end().await, begun_with);
    assert_eq!(app.store.calls().touch, 0);
    app.clock.advance(MINUTE);
    assert_eq!(client.get("/name").await.text(), "nobody");
}

#[tokio::test]
async fn other_requests_of_the_session_count_as_always() {
    async fn slow(State(steps): State<Arc<[Notify; 2]>>, session: Session<Visitor>) -> String {
        steps[0].notify_one();
        steps[1].notified().await;
        session.read().await.name().unwrap_or("nobody").to_string()
    }
    async fn slow_write(steps: State<Arc<[Notify; 2]>>, session: Session<Visitor>) -> String {
        session.write().await.set_points(7);
        slow(steps, session).await
    }
    async fn note(session: Session<Visitor>) {
        session.clone().without_refresh().write().await.set_theme("dark");
    }
    let steps = Arc::new([Notify::new(), Notify::new()]);
    let routes = Router::new()
        .route("/slow", get(slow))
        .route("/slow_write", get(slow_write))
        .with_state(steps.clone())
        .route("/note", get(note))
        .route("/ends", get(ends));
    for path in ["/slow", "/slow_write"] {
        let app = App::start(routes.clone()).await;
        let client = app.visitor().await;
        let end = async || client.get("/ends").await.text().to_string();
        let begun_with = end().await;
        let other = client.spawn_get(path);
        steps[0].notified().await;
        app.clock.advance(HOUR);
        // The other one has the session open, and has perhaps written to it.
        assert_eq!(end().await, begun_with);
        client.get("/note").await.text();
        assert_eq!(end().await, begun_with, "also where it saves what the other one wrote");
        steps[1].notify_one();
        assert_eq!(other.await.unwrap().text(), "Zoe");
        assert_eq!(end().await, (3 * HOUR).as_secs().to_string(), "{path}");
    }
}

#[tokio::test]
async fn a_lifetime_alone_makes_no_session() {
    async fn remember(session: Session<Visitor>) {
        session.set_lifetime(Lifetime::new().with_persistent_cookie());
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
    let request = client.spawn_get("/slow");
    sessions_tests::eventually("it is open", async || app.layer.sessions_in_use() == 1).await;
    tokio::time::sleep(Duration::from_millis(5)).await;
    app.clock.advance(3 * HOUR);
    let reply = request.await.unwrap();
    assert_eq!((reply.text(), reply.set_cookies()), ("Err(Ended)", vec![]));
    assert_eq!(client.get("/name").await.text(), "nobody");
}
