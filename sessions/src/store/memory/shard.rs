//! One shard: plain data, and nothing that locks, waits or looks at a clock.
//!
//! Its sessions stand in one array for each [`Worth`]. Each array is a heap: the session nearest to
//! expiry is always the first. Beside them a hash table knows where each session stands. So the next
//! one to expire and the one to give up when the store is full are found without a search, and an
//! entry costs no pointers. A session of a hundred bytes is half overhead if one is not careful,
//! which is why [`Entry`] is packed.

use std::{sync::Arc, time::SystemTime};

use hashbrown::HashTable;

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

    /// About how many bytes of memory it takes, all in all: rather more than less.
    pub(super) fn cost(&self) -> usize {
        /// Its place in an array, in a hash table, and in what an allocator cannot use of the memory
        /// that these have left as they grew (measured, with glibc's).
        const PLACE: usize = size_of::<Entry>() * 3 / 2 + 24;
        /// The box, and an entry in the index of users: a place in its table, and a table of its own
        /// for the user's sessions.
        const USER: usize = allocated(size_of::<Wide>()) + 3 * size_of::<[usize; 8]>() + 224;
        /// What an `Arc` counts with.
        const COUNTS: usize = 2 * size_of::<usize>();
        match &self.body {
            Body::Slim(payload) => PLACE + allocated(COUNTS + payload.len()),
            Body::Wide(wide) => {
                let user = wide.user.as_ref().map_or(0, |user| allocated(COUNTS + user.len()));
                PLACE + USER + user + allocated(COUNTS + wide.payload.len())
            }
        }
    }

    /// What a session that was worth this much before is worth with this record.
    pub(super) fn worth(&self, before: Worth) -> Worth {
        match self.user() {
            Some(_) => Worth::LoggedIn,
            None => before.min(Worth::Used),
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

/// What an allocator takes for so many bytes: common ones round up to 16, after a word of their own.
const fn allocated(bytes: usize) -> usize {
    (bytes + 8).next_multiple_of(16)
}

/// The first bytes of a key are as good as random already, so they are the hash. The shard is
/// picked by others ([`super::shard_of`]): within one shard all bits of the hash still differ.
fn hash(key: &StoreKey) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = *key.as_bytes();
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}

/// Where a session stands: in which array, and where in that.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Position(u32);

impl Position {
    const INDEX_BITS: u32 = 30;

    fn new(worth: Worth, index: usize) -> Self {
        let index = u32::try_from(index).ok().filter(|index| index >> Self::INDEX_BITS == 0);
        Self(
            index.expect("a shard holds fewer than 2^30 sessions")
                | (worth as u32) << Self::INDEX_BITS,
        )
    }

    pub(super) fn worth(self) -> Worth {
        Worth::ALL[(self.0 >> Self::INDEX_BITS) as usize]
    }

    fn index(self) -> usize {
        (self.0 & ((1 << Self::INDEX_BITS) - 1)) as usize
    }
}

/// Between two calls: `table` has exactly one position for each entry, the right one, and no entry
/// expires before its parent in its heap.
#[derive(Default)]
pub(super) struct Shard {
    heaps: [Vec<Entry>; Worth::ALL.len()],
    table: HashTable<Position>,
}

impl Shard {
    pub(super) fn get(&self, at: Position) -> &Entry {
        &self.heaps[at.worth() as usize][at.index()]
    }

    /// Its sessions, expired or not.
    pub(super) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.heaps.iter().flatten()
    }

    /// Where the session `key` stands, expired or not. Good until the next change.
    #[inline]
    pub(super) fn find(&self, key: &StoreKey) -> Option<Position> {
        self.table.find(hash(key), |&at| self.get(at).key == *key).copied()
    }

    /// Where the session `key` stands, if it has not expired.
    pub(super) fn find_live(&self, key: &StoreKey, now: u64) -> Option<Position> {
        self.find(key).filter(|&at| !self.get(at).is_expired(now))
    }

    /// Of the sessions that are worth so much, the one that is nearest to expiry.
    pub(super) fn nearest(&self, worth: Worth) -> Option<&Entry> {
        self.heaps[worth as usize].first()
    }

    /// Adds a session whose key is not here.
    pub(super) fn insert(&mut self, entry: Entry, worth: Worth) {
        // What can fail for want of room comes first, so that a panic leaves all as it was.
        self.make_room(worth);
        let Self { heaps, table } = self;
        let hash_of = |&at: &Position| hash(&heaps[at.worth() as usize][at.index()].key);
        table.reserve(1, hash_of);
        let at = Position::new(worth, heaps[worth as usize].len());
        table.insert_unique(hash(&entry.key), at, hash_of);
        heaps[worth as usize].push(entry);
        self.sift(at);
    }

    /// The array grows by an eighth: doubling would leave a quarter of it empty on average.
    fn make_room(&mut self, worth: Worth) {
        let heap = &mut self.heaps[worth as usize];
        if heap.len() == heap.capacity() {
            heap.reserve_exact(heap.len() / 8 + 4);
        }
    }

    /// Puts `entry`, which is worth so much, in the place of the one at `at`, which has the same key,
    /// and returns that.
    pub(super) fn replace(&mut self, at: Position, entry: Entry, worth: Worth) -> Entry {
        let at = self.set_worth(at, worth);
        let old = std::mem::replace(&mut self.heaps[worth as usize][at.index()], entry);
        self.sift(at);
        old
    }

    /// Moves the expiry of the session at `at`.
    pub(super) fn set_expiry(&mut self, at: Position, expires: Stamp) {
        self.heaps[at.worth() as usize][at.index()].expires = expires;
        self.sift(at);
    }

    /// Says what the session at `at` is worth, and where it is then.
    pub(super) fn set_worth(&mut self, at: Position, worth: Worth) -> Position {
        if at.worth() == worth {
            return at;
        }
        self.make_room(worth);
        let last = Position::new(at.worth(), self.heaps[at.worth() as usize].len() - 1);
        self.swap(at, last);
        let to = Position::new(worth, self.heaps[worth as usize].len());
        let hash_of = hash(&self.get(last).key);
        if let Some(position) = self.table.find_mut(hash_of, |&at| at == last) {
            *position = to;
        }
        let entry = self.heaps[at.worth() as usize].swap_remove(last.index());
        self.heaps[worth as usize].push(entry);
        if at != last {
            self.sift(at);
        }
        self.sift(to)
    }

    /// Takes out the session at `at`.
    pub(super) fn remove(&mut self, at: Position) -> Entry {
        // To the end, out of the table, out of the array; then the one that took its place finds
        // a better one.
        let last = Position::new(at.worth(), self.heaps[at.worth() as usize].len() - 1);
        self.swap(at, last);
        let hash_of = hash(&self.get(last).key);
        if let Ok(position) = self.table.find_entry(hash_of, |&at| at == last) {
            position.remove();
        }
        let removed = self.heaps[at.worth() as usize].swap_remove(last.index());
        if at != last {
            self.sift(at);
        }
        removed
    }

    /// Of the sessions that are worth so much, takes out the one that is nearest to expiry.
    pub(super) fn remove_nearest(&mut self, worth: Worth) -> Option<Entry> {
        self.nearest(worth)?;
        Some(self.remove(Position::new(worth, 0)))
    }

    /// Takes out a session that has expired, if there is one.
    pub(super) fn remove_expired(&mut self, now: u64) -> Option<Entry> {
        let has_expired =
            |worth: &Worth| self.nearest(*worth).is_some_and(|entry| entry.is_expired(now));
        let worth = Worth::ALL.into_iter().find(has_expired)?;
        self.remove_nearest(worth)
    }

    /// Moves to smaller quarters when three quarters of these are empty. What comes back is the
    /// old memory, for the caller to free without the lock: it can take the allocator milliseconds
    /// to return a large heap to the system.
    pub(super) fn shrink(&mut self) -> Shard {
        let (used, room) = (self.len(), self.capacity());
        if used > 0 && used > room / 4 && used > self.table.capacity() / 4 {
            return Shard::default();
        }
        let room_for = |heap: &Vec<Entry>| Vec::with_capacity(heap.len() + heap.len() / 16);
        let mut smaller = Shard {
            heaps: self.heaps.each_ref().map(room_for),
            table: HashTable::with_capacity(used),
        };
        // In the same order, which keeps the heaps in order.
        for worth in Worth::ALL {
            for entry in self.heaps[worth as usize].drain(..) {
                let heap = &mut smaller.heaps[worth as usize];
                // There is room: nothing is hashed again.
                let at = Position::new(worth, heap.len());
                smaller.table.insert_unique(hash(&entry.key), at, |_| 0);
                heap.push(entry);
            }
        }
        std::mem::replace(self, smaller)
    }

    fn len(&self) -> usize {
        self.heaps.iter().map(Vec::len).sum()
    }

    fn capacity(&self) -> usize {
        self.heaps.iter().map(Vec::capacity).sum()
    }

    /// Moves the entry at `at` up or down until its heap is in order again, and says where it is.
    fn sift(&mut self, at: Position) -> Position {
        let (worth, mut at) = (at.worth(), at.index());
        let place = |at| Position::new(worth, at);
        let expires = |shard: &Self, at: usize| shard.heaps[worth as usize][at].expires();
        while at > 0 {
            let parent = (at - 1) / CHILDREN;
            if expires(self, parent) <= expires(self, at) {
                break;
            }
            self.swap(place(at), place(parent));
            at = parent;
        }
        loop {
            let len = self.heaps[worth as usize].len();
            let children = at * CHILDREN + 1..len.min((at + 1) * CHILDREN + 1);
            let Some(first) = children.min_by_key(|&child| expires(self, child)) else { break };
            if expires(self, at) <= expires(self, first) {
                break;
            }
            self.swap(place(at), place(first));
            at = first;
        }
        place(at)
    }

    /// Lets two entries of one heap change places, in the array and in the table.
    fn swap(&mut self, a: Position, b: Position) {
        if a == b {
            return;
        }
        // Both positions are looked up before either is written: in between, the same position
        // would stand in the table twice.
        let hashes = [a, b].map(|at| hash(&self.get(at).key));
        let found = self.table.get_disjoint_mut(hashes, |which, &at| at == [a, b][which]);
        if let [Some(one), Some(other)] = found {
            std::mem::swap(one, other);
        }
        self.heaps[a.worth() as usize].swap(a.index(), b.index());
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
            assert_eq!(self.table.len(), self.len());
            for worth in Worth::ALL {
                let heap = &self.heaps[worth as usize];
                for (at, entry) in heap.iter().enumerate() {
                    let found = self.find(&entry.key).unwrap();
                    assert_eq!((found.worth(), found.index()), (worth, at));
                    let parent = &heap[at.saturating_sub(1) / CHILDREN];
                    assert!(parent.expires() <= entry.expires());
                }
            }
        }
    }

    #[test]
    #[cfg(target_pointer_width = "64")]
    fn an_entry_has_64_bytes() {
        assert_eq!(size_of::<Body>(), size_of::<Arc<[u8]>>());
        assert_eq!(size_of::<Entry>(), 64);
        assert_eq!(size_of::<Position>(), 4);
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

    #[test]
    fn whose_it_is_and_whether_it_is_used_make_its_worth() {
        let entry = |user: Option<&str>| {
            Entry::new(&key(1), &Record { user: user.map(Into::into), ..record(1) })
        };
        for before in Worth::ALL {
            assert_eq!(entry(Some("ann")).worth(before), Worth::LoggedIn);
        }
        // What has lost its user was in use.
        let of_nobody = Worth::ALL.map(|before| entry(None).worth(before));
        assert_eq!(of_nobody, [Worth::Unused, Worth::Used, Worth::Used]);
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
            let worth = Worth::ALL[(next() % 3) as usize];
            match (next() % 6, shard.find(&key)) {
                (0 | 1, None) => {
                    shard.insert(Entry::new(&key, &record(expires)), worth);
                    model.insert(key, (worth, expires));
                }
                (0, Some(at)) => {
                    let before = at.worth();
                    let old = shard.replace(at, Entry::new(&key, &record(expires)), worth);
                    assert_eq!(model.insert(key, (worth, expires)), Some((before, old.expires())));
                }
                (1, Some(at)) => {
                    shard.set_expiry(at, Stamp::from_millis(expires));
                    model.insert(key, (at.worth(), expires));
                }
                (2, Some(at)) => {
                    let before = at.worth();
                    let removed = shard.remove(at);
                    assert!(removed.key == key);
                    assert_eq!(model.remove(&key), Some((before, removed.expires())));
                }
                (3, Some(at)) => {
                    let to = shard.set_worth(at, worth);
                    assert!(shard.find(&key) == Some(to));
                    model.entry(key).and_modify(|it| it.0 = worth);
                }
                (2 | 3, None) => assert!(!model.contains_key(&key)),
                (4, Some(at)) => assert_eq!(model[&key], (at.worth(), shard.get(at).expires())),
                _ if next() % 3 == 0 => {
                    let nearest = shard.remove_nearest(worth);
                    let nearest = nearest.map(|entry| (entry.key, entry.expires()));
                    let of_worth = model.values().filter(|it| it.0 == worth).map(|it| it.1);
                    assert_eq!(nearest.map(|(_, expires)| expires), of_worth.min());
                    if let Some((key, expires)) = nearest {
                        assert_eq!(model.remove(&key), Some((worth, expires)));
                    }
                }
                _ if next() % 8 == 0 => {
                    let expired = shard.remove_expired(100).map(|entry| entry.key);
                    assert_eq!(expired.is_some(), model.values().any(|it| it.1 <= 100));
                    if let Some(key) = expired {
                        assert!(model.remove(&key).is_some_and(|it| it.1 <= 100));
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
            let entry = Entry::new(&StoreKey::from_bytes(bytes), &record(n.into()));
            shard.insert(entry, Worth::ALL[n as usize % 3]);
        }
        while shard.len() > 100 {
            shard.remove_expired(u64::MAX);
        }
        drop(shard.shrink());
        shard.check();
        assert!(shard.capacity() < 200 && shard.table.capacity() < 400);
        while shard.remove_expired(u64::MAX).is_some() {}
        drop(shard.shrink());
        assert_eq!((shard.capacity(), shard.table.capacity()), (0, 0));
    }
}
