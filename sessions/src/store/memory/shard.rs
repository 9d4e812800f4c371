//! One shard: plain data, and nothing that locks, waits or looks at a clock.
//!
//! Its sessions stand in one array for each [`Worth`]. Each array is a heap: the session nearest to
//! expiry is always the first. Beside them a hash table ([`Index`]) knows where each session stands. So
//! the next one to expire and the one to give up when the store is full are found without a search, and
//! an entry costs no pointers. A session of a hundred bytes is half overhead if one is not careful,
//! which is why [`Entry`] is packed.
//!
//! That a session is used for the first time makes it worth more; but to move each of them to another array
//! would cost several looks at memory that is in no cache. So the session is marked, and moves when
//! its array's first is looked for ([`Shard::move_used_firsts`]), or when a store that
//! fills is swept.

use std::{sync::Arc, time::SystemTime};

use super::index::{Index, Position};
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
    /// The version, unless `body` is `Wide`; and [`IS_USED`].
    version_and_use: u32,
    body: Body,
}

/// A request has come back to the session, and it may stand among those that are unused all the same.
const IS_USED: u32 = 1 << 31;

/// The rest of a record, thin for the most common kind. Both variants fit in the payload's two
/// words (a test looks after it), so that the choice costs nothing.
enum Body {
    /// Nobody's session, and a version that fits into 31 bits.
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
        let narrow = u32::try_from(record.version).ok().filter(|version| version & IS_USED == 0);
        let (version_and_use, body) = match (narrow, &record.user) {
            (Some(version), None) => (version, Body::Slim(payload)),
            (_, user) => {
                let wide = Wide { version: record.version, user: user.clone(), payload };
                (0, Body::Wide(Box::new(wide)))
            }
        };
        Self {
            key: *key,
            expires: Stamp::from_millis(to_millis(record.expires_at)),
            created: Stamp::from_millis(to_millis(record.created_at)),
            version_and_use,
            body,
        }
    }

    fn is_used(&self) -> bool {
        self.version_and_use & IS_USED != 0
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
            Body::Slim(_) => (self.version_and_use & !IS_USED).into(),
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

/// Between two calls: `index` has exactly one position for each entry, the right one, and no entry
/// expires before its parent in its heap.
#[derive(Default)]
pub(super) struct Shard {
    index: Index,
    heaps: [Vec<Entry>; Worth::ALL.len()],
    /// The worths, as bits, whose first session may be another than before.
    other_first: u8,
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
        self.index.find(hash(key), |at| self.get(at).key == *key)
    }

    /// Where the session `key` stands, if it has not expired.
    pub(super) fn find_live(&self, key: &StoreKey, now: u64) -> Option<Position> {
        self.find(key).filter(|&at| !self.get(at).is_expired(now))
    }

    /// When the first session of an array expires: it may be worth more by now than the others there.
    pub(super) fn first_expiry(&self, worth: Worth) -> Option<u64> {
        self.heaps[worth as usize].first().map(Entry::expires)
    }

    /// The worths whose first session may be another since this was asked last.
    pub(super) fn take_other_firsts(&mut self) -> impl Iterator<Item = Worth> + use<> {
        let other = std::mem::take(&mut self.other_first);
        Worth::ALL.into_iter().filter(move |&worth| other & 1 << worth as u8 != 0)
    }

    /// What stands at `at` is not what stood there.
    fn note_change(&mut self, at: Position) {
        if at.index() == 0 {
            self.other_first |= 1 << at.worth() as u8;
        }
    }

    /// A request has come back to the session at `at`. The session stays where it is.
    #[inline]
    pub(super) fn note_use(&mut self, at: Position) {
        if at.worth() == Worth::Unused {
            let entry = &mut self.heaps[Worth::Unused as usize][at.index()];
            // Read first: a line of the cache that is written to has to go back to memory.
            if !entry.is_used() {
                entry.version_and_use |= IS_USED;
            }
        }
    }

    /// Moves sessions that are used away from the unused, until the first there is unused. Says whether
    /// there were any.
    pub(super) fn move_used_firsts(&mut self) -> bool {
        let mut has_moved = false;
        while self.heaps[Worth::Unused as usize].first().is_some_and(Entry::is_used) {
            self.set_worth(Position::new(Worth::Unused, 0), Worth::Used);
            has_moved = true;
        }
        has_moved
    }

    /// Moves at most so many sessions that are used away from the unused. Says whether there were any.
    pub(super) fn move_used(&mut self, most: usize) -> bool {
        let used =
            |shard: &Self| shard.heaps[Worth::Unused as usize].iter().rposition(Entry::is_used);
        let mut moved = 0;
        while moved < most
            && let Some(at) = used(self)
        {
            self.set_worth(Position::new(Worth::Unused, at), Worth::Used);
            moved += 1;
        }
        moved > 0
    }

    /// Adds a session whose key is not here.
    pub(super) fn insert(&mut self, entry: Entry, worth: Worth) {
        // What can fail for want of room comes first, so that a panic leaves all as it was.
        self.make_room(worth);
        let Self { heaps, index, .. } = self;
        index.reserve(|at| hash_at(heaps, at));
        let at = Position::new(worth, heaps[worth as usize].len());
        index.insert(hash(&entry.key), at);
        heaps[worth as usize].push(entry);
        self.note_change(at);
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
    pub(super) fn replace(&mut self, at: Position, mut entry: Entry, worth: Worth) -> Entry {
        let at = match (at.worth(), worth) {
            (Worth::Unused, Worth::Used) => {
                entry.version_and_use |= IS_USED;
                at
            }
            _ => self.set_worth(at, worth),
        };
        let place = &mut self.heaps[at.worth() as usize][at.index()];
        let old = std::mem::replace(place, entry);
        self.note_change(at);
        self.sift(at);
        old
    }

    /// Moves the expiry of the session at `at`.
    pub(super) fn set_expiry(&mut self, at: Position, expires: Stamp) {
        self.heaps[at.worth() as usize][at.index()].expires = expires;
        self.note_change(at);
        self.sift(at);
    }

    /// Moves the session at `at` to the array of this worth, and says where it is then.
    fn set_worth(&mut self, at: Position, worth: Worth) -> Position {
        if at.worth() == worth {
            return at;
        }
        self.make_room(worth);
        let last = self.move_to_end(at);
        let to = Position::new(worth, self.heaps[worth as usize].len());
        let hash = hash_at(&self.heaps, last);
        self.index.relocate(hash, last, to);
        let entry = self.heaps[at.worth() as usize].swap_remove(last.index());
        self.heaps[worth as usize].push(entry);
        self.note_change(to);
        if at != last {
            self.sift(at);
        }
        self.sift(to)
    }

    /// Takes out the session at `at`.
    pub(super) fn remove(&mut self, at: Position) -> Entry {
        // To the end, out of the table, out of the array; then the one that took its place finds
        // a better one.
        let last = self.move_to_end(at);
        let Self { heaps, index, .. } = self;
        index.remove(hash_at(heaps, last), last, |at| hash_at(heaps, at));
        let removed = heaps[at.worth() as usize].swap_remove(last.index());
        if at != last {
            self.sift(at);
        }
        removed
    }

    /// Lets the session at `at` change places with the last of its array, and says where it is then.
    fn move_to_end(&mut self, at: Position) -> Position {
        let last = Position::new(at.worth(), self.heaps[at.worth() as usize].len() - 1);
        self.swap(at, last);
        self.note_change(at);
        last
    }

    /// Takes out the first session of an array, which is nearest to expiry. Whoever wants an unused one calls
    /// [`move_used_firsts`](Self::move_used_firsts) before.
    pub(super) fn remove_nearest(&mut self, worth: Worth) -> Option<Entry> {
        let is_empty = self.heaps[worth as usize].is_empty();
        (!is_empty).then(|| self.remove(Position::new(worth, 0)))
    }

    /// Takes out a session that has expired, if there is one.
    pub(super) fn remove_expired(&mut self, now: u64) -> Option<Entry> {
        let has_expired =
            |worth: &Worth| self.first_expiry(*worth).is_some_and(|expires| expires <= now);
        let worth = Worth::ALL.into_iter().find(has_expired)?;
        self.remove_nearest(worth)
    }

    /// Moves to smaller quarters when three quarters of these are empty. What comes back is the
    /// old memory, for the caller to free without the lock: it can take the allocator milliseconds
    /// to return a large heap to the system.
    pub(super) fn shrink(&mut self) -> Shard {
        let (used, room) = (self.len(), self.capacity());
        if used > 0 && used > room / 4 && used > self.index.capacity() / 4 {
            return Shard::default();
        }
        let room_for = |heap: &Vec<Entry>| Vec::with_capacity(heap.len() + heap.len() / 16);
        let mut smaller = Shard {
            heaps: self.heaps.each_ref().map(room_for),
            index: Index::with_capacity(used),
            other_first: self.other_first,
        };
        // In the same order, which keeps the heaps in order.
        for worth in Worth::ALL {
            for entry in self.heaps[worth as usize].drain(..) {
                let heap = &mut smaller.heaps[worth as usize];
                smaller.index.insert(hash(&entry.key), Position::new(worth, heap.len()));
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
        self.note_change(a);
        self.note_change(b);
        self.index.swap([a, b].map(|at| (hash_at(&self.heaps, at), at)));
        self.heaps[a.worth() as usize].swap(a.index(), b.index());
    }
}

fn hash_at(heaps: &[Vec<Entry>], at: Position) -> u64 {
    hash(&heaps[at.worth() as usize][at.index()].key)
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
            assert_eq!(self.index.len(), self.len());
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
    }

    #[test]
    fn an_entry_gives_back_its_record() {
        for version in [0, 1, (1 << 31) - 1, 1 << 31, u64::from(u32::MAX), 1 << 32, u64::MAX] {
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

    /// Ten thousand random changes, each compared with the same change to a plain map; and whoever is told
    /// of other firsts knows them all.
    #[test]
    fn agrees_with_a_map() {
        // What a session is worth is what the model says; that it stands elsewhere shows nowhere.
        fn worth_of(shard: &Shard, at: Position) -> Worth {
            match shard.get(at).is_used() {
                true => at.worth().max(Worth::Used),
                false => at.worth(),
            }
        }
        let mut random = 1_u64;
        let mut next = move || {
            random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            random >> 33
        };
        let (mut shard, mut model, mut firsts) = (Shard::default(), HashMap::new(), [None; 3]);
        for _ in 0..10_000 {
            let (key, expires) = (key(next() as u8), next() % 1000);
            let worth = Worth::ALL[(next() % 3) as usize];
            match (next() % 6, shard.find(&key)) {
                (0 | 1, None) => {
                    shard.insert(Entry::new(&key, &record(expires)), worth);
                    model.insert(key, (worth, expires));
                }
                (0, Some(at)) => {
                    let before = worth_of(&shard, at);
                    // A session that is in use does not become an unused one again.
                    let worth = worth.max(Worth::Used);
                    let old = shard.replace(at, Entry::new(&key, &record(expires)), worth);
                    assert_eq!(model.insert(key, (worth, expires)), Some((before, old.expires())));
                }
                (1, Some(at)) => {
                    let worth = worth_of(&shard, at);
                    shard.set_expiry(at, Stamp::from_millis(expires));
                    model.insert(key, (worth, expires));
                }
                (2, Some(at)) => {
                    let before = worth_of(&shard, at);
                    let removed = shard.remove(at);
                    assert!(removed.key == key);
                    assert_eq!(model.remove(&key), Some((before, removed.expires())));
                }
                (3, Some(at)) => {
                    shard.note_use(at);
                    assert!(shard.find(&key) == Some(at));
                    model.entry(key).and_modify(|it| it.0 = it.0.max(Worth::Used));
                }
                (2 | 3, None) => assert!(!model.contains_key(&key)),
                (4, Some(at)) => {
                    assert_eq!(model[&key], (worth_of(&shard, at), shard.get(at).expires()));
                }
                (5, _) if next() % 4 == 0 => {
                    let most = (next() % 8) as usize;
                    let used = |shard: &Shard| {
                        shard.heaps[Worth::Unused as usize].iter().filter(|it| it.is_used()).count()
                    };
                    let before = used(&shard);
                    assert_eq!(shard.move_used(most), before.min(most) > 0);
                    assert_eq!(used(&shard), before - before.min(most));
                }
                _ if next() % 3 == 0 => {
                    // Those that are used are all where they belong then, if they are asked for.
                    shard.move_used(usize::from(worth == Worth::Used) * usize::MAX);
                    if worth == Worth::Unused {
                        shard.move_used_firsts();
                    }
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
            for worth in shard.take_other_firsts() {
                firsts[worth as usize] = shard.first_expiry(worth);
            }
            assert_eq!(firsts, Worth::ALL.map(|worth| shard.first_expiry(worth)));
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
        assert!(shard.capacity() < 200 && shard.index.capacity() < 400);
        while shard.remove_expired(u64::MAX).is_some() {}
        drop(shard.shrink());
        assert_eq!((shard.capacity(), shard.index.capacity()), (0, 0));
    }
}
