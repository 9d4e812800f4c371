//! Whose session it is: login, logout, and how long ago that was.

#[cfg(any(feature = "actix", feature = "axum"))]
pub(crate) mod logged_in;
pub(crate) mod require;
pub(crate) mod sessions;
pub(crate) mod way_back;

use std::{
    fmt,
    future::IntoFuture,
    panic::Location,
    pin::Pin,
    sync::Arc,
    time::{Duration, SystemTime},
};

use crate::{
    data::{
        SessionData,
        body::Encoder,
        codec::{Codec, EncodeError},
        patch::{Patch, RequestId},
        payload::PayloadReader,
        user::SessionUser,
    },
    error::{Error, ErrorKind, refusal::Refusal},
    meters,
    record::{device::Device, expiry::Lifetime},
    save::{self, Saved, renew, shared::Shared, turn::StoreTurn},
    session::Session,
    slot::{
        Slot,
        ending::SessionEnd,
        lock::Access,
        plan::{Begin, ExtraPatch, SaveJob, SaveKind},
        token::LockToken,
    },
};

// With the bound on each method, and not on the `impl`: so a struct without a user is told by the compiler to
// mark one, and not only that a trait is missing.
impl<T: SessionData> Session<T> {
    /// Makes this the session of `user`, from whom the caller has just seen a password or whatever
    /// else proves who it is.
    ///
    /// ```
    /// # #[cfg(feature = "derive")] {
    /// # #[derive(sessions::Session)] struct Visitor { #[session(user)] user: Option<u64> }
    /// # async fn handler(session: sessions::Session<Visitor>) -> sessions::Result<()> {
    /// # let (user, remember_me) = (7, true);
    /// use std::time::Duration;
    ///
    /// const MONTH: Duration = Duration::from_secs(30 * 24 * 60 * 60);
    /// session.login(user).remember_for(remember_me.then_some(MONTH)).await?;
    /// # Ok(()) }
    /// # }
    /// ```
    ///
    /// The session gets another id, and the client another cookie, whatever it had before. The old
    /// id is dead when this returns, in every process and for requests under way: an attacker who planted
    /// or stole it before has nothing (session fixation; OWASP Session Management Cheat Sheet,
    /// "Renew the Session ID After Any Privilege Level Change"). Both timeouts begin anew. What a
    /// visitor had before the login stays, unless [told otherwise](Login::without_earlier_data).
    /// What another user had who was logged in does not: that session ends, and the new one begins
    /// without its data, rights among them.
    ///
    /// The session is saved at once, with what released guards have written. Waits for the guards of
    /// this session, as [`write`](Self::write) does. The old id is dead; for requests that come late
    /// with its cookie see [`renew_id`](Self::renew_id).
    ///
    /// A user who is logged in already can log in again, which is how to ask for the password once
    /// more before something important: see [`require_recent_login`](Self::require_recent_login).
    ///
    /// If another request has ended the session in the meantime, as another tab that logged in with it
    /// does, the user has a new session, without the data of the old one. If another task of this request has,
    /// it is the session that the request has since then which becomes the user's, with what is in it.
    ///
    /// # Errors
    ///
    /// [`NoCookie`](ErrorKind::NoCookie) after the response has left;
    /// [`GuardHeld`](ErrorKind::GuardHeld) if the caller holds a guard itself;
    /// [`Locked`](ErrorKind::Locked) if other requests do for as long as the layer's lock timeout, or another
    /// process has the session [locked](Session::lock) for as long; [`Store`](ErrorKind::Store) and the
    /// other errors of [`save`](Self::save): the session is what it was. If the store was asked and did not
    /// answer, the session may have ended instead, or a session of the user may have begun whose cookie no
    /// client has.
    ///
    /// # Cancellation
    ///
    /// Once it has the lock it is carried to its end even if the future is dropped, unless another task of the
    /// request ends the session first: then nothing happens. A client that has hung up gets no cookie: the old
    /// id is dead all the same, and the new session stays unused until it expires or the user ends it.
    #[track_caller]
    pub fn login(&self, user: T::User) -> Login<'_, T>
    where
        T: SessionUser,
    {
        let at = Location::caller();
        Login { session: self, user, keeps_data: true, lifetime: None, device: None, at }
    }

    /// Ends the session, here and everywhere, and removes the client's cookie: the same as
    /// [`destroy`](Self::destroy), with the same errors.
    ///
    /// The user's other sessions go on: see [`UserSessions`](crate::UserSessions).
    pub async fn logout(&self) -> Result<(), Error>
    where
        T: SessionUser,
    {
        self.destroy().await
    }

    /// When the user logged in, last; `None` if nobody is logged in, or if the login was in an earlier
    /// library from which the session was [adopted](crate::SessionLayerBuilder::adopt). By the clock of
    /// the process that the login was sent to.
    pub fn logged_in_at(&self) -> Option<SystemTime>
    where
        T: SessionUser,
    {
        self.handle().slot().inspect(|_, _, record, head| {
            (record.user.is_some() && !head.is_adopted).then_some(record.created_at)
        })
    }

    /// Asks for a login that is not older than `limit`, for what a forgotten open browser should not
    /// be able to do: change the password, pay, delete the account.
    ///
    /// # Errors
    ///
    /// [`LoginRequired`](ErrorKind::LoginRequired), 401 for the client, if nobody is logged in or
    /// the login is older. The application then asks for the password, and calls
    /// [`login`](Self::login) again.
    pub fn require_recent_login(&self, limit: Duration) -> Result<(), Error>
    where
        T: SessionUser,
    {
        let now = self.handle().shared.now();
        let is_recent = self.logged_in_at().is_some_and(|at| {
            // One in the future is by a clock that is ahead of ours: by no more than that.
            now.duration_since(at).unwrap_or_else(|ahead| ahead.duration()) <= limit
        });
        if is_recent { Ok(()) } else { Err(Error::login_required()) }
    }
}

impl<T: SessionUser> Session<T> {
    /// Whether the store knows whose session it is, or nobody could end it; also if the user has logged in
    /// to an earlier library, at a time that nobody knows.
    pub(crate) fn is_users(&self) -> bool {
        self.handle().slot().inspect(|_, _, record, _| record.user.is_some())
    }

    /// Logs in with the session that `token` has locked. False, and nothing has happened, if that is not the
    /// request's any more: another task of the request has ended it.
    async fn login_under(&self, token: LockToken<T>, login: &Ready) -> Result<bool, Error> {
        let handle = self.handle();
        let _switch = handle.begin_switch().await;
        // What the request has instead may have been written to already.
        if !self.is_current(&token) {
            return Ok(false);
        }
        if handle.is_answered() {
            return Err(Error::no_cookie());
        }
        let user = token.slot().record().user;
        let is_anothers = user.is_some_and(|user| user != login.user);
        if login.keeps_data && !is_anothers {
            match self.carry_over(&token, login).await {
                // There is nothing to keep any more.
                Err(error) if error.kind() == ErrorKind::Ended => {}
                outcome => return outcome.map(|()| true),
            }
        }
        self.begin_anew(token.slot(), login).await?;
        Ok(true)
    }

    /// Makes the session that there is the user's.
    async fn carry_over(&self, token: &LockToken<T>, login: &Ready) -> Result<(), Error> {
        let (handle, shared) = (self.handle(), &*self.handle().shared);
        let (writer, slot) = (handle.writer(), token.slot());
        let mut turn = StoreTurn::for_slot(slot).await;
        let is_same = slot.record().user.as_ref() == Some(&login.user);
        loop {
            let job = login.job(writer, token.forget_snapshot());
            if slot.registration().is_some() {
                let (record, registration) = renew::renew(shared, token, &mut turn, job).await?;
                let successor =
                    token.end_with_successor(record, registration, shared.settings.payload_limit);
                // The limits of the login before come along, also such as another task has just set.
                if login.lifetime.is_some() || !is_same {
                    let _ = successor.set_lifetime(login.lifetime.unwrap_or_default(), writer);
                }
                self.switch_to(successor);
                meters::logged_in();
                tracing::debug!("a user logged in");
                return Ok(());
            }
            let saved = save::save_with_retries(shared, slot, &mut turn, job).await;
            if saved.is_err() {
                renew::take_back_creation(shared, slot).await;
            }
            if saved? == Saved::Done {
                let _ = slot.set_lifetime(login.lifetime.unwrap_or_default(), writer);
                meters::logged_in();
                tracing::debug!("a user logged in");
                return Ok(());
            }
        }
    }

    /// Begins a session of the user in place of the one that there is, if it is not over already.
    async fn begin_anew(&self, old: &Arc<Slot<T>>, login: &Ready) -> Result<(), Error> {
        let (handle, shared) = (self.handle(), &*self.handle().shared);
        let writer = handle.writer();
        let next = Arc::new(Slot::unsaved(shared.now()));
        let _ = next.set_lifetime(login.lifetime.unwrap_or_default(), writer);
        let job = login.job(writer, next.generation());
        {
            let mut turn = StoreTurn::for_slot(&next).await;
            let saved = save::save_with_retries(shared, &next, &mut turn, job).await;
            if saved.is_err() {
                renew::take_back_creation(shared, &next).await;
            }
            saved?;
        }
        // A save of the old one that is under way has to end first: it may be creating the record.
        let _turn = old.store_turn.lock().await;
        if let (Some(ended), Some(store)) = (old.registration(), shared.store())
            && let Err(error) = renew::write_tombstone(shared, store, &ended.key).await
        {
            if let Some(begun) = next.registration() {
                renew::drop_record(store, &begun.key).await;
            }
            next.end();
            return Err(error);
        }
        renew::take_back_creation(shared, old).await;
        old.end_as(SessionEnd::Renewed);
        {
            let mut current = handle.current();
            (current.slot, current.is_new) = (next, true);
        }
        meters::logged_in();
        tracing::debug!("a user logged in");
        Ok(())
    }
}

/// A login that is about to happen: await it. Made by [`Session::login`].
#[must_use = "a login does nothing until it is awaited"]
pub struct Login<'a, T: SessionUser> {
    session: &'a Session<T>,
    user: T::User,
    keeps_data: bool,
    lifetime: Option<Lifetime>,
    device: Option<Device>,
    at: &'static Location<'static>,
}

impl<T: SessionUser> Login<'_, T> {
    /// Begins a new session for the user, and ends the one of before with all that was in it; as
    /// always where another user was logged in. Default: the other fields stay what they are, as a
    /// cart should.
    pub fn without_earlier_data(mut self) -> Self {
        self.keeps_data = false;
        self
    }

    /// How long the login lasts, instead of what the layer says.
    ///
    /// Unless told otherwise, by this or by [`remember_for`](Self::remember_for), the layer's timeouts
    /// count; for a user who was logged in already, the limits of that login.
    pub fn with_lifetime(mut self, lifetime: Lifetime) -> Self {
        self.lifetime = Some(lifetime);
        self
    }

    /// "Remember me": the cookie outlives the browser's own session, and the login lasts this long
    /// whether it is used or not. So that the form's checkbox can be passed on, `None` is a box that is
    /// not ticked: the layer's timeouts count, and the cookie goes with the browser if the layer's
    /// does, also for a user who was remembered before. (A browser that is set to open the tabs of
    /// last time keeps such cookies: on a shared machine the timeouts are what counts.) A
    /// [`with_lifetime`](Self::with_lifetime) that this login has been given stays.
    #[doc(alias = "remember_me")]
    pub fn remember_for(self, time: impl Into<Option<Duration>>) -> Self {
        let lifetime = match time.into() {
            Some(time) => Lifetime::new()
                .with_idle_timeout(time)
                .with_absolute_timeout(time)
                .with_persistent_cookie(),
            None => self.lifetime.unwrap_or_default(),
        };
        self.with_lifetime(lifetime)
    }

    /// What the user will recognise this session by in a list of all of them.
    pub fn with_device(mut self, device: Device) -> Self {
        self.device = Some(device);
        self
    }
}

impl<'a, T: SessionUser> IntoFuture for Login<'a, T> {
    type Output = Result<(), Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        let Self { session, user, keeps_data, lifetime, device, at } = self;
        let shared = &session.handle().shared;
        if let Some(lifetime) = lifetime {
            shared.settings.expiry.check_lifetime(lifetime);
        }
        let writer = session.handle().writer();
        let ready = patch_with::<T>(user, shared, writer).map(|(user, extra_patch)| Ready {
            user,
            extra_patch,
            keeps_data,
            lifetime,
            device,
            keeps_binding: session.handle().may_stay_bound(),
        });
        Box::pin(async move {
            let ready = Arc::new(ready?);
            loop {
                let token = session.lock_token(None, Access::Write, at).await?;
                let (own, ready) = (session.clone(), ready.clone());
                let login = async move { own.login_under(token, &ready).await };
                if session.run_detached(login).await? {
                    return Ok(());
                }
            }
        })
    }
}

impl<T: SessionUser> fmt::Debug for Login<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login")
            .field("keeps_data", &self.keeps_data)
            .field("lifetime", &self.lifetime)
            .finish_non_exhaustive()
    }
}

/// A login, with the user as a name and as bytes.
struct Ready {
    user: Arc<str>,
    extra_patch: Patch,
    keeps_data: bool,
    lifetime: Option<Lifetime>,
    device: Option<Device>,
    /// A user whose browser has lost the device's key is bound anew.
    keeps_binding: bool,
}

impl Ready {
    fn job(&self, writer: RequestId, generation: u64) -> SaveJob<'_> {
        let begin = Begin {
            user: &self.user,
            lifetime: self.lifetime,
            device: self.device.as_ref(),
            keeps_binding: self.keeps_binding,
            is_adopted: false,
        };
        let extra_patch = ExtraPatch { patch: &self.extra_patch, generation };
        SaveJob { kind: SaveKind::Login(begin, extra_patch), ..SaveJob::new(Some(writer)) }
    }
}

/// Whether the next request would take the bytes for the same user: so that no user is told welcome to be
/// asked again for the password.
fn is_known_again<T: SessionUser>(
    data: &mut T,
    body: &[u8],
    name_of: impl Fn(&T::User) -> Arc<str>,
    name: &Arc<str>,
    codec: Codec,
) -> Result<(), EncodeError> {
    let mut reader = PayloadReader::empty(T::FIELDS);
    reader.set_body(T::__FIELD, body);
    data.__load_field(T::__FIELD, &reader);
    match data.__user().map(name_of) {
        Some(read) if read == *name => Ok(()),
        _ => Err(EncodeError::not_read_back::<T::User>(codec)),
    }
}

/// The user's name, and the change of the field that says who it is.
pub(crate) fn patch_with<T: SessionUser>(
    user: T::User,
    shared: &Shared<T>,
    writer: RequestId,
) -> Result<(Arc<str>, Patch), Error> {
    let info = &T::FIELDS[T::__FIELD];
    let name = shared.user_name(&user);
    let mut data = T::__load(&PayloadReader::empty(T::FIELDS));
    data.__begin_as(user);
    let mut body = Vec::new();
    let codec = shared.settings.policy.codec;
    let encoded = data.__encode(T::__FIELD, &mut Encoder::new(codec, info, &mut body));
    encoded
        .and_then(|()| {
            let name_of = |user: &T::User| shared.user_name(user);
            is_known_again::<T>(&mut data, &body, name_of, &name, codec)
        })
        .map_err(|error| Error::refused(info.key, Refusal::Encode(Arc::new(error.into()))))?;
    let mut patch = Patch::default();
    patch.set(T::__FIELD, body[..].into(), writer);
    Ok((name, patch))
}
