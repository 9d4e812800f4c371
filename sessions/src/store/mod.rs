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

use std::{error::Error as StdError, fmt, sync::Arc, time::SystemTime};

use crate::{Record, StoreKey};

pub(crate) mod erased;
#[cfg(feature = "memory")]
mod memory;
#[cfg(feature = "private-cookie")]
pub(crate) mod private_cookie;
pub(crate) mod timed;
#[cfg(feature = "memory")]
pub use memory::{MemoryStore, MemoryStoreBuilder, MemoryStoreStats};
#[cfg(feature = "private-cookie")]
pub use private_cookie::PrivateCookie;

/// Where sessions are kept.
///
/// Every method may be called at any time from any number of tasks and processes; each is atomic:
/// it happens as a whole or, as far as later calls can tell, not at all. The future of any method
/// may be dropped before it is done; the store may then have carried it out or not.
///
/// An expired record counts as absent in every method, from its very `expires_at` on.
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
    /// Somebody else saved in the meantime: the version is another. Nothing was written.
    Changed,
    /// There is no such record (any more). Nothing was written.
    Missing,
}

/// A store could not answer.
///
/// Says which store and which operation failed, and keeps the cause as its
/// [`source`](StdError::source).
#[derive(Debug)]
pub struct StoreError {
    store: &'static str,
    operation: &'static str,
    source: Box<dyn StdError + Send + Sync>,
}

impl StoreError {
    /// An error of `store` ("redis", "sqlite") in `operation` ("load", "replace").
    pub fn new(
        store: &'static str,
        operation: &'static str,
        source: impl Into<Box<dyn StdError + Send + Sync>>,
    ) -> Self {
        Self { store, operation, source: source.into() }
    }

    /// The store that failed.
    pub fn store(&self) -> &'static str {
        self.store
    }

    /// The operation that failed.
    pub fn operation(&self) -> &'static str {
        self.operation
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the {} store failed in `{}`", self.store, self.operation)
    }
}

impl StdError for StoreError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&*self.source)
    }
}
