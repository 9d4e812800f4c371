//! The hash table of a shard: where each of its sessions stands.
//!
//! A look-up costs the memory that it touches: a busy store's table is in no cache. So a place of the
//! table is four bytes, which tell enough of a key's hash that other keys' entries are hardly ever
//! looked at, and those that are probed one after the other lie in one line of the cache. A general
//! table keeps the two apart, and its look-ups wait for memory once more.
//!
//! Open addressing with linear probing; a removal closes its gap, so that nothing is left of what is gone.

use super::shard::Worth;

/// Where a session stands: in which array, and where in that.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Position(u32);

impl Position {
    const INDEX_BITS: u32 = 22;
    /// All of a position: the index, and two bits for the array.
    const BITS: u32 = Self::INDEX_BITS + 2;

    pub(super) fn new(worth: Worth, index: usize) -> Self {
        let index = u32::try_from(index).ok().filter(|index| index >> Self::INDEX_BITS == 0);
        Self(
            index.expect("a shard holds fewer than 2^22 sessions that are worth the same")
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

/// A position, and in the bits above eight of its key's hash.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Place(u32);

impl Place {
    /// No array has this number.
    const EMPTY: Self = Self(u32::MAX);

    /// The bits of the hash are others than those that a session's home is made of.
    fn new(hash: u64, at: Position) -> Self {
        Self(((hash >> 56) as u32) << Position::BITS | at.0)
    }

    fn may_be_of(self, hash: u64) -> bool {
        self.0 >> Position::BITS == (hash >> 56) as u32
    }

    fn position(self) -> Position {
        Position(self.0 & ((1 << Position::BITS) - 1))
    }
}

/// Between two calls: at least an eighth of the places is empty, and no place between a session's home
/// and its own is.
#[derive(Default)]
pub(super) struct Index {
    /// A power of two of them, or none.
    places: Box<[Place]>,
    len: usize,
}

impl Index {
    pub(super) fn with_capacity(sessions: usize) -> Self {
        let places = match sessions {
            0 => 0,
            _ => (sessions * 8).div_ceil(7).next_power_of_two(),
        };
        Self { places: vec![Place::EMPTY; places].into(), len: 0 }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// How many sessions fit.
    pub(super) fn capacity(&self) -> usize {
        self.places.len() * 7 / 8
    }

    /// The places to probe for a hash, from its home on. Without end.
    #[inline]
    fn probe(&self, hash: u64) -> impl Iterator<Item = usize> + use<> {
        let last = self.places.len().wrapping_sub(1);
        (0..).map(move |step: usize| (hash as usize).wrapping_add(step) & last)
    }

    /// The position with this hash that `is_meant`.
    #[inline]
    pub(super) fn find(&self, hash: u64, is_meant: impl Fn(Position) -> bool) -> Option<Position> {
        if self.places.is_empty() {
            return None;
        }
        for at in self.probe(hash) {
            let place = self.places[at];
            if place == Place::EMPTY {
                return None;
            }
            if place.may_be_of(hash) && is_meant(place.position()) {
                return Some(place.position());
            }
        }
        None
    }

    /// Where this position stands. It is there.
    fn place_of(&self, hash: u64, position: Position) -> usize {
        let wanted = Place::new(hash, position);
        let mut places = self.probe(hash).take(self.places.len());
        places.find(|&at| self.places[at] == wanted).expect("each entry stands in the table")
    }

    /// Makes room for one more.
    pub(super) fn reserve(&mut self, hash_of: impl Fn(Position) -> u64) {
        if self.len < self.capacity() {
            return;
        }
        let mut larger = Self::with_capacity((self.len + 1).max(7));
        for place in self.places.iter().filter(|place| **place != Place::EMPTY) {
            larger.insert(hash_of(place.position()), place.position());
        }
        *self = larger;
    }

    /// Adds a position that is not here. There is room.
    pub(super) fn insert(&mut self, hash: u64, position: Position) {
        debug_assert!(self.len < self.capacity());
        let mut probe = self.probe(hash);
        if let Some(at) = probe.find(|&at| self.places[at] == Place::EMPTY) {
            self.places[at] = Place::new(hash, position);
            self.len += 1;
        }
    }

    /// The session at this position is at another one now.
    pub(super) fn relocate(&mut self, hash: u64, from: Position, to: Position) {
        let at = self.place_of(hash, from);
        self.places[at] = Place::new(hash, to);
    }

    /// Two sessions have changed places.
    pub(super) fn swap(&mut self, [one, other]: [(u64, Position); 2]) {
        // Both are looked up before either is written: in between, the same position would stand in the
        // table twice.
        let places = [one, other].map(|(hash, position)| self.place_of(hash, position));
        self.places[places[0]] = Place::new(one.0, other.1);
        self.places[places[1]] = Place::new(other.0, one.1);
    }

    /// Takes out a position. Those behind it move up as far as their homes let them.
    pub(super) fn remove(
        &mut self,
        hash: u64,
        position: Position,
        hash_of: impl Fn(Position) -> u64,
    ) {
        let last = self.places.len() - 1;
        let mut gap = self.place_of(hash, position);
        self.len -= 1;
        let mut at = gap;
        loop {
            at = (at + 1) & last;
            let place = self.places[at];
            if place == Place::EMPTY {
                break;
            }
            let home = hash_of(place.position()) as usize & last;
            // From its home it must still be found without a gap.
            let (from_home, from_gap) = (at.wrapping_sub(home) & last, at.wrapping_sub(gap) & last);
            if from_home >= from_gap {
                self.places[gap] = place;
                gap = at;
            }
        }
        self.places[gap] = Place::EMPTY;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    /// Few homes and few other bits, so that sessions are in each other's way.
    fn hash_of(number: usize) -> u64 {
        let number = number as u64;
        (number % 3) << 56 | (number % 7)
    }

    /// Twenty thousand random changes, each compared with the same change to a plain map.
    #[test]
    fn agrees_with_a_map() {
        let mut random = 1_u64;
        let mut next = move |below: usize| {
            random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (random >> 33) as usize % below
        };
        let (mut index, mut model) = (Index::default(), HashMap::new());
        // Which session stands at a position.
        let session_at = |model: &HashMap<usize, Position>, at: Position| {
            *model.iter().find(|(_, its)| **its == at).expect("it is in both").0
        };
        for step in 0..20_000 {
            let (number, other) = (next(60), next(60));
            let free = Position::new(Worth::ALL[next(3)], 100 + step);
            match (model.get(&number).copied(), next(4)) {
                (None, _) => {
                    index.reserve(|at| hash_of(session_at(&model, at)));
                    index.insert(hash_of(number), free);
                    model.insert(number, free);
                }
                (Some(at), 0 | 1) => {
                    index.remove(hash_of(number), at, |at| hash_of(session_at(&model, at)));
                    model.remove(&number);
                }
                (Some(at), 2) => {
                    index.relocate(hash_of(number), at, free);
                    model.insert(number, free);
                }
                (Some(at), _) => {
                    if let Some(&its) = model.get(&other).filter(|_| other != number) {
                        index.swap([(hash_of(number), at), (hash_of(other), its)]);
                        model.extend([(number, its), (other, at)]);
                    }
                }
            }
            assert_eq!(index.len(), model.len());
            for number in 0..60 {
                let wanted = model.get(&number).copied();
                let found = index.find(hash_of(number), |at| Some(at) == wanted);
                assert_eq!(found, wanted);
            }
            assert!(
                index.places.iter().filter(|place| **place != Place::EMPTY).count() == index.len
            );
            assert!(index.len <= index.capacity());
        }
        assert!(index.capacity() < 120, "nothing is left of what is gone");
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
            for index in [0, 1, (1 << 22) - 1] {
                let position = Position::new(worth, index);
                assert_eq!((position.worth(), position.index()), (worth, index));
                let place = Place::new(u64::MAX, position);
                assert!(place != Place::EMPTY && place.position() == position);
            }
        }
    }
}
