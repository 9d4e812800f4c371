//! The live copy of one session, shared by every request that uses the session now.
//!
//! ```text
//! known      the record that the store has, as far as we know
//! pending    what released guards have changed since, as bytes
//! snapshot   the fields decoded from the two, for the next guard; a writer checks it out while it writes
//! ```
//!
//! `life` has the states, `snapshot` what guards see and change, `plan` what a save stores, `reconcile` what a
//! slot makes of the store's answers, `rebase` what becomes of changes when the record is another one by then.
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

use self::lease::LocalLease;
use crate::{
    data::{
        SessionData,
        patch::{Patch, RequestId},
        payload::PayloadReader,
    },
    error::refusal::Refusal,
    identity::id::SessionId,
    record::{
        Record,
        expiry::Lifetime,
        head::{Head, Loaded},
    },
    slot::{lock::Lock, registry::Registration},
    sync::{Mutex, MutexGuard},
};

pub(crate) mod changes;
pub(crate) mod ending;
mod lease;
mod life;
pub(crate) mod lock;
pub(crate) mod plan;
mod rebase;
mod reconcile;
pub(crate) mod registry;
pub(crate) mod snapshot;
#[cfg(test)]
#[cfg(all(feature = "derive", feature = "bincode"))]
mod tests;
pub(crate) mod token;
pub(crate) mod turn;

use self::{
    ending::{EndWaiters, SessionEnd},
    snapshot::Snapshot,
    turn::Turn,
};

pub(crate) struct Slot<T: SessionData> {
    /// Held by guards, over the snapshot.
    pub(crate) lock: Lock,
    /// Held while a request talks to the store about this session, so that no two saves of one slot
    /// run at the same time.
    turn: Turn,
    /// The session's id and its entry in the registry, of a slot that was made for a stored session.
    registration: Option<Registration<T>>,
    /// The same of one that was not; unset until the session has been stored for the first time.
    later: OnceLock<Registration<T>>,
    contents: Mutex<Contents<T>>,
    /// Unset until a task waits for the session's end.
    end_waiters: OnceLock<Box<EndWaiters>>,
}

struct Contents<T: SessionData> {
    state: SlotState,
    /// What the store has, as far as we know.
    known: Loaded,
    /// The lifetime that was asked for last; if none was that is not stored, that in the record's head.
    lifetime: Lifetime,
    /// The lifetimes that requests have asked for and that are not stored, the last one on top, so that
    /// an earlier one counts again if a request discards its own.
    lifetimes: Vec<(RequestId, Lifetime)>,
    pending: Patch,
    /// Changes that cannot be stored. Their writer's saves fail until the fields are set to
    /// something else.
    refused: Vec<Refused>,
    /// Writes that are under way, or whose answer was lost: the store may have one of their records
    /// instead of `known`. Until that is known, nothing counts as stored.
    unconfirmed: Vec<UnconfirmedWrite>,
    snapshot: Option<Snapshot<T::Fields>>,
    /// The id of a `create` that may or may not have succeeded.
    creating: Option<SessionId>,
    /// The lease that a guard in this process wants, has or gives back.
    local_lease: Option<Box<LocalLease>>,
    /// How often in a row a guard of this process has taken the lease.
    local_streak: u32,
    /// Counts the changes to `known` and `pending` that a snapshot which is checked out does not show.
    generation: u64,
    /// Counts all changes to `known` and `pending`.
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
    written: Loaded,
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
    /// The session is over, or goes on under another id. What is written now is refused.
    Ended(SessionEnd),
}

impl SlotState {
    /// The session has ended, and goes on under another id.
    pub(crate) fn has_moved(self) -> bool {
        self == Self::Ended(SessionEnd::Renewed)
    }
}

/// The payload before there is one: each thread's own, so that threads do not count in one place, as
/// with `Arc::default`.
fn no_payload() -> Arc<[u8]> {
    thread_local! {
        static NONE: Arc<[u8]> = [][..].into();
    }
    NONE.try_with(Clone::clone).unwrap_or_default()
}

impl<T: SessionData> Slot<T> {
    /// The slot of a session that is not stored yet.
    pub(crate) fn unsaved(now: SystemTime) -> Self {
        Self::new(SlotState::Unsaved, now, None)
    }

    /// The slot of a stored session whose record is still to be loaded.
    pub(crate) fn loading(registration: Registration<T>) -> Self {
        Self::new(SlotState::Loading, SystemTime::UNIX_EPOCH, Some(registration))
    }

    fn new(state: SlotState, now: SystemTime, registration: Option<Registration<T>>) -> Self {
        let payload = no_payload();
        let record = Record { version: 0, created_at: now, expires_at: now, user: None, payload };
        Self {
            lock: Lock::new(),
            turn: Turn::new(),
            registration,
            later: OnceLock::new(),
            contents: Mutex::new(Contents {
                state,
                known: Loaded { record, head: Head::default() },
                lifetime: Lifetime::new(),
                lifetimes: Vec::new(),
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
            end_waiters: OnceLock::new(),
        }
    }

    pub(crate) fn registration(&self) -> Option<&Registration<T>> {
        self.registration.as_ref().or_else(|| self.later.get())
    }

    /// Gives a session that was just stored its id and its place in the registry.
    pub(crate) fn register(&self, registration: Registration<T>) {
        // A session is stored for the first time once, by a save that has the turn at the store.
        let _ = self.later.set(registration);
        self.tell_stored();
    }

    /// No statement in here panics between two changes that belong together: poisoned contents
    /// are good ones.
    fn contents(&self) -> MutexGuard<'_, Contents<T>> {
        self.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn state(&self) -> SlotState {
        self.contents().state
    }

    /// `look` runs under the lock of the contents.
    #[inline]
    pub(crate) fn inspect<R>(&self, look: impl FnOnce(SlotView<'_>) -> R) -> R {
        look(self.contents().view())
    }

    /// The record as we know it, without its payload's changes since.
    pub(crate) fn record(&self) -> Record {
        self.contents().known.record.clone()
    }

    pub(crate) fn lifetime(&self) -> Lifetime {
        self.contents().lifetime
    }

    /// Gives back the one before.
    pub(crate) fn set_lifetime(&self, lifetime: Lifetime, writer: RequestId) -> Lifetime {
        let mut contents = self.contents();
        contents.lifetimes.retain(|(asked_by, _)| *asked_by != writer);
        let before = std::mem::replace(&mut contents.lifetime, lifetime);
        // If the store may have another one by now, to leave it as it was is a change.
        if !contents.lifetimes.is_empty()
            || lifetime != contents.known.head.lifetime
            || contents.outcome_unknown()
        {
            contents.lifetimes.push((writer, lifetime));
        }
        before
    }

    /// Whether the session's record says when it was last seen.
    pub(crate) fn has_device(&self) -> bool {
        self.contents().known.head.device.is_some()
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
}

/// What a slot shows in one look.
#[derive(Clone, Copy)]
pub(crate) struct SlotView<'a> {
    pub(crate) state: SlotState,
    pub(crate) lifetime: Lifetime,
    pub(crate) record: &'a Record,
    pub(crate) head: &'a Head,
}

impl Loaded {
    /// What a slot shows that has just got this.
    pub(crate) fn view(&self) -> SlotView<'_> {
        let Self { record, head } = self;
        SlotView { state: SlotState::Stored, lifetime: head.lifetime, record, head }
    }
}

impl<T: SessionData> Contents<T> {
    fn view(&self) -> SlotView<'_> {
        let Loaded { record, head } = &self.known;
        SlotView { state: self.state, lifetime: self.lifetime, record, head }
    }

    fn stored(&self) -> PayloadReader<'_> {
        reader::<T>(&self.known.record)
    }

    /// A lifetime alone makes no session, but it changes one.
    fn has_own_lifetime(&self) -> bool {
        self.known.record.version > 0 && self.lifetime != self.known.head.lifetime
    }

    /// The store has this record, as far as we know. Its lifetime counts, unless a request has asked for another.
    fn note_known(&mut self, loaded: Loaded) {
        self.known = loaded;
        if self.lifetimes.is_empty() {
            self.lifetime = self.known.head.lifetime;
        } else if self.lifetime == self.known.head.lifetime {
            self.lifetimes.clear();
        }
    }

    /// What requests have asked for is what is stored: one has set it back. It says nothing of a record that comes later.
    fn forget_settled_lifetimes(&mut self) {
        let is_stored = self.known.record.version > 0 && !self.has_own_lifetime();
        if is_stored && !self.outcome_unknown() {
            self.lifetimes.clear();
        }
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
            self.pending.forget_unchanged(&reader::<T>(&self.known.record));
        }
    }
}

fn reader<T: SessionData>(record: &Record) -> PayloadReader<'_> {
    let mut reader = PayloadReader::empty(T::FIELDS);
    // A payload was checked when it was loaded; no other gets here.
    let _ = reader.read(&record.payload);
    reader
}
