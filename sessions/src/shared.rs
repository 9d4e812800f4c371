//! What all requests of one layer share.

use std::{
    sync::{Arc, OnceLock},
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
    pub(crate) fn save_in_background(self: &Arc<Self>, slot: Arc<Slot<T>>) {
        let shared = self.clone();
        self.background.spawn(async move {
            match save(&shared, &slot).await {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::Ended => {
                    tracing::debug!("a session ended before a dropped request's writes were saved");
                }
                Err(error) => tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "what a dropped request wrote could not be saved"
                ),
            }
        });
    }
}

/// Work that goes on after its request is gone.
pub(crate) struct Background {
    running: watch::Sender<usize>,
    /// Where a request was last seen: for handles that are dropped outside of any runtime.
    runtime: OnceLock<Runtime>,
}

impl Background {
    pub(crate) fn new() -> Self {
        Self { running: watch::Sender::new(0), runtime: OnceLock::new() }
    }

    /// To be called inside the runtime, before anything may have to be spawned outside of it.
    pub(crate) fn note_runtime(&self) {
        if self.runtime.get().is_none()
            && let Ok(runtime) = Runtime::try_current()
        {
            let _ = self.runtime.set(runtime);
        }
    }

    pub(crate) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let Some(runtime) = Runtime::try_current().ok().or_else(|| self.runtime.get().cloned())
        else {
            tracing::error!("there is no tokio runtime to save a dropped request's writes in");
            return;
        };
        let running = Running::start(&self.running);
        let work = async move {
            let _running = running;
            work.await;
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
struct Running(watch::Sender<usize>);

impl Running {
    fn start(running: &watch::Sender<usize>) -> Self {
        running.send_modify(|running| *running += 1);
        Self(running.clone())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.send_modify(|running| *running -= 1);
    }
}
