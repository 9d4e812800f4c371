//! What a client is told in place of a handler's response.

use std::{fmt, sync::Arc};

use axum_core::{BoxError, body::Body};
use http::{HeaderValue, Response, StatusCode, header, request::Parts};

use crate::{
    error::{Error, ErrorKind},
    meters,
};

/// Why a request was answered in place of its handler: by a [`SessionLayer`](crate::SessionLayer) that
/// could not save its session, by a [`RequireLogin`](crate::RequireLogin), by a `CsrfLayer`, or by an
/// extractor of this crate.
///
/// By default the client gets a [`status`](Self::status) and a line of text. There are two ways to
/// another response.
///
/// # On the layer
///
/// `with_rejection_response` of
/// [`SessionLayer::builder`](crate::SessionLayerBuilder::with_rejection_response), of
/// [`RequireLogin`](crate::RequireLoginBuilder::with_rejection_response) and of `CsrfLayer` takes a
/// function from the rejection and the request's head to a response:
///
/// ```
/// # #[cfg(all(feature = "axum", feature = "derive", feature = "memory", feature = "bincode"))] {
/// use axum::{
///     Router,
///     response::{Html, IntoResponse, Response},
///     routing::{get, post},
/// };
/// use http::request::Parts;
/// use sessions::{Keys, MemoryStore, Rejection, RequireLogin, Session, SessionLayer};
/// # async fn page() {}
///
/// #[derive(Session)]
/// struct Visitor {
///     #[session(user)]
///     user: Option<u64>,
/// }
///
/// fn rejected(rejection: &Rejection, request: &Parts) -> Response {
///     let status = rejection.status();
///     // htmx follows no redirect by itself: it has to be told where to go.
///     if let Some(login) = rejection.login_page()
///         && request.headers.contains_key("hx-request")
///     {
///         return [("hx-redirect", login)].into_response();
///     }
///     if rejection.login_page().is_some() {
///         return rejection.response().into_response();
///     }
///     (status, Html(format!("<h1>{status}</h1><p>{rejection}"))).into_response()
/// }
///
/// # fn app() -> Result<Router, sessions::BuildError> {
/// let layer = SessionLayer::<Visitor>::builder(MemoryStore::new(), Keys::generate())
///     .with_rejection_response(rejected)
///     .build()?;
/// let login = RequireLogin::<Visitor>::builder()
///     .with_login_page("/login")
///     .with_rejection_response(rejected)
///     .build()?;
/// let csrf = Visitor::csrf_layer_builder().with_rejection_response(rejected).build()?;
///
/// let app = Router::new()
///     .route("/account", get(page).post(page))
///     .route_layer(login)
///     .layer(csrf)
///     .layer(layer);
/// # Ok(app) }
/// # }
/// ```
///
/// # Around all of them
///
/// Every such response has its rejection among its extensions, also where an extractor or a handler
/// has made a response of an [`Error`]: an outer layer finds it there. That one can be asynchronous,
/// and it belongs outside of the [`SessionLayer`](crate::SessionLayer), or does not see what becomes
/// of a save that fails. It must keep the headers, with the session's cookie among them.
///
/// ```
/// # #[cfg(feature = "axum")] {
/// use axum::{body::Body, http::{HeaderValue, header}, response::Response};
/// use sessions::Rejection;
///
/// /// For `axum::middleware::map_response`.
/// async fn as_json(response: Response) -> Response {
///     let Some(rejection) = response.extensions().get::<Rejection>().cloned() else {
///         return response;
///     };
///     let (mut parts, _) = response.into_parts();
///     parts.headers.remove(header::CONTENT_LENGTH);
///     parts.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
///     Response::from_parts(parts, Body::from(format!(r#"{{"error":"{:?}"}}"#, rejection.kind())))
/// }
/// # }
/// ```
///
/// However it is made, the response is `Cache-Control: no-store`.
#[derive(Clone, Debug)]
pub struct Rejection(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    kind: RejectionKind,
    status: StatusCode,
    words: &'static str,
    login_page: Option<String>,
    error: Option<Error>,
}

/// What a [`Rejection`] is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RejectionKind {
    /// The request comes from a page of another site: 403.
    CrossSite,
    /// The request has no CSRF token of its session: 403.
    Csrf,
    /// A form in which a CSRF token would be looked for is too large (413) or did not arrive (400).
    Form,
    /// Nobody is logged in, or the login is too long ago: 401, or 303 to the login page.
    LoginRequired,
    /// The user is logged in, and this is not for them: 403.
    Forbidden,
    /// The session could not be opened, used or saved: the [status of the error](Error::status).
    Session,
}

impl Rejection {
    fn new(kind: RejectionKind, status: StatusCode, words: &'static str) -> Self {
        Self::from_inner(Inner { kind, status, words, login_page: None, error: None })
    }

    /// The one place where a rejection is made.
    fn from_inner(inner: Inner) -> Self {
        meters::refused(match (inner.kind, inner.status) {
            (RejectionKind::CrossSite, _) => "cross_site",
            (RejectionKind::Csrf, _) => "csrf",
            (RejectionKind::Form, _) => "form",
            (RejectionKind::LoginRequired, _) => "login_required",
            (RejectionKind::Forbidden, _) => "forbidden",
            (RejectionKind::Session, StatusCode::SERVICE_UNAVAILABLE) => "unavailable",
            (RejectionKind::Session, StatusCode::CONFLICT) => "conflict",
            (RejectionKind::Session, _) => "failed",
        });
        Self(Arc::new(inner))
    }

    #[cfg(any(feature = "actix", feature = "axum"))]
    pub(crate) fn form_too_large() -> Self {
        let status = StatusCode::PAYLOAD_TOO_LARGE;
        Self::new(RejectionKind::Form, status, "The form is too large.")
    }

    #[cfg(any(feature = "actix", feature = "axum"))]
    pub(crate) fn form_broken() -> Self {
        Self::new(RejectionKind::Form, StatusCode::BAD_REQUEST, "The form did not arrive.")
    }

    pub(crate) fn forbidden() -> Self {
        Self::new(RejectionKind::Forbidden, StatusCode::FORBIDDEN, "You may not do this.")
    }

    pub(crate) fn to_login_page(page: String, error: Error) -> Self {
        Self::from_inner(Inner {
            kind: RejectionKind::LoginRequired,
            status: StatusCode::SEE_OTHER,
            words: "",
            login_page: Some(page),
            error: Some(error),
        })
    }

    /// What it is about.
    pub fn kind(&self) -> RejectionKind {
        self.0.kind
    }

    /// The status of the response, unless another one takes its place.
    pub fn status(&self) -> StatusCode {
        self.0.status
    }

    /// Where [`with_login_page`](crate::RequireLoginBuilder::with_login_page) sends the client: the
    /// login page, with the way back in its query.
    pub fn login_page(&self) -> Option<&str> {
        self.0.login_page.as_deref()
    }

    /// The error, where the session has failed. Its message is for a log, not for a client.
    pub fn error(&self) -> Option<&Error> {
        self.0.error.as_ref()
    }

    /// The response that the client gets by default: a line of text, or the redirect.
    pub fn response(&self) -> Response<String> {
        let mut response = Response::new(self.0.words.to_string());
        *response.status_mut() = self.0.status;
        let headers = response.headers_mut();
        if !self.0.words.is_empty() {
            let text = HeaderValue::from_static("text/plain; charset=utf-8");
            headers.insert(header::CONTENT_TYPE, text);
        }
        if let Some(Ok(page)) = self.login_page().map(HeaderValue::from_str) {
            headers.insert(header::LOCATION, page);
        }
        self.mark(&mut response);
        response
    }

    /// Cached, a refusal would go to clients who would not be refused.
    fn mark<B>(&self, response: &mut Response<B>) {
        response.extensions_mut().insert(self.clone());
        let no_store = HeaderValue::from_static("no-store");
        response.headers_mut().insert(header::CACHE_CONTROL, no_store);
    }
}

/// The words that are for the client.
impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.0.words)
    }
}

impl From<Error> for Rejection {
    fn from(error: Error) -> Self {
        let (kind, words) = describe(&error);
        let status = error.status();
        Self::from_inner(Inner { kind, status, words, login_page: None, error: Some(error) })
    }
}

impl Rejection {
    /// For a framework that keeps the error itself.
    #[cfg(feature = "actix")]
    pub(crate) fn without_error(error: &Error) -> Self {
        let (kind, words) = describe(error);
        Self::new(kind, error.status(), words)
    }
}

/// What a client is told of an error.
fn describe(error: &Error) -> (RejectionKind, &'static str) {
    match error.kind() {
        ErrorKind::CrossSite => (RejectionKind::CrossSite, "This request came from another site."),
        ErrorKind::Csrf => (
            RejectionKind::Csrf,
            "This page is out of date. Please load it again and repeat what you did.",
        ),
        ErrorKind::LoginRequired => (RejectionKind::LoginRequired, "Please log in."),
        kind => (
            RejectionKind::Session,
            match (kind, error.status()) {
                (_, StatusCode::SERVICE_UNAVAILABLE) => {
                    "The session is not available just now. Please try again."
                }
                (ErrorKind::Ended, _) => "The session has ended in the meantime.",
                (_, StatusCode::CONFLICT) => {
                    "Another request has changed the session in the meantime. Please repeat \
                     what you did."
                }
                _ => "The session could not be used.",
            },
        ),
    }
}

type Function = dyn Fn(&Rejection, &Parts) -> Response<Body> + Send + Sync;

/// The responses that an application wants for a layer's rejections.
#[derive(Clone)]
pub(crate) struct OnRejection(Arc<Function>);

impl OnRejection {
    pub(crate) fn new<B>(
        function: impl Fn(&Rejection, &Parts) -> Response<B> + Send + Sync + 'static,
    ) -> Self
    where
        B: http_body::Body<Data = bytes::Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        Self(Arc::new(move |rejection, request| {
            let mut response = function(rejection, request).map(Body::new);
            rejection.mark(&mut response);
            response
        }))
    }

    pub(crate) fn response(&self, rejection: &Rejection, request: &Parts) -> Response<Body> {
        (self.0)(rejection, request)
    }
}

/// By the application's function, if there is one.
pub(crate) fn respond(
    on_rejection: Option<&OnRejection>,
    rejection: &Rejection,
    request: &Parts,
) -> Response<Body> {
    match on_rejection {
        Some(on_rejection) => on_rejection.response(rejection, request),
        None => default_response(rejection),
    }
}

pub(crate) fn default_response(rejection: &Rejection) -> Response<Body> {
    rejection.response().map(Body::from)
}

impl fmt::Debug for OnRejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnRejection")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::refusal::Refusal;

    #[test]
    fn only_a_session_that_has_ended_is_told_to_have_ended() {
        let words = |error: Error| Rejection::from(error).to_string();
        assert_eq!(words(Error::ended()), "The session has ended in the meantime.");
        for conflict in [Refusal::Conflict, Refusal::LeaseLost] {
            let conflict = Error::refused("theme", conflict);
            assert_eq!(conflict.status(), StatusCode::CONFLICT, "{conflict}");
            let words = words(conflict);
            assert!(words.starts_with("Another request has changed"), "{words}");
        }
        assert!(words(Error::contended(7)).ends_with("Please try again."));
        assert_eq!(words(Error::no_cookie()), "The session could not be used.");
    }
}
