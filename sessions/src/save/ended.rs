//! Waiting for the end of a session, in whichever process it ends.

use std::{future::poll_fn, pin::pin, sync::Arc, task::Poll, time::Duration};

use tokio::{
    runtime::Handle as Runtime,
    time::{Instant, sleep_until},
};
use tracing::Instrument;

use crate::{
    data::SessionData,
    save::{load, shared::Shared},
    slot::{Slot, SlotState, ending::SessionEnd},
    store::timed::Timed,
    sync::sleep,
};

/// Two looks at one session are so far apart at least, however often it is saved meanwhile.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(5);

/// A little more than the least step of the clocks that say when a record expires.
const CLOCK_STEP: Duration = Duration::from_millis(2);

/// Waits until the session of this slot has ended.
///
/// However many wait for one session, one task looks at the store for all of them, so that a waiter which
/// is not polled for a while holds up no other.
pub(crate) async fn ended<T: SessionData>(
    shared: Arc<Shared<T>>,
    slot: Arc<Slot<T>>,
) -> SessionEnd {
    let waiters = slot.end_waiters();
    let _waiter = waiters.enter(|| {
        let watching = {
            let (shared, slot) = (shared.clone(), slot.clone());
            async move { watch(&shared, &slot).await }
        };
        // Without a runtime there is no time either: then an end in this process is all that is heard of.
        Some(Runtime::try_current().ok()?.spawn(watching.in_current_span()).abort_handle())
    });
    loop {
        // Before the question, so that no end comes between the two.
        let told = waiters.told.notified();
        if let Some(end) = slot.end_reached() {
            return end;
        }
        told.await;
    }
}

/// Looks at the store whenever the store says that something has changed, when the session would expire,
/// and after the layer's interval; until the session has ended.
async fn watch<T: SessionData>(shared: &Shared<T>, slot: &Slot<T>) {
    loop {
        let begun = Instant::now();
        match (slot.registration(), shared.store()) {
            (Some(registration), Some(Timed { store, .. })) => {
                let mut change = pin!(store.next_change(&registration.key));
                // From here on a change is noticed; what was changed before, the look shows.
                let has_changed =
                    poll_fn(|cx| Poll::Ready(change.as_mut().poll(cx).is_ready())).await;
                if let Err(error) = load::refresh(shared, slot, &registration.key).await {
                    let error = error.for_log();
                    tracing::debug!(error, "a look at a session that is waited for failed");
                }
                if slot.state() == SlotState::Ended {
                    return;
                }
                if !has_changed {
                    tokio::select! {
                        () = change => {}
                        () = sleep(until_next_look(shared, slot)) => {}
                    }
                }
            }
            // Not stored yet, or in its cookie: this process alone can end it, and the clock.
            _ => {
                sleep(until_next_look(shared, slot)).await;
                slot.end_if(|record, life| shared.expiry.is_over(record, life, shared.now()));
            }
        }
        sleep_until(begun + SHORTEST_INTERVAL).await;
    }
}

fn until_next_look<T: SessionData>(shared: &Shared<T>, slot: &Slot<T>) -> Duration {
    let expires_at = slot.record().expires_at;
    let left = expires_at.duration_since(shared.now()).unwrap_or_default();
    match slot.state() {
        SlotState::Stored if !left.is_zero() => (left + CLOCK_STEP).min(shared.end_check_interval),
        _ => shared.end_check_interval,
    }
}
