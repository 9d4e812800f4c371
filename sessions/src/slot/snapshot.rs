//! The guards' side of a slot: the fields, decoded for readers, and checked out and in by writers.
//!
//! ```text
//! snapshot ──(no writer)──► shared with readers
//! snapshot ──check_out──► the writer's alone ──check_in──► changes, as bytes, in `pending`
//! ```
//!
//! 1. A writer's changes are compared with what it checked out, byte by byte; a field that is as before is
//!    no change.
//! 2. If the slot has changed meanwhile, the changes are rebased ([`rebase`]).
//! 3. A snapshot that is not checked in, because its writer panicked, is forgotten, and its changes with it.

use std::sync::Arc;

use super::{
    Contents, Refused, Slot,
    changes::{Change, Changes, Writing},
    reader, rebase,
};
use crate::{
    data::{
        FieldInfo, SessionData,
        patch::{Patch, RequestId},
        tracked::Tracked,
    },
    error::{Error, refusal::Refusal},
    record::Record,
};

/// The decoded fields that a slot has for its next guard.
pub(crate) enum Snapshot<F> {
    /// A writer had it last, or nobody: to hand it to the next writer takes nothing.
    Own(Box<F>),
    /// A reader had it last, and some may have it still.
    Shared(Arc<F>),
}

impl<F> Snapshot<F> {
    fn get(&self) -> &F {
        match self {
            Self::Own(fields) => fields,
            Self::Shared(fields) => fields,
        }
    }

    /// Unless a reader has it.
    fn get_mut(&mut self) -> Option<&mut F> {
        match self {
            Self::Own(fields) => Some(fields),
            Self::Shared(fields) => Arc::get_mut(fields),
        }
    }

    fn into_shared(self) -> Arc<F> {
        match self {
            Self::Own(fields) => fields.into(),
            Self::Shared(fields) => fields,
        }
    }

    /// The same to write in, if no reader has it.
    fn into_own(self) -> Option<Box<F>> {
        match self {
            Self::Own(fields) => Some(fields),
            Self::Shared(fields) => Arc::into_inner(fields).map(Box::new),
        }
    }
}

/// What a writer's copy of the fields was made of.
pub(crate) struct Checkout {
    pub(super) generation: u64,
    pub(super) record: Record,
    pub(super) pending: Patch,
}

/// What has been tried on a copy of the fields.
pub(crate) struct TrialUpdate<T: SessionData, R, E> {
    pub(crate) outcome: Result<R, E>,
    pub(crate) snapshot: (Box<T::Fields>, u64),
    pub(crate) patch: Patch,
}

impl<T: SessionData> Slot<T> {
    /// The next guard decodes the fields anew, whatever happens to them. The generation is what the
    /// changes of the lock's holder are made of.
    pub(super) fn forget_snapshot(&self) -> u64 {
        let mut contents = self.contents();
        let _outdated = contents.outdate_snapshot();
        let generation = contents.generation;
        drop(contents);
        generation
    }

    /// The fields for a reader, who holds the lock. `now` is the layer's `field_time`, here as
    /// everywhere.
    pub(super) fn snapshot(&self, now: u64) -> Arc<T::Fields> {
        let (generation, stale, record, pending) = {
            let mut contents = self.contents();
            let stale = match contents.snapshot.as_ref().map(Snapshot::get) {
                Some(snapshot) if T::__tracked(snapshot).is_stale() => contents.snapshot.take(),
                Some(snapshot) if is_valid::<T>(snapshot, now) => {
                    if let Some(shared) = contents.share_snapshot() {
                        return shared;
                    }
                    None
                }
                _ => None,
            };
            (contents.generation, stale, contents.known.record.clone(), contents.pending.clone())
        };
        let snapshot = match refreshed::<T>(stale, &record, &pending, now) {
            Some(known) => known.into_shared(),
            None => Arc::new(decode::<T>(&record, &pending, now)),
        };
        let _outdated = {
            let mut contents = self.contents();
            // Another reader may have been as fast; each then has its own.
            let known = contents.snapshot.as_ref();
            let is_news = !known.is_some_and(|known| is_valid::<T>(known.get(), now));
            match contents.generation == generation && is_news {
                true => contents.snapshot.replace(Snapshot::Shared(snapshot.clone())),
                false => None,
            }
        };
        snapshot
    }

    /// The fields for a writer, who holds the lock: nobody else has this copy.
    pub(super) fn check_out(&self, now: u64) -> (Box<T::Fields>, Checkout) {
        let (snapshot, checkout) = {
            let mut contents = self.contents();
            let snapshot = contents.snapshot.take();
            let (generation, pending) = (contents.generation, contents.pending.clone());
            (snapshot, Checkout { generation, record: contents.known.record.clone(), pending })
        };
        // Readers are gone while a writer has the lock, and their copies with them.
        let known = refreshed::<T>(snapshot, &checkout.record, &checkout.pending, now);
        let mut fields = known
            .and_then(Snapshot::into_own)
            .unwrap_or_else(|| Box::new(decode::<T>(&checkout.record, &checkout.pending, now)));
        T::__tracked_mut(&mut fields).check_out_to(self.address());
        (fields, checkout)
    }

    /// Changes a copy of the fields, and keeps nothing of that: neither for the next guard nor for
    /// the next save.
    pub(super) fn try_change<R, E>(
        &self,
        writing: Writing<'_>,
        change: &mut impl FnMut(&mut T::Fields) -> Result<R, E>,
    ) -> Result<TrialUpdate<T, R, E>, Error> {
        let (mut fields, checkout) = self.check_out(writing.now);
        let outcome = change(&mut fields);
        let mut patch = Patch::default();
        if outcome.is_ok() {
            let tracked = T::__tracked_mut(&mut fields);
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
        Ok(TrialUpdate { outcome, snapshot: (fields, checkout.generation), patch })
    }

    /// The changes of a copy are stored: the next guard can have it, unless more has changed, or it
    /// has changed places with another session's.
    pub(crate) fn keep_snapshot(&self, (mut fields, generation): (Box<T::Fields>, u64)) {
        let mut contents = self.contents();
        if contents.generation == generation
            && T::__tracked(&fields).is_checked_out_to(self.address())
        {
            T::__tracked_mut(&mut fields).mark_clean_except(contents.unsaved());
            contents.snapshot = Some(Snapshot::Own(fields));
        }
    }

    /// Takes a writer's fields back and makes what it has changed into bytes. Says whether the
    /// writer now answers for something that is not saved.
    ///
    /// A copy that is not taken back, because the writer panicked, is forgotten: the next guard
    /// decodes another from what was there before. So is one that outdated changes are in: it stays with the
    /// caller, who drops it.
    pub(crate) fn check_in(
        &self,
        checked_out: &mut Option<Box<T::Fields>>,
        checkout: &Checkout,
        writing: Writing<'_>,
    ) -> bool {
        // Long: one critical section, each step of which has to see what the one before left.
        let Writing { policy, writer, .. } = writing;
        let Some(fields) = checked_out.as_deref_mut() else { return false };
        let tracked = T::__tracked_mut(fields);
        let is_ours = tracked.is_checked_out_to(self.address());
        let mut changes = writing.changes(tracked, self.address(), checkout);
        if changes.is_empty() {
            let mut contents = self.contents();
            if contents.generation == checkout.generation && is_ours {
                // What earlier guards changed may have been saved meanwhile.
                tracked.mark_clean_except(contents.unsaved());
                contents.snapshot = checked_out.take().map(Snapshot::Own);
            }
            return false;
        }

        // What the copy was made of may have changed since. Merging runs code of a user's, so that
        // it happens outside of the lock, and again if something has changed meanwhile.
        let mut known = checkout.generation;
        let mut rebased = None;
        let mut contents = loop {
            let contents = self.contents();
            if contents.generation == known {
                break contents;
            }
            known = contents.generation;
            let (record, pending) = (contents.known.record.clone(), contents.pending.clone());
            drop(contents);
            rebased = Some(rebase::onto::<T>(&changes, checkout, &record, &pending, policy));
        };
        let changes = rebased.as_mut().unwrap_or(&mut changes);
        contents.revision += 1;
        let verdict = contents.verdict(changes, writer);
        let answers = contents.take_over(changes.drain(..), writer, verdict.as_ref());
        // What is stored may have changed since the copy was checked out; and a field that an earlier
        // guard changed may have been changed back.
        let is_same_record = Arc::ptr_eq(&contents.known.record.payload, &checkout.record.payload);
        if answers && !(is_same_record && checkout.pending.is_empty()) {
            contents.forget_unchanged();
        }
        if contents.generation == checkout.generation && is_ours && verdict.is_none() {
            tracked.mark_clean_except(contents.unsaved());
            contents.snapshot = checked_out.take().map(Snapshot::Own);
        }
        answers
    }

    fn address(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }
}

impl<T: SessionData> Contents<T> {
    /// Why nothing of what this writer has changed can be stored, if so: because of one of these changes, or
    /// of an earlier one.
    fn verdict(&mut self, changes: &Changes, writer: RequestId) -> Option<Refusal> {
        for (field, change) in changes {
            if let Change::Refused(refusal) = change
                && refusal.is_of_whole_request()
            {
                self.refuse(*field, writer, refusal.clone());
            }
        }
        let mut refused = self.refused.iter().filter(|refused| refused.writer == writer);
        let earlier = refused.find(|refused| refused.refusal.is_of_whole_request());
        let fenced_off = || self.is_fenced_off(writer).then_some(Refusal::LeaseLost);
        earlier.map(|refused| refused.refusal.clone()).or_else(fenced_off)
    }

    /// Takes over what a released guard has changed, under a verdict or without. Says whether the writer
    /// answers for something that is not saved.
    fn take_over(
        &mut self,
        changes: impl ExactSizeIterator<Item = (usize, Change)>,
        writer: RequestId,
        verdict: Option<&Refusal>,
    ) -> bool {
        let mut answers = false;
        self.pending.reserve(changes.len());
        // The usual case: then no entry of another request, nor of an earlier guard, has to be looked for.
        let is_first = self.pending.is_empty();
        for (field, change) in changes {
            let is_it = |it: &Refused| (it.field, it.writer) == (field, writer);
            if !self.refused.is_empty() {
                // To set the field to something else helps where the value was what could not be stored.
                self.refused.retain(|it| !is_it(it) || it.refusal.is_final());
            }
            let refusal = match (change, verdict) {
                (Change::Nothing, _) => continue,
                (Change::Refused(refusal), _) => refusal,
                (Change::To(_), Some(refusal)) => refusal.clone(),
                (Change::None(_), Some(_)) => continue,
                (Change::To(body), None) => {
                    match is_first {
                        true => self.pending.push(field, body, writer),
                        false => self.pending.set(field, body, writer),
                    }
                    answers = true;
                    continue;
                }
                // Another request's unsaved write of the same value is now this one's too; and if the
                // store may have something else by now, to leave a field as it was is a change.
                (Change::None(body), None) => {
                    if self.pending.contains(field) || self.outcome_unknown() {
                        self.pending.set(field, body, writer);
                        answers = true;
                    }
                    continue;
                }
            };
            answers = true;
            if !self.refused.iter().any(is_it) {
                self.refused.push(Refused { field, refusal, writer });
            }
        }
        answers
    }

    /// The snapshot for one more reader.
    fn share_snapshot(&mut self) -> Option<Arc<T::Fields>> {
        if let Some(Snapshot::Shared(fields)) = &self.snapshot {
            return Some(fields.clone());
        }
        let fields = self.snapshot.take()?.into_shared();
        self.snapshot = Some(Snapshot::Shared(fields.clone()));
        Some(fields)
    }

    /// The snapshot is not what the next guard should see, and no copy that is checked out may come
    /// back.
    #[must_use = "the old snapshot is dropped when the contents are unlocked: its fields may have a `Drop`"]
    pub(super) fn outdate_snapshot(&mut self) -> Option<Snapshot<T::Fields>> {
        self.generation += 1;
        self.snapshot.take()
    }

    /// Makes the snapshot of an idle slot equal to what decoding the record would give: fields that a
    /// writer has changed are loaded again before the next guard sees them, or all fields where that is
    /// not enough.
    #[must_use = "the old snapshot is dropped when the contents are unlocked: its fields may have a `Drop`"]
    pub(super) fn prepare_idle_snapshot(&mut self) -> Option<Snapshot<T::Fields>> {
        let snapshot = self.snapshot.as_mut()?;
        if T::__LOADS_ALIKE && !T::__tracked(snapshot.get()).was_checked_out() {
            return None;
        }
        if T::__LOADS_ALIKE
            && !const { FieldInfo::any_has_ttl(T::FIELDS) }
            && let Some(fields) = snapshot.get_mut()
        {
            T::__tracked_mut(fields).mark_stale();
            return None;
        }
        self.outdate_snapshot()
    }

    /// Clears the dirty bits of what has been saved. A snapshot that is checked out finds out by itself when
    /// it comes back: what it has is what is stored.
    #[must_use = "the old snapshot is dropped when the contents are unlocked: its fields may have a `Drop`"]
    pub(super) fn mark_snapshot_saved(&mut self) -> Option<Snapshot<T::Fields>> {
        let mut snapshot = self.snapshot.take()?;
        // If a reader looks at it, the next guard gets a new one.
        let Some(fields) = snapshot.get_mut() else { return Some(snapshot) };
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

/// `known`, if it is a snapshot of these that nobody else has, or can be made into one.
fn refreshed<T: SessionData>(
    known: Option<Snapshot<T::Fields>>,
    record: &Record,
    pending: &Patch,
    now: u64,
) -> Option<Snapshot<T::Fields>> {
    let mut known = known.filter(|known| is_valid::<T>(known.get(), now))?;
    let tracked = T::__tracked_mut(known.get_mut()?);
    if tracked.is_stale() {
        // The slot was idle, and nothing is pending.
        if !pending.is_empty() {
            return None;
        }
        tracked.reload_changed(&record.payload);
    }
    Some(known)
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
