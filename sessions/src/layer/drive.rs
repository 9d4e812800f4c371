//! From a handler to what its response needs, in whichever framework the handler is.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;

use crate::{
    data::SessionData,
    error::Error,
    session::{
        Session,
        finish::Outcome,
        request::Handle,
        wait::{Found, Probed, Waits},
    },
};

/// What the inner service says; or why it says nothing, which is that it waits for a guard that is not
/// to be had.
pub(crate) type Answer<O> = Result<O, Error>;

/// What a [`Drive`] comes to.
pub(crate) enum Driven<R, E> {
    /// Nobody has asked for the session: the response goes on as it is.
    Untouched(R),
    /// The session is saved, or could not be.
    Finished {
        /// What the inner service says.
        output: Answer<Result<R, E>>,
        /// What the response needs.
        outcome: Outcome,
    },
}

pin_project! {
    /// The inner service's response, while the session is being saved.
    struct Waiting<O, F: ?Sized> {
        output: Option<Answer<O>>,
        #[pin]
        finishing: F,
    }
}

type Finishing<O> = Pin<Box<Waiting<O, dyn Future<Output = Outcome> + Send>>>;

pin_project! {
    /// The inner service's future, and then the saving of the session.
    ///
    /// Where nothing has to be saved it allocates nothing. If it is dropped, what the request's
    /// guards wrote is saved in the background. If a guard is not to be had, it drops the inner
    /// service's future.
    pub(crate) struct Drive<F: Future, T: SessionData> {
        // Gone once it has been given up.
        #[pin]
        inner: Option<F>,
        session: Session<T>,
        waiting: Option<Finishing<F::Output>>,
        is_done: bool,
    }

    impl<F: Future, T: SessionData> PinnedDrop for Drive<F, T> {
        fn drop(this: Pin<&mut Self>) {
            let this = this.project();
            if !*this.is_done {
                this.session.handle().on_disconnect();
            }
        }
    }
}

impl<F: Future, T: SessionData> Drive<F, T> {
    pub(crate) fn new(inner: F, session: Session<T>) -> Self {
        Self { inner: Some(inner), session, waiting: None, is_done: false }
    }

    pub(crate) fn handle(&self) -> &Handle<T> {
        self.session.handle()
    }
}

impl<F, T, R, E> Future for Drive<F, T>
where
    F: Future<Output = Result<R, E>>,
    T: SessionData,
{
    type Output = Driven<R, E>;

    /// Inlined, because a response is moved with each return.
    #[inline(always)]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Driven<R, E>> {
        let this = self.project();
        if this.waiting.is_some() {
            return poll_waiting(this.waiting, this.is_done, cx);
        }
        let handle = this.session.handle_mut();
        handle.begin_poll();
        let output = ready!(answer(this.inner, &handle.waits, cx));
        let is_untouched = handle.begin_answer();
        if is_untouched && let Ok(Ok(response)) = output {
            *this.is_done = true;
            return Poll::Ready(Driven::Untouched(response));
        }
        if matches!(output, Ok(Err(_))) {
            handle.on_response_lost();
        }
        if let Some(outcome) = handle.finish_now() {
            *this.is_done = true;
            return Poll::Ready(Driven::Finished { output, outcome });
        }
        let handle = handle.clone();
        let finishing = async move { handle.finish().await };
        *this.waiting = Some(Box::pin(Waiting { output: Some(output), finishing }));
        poll_waiting(this.waiting, this.is_done, cx)
    }
}

#[inline(never)]
fn poll_waiting<R, E>(
    waiting: &mut Option<Finishing<Result<R, E>>>,
    is_done: &mut bool,
    cx: &mut Context<'_>,
) -> Poll<Driven<R, E>> {
    let Some(waiting) = waiting else { return Poll::Pending };
    let waiting = waiting.as_mut().project();
    let outcome = ready!(waiting.finishing.poll(cx));
    let output = waiting.output.take().expect("a future is polled until it is ready");
    *is_done = true;
    Poll::Ready(Driven::Finished { output, outcome })
}

/// Polls the handler.
#[inline(always)]
fn answer<F: Future>(
    mut inner: Pin<&mut Option<F>>,
    waits: &Waits,
    cx: &mut Context<'_>,
) -> Poll<Answer<F::Output>> {
    let Some(handler) = inner.as_mut().as_pin_mut() else { return Poll::Pending };
    match handler.poll(cx) {
        Poll::Ready(output) => Poll::Ready(Ok(output)),
        Poll::Pending => look_at_waits(inner, waits, cx),
    }
}

/// The handler is not done: what do the request's waits say to that?
#[inline(never)]
fn look_at_waits<F: Future>(
    mut inner: Pin<&mut Option<F>>,
    waits: &Waits,
    cx: &mut Context<'_>,
) -> Poll<Answer<F::Output>> {
    loop {
        let Some(mut handler) = inner.as_mut().as_pin_mut() else { return Poll::Pending };
        match waits.check(cx.waker()) {
            Found::Pending => return Poll::Pending,
            Found::GivenUp(error) => {
                // With its guards, for which others may be waiting.
                inner.set(None);
                return Poll::Ready(Err(error));
            }
            Found::Suspected => match waits.probe(handler.as_mut(), cx) {
                Probed::Done(output) => return Poll::Ready(Ok(output)),
                Probed::Alive => {}
                Probed::WaitsForItself => {
                    if let Poll::Ready(output) =
                        waits.tell_that_it_waits_for_itself(handler.as_mut(), cx)
                    {
                        return Poll::Ready(Ok(output));
                    }
                }
            },
        }
        // A probe has polled with a waker of its own.
        if let Poll::Ready(output) = handler.poll(cx) {
            return Poll::Ready(Ok(output));
        }
    }
}
