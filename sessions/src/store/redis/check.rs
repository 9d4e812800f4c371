//! Whether the server knows the commands that the store needs, and whether the store's user may use them.

use redis::{ErrorKind, RedisError, ServerErrorKind, Value};

use super::{
    NAME, RedisStore,
    connection::{Call, Several, batch},
    errors::classify,
};
use crate::error::store::StoreError;

/// The commands that a store sends, or its scripts run.
pub(super) const COMMANDS: [&str; 16] = [
    "GET",
    "GETRANGE",
    "MGET",
    "SET",
    "SETRANGE",
    "DEL",
    "RENAME",
    "PEXPIRE",
    "PTTL",
    "EVAL",
    "EVALSHA",
    "ZADD",
    "ZRANGE",
    "ZREM",
    "ZSCORE",
    "ZREMRANGEBYSCORE",
];

impl RedisStore {
    /// Asks for everything that the store will need, in one round trip, in such words that nothing is
    /// written: of keys that are not there, or only if they are.
    ///
    /// What passes by itself (a server that loads, or has no memory) is no error here.
    pub(super) async fn check(&self, operation: &'static str) -> Result<(), StoreError> {
        // Long: a table of commands, and one of what their answers mean.
        let (prefix, connection) = (&self.shared.prefix, &self.shared.connection);
        // In a cluster all of it has to be in one place. A single server that is part of a cluster
        // finds that it is not.
        let tag = if connection.is_cluster() { "{check}" } else { "check" };
        let [session, beside, set] =
            ["{check}", "{check}:0", &format!("user:{tag}")].map(|name| format!("{prefix}:{name}"));
        let mut commands = batch(COMMANDS.len());
        for name in COMMANDS {
            let command = commands.cmd(name);
            match name {
                "GET" | "PTTL" | "DEL" => command.arg(&session),
                "GETRANGE" => command.arg(&session).arg(0).arg(0),
                "MGET" => command.arg(&session).arg(&set),
                "SET" => command.arg(&session).arg("").arg("PX").arg(1).arg("XX"),
                "SETRANGE" => command.arg(&session).arg(0).arg(""),
                "RENAME" => command.arg(&beside).arg(&session),
                "PEXPIRE" => command.arg(&session).arg(1),
                "EVAL" => command.arg("return 1").arg(1).arg(&session),
                // A hash that no script has.
                "EVALSHA" => command.arg("0".repeat(40)).arg(1).arg(&session),
                "ZADD" => command.arg(&set).arg("XX").arg(0).arg("check"),
                "ZRANGE" => command.arg(&set).arg(0).arg(0),
                "ZREM" | "ZSCORE" => command.arg(&set).arg("check"),
                // From one to nought there is nothing.
                "ZREMRANGEBYSCORE" => command.arg(&set).arg(1).arg(0),
                _ => unreachable!("{name}"),
            };
        }
        let answers = connection.query(&Several(&commands), &mut Call::default()).await;
        let answers = answers.map_err(|error| classify(operation, error))?;
        let (mut lacking, mut unknown) = (Vec::new(), Vec::new());
        let mut keys = None;
        for (name, answer) in COMMANDS.iter().zip(answers) {
            let Value::ServerError(error) = answer else { continue };
            let error = RedisError::from(error);
            let detail = error.detail().unwrap_or_default();
            match (error.kind(), error.code()) {
                (ErrorKind::Server(ServerErrorKind::NoPerm), _) if is_about_keys(detail) => {
                    keys = Some(error);
                }
                (ErrorKind::Server(ServerErrorKind::NoPerm), _) if is_about_database(detail) => {
                    let words = format!(
                        "this user of Valkey may not use this database: it needs `alldbs`, or `db=` and its \
                         number ({error})"
                    );
                    return Err(StoreError::permanent(NAME, operation, words));
                }
                (ErrorKind::Server(ServerErrorKind::NoPerm), _) => lacking.push(*name),
                (ErrorKind::Server(ServerErrorKind::ResponseError), _)
                    if detail.starts_with("unknown command") =>
                {
                    unknown.push(*name);
                }
                (ErrorKind::Server(ServerErrorKind::CrossSlot | ServerErrorKind::Moved), _)
                | (_, Some("NOAUTH")) => return Err(classify(operation, error)),
                _ => {}
            }
        }
        let words = match (&*lacking, &*unknown, keys) {
            ([], [], None) => return Ok(()),
            ([], [], Some(error)) => format!(
                "this user of Redis may not use the store's keys: it needs `~{prefix}:*` ({error})"
            ),
            ([], unknown, _) => format!("this server does not know {}", unknown.join(", ")),
            (lacking, ..) => {
                let rights: Vec<_> =
                    lacking.iter().map(|name| format!("+{}", name.to_lowercase())).collect();
                let (names, rights) = (lacking.join(", "), rights.join(" "));
                format!("this user of Redis lacks the permission for {names} (`{rights}`)")
            }
        };
        Err(StoreError::permanent(NAME, operation, words))
    }
}

/// Whether it is a key that the user may not use, and not the command: as Redis says it up to 7.0, and from 7.2 on, as
/// Valkey does.
fn is_about_keys(detail: &str) -> bool {
    detail.contains("access one of the keys") || detail.contains("access a key")
}

/// Whether it is the database, as Valkey says it from 9.1 on.
fn is_about_database(detail: &str) -> bool {
    detail.contains("access database")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_user_may_not_is_told_apart() {
        for (words, keys, database) in [
            (
                "this user has no permissions to access one of the keys used as arguments",
                true,
                false,
            ),
            ("No permissions to access a key", true, false),
            ("No permissions to access database", false, true),
            ("this user has no permissions to run the 'get' command", false, false),
            ("User keys has no permissions to run the 'get' command", false, false),
        ] {
            assert_eq!(
                (is_about_keys(words), is_about_database(words)),
                (keys, database),
                "{words}"
            );
        }
    }
}
