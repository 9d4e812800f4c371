//! What the application says about bound sessions, checked; and what the browser is told of it.

use std::{
    borrow::Cow,
    fmt,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::{Duration, SystemTime},
};

use http::{HeaderMap, HeaderValue, header};
use serde_json::json;

use crate::{
    cookie::{CookieConfig, neighbours::BoundNames},
    device_bound::{
        UnprovenPolicy,
        challenge::{self, Purpose, Unusable},
        cookie::{self, BoundCookie},
        jwt,
        offers::Offers,
    },
    error::BuildError,
    identity::{id::StoreKey, keys::Keys},
    record::binding::BindingId,
};

/// A browser refreshes a cookie that has less than two minutes left at every page. Of a shorter lifetime it
/// would do little else.
const SHORTEST_LIFETIME: Duration = Duration::from_secs(3 * 60);

/// A browser makes six signatures in nine minutes at most: there have to be more than 90 seconds between two
/// of them. A cookie with a shorter lifetime than this has less than two minutes left after 90 seconds and
/// less; so its browser gets no challenge ahead, and has to ask for one: see [`BoundDevices::not_yet`].
const LONG_LIFETIME: Duration = Duration::from_secs(4 * 60);

/// With a short lifetime, so long before the cookie goes a browser gets a challenge.
const DUE: Duration = Duration::from_secs(30);

/// A bound cookie goes from the browser so long before the server stops to take it: a request may be
/// under way.
const UNDER_WAY: Duration = Duration::from_secs(10);

/// A registration comes within a second of its offer.
const REGISTRATION_TIME: Duration = Duration::from_secs(5 * 60);

/// How long a session that is not bound waits for the next offer.
const OFFER_INTERVAL: Duration = Duration::from_secs(10 * 60);

/// What follows the session cookie's name in that of the bound cookie.
const COOKIE_SUFFIX: &str = "-device";

/// How a layer binds its sessions to devices, so that a copied cookie opens nothing:
/// [`SessionLayerBuilder::bind_to_device`](crate::SessionLayerBuilder::bind_to_device).
///
/// ```
/// # #[cfg(all(feature = "derive", feature = "memory", feature = "bincode"))]
/// # fn main() -> Result<(), sessions::BuildError> {
/// # #[derive(sessions::Session)] struct Visitor { #[session(user)] user: Option<u64> }
/// use sessions::{DeviceBinding, Keys, MemoryStore, SessionLayer};
///
/// let layer = SessionLayer::<Visitor>::builder(MemoryStore::new(), Keys::generate())
///     .bind_to_device(DeviceBinding::new())
///     .build()?;
/// # Ok(()) }
/// # #[cfg(not(all(feature = "derive", feature = "memory", feature = "bincode")))]
/// # fn main() {}
/// ```
///
/// [`devices`](crate::devices) tells what that is worth, what browsers do, and how to roll it out.
///
/// | setting | default |
/// | --- | --- |
/// | paths | `/device-binding/register` and `/device-binding/refresh`, below the cookie's path |
/// | lifetime of the bound cookie | 10 minutes |
/// | who may start a refresh | every site whose link leads here |
/// | what an unproven request gets | logged out, or asked to come again: [`UnprovenPolicy::Reload`] |
#[derive(Clone, Debug)]
#[must_use = "it does nothing until it is given to `SessionLayerBuilder::bind_to_device`"]
pub struct DeviceBinding {
    path: Option<Cow<'static, str>>,
    prefix: Cow<'static, str>,
    lifetime: Duration,
    initiators: Vec<String>,
    policy: UnprovenPolicy,
    offers: bool,
}

impl Default for DeviceBinding {
    fn default() -> Self {
        Self::new()
    }
}

impl DeviceBinding {
    /// With defaults that are right as they are.
    pub fn new() -> Self {
        Self {
            path: None,
            prefix: "".into(),
            lifetime: Duration::from_secs(10 * 60),
            initiators: vec!["*".to_string()],
            policy: UnprovenPolicy::default(),
            offers: true,
        }
    }

    /// The path below which the layer answers browsers: `/device-binding` makes it
    /// `POST /device-binding/register` and `POST /device-binding/refresh`. It must be below the session
    /// cookie's path, and the layer must see its requests: around a whole `axum::Router` it does. Two layers
    /// of one application need two paths: with a key in common, the second one does not build.
    ///
    /// Nothing in front of the layer may answer these paths: a redirect, a 404, a 429 there makes a
    /// browser forget its key, and logs its user out.
    pub fn with_path(mut self, path: impl Into<Cow<'static, str>>) -> Self {
        self.path = Some(path.into());
        self
    }

    /// The beginning of all paths that a proxy takes away before it hands a request on: `/shop`. It is
    /// put before the paths that the browser is told.
    pub fn with_path_prefix(mut self, prefix: impl Into<Cow<'static, str>>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// How long a bound cookie is good, in whole seconds, and so the copy that a thief makes of both
    /// cookies. Default: 10 minutes; not under 3, because a browser refreshes a cookie that has less than
    /// two minutes left at every page, and signs six times in nine minutes at most.
    ///
    /// Under 4 minutes it costs more than a signature now and then: in the last two minutes of a cookie each
    /// page is accompanied by a request that the layer answers without the store, and a proof takes a round
    /// trip more.
    pub fn with_lifetime(mut self, lifetime: Duration) -> Self {
        self.lifetime = lifetime;
        self
    }

    /// From which sites' links a browser refreshes the bound cookie before it asks for the page: host
    /// names, or `*` for all, which is the default. Pages of the application itself always may. A link of
    /// any other site comes without the bound cookie, and gets what [`with_unproven_policy`](Self::with_unproven_policy) says.
    pub fn with_refresh_initiators<H: Into<String>>(
        mut self,
        hosts: impl IntoIterator<Item = H>,
    ) -> Self {
        self.initiators = hosts.into_iter().map(Into::into).collect();
        self
    }

    /// What a request gets that does not show that it comes from the device of its session.
    pub fn with_unproven_policy(mut self, policy: UnprovenPolicy) -> Self {
        self.policy = policy;
        self
    }

    /// Offers no browser to bind a session, and does all else: what is bound stays so, is refreshed, and has to
    /// be shown.
    ///
    /// For the deploy before the one that begins to bind, so that there is no process that knows nothing of what
    /// others have bound; and for not binding any more.
    pub fn without_offers(mut self) -> Self {
        self.offers = false;
        self
    }

    /// For a layer with this cookie.
    pub(crate) fn build_for(
        self,
        session: &CookieConfig,
        is_in_cookie: bool,
        has_users: bool,
    ) -> Result<BoundDevices, BuildError> {
        // Long: one rule after the other, each with its message.
        let fail = |what: &str| Err(BuildError::new(format!("`bind_to_device`: {what}")));
        if is_in_cookie {
            return fail(
                "a session that is kept in its cookie cannot be bound: the browser names the binding \
                 alone, and there is no store to find the session in",
            );
        }
        if session.domain.is_some() {
            return fail(
                "the session's cookie has a domain, and a browser binds a session of one host: leave \
                 out `with_cookie_domain`",
            );
        }
        if session.partitioned {
            return fail("browsers bind no partitioned cookie");
        }
        if self.lifetime < SHORTEST_LIFETIME {
            return fail(&format!(
                "the bound cookie's lifetime is {:?}: a browser refreshes a cookie that has less than \
                 two minutes left at every page, and signs no more than six times in nine minutes, \
                 so that pages would come without the cookie; the shortest is {SHORTEST_LIFETIME:?}",
                self.lifetime
            ));
        }
        let below = session.path.trim_end_matches('/');
        let path = self.path.unwrap_or_else(|| format!("{below}/device-binding").into());
        let is_path = |path: &str| {
            path.starts_with('/')
                && !path.starts_with("//")
                && !path.ends_with('/')
                && path.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"\\?#;".contains(&byte))
        };
        if !is_path(&path) {
            return fail(
                "a path begins with one `/`, ends without one, and has no `?`, `#`, `;`, quotes",
            );
        }
        if !self.prefix.is_empty() && !is_path(&self.prefix) {
            return fail("a path prefix begins with one `/`, ends without one, as `/shop`");
        }
        let seen = [&self.prefix, &*path].concat();
        if !seen.strip_prefix(below).is_some_and(|rest| rest.starts_with('/')) {
            return fail(&format!(
                "the session's cookie is for paths below `{}`, and is not sent to `{seen}`",
                session.path
            ));
        }
        let is_host = |host: &String| {
            host == "*"
                || !host.is_empty()
                    && host
                        .bytes()
                        .all(|byte| byte.is_ascii_alphanumeric() || b".-*".contains(&byte))
        };
        if !self.initiators.iter().all(is_host) {
            return fail("who may start a refresh is a list of host names, or `*`");
        }
        let cookie = session.with_suffix(COOKIE_SUFFIX);
        cookie.check()?;
        Ok(BoundDevices {
            cookie,
            register: [&*path, "/register"].concat(),
            refresh: [&*path, "/refresh"].concat(),
            prefix: self.prefix.into(),
            lifetime: self.lifetime,
            initiators: self.initiators,
            policy: self.policy,
            has_users,
            offers: self.offers.then(Offers::new),
            has_clashed: AtomicBool::new(false),
        })
    }
}

/// Which of the layer's own paths a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Endpoint {
    Register,
    Refresh,
}

/// A layer's settings for bound sessions, and its memory of offers.
pub(crate) struct BoundDevices {
    /// The bound cookie.
    pub(crate) cookie: CookieConfig,
    register: String,
    refresh: String,
    prefix: String,
    pub(crate) lifetime: Duration,
    initiators: Vec<String>,
    pub(crate) policy: UnprovenPolicy,
    /// Then only sessions with a logged-in user are bound.
    pub(crate) has_users: bool,
    /// None if it makes none.
    offers: Option<Offers>,
    /// A layer further inside has been seen to have the same paths.
    has_clashed: AtomicBool,
}

impl BoundDevices {
    /// What no other layer of the application may have.
    pub(crate) fn names(&self) -> BoundNames {
        let path = [&*self.prefix, &*self.register].concat();
        BoundNames { cookie: self.cookie.name.to_string(), path }
    }

    /// The endpoint at this path, if it is one.
    pub(crate) fn endpoint(&self, path: &str) -> Option<Endpoint> {
        if path == self.refresh {
            Some(Endpoint::Refresh)
        } else if path == self.register {
            Some(Endpoint::Register)
        } else {
            None
        }
    }

    /// The bound cookies among a request's, if one of the layer's keys has made them.
    pub(crate) fn bound_cookies<'a>(
        &'a self,
        keys: &'a Keys,
        headers: impl IntoIterator<Item = &'a HeaderValue> + 'a,
    ) -> Vec<BoundCookie> {
        const MOST: usize = 4;
        let name = &self.cookie.name;
        let values = self.cookie.values(headers).take(MOST);
        values.filter_map(|value| BoundCookie::verify(keys, name, value)).collect()
    }

    /// `Set-Cookie` for a device that has proved itself `at`.
    pub(crate) fn bound_cookie(
        &self,
        keys: &Keys,
        id: BindingId,
        at: SystemTime,
        now: SystemTime,
    ) -> HeaderValue {
        let value = BoundCookie { id, at }.sign(keys, &self.cookie.name);
        self.cookie.set(&value, Some(self.left(at, now)))
    }

    /// How long a browser keeps the cookie of a proof made `at`.
    fn left(&self, at: SystemTime, now: SystemTime) -> Duration {
        let age = now.duration_since(at).unwrap_or_default();
        self.lifetime.saturating_sub(UNDER_WAY).saturating_sub(age)
    }

    /// Whether a browser gets the next challenge with each bound cookie.
    pub(crate) fn challenges_ahead(&self) -> bool {
        self.lifetime >= LONG_LIFETIME
    }

    /// For a browser that asks to refresh a cookie with a short lifetime, and has no challenge to sign: when
    /// it proved itself last, if that will do for a while. It gets the cookie that it has once more, for
    /// the time that is left, and so has no reason to sign.
    pub(crate) fn not_yet(
        &self,
        keys: &Keys,
        id: &BindingId,
        headers: &HeaderMap,
        now: SystemTime,
    ) -> Option<SystemTime> {
        if self.challenges_ahead() {
            return None;
        }
        let cookies = self.bound_cookies(keys, headers.get_all(header::COOKIE));
        let of_this = cookies.into_iter().filter(|cookie| cookie.id == *id).map(|cookie| cookie.at);
        of_this.max().filter(|at| *at <= now && self.left(*at, now) > DUE)
    }

    /// The offer of a binding, for a session that has none and whose turn it is.
    pub(crate) fn offer(
        &self,
        keys: &Keys,
        session: &StoreKey,
        now: SystemTime,
    ) -> Option<HeaderValue> {
        if !self.offers.as_ref()?.take_turn(session, now, OFFER_INTERVAL) {
            return None;
        }
        let challenge = self.challenge(keys, Purpose::Register(session), now);
        let offer = format!("(ES256){}challenge=\"{challenge}\"", self.path_parameter());
        HeaderValue::try_from(offer).ok()
    }

    fn path_parameter(&self) -> String {
        let Self { prefix, register, .. } = self;
        format!(";path=\"{prefix}{register}\";")
    }

    /// Whether an offer, of whichever layer, leads to this layer's path.
    pub(crate) fn has_path_of(&self, offer: &HeaderValue) -> bool {
        offer.to_str().is_ok_and(|offer| offer.contains(&self.path_parameter()))
    }

    /// Whether nobody has been told yet that a layer further inside has the same paths.
    pub(crate) fn is_first_clash(&self) -> bool {
        !self.has_clashed.swap(true, Relaxed)
    }

    /// The next page is to make the offer again.
    pub(crate) fn forget_offer(&self, session: &StoreKey) {
        if let Some(offers) = &self.offers {
            offers.forget(session);
        }
    }

    fn challenge(&self, keys: &Keys, purpose: Purpose<'_>, now: SystemTime) -> String {
        challenge::make(keys, &self.cookie.name, purpose, now)
    }

    /// Whether the challenge that a new device has signed was the session's.
    pub(crate) fn check_registration(
        &self,
        keys: &Keys,
        session: &StoreKey,
        challenge: &str,
        now: SystemTime,
    ) -> Result<(), Unusable> {
        let purpose = Purpose::Register(session);
        challenge::check(keys, &self.cookie.name, purpose, challenge, now, REGISTRATION_TIME)
    }

    /// Whether the challenge that a device has signed was this binding's. A browser refreshes a cookie
    /// before it is over, with the challenge that came with it.
    pub(crate) fn check_refresh(
        &self,
        keys: &Keys,
        id: &BindingId,
        challenge: &str,
        now: SystemTime,
    ) -> Result<(), Unusable> {
        let (purpose, age) = (Purpose::Refresh(id), self.lifetime.saturating_mul(2));
        challenge::check(keys, &self.cookie.name, purpose, challenge, now, age)
    }

    /// The next challenge of a binding, as the value of its header, for the browser that calls the binding
    /// by this name.
    pub(crate) fn next_challenge(
        &self,
        keys: &Keys,
        id: &BindingId,
        name: &str,
        now: SystemTime,
    ) -> Option<HeaderValue> {
        let challenge = self.challenge(keys, Purpose::Refresh(id), now);
        HeaderValue::try_from(format!("\"{challenge}\";id=\"{name}\"")).ok()
    }

    /// What the browser is to call a new binding.
    pub(crate) fn session_identifier(&self, keys: &Keys, id: &BindingId) -> String {
        cookie::write_id(keys, &self.cookie.name, id)
    }

    /// The binding that a browser names, if it is one of ours; and its name, to the letter. A browser that
    /// is told another name drops the binding, so the name stays what it was under other keys, too.
    pub(crate) fn named_binding<'a>(
        &self,
        keys: &Keys,
        headers: &'a HeaderMap,
    ) -> Option<(BindingId, &'a str)> {
        let text = headers.get(&super::SESSION_ID)?.to_str().ok()?;
        let name = jwt::unquoted(text.trim());
        cookie::read_id(keys, &self.cookie.name, name).map(|id| (id, name))
    }

    /// What the browser is to do with the binding that it calls by this name.
    pub(crate) fn instructions(&self, name: &str) -> String {
        let Self { prefix, refresh, cookie, initiators, .. } = self;
        // To the letter, but for the age: of any other a browser refreshes the cookie before every
        // request.
        let attributes = cookie.attributes().trim_start_matches("; ");
        json!({
            "session_identifier": name,
            "refresh_url": format!("{prefix}{refresh}"),
            "scope": { "include_site": false },
            "credentials": [{ "type": "cookie", "name": cookie.name, "attributes": attributes }],
            "allowed_refresh_initiators": initiators,
        })
        .to_string()
    }
}

impl fmt::Debug for BoundDevices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BoundDevices")
            .field("cookie", &self.cookie.name)
            .field("lifetime", &self.lifetime)
            .field("policy", &self.policy)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cookie::SameSite;

    fn settled(binding: DeviceBinding) -> Result<BoundDevices, String> {
        let settled = binding.build_for(&CookieConfig::default(), false, true);
        settled.map_err(|error| error.to_string())
    }

    #[test]
    fn what_could_not_work_is_refused_in_words() {
        let refused = |binding: DeviceBinding| settled(binding).unwrap_err();
        let new = DeviceBinding::new;
        let short = refused(new().with_lifetime(Duration::from_secs(179)));
        assert!(short.contains("six times in nine minutes"), "{short}");
        assert!(settled(new().with_lifetime(SHORTEST_LIFETIME)).is_ok());
        for path in ["", "device", "/", "/a/", "//a", "/a?b", "/a#b", "/a b", "/a\"", "/a;b", "/ä"]
        {
            assert!(refused(new().with_path(path)).contains("a path begins"), "{path:?}");
        }
        for prefix in ["shop", "/shop/", "//shop", "/"] {
            assert!(refused(new().with_path_prefix(prefix)).contains("prefix"), "{prefix:?}");
        }
        for host in ["", "https://a.example", "a b", "a,b"] {
            assert!(
                refused(new().with_refresh_initiators([host])).contains("host names"),
                "{host:?}"
            );
        }
        let with = |change: fn(&mut CookieConfig)| {
            let mut cookie = CookieConfig::default();
            change(&mut cookie);
            new().build_for(&cookie, false, true).unwrap_err().to_string()
        };
        assert!(with(|it| it.domain = Some("a.example".into())).contains("with_cookie_domain"));
        assert!(with(|it| it.partitioned = true).contains("partitioned"));
        let private = new().build_for(&CookieConfig::default(), true, true).unwrap_err();
        assert!(private.to_string().contains("no store"));
    }

    #[test]
    fn the_paths_are_below_the_cookies_path() {
        let below = |path: &'static str, binding: DeviceBinding| {
            let mut cookie = CookieConfig::default();
            (cookie.name, cookie.path) = ("id".into(), path.into());
            let settled = binding.build_for(&cookie, false, true);
            settled.map(|it| it.refresh).map_err(|error| error.to_string())
        };
        let new = DeviceBinding::new;
        assert_eq!(below("/", new()).unwrap(), "/device-binding/refresh");
        assert_eq!(below("/shop", new()).unwrap(), "/shop/device-binding/refresh");
        assert_eq!(below("/shop/", new()).unwrap(), "/shop/device-binding/refresh");
        assert_eq!(below("/shop", new().with_path("/shop/d")).unwrap(), "/shop/d/refresh");
        for path in ["/d", "/shopping/d"] {
            assert!(below("/shop", new().with_path(path)).unwrap_err().contains("is not sent"));
        }
        let behind_proxy = new().with_path("/d").with_path_prefix("/shop");
        assert_eq!(below("/shop", behind_proxy).unwrap(), "/d/refresh");
    }

    #[test]
    fn an_endpoint_is_a_whole_path() {
        let devices = settled(DeviceBinding::new()).unwrap();
        assert_eq!(devices.endpoint("/device-binding/register"), Some(Endpoint::Register));
        assert_eq!(devices.endpoint("/device-binding/refresh"), Some(Endpoint::Refresh));
        for path in ["/", "/device-binding", "/device-binding/", "/device-binding/refresh/", "/x"] {
            assert_eq!(devices.endpoint(path), None, "{path}");
        }
    }

    /// A browser that is told anything else than what the cookie has refreshes before every request.
    #[test]
    fn the_browser_is_told_the_cookies_attributes_to_the_letter() {
        let keys = Keys::generate();
        let id = BindingId::from_bytes([7; 16]);
        for same_site in [SameSite::Lax, SameSite::Strict, SameSite::None] {
            let mut cookie = CookieConfig::default();
            cookie.same_site = same_site;
            let devices = DeviceBinding::new().build_for(&cookie, false, true).unwrap();
            let now = SystemTime::now();
            let header = devices.bound_cookie(&keys, id, now, now);
            let header = header.to_str().unwrap();
            let instructions: serde_json::Value =
                serde_json::from_str(&devices.instructions("name")).unwrap();
            assert_eq!(instructions["session_identifier"], "name");
            let credential = &instructions["credentials"][0];
            assert_eq!(credential["name"], "__Host-id-device");
            let attributes = credential["attributes"].as_str().unwrap();
            let mut set: Vec<&str> = header.split("; ").skip(1).collect();
            assert_eq!(set.pop(), Some("Max-Age=590"));
            assert_eq!(attributes.split("; ").collect::<Vec<_>>(), set);
            assert_eq!(instructions["refresh_url"], "/device-binding/refresh");
            assert_eq!(instructions["scope"]["include_site"], false);
            assert_eq!(instructions["allowed_refresh_initiators"], json!(["*"]));
        }
    }

    /// A cookie that is good for less than four minutes is given again until half a minute is left.
    #[test]
    fn a_short_cookie_is_given_again_while_it_will_do() {
        let (keys, id) = (Keys::generate(), BindingId::from_bytes([7; 16]));
        let start = SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_225_600);
        let after = |seconds| start + Duration::from_secs(seconds);
        let not_yet = |lifetime, id, at, now| {
            let binding = DeviceBinding::new().with_lifetime(Duration::from_secs(lifetime));
            let devices = settled(binding).unwrap();
            let cookie = devices.bound_cookie(&keys, BindingId::from_bytes([7; 16]), at, at);
            let mut headers = HeaderMap::new();
            headers.insert(header::COOKIE, cookie);
            devices.not_yet(&keys, &id, &headers, now)
        };
        for (lifetime, seconds, will_do) in [
            (180, 0, true),
            (180, 139, true),
            (180, 140, false),
            (180, 1_000, false),
            (239, 198, true),
            (239, 199, false),
            (240, 0, false),
            (600, 0, false),
        ] {
            let found = not_yet(lifetime, id, start, after(seconds));
            assert_eq!(found, will_do.then_some(start), "{lifetime} {seconds}");
            let other = BindingId::from_bytes([8; 16]);
            assert_eq!(not_yet(lifetime, other, start, after(seconds)), None, "another binding's");
        }
        assert_eq!(not_yet(180, id, after(1), start), None, "made by a clock that is ahead");
        let devices = settled(DeviceBinding::new().with_lifetime(SHORTEST_LIFETIME)).unwrap();
        let again = devices.bound_cookie(&keys, id, start, after(100));
        assert!(again.to_str().unwrap().ends_with("Max-Age=70"), "{again:?}");
        assert_eq!(devices.not_yet(&keys, &id, &HeaderMap::new(), start), None);
    }

    #[test]
    fn an_offer_and_a_challenge_are_written_as_browsers_read_them() {
        let keys = Keys::generate();
        let devices = settled(DeviceBinding::new().with_path_prefix("/shop")).unwrap();
        let (session, now) = (StoreKey::from_bytes([1; 32]), SystemTime::now());
        let offer = devices.offer(&keys, &session, now).unwrap();
        let (path, challenge) = offer.to_str().unwrap().split_once(";challenge=\"").unwrap();
        assert_eq!(path, "(ES256);path=\"/shop/device-binding/register\"");
        let challenge = challenge.strip_suffix('"').unwrap();
        assert_eq!(devices.check_registration(&keys, &session, challenge, now), Ok(()));
        assert_eq!(devices.offer(&keys, &session, now), None, "not so soon");

        let id = BindingId::from_bytes([7; 16]);
        let name = devices.session_identifier(&keys, &id);
        let header = devices.next_challenge(&keys, &id, &name, now).unwrap();
        let (challenge, quoted) = header.to_str().unwrap().split_once(";id=").unwrap();
        let challenge = jwt::unquoted(challenge);
        assert_eq!(devices.check_refresh(&keys, &id, challenge, now), Ok(()));
        assert!(devices.check_registration(&keys, &session, challenge, now).is_err());
        assert_eq!(quoted, format!("\"{name}\""));
        for sent in [quoted, &*name] {
            let mut headers = HeaderMap::new();
            headers.insert(&crate::device_bound::SESSION_ID, HeaderValue::from_str(sent).unwrap());
            assert_eq!(devices.named_binding(&keys, &headers), Some((id, &*name)));
            assert_eq!(devices.named_binding(&Keys::generate(), &headers), None);
        }
    }
}
