//! Waiting for the end of a session.

use std::{sync::Arc, time::Duration};

use axum::{Router, extract::State, routing::get};
use sessions::{
    Keys, MemoryStore, PrivateCookie, Session, SessionEnd, SessionLayer, SessionLayerBuilder,
    UserSessions,
    testing::{ManualClock, Operation, SpyStore},
};
use sessions_tests::{Server, ended::every_waiter_hears_of_the_end, eventually};
use tokio::{
    sync::{Notify, mpsc},
    time::{sleep, timeout},
};

use crate::{App, COOKIE, Visitor};

const LONG: Duration = Duration::from_secs(1000);
const SHORT: Duration = Duration::from_millis(20);

/// What goes on after the response has left.
type Ends = mpsc::UnboundedSender<SessionEnd>;

async fn stream(State(ends): State<Ends>, session: Session<Visitor>) {
    let ended = session.ended();
    tokio::spawn(async move {
        let _ = ends.send(ended.await);
    });
}

async fn stream_unpolled(session: Session<Visitor>) {
    let ended = session.ended();
    tokio::spawn(async move {
        // Begun, and not looked at any more.
        tokio::pin!(ended);
        assert!(timeout(Duration::ZERO, &mut ended).await.is_err());
        sleep(LONG).await;
        ended.await;
    });
}

fn streams() -> (Router, mpsc::UnboundedReceiver<SessionEnd>) {
    let (ends, ended) = mpsc::unbounded_channel();
    let routes = Router::new()
        .route("/stream", get(stream))
        .route("/stream-unpolled", get(stream_unpolled))
        .with_state(ends);
    (routes, ended)
}

async fn heard(ended: &mut mpsc::UnboundedReceiver<SessionEnd>) -> SessionEnd {
    timeout(Duration::from_secs(10), ended.recv()).await.expect("it is heard of").expect("an end")
}

#[tokio::test]
async fn an_end_in_this_process_is_heard_of_at_once() {
    let (routes, mut ended) = streams();
    let app = App::with(routes, |builder| builder.with_end_check_interval(LONG)).await;
    for (path, end) in [("/destroy", SessionEnd::Over), ("/renew", SessionEnd::Renewed)] {
        let client = app.visitor().await;
        client.get("/stream").await.text();
        client.get("/stream").await.text();
        client.get("/name/Ann").await.text();
        assert!(ended.try_recv().is_err(), "a write is no end");
        client.get(path).await.text();
        assert_eq!((heard(&mut ended).await, heard(&mut ended).await), (end, end));
    }
    eventually("nothing is left", async || app.layer.sessions_in_use() == 0).await;
}

#[tokio::test]
async fn an_end_in_another_process_is_heard_of_within_the_interval() {
    let (routes, mut ended) = streams();
    let app = App::with(routes, |builder| builder.with_end_check_interval(SHORT)).await;
    let twin = app.twin().await;
    for (path, end) in [("/destroy", SessionEnd::Over), ("/renew", SessionEnd::Renewed)] {
        let (client, elsewhere) = (app.visitor().await, twin.client());
        elsewhere.set_cookie(COOKIE, client.cookie(COOKIE).as_deref());
        client.get("/stream").await.text();
        elsewhere.get("/name/Ann").await.text();
        sleep(3 * SHORT).await;
        assert!(ended.try_recv().is_err(), "a write is no end");
        elsewhere.get(path).await.text();
        assert_eq!(heard(&mut ended).await, end);
    }
    eventually("nothing is left", async || app.layer.sessions_in_use() == 0).await;
}

#[tokio::test]
async fn all_who_wait_for_one_session_are_one_look_at_the_store() {
    let (routes, mut ended) = streams();
    let app = App::with(routes, |builder| builder.with_end_check_interval(SHORT)).await;
    let client = app.visitor().await;
    client.get("/stream-unpolled").await.text();
    for _ in 0..50 {
        client.get("/stream").await.text();
    }
    app.store.reset();
    sleep(10 * SHORT).await;
    let looks = app.store.calls().load;
    assert!((1..=11).contains(&looks), "{looks} looks in ten intervals");
    // One that is not polled holds up nobody.
    let twin = app.twin().await;
    let elsewhere = twin.client();
    elsewhere.set_cookie(COOKIE, client.cookie(COOKIE).as_deref());
    elsewhere.get("/destroy").await.text();
    for _ in 0..50 {
        assert_eq!(heard(&mut ended).await, SessionEnd::Over);
    }
}

/// A waiter that began to wait before the first save of the session hears of the end as soon as the others.
#[tokio::test]
async fn a_session_is_looked_for_from_its_first_save_on() {
    async fn begin(State(ends): State<Ends>, session: Session<Visitor>) {
        let ended = session.ended();
        tokio::spawn(async move {
            let _ = ends.send(ended.await);
        });
        // The waiter waits.
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        session.write().await.set_name("Ann");
    }
    let (ends, mut ended) = mpsc::unbounded_channel();
    let routes = Router::new().route("/begin", get(begin)).with_state(ends);
    let app = App::with(routes, |builder| builder.with_end_check_interval(LONG)).await;
    let client = app.server.client();
    app.store.reset();
    client.get("/begin").await.text();
    eventually("it is looked for", async || app.store.calls().load == 1).await;
    client.get("/destroy").await.text();
    assert_eq!(heard(&mut ended).await, SessionEnd::Over);
}

/// One that nobody can have the cookie of: nothing was written, the save has failed, or what was written was
/// discarded. It is no end that the response leaves, but nobody waits for ever.
#[tokio::test]
async fn a_session_that_was_never_stored_ends_when_it_would_have_expired() {
    async fn stream_unsaved(State(ends): State<Ends>, session: Session<Visitor>) {
        session.write().await.set_name("Ann");
        stream(State(ends), session).await;
    }
    async fn stream_discarded(State(ends): State<Ends>, session: Session<Visitor>) {
        session.write().await.set_name("Ann");
        session.discard_request_changes();
        stream(State(ends), session).await;
    }
    for (path, status) in [("/stream", 200), ("/unsaved", 503), ("/discarded", 200)] {
        let (ends, mut ended) = mpsc::unbounded_channel();
        let routes = Router::new()
            .route("/stream", get(stream))
            .route("/unsaved", get(stream_unsaved))
            .route("/discarded", get(stream_discarded))
            .with_state(ends);
        let app = App::with(routes, |builder| builder.with_end_check_interval(SHORT)).await;
        app.store.fail(Operation::Create);
        let client = app.client();
        assert_eq!(client.get(path).await.status, status);
        sleep(3 * SHORT).await;
        app.clock.advance(Duration::from_secs(2 * 3600 - 1));
        sleep(3 * SHORT).await;
        assert!(ended.try_recv().is_err(), "{path}: the response is no end");
        app.clock.advance(Duration::from_secs(1));
        assert_eq!(heard(&mut ended).await, SessionEnd::Over, "{path}");
    }
}

#[tokio::test]
async fn a_session_whose_request_takes_longer_than_that_may_still_begin() {
    let (ends, mut ended) = mpsc::unbounded_channel();
    let (arrived, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let steps = (arrived.clone(), go_on.clone());
    let slow = async move |session: Session<Visitor>| {
        let ended = session.ended();
        tokio::spawn(async move { ends.send(ended.await) });
        steps.0.notify_one();
        steps.1.notified().await;
        session.write().await.set_name("Ann");
    };
    let routes = Router::new().route("/slow", get(slow));
    let app = App::with(routes, |builder| builder.with_end_check_interval(SHORT)).await;
    let client = app.client();
    let request = client.spawn_get("/slow");
    arrived.notified().await;
    app.clock.advance(Duration::from_secs(3 * 3600));
    sleep(3 * SHORT).await;
    go_on.notify_one();
    request.await.unwrap().text();
    assert_eq!(client.get("/name").await.text(), "Ann");
    assert!(ended.try_recv().is_err());
    client.get("/destroy").await.text();
    assert_eq!(heard(&mut ended).await, SessionEnd::Over);
}

#[tokio::test]
async fn when_nobody_waits_any_more_nobody_looks() {
    async fn give_up(session: Session<Visitor>) {
        let waits = [session.ended(), session.ended()].map(Box::pin);
        for wait in waits {
            assert!(timeout(Duration::from_millis(1), wait).await.is_err());
        }
    }
    let routes = Router::new().route("/give-up", get(give_up));
    let app = App::with(routes, |builder| builder.with_end_check_interval(SHORT)).await;
    let client = app.visitor().await;
    client.get("/give-up").await.text();
    assert_eq!(app.layer.sessions_in_use(), 0, "no slot is left");
    app.store.reset();
    sleep(5 * SHORT).await;
    assert_eq!(app.store.calls().load, 0);
}

#[tokio::test]
async fn a_session_that_expires_ends_and_one_that_is_used_does_not() {
    let (routes, mut ended) = streams();
    let clock = ManualClock::new();
    let app = App::on(
        SpyStore::new(MemoryStore::builder().with_clock(&clock).build()),
        clock.clone(),
        Keys::generate(),
        routes,
        |builder| builder.with_end_check_interval(SHORT),
    )
    .await;
    let client = app.visitor().await;
    client.get("/stream").await.text();
    for _ in 0..5 {
        clock.advance(Duration::from_secs(3600));
        client.get("/name/Zoe").await.text();
        sleep(3 * SHORT).await;
        assert!(ended.try_recv().is_err(), "it is in use");
    }
    clock.advance(Duration::from_secs(2 * 3600));
    assert_eq!(heard(&mut ended).await, SessionEnd::Over);
}

#[tokio::test]
async fn a_store_that_fails_is_no_end() {
    let (routes, mut ended) = streams();
    let app = App::with(routes, |builder| builder.with_end_check_interval(SHORT)).await;
    let client = app.visitor().await;
    client.get("/stream").await.text();
    app.store.fail(Operation::Load);
    sleep(5 * SHORT).await;
    assert!(ended.try_recv().is_err());
    let twin = app.twin().await;
    let elsewhere = twin.client();
    elsewhere.set_cookie(COOKIE, client.cookie(COOKIE).as_deref());
    app.store.heal(Operation::Load);
    elsewhere.get("/destroy").await.text();
    assert_eq!(heard(&mut ended).await, SessionEnd::Over);
}

/// A store that was down has told of nothing meanwhile, and does not know who waits.
#[tokio::test]
async fn after_a_look_that_failed_the_next_one_comes_soon() {
    async fn stream(
        State((ends, store)): State<(Ends, SpyStore<MemoryStore>)>,
        session: Session<Visitor>,
    ) {
        store.fail_next(Operation::Load, 1);
        let ended = session.ended();
        tokio::spawn(async move { ends.send(ended.await) });
    }
    let (ends, mut ended) = mpsc::unbounded_channel();
    let clock = ManualClock::new();
    let store = SpyStore::new(MemoryStore::builder().with_clock(&clock).build());
    let routes = Router::new().route("/stream", get(stream)).with_state((ends, store.clone()));
    let keys = Keys::generate();
    let longest = |builder: SessionLayerBuilder<Visitor>| builder.with_end_check_interval(LONG);
    let app = App::on(store, clock, keys, routes, longest).await;
    let client = app.visitor().await;
    app.store.reset();
    client.get("/stream").await.text();
    eventually("a look has failed", async || app.store.calls().load == 2).await;
    let twin = app.twin().await;
    let elsewhere = twin.client();
    elsewhere.set_cookie(COOKIE, client.cookie(COOKIE).as_deref());
    elsewhere.get("/destroy").await.text();
    assert_eq!(heard(&mut ended).await, SessionEnd::Over);
}

/// The task that looks for all of them runs where the first waiter was.
#[tokio::test]
async fn a_waiter_hears_of_the_end_also_when_the_first_ones_runtime_is_gone() {
    async fn hand_out(State(sessions): State<Sessions>, session: Session<Visitor>) {
        let _ = sessions.send(session);
    }
    type Sessions = mpsc::UnboundedSender<Session<Visitor>>;
    let (sessions, mut handed_out) = mpsc::unbounded_channel();
    let routes = Router::new().route("/hand-out", get(hand_out)).with_state(sessions);
    let app = App::with(routes, |builder| builder.with_end_check_interval(SHORT)).await;
    let client = app.visitor().await;
    client.get("/hand-out").await.text();
    let session = handed_out.recv().await.unwrap();

    let other = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let (first, first_waits) = (session.clone(), app.store.calls().load);
    other.spawn(async move { first.ended().await });
    eventually("the first one waits", async || app.store.calls().load > first_waits).await;
    let second = tokio::spawn(async move { session.ended().await });
    tokio::task::yield_now().await;
    other.shutdown_background();

    let twin = app.twin().await;
    let elsewhere = twin.client();
    elsewhere.set_cookie(COOKIE, client.cookie(COOKIE).as_deref());
    elsewhere.get("/destroy").await.text();
    let end = timeout(Duration::from_secs(10), second).await.expect("it is heard of");
    assert_eq!(end.unwrap(), SessionEnd::Over);
}

#[tokio::test]
async fn one_who_is_logged_out_elsewhere_hears_of_it() {
    #[derive(Session)]
    struct Customer {
        #[session(user)]
        user: Option<u64>,
    }
    async fn login(session: Session<Customer>) -> sessions::Result<()> {
        session.login(7).await
    }
    async fn end_others(
        session: Session<Customer>,
        sessions: UserSessions<Customer>,
    ) -> sessions::Result<String> {
        Ok(sessions.end_others(&session).await?.to_string())
    }
    async fn stream(State(ends): State<Ends>, session: Session<Customer>) {
        let ended = session.ended();
        tokio::spawn(async move { ends.send(ended.await) });
    }
    let (ends, mut ended) = mpsc::unbounded_channel();
    let routes = Router::new()
        .route("/login", get(login))
        .route("/end-others", get(end_others))
        .route("/stream", get(stream))
        .with_state(ends);
    let builder = SessionLayer::<Customer>::builder(MemoryStore::new(), Keys::generate());
    let layer = builder.with_end_check_interval(LONG).build().unwrap();
    let server = Server::start(routes.layer(layer)).await;
    let (one, other) = (server.client(), server.client());
    // Before the login nobody is anybody: that session goes on as another one.
    one.get("/login").await.text();
    one.get("/stream").await.text();
    one.get("/login").await.text();
    assert_eq!(heard(&mut ended).await, SessionEnd::Renewed);
    one.get("/stream").await.text();
    other.get("/login").await.text();
    other.get("/stream").await.text();
    assert_eq!(other.get("/end-others").await.text(), "1");
    assert_eq!(heard(&mut ended).await, SessionEnd::Over);
    assert!(ended.try_recv().is_err(), "the one who did it goes on");
}

#[tokio::test]
async fn a_session_in_its_cookie_ends_with_its_request_or_its_time() {
    async fn end(session: Session<Visitor>) -> sessions::Result<String> {
        session.write().await.set_name("Ann");
        session.save().await?;
        let ended = session.ended();
        session.destroy().await?;
        Ok(format!("{:?}", ended.await))
    }
    async fn expire(State(clock): State<ManualClock>, session: Session<Visitor>) -> String {
        session.write().await.set_name("Ann");
        session.save().await.unwrap();
        let ended = session.ended();
        clock.advance(Duration::from_secs(3 * 3600));
        format!("{:?}", ended.await)
    }
    async fn begin(State(ends): State<Ends>, session: Session<Visitor>) {
        session.write().await.set_name("Ann");
        stream(State(ends), session).await;
    }
    let clock = ManualClock::new();
    let (ends, mut ended) = mpsc::unbounded_channel();
    let builder = SessionLayer::<Visitor>::builder(PrivateCookie, Keys::generate());
    let builder = builder.with_clock(&clock).with_end_check_interval(SHORT);
    let routes = Router::new().route("/end", get(end)).route("/expire", get(expire));
    let streams = Router::new().route("/begin", get(begin)).with_state(ends);
    let app = routes.with_state(clock.clone()).merge(streams).layer(builder.build().unwrap());
    let server = Server::start(app).await;
    assert_eq!(server.client().get("/end").await.text(), "Over");
    assert_eq!(server.client().get("/expire").await.text(), "Over");
    // Also after the response.
    server.client().get("/begin").await.text();
    sleep(3 * SHORT).await;
    assert!(ended.try_recv().is_err());
    clock.advance(Duration::from_secs(2 * 3600));
    assert_eq!(heard(&mut ended).await, SessionEnd::Over);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_logouts_are_heard_of_by_all_who_wait_in_two_processes() {
    let store = MemoryStore::new();
    every_waiter_hears_of_the_end([store.clone(), store], SHORT, 1_000).await;
}
