//! [tower-sessions](https://docs.rs/tower-sessions) 0.15.

use axum::{Router, extract::Path, routing::get};
use tokio::time::sleep;
use tower_sessions::{MemoryStore, Session, SessionManagerLayer, cookie::Key, session::Error};

type Result<R> = std::result::Result<R, Fail>;

/// What its errors become in a handler.
struct Fail(Error);

impl From<Error> for Fail {
    fn from(error: Error) -> Self {
        Self(error)
    }
}

impl axum::response::IntoResponse for Fail {
    fn into_response(self) -> axum::response::Response {
        (axum::http::StatusCode::INTERNAL_SERVER_ERROR, self.0.to_string()).into_response()
    }
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
        .layer(SessionManagerLayer::new(MemoryStore::default()).with_signed(Key::generate()))
}

async fn begin(session: Session) -> Result<()> {
    Ok(session.insert("name", "Zoe").await?)
}

async fn name(session: Session) -> Result<String> {
    Ok(session.get("name").await?.unwrap_or("nobody".to_string()))
}

async fn counter_of(session: &Session) -> Result<u32> {
    Ok(session.get("counter").await?.unwrap_or(0))
}

async fn count(session: Session) -> Result<()> {
    let counter = counter_of(&session).await?;
    sleep(super::PAUSE).await;
    Ok(session.insert("counter", counter + 1).await?)
}

async fn counter(session: Session) -> Result<String> {
    Ok(counter_of(&session).await?.to_string())
}

async fn set(Path(field): Path<u32>, session: Session) -> Result<()> {
    Ok(session.insert(&field.to_string(), 1).await?)
}

async fn fields(session: Session) -> Result<String> {
    let mut sum = 0;
    for field in 0..5 {
        sum += session.get(&field.to_string()).await?.unwrap_or(0);
    }
    Ok(sum.to_string())
}

async fn slow(session: Session) -> Result<()> {
    let counter = counter_of(&session).await?;
    sleep(super::LONG_PAUSE).await;
    Ok(session.insert("counter", counter + 1).await?)
}

async fn logout(session: Session) -> Result<()> {
    Ok(session.flush().await?)
}
