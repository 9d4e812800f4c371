//! Which sessions are in use in this process: session → slot.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
    sync::{Arc, PoisonError, Weak},
};

use crate::{
    SessionData, StoreKey,
    id::SessionId,
    slot::Slot,
    sync::{Mutex, MutexGuard},
};

/// Enough that the cores of a large machine seldom meet.
const SHARDS: usize = 64;

type Shard<T> = HashMap<StoreKey, Weak<Slot<T>>, BuildHasherDefault<KeyHasher>>;

/// Holds a slot only while somebody uses it: the map's references are weak, and a slot takes its
/// entry along when it goes.
pub(crate) struct Registry<T: SessionData> {
    shards: [Mutex<Shard<T>>; SHARDS],
}

/// Where a slot is entered. Owned by the slot, and dropped with it.
pub(crate) struct Place<T: SessionData> {
    pub(crate) id: SessionId,
    pub(crate) key: StoreKey,
    registry: Arc<Registry<T>>,
}

impl<T: SessionData> Registry<T> {
    pub(crate) fn new() -> Self {
        Self { shards: std::array::from_fn(|_| Mutex::default()) }
    }

    /// The slot of this session, a new one that waits for its record if nobody uses the session
    /// now.
    pub(crate) fn slot_of(self: &Arc<Self>, id: SessionId) -> Arc<Slot<T>> {
        let place = self.place(id);
        let key = place.key;
        let mut shard = self.shard(&key);
        // A slot whose last user is just leaving, and waits for this shard in `Place::drop`, cannot
        // be had any more.
        if let Some(slot) = shard.get(&key).and_then(Weak::upgrade) {
            // Ours would lock the shard again when it is dropped.
            drop(shard);
            return slot;
        }
        let slot = Arc::new(Slot::loading(place));
        shard.insert(key, Arc::downgrade(&slot));
        slot
    }

    /// The slot under this key, if somebody uses it now.
    pub(crate) fn find(&self, key: &StoreKey) -> Option<Arc<Slot<T>>> {
        self.shard(key).get(key).and_then(Weak::upgrade)
    }

    /// Enters a slot whose record has just been stored, under an id that nobody else knows yet.
    pub(crate) fn enter(&self, slot: &Arc<Slot<T>>) {
        if let Some(place) = slot.place() {
            self.shard(&place.key).insert(place.key, Arc::downgrade(slot));
        }
    }

    /// Where a slot with this id belongs.
    pub(crate) fn place(self: &Arc<Self>, id: SessionId) -> Place<T> {
        Place { id, key: id.store_key(), registry: self.clone() }
    }

    /// How many sessions are in use.
    pub(crate) fn len(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).len()).sum()
    }

    fn shard(&self, key: &StoreKey) -> MutexGuard<'_, Shard<T>> {
        // Not the bytes that `KeyHasher` takes: those would leave each map with few distinct hashes.
        lock(&self.shards[usize::from(key.as_bytes()[31]) % SHARDS])
    }
}

/// No code of a user's runs under the lock, and each change is one call: a poisoned map is whole.
fn lock<T: SessionData>(shard: &Mutex<Shard<T>>) -> MutexGuard<'_, Shard<T>> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<T: SessionData> Drop for Place<T> {
    fn drop(&mut self) {
        let mut shard = self.registry.shard(&self.key);
        // Between the last reference and this lock another request may have made a new slot.
        if shard.get(&self.key).is_some_and(|slot| slot.strong_count() == 0) {
            shard.remove(&self.key);
        }
    }
}

/// A store key is a SHA-256 of something random: eight of its bytes are a hash.
#[derive(Default)]
struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn write(&mut self, bytes: &[u8]) {
        if let Some(first) = bytes.first_chunk() {
            self.0 = u64::from_ne_bytes(*first);
        }
    }

    fn write_usize(&mut self, _length: usize) {}

    fn finish(&self) -> u64 {
        self.0
    }
}
