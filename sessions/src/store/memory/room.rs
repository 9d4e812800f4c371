//! The bounds of a store: room is taken before it is written to, and what is worth least makes some
//! when there is none.

use std::{
    ops::Range,
    sync::atomic::{
        AtomicU64,
        Ordering::{Acquire, Relaxed},
    },
    thread,
};

use super::{
    Inner,
    entry::{Entry, Worth},
};
use crate::{error::store::StoreError, identity::id::StoreKey};

/// How often a call lets others go first that have taken room, and not written to it yet: they need no
/// more than a moment of this processor. It then counts as refused.
const MOST_YIELDS: u32 = 1_000;

/// The most that a store may hold.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) sessions: usize,
    pub(super) bytes: usize,
}

/// Why there is no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    /// What could give way does not make enough of it.
    OfLoggedIn,
    /// There could never be.
    TooLarge { bytes: usize },
}

impl Full {
    pub(super) fn error(self, operation: &'static str, limits: Limits) -> StoreError {
        let Limits { sessions, bytes: limit } = limits;
        match self {
            Self::OfLoggedIn => {
                let capacity = match sessions {
                    usize::MAX => String::new(),
                    sessions => format!(" or {sessions} sessions (`with_capacity`)"),
                };
                let text = format!(
                    "it is full of sessions that somebody is logged in to: {limit} bytes \
                     (`MemoryStoreBuilder::with_memory_limit`){capacity}"
                );
                StoreError::new("memory", operation, text)
            }
            Self::TooLarge { bytes } => {
                let text = format!(
                    "a session of {bytes} bytes is larger than all that it may take: {limit} bytes \
                     (`MemoryStoreBuilder::with_memory_limit`)"
                );
                StoreError::permanent("memory", operation, text)
            }
        }
    }
}

/// Room that a call has taken and not written to yet. What is left of it is given back.
pub(super) struct Room<'a> {
    store: &'a Inner,
    sessions: usize,
    bytes: usize,
}

impl<'a> Room<'a> {
    pub(super) fn none(store: &'a Inner) -> Self {
        Self { store, sessions: 0, bytes: 0 }
    }

    /// Takes what is missing until there is room for so much. The counters alone decide, so that the
    /// bounds need no lock and hold at every moment; they guard no other memory, so `Relaxed` is
    /// enough.
    pub(super) fn take(&mut self, sessions: usize, bytes: usize) -> bool {
        let Inner { taken, limits, .. } = self.store;
        for (counter, limit, have, wanted) in [
            (&taken.sessions, limits.sessions, &mut self.sessions, sessions),
            (&taken.bytes, limits.bytes, &mut self.bytes, bytes),
        ] {
            let missing = wanted.saturating_sub(*have);
            if missing == 0 {
                continue;
            }
            let with_it = |now: usize| now.checked_add(missing).filter(|&then| then <= limit);
            if counter.fetch_update(Relaxed, Relaxed, with_it).is_err() {
                return false;
            }
            *have += missing;
        }
        true
    }

    /// So much of it is written to.
    pub(super) fn spend(&mut self, sessions: usize, bytes: usize) {
        self.sessions -= sessions;
        self.bytes -= bytes;
    }

    /// The room of a session that has been removed.
    pub(super) fn keep_of(&mut self, removed: &Entry) {
        self.sessions += 1;
        self.bytes += removed.cost();
    }

    /// A session that cost the one has been replaced by one that costs the other.
    pub(super) fn exchange(&mut self, before: usize, now: usize) {
        self.bytes = self.bytes + before - now;
    }

    fn give_back(&mut self) {
        let taken = &self.store.taken;
        // Nearly always there is nothing, and a counter that all threads write to is slow.
        if self.sessions > 0 {
            taken.sessions.fetch_sub(std::mem::take(&mut self.sessions), Relaxed);
        }
        if self.bytes > 0 {
            taken.bytes.fetch_sub(std::mem::take(&mut self.bytes), Relaxed);
        }
    }
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        self.give_back();
    }
}

impl Inner {
    /// Has what is worth least give way until `room` has so many bytes for a session that costs so
    /// much, and a place for it; or, if it replaces one, that one's, which does not give way.
    pub(super) fn make_room(
        &self,
        room: &mut Room<'_>,
        bytes: usize,
        cost: usize,
        replaces: Option<&StoreKey>,
    ) -> Result<(), Full> {
        if cost > self.limits.bytes {
            return Err(Full::TooLarge { bytes: cost });
        }
        let sessions = usize::from(replaces.is_none());
        let except = replaces.map(|key| self.shard_of(key));
        let mut yields = 0;
        while yields < MOST_YIELDS {
            if room.take(sessions, bytes) {
                return Ok(());
            }
            if let Some(removed) = self.remove_least_worth(except) {
                room.keep_of(&removed);
                continue;
            }
            if self.is_full_of_logged_in(sessions, bytes) {
                return Err(Full::OfLoggedIn);
            }
            // Other calls have what there is, as this one has: two that want much must not wait for each other.
            room.give_back();
            thread::yield_now();
            yields += 1;
        }
        Err(Full::OfLoggedIn)
    }

    /// Whether there may soon be no room.
    pub(super) fn is_half_full(&self) -> bool {
        let Limits { sessions, bytes } = self.limits;
        self.taken.sessions.load(Relaxed) > sessions / 2
            || self.taken.bytes.load(Relaxed) > bytes / 2
    }

    /// Whether so much would not fit beside the sessions that never give way.
    fn is_full_of_logged_in(&self, sessions: usize, bytes: usize) -> bool {
        let is_over = |kept: usize, more, limit| kept.saturating_add(more) > limit;
        let kept = &self.logged_in;
        is_over(kept.sessions.load(Relaxed), sessions, self.limits.sessions)
            || is_over(kept.bytes.load(Relaxed), bytes, self.limits.bytes)
    }

    /// Removes the session that is worth least, from any shard but that one.
    fn remove_least_worth(&self, except: Option<usize>) -> Option<Entry> {
        let now = self.now();
        let (mut shard, worth) = loop {
            let (worth, index) = self.find_least_worth(now, except)?;
            let mut shard = self.lock(index);
            // What is moved away is worth more, and the next one's turn may be after another shard's.
            if worth != Worth::Unused || !shard.move_used_firsts() {
                break (shard, worth);
            }
        };
        let removed = match worth {
            // Another call may have been faster, and the next session is alive.
            Worth::LoggedIn => shard.remove_expired(now),
            _ => shard.remove_nearest(worth),
        }?;
        self.note_end(&removed);
        drop(shard);
        match removed.is_expired(now) {
            true => self.swept.fetch_add(1, Relaxed),
            false => self.evicted.fetch_add(1, Relaxed),
        };
        Some(removed)
    }

    /// The first of what has expired, or else of what is worth least, and its shard.
    fn find_least_worth(&self, now: u64, except: Option<usize>) -> Option<(Worth, usize)> {
        let first = |worth: Worth| first_of(&self.nearest.of[worth as usize], except);
        // Those that are worth more are looked through for expired ones when there can be some: a flood
        // would have each of its requests do so.
        if self.nearest.others_from.load(Relaxed) <= now {
            // Before the look: a hint that is noted meanwhile counts, and one that was noted before is seen.
            self.nearest.others_from.swap(u64::MAX, Acquire);
            let others = [Worth::Used, Worth::LoggedIn].map(|worth| Some((first(worth)?, worth)));
            let next = others.into_iter().flatten().min();
            let ((expires, index), worth) = next.unwrap_or(((u64::MAX, 0), Worth::Used));
            self.nearest.others_from.fetch_min(expires, Relaxed);
            if expires <= now {
                return Some((worth, index));
            }
        }
        [Worth::Unused, Worth::Used].into_iter().find_map(|worth| Some((worth, first(worth)?.1)))
    }
}

/// The smallest of the numbers below `u64::MAX` and its place, but for one place. Each call that finds no room
/// looks through all of them: first for the piece that has it, which is quicker.
fn first_of(hints: &[AtomicU64], except: Option<usize>) -> Option<(u64, usize)> {
    const PIECE: usize = 64;
    let except_piece = except.map(|except| except / PIECE);
    let mut nearest = (u64::MAX, 0);
    for (piece, hints) in hints.chunks(PIECE).enumerate() {
        if Some(piece) != except_piece {
            nearest = nearest.min((smallest_of(hints), piece));
        }
    }
    let first_in = |places: Range<usize>| {
        let others = places.filter(|place| Some(*place) != except);
        let first = others.map(|place| (hints[place].load(Relaxed), place)).min();
        first.filter(|(number, _)| *number < u64::MAX)
    };
    let in_piece = |piece: usize| first_in(piece * PIECE..hints.len().min((piece + 1) * PIECE));
    let found = in_piece(nearest.1).into_iter().chain(except_piece.and_then(in_piece)).min();
    match found {
        // Another call has changed the numbers since.
        None if nearest.0 < u64::MAX => first_in(0..hints.len()),
        found => found,
    }
}

/// In several lanes, none of which waits for the others.
fn smallest_of(hints: &[AtomicU64]) -> u64 {
    let mut lanes = [u64::MAX; 8];
    let (groups, rest) = hints.as_chunks::<8>();
    for group in groups {
        for (lane, hint) in lanes.iter_mut().zip(group) {
            *lane = hint.load(Relaxed).min(*lane);
        }
    }
    let rest = rest.iter().map(|hint| hint.load(Relaxed));
    lanes.into_iter().chain(rest).min().unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_found_wherever_it_stands() {
        let numbers = |numbers: &[u64]| -> Vec<AtomicU64> {
            numbers.iter().copied().map(AtomicU64::new).collect()
        };
        for count in [0, 1, 2, 7, 8, 9, 63, 64, 65, 130, 200] {
            let none = numbers(&vec![u64::MAX; count]);
            assert_eq!(first_of(&none, None), None);
            for first in 0..count {
                let hints: Vec<u64> = (0..count).map(|at| 5 + at.abs_diff(first) as u64).collect();
                let hints = numbers(&hints);
                assert_eq!(first_of(&hints, None), Some((5, first)));
                let next = first_of(&hints, Some(first));
                assert_eq!(next.map(|(number, _)| number), (count > 1).then_some(6));
                assert!(next.is_none_or(|(_, at)| at.abs_diff(first) == 1));
            }
        }
    }
}
