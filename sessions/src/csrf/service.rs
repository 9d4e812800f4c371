//! The check of a `CsrfLayer` in tower: a request passes, is refused, or waits until its token is compared.
//!
//! 1. The method, the headers and the address decide at once, without a future, for most requests.
//! 2. A token in a form is looked for in the body, which is read up to a limit and handed on whole.

use std::{
    error::Error as StdError,
    fmt,
    marker::PhantomData,
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use axum_core::{
    BoxError,
    body::Body,
    extract::Request,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use http::request::Parts;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use pin_project_lite::pin_project;
use tower_service::Service;

use super::{
    check::{Judged, Refusal, TokenPlace},
    layer::Settings,
};
use crate::{data::SessionData, session::Session};

/// What a [`CsrfLayer`](super::CsrfLayer) makes of a service.
pub struct CsrfService<S, T> {
    inner: S,
    settings: Arc<Settings>,
    data: PhantomData<fn() -> T>,
}

impl<S, T> CsrfService<S, T> {
    pub(super) fn new(inner: S, settings: Arc<Settings>) -> Self {
        Self { inner, settings, data: PhantomData }
    }
}

impl<S: Clone, T> Clone for CsrfService<S, T> {
    fn clone(&self) -> Self {
        Self::new(self.inner.clone(), self.settings.clone())
    }
}

impl<S: fmt::Debug, T> fmt::Debug for CsrfService<S, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CsrfService").field("inner", &self.inner).finish_non_exhaustive()
    }
}

/// Whatever the request's body is, it is axum's from here on.
impl<S, T, B> Service<http::Request<B>> for CsrfService<S, T>
where
    S: Service<Request> + Clone + Send + 'static,
    S::Response: IntoResponse,
    S::Future: Send,
    T: SessionData,
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    type Response = Response;
    type Error = S::Error;
    type Future = CsrfFuture<S::Future, S::Error>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let request = request.map(Body::new);
        let settings = &*self.settings;
        match settings.judge(request.method(), request.headers(), request.uri()) {
            Judged::Passes => {
                return CsrfFuture { stage: Stage::Passed { inner: self.inner.call(request) } };
            }
            Judged::NeedsToken => {}
            Judged::Refused(refusal) => {
                let (head, _) = request.into_parts();
                let response = Some(Box::new(settings.refuse(refusal, &head)));
                return CsrfFuture { stage: Stage::Refused { response } };
            }
        }
        // The service that is ready is the one to be called; the next request gets its clone.
        let next = self.inner.clone();
        let mut inner = mem::replace(&mut self.inner, next);
        let settings = self.settings.clone();
        let checking = async move {
            let (head, body) = request.into_parts();
            match check_token::<T>(&settings, &head, body).await {
                Ok(body) => {
                    let request = Request::from_parts(head, body);
                    inner.call(request).await.map(IntoResponse::into_response)
                }
                Err(refusal) => Ok(settings.refuse(refusal, &head)),
            }
        };
        CsrfFuture { stage: Stage::Checking { checking: Box::pin(checking) } }
    }
}

type Checking<E> = Pin<Box<dyn Future<Output = Result<Response, E>> + Send>>;

pin_project! {
    /// The response of a [`CsrfService`]: the inner service's, or a refusal.
    ///
    /// A request that needs no token costs no allocation.
    pub struct CsrfFuture<F, E> {
        #[pin]
        stage: Stage<F, E>,
    }
}

pin_project! {
    #[project = StageProjection]
    enum Stage<F, E> {
        Passed {
            #[pin]
            inner: F,
        },
        Refused {
            response: Option<Box<Response>>,
        },
        Checking {
            checking: Checking<E>,
        },
    }
}

impl<F, R, E> Future for CsrfFuture<F, E>
where
    F: Future<Output = Result<R, E>>,
    R: IntoResponse,
{
    type Output = Result<Response, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().stage.project() {
            StageProjection::Passed { inner } => {
                Poll::Ready(ready!(inner.poll(cx)).map(IntoResponse::into_response))
            }
            StageProjection::Refused { response } => {
                let response = response.take().expect("a future is polled until it is ready");
                Poll::Ready(Ok(*response))
            }
            StageProjection::Checking { checking } => checking.as_mut().poll(cx),
        }
    }
}

impl<F, E> fmt::Debug for CsrfFuture<F, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CsrfFuture").finish_non_exhaustive()
    }
}

/// The body, of a request that has a token of its session.
async fn check_token<T: SessionData>(
    settings: &Settings,
    head: &Parts,
    body: Body,
) -> Result<Body, Refusal> {
    let session = Session::<T>::open(&head.extensions).await?;
    match settings.check_before_body(&session, &head.headers)? {
        TokenPlace::Header => Ok(body),
        TokenPlace::Form => {
            let (token, body) = take_token(body, settings).await?;
            session.verify_csrf(&token)?;
            Ok(body)
        }
    }
}

/// The token in a form, and the form as it was.
async fn take_token(body: Body, settings: &Settings) -> Result<(String, Body), Refusal> {
    let form = Limited::new(body, settings.form_limit).collect().await;
    let form = form.map_err(|error| match is_over_limit(&*error) {
        true => Refusal::TooLarge,
        false => Refusal::Broken(error),
    })?;
    let form = form.to_bytes();
    Ok((settings.token_in(&form)?, Body::from(form)))
}

/// Over ours, or over one that another layer has put around the body.
fn is_over_limit(error: &(dyn StdError + 'static)) -> bool {
    let mut causes = std::iter::successors(Some(error), |&error| error.source());
    causes.any(|error| error.is::<LengthLimitError>())
}

#[cfg(test)]
#[cfg(feature = "derive")]
mod tests {
    use std::{convert::Infallible, future, io};

    use http::header;
    use http_body::Frame;
    use tower_layer::Layer;

    use super::*;
    use crate::csrf::{CsrfLayer, OriginCheck};

    fn settings() -> Settings {
        Settings {
            origins: OriginCheck::new(),
            unchecked_paths: Vec::new(),
            needs_token: true,
            header: header::HeaderName::from_static("x-csrf-token"),
            field: "csrf_token".into(),
            form_limit: 30,
            on_rejection: None,
        }
    }

    /// Some bytes, and then an error.
    struct Broken(Option<&'static str>);

    impl http_body::Body for Broken {
        type Data = Bytes;
        type Error = io::Error;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
            let frame = match self.0.take() {
                Some(bytes) => Ok(Frame::data(Bytes::from_static(bytes.as_bytes()))),
                None => Err(io::ErrorKind::ConnectionReset.into()),
            };
            Poll::Ready(Some(frame))
        }
    }

    #[tokio::test]
    async fn what_becomes_of_a_form() {
        let token = async |body: Body| match take_token(body, &settings()).await {
            Ok((token, body)) => {
                let body = body.collect().await.unwrap().to_bytes();
                format!("{token} of {}", str::from_utf8(&body).unwrap())
            }
            Err(refusal) => refusal.into_rejection(&settings()).status().to_string(),
        };
        const TOO_LARGE: &str = "413 Payload Too Large";
        for (form, outcome) in [
            ("csrf_token=x", "x of csrf_token=x"),
            ("a=1&csrf_token=x%2By&b=2", "x+y of a=1&csrf_token=x%2By&b=2"),
            ("csrf_token=1&csrf_token=2", "1 of csrf_token=1&csrf_token=2"),
            ("csrf_token=", " of csrf_token="),
            ("csrf_token2=x", "403 Forbidden"),
            ("", "403 Forbidden"),
            ("csrf_token=x&a=30-bytes-long-.", "x of csrf_token=x&a=30-bytes-long-."),
            ("csrf_token=x&a=31-bytes-long--.", TOO_LARGE),
        ] {
            assert_eq!(token(Body::from(form)).await, outcome, "{form}");
        }
        // Another layer put a limit around the body beforehand.
        let limited = Limited::new(Body::from("csrf_token=x"), 5);
        assert_eq!(token(Body::new(limited)).await, TOO_LARGE);
        // It is not too large that does not come to its end.
        for start in [None, Some("csrf_token=x")] {
            assert_eq!(token(Body::new(Broken(start))).await, "400 Bad Request");
        }
    }

    /// A service that says when it is ready.
    #[derive(Clone, Debug)]
    struct Slow(Poll<Result<(), &'static str>>);

    impl Service<Request> for Slow {
        type Response = Response;
        type Error = &'static str;
        type Future = future::Ready<Result<Response, &'static str>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), &'static str>> {
            self.0
        }

        fn call(&mut self, _: Request) -> Self::Future {
            future::ready(Ok(Response::default()))
        }
    }

    #[test]
    fn is_ready_when_the_service_inside_of_it_is() {
        #[derive(sessions_derive::Session)]
        #[session(crate = crate)]
        struct Data {}

        let mut cx = Context::from_waker(std::task::Waker::noop());
        for ready in [Poll::Pending, Poll::Ready(Ok(())), Poll::Ready(Err("no"))] {
            let mut service = CsrfLayer::<Data>::new().layer(Slow(ready));
            let is = Service::<Request>::poll_ready(&mut service, &mut cx);
            assert_eq!(is, ready);
        }
        let layer = CsrfLayer::<Data>::builder().with_field("a_field").build().unwrap();
        assert!(format!("{layer:?}").contains("a_field"));
        let service = layer.layer(Slow(Poll::Pending));
        assert!(format!("{service:?}").contains("Slow"));
        type Inner = future::Ready<Result<Response, Infallible>>;
        let refused = CsrfFuture::<Inner, Infallible> { stage: Stage::Refused { response: None } };
        assert_eq!(format!("{refused:?}"), "CsrfFuture { .. }");
    }
}
