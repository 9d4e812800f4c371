//! Work that goes on after its request is gone.

use std::{
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll},
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
        let (shared, restarts) = (self.clone(), Restarts::new(&runtime));
        self.background.spawn_in(&runtime, Rescue::new(shared, slot, gone, job, restarts));
    }

    async fn save_until_done(
        self: Arc<Self>,
        slot: Arc<Slot<T>>,
        gone: Option<RequestId>,
        job: SaveJob<'static>,
    ) {
        self.try_to_save(&slot, job).await;
        if let Some(writer) = gone {
            slot.forget_refused(writer);
        }
    }

    async fn try_to_save(&self, slot: &Arc<Slot<T>>, job: SaveJob<'static>) {
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
/// server, or has ended already, the save begins anew in another one. One that panics does not.
struct Rescue<T: SessionData> {
    shared: Arc<Shared<T>>,
    slot: Arc<Slot<T>>,
    gone: Option<RequestId>,
    job: SaveJob<'static>,
    restarts: Restarts,
    work: Pin<Box<dyn Future<Output = ()> + Send>>,
    state: RescueState,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum RescueState {
    Waits,
    /// Being polled, or stopped there by a panic of its own.
    Runs,
    Done,
}

impl<T: SessionData> Rescue<T> {
    fn new(
        shared: Arc<Shared<T>>,
        slot: Arc<Slot<T>>,
        gone: Option<RequestId>,
        job: SaveJob<'static>,
        restarts: Restarts,
    ) -> Self {
        let work = Box::pin(shared.clone().save_until_done(slot.clone(), gone, job));
        Self { shared, slot, gone, job, restarts, work, state: RescueState::Waits }
    }
}

impl<T: SessionData> Future for Rescue<T> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        self.state = RescueState::Runs;
        let polled = self.work.as_mut().poll(context);
        self.state = if polled.is_ready() { RescueState::Done } else { RescueState::Waits };
        polled
    }
}

impl<T: SessionData> Drop for Rescue<T> {
    fn drop(&mut self) {
        let other = match self.state {
            RescueState::Done => return,
            RescueState::Runs => None,
            RescueState::Waits => self.restarts.next(&self.shared.background),
        };
        let Some(other) = other else { return log_cut_short() };
        tracing::debug!("a background save begins anew, because its runtime has ended");
        let restarts = std::mem::take(&mut self.restarts);
        let Self { shared, slot, gone, job, .. } = &*self;
        let again = Self::new(shared.clone(), slot.clone(), *gone, *job, restarts);
        self.shared.background.spawn_in(&other, again);
    }
}

/// The runtimes in which a piece of work was begun, each of which has ended but for the last one.
#[derive(Default)]
pub(super) struct Restarts {
    tried: Vec<runtime::Id>,
}

impl Restarts {
    pub(super) fn new(first: &Runtime) -> Self {
        Self { tried: vec![first.id()] }
    }

    pub(super) fn count(&self) -> usize {
        self.tried.len()
    }

    /// Another one: that where this is called, that where the layer was built, or that where requests were seen.
    pub(super) fn next(&mut self, background: &Background) -> Option<Runtime> {
        let current = Runtime::try_current().ok();
        let seen = background.runtime.get().cloned();
        let known = [current, background.home.clone(), seen].into_iter().flatten();
        let other = known.into_iter().find(|other| !self.tried.contains(&other.id()))?;
        self.tried.push(other.id());
        Some(other)
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
