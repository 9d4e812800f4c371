//! Leases: a session for one process alone.
//!
//! A lease stands in the session's record, so that every store has them. Taking one is a save
//! (compare-and-swap), so is renewing it, and giving it back goes with the save of what was written
//! under it. As long as it is there nobody else saves. No clocks are compared: whoever waits takes
//! over when it has seen the same version of the record for the whole time of the lease, which its
//! holder renews three times as often. The version is the fencing token: a holder that was too
//! late finds its next save refused.

use std::{sync::Arc, time::Duration};

use tokio::{runtime::Handle as Runtime, task::AbortHandle, time::Instant};

use crate::{
    data::{SessionData, patch::RequestId},
    error::Error,
    record::head::Lease,
    save::{self, StoreTurn, shared::Shared},
    slot::{Slot, plan::SaveJob},
    sync::sleep,
};

/// Pauses between two looks at a leased session grow from the one to the other.
const SHORTEST_PAUSE: Duration = Duration::from_millis(2);
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// The lease of one [`Session::lock`](crate::Session::lock). Its drop gives the lease back in the
/// background, together with what was written under it.
pub(crate) struct LeaseGuard<T: SessionData> {
    shared: Arc<Shared<T>>,
    slot: Arc<Slot<T>>,
    holder: u64,
    runtime: Option<Runtime>,
    renewal: Option<AbortHandle>,
}

impl<T: SessionData> LeaseGuard<T> {
    /// Takes the lease. Waits while another process has it, up to the layer's lock timeout. The caller
    /// has the slot's lock for writing.
    ///
    /// A dropped future gives back the lease that it may have got.
    pub(crate) async fn take(
        shared: &Arc<Shared<T>>,
        slot: &Arc<Slot<T>>,
        writer: RequestId,
        runtime: Option<Runtime>,
    ) -> Result<Self, Error> {
        let mut holder = [0; 8];
        getrandom::fill(&mut holder)?;
        let lease = Lease { holder: u64::from_ne_bytes(holder), time: shared.lease_time };
        let mut turn = StoreTurn::for_slot(slot).await;
        if slot.should_yield() {
            // This process has had the lease again and again: give another process a chance.
            save::save_with_retries(shared, slot, &mut turn, SaveJob::new(None)).await?;
            turn.pause(shared.write_ids.jitter(LONGEST_PAUSE)).await;
        }
        slot.want_lease(lease, writer);
        let mut leased = Self {
            shared: shared.clone(),
            slot: slot.clone(),
            holder: lease.holder,
            runtime,
            renewal: None,
        };
        save::save_with_retries(shared, slot, &mut turn, SaveJob::new(Some(writer))).await?;
        let runtime = leased.runtime.clone().or_else(|| Runtime::try_current().ok());
        leased.renewal = runtime.map(|it| it.spawn(leased.renew(lease)).abort_handle());
        Ok(leased)
    }

    /// Renews the lease until it is lost or the task is stopped.
    fn renew(&self, lease: Lease) -> impl Future<Output = ()> + Send + use<T> {
        let (shared, slot) = (self.shared.clone(), self.slot.clone());
        async move {
            loop {
                sleep(lease.time / 3).await;
                let job = SaveJob { renews_lease: true, ..SaveJob::new(None) };
                let mut turn = StoreTurn::for_slot(&slot).await;
                if let Err(error) = save::save_with_retries(&shared, &slot, &mut turn, job).await {
                    tracing::warn!("a session's lease was not renewed: {}", error.for_log());
                    if !error.may_pass() {
                        return;
                    }
                }
            }
        }
    }
}

impl<T: SessionData> Drop for LeaseGuard<T> {
    fn drop(&mut self) {
        if let Some(renewal) = &self.renewal {
            renewal.abort();
        }
        if self.slot.release_lease(self.holder) {
            let (slot, runtime) = (self.slot.clone(), self.runtime.as_ref());
            self.shared.save_in_background(slot, runtime, None, SaveJob::new(None));
        }
    }
}

/// How a wait for somebody else's lease stands.
#[derive(Default)]
pub(crate) struct LeaseWait {
    /// Since when the record has been as it is.
    seen: Option<(Lease, u64, Instant)>,
    started: Option<Instant>,
    pause: Option<Duration>,
    /// The holder of a lease that was not renewed in time.
    pub(crate) overdue: Option<u64>,
}

impl StoreTurn<'_> {
    /// Waits a little before another look at a leased session, or finds that the lease is overdue.
    /// An error once this has taken as long as a guard would wait for its lock.
    ///
    /// Meanwhile others may talk to the store about this session, as to end it.
    pub(crate) async fn wait_for<T: SessionData>(
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
        if now - started >= shared.lock_timeout {
            return Err(Error::leased(now - started));
        }
        let pause = wait.pause.map_or(SHORTEST_PAUSE, |pause| (pause * 2).min(LONGEST_PAUSE));
        wait.pause = Some(pause);
        // Boxed, because a timer is large and nearly nobody gets here.
        Box::pin(self.pause(pause / 2 + shared.write_ids.jitter(pause / 2))).await;
        Ok(())
    }
}
