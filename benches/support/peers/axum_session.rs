//! [axum_session](https://docs.rs/axum_session) 0.22.

use axum::{Router, extract::Path, routing::get};
use axum_session::{Key, Session, SessionConfig, SessionLayer, SessionNullPool, SessionStore};
use tokio::time::sleep;

/// The application.
pub async fn app() -> Router {
    // As the crate recommends where only cookies are signed; without `Secure` being dropped.
    let config = SessionConfig::default().with_key(Key::generate());
    let store = SessionStore::<SessionNullPool>::new(None, config).await.expect("a store");
    Router::new()
        .route("/begin", get(begin))
        .route("/name", get(name))
        .route("/count", get(count))
        .route("/counter", get(counter))
        .route("/set/{field}", get(set))
        .route("/fields", get(fields))
        .route("/slow", get(slow))
        .route("/logout", get(logout))
        .layer(SessionLayer::new(store))
}

type Nulls = Session<SessionNullPool>;

async fn begin(session: Nulls) {
    session.set("name", "Zoe");
}

async fn name(session: Nulls) -> String {
    session.get("name").unwrap_or("nobody".to_string())
}

async fn count(session: Nulls) {
    let counter: u32 = session.get("counter").unwrap_or(0);
    sleep(super::PAUSE).await;
    session.set("counter", counter + 1);
}

async fn counter(session: Nulls) -> String {
    session.get::<u32>("counter").unwrap_or(0).to_string()
}

async fn set(Path(field): Path<u32>, session: Nulls) {
    session.set(&field.to_string(), 1);
}

async fn fields(session: Nulls) -> String {
    (0..5).map(|field| session.get::<u32>(&field.to_string()).unwrap_or(0)).sum::<u32>().to_string()
}

async fn slow(session: Nulls) {
    let counter: u32 = session.get("counter").unwrap_or(0);
    sleep(super::LONG_PAUSE).await;
    session.set("counter", counter + 1);
}

async fn logout(session: Nulls) {
    session.destroy();
}
