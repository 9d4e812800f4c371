//! The storage interface, and the stores that come with the crate.
//!
//! A store only reads and writes [`Record`]s. Locking, expiry policy, ids, cookies and merging are
//! the session layer's, once, for every store. `sessions::testing::conformance` (feature
//! `testing`) checks everything that the [`Store`] trait promises against any store:
//!
//! ```
//! # #[cfg(all(feature = "memory", feature = "testing"))]
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! sessions::testing::conformance(sessions::MemoryStore::new()).await;
//! # }
//! # #[cfg(not(all(feature = "memory", feature = "testing")))]
//! # fn main() {}
//! ```
//!
//! # Your own store
//!
//! A store is five methods, and about a hundred lines:
//!
//! 1. **Keep [`Record`]s under [`StoreKey`]s.** The key is 32 bytes that are as good as random, and
//!    printed as 64 hexadecimal digits. The payload is bytes of any value, the user any text. Times
//!    may be rounded to milliseconds.
//! 2. **Look at the clock in every method**: what has expired counts as absent, whether it has been
//!    removed or not. Take the time of the process that calls, so that a server's clock makes no
//!    difference.
//! 3. **Make each method one step.** Whatever `replace` compares must not change before it writes:
//!    a condition in the statement, a script on the server, a compare-and-swap of the server's own,
//!    a lock. What one method does must never be seen in part, not even when its future is dropped
//!    in the middle.
//! 4. **Answer honestly.** `Changed` is not `Missing`: the one is merged and tried again, the other
//!    means that the session has ended. A store that cannot tell must return an error, never an
//!    empty answer.
//! 5. **Say whether trying again helps**: [`StoreError::new`] if it may, [`StoreError::permanent`] if
//!    not. Keep the cause as its source. Give up on a connection that hangs.
//! 6. **Run the conformance suite**, on a runtime with several threads, against a real server.
//!
//! Then, if your store can: [`Store::delete_version`] in one step, which is what a logout calls;
//! [`DeleteExpired`] for one that does not forget by itself, with [`ExpirySweep`] to call it, and
//! [`UserIndex`] for "log out everywhere", with [`Store::user_index`] to say so; [`AllSessions`] for
//! an operator, and [`Watch`] for a near cache.
//!
//! `examples/custom_store.rs` in the repository is a whole one, which keeps each session in a file.
//!
//! # A flood of new sessions
//!
//! Each request without a cookie whose handler writes to its session begins one, and keeps it in the
//! store until it expires: a client that sends no cookies makes as many as it sends requests. What
//! bounds that:
//!
//! - **A handler that only reads begins none.** Write to the session of a visitor when there is
//!   something to keep, not to count page views.
//! - **[`MemoryStore`]** has a limit in bytes, and what gives way first is what no user is logged in
//!   to. Logged-in sessions never do.
//! - **A server knows nothing of logins.** An SQL database grows until its disk is full. memcached
//!   forgets what was used least recently, whoever is logged in. Redis with `noeviction` answers with
//!   errors, to those who are logged in too: their sessions stay and cannot be changed. With
//!   `volatile-ttl` it removes what expires next: then give sessions a short idle timeout
//!   ([`with_idle_timeout`](crate::SessionLayerBuilder::with_idle_timeout)), and those of users a
//!   longer one ([`Login::with_lifetime`](crate::Login::with_lifetime)), so that the visitors' go first.
//! - **Everywhere**: a short idle timeout for visitors, which bounds the flood to what arrives within
//!   it; a [payload limit](crate::SessionLayerBuilder::with_payload_limit) near what the application
//!   needs; and a limit of requests for each address, in front of the application.

use std::{sync::Arc, time::SystemTime};

use crate::error::store::StoreError;
use crate::{
    identity::id::StoreKey,
    record::{Record, tombstone},
};

pub(crate) mod all;
pub(crate) mod erased;
pub(crate) mod expiry_sweep;
#[cfg(any(feature = "redis", feature = "memcached"))]
pub(crate) mod known_users;
mod looks;
#[cfg(feature = "memcached")]
pub(crate) mod memcached;
#[cfg(feature = "memory")]
pub(crate) mod memory;
pub(crate) mod near;
pub(crate) mod packed;
#[cfg(feature = "redis")]
pub(crate) mod redis;
#[cfg(any(feature = "sqlite", feature = "postgres", feature = "mysql"))]
pub(crate) mod sql;
pub(crate) mod storage;
pub(crate) mod timed;
pub(crate) mod watch;
pub(crate) mod wrap;
#[cfg(feature = "memcached")]
pub use self::memcached::{MemcachedStore, MemcachedStoreBuilder};
#[cfg(feature = "redis")]
pub use self::redis::{RedisStore, RedisStoreBuilder};
#[cfg(feature = "mysql")]
pub use self::sql::MySqlStore;
#[cfg(feature = "postgres")]
pub use self::sql::PostgresStore;
#[cfg(feature = "sqlite")]
pub use self::sql::SqliteStore;
#[cfg(any(feature = "sqlite", feature = "postgres", feature = "mysql"))]
pub use self::sql::{Dialect, SqlStore, SqlStoreBuilder};
#[cfg(feature = "private-cookie")]
pub use self::storage::PrivateCookie;
pub use self::{
    all::{AllSessions, SessionStats},
    erased::DynUserIndex,
    expiry_sweep::ExpirySweep,
    near::{NearCache, NearCacheBuilder, NearCacheStats},
    watch::{Around, Feed, Watch, Watcher},
    wrap::{
        cached::{Cached, CachedBuilder, CachedStats},
        migrating::Migrating,
        mirrored::{Mirrored, MirroredBuilder, MirroredStats},
    },
};
#[cfg(feature = "memory")]
pub use memory::{MemoryStore, MemoryStoreBuilder, MemoryStoreStats};

/// Where sessions are kept.
///
/// Every method may be called at any time from any number of tasks and processes; each is atomic:
/// it happens as a whole or, as far as later calls can tell, not at all. The future of any method
/// may be dropped before it is done; the store may then have carried it out or not.
///
/// An expired record counts as absent in every method, from its very `expires_at` on.
#[doc(alias = "SessionStore")]
pub trait Store: Send + Sync + 'static {
    /// The record under `key`, if there is one that has not expired.
    fn load(
        &self,
        key: &StoreKey,
    ) -> impl Future<Output = Result<Option<Record>, StoreError>> + Send;

    /// Keeps `record` under a `key` that is not in use; never overwrites.
    fn create(
        &self,
        key: &StoreKey,
        record: &Record,
    ) -> impl Future<Output = Result<Created, StoreError>> + Send;

    /// Keeps `record` in place of the one under `key`, if that still has the version `based_on`
    /// (compare-and-swap). A missing or expired record is not brought back.
    fn replace(
        &self,
        key: &StoreKey,
        record: &Record,
        based_on: u64,
    ) -> impl Future<Output = Result<Replaced, StoreError>> + Send;

    /// Moves the expiry of the record under `key` to `expires_at`, if that is later than what it
    /// has. Never shortens, never brings back a missing or expired record, and leaves the version
    /// as it is.
    fn touch(
        &self,
        key: &StoreKey,
        expires_at: SystemTime,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Removes the record under `key`, and says whether one was there. Of two deletions at once
    /// only one is told `true`.
    fn delete(&self, key: &StoreKey) -> impl Future<Output = Result<bool, StoreError>> + Send;

    /// Removes the record under `key` if it still has this `version`, and says whether that was so: what
    /// others have put there since stays, such as what a login leaves under the old id of its session.
    ///
    /// Default: [`replace`](Self::replace) by a record that opens nothing, and then `delete`. A store that can
    /// do it in one call does; a store around another one hands the call on.
    fn delete_version(
        &self,
        key: &StoreKey,
        version: u64,
    ) -> impl Future<Output = Result<bool, StoreError>> + Send {
        async move {
            let over = tombstone::of_ended(version);
            if self.replace(key, &over, version).await? != Replaced::Done {
                return Ok(false);
            }
            // The session has ended by now, whatever becomes of what is left.
            if self.delete(key).await.is_err() {
                tracing::debug!("what is left of a session that was ended stays until it expires");
            }
            Ok(true)
        }
    }

    /// This store as a [`UserIndex`], if it is one: then its implementation is `Some(self)`, and a store
    /// around another one hands on that one's. [`UserSessions`](crate::UserSessions) find a user's
    /// sessions by it. Default: `None`.
    fn user_index(&self) -> Option<&dyn DynUserIndex> {
        None
    }

    /// [`load`](Self::load), past whatever keeps records in between. Default: `load` itself, which is
    /// right for a store that keeps none; a cache before a store overrides it.
    fn load_latest(
        &self,
        key: &StoreKey,
    ) -> impl Future<Output = Result<Option<Record>, StoreError>> + Send {
        self.load(key)
    }

    /// Waits until the record under `key` may have changed or ended, from the first poll of the future
    /// on; it may end for no reason, and then the record is looked at once more. Default: never ends,
    /// which is right for a store that hears of nothing.
    ///
    /// # Cancellation
    ///
    /// Nothing happens if the future is dropped.
    fn next_change(&self, key: &StoreKey) -> impl Future<Output = ()> + Send {
        let _ = key;
        std::future::pending()
    }
}

/// A store behind an [`Arc`] is a store, so that an application can keep a handle of its own.
impl<S: Store> Store for Arc<S> {
    async fn load(&self, key: &StoreKey) -> Result<Option<Record>, StoreError> {
        (**self).load(key).await
    }

    async fn create(&self, key: &StoreKey, record: &Record) -> Result<Created, StoreError> {
        (**self).create(key, record).await
    }

    async fn replace(
        &self,
        key: &StoreKey,
        record: &Record,
        based_on: u64,
    ) -> Result<Replaced, StoreError> {
        (**self).replace(key, record, based_on).await
    }

    async fn touch(&self, key: &StoreKey, expires_at: SystemTime) -> Result<(), StoreError> {
        (**self).touch(key, expires_at).await
    }

    async fn delete(&self, key: &StoreKey) -> Result<bool, StoreError> {
        (**self).delete(key).await
    }

    async fn delete_version(&self, key: &StoreKey, version: u64) -> Result<bool, StoreError> {
        (**self).delete_version(key, version).await
    }

    fn user_index(&self) -> Option<&dyn DynUserIndex> {
        (**self).user_index()
    }

    async fn load_latest(&self, key: &StoreKey) -> Result<Option<Record>, StoreError> {
        (**self).load_latest(key).await
    }

    async fn next_change(&self, key: &StoreKey) {
        (**self).next_change(key).await;
    }
}

/// What [`Store::create`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a key that is taken has not been written"]
pub enum Created {
    /// The record is kept.
    Done,
    /// The key is in use; nothing was written.
    Exists,
}

/// What [`Store::replace`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "unless `Done`, nothing was written"]
pub enum Replaced {
    /// The record is kept.
    Done,
    /// Another process saved in the meantime: the version is another. Nothing was written.
    Changed,
    /// There is no such record (any more). Nothing was written.
    Missing,
}

/// A store that does not forget expired records by itself.
///
/// [`ExpirySweep`] calls it on a schedule.
pub trait DeleteExpired: Send + Sync + 'static {
    /// Removes up to `batch` records that have expired, and says how many it removed. Fewer than
    /// `batch` means that none was left.
    ///
    /// Any number of processes may call it at the same time. A future that is dropped may have
    /// removed a batch or not; no record is ever removed in part.
    fn delete_expired(&self, batch: u32) -> impl Future<Output = Result<u64, StoreError>> + Send;
}

/// A store that can tell the sessions of a user: the sessions whose record's [`user`](Record::user) it is. It
/// says so by [`Store::user_index`].
///
/// A user of the application stands in a record with the [name of the session's
/// type](macro@crate::Session#the-name-of-the-type) in front, as in `Customer:7`, and with a tenant, if the
/// layer's keys are [one's](crate::Keys::for_tenant), as in `Customer@teapots.example:7`: users of two
/// types are two users.
///
/// What it answers is what is true when it looks. A session that begins while it looks may be
/// missing. One that exchanges its id meanwhile is created under the new one before the record under the old one
/// has no user any more: an index that reads the keys first, and then each record, has to read the keys again if it
/// has not found one of these.
pub trait UserIndex: Store {
    /// The live sessions of `user`, in no particular order.
    fn sessions_of(
        &self,
        user: &str,
    ) -> impl Future<Output = Result<Vec<(StoreKey, Record)>, StoreError>> + Send;

    /// Ends the live sessions of `user`, all but the one under `except`, and says how many.
    ///
    /// If it fails, or its future is dropped, some of them may have ended. Unless a store knows a
    /// quicker way they are listed, and deleted one by one.
    fn delete_sessions_of(
        &self,
        user: &str,
        except: Option<&StoreKey>,
    ) -> impl Future<Output = Result<u64, StoreError>> + Send {
        async move {
            let mut deleted = 0;
            for (key, _) in self.sessions_of(user).await? {
                if Some(&key) != except && self.delete(&key).await? {
                    deleted += 1;
                }
            }
            Ok(deleted)
        }
    }
}

impl<S: DeleteExpired> DeleteExpired for Arc<S> {
    async fn delete_expired(&self, batch: u32) -> Result<u64, StoreError> {
        (**self).delete_expired(batch).await
    }
}

impl<S: UserIndex> UserIndex for Arc<S> {
    async fn sessions_of(&self, user: &str) -> Result<Vec<(StoreKey, Record)>, StoreError> {
        (**self).sessions_of(user).await
    }

    async fn delete_sessions_of(
        &self,
        user: &str,
        except: Option<&StoreKey>,
    ) -> Result<u64, StoreError> {
        (**self).delete_sessions_of(user, except).await
    }
}
