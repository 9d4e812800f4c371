//! The settings of a layer, checked once, when it is built.

use std::{borrow::Cow, fmt, marker::PhantomData, sync::Arc, time::Duration};

use super::{SessionLayer, neighbours::Neighbour};
use crate::{
    Codec, Keys, SameSite, SessionData,
    clock::Clock,
    cookie::{CookieConfig, SeenCookies},
    error::BuildError,
    expiry::Expiry,
    payload::LARGEST_PAYLOAD,
    registry::Registry,
    shared::{Background, Marks, Shared},
    slot::{Defaults, rebase::Policy},
    storage::Storage,
};

/// A lease is renewed three times in this time.
const SHORTEST_LEASE: Duration = Duration::from_millis(30);

/// What a save does about a field that somebody else has changed at the same time:
/// [`SessionLayerBuilder::on_conflict`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Conflict {
    /// The later save wins, and a `tracing` warning names the field.
    #[default]
    LastWins,
    /// The later save is refused: a [`Conflict`](crate::ErrorKind::Conflict) error, and 409 for the
    /// client.
    Reject,
}

/// The settings of a [`SessionLayer`], with defaults that are safe as they are:
///
/// | setting | default |
/// | --- | --- |
/// | cookie | `__Host-id`, `Secure`, `HttpOnly`, `SameSite=Lax`, `Path=/`, gone with the browser's session |
/// | idle timeout | 2 hours, slid forward at most once in 6 minutes |
/// | absolute timeout | 24 hours |
/// | largest payload | 1 MiB |
/// | lock timeout | 30 seconds |
/// | store timeout | 5 seconds a call |
/// | lease time | 10 seconds |
/// | a field that is changed in two places at once | the later save wins |
/// | codec | bincode, if that feature is on |
///
/// ```
/// # #[cfg(all(feature = "derive", feature = "memory", feature = "bincode"))]
/// # fn main() -> Result<(), sessions::BuildError> {
/// # #[derive(sessions::Session)] struct Visitor { visits: u32 }
/// use std::time::Duration;
/// use sessions::{Keys, MemoryStore, SameSite, SessionLayer};
///
/// let layer = SessionLayer::<Visitor>::builder(MemoryStore::new(), Keys::generate())
///     .with_cookie_name("__Host-shop")
///     .with_same_site(SameSite::Strict)
///     .with_idle_timeout(Duration::from_secs(30 * 60))
///     .build()?;
/// # Ok(()) }
/// # #[cfg(not(all(feature = "derive", feature = "memory", feature = "bincode")))]
/// # fn main() {}
/// ```
#[must_use = "a builder does nothing until `build` is called"]
pub struct SessionLayerBuilder<T> {
    storage: Storage,
    keys: Keys,
    cookie: CookieConfig,
    expiry: Expiry,
    codec: Option<Codec>,
    conflict: Conflict,
    payload_limit: usize,
    lock_timeout: Duration,
    lease_time: Option<Duration>,
    store_timeout: Duration,
    clock: Clock,
    is_another_process: bool,
    data: PhantomData<fn() -> T>,
}

impl<T: SessionData> SessionLayerBuilder<T> {
    pub(super) fn new(storage: Storage, keys: Keys) -> Self {
        Self {
            storage,
            keys,
            cookie: CookieConfig::default(),
            expiry: Expiry::default(),
            codec: Codec::preferred(),
            conflict: Conflict::default(),
            payload_limit: 1 << 20,
            lock_timeout: Duration::from_secs(30),
            lease_time: None,
            store_timeout: Duration::from_secs(5),
            clock: Clock::System,
            is_another_process: false,
            data: PhantomData,
        }
    }

    /// The name of the cookie. The prefix `__Host-` binds it to this very host over TLS, `__Secure-`
    /// to TLS (RFC 6265bis, 4.1.3). Two layers that serve the same requests need two names.
    pub fn with_cookie_name(mut self, name: impl Into<Cow<'static, str>>) -> Self {
        self.cookie.name = name.into();
        self
    }

    /// Sends the cookie to this domain and all of its subdomains. Needs another name than a
    /// `__Host-` one.
    pub fn with_cookie_domain(mut self, domain: impl Into<Cow<'static, str>>) -> Self {
        self.cookie.domain = Some(domain.into());
        self
    }

    /// Sends the cookie to this path and those below it only. Needs another name than a `__Host-`
    /// one.
    pub fn with_cookie_path(mut self, path: impl Into<Cow<'static, str>>) -> Self {
        self.cookie.path = path.into();
        self
    }

    /// When the cookie is sent along from other sites.
    pub fn with_same_site(mut self, same_site: SameSite) -> Self {
        self.cookie.same_site = same_site;
        self
    }

    /// Whether the cookie outlives the browser's own session, for as long as the absolute timeout
    /// lets it. A session can ask for itself: [`Lifetime::persistent`](crate::Lifetime::persistent).
    pub fn with_persistent_cookie(mut self, persistent: bool) -> Self {
        self.expiry.persistent = persistent;
        self
    }

    /// Lets scripts in the page read the cookie: whoever injects one then has the session.
    pub fn insecure_script_access(mut self) -> Self {
        self.cookie.http_only = false;
        self
    }

    /// For development over plain HTTP, with browsers that take no `Secure` cookie even from
    /// `localhost`: drops `Secure`, and the prefix `__Host-` or `__Secure-` from the name. Whoever
    /// can listen then has the session.
    pub fn insecure_localhost(mut self) -> Self {
        self.cookie.secure = false;
        for prefix in ["__Host-", "__Secure-"] {
            if let Some(name) = self.cookie.name.strip_prefix(prefix) {
                self.cookie.name = name.to_string().into();
            }
        }
        self
    }

    /// A session ends when it has not been used for this long; to the millisecond.
    pub fn with_idle_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.expiry.idle = timeout.into();
        self
    }

    /// A session ends this long after it was first saved, however much it is used; to the
    /// millisecond.
    pub fn with_absolute_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.expiry.absolute = timeout.into();
        self
    }

    /// How much later a session must expire before that is worth a write: a session that is only
    /// read is written to the store at most once in this time, and one that is written to keeps its
    /// expiry meanwhile. A twentieth of the idle timeout by default.
    pub fn with_refresh_window(mut self, window: Duration) -> Self {
        self.expiry.refresh = Some(window);
        self
    }

    /// How fields are encoded from now on. Those that another codec wrote are still read, if its
    /// feature is on.
    pub fn with_codec(mut self, codec: Codec) -> Self {
        self.codec = Some(codec);
        self
    }

    /// The most bytes that a session's fields may take in the store, up to 16 MiB. A save of more is
    /// an error.
    pub fn with_payload_limit(mut self, bytes: usize) -> Self {
        self.payload_limit = bytes;
        self
    }

    /// How long [`read`](crate::Session::read) and [`write`](crate::Session::write) wait for a lock
    /// before they panic.
    pub fn with_lock_timeout(mut self, timeout: Duration) -> Self {
        self.lock_timeout = timeout;
        self
    }

    /// How long the lease of a [`lock`](crate::Session::lock) lasts without being renewed; it is
    /// renewed three times as often. So long a process that dies with a lease holds up the others.
    /// Ten seconds by default.
    pub fn with_lease_time(mut self, time: Duration) -> Self {
        self.lease_time = Some(time);
        self
    }

    /// How long one call of the store may take before it is given up, and the request answered with
    /// 503. Five seconds by default.
    pub fn with_store_timeout(mut self, timeout: Duration) -> Self {
        self.store_timeout = timeout;
        self
    }

    /// What a save does about a field that somebody else has changed at the same time, in another
    /// process or without having saved yet here, if the field has no `merge` of its own.
    pub fn on_conflict(mut self, conflict: Conflict) -> Self {
        self.conflict = conflict;
        self
    }

    /// Another clock than the system's, to test expiry without waiting. The store needs the same.
    #[cfg(feature = "testing")]
    pub fn with_clock(mut self, clock: &crate::testing::ManualClock) -> Self {
        self.clock = clock.clock();
        self
    }

    /// Stands for a layer of another process: it is not compared with those of this one. For tests in
    /// which two builds of an application, or two servers, share a store.
    #[cfg(feature = "testing")]
    pub fn in_another_process(mut self) -> Self {
        self.is_another_process = true;
        self
    }

    /// The layer, unless the settings contradict each other.
    ///
    /// # Errors
    ///
    /// A cookie that browsers would reject, limits under which a session would never or at once
    /// expire, a payload limit over 16 MiB, no codec compiled in; a layer of another type in this
    /// process that has a key and the cookie's name in common with this one. The message says what to
    /// change.
    pub fn build(self) -> Result<SessionLayer<T>, BuildError> {
        self.cookie.check()?;
        self.expiry.check()?;
        if self.payload_limit > LARGEST_PAYLOAD {
            return Err(BuildError::new(format!(
                "the payload limit is {} bytes, the most is {LARGEST_PAYLOAD}",
                self.payload_limit
            )));
        }
        if self.store_timeout.is_zero() {
            return Err(BuildError::new("the store timeout is zero: no call could succeed"));
        }
        if self.lease_time.is_some() && self.storage.is_cookie() {
            return Err(BuildError::new(
                "a session that is kept in its cookie cannot be locked across processes: use a \
                 store, or leave out `with_lease_time`",
            ));
        }
        let lease_time = self.lease_time.unwrap_or(Duration::from_secs(10));
        if lease_time < SHORTEST_LEASE {
            return Err(BuildError::new(format!(
                "the lease time is {lease_time:?}: it could not be renewed in time; the shortest is \
                 {SHORTEST_LEASE:?}"
            )));
        }
        let codec = self.codec.ok_or_else(|| {
            BuildError::new("no codec: enable one of the features `bincode`, `postcard`, `json`")
        })?;
        let neighbour = Neighbour::new::<T>(&self.cookie, &self.keys);
        let neighbour = if self.is_another_process { None } else { Some(neighbour.settle()?) };
        let shared = Shared {
            user_prefix: user_prefix(T::__NAME, self.keys.tenant()),
            storage: self.storage,
            keys: self.keys.for_type(T::__NAME),
            _neighbour: neighbour,
            cookie: self.cookie,
            expiry: self.expiry,
            policy: Policy { codec, conflict: self.conflict },
            defaults: Defaults::of::<T>(),
            payload_limit: self.payload_limit,
            lock_timeout: self.lock_timeout,
            lease_time,
            store_timeout: self.store_timeout,
            marks: Marks::new(),
            clock: self.clock,
            registry: Arc::new(Registry::new()),
            seen_cookies: SeenCookies::new(),
            background: Background::new(),
        };
        Ok(SessionLayer { shared: Arc::new(shared) })
    }
}

/// What stands before a user in a store. Neither a type's name nor a tenant has a `:` in it.
fn user_prefix(name: &str, tenant: Option<&str>) -> Box<str> {
    match tenant {
        None => format!("{name}:").into(),
        Some(tenant) => format!("{name}@{tenant}:").into(),
    }
}

impl<T> fmt::Debug for SessionLayerBuilder<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionLayerBuilder")
            .field("keys", &self.keys)
            .field("cookie", &self.cookie)
            .field("expiry", &self.expiry)
            .finish_non_exhaustive()
    }
}
