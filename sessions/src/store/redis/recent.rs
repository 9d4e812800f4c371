//! The records that were just loaded or saved, so that the next save of one can send the changed parts alone.

use std::{
    ops::Range,
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::{identity::id::StoreKey, record::Record, store::packed::stored_millis};

/// As many as may be between their load and their save at the same time; of two in one place the
/// later one stays.
const PLACES: usize = 512;

/// Payloads whose parts are worth more than a look at what has changed, in bytes. Those that are
/// larger are not kept.
const WORTHWHILE: Range<usize> = 512..32 * 1024;

/// A record that the server has, and the write id of the save that wrote it.
pub(super) struct RecentRecord {
    pub(super) write_id: [u8; 8],
    pub(super) record: Record,
}

type Place = Mutex<Option<(StoreKey, RecentRecord)>>;

pub(super) struct RecentRecords {
    places: Box<[Place]>,
}

impl RecentRecords {
    pub(super) fn new() -> Self {
        Self { places: (0..PLACES).map(|_| Place::default()).collect() }
    }

    pub(super) fn put(&self, key: &StoreKey, write_id: [u8; 8], record: &Record) {
        if WORTHWHILE.contains(&record.payload.len()) {
            let recent = RecentRecord { write_id, record: record.clone() };
            let before = self.place(key).replace((*key, recent));
            drop(before);
        }
    }

    pub(super) fn take(&self, key: &StoreKey) -> Option<RecentRecord> {
        let taken = self.place(key).take_if(|(of, _)| of == key);
        taken.map(|(_, recent)| recent)
    }

    fn place(&self, key: &StoreKey) -> MutexGuard<'_, Option<(StoreKey, RecentRecord)>> {
        let [first, second, ..] = key.as_bytes();
        let place = usize::from(u16::from_be_bytes([*first, *second])) % PLACES;
        self.places[place].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RecentRecord {
    /// Which parts of its payload `next` has to write over this one's, if that is all it takes:
    /// expiry and user stay, the payload does not get shorter, and most of it is what it was. One part
    /// at least, in order: the head of a payload may change with each save, and a field far behind it.
    pub(super) fn changes_to(&self, next: &Record) -> Option<Vec<Range<usize>>> {
        let Self { record, .. } = self;
        let (old, new) = (&*record.payload, &*next.payload);
        if record.user != next.user
            || stored_millis(record.expires_at) != stored_millis(next.expires_at)
            || stored_millis(record.created_at) != stored_millis(next.created_at)
            || new.len() < old.len()
        {
            return None;
        }
        let (mut changes, mut at) = (Vec::new(), 0);
        loop {
            let start = at + common_prefix(&old[at..], &new[at..]);
            if start == old.len() {
                break;
            }
            let end = start + changed(&old[start..], &new[start..]);
            changes.push(start..end);
            at = end;
            if changes.len() == PARTS {
                // The rest as one, from the last part on to where the ends are the same.
                let same = match new.len() == old.len() {
                    true => common_suffix(&old[at..], &new[at..]),
                    false => 0,
                };
                if at < old.len() - same {
                    changes.last_mut()?.end = old.len() - same;
                }
                break;
            }
        }
        // What gets longer is written to its end.
        if new.len() > old.len() {
            let is_full = changes.len() == PARTS;
            match changes.last_mut().filter(|last| is_full || last.end == old.len()) {
                Some(last) => last.end = new.len(),
                None => changes.push(old.len()..new.len()),
            }
        }
        if changes.is_empty() {
            changes.push(new.len()..new.len());
        }
        let changed: usize = changes.iter().map(Range::len).sum();
        (changed <= new.len() / 2).then_some(changes)
    }
}

/// How many parts are written at most. Each is a command of its own for the server.
const PARTS: usize = 4;

/// Between two parts there are so many bytes at least that are the same: fewer are not worth a
/// command.
pub(super) const GAP: usize = 32;

/// Of so many bytes at once the processor can tell whether they are the same.
const CHUNK: usize = 128;

/// How many bytes are the same from the beginning on.
fn common_prefix(old: &[u8], new: &[u8]) -> usize {
    let chunks = old.chunks_exact(CHUNK).zip(new.chunks_exact(CHUNK));
    let same = chunks.take_while(|(old, new)| old == new).count() * CHUNK;
    same + old[same..].iter().zip(&new[same..]).take_while(|(old, new)| old == new).count()
}

/// How many bytes are the same at the end of both, which are of one length.
fn common_suffix(old: &[u8], new: &[u8]) -> usize {
    let chunks = old.rchunks_exact(CHUNK).zip(new.rchunks_exact(CHUNK));
    let same = chunks.take_while(|(old, new)| old == new).count() * CHUNK;
    let (old, new) = (&old[..old.len() - same], &new[..new.len() - same]);
    same + old.iter().rev().zip(new.iter().rev()).take_while(|(old, new)| old == new).count()
}

/// Where a change ends that begins with the first byte: so many are the same behind it that the next
/// change is another.
fn changed(old: &[u8], new: &[u8]) -> usize {
    let (mut end, mut same) = (0, 0);
    for (at, (old, new)) in old.iter().zip(new).enumerate() {
        same = if old == new { same + 1 } else { 0 };
        if same == 0 {
            end = at + 1;
        }
        if same == GAP {
            break;
        }
    }
    end
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;

    fn record(payload: &[u8]) -> Record {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        Record { version: 1, created_at: now, expires_at: now, user: None, payload: payload.into() }
    }

    fn recent(payload: &[u8]) -> RecentRecord {
        RecentRecord { write_id: [1; 8], record: record(payload) }
    }

    #[test]
    fn what_changed_is_found_wherever_it_is() {
        let old: Vec<u8> = (0..1_000).map(|at| (at % 251) as u8).collect();
        for (start, end) in
            [(0, 1), (0, 0), (5, 6), (127, 129), (128, 256), (400, 700), (999, 1_000)]
        {
            let mut new = old.clone();
            new[start..end].iter_mut().for_each(|byte| *byte ^= 0xff);
            let changes = recent(&old).changes_to(&record(&new)).expect("a small change");
            let expected = if start == end { 1_000..1_000 } else { start..end };
            assert_eq!(changes, [expected]);
        }
        let longer = [&old[..900], &[0xff; 150]].concat();
        let changes = recent(&old).changes_to(&record(&longer)).expect("a small change");
        assert_eq!((changes.len(), changes[0].clone()), (1, 900..longer.len()));
    }

    /// Whatever the two are, the parts make the one of the other.
    #[test]
    fn parts_make_the_new_of_the_old() {
        let mut random = 7_u64;
        let mut below = |most: usize| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (random >> 33) as usize % most
        };
        let mut in_parts = 0;
        for _ in 0..2_000 {
            let old: Vec<u8> = (0..below(1_500)).map(|_| below(3) as u8).collect();
            let mut new = old.clone();
            for _ in 0..below(8) {
                let (at, length) = (below(new.len() + 1), below(40));
                new.iter_mut().skip(at).take(length).for_each(|byte| *byte ^= 1 + below(2) as u8);
            }
            new.extend((0..below(3) * below(20)).map(|_| 9));
            let Some(changes) = recent(&old).changes_to(&record(&new)) else { continue };
            let mut put = old.clone();
            put.resize(new.len(), 0);
            for change in &changes {
                put[change.clone()].copy_from_slice(&new[change.clone()]);
            }
            assert_eq!(put, new, "{changes:?}");
            let ends = changes.windows(2).all(|pair| pair[0].end <= pair[1].start);
            assert!(ends && (1..=PARTS + 1).contains(&changes.len()), "{changes:?}");
            in_parts += usize::from(changes.len() > 1);
        }
        assert!(in_parts > 500, "{in_parts}");
    }

    /// The write ids of the last saves stand in front of the fields, and change with each.
    #[test]
    fn a_change_at_both_ends_is_two_parts() {
        let mut new = [7; 900];
        new[5..9].fill(1);
        new[880] = 2;
        let changes = recent(&[7; 900]).changes_to(&record(&new));
        assert_eq!(changes, Some(vec![5..9, 880..881]));
    }

    #[test]
    fn what_takes_more_than_a_few_bytes_is_sent_whole() {
        let old = [7; 1_000];
        assert_eq!(recent(&old).changes_to(&record(&old[1..])), None, "shorter");
        let mut new = old;
        new[..501].fill(8);
        assert_eq!(recent(&old).changes_to(&record(&new)), None, "mostly other bytes");
        let same = record(&old);
        for next in [
            Record { user: Some("7".into()), ..same.clone() },
            Record { expires_at: same.expires_at + Duration::from_millis(1), ..same.clone() },
            Record { created_at: same.created_at + Duration::from_millis(1), ..same.clone() },
        ] {
            assert_eq!(recent(&old).changes_to(&next), None);
        }
    }

    #[test]
    fn the_later_of_two_in_one_place_stays() {
        let records = RecentRecords::new();
        let key = |last: u8| {
            StoreKey::from_bytes(std::array::from_fn(|at| if at == 31 { last } else { 0 }))
        };
        records.put(&key(1), [1; 8], &record(&[7; 1_000]));
        records.put(&key(2), [2; 8], &record(&[7; 1_000]));
        assert!(records.take(&key(1)).is_none());
        assert_eq!(records.take(&key(2)).map(|recent| recent.write_id), Some([2; 8]));
        assert!(records.take(&key(2)).is_none(), "it is taken once");
        for size in [0, 511, 32 * 1024] {
            records.put(&key(1), [1; 8], &record(&vec![7; size]));
            assert!(records.take(&key(1)).is_none(), "{size} bytes");
        }
    }
}
