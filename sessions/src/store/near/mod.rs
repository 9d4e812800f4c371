//! A cache of this process before a store that says what changes ([`Watch`]).
//!
//! `cache` has the records and decides which may be served; it knows no store. Here the store is asked, and each
//! read and write of it is noted in the cache before it begins: what the store tells meanwhile counts.
//!
//! ```text
//! load ──found, fresh──► the record
//!   └──else──► cache.read ──► store.load_watched ──nothing told meanwhile──► kept, with its feed
//! create, replace ──► cache.write (forgets) ──► store.…_watched ──Done, nothing told meanwhile──► kept
//! ```

use std::{
    error::Error as _,
    fmt,
    ops::ControlFlow,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::{runtime::Handle as Runtime, time::Instant};

use self::cache::{Cache, Found};
use super::{
    AllSessions, Created, DeleteExpired, DynUserIndex, Replaced, SessionStats, Store, UserIndex,
    erased::index_behind,
    watch::{Feed, Watch, Watcher},
};
use crate::{
    clock::{Clock, from_millis, to_millis},
    error::{BuildError, store::StoreError},
    identity::id::StoreKey,
    record::Record,
};

pub(crate) mod cache;

/// The store's name in errors.
const NAME: &str = "near cache";

/// Room for a session of some size, in bytes.
const LEAST_MEMORY: usize = 4096;

#[cfg(test)]
mod tests;

/// A cache of this process before a store that says what changes: a repeated read asks nobody, and shows
/// what other processes have written as soon as the server's word of it has arrived.
///
/// ```no_run
/// # #[cfg(feature = "redis")]
/// # async fn start() -> Result<(), Box<dyn std::error::Error>> {
/// use sessions::{RedisStore, store::NearCache};
///
/// let store = NearCache::new(RedisStore::connect("redis://redis.example").await?)?;
/// # Ok(())
/// # }
/// ```
///
/// Clones share everything. A store, with its clones, can have one near cache at a time.
///
/// # What is promised
///
/// A `load` may show a record that is older than the one in the store by the time that the server's word
/// of a change takes to arrive: in a data centre less than a millisecond. It is **never older than the
/// staleness**, one second unless [told otherwise](NearCacheBuilder::with_staleness), whatever happens:
/// the connection ends or stands still, the server dies, fails over, or forgets that this process has
/// read something. (While a virtual machine is suspended, its clock of intervals stands still: that time
/// does not count.) A record is served as long as the connection that it was read through has proved,
/// within the staleness, that all news before have arrived; every answer on it is such a proof, for all
/// records at once, and when nothing else is asked one small question in half a staleness is.
///
/// That is about what *other processes* have done. What this process has written or ended it sees at
/// once. And it is about reads: every save is the store's compare-and-swap, so that what is old never
/// becomes a lost write; a save that fails takes the record out of the cache, and the next look is the
/// store's. [`Session::reload`](crate::Session::reload) and
/// [`Session::update`](crate::Session::update) look past the cache where they have to.
///
/// A server that answers from old data itself, as a master does that is cut off and does not know yet
/// that there is another, is no help against that: then a record is as old as that server is, plus the
/// staleness.
///
/// # What it costs
///
/// Memory, up to [a limit](NearCacheBuilder::with_memory_limit); of sessions that were read once the
/// oldest go first. What the store needs of its server: see
/// [`RedisStore`](crate::RedisStore#near-cache) and [`PostgresStore`](crate::PostgresStore#near-cache). If the
/// server turns out not to say what changes, everything is loaded as without a cache, and the log has one
/// warning that says why.
///
/// # Other stores
///
/// [`Watch`] is the trait for them. For those that cannot say what changes there is
/// [`Cached`](crate::store::Cached), which is always as old as it was told it may be.
///
/// # Errors and cancellation
///
/// Those of the store. A write that is dropped takes the record out of the cache.
pub struct NearCache<S> {
    shared: Arc<Shared<S>>,
}

struct Shared<S> {
    store: S,
    cache: Arc<Cache>,
    clock: Clock,
}

/// What a [`NearCache`] has done so far, and what it holds: [`NearCache::stats`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct NearCacheStats {
    /// Loads that asked nobody.
    pub hits: u64,
    /// Loads that went to the store.
    pub misses: u64,
    /// Records that were taken out because they were changed, by whomever.
    pub changes: u64,
    /// Records that gave way to others.
    pub evictions: u64,
    /// How many records it holds.
    pub sessions: usize,
    /// What it takes for them, in bytes.
    pub bytes: usize,
}

impl<S: Watch> NearCache<S> {
    /// A near cache before `store`, with the defaults of [`builder`](Self::builder).
    ///
    /// # Errors
    ///
    /// Those of [`build`](NearCacheBuilder::build).
    pub fn new(store: S) -> Result<Self, BuildError> {
        NearCacheBuilder::default().build(store)
    }

    /// How often it had the record, and what it holds.
    pub fn stats(&self) -> NearCacheStats {
        self.shared.cache.stats()
    }

    async fn load_and_keep(&self, key: &StoreKey) -> Result<Option<Record>, StoreError> {
        let Shared { store, cache, .. } = &*self.shared;
        // Before the question, so that a change is heard of that comes before the answer.
        let read = cache.read(key);
        let (found, feed) = store.load_watched(key).await?;
        if let Some(record) = &found {
            let wants_news = feed.clone().filter(|feed| cache.wants_news(feed, Instant::now()));
            read.keep(record, feed);
            // Where an answer is no sign of life by itself.
            if let Some(feed) = wants_news {
                self.renew(&feed);
            }
        }
        Ok(found)
    }

    /// A hit needs a sign of life of this feed, for those that come after it.
    fn renew(&self, feed: &Feed) {
        let Some(asking) = feed.ask() else { return };
        let Ok(runtime) = Runtime::try_current() else { return };
        let shared = self.shared.clone();
        runtime.spawn(async move { shared.store.renew(&asking.0).await });
    }
}

impl NearCache<()> {
    /// To set the staleness and the limits.
    ///
    /// ```no_run
    /// # #[cfg(feature = "redis")]
    /// # async fn start() -> Result<(), Box<dyn std::error::Error>> {
    /// use std::time::Duration;
    ///
    /// use sessions::{RedisStore, store::NearCache};
    ///
    /// let store = NearCache::builder()
    ///     .with_staleness(Duration::from_millis(200))
    ///     .with_memory_limit(16 << 20)
    ///     .build(RedisStore::connect("redis://redis.example").await?)?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn builder() -> NearCacheBuilder {
        NearCacheBuilder::default()
    }
}

/// Makes a [`NearCache`]; from [`NearCache::builder`].
#[derive(Clone, Debug)]
#[must_use = "`build` makes the cache"]
pub struct NearCacheBuilder {
    staleness: Duration,
    capacity: usize,
    memory_limit: usize,
    clock: Clock,
}

impl Default for NearCacheBuilder {
    fn default() -> Self {
        Self {
            staleness: Duration::from_secs(1),
            capacity: 100_000,
            memory_limit: 64 << 20,
            clock: Clock::System,
        }
    }
}

impl NearCacheBuilder {
    /// How old a record may be at most, if the server's word of a change does not arrive: for so long a
    /// session that was ended elsewhere may go on to be read here. Default: one second. What it costs is one
    /// question in half that time, while there are requests.
    pub fn with_staleness(mut self, staleness: Duration) -> Self {
        self.staleness = staleness;
        self
    }

    /// How many sessions it holds at most. Default: 100,000.
    pub fn with_capacity(mut self, sessions: usize) -> Self {
        self.capacity = sessions;
        self
    }

    /// How many bytes it takes at most, its own bookkeeping included. Default: 64 MiB.
    pub fn with_memory_limit(mut self, bytes: usize) -> Self {
        self.memory_limit = bytes;
        self
    }

    /// Lets what it holds expire by a clock that a test sets by hand; the store should have it as well.
    /// The staleness is measured in tokio's time.
    #[cfg(feature = "testing")]
    pub fn with_clock(mut self, clock: &crate::clock::ManualClock) -> Self {
        self.clock = clock.clock();
        self
    }

    /// Puts the cache before `store`.
    ///
    /// # Errors
    ///
    /// A staleness or limit with which nothing would ever be served; a store that has a near cache already,
    /// or that cannot say what changes the way it was made, as a `RedisStore` on the application's own
    /// connection. The message says what to change.
    pub fn build<S: Watch>(self, store: S) -> Result<NearCache<S>, BuildError> {
        if self.staleness.is_zero() {
            return Err(BuildError::new(
                "the near cache's staleness is zero: nothing would ever be served; leave the cache out",
            ));
        }
        if self.capacity == 0 {
            return Err(BuildError::new(
                "the near cache has no room: its capacity is zero sessions",
            ));
        }
        if self.memory_limit < LEAST_MEMORY {
            return Err(BuildError::new(format!(
                "the near cache has no room: its memory limit is {} bytes; the least is {LEAST_MEMORY}",
                self.memory_limit
            )));
        }
        let cache = Arc::new(Cache::new(self.capacity, self.memory_limit, self.staleness));
        store.watch(&Watcher::new(&cache)).map_err(|error| {
            let why = error.source().map_or_else(|| error.to_string(), ToString::to_string);
            BuildError::new(format!("there can be no near cache before this store: {why}"))
        })?;
        Ok(NearCache { shared: Arc::new(Shared { store, cache, clock: self.clock }) })
    }
}

/// Stores round times to milliseconds: a record that was written is shown as one that was read.
fn as_stored(record: &Record) -> Record {
    let [created_at, expires_at] =
        [record.created_at, record.expires_at].map(|time| from_millis(to_millis(time)));
    Record { created_at, expires_at, ..record.clone() }
}

impl<S> Clone for NearCache<S> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

impl<S: fmt::Debug> fmt::Debug for NearCache<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NearCache")
            .field("store", &self.shared.store)
            .field("stats", &self.shared.cache.stats())
            .finish()
    }
}

impl<S: Watch> Store for NearCache<S> {
    async fn load(&self, key: &StoreKey) -> Result<Option<Record>, StoreError> {
        let Shared { cache, clock, .. } = &*self.shared;
        if let Found::Fresh(record, feed) = cache.find(key, Instant::now(), clock.now()) {
            if let Some(feed) = feed {
                self.renew(&feed);
            }
            return Ok(Some(record));
        }
        // In a box of its own, so that a hit, which asks nobody, takes no room for the question.
        Box::pin(self.load_and_keep(key)).await
    }

    async fn load_latest(&self, key: &StoreKey) -> Result<Option<Record>, StoreError> {
        self.load_and_keep(key).await
    }

    async fn next_change(&self, key: &StoreKey) {
        self.shared.cache.next_change(key).await;
    }

    async fn create(&self, key: &StoreKey, record: &Record) -> Result<Created, StoreError> {
        let write = self.shared.cache.write(key);
        let (created, feed) = self.shared.store.create_watched(key, record).await?;
        if created == Created::Done {
            write.keep(&as_stored(record), feed);
        }
        Ok(created)
    }

    async fn replace(
        &self,
        key: &StoreKey,
        record: &Record,
        based_on: u64,
    ) -> Result<Replaced, StoreError> {
        let write = self.shared.cache.write(key);
        let (replaced, feed) = self.shared.store.replace_watched(key, record, based_on).await?;
        if replaced == Replaced::Done {
            write.keep(&as_stored(record), feed);
        }
        Ok(replaced)
    }

    // What the store itself writes it tells.

    async fn touch(&self, key: &StoreKey, expires_at: SystemTime) -> Result<(), StoreError> {
        self.shared.store.touch(key, expires_at).await
    }

    async fn delete(&self, key: &StoreKey) -> Result<bool, StoreError> {
        self.shared.store.delete(key).await
    }

    async fn delete_version(&self, key: &StoreKey, version: u64) -> Result<bool, StoreError> {
        self.shared.store.delete_version(key, version).await
    }

    fn user_index(&self) -> Option<&dyn DynUserIndex> {
        self.shared.store.user_index()
    }
}

/// Of the store behind it.
impl<S: Watch + AllSessions> AllSessions for NearCache<S> {
    async fn for_each(
        &self,
        visit: impl FnMut(StoreKey, Record) -> ControlFlow<()> + Send,
    ) -> Result<(), StoreError> {
        self.shared.store.for_each(visit).await
    }

    async fn count(&self) -> Result<SessionStats, StoreError> {
        self.shared.store.count().await
    }
}

impl<S: Watch + DeleteExpired> DeleteExpired for NearCache<S> {
    async fn delete_expired(&self, batch: u32) -> Result<u64, StoreError> {
        self.shared.store.delete_expired(batch).await
    }
}

/// If the store is one: else each call is an error.
impl<S: Watch> UserIndex for NearCache<S> {
    async fn sessions_of(&self, user: &str) -> Result<Vec<(StoreKey, Record)>, StoreError> {
        index_behind(&self.shared.store, NAME, "sessions_of")?.dyn_sessions_of(user).await
    }

    async fn delete_sessions_of(
        &self,
        user: &str,
        except: Option<&StoreKey>,
    ) -> Result<u64, StoreError> {
        let index = index_behind(&self.shared.store, NAME, "delete_sessions_of")?;
        index.dyn_delete_sessions_of(user, except).await
    }
}
