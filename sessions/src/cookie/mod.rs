//! Session cookies: what they look like. `request` finds one in a request, `response` writes one, and
//! `change` decides when a response sends or removes one.

pub(crate) mod change;
pub(crate) mod domain;
pub(crate) mod neighbours;
pub(crate) mod plain_http;
#[cfg(feature = "private-cookie")]
pub(crate) mod private;
mod request;
mod response;
pub(crate) mod seen;

#[cfg(feature = "private-cookie")]
use std::time::SystemTime;
use std::{borrow::Cow, sync::OnceLock};

#[cfg(feature = "private-cookie")]
use crate::record::Record;
use crate::{
    error::BuildError,
    identity::{
        id::{ID_LENGTH, SessionId, StoreKey},
        keys::TAG_LENGTH,
    },
};

/// RFC 6265bis, 5.6.
const LONGEST_ATTRIBUTE: usize = 1024;

const SIGNED_LENGTH: usize = ID_LENGTH + TAG_LENGTH;
/// 48 bytes in base64, which needs no padding.
const VALUE_LENGTH: usize = SIGNED_LENGTH / 3 * 4;

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
    /// Other requests have come with it a moment ago.
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
}

/// RFC 9110, 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
