//! A slot's half towards the store: what has to be saved, and what the store turned out to have.

use std::{
    ops::ControlFlow,
    sync::{Arc, OnceLock},
    time::SystemTime,
};

use crate::{
    data::merge::Policy,
    error::refusal::Refusal,
    slot::{
        Contents, Refused, Slot, SlotState, UnconfirmedWrite, head_in, reader,
        rebase::{self, Base, Certainty},
    },
};
use crate::{
    data::{
        FieldInfo, SessionData,
        merge::Conflict,
        patch::{Patch, RequestId},
        payload, sealing,
    },
    error::Error,
    identity::id::SessionId,
    record::{
        Record,
        device::Device,
        expiry::{Expiry, Lifetime},
        head::{Head, Lease, WRITE_IDS_KEPT},
        next_version,
    },
    slot::registry::Registration,
};

#[cfg(test)]
#[cfg(all(feature = "derive", feature = "bincode"))]
mod tests;

/// How many writes whose answer was lost are remembered.
const UNCONFIRMED_KEPT: usize = 16;

/// In bytes. The slot of a larger record does not go idle: to load the record again costs less than
/// the memory.
const LARGEST_IDLE: usize = 2048;

/// What a save is asked to do.
#[derive(Clone, Copy)]
pub(crate) struct SaveJob<'a> {
    /// The request that is told of changes that cannot be stored.
    pub(crate) writer: Option<RequestId>,
    /// Changes on top of what is pending, to be stored now or never: if the slot is still at this
    /// generation, which they were made of.
    pub(crate) extra_patch: Option<(&'a Patch, u64)>,
    /// Renew the lease, whether anything else has changed or not.
    pub(crate) renews_lease: bool,
    /// The session begins anew as that of a user.
    pub(crate) login: Option<Begin<'a>>,
    /// Note that the session is in use, whether anything else has changed or not.
    pub(crate) is_seen: bool,
    /// Store a session that is not stored yet, whatever it has.
    pub(crate) begins: bool,
    /// Note that the session's cookie is sent again because it is old. Only together with `is_seen`.
    pub(crate) sends_cookie: bool,
    /// The save does not count as a use of the session: its expiry stays.
    pub(crate) keeps_expiry: bool,
}

impl SaveJob<'_> {
    /// All that is pending.
    pub(crate) fn new(writer: Option<RequestId>) -> Self {
        Self {
            writer,
            extra_patch: None,
            renews_lease: false,
            login: None,
            is_seen: false,
            begins: false,
            sends_cookie: false,
            keeps_expiry: false,
        }
    }
}

/// What a login makes of a session.
#[derive(Clone, Copy)]
pub(crate) struct Begin<'a> {
    pub(crate) user: &'a Arc<str>,
    pub(crate) lifetime: Lifetime,
    /// Unless it stays what it is.
    pub(crate) device: Option<&'a Device>,
}

/// What a plan depends on, beside the job and the slot.
#[derive(Clone, Copy)]
pub(crate) struct SaveContext<'a> {
    pub(crate) now: SystemTime,
    pub(crate) expiry: &'a Expiry,
    pub(crate) limit: usize,
    /// By how much the payload may grow on its way to the store.
    pub(crate) sealing: usize,
    /// The write id of this save.
    pub(crate) write_id: u32,
    pub(crate) conflict: Conflict,
    /// The holder of a lease that has not been renewed in time.
    pub(crate) overdue: Option<u64>,
}

/// What a save has to do.
pub(crate) enum Plan {
    Nothing,
    Create(Record),
    Replace {
        record: Record,
        based_on: u64,
    },
    /// Wait: somebody else has a lease on this version of the record.
    Wait(Lease, u64),
    /// The extra patch was made of something else than what is there now.
    Outdated,
}

/// A record that may be sent to the store.
struct Candidate {
    record: Record,
    head: Head,
    has_write_id: bool,
    /// Nothing that is pending was left out, and nothing is in it that is not.
    holds_all: bool,
}

/// What became of the writes whose answer was lost.
enum WriteOutcome {
    /// There were none, or the store has carried out none of them.
    NotApplied,
    /// The store has carried out the write of this record.
    Applied(Record),
    /// Nobody can tell whether the store has carried out the write of this record: too much has
    /// been saved since.
    Unknown(Record),
}

impl UnconfirmedWrite {
    fn is_of(&self, record: &Record) -> bool {
        Arc::ptr_eq(&self.record.payload, &record.payload)
    }
}

impl<T: SessionData> Slot<T> {
    /// Reconciles the slot with a record that was just loaded. A record older than the slot's is
    /// ignored: it was loaded before this process's last save.
    ///
    /// False if the record has to wait: a write of this process is on its way, or was never answered,
    /// and the record no longer says what became of it. The answer of the write may. Once the caller
    /// has waited for that (`is_answered`), a write whose outcome is still unknown stays so.
    pub(crate) fn reconcile(
        &self,
        record: Record,
        head: Head,
        policy: Policy,
        is_answered: bool,
    ) -> bool {
        {
            let mut contents = self.contents();
            match contents.state {
                SlotState::Loading => {}
                SlotState::Stored if record.version > contents.record.version => {}
                SlotState::Stored if record.version == contents.record.version => {
                    // Another process has touched the record, or our own touch was lost.
                    contents.record.expires_at = record.expires_at;
                    return true;
                }
                SlotState::Stored
                | SlotState::Unsaved
                | SlotState::Unsendable
                | SlotState::Ended => return true,
            }
            if !is_answered
                && matches!(contents.unconfirmed_outcome(&record, &head), WriteOutcome::Unknown(_))
            {
                return false;
            }
        }
        let version = record.version;
        self.rebase_onto(record, head, policy, |contents| {
            contents.state == SlotState::Loading || version > contents.record.version
        });
        true
    }

    /// Accepts `found` if it is the record that the slot has already; gives it back if not, or if the
    /// session is over.
    ///
    /// Compared byte by byte: a store that was restored from a backup may have given the version to
    /// another record.
    pub(crate) fn accept_if_unchanged(
        &self,
        found: Record,
        is_over: impl FnOnce(&Record, Lifetime) -> bool,
    ) -> Result<(), Record> {
        let mut contents = self.contents();
        let known = &contents.record;
        let is_known = known.version == found.version
            && known.user == found.user
            && (Arc::ptr_eq(&known.payload, &found.payload) || known.payload == found.payload)
            && !is_over(&found, contents.head.lifetime);
        match contents.state {
            // Another process has touched the record, or our own touch was lost.
            SlotState::Stored if is_known => contents.record.expires_at = found.expires_at,
            // An idle slot is in `Loading`.
            SlotState::Loading if is_known && found.version > 0 => {
                (contents.state, contents.record) = (SlotState::Stored, found);
            }
            _ => return Err(found),
        }
        Ok(())
    }

    /// The same without loading the record: `store` says whether the store still has exactly the slot's
    /// record, not over, and may move the record's expiry.
    pub(crate) fn is_unchanged(&self, store: impl FnOnce(&mut Record, Lifetime) -> bool) -> bool {
        let mut contents = self.contents();
        if !matches!(contents.state, SlotState::Stored | SlotState::Loading)
            || contents.record.version == 0
        {
            return false;
        }
        let lifetime = contents.head.lifetime;
        let is_unchanged = store(&mut contents.record, lifetime);
        if is_unchanged {
            // An idle slot is in `Loading`.
            contents.state = SlotState::Stored;
        }
        is_unchanged
    }

    /// Makes a slot without users idle: from here on it is like a slot that was never loaded, except
    /// that it remembers its record. False, and nothing changes, if the slot
    ///
    /// 1. is not stored, or its session has ended,
    /// 2. has changes that are not saved, or writes whose outcome is unknown,
    /// 3. has or wants a lease,
    /// 4. has secret fields: a secret is in memory no longer than a request uses it,
    /// 5. is large.
    ///
    /// `outdated` gets a snapshot that must not be shown again. The caller drops it when it holds no
    /// lock.
    pub(crate) fn go_idle(&self, outdated: &mut Option<Arc<T::Fields>>) -> bool {
        let mut contents = self.contents();
        let is_as_loaded = contents.state == SlotState::Stored
            && !contents.is_dirty()
            && !contents.outcome_unknown()
            && contents.local_lease.is_none()
            && sealing::growth::<T>() == 0
            && contents.record.payload.len() <= LARGEST_IDLE;
        if is_as_loaded {
            contents.state = SlotState::Loading;
            *outdated = contents.prepare_idle_snapshot();
        }
        is_as_loaded
    }

    /// Takes over the record that the store turned out to have instead of version `instead_of`, which
    /// a save was based on. It may be older: the store may have been restored from a backup. But if the
    /// slot has got another record since the store was asked, an older one is ignored.
    pub(crate) fn rebase(&self, record: Record, head: Head, policy: Policy, instead_of: u64) {
        {
            let mut contents = self.contents();
            let known = &mut contents.record;
            if known.version != instead_of && known.version > record.version {
                return;
            }
            if known.version == record.version && known.payload == record.payload {
                known.expires_at = record.expires_at;
                return;
            }
        }
        let version = record.version;
        self.rebase_onto(record, head, policy, |contents| {
            contents.record.version == instead_of || contents.record.version <= version
        });
    }

    /// Makes `record` the slot's record, if `is_news` still says so, and rebases the pending changes
    /// onto it.
    ///
    /// Rebasing may run the application's code: it happens outside of the mutex of the contents, and
    /// again if the slot has changed meanwhile.
    fn rebase_onto(
        &self,
        record: Record,
        head: Head,
        policy: Policy,
        is_news: impl Fn(&Contents<T>) -> bool,
    ) {
        let mut rebased = None;
        loop {
            let mut contents = self.contents();
            if !matches!(contents.state, SlotState::Loading | SlotState::Stored)
                || !is_news(&contents)
            {
                return;
            }
            let outcome = contents.unconfirmed_outcome(&record, &head);
            if let WriteOutcome::Applied(base) = &outcome {
                // As `saved` would have done, whose answer comes later.
                contents.pending.forget_saved(&reader::<T>(base));
            }
            let (kept, refused) = match rebased.take() {
                Some((revision, rebased)) if revision == contents.revision => rebased,
                _ if contents.pending.is_empty() => (Patch::default(), Vec::new()),
                _ => {
                    let (revision, pending) = (contents.revision, contents.pending.clone());
                    let base = contents.base_of_pending(outcome);
                    drop(contents);
                    let done = rebase::pending::<T>(&pending, &base, &record, policy);
                    rebased = Some((revision, done));
                    continue;
                }
            };
            let outdated = contents.apply(record, head, &outcome, kept, refused);
            // Its fields may have a `Drop`, which may look at the session.
            drop(contents);
            drop(outdated);
            return;
        }
    }

    /// The session is over, here or wherever the store was told.
    pub(crate) fn end(&self) {
        self.contents().state = SlotState::Ended;
    }

    /// The same, by somebody who knows whether it goes on under another id since a moment ago.
    pub(crate) fn end_as(&self, has_moved: bool) {
        let mut contents = self.contents();
        (contents.state, contents.has_moved) = (SlotState::Ended, has_moved);
    }

    /// No response can carry a cookie of this session any more, and it cannot be saved without one.
    pub(crate) fn forbid_new_cookie(&self) {
        let mut contents = self.contents();
        if matches!(contents.state, SlotState::Unsaved | SlotState::Stored) {
            contents.state = SlotState::Unsendable;
        }
    }

    /// The id under which to create the record, and whether that has been tried before.
    pub(crate) fn id_to_create_under<E>(
        &self,
        generate: impl FnOnce() -> Result<SessionId, E>,
    ) -> Result<(SessionId, bool), E> {
        let mut contents = self.contents();
        if let Some(id) = contents.creating {
            return Ok((id, true));
        }
        let id = generate()?;
        contents.creating = Some(id);
        Ok((id, false))
    }

    /// The id is somebody else's, or what was tried under it is to be forgotten.
    pub(crate) fn forget_id_to_create_under(&self) -> Option<SessionId> {
        let mut contents = self.contents();
        contents.unconfirmed.clear();
        contents.creating.take()
    }

    /// The record for another id: without the lease of whoever has let it expire.
    pub(crate) fn record_without_lease(&self) -> Record {
        let contents = self.contents();
        let record = contents.record.clone();
        if contents.head.lease.is_none() {
            return record;
        }
        let head = Head { lease: None, ..contents.head.clone() };
        let payload = contents.payload(&Patch::default(), None, &head);
        Record { payload, ..record }
    }

    /// What has to be written for the store to have all that has been released.
    ///
    /// What another request has written that cannot be stored is no error of this one's.
    pub(crate) fn plan(&self, job: SaveJob<'_>, context: SaveContext<'_>) -> Result<Plan, Error> {
        let mut contents = self.contents();
        let Candidate { record, head, has_write_id, holds_all } =
            match contents.candidate(job, &context)? {
                ControlFlow::Continue(next) => next,
                ControlFlow::Break(plan) => return Ok(plan),
            };
        if contents.unconfirmed.len() == UNCONFIRMED_KEPT {
            // The oldest but one: that the first is still there says that there were too many.
            contents.unconfirmed.remove(1);
        }
        contents.revision += 1;
        let holds_all_of = holds_all.then_some(contents.revision);
        let write = UnconfirmedWrite {
            write_id: context.write_id,
            has_write_id,
            record: record.clone(),
            head,
            holds_all_of,
        };
        contents.unconfirmed.push(write);
        let based_on = contents.record.version;
        Ok(match contents.state {
            SlotState::Unsaved => Plan::Create(record),
            _ => Plan::Replace { record, based_on },
        })
    }

    /// Saves all that has been released, if `store` does what it is told at once: then nobody sees
    /// the slot in between, and nothing has to be remembered of the attempt. It gets the record, and
    /// the version that it replaces unless it is new.
    ///
    /// False if that was not all there is to be done: then nothing has happened.
    pub(crate) fn save_at_once(
        &self,
        job: SaveJob<'_>,
        context: SaveContext<'_>,
        store: impl FnOnce(&Record, Option<u64>) -> bool,
    ) -> bool {
        let mut contents = self.contents();
        if contents.outcome_unknown()
            || contents.local_lease.is_some()
            || contents.creating.is_some()
        {
            return false;
        }
        let candidate = contents.candidate(job, &context);
        let Ok(ControlFlow::Continue(Candidate { record, head, holds_all: true, .. })) = candidate
        else {
            return false;
        };
        let based_on = (contents.state == SlotState::Stored).then_some(contents.record.version);
        if !store(&record, based_on) {
            return false;
        }
        contents.state = SlotState::Stored;
        contents.revision += 1;
        let saved = contents.pending.take();
        (contents.record, contents.head) = (record, head);
        let outdated = contents.mark_snapshot_saved();
        drop(contents);
        drop((saved, outdated));
        true
    }

    /// The store has taken `record`, which a plan of this slot made. By now it may have a newer one,
    /// which somebody has loaded while we waited for the answer.
    pub(crate) fn saved(&self, record: Record) {
        let _outdated = {
            let mut contents = self.contents();
            if contents.state == SlotState::Unsaved {
                contents.state = SlotState::Stored;
            }
            let unconfirmed = std::mem::take(&mut contents.unconfirmed);
            let is_open = unconfirmed.iter().any(|write| write.record.version == record.version);
            let (head, holds_all) = match unconfirmed.into_iter().find(|it| it.is_of(&record)) {
                Some(write) => (write.head, write.holds_all_of == Some(contents.revision)),
                None => (head_in(&record), false),
            };
            // A newer record told us of this one already, by its write id: then what was pending has
            // been put on top of the newer one, and must not be compared with this one any more.
            let is_known =
                contents.record.version >= record.version && !is_open && !head.write_ids.is_empty();
            contents.revision += 1;
            if is_known {
                return;
            }
            match holds_all {
                true => drop(contents.pending.take()),
                false => contents.pending.forget_saved(&reader::<T>(&record)),
            }
            if record.version > contents.record.version {
                contents.note_lease(&head, record.version, true);
                (contents.record, contents.head) = (record, head);
            }
            contents.mark_snapshot_saved()
        };
    }

    /// The store has refused `record`, for another one was first.
    pub(crate) fn not_saved(&self, record: &Record) {
        self.contents().unconfirmed.retain(|write| !write.is_of(record));
    }

    /// Notes a later expiry, and gives back the one before.
    pub(crate) fn set_expiry(&self, expires_at: SystemTime) -> SystemTime {
        std::mem::replace(&mut self.contents().record.expires_at, expires_at)
    }

    /// The request is gone: nobody is there to be told of what it could not store.
    pub(crate) fn forget_refused(&self, writer: RequestId) {
        self.contents().refused.retain(|refused| refused.writer != writer);
    }

    /// Forgets what one request has written and is not saved.
    pub(crate) fn discard(&self, writer: RequestId) {
        let _outdated = {
            let mut contents = self.contents();
            contents.pending.forget(writer);
            contents.refused.retain(|refused| refused.writer != writer);
            if contents.lifetime_writer == Some(writer) {
                contents.lifetime = contents.head.lifetime;
            }
            contents.revision += 1;
            contents.forget_unchanged();
            contents.outdate_snapshot()
        };
    }

    /// Ends the session under this id, and gives the slot of its successor: the same session under
    /// another id, stored as `record`. Requests that still have this slot keep what it shows.
    ///
    /// The caller holds the lock for writing, so that nothing is released in between.
    pub(crate) fn end_with_successor(
        &self,
        record: Record,
        registration: Registration<T>,
        limit: usize,
    ) -> Self {
        let successor =
            Self::new(SlotState::Stored, record.created_at, OnceLock::from(registration));
        let head = head_in(&record);
        let mut contents = self.contents();
        (contents.state, contents.has_moved) = (SlotState::Ended, true);
        contents.unconfirmed.clear();
        contents.local_lease = None;
        // Requests that still have this slot see what there was, and not who has logged in since.
        contents.record.payload = contents.payload(&contents.pending, None, &contents.head);
        // What did not fit into the record stays behind, and its writer is told.
        contents.pending.forget_saved(&reader::<T>(&record));
        let left = contents.pending.take();
        let size = contents.payload(&left, None, &contents.head).len();
        for (field, _, writer) in left.entries() {
            let refusal = Refusal::TooLarge { size, limit };
            contents.refused.push(Refused { field, refusal, writer });
        }
        contents.revision += 1;
        let snapshot = contents.snapshot.take();
        let lifetime = contents.lifetime;
        drop(contents);
        let _outdated = {
            let mut next = successor.contents();
            (next.lifetime, next.head) = (lifetime, head);
            next.snapshot = snapshot;
            next.record = record;
            next.mark_snapshot_saved()
        };
        successor
    }
}

impl<T: SessionData> Contents<T> {
    /// The record that a save of this job would store, or what has to be done instead.
    fn candidate(
        &self,
        job: SaveJob<'_>,
        context: &SaveContext<'_>,
    ) -> Result<ControlFlow<Plan, Candidate>, Error> {
        let ours = |refused: &&Refused| Some(refused.writer) == job.writer;
        if let Some(Refused { field, refusal, .. }) = self.refused.iter().find(ours) {
            return Err(Error::refused(T::FIELDS[*field].key, refusal.clone()));
        }
        if job.extra_patch.is_some_and(|(_, generation)| generation != self.generation) {
            return Ok(ControlFlow::Break(Plan::Outdated));
        }
        let extra_patch = job.extra_patch.map(|(extra_patch, _)| extra_patch);
        let begins = job.begins && self.record.version == 0;
        let has_changes = !self.pending.is_empty()
            || extra_patch.is_some()
            || begins
            || self.has_own_lifetime()
            || job.is_seen
            || self.lease_is_due(job.renews_lease);
        let must_find_out = self.outcome_unknown()
            && matches!(self.state, SlotState::Stored | SlotState::Unsendable);
        if !has_changes && !must_find_out {
            return Ok(ControlFlow::Break(Plan::Nothing));
        }
        match self.state {
            SlotState::Unsaved | SlotState::Stored => {}
            SlotState::Unsendable => return Err(Error::no_cookie()),
            SlotState::Ended | SlotState::Loading => return Err(Error::ended()),
        }
        let based_on = self.record.version;
        if let Some(lease) = self.foreign_lease(context.overdue) {
            // Whoever only reads does not wait.
            return Ok(ControlFlow::Break(match job.is_seen {
                true => Plan::Nothing,
                false => Plan::Wait(lease, based_on),
            }));
        }
        // A login is saved under an id that nobody else knows.
        let has_write_id = (extra_patch.is_some() && job.login.is_none())
            || self.local_lease.is_some()
            || context.conflict == Conflict::Reject
            // Once and for all: the first write id of a record is that of the save that made it.
            || !self.head.write_ids.is_empty()
            || T::FIELDS.iter().any(FieldInfo::counts_changes);
        let head = self.next_head(has_write_id.then_some(context.write_id), job, context.now);
        let written = |pending: &Patch| self.payload(pending, extra_patch, &head);
        let mut payload = written(&self.pending);
        let mut holds_all = extra_patch.is_none();
        let is_too_large = |payload: &[u8]| payload.len() + context.sealing > context.limit;
        if is_too_large(&payload) {
            holds_all = false;
            let ours = job.writer.map(|writer| self.pending.written_by(writer)).unwrap_or_default();
            let size = payload.len() + context.sealing;
            payload = written(&ours);
            let is_others = ours.is_empty()
                && extra_patch.is_none()
                && !begins
                && !self.has_own_lifetime()
                && !self.lease_is_due(job.renews_lease);
            match job.writer {
                // Whoever has written that is told, or it is nobody's any more.
                Some(_) if is_others => return Ok(ControlFlow::Break(Plan::Nothing)),
                _ if is_others || is_too_large(&payload) => {
                    return Err(Error::too_large(size, context.limit));
                }
                _ => {}
            }
        }
        let is_new = self.state == SlotState::Unsaved;
        let is_begun_now = is_new || job.login.is_some();
        let (now, expiry) = (context.now, context.expiry);
        let created_at = if is_begun_now { now } else { self.record.created_at };
        let record = Record {
            version: next_version(based_on)?,
            created_at,
            expires_at: match is_begun_now || self.has_own_lifetime() {
                true => expiry.expires_at(head.lifetime, created_at, now),
                false if job.keeps_expiry => {
                    // Unless it is earlier: the limits may have been lowered since.
                    let used = expiry.expires_at(head.lifetime, created_at, now);
                    used.min(self.record.expires_at)
                }
                false => expiry.expires_again_at(head.lifetime, &self.record, now),
            },
            user: job.login.map(|it| it.user).or(self.record.user.as_ref()).cloned(),
            payload,
        };
        Ok(ControlFlow::Continue(Candidate { record, head, has_write_id, holds_all }))
    }

    fn payload(&self, pending: &Patch, extra_patch: Option<&Patch>, head: &Head) -> Arc<[u8]> {
        let head = head.to_bytes();
        let patched = || payload::patched(T::FIELDS, &self.record.payload, &head, pending);
        let whole = || {
            let mut reader = self.stored();
            reader.apply(pending);
            if let Some(extra_patch) = extra_patch {
                reader.apply(extra_patch);
            }
            reader.write(&head)
        };
        let payload = if extra_patch.is_none() { patched() } else { None };
        payload.unwrap_or_else(whole).into()
    }

    /// The head of the next record.
    fn next_head(&self, write_id: Option<u32>, job: SaveJob<'_>, now: SystemTime) -> Head {
        let login = job.login;
        let known = self.head.device.as_deref();
        let device = login.and_then(|login| login.device).or(known.map(|known| &known.0));
        let last_seen = known.filter(|_| job.keeps_expiry).map_or(now, |known| known.1);
        let mut head = Head {
            lifetime: login.map_or(self.lifetime, |login| login.lifetime),
            lease: self.next_lease(),
            write_ids: self.head.write_ids.clone(),
            device: device.map(|device| Box::new((device.clone(), last_seen))),
            cookie_sent: match login {
                // The login has a cookie of its own.
                Some(_) => None,
                None if job.sends_cookie => Some(now),
                None => self.head.cookie_sent,
            },
        };
        if let Some(write_id) = write_id {
            head.note_write(write_id);
        }
        head
    }

    /// Looks in a record that has just been loaded for the writes whose answer was lost.
    fn unconfirmed_outcome(&self, record: &Record, head: &Head) -> WriteOutcome {
        let with_id = || self.unconfirmed.iter().filter(|write| write.has_write_id);
        if let Some(write) = with_id().find(|write| head.write_ids.contains(&write.write_id)) {
            return WriteOutcome::Applied(write.record.clone());
        }
        // Another save was first: one of ours, if it was carried out at all, is among the write ids,
        // unless those that came after it have pushed it out, or we have forgotten it ourselves.
        let behind = record.version.saturating_sub(self.record.version);
        let is_lost = behind > WRITE_IDS_KEPT as u64 || self.unconfirmed.len() == UNCONFIRMED_KEPT;
        match with_id().next_back() {
            Some(write) if is_lost && behind > 0 => WriteOutcome::Unknown(write.record.clone()),
            _ => WriteOutcome::NotApplied,
        }
    }

    /// What the pending changes were made of.
    fn base_of_pending(&self, outcome: WriteOutcome) -> Base {
        let without_id = self.unconfirmed.iter().any(|write| !write.has_write_id);
        let (record, certainty) = match outcome {
            WriteOutcome::Applied(record) => (record, Certainty::Known),
            WriteOutcome::Unknown(record) => (record, Certainty::Doubtful),
            WriteOutcome::NotApplied if without_id => (self.record.clone(), Certainty::NoWriteId),
            WriteOutcome::NotApplied => (self.record.clone(), Certainty::Known),
        };
        let under_lease = self.local_lease.as_ref().map(|local| local.writer);
        Base { record, certainty, under_lease }
    }

    #[must_use = "the old snapshot is dropped when the contents are unlocked: its fields may have a `Drop`"]
    fn apply(
        &mut self,
        record: Record,
        head: Head,
        outcome: &WriteOutcome,
        kept: Patch,
        refused: Vec<(usize, RequestId, Refusal)>,
    ) -> Option<Arc<T::Fields>> {
        if self.state == SlotState::Loading || !self.has_own_lifetime() {
            self.lifetime = head.lifetime;
        }
        self.state = SlotState::Stored;
        self.pending = kept;
        for (field, writer, refusal) in refused {
            tracing::warn!(field = T::FIELDS[field].key, "a change is refused: {refusal}");
            if matches!(refusal, Refusal::Conflict | Refusal::Taken) {
                // All of it or nothing.
                self.refuse_all_of(writer, &refusal);
            }
            // In front, so that its writer is told of this field.
            self.refused.insert(0, Refused { field, refusal, writer });
        }
        let gave_up = match outcome {
            WriteOutcome::Applied(record) => head_in(record).lease.is_none(),
            WriteOutcome::Unknown(_) => true,
            WriteOutcome::NotApplied => false,
        };
        self.note_lease(&head, record.version, gave_up);
        // A record of the same version may still be replaced by a save that is on its way.
        if record.version != self.record.version {
            self.unconfirmed.clear();
        }
        (self.record, self.head) = (record, head);
        self.revision += 1;
        self.forget_unchanged();
        self.outdate_snapshot()
    }

    /// Nothing of what this writer has pending can be stored.
    pub(super) fn refuse_all_of(&mut self, writer: RequestId, refusal: &Refusal) {
        let fields: Vec<usize> =
            self.pending.written_by(writer).entries().map(|(field, ..)| field).collect();
        self.pending.forget(writer);
        self.refused.extend(fields.into_iter().map(|field| Refused {
            field,
            refusal: refusal.clone(),
            writer,
        }));
    }
}
