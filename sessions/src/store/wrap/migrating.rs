//! Two stores, and each session in one of them.
//!
//! What keeps an ended session from coming back is the order: a move creates in `new` and then deletes in `old`, an
//! end deletes in `old` and then leaves its mark in `new`. Of a move and an end at once, one sees the other.

use std::{
    fmt,
    future::poll_fn,
    pin::pin,
    sync::Arc,
    task::Poll,
    time::{Duration, SystemTime},
};

use tokio::runtime::Handle as Runtime;
use tracing::Instrument;

use crate::{
    error::store::StoreError,
    store::{
        Created, DeleteExpired, DynUserIndex, Replaced, Store, UserIndex, erased::index_behind,
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
/// while it is being moved. For that `new` keeps a mark of each end, for a minute.
///
/// # During a rolling deploy
///
/// A process that knows `old` alone does not find the sessions that other processes have moved. If both run
/// side by side for long, let the old ones write to both first (see
/// [`Mirrored`](crate::store::Mirrored)), and then change over. A session that such a process ends while another
/// one moves it can be seen until the move is done.
///
/// # Round trips
///
/// A session in `new` is loaded in one; one in `old` in two; one that does not exist in three,
/// because it might just have been moved. A save of a session in `new` is one, one that moves it
/// four. A session begins with two. `touch` goes to both; `delete` is three, and the end of all of a user's
/// sessions three for each and four more.
///
/// # Errors
///
/// The errors of either store: while sessions are in both, both are needed. A save that fails in the
/// middle of a move leaves the session where it was, or moved; or ended, if `old` has deleted it and
/// not said so, which looks as if another process had ended it. Left where it was, the save is undone, also
/// if other requests have seen it meanwhile.
///
/// # Cancellation
///
/// A move that has begun is carried to its end even if the call is dropped.
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
    /// Takes a session out of `old`, where it is in the version that `record` follows.
    async fn move_over(&self, key: &StoreKey, record: &Record) -> Result<Replaced, StoreError> {
        let (old, new) = (self.old(), self.new_store());
        // Of several that move it at once, the one whose `create` wins; and none whose end is marked.
        if new.create(key, record).await? == Created::Exists {
            return self.changed_or_ended(key).await;
        }
        // No other process takes it out of `old` now, unless to end it; then ours must go too. (`delete`
        // goes the same way, old before new, so one of us sees the other.)
        match old.delete(key).await {
            Ok(true) => Ok(Replaced::Done),
            Ok(false) => {
                self.end_in_new(key).await?;
                Ok(Replaced::Missing)
            }
            Err(error) => {
                // Two copies would be one too many when the newer one ends. At once, and without a look at what is
                // there by now: another process may save upon ours meanwhile.
                let _ = new.delete(key).await;
                Err(error)
            }
        }
    }

    /// Puts the mark of an end in the place of what `new` has under `key`, be it nothing: gone without a mark,
    /// the session could come back with a move that looked into `old` before its end. Whether `new` had the
    /// session.
    async fn end_in_new(&self, key: &StoreKey) -> Result<bool, StoreError> {
        let new = self.new_store();
        for _ in 0..TRIES {
            match new.load_latest(key).await? {
                Some(found) if is_end(&found) => return Ok(false),
                Some(found) => {
                    if new.replace(key, &end(), found.version).await? == Replaced::Done {
                        return Ok(true);
                    }
                }
                None => {
                    if new.create(key, &end()).await? == Created::Done {
                        return Ok(false);
                    }
                }
            }
        }
        let words = "the session was saved again and again while it was to end";
        Err(StoreError::new("migrating", "delete", words))
    }

    /// What a save has met in `new` that was not what it is based on.
    async fn changed_or_ended(&self, key: &StoreKey) -> Result<Replaced, StoreError> {
        let found = self.new_store().load_latest(key).await?;
        Ok(match found.is_some_and(|found| is_end(&found)) {
            true => Replaced::Missing,
            false => Replaced::Changed,
        })
    }

    /// `replace` in `new`, where an end that is marked is one.
    async fn replace_in_new(
        &self,
        key: &StoreKey,
        record: &Record,
        based_on: u64,
    ) -> Result<Replaced, StoreError> {
        match self.new_store().replace(key, record, based_on).await? {
            Replaced::Changed => self.changed_or_ended(key).await,
            replaced => Ok(replaced),
        }
    }
}

/// The payload of a mark. As that of a [tombstone](crate::record::tombstone) it is no session's.
const ENDED: &[u8] = b"\0ended";

/// How long an end stays marked: longer than a move takes, whatever its stores do.
const MARKED: Duration = Duration::from_secs(60);

/// How often an end is tried that other processes' saves get in the way of.
const TRIES: u32 = 32;

/// The mark of an end. No session has the version, so that no save is based on a mark.
fn end() -> Record {
    let expires_at = SystemTime::now() + MARKED;
    let created_at = SystemTime::UNIX_EPOCH;
    Record { version: 0, created_at, expires_at, user: None, payload: ENDED.into() }
}

fn is_end(record: &Record) -> bool {
    *record.payload == *ENDED
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
        if let Some(record) = self.new_store().load(key).await? {
            return Ok(Some(record).filter(|record| !is_end(record)));
        }
        if let Some(record) = self.old().load(key).await? {
            return Ok(Some(record));
        }
        // It may have been moved after we looked for it in the one and before the other.
        Ok(self.new_store().load(key).await?.filter(|record| !is_end(record)))
    }

    async fn load_latest(&self, key: &StoreKey) -> Result<Option<Record>, StoreError> {
        if let Some(record) = self.new_store().load_latest(key).await? {
            return Ok(Some(record).filter(|record| !is_end(record)));
        }
        if let Some(record) = self.old().load_latest(key).await? {
            return Ok(Some(record));
        }
        Ok(self.new_store().load_latest(key).await?.filter(|record| !is_end(record)))
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
        if self.old().load(key).await?.is_some() {
            return Ok(Created::Exists);
        }
        let new = self.new_store();
        let created = new.create(key, record).await?;
        // A mark is nothing that is in use.
        if created == Created::Exists && self.changed_or_ended(key).await? == Replaced::Missing {
            return Ok(match new.replace(key, record, end().version).await? {
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
        match self.old().load_latest(key).await? {
            // Gone, or moved since we looked: then the next look finds it.
            None => return self.replace_in_new(key, record, based_on).await,
            Some(found) if found.version != based_on => return Ok(Replaced::Changed),
            Some(_) => {}
        }
        // In a task of its own: dropped in the middle, it would leave in `new` what has ended meanwhile.
        let (store, key, record) = (self.clone(), *key, record.clone());
        let moving = async move { store.move_over(&key, &record).await };
        match Runtime::try_current() {
            Ok(runtime) => {
                let moved = runtime.spawn(moving.in_current_span()).await;
                moved.unwrap_or_else(|error| Err(StoreError::new("migrating", "replace", error)))
            }
            Err(_) => moving.await,
        }
    }

    async fn touch(&self, key: &StoreKey, expires_at: SystemTime) -> Result<(), StoreError> {
        // In this order it meets a session that is moved in between at least once.
        self.old().touch(key, expires_at).await?;
        self.new_store().touch(key, expires_at).await
    }

    async fn delete(&self, key: &StoreKey) -> Result<bool, StoreError> {
        let was_old = self.old().delete(key).await?;
        let was_new = self.end_in_new(key).await?;
        Ok(was_old || was_new)
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
        let old = index_behind(self.old(), "migrating", "sessions_of")?;
        let new = index_behind(self.new_store(), "migrating", "sessions_of")?;
        let mut found = old.dyn_sessions_of(user).await?;
        let moved = new.dyn_sessions_of(user).await?;
        found.retain(|(key, _)| !moved.iter().any(|(other, _)| other == key));
        found.extend(moved);
        Ok(found)
    }

    async fn delete_sessions_of(
        &self,
        user: &str,
        except: Option<&StoreKey>,
    ) -> Result<u64, StoreError> {
        let old = index_behind(self.old(), "migrating", "delete_sessions_of")?;
        let new = index_behind(self.new_store(), "migrating", "delete_sessions_of")?;
        let mut ended = 0;
        // Each by itself, so that its end is marked.
        for (key, _) in self.sessions_of(user).await? {
            if except != Some(&key) {
                ended += u64::from(self.delete(&key).await?);
            }
        }
        // And what has come meanwhile.
        ended += old.dyn_delete_sessions_of(user, except).await?;
        Ok(ended + new.dyn_delete_sessions_of(user, except).await?)
    }
}
