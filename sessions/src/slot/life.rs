//! The life of a slot.
//!
//! ```text
//!                 first save                        go_idle
//! Unsaved ───────────────────────────► Stored ◄──────────────► Loading ◄── a cookie names its session
//!    │                                 │   │    reconcile         │
//!    └─ response left ─► Unsendable ◄──┘   └──────► Ended ◄───────┘
//! ```
//!
//! 1. `Unsaved`: a session begins without record and id; both come with the first save.
//! 2. `Loading`: the record is still to be fetched, by the first request that opens the session, or the
//!    first again after the slot was idle.
//! 3. `Stored`: the slot has a record, and what is pending is saved onto it.
//! 4. `Unsendable`: what is written from now on needs a cookie, and the response has left: of a session that
//!    was not stored by then, so that no client has its cookie, or of one that is kept in its cookie.
//! 5. `Ended`: logged out, expired, or gone on under another id. Every state leads here, nothing leads out.

use super::{
    Contents, Refused, Slot, SlotState, ending::SessionEnd, reader, registry::Registration,
};
use crate::{
    data::{SessionData, patch::RequestId, payload},
    error::refusal::Refusal,
    identity::id::SessionId,
    record::{Record, head::Loaded},
};

impl<T: SessionData> Slot<T> {
    /// The session is over, here or wherever the store was told. How a slot has ended before stays so.
    pub(crate) fn end(&self) {
        let mut contents = self.contents();
        if !matches!(contents.state, SlotState::Ended(_)) {
            contents.state = SlotState::Ended(SessionEnd::Over);
        }
        drop(contents);
        self.tell_waiters();
    }

    /// The same for a caller that knows how the session has ended.
    pub(crate) fn end_as(&self, end: SessionEnd) {
        self.contents().state = SlotState::Ended(end);
        self.tell_waiters();
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

    /// The id is another session's, or what was tried under it is to be forgotten.
    pub(crate) fn forget_id_to_create_under(&self) -> Option<SessionId> {
        let mut contents = self.contents();
        contents.unconfirmed.clear();
        contents.creating.take()
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
            let is_asked = |contents: &Contents<T>| contents.lifetimes.last().map(|(_, it)| *it);
            if is_asked(&contents).is_some() {
                contents.lifetimes.retain(|(asked_by, _)| *asked_by != writer);
                contents.lifetime = is_asked(&contents).unwrap_or(contents.known.head.lifetime);
            }
            contents.revision += 1;
            contents.forget_unchanged();
            contents.outdate_snapshot()
        };
    }

    /// Ends the session under this id, and gives the slot of its successor: the same session under
    /// another id, stored as `record`. Requests that still have this slot keep what it shows.
    pub(super) fn end_with_successor(
        &self,
        record: Record,
        registration: Registration<T>,
        limit: usize,
    ) -> Self {
        let successor = Self::new(SlotState::Stored, record.created_at, Some(registration));
        let head = payload::head_of(&record).unwrap_or_default();
        let mut contents = self.contents();
        contents.state = SlotState::Ended(SessionEnd::Renewed);
        contents.unconfirmed.clear();
        contents.local_lease = None;
        // Requests that still have this slot see what there was, and not who has logged in since.
        contents.known.record.payload =
            contents.payload(&contents.pending, None, &contents.known.head);
        // What did not fit into the record stays behind, and its writer is told.
        contents.pending.forget_saved(&reader::<T>(&record));
        let left = contents.pending.take();
        let size = contents.payload(&left, None, &contents.known.head).len();
        for (field, _, writer) in left.entries() {
            let refusal = Refusal::TooLarge { size, limit };
            contents.refused.push(Refused { field, refusal, writer });
        }
        contents.revision += 1;
        let snapshot = contents.snapshot.take();
        // Also a lifetime that was asked for after the record was made goes along, to be saved there.
        let (lifetime, lifetimes) = (contents.lifetime, std::mem::take(&mut contents.lifetimes));
        contents.known.head.lifetime = lifetime;
        drop(contents);
        self.tell_waiters();
        let _outdated = {
            let mut next = successor.contents();
            (next.lifetime, next.lifetimes, next.snapshot) = (lifetime, lifetimes, snapshot);
            next.note_known(Loaded { record, head });
            next.mark_snapshot_saved()
        };
        successor
    }
}

impl<T: SessionData> Contents<T> {
    /// A change of this writer cannot be stored; and nothing else of the request's, if so the refusal says.
    pub(super) fn refuse(&mut self, field: usize, writer: RequestId, refusal: Refusal) {
        if refusal.is_of_whole_request() {
            self.refuse_all_of(writer, &refusal);
        }
        // In front, so that its writer is told of this field.
        self.refused.insert(0, Refused { field, refusal, writer });
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
