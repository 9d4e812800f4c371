//! Sessions in a table of a SQL database.
//!
//! One implementation for three databases. What differs is in a [`Dialect`]'s file: its statements,
//! its table, how it is connected to and what its errors mean.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use sqlx::Pool;
use tokio::time::{Instant, sleep, timeout};

use self::{
    driver::{Driver, Row, Value},
    statements::{Statements, Table},
};
use super::{
    Advice, Created, DeleteExpired, ExpirySweep, Replaced, Store, StoreError, UserIndex,
    packed::stored_millis,
};
use crate::{
    Record, StoreKey,
    clock::{Clock, from_millis},
};

mod driver;
#[cfg(feature = "mysql")]
mod mysql;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "sqlite")]
mod sqlite;
mod statements;

/// Sessions in a SQLite database.
///
/// ```no_run
/// # async fn start() -> Result<(), sessions::StoreError> {
/// use sessions::SqliteStore;
///
/// let store = SqliteStore::connect("sqlite:sessions.db").await?;
/// store.migrate().await?;
/// # Ok(())
/// # }
/// ```
///
/// [`connect`](SqlStore::connect) makes the file if there is none, and opens it in WAL mode, with
/// one connection that writes, and remembers up to 16 megabytes of the file, and four that read; a
/// process that finds the file locked waits for five seconds. Up to a gigabyte of the file is mapped
/// into memory (`mmap_size`), which makes loads from a large file a third quicker. The system counts
/// that as the process's memory, and takes it back when it needs it; and a part of the file that
/// cannot be read any more, because the disk fails or somebody has cut the file short, ends the
/// process (`SIGBUS`) instead of failing a call. A [pool of your own](SqlStore::new) has what you set.
/// All [`SqlStore`] says is true here; the table is
///
/// ```sql
/// CREATE TABLE IF NOT EXISTS sessions (
///     id         BLOB    NOT NULL PRIMARY KEY,
///     version    INTEGER NOT NULL,
///     created_at INTEGER NOT NULL, -- milliseconds since 1970
///     expires_at INTEGER NOT NULL, -- milliseconds since 1970
///     user_id    TEXT,
///     payload    BLOB    NOT NULL
/// );
/// CREATE INDEX IF NOT EXISTS sessions_expires_at ON sessions (expires_at);
/// CREATE INDEX IF NOT EXISTS sessions_user_id ON sessions (user_id) WHERE user_id IS NOT NULL;
/// ```
///
/// # What survives
///
/// Every save that was acknowledged survives the end of the process, `kill -9` included. After a
/// power failure the last moments may be missing, because `connect` sets `synchronous = NORMAL`;
/// the file is whole all the same.
///
/// The file must be on a local disk. With `sqlite::memory:` the sessions end with the store.
#[cfg(feature = "sqlite")]
pub type SqliteStore = SqlStore<sqlx::Sqlite>;

/// Sessions in a PostgreSQL database.
///
/// ```no_run
/// # async fn start() -> Result<(), sessions::StoreError> {
/// use sessions::PostgresStore;
///
/// let store = PostgresStore::connect("postgres://app:secret@db.example/app").await?;
/// store.migrate().await?;
/// # Ok(())
/// # }
/// ```
///
/// All [`SqlStore`] says is true here; the table is
///
/// ```sql
/// CREATE TABLE IF NOT EXISTS sessions (
///     id         BYTEA  NOT NULL PRIMARY KEY,
///     version    BIGINT NOT NULL,
///     created_at BIGINT NOT NULL, -- milliseconds since 1970
///     expires_at BIGINT NOT NULL, -- milliseconds since 1970
///     user_id    TEXT,
///     payload    BYTEA  NOT NULL
/// ) WITH (fillfactor = 75); -- so that a save finds room beside the old row, and indexes stay as they are
/// CREATE INDEX IF NOT EXISTS sessions_expires_at ON sessions (expires_at);
/// CREATE INDEX IF NOT EXISTS sessions_user_id ON sessions (user_id) WHERE user_id IS NOT NULL;
/// ```
///
/// PostgreSQL's text has no NUL character, so in `user_id` one is written as `\0`, and a backslash
/// as two.
///
/// Every save that was acknowledged survives what the server survives: a crash as well, unless you
/// have turned `synchronous_commit` off.
#[cfg(feature = "postgres")]
pub type PostgresStore = SqlStore<sqlx::Postgres>;

/// Sessions in a MySQL or MariaDB database.
///
/// ```no_run
/// # async fn start() -> Result<(), sessions::StoreError> {
/// use sessions::MySqlStore;
///
/// let store = MySqlStore::connect("mysql://app:secret@db.example/app").await?;
/// store.migrate().await?;
/// # Ok(())
/// # }
/// ```
///
/// All [`SqlStore`] says is true here; the table is
///
/// ```sql
/// CREATE TABLE IF NOT EXISTS sessions (
///     id         BINARY(32) NOT NULL PRIMARY KEY,
///     version    BIGINT     NOT NULL,
///     created_at BIGINT     NOT NULL, -- milliseconds since 1970
///     expires_at BIGINT     NOT NULL, -- milliseconds since 1970
///     user_id    VARBINARY(1020),     -- UTF-8; binary, so that it compares byte by byte
///     payload    LONGBLOB   NOT NULL,
///     INDEX sessions_expires_at (expires_at),
///     INDEX sessions_user_id (user_id)
/// ) ENGINE = InnoDB;
/// ```
///
/// A payload larger than the server's `max_allowed_packet` is an error. Every save that was
/// acknowledged survives what the server survives: a crash as well, unless you have changed
/// `innodb_flush_log_at_trx_commit`.
#[cfg(feature = "mysql")]
pub type MySqlStore = SqlStore<sqlx::MySql>;

/// How long a user's name may be, in bytes of UTF-8: what an index of each database takes.
const USER_LIMIT: usize = 1020;

/// How often a statement is repeated that the database has undone because it was in another's way
/// (a deadlock).
const RETRIES: u32 = 5;

/// A database that sessions can be kept in: `sqlx::Sqlite`, `sqlx::Postgres`, `sqlx::MySql`.
///
/// It cannot be implemented by others.
pub trait Dialect: Driver {}

/// Sessions in a table of a SQL database: [`SqliteStore`], [`PostgresStore`], [`MySqlStore`].
///
/// From a URL, or on a pool that the application has:
///
/// ```
/// # #[cfg(feature = "sqlite")]
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
///
/// use sessions::SqliteStore;
///
/// let pool = sqlx::SqlitePool::connect("sqlite::memory:").await?;
/// let store = SqliteStore::builder()
///     .with_table("visitors")
///     .with_sweep_interval(Duration::from_secs(300))
///     .build(pool)?;
/// store.migrate().await?;
/// # Ok(())
/// # }
/// # #[cfg(not(feature = "sqlite"))]
/// # fn main() {}
/// ```
///
/// Clones share the pool and the sweep.
///
/// # The table
///
/// [`migrate`](Self::migrate) makes it; whoever runs their own migrations finds the statements at
/// the store's type. Without it every call is an error that says so.
///
/// `user_id` holds at most 1020 bytes; a longer user is an error that is not
/// [retryable](StoreError::is_retryable).
///
/// # Round trips
///
/// `load`, `replace`, `touch` and `delete` are one statement each, and so is `create` (two, if
/// MySQL finds the key in use). A `replace` that does not match takes a second one to tell
/// `Changed` from `Missing`; in SQLite one that changes the session's user or expiry takes two, and
/// the others leave its indexes alone. Statements are prepared once a connection. [`connect`](Self::connect) asks a connection whether it is alive only
/// after a second of idling; on a pool of your own, sqlx asks before each statement unless you turn
/// `test_before_acquire` off.
///
/// # Expiry and the sweep
///
/// Whether a record has expired is decided by this process's clock, in the statement itself; the
/// server's clock is never asked. Processes whose clocks differ disagree about a session's end by
/// that difference, and about nothing else.
///
/// Rows of expired sessions are removed in batches on a schedule, by each process, in turns that
/// do not wait for each other. It starts when the store is made and ends with its last clone;
/// [`with_sweep_interval`](SqlStoreBuilder::with_sweep_interval) and
/// [`without_sweep`](SqlStoreBuilder::without_sweep) are its switches.
///
/// # Errors
///
/// A lost connection, a pool without a free connection, a timeout, a database that is locked, and
/// a deadlock that came back five times are [retryable](StoreError::is_retryable). After a
/// restart of the server each connection that was just in use fails once, and is replaced. A call that the server does not answer
/// [in time](SqlStoreBuilder::with_timeout) is an error, and its connection is closed.
///
/// # Cancellation
///
/// A future that is dropped may have been carried out or not, never in part.
pub struct SqlStore<D: Dialect> {
    core: Arc<Core<D>>,
    sweep: Option<Arc<ExpirySweep>>,
}

impl<D: Dialect> Clone for SqlStore<D> {
    fn clone(&self) -> Self {
        Self { core: self.core.clone(), sweep: self.sweep.clone() }
    }
}

/// Shows the table and the pool's size. URLs and passwords are not kept.
impl<D: Dialect> fmt::Debug for SqlStore<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqlStore")
            .field("database", &D::STORE)
            .field("table", &self.core.table)
            .field("connections", &self.core.write.size())
            .field("idle", &self.core.write.num_idle())
            .field("sweep", &self.sweep.is_some())
            .finish()
    }
}

impl<D: Dialect> SqlStore<D> {
    /// Connects to the database at `url`, with the defaults of [`builder`](Self::builder).
    ///
    /// # Errors
    ///
    /// When the URL makes no sense, or the server is not to be reached.
    pub async fn connect(url: &str) -> Result<Self, StoreError> {
        Self::builder().connect(url).await
    }

    /// On a pool that the application has, in the table `sessions`.
    pub fn new(pool: Pool<D>) -> Self {
        let builder = Self::builder();
        let table = Table::default();
        builder.assemble(table, pool.clone(), pool)
    }

    /// To set the table, the sweep, the pool's size or the timeout.
    pub fn builder() -> SqlStoreBuilder<D> {
        SqlStoreBuilder {
            table: None,
            sweep_interval: Some(Duration::from_secs(60)),
            sweep_batch: D::SWEEP_BATCH,
            max_connections: 10,
            timeout: Duration::from_secs(5),
            clock: Clock::System,
            database: std::marker::PhantomData,
        }
    }

    /// Makes the table and its indexes, if they are not there. Any number of processes may call it
    /// at once.
    ///
    /// It never changes a table that is there.
    pub async fn migrate(&self) -> Result<(), StoreError> {
        // Of many at once some may still be refused, as by a file that is locked. What one of them
        // has made is there for all.
        let core = &self.core;
        let mut tries = 0;
        loop {
            let connected =
                timeout(core.timeout * 4, D::run(&core.write, &core.statements.migrate));
            match connected.await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(error)) if tries < RETRIES && D::is_in_the_way(&error) => {
                    tries += 1;
                    sleep(pause(tries)).await;
                }
                Ok(Err(error)) => return Err(core.error("migrate", error)),
                Err(_) => return Err(core.too_late("migrate")),
            }
        }
    }

    /// The statements that [`migrate`](Self::migrate) runs.
    pub fn schema(&self) -> &str {
        &self.core.statements.migrate
    }
}

/// Makes a [`SqlStore`]; from [`SqlStore::builder`].
#[must_use = "`connect` or `build` makes the store"]
pub struct SqlStoreBuilder<D> {
    table: Option<String>,
    sweep_interval: Option<Duration>,
    sweep_batch: u32,
    max_connections: u32,
    timeout: Duration,
    clock: Clock,
    database: std::marker::PhantomData<fn() -> D>,
}

impl<D> fmt::Debug for SqlStoreBuilder<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqlStoreBuilder")
            .field("table", &self.table)
            .field("sweep_interval", &self.sweep_interval)
            .field("max_connections", &self.max_connections)
            .field("timeout", &self.timeout)
            .finish()
    }
}

impl<D: Dialect> SqlStoreBuilder<D> {
    /// The table, `sessions` unless told otherwise: letters, digits and underscores, at most 48,
    /// not starting with a digit. In PostgreSQL and MySQL also `schema.table`.
    ///
    /// Whether the name will do is looked at when the store is made.
    pub fn with_table(mut self, table: impl Into<String>) -> Self {
        self.table = Some(table.into());
        self
    }

    /// How often expired rows are removed, once a minute unless told otherwise.
    pub fn with_sweep_interval(mut self, interval: Duration) -> Self {
        self.sweep_interval = Some(interval);
        self
    }

    /// How many expired rows one statement removes: 1000 unless told otherwise, with SQLite 100,
    /// because nobody can save meanwhile.
    pub fn with_sweep_batch(mut self, rows: u32) -> Self {
        self.sweep_batch = rows;
        self
    }

    /// Leaves the removal of expired rows to somebody else, such as one process for all, or a job
    /// of the database: see [`DeleteExpired`].
    pub fn without_sweep(mut self) -> Self {
        self.sweep_interval = None;
        self
    }

    /// How many connections [`connect`](Self::connect) opens at most, ten unless told otherwise.
    /// With SQLite it is the connections that read; one writes.
    pub fn with_max_connections(mut self, connections: u32) -> Self {
        self.max_connections = connections.max(1);
        self
    }

    /// How long a call may wait for a connection, and then for an answer; five seconds unless told
    /// otherwise.
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Lets the store's sessions expire by a clock that a test sets by hand. The sweep's interval
    /// remains tokio's time.
    #[cfg(feature = "testing")]
    pub fn with_clock(mut self, clock: &crate::testing::ManualClock) -> Self {
        self.clock = clock.clock();
        self
    }

    /// Connects to the database at `url`.
    ///
    /// TLS is the choice of the application: add `sqlx` to its dependencies with one of the
    /// features `tls-rustls-ring` or `tls-native-tls`.
    ///
    /// # Errors
    ///
    /// When the table's name or the URL makes no sense, or the server is not to be reached.
    pub async fn connect(self, url: &str) -> Result<SqlStore<D>, StoreError> {
        let table = self.table()?;
        let connected = D::connect(url, self.max_connections, self.timeout).await;
        let (read, write) = connected.map_err(|error| classify::<D>("connect", error))?;
        Ok(self.assemble(table, read, write))
    }

    /// On a pool that the application has.
    ///
    /// # Errors
    ///
    /// When the table's name makes no sense.
    pub fn build(self, pool: Pool<D>) -> Result<SqlStore<D>, StoreError> {
        self.table().map(|table| self.assemble(table, pool.clone(), pool))
    }

    fn table(&self) -> Result<Table, StoreError> {
        let Some(name) = &self.table else { return Ok(Table::default()) };
        Table::new(name, D::HAS_SCHEMAS).ok_or_else(|| {
            let words = format!("`{}` is not a name for a table", name.escape_debug());
            StoreError::permanent(D::STORE, "build", words)
        })
    }

    fn assemble(self, table: Table, read: Pool<D>, write: Pool<D>) -> SqlStore<D> {
        let core = Arc::new(Core {
            statements: D::statements(&table),
            table,
            read,
            write,
            timeout: self.timeout,
            clock: self.clock,
        });
        let sweep = self
            .sweep_interval
            .map(|interval| Arc::new(ExpirySweep::start(core.clone(), interval, self.sweep_batch)));
        SqlStore { core, sweep }
    }
}

/// All but the sweep, which uses it and must not keep itself alive.
struct Core<D: Dialect> {
    table: Table,
    statements: Statements,
    read: Pool<D>,
    /// The same as `read`, but with SQLite, where only one can write at a time: to wait in line for
    /// one connection is faster and fairer than to knock at a locked file.
    write: Pool<D>,
    timeout: Duration,
    clock: Clock,
}

/// How long to stay out of the way before that try.
fn pause(tries: u32) -> Duration {
    Duration::from_millis(u64::from(tries * tries))
}

/// Gives the pool its connection back, unless it may be hung: then it is closed.
struct Checkout<D: Dialect> {
    connection: sqlx::pool::PoolConnection<D>,
    begun: Option<Instant>,
}

impl<D: Dialect> Drop for Checkout<D> {
    fn drop(&mut self) {
        // The call was dropped before its answer. After a short time that is a request whose client
        // hung up; after a long one it is the server that does not answer, and the pool would wait
        // for it.
        if D::CAN_HANG && self.begun.is_some_and(|at| at.elapsed() > Duration::from_secs(1)) {
            self.connection.close_on_drop();
        }
    }
}

impl<D: Dialect> Core<D> {
    fn now(&self) -> Value<'static> {
        Value::Int(stored_millis(self.clock.now()).cast_signed())
    }

    fn error(&self, operation: &'static str, error: sqlx::Error) -> StoreError {
        classify::<D>(operation, error)
    }

    fn too_late(&self, operation: &'static str) -> StoreError {
        let words = format!("no answer within {:?}", self.timeout);
        StoreError::new(D::STORE, operation, words)
    }

    /// Does `work` on a connection of `pool`, within the timeout; repeats it if the database has
    /// undone it in favour of others.
    async fn on<R>(
        &self,
        operation: &'static str,
        pool: &Pool<D>,
        work: impl AsyncDriver<D, R>,
    ) -> Result<R, StoreError> {
        let mut tries = 0;
        loop {
            let acquired = timeout(self.timeout, pool.acquire()).await;
            let Ok(acquired) = acquired else { return Err(self.too_late(operation)) };
            let connection = acquired.map_err(|error| self.error(operation, error))?;
            let mut checkout = Checkout { connection, begun: Some(Instant::now()) };
            let answer = timeout(self.timeout, work.call(&mut checkout.connection)).await;
            let Ok(answer) = answer else { return Err(self.too_late(operation)) };
            checkout.begun = None;
            match answer {
                Ok(answer) => return Ok(answer),
                Err(error) if tries < RETRIES && D::is_in_the_way(&error) => {
                    drop(checkout);
                    tries += 1;
                    sleep(pause(tries)).await;
                }
                Err(error) => return Err(self.error(operation, error)),
            }
        }
    }

    /// Runs a statement that writes; how many rows it touched.
    async fn execute(
        &self,
        operation: &'static str,
        statement: &str,
        values: &[Value<'_>],
    ) -> Result<u64, StoreError> {
        self.on(operation, &self.write, Execute { statement, values }).await
    }

    /// Runs `load`.
    async fn fetch_one(
        &self,
        operation: &'static str,
        values: &[Value<'_>],
    ) -> Result<Option<Record>, StoreError> {
        let one = FetchOne { statement: &self.statements.load, values };
        let row = self.on(operation, &self.read, one).await?;
        row.map(|row| Ok(self.record(operation, row)?.1)).transpose()
    }

    /// Runs a statement that reads.
    async fn fetch(
        &self,
        operation: &'static str,
        statement: &str,
        values: &[Value<'_>],
    ) -> Result<Vec<(StoreKey, Record)>, StoreError> {
        let rows = self.on(operation, &self.read, Fetch { statement, values }).await?;
        rows.into_iter().map(|row| self.record(operation, row)).collect()
    }

    fn record(&self, operation: &'static str, row: Row) -> Result<(StoreKey, Record), StoreError> {
        let broken = |what: &str| {
            let words = format!("a row of the table {} has {what}", self.table);
            StoreError::permanent(D::STORE, operation, words)
        };
        let key = row.id.try_into().map_err(|_| broken("an `id` that is not 32 bytes long"))?;
        let user = match row.user {
            Some(user) => {
                let user = String::from_utf8(user).ok().and_then(D::user_from_stored);
                Some(user.ok_or_else(|| broken("a `user_id` that was not written here"))?.into())
            }
            None => None,
        };
        let record = Record {
            version: row.version.cast_unsigned(),
            created_at: from_millis(u64::try_from(row.created_at).unwrap_or(0)),
            expires_at: from_millis(u64::try_from(row.expires_at).unwrap_or(0)),
            user,
            payload: row.payload.into(),
        };
        Ok((StoreKey::from_bytes(key), record))
    }

    /// The user as the column has it.
    fn stored_user(
        &self,
        operation: &'static str,
        user: Option<&str>,
    ) -> Result<Option<String>, StoreError> {
        let user = user.map(D::user_to_stored);
        match &user {
            Some(user) if user.len() > USER_LIMIT => {
                let words = format!("a user of {} bytes; {USER_LIMIT} are the most", user.len());
                Err(StoreError::permanent(D::STORE, operation, words))
            }
            _ => Ok(user),
        }
    }
}

/// A statement and its values, to be run on a connection, perhaps more than once.
trait AsyncDriver<D: Dialect, R> {
    fn call(
        &self,
        connection: &mut D::Connection,
    ) -> impl Future<Output = Result<R, sqlx::Error>> + Send;
}

struct Execute<'a> {
    statement: &'a str,
    values: &'a [Value<'a>],
}

impl<D: Dialect> AsyncDriver<D, u64> for Execute<'_> {
    fn call(
        &self,
        connection: &mut D::Connection,
    ) -> impl Future<Output = Result<u64, sqlx::Error>> + Send {
        D::execute(connection, self.statement, self.values)
    }
}

struct FetchOne<'a> {
    statement: &'a str,
    values: &'a [Value<'a>],
}

impl<D: Dialect> AsyncDriver<D, Option<Row>> for FetchOne<'_> {
    fn call(
        &self,
        connection: &mut D::Connection,
    ) -> impl Future<Output = Result<Option<Row>, sqlx::Error>> + Send {
        D::fetch_one(connection, self.statement, self.values)
    }
}

struct Fetch<'a> {
    statement: &'a str,
    values: &'a [Value<'a>],
}

impl<D: Dialect> AsyncDriver<D, Vec<Row>> for Fetch<'_> {
    fn call(
        &self,
        connection: &mut D::Connection,
    ) -> impl Future<Output = Result<Vec<Row>, sqlx::Error>> + Send {
        D::fetch(connection, self.statement, self.values)
    }
}

/// What an error of the driver means to whoever has to decide what to do.
fn classify<D: Driver>(operation: &'static str, error: sqlx::Error) -> StoreError {
    let advice = |advice: &str, source| Advice { advice: advice.to_string(), source };
    if D::is_missing_table(&error) {
        let words = "there is no such table: call `migrate`, or make it with the statements in the \
                     documentation";
        return StoreError::permanent(D::STORE, operation, advice(words, error));
    }
    if D::is_too_large(&error) {
        let words = "the record is larger than the server takes";
        return StoreError::permanent(D::STORE, operation, advice(words, error));
    }
    let is_retryable = match &error {
        sqlx::Error::Database(database) => D::is_passing(database.code().as_deref()),
        sqlx::Error::Io(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::WorkerCrashed
        // A connection that ended in the middle of an answer.
        | sqlx::Error::Protocol(_) => true,
        _ => false,
    };
    match is_retryable {
        true => StoreError::new(D::STORE, operation, error),
        false => StoreError::permanent(D::STORE, operation, error),
    }
}

/// The values of a record in the order of its columns, without the key.
fn columns<'a>(record: &'a Record, user: Option<&'a str>) -> [Value<'a>; 5] {
    [
        Value::Int(record.version.cast_signed()),
        Value::Int(stored_millis(record.created_at).cast_signed()),
        Value::Int(stored_millis(record.expires_at).cast_signed()),
        Value::Text(user),
        Value::Bytes(&record.payload),
    ]
}

impl<D: Dialect> Store for SqlStore<D> {
    async fn load(&self, key: &StoreKey) -> Result<Option<Record>, StoreError> {
        let core = &self.core;
        let values = [Value::Bytes(key.as_bytes()), core.now()];
        core.fetch_one("load", &values).await
    }

    async fn create(&self, key: &StoreKey, record: &Record) -> Result<Created, StoreError> {
        let core = &self.core;
        let user = core.stored_user("create", record.user.as_deref())?;
        let [version, created, expires, user, payload] = columns(record, user.as_deref());
        let (key, now) = (Value::Bytes(key.as_bytes()), core.now());
        let values = [key, version, created, expires, user, payload, now];
        // Without a clause for conflicts there is no `now` to bind.
        let values = &values[..if D::INSERT_TAKES_OVER { 7 } else { 6 }];
        let done = match core.execute("create", &core.statements.create, values).await {
            Ok(rows) => rows > 0,
            Err(error) if !D::INSERT_TAKES_OVER && is_duplicate(&error) => {
                let values = [version, created, expires, user, payload, key, now];
                core.execute("create", &core.statements.take_over, &values).await? > 0
            }
            Err(error) => return Err(error),
        };
        Ok(if done { Created::Done } else { Created::Exists })
    }

    async fn replace(
        &self,
        key: &StoreKey,
        record: &Record,
        based_on: u64,
    ) -> Result<Replaced, StoreError> {
        let core = &self.core;
        let user = core.stored_user("replace", record.user.as_deref())?;
        let [version, created, expires, user, payload] = columns(record, user.as_deref());
        let (id, now) = (Value::Bytes(key.as_bytes()), core.now());
        let based_on = Value::Int(based_on.cast_signed());
        if let Some(statement) = &core.statements.replace_unindexed {
            let values = [version, created, payload, id, based_on, now, expires, user];
            if core.execute("replace", statement, &values).await? > 0 {
                return Ok(Replaced::Done);
            }
        }
        let values = [version, created, expires, user, payload, id, based_on, now];
        if core.execute("replace", &core.statements.replace, &values).await? > 0 {
            return Ok(Replaced::Done);
        }
        let found = core.fetch_one("replace", &[id, now]).await?;
        Ok(if found.is_some() { Replaced::Changed } else { Replaced::Missing })
    }

    async fn touch(&self, key: &StoreKey, expires_at: SystemTime) -> Result<(), StoreError> {
        let core = &self.core;
        let expires = Value::Int(stored_millis(expires_at).cast_signed());
        let values = [expires, Value::Bytes(key.as_bytes()), expires, core.now()];
        core.execute("touch", &core.statements.touch, &values).await?;
        Ok(())
    }

    async fn delete(&self, key: &StoreKey) -> Result<bool, StoreError> {
        let core = &self.core;
        let values = [Value::Bytes(key.as_bytes()), core.now()];
        Ok(core.execute("delete", &core.statements.delete, &values).await? > 0)
    }
}

/// Whether it was a key that is in use.
fn is_duplicate(error: &StoreError) -> bool {
    let source = std::error::Error::source(error).and_then(|e| e.downcast_ref::<sqlx::Error>());
    matches!(source, Some(sqlx::Error::Database(error)) if error.is_unique_violation())
}

impl<D: Dialect> DeleteExpired for Core<D> {
    async fn delete_expired(&self, batch: u32) -> Result<u64, StoreError> {
        let values = [self.now(), Value::Int(batch.into())];
        self.execute("delete_expired", &self.statements.delete_expired, &values).await
    }
}

impl<D: Dialect> DeleteExpired for SqlStore<D> {
    async fn delete_expired(&self, batch: u32) -> Result<u64, StoreError> {
        self.core.delete_expired(batch).await
    }
}

impl<D: Dialect> UserIndex for SqlStore<D> {
    async fn sessions_of(&self, user: &str) -> Result<Vec<(StoreKey, Record)>, StoreError> {
        let core = &self.core;
        let user = core.stored_user("sessions_of", Some(user))?;
        let values = [Value::Text(user.as_deref()), core.now()];
        core.fetch("sessions_of", &core.statements.sessions_of, &values).await
    }

    async fn delete_sessions_of(
        &self,
        user: &str,
        except: Option<&StoreKey>,
    ) -> Result<u64, StoreError> {
        let core = &self.core;
        let user = core.stored_user("delete_sessions_of", Some(user))?;
        // No key is empty.
        let except = Value::Bytes(except.map_or(&[], |key| key.as_bytes().as_slice()));
        let values = [Value::Text(user.as_deref()), core.now(), except];
        core.execute("delete_sessions_of", &core.statements.delete_sessions_of, &values).await
    }
}
