//! Work that goes on after its request is gone.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use tokio::runtime::Handle as Runtime;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use crate::{
    data::{SessionData, patch::RequestId},
    error::ErrorKind,
    save::{save, shared::Shared},
    slot::{Slot, plan::SaveJob},
    sync::sleep,
};

/// How often a background save is tried: over some four seconds.
const BACKGROUND_ATTEMPTS: u32 = 5;

/// The pause after the first try that failed; each further pause is four times as long.
const BACKGROUND_PAUSE: Duration = Duration::from_millis(50);

impl<T: SessionData> Shared<T> {
    /// Saves what a request wrote that ended before it could save. `gone` is that request, if none of
    /// its handles is left: nobody is told then of changes that cannot be stored. The job names no
    /// request, because no request waits for its end.
    pub(crate) fn save_in_background(
        self: &Arc<Self>,
        slot: Arc<Slot<T>>,
        runtime: Option<&Runtime>,
        gone: Option<RequestId>,
        job: SaveJob<'static>,
    ) {
        let shared = self.clone();
        self.background.spawn(runtime, async move {
            shared.save_until_done(&slot, job).await;
            if let Some(writer) = gone {
                slot.forget_refused(writer);
            }
        });
    }

    async fn save_until_done(&self, slot: &Arc<Slot<T>>, job: SaveJob<'static>) {
        let mut pause = BACKGROUND_PAUSE;
        for attempt in 1.. {
            match save(self, slot, job).await {
                Ok(()) => return,
                Err(error) if error.kind() == ErrorKind::Ended => {
                    return tracing::debug!(
                        "a session ended before a dropped request's writes were saved"
                    );
                }
                Err(error) if attempt < BACKGROUND_ATTEMPTS && error.is_retryable() => {
                    sleep(pause).await;
                    pause *= 4;
                }
                Err(error) => {
                    return tracing::error!(
                        "what a dropped request wrote could not be saved: {}",
                        error.for_log()
                    );
                }
            }
        }
    }
}

/// Work that goes on after its request is gone.
pub(crate) struct Background {
    /// Closed from the start, which ends a wait whenever no task is running; it takes tasks all the same.
    tasks: TaskTracker,
    /// A runtime that requests were seen in.
    runtime: OnceLock<Runtime>,
}

impl Background {
    pub(crate) fn new() -> Self {
        let tasks = TaskTracker::new();
        tasks.close();
        Self { tasks, runtime: OnceLock::new() }
    }

    /// Asked of every request that opens its session, so that there is a runtime also if none is
    /// around later.
    pub(crate) fn note_runtime(&self) {
        if self.runtime.get().is_none()
            && let Ok(runtime) = Runtime::try_current()
        {
            let _ = self.runtime.set(runtime);
        }
    }

    /// In the runtime where the request was, rather than wherever its last handle is dropped: that
    /// may be no runtime at all, or one that is about to end.
    pub(crate) fn spawn(
        &self,
        runtime: Option<&Runtime>,
        work: impl Future<Output = ()> + Send + 'static,
    ) {
        let current = || Runtime::try_current().ok();
        let Some(runtime) =
            runtime.cloned().or_else(current).or_else(|| self.runtime.get().cloned())
        else {
            tracing::error!("there is no tokio runtime to save a dropped request's writes in");
            return;
        };
        let unfinished = Unfinished { is_done: false };
        let work = async move {
            work.await;
            unfinished.done();
        };
        self.tasks.spawn_on(work.in_current_span(), &runtime);
    }

    /// Waits until nothing is running.
    pub(crate) async fn finished(&self) {
        self.tasks.wait().await;
    }
}

/// Says so when its task panics or is dropped with the runtime.
struct Unfinished {
    is_done: bool,
}

impl Unfinished {
    fn done(mut self) {
        self.is_done = true;
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if !self.is_done {
            tracing::error!("a session's background work was cut short, as by the runtime's end");
        }
    }
}
