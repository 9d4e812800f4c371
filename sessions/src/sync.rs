//! The locks and timers that the model checker has to know: the usual ones, or its own, under
//! `--cfg shuttle`, which then plays every interleaving that a thread or a pause can make
//! (`tests/run model`).

#[cfg(not(shuttle))]
pub(crate) use std::sync::{Mutex, MutexGuard, atomic::AtomicBool};

#[cfg(shuttle)]
pub(crate) use shuttle::sync::{Mutex, MutexGuard, atomic::AtomicBool};
#[cfg(not(shuttle))]
pub(crate) use tokio::time::{sleep, timeout};

/// Time is not modelled: a pause lets others go first, and no limit passes.
#[cfg(shuttle)]
pub(crate) async fn sleep(_: std::time::Duration) {
    shuttle::future::yield_now().await;
}

#[cfg(shuttle)]
pub(crate) async fn timeout<F: Future>(_: std::time::Duration, work: F) -> Result<F::Output, ()> {
    Ok(work.await)
}
