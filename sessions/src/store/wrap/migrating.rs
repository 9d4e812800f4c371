use std::{fmt, future::poll_fn, pin::pin, sync::Arc, task::Poll, time::SystemTime};

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
/// while it is being moved.
///
/// # During a rolling deploy
///
/// A process that knows `old` alone does not find the sessions that other processes have moved. If both run
/// side by side for long, let the old ones write to both first (see
/// [`Mirrored`](crate::store::Mirrored)), and then change over.
///
/// # Round trips
///
/// A session in `new` is loaded in one; one in `old` in two; one that does not exist in three,
/// because it might just have been moved. A save of a session in `new` is one, one that moves it
/// four. A session begins with two. `touch` and `delete` go to both.
///
/// # Errors
///
/// The errors of either store: while sessions are in both, both are needed. A save that fails in the
/// middle of a move leaves the session where it was, or moved; or ended, if `old` has deleted it and
/// not said so, which looks as if another process had ended it.
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
        // Of several that move it at once, the one whose `create` wins.
        if new.create(key, record).await? == Created::Exists {
            return Ok(Replaced::Changed);
        }
        // No other process takes it out of `old` now, unless to end it; then ours must go too. (`delete`
        // goes the same way, old before new, so one of us sees the other.)
        match old.delete(key).await {
            Ok(true) => Ok(Replaced::Done),
            Ok(false) => {
                new.delete(key).await?;
                Ok(Replaced::Missing)
            }
            Err(error) => {
                // Two copies would be one too many when the newer one ends.
                let _ = new.delete(key).await;
                Err(error)
            }
        }
    }
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
            return Ok(Some(record));
        }
        if let Some(record) = self.old().load(key).await? {
            return Ok(Some(record));
        }
        // It may have been moved after we looked for it in the one and before the other.
        self.new_store().load(key).await
    }

    async fn load_latest(&self, key: &StoreKey) -> Result<Option<Record>, StoreError> {
        if let Some(record) = self.new_store().load_latest(key).await? {
            return Ok(Some(record));
        }
        if let Some(record) = self.old().load_latest(key).await? {
            return Ok(Some(record));
        }
        self.new_store().load_latest(key).await
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
        self.new_store().create(key, record).await
    }

    async fn replace(
        &self,
        key: &StoreKey,
        record: &Record,
        based_on: u64,
    ) -> Result<Replaced, StoreError> {
        let (old, new) = (self.old(), self.new_store());
        let replaced = new.replace(key, record, based_on).await?;
        if replaced != Replaced::Missing {
            return Ok(replaced);
        }
        // Not what a cache over `old` remembers: what is moved takes the place of what is there.
        match old.load_latest(key).await? {
            // Gone, or moved since we looked: then the next look finds it.
            None => return new.replace(key, record, based_on).await,
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
        let was_new = self.new_store().delete(key).await?;
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
        let ended = old.dyn_delete_sessions_of(user, except).await?;
        Ok(ended + new.dyn_delete_sessions_of(user, except).await?)
    }
}
