//! What the store needs of a database, and nothing of sqlx's type machinery.

use std::time::Duration;

use sqlx::{Database, Pool};

use super::statements::{Statements, Table};

/// A value of a statement.
#[derive(Clone, Copy)]
pub enum Value<'a> {
    Int(i64),
    Bytes(&'a [u8]),
    Text(Option<&'a str>),
}

/// A row of the table.
pub struct Row {
    pub(super) id: Vec<u8>,
    pub(super) version: i64,
    pub(super) created_at: i64,
    pub(super) expires_at: i64,
    pub(super) user: Option<Vec<u8>>,
    pub(super) payload: Vec<u8>,
}

/// The hidden half of [`Dialect`](super::Dialect).
pub trait Driver: Database {
    /// The store's name in errors.
    const STORE: &'static str;
    /// Whether a table's name may have a schema's before it.
    const HAS_SCHEMAS: bool;
    /// Whether `create` takes the place of an expired row by itself.
    const INSERT_TAKES_OVER: bool;
    /// How many expired rows a statement of the sweep removes, unless it is told otherwise.
    const SWEEP_BATCH: u32;
    /// Whether there is a network between us, and a server that may never answer.
    const CAN_HANG: bool;

    fn statements(table: &Table) -> Statements;

    /// A pool to read with and one to write with; they may be the same.
    fn connect(
        url: &str,
        max_connections: u32,
        timeout: Duration,
    ) -> impl Future<Output = Result<(Pool<Self>, Pool<Self>), sqlx::Error>> + Send;

    /// Runs statements without values.
    fn run(pool: &Pool<Self>, script: &str)
    -> impl Future<Output = Result<(), sqlx::Error>> + Send;

    fn execute(
        connection: &mut Self::Connection,
        statement: &str,
        values: &[Value<'_>],
    ) -> impl Future<Output = Result<u64, sqlx::Error>> + Send;

    fn fetch(
        connection: &mut Self::Connection,
        statement: &str,
        values: &[Value<'_>],
    ) -> impl Future<Output = Result<Vec<Row>, sqlx::Error>> + Send;

    /// For a statement that finds one row at most, which need not wait for the end of the answer.
    fn fetch_one(
        connection: &mut Self::Connection,
        statement: &str,
        values: &[Value<'_>],
    ) -> impl Future<Output = Result<Option<Row>, sqlx::Error>> + Send;

    fn is_missing_table(error: &sqlx::Error) -> bool;

    fn is_too_large(error: &sqlx::Error) -> bool;

    /// Whether the database has done nothing because another was in the way, so that the very same
    /// statement may just be repeated.
    fn is_in_the_way(error: &sqlx::Error) -> bool;

    /// Whether an error with this code will pass by itself.
    fn is_passing(code: Option<&str>) -> bool;

    fn user_to_stored(user: &str) -> String {
        user.to_string()
    }

    /// `None` if it is not what [`user_to_stored`](Self::user_to_stored) makes.
    fn user_from_stored(user: String) -> Option<String> {
        Some(user)
    }
}

/// A connection that nobody used for a while may be gone: asked before it is used. One that has just
/// answered is not asked again, which would double the round trips of every call.
#[cfg(any(feature = "postgres", feature = "mysql"))]
pub(super) async fn is_alive(
    connection: &mut impl sqlx::Connection,
    meta: sqlx::pool::PoolConnectionMetadata,
) -> Result<bool, sqlx::Error> {
    if meta.idle_for > Duration::from_secs(1) {
        connection.ping().await?;
    }
    Ok(true)
}

/// Whether the database answered with one of these codes.
pub(super) fn has_code(error: &sqlx::Error, codes: &[&str]) -> bool {
    match error {
        sqlx::Error::Database(error) => error.code().is_some_and(|code| codes.contains(&&*code)),
        _ => false,
    }
}

/// A statement with its values.
macro_rules! query {
    ($statement:expr, $values:expr, $user:ty) => {{
        let mut query = sqlx::query($statement);
        for value in $values {
            query = match *value {
                Value::Int(number) => query.bind(number),
                Value::Bytes(bytes) => query.bind(bytes),
                Value::Text(text) => query.bind(text.map(<$user>::from)),
            };
        }
        query
    }};
}
pub(super) use query;

/// A row of the driver's as one of ours.
macro_rules! row {
    ($row:expr, $user:ty) => {{
        use sqlx::Row as _;
        let row = &$row;
        Ok(Row {
            id: row.try_get(0)?,
            version: row.try_get(1)?,
            created_at: row.try_get(2)?,
            expires_at: row.try_get(3)?,
            user: row.try_get::<Option<$user>, _>(4)?.map(Into::into),
            payload: row.try_get(5)?,
        })
    }};
}
pub(super) use row;

/// The parts that read the same for every dialect, but have other types.
macro_rules! run_statements {
    ($user:ty) => {
        async fn run(pool: &sqlx::Pool<Self>, script: &str) -> Result<(), sqlx::Error> {
            sqlx::raw_sql(script).execute(pool).await.map(|_| ())
        }

        async fn execute(
            connection: &mut Self::Connection,
            statement: &str,
            values: &[Value<'_>],
        ) -> Result<u64, sqlx::Error> {
            query!(statement, values, $user)
                .execute(connection)
                .await
                .map(|done| done.rows_affected())
        }

        async fn fetch(
            connection: &mut Self::Connection,
            statement: &str,
            values: &[Value<'_>],
        ) -> Result<Vec<Row>, sqlx::Error> {
            let rows = query!(statement, values, $user).fetch_all(connection).await?;
            rows.iter().map(|row| row!(row, $user)).collect()
        }

        async fn fetch_one(
            connection: &mut Self::Connection,
            statement: &str,
            values: &[Value<'_>],
        ) -> Result<Option<Row>, sqlx::Error> {
            let row = query!(statement, values, $user).fetch_optional(connection).await?;
            row.map(|row| row!(row, $user)).transpose()
        }
    };
}
pub(super) use run_statements;
