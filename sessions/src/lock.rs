//! The lock of one session: many readers or one writer, in the order in which they came.
//!
//! It guards no value of its own and knows where each of its guards was taken, so that whoever waits
//! too long can be told for whom.

use std::{
    fmt::{self, Write},
    panic::Location,
    sync::PoisonError,
    time::Duration,
};

use tokio::{sync::Semaphore, time::Instant};

use crate::sync::{Mutex, MutexGuard, timeout};

/// A wait this long is logged, for one of the waiters of a lock in such a time.
const LONG_WAIT: Duration = Duration::from_secs(5);

/// A writer takes every permit, a reader one. The semaphore serves its waiters in order, also one
/// that wants many permits while others want few, so that nobody starves.
const ALL: u32 = u32::MAX >> 3;

/// What a guard may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    Write,
}

impl Access {
    fn permits(self) -> u32 {
        match self {
            Self::Read => 1,
            Self::Write => ALL,
        }
    }
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "read",
            Self::Write => "write",
        })
    }
}

type Place = &'static Location<'static>;

pub(crate) struct Lock {
    permits: Semaphore,
    notes: Mutex<Notes>,
}

#[derive(Default)]
struct Notes {
    holders: Holders,
    last_warning: Option<Instant>,
}

/// Guards by the place in the program that took them: as many entries as there are such places,
/// however many guards there are; the first without an allocation.
#[derive(Default)]
struct Holders {
    first: Option<Holder>,
    more: Vec<Holder>,
}

struct Holder {
    access: Access,
    at: Place,
    guards: usize,
}

impl Holders {
    fn iter(&self) -> impl Iterator<Item = &Holder> {
        self.first.iter().chain(&self.more)
    }

    fn add(&mut self, access: Access, at: Place) {
        let mut holders = self.first.iter_mut().chain(&mut self.more);
        match holders.find(|holder| holder.access == access && holder.at == at) {
            Some(holder) => holder.guards += 1,
            None => {
                let holder = Holder { access, at, guards: 1 };
                match self.first {
                    None => self.first = Some(holder),
                    Some(_) => self.more.push(holder),
                }
            }
        }
    }

    fn remove(&mut self, access: Access, at: Place) {
        let mut holders = self.first.iter_mut().chain(&mut self.more);
        if let Some(holder) = holders.find(|holder| holder.access == access && holder.at == at) {
            holder.guards -= 1;
        }
        self.more.retain(|holder| holder.guards > 0);
        if self.first.as_ref().is_some_and(|holder| holder.guards == 0) {
            self.first = self.more.pop();
        }
    }
}

/// The lock was not free in time: how long that was, and who had it.
#[derive(Debug)]
pub(crate) struct TimedOut {
    pub(crate) waited: Duration,
    pub(crate) held_by: String,
}

impl Lock {
    pub(crate) fn new() -> Self {
        Self { permits: Semaphore::new(ALL as usize), notes: Mutex::default() }
    }

    /// Takes the lock if it is free and nobody else is waiting for it.
    pub(crate) fn try_acquire(&self, access: Access, at: Place) -> Result<(), TimedOut> {
        match self.take(access, at) {
            true => Ok(()),
            false => Err(self.timed_out(Duration::ZERO)),
        }
    }

    /// Whether it was free, and is taken now.
    pub(crate) fn take(&self, access: Access, at: Place) -> bool {
        let Ok(permit) = self.permits.try_acquire_many(access.permits()) else { return false };
        permit.forget();
        self.notes().holders.add(access, at);
        true
    }

    /// Waits for the lock, in turn.
    ///
    /// Dropped while it waits, it gives up its place and what it had been given so far; there is no
    /// await between getting the permits and noting the holder.
    pub(crate) async fn acquire(
        &self,
        access: Access,
        at: Place,
        limit: Duration,
    ) -> Result<(), TimedOut> {
        if self.take(access, at) {
            return Ok(());
        }
        let start = Instant::now();
        let waiting = self.permits.acquire_many(access.permits());
        tokio::pin!(waiting);
        let mut permit = timeout(LONG_WAIT.min(limit), &mut waiting).await;
        if permit.is_err() && limit > LONG_WAIT {
            self.warn(access, at);
            permit = timeout(limit - LONG_WAIT, waiting).await;
        }
        match permit {
            Ok(permit) => {
                permit.expect("the semaphore is never closed").forget();
                self.notes().holders.add(access, at);
                Ok(())
            }
            Err(_) => Err(self.timed_out(start.elapsed())),
        }
    }

    fn warn(&self, access: Access, at: Place) {
        let now = Instant::now();
        {
            let last = &mut self.notes().last_warning;
            if last.is_some_and(|last| now - last < LONG_WAIT) {
                return;
            }
            *last = Some(now);
        }
        tracing::warn!(
            "a {access} guard for {at} has been waiting for {LONG_WAIT:?}: now {}",
            self.held_by()
        );
    }

    /// Gives back what `acquire` took.
    pub(crate) fn release(&self, access: Access, at: Place) {
        self.notes().holders.remove(access, at);
        // Only now: whoever this wakes must not find us among the holders.
        self.permits.add_permits(access.permits() as usize);
    }

    fn timed_out(&self, waited: Duration) -> TimedOut {
        TimedOut { waited, held_by: self.held_by() }
    }

    fn held_by(&self) -> String {
        let mut text = String::new();
        for Holder { access, at, guards } in self.notes().holders.iter() {
            let and = if text.is_empty() { "held by" } else { " and" };
            let _ = match guards {
                1 => write!(text, "{and} a {access} guard taken at {at}"),
                many => write!(text, "{and} {many} {access} guards taken at {at}"),
            };
        }
        if text.is_empty() {
            text.push_str("held by nobody just now, but others are waiting");
        }
        text
    }

    /// Nothing is done under it that can panic half-way, so that poisoned notes are good ones.
    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::poll_fn,
        pin::{Pin, pin},
        task::Poll,
    };

    use super::*;

    const LIMIT: Duration = Duration::from_secs(30);

    fn here() -> Place {
        Location::caller()
    }

    /// Polls once and says whether it is still waiting.
    async fn waits<F: Future>(mut future: Pin<&mut F>) -> bool {
        poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx).is_pending())).await
    }

    #[tokio::test]
    async fn waiters_are_served_in_order() {
        let lock = Lock::new();
        let at = here();
        lock.try_acquire(Access::Write, at).unwrap();
        let mut reader = pin!(lock.acquire(Access::Read, at, LIMIT));
        let mut writer = pin!(lock.acquire(Access::Write, at, LIMIT));
        let mut late = pin!(lock.acquire(Access::Read, at, LIMIT));
        assert!(waits(reader.as_mut()).await);
        assert!(waits(writer.as_mut()).await);
        assert!(waits(late.as_mut()).await);

        lock.release(Access::Write, at);
        reader.await.unwrap();
        assert!(waits(late.as_mut()).await, "it overtook the writer");
        assert!(lock.try_acquire(Access::Read, at).is_err(), "it overtook the writer");
        lock.release(Access::Read, at);
        writer.await.unwrap();
        lock.release(Access::Write, at);
        late.await.unwrap();
    }

    #[tokio::test]
    async fn a_dropped_waiter_leaves_nothing_behind() {
        let lock = Lock::new();
        let at = here();
        lock.try_acquire(Access::Read, at).unwrap();
        {
            let mut writer = pin!(lock.acquire(Access::Write, at, LIMIT));
            assert!(waits(writer.as_mut()).await);
        }
        lock.try_acquire(Access::Read, at).unwrap();
        lock.release(Access::Read, at);
        lock.release(Access::Read, at);
        lock.try_acquire(Access::Write, at).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_ends_and_names_the_holders() {
        let lock = Lock::new();
        let at = here();
        lock.try_acquire(Access::Read, at).unwrap();
        lock.try_acquire(Access::Read, at).unwrap();
        let error = lock.acquire(Access::Write, here(), LIMIT).await.unwrap_err();
        assert_eq!(error.waited, LIMIT);
        assert_eq!(error.held_by, format!("held by 2 read guards taken at {at}"));
    }
}
