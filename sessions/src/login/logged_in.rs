//! A login as an argument of a handler.

use std::fmt;

use crate::{data::user::SessionUser, error::Error, session::Session};

/// The user who is logged in, and the session: an argument of handlers that are for users only.
///
/// ```
/// # #[cfg(feature = "derive")] {
/// # #[derive(sessions::Session)] struct Visitor { #[session(user)] user: Option<u64> }
/// use sessions::LoggedIn;
///
/// async fn account(LoggedIn { user, session }: LoggedIn<Visitor>) -> String {
///     format!("user {user}, since {:?}", session.logged_in_at())
/// }
/// # }
/// ```
///
/// Rejects with 401 if nobody is logged in, and otherwise as [`Session`](struct@Session) does.
/// Browsers are sent to the login page by
/// [`RequireLogin`](crate::RequireLogin) on the router.
///
/// For handlers that want to know and do not insist, there is `Option<LoggedIn<T>>`.
///
/// The user is a copy, so what the field's `Option` holds must be `Clone`.
#[doc(alias("AuthSession", "Identity", "CurrentUser"))]
pub struct LoggedIn<T: SessionUser<User: Clone>> {
    /// Who is logged in, as of the moment when the request opened its session.
    pub user: T::User,
    /// The session.
    pub session: Session<T>,
}

impl<T: SessionUser<User: Clone>> LoggedIn<T> {
    pub(crate) async fn from_session(session: Session<T>) -> Result<Option<Self>, Error> {
        let user = session.read_or_error().await?.__user().cloned();
        let user = user.filter(|_| session.is_users());
        Ok(user.map(|user| Self { user, session }))
    }
}

impl<T: SessionUser<User: Clone>> Clone for LoggedIn<T> {
    fn clone(&self) -> Self {
        Self { user: self.user.clone(), session: self.session.clone() }
    }
}

/// Does not show the user.
impl<T: SessionUser<User: Clone>> fmt::Debug for LoggedIn<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoggedIn").field("session", &self.session).finish_non_exhaustive()
    }
}
