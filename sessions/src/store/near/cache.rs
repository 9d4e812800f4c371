//! The records of a near cache: which of them may be served, which give way, and who waits for news.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, SystemTime},
};

use tokio::{sync::Notify, time::Instant};

use super::NearCacheStats;
use crate::{
    clock::to_millis,
    identity::id::{KeyMap, StoreKey},
    meters,
    record::Record,
    store::watch::Feed,
};

/// Enough that the cores of a large machine seldom meet.
const SHARDS: usize = 16;

/// A cache that has not so many records and bytes for each shard is one shard: its bounds are exact then,
/// and it takes what is nearly as large as itself.
const LEAST_RECORDS: usize = 64;
const LEAST_BYTES: usize = 1 << 20;

/// What a record takes beside its payload and user, in bytes: the entry, its place in the map, and what
/// the allocator adds.
pub(super) const ENTRY: usize = 320;

pub(crate) struct Cache {
    shards: Box<[Mutex<Shard>]>,
    /// Of each shard.
    most_records: usize,
    most_bytes: usize,
    staleness: Duration,
    reads: AtomicU64,
    hits: AtomicU64,
    misses: AtomicU64,
    changes: AtomicU64,
    evictions: AtomicU64,
}

#[derive(Default)]
struct Shard {
    places: KeyMap<usize>,
    entries: Vec<Option<Entry>>,
    free: Vec<usize>,
    /// Where the search for an entry that gives way goes on.
    hand: usize,
    bytes: usize,
    /// The newest read of each key that is on its way, by its number. The task that hears of a change removes
    /// it: what such a read brings may be of before, and is not kept.
    reads: KeyMap<Pending>,
    /// How many writes of each key are on their way.
    writes: KeyMap<u32>,
    /// With how many there are.
    waiting: KeyMap<(Arc<Notify>, usize)>,
}

/// A read that is on its way.
struct Pending {
    number: u64,
    /// What its record was told to be, last of all since it began.
    told: Option<Told>,
}

/// The state in which a record was left by a change.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) version: u64,
    /// In milliseconds.
    pub(crate) expires_at: u64,
}

impl Told {
    fn from_record(record: &Record) -> Self {
        Self { version: record.version, expires_at: to_millis(record.expires_at) }
    }

    /// Whether a record that was read about then has this change in it.
    fn is_in(self, record: &Record) -> bool {
        self.version < record.version || self == Self::from_record(record)
    }
}

struct Entry {
    key: StoreKey,
    record: Record,
    feed: Feed,
    bytes: usize,
    /// Since the hand came by.
    was_used: bool,
}

/// What the cache knows of a key.
pub(super) enum Found {
    /// May be served. With a feed that wants a sign of life.
    Fresh(Record, Option<Feed>),
    Nothing,
}

impl Cache {
    pub(super) fn new(most_records: usize, most_bytes: usize, staleness: Duration) -> Self {
        let is_small = most_records / SHARDS < LEAST_RECORDS || most_bytes / SHARDS < LEAST_BYTES;
        let shards = if is_small { 1 } else { SHARDS };
        let (reads, hits, misses, changes, evictions) = Default::default();
        Self {
            shards: (0..shards).map(|_| Mutex::default()).collect(),
            most_records: most_records / shards,
            most_bytes: most_bytes / shards,
            staleness,
            reads,
            hits,
            misses,
            changes,
            evictions,
        }
    }

    /// The record under `key`, if nothing that was acknowledged longer ago than the staleness can have
    /// changed it.
    pub(super) fn find(&self, key: &StoreKey, now: Instant, time: SystemTime) -> Found {
        let mut shard = self.shard(key);
        let outdated = match shard.entry(key) {
            None => None,
            Some(entry) if entry.record.is_expired(time) || entry.feed.has_ended() => {
                shard.remove(key)
            }
            Some(entry) => {
                // One that is too old stays: the next sign of life makes it good again.
                if let Some(age) = entry.feed.age(now).filter(|age| *age <= self.staleness) {
                    entry.was_used = true;
                    let wants_news = age >= self.staleness / 2;
                    let feed = wants_news.then(|| entry.feed.clone());
                    let record = entry.record.clone();
                    drop(shard);
                    self.hits.fetch_add(1, Relaxed);
                    meters::near_cache(true);
                    return Found::Fresh(record, feed);
                }
                None
            }
        };
        drop(shard);
        drop(outdated);
        self.misses.fetch_add(1, Relaxed);
        meters::near_cache(false);
        Found::Nothing
    }

    /// A read of the store begins: what it brings is kept if nobody hears of a change until then.
    pub(super) fn read(&self, key: &StoreKey) -> InFlight<'_> {
        let number = self.reads.fetch_add(1, Relaxed);
        self.shard(key).reads.insert(*key, Pending { number, told: None });
        InFlight { cache: self, key: *key, number, is_write: false, is_kept: false }
    }

    /// A write of this process begins: the record of before is not served from here on.
    pub(super) fn write(&self, key: &StoreKey) -> InFlight<'_> {
        *self.shard(key).writes.entry(*key).or_default() += 1;
        self.changed(key);
        let mut read = self.read(key);
        read.is_write = true;
        read
    }

    /// The record under `key` is not to be relied on any more, neither what is here nor what is being
    /// read just now.
    pub(crate) fn changed(&self, key: &StoreKey) {
        let mut shard = self.shard(key);
        shard.reads.remove(key);
        self.forget_one(shard, key);
    }

    /// The record under `key` is this one from now on: one that is not is not to be relied on any more.
    pub(crate) fn changed_to(&self, key: &StoreKey, told: Told) {
        let mut shard = self.shard(key);
        if let Some(read) = shard.reads.get_mut(key) {
            read.told = Some(told);
        }
        if shard.entry(key).is_some_and(|entry| Told::from_record(&entry.record) == told) {
            return;
        }
        self.forget_one(shard, key);
    }

    /// Forgets the record under `key`, and tells who waits for a change of it.
    fn forget_one(&self, mut shard: MutexGuard<'_, Shard>, key: &StoreKey) {
        let entry = shard.remove(key);
        let waiting = shard.waiting_for(key);
        drop(shard);
        self.changes.fetch_add(u64::from(entry.is_some()), Relaxed);
        if let Some(waiting) = waiting {
            waiting.notify_waiters();
        }
    }

    /// Whether what is read through this feed wants a sign of life of it.
    pub(super) fn wants_news(&self, feed: &Feed, now: Instant) -> bool {
        !feed.has_ended() && feed.age(now).is_none_or(|age| age >= self.staleness / 2)
    }

    /// No record is to be relied on any more.
    pub(crate) fn clear(&self) {
        self.forget(|_| true);
    }

    /// No record that was read through this feed is to be relied on any more.
    pub(crate) fn forget_feed(&self, feed: &Feed) {
        self.forget(|entry| entry.feed.is(feed));
    }

    fn forget(&self, is_forgotten: impl Fn(&Entry) -> bool) {
        for shard in &self.shards {
            let mut shard = lock(shard);
            shard.reads.clear();
            let keys: Vec<StoreKey> = shard
                .entries
                .iter()
                .flatten()
                .filter(|it| is_forgotten(it))
                .map(|it| it.key)
                .collect();
            let forgotten: Vec<_> = keys.iter().map(|key| shard.remove(key)).collect();
            let waiting: Vec<_> =
                shard.waiting.values().map(|(waiting, _)| waiting.clone()).collect();
            drop(shard);
            drop(forgotten);
            waiting.iter().for_each(|waiting| waiting.notify_waiters());
        }
    }

    /// Waits until the cache hears of a change of this key, or of anything, from the first poll on.
    pub(super) async fn next_change(&self, key: &StoreKey) {
        let waiting = Waiting::new(self, key);
        waiting.notify.notified().await;
    }

    pub(super) fn stats(&self) -> NearCacheStats {
        let (mut sessions, mut bytes) = (0, 0);
        for shard in &self.shards {
            let shard = lock(shard);
            sessions += shard.places.len();
            bytes += shard.bytes;
        }
        NearCacheStats {
            hits: self.hits.load(Relaxed),
            misses: self.misses.load(Relaxed),
            changes: self.changes.load(Relaxed),
            evictions: self.evictions.load(Relaxed),
            sessions,
            bytes,
        }
    }

    fn shard(&self, key: &StoreKey) -> MutexGuard<'_, Shard> {
        // Not a byte that `KeyMap` takes.
        lock(&self.shards[usize::from(key.as_bytes()[31]) % self.shards.len()])
    }
}

/// Each change of a shard is complete before anything could panic: a poisoned one is whole.
fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shard {
    fn entry(&mut self, key: &StoreKey) -> Option<&mut Entry> {
        let place = *self.places.get(key)?;
        self.entries[place].as_mut()
    }

    fn waiting_for(&self, key: &StoreKey) -> Option<Arc<Notify>> {
        self.waiting.get(key).map(|(waiting, _)| waiting.clone())
    }

    fn end_write(&mut self, key: &StoreKey) {
        if let Some(count) = self.writes.get_mut(key) {
            *count -= 1;
            if *count == 0 {
                self.writes.remove(key);
            }
        }
    }

    fn put(&mut self, entry: Entry) {
        self.bytes += entry.bytes;
        let key = entry.key;
        let place = match self.free.pop() {
            Some(place) => {
                self.entries[place] = Some(entry);
                place
            }
            None => {
                self.entries.push(Some(entry));
                self.entries.len() - 1
            }
        };
        self.places.insert(key, place);
    }

    fn remove(&mut self, key: &StoreKey) -> Option<Entry> {
        let place = self.places.remove(key)?;
        let entry = self.entries[place].take()?;
        self.free.push(place);
        self.bytes -= entry.bytes;
        Some(entry)
    }

    /// The first one that was not used since the hand came by last: a session that was read once, as a
    /// crawler's is, goes before one that was read twice.
    fn remove_least_used(&mut self) -> Option<Entry> {
        // At the second look none has been used, so that one is found unless there is none.
        for _ in 0..2 * self.entries.len() {
            self.hand = (self.hand + 1) % self.entries.len();
            if let Some(entry) = &mut self.entries[self.hand]
                && !std::mem::take(&mut entry.was_used)
            {
                let key = entry.key;
                return self.remove(&key);
            }
        }
        None
    }
}

/// A read of the store, or a write, that is on its way. A write that is dropped may have been carried
/// out: then it is a change like any other.
pub(super) struct InFlight<'a> {
    cache: &'a Cache,
    key: StoreKey,
    number: u64,
    is_write: bool,
    is_kept: bool,
}

impl InFlight<'_> {
    /// The store has this record, and the feed tells when it changes. It is kept, unless a change was
    /// told since the read began.
    pub(super) fn keep(mut self, record: &Record, feed: Option<Feed>) {
        let Some(feed) = feed.filter(|feed| !feed.has_ended()) else { return };
        let user = record.user.as_deref().map_or(0, str::len);
        let bytes = ENTRY + record.payload.len() + user;
        let Cache { most_records, most_bytes, .. } = *self.cache;
        if bytes > most_bytes || most_records == 0 {
            return;
        }
        let entry = Entry { key: self.key, record: record.clone(), feed, bytes, was_used: false };
        let mut shard = self.cache.shard(&self.key);
        // In one step with what follows, or a change could be told in between. While another write of
        // this process is on its way, the news of a foreign change may pass for the echo of that write:
        // what is read meanwhile is not kept.
        let writes = shard.writes.get(&self.key).copied().unwrap_or_default();
        let others = writes - u32::from(self.is_write);
        let ours = shard.reads.get(&self.key).filter(|read| read.number == self.number);
        let is_good = |told: Told| told.is_in(record);
        if others > 0 || ours.is_none_or(|read| !read.told.is_none_or(is_good)) {
            return;
        }
        shard.reads.remove(&self.key);
        let before = shard.remove(&self.key);
        let mut removed = Vec::new();
        while shard.bytes + bytes > most_bytes || shard.places.len() >= most_records {
            removed.extend(shard.remove_least_used());
        }
        shard.put(entry);
        let waiting = shard.waiting_for(&self.key).filter(|_| self.is_write);
        drop(shard);
        self.is_kept = true;
        self.cache.evictions.fetch_add(removed.len() as u64, Relaxed);
        drop((before, removed));
        if let Some(waiting) = waiting {
            waiting.notify_waiters();
        }
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        if self.is_write {
            self.cache.shard(&self.key).end_write(&self.key);
        }
        if self.is_kept {
            return;
        }
        if self.is_write {
            return self.cache.changed(&self.key);
        }
        let mut shard = self.cache.shard(&self.key);
        if shard.reads.get(&self.key).is_some_and(|read| read.number == self.number) {
            shard.reads.remove(&self.key);
        }
    }
}

/// One of those who wait for news of a key.
struct Waiting<'a> {
    cache: &'a Cache,
    key: StoreKey,
    notify: Arc<Notify>,
}

impl<'a> Waiting<'a> {
    fn new(cache: &'a Cache, key: &StoreKey) -> Self {
        let mut shard = cache.shard(key);
        let (notify, count) = shard.waiting.entry(*key).or_default();
        *count += 1;
        let notify = notify.clone();
        Self { cache, key: *key, notify }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut shard = self.cache.shard(&self.key);
        if let Some((_, count)) = shard.waiting.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                shard.waiting.remove(&self.key);
            }
        }
    }
}
