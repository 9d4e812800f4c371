//! The handle of one request on its session.

#[cfg(feature = "adopt")]
mod adopt;
#[cfg(feature = "device-bound")]
pub(crate) mod device;
mod exchange;
pub(crate) mod finish;
pub(crate) mod guard;
mod open;
pub(crate) mod request;
pub(crate) mod take;
pub(crate) mod wait;

use std::{
    any::type_name,
    fmt,
    panic::Location,
    sync::Arc,
    time::{Duration, SystemTime},
};

use http::{Extensions, HeaderMap, Method};

use crate::{
    data::SessionData,
    error::Error,
    record::expiry::Lifetime,
    save::{self, lease::LeaseGuard, load, shared::Shared},
    session::{
        guard::{LockGuard, ReadGuard, WriteGuard},
        request::Handle,
    },
    slot::{SlotState, ending::SessionEnd, lock::Access, token::LockToken},
};

/// A request's session, whose [`read`](Self::read) and [`write`](Self::write) neither fail nor panic: a
/// request that cannot have the lock in time is given up with 503.
///
/// A handler of axum or actix-web takes it as an argument; elsewhere [`Session::open`] finds it in the
/// request's extensions. Cheap to clone: all clones are the same session of the same request, and can be sent
/// to other tasks.
///
/// ```
/// # #[cfg(all(feature = "axum", feature = "derive"))] {
/// # #[derive(sessions::Session)] struct Visitor { visits: u32 }
/// async fn count(session: sessions::Session<Visitor>) -> String {
///     let mut s = session.write().await;
///     let visits = s.visits() + 1;
///     s.set_visits(visits);
///     format!("visit number {visits}")
/// }
/// # }
/// ```
///
/// What the guards of a session have written is saved before the response leaves; if that fails the
/// client gets 503 and not the handler's response. What is written later, by a websocket or a
/// streamed body, is saved by [`save`](Self::save), or when the last clone and guard are dropped.
///
/// # This request, or all of this process
///
/// All requests of a session that a process serves at a time share one copy of it. What a method speaks
/// of, unless it says `request`, is that copy:
///
/// | method | speaks of |
/// | --- | --- |
/// | [`save`](Self::save) | what released guards of all requests in this process have written |
/// | [`has_unsaved_changes`](Self::has_unsaved_changes) | the same |
/// | [`reload`](Self::reload) | the copy that all requests in this process have |
/// | [`discard_request_changes`](Self::discard_request_changes) | what released guards of this request have written |
/// | [`began_in_request`](Self::began_in_request) | this request alone |
pub struct Session<T: SessionData> {
    handle: Arc<Handle<T>>,
}

/// A request's unopened session, as the layer leaves it in the extensions.
pub(crate) struct Lazy<T: SessionData>(pub(crate) Session<T>);

impl<T: SessionData> Clone for Lazy<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: SessionData> Session<T> {
    #[inline]
    pub(crate) fn lazy(shared: Arc<Shared<T>>, method: &Method, headers: &HeaderMap) -> Self {
        Self { handle: Arc::new(Handle::new(shared, method, headers)) }
    }

    /// Opens the session of the request that has these extensions: for middleware, and for tower
    /// services outside of axum.
    ///
    /// The first opening in a request looks at the store; any other gives the same session again.
    /// Without a valid cookie, or with one whose session is over, the session is a new one, of which
    /// nothing is stored and no cookie sent until something is written to it.
    ///
    /// A streamed body that shows something of the session must not be the first to open it: by then
    /// the response's headers have left, without `Vary: Cookie` and `Cache-Control: private`
    /// ([`proxies`](crate::proxies#caches)).
    ///
    /// # Errors
    ///
    /// [`NoLayer`](crate::ErrorKind::NoLayer) outside of a `SessionLayer<T>`, and
    /// [`Store`](crate::ErrorKind::Store) if the store does not answer.
    ///
    /// # Cancellation
    ///
    /// Nothing happens if the future is dropped; the session can be opened again.
    pub async fn open(extensions: &Extensions) -> Result<Self, Error> {
        Self::open_lazy(extensions.get::<Lazy<T>>().cloned()).await
    }

    /// Opens what the layer has left in a request's extensions, if it has.
    pub(crate) async fn open_lazy(lazy: Option<Lazy<T>>) -> Result<Self, Error> {
        let Some(Lazy(session)) = lazy else { return Err(Error::no_layer(type_name::<T>())) };
        session.handle.open().await?;
        Ok(session)
    }

    /// A guard to read with. Waits while another request of this session writes, and for nobody
    /// else.
    ///
    /// It cannot fail and does not panic. If the lock is not free within the layer's
    /// [lock timeout](crate::SessionLayerBuilder::with_lock_timeout) (30 seconds by default), the
    /// request is given up: the handler is dropped as if the client had hung up, the client gets 503,
    /// what released guards have written is saved, and the log has both places, this one and that of
    /// the guard that is in the way. So it is, and at once, if as many requests are waiting already as
    /// the layer [allows](crate::SessionLayerBuilder::with_waiter_limit); and after half a second,
    /// with 500, if the request waits for itself, because the guard in the way is its own and nothing
    /// else in the handler can go on. After the response, in a task or a streamed body, there is
    /// nothing to give up: the wait goes on, and each lock timeout is logged.
    ///
    /// [`try_read`](Self::try_read) and [`read_timeout`](Self::read_timeout) return an error instead:
    /// the forms for a task that outlives its request, and for a handler that has sent a guard to
    /// another task and wants the next one.
    ///
    /// # Cancellation
    ///
    /// A dropped future gives up its place among the waiters.
    #[doc(alias = "get")]
    #[track_caller]
    pub fn read(&self) -> impl Future<Output = ReadGuard<T>> + Send + use<'_, T> {
        self.or_give_up(Access::Read, ReadGuard::new)
    }

    /// A guard to write with. Waits while other requests of this session read or write, and for
    /// nobody else.
    ///
    /// Cannot fail and does not panic: as with [`read`](Self::read), the request is given up with 503
    /// if the lock is not to be had.
    ///
    /// # Cancellation
    ///
    /// A dropped future gives up its place among the waiters.
    #[doc(alias("insert", "set"))]
    #[track_caller]
    pub fn write(&self) -> impl Future<Output = WriteGuard<T>> + Send + use<'_, T> {
        self.or_give_up(Access::Write, WriteGuard::new)
    }

    /// Like [`read`](Self::read), with a limit and an error: [`Locked`](crate::ErrorKind::Locked)
    /// when the lock was not free in time.
    #[track_caller]
    pub fn read_timeout(
        &self,
        limit: Duration,
    ) -> impl Future<Output = Result<ReadGuard<T>, Error>> + Send + use<'_, T> {
        self.within(limit, Access::Read, ReadGuard::new)
    }

    /// Like [`write`](Self::write), with a limit and an error:
    /// [`Locked`](crate::ErrorKind::Locked) when the lock was not free in time.
    #[track_caller]
    pub fn write_timeout(
        &self,
        limit: Duration,
    ) -> impl Future<Output = Result<WriteGuard<T>, Error>> + Send + use<'_, T> {
        self.within(limit, Access::Write, WriteGuard::new)
    }

    /// A guard to read with, if nobody writes and nobody waits to; else
    /// [`Locked`](crate::ErrorKind::Locked).
    #[track_caller]
    pub fn try_read(&self) -> Result<ReadGuard<T>, Error> {
        self.at_once(Access::Read, Location::caller(), ReadGuard::new)
    }

    /// A guard to write with, if nobody has another guard or waits for one; else
    /// [`Locked`](crate::ErrorKind::Locked).
    #[track_caller]
    pub fn try_write(&self) -> Result<WriteGuard<T>, Error> {
        self.at_once(Access::Write, Location::caller(), WriteGuard::new)
    }

    /// Saves now what released guards have written, instead of with the response. Does nothing if
    /// there is nothing to save.
    ///
    /// What a guard that is still held has written is not part of it: drop the guard first.
    ///
    /// # Errors
    ///
    /// - [`GuardHeld`](crate::ErrorKind::GuardHeld), at once: this request holds a write guard of the
    ///   session itself. The message says where it was taken. A guard of another request is no error.
    /// - [`Store`](crate::ErrorKind::Store): nothing is lost, a later save may succeed.
    /// - [`Ended`](crate::ErrorKind::Ended): another request, or another task of this one, has ended the
    ///   session; it does not come back.
    /// - [`NoCookie`](crate::ErrorKind::NoCookie): a new session after its response has left.
    /// - [`Encode`](crate::ErrorKind::Encode), [`TooLarge`](crate::ErrorKind::TooLarge): what was
    ///   written cannot be stored.
    /// - After a response whose save has failed, once: the error of that. What the request had written by
    ///   then is given up.
    ///
    /// # Cancellation
    ///
    /// If the future is dropped the writes may be stored or not; if not, they are saved with the
    /// response or in the background.
    #[track_caller]
    pub fn save(&self) -> impl Future<Output = Result<(), Error>> + Send + use<'_, T> {
        // An async fn would not see its caller.
        let at = Location::caller();
        async move {
            let handle = &self.handle;
            handle.check_lost()?;
            loop {
                let slot = handle.slot();
                // One that is left of a session that the request has ended holds nothing of this one.
                if handle.waits.has_write_guard() && slot.lock.has_writer() {
                    return Err(Error::guard_held(type_name::<T>(), at, slot.lock.held_by()));
                }
                save::save(&handle.shared, &slot, handle.job()).await?;
                // Another task of the request may have renewed the session meanwhile: what it had unsaved
                // has gone along.
                if Arc::ptr_eq(&slot, &handle.current().slot) {
                    return Ok(());
                }
            }
        }
    }

    /// Changes the session exactly, however many processes do so at once: runs `change` on the
    /// session as it is in the store, saves at once, and starts over if another process has saved in
    /// between. A thousand concurrent updates that add one add a thousand.
    ///
    /// ```
    /// # #[cfg(feature = "derive")] {
    /// # #[derive(sessions::Session)] struct Visitor { credit: u32 }
    /// # async fn handler(session: sessions::Session<Visitor>) -> sessions::Result<bool> {
    /// let paid = session
    ///     .update(|s| {
    ///         let enough = s.credit() >= 5;
    ///         if enough {
    ///             *s.credit_mut() -= 5;
    ///         }
    ///         enough
    ///     })
    ///     .await?;
    /// # Ok(paid) }
    /// # }
    /// ```
    ///
    /// A setter returns nothing, so that one alone is a whole change:
    ///
    /// ```
    /// # #[cfg(feature = "derive")] {
    /// # #[derive(sessions::Session)] struct Visitor { visits: u32 }
    /// # async fn handler(session: sessions::Session<Visitor>) -> sessions::Result<()> {
    /// session.update(|s| s.set_visits(1)).await?;
    /// session.update(|s| s.set_visits(s.visits() + 1)).await
    /// # }
    /// # }
    /// ```
    ///
    /// `change` may run several times: whatever else it does, it does as often. What released guards
    /// have written is saved before. In this process it has the session to itself, as a write guard
    /// has; it must not wait for another guard of the session. It is no `async` closure, because what it awaits could be
    /// done several times: what has to be awaited with the session to itself is for [`lock`](Self::lock).
    ///
    /// # Errors
    ///
    /// Those of [`save`](Self::save), and [`Locked`](crate::ErrorKind::Locked) if a guard or another
    /// process's [`lock`](Self::lock) is in the way for as long as the layer's lock timeout,
    /// [`Contended`](crate::ErrorKind::Contended) if others were faster for as long. After a
    /// [`Store`](crate::ErrorKind::Store) error the change may be stored or not: if it was a lost
    /// connection, nobody can tell.
    ///
    /// # Cancellation
    ///
    /// If the future is dropped, the change may be stored or not, but not in part.
    #[track_caller]
    pub fn update<R: Send>(
        &self,
        mut change: impl FnMut(&mut T::Fields) -> R + Send,
    ) -> impl Future<Output = Result<R, Error>> + Send {
        self.transaction(move |fields| Ok::<R, Error>(change(fields)))
    }

    /// Like [`update`](Self::update), with a `change` that may refuse: after its error the session is
    /// as it was, and nothing of the change is stored.
    ///
    /// ```
    /// # #[cfg(feature = "derive")] {
    /// # #[derive(sessions::Session)] struct Visitor { credit: u32 }
    /// # enum Problem { TooLittle, Session(sessions::Error) }
    /// # impl From<sessions::Error> for Problem { fn from(e: sessions::Error) -> Self {
    /// Self::Session(e) } }
    /// # async fn handler(session: sessions::Session<Visitor>) -> Result<(), Problem> {
    /// session
    ///     .transaction(|s| {
    ///         let rest = s.credit().checked_sub(5).ok_or(Problem::TooLittle)?;
    ///         s.set_credit(rest);
    ///         Ok::<_, Problem>(())
    ///     })
    ///     .await?;
    /// # Ok(()) }
    /// # }
    /// ```
    #[track_caller]
    pub fn transaction<R: Send, E: From<Error> + Send>(
        &self,
        change: impl FnMut(&mut T::Fields) -> Result<R, E> + Send,
    ) -> impl Future<Output = Result<R, E>> + Send {
        // An async fn would not see its caller.
        let at = Location::caller();
        async move {
            self.handle.check_lost()?;
            let token = self.lock_token(None, Access::Write, at).await?;
            self.update_under(token, change).await
        }
    }

    async fn update_under<R, E: From<Error>>(
        &self,
        token: LockToken<T>,
        change: impl FnMut(&mut T::Fields) -> Result<R, E>,
    ) -> Result<R, E> {
        let Handle { shared, .. } = &*self.handle;
        save::update::update(shared, &token, self.handle.writer(), self.handle.job(), change).await
    }

    /// A guard to write with that is exclusive across all processes on the store, for sections that
    /// must not run twice.
    ///
    /// ```
    /// # #[cfg(feature = "derive")] {
    /// # #[derive(sessions::Session)] struct Visitor { order: Option<u64> }
    /// # async fn pay() -> u64 { 1 }
    /// # async fn handler(session: sessions::Session<Visitor>) -> sessions::Result<()> {
    /// let mut s = session.lock().await?;
    /// if s.order().is_none() {
    ///     s.set_order(pay().await);
    /// }
    /// drop(s);
    /// session.save().await?;
    /// # Ok(()) }
    /// # }
    /// ```
    ///
    /// It takes a lease, which stands in the session's record, and renews it as long as the guard
    /// lives. Meanwhile everybody else's saves of the session wait; reads do not, and
    /// [`destroy`](Self::destroy) does not. When the guard is dropped, what it wrote is saved and
    /// the lease given back, in one save in the background; [`save`](Self::save) waits for that and
    /// says how it went. A process that dies with a lease holds up the others for the
    /// [lease time](crate::SessionLayerBuilder::with_lease_time), 10 seconds by default.
    ///
    /// A process that was cut off from the store for that long has lost its lease: what the guard
    /// writes is then refused by the store, and not merged ([`LeaseLost`](crate::ErrorKind::LeaseLost)).
    /// To fence off other resources, hand them the guard's [fencing token](LockGuard::fencing_token).
    ///
    /// In this process it is a write guard, and waits like one; others that want a guard wait while it
    /// waits for another process. Costs one save more than [`write`](Self::write). A session that is not stored
    /// yet is known to nobody else, and locked in this process alone. Among processes there is no order of
    /// waiting.
    ///
    /// # Errors
    ///
    /// [`Locked`](crate::ErrorKind::Locked) if the session was not free within the layer's lock
    /// timeout, [`Ended`](crate::ErrorKind::Ended), [`Store`](crate::ErrorKind::Store) and the other
    /// errors of [`save`](Self::save); [`NoLeases`](crate::ErrorKind::NoLeases) on a `PrivateCookie`.
    ///
    /// # Cancellation
    ///
    /// A dropped future gives back, in the background, what it may have got.
    #[track_caller]
    pub fn lock(&self) -> impl Future<Output = Result<LockGuard<T>, Error>> + Send + use<'_, T> {
        let at = Location::caller();
        async move {
            let handle = &self.handle;
            let shared = &handle.shared;
            if shared.storage.is_cookie() {
                return Err(Error::no_leases());
            }
            handle.check_lost()?;
            let token = self.lock_token(None, Access::Write, at).await?;
            let writer = handle.writer();
            let runtime = handle.runtime();
            let lease = LeaseGuard::take(shared, &token, writer, runtime);
            let lease = Box::pin(lease).await?;
            Ok(LockGuard::new(token, self.clone(), lease))
        }
    }

    /// Looks at the store again, for what other processes have saved since this request opened the
    /// session. The next guard shows it, with what this process has not saved yet on top.
    ///
    /// # Errors
    ///
    /// [`Store`](crate::ErrorKind::Store); [`Ended`](crate::ErrorKind::Ended) if there is no such
    /// session any more.
    pub async fn reload(&self) -> Result<(), Error> {
        let slot = self.handle.slot();
        let Some(registration) = slot.registration() else {
            return if slot.state().has_moved() { Err(Error::ended()) } else { Ok(()) };
        };
        match load::refresh_latest(&self.handle.shared, &slot, &registration.key).await? {
            SlotState::Ended(_) => Err(Error::ended()),
            _ => Ok(()),
        }
    }

    /// Forgets what released guards of this request have written and nobody has saved yet. Of a
    /// field that another request has written since, that one's value stays.
    ///
    /// What a guard that is still held has written is not part of it, and is saved when the guard is
    /// gone: drop the guard first. If this request holds one, the log says so.
    #[doc(alias("rollback", "revert"))]
    #[track_caller]
    pub fn discard_request_changes(&self) {
        let slot = self.handle.slot();
        if self.handle.waits.has_write_guard() && slot.lock.has_writer() {
            let at = Location::caller();
            tracing::warn!(
                "`discard_request_changes` at {at} does not forget what the request's own write guard \
                 has written: {}",
                slot.lock.held_by()
            );
        }
        slot.discard(self.handle.writer());
    }

    /// Gives the session another id, and the client another cookie. To be called whenever the user's
    /// rights change, as after a password check: an id that an attacker planted before is then worth
    /// nothing (session fixation; OWASP Session Management Cheat Sheet, "Renew the Session ID After
    /// Any Privilege Level Change").
    ///
    /// All that released guards have written comes along. The old id ends at once: requests that
    /// still hold it keep what they see, and cannot save any more. A session that is not stored yet
    /// has no id, and nothing happens.
    ///
    /// Waits for the guards of this session, as [`write`](Self::write) does.
    ///
    /// A request that comes with the old cookie within ten seconds, because it was sent before the
    /// client had the new one, has an empty session that has [ended](crate::ErrorKind::Ended): what it
    /// writes is not kept, and its response sets no cookie that would take the new one's place. What
    /// saves at once, as [`save`](Self::save) and [`update`](Self::update) do, is told so; a page that
    /// does that only to count its visitors can be shown all the same. Later requests have a new
    /// session, as any without a good cookie has.
    ///
    /// # Errors
    ///
    /// [`Ended`](crate::ErrorKind::Ended) if another request, or another task of this one, has ended or renewed
    /// the session first;
    /// [`NoCookie`](crate::ErrorKind::NoCookie) after the response has left;
    /// [`GuardHeld`](crate::ErrorKind::GuardHeld) if the caller holds a guard itself;
    /// [`Store`](crate::ErrorKind::Store) and the errors of [`save`](Self::save), after which the
    /// session is still good under its old id; unless the store has carried out the end of that and
    /// not said so, which nobody can tell: then it is over.
    ///
    /// # Cancellation
    ///
    /// Once it has the lock it is carried to its end even if the future is dropped.
    #[doc(alias("cycle_id", "regenerate", "renew"))]
    #[track_caller]
    pub fn renew_id(&self) -> impl Future<Output = Result<(), Error>> + Send + use<'_, T> {
        let at = Location::caller();
        async move {
            let token = self.lock_token(None, Access::Write, at).await?;
            let session = self.clone();
            self.run_detached(async move { session.renew_id_of(token).await }).await
        }
    }

    /// Ends the session: its record is deleted, and the response removes the cookie. Requests that
    /// still hold it, here and in other processes, keep what they see and cannot save any more; it
    /// does not come back.
    ///
    /// From here on this request has a new, empty session. What is written to that is stored under
    /// an id of its own, whose cookie then replaces the removal.
    ///
    /// Does not wait for guards. What a guard of the old session writes later is not kept.
    ///
    /// A request that is kept from its session because it has not shown the session's device ends that session
    /// all the same (feature `device-bound`).
    ///
    /// # Errors
    ///
    /// [`Store`](crate::ErrorKind::Store): the session may still be there; try again.
    ///
    /// # Cancellation
    ///
    /// It is carried to its end even if the future is dropped.
    #[doc(alias("flush", "purge", "invalidate", "delete"))]
    pub async fn destroy(&self) -> Result<(), Error> {
        let session = self.clone();
        self.run_detached(async move { session.destroy_now().await }).await
    }

    /// Waits until the session has ended, by whomever, in whichever process: for what goes on after the
    /// response, as a websocket, a stream of events or a long poll does.
    ///
    /// ```
    /// # #[cfg(feature = "derive")] {
    /// # #[derive(sessions::Session)] struct Visitor { visits: u32 }
    /// # struct Socket;
    /// # impl Socket { async fn recv(&mut self) -> Option<String> { None } async fn close(self) {} }
    /// # async fn answer(_: &Socket, _: String) {}
    /// async fn talk(mut socket: Socket, session: sessions::Session<Visitor>) {
    ///     let ended = session.ended();
    ///     tokio::pin!(ended);
    ///     loop {
    ///         tokio::select! {
    ///             message = socket.recv() => match message {
    ///                 Some(message) => answer(&socket, message).await,
    ///                 None => return,
    ///             },
    ///             // Logged out, in this tab, in another browser, or by an administrator.
    ///             _ = &mut ended => return socket.close().await,
    ///         }
    ///     }
    /// }
    /// # }
    /// ```
    ///
    /// It ends at once if the session ends in this process. An end in another process it hears of as soon as
    /// the store tells, if the store is a [`NearCache`](crate::store::NearCache); else when the store is
    /// asked, which is done every 30 seconds
    /// ([`with_end_check_interval`](crate::SessionLayerBuilder::with_end_check_interval)), once for all who wait
    /// for one session in this process. If the store fails it goes on waiting. A session also ends when it
    /// expires; to wait for its end does not keep it alive, and a stream that should has to
    /// be accompanied by requests.
    ///
    /// [`Renewed`](crate::SessionEnd::Renewed) says that the session goes on under another id. On a `PrivateCookie`
    /// a session is known to this request alone, and ends by it, or when it expires.
    ///
    /// A visitor who has no session, because nothing was written, hears of no end when the response leaves: a
    /// stream that is for everybody goes on. Such a session, as well as one whose save has failed, ends by the
    /// request that has begun it, or when it would have expired if it had been stored then. A stream that is for
    /// who has a session asks before, with `LoggedIn` or [`began_in_request`](Self::began_in_request).
    ///
    /// The future keeps neither the request's handle nor what it has written: it can be held as long as
    /// the connection lasts.
    ///
    /// # Cancellation
    ///
    /// Nothing happens if the future is dropped.
    pub fn ended(&self) -> impl Future<Output = SessionEnd> + Send + 'static + use<T> {
        let (shared, slot) = (self.handle.shared.clone(), self.handle.slot());
        save::ended::ended(shared, slot)
    }

    /// Gives this session limits of its own instead of the layer's, for this and all later
    /// requests. Stored with the session; on a new session, once something else has been written.
    ///
    /// Limits that are shorter than what has passed end the session with the next save.
    #[doc(alias = "set_expiry")]
    pub fn set_lifetime(&self, lifetime: Lifetime) {
        self.handle.shared.settings.expiry.check_lifetime(lifetime);
        let slot = {
            let mut current = self.handle.current();
            let before = current.slot.set_lifetime(lifetime, self.handle.writer());
            current.lifetime_before.get_or_insert(before);
            current.note_writing();
            current.slot.clone()
        };
        self.handle.note_write(&slot);
    }

    /// What this session asks for instead of the layer's limits.
    pub fn lifetime(&self) -> Lifetime {
        self.handle.slot().lifetime()
    }

    /// Has this request not count as a use of the session: for a page that only asks how long is left,
    /// or whether there is news, and does so by itself as long as it is open.
    ///
    /// ```
    /// # #[cfg(feature = "derive")] {
    /// # #[derive(sessions::Session)] struct Visitor { visits: u32 }
    /// # use sessions::Session;
    /// use std::time::SystemTime;
    ///
    /// async fn seconds_left(session: Session<Visitor>) -> String {
    ///     let session = session.without_refresh();
    ///     let left = session.expires_at().duration_since(SystemTime::now());
    ///     left.unwrap_or_default().as_secs().to_string()
    /// }
    /// # }
    /// ```
    ///
    /// The session expires when it would have without the request. Neither its expiry nor the time when
    /// its device was last seen moves, and no cookie is sent again only because it is old. What the
    /// request writes is saved all the same, and does not move them either. Other requests of the
    /// session, also such as run at the same time, count as always; so do a login, [`renew_id`], a
    /// [`lock`] and [`set_lifetime`] of this one.
    ///
    /// It holds for the whole request and all clones, from whenever it is called before the response is
    /// done: a middleware can do it for a group of routes.
    ///
    /// [`renew_id`]: Self::renew_id
    /// [`lock`]: Self::lock
    /// [`set_lifetime`]: Self::set_lifetime
    pub fn without_refresh(self) -> Self {
        self.handle.note_without_refresh();
        self
    }

    /// Whether this request has begun the session instead of finding it.
    pub fn began_in_request(&self) -> bool {
        self.handle.current().is_new
    }

    /// Whether released guards of this process have written something that is not saved yet.
    pub fn has_unsaved_changes(&self) -> bool {
        self.handle.slot().is_dirty()
    }

    /// When the session was first saved; for one that is not saved yet, when it was opened.
    pub fn created_at(&self) -> SystemTime {
        self.handle.slot().record().created_at
    }

    /// When the session ends if it is not used again: as stored, which may be up to a refresh window
    /// earlier than its use would allow. For one that is not saved yet, when it would end if it were
    /// saved now.
    #[doc(alias = "expiry_date")]
    pub fn expires_at(&self) -> SystemTime {
        let (slot, shared) = (self.handle.slot(), &self.handle.shared);
        let record = slot.record();
        match slot.registration() {
            Some(_) => record.expires_at,
            None => {
                let now = shared.now();
                shared.settings.expiry.expires_at(slot.lifetime(), now, now)
            }
        }
    }

    pub(crate) fn handle(&self) -> &Arc<Handle<T>> {
        &self.handle
    }

    pub(crate) fn handle_mut(&mut self) -> &mut Arc<Handle<T>> {
        &mut self.handle
    }
}

impl<T: SessionData> Clone for Session<T> {
    fn clone(&self) -> Self {
        Self { handle: self.handle.clone() }
    }
}

/// Shows neither id nor fields.
impl<T: SessionData> fmt::Debug for Session<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("data", &type_name::<T>()).finish_non_exhaustive()
    }
}
