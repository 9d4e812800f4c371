//! The lock of one session: many readers or one writer, in the order in which they came.
//!
//! It guards no value of its own and knows where each of its guards was taken, so that a request that
//! waits too long can be told for which guard.
//!
//! Ours, and not `tokio::sync::RwLock`: that one knows neither who holds it nor how many wait, and bounds
//! neither their number nor their time.

use std::{
    fmt::{self, Write},
    panic::Location,
    sync::PoisonError,
    time::Duration,
};

use tokio::{sync::oneshot, time::Instant};

use self::queue::{Queue, Ticket};
use crate::error::Reason;
use crate::sync::{Mutex, MutexGuard, timeout};

mod queue;

/// A wait this long is logged, for one of the waiters of a lock in such a time.
const LONG_WAIT: Duration = Duration::from_secs(5);

/// What a guard may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    Write,
}

impl Access {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
        }
    }
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

type CallSite = &'static Location<'static>;

pub(crate) struct Lock {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    readers: usize,
    has_writer: bool,
    /// In the order in which they came. No waiter overtakes the first one, so that no waiter starves.
    waiters: Queue<Waiter>,
    holders: Holders,
    last_warning: Option<Instant>,
    last_crowd: Option<Instant>,
}

struct Waiter {
    access: Access,
    at: CallSite,
    /// Tells the waiter that it has the lock.
    turn: oneshot::Sender<()>,
}

impl State {
    fn is_free_for(&self, access: Access) -> bool {
        match access {
            Access::Read => !self.has_writer,
            Access::Write => !self.has_writer && self.readers == 0,
        }
    }

    fn enter(&mut self, access: Access, at: CallSite) {
        match access {
            Access::Read => self.readers += 1,
            Access::Write => self.has_writer = true,
        }
        self.holders.add(access, at);
    }

    fn leave(&mut self, access: Access, at: CallSite) {
        match access {
            Access::Read => self.readers -= 1,
            Access::Write => self.has_writer = false,
        }
        self.holders.remove(access, at);
    }

    /// Gives the lock to the waiters whose turn it is. The caller tells them once the state is unlocked.
    #[must_use]
    fn admit(&mut self) -> Vec<Waiter> {
        let mut admitted = Vec::new();
        while let Some(next) = self.waiters.front()
            && self.is_free_for(next.access)
            && let Some(next) = self.waiters.pop()
        {
            self.enter(next.access, next.at);
            admitted.push(next);
        }
        admitted
    }
}

/// Guards by the call site that took them: one entry for each call site, however many guards it took;
/// the first without an allocation.
#[derive(Default)]
struct Holders {
    first: Option<Holder>,
    more: Vec<Holder>,
}

struct Holder {
    access: Access,
    at: CallSite,
    guards: usize,
}

impl Holder {
    /// The address of a call site is looked at first: usually that is enough.
    fn is_of(&self, access: Access, at: CallSite) -> bool {
        self.access == access && (std::ptr::eq(self.at, at) || self.at == at)
    }

    /// Whether it is one guard, this one.
    fn is_one(&self, access: Access, at: CallSite) -> bool {
        self.guards == 1 && self.is_of(access, at)
    }
}

impl Holders {
    fn iter(&self) -> impl Iterator<Item = &Holder> {
        self.first.iter().chain(&self.more)
    }

    fn add(&mut self, access: Access, at: CallSite) {
        let mut holders = self.first.iter_mut().chain(&mut self.more);
        match holders.find(|holder| holder.is_of(access, at)) {
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

    fn remove(&mut self, access: Access, at: CallSite) {
        // Nearly always it is the only one.
        if self.more.is_empty() && self.first.take_if(|first| first.is_one(access, at)).is_some() {
            return;
        }
        let mut holders = self.first.iter_mut().chain(&mut self.more);
        if let Some(holder) = holders.find(|holder| holder.is_of(access, at)) {
            holder.guards -= 1;
        }
        self.more.retain(|holder| holder.guards > 0);
        if self.first.as_ref().is_some_and(|holder| holder.guards == 0) {
            self.first = self.more.pop();
        }
    }
}

/// How long a request waits for a guard, and how many requests may be waiting already.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    pub(crate) limit: Duration,
    pub(crate) waiters: usize,
}

/// The request did not get the lock: why, after how long, and which guard had it.
#[derive(Debug)]
pub(crate) struct TimedOut {
    pub(crate) reason: Reason,
    pub(crate) waited: Duration,
    pub(crate) held_by: String,
}

impl Lock {
    pub(crate) fn new() -> Self {
        Self { state: Mutex::default() }
    }

    /// Takes the lock if it is free and no request is waiting for it.
    pub(crate) fn try_acquire(&self, access: Access, at: CallSite) -> Result<(), TimedOut> {
        match self.take(access, at) {
            true => Ok(()),
            false => Err(self.timed_out(Reason::Late, Duration::ZERO)),
        }
    }

    /// Whether a write guard is out.
    pub(crate) fn has_writer(&self) -> bool {
        self.state().has_writer
    }

    /// Takes the lock if it is free; whether it did.
    pub(crate) fn take(&self, access: Access, at: CallSite) -> bool {
        let mut state = self.state();
        let is_free = state.waiters.is_empty() && state.is_free_for(access);
        if is_free {
            state.enter(access, at);
        }
        is_free
    }

    /// Waits for the lock, in turn.
    ///
    /// If the future is dropped while it waits, it gives up its place, or the lock if the lock has just
    /// been given to it.
    pub(crate) async fn acquire(
        &self,
        access: Access,
        at: CallSite,
        Patience { limit, waiters }: Patience,
    ) -> Result<(), TimedOut> {
        let mut waiting = match self.take_or_wait(access, at, waiters) {
            Turn::Now => return Ok(()),
            Turn::Later(waiting) => waiting,
            Turn::Never => {
                self.warn_of_crowd(waiters);
                return Err(self.timed_out(Reason::Crowded { waiters }, Duration::ZERO));
            }
        };
        let start = Instant::now();
        let mut turn = timeout(LONG_WAIT.min(limit), &mut waiting.turn).await;
        if turn.is_err() && limit > LONG_WAIT {
            self.warn(access, at);
            turn = timeout(limit - LONG_WAIT, &mut waiting.turn).await;
        }
        match turn {
            Ok(turn) => {
                turn.expect("a lock does not go while a request waits for it");
                waiting.is_over = true;
                Ok(())
            }
            Err(_) => Err(self.timed_out(Reason::Late, start.elapsed())),
        }
    }

    /// A place in the queue, if the lock is not free and fewer than this many requests wait.
    fn take_or_wait(&self, access: Access, at: CallSite, most: usize) -> Turn<'_> {
        let mut state = self.state();
        if state.waiters.is_empty() && state.is_free_for(access) {
            state.enter(access, at);
            return Turn::Now;
        }
        if state.waiters.len() >= most {
            return Turn::Never;
        }
        let (turn, wait) = oneshot::channel();
        let ticket = state.waiters.push(Waiter { access, at, turn });
        drop(state);
        Turn::Later(Waiting { lock: self, access, at, ticket, turn: wait, is_over: false })
    }

    /// After a change: tells the waiters whose turn it is.
    fn admit(&self, change: impl FnOnce(&mut State)) {
        let admitted = {
            let mut state = self.state();
            change(&mut state);
            if state.waiters.is_empty() {
                return;
            }
            state.admit()
        };
        for Waiter { turn, .. } in admitted {
            // A waiter that has just given up finds that it is in the queue no more, and gives the lock
            // back.
            let _ = turn.send(());
        }
    }

    fn warn(&self, access: Access, at: CallSite) {
        if self.is_due(|state| &mut state.last_warning) {
            tracing::warn!(
                "a {access} guard for {at} has been waiting for {LONG_WAIT:?}: now {}",
                self.held_by()
            );
        }
    }

    fn warn_of_crowd(&self, waiters: usize) {
        if self.is_due(|state| &mut state.last_crowd) {
            tracing::warn!(
                "{waiters} requests are waiting for one session's lock, and more are refused: now {}",
                self.held_by()
            );
        }
    }

    /// Whether that was not logged a moment ago: clients decide how often it happens.
    fn is_due(&self, last: impl FnOnce(&mut State) -> &mut Option<Instant>) -> bool {
        let now = Instant::now();
        let mut state = self.state();
        let last = last(&mut state);
        let is_due = last.is_none_or(|last| now - last >= LONG_WAIT);
        if is_due {
            *last = Some(now);
        }
        is_due
    }

    /// Gives back what `acquire` took.
    pub(crate) fn release(&self, access: Access, at: CallSite) {
        self.admit(|state| state.leave(access, at));
    }

    pub(crate) fn timed_out(&self, reason: Reason, waited: Duration) -> TimedOut {
        TimedOut { reason, waited, held_by: self.held_by() }
    }

    pub(crate) fn held_by(&self) -> String {
        let mut text = String::new();
        for Holder { access, at, guards } in self.state().holders.iter() {
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

    /// No statement under this mutex can panic half-way: a poisoned state is a good one.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The answer to a request for the lock.
enum Turn<'a> {
    Now,
    Later(Waiting<'a>),
    Never,
}

/// A place in the queue of waiters.
struct Waiting<'a> {
    lock: &'a Lock,
    access: Access,
    at: CallSite,
    ticket: Ticket,
    turn: oneshot::Receiver<()>,
    is_over: bool,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        // Otherwise the sending half, when it is dropped, wakes a task that waits no more.
        self.turn.close();
        let mut waiter = None;
        // The waiters behind it need not wait for it any more.
        self.lock.admit(|state| {
            waiter = state.waiters.remove(self.ticket);
            if waiter.is_none() {
                // The waiter has been given the lock, and may not have been told yet.
                state.leave(self.access, self.at);
            }
        });
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

    const LIMIT: Patience = Patience { limit: Duration::from_secs(30), waiters: 1_000 };

    fn here() -> CallSite {
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

    #[tokio::test]
    async fn a_waiter_that_is_dropped_lets_those_behind_it_go() {
        let lock = Lock::new();
        let at = here();
        lock.try_acquire(Access::Read, at).unwrap();
        let mut reader = pin!(lock.acquire(Access::Read, at, LIMIT));
        {
            let mut writer = pin!(lock.acquire(Access::Write, at, LIMIT));
            assert!(waits(writer.as_mut()).await);
            assert!(waits(reader.as_mut()).await, "it overtook the writer");
        }
        reader.await.unwrap();
    }

    /// The lock was given to the waiter, which never looked.
    #[tokio::test]
    async fn a_waiter_that_is_dropped_on_its_turn_gives_the_lock_back() {
        let lock = Lock::new();
        let at = here();
        lock.try_acquire(Access::Write, at).unwrap();
        let mut last = pin!(lock.acquire(Access::Write, at, LIMIT));
        {
            let mut next = pin!(lock.acquire(Access::Write, at, LIMIT));
            assert!(waits(next.as_mut()).await);
            assert!(waits(last.as_mut()).await);
            lock.release(Access::Write, at);
            assert!(waits(last.as_mut()).await);
        }
        last.await.unwrap();
        lock.release(Access::Write, at);
        lock.try_acquire(Access::Write, at).unwrap();
    }

    /// Threads take turns, wait, and give up at random: no waiter is left behind, and no two writers, nor
    /// a writer and a reader, are ever inside.
    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn many_come_and_go() {
        use std::sync::{
            Arc,
            atomic::{AtomicI64, Ordering::SeqCst},
        };
        /// What a writer counts for: more than there are readers.
        const WRITER: i64 = 1_000;
        let (lock, inside) = (Arc::new(Lock::new()), Arc::new(AtomicI64::new(0)));
        let at = here();
        let tasks = (0..16_u64).map(|task| {
            let (lock, inside) = (lock.clone(), inside.clone());
            tokio::spawn(async move {
                for round in 0..500 {
                    let number = (task * 7919 + round * 104_729) % 1_009;
                    let (access, weight) = match number % 3 {
                        0 => (Access::Write, WRITER),
                        _ => (Access::Read, 1),
                    };
                    let mut wait = Box::pin(lock.acquire(access, at, LIMIT));
                    if number % 5 == 0 && waits(wait.as_mut()).await {
                        tokio::task::yield_now().await;
                        continue;
                    }
                    if number % 5 != 0 {
                        wait.await.unwrap();
                    }
                    let before = inside.fetch_add(weight, SeqCst);
                    assert!(before == 0 || weight == 1 && before < WRITER);
                    if number % 2 == 0 {
                        tokio::task::yield_now().await;
                    }
                    inside.fetch_sub(weight, SeqCst);
                    lock.release(access, at);
                }
            })
        });
        for task in tasks.collect::<Vec<_>>() {
            task.await.unwrap();
        }
        lock.try_acquire(Access::Write, at).unwrap();
    }

    #[tokio::test]
    async fn one_waiter_too_many_is_told_at_once() {
        let lock = Lock::new();
        let at = here();
        let few = Patience { waiters: 2, ..LIMIT };
        lock.try_acquire(Access::Write, at).unwrap();
        let mut first = pin!(lock.acquire(Access::Read, at, few));
        assert!(waits(first.as_mut()).await);
        {
            let mut second = pin!(lock.acquire(Access::Write, at, few));
            assert!(waits(second.as_mut()).await);
            let error = lock.acquire(Access::Read, at, few).await.unwrap_err();
            assert_eq!(error.reason, Reason::Crowded { waiters: 2 });
            assert_eq!(error.held_by, format!("held by a write guard taken at {at}"));
        }
        let mut third = pin!(lock.acquire(Access::Read, at, few));
        assert!(waits(third.as_mut()).await, "one has left");
        lock.release(Access::Write, at);
        first.await.unwrap();
        third.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_ends_and_names_the_holders() {
        let lock = Lock::new();
        let at = here();
        lock.try_acquire(Access::Read, at).unwrap();
        lock.try_acquire(Access::Read, at).unwrap();
        let error = lock.acquire(Access::Write, here(), LIMIT).await.unwrap_err();
        assert_eq!((error.waited, error.reason), (LIMIT.limit, Reason::Late));
        assert_eq!(error.held_by, format!("held by 2 read guards taken at {at}"));
    }
}
