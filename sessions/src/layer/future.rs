use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
};

use axum_core::{BoxError, body::Body};
use http::{Response, request::Parts};
use pin_project_lite::pin_project;

use super::headers;
use crate::{
    data::SessionData,
    error::Error,
    session::{
        Session,
        finish::Outcome,
        request::Handle,
        wait::{Found, Probed, Waits},
    },
    web::rejection::{self, OnRejection, Rejection},
};

/// What the inner service says; or why it says nothing, which is that it waits for a guard that is not
/// to be had.
type Answer<O> = Result<O, Error>;

pin_project! {
    /// The inner service's response, while the session is being saved.
    struct Waiting<O, F: ?Sized> {
        output: Option<Answer<O>>,
        #[pin]
        finishing: F,
    }
}

/// A response that the layer makes itself.
pub(super) type OwnAnswer = Pin<Box<dyn Future<Output = Response<Body>> + Send>>;

type Finishing<O> = Pin<Box<Waiting<O, dyn Future<Output = Outcome> + Send>>>;

pin_project! {
    /// The response of a [`SessionService`](super::SessionService): the inner service's, with the
    /// session saved and its cookie on it.
    ///
    /// Where nothing has to be saved it allocates nothing. If it is dropped, what the request's
    /// guards wrote is saved in the background. If a guard is not to be had, it drops the inner
    /// service's future, and is a 503.
    #[project = StageProjection]
    pub struct ResponseFuture<F: Future, T: SessionData> {
        // Gone once it has been given up.
        #[pin]
        inner: Option<F>,
        // None inside of another layer, which does what there is to do.
        session: Option<Session<T>>,
        on_rejection: Option<Box<(OnRejection, Parts)>>,
        waiting: Option<Finishing<F::Output>>,
        is_done: bool,
        // The layer's own answer to a browser, in place of the inner service's.
        own: Option<OwnAnswer>,
    }

    impl<F: Future, T: SessionData> PinnedDrop for ResponseFuture<F, T> {
        fn drop(this: Pin<&mut Self>) {
            let this = this.project();
            if !*this.is_done && let Some(session) = this.session {
                session.handle().on_disconnect();
            }
        }
    }
}

impl<F: Future, T: SessionData> ResponseFuture<F, T> {
    pub(super) fn new(
        inner: F,
        session: Session<T>,
        on_rejection: Option<Box<(OnRejection, Parts)>>,
    ) -> Self {
        let (inner, session) = (Some(inner), Some(session));
        Self { inner, session, on_rejection, waiting: None, is_done: false, own: None }
    }

    /// A response of the layer, which the inner service is not asked for.
    #[cfg(feature = "device-bound")]
    pub(super) fn own(own: OwnAnswer) -> Self {
        Self {
            inner: None,
            session: None,
            on_rejection: None,
            waiting: None,
            is_done: false,
            own: Some(own),
        }
    }

    /// The response of a request whose session another layer of the same application looks after.
    pub(super) fn inside(inner: F) -> Self {
        Self {
            inner: Some(inner),
            session: None,
            on_rejection: None,
            waiting: None,
            is_done: false,
            own: None,
        }
    }
}

impl<F, T, B, E> Future for ResponseFuture<F, T>
where
    F: Future<Output = Result<Response<B>, E>>,
    T: SessionData,
    B: http_body::Body<Data = bytes::Bytes, Error: Into<BoxError>> + Send + 'static,
{
    type Output = Result<Response<Body>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if let Some(own) = this.own {
            return own.as_mut().poll(cx).map(Ok);
        }
        let Some(session) = this.session else {
            let output = this.inner.as_pin_mut().map_or(Poll::Pending, |inner| inner.poll(cx));
            return output.map_ok(|response| response.map(Body::new));
        };
        if this.waiting.is_none() {
            let handle = session.handle();
            handle.begin_poll();
            let output = ready!(answer(this.inner, &handle.waits, cx));
            let output = match output {
                Ok(Ok(response)) if handle.begin_answer() => {
                    *this.is_done = true;
                    return Poll::Ready(Ok(response.map(Body::new)));
                }
                output => output,
            };
            if matches!(output, Ok(Err(_))) {
                handle.on_response_lost();
            }
            if let Some(outcome) = handle.finish_now() {
                *this.is_done = true;
                return Poll::Ready(with_session(output, outcome, handle, this.on_rejection));
            }
            let handle = handle.clone();
            let finishing = async move { handle.finish().await };
            *this.waiting = Some(Box::pin(Waiting { output: Some(output), finishing }));
        }
        let Some(waiting) = this.waiting else { return Poll::Pending };
        let waiting = waiting.as_mut().project();
        let outcome = ready!(waiting.finishing.poll(cx));
        let output = waiting.output.take().expect("a future is polled until it is ready");
        *this.is_done = true;
        Poll::Ready(with_session(output, outcome, session.handle(), this.on_rejection))
    }
}

fn answer<F: Future>(
    mut inner: Pin<&mut Option<F>>,
    waits: &Waits,
    cx: &mut Context<'_>,
) -> Poll<Answer<F::Output>> {
    loop {
        let Some(mut handler) = inner.as_mut().as_pin_mut() else { return Poll::Pending };
        if let Poll::Ready(output) = handler.as_mut().poll(cx) {
            return Poll::Ready(Ok(output));
        }
        match waits.check(cx.waker()) {
            Found::Pending => return Poll::Pending,
            Found::GivenUp(error) => {
                // With its guards, for which others may be waiting.
                inner.set(None);
                return Poll::Ready(Err(error));
            }
            Found::Suspected => match waits.probe(handler.as_mut(), cx) {
                Probed::Done(output) => return Poll::Ready(Ok(output)),
                Probed::Alive => {}
                Probed::WaitsForItself => {
                    if let Poll::Ready(output) = waits.tell_that_it_waits_for_itself(handler, cx) {
                        return Poll::Ready(Ok(output));
                    }
                }
            },
        }
    }
}

/// The error of an inner service that failed goes on as it is. A response whose session could not
/// be saved is replaced; what has become of the session before that, the client is told all the
/// same, or a renewal would leave it with a dead cookie.
fn with_session<T, B, E>(
    output: Answer<Result<Response<B>, E>>,
    outcome: Outcome,
    handle: &Handle<T>,
    on_rejection: &Option<Box<(OnRejection, Parts)>>,
) -> Result<Response<Body>, E>
where
    T: SessionData,
    B: http_body::Body<Data = bytes::Bytes, Error: Into<BoxError>> + Send + 'static,
{
    if let Some(error) = &outcome.error {
        tracing::error!(
            "a session could not be saved, its response is replaced: {}",
            error.for_log()
        );
    }
    let output = match output {
        Ok(output) => Ok(output?),
        Err(given_up) => Err(given_up),
    };
    let output = outcome.error.map_or(output, Err);
    let mut response = match output {
        Ok(response) => response.map(Body::new),
        Err(error) => {
            let rejection = Rejection::from(error);
            match on_rejection.as_deref() {
                Some((function, request)) => function.response(&rejection, request),
                None => rejection::default_response(&rejection),
            }
        }
    };
    #[cfg(feature = "device-bound")]
    if let Some(devices) = handle.shared.devices.as_deref() {
        response = super::device::with_device(devices, response, outcome.device);
    }
    let headers = response.headers_mut();
    if outcome.opened {
        headers::vary_by_cookie(headers);
    }
    if let Some(cookie) = outcome.cookie {
        headers::never_store(headers);
        handle.shared.cookie.put(cookie, headers);
    } else if outcome.opened {
        headers::keep_private(headers);
    }
    #[cfg(feature = "adopt")]
    remove_old_cookie(handle, headers);
    Ok(response)
}

/// Takes the cookie of an earlier library from a client that needs it no more.
#[cfg(feature = "adopt")]
fn remove_old_cookie<T: SessionData>(handle: &Handle<T>, headers: &mut http::HeaderMap) {
    if let Some(removal) = handle.old_cookie_removal() {
        headers::never_store(headers);
        headers.append(http::header::SET_COOKIE, removal);
    }
}

impl<F: Future, T: SessionData> fmt::Debug for ResponseFuture<F, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
