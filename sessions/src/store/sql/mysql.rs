use std::time::Duration;

use sqlx::{Executor, MySql, Pool, mysql::MySqlPoolOptions};

use super::{
    Dialect,
    driver::{Driver, Row, Value, has_code, is_alive, query, row, run_statements},
    statements::{Statements, Table},
};

impl Dialect for MySql {}

impl Driver for MySql {
    const STORE: &'static str = "mysql";
    const HAS_SCHEMAS: bool = true;
    const INSERT_TAKES_OVER: bool = false;
    const SWEEP_BATCH: u32 = 1000;
    const CAN_HANG: bool = true;

    fn statements(table: &Table) -> Statements {
        let (expires_index, user_index) = (table.index("expires_at"), table.index("user_id"));
        let table = &table.quoted('`');
        let migrate = format!(
            "CREATE TABLE IF NOT EXISTS {table} (\
                 id BINARY(32) NOT NULL PRIMARY KEY, \
                 version BIGINT NOT NULL, \
                 created_at BIGINT NOT NULL, \
                 expires_at BIGINT NOT NULL, \
                 user_id VARBINARY(1020), \
                 payload LONGBLOB NOT NULL, \
                 INDEX `{expires_index}` (expires_at), \
                 INDEX `{user_index}` (user_id)) ENGINE = InnoDB"
        );
        // In order, so that it never reads more of the index than it removes.
        let delete_expired =
            format!("DELETE FROM {table} WHERE expires_at <= ? ORDER BY expires_at LIMIT ?");
        let common = Statements::new(table, migrate, delete_expired);
        // `ON DUPLICATE KEY UPDATE` has no condition, and does not say what it did; `IGNORE` would
        // ignore too much. So a key that is in use is an error here, and `take_over` comes next.
        let create = format!(
            "INSERT INTO {table} (id, version, created_at, expires_at, user_id, payload) \
             VALUES (?, ?, ?, ?, ?, ?)"
        );
        Statements { create, ..common }
    }

    async fn connect(
        url: &str,
        max_connections: u32,
        timeout: Duration,
    ) -> Result<(Pool<Self>, Pool<Self>), sqlx::Error> {
        let pool = MySqlPoolOptions::new()
            .max_connections(max_connections)
            .acquire_timeout(timeout)
            .test_before_acquire(false)
            .before_acquire(|connection, meta| Box::pin(is_alive(connection, meta)))
            // Each statement stands alone, so that locks on what lies between rows would only make
            // the sweep and new sessions wait for each other.
            .after_connect(|connection, _| {
                Box::pin(async move {
                    let level = "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED";
                    connection.execute(level).await.map(|_| ())
                })
            });
        let pool = pool.connect(url).await?;
        Ok((pool.clone(), pool))
    }

    run_statements!(Vec<u8>);

    fn is_missing_table(error: &sqlx::Error) -> bool {
        has_code(error, &["42S02"])
    }

    fn is_too_large(error: &sqlx::Error) -> bool {
        // `max_allowed_packet`; data too long.
        number(error).is_some_and(|number| matches!(number, 1153 | 1406))
    }

    fn is_in_the_way(error: &sqlx::Error) -> bool {
        // Deadlock, lock wait timeout, and MariaDB's "record has changed since last read".
        number(error).is_some_and(|number| matches!(number, 1213 | 1205 | 1020))
    }

    fn is_passing(code: Option<&str>) -> bool {
        // Connection, too many of them (1040), a rollback, a statement that was interrupted; the
        // server is shutting down (1053), which has no class of its own.
        let classes = ["08", "40", "70100", "HY000"];
        code.is_some_and(|code| classes.iter().any(|class| code.starts_with(class)))
    }
}

/// MySQL's own number of an error, which says more than the code.
fn number(error: &sqlx::Error) -> Option<u16> {
    match error {
        sqlx::Error::Database(error) => {
            error.try_downcast_ref::<sqlx::mysql::MySqlDatabaseError>().map(|error| error.number())
        }
        _ => None,
    }
}
