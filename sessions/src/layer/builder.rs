//! The settings of a layer, checked once, when it is built.

use std::{borrow::Cow, fmt, marker::PhantomData, sync::Arc, time::Duration};

use axum_core::BoxError;
use http::{Response, request::Parts};

#[cfg(feature = "device-bound")]
use crate::device_bound::settings::DeviceBinding;
#[cfg(feature = "adopt")]
use crate::{
    adopt::{AdoptError, OldSession, Predecessor},
    data::user::SessionUser,
    login,
    save::adopt::Adoption,
};
use crate::{
    cookie::{SameSite, neighbours::Neighbour, plain_http::PlainHttpHint, seen::SeenCookies},
    data::{
        SessionData,
        codec::{Codec, Probe},
        merge::Conflict,
    },
    error::BuildError,
    identity::{current::CurrentKeys, keys::Keys},
    layer::SessionLayer,
    save::{
        background::Background,
        settings::Settings,
        shared::{Shared, WriteIds},
    },
    slot::{changes::Defaults, registry::Registry},
    store::storage::Storage,
    web::rejection::{OnRejection, Rejection},
};

/// The settings of a [`SessionLayer`], with defaults that are safe as they are:
///
/// | setting | default |
/// | --- | --- |
/// | cookie | `__Host-id`, `Secure`, `HttpOnly`, `SameSite=Lax`, `Path=/`, gone with the browser's session |
/// | idle timeout | 2 hours, slid forward at most once in 6 minutes |
/// | absolute timeout | 24 hours |
/// | largest payload | 1 MiB |
/// | lock timeout | 30 seconds |
/// | requests that wait for one session's lock | 1,000 |
/// | store timeout | 5 seconds a call |
/// | lease time | 10 seconds |
/// | a look at a session whose end is waited for | every 30 seconds |
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
pub struct SessionLayerBuilder<T: SessionData> {
    storage: Storage,
    keys: Keys,
    settings: Settings,
    on_rejection: Option<OnRejection>,
    #[cfg(feature = "device-bound")]
    device_binding: Option<DeviceBinding>,
    #[cfg(feature = "adopt")]
    adoption: Option<Box<Adoption<T>>>,
    is_another_process: bool,
    data: PhantomData<fn() -> T>,
}

impl<T: SessionData> SessionLayerBuilder<T> {
    pub(super) fn new(storage: Storage, keys: Keys) -> Self {
        Self {
            storage,
            keys,
            settings: Settings::default(),
            on_rejection: None,
            #[cfg(feature = "device-bound")]
            device_binding: None,
            #[cfg(feature = "adopt")]
            adoption: None,
            is_another_process: false,
            data: PhantomData,
        }
    }

    /// The name of the cookie. The prefix `__Host-` binds it to this very host over TLS, `__Secure-`
    /// to TLS (RFC 6265bis, 4.1.3). Two layers that serve the same requests need two names.
    #[doc(alias = "with_name")]
    pub fn with_cookie_name(mut self, name: impl Into<Cow<'static, str>>) -> Self {
        self.settings.cookie.name = name.into();
        self
    }

    /// Sends the cookie to this domain and all of its subdomains. Needs another name than a
    /// `__Host-` one.
    ///
    /// A domain is a name such as `example.com`, of the host itself or of one above it; it has no
    /// scheme, no port, no path and no `*`, and a name in other letters is written in Punycode. From
    /// anything else browsers drop the cookie without a word (RFC 6265bis, 5.7), so that
    /// [`build`](Self::build) refuses it. They drop it also for a name under which everybody can have
    /// one, such as `co.uk` or `github.io` (<https://publicsuffix.org>), which nobody is told of here.
    #[doc(alias = "with_domain")]
    pub fn with_cookie_domain(mut self, domain: impl Into<Cow<'static, str>>) -> Self {
        self.settings.cookie.domain = Some(domain.into());
        self
    }

    /// Sends the cookie to this path and those below it only. Needs another name than a `__Host-`
    /// one.
    #[doc(alias = "with_path")]
    pub fn with_cookie_path(mut self, path: impl Into<Cow<'static, str>>) -> Self {
        self.settings.cookie.path = path.into();
        self
    }

    /// When the cookie is sent along from other sites.
    ///
    /// `Strict` keeps it back also when a link leads here: a user who comes from an identity provider, or
    /// from a mail, is nobody on the first page, also when it is reloaded, and known on the second. With the default `Lax` the
    /// cookie comes along when a link is followed, and not with what other sites post: how a provider that
    /// answers with a form (`response_mode=form_post`) finds the session all the same says
    /// [`proxies`](crate::proxies#cookies-between-sites).
    pub fn with_same_site(mut self, same_site: SameSite) -> Self {
        self.settings.cookie.same_site = same_site;
        self
    }

    /// The cookie outlives the browser's own session, for as long as the absolute timeout lets it.
    /// Browsers keep a cookie for 400 days at most: that of a session which may last longer is sent
    /// again while the session is in use, every 30 days. A session can ask for itself:
    /// [`Lifetime::with_persistent_cookie`](crate::Lifetime::with_persistent_cookie).
    #[doc(alias("max_age", "permanent"))]
    pub fn with_persistent_cookie(mut self) -> Self {
        self.settings.expiry.persistent = true;
        self
    }

    /// One cookie for each site in whose pages the application is shown in a frame (`Partitioned`,
    /// [CHIPS](https://datatracker.ietf.org/doc/draft-cutler-httpbis-partitioned-cookies/)). Browsers that block the
    /// cookies of other sites let a partitioned one through; the session in one site's frame is another than in the
    /// next one's, and than where the application is opened by itself.
    ///
    /// Needs `Secure`, and [`SameSite::None`](Self::with_same_site), without which a browser sends no
    /// cookie into a frame. That lets other sites' requests come with it too: have a
    /// [`CsrfLayer`](crate::CsrfLayer).
    ///
    /// A partitioned cookie and one that is not are two to a browser: where a running application
    /// changes over, sessions begin anew in frames, and it may be sent both for a while.
    pub fn with_partitioned_cookie(mut self) -> Self {
        self.settings.cookie.partitioned = true;
        self
    }

    /// Lets scripts in the page read the cookie: an attacker who injects one then has the session.
    #[doc(alias("with_http_only", "http_only"))]
    pub fn insecure_script_access(mut self) -> Self {
        self.settings.cookie.http_only = false;
        self
    }

    /// For development over plain HTTP: drops `Secure`, and a prefix that demands it, as `__Host-`,
    /// from the name. An attacker who can listen then has the session.
    ///
    /// Over plain HTTP no browser keeps a `Secure` cookie, and every request begins a new session:
    ///
    /// | at | Chromium, Firefox | Safari and other WebKit |
    /// | --- | --- | --- |
    /// | `https://` | keep it | keep it |
    /// | `http://localhost`, `http://127.0.0.1` | keep it | drop it |
    /// | `http://` and any other name or address, as of the local network | drop it | drop it |
    ///
    /// The first time that a browser seems to be at this, a warning in the log says so.
    #[doc(alias("with_secure", "secure"))]
    pub fn insecure_plain_http(mut self) -> Self {
        self.settings.cookie.secure = false;
        for prefix in ["__Host-Http-", "__Host-", "__Secure-", "__Http-"] {
            // Browsers compare prefixes without regard to case.
            match self.settings.cookie.name.split_at_checked(prefix.len()) {
                Some((start, name)) if start.eq_ignore_ascii_case(prefix) => {
                    self.settings.cookie.name = name.to_string().into();
                }
                _ => {}
            }
        }
        self
    }

    /// A session ends when it has not been used for this long; to the millisecond. With `None` it is
    /// the absolute timeout alone that ends it.
    ///
    /// The absolute timeout ends a session that is in use, too, and is 24 hours by default: an idle
    /// timeout of as much or more needs it set as well, or [`build`](Self::build) refuses the two.
    ///
    /// ```
    /// # #[cfg(all(feature = "derive", feature = "memory", feature = "bincode"))] {
    /// # #[derive(sessions::Session)] struct Visitor { visits: u32 }
    /// # use std::time::Duration;
    /// # use sessions::{Keys, MemoryStore, SessionLayer};
    /// const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    /// let layer = SessionLayer::<Visitor>::builder(MemoryStore::new(), Keys::generate())
    ///     .with_idle_timeout(7 * DAY)
    ///     .with_absolute_timeout(90 * DAY)
    ///     .build();
    /// # layer.unwrap();
    /// # }
    /// ```
    #[doc(alias("with_expiry", "OnInactivity", "inactivity", "ttl"))]
    pub fn with_idle_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.settings.expiry.idle = timeout.into();
        self
    }

    /// A session ends this long after it was first saved, however much it is used; to the
    /// millisecond. With `None` a session that is in use never ends.
    #[doc(alias("with_max_age", "max_lifetime"))]
    pub fn with_absolute_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.settings.expiry.absolute = timeout.into();
        self.settings.is_absolute_timeout_set = true;
        self
    }

    /// How much later a session must expire before that is worth a write: a session that is only
    /// read is written to the store at most once in this time, and one that is written to keeps its
    /// expiry meanwhile. A twentieth of the idle timeout by default.
    pub fn with_refresh_window(mut self, window: Duration) -> Self {
        self.settings.expiry.refresh = Some(window);
        self
    }

    /// How fields are encoded from now on, but for those with `#[session(codec = …)]`. Those that
    /// another codec wrote are still read, if its feature is on. What each codec can hold stands in
    /// [`values`](crate::values).
    pub fn with_codec(mut self, codec: Codec) -> Self {
        self.settings.policy.codec = codec;
        self
    }

    /// The most bytes that a session's fields may take in the store, up to 16 MiB. A save of more is
    /// an error.
    pub fn with_payload_limit(mut self, bytes: usize) -> Self {
        self.settings.payload_limit = bytes;
        self
    }

    /// How long [`read`](crate::Session::read) and [`write`](crate::Session::write) wait for a lock
    /// before the request is given up and answered with 503. What returns an error, as
    /// [`update`](crate::Session::update) does, returns it after this time. With `None` they wait until
    /// the lock is free; a request that waits for itself is given up all the same. Default: 30 seconds.
    pub fn with_lock_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.settings.lock_timeout = timeout.into().unwrap_or(Duration::MAX);
        self
    }

    /// How many requests may wait for the lock of one session at a time; one more is answered with
    /// 503 at once. The requests of one session wait for each other, so a client with a cookie can have
    /// as many wait as the server takes connections, each with its handler in memory. Default: 1,000,
    /// more than the pages of one browser send at once (HTTP/2 servers commonly take 100 to 250
    /// requests on a connection, RFC 9113, 6.5.2, and a browser opens one a site).
    pub fn with_waiter_limit(mut self, requests: usize) -> Self {
        self.settings.waiter_limit = requests;
        self
    }

    /// Reads no value of a `#[session(secret)]` field that is not encrypted in the store: the field has
    /// its default then, and a warning says so. Without this such a value is read, and encrypted with
    /// the next save, so that a field can become a secret while sessions are stored; and whoever can
    /// write to the store can set the field to whatever they like, for ever.
    ///
    /// Right from the start for an application whose secret fields have always been secret; else as
    /// soon as the longest session from before has ended.
    #[cfg(feature = "secret")]
    pub fn without_plain_secrets(mut self) -> Self {
        self.settings.plain_secrets = crate::data::sealing::Plain::Refused;
        self
    }

    /// How long the lease of a [`lock`](crate::Session::lock) lasts without being renewed; it is
    /// renewed three times as often. So long a process that dies with a lease holds up the others.
    /// Ten seconds by default.
    pub fn with_lease_time(mut self, time: Duration) -> Self {
        self.settings.own_lease_time = Some(time);
        self
    }

    /// How often the store is asked about a session whose [end](crate::Session::ended) is waited for, if the
    /// store does not tell by itself: so late does a waiter hear of an end in another process. Default: 30
    /// seconds; zero is an error. An end in this process, and one that the store tells, are heard of at once.
    pub fn with_end_check_interval(mut self, interval: Duration) -> Self {
        self.settings.end_check_interval = interval;
        self
    }

    /// How long one call of the store may take before it is given up, and the request answered with
    /// 503. Five seconds by default.
    pub fn with_store_timeout(mut self, timeout: Duration) -> Self {
        self.settings.store_timeout = timeout;
        self
    }

    /// What a save does about a field that another request has changed at the same time, in another
    /// process or without having saved yet here, if the field has no `merge` of its own.
    pub fn with_conflict_policy(mut self, conflict: Conflict) -> Self {
        self.settings.policy.conflict = conflict;
        self
    }

    /// What a client gets in place of a handler's response if the session could not be saved; by
    /// default the error's [status](crate::Error::status) and a line of text. The function is given
    /// the head of the request, which is copied for it before the handler runs. See [`Rejection`], also
    /// for what the extractors reject.
    pub fn with_rejection_response<B>(
        mut self,
        response: impl Fn(&Rejection, &Parts) -> Response<B> + Send + Sync + 'static,
    ) -> Self
    where
        B: http_body::Body<Data = bytes::Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        self.on_rejection = Some(OnRejection::new(response));
        self
    }

    /// Binds each session with a logged-in user to the device that it is used on, where the
    /// browser can do that: a copy of its cookies then opens nothing after some minutes. For a type of
    /// session without a user, every session that is stored.
    ///
    /// The layer itself answers two paths for it, of requests that no page makes:
    /// [`DeviceBinding::with_path`]. What it is worth, and how to roll it out:
    /// [`devices`](crate::devices).
    #[cfg(feature = "device-bound")]
    pub fn bind_to_device(mut self, binding: DeviceBinding) -> Self {
        self.device_binding = Some(binding);
        self
    }

    /// The sessions of the library that the application used before go on: where no cookie of ours opens a
    /// session, the predecessor's is looked for, and `fill` makes the fields of what was in there. It says
    /// who was logged in, if anybody; whom it names is logged in, as after
    /// [`login`](crate::Session::login). [`adopt`](crate::adopt) has an example, and says what holds.
    ///
    /// `fill` may run several times for one old session. Its error, as of a value that has another type than
    /// was thought, is logged, and the visitor is a new one.
    ///
    /// Called twice, the last one counts.
    #[cfg(feature = "adopt")]
    pub fn adopt(
        mut self,
        predecessor: impl Predecessor,
        fill: impl Fn(&OldSession, &mut T::Fields) -> Result<Option<T::User>, AdoptError>
        + Send
        + Sync
        + 'static,
    ) -> Self
    where
        T: SessionUser,
    {
        let fill = move |shared: &Shared<T>, writer, old: &OldSession, fields: &mut T::Fields| {
            let Some(user) = fill(old, fields)? else { return Ok(None) };
            login::patch_with::<T>(user, shared, writer).map(Some).map_err(AdoptError::unreadable)
        };
        self.adoption = Some(Box::new(Adoption::new(predecessor, Box::new(fill))));
        self
    }

    /// The same for sessions that say of nobody whose they are.
    #[cfg(feature = "adopt")]
    pub fn adopt_visitors(
        mut self,
        predecessor: impl Predecessor,
        fill: impl Fn(&OldSession, &mut T::Fields) -> Result<(), AdoptError> + Send + Sync + 'static,
    ) -> Self {
        let fill = move |_: &Shared<T>, _, old: &OldSession, fields: &mut T::Fields| {
            fill(old, fields).map(|()| None)
        };
        self.adoption = Some(Box::new(Adoption::new(predecessor, Box::new(fill))));
        self
    }

    /// Leaves the record and the cookie of a session that is [adopted](Self::adopt) as they are, while
    /// processes of the old build still serve. See [`adopt`](crate::adopt#a-fleet-that-rolls).
    #[cfg(feature = "adopt")]
    pub fn without_ending_predecessor(mut self) -> Self {
        self.settings.ends_predecessor = false;
        self
    }

    /// Another clock than the system's, to test expiry without waiting. The store needs the same.
    #[cfg(feature = "testing")]
    pub fn with_clock(mut self, clock: &crate::clock::ManualClock) -> Self {
        self.settings.clock = clock.clock();
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
    /// A device binding that could not work; a cookie that browsers would reject, limits under which a session would
    /// never or at once expire, a payload limit over 16 MiB, a waiter limit or an interval of zero, no codec compiled in, a field no
    /// value of which its codec would give back; a layer of another type in this process that has a key
    /// and the cookie's name in common with this one. The message says what to change.
    pub fn build(self) -> Result<SessionLayer<T>, BuildError> {
        self.settings.check(&self.storage)?;
        check_fields::<T>(self.settings.policy.codec)?;
        #[cfg(feature = "device-bound")]
        let devices = match self.device_binding {
            Some(binding) => {
                let has_users = T::FIELDS.iter().any(|field| field.user);
                let is_in_cookie = self.storage.is_cookie();
                Some(Box::new(binding.build_for(&self.settings.cookie, is_in_cookie, has_users)?))
            }
            None => None,
        };
        #[cfg(feature = "adopt")]
        if self.adoption.is_some() && self.storage.is_cookie() {
            return Err(BuildError::new(
                "sessions that are kept in their cookies cannot be adopted: two requests with one old \
                 cookie would make two of it; use a store, or leave out `adopt`",
            ));
        }
        let neighbour = Neighbour::new::<T>(&self.settings.cookie, &self.keys);
        #[cfg(feature = "device-bound")]
        let neighbour = neighbour.with_bound(devices.as_ref().map(|it| it.names()));
        let neighbour = if self.is_another_process { None } else { Some(neighbour.register()?) };
        let plain_http = PlainHttpHint::new(&self.settings.cookie);
        let shared = Shared {
            user_prefix: user_prefix(T::__NAME, self.keys.tenant()),
            storage: self.storage,
            keys: CurrentKeys::new(self.keys.for_type(T::__NAME)),
            neighbour,
            settings: self.settings,
            defaults: Defaults::new::<T>(),
            write_ids: WriteIds::new(),
            registry: Arc::new(Registry::new()),
            seen_cookies: SeenCookies::new(),
            background: Background::new(),
            plain_http,
            #[cfg(feature = "device-bound")]
            devices,
            #[cfg(feature = "adopt")]
            adoption: self.adoption,
        };
        Ok(SessionLayer { shared: Arc::new(shared), on_rejection: self.on_rejection })
    }
}

/// Refuses a field no value of which its codec, or the layer's, would give back.
fn check_fields<T: SessionData>(codec: Codec) -> Result<(), BuildError> {
    for (field, info) in T::FIELDS.iter().enumerate() {
        let codec = info.codec.unwrap_or(codec);
        if let Err(error) = T::__probe(field, Probe { codec }) {
            return Err(BuildError::new(format!(
                "the field `{}` (`{}`) of `{}` cannot be stored: {error}",
                info.key,
                error.type_name(),
                std::any::type_name::<T>(),
            )));
        }
    }
    Ok(())
}

/// What stands before a user in a store. Neither a type's name nor a tenant has a `:` in it.
fn user_prefix(name: &str, tenant: Option<&str>) -> Box<str> {
    match tenant {
        None => format!("{name}:").into(),
        Some(tenant) => format!("{name}@{tenant}:").into(),
    }
}

impl<T: SessionData> fmt::Debug for SessionLayerBuilder<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionLayerBuilder")
            .field("keys", &self.keys)
            .field("cookie", &self.settings.cookie)
            .field("expiry", &self.settings.expiry)
            .finish_non_exhaustive()
    }
}
