//! SQLite: its statements, the settings of a file, and what its result codes mean.
//!
//! A file has one writer at a time, so that one connection writes and a few read; with a WAL neither side waits for the
//! other. A database in memory is one connection.

use std::{sync::Mutex, time::Duration};

use sqlx::{
    ConnectOptions, Pool, Sqlite, SqliteConnection,
    error::DatabaseError,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use tokio::time::{Instant, sleep};

use super::{
    Dialect,
    calls::{RETRIES, pause},
    driver::{self, Driver, Meaning, Row, Value, query, row, run_statements, why_not},
    statements::{Statement, Statements, Table},
};

/// How many connections read, at most: more do not make a file faster.
const READERS: u32 = 4;

/// How much of the file the connection that writes remembers, in kibibytes: a save touches pages of
/// the table and of two or three indexes, all over the file. SQLite's own is 2000.
const WRITER_CACHE: u32 = 16_000;

/// How many bytes of the file are mapped into memory for reading, at most. What all sessions together
/// need is in the system's cache anyhow: so it is not copied into that of each connection.
const MAPPED: u32 = 1 << 30;

impl Dialect for Sqlite {}

impl Driver for Sqlite {
    const STORE: &'static str = "sqlite";
    const HAS_SCHEMAS: bool = false;
    const INSERT_TAKES_OVER: bool = true;
    // While the batch is removed no other call can save.
    const SWEEP_BATCH: u32 = 100;
    const CAN_HANG: bool = false;
    const CONNECTS_WITHOUT_NEED: bool = true;

    type News = ();

    fn statements(table: &Table) -> Statements {
        let (expires_index, user_index) = (table.index("expires_at"), table.index("user_id"));
        let table = &table.quoted('"');
        let migrate = format!(
            "CREATE TABLE IF NOT EXISTS {table} (\
                 id BLOB NOT NULL PRIMARY KEY, \
                 version INTEGER NOT NULL, \
                 created_at INTEGER NOT NULL, \
                 expires_at INTEGER NOT NULL, \
                 user_id TEXT, \
                 payload BLOB NOT NULL); \
             CREATE INDEX IF NOT EXISTS \"{expires_index}\" ON {table} (expires_at); \
             CREATE INDEX IF NOT EXISTS \"{user_index}\" ON {table} (user_id) \
                 WHERE user_id IS NOT NULL;"
        );
        let columns = format!("SELECT name FROM pragma_table_info('{}')", table.trim_matches('"'));
        let delete_expired = format!(
            "DELETE FROM {table} WHERE rowid IN \
             (SELECT rowid FROM {table} WHERE expires_at <= ? LIMIT ?)"
        );
        // SQLite writes the index of every column that is set, whether the value is new or not.
        let replace_unindexed = format!(
            "UPDATE {table} SET version = ?, created_at = ?, payload = ? WHERE id = ? \
             AND version = ? AND expires_at > ? AND expires_at = ? AND user_id IS ?"
        );
        Statements {
            replace_unindexed: Some(replace_unindexed.into()),
            ..Statements::new(table, migrate, columns, delete_expired)
        }
    }

    async fn connect(
        url: &str,
        max_connections: u32,
        timeout: Duration,
    ) -> Result<(Pool<Self>, Pool<Self>), sqlx::Error> {
        // Long: the two kinds of database, each with the reasons for its settings.
        let options: SqliteConnectOptions = url.parse()?;
        let in_memory = options.get_filename().as_os_str().is_empty()
            || url.contains(":memory:")
            || url.contains("mode=memory");
        let options = options.create_if_missing(true).busy_timeout(timeout);
        // There is no network between us that could have lost a connection.
        let pool = SqlitePoolOptions::new().acquire_timeout(timeout).test_before_acquire(false);
        if in_memory {
            // The sessions last as long as a connection to them, and the pool may replace its own
            // after a call that was dropped. So it keeps one more, which no call uses.
            let anchor = Mutex::new(options.connect().await?);
            let pool = pool.max_connections(1).after_connect(move |_, _| {
                let _ = &anchor;
                Box::pin(async { Ok(()) })
            });
            let pool = pool.connect_with(options).await?;
            return Ok((pool.clone(), pool));
        }
        // The mode is the file's, so it is set once and for all; setting it does not wait for
        // other processes that are just doing the same.
        let options = options.synchronous(SqliteSynchronous::Normal);
        let options = options.pragma("mmap_size", MAPPED.to_string());
        let (begun, mut tries) = (Instant::now(), 0);
        loop {
            let wal = options.clone().journal_mode(SqliteJournalMode::Wal);
            match wal.connect().await {
                Ok(connection) => {
                    sqlx::Connection::close(connection).await?;
                    break;
                }
                Err(error)
                    if driver::meaning::<Self>(&error) == Some(Meaning::InTheWay)
                        && begun.elapsed() < timeout =>
                {
                    tries += 1;
                    sleep(pause(tries.min(2 * RETRIES))).await;
                }
                Err(error) => return Err(error),
            }
        }
        let readers = pool.clone().max_connections(max_connections.min(READERS));
        let read = match readers.connect_with(options.clone()).await {
            Ok(read) => read,
            // A file that is locked makes SQLite wait as long itself.
            Err(error) => return Err(why_not(&options, timeout * 2, error).await),
        };
        let options = options.pragma("cache_size", format!("-{WRITER_CACHE}"));
        match pool.max_connections(1).connect_with(options.clone()).await {
            Ok(write) => Ok((read, write)),
            Err(error) => Err(why_not(&options, timeout * 2, error).await),
        }
    }

    run_statements!(String);

    /// Each statement is a transaction by itself.
    async fn needs_transactions(
        _: &mut SqliteConnection,
        _: &Pool<Self>,
        _: Duration,
    ) -> Result<bool, sqlx::Error> {
        Ok(false)
    }

    fn meaning(error: &dyn DatabaseError) -> Meaning {
        meaning(error.code().as_deref().unwrap_or(""), error.message())
    }
}

/// What a result code means: <https://www.sqlite.org/rescode.html>. Its last eight bits are the kind;
/// the others say more.
fn meaning(code: &str, message: &str) -> Meaning {
    match code.parse::<i32>().map(|code| code & 0xff) {
        // SQLITE_ERROR: only its words say which.
        Ok(1) if message.starts_with("no such table") => Meaning::NoTable,
        Ok(1) if message.contains("no such column") || message.contains("has no column") => {
            Meaning::NoColumn
        }
        // SQLITE_BUSY, SQLITE_LOCKED.
        Ok(5 | 6) => Meaning::InTheWay,
        // SQLITE_PERM, SQLITE_READONLY, SQLITE_AUTH.
        Ok(3 | 8 | 23) => Meaning::Denied,
        // SQLITE_CANTOPEN.
        Ok(14) => Meaning::NoFile,
        // SQLITE_TOOBIG.
        Ok(18) => Meaning::TooLarge,
        // SQLITE_NOMEM, SQLITE_INTERRUPT, SQLITE_IOERR, SQLITE_FULL, SQLITE_PROTOCOL (a race for the
        // WAL's locks), SQLITE_SCHEMA (the table has changed).
        Ok(7 | 9 | 10 | 13 | 15 | 17) => Meaning::Passing,
        _ => Meaning::Lasting,
    }
}

#[cfg(test)]
mod tests {
    use sqlx::{Connection, Row as _};

    use super::*;

    #[test]
    fn what_answers_mean() {
        use Meaning::*;
        for (code, message, expected) in [
            ("1", "no such table: sessions", NoTable),
            ("1", "no such column: expires_at", NoColumn),
            ("1", "table sessions has no column named payload", NoColumn),
            ("1", "near \"SELEC\": syntax error", Lasting),
            ("5", "database is locked", InTheWay),
            ("6", "database table is locked", InTheWay),
            ("261", "database is locked (recovery)", InTheWay),
            ("262", "database table is locked (shared cache)", InTheWay),
            ("517", "database is locked (snapshot)", InTheWay),
            ("773", "database is locked (timeout)", InTheWay),
            ("8", "attempt to write a readonly database", Denied),
            ("1032", "attempt to write a readonly database (moved)", Denied),
            ("23", "not authorized", Denied),
            ("14", "unable to open database file", NoFile),
            ("18", "string or blob too big", TooLarge),
            ("9", "interrupted", Passing),
            ("10", "disk I/O error", Passing),
            ("778", "disk I/O error (write)", Passing),
            ("13", "database or disk is full", Passing),
            ("7", "out of memory", Passing),
            ("15", "locking protocol", Passing),
            ("11", "database disk image is malformed", Lasting),
            ("26", "file is not a database", Lasting),
            ("1299", "NOT NULL constraint failed: sessions.mine", Lasting),
            ("", "", Lasting),
        ] {
            assert_eq!(meaning(code, message), expected, "{code} {message}");
        }
    }

    #[tokio::test]
    async fn every_statement_finds_its_rows_by_an_index() {
        let mut connection = SqliteConnection::connect("sqlite::memory:").await.unwrap();
        let statements = Sqlite::statements(&Table::default());
        sqlx::raw_sql(sqlx::AssertSqlSafe(&*statements.migrate))
            .execute(&mut connection)
            .await
            .unwrap();
        for statement in [
            &statements.load,
            &statements.replace,
            statements.replace_unindexed.as_ref().unwrap(),
            &statements.take_over,
            &statements.touch,
            &statements.delete,
            &statements.delete_version,
            &statements.delete_expired,
            &statements.sessions_of,
            &statements.delete_sessions_of,
        ] {
            let statement = statement.text(false);
            let explain = format!("EXPLAIN QUERY PLAN {statement}");
            let steps =
                sqlx::query(sqlx::AssertSqlSafe(explain)).fetch_all(&mut connection).await.unwrap();
            let steps: Vec<String> = steps.iter().map(|step| step.get("detail")).collect();
            assert!(steps.iter().any(|step| step.starts_with("SEARCH")), "{statement}: {steps:?}");
            assert!(!steps.iter().any(|step| step.starts_with("SCAN")), "{statement}: {steps:?}");
        }
    }
}
