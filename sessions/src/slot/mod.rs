//! The live copy of one session, shared by every request that uses the session now.
//!
//! ```text
//! record     what the store has, as far as we know
//! pending    what released guards have changed since, as bytes
//! snapshot   the fields decoded from the two, for the next guard; a writer checks it out while it writes
//! ```
//!
//! A guard's writes become bytes when the guard is released. A save needs the bytes alone: it never
//! waits for a guard, and it saves all that has been released and nothing that has not.
//!
//! The mutex of the contents is held for a moment at a time, never across an await, and never while code of
//! a user's runs (`Serialize`, `Deserialize`, `Default`, `Drop`). A store that answers at once is asked
//! under it: there is one, ours, and it knows nothing of slots.

use std::{
    sync::{Arc, OnceLock, PoisonError},
    time::SystemTime,
};

use self::{changes::Change, lease::LocalLease};
use crate::error::refusal::Refusal;
use crate::{
    data::{
        FieldInfo, SessionData,
        patch::{Patch, RequestId},
        payload::{self, PayloadReader},
        tracked::Tracked,
    },
    error::Error,
    identity::id::SessionId,
    record::{Record, expiry::Lifetime, head::Head},
    slot::{lock::Lock, registry::Registration},
    sync::{Mutex, MutexGuard},
};

pub(crate) mod changes;
pub(crate) mod lease;
pub(crate) mod lock;
pub(crate) mod plan;
pub(crate) mod rebase;
pub(crate) mod registry;

use self::changes::Writing;

pub(crate) struct Slot<T: SessionData> {
    /// Held by guards, over the snapshot.
    pub(crate) lock: Lock,
    /// Held while a request talks to the store about this session, so that no two saves of one slot
    /// run at the same time.
    pub(crate) store_turn: tokio::sync::Mutex<()>,
    /// The session's id and its entry in the registry; unset until the session has been stored for
    /// the first time.
    registration: OnceLock<Registration<T>>,
    contents: Mutex<Contents<T>>,
}

struct Contents<T: SessionData> {
    state: SlotState,
    /// It has ended because it goes on under another id.
    has_moved: bool,
    record: Record,
    /// As the record has it.
    head: Head,
    /// The lifetime that was asked for last; the record's is in `head`.
    lifetime: Lifetime,
    /// The request that asked for `lifetime`.
    lifetime_writer: Option<RequestId>,
    pending: Patch,
    /// Changes that cannot be stored. Their writer's saves fail until the fields are set to
    /// something else.
    refused: Vec<Refused>,
    /// Writes that are under way, or whose answer was lost: the store may have one of their records
    /// instead of `record`. Until that is known, nothing counts as stored.
    unconfirmed: Vec<UnconfirmedWrite>,
    snapshot: Option<Arc<T::Fields>>,
    /// The id of a `create` that may or may not have succeeded.
    creating: Option<SessionId>,
    /// The lease that a guard in this process wants, has or gives back.
    local_lease: Option<Box<LocalLease>>,
    /// How often in a row a guard of this process has taken the lease.
    local_streak: u32,
    /// Counts the changes to `record` and `pending` that a snapshot which is checked out does not show.
    generation: u64,
    /// Counts all changes to `record` and `pending`.
    revision: u64,
}

/// A change that is not in `pending`, because it cannot be stored.
struct Refused {
    field: usize,
    refusal: Refusal,
    writer: RequestId,
}

/// A write that the store may have carried out.
struct UnconfirmedWrite {
    /// Stands in the record, if `has_write_id`.
    write_id: u32,
    has_write_id: bool,
    record: Record,
    head: Head,
    /// It holds all that was pending at this revision.
    holds_all_of: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SlotState {
    /// The record is still to be loaded. An idle slot is in this state too, with the record that it
    /// had before.
    Loading,
    /// New: the session has no record yet, and no id.
    Unsaved,
    /// The response has left without a cookie of the session: what is written now cannot be saved.
    Unsendable,
    /// The store has a record.
    Stored,
    /// The session is over. What is written now is refused.
    Ended,
}

/// What a writer's copy of the fields was made of.
pub(crate) struct Checkout {
    generation: u64,
    record: Record,
    pending: Patch,
}

/// What has been tried on a copy of the fields.
pub(crate) struct TrialUpdate<T: SessionData, R, E> {
    pub(crate) outcome: Result<R, E>,
    pub(crate) snapshot: (Arc<T::Fields>, u64),
    pub(crate) patch: Patch,
}

impl<T: SessionData> Slot<T> {
    /// The slot of a session that is not stored yet.
    pub(crate) fn unsaved(now: SystemTime) -> Self {
        Self::new(SlotState::Unsaved, now, OnceLock::new())
    }

    /// The slot of a stored session whose record is still to be loaded.
    pub(crate) fn loading(registration: Registration<T>) -> Self {
        Self::new(SlotState::Loading, SystemTime::UNIX_EPOCH, OnceLock::from(registration))
    }

    fn new(state: SlotState, now: SystemTime, registration: OnceLock<Registration<T>>) -> Self {
        // Not `Arc::default`: all threads would count in the one place that has the default.
        let payload = [][..].into();
        let record = Record { version: 0, created_at: now, expires_at: now, user: None, payload };
        Self {
            lock: Lock::new(),
            store_turn: tokio::sync::Mutex::new(()),
            registration,
            contents: Mutex::new(Contents {
                state,
                has_moved: false,
                record,
                head: Head::default(),
                lifetime: Lifetime::new(),
                lifetime_writer: None,
                pending: Patch::default(),
                refused: Vec::new(),
                unconfirmed: Vec::new(),
                snapshot: None,
                creating: None,
                local_lease: None,
                local_streak: 0,
                generation: 0,
                revision: 0,
            }),
        }
    }

    pub(crate) fn registration(&self) -> Option<&Registration<T>> {
        self.registration.get()
    }

    /// Gives a session that was just stored its id and its place in the registry.
    pub(crate) fn register(&self, registration: Registration<T>) {
        // A session is stored for the first time once, by a save that holds `store_turn`.
        let _ = self.registration.set(registration);
    }

    /// No statement in here panics between two changes that belong together: poisoned contents
    /// are good ones.
    fn contents(&self) -> MutexGuard<'_, Contents<T>> {
        self.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn state(&self) -> SlotState {
        self.contents().state
    }

    pub(crate) fn has_moved(&self) -> bool {
        self.contents().has_moved
    }

    /// State, lifetime, record and its head, in one look. `at` runs under the lock of the contents.
    pub(crate) fn inspect<R>(
        &self,
        at: impl FnOnce(SlotState, Lifetime, &Record, &Head) -> R,
    ) -> R {
        let contents = self.contents();
        at(contents.state, contents.lifetime, &contents.record, &contents.head)
    }

    /// The record as we know it, without its payload's changes since.
    pub(crate) fn record(&self) -> Record {
        self.contents().record.clone()
    }

    pub(crate) fn lifetime(&self) -> Lifetime {
        self.contents().lifetime
    }

    /// Gives back the one before.
    pub(crate) fn set_lifetime(&self, lifetime: Lifetime, writer: RequestId) -> Lifetime {
        let mut contents = self.contents();
        contents.lifetime_writer = Some(writer);
        std::mem::replace(&mut contents.lifetime, lifetime)
    }

    /// Whether the session's record says when it was last seen.
    pub(crate) fn has_device(&self) -> bool {
        self.contents().head.device.is_some()
    }

    pub(crate) fn is_dirty(&self) -> bool {
        self.contents().is_dirty()
    }

    /// Changes with what the next guard will show, unless a guard has changed it.
    pub(crate) fn generation(&self) -> u64 {
        self.contents().generation
    }

    /// Whether a save would have something to do, or to find out.
    pub(crate) fn has_unsaved(&self) -> bool {
        let contents = self.contents();
        contents.is_dirty() || contents.outcome_unknown()
    }

    /// The next guard decodes the fields anew, whatever happens to them. The caller holds the lock
    /// for writing; the generation is what its changes are made of.
    pub(crate) fn forget_snapshot(&self) -> u64 {
        let mut contents = self.contents();
        let _outdated = contents.outdate_snapshot();
        let generation = contents.generation;
        drop(contents);
        generation
    }

    // ---- guards ----

    /// The fields for a reader, who holds the lock. `now` is the layer's `field_time`, here as
    /// everywhere.
    pub(crate) fn snapshot(&self, now: u64) -> Arc<T::Fields> {
        let (generation, stale, record, pending) = {
            let mut contents = self.contents();
            let stale = match &contents.snapshot {
                Some(snapshot) if T::__tracked(snapshot).is_stale() => contents.snapshot.take(),
                Some(snapshot) if is_valid::<T>(snapshot, now) => return snapshot.clone(),
                _ => None,
            };
            (contents.generation, stale, contents.record.clone(), contents.pending.clone())
        };
        let snapshot = loaded::<T>(stale, &record, &pending, now);
        let _outdated = {
            let mut contents = self.contents();
            // Another reader may have been as fast; each then has its own.
            let is_news =
                !contents.snapshot.as_ref().is_some_and(|snapshot| is_valid::<T>(snapshot, now));
            match contents.generation == generation && is_news {
                true => contents.snapshot.replace(snapshot.clone()),
                false => None,
            }
        };
        snapshot
    }

    /// The fields for a writer, who holds the lock: nobody else has this copy.
    pub(crate) fn check_out(&self, now: u64) -> (Arc<T::Fields>, Checkout) {
        let (snapshot, checkout) = {
            let mut contents = self.contents();
            let snapshot = contents.snapshot.take();
            let (generation, pending) = (contents.generation, contents.pending.clone());
            (snapshot, Checkout { generation, record: contents.record.clone(), pending })
        };
        // Readers are gone while a writer has the lock, and their copies with them.
        let mut snapshot = loaded::<T>(snapshot, &checkout.record, &checkout.pending, now);
        if let Some(fields) = Arc::get_mut(&mut snapshot) {
            T::__tracked_mut(fields).check_out_to(self.address());
        }
        (snapshot, checkout)
    }

    /// Changes a copy of the fields, and keeps nothing of that: neither for the next guard nor for
    /// the next save. The caller holds the lock for writing.
    pub(crate) fn try_change<R, E>(
        &self,
        writing: Writing<'_>,
        change: &mut impl FnMut(&mut T::Fields) -> Result<R, E>,
    ) -> Result<TrialUpdate<T, R, E>, Error> {
        let (mut snapshot, checkout) = self.check_out(writing.now);
        let fields = Arc::get_mut(&mut snapshot).expect("a writer has the only copy of its fields");
        let outcome = change(fields);
        let mut patch = Patch::default();
        if outcome.is_ok() {
            let tracked = T::__tracked_mut(fields);
            for (field, change) in writing.changes(tracked, self.address(), &checkout) {
                match change {
                    Change::Nothing | Change::None(_) => {}
                    Change::To(body) => patch.set(field, body, writing.writer),
                    Change::Refused(refusal) => {
                        return Err(Error::refused(T::FIELDS[field].key, refusal));
                    }
                }
            }
        }
        Ok(TrialUpdate { outcome, snapshot: (snapshot, checkout.generation), patch })
    }

    /// The changes of a copy are stored: the next guard can have it, unless more has changed, or it
    /// has changed places with another session's.
    pub(crate) fn keep_snapshot(&self, (mut snapshot, generation): (Arc<T::Fields>, u64)) {
        let mut contents = self.contents();
        if contents.generation == generation
            && let Some(fields) = Arc::get_mut(&mut snapshot)
            && T::__tracked(fields).is_checked_out_to(self.address())
        {
            T::__tracked_mut(fields).mark_clean_except(contents.unsaved());
            contents.snapshot = Some(snapshot);
        }
    }

    fn address(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    /// Takes a writer's fields back and makes what it has changed into bytes. Says whether the
    /// writer now answers for something that is not saved.
    ///
    /// A copy that is not taken back, because the writer panicked, is forgotten: the next guard
    /// decodes another from what was there before.
    pub(crate) fn check_in(
        &self,
        snapshot: &mut Arc<T::Fields>,
        checkout: &Checkout,
        writing: Writing<'_>,
    ) -> bool {
        let Writing { policy, writer, .. } = writing;
        let Some(fields) = Arc::get_mut(snapshot) else { return false };
        let tracked = T::__tracked_mut(fields);
        let is_ours = tracked.is_checked_out_to(self.address());
        let changes = writing.changes(tracked, self.address(), checkout);
        if changes.is_empty() {
            let mut contents = self.contents();
            if contents.generation == checkout.generation && is_ours {
                // What earlier guards changed may have been saved meanwhile.
                tracked.mark_clean_except(contents.unsaved());
                contents.snapshot = Some(snapshot.clone());
            }
            return false;
        }

        // What the copy was made of may have changed since. Merging runs code of a user's, so that
        // it happens outside of the lock, and again if something has changed meanwhile.
        let (mut known, mut rebased) = (checkout.generation, None);
        let mut contents = loop {
            let contents = self.contents();
            if contents.generation == known {
                break contents;
            }
            known = contents.generation;
            let (record, pending) = (contents.record.clone(), contents.pending.clone());
            drop(contents);
            rebased = Some(rebase::onto::<T>(&changes, checkout, &record, &pending, policy));
        };
        let changes = rebased.unwrap_or(changes);
        contents.revision += 1;
        let is_fenced_off = contents.is_fenced_off(writer);
        let mut answers = false;
        contents.pending.reserve(changes.len());
        for (field, change) in changes {
            contents.refused.retain(|it| (it.field, it.writer) != (field, writer));
            let change = match change {
                Change::To(_) if is_fenced_off => Change::Refused(Refusal::LeaseLost),
                change => change,
            };
            answers |= match change {
                Change::Nothing => false,
                Change::To(body) => {
                    contents.pending.set(field, body, writer);
                    true
                }
                // Somebody else's unsaved write of the same value is now this one's too; and if the
                // store may have something else by now, to leave a field as it was is a change.
                Change::None(body) => {
                    let is_unsaved = contents.pending.contains(field) || contents.outcome_unknown();
                    if is_unsaved {
                        contents.pending.set(field, body, writer);
                    }
                    is_unsaved
                }
                Change::Refused(refusal) => {
                    contents.refused.push(Refused { field, refusal, writer });
                    true
                }
            };
        }
        // What is stored may have changed since the copy was checked out; and a field that an earlier
        // guard changed may have been changed back.
        let is_same_record = Arc::ptr_eq(&contents.record.payload, &checkout.record.payload);
        if answers && !(is_same_record && checkout.pending.is_empty()) {
            contents.forget_unchanged();
        }
        if contents.generation == checkout.generation && is_ours && !is_fenced_off {
            tracked.mark_clean_except(contents.unsaved());
            contents.snapshot = Some(snapshot.clone());
        }
        answers
    }
}

impl<T: SessionData> Contents<T> {
    fn stored(&self) -> PayloadReader<'_> {
        reader::<T>(&self.record)
    }

    /// A lifetime alone makes no session, but it changes one.
    fn has_own_lifetime(&self) -> bool {
        self.record.version > 0 && self.lifetime != self.head.lifetime
    }

    fn is_dirty(&self) -> bool {
        !self.pending.is_empty() || !self.refused.is_empty() || self.has_own_lifetime()
    }

    fn outcome_unknown(&self) -> bool {
        !self.unconfirmed.is_empty()
    }

    /// The fields that are still to be saved, some of them perhaps twice.
    fn unsaved(&self) -> impl Iterator<Item = usize> {
        self.pending.fields().chain(self.refused.iter().map(|refused| refused.field))
    }

    fn forget_unchanged(&mut self) {
        if !self.outcome_unknown() && !self.pending.is_empty() {
            self.pending.forget_unchanged(&reader::<T>(&self.record));
        }
    }

    /// The snapshot is not what the next guard should see, and no copy that is checked out may come
    /// back.
    #[must_use = "the old snapshot is dropped when the contents are unlocked: its fields may have a `Drop`"]
    fn outdate_snapshot(&mut self) -> Option<Arc<T::Fields>> {
        self.generation += 1;
        self.snapshot.take()
    }

    /// Makes the snapshot of an idle slot equal to what decoding the record would give: fields that a
    /// writer has changed are loaded again before the next guard sees them, or all fields where that is
    /// not enough.
    #[must_use = "the old snapshot is dropped when the contents are unlocked: its fields may have a `Drop`"]
    fn prepare_idle_snapshot(&mut self) -> Option<Arc<T::Fields>> {
        let snapshot = self.snapshot.as_mut()?;
        if T::__LOADS_ALIKE && !T::__tracked(snapshot).was_checked_out() {
            return None;
        }
        if T::__LOADS_ALIKE
            && !const { FieldInfo::any_has_ttl(T::FIELDS) }
            && let Some(fields) = Arc::get_mut(snapshot)
        {
            T::__tracked_mut(fields).mark_stale();
            return None;
        }
        self.outdate_snapshot()
    }

    /// Clears the dirty bits of what has been saved. A snapshot that is checked out finds out by itself when
    /// it comes back: what it has is what is stored.
    #[must_use = "the old snapshot is dropped when the contents are unlocked: its fields may have a `Drop`"]
    fn mark_snapshot_saved(&mut self) -> Option<Arc<T::Fields>> {
        let mut snapshot = self.snapshot.take()?;
        // If a reader looks at it, the next guard gets a new one.
        let Some(fields) = Arc::get_mut(&mut snapshot) else { return Some(snapshot) };
        T::__tracked_mut(fields).mark_clean_except(self.unsaved());
        self.snapshot = Some(snapshot);
        None
    }
}

/// Whether no field of a snapshot has ended since it was made. Without a field that can there is nothing
/// to look at.
fn is_valid<T: SessionData>(snapshot: &T::Fields, now: u64) -> bool {
    !const { FieldInfo::any_has_ttl(T::FIELDS) } || T::__tracked(snapshot).is_valid(now)
}

/// A snapshot of these that nobody else has: `known`, if it is one or can be made into one.
fn loaded<T: SessionData>(
    known: Option<Arc<T::Fields>>,
    record: &Record,
    pending: &Patch,
    now: u64,
) -> Arc<T::Fields> {
    if let Some(mut snapshot) = known.filter(|snapshot| is_valid::<T>(snapshot, now))
        && let Some(fields) = Arc::get_mut(&mut snapshot)
    {
        let tracked = T::__tracked_mut(fields);
        if !tracked.is_stale() {
            return snapshot;
        }
        // The slot was idle, and nothing is pending.
        if pending.is_empty() {
            tracked.reload_changed(&record.payload);
            return snapshot;
        }
    }
    Arc::new(decode::<T>(record, pending, now))
}

fn decode<T: SessionData>(record: &Record, pending: &Patch, now: u64) -> T::Fields {
    let mut reader = reader::<T>(record);
    // Usually nothing is pending: then no bit is set either.
    reader.apply(pending);
    if const { FieldInfo::any_has_ttl(T::FIELDS) } {
        reader.at_time(now);
    }
    let mut tracked = Tracked::clean(T::__load(&reader));
    if const { FieldInfo::any_has_ttl(T::FIELDS) } {
        tracked.expire_at(reader.next_end());
    }
    if !pending.is_empty() {
        tracked.mark_clean_except(pending.fields());
    }
    T::__wrap(tracked)
}

fn head_in(record: &Record) -> Head {
    payload::check(&record.payload).ok().and_then(Head::from_bytes).unwrap_or_default()
}

fn reader<T: SessionData>(record: &Record) -> PayloadReader<'_> {
    let mut reader = PayloadReader::empty(T::FIELDS);
    // A payload was checked when it was loaded; no other gets here.
    let _ = reader.read(&record.payload);
    reader
}
