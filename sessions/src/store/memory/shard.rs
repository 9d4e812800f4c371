//! One shard: plain data, and nothing that locks, waits or looks at a clock.
//!
//! Its sessions stand in a hash table ([`Index`]). When each of them expires stands in one array for each
//! [`Worth`] as well. Each array is a [`Heap`]: the session nearest to expiry is always the first. So the next one
//! to expire and the one to give up when the store is full are found without a search, and a heap is put in
//! order without a look at the sessions themselves. A session of a hundred bytes is half overhead if one is
//! not careful.
//!
//! That a session is used for the first time makes it worth more; but to move each of them to another heap
//! would cost several looks at memory that is in no cache. So the session is marked, and moves when
//! its heap's first is looked for ([`Shard::move_used_firsts`]), or when a store that
//! fills is swept.

use super::{
    entry::{Entry, Stamp, Worth},
    heap::{Due, Heap},
    index::{At, Index, Position},
    table::Table,
};
use crate::{identity::id::StoreKey, record::Record};

/// Of so many parts one is looked through at a time for all of a shard's sessions: requests wait for its lock
/// meanwhile. A session is always of the same part.
pub(super) const PARTS: usize = 256;

/// So many places of the table are looked at under one hold of the lock.
const MOST_LOOKS: usize = 4096;

/// Four children a node: a flatter heap moves fewer entries, and a move costs more than a look.
const CHILDREN: usize = 4;

/// Between two calls: `index` has exactly one session for each place in the heaps, and the right one, which
/// expires when its heap says; and none expires before its parent in its heap.
pub(super) struct Shard {
    index: Index,
    heaps: [Heap; Worth::ALL.len()],
    /// The worths, as bits, whose first session may be another than before.
    other_first: u8,
    /// An odd number: hashes that differ still do so when they are multiplied by it.
    spread: u32,
}

impl Shard {
    /// The order in which sessions stand in the table is that of this number. Each shard has a random one: sessions
    /// that come in the order of another's table, as in a copy of a store, would all want the same few places of a
    /// table that grows, and stand in long rows that each look-up goes through.
    pub(super) fn new(order: u32) -> Self {
        Self {
            index: Index::default(),
            heaps: Default::default(),
            other_first: 0,
            spread: order | 1,
        }
    }

    /// The first bytes of a key are as good as random already, so they make the hash. The shard is
    /// picked by others ([`Inner::shard_of`](super::Inner::shard_of)): within one shard all bits of the hash still
    /// differ.
    #[inline]
    fn hash(&self, key: &StoreKey) -> u32 {
        let [a, b, c, d, ..] = *key.as_bytes();
        u32::from_le_bytes([a, b, c, d]).wrapping_mul(self.spread)
    }

    #[inline]
    pub(super) fn get(&self, at: At) -> &Entry {
        &self.index.get(at).entry
    }

    /// Its sessions, expired or not, of one of [`PARTS`].
    pub(super) fn entries(&self, part: usize) -> impl Iterator<Item = &Entry> {
        const EACH: u32 = u32::MAX / PARTS as u32 + 1;
        let first = part as u32 * EACH;
        self.index.iter_between(first, first + (EACH - 1)).map(|place| &place.entry)
    }

    /// Where the session `key` stands, expired or not. Good until the next change.
    #[inline]
    pub(super) fn find(&self, key: &StoreKey) -> Option<At> {
        self.index.find(self.hash(key), |place| place.entry.is_under(key))
    }

    /// Where the session `key` stands, if it has not expired.
    pub(super) fn find_live(&self, key: &StoreKey, now: u64) -> Option<At> {
        self.find(key).filter(|&at| !self.get(at).is_expired(now))
    }

    /// When the first session of a heap expires: it may be worth more by now than the others there.
    pub(super) fn first_expiry(&self, worth: Worth) -> Option<u64> {
        self.heaps[worth as usize].first().map(Due::millis)
    }

    /// The worths whose first session may be another since this was asked last.
    pub(super) fn take_other_firsts(&mut self) -> impl Iterator<Item = Worth> + use<> {
        let other = std::mem::take(&mut self.other_first);
        Worth::ALL.into_iter().filter(move |&worth| other & 1 << worth as u8 != 0)
    }

    /// What stands at this position is not what stood there.
    fn note_change(&mut self, position: Position) {
        if position.index() == 0 {
            self.other_first |= 1 << position.worth() as u8;
        }
    }

    /// A request has come back to the session at `at`. The session stays where it is.
    #[inline]
    pub(super) fn note_use(&mut self, at: At) {
        let place = self.index.get(at);
        // Read first: a line of the cache that is written to has to go back to memory.
        if place.position().worth() == Worth::Unused && !place.is_used() {
            self.index.get_mut(at).note_use();
        }
    }

    /// Moves sessions that are used away from the unused, until the first there is unused. Says whether
    /// there were any.
    pub(super) fn move_used_firsts(&mut self) -> bool {
        let mut has_moved = false;
        while let Some(at) = self.first(Worth::Unused)
            && self.index.get(at).is_used()
        {
            self.set_worth(at, Worth::Used);
            has_moved = true;
        }
        has_moved
    }

    /// Moves at most so many sessions that are used away from the unused: looks at some thousand places, from `from`
    /// on, and says where to go on. No table is being moved.
    pub(super) fn move_used(&mut self, from: usize, most: usize) -> Option<usize> {
        let (misplaced, next) = self.index.misplaced(from, MOST_LOOKS, most);
        for at in misplaced {
            self.set_worth(at, Worth::Used);
        }
        next
    }

    /// Adds a session whose key is not here. There is [room](Self::is_full) in the table.
    pub(super) fn insert(&mut self, entry: Entry, worth: Worth) {
        // What can fail for want of memory comes first, so that a panic leaves all as it was.
        self.heaps[worth as usize].reserve();
        let due = Due { hash: self.hash(&entry.key()), expires: entry.expires() };
        let position = self.enter(due, worth);
        let at = self.index.insert(due.hash, position, entry);
        self.settle(at, due, position);
    }

    /// Puts a session to the end of a heap. There it has to [settle](Self::settle).
    fn enter(&mut self, due: Due, worth: Worth) -> Position {
        let heap = &mut self.heaps[worth as usize];
        let position = Position::new(worth, heap.len());
        heap.push(due);
        position
    }

    /// Takes a session out of its heap that the table does not have there any more.
    fn leave(&mut self, position: Position) {
        let heap = &mut self.heaps[position.worth() as usize];
        let last = Position::new(position.worth(), heap.len() - 1);
        let moved = heap.pop();
        self.note_change(position);
        if let Some(moved) = moved.filter(|_| position != last) {
            let at = self.index.place_of(moved.hash, last);
            self.settle(at, moved, position);
        }
    }

    fn due(&self, position: Position) -> Due {
        self.heaps[position.worth() as usize].get(position.index())
    }

    /// Puts `entry`, which is worth so much, in the place of the one at `at`, which has the same key,
    /// and returns that.
    pub(super) fn replace(&mut self, at: At, entry: Entry, worth: Worth) -> Entry {
        match (self.index.get(at).position().worth(), worth) {
            (Worth::Unused, Worth::Used) => self.note_use(at),
            _ => self.set_worth(at, worth),
        }
        let expires = entry.expires();
        let old = std::mem::replace(&mut self.index.get_mut(at).entry, entry);
        self.move_expiry(at, old.expires(), expires);
        old
    }

    /// [Writes](Entry::overwrite) the record over that of the session at `at`, if it fits there.
    pub(super) fn overwrite(&mut self, at: At, record: &Record) -> bool {
        let entry = &mut self.index.get_mut(at).entry;
        let before = entry.expires();
        if !entry.overwrite(record) {
            return false;
        }
        let expires = entry.expires();
        self.note_use(at);
        self.move_expiry(at, before, expires);
        true
    }

    /// Moves the expiry of the session at `at`.
    pub(super) fn set_expiry(&mut self, at: At, expires: Stamp) {
        let entry = &mut self.index.get_mut(at).entry;
        let before = entry.expires();
        entry.set_expiry(expires);
        self.move_expiry(at, before, expires);
    }

    /// Tells the heap of the session at `at` when that expires now.
    fn move_expiry(&mut self, at: At, before: Stamp, expires: Stamp) {
        // The heap is other memory, and a session's neighbours there are as well.
        if before == expires {
            return;
        }
        let position = self.index.get(at).position();
        let due = Due { expires, ..self.due(position) };
        self.settle(at, due, position);
    }

    /// Moves the session at `at` to the heap of this worth.
    fn set_worth(&mut self, at: At, worth: Worth) {
        let from = self.index.get(at).position();
        if from.worth() == worth {
            return;
        }
        self.heaps[worth as usize].reserve();
        let due = self.due(from);
        let to = self.enter(due, worth);
        self.index.get_mut(at).move_to(to);
        self.leave(from);
        self.settle(at, due, to);
    }

    /// Takes out the session at `at`.
    pub(super) fn remove(&mut self, at: At) -> Entry {
        let removed = self.index.remove(at);
        self.leave(removed.position());
        removed.entry
    }

    fn first(&self, worth: Worth) -> Option<At> {
        let first = self.heaps[worth as usize].first()?;
        Some(self.index.place_of(first.hash, Position::new(worth, 0)))
    }

    /// Takes out the first session of a heap, which is nearest to expiry. Whoever wants an unused one calls
    /// [`move_used_firsts`](Self::move_used_firsts) before.
    pub(super) fn remove_nearest(&mut self, worth: Worth) -> Option<Entry> {
        self.first(worth).map(|at| self.remove(at))
    }

    /// Takes out a session that has expired, if there is one.
    pub(super) fn remove_expired(&mut self, now: u64) -> Option<Entry> {
        let has_expired =
            |worth: &Worth| self.first_expiry(*worth).is_some_and(|expires| expires <= now);
        let worth = Worth::ALL.into_iter().find(has_expired)?;
        self.remove_nearest(worth)
    }

    /// Whether the table has no room for one more session. Then a [`larger`](Self::larger) one is needed.
    pub(super) fn is_full(&self) -> bool {
        self.index.is_full()
    }

    /// For how many sessions a larger table should have room.
    pub(super) fn larger(&self) -> usize {
        self.index.larger()
    }

    /// For how many sessions the table should have room if it is half empty, which is what [`Entry::cost`] counts on
    /// that it is not for long. No table is being moved.
    pub(super) fn smaller(&self) -> Option<usize> {
        self.index.smaller()
    }

    /// Whether the table is to move to this smaller one.
    pub(super) fn would_do(&self, smaller: &Table) -> bool {
        self.index.would_do(smaller)
    }

    /// The room in heaps of which little is used, for the caller to free without the lock.
    pub(super) fn shrink_heaps(&mut self) -> [[Vec<Vec<Due>>; 2]; Worth::ALL.len()] {
        self.heaps.each_mut().map(Heap::shrink)
    }

    /// Whether sessions are being moved to another table.
    #[inline]
    pub(super) fn is_moving(&self) -> bool {
        self.index.is_moving()
    }

    /// Begins to move the sessions to a table that has room for them. No table is being moved.
    pub(super) fn begin_move(&mut self, to: Table) {
        self.index.begin_move(to);
    }

    /// Moves what stands in so many places. The table that has been left comes back, for the caller to free without
    /// the lock: it can take the allocator milliseconds to return much memory to the system.
    pub(super) fn go_on_moving(&mut self, places: usize) -> Option<Table> {
        self.index.go_on_moving(places)
    }

    /// Puts the session at `at` into its heap, which has a gap at `position`: the gap moves up or down until the
    /// session that it is for fits there.
    fn settle(&mut self, at: At, due: Due, position: Position) {
        let gap = match self.move_up(position, due) {
            moved if moved != position => moved,
            _ => self.move_down(position, due),
        };
        self.put(due, gap);
        self.index.get_mut(at).relocate(gap);
    }

    fn put(&mut self, due: Due, position: Position) {
        self.heaps[position.worth() as usize].set(position.index(), due);
        self.note_change(position);
    }

    /// Lets the session at `from` take the gap at `to`.
    fn close(&mut self, to: Position, from: Position) {
        let due = self.due(from);
        self.put(due, to);
        self.index.relocate(due.hash, from, to);
    }

    fn move_up(&mut self, mut gap: Position, due: Due) -> Position {
        while let Some(below) = gap.index().checked_sub(1) {
            let parent = Position::new(gap.worth(), below / CHILDREN);
            if self.due(parent).millis() <= due.millis() {
                break;
            }
            self.close(gap, parent);
            gap = parent;
        }
        gap
    }

    fn move_down(&mut self, mut gap: Position, due: Due) -> Position {
        let worth = gap.worth();
        let len = self.heaps[worth as usize].len();
        loop {
            let first = gap.index() * CHILDREN + 1;
            let children = (first..len.min(first + CHILDREN)).map(|at| Position::new(worth, at));
            let next = children.min_by_key(|&child| self.due(child).millis());
            match next {
                Some(child) if self.due(child).millis() < due.millis() => {
                    self.close(gap, child);
                    gap = child;
                }
                _ => return gap,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::clock::from_millis;

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
        fn len(&self) -> usize {
            self.index.len()
        }

        fn add(&mut self, entry: Entry, worth: Worth) {
            if self.is_full() {
                self.move_all();
                let larger = Table::with_capacity(self.larger());
                self.begin_move(larger);
            }
            drop(self.go_on_moving(3));
            self.insert(entry, worth);
        }

        fn move_all(&mut self) {
            drop(self.go_on_moving(usize::MAX));
            assert!(!self.is_moving());
        }

        fn shrink(&mut self) {
            self.move_all();
            if let Some(sessions) = self.smaller() {
                self.begin_move(Table::with_capacity(sessions));
            }
        }

        fn check(&self) {
            assert_eq!(self.heaps.iter().map(Heap::len).sum::<usize>(), self.len());
            assert_eq!((0..PARTS).flat_map(|part| self.entries(part)).count(), self.len());
            for worth in Worth::ALL {
                let heap = &self.heaps[worth as usize];
                for at in 0..heap.len() {
                    let due = heap.get(at);
                    let place = self.index.place_of(due.hash, Position::new(worth, at));
                    let entry = self.get(place);
                    assert_eq!(self.find(&entry.key()), Some(place));
                    assert!(entry.expires() == due.expires && self.hash(&entry.key()) == due.hash);
                    let parent = heap.get(at.saturating_sub(1) / CHILDREN);
                    assert!(parent.millis() <= due.millis());
                }
            }
        }
    }

    /// A store that is copied into another, or into a file and read back, comes in the order of its tables.
    #[test]
    fn what_comes_in_the_order_of_another_shard_does_not_pile_up() {
        let (mut from, mut to) = (Shard::new(0x1234_5678), Shard::new(0x9abc_def0));
        for number in 0..20_000_u32 {
            let mut bytes = [0; 32];
            bytes[..4].copy_from_slice(&number.wrapping_mul(0x85eb_ca6b).to_be_bytes());
            from.add(Entry::new(&StoreKey::from_bytes(bytes), &record(1)), Worth::Unused);
        }
        let entries = (0..PARTS).flat_map(|part| from.entries(part));
        for (number, entry) in entries.enumerate() {
            to.add(Entry::new(&entry.key(), &entry.record()), Worth::Unused);
            if number % 1_000 == 0 {
                assert!(to.index.distance() < 10, "{} of {number}", to.index.distance());
            }
        }
        assert!(from.index.distance() < 10 && to.len() == from.len());
    }

    /// Ten thousand random changes, each compared with the same change to a plain map; and whoever is told
    /// of other firsts knows them all.
    #[test]
    fn agrees_with_a_map() {
        // What a session is worth is what the model says; that it stands elsewhere shows nowhere.
        fn worth_of(shard: &Shard, at: At) -> Worth {
            let place = shard.index.get(at);
            match place.is_used() {
                true => place.position().worth().max(Worth::Used),
                false => place.position().worth(),
            }
        }
        let mut random = 1_u64;
        let mut next = move || {
            random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            random >> 33
        };
        let (mut shard, mut model, mut firsts) = (Shard::new(0), HashMap::new(), [None; 3]);
        for _ in 0..10_000 {
            let (key, expires) = (key(next() as u8), next() % 1000);
            let worth = Worth::ALL[(next() % 3) as usize];
            match (next() % 6, shard.find(&key)) {
                (0 | 1, None) => {
                    shard.add(Entry::new(&key, &record(expires)), worth);
                    model.insert(key, (worth, expires));
                }
                (0, Some(at)) => {
                    let before = (worth_of(&shard, at), shard.get(at).expires().millis());
                    if next() % 2 == 0 {
                        // As long, and the same user's or not.
                        let is_same = shard.get(at).user() == record(expires).user.as_deref();
                        assert_eq!(shard.overwrite(at, &record(expires)), is_same);
                        if is_same {
                            model.insert(key, (before.0.max(Worth::Used), expires));
                        }
                        continue;
                    }
                    let before = before.0;
                    // A session that is in use does not become an unused one again.
                    let worth = worth.max(Worth::Used);
                    let old = shard.replace(at, Entry::new(&key, &record(expires)), worth);
                    let old = old.expires().millis();
                    assert_eq!(model.insert(key, (worth, expires)), Some((before, old)));
                }
                (1, Some(at)) => {
                    let worth = worth_of(&shard, at);
                    shard.set_expiry(at, Stamp::from_millis(expires));
                    model.insert(key, (worth, expires));
                }
                (2, Some(at)) => {
                    let before = worth_of(&shard, at);
                    let removed = shard.remove(at);
                    assert!(removed.is_under(&key));
                    assert_eq!(model.remove(&key), Some((before, removed.expires().millis())));
                }
                (3, Some(at)) => {
                    shard.note_use(at);
                    assert!(shard.find(&key) == Some(at));
                    model.entry(key).and_modify(|it| it.0 = it.0.max(Worth::Used));
                }
                (2 | 3, None) => assert!(!model.contains_key(&key)),
                (4, Some(at)) => {
                    let expires = shard.get(at).expires().millis();
                    assert_eq!(model[&key], (worth_of(&shard, at), expires));
                }
                (5, _) if next() % 4 == 0 => {
                    let most = 1 + (next() % 8) as usize;
                    let used = |shard: &Shard| {
                        shard.index.iter().filter(|place| place.is_misplaced()).count()
                    };
                    shard.move_all();
                    let before = used(&shard);
                    let mut from = Some(0);
                    while let Some(place) = from {
                        let left = used(&shard);
                        from = shard.move_used(place, most);
                        assert!(left - used(&shard) <= most);
                    }
                    assert_eq!(used(&shard), 0, "of {before}");
                }
                _ if next() % 3 == 0 => {
                    // Those that are used are all where they belong then, if they are asked for.
                    shard.move_all();
                    match worth {
                        Worth::Unused => _ = shard.move_used_firsts(),
                        Worth::Used => _ = shard.move_used(0, usize::MAX),
                        Worth::LoggedIn => {}
                    }
                    let nearest = shard.remove_nearest(worth);
                    let nearest = nearest.map(|entry| (entry.key(), entry.expires().millis()));
                    let of_worth = model.values().filter(|it| it.0 == worth).map(|it| it.1);
                    assert_eq!(nearest.map(|(_, expires)| expires), of_worth.min());
                    if let Some((key, expires)) = nearest {
                        assert_eq!(model.remove(&key), Some((worth, expires)));
                    }
                }
                _ if next() % 8 == 0 => {
                    let expired = shard.remove_expired(100).map(|entry| entry.key());
                    assert_eq!(expired.is_some(), model.values().any(|it| it.1 <= 100));
                    if let Some(key) = expired {
                        assert!(model.remove(&key).is_some_and(|it| it.1 <= 100));
                    }
                }
                _ => shard.shrink(),
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
}
