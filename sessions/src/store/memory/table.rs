//! A hash table of sessions, of a size that it is given.
//!
//! A look-up costs the memory that it touches: a busy store's table is in no cache. So a place of the
//! table has 32 bits of a key's hash, so that other keys' sessions are hardly ever looked at, and those places
//! that are probed one after the other lie in one line of the cache or in two. A general table keeps hash and
//! entry apart, and its look-ups wait for memory once more.
//!
//! Open addressing with linear probing; a removal closes its gap, so that nothing is left of what is gone.

use std::ops::Range;

use super::{
    entry::{Entry, Worth},
    index::Position,
};

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

    /// The place of a session that nobody has come back to.
    pub(super) fn new(hash: u32, position: Position, entry: Entry) -> Self {
        Self { at: position.to_bits(), hash, entry }
    }

    fn empty() -> Self {
        Self { at: Self::EMPTY, hash: 0, entry: Entry::none() }
    }

    fn is_empty(&self) -> bool {
        self.at == Self::EMPTY
    }

    pub(super) fn position(&self) -> Position {
        Position::from_bits(self.at & (Self::USED - 1))
    }

    /// Whether a request has come back to the session, which may stand among the unused all the same.
    pub(super) fn is_used(&self) -> bool {
        self.at & Self::USED != 0
    }

    /// Whether the session is used, and stands among the unused.
    pub(super) fn is_misplaced(&self) -> bool {
        self.is_used() && self.position().worth() == Worth::Unused
    }

    pub(super) fn note_use(&mut self) {
        self.at |= Self::USED;
    }

    /// The session is at another position of the same heap: used or not it stays.
    pub(super) fn relocate(&mut self, to: Position) {
        self.at = self.at & Self::USED | to.to_bits();
    }

    /// Another heap has taken the session: there it is not marked as used.
    pub(super) fn move_to(&mut self, to: Position) {
        self.at = to.to_bits();
    }
}

/// Between two calls: at least an eighth of the places is empty, and no place between a session's home
/// and its own is, but for those before `first`.
#[derive(Default)]
pub(super) struct Table {
    places: Box<[Place]>,
    len: usize,
    /// The places before this one have been [moved away](Self::move_into), and nothing is put into the table any
    /// more.
    first: usize,
}

impl Table {
    pub(super) fn with_capacity(sessions: usize) -> Self {
        let places = match sessions {
            0 => 0,
            _ => sessions * 8 / 7 + 1,
        };
        Self { places: (0..places).map(|_| Place::empty()).collect(), len: 0, first: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// How many sessions fit.
    pub(super) fn capacity(&self) -> usize {
        self.places.len() * 7 / 8
    }

    /// How many places there are.
    pub(super) fn places(&self) -> usize {
        self.places.len()
    }

    pub(super) fn get(&self, at: usize) -> &Place {
        &self.places[at]
    }

    pub(super) fn get_mut(&mut self, at: usize) -> &mut Place {
        &mut self.places[at]
    }

    /// Where a session with this hash stands if nothing is in its way: any number of places has one for each
    /// hash, without a division.
    #[inline]
    fn home(&self, hash: u32) -> usize {
        ((u64::from(hash) * self.places.len() as u64) >> u32::BITS) as usize
    }

    #[inline]
    fn next(&self, at: usize) -> usize {
        match at + 1 == self.places.len() {
            true => 0,
            false => at + 1,
        }
    }

    /// The places to probe for a hash, from its home on. Without end.
    #[inline]
    fn probe(&self, hash: u32) -> impl Iterator<Item = usize> {
        let home = self.home(hash).max(self.first);
        std::iter::successors(Some(home), |&at| Some(self.next(at)))
    }

    /// The session with this hash that `is_meant`.
    #[inline]
    pub(super) fn find(&self, hash: u32, is_meant: impl Fn(&Place) -> bool) -> Option<usize> {
        if self.len == 0 {
            return None;
        }
        for at in self.probe(hash) {
            let place = &self.places[at];
            if place.is_empty() {
                return None;
            }
            if place.hash == hash && is_meant(place) {
                return Some(at);
            }
        }
        None
    }

    /// The sessions whose hashes are within these bounds, in any order: they stand one behind the other, with
    /// others between them.
    pub(super) fn iter_between(&self, first: u32, last: u32) -> impl Iterator<Item = &Place> {
        let (from, to) = match self.len {
            0 => (self.places.len(), 0),
            _ => (self.home(first).max(self.first), self.home(last)),
        };
        let at_home = (to + 1).saturating_sub(from);
        let all = self.places[from..].iter().chain(&self.places[..from]);
        // Behind the last home come sessions whose own homes were taken.
        let near =
            all.enumerate().take_while(move |(steps, place)| *steps < at_home || !place.is_empty());
        let near = near.map(|(_, place)| place).filter(|place| !place.is_empty());
        near.filter(move |place| (first..=last).contains(&place.hash))
    }

    /// The sessions in some of the places, and where they stand.
    pub(super) fn iter_in(&self, places: Range<usize>) -> impl Iterator<Item = (usize, &Place)> {
        let numbers = places.clone();
        let sessions = numbers.zip(self.places.get(places).unwrap_or_default());
        sessions.filter(|(_, place)| !place.is_empty())
    }

    /// Adds a session that is not here. There is room.
    pub(super) fn put(&mut self, place: Place) -> usize {
        debug_assert!(self.len < self.capacity());
        let free = self.probe(place.hash).find(|&at| self.places[at].is_empty());
        let at = free.expect("an eighth of the places is empty");
        self.places[at] = place;
        self.len += 1;
        at
    }

    /// Takes out a session. Those behind it move up as far as their homes let them.
    pub(super) fn remove(&mut self, at: usize) -> Place {
        let mut gap = at;
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

    /// How far each session stands from its home, on average.
    #[cfg(test)]
    pub(super) fn distance(&self) -> usize {
        let steps = |(at, place): (usize, &Place)| self.steps(self.home(place.hash), at);
        self.iter_in(0..self.places.len()).map(steps).sum::<usize>() / self.len.max(1)
    }

    /// Moves what stands in the next so many places to another table, which has room for it.
    pub(super) fn move_into(&mut self, to: &mut Self, places: usize) {
        let end = self.first.saturating_add(places);
        // Sessions whose homes are at the end may stand at the beginning: they go all together, because nothing is
        // looked for behind a place that has been moved.
        let is_beginning = self.first == 0;
        let mut at = self.first;
        while self.len > 0 && (at < end || is_beginning && !self.places[at].is_empty()) {
            if !self.places[at].is_empty() {
                to.put(std::mem::replace(&mut self.places[at], Place::empty()));
                self.len -= 1;
            }
            at += 1;
        }
        self.first = at;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{clock::from_millis, identity::id::StoreKey, record::Record};

    fn place(hash: u32, number: usize) -> Place {
        let (created_at, expires_at) = (from_millis(0), from_millis(1));
        let record = Record { version: 1, created_at, expires_at, user: None, payload: [].into() };
        let entry = Entry::new(&StoreKey::from_bytes([0; 32]), &record);
        Place::new(hash, Position::new(Worth::Unused, number), entry)
    }

    /// Many at both ends, so that some stand on both sides of the table's end.
    fn hashes() -> Vec<u32> {
        let hash = |number: u32| match number % 4 {
            0 => number << 24,
            1 => u32::MAX - number,
            2 => number,
            _ => number.wrapping_mul(0x9e37_79b9),
        };
        (0..200).map(hash).collect()
    }

    fn table_of(hashes: &[u32]) -> Table {
        let mut table = Table::with_capacity(hashes.len());
        for (number, hash) in hashes.iter().enumerate() {
            table.put(place(*hash, number));
        }
        table
    }

    fn numbers<'a>(places: impl IntoIterator<Item = &'a Place>) -> Vec<usize> {
        let mut numbers: Vec<_> =
            places.into_iter().map(|place| place.position().index()).collect();
        numbers.sort_unstable();
        numbers
    }

    #[test]
    fn each_session_is_within_one_pair_of_bounds() {
        assert_eq!(Table::default().iter_between(0, u32::MAX).count(), 0);
        for sessions in [1, 2, 50, 200] {
            let table = table_of(&hashes()[..sessions]);
            for bits in [0, 1, 5] {
                let parts = (0..1_u32 << bits).map(|part| {
                    let first = part.checked_shl(32 - bits).unwrap_or(0);
                    (first, first | u32::MAX.checked_shr(bits).unwrap_or(0))
                });
                let all = parts.flat_map(|(first, last)| table.iter_between(first, last));
                assert_eq!(numbers(all), (0..sessions).collect::<Vec<_>>());
            }
        }
    }

    /// In steps of all sizes, with removals in between: what has not been moved yet is found where it was.
    #[test]
    fn what_is_moved_is_in_one_of_two_tables() {
        let hashes = hashes();
        for step in [1, 2, 7, 50, 1_000] {
            let (mut from, mut to) = (table_of(&hashes), Table::with_capacity(hashes.len()));
            let mut left: Vec<usize> = (0..hashes.len()).collect();
            for round in 0.. {
                let find = |table: &Table, number: usize| {
                    table.find(hashes[number], |place| place.position().index() == number)
                };
                for number in &left {
                    let found = [find(&from, *number), find(&to, *number)];
                    assert_eq!(found.iter().flatten().count(), 1, "{number} in steps of {step}");
                }
                let all = [&from, &to].map(|table| table.iter_between(0, u32::MAX));
                assert_eq!(numbers(all.into_iter().flatten()), left);
                let halves = [(0, u32::MAX / 2), (u32::MAX / 2 + 1, u32::MAX)];
                let both = halves.map(|(first, last)| from.iter_between(first, last).count());
                assert_eq!(both.iter().sum::<usize>(), from.len());
                if from.len() == 0 {
                    break;
                }
                let number = left.remove(round * 31 % left.len());
                match find(&from, number) {
                    Some(at) => drop(from.remove(at)),
                    None => drop(find(&to, number).map(|at| to.remove(at))),
                }
                from.move_into(&mut to, step);
            }
            assert_eq!(to.len(), left.len());
        }
    }

    #[test]
    fn as_many_fit_as_were_asked_for_and_a_place_is_left() {
        for sessions in 0..1_000 {
            let table = Table::with_capacity(sessions);
            assert!(table.capacity() >= sessions, "{sessions}");
            assert!(table.capacity() < table.places().max(1), "{sessions}");
        }
    }

    #[test]
    fn a_position_is_what_it_was_made_of() {
        for worth in Worth::ALL {
            for index in [0, 1, (1 << 29) - 1] {
                let position = Position::new(worth, index);
                assert_eq!((position.worth(), position.index()), (worth, index));
                let mut place = place(0, 0);
                place.move_to(position);
                place.note_use();
                assert!(!place.is_empty() && place.position() == position);
            }
        }
    }
}
