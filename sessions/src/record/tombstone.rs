//! What stays for a moment under the id of a session that goes on under another one.

use std::time::{Duration, SystemTime};

use crate::{
    error::Error,
    identity::id::SessionId,
    record::{LAST_VERSION, Record},
};

/// Begins the payload of a tombstone. No payload of a session begins so: a tombstone opens nothing.
const TOMBSTONE: &[u8] = &[0];

/// How long a tombstone stays: so long a client may send its old cookie, because the response with
/// the new one has not reached the client, or the request was sent just before.
pub(crate) const GRACE: Duration = Duration::from_secs(10);

/// The record that stays under the old id of a session that goes on under another id.
pub(crate) fn new(version: u64, now: SystemTime, expires_at: SystemTime) -> Result<Record, Error> {
    // Random, so that this renewal can tell its tombstone from that of another one.
    let payload = [TOMBSTONE, SessionId::generate()?.as_bytes()].concat().into();
    Ok(Record { version, created_at: now, expires_at, user: None, payload })
}

/// The record that takes the place of a session that is over, of this version, until it is deleted.
pub(crate) fn of_ended(version: u64) -> Record {
    Record {
        version: version.saturating_add(1).min(LAST_VERSION),
        // No session goes on: whoever meets it has not to wait for another cookie.
        created_at: SystemTime::UNIX_EPOCH,
        expires_at: SystemTime::now() + GRACE,
        user: None,
        payload: TOMBSTONE.into(),
    }
}

/// Whether the record is a tombstone.
pub(crate) fn is_tombstone(record: &Record) -> bool {
    record.payload.starts_with(TOMBSTONE)
}

/// Whether the record is the tombstone of a session that got another id a moment ago. A `touch` may
/// have made the tombstone last longer.
pub(crate) fn has_just_moved(record: &Record, now: SystemTime) -> bool {
    // The clock of the process that wrote it may be ahead.
    let age = now.duration_since(record.created_at).unwrap_or_else(|ahead| ahead.duration());
    is_tombstone(record) && age < GRACE
}
