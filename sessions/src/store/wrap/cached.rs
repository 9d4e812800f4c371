//! A cache in front of a store: which of the two is asked, and when the cache forgets.
//!
//! An entry of the cache is a record whose payload is the session's own record, packed: the entry expires when that
//! is too old to be served. A save takes the entry out before the store is asked. An end leaves a tombstone, whose
//! version no entry reaches that a slow `load` brings later.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, SystemTime},
};

use tokio::sync::RwLock;

use crate::{clock::Clock, identity::id::StoreKey, record::Record};
use crate::{
    error::store::StoreError,
    store::{
        Created, DeleteExpired, DynUserIndex, Replaced, Store, UserIndex,
        erased::index_behind,
        packed::{pack, unpack},
        wrap::upsert::{put_always, put_newer},
    },
};

/// A cache in front of a store: `L1` in this process, `L2` for all.
///
/// ```
/// # #[cfg(feature = "memory")] {
/// use std::time::Duration;
///
/// use sessions::{MemoryStore, Store, store::Cached};
///
/// fn cached(remote: impl Store) -> impl Store {
///     let cache = MemoryStore::builder().with_capacity(10_000).build();
///     Cached::new(cache, remote, Duration::from_secs(2))
/// }
/// # }
/// ```
///
/// A `load` is answered from the cache if it has the record, and goes to `L2` otherwise. Whatever
/// writes goes to `L2` at once. `L1`'s capacity bounds the memory. Clones share everything.
///
/// # What is given up
///
/// What *another process* has changed or ended is seen after at most the staleness that
/// [`new`](Self::new) was told; without a cache it is seen by the next request. That includes a
/// logout: keep the staleness as short as you would want a stolen session to live on. Nothing is
/// ever *written* on the ground of an old record: the compare-and-swap is `L2`'s, and one that fails
/// takes the record out of the cache, so that the next `load` sees the newer one. What this process
/// has written or ended it sees at once.
///
/// # Errors
///
/// The errors of `L2`. An `L1` that fails is logged, and done without.
pub struct Cached<L1, L2> {
    shared: Arc<Shared<L1, L2>>,
}

struct Shared<L1, L2> {
    l1: L1,
    l2: L2,
    staleness: Duration,
    clock: Clock,
    /// Read while a session begins, written while all of a user's end.
    beginnings: RwLock<()>,
    hits: AtomicU64,
    misses: AtomicU64,
}

/// Longer than any process runs: a hundred years.
const FOR_EVER: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// The settings of a [`Cached`] store.
#[derive(Debug)]
#[must_use = "a builder does nothing until `build` is called"]
pub struct CachedBuilder<L1, L2> {
    l1: L1,
    l2: L2,
    staleness: Duration,
    clock: Clock,
}

impl<L1: Store, L2: Store> CachedBuilder<L1, L2> {
    /// Another clock than the system's, to test staleness without waiting; `l1` needs the same.
    #[cfg(feature = "testing")]
    pub fn with_clock(mut self, clock: &crate::clock::ManualClock) -> Self {
        self.clock = clock.clock();
        self
    }

    /// The store.
    pub fn build(self) -> Cached<L1, L2> {
        let Self { l1, l2, staleness, clock } = self;
        let (beginnings, hits, misses) = Default::default();
        Cached { shared: Arc::new(Shared { l1, l2, staleness, clock, beginnings, hits, misses }) }
    }
}

/// How often a [`Cached`] store had the record: [`Cached::stats`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CachedStats {
    /// Loads that the cache answered.
    pub hits: u64,
    /// Loads that went to the store behind it.
    pub misses: u64,
}

impl<L1: Store, L2: Store> Cached<L1, L2> {
    /// Puts `l1` in front of `l2`. A record is taken from the cache for at most `staleness`; with
    /// `Duration::MAX` until it expires, which is right for a process that shares `l2` with no other.
    ///
    /// `l1` must be this process's own, and used for nothing else.
    pub fn new(l1: L1, l2: L2, staleness: Duration) -> Self {
        Self::builder(l1, l2, staleness).build()
    }

    /// For a cache with other settings; the arguments are the same as of [`new`](Self::new).
    pub fn builder(l1: L1, l2: L2, staleness: Duration) -> CachedBuilder<L1, L2> {
        CachedBuilder { l1, l2, staleness, clock: Clock::System }
    }

    /// How often the cache had the record.
    pub fn stats(&self) -> CachedStats {
        CachedStats {
            hits: self.shared.hits.load(Relaxed),
            misses: self.shared.misses.load(Relaxed),
        }
    }

    /// What the cache keeps of `record`, as it was at `seen`. The record itself is in the payload,
    /// because the cache forgets it earlier than it expires.
    fn entry(&self, record: &Record, seen: SystemTime) -> Record {
        Record {
            version: record.version,
            created_at: seen,
            expires_at: self
                .stale_at(seen)
                .map_or(record.expires_at, |at| at.min(record.expires_at)),
            user: None,
            payload: pack(record).into(),
        }
    }

    /// Says that a session has ended: newer than whatever a `load` that began before may still
    /// bring.
    fn tombstone(&self) -> Record {
        let seen = self.shared.clock.now();
        Record {
            version: u64::MAX,
            created_at: seen,
            expires_at: self.stale_at(seen).unwrap_or(seen + FOR_EVER),
            user: None,
            payload: [].into(),
        }
    }

    /// `None` if no clock will ever show that time.
    fn stale_at(&self, seen: SystemTime) -> Option<SystemTime> {
        seen.checked_add(self.shared.staleness)
    }

    async fn evict(&self, key: &StoreKey) {
        note(self.shared.l1.delete(key).await);
    }

    async fn bury(&self, key: &StoreKey) {
        note(put_always(&self.shared.l1, key, &self.tombstone()).await);
    }
}

/// A cache that fails costs speed, and nothing else.
fn note<R>(outcome: Result<R, StoreError>) -> Option<R> {
    outcome.inspect_err(|error| tracing::warn!(%error, "the cache of sessions failed")).ok()
}

impl<L1, L2> Clone for Cached<L1, L2> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

impl<L1: fmt::Debug, L2: fmt::Debug> fmt::Debug for Cached<L1, L2> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cached")
            .field("l1", &self.shared.l1)
            .field("l2", &self.shared.l2)
            .field("staleness", &self.shared.staleness)
            .field("hits", &self.shared.hits)
            .field("misses", &self.shared.misses)
            .finish()
    }
}

impl<L1: Store, L2: Store> Store for Cached<L1, L2> {
    async fn load(&self, key: &StoreKey) -> Result<Option<Record>, StoreError> {
        let shared = &*self.shared;
        if let Some(entry) = note(shared.l1.load(key).await).flatten() {
            if entry.payload.is_empty() {
                shared.hits.fetch_add(1, Relaxed);
                return Ok(None);
            }
            if let Some(record) = unpack(&entry.payload) {
                shared.hits.fetch_add(1, Relaxed);
                return Ok(Some(record));
            }
        }
        shared.misses.fetch_add(1, Relaxed);
        self.load_latest(key).await
    }

    async fn load_latest(&self, key: &StoreKey) -> Result<Option<Record>, StoreError> {
        let shared = &*self.shared;
        // The time before the call: however long it takes, what it brings is as old as that.
        let seen = shared.clock.now();
        let found = shared.l2.load_latest(key).await?;
        if let Some(record) = &found {
            note(put_newer(&shared.l1, key, &self.entry(record, seen)).await);
        }
        Ok(found)
    }

    async fn create(&self, key: &StoreKey, record: &Record) -> Result<Created, StoreError> {
        let _begins = self.shared.beginnings.read().await;
        // A tombstone from before; one that comes from here on says that this session has ended.
        self.evict(key).await;
        let seen = self.shared.clock.now();
        let created = self.shared.l2.create(key, record).await?;
        if created == Created::Done {
            note(put_newer(&self.shared.l1, key, &self.entry(record, seen)).await);
        }
        Ok(created)
    }

    async fn replace(
        &self,
        key: &StoreKey,
        record: &Record,
        based_on: u64,
    ) -> Result<Replaced, StoreError> {
        // Before, so that a call that fails or is dropped leaves nothing old behind.
        self.evict(key).await;
        let seen = self.shared.clock.now();
        let replaced = self.shared.l2.replace(key, record, based_on).await?;
        match replaced {
            Replaced::Done => {
                note(put_newer(&self.shared.l1, key, &self.entry(record, seen)).await);
            }
            Replaced::Changed => self.evict(key).await,
            Replaced::Missing => self.bury(key).await,
        }
        Ok(replaced)
    }

    async fn next_change(&self, key: &StoreKey) {
        self.shared.l2.next_change(key).await;
    }

    async fn touch(&self, key: &StoreKey, expires_at: SystemTime) -> Result<(), StoreError> {
        self.shared.l2.touch(key, expires_at).await?;
        // What it has now is known to `L2` alone.
        self.evict(key).await;
        Ok(())
    }

    async fn delete(&self, key: &StoreKey) -> Result<bool, StoreError> {
        self.bury(key).await;
        let deleted = self.shared.l2.delete(key).await;
        // Again: a `create` may have come in between. And if it failed, the session may live on.
        match &deleted {
            Ok(_) => self.bury(key).await,
            Err(_) => self.evict(key).await,
        }
        deleted
    }

    fn user_index(&self) -> Option<&dyn DynUserIndex> {
        self.shared.l2.user_index().map(|_| self as _)
    }
}

impl<L1: Store, L2: Store + DeleteExpired> DeleteExpired for Cached<L1, L2> {
    async fn delete_expired(&self, batch: u32) -> Result<u64, StoreError> {
        self.shared.l2.delete_expired(batch).await
    }
}

/// If `L2` is one: else each call is an error.
impl<L1: Store, L2: Store> UserIndex for Cached<L1, L2> {
    async fn sessions_of(&self, user: &str) -> Result<Vec<(StoreKey, Record)>, StoreError> {
        index_behind(&self.shared.l2, "cached", "sessions_of")?.dyn_sessions_of(user).await
    }

    async fn delete_sessions_of(
        &self,
        user: &str,
        except: Option<&StoreKey>,
    ) -> Result<u64, StoreError> {
        // No session begins between the look and the end, of which the cache would not hear.
        let _ends = self.shared.beginnings.write().await;
        let index = index_behind(&self.shared.l2, "cached", "delete_sessions_of")?;
        let mut found = index.dyn_sessions_of(user).await?;
        found.retain(|(key, _)| Some(key) != except);
        // As `delete` does it, for each.
        for (key, _) in &found {
            self.bury(key).await;
        }
        let deleted = index.dyn_delete_sessions_of(user, except).await;
        for (key, _) in &found {
            match &deleted {
                Ok(_) => self.bury(key).await,
                Err(_) => self.evict(key).await,
            }
        }
        deleted
    }
}
