//! What the tasks do, in a request or beside it, and what a cookie opens.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
};

use http::{Request, Response, header};
use sessions::{ErrorKind, Session, SessionLayer, StoreKey};
use tower::{Layer, ServiceExt, service_fn};

use super::{Answer, Data, DataFields, Op, Told, USER};

fn told<R>(outcome: Result<R, sessions::Error>, is_ok: impl FnOnce(R) -> Told) -> Told {
    match outcome {
        Ok(value) => is_ok(value),
        Err(error) => Told::Refused(error.kind()),
    }
}

fn done<R>(outcome: Result<R, sessions::Error>) -> Told {
    told(outcome, |_| Told::Done)
}

impl DataFields {
    fn write(&mut self, field: usize) {
        let user = self.user.unwrap_or_default();
        self.set_whose(user);
        match field {
            0 => self.set_a(1),
            1 => self.set_b(1),
            _ => self.set_c(1),
        };
    }
}

impl Op {
    async fn run_in_request(self, session: Session<Data>, layer: SessionLayer<Data>) -> Told {
        match self {
            Self::Write(field) => {
                session.write().await.write(field);
                let outcome = session.save().await;
                if outcome.is_err() {
                    session.discard_request_changes();
                }
                done(outcome)
            }
            Self::Update(field) => done(session.update(|s| s.write(field)).await),
            Self::Login(user) => done(session.login(user).await),
            Self::LoginAnew(user) => done(session.login(user).without_earlier_data().await),
            Self::Logout => done(session.logout().await),
            Self::Renew => done(session.renew_id().await),
            Self::EndOthers => done(layer.user_sessions().unwrap().end_others(&session).await),
            Self::EndOne(_) | Self::EndAll | Self::TakeRight | Self::List => unreachable!(),
        }
    }

    pub(super) async fn run(self, layer: &SessionLayer<Data>, first: &[Option<StoreKey>]) -> Told {
        let sessions = layer.user_sessions().unwrap();
        match self {
            Self::EndOne(browser) => {
                let Some(key) = first[browser] else { return Told::Was(false) };
                told(sessions.end(&USER, &key).await, Told::Was)
            }
            Self::EndAll => done(sessions.end_all(&USER).await),
            Self::TakeRight => {
                let outcome = sessions.update_each(&USER, |s| s.set_has_right(false)).await;
                told(outcome, |updated| match updated.failed.is_empty() {
                    true => Told::Done,
                    false => Told::InPart,
                })
            }
            Self::List => told(sessions.list(&USER).await, |infos| {
                Told::Keys(infos.into_iter().map(|info| info.key).collect())
            }),
            _ => unreachable!(),
        }
    }

    pub(super) fn is_request(self) -> bool {
        !matches!(self, Self::EndOne(_) | Self::EndAll | Self::TakeRight | Self::List)
    }
}

/// Sends a request whose handler does this.
pub(super) async fn request(
    layer: SessionLayer<Data>,
    cookie: Option<String>,
    op: Option<Op>,
) -> Answer {
    let own = layer.clone();
    let service = layer.layer(service_fn(move |request: Request<()>| {
        let layer = own.clone();
        async move {
            let told = match Session::<Data>::open(request.extensions()).await {
                Ok(session) => match op {
                    Some(op) => op.run_in_request(session, layer).await,
                    None => Told::Done,
                },
                Err(error) => Told::Refused(error.kind()),
            };
            let mut response = Response::new(String::new());
            response.extensions_mut().insert(told);
            Ok::<_, Infallible>(response)
        }
    }));
    let request = Request::builder();
    let request = match &cookie {
        Some(cookie) => request.header(header::COOKIE, cookie),
        None => request,
    };
    let response = service.oneshot(request.body(()).unwrap()).await.unwrap();
    let line = response.headers().get(header::SET_COOKIE).map(|line| line.to_str().unwrap());
    let cookie = line.map(|line| match line.contains("Max-Age=0") {
        true => None,
        false => line.split(';').next().map(ToString::to_string),
    });
    // The layer answers in place of a handler whose writes it could not save.
    let told = response.extensions().get().cloned();
    Answer { told: told.unwrap_or(Told::Refused(ErrorKind::Store)), cookie }
}

/// What a cookie opens.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) key: StoreKey,
    pub(super) user: Option<u64>,
    pub(super) origin: u8,
    pub(super) whose: u64,
    pub(super) fields: [u8; 3],
    pub(super) has_right: bool,
}

pub(super) async fn look(layer: &SessionLayer<Data>, cookie: &str) -> Option<Seen> {
    let seen = Arc::new(Mutex::new(None));
    let own = seen.clone();
    let service = layer.layer(service_fn(move |request: Request<()>| {
        let own = own.clone();
        async move {
            let session = Session::<Data>::open(request.extensions()).await.unwrap();
            if !session.began_in_request() {
                let s = session.read().await;
                *own.lock().unwrap() = Some(Seen {
                    key: session.store_key().unwrap(),
                    user: s.user,
                    origin: s.origin,
                    whose: s.whose,
                    fields: [s.a, s.b, s.c],
                    has_right: s.has_right,
                });
            }
            Ok::<_, Infallible>(Response::new(String::new()))
        }
    }));
    let request = Request::builder().header(header::COOKIE, cookie).body(()).unwrap();
    service.oneshot(request).await.unwrap();
    seen.lock().unwrap().take()
}

/// A session with a few values, and its cookie.
pub(super) async fn begin(layer: &SessionLayer<Data>, is_user: bool, origin: u8) -> String {
    let service = layer.layer(service_fn(move |request: Request<()>| async move {
        let session = Session::<Data>::open(request.extensions()).await.unwrap();
        if is_user {
            session.login(USER).await.unwrap();
        }
        let mut s = session.write().await;
        s.set_origin(origin);
        s.set_has_right(true);
        s.set_whose(if is_user { USER } else { 0 });
        drop(s);
        Ok::<_, Infallible>(Response::new(String::new()))
    }));
    let response = service.oneshot(Request::new(())).await.unwrap();
    let line = response.headers()[header::SET_COOKIE].to_str().unwrap();
    line.split(';').next().unwrap().to_string()
}
