//! Requests of one session that overlap.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Path, State},
    http::Request,
    routing::{get, post},
};
use http_body_util::Full;
use sessions::{
    ErrorKind, Keys, MemoryStore, Session, SessionData, SessionLayer, WriteGuard,
    testing::Operation,
};
use sessions_tests::{Server, Steps, at_once, eventually};
use tokio::{
    sync::Notify,
    time::{sleep, timeout},
};

use crate::{App, COOKIE, Visitor};

async fn slow_visit(session: Session<Visitor>) {
    let mut s = session.write().await;
    let visits = s.visits();
    sleep(Duration::from_millis(2)).await;
    s.set_visits(visits + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_requests_at_once_count_to_two_hundred() {
    let app = App::start(Router::new().route("/slow", get(slow_visit))).await;
    let client = app.visitor().await;
    at_once(200, |_| {
        let client = client.clone();
        async move { client.get("/slow").await.text().len() }
    })
    .await;
    assert_eq!(client.get("/visit").await.text(), "201");
    assert_eq!(app.layer.sessions_in_use(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn five_requests_that_set_five_fields_all_count() {
    async fn set(Path((field, round)): Path<(u32, u32)>, session: Session<Visitor>) {
        let mut s = session.write().await;
        tokio::task::yield_now().await;
        match field {
            0 => s.set_name(round.to_string()),
            1 => s.set_theme(round.to_string()),
            2 => s.set_visits(round),
            3 => s.set_seen([round]),
            _ => s.set_points(round.into()),
        };
    }
    async fn all(session: Session<Visitor>) -> String {
        let s = session.read().await;
        format!("{:?} {} {} {:?} {}", s.name(), s.theme(), s.visits(), s.seen(), s.points())
    }
    let routes = Router::new().route("/set/{field}/{round}", get(set)).route("/all", get(all));
    let app = App::start(routes).await;
    let client = app.visitor().await;
    for round in 1..=1_000 {
        at_once(5, |field| {
            let client = client.clone();
            async move { client.get(&format!("/set/{field}/{round}")).await.text().len() }
        })
        .await;
        let expected = format!("Some(\"{round}\") {round} {round} [{round}] {round}");
        assert_eq!(client.get("/all").await.text(), expected);
    }
}

/// Opens the session, waits to be let go on, writes.
async fn opens_waits_writes(State(steps): State<Steps>, session: Session<Visitor>) -> String {
    session.read().await.name().unwrap_or_default();
    steps.stop().await;
    session.write().await.set_name("the slow one");
    match session.save().await {
        Ok(()) => "saved".to_string(),
        Err(error) => format!("{:?}", error.kind()),
    }
}

/// The outcome of a slow request during which `path` has been requested.
async fn slow_request_during(path: &str) -> (App, sessions_tests::Client, sessions_tests::Reply) {
    let steps = Steps::default();
    let routes = Router::new().route("/slow", get(opens_waits_writes)).with_state(steps.clone());
    let app = App::start(routes).await;
    let client = app.visitor().await;
    // Cookies of its own: what its answer sets must not be mistaken for what the other's does.
    let slow_reply = client.copy().spawn_get("/slow");
    steps.arrived.notified().await;
    assert!(client.get(path).await.status.is_success());
    steps.go_on.notify_one();
    let reply = slow_reply.await.unwrap();
    (app, client, reply)
}

#[tokio::test]
async fn a_slow_request_does_not_undo_a_logout() {
    for _ in 0..20 {
        let (app, client, slow) = slow_request_during("/destroy").await;
        assert_eq!(slow.text(), format!("{:?}", ErrorKind::Ended));
        assert_eq!(slow.set_cookies(), Vec::<String>::new());
        assert_eq!(client.cookie(COOKIE), None);
        assert_eq!(client.get("/name").await.text(), "nobody");
        assert!(app.store.store().is_empty(), "a session is back");
        assert_eq!(app.layer.sessions_in_use(), 0);
    }
}

#[tokio::test]
async fn a_slow_request_is_never_handed_a_renewed_id() {
    for _ in 0..20 {
        let (app, client, slow) = slow_request_during("/renew").await;
        assert_eq!(slow.text(), format!("{:?}", ErrorKind::Ended));
        assert_eq!(slow.set_cookies(), Vec::<String>::new());
        assert_eq!(client.get("/name").await.text(), "Zoe", "it wrote into the successor");
        // And what the renewal leaves for a moment.
        assert_eq!(app.store.store().len(), 1 + 1);
    }
}

#[tokio::test]
async fn the_cookie_of_an_ended_session_opens_nothing() {
    let app = App::start(Router::new()).await;
    let client = app.visitor().await;
    let renewed = client.copy();
    let reply = client.get("/renew").await;
    assert_eq!(reply.set_cookies().len(), 1);
    assert_ne!(client.cookie(COOKIE), renewed.cookie(COOKIE));
    assert_eq!(renewed.get("/name").await.text(), "nobody");
    let ended = client.copy();
    client.get("/destroy").await;
    for browser in [&ended, &renewed, &client] {
        assert_eq!(browser.get("/name").await.text(), "nobody");
    }
    // Nor is its id adopted by a write.
    let before = ended.cookie(COOKIE);
    ended.get("/name/Eve").await.text();
    assert_ne!(ended.cookie(COOKIE), before);
    assert_eq!(renewed.get("/name").await.text(), "nobody");
}

#[tokio::test]
async fn what_a_guard_wrote_stays_when_the_client_hangs_up() {
    let steps = Steps::default();
    async fn writes_and_waits(State(steps): State<Steps>, session: Session<Visitor>) {
        session.write().await.set_name("before the hang-up");
        let mut s = session.write().await;
        s.set_theme("under a guard");
        steps.arrived.notify_one();
        sleep(Duration::from_secs(60)).await;
    }
    let routes = Router::new().route("/slow", get(writes_and_waits)).with_state(steps.clone());
    let app = App::start(routes).await;
    let client = app.visitor().await;
    let hanging = client.spawn_get("/slow");
    steps.arrived.notified().await;
    hanging.abort();
    eventually("the slot is free", async || app.layer.sessions_in_use() == 0).await;
    app.layer.wait_for_background_saves().await;
    assert_eq!(client.get("/name").await.text(), "before the hang-up");
}

#[tokio::test]
async fn a_hang_up_while_the_store_is_slow_loses_nothing() {
    let app = App::start(Router::new()).await;
    let client = app.visitor().await;
    let gate = app.store.hold(Operation::Replace);
    let hanging = client.spawn_get("/name/Ada");
    gate.wait_for_caller().await;
    hanging.abort();
    assert!(hanging.await.unwrap_err().is_cancelled());
    gate.release();
    eventually("the slot is free", async || app.layer.sessions_in_use() == 0).await;
    assert_eq!(client.get("/name").await.text(), "Ada");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_waiter_gets_its_turn() {
    for waiters in [2, 3, 100] {
        let app = App::start(Router::new().route("/slow", get(slow_visit))).await;
        let client = app.visitor().await;
        let replies = at_once(waiters, |_| {
            let client = client.clone();
            async move { client.get("/slow").await.status.as_u16() }
        });
        assert_eq!(replies.await, vec![200; waiters]);
        assert_eq!(client.get("/visit").await.text(), (waiters + 1).to_string());
    }
}

#[tokio::test]
async fn a_nested_guard_ends_in_an_error_that_names_both_places() {
    async fn nested(session: Session<Visitor>) -> String {
        let outer = line!() + 1;
        let _outer = session.write().await;
        let inner = line!() + 1;
        let result = session.write_timeout(Duration::from_millis(50)).await;
        let message = result.map(drop).unwrap_err().to_string();
        for line in [outer, inner] {
            assert!(message.contains(&format!("concurrency.rs:{line}:")), "{message}");
        }
        assert_eq!(session.try_read().map(drop).unwrap_err().kind(), ErrorKind::Locked);
        message
    }
    let app = App::start(Router::new().route("/nested", get(nested))).await;
    let message = app.client().get("/nested").await;
    assert!(message.text().contains("held by a write guard taken at"), "{message:?}");
}

/// Makes a panic of a handler a response that no test expects.
fn without_panics(routes: Router) -> Router {
    routes.layer(tower_http::catch_panic::CatchPanicLayer::new())
}

#[tokio::test]
async fn a_handler_that_waits_for_itself_is_told_long_before_the_lock_timeout() {
    async fn nested(session: Session<Visitor>) {
        session.write().await.set_theme("released before");
        let _outer = session.read().await;
        session.write().await.set_name("never");
    }
    async fn branches(session: Session<Visitor>) {
        let nested = async || {
            let _outer = session.write().await;
            drop(session.read().await);
        };
        tokio::join!(nested(), nested());
    }
    async fn update(session: Session<Visitor>) -> String {
        let _outer = session.read().await;
        session.update(|s| *s.visits_mut() += 1).await.unwrap_err().to_string()
    }
    async fn theme(session: Session<Visitor>) -> String {
        session.read().await.theme().to_string()
    }
    let routes = Router::new()
        .route("/nested", get(nested))
        .route("/branches", get(branches))
        .route("/update", get(update))
        .route("/theme", get(theme));
    let app = App::start(without_panics(routes)).await;
    let client = app.visitor().await;
    let replies = async {
        for path in ["/nested", "/branches"] {
            let reply = client.get(path).await;
            // Trying again would not help.
            assert_eq!(reply.status, 500);
            assert_eq!(reply.headers["cache-control"], "no-store");
        }
        let told = client.get("/update").await;
        let told = told.text();
        assert!(told.contains("waits for itself: held by a read guard taken at"), "{told}");
        assert_eq!(told.matches("concurrency.rs:").count(), 2, "{told}");
    };
    // The lock timeout is 30 seconds.
    tokio::time::timeout(Duration::from_secs(15), replies).await.expect("it is told early");
    assert_eq!(client.get("/name").await.text(), "Zoe");
    assert_eq!(client.get("/theme").await.text(), "released before");
    assert_eq!(app.layer.sessions_in_use(), 0);
}

/// Each response waits to be told of its own request's waits; that is no reason for the one around it to
/// think that the handler can go on.
#[tokio::test]
async fn so_it_is_whichever_layer_is_inside_of_another_one() {
    #[derive(Session)]
    struct Other {
        number: u32,
    }
    async fn nested<T: SessionData>(session: Session<T>) {
        let _outer = session.write().await;
        drop(session.write().await);
    }
    let layers = || {
        let visitors = SessionLayer::<Visitor>::new(MemoryStore::new(), Keys::generate());
        let others = SessionLayer::<Other>::new(MemoryStore::new(), Keys::generate());
        (visitors, others)
    };
    let routes = || {
        let visitor = get(nested::<Visitor>);
        Router::new().route("/visitor", visitor).route("/other", get(nested::<Other>))
    };
    let ((one, other), (another, last)) = (layers(), layers());
    for app in [routes().layer(one).layer(other), routes().layer(last).layer(another)] {
        let server = Server::start(app).await;
        for path in ["/visitor", "/other"] {
            // The lock timeout is 30 seconds.
            let reply = timeout(Duration::from_secs(15), server.client().get(path)).await;
            assert_eq!(reply.expect("it is told early").status, 500, "{path}");
        }
    }
}

/// What the guard has written is not released yet: the save would store nothing of that, and say that
/// all is well.
#[tokio::test]
async fn a_save_under_the_requests_own_write_guard_is_an_error_at_once() {
    async fn saves(session: Session<Visitor>) -> String {
        session.write().await.set_theme("released before");
        let mut s = session.write().await;
        s.set_name("Ada");
        let error = session.save().await.unwrap_err();
        drop(s);
        session.save().await.expect("nothing is in the way");
        format!("{:?}: {error}", error.kind())
    }
    async fn locks(session: Session<Visitor>) -> String {
        let mut s = session.lock().await.unwrap();
        s.set_name("Grace");
        format!("{:?}", session.save().await.unwrap_err().kind())
    }
    async fn reads(session: Session<Visitor>) {
        session.write().await.set_theme("read");
        let _s = session.read().await;
        session.save().await.expect("a read guard holds nothing back");
    }
    async fn ends(session: Session<Visitor>) {
        let _old = session.write().await;
        session.destroy().await.unwrap();
        session.write().await.set_name("begins anew");
        session.save().await.expect("the guard is one of the session that has ended");
    }
    async fn discards(session: Session<Visitor>) {
        session.write().await.set_theme("discarded");
        let mut s = session.write().await;
        s.set_name("Edith");
        session.discard_request_changes();
    }
    async fn both(session: Session<Visitor>) -> String {
        let s = session.read().await;
        format!("{} {}", s.name().unwrap(), s.theme())
    }
    let routes = Router::new()
        .route("/saves", get(saves))
        .route("/locks", get(locks))
        .route("/reads", get(reads))
        .route("/discards", get(discards))
        .route("/ends", get(ends))
        .route("/both", get(both));
    let app = App::start(routes).await;
    let client = app.visitor().await;
    let replies = async {
        let told = client.get("/saves").await;
        let told = told.text();
        assert!(told.starts_with("GuardHeld: the save at "), "{told}");
        assert!(told.contains("held by a write guard taken at"), "{told}");
        assert_eq!(told.matches("concurrency.rs:").count(), 2, "{told}");
        assert_eq!(client.get("/both").await.text(), "Ada released before");
        assert_eq!(client.get("/locks").await.text(), "GuardHeld");
        assert_eq!(client.get("/both").await.text(), "Grace released before");
        client.get("/reads").await.text();
        assert_eq!(client.get("/both").await.text(), "Grace read");
        client.get("/discards").await.text();
        assert_eq!(client.get("/both").await.text(), "Edith read");
        client.get("/ends").await.text();
        assert_eq!(client.get("/both").await.text(), "begins anew light");
    };
    // The lock timeout is 30 seconds.
    tokio::time::timeout(Duration::from_secs(15), replies).await.expect("it is told at once");

    // Another request's guard is no error: what this one has released is saved.
    let [released, held, saved] = [(); 3].map(|()| Arc::new(Notify::new()));
    let (is_released, is_held, is_saved) = (released.clone(), held.clone(), saved.clone());
    let holds = async move |session: Session<Visitor>| {
        is_released.notified().await;
        let _s = session.write().await;
        is_held.notify_one();
        is_saved.notified().await;
    };
    let saves = async move |session: Session<Visitor>| {
        session.write().await.set_theme("beside a guard");
        released.notify_one();
        held.notified().await;
        let outcome = session.save().await.map_err(|error| error.kind());
        saved.notify_one();
        format!("{outcome:?}")
    };
    let routes = Router::new().route("/holds", get(holds)).route("/saves", get(saves));
    let app = App::start(routes).await;
    let client = app.visitor().await;
    let (told, held) = tokio::join!(client.get("/saves"), client.get("/holds"));
    assert_eq!((told.text(), held.status.as_u16()), ("Ok(())", 200));
}

/// To wait for another branch of the same handler, or for another task of it, is no waiting for
/// itself.
#[tokio::test]
async fn a_request_may_wait_for_a_guard_of_its_own_that_something_else_in_it_drops() {
    const A_WHILE: Duration = Duration::from_millis(1_200);
    async fn branches(session: Session<Visitor>) {
        let slow = async {
            let mut s = session.write().await;
            sleep(A_WHILE).await;
            s.set_theme("slow");
        };
        let quick = async {
            let mut s = session.write().await;
            let name = format!("after {}", s.theme());
            s.set_name(name);
        };
        tokio::join!(slow, quick);
    }
    async fn tasks(session: Session<Visitor>) {
        let mut s = session.write().await;
        let own = session.clone();
        let quick = tokio::spawn(async move {
            let mut s = own.write().await;
            let name = format!("{} and a task", s.name().unwrap());
            s.set_name(name);
        });
        sleep(A_WHILE).await;
        s.set_name("first");
        drop(s);
        quick.await.unwrap();
    }
    let routes = Router::new().route("/branches", get(branches)).route("/tasks", get(tasks));
    let app = App::start(without_panics(routes)).await;
    let client = app.visitor().await;
    assert_eq!(client.get("/branches").await.status, 200);
    assert_eq!(client.get("/name").await.text(), "after slow");
    assert_eq!(client.get("/tasks").await.status, 200);
    assert_eq!(client.get("/name").await.text(), "first and a task");
}

/// A client can have as many of its requests at once as it likes.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_makes_no_guard_panic() {
    async fn slow(session: Session<Visitor>) {
        let mut s = session.write().await;
        sleep(Duration::from_millis(20)).await;
        *s.visits_mut() += 1;
    }
    let limit = Duration::from_millis(300);
    let routes = without_panics(Router::new().route("/slow", get(slow)));
    let app = App::with(routes, |builder| builder.with_lock_timeout(limit)).await;
    let client = app.visitor().await;
    let statuses = at_once(60, |_| {
        let client = client.clone();
        async move { client.get("/slow").await.status.as_u16() }
    })
    .await;
    let good = statuses.iter().filter(|&&status| status == 200).count();
    assert!(statuses.iter().all(|status| [200, 503].contains(status)), "{statuses:?}");
    assert!((1..60).contains(&good), "{good}: some wait too long, and others do not");
    assert_eq!(client.get("/visit").await.text(), (good + 1).to_string());
    assert_eq!(app.layer.sessions_in_use(), 0);
}

#[tokio::test]
async fn of_a_request_that_is_given_up_everything_that_was_released_is_saved() {
    async fn nested(session: Session<Visitor>) {
        session.write().await.set_name("Ada");
        let mut s = session.write().await;
        s.set_theme("under a guard");
        drop(session.write().await);
    }
    let limit = Duration::from_millis(50);
    let routes = without_panics(Router::new().route("/nested", get(nested)));
    let app = App::with(routes, |builder| builder.with_lock_timeout(limit)).await;
    // It has no session yet: the response that stands in for the handler's brings the cookie.
    let client = app.client();
    let reply = client.get("/nested").await;
    assert_eq!((reply.status.as_u16(), reply.set_cookies().len()), (503, 1));
    assert_eq!(client.get("/name").await.text(), "Ada");
}

/// Such a task has no response that could be given up: it waits on, and gets its turn.
#[tokio::test]
async fn a_task_waits_on_when_its_request_has_been_given_up() {
    #[derive(Clone, Default)]
    struct Both(Steps, Steps);
    async fn holds(State(Both(steps, _)): State<Both>, session: Session<Visitor>) {
        let _guard = session.write().await;
        steps.stop().await;
    }
    async fn spawns(State(Both(_, steps)): State<Both>, session: Session<Visitor>) {
        let task = tokio::spawn(async move {
            session.write().await.set_name("from the task");
            steps.arrived.notify_one();
        });
        task.await.unwrap();
    }
    let both = Both::default();
    let routes = Router::new().route("/holds", get(holds)).route("/spawns", get(spawns));
    let limit = Duration::from_millis(50);
    let routes = without_panics(routes.with_state(both.clone()));
    let app = App::with(routes, |builder| builder.with_lock_timeout(limit)).await;
    let client = app.visitor().await;
    let holding = tokio::spawn({
        let client = client.clone();
        async move { client.get("/holds").await.status }
    });
    both.0.arrived.notified().await;
    assert_eq!(client.get("/spawns").await.status, 503, "its task waits, and it for its task");
    both.0.go_on.notify_one();
    assert_eq!(holding.await.unwrap(), 200);
    both.1.arrived.notified().await;
    eventually("the task's session is free", async || app.layer.sessions_in_use() == 0).await;
    app.layer.wait_for_background_saves().await;
    assert_eq!(client.get("/name").await.text(), "from the task");
}

#[tokio::test]
async fn one_waiter_too_many_is_503_at_once() {
    let steps = Steps::default();
    async fn holds(State(steps): State<Steps>, session: Session<Visitor>) {
        let _guard = session.write().await;
        steps.stop().await;
    }
    async fn waits(State(steps): State<Steps>, session: Session<Visitor>) {
        steps.arrived.notify_one();
        *session.write().await.visits_mut() += 1;
    }
    let routes = Router::new().route("/holds", get(holds)).route("/waits", get(waits));
    let routes = without_panics(routes.with_state(steps.clone()));
    let app = App::with(routes, |builder| builder.with_waiter_limit(3)).await;
    let client = app.visitor().await;
    let mut waiting = Vec::new();
    for path in ["/holds", "/waits", "/waits", "/waits"] {
        let client = client.clone();
        waiting.push(tokio::spawn(async move { client.get(path).await.status.as_u16() }));
        steps.arrived.notified().await;
        tokio::task::yield_now().await;
    }
    // The lock timeout is 30 seconds.
    let reply = tokio::time::timeout(Duration::from_secs(15), client.get("/waits")).await;
    assert_eq!(reply.expect("at once").status, 503);
    // Of another session any number may wait.
    assert_eq!(app.visitor().await.get("/visit").await.text(), "1");
    steps.go_on.notify_one();
    for reply in waiting {
        assert_eq!(reply.await.unwrap(), 200);
    }
    assert_eq!(client.get("/visit").await.text(), "4");
}

#[tokio::test]
async fn a_guard_can_go_to_another_task_and_holds_up_nobodys_response() {
    async fn leaks(State(steps): State<Steps>, session: Session<Visitor>) {
        let mut guard: WriteGuard<Visitor> = session.write().await;
        tokio::spawn(async move {
            guard.set_name("from a task");
            steps.go_on.notified().await;
        });
    }
    let steps = Steps::default();
    let routes = Router::new().route("/leaks", get(leaks)).with_state(steps.clone());
    let app = App::start(routes).await;
    let client = app.visitor().await;
    client.get("/leaks").await.text();
    steps.go_on.notify_one();
    assert_eq!(client.get("/name").await.text(), "from a task", "the next guard waits for it");
    eventually("the guard's session is free", async || app.layer.sessions_in_use() == 0).await;
    app.layer.wait_for_background_saves().await;
    assert_eq!(client.get("/name").await.text(), "from a task", "it was saved");
}

/// The request that begins the session leaves a task behind, which the next request has to share it with.
#[tokio::test]
async fn a_session_is_shared_with_a_task_of_the_request_that_has_begun_it() {
    async fn begins(State(steps): State<Steps>, session: Session<Visitor>) {
        session.write().await.set_name("begun");
        tokio::spawn(async move {
            let mut guard = session.write().await;
            guard.set_name("from a task");
            steps.stop().await;
        });
    }
    async fn tries(session: Session<Visitor>) -> String {
        let tried = session.try_write().map(drop);
        tried.map_or_else(|error| format!("{:?}", error.kind()), |()| "free".to_string())
    }
    let steps = Steps::default();
    async fn name(session: Session<Visitor>) -> String {
        session.read().await.name().unwrap_or_default().to_string()
    }
    // Not behind a spy: a store that answers at once.
    let layer = SessionLayer::<Visitor>::new(MemoryStore::new(), Keys::generate());
    let routes = Router::new()
        .route("/begins", get(begins))
        .route("/tries", get(tries))
        .route("/name", get(name))
        .layer(layer.clone())
        .with_state(steps.clone());
    let server = Server::start(routes).await;
    let client = server.client();
    client.get("/begins").await.text();
    steps.arrived.notified().await;
    assert_eq!(client.get("/tries").await.text(), "Locked");
    steps.go_on.notify_one();
    assert_eq!(client.get("/name").await.text(), "from a task", "the next guard waits for it");
    eventually("the task has gone", async || layer.sessions_in_use() == 0).await;
}

#[tokio::test]
async fn two_sessions_never_wait_for_each_other() {
    let steps = Steps::default();
    async fn holds(State(steps): State<Steps>, session: Session<Visitor>) {
        let _guard = session.write().await;
        steps.stop().await;
    }
    let routes = Router::new().route("/holds", get(holds)).with_state(steps.clone());
    let app = App::start(routes).await;
    let (one, other) = (app.visitor().await, app.visitor().await);
    let held = one.spawn_get("/holds");
    steps.arrived.notified().await;
    assert_eq!(other.get("/visit").await.text(), "1");
    steps.go_on.notify_one();
    held.await.unwrap().text();
}

#[tokio::test]
async fn a_panic_under_a_guard_undoes_that_guards_writes_and_no_others() {
    async fn panics(session: Session<Visitor>) {
        session.write().await.set_theme("released before");
        let mut s = session.write().await;
        s.set_name("half");
        panic!("in the middle");
    }
    async fn theme(session: Session<Visitor>) -> String {
        session.read().await.theme().to_string()
    }
    let routes = Router::new()
        .route("/panics", get(panics))
        .layer(tower_http::catch_panic::CatchPanicLayer::new())
        .route("/theme", get(theme));
    let app = App::start(routes).await;
    let client = app.visitor().await;
    assert_eq!(client.get("/panics").await.status, 500);
    assert_eq!(client.get("/name").await.text(), "Zoe");
    assert_eq!(client.get("/theme").await.text(), "released before");
}

#[tokio::test]
async fn readers_share_and_a_reader_sees_the_last_release() {
    async fn reads(session: Session<Visitor>) -> String {
        let one = session.read().await;
        let two = session.try_read().unwrap();
        assert_eq!(session.try_write().map(drop).unwrap_err().kind(), ErrorKind::Locked);
        assert_eq!(one.name(), two.name());
        drop((one, two));
        {
            let mut s = session.write().await;
            s.set_name("new");
            s.set_visits(7);
        }
        let s = session.read().await;
        format!("{} {}", s.name().unwrap(), s.visits)
    }
    let app = App::start(Router::new().route("/reads", get(reads))).await;
    let client = app.visitor().await;
    assert_eq!(client.get("/reads").await.text(), "new 7");
}

#[tokio::test]
async fn a_process_never_answers_from_a_stale_copy() {
    let steps = Steps::default();
    async fn holds_on(State(steps): State<Steps>, session: Session<Visitor>) -> String {
        let before = session.read().await.name().map(str::to_string);
        steps.stop().await;
        let after = session.read().await.name().map(str::to_string);
        format!("{before:?} {after:?}")
    }
    let routes = Router::new().route("/holds", get(holds_on)).with_state(steps.clone());
    let app = App::start(routes).await;
    let twin = app.twin().await;
    let here = app.visitor().await;
    let there = twin.client();
    there.set_cookie(COOKIE, here.cookie(COOKIE).as_deref());
    assert_eq!(there.get("/name").await.text(), "Zoe");

    // Somebody uses the session here while it changes there; the next request here looks again, and
    // shows it to the one that was there before too.
    let holding = here.spawn_get("/holds");
    steps.arrived.notified().await;
    there.get("/name/Ada").await.text();
    assert_eq!(here.get("/name").await.text(), "Ada");
    steps.go_on.notify_one();
    assert_eq!(holding.await.unwrap().text(), r#"Some("Zoe") Some("Ada")"#);

    there.get("/destroy").await.text();
    assert_eq!(here.get("/name").await.text(), "nobody");
}

#[tokio::test]
async fn two_processes_that_set_different_fields_keep_both() {
    let steps = Steps::default();
    async fn sets_theme(State(steps): State<Steps>, session: Session<Visitor>) {
        session.write().await.set_theme("dark");
        steps.stop().await;
    }
    async fn theme(session: Session<Visitor>) -> String {
        session.read().await.theme().to_string()
    }
    let routes = Router::new()
        .route("/sets-theme", get(sets_theme))
        .with_state(steps.clone())
        .route("/theme", get(theme));
    let app = App::start(routes).await;
    let twin = app.twin().await;
    let here = app.visitor().await;
    let there = twin.client();
    there.set_cookie(COOKIE, here.cookie(COOKIE).as_deref());
    let slow = here.spawn_get("/sets-theme");
    steps.arrived.notified().await;
    there.get("/name/Ada").await.text();
    steps.go_on.notify_one();
    slow.await.unwrap().text();
    assert_eq!(here.get("/theme").await.text(), "dark");
    assert_eq!(there.get("/name").await.text(), "Ada");
}

#[tokio::test]
async fn a_write_in_a_thread_without_a_runtime_is_saved() {
    async fn leaves(session: Session<Visitor>) {
        // After the response, when this request has not written anything yet.
        std::thread::spawn(move || {
            session.try_write().unwrap().set_name("from a thread");
        });
    }
    let app = App::start(Router::new().route("/leaves", get(leaves))).await;
    let client = app.visitor().await;
    client.get("/leaves").await.text();
    eventually("the thread's session is free", async || app.layer.sessions_in_use() == 0).await;
    app.layer.wait_for_background_saves().await;
    assert_eq!(client.get("/name").await.text(), "from a thread");
}

/// hyper hears of a hang-up when it has read all that has come. Whose upload nobody reads keeps the session's lock until
/// the handler ends, and no longer; what the handler wrote is saved.
#[tokio::test]
async fn a_hang_up_behind_an_upload_that_nobody_reads_leaves_the_lock_at_the_handlers_end() {
    async fn uploads(State(steps): State<Steps>, session: Session<Visitor>, _unread: Body) {
        let mut s = session.write().await;
        s.set_name("from the upload");
        steps.stop().await;
    }
    let steps = Steps::default();
    let routes = Router::new().route("/uploads", post(uploads)).with_state(steps.clone());
    let app = App::start(routes).await;
    let client = app.visitor().await;
    let uploading = tokio::spawn({
        let client = client.clone();
        let upload = Full::new(Bytes::from(vec![0; 1 << 20]));
        async move { client.call(Request::post("/uploads").body(upload).unwrap()).await.status }
    });
    steps.arrived.notified().await;
    uploading.abort();
    assert!(uploading.await.unwrap_err().is_cancelled());
    let waiting = client.spawn_get("/visit");
    sleep(Duration::from_millis(100)).await;
    assert!(!waiting.is_finished(), "the handler has the lock");
    steps.go_on.notify_one();
    assert_eq!(waiting.await.unwrap().text(), "1");
    app.layer.wait_for_background_saves().await;
    assert_eq!(client.get("/name").await.text(), "from the upload");
}

/// Without a lock timeout a request waits for as long as it takes; for itself it waits no longer than
/// with one.
#[tokio::test]
async fn without_a_lock_timeout_a_request_waits_on() {
    async fn slow(session: Session<Visitor>) {
        let mut s = session.write().await;
        sleep(Duration::from_millis(100)).await;
        *s.visits_mut() += 1;
    }
    async fn itself(session: Session<Visitor>) {
        let _s = session.write().await;
        drop(session.write().await);
    }
    let routes = Router::new().route("/slow", get(slow)).route("/itself", get(itself));
    let app = App::with(routes, |builder| builder.with_lock_timeout(None)).await;
    let client = app.visitor().await;
    let statuses = at_once(5, |_| {
        let client = client.clone();
        async move { client.get("/slow").await.status.as_u16() }
    });
    assert_eq!(statuses.await, [200; 5]);
    assert_eq!(client.get("/visit").await.text(), "6");
    assert_eq!(client.get("/itself").await.status, 500);
}
