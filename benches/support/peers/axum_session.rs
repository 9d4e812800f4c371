//! axum_session.

use std::time::Duration;

use axum::{Router, extract::Path, routing::get};
use axum_session::{Key, Session, SessionConfig, SessionLayer, SessionNullPool, SessionStore};
use tokio::time::sleep;

use super::{
    COUNTER, LONG_PAUSE, NAME, OTHER_COUNTER, OTHER_NAME, OTHER_RECENT, OTHER_THEME, OTHER_USER_ID,
    PAUSE, RECENT, THEME, USER_ID, ignore,
};

type Nulls = Session<SessionNullPool>;

pub(super) async fn app() -> Router {
    // As the crate recommends where only cookies are signed; without `Secure` being dropped.
    let config = SessionConfig::default().with_key(Key::generate());
    let store = SessionStore::<SessionNullPool>::new(None, config).await.expect("a store");
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
        .layer(SessionLayer::new(store))
}

async fn begin(session: Nulls) {
    session.set("name", NAME);
}

async fn fill(session: Nulls) {
    session.set("user_id", USER_ID);
    session.set("name", NAME);
    session.set("theme", THEME);
    session.set("counter", COUNTER);
    session.set("recent", RECENT);
}

async fn name(session: Nulls) -> String {
    session.get("name").unwrap_or_default()
}

fn counter_of(session: &Nulls) -> u32 {
    session.get("counter").unwrap_or_default()
}

async fn count(session: Nulls) {
    session.set("counter", counter_of(&session) + 1);
}

async fn counter(session: Nulls) -> String {
    counter_of(&session).to_string()
}

async fn count_after(session: Nulls, pause: Duration) {
    let counter = counter_of(&session);
    sleep(pause).await;
    session.set("counter", counter + 1);
}

async fn set(Path(field): Path<u32>, session: Nulls) {
    match field {
        0 => session.set("user_id", OTHER_USER_ID),
        1 => session.set("name", OTHER_NAME),
        2 => session.set("theme", OTHER_THEME),
        3 => session.set("counter", OTHER_COUNTER),
        _ => session.set("recent", OTHER_RECENT),
    }
}

async fn fields(session: Nulls) -> String {
    let written = [
        session.get("user_id") == Some(OTHER_USER_ID),
        session.get("name") == Some(OTHER_NAME.to_string()),
        session.get("theme") == Some(OTHER_THEME.to_string()),
        session.get("counter") == Some(OTHER_COUNTER),
        session.get("recent") == Some(OTHER_RECENT),
    ];
    written.into_iter().filter(|written| *written).count().to_string()
}

async fn logout(session: Nulls) {
    session.destroy();
}
