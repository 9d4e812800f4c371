//! One shard: plain data, and nothing that locks, waits or looks at a clock.
//!
//! Its sessions stand in one array that is a heap: the session nearest to expiry is always the
//! first. Beside it a hash table knows where each session stands. So the next one to expire and
//! the one to give up when the store is full are found without a search, and an entry costs no
//! pointers. A session of a hundred bytes is half overhead if one is not careful, which is why
//! [`Entry`] is packed.

use std::{sync::Arc, time::SystemTime};

use hashbrown::HashTable;

use crate::{
    Record, StoreKey,
    clock::{from_millis, to_millis},
};

/// Four children a node: a flatter heap moves fewer entries, and a move costs more than a look.
const CHILDREN: usize = 4;

/// Milliseconds since 1970, in six bytes: enough until the year 10889. Later counts as then.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp([u16; 3]);

impl Stamp {
    const MAX: u64 = (1 << 48) - 1;

    pub(super) fn from_millis(millis: u64) -> Self {
        let millis = millis.min(Self::MAX);
        Self([millis as u16, (millis >> 16) as u16, (millis >> 32) as u16])
    }

    pub(super) fn millis(self) -> u64 {
        let [low, middle, high] = self.0.map(u64::from);
        low | middle << 16 | high << 32
    }
}

/// One session: 64 bytes, and its payload.
pub(super) struct Entry {
    key: StoreKey,
    expires: Stamp,
    created: Stamp,
    /// The version, unless `body` is `Wide`.
    version: u32,
    body: Body,
}

/// The rest of a record, thin for the most common kind. Both variants fit in the payload's two
/// words (a test looks after it), so that the choice costs nothing.
enum Body {
    /// Nobody's session, and a version that fits into 32 bits.
    Slim(Arc<[u8]>),
    Wide(Box<Wide>),
}

struct Wide {
    version: u64,
    user: Option<Arc<str>>,
    payload: Arc<[u8]>,
}

impl Entry {
    pub(super) fn new(key: &StoreKey, record: &Record) -> Self {
        let payload = record.payload.clone();
        let (version, body) = match (u32::try_from(record.version), &record.user) {
            (Ok(version), None) => (version, Body::Slim(payload)),
            (_, user) => {
                let wide = Wide { version: record.version, user: user.clone(), payload };
                (0, Body::Wide(Box::new(wide)))
            }
        };
        Self {
            key: *key,
            expires: Stamp::from_millis(to_millis(record.expires_at)),
            created: Stamp::from_millis(to_millis(record.created_at)),
            version,
            body,
        }
    }

    /// The record; its payload and user are shared, not copied.
    pub(super) fn record(&self) -> Record {
        let (user, payload) = match &self.body {
            Body::Slim(payload) => (None, payload),
            Body::Wide(wide) => (wide.user.clone(), &wide.payload),
        };
        Record {
            version: self.version(),
            created_at: from_millis(self.created.millis()),
            expires_at: self.expires_at(),
            user,
            payload: payload.clone(),
        }
    }

    /// Whether it was made of this record, or gave it out.
    pub(super) fn is_of(&self, record: &Record) -> bool {
        let payload = match &self.body {
            Body::Slim(payload) => payload,
            Body::Wide(wide) => &wide.payload,
        };
        self.version() == record.version
            && Arc::ptr_eq(payload, &record.payload)
            && self.user() == record.user.as_ref()
    }

    pub(super) fn expires_at(&self) -> SystemTime {
        from_millis(self.expires())
    }

    pub(super) fn key(&self) -> &StoreKey {
        &self.key
    }

    pub(super) fn user(&self) -> Option<&Arc<str>> {
        match &self.body {
            Body::Slim(_) => None,
            Body::Wide(wide) => wide.user.as_ref(),
        }
    }

    pub(super) fn version(&self) -> u64 {
        match &self.body {
            Body::Slim(_) => self.version.into(),
            Body::Wide(wide) => wide.version,
        }
    }

    /// When it expires, in milliseconds since 1970.
    pub(super) fn expires(&self) -> u64 {
        self.expires.millis()
    }

    pub(super) fn is_expired(&self, now: u64) -> bool {
        self.expires() <= now
    }
}

/// The first bytes of a key are as good as random already, so they are the hash. The shard is
/// picked by others ([`super::shard_of`]): within one shard all bits of the hash still differ.
fn hash(key: &StoreKey) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = *key.as_bytes();
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}

/// Between two calls: `table` has exactly one position for each entry, the right one, and no entry
/// expires before its parent in the heap.
#[derive(Default)]
pub(super) struct Shard {
    entries: Vec<Entry>,
    table: HashTable<u32>,
}

impl Shard {
    pub(super) fn get(&self, at: usize) -> &Entry {
        &self.entries[at]
    }

    /// Where the session `key` stands, expired or not. Good until the next change.
    pub(super) fn find(&self, key: &StoreKey) -> Option<usize> {
        let same = |&at: &u32| self.entries[at as usize].key == *key;
        self.table.find(hash(key), same).map(|&at| at as usize)
    }

    /// Where the session `key` stands, if it has not expired.
    pub(super) fn find_live(&self, key: &StoreKey, now: u64) -> Option<usize> {
        self.find(key).filter(|&at| !self.entries[at].is_expired(now))
    }

    /// The session that is nearest to expiry.
    pub(super) fn nearest(&self) -> Option<&Entry> {
        self.entries.first()
    }

    /// Adds a session whose key is not here.
    pub(super) fn insert(&mut self, entry: Entry) {
        // What can fail for want of room comes first, so that a panic leaves all as it was. The
        // array grows by an eighth: doubling would leave a quarter of it empty on average.
        let at = self.entries.len();
        let position = u32::try_from(at).expect("a shard holds fewer than 2^32 sessions");
        if at == self.entries.capacity() {
            self.entries.reserve_exact(at / 8 + 4);
        }
        self.table.reserve(1, |&at| hash(&self.entries[at as usize].key));

        let hash_of = hash(&entry.key);
        self.entries.push(entry);
        self.table.insert_unique(hash_of, position, |&at| hash(&self.entries[at as usize].key));
        self.sift(at);
    }

    /// Puts `entry` in the place of the one at `at`, which has the same key, and returns that.
    pub(super) fn replace(&mut self, at: usize, entry: Entry) -> Entry {
        let old = std::mem::replace(&mut self.entries[at], entry);
        self.sift(at);
        old
    }

    /// Moves the expiry of the session at `at`.
    pub(super) fn set_expiry(&mut self, at: usize, expires: Stamp) {
        self.entries[at].expires = expires;
        self.sift(at);
    }

    /// Takes out the session at `at`.
    pub(super) fn remove(&mut self, at: usize) -> Entry {
        // To the end, out of the table, out of the array; then the one that took its place finds
        // a better one.
        let last = self.entries.len() - 1;
        self.swap(at, last);
        let hash_of = hash(&self.entries[last].key);
        if let Ok(position) = self.table.find_entry(hash_of, |&at| at as usize == last) {
            position.remove();
        }
        let removed = self.entries.swap_remove(last);
        if at < last {
            self.sift(at);
        }
        removed
    }

    /// Takes out the session that is nearest to expiry.
    pub(super) fn remove_nearest(&mut self) -> Option<Entry> {
        (!self.entries.is_empty()).then(|| self.remove(0))
    }

    /// Moves to smaller quarters when three quarters of these are empty. What comes back is the
    /// old memory, for the caller to free without the lock: it can take the allocator milliseconds
    /// to return a large heap to the system.
    pub(super) fn shrink(&mut self) -> Shard {
        let used = self.entries.len();
        if used > 0 && used > self.entries.capacity() / 4 && used > self.table.capacity() / 4 {
            return Shard::default();
        }
        let mut smaller = Shard {
            entries: Vec::with_capacity(used + used / 16),
            table: HashTable::with_capacity(used),
        };
        // In the same order, which keeps the heap in order.
        for (position, entry) in (0..).zip(self.entries.drain(..)) {
            // There is room: nothing is hashed again.
            smaller.table.insert_unique(hash(&entry.key), position, |_| 0);
            smaller.entries.push(entry);
        }
        std::mem::replace(self, smaller)
    }

    /// Moves the entry at `at` up or down until the heap is in order again.
    fn sift(&mut self, mut at: usize) {
        while at > 0 {
            let parent = (at - 1) / CHILDREN;
            if self.entries[parent].expires() <= self.entries[at].expires() {
                break;
            }
            self.swap(at, parent);
            at = parent;
        }
        loop {
            let children = at * CHILDREN + 1..self.entries.len().min((at + 1) * CHILDREN + 1);
            let Some(first) = children.min_by_key(|&child| self.entries[child].expires()) else {
                return;
            };
            if self.entries[at].expires() <= self.entries[first].expires() {
                return;
            }
            self.swap(at, first);
            at = first;
        }
    }

    /// Lets two entries change places, in the array and in the table.
    fn swap(&mut self, a: usize, b: usize) {
        if a == b {
            return;
        }
        // Both positions are looked up before either is written: in between, the same position
        // would stand in the table twice.
        let hashes = [a, b].map(|at| hash(&self.entries[at].key));
        let found = self.table.get_disjoint_mut(hashes, |which, &at| at as usize == [a, b][which]);
        if let [Some(one), Some(other)] = found {
            std::mem::swap(one, other);
        }
        self.entries.swap(a, b);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    /// Keys that share their hash for each `seed`, to put the table to the test.
    fn key(seed: u8) -> StoreKey {
        let mut bytes = [seed % 32; 32];
        bytes[31] = seed;
        StoreKey::from_bytes(bytes)
    }

    fn record(expires: u64) -> Record {
        Record {
            version: expires,
            created_at: from_millis(1),
            expires_at: from_millis(expires),
            user: expires.is_multiple_of(2).then(|| "ann".into()),
            payload: [1, 2, 3].into(),
        }
    }

    impl Shard {
        fn check(&self) {
            assert_eq!(self.table.len(), self.entries.len());
            for (at, entry) in self.entries.iter().enumerate() {
                assert_eq!(self.find(&entry.key), Some(at));
                let parent = &self.entries[at.saturating_sub(1) / CHILDREN];
                assert!(parent.expires() <= entry.expires());
            }
        }
    }

    #[test]
    #[cfg(target_pointer_width = "64")]
    fn an_entry_has_64_bytes() {
        assert_eq!(size_of::<Body>(), size_of::<Arc<[u8]>>());
        assert_eq!(size_of::<Entry>(), 64);
    }

    #[test]
    fn an_entry_gives_back_its_record() {
        for version in [0, 1, u64::from(u32::MAX), 1 << 32, u64::MAX] {
            for user in [None, Some("".into()), Some("ann".into())] {
                let record = Record { version, user, ..record(Stamp::MAX) };
                let entry = Entry::new(&key(1), &record);
                assert_eq!(entry.record(), record);
                assert!(entry.is_of(&record) && entry.is_of(&entry.record()));
                let others = [
                    Record { version: version ^ 1, ..record.clone() },
                    Record { user: Some("Zoë".into()), ..record.clone() },
                    Record { payload: (*record.payload).into(), ..record.clone() },
                ];
                assert!(!others.iter().any(|other| entry.is_of(other)));
            }
        }
        // Beyond its range a time is the last one that it has.
        assert_eq!(Stamp::from_millis(u64::MAX).millis(), Stamp::MAX);
    }

    /// Ten thousand random changes, each compared with the same change to a plain map.
    #[test]
    fn agrees_with_a_map() {
        let mut random = 1_u64;
        let mut next = move || {
            random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            random >> 33
        };
        let (mut shard, mut model) = (Shard::default(), HashMap::new());
        for _ in 0..10_000 {
            let (key, expires) = (key(next() as u8), next() % 1000);
            match (next() % 5, shard.find(&key)) {
                (0 | 1, None) => {
                    shard.insert(Entry::new(&key, &record(expires)));
                    model.insert(key, expires);
                }
                (0, Some(at)) => {
                    let old = shard.replace(at, Entry::new(&key, &record(expires)));
                    assert_eq!(model.insert(key, expires), Some(old.expires()));
                }
                (1, Some(at)) => {
                    shard.set_expiry(at, Stamp::from_millis(expires));
                    model.insert(key, expires);
                }
                (2, Some(at)) => {
                    let removed = shard.remove(at);
                    assert!(removed.key == key);
                    assert_eq!(model.remove(&key), Some(removed.expires()));
                }
                (2 | 3, None) => assert!(!model.contains_key(&key)),
                (3, Some(at)) => assert_eq!(model[&key], shard.get(at).expires()),
                _ if next() % 3 == 0 => {
                    let nearest = shard.remove_nearest().map(|entry| (entry.key, entry.expires()));
                    assert_eq!(nearest.map(|(_, expires)| expires), model.values().min().copied());
                    if let Some((key, expires)) = nearest {
                        assert_eq!(model.remove(&key), Some(expires));
                    }
                }
                _ => drop(shard.shrink()),
            }
            if next() % 16 == 0 {
                shard.check();
            }
        }
        assert!(!model.is_empty(), "the test has something to look at");
    }

    #[test]
    fn shrinking_gives_the_memory_back() {
        let mut shard = Shard::default();
        for n in 0..2000_u32 {
            let mut bytes = [0; 32];
            bytes[..4].copy_from_slice(&n.to_le_bytes());
            shard.insert(Entry::new(&StoreKey::from_bytes(bytes), &record(n.into())));
        }
        while shard.entries.len() > 100 {
            shard.remove_nearest();
        }
        drop(shard.shrink());
        shard.check();
        assert!(shard.entries.capacity() < 200 && shard.table.capacity() < 400);
        while shard.remove_nearest().is_some() {}
        drop(shard.shrink());
        assert_eq!((shard.entries.capacity(), shard.table.capacity()), (0, 0));
    }
}
