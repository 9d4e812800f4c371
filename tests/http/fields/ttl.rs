//! `ttl`: gone by itself, whatever happens to the session.

use std::{ops::Deref, time::Duration};

use axum::{Extension, Router, extract::Path, routing::get};
use sessions::{Session, testing::ManualClock};

use super::Fleet;

const MINUTE: Duration = Duration::from_secs(60);

#[derive(Session)]
struct Visitor {
    #[session(ttl = "10m")]
    code: Option<u32>,
    #[session(ttl = "1h", default = "guest")]
    role: String,
    #[session(ttl = "10m", flash)]
    notice: Option<String>,
    visits: u32,
}

fn routes() -> Router {
    Router::new()
        .route("/set/{code}", get(set))
        .route("/lend", get(lend))
        .route("/role/{role}", get(set_role))
        .route("/notice/{text}", get(notice))
        .route("/take", get(take))
        .route("/show", get(show))
        .route("/write", get(write))
        .route("/update", get(update))
        .route("/visit", get(visit))
        .route("/reset", get(reset))
        .route("/renew", get(renew))
        .route("/within", get(within))
        .route("/held", get(held))
}

async fn set(Path(code): Path<u32>, session: Session<Visitor>) {
    session.write().await.set_code(code);
}

async fn lend(session: Session<Visitor>) {
    session.write().await.code_mut();
}

async fn set_role(Path(role): Path<String>, session: Session<Visitor>) {
    session.write().await.set_role(role);
}

async fn notice(Path(text): Path<String>, session: Session<Visitor>) {
    session.write().await.set_notice(text);
}

async fn take(session: Session<Visitor>) -> String {
    session.write().await.take_notice().unwrap_or_default()
}

fn shown(s: impl Deref<Target = VisitorFields>) -> String {
    format!("{:?} {} {}", s.code(), s.role(), s.visits())
}

async fn show(session: Session<Visitor>) -> String {
    shown(session.read().await)
}

async fn write(session: Session<Visitor>) -> String {
    shown(session.write().await)
}

async fn update(session: Session<Visitor>) -> sessions::Result<String> {
    session.update(|s| shown(s)).await
}

async fn visit(session: Session<Visitor>) {
    *session.write().await.visits_mut() += 1;
}

async fn reset(session: Session<Visitor>) {
    {
        let mut s = session.write().await;
        s.reset_code();
        s.clear_code();
        s.reset_role();
    }
}

async fn renew(session: Session<Visitor>) -> sessions::Result<()> {
    session.renew_id().await
}

/// One request during which time goes by.
async fn within(Extension(clock): Extension<ManualClock>, session: Session<Visitor>) -> String {
    {
        let mut s = session.write().await;
        s.set_code(1);
        s.set_role("admin");
    }
    let mut all = Vec::new();
    for _ in 0..3 {
        all.push(shown(session.read().await));
        all.push(shown(session.write().await));
        clock.advance(10 * MINUTE);
    }
    // Set again, before what else is shown has ended.
    clock.advance(29 * MINUTE);
    session.write().await.set_code(2);
    all.push(shown(session.read().await));
    clock.advance(MINUTE);
    all.push(shown(session.read().await));
    clock.advance(9 * MINUTE);
    all.push(shown(session.write().await));
    all.join(", ")
}

/// Guards that are held over the end.
async fn held(Extension(clock): Extension<ManualClock>, session: Session<Visitor>) -> String {
    session.write().await.set_code(1);
    let s = session.read().await;
    clock.advance(10 * MINUTE);
    let mut all = vec![format!("{:?}", s.code())];
    drop(s);
    all.push(format!("{:?}", session.read().await.code()));
    session.write().await.set_code(2);
    let mut s = session.write().await;
    clock.advance(10 * MINUTE);
    all.push(format!("{:?}", s.code()));
    s.set_visits(7);
    drop(s);
    all.push(format!("{:?}", session.write().await.code()));
    all.join(" ")
}

async fn fleet(processes: usize) -> Fleet<Visitor> {
    Fleet::start(processes, routes(), "/visit").await
}

#[tokio::test]
async fn a_field_ends_by_itself_and_the_session_goes_on() {
    let fleet = fleet(2).await;
    fleet.get(0, "/set/123").await;
    fleet.get(0, "/role/admin").await;
    fleet.clock.advance(10 * MINUTE - Duration::from_millis(1));
    fleet.get(0, "/visit").await;
    for path in ["/show", "/write", "/update"] {
        assert_eq!(fleet.get(0, path).await, "Some(123) admin 2");
    }
    fleet.clock.advance(Duration::from_millis(1));
    for path in ["/show", "/write", "/update"] {
        for process in [0, 1] {
            assert_eq!(fleet.get(process, path).await, "None admin 2");
        }
    }
    fleet.get(1, "/visit").await;
    fleet.clock.advance(49 * MINUTE);
    assert_eq!(fleet.get(0, "/show").await, "None admin 3");
    fleet.clock.advance(MINUTE);
    assert_eq!(fleet.get(0, "/show").await, "None guest 3");
}

#[tokio::test]
async fn to_set_it_again_begins_the_time_anew() {
    let fleet = fleet(1).await;
    fleet.get(0, "/set/123").await;
    for path in ["/set/123", "/lend", "/set/123"] {
        fleet.clock.advance(9 * MINUTE);
        fleet.get(0, path).await;
    }
    fleet.get(0, "/renew").await;
    fleet.clock.advance(9 * MINUTE);
    assert_eq!(fleet.get(0, "/show").await, "Some(123) guest 1");
    fleet.clock.advance(MINUTE);
    assert_eq!(fleet.get(0, "/show").await, "None guest 1");
}

#[tokio::test]
async fn a_view_in_memory_ends_too() {
    let fleet = fleet(1).await;
    let expected = [
        "Some(1) admin 1, Some(1) admin 1",
        "None admin 1, None admin 1",
        "None admin 1, None admin 1",
        "Some(2) admin 1, Some(2) guest 1, None guest 1",
    ];
    assert_eq!(fleet.get(0, "/within").await, expected.join(", "));
    assert_eq!(fleet.get(0, "/held").await, "Some(1) None Some(2) None");
    assert_eq!(fleet.get(0, "/show").await, "None guest 7");
}

#[tokio::test]
async fn what_has_ended_is_written_again_only_when_it_is_set() {
    let fleet = fleet(1).await;
    fleet.get(0, "/set/1").await;
    fleet.clock.advance(10 * MINUTE);
    fleet.store.reset();
    for path in ["/show", "/write", "/take", "/update"] {
        fleet.get(0, path).await;
    }
    assert_eq!(fleet.store.calls().replace, 0);
    for _ in 0..3 {
        fleet.get(0, "/reset").await;
        fleet.clock.advance(MINUTE);
    }
    assert_eq!(fleet.store.calls().replace, 1, "a default has no end that would change");
}

#[tokio::test]
async fn a_flash_message_that_nobody_has_taken_ends() {
    let fleet = fleet(2).await;
    fleet.get(0, "/notice/soon").await;
    assert_eq!(fleet.get(1, "/take").await, "soon");
    fleet.get(0, "/notice/never").await;
    fleet.clock.advance(10 * MINUTE);
    assert_eq!(fleet.overtaken("/take", "/take").await.text(), "");
}
