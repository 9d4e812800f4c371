//! What a request's waits for guards and its response tell each other: that a wait has been given up,
//! and whether the request waits for itself.
//!
//! A handler that asks for a guard while it holds one itself waits for ever if nothing else in it can
//! go on; but two branches of a `join!` are the same task too, and one of them may be about to drop
//! its guard. The response can tell the two apart, because it polls the handler: it polls once more
//! with a waker that counts its clones. Whatever can still happen in the handler has to hold one. If
//! only waits for guards of this very request do, nothing in it can ever drop the guard.
//!
//! What that does not see is a guard that the handler has sent to another task, and waits for without
//! waiting for the task. So the handler is asked only when the wait has lasted for [`GRACE`].

use std::{
    cell::RefCell,
    future::poll_fn,
    ops::Deref,
    pin::{Pin, pin},
    sync::{
        Arc, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use crate::{
    data::SessionData,
    error::Error,
    session::Session,
    slot::lock::{Access, TimedOut},
    sync::{Mutex, MutexGuard, timeout},
};

/// How long a wait for a guard of the same request may last before the request is asked whether it
/// waits for itself: longer than another task of it needs to pass a guard on.
const GRACE: Duration = Duration::from_millis(500);

/// What a guard that writes counts for, beside what every guard does.
const WRITE_GUARD: u64 = 1 << 32;

/// One request's waits and guards.
#[derive(Default)]
pub(crate) struct Waits {
    /// How many guards the request holds; beside them, as multiples of [`WRITE_GUARD`], how many of
    /// them write.
    guards: AtomicU64,
    response: Mutex<Response>,
}

#[derive(Default)]
struct Response {
    /// Wakes the response; there once the handler has been polled and was not done.
    waker: Option<Waker>,
    /// Why a wait was given up. The first of several counts.
    given_up: Option<Error>,
    is_suspected: bool,
}

/// What the response finds when the handler is not done.
#[derive(Debug)]
pub(crate) enum Found {
    /// Nothing but that it is not done.
    Pending,
    /// A wait was given up: there is nothing to wait for.
    GivenUp(Error),
    /// The handler holds a guard and has been waiting for another one for a while.
    Suspected,
}

impl Waits {
    /// Whether the request holds a guard right now.
    pub(crate) fn has_guard(&self) -> bool {
        self.guards.load(SeqCst) > 0
    }

    /// Whether the request holds a guard right now whose changes no other request sees yet.
    pub(crate) fn has_write_guard(&self) -> bool {
        self.guards.load(SeqCst) >= WRITE_GUARD
    }

    /// Has the response leave without its handler. Does nothing if it has left.
    pub(crate) fn give_up(&self, error: Error) {
        self.tell(|response| _ = response.given_up.get_or_insert(error));
    }

    fn suspect(&self) {
        self.tell(|response| response.is_suspected = true);
    }

    fn tell(&self, change: impl FnOnce(&mut Response)) {
        let waker = {
            let mut response = self.response();
            change(&mut response);
            response.waker.take()
        };
        // A waker runs code of the executor: it is not called under the lock.
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// The response calls this whenever the handler was polled and is not done. Either this finds what a
    /// wait has told, or the wait wakes the response.
    pub(crate) fn check(&self, waker: &Waker) -> Found {
        let old = {
            let mut response = self.response();
            if let Some(error) = response.given_up.take() {
                return Found::GivenUp(error);
            }
            if std::mem::take(&mut response.is_suspected) {
                return Found::Suspected;
            }
            if response.waker.as_ref().is_some_and(|known| known.will_wake(waker)) {
                return Found::Pending;
            }
            response.waker.replace(clone_for_waits(waker))
        };
        drop(old);
        Found::Pending
    }

    /// Each change is one assignment.
    fn response(&self) -> MutexGuard<'_, Response> {
        self.response.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for `acquire`, which is not ready at once; but not for ever if the request waits for itself:
    /// then the answer is `None`.
    pub(crate) async fn wait<R>(
        &self,
        acquire: impl Future<Output = Result<R, TimedOut>>,
    ) -> Option<Result<R, TimedOut>> {
        let mut acquire = pin!(acquire);
        // Of the guards and waits of a request that waits for itself, a wait was the last to come.
        let may_be_itself = self.has_guard();
        if may_be_itself {
            match timeout(GRACE, acquire.as_mut()).await {
                Ok(done) => return Some(done),
                Err(_) => self.suspect(),
            }
        }
        poll_fn(|cx| match self.is_told_that_it_waits_for_itself() && may_be_itself {
            true => Poll::Ready(None),
            false => self.poll_counted(acquire.as_mut(), cx).map(Some),
        })
        .await
    }

    /// Polls a handler that is under suspicion, and says whether it waits for itself.
    pub(crate) fn probe<F: Future>(
        &self,
        handler: Pin<&mut F>,
        cx: &Context<'_>,
    ) -> Probed<F::Output> {
        let counting =
            Arc::new(Counting { waker: cx.waker().clone(), was_woken: AtomicBool::new(false) });
        let asking = Asking::begin(self, Some(counting.clone()));
        let waker = Waker::from(counting.clone());
        if let Poll::Ready(output) = handler.poll(&mut Context::from_waker(&waker)) {
            return Probed::Done(output);
        }
        drop(waker);
        let waits = asking.end();
        // Ours is one, and `asking` had one.
        let others = Arc::strong_count(&counting) - 1;
        match others <= waits && !counting.was_woken.load(SeqCst) {
            true => Probed::WaitsForItself,
            false => Probed::Alive,
        }
    }

    /// Polls a handler that waits for itself: the wait ends, with an error.
    pub(crate) fn tell_that_it_waits_for_itself<F: Future>(
        &self,
        handler: Pin<&mut F>,
        cx: &mut Context<'_>,
    ) -> Poll<F::Output> {
        let _telling = Asking::begin(self, None);
        handler.poll(cx)
    }

    fn is_told_that_it_waits_for_itself(&self) -> bool {
        ASKED.with_borrow(|asked| {
            asked
                .as_ref()
                .is_some_and(|asked| asked.waits == self.address() && asked.counting.is_none())
        })
    }

    /// Polls a wait, and counts the clones of the waker that it makes if a response is asking.
    fn poll_counted<F: Future>(&self, wait: Pin<&mut F>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let before = self.clones();
        let polled = wait.poll(cx);
        if let (Some(before), Some(after)) = (before, self.clones()) {
            ASKED.with_borrow_mut(|asked| {
                if let Some(asked) = asked {
                    asked.by_waits += after.saturating_sub(before);
                }
            });
        }
        polled
    }

    /// How many clones there are of the waker that the request's response polls with, if it counts.
    fn clones(&self) -> Option<usize> {
        ASKED.with_borrow(|asked| {
            let asked = asked.as_ref().filter(|asked| asked.waits == self.address())?;
            asked.counting.as_ref().map(Arc::strong_count)
        })
    }

    fn address(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }
}

/// A clone for what wakes a response only to tell it of its own request's waits. To a response around
/// it, of another layer, that is one more wait: by itself it has nothing drop a guard.
fn clone_for_waits(waker: &Waker) -> Waker {
    let clones =
        || ASKED.with_borrow(|asked| asked.as_ref()?.counting.as_ref().map(Arc::strong_count));
    let before = clones();
    let waker = waker.clone();
    if before < clones() {
        ASKED.with_borrow_mut(|asked| {
            if let Some(asked) = asked {
                asked.by_waits += 1;
            }
        });
    }
    waker
}

/// What comes of a [`Waits::probe`].
pub(crate) enum Probed<R> {
    Done(R),
    Alive,
    WaitsForItself,
}

thread_local! {
    /// What a response that is polling its handler on this thread just now wants of its waits.
    static ASKED: RefCell<Option<Asked>> = const { RefCell::new(None) };
}

struct Asked {
    /// Stands for the request.
    waits: usize,
    /// To count its clones; without one a wait for the request itself is to end.
    counting: Option<Arc<Counting>>,
    by_waits: usize,
}

/// As long as it lives, its question stands.
struct Asking {
    before: Option<Asked>,
}

impl Asking {
    fn begin(waits: &Waits, counting: Option<Arc<Counting>>) -> Self {
        let asked = Asked { waits: waits.address(), counting, by_waits: 0 };
        Self { before: ASKED.replace(Some(asked)) }
    }

    /// How many clones the request's waits have made.
    fn end(self) -> usize {
        ASKED.with_borrow(|asked| asked.as_ref().map_or(0, |asked| asked.by_waits))
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        ASKED.set(self.before.take());
    }
}

/// A waker whose clones are counted.
struct Counting {
    waker: Waker,
    was_woken: AtomicBool,
}

impl Wake for Counting {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.was_woken.store(true, SeqCst);
        self.waker.wake_by_ref();
    }
}

/// How much a guard adds to the count of its request's guards.
fn weight(access: Access) -> u64 {
    match access {
        Access::Read => 1,
        Access::Write => 1 + WRITE_GUARD,
    }
}

/// The session of a guard, counted among the sessions of its request that have a guard.
pub(crate) struct Holding<T: SessionData> {
    session: Session<T>,
    access: Access,
}

impl<T: SessionData> Holding<T> {
    pub(crate) fn new(session: Session<T>, access: Access) -> Self {
        session.handle().waits.guards.fetch_add(weight(access), SeqCst);
        Self { session, access }
    }
}

impl<T: SessionData> Deref for Holding<T> {
    type Target = Session<T>;

    fn deref(&self) -> &Session<T> {
        &self.session
    }
}

impl<T: SessionData> Drop for Holding<T> {
    fn drop(&mut self) {
        self.session.handle().waits.guards.fetch_sub(weight(self.access), SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        sync::{Notify, oneshot},
        task::yield_now,
        time::{sleep, timeout},
    };

    use super::*;

    /// A wait that nothing ends, and that has a timer as well, as one for a lock has.
    async fn wait_for_ever(waits: &Waits) -> Option<Result<(), TimedOut>> {
        let (_never, wait) = oneshot::channel::<()>();
        let wait = async move {
            let _ = timeout(Duration::from_secs(3_600), wait).await;
            Ok(())
        };
        waits.wait(wait).await
    }

    /// Polls it until it is done or a probe has said something.
    async fn probe<F: Future>(waits: &Waits, handler: F) -> &'static str {
        let mut handler = pin!(handler);
        poll_fn(|cx| {
            if handler.as_mut().poll(cx).is_ready() {
                return Poll::Ready("done");
            }
            match waits.check(cx.waker()) {
                Found::Pending => Poll::Pending,
                Found::GivenUp(_) => Poll::Ready("given up"),
                Found::Suspected => Poll::Ready(match waits.probe(handler.as_mut(), cx) {
                    Probed::Done(_) => "done",
                    Probed::Alive => "alive",
                    Probed::WaitsForItself => {
                        match waits.tell_that_it_waits_for_itself(handler.as_mut(), cx) {
                            Poll::Ready(_) => "waits for itself",
                            Poll::Pending => "waits for itself, and goes on",
                        }
                    }
                }),
            }
        })
        .await
    }

    /// A request that holds this many guards.
    fn holding(guards: u64) -> Waits {
        Waits { guards: AtomicU64::new(guards), ..Waits::default() }
    }

    #[tokio::test(start_paused = true)]
    async fn a_handler_that_waits_for_itself_alone_is_found_out() {
        let waits = holding(1);
        assert_eq!(probe(&waits, wait_for_ever(&waits)).await, "waits for itself");
        // Both branches do.
        let branches = async { tokio::join!(wait_for_ever(&waits), wait_for_ever(&waits)) };
        assert_eq!(probe(&waits, branches).await, "waits for itself");
    }

    #[tokio::test(start_paused = true)]
    async fn a_handler_that_can_go_on_is_left_alone() {
        let waits = holding(1);
        const LONG: Duration = Duration::from_secs(10);
        let timer = async { tokio::join!(wait_for_ever(&waits), sleep(LONG)) };
        assert_eq!(probe(&waits, timer).await, "alive");
        let with_limit = timeout(LONG, wait_for_ever(&waits));
        assert_eq!(probe(&waits, with_limit).await, "alive");
        let notify = Notify::new();
        let notified = async { tokio::join!(wait_for_ever(&waits), notify.notified()) };
        assert_eq!(probe(&waits, notified).await, "alive");
        let task = async { tokio::join!(wait_for_ever(&waits), tokio::spawn(sleep(LONG))) };
        assert_eq!(probe(&waits, task).await, "alive");
        let busy = async {
            let spin = async {
                // Paused time stands still as long as a task has something to do.
                loop {
                    tokio::time::advance(Duration::from_millis(10)).await;
                }
            };
            tokio::join!(wait_for_ever(&waits), spin)
        };
        assert_eq!(timeout(LONG, probe(&waits, busy)).await, Ok("alive"));
        // The wait of another request is none of ours.
        let others = holding(0);
        let both = async { tokio::join!(wait_for_ever(&waits), wait_for_ever(&others)) };
        assert_eq!(probe(&waits, both).await, "alive");
    }

    /// A set of futures wakes its members through wakers of its own: the probe cannot look into them.
    #[tokio::test(start_paused = true)]
    async fn what_cannot_be_told_counts_as_alive() {
        let waits = Arc::new(holding(1));
        let mut set = tokio::task::JoinSet::new();
        let own = waits.clone();
        set.spawn(async move { wait_for_ever(&own).await.is_none() });
        assert_eq!(probe(&waits, set.join_next()).await, "alive");
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_without_a_guard_is_never_under_suspicion() {
        let waits = holding(0);
        let hour = Duration::from_secs(3_600);
        assert_eq!(probe(&waits, timeout(hour, wait_for_ever(&waits))).await, "done");
    }

    #[tokio::test]
    async fn giving_up_in_another_task_wakes_the_response() {
        let waits = Arc::new(Waits::default());
        let own = waits.clone();
        let task = tokio::spawn(async move {
            yield_now().await;
            own.give_up(Error::ended());
        });
        assert_eq!(probe(&waits, std::future::pending::<()>()).await, "given up");
        task.await.unwrap();
    }
}
