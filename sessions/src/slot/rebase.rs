//! What becomes of changes whose base has changed: pure functions of three states of the fields.

use std::{ops::Deref, sync::Arc};

use super::{
    changes::{Change, Changes},
    reader,
    snapshot::Checkout,
};
use crate::{data::merge::Policy, error::refusal::Refusal};
use crate::{
    data::{
        SessionData,
        body::{self, Body, Encoder},
        codec::Codec,
        merge::{Conflict, Merge},
        patch::{Patch, RequestId},
        payload::PayloadReader,
    },
    meters,
    record::{Record, head::Loaded},
};

/// What became of the writes whose answer was lost.
pub(super) enum WriteOutcome {
    /// There were none, or the store has carried out none of them.
    NotApplied,
    /// Nobody can tell, as one of them had no write id. What it held does no harm if it is stored twice.
    Untraced,
    /// The store has carried out the write of this record.
    Applied(Loaded),
    /// Nobody can tell whether the store has carried out the write of this record: too much has
    /// been saved since.
    Unknown(Loaded),
}

/// What pending changes were made of.
pub(super) struct Base {
    pub(super) outcome: WriteOutcome,
    /// What the store had before those writes.
    pub(super) known: Record,
    /// Whose changes must not be stored twice, of whatever field.
    pub(super) under_lease: Option<RequestId>,
}

impl Base {
    pub(super) fn record(&self) -> &Record {
        match &self.outcome {
            WriteOutcome::Applied(written) | WriteOutcome::Unknown(written) => &written.record,
            WriteOutcome::NotApplied | WriteOutcome::Untraced => &self.known,
        }
    }
}

/// Our change of one field, on top of what others have made of the field.
///
/// `base` is what ours was made of, `theirs` what is there now.
fn rebased<T: SessionData>(
    field: usize,
    base: Option<&[u8]>,
    theirs: Option<&[u8]>,
    ours: &Body,
    policy: Policy,
) -> Result<Body, Refusal> {
    if theirs == base {
        return Ok(ours.clone());
    }
    let info = &T::FIELDS[field];
    let merge = Merge { info, codec: policy.codec, base, theirs, ours };
    let consumed = info.flash && body::consumed(ours);
    if consumed && !is_unconsumed::<T>(field, base, theirs, policy.codec) {
        meters::conflicted();
        return Err(Refusal::Taken);
    }
    match T::__merge(field, merge) {
        Some(merged) => {
            let mut merged = merged.map_err(|error| Refusal::Encode(Arc::new(error.into())))?;
            if consumed {
                body::set_consumed(&mut merged);
            }
            meters::merged();
            Ok((*merged).into())
        }
        None if theirs == Some(&**ours) => Ok(ours.clone()),
        None if policy.conflict == Conflict::Reject => {
            meters::conflicted();
            Err(Refusal::Conflict)
        }
        None => {
            meters::overwrote();
            tracing::warn!(field = info.key, "changed in two places at once: the later save wins");
            Ok(ours.clone())
        }
    }
}

/// Whether all of `base`, which this writer has consumed, is still in `theirs`, or there was nothing
/// to consume.
fn is_unconsumed<T: SessionData>(
    field: usize,
    base: Option<&[u8]>,
    theirs: Option<&[u8]>,
    codec: Codec,
) -> bool {
    let mut nothing = Vec::new();
    let empty = T::__load(&PayloadReader::empty(T::FIELDS));
    let info = &T::FIELDS[field];
    if empty.__encode(field, &mut Encoder::new(codec, info, &mut nothing)).is_err() {
        return false;
    }
    if base.is_none_or(|base| body::is_unset(base) || body::is_same(base, &nothing)) {
        return true;
    }
    // Their additions, and then the consumed value with their additions behind it: if that is what
    // they have, they have only added something.
    let merged = |base, theirs, ours| T::__merge(field, Merge { info, codec, base, theirs, ours });
    let Some(Ok(added)) = merged(base, theirs, &nothing) else { return false };
    let Some(Ok(all)) = merged(None, base, &added) else { return false };
    theirs.is_some_and(|theirs| body::is_same(&all, theirs))
}

/// What is pending on top of `base`, put on top of `newer` instead. Beside it, what cannot be.
pub(super) fn pending<T: SessionData>(
    pending: &Patch,
    base: &Base,
    newer: &Record,
    policy: Policy,
) -> (Patch, Vec<(usize, RequestId, Refusal)>) {
    let (was, now) = (reader::<T>(base.record()), reader::<T>(newer));
    let (mut kept, mut refused) = (Patch::default(), Vec::new());
    let entries: Vec<_> = pending.entries().collect();
    for (at, (field, ours, writer)) in entries.iter().copied().enumerate() {
        let (was, theirs) = (was.body(field), now.body(field));
        // What the base has may have been written by one, on top of what others had written.
        let is_in_base =
            || entries[at..].iter().any(|(f, body, _)| *f == field && was == Some(&***body));
        let counts_twice = T::FIELDS[field].counts_changes() || base.under_lease == Some(writer);
        let rebased = match base.outcome {
            // A change that leaves the base as it is, is none.
            WriteOutcome::NotApplied | WriteOutcome::Applied(_) if was == Some(&**ours) => {
                Ok(theirs.map_or_else(|| ours.clone(), Body::from))
            }
            // A change that the base has may be stored already.
            WriteOutcome::Unknown(_) if counts_twice && is_in_base() => Err(Refusal::Unknown),
            _ => rebased::<T>(field, was, theirs, ours, policy),
        };
        match rebased {
            Ok(body) => kept.set(field, body, writer),
            Err(refusal) => refused.push((field, writer, refusal)),
        }
    }
    (kept, refused)
}

/// What a writer did to its copy, as changes of what is there now.
pub(super) fn onto<T: SessionData>(
    changes: &[(usize, Change)],
    checkout: &Checkout,
    record: &Record,
    pending: &Patch,
    policy: Policy,
) -> Changes {
    let (stored_then, stored_now) = (reader::<T>(&checkout.record), reader::<T>(record));
    let rebased = |field: usize, change: &Change| {
        let base = checkout.pending.body(field).map(Deref::deref).or(stored_then.body(field));
        let unsaved = pending.body(field);
        let now = unsaved.map(Deref::deref).or(stored_now.body(field));
        match change {
            Change::To(ours) => match rebased::<T>(field, base, now, ours, policy) {
                Ok(body) => Change::To(body),
                Err(refusal) => Change::Refused(refusal),
            },
            Change::Nothing => Change::Nothing,
            Change::None(ours) => {
                let stored = || stored_now.body(field).map(Body::from);
                Change::None(unsaved.cloned().or_else(stored).unwrap_or_else(|| ours.clone()))
            }
            Change::Refused(refusal) => Change::Refused(refusal.clone()),
        }
    };
    changes.iter().map(|(field, change)| (*field, rebased(*field, change))).collect()
}
