//! MySQL and MariaDB: their statements, the settings of a connection, and what their errors mean.
//!
//! An `INSERT` cannot take over an expired record here, so that a `create` may be two statements. An `UPDATE` does
//! not say which rows it has changed, so that of saves that go together all are carried out or none.

use std::time::Duration;

use sqlx::{
    AssertSqlSafe, Connection, Executor, MySql, MySqlConnection, Pool, Row as _,
    error::DatabaseError,
    mysql::{MySqlConnectOptions, MySqlDatabaseError, MySqlPoolOptions},
};

use super::{
    Dialect,
    driver::{Driver, Meaning, Row, Save, Value, is_alive, query, row, run_statements, why_not},
    statements::{Statement, Statements, Table},
};
use crate::store::packed::stored_millis;

impl Dialect for MySql {}

impl Driver for MySql {
    const STORE: &'static str = "mysql";
    const HAS_SCHEMAS: bool = true;
    const INSERT_TAKES_OVER: bool = false;
    const SWEEP_BATCH: u32 = 1000;
    const CAN_HANG: bool = true;
    // sqlx 0.9.0: a call that is dropped while it is being prepared, or within a packet.
    const LEAVES_ANSWERS: bool = true;
    // No pooler comes between, as the reason is another one. And a statement that is prepared for one call is closed
    // after it, which MySQL does not answer: with sqlx's sockets the COMMIT behind it then waits for the server's
    // delayed acknowledgement, 40 milliseconds.
    const KEEPS_PREPARED: bool = true;
    // `BEGIN` alone begins a block with `sql_mode = ORACLE`.
    const BEGIN: &str = "START TRANSACTION";
    const CONNECTS_WITHOUT_NEED: bool = true;
    // Its groups get in each other's way.
    const SAVES_AT_ONCE: usize = 1;
    // A server that is running can be told another default, for the connections that come.
    const ASKED_FOR: Duration = Duration::from_secs(60);

    type News = ();

    fn statements(table: &Table) -> Statements {
        let (expires_index, user_index) = (table.index("expires_at"), table.index("user_id"));
        let columns = columns(table);
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
                 INDEX `{user_index}` (user_id)) ENGINE = InnoDB ROW_FORMAT = DYNAMIC"
        );
        // In order, so that it never reads more of the index than it removes.
        let delete_expired =
            format!("DELETE FROM {table} WHERE expires_at <= ? ORDER BY expires_at LIMIT ?");
        let common = Statements::new(table, migrate, columns, delete_expired);
        let [load, sessions_of, page] = [&common.load, &common.sessions_of, &common.page]
            .map(|statement| statement.followed_by(ALL_ROWS));
        // `ON DUPLICATE KEY UPDATE` has no condition, and does not say what it did; `IGNORE` would
        // ignore too much. So a key that is in use is an error here, and `take_over` comes next.
        let create = format!(
            "INSERT INTO {table} (id, version, created_at, expires_at, user_id, payload) \
             VALUES (?, ?, ?, ?, ?, ?)"
        );
        let replace_together = GROUPS.map(|saves| replace_together(table, saves).into()).into();
        let create = create.into();
        Statements { create, replace_together, load, sessions_of, page, ..common }
    }

    async fn connect(
        url: &str,
        max_connections: u32,
        timeout: Duration,
    ) -> Result<(Pool<Self>, Pool<Self>), sqlx::Error> {
        let options: MySqlConnectOptions = url.parse()?;
        let pool = MySqlPoolOptions::new()
            .max_connections(max_connections)
            .acquire_timeout(timeout)
            .test_before_acquire(false)
            .before_acquire(|connection, meta| Box::pin(is_alive(connection, meta)))
            .after_connect(|connection, _| Box::pin(set_up(connection)));
        match pool.connect_with(options.clone()).await {
            Ok(pool) => Ok((pool.clone(), pool)),
            Err(error) => Err(why_not(&options, timeout, error).await),
        }
    }

    async fn needs_transactions(
        connection: &mut MySqlConnection,
        _: &Pool<Self>,
        _: Duration,
    ) -> Result<bool, sqlx::Error> {
        // This connection's, and that of the connections which the pool has yet to make.
        let ask = "SELECT @@SESSION.autocommit AND @@GLOBAL.autocommit LIMIT 1";
        let row = connection.fetch_one(ask).await?;
        let commits: i64 = row.try_get_unchecked(0)?;
        Ok(commits == 0 || Self::chains_transactions(connection).await?)
    }

    /// A statement that commits by itself begins none; the application's COMMIT does, and the store's statement
    /// would be in that.
    async fn chains_transactions(connection: &mut MySqlConnection) -> Result<bool, sqlx::Error> {
        let ask = "SELECT 'CHAIN' IN (@@SESSION.completion_type, @@GLOBAL.completion_type) LIMIT 1";
        let row = connection.fetch_one(ask).await?;
        Ok(row.try_get_unchecked::<i64, _>(0)? != 0)
    }

    async fn replace_together(
        connection: &mut MySqlConnection,
        statements: &[Statement],
        saves: &[Save],
        now: i64,
        unprepared: bool,
    ) -> Result<Vec<bool>, sqlx::Error> {
        let sizes = GROUPS.iter().zip(statements);
        let Some((size, statement)) = sizes.into_iter().find(|(size, _)| **size >= saves.len())
        else {
            return Ok(Vec::new());
        };
        let mut query =
            sqlx::query(AssertSqlSafe(statement.text(unprepared))).persistent(!unprepared);
        for save in saves {
            let record = &save.record;
            query = query
                .bind(&save.id[..])
                .bind(save.based_on)
                .bind(record.version.cast_signed())
                .bind(stored_millis(record.created_at).cast_signed())
                .bind(stored_millis(record.expires_at).cast_signed())
                .bind(save.user.as_deref().map(str::as_bytes))
                .bind(&record.payload[..]);
        }
        for _ in saves.len()..*size {
            // No key is empty.
            let (no_bytes, none): (&[u8], Option<&[u8]>) = (&[], None);
            query = query.bind(no_bytes).bind(0_i64).bind(0_i64).bind(0_i64).bind(0_i64);
            query = query.bind(none).bind(no_bytes);
        }
        // The answer only says how many: all, or none.
        let mut transaction = connection.begin_with(Self::BEGIN).await?;
        match query.bind(now).execute(&mut *transaction).await {
            Ok(done) if done.rows_affected() == saves.len() as u64 => {
                transaction.commit().await?;
                Ok(vec![true; saves.len()])
            }
            Ok(_) => transaction.rollback().await.map(|()| Vec::new()),
            Err(error) => {
                // The statement's error says why; the connection may have ended with it.
                let _ = transaction.rollback().await;
                Err(error)
            }
        }
    }

    run_statements!(Vec<u8>);

    fn meaning(error: &dyn DatabaseError) -> Meaning {
        let number = error.try_downcast_ref::<MySqlDatabaseError>().map_or(0, |e| e.number());
        meaning(number, error.code().as_deref().unwrap_or(""), error.message())
    }
}

/// As a server may cut short whatever says no limit of its own (`sql_select_limit`), also what SHOW answers.
const ALL_ROWS: &str = "LIMIT 18446744073709551615";

/// Whatever the server's defaults are.
async fn set_up(connection: &mut MySqlConnection) -> Result<(), sqlx::Error> {
    // In a log of statements the server writes none of READ COMMITTED: each would be an error.
    let ask = "SELECT @@GLOBAL.log_bin AND @@SESSION.binlog_format = 'STATEMENT' LIMIT 1";
    let logs_statements = match connection.fetch_one(ask).await {
        Ok(row) => row.try_get_unchecked::<i64, _>(0)? != 0,
        // A server that knows no such format.
        Err(sqlx::Error::Database(_)) => false,
        Err(error) => return Err(error),
    };
    // Each statement stands alone, so that locks on what lies between rows would only make the sweep and new
    // sessions wait for each other.
    if !logs_statements {
        let level = "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED";
        connection.execute(level).await?;
    }
    let commits = "SET SESSION autocommit = 1, SESSION completion_type = 'NO_CHAIN'";
    connection.execute(commits).await.map(|_| ())
}

/// The names of the table's columns.
fn columns(table: &Table) -> String {
    let (schema, name) = table.parts();
    let schema = schema.map_or("DATABASE()".to_string(), stored_name);
    format!(
        "SELECT column_name FROM information_schema.columns \
         WHERE table_schema = {schema} AND table_name = {} {ALL_ROWS}",
        stored_name(name)
    )
}

/// A server can be told to write all names in small letters.
fn stored_name(name: &str) -> String {
    let small = name.to_ascii_lowercase();
    format!("IF(@@lower_case_table_names = 1, '{small}', '{name}')")
}

/// For how many saves there is a statement: the driver keeps what it has prepared by the text.
const GROUPS: [usize; 6] = [2, 4, 8, 16, 32, 64];

/// Waits for no row: it fails where one is locked. MySQL does not know how to say that, refuses it, and
/// each save goes alone.
fn replace_together(table: &str, saves: usize) -> String {
    let one = "SELECT ? AS id, ? AS based_on, ? AS version, ? AS created_at, ? AS expires_at, \
               ? AS user_id, ? AS payload";
    let new = vec![one; saves].join(" UNION ALL ");
    format!(
        "SET STATEMENT innodb_lock_wait_timeout = 0, sql_safe_updates = 0 FOR \
         UPDATE ({new}) AS new STRAIGHT_JOIN {table} AS old ON old.id = new.id SET \
         old.version = new.version, old.created_at = new.created_at, \
         old.expires_at = new.expires_at, old.user_id = new.user_id, old.payload = new.payload \
         WHERE old.version = new.based_on AND old.expires_at > ?"
    )
}

/// What an error's number means, and, where that says nothing, its SQLSTATE:
/// <https://dev.mysql.com/doc/mysql-errors/8.4/en/server-error-reference.html>,
/// <https://mariadb.com/kb/en/mariadb-error-codes/>. An error from before the handshake has no
/// SQLSTATE.
fn meaning(number: u16, code: &str, message: &str) -> Meaning {
    match number {
        1146 => Meaning::NoTable,
        // Unknown database.
        1049 => Meaning::NoSchema,
        // Unknown column; a key's column is missing.
        1054 | 1072 => Meaning::NoColumn,
        // `max_allowed_packet`; data too long.
        1153 | 1406 => Meaning::TooLarge,
        // On a database, a table, a column; what administrators may.
        1044 | 1142 | 1143 | 1227 => Meaning::Denied,
        // Deadlock, lock wait timeout, and MariaDB's "record has changed since last read".
        1213 | 1205 | 1020 => Meaning::InTheWay,
        // The server, which says so of other options as well; a transaction; InnoDB.
        1290 if message.contains("read-only") || message.contains("read_only") => Meaning::ReadOnly,
        1792 | 1836 => Meaning::ReadOnly,
        // A node of a Galera cluster that is cut off from the other nodes.
        1047 if message.contains("WSREP") => Meaning::ReadOnly,
        // Unknown prepared statement; one that must be prepared again; the table has changed.
        1243 | 1615 | 1412 => Meaning::Stale,
        // Of all; of the user, at once; of the user, in an hour.
        1040 | 1203 | 1226 => Meaning::Crowded,
        // These have a class of errors that pass, and do not pass: the host is blocked or unknown, the
        // client is too old, safe updates, an option forbids it, a broken view, a column of others, a
        // definer, what a log of statements cannot hold, an index of the row format.
        1129 | 1130 | 1175 | 1251 | 1275 | 1290 | 1356 | 1364 | 1366 | 1449 | 1665 | 1709 => {
            Meaning::Lasting
        }
        1461 => Meaning::Prepared,
        // The disk or the table is full; no memory.
        1021 | 1114 | 1037 | 1038 | 1041 => Meaning::Passing,
        // Connection, a rollback, a statement that was interrupted, and what has no class of its own:
        // the server is shutting down (1053), a proxy finds no server (ProxySQL's 9001).
        _ => match ["08", "40", "70100", "HY000"].iter().any(|class| code.starts_with(class)) {
            true => Meaning::Passing,
            false => Meaning::Lasting,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the servers say it: MariaDB 10.11, MySQL 8.4, ProxySQL 2.7.
    #[test]
    fn what_answers_mean() {
        use Meaning::*;
        for (number, code, message, expected) in [
            (1146, "42S02", "Table 'test.sessions' doesn't exist", NoTable),
            (1049, "42000", "Unknown database 'shop'", NoSchema),
            (1054, "42S22", "Unknown column 'expires_at' in 'where clause'", NoColumn),
            (1072, "42000", "Key column 'user_id' doesn't exist in table", NoColumn),
            (1153, "08S01", "Got a packet bigger than 'max_allowed_packet'", TooLarge),
            (1406, "22001", "Data too long for column 'payload' at row 1", TooLarge),
            (1044, "42000", "Access denied for user 'app'@'%' to database", Denied),
            (1142, "42000", "INSERT command denied to user 'app'@'%'", Denied),
            (1143, "42000", "UPDATE command denied for column 'payload'", Denied),
            (1045, "28000", "Access denied for user 'app'@'%'", Lasting),
            (1213, "40001", "Deadlock found when trying to get lock", InTheWay),
            (1205, "HY000", "Lock wait timeout exceeded", InTheWay),
            (1020, "HY000", "Record has changed since last read", InTheWay),
            (1290, "HY000", "The MariaDB server is running with the --read-only option", ReadOnly),
            (1290, "HY000", "The MySQL server is running with --super-read-only", ReadOnly),
            (1290, "HY000", "The server is running with --skip-grant-tables", Lasting),
            (1792, "25006", "Cannot execute statement in a READ ONLY transaction", ReadOnly),
            (1836, "HY000", "Running in read-only mode", ReadOnly),
            (1047, "08S01", "WSREP has not yet prepared node for application", ReadOnly),
            (1047, "08S01", "Unknown command", Passing),
            (1243, "HY000", "Unknown prepared statement handler (3)", Stale),
            (1615, "HY000", "Prepared statement needs to be re-prepared", Stale),
            (1412, "HY000", "Table definition has changed, please retry", Stale),
            (1040, "", "Too many connections", Crowded),
            (1040, "08004", "Too many connections", Crowded),
            (1203, "42000", "User app already has more than", Crowded),
            (1226, "42000", "User 'app' has exceeded the 'max_user_connections'", Crowded),
            (1129, "", "Host '10.0.0.1' is blocked", Lasting),
            (1130, "HY000", "Host '10.0.0.1' is not allowed to connect", Lasting),
            (1175, "HY000", "You are using safe update mode", Lasting),
            (1709, "HY000", "Index column size too large", Lasting),
            (1251, "08004", "Client does not support authentication protocol", Lasting),
            (1364, "HY000", "Field 'mine' doesn't have a default value", Lasting),
            (1366, "22007", "Incorrect string value", Lasting),
            (1064, "42000", "You have an error in your SQL syntax", Lasting),
            (1062, "23000", "Duplicate entry", Lasting),
            (1053, "08S01", "Server shutdown in progress", Passing),
            (1158, "08S01", "Got an error reading communication packets", Passing),
            (1317, "70100", "Query execution was interrupted", Passing),
            (1927, "70100", "Connection was killed", Passing),
            (1969, "70100", "Query was interrupted: max_statement_time", Passing),
            (3024, "HY000", "Query execution was interrupted, maximum time", Passing),
            (3101, "40000", "Plugin instructed the server to rollback", Passing),
            (1021, "HY000", "Disk full; waiting for someone to free some space", Passing),
            (1114, "HY000", "The table 'sessions' is full", Passing),
            (1461, "42000", "Can't create more than max_prepared_stmt_count", Prepared),
            (1665, "HY000", "Cannot execute statement: impossible to write to binary log", Lasting),
            (2013, "HY000", "Lost connection to server during query", Passing),
            (9001, "HY000", "Max connect timeout reached while reaching hostgroup", Passing),
        ] {
            assert_eq!(meaning(number, code, message), expected, "{number} {code} {message}");
        }
    }
}
