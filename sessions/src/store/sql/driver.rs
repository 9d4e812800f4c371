//! What the store needs of a database, and nothing of sqlx's type machinery.

use std::{sync::Arc, time::Duration};

use sqlx::{Database, Pool, database::HasStatementCache, error::DatabaseError};

use super::statements::{Statement, Statements, Table};
use crate::{record::Record, store::watch::Watcher};

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
    pub(super) payload: Arc<[u8]>,
}

/// A `replace` that goes together with others.
#[cfg_attr(
    not(any(feature = "mysql", feature = "postgres")),
    expect(dead_code, reason = "SQLite's saves go one by one")
)]
pub struct Save {
    pub(super) id: [u8; 32],
    pub(super) record: Record,
    pub(super) user: Option<String>,
    pub(super) based_on: i64,
}

/// What an answer of a database means to the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// There is no such table.
    NoTable,
    /// There is no such schema.
    NoSchema,
    /// Of the schemas in the `search_path` there is none.
    NoSearchPath,
    /// The table has other columns.
    NoColumn,
    /// The record is larger than the server takes.
    TooLarge,
    /// The user may not do that.
    Denied,
    /// The user may not do that, because it may not use the schema.
    SchemaDenied,
    /// The database has done nothing because another was in the way: the very same statement may
    /// just be repeated.
    InTheWay,
    /// The server takes no writes. If it was another that did when the connection was made, a new
    /// connection leads there.
    ReadOnly,
    /// The connection remembers something that is not so any more; a new one does not.
    Stale,
    /// There was another statement under the statement's name: connections to the server change
    /// hands between transactions.
    OtherStatement,
    /// A pooler does not take what the driver sends when it connects.
    Parameter,
    /// There are too many connections.
    Crowded,
    /// There are too many prepared statements, on all connections together.
    Prepared,
    /// The file cannot be opened.
    NoFile,
    /// It will pass by itself.
    Passing,
    /// It stays until an operator does something about it.
    Lasting,
}

impl Meaning {
    /// Whether the same call may succeed a little later.
    pub(super) fn passes(self) -> bool {
        use Meaning::*;
        matches!(self, InTheWay | ReadOnly | Stale | Crowded | Prepared | Passing)
    }
}

/// The hidden half of [`Dialect`](super::Dialect).
pub trait Driver: Database + HasStatementCache {
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
    /// Whether a call that is dropped before its end leaves its connection in disorder: the next call
    /// would take the rest of the answer for its own.
    const LEAVES_ANSWERS: bool = false;
    /// Whether a connection keeps what was prepared on it, also where each call is a transaction of its own.
    const KEEPS_PREPARED: bool = false;
    /// Begins a transaction of one statement, whatever the server's or the connection's defaults are.
    const BEGIN: &str = "BEGIN";
    /// Ends a transaction without beginning the next one, whatever the server's or the connection's defaults are.
    const END_CHAIN: &str = "COMMIT AND NO CHAIN";
    /// Whether [`connect`](Self::connect) sees to it that its connections need no transactions.
    const CONNECTS_WITHOUT_NEED: bool;
    /// So many statements that save are on their way before the next saves wait for them, and then go
    /// together. With fewer of them more go together; with more they wait less for the slowest.
    const SAVES_AT_ONCE: usize = 2;
    /// After what time to ask again whether statements need transactions.
    const ASKED_FOR: Duration = Duration::MAX;

    /// How the store is told of changes, where it can be.
    type News: Default + Send + Sync;

    fn statements(table: &Table) -> Statements;

    /// Puts into the statements what it takes to be told of changes.
    fn add_news(_: &Self::News, _: &mut Statements, _: &Table) {}

    /// Who wants to know what this store changes.
    fn watcher(_: &Self::News) -> Option<Watcher> {
        None
    }

    /// A pool to read with and one to write with; they may be the same.
    fn connect(
        url: &str,
        max_connections: u32,
        timeout: Duration,
    ) -> impl Future<Output = Result<(Pool<Self>, Pool<Self>), sqlx::Error>> + Send;

    /// Whether each statement has to be a transaction of its own, with a beginning and an end, and
    /// must not be prepared under a name. Asks on a connection of the pool.
    fn needs_transactions(
        connection: &mut Self::Connection,
        pool: &Pool<Self>,
        timeout: Duration,
    ) -> impl Future<Output = Result<bool, sqlx::Error>> + Send;

    /// Whether the server would refuse statements that have no session in common, because one of them reads where
    /// another one writes.
    fn is_serializable(
        _: &mut Self::Connection,
    ) -> impl Future<Output = Result<bool, sqlx::Error>> + Send {
        async { Ok(false) }
    }

    /// Whether a commit begins the next transaction, which [`END_CHAIN`](Self::END_CHAIN) ends.
    fn chains_transactions(
        _: &mut Self::Connection,
    ) -> impl Future<Output = Result<bool, sqlx::Error>> + Send {
        async { Ok(false) }
    }

    /// Commits the transaction that is open although no one has begun it; whether there was one.
    fn commit_open(
        _: &mut Self::Connection,
    ) -> impl Future<Output = Result<bool, sqlx::Error>> + Send {
        async { Ok(false) }
    }

    /// Runs statements without values.
    fn run(
        connection: &mut Self::Connection,
        script: &str,
    ) -> impl Future<Output = Result<(), sqlx::Error>> + Send;

    /// The first column of each row that a statement without values finds.
    fn names(
        connection: &mut Self::Connection,
        statement: &str,
    ) -> impl Future<Output = Result<Vec<String>, sqlx::Error>> + Send;

    fn execute(
        connection: &mut Self::Connection,
        statement: &Statement,
        values: &[Value<'_>],
        unprepared: bool,
    ) -> impl Future<Output = Result<u64, sqlx::Error>> + Send;

    fn fetch(
        connection: &mut Self::Connection,
        statement: &Statement,
        values: &[Value<'_>],
        unprepared: bool,
    ) -> impl Future<Output = Result<Vec<Row>, sqlx::Error>> + Send;

    /// For a statement that finds one row at most, which need not wait for the end of the answer.
    fn fetch_one(
        connection: &mut Self::Connection,
        statement: &Statement,
        values: &[Value<'_>],
        unprepared: bool,
    ) -> impl Future<Output = Result<Option<Row>, sqlx::Error>> + Send;

    /// Runs one of these statements, [`Statements::replace_together`], for all these saves, which are of
    /// different sessions and in the order of their keys. Which of them are done; the others have
    /// changed nothing, and may have found their rows locked. Waits for no lock on a row.
    fn replace_together(
        _: &mut Self::Connection,
        _: &[Statement],
        _: &[Save],
        _now: i64,
        _unprepared: bool,
    ) -> impl Future<Output = Result<Vec<bool>, sqlx::Error>> + Send {
        async { Ok(Vec::new()) }
    }

    fn meaning(error: &dyn DatabaseError) -> Meaning;

    fn user_to_stored(user: &str) -> String {
        user.to_string()
    }

    /// `None` if it is not what [`user_to_stored`](Self::user_to_stored) makes.
    fn user_from_stored(user: String) -> Option<String> {
        Some(user)
    }
}

/// What the database's answer means; `None` if it is no answer of the database.
pub(super) fn meaning<D: Driver>(error: &sqlx::Error) -> Option<Meaning> {
    match error {
        sqlx::Error::Database(error) => Some(D::meaning(&**error)),
        _ => None,
    }
}

/// The error of a pool that could not connect in time says nothing about why. So the connection is
/// tried once without the pool.
pub(super) async fn why_not<O>(options: &O, timeout: Duration, error: sqlx::Error) -> sqlx::Error
where
    O: sqlx::ConnectOptions<Connection: Sized>,
{
    if !matches!(error, sqlx::Error::PoolTimedOut) {
        return error;
    }
    match tokio::time::timeout(timeout, options.connect()).await {
        Ok(Err(reason)) => reason,
        Ok(Ok(_)) => error,
        Err(_) => {
            let words = format!("no answer within {timeout:?}");
            sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, words))
        }
    }
}

/// A connection that was unused for a while may be gone: it is asked before it is used. One that has just
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

/// A statement with its values. Its text is one of ours: the name of the table in it is letters, digits and
/// underscores, and whatever a client sends is a value.
macro_rules! query {
    ($statement:expr, $values:expr, $user:ty, $unprepared:expr) => {{
        let text = $statement.text($unprepared);
        let mut query = sqlx::query(sqlx::AssertSqlSafe(text)).persistent(!$unprepared);
        for value in $values {
            query = match *value {
                Value::Int(number) => query.bind(number),
                Value::Bytes(bytes) => query.bind(bytes),
                Value::Text(text) => query.bind(text.map(<$user>::from)),
            };
        }
        match $statement.mark {
            Some(mark) => query.bind(mark),
            None => query,
        }
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
            // Copied once, to where it stays.
            payload: row.try_get::<&[u8], _>(5)?.into(),
        })
    }};
}
pub(super) use row;

/// The parts that read the same for every dialect, but have other types.
macro_rules! run_statements {
    ($user:ty) => {
        async fn run(connection: &mut Self::Connection, script: &str) -> Result<(), sqlx::Error> {
            let script = sqlx::AssertSqlSafe(script);
            sqlx::Executor::execute(connection, script).await.map(|_| ())
        }

        async fn names(
            connection: &mut Self::Connection,
            statement: &str,
        ) -> Result<Vec<String>, sqlx::Error> {
            use sqlx::Row as _;
            let statement = sqlx::AssertSqlSafe(statement);
            let rows = sqlx::Executor::fetch_all(connection, statement).await?;
            rows.iter().map(|row| row.try_get_unchecked(0)).collect()
        }

        async fn execute(
            connection: &mut Self::Connection,
            statement: &Statement,
            values: &[Value<'_>],
            unprepared: bool,
        ) -> Result<u64, sqlx::Error> {
            query!(statement, values, $user, unprepared)
                .execute(connection)
                .await
                .map(|done| done.rows_affected())
        }

        async fn fetch(
            connection: &mut Self::Connection,
            statement: &Statement,
            values: &[Value<'_>],
            unprepared: bool,
        ) -> Result<Vec<Row>, sqlx::Error> {
            let query = query!(statement, values, $user, unprepared);
            let rows = query.fetch_all(connection).await?;
            rows.iter().map(|row| row!(row, $user)).collect()
        }

        async fn fetch_one(
            connection: &mut Self::Connection,
            statement: &Statement,
            values: &[Value<'_>],
            unprepared: bool,
        ) -> Result<Option<Row>, sqlx::Error> {
            let query = query!(statement, values, $user, unprepared);
            let row = query.fetch_optional(connection).await?;
            row.map(|row| row!(row, $user)).transpose()
        }
    };
}
pub(super) use run_statements;
