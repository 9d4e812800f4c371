//! The plan of a save: a pure decision of what the slot has, what the save is asked to do, and the layer's
//! settings.
//!
//! 1. A change of this request that cannot be stored fails the save; one of another request does not.
//! 2. An extra patch that was made of other fields than those that are there is outdated; so is a binding to a
//!    device, if the session is bound to another one.
//! 3. A save without anything to do does nothing, unless the outcome of an earlier write is unknown.
//! 4. A session that has ended, or that no client has the cookie of, is not saved.
//! 5. A save waits while another process has a lease.
//! 6. What does not fit into the limit is left out, if other requests have written it, or is refused.

use std::{
    ops::ControlFlow,
    sync::Arc,
    time::{Duration, SystemTime},
};

use super::{Contents, Refused, Slot, SlotState, SlotView, UnconfirmedWrite};
use crate::{
    data::{
        FieldInfo, SessionData,
        merge::Conflict,
        patch::{Patch, RequestId},
        payload, sealing,
    },
    error::Error,
    record::{
        Record,
        binding::Binding,
        device::Device,
        expiry::{Expiry, Lifetime},
        head::{Head, Lease, Loaded},
        next_version,
    },
    scratch::with_buffer,
};

/// How many writes whose answer was lost are remembered.
pub(super) const UNCONFIRMED_KEPT: usize = 16;

/// What a save is asked to do.
#[derive(Clone, Copy)]
pub(crate) struct SaveJob<'a> {
    /// The request that is told of changes that cannot be stored.
    pub(crate) writer: Option<RequestId>,
    pub(crate) kind: SaveKind<'a>,
    /// The save does not count as a use of the session: its expiry stays.
    pub(crate) keeps_expiry: bool,
}

/// What a save is for. Each stores all that is pending as well.
#[derive(Clone, Copy)]
pub(crate) enum SaveKind<'a> {
    /// What is pending, and nothing else.
    Pending,
    /// Changes on top of that.
    Change(ExtraPatch<'a>),
    /// The session begins anew as that of a user, with these changes.
    Login(Begin<'a>, ExtraPatch<'a>),
    /// Store a session that is not stored yet, whatever it has.
    Begin,
    /// Note that the session is in use, whether anything else has changed or not.
    NoteUse,
    /// The same, and that the session's cookie is sent again because it is old.
    NoteCookie,
    /// Renew the lease, whether anything else has changed or not.
    RenewLease,
    /// The session is to be bound to this device, unless it is bound already.
    #[cfg_attr(not(feature = "device-bound"), allow(dead_code, reason = "nobody asks for it"))]
    Bind(&'a Binding),
}

/// Changes to be stored now or never: if the slot is still at this generation, which they were made of.
#[derive(Clone, Copy)]
pub(crate) struct ExtraPatch<'a> {
    pub(crate) patch: &'a Patch,
    pub(crate) generation: u64,
}

impl<'a> SaveJob<'a> {
    /// All that is pending.
    pub(crate) fn new(writer: Option<RequestId>) -> Self {
        Self { writer, kind: SaveKind::Pending, keeps_expiry: false }
    }

    /// The same for changes that mean the same whatever the fields are, made of this generation.
    pub(crate) fn at_generation(self, generation: u64) -> Self {
        let at = |extra: ExtraPatch<'a>| ExtraPatch { generation, ..extra };
        let kind = match self.kind {
            SaveKind::Change(extra) => SaveKind::Change(at(extra)),
            SaveKind::Login(begin, extra) => SaveKind::Login(begin, at(extra)),
            kind => kind,
        };
        Self { kind, ..self }
    }

    fn extra_patch(&self) -> Option<ExtraPatch<'a>> {
        match self.kind {
            SaveKind::Change(extra) | SaveKind::Login(_, extra) => Some(extra),
            _ => None,
        }
    }

    pub(crate) fn login(&self) -> Option<Begin<'a>> {
        match self.kind {
            SaveKind::Login(begin, _) => Some(begin),
            _ => None,
        }
    }

    fn binds(&self) -> Option<&'a Binding> {
        match self.kind {
            SaveKind::Bind(binding) => Some(binding),
            _ => None,
        }
    }

    fn notes_use(&self) -> bool {
        matches!(self.kind, SaveKind::NoteUse | SaveKind::NoteCookie)
    }

    fn renews_lease(&self) -> bool {
        matches!(self.kind, SaveKind::RenewLease)
    }
}

/// What a login makes of a session.
#[derive(Clone, Copy)]
pub(crate) struct Begin<'a> {
    pub(crate) user: &'a Arc<str>,
    /// `None` is that of the login before, if it is the same user, and else what the layer says.
    pub(crate) lifetime: Option<Lifetime>,
    /// Unless it stays what it is.
    pub(crate) device: Option<&'a Device>,
    /// The session stays bound to its device, if it is this user's already.
    pub(crate) keeps_binding: bool,
    /// The user has logged in before, in another library.
    pub(crate) is_adopted: bool,
}

/// What a plan depends on, beside the job and the slot.
#[derive(Clone, Copy)]
pub(crate) struct SaveContext<'a> {
    pub(crate) now: SystemTime,
    pub(crate) expiry: &'a Expiry,
    pub(crate) limit: usize,
    /// By how much the payload may grow on its way to the store.
    pub(crate) sealing: usize,
    /// Draws the write id of this save, if it needs one.
    pub(crate) write_id: &'a (dyn Fn() -> u32 + Sync),
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
    /// Wait: another process has a lease on this version of the record.
    Wait(Lease, u64),
    /// The extra patch was made of something else than what is there now.
    Outdated,
}

/// A record that may be sent to the store.
struct Candidate {
    loaded: Loaded,
    /// Nothing that is pending was left out, and nothing is in it that is not.
    holds_all: bool,
}

impl<T: SessionData> Slot<T> {
    /// The record for another id: without a lease, whose holder has let it expire.
    pub(crate) fn record_without_lease(&self) -> Record {
        let contents = self.contents();
        let record = contents.known.record.clone();
        if contents.known.head.lease.is_none() {
            return record;
        }
        let head = Head { lease: None, ..contents.known.head.clone() };
        let payload = contents.payload(&Patch::default(), None, &head);
        Record { payload, ..record }
    }

    /// What has to be written for the store to have all that has been released.
    ///
    /// What another request has written that cannot be stored is no error of this one's.
    pub(crate) fn plan(&self, job: SaveJob<'_>, context: SaveContext<'_>) -> Result<Plan, Error> {
        let mut contents = self.contents();
        let Candidate { loaded: written, holds_all } = match contents.candidate(job, &context)? {
            ControlFlow::Continue(next) => next,
            ControlFlow::Break(plan) => return Ok(plan),
        };
        if contents.unconfirmed.len() == UNCONFIRMED_KEPT {
            // The oldest but one: that the first is still there says that there were too many.
            contents.unconfirmed.remove(1);
        }
        contents.revision += 1;
        let holds_all_of = holds_all.then_some(contents.revision);
        let record = written.record.clone();
        contents.unconfirmed.push(UnconfirmedWrite { written, holds_all_of });
        let based_on = contents.known.record.version;
        Ok(match contents.state {
            SlotState::Unsaved => Plan::Create(record),
            _ => Plan::Replace { record, based_on },
        })
    }

    /// Saves all that has been released, if `store` does what it is told at once: then nobody sees
    /// the slot in between, and nothing has to be remembered of the attempt. It gets the record, and
    /// the version that it replaces unless it is new. `look` sees the slot after that.
    pub(crate) fn save_at_once<R>(
        &self,
        job: SaveJob<'_>,
        context: SaveContext<'_>,
        look: impl FnOnce(SlotView<'_>) -> R,
        store: impl FnOnce(&Record, Option<u64>) -> bool,
    ) -> SavedAtOnce<R> {
        let mut contents = self.contents();
        if contents.outcome_unknown()
            || contents.local_lease.is_some()
            || contents.creating.is_some()
            || self.turn.is_taken()
        {
            return SavedAtOnce::No;
        }
        let loaded = match contents.candidate(job, &context) {
            Ok(ControlFlow::Continue(Candidate { loaded, holds_all: true })) => loaded,
            Ok(ControlFlow::Break(Plan::Nothing)) => return SavedAtOnce::Nothing,
            _ => return SavedAtOnce::No,
        };
        let based_on =
            (contents.state == SlotState::Stored).then_some(contents.known.record.version);
        if !store(&loaded.record, based_on) {
            return SavedAtOnce::No;
        }
        contents.state = SlotState::Stored;
        contents.revision += 1;
        let saved = contents.pending.take();
        contents.note_known(loaded);
        let outdated = contents.mark_snapshot_saved();
        let seen = look(contents.view());
        drop(contents);
        drop((saved, outdated));
        SavedAtOnce::Done(seen)
    }
}

/// What came of a save at once.
pub(crate) enum SavedAtOnce<R> {
    /// Nothing was to be saved.
    Nothing,
    Done(R),
    /// That was not all there is to be done, and nothing has happened.
    No,
}

impl<T: SessionData> Contents<T> {
    /// The record that a save of this job would store, or what has to be done instead.
    fn candidate(
        &self,
        job: SaveJob<'_>,
        context: &SaveContext<'_>,
    ) -> Result<ControlFlow<Plan, Candidate>, Error> {
        // Long: the rules of the module's list, in their order.
        let ours = |refused: &&Refused| Some(refused.writer) == job.writer;
        if let Some(Refused { field, refusal, .. }) = self.refused.iter().find(ours) {
            return Err(Error::refused(T::FIELDS[*field].key, refusal.clone()));
        }
        if job.extra_patch().is_some_and(|extra| extra.generation != self.generation) {
            return Ok(ControlFlow::Break(Plan::Outdated));
        }
        // Another device was first; or ours was, and the answer of that save was lost.
        if let (Some(binding), Some(known)) = (job.binds(), self.known.head.binding.as_deref()) {
            let is_ours = binding.id == known.id;
            return Ok(ControlFlow::Break(if is_ours { Plan::Nothing } else { Plan::Outdated }));
        }
        let extra_patch = job.extra_patch().map(|extra| extra.patch);
        let begins = matches!(job.kind, SaveKind::Begin) && self.known.record.version == 0;
        let has_changes = !self.pending.is_empty()
            || extra_patch.is_some()
            || begins
            || self.has_own_lifetime()
            || job.binds().is_some()
            || job.notes_use()
            || self.lease_is_due(job.renews_lease());
        let must_find_out = self.outcome_unknown()
            && matches!(self.state, SlotState::Stored | SlotState::Unsendable);
        if !has_changes && !must_find_out {
            return Ok(ControlFlow::Break(Plan::Nothing));
        }
        match self.state {
            SlotState::Unsaved | SlotState::Stored => {}
            SlotState::Unsendable => return Err(Error::no_cookie()),
            SlotState::Ended(_) | SlotState::Loading => return Err(Error::ended()),
        }
        let based_on = self.known.record.version;
        if let Some(lease) = self.foreign_lease(context.overdue) {
            // All of a page's requests wait for a browser's registration.
            if job.binds().is_some() {
                return Err(Error::leased(Duration::ZERO));
            }
            // A request that only reads does not wait.
            return Ok(ControlFlow::Break(match job.notes_use() {
                true => Plan::Nothing,
                false => Plan::Wait(lease, based_on),
            }));
        }
        // A login is saved under an id that nobody else knows.
        let needs_write_id = (extra_patch.is_some() && job.login().is_none())
            || self.local_lease.is_some()
            || context.conflict == Conflict::Reject
            // Once and for all: the first write id of a record is that of the save that made it.
            || !self.known.head.write_ids.is_empty()
            || T::FIELDS.iter().any(FieldInfo::counts_changes);
        let head = self.next_head(needs_write_id.then(context.write_id), job, context.now);
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
                && job.binds().is_none()
                && !self.has_own_lifetime()
                && !self.lease_is_due(job.renews_lease());
            match job.writer {
                // The request that has written that is told; if it is gone, nobody has to be.
                Some(_) if is_others => return Ok(ControlFlow::Break(Plan::Nothing)),
                _ if is_others || is_too_large(&payload) => {
                    return Err(Error::too_large(size, context.limit));
                }
                _ => {}
            }
        }
        let is_new = self.state == SlotState::Unsaved;
        let is_begun_now = is_new || job.login().is_some();
        let (now, expiry) = (context.now, context.expiry);
        let created_at = if is_begun_now { now } else { self.known.record.created_at };
        let record = Record {
            version: next_version(based_on)?,
            created_at,
            expires_at: match is_begun_now || self.has_own_lifetime() {
                true => expiry.expires_at(head.lifetime, created_at, now),
                false if job.keeps_expiry => {
                    // Unless it is earlier: the limits may have been lowered since.
                    let used = expiry.expires_at(head.lifetime, created_at, now);
                    used.min(self.known.record.expires_at)
                }
                false => expiry.expires_again_at(head.lifetime, &self.known.record, now),
            },
            user: job.login().map(|it| it.user).or(self.known.record.user.as_ref()).cloned(),
            payload,
        };
        Ok(ControlFlow::Continue(Candidate { loaded: Loaded { record, head }, holds_all }))
    }

    pub(super) fn payload(
        &self,
        pending: &Patch,
        extra_patch: Option<&Patch>,
        head: &Head,
    ) -> Arc<[u8]> {
        let head = head.to_bytes();
        if extra_patch.is_none()
            && let Some(payload) =
                payload::patched_in_place(T::FIELDS, &self.known.record.payload, &head, pending)
        {
            return payload;
        }
        let patched = |out: &mut Vec<u8>| {
            payload::patched(T::FIELDS, &self.known.record.payload, &head, pending, out).is_some()
        };
        let write = |out: &mut Vec<u8>| {
            if extra_patch.is_none() && patched(out) {
                return Arc::from(&out[..]);
            }
            let mut reader = self.stored();
            reader.apply(pending);
            if let Some(extra_patch) = extra_patch {
                reader.apply(extra_patch);
            }
            out.clear();
            reader.write_to(&head, out);
            Arc::from(&out[..])
        };
        match const { sealing::growth::<T>() } {
            0 => with_buffer(write),
            _ => write(&mut Vec::new()),
        }
    }

    /// The lifetime that a login leaves the session with.
    fn lifetime_after(&self, login: Begin<'_>) -> Lifetime {
        let is_same = self.known.record.user.as_ref() == Some(login.user);
        login.lifetime.unwrap_or(if is_same { self.lifetime } else { Lifetime::new() })
    }

    /// The head of the next record.
    fn next_head(&self, write_id: Option<u32>, job: SaveJob<'_>, now: SystemTime) -> Head {
        let login = job.login();
        let known = self.known.head.device.as_deref();
        let device = login.and_then(|login| login.device).or(known.map(|known| &known.0));
        let last_seen = known.filter(|_| job.keeps_expiry).map_or(now, |known| known.1);
        let mut head = Head {
            lifetime: login.map_or(self.lifetime, |login| self.lifetime_after(login)),
            lease: self.next_lease(),
            write_ids: self.known.head.write_ids.clone(),
            device: device.map(|device| Box::new((device.clone(), last_seen))),
            cookie_sent: match login {
                // The login has a cookie of its own.
                Some(_) => None,
                None if matches!(job.kind, SaveKind::NoteCookie) => Some(now),
                None => self.known.head.cookie_sent,
            },
            // A login that proves its device binds the session to it. After one that does not, the device may be
            // another one.
            binding: match (job.binds(), login) {
                (Some(binding), _) => Some(Box::new(*binding)),
                (None, Some(login))
                    if !login.keeps_binding
                        || self.known.record.user.as_ref() != Some(login.user) =>
                {
                    None
                }
                (None, _) => self.known.head.binding.clone(),
            },
            is_adopted: login.map_or(self.known.head.is_adopted, |login| login.is_adopted),
        };
        if let Some(write_id) = write_id {
            head.note_write(write_id);
        }
        head
    }
}
