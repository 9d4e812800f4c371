//! How a request gets a place in its session's lock, and what becomes of the request if there is none in time.
//!
//! The lock belongs to a slot, and while a task waits, another task of the same request may exchange the session.
//! So whoever has got a place looks whether it is in the lock of the session that the request has by then, and asks
//! anew if not.

use std::{any::type_name, panic::Location, time::Duration};

use tokio::time::Instant;

use crate::{
    data::SessionData,
    error::{Error, Reason, Wait},
    session::{Session, guard::ReadGuard},
    slot::{
        lock::{Access, Patience, TimedOut},
        token::LockToken,
    },
    sync::sleep,
};

/// How long a task that outlives its response, and was refused a guard, waits before it asks again.
const NEXT_TRY: Duration = Duration::from_secs(1);

impl<T: SessionData> Session<T> {
    #[track_caller]
    pub(super) fn or_give_up<G>(
        &self,
        access: Access,
        guard: fn(LockToken<T>, Session<T>) -> G,
    ) -> impl Future<Output = G> + Send + use<'_, T, G> {
        // An async fn would not see its caller.
        let at = Location::caller();
        async move {
            let token = match self.take_now(access, at) {
                Some(token) => token,
                // Boxed, as in `lock_token`.
                None => Box::pin(self.wait_or_give_up(access, at)).await,
            };
            guard(token, self.clone())
        }
    }

    /// The lock of the session that the request has now, if it is free.
    #[inline]
    fn take_now(&self, access: Access, at: &'static Location<'static>) -> Option<LockToken<T>> {
        LockToken::take(&self.handle.current_for(access).slot, access, at)
    }

    /// If this ends without a token, it does so by being dropped together with the handler.
    async fn wait_or_give_up(
        &self,
        access: Access,
        at: &'static Location<'static>,
    ) -> LockToken<T> {
        let handle = &self.handle;
        loop {
            match self.wait_for_permit(None, access, at).await {
                Ok(token) => return token,
                Err(error) if handle.is_answered() => {
                    tracing::warn!("a wait goes on after its response: {error}");
                }
                Err(error) => {
                    match error.is_crowded() {
                        // The lock has said so, but not for each of them.
                        true => tracing::debug!("a request is given up: {error}"),
                        false => tracing::error!("a request is given up: {error}"),
                    }
                    handle.waits.give_up(error);
                }
            }
            // In the handler it ends here. A task of its own gets in line again.
            sleep(NEXT_TRY).await;
        }
    }

    /// [`read`](Self::read) for extractors and guards of routes, which can say what went wrong.
    pub(crate) async fn read_or_error(&self) -> Result<ReadGuard<T>, Error> {
        let token = self.lock_token(None, Access::Read, Location::caller()).await?;
        Ok(ReadGuard::new(token, self.clone()))
    }

    #[track_caller]
    pub(super) fn within<G>(
        &self,
        limit: Duration,
        access: Access,
        guard: fn(LockToken<T>, Session<T>) -> G,
    ) -> impl Future<Output = Result<G, Error>> + Send + use<'_, T, G> {
        // An async fn would not see its caller.
        let at = Location::caller();
        async move { Ok(guard(self.lock_token(Some(limit), access, at).await?, self.clone())) }
    }

    pub(super) fn at_once<G>(
        &self,
        access: Access,
        at: &'static Location<'static>,
        guard: fn(LockToken<T>, Session<T>) -> G,
    ) -> Result<G, Error> {
        loop {
            let token =
                LockToken::try_acquire(self.handle.current_for(access).slot.clone(), access, at)
                    .map_err(|timed_out| locked::<T>(timed_out, access, at))?;
            if self.is_current(&token) {
                return Ok(guard(token, self.clone()));
            }
        }
    }

    /// A place in the lock, within the layer's lock timeout unless the caller has a limit of its own.
    pub(crate) async fn lock_token(
        &self,
        limit: Option<Duration>,
        access: Access,
        at: &'static Location<'static>,
    ) -> Result<LockToken<T>, Error> {
        if let Some(token) = self.take_now(access, at) {
            return Ok(token);
        }
        // Boxed, because its timers would make every handler's future a kilobyte larger.
        Box::pin(self.wait_for_permit(limit, access, at)).await
    }

    /// A place in the lock of the session that the request has when it gets it: while it waited,
    /// another task of the same request may have exchanged the session.
    async fn wait_for_permit(
        &self,
        own_limit: Option<Duration>,
        access: Access,
        at: &'static Location<'static>,
    ) -> Result<LockToken<T>, Error> {
        let shared = &self.handle.shared;
        let limit = own_limit.unwrap_or(shared.settings.lock_timeout);
        let patience = Patience { limit, waiters: shared.settings.waiter_limit };
        loop {
            let start = Instant::now();
            let slot = self.handle.slot();
            let acquire = LockToken::acquire(slot.clone(), access, at, patience);
            let token = match own_limit {
                // The caller has said how long, and goes on after that.
                Some(_) => acquire.await,
                None => {
                    let itself = || slot.lock.timed_out(Reason::Itself, start.elapsed());
                    self.handle.waits.wait(acquire).await.unwrap_or_else(|| Err(itself()))
                }
            };
            let token = token.map_err(|timed_out| locked::<T>(timed_out, access, at))?;
            if self.is_current(&token) {
                return Ok(token);
            }
        }
    }
}

pub(crate) fn locked<T>(
    timed_out: TimedOut,
    access: Access,
    at: &'static Location<'static>,
) -> Error {
    let TimedOut { reason, waited, held_by } = timed_out;
    Error::locked(Wait {
        data: type_name::<T>(),
        wanted: access.name(),
        at,
        reason,
        waited,
        held_by,
    })
}
