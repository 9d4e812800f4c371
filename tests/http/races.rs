//! Interleavings that have lost a write, or a client its session, in this library or another. Each
//! is played step by step, with the store held or failing in the middle.

use std::{
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering::SeqCst},
    },
    time::Duration,
};

use axum::{
    Router,
    extract::{Path, State},
    routing::get,
};
use sessions::{Keys, Lifetime, MemoryStore, Session, SessionLayer, testing::Operation};
use sessions_tests::{Server, eventually};
use tokio::sync::Notify;

use crate::{App, COOKIE, Visitor, hold_the_next};

const HOUR: Duration = Duration::from_secs(3_600);

async fn set_theme(Path(theme): Path<String>, session: Session<Visitor>) {
    session.write().await.set_theme(theme);
}

async fn theme(session: Session<Visitor>) -> String {
    session.read().await.theme().to_string()
}

fn themes() -> Router {
    Router::new().route("/theme", get(theme)).route("/theme/{theme}", get(set_theme))
}

#[tokio::test]
async fn a_value_set_back_while_a_save_is_under_way_is_not_lost() {
    for (before, after) in [("light", "light"), ("red", "red")] {
        let app = App::start(themes()).await;
        let client = app.visitor().await;
        client.get(&format!("/theme/{before}")).await.text();
        let gate = app.store.hold(Operation::Replace);
        let changing = client.spawn_get("/theme/dark");
        gate.wait_for_caller().await;
        let back = client.spawn_get(&format!("/theme/{after}"));
        eventually("the second write is released", async || {
            app.store.calls().load >= 3 && app.layer.sessions_in_use() == 1
        })
        .await;
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(!back.is_finished(), "answered before it was saved");
        gate.release();
        changing.await.unwrap().text();
        back.await.unwrap().text();
        assert_eq!(client.get("/theme").await.text(), after);
    }
}

#[tokio::test]
async fn a_value_taken_back_after_a_save_whose_answer_was_lost_is_not_lost() {
    // The save is dropped after the store has taken it, and before its answer.
    let given_up = Arc::new(Notify::new());
    let changes_its_mind = {
        let given_up = given_up.clone();
        async move |session: Session<Visitor>| {
            session.write().await.set_theme("dark");
            let dropped = tokio::time::timeout(Duration::from_millis(20), session.save()).await;
            given_up.notify_one();
            session.write().await.set_theme("light");
            let saved = session.save().await.map_err(|error| error.kind());
            format!("{} {saved:?}", dropped.is_err())
        }
    };
    let app = App::start(themes().route("/changes", get(changes_its_mind))).await;
    let client = app.visitor().await;
    let gate = app.store.hold(Operation::Replace);
    let request = client.spawn_get("/changes");
    gate.wait_for_caller().await;
    given_up.notified().await;
    gate.release();
    assert_eq!(request.await.unwrap().text(), "true Ok(())");
    assert_eq!(client.get("/theme").await.text(), "light");
}

#[tokio::test]
async fn a_write_of_what_somebody_else_has_not_saved_yet_is_answered_when_it_is_saved() {
    let app = App::start(themes()).await;
    let client = app.visitor().await;
    let gate = app.store.hold(Operation::Replace);
    let first = client.spawn_get("/theme/dark");
    gate.wait_for_caller().await;
    let second = client.spawn_get("/theme/dark");
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!(!second.is_finished(), "answered before anything was saved");
    gate.release();
    first.await.unwrap().text();
    second.await.unwrap().text();
    assert_eq!(client.get("/theme").await.text(), "dark");
}

#[tokio::test]
async fn a_failed_save_after_a_renewal_or_an_end_still_sends_the_cookie() {
    async fn login(session: Session<Visitor>) -> sessions::Result<()> {
        session.renew_id().await?;
        session.write().await.set_theme("never saved");
        Ok(())
    }
    async fn out(session: Session<Visitor>) -> sessions::Result<()> {
        session.destroy().await?;
        session.write().await.set_theme("never saved");
        Ok(())
    }
    async fn twice(session: Session<Visitor>) -> sessions::Result<()> {
        session.write().await.set_name("Zoe");
        session.save().await?;
        session.write().await.set_theme("never saved");
        Ok(())
    }
    let routes =
        themes().route("/login", get(login)).route("/out", get(out)).route("/twice", get(twice));
    let app = App::start(routes).await;

    let client = app.visitor().await;
    // The renewal itself replaces the old record, twice.
    let first = app.store.hold(Operation::Replace);
    let request = client.spawn_get("/login");
    let second = hold_the_next(&app.store, first, Operation::Replace).await;
    let save = hold_the_next(&app.store, second, Operation::Replace).await;
    app.store.fail_next(Operation::Replace, 1);
    save.release();
    assert_eq!(request.await.unwrap().status, 503);
    assert_eq!(client.get("/name").await.text(), "Zoe", "the client has the new id");

    app.store.fail_next(Operation::Create, 1);
    assert_eq!(client.get("/out").await.status, 503);
    assert_eq!(client.cookie(COOKIE), None, "the client knows of the end");

    app.store.fail_next(Operation::Replace, 1);
    assert_eq!(client.get("/twice").await.status, 503);
    assert_eq!(client.get("/name").await.text(), "Zoe", "the client has what was saved");
    assert_eq!(client.get("/theme").await.text(), "light");
}

/// Lets a test stop a task in the middle.
#[derive(Clone, Default)]
struct Steps {
    arrived: Arc<Notify>,
    go_on: Arc<Notify>,
    outcome: Arc<std::sync::Mutex<String>>,
}

#[tokio::test]
async fn after_a_hang_up_a_task_can_neither_begin_nor_renew_a_session() {
    async fn leaves_a_task(State(steps): State<Steps>, session: Session<Visitor>) {
        session.write().await.set_theme("written before");
        let (task, task_steps) = (session.clone(), steps.clone());
        tokio::spawn(async move {
            task_steps.go_on.notified().await;
            let renewed = task.renew_id().await.map_err(|error| error.kind());
            task.write().await.set_name("late");
            let saved = task.save().await.map_err(|error| error.kind());
            *task_steps.outcome.lock().unwrap() = format!("{renewed:?} {saved:?}");
        });
        steps.arrived.notify_one();
        std::future::pending::<()>().await;
    }
    for (is_new, outcome) in [(true, "Ok(()) Err(NoCookie)"), (false, "Err(NoCookie) Ok(())")] {
        let steps = Steps::default();
        let routes = Router::new().route("/task", get(leaves_a_task)).with_state(steps.clone());
        let app = App::start(routes.merge(themes())).await;
        let client = if is_new { app.client() } else { app.visitor().await };
        let hanging = client.spawn_get("/task");
        steps.arrived.notified().await;
        hanging.abort();
        if !is_new {
            // Although the task still has the session.
            eventually("what the handler wrote is saved", async || {
                client.get("/theme").await.text() == "written before"
            })
            .await;
        } else {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        steps.go_on.notify_one();
        eventually("the task is done", async || !steps.outcome.lock().unwrap().is_empty()).await;
        assert_eq!(*steps.outcome.lock().unwrap(), outcome, "new: {is_new}");
        assert_eq!(app.store.store().len(), usize::from(!is_new), "a record that nobody can find");
    }
}

#[tokio::test]
async fn a_renewal_does_not_lose_what_another_process_saves_meanwhile() {
    let app = App::start(themes()).await;
    let twin = app.twin().await;
    let client = app.visitor().await;
    let there = twin.client();
    there.set_cookie(COOKIE, client.cookie(COOKIE).as_deref());
    // The renewal has read the session and made the new record.
    let gate = app.store.hold(Operation::Replace);
    let renewing = client.spawn_get("/renew");
    gate.wait_for_caller().await;
    let saving = there.spawn_get("/name/Ada");
    gate.wait_for_callers(2).await;
    gate.release();
    let saved = saving.await.unwrap();
    renewing.await.unwrap().text();
    assert!(saved.status.is_success());
    // Whichever came first: the write is in the successor, or was refused as too late.
    let name = client.get("/name").await;
    assert!(["Ada", "Zoe"].contains(&name.text()));
    // And what the renewal leaves for a moment.
    assert_eq!(app.store.store().len(), 1 + 1);
}

#[tokio::test]
async fn one_requests_refused_value_is_no_other_requests_error() {
    async fn too_much(State(steps): State<Steps>, session: Session<Visitor>) {
        session.write().await.set_name("x".repeat(2_000));
        steps.arrived.notify_one();
        steps.go_on.notified().await;
    }
    let steps = Steps::default();
    let routes = Router::new().route("/much", get(too_much)).with_state(steps.clone());
    let app = App::with(routes.merge(themes()), |builder| builder.with_payload_limit(1_000)).await;
    let client = app.visitor().await;
    let much = client.spawn_get("/much");
    steps.arrived.notified().await;
    client.get("/theme/dark").await.text();
    steps.go_on.notify_one();
    assert_eq!(much.await.unwrap().status, 500);
    assert_eq!(client.get("/theme").await.text(), "dark");
    assert_eq!(client.get("/name").await.text(), "Zoe");
}

#[tokio::test]
async fn a_touch_that_failed_is_tried_again_while_the_session_is_in_use() {
    let steps = Steps::default();
    async fn holds(State(steps): State<Steps>, session: Session<Visitor>) {
        session.read().await.visits();
        steps.arrived.notify_one();
        steps.go_on.notified().await;
    }
    let routes = Router::new().route("/holds", get(holds)).with_state(steps.clone());
    let app = App::start(routes).await;
    let client = app.visitor().await;
    let holding = client.spawn_get("/holds");
    steps.arrived.notified().await;
    app.clock.advance(HOUR);
    app.store.fail_next(Operation::Touch, 1);
    client.get("/name").await.text();
    client.get("/name").await.text();
    app.clock.advance(HOUR + HOUR / 2);
    assert_eq!(client.get("/name").await.text(), "Zoe", "used an hour and a half ago");
    steps.go_on.notify_one();
    holding.await.unwrap().text();
}

#[tokio::test]
async fn fields_that_change_places_between_guards_are_all_noticed() {
    async fn swaps(session: Session<Visitor>) -> sessions::Result<String> {
        let mut old = session.write().await;
        session.destroy().await?;
        let mut new = session.write().await;
        std::mem::swap(&mut *old, &mut *new);
        drop((old, new));
        Ok(format!("{:?} {}", session.read().await.name(), session.has_unsaved_changes()))
    }
    let app = App::start(Router::new().route("/swaps", get(swaps))).await;
    let client = app.visitor().await;
    assert_eq!(client.get("/swaps").await.text(), r#"Some("Zoe") true"#);
    assert_eq!(client.get("/name").await.text(), "Zoe");
}

#[tokio::test]
async fn a_lifetime_is_clean_once_it_is_stored_whatever_its_digits() {
    async fn odd(session: Session<Visitor>) -> String {
        session.set_lifetime(
            Lifetime::new()
                .with_idle_timeout(Duration::from_nanos(3_600_000_000_001))
                .with_absolute_timeout(Duration::MAX),
        );
        session.save().await.unwrap();
        session.has_unsaved_changes().to_string()
    }
    async fn undone(session: Session<Visitor>) {
        let before = session.lifetime();
        session.set_lifetime(Lifetime::new().with_persistent_cookie());
        session.set_lifetime(before);
    }
    let app = App::start(Router::new().route("/odd", get(odd)).route("/undone", get(undone))).await;
    let client = app.visitor().await;
    assert_eq!(client.get("/odd").await.text(), "false");
    app.store.reset();
    assert_eq!(client.get("/odd").await.set_cookies(), Vec::<String>::new());
    assert_eq!(client.get("/undone").await.set_cookies(), Vec::<String>::new());
    assert_eq!(app.store.calls().replace, 0);
}

#[tokio::test]
async fn a_reader_with_an_old_keys_cookie_does_not_replace_the_cookie_of_a_login() {
    let steps = Steps::default();
    async fn reads(State(steps): State<Steps>, session: Session<Visitor>) {
        session.read().await.visits();
        steps.arrived.notify_one();
        steps.go_on.notified().await;
    }
    let routes = Router::new().route("/reads", get(reads)).with_state(steps.clone());
    let app = App::start(Router::new()).await;
    let client = app.visitor().await;
    let rotated = sessions::Keys::generate().with_previous(app.keys.clone());
    let settings = |builder| builder;
    let (store, clock) = (app.store.clone(), app.clock.clone());
    let twin = App::on(store, clock, rotated, routes, settings).await;
    let slow = twin.client();
    slow.set_cookie(COOKIE, client.cookie(COOKIE).as_deref());
    let reading = slow.spawn_get("/reads");
    steps.arrived.notified().await;
    client.get("/renew").await.text();
    steps.go_on.notify_one();
    assert_eq!(reading.await.unwrap().set_cookies(), Vec::<String>::new());
}

/// Holds the first merge up.
static MERGES: AtomicU32 = AtomicU32::new(0);
static MAY_GO_ON: (Mutex<bool>, Condvar) = (Mutex::new(false), Condvar::new());

fn sum(base: &u32, theirs: &u32, ours: &u32) -> u32 {
    if MERGES.fetch_add(1, SeqCst) == 0 {
        // Told to the runtime: this worker may be the one that waits for sockets and timers.
        tokio::task::block_in_place(|| {
            let may = MAY_GO_ON.0.lock().unwrap();
            drop(MAY_GO_ON.1.wait_while(may, |may| !*may).unwrap());
        });
    }
    theirs + ours - base
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_record_that_is_older_than_a_save_does_not_take_its_place() {
    #[derive(Session)]
    struct Summed {
        #[session(merge = sum)]
        sum: u32,
    }
    static WAITS: AtomicBool = AtomicBool::new(false);
    let go_on = Arc::new(Notify::new());
    let add = async |session: Session<Summed>| {
        *session.write().await.sum_mut() += 1;
    };
    let slow = {
        let go_on = go_on.clone();
        async move |session: Session<Summed>| {
            *session.write().await.sum_mut() += 10;
            WAITS.store(true, SeqCst);
            go_on.notified().await;
        }
    };
    let show = async |session: Session<Summed>| session.read().await.sum().to_string();
    let routes = Router::new().route("/", get(show)).route("/add", get(add));
    let (store, keys) = (MemoryStore::new(), Keys::generate());
    let layer = || SessionLayer::<Summed>::new(store.clone(), keys.clone());
    let here = Server::start(routes.clone().route("/slow", get(slow)).layer(layer())).await;
    let there = Server::start(routes.layer(layer())).await;
    let client = here.client();
    client.get("/add").await.text();
    let elsewhere = there.client();
    elsewhere.set_cookie(COOKIE, client.cookie(COOKIE).as_deref());

    let slow = client.spawn_get("/slow");
    eventually("it has written", async || WAITS.load(SeqCst)).await;
    elsewhere.get("/add").await.text();
    // It opens the session, learns of what was written there, and is held up in the merge.
    let late = client.spawn_get("/");
    eventually("it merges", async || MERGES.load(SeqCst) == 1).await;
    go_on.notify_one();
    slow.await.unwrap().text();
    *MAY_GO_ON.0.lock().unwrap() = true;
    MAY_GO_ON.1.notify_all();
    let late = tokio::time::timeout(Duration::from_secs(20), late).await.unwrap().unwrap();
    assert_eq!(late.text(), "12");
}

/// On a store that answers at once, where nothing can be held up: as they happen to meet.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_task_that_renews_or_ends_the_session_while_its_response_is_made_leaves_what_was_told() {
    async fn renews(session: Session<Visitor>) {
        *session.write().await.visits_mut() += 1;
        let own = session.clone();
        tokio::spawn(async move { own.renew_id().await });
        tokio::task::yield_now().await;
    }
    async fn ends(session: Session<Visitor>) {
        *session.write().await.visits_mut() += 1;
        let own = session.clone();
        tokio::spawn(async move { own.destroy().await });
        tokio::task::yield_now().await;
    }
    async fn visits(session: Session<Visitor>) -> String {
        session.read().await.visits().to_string()
    }
    let routes = Router::new()
        .route("/renews", get(renews))
        .route("/ends", get(ends))
        .route("/", get(visits));
    let store = MemoryStore::new();
    let layer = SessionLayer::<Visitor>::new(store.clone(), Keys::generate());
    let server = Server::start(routes.layer(layer.clone())).await;
    let idle = async || {
        eventually("all is done", async || layer.sessions_in_use() == 0).await;
    };
    // What each renewal leaves for a moment.
    let mut left = 0;
    for _ in 0..100 {
        let client = server.client();
        for expected in 1..4 {
            let before = client.cookie(COOKIE);
            client.get("/renews").await.text();
            idle().await;
            left += usize::from(before.is_some() && client.cookie(COOKIE) != before);
            assert_eq!(client.get("/").await.text(), expected.to_string());
            assert_eq!(store.len(), left + 1, "a record that nobody knows");
        }
        client.get("/ends").await.text();
        idle().await;
        assert_eq!(client.get("/").await.text(), "0");
        assert_eq!(store.len(), left, "a session is back");
    }
}

/// What the response tells the client of is the session that it has in the end.
#[tokio::test]
async fn a_response_waits_for_a_renewal_that_its_request_has_begun() {
    async fn renews(State(go_on): State<Arc<Notify>>, session: Session<Visitor>) {
        tokio::spawn(async move { session.renew_id().await });
        go_on.notified().await;
    }
    let go_on = Arc::new(Notify::new());
    let app =
        App::start(Router::new().route("/renews", get(renews)).with_state(go_on.clone())).await;
    let client = app.visitor().await;
    let before = client.cookie(COOKIE);
    let gate = app.store.hold(Operation::Create);
    let request = client.spawn_get("/renews");
    gate.wait_for_caller().await;
    go_on.notify_one();
    // As long as the response would take, and longer, if it waited for nothing.
    for _ in 0..20 {
        app.client().get("/ignore").await.text();
    }
    assert!(!request.is_finished(), "it has left without the new cookie");
    gate.release();
    assert_eq!(request.await.unwrap().set_cookies().len(), 1);
    assert_ne!(client.cookie(COOKIE), before);
    assert_eq!(client.get("/name").await.text(), "Zoe");
}
