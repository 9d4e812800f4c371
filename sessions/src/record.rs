//! What a store keeps.

use std::{fmt, sync::Arc, time::SystemTime};

/// One session as a [`Store`](crate::Store) keeps it.
///
/// A store hands back what it was given, to the byte; what the fields mean is the session layer's
/// business. Times may be rounded to milliseconds.
#[derive(Clone, PartialEq, Eq)]
pub struct Record {
    /// Raised by every save. A [`replace`](crate::Store::replace) names the version that it is
    /// based on, and is refused when the store has another.
    pub version: u64,
    /// When the session was first saved. The absolute timeout counts from here.
    pub created_at: SystemTime,
    /// From this moment on the session is over: a store must not return the record any more.
    pub expires_at: SystemTime,
    /// Whose session this is, if the application says so, with the type of session in front:
    /// `Customer:7` (see [`UserIndex`](crate::UserIndex)).
    pub user: Option<Arc<str>>,
    /// The encoded fields, opaque to a store.
    pub payload: Arc<[u8]>,
}

impl Record {
    /// Whether the record has expired at `now`.
    pub fn is_expired(&self, now: SystemTime) -> bool {
        self.expires_at <= now
    }
}

/// Shows neither the user nor the payload's bytes.
impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record")
            .field("version", &self.version)
            .field("created_at", &self.created_at)
            .field("expires_at", &self.expires_at)
            .field("user", &self.user.as_ref().map(|_| "<redacted>"))
            .field("payload", &format_args!("<{} bytes>", self.payload.len()))
            .finish()
    }
}
