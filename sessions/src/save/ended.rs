//! Waiting for the end of a session, in whichever process it ends.

use std::{
    future::poll_fn,
    pin::pin,
    sync::Arc,
    task::Poll,
    time::{Duration, SystemTime},
};

use tokio::{
    runtime::Handle as Runtime,
    time::{Instant, sleep_until, timeout},
};
use tracing::Instrument;

use crate::{
    data::SessionData,
    record::{Record, expiry::Lifetime},
    save::{load, shared::Shared},
    slot::{Slot, SlotState, SlotView, ending::SessionEnd},
    store::timed::Timed,
    sync::sleep,
};

/// Two looks at one session are so far apart at least, however often it is saved meanwhile.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(5);

/// The longest pause after a look that has failed or found nothing new, unless the layer's interval is
/// shorter: a store that was down tells of no change until the session is looked at again; and a server
/// whose list of watched keys is too small tells of changes that are none.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

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
    let _waiter = waiters.enter();
    let (mut is_first, mut has_retried) = (true, false);
    loop {
        start_watch(&shared, &slot, is_first);
        is_first = false;
        // Before the questions, so that nothing is told between the two.
        let told = waiters.told.notified();
        if let Some(end) = slot.end_reached() {
            return end;
        }
        // A task that has ended since it was started has told that too early. Twice in a row it is the
        // runtime that takes no task any more.
        if !waiters.is_watched() && !has_retried {
            has_retried = true;
            continue;
        }
        told.await;
        has_retried = false;
    }
}

/// Starts the task that looks at the store, unless there is one. The first waiter's looks at once; a later
/// one takes the place of one that has ended by a panic or with its runtime, and looks after a pause.
fn start_watch<T: SessionData>(shared: &Arc<Shared<T>>, slot: &Arc<Slot<T>>, is_first: bool) {
    // Without a runtime there is no time either: then an end in this process is all that is heard of.
    let Ok(runtime) = Runtime::try_current() else { return };
    let waiters = slot.end_waiters();
    let Some(number) = waiters.begin_watch() else { return };
    let watching = Watching { slot: slot.clone(), number };
    let shared = shared.clone();
    let looking = async move {
        if !is_first {
            sleep(shared.settings.end_check_interval.min(LONGEST_PAUSE)).await;
        }
        watch(&shared, &watching.slot).await;
    };
    let task = runtime.spawn(looking.in_current_span());
    waiters.note_watch(number, task.abort_handle());
}

/// The task that looks at the store. However the task ends, the waiters are told, so that one of them
/// starts another if the session has not ended.
struct Watching<T: SessionData> {
    slot: Arc<Slot<T>>,
    number: u64,
}

impl<T: SessionData> Drop for Watching<T> {
    fn drop(&mut self) {
        let waiters = self.slot.end_waiters();
        waiters.end_watch(self.number);
        waiters.told.notify_waiters();
    }
}

/// Looks at the store whenever the store says that something has changed, when the session would expire,
/// and after the layer's interval; until the session has ended.
async fn watch<T: SessionData>(shared: &Shared<T>, slot: &Slot<T>) {
    let (mut pause, mut seen) = (SHORTEST_INTERVAL, None);
    loop {
        let begun = Instant::now();
        // Before the question whether the session is stored, so that nothing is told between the two.
        let stored = slot.end_waiters().stored.notified();
        match (slot.registration(), shared.store()) {
            (Some(registration), Some(Timed { store, .. })) => {
                let mut change = pin!(store.next_change(&registration.key));
                // From here on a change is noticed; what was changed before, the look shows.
                let has_changed =
                    poll_fn(|cx| Poll::Ready(change.as_mut().poll(cx).is_ready())).await;
                // Not what a cache remembers, which may never ask the store.
                let look = load::refresh_latest(shared, slot, &registration.key).await;
                if slot.end_reached().is_some() {
                    return;
                }
                let mut rest = until_next_look(shared, slot);
                if let Err(error) = look {
                    let error = error.for_log();
                    tracing::debug!(error, "a look at a session that is waited for failed");
                    rest = rest.min(LONGEST_PAUSE);
                }
                let is_told = has_changed || timeout(rest, change).await.is_ok();
                // Told of a change again and again, and there is none.
                let version = slot.record().version;
                pause = match is_told && seen.replace(version) == Some(version) {
                    true => (2 * pause).min(LONGEST_PAUSE),
                    false => SHORTEST_INTERVAL,
                };
            }
            // Not stored, or in its cookie: this process alone can end it, and the clock.
            _ => {
                if timeout(until_next_look(shared, slot), stored).await.is_ok() {
                    continue;
                }
                slot.end_if(|state, record, life| {
                    let end = end_in_no_store(shared, state, record, life);
                    end.is_some_and(|end| end <= shared.now())
                });
            }
        }
        sleep_until(begun + pause).await;
    }
}

/// When a session that no store has ends by itself. `None` as long as the request that has begun it may still
/// save it.
fn end_in_no_store<T: SessionData>(
    shared: &Shared<T>,
    state: SlotState,
    record: &Record,
    lifetime: Lifetime,
) -> Option<SystemTime> {
    let expiry = &shared.settings.expiry;
    match state {
        // In its cookie.
        SlotState::Stored | SlotState::Unsendable if record.version > 0 => {
            let end = expiry.ends_at(lifetime, record.created_at);
            Some(end.map_or(record.expires_at, |end| end.min(record.expires_at)))
        }
        // Nobody has its cookie, nor ever will: it ends when it would have if it had been stored.
        SlotState::Unsendable => {
            Some(expiry.expires_at(lifetime, record.created_at, record.created_at))
        }
        _ => None,
    }
}

fn until_next_look<T: SessionData>(shared: &Shared<T>, slot: &Slot<T>) -> Duration {
    let expires_at = slot.inspect(|SlotView { state, lifetime, record, .. }| match state {
        SlotState::Stored => Some(record.expires_at),
        _ => end_in_no_store(shared, state, record, lifetime),
    });
    let left = expires_at.and_then(|end| end.duration_since(shared.now()).ok()).unwrap_or_default();
    match left.is_zero() {
        false => (left + CLOCK_STEP).min(shared.settings.end_check_interval),
        true => shared.settings.end_check_interval,
    }
}
