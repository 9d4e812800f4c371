//! One session in memory.

use std::{sync::Arc, time::SystemTime};

use super::{heap::Due, table::Place};
use crate::{
    clock::{from_millis, to_millis},
    identity::id::StoreKey,
    record::Record,
};

/// What a session is worth when the store is full: the least is the first to give way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Worth {
    /// Nobody's, and no request has come back to it: all that a flood of requests without cookies
    /// makes.
    Unused,
    /// Nobody's.
    Used,
    /// A user has logged in. It never gives way.
    LoggedIn,
}

impl Worth {
    pub(super) const ALL: [Self; 3] = [Self::Unused, Self::Used, Self::LoggedIn];
}

/// Milliseconds since 1970, in six bytes: enough until the year 10889. Later counts as then.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp([u8; 6]);

impl Stamp {
    const MAX: u64 = (1 << 48) - 1;

    pub(super) fn from_millis(millis: u64) -> Self {
        let [a, b, c, d, e, f, ..] = millis.min(Self::MAX).to_le_bytes();
        Self([a, b, c, d, e, f])
    }

    fn of(time: SystemTime) -> Self {
        Self::from_millis(to_millis(time))
    }

    pub(super) fn millis(self) -> u64 {
        let [a, b, c, d, e, f] = self.0;
        u64::from_le_bytes([a, b, c, d, e, f, 0, 0])
    }
}

/// A key and its record.
///
/// The memory of a busy store is in no cache, and each place that says where the next one is costs as much as a
/// hundred instructions and more. So a usual session is one piece of memory; what is given out of that is
/// copied.
pub(super) enum Entry {
    /// The head, the user, the payload.
    Small(Box<[u8]>),
    Large(Box<Large>),
}

/// What is too long to be copied for each request, and is shared instead.
pub(super) struct Large {
    head: Head,
    user: Option<Arc<str>>,
    payload: Arc<[u8]>,
}

/// The largest payload that is copied.
const LARGEST_COPIED: usize = 512;

/// The fixed part of an entry.
///
/// ```text
/// key (32)  expires (6)  created (6)  version (8)  length of the user and one more, or zero (1)
/// ```
///
/// Numbers begin with their low byte.
type Head = [u8; HEAD];

const HEAD: usize = USER_AT + 1;
const EXPIRES_AT: usize = 32;
const CREATED_AT: usize = EXPIRES_AT + 6;
const VERSION_AT: usize = CREATED_AT + 6;
const USER_AT: usize = VERSION_AT + 8;

impl Entry {
    pub(super) fn new(key: &StoreKey, record: &Record) -> Self {
        let Record { version, created_at, expires_at, user, payload } = record;
        let user_length = user.as_ref().map_or(0, |user| user.len() + 1);
        let is_small = payload.len() <= LARGEST_COPIED && user_length <= usize::from(u8::MAX);
        let mut head = [0; HEAD];
        head[..EXPIRES_AT].copy_from_slice(key.as_bytes());
        head[EXPIRES_AT..CREATED_AT].copy_from_slice(&Stamp::of(*expires_at).0);
        head[CREATED_AT..VERSION_AT].copy_from_slice(&Stamp::of(*created_at).0);
        head[VERSION_AT..USER_AT].copy_from_slice(&version.to_le_bytes());
        if !is_small {
            let (user, payload) = (user.clone(), payload.clone());
            return Self::Large(Box::new(Large { head, user, payload }));
        }
        head[USER_AT] = user_length as u8;
        let user = user.as_deref().unwrap_or_default();
        let mut bytes = Vec::with_capacity(HEAD + user.len() + payload.len());
        bytes.extend_from_slice(&head);
        bytes.extend_from_slice(user.as_bytes());
        bytes.extend_from_slice(payload);
        Self::Small(bytes.into())
    }

    /// Writes the record over the one that is there, if that is as long and copied, and the same user's: then
    /// nothing is allocated and nothing freed, and the session costs what it did. Says whether it has.
    pub(super) fn overwrite(&mut self, record: &Record) -> bool {
        let Record { version, created_at, expires_at, user, payload } = record;
        if self.user() != user.as_deref() || self.payload().len() != payload.len() {
            return false;
        }
        let Self::Small(bytes) = self else { return false };
        let payload_at = bytes.len() - payload.len();
        let (head, behind) = bytes.split_at_mut(payload_at);
        if let Some(head) = head.first_chunk_mut::<HEAD>() {
            head[EXPIRES_AT..CREATED_AT].copy_from_slice(&Stamp::of(*expires_at).0);
            head[CREATED_AT..VERSION_AT].copy_from_slice(&Stamp::of(*created_at).0);
            head[VERSION_AT..USER_AT].copy_from_slice(&version.to_le_bytes());
        }
        behind.copy_from_slice(payload);
        true
    }

    /// Stands where there is no session, and takes no memory.
    pub(super) fn none() -> Self {
        Self::Small(Box::default())
    }

    fn head(&self) -> &Head {
        match self {
            // Only `none` has no head.
            Self::Small(bytes) => bytes.first_chunk().unwrap_or(&[0; HEAD]),
            Self::Large(large) => &large.head,
        }
    }

    fn key_bytes(&self) -> &[u8; EXPIRES_AT] {
        self.head().first_chunk().unwrap_or(&[0; EXPIRES_AT])
    }

    pub(super) fn is_under(&self, key: &StoreKey) -> bool {
        self.key_bytes() == key.as_bytes()
    }

    pub(super) fn key(&self) -> StoreKey {
        StoreKey::from_bytes(*self.key_bytes())
    }

    /// The record. What is large is shared, not copied.
    pub(super) fn record(&self) -> Record {
        let (user, payload) = match self {
            Self::Small(_) => (self.user().map(Into::into), self.payload().into()),
            Self::Large(large) => (large.user.clone(), large.payload.clone()),
        };
        Record {
            version: self.version(),
            created_at: from_millis(self.stamp(CREATED_AT).millis()),
            expires_at: self.expires_at(),
            user,
            payload,
        }
    }

    /// Whether it says what this record says, but for times: when the session was first saved is the same in all of
    /// its records. Of a large one, whether it was made of that or gave it out.
    pub(super) fn is_of(&self, record: &Record) -> bool {
        let is_payload = match self {
            Self::Small(_) => self.payload() == &*record.payload,
            Self::Large(large) => Arc::ptr_eq(&large.payload, &record.payload),
        };
        is_payload && self.version() == record.version && self.user() == record.user.as_deref()
    }

    pub(super) fn user(&self) -> Option<&str> {
        match self {
            Self::Small(bytes) => {
                let length = usize::from(self.head()[USER_AT]).checked_sub(1)?;
                str::from_utf8(bytes.get(HEAD..HEAD + length)?).ok()
            }
            Self::Large(large) => large.user.as_deref(),
        }
    }

    fn payload(&self) -> &[u8] {
        match self {
            Self::Small(bytes) => {
                let user_length = usize::from(self.head()[USER_AT]).saturating_sub(1);
                bytes.get(HEAD + user_length..).unwrap_or_default()
            }
            Self::Large(large) => &large.payload,
        }
    }

    pub(super) fn version(&self) -> u64 {
        let version = self.head()[VERSION_AT..].first_chunk();
        u64::from_le_bytes(*version.unwrap_or(&[0; 8]))
    }

    fn stamp(&self, at: usize) -> Stamp {
        Stamp(*self.head()[at..].first_chunk().unwrap_or(&[0; 6]))
    }

    /// When it expires.
    pub(super) fn expires(&self) -> Stamp {
        self.stamp(EXPIRES_AT)
    }

    pub(super) fn expires_at(&self) -> SystemTime {
        from_millis(self.expires().millis())
    }

    /// `now` is in milliseconds since 1970.
    pub(super) fn is_expired(&self, now: u64) -> bool {
        self.expires().millis() <= now
    }

    pub(super) fn set_expiry(&mut self, expires: Stamp) {
        let head = match self {
            Self::Small(bytes) => bytes.get_mut(..HEAD),
            Self::Large(large) => Some(&mut large.head[..]),
        };
        if let Some(head) = head {
            head[EXPIRES_AT..CREATED_AT].copy_from_slice(&expires.0);
        }
    }

    /// What a session that was worth this much before is worth with this record.
    pub(super) fn worth(&self, before: Worth) -> Worth {
        match self.user() {
            Some(_) => Worth::LoggedIn,
            None => before.min(Worth::Used),
        }
    }

    /// About how many bytes of memory it takes, all in all: rather more than less.
    pub(super) fn cost(&self) -> usize {
        /// Its places in a hash table and in a heap, of which [half may be empty](super::shard::Shard::smaller).
        const PLACE: usize = size_of::<Place>() * 5 / 2 + size_of::<Due>() * 3 / 2;
        /// An entry in the index of users: a place in its table, and a table of its own for the user's sessions.
        const USER: usize = 3 * size_of::<[usize; 8]>() + 224;
        /// What an `Arc` counts with.
        const COUNTS: usize = 2 * size_of::<usize>();
        let name = |user: &str| allocated(COUNTS + user.len());
        // The index may have the name from another session of the user, which is gone by now.
        let in_index = self.user().map_or(0, |user| USER + name(user));
        let pieces = match self {
            Self::Small(bytes) => allocated(bytes.len()),
            Self::Large(large) => {
                allocated(size_of::<Large>())
                    + allocated(COUNTS + large.payload.len())
                    + large.user.as_deref().map_or(0, name)
            }
        };
        PLACE + in_index + pieces + scattered(pieces)
    }
}

/// What an allocator cannot use of the memory that pieces of so many bytes have left: of larger pieces more, as
/// smaller ones come to lie where they were. Measured with glibc's, of sessions of random lengths that come and go
/// for long.
const fn scattered(bytes: usize) -> usize {
    bytes.saturating_sub(128) / 4
}

/// What an allocator takes for so many bytes: common ones round up to 16, after a word of their own.
const fn allocated(bytes: usize) -> usize {
    (bytes + 8).next_multiple_of(16)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(version: u64, user: Option<&str>, payload: &[u8]) -> Record {
        let (created_at, expires_at) = (from_millis(1), from_millis(Stamp::MAX));
        let (user, payload) = (user.map(Into::into), payload.into());
        Record { version, created_at, expires_at, user, payload }
    }

    fn key(number: u8) -> StoreKey {
        StoreKey::from_bytes([number; 32])
    }

    #[test]
    #[cfg(target_pointer_width = "64")]
    fn it_has_two_words() {
        assert_eq!(size_of::<Entry>(), 16);
    }

    #[test]
    fn it_gives_back_its_record() {
        let (name, bytes) = ("a".repeat(300), [7; 2 * LARGEST_COPIED]);
        let is_large = |entry: &Entry| matches!(entry, Entry::Large(_));
        for version in [0, 1, u64::from(u32::MAX), 1 << 32, u64::MAX] {
            for user in [None, Some(0), Some(3), Some(254), Some(255), Some(300)] {
                for length in [0, 1, LARGEST_COPIED, LARGEST_COPIED + 1, bytes.len()] {
                    let name = user.map(|user| &name[..user]);
                    let record = record(version, name, &bytes[..length]);
                    let mut entry = Entry::new(&key(1), &record);
                    let is_long = user.is_some_and(|user| user > 254) || length > LARGEST_COPIED;
                    assert_eq!(is_large(&entry), is_long);
                    assert!(entry.is_under(&key(1)) && !entry.is_under(&key(2)));
                    assert!(entry.key() == key(1));
                    assert_eq!(entry.record(), record);
                    assert!(entry.is_of(&record) && entry.is_of(&entry.record()));
                    let others = [
                        Record { version: version ^ 1, ..record.clone() },
                        Record { user: Some("Zoë".into()), ..record.clone() },
                        Record { user: Some("".into()), ..record.clone() },
                        Record { payload: [6; 5].into(), ..record.clone() },
                    ];
                    let same = others.iter().filter(|other| entry.is_of(other)).count();
                    assert_eq!(same, usize::from(user == Some(0)));
                    entry.set_expiry(Stamp::from_millis(7));
                    assert_eq!(entry.record(), Record { expires_at: from_millis(7), ..record });
                    assert!(entry.is_expired(7) && !entry.is_expired(6));
                }
            }
        }
        // Beyond its range a time is the last one that it has.
        assert_eq!(Stamp::from_millis(u64::MAX).millis(), Stamp::MAX);
        assert_eq!(Entry::none().user(), None);
        assert!(Entry::none().payload().is_empty());
    }

    #[test]
    fn what_is_as_long_and_of_the_same_user_is_written_over() {
        for user in [None, Some(""), Some("ann")] {
            let before = record(1, user, &[7; 100]);
            let entry = || Entry::new(&key(1), &before);
            let now = Record {
                version: 2,
                created_at: from_millis(2),
                expires_at: from_millis(3),
                payload: [8; 100].into(),
                ..before.clone()
            };
            let mut written = entry();
            assert!(written.overwrite(&now));
            assert!(written.record() == now && written.is_under(&key(1)));
            assert_eq!(written.cost(), entry().cost());
            for other in [
                Record { user: Some("bob".into()), ..now.clone() },
                Record { payload: [8; 99].into(), ..now.clone() },
                Record { payload: [8; 101].into(), ..now.clone() },
            ] {
                let mut kept = entry();
                assert!(!kept.overwrite(&other));
                assert_eq!(kept.record(), before);
            }
        }
        // Others may have the one that it has given out.
        let large = record(1, None, &[7; LARGEST_COPIED + 1]);
        let mut kept = Entry::new(&key(1), &large);
        assert!(!kept.overwrite(&Record { version: 2, ..large.clone() }));
        assert_eq!(kept.record(), large);
    }

    #[test]
    fn a_large_one_is_that_which_was_given_out_and_no_copy() {
        let record = record(1, None, &[7; 2 * LARGEST_COPIED]);
        let entry = Entry::new(&key(1), &record);
        assert!(Arc::ptr_eq(&entry.record().payload, &record.payload));
        assert!(!entry.is_of(&Record { payload: (*record.payload).into(), ..record }));
    }

    #[test]
    fn a_session_costs_what_is_kept_of_it() {
        let cost = |user: Option<&str>, length: usize| {
            Entry::new(&key(1), &record(1, user, &vec![7; length])).cost()
        };
        // A box of 53 bytes and the payload.
        assert!(cost(None, 80) > 53 + 80 + size_of::<Place>() * 2 + size_of::<Due>() * 2);
        let (long, longer) = ("a".repeat(300), "a".repeat(1300));
        // A name that is too long for the box may be kept twice: by the session, and by the index of users.
        assert!(cost(Some(&longer), 0) >= cost(Some(&long), 0) + 2 * 1000);
        assert!(cost(Some("ann"), 512) > cost(None, 512) + 400);
        for length in (0..2000).step_by(8) {
            assert!(cost(None, length) <= cost(None, length + 8), "{length}");
        }
    }

    #[test]
    fn whose_it_is_and_whether_it_is_used_make_its_worth() {
        let entry = |user: Option<&str>| Entry::new(&key(1), &record(1, user, b""));
        for before in Worth::ALL {
            assert_eq!(entry(Some("ann")).worth(before), Worth::LoggedIn);
        }
        // What has lost its user was in use.
        let of_nobody = Worth::ALL.map(|before| entry(None).worth(before));
        assert_eq!(of_nobody, [Worth::Unused, Worth::Used, Worth::Used]);
    }
}
