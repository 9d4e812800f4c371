//! The sessions of a user: what each is recognised by, and how to end them.

use std::{
    any::type_name,
    collections::HashSet,
    fmt,
    panic::Location,
    sync::Arc,
    time::{Duration, SystemTime},
};

use http::Extensions;

use crate::record::device::Device;
use crate::{
    data::{SessionData, patch::RequestId, user::SessionUser},
    error::{Error, ErrorKind, store::StoreError},
    identity::id::StoreKey,
    meters,
    record::{Record, head::Loaded},
    save::{self, load, renew, shared::Shared},
    session::{Lazy, Session, take::locked},
    slot::{
        Slot, SlotState,
        lock::{Access, Patience},
        plan::SaveJob,
        registry::Registration,
        token::LockToken,
    },
    store::{erased::DynUserIndex, timed::overdue},
    sync::timeout,
};

/// One of a user's sessions, as [`UserSessions::list`] found it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SessionInfo {
    /// Names the session to [`UserSessions::end`]. It opens nothing, and may stand in a page.
    pub key: StoreKey,
    /// When the user logged in; of a session that was adopted from an earlier library, when that was.
    pub logged_in_at: SystemTime,
    /// When the session was last used, to within the layer's
    /// [refresh window](crate::SessionLayerBuilder::with_refresh_window); known if the login had a
    /// [`Device`].
    pub last_seen: Option<SystemTime>,
    /// When the session ends if it is not used again.
    pub expires_at: SystemTime,
    /// What the login said about where it came from; empty if nothing.
    pub device: Device,
    /// Since when the session is bound to a device, if it is: its stolen cookie opens nothing.
    #[cfg(feature = "device-bound")]
    pub bound_since: Option<SystemTime>,
}

/// What has become of a user's sessions: from [`UserSessions::update_each`].
#[derive(Debug, Default)]
#[non_exhaustive]
#[must_use = "some may not have been reached"]
pub struct UpdatedSessions {
    /// How many were changed, or were as the change would have them. One that has ended meanwhile does not
    /// count.
    pub updated: u64,
    /// The sessions that were not reached, by the key that [`UserSessions::end`] takes, and why.
    pub failed: Vec<(StoreKey, Error)>,
}

impl<T: SessionData> Session<T> {
    /// What the store calls this session, to find it in the [list](UserSessions::list) of its user's
    /// sessions: `Some(info.key) == session.store_key()`. `None` until it is saved.
    ///
    /// It changes with the id, and opens nothing.
    pub fn store_key(&self) -> Option<StoreKey> {
        self.handle().slot().registration().map(|registration| registration.key)
    }
}

/// All sessions of a user: to show where one is logged in, and to log out there.
///
/// ```
/// # #[cfg(all(feature = "axum", feature = "derive", feature = "memory", feature = "bincode"))] {
/// use axum::{Router, routing::post};
/// use sessions::{Keys, MemoryStore, Session, SessionLayer, UserSessions};
///
/// #[derive(Session)]
/// struct Visitor {
///     #[session(user)]
///     user: Option<u64>,
/// }
///
/// async fn change_password(
///     session: Session<Visitor>,
///     everywhere: UserSessions<Visitor>,
/// ) -> sessions::Result<()> {
///     // …
///     session.renew_id().await?;
///     everywhere.end_others(&session).await?;
///     Ok(())
/// }
///
/// let layer = SessionLayer::<Visitor>::new(MemoryStore::new(), Keys::generate());
/// let app: Router = Router::new().route("/password", post(change_password)).layer(layer);
/// # }
/// ```
///
/// A session that has ended is gone at once from the store: in every process its cookie opens
/// nothing any more. Requests that are under way with it keep what they have read, and can save
/// nothing.
///
/// A handler of axum or actix-web takes it as an argument; elsewhere it is made by
/// [`SessionLayer::user_sessions`](crate::SessionLayer::user_sessions) or
/// [`from_extensions`](Self::from_extensions). It looks into the layer's own store, which has to be a
/// [`UserIndex`](crate::UserIndex), as all are that come with the crate, but for `PrivateCookie`. Cloning
/// is cheap.
///
/// # Errors
///
/// [`Store`](crate::ErrorKind::Store) from every method, if the store does not answer within the
/// layer's [store timeout](crate::SessionLayerBuilder::with_store_timeout). Some of the sessions may
/// have ended then.
///
/// # Cancellation
///
/// If a future is dropped, some of the sessions may have ended.
pub struct UserSessions<T: SessionData> {
    shared: Arc<Shared<T>>,
}

impl<T: SessionUser> UserSessions<T> {
    /// Fails if the store cannot list the sessions of a user.
    pub(crate) fn new(shared: Arc<Shared<T>>) -> Result<Self, Error> {
        index_of(&shared)?;
        Ok(Self { shared })
    }

    /// The user sessions of the layer that a request with these extensions has passed: for middleware, and for tower
    /// services outside of axum. The session itself is not opened.
    ///
    /// # Errors
    ///
    /// [`NoLayer`](crate::ErrorKind::NoLayer) outside of a `SessionLayer<T>`, and
    /// [`NoUserIndex`](crate::ErrorKind::NoUserIndex) if the layer's store cannot list the sessions of a
    /// user.
    pub fn from_extensions(extensions: &Extensions) -> Result<Self, Error> {
        Self::from_lazy(extensions.get())
    }

    pub(crate) fn from_lazy(lazy: Option<&Lazy<T>>) -> Result<Self, Error> {
        match lazy {
            Some(Lazy(session)) => Self::new(session.handle().shared.clone()),
            None => Err(Error::no_layer(type_name::<T>())),
        }
    }

    /// The user's sessions that are not over, the one that was used or begun last first.
    pub async fn list(&self, user: &T::User) -> Result<Vec<SessionInfo>, Error> {
        let found = self.sessions_of(&self.shared.user_name(user)).await?;
        let infos = found.into_iter().filter_map(|(key, record)| {
            let Loaded { record, head } = load::usable(&self.shared, record, self.shared.now())?;
            #[cfg(feature = "device-bound")]
            let bound_since = head.binding.map(|binding| binding.since);
            let (device, last_seen) = head.device.map(|it| *it).unzip();
            Some(SessionInfo {
                key,
                logged_in_at: record.created_at,
                last_seen,
                expires_at: record.expires_at,
                device: device.unwrap_or_default(),
                #[cfg(feature = "device-bound")]
                bound_since,
            })
        });
        let mut infos: Vec<SessionInfo> = infos.collect();
        infos.sort_by_key(|info| std::cmp::Reverse(info.last_seen.unwrap_or(info.logged_in_at)));
        Ok(infos)
    }

    /// Ends the session that [`list`](Self::list) gave under this key, if it is one of the user's:
    /// no user ends another user's session by guessing. Says whether the session was there.
    ///
    /// A session that has exchanged its id since, as by a login, is there under another key: it goes on, the
    /// answer is `false`, and the next list has it.
    pub async fn end(&self, user: &T::User, key: &StoreKey) -> Result<bool, Error> {
        let listed = self.sessions_of(&self.shared.user_name(user)).await?;
        let Some((_, record)) = listed.into_iter().find(|(of, _)| of == key) else {
            return Ok(false);
        };
        let Some(store) = self.shared.store() else { return Ok(false) };
        let was_there = renew::end_unless_renewed(&self.shared, store, key, record.version).await?;
        meters::ended(u64::from(was_there));
        if was_there {
            self.end_here(key);
        }
        Ok(was_there)
    }

    /// Ends all sessions of the user, and says how many. For when the account is closed or taken
    /// over.
    ///
    /// A login that is under way at the same time may begin one more.
    ///
    /// # Errors
    ///
    /// [`Contended`](crate::ErrorKind::Contended) if a session has slipped away under another id in each of ten
    /// rounds: it goes on. Beside the errors of the other methods.
    pub async fn end_all(&self, user: &T::User) -> Result<u64, Error> {
        self.end_all_but(&self.shared.user_name(user), None).await
    }

    /// Ends all sessions of this session's user but this one, and says how many: "log out everywhere
    /// else", and what a change of the password should do.
    ///
    /// If another request gives this session another id meanwhile, that is one of the others, and ends too: it
    /// may be a thief's.
    ///
    /// # Errors
    ///
    /// [`LoginRequired`](crate::ErrorKind::LoginRequired) if nobody is logged in, and
    /// [`Ended`](crate::ErrorKind::Ended) if this session has ended meanwhile, as by another login in
    /// the same browser: it has no say any more. [`Contended`](crate::ErrorKind::Contended) as from
    /// [`end_all`](Self::end_all). Beside the errors of the other methods.
    pub async fn end_others(&self, session: &Session<T>) -> Result<u64, Error> {
        let slot = session.handle().slot();
        let (Some(user), Some(registration)) = (slot.record().user, slot.registration()) else {
            return Err(Error::login_required());
        };
        // This one, whatever another task of the request has made of it meanwhile.
        if load::refresh_latest(&self.shared, &slot, &registration.key).await? != SlotState::Stored
        {
            return Err(Error::ended());
        }
        self.end_all_but(&user, Some(&registration.key)).await
    }

    /// Changes every session of the user, each as [`Session::update`] does: exactly, whatever other requests and
    /// processes save meanwhile. For rights that were taken away, a name that was changed.
    ///
    /// ```
    /// # #[cfg(feature = "derive")] {
    /// # use sessions::UserSessions;
    /// # #[derive(sessions::Session)]
    /// # struct Customer { #[session(user)] user: Option<u64>, is_admin: bool }
    /// async fn dismiss(user: u64, sessions: UserSessions<Customer>) -> sessions::Result<()> {
    ///     // First where the next login takes it from, and then:
    ///     let outcome = sessions.update_each(&user, |s| s.set_is_admin(false)).await?;
    ///     for (key, error) in outcome.failed {
    ///         eprintln!("{key:?} was not reached: {error}");
    ///         sessions.end(&user, &key).await?;
    ///     }
    ///     Ok(())
    /// }
    /// # }
    /// ```
    ///
    /// `change` may run several times for one session: when another process was faster, and when the session
    /// exchanges its id meanwhile. So it should set and not add. A session that begins meanwhile may be
    /// missed. The change does not count as a use: no expiry moves. (Another process's use may not count
    /// either, if it falls into the one round trip of a session's change; the next one does.)
    ///
    /// # Errors
    ///
    /// [`Store`](crate::ErrorKind::Store) if the sessions cannot be listed. What goes wrong with one of them
    /// stands in the result, and the others are changed all the same: a guard or a lock that was in the way
    /// for as long as the layer's lock timeout ([`Locked`](crate::ErrorKind::Locked)), a store that did not
    /// answer, a record that only a later build can read, a value that cannot be stored; and, if sessions of
    /// the user go on to begin in each of ten rounds, those that began last
    /// ([`Contended`](crate::ErrorKind::Contended)).
    ///
    /// # Cancellation
    ///
    /// If the future is dropped, some of the sessions may have been changed, and none in part.
    #[track_caller]
    pub fn update_each<R>(
        &self,
        user: &T::User,
        mut change: impl FnMut(&mut T::Fields) -> R + Send,
    ) -> impl Future<Output = Result<UpdatedSessions, Error>> + Send {
        /// A user who logs in all the time cannot hold this up for ever.
        const MOST_ROUNDS: u32 = 10;
        // An async fn would not see its caller.
        let at = Location::caller();
        let user = self.shared.user_name(user);
        async move {
            let (mut outcome, mut seen) = (UpdatedSessions::default(), HashSet::new());
            let mut was_empty = false;
            // As in `end_all_but`: two looks that find nothing new have missed none.
            for round in 0.. {
                let mut keys = self.keys_of(&user).await?;
                keys.retain(|key| seen.insert(*key));
                if keys.is_empty() && was_empty {
                    break;
                }
                if round == MOST_ROUNDS {
                    let left = keys.into_iter().map(|key| (key, Error::contended(MOST_ROUNDS)));
                    outcome.failed.extend(left);
                    break;
                }
                was_empty = keys.is_empty();
                for key in keys {
                    let change = |fields: &mut T::Fields| _ = change(fields);
                    match self.update_one(&user, key, at, change).await {
                        Ok(()) => outcome.updated += 1,
                        Err(error) if error.kind() == ErrorKind::Ended => {}
                        Err(error) => outcome.failed.push((key, error)),
                    }
                }
            }
            Ok(outcome)
        }
    }

    /// Changes the session under this key, in the slot that requests of this process have of it, if there is
    /// one, and else as another process would.
    async fn update_one(
        &self,
        user: &str,
        key: StoreKey,
        at: &'static Location<'static>,
        mut change: impl FnMut(&mut T::Fields) + Send,
    ) -> Result<(), Error> {
        let shared = &*self.shared;
        let slot = shared.registry.find(&key);
        let slot = slot.unwrap_or_else(|| Slot::loading(Registration::without_id(key)).into());
        let patience =
            Patience { limit: shared.settings.lock_timeout, waiters: shared.settings.waiter_limit };
        let token = LockToken::acquire(slot, Access::Write, at, patience).await;
        let token = token.map_err(|timed_out| locked::<T>(timed_out, Access::Write, at))?;
        let slot = token.slot();
        let is_there = load::refresh_latest(shared, slot, &key).await? == SlotState::Stored;
        if !is_there && load::is_unreadable(shared, &key).await? {
            let why = "this build cannot read the session's record";
            return Err(StoreError::new("sessions", "update_each", why).into());
        }
        if !is_there || slot.record().user.as_deref() != Some(user) {
            return Err(Error::ended());
        }
        let writer = RequestId::next();
        let job = SaveJob { keeps_expiry: true, ..SaveJob::new(Some(writer)) };
        let change = |fields: &mut T::Fields| {
            change(fields);
            Ok::<(), Error>(())
        };
        save::update::update(shared, &token, writer, job, change).await
    }

    /// A session that exchanges its id meanwhile is in the list under the new one before the old one
    /// is gone. One look may miss both all the same, if it goes on while that happens: the index says
    /// which sessions there are, and then the store what has become of each. The next look finds the
    /// new one. So a caller that has looked twice, and found nothing, has ended it.
    async fn end_all_but(&self, user: &str, except: Option<&StoreKey>) -> Result<u64, Error> {
        /// A user who logs in all the time cannot hold this up for ever.
        const MOST_ROUNDS: u32 = 10;
        let (begun, mut ended, mut was_empty) = (self.shared.now(), 0, false);
        for round in 0.. {
            let mut others = self.sessions_of(user).await?;
            others.retain(|(key, _)| Some(key) != except);
            if round == MOST_ROUNDS {
                // One that has begun since is that of a login. One from before has got another id each time.
                let is_from_before = |(_, record): &(StoreKey, Record)| record.created_at <= begun;
                if others.iter().any(is_from_before) {
                    return Err(Error::contended(MOST_ROUNDS));
                }
                break;
            }
            if others.is_empty() {
                if was_empty {
                    break;
                }
                was_empty = true;
                continue;
            }
            was_empty = false;
            let deleted = index_of(&self.shared)?.dyn_delete_sessions_of(user, except);
            let deleted = self.within("delete_sessions_of", deleted).await?;
            meters::ended(deleted);
            ended += deleted;
            others.iter().for_each(|(key, _)| self.end_here(key));
        }
        Ok(ended)
    }

    async fn sessions_of(&self, user: &str) -> Result<Vec<(StoreKey, Record)>, Error> {
        self.within("sessions_of", index_of(&self.shared)?.dyn_sessions_of(user)).await
    }

    async fn keys_of(&self, user: &str) -> Result<Vec<StoreKey>, Error> {
        Ok(self.sessions_of(user).await?.into_iter().map(|(key, _)| key).collect())
    }

    /// What requests of this process that are under way write to it from now on is refused before
    /// the store is asked.
    fn end_here(&self, key: &StoreKey) {
        if let Some(slot) = self.shared.registry.find(key) {
            slot.end();
        }
    }

    async fn within<R>(
        &self,
        operation: &'static str,
        answer: impl Future<Output = Result<R, StoreError>>,
    ) -> Result<R, Error> {
        let limit: Duration = self.shared.settings.store_timeout;
        match timeout(limit, answer).await {
            Ok(answer) => Ok(answer?),
            Err(_) => Err(overdue(operation, limit).into()),
        }
    }
}

fn index_of<T: SessionData>(shared: &Shared<T>) -> Result<&dyn DynUserIndex, Error> {
    shared.storage.user_index().ok_or_else(Error::no_user_index)
}

impl<T: SessionData> Clone for UserSessions<T> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

impl<T: SessionData> fmt::Debug for UserSessions<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UserSessions").finish_non_exhaustive()
    }
}
