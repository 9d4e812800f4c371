//! What errors of the driver mean, and which advice the store gives to its caller.

use sqlx::ConnectOptions;

use super::{
    Dialect,
    driver::{Driver, Meaning, meaning},
    statements::Table,
};
use crate::error::store::{Advice, StoreError};

/// Where there was no connection.
pub(super) fn cannot_connect<D: Dialect>(url: &str, error: sqlx::Error) -> StoreError {
    let address = || {
        let options = url.parse::<<D::Connection as sqlx::Connection>::Options>().ok()?;
        let url = options.to_url_lossy();
        Some(format!("{}:{}", url.host_str()?, url.port()?))
    };
    match error {
        sqlx::Error::Io(_) if address().is_some() => {
            let at = address().unwrap_or_default();
            let advice = format!("the {} server at {at} is not to be reached", D::STORE);
            StoreError::new(D::STORE, "connect", Advice { advice, source: error })
        }
        error if meaning::<D>(&error) == Some(Meaning::NoFile) => {
            let file = url.strip_prefix("sqlite:").unwrap_or(url);
            let advice = format!(
                "the file {file} cannot be opened: its folder must exist, and this process must be \
                 allowed to write there"
            );
            StoreError::permanent(D::STORE, "connect", Advice { advice, source: error })
        }
        error => classify::<D>("connect", None, error),
    }
}

/// What an error of the driver means: which advice the store gives to its caller.
pub(super) fn classify<D: Driver>(
    operation: &'static str,
    table: Option<&Table>,
    error: sqlx::Error,
) -> StoreError {
    // Long: a table of what errors mean.
    let Some(meaning) = meaning::<D>(&error) else {
        return match &error {
            sqlx::Error::Io(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::WorkerCrashed
            // A connection that ended in the middle of an answer.
            | sqlx::Error::Protocol(_) => StoreError::new(D::STORE, operation, error),
            sqlx::Error::PoolClosed => {
                let advice = "the pool was closed: give the store one that stays open for as long as the \
                              store is used, and close it after the last request";
                let source = Advice { advice: advice.to_string(), source: error };
                StoreError::permanent(D::STORE, operation, source)
            }
            _ => StoreError::permanent(D::STORE, operation, error),
        };
    };
    let table = table.map(Table::to_string).unwrap_or_default();
    let advice = match meaning {
        Meaning::NoTable => "there is no such table: call `migrate`, or make it with the statements \
                             in the documentation"
            .to_string(),
        Meaning::NoSearchPath => {
            "no schema that the connection's `search_path` names is there and may be used: set the \
             `search_path`, or name the table with its schema by `with_table(\"schema.table\")`"
                .to_string()
        }
        Meaning::NoSchema => "the table's schema (MySQL: database) is not there: make it with CREATE \
                              SCHEMA"
            .to_string(),
        Meaning::NoColumn => format!(
            "there is a table {table} with other columns, not one of this store's: rename it, or choose \
             another name by `with_table`"
        ),
        Meaning::TooLarge => "the record is larger than the server takes".to_string(),
        Meaning::Denied if D::STORE == "sqlite" => {
            "this process may not write to the file, or to the folder that it is in".to_string()
        }
        Meaning::Denied if operation == "migrate" => format!(
            "the table {table} is not there, and this user may not make it: grant CREATE on the schema \
             (MySQL: CREATE and INDEX on the database), or let another user make it"
        ),
        Meaning::Denied => format!(
            "`{operation}` needs {}; the store needs SELECT, INSERT, UPDATE and DELETE on the table \
             {table} (in PostgreSQL also USAGE on its schema)",
            needs(operation)
        ),
        Meaning::SchemaDenied if operation == "migrate" => format!(
            "the table {table} is not there or not to be seen, and this user may not make it: grant \
             USAGE and CREATE on the schema, or let another user make the table"
        ),
        Meaning::SchemaDenied => {
            "this user needs USAGE on the schema of the table".to_string()
        }
        Meaning::ReadOnly => "the server takes no writes: it is read-only or a standby, and new \
                              connections lead there as well"
            .to_string(),
        Meaning::Parameter => "the pooler between the driver and the server does not take a parameter \
                               of the connection: name it in PgBouncer's `ignore_startup_parameters`, \
                               or do not set it"
            .to_string(),
        Meaning::Crowded => "the server has as many connections as it takes: let the pools of all \
                             processes together (`with_max_connections`) stay below its \
                             `max_connections` and the user's own limit"
            .to_string(),
        Meaning::Prepared => "the server has as many prepared statements as it takes, of all its \
                              connections: raise its `max_prepared_stmt_count` (a store needs a dozen \
                              for each of its connections)"
            .to_string(),
        Meaning::NoFile
        | Meaning::InTheWay
        | Meaning::Stale
        | Meaning::OtherStatement
        | Meaning::Passing
        | Meaning::Lasting => {
            return match meaning.passes() {
                true => StoreError::new(D::STORE, operation, error),
                false => StoreError::permanent(D::STORE, operation, error),
            };
        }
    };
    let source = Advice { advice, source: error };
    match meaning.passes() {
        true => StoreError::new(D::STORE, operation, source),
        false => StoreError::permanent(D::STORE, operation, source),
    }
}

/// The rights that a statement asks for, in PostgreSQL and MySQL.
fn needs(operation: &str) -> &'static str {
    match operation {
        "load" | "sessions_of" | "for_each" => "SELECT",
        "create" => "INSERT, SELECT and UPDATE",
        "replace" | "touch" => "UPDATE and SELECT",
        "delete" | "delete_sessions_of" => "DELETE and SELECT",
        "delete_expired" => "DELETE, SELECT and UPDATE",
        _ => "more rights",
    }
}
