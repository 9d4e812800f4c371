//! What all requests of one layer share.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::{runtime::Handle as Runtime, sync::watch};
use tracing::Instrument;

use crate::{
    SessionData, clock::Clock, codec::Codec, cookie::CookieConfig, error::ErrorKind,
    expiry::Expiry, keys::Keys, registry::Registry, save::save, slot::Slot, storage::Storage,
};

pub(crate) struct Shared<T: SessionData> {
    pub(crate) storage: Storage,
    pub(crate) keys: Keys,
    pub(crate) cookie: CookieConfig,
    pub(crate) expiry: Expiry,
    pub(crate) codec: Codec,
    pub(crate) payload_limit: usize,
    pub(crate) lock_timeout: Duration,
    pub(crate) clock: Clock,
    pub(crate) registry: Arc<Registry<T>>,
    pub(crate) background: Background,
}

impl<T: SessionData> Shared<T> {
    pub(crate) fn now(&self) -> SystemTime {
        self.clock.now()
    }

    /// Saves what a request wrote that is gone before it could save it itself.
    pub(crate) fn save_in_background(
        self: &Arc<Self>,
        slot: Arc<Slot<T>>,
        runtime: Option<&Runtime>,
    ) {
        let shared = self.clone();
        self.background.spawn(runtime, async move {
            match save(&shared, &slot, None).await {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::Ended => {
                    tracing::debug!("a session ended before a dropped request's writes were saved");
                }
                Err(error) => tracing::error!(
                    "what a dropped request wrote could not be saved: {}",
                    error.for_log()
                ),
            }
        });
    }
}

/// Work that goes on after its request is gone.
pub(crate) struct Background {
    running: watch::Sender<usize>,
}

impl Background {
    pub(crate) fn new() -> Self {
        Self { running: watch::Sender::new(0) }
    }

    /// In the runtime where the request was, rather than wherever its last handle is dropped: that
    /// may be no runtime at all, or one that is about to end.
    pub(crate) fn spawn(
        &self,
        runtime: Option<&Runtime>,
        work: impl Future<Output = ()> + Send + 'static,
    ) {
        let Some(runtime) = runtime.cloned().or_else(|| Runtime::try_current().ok()) else {
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
