//! Where a slot meets a store: the only room that creates and replaces records.
//!
//! ```text
//! save_with_retries:
//!   plan ──Nothing──────────────────────────────► done
//!    ▲ ├───Create──► store.create ──Done────────► done
//!    │ │                          ──Exists──► (another id) ────┐
//!    │ ├───Replace─► store.replace ─Done────────► done         │
//!    │ │                           ─Missing─► (slot ends) ─────┤
//!    │ │                           ─Changed─► reload, back off ┤
//!    │ └───Wait────► (another process has a lease) pause, load ┤
//!    └─────────────────────────────────────────────────────────┘
//! ```
//!
//! 1. The plan is a pure decision of the slot ([`crate::slot::plan`]): which record would have to be
//!    stored. The slot notes it as an unconfirmed write before the store is asked. A plan that is outdated ends
//!    the loop too: the caller makes its change anew.
//! 2. An answer that is lost is looked for in the store; if that fails too, the write stays unconfirmed,
//!    and the next load finds out by its write id.
//! 3. A compare-and-swap that another process was faster with costs a reload: the slot is reconciled with
//!    what is there, pending changes are rebased, and the loop goes round.

#[cfg(feature = "adopt")]
pub(crate) mod adopt;
pub(crate) mod background;
pub(crate) mod ended;
pub(crate) mod lease;
#[cfg(feature = "device-bound")]
pub(crate) mod link;
pub(crate) mod load;
pub(crate) mod renew;
pub(crate) mod settings;
pub(crate) mod shared;
pub(crate) mod turn;
pub(crate) mod update;

use std::{borrow::Cow, sync::Arc, time::SystemTime};

use tracing::{Instrument, Level};

use crate::{
    data::{SessionData, payload, sealing},
    error::{Error, store::StoreError},
    identity::id::{SessionId, StoreKey},
    meters,
    record::{
        Record,
        head::{Loaded, WRITE_IDS_KEPT},
    },
    save::{load::load, shared::Shared, turn::StoreTurn},
    slot::{
        Slot, SlotState, SlotView,
        plan::{Plan, SaveContext, SaveJob, SavedAtOnce},
        registry::Registration,
    },
    store::{
        Created, Replaced,
        timed::{Timed, is_overdue},
    },
};

/// Saves what has been released, if the store answers at once and there is nothing else to it: no
/// other save is under way, nobody was faster, nothing is encrypted. If there is, nothing
/// has happened, and [`save_with_retries`] is what does it. `seen` is what the system's clock has shown
/// a moment ago. `look` looks at what is stored then, with the time of the save.
///
/// A second path beside that one, because without it a request that writes takes 3,600 instructions more (a
/// fifth) and two allocations, one that begins a session 3,300 (a tenth; `benches/instructions`,
/// `benches/allocations`).
///
/// `is_alone`: the slot goes with the request that saves, and the request before anybody can know the
/// id of a session that it begins. Such a slot is not entered in the registry.
pub(crate) fn save_at_once<T: SessionData, R>(
    shared: &Shared<T>,
    slot: &Arc<Slot<T>>,
    job: SaveJob<'_>,
    seen: Option<SystemTime>,
    is_alone: bool,
    look: impl FnOnce(SlotView<'_>, SystemTime) -> R,
) -> SavedAtOnce<R> {
    let Some(store) = shared.storage.store_at_once() else { return SavedAtOnce::No };
    if const { sealing::growth::<T>() } > 0 || tracing::enabled!(Level::DEBUG) {
        return SavedAtOnce::No;
    }
    let now = shared.now_after(seen);
    // No other process looks for it.
    let write_id = || shared.write_ids.next();
    let context = save_context(shared, now, &write_id, None);
    let look = |view: SlotView<'_>| look(view, now);
    if let Some(registration) = slot.registration() {
        let saved = slot.save_at_once(job, context, look, |record, based_on| {
            let answer =
                based_on.map(|based_on| store.replace(&registration.key, record, based_on).now());
            matches!(answer, Some(Some(Ok(Replaced::Done))))
        });
        if matches!(saved, SavedAtOnce::Done(_)) {
            meters::saved();
        }
        return saved;
    }
    let saved = slot.save_at_once(job, context, look, |record, based_on| {
        let (None, Ok(id)) = (based_on, SessionId::generate()) else { return false };
        let registration = match is_alone {
            true => Registration::alone(id),
            false => Registration::in_registry(&shared.registry, id),
        };
        let answer = store.create_at_once(&registration.key, record, seen);
        let is_created = matches!(answer, Some(Ok(Created::Done)));
        if is_created {
            slot.register(registration);
        }
        is_created
    });
    if matches!(saved, SavedAtOnce::Done(_)) {
        meters::begun();
        meters::saved();
        if !is_alone {
            shared.registry.enter(slot);
        }
    }
    saved
}

/// Saves what has been released and is not stored yet.
///
/// Dropped half-way, it leaves everything pending that is not known to be stored, and the write
/// among the unconfirmed ones: the next save finds out what became of it.
pub(crate) async fn save<T: SessionData>(
    shared: &Shared<T>,
    slot: &Arc<Slot<T>>,
    job: SaveJob<'_>,
) -> Result<(), Error> {
    let mut turn = StoreTurn::for_slot(slot).await;
    save_with_retries(shared, slot, &mut turn, job).await?;
    Ok(())
}

/// How a save ended that did not fail.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Saved {
    /// It is stored, or there was nothing to store.
    Done,
    /// The extra patch was made of fields that have changed since. It is not stored.
    Outdated,
}

/// Tries until the store has what the job asks for, for as long as a guard would wait for its lock.
pub(crate) async fn save_with_retries<T: SessionData>(
    shared: &Shared<T>,
    slot: &Arc<Slot<T>>,
    turn: &mut StoreTurn<'_, T>,
    job: SaveJob<'_>,
) -> Result<Saved, Error> {
    let save = save_in_span(shared, slot, turn, job);
    // Asked first, because with the feature `log` of `tracing` a disabled span is work too.
    if tracing::enabled!(Level::DEBUG) {
        return Box::pin(save.instrument(tracing::debug_span!("save_session"))).await;
    }
    save.await
}

async fn save_in_span<T: SessionData>(
    shared: &Shared<T>,
    slot: &Arc<Slot<T>>,
    turn: &mut StoreTurn<'_, T>,
    job: SaveJob<'_>,
) -> Result<Saved, Error> {
    // Long: the loop of the module's picture, with an arm for each plan. Boxed is what a usual save does
    // not wait for, so that its future stays below a kilobyte (as in `redis/saves.rs`).
    loop {
        let plan = plan(shared, slot, job, turn.lease_wait.overdue)?;
        #[cfg(feature = "private-cookie")]
        if shared.storage.is_cookie() {
            return keep_for_cookie(shared, slot, plan);
        }
        let Some(store) = shared.store() else { return Ok(Saved::Done) };
        match plan {
            Plan::Nothing => return Ok(Saved::Done),
            Plan::Outdated => return Ok(Saved::Outdated),
            Plan::Create(record) => {
                if Box::pin(create(shared, store, slot, record)).await? {
                    return Ok(Saved::Done);
                }
            }
            // A login never happens in place, not even under an id that an earlier save has just
            // turned out to have created.
            Plan::Replace { record, .. } if job.login().is_some() => {
                slot.not_saved(&record);
                return Ok(Saved::Outdated);
            }
            Plan::Replace { record, based_on } => {
                let key = &slot.registration().ok_or_else(Error::ended)?.key;
                let sealed = sealed(shared, slot, &record, key)?;
                match replace(store, key, &sealed, based_on).await? {
                    Replaced::Done => {
                        meters::saved();
                        tracing::debug!(version = record.version, "saved a session");
                        slot.saved(record);
                        return Ok(Saved::Done);
                    }
                    Replaced::Missing => {
                        slot.end();
                        continue;
                    }
                    Replaced::Changed => meters::retried(),
                }
                Box::pin(async {
                    reload_instead_of(shared, store, slot, Some(&record)).await?;
                    turn.lost.pause(shared).await
                })
                .await?;
            }
            Plan::Wait(lease, version) => {
                Box::pin(async {
                    turn.wait_for(lease, version, shared).await?;
                    reload(shared, store, slot).await
                })
                .await?;
            }
        }
    }
}

/// The record as the store gets it, once for each attempt: the same is sealed to other bytes each time.
/// A private cookie is encrypted as a whole.
fn sealed<'a, T: SessionData>(
    shared: &Shared<T>,
    slot: &Slot<T>,
    record: &'a Record,
    key: &StoreKey,
) -> Result<Cow<'a, Record>, Error> {
    let sealed = sealing::sealed::<T>(record, key, &shared.keys);
    sealed.inspect_err(|_| slot.not_saved(record))
}

/// Has the slot show what the store has by now.
async fn reload<T: SessionData>(
    shared: &Shared<T>,
    store: Timed<'_>,
    slot: &Slot<T>,
) -> Result<(), Error> {
    reload_instead_of(shared, store, slot, None).await
}

/// The same after the store has refused a record, which counts as not saved unless what is there says
/// otherwise: clients of clusters, and proxies, repeat a save that was not answered without a word,
/// and between the two another process may have saved.
async fn reload_instead_of<T: SessionData>(
    shared: &Shared<T>,
    store: Timed<'_>,
    slot: &Slot<T>,
    refused: Option<&Record>,
) -> Result<(), Error> {
    let key = &slot.registration().ok_or_else(Error::ended)?.key;
    let known = slot.record().version;
    let found = load(shared, store, key).await?;
    if let Some(refused) = refused {
        let write_id = write_id_of(refused);
        let has_it = |found: &Loaded| write_id.is_some_and(|it| found.head.write_ids.contains(&it));
        if !found.as_ref().is_some_and(has_it) {
            slot.not_saved(refused);
        }
    }
    match found {
        Some(loaded) => slot.rebase(loaded, shared.settings.policy, known),
        None => slot.end(),
    }
    Ok(())
}

fn plan<T: SessionData>(
    shared: &Shared<T>,
    slot: &Slot<T>,
    job: SaveJob<'_>,
    overdue: Option<u64>,
) -> Result<Plan, Error> {
    let now = shared.now();
    slot.plan(job, save_context(shared, now, &|| shared.write_ids.draw_at(now), overdue))
}

fn save_context<'a, T: SessionData>(
    shared: &'a Shared<T>,
    now: SystemTime,
    write_id: &'a (dyn Fn() -> u32 + Sync),
    overdue: Option<u64>,
) -> SaveContext<'a> {
    SaveContext {
        now,
        expiry: &shared.settings.expiry,
        limit: shared.settings.payload_limit,
        sealing: if shared.storage.is_cookie() { 0 } else { sealing::growth::<T>() },
        write_id,
        conflict: shared.settings.policy.conflict,
        overdue,
    }
}

/// Whether the store has what the slot had at this generation; if not, the slot then has what the
/// store has.
pub(crate) async fn confirm<T: SessionData>(
    shared: &Shared<T>,
    slot: &Slot<T>,
    generation: u64,
) -> Result<Saved, Error> {
    if let (Some(_), Some(store)) = (slot.registration(), shared.store()) {
        reload(shared, store, slot).await?;
    }
    match slot.state() {
        SlotState::Ended(_) => Err(Error::ended()),
        _ if slot.generation() == generation => Ok(Saved::Done),
        _ => Ok(Saved::Outdated),
    }
}

/// A compare-and-swap whose answer is looked for in the store if it does not come.
async fn replace(
    store: Timed<'_>,
    key: &StoreKey,
    record: &Record,
    based_on: u64,
) -> Result<Replaced, StoreError> {
    match store.replace(key, record, based_on).await {
        // A store that hangs would only hang once more.
        Err(error) if !is_overdue(&error) => match Box::pin(store.load(key)).await {
            Ok(Some(found)) if is_ours(record, &found) => Ok(Replaced::Done),
            // Others were faster, and ours would be among their write ids.
            Ok(Some(found)) if is_overtaken(record, &found) => Ok(Replaced::Changed),
            _ => Err(error),
        },
        answer => answer,
    }
}

/// The write id of the save that `record` was made for, if it has one.
fn write_id_of(record: &Record) -> Option<u32> {
    payload::head_of(record).and_then(|head| head.write_id())
}

/// Whether `found` was saved by others instead of ours, and tells so.
fn is_overtaken(ours: &Record, found: &Record) -> bool {
    let behind = found.version.saturating_sub(ours.version);
    found.version >= ours.version && behind < WRITE_IDS_KEPT as u64 && write_id_of(ours).is_some()
}

/// Whether `found` is what we have tried to save, or was made of it.
fn is_ours(ours: &Record, found: &Record) -> bool {
    match write_id_of(ours) {
        Some(write_id) => {
            payload::head_of(found).is_some_and(|head| head.write_ids.contains(&write_id))
        }
        None => ours.version == found.version && ours.payload == found.payload,
    }
}

/// Stores a new session; false if it has to be tried again.
async fn create<T: SessionData>(
    shared: &Shared<T>,
    store: Timed<'_>,
    slot: &Arc<Slot<T>>,
    record: Record,
) -> Result<bool, Error> {
    // The same id again if an earlier attempt never heard how it ended: or that record would stay
    // in the store under an id that nobody knows.
    let (id, is_retry) = slot.id_to_create_under(SessionId::generate)?;
    let registration = Registration::in_registry(&shared.registry, id);
    let sealed = sealed(shared, slot, &record, &registration.key)?;
    match store.create(&registration.key, &sealed).await? {
        Created::Done => {
            meters::begun();
            meters::saved();
            tracing::debug!("created a session");
            enter(shared, slot, registration);
            slot.saved(record);
            Ok(true)
        }
        Created::Exists => {
            slot.not_saved(&record);
            if is_retry && let Some(loaded) = load(shared, store, &registration.key).await? {
                enter(shared, slot, registration);
                slot.saved(loaded.record);
            } else {
                let _ = slot.forget_id_to_create_under();
            }
            Ok(false)
        }
    }
}

fn enter<T: SessionData>(shared: &Shared<T>, slot: &Arc<Slot<T>>, registration: Registration<T>) {
    slot.register(registration);
    shared.registry.enter(slot);
}

/// Notes what the response's cookie will hold.
#[cfg(feature = "private-cookie")]
fn keep_for_cookie<T: SessionData>(
    shared: &Shared<T>,
    slot: &Slot<T>,
    plan: Plan,
) -> Result<Saved, Error> {
    let record = match plan {
        Plan::Create(record) | Plan::Replace { record, .. } => record,
        Plan::Outdated => return Ok(Saved::Outdated),
        Plan::Nothing | Plan::Wait(..) => return Ok(Saved::Done),
    };
    shared.settings.cookie.sealed_fits(&record)?;
    meters::saved();
    if slot.registration().is_none() {
        meters::begun();
        slot.register(Registration::alone(SessionId::generate()?));
    }
    slot.saved(record);
    Ok(Saved::Done)
}
