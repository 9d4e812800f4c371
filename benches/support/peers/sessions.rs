//! This library.

use std::time::Duration;

use axum::{Router, extract::Path, routing::get};
use sessions::{Keys, MemoryStore, Session, SessionLayer};
use tokio::time::sleep;

use super::{
    COUNTER, LONG_PAUSE, NAME, OTHER_COUNTER, OTHER_NAME, OTHER_RECENT, OTHER_THEME, OTHER_USER_ID,
    PAUSE, RECENT, THEME, USER_ID, ignore,
};

#[derive(Session)]
struct Visitor {
    user_id: u64,
    name: String,
    #[session(default = "light")]
    theme: String,
    counter: u32,
    recent: [u64; 5],
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
        .layer(SessionLayer::<Visitor>::new(MemoryStore::new(), Keys::generate()))
}

async fn begin(session: Session<Visitor>) {
    session.write().await.set_name(NAME);
}

async fn fill(session: Session<Visitor>) {
    let mut s = session.write().await;
    s.set_user_id(USER_ID);
    s.set_name(NAME);
    s.set_theme(THEME);
    s.set_counter(COUNTER);
    s.set_recent(RECENT);
}

async fn name(session: Session<Visitor>) -> String {
    session.read().await.name().to_string()
}

async fn count(session: Session<Visitor>) {
    let mut s = session.write().await;
    let counter = s.counter();
    s.set_counter(counter + 1);
}

async fn counter(session: Session<Visitor>) -> String {
    session.read().await.counter().to_string()
}

async fn count_after(session: Session<Visitor>, pause: Duration) {
    let mut s = session.write().await;
    let counter = s.counter();
    sleep(pause).await;
    s.set_counter(counter + 1);
}

async fn set(Path(field): Path<u32>, session: Session<Visitor>) {
    let mut s = session.write().await;
    match field {
        0 => s.set_user_id(OTHER_USER_ID),
        1 => s.set_name(OTHER_NAME),
        2 => s.set_theme(OTHER_THEME),
        3 => s.set_counter(OTHER_COUNTER),
        _ => s.set_recent(OTHER_RECENT),
    };
}

async fn fields(session: Session<Visitor>) -> String {
    let s = session.read().await;
    let written = [
        s.user_id() == OTHER_USER_ID,
        s.name() == OTHER_NAME,
        s.theme() == OTHER_THEME,
        s.counter() == OTHER_COUNTER,
        *s.recent() == OTHER_RECENT,
    ];
    written.into_iter().filter(|written| *written).count().to_string()
}

async fn logout(session: Session<Visitor>) -> sessions::Result<()> {
    session.destroy().await
}
