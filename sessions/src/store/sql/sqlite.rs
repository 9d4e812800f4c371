use std::{sync::Mutex, time::Duration};

use sqlx::{
    ConnectOptions, Pool, Sqlite,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use tokio::time::sleep;

use super::{
    Dialect, RETRIES,
    driver::{Driver, Row, Value, has_code, query, row, run_statements},
    pause,
    statements::{Statements, Table},
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
    // While it is removed nobody else can save.
    const SWEEP_BATCH: u32 = 100;
    const CAN_HANG: bool = false;

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
            replace_unindexed: Some(replace_unindexed),
            ..Statements::new(table, migrate, delete_expired)
        }
    }

    async fn connect(
        url: &str,
        max_connections: u32,
        timeout: Duration,
    ) -> Result<(Pool<Self>, Pool<Self>), sqlx::Error> {
        let options: SqliteConnectOptions = url.parse()?;
        let in_memory = options.get_filename().as_os_str().is_empty()
            || url.contains(":memory:")
            || url.contains("mode=memory");
        let options = options.create_if_missing(true).busy_timeout(timeout);
        // There is no network between us that could have lost a connection.
        let pool = SqlitePoolOptions::new().acquire_timeout(timeout).test_before_acquire(false);
        if in_memory {
            // The sessions last as long as a connection to them, and the pool may replace its own
            // after a call that was dropped. So it keeps one more, which nobody uses.
            let anchor = Mutex::new(options.connect().await?);
            let pool = pool.max_connections(1).after_connect(move |_, _| {
                let _ = &anchor;
                Box::pin(async { Ok(()) })
            });
            let pool = pool.connect_with(options).await?;
            return Ok((pool.clone(), pool));
        }
        // The mode is the file's, so it is set once and for all; setting it does not wait for
        // others who are just doing the same.
        let options = options.synchronous(SqliteSynchronous::Normal);
        let options = options.pragma("mmap_size", MAPPED.to_string());
        let mut tries = 0;
        loop {
            let wal = options.clone().journal_mode(SqliteJournalMode::Wal);
            match wal.connect().await {
                Ok(connection) => {
                    sqlx::Connection::close(connection).await?;
                    break;
                }
                Err(error) if tries < 10 * RETRIES && Self::is_in_the_way(&error) => {
                    tries += 1;
                    sleep(pause(tries.min(10))).await;
                }
                Err(error) => return Err(error),
            }
        }
        let readers = pool.clone().max_connections(max_connections.min(READERS));
        let read = readers.connect_with(options.clone()).await?;
        let options = options.pragma("cache_size", format!("-{WRITER_CACHE}"));
        let write = pool.max_connections(1).connect_with(options).await?;
        Ok((read, write))
    }

    run_statements!(String);

    fn is_missing_table(error: &sqlx::Error) -> bool {
        matches!(error, sqlx::Error::Database(error) if error.message().starts_with("no such table"))
    }

    fn is_too_large(error: &sqlx::Error) -> bool {
        has_code(error, &["18"])
    }

    fn is_in_the_way(error: &sqlx::Error) -> bool {
        // SQLITE_BUSY, SQLITE_LOCKED, and their kin.
        has_code(error, &["5", "6", "261", "262", "517", "773"])
    }

    fn is_passing(code: Option<&str>) -> bool {
        // Busy, locked, interrupted, I/O error, disk full, cannot open.
        let primary = code.and_then(|code| code.parse::<i32>().ok()).map(|code| code & 0xff);
        matches!(primary, Some(5 | 6 | 9 | 10 | 13 | 14))
    }
}

#[cfg(test)]
mod tests {
    use sqlx::{Connection, Row as _, SqliteConnection};

    use super::*;

    #[tokio::test]
    async fn every_statement_finds_its_rows_by_an_index() {
        let mut connection = SqliteConnection::connect("sqlite::memory:").await.unwrap();
        let statements = Sqlite::statements(&Table::default());
        sqlx::raw_sql(&statements.migrate).execute(&mut connection).await.unwrap();
        for statement in [
            &statements.load,
            &statements.replace,
            statements.replace_unindexed.as_ref().unwrap(),
            &statements.take_over,
            &statements.touch,
            &statements.delete,
            &statements.delete_expired,
            &statements.sessions_of,
            &statements.delete_sessions_of,
        ] {
            let explain = format!("EXPLAIN QUERY PLAN {statement}");
            let steps = sqlx::query(&explain).fetch_all(&mut connection).await.unwrap();
            let steps: Vec<String> = steps.iter().map(|step| step.get("detail")).collect();
            assert!(steps.iter().any(|step| step.starts_with("SEARCH")), "{statement}: {steps:?}");
            assert!(!steps.iter().any(|step| step.starts_with("SCAN")), "{statement}: {steps:?}");
        }
    }
}
