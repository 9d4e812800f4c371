//! What [`Migrating`](super::migrating::Migrating) keeps in its stores beside sessions.
//!
//! As that of a [tombstone](crate::record::tombstone), the payload of each opens nothing.

use std::time::{Duration, SystemTime};

use crate::{
    clock::{from_millis, to_millis},
    record::{LAST_VERSION, Record},
};

/// Begins the payload of a record that is on its way. After the prefix: the record's version, the end of a record
/// that ends before the one in `old` (else all ones), and its payload.
const MOVING: &[u8] = b"\0moving";

const MOVED: &[u8] = b"\0moved";

const ENDED: &[u8] = b"\0ended";

/// How long a mark stays at least.
const MARKED: Duration = Duration::from_secs(60);

/// The version of a record that is on its way. No save is based on it, and whatever comes after has a later one:
/// what copies records goes by that, such as a mirror or a near cache.
pub(crate) const MOVING_VERSION: u64 = 0;

/// The version of a mark, after which nothing comes.
pub(crate) const MARK_VERSION: u64 = LAST_VERSION;

/// What `new` has under a key.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    Nothing,
    Session(Record),
    /// A session that is on its way: it lives as long as `old` has a witness, which is the session as it was, or
    /// the mark [`moved`].
    Moving(Record),
    /// The mark of a move that began after the end of its session.
    Ended,
}

impl Found {
    pub(crate) fn of(record: Option<Record>) -> Self {
        match record {
            None => Self::Nothing,
            Some(record) if *record.payload == *ENDED => Self::Ended,
            Some(record) => arrived(&record).map_or(Self::Session(record), Self::Moving),
        }
    }
}

/// The record on its way, in place of `in_old`. It outlives that one, which could come back else.
pub(crate) fn moving(record: &Record, in_old: &Record) -> Record {
    let end = match record.expires_at < in_old.expires_at {
        true => to_millis(record.expires_at),
        false => u64::MAX,
    };
    let head = [record.version.to_be_bytes(), end.to_be_bytes()].concat();
    Record {
        version: MOVING_VERSION,
        expires_at: record.expires_at.max(in_old.expires_at),
        payload: [MOVING, &head, &record.payload].concat().into(),
        ..record.clone()
    }
}

/// The record that [`moving`] has made this one of.
fn arrived(record: &Record) -> Option<Record> {
    let rest = record.payload.strip_prefix(MOVING)?;
    let (version, rest) = rest.split_first_chunk()?;
    let (end, payload) = rest.split_first_chunk()?;
    let expires_at = match u64::from_be_bytes(*end) {
        // With what `touch` has added.
        u64::MAX => record.expires_at,
        end => from_millis(end),
    };
    let version = u64::from_be_bytes(*version);
    Some(Record { version, expires_at, payload: payload.into(), ..record.clone() })
}

/// The mark in `old` in the place of a session that has been moved. It outlives what is on its way.
pub(crate) fn moved(record: &Record, in_old: &Record) -> Record {
    let last = record.expires_at.max(in_old.expires_at);
    mark(MOVED, last.checked_add(MARKED).unwrap_or(last))
}

pub(crate) fn is_moved(record: &Record) -> bool {
    *record.payload == *MOVED
}

/// The mark of the end of a session, which could have lived for so long: then a move that has begun before brings
/// nothing back, however long it stands still.
pub(crate) fn ended(could_live_until: SystemTime) -> Record {
    let least = SystemTime::now() + MARKED;
    let last = could_live_until.checked_add(MARKED).unwrap_or(could_live_until);
    mark(ENDED, last.max(least))
}

fn mark(payload: &[u8], expires_at: SystemTime) -> Record {
    let created_at = SystemTime::UNIX_EPOCH;
    Record { version: MARK_VERSION, created_at, expires_at, user: None, payload: payload.into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tombstone::is_tombstone;

    fn record(version: u64, minutes: u64, payload: &[u8]) -> Record {
        let now = from_millis(1_767_225_600_000);
        let expires_at = now + Duration::from_secs(60 * minutes);
        Record {
            version,
            created_at: now,
            expires_at,
            user: Some("u".into()),
            payload: payload.into(),
        }
    }

    #[test]
    fn what_is_on_its_way_arrives_as_it_was() {
        for payload in [&b""[..], b"x", MOVING, ENDED] {
            for minutes in [1, 5, 9] {
                let (before, after) = (record(1, 5, b"before"), record(2, minutes, payload));
                let moving = moving(&after, &before);
                assert!(is_tombstone(&moving) && moving.version == MOVING_VERSION);
                assert!(moving.expires_at >= before.expires_at.max(after.expires_at));
                assert_eq!(moving.user, after.user);
                assert_eq!(Found::of(Some(moving)), Found::Moving(after));
            }
        }
    }

    #[test]
    fn what_is_touched_on_its_way_lives_longer_unless_it_was_cut_short() {
        let before = record(1, 5, b"before");
        for (minutes, then) in [(1, 1), (5, 7), (6, 7)] {
            let moving = moving(&record(2, minutes, b"x"), &before);
            let touched = moving.with_expires_at(record(0, 7, b"").expires_at);
            assert_eq!(Found::of(Some(touched)), Found::Moving(record(2, then, b"x")));
        }
    }

    #[test]
    fn a_mark_is_no_session_and_no_session_is_a_mark() {
        let (before, after) = (record(1, 9, b"before"), record(2, 5, b"after"));
        let moved = moved(&after, &before);
        assert!(is_moved(&moved) && is_tombstone(&moved) && is_tombstone(&ended(after.expires_at)));
        assert!(moved.expires_at > moving(&after, &before).expires_at);
        assert_eq!(Found::of(Some(ended(after.expires_at))), Found::Ended);
        assert_eq!(Found::of(None), Found::Nothing);
        for session in [after, record(3, 5, b""), record(4, 5, &[0; 17]), record(0, 5, MOVING)] {
            assert!(!is_moved(&session));
            assert_eq!(Found::of(Some(session.clone())), Found::Session(session));
        }
    }
}
