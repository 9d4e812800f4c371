//! axum_session: JSON, whose values are JSON in texts, under a UUID; encrypted where its configuration says so.

use std::fmt;

use cookie::Key;
use http::HeaderValue;
#[cfg(feature = "redis")]
use redis::aio::ConnectionManager;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{
    AdoptError, OldCookie, OldId, OldSession, Predecessor, RequestCookies,
    cookies::{decrypt, key_of},
    records::{Records, Table},
};
use crate::error::BuildError;

/// The sessions of axum_session 0.22, in the tables of `axum_session_sqlx` 0.12 and the keys of
/// `axum_session_redispool` 0.13. Not those that it keeps in memory alone.
///
/// axum_session writes to its database every so often: let it stop properly before the new build starts,
/// or what was changed last is not there yet.
///
/// Its cookie holds a random UUID, with or without a signature before it that says something of the
/// client's address; it is the UUID that has to be known, and the signature is not looked at.
#[derive(Clone)]
pub struct AxumSession {
    records: Records,
    table: Table,
    is_redis: bool,
    cookie: OldCookie,
    database_key: Option<Key>,
}

impl AxumSession {
    #[cfg(any(feature = "redis", feature = "sqlite", feature = "postgres", feature = "mysql"))]
    fn new(records: Records, is_redis: bool, now: &'static str) -> Self {
        let table = Table { name: "sessions".to_string(), column: "session", counts: now };
        let cookie = OldCookie::new("session");
        Self { records, table, is_redis, cookie, database_key: None }
    }

    /// In Redis, under `sessions:` and the id.
    #[cfg(feature = "redis")]
    pub fn redis(connection: ConnectionManager) -> Self {
        Self::new(Records::Redis(connection), true, "")
    }

    /// In the table `sessions` of SQLite.
    #[cfg(feature = "sqlite")]
    pub fn sqlite(pool: sqlx::SqlitePool) -> Self {
        let counts = "(expires IS NULL OR expires > strftime('%s', 'now') + 0)";
        Self::new(Records::Sqlite(pool), false, counts)
    }

    /// In the table `sessions` of PostgreSQL.
    #[cfg(feature = "postgres")]
    pub fn postgres(pool: sqlx::PgPool) -> Self {
        let counts = "(expires IS NULL OR expires > EXTRACT(EPOCH FROM now()))";
        let mut postgres = Self::new(Records::Postgres(pool), false, counts);
        postgres.table.column = "convert_to(session, 'UTF8')";
        postgres
    }

    /// In the table `sessions` of MySQL or MariaDB.
    #[cfg(feature = "mysql")]
    pub fn mysql(pool: sqlx::MySqlPool) -> Self {
        let counts = "(expires IS NULL OR expires > UNIX_TIMESTAMP())";
        Self::new(Records::MySql(pool), false, counts)
    }

    /// Another `SessionConfig::with_table_name` than `sessions`; in Redis, what stands before the `:`. Stands in
    /// the statements as it is: never take it from a request.
    pub fn with_table(mut self, table: &str) -> Self {
        self.table.name = table.to_string();
        self
    }

    /// Another cookie than `OldCookie::new("session")`: another name, path or domain.
    pub fn with_cookie(mut self, cookie: OldCookie) -> Self {
        self.cookie = cookie;
        self
    }

    /// The records are encrypted with this key, `SessionConfig::with_database_key`: its 64 bytes, as
    /// `Key::master` gives them.
    ///
    /// # Errors
    ///
    /// If the key has fewer than 64 bytes.
    pub fn with_database_key(mut self, key: &[u8]) -> Result<Self, BuildError> {
        self.database_key = Some(key_of(key)?);
        Ok(self)
    }

    fn key(&self, id: &OldId) -> String {
        match &*self.table.name {
            "" => id.as_str().to_string(),
            name if self.is_redis => format!("{name}:{}", id.as_str()),
            _ => String::new(),
        }
    }
}

/// How long a UUID is, in text.
const UUID: usize = 36;

impl Predecessor for AxumSession {
    fn session_id(&self, cookies: &RequestCookies<'_>) -> Option<OldId> {
        let value = self.cookie.value(cookies)?;
        let id = value.get(value.len().checked_sub(UUID)?..)?;
        let is_uuid = id.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
        is_uuid.then(|| OldId::new(id))
    }

    async fn load(&self, id: &OldId) -> Result<Option<OldSession>, AdoptError> {
        let found = self.records.load(&self.table, id, &self.key(id)).await?;
        let Some(bytes) = found else { return Ok(None) };
        let text = String::from_utf8(bytes).map_err(|_| AdoptError::unreadable("it is no text"))?;
        let text = match &self.database_key {
            // Encrypted as a cookie of this name would be.
            Some(key) => decrypt(key, id.as_str(), text)
                .ok_or_else(|| AdoptError::unreadable("it does not decrypt with the database key"))?
                .value()
                .to_string(),
            None => text,
        };
        session_in(&text).map(Some)
    }

    async fn end(&self, id: &OldId) -> Result<bool, AdoptError> {
        self.records.delete(&self.table, id, &self.key(id)).await
    }

    fn cookie_removal(&self) -> Option<HeaderValue> {
        Some(self.cookie.removal())
    }
}

#[derive(Deserialize)]
struct Record {
    data: Map<String, Value>,
}

fn session_in(text: &str) -> Result<OldSession, AdoptError> {
    let record: Record = serde_json::from_str(text).map_err(|_| {
        AdoptError::unreadable("it is no record of axum_session 0.22, or encrypted")
    })?;
    OldSession::from_texts(record.data)
}

impl fmt::Debug for AxumSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AxumSession").field("cookie", &self.cookie).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_holds_each_value_as_json_in_a_text() {
        let text = r#"{"data":{"cart":"[\"teapot\"]","count":"3"},"longterm":false}"#;
        let old = session_in(text).unwrap();
        assert_eq!(old.get::<u32>("count").unwrap(), Some(3));
        assert_eq!(old.get::<Vec<String>>("cart").unwrap(), Some(vec!["teapot".to_string()]));
        for text in ["", "{}", r#"{"data":{"count":3}}"#, r#"{"data":{"count":"{"}}"#] {
            assert!(session_in(text).is_err(), "{text}");
        }
    }
}
