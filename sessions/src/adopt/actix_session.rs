//! actix-session: a map of texts, each of which is JSON; in Redis, or in the cookie itself.

use std::{fmt, sync::Arc};

use http::HeaderValue;
#[cfg(feature = "redis")]
use redis::aio::ConnectionManager;

use super::{
    AdoptError, OldCookie, OldId, OldSession, Predecessor, RequestCookies,
    records::{Records, Table},
};
use crate::error::BuildError;

/// The sessions of actix-session 0.11: of its `CookieSessionStore`, or of its `RedisSessionStore`.
#[derive(Clone)]
pub struct ActixSession {
    records: Records,
    cookie: OldCookie,
    key_of: Arc<dyn Fn(&str) -> String + Send + Sync>,
}

impl ActixSession {
    fn new(records: Records, key: &[u8]) -> Result<Self, BuildError> {
        let cookie = OldCookie::new("id").with_private(key)?;
        Ok(Self { records, cookie, key_of: Arc::new(str::to_owned) })
    }

    /// In the cookie `id`, encrypted with the 64 bytes that the `SessionMiddleware` had made its `Key` of.
    ///
    /// Such a session cannot be ended: a client with a copy of an earlier cookie could adopt that later, as
    /// it was good for the old library for ever. Take `adopt` out once the sessions have moved.
    ///
    /// # Errors
    ///
    /// If the key has fewer than 64 bytes.
    pub fn cookie(key: &[u8]) -> Result<Self, BuildError> {
        Self::new(Records::Nowhere, key)
    }

    /// In Redis, each under its bare id, which is in the cookie `id`, encrypted.
    ///
    /// # Errors
    ///
    /// If the key has fewer than 64 bytes.
    #[cfg(feature = "redis")]
    pub fn redis(connection: ConnectionManager, key: &[u8]) -> Result<Self, BuildError> {
        Self::new(Records::Redis(connection), key)
    }

    /// Another cookie: another name, path or domain, or signed and not encrypted
    /// (`CookieContentSecurity::Signed`).
    pub fn with_cookie(mut self, cookie: OldCookie) -> Self {
        self.cookie = cookie;
        self
    }

    /// The function that makes the key in Redis of the id, `RedisSessionStoreBuilder::cache_keygen`.
    #[cfg(feature = "redis")]
    pub fn with_redis_key(
        mut self,
        key_of: impl Fn(&str) -> String + Send + Sync + 'static,
    ) -> Self {
        self.key_of = Arc::new(key_of);
        self
    }

    fn is_in_cookie(&self) -> bool {
        matches!(self.records, Records::Nowhere)
    }

    fn table() -> Table {
        Table { name: String::new(), column: "", counts: "" }
    }
}

impl Predecessor for ActixSession {
    fn session_id(&self, cookies: &RequestCookies<'_>) -> Option<OldId> {
        self.cookie.value(cookies).map(OldId::new)
    }

    async fn load(&self, id: &OldId) -> Result<Option<OldSession>, AdoptError> {
        if self.is_in_cookie() {
            return session_in(id.as_str().as_bytes()).map(Some);
        }
        let found = self.records.load(&Self::table(), id, &(self.key_of)(id.as_str())).await?;
        found.map(|bytes| session_in(&bytes)).transpose()
    }

    async fn end(&self, id: &OldId) -> Result<bool, AdoptError> {
        self.records.delete(&Self::table(), id, &(self.key_of)(id.as_str())).await
    }

    fn cookie_removal(&self) -> Option<HeaderValue> {
        Some(self.cookie.removal())
    }
}

fn session_in(bytes: &[u8]) -> Result<OldSession, AdoptError> {
    let texts = serde_json::from_slice(bytes)
        .map_err(|_| AdoptError::unreadable("it is no session of actix-session 0.11"))?;
    OldSession::from_texts(texts)
}

impl fmt::Debug for ActixSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ActixSession").field("cookie", &self.cookie).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_a_map_of_json_in_texts() {
        let old = session_in(br#"{"user":"7","cart":"[\"teapot\"]"}"#).unwrap();
        assert_eq!(old.get::<u64>("user").unwrap(), Some(7));
        for bytes in [&b""[..], b"7", br#"{"user":7}"#, b"\xff"] {
            assert!(session_in(bytes).is_err());
        }
    }
}
