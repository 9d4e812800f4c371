//! A slot's half towards what the store has: a record that was loaded, and the answer to a write.
//!
//! 1. A record that the slot has already changes nothing but its expiry.
//! 2. A record older than the slot's is ignored, unless it was loaded in answer to a save that was refused:
//!    then the store has gone back, and the slot goes back with it. So it has if another record has the slot's
//!    version: no two saves have the same.
//! 3. A newer record is looked through for unconfirmed writes ([`WriteOutcome`]); what is pending is rebased
//!    onto it.
//! 4. A record that cannot say what became of a write waits for the write's answer, if one is on its way.

use std::{sync::Arc, time::SystemTime};

use super::{
    Contents, Slot, SlotState, SlotView, UnconfirmedWrite,
    plan::UNCONFIRMED_KEPT,
    reader,
    rebase::{self, Base, WriteOutcome},
    snapshot::Snapshot,
};
use crate::{
    data::{
        SessionData,
        merge::Policy,
        patch::{Patch, RequestId},
        payload, sealing,
    },
    error::refusal::Refusal,
    record::{
        Record,
        expiry::Lifetime,
        head::{Loaded, WRITE_IDS_KEPT},
    },
};

/// In bytes. The slot of a larger record does not go idle: to load the record again costs less than
/// the memory.
pub(super) const LARGEST_IDLE: usize = 16 << 10;

/// Of the pending changes those that are left on the newer record, and those that are refused.
type Rebased = (Patch, Vec<(usize, RequestId, Refusal)>);

impl UnconfirmedWrite {
    fn is_of(&self, record: &Record) -> bool {
        Arc::ptr_eq(&self.written.record.payload, &record.payload)
    }

    pub(super) fn write_id(&self) -> Option<u32> {
        self.written.head.write_id()
    }
}

impl<T: SessionData> Slot<T> {
    /// Reconciles the slot with a record that was just loaded. A record older than the slot's is
    /// ignored: it was loaded before this process's last save.
    ///
    /// The slot's state after that. `None` if the record has to wait: a write of this process is on its way,
    /// or was never answered, and the record no longer says what became of it. The answer of the write may.
    /// Once the caller has waited for that (`is_answered`), a write whose outcome is still unknown stays so.
    pub(crate) fn reconcile(
        &self,
        loaded: Loaded,
        policy: Policy,
        is_answered: bool,
    ) -> Option<SlotState> {
        let Record { version, expires_at, .. } = loaded.record;
        {
            let mut contents = self.contents();
            match contents.state {
                // Nearly always, and nothing is to be rebased: the code of a user's is not run.
                SlotState::Loading
                    if contents.pending.is_empty() && contents.unconfirmed.is_empty() =>
                {
                    let outdated = contents.apply(loaded, &WriteOutcome::NotApplied, None);
                    drop(contents);
                    drop(outdated);
                    return Some(SlotState::Stored);
                }
                SlotState::Loading => {}
                SlotState::Stored if contents.is_news(&loaded.record) => {}
                SlotState::Stored if version == contents.known.record.version => {
                    // Another process has touched the record, or our own touch was lost.
                    contents.known.record.expires_at = expires_at;
                    return Some(contents.state);
                }
                SlotState::Stored
                | SlotState::Unsaved
                | SlotState::Unsendable
                | SlotState::Ended(_) => return Some(contents.state),
            }
            if !is_answered
                && matches!(contents.unconfirmed_outcome(&loaded), WriteOutcome::Unknown(_))
            {
                return None;
            }
        }
        let found = loaded.record.clone();
        self.rebase_onto(loaded, policy, |contents| {
            contents.state == SlotState::Loading || contents.is_news(&found)
        });
        Some(self.state())
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
        let known = &contents.known.record;
        let is_known = known.version == found.version
            && known.user == found.user
            && (Arc::ptr_eq(&known.payload, &found.payload) || known.payload == found.payload)
            && !is_over(&found, contents.known.head.lifetime);
        match contents.state {
            // Another process has touched the record, or our own touch was lost.
            SlotState::Stored if is_known => contents.known.record.expires_at = found.expires_at,
            // An idle slot is in `Loading`.
            SlotState::Loading if is_known && found.version > 0 => {
                (contents.state, contents.known.record) = (SlotState::Stored, found);
            }
            _ => return Err(found),
        }
        Ok(())
    }

    /// The same without loading the record: `store` says something if the store still has exactly the slot's
    /// record, not over, and may move the record's expiry. Then `look` looks at the slot with that.
    #[inline]
    pub(crate) fn if_unchanged<A, R>(
        &self,
        store: impl FnOnce(&mut Record, Lifetime) -> Option<A>,
        look: impl FnOnce(SlotView<'_>, A) -> R,
    ) -> Option<R> {
        let mut contents = self.contents();
        if !matches!(contents.state, SlotState::Stored | SlotState::Loading)
            || contents.known.record.version == 0
        {
            return None;
        }
        let lifetime = contents.known.head.lifetime;
        let answer = store(&mut contents.known.record, lifetime)?;
        // An idle slot is in `Loading`.
        contents.state = SlotState::Stored;
        Some(look(contents.view(), answer))
    }

    /// Takes over the record that the store turned out to have instead of version `instead_of`, which
    /// a save was based on. It may be older: the store may have been restored from a backup. But if the
    /// slot has got another record since the store was asked, an older one is ignored.
    pub(crate) fn rebase(&self, loaded: Loaded, policy: Policy, instead_of: u64) {
        let version = loaded.record.version;
        {
            let mut contents = self.contents();
            let (record, known) = (&loaded.record, &mut contents.known.record);
            if known.version != instead_of && known.version > record.version {
                return;
            }
            if known.version == record.version && known.payload == record.payload {
                known.expires_at = record.expires_at;
                return;
            }
        }
        self.rebase_onto(loaded, policy, |contents| {
            contents.known.record.version == instead_of || contents.known.record.version <= version
        });
    }

    /// Makes `loaded` the slot's record, if `is_news` still says so, and rebases the pending changes
    /// onto it.
    ///
    /// Rebasing may run the application's code: it happens outside of the mutex of the contents, and
    /// again if the slot has changed meanwhile.
    fn rebase_onto(&self, loaded: Loaded, policy: Policy, is_news: impl Fn(&Contents<T>) -> bool) {
        let mut rebased = None;
        loop {
            let mut contents = self.contents();
            if !matches!(contents.state, SlotState::Loading | SlotState::Stored)
                || !is_news(&contents)
            {
                return;
            }
            let outcome = contents.unconfirmed_outcome(&loaded);
            if let WriteOutcome::Applied(written) = &outcome {
                // As `saved` would have done, whose answer comes later.
                contents.pending.forget_saved(&reader::<T>(&written.record));
            }
            let rebased_now = match rebased.take() {
                Some((revision, rebased)) if revision == contents.revision => Some(rebased),
                _ if contents.pending.is_empty() => None,
                _ => {
                    let (revision, pending) = (contents.revision, contents.pending.clone());
                    let base = contents.base_of_pending(outcome);
                    drop(contents);
                    let done = rebase::pending::<T>(&pending, &base, &loaded.record, policy);
                    rebased = Some((revision, done));
                    continue;
                }
            };
            let outdated = contents.apply(loaded, &outcome, rebased_now);
            // Its fields may have a `Drop`, which may look at the session.
            drop(contents);
            drop(outdated);
            return;
        }
    }

    /// Makes a slot without users idle: from here on it is like a slot that was never loaded, except
    /// that it remembers its record, whose payload has so many bytes. Nothing changes if the slot
    ///
    /// 1. is not stored, or its session has ended,
    /// 2. has changes that are not saved, or writes whose outcome is unknown,
    /// 3. has or wants a lease,
    /// 4. has secret fields: a secret is in memory no longer than a request uses it,
    /// 5. is large.
    ///
    /// `outdated` gets a snapshot that must not be shown again. The caller drops it when it holds no
    /// lock.
    pub(crate) fn go_idle(&self, outdated: &mut Option<Snapshot<T::Fields>>) -> Option<usize> {
        let mut contents = self.contents();
        let bytes = contents.known.record.payload.len();
        let is_as_loaded = contents.state == SlotState::Stored
            && !contents.is_dirty()
            && !contents.outcome_unknown()
            && contents.local_lease.is_none()
            && sealing::growth::<T>() == 0
            && bytes <= LARGEST_IDLE;
        is_as_loaded.then(|| {
            contents.state = SlotState::Loading;
            *outdated = contents.prepare_idle_snapshot();
            bytes
        })
    }

    /// The store has taken `record`, which a plan of this slot made. By now it may have a newer one,
    /// which another request has loaded while we waited for the answer.
    pub(crate) fn saved(&self, record: Record) {
        let _outdated = {
            let mut contents = self.contents();
            if contents.state == SlotState::Unsaved {
                contents.state = SlotState::Stored;
            }
            let unconfirmed = std::mem::take(&mut contents.unconfirmed);
            let is_open =
                unconfirmed.iter().any(|write| write.written.record.version == record.version);
            let (head, holds_all) = match unconfirmed.into_iter().find(|it| it.is_of(&record)) {
                Some(write) => (write.written.head, write.holds_all_of == Some(contents.revision)),
                None => (payload::head_of(&record).unwrap_or_default(), false),
            };
            // A newer record told us of this one already, by its write id: then what was pending has
            // been put on top of the newer one, and must not be compared with this one any more.
            let is_known = contents.known.record.version >= record.version
                && !is_open
                && !head.write_ids.is_empty();
            contents.revision += 1;
            if is_known {
                return;
            }
            match holds_all {
                true => drop(contents.pending.take()),
                false => contents.pending.forget_saved(&reader::<T>(&record)),
            }
            if record.version > contents.known.record.version {
                contents.note_lease(&head, record.version, true);
                contents.note_known(Loaded { record, head });
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
        std::mem::replace(&mut self.contents().known.record.expires_at, expires_at)
    }

    /// What was noted could not be stored. Another request may have stored something else meanwhile.
    pub(crate) fn take_expiry_back(&self, noted: SystemTime, before: SystemTime) {
        let known = &mut self.contents().known.record;
        if known.expires_at == noted {
            known.expires_at = before;
        }
    }
}

impl<T: SessionData> Contents<T> {
    /// Whether a record that was loaded, not in answer to a save, has come after the slot's.
    fn is_news(&self, found: &Record) -> bool {
        let known = &self.known.record;
        found.version > known.version
            || found.version == known.version && found.payload != known.payload
    }

    /// Looks in a record that has just been loaded for the writes whose answer was lost.
    pub(super) fn unconfirmed_outcome(&self, found: &Loaded) -> WriteOutcome {
        let is_in = |write: &&UnconfirmedWrite| {
            write.write_id().is_some_and(|it| found.head.write_ids.contains(&it))
        };
        if let Some(write) = self.unconfirmed.iter().find(is_in) {
            return WriteOutcome::Applied(write.written.clone());
        }
        // Another save was first: one of ours, if it was carried out at all, is among the write ids,
        // unless those that came after it have pushed it out, or we have forgotten it ourselves.
        let behind = found.record.version.saturating_sub(self.known.record.version);
        let is_lost = behind > WRITE_IDS_KEPT as u64 || self.unconfirmed.len() == UNCONFIRMED_KEPT;
        let is_traced = |write: &UnconfirmedWrite| write.write_id().is_some();
        match self.unconfirmed.iter().rfind(|write| is_traced(write)) {
            Some(write) if is_lost && behind > 0 => WriteOutcome::Unknown(write.written.clone()),
            _ if self.unconfirmed.iter().all(is_traced) => WriteOutcome::NotApplied,
            _ => WriteOutcome::Untraced,
        }
    }

    /// What the pending changes were made of.
    pub(super) fn base_of_pending(&self, outcome: WriteOutcome) -> Base {
        let under_lease = self.local_lease.as_ref().map(|local| local.writer);
        Base { outcome, known: self.known.record.clone(), under_lease }
    }

    /// `rebased` is `None` if nothing is pending.
    #[must_use = "the old snapshot is dropped when the contents are unlocked: its fields may have a `Drop`"]
    fn apply(
        &mut self,
        loaded: Loaded,
        outcome: &WriteOutcome,
        rebased: Option<Rebased>,
    ) -> Option<Snapshot<T::Fields>> {
        self.forget_settled_lifetimes();
        self.state = SlotState::Stored;
        let refused = match rebased {
            Some((kept, refused)) => {
                self.pending = kept;
                refused
            }
            None => Vec::new(),
        };
        for (field, writer, refusal) in refused {
            tracing::warn!(field = T::FIELDS[field].key, "a change is refused: {refusal}");
            self.refuse(field, writer, refusal);
        }
        let gave_up = match outcome {
            WriteOutcome::Applied(written) => written.head.lease.is_none(),
            WriteOutcome::Unknown(_) => true,
            WriteOutcome::NotApplied | WriteOutcome::Untraced => false,
        };
        let version = loaded.record.version;
        self.note_lease(&loaded.head, version, gave_up);
        // A record of the same version may still be replaced by a save that is on its way.
        if version != self.known.record.version {
            self.unconfirmed.clear();
        }
        self.note_known(loaded);
        self.revision += 1;
        self.forget_unchanged();
        self.outdate_snapshot()
    }
}
