//! How a store in a SQL database is made.

use std::{
    fmt,
    sync::{Arc, Mutex},
    time::Duration,
};

use sqlx::Pool;

use super::{
    Dialect, SqlStore,
    calls::{Core, Known},
    errors::cannot_connect,
    line::Line,
    statements::Table,
};
use crate::{clock::Clock, error::store::StoreError, store::ExpirySweep};

/// Makes a [`SqlStore`]; from [`SqlStore::builder`].
#[must_use = "`connect` or `build` makes the store"]
pub struct SqlStoreBuilder<D: Dialect> {
    table: Option<String>,
    sweep_interval: Option<Duration>,
    sweep_batch: u32,
    max_connections: u32,
    timeout: Duration,
    pub(super) in_transactions: bool,
    pub(super) news: D::News,
    clock: Clock,
}

impl<D: Dialect> fmt::Debug for SqlStoreBuilder<D> {
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
    pub(super) fn new() -> Self {
        Self {
            table: None,
            sweep_interval: Some(Duration::from_secs(60)),
            sweep_batch: D::SWEEP_BATCH,
            max_connections: 10,
            timeout: Duration::from_secs(5),
            in_transactions: false,
            news: D::News::default(),
            clock: Clock::System,
        }
    }

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
    /// because no call can save meanwhile.
    pub fn with_sweep_batch(mut self, rows: u32) -> Self {
        self.sweep_batch = rows;
        self
    }

    /// Leaves the removal of expired rows to the application, such as one process for all, or a job
    /// of the database: see [`DeleteExpired`](crate::store::DeleteExpired).
    pub fn without_sweep(mut self) -> Self {
        self.sweep_interval = None;
        self
    }

    /// How many connections [`connect`](Self::connect) opens at most, ten unless told otherwise.
    /// With SQLite it is the connections that read; one writes. See
    /// [how many](SqlStore#how-many-connections) the server has.
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
    pub fn with_clock(mut self, clock: &crate::clock::ManualClock) -> Self {
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
    /// When the table's name or the URL makes no sense, or the server cannot be reached, refuses the
    /// user or has no room for another connection: the error says which.
    pub async fn connect(self, url: &str) -> Result<SqlStore<D>, StoreError> {
        let table = self.table()?;
        let connected = D::connect(url, self.max_connections, self.timeout).await;
        let (read, write) = connected.map_err(|error| cannot_connect::<D>(url, error))?;
        let store = self.assemble(table, read, write, true);
        store.core.manner("connect").await?;
        Ok(store)
    }

    /// On a pool that the application has.
    ///
    /// # Errors
    ///
    /// When the table's name makes no sense.
    pub fn build(self, pool: Pool<D>) -> Result<SqlStore<D>, StoreError> {
        self.table().map(|table| self.assemble(table, pool.clone(), pool, false))
    }

    fn table(&self) -> Result<Table, StoreError> {
        let Some(name) = &self.table else { return Ok(Table::default()) };
        Table::new(name, D::HAS_SCHEMAS).ok_or_else(|| {
            let words = format!("`{}` is not a name for a table", name.escape_debug());
            StoreError::permanent(D::STORE, "build", words)
        })
    }

    pub(super) fn assemble(
        self,
        table: Table,
        read: Pool<D>,
        write: Pool<D>,
        are_ours: bool,
    ) -> SqlStore<D> {
        let mut statements = D::statements(&table);
        D::add_news(&self.news, &mut statements, &table);
        let core = Arc::new(Core {
            statements,
            news: self.news,
            table,
            read,
            write,
            line: Line::default(),
            timeout: self.timeout,
            clock: self.clock,
            asks: !are_ours || !D::CONNECTS_WITHOUT_NEED,
            known: Mutex::new(Known {
                in_transactions: self.in_transactions,
                is_serializable: false,
                chains: false,
                short_until: None,
                asked: None,
                commits: false,
                read_only_since: None,
            }),
        });
        let sweep = self
            .sweep_interval
            .map(|interval| Arc::new(ExpirySweep::start(core.clone(), interval, self.sweep_batch)));
        SqlStore { core, sweep }
    }
}
