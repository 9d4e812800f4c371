//! Saves that come while others are on their way, and then go together: one statement, one commit, one
//! write to the server's disk for all of them.
//!
//! Each remains a compare-and-swap with an answer of its own. A save that the statement did not find as it
//! should be goes once more, alone, and so has the answer that it would have had.

use std::{error::Error as StdError, fmt, sync::Arc, time::Duration};

use tokio::{runtime::Handle, sync::oneshot, time::timeout};

use super::{
    Dialect,
    calls::{AsyncDriver, Core},
    driver::{Driver, Meaning, Save, Value, meaning},
    line::{Answer, Joined, Next},
};
use crate::{error::store::StoreError, store::Replaced};

/// How long a save waits for those before it, before it goes alone: they may wait for a locked row, or for
/// a server that hangs, and sessions do not wait for each other.
const PATIENCE: Duration = Duration::from_millis(50);

/// How a save goes.
pub(super) enum Place<D: Dialect> {
    /// Now, alone; those that come meanwhile may wait for it.
    Turn(Turn<D>),
    /// Now, alone.
    Alone,
    /// With others, soon.
    Waits(Ticket<D>),
}

/// A save or a group that is on its way. The next group goes when it is dropped.
pub(super) struct Turn<D: Dialect> {
    core: Arc<Core<D>>,
}

impl<D: Dialect> Drop for Turn<D> {
    fn drop(&mut self) {
        let core = self.core.clone();
        match core.line.next() {
            Next::Nobody => {}
            Next::One(waiting) => waiting.takes(Self { core }),
            Next::Several => {
                let task = Task { core, has_begun: false };
                // A task of its own: a caller that is dropped fails none of the others.
                if let Ok(runtime) = Handle::try_current() {
                    runtime.spawn(task.send());
                }
            }
        }
    }
}

/// A turn whose group is put together when the task begins: until then each save may still go alone, because
/// the runtime may be busy, or one that nobody drives any more.
struct Task<D: Dialect> {
    core: Arc<Core<D>>,
    has_begun: bool,
}

/// A runtime that ends drops its tasks, those too that have not begun.
impl<D: Dialect> Drop for Task<D> {
    fn drop(&mut self) {
        if self.has_begun {
            return;
        }
        // Not to a task again, which that runtime would drop as well.
        if let Some(waiting) = self.core.line.first() {
            waiting.takes(Turn { core: self.core.clone() });
        }
    }
}

impl<D: Dialect> Task<D> {
    async fn send(mut self) {
        self.has_begun = true;
        let core = &self.core;
        let _turn = Turn { core: core.clone() };
        let Some(group) = core.line.group() else { return };
        let work = ReplaceTogether { core, saves: &group.saves };
        let outcome = core.on("replace", &core.write, work).await;
        match outcome {
            Ok(done) => group.answer(|number| match done.get(number) {
                Some(true) => Answer::Done,
                _ => Answer::Alone(None),
            }),
            Err(error) => {
                let error = Arc::new(error);
                group.answer(|_| Answer::Failed(shared::<D>(&error)));
            }
        }
    }
}

/// A place in the line.
pub(super) struct Ticket<D: Dialect> {
    core: Arc<Core<D>>,
    number: u64,
    answer: oneshot::Receiver<Answer<Turn<D>>>,
}

impl<D: Dialect> Ticket<D> {
    /// The answer; `Err` if the save goes alone, now.
    ///
    /// Dropped before the save is sent, it is not sent.
    pub(super) async fn answer(mut self) -> Result<Result<Replaced, StoreError>, Option<Turn<D>>> {
        let answer = match timeout(PATIENCE, &mut self.answer).await {
            Ok(answer) => answer,
            Err(_) if self.core.line.leave(self.number) => return Err(None),
            // It is on its way, or just handed back. The runtime that sends it measures the time, but it may
            // be one that nobody drives any more.
            Err(_) => match timeout(self.core.timeout.saturating_mul(3), self.answer).await {
                Ok(answer) => answer,
                Err(_) => return Ok(Err(self.core.too_late("replace"))),
            },
        };
        match answer {
            Ok(Answer::Done) => Ok(Ok(Replaced::Done)),
            Ok(Answer::Alone(turn)) => Err(turn),
            Ok(Answer::Failed(error)) => Ok(Err(error)),
            Err(_) => {
                let words = "the runtime that sent it has ended before the answer";
                Ok(Err(StoreError::new(D::STORE, "replace", words)))
            }
        }
    }
}

impl<D: Dialect> Core<D> {
    /// Whether each save is sent by itself. Before the first write it is not known how this server is to be
    /// written to.
    fn goes_alone(&self) -> bool {
        self.known(|known| known.in_transactions || known.is_serializable || !known.commits)
    }

    /// How a save of `bytes` goes; what it is, is only asked if it waits.
    pub(super) fn place(self: &Arc<Self>, bytes: usize, save: impl FnOnce() -> Save) -> Place<D> {
        if self.statements.replace_together.is_empty() || self.goes_alone() {
            return Place::Alone;
        }
        match self.line.join(D::SAVES_AT_ONCE, bytes, save) {
            Joined::Turn => Place::Turn(Turn { core: self.clone() }),
            Joined::Alone => Place::Alone,
            Joined::Waits(number, answer) => {
                Place::Waits(Ticket { core: self.clone(), number, answer })
            }
        }
    }
}

/// Which of the saves are done; if the database has done nothing, none.
struct ReplaceTogether<'a, D: Dialect> {
    core: &'a Core<D>,
    saves: &'a [Save],
}

impl<D: Dialect> AsyncDriver<D, Vec<bool>> for ReplaceTogether<'_, D> {
    const WRITES: bool = true;

    async fn call(
        &self,
        connection: &mut D::Connection,
        unprepared: bool,
    ) -> Result<Vec<bool>, sqlx::Error> {
        let Value::Int(now) = self.core.now() else { return Ok(Vec::new()) };
        // While the saves waited it has turned out that each has to go alone.
        if self.core.goes_alone() {
            return Ok(Vec::new());
        }
        let statements = &self.core.statements.replace_together;
        let done = D::replace_together(connection, statements, self.saves, now, unprepared);
        let error = match done.await {
            Ok(done) => return Ok(done),
            Err(error) => error,
        };
        match meaning::<D>(&error) {
            // For all of them, and `on` knows what to do; or it is not known whether it is done.
            None
            | Some(
                Meaning::ReadOnly
                | Meaning::Stale
                | Meaning::OtherStatement
                | Meaning::Crowded
                | Meaning::Passing,
            ) => Err(error),
            Some(Meaning::InTheWay | Meaning::Prepared | Meaning::TooLarge) => Ok(Vec::new()),
            // Because of one of them, or of the statement: alone each is told.
            Some(_) => {
                self.core.line.refuse();
                Ok(Vec::new())
            }
        }
    }
}

/// One of the errors of saves that failed together.
fn shared<D: Driver>(error: &Arc<StoreError>) -> StoreError {
    match error.is_retryable() {
        true => StoreError::new(D::STORE, "replace", Shared(error.clone())),
        false => StoreError::permanent(D::STORE, "replace", Shared(error.clone())),
    }
}

/// The cause of an error that several calls have.
#[derive(Debug)]
struct Shared(Arc<StoreError>);

impl fmt::Display for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.source() {
            Some(cause) => fmt::Display::fmt(cause, f),
            None => fmt::Display::fmt(&self.0, f),
        }
    }
}

impl StdError for Shared {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source().and_then(StdError::source)
    }
}
