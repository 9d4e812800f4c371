//! The locks and timers that the model checker has to know: the usual ones, or its own, under
//! `--cfg shuttle`, which then plays every interleaving that a thread or a pause can make
//! (`tests/run model`). And how many locks there are of a kind.

use std::{num::NonZero, ops::RangeInclusive, thread};

#[cfg(not(shuttle))]
pub(crate) use std::sync::{Mutex, MutexGuard, atomic::AtomicBool};

#[cfg(shuttle)]
pub(crate) use shuttle::sync::{Mutex, MutexGuard, atomic::AtomicBool};
#[cfg(not(shuttle))]
pub(crate) use tokio::time::{sleep, timeout};

/// How many pieces something is cut into so that the cores of this machine seldom meet at one: so many for each
/// core, a power of two within these bounds. More pieces than the cores need are in no cache when they are looked
/// for.
pub(crate) fn pieces_for_cores(each: usize, bounds: RangeInclusive<usize>) -> usize {
    let cores = thread::available_parallelism().map_or(usize::MAX, NonZero::get);
    cores.saturating_mul(each).clamp(*bounds.start(), *bounds.end()).next_power_of_two()
}

/// Time is not modelled: a pause lets others go first, and no limit passes.
#[cfg(shuttle)]
pub(crate) async fn sleep(_: std::time::Duration) {
    shuttle::future::yield_now().await;
}

#[cfg(shuttle)]
pub(crate) async fn timeout<F: Future>(_: std::time::Duration, work: F) -> Result<F::Output, ()> {
    Ok(work.await)
}

/// Here the model checker lets other threads go first, as at each lock. Without the checker it is nothing.
#[cfg(not(shuttle))]
#[inline(always)]
pub(crate) fn others_may_go_first() {}

#[cfg(shuttle)]
pub(crate) fn others_may_go_first() {
    shuttle::thread::yield_now();
}
