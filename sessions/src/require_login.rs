//! A middleware that lets only those pass who are logged in.

use std::{
    fmt,
    marker::PhantomData,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::{Extensions, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use tower_layer::Layer;
use tower_service::Service;

use crate::{Error, ErrorKind, Session, SessionUser, next::with_next};

type Predicate<T> = Arc<dyn Fn(&<T as crate::SessionData>::Fields) -> bool + Send + Sync>;

/// Lets only those requests pass whose session's user is logged in; for a route, or for a whole
/// router.
///
/// ```
/// # #[cfg(all(feature = "axum", feature = "derive", feature = "memory", feature = "bincode"))] {
/// # async fn page() {}
/// use std::time::Duration;
///
/// use axum::{Router, routing::get};
/// use sessions::{Keys, MemoryStore, RequireLogin, Session, SessionLayer};
///
/// #[derive(Session)]
/// struct Visitor {
///     #[session(user)]
///     user: Option<u64>,
///     is_admin: bool,
/// }
///
/// const RECENT: Duration = Duration::from_secs(10 * 60);
/// let login = RequireLogin::<Visitor>::redirect_to("/login");
///
/// let app: Router = Router::new()
///     .route("/account", get(page))
///     .route("/password", get(page).layer(login.clone().within(RECENT)))
///     .route("/admin", get(page).layer(login.clone().require(|fields| fields.is_admin)))
///     .route_layer(login)
///     .route("/login", get(page))
///     .layer(SessionLayer::<Visitor>::new(MemoryStore::new(), Keys::generate()));
/// # }
/// ```
///
/// It has to be inside of the [`SessionLayer`](crate::SessionLayer). `OPTIONS` requests pass: a
/// browser sends them without cookies, to ask whether it may send the real one (CORS).
///
/// The user and the session come into a handler by the extractor `LoggedIn`.
///
/// # Responses
///
/// | who asks | response |
/// | --- | --- |
/// | nobody is logged in, or the login is too long ago | 401, or 303 to the login page |
/// | a user for whom [`require`](Self::require) says no | 403 |
/// | the store does not answer | 503 |
///
/// A redirect carries the way back in the query parameter `next`, for requests that can be made
/// again (`GET` and `HEAD`). The login page must check it before it sends anybody there:
/// [`local_path`](crate::local_path). In a nested router the middleware sees a path without its
/// beginning, so that it belongs on the outer one.
pub struct RequireLogin<T: SessionUser> {
    login_page: Option<Arc<str>>,
    recent: Option<Duration>,
    predicate: Option<Predicate<T>>,
}

impl<T: SessionUser> RequireLogin<T> {
    /// Who is not logged in gets 401: for an API.
    #[allow(clippy::new_without_default, reason = "`RequireLogin::default()` says less")]
    pub fn new() -> Self {
        Self { login_page: None, recent: None, predicate: None }
    }

    /// Who is not logged in is sent to this page: for browsers.
    ///
    /// # Panics
    ///
    /// If that is no path or address that a header can carry.
    pub fn redirect_to(login_page: impl Into<Arc<str>>) -> Self {
        let login_page = login_page.into();
        let fits = !login_page.is_empty() && HeaderValue::from_str(&login_page).is_ok();
        assert!(fits, "`{login_page}` is no address of a login page");
        Self { login_page: Some(login_page), ..Self::new() }
    }

    /// The login must not be older: [`Session::require_recent_login`].
    #[must_use]
    pub fn within(self, limit: Duration) -> Self {
        Self { recent: Some(limit), ..self }
    }

    /// And this must be true of the session, or the user gets 403: for roles.
    #[must_use]
    pub fn require(self, predicate: impl Fn(&T::Fields) -> bool + Send + Sync + 'static) -> Self {
        let predicate: Predicate<T> = match self.predicate {
            Some(first) => Arc::new(move |fields| first(fields) && predicate(fields)),
            None => Arc::new(predicate),
        };
        Self { predicate: Some(predicate), ..self }
    }

    /// What becomes of a request with these extensions.
    async fn judge(&self, extensions: &Extensions) -> Result<(), Refusal> {
        let session = Session::<T>::open(extensions).await?;
        let fields = session.read_timeout(session.handle().shared.lock_timeout).await?;
        // The store has to know too whose session it is, or nobody could end it.
        if fields.__user().is_none() || session.logged_in_at().is_none() {
            return Err(Error::login_required().into());
        }
        if let Some(limit) = self.recent {
            session.require_recent_login(limit)?;
        }
        match &self.predicate {
            Some(predicate) if !predicate(&fields) => Err(Refusal::Forbidden),
            _ => Ok(()),
        }
    }

    fn refuse<B: Default>(&self, refusal: Refusal, method: &Method, uri: &Uri) -> Response<B> {
        let mut response = Response::new(B::default());
        let status = match (&refusal, &self.login_page) {
            (Refusal::Login(error), Some(page)) if error.kind() == ErrorKind::LoginRequired => {
                let page = match *method {
                    Method::GET | Method::HEAD => with_next(page, uri),
                    _ => page.to_string(),
                };
                if let Ok(page) = HeaderValue::from_str(&page) {
                    response.headers_mut().insert(header::LOCATION, page);
                }
                StatusCode::SEE_OTHER
            }
            (Refusal::Login(error), _) => error.status(),
            (Refusal::Forbidden, _) => StatusCode::FORBIDDEN,
        };
        match &refusal {
            Refusal::Login(error) if status.is_server_error() => {
                tracing::error!("a session failed a request: {}", error.for_log());
            }
            Refusal::Login(_) => tracing::debug!("a request without a login"),
            Refusal::Forbidden => tracing::info!("a user asked for what is not theirs"),
        }
        *response.status_mut() = status;
        response
    }
}

/// Why a request does not pass.
enum Refusal {
    /// There is no login that would do, or no session to be had.
    Login(Error),
    Forbidden,
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self::Login(error)
    }
}

impl<T: SessionUser> Clone for RequireLogin<T> {
    fn clone(&self) -> Self {
        let Self { login_page, recent, predicate } = self;
        Self { login_page: login_page.clone(), recent: *recent, predicate: predicate.clone() }
    }
}

impl<T: SessionUser> fmt::Debug for RequireLogin<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequireLogin")
            .field("login_page", &self.login_page)
            .field("within", &self.recent)
            .finish_non_exhaustive()
    }
}

impl<S, T: SessionUser> Layer<S> for RequireLogin<T> {
    type Service = RequireLoginService<S, T>;

    fn layer(&self, inner: S) -> Self::Service {
        RequireLoginService { inner, require: self.clone(), data: PhantomData }
    }
}

/// What [`RequireLogin`] makes of a service.
pub struct RequireLoginService<S, T: SessionUser> {
    inner: S,
    require: RequireLogin<T>,
    data: PhantomData<fn() -> T>,
}

impl<S: Clone, T: SessionUser> Clone for RequireLoginService<S, T> {
    fn clone(&self) -> Self {
        let (inner, require) = (self.inner.clone(), self.require.clone());
        Self { inner, require, data: PhantomData }
    }
}

impl<S: fmt::Debug, T: SessionUser> fmt::Debug for RequireLoginService<S, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequireLoginService")
            .field("inner", &self.inner)
            .field("require", &self.require)
            .finish_non_exhaustive()
    }
}

impl<S, T, B, R> Service<Request<B>> for RequireLoginService<S, T>
where
    S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send,
    T: SessionUser,
    B: Send + 'static,
    R: Default,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        // The one that is ready, and another for the next request.
        let next = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, next);
        if request.method() == Method::OPTIONS {
            return Box::pin(inner.call(request));
        }
        let require = self.require.clone();
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            match require.judge(&parts.extensions).await {
                Ok(()) => inner.call(Request::from_parts(parts, body)).await,
                Err(refusal) => Ok(require.refuse(refusal, &parts.method, &parts.uri)),
            }
        })
    }
}
