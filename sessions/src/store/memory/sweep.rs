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

use super::{Inner, entry::Entry, table::Table};

/// How many sessions are removed under one hold of a lock.
const STEP: usize = 32;
/// Or so many places of a table moved.
const MOVED: usize = 1024;

/// A store's half of its sweep.
pub(super) struct Sweep {
    interval: Duration,
    /// No task runs, and one may be started. Every call looks here, so it is the cheapest flag
    /// that there is; `start` then decides with care.
    wanted: AtomicBool,
    /// Says stop. The task holds the one receiver: it is woken by `true` and also when the store,
    /// and the sender with it, is gone; and a caller that waits for its end waits until the receiver is.
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
            let task = Task { store: Arc::downgrade(store), slept: false };
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
    slept: bool,
}

impl Task {
    async fn run(mut self, mut stop: watch::Receiver<bool>, interval: Duration) {
        // `wait_for` ends with `true` and with the end of the store, `timeout` with the interval.
        while timeout(interval, stop.wait_for(|&stop| stop)).await.is_err() {
            self.slept = true;
            if self.pass(&stop).await.is_none() {
                return;
            }
        }
    }

    /// Removes what has expired. `None` once the store is gone or says stop.
    ///
    /// Takes one step in each shard after the other: a request that waits for a shard's lock has it long before the
    /// sweep comes back for the next step.
    async fn pass(&self, stop: &watch::Receiver<bool>) -> Option<()> {
        let mut removed = Vec::with_capacity(STEP);
        let mut total = 0;
        let shards = 0..self.store.upgrade()?.shards.len();
        let mut unfinished: Vec<_> = shards.map(|index| (index, Some(0))).collect();
        while !unfinished.is_empty() {
            for (index, mut look_from) in std::mem::take(&mut unfinished) {
                if !self.store.upgrade()?.sweep_step(index, &mut look_from, &mut removed) {
                    // Looking alone takes time too: a pass over an idle store is cut in pieces as well.
                    if index % 128 == 0 {
                        yield_now().await;
                    }
                    continue;
                }
                // No lock is held here. The memory goes back, and then others may go first.
                total += removed.len();
                removed.clear();
                unfinished.push((index, look_from));
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
        if thread::panicking() && !self.slept {
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
    /// memory is the caller's to free, without the lock. When there are none, goes on with a table that is being moved;
    /// or looks whether sessions are worth more by now, from one place of the shard on; and then whether a smaller
    /// table would do. `false` when there is nothing (more) to do.
    pub(super) fn sweep_step(
        &self,
        index: usize,
        look_from: &mut Option<usize>,
        removed: &mut Vec<Entry>,
    ) -> bool {
        let now = self.now();
        let mut shard = self.lock(index);
        while removed.len() < STEP
            && let Some(entry) = shard.remove_expired(now)
        {
            self.note_end(&entry);
            removed.push(entry);
        }
        if removed.is_empty() {
            if shard.is_moving() {
                shard.go_on_moving(MOVED);
                return true;
            }
            // Else the first request that finds no room would have all of it to do.
            if self.is_half_full()
                && let Some(from) = *look_from
            {
                *look_from = shard.move_used(from, STEP);
                return true;
            }
            // Not only after a sweep: sessions that were deleted leave room behind as well.
            let Some(sessions) = shard.smaller() else {
                let unused = shard.shrink_heaps();
                drop(shard);
                drop(unused);
                return false;
            };
            drop(shard);
            let smaller = Table::with_capacity(sessions);
            self.lock(index).move_to_smaller(smaller);
            return true;
        }
        // The sessions are gone, so their room is free; that needs no lock.
        drop(shard);
        self.taken.sessions.fetch_sub(removed.len(), Relaxed);
        self.taken.bytes.fetch_sub(removed.iter().map(Entry::cost).sum(), Relaxed);
        self.swept.fetch_add(removed.len() as u64, Relaxed);
        true
    }
}

#[cfg(all(test, feature = "testing"))]
mod tests {
    use std::{
        pin::pin,
        task::{Context, Waker},
    };

    use tokio::runtime::Builder;

    use super::*;
    use crate::{
        clock::ManualClock,
        identity::id::StoreKey,
        record::Record,
        store::{
            Created, Store,
            memory::{MemoryStore, shard::PARTS},
        },
    };

    impl Inner {
        fn sessions_in(&self, shard: usize) -> usize {
            let shard = self.lock(shard);
            (0..PARTS).map(|part| shard.entries(part).count()).sum()
        }
    }

    async fn create(store: &MemoryStore, clock: &ManualClock, number: u8) {
        create_in(store, clock, 0, number).await;
    }

    async fn create_in(store: &MemoryStore, clock: &ManualClock, shard: u8, number: u8) {
        let mut key = [0; 32];
        // The last bytes pick the shard.
        (key[0], key[30]) = (number, shard);
        let record = Record {
            version: 1,
            created_at: clock.now(),
            expires_at: clock.now() + Duration::from_secs(1),
            user: None,
            payload: [].into(),
        };
        let created = store.create(&StoreKey::from_bytes(key), &record).await.unwrap();
        assert_eq!(created, Created::Done);
    }

    #[tokio::test]
    async fn a_step_is_small_and_frees_what_it_takes() {
        let clock = ManualClock::new();
        let store = MemoryStore::builder().with_clock(&clock).build();
        for number in 0..200 {
            create(&store, &clock, number).await;
        }
        let mut removed = Vec::new();
        assert!(!store.inner.sweep_step(0, &mut None, &mut removed), "nothing has expired yet");
        clock.advance(Duration::from_secs(1));
        let (mut left, mut steps_without) = (200, 0);
        while store.inner.sweep_step(0, &mut None, &mut removed) {
            assert!(removed.len() <= 50 && (left == 0 || !removed.is_empty()));
            steps_without += usize::from(removed.is_empty());
            left -= removed.len();
            assert_eq!(store.len(), left);
            removed.clear();
        }
        // The table that they stood in is given back.
        assert_eq!(steps_without, 2);
        assert_eq!((left, store.inner.nearest.of[0][0].load(Relaxed)), (0, u64::MAX));
    }

    /// So that a request that waits for a shard has it before the sweep comes back.
    #[tokio::test]
    async fn no_shard_is_swept_twice_in_a_row_while_others_wait() {
        let clock = ManualClock::new();
        let store = MemoryStore::builder().with_clock(&clock).build();
        for number in 0..200 {
            create_in(&store, &clock, 0, number).await;
            create_in(&store, &clock, 1, number).await;
        }
        clock.advance(Duration::from_secs(1));
        let task = Task { store: Arc::downgrade(&store.inner), slept: false };
        let stop = store.inner.sweep.stop.subscribe();
        let mut pass = pin!(task.pass(&stop));
        let left = || [0, 1].map(|shard| store.inner.sessions_in(shard));
        let (mut before, mut last) = (left(), 1);
        let mut context = Context::from_waker(Waker::noop());
        while pass.as_mut().poll(&mut context).is_pending() {
            let now = left();
            if now != before {
                let swept = usize::from(now[0] == before[0]);
                assert_ne!(swept, last, "{before:?}, then {now:?}");
                (before, last) = (now, swept);
            }
        }
        assert_eq!(left(), [0, 0]);
    }

    #[test]
    fn in_a_runtime_without_timers_it_is_tried_once() {
        let clock = ManualClock::new();
        let store = MemoryStore::builder().with_clock(&clock).build();
        Builder::new_current_thread().build().unwrap().block_on(async {
            create(&store, &clock, 0).await;
            yield_now().await;
            create(&store, &clock, 1).await;
            assert!(!store.inner.sweep.wanted.load(Relaxed));
            // Nothing hangs, nothing is lost.
            store.stop_sweep().await;
            assert_eq!(store.len(), 2);
        });
    }
}
