//! Random clients of random sessions, and a judge of what they were told.
//!
//! [`routes`] is an application whose session has a field of each kind. [`run`] has clients request
//! them, through any number of processes, and writes down what each was told. [`judge`] compares
//! the histories with what a session promises:
//!
//! - no acknowledged write is lost, unless a later one of the same field has replaced it;
//! - counters are exact: each acknowledged increment counts once, and each that failed at most once;
//! - a session that has ended is never seen again, and none shows what belongs to another.

mod app;
mod check;
mod run;

use std::time::Duration;

use axum::{Router, body::Body, http::Request};
use http::{StatusCode, header};
use http_body_util::BodyExt;
use tower::ServiceExt;

pub use app::{History as HistorySession, routes};
pub use check::{check, judge};
pub use run::{Plan, Random, run};

use crate::Client;

/// How old a record may be in the processes of `history-server` that have a near cache.
pub const NEAR_STALENESS: Duration = Duration::from_millis(300);

/// A process that serves [`routes`], from the clients' side.
#[derive(Clone)]
pub enum Process {
    /// In this process, without a network.
    Here(Router),
    /// Behind an address.
    There(Client),
}

/// What a client was told.
#[derive(Clone, Debug)]
pub struct Told {
    /// Nothing, if it hung up or the connection broke.
    pub status: Option<StatusCode>,
    /// The cookie that it was given (`name=value`), or had taken away.
    pub cookie: Option<Option<String>>,
    /// The body.
    pub body: String,
}

impl Process {
    async fn get(&self, path: &str, cookie: Option<&str>) -> Told {
        match self {
            Self::Here(app) => {
                let mut request = Request::builder().uri(path);
                if let Some(cookie) = cookie {
                    request = request.header(header::COOKIE, cookie);
                }
                let request = request.body(Body::empty()).expect("a path");
                let response = app.clone().oneshot(request).await.expect("a router never fails");
                let (parts, body) = response.into_parts();
                let body = body.collect().await.expect("a whole body").to_bytes();
                let cookie = parts.headers.get(header::SET_COOKIE);
                Told {
                    status: Some(parts.status),
                    cookie: cookie.map(|line| cookie_of(line.to_str().expect("ASCII"))),
                    body: String::from_utf8_lossy(&body).into_owned(),
                }
            }
            Self::There(client) => {
                let lines: Vec<_> =
                    cookie.iter().map(|cookie| cookie.as_bytes().to_vec()).collect();
                match client.try_get_with(path, &lines).await {
                    Some(reply) => Told {
                        status: Some(reply.status),
                        cookie: reply.set_cookies().last().map(|line| cookie_of(line)),
                        body: reply.body,
                    },
                    None => Told { status: None, cookie: None, body: String::new() },
                }
            }
        }
    }
}

/// What a `Set-Cookie` line makes the browser send, or nothing if it is a removal.
fn cookie_of(line: &str) -> Option<String> {
    let pair = line.split(';').next().unwrap_or_default();
    (!line.contains("Max-Age=0")).then(|| pair.to_string())
}

/// One request, with what came of it.
#[derive(Clone, Debug)]
pub struct Event {
    /// When it was sent, and when it was answered or given up, on a clock that counts events.
    pub sent: u64,
    /// `u64::MAX` if what it asked for may still happen.
    pub answered: u64,
    /// The same in time, since the history began.
    pub sent_at: Duration,
    /// `Duration::MAX` if what it asked for may still happen.
    pub answered_at: Duration,
    /// Which process it was sent to.
    pub process: usize,
    /// The cookie that it carried, by its number.
    pub cookie: usize,
    /// What it asked for.
    pub asked: Asked,
    /// What it was told.
    pub outcome: Outcome,
}

/// What a client asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// Shows the session.
    Show,
    /// Adds one in the way of this name: `add`, `update`, `lock`, `sum`.
    Increment(&'static str),
    /// Sets a field, `a` or `b`, to a value that nobody else ever sets.
    Set(&'static str, u64),
    /// Appends a value of its own to the list.
    Append(u64),
    /// Writes, and takes it back before anything is saved.
    Discard(u64),
    /// Gives the session another id.
    Renew,
    /// Ends the session.
    Destroy,
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was done.
    Done,
    /// The session as it was shown, or nothing if the cookie opened none.
    Shown(Option<Shown>),
    /// It was refused: nothing of it has happened, and nothing will.
    Refused,
    /// The session had ended, or ended meanwhile.
    Ended,
    /// Nobody knows: it failed, or the client hung up.
    Unknown,
}

/// The fields of a session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shown {
    /// Whose session it is.
    pub owner: u64,
    /// The counters: `add`, `update`, `lock`, `sum`.
    pub counters: [u64; 4],
    /// The fields `a` and `b`.
    pub fields: [u64; 2],
    /// The list.
    pub list: Vec<u64>,
}
