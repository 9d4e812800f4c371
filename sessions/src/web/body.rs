//! The body of a response whose layer may have put another in its place.

use std::{
    error::Error as StdError,
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use pin_project_lite::pin_project;

pub(crate) type BoxError = Box<dyn StdError + Send + Sync>;

/// A body that takes the place of a handler's.
pub(crate) type OwnBody = UnsyncBoxBody<Bytes, BoxError>;

pin_project! {
    /// The body of a response that has come through a [`SessionLayer`](crate::SessionLayer) or
    /// [`RequireLogin`](crate::RequireLogin): the inner service's, or, where the layer has answered
    /// in its place, the layer's own.
    ///
    /// So these layers go around a service whatever its bodies are. It is an `http_body::Body` where
    /// the inner one is; axum and tower's other layers take it as any other. `axum::serve` takes it
    /// inside of a `Router`; around one, `tower_http::map_response_body::MapResponseBodyLayer` with
    /// `axum::body::Body::new` makes it into the body that `axum::serve` wants.
    pub struct ResponseBody<B> {
        #[pin]
        body: Either<B>,
    }
}

pin_project! {
    #[project = EitherProjection]
    enum Either<B> {
        Inner {
            #[pin]
            body: B,
        },
        Own {
            #[pin]
            body: OwnBody,
        },
        Empty,
    }
}

impl<B> ResponseBody<B> {
    pub(crate) fn inner(body: B) -> Self {
        Self { body: Either::Inner { body } }
    }

    pub(crate) fn own(body: OwnBody) -> Self {
        Self { body: Either::Own { body } }
    }

    /// The inner service's body; `None` if a layer has answered in its place.
    pub fn into_inner(self) -> Option<B> {
        match self.body {
            Either::Inner { body } => Some(body),
            Either::Own { .. } | Either::Empty => None,
        }
    }

    /// The inner service's body; `None` if a layer has answered in its place.
    pub fn get_ref(&self) -> Option<&B> {
        match &self.body {
            Either::Inner { body } => Some(body),
            Either::Own { .. } | Either::Empty => None,
        }
    }
}

/// Empty.
impl<B> Default for ResponseBody<B> {
    fn default() -> Self {
        Self { body: Either::Empty }
    }
}

impl<B> fmt::Debug for ResponseBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseBody").finish_non_exhaustive()
    }
}

impl<B> Body for ResponseBody<B>
where
    B: Body<Data = Bytes, Error: Into<BoxError>>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.project().body.project() {
            EitherProjection::Inner { body } => {
                body.poll_frame(cx).map(|frame| frame.map(|frame| frame.map_err(Into::into)))
            }
            EitherProjection::Own { body } => body.poll_frame(cx),
            EitherProjection::Empty => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.body {
            Either::Inner { body } => body.is_end_stream(),
            Either::Own { body } => body.is_end_stream(),
            Either::Empty => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.body {
            Either::Inner { body } => body.size_hint(),
            Either::Own { body } => body.size_hint(),
            Either::Empty => SizeHint::with_exact(0),
        }
    }
}
