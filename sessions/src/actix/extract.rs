//! The extractors of actix-web, and what becomes of an error there.

use std::future::{Ready, ready as at_once};

use actix_web::{FromRequest, HttpRequest, HttpResponse, ResponseError, dev::Payload, http as old};
use axum_core::body::Body;

use super::{LocalFuture, convert, lazy};
use crate::{
    csrf::CsrfToken,
    data::{SessionData, user::SessionUser},
    error::Error,
    login::{logged_in::LoggedIn, sessions::UserSessions},
    session::Session,
    web::rejection::Rejection,
};

/// Rejects as in axum: 503 if the store does not answer, 500 if the route is not inside a
/// [`SessionLayer`](crate::SessionLayer) of this type.
impl<T: SessionData> FromRequest for Session<T> {
    type Error = Error;
    type Future = LocalFuture<Result<Self, Error>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        Box::pin(Self::open_lazy(lazy(request)))
    }
}

/// Rejects with 401 if nobody is logged in, and otherwise as [`Session`](struct@Session) does.
impl<T: SessionUser<User: Clone>> FromRequest for LoggedIn<T> {
    type Error = Error;
    type Future = LocalFuture<Result<Self, Error>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let lazy = lazy(request);
        Box::pin(async move {
            let session = Session::open_lazy(lazy).await?;
            Self::from_session(session).await?.ok_or_else(Error::login_required)
        })
    }
}

/// Rejects as [`Session::csrf_token`](crate::Session::csrf_token) fails, and as the session's own extractor
/// does. A session that is new is stored by it.
impl<T: SessionData> FromRequest for CsrfToken<T> {
    type Error = Error;
    type Future = LocalFuture<Result<Self, Error>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let lazy = lazy(request);
        Box::pin(async move { Session::<T>::open_lazy(lazy).await?.csrf_token().await })
    }
}

/// Rejects with 500 if the route is not inside a [`SessionLayer`](crate::SessionLayer) of this type, or
/// the layer's store cannot list the sessions of a user. The request's own session is not opened.
impl<T: SessionUser> FromRequest for UserSessions<T> {
    type Error = Error;
    type Future = Ready<Result<Self, Error>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        at_once(Self::from_lazy(lazy(request).as_ref()))
    }
}

/// So that a handler can use `?` on a session's methods. The response has a [`Rejection`] among its
/// extensions.
impl ResponseError for Error {
    fn status_code(&self) -> old::StatusCode {
        convert::old_status(self.status())
    }

    fn error_response(&self) -> HttpResponse {
        self.log();
        convert::response(Rejection::without_error(self).response().map(Body::from))
    }
}
