//! The sessions of a shard: a hash table, and while that grows or shrinks a second one.
//!
//! Requests wait while a shard is locked, and to move all of a large table would take milliseconds. So the new table
//! is allocated before, without the lock; each session that is added then moves a few of the others over, and the
//! sweep moves more. Meanwhile a session stands in one of the two.

use super::{
    entry::{Entry, Worth},
    table::{Place, Table},
};

/// Where a session stands among those that expire: in which heap, and where in that.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Position(u32);

impl Position {
    const INDEX_BITS: u32 = 29;
    /// All of a position: the index, and two bits for the heap.
    pub(super) const BITS: u32 = Self::INDEX_BITS + 2;

    pub(super) fn new(worth: Worth, index: usize) -> Self {
        let index = u32::try_from(index).ok().filter(|index| index >> Self::INDEX_BITS == 0);
        Self(
            index.expect("a shard holds fewer than 2^29 sessions that are worth the same")
                | (worth as u32) << Self::INDEX_BITS,
        )
    }

    pub(super) fn to_bits(self) -> u32 {
        self.0
    }

    pub(super) fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    pub(super) fn worth(self) -> Worth {
        Worth::ALL[(self.0 >> Self::INDEX_BITS) as usize]
    }

    pub(super) fn index(self) -> usize {
        (self.0 & ((1 << Self::INDEX_BITS) - 1)) as usize
    }
}

/// Which place of which table: good until a session is added, removed or moved.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct At {
    is_old: bool,
    place: usize,
}

/// So many places of the old table are moved for each session that is added: all of them before the new table is full,
/// because a larger one has room for a quarter more sessions, and a smaller one for [enough more](Index::would_do).
pub(super) const MOVED_EACH: usize = 128;

#[derive(Default)]
pub(super) struct Index {
    table: Table,
    /// Of before, while its sessions move to `table`.
    old: Table,
}

impl Index {
    pub(super) fn len(&self) -> usize {
        self.table.len() + self.old.len()
    }

    /// How many sessions fit.
    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.table.capacity()
    }

    #[cfg(test)]
    pub(super) fn distance(&self) -> usize {
        self.table.distance()
    }

    #[inline]
    pub(super) fn get(&self, at: At) -> &Place {
        match at.is_old {
            false => self.table.get(at.place),
            true => self.old.get(at.place),
        }
    }

    #[inline]
    pub(super) fn get_mut(&mut self, at: At) -> &mut Place {
        match at.is_old {
            false => self.table.get_mut(at.place),
            true => self.old.get_mut(at.place),
        }
    }

    /// The sessions in any order.
    #[cfg(test)]
    pub(super) fn iter(&self) -> impl Iterator<Item = &Place> {
        self.iter_between(0, u32::MAX)
    }

    /// The sessions whose hashes are within these bounds, in any order.
    pub(super) fn iter_between(&self, first: u32, last: u32) -> impl Iterator<Item = &Place> {
        let tables = [&self.table, &self.old];
        tables.into_iter().flat_map(move |table| table.iter_between(first, last))
    }

    /// The session with this hash that `is_meant`.
    #[inline]
    pub(super) fn find(&self, hash: u32, is_meant: impl Fn(&Place) -> bool) -> Option<At> {
        if let Some(place) = self.table.find(hash, &is_meant) {
            return Some(At { is_old: false, place });
        }
        // Nearly always empty.
        let place = self.old.find(hash, is_meant)?;
        Some(At { is_old: true, place })
    }

    /// The session that stands at this position. It is there.
    pub(super) fn place_of(&self, hash: u32, position: Position) -> At {
        let found = self.find(hash, |place| place.position() == position);
        found.expect("each session of a heap stands in a table")
    }

    /// Looks at so many places from one on for misplaced sessions, at most so many; and says where to go on. Nothing is
    /// being moved.
    pub(super) fn misplaced(
        &self,
        from: usize,
        looks: usize,
        most: usize,
    ) -> (Vec<At>, Option<usize>) {
        let places = from..self.table.places().min(from.saturating_add(looks));
        let mut next = places.end;
        let misplaced = self.table.iter_in(places).filter(|(_, place)| place.is_misplaced());
        let found = misplaced.map(|(place, _)| At { is_old: false, place }).take(most);
        let found: Vec<At> = found.collect();
        if let Some(last) = found.last().filter(|_| found.len() == most) {
            next = last.place + 1;
        }
        (found, (next < self.table.places()).then_some(next))
    }

    /// Whether there is no room for one more.
    pub(super) fn is_full(&self) -> bool {
        self.len() >= self.table.capacity()
    }

    /// For how many sessions a larger table has room: for a quarter more than there are, because to double would
    /// leave much of the table empty.
    pub(super) fn larger(&self) -> usize {
        self.len() + self.len() / 4 + 7
    }

    /// For how many sessions a smaller table has room, if two thirds of this one would do: for an eighth more than
    /// there are, but not so few that they could come before all have been moved. Nothing is being moved.
    pub(super) fn smaller(&self) -> Option<usize> {
        let (len, capacity) = (self.table.len(), self.table.capacity());
        let smaller = match len {
            0 => 0,
            _ => (len + len / 8 + 3).max(capacity / 8),
        };
        (capacity > 0 && smaller <= capacity / 3 * 2).then_some(smaller)
    }

    /// Whether a smaller table is wanted, and all sessions would have moved to this one before it is full: it was made
    /// without the lock, and sessions may have come since.
    pub(super) fn would_do(&self, smaller: &Table) -> bool {
        let for_more = smaller.capacity().saturating_sub(self.len());
        let has_room = self.len() == 0 || for_more > self.table.places() / MOVED_EACH;
        !self.is_moving() && self.smaller().is_some() && has_room
    }

    /// Whether sessions move from one table to another.
    #[inline]
    pub(super) fn is_moving(&self) -> bool {
        self.old.places() > 0
    }

    /// Begins to move to a table that has room for all sessions. Nothing is being moved.
    pub(super) fn begin_move(&mut self, to: Table) {
        debug_assert!(!self.is_moving() && self.len() <= to.capacity());
        self.old = std::mem::replace(&mut self.table, to);
    }

    /// Moves what stands in so many places of the old table. When the last session has gone, what comes back is
    /// the old table.
    #[must_use = "to give memory back takes long, and not under the lock"]
    pub(super) fn go_on_moving(&mut self, places: usize) -> Option<Table> {
        self.old.move_into(&mut self.table, places);
        (self.is_moving() && self.old.len() == 0).then(|| std::mem::take(&mut self.old))
    }

    /// Adds a session that is not here. There is room.
    pub(super) fn insert(&mut self, hash: u32, position: Position, entry: Entry) -> At {
        At { is_old: false, place: self.table.put(Place::new(hash, position, entry)) }
    }

    /// The session at this position is at another one now.
    pub(super) fn relocate(&mut self, hash: u32, from: Position, to: Position) {
        let at = self.place_of(hash, from);
        self.get_mut(at).relocate(to);
    }

    /// Takes out a session.
    pub(super) fn remove(&mut self, at: At) -> Place {
        match at.is_old {
            false => self.table.remove(at.place),
            true => self.old.remove(at.place),
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
                    if index.is_full() {
                        while index.is_moving() {
                            drop(index.go_on_moving(usize::MAX));
                        }
                        index.begin_move(Table::with_capacity(index.larger()));
                    }
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
                    index.get_mut(find(&index, number).unwrap()).move_to(free);
                    model.insert(number, (free, false));
                }
                (Some((_, is_used)), _) => {
                    index.get_mut(find(&index, number).unwrap()).relocate(free);
                    model.insert(number, (free, is_used));
                }
            }
            if next(50) == 0
                && !index.is_moving()
                && let Some(sessions) = index.smaller()
            {
                index.begin_move(Table::with_capacity(sessions));
            }
            if next(3) == 0
                && let Some(old) = index.go_on_moving(next(9))
            {
                assert!(old.iter_between(0, u32::MAX).next().is_none() && !index.is_moving());
            }
            assert_eq!((index.len(), index.iter().count()), (model.len(), model.len()));
            for number in 0..60 {
                let found = find(&index, number).map(|at| index.get(at));
                let found = found.map(|place| (place.position(), place.is_used()));
                assert_eq!(found, model.get(&number).copied());
            }
            assert!(index.len() <= index.capacity());
        }
        assert!(index.capacity() < 120, "nothing is left of what is gone");
    }

    fn index_of(sessions: u32) -> Index {
        let mut index = Index::default();
        for number in 0..sessions {
            if index.is_full() {
                assert!(!index.is_moving(), "{number} came before the others had moved");
                index.begin_move(Table::with_capacity(index.larger()));
            }
            drop(index.go_on_moving(MOVED_EACH));
            let hash = number.wrapping_mul(0x9e37_79b9);
            index.insert(hash, Position::new(Worth::Used, number as usize), entry(number as u8));
        }
        index
    }

    fn remove(index: &mut Index, number: u32) {
        let hash = number.wrapping_mul(0x9e37_79b9);
        let at = index.place_of(hash, Position::new(Worth::Used, number as usize));
        index.remove(at);
    }

    #[test]
    fn all_have_moved_before_the_new_table_is_full() {
        index_of(100_000);
        // Of so many left, whatever the table has had room for.
        for left in [1, 10, 500, 1_000, 1_100, 1_300, 4_000] {
            let mut index = index_of(10_000);
            while index.is_moving() {
                drop(index.go_on_moving(MOVED_EACH));
            }
            (left..10_000).for_each(|number| remove(&mut index, number));
            index.begin_move(Table::with_capacity(index.smaller().unwrap()));
            for number in left.. {
                if !index.is_moving() {
                    break;
                }
                assert!(!index.is_full(), "{number} came before the {left} had moved");
                drop(index.go_on_moving(MOVED_EACH));
                let hash = number.wrapping_mul(0x9e37_79b9);
                let position = Position::new(Worth::Used, number as usize);
                index.insert(hash, position, entry(number as u8));
            }
        }
    }

    #[test]
    fn a_table_shrinks_until_it_is_not_half_empty() {
        for left in [0, 1, 2, 3, 5, 20, 1_000] {
            let mut index = index_of(10_000);
            (left..10_000).for_each(|number| remove(&mut index, number));
            let mut steps = 0;
            while {
                drop(index.go_on_moving(usize::MAX));
                true
            } && let Some(sessions) = index.smaller()
            {
                index.begin_move(Table::with_capacity(sessions));
                steps += 1;
                assert!(steps < 10, "{left}");
            }
            let most = (left + left / 8 + 3) * 2;
            assert!(index.len() == left as usize && index.capacity() <= most as usize, "{left}");
        }
    }
}
