//! From the store to a slot: loading a record, and what a slot makes of it.

use std::time::SystemTime;

use crate::{
    data::{SessionData, payload, sealing},
    error::Error,
    identity::id::StoreKey,
    record::{
        LARGEST_PAYLOAD, Record,
        head::{Head, Loaded},
        tombstone,
    },
    save::shared::Shared,
    slot::{Slot, SlotState, SlotView, ending::SessionEnd},
    store::{erased::ErasedStore, timed::Timed},
};

/// The record that the store has under `key` by now, with its head, unless it is over or unreadable.
pub(crate) async fn load<T: SessionData>(
    shared: &Shared<T>,
    store: Timed<'_>,
    key: &StoreKey,
) -> Result<Option<Loaded>, Error> {
    let found = store.load_latest(key).await?;
    let found = found.and_then(|record| usable(shared, record, shared.now()));
    Ok(found.map(|loaded| opened(shared, loaded, key)))
}

/// A record with its head, unless it is over or unreadable.
pub(crate) fn usable<T: SessionData>(
    shared: &Shared<T>,
    record: Record,
    now: SystemTime,
) -> Option<Loaded> {
    if tombstone::is_tombstone(&record) {
        return None;
    }
    let Some(head) = head(&record) else {
        tracing::warn!("a stored session is unreadable; left alone, and a new one begun");
        return None;
    };
    let is_over = shared.settings.expiry.is_over(&record, head.lifetime, now);
    (!is_over).then_some(Loaded { record, head })
}

/// The same with its secret fields readable.
fn opened<T: SessionData>(shared: &Shared<T>, loaded: Loaded, key: &StoreKey) -> Loaded {
    let record =
        sealing::opened::<T>(loaded.record, key, &shared.keys, shared.settings.plain_secrets);
    Loaded { record, ..loaded }
}

/// The head of a record; nothing if the record is unreadable, as one of a later build may be.
fn head(record: &Record) -> Option<Head> {
    let is_bearable = record.payload.len() <= LARGEST_PAYLOAD;
    is_bearable.then(|| payload::head_of(record)).flatten()
}

/// Whether the store has a session under `key` that lives, and that this build cannot read.
pub(crate) async fn is_unreadable<T: SessionData>(
    shared: &Shared<T>,
    key: &StoreKey,
) -> Result<bool, Error> {
    let Some(store) = shared.store() else { return Ok(false) };
    let found = store.load_latest(key).await?;
    Ok(found.is_some_and(|record| {
        !tombstone::is_tombstone(&record)
            && !record.is_expired(shared.now())
            && head(&record).is_none()
    }))
}

/// Fetches the record for a request that opens the session, and reconciles the slot with it. A
/// session that is kept in its cookie is not looked up.
///
/// The caller does not have the turn at the store: there may be a save to wait for.
pub(crate) async fn refresh<T: SessionData>(
    shared: &Shared<T>,
    slot: &Slot<T>,
    key: &StoreKey,
) -> Result<SlotState, Error> {
    refresh_from(shared, slot, key, Source::Any).await
}

/// [`refresh`] for a caller that wants to know what is in the store by now, past a near cache.
pub(crate) async fn refresh_latest<T: SessionData>(
    shared: &Shared<T>,
    slot: &Slot<T>,
    key: &StoreKey,
) -> Result<SlotState, Error> {
    refresh_from(shared, slot, key, Source::Latest).await
}

async fn refresh_from<T: SessionData>(
    shared: &Shared<T>,
    slot: &Slot<T>,
    key: &StoreKey,
    source: Source,
) -> Result<SlotState, Error> {
    if let Some(state) = fetch(shared, slot, key, source, false).await? {
        return Ok(state);
    }
    let _turn = slot.take_turn().await;
    let state = fetch(shared, slot, key, source, true).await?;
    Ok(state.unwrap_or_else(|| slot.state()))
}

/// Where a look gets its record.
#[derive(Clone, Copy)]
enum Source {
    /// A near cache will do.
    Any,
    Latest,
}

/// [`refresh`] for a caller that has the turn at the store.
pub(crate) async fn refresh_locked<T: SessionData>(
    shared: &Shared<T>,
    slot: &Slot<T>,
    key: &StoreKey,
) -> Result<SlotState, Error> {
    let state = fetch(shared, slot, key, Source::Any, true).await?;
    Ok(state.unwrap_or_else(|| slot.state()))
}

/// The slot's state after its record was fetched; nothing if the record has to wait for a save.
async fn fetch<T: SessionData>(
    shared: &Shared<T>,
    slot: &Slot<T>,
    key: &StoreKey,
    source: Source,
    is_answered: bool,
) -> Result<Option<SlotState>, Error> {
    let Some(store) = shared.store() else { return Ok(Some(slot.state())) };
    let found = match source {
        Source::Any => store.load(key).await?,
        Source::Latest => store.load_latest(key).await?,
    };
    Ok(reconcile(shared, slot, key, found, shared.now(), is_answered))
}

/// What came of a look at a store that answers at once.
pub(crate) struct Fetched {
    pub(crate) state: SlotState,
    /// What the system's clock has shown meanwhile.
    pub(crate) seen: Option<SystemTime>,
    /// A request that does nothing to the session [needs nothing](Shared::needs_nothing) of its response.
    pub(crate) needs_nothing: bool,
}

/// [`fetch`] from a store that answers at once; nothing also if the store does not. A slot that `is_new` is not
/// asked for its record.
pub(crate) fn fetch_at_once<T: SessionData>(
    shared: &Shared<T>,
    store: &dyn ErasedStore,
    slot: &Slot<T>,
    key: &StoreKey,
    is_new: bool,
) -> Option<Fetched> {
    let store_has_still = |known: &mut Record, lifetime| {
        let unchanged = store.has_still(key, known)?;
        let now = shared.now_after(unchanged.seen);
        // Another process has touched the record, or this process's own touch was lost.
        known.expires_at = unchanged.expires_at;
        let is_over = shared.settings.expiry.is_over(known, lifetime, now);
        (!is_over).then_some((unchanged.seen, now))
    };
    let look = |view: SlotView<'_>, (seen, now)| Fetched {
        state: SlotState::Stored,
        seen,
        needs_nothing: shared.needs_nothing(view, now),
    };
    // Usually the store has the record that the slot has.
    if !is_new && let Some(fetched) = slot.if_unchanged(store_has_still, look) {
        return Some(fetched);
    }
    let (found, seen) = store.load_at_once(key)?;
    let now = shared.now_after(seen);
    let mut needs_nothing = false;
    let state = match found {
        Some(record) if is_new => {
            let look = |loaded: &Loaded| needs_nothing = shared.needs_nothing(loaded.view(), now);
            take_over(shared, slot, key, record, now, false, look)?
        }
        found => reconcile(shared, slot, key, found, now, false)?,
    };
    Some(Fetched { state, seen, needs_nothing })
}

/// Reconciles the slot with what the store has. The slot's state after that; nothing if the record
/// has to wait for a save.
fn reconcile<T: SessionData>(
    shared: &Shared<T>,
    slot: &Slot<T>,
    key: &StoreKey,
    found: Option<Record>,
    now: SystemTime,
    is_answered: bool,
) -> Option<SlotState> {
    let Some(record) = found else {
        slot.end_as(SessionEnd::Over);
        return Some(SlotState::Ended(SessionEnd::Over));
    };
    // Usually `found` is the record that the slot has: then it is not parsed again.
    let is_over = |record: &_, lifetime| shared.settings.expiry.is_over(record, lifetime, now);
    let record = match slot.accept_if_unchanged(record, is_over) {
        Ok(()) => return Some(SlotState::Stored),
        Err(record) => record,
    };
    take_over(shared, slot, key, record, now, is_answered, |_| ())
}

/// The same with a record that the slot does not have, after a `look` at what the store has.
fn take_over<T: SessionData>(
    shared: &Shared<T>,
    slot: &Slot<T>,
    key: &StoreKey,
    record: Record,
    now: SystemTime,
    is_answered: bool,
    look: impl FnOnce(&Loaded),
) -> Option<SlotState> {
    let end = match tombstone::has_just_moved(&record, now) {
        true => SessionEnd::Renewed,
        false => SessionEnd::Over,
    };
    match usable(shared, record, now) {
        Some(loaded) => {
            let loaded = opened(shared, loaded, key);
            look(&loaded);
            slot.reconcile(loaded, shared.settings.policy, is_answered)
        }
        None => {
            slot.end_as(end);
            Some(SlotState::Ended(end))
        }
    }
}
