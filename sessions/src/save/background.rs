//! Work that goes on after its request is gone.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use tokio::runtime::{self, Handle as Runtime};
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
        let Some(runtime) = self.background.runtime_for(runtime) else { return };
        let runs_in = runtime.id();
        let rescue = Rescue {
            shared: self.clone(),
            slot,
            gone,
            job,
            runs_in,
            is_first: true,
            is_done: false,
        };
        self.background.spawn_in(&runtime, rescue.save());
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

/// A save in the background. If its runtime ends first, as that of a worker of actix-web does with the
/// server, or has ended already, the save begins anew in the one where that is seen, or where the layer was built.
struct Rescue<T: SessionData> {
    shared: Arc<Shared<T>>,
    slot: Arc<Slot<T>>,
    gone: Option<RequestId>,
    job: SaveJob<'static>,
    runs_in: runtime::Id,
    /// It may begin anew.
    is_first: bool,
    is_done: bool,
}

impl<T: SessionData> Rescue<T> {
    async fn save(mut self) {
        self.shared.save_until_done(&self.slot, self.job).await;
        self.is_done = true;
        if let Some(writer) = self.gone {
            self.slot.forget_refused(writer);
        }
    }
}

impl<T: SessionData> Drop for Rescue<T> {
    fn drop(&mut self) {
        if self.is_done {
            return;
        }
        let background = &self.shared.background;
        let current = Runtime::try_current().ok();
        let seen = background.runtime.get().cloned();
        let others = [current, background.home.clone(), seen].into_iter().flatten();
        let other = others.into_iter().find(|other| other.id() != self.runs_in);
        match other.filter(|_| self.is_first && !std::thread::panicking()) {
            Some(other) => {
                tracing::debug!("a background save begins anew, because its runtime has ended");
                let Self { shared, slot, gone, job, .. } = &*self;
                let (shared, slot, gone, job) = (shared.clone(), slot.clone(), *gone, *job);
                let runs_in = other.id();
                let again =
                    Self { shared, slot, gone, job, runs_in, is_first: false, is_done: false };
                background.spawn_in(&other, again.save());
            }
            None => log_cut_short(),
        }
    }
}

/// Work that goes on after its request is gone.
pub(crate) struct Background {
    /// Closed from the start, which ends a wait whenever no task is running; it takes tasks all the same.
    tasks: TaskTracker,
    /// A runtime that requests were seen in.
    runtime: OnceLock<Runtime>,
    /// The runtime that the layer was built in.
    home: Option<Runtime>,
}

impl Background {
    pub(crate) fn new() -> Self {
        let tasks = TaskTracker::new();
        tasks.close();
        Self { tasks, runtime: OnceLock::new(), home: Runtime::try_current().ok() }
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

    /// In the runtime where the caller is.
    pub(crate) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let unfinished = Unfinished { is_done: false };
        if let Some(runtime) = self.runtime_for(None) {
            self.spawn_in(&runtime, async move {
                work.await;
                unfinished.done();
            });
        }
    }

    /// The runtime where the request was, rather than wherever its last handle is dropped: that
    /// may be no runtime at all, or one that is about to end.
    fn runtime_for(&self, request: Option<&Runtime>) -> Option<Runtime> {
        let current = || Runtime::try_current().ok();
        let runtime = request.cloned().or_else(current).or_else(|| self.runtime.get().cloned());
        if runtime.is_none() {
            tracing::error!("there is no tokio runtime to save a dropped request's writes in");
        }
        runtime
    }

    fn spawn_in(&self, runtime: &Runtime, work: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn_on(work.in_current_span(), runtime);
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
            log_cut_short();
        }
    }
}

fn log_cut_short() {
    tracing::error!("a session's background work was cut short, as by the runtime's end");
}
