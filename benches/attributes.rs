//! What each attribute of a field costs: `cargo run --release -p sessions-benches --bin attributes`.
//!
//! The same session with and without it, and the same handlers. They take turns, a batch of requests
//! at a time, and each one's quickest batch counts.

use std::time::{Duration, Instant};

use axum::{Router, http::HeaderValue, routing::get};
use sessions::{Keys, MemoryStore, Secret, Session, SessionLayer};
use sessions_benches::{
    client::{call, cookie, request},
    table,
};

const ROUNDS: usize = 300;
const BATCH: usize = 100;

/// A session with one field that has an attribute, handlers that read it and write beside it, and one
/// that sets it.
macro_rules! session {
    ($name:ident, $(#[$attribute:meta])? $ty:ty, $set:expr) => {
        mod $name {
            use super::*;

            #[derive(Session)]
            struct Visitor {
                counter: u32,
                $(#[$attribute])?
                #[allow(dead_code, reason = "some have no getter, and some are only there")]
                special: $ty,
            }

            async fn set(session: Session<Visitor>) -> sessions::Result<()> {
                session.write().await.set_counter(1);
                let set: fn(Session<Visitor>) -> Setting = |session| Box::pin($set(session));
                set(session).await
            }

            async fn read(session: Session<Visitor>) -> String {
                session.read().await.counter().to_string()
            }

            async fn write(session: Session<Visitor>) {
                let mut s = session.write().await;
                let counter = s.counter();
                s.set_counter(counter.wrapping_add(1));
            }

            pub(super) fn app() -> Router {
                Router::new()
                    .route("/set", get(set))
                    .route("/read", get(read))
                    .route("/write", get(write))
                    .layer(SessionLayer::<Visitor>::new(MemoryStore::new(), Keys::generate()))
                    .with_state(())
            }
        }
    };
}

type Setting = std::pin::Pin<Box<dyn Future<Output = sessions::Result<()>> + Send>>;

session!(plain, Option<String>, async |session: Session<Visitor>| {
    session.write().await.set_special("a short text");
    Ok(())
});
session!(user, #[session(user)] Option<String>, async |session: Session<Visitor>| {
    session.login("a short text".to_string()).await
});
session!(flash, #[session(flash)] Option<String>, async |session: Session<Visitor>| {
    session.write().await.set_special("a short text");
    Ok(())
});
session!(ttl, #[session(ttl = "1h")] Option<String>, async |session: Session<Visitor>| {
    session.write().await.set_special("a short text");
    Ok(())
});
session!(secret, #[session(secret)] Option<Secret<String>>, async |session: Session<Visitor>| {
    session.write().await.set_special("a short text");
    Ok(())
});

/// The time of a request.
async fn batch(app: &mut Router, path: &'static str, cookie: Option<&HeaderValue>) -> Duration {
    let requests: Vec<_> = (0..BATCH).map(|_| request(path, cookie)).collect();
    let start = Instant::now();
    for request in requests {
        drop(call(app, request).await);
    }
    start.elapsed().div_f64(BATCH as f64)
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let mut apps = [plain::app(), user::app(), flash::app(), ttl::app(), secret::app()];
    let mut cookies = Vec::new();
    for app in &mut apps {
        let response = call(app, request("/set", None)).await;
        cookies.push(cookie(response.headers()).expect("a session"));
    }
    table::head(&["the handler", "a plain field", "`user`", "`flash`", "`ttl`", "`secret`"]);
    for (what, path, is_new) in [
        ("reads another field", "/read", false),
        ("writes another field", "/write", false),
        ("begins a session, and sets it or logs in", "/set", true),
    ] {
        let mut quickest = [Duration::MAX; 5];
        for _ in 0..ROUNDS {
            for ((app, cookie), quickest) in apps.iter_mut().zip(&cookies).zip(&mut quickest) {
                let cookie = (!is_new).then_some(cookie);
                *quickest = batch(app, path, cookie).await.min(*quickest);
            }
        }
        let times = quickest.map(table::time);
        table::row([what.to_string()].into_iter().chain(times));
    }
}
