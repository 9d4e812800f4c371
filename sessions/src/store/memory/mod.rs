//! Sessions in the memory of this process.
//!
//! [`MemoryStore`] is a handle to [`Inner`]: shards, each behind a lock of its own, and the few
//! numbers that they share. `shard` has the data structure, made of an `index` of one `table` or two and of `heap`s,
//! and `entry` a session in that; `room` has the bounds and what gives way to keep them, `sweep` the cleanup on a
//! schedule.

use std::{
    collections::hash_map::RandomState,
    fmt,
    hash::BuildHasher,
    ops::{Deref, DerefMut, RangeInclusive},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{
            AtomicU64, AtomicUsize,
            Ordering::{Relaxed, Release},
        },
    },
    time::{Duration, SystemTime},
};

use self::{
    entry::{Entry, Stamp, Worth},
    index::MOVED_EACH,
    room::{Full, Limits, Room},
    shard::{PARTS, Shard},
    sweep::Sweep,
    table::Table,
    users::Users,
};
use super::{Created, DynUserIndex, Replaced, Store, erased::Unchanged};
use crate::error::store::StoreError;
use crate::{
    clock::{Clock, to_millis},
    identity::id::StoreKey,
    record::Record,
    sync::pieces_for_cores,
};

mod entry;
mod heap;
mod index;
mod room;
mod shard;
mod sweep;
mod table;
mod users;

/// How many shards there are for each core: so many that two cores seldom meet. A shard is what each call looks at
/// first, and few of them stay in the processor's cache.
const SHARDS_PER_CORE: usize = 16;
const SHARDS: RangeInclusive<usize> = 32..=1024;

/// How many bytes the sessions of a store may take. Default, little enough for
/// the smallest servers, and enough for more sessions than these serve.
const MEMORY_LIMIT: usize = 128 << 20;

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
/// The sweep never keeps requests waiting: it removes a few dozen sessions of one part of the store, lets go of the
/// lock and of its thread, and goes on with another part. Nor does a table that grows or shrinks: its sessions move a
/// few at a time. The sessions are sorted by expiry, so the sweep touches only those that have expired.
///
/// # Bounds, and what gives way
///
/// A store never takes more memory than its
/// [limit](MemoryStoreBuilder::with_memory_limit), 128 MiB by default, which holds some 600,000
/// sessions of five small fields; nor, if it is given a
/// [capacity](MemoryStoreBuilder::with_capacity), does it hold more sessions than that. Both hold at
/// every moment and from however many threads sessions are made: a call takes the room that it needs
/// before it writes. When there is none, the session that is worth least makes it:
///
/// 1. one that has expired;
/// 2. one that nobody is logged in to and that no request has come back to: what a flood of requests
///    without cookies makes, which so can only push out more of itself;
/// 3. one that nobody is logged in to.
///
/// Of those that are worth the same, the one nearest to expiry goes first. That is exact as long as
/// no other call changes the store at the same moment; otherwise it is one that was the nearest a
/// moment ago, or next to it.
///
/// A session with a logged-in user never gives way. When the others do not make enough room,
/// the call is refused with a [`StoreError`] that may be gone the next time: the client gets 503,
/// those who are logged in stay so, and [`stats`](MemoryStore::stats) counts it. An application where
/// that happens has more users than memory.
///
/// `create` of a key that is in use, `touch`, and `replace` by a record that is no larger need no
/// room. (The one exception: of two calls that create the same new key at the same time in a full
/// store, the one that is told [`Exists`](Created::Exists) may have made room too.)
///
/// The stores on servers have no such order: there the server says what goes when it is full, which
/// each store's documentation tells.
///
/// # Details
///
/// Times are kept in milliseconds, and end in the year 10889. A payload of more than 512 bytes is shared with
/// the [`Record`]s that it came in and goes out with, and not copied. No method waits for anything: the
/// futures of [`Store`]'s methods are ready when first polled, so that dropping one later undoes
/// nothing. No call fails but for want of room.
#[derive(Clone)]
pub struct MemoryStore {
    inner: Arc<Inner>,
}

impl MemoryStore {
    /// A store of 128 MiB at most, for any number of sessions, swept every ten seconds.
    pub fn new() -> Self {
        Self::builder().build()
    }

    /// To set the memory limit, a capacity or the sweep's interval.
    pub fn builder() -> MemoryStoreBuilder {
        MemoryStoreBuilder {
            sweep_interval: Duration::from_secs(10),
            limits: Limits { sessions: usize::MAX, bytes: MEMORY_LIMIT },
            clock: Clock::System,
        }
    }

    /// How many sessions the store holds. Expired ones count until the sweep has removed them.
    pub fn len(&self) -> usize {
        self.inner.taken.sessions.load(Relaxed)
    }

    /// How many bytes of memory the sessions take: reckoned from their sizes, and rather more than
    /// less, as an allocator cannot use all that it has. Does not count what the store itself takes,
    /// some 150 KiB and on many cores up to 600, nor the room that sessions which have gone leave to
    /// others until the next sweep.
    pub fn memory_used(&self) -> usize {
        self.inner.taken.bytes.load(Relaxed)
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
            refused: self.inner.refused.load(Relaxed),
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
        let Limits { sessions, bytes } = self.inner.limits;
        let [capacity, memory_limit] =
            [sessions, bytes].map(|limit| Some(limit).filter(|&limit| limit < usize::MAX));
        f.debug_struct("MemoryStore")
            .field("len", &self.len())
            .field("capacity", &capacity)
            .field("memory_used", &self.memory_used())
            .field("memory_limit", &memory_limit)
            .field("stats", &self.stats())
            .finish()
    }
}

/// Makes a [`MemoryStore`]; from [`MemoryStore::builder`].
#[derive(Clone, Debug)]
#[must_use = "`build` makes the store"]
pub struct MemoryStoreBuilder {
    sweep_interval: Duration,
    limits: Limits,
    clock: Clock,
}

impl MemoryStoreBuilder {
    /// How long the sweep sleeps between two passes; ten seconds unless told otherwise.
    ///
    /// A session keeps its memory for at most about that long after it has expired. A pass that
    /// finds nothing looks once at each shard; more in a store that is over half full, where
    /// the pass looks at each session. The shortest interval is a millisecond.
    pub fn with_sweep_interval(mut self, interval: Duration) -> Self {
        self.sweep_interval = interval.max(Duration::from_millis(1));
        self
    }

    /// How many bytes of memory the sessions may take, as [`MemoryStore::memory_used`] reckons them.
    /// Default: 128 MiB. `usize::MAX` is no limit: then clients decide how much memory the process
    /// takes. [What gives way](MemoryStore#bounds-and-what-gives-way) is what is worth least.
    pub fn with_memory_limit(mut self, bytes: usize) -> Self {
        self.limits.bytes = bytes;
        self
    }

    /// How many sessions the store holds at most: at least one. Default: any number within the
    /// memory limit. [What gives way](MemoryStore#bounds-and-what-gives-way) is what is worth least.
    pub fn with_capacity(mut self, sessions: usize) -> Self {
        self.limits.sessions = sessions.max(1);
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
    pub fn with_clock(mut self, clock: &crate::clock::ManualClock) -> Self {
        self.clock = clock.clock();
        self
    }

    /// The store.
    pub fn build(self) -> MemoryStore {
        let shards = pieces_for_cores(SHARDS_PER_CORE, SHARDS);
        let random = RandomState::new();
        let shard = |number: usize| Mutex::new(Shard::new(random.hash_one(number) as u32));
        let inner = Inner {
            shards: (0..shards).map(shard).collect(),
            nearest: Nearest::new(shards),
            taken: Counts::default(),
            logged_in: Counts::default(),
            limits: self.limits,
            swept: AtomicU64::new(0),
            evicted: AtomicU64::new(0),
            refused: AtomicU64::new(0),
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
    /// Calls that failed because the store was full of sessions with logged-in users, or the
    /// record larger than the memory limit.
    pub refused: u64,
}

pub(super) struct Inner {
    /// A power of two of them. No lock is held across an await, and no call holds two of these.
    shards: Box<[Mutex<Shard>]>,
    nearest: Nearest,
    /// The sessions that there are, and the room that calls have taken and not written to yet. Room is
    /// taken before a session is written and given back after it is removed, so this is never less
    /// than what there is, and never more than the limits.
    taken: Counts,
    /// Of those, the ones with a logged-in user: they make no room.
    logged_in: Counts,
    limits: Limits,
    swept: AtomicU64,
    evicted: AtomicU64,
    refused: AtomicU64,
    clock: Clock,
    /// Changed together with the sessions, under their shard's lock.
    users: Users,
    sweep: Sweep,
}

/// When each shard's next session of each worth expires, readable without its lock; `u64::MAX` if it has
/// none. Hints: they may be old by the time that they are acted on, so a caller that acts on one looks again
/// under the lock.
struct Nearest {
    /// By worth, then by shard: those that are looked through together lie together.
    of: [Box<[AtomicU64]>; Worth::ALL.len()],
    /// No session that is worth more than the least expires before this.
    others_from: AtomicU64,
}

impl Inner {
    /// The parts of the store: a session is always of the same one.
    pub(super) fn parts(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        (0..self.shards.len()).flat_map(|shard| (0..PARTS).map(move |part| (shard, part)))
    }

    /// The sessions of a part that have not expired.
    pub(super) fn live_in(&self, (shard, part): (usize, usize)) -> Vec<(StoreKey, Record)> {
        let now = to_millis(self.clock.now());
        let shard = self.shards[shard].lock().unwrap_or_else(PoisonError::into_inner);
        let live = shard.entries(part).filter(|entry| !entry.is_expired(now));
        live.map(|entry| (entry.key(), entry.record())).collect()
    }
}

impl Nearest {
    fn new(shards: usize) -> Self {
        let none = || AtomicU64::new(u64::MAX);
        let of = Worth::ALL.map(|_| (0..shards).map(|_| none()).collect());
        Self { of, others_from: none() }
    }

    fn note(&self, worth: Worth, shard: usize, expires: u64) {
        let hint = &self.of[worth as usize][shard];
        let before = hint.load(Relaxed);
        if before == expires {
            return;
        }
        hint.store(expires, Relaxed);
        if worth > Worth::Unused && expires < before {
            // Whoever takes it sees the hint as well.
            self.others_from.fetch_min(expires, Release);
        }
    }
}

/// How many sessions, and how many bytes.
#[derive(Default)]
struct Counts {
    sessions: AtomicUsize,
    bytes: AtomicUsize,
}

impl Counts {
    fn add(&self, cost: usize) {
        self.sessions.fetch_add(1, Relaxed);
        self.bytes.fetch_add(cost, Relaxed);
    }

    fn subtract(&self, cost: usize) {
        self.sessions.fetch_sub(1, Relaxed);
        self.bytes.fetch_sub(cost, Relaxed);
    }
}

impl Inner {
    /// Which shard a key belongs to, by bytes that its hash does not use.
    fn shard_of(&self, key: &StoreKey) -> usize {
        let [.., a, b] = *key.as_bytes();
        usize::from(u16::from_le_bytes([a, b])) & (self.shards.len() - 1)
    }

    fn now(&self) -> u64 {
        to_millis(self.clock.now())
    }

    /// Locks one shard. A panic while it was locked does not condemn it: all that can panic in
    /// there is an allocation that is refused, and that comes before the first change.
    fn lock(&self, index: usize) -> Locked<'_> {
        let shard = self.shards[index].lock().unwrap_or_else(PoisonError::into_inner);
        Locked { shard, unused: Vec::new(), index, nearest: &self.nearest }
    }

    /// Locks the shard of a key, and then looks at the clock. In this order: a call that was held
    /// up in between must not find alive what another one has seen expire, or bring it back.
    fn open(&self, key: &StoreKey) -> (Locked<'_>, u64) {
        let shard = self.lock(self.shard_of(key));
        (shard, self.now())
    }

    pub(in crate::store) fn load(&self, key: &StoreKey) -> Option<Record> {
        self.load_and_look(key).0
    }

    /// Beside the record what the clock has shown, if it is the system's.
    pub(in crate::store) fn load_and_look(
        &self,
        key: &StoreKey,
    ) -> (Option<Record>, Option<SystemTime>) {
        let mut shard = self.lock(self.shard_of(key));
        let now = self.clock.now();
        let live = shard.find(key).filter(|&at| shard.get(at).expires_at() > now);
        let record = live.map(|at| {
            shard.note_use(at);
            shard.get(at).record()
        });
        (record, self.clock.of_system(now))
    }

    /// When the session expires, if this is its record.
    pub(in crate::store) fn has_still(&self, key: &StoreKey, known: &Record) -> Option<Unchanged> {
        let mut shard = self.lock(self.shard_of(key));
        let now = self.clock.now();
        let at = shard.find(key)?;
        // The answer has it as a time of day: `now` need not be made into milliseconds too.
        let expires_at = shard.get(at).expires_at();
        if expires_at <= now {
            return None;
        }
        shard.note_use(at);
        let current = Unchanged { expires_at, seen: self.clock.of_system(now) };
        shard.get(at).is_of(known).then_some(current)
    }

    pub(in crate::store) fn create(
        &self,
        key: &StoreKey,
        record: &Record,
        seen: Option<SystemTime>,
    ) -> Result<Created, StoreError> {
        // All that allocates for the session itself happens before the lock, and what frees after it.
        let entry = Entry::new(key, record);
        let (user, cost) = (record.user.as_ref(), entry.cost());
        let mut room = Room::none(self);
        let (mut spare, mut _expired) = (None, None);
        loop {
            let mut shard = self.lock(self.shard_of(key));
            if let Some(at) = shard.find(key) {
                // Not `seen`: another call may have found the session expired meanwhile, or created it.
                if !shard.get(at).is_expired(self.now()) {
                    return Ok(Created::Exists);
                }
                let removed = shard.remove(at);
                self.note_end(&removed);
                room.keep_of(&removed);
                self.swept.fetch_add(1, Relaxed);
                _expired = Some(removed);
            }
            if entry.is_expired(to_millis(self.clock.now_after(seen))) {
                // It would never be seen: not worth a place, let alone another session's.
                return Ok(Created::Done);
            }
            if room.take(1, cost) {
                if let Err(sessions) = shard.make_space(&mut spare) {
                    drop(shard);
                    spare = Some(Table::with_capacity(sessions));
                    continue;
                }
                let worth = entry.worth(Worth::Unused);
                shard.insert(entry, worth);
                // A panic before this gives the room back.
                room.spend(1, cost);
                self.note(key, None, user.map(|user| (user, cost)));
                return Ok(Created::Done);
            }
            // Never two locks at once: ours is let go of, and when we are back the key is looked up
            // anew.
            drop(shard);
            self.make_room(&mut room, cost, cost, None)
                .map_err(|full| self.refuse("create", full))?;
        }
    }

    pub(in crate::store) fn replace(
        &self,
        key: &StoreKey,
        record: &Record,
        based_on: u64,
    ) -> Result<Replaced, StoreError> {
        let mut room = Room::none(self);
        loop {
            let (mut shard, now) = self.open(key);
            let Some(at) = shard.find_live(key, now) else { return Ok(Replaced::Missing) };
            if shard.get(at).version() != based_on {
                return Ok(Replaced::Changed);
            }
            if shard.overwrite(at, record) {
                return Ok(Replaced::Done);
            }
            let entry = Entry::new(key, record);
            let (user, cost) = (record.user.as_ref(), entry.cost());
            let cost_before = shard.get(at).cost();
            let more = cost.saturating_sub(cost_before);
            if room.take(0, more) {
                let worth = entry.worth(Worth::Used);
                let old = shard.replace(at, entry, worth);
                room.exchange(cost_before, cost);
                self.note(
                    key,
                    old.user().map(|user| (user, cost_before)),
                    user.map(|user| (user, cost)),
                );
                // Memory is given back after the lock: it may take the allocator a while.
                drop(shard);
                drop(old);
                return Ok(Replaced::Done);
            }
            drop(shard);
            self.make_room(&mut room, more, cost, Some(key))
                .map_err(|full| self.refuse("replace", full))?;
        }
    }

    pub(in crate::store) fn touch(&self, key: &StoreKey, expires_at: SystemTime) {
        let expires = Stamp::from_millis(to_millis(expires_at));
        let (mut shard, now) = self.open(key);
        if let Some(at) = shard.find_live(key, now)
            && shard.get(at).expires().millis() < expires.millis()
        {
            shard.set_expiry(at, expires);
        }
    }

    pub(in crate::store) fn delete(&self, key: &StoreKey) -> bool {
        self.delete_if(key, |_| true)
    }

    pub(in crate::store) fn delete_version(&self, key: &StoreKey, version: u64) -> bool {
        self.delete_if(key, |entry| entry.version() == version)
    }

    fn delete_if(&self, key: &StoreKey, is_meant: impl FnOnce(&Entry) -> bool) -> bool {
        let (mut shard, now) = self.open(key);
        let Some(at) = shard.find(key) else { return false };
        if !is_meant(shard.get(at)) {
            return false;
        }
        let removed = shard.remove(at);
        self.note_end(&removed);
        // As in `replace`; and the room is free only now that the session is gone.
        drop(shard);
        self.taken.subtract(removed.cost());
        if removed.is_expired(now) {
            self.swept.fetch_add(1, Relaxed);
            return false;
        }
        true
    }

    /// To be called for each change, under the lock of the session's shard: who is logged in to the
    /// session, if anybody, and what it costs; before and now.
    fn note(&self, key: &StoreKey, before: Option<(&str, usize)>, now: Option<(&Arc<str>, usize)>) {
        self.users.change(key, before.map(|it| it.0), now.map(|it| it.0));
        // In this order: a session that counted twice for a moment could have another call refused.
        if let Some((_, cost)) = before {
            self.logged_in.subtract(cost);
        }
        if let Some((_, cost)) = now {
            self.logged_in.add(cost);
        }
    }

    /// The same of a session that has been removed. Its room is given back after that.
    fn note_end(&self, removed: &Entry) {
        let before = removed.user().map(|user| (user, removed.cost()));
        self.note(&removed.key(), before, None);
    }

    fn refuse(&self, operation: &'static str, full: Full) -> StoreError {
        self.refused.fetch_add(1, Relaxed);
        full.error(operation, self.limits)
    }
}

/// A locked shard; on the way out it leaves the time of its next expiry where it can be read
/// without a lock.
struct Locked<'a> {
    shard: MutexGuard<'a, Shard>,
    /// Tables that are not needed any more: given back when the lock is open.
    unused: Vec<Table>,
    index: usize,
    nearest: &'a Nearest,
}

impl Locked<'_> {
    /// Has the shard's table have room for one more session. `Err` says for how many a new table has to have
    /// room, which the caller makes without the lock.
    fn make_space(&mut self, spare: &mut Option<Table>) -> Result<(), usize> {
        self.go_on_moving(MOVED_EACH);
        if !self.shard.is_full() {
            return Ok(());
        }
        // All have been moved by now: see `MOVED_EACH`.
        self.go_on_moving(usize::MAX);
        let wanted = self.shard.larger();
        match spare.take() {
            Some(table) if table.capacity() >= wanted => {
                self.shard.begin_move(table);
                Ok(())
            }
            too_small => {
                self.unused.extend(too_small);
                Err(wanted)
            }
        }
    }

    /// Begins to move to this table, if it [would do](Shard::would_do).
    fn move_to_smaller(&mut self, table: Table) {
        match self.shard.would_do(&table) {
            true => self.shard.begin_move(table),
            false => self.unused.push(table),
        }
    }

    /// Moves what stands in so many places, if a table is being moved.
    #[inline]
    fn go_on_moving(&mut self, places: usize) {
        if self.shard.is_moving() {
            self.unused.extend(self.shard.go_on_moving(places));
        }
    }
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
        // something. Most calls change no first session.
        for worth in self.shard.take_other_firsts() {
            let nearest = self.shard.first_expiry(worth).unwrap_or(u64::MAX);
            self.nearest.note(worth, self.index, nearest);
        }
    }
}

impl Store for MemoryStore {
    async fn load(&self, key: &StoreKey) -> Result<Option<Record>, StoreError> {
        Ok(self.inner().load(key))
    }

    async fn create(&self, key: &StoreKey, record: &Record) -> Result<Created, StoreError> {
        self.inner().create(key, record, None)
    }

    async fn replace(
        &self,
        key: &StoreKey,
        record: &Record,
        based_on: u64,
    ) -> Result<Replaced, StoreError> {
        self.inner().replace(key, record, based_on)
    }

    async fn touch(&self, key: &StoreKey, expires_at: SystemTime) -> Result<(), StoreError> {
        self.inner().touch(key, expires_at);
        Ok(())
    }

    async fn delete(&self, key: &StoreKey) -> Result<bool, StoreError> {
        Ok(self.inner().delete(key))
    }

    async fn delete_version(&self, key: &StoreKey, version: u64) -> Result<bool, StoreError> {
        Ok(self.inner().delete_version(key, version))
    }

    fn user_index(&self) -> Option<&dyn DynUserIndex> {
        Some(self)
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[tokio::test]
    async fn a_panic_under_a_lock_does_not_condemn_the_shard() {
        let (store, key) = (MemoryStore::new(), StoreKey::from_bytes([7; 32]));
        let inner = store.inner.clone();
        let panicked = thread::spawn(move || {
            let _shard = inner.lock(inner.shard_of(&key));
            panic!("while it is locked");
        });
        assert!(panicked.join().is_err());
        assert!(store.inner.shards[store.inner.shard_of(&key)].is_poisoned());

        let now = SystemTime::now();
        let expires_at = now + Duration::from_secs(60);
        let record =
            Record { version: 1, created_at: now, expires_at, user: None, payload: [].into() };
        assert_eq!(store.create(&key, &record).await.unwrap(), Created::Done);
        assert!(store.load(&key).await.unwrap().is_some());
        assert!(store.delete(&key).await.unwrap());
    }

    fn in_first_shard(number: u64) -> StoreKey {
        let mut bytes = [0; 32];
        // All bits of the hash differ.
        bytes[..8].copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
        StoreKey::from_bytes(bytes)
    }

    /// A sweep whose table would not do for one session more would make another, over and over.
    #[tokio::test]
    async fn a_smaller_table_does_though_some_come_while_it_is_made() {
        const OF: u64 = 10_000;
        let now = SystemTime::now();
        let record = Record::new(1, now, now + Duration::from_secs(60), *b"");
        let create = async |store: &MemoryStore, number: u64| {
            let created = store.create(&in_first_shard(number), &record).await;
            assert_eq!(created.unwrap(), Created::Done);
        };
        for (left, come) in [(1, 1), (1_000, 30), (4_000, 1), (4_000, 300), (4_000, 480)] {
            let store = MemoryStore::new();
            for number in 0..OF {
                create(&store, number).await;
            }
            for number in left..OF {
                assert!(store.delete(&in_first_shard(number)).await.unwrap());
            }
            let mut shard = store.inner.lock(0);
            shard.go_on_moving(usize::MAX);
            let table = Table::with_capacity(shard.smaller().unwrap());
            drop(shard);
            for number in left..left + come {
                create(&store, number).await;
            }
            store.inner.lock(0).move_to_smaller(table);
            // But not when so many have come that it would soon be full.
            assert_eq!(store.inner.lock(0).is_moving(), come < 480, "{left} and {come}");
            // All have been moved before the table is full.
            for number in left + come.. {
                let shard = store.inner.lock(0);
                if !shard.is_moving() {
                    break;
                }
                assert!(!shard.is_full(), "{left} and {come}: {number}");
                drop(shard);
                create(&store, number).await;
            }
        }
    }

    #[cfg(feature = "testing")]
    #[tokio::test]
    async fn it_has_still_a_record_that_nobody_has_changed_and_until_it_expires() {
        use crate::clock::ManualClock;

        const LIFE: u64 = 10_000;
        // Copied, and shared.
        for (number, length) in [(1, 10), (2, 5000)] {
            let clock = ManualClock::new();
            let store = MemoryStore::builder().with_clock(&clock).build();
            let begin = clock.now();
            let at = |millis| begin + Duration::from_millis(millis);
            let (key, user) = (StoreKey::from_bytes([number; 32]), Some("ann".into()));
            let expires_at = at(LIFE);
            let payload = vec![1; length].into();
            let record = Record { version: 1, created_at: begin, expires_at, user, payload };
            let still = |record: &Record| store.inner.has_still(&key, record);
            assert!(still(&record).is_none(), "there is none");
            assert_eq!(store.create(&key, &record).await.unwrap(), Created::Done);
            assert!(still(&record).is_some_and(|it| it.expires_at == expires_at));
            for other in [
                Record { version: 2, ..record.clone() },
                Record { user: None, ..record.clone() },
                Record { payload: vec![2; length].into(), ..record.clone() },
            ] {
                assert!(still(&other).is_none());
            }
            store.touch(&key, at(LIFE + 1)).await.unwrap();
            assert!(still(&record).is_some_and(|it| it.expires_at == at(LIFE + 1)));
            clock.advance(Duration::from_millis(LIFE));
            assert!(still(&record).is_some());
            clock.advance(Duration::from_millis(1));
            assert!(still(&record).is_none(), "expired");
        }
    }
}
