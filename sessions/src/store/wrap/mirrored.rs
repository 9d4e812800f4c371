//! One store that answers, and one that is written along.
//!
//! The replica fails no call. What it may lack is counted, also where a call is dropped: until the primary has
//! answered by [`Doubt`], from then on by [`Attempt`].
//!
//! # What makes the replica come to what the primary has
//!
//! Every call that has changed the primary's record then makes the replica's record the same, and looks whether it
//! is: [`Shared::align`]. Of any number of calls at once let the last write to the primary be that of call A, and the
//! last one to the replica that of call B. If B's comes later, B has looked at both afterwards. If A's does, A has.
//! Either of them would have written once more if the two had differed. Two writes go without that look:
//!
//! - One that puts a version in the place of an earlier one of the same user. Whoever has seen the earlier one fails to
//!   write, and looks again. If it was not the user's in the replica before, the end of all of the user's sessions may
//!   have passed it by there.
//! - A `delete` of what the primary has had. Nothing comes after that: no key is a second session's. So versions
//!   only rise, too.

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

use crate::{clock::to_millis, identity::id::StoreKey, record::Record};
use crate::{
    error::store::StoreError,
    store::{
        Created, DeleteExpired, DynUserIndex, Replaced, Store, UserIndex, erased::index_behind,
    },
};

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
/// call returns. For several replicas, nest: `Mirrored::new(Mirrored::new(primary, one), other)`.
/// Clones share everything.
///
/// # What the replica has
///
/// The record that the primary has, with its fields, its user and its end, or none if the primary has none: as soon
/// as none of the session's saves, touches and ends is on its way, in whichever process, and however they have met.
/// While one is, the replica has what the primary has, or had before: perhaps with a later end, and of a session that
/// begins, or whose user logs in, just when it ends, perhaps for a moment longer.
///
/// That is so as far as nothing was missed or is in doubt, which [`stats`](Self::stats) counts. What was missed,
/// the next save, touch or end of the session makes good, whatever it was: a replica that was away for a while, or
/// began empty, has all that lives when each session has been saved or touched once. A session that nobody uses any
/// more stays in the replica as it is until it expires there; after an outage that may be one that was ended meanwhile.
///
/// # Round trips
///
/// Beside its own call of the primary, a save takes two to the replica, and an end one. A begin and a touch take
/// two to the replica, and a `load` of the primary. The end of all of a user's sessions lists them twice in the primary
/// and once in the replica. A call that meets others of the same session may take more.
///
/// # Errors
///
/// The errors of the primary. A replica that fails, or does not answer within a second (see
/// [`with_replica_timeout`](MirroredBuilder::with_replica_timeout)), fails no request: it is logged, and
/// counted in [`stats`](Self::stats). A write that the primary failed is counted there too, as one in doubt: it
/// may have been carried out, then or later, and the replica has it only if it was a logout.
///
/// Before you make a replica the primary, let it run with neither for as long as a session can
/// live; when the primary fails for good, the sessions in doubt since are all in which the replica may differ.
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
    /// Writes that the replica failed or was too slow for, or of which it is not known whether the replica has
    /// what the primary has after them.
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
}

/// How often other calls may get in the way of one. Each time one of them has got on.
const TRIES: u32 = 16;

impl<P: Store, R: Store> Shared<P, R> {
    /// Makes the replica's record the primary's, or what has come after. `saved` is what the caller has just saved in
    /// the primary.
    async fn align(&self, key: &StoreKey, mut saved: Option<&Record>) -> Result<(), StoreError> {
        let Self { primary, replica, .. } = self;
        for _ in 0..TRIES {
            // In this order: the second look is never the older one. And past caches.
            let found = replica.load_latest(key).await?;
            let newer = |record: &Record| {
                found.as_ref().is_some_and(|found| found.version < record.version)
            };
            let wanted = match saved.take().filter(|record| newer(record)) {
                Some(saved) => Some(saved.clone()),
                None => primary.load_latest(key).await?,
            };
            match (&found, &wanted) {
                (None, None) => return Ok(()),
                (Some(_), None) => drop(replica.delete(key).await?),
                (None, Some(wanted)) => drop(replica.create(key, wanted).await?),
                (Some(found), Some(wanted)) if is_same(found, wanted) => return Ok(()),
                (Some(found), Some(wanted)) => {
                    let replaced = replica.replace(key, wanted, found.version).await?;
                    let is_next = found.version < wanted.version && found.user == wanted.user;
                    if replaced == Replaced::Done && is_next {
                        return Ok(());
                    }
                }
            }
        }
        Err(StoreError::new("mirrored", "copy", "other processes were faster again and again"))
    }
}

/// Whether a store that was given one of them may give back the other: times may be rounded to milliseconds.
fn is_same(one: &Record, other: &Record) -> bool {
    one.version == other.version
        && one.user == other.user
        && one.payload == other.payload
        && to_millis(one.created_at) == to_millis(other.created_at)
        && to_millis(one.expires_at) == to_millis(other.expires_at)
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
        let Shared { primary, replica, .. } = &*self.shared;
        let created = self.write(primary.create(key, record)).await?;
        if created == Created::Done {
            self.copy(async {
                let _ = replica.create(key, record).await?;
                self.shared.align(key, None).await
            })
            .await;
        }
        Ok(created)
    }

    async fn replace(
        &self,
        key: &StoreKey,
        record: &Record,
        based_on: u64,
    ) -> Result<Replaced, StoreError> {
        let replaced = self.write(self.shared.primary.replace(key, record, based_on)).await?;
        match replaced {
            Replaced::Done => self.copy(self.shared.align(key, Some(record))).await,
            Replaced::Changed => {}
            Replaced::Missing => self.copy(self.shared.align(key, None)).await,
        }
        Ok(replaced)
    }

    async fn touch(&self, key: &StoreKey, expires_at: SystemTime) -> Result<(), StoreError> {
        let Shared { primary, replica, .. } = &*self.shared;
        self.write(primary.touch(key, expires_at)).await?;
        self.copy(async {
            replica.touch(key, expires_at).await?;
            // A save may have come between the two, on either side.
            self.shared.align(key, None).await
        })
        .await;
        Ok(())
    }

    async fn delete(&self, key: &StoreKey) -> Result<bool, StoreError> {
        let deleted = self.write(self.shared.primary.delete(key)).await;
        self.copy(async {
            // Also if the primary has failed: it may have ended the session all the same. If not, the next
            // save brings that back.
            self.shared.replica.delete(key).await?;
            match deleted {
                // Nothing has ended, and a session may have begun meanwhile.
                Ok(false) => self.shared.align(key, None).await,
                // What others write from here on, they look after.
                Ok(true) | Err(_) => Ok(()),
            }
        })
        .await;
        deleted
    }

    async fn delete_version(&self, key: &StoreKey, version: u64) -> Result<bool, StoreError> {
        let deleted = self.write(self.shared.primary.delete_version(key, version)).await;
        self.copy(async {
            match deleted {
                // Something else is there, or nothing.
                Ok(false) => self.shared.align(key, None).await,
                // As in `delete`.
                Ok(true) | Err(_) => self.shared.replica.delete(key).await.map(drop),
            }
        })
        .await;
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
        let listed = primary.dyn_sessions_of(user).await;
        let deleted = self.write(primary.dyn_delete_sessions_of(user, except)).await;
        self.copy(async {
            let in_replica = replica.dyn_sessions_of(user).await;
            replica.dyn_delete_sessions_of(user, except).await?;
            if deleted.is_err() {
                return Ok(());
            }
            let (listed, in_replica) = (listed?, in_replica?);
            // What has ended without being the user's in the replica too, ...
            let is_in_replica = |key| in_replica.iter().any(|(it, _)| it == key);
            let missed = listed.iter().filter(|(key, _)| !is_in_replica(key));
            // ... and what has come between the two ends.
            let since = primary.dyn_sessions_of(user).await?;
            let since = since.iter().filter(|(key, _)| Some(key) != except);
            for (key, _) in missed.chain(since) {
                self.shared.align(key, None).await?;
            }
            Ok(())
        })
        .await;
        deleted
    }
}
