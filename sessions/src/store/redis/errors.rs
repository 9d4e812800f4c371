//! What an error of the client or the server means: whether it passes by itself, and what to do about it.

use redis::{ErrorKind, RedisError, ServerErrorKind};

use super::{NAME, check::COMMANDS};
use crate::error::store::{Advice, StoreError};

pub(super) fn classify(operation: &'static str, error: RedisError) -> StoreError {
    let (is_permanent, advice) = match code_of(&error) {
        "OOM" => (false, "Redis is out of memory: raise `maxmemory`".to_string()),
        "READONLY" => {
            (false, "this Redis is a replica, and takes no writes: is a failover under way?".into())
        }
        "MISCONF" => {
            (false, "Redis cannot write its snapshot, and takes no writes until then".into())
        }
        "NOREPLICAS" => {
            (false, "Redis has fewer replicas than `min-replicas-to-write` wants".to_string())
        }
        "BUSY" => (false, "Redis runs a script that does not end".to_string()),
        "NOAUTH" => (true, "Redis wants a password".to_string()),
        // In the words of the client about a `SELECT`.
        "ERR" if error.detail().is_some_and(|words| words.contains("Authentication required")) => {
            (true, "Redis wants a password".to_string())
        }
        "WRONGPASS" => (true, "Redis refuses the password".to_string()),
        "NOPERM" => (true, lacking()),
        _ if is_denied_in_script(&error) => (true, lacking()),
        "FOREIGN" | "WRONGTYPE" => {
            let words = "a key below the prefix holds no session; who else writes there?";
            (true, words.to_string())
        }
        "CROSSSLOT" | "MOVED" | "ASK" => {
            (true, "this is a Redis Cluster: use `connect_cluster`".to_string())
        }
        _ => (is_permanent(&error), about_url(&error).to_string()),
    };
    let make = if is_permanent { StoreError::permanent } else { StoreError::new };
    match advice.is_empty() {
        true if error.kind() == ErrorKind::AuthenticationFailed => {
            let advice = "Redis refuses the password".to_string();
            StoreError::permanent(NAME, operation, Advice { advice, source: error })
        }
        true if is_permanent => StoreError::permanent(NAME, operation, error),
        true => StoreError::new(NAME, operation, error),
        false => make(NAME, operation, Advice { advice, source: error }),
    }
}

/// What to do about a URL that the client does not take; nothing for any other error.
fn about_url(error: &RedisError) -> &'static str {
    if error.kind() != ErrorKind::InvalidClientConfig {
        return "";
    }
    let words = error.to_string();
    if words.contains("TLS") {
        "for `rediss://` add the crate `redis` to your dependencies, with one of its TLS features, as \
         `tokio-rustls-comp`"
    } else if words.contains("URL did not parse") {
        "a URL of Redis begins with `redis://`, or with `rediss://` for TLS"
    } else {
        ""
    }
}

fn lacking() -> String {
    format!("this user of Redis lacks a permission: the store needs {}", COMMANDS.join(", "))
}

/// The server's word for what is wrong, as in `OOM command not allowed …`; nothing if it has none.
fn code_of(error: &RedisError) -> &str {
    let code = error.code().unwrap_or_default();
    let detail = error.detail().unwrap_or_default();
    // Redis 6 says `ERR Error running script (…): @user_script:3: -OOM command not allowed …`.
    if code == "ERR" && detail.starts_with("Error running script") {
        let inner = detail.rsplit_once(": -").map(|(_, inner)| inner);
        return inner.and_then(|inner| inner.split_ascii_whitespace().next()).unwrap_or(code);
    }
    code
}

/// Whether the server has refused a command in a script to this user; it does not say which.
pub(super) fn is_denied_in_script(error: &RedisError) -> bool {
    let detail = error.detail().unwrap_or_default();
    detail.contains("The user executing the script can't")
        // From Redis 7.2 on, and Valkey.
        || detail.contains("ACL failure in script")
        || detail.contains("No permissions to access a key")
        || (detail.contains("script") && detail.contains("NOPERM"))
}

/// For errors without a code that says more.
fn is_permanent(error: &RedisError) -> bool {
    match error.kind() {
        ErrorKind::Server(ServerErrorKind::ResponseError) => {
            // What the client says of a `SELECT` has only the server's words in it.
            const PASSES: [&str; 3] = ["max number of clients", "loading", "busy"];
            let detail = error.detail().unwrap_or_default();
            !PASSES.iter().any(|words| detail.contains(words))
        }
        // A code that the client does not know, and neither do we.
        ErrorKind::Extension => matches!(error.code(), Some("NOPROTO" | "DENIED")),
        ErrorKind::AuthenticationFailed
        | ErrorKind::InvalidClientConfig
        | ErrorKind::UnexpectedReturnType
        | ErrorKind::RESP3NotSupported
        | ErrorKind::EmptySentinelList
        | ErrorKind::Server(
            ServerErrorKind::ExecAbort | ServerErrorKind::CrossSlot | ServerErrorKind::NoPerm,
        ) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;

    fn of_server(code: &str, words: &str) -> StoreError {
        classify("replace", redis::make_extension_error(code.to_string(), Some(words.to_string())))
    }

    #[test]
    fn what_passes_by_itself_may_be_tried_again() {
        let passes = [
            "BUSY",
            "CLUSTERDOWN",
            "LOADING",
            "MASTERDOWN",
            "MISCONF",
            "NOREPLICAS",
            "OOM",
            "READONLY",
            "TRYAGAIN",
            "UNKILLABLE",
            "UNSAVED",
        ];
        for code in passes {
            assert!(of_server(code, "words").is_retryable(), "{code}");
        }
        for kind in [
            ServerErrorKind::BusyLoading,
            ServerErrorKind::ClusterDown,
            ServerErrorKind::MasterDown,
            ServerErrorKind::ReadOnly,
            ServerErrorKind::TryAgain,
        ] {
            let error = RedisError::from((ErrorKind::Server(kind), "words"));
            assert!(classify("replace", error).is_retryable(), "{kind:?}");
        }
        for words in [
            "max number of clients reached",
            "Error running script (call to f_1): @user_script:3: @user_script: 3: -OOM no memory",
            "Error running script (call to f_1): @user_script:3: @user_script: 3: -MISCONF no disk",
        ] {
            let kind = ErrorKind::Server(ServerErrorKind::ResponseError);
            let error = RedisError::from((kind, "An error", words.to_string()));
            assert!(classify("replace", error).is_retryable(), "{words}");
        }
    }

    #[test]
    fn a_url_that_is_not_taken_is_explained() {
        let no_url = redis::Client::open("127.0.0.1:6379").unwrap_err();
        // As the client says without a TLS feature, which another crate may turn on.
        let words = "can't connect with TLS, the feature is not enabled";
        let no_tls = RedisError::from((ErrorKind::InvalidClientConfig, words));
        for (error, told) in [(no_url, "begins with `redis://`"), (no_tls, "add the crate `redis`")]
        {
            let error = classify("connect", error);
            let cause = error.source().unwrap().to_string();
            assert!(!error.is_retryable() && cause.contains(told), "{cause}");
        }
    }

    #[test]
    fn what_stays_is_permanent() {
        for code in ["CROSSSLOT", "DENIED", "MOVED", "NOAUTH", "NOPERM", "WRONGPASS", "WRONGTYPE"] {
            assert!(!of_server(code, "words").is_retryable(), "{code}");
        }
        let kind = ErrorKind::Server(ServerErrorKind::ResponseError);
        for (words, told) in [
            ("unknown command 'EVAL'", "unknown command"),
            ("The user executing the script can't run this command or subcommand", "RENAME"),
            (
                "ACL failure in script: User a has no permissions to run the 'zadd' command",
                "RENAME",
            ),
        ] {
            let error = RedisError::from((kind, "An error", words.to_string()));
            let error = classify("replace", error);
            let cause = error.source().unwrap().to_string();
            assert!(!error.is_retryable() && cause.contains(told), "{cause}");
        }
    }
}
