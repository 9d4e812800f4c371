//! [`RequireLogin`] as middleware of actix-web.

use std::{
    fmt,
    future::{Ready, ready as at_once},
    rc::Rc,
    task::{Context, Poll},
};

use actix_web::{
    Error as ActixError,
    body::{BoxBody, EitherBody, MessageBody},
    dev::{Service, ServiceRequest, ServiceResponse, Transform},
    http as old,
};

use super::{LocalFuture, convert, lazy};
use crate::{data::user::SessionUser, login::require::RequireLogin, web::preflight::is_preflight};

/// What of the headers says whether a request is a preflight.
const OF_A_PREFLIGHT: [&str; 2] = ["origin", "access-control-request-method"];

impl<S, B, T> Transform<S, ServiceRequest> for RequireLogin<T>
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = ActixError> + 'static,
    B: MessageBody + 'static,
    T: SessionUser,
{
    type Response = ServiceResponse<EitherBody<B>>;
    type Error = ActixError;
    type Transform = RequireLoginMiddleware<S, T>;
    type InitError = ();
    type Future = Ready<Result<Self::Transform, ()>>;

    fn new_transform(&self, inner: S) -> Self::Future {
        at_once(Ok(RequireLoginMiddleware { inner: Rc::new(inner), require: self.clone() }))
    }
}

/// What [`RequireLogin`] makes of a service of actix-web.
pub struct RequireLoginMiddleware<S, T: SessionUser> {
    inner: Rc<S>,
    require: RequireLogin<T>,
}

impl<S: fmt::Debug, T: SessionUser> fmt::Debug for RequireLoginMiddleware<S, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequireLoginMiddleware")
            .field("inner", &self.inner)
            .field("require", &self.require)
            .finish_non_exhaustive()
    }
}

impl<S, B, T> Service<ServiceRequest> for RequireLoginMiddleware<S, T>
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = ActixError> + 'static,
    B: MessageBody + 'static,
    T: SessionUser,
{
    type Response = ServiceResponse<EitherBody<B>>;
    type Error = ActixError;
    type Future = LocalFuture<Result<Self::Response, ActixError>>;

    fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<Result<(), ActixError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&self, request: ServiceRequest) -> Self::Future {
        let method = convert::method(request.method());
        let headers = convert::some_headers(request.headers(), &OF_A_PREFLIGHT);
        let (inner, require) = (self.inner.clone(), self.require.clone());
        Box::pin(async move {
            if is_preflight(&method, &headers) {
                return inner.call(request).await.map(without_body);
            }
            let judging = require.judge(lazy(request.request()));
            match judging.await {
                Ok(()) => inner.call(request).await.map(ServiceResponse::map_into_left_body),
                Err(refusal) => {
                    let response = require.refuse(refusal, &convert::head(request.request()));
                    let response = request.into_response(convert::response(response));
                    Ok(response.map_into_right_body())
                }
            }
        })
    }
}

/// What a preflight asks for is in the headers.
fn without_body<B>(response: ServiceResponse<B>) -> ServiceResponse<EitherBody<B>> {
    response.map_body(|head, _| {
        head.headers_mut().remove(old::header::CONTENT_LENGTH);
        EitherBody::right(BoxBody::new(()))
    })
}
