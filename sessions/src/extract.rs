//! The axum extractor. Nothing else in the crate knows axum.

use axum_core::{
    extract::{FromRequestParts, OptionalFromRequestParts},
    response::{IntoResponse, Response},
};
use http::{StatusCode, request::Parts};

use crate::{Error, ErrorKind, Session, SessionData};

/// Rejects with the error's [status](Error::status): 503 if the store does not answer, 500 if the
/// route is not inside a [`SessionLayer`](crate::SessionLayer) of this type. The body says no more
/// than that; the error is logged.
impl<T: SessionData, S: Sync> FromRequestParts<S> for Session<T> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Error> {
        Self::open(&parts.extensions).await
    }
}

/// `None` if the route is not inside a [`SessionLayer`](crate::SessionLayer) of this type; a store
/// that does not answer still rejects.
impl<T: SessionData, S: Sync> OptionalFromRequestParts<S> for Session<T> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Option<Self>, Error> {
        match Self::open(&parts.extensions).await {
            Ok(session) => Ok(Some(session)),
            Err(error) if error.kind() == ErrorKind::NoLayer => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// So that a handler can use `?` on a session's methods.
impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let status = self.status();
        if status.is_server_error() {
            tracing::error!("a session failed a request: {}", self.for_log());
        } else {
            tracing::info!("a session refused a request: {self}");
        }
        let body = match status {
            StatusCode::SERVICE_UNAVAILABLE => {
                "The session is not available just now. Please try again."
            }
            StatusCode::CONFLICT => "The session has ended in the meantime.",
            _ => "The session could not be used.",
        };
        (status, body).into_response()
    }
}
