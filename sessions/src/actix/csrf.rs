//! [`CsrfLayer`] as middleware of actix-web.

use std::{
    fmt,
    future::{Ready, ready as at_once},
    marker::PhantomData,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
};

use actix_web::{
    Error as ActixError,
    body::{BodyStream, EitherBody, MessageBody, to_bytes_limited},
    dev::{Payload, Service, ServiceRequest, ServiceResponse, Transform},
    error::PayloadError,
};
use http::header;

use super::{LocalFuture, convert, lazy};
use crate::{
    csrf::{
        CsrfLayer,
        check::{Judged, Refusal, TokenPlace},
        layer::Settings,
    },
    data::SessionData,
    session::Session,
};

/// What of the headers says where a request comes from.
const OF_AN_ORIGIN: [&str; 5] =
    ["upgrade", "origin", "access-control-request-method", "sec-fetch-site", "host"];

/// The body is read for a token if need be, and handed on whole.
impl<S, B, T> Transform<S, ServiceRequest> for CsrfLayer<T>
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = ActixError> + 'static,
    B: MessageBody + 'static,
    T: SessionData,
{
    type Response = ServiceResponse<EitherBody<B>>;
    type Error = ActixError;
    type Transform = CsrfMiddleware<S, T>;
    type InitError = ();
    type Future = Ready<Result<Self::Transform, ()>>;

    fn new_transform(&self, inner: S) -> Self::Future {
        let (inner, settings) = (Rc::new(inner), self.settings.clone());
        at_once(Ok(CsrfMiddleware { inner, settings, data: PhantomData }))
    }
}

/// What a [`CsrfLayer`] makes of a service of actix-web.
pub struct CsrfMiddleware<S, T> {
    inner: Rc<S>,
    settings: Arc<Settings>,
    data: PhantomData<fn() -> T>,
}

impl<S: fmt::Debug, T> fmt::Debug for CsrfMiddleware<S, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CsrfMiddleware").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl<S, B, T> Service<ServiceRequest> for CsrfMiddleware<S, T>
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = ActixError> + 'static,
    B: MessageBody + 'static,
    T: SessionData,
{
    type Response = ServiceResponse<EitherBody<B>>;
    type Error = ActixError;
    type Future = LocalFuture<Result<Self::Response, ActixError>>;

    fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<Result<(), ActixError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&self, mut request: ServiceRequest) -> Self::Future {
        let (method, uri) = (convert::method(request.method()), convert::uri(request.uri()));
        let headers = convert::some_headers(request.headers(), &OF_AN_ORIGIN);
        let judged = self.settings.judge(&method, &headers, &uri);
        let (inner, settings) = (self.inner.clone(), self.settings.clone());
        Box::pin(async move {
            let refusal = match judged {
                Judged::Passes => None,
                Judged::NeedsToken => check_token::<T>(&settings, &mut request).await.err(),
                Judged::Refused(refusal) => Some(refusal),
            };
            match refusal {
                None => inner.call(request).await.map(ServiceResponse::map_into_left_body),
                Some(refusal) => {
                    let response = settings.refuse(refusal, &convert::head(request.request()));
                    let response = request.into_response(convert::response(response));
                    Ok(response.map_into_right_body())
                }
            }
        })
    }
}

/// Passes a request that has a token of its session; the body is as it was.
async fn check_token<T: SessionData>(
    settings: &Settings,
    request: &mut ServiceRequest,
) -> Result<(), Refusal> {
    let session = Session::<T>::open_lazy(lazy(request.request())).await?;
    let names = [settings.header.as_str(), header::CONTENT_TYPE.as_str()];
    let headers = convert::some_headers(request.headers(), &names);
    match settings.check_before_body(&session, &headers)? {
        TokenPlace::Header => Ok(()),
        TokenPlace::Form => {
            let body = BodyStream::new(request.parts_mut().1.take());
            let form = match to_bytes_limited(body, settings.form_limit).await {
                Ok(Ok(form)) => form,
                Ok(Err(PayloadError::Overflow)) | Err(_) => return Err(Refusal::TooLarge),
                Ok(Err(error)) => return Err(Refusal::Broken(error.to_string().into())),
            };
            let token = settings.token_in(&form)?;
            request.set_payload(Payload::from(form));
            session.verify_csrf(&token)?;
            Ok(())
        }
    }
}
