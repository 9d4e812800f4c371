//! The turn at the store: who holds the turn is the only one who talks to the store about the session.

use tokio::sync::{Semaphore, SemaphorePermit};

use super::Slot;
use crate::{data::SessionData, sync::others_may_go_first};

/// A semaphore of one place, because that says whether the place is taken without taking it.
///
/// A save that a store answers at once [asks](Self::is_taken) so under the lock of the slot's contents, and takes no
/// turn itself. Who takes the turn meanwhile waits at the contents until that save is done.
pub(super) struct Turn(Semaphore);

/// The turn, taken. Its drop gives the turn to the next.
pub(crate) struct TakenTurn<'a>(#[expect(dead_code, reason = "held")] SemaphorePermit<'a>);

impl Turn {
    pub(super) fn new() -> Self {
        Self(Semaphore::new(1))
    }

    pub(super) fn is_taken(&self) -> bool {
        let is_taken = self.0.available_permits() == 0;
        others_may_go_first();
        is_taken
    }
}

impl<T: SessionData> Slot<T> {
    /// Waits for the turn, in the order in which requests come. A dropped future gives up its place.
    pub(crate) async fn take_turn(&self) -> TakenTurn<'_> {
        let place = self.turn.0.acquire().await.expect("the semaphore is never closed");
        self.wait_for_save_at_once();
        TakenTurn(place)
    }

    /// The turn, if it is free.
    pub(crate) fn try_take_turn(&self) -> Option<TakenTurn<'_>> {
        let place = self.turn.0.try_acquire().ok()?;
        self.wait_for_save_at_once();
        Some(TakenTurn(place))
    }

    /// One that has found the turn free. Each later one finds the turn taken.
    fn wait_for_save_at_once(&self) {
        drop(self.contents());
    }
}
