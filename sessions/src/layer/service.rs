use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll},
};

use http::{Request, Response};
use tower_service::Service;

use super::ResponseFuture;
use crate::{Session, SessionData, session::Lazy, shared::Shared};

/// What a [`SessionLayer`](super::SessionLayer) makes of a service.
///
/// The response's body type must have a default: it stands in for the handler's when the session
/// could not be saved.
pub struct SessionService<S, T: SessionData> {
    inner: S,
    shared: Arc<Shared<T>>,
}

impl<S, T: SessionData> SessionService<S, T> {
    pub(super) fn new(inner: S, shared: Arc<Shared<T>>) -> Self {
        Self { inner, shared }
    }
}

impl<S: Clone, T: SessionData> Clone for SessionService<S, T> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), shared: self.shared.clone() }
    }
}

impl<S: fmt::Debug, T: SessionData> fmt::Debug for SessionService<S, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionService").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl<S, T, RequestBody, ResponseBody> Service<Request<RequestBody>> for SessionService<S, T>
where
    S: Service<Request<RequestBody>, Response = Response<ResponseBody>>,
    T: SessionData,
    ResponseBody: Default,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future, T>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<RequestBody>) -> Self::Future {
        // With two handles on its session a request would have two cookies, of which the outer one's
        // would replace the inner one's.
        let outer = request.extensions().get::<Lazy<T>>();
        if outer.is_some_and(|Lazy(outer)| self.shared.is_or_answers_for(&outer.handle().shared)) {
            return ResponseFuture::inside(self.inner.call(request));
        }
        let session = Session::<T>::lazy(self.shared.clone(), request.headers());
        request.extensions_mut().insert(Lazy(session.clone()));
        ResponseFuture::new(self.inner.call(request), session)
    }
}
