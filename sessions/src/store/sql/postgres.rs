use std::time::Duration;

use sqlx::{Pool, Postgres, postgres::PgPoolOptions};

use super::{
    Dialect,
    driver::{Driver, Row, Value, has_code, is_alive, query, row, run_statements},
    statements::{Statements, Table},
};

impl Dialect for Postgres {}

impl Driver for Postgres {
    const STORE: &'static str = "postgres";
    const HAS_SCHEMAS: bool = true;
    const INSERT_TAKES_OVER: bool = true;
    const SWEEP_BATCH: u32 = 1000;
    const CAN_HANG: bool = true;

    fn statements(table: &Table) -> Statements {
        let (expires_index, user_index) = (table.index("expires_at"), table.index("user_id"));
        let table = &table.quoted('"');
        // One message is one transaction, and the lock is let go of at its end. Without the lock,
        // two `IF NOT EXISTS` at once can both find nothing, and one of them fails.
        let migrate = format!(
            "SELECT pg_advisory_xact_lock(7310601285309117043); \
             CREATE TABLE IF NOT EXISTS {table} (\
                 id BYTEA NOT NULL PRIMARY KEY, \
                 version BIGINT NOT NULL, \
                 created_at BIGINT NOT NULL, \
                 expires_at BIGINT NOT NULL, \
                 user_id TEXT, \
                 payload BYTEA NOT NULL) WITH (fillfactor = 75); \
             CREATE INDEX IF NOT EXISTS \"{expires_index}\" ON {table} (expires_at); \
             CREATE INDEX IF NOT EXISTS \"{user_index}\" ON {table} (user_id) \
                 WHERE user_id IS NOT NULL;"
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
        Statements::new(table, migrate, delete_expired).numbered()
    }

    async fn connect(
        url: &str,
        max_connections: u32,
        timeout: Duration,
    ) -> Result<(Pool<Self>, Pool<Self>), sqlx::Error> {
        let pool = PgPoolOptions::new()
            .max_connections(max_connections)
            .acquire_timeout(timeout)
            .test_before_acquire(false)
            .before_acquire(|connection, meta| Box::pin(is_alive(connection, meta)));
        let pool = pool.connect(url).await?;
        Ok((pool.clone(), pool))
    }

    run_statements!(String);

    fn is_missing_table(error: &sqlx::Error) -> bool {
        // Table, schema.
        has_code(error, &["42P01", "3F000"])
    }

    fn is_too_large(error: &sqlx::Error) -> bool {
        // A limit of the program, such as a value of a gigabyte.
        has_code(error, &["54000"])
    }

    fn is_in_the_way(error: &sqlx::Error) -> bool {
        // Serialization failure, deadlock.
        has_code(error, &["40001", "40P01"])
    }

    fn is_passing(code: Option<&str>) -> bool {
        // Connection, transaction rollback, resources, lock not available, operator's intervention
        // (shutdown, `pg_terminate_backend`, statement timeout), system error, read-only server.
        let classes = ["08", "40", "53", "55", "57", "58", "25006"];
        code.is_some_and(|code| classes.iter().any(|class| code.starts_with(class)))
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

#[cfg(test)]
mod tests {
    use super::*;

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
