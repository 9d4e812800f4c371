//! All that a store keeps, for an operator.

use std::{ops::ControlFlow, sync::Arc};

use super::Store;
use crate::{error::store::StoreError, identity::id::StoreKey, record::Record};

/// A store that can go through all of its sessions: [`MemoryStore`](crate::MemoryStore),
/// [`RedisStore`](crate::RedisStore) (which needs `+scan` for it), the SQL stores, and a
/// [`NearCache`](crate::store::NearCache) before one. memcached cannot.
///
/// For an operator, not for requests: it reads the whole store. An application keeps a clone of the store
/// that it gives to its layer.
///
/// ```
/// # #[cfg(feature = "memory")]
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), sessions::StoreError> {
/// use std::time::SystemTime;
///
/// use sessions::{MemoryStore, store::AllSessions};
///
/// let store = MemoryStore::new();
/// let stats = store.count().await?;
/// println!("{} sessions, {} logged in, {} bytes", stats.sessions, stats.logged_in, stats.bytes);
///
/// // After an incident: everybody who has logged in as a `Customer` until now logs in again.
/// let until = SystemTime::now();
/// let ended = store.delete_matching(|_, record| {
///     let is_customer = record.user.as_deref().is_some_and(|user| user.starts_with("Customer:"));
///     is_customer && record.created_at <= until
/// });
/// println!("{} ended", ended.await?);
/// # Ok(())
/// # }
/// # #[cfg(not(feature = "memory"))]
/// # fn main() {}
/// ```
///
/// A [`Record`] says when a session was begun (or its user logged in), when it expires, and whose it is:
/// [`UserIndex`](crate::UserIndex) has how a user is written there. For some seconds the record of a session
/// that was renewed is there as well, without a user.
pub trait AllSessions: Store {
    /// Shows each live session to `visit`, in no particular order, until it breaks off.
    ///
    /// A session that is there from the beginning to the end is seen, once; in Redis perhaps twice, if
    /// so many others end meanwhile that the server makes its tables smaller. One that begins or ends
    /// meanwhile may be seen or not.
    ///
    /// # Errors
    ///
    /// Those of the store's `load`; some sessions have been shown then.
    fn for_each(
        &self,
        visit: impl FnMut(StoreKey, Record) -> ControlFlow<()> + Send,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Counts the live sessions. Unless a store knows better each of them is read.
    ///
    /// # Errors
    ///
    /// Those of [`for_each`](Self::for_each).
    fn count(&self) -> impl Future<Output = Result<SessionStats, StoreError>> + Send {
        async {
            let mut stats = SessionStats::default();
            let count = |_, record: Record| {
                stats.sessions += 1;
                stats.logged_in += u64::from(record.user.is_some());
                stats.bytes += record.payload.len() as u64;
                ControlFlow::Continue(())
            };
            self.for_each(count).await?;
            Ok(stats)
        }
    }

    /// Ends the sessions that match, in every process, and says how many: as
    /// [`Store::delete`] does, whatever is written to them meanwhile. Goes through the store until it finds
    /// no more of them, at most ten times.
    ///
    /// # Errors
    ///
    /// Those of [`for_each`](Self::for_each) and `delete`. If it fails, or its future is dropped, some of
    /// them may have ended.
    fn delete_matching(
        &self,
        mut matches: impl FnMut(&StoreKey, &Record) -> bool + Send,
    ) -> impl Future<Output = Result<u64, StoreError>> + Send {
        /// A user who logs in all the time cannot hold us up for ever.
        const MOST_ROUNDS: u32 = 10;
        async move {
            let mut ended = 0;
            for _ in 0..MOST_ROUNDS {
                let mut found = Vec::new();
                let note = |key, record: Record| {
                    if matches(&key, &record) {
                        found.push(key);
                    }
                    ControlFlow::Continue(())
                };
                self.for_each(note).await?;
                if found.is_empty() {
                    break;
                }
                for key in found {
                    ended += u64::from(self.delete(&key).await?);
                }
            }
            Ok(ended)
        }
    }
}

/// How many sessions there are: from [`AllSessions::count`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SessionStats {
    /// Live sessions.
    pub sessions: u64,
    /// Those with a logged-in user.
    pub logged_in: u64,
    /// The bytes of their payloads.
    pub bytes: u64,
}

impl<S: AllSessions> AllSessions for Arc<S> {
    async fn for_each(
        &self,
        visit: impl FnMut(StoreKey, Record) -> ControlFlow<()> + Send,
    ) -> Result<(), StoreError> {
        (**self).for_each(visit).await
    }

    async fn count(&self) -> Result<SessionStats, StoreError> {
        (**self).count().await
    }
}
