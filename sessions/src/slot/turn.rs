//! The turn at the store: who holds the turn is the only one who talks to the store about the session.

use tokio::sync::{Semaphore, SemaphorePermit};

/// A semaphore of one place, because that says whether the place is taken without taking it.
///
/// A save that a store answers at once asks so under the lock of the slot's contents, and takes no turn
/// itself: who takes the turn meanwhile looks at the contents after that, and waits there until the save is done.
pub(crate) struct Turn(Semaphore);

/// The turn, taken. Its drop gives the turn to the next.
pub(crate) struct TakenTurn<'a>(#[expect(dead_code, reason = "held")] SemaphorePermit<'a>);

impl Turn {
    pub(super) fn new() -> Self {
        Self(Semaphore::new(1))
    }

    /// Waits for the turn, in the order in which requests come. A dropped future gives up its place.
    pub(crate) async fn take(&self) -> TakenTurn<'_> {
        TakenTurn(self.0.acquire().await.expect("the semaphore is never closed"))
    }

    /// The turn, if it is free.
    pub(crate) fn try_take(&self) -> Option<TakenTurn<'_>> {
        self.0.try_acquire().ok().map(TakenTurn)
    }

    pub(super) fn is_taken(&self) -> bool {
        self.0.available_permits() == 0
    }
}
