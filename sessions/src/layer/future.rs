use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http::Response;
use pin_project_lite::pin_project;

use super::headers;
use crate::{
    Session, SessionData,
    error::Error,
    handle::{Handle, Outcome},
};

type Finishing = Pin<Box<dyn Future<Output = Result<Outcome, Error>> + Send>>;

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
        session: Session<T>,
        // The inner service's response, while the session is being saved.
        waiting: Option<(F::Output, Finishing)>,
    }
}

impl<F: Future, T: SessionData> ResponseFuture<F, T> {
    pub(super) fn new(inner: F, session: Session<T>) -> Self {
        Self { inner, session, waiting: None }
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
        if this.waiting.is_none() {
            let output = ready!(this.inner.poll(cx));
            let handle = this.session.handle();
            if output.is_err() {
                handle.cannot_answer();
            }
            match handle.finish_now() {
                Some(outcome) => return Poll::Ready(with_session(output, Ok(outcome), handle)),
                None => {
                    let handle = handle.clone();
                    let finishing = Box::pin(async move { handle.finish().await });
                    *this.waiting = Some((output, finishing));
                }
            }
        }
        let Some((_, finishing)) = this.waiting else { return Poll::Pending };
        let outcome = ready!(finishing.as_mut().poll(cx));
        let Some((output, _)) = this.waiting.take() else { return Poll::Pending };
        Poll::Ready(with_session(output, outcome, this.session.handle()))
    }
}

/// The error of an inner service that failed goes on as it is.
fn with_session<T: SessionData, B: Default, E>(
    output: Result<Response<B>, E>,
    outcome: Result<Outcome, Error>,
    handle: &Arc<Handle<T>>,
) -> Result<Response<B>, E> {
    match outcome {
        Ok(Outcome { opened: false, .. }) => output,
        Ok(outcome) => {
            let mut response = output?;
            headers::vary_by_cookie(response.headers_mut());
            if let Some(cookie) = outcome.cookie {
                headers::never_store(response.headers_mut());
                handle.shared.cookie.put(cookie, response.headers_mut());
            }
            Ok(response)
        }
        Err(error) => {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "a session could not be saved: its response is replaced"
            );
            output?;
            let mut failed = Response::new(B::default());
            *failed.status_mut() = error.status();
            headers::never_store(failed.headers_mut());
            Ok(failed)
        }
    }
}

impl<F: Future, T: SessionData> fmt::Debug for ResponseFuture<F, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
