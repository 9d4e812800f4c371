//! Sessions in a table of a SQL database.
//!
//! One implementation for three databases. What differs is in a [`Dialect`]'s file: its statements,
//! its table, how it is connected to and what its errors mean.

use std::{fmt, ops::ControlFlow, sync::Arc, time::SystemTime};

use sqlx::Pool;

pub use self::builder::SqlStoreBuilder;
use self::{
    calls::Core,
    driver::{Driver, Meaning, Save, Value},
    statements::Table,
    together::Place,
};
use super::{
    AllSessions, Created, DeleteExpired, DynUserIndex, ExpirySweep, Replaced, Store, UserIndex,
    packed::stored_millis, watch::Around,
};
use crate::{error::store::StoreError, identity::id::StoreKey, record::Record};

mod builder;
mod calls;
mod driver;
mod errors;
mod line;
#[cfg(feature = "postgres")]
mod listen;
#[cfg(feature = "mysql")]
mod mysql;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "sqlite")]
mod sqlite;
mod statements;
mod together;

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
/// cannot be read any more, because the disk fails or the file was cut short, ends the
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
/// **Do not open the file yourself while the store is in use**, not even to read or copy it: when your process closes it,
/// the system takes SQLite's locks away. The next process that looks at the database then deletes the log in which
/// this one goes on writing, and what was saved since is gone with the process. `VACUUM INTO 'copy.db'` makes a copy, and
/// so does `sqlite3 sessions.db '.backup copy.db'`, a process of its own.
///
/// The file must be on a local disk. With `sqlite::memory:` the sessions end with the store; on a pool of the
/// application's, table and sessions end with the last connection, which sqlx closes after ten minutes in which nobody
/// has asked: give the pool `idle_timeout(None)` and `max_lifetime(None)`.
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
/// A role that only uses the table needs SELECT, INSERT, UPDATE and DELETE on it, and USAGE on its
/// schema; one that makes it needs CREATE on the schema.
///
/// Every save that was acknowledged survives what the server survives: a crash as well, unless you
/// have turned `synchronous_commit` off. With a synchronous standby that is away, a save waits for it:
/// [the store's timeout](SqlStoreBuilder::with_timeout) gives the call up, `statement_timeout` does not, and a
/// connection of the server waits on, one for each such call. `ALTER ROLE app SET synchronous_commit = local` has
/// sessions wait for no standby.
///
/// # Where transactions are serializable
///
/// Where `default_transaction_isolation` is `serializable`, for the server, the database, the role or on a pool of
/// the application's, PostgreSQL would refuse saves of sessions that have nothing to do with each other, because one
/// reads the pages that another one writes. When it is first used the store looks whether that is so, and then makes
/// each call a `READ COMMITTED` transaction of its own, in three round trips. A role of the store's own can have one
/// again: `ALTER ROLE app SET default_transaction_isolation = 'read committed'`.
///
/// # Behind a pooler
///
/// - **PgBouncer with `pool_mode = session`**: as without one.
/// - **PgBouncer from 1.21 with `pool_mode = transaction`** and `max_prepared_statements` above zero
///   (200 by default from 1.24): as without one.
/// - **PgBouncer before 1.21 with `pool_mode = transaction`**, or `max_prepared_statements = 0`: works,
///   and is slower. What the driver has prepared stays with the connection to the server, which the next
///   transaction of another client gets. The store recognises this when it is connected or first used,
///   and then makes each call a transaction of its own without named statements, in four round trips.
///   If it shows only later, a statement that was led astray is refused by the server before it does
///   anything, is sent again in a transaction, and a warning in the log tells of the change: each
///   statement carries a mark that no other statement has, of this table or another.
///   [`without_prepared_statements`](SqlStoreBuilder::without_prepared_statements) says so from the
///   start. Statements of the application that go the same way with prepared statements have no such
///   marks.
/// - **`pool_mode = statement`** does not work: it allows no transactions.
/// - `ignore_startup_parameters = extra_float_digits` is what PgBouncer needs for a pool of your own,
///   because sqlx sends that parameter unless `PgConnectOptions::extra_float_digits(None)` has turned it
///   off, as [`connect`](SqlStore::connect) does. Without it each connection is refused with 08P01,
///   which is an error that names the parameter and is not retryable. The same goes for `options` in
///   the URL: name a schema by [`with_table`](SqlStoreBuilder::with_table) instead of a `search_path`.
/// - **Pgpool-II with `backend_clustering_mode = 'raw'`** (seen with 4.3): it begins a transaction for
///   what is prepared to write, and never ends it, so that nothing is committed. The store looks
///   whether its first write is, and if not, commits it and makes each call a transaction of its own.
/// - **Pgpool-II with `streaming_replication` and `load_balance_mode = on`** sends loads to standbys, which
///   are behind: a request may not see what the one before it saved. Turn it off for this database
///   (`database_redirect_preference_list`), or connect to the primary.
/// - `LISTEN`, for a [near cache](#near-cache), needs a connection to the server of its own, which
///   transaction pooling does not give: listen past the pooler with
///   [`with_notifications_from`](SqlStoreBuilder::with_notifications_from).
///
/// # Near cache
///
/// ```no_run
/// # async fn start() -> Result<(), Box<dyn std::error::Error>> {
/// use sessions::{PostgresStore, store::NearCache};
///
/// let url = "postgres://app:secret@db.example/app";
/// let store = PostgresStore::builder().with_notifications().connect(url).await?;
/// store.migrate().await?;
/// let store = NearCache::new(store)?;
/// # Ok(())
/// # }
/// ```
///
/// With [`with_notifications`](SqlStoreBuilder::with_notifications), `migrate` also puts the triggers
/// `sessions_changed` and `sessions_changed_all` with their function on the table ([`schema`](SqlStore::schema)
/// shows them; a role that only uses the table needs no more rights for them). They notify of each row that
/// is changed or removed, by whomever, also by a process that has no near cache, on the channel
/// `sessions_changed`: its key, version and expiry. What that costs:
///
/// - **Every commit of a save takes a lock that all notifying commits of the server share**, also those of other
///   applications in other databases: they are written to the disk, and to a synchronous standby, one after
///   another. Saves of one process that come at the same time [go together](SqlStore#round-trips),
///   and share a commit; those of many processes, and saves that each come alone, do not.
/// - Each process hears of every change, and has one more connection.
/// - While there are requests, a process that has a cache notifies itself twice in a staleness.
///
/// The last of these is the proof that nothing is missing: such a notification goes over the pool, and has to
/// arrive on the connection that listens. While it does not, because a pooler passes none on, the two lead to
/// different servers, or the trigger is gone or off, everything is loaded; the log has one warning that says
/// why, and once a minute it is tried again. An operator who writes to the table by hand raises the `version` of the
/// row; a connection with `session_replication_role = replica` notifies of nothing.
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
/// ) ENGINE = InnoDB ROW_FORMAT = DYNAMIC;
/// ```
///
/// A user that only uses the table needs SELECT, INSERT, UPDATE and DELETE on it; one that makes it
/// needs CREATE and INDEX on the database.
///
/// A payload larger than the server's `max_allowed_packet` is an error. Every save that was
/// acknowledged survives what the server survives: a crash as well, unless you have changed
/// `innodb_flush_log_at_trx_commit`.
///
/// Each call is committed, whatever the server's `autocommit` is: the store's own connections turn it
/// on, and on a pool of the application's, where it is off, each call is a transaction of its own, which
/// leaves the connections as they are and takes more round trips. So it is where `completion_type` is `CHAIN`, as what
/// the application commits begins a transaction there. Whether it is so is asked when the store is first used, and
/// then once a minute.
///
/// The store's own connections are READ COMMITTED, unless the server has a log of statements
/// (`binlog_format = STATEMENT`), which takes no write of that level: on a pool of the application's that insists on
/// it, each save is an error. Where `max_prepared_stmt_count` is reached, connections forget what they have prepared; a
/// store prepares a dozen statements on each connection.
#[cfg(feature = "mysql")]
pub type MySqlStore = SqlStore<sqlx::MySql>;

/// A database that sessions can be kept in: `sqlx::Sqlite`, `sqlx::Postgres`, `sqlx::MySql`.
///
/// Other crates cannot implement it.
pub trait Dialect: Driver {}

/// Sessions in a table of a SQL database: [`SqliteStore`], [`PostgresStore`], [`MySqlStore`].
///
/// From a URL, or on a pool that the application has:
///
/// ```no_run
/// # #[cfg(feature = "sqlite")]
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
///
/// use sessions::SqliteStore;
///
/// let pool = sqlx::SqlitePool::connect("sqlite:shop.db?mode=rwc").await?;
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
/// [`migrate`](Self::migrate) makes it; an application with migrations of its own finds the statements at
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
/// the other writes leave its indexes alone. Statements are prepared once a connection.
///
/// In PostgreSQL and MariaDB, `replace`s that come while others are on their way go together, as soon as one
/// of those is answered: up to 64 sessions in one statement and one commit (MariaDB: in three round trips), which
/// is about half of the work for the server and this process. A `replace` that finds none on its way goes at once.
/// Each remains a compare-and-swap with a result of its own: one that does not match, or finds its row locked,
/// goes once more by itself. None waits for others longer than 50 milliseconds, after which it goes by itself; so
/// do those that come then, until one in front is answered, and a record above 64 kilobytes. If the common answer
/// is lost, each `replace` fails as if it had been alone. A task on the runtime of one of the callers sends them: on a
/// runtime that nobody drives, such as between two `block_on`s of a current-thread runtime, an answer may be
/// missing, which is an error after three times the [timeout](SqlStoreBuilder::with_timeout).
/// Where each call has to be a transaction of its own, and in MySQL, they go one by one.
///
/// [`connect`](Self::connect) asks a connection whether it is alive only after a second of idling; on a
/// pool of your own, sqlx asks before each statement unless you turn `test_before_acquire` off. When a connection
/// is given back, sqlx asks once more, for which no call waits, but the next one that is given that connection does:
/// far from the server, a pool carries half of what its number of connections suggests.
/// Where each call has to be a transaction of its own (PostgreSQL behind some poolers or where transactions are
/// serializable, MySQL without `autocommit`: see the store's type), a statement takes three round trips, and behind a
/// pooler four or five.
///
/// # Expiry and the sweep
///
/// Whether a record has expired is decided by this process's clock, in the statement itself; the
/// server's clock is never asked. Processes whose clocks differ disagree about a session's end by
/// that difference, and about nothing else.
///
/// Rows of expired sessions are removed in batches on a schedule, by each process, in turns that
/// do not wait for each other. It starts when the store is made, again with the next call if its runtime has ended, and
/// ends with the store's last clone;
/// [`with_sweep_interval`](SqlStoreBuilder::with_sweep_interval) and
/// [`without_sweep`](SqlStoreBuilder::without_sweep) are its switches.
///
/// # Errors
///
/// A lost connection, a pool without a free connection, a server with too many connections, a timeout,
/// a database that is locked, and a deadlock that came back five times are
/// [retryable](StoreError::is_retryable). After a restart of the server each connection that was just
/// in use fails once, and is replaced. A call that the server does not answer
/// [in time](SqlStoreBuilder::with_timeout) is an error, and its connection is closed.
///
/// A missing right, table, schema or column is not retryable, nor is a pool that was closed; the error says which.
///
/// # Failover
///
/// Where an address moves to another server (a virtual IP, HAProxy, DNS) and the old one goes on as a
/// read-only one, connections stay where they were. The first write that the old server refuses
/// (PostgreSQL 25006; MySQL 1290, 1792, 1836; Galera 1047) closes the connection and the connections that no call
/// uses, on a pool of the application's as well, and is sent again on a new one. If that leads to a server
/// that takes no writes either, calls fail with a retryable error, and once a second one of them tries
/// new connections. Until the first write, loads read what the old server has: let a failover cut the
/// connections to it (HAProxy: `on-marked-down shutdown-sessions`) where that can be had.
///
/// # How many connections
///
/// The pools of all processes together must stay below what the server takes: `max_connections` (100
/// in PostgreSQL, three of them for administrators; 151 in MySQL and MariaDB), and the limit of the role
/// or user, if it has one. A store takes up to ten, so ten processes ask for all that PostgreSQL gives;
/// and during a rolling deploy the old processes still have theirs. More connections than a few for each
/// core of the server make nothing faster: divide what the server has by the number of processes, and
/// set [`with_max_connections`](SqlStoreBuilder::with_max_connections) below that.
///
/// # In tests with a paused clock
///
/// A pool waits for connections by tokio's clock. With `start_paused = true` or `tokio::time::pause`,
/// the clock jumps to the end of that wait as soon as the runtime has nothing else to do, although the
/// server is just about to answer: calls fail with `PoolTimedOut` or "no answer". Let sessions expire
/// by `with_clock` (feature `testing`) instead, or use a [`MemoryStore`](crate::MemoryStore).
///
/// # Cancellation
///
/// A future that is dropped may have been carried out or not, never in part; of `replace`s that go together
/// only its own is concerned. With MySQL and MariaDB its
/// connection is closed, because sqlx 0.9 would leave the rest of the answer for the next call; with
/// PostgreSQL it is, if the server has not answered for a second.
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
    /// When the URL makes no sense, or the server cannot be reached, refuses the user or has no room
    /// for another connection: the error says which. A server that is just starting is waited for, as
    /// long as [`with_timeout`](SqlStoreBuilder::with_timeout) says.
    pub async fn connect(url: &str) -> Result<Self, StoreError> {
        Self::builder().connect(url).await
    }

    /// On a pool that the application has, in the table `sessions`.
    pub fn new(pool: Pool<D>) -> Self {
        let builder = Self::builder();
        let table = Table::default();
        builder.assemble(table, pool.clone(), pool, false)
    }

    /// To set the table, the sweep, the pool's size or the timeout.
    pub fn builder() -> SqlStoreBuilder<D> {
        SqlStoreBuilder::new()
    }

    /// Makes the table and its indexes, if they are not there. Any number of processes may call it
    /// at once.
    ///
    /// It never changes a table that is there, and needs no right to make one then: a role that may
    /// only use the table can call it as well. (It cannot make an index that is missing.)
    ///
    /// # Errors
    ///
    /// Besides what every call can meet: the role may not make the table; no schema of the
    /// `search_path` is there to make it in, or the table's own schema is missing; there is a table of
    /// that name with other columns. None of these is [retryable](StoreError::is_retryable).
    pub async fn migrate(&self) -> Result<(), StoreError> {
        let core = &self.core;
        let Err(error) = core.script("migrate", &core.statements.migrate).await else {
            return core.check_columns(None).await;
        };
        let Some(answer) = error.answer else { return Err(error.told) };
        match answer {
            // What may not be made may be there. (A server that takes no writes has no other answer.)
            Meaning::Denied | Meaning::SchemaDenied | Meaning::ReadOnly | Meaning::NoColumn => {
                core.check_columns(Some(error.told)).await
            }
            _ => Err(error.told),
        }
    }

    /// What all calls go through: the sweep may have ended with its runtime.
    fn core(&self) -> &Arc<Core<D>> {
        if let Some(sweep) = &self.sweep {
            sweep.ensure_running();
        }
        &self.core
    }

    /// The statements that [`migrate`](Self::migrate) runs.
    pub fn schema(&self) -> &str {
        &self.core.statements.migrate
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
        let core = self.core();
        let values = [Value::Bytes(key.as_bytes()), core.now()];
        core.fetch_one("load", &values).await
    }

    async fn create(&self, key: &StoreKey, record: &Record) -> Result<Created, StoreError> {
        let _around = self.around(key);
        self.create_untold(key, record).await
    }

    async fn replace(
        &self,
        key: &StoreKey,
        record: &Record,
        based_on: u64,
    ) -> Result<Replaced, StoreError> {
        let _around = self.around(key);
        self.replace_untold(key, record, based_on).await
    }

    async fn touch(&self, key: &StoreKey, expires_at: SystemTime) -> Result<(), StoreError> {
        let _around = self.around(key);
        let core = self.core();
        let expires = Value::Int(stored_millis(expires_at).cast_signed());
        let values = [expires, Value::Bytes(key.as_bytes()), expires, core.now()];
        core.execute("touch", &core.statements.touch, &values).await?;
        Ok(())
    }

    async fn delete(&self, key: &StoreKey) -> Result<bool, StoreError> {
        let _around = self.around(key);
        let core = self.core();
        let values = [Value::Bytes(key.as_bytes()), core.now()];
        Ok(core.execute("delete", &core.statements.delete, &values).await? > 0)
    }

    async fn delete_version(&self, key: &StoreKey, version: u64) -> Result<bool, StoreError> {
        let _around = self.around(key);
        let core = self.core();
        let version = Value::Int(version.cast_signed());
        let values = [Value::Bytes(key.as_bytes()), version, core.now()];
        Ok(core.execute("delete", &core.statements.delete_version, &values).await? > 0)
    }

    fn user_index(&self) -> Option<&dyn DynUserIndex> {
        Some(self)
    }
}

impl<D: Dialect> SqlStore<D> {
    /// What a near cache is told while this store changes a record, if there is one.
    fn around(&self, key: &StoreKey) -> Option<Around> {
        D::watcher(&self.core.news).map(|watcher| watcher.around(key))
    }

    async fn create_untold(&self, key: &StoreKey, record: &Record) -> Result<Created, StoreError> {
        let core = self.core();
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

    async fn replace_untold(
        &self,
        key: &StoreKey,
        record: &Record,
        based_on: u64,
    ) -> Result<Replaced, StoreError> {
        let core = self.core();
        let user = core.stored_user("replace", record.user.as_deref())?;
        let place = core.place(record.payload.len(), || Save {
            id: *key.as_bytes(),
            record: record.clone(),
            user: user.clone(),
            based_on: based_on.cast_signed(),
        });
        // Until this save's answer: those that come meanwhile wait for it, and then go together.
        let _turn = match place {
            Place::Turn(turn) => Some(turn),
            Place::Alone => None,
            Place::Waits(ticket) => match ticket.answer().await {
                Ok(answer) => return answer,
                Err(turn) => turn,
            },
        };
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
        self.core().delete_expired(batch).await
    }
}

impl<D: Dialect> AllSessions for SqlStore<D> {
    async fn for_each(
        &self,
        mut visit: impl FnMut(StoreKey, Record) -> ControlFlow<()> + Send,
    ) -> Result<(), StoreError> {
        /// How many rows are fetched at once.
        const PAGE: usize = 500;
        let core = self.core();
        // All keys are greater, which are longer. Nothing at all would be NULL in a MariaDB with `sql_mode =
        // EMPTY_STRING_IS_NULL`, and nothing greater than that.
        let mut after = vec![0];
        loop {
            let values = [Value::Bytes(&after), core.now(), Value::Int(PAGE as i64)];
            let found = core.fetch("for_each", &core.statements.page, &values).await?;
            let is_last = found.len() < PAGE;
            // By key inside of the statement, and in any order outside.
            after = found.iter().map(|(key, _)| key.as_bytes().to_vec()).max().unwrap_or_default();
            for (key, record) in found {
                if visit(key, record).is_break() {
                    return Ok(());
                }
            }
            if is_last {
                return Ok(());
            }
        }
    }
}

impl<D: Dialect> UserIndex for SqlStore<D> {
    async fn sessions_of(&self, user: &str) -> Result<Vec<(StoreKey, Record)>, StoreError> {
        let core = self.core();
        let user = core.stored_user("sessions_of", Some(user))?;
        let values = [Value::Text(user.as_deref()), core.now()];
        core.fetch("sessions_of", &core.statements.sessions_of, &values).await
    }

    async fn delete_sessions_of(
        &self,
        user: &str,
        except: Option<&StoreKey>,
    ) -> Result<u64, StoreError> {
        let core = self.core();
        // The server's word of them comes a moment after the answer.
        let mut around = Vec::new();
        if let Some(watcher) = D::watcher(&core.news) {
            let found = self.sessions_of(user).await?;
            around.extend(found.iter().map(|(key, _)| watcher.around(key)));
        }
        let user = core.stored_user("delete_sessions_of", Some(user))?;
        // No key is as short. (Nothing at all may be NULL, as in `for_each`.)
        let except = Value::Bytes(except.map_or(&[0], |key| key.as_bytes().as_slice()));
        let values = [Value::Text(user.as_deref()), core.now(), except];
        core.execute("delete_sessions_of", &core.statements.delete_sessions_of, &values).await
    }
}
