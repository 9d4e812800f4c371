//! From a slot to the store: the only place that creates and replaces records.

pub(crate) mod lease;
pub(crate) mod shared;

use std::{
    borrow::Cow,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::time::Instant;
use tracing::{Instrument, Level};

use crate::{
    data::{
        SessionData,
        payload::{self, LARGEST_PAYLOAD, TOMBSTONE},
        sealing,
    },
    error::{Error, store::StoreError},
    identity::id::{SessionId, StoreKey},
    record::{
        LAST_VERSION, Record,
        head::{Head, WRITE_IDS_KEPT},
        next_version,
    },
    save::{lease::LeaseWait, shared::Shared},
    slot::{
        Slot, SlotState,
        plan::{Plan, SaveContext, SaveJob},
        registry::Registration,
    },
    store::{
        Created, Replaced,
        erased::ErasedStore,
        timed::{Timed, is_overdue},
    },
    sync::sleep,
};

/// The right to talk to the store about one session, for one purpose. Its holder may let go of it for
/// a moment. Counts for how long leases and other saves have been in the way.
pub(crate) struct StoreTurn<'a> {
    mutex: &'a tokio::sync::Mutex<()>,
    guard: Option<tokio::sync::MutexGuard<'a, ()>>,
    pub(crate) lease_wait: LeaseWait,
    lost: Lost,
}

impl<'a> StoreTurn<'a> {
    pub(crate) async fn for_slot<T: SessionData>(slot: &'a Slot<T>) -> Self {
        let guard = Some(slot.store_turn.lock().await);
        Self {
            mutex: &slot.store_turn,
            guard,
            lease_wait: LeaseWait::default(),
            lost: Lost::default(),
        }
    }

    /// Lets others go first for so long.
    pub(crate) async fn pause(&mut self, pause: Duration) {
        self.guard = None;
        sleep(pause).await;
        self.guard = Some(self.mutex.lock().await);
    }
}

/// Saves what has been released, if the store answers at once and there is nothing else to it: no
/// other save is under way, nobody was faster, nothing is encrypted. False if there is: then nothing
/// has happened, and [`save_with_retries`] is what does it. `seen` is what the system's clock has shown
/// a moment ago.
pub(crate) fn save_at_once<T: SessionData>(
    shared: &Shared<T>,
    slot: &Arc<Slot<T>>,
    job: SaveJob<'_>,
    seen: Option<SystemTime>,
) -> bool {
    let Some(store) = shared.storage.store_at_once() else { return false };
    if const { sealing::growth::<T>() } > 0 || tracing::enabled!(Level::DEBUG) {
        return false;
    }
    let Ok(_turn) = slot.store_turn.try_lock() else { return false };
    // No other process looks for it.
    let context = save_context(shared, shared.now_after(seen), shared.write_ids.next(), None);
    if let Some(registration) = slot.registration() {
        return slot.save_at_once(job, context, |record, based_on| {
            let answer =
                based_on.map(|based_on| store.replace(&registration.key, record, based_on).now());
            matches!(answer, Some(Some(Ok(Replaced::Done))))
        });
    }
    let Ok(id) = SessionId::generate() else { return false };
    let mut registration = Some(shared.registry.registration(id));
    let is_created = slot.save_at_once(job, context, |record, based_on| {
        let answer = match (&registration, based_on) {
            (Some(registration), None) => store.create_at_once(&registration.key, record, seen),
            _ => None,
        };
        let is_created = matches!(answer, Some(Ok(Created::Done)));
        if let Some(registration) = registration.take_if(|_| is_created) {
            slot.register(registration);
        }
        is_created
    });
    if is_created {
        shared.registry.enter(slot);
    }
    is_created
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
    turn: &mut StoreTurn<'_>,
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
    turn: &mut StoreTurn<'_>,
    job: SaveJob<'_>,
) -> Result<Saved, Error> {
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
                if create(shared, store, slot, record).await? {
                    return Ok(Saved::Done);
                }
            }
            // A login never happens in place, not even under an id that an earlier save has just
            // turned out to have created.
            Plan::Replace { record, .. } if job.login.is_some() => {
                slot.not_saved(&record);
                return Ok(Saved::Outdated);
            }
            Plan::Replace { record, based_on } => {
                let key = &slot.registration().ok_or_else(Error::ended)?.key;
                let sealed = sealed(shared, slot, &record, key)?;
                match replace(store, key, &sealed, based_on).await? {
                    Replaced::Done => {
                        tracing::debug!(version = record.version, "saved a session");
                        slot.saved(record);
                        return Ok(Saved::Done);
                    }
                    Replaced::Missing => {
                        slot.end();
                        continue;
                    }
                    Replaced::Changed => {}
                }
                reload_instead_of(shared, store, slot, Some(&record)).await?;
                turn.lost.pause(shared).await?;
            }
            Plan::Wait(lease, version) => {
                turn.wait_for(lease, version, shared).await?;
                reload(shared, store, slot).await?;
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
/// and between the two somebody else may have saved.
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
        let has_it =
            |(_, head): &(Record, Head)| write_id.is_some_and(|it| head.write_ids.contains(&it));
        if !found.as_ref().is_some_and(has_it) {
            slot.not_saved(refused);
        }
    }
    match found {
        Some((record, head)) => slot.rebase(record, head, shared.policy, known),
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
    slot.plan(job, save_context(shared, shared.now(), shared.write_ids.draw(), overdue))
}

fn save_context<T: SessionData>(
    shared: &Shared<T>,
    now: SystemTime,
    write_id: u32,
    overdue: Option<u64>,
) -> SaveContext<'_> {
    SaveContext {
        now,
        expiry: &shared.expiry,
        limit: shared.payload_limit,
        sealing: if shared.storage.is_cookie() { 0 } else { sealing::growth::<T>() },
        write_id,
        conflict: shared.policy.conflict,
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
        SlotState::Ended => Err(Error::ended()),
        _ if slot.generation() == generation => Ok(Saved::Done),
        _ => Ok(Saved::Outdated),
    }
}

/// Counts the compare-and-swaps that somebody else was faster with.
#[derive(Default)]
struct Lost {
    times: u32,
    since: Option<Instant>,
}

impl Lost {
    /// Steps back a little, the further the more often it happens: the first times not at all, and
    /// never for more than some 50 ms.
    ///
    /// An error once it has happened for as long as a guard would wait for its lock. Each time
    /// somebody else has made progress, so that this takes many others who save all the time.
    async fn pause<T: SessionData>(&mut self, shared: &Shared<T>) -> Result<(), Error> {
        const AT_ONCE: u32 = 2;
        const LONGEST: u32 = 6;
        self.times += 1;
        if self.times <= AT_ONCE {
            return Ok(());
        }
        let now = Instant::now();
        if now - *self.since.get_or_insert(now) >= shared.lock_timeout {
            return Err(Error::contended(self.times));
        }
        let most = Duration::from_millis(1 << (self.times - AT_ONCE).min(LONGEST));
        Box::pin(sleep(shared.write_ids.jitter(most))).await;
        Ok(())
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
        Err(error) if !is_overdue(&error) => match store.load(key).await {
            Ok(Some(found)) if is_ours(record, &found) => Ok(Replaced::Done),
            // Others were faster, and ours would be among their write ids.
            Ok(Some(found)) if is_overtaken(record, &found) => Ok(Replaced::Changed),
            _ => Err(error),
        },
        answer => answer,
    }
}

fn head_of(record: &Record) -> Option<Head> {
    payload::check(&record.payload).ok().and_then(Head::from_bytes)
}

/// The write id of the save that `record` was made for, if it has one.
fn write_id_of(record: &Record) -> Option<u32> {
    head_of(record).and_then(|head| head.write_ids.first().copied())
}

/// Whether `found` was saved by others instead of ours, and tells so.
fn is_overtaken(ours: &Record, found: &Record) -> bool {
    let behind = found.version.saturating_sub(ours.version);
    found.version >= ours.version && behind < WRITE_IDS_KEPT as u64 && write_id_of(ours).is_some()
}

/// Whether `found` is what we have tried to save, or was made of it.
fn is_ours(ours: &Record, found: &Record) -> bool {
    match write_id_of(ours) {
        Some(write_id) => head_of(found).is_some_and(|head| head.write_ids.contains(&write_id)),
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
    let registration = shared.registry.registration(id);
    let sealed = sealed(shared, slot, &record, &registration.key)?;
    match store.create(&registration.key, &sealed).await? {
        Created::Done => {
            tracing::debug!("created a session");
            enter(shared, slot, registration);
            slot.saved(record);
            Ok(true)
        }
        Created::Exists => {
            slot.not_saved(&record);
            if is_retry && let Some((record, _)) = load(shared, store, &registration.key).await? {
                enter(shared, slot, registration);
                slot.saved(record);
            } else {
                let _ = slot.forget_id_to_create_under();
            }
            Ok(false)
        }
    }
}

/// Takes back a login of a session that is new: if the store has it after all, nobody is to go on
/// with it.
pub(crate) async fn take_back_creation<T: SessionData>(shared: &Shared<T>, slot: &Slot<T>) {
    if slot.registration().is_none()
        && let Some(id) = slot.forget_id_to_create_under()
        && let Some(store) = shared.store()
    {
        drop_record(store, &id.store_key()).await;
    }
}

fn enter<T: SessionData>(shared: &Shared<T>, slot: &Arc<Slot<T>>, registration: Registration<T>) {
    slot.register(registration);
    shared.registry.enter(slot);
}

/// The record under `key` with its head, unless it is over or unreadable.
pub(crate) async fn load<T: SessionData>(
    shared: &Shared<T>,
    store: Timed<'_>,
    key: &StoreKey,
) -> Result<Option<(Record, Head)>, Error> {
    let found = store.load(key).await?.and_then(|record| usable(shared, record, shared.now()));
    Ok(found.map(|(record, head)| {
        (sealing::opened::<T>(record, key, &shared.keys, shared.plain_secrets), head)
    }))
}

/// A record with its head, unless it is over or unreadable.
pub(crate) fn usable<T: SessionData>(
    shared: &Shared<T>,
    record: Record,
    now: SystemTime,
) -> Option<(Record, Head)> {
    if record.payload.starts_with(TOMBSTONE) {
        return None;
    }
    let is_bearable = record.payload.len() <= LARGEST_PAYLOAD;
    let head = is_bearable
        .then(|| payload::check(&record.payload).ok())
        .flatten()
        .and_then(Head::from_bytes);
    let Some(head) = head else {
        tracing::warn!("a stored session is unreadable; left alone, and a new one begun");
        return None;
    };
    let is_over = shared.expiry.is_over(&record, head.lifetime, now);
    (!is_over).then_some((record, head))
}

/// Fetches the record for a request that opens the session, and reconciles the slot with it. A
/// session that is kept in its cookie is not looked up.
///
/// The caller does not hold `slot.store_turn`: there may be a save to wait for.
pub(crate) async fn refresh<T: SessionData>(
    shared: &Shared<T>,
    slot: &Slot<T>,
    key: &StoreKey,
) -> Result<SlotState, Error> {
    if let Some(state) = fetch(shared, slot, key, false).await? {
        return Ok(state);
    }
    let _turn = slot.store_turn.lock().await;
    refresh_locked(shared, slot, key).await
}

/// [`refresh`] for a caller that holds `slot.store_turn`.
pub(crate) async fn refresh_locked<T: SessionData>(
    shared: &Shared<T>,
    slot: &Slot<T>,
    key: &StoreKey,
) -> Result<SlotState, Error> {
    let state = fetch(shared, slot, key, true).await?;
    Ok(state.unwrap_or_else(|| slot.state()))
}

/// The slot's state after its record was fetched; nothing if the record has to wait for a save.
async fn fetch<T: SessionData>(
    shared: &Shared<T>,
    slot: &Slot<T>,
    key: &StoreKey,
    is_answered: bool,
) -> Result<Option<SlotState>, Error> {
    let Some(store) = shared.store() else { return Ok(Some(slot.state())) };
    let found = store.load(key).await?;
    Ok(reconcile(shared, slot, key, found, shared.now(), is_answered))
}

/// The same in a store that answers at once; nothing also if it does not. Beside it what the system's
/// clock has shown meanwhile.
pub(crate) fn fetch_at_once<T: SessionData>(
    shared: &Shared<T>,
    store: &dyn ErasedStore,
    slot: &Slot<T>,
    key: &StoreKey,
) -> Option<(SlotState, Option<SystemTime>)> {
    let mut seen = None;
    // Mostly it is the record that the slot knows.
    let is_unchanged = slot.is_unchanged(|known, lifetime| {
        let Some(unchanged) = store.has_still(key, known) else { return false };
        seen = unchanged.seen;
        // Touched by another process, or not touched by this one after all.
        known.expires_at = unchanged.expires_at;
        !shared.expiry.is_over(known, lifetime, shared.now_after(seen))
    });
    if is_unchanged {
        return Some((SlotState::Stored, seen));
    }
    let (found, seen) = store.load_at_once(key)?;
    let state = reconcile(shared, slot, key, found, shared.now_after(seen), false)?;
    Some((state, seen))
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
        slot.end_as(false);
        return Some(SlotState::Ended);
    };
    // Mostly it is the record that the slot knows: nothing is looked at twice.
    let is_over = |record: &_, lifetime| shared.expiry.is_over(record, lifetime, now);
    let record = match slot.accept_if_unchanged(record, is_over) {
        Ok(()) => return Some(SlotState::Stored),
        Err(record) => record,
    };
    let has_moved = has_just_moved(&record, now);
    match usable(shared, record, now) {
        Some((record, head)) => {
            let record = sealing::opened::<T>(record, key, &shared.keys, shared.plain_secrets);
            slot.reconcile(record, head, shared.policy, is_answered).then(|| slot.state())
        }
        None => {
            slot.end_as(has_moved);
            Some(SlotState::Ended)
        }
    }
}

/// How long a tombstone stays: so long a client may send its old cookie, because the response with
/// the new one has not reached the client, or the request was sent just before.
const GRACE: Duration = Duration::from_secs(10);

/// The record that stays under the old id of a session that goes on under another id.
fn tombstone(version: u64, now: SystemTime, expires_at: SystemTime) -> Result<Record, Error> {
    // Random, so that this renewal can tell its tombstone from that of another one.
    let payload = [TOMBSTONE, SessionId::generate()?.as_bytes()].concat().into();
    Ok(Record { version, created_at: now, expires_at, user: None, payload })
}

/// Whether the record is the tombstone of a session that got another id a moment ago. A `touch` may
/// have made the tombstone last longer.
fn has_just_moved(record: &Record, now: SystemTime) -> bool {
    // By the clock of another process it may be in the future.
    let age = now.duration_since(record.created_at).unwrap_or_else(|ahead| ahead.duration());
    record.payload.starts_with(TOMBSTONE) && age < GRACE
}

/// Stores the session, with all that has been released, under a new id, and ends the old one.
///
/// The extra patch of the job must mean the same whatever the fields are.
///
/// The caller holds the slot's lock for writing, and the slot has a record. After an error the
/// session is still good under its old id, unless it has ended.
pub(crate) async fn renew<T: SessionData>(
    shared: &Shared<T>,
    slot: &Slot<T>,
    turn: &mut StoreTurn<'_>,
    job: SaveJob<'_>,
) -> Result<(Record, Registration<T>), Error> {
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
        let extra_patch = job.extra_patch.map(|(extra_patch, _)| (extra_patch, slot.generation()));
        let record = match plan(shared, slot, SaveJob { extra_patch, ..job }, overdue)? {
            Plan::Replace { record, .. } => {
                // It goes to another id: what the store has under this one is not in doubt.
                slot.not_saved(&record);
                record
            }
            // Somebody has loaded a newer record since we looked; it may have a lease.
            Plan::Outdated | Plan::Wait(..) => continue,
            _ => slot.record_without_lease(),
        };
        let lifetime = job.login.map_or_else(|| slot.lifetime(), |login| login.lifetime);
        let expires_at = shared.expiry.expires_at(lifetime, record.created_at, now);
        let record = Record { version, expires_at, ..record };
        let registration = shared.registry.registration(SessionId::generate()?);
        let Some(store) = shared.store() else {
            #[cfg(feature = "private-cookie")]
            shared.cookie.sealed_fits(&record)?;
            return Ok((record, registration));
        };
        // Anew for the new id.
        let sealed = sealed(shared, slot, &record, &registration.key)?;
        if store.create(&registration.key, &sealed).await? == Created::Exists {
            continue;
        }
        match replace_with_tombstone(shared, store, old, &record, based_on).await {
            Ok(Replaced::Done) => return Ok((record, registration)),
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
    let first = tombstone(next_version(based_on)?, now, successor.expires_at)?;
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
        // Somebody has ended the session in between.
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
            Some(found) if found.payload.starts_with(TOMBSTONE) => true,
            Some(found) => {
                let version = found.version.saturating_add(1).min(LAST_VERSION);
                let tombstone = tombstone(version, now, now + GRACE)?;
                store.replace(key, &tombstone, found.version).await? == Replaced::Done
            }
            // No save is ever based on it.
            None => {
                let tombstone = tombstone(LAST_VERSION, now, now + GRACE)?;
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

/// Takes back a record that nobody got to know. If the store fails once more it expires by itself.
pub(crate) async fn drop_record(store: Timed<'_>, key: &StoreKey) {
    if store.delete(key).await.is_err() {
        tracing::warn!("the record of a renewal or login that failed stays until it expires");
    }
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
    shared.cookie.sealed_fits(&record)?;
    if slot.registration().is_none() {
        slot.register(shared.registry.registration(SessionId::generate()?));
    }
    slot.saved(record);
    Ok(Saved::Done)
}
