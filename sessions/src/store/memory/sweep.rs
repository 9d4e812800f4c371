//! The cleanup on a schedule: one task, in small steps.

use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use tokio::{runtime::Handle, sync::watch, task::yield_now, time::timeout};

use super::{Inner, SHARDS, shard::Entry};

/// How many sessions are removed under one hold of a lock.
const STEP: usize = 32;

/// A store's half of its sweep.
pub(super) struct Sweep {
    interval: Duration,
    /// No task runs, and one may be started. Every call looks here, so it is the cheapest flag
    /// that there is; `start` then decides with care.
    wanted: AtomicBool,
    /// Says stop. The task holds the one receiver: it is woken by `true` and also when the store,
    /// and the sender with it, is gone; and whoever waits for its end waits until the receiver is.
    stop: watch::Sender<bool>,
}

impl Sweep {
    pub(super) fn new(interval: Duration) -> Self {
        Self { interval, wanted: AtomicBool::new(true), stop: watch::Sender::new(false) }
    }

    pub(super) fn ensure_started(&self, store: &Arc<Inner>) {
        if self.wanted.load(Relaxed) {
            self.start(store);
        }
    }

    #[cold]
    fn start(&self, store: &Arc<Inner>) {
        // Outside of a runtime expiry works as well, and a later call will find one.
        let Ok(runtime) = Handle::try_current() else { return };
        // Of several calls at once, one.
        if self.wanted.swap(false, Relaxed) {
            let task = Task { store: Arc::downgrade(store), passes: 0 };
            runtime.spawn(task.run(self.stop.subscribe(), self.interval));
        }
    }

    /// Tells the task to end, and waits until it has.
    pub(super) async fn stop(&self) {
        // A task that is just being started sees the flag before its first pass.
        self.wanted.store(false, Relaxed);
        self.stop.send_replace(true);
        self.stop.closed().await;
    }
}

/// The running sweep. It must not keep the store alive, so it borrows it step by step.
struct Task {
    store: Weak<Inner>,
    passes: u64,
}

impl Task {
    async fn run(mut self, mut stop: watch::Receiver<bool>, interval: Duration) {
        // `wait_for` ends with `true` and with the end of the store, `timeout` with the interval.
        while timeout(interval, stop.wait_for(|&stop| stop)).await.is_err() {
            self.passes += 1;
            if self.pass(&stop).await.is_none() {
                return;
            }
        }
    }

    /// Removes what has expired, shard by shard. `None` once the store is gone or says stop.
    async fn pass(&self, stop: &watch::Receiver<bool>) -> Option<()> {
        let mut removed = Vec::with_capacity(STEP);
        let mut total = 0;
        for index in 0..SHARDS {
            while self.store.upgrade()?.sweep_step(index, &mut removed) {
                // No lock is held here. The memory goes back, and then others may go first.
                total += removed.len();
                removed.clear();
                yield_now().await;
                if *stop.borrow() {
                    return None;
                }
            }
        }
        if total > 0 {
            tracing::debug!(sessions = total, "swept the memory store");
        }
        Some(())
    }
}

/// However it ends: stopped, with its runtime, by a panic.
impl Drop for Task {
    fn drop(&mut self) {
        let Some(store) = self.store.upgrade() else { return };
        let sweep = &store.sweep;
        if thread::panicking() && self.passes == 0 {
            // The runtime has no timers (the panic says so); it would be the same every time.
            tracing::error!("the memory store is not swept: the runtime's timers are not enabled");
        } else if !*sweep.stop.borrow() {
            // The next call inside a runtime starts it again.
            sweep.wanted.store(true, Relaxed);
        }
    }
}

impl Inner {
    /// Moves up to [`STEP`] expired sessions of one shard into `removed`, which is empty; their
    /// memory is the caller's to free, without the lock. `false` when there are none (any more).
    fn sweep_step(&self, index: usize, removed: &mut Vec<Entry>) -> bool {
        let now = self.now();
        let mut shard = self.lock(index);
        while removed.len() < STEP && shard.nearest().is_some_and(|entry| entry.is_expired(now)) {
            removed.extend(shard.remove_nearest());
        }
        if removed.is_empty() {
            // Not only after a sweep: sessions that were deleted leave room behind as well.
            let unused = shard.shrink();
            drop(shard);
            drop(unused);
            return false;
        }
        // The sessions are gone, so their places are free; nobody needs the lock for that.
        drop(shard);
        self.places.fetch_sub(removed.len(), Relaxed);
        self.swept.fetch_add(removed.len() as u64, Relaxed);
        true
    }
}

#[cfg(all(test, feature = "testing"))]
mod tests {
    use std::sync::atomic::Ordering::SeqCst;

    use super::*;
    use crate::{Created, MemoryStore, Record, Store, StoreKey, testing::ManualClock};

    #[tokio::test]
    async fn a_step_is_bounded_and_frees_what_it_takes() {
        let clock = ManualClock::new();
        let store = MemoryStore::builder().with_clock(&clock).build();
        let expires_at = clock.now() + Duration::from_secs(1);
        let user = None;
        let record =
            Record { version: 1, created_at: clock.now(), expires_at, user, payload: [].into() };
        // All in one shard: the last bytes are the same.
        for n in 0..=2 * STEP {
            let mut key = [0; 32];
            key[..8].copy_from_slice(&n.to_le_bytes());
            let key = StoreKey::from_bytes(key);
            assert_eq!(store.create(&key, &record).await.unwrap(), Created::Done);
        }
        let step = || {
            let mut removed = Vec::new();
            let more = store.inner.sweep_step(0, &mut removed);
            (more, removed.len(), store.len())
        };
        assert_eq!(step(), (false, 0, 2 * STEP + 1));
        clock.advance(Duration::from_secs(1));
        assert_eq!(step(), (true, STEP, STEP + 1));
        assert_eq!(step(), (true, STEP, 1));
        assert_eq!(step(), (true, 1, 0));
        assert_eq!(step(), (false, 0, 0));
        assert_eq!(store.inner.nearest[0].load(SeqCst), u64::MAX);
    }
}
