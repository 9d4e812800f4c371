//! A slot's half towards leases: what this process wants, has, gives back or has lost.

use super::{Contents, Slot};
use crate::error::refusal::Refusal;
use crate::{
    data::{SessionData, patch::Writer},
    record::head::{Head, Lease},
};

/// How often a process hands a lease on to itself before others have their turn.
const MOST_HANDED_ON: u32 = 8;

/// A lease from this process's side.
pub(super) struct Hold {
    lease: Lease,
    pub(super) writer: Writer,
    state: HoldStage,
    /// The version of the record that has it.
    version: u64,
    /// Those that it takes the place of, which may still be in the store, with their writers.
    before: Vec<(u64, Writer)>,
}

impl Hold {
    fn is_ours(&self, holder: u64) -> bool {
        self.lease.holder == holder || self.before.iter().any(|(before, _)| *before == holder)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum HoldStage {
    /// Not in the store yet, as far as we know.
    Wanted,
    Held,
    /// Given up, and not out of the store yet.
    Released,
    /// Somebody else has taken over, because we did not renew it in time.
    Lost,
}

impl<T: SessionData> Slot<T> {
    /// Wants a lease from now on; the next save takes it. In this process its holder is alone: it
    /// has the lock for writing.
    pub(crate) fn want_lease(&self, lease: Lease, writer: Writer) {
        let mut contents = self.contents();
        let before = contents.hold.take().map_or_else(Vec::new, |mut hold| {
            hold.before.push((hold.lease.holder, hold.writer));
            hold.before
        });
        contents.handed_on = if before.is_empty() { 0 } else { contents.handed_on + 1 };
        let hold = Hold { lease, writer, state: HoldStage::Wanted, version: 0, before };
        contents.hold = Some(Box::new(hold));
    }

    /// Whether one lease has followed the other in this process for so long that another process
    /// should have its turn.
    pub(crate) fn is_giving_way(&self) -> bool {
        let contents = self.contents();
        contents.hold.is_some() && contents.handed_on >= MOST_HANDED_ON
    }

    /// The version of the record that the lease was taken or last renewed with, as long as it was
    /// ours; that of the record if there is none.
    pub(crate) fn lock_version(&self) -> u64 {
        let contents = self.contents();
        match &contents.hold {
            Some(hold) if hold.state != HoldStage::Wanted => hold.version,
            _ => contents.record.version,
        }
    }

    /// Wants the lease no more; says whether it may be in the store, so that a save has to take it
    /// out.
    pub(crate) fn release_lease(&self, holder: u64) -> bool {
        let mut contents = self.contents();
        let in_doubt = contents.outcome_unknown();
        let Some(hold) = contents.hold.as_mut().filter(|hold| hold.lease.holder == holder) else {
            return false;
        };
        let may_be_stored = match hold.state {
            HoldStage::Held | HoldStage::Released => true,
            HoldStage::Wanted => in_doubt || !hold.before.is_empty(),
            HoldStage::Lost => false,
        };
        hold.state = HoldStage::Released;
        if !may_be_stored {
            contents.hold = None;
        }
        may_be_stored
    }

    /// The lease that somebody else has on the session, with the version that says so.
    pub(crate) fn foreign_lease(&self, overdue: Option<u64>) -> Option<(Lease, u64)> {
        let contents = self.contents();
        contents.foreign_lease(overdue).map(|lease| (lease, contents.record.version))
    }
}

impl<T: SessionData> Contents<T> {
    /// What stands in the next record.
    pub(super) fn next_lease(&self) -> Option<Lease> {
        self.hold.as_ref().and_then(|hold| match hold.state {
            HoldStage::Wanted | HoldStage::Held => Some(hold.lease),
            HoldStage::Released | HoldStage::Lost => None,
        })
    }

    /// Compares the lease in a record with ours. `gave_up`: the record comes after the save that
    /// took ours out, or may do so.
    pub(super) fn note_lease(&mut self, head: &Head, version: u64, gave_up: bool) {
        let Some(hold) = &mut self.hold else { return };
        let holder = head.lease.map(|lease| lease.holder);
        let is_ours = holder == Some(hold.lease.holder);
        // Of those before ours, the one that the store has is not lost, and what was written under
        // an earlier one has gone to the store before it.
        let is_older = hold.before.iter().any(|(before, _)| holder == Some(*before));
        let mut losers = Vec::new();
        if !is_ours && !is_older && !gave_up {
            losers.extend(hold.before.iter().map(|(_, writer)| *writer));
        }
        if !is_older {
            hold.before.clear();
        }
        match hold.state {
            HoldStage::Wanted | HoldStage::Held if is_ours => {
                hold.state = HoldStage::Held;
                hold.version = version;
            }
            HoldStage::Released if is_ours || is_older => {}
            HoldStage::Held => {
                hold.state = HoldStage::Lost;
                losers.push(hold.writer);
            }
            HoldStage::Released => {
                if !gave_up {
                    losers.push(hold.writer);
                }
                self.hold = None;
            }
            HoldStage::Wanted | HoldStage::Lost => {}
        }
        for writer in losers {
            tracing::warn!("a session's lease was lost: it was not renewed in time");
            self.refuse_all_of(writer, &Refusal::LeaseLost);
        }
    }

    /// Whether what this writer releases was written under a lease that is not its own any more.
    pub(super) fn is_fenced_off(&self, writer: Writer) -> bool {
        let hold = self.hold.as_ref();
        hold.is_some_and(|hold| hold.state == HoldStage::Lost && hold.writer == writer)
    }

    /// Whether the record has to be saved for the sake of its lease. A new session needs none:
    /// nobody else knows it.
    pub(super) fn lease_is_due(&self, renews: bool) -> bool {
        let stored = self.head.lease.map(|lease| lease.holder);
        self.record.version > 0
            && self.hold.as_ref().is_some_and(|hold| match hold.state {
                HoldStage::Wanted => true,
                HoldStage::Held => renews,
                HoldStage::Released => stored.is_some_and(|stored| hold.is_ours(stored)),
                HoldStage::Lost => false,
            })
    }

    pub(super) fn foreign_lease(&self, overdue: Option<u64>) -> Option<Lease> {
        let lease = self.head.lease?;
        let is_ours = self.hold.as_ref().is_some_and(|hold| hold.is_ours(lease.holder));
        (!is_ours && overdue != Some(lease.holder)).then_some(lease)
    }
}
