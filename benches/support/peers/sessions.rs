//! This library.

use axum::{Router, extract::Path, routing::get};
use sessions::{Keys, MemoryStore, Session, SessionLayer};
use tokio::time::sleep;

#[derive(Session)]
struct Visitor {
    name: Option<String>,
    counter: u32,
    a: u32,
    b: u32,
    c: u32,
    d: u32,
    e: u32,
}

/// The application.
pub async fn app() -> Router {
    Router::new()
        .route("/begin", get(begin))
        .route("/name", get(name))
        .route("/count", get(count))
        .route("/counter", get(counter))
        .route("/set/{field}", get(set))
        .route("/fields", get(fields))
        .route("/slow", get(slow))
        .route("/logout", get(logout))
        .layer(SessionLayer::<Visitor>::new(MemoryStore::new(), Keys::generate()))
}

async fn begin(session: Session<Visitor>) {
    session.write().await.set_name("Zoe");
}

async fn name(session: Session<Visitor>) -> String {
    session.read().await.name().unwrap_or("nobody").to_string()
}

async fn count(session: Session<Visitor>) {
    let mut s = session.write().await;
    let counter = s.counter();
    sleep(super::PAUSE).await;
    s.set_counter(counter + 1);
}

async fn counter(session: Session<Visitor>) -> String {
    session.read().await.counter().to_string()
}

async fn set(Path(field): Path<u32>, session: Session<Visitor>) {
    let mut s = session.write().await;
    match field {
        0 => s.set_a(1),
        1 => s.set_b(1),
        2 => s.set_c(1),
        3 => s.set_d(1),
        _ => s.set_e(1),
    };
}

async fn fields(session: Session<Visitor>) -> String {
    let s = session.read().await;
    (s.a() + s.b() + s.c() + s.d() + s.e()).to_string()
}

async fn slow(session: Session<Visitor>) {
    let counter = session.read().await.counter();
    sleep(super::LONG_PAUSE).await;
    session.write().await.set_counter(counter + 1);
}

async fn logout(session: Session<Visitor>) -> sessions::Result<()> {
    session.destroy().await
}
