//! The records of other libraries' stores: bytes under a text, read with one query and ended with another.

#[cfg(feature = "redis")]
use redis::aio::ConnectionManager;

use super::{AdoptError, OldId};

/// Where the records are.
#[derive(Clone)]
pub(super) enum Records {
    #[cfg(feature = "redis")]
    Redis(ConnectionManager),
    #[cfg(feature = "sqlite")]
    Sqlite(sqlx::SqlitePool),
    #[cfg(feature = "postgres")]
    Postgres(sqlx::PgPool),
    #[cfg(feature = "mysql")]
    MySql(sqlx::MySqlPool),
    /// In the cookie.
    Nowhere,
}

/// Which table, and which column of it: written into the statements as they are.
#[derive(Clone, Debug)]
#[cfg_attr(
    not(any(feature = "sqlite", feature = "postgres", feature = "mysql")),
    expect(dead_code, reason = "there is no SQL")
)]
pub(super) struct Table {
    pub(super) name: String,
    pub(super) column: &'static str,
    /// The condition that a record which counts meets.
    pub(super) counts: &'static str,
}

impl Records {
    /// The record under `key` in Redis, or of the row with this id.
    pub(super) async fn load(
        &self,
        table: &Table,
        id: &OldId,
        key: &str,
    ) -> Result<Option<Vec<u8>>, AdoptError> {
        // Not every feature asks for each.
        let _ = (table, id, key);
        match self {
            #[cfg(feature = "redis")]
            Self::Redis(connection) => redis::cmd("GET")
                .arg(key)
                .query_async(&mut connection.clone())
                .await
                .map_err(|error| failed("load", error)),
            #[cfg(feature = "sqlite")]
            Self::Sqlite(pool) => {
                let select = table.select("?", "CAST(", " AS BLOB)");
                let row = sqlx::query_scalar(select).bind(id.as_str()).fetch_optional(pool);
                row.await.map_err(|error| failed("load", error))
            }
            #[cfg(feature = "postgres")]
            Self::Postgres(pool) => {
                let select = table.select("$1", "", "");
                let row = sqlx::query_scalar(select).bind(id.as_str()).fetch_optional(pool);
                row.await.map_err(|error| failed("load", error))
            }
            #[cfg(feature = "mysql")]
            Self::MySql(pool) => {
                let select = table.select("?", "CAST(", " AS BINARY)");
                let row = sqlx::query_scalar(select).bind(id.as_str()).fetch_optional(pool);
                row.await.map_err(|error| failed("load", error))
            }
            Self::Nowhere => Ok(None),
        }
    }

    pub(super) async fn delete(
        &self,
        table: &Table,
        id: &OldId,
        key: &str,
    ) -> Result<bool, AdoptError> {
        let _ = (table, id, key);
        match self {
            #[cfg(feature = "redis")]
            Self::Redis(connection) => redis::cmd("DEL")
                .arg(key)
                .query_async::<()>(&mut connection.clone())
                .await
                .map(|()| true)
                .map_err(|error| failed("delete", error)),
            #[cfg(feature = "sqlite")]
            Self::Sqlite(pool) => {
                let delete = table.delete("?");
                let done = sqlx::query(delete).bind(id.as_str()).execute(pool).await;
                done.map(|_| true).map_err(|error| failed("delete", error))
            }
            #[cfg(feature = "postgres")]
            Self::Postgres(pool) => {
                let delete = table.delete("$1");
                let done = sqlx::query(delete).bind(id.as_str()).execute(pool).await;
                done.map(|_| true).map_err(|error| failed("delete", error))
            }
            #[cfg(feature = "mysql")]
            Self::MySql(pool) => {
                let delete = table.delete("?");
                let done = sqlx::query(delete).bind(id.as_str()).execute(pool).await;
                done.map(|_| true).map_err(|error| failed("delete", error))
            }
            Self::Nowhere => Ok(false),
        }
    }
}

#[cfg(any(feature = "sqlite", feature = "postgres", feature = "mysql"))]
impl Table {
    // The name of the table is the application's, and documented never to come from a request.
    fn select(&self, id: &str, before: &str, after: &str) -> sqlx::AssertSqlSafe<String> {
        let Self { name, column, counts } = self;
        let text =
            format!("SELECT {before}{column}{after} FROM {name} WHERE id = {id} AND {counts}");
        sqlx::AssertSqlSafe(text)
    }

    fn delete(&self, id: &str) -> sqlx::AssertSqlSafe<String> {
        sqlx::AssertSqlSafe(format!("DELETE FROM {} WHERE id = {id}", self.name))
    }
}

#[cfg(any(feature = "redis", feature = "sqlite", feature = "postgres", feature = "mysql"))]
fn failed(
    operation: &'static str,
    error: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> AdoptError {
    crate::error::store::StoreError::new("predecessor's", operation, error).into()
}
