//! What a response says of a layer's cookie: `Set-Cookie`.

use std::time::Duration;
#[cfg(feature = "private-cookie")]
use std::time::SystemTime;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD as BASE64};
use cookie::Cookie;
use http::{HeaderMap, HeaderValue, header};

#[cfg(feature = "private-cookie")]
use crate::{
    cookie::private::{self, Content, LARGEST_COOKIE},
    error::{Error, NoRandomness},
    record::Record,
};
use crate::{
    cookie::{CookieConfig, SIGNED_LENGTH},
    identity::{
        id::{ID_LENGTH, SessionId},
        keys::Keys,
    },
};

impl CookieConfig {
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
                 the same cookie name; replaced: give each layer a name of its own (`with_cookie_name`)"
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cookie::VALUE_LENGTH;

    fn text(value: &HeaderValue) -> &str {
        value.to_str().unwrap()
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
