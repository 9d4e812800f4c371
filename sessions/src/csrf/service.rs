use std::{
    error::Error as StdError,
    fmt,
    marker::PhantomData,
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use axum_core::{
    BoxError,
    body::Body,
    extract::Request,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, Method, StatusCode, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use pin_project_lite::pin_project;
use tower_service::Service;

use super::{OUT_OF_DATE, layer::Settings, origin};
use crate::{Error, Session, SessionData};

/// What a [`CsrfLayer`](super::CsrfLayer) makes of a service.
pub struct CsrfService<S, T> {
    inner: S,
    settings: Arc<Settings>,
    data: PhantomData<fn() -> T>,
}

impl<S, T> CsrfService<S, T> {
    pub(super) fn new(inner: S, settings: Arc<Settings>) -> Self {
        Self { inner, settings, data: PhantomData }
    }
}

impl<S: Clone, T> Clone for CsrfService<S, T> {
    fn clone(&self) -> Self {
        Self::new(self.inner.clone(), self.settings.clone())
    }
}

impl<S: fmt::Debug, T> fmt::Debug for CsrfService<S, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CsrfService").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl<S, T> Service<Request> for CsrfService<S, T>
where
    S: Service<Request> + Clone + Send + 'static,
    S::Response: IntoResponse,
    S::Future: Send,
    T: SessionData,
{
    type Response = Response;
    type Error = S::Error;
    type Future = CsrfFuture<S::Future, S::Error>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        if request.method().is_safe() {
            return CsrfFuture { stage: Stage::Passed { inner: self.inner.call(request) } };
        }
        let settings = &*self.settings;
        if origin::check(request.headers(), request.uri(), &settings.trusted).is_err() {
            tracing::info!(
                origin = ?request.headers().get(header::ORIGIN),
                "refused a request from another site"
            );
            return CsrfFuture { stage: Stage::Refused };
        }
        if !settings.needs_token || request.method() == Method::CONNECT {
            return CsrfFuture { stage: Stage::Passed { inner: self.inner.call(request) } };
        }
        // The service that is ready is the one to be called; the next request gets its clone.
        let next = self.inner.clone();
        let mut inner = mem::replace(&mut self.inner, next);
        let settings = self.settings.clone();
        let checking = async move {
            match with_token::<T>(&settings, request).await {
                Ok(request) => inner.call(request).await.map(IntoResponse::into_response),
                Err(refusal) => Ok(refusal.into_response(&settings)),
            }
        };
        CsrfFuture { stage: Stage::Checking { checking: Box::pin(checking) } }
    }
}

type Checking<E> = Pin<Box<dyn Future<Output = Result<Response, E>> + Send>>;

pin_project! {
    /// The response of a [`CsrfService`]: the inner service's, or a refusal.
    ///
    /// A request that needs no token costs no allocation.
    pub struct CsrfFuture<F, E> {
        #[pin]
        stage: Stage<F, E>,
    }
}

pin_project! {
    #[project = StageProjection]
    enum Stage<F, E> {
        Passed {
            #[pin]
            inner: F,
        },
        Refused,
        Checking {
            checking: Checking<E>,
        },
    }
}

impl<F, R, E> Future for CsrfFuture<F, E>
where
    F: Future<Output = Result<R, E>>,
    R: IntoResponse,
{
    type Output = Result<Response, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().stage.project() {
            StageProjection::Passed { inner } => {
                Poll::Ready(ready!(inner.poll(cx)).map(IntoResponse::into_response))
            }
            StageProjection::Refused => {
                const ELSEWHERE: &str = "This request came from another site.";
                Poll::Ready(Ok((StatusCode::FORBIDDEN, ELSEWHERE).into_response()))
            }
            StageProjection::Checking { checking } => checking.as_mut().poll(cx),
        }
    }
}

impl<F, E> fmt::Debug for CsrfFuture<F, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CsrfFuture").finish_non_exhaustive()
    }
}

/// Why a request does not get any further.
enum Refusal {
    /// The store does not answer, or the token is a wrong one.
    Session(Error),
    /// No token could belong to its session.
    NewSession,
    NoToken,
    TooLarge,
    /// The client has not sent it to its end.
    Broken(BoxError),
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self::Session(error)
    }
}

impl Refusal {
    fn into_response(self, settings: &Settings) -> Response {
        match self {
            Self::Session(error) => error.into_response(),
            Self::NewSession => {
                tracing::info!("refused a request: a new session has no CSRF token yet");
                (StatusCode::FORBIDDEN, OUT_OF_DATE).into_response()
            }
            Self::NoToken => {
                tracing::info!(
                    header = settings.header.as_str(),
                    field = &*settings.field,
                    "refused a request: it has no CSRF token"
                );
                (StatusCode::FORBIDDEN, OUT_OF_DATE).into_response()
            }
            Self::TooLarge => {
                let limit = settings.form_limit;
                tracing::info!(limit, "refused a form: it is too large to look for a CSRF token");
                (StatusCode::PAYLOAD_TOO_LARGE, "The form is too large.").into_response()
            }
            Self::Broken(error) => {
                tracing::debug!("a form did not arrive: {error}");
                (StatusCode::BAD_REQUEST, "The form did not arrive.").into_response()
            }
        }
    }
}

/// The request, if it has a token of its session.
async fn with_token<T: SessionData>(
    settings: &Settings,
    request: Request,
) -> Result<Request, Refusal> {
    let (parts, mut body) = request.into_parts();
    let session = Session::<T>::open(&parts.extensions).await?;
    // Before a body is read that cannot help.
    if session.is_new() {
        return Err(Refusal::NewSession);
    }
    if let Some(token) = parts.headers.get(&settings.header) {
        session.verify_csrf(token.to_str().unwrap_or_default())?;
    } else if is_form(&parts.headers) {
        let token;
        (token, body) = take_token(body, settings).await?;
        session.verify_csrf(&token)?;
    } else {
        return Err(Refusal::NoToken);
    }
    Ok(Request::from_parts(parts, body))
}

fn is_form(headers: &HeaderMap) -> bool {
    const FORM: &str = "application/x-www-form-urlencoded";
    let essence = headers
        .get(header::CONTENT_TYPE)
        .and_then(|content_type| content_type.to_str().ok()?.split(';').next());
    essence.is_some_and(|essence| essence.trim().eq_ignore_ascii_case(FORM))
}

/// The token in a form, and the form as it was.
async fn take_token(body: Body, settings: &Settings) -> Result<(String, Body), Refusal> {
    let form = Limited::new(body, settings.form_limit).collect().await;
    let form = form.map_err(|error| match is_over_limit(&*error) {
        true => Refusal::TooLarge,
        false => Refusal::Broken(error),
    })?;
    let form = form.to_bytes();
    let mut fields = form_urlencoded::parse(&form);
    let (_, token) = fields.find(|(name, _)| *name == settings.field).ok_or(Refusal::NoToken)?;
    let token = token.into_owned();
    Ok((token, Body::from(form)))
}

/// Over ours, or over one that somebody has put around the body.
fn is_over_limit(error: &(dyn StdError + 'static)) -> bool {
    let mut causes = std::iter::successors(Some(error), |&error| error.source());
    causes.any(|error| error.is::<LengthLimitError>())
}
