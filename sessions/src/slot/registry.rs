//! Which sessions are in use in this process: session → slot.

use std::sync::{Arc, PoisonError, Weak};

use crate::{
    data::SessionData,
    identity::id::{ID_LENGTH, KeyMap, SessionId, StoreKey},
    slot::{Slot, reconcile::LARGEST_IDLE},
    sync::{Mutex, MutexGuard, pieces_for_cores},
};

/// Enough that the cores of a large machine seldom meet.
const MOST_SHARDS: usize = 64;

/// So many for each core that two seldom meet, and no more: what a few cores have spread over many places is
/// in no cache when it is looked for.
const SHARDS_PER_CORE: usize = 4;

/// How many idle slots are kept at most, and three quarters of them at least: the ones that were used last.
/// Most requests are of a session that another request used a moment ago.
const IDLE_SLOTS_KEPT: usize = 1024;

/// And so many bytes of payload in all of them. Their fields take about as much once more.
const IDLE_BYTES_KEPT: usize = 2 << 20;

/// Three quarters of a shard's bytes have room for one, however many shards there are.
const _: () = assert!(LARGEST_IDLE <= IDLE_BYTES_KEPT / MOST_SHARDS / 4 * 3);

struct Shard<T: SessionData> {
    slots: KeyMap<Entry<T>>,
    idle: Kept,
    /// Counts the slots that have gone idle.
    time: u64,
}

/// Keeps no slot alive but the idle ones: the map's references to slots in use are weak, and a slot
/// removes its entry when it is dropped.
pub(crate) struct Registry<T: SessionData> {
    /// A power of two of them.
    shards: Box<[Mutex<Shard<T>>]>,
    /// What each shard keeps at most.
    most_idle: Kept,
}

/// Idle slots: how many, and how many bytes of payload they have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Kept {
    slots: usize,
    bytes: usize,
}

impl Kept {
    fn add<T: SessionData>(&mut self, idle: &Idle<T>) {
        self.slots += 1;
        self.bytes += idle.bytes;
    }

    fn remove<T: SessionData>(&mut self, idle: &Idle<T>) {
        self.slots -= 1;
        self.bytes -= idle.bytes;
    }

    fn is_within(self, most: Self) -> bool {
        self.slots <= most.slots && self.bytes <= most.bytes
    }
}

struct Entry<T: SessionData> {
    slot: Weak<Slot<T>>,
    idle: Option<Idle<T>>,
}

/// A slot that no request uses.
struct Idle<T: SessionData> {
    slot: Arc<Slot<T>>,
    since: u64,
    /// Of its payload.
    bytes: usize,
}

impl<T: SessionData> Entry<T> {
    fn in_use(slot: &Arc<Slot<T>>) -> Self {
        Self { slot: Arc::downgrade(slot), idle: None }
    }
}

/// Under which id a slot's session is stored, and the slot's entry in the registry. The slot owns it, and its drop
/// removes the entry.
pub(crate) struct Registration<T: SessionData> {
    pub(crate) id: SessionId,
    pub(crate) key: StoreKey,
    /// The registry that may have an entry for the slot.
    registry: Option<Arc<Registry<T>>>,
}

impl<T: SessionData> Registry<T> {
    pub(crate) fn new() -> Self {
        Self::with_shards(pieces_for_cores(SHARDS_PER_CORE, 1..=MOST_SHARDS))
    }

    fn with_shards(shards: usize) -> Self {
        let shard = || Shard { slots: KeyMap::default(), idle: Kept::default(), time: 0 };
        Self {
            shards: (0..shards).map(|_| Mutex::new(shard())).collect(),
            most_idle: Kept { slots: IDLE_SLOTS_KEPT / shards, bytes: IDLE_BYTES_KEPT / shards },
        }
    }

    /// The slot of this session: the one in use, an idle one, or a new one. An idle slot has to fetch
    /// its record like a new one.
    pub(crate) fn slot_of(self: &Arc<Self>, id: SessionId, key: StoreKey) -> Arc<Slot<T>> {
        self.slot_or_new(id, key).0
    }

    /// The same, and whether the slot was made for this call, so that it has no record yet unless another request
    /// has fetched one meanwhile.
    pub(crate) fn slot_or_new(
        self: &Arc<Self>,
        id: SessionId,
        key: StoreKey,
    ) -> (Arc<Slot<T>>, bool) {
        let mut shard = self.shard(&key);
        if let Some(entry) = shard.slots.get_mut(&key) {
            if let Some(idle) = entry.idle.take() {
                shard.idle.remove(&idle);
                return (idle.slot, false);
            }
            // A slot whose last user is just leaving, and waits for this shard in `Registration::drop`,
            // cannot be had any more.
            if let Some(slot) = entry.slot.upgrade() {
                return (slot, false);
            }
        }
        let slot = Arc::new(Slot::loading(Registration { id, key, registry: Some(self.clone()) }));
        shard.slots.insert(key, Entry::in_use(&slot));
        (slot, true)
    }

    /// The slot under this key, if a request uses it now.
    pub(crate) fn find(&self, key: &StoreKey) -> Option<Arc<Slot<T>>> {
        self.shard(key).slots.get(key).and_then(|entry| entry.slot.upgrade())
    }

    /// Gives back a slot that was got from here. Without another user the slot goes idle, unless it
    /// has something that a new slot would not have.
    pub(crate) fn give_back(&self, slot: Arc<Slot<T>>) {
        let Some(Registration { key, .. }) = slot.registration() else { return };
        let mut shard = self.shard(key);
        let Shard { slots, idle, time } = &mut *shard;
        let Some(entry) = slots.get_mut(key) else { return drop(shard) };
        // A request that wants the slot now waits for this shard: no request gets it half idle.
        let is_last_user = Arc::strong_count(&slot) == 1;
        if !is_last_user || entry.slot.as_ptr() != Arc::as_ptr(&slot) {
            return drop(shard);
        }
        let mut outdated = None;
        let Some(bytes) = slot.go_idle(&mut outdated) else { return drop(shard) };
        *time += 1;
        let gone_idle = Idle { slot, since: *time, bytes };
        idle.add(&gone_idle);
        entry.idle = Some(gone_idle);
        let removed = match idle.is_within(self.most_idle) {
            true => Vec::new(),
            false => shard.remove_longest_idle(self.most_idle),
        };
        // A slot locks the shard again when it is dropped, and fields may have a `Drop`.
        drop(shard);
        drop((removed, outdated));
    }

    /// Drops all idle slots.
    pub(crate) fn forget_idle(&self) {
        for shard in &self.shards {
            let mut shard = lock(shard);
            let idle: Vec<_> =
                shard.slots.values_mut().filter_map(|entry| entry.idle.take()).collect();
            shard.idle = Kept::default();
            drop(shard);
            drop(idle);
        }
    }

    /// Enters a slot whose record has just been stored, under an id that nobody else knows yet: so that
    /// a request that comes with the id finds the slot that is in use.
    pub(crate) fn enter(&self, slot: &Arc<Slot<T>>) {
        if let Some(registration) = slot.registration() {
            debug_assert!(registration.registry.is_some(), "its drop would leave the entry there");
            self.shard(&registration.key).slots.insert(registration.key, Entry::in_use(slot));
        }
    }

    /// How many sessions are in use.
    pub(crate) fn len(&self) -> usize {
        let in_use = |shard: &Shard<T>| shard.slots.len() - shard.idle.slots;
        self.shards.iter().map(|shard| in_use(&lock(shard))).sum()
    }

    fn shard(&self, key: &StoreKey) -> MutexGuard<'_, Shard<T>> {
        // Not the bytes that `KeyMap` takes: those would leave each map with few distinct hashes.
        lock(&self.shards[usize::from(key.as_bytes()[31]) % self.shards.len()])
    }
}

impl<T: SessionData> Shard<T> {
    /// Takes out idle slots, those whose last use is longest ago, until three quarters are left of what there
    /// are more than `most` of, slots or bytes: with many at a time the look at all of them costs each a few
    /// steps, and no use has to keep an order.
    fn remove_longest_idle(&mut self, most: Kept) -> Vec<Entry<T>> {
        let idle = self.slots.values().filter_map(|entry| entry.idle.as_ref());
        let mut uses: Vec<_> = idle.map(|idle| (idle.since, idle.bytes)).collect();
        let latest = match self.idle.bytes > most.bytes {
            true => latest_of_bytes(&mut uses, self.idle.bytes - most.bytes / 4 * 3),
            false => latest_of_slots(&mut uses, self.idle.slots - most.slots / 4 * 3),
        };
        let is_old =
            |entry: &Entry<T>| entry.idle.as_ref().is_some_and(|idle| idle.since <= latest);
        let removed: Vec<_> =
            self.slots.extract_if(|_, entry| is_old(entry)).map(|it| it.1).collect();
        removed.iter().filter_map(|entry| entry.idle.as_ref()).for_each(|it| self.idle.remove(it));
        removed
    }
}

/// When the last of the so many that were used longest ago was used. They need not be sorted for that.
fn latest_of_slots(uses: &mut [(u64, usize)], slots: usize) -> u64 {
    match slots.checked_sub(1).filter(|last| *last < uses.len()) {
        Some(last) => uses.select_nth_unstable(last).1.0,
        None => 0,
    }
}

/// The same of those that have so many bytes together.
fn latest_of_bytes(uses: &mut [(u64, usize)], mut bytes: usize) -> u64 {
    uses.sort_unstable();
    let too_many = uses.iter().take_while(|(_, of_it)| {
        let is_one = bytes > 0;
        bytes = bytes.saturating_sub(*of_it);
        is_one
    });
    too_many.last().map_or(0, |(since, _)| *since)
}

/// No code of a user's runs under the lock, and each change is one call: a poisoned map is whole.
fn lock<T: SessionData>(shard: &Mutex<Shard<T>>) -> MutexGuard<'_, Shard<T>> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<T: SessionData> Registration<T> {
    /// For a slot with this id, which is [entered](Registry::enter) next, or never.
    pub(crate) fn in_registry(registry: &Arc<Registry<T>>, id: SessionId) -> Self {
        Self { id, key: id.store_key(), registry: Some(registry.clone()) }
    }

    /// For a slot with this id that is never entered.
    pub(crate) fn alone(id: SessionId) -> Self {
        Self { id, key: id.store_key(), registry: None }
    }

    /// For a slot of a session whose id nobody here knows: it is never entered, and no cookie is ever
    /// made of it.
    pub(crate) fn without_id(key: StoreKey) -> Self {
        Self { id: SessionId::from_bytes([0; ID_LENGTH]), key, registry: None }
    }
}

impl<T: SessionData> Drop for Registration<T> {
    fn drop(&mut self) {
        let Some(registry) = &self.registry else { return };
        let mut shard = registry.shard(&self.key);
        // Between the last reference and this lock another request may have made a new slot.
        if shard.slots.get(&self.key).is_some_and(|entry| entry.slot.strong_count() == 0) {
            shard.slots.remove(&self.key);
        }
    }
}

#[cfg(test)]
#[cfg(all(feature = "derive", feature = "bincode"))]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::{
        data::{
            codec::Codec,
            merge::{Conflict, Policy},
        },
        record::{
            Record,
            head::{Head, Loaded},
        },
    };

    #[derive(sessions_derive::Session)]
    #[session(crate = crate)]
    struct Data {}

    const POLICY: Policy = Policy { codec: Codec::Bincode, conflict: Conflict::LastWins };

    fn loaded(payload: usize) -> Loaded {
        let now = SystemTime::now();
        let payload = vec![0; payload].into();
        let record = Record { version: 1, created_at: now, expires_at: now, user: None, payload };
        Loaded { record, head: Head::default() }
    }

    fn id(number: u32) -> SessionId {
        let mut id = [0; 16];
        id[..4].copy_from_slice(&number.to_le_bytes());
        SessionId::from_bytes(id)
    }

    fn opened(registry: &Arc<Registry<Data>>, number: u32, payload: usize) -> Arc<Slot<Data>> {
        let slot = registry.slot_of(id(number), id(number).store_key());
        slot.reconcile(loaded(payload), POLICY, true);
        slot
    }

    fn entries(registry: &Registry<Data>) -> usize {
        registry.shards.iter().map(|shard| lock(shard).slots.len()).sum()
    }

    fn idle(registry: &Registry<Data>) -> Kept {
        registry.shards.iter().map(|shard| lock(shard).idle).fold(Kept::default(), |sum, kept| {
            Kept { slots: sum.slots + kept.slots, bytes: sum.bytes + kept.bytes }
        })
    }

    #[test]
    fn only_so_many_are_idle_and_none_of_them_is_in_use() {
        let registry = Arc::new(Registry::new());
        for number in 0..10_000 {
            registry.give_back(opened(&registry, number, 100));
        }
        assert_eq!(registry.len(), 0);
        assert!((IDLE_SLOTS_KEPT / 4 * 3..=IDLE_SLOTS_KEPT).contains(&entries(&registry)));
        assert_eq!(
            idle(&registry),
            Kept { slots: entries(&registry), bytes: 100 * entries(&registry) }
        );
        registry.forget_idle();
        assert_eq!((entries(&registry), idle(&registry)), (0, Kept::default()));
    }

    #[test]
    fn large_ones_are_kept_up_to_so_many_bytes() {
        for shards in [1, 8, MOST_SHARDS] {
            let registry = Arc::new(Registry::with_shards(shards));
            let mut seen = 0;
            for number in 0..1_000 {
                registry.give_back(opened(&registry, number, LARGEST_IDLE));
                let bytes = idle(&registry).bytes;
                assert!(bytes <= IDLE_BYTES_KEPT, "{shards} shards: {bytes}");
                seen = seen.max(bytes);
                // The one that was used last is among them.
                let slots = [0, 1].map(|_| registry.slot_of(id(number), id(number).store_key()));
                assert_eq!(slots[0].record().payload.len(), LARGEST_IDLE);
                assert_eq!(idle(&registry).bytes, bytes - LARGEST_IDLE);
                slots[0].reconcile(loaded(LARGEST_IDLE), POLICY, true);
                slots.into_iter().for_each(|slot| registry.give_back(slot));
            }
            assert!(seen >= IDLE_BYTES_KEPT / 2, "{shards} shards: {seen}");
            // Small ones in their place count as what they have.
            for number in 1_000..3_000 {
                registry.give_back(opened(&registry, number, 10));
            }
            let Kept { slots, bytes } = idle(&registry);
            assert!(slots <= IDLE_SLOTS_KEPT && bytes <= 10 * IDLE_SLOTS_KEPT, "{slots}, {bytes}");
        }
    }

    #[test]
    fn as_many_are_kept_in_few_shards_as_in_many() {
        for shards in [1, 4, 8, MOST_SHARDS] {
            let Registry { most_idle, .. } = Registry::<Data>::with_shards(shards);
            assert_eq!(shards * most_idle.slots, IDLE_SLOTS_KEPT);
            assert_eq!(shards * most_idle.bytes, IDLE_BYTES_KEPT);
        }
    }

    #[test]
    fn the_slots_used_last_stay_idle() {
        let registry = Arc::new(Registry::new());
        let first = opened(&registry, 0, 100);
        let address = Arc::as_ptr(&first);
        registry.give_back(first);
        for number in 1..10_000 {
            registry.give_back(opened(&registry, number, 100));
            let again = registry.slot_of(id(0), id(0).store_key());
            assert_eq!(Arc::as_ptr(&again), address);
            again.reconcile(loaded(100), POLICY, true);
            registry.give_back(again);
        }
    }

    #[test]
    fn a_slot_goes_idle_when_its_last_user_has_gone() {
        let registry = Arc::new(Registry::new());
        let one = opened(&registry, 1, 100);
        let other = registry.slot_of(id(1), id(1).store_key());
        assert!(Arc::ptr_eq(&one, &other));
        registry.give_back(one);
        assert_eq!(registry.len(), 1);
        registry.give_back(other);
        assert_eq!((registry.len(), entries(&registry)), (0, 1));
    }

    #[test]
    fn what_is_large_or_over_or_unknown_does_not_go_idle() {
        let registry = Arc::new(Registry::new());
        registry.give_back(opened(&registry, 1, LARGEST_IDLE + 1));
        let ended = opened(&registry, 2, 100);
        ended.end();
        registry.give_back(ended);
        registry.give_back(registry.slot_of(id(3), id(3).store_key()));
        registry.give_back(Arc::new(Slot::unsaved(SystemTime::now())));
        assert_eq!(entries(&registry), 0);
    }
}
