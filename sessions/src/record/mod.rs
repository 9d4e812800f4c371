//! What a store keeps.

pub(crate) mod binding;
pub(crate) mod device;
pub(crate) mod expiry;
pub(crate) mod head;
pub(crate) mod tombstone;

use std::{fmt, sync::Arc, time::SystemTime};

use crate::error::store::StoreError;

/// The largest version that all stores can keep: an SQL database's integers are signed.
pub(crate) const LAST_VERSION: u64 = u64::MAX >> 1;

/// No payload may be larger, whatever a layer allows: 16 MiB.
pub(crate) const LARGEST_PAYLOAD: usize = 16 << 20;

/// The version of a save that is based on this one.
///
/// # Errors
///
/// If there is none. Saves do not get there in the lifetime of the universe; whoever can write to the
/// store does.
pub(crate) fn next_version(based_on: u64) -> Result<u64, StoreError> {
    match based_on {
        ..LAST_VERSION => Ok(based_on + 1),
        _ => Err(StoreError::permanent(
            "session",
            "replace",
            format!(
                "the record has version {based_on}, and {LAST_VERSION} is the last: no save can come \
                 after it, and something else than saves has written it; end the session"
            ),
        )),
    }
}

/// One session as a [`Store`](crate::Store) keeps it.
///
/// A store hands back what it was given, to the byte; what the fields mean is the session layer's
/// business. Times may be rounded to milliseconds.
///
/// ```
/// use std::time::{Duration, SystemTime};
/// use sessions::Record;
///
/// let now = SystemTime::now();
/// let first = Record::new(1, now, now + Duration::from_secs(60),
/// *b"fields").with_user(Some("Customer:7".into())); let second =
/// first.clone().with_version(2).with_payload(*b"changed"); assert_eq!((second.version,
/// second.user), (2, first.user));
/// ```
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
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
    /// A record of nobody's session.
    pub fn new(
        version: u64,
        created_at: SystemTime,
        expires_at: SystemTime,
        payload: impl Into<Arc<[u8]>>,
    ) -> Self {
        Self { version, created_at, expires_at, user: None, payload: payload.into() }
    }

    /// The same with another version.
    #[must_use]
    pub fn with_version(self, version: u64) -> Self {
        Self { version, ..self }
    }

    /// The same with another time when the session was first saved.
    #[must_use]
    pub fn with_created_at(self, created_at: SystemTime) -> Self {
        Self { created_at, ..self }
    }

    /// The same with another end.
    #[must_use]
    pub fn with_expires_at(self, expires_at: SystemTime) -> Self {
        Self { expires_at, ..self }
    }

    /// The same as the session of this user.
    #[must_use]
    pub fn with_user(self, user: Option<Arc<str>>) -> Self {
        Self { user, ..self }
    }

    /// The same with other fields.
    #[must_use]
    pub fn with_payload(self, payload: impl Into<Arc<[u8]>>) -> Self {
        Self { payload: payload.into(), ..self }
    }

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

#[cfg(test)]
mod tests {
    use std::error::Error;

    use super::*;

    #[test]
    fn the_last_version_has_none_after_it_and_says_so() {
        assert_eq!(next_version(0).unwrap(), 1);
        assert_eq!(next_version(LAST_VERSION - 1).unwrap(), LAST_VERSION);
        for version in [LAST_VERSION, u64::MAX] {
            let error = next_version(version).unwrap_err();
            assert!(!error.is_retryable());
            assert!(error.source().unwrap().to_string().contains(&version.to_string()));
        }
    }
}
