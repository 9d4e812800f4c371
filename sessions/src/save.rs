//! From a slot to the store: the only place that creates and replaces records.

use std::sync::Arc;

use tracing::Instrument;

use crate::{
    Created, Lifetime, Record, Replaced, SessionData, StoreKey,
    error::Error,
    id::SessionId,
    payload::Source,
    shared::Shared,
    slot::{Plan, Slot, Stage},
    store::erased::ErasedStore,
};

/// How often a save starts again because somebody else saved in between. Each time somebody made
/// progress, so that this takes as many others at once.
const ATTEMPTS: u32 = 64;

/// Saves what has been released and is not stored yet.
///
/// Dropped half-way, it leaves the slot as it was: what is not known to be stored is still pending.
/// The store may have it all the same; the next save then finds a newer version there, with the
/// same bytes, and nothing left to do.
pub(crate) async fn save<T: SessionData>(
    shared: &Shared<T>,
    slot: &Arc<Slot<T>>,
) -> Result<(), Error> {
    let _saving = slot.saving.lock().await;
    save_locked(shared, slot).await
}

/// [`save`] for a caller that holds `slot.saving`.
pub(crate) async fn save_locked<T: SessionData>(
    shared: &Shared<T>,
    slot: &Arc<Slot<T>>,
) -> Result<(), Error> {
    attempts(shared, slot).instrument(tracing::debug_span!("save_session")).await
}

async fn attempts<T: SessionData>(shared: &Shared<T>, slot: &Arc<Slot<T>>) -> Result<(), Error> {
    for _ in 0..ATTEMPTS {
        let now = shared.now();
        let plan = slot.plan(now, shared.payload_limit, |lifetime, created_at| {
            shared.expiry.expires_at(lifetime, created_at, now)
        });
        let plan = plan?;
        #[cfg(feature = "private-cookie")]
        if shared.storage.is_cookie() {
            return keep_for_cookie(shared, slot, plan);
        }
        let Some(store) = shared.storage.store() else { return Ok(()) };
        match plan {
            Plan::Nothing => return Ok(()),
            Plan::Create(record) => {
                if create(shared, store, slot, record).await? {
                    return Ok(());
                }
            }
            Plan::Replace { record, based_on } => {
                let key = &slot.place().ok_or_else(Error::ended)?.key;
                match store.replace(key, &record, based_on).await? {
                    Replaced::Done => {
                        tracing::debug!(version = record.version, "saved a session");
                        slot.saved(record);
                        return Ok(());
                    }
                    Replaced::Changed => rebase(shared, store, slot, key).await?,
                    Replaced::Missing => slot.end(),
                }
            }
        }
    }
    Err(Error::contended(ATTEMPTS))
}

/// Stores a new session; false if it has to be tried again.
async fn create<T: SessionData>(
    shared: &Shared<T>,
    store: &dyn ErasedStore,
    slot: &Arc<Slot<T>>,
    record: Record,
) -> Result<bool, Error> {
    // The same id again if an earlier attempt never heard how it ended: or that record would stay
    // in the store under an id that nobody knows.
    let (id, is_retry) = slot.id_to_create_under(SessionId::generate)?;
    let key = id.store_key();
    match store.create(&key, &record).await? {
        Created::Done => {
            tracing::debug!("created a session");
            enter(shared, slot, id);
            slot.saved(record);
            Ok(true)
        }
        Created::Exists => {
            if is_retry && let Some((record, _)) = load(shared, store, &key).await? {
                enter(shared, slot, id);
                slot.saved(record);
            } else {
                slot.forget_id_to_create_under();
            }
            Ok(false)
        }
    }
}

fn enter<T: SessionData>(shared: &Shared<T>, slot: &Arc<Slot<T>>, id: SessionId) {
    slot.settle_in(shared.registry.place(id));
    shared.registry.enter(slot);
}

/// Somebody else saved: our changes now lie upon what they made of it.
async fn rebase<T: SessionData>(
    shared: &Shared<T>,
    store: &dyn ErasedStore,
    slot: &Slot<T>,
    key: &StoreKey,
) -> Result<(), Error> {
    match load(shared, store, key).await? {
        Some((record, lifetime)) => slot.observe(record, lifetime),
        None => slot.end(),
    }
    Ok(())
}

/// The record under `key` with its own lifetime, unless it is over or unreadable.
async fn load<T: SessionData>(
    shared: &Shared<T>,
    store: &dyn ErasedStore,
    key: &StoreKey,
) -> Result<Option<(Record, Lifetime)>, Error> {
    Ok(store.load(key).await?.and_then(|record| usable(shared, record)))
}

/// A record with its own lifetime, unless it is over or unreadable.
pub(crate) fn usable<T: SessionData>(
    shared: &Shared<T>,
    record: Record,
) -> Option<(Record, Lifetime)> {
    let lifetime = Source::parse(T::FIELDS, &record.payload)
        .ok()
        .and_then(|source| Lifetime::from_bytes(source.lifetime()));
    let Some(lifetime) = lifetime else {
        tracing::warn!("a stored session is unreadable; left alone, and a new one begun");
        return None;
    };
    let is_over = shared.expiry.is_over(&record, lifetime, shared.now());
    (!is_over).then_some((record, lifetime))
}

/// Looks at the store for whoever opens the session: a slot in use learns what is new there. A
/// session that is in its cookie has nowhere else to be looked up.
pub(crate) async fn refresh<T: SessionData>(
    shared: &Shared<T>,
    slot: &Slot<T>,
    key: &StoreKey,
) -> Result<Stage, Error> {
    if let Some(store) = shared.storage.store() {
        rebase(shared, store, slot, key).await?;
    }
    Ok(slot.stage())
}

/// Notes what the response's cookie will hold.
#[cfg(feature = "private-cookie")]
fn keep_for_cookie<T: SessionData>(
    shared: &Shared<T>,
    slot: &Slot<T>,
    plan: Plan,
) -> Result<(), Error> {
    let (Plan::Create(record) | Plan::Replace { record, .. }) = plan else { return Ok(()) };
    shared.cookie.sealed_fits(&record)?;
    if slot.place().is_none() {
        slot.settle_in(shared.registry.place(SessionId::generate()?));
    }
    slot.saved(record);
    Ok(())
}
