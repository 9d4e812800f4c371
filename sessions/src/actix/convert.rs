//! Between the types of `http` 0.2, which actix-web has, and those of `http` 1.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use actix_web::{
    HttpRequest, HttpResponse,
    body::{BodySize, BoxBody, MessageBody},
    http as old,
};
use axum_core::body::Body;
use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, Version,
    request::Parts,
};
use http_body::Body as _;

use crate::web::rejection::Rejection;

/// The head of a request in the types of `http` 1, without extensions: for
/// [`OriginCheck::check`](crate::OriginCheck::check).
///
/// ```
/// use actix_web::HttpRequest;
/// use sessions::{OriginCheck, actix::head};
///
/// async fn feedback(request: HttpRequest, message: String) -> sessions::Result<String> {
///     let head = head(&request);
///     OriginCheck::new().check(&head.headers, &head.uri)?;   // or 403
///     Ok(format!("you said {message}"))
/// }
/// ```
pub fn head(request: &HttpRequest) -> Parts {
    let (mut head, ()) = Request::new(()).into_parts();
    head.method = method(request.method());
    head.uri = uri(request.uri());
    head.version = match request.version() {
        old::Version::HTTP_09 => Version::HTTP_09,
        old::Version::HTTP_10 => Version::HTTP_10,
        old::Version::HTTP_2 => Version::HTTP_2,
        old::Version::HTTP_3 => Version::HTTP_3,
        _ => Version::HTTP_11,
    };
    head.headers = headers(request.headers());
    head
}

pub(super) fn method(method: &old::Method) -> Method {
    // Both take the same tokens. If one ever does not, the request is one that a `CsrfLayer` checks, as it
    // would not check the default, a `GET`.
    Method::from_bytes(method.as_str().as_bytes()).unwrap_or(Method::POST)
}

pub(super) fn uri(uri: &old::Uri) -> Uri {
    uri.to_string().parse().unwrap_or_default()
}

pub(super) fn headers(headers: &old::header::HeaderMap) -> HeaderMap {
    let mut converted = HeaderMap::with_capacity(headers.len());
    for (name, value) in headers {
        if let Ok(name) = HeaderName::from_bytes(name.as_str().as_bytes()) {
            append(&mut converted, name, value);
        }
    }
    converted
}

/// The headers of these names, in lower case.
pub(super) fn some_headers(headers: &old::header::HeaderMap, names: &[&str]) -> HeaderMap {
    let mut converted = HeaderMap::new();
    for &name in names {
        let Ok(found) = HeaderName::try_from(name) else { continue };
        headers.get_all(name).for_each(|value| append(&mut converted, found.clone(), value));
    }
    converted
}

fn append(headers: &mut HeaderMap, name: HeaderName, value: &old::header::HeaderValue) {
    if let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) {
        headers.append(name, value);
    }
}

fn old_headers(headers: &HeaderMap) -> old::header::HeaderMap {
    let mut converted = old::header::HeaderMap::with_capacity(headers.len());
    for (name, value) in headers {
        if let Ok(name) = old::header::HeaderName::from_bytes(name.as_str().as_bytes())
            && let Ok(value) = old::header::HeaderValue::from_bytes(value.as_bytes())
        {
            converted.append(name, value);
        }
    }
    converted
}

/// Changes the headers of a response, and says whether that has changed anything.
pub(super) fn change_headers(
    old: &mut old::header::HeaderMap,
    change: impl FnOnce(&mut HeaderMap),
) -> bool {
    let before = headers(old);
    let mut after = before.clone();
    change(&mut after);
    let is_changed = before != after;
    if is_changed {
        *old = old_headers(&after);
    }
    is_changed
}

pub(super) fn old_status(status: StatusCode) -> old::StatusCode {
    old::StatusCode::from_u16(status.as_u16()).unwrap_or(old::StatusCode::INTERNAL_SERVER_ERROR)
}

/// A response of the layer's own.
pub(super) fn response(response: Response<Body>) -> HttpResponse {
    let (head, body) = response.into_parts();
    let mut converted =
        HttpResponse::with_body(old_status(head.status), BoxBody::new(Converted(body)));
    *converted.headers_mut() = old_headers(&head.headers);
    if let Some(rejection) = head.extensions.get::<Rejection>() {
        converted.extensions_mut().insert(rejection.clone());
    }
    converted
}

struct Converted(Body);

impl MessageBody for Converted {
    type Error = axum_core::Error;

    fn size(&self) -> BodySize {
        self.0.size_hint().exact().map_or(BodySize::Stream, BodySize::Sized)
    }

    fn poll_next(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Self::Error>>> {
        loop {
            let frame = match ready!(Pin::new(&mut self.0).poll_frame(cx)) {
                Some(Ok(frame)) => frame,
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            };
            // Trailers are left out.
            if let Ok(data) = frame.into_data() {
                return Poll::Ready(Some(Ok(data)));
            }
        }
    }
}
