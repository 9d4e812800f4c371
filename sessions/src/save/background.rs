//! Work that goes on after its request is gone.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use tokio::{runtime::Handle as Runtime, sync::watch};
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
    running: watch::Sender<usize>,
    /// A runtime that requests were seen in.
    runtime: OnceLock<Runtime>,
}

impl Background {
    pub(crate) fn new() -> Self {
        Self { running: watch::Sender::new(0), runtime: OnceLock::new() }
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
        let running = Running::start(&self.running);
        let work = async move {
            work.await;
            running.done();
        };
        runtime.spawn(work.in_current_span());
    }

    /// Waits until nothing is running.
    pub(crate) async fn finished(&self) {
        // The sender lives in `self`: it cannot be gone.
        let _ = self.running.subscribe().wait_for(|running| *running == 0).await;
    }
}

/// Counts itself out also when its task panics or is dropped with the runtime.
struct Running {
    running: watch::Sender<usize>,
    is_done: bool,
}

impl Running {
    fn start(running: &watch::Sender<usize>) -> Self {
        running.send_modify(|running| *running += 1);
        Self { running: running.clone(), is_done: false }
    }

    fn done(mut self) {
        self.is_done = true;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.is_done {
            tracing::error!("a session's background work was cut short, as by the runtime's end");
        }
        self.running.send_modify(|running| *running -= 1);
    }
}
