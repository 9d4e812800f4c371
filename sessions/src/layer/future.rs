use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::Response;
use pin_project_lite::pin_project;

use super::headers;
use crate::{
    Session, SessionData,
    handle::{Handle, Outcome},
};

pin_project! {
    /// The inner service's response, while the session is being saved.
    struct Waiting<O, F: ?Sized> {
        output: Option<O>,
        #[pin]
        finishing: F,
    }
}

type Finishing<O> = Pin<Box<Waiting<O, dyn Future<Output = Outcome> + Send>>>;

pin_project! {
    /// The response of a [`SessionService`](super::SessionService): the inner service's, with the
    /// session saved and its cookie on it.
    ///
    /// Where nothing has to be saved it allocates nothing. If it is dropped, what the request's
    /// guards wrote is saved in the background.
    #[project = StageProjection]
    pub struct ResponseFuture<F: Future, T: SessionData> {
        #[pin]
        inner: F,
        // None inside of another layer, which does what there is to do.
        session: Option<Session<T>>,
        waiting: Option<Finishing<F::Output>>,
        is_done: bool,
    }

    impl<F: Future, T: SessionData> PinnedDrop for ResponseFuture<F, T> {
        fn drop(this: Pin<&mut Self>) {
            let this = this.project();
            if !*this.is_done && let Some(session) = this.session {
                session.handle().hang_up();
            }
        }
    }
}

impl<F: Future, T: SessionData> ResponseFuture<F, T> {
    pub(super) fn new(inner: F, session: Session<T>) -> Self {
        Self { inner, session: Some(session), waiting: None, is_done: false }
    }

    /// The response of a request whose session another layer of the same application looks after.
    pub(super) fn inside(inner: F) -> Self {
        Self { inner, session: None, waiting: None, is_done: false }
    }
}

impl<F, T, B, E> Future for ResponseFuture<F, T>
where
    F: Future<Output = Result<Response<B>, E>>,
    T: SessionData,
    B: Default,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let Some(session) = this.session else { return this.inner.poll(cx) };
        if this.waiting.is_none() {
            let output = ready!(this.inner.poll(cx));
            let handle = session.handle();
            if output.is_err() {
                handle.cannot_answer();
            }
            if let Some(outcome) = handle.finish_now() {
                *this.is_done = true;
                return Poll::Ready(with_session(output, outcome, handle));
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
        Poll::Ready(with_session(output, outcome, session.handle()))
    }
}

/// The error of an inner service that failed goes on as it is. A response whose session could not
/// be saved is replaced; what has become of the session before that, the client is told all the
/// same, or a renewal would leave it with a dead cookie.
fn with_session<T: SessionData, B: Default, E>(
    output: Result<Response<B>, E>,
    outcome: Outcome,
    handle: &Handle<T>,
) -> Result<Response<B>, E> {
    if let Some(error) = &outcome.error {
        tracing::error!(
            "a session could not be saved, its response is replaced: {}",
            error.for_log()
        );
    }
    let mut response = output?;
    if let Some(error) = outcome.error {
        response = Response::new(B::default());
        *response.status_mut() = error.status();
        headers::never_store(response.headers_mut());
    }
    if outcome.opened {
        headers::vary_by_cookie(response.headers_mut());
    }
    if let Some(cookie) = outcome.cookie {
        headers::never_store(response.headers_mut());
        handle.shared.cookie.put(cookie, response.headers_mut());
    }
    Ok(response)
}

impl<F: Future, T: SessionData> fmt::Debug for ResponseFuture<F, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
