//! A slot's lock, taken: what only its holder may do.
//!
//! 1. The request with the lock sees the fields ([`LockToken::snapshot`]).
//! 2. The request that has it for writing has the only copy of the fields ([`LockToken::check_out`],
//!    [`LockToken::try_change`]), and decides what becomes of the session as a whole: nothing is released in
//!    between.

use std::{panic::Location, sync::Arc};

use super::{
    Slot,
    changes::Writing,
    lock::{Access, Patience, TimedOut},
    registry::Registration,
    snapshot::{Checkout, TrialUpdate},
};
use crate::{
    data::{SessionData, patch::RequestId},
    error::Error,
    record::{Record, head::Lease},
};

/// A place in the lock of a slot. Its drop gives the place to the next.
pub(crate) struct LockToken<T: SessionData> {
    slot: Arc<Slot<T>>,
    access: Access,
    at: &'static Location<'static>,
}

impl<T: SessionData> LockToken<T> {
    /// If the lock is free. The slot is in use meanwhile only if it is.
    pub(crate) fn take(
        slot: &Arc<Slot<T>>,
        access: Access,
        at: &'static Location<'static>,
    ) -> Option<Self> {
        slot.lock.take(access, at).then(|| Self { slot: slot.clone(), access, at })
    }

    /// The token for writing of a slot that nobody else knows yet.
    #[cfg(feature = "adopt")]
    #[track_caller]
    pub(crate) fn for_new_slot(slot: Slot<T>) -> Self {
        let at = Location::caller();
        let is_free = slot.lock.take(Access::Write, at);
        debug_assert!(is_free, "another request knows the slot");
        Self { slot: Arc::new(slot), access: Access::Write, at }
    }

    pub(crate) fn try_acquire(
        slot: Arc<Slot<T>>,
        access: Access,
        at: &'static Location<'static>,
    ) -> Result<Self, TimedOut> {
        slot.lock.try_acquire(access, at)?;
        Ok(Self { slot, access, at })
    }

    pub(crate) async fn acquire(
        slot: Arc<Slot<T>>,
        access: Access,
        at: &'static Location<'static>,
        patience: Patience,
    ) -> Result<Self, TimedOut> {
        slot.lock.acquire(access, at, patience).await?;
        Ok(Self { slot, access, at })
    }

    pub(crate) fn slot(&self) -> &Arc<Slot<T>> {
        &self.slot
    }

    /// The slot, for what takes the lock for writing.
    fn writing(&self) -> &Slot<T> {
        debug_assert_eq!(self.access, Access::Write);
        &self.slot
    }

    /// See [`Slot::snapshot`].
    pub(crate) fn snapshot(&self, now: u64) -> Arc<T::Fields> {
        self.slot.snapshot(now)
    }

    /// See [`Slot::check_out`].
    pub(crate) fn check_out(&self, now: u64) -> (Box<T::Fields>, Checkout) {
        self.writing().check_out(now)
    }

    /// See [`Slot::try_change`].
    pub(crate) fn try_change<R, E>(
        &self,
        writing: Writing<'_>,
        change: &mut impl FnMut(&mut T::Fields) -> Result<R, E>,
    ) -> Result<TrialUpdate<T, R, E>, Error> {
        self.writing().try_change(writing, change)
    }

    /// See [`Slot::forget_snapshot`].
    pub(crate) fn forget_snapshot(&self) -> u64 {
        self.writing().forget_snapshot()
    }

    /// See [`Slot::end_with_successor`].
    pub(crate) fn end_with_successor(
        &self,
        record: Record,
        registration: Registration<T>,
        limit: usize,
    ) -> Slot<T> {
        self.writing().end_with_successor(record, registration, limit)
    }

    /// See [`Slot::want_lease`].
    pub(crate) fn want_lease(&self, lease: Lease, writer: RequestId) {
        self.writing().want_lease(lease, writer);
    }
}

impl<T: SessionData> Drop for LockToken<T> {
    fn drop(&mut self) {
        self.slot.lock.release(self.access, self.at);
    }
}
