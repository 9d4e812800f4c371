//! The hash table of a shard: its sessions, and where each stands among those that expire.
//!
//! A look-up costs the memory that it touches: a busy store's table is in no cache. So a place of the
//! table has 32 bits of a key's hash, so that other keys' sessions are hardly ever looked at, and those places
//! that are probed one after the other lie in one line of the cache or in two. A general table keeps hash and
//! entry apart, and its look-ups wait for memory once more.
//!
//! Open addressing with linear probing; a removal closes its gap, so that nothing is left of what is gone.

use std::ops::Range;

use super::entry::{Entry, Worth};

/// Where a session stands among those that expire: in which heap, and where in that.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Position(u32);

impl Position {
    const INDEX_BITS: u32 = 29;
    /// All of a position: the index, and two bits for the heap.
    const BITS: u32 = Self::INDEX_BITS + 2;

    pub(super) fn new(worth: Worth, index: usize) -> Self {
        let index = u32::try_from(index).ok().filter(|index| index >> Self::INDEX_BITS == 0);
        Self(
            index.expect("a shard holds fewer than 2^29 sessions that are worth the same")
                | (worth as u32) << Self::INDEX_BITS,
        )
    }

    pub(super) fn worth(self) -> Worth {
        Worth::ALL[(self.0 >> Self::INDEX_BITS) as usize]
    }

    pub(super) fn index(self) -> usize {
        (self.0 & ((1 << Self::INDEX_BITS) - 1)) as usize
    }
}

/// One place of the table.
pub(super) struct Place {
    /// A position, and above its bits whether the session [is used](Self::is_used).
    at: u32,
    hash: u32,
    pub(super) entry: Entry,
}

impl Place {
    const USED: u32 = 1 << Position::BITS;
    /// No position has these bits: there is no such worth.
    const EMPTY: u32 = u32::MAX;

    fn empty() -> Self {
        Self { at: Self::EMPTY, hash: 0, entry: Entry::none() }
    }

    fn is_empty(&self) -> bool {
        self.at == Self::EMPTY
    }

    pub(super) fn position(&self) -> Position {
        Position(self.at & (Self::USED - 1))
    }

    /// Whether a request has come back to the session, which may stand among the unused all the same.
    pub(super) fn is_used(&self) -> bool {
        self.at & Self::USED != 0
    }

    pub(super) fn note_use(&mut self) {
        self.at |= Self::USED;
    }

    /// The session is at another position of the same heap: used or not it stays.
    pub(super) fn relocate(&mut self, to: Position) {
        self.at = self.at & Self::USED | to.0;
    }
}

/// Which place: good until a session is added or removed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct At(pub(super) usize);

/// Between two calls: at least an eighth of the places is empty, and no place between a session's home
/// and its own is.
#[derive(Default)]
pub(super) struct Index {
    places: Box<[Place]>,
    len: usize,
}

impl Index {
    pub(super) fn with_capacity(sessions: usize) -> Self {
        let places = match sessions {
            0 => 0,
            _ => sessions * 8 / 7 + 1,
        };
        Self { places: (0..places).map(|_| Place::empty()).collect(), len: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// How many sessions fit.
    pub(super) fn capacity(&self) -> usize {
        self.places.len() * 7 / 8
    }

    /// Where a session with this hash stands if nothing is in its way: any number of places has one for each
    /// hash, without a division.
    #[inline]
    fn home(&self, hash: u32) -> usize {
        ((u64::from(hash) * self.places.len() as u64) >> 32) as usize
    }

    #[inline]
    fn next(&self, at: usize) -> usize {
        match at + 1 == self.places.len() {
            true => 0,
            false => at + 1,
        }
    }

    pub(super) fn get(&self, at: At) -> &Place {
        &self.places[at.0]
    }

    pub(super) fn get_mut(&mut self, at: At) -> &mut Place {
        &mut self.places[at.0]
    }

    /// The sessions in any order.
    #[cfg(test)]
    pub(super) fn iter(&self) -> impl Iterator<Item = (At, &Place)> {
        self.iter_in(0..self.places())
    }

    /// The sessions whose hashes are within these bounds, in any order: they stand one behind the other, with
    /// others between them.
    pub(super) fn iter_between(&self, first: u32, last: u32) -> impl Iterator<Item = &Place> {
        let (from, to) = match self.places.is_empty() {
            true => (0, 0),
            false => (self.home(first), self.home(last)),
        };
        let at_home = to - from + 1;
        let all = self.places[from..].iter().chain(&self.places[..from]);
        // Behind the last home come sessions whose own homes were taken.
        let near =
            all.enumerate().take_while(move |(steps, place)| *steps < at_home || !place.is_empty());
        let near = near.map(|(_, place)| place).filter(|place| !place.is_empty());
        near.filter(move |place| (first..=last).contains(&place.hash))
    }

    /// How many places there are.
    pub(super) fn places(&self) -> usize {
        self.places.len()
    }

    /// The sessions in some of the places.
    pub(super) fn iter_in(&self, places: Range<usize>) -> impl Iterator<Item = (At, &Place)> {
        let from = places.start;
        let places = self.places.get(places).unwrap_or_default().iter().enumerate();
        let sessions = places.filter(|(_, place)| !place.is_empty());
        sessions.map(move |(at, place)| (At(from + at), place))
    }

    /// The places to probe for a hash, from its home on. Without end.
    #[inline]
    fn probe(&self, hash: u32) -> impl Iterator<Item = usize> {
        std::iter::successors(Some(self.home(hash)), |&at| Some(self.next(at)))
    }

    /// The session with this hash that `is_meant`.
    #[inline]
    pub(super) fn find(&self, hash: u32, is_meant: impl Fn(&Place) -> bool) -> Option<At> {
        if self.places.is_empty() {
            return None;
        }
        for at in self.probe(hash) {
            let place = &self.places[at];
            if place.is_empty() {
                return None;
            }
            if place.hash == hash && is_meant(place) {
                return Some(At(at));
            }
        }
        None
    }

    /// The session that stands at this position. It is there.
    pub(super) fn place_of(&self, hash: u32, position: Position) -> At {
        let found = self.find(hash, |place| place.position() == position);
        found.expect("each session of a heap stands in the table")
    }

    /// Makes room for one more, and for a quarter more than there are: doubling would leave much of the
    /// table empty.
    pub(super) fn reserve(&mut self) {
        if self.len == self.capacity() {
            self.resize(self.len + self.len / 4 + 7);
        }
    }

    /// Moves to a table for so many sessions, and leaves the old one empty behind.
    fn resize(&mut self, sessions: usize) -> Self {
        let larger = Self::with_capacity(sessions);
        let mut old = std::mem::replace(self, larger);
        for place in old.places.iter_mut().filter(|place| !place.is_empty()) {
            self.put(std::mem::replace(place, Place::empty()));
        }
        old.len = 0;
        old
    }

    /// The same with room for those that there are.
    #[must_use = "the old table takes long to give back, and not under the lock"]
    pub(super) fn shrink(&mut self) -> Self {
        self.resize(self.len)
    }

    /// Adds a session that is not here. There is room.
    pub(super) fn insert(&mut self, hash: u32, position: Position, entry: Entry) -> At {
        self.put(Place { at: position.0, hash, entry })
    }

    fn put(&mut self, place: Place) -> At {
        debug_assert!(self.len < self.capacity());
        let free = self.probe(place.hash).find(|&at| self.places[at].is_empty());
        let at = free.expect("an eighth of the places is empty");
        self.places[at] = place;
        self.len += 1;
        At(at)
    }

    /// The session at this position is at another one now.
    pub(super) fn relocate(&mut self, hash: u32, from: Position, to: Position) {
        let at = self.place_of(hash, from);
        self.get_mut(at).relocate(to);
    }

    /// The same of a session that another heap takes: there it is not marked as used.
    pub(super) fn move_to(&mut self, at: At, to: Position) {
        self.get_mut(at).at = to.0;
    }

    /// Takes out a session. Those behind it move up as far as their homes let them.
    pub(super) fn remove(&mut self, at: At) -> Place {
        let mut gap = at.0;
        let removed = std::mem::replace(&mut self.places[gap], Place::empty());
        self.len -= 1;
        let mut at = gap;
        loop {
            at = self.next(at);
            if self.places[at].is_empty() {
                return removed;
            }
            // From its home it must still be found without a gap.
            let home = self.home(self.places[at].hash);
            if self.steps(home, at) >= self.steps(gap, at) {
                self.places.swap(gap, at);
                gap = at;
            }
        }
    }

    /// How many places one comes behind another.
    fn steps(&self, from: usize, to: usize) -> usize {
        match to.checked_sub(from) {
            Some(steps) => steps,
            None => to + self.places.len() - from,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::{clock::from_millis, identity::id::StoreKey, record::Record};

    /// Few homes and few hashes, so that sessions are in each other's way. The first home of all and the last
    /// are among them, so that some stand on both sides of the table's end.
    fn hash_of(number: u8) -> u32 {
        let number = u32::from(number);
        let hash = (number % 7) << 29 | (number % 3);
        match number % 2 {
            0 => hash,
            _ => u32::MAX - hash,
        }
    }

    fn entry(number: u8) -> Entry {
        let (created_at, expires_at) = (from_millis(0), from_millis(1));
        let record = Record { version: 1, created_at, expires_at, user: None, payload: [].into() };
        Entry::new(&StoreKey::from_bytes([number; 32]), &record)
    }

    fn number_of(entry: &Entry) -> u8 {
        entry.key().as_bytes()[0]
    }

    /// Twenty thousand random changes, each compared with the same change to a plain map.
    #[test]
    fn agrees_with_a_map() {
        let mut random = 1_u64;
        let mut next = move |below: usize| {
            random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (random >> 33) as usize % below
        };
        let (mut index, mut model) = (Index::default(), HashMap::<u8, (Position, bool)>::new());
        let find = |index: &Index, number: u8| {
            index.find(hash_of(number), |place| number_of(&place.entry) == number)
        };
        for step in 0..20_000 {
            let number = next(60) as u8;
            let free = Position::new(Worth::ALL[next(3)], 100 + step);
            match (model.get(&number).copied(), next(6)) {
                (None, _) => {
                    index.reserve();
                    index.insert(hash_of(number), free, entry(number));
                    model.insert(number, (free, false));
                }
                (Some((position, is_used)), 0 | 1) => {
                    let at = find(&index, number).unwrap();
                    let removed = index.remove(at);
                    assert_eq!((removed.position(), removed.is_used()), (position, is_used));
                    assert_eq!(number_of(&removed.entry), number);
                    model.remove(&number);
                }
                (Some((position, is_used)), 2) => {
                    index.relocate(hash_of(number), position, free);
                    model.insert(number, (free, is_used));
                }
                (Some((position, _)), 3) => {
                    index.get_mut(find(&index, number).unwrap()).note_use();
                    model.insert(number, (position, true));
                }
                (Some(_), 4) => {
                    index.move_to(find(&index, number).unwrap(), free);
                    model.insert(number, (free, false));
                }
                (Some((_, is_used)), _) => {
                    index.get_mut(find(&index, number).unwrap()).relocate(free);
                    model.insert(number, (free, is_used));
                }
            }
            if next(50) == 0 {
                let old = index.shrink();
                assert!(old.iter().next().is_none() && old.len() == 0);
            }
            assert_eq!((index.len(), index.iter().count()), (model.len(), model.len()));
            for number in 0..60 {
                let found = find(&index, number).map(|at| index.get(at));
                let found = found.map(|place| (place.position(), place.is_used()));
                assert_eq!(found, model.get(&number).copied());
            }
            assert!(index.len <= index.capacity());
        }
        assert!(index.capacity() < 120, "nothing is left of what is gone");
    }

    #[test]
    fn each_session_is_within_one_pair_of_bounds() {
        let (mut index, mut hashes) = (Index::default(), Vec::new());
        assert_eq!(index.iter_between(0, u32::MAX).count(), 0);
        for number in 0..200 {
            // Many at both ends, so that some stand on both sides of the table's end.
            let hash = match number % 4 {
                0 => number << 24,
                1 => u32::MAX - number,
                2 => number,
                _ => number.wrapping_mul(0x9e37_79b9),
            };
            index.reserve();
            index.insert(hash, Position::new(Worth::Used, number as usize), entry(number as u8));
            hashes.push(hash);
            for bits in [0, 1, 5] {
                let mut seen = Vec::new();
                for part in 0..1_u32 << bits {
                    let first = part.checked_shl(32 - bits).unwrap_or(0);
                    let last = first | u32::MAX.checked_shr(bits).unwrap_or(0);
                    let its = index.iter_between(first, last);
                    seen.extend(its.map(|place| place.hash));
                }
                seen.sort_unstable();
                hashes.sort_unstable();
                assert_eq!(seen, hashes);
            }
        }
    }

    #[test]
    fn as_many_fit_as_were_asked_for_and_a_place_is_left() {
        for sessions in 0..1_000 {
            let index = Index::with_capacity(sessions);
            assert!(index.capacity() >= sessions, "{sessions}");
            assert!(index.capacity() < index.places.len().max(1), "{sessions}");
        }
    }

    #[test]
    fn a_position_is_what_it_was_made_of() {
        for worth in Worth::ALL {
            for index in [0, 1, (1 << 29) - 1] {
                let position = Position::new(worth, index);
                assert_eq!((position.worth(), position.index()), (worth, index));
                let mut place = Place { at: position.0, hash: 0, entry: Entry::none() };
                place.note_use();
                assert!(!place.is_empty() && place.position() == position);
            }
        }
    }
}
