//! What is told to those who wait for the end of a session.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::{sync::Notify, task::AbortHandle};

use super::{Slot, SlotState};
use crate::{
    data::SessionData,
    record::{Record, expiry::Lifetime},
};

/// How a session has ended: what [`Session::ended`](crate::Session::ended) waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SessionEnd {
    /// It is over: by a logout, [`destroy`](crate::Session::destroy), one of [`UserSessions`](crate::UserSessions)'
    /// methods, or because it has expired, or would have if it had ever been stored.
    Over,
    /// It goes on under another id, which this handle never gets: by a login or
    /// [`renew_id`](crate::Session::renew_id). The client has a new cookie, and what wants to go on has to
    /// come again with that. Where the store has to be looked at for news, a renewal that was longer ago
    /// than ten seconds is not told from an end.
    Renewed,
}

/// Those who wait for the end of one session.
#[derive(Default)]
pub(crate) struct EndWaiters {
    /// That the session has ended.
    pub(crate) told: Notify,
    /// That the session is stored for the first time, and has an id to look for.
    pub(crate) stored: Notify,
    watch: Mutex<Watch>,
}

/// The task that looks at the store for all waiters.
#[derive(Default)]
struct Watch {
    waiters: usize,
    /// A task has been begun, and has not ended.
    is_watched: bool,
    /// Counts the tasks, so that one that ends late is not taken for the one after it.
    number: u64,
    task: Option<AbortHandle>,
}

impl EndWaiters {
    /// Counts one more waiter, until what it gets is dropped.
    pub(crate) fn enter(&self) -> EndWaiter<'_> {
        self.watch().waiters += 1;
        EndWaiter(self)
    }

    /// The number of the task that the caller has to start, if no task looks at the store. A caller is
    /// one of the waiters.
    pub(crate) fn begin_watch(&self) -> Option<u64> {
        let mut watch = self.watch();
        if watch.is_watched {
            return None;
        }
        watch.is_watched = true;
        watch.number += 1;
        Some(watch.number)
    }

    /// Notes the task that was started under this number.
    pub(crate) fn note_watch(&self, number: u64, task: AbortHandle) {
        let mut watch = self.watch();
        // The task may have ended already.
        if watch.is_watched && watch.number == number {
            watch.task = Some(task);
        }
    }

    /// The task of this number has ended, or could not be started. That of another number goes on.
    pub(crate) fn end_watch(&self, number: u64) {
        let mut watch = self.watch();
        if watch.number == number {
            (watch.is_watched, watch.task) = (false, None);
        }
    }

    pub(crate) fn is_watched(&self) -> bool {
        self.watch().is_watched
    }

    fn watch(&self) -> MutexGuard<'_, Watch> {
        self.watch.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One waiter. The last one that goes ends the task.
pub(crate) struct EndWaiter<'a>(&'a EndWaiters);

impl Drop for EndWaiter<'_> {
    fn drop(&mut self) {
        let mut watch = self.0.watch();
        watch.waiters -= 1;
        if watch.waiters > 0 {
            return;
        }
        watch.is_watched = false;
        let task = watch.task.take();
        // Without the lock, which the task takes when it ends.
        drop(watch);
        if let Some(task) = task {
            task.abort();
        }
    }
}

impl<T: SessionData> Slot<T> {
    pub(crate) fn end_waiters(&self) -> &EndWaiters {
        self.end_waiters.get_or_init(Box::default)
    }

    pub(crate) fn end_reached(&self) -> Option<SessionEnd> {
        match self.state() {
            SlotState::Ended(end) => Some(end),
            _ => None,
        }
    }

    /// Ends a session that this finds to be over.
    pub(crate) fn end_if(&self, is_over: impl FnOnce(SlotState, &Record, Lifetime) -> bool) {
        let mut contents = self.contents();
        if is_over(contents.state, &contents.known.record, contents.lifetime) {
            contents.state = SlotState::Ended(SessionEnd::Over);
            drop(contents);
            self.tell_waiters();
        }
    }

    /// The task that looks at the store begins to look for a session that was not stored before.
    pub(super) fn tell_stored(&self) {
        if let Some(waiters) = self.end_waiters.get() {
            waiters.stored.notify_waiters();
        }
    }

    /// To be called after the state has become `Ended`, without its lock.
    pub(super) fn tell_waiters(&self) {
        // A task that begins to wait now looks at the state after this.
        if let Some(waiters) = self.end_waiters.get() {
            waiters.told.notify_waiters();
        }
    }
}
