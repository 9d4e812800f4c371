//! [`SessionLayer`] as middleware of actix-web.

use std::{
    cell::RefCell,
    convert::Infallible,
    fmt,
    future::{Ready, ready as at_once},
    pin::Pin,
    task::{Context, Poll, ready},
};

use actix_web::{
    Error as ActixError, HttpMessage, HttpResponse, ResponseError,
    body::{EitherBody, MessageBody},
    dev::{Service, ServiceRequest, ServiceResponse, Transform},
    http as old,
};
use pin_project_lite::pin_project;

use super::{convert, lazy};
#[cfg(feature = "device-bound")]
use crate::layer::device;
use crate::{
    data::SessionData,
    layer::{
        SessionLayer,
        drive::{Answer, Drive, Driven},
        future::OwnAnswer,
        response::{OnRequestRejection, log_failure, response_or_replacement, write_headers},
    },
    session::{Lazy, Session, finish::Outcome, request::Handle},
};

impl<S, B, T> Transform<S, ServiceRequest> for SessionLayer<T>
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = ActixError>,
    B: MessageBody,
    T: SessionData,
{
    type Response = ServiceResponse<EitherBody<B>>;
    type Error = ActixError;
    type Transform = SessionMiddleware<S, T>;
    type InitError = ();
    type Future = Ready<Result<Self::Transform, ()>>;

    fn new_transform(&self, inner: S) -> Self::Future {
        at_once(Ok(SessionMiddleware { inner, layer: self.clone() }))
    }
}

/// What a [`SessionLayer`] makes of a service of actix-web.
///
/// A response whose session could not be saved is replaced.
pub struct SessionMiddleware<S, T: SessionData> {
    inner: S,
    layer: SessionLayer<T>,
}

impl<S: fmt::Debug, T: SessionData> fmt::Debug for SessionMiddleware<S, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionMiddleware").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl<S, B, T> Service<ServiceRequest> for SessionMiddleware<S, T>
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = ActixError>,
    B: MessageBody,
    T: SessionData,
{
    type Response = ServiceResponse<EitherBody<B>>;
    type Error = ActixError;
    type Future = SessionFuture<S::Future, T>;

    fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<Result<(), ActixError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&self, request: ServiceRequest) -> Self::Future {
        let shared = &self.layer.shared;
        // With two handles on its session a request would have two cookies, of which the outer one's
        // would replace the inner one's.
        if let Some(Lazy(outer)) = lazy::<T>(request.request()) {
            let outer = &outer.handle().shared;
            if shared.is_or_answers_for(outer) {
                let inner = self.inner.call(request);
                return SessionFuture { stage: Stage::Inside { inner } };
            }
            shared.warn_of_outer(outer);
        }
        #[cfg(feature = "device-bound")]
        if let Some(answering) =
            device::answer(shared, request.method() == old::Method::POST, request.path(), || {
                convert::headers(request.headers())
            })
        {
            return SessionFuture { stage: Stage::Own { request: Some(request), answering } };
        }
        let headers = match shared.reads_headers_beside_cookies() {
            true => convert::headers(request.headers()),
            false => convert::some_headers(request.headers(), &["cookie"]),
        };
        let method = convert::method(request.method());
        let session = Session::<T>::lazy(shared.clone(), &method, &headers);
        let on_rejection = self
            .layer
            .on_rejection
            .as_ref()
            .map(|function| Box::new((function.clone(), convert::head(request.request()))));
        request.extensions_mut().insert(Lazy(session.clone()));
        let inner = Whole { inner: self.inner.call(request) };
        SessionFuture { stage: Stage::Driven { drive: Drive::new(inner, session), on_rejection } }
    }
}

pin_project! {
    /// To actix-web an error of a service is a response: there is none that is lost.
    struct Whole<F> {
        #[pin]
        inner: F,
    }
}

impl<F: Future> Future for Whole<F> {
    type Output = Result<F::Output, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.project().inner.poll(cx).map(Ok)
    }
}

pin_project! {
    /// The response of a [`SessionMiddleware`]: the inner service's, with the session saved and its
    /// cookie on it.
    ///
    /// Where nothing has to be saved it allocates nothing. If it is dropped, what the request's
    /// guards wrote is saved in the background. If a guard is not to be had, it drops the inner
    /// service's future, and is a 503.
    pub struct SessionFuture<F: Future, T: SessionData> {
        #[pin]
        stage: Stage<F, T>,
    }
}

pin_project! {
    #[project = StageProjection]
    enum Stage<F: Future, T: SessionData> {
        Driven {
            #[pin]
            drive: Drive<Whole<F>, T>,
            on_rejection: OnRequestRejection,
        },
        // Inside of another layer, which does what there is to do.
        Inside {
            #[pin]
            inner: F,
        },
        // The layer's own answer to a browser, in place of the inner service's.
        Own {
            request: Option<ServiceRequest>,
            answering: OwnAnswer,
        },
    }
}

impl<F, T, B> Future for SessionFuture<F, T>
where
    F: Future<Output = Result<ServiceResponse<B>, ActixError>>,
    T: SessionData,
    B: MessageBody,
{
    type Output = Result<ServiceResponse<EitherBody<B>>, ActixError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().stage.project() {
            StageProjection::Driven { mut drive, on_rejection } => {
                Poll::Ready(match ready!(drive.as_mut().poll(cx)) {
                    Driven::Untouched(output) => output.map(ServiceResponse::map_into_left_body),
                    Driven::Finished { output, outcome } => {
                        with_session(output, outcome, drive.handle(), on_rejection)
                    }
                })
            }
            StageProjection::Inside { inner } => {
                inner.poll(cx).map_ok(ServiceResponse::map_into_left_body)
            }
            StageProjection::Own { request, answering } => {
                let response = convert::response(ready!(answering.as_mut().poll(cx)));
                let request = request.take().expect("a future is polled until it is ready");
                Poll::Ready(Ok(request.into_response(response).map_into_right_body()))
            }
        }
    }
}

type Output<B> = Result<ServiceResponse<B>, ActixError>;

fn with_session<T: SessionData, B>(
    output: Answer<Result<Output<B>, Infallible>>,
    mut outcome: Outcome,
    handle: &Handle<T>,
    on_rejection: &OnRequestRejection,
) -> Output<EitherBody<B>> {
    log_failure(&outcome);
    let output = output.map(|Ok(output)| output);
    // Before the handler was called a clone would have kept actix-web from finding the route.
    let request = match &output {
        Ok(Ok(response)) => Some(response.request().clone()),
        _ => None,
    };
    match response_or_replacement(output, &mut outcome, on_rejection) {
        Ok(Ok(mut response)) => {
            let change = |headers: &mut _| write_headers(outcome, handle, headers);
            convert::change_headers(response.headers_mut(), change);
            Ok(response.map_into_left_body())
        }
        Ok(Err(error)) => {
            let mut response = error.error_response();
            let change = |headers: &mut _| write_headers(outcome, handle, headers);
            match convert::change_headers(response.headers_mut(), change) {
                true => Err(Answered::new(response, error.to_string()).into()),
                false => Err(error),
            }
        }
        Err(mut replacement) => {
            write_headers(outcome, handle, replacement.headers_mut());
            let response = convert::response(*replacement);
            match request {
                Some(request) => Ok(ServiceResponse::new(request, response).map_into_right_body()),
                None => Err(Answered::new(response, "the session failed a request".into()).into()),
            }
        }
    }
}

/// An error that has its response: the request that actix-web wants beside a response is gone.
#[derive(Debug)]
struct Answered {
    response: RefCell<Option<HttpResponse>>,
    /// The head of the response, for a caller that asks for the response again.
    status: old::StatusCode,
    headers: old::header::HeaderMap,
    why: String,
}

impl Answered {
    fn new(response: HttpResponse, why: String) -> Self {
        let (status, headers) = (response.status(), response.headers().clone());
        Self { response: RefCell::new(Some(response)), status, headers, why }
    }
}

impl fmt::Display for Answered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

impl ResponseError for Answered {
    fn status_code(&self) -> old::StatusCode {
        self.status
    }

    fn error_response(&self) -> HttpResponse {
        self.response.take().unwrap_or_else(|| {
            let mut response = HttpResponse::new(self.status);
            *response.headers_mut() = self.headers.clone();
            response
        })
    }
}

impl<F: Future, T: SessionData> fmt::Debug for SessionFuture<F, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionFuture").finish_non_exhaustive()
    }
}
