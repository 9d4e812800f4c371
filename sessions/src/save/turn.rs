//! Whose turn it is to talk to the store about one session, and for how long others are in the way.

use std::time::Duration;

use tokio::time::Instant;

use crate::{
    data::SessionData,
    error::Error,
    record::head::Lease,
    save::shared::Shared,
    slot::{Slot, turn::TakenTurn},
    sync::sleep,
};

/// The right to talk to the store about one session, for one purpose. Its holder may let go of it for
/// a moment. Counts for how long leases and other saves have been in the way.
pub(crate) struct StoreTurn<'a, T: SessionData> {
    slot: &'a Slot<T>,
    taken: Option<TakenTurn<'a>>,
    pub(super) lease_wait: LeaseWait,
    pub(super) lost: Lost,
}

impl<'a, T: SessionData> StoreTurn<'a, T> {
    pub(crate) async fn for_slot(slot: &'a Slot<T>) -> Self {
        let taken = Some(slot.take_turn().await);
        Self { slot, taken, lease_wait: LeaseWait::default(), lost: Lost::default() }
    }

    /// Lets other holders of the turn go first for this long.
    pub(crate) async fn pause(&mut self, pause: Duration) {
        self.taken = None;
        sleep(pause).await;
        self.taken = Some(self.slot.take_turn().await);
    }
}

/// The pauses between two loads of a session that another process has leased grow from this one …
const SHORTEST_PAUSE: Duration = Duration::from_millis(2);

/// … to this one.
pub(super) const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// How long the lease of another process has been in the way.
#[derive(Default)]
pub(super) struct LeaseWait {
    /// The lease, the version of the record, and since when the record has had both.
    seen: Option<(Lease, u64, Instant)>,
    started: Option<Instant>,
    pause: Option<Duration>,
    /// The holder of a lease that was not renewed in time.
    pub(super) overdue: Option<u64>,
}

impl<T: SessionData> StoreTurn<'_, T> {
    /// Waits a little before a leased session is loaded again, or finds that the lease is overdue. An
    /// error once this has taken as long as a guard would wait for its lock.
    ///
    /// Lets go of the turn meanwhile: another request may end the session.
    pub(crate) async fn wait_for(
        &mut self,
        lease: Lease,
        version: u64,
        shared: &Shared<T>,
    ) -> Result<(), Error> {
        let now = Instant::now();
        let wait = &mut self.lease_wait;
        let started = *wait.started.get_or_insert(now);
        match wait.seen {
            Some((seen, at, since)) if seen == lease && at == version => {
                if now - since >= lease.time {
                    tracing::warn!("a session's lease was not renewed in time: taken over");
                    wait.overdue = Some(lease.holder);
                    return Ok(());
                }
            }
            _ => wait.seen = Some((lease, version, now)),
        }
        if now - started >= shared.settings.lock_timeout {
            return Err(Error::leased(now - started));
        }
        let pause = wait.pause.map_or(SHORTEST_PAUSE, |pause| (pause * 2).min(LONGEST_PAUSE));
        wait.pause = Some(pause);
        // Boxed, because a timer is large and few requests get here.
        Box::pin(self.pause(pause / 2 + shared.write_ids.jitter(pause / 2))).await;
        Ok(())
    }
}

/// Counts the compare-and-swaps that another process was faster with.
#[derive(Default)]
pub(super) struct Lost {
    times: u32,
    since: Option<Instant>,
}

impl Lost {
    /// Backs off: not at all the first times, then longer each time, up to 64 ms.
    ///
    /// An error once the save has lost for as long as a guard would wait for its lock. Each time another
    /// process has made progress: only many processes that save all the time can cause this error.
    pub(super) async fn pause<T: SessionData>(&mut self, shared: &Shared<T>) -> Result<(), Error> {
        const AT_ONCE: u32 = 2;
        const LONGEST: u32 = 6;
        self.times += 1;
        if self.times <= AT_ONCE {
            return Ok(());
        }
        let now = Instant::now();
        if now - *self.since.get_or_insert(now) >= shared.settings.lock_timeout {
            return Err(Error::contended(self.times));
        }
        let most = Duration::from_millis(1 << (self.times - AT_ONCE).min(LONGEST));
        Box::pin(sleep(shared.write_ids.jitter(most))).await;
        Ok(())
    }
}
