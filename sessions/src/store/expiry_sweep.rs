//! The removal of expired records on a schedule: a task that lives as long as its [`ExpirySweep`].

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    runtime::Handle,
    task::{JoinHandle, yield_now},
    time::sleep,
};

use super::DeleteExpired;

/// Removes a store's expired records on a schedule, for as long as it lives.
///
/// The SQL stores have one built in; this is for a store of your own.
///
/// ```
/// use std::time::Duration;
///
/// use sessions::store::{DeleteExpired, ExpirySweep};
///
/// async fn start(store: impl DeleteExpired + Clone) {
///     let sweep = ExpirySweep::start(store, Duration::from_secs(60), 1000);
///     // … until this is dropped:
///     drop(sweep);
/// }
/// ```
///
/// Each pass goes on batch by batch until none is left. Other work gets its turn between two
/// batches. A pass that fails is logged, and tried again after the interval.
///
/// The sweep ends with the runtime that it was started in. A store that may outlive a runtime calls
/// [`ensure_running`](Self::ensure_running) in each of its calls, as the SQL stores do.
#[must_use = "the sweep ends when this is dropped"]
pub struct ExpirySweep {
    start: Box<Start>,
    task: Mutex<Option<JoinHandle<()>>>,
}

/// Starts the sweep in a runtime.
type Start = dyn Fn(&Handle) -> JoinHandle<()> + Send + Sync;

impl fmt::Debug for ExpirySweep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExpirySweep").field("is_running", &self.is_running()).finish()
    }
}

impl ExpirySweep {
    /// Starts to call `store` at this interval, for `batch` records at a time.
    ///
    /// Outside of a tokio runtime nothing is swept before [`ensure_running`](Self::ensure_running) is called in one. The
    /// runtime's timers must be enabled.
    pub fn start(store: impl DeleteExpired, interval: Duration, batch: u32) -> Self {
        let (interval, batch) = (interval.max(Duration::from_millis(1)), batch.max(1));
        let store = Arc::new(store);
        let start = move |runtime: &Handle| {
            let store = store.clone();
            runtime.spawn(async move {
                loop {
                    sleep(interval).await;
                    pass(&*store, batch).await;
                }
            })
        };
        let sweep = Self { start: Box::new(start), task: Mutex::new(None) };
        sweep.ensure_running();
        sweep
    }

    /// Starts the sweep again, in the runtime of the caller, if the sweep has ended: with its runtime, or because the
    /// store panicked. Does nothing outside of a runtime. It costs a look, and may be called as often as one likes.
    pub fn ensure_running(&self) {
        let mut task = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        if task.as_ref().is_some_and(|task| !task.is_finished()) {
            return;
        }
        *task = Handle::try_current().ok().map(|runtime| (self.start)(&runtime));
    }

    fn is_running(&self) -> bool {
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        task.as_ref().is_some_and(|task| !task.is_finished())
    }
}

/// Ends the sweep, between two batches or in the middle of one.
impl Drop for ExpirySweep {
    fn drop(&mut self) {
        if let Some(task) = self.task.get_mut().unwrap_or_else(PoisonError::into_inner) {
            task.abort();
        }
    }
}

async fn pass(store: &impl DeleteExpired, batch: u32) {
    let mut total = 0;
    loop {
        match store.delete_expired(batch).await {
            Ok(removed) => {
                total += removed;
                if removed < batch.into() {
                    break;
                }
            }
            Err(error) => {
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                tracing::warn!(%error, cause, "expired sessions could not be swept");
                break;
            }
        }
        yield_now().await;
    }
    if total > 0 {
        tracing::debug!(sessions = total, "swept expired sessions");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    };

    use super::*;
    use crate::error::store::StoreError;

    /// How many records are left, and how often it was asked.
    #[derive(Clone, Default)]
    struct Rows(Arc<(AtomicU64, AtomicU64)>);

    impl DeleteExpired for Rows {
        async fn delete_expired(&self, batch: u32) -> Result<u64, StoreError> {
            self.0.1.fetch_add(1, SeqCst);
            let left = self.0.0.load(SeqCst);
            if left == 7 {
                self.0.0.store(6, SeqCst);
                return Err(StoreError::new("rows", "delete_expired", "told to fail"));
            }
            let removed = left.min(batch.into());
            self.0.0.store(left - removed, SeqCst);
            Ok(removed)
        }
    }

    /// A runtime in which time has no length.
    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap()
    }

    #[test]
    fn goes_on_in_the_next_runtime_and_begins_in_the_first_one() {
        let rows = Rows::default();
        let sweep = ExpirySweep::start(rows.clone(), Duration::from_secs(60), 10);
        assert!(!sweep.is_running(), "there is no runtime");
        for round in 1..=3 {
            let passes = runtime().block_on(async {
                sweep.ensure_running();
                sweep.ensure_running();
                sleep(Duration::from_secs(61)).await;
                rows.0.1.load(SeqCst)
            });
            assert_eq!(passes, round, "one sweep");
            assert!(!sweep.is_running(), "its runtime has ended");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn goes_on_until_none_is_left_and_after_a_failure_and_ends_when_it_is_dropped() {
        let rows = Rows::default();
        rows.0.0.store(25, SeqCst);
        let sweep = ExpirySweep::start(rows.clone(), Duration::from_secs(60), 10);
        sleep(Duration::from_secs(61)).await;
        assert_eq!(rows.0.0.load(SeqCst), 0, "in one pass");
        assert_eq!(rows.0.1.load(SeqCst), 3, "in batches of ten");

        rows.0.0.store(7, SeqCst);
        sleep(Duration::from_secs(60)).await;
        assert_eq!(rows.0.0.load(SeqCst), 6, "this pass has failed");
        sleep(Duration::from_secs(60)).await;
        assert_eq!(rows.0.0.load(SeqCst), 0, "the next one has not");

        let asked = rows.0.1.load(SeqCst);
        drop(sweep);
        sleep(Duration::from_secs(600)).await;
        assert_eq!(rows.0.1.load(SeqCst), asked);
    }
}
