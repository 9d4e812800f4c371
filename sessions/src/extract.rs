//! The axum extractors. Only these, the CSRF service and the test client know axum.

use axum_core::{
    extract::{FromRequestParts, OptionalFromRequestParts},
    response::{IntoResponse, Response},
};
use http::request::Parts;

use crate::{
    csrf::CsrfToken,
    data::{SessionData, user::SessionUser},
    error::{Error, ErrorKind},
    login::{logged_in::LoggedIn, sessions::UserSessions},
    session::Session,
    web::rejection::Rejection,
};

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

impl<T: SessionUser<User: Clone>, S: Sync> FromRequestParts<S> for LoggedIn<T> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Error> {
        let session = Session::open(&parts.extensions).await?;
        Self::from_session(session).await?.ok_or_else(Error::login_required)
    }
}

impl<T: SessionUser<User: Clone>, S: Sync> OptionalFromRequestParts<S> for LoggedIn<T> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Option<Self>, Error> {
        Self::from_session(Session::open(&parts.extensions).await?).await
    }
}

/// Rejects as [`Session::csrf_token`](crate::Session::csrf_token) fails, and as the session's own extractor
/// does. A session that is new is stored by it.
impl<T: SessionData, S: Sync> FromRequestParts<S> for CsrfToken<T> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Error> {
        Session::<T>::open(&parts.extensions).await?.csrf_token().await
    }
}

/// Rejects with 500 if the route is not inside a [`SessionLayer`](crate::SessionLayer) of this type, or
/// the layer's store cannot list the sessions of a user. The request's own session is not opened.
impl<T: SessionUser, S: Sync> FromRequestParts<S> for UserSessions<T> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Error> {
        Self::from_extensions(&parts.extensions)
    }
}

/// So that a handler can use `?` on a session's methods. The response has a [`Rejection`] among its
/// extensions.
impl IntoResponse for Error {
    fn into_response(self) -> Response {
        self.log();
        Rejection::from(self).response().into_response()
    }
}
