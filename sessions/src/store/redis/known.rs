//! The records that have just been loaded, so that a save need not send all of them again.

use std::{
    ops::Range,
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::{Record, StoreKey, store::packed::stored_millis};

/// As many as may be between their load and their save at the same time; of two in one place the
/// later one stays.
const PLACES: usize = 512;

/// Payloads whose parts are worth more than a look at what has changed, in bytes. Those that are
/// larger are not kept.
const WORTHWHILE: Range<usize> = 512..32 * 1024;

/// A record that the server has, and the mark of the save that wrote it.
pub(super) struct Known {
    pub(super) mark: [u8; 8],
    pub(super) record: Record,
}

type Place = Mutex<Option<(StoreKey, Known)>>;

pub(super) struct KnownRecords {
    places: Box<[Place]>,
}

impl KnownRecords {
    pub(super) fn new() -> Self {
        Self { places: (0..PLACES).map(|_| Place::default()).collect() }
    }

    pub(super) fn put(&self, key: &StoreKey, mark: [u8; 8], record: &Record) {
        if WORTHWHILE.contains(&record.payload.len()) {
            let known = Known { mark, record: record.clone() };
            let before = self.place(key).replace((*key, known));
            drop(before);
        }
    }

    pub(super) fn take(&self, key: &StoreKey) -> Option<Known> {
        let taken = self.place(key).take_if(|(of, _)| of == key);
        taken.map(|(_, known)| known)
    }

    fn place(&self, key: &StoreKey) -> MutexGuard<'_, Option<(StoreKey, Known)>> {
        let [first, second, ..] = key.as_bytes();
        let place = usize::from(u16::from_be_bytes([*first, *second])) % PLACES;
        self.places[place].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    /// Which bytes of its payload `next` has to write over this one's, if that is all it takes: expiry
    /// and user stay, the payload does not get shorter, and most of it is what it was.
    pub(super) fn change_to(&self, next: &Record) -> Option<Range<usize>> {
        let Self { record, .. } = self;
        let (old, new) = (&*record.payload, &*next.payload);
        if record.user != next.user
            || stored_millis(record.expires_at) != stored_millis(next.expires_at)
            || stored_millis(record.created_at) != stored_millis(next.created_at)
            || new.len() < old.len()
        {
            return None;
        }
        let start = common_prefix(old.iter(), new.iter(), old.chunks(CHUNK), new.chunks(CHUNK));
        // What gets longer is written to its end.
        let same = match new.len() == old.len() {
            true => {
                let (old, new) = (&old[start..], &new[start..]);
                let chunks = (old.rchunks(CHUNK), new.rchunks(CHUNK));
                common_prefix(old.iter().rev(), new.iter().rev(), chunks.0, chunks.1)
            }
            false => 0,
        };
        let change = start..new.len() - same;
        (change.len() <= new.len() / 2).then_some(change)
    }
}

/// Of so many bytes at once the processor can tell whether they are the same.
const CHUNK: usize = 128;

/// How many bytes are the same from the beginning of both iterators on, which give the same bytes
/// one by one and in chunks.
fn common_prefix<'a>(
    mut old: impl Iterator<Item = &'a u8>,
    mut new: impl Iterator<Item = &'a u8>,
    old_chunks: impl Iterator<Item = &'a [u8]>,
    new_chunks: impl Iterator<Item = &'a [u8]>,
) -> usize {
    let chunks = old_chunks.zip(new_chunks);
    let same = chunks.take_while(|(old, new)| old.len() == CHUNK && old == new).count() * CHUNK;
    if same > 0 {
        old.nth(same - 1);
        new.nth(same - 1);
    }
    same + old.zip(new).take_while(|(old, new)| old == new).count()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;

    fn record(payload: &[u8]) -> Record {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        Record { version: 1, created_at: now, expires_at: now, user: None, payload: payload.into() }
    }

    fn known(payload: &[u8]) -> Known {
        Known { mark: [1; 8], record: record(payload) }
    }

    #[test]
    fn what_changed_is_found_wherever_it_is() {
        let old: Vec<u8> = (0..1_000).map(|at| (at % 251) as u8).collect();
        for (start, end) in
            [(0, 1), (0, 0), (5, 6), (127, 129), (128, 256), (400, 700), (999, 1_000)]
        {
            let mut new = old.clone();
            new[start..end].iter_mut().for_each(|byte| *byte ^= 0xff);
            let change = known(&old).change_to(&record(&new)).expect("a small change");
            let expected = if start == end { 1_000..1_000 } else { start..end };
            assert_eq!(change, expected);
        }
        let longer = [&old[..900], &[0xff; 150]].concat();
        assert_eq!(known(&old).change_to(&record(&longer)), Some(900..longer.len()));
    }

    #[test]
    fn what_takes_more_than_a_few_bytes_is_sent_whole() {
        let old = [7; 1_000];
        assert_eq!(known(&old).change_to(&record(&old[1..])), None, "shorter");
        let mut new = old;
        new[..501].fill(8);
        assert_eq!(known(&old).change_to(&record(&new)), None, "mostly other bytes");
        let same = record(&old);
        for next in [
            Record { user: Some("7".into()), ..same.clone() },
            Record { expires_at: same.expires_at + Duration::from_millis(1), ..same.clone() },
            Record { created_at: same.created_at + Duration::from_millis(1), ..same.clone() },
        ] {
            assert_eq!(known(&old).change_to(&next), None);
        }
    }

    #[test]
    fn the_later_of_two_in_one_place_stays() {
        let records = KnownRecords::new();
        let key = |last: u8| {
            StoreKey::from_bytes(std::array::from_fn(|at| if at == 31 { last } else { 0 }))
        };
        records.put(&key(1), [1; 8], &record(&[7; 1_000]));
        records.put(&key(2), [2; 8], &record(&[7; 1_000]));
        assert!(records.take(&key(1)).is_none());
        assert_eq!(records.take(&key(2)).map(|known| known.mark), Some([2; 8]));
        assert!(records.take(&key(2)).is_none(), "it is taken once");
        for size in [0, 511, 32 * 1024] {
            records.put(&key(1), [1; 8], &record(&vec![7; size]));
            assert!(records.take(&key(1)).is_none(), "{size} bytes");
        }
    }
}
