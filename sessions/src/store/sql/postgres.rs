//! PostgreSQL: its statements, the settings of a connection, and what its errors mean.
//!
//! Between the store and the server there may be a pooler that gives each transaction another connection, on which a
//! statement that was prepared before is another one or none: `needs_transactions` finds that out.

use std::time::Duration;

use sqlx::{
    AssertSqlSafe, ConnectOptions, Connection, Executor, PgConnection, Pool, Postgres, Row as _,
    error::DatabaseError,
    postgres::{PgConnectOptions, PgDatabaseError, PgPoolOptions},
};

use super::{
    Dialect, SqlStoreBuilder,
    driver::{
        self, Driver, Meaning, Row, Save, Value, is_alive, query, row, run_statements, why_not,
    },
    listen::News,
    statements::{Statement, Statements, Table},
};
use crate::{
    error::store::StoreError,
    identity::id::StoreKey,
    record::Record,
    store::{
        Created, Replaced, SqlStore, Store,
        packed::stored_millis,
        watch::{Feed, Watch, Watcher},
    },
};

impl Dialect for Postgres {}

impl Driver for Postgres {
    const STORE: &'static str = "postgres";
    const HAS_SCHEMAS: bool = true;
    const INSERT_TAKES_OVER: bool = true;
    const SWEEP_BATCH: u32 = 1000;
    const CAN_HANG: bool = true;
    const CONNECTS_WITHOUT_NEED: bool = false;
    // It is one statement: there is nothing to serialize.
    const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED";

    type News = News;

    fn add_news(news: &News, statements: &mut Statements, table: &Table) {
        news.add_to(statements, table);
    }

    fn watcher(news: &News) -> Option<Watcher> {
        news.watcher()
    }

    fn statements(table: &Table) -> Statements {
        let (expires_index, user_index) = (table.index("expires_at"), table.index("user_id"));
        let table = &table.quoted('"');
        let columns = format!(
            "SELECT attname::text FROM pg_attribute WHERE attrelid = to_regclass('{table}') \
             AND attnum > 0 AND NOT attisdropped"
        );
        // One message is one transaction, and the lock is let go of at its end. Without the lock,
        // two `IF NOT EXISTS` at once can both find nothing, and one of them fails; so they would if what comes
        // behind the lock saw the table as it was before.
        //
        // `CREATE INDEX IF NOT EXISTS` waits for every writer of the table before it looks whether the index is
        // there, and all writers who come later wait behind it.
        let migrate = format!(
            "SET TRANSACTION ISOLATION LEVEL READ COMMITTED; \
             SELECT pg_advisory_xact_lock(7310601285309117043); \
             CREATE TABLE IF NOT EXISTS {table} (\
                 id BYTEA NOT NULL PRIMARY KEY, \
                 version BIGINT NOT NULL, \
                 created_at BIGINT NOT NULL, \
                 expires_at BIGINT NOT NULL, \
                 user_id TEXT, \
                 payload BYTEA NOT NULL) WITH (fillfactor = 75); \
             DO $sessions$ BEGIN \
                 IF {} THEN CREATE INDEX \"{expires_index}\" ON {table} (expires_at); END IF; \
                 IF {} THEN CREATE INDEX \"{user_index}\" ON {table} (user_id) \
                     WHERE user_id IS NOT NULL; END IF; \
             END $sessions$;",
            is_missing(table, &expires_index),
            is_missing(table, &user_index),
        );
        // Rows that another process is just removing are its own. In order, so that the index is used
        // whatever the planner thinks of how many there are, and by place, so that a plan made once
        // for all batches has no join that reads the whole table. Places are a partition's own,
        // so in a table of several they say less than the time does.
        let delete_expired = format!(
            "DELETE FROM {table} WHERE ctid = ANY(ARRAY(\
                 SELECT ctid FROM {table} WHERE expires_at <= ? ORDER BY expires_at LIMIT ? \
                 FOR UPDATE SKIP LOCKED)) AND expires_at <= $1"
        );
        let mut common = Statements::new(table, migrate, columns, delete_expired);
        common.replace_together.push(replace_together(table).into());
        common.numbered()
    }

    async fn connect(
        url: &str,
        max_connections: u32,
        timeout: Duration,
    ) -> Result<(Pool<Self>, Pool<Self>), sqlx::Error> {
        // Nothing here is a float, and a pooler may not know the parameter.
        let options = url.parse::<PgConnectOptions>()?.extra_float_digits(None);
        let pool = PgPoolOptions::new()
            .max_connections(max_connections)
            .acquire_timeout(timeout)
            .test_before_acquire(false)
            .before_acquire(|connection, meta| Box::pin(is_alive(connection, meta)));
        match pool.connect_with(options.clone()).await {
            Ok(pool) => Ok((pool.clone(), pool)),
            Err(error) => Err(why_not(&options, timeout, error).await),
        }
    }

    async fn needs_transactions(
        ours: &mut PgConnection,
        pool: &Pool<Self>,
        timeout: Duration,
    ) -> Result<bool, sqlx::Error> {
        // Not of the pool, which may have no second one to give.
        let options = pool.connect_options();
        let other = tokio::time::timeout(timeout, options.connect()).await;
        let Ok(Ok(mut other)) = other else { return Ok(false) };
        // A server has a process for each connection. Two connections have the same one only where a
        // pooler is between.
        let is_shared = backend(ours).await? == backend(&mut other).await?;
        let needs = is_shared && keeps_names(&mut other).await?;
        let _ = other.close().await;
        Ok(needs)
    }

    async fn is_serializable(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
        let level: String = connection.fetch_one("SHOW transaction_isolation").await?.try_get(0)?;
        Ok(level == "serializable")
    }

    async fn commit_open(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
        // A statement outside of a transaction begins one of its own, at the same moment.
        let ask = "SELECT transaction_timestamp() <> statement_timestamp()";
        let is_open = connection.fetch_one(ask).await?.try_get(0)?;
        if is_open {
            connection.execute("COMMIT").await?;
        }
        Ok(is_open)
    }

    async fn replace_together(
        connection: &mut PgConnection,
        statements: &[Statement],
        saves: &[Save],
        now: i64,
        unprepared: bool,
    ) -> Result<Vec<bool>, sqlx::Error> {
        let [statement] = statements else { return Ok(Vec::new()) };
        let each = |value: fn(&Record) -> i64| {
            saves.iter().map(|save| value(&save.record)).collect::<Vec<_>>()
        };
        let based_on: Vec<i64> = saves.iter().map(|save| save.based_on).collect();
        let users: Vec<Option<&str>> = saves.iter().map(|save| save.user.as_deref()).collect();
        let payloads: Vec<&[u8]> = saves.iter().map(|save| &*save.record.payload).collect();
        let rows = sqlx::query(AssertSqlSafe(statement.text(unprepared)))
            .persistent(!unprepared)
            .bind(saves.iter().map(|save| &save.id[..]).collect::<Vec<_>>())
            .bind(based_on)
            .bind(each(|record| record.version.cast_signed()))
            .bind(each(|record| stored_millis(record.created_at).cast_signed()))
            .bind(each(|record| stored_millis(record.expires_at).cast_signed()))
            .bind(users)
            .bind(payloads)
            .bind(now)
            .bind(statement.mark)
            .fetch_all(connection)
            .await?;
        let done = rows.iter().map(|row| row.try_get(0)).collect::<Result<Vec<&[u8]>, _>>()?;
        Ok(saves.iter().map(|save| done.contains(&&save.id[..])).collect())
    }

    run_statements!(String);

    fn meaning(error: &dyn DatabaseError) -> Meaning {
        let routine =
            error.try_downcast_ref::<PgDatabaseError>().and_then(PgDatabaseError::routine);
        meaning(error.code().as_deref().unwrap_or(""), routine.unwrap_or(""), error.message())
    }

    fn user_to_stored(user: &str) -> String {
        user.replace('\\', "\\\\").replace('\0', "\\0")
    }

    fn user_from_stored(user: String) -> Option<String> {
        if !user.contains('\\') {
            return Some(user);
        }
        let mut plain = String::with_capacity(user.len());
        let mut letters = user.chars();
        while let Some(letter) = letters.next() {
            match letter {
                '\\' => match letters.next()? {
                    '\\' => plain.push('\\'),
                    '0' => plain.push('\0'),
                    _ => return None,
                },
                letter => plain.push(letter),
            }
        }
        Some(plain)
    }
}

/// Whether there is nothing of an index's name in the table's schema: what `IF NOT EXISTS` asks, without its lock.
fn is_missing(table: &str, index: &str) -> String {
    format!(
        "NOT EXISTS (SELECT FROM pg_catalog.pg_class AS index, pg_catalog.pg_class AS its \
             WHERE its.oid = '{table}'::regclass AND index.relname = '{index}' \
             AND index.relnamespace = its.relnamespace)"
    )
}

/// Each list is one value: so it is one statement for any number of saves.
///
/// First it locks the rows that nobody else has locked, and then changes those: it waits for no row, so that a
/// save which has to wait keeps none of the others waiting, and it is in no deadlock.
fn replace_together(table: &str) -> String {
    format!(
        "WITH free AS (SELECT ctid FROM {table} WHERE id = ANY($1) FOR UPDATE SKIP LOCKED), \
         done AS (UPDATE {table} AS old SET version = new.version, created_at = new.created_at, \
             expires_at = new.expires_at, user_id = new.user_id, payload = new.payload \
             FROM unnest(?::bytea[], ?::bigint[], ?::bigint[], ?::bigint[], ?::bigint[], ?::text[], \
                 ?::bytea[]) AS new \
                 (id, based_on, version, created_at, expires_at, user_id, payload) \
             WHERE old.id = new.id AND old.version = new.based_on AND old.expires_at > ? \
                 AND old.ctid = ANY(ARRAY(SELECT ctid FROM free)) RETURNING old.id) \
         SELECT id FROM done WHERE true"
    )
}

/// Which process of the server answers.
async fn backend(connection: &mut PgConnection) -> Result<i32, sqlx::Error> {
    let row = connection.fetch_one("SELECT pg_backend_pid()").await?;
    row.try_get(0)
}

/// Whether what is prepared here has the driver's own name at the server. A pooler that knows of
/// prepared statements gives them names of its own.
async fn keeps_names(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    let mut transaction = connection.begin().await?;
    let prepared = sqlx::query("SELECT 7310601285309117043").execute(&mut *transaction).await;
    match prepared {
        Ok(_) => {}
        // Another client has prepared something under that name.
        Err(error) if driver::meaning::<Postgres>(&error) == Some(Meaning::OtherStatement) => {
            return Ok(true);
        }
        Err(error) => return Err(error),
    }
    let find = "SELECT quote_ident(name) FROM pg_prepared_statements \
                WHERE statement = 'SELECT 7310601285309117043' AND starts_with(name, 'sqlx_s_')";
    let found = transaction.fetch_all(find).await?;
    // It would stay, and be in the way of other calls.
    for row in &found {
        let name: String = row.try_get(0)?;
        // In quotes where its letters ask for it.
        transaction.execute(AssertSqlSafe(format!("DEALLOCATE {name}"))).await?;
    }
    transaction.rollback().await?;
    Ok(!found.is_empty())
}

impl SqlStoreBuilder<Postgres> {
    /// Lets a [`NearCache`](crate::store::NearCache) be put before the store. [`migrate`](crate::store::SqlStore::migrate)
    /// then puts a trigger on the table that notifies of each change, and the store listens on a connection
    /// of its own beside the pool. See [`PostgresStore`](crate::PostgresStore#near-cache).
    pub fn with_notifications(mut self) -> Self {
        self.news = News::wanted(None);
        self
    }

    /// [`with_notifications`](Self::with_notifications), listening at another URL than the pool's: past a
    /// pooler in `pool_mode = transaction`, to the same database. A URL that makes no sense is an error of
    /// the cache's [`build`](crate::store::NearCacheBuilder::build).
    pub fn with_notifications_from(mut self, url: &str) -> Self {
        self.news = News::wanted(Some(url));
        self
    }

    /// Prepares no statements, and makes each statement a transaction of its own: for a pooler that
    /// gives each transaction another connection to the server and does not know of prepared
    /// statements, such as PgBouncer before 1.21 with `pool_mode = transaction`. A load is then four
    /// round trips instead of one.
    ///
    /// The store recognises such a pooler by itself, at the latest by the first statement that the
    /// pooler leads astray: this only tells it before.
    /// See [`PostgresStore`](crate::PostgresStore#behind-a-pooler).
    pub fn without_prepared_statements(mut self) -> Self {
        self.in_transactions = true;
        self
    }
}

impl Watch for SqlStore<Postgres> {
    fn watch(&self, watcher: &Watcher) -> Result<(), StoreError> {
        self.core.news.watch(watcher)
    }

    async fn load_watched(
        &self,
        key: &StoreKey,
    ) -> Result<(Option<Record>, Option<Feed>), StoreError> {
        // Before the question: a change after the answer's snapshot is told there.
        let feed = self.core.feed();
        Ok((self.load(key).await?, feed))
    }

    async fn create_watched(
        &self,
        key: &StoreKey,
        record: &Record,
    ) -> Result<(Created, Option<Feed>), StoreError> {
        let feed = self.core.feed();
        Ok((self.create_untold(key, record).await?, feed))
    }

    async fn replace_watched(
        &self,
        key: &StoreKey,
        record: &Record,
        based_on: u64,
    ) -> Result<(Replaced, Option<Feed>), StoreError> {
        let feed = self.core.feed();
        Ok((self.replace_untold(key, record, based_on).await?, feed))
    }

    async fn renew(&self, feed: &Feed) {
        self.core.confirm(feed).await;
    }
}

/// What a SQLSTATE means: <https://www.postgresql.org/docs/current/errcodes-appendix.html>.
///
/// The server's words are in its own language (`lc_messages`), the name of the `routine` that says them is in none.
fn meaning(code: &str, routine: &str, message: &str) -> Meaning {
    match code {
        "42P01" => Meaning::NoTable,
        "3F000" if routine == "RangeVarGetCreationNamespace" => Meaning::NoSearchPath,
        "3F000" => Meaning::NoSchema,
        "42703" => Meaning::NoColumn,
        // A limit of the program, such as a value of a gigabyte.
        "54000" => Meaning::TooLarge,
        "42501" if message.contains("for schema") => Meaning::SchemaDenied,
        "42501" => Meaning::Denied,
        // Serialization failure, deadlock.
        "40001" | "40P01" => Meaning::InTheWay,
        "25006" => Meaning::ReadOnly,
        // The table has changed since the statement was prepared.
        "0A000" if routine == "RevalidateCachedQuery" => Meaning::Stale,
        // No such statement, one of that name already, values of another kind, the mark of another.
        "26000" | "42P05" | "22P03" | "22012" => Meaning::OtherStatement,
        "08P01" if routine == "exec_bind_message" => Meaning::OtherStatement,
        "08P01" if message.starts_with("unsupported startup parameter") => Meaning::Parameter,
        // All that PgBouncer has to say has this code, whether it passes or not.
        "08P01" => match PASSING_AT_PGBOUNCER.iter().any(|words| message.contains(words)) {
            true => Meaning::Passing,
            false => Meaning::Lasting,
        },
        "53300" => Meaning::Crowded,
        // The database has been dropped.
        "57P04" => Meaning::Lasting,
        // Ended, because a transaction was left open.
        "25P03" => Meaning::Passing,
        // Connection, transaction rollback, resources, lock not available, operator's intervention
        // (shutdown, `pg_terminate_backend`, statement timeout), system error.
        _ => match ["08", "40", "53", "55", "57", "58"].iter().any(|class| code.starts_with(class))
        {
            true => Meaning::Passing,
            false => Meaning::Lasting,
        },
    }
}

/// Parts of what PgBouncer says when it is busy, or its server is away.
const PASSING_AT_PGBOUNCER: [&str; 8] = [
    "timeout",
    "no more connections allowed",
    "server conn",
    "server login has been failing",
    "server lifetime over",
    "server DNS lookup failed",
    "shutting down",
    "the database system is",
];

#[cfg(test)]
mod tests {
    use super::*;

    /// As the servers say it: PostgreSQL 15, PgBouncer 1.18.
    #[test]
    fn what_answers_mean() {
        use Meaning::*;
        for (code, routine, message, expected) in [
            ("42P01", "", "relation \"sessions\" does not exist", NoTable),
            ("3F000", "RangeVarGetCreationNamespace", "no schema has been selected", NoSearchPath),
            ("3F000", "get_namespace_oid", "schema \"web\" does not exist", NoSchema),
            ("42703", "", "column \"expires_at\" does not exist", NoColumn),
            ("54000", "", "out of memory", TooLarge),
            ("42501", "", "permission denied for table sessions", Denied),
            ("42501", "", "must be owner of table sessions", Denied),
            ("42501", "", "permission denied for schema web", SchemaDenied),
            ("40001", "", "could not serialize access due to concurrent update", InTheWay),
            ("40P01", "", "deadlock detected", InTheWay),
            ("25006", "", "cannot execute UPDATE in a read-only transaction", ReadOnly),
            ("0A000", "RevalidateCachedQuery", "cached plan must not change result type", Stale),
            (
                "0A000",
                "RevalidateCachedQuery",
                "gecachter Plan darf den Ergebnistyp nicht ändern",
                Stale,
            ),
            ("0A000", "", "cross-database references are not implemented", Lasting),
            ("26000", "", "prepared statement \"sqlx_s_1\" does not exist", OtherStatement),
            ("42P05", "", "prepared statement \"sqlx_s_1\" already exists", OtherStatement),
            ("22P03", "", "incorrect binary data format in bind parameter 1", OtherStatement),
            ("22012", "", "division by zero", OtherStatement),
            ("08P01", "exec_bind_message", "bind message supplies 3 parameters", OtherStatement),
            ("08P01", "exec_bind_message", "Bind-Nachricht enthält 3 Parameter", OtherStatement),
            ("08P01", "", "unsupported startup parameter: extra_float_digits", Parameter),
            ("08P01", "", "unsupported startup parameter: options", Parameter),
            ("08P01", "", "database \"shop\" does not exist", Lasting),
            ("08P01", "", "no such database: shop", Lasting),
            ("08P01", "", "no such user: shop", Lasting),
            ("08P01", "", "bouncer config error", Lasting),
            ("08P01", "", "invalid message format", Lasting),
            ("08P01", "", "query_wait_timeout", Passing),
            ("08P01", "", "client_login_timeout (server down)", Passing),
            ("08P01", "", "no more connections allowed (max_client_conn)", Passing),
            ("08P01", "", "server conn crashed?", Passing),
            ("08P01", "", "server login has been failing, try again later", Passing),
            ("08006", "", "connection failure", Passing),
            ("28P01", "", "password authentication failed for user \"shop\"", Lasting),
            ("28000", "", "no pg_hba.conf entry for host", Lasting),
            ("3D000", "", "database \"shop\" does not exist", Lasting),
            ("53300", "", "sorry, too many clients already", Crowded),
            ("53300", "", "too many connections for role \"shop\"", Crowded),
            ("53100", "", "could not extend file: No space left on device", Passing),
            ("53200", "", "out of memory", Passing),
            ("55P03", "", "canceling statement due to lock timeout", Passing),
            ("57014", "", "canceling statement due to statement timeout", Passing),
            ("57P01", "", "terminating connection due to administrator command", Passing),
            ("57P02", "", "terminating connection because of crash", Passing),
            ("57P03", "", "the database system is starting up", Passing),
            ("57P04", "", "database was dropped", Lasting),
            ("57P05", "", "terminating connection due to idle-session timeout", Passing),
            ("25P03", "", "terminating connection due to idle-in-transaction timeout", Passing),
            ("58030", "", "could not write to file", Passing),
            ("23505", "", "duplicate key value violates unique constraint", Lasting),
            ("22021", "", "invalid byte sequence for encoding \"UTF8\": 0x00", Lasting),
            ("42804", "", "column \"payload\" is of type text", Lasting),
            ("XX000", "", "cache lookup failed", Lasting),
            ("", "", "", Lasting),
        ] {
            assert_eq!(meaning(code, routine, message), expected, "{code} {message}");
        }
    }

    #[test]
    fn every_user_comes_back_and_none_has_a_nul() {
        for user in ["", "ann", "\0", "\\0", "\\\0\\", "a\\b\0c\\\\0", "日本 ë 🦀"] {
            let stored = Postgres::user_to_stored(user);
            assert!(!stored.contains('\0'));
            assert_eq!(Postgres::user_from_stored(stored).as_deref(), Some(user));
        }
        for wrong in ["\\", "a\\n"] {
            assert_eq!(Postgres::user_from_stored(wrong.to_string()), None, "{wrong}");
        }
    }
}
