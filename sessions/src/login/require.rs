//! A middleware that lets only requests of logged-in users pass.

use std::{
    fmt,
    marker::PhantomData,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum_core::{BoxError, body::Body};
use http::{HeaderValue, Method, Request, Response, Uri, header, request::Parts};
use tower_layer::Layer;
use tower_service::Service;

#[cfg(feature = "device-bound")]
use crate::device_bound::UnprovenPolicy;
use crate::{
    data::user::SessionUser,
    error::{BuildError, Error, ErrorKind},
    login::way_back::{local_path, with_next},
    session::{Lazy, Session},
    web::{
        preflight::is_preflight,
        rejection::{self, OnRejection, Rejection},
    },
};

type Predicate<T> = Arc<dyn Fn(&<T as crate::data::SessionData>::Fields) -> bool + Send + Sync>;

/// Lets only requests pass whose session has a logged-in user; for a route, or for a whole
/// router.
///
/// ```
/// # #[cfg(all(feature = "axum", feature = "derive", feature = "memory", feature = "bincode"))]
/// # fn main() -> Result<(), sessions::BuildError> {
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
/// let login = RequireLogin::<Visitor>::builder().with_login_page("/login");
/// let recent = login.clone().with_recent_login(RECENT).build()?;
/// let admin = login.clone().with_requirement(|fields| fields.is_admin).build()?;
///
/// let app: Router = Router::new()
///     .route("/account", get(page))
///     .route("/password", get(page).layer(recent))
///     .route("/admin", get(page).layer(admin))
///     .route_layer(login.build()?)
///     .route("/login", get(page))
///     .layer(SessionLayer::<Visitor>::new(MemoryStore::new(), Keys::generate()));
/// # Ok(()) }
/// # #[cfg(not(all(feature = "axum", feature = "derive", feature = "memory", feature = "bincode")))]
/// # fn main() {}
/// ```
///
/// It has to be inside of the [`SessionLayer`](crate::SessionLayer). A CORS preflight passes, `OPTIONS`
/// with `Origin` and `Access-Control-Request-Method`: a browser sends it without cookies, to ask whether
/// it may send the real request. Anybody can send one by hand, so its response goes out without its
/// body; but a handler that takes every method (`axum::routing::any`, a fallback) does run, without a
/// login. A layer that answers preflights, as tower-http's `CorsLayer`, is best outside of this one:
/// then none comes here.
///
/// The user and the session come into a handler by the extractor `LoggedIn`.
///
/// # Responses
///
/// | who asks | response |
/// | --- | --- |
/// | nobody is logged in, or the login is too long ago | 401, or 303 to the login page |
/// | a user for whom [`with_requirement`](RequireLoginBuilder::with_requirement) says no | 403 |
/// | the store does not answer | 503 |
///
/// with a line of text, or what
/// [`with_rejection_response`](RequireLoginBuilder::with_rejection_response) makes of it.
///
/// A redirect carries the way back in the query parameter `next`, for requests that can be made
/// again (`GET` and `HEAD`). The login page must check it before it sends anybody there:
/// [`local_path`](crate::local_path). In a nested router too it is the whole path, as axum keeps it
/// (`axum::extract::OriginalUri`). For a proxy that takes a prefix away there is
/// [`with_path_prefix`](RequireLoginBuilder::with_path_prefix).
#[doc(alias("login_required", "permission_required"))]
pub struct RequireLogin<T: SessionUser> {
    login_page: Option<Arc<str>>,
    prefix: Option<Arc<str>>,
    recent: Option<Duration>,
    predicate: Option<Predicate<T>>,
    on_rejection: Option<OnRejection>,
    #[cfg(feature = "device-bound")]
    unproven: UnprovenPolicy,
}

impl<T: SessionUser> RequireLogin<T> {
    /// Who is not logged in gets 401: for an API.
    #[allow(clippy::new_without_default, reason = "`RequireLogin::default()` says less")]
    pub fn new() -> Self {
        Self {
            login_page: None,
            prefix: None,
            recent: None,
            predicate: None,
            on_rejection: None,
            #[cfg(feature = "device-bound")]
            unproven: UnprovenPolicy::default(),
        }
    }

    /// For a layer with other settings.
    pub fn builder() -> RequireLoginBuilder<T> {
        RequireLoginBuilder { settings: Self::new() }
    }

    /// What becomes of a request with this session.
    pub(crate) async fn judge(&self, lazy: Option<Lazy<T>>) -> Result<(), Refusal> {
        let session = Session::open_lazy(lazy).await?;
        #[cfg(feature = "device-bound")]
        session.handle().check_device(self.unproven)?;
        let fields = session.read_or_error().await?;
        if fields.__user().is_none() || !session.is_users() {
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

    /// The response to a request that does not pass.
    pub(crate) fn refuse(&self, refusal: Refusal, request: &Parts) -> Response<Body> {
        let rejection = self.reject(refusal, request);
        rejection::respond(self.on_rejection.as_ref(), &rejection, request)
    }

    fn reject(&self, refusal: Refusal, request: &Parts) -> Rejection {
        match refusal {
            Refusal::Login(error) if error.kind() == ErrorKind::LoginRequired => {
                tracing::debug!("a request without a login");
                match &self.login_page {
                    Some(page) => Rejection::to_login_page(self.way_to(page, request), error),
                    None => Rejection::from(error),
                }
            }
            Refusal::Login(error) => {
                if error.status().is_server_error() {
                    tracing::error!("a session failed a request: {}", error.for_log());
                }
                Rejection::from(error)
            }
            Refusal::Forbidden => {
                tracing::info!("a user asked for what is not theirs");
                Rejection::forbidden()
            }
        }
    }

    /// With the way back to what was asked for, if the client can ask for it again.
    fn way_to(&self, login_page: &str, request: &Parts) -> String {
        match request.method {
            Method::GET | Method::HEAD => with_next(
                login_page,
                self.prefix.as_deref().unwrap_or_default(),
                asked_for(request),
            ),
            _ => login_page.to_string(),
        }
    }
}

/// The settings of a [`RequireLogin`]. A clone is a beginning for another route.
#[must_use = "a builder does nothing until `build` is called"]
pub struct RequireLoginBuilder<T: SessionUser> {
    settings: RequireLogin<T>,
}

impl<T: SessionUser> RequireLoginBuilder<T> {
    /// Who is not logged in is sent to this page: for browsers. It is a path of this site as browsers
    /// see it (`/login`), or the address of another one (`https://id.example/login`). Default: 401.
    pub fn with_login_page(mut self, login_page: impl Into<Arc<str>>) -> Self {
        self.settings.login_page = Some(login_page.into());
        self
    }

    /// The beginning of all paths that a proxy takes away before it hands a request on, as
    /// `proxy_pass http://127.0.0.1:3000/;` in nginx's `location /shop/` does: it is put before the
    /// way back, so that this leads through the proxy. To be given as browsers see it: `/shop`.
    pub fn with_path_prefix(mut self, prefix: impl Into<Arc<str>>) -> Self {
        self.settings.prefix = Some(prefix.into());
        self
    }

    /// The login must not be older: [`Session::require_recent_login`].
    pub fn with_recent_login(mut self, limit: Duration) -> Self {
        self.settings.recent = Some(limit);
        self
    }

    /// This must be true of the session, or the user gets 403: for roles. Of several all must be true.
    pub fn with_requirement(
        mut self,
        predicate: impl Fn(&T::Fields) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.settings.predicate = Some(match self.settings.predicate {
            Some(first) => Arc::new(move |fields| first(fields) && predicate(fields)),
            None => Arc::new(predicate),
        });
        self
    }

    /// What a request gets whose session is bound to a device, and that does not show that it comes from
    /// there: 401 or the login page, or first, if it follows a link of another site, the page that asks
    /// for itself again. [`Reload`](UnprovenPolicy::Reload) by default, also where the
    /// [layer](crate::DeviceBinding::with_unproven_policy) lets such requests through; with
    /// [`Allow`](UnprovenPolicy::Allow) they pass.
    #[cfg(feature = "device-bound")]
    pub fn with_unproven_policy(mut self, policy: UnprovenPolicy) -> Self {
        self.settings.unproven = policy;
        self
    }

    /// What a client gets that does not pass, in place of a line of text or the redirect: see
    /// [`Rejection`], with an example.
    pub fn with_rejection_response<B>(
        mut self,
        response: impl Fn(&Rejection, &Parts) -> Response<B> + Send + Sync + 'static,
    ) -> Self
    where
        B: http_body::Body<Data = bytes::Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        self.settings.on_rejection = Some(OnRejection::new(response));
        self
    }

    /// The layer.
    ///
    /// # Errors
    ///
    /// If the login page is neither a path that begins with one `/` nor an address with `http://` or
    /// `https://`, or a header cannot carry it: a browser would look for `login` beside whatever page was
    /// asked for. If the prefix is no path of this site, or ends with a `/`.
    pub fn build(self) -> Result<RequireLogin<T>, BuildError> {
        let RequireLogin { login_page, prefix, .. } = &self.settings;
        if let Some(page) = login_page.as_ref().filter(|page| !is_address(page)) {
            return Err(BuildError::new(format!(
                "`{page}` is no address of a login page: it is a path that begins with one `/`, as \
                 `/login`, or begins with `https://`"
            )));
        }
        let is_prefix = |prefix: &str| {
            local_path(prefix).is_some() && !prefix.contains(['?', '#']) && !prefix.ends_with('/')
        };
        if let Some(prefix) = prefix.as_ref().filter(|prefix| !is_prefix(prefix)) {
            return Err(BuildError::new(format!(
                "`{prefix}` is no beginning of a path: it begins with one `/` and does not end with \
                 one, as `/shop`"
            )));
        }
        Ok(self.settings)
    }
}

impl<T: SessionUser> Clone for RequireLoginBuilder<T> {
    fn clone(&self) -> Self {
        Self { settings: self.settings.clone() }
    }
}

impl<T: SessionUser> fmt::Debug for RequireLoginBuilder<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RequireLoginBuilder").field(&self.settings).finish()
    }
}

/// What the request was sent to. axum takes the prefix of a nested router from the request's address,
/// and keeps the address as it was.
fn asked_for(request: &Parts) -> &Uri {
    #[cfg(feature = "axum")]
    if let Some(original) = request.extensions.get::<axum::extract::OriginalUri>() {
        return original;
    }
    &request.uri
}

fn is_address(login_page: &str) -> bool {
    let is_path = login_page.starts_with('/') && !login_page.starts_with("//");
    let is_elsewhere = || {
        let uri = login_page.split('#').next().unwrap_or_default().parse::<Uri>();
        uri.is_ok_and(|uri| {
            matches!(uri.scheme_str(), Some("http" | "https")) && uri.host() != Some("")
        })
    };
    (is_path || is_elsewhere()) && HeaderValue::from_str(login_page).is_ok()
}

/// What a preflight asks for is in the headers.
fn without_body<R>(response: Response<R>) -> Response<Body> {
    let (mut parts, _) = response.into_parts();
    parts.headers.remove(header::CONTENT_LENGTH);
    Response::from_parts(parts, Body::empty())
}

/// Why a request does not pass.
pub(crate) enum Refusal {
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
        let Self { login_page, prefix, recent, predicate, on_rejection, .. } = self;
        Self {
            #[cfg(feature = "device-bound")]
            unproven: self.unproven,
            login_page: login_page.clone(),
            prefix: prefix.clone(),
            recent: *recent,
            predicate: predicate.clone(),
            on_rejection: on_rejection.clone(),
        }
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
    R: http_body::Body<Data = bytes::Bytes, Error: Into<BoxError>> + Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        // The one that is ready, and another for the next request.
        let next = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, next);
        if is_preflight(request.method(), request.headers()) {
            let answering = inner.call(request);
            return Box::pin(async move { answering.await.map(without_body) });
        }
        let require = self.require.clone();
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let lazy = parts.extensions.get().cloned();
            match require.judge(lazy).await {
                Ok(()) => {
                    let response = inner.call(Request::from_parts(parts, body)).await;
                    response.map(|response| response.map(Body::new))
                }
                Err(refusal) => Ok(require.refuse(refusal, &parts)),
            }
        })
    }
}
