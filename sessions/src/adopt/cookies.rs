//! The cookies of other libraries: read as the crate `cookie` writes them, which all of them use.

use std::borrow::Cow;

use cookie::{Cookie, CookieJar, Key};
use http::HeaderValue;

use crate::error::BuildError;

/// The shortest key that the crate `cookie` makes its two of.
const KEY_LENGTH: usize = 64;

/// How many cookies of the name a request may come with. Each costs an HMAC or a decryption.
const MOST_VALUES: usize = 4;

/// The cookies that a request came with.
#[derive(Clone, Copy)]
pub struct RequestCookies<'a> {
    headers: &'a [HeaderValue],
}

impl<'a> RequestCookies<'a> {
    /// The cookies in these `Cookie` headers.
    pub fn new(headers: &'a [HeaderValue]) -> Self {
        Self { headers }
    }

    /// The values of the cookies with this name, percent-decoded, in their order. Of very many, the first.
    pub fn values<'n>(&self, name: &'n str) -> impl Iterator<Item = String> + use<'a, 'n> {
        let headers =
            self.headers.iter().filter_map(|header| str::from_utf8(header.as_bytes()).ok());
        let pairs = headers.flat_map(|header| header.split(';')).filter(move |pair| {
            pair.trim_start()
                .strip_prefix(name)
                .is_some_and(|rest| rest.trim_start().starts_with('='))
        });
        let values =
            pairs.filter_map(|pair| Some(Cookie::parse_encoded(pair).ok()?.value().to_string()));
        values.take(MOST_VALUES)
    }
}

/// Says how many headers there are, and not what is in them.
impl std::fmt::Debug for RequestCookies<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RequestCookies(<{} headers redacted>)", self.headers.len())
    }
}

#[derive(Clone)]
enum Security {
    Plain,
    Signed(Key),
    Private(Key),
}

/// A cookie of the old library: its name, where it was valid, and how it is protected. Signed and private
/// ones are those of the crate `cookie`, as tower-sessions and actix-session write them.
#[derive(Clone)]
pub struct OldCookie {
    name: Cow<'static, str>,
    path: Cow<'static, str>,
    domain: Option<Cow<'static, str>>,
    security: Security,
}

impl OldCookie {
    /// A cookie with the path `/` and no domain, neither signed nor encrypted.
    pub fn new(name: impl Into<Cow<'static, str>>) -> Self {
        Self { name: name.into(), path: "/".into(), domain: None, security: Security::Plain }
    }

    /// The path that the cookie was set with: without it the browser would not remove the cookie.
    pub fn with_path(mut self, path: impl Into<Cow<'static, str>>) -> Self {
        self.path = path.into();
        self
    }

    /// The domain that the cookie was set with: without it the browser would not remove the cookie.
    pub fn with_domain(mut self, domain: impl Into<Cow<'static, str>>) -> Self {
        self.domain = Some(domain.into());
        self
    }

    /// The value is signed with this key: the 64 bytes that the old application had made its `Key` of
    /// (`Key::from`), or `Key::master` gives.
    ///
    /// # Errors
    ///
    /// If the key has fewer than 64 bytes.
    pub fn with_signed(mut self, key: &[u8]) -> Result<Self, BuildError> {
        self.security = Security::Signed(key_of(key)?);
        Ok(self)
    }

    /// The value is encrypted with this key; see [`with_signed`](Self::with_signed).
    ///
    /// # Errors
    ///
    /// If the key has fewer than 64 bytes.
    pub fn with_private(mut self, key: &[u8]) -> Result<Self, BuildError> {
        self.security = Security::Private(key_of(key)?);
        Ok(self)
    }

    /// What the first cookie of the name holds whose signature is good, or which decrypts.
    pub fn value(&self, cookies: &RequestCookies<'_>) -> Option<String> {
        cookies.values(&self.name).find_map(|value| self.opened(value))
    }

    fn opened(&self, value: String) -> Option<String> {
        let opened = match &self.security {
            Security::Plain => return Some(value),
            Security::Signed(key) => {
                let cookie = Cookie::new(self.name.clone(), value);
                CookieJar::new().signed(key).verify(cookie)
            }
            Security::Private(key) => decrypt(key, &self.name, value),
        };
        if opened.is_none() {
            tracing::debug!("a cookie of an earlier library is left alone: it does not verify");
        }
        opened.map(|cookie| cookie.value().to_string())
    }

    /// The `Set-Cookie` header that takes the cookie from the browser.
    pub fn removal(&self) -> HeaderValue {
        let mut cookie = Cookie::build((self.name.clone(), "")).path(self.path.clone());
        if let Some(domain) = &self.domain {
            cookie = cookie.domain(domain.clone());
        }
        // Without it browsers ignore a cookie with the prefix `__Host-`; without HTTPS they ignore one with it.
        let mut cookie = cookie.secure(self.name.starts_with("__")).build();
        cookie.make_removal();
        HeaderValue::try_from(cookie.to_string()).unwrap_or(HeaderValue::from_static(""))
    }
}

/// Shows no key.
impl std::fmt::Debug for OldCookie {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OldCookie").field("name", &self.name).finish_non_exhaustive()
    }
}

/// What is encrypted for this name: AES-256-GCM, the name being authenticated with it.
pub(super) fn decrypt(key: &Key, name: &str, value: String) -> Option<Cookie<'static>> {
    CookieJar::new().private(key).decrypt(Cookie::new(name.to_string(), value))
}

pub(super) fn key_of(key: &[u8]) -> Result<Key, BuildError> {
    if key.len() < KEY_LENGTH {
        return Err(BuildError::new(format!(
            "the key of an old cookie has {} bytes; it is at least {KEY_LENGTH} that the old library \
             had: `Key::master` gives them",
            key.len()
        )));
    }
    Key::try_from(key)
        .map_err(|error| BuildError::new(format!("the key of an old cookie: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u8; 64] = [7; 64];

    fn header(cookie: &Cookie<'_>) -> HeaderValue {
        let pair = format!("other=1; {}; idle=2", cookie.stripped().encoded());
        HeaderValue::try_from(pair).unwrap()
    }

    #[test]
    fn each_kind_of_cookie_is_read_and_nothing_else() {
        let key = Key::from(&KEY);
        let mut jar = CookieJar::new();
        jar.add(("id", "va lue+/="));
        let plain = header(jar.get("id").unwrap());
        jar.signed_mut(&key).add(("id", "va lue+/="));
        let signed = header(jar.get("id").unwrap());
        jar.private_mut(&key).add(("id", "va lue+/="));
        let private = header(jar.get("id").unwrap());

        let cookie = OldCookie::new("id");
        let read = |cookie: &OldCookie, header: &HeaderValue| {
            cookie.value(&RequestCookies::new(std::slice::from_ref(header)))
        };
        let expected = Some("va lue+/=".to_string());
        assert_eq!(read(&cookie, &plain), expected);
        let signs = cookie.clone().with_signed(&KEY).unwrap();
        assert_eq!(read(&signs, &signed), expected);
        let encrypts = cookie.clone().with_private(&KEY).unwrap();
        assert_eq!(read(&encrypts, &private), expected);
        for wrong in [&plain, &private] {
            assert_eq!(read(&signs, wrong), None);
        }
        for wrong in [&plain, &signed] {
            assert_eq!(read(&encrypts, wrong), None);
        }
        let another = [8; 64];
        assert_eq!(read(&cookie.clone().with_signed(&another).unwrap(), &signed), None);
        assert_eq!(read(&cookie.with_private(&another).unwrap(), &private), None);
        assert_eq!(read(&OldCookie::new("i"), &plain), None);
    }

    #[test]
    fn the_removal_names_the_place_of_the_cookie() {
        let cookie = OldCookie::new("id").with_path("/shop").with_domain("shop.example");
        let removal = cookie.removal();
        let removal = removal.to_str().unwrap();
        for part in ["id=;", "Path=/shop", "Domain=shop.example", "Max-Age=0"] {
            assert!(removal.contains(part), "{removal}");
        }
        assert!(OldCookie::new("__Host-id").removal().to_str().unwrap().contains("Secure"));
        assert!(OldCookie::new("id").with_signed(&[7; 63]).is_err());
    }
}
