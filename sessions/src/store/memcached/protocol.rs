//! memcached's text protocol: questions, answers, and what an answer means to the store.
//!
//! Spoken here, because what is wanted of a client is more than its commands: the client on crates.io
//! that knows `gets` and `cas` over tokio (`memcache-async`) is one bare connection, and what a call that
//! is dropped leaves half read on it would be the next one's answer. Four commands are enough: `gets`,
//! `add`, `cas`, `delete`.

use std::io;

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
};

use super::NAME;
use crate::error::store::StoreError;

/// A connection to a server, and what of its answers has come already.
pub(super) type Connection = BufReader<TcpStream>;

/// The largest line and the largest value that are read, whatever the server says.
const MAX_LINE: u64 = 2048;
const MAX_VALUE: usize = 128 * 1024 * 1024;

/// What a server did with a record that it was sent.
pub(super) enum Stored {
    Done,
    Exists,
    Missing,
}

/// Why there is no answer, or none that helps.
#[derive(Debug)]
pub(super) enum Failure {
    Io(io::Error),
    /// The server says no. Its words.
    Refused(String),
    /// What it says is not the protocol.
    Nonsense(String),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl Failure {
    /// `server` tells which of several it was.
    pub(super) fn into_error(self, operation: &'static str, server: &str) -> StoreError {
        match self {
            Self::Io(error) => {
                let source = io::Error::new(error.kind(), format!("{server}: {error}"));
                StoreError::new(NAME, operation, source)
            }
            Self::Refused(words) if words.contains("too large") => {
                let advice = "the record is larger than the server takes (its option `-I`)";
                StoreError::permanent(NAME, operation, format!("{advice}: {words}"))
            }
            Self::Refused(words) if words.contains("out of memory") => {
                let advice = "has no room left, and forgets nothing by itself (its option `-M`)";
                StoreError::new(NAME, operation, format!("{server} {advice}: {words}"))
            }
            Self::Refused(words) if words.contains("Too many open connections") => {
                let advice = "has as many connections as it takes (its option `-c`): let those of all \
                              processes together (`with_max_connections`) stay below that";
                StoreError::new(NAME, operation, format!("{server} {advice}: {words}"))
            }
            Self::Refused(words) if words.contains("unauthenticated") => {
                let advice = "wants a name and a password (its option `-Y`), and this store has none: keep it \
                              from strangers by its network instead";
                StoreError::permanent(NAME, operation, format!("{server} {advice}: {words}"))
            }
            Self::Refused(words) if words.starts_with("SERVER_ERROR") => {
                StoreError::new(NAME, operation, format!("{server}: {words}"))
            }
            Self::Refused(words) => StoreError::permanent(NAME, operation, words),
            Self::Nonsense(words) => {
                let words = format!("this is no answer of memcached: {words}");
                StoreError::new(NAME, operation, words)
            }
        }
    }
}

async fn send(connection: &mut Connection, bytes: &[u8]) -> io::Result<()> {
    connection.get_mut().write_all(bytes).await
}

/// One line of an answer, without its end.
async fn line(connection: &mut Connection) -> Result<String, Failure> {
    let mut line = Vec::new();
    (&mut *connection).take(MAX_LINE).read_until(b'\n', &mut line).await?;
    match line.strip_suffix(b"\r\n") {
        Some(line) => Ok(String::from_utf8_lossy(line).into_owned()),
        None if line.is_empty() => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
        None => Err(nonsense(&String::from_utf8_lossy(&line))),
    }
}

/// An answer that is not expected here.
fn nonsense(line: &str) -> Failure {
    let refusals = ["ERROR ", "SERVER_ERROR", "CLIENT_ERROR"];
    let is_refusal = line == "ERROR" || refusals.iter().any(|word| line.starts_with(word));
    let words = line.chars().take(100).collect::<String>().escape_debug().to_string();
    if is_refusal { Failure::Refused(words) } else { Failure::Nonsense(words) }
}

/// The bytes of an item, and the number of its last change.
pub(super) type Item = (Vec<u8>, u64);

pub(super) async fn gets<const COUNT: usize>(
    connection: &mut Connection,
    keys: [&str; COUNT],
) -> Result<[Option<Item>; COUNT], Failure> {
    send(connection, format!("gets {}\r\n", keys.join(" ")).as_bytes()).await?;
    let mut items = [const { None }; COUNT];
    // Missing keys are left out; the other keys come in the order of the question.
    let mut asked = keys.iter().zip(&mut items);
    loop {
        let head = line(connection).await?;
        if head == "END" {
            return Ok(items);
        }
        let found = asked.find_map(|(key, item)| Some((parse_value(&head, key)?, item)));
        let ((length, unique), item) = found.ok_or_else(|| nonsense(&head))?;
        let mut value = Vec::new();
        // Grows with what really comes.
        (&mut *connection).take(length as u64 + 2).read_to_end(&mut value).await?;
        if value.len() < length + 2 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        if !value.ends_with(b"\r\n") {
            return Err(Failure::Nonsense("a value without an end".to_string()));
        }
        value.truncate(length);
        *item = Some((value, unique));
    }
}

/// `VALUE <key> <flags> <bytes> <unique>`: the length and the number of the last change.
fn parse_value(head: &str, key: &str) -> Option<(usize, u64)> {
    let rest = head.strip_prefix("VALUE ")?.strip_prefix(key)?.strip_prefix(' ')?;
    let mut words = rest.split(' ').skip(1);
    let length = words.next()?.parse().ok().filter(|&length| length <= MAX_VALUE)?;
    Some((length, words.next()?.parse().ok()?))
}

/// `cas` with the number of the last change, `add` without.
pub(super) async fn put(
    connection: &mut Connection,
    key: &str,
    value: &[u8],
    lifetime: u64,
    unique: Option<u64>,
) -> Result<Stored, Failure> {
    let length = value.len();
    let head = match unique {
        Some(unique) => format!("cas {key} 0 {lifetime} {length} {unique}\r\n"),
        None => format!("add {key} 0 {lifetime} {length}\r\n"),
    };
    stored(&store(connection, &head, value).await?)
}

/// Takes an item away unless it has changed: `delete` knows no number of a change, and what is put with a
/// lifetime below zero is not there.
pub(super) async fn forget(
    connection: &mut Connection,
    key: &str,
    unique: u64,
) -> Result<Stored, Failure> {
    let answer = store(connection, &format!("cas {key} 0 -1 0 {unique}\r\n"), b"").await?;
    // There is no memory for the mark. A logout ends the session, whatever the deletion takes along.
    if answer.starts_with("SERVER_ERROR") {
        let is_done = delete(connection, key).await?;
        return Ok(if is_done { Stored::Done } else { Stored::Missing });
    }
    stored(&answer)
}

/// What the server says to an item.
async fn store(connection: &mut Connection, head: &str, value: &[u8]) -> Result<String, Failure> {
    // In one write, so that it is one packet if it fits.
    let mut bytes = Vec::with_capacity(head.len() + value.len() + 2);
    bytes.extend(head.as_bytes());
    bytes.extend(value);
    bytes.extend(b"\r\n");
    send(connection, &bytes).await?;
    line(connection).await
}

fn stored(answer: &str) -> Result<Stored, Failure> {
    match answer {
        "STORED" => Ok(Stored::Done),
        "EXISTS" | "NOT_STORED" => Ok(Stored::Exists),
        "NOT_FOUND" => Ok(Stored::Missing),
        _ => Err(nonsense(answer)),
    }
}

pub(super) async fn delete(connection: &mut Connection, key: &str) -> Result<bool, Failure> {
    send(connection, format!("delete {key}\r\n").as_bytes()).await?;
    let answer = line(connection).await?;
    match answer.as_str() {
        "DELETED" => Ok(true),
        "NOT_FOUND" => Ok(false),
        _ => Err(nonsense(&answer)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_announced() {
        assert_eq!(parse_value("VALUE a:1 0 12 77", "a:1"), Some((12, 77)));
        for wrong in [
            "VALUE a:2 0 12 77",
            "VALUE a:1 0 12",
            "VALUE a:1 0 -1 77",
            "a:1",
            "VALUE a:1 0 999999999999 1",
        ] {
            assert_eq!(parse_value(wrong, "a:1"), None, "{wrong}");
        }
    }

    #[test]
    fn what_helps_and_what_does_not() {
        let error = |line| nonsense(line).into_error("create", "cache");
        assert!(!error("SERVER_ERROR object too large for cache").is_retryable());
        assert!(error("SERVER_ERROR out of memory storing object").is_retryable());
        assert!(!error("CLIENT_ERROR bad data chunk").is_retryable());
        assert!(error("ERROR Too many open connections").is_retryable());
        assert!(!error("CLIENT_ERROR unauthenticated").is_retryable());
        assert!(error("HTTP/1.1 400 Bad Request").is_retryable());
    }
}
