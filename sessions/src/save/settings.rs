//! What a layer can be told: each setting with its default, and what it must be.

use std::time::Duration;

use crate::{
    clock::Clock,
    cookie::CookieConfig,
    data::{merge::Policy, sealing::Plain},
    error::BuildError,
    record::{LARGEST_PAYLOAD, expiry::Expiry},
    store::storage::Storage,
};

/// A lease is renewed three times in this time.
const SHORTEST_LEASE: Duration = Duration::from_millis(30);

/// A layer's settings. The builder fills them in, `check` refuses what contradicts itself, and all
/// requests of the layer read them. A new setting is a field here, a line in `default`, a rule in `check`
/// if not every value makes sense, and a method of the builder.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) cookie: CookieConfig,
    pub(crate) expiry: Expiry,
    /// The application has said something about the absolute timeout.
    pub(crate) is_absolute_timeout_set: bool,
    pub(crate) policy: Policy,
    /// The most bytes of a payload.
    pub(crate) payload_limit: usize,
    /// How long a request waits for a session's lock.
    pub(crate) lock_timeout: Duration,
    /// How many requests wait for a session's lock at a time.
    pub(crate) waiter_limit: usize,
    pub(crate) plain_secrets: Plain,
    /// `None`: [`Settings::lease_time`] has the default.
    pub(crate) own_lease_time: Option<Duration>,
    /// How often a session that is waited for to end is looked at, if the store tells nothing.
    pub(crate) end_check_interval: Duration,
    /// How long one call of the store may take.
    pub(crate) store_timeout: Duration,
    /// The session of an earlier library ends when it is adopted, and its cookie goes.
    #[cfg(feature = "adopt")]
    pub(crate) ends_predecessor: bool,
    pub(crate) clock: Clock,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            cookie: CookieConfig::default(),
            expiry: Expiry::default(),
            is_absolute_timeout_set: false,
            policy: Policy::default(),
            payload_limit: 1 << 20,
            lock_timeout: Duration::from_secs(30),
            waiter_limit: 1_000,
            plain_secrets: Plain::default(),
            own_lease_time: None,
            end_check_interval: Duration::from_secs(30),
            store_timeout: Duration::from_secs(5),
            #[cfg(feature = "adopt")]
            ends_predecessor: true,
            clock: Clock::default(),
        }
    }
}

impl Settings {
    /// How long a lease lasts without being renewed.
    pub(crate) fn lease_time(&self) -> Duration {
        self.own_lease_time.unwrap_or(Duration::from_secs(10))
    }

    /// Refuses settings under which no session could live, or that contradict each other or the store.
    pub(crate) fn check(&self, storage: &Storage) -> Result<(), BuildError> {
        self.cookie.check()?;
        self.expiry.check(self.is_absolute_timeout_set)?;
        self.policy.check()?;
        if self.payload_limit > LARGEST_PAYLOAD {
            return Err(BuildError::new(format!(
                "the payload limit is {} bytes, the most is {LARGEST_PAYLOAD}",
                self.payload_limit
            )));
        }
        if self.store_timeout.is_zero() {
            return Err(BuildError::new("the store timeout is zero: no call could succeed"));
        }
        if self.end_check_interval.is_zero() {
            return Err(BuildError::new(
                "the interval of `with_end_check_interval` is zero: the store would be asked all the time",
            ));
        }
        if self.waiter_limit == 0 {
            return Err(BuildError::new(
                "the waiter limit is zero: of two requests of a session at once, one would fail",
            ));
        }
        if self.own_lease_time.is_some() && storage.is_cookie() {
            return Err(BuildError::new(
                "a session that is kept in its cookie cannot be locked across processes: use a \
                 store, or leave out `with_lease_time`",
            ));
        }
        let lease_time = self.lease_time();
        if lease_time < SHORTEST_LEASE {
            return Err(BuildError::new(format!(
                "the lease time is {lease_time:?}: it could not be renewed in time; the shortest is \
                 {SHORTEST_LEASE:?}"
            )));
        }
        Ok(())
    }
}

#[cfg(all(test, feature = "memory", any(feature = "messagepack", feature = "json")))]
mod tests {
    use super::*;
    use crate::{MemoryStore, store::storage::IntoStorage};

    #[test]
    fn each_setting_is_checked() {
        type Change = fn(&mut Settings);
        let table: [(&str, Change); 10] = [
            ("", |_| ()),
            ("", |it| it.own_lease_time = Some(SHORTEST_LEASE)),
            ("", |it| it.payload_limit = LARGEST_PAYLOAD),
            ("browsers reject", |it| it.cookie.secure = false),
            ("idle timeout is zero", |it| it.expiry.idle = Some(Duration::ZERO)),
            ("payload limit", |it| it.payload_limit = LARGEST_PAYLOAD + 1),
            ("store timeout is zero", |it| it.store_timeout = Duration::ZERO),
            ("with_end_check_interval", |it| it.end_check_interval = Duration::ZERO),
            ("waiter limit is zero", |it| it.waiter_limit = 0),
            ("lease time", |it| it.own_lease_time = Some(Duration::from_millis(29))),
        ];
        let storage = MemoryStore::new().into_storage();
        for (word, change) in table {
            let mut settings = Settings::default();
            change(&mut settings);
            match settings.check(&storage) {
                Ok(()) => assert_eq!(word, ""),
                Err(error) => {
                    assert!(!word.is_empty() && error.to_string().contains(word), "{word}: {error}")
                }
            }
        }
    }
}
