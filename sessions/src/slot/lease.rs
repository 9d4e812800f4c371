//! The local side of a lease: what this process wants, has, gives back or has lost.
//!
//! ```text
//! want_lease ──► Wanted ──saved, or found in a record──► Held ──another holder in a record──► Lost
//!                  │                                      │                                   │
//!                  └───────────── release_lease ──────────┴──► Released ──out of the store──► none
//! ```
//!
//! A lease is wanted before the store has it, and released before it is out of the store: the saves
//! in between carry it there and back. What a guard writes under a lease that is lost is refused.

use super::{Contents, Slot};
use crate::error::refusal::Refusal;
use crate::{
    data::{SessionData, patch::RequestId},
    record::head::{Head, Lease},
};

/// How often in a row the guards of one process may take the lease before it waits for another process.
const LONGEST_STREAK: u32 = 8;

/// The lease that this process wants, has or gives back.
pub(super) struct LocalLease {
    lease: Lease,
    pub(super) writer: RequestId,
    state: LeaseState,
    /// The version of the record that first had the lease, or that renewed it last; 0 if none is known to
    /// have had it.
    version: u64,
    /// The holders that this lease replaces, and that may still be in the store, with their writers.
    before: Vec<(u64, RequestId)>,
}

impl LocalLease {
    fn is_ours(&self, holder: u64) -> bool {
        self.lease.holder == holder || self.before.iter().any(|(before, _)| *before == holder)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum LeaseState {
    /// Not in the store yet, as far as this process knows.
    Wanted,
    Held,
    /// Given back, and not out of the store yet.
    Released,
    /// Another process has taken over, because this one did not renew the lease in time.
    Lost,
}

impl<T: SessionData> Slot<T> {
    /// Wants a lease from now on; the next save takes it. The lock's holder wants one, so that no other
    /// request of this process does at the same time.
    pub(super) fn want_lease(&self, lease: Lease, writer: RequestId) {
        let mut contents = self.contents();
        let before = contents.local_lease.take().map_or_else(Vec::new, |mut local| {
            local.before.push((local.lease.holder, local.writer));
            local.before
        });
        contents.local_streak = if before.is_empty() { 0 } else { contents.local_streak + 1 };
        let local = LocalLease { lease, writer, state: LeaseState::Wanted, version: 0, before };
        contents.local_lease = Some(Box::new(local));
    }

    /// Whether this process has taken the lease so often in a row that another process should have its
    /// turn.
    pub(crate) fn should_yield(&self) -> bool {
        let contents = self.contents();
        contents.local_lease.is_some() && contents.local_streak >= LONGEST_STREAK
    }

    /// The version of the record that this process's lease was taken or last renewed with, also after
    /// the lease was lost; `None` if no lease was needed, because the session is not stored.
    pub(crate) fn fencing_token(&self) -> Option<u64> {
        let contents = self.contents();
        let local = contents.local_lease.as_ref()?;
        (local.state != LeaseState::Wanted).then_some(local.version)
    }

    /// Gives the lease back; says whether it may be in the store, so that a save has to take it out.
    pub(crate) fn release_lease(&self, holder: u64) -> bool {
        let mut contents = self.contents();
        let in_doubt = contents.outcome_unknown();
        let Some(local) =
            contents.local_lease.as_mut().filter(|local| local.lease.holder == holder)
        else {
            return false;
        };
        let may_be_stored = match local.state {
            LeaseState::Held | LeaseState::Released => true,
            LeaseState::Wanted => in_doubt || !local.before.is_empty(),
            LeaseState::Lost => false,
        };
        local.state = LeaseState::Released;
        if !may_be_stored {
            contents.local_lease = None;
        }
        may_be_stored
    }

    /// The lease that another process has on the session, with the version of the record that says so.
    pub(crate) fn foreign_lease(&self, overdue: Option<u64>) -> Option<(Lease, u64)> {
        let contents = self.contents();
        contents.foreign_lease(overdue).map(|lease| (lease, contents.known.record.version))
    }
}

impl<T: SessionData> Contents<T> {
    /// The lease that the next record will have.
    pub(super) fn next_lease(&self) -> Option<Lease> {
        self.local_lease.as_ref().and_then(|local| match local.state {
            LeaseState::Wanted | LeaseState::Held => Some(local.lease),
            LeaseState::Released | LeaseState::Lost => None,
        })
    }

    /// Compares the lease in a record with the local one. `gave_up`: the record comes, or may come,
    /// after the save that took the local lease out.
    pub(super) fn note_lease(&mut self, head: &Head, version: u64, gave_up: bool) {
        let Some(local) = &mut self.local_lease else { return };
        let holder = head.lease.map(|lease| lease.holder);
        let is_ours = holder == Some(local.lease.holder);
        // The store has one of the earlier leases: that one is not lost, and what was written under
        // those before it has reached the store.
        let is_older = local.before.iter().any(|(before, _)| holder == Some(*before));
        let mut losers = Vec::new();
        if !is_ours && !is_older && !gave_up {
            losers.extend(local.before.iter().map(|(_, writer)| *writer));
        }
        if !is_older {
            local.before.clear();
        }
        match local.state {
            LeaseState::Wanted | LeaseState::Held if is_ours => {
                local.state = LeaseState::Held;
                local.version = version;
            }
            LeaseState::Released if is_ours || is_older => {}
            LeaseState::Held => {
                local.state = LeaseState::Lost;
                losers.push(local.writer);
            }
            LeaseState::Released => {
                // One that was given back before anybody knew that it was taken had no guard.
                if !gave_up && local.version > 0 {
                    losers.push(local.writer);
                }
                self.local_lease = None;
            }
            LeaseState::Wanted | LeaseState::Lost => {}
        }
        for writer in losers {
            tracing::warn!("a session's lease was lost: it was not renewed in time");
            self.refuse_all_of(writer, &Refusal::LeaseLost);
        }
    }

    /// Whether this writer writes under a lease that it has lost.
    pub(super) fn is_fenced_off(&self, writer: RequestId) -> bool {
        let local = self.local_lease.as_ref();
        local.is_some_and(|local| local.state == LeaseState::Lost && local.writer == writer)
    }

    /// Whether the record has to be saved because of its lease. A new session needs no lease: no other
    /// process knows it.
    pub(super) fn lease_is_due(&self, renews: bool) -> bool {
        let stored = self.known.head.lease.map(|lease| lease.holder);
        self.known.record.version > 0
            && self.local_lease.as_ref().is_some_and(|local| match local.state {
                LeaseState::Wanted => true,
                LeaseState::Held => renews,
                LeaseState::Released => stored.is_some_and(|stored| local.is_ours(stored)),
                LeaseState::Lost => false,
            })
    }

    pub(super) fn foreign_lease(&self, overdue: Option<u64>) -> Option<Lease> {
        let lease = self.known.head.lease?;
        let is_ours = self.local_lease.as_ref().is_some_and(|local| local.is_ours(lease.holder));
        (!is_ours && overdue != Some(lease.holder)).then_some(lease)
    }
}
