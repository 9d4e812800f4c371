//! Leases: a session for one process alone.
//!
//! A lease stands in the session's record, so that every store has them. Taking one is a save
//! (compare-and-swap), so is renewing it, and giving it back goes with the save of what was written
//! under it. As long as it is there no other process saves. No clocks are compared: a process that waits
//! takes over when it has seen the same version of the record for the whole time of the lease, which its
//! holder renews three times as often. The version is the fencing token: a holder that was too
//! late finds its next save refused.

use std::sync::Arc;

use tokio::{runtime::Handle as Runtime, task::AbortHandle};

use crate::{
    data::{SessionData, patch::RequestId},
    error::{Error, NoRandomness},
    record::head::Lease,
    save::{
        self,
        shared::Shared,
        turn::{LONGEST_PAUSE, StoreTurn},
    },
    slot::{
        Slot,
        plan::{SaveJob, SaveKind},
        token::LockToken,
    },
    sync::sleep,
};

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
    /// Takes the lease. Waits while another process has it, up to the layer's lock timeout.
    ///
    /// A dropped future gives back the lease that it may have got.
    pub(crate) async fn take(
        shared: &Arc<Shared<T>>,
        token: &LockToken<T>,
        writer: RequestId,
        runtime: Option<Runtime>,
    ) -> Result<Self, Error> {
        let mut holder = [0; 8];
        getrandom::fill(&mut holder).map_err(NoRandomness::from)?;
        let lease =
            Lease { holder: u64::from_ne_bytes(holder), time: shared.settings.lease_time() };
        let slot = token.slot();
        let mut turn = StoreTurn::for_slot(slot).await;
        if slot.should_yield() {
            // This process has had the lease again and again: give another process a chance.
            save::save_with_retries(shared, slot, &mut turn, SaveJob::new(None)).await?;
            turn.pause(shared.write_ids.jitter(LONGEST_PAUSE)).await;
        }
        token.want_lease(lease, writer);
        let mut leased = Self {
            shared: shared.clone(),
            slot: slot.clone(),
            holder: lease.holder,
            runtime,
            renewal: None,
        };
        save::save_with_retries(shared, slot, &mut turn, SaveJob::new(Some(writer))).await?;
        // That where the request began to write may have ended.
        let runtime = Runtime::try_current().ok().or_else(|| leased.runtime.clone());
        leased.renewal = runtime.map(|it| it.spawn(leased.renew(lease)).abort_handle());
        Ok(leased)
    }

    /// Renews the lease until it is lost or the task is stopped.
    fn renew(&self, lease: Lease) -> impl Future<Output = ()> + Send + use<T> {
        let (shared, slot) = (self.shared.clone(), self.slot.clone());
        async move {
            loop {
                sleep(lease.time / 3).await;
                let job = SaveJob { kind: SaveKind::RenewLease, ..SaveJob::new(None) };
                let mut turn = StoreTurn::for_slot(&slot).await;
                if let Err(error) = save::save_with_retries(&shared, &slot, &mut turn, job).await {
                    tracing::warn!("a session's lease was not renewed: {}", error.for_log());
                    if !error.is_retryable() {
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
