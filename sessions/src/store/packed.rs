//! A record as one run of bytes, for stores whose values are nothing else.
//!
//! What a script on a server has to look at stands at the front, at fixed places:
//!
//! ```text
//! 0      1        9           17          25            29
//! format version  expires_at  created_at  user length   user, then the payload
//! ```
//!
//! Numbers are big-endian, times milliseconds since 1970. The user's length is one more than it
//! is; 0 is no user.

use std::io::Write;

use crate::{
    clock::{from_millis, to_millis},
    record::Record,
};

/// The first byte of every packed record.
const FORMAT: u8 = 1;
/// Where the user begins.
const HEAD: usize = 29;

/// A time as stores keep it: at most what a script's number (a double) holds exactly, which is in
/// the year 287396.
pub(crate) fn stored_millis(time: std::time::SystemTime) -> u64 {
    to_millis(time).min((1 << 53) - 1)
}

pub(crate) fn pack(record: &Record) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(packed_length(record));
    pack_into(&mut bytes, record);
    bytes
}

pub(crate) fn packed_length(record: &Record) -> usize {
    head_length(record) + record.payload.len()
}

/// How long is what stands before the payload.
pub(crate) fn head_length(record: &Record) -> usize {
    HEAD + record.user.as_deref().map_or(0, str::len)
}

/// For a caller that has room for it already: `out` is memory, and takes what it is given.
pub(crate) fn pack_into(out: &mut impl Write, record: &Record) {
    pack_head_into(out, record, record.version);
    out.write_all(&record.payload).expect("memory");
}

/// What stands before the payload, as it is for `version`.
pub(crate) fn pack_head_into(out: &mut impl Write, record: &Record, version: u64) {
    let user = record.user.as_deref();
    // A user of four gigabytes would be cut off here, and `unpack` find the bytes of the payload.
    let user_length = user.map_or(0, |user| u32::try_from(user.len() + 1).unwrap_or(u32::MAX));
    let [expires_at, created_at] = [record.expires_at, record.created_at].map(stored_millis);
    let mut head = [0; HEAD];
    head[0] = FORMAT;
    head[1..9].copy_from_slice(&version.to_be_bytes());
    head[9..17].copy_from_slice(&expires_at.to_be_bytes());
    head[17..25].copy_from_slice(&created_at.to_be_bytes());
    head[25..].copy_from_slice(&user_length.to_be_bytes());
    out.write_all(&head).expect("memory");
    out.write_all(user.unwrap_or_default().as_bytes()).expect("memory");
}

/// The record that [`pack`] made into `bytes`; `None` if something else made them.
pub(crate) fn unpack(bytes: &[u8]) -> Option<Record> {
    let (format, rest) = bytes.split_first()?;
    if *format != FORMAT {
        return None;
    }
    let (version, rest) = rest.split_first_chunk()?;
    let (expires_at, rest) = rest.split_first_chunk()?;
    let (created_at, rest) = rest.split_first_chunk()?;
    let (user_length, rest) = rest.split_first_chunk()?;
    let (user, payload) = match u32::from_be_bytes(*user_length).checked_sub(1) {
        None => (None, rest),
        Some(length) => {
            let (user, payload) = rest.split_at_checked(usize::try_from(length).ok()?)?;
            (Some(std::str::from_utf8(user).ok()?.into()), payload)
        }
    };
    Some(Record {
        version: u64::from_be_bytes(*version),
        created_at: from_millis(u64::from_be_bytes(*created_at)),
        expires_at: from_millis(u64::from_be_bytes(*expires_at)),
        user,
        payload: payload.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_back_and_nothing_else_does() {
        for user in [None, Some(""), Some("ann\0 ë")] {
            let record = Record {
                version: u64::MAX,
                created_at: from_millis(1),
                expires_at: from_millis(2),
                user: user.map(Into::into),
                payload: [0, 255, 1].into(),
            };
            let bytes = pack(&record);
            assert_eq!(unpack(&bytes), Some(record));
            let whole = bytes.len() - 3;
            for cut in 0..whole {
                assert_eq!(unpack(&bytes[..cut]), None, "cut at {cut}");
            }
        }
        assert_eq!(unpack(&[2; 64]), None, "another format");
        let mut bad_user = [0; 64];
        bad_user[0] = FORMAT;
        bad_user[28] = 3;
        bad_user[29] = 0xff;
        assert_eq!(unpack(&bad_user), None, "a user that is no text");
    }
}
