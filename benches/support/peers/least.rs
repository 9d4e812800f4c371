//! As little as a session can be in axum, to measure the others by: the layer puts something into the
//! request's extensions, the extractor looks the cookie's value up in one map, the handler locks the
//! fields, and the response gets the headers that a session's has. Nothing is signed, hashed, encoded
//! or kept elsewhere, nothing ever ends, no id is random, and nobody is told of what went wrong.

use std::{
    collections::HashMap,
    convert::Infallible,
    pin::Pin,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
};

use axum::{
    Router,
    body::Body,
    extract::FromRequestParts,
    http::{HeaderValue, Request, Response, header, request::Parts},
    routing::get,
};
use pin_project_lite::pin_project;
use tower::{Service, layer::layer_fn};

use super::{COUNTER, NAME, RECENT, THEME, USER_ID, ignore};

pub(super) fn app() -> Router {
    let sessions = Sessions::default();
    Router::new()
        .route("/", get(ignore))
        .route("/begin", get(begin))
        .route("/fill", get(fill))
        .route("/name", get(name))
        .route("/count", get(count))
        .layer(layer_fn(move |inner| Least { inner, sessions: sessions.clone() }))
}

async fn begin(session: Session) {
    session.fields().name = NAME.to_string();
}

async fn fill(session: Session) {
    let mut fields = session.fields();
    fields.user_id = USER_ID;
    fields.name = NAME.to_string();
    fields.theme = THEME.to_string();
    fields.counter = COUNTER;
    fields.recent = RECENT;
}

async fn name(session: Session) -> String {
    session.fields().name.clone()
}

async fn count(session: Session) {
    session.fields().counter += 1;
}

#[derive(Default)]
struct Fields {
    user_id: u64,
    name: String,
    theme: String,
    counter: u32,
    recent: [u64; 5],
}

#[derive(Clone, Default)]
struct Sessions(Arc<Shared>);

#[derive(Default)]
struct Shared {
    by_number: Mutex<HashMap<u64, Arc<Mutex<Fields>>>>,
    begun: AtomicU64,
}

struct Handle {
    sessions: Sessions,
    cookie: Option<HeaderValue>,
    opened: OnceLock<Session>,
}

#[derive(Clone)]
struct Session {
    fields: Arc<Mutex<Fields>>,
    is_new: bool,
}

impl Session {
    fn fields(&self) -> std::sync::MutexGuard<'_, Fields> {
        self.fields.lock().expect("no handler panics")
    }
}

impl Handle {
    fn open(&self) -> Session {
        let find = || {
            let sessions = self.sessions.0.by_number.lock().expect("no panic");
            let found = self.cookie.as_ref().and_then(|cookie| sessions.get(&number_in(cookie)?));
            let (fields, is_new) = (found.cloned().unwrap_or_default(), found.is_none());
            Session { fields, is_new }
        };
        self.opened.get_or_init(find).clone()
    }

    /// The cookie of a session that begins with this response.
    fn begin(&self, session: &Session) -> HeaderValue {
        let number = self.sessions.0.begun.fetch_add(1, Relaxed);
        let mut sessions = self.sessions.0.by_number.lock().expect("no panic");
        sessions.insert(number, session.fields.clone());
        let line = format!("{NAME_OF_COOKIE}{number:064}; HttpOnly; SameSite=Lax; Secure; Path=/");
        HeaderValue::try_from(line).expect("ASCII")
    }
}

const NAME_OF_COOKIE: &str = "__Host-id=";

fn number_in(cookie: &HeaderValue) -> Option<u64> {
    cookie.to_str().ok()?.strip_prefix(NAME_OF_COOKIE)?.get(44..64)?.parse().ok()
}

impl<S: Sync> FromRequestParts<S> for Session {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(parts.extensions.get::<Arc<Handle>>().expect("the layer is there").open())
    }
}

#[derive(Clone)]
struct Least<S> {
    inner: S,
    sessions: Sessions,
}

impl<S: Service<Request<Body>, Response = Response<Body>>> Service<Request<Body>> for Least<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = Answer<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let cookie = request.headers().get(header::COOKIE).cloned();
        let handle =
            Arc::new(Handle { sessions: self.sessions.clone(), cookie, opened: OnceLock::new() });
        request.extensions_mut().insert(handle.clone());
        Answer { inner: self.inner.call(request), handle }
    }
}

pin_project! {
    struct Answer<F> {
        #[pin]
        inner: F,
        handle: Arc<Handle>,
    }
}

impl<F: Future<Output = Result<Response<Body>, E>>, E> Future for Answer<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let mut response = ready!(this.inner.poll(cx))?;
        if let Some(session) = this.handle.opened.get() {
            let headers = response.headers_mut();
            headers.insert(header::VARY, HeaderValue::from_static("Cookie"));
            if session.is_new {
                headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
                headers.insert(header::SET_COOKIE, this.handle.begin(session));
            }
        }
        Poll::Ready(Ok(response))
    }
}
