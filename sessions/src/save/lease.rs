//! Leases: a session for one process alone.
//!
//! A lease stands in the session's record, so that every store has them. Taking one is a save
//! (compare-and-swap), so is renewing it, and giving it back goes with the save of what was written
//! under it. As long as it is there no other process saves. No clocks are compared: a process that waits
//! takes over when it has seen the same version of the record for the whole time of the lease, which its
//! holder renews three times as often. The version is the fencing token: a holder that was too
//! late finds its next save refused.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::{runtime::Handle as Runtime, task::AbortHandle};

use crate::{
    data::{SessionData, patch::RequestId},
    error::{Error, NoRandomness},
    record::head::Lease,
    save::{
        self,
        background::Restarts,
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
    renewal: Arc<Mutex<RenewalState>>,
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
        let leased = Self {
            shared: shared.clone(),
            slot: slot.clone(),
            holder: lease.holder,
            runtime,
            renewal: Arc::default(),
        };
        save::save_with_retries(shared, slot, &mut turn, SaveJob::new(Some(writer))).await?;
        // That where the request began to write may have ended.
        if let Some(runtime) = Runtime::try_current().ok().or_else(|| leased.runtime.clone()) {
            Renewal {
                shared: shared.clone(),
                slot: slot.clone(),
                lease,
                state: leased.renewal.clone(),
                restarts: Restarts::new(&runtime),
                is_over: false,
            }
            .start_in(&runtime);
        }
        Ok(leased)
    }
}

/// Whether a lease is to be renewed, and by which task.
#[derive(Default)]
enum RenewalState {
    #[default]
    NotYet,
    /// Which one of them, and the task.
    Runs(usize, AbortHandle),
    /// The lease has been given back.
    Over,
}

/// Renews a lease. If the runtime that this runs in ends while the lease's guard lives, another one goes on.
struct Renewal<T: SessionData> {
    shared: Arc<Shared<T>>,
    slot: Arc<Slot<T>>,
    lease: Lease,
    state: Arc<Mutex<RenewalState>>,
    restarts: Restarts,
    is_over: bool,
}

impl<T: SessionData> Renewal<T> {
    fn start_in(self, runtime: &Runtime) {
        let (state, number) = (self.state.clone(), self.restarts.count());
        // A runtime that has ended drops the task here, and the next one starts inside of this call.
        let task = runtime.spawn(self.renew()).abort_handle();
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        match &*state {
            RenewalState::Over => task.abort(),
            RenewalState::Runs(later, _) if *later > number => {}
            _ => *state = RenewalState::Runs(number, task),
        }
    }

    fn is_over(&self) -> bool {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        self.is_over || matches!(*state, RenewalState::Over)
    }

    /// Until the lease is lost or the task is stopped.
    async fn renew(mut self) {
        loop {
            sleep(self.lease.time / 3).await;
            let job = SaveJob { kind: SaveKind::RenewLease, ..SaveJob::new(None) };
            let mut turn = StoreTurn::for_slot(&self.slot).await;
            let renewed = save::save_with_retries(&self.shared, &self.slot, &mut turn, job);
            if let Err(error) = renewed.await {
                tracing::warn!("a session's lease was not renewed: {}", error.for_log());
                if !error.is_retryable() {
                    self.is_over = true;
                    return;
                }
            }
        }
    }
}

impl<T: SessionData> Drop for Renewal<T> {
    fn drop(&mut self) {
        if self.is_over() {
            return;
        }
        let mut restarts = std::mem::take(&mut self.restarts);
        let Some(runtime) = restarts.next(&self.shared.background) else {
            return tracing::warn!(
                "a session's lease is renewed no more: its task was cut short, as by the runtime's end"
            );
        };
        let (shared, slot) = (self.shared.clone(), self.slot.clone());
        let (lease, state) = (self.lease, self.state.clone());
        Self { shared, slot, lease, state, restarts, is_over: false }.start_in(&runtime);
    }
}

impl<T: SessionData> Drop for LeaseGuard<T> {
    fn drop(&mut self) {
        let renewal = {
            let mut renewal = self.renewal.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *renewal, RenewalState::Over)
        };
        if let RenewalState::Runs(_, task) = renewal {
            task.abort();
        }
        if self.slot.release_lease(self.holder) {
            let (slot, runtime) = (self.slot.clone(), self.runtime.as_ref());
            self.shared.save_in_background(slot, runtime, None, SaveJob::new(None));
        }
    }
}
