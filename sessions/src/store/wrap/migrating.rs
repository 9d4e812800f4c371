//! Two stores, and each session in one of them, or on its way.
//!
//! Whether a session lives that is on its way, `old` decides: a move takes its witness away last, an end takes it away
//! first. Whoever finds no witness writes the end into `new` before telling it, which a move that is late cannot undo.

use std::{
    collections::HashSet, fmt, future::poll_fn, pin::pin, sync::Arc, task::Poll, time::SystemTime,
};

use crate::{
    error::store::StoreError,
    store::{
        Created, DeleteExpired, DynUserIndex, Replaced, Store, UserIndex,
        erased::index_behind,
        looks::Looks,
        wrap::marks::{Found, MARK_VERSION, MOVING_VERSION, ended, is_moved, moved, moving},
    },
};
use crate::{identity::id::StoreKey, record::Record};

/// Moves sessions from one store to another while they are in use.
///
/// ```
/// use sessions::{Store, store::Migrating};
///
/// fn moving(old: impl Store, new: impl Store) -> impl Store {
///     Migrating::new(old, new)
/// }
/// ```
///
/// New sessions begin in `new`. One that is still in `old` is read there, and moved by its next
/// save. When the longest session has ended, `old` is empty and can go. Clones share everything.
///
/// A session ends in both: nothing comes back from `old` that has ended, not even when it ends
/// while it is being moved.
///
/// # How a session is moved
///
/// 1. `new` gets the record that is to be saved, as one on its way: it counts as long as `old` has a witness, which
///    is the session as it was, or what comes in its place in the next step.
/// 2. `old` gets a mark in the place of the session: it has been moved.
/// 3. `new` gets the record in the place of what was on its way.
/// 4. The mark goes.
///
/// Wherever that stops, because a store fails, the call is dropped or the process is killed, the session is whole, and
/// ends when it is told to; its next save does what is missing. The end of a session that is in `new` leaves a mark
/// there, for moves that have begun before, until a minute after the session would have expired: so a move brings
/// nothing back, however long its process stands still. (`new` has some hundred bytes more for each session that was
/// logged out meanwhile.)
///
/// # During a rolling deploy
///
/// A process that knows `old` alone does not find the sessions that other processes have moved. If both run
/// side by side for long, let the old ones write to both first (see
/// [`Mirrored`](crate::store::Mirrored)), and then change over. What such a process saves while another one moves the
/// session is lost, and an end that it puts in the place of the mark may be none.
///
/// # Round trips
///
/// A session in `new` is loaded in one; one in `old` in two; one that does not exist in three,
/// because it might just have been moved. A save of a session in `new` is one, one that moves it
/// six. A session begins with two, and ends with two in `old` and three in `new`; the end of all of a user's sessions
/// takes three, and three more for each in `new`; their list takes two, and one more for each in `old`. `touch` goes to
/// both.
///
/// # Errors
///
/// The errors of either store: while sessions are in both, both are needed. A save that fails in the
/// middle of a move has been carried out or not, as with any store, and a look at the session says which. If it
/// has, each look needs both stores until the move is done, and the session does not live longer than it would
/// have lived in `old`, unless it is touched.
///
/// # Cancellation
///
/// A call that is dropped in the middle of a move is as one that fails there.
pub struct Migrating<Old, New> {
    stores: Arc<(Old, New)>,
}

impl<Old: Store, New: Store> Migrating<Old, New> {
    /// Moves sessions from `old` to `new`.
    pub fn new(old: Old, new: New) -> Self {
        Self { stores: Arc::new((old, new)) }
    }
}

impl<Old: Store, New: Store> Migrating<Old, New> {
    /// Moves the session that was found in `old` as `in_old`, which is what `record` follows.
    async fn move_over(
        &self,
        key: &StoreKey,
        record: &Record,
        in_old: Record,
    ) -> Result<Replaced, StoreError> {
        let new = self.new_store();
        // Of several that move it at once, the one whose `create` wins.
        if new.create(key, &moving(record, &in_old)).await? == Created::Exists {
            return Ok(match Found::of(new.load_latest(key).await?) {
                Found::Ended => Replaced::Missing,
                _ => Replaced::Changed,
            });
        }
        self.arrive(key, record, Some(in_old)).await
    }

    /// Brings a move to its end: the call that has begun it does, or a later save, whose process has met what that
    /// call has left. `Missing` if the session had ended before. `in_old` if somebody has just looked.
    async fn arrive(
        &self,
        key: &StoreKey,
        record: &Record,
        in_old: Option<Record>,
    ) -> Result<Replaced, StoreError> {
        if !self.mark_moved(key, record, in_old).await? {
            return self.bury(key, record.expires_at).await;
        }
        // The session was there when the record was on its way already: the save counts. What fails from here on,
        // a later save does; and if another process was faster, it has done it, or has ended the session since.
        if self.new_store().replace(key, record, MOVING_VERSION).await.is_ok() {
            // The last that may go: as long as the record is on its way, the mark is its witness.
            let _ = self.old().delete(key).await;
        }
        Ok(Replaced::Done)
    }

    /// Puts the mark of the move in the place of the session in `old`. False if that has neither: then the session
    /// has ended, for nothing else removes a session from `old`, and the mark stays until the move is done.
    async fn mark_moved(
        &self,
        key: &StoreKey,
        record: &Record,
        mut in_old: Option<Record>,
    ) -> Result<bool, StoreError> {
        for _ in 0..TRIES {
            if in_old.is_none() {
                in_old = self.old().load_latest(key).await?;
            }
            let Some(found) = in_old.take() else { return Ok(false) };
            if is_moved(&found) {
                return Ok(true);
            }
            // No `delete`: whoever looks afterwards has to know a move from an end, also if the answer is lost.
            let mark = moved(record, &found);
            if self.old().replace(key, &mark, found.version).await? == Replaced::Done {
                return Ok(true);
            }
        }
        Err(busy("replace"))
    }

    /// Ends what is on its way for which `old` has no witness. `Done` if it has arrived meanwhile: then the witness
    /// was gone for that.
    async fn bury(&self, key: &StoreKey, last: SystemTime) -> Result<Replaced, StoreError> {
        let new = self.new_store();
        // No `delete`, which would end what has arrived too.
        if new.replace(key, &ended(last), MOVING_VERSION).await? != Replaced::Changed {
            return Ok(Replaced::Missing);
        }
        Ok(match Found::of(new.load_latest(key).await?) {
            Found::Session(_) => Replaced::Done,
            _ => Replaced::Missing,
        })
    }

    /// Puts the mark of an end in the place of what `new` has. Whether that was a session.
    async fn end_in_new(&self, key: &StoreKey) -> Result<bool, StoreError> {
        let new = self.new_store();
        for _ in 0..TRIES {
            let (version, was_there, found) = match Found::of(new.load_latest(key).await?) {
                Found::Nothing | Found::Ended => return Ok(false),
                Found::Moving(found) => (MOVING_VERSION, false, found),
                Found::Session(found) => (found.version, true, found),
            };
            // No `delete`: a move that began long before could set out into the empty place, and arrive with what
            // another one, which has seen the witness, is about to write.
            let ended = ended(found.expires_at);
            if new.replace(key, &ended, version).await? == Replaced::Done {
                return Ok(was_there);
            }
        }
        Err(busy("delete"))
    }

    /// `replace` in `new`. A save that follows a record on its way brings that to its end first.
    async fn replace_in_new(
        &self,
        key: &StoreKey,
        record: &Record,
        based_on: u64,
    ) -> Result<Replaced, StoreError> {
        let new = self.new_store();
        for _ in 0..TRIES {
            let replaced = new.replace(key, record, based_on).await?;
            if replaced != Replaced::Changed {
                return Ok(replaced);
            }
            match Found::of(new.load_latest(key).await?) {
                Found::Ended => return Ok(Replaced::Missing),
                Found::Moving(found) if found.version == based_on => {
                    if self.arrive(key, &found, None).await? != Replaced::Done {
                        return Ok(Replaced::Missing);
                    }
                }
                // It has arrived between our two looks.
                Found::Session(found) if found.version == based_on => {}
                _ => return Ok(Replaced::Changed),
            }
        }
        Err(busy("replace"))
    }

    /// What the two stores have of a user's, each session once.
    async fn listed(&self, user: &str) -> Result<Vec<(StoreKey, Record, Listed)>, StoreError> {
        let old = index_behind(self.old(), "migrating", "sessions_of")?;
        let new = index_behind(self.new_store(), "migrating", "sessions_of")?;
        // In this order: what is moved meanwhile is in the second.
        let in_old = old.dyn_sessions_of(user).await?;
        let in_new = new.dyn_sessions_of(user).await?;
        let is_in_old_alone =
            |(key, _): &(StoreKey, Record)| in_new.iter().all(|(of, _)| of != key);
        let in_old: Vec<_> = in_old.into_iter().filter(is_in_old_alone).collect();
        let in_old = in_old.into_iter().map(|(key, record)| (key, record, Listed::InOld));
        let in_new = in_new.into_iter().map(|(key, record)| (key, record, Listed::InNew));
        Ok(in_old.chain(in_new).collect())
    }

    /// What was found, if it is a session of this user.
    async fn of_user(
        &self,
        user: &str,
        key: StoreKey,
        found: Found,
    ) -> Result<Option<(StoreKey, Record)>, StoreError> {
        let record = match found {
            Found::Session(record) => Some(record),
            Found::Moving(_) => self.find(&key, true).await?,
            Found::Nothing | Found::Ended => None,
        };
        Ok(record.filter(|record| record.user.as_deref() == Some(user)).map(|record| (key, record)))
    }

    /// The session, wherever it is. `is_latest`: past caches.
    async fn find(&self, key: &StoreKey, is_latest: bool) -> Result<Option<Record>, StoreError> {
        let (old, new) = (self.old(), self.new_store());
        for round in 0..TRIES {
            let found = match is_latest || round > 0 {
                true => new.load_latest(key).await?,
                false => new.load(key).await?,
            };
            match Found::of(found) {
                Found::Session(record) => return Ok(Some(record)),
                Found::Ended => return Ok(None),
                Found::Moving(record) => {
                    if old.load_latest(key).await?.is_some() {
                        return Ok(Some(record));
                    }
                    // Before anybody is told that it has ended: its mover may be about to let it arrive.
                    let _ = self.bury(key, record.expires_at).await?;
                }
                Found::Nothing if round > 0 => return Ok(None),
                // If it is not there either, it may have been moved between the two looks.
                Found::Nothing => {
                    let found = match is_latest {
                        true => old.load_latest(key).await?,
                        false => old.load(key).await?,
                    };
                    if let Some(record) = found.filter(|found| !is_moved(found)) {
                        return Ok(Some(record));
                    }
                }
            }
        }
        Err(busy("load"))
    }
}

/// Where a session of a user's was listed.
enum Listed {
    InOld,
    InNew,
}

/// How often a call begins anew that other processes get in the way of. Each time the session has gone a step of its
/// way.
const TRIES: u32 = 16;

fn busy(operation: &'static str) -> StoreError {
    StoreError::new("migrating", operation, "other processes were faster again and again")
}

impl<Old, New> Migrating<Old, New> {
    fn old(&self) -> &Old {
        &self.stores.0
    }

    fn new_store(&self) -> &New {
        &self.stores.1
    }
}

impl<Old, New> Clone for Migrating<Old, New> {
    fn clone(&self) -> Self {
        Self { stores: self.stores.clone() }
    }
}

impl<Old: fmt::Debug, New: fmt::Debug> fmt::Debug for Migrating<Old, New> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Migrating").field("old", self.old()).field("new", self.new_store()).finish()
    }
}

impl<Old: Store, New: Store> Store for Migrating<Old, New> {
    async fn load(&self, key: &StoreKey) -> Result<Option<Record>, StoreError> {
        self.find(key, false).await
    }

    async fn load_latest(&self, key: &StoreKey) -> Result<Option<Record>, StoreError> {
        self.find(key, true).await
    }

    async fn next_change(&self, key: &StoreKey) {
        let mut in_old = pin!(self.old().next_change(key));
        let mut in_new = pin!(self.new_store().next_change(key));
        poll_fn(|cx| match in_old.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(()),
            Poll::Pending => in_new.as_mut().poll(cx),
        })
        .await;
    }

    async fn create(&self, key: &StoreKey, record: &Record) -> Result<Created, StoreError> {
        if self.old().load(key).await?.is_some_and(|found| !is_moved(&found)) {
            return Ok(Created::Exists);
        }
        let new = self.new_store();
        let created = new.create(key, record).await?;
        // A mark is nothing that is in use.
        if created == Created::Exists && Found::of(new.load_latest(key).await?) == Found::Ended {
            return Ok(match new.replace(key, record, MARK_VERSION).await? {
                Replaced::Done => Created::Done,
                Replaced::Changed => Created::Exists,
                Replaced::Missing => new.create(key, record).await?,
            });
        }
        Ok(created)
    }

    async fn replace(
        &self,
        key: &StoreKey,
        record: &Record,
        based_on: u64,
    ) -> Result<Replaced, StoreError> {
        let replaced = self.replace_in_new(key, record, based_on).await?;
        if replaced != Replaced::Missing {
            return Ok(replaced);
        }
        // Not what a cache over `old` remembers: what is moved takes the place of what is there.
        match self.old().load_latest(key).await?.filter(|found| !is_moved(found)) {
            // Gone, or moved since we looked: then the next look finds it.
            None => self.replace_in_new(key, record, based_on).await,
            Some(found) if found.version != based_on => Ok(Replaced::Changed),
            Some(found) => self.move_over(key, record, found).await,
        }
    }

    async fn touch(&self, key: &StoreKey, expires_at: SystemTime) -> Result<(), StoreError> {
        // In this order what is on its way never ends before what is in `old`. If it sets out between the two, the
        // save has come after the touch, and says when the session ends.
        self.new_store().touch(key, expires_at).await?;
        self.old().touch(key, expires_at).await
    }

    async fn delete(&self, key: &StoreKey) -> Result<bool, StoreError> {
        // In this order: what sets out from now on, or is on its way, has no witness.
        let was_old = self.old().delete(key).await?;
        let was_new = self.end_in_new(key).await?;
        Ok(was_old || was_new)
    }

    async fn delete_version(&self, key: &StoreKey, version: u64) -> Result<bool, StoreError> {
        let new = self.new_store();
        // In this order, as in `delete`.
        if self.old().delete_version(key, version).await? {
            let _ = self.end_in_new(key).await?;
            return Ok(true);
        }
        for _ in 0..TRIES {
            match Found::of(new.load_latest(key).await?) {
                Found::Session(found) if found.version == version => {
                    // No `delete`, as in `end_in_new`.
                    let ended = ended(found.expires_at);
                    if new.replace(key, &ended, version).await? == Replaced::Done {
                        return Ok(true);
                    }
                }
                Found::Moving(found) if found.version == version => {
                    if self.arrive(key, &found, None).await? != Replaced::Done {
                        return Ok(false);
                    }
                }
                _ => return Ok(false),
            }
        }
        Err(busy("delete"))
    }

    fn user_index(&self) -> Option<&dyn DynUserIndex> {
        self.old().user_index().and(self.new_store().user_index()).map(|_| self as _)
    }
}

impl<Old: DeleteExpired, New: DeleteExpired> DeleteExpired for Migrating<Old, New> {
    /// The larger of the two numbers, so that a caller that goes on until none is left goes on for both stores.
    async fn delete_expired(&self, batch: u32) -> Result<u64, StoreError> {
        let old = self.old().delete_expired(batch).await?;
        Ok(old.max(self.new_store().delete_expired(batch).await?))
    }
}

/// If both stores are one: else each call is an error.
impl<Old: Store, New: Store> UserIndex for Migrating<Old, New> {
    async fn sessions_of(&self, user: &str) -> Result<Vec<(StoreKey, Record)>, StoreError> {
        let mut listed = self.listed(user).await?;
        let mut looks = Looks::of(listed.iter().map(|(key, ..)| *key).collect());
        loop {
            let mut all = Vec::new();
            for (key, record, place) in listed {
                let found = match place {
                    Listed::InNew => Found::of(Some(record)),
                    // A session that is another user's by now, or has ended, if only the mark of that has not
                    // come there.
                    Listed::InOld => match Found::of(self.new_store().load_latest(&key).await?) {
                        Found::Nothing => Found::Session(record),
                        found => found,
                    },
                };
                all.extend(self.of_user(user, key, found).await?);
            }
            if !looks.has_missed(&all) {
                return Ok(all);
            }
            listed = self.listed(user).await?;
            if !looks.again(listed.iter().map(|(key, ..)| *key).collect(), &all) {
                return Ok(all);
            }
            let keys: HashSet<&StoreKey> = looks.keys().iter().collect();
            listed.retain(|(key, ..)| keys.contains(key));
        }
    }

    async fn delete_sessions_of(
        &self,
        user: &str,
        except: Option<&StoreKey>,
    ) -> Result<u64, StoreError> {
        let old = index_behind(self.old(), "migrating", "delete_sessions_of")?;
        let new = index_behind(self.new_store(), "migrating", "delete_sessions_of")?;
        // In this order, as in `delete`.
        let mut ended = old.dyn_delete_sessions_of(user, except).await?;
        for (key, _) in new.dyn_sessions_of(user).await? {
            if except != Some(&key) {
                ended += u64::from(self.delete(&key).await?);
            }
        }
        // And what has come meanwhile.
        Ok(ended + new.dyn_delete_sessions_of(user, except).await?)
    }
}
