//! A response on its way out in tower: [`drive`](super::drive) runs the handler and finishes the session, and
//! what came of that goes into the headers, or into a response of the layer's in place of the handler's.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
};

use axum_core::{BoxError, body::Body};
use http::Response;
use pin_project_lite::pin_project;

use super::{
    drive::{Answer, Drive, Driven},
    response::{OnRequestRejection, log_failure, response_or_replacement, write_headers},
};
use crate::{
    data::SessionData,
    session::{Session, finish::Outcome, request::Handle},
};

/// A response that the layer makes itself.
pub(crate) type OwnAnswer = Pin<Box<dyn Future<Output = Response<Body>> + Send>>;

pin_project! {
    /// The response of a [`SessionService`](super::SessionService): the inner service's, with the
    /// session saved and its cookie on it.
    ///
    /// Where nothing has to be saved it allocates nothing. If it is dropped, what the request's
    /// guards wrote is saved in the background. If a guard is not to be had, it drops the inner
    /// service's future, and is a 503.
    pub struct ResponseFuture<F: Future, T: SessionData> {
        #[pin]
        stage: Stage<F, T>,
    }
}

pin_project! {
    #[project = StageProjection]
    enum Stage<F: Future, T: SessionData> {
        Driven {
            #[pin]
            drive: Drive<F, T>,
            on_rejection: OnRequestRejection,
        },
        // The session is none of this layer's business.
        Other {
            // Inside of another layer, which does what there is to do.
            #[pin]
            inner: Option<F>,
            // The layer's own answer to a browser, in place of the inner service's.
            own: Option<OwnAnswer>,
        },
    }
}

impl<F: Future, T: SessionData> ResponseFuture<F, T> {
    pub(super) fn new(inner: F, session: Session<T>, on_rejection: OnRequestRejection) -> Self {
        Self { stage: Stage::Driven { drive: Drive::new(inner, session), on_rejection } }
    }

    /// A response of the layer, which the inner service is not asked for.
    #[cfg(feature = "device-bound")]
    pub(super) fn own(own: OwnAnswer) -> Self {
        Self { stage: Stage::Other { inner: None, own: Some(own) } }
    }

    /// The response of a request whose session another layer of the same application looks after.
    pub(super) fn inside(inner: F) -> Self {
        Self { stage: Stage::Other { inner: Some(inner), own: None } }
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
        match self.project().stage.project() {
            StageProjection::Driven { mut drive, on_rejection } => {
                Poll::Ready(match ready!(drive.as_mut().poll(cx)) {
                    Driven::Untouched(response) => Ok(response.map(Body::new)),
                    Driven::Finished { output, outcome } => {
                        with_session(output, outcome, drive.handle(), on_rejection)
                    }
                })
            }
            StageProjection::Other { inner, own } => match (inner.as_pin_mut(), own) {
                (Some(inner), _) => inner.poll(cx).map_ok(|response| response.map(Body::new)),
                (None, Some(own)) => own.as_mut().poll(cx).map(Ok),
                (None, None) => Poll::Pending,
            },
        }
    }
}

/// The error of an inner service that failed goes on as it is.
fn with_session<T, B, E>(
    output: Answer<Result<Response<B>, E>>,
    mut outcome: Outcome,
    handle: &Handle<T>,
    on_rejection: &OnRequestRejection,
) -> Result<Response<Body>, E>
where
    T: SessionData,
    B: http_body::Body<Data = bytes::Bytes, Error: Into<BoxError>> + Send + 'static,
{
    let mut response = match output {
        // Nearly always: the response is moved once.
        Ok(Ok(response)) if !outcome.may_replace() => response.map(Body::new),
        output => {
            log_failure(&outcome);
            let output = match output {
                Ok(output) => Ok(output?),
                Err(given_up) => Err(given_up),
            };
            match response_or_replacement(output, &mut outcome, on_rejection) {
                Ok(response) => response.map(Body::new),
                Err(replacement) => *replacement,
            }
        }
    };
    write_headers(outcome, handle, response.headers_mut());
    Ok(response)
}

impl<F: Future, T: SessionData> fmt::Debug for ResponseFuture<F, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
