//! What becomes of a handler's response, in whichever framework the handler is.

use axum_core::body::Body;
use http::{HeaderMap, Response, request::Parts};

use super::{drive::Answer, headers};
use crate::{
    data::SessionData,
    session::{finish::Outcome, request::Handle},
    web::rejection::{self, OnRejection, Rejection},
};

/// A function of the application's for rejections, and the head of the request that it is given.
pub(crate) type OnRequestRejection = Option<Box<(OnRejection, Parts)>>;

/// The response, or the one that takes its place: a response whose session could not be saved is
/// replaced, and so is that of a handler that was given up.
pub(crate) fn response_or_replacement<R>(
    output: Answer<R>,
    outcome: &mut Outcome,
    on_rejection: &OnRequestRejection,
) -> Result<R, Box<Response<Body>>> {
    let output = outcome.error.take().map_or(output, Err);
    let output = output.map_err(|error| {
        let rejection = Rejection::from(error);
        Box::new(match on_rejection.as_deref() {
            Some((function, request)) => function.response(&rejection, request),
            None => rejection::default_response(&rejection),
        })
    });
    #[cfg(feature = "device-bound")]
    if outcome.device.asks_again {
        return Err(Box::new(super::device::again()));
    }
    output
}

pub(crate) fn log_failure(outcome: &Outcome) {
    if let Some(error) = &outcome.error {
        tracing::error!(
            "a session could not be saved, its response is replaced: {}",
            error.for_log()
        );
    }
}

/// What has become of the session the client is told also where the response is replaced, or a renewal
/// would leave the client with a dead cookie.
pub(crate) fn write_headers<T: SessionData>(
    outcome: Outcome,
    handle: &Handle<T>,
    headers: &mut HeaderMap,
) {
    #[cfg(feature = "device-bound")]
    if let Some(devices) = handle.shared.devices.as_deref() {
        super::device::write_header(devices, outcome.device, headers);
    }
    if outcome.opened {
        headers::vary_by_cookie(headers);
    }
    if let Some(cookie) = outcome.cookie {
        headers::never_store(headers);
        handle.shared.settings.cookie.put(cookie, headers);
    } else if outcome.opened {
        headers::keep_private(headers);
    }
    #[cfg(feature = "adopt")]
    remove_old_cookie(handle, headers);
}

/// Takes the cookie of an earlier library from a client that needs it no more.
#[cfg(feature = "adopt")]
fn remove_old_cookie<T: SessionData>(handle: &Handle<T>, headers: &mut HeaderMap) {
    if let Some(removal) = handle.old_cookie_removal() {
        headers::never_store(headers);
        headers.append(http::header::SET_COOKIE, removal);
    }
}
