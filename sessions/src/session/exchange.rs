//! How a request exchanges its session for another one: a renewed one, or none.
//!
//! 1. Two tasks of a request never do that at once, nor does its response leave meanwhile ([`SwitchGuard`]): what
//!    comes of two of them is what comes of one after the other.
//! 2. To renew a session, or to log in with it, takes its lock for writing, and then the turn to exchange. To end it
//!    takes the turn alone: so whoever logs in looks in their turn whether what they have locked is still the session
//!    of the request ([`Session::is_current`]).
//! 3. What has begun is carried to its end, also if the client hangs up.

use std::sync::Arc;

#[cfg(feature = "device-bound")]
use crate::{
    cookie::VerifiedCookie,
    save::{link, load},
    slot::SlotState,
};
use crate::{
    data::SessionData,
    error::Error,
    meters,
    save::{renew, turn::StoreTurn},
    session::{Session, request::Handle},
    slot::{Slot, plan::SaveJob, token::LockToken},
};

/// The right to switch the request to another session.
pub(crate) struct SwitchGuard<'a, T: SessionData> {
    handle: &'a Handle<T>,
    _turn: tokio::sync::MutexGuard<'a, ()>,
}

impl<T: SessionData> Drop for SwitchGuard<'_, T> {
    fn drop(&mut self) {
        self.handle.current().is_switching = false;
    }
}

impl<T: SessionData> Handle<T> {
    /// Waits until no other task of the request switches.
    pub(crate) async fn begin_switch(&self) -> SwitchGuard<'_, T> {
        let turn = self.opened_session().switching.lock().await;
        self.current().is_switching = true;
        SwitchGuard { handle: self, _turn: turn }
    }

    /// Gives the request a new session in place of the one that it has ended.
    pub(crate) fn reset_to_new(&self) {
        let mut current = self.current();
        current.slot = Arc::new(Slot::unsaved(self.shared.now()));
        current.ended = current.cookie.is_some();
        current.is_new = true;
        if self.is_answered() {
            self.forbid_new_cookie(&current.slot);
        }
    }
}

impl<T: SessionData> Session<T> {
    /// Whether the request still has the session that this has locked.
    pub(crate) fn is_current(&self, token: &LockToken<T>) -> bool {
        Arc::ptr_eq(token.slot(), &self.handle.current().slot)
    }

    pub(super) async fn renew_id_of(&self, token: LockToken<T>) -> Result<(), Error> {
        let shared = &*self.handle.shared;
        let slot = token.slot();
        let _switch = self.handle.begin_switch().await;
        let mut turn = StoreTurn::for_slot(slot).await;
        if slot.registration().is_none() {
            return if slot.state().has_moved() { Err(Error::ended()) } else { Ok(()) };
        }
        if self.handle.is_answered() {
            return Err(Error::no_cookie());
        }
        let job = SaveJob::new(Some(self.handle.writer()));
        let (record, registration) = renew::renew(shared, &token, &mut turn, job).await?;
        self.switch_to(token.end_with_successor(
            record,
            registration,
            shared.settings.payload_limit,
        ));
        tracing::debug!("renewed a session's id");
        Ok(())
    }

    /// Makes `successor`, which is stored already, the request's session.
    pub(crate) fn switch_to(&self, successor: Slot<T>) {
        let successor = Arc::new(successor);
        self.handle.shared.registry.enter(&successor);
        self.handle.current().slot = successor;
    }

    pub(crate) async fn destroy_now(&self) -> Result<(), Error> {
        let shared = &*self.handle.shared;
        let _switch = self.handle.begin_switch().await;
        #[cfg(feature = "device-bound")]
        self.end_refused().await?;
        let slot = self.handle.slot();
        // A save of this slot that is under way has to end first: it may be creating the record.
        let _turn = slot.take_turn().await;
        // A session that was renewed keeps its tombstone, for requests that still send the old cookie.
        let is_to_end = slot.registration().filter(|_| !slot.state().has_moved());
        let has_ended = match (is_to_end, shared.store()) {
            (Some(registration), Some(store)) => {
                renew::end(shared, store, &registration.key, slot.record().version).await?
            }
            (registration, _) => registration.is_some(),
        };
        if has_ended {
            meters::ended(1);
            tracing::debug!("ended a session");
        }
        // Of a session that goes on under another id, as another process has it, the binding goes on too.
        #[cfg(feature = "device-bound")]
        let binding = slot.inspect(|view| view.head.binding.as_deref().copied());
        #[cfg(feature = "device-bound")]
        let binding = binding.filter(|_| has_ended);
        renew::take_back_creation(shared, &slot).await;
        slot.end();
        self.handle.reset_to_new();
        #[cfg(feature = "device-bound")]
        if let (Some(binding), Some(store)) = (binding, shared.store()) {
            link::forget(store, &binding.id).await;
        }
        Ok(())
    }

    /// Ends the session that the request is kept from, because it has not shown the session's device: whoever
    /// logs out has logged out, also while the browser cannot refresh its bound cookie. A thief has as little
    /// of it afterwards as the owner.
    #[cfg(feature = "device-bound")]
    async fn end_refused(&self) -> Result<(), Error> {
        let shared = &*self.handle.shared;
        let has_found_another = self.handle.current().cookie.is_some();
        let refused = self.handle.refused_session().filter(|_| !has_found_another);
        let (Some(id), Some(store)) = (refused, shared.store()) else { return Ok(()) };
        let key = id.store_key();
        let slot = shared.registry.slot_of(id, key);
        let _turn = slot.take_turn().await;
        if load::refresh_locked(shared, &slot, &key).await? != SlotState::Stored {
            return Ok(());
        }
        if !renew::end(shared, store, &key, slot.record().version).await? {
            return Ok(());
        }
        meters::ended(1);
        tracing::debug!("ended a session whose device was not shown");
        let binding = slot.inspect(|view| view.head.binding.as_deref().copied());
        slot.end();
        let cookie = VerifiedCookie { id, key, by_old_key: false, is_repeated: false };
        self.handle.current().cookie = Some(cookie);
        if let Some(binding) = binding {
            link::forget(store, &binding.id).await;
        }
        Ok(())
    }

    /// Runs `work` in a task of its own, so that a client that hangs up cannot stop it half-way.
    pub(crate) async fn run_detached<R: Send + 'static>(
        &self,
        work: impl Future<Output = Result<R, Error>> + Send + 'static,
    ) -> Result<R, Error> {
        let (done, outcome) = tokio::sync::oneshot::channel();
        self.handle.shared.background.spawn(async move {
            // Nobody may be listening any more.
            let _ = done.send(work.await);
        });
        outcome.await.unwrap_or_else(|_| Err(Error::aborted()))
    }
}
