//! The same application on `sessions` and on its peers, each as its documentation recommends, with
//! sessions in memory and signed cookies; and without any.
//!
//! A session has five fields: `user_id`, a number; `name` and `theme`, texts; `counter`, a number;
//! `recent`, five numbers.
//!
//! | route | does |
//! | --- | --- |
//! | `/` | ignores the session |
//! | `/begin` | writes the name, which begins the session |
//! | `/fill` | writes all five fields |
//! | `/name` | reads the name |
//! | `/count` | reads the counter and writes one more |
//! | `/counter` | reads the counter |
//! | `/count_slowly` | like `/count`, with 2 ms in between |
//! | `/count_very_slowly` | with 50 ms in between |
//! | `/set/{field}` | writes the field of that number, from 0, in another way than `/fill` |
//! | `/fields` | counts the fields that were written so |
//! | `/logout` | ends the session |

use std::{
    task::{Context, Poll},
    time::Duration,
};

use axum::Router;
use tower::{Service, layer::layer_fn};

mod axum_session;
mod bare;
mod floor;
mod least;
mod sessions;
mod tower_sessions;

/// Who serves the application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// axum alone: no sessions, the same answers. Only `/`, `/begin`, `/fill`, `/name`, `/count`.
    Bare,
    /// axum with a layer that does nothing, which is the least that a layer can cost.
    EmptyLayer,
    /// As little as a session can be. The routes are those of `Bare`.
    Least,
    /// The same with all that a session of ours cannot do without. The routes are those of `Bare`.
    Floor,
    /// This library.
    Sessions,
    /// [tower-sessions](https://docs.rs/tower-sessions) 0.15.
    TowerSessions,
    /// [axum_session](https://docs.rs/axum_session) 0.22.
    AxumSession,
}

impl Peer {
    /// This library first, axum alone last.
    pub const ALL: [Self; 7] = [
        Self::Sessions,
        Self::TowerSessions,
        Self::AxumSession,
        Self::Least,
        Self::Floor,
        Self::EmptyLayer,
        Self::Bare,
    ];

    /// Those that have sessions.
    pub const WITH_SESSIONS: [Self; 3] = [Self::Sessions, Self::TowerSessions, Self::AxumSession];

    /// As the tables call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare axum",
            Self::EmptyLayer => "an empty layer",
            Self::Least => "the least",
            Self::Floor => "the floor",
            Self::Sessions => "sessions",
            Self::TowerSessions => "tower-sessions 0.15, signed",
            Self::AxumSession => "axum_session 0.22, signed",
        }
    }

    /// Its application, with no session in it yet; put together once and for all, as `axum::serve`
    /// does it, and not with every request.
    pub async fn app(self) -> Router {
        let app: Router = match self {
            Self::Bare => bare::app(),
            Self::EmptyLayer => bare::app().layer(layer_fn(Empty)),
            Self::Least => least::app(),
            Self::Floor => floor::app(),
            Self::Sessions => sessions::app(),
            Self::TowerSessions => tower_sessions::app(),
            Self::AxumSession => axum_session::app().await,
        };
        app.with_state(())
    }
}

/// What `/begin` and `/fill` write.
pub const NAME: &str = "Grace Hopper";
const USER_ID: u64 = 1_234_567;
const THEME: &str = "dark";
const COUNTER: u32 = 1;
const RECENT: [u64; 5] = [1_000_003, 1_000_033, 1_000_037, 1_000_039, 1_000_081];

/// What `/set/{field}` writes.
const OTHER_USER_ID: u64 = 7;
const OTHER_NAME: &str = "Zoe";
const OTHER_THEME: &str = "blue";
const OTHER_COUNTER: u32 = 100;
const OTHER_RECENT: [u64; 5] = [1, 2, 3, 4, 5];

/// Between reading and writing the counter.
const PAUSE: Duration = Duration::from_millis(2);
const LONG_PAUSE: Duration = Duration::from_millis(50);

async fn ignore() -> &'static str {
    "fine"
}

#[derive(Clone)]
struct Empty<S>(S);

impl<S: Service<R>, R> Service<R> for Empty<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: R) -> S::Future {
        self.0.call(request)
    }
}
