//! Session cookies: what they look like, how one is found in a request, how one is sent. `change`
//! decides when a response sends or removes one.

#[cfg(feature = "private-cookie")]
use std::time::SystemTime;
use std::{borrow::Cow, sync::OnceLock, time::Duration};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD as BASE64};
use cookie::Cookie;

/// When a browser sends the cookie along with a request that comes from another site (RFC 6265bis,
/// 5.6.7): [`with_same_site`](crate::SessionLayerBuilder::with_same_site).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum SameSite {
    /// Never.
    Strict,
    /// With a `GET` that leads to another page, as when a link is followed.
    #[default]
    Lax,
    /// Always. Needs `Secure`.
    None,
}

impl From<SameSite> for cookie::SameSite {
    fn from(same_site: SameSite) -> Self {
        match same_site {
            SameSite::Strict => Self::Strict,
            SameSite::Lax => Self::Lax,
            SameSite::None => Self::None,
        }
    }
}
use http::{HeaderMap, HeaderValue, header};

#[cfg(feature = "private-cookie")]
use crate::{
    cookie::private::{Content, LARGEST_COOKIE},
    error::{Error, NoRandomness},
    record::Record,
};
use crate::{
    error::BuildError,
    identity::{
        current::CurrentKeys,
        id::{ID_LENGTH, SessionId, StoreKey},
        keys::{Keys, TAG_LENGTH},
    },
};

pub(crate) mod change;
pub(crate) mod domain;
pub(crate) mod neighbours;
pub(crate) mod plain_http;
#[cfg(feature = "private-cookie")]
pub(crate) mod private;
pub(crate) mod seen;

pub(crate) use seen::SeenCookies;

/// RFC 6265bis, 5.6.
const LONGEST_ATTRIBUTE: usize = 1024;

const SIGNED_LENGTH: usize = ID_LENGTH + TAG_LENGTH;
/// 48 bytes in base64, which needs no padding.
const VALUE_LENGTH: usize = SIGNED_LENGTH / 3 * 4;
/// How many values of the name a request may come with. Each costs an HMAC for every key, or a
/// decryption.
const MOST_VALUES: usize = 16;
/// How many cookies with a good signature are looked up in the store, one after the other. A browser has
/// one for each domain and path that the layer has had: two, or four if both have changed.
const MOST_SIGNED: usize = 4;

/// How a layer's cookie is called, and where it is valid.
#[derive(Clone, Debug)]
pub(crate) struct CookieConfig {
    pub(crate) name: Cow<'static, str>,
    pub(crate) domain: Option<Cow<'static, str>>,
    pub(crate) path: Cow<'static, str>,
    pub(crate) same_site: SameSite,
    pub(crate) secure: bool,
    pub(crate) http_only: bool,
    pub(crate) partitioned: bool,
    /// What follows the value, made of all of the above when it is first needed.
    attributes: OnceLock<String>,
}

impl Default for CookieConfig {
    /// OWASP: a neutral name, and every protection that a browser offers. The prefix `__Host-`
    /// keeps subdomains and plain HTTP from planting a cookie (RFC 6265bis, 4.1.3.2).
    fn default() -> Self {
        Self {
            name: "__Host-id".into(),
            domain: None,
            path: "/".into(),
            same_site: SameSite::Lax,
            secure: true,
            http_only: true,
            partitioned: false,
            attributes: OnceLock::new(),
        }
    }
}

/// A cookie whose signature has been verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct VerifiedCookie {
    pub(crate) id: SessionId,
    pub(crate) key: StoreKey,
    /// Signed by a key that signs no more: to be sent again.
    pub(crate) by_old_key: bool,
    /// Another request has come with it a moment ago.
    pub(crate) is_repeated: bool,
}

/// What a request's newest private cookie says.
#[cfg(feature = "private-cookie")]
pub(crate) struct PrivateContent {
    pub(crate) written_at: SystemTime,
    /// The browser cannot have another one of the name, beside the one that the layer sets.
    pub(crate) is_alone: bool,
    /// `None` if it says that the session has ended.
    pub(crate) session: Option<(VerifiedCookie, Record)>,
}

impl VerifiedCookie {
    fn new(id: SessionId, by_old_key: bool) -> Self {
        Self { id, key: id.store_key(), by_old_key, is_repeated: false }
    }
}

impl CookieConfig {
    /// Refuses what a browser would refuse without a word (RFC 6265bis, 5.7), and what would not be
    /// one cookie.
    pub(crate) fn check(&self) -> Result<(), BuildError> {
        // Long: one rule after the other, each with its message.
        let name = &*self.name;
        let fail = |what: &str| Err(BuildError::new(format!("session cookie `{name}`: {what}")));
        if name.is_empty() || !name.bytes().all(is_token) {
            return fail("a name is made of letters, digits and any of !#$%&'*+-.^_`|~");
        }
        let has_prefix = |prefix| self.has_prefix(prefix);
        let host = self.has_host_prefix();
        let http = has_prefix("__Http-") || has_prefix("__Host-Http-");
        if host && self.domain.is_some() {
            return fail("browsers reject a `__Host-` cookie with a domain; use `__Secure-`");
        }
        if host && self.path != "/" {
            return fail("browsers reject a `__Host-` cookie with a path other than `/`");
        }
        if (host || http || has_prefix("__Secure-")) && !self.secure {
            return fail(
                "browsers reject this prefix without `Secure`; for development over plain HTTP \
                 there is `insecure_plain_http`",
            );
        }
        if http && !self.http_only {
            return fail("browsers reject this prefix without `HttpOnly`");
        }
        if self.same_site == SameSite::None && !self.secure {
            return fail("browsers reject `SameSite=None` without `Secure`");
        }
        if self.partitioned && !self.secure {
            return fail("browsers reject `Partitioned` without `Secure`");
        }
        if self.partitioned && self.same_site != SameSite::None {
            return fail(
                "a partitioned cookie is for frames in pages of other sites, where browsers send \
                 none without `SameSite=None`: add `with_same_site(SameSite::None)`",
            );
        }
        let is_value = |text: &str| text.bytes().all(|b| (0x21..0x7f).contains(&b) && b != b';');
        if !self.path.starts_with('/') || !is_value(&self.path) {
            return fail("a path starts with `/` and has no spaces, `;` or control characters");
        }
        if self.path.contains(['?', '#']) {
            return fail("a path ends before `?` and `#`: browsers would never send the cookie");
        }
        if self.path.len() > LONGEST_ATTRIBUTE {
            return fail("browsers ignore a path of more than 1024 bytes");
        }
        match self.domain.as_deref().map(domain::check) {
            Some(Err(what)) => fail(what),
            _ => Ok(()),
        }
    }

    /// Another cookie with the same attributes, whose name goes on with `suffix`.
    #[cfg(feature = "device-bound")]
    pub(crate) fn with_suffix(&self, suffix: &str) -> Self {
        Self { name: [&self.name, suffix].concat().into(), ..self.clone() }
    }

    /// Browsers compare prefixes without regard to case.
    fn has_prefix(&self, prefix: &str) -> bool {
        self.name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
    }

    /// A browser has one such cookie at most for a host.
    fn has_host_prefix(&self) -> bool {
        self.has_prefix("__Host-")
    }

    /// Whether a browser sends the cookie with all requests of its host, and takes it over TLS alone.
    pub(crate) fn is_secure_everywhere(&self) -> bool {
        self.secure && self.path == "/" && self.domain.is_none() && !self.partitioned
    }

    /// Whether there is a cookie of this name, of whatever value.
    pub(crate) fn is_among<'a>(
        &'a self,
        headers: impl IntoIterator<Item = &'a HeaderValue> + 'a,
    ) -> bool {
        self.values(headers).next().is_some()
    }

    /// Whether a `Cookie` header begins with a cookie of this name, of whatever value.
    pub(super) fn is_first_in(&self, header: &HeaderValue) -> bool {
        header.as_bytes().strip_prefix(self.name.as_bytes()).is_some_and(|it| it.starts_with(b"="))
    }

    /// The verified cookies of this name in a request's headers, in their order, and no more than a
    /// handful. Browsers send several when a subdomain or a longer path has set its own.
    pub(crate) fn verified<'a>(
        &'a self,
        keys: &'a CurrentKeys,
        seen: &'a SeenCookies,
        headers: impl IntoIterator<Item = &'a HeaderValue> + 'a,
    ) -> impl Iterator<Item = VerifiedCookie> + 'a {
        let verified = self
            .values(headers)
            .filter_map(|value| {
                let value = value.try_into().ok();
                if value.is_none() {
                    tracing::debug!("rejected a session cookie: it is malformed");
                }
                value
            })
            .filter_map(|value| seen.find(value).or_else(|| self.verify(keys, seen, value)));
        at_most(MOST_SIGNED, verified)
    }

    fn verify(
        &self,
        keys: &CurrentKeys,
        seen: &SeenCookies,
        value: &[u8; VALUE_LENGTH],
    ) -> Option<VerifiedCookie> {
        let (id, tag) = decode(value)?;
        // Before the keys: what others verify is not noted once these are replaced.
        let epoch = seen.epoch();
        let Some(key) = keys.get().verify(&self.name, &id, &tag) else {
            tracing::debug!("rejected a session cookie: its signature does not verify");
            return None;
        };
        let cookie = VerifiedCookie::new(SessionId::from_bytes(id), key > 0);
        seen.note(value, cookie, epoch);
        Some(cookie)
    }

    /// The values of the cookies of this name, the first of them if there are very many.
    pub(crate) fn values<'a>(
        &'a self,
        headers: impl IntoIterator<Item = &'a HeaderValue> + 'a,
    ) -> impl Iterator<Item = &'a [u8]> + 'a {
        let pairs = headers.into_iter().flat_map(|header| Pairs(header.as_bytes()));
        let values = pairs.filter_map(|pair| {
            let value = pair.strip_prefix(self.name.as_bytes())?;
            value.strip_prefix(b"=")
        });
        at_most(MOST_VALUES, values)
    }

    /// What the private cookies of this name hold, in their order.
    #[cfg(feature = "private-cookie")]
    fn opened<'a>(
        &'a self,
        keys: &'a Keys,
        headers: impl IntoIterator<Item = &'a HeaderValue> + 'a,
    ) -> impl Iterator<Item = (Content, bool)> + 'a {
        self.values(headers)
            .filter(|value| value.len() <= LARGEST_COOKIE)
            .filter_map(|value| BASE64.decode(value).ok())
            .filter_map(|sealed| {
                let opened = private::open(keys, &self.name, &sealed);
                if opened.is_none() {
                    tracing::debug!("rejected a session cookie: it does not decrypt");
                }
                opened
            })
    }

    /// The newest of the private cookies of this name. A browser sends several when the layer had
    /// another domain or path before, the old one mostly first.
    #[cfg(feature = "private-cookie")]
    pub(crate) fn newest<'a>(
        &'a self,
        keys: &'a Keys,
        headers: impl IntoIterator<Item = &'a HeaderValue> + 'a,
    ) -> Option<PrivateContent> {
        let mut is_alone = self.has_host_prefix() && !self.partitioned;
        let newest = self.opened(keys, headers).inspect(|(content, _)| {
            is_alone &= content.is_partitioned == self.partitioned;
        });
        let (content, by_old_key) = newest.max_by_key(|(content, _)| content.written_at)?;
        let session =
            content.session.map(|(id, record)| (VerifiedCookie::new(id, by_old_key), record));
        Some(PrivateContent { written_at: content.written_at, is_alone, session })
    }

    /// The header that names a session in a store.
    pub(crate) fn signed(
        &self,
        keys: &Keys,
        id: &SessionId,
        max_age: Option<Duration>,
    ) -> HeaderValue {
        let mut signed = [0; SIGNED_LENGTH];
        signed[..ID_LENGTH].copy_from_slice(id.as_bytes());
        signed[ID_LENGTH..].copy_from_slice(&keys.sign(&self.name, id.as_bytes()));
        self.set(&signed, max_age)
    }

    /// The header that holds the session itself, or says that it has ended.
    #[cfg(feature = "private-cookie")]
    pub(crate) fn sealed(
        &self,
        keys: &Keys,
        written_at: SystemTime,
        session: Option<(SessionId, Record)>,
        max_age: Option<Duration>,
    ) -> Result<HeaderValue, NoRandomness> {
        let content = Content { written_at, is_partitioned: self.partitioned, session };
        Ok(self.set(&private::seal(keys, &self.name, &content)?, max_age))
    }

    /// How long the header with a sealed session is; checked against what browsers take.
    #[cfg(feature = "private-cookie")]
    pub(crate) fn sealed_fits(&self, record: &Record) -> Result<(), Error> {
        let value = private::sealed_len(record).div_ceil(3) * 4;
        let size = self.set(&[], Some(Duration::from_secs(99_999_999))).len() + value;
        match size {
            ..=LARGEST_COOKIE => Ok(()),
            size => Err(Error::cookie_too_large(size, LARGEST_COOKIE)),
        }
    }

    /// The header that gives the client these bytes.
    pub(crate) fn set(&self, value: &[u8], max_age: Option<Duration>) -> HeaderValue {
        let max_age = max_age.map(|age| format!("; Max-Age={}", age.as_secs())).unwrap_or_default();
        let (name, attributes) = (&*self.name, self.attributes());
        // Exactly, so that the header can have this memory.
        let before = name.len() + "=".len();
        let encoded = (value.len() * 4).div_ceil(3);
        let mut cookie = Vec::with_capacity(before + encoded + attributes.len() + max_age.len());
        cookie.extend_from_slice(name.as_bytes());
        cookie.push(b'=');
        cookie.resize(before + encoded, 0);
        let written = BASE64.encode_slice(value, &mut cookie[before..]);
        debug_assert_eq!(written, Ok(encoded));
        cookie.extend_from_slice(attributes.as_bytes());
        cookie.extend_from_slice(max_age.as_bytes());
        header_value(cookie)
    }

    /// The header that takes the session away again. Name, path, domain and flags must be those
    /// that set it, or the browser keeps the cookie.
    pub(crate) fn removal(&self) -> HeaderValue {
        const OVER: &str = "; Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT";
        header_value([&self.name, "=", self.attributes(), OVER].concat().into())
    }

    pub(crate) fn attributes(&self) -> &str {
        self.attributes.get_or_init(|| {
            let cookie = Cookie::build(("", ""))
                .path(&*self.path)
                .same_site(cookie::SameSite::from(self.same_site))
                .secure(self.secure)
                .http_only(self.http_only)
                .partitioned(self.partitioned);
            let cookie = match &self.domain {
                Some(domain) => cookie.domain(&**domain),
                None => cookie,
            };
            cookie.to_string().split_off("=".len())
        })
    }

    /// Puts `cookie` among the response's headers, in place of any other of its name.
    pub(crate) fn put(&self, cookie: HeaderValue, headers: &mut HeaderMap) {
        let is_ours = |header: &HeaderValue| {
            let rest = header.as_bytes().strip_prefix(self.name.as_bytes());
            rest.is_some_and(|rest| rest.starts_with(b"="))
        };
        if headers.get_all(header::SET_COOKIE).iter().any(is_ours) {
            tracing::warn!(
                cookie = &*self.name,
                "the response sets the session's cookie itself, or passed through two layers with \
                 the same cookie name; replaced"
            );
            let others: Vec<HeaderValue> = headers
                .get_all(header::SET_COOKIE)
                .iter()
                .filter(|h| !is_ours(h))
                .cloned()
                .collect();
            headers.remove(header::SET_COOKIE);
            headers.extend(others.into_iter().map(|other| (header::SET_COOKIE, other)));
        }
        headers.append(header::SET_COOKIE, cookie);
    }
}

fn header_value(cookie: Vec<u8>) -> HeaderValue {
    let mut value = HeaderValue::try_from(cookie)
        .expect("`check` lets only visible ASCII through, and the value is base64");
    // Keeps HTTP/2 from putting it into its compression table, and `Debug` from printing it.
    value.set_sensitive(true);
    value
}

/// The first `most` of one request's cookies. That there are more is logged, once.
fn at_most<C>(most: usize, mut cookies: impl Iterator<Item = C>) -> impl Iterator<Item = C> {
    let mut left = most;
    std::iter::from_fn(move || {
        let cookie = cookies.next()?;
        if left == 0 {
            tracing::debug!(most, "a request has too many session cookies: ignored the rest");
            return None;
        }
        left -= 1;
        Some(cookie)
    })
    .fuse()
}

/// What stands between the semicolons of a `Cookie` header, without the space around it.
struct Pairs<'a>(&'a [u8]);

impl<'a> Iterator for Pairs<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        if self.0.is_empty() {
            return None;
        }
        let (pair, rest) = self.0.split_at(first_semicolon(self.0));
        self.0 = rest.get(1..).unwrap_or_default();
        Some(pair.trim_ascii())
    }
}

/// Where it is, or the end. A block at a time, which the processor compares in one step.
fn first_semicolon(bytes: &[u8]) -> usize {
    let has_none = |block: &&[u8; 32]| !block.iter().fold(false, |any, byte| any | (*byte == b';'));
    let before = bytes.as_chunks().0.iter().take_while(has_none).count() * 32;
    let rest = &bytes[before..];
    before + rest.iter().position(|byte| *byte == b';').unwrap_or(rest.len())
}

/// Splits a cookie's value into id and signature.
fn decode(value: &[u8; VALUE_LENGTH]) -> Option<([u8; ID_LENGTH], [u8; TAG_LENGTH])> {
    let mut bytes = [0; SIGNED_LENGTH];
    if BASE64.decode_slice(value, &mut bytes) != Ok(SIGNED_LENGTH) {
        tracing::debug!("rejected a session cookie: it is malformed");
        return None;
    }
    let (id, tag) = bytes.split_first_chunk()?;
    Some((*id, tag.try_into().ok()?))
}

/// RFC 9110, 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(value: &HeaderValue) -> &str {
        value.to_str().unwrap()
    }

    fn found(config: &CookieConfig, keys: &Keys, headers: &[&[u8]]) -> Vec<VerifiedCookie> {
        let headers: Vec<HeaderValue> =
            headers.iter().map(|header| HeaderValue::from_bytes(header).unwrap()).collect();
        let keys = CurrentKeys::new(keys.clone());
        config.verified(&keys, &SeenCookies::new(), &headers).collect()
    }

    /// `name=value` as the browser sends it back.
    fn pair(config: &CookieConfig, keys: &Keys, id: &SessionId) -> String {
        text(&config.signed(keys, id, None)).split(';').next().unwrap().to_string()
    }

    #[test]
    fn defaults_are_the_strictest() {
        let (keys, id) = (Keys::generate(), SessionId::generate().unwrap());
        let config = CookieConfig::default();
        let header = config.signed(&keys, &id, None);
        let (pair, attributes) = text(&header).split_once("; ").unwrap();
        assert_eq!(pair.len(), "__Host-id=".len() + VALUE_LENGTH);
        assert_eq!(attributes, "HttpOnly; SameSite=Lax; Secure; Path=/");
        assert!(header.is_sensitive());
    }

    #[test]
    fn a_removal_repeats_what_set_the_cookie() {
        let config = CookieConfig {
            name: "s".into(),
            domain: Some("example.com".into()),
            path: "/app".into(),
            ..CookieConfig::default()
        };
        assert_eq!(
            text(&config.removal()),
            "s=; HttpOnly; SameSite=Lax; Secure; Path=/app; Domain=example.com; Max-Age=0; \
             Expires=Thu, 01 Jan 1970 00:00:00 GMT"
        );
    }

    #[test]
    fn a_persistent_cookie_says_for_how_long() {
        let age = Duration::from_millis(60_500);
        let header = CookieConfig::default().set(b"value", Some(age));
        assert!(text(&header).contains("; Max-Age=60"));
    }

    #[test]
    fn the_cookie_is_found_among_others_and_in_several_headers() {
        let (config, keys) = (CookieConfig::default(), Keys::generate());
        let ids = [(); 2].map(|()| SessionId::generate().unwrap());
        let [one, two] = ids.map(|id| pair(&config, &keys, &id));
        let first = format!("a=1; x__Host-id=no;{one} ;b");
        let found =
            found(&config, &keys, &[b"\xff\xfe=\x80; ;;=", first.as_bytes(), two.as_bytes()]);
        assert_eq!(found.iter().map(|cookie| cookie.id).collect::<Vec<_>>(), ids);
    }

    /// However many of them lie in one of the blocks that are looked at in one step.
    #[test]
    fn semicolons_end_a_pair_wherever_they_are() {
        for length in 0..200 {
            for other in [b';', b'a'] {
                let mut header = vec![other; length];
                assert_eq!(first_semicolon(&header), if other == b';' { 0 } else { length });
                header.push(b';');
                header.extend([b'a'; 40]);
                assert_eq!(first_semicolon(&header), if other == b';' { 0 } else { length });
            }
            let header =
                [&b";".repeat(length)[..], b"one", &b";".repeat(length + 1), b"two"].concat();
            let pairs: Vec<_> = Pairs(&header).filter(|pair| !pair.is_empty()).collect();
            assert_eq!(pairs, [b"one", b"two"], "{length}");
        }
    }

    #[test]
    fn what_does_not_verify_is_not_found() {
        let (config, keys) = (CookieConfig::default(), Keys::generate());
        let id = SessionId::generate().unwrap();
        let good = pair(&config, &keys, &id);
        let (name, value) = good.split_once('=').unwrap();
        let none = |header: &[u8]| assert_eq!(found(&config, &keys, &[header]), []);
        for end in 0..value.len() {
            none(format!("{name}={}", &value[..end]).as_bytes());
        }
        none(format!("{good}A").as_bytes());
        none(format!("{name}=\"{value}\"").as_bytes());
        none(format!("{name} ={value}").as_bytes());
        none(format!("{}={value}", name.to_lowercase()).as_bytes());
        none(&[name.as_bytes(), b"=", &[0xff; VALUE_LENGTH]].concat());
        none(&[name.as_bytes(), b"=", &[b'A'; 100_000]].concat());
        for at in 0..value.len() {
            let mut wrong = value.as_bytes().to_vec();
            wrong[at] = if wrong[at] == b'A' { b'B' } else { b'A' };
            none(&[name.as_bytes(), b"=", &wrong].concat());
        }
        let other_name = CookieConfig { name: "__Host-other".into(), ..config.clone() };
        none(pair(&other_name, &keys, &id).replace("__Host-other", name).as_bytes());
        none(pair(&config, &Keys::generate(), &id).as_bytes());
    }

    #[test]
    fn only_so_many_candidates_are_tried() {
        let (config, keys) = (CookieConfig::default(), Keys::generate());
        let good = pair(&config, &keys, &SessionId::generate().unwrap());
        for junk in [format!("__Host-id={};", "A".repeat(VALUE_LENGTH)), "__Host-id=;".into()] {
            let behind = |count: usize| {
                let header = junk.repeat(count) + &good;
                found(&config, &keys, &[header.as_bytes()]).len()
            };
            assert_eq!((behind(MOST_VALUES - 1), behind(MOST_VALUES)), (1, 0), "{junk}");
        }
        let signed = [(); MOST_VALUES].map(|()| SessionId::generate().unwrap());
        let header = signed.map(|id| pair(&config, &keys, &id)).join(";");
        let found = found(&config, &keys, &[header.as_bytes()]);
        assert!(found.iter().map(|cookie| &cookie.id).eq(&signed[..MOST_SIGNED]));
    }

    #[test]
    fn an_old_keys_cookie_is_told_apart() {
        let (config, old, new) = (CookieConfig::default(), Keys::generate(), Keys::generate());
        let cookie = pair(&config, &old, &SessionId::generate().unwrap());
        let ring = new.with_previous(old.clone());
        assert!(found(&config, &ring, &[cookie.as_bytes()])[0].by_old_key);
        assert!(!found(&config, &old, &[cookie.as_bytes()])[0].by_old_key);
    }

    #[test]
    fn what_a_browser_would_reject_is_refused() {
        let host = CookieConfig::default();
        let plain = CookieConfig { name: "id".into(), ..host.clone() };
        let secure = CookieConfig { name: "__Secure-id".into(), ..host.clone() };
        let good = [
            host.clone(),
            plain.clone(),
            CookieConfig {
                path: "/app".into(),
                domain: Some("example.com".into()),
                ..plain.clone()
            },
            CookieConfig { path: "/app".into(), domain: Some("example.com".into()), ..secure },
            CookieConfig { path: ["/", &"a".repeat(1023)].concat().into(), ..plain.clone() },
            CookieConfig { secure: false, http_only: false, ..plain.clone() },
            CookieConfig { same_site: SameSite::None, ..plain.clone() },
            CookieConfig { same_site: SameSite::None, partitioned: true, ..host.clone() },
        ];
        for config in good {
            assert!(config.check().is_ok(), "{config:?}");
        }
        let named = |name: &'static str| CookieConfig { name: name.into(), ..host.clone() };
        let refused = [
            CookieConfig { domain: Some("example.com".into()), ..host.clone() },
            CookieConfig { path: "/app".into(), ..host.clone() },
            CookieConfig { secure: false, ..host.clone() },
            CookieConfig { secure: false, ..named("__secure-id") },
            CookieConfig { http_only: false, ..named("__Host-Http-id") },
            CookieConfig { same_site: SameSite::None, secure: false, ..plain.clone() },
            CookieConfig { partitioned: true, ..host.clone() },
            CookieConfig { partitioned: true, secure: false, ..plain.clone() },
            CookieConfig { path: ["/", &"a".repeat(1024)].concat().into(), ..plain.clone() },
            CookieConfig {
                partitioned: true,
                same_site: SameSite::None,
                secure: false,
                ..plain.clone()
            },
            CookieConfig { path: "app".into(), ..plain.clone() },
            CookieConfig { path: "/a;b".into(), ..plain.clone() },
            CookieConfig { path: "/a?b".into(), ..plain.clone() },
            CookieConfig { path: "/a".repeat(600).into(), ..plain.clone() },
            CookieConfig { domain: Some("a\r\nb".into()), ..plain.clone() },
            CookieConfig { domain: Some("".into()), ..plain },
            named(""),
            named("a b"),
            named("a=b"),
            named("naïve"),
        ];
        for config in refused {
            assert!(config.check().is_err(), "{config:?}");
        }
    }

    #[test]
    fn one_cookie_of_the_name_a_response() {
        let config = CookieConfig::default();
        let mut headers = HeaderMap::new();
        for other in ["a=1", "__Host-id=theirs", "__Host-id2=2"] {
            headers.append(header::SET_COOKIE, HeaderValue::from_static(other));
        }
        config.put(HeaderValue::from_static("__Host-id=ours"), &mut headers);
        let sent: Vec<_> = headers.get_all(header::SET_COOKIE).iter().collect();
        assert_eq!(sent, ["a=1", "__Host-id2=2", "__Host-id=ours"]);
    }
}
