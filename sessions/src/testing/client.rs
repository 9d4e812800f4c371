use std::{fmt, future::poll_fn, ops::Deref};

#[cfg(feature = "axum")]
use axum_core::body::Body;
use http::{HeaderMap, HeaderValue, Method, Request, Response, header};
use http_body_util::BodyExt;
use tower_service::Service;

use crate::{
    data::{SessionData, user::SessionUser},
    identity::id::SessionId,
    layer::SessionLayer,
    save::{settings::Settings, shared::Shared},
    session::Session,
};

/// Drives an application in a test as a browser would: without a socket, and with the session's
/// cookie from one request to the next.
///
/// ```
/// # #[cfg(all(feature = "axum", feature = "derive", feature = "memory", feature = "bincode"))]
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// use axum::{Router, routing::get};
/// use sessions::{
///     Keys, LoggedIn, MemoryStore, Session, SessionLayer,
///     testing::{SessionChange, TestClient},
/// };
///
/// #[derive(Session)]
/// struct Visitor {
///     #[session(user)]
///     user: Option<u64>,
///     cart: Vec<u32>,
/// }
///
/// async fn account(LoggedIn { user, .. }: LoggedIn<Visitor>) -> String {
///     format!("user {user}")
/// }
///
/// let layer = SessionLayer::<Visitor>::new(MemoryStore::new(), Keys::generate());
/// let app: Router = Router::new().route("/account", get(account)).layer(layer.clone());
///
/// let mut client = TestClient::new(app, &layer);
/// assert_eq!(client.get("/account").await.status(), 401);
///
/// client.login_as(7).await;
/// client
///     .with_session(async |session| {
///         session.write().await.set_cart([5]);
///     })
///     .await;
///
/// let response = client.get("/account").await;
/// assert_eq!(response.status(), 200);
/// assert_eq!(response.change, SessionChange::Kept);
/// assert_eq!(response.text().await, "user 7");
/// assert_eq!(client.with_session(async |session| session.read().await.cart().len()).await, 1);
/// # }
/// # #[cfg(not(all(feature = "axum", feature = "derive", feature = "memory", feature = "bincode")))]
/// # fn main() {}
/// ```
///
/// Other cookies are the test's own business. With [`ManualClock`](super::ManualClock) a test lets
/// sessions expire. The cookie goes by hand into any other client: [`cookie`](Self::cookie).
///
/// # Panics
///
/// Every method, if the store fails or a session cannot be saved: a test has nothing to do about
/// that.
pub struct TestClient<S, T: SessionData> {
    service: S,
    layer: SessionLayer<T>,
    cookie: Option<HeaderValue>,
}

/// A response, and what it did to the session. Derefs to the response.
#[derive(Debug)]
pub struct TestResponse<B> {
    /// The response itself.
    pub response: Response<B>,
    /// What became of the session.
    pub change: SessionChange,
}

/// What a response did to the client's session, as far as its cookie tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionChange {
    /// The cookie is what it was, if there was one.
    Kept,
    /// The client had no session, and has one now.
    Begun,
    /// The client has a session with another id: after a login or a renewal.
    Renewed,
    /// The cookie of the same session was sent again: for another lifetime, by a new key, or with
    /// what has changed in a private cookie.
    Resent,
    /// The cookie was removed, or says that there is no session any more: after a logout.
    Ended,
}

impl<S, T: SessionData> TestClient<S, T> {
    /// A client without a cookie. `service` is the application, inside of `layer`.
    pub fn new(service: S, layer: &SessionLayer<T>) -> Self {
        Self { service, layer: layer.clone(), cookie: None }
    }

    /// The session's cookie as a `Cookie` header has it, `name=value`, if the client has one.
    pub fn cookie(&self) -> Option<&str> {
        self.cookie.as_ref().and_then(|cookie| cookie.to_str().ok())
    }

    /// Another client with the same cookie, as of a second tab or of a thief: what one of them is
    /// sent from now on the other does not know.
    #[must_use]
    pub fn copy(&self) -> Self
    where
        S: Clone,
    {
        let Self { service, layer, cookie } = self;
        Self { service: service.clone(), layer: layer.clone(), cookie: cookie.clone() }
    }

    /// Does something with the client's session, as a handler of a request would: reads, writes,
    /// logs in. The client keeps the cookie that comes of it.
    pub async fn with_session<R>(&mut self, work: impl AsyncFnOnce(Session<T>) -> R) -> R {
        let mut session = self.open().await;
        let result = work(session.clone()).await;
        // As the layer does with a response: what was seen before the work no longer counts, and from here on no
        // cookie can be sent.
        session.handle().begin_poll();
        session.handle().begin_answer();
        let outcome = match session.handle_mut().finish_now() {
            Some(outcome) => outcome,
            None => session.handle().finish().await,
        };
        if let Some(error) = outcome.error {
            panic!("the session was not saved: {error}");
        }
        if let Some(cookie) = outcome.cookie {
            self.keep(&cookie);
        }
        result
    }

    /// Logs the client in.
    pub async fn login_as(&mut self, user: T::User)
    where
        T: SessionUser,
    {
        self.with_session(async |session| {
            if let Err(error) = session.login(user).await {
                panic!("the login failed: {error}");
            }
        })
        .await;
    }

    async fn open(&self) -> Session<T> {
        let mut headers = HeaderMap::new();
        headers.extend(self.cookie.clone().map(|cookie| (header::COOKIE, cookie)));
        let session = Session::lazy(self.layer.shared.clone(), &Method::GET, &headers);
        if let Err(error) = session.handle().open().await {
            panic!("the session was not opened: {error}");
        }
        session
    }

    /// The id in the client's cookie. The store is not asked: its calls are the application's.
    fn id(&self) -> Option<SessionId> {
        let Shared { settings: Settings { cookie, .. }, keys, seen_cookies, .. } =
            &*self.layer.shared;
        #[cfg(feature = "private-cookie")]
        if self.layer.shared.storage.is_cookie() {
            let session = cookie.newest(&keys.get(), &self.cookie)?.session;
            return session.map(|(cookie, _)| cookie.id);
        }
        cookie.verified(keys, seen_cookies, &self.cookie).next().map(|cookie| cookie.id)
    }

    /// Keeps the cookie in this `Set-Cookie` line, or forgets it.
    fn keep(&mut self, line: &HeaderValue) {
        let line = line.as_bytes();
        let pair = line.split(|byte| *byte == b';').next().unwrap_or_default();
        let is_removal = pair.ends_with(b"=");
        let cookie = HeaderValue::from_bytes(pair).expect("a part of a header is one");
        self.cookie = (!is_removal).then_some(cookie);
    }

    /// Sends a request with the session's cookie, and keeps the one that comes back.
    pub async fn send<B, R>(&mut self, mut request: Request<B>) -> TestResponse<R>
    where
        S: Service<Request<B>, Response = Response<R>, Error: fmt::Debug>,
    {
        if let Some(cookie) = &self.cookie {
            request.headers_mut().append(header::COOKIE, cookie.clone());
        }
        let before = self.id();
        poll_fn(|cx| self.service.poll_ready(cx)).await.expect("the service is ready");
        let response = self.service.call(request).await.expect("the service answers");
        let name = [self.layer.shared.settings.cookie.name.as_bytes(), b"="].concat();
        let mut lines = response.headers().get_all(header::SET_COOKIE).iter();
        let line = lines.rfind(|line| line.as_bytes().starts_with(&name)).cloned();
        let change = match line {
            None => SessionChange::Kept,
            Some(line) => {
                self.keep(&line);
                match (before, self.id()) {
                    (_, None) => SessionChange::Ended,
                    (None, Some(_)) => SessionChange::Begun,
                    (Some(before), Some(now)) if before == now => SessionChange::Resent,
                    (Some(_), Some(_)) => SessionChange::Renewed,
                }
            }
        };
        TestResponse { response, change }
    }

    /// Sends a `GET` request to an axum application.
    ///
    /// # Panics
    ///
    /// If `uri` is none.
    #[cfg(feature = "axum")]
    pub async fn get<R>(&mut self, uri: &str) -> TestResponse<R>
    where
        S: Service<Request<Body>, Response = Response<R>, Error: fmt::Debug>,
    {
        self.send(Request::get(uri).body(Body::empty()).expect("a URI")).await
    }

    /// Sends a form to an axum application, written as a browser would: `name=Zo%C3%AB&age=7`.
    ///
    /// # Panics
    ///
    /// If `uri` is none.
    #[cfg(feature = "axum")]
    pub async fn post_form<R>(&mut self, uri: &str, form: impl Into<String>) -> TestResponse<R>
    where
        S: Service<Request<Body>, Response = Response<R>, Error: fmt::Debug>,
    {
        let request = Request::post(uri)
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Body::from(form.into()));
        self.send(request.expect("a URI")).await
    }
}

impl<B: http_body::Body<Error: fmt::Debug>> TestResponse<B> {
    /// The body as text.
    ///
    /// # Panics
    ///
    /// If it breaks off, or is no UTF-8.
    pub async fn text(self) -> String {
        let body = self.response.into_body().collect().await.expect("a whole body");
        String::from_utf8(body.to_bytes().into()).expect("UTF-8")
    }
}

impl<B> Deref for TestResponse<B> {
    type Target = Response<B>;

    fn deref(&self) -> &Response<B> {
        &self.response
    }
}

/// Does not show the cookie.
impl<S, T: SessionData> fmt::Debug for TestClient<S, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestClient")
            .field("has_cookie", &self.cookie.is_some())
            .finish_non_exhaustive()
    }
}
