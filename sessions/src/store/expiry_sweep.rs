//! The removal of expired records on a schedule: a task that lives as long as its [`ExpirySweep`].

use std::time::Duration;

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
#[derive(Debug)]
#[must_use = "the sweep ends when this is dropped"]
pub struct ExpirySweep {
    task: Option<JoinHandle<()>>,
}

impl ExpirySweep {
    /// Starts to call `store` at this interval, for `batch` records at a time.
    ///
    /// Outside of a tokio runtime nothing is swept, and the log says so. The runtime's timers must
    /// be enabled.
    pub fn start(store: impl DeleteExpired, interval: Duration, batch: u32) -> Self {
        let Ok(runtime) = Handle::try_current() else {
            tracing::warn!("expired sessions are not swept: there is no tokio runtime here");
            return Self { task: None };
        };
        let (interval, batch) = (interval.max(Duration::from_millis(1)), batch.max(1));
        let task = runtime.spawn(async move {
            loop {
                sleep(interval).await;
                pass(&store, batch).await;
            }
        });
        Self { task: Some(task) }
    }
}

/// Ends the sweep, between two batches or in the middle of one.
impl Drop for ExpirySweep {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
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
