//! Another id for a session: its record under the new id, and a tombstone under the old one.

use std::time::Duration;

#[cfg(feature = "device-bound")]
use crate::save::link;
use crate::{
    data::{SessionData, payload},
    error::{Error, ErrorKind},
    identity::id::{SessionId, StoreKey},
    meters,
    record::{
        LAST_VERSION, Record,
        head::Head,
        next_version,
        tombstone::{self, GRACE},
    },
    save::{
        load::refresh_locked,
        plan, sealed,
        shared::Shared,
        turn::{Lost, StoreTurn},
    },
    slot::{
        Slot, SlotState,
        plan::{Plan, SaveJob},
        registry::Registration,
        token::LockToken,
    },
    store::{
        Created, Replaced,
        timed::{Timed, is_overdue},
    },
    sync::sleep,
};

/// Stores the session, with all that has been released, under a new id, and ends the old one.
///
/// The extra patch of the job must mean the same whatever the fields are.
///
/// The slot has a record. After an error the session is still good under its old id, unless it has
/// ended.
pub(crate) async fn renew<T: SessionData>(
    shared: &Shared<T>,
    token: &LockToken<T>,
    turn: &mut StoreTurn<'_, T>,
    job: SaveJob<'_>,
) -> Result<(Record, Registration<T>), Error> {
    // Long: the steps of a renewal in their order, each with what undoes the ones before it.
    let slot = token.slot();
    let old = &slot.registration().ok_or_else(Error::ended)?.key;
    loop {
        if refresh_locked(shared, slot, old).await? != SlotState::Stored {
            return Err(Error::ended());
        }
        let overdue = turn.lease_wait.overdue;
        if let Some((lease, version)) = slot.foreign_lease(overdue) {
            turn.wait_for(lease, version, shared).await?;
            continue;
        }
        let now = shared.now();
        let based_on = slot.record().version;
        // The old id has two more versions to go through.
        let version = next_version(based_on)?;
        next_version(version)?;
        let record = match plan(shared, slot, job.at_generation(slot.generation()), overdue)? {
            Plan::Replace { record, .. } => {
                // It goes to another id: what the store has under this one is not in doubt.
                slot.not_saved(&record);
                record
            }
            // Another request has loaded a newer record since we looked; it may have a lease.
            Plan::Outdated | Plan::Wait(..) => continue,
            _ => slot.record_without_lease(),
        };
        let Head { lifetime, .. } = payload::head_of(&record).unwrap_or_default();
        let expires_at = shared.settings.expiry.expires_at(lifetime, record.created_at, now);
        let record = Record { version, expires_at, ..record };
        let registration = Registration::in_registry(&shared.registry, SessionId::generate()?);
        let Some(store) = shared.store() else {
            #[cfg(feature = "private-cookie")]
            shared.settings.cookie.sealed_fits(&record)?;
            return Ok((record, registration));
        };
        // Before there is anything to lead to: wherever this is cut short, the browser's binding leads to
        // the session, under its old id or the new one. Also where this layer asks for no device, for
        // that of another process may.
        #[cfg(feature = "device-bound")]
        if let Some((id, lifetime)) = link::binding_in(&record) {
            let keys = [registration.key, *old];
            let leading = link::lead_to(shared, store, &id, &keys, lifetime, record.created_at);
            Box::pin(leading).await?;
        }
        // Anew for the new id.
        let sealed = sealed(shared, slot, &record, &registration.key)?;
        match store.create(&registration.key, &sealed).await {
            Ok(Created::Done) => {}
            Ok(Created::Exists) => continue,
            Err(error) => {
                // The store may have created it, and not said so: it would stand in the user's list.
                drop_record(store, &registration.key).await;
                return Err(error.into());
            }
        }
        match replace_with_tombstone(shared, store, old, &record, based_on).await {
            Ok(Replaced::Done) => {
                meters::renewed();
                return Ok((record, registration));
            }
            Ok(Replaced::Changed) => drop_record(store, &registration.key).await,
            Ok(Replaced::Missing) => {
                slot.end();
                drop_record(store, &registration.key).await;
                return Err(Error::ended());
            }
            Err(error) => {
                drop_record(store, &registration.key).await;
                return Err(error);
            }
        }
        turn.lost.pause(shared).await?;
    }
}

/// Replaces the record that a renewal was based on with a tombstone, and no later record: what another
/// process saves until then is not lost, and of several renewals one wins.
async fn replace_with_tombstone<T: SessionData>(
    shared: &Shared<T>,
    store: Timed<'_>,
    key: &StoreKey,
    successor: &Record,
    based_on: u64,
) -> Result<Replaced, Error> {
    let now = shared.now();
    // However long the second step takes, the first one is still there.
    let first = tombstone::new(next_version(based_on)?, now, successor.expires_at)?;
    let replaced = match store.replace(key, &first, based_on).await {
        Err(error) => match store.load(key).await? {
            Some(found) if found.payload == first.payload => Replaced::Done,
            _ => return Err(error.into()),
        },
        Ok(replaced) => replaced,
    };
    if replaced != Replaced::Done {
        return Ok(replaced);
    }
    let version = next_version(first.version)?;
    let second = Record { version, expires_at: shared.now() + GRACE, ..first };
    match store.replace(key, &second, first.version).await {
        Ok(Replaced::Done) => Ok(Replaced::Done),
        // Another request has ended the session in between.
        Ok(_) => Ok(Replaced::Missing),
        Err(_) => match store.load(key).await {
            Ok(Some(found)) if found.payload == second.payload => Ok(Replaced::Done),
            Ok(_) => Ok(Replaced::Missing),
            Err(_) => {
                tracing::warn!("nobody knows whether a session was ended while it was renewed");
                Ok(Replaced::Done)
            }
        },
    }
}

/// Ends a session, whatever its version, whose client goes on with another one: its record becomes a
/// tombstone.
pub(crate) async fn write_tombstone<T: SessionData>(
    shared: &Shared<T>,
    store: Timed<'_>,
    key: &StoreKey,
) -> Result<(), Error> {
    /// How often others may be faster. Each time they have saved something.
    const TRIES: usize = 8;
    for _ in 0..TRIES {
        let now = shared.now();
        let is_left = match store.load(key).await? {
            Some(found) if tombstone::is_tombstone(&found) => true,
            Some(found) => {
                let version = found.version.saturating_add(1).min(LAST_VERSION);
                let tombstone = tombstone::new(version, now, now + GRACE)?;
                store.replace(key, &tombstone, found.version).await? == Replaced::Done
            }
            // No save is ever based on it.
            None => {
                let tombstone = tombstone::new(LAST_VERSION, now, now + GRACE)?;
                store.create(key, &tombstone).await? == Created::Done
            }
        };
        if is_left {
            return Ok(());
        }
    }
    store.delete(key).await?;
    Ok(())
}

/// Ends the session that has this version under this key, or a later one, and says whether that was so: not if it
/// has ended meanwhile, or goes on under another id. What it has left under this one then stays: a `delete` would
/// take that along.
pub(crate) async fn end_unless_renewed<T: SessionData>(
    shared: &Shared<T>,
    store: Timed<'_>,
    key: &StoreKey,
    mut version: u64,
) -> Result<bool, Error> {
    let mut lost = Lost::default();
    while !store.delete_version(key, version).await? {
        match store.load_latest(key).await? {
            Some(found) if !tombstone::is_tombstone(&found) => version = found.version,
            _ => return Ok(false),
        }
        lost.pause(shared).await?;
    }
    Ok(true)
}

/// Ends the session that has this version under this key, or a later one, for a logout; and says as
/// [`end_unless_renewed`] whether that was so.
pub(crate) async fn end<T: SessionData>(
    shared: &Shared<T>,
    store: Timed<'_>,
    key: &StoreKey,
    version: u64,
) -> Result<bool, Error> {
    match end_unless_renewed(shared, store, key, version).await {
        // Whatever it takes along: others save all the time, and the session is to end.
        Err(error) if error.kind() == ErrorKind::Contended => Ok(store.delete(key).await?),
        ended => ended,
    }
}

/// Takes back a record that nobody got to know: it would stand in the list of its user's sessions. If the store goes
/// on failing it expires by itself.
pub(crate) async fn drop_record(store: Timed<'_>, key: &StoreKey) {
    /// The pauses before the next tries.
    const PAUSES: [Duration; 2] = [Duration::from_millis(10), Duration::from_millis(100)];
    let mut pauses = PAUSES.into_iter();
    while let Err(error) = store.delete(key).await {
        // A store that hangs would only hang once more.
        let pause = pauses.next().filter(|_| error.is_retryable() && !is_overdue(&error));
        let Some(pause) = pause else {
            tracing::warn!("the record of a renewal or login that failed stays until it expires");
            return;
        };
        sleep(pause).await;
    }
}

/// Takes back the record of a session that is new, and was not stored as far as we know: if the store has it
/// after all, nobody is to go on with it. The caller has the turn at the store.
pub(crate) async fn take_back_creation<T: SessionData>(shared: &Shared<T>, slot: &Slot<T>) {
    if slot.registration().is_none()
        && let Some(id) = slot.forget_id_to_create_under()
        && let Some(store) = shared.store()
    {
        drop_record(store, &id.store_key()).await;
    }
}
