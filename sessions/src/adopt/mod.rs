//! Moving in: the sessions of the library that an application used before go on as sessions of ours.
//!
//! ```no_run
//! # #[cfg(all(feature = "derive", feature = "memory", feature = "bincode", feature = "sqlite"))]
//! # fn layer(pool: sqlx::SqlitePool, old_key: &[u8]) -> Result<(), sessions::BuildError> {
//! use sessions::{
//!     Keys, MemoryStore, Session, SessionLayer,
//!     adopt::{OldCookie, TowerSessions},
//! };
//!
//! #[derive(Session)]
//! struct Customer {
//!     #[session(user)]
//!     user: Option<u64>,
//!     cart: Vec<String>,
//! }
//!
//! let before = TowerSessions::sqlite(pool).with_cookie(OldCookie::new("id").with_signed(old_key)?);
//! let layer = SessionLayer::<Customer>::builder(MemoryStore::new(), Keys::generate())
//!     .adopt(before, |old, s| {
//!         s.set_cart(old.get::<Vec<String>>("cart")?.unwrap_or_default());
//!         old.get::<u64>("user_id") // who is logged in, if anybody is
//!     })
//!     .build()?;
//! # Ok(()) }
//! ```
//!
//! When a request comes with no cookie of ours that opens a session, its cookies are shown to the
//! [`Predecessor`]. If that finds a session of its own, the application's function fills the typed fields
//! with what was in there, and says who was logged in. A session of ours begins with that, with a cookie of
//! ours; the user is in the [list of sessions](crate::UserSessions) as after any login. The old record is
//! deleted, and the response takes the old cookie away.
//!
//! | coming from | here | their cookie |
//! | --- | --- | --- |
//! | tower-sessions 0.14, 0.15 | [`TowerSessions`] on its Redis, SQLite, PostgreSQL or MySQL store | `id`, plain, signed or private |
//! | axum-login 0.18 | the same, with [`OldSession::axum_login_user`] | the same |
//! | axum_session 0.22 | [`AxumSession`] on its Redis, SQLite, PostgreSQL or MySQL store | `session`, plain or signed |
//! | actix-session 0.11 | [`ActixSession`], in the cookie or on its Redis store | `id`, private or signed |
//! | anything else | a [`Predecessor`] of your own: four methods | [`OldCookie`] reads and removes it |
//!
//! The connections are of the crates `redis` 1 and `sqlx` 0.9. The old library's own pool is mostly of another version or
//! crate (tower-sessions' stores take one of `fred` or of `sqlx` 0.8): connect once more to the same server.
//!
//! ```no_run
//! # #[cfg(feature = "redis")]
//! # async fn before() -> Result<sessions::adopt::TowerSessions, redis::RedisError> {
//! use sessions::adopt::TowerSessions;
//!
//! // cargo add redis --features connection-manager,tokio-comp
//! let connection = redis::Client::open("redis://redis.example")?.get_connection_manager().await?;
//! let before = TowerSessions::redis(connection);
//! # Ok(before) }
//! ```
//!
//! # What holds
//!
//! - **One old session becomes one of ours**, also if several requests come with the old cookie at once, in
//!   several processes: all of them get the same session.
//! - **An adopted session ends for good.** After its logout the old cookie opens nothing, also where the
//!   old record is still there.
//! - **What nobody has come with yet is in the old store alone**: [`UserSessions`](crate::UserSessions) do not list it, and
//!   [`end_all`](crate::UserSessions::end_all) does not end it. To log a user out everywhere, end what the user has in
//!   the old store as well, or have [`with_check`](Predecessor::with_check) refuse it.
//! - **What cannot be read is told**, by a `tracing` warning with the reason; the visitor is a new one, and
//!   the old session stays as it was.
//! - **An old store that does not answer is an error** (503 for the client): if the visitor began anew
//!   then, an outage would log the user out.
//! - **Who was logged in stays so**: [`LoggedIn`](crate::LoggedIn) and [`RequireLogin`](crate::RequireLogin) let
//!   an adopted user pass, and [`UserSessions`](crate::UserSessions) list the session.
//! - **An adopted login is not a recent one.** When the user logged in the old records do not say:
//!   [`logged_in_at`](crate::Session::logged_in_at) is `None`, and
//!   [`require_recent_login`](crate::Session::require_recent_login) asks for the password, until the next
//!   [`login`](crate::Session::login). Both timeouts begin with the adoption.
//! - The old cookie opens the adopted session for ten more minutes, for a client that never got the
//!   response with the new one; not after that, nor after a login, a renewal or a logout.
//!
//! # A fleet that rolls
//!
//! While processes of both builds serve, tell the layer
//! [`without_ending_predecessor`](crate::SessionLayerBuilder::without_ending_predecessor): record and
//! cookie stay as they are, and a client that the old build serves next is still logged in there. What one
//! build writes the other does not see, and a logout in one is none in the other. When the last old process
//! is gone, take the setting out; and `adopt` itself once the longest old session has ended.
//!
//! # Two requests at once
//!
//! The layer's store holds a small record, the claim, under a key that is made of the old session's id. A
//! claim begins as *adopting*, which one process alone can write (`create`, or a compare-and-swap on its
//! version), and which names the adopter's session by a random number. The adopter stores the session, and
//! then turns the claim into *adopted*, by a compare-and-swap again; only then is the session handed out.
//!
//! | what may happen | what becomes of it |
//! | --- | --- |
//! | another request finds *adopting* | it waits, and opens the session that the claim leads to |
//! | the adopter dies | a process that sees the claim unchanged for the [lease time](crate::SessionLayerBuilder::with_lease_time) takes over, with another number: another session |
//! | the adopter was slow, and wakes up after that | its compare-and-swap fails: it deletes its session, which nobody has seen |
//! | its store fails | the claim is *free* for the next request; the client gets 503, and the old session is as it was |
//! | the session is logged out while another request is half-way | that one finds the claim taken, whatever it had read before |
//!
//! The claim stays for a day after the old record was deleted. Where that is left, or where there is none
//! (the session is in its cookie), the claim stays for 400 days, longer than a browser keeps a cookie.
//!
//! The new session's id is made of the old one, the claim's random number and the layer's keys: neither who
//! reads the store nor who knows the old id can make the cookie of it.

use std::{fmt, pin::Pin, time::SystemTime};

use http::HeaderValue;

mod actix_session;
mod axum_session;
pub(crate) mod claim;
mod cookies;
mod error;
mod old_session;
mod records;
mod tower_sessions;

pub use actix_session::ActixSession;
pub use axum_session::AxumSession;
pub use cookies::{OldCookie, RequestCookies};
pub use error::AdoptError;
pub use old_session::OldSession;
pub use tower_sessions::TowerSessions;

/// A library that kept the application's sessions before: how to find one of its sessions, and how to end
/// it.
///
/// ```
/// use http::HeaderValue;
/// use sessions::adopt::{AdoptError, OldCookie, OldId, OldSession, Predecessor, RequestCookies};
/// # struct OldStore;
/// # impl OldStore {
/// #     async fn load(&self, _: &str) -> Result<Option<String>, std::io::Error> { Ok(None) }
/// #     async fn delete(&self, _: &str) -> Result<(), std::io::Error> { Ok(()) }
/// # }
///
/// struct Before {
///     cookie: OldCookie,
///     store: OldStore,
/// }
///
/// impl Predecessor for Before {
///     fn session_id(&self, cookies: &RequestCookies<'_>) -> Option<OldId> {
///         self.cookie.value(cookies).map(OldId::new)
///     }
///
///     async fn load(&self, id: &OldId) -> Result<Option<OldSession>, AdoptError> {
///         let found = self.store.load(id.as_str()).await.map_err(AdoptError::store)?;
///         found.map(|name| OldSession::new().with("name", name)).transpose()
///     }
///
///     async fn end(&self, id: &OldId) -> Result<bool, AdoptError> {
///         self.store.delete(id.as_str()).await.map_err(AdoptError::store)?;
///         Ok(true)
///     }
///
///     fn cookie_removal(&self) -> Option<HeaderValue> {
///         Some(self.cookie.removal())
///     }
/// }
/// ```
pub trait Predecessor: Send + Sync + 'static {
    /// The id of the old session that the request's cookies name, if they name one and prove what the old
    /// library asks for. Asks no store.
    fn session_id(&self, cookies: &RequestCookies<'_>) -> Option<OldId>;

    /// What was in the session, unless it has ended. A session that has expired has ended.
    ///
    /// # Errors
    ///
    /// [`AdoptError::unreadable`] if that is nothing to go on with: the visitor is a new one.
    /// [`AdoptError::store`] if the store did not answer: the request is answered with 503.
    fn load(
        &self,
        id: &OldId,
    ) -> impl Future<Output = Result<Option<OldSession>, AdoptError>> + Send;

    /// Ends the session in the old store. Says whether the id opens nothing there from now on, which a
    /// library that keeps the session in its cookie cannot say. May be called for a session that has ended.
    fn end(&self, id: &OldId) -> impl Future<Output = Result<bool, AdoptError>> + Send;

    /// The `Set-Cookie` header that takes the old cookie from the browser: with the path and the domain that
    /// it was set with, or the browser keeps it.
    fn cookie_removal(&self) -> Option<HeaderValue>;

    /// Asks the application before a session is adopted: a session that `check` says no to counts as
    /// ended. For what the old library looked up with every request, as axum-login does with the hash of
    /// the user's password:
    ///
    /// ```no_run
    /// # #[cfg(feature = "sqlite")]
    /// # fn f(pool: sqlx::SqlitePool) {
    /// # #[derive(Clone)] struct Users;
    /// # impl Users { async fn hash_of(&self, _: u64) -> Result<Vec<u8>, std::io::Error> { Ok(vec![]) } }
    /// # let users = Users;
    /// use sessions::adopt::{AdoptError, OldSession, Predecessor, TowerSessions};
    ///
    /// let before = TowerSessions::sqlite(pool).with_check(move |old: OldSession| {
    ///     let users = users.clone();
    ///     async move {
    ///         let Some(user) = old.axum_login_user::<u64>()? else { return Ok(true) };
    ///         let hash = users.hash_of(user).await.map_err(AdoptError::store)?;
    ///         Ok(old.axum_login_auth_hash()? == Some(hash))
    ///     }
    /// });
    /// # }
    /// ```
    fn with_check<C, R>(self, check: C) -> Checked<Self, C>
    where
        Self: Sized,
        C: Fn(OldSession) -> R + Send + Sync + 'static,
        R: Future<Output = Result<bool, AdoptError>> + Send,
    {
        Checked { predecessor: self, check }
    }
}

/// A [`Predecessor`] whose sessions the application looks at: [`Predecessor::with_check`].
#[derive(Clone, Debug)]
pub struct Checked<P, C> {
    predecessor: P,
    check: C,
}

impl<P, C, R> Predecessor for Checked<P, C>
where
    P: Predecessor,
    C: Fn(OldSession) -> R + Send + Sync + 'static,
    R: Future<Output = Result<bool, AdoptError>> + Send,
{
    fn session_id(&self, cookies: &RequestCookies<'_>) -> Option<OldId> {
        self.predecessor.session_id(cookies)
    }

    async fn load(&self, id: &OldId) -> Result<Option<OldSession>, AdoptError> {
        let Some(old) = self.predecessor.load(id).await? else { return Ok(None) };
        if (self.check)(old.clone()).await? {
            return Ok(Some(old));
        }
        tracing::info!("a session of an earlier library is not adopted: the application's check");
        Ok(None)
    }

    async fn end(&self, id: &OldId) -> Result<bool, AdoptError> {
        self.predecessor.end(id).await
    }

    fn cookie_removal(&self) -> Option<HeaderValue> {
        self.predecessor.cookie_removal()
    }
}

/// What names a session of the old library. Who knows it has the session: it is not printed.
#[derive(Clone, PartialEq, Eq)]
pub struct OldId(Box<str>);

impl OldId {
    /// The id as it stands in the cookie, once that is decoded and verified.
    pub fn new(id: impl Into<String>) -> Self {
        Self(id.into().into())
    }

    /// The id, for a look at the old store.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for OldId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OldId(<redacted>)")
    }
}

pub(crate) type Boxed<'a, R> = Pin<Box<dyn Future<Output = Result<R, AdoptError>> + Send + 'a>>;

/// [`Predecessor`] with futures of one type.
pub(crate) trait ErasedPredecessor: Send + Sync {
    fn session_id(&self, cookies: &RequestCookies<'_>) -> Option<OldId>;
    fn load<'a>(&'a self, id: &'a OldId) -> Boxed<'a, Option<OldSession>>;
    fn end<'a>(&'a self, id: &'a OldId) -> Boxed<'a, bool>;
    fn cookie_removal(&self) -> Option<HeaderValue>;
}

impl<P: Predecessor> ErasedPredecessor for P {
    fn session_id(&self, cookies: &RequestCookies<'_>) -> Option<OldId> {
        Predecessor::session_id(self, cookies)
    }

    fn load<'a>(&'a self, id: &'a OldId) -> Boxed<'a, Option<OldSession>> {
        Box::pin(Predecessor::load(self, id))
    }

    fn end<'a>(&'a self, id: &'a OldId) -> Boxed<'a, bool> {
        Box::pin(Predecessor::end(self, id))
    }

    fn cookie_removal(&self) -> Option<HeaderValue> {
        Predecessor::cookie_removal(self)
    }
}

/// Whether a record that says until when it counts has ended.
fn is_over(expires_at: Option<SystemTime>) -> bool {
    expires_at.is_some_and(|end| end <= SystemTime::now())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_not_printed() {
        let shown = format!("{:?}", OldId::new("secret"));
        assert!(!shown.contains("secret"), "{shown}");
    }
}
