//! What can go wrong, and what it means to the client.

use std::{error::Error as StdError, fmt, panic::Location, sync::Arc, time::Duration};

use http::StatusCode;

pub(crate) mod refusal;
pub(crate) mod store;

use self::{
    refusal::{EncodeFailure, Refusal},
    store::StoreError,
};

/// An operation on a session failed.
///
/// [`kind`](Self::kind) and [`is_retryable`](Self::is_retryable) tell what to do about it, the message
/// tells a person, and [`source`](StdError::source) holds the cause: of a store's failure the
/// [`StoreError`], which says which store and which operation. The message contains neither ids nor
/// values.
#[derive(Debug)]
pub struct Error(Box<Inner>);

#[derive(Debug)]
enum Inner {
    NoLayer {
        data: &'static str,
    },
    Store(StoreError),
    NoRandomness(NoRandomness),
    Ended,
    NoCookie,
    Encode {
        field: &'static str,
        source: Arc<EncodeFailure>,
    },
    TooLarge {
        size: usize,
        limit: usize,
    },
    #[cfg(feature = "private-cookie")]
    CookieTooLarge {
        size: usize,
        limit: usize,
    },
    Contended {
        attempts: u32,
    },
    UnknownOutcome,
    Conflict {
        field: &'static str,
    },
    Taken {
        field: &'static str,
    },
    LeaseLost,
    Leased {
        waited: Duration,
    },
    NoLeases,
    NoUserIndex,
    Locked(Wait),
    GuardHeld {
        data: &'static str,
        at: &'static Location<'static>,
        held_by: String,
    },
    LoginRequired,
    #[cfg(feature = "device-bound")]
    UnprovenDevice,
    Aborted,
    /// Of this kind was the error that the client was told.
    LostWithResponse(ErrorKind),
    Csrf,
    CrossSite {
        origin: String,
        host: String,
    },
}

/// A lock that was not to be had, and everything that is known about why.
#[derive(Debug)]
pub(crate) struct Wait {
    pub(crate) data: &'static str,
    pub(crate) wanted: &'static str,
    pub(crate) at: &'static Location<'static>,
    pub(crate) reason: Reason,
    pub(crate) waited: Duration,
    pub(crate) held_by: String,
}

/// Why a lock was not to be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// It was not free in time.
    Late,
    /// As many as the layer allows are waiting already.
    Crowded { waiters: usize },
    /// Its own request holds it, and nothing in the request can go on before this wait ends.
    Itself,
}

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { data, wanted, at, reason, waited, held_by } = self;
        write!(f, "no {wanted} guard of a `{data}` session for {at}")?;
        match reason {
            Reason::Late => write!(f, " after {waited:?}: {held_by}"),
            Reason::Crowded { waiters } => write!(
                f,
                ": {waiters} others are waiting already \
                 (`SessionLayerBuilder::with_waiter_limit`), {held_by}"
            ),
            Reason::Itself => write!(
                f,
                ": its request waits for itself: {held_by}; nothing can drop that guard before this \
                 one is there: drop it first"
            ),
        }
    }
}

/// What an operation on a session gives.
pub type Result<R, E = Error> = std::result::Result<R, E>;

/// What an [`Error`] is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The request did not pass through a [`SessionLayer`](crate::SessionLayer) of this type.
    NoLayer,
    /// The store did not answer. Nothing is lost yet: unsaved fields stay unsaved, and a later
    /// save may succeed.
    Store,
    /// The operating system gave no random bytes for an id.
    NoRandomness,
    /// The session has ended: by `destroy`, `renew_id` or expiry, here or in another request. What
    /// was written to it since is not kept, and it does not come back.
    Ended,
    /// The session is new and the response has left without its cookie: no request could ever find
    /// it. Write to a new session before the response leaves.
    NoCookie,
    /// A field has a value that its codec would not give back, or that its own `Serialize` refuses.
    /// Nothing of it is saved; the message says what to write instead.
    Encode,
    /// The fields of the session are larger than the layer allows, or than a cookie can be.
    TooLarge,
    /// Other processes saved the same session at the same time, again and again.
    Contended,
    /// Another request has changed the same field at the same time, and the layer is
    /// [told](crate::SessionLayerBuilder::with_conflict_policy) not to overwrite that; or has taken
    /// the same `flash` field. Nothing of the request's is saved, whatever it writes from there on: to try
    /// again it has to call [`discard_request_changes`](crate::Session::discard_request_changes) first, and
    /// to look at the session anew.
    Conflict,
    /// The lease of a [`lock`](crate::Session::lock) was not renewed in time, and another process
    /// has taken over. What was written under it is not saved, and the request's saves fail until it calls
    /// [`discard_request_changes`](crate::Session::discard_request_changes).
    LeaseLost,
    /// The session is in its cookie, where nothing can be locked.
    NoLeases,
    /// The layer's store cannot list the sessions of a user: a `PrivateCookie`, or a store that has no
    /// [`user_index`](crate::Store::user_index).
    NoUserIndex,
    /// The session's lock was not free in time, or too many were waiting for it already.
    Locked,
    /// The request holds a guard of the session that is in its own way: it waits for another one, or
    /// saves what that guard has not released. The message says where the guard was taken. Trying
    /// again does not help; dropping the guard first does.
    GuardHeld,
    /// Nobody is logged in, or the login is too long ago; or the request does not show that it comes
    /// from the device that the session is bound to.
    LoginRequired,
    /// The background task of the operation panicked or was shut down with its runtime.
    Aborted,
    /// What was to be verified is no [CSRF token](crate::Session::csrf_token) of this session.
    Csrf,
    /// The request comes from a page of another site, or of one that does not say which:
    /// [`OriginCheck`](crate::OriginCheck).
    CrossSite,
}

impl Error {
    pub(crate) fn no_layer(data: &'static str) -> Self {
        Inner::NoLayer { data }.into()
    }

    pub(crate) fn ended() -> Self {
        Inner::Ended.into()
    }

    pub(crate) fn no_cookie() -> Self {
        Inner::NoCookie.into()
    }

    pub(crate) fn refused(field: &'static str, refusal: Refusal) -> Self {
        match refusal {
            Refusal::Encode(source) => Inner::Encode { field, source }.into(),
            Refusal::Conflict => Inner::Conflict { field }.into(),
            Refusal::Taken => Inner::Taken { field }.into(),
            Refusal::LeaseLost => Inner::LeaseLost.into(),
            Refusal::Unknown => Inner::UnknownOutcome.into(),
            Refusal::TooLarge { size, limit } => Self::too_large(size, limit),
        }
    }

    /// Another process has had a lease for all of this time.
    pub(crate) fn leased(waited: Duration) -> Self {
        Inner::Leased { waited }.into()
    }

    pub(crate) fn no_leases() -> Self {
        Inner::NoLeases.into()
    }

    pub(crate) fn no_user_index() -> Self {
        Inner::NoUserIndex.into()
    }

    pub(crate) fn too_large(size: usize, limit: usize) -> Self {
        Inner::TooLarge { size, limit }.into()
    }

    #[cfg(feature = "private-cookie")]
    pub(crate) fn cookie_too_large(size: usize, limit: usize) -> Self {
        Inner::CookieTooLarge { size, limit }.into()
    }

    pub(crate) fn contended(attempts: u32) -> Self {
        Inner::Contended { attempts }.into()
    }

    pub(crate) fn locked(wait: Wait) -> Self {
        Inner::Locked(wait).into()
    }

    pub(crate) fn guard_held(
        data: &'static str,
        at: &'static Location<'static>,
        held_by: String,
    ) -> Self {
        Inner::GuardHeld { data, at, held_by }.into()
    }

    pub(crate) fn login_required() -> Self {
        Inner::LoginRequired.into()
    }

    /// The request may come again, with a proof.
    #[cfg(feature = "device-bound")]
    pub(crate) fn unproven_device() -> Self {
        Inner::UnprovenDevice.into()
    }

    pub(crate) fn aborted() -> Self {
        Inner::Aborted.into()
    }

    /// What the request had written was given up when the save before its response failed.
    pub(crate) fn lost_with_response(kind: ErrorKind) -> Self {
        Inner::LostWithResponse(kind).into()
    }

    pub(crate) fn csrf() -> Self {
        Inner::Csrf.into()
    }

    /// Both are cut and escaped: they come from the client.
    pub(crate) fn cross_site(origin: String, host: String) -> Self {
        Inner::CrossSite { origin, host }.into()
    }

    /// What the error is about.
    pub fn kind(&self) -> ErrorKind {
        match &*self.0 {
            Inner::NoLayer { .. } => ErrorKind::NoLayer,
            Inner::Store(_) => ErrorKind::Store,
            Inner::NoRandomness(_) => ErrorKind::NoRandomness,
            Inner::Ended => ErrorKind::Ended,
            Inner::NoCookie => ErrorKind::NoCookie,
            Inner::Encode { .. } => ErrorKind::Encode,
            Inner::TooLarge { .. } => ErrorKind::TooLarge,
            #[cfg(feature = "private-cookie")]
            Inner::CookieTooLarge { .. } => ErrorKind::TooLarge,
            Inner::Contended { .. } => ErrorKind::Contended,
            Inner::UnknownOutcome => ErrorKind::Store,
            Inner::Conflict { .. } | Inner::Taken { .. } => ErrorKind::Conflict,
            Inner::LeaseLost => ErrorKind::LeaseLost,
            Inner::NoLeases => ErrorKind::NoLeases,
            Inner::NoUserIndex => ErrorKind::NoUserIndex,
            Inner::Locked(Wait { reason: Reason::Itself, .. }) | Inner::GuardHeld { .. } => {
                ErrorKind::GuardHeld
            }
            Inner::Locked(_) | Inner::Leased { .. } => ErrorKind::Locked,
            Inner::LoginRequired => ErrorKind::LoginRequired,
            #[cfg(feature = "device-bound")]
            Inner::UnprovenDevice => ErrorKind::LoginRequired,
            Inner::Aborted => ErrorKind::Aborted,
            Inner::LostWithResponse(kind) => *kind,
            Inner::Csrf => ErrorKind::Csrf,
            Inner::CrossSite { .. } => ErrorKind::CrossSite,
        }
    }

    /// What the client is told: 503 where trying again may help, 409 where another request of the
    /// same session got in between, 401 where a login has to come first, 403 where the request proves
    /// nothing of where it comes from, 500 where the program has to change.
    pub fn status(&self) -> StatusCode {
        match self.kind() {
            ErrorKind::Store
            | ErrorKind::NoRandomness
            | ErrorKind::Contended
            | ErrorKind::Locked
            | ErrorKind::Aborted => StatusCode::SERVICE_UNAVAILABLE,
            ErrorKind::LoginRequired => StatusCode::UNAUTHORIZED,
            ErrorKind::Ended | ErrorKind::Conflict | ErrorKind::LeaseLost => StatusCode::CONFLICT,
            ErrorKind::Csrf | ErrorKind::CrossSite => StatusCode::FORBIDDEN,
            ErrorKind::NoLayer
            | ErrorKind::NoCookie
            | ErrorKind::GuardHeld
            | ErrorKind::Encode
            | ErrorKind::TooLarge
            | ErrorKind::NoLeases
            | ErrorKind::NoUserIndex => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl Error {
    /// Whether the same call may succeed a little later: the store was away for a moment
    /// ([`StoreError::is_retryable`]), others were faster, a lock was not free. A call that failed may
    /// have been carried out all the same.
    ///
    /// ```
    /// # #[cfg(feature = "derive")] {
    /// # #[derive(sessions::Session)] struct Visitor { visits: u32 }
    /// use std::error::Error;
    /// use sessions::{Session, StoreError};
    ///
    /// async fn save(session: Session<Visitor>) -> sessions::Result<()> {
    ///     let saved = session.save().await;
    ///     if let Err(error) = &saved {
    ///         let store = error.source().and_then(|source| source.downcast_ref::<StoreError>());
    ///         let place = store.map(|error| (error.store(), error.operation()));
    ///         eprintln!("not saved, at {place:?}; worth another try: {}", error.is_retryable());
    ///     }
    ///     saved
    /// }
    /// # }
    /// ```
    pub fn is_retryable(&self) -> bool {
        match &*self.0 {
            Inner::Store(error) => error.is_retryable(),
            Inner::LostWithResponse(_) => false,
            _ => self.status() == StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// Whether it says that too many are waiting for a lock.
    pub(crate) fn is_crowded(&self) -> bool {
        matches!(&*self.0, Inner::Locked(Wait { reason: Reason::Crowded { .. }, .. }))
    }

    /// What a request is refused for.
    #[cfg(any(feature = "actix", feature = "axum"))]
    pub(crate) fn log(&self) {
        if self.status().is_server_error() {
            tracing::error!("a session failed a request: {}", self.for_log());
        } else {
            tracing::info!("a session refused a request: {self}");
        }
    }

    /// With its causes; but not those of an encoding that failed, which quote the value.
    pub(crate) fn for_log(&self) -> String {
        let mut text = self.to_string();
        let mut cause = match &*self.0 {
            Inner::Encode { .. } => None,
            _ => self.source(),
        };
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        text
    }
}

impl From<Inner> for Error {
    fn from(inner: Inner) -> Self {
        Self(Box::new(inner))
    }
}

impl From<StoreError> for Error {
    fn from(source: StoreError) -> Self {
        Inner::Store(source).into()
    }
}

impl From<NoRandomness> for Error {
    fn from(source: NoRandomness) -> Self {
        Inner::NoRandomness(source).into()
    }
}

/// The operating system gave no random bytes. A type of our own, so that a `?` makes an [`Error`] of it
/// and the crate `getrandom` stands in no public signature.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NoRandomness(getrandom::Error);

impl From<getrandom::Error> for NoRandomness {
    fn from(source: getrandom::Error) -> Self {
        Self(source)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Long: a message for each kind of error, side by side.
        match &*self.0 {
            Inner::NoLayer { data } => write!(
                f,
                "no session for `{data}`: the handler or layer that asks for it is not inside a \
                 `SessionLayer::<{data}>`; a layer wraps the routes and layers that were added to the \
                 router before it, so add that one last"
            ),
            Inner::Store(_) => f.write_str("the store of the sessions failed"),
            Inner::NoRandomness(_) => {
                f.write_str("the operating system gave no random bytes for a session id")
            }
            Inner::Ended => {
                f.write_str("the session has ended; what was written to it is not kept")
            }
            Inner::NoCookie => f.write_str(
                "the session is new, and the response has left without its cookie: write to a new \
                 session before the response leaves",
            ),
            Inner::Encode { field, source } => write!(
                f,
                "the field `{field}` (`{}`) could not be encoded: {source}",
                source.type_name()
            ),
            Inner::TooLarge { size, limit } => write!(
                f,
                "the session takes {size} bytes, the limit is {limit} \
                 (`SessionLayerBuilder::with_payload_limit`)"
            ),
            #[cfg(feature = "private-cookie")]
            Inner::CookieTooLarge { size, limit } => write!(
                f,
                "the session's cookie would take {size} bytes, browsers take {limit}: keep less in \
                 the session, or keep it in a store"
            ),
            Inner::Contended { attempts } => write!(
                f,
                "the session was saved by another process in the meantime, {attempts} times in a row"
            ),
            Inner::UnknownOutcome => f.write_str(
                "the store did not say whether it has carried out a save, and too much has been \
                 saved since to tell: it is not tried again, or it might count twice",
            ),
            Inner::Conflict { field } => write!(
                f,
                "the field `{field}` was changed by another request at the same time; nothing of it \
                 is saved (`SessionLayerBuilder::with_conflict_policy`)"
            ),
            Inner::Taken { field } => write!(
                f,
                "the flash field `{field}` was taken by another process at the same time; nothing \
                 of this is saved (with `Session::update` this does not happen)"
            ),
            Inner::LeaseLost => f.write_str(
                "the session's lease was not renewed in time and another process has taken over; \
                 what was written under it is not saved",
            ),
            Inner::Leased { waited } => {
                write!(f, "another process has had the session locked for the last {waited:?}")
            }
            Inner::NoLeases => f.write_str(
                "a session that is kept in its cookie cannot be locked: use a store, or `write`",
            ),
            Inner::NoUserIndex => f.write_str(
                "the layer's store cannot list the sessions of a user: a `PrivateCookie` never can, and \
                 a store of your own needs a `UserIndex` and says so by `Store::user_index`",
            ),
            Inner::Locked(wait) => write!(f, "{wait}"),
            Inner::GuardHeld { data, at, held_by } => write!(
                f,
                "the save at {at} would not include what the request's own write guard of the \
                 `{data}` session has written: {held_by}; drop that guard first"
            ),
            Inner::LoginRequired => {
                f.write_str("nobody is logged in, or the login is too long ago for this")
            }
            #[cfg(feature = "device-bound")]
            Inner::UnprovenDevice => f.write_str(
                "the request does not show that it comes from the device of its session",
            ),
            Inner::Aborted => f.write_str("the session's background task was cut short"),
            Inner::LostWithResponse(_) => f.write_str(
                "what the request had written is not saved: the save before its response failed, and \
                 its client was told",
            ),
            Inner::Csrf => f.write_str(
                "that is no CSRF token of this session: it is another session's, or from before the \
                 id was renewed",
            ),
            Inner::CrossSite { origin, host } => write!(
                f,
                "the request comes from another site: its origin is {origin}, and it was sent to {host}"
            ),
        }
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match &*self.0 {
            Inner::Store(source) => Some(source),
            Inner::NoRandomness(source) => Some(&source.0),
            // Its text is ours already.
            Inner::Encode { source, .. } => source.source(),
            _ => None,
        }
    }
}

/// A [`SessionLayer`](crate::SessionLayer) or [`Keys`](crate::Keys) cannot be built like this. The
/// message says what is wrong and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuildError(String);

impl BuildError {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl StdError for BuildError {}
