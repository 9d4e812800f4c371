//! A store that fails, hangs or answers too late; and the wrong turns that others have taken.

use std::{
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    extract::{Request, State},
    middleware::{Next, from_fn},
    response::Response,
    routing::get,
};
use http::StatusCode;
use sessions::{ErrorKind, Lifetime, Replaced, Session, Store, StoreError, testing::Operation};
use sessions_tests::Steps;

use crate::{App, COOKIE, Visitor};

type BoxFuture<'f, O> = Pin<Box<dyn Future<Output = O> + Send + 'f>>;

#[tokio::test]
async fn a_store_that_hangs_is_given_up_and_the_next_request_works() {
    let app =
        App::with(Router::new(), |builder| builder.with_store_timeout(Duration::from_millis(30)))
            .await;
    let client = app.visitor().await;
    for operation in [Operation::Load, Operation::Replace] {
        let gate = app.store.hold(operation);
        let reply = client.get("/name/Ada").await;
        assert_eq!(reply.status, 503, "{operation:?}");
        assert_eq!(reply.set_cookies(), Vec::<String>::new());
        gate.release();
        assert_eq!(client.get("/name").await.text(), "Zoe", "{operation:?}: it was not saved");
    }
    let gate = app.store.hold(Operation::Create);
    let stranger = app.client();
    assert_eq!(stranger.get("/name/Ada").await.status, 503);
    assert_eq!(stranger.cookie(COOKIE), None);
    gate.release();
    let gate = app.store.hold(Operation::Delete);
    assert_eq!(client.get("/destroy").await.status, 503);
    gate.release();
    assert_eq!(client.get("/name").await.text(), "Zoe", "nobody was told that it ended");
    client.get("/name/Eve").await.text();
    assert_eq!(client.get("/name").await.text(), "Eve");
    assert_eq!(app.layer.sessions_in_use(), 0);
}

#[tokio::test]
async fn what_a_dropped_request_wrote_is_saved_when_the_store_is_back() {
    let app = App::start(Router::new()).await;
    let client = app.visitor().await;
    let gate = app.store.hold(Operation::Replace);
    let hanging = client.spawn_get("/name/Ada");
    gate.wait_for_caller().await;
    hanging.abort();
    // The server has noticed, and tries by itself.
    sessions_tests::eventually("it is saved in the background", async || {
        app.store.calls().replace == 2
    })
    .await;
    app.store.fail_next(Operation::Replace, 3);
    gate.release();
    sessions_tests::eventually("it is saved", async || client.get("/name").await.text() == "Ada")
        .await;
    app.layer.wait_for_background_saves().await;
    assert_eq!(app.layer.sessions_in_use(), 0);
}

#[tokio::test]
async fn one_failed_load_does_not_empty_the_session() {
    let app = App::start(Router::new()).await;
    let client = app.visitor().await;
    app.store.fail_next(Operation::Load, 1);
    assert_eq!(client.get("/visit").await.status, 503);
    assert_eq!(client.get("/name").await.text(), "Zoe");
}

/// Requests `slow` and, in its middle, `meanwhile` from the same browser.
async fn around(
    app: &App,
    steps: &Steps,
    slow: &'static str,
    meanwhile: &str,
) -> (u16, Vec<String>) {
    let client = app.visitor().await;
    let request = client.copy().spawn_get(slow);
    steps.arrived.notified().await;
    client.get(meanwhile).await.text();
    steps.go_on.notify_one();
    let reply = request.await.unwrap();
    (reply.status.as_u16(), reply.set_cookies())
}

#[tokio::test]
async fn a_request_from_before_a_login_or_logout_neither_fails_nor_touches_the_cookie() {
    async fn writes(State(steps): State<Steps>, session: Session<Visitor>) -> &'static str {
        session.read().await.visits();
        steps.stop().await;
        session.write().await.set_visits(5);
        "fine"
    }
    async fn late(State(steps): State<Steps>, request: Request) -> &'static str {
        steps.stop().await;
        let session = Session::<Visitor>::open(request.extensions()).await.unwrap();
        session.read().await.visits();
        "fine"
    }
    let steps = Steps::default();
    let routes = Router::new()
        .route("/writes", get(writes))
        .route("/looks", get(late))
        .with_state(steps.clone());
    let app = App::start(routes).await;
    for slow in ["/writes", "/looks"] {
        for meanwhile in ["/renew", "/destroy"] {
            let outcome = around(&app, &steps, slow, meanwhile).await;
            assert_eq!(outcome, (200, Vec::new()), "{slow} around {meanwhile}");
        }
    }
}

#[tokio::test]
async fn a_renewal_before_an_error_does_not_log_the_user_out() {
    async fn fails(session: Session<Visitor>) -> StatusCode {
        session.renew_id().await.unwrap();
        StatusCode::INTERNAL_SERVER_ERROR
    }
    let app = App::start(Router::new().route("/fails", get(fails))).await;
    let client = app.visitor().await;
    let reply = client.get("/fails").await;
    assert_eq!((reply.status.as_u16(), reply.set_cookies().len()), (500, 1));
    assert_eq!(client.get("/name").await.text(), "Zoe");
}

#[tokio::test]
async fn a_guard_held_over_the_rest_of_the_stack_is_an_error_that_names_both_places() {
    async fn holds(session: Session<Visitor>, request: Request, next: Next) -> Response {
        let _guard = session.write().await;
        next.run(request).await
    }
    async fn handler(session: Session<Visitor>) -> String {
        let waited = session.write_timeout(Duration::from_millis(50)).await;
        waited.map(drop).unwrap_err().to_string()
    }
    let routes = Router::new().route("/", get(handler)).layer(from_fn(holds));
    let app = App::start(routes).await;
    let reply = app.client().get("/").await;
    assert_eq!(reply.text().matches("failing_stores.rs:").count(), 2, "{reply:?}");
}

/// Whoever can write to the store can put any number there.
#[tokio::test]
async fn a_record_whose_version_is_the_last_is_read_and_a_save_of_it_is_an_error() {
    async fn update(session: Session<Visitor>) -> sessions::Result<()> {
        session.update(|s| *s.visits_mut() += 1).await
    }
    let key = Arc::new(Mutex::new(None));
    let tells = {
        let key = key.clone();
        move |session: Session<Visitor>| async move { *key.lock().unwrap() = session.store_key() }
    };
    let routes = Router::new().route("/update", get(update)).route("/key", get(tells));
    let routes = routes.layer(tower_http::catch_panic::CatchPanicLayer::new());
    let app = App::start(routes).await;
    let client = app.visitor().await;
    client.get("/key").await.text();
    let key = key.lock().unwrap().take().expect("it is stored");
    let record = app.store.store().load(&key).await.unwrap().unwrap();
    for version in [u64::MAX, u64::MAX >> 1] {
        let found = app.store.store().load(&key).await.unwrap().unwrap().version;
        let last = record.clone().with_version(version);
        let replaced = app.store.store().replace(&key, &last, found).await.unwrap();
        assert_eq!(replaced, Replaced::Done);
        assert_eq!(client.get("/name").await.text(), "Zoe");
        for path in ["/name/Ada", "/visit", "/update", "/renew"] {
            assert_eq!(client.get(path).await.status, 503, "{path}");
        }
        assert_eq!(client.get("/name").await.text(), "Zoe");
    }
    // It can be ended.
    client.get("/destroy").await.text();
    assert_eq!(client.get("/name").await.text(), "nobody");
}

#[tokio::test]
async fn a_lifetime_of_its_own_survives_the_writes_after_it() {
    const DAY: Duration = Duration::from_secs(24 * 3600);
    async fn remember(session: Session<Visitor>) {
        session.set_lifetime(
            Lifetime::new().with_idle_timeout(30 * DAY).with_absolute_timeout(90 * DAY),
        );
    }
    let app = App::start(Router::new().route("/remember", get(remember))).await;
    let client = app.visitor().await;
    client.get("/remember").await.text();
    for _ in 0..3 {
        client.get("/visit").await.text();
        app.clock.advance(20 * DAY);
    }
    assert_eq!(client.get("/name").await.text(), "Zoe");
}

/// An `update` has left its mark in the record, which every later record inherits: that must not be
/// taken for the mark of the save that fails.
#[tokio::test]
async fn a_save_that_failed_after_an_update_is_not_taken_for_done() {
    async fn updates(session: Session<Visitor>) -> sessions::Result<()> {
        session.update(|s| *s.visits_mut() += 1).await
    }
    let app = App::start(Router::new().route("/updates", get(updates))).await;
    let client = app.visitor().await;
    client.get("/updates").await.text();
    app.store.fail_next(Operation::Replace, 1);
    assert_eq!(client.get("/name/Ada").await.status, 503);
    assert_eq!(client.get("/name").await.text(), "Zoe");
    app.store.fail_next(Operation::Replace, 1);
    assert_eq!(client.get("/updates").await.status, 503);
    assert_eq!(client.get("/visit").await.text(), "2");
}

#[tokio::test]
async fn a_discard_leaves_another_requests_lifetime_alone() {
    const DAY: Duration = Duration::from_secs(24 * 3600);
    async fn remember(State(steps): State<Steps>, session: Session<Visitor>) {
        session.set_lifetime(
            Lifetime::new().with_idle_timeout(30 * DAY).with_absolute_timeout(90 * DAY),
        );
        steps.stop().await;
    }
    async fn discards(session: Session<Visitor>) {
        session.write().await.set_name("never");
        session.discard_request_changes();
    }
    /// The lifetime that it asks for lies on top of the other request's.
    async fn discards_another(session: Session<Visitor>) {
        session.set_lifetime(Lifetime::new().with_idle_timeout(DAY / 24));
        session.discard_request_changes();
    }
    let steps = Steps::default();
    let routes = Router::new()
        .route("/remember", get(remember))
        .route("/discards", get(discards))
        .route("/another", get(discards_another))
        .with_state(steps.clone());
    let app = App::start(routes).await;
    for path in ["/discards", "/another"] {
        let client = app.visitor().await;
        let remembering = client.spawn_get("/remember");
        steps.arrived.notified().await;
        client.get(path).await.text();
        steps.go_on.notify_one();
        remembering.await.unwrap().text();
        app.clock.advance(20 * DAY);
        assert_eq!(client.get("/name").await.text(), "Zoe", "{path}");
    }
}

/// The client is told 503, and the task by its next save: what it wrote is given up together with the rest.
#[tokio::test]
async fn a_task_that_goes_on_is_told_that_its_response_took_its_writes_along() {
    type Left = Arc<Mutex<Option<Session<Visitor>>>>;
    async fn leaves(State(left): State<Left>, session: Session<Visitor>) {
        session.write().await.set_name("never");
        *left.lock().unwrap() = Some(session);
    }
    let left = Left::default();
    let routes = Router::new().route("/leaves", get(leaves)).with_state(left.clone());
    let app = App::start(routes).await;
    let client = app.visitor().await;
    type Tell = for<'s> fn(&'s Session<Visitor>) -> BoxFuture<'s, sessions::Result<()>>;
    let tells: [Tell; 3] = [
        |session| Box::pin(session.save()),
        |session| Box::pin(session.update(|s| s.set_visits(1))),
        |session| Box::pin(async { session.lock().await.map(drop) }),
    ];
    for tell in tells {
        app.store.fail_next(Operation::Replace, 1);
        assert_eq!(client.get("/leaves").await.status, 503);
        let task = left.lock().unwrap().take().expect("a session");
        let error = tell(&task).await.unwrap_err();
        assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Store, false), "{error}");
        assert!(error.to_string().contains("is not saved"), "{error}");
        // Once: what it writes from there on is saved.
        task.write().await.set_name("later");
        task.save().await.unwrap();
        assert_eq!(client.get("/name").await.text(), "later");
    }
}

#[tokio::test]
async fn what_does_not_fit_in_is_no_other_requests_error_and_its_writer_is_told() {
    async fn grows(State(steps): State<Steps>, session: Session<Visitor>) {
        session.write().await.set_name("x".repeat(500));
        steps.stop().await;
    }
    for meanwhile in ["/renew", "/lock"] {
        async fn locks(session: Session<Visitor>) -> sessions::Result<()> {
            drop(session.lock().await?);
            session.save().await
        }
        let steps = Steps::default();
        let routes = Router::new()
            .route("/grows", get(grows))
            .route("/lock", get(locks))
            .with_state(steps.clone());
        let app = App::with(routes, |builder| builder.with_payload_limit(300)).await;
        let (status, _) = around(&app, &steps, "/grows", meanwhile).await;
        assert_eq!(status, 500, "{meanwhile}");
        app.layer.wait_for_background_saves().await;
        assert_eq!(app.layer.sessions_in_use(), 0);
    }
}

/// A program finds in an error which store failed in what, and whether it may try again.
#[tokio::test]
async fn an_error_leads_to_the_store_and_its_operation() {
    use std::error::Error as _;

    async fn save(session: Session<Visitor>) -> String {
        session.write().await.set_name("Ada");
        let error = session.save().await.unwrap_err();
        let source = error.source().and_then(|source| source.downcast_ref::<StoreError>());
        let source = source.expect("the source is the store's error");
        let cause = source.source().expect("and its source the driver's");
        format!("{} {} {} {cause}", error.is_retryable(), source.store(), source.operation())
    }
    let app = App::start(Router::new().route("/save", get(save))).await;
    let client = app.visitor().await;
    app.store.fail_next(Operation::Replace, 1);
    assert_eq!(client.get("/save").await.text(), "true spy replace told to fail");
}
