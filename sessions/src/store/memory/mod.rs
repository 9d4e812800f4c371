//! Sessions in the memory of this process.
//!
//! [`MemoryStore`] is a handle to [`Inner`]: shards, each behind a lock of its own, and the few
//! numbers that they share. `shard` has the data structure, `sweep` the cleanup on a schedule.

use std::{
    fmt,
    ops::{Deref, DerefMut},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    thread,
    time::{Duration, SystemTime},
};

use self::{
    shard::{Entry, Shard, Stamp},
    sweep::Sweep,
    users::Users,
};
use super::{Created, Replaced, Store, StoreError};
use crate::{
    Record, StoreKey,
    clock::{Clock, to_millis},
};

mod shard;
mod sweep;
mod users;

/// How many shards there are. At a million sessions each holds five hundred of them, so that the
/// longest thing that is ever done under a lock (moving a shard that grows) takes some tens of
/// microseconds. Empty, they are 144 KiB.
const SHARDS: usize = 2048;

/// Keeps sessions in the memory of this process, and cleans up after itself.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// use std::time::Duration;
///
/// use sessions::MemoryStore;
///
/// let store = MemoryStore::builder()
///     .with_capacity(100_000)
///     .with_sweep_interval(Duration::from_secs(5))
///     .build();
/// assert!(store.is_empty());
/// # }
/// ```
///
/// Clones share the sessions, which are gone when the last clone is gone, or the process. For
/// sessions that outlive a restart or are shared by several processes, use another store.
///
/// # Expiry and the sweep
///
/// An expired session is never returned, from its very `expires_at` on: every method looks at the
/// clock itself. The sweep only gives the memory back. It starts by itself with the first call
/// that is made inside a tokio runtime (whose timers must be enabled, as `#[tokio::main]` does),
/// looks through the store [on an interval](MemoryStoreBuilder::with_sweep_interval), and ends
/// with the last clone of the store or with [`stop_sweep`](Self::stop_sweep). When the runtime
/// that it ran in is shut down, the next call inside another one starts it there.
///
/// The sweep never keeps requests waiting: it removes a few dozen sessions, lets go of the lock
/// and of its thread, and goes on. The sessions are sorted by expiry, so it touches only those
/// that have expired.
///
/// # Capacity
///
/// A store [with a capacity](MemoryStoreBuilder::with_capacity) never holds more sessions than
/// that, not for a moment and from however many threads sessions are made: a `create` takes one of
/// the places before it writes. When all are taken, the session nearest to expiry makes room,
/// so expired ones go before live ones. Which one is nearest is exact as long as nobody else
/// changes the store at the same moment; otherwise it is one that was the nearest a moment ago, or
/// next to it. `create` of a key that is in use, `replace` and `touch` need no place and evict
/// nothing. (The one exception: of two calls that create the same new key at the same time in a
/// full store, the one that is told [`Exists`](Created::Exists) may have made room too.)
///
/// # Details
///
/// Times are kept in milliseconds, and end in the year 10889. A payload is shared with the
/// [`Record`]s that it came in and goes out with, never copied. No method waits for anything: the
/// futures of [`Store`]'s methods are ready when first polled, so that dropping one later undoes
/// nothing. No call fails.
#[derive(Clone)]
pub struct MemoryStore {
    inner: Arc<Inner>,
}

impl MemoryStore {
    /// A store without a capacity, swept every ten seconds.
    pub fn new() -> Self {
        Self::builder().build()
    }

    /// To set a capacity or the sweep's interval.
    pub fn builder() -> MemoryStoreBuilder {
        MemoryStoreBuilder {
            sweep_interval: Duration::from_secs(10),
            capacity: usize::MAX,
            clock: Clock::System,
        }
    }

    /// How many sessions the store holds. Expired ones count until the sweep has removed them.
    pub fn len(&self) -> usize {
        self.inner.places.load(Relaxed)
    }

    /// Whether the store holds no session.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What the store has removed since it was made.
    pub fn stats(&self) -> MemoryStoreStats {
        MemoryStoreStats {
            swept: self.inner.swept.load(Relaxed),
            evicted: self.inner.evicted.load(Relaxed),
        }
    }

    /// Stops the sweep for good, and waits until it has ended; for a clean shutdown.
    ///
    /// The store goes on working and expiry stays exact, but expired sessions keep their memory.
    /// The runtime that the sweep runs in must be running for this to return. A future that is
    /// dropped early stops the sweep all the same, and only does not wait for it.
    pub async fn stop_sweep(&self) {
        self.inner.sweep.stop().await;
    }

    /// What all calls go through: the first one that can starts the sweep.
    pub(super) fn inner(&self) -> &Inner {
        self.inner.sweep.ensure_started(&self.inner);
        &self.inner
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

/// Shows how many sessions there are, and nothing that is in them.
impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let capacity = Some(self.inner.capacity).filter(|&capacity| capacity < usize::MAX);
        f.debug_struct("MemoryStore")
            .field("len", &self.len())
            .field("capacity", &capacity)
            .field("stats", &self.stats())
            .finish()
    }
}

/// Makes a [`MemoryStore`]; from [`MemoryStore::builder`].
#[derive(Clone, Debug)]
#[must_use = "`build` makes the store"]
pub struct MemoryStoreBuilder {
    sweep_interval: Duration,
    capacity: usize,
    clock: Clock,
}

impl MemoryStoreBuilder {
    /// How long the sweep sleeps between two passes; ten seconds unless told otherwise.
    ///
    /// A session keeps its memory for at most about that long after it has expired. A pass that
    /// finds nothing takes about a tenth of a millisecond. The shortest interval is a millisecond.
    pub fn with_sweep_interval(mut self, interval: Duration) -> Self {
        self.sweep_interval = interval.max(Duration::from_millis(1));
        self
    }

    /// How many sessions the store holds at most; any number unless told otherwise, and at least
    /// one. [What gives way](MemoryStore#capacity) is the session nearest to expiry.
    pub fn with_capacity(mut self, sessions: usize) -> Self {
        self.capacity = sessions.max(1);
        self
    }

    /// Lets the store's sessions expire by a clock that a test sets by hand. The sweep's interval
    /// remains tokio's time, which a test can pause and advance.
    ///
    /// ```
    /// # use sessions::{MemoryStore, testing::ManualClock};
    /// let clock = ManualClock::new();
    /// let store = MemoryStore::builder().with_clock(&clock).build();
    /// ```
    #[cfg(feature = "testing")]
    pub fn with_clock(mut self, clock: &crate::testing::ManualClock) -> Self {
        self.clock = clock.clock();
        self
    }

    /// The store.
    pub fn build(self) -> MemoryStore {
        let inner = Inner {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            nearest: (0..SHARDS).map(|_| AtomicU64::new(u64::MAX)).collect(),
            places: AtomicUsize::new(0),
            capacity: self.capacity,
            swept: AtomicU64::new(0),
            evicted: AtomicU64::new(0),
            clock: self.clock,
            users: Users::new(),
            sweep: Sweep::new(self.sweep_interval),
        };
        MemoryStore { inner: Arc::new(inner) }
    }
}

/// What a [`MemoryStore`] has removed by itself: [`MemoryStore::stats`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemoryStoreStats {
    /// Sessions that were removed because they had expired.
    pub swept: u64,
    /// Live sessions that were removed because the store was full.
    pub evicted: u64,
}

pub(super) struct Inner {
    /// No lock is held across an await, and nobody holds two of these.
    shards: Box<[Mutex<Shard>]>,
    /// When each shard's next session expires, readable without its lock. A hint: it may be old by
    /// the time that it is acted on, so whoever acts on it looks again under the lock.
    nearest: Box<[AtomicU64]>,
    /// How many sessions there are, and creates that have taken a place but not written yet. A
    /// place is taken before a session is written and given back after it is removed, so this is
    /// never less than the number of sessions, and never more than the capacity.
    places: AtomicUsize,
    capacity: usize,
    swept: AtomicU64,
    evicted: AtomicU64,
    clock: Clock,
    /// Changed together with the sessions, under their shard's lock.
    users: Users,
    sweep: Sweep,
}

/// Which shard a key belongs to, by bytes that its hash does not use.
fn shard_of(key: &StoreKey) -> usize {
    let [.., a, b] = *key.as_bytes();
    usize::from(u16::from_le_bytes([a, b])) % SHARDS
}

impl Inner {
    fn now(&self) -> u64 {
        to_millis(self.clock.now())
    }

    /// Locks one shard. A panic while it was locked does not condemn it: all that can panic in
    /// there is an allocation that is refused, and that comes before the first change.
    fn lock(&self, index: usize) -> Locked<'_> {
        let shard = self.shards[index].lock().unwrap_or_else(PoisonError::into_inner);
        Locked { shard, nearest: &self.nearest[index] }
    }

    /// Locks the shard of a key, and then looks at the clock. In this order: a call that was held
    /// up in between must not find alive what another one has seen expire, or bring it back.
    fn open(&self, key: &StoreKey) -> (Locked<'_>, u64) {
        let shard = self.lock(shard_of(key));
        (shard, self.now())
    }

    pub(in crate::store) fn load(&self, key: &StoreKey) -> Option<Record> {
        let (shard, now) = self.open(key);
        shard.find_live(key, now).map(|at| shard.get(at).record())
    }

    /// When the session expires, if this is its record: the same bytes at the same place.
    pub(in crate::store) fn has_still(&self, key: &StoreKey, known: &Record) -> Option<SystemTime> {
        let (shard, now) = self.open(key);
        let entry = shard.get(shard.find_live(key, now)?);
        entry.is_of(known).then(|| entry.expires_at())
    }

    pub(in crate::store) fn create(&self, key: &StoreKey, record: &Record) -> Created {
        // All that allocates for the session itself happens before the lock.
        let entry = Entry::new(key, record);
        let mut has_place = false;
        let answer = loop {
            let (mut shard, now) = self.open(key);
            match shard.find(key) {
                Some(at) if !shard.get(at).is_expired(now) => break Created::Exists,
                Some(at) => {
                    // The expired one has left its place.
                    let user = record.user.as_ref();
                    let expired = shard.replace(at, entry);
                    self.users.change(key, expired.user(), user);
                    drop(shard);
                    drop(expired);
                    self.swept.fetch_add(1, Relaxed);
                    break Created::Done;
                }
                // It would never be seen: not worth a place, let alone somebody else's.
                None if entry.is_expired(now) => break Created::Done,
                None if has_place || self.take_place() => {
                    shard.insert(entry);
                    self.users.change(key, None, record.user.as_ref());
                    return Created::Done;
                }
                None => {
                    // Never two locks at once: ours is let go of, and when we are back the key is
                    // looked up anew.
                    drop(shard);
                    has_place = self.make_room();
                }
            }
        };
        if has_place {
            self.give_place_back();
        }
        answer
    }

    pub(in crate::store) fn replace(
        &self,
        key: &StoreKey,
        record: &Record,
        based_on: u64,
    ) -> Replaced {
        let entry = Entry::new(key, record);
        let (mut shard, now) = self.open(key);
        let Some(at) = shard.find_live(key, now) else { return Replaced::Missing };
        if shard.get(at).version() != based_on {
            return Replaced::Changed;
        }
        let old = shard.replace(at, entry);
        self.users.change(key, old.user(), record.user.as_ref());
        // Memory is given back after the lock: it may take the allocator a while.
        drop(shard);
        drop(old);
        Replaced::Done
    }

    pub(in crate::store) fn touch(&self, key: &StoreKey, expires_at: SystemTime) {
        let expires = Stamp::from_millis(to_millis(expires_at));
        let (mut shard, now) = self.open(key);
        if let Some(at) = shard.find_live(key, now)
            && shard.get(at).expires() < expires.millis()
        {
            shard.set_expiry(at, expires);
        }
    }

    pub(in crate::store) fn delete(&self, key: &StoreKey) -> bool {
        self.delete_if(key, |_| true)
    }

    fn delete_if(&self, key: &StoreKey, is_meant: impl FnOnce(&Entry) -> bool) -> bool {
        let (mut shard, now) = self.open(key);
        let Some(at) = shard.find(key) else { return false };
        if !is_meant(shard.get(at)) {
            return false;
        }
        let removed = shard.remove(at);
        self.users.change(key, removed.user(), None);
        // As in `replace`; and the place is free only now that the session is gone.
        drop(shard);
        self.give_place_back();
        if removed.is_expired(now) {
            self.swept.fetch_add(1, Relaxed);
            return false;
        }
        true
    }

    /// Takes a place, if there is one. The counter alone decides, so that the bound needs no lock
    /// and holds at every moment; it guards no other memory, so `Relaxed` is enough.
    fn take_place(&self) -> bool {
        let more = |places| (places < self.capacity).then_some(places + 1);
        self.places.fetch_update(Relaxed, Relaxed, more).is_ok()
    }

    fn give_place_back(&self) {
        self.places.fetch_sub(1, Relaxed);
    }

    /// Removes the session nearest to expiry, and keeps its place for the caller. `false` if there
    /// was none: all places belong to other creates that are about to write.
    fn make_room(&self) -> bool {
        let nearest = (0..SHARDS).min_by_key(|&index| self.nearest[index].load(Relaxed));
        let removed = nearest.and_then(|index| {
            let mut shard = self.lock(index);
            let removed = shard.remove_nearest()?;
            self.users.change(removed.key(), removed.user(), None);
            Some(removed)
        });
        match &removed {
            Some(entry) if entry.is_expired(self.now()) => self.swept.fetch_add(1, Relaxed),
            Some(_) => self.evicted.fetch_add(1, Relaxed),
            None => {
                // They need no more than a moment of this processor.
                thread::yield_now();
                return false;
            }
        };
        true
    }
}

/// A locked shard; on the way out it leaves the time of its next expiry where it can be read
/// without a lock.
struct Locked<'a> {
    shard: MutexGuard<'a, Shard>,
    nearest: &'a AtomicU64,
}

impl Deref for Locked<'_> {
    type Target = Shard;

    fn deref(&self) -> &Shard {
        &self.shard
    }
}

impl DerefMut for Locked<'_> {
    fn deref_mut(&mut self) -> &mut Shard {
        &mut self.shard
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        // Runs before the lock opens, so that the last one to write is the last one that changed
        // something. Most calls change nothing here; they only look, and leave the line shared.
        let nearest = self.shard.nearest().map_or(u64::MAX, Entry::expires);
        if self.nearest.load(Relaxed) != nearest {
            self.nearest.store(nearest, Relaxed);
        }
    }
}

impl Store for MemoryStore {
    async fn load(&self, key: &StoreKey) -> Result<Option<Record>, StoreError> {
        Ok(self.inner().load(key))
    }

    async fn create(&self, key: &StoreKey, record: &Record) -> Result<Created, StoreError> {
        Ok(self.inner().create(key, record))
    }

    async fn replace(
        &self,
        key: &StoreKey,
        record: &Record,
        based_on: u64,
    ) -> Result<Replaced, StoreError> {
        Ok(self.inner().replace(key, record, based_on))
    }

    async fn touch(&self, key: &StoreKey, expires_at: SystemTime) -> Result<(), StoreError> {
        self.inner().touch(key, expires_at);
        Ok(())
    }

    async fn delete(&self, key: &StoreKey) -> Result<bool, StoreError> {
        Ok(self.inner().delete(key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_under_a_lock_does_not_condemn_the_shard() {
        let (store, key) = (MemoryStore::new(), StoreKey::from_bytes([7; 32]));
        let inner = store.inner.clone();
        let panicked = thread::spawn(move || {
            let _shard = inner.lock(shard_of(&key));
            panic!("while it is locked");
        });
        assert!(panicked.join().is_err());
        assert!(store.inner.shards[shard_of(&key)].is_poisoned());

        let now = SystemTime::now();
        let expires_at = now + Duration::from_secs(60);
        let record =
            Record { version: 1, created_at: now, expires_at, user: None, payload: [].into() };
        assert_eq!(store.create(&key, &record).await.unwrap(), Created::Done);
        assert!(store.load(&key).await.unwrap().is_some());
        assert!(store.delete(&key).await.unwrap());
    }
}
