//! A cache in front of a store: which of the two is asked, and when the cache forgets.
//!
//! An entry of the cache is a record whose payload is the session's own record, packed, behind the number of the call
//! that has brought it: the entry expires when that is too old to be served. Which numbers may be served and kept
//! decides [`Trust`].
//!
//! ```text
//! load ──found, with a good number──► the record
//!   └──else──► trust.read ──► L2.load ──found, nothing changed meanwhile──► kept
//! create, replace, touch, delete ──► trust.write ──► L2 ──answered──► what is there is refused ──► kept, or taken out
//!                                                    └──dropped──► what is there is refused
//! ```

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, SystemTime},
};

use crate::{clock::Clock, identity::id::StoreKey, record::Record};
use crate::{
    error::store::StoreError,
    store::{
        Created, DeleteExpired, DynUserIndex, Replaced, Store, UserIndex,
        erased::index_behind,
        packed::{pack, unpack},
        wrap::trust::{Call, Trust},
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
/// takes the record out of the cache, so that the next `load` sees the newer one.
///
/// What this process has written or ended it sees as soon as the call is done, whatever other calls of
/// the session are on their way, whatever `L1` forgets, and whether `L1` fails. A session that has ended
/// is looked for in `L2` each time.
///
/// # Errors
///
/// The errors of `L2`. An `L1` that fails is logged, and done without.
///
/// # Cancellation
///
/// After a write that was dropped, or that `L2` has failed, the next `load` goes to `L2`. If `L2` carries
/// the write out later than that, it is seen as one of another process is: after at most the staleness.
pub struct Cached<L1, L2> {
    shared: Arc<Shared<L1, L2>>,
}

struct Shared<L1, L2> {
    l1: L1,
    l2: L2,
    staleness: Duration,
    clock: Clock,
    trust: Trust,
    hits: AtomicU64,
    misses: AtomicU64,
}

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
        let (trust, hits, misses) = Default::default();
        Cached { shared: Arc::new(Shared { l1, l2, staleness, clock, trust, hits, misses }) }
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
    /// Puts `l1` in front of `l2`. A record is taken from the cache for at most `staleness`, counted from before `l2`
    /// was asked for it or told it.
    ///
    /// With `Duration::MAX` it is taken from there until it expires, or `l1` forgets it. What another process does is
    /// not seen until then, a logout included, so that is for a process that shares `l2` with no other. It is also for
    /// an `l2` alone that does what it is told before it answers, or never: a [`MemoryStore`](crate::MemoryStore), or
    /// a file. A server may carry out a write after the call has failed or was dropped, or come back from a restart
    /// without its latest writes. Before a server, choose some seconds or minutes, also for one process.
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
    fn entry(&self, record: &Record, number: u64, seen: SystemTime) -> Record {
        // `None` if no clock will ever show that time.
        let stale_at = seen.checked_add(self.shared.staleness);
        Record {
            version: record.version,
            created_at: seen,
            expires_at: stale_at.map_or(record.expires_at, |at| at.min(record.expires_at)),
            user: None,
            payload: [&number.to_be_bytes(), &pack(record)[..]].concat().into(),
        }
    }

    /// The record in an entry, if it may be served.
    fn served(&self, key: &StoreKey, entry: &Record) -> Option<Record> {
        let (number, packed) = entry.payload.split_first_chunk()?;
        let is_good = self.shared.trust.is_good(key, u64::from_be_bytes(*number));
        is_good.then(|| unpack(packed)).flatten()
    }

    /// A call of `L2` that changes the record. `written` is what is there after such an answer, if that is known.
    async fn write<'r, T>(
        &self,
        key: &StoreKey,
        call: impl Future<Output = Result<T, StoreError>>,
        written: impl FnOnce(&T) -> Option<&'r Record>,
    ) -> Result<T, StoreError> {
        let write = self.shared.trust.write(key);
        // The time before the call: however long it takes, what it brings is as old as that.
        let seen = self.shared.clock.now();
        let answer = call.await;
        self.settle(key, write, answer.as_ref().ok().and_then(written), seen).await;
        answer
    }

    /// The call is done in `L2`: from here on the cache serves this record, or one that is newer, or none.
    async fn settle(
        &self,
        key: &StoreKey,
        mut call: Call<'_>,
        record: Option<&Record>,
        seen: SystemTime,
    ) {
        let Shared { l1, .. } = &*self.shared;
        if let Some(record) = record
            && let Some(keeping) = call.may_keep(record.user.is_some())
        {
            let entry = self.entry(record, keeping.number, seen);
            let gives_way = |found: &Record| {
                found.version < record.version || self.served(key, found).is_none()
            };
            let is_kept = note(put_if(l1, key, &entry, gives_way).await).unwrap_or_default();
            if is_kept && call.confirm(keeping) {
                return;
            }
        }
        let refused = call.refuse();
        if note(l1.delete(key).await).is_some() {
            call.removed(refused);
        }
    }
}

/// How often other calls may be faster before the cache does without the record.
const TRIES: u32 = 8;

/// Keeps `record` unless something is there that does not give way. False if neither is so in the end.
async fn put_if(
    cache: &impl Store,
    key: &StoreKey,
    record: &Record,
    gives_way: impl Fn(&Record) -> bool,
) -> Result<bool, StoreError> {
    for _ in 0..TRIES {
        let is_kept = match cache.load(key).await? {
            None => cache.create(key, record).await? == Created::Done,
            Some(found) if gives_way(&found) => {
                cache.replace(key, record, found.version).await? == Replaced::Done
            }
            Some(_) => true,
        };
        if is_kept {
            return Ok(true);
        }
    }
    Ok(false)
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
        let entry = note(shared.l1.load(key).await).flatten();
        if let Some(record) = entry.and_then(|entry| self.served(key, &entry)) {
            shared.hits.fetch_add(1, Relaxed);
            return Ok(Some(record));
        }
        shared.misses.fetch_add(1, Relaxed);
        self.load_latest(key).await
    }

    async fn load_latest(&self, key: &StoreKey) -> Result<Option<Record>, StoreError> {
        let shared = &*self.shared;
        let read = shared.trust.read(key);
        let seen = shared.clock.now();
        let found = shared.l2.load_latest(key).await?;
        self.settle(key, read, found.as_ref(), seen).await;
        Ok(found)
    }

    async fn create(&self, key: &StoreKey, record: &Record) -> Result<Created, StoreError> {
        let call = self.shared.l2.create(key, record);
        self.write(key, call, |created| (*created == Created::Done).then_some(record)).await
    }

    async fn replace(
        &self,
        key: &StoreKey,
        record: &Record,
        based_on: u64,
    ) -> Result<Replaced, StoreError> {
        let call = self.shared.l2.replace(key, record, based_on);
        self.write(key, call, |replaced| (*replaced == Replaced::Done).then_some(record)).await
    }

    async fn next_change(&self, key: &StoreKey) {
        self.shared.l2.next_change(key).await;
    }

    async fn touch(&self, key: &StoreKey, expires_at: SystemTime) -> Result<(), StoreError> {
        // What is there then is known to `L2` alone.
        self.write(key, self.shared.l2.touch(key, expires_at), |()| None).await
    }

    async fn delete(&self, key: &StoreKey) -> Result<bool, StoreError> {
        self.write(key, self.shared.l2.delete(key), |_| None).await
    }

    async fn delete_version(&self, key: &StoreKey, version: u64) -> Result<bool, StoreError> {
        self.write(key, self.shared.l2.delete_version(key, version), |_| None).await
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
        let Shared { l2, trust, clock, .. } = &*self.shared;
        let _ending = trust.end_of_user();
        let index = index_behind(l2, "cached", "delete_sessions_of")?;
        let mut found = index.dyn_sessions_of(user).await?;
        found.retain(|(key, _)| Some(key) != except);
        let writes: Vec<Call<'_>> = found.iter().map(|(key, _)| trust.write(key)).collect();
        let deleted = index.dyn_delete_sessions_of(user, except).await;
        for ((key, _), write) in found.iter().zip(writes) {
            self.settle(key, write, None, clock.now()).await;
        }
        deleted
    }
}
