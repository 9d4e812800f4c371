//! From a slot to the store: the only place that creates and replaces records.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use tracing::Instrument;

use crate::{
    Created, Lifetime, Record, Replaced, SessionData, StoreError, StoreKey,
    error::Error,
    id::SessionId,
    patch::Writer,
    payload::{self, LARGEST_PAYLOAD, MOVED},
    registry::Place,
    shared::Shared,
    slot::{Plan, Slot, Stage},
    store::erased::ErasedStore,
};

/// How often a save starts again because somebody else saved in between. Each time somebody made
/// progress, so that this takes as many others at once.
const ATTEMPTS: u32 = 64;

/// Saves what has been released and is not stored yet; `writer` is told of what cannot be stored.
///
/// Dropped half-way, it leaves everything pending that is not known to be stored, and the slot in
/// doubt of what the store has: the next save finds out.
pub(crate) async fn save<T: SessionData>(
    shared: &Shared<T>,
    slot: &Arc<Slot<T>>,
    writer: Option<Writer>,
) -> Result<(), Error> {
    let _saving = slot.saving.lock().await;
    save_locked(shared, slot, writer).await
}

/// [`save`] for a caller that holds `slot.saving`.
pub(crate) async fn save_locked<T: SessionData>(
    shared: &Shared<T>,
    slot: &Arc<Slot<T>>,
    writer: Option<Writer>,
) -> Result<(), Error> {
    attempts(shared, slot, writer).instrument(tracing::debug_span!("save_session")).await
}

async fn attempts<T: SessionData>(
    shared: &Shared<T>,
    slot: &Arc<Slot<T>>,
    writer: Option<Writer>,
) -> Result<(), Error> {
    for _ in 0..ATTEMPTS {
        let now = shared.now();
        let plan = slot.plan(writer, now, shared.payload_limit, |lifetime, created_at| {
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
                    Replaced::Changed => match load(shared, store, key).await? {
                        Some((record, lifetime)) => slot.rebase(record, lifetime),
                        None => slot.end(),
                    },
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

/// The record under `key` with its own lifetime, unless it is over or unreadable.
pub(crate) async fn load<T: SessionData>(
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
    if record.payload.starts_with(MOVED) {
        return None;
    }
    let is_bearable = record.payload.len() <= LARGEST_PAYLOAD;
    let lifetime = is_bearable
        .then(|| payload::check(&record.payload).ok())
        .flatten()
        .and_then(Lifetime::from_bytes);
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
        match load(shared, store, key).await? {
            Some((record, lifetime)) => slot.observe(record, lifetime),
            None => slot.end(),
        }
    }
    Ok(slot.stage())
}

/// Stores the session, with all that has been released, under a new id, and ends the old one.
///
/// The caller holds the slot's lock for writing and `slot.saving`, and the slot has a record. After
/// an error the session is still good under its old id, unless it has ended.
pub(crate) async fn renew<T: SessionData>(
    shared: &Shared<T>,
    slot: &Slot<T>,
    writer: Writer,
) -> Result<(Record, Place<T>), Error> {
    let old = &slot.place().ok_or_else(Error::ended)?.key;
    for _ in 0..ATTEMPTS {
        if refresh(shared, slot, old).await? != Stage::Live {
            return Err(Error::ended());
        }
        let now = shared.now();
        let expires_at = |lifetime, created_at| shared.expiry.expires_at(lifetime, created_at, now);
        let based_on = slot.record().version;
        let record = match slot.plan(Some(writer), now, shared.payload_limit, expires_at)? {
            Plan::Replace { record, .. } => record,
            _ => slot.record(),
        };
        let expires_at = expires_at(slot.lifetime(), record.created_at);
        let record = Record { version: 1, expires_at, ..record };
        let place = shared.registry.place(SessionId::generate()?);
        let Some(store) = shared.storage.store() else { return Ok((record, place)) };
        if store.create(&place.key, &record).await? == Created::Exists {
            continue;
        }
        match retire(store, old, &record, based_on, now).await {
            Ok(Replaced::Done) => return Ok((record, place)),
            Ok(Replaced::Changed) => drop_record(store, &place.key).await,
            Ok(Replaced::Missing) => {
                slot.end();
                drop_record(store, &place.key).await;
                return Err(Error::ended());
            }
            Err(error) => {
                drop_record(store, &place.key).await;
                return Err(error.into());
            }
        }
    }
    Err(Error::contended(ATTEMPTS))
}

/// Ends the record that a renewal was based on, and no later one: what another process saves until
/// then is not lost, and of several renewals one wins.
async fn retire(
    store: &dyn ErasedStore,
    key: &StoreKey,
    successor: &Record,
    based_on: u64,
    now: SystemTime,
) -> Result<Replaced, StoreError> {
    /// It is deleted at once; should that fail, this is how long it takes.
    const GRACE: Duration = Duration::from_secs(60);
    // Told apart from what another renewal leaves, for when we have to ask whose it is.
    let mut payload = MOVED.to_vec();
    payload
        .extend(SessionId::generate().map_err(|e| StoreError::new("id", "retire", e))?.as_bytes());
    let moved = Record {
        version: based_on + 1,
        expires_at: successor.expires_at.min(now + GRACE),
        payload: payload.into(),
        ..successor.clone()
    };
    let retired = match store.replace(key, &moved, based_on).await {
        Err(error) => match store.load(key).await? {
            Some(found) if found.payload == moved.payload => Replaced::Done,
            _ => return Err(error),
        },
        Ok(retired) => retired,
    };
    if retired == Replaced::Done {
        match store.delete(key).await {
            Ok(true) => {}
            // Somebody has ended the session in between.
            Ok(false) => return Ok(Replaced::Missing),
            Err(_) => tracing::warn!("a renewed session's old record stays for a minute"),
        }
    }
    Ok(retired)
}

/// Takes back a record that nobody got to know. If the store fails once more it expires by itself.
async fn drop_record(store: &dyn ErasedStore, key: &StoreKey) {
    if store.delete(key).await.is_err() {
        tracing::warn!("the record of a renewal that failed stays until it expires");
    }
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
