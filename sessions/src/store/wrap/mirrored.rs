//! One store that answers, and one that is written along.
//!
//! The replica fails no call. What it may lack is counted, also where a call is dropped: until the primary has
//! answered by [`Doubt`], from then on by [`Attempt`].

use std::{
    error::Error as _,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, SystemTime},
};

use tokio::time::timeout;

use crate::{
    error::store::StoreError,
    store::{
        Created, DeleteExpired, DynUserIndex, Replaced, Store, UserIndex,
        erased::index_behind,
        wrap::upsert::{Put, put_always, put_newer},
    },
};
use crate::{identity::id::StoreKey, record::Record};

/// Reads from one store and writes to two.
///
/// ```
/// use sessions::{Store, store::Mirrored};
///
/// fn mirrored(primary: impl Store, replica: impl Store) -> impl Store {
///     Mirrored::new(primary, replica)
/// }
/// ```
///
/// Every answer is the primary's. What it has accepted is written to the replica too, before the
/// call returns; of two saves on their way at once the newer one stays, and a session that ends while
/// a save of it is on its way is ended in the replica as well: a save that has put a record where
/// there was none asks the primary whether the session is still there, which costs one more `load`
/// for each session that begins. For several replicas, nest:
/// `Mirrored::new(Mirrored::new(primary, one), other)`. Clones share everything.
///
/// # Errors
///
/// The errors of the primary. A replica that fails, or does not answer within a second (see
/// [`with_replica_timeout`](MirroredBuilder::with_replica_timeout)), fails no request: it is logged, and
/// counted in [`stats`](Self::stats). It may then lack records, or have old ones, until their next
/// save: after an outage a logout may be missing in it. A write that the primary failed is counted
/// there too, as one in doubt: it may have been carried out, and the replica has it only if it was a
/// logout. Before you make a replica the primary, let it run with neither for as long as a session can
/// live; when the primary fails for good, the sessions in doubt since are all that the replica may lack.
///
/// # Cancellation
///
/// A call that is dropped when the primary has accepted a write and before the replica has it counts
/// as a failure of the replica. One that is dropped earlier may be written to the primary alone, and
/// counts as one in doubt.
pub struct Mirrored<P, R> {
    shared: Arc<Shared<P, R>>,
}

struct Shared<P, R> {
    primary: P,
    replica: R,
    replica_timeout: Duration,
    failures: AtomicU64,
    in_doubt: AtomicU64,
}

/// What a [`Mirrored`] store's replica has missed: [`Mirrored::stats`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct MirroredStats {
    /// Writes that the replica failed or was too slow for.
    pub failures: u64,
    /// Writes that the primary has neither accepted nor refused, because it failed, or because the call
    /// was dropped: it may have carried them out, and the replica may lack them.
    pub in_doubt: u64,
}

/// The settings of a [`Mirrored`] store.
#[derive(Debug)]
#[must_use = "a builder does nothing until `build` is called"]
pub struct MirroredBuilder<P, R> {
    primary: P,
    replica: R,
    replica_timeout: Duration,
}

impl<P: Store, R: Store> MirroredBuilder<P, R> {
    /// How long a call waits for the replica, before it goes on without its answer. Default: one second.
    pub fn with_replica_timeout(mut self, timeout: Duration) -> Self {
        self.replica_timeout = timeout;
        self
    }

    /// The store.
    pub fn build(self) -> Mirrored<P, R> {
        let Self { primary, replica, replica_timeout } = self;
        let (failures, in_doubt) = Default::default();
        Mirrored {
            shared: Arc::new(Shared { primary, replica, replica_timeout, failures, in_doubt }),
        }
    }
}

impl<P: Store, R: Store> Mirrored<P, R> {
    /// Reads from `primary`, writes to both.
    pub fn new(primary: P, replica: R) -> Self {
        Self::builder(primary, replica).build()
    }

    /// For a mirror with other settings.
    pub fn builder(primary: P, replica: R) -> MirroredBuilder<P, R> {
        MirroredBuilder { primary, replica, replica_timeout: Duration::from_secs(1) }
    }

    /// What the replica has missed so far.
    pub fn stats(&self) -> MirroredStats {
        let Shared { failures, in_doubt, .. } = &*self.shared;
        MirroredStats { failures: failures.load(Relaxed), in_doubt: in_doubt.load(Relaxed) }
    }

    /// A write to the primary. One that fails, or is dropped half-way, is in doubt.
    async fn write<T>(
        &self,
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let mut doubt = Doubt { in_doubt: &self.shared.in_doubt, is_over: false };
        let answer = call.await;
        doubt.is_over = answer.is_ok();
        answer
    }

    /// Waits for the replica, and goes on whatever becomes of it.
    async fn copy<T>(&self, call: impl Future<Output = Result<T, StoreError>>) {
        let mut attempt = Attempt { failures: &self.shared.failures, is_over: false };
        match timeout(self.shared.replica_timeout, call).await {
            Ok(Ok(_)) => attempt.is_over = true,
            Ok(Err(error)) => {
                let cause = error.source().map(ToString::to_string);
                attempt.fails(&error.to_string(), cause.as_deref());
            }
            Err(_) => attempt.fails("it did not answer in time", None),
        }
    }

    /// Copies a record that the primary has accepted.
    async fn copy_record(
        &self,
        key: &StoreKey,
        put: impl Future<Output = Result<Put, StoreError>>,
    ) {
        let Shared { primary, replica, .. } = &*self.shared;
        self.copy(async {
            // A session that has ended since the primary has accepted the record was deleted in the
            // replica too: either after it came there, or just before. If the latter, it was created
            // there, and is gone in the primary, whatever a cache over the primary remembers.
            if put.await? == Put::Created && primary.load_latest(key).await?.is_none() {
                replica.delete(key).await?;
            }
            Ok(())
        })
        .await;
    }
}

/// A write to the replica. One that is dropped half-way has failed.
struct Attempt<'a> {
    failures: &'a AtomicU64,
    is_over: bool,
}

impl Attempt<'_> {
    fn fails(&mut self, error: &str, cause: Option<&str>) {
        self.is_over = true;
        self.failures.fetch_add(1, Relaxed);
        tracing::warn!(error, cause, "a replica of the sessions has missed a write");
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            self.fails("the call was dropped", None);
        }
    }
}

/// Of what the primary has made of a write.
struct Doubt<'a> {
    in_doubt: &'a AtomicU64,
    is_over: bool,
}

impl Drop for Doubt<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            self.in_doubt.fetch_add(1, Relaxed);
        }
    }
}

impl<P, R> Clone for Mirrored<P, R> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

impl<P: fmt::Debug, R: fmt::Debug> fmt::Debug for Mirrored<P, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mirrored")
            .field("primary", &self.shared.primary)
            .field("replica", &self.shared.replica)
            .field("failures", &self.shared.failures)
            .field("in_doubt", &self.shared.in_doubt)
            .finish()
    }
}

impl<P: Store, R: Store> Store for Mirrored<P, R> {
    async fn load(&self, key: &StoreKey) -> Result<Option<Record>, StoreError> {
        self.shared.primary.load(key).await
    }

    async fn load_latest(&self, key: &StoreKey) -> Result<Option<Record>, StoreError> {
        self.shared.primary.load_latest(key).await
    }

    async fn next_change(&self, key: &StoreKey) {
        self.shared.primary.next_change(key).await;
    }

    async fn create(&self, key: &StoreKey, record: &Record) -> Result<Created, StoreError> {
        let created = self.write(self.shared.primary.create(key, record)).await?;
        if created == Created::Done {
            self.copy_record(key, put_always(&self.shared.replica, key, record)).await;
        }
        Ok(created)
    }

    async fn replace(
        &self,
        key: &StoreKey,
        record: &Record,
        based_on: u64,
    ) -> Result<Replaced, StoreError> {
        let primary = &self.shared.primary;
        let replaced = self.write(primary.replace(key, record, based_on)).await?;
        match replaced {
            Replaced::Done => {
                self.copy_record(key, put_newer(&self.shared.replica, key, record)).await;
            }
            Replaced::Changed => {}
            Replaced::Missing => self.copy(self.shared.replica.delete(key)).await,
        }
        Ok(replaced)
    }

    async fn touch(&self, key: &StoreKey, expires_at: SystemTime) -> Result<(), StoreError> {
        self.write(self.shared.primary.touch(key, expires_at)).await?;
        self.copy(self.shared.replica.touch(key, expires_at)).await;
        Ok(())
    }

    async fn delete(&self, key: &StoreKey) -> Result<bool, StoreError> {
        let deleted = self.write(self.shared.primary.delete(key)).await;
        // Also if the primary has failed: it may have ended the session all the same. If not, the next
        // save brings that back.
        self.copy(self.shared.replica.delete(key)).await;
        deleted
    }

    fn user_index(&self) -> Option<&dyn DynUserIndex> {
        let Shared { primary, replica, .. } = &*self.shared;
        primary.user_index().and(replica.user_index()).map(|_| self as _)
    }
}

impl<P: DeleteExpired, R: DeleteExpired> DeleteExpired for Mirrored<P, R> {
    /// The larger of the two numbers, so that a caller that goes on until none is left goes on for both stores.
    async fn delete_expired(&self, batch: u32) -> Result<u64, StoreError> {
        let shared = &*self.shared;
        // The replica first: its time is bounded, and a primary that hangs keeps it from nothing.
        let replica = timeout(shared.replica_timeout, shared.replica.delete_expired(batch)).await;
        let replica = match replica {
            Ok(Ok(removed)) => removed,
            _ => {
                shared.failures.fetch_add(1, Relaxed);
                0
            }
        };
        Ok(shared.primary.delete_expired(batch).await?.max(replica))
    }
}

/// If both stores are one: else each call is an error.
impl<P: Store, R: Store> UserIndex for Mirrored<P, R> {
    async fn sessions_of(&self, user: &str) -> Result<Vec<(StoreKey, Record)>, StoreError> {
        index_behind(&self.shared.primary, "mirrored", "sessions_of")?.dyn_sessions_of(user).await
    }

    async fn delete_sessions_of(
        &self,
        user: &str,
        except: Option<&StoreKey>,
    ) -> Result<u64, StoreError> {
        let primary = index_behind(&self.shared.primary, "mirrored", "delete_sessions_of")?;
        let replica = index_behind(&self.shared.replica, "mirrored", "delete_sessions_of")?;
        let deleted = self.write(primary.dyn_delete_sessions_of(user, except)).await;
        self.copy(replica.dyn_delete_sessions_of(user, except)).await;
        deleted
    }
}
