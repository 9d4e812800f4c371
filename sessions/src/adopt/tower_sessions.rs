//! tower-sessions, with axum-login on top or not: MessagePack arrays with a map of values, under an id in base64.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use http::HeaderValue;
#[cfg(feature = "redis")]
use redis::aio::ConnectionManager;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{
    AdoptError, OldCookie, OldId, OldSession, Predecessor, RequestCookies, is_over,
    records::{Records, Table},
};

/// The sessions of tower-sessions 0.14 and 0.15, in the tables and keys of `tower-sessions-sqlx-store` 0.15
/// and `tower-sessions-redis-store` 0.16; also where axum-login is on top.
///
/// A store of another crate, or one of the application's own, is a [`Predecessor`] in a few lines: its
/// `load` calls `SessionStore::load`, and takes the record's `data`.
#[derive(Clone)]
pub struct TowerSessions {
    records: Records,
    table: Table,
    cookie: OldCookie,
}

impl TowerSessions {
    #[cfg(any(feature = "redis", feature = "sqlite", feature = "postgres", feature = "mysql"))]
    fn new(records: Records, table: &str) -> Self {
        // Whether a record counts, it says itself.
        let table = Table { name: table.to_string(), column: "data", counts: "1 = 1" };
        Self { records, table, cookie: OldCookie::new("id") }
    }

    /// In Redis, where `RedisStore` puts each under its bare id.
    #[cfg(feature = "redis")]
    pub fn redis(connection: ConnectionManager) -> Self {
        Self::new(Records::Redis(connection), "")
    }

    /// In the table `tower_sessions` of SQLite.
    #[cfg(feature = "sqlite")]
    pub fn sqlite(pool: sqlx::SqlitePool) -> Self {
        Self::new(Records::Sqlite(pool), "tower_sessions")
    }

    /// In the table `tower_sessions.session` of PostgreSQL.
    #[cfg(feature = "postgres")]
    pub fn postgres(pool: sqlx::PgPool) -> Self {
        Self::new(Records::Postgres(pool), "tower_sessions.session")
    }

    /// In the table `tower_sessions.session` of MySQL or MariaDB.
    #[cfg(feature = "mysql")]
    pub fn mysql(pool: sqlx::MySqlPool) -> Self {
        Self::new(Records::MySql(pool), "tower_sessions.session")
    }

    /// Another table than the usual one; with the schema's name and a `.` before it where that is wanted.
    /// Stands in the statements as it is: never take it from a request.
    pub fn with_table(mut self, table: &str) -> Self {
        self.table.name = table.to_string();
        self
    }

    /// Another cookie than `OldCookie::new("id")`, which is what tower-sessions has: another name, path or
    /// domain, [signed](OldCookie::with_signed) or [private](OldCookie::with_private).
    pub fn with_cookie(mut self, cookie: OldCookie) -> Self {
        self.cookie = cookie;
        self
    }
}

impl Predecessor for TowerSessions {
    fn session_id(&self, cookies: &RequestCookies<'_>) -> Option<OldId> {
        let id = self.cookie.value(cookies)?;
        // 128 bits in base64: whatever else stands there names no session.
        let is_base64 = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        (id.len() == 22 && id.bytes().all(is_base64)).then(|| OldId::new(id))
    }

    async fn load(&self, id: &OldId) -> Result<Option<OldSession>, AdoptError> {
        match self.records.load(&self.table, id, id.as_str()).await? {
            Some(bytes) => session_in(&bytes),
            None => Ok(None),
        }
    }

    async fn end(&self, id: &OldId) -> Result<bool, AdoptError> {
        self.records.delete(&self.table, id, id.as_str()).await
    }

    fn cookie_removal(&self) -> Option<HeaderValue> {
        Some(self.cookie.removal())
    }
}

/// A record as it stands in all stores: MessagePack, structs being arrays.
#[derive(Deserialize)]
struct Record {
    #[expect(dead_code, reason = "stands before the rest")]
    id: i128,
    data: Map<String, Value>,
    expiry_date: OffsetDateTime,
}

/// How the crate `time` writes one: year, day of the year, hour, minute, second, nanosecond, and the offset
/// from UTC in hours, minutes and seconds.
#[derive(Deserialize)]
struct OffsetDateTime(i32, u16, u8, u8, u8, u32, i8, i8, i8);

impl OffsetDateTime {
    /// `None` before 1970.
    fn to_system(&self) -> Option<SystemTime> {
        let Self(year, day, hour, minute, second, nanosecond, hours, minutes, seconds) = *self;
        // Leap years up to the one before, in the Gregorian calendar as it would have been.
        let before = i64::from(year) - 1;
        let leap_days = before.div_euclid(4) - before.div_euclid(100) + before.div_euclid(400);
        const DAYS_TO_1970: i64 = 719_162;
        let days = before * 365 + leap_days + i64::from(day) - 1 - DAYS_TO_1970;
        let time = (i64::from(hour) * 60 + i64::from(minute)) * 60 + i64::from(second);
        let offset = (i64::from(hours) * 60 + i64::from(minutes)) * 60 + i64::from(seconds);
        let since = u64::try_from(days * 24 * 60 * 60 + time - offset).ok()?;
        SystemTime::UNIX_EPOCH.checked_add(Duration::new(since, nanosecond.min(999_999_999)))
    }
}

fn session_in(bytes: &[u8]) -> Result<Option<OldSession>, AdoptError> {
    let record: Record = rmp_serde::from_slice(bytes)
        .map_err(|_| AdoptError::unreadable("it is no record of tower-sessions 0.14 or 0.15"))?;
    let expires_at = record.expiry_date.to_system();
    Ok((!is_over(expires_at)).then(|| OldSession::from_values(record.data)))
}

impl fmt::Debug for TowerSessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TowerSessions").field("cookie", &self.cookie).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_is_the_moment_that_it_names() {
        let at = |date: OffsetDateTime| {
            date.to_system().map(|at| at.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs())
        };
        for (date, seconds) in [
            (OffsetDateTime(1970, 1, 0, 0, 0, 0, 0, 0, 0), 0),
            (OffsetDateTime(1970, 2, 1, 2, 3, 0, 0, 0, 0), 86_400 + 3_723),
            (OffsetDateTime(2000, 366, 23, 59, 59, 0, 0, 0, 0), 978_307_199),
            (OffsetDateTime(2026, 333, 14, 0, 0, 0, 0, 0, 0), 1_795_960_800),
            (OffsetDateTime(2026, 333, 14, 0, 0, 0, 1, 30, 0), 1_795_960_800 - 5_400),
        ] {
            assert_eq!(at(date), Some(seconds));
        }
        assert_eq!(at(OffsetDateTime(1969, 365, 23, 59, 59, 0, 0, 0, 0)), None);
    }

    #[test]
    fn bytes_that_are_no_record_are_an_error_that_says_so() {
        for bytes in [&b""[..], b"\x93", b"nothing of the kind", &[0xff; 40]] {
            assert!(session_in(bytes).is_err());
        }
    }
}
