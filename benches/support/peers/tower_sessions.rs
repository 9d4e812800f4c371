//! tower-sessions.

use std::time::Duration;

use axum::{Router, extract::Path, routing::get};
use tokio::time::sleep;
use tower_sessions::{MemoryStore, Session, SessionManagerLayer, cookie::Key, session::Error};

use super::{
    COUNTER, LONG_PAUSE, NAME, OTHER_COUNTER, OTHER_NAME, OTHER_RECENT, OTHER_THEME, OTHER_USER_ID,
    PAUSE, RECENT, THEME, USER_ID, ignore,
};

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

pub(super) fn app() -> Router {
    Router::new()
        .route("/", get(ignore))
        .route("/begin", get(begin))
        .route("/fill", get(fill))
        .route("/name", get(name))
        .route("/count", get(count))
        .route("/counter", get(counter))
        .route("/count_slowly", get(|session| count_after(session, PAUSE)))
        .route("/count_very_slowly", get(|session| count_after(session, LONG_PAUSE)))
        .route("/set/{field}", get(set))
        .route("/fields", get(fields))
        .route("/logout", get(logout))
        .layer(SessionManagerLayer::new(MemoryStore::default()).with_signed(Key::generate()))
}

async fn begin(session: Session) -> Result<()> {
    Ok(session.insert("name", NAME).await?)
}

async fn fill(session: Session) -> Result<()> {
    session.insert("user_id", USER_ID).await?;
    session.insert("name", NAME).await?;
    session.insert("theme", THEME).await?;
    session.insert("counter", COUNTER).await?;
    Ok(session.insert("recent", RECENT).await?)
}

async fn name(session: Session) -> Result<String> {
    Ok(session.get("name").await?.unwrap_or_default())
}

async fn counter_of(session: &Session) -> Result<u32> {
    Ok(session.get("counter").await?.unwrap_or_default())
}

async fn count(session: Session) -> Result<()> {
    let counter = counter_of(&session).await?;
    Ok(session.insert("counter", counter + 1).await?)
}

async fn counter(session: Session) -> Result<String> {
    Ok(counter_of(&session).await?.to_string())
}

async fn count_after(session: Session, pause: Duration) -> Result<()> {
    let counter = counter_of(&session).await?;
    sleep(pause).await;
    Ok(session.insert("counter", counter + 1).await?)
}

async fn set(Path(field): Path<u32>, session: Session) -> Result<()> {
    match field {
        0 => session.insert("user_id", OTHER_USER_ID).await?,
        1 => session.insert("name", OTHER_NAME).await?,
        2 => session.insert("theme", OTHER_THEME).await?,
        3 => session.insert("counter", OTHER_COUNTER).await?,
        _ => session.insert("recent", OTHER_RECENT).await?,
    }
    Ok(())
}

async fn fields(session: Session) -> Result<String> {
    let written = [
        session.get("user_id").await? == Some(OTHER_USER_ID),
        session.get("name").await? == Some(OTHER_NAME.to_string()),
        session.get("theme").await? == Some(OTHER_THEME.to_string()),
        session.get("counter").await? == Some(OTHER_COUNTER),
        session.get("recent").await? == Some(OTHER_RECENT),
    ];
    Ok(written.into_iter().filter(|written| *written).count().to_string())
}

async fn logout(session: Session) -> Result<()> {
    Ok(session.flush().await?)
}
