//! A request on its way in: it gets a handle on its session, and nothing is opened, parsed or looked up yet.

use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll},
};

use axum_core::{BoxError, body::Body};
use http::{Request, Response, request::Parts};
use tower_service::Service;

#[cfg(feature = "device-bound")]
use crate::layer::device;
use crate::layer::future::ResponseFuture;
use crate::{
    data::SessionData,
    save::shared::Shared,
    session::{Lazy, Session},
    web::rejection::OnRejection,
};

/// What a [`SessionLayer`](super::SessionLayer) makes of a service.
///
/// Its responses have axum's [`Body`]: the inner service's, whatever its type, or, where the session
/// could not be saved, the body of the error. So the layer goes around a route, a router or any other
/// service; a body that is axum's already passes as it is, without a box.
pub struct SessionService<S, T: SessionData> {
    inner: S,
    shared: Arc<Shared<T>>,
    on_rejection: Option<OnRejection>,
}

impl<S, T: SessionData> SessionService<S, T> {
    pub(super) fn new(inner: S, shared: Arc<Shared<T>>, on_rejection: Option<OnRejection>) -> Self {
        Self { inner, shared, on_rejection }
    }

    /// Whether another layer looks after the request's session already.
    fn is_inside<B>(&self, request: &Request<B>) -> bool {
        request.extensions().get::<Lazy<T>>().is_some_and(|outer| self.is_answered_by(outer))
    }

    /// Whether the layer of this handle looks after this layer's sessions too.
    fn is_answered_by(&self, Lazy(outer): &Lazy<T>) -> bool {
        self.shared.is_or_answers_for(&outer.handle().shared)
    }
}

impl<S: Clone, T: SessionData> Clone for SessionService<S, T> {
    fn clone(&self) -> Self {
        Self::new(self.inner.clone(), self.shared.clone(), self.on_rejection.clone())
    }
}

impl<S: fmt::Debug, T: SessionData> fmt::Debug for SessionService<S, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionService").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl<S, T, RequestBody, B> Service<Request<RequestBody>> for SessionService<S, T>
where
    S: Service<Request<RequestBody>, Response = Response<B>>,
    T: SessionData,
    B: http_body::Body<Data = bytes::Bytes, Error: Into<BoxError>> + Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future, T>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    /// Never inlined: the future would be moved once more on its way out (a hundred instructions).
    #[inline(never)]
    fn call(&mut self, mut request: Request<RequestBody>) -> Self::Future {
        #[cfg(feature = "device-bound")]
        if self.shared.devices.is_some()
            && !self.is_inside(&request)
            && let Some(answering) = device::answer(
                &self.shared,
                request.method() == http::Method::POST,
                request.uri().path(),
                || request.headers().clone(),
            )
        {
            return ResponseFuture::own(answering);
        }
        let session = Session::<T>::lazy(self.shared.clone(), request.method(), request.headers());
        let on_rejection = match &self.on_rejection {
            // Before the session is in it, which the copy would keep in use.
            Some(function) if !self.is_inside(&request) => {
                Some(Box::new((function.clone(), head_of(&request))))
            }
            _ => None,
        };
        let outer = request.extensions_mut().insert(Lazy(session.clone()));
        // With two handles on its session a request would have two cookies, of which the outer one's
        // would replace the inner one's.
        match outer {
            None => {}
            Some(outer) if self.is_answered_by(&outer) => {
                request.extensions_mut().insert(outer);
                return ResponseFuture::inside(self.inner.call(request));
            }
            Some(Lazy(outer)) => self.shared.warn_of_outer(&outer.handle().shared),
        }
        ResponseFuture::new(self.inner.call(request), session, on_rejection)
    }
}

/// A copy of the request's head, made without moving the request.
fn head_of<B>(request: &Request<B>) -> Parts {
    let (mut head, ()) = Request::new(()).into_parts();
    head.method = request.method().clone();
    head.uri = request.uri().clone();
    head.version = request.version();
    head.headers = request.headers().clone();
    head.extensions = request.extensions().clone();
    head
}
