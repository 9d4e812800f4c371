//! Which entries of a cache may be served, whatever calls are on their way.
//!
//! Every call takes a number when it begins, and an entry of the cache has the number of the call that has brought it.
//! A change of a record refuses all lower numbers of its key: entries that are there, and those that slow calls bring
//! later. What is refused is also taken out of the cache, but nothing relies on that: it may fail, be overtaken, or
//! be dropped. A key is forgotten here when none of its calls is on its way, and none of its refused entries can be in
//! the cache.

use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, Ordering::SeqCst},
};

use crate::identity::id::{KeyMap, StoreKey};

/// Enough that the cores of a large machine seldom meet.
const SHARDS: usize = 16;

/// How many keys of a shard may stay without a call, because the cache may have a refused entry of theirs. Beyond
/// that, the shard refuses every entry that it has: that costs speed, and bounds the memory.
const MOST_LEFT: usize = 256;

/// The numbers of a cache's calls.
#[derive(Default)]
pub(crate) struct Trust {
    shards: [Mutex<Shard>; SHARDS],
    /// How many calls that end all of a user's sessions are on their way, and how many have been.
    running_ends: AtomicU64,
    past_ends: AtomicU64,
}

#[derive(Default)]
struct Shard {
    last: u64,
    /// The least number that is not refused.
    least: u64,
    keys: KeyMap<Known>,
    /// How many of the keys have no call on its way.
    left: usize,
}

/// What is known of a key.
#[derive(Default)]
struct Known {
    calls: usize,
    /// The least number that is not refused.
    least: u64,
    /// Whether the cache may have an entry that is refused.
    is_unclean: bool,
}

impl Shard {
    fn next(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    fn is_good(&self, key: &StoreKey, number: u64) -> bool {
        number >= self.least && self.keys.get(key).is_none_or(|known| number >= known.least)
    }

    /// Refuses whatever has begun so far. The number is the least one that is not refused.
    fn refuse(&mut self, key: &StoreKey) -> u64 {
        let least = self.next();
        let known = self.keys.entry(*key).or_default();
        known.least = least;
        known.is_unclean = true;
        least
    }

    /// The cache has no refused entry any more, unless more were refused since.
    fn clean(&mut self, key: &StoreKey, least: u64) {
        if let Some(known) = self.keys.get_mut(key).filter(|known| known.least == least) {
            known.is_unclean = false;
        }
    }

    fn begin(&mut self, key: &StoreKey) -> u64 {
        let known = self.keys.entry(*key).or_default();
        if known.calls == 0 && known.is_unclean {
            self.left -= 1;
        }
        known.calls += 1;
        self.next()
    }

    fn end(&mut self, key: &StoreKey) {
        let Some(known) = self.keys.get_mut(key) else { return };
        known.calls -= 1;
        if known.calls > 0 {
            return;
        }
        if !known.is_unclean {
            self.keys.remove(key);
            return;
        }
        self.left += 1;
        if self.left > MOST_LEFT {
            self.least = self.next();
            self.keys.retain(|_, known| known.calls > 0);
            self.left = 0;
        }
    }
}

impl Trust {
    /// Whether an entry with this number may be served.
    pub(crate) fn is_good(&self, key: &StoreKey, number: u64) -> bool {
        self.shard(key).is_good(key, number)
    }

    /// A call begins that only reads: if it is dropped before it keeps a record, nothing has happened.
    pub(crate) fn read(&self, key: &StoreKey) -> Call<'_> {
        self.begin(key, false)
    }

    /// A call begins that changes the record: if it is dropped, that may have happened.
    pub(crate) fn write(&self, key: &StoreKey) -> Call<'_> {
        self.begin(key, true)
    }

    fn begin(&self, key: &StoreKey, is_write: bool) -> Call<'_> {
        let past_ends = self.past_ends.load(SeqCst);
        let number = self.shard(key).begin(key);
        Call { trust: self, key: *key, number, past_ends, is_write, is_doubtful: is_write }
    }

    /// All of a user's sessions are about to end, before anybody has looked which they are.
    pub(crate) fn end_of_user(&self) -> UserEnd<'_> {
        self.running_ends.fetch_add(1, SeqCst);
        UserEnd { trust: self }
    }

    fn is_any_user_ending(&self, past_ends: u64) -> bool {
        // In this order: one that begins after the first look finds what the caller has in its hands.
        self.running_ends.load(SeqCst) > 0 || self.past_ends.load(SeqCst) != past_ends
    }

    fn shard(&self, key: &StoreKey) -> MutexGuard<'_, Shard> {
        // Not a byte that `KeyMap` takes.
        let shard = &self.shards[usize::from(key.as_bytes()[31]) % SHARDS];
        // Each change of a shard is complete before anything could panic: a poisoned one is whole.
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A call of a key that is on its way.
pub(crate) struct Call<'a> {
    trust: &'a Trust,
    key: StoreKey,
    number: u64,
    /// When it began.
    past_ends: u64,
    is_write: bool,
    /// Whether the cache may have something that is wrong, if the call ends here.
    is_doubtful: bool,
}

/// A record may go into the cache, and makes it clean.
#[derive(Clone, Copy)]
pub(crate) struct Keeping {
    /// The number of the entry.
    pub(crate) number: u64,
    least: u64,
}

impl Call<'_> {
    /// Whether the record that the call has found or written may go into the cache: `None` if a change was told
    /// since it began. What a write has written is such a change itself.
    pub(crate) fn may_keep(&mut self, has_user: bool) -> Option<Keeping> {
        if has_user && self.trust.is_any_user_ending(self.past_ends) {
            return None;
        }
        let mut shard = self.trust.shard(&self.key);
        if !shard.is_good(&self.key, self.number) {
            return None;
        }
        self.is_doubtful = true;
        if self.is_write {
            self.number = shard.refuse(&self.key);
        }
        let least = shard.keys.get(&self.key).map_or(0, |known| known.least);
        Some(Keeping { number: self.number, least })
    }

    /// The cache has the entry now, or a newer good one. `false` if it was refused meanwhile.
    pub(crate) fn confirm(&mut self, keeping: Keeping) -> bool {
        let mut shard = self.trust.shard(&self.key);
        let is_good = shard.is_good(&self.key, keeping.number);
        if is_good {
            shard.clean(&self.key, keeping.least);
            self.is_doubtful = false;
        }
        is_good
    }

    /// Refuses every entry of the key from here back. To be taken out of the cache.
    pub(crate) fn refuse(&mut self) -> Refused {
        let least = self.trust.shard(&self.key).refuse(&self.key);
        self.is_doubtful = false;
        Refused { least }
    }

    /// What was refused is not in the cache any more.
    pub(crate) fn removed(&self, refused: Refused) {
        self.trust.shard(&self.key).clean(&self.key, refused.least);
    }
}

/// Entries that may still be in the cache.
#[derive(Clone, Copy)]
pub(crate) struct Refused {
    least: u64,
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        let mut shard = self.trust.shard(&self.key);
        if self.is_doubtful {
            shard.refuse(&self.key);
        }
        shard.end(&self.key);
    }
}

/// All of a user's sessions are being ended. A record with a user that is written or read meanwhile may end with
/// them, unknown to the cache: none goes there.
pub(crate) struct UserEnd<'a> {
    trust: &'a Trust,
}

impl Drop for UserEnd<'_> {
    fn drop(&mut self) {
        // In this order: a call that looks in between sees one of the two.
        self.trust.past_ends.fetch_add(1, SeqCst);
        self.trust.running_ends.fetch_sub(1, SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u16) -> StoreKey {
        let [high, low] = number.to_be_bytes();
        StoreKey::from_bytes(std::array::from_fn(|at| if at % 2 == 0 { high } else { low }))
    }

    fn known(trust: &Trust) -> usize {
        trust.shards.iter().map(|shard| shard.lock().unwrap().keys.len()).sum()
    }

    /// Keeps an entry in the cache, which does all that it is told.
    fn kept(mut call: Call<'_>) -> Option<u64> {
        let keeping = call.may_keep(false)?;
        call.confirm(keeping).then_some(keeping.number)
    }

    #[test]
    fn nothing_is_left_of_keys_whose_calls_are_done() {
        let trust = Trust::default();
        for number in 0..1000 {
            let key = key(number);
            let entry = kept(trust.write(&key)).unwrap();
            assert!(trust.is_good(&key, entry));
            let (mut read, mut end) = (trust.read(&key), trust.write(&key));
            let refused = end.refuse();
            assert!(!trust.is_good(&key, entry) && read.may_keep(false).is_none());
            end.removed(refused);
            drop(end);
            assert_eq!(known(&trust), 1, "a slow call may still come");
            drop(read);
            assert_eq!(known(&trust), 0);
            drop(trust.read(&key));
            assert_eq!(known(&trust), 0);
        }
    }

    #[test]
    fn what_is_left_of_dropped_calls_is_bounded_and_nothing_that_they_refuse_is_served() {
        let trust = Trust::default();
        let last = key(u16::MAX);
        let entries: Vec<u64> =
            (0..20_000).map(|number| kept(trust.read(&key(number))).unwrap()).collect();
        let slow = trust.read(&last);
        for number in 0..20_000 {
            drop(trust.write(&key(number)));
            assert!(!trust.is_good(&key(number), entries[usize::from(number)]));
        }
        assert!(known(&trust) <= SHARDS * MOST_LEFT + 1, "{}", known(&trust));
        for number in 0..20_000 {
            let key = key(number);
            assert!(!trust.is_good(&key, entries[usize::from(number)]));
            let entry = kept(trust.read(&key)).unwrap();
            assert!(trust.is_good(&key, entry));
        }
        assert_eq!(known(&trust), 1, "all are clean again but one");
        assert_eq!(kept(slow), None, "it began before all of these were refused");
        assert!(kept(trust.read(&last)).is_some());
        assert_eq!(known(&trust), 0);
    }

    #[test]
    fn what_is_refused_while_the_cache_forgets_stays_refused() {
        let (trust, key) = (Trust::default(), key(1));
        let (mut one, mut other) = (trust.write(&key), trust.write(&key));
        let before = one.refuse();
        let entry = kept(trust.read(&key)).unwrap();
        let after = other.refuse();
        one.removed(before);
        drop((one, other));
        assert!(!trust.is_good(&key, entry));
        let call = trust.read(&key);
        call.removed(after);
        drop(call);
        assert_eq!(known(&trust), 0);
    }

    #[test]
    fn what_a_user_has_is_not_kept_while_all_of_a_users_sessions_end() {
        let (trust, key) = (Trust::default(), key(1));
        let mut before = trust.write(&key);
        let ending = trust.end_of_user();
        let mut during = trust.write(&key);
        for call in [&mut before, &mut during] {
            assert!(call.may_keep(true).is_none());
        }
        drop(ending);
        for call in [&mut before, &mut during] {
            assert!(call.may_keep(true).is_none(), "it may have ended with them");
        }
        assert!(before.may_keep(false).is_some(), "no user has it");
        assert!(trust.read(&key).may_keep(true).is_some());
    }
}
