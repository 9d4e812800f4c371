//! What a store that can say what changes has to say, and to whom.

use std::{
    fmt,
    sync::{
        Arc, Weak,
        atomic::{
            AtomicBool, AtomicU64,
            Ordering::{AcqRel, Acquire, Relaxed, Release},
        },
    },
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

use super::{
    Created, Replaced, Store,
    near::cache::{Cache, Told},
};
use crate::{clock::to_millis, error::store::StoreError, identity::id::StoreKey, record::Record};

/// A store that says when a record changes: what a [`NearCache`](crate::store::NearCache) needs.
///
/// A [`RedisStore`](crate::RedisStore) is one, and a [`PostgresStore`](crate::PostgresStore). A store of your
/// own becomes one with a source of news (a connection on which its server tells what has changed) and this
/// trait:
///
/// 1. [`watch`](Self::watch) keeps the [`Watcher`]. For each connection that brings news the store makes
///    a [`Feed`] with [`Watcher::feed`], and says there what arrives: [`changed`](Feed::changed) for a
///    key (or [`changed_to`](Feed::changed_to), if it is known to what), [`forget_all`](Feed::forget_all) if it
///    cannot be said which keys, [`end`](Feed::end) when the connection is over. A new connection gets a new
///    feed.
/// 2. [`load_watched`](Self::load_watched) is [`load`](Store::load), and names the feed that tells of
///    every change *after the moment at which the record was read*. If a change can slip between the read
///    and the beginning of the news, name none.
/// 3. **Proof that nothing is on its way.** [`Feed::confirm`] with a moment `t` says: whatever was
///    acknowledged to anybody before `t` has been told. A server that sends news and answers in order on
///    one connection proves that with every answer, for the moment at which the question was sent. A
///    cache serves nothing that was not confirmed within its staleness, so that a connection that stands
///    still costs speed, never truth. [`renew`](Self::renew) asks for such a proof.
/// 4. **What the store itself writes is told when the call returns**, also if it fails or is dropped:
///    hold what [`Watcher::around`] gives for the time of the call. That goes for every method that
///    writes, but for [`create_watched`](Self::create_watched) and
///    [`replace_watched`](Self::replace_watched), which name a feed instead.
///
/// Too much may always be told: a change that is none costs one `load`.
pub trait Watch: Store {
    /// Has `watcher` told of all changes from now on, until it is [closed](Watcher::is_closed).
    ///
    /// # Errors
    ///
    /// If there is a watcher already that is not closed, or if this store cannot tell the way it was made:
    /// the error's source says what to do, and stands in what
    /// [`build`](crate::store::NearCacheBuilder::build) of the cache gives.
    fn watch(&self, watcher: &Watcher) -> Result<(), StoreError>;

    /// [`load`](Store::load), and the feed that tells when what was found changes. Without a feed the
    /// record is not kept.
    ///
    /// # Cancellation
    ///
    /// As with `load`, nothing happens if the future is dropped.
    fn load_watched(
        &self,
        key: &StoreKey,
    ) -> impl Future<Output = Result<(Option<Record>, Option<Feed>), StoreError>> + Send;

    /// [`create`](Store::create), and the feed that tells of every change after this one. Unless a store
    /// knows better there is none, and the next `load` is one.
    fn create_watched(
        &self,
        key: &StoreKey,
        record: &Record,
    ) -> impl Future<Output = Result<(Created, Option<Feed>), StoreError>> + Send {
        async { Ok((self.create(key, record).await?, None)) }
    }

    /// [`replace`](Store::replace), and the feed that tells of every change after this one. Unless a
    /// store knows better there is none, and the next `load` is one.
    fn replace_watched(
        &self,
        key: &StoreKey,
        record: &Record,
        based_on: u64,
    ) -> impl Future<Output = Result<(Replaced, Option<Feed>), StoreError>> + Send {
        async move { Ok((self.replace(key, record, based_on).await?, None)) }
    }

    /// Asks the source of this feed for a sign of life that [confirms](Feed::confirm) it, or
    /// [ends](Feed::end) it. Called in the background, while nothing else is asked, at most twice in a
    /// cache's staleness.
    fn renew(&self, feed: &Feed) -> impl Future<Output = ()> + Send;
}

/// Who wants to know what changes in a store: given to [`Watch::watch`].
#[derive(Clone)]
pub struct Watcher {
    cache: Weak<Cache>,
}

impl Watcher {
    pub(super) fn new(cache: &Arc<Cache>) -> Self {
        Self { cache: Arc::downgrade(cache) }
    }

    /// A feed for one more connection that brings news. Until it is [confirmed](Feed::confirm) for the
    /// first time nothing that it names is served.
    pub fn feed(&self) -> Feed {
        Feed(Arc::new(Source {
            cache: self.cache.clone(),
            began: Instant::now(),
            confirmed: AtomicU64::new(NEVER),
            has_ended: AtomicBool::new(false),
            is_asked: AtomicBool::new(false),
        }))
    }

    /// Whether the cache is gone: nobody wants to know any more, and another watcher may take its place.
    pub fn is_closed(&self) -> bool {
        self.cache.strong_count() == 0
    }

    /// Says that the record under `key` changes while the value lives: a request that reads it from here on
    /// reads it in the store, and what was read while it lived is not kept.
    #[must_use = "it is to live until the call is over"]
    pub fn around(&self, key: &StoreKey) -> Around {
        let around = Around { cache: self.cache.clone(), key: *key };
        around.tell();
        around
    }
}

impl fmt::Debug for Watcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watcher").finish_non_exhaustive()
    }
}

/// A record is being changed: from [`Watcher::around`].
#[derive(Debug)]
pub struct Around {
    cache: Weak<Cache>,
    key: StoreKey,
}

impl Around {
    fn tell(&self) {
        if let Some(cache) = self.cache.upgrade() {
            cache.changed(&self.key);
        }
    }
}

impl Drop for Around {
    fn drop(&mut self) {
        self.tell();
    }
}

/// One source of news about a store's records, as a connection is: from [`Watcher::feed`]. Clones are
/// the same feed.
#[derive(Clone)]
pub struct Feed(Arc<Source>);

struct Source {
    /// Weak, for the cache has feeds beside its records.
    cache: Weak<Cache>,
    began: Instant,
    /// In nanoseconds since it began, and one; or [`NEVER`].
    confirmed: AtomicU64,
    has_ended: AtomicBool,
    /// Whether a sign of life is on its way.
    is_asked: AtomicBool,
}

/// Not confirmed so far.
const NEVER: u64 = 0;

impl Feed {
    /// The record under `key` may have changed, or is gone.
    pub fn changed(&self, key: &StoreKey) {
        if let Some(cache) = self.0.cache.upgrade() {
            cache.changed(key);
        }
    }

    /// The record under `key` has this version and expiry from now on, and was not changed otherwise since:
    /// for a source whose news say that much, in the order in which the changes were made. A cache that has
    /// just that record keeps it: what a process has written itself it need not load again.
    pub fn changed_to(&self, key: &StoreKey, version: u64, expires_at: SystemTime) {
        if let Some(cache) = self.0.cache.upgrade() {
            cache.changed_to(key, Told { version, expires_at: to_millis(expires_at) });
        }
    }

    /// Any record may have changed.
    pub fn forget_all(&self) {
        if let Some(cache) = self.0.cache.upgrade() {
            cache.clear();
        }
    }

    /// Everything that was acknowledged to anybody before the moment `sent` has been told here.
    /// By tokio's clock, which a test can pause: `tokio::time::Instant::now().into_std()`.
    pub fn confirm(&self, sent: std::time::Instant) {
        let since = Instant::from_std(sent).saturating_duration_since(self.0.began).as_nanos();
        let since = u64::try_from(since).unwrap_or(u64::MAX).saturating_add(1);
        self.0.confirmed.fetch_max(since, Relaxed);
    }

    /// No more news will come from here. What was read through this feed is not served any more.
    pub fn end(&self) {
        if self.0.has_ended.swap(true, AcqRel) {
            return;
        }
        if let Some(cache) = self.0.cache.upgrade() {
            cache.forget_feed(self);
        }
    }

    /// Whether [`end`](Self::end) was called.
    pub fn has_ended(&self) -> bool {
        self.0.has_ended.load(Acquire)
    }

    /// How long ago it was certain that everything has been told; nothing if it is not to be relied on.
    pub(super) fn age(&self, now: Instant) -> Option<Duration> {
        let confirmed = self.0.confirmed.load(Relaxed);
        if confirmed == NEVER || self.has_ended() {
            return None;
        }
        let confirmed = self.0.began.checked_add(Duration::from_nanos(confirmed - 1))?;
        Some(now.saturating_duration_since(confirmed))
    }

    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Whether the caller is the one who asks for a sign of life; until what it gets is dropped nobody
    /// else is.
    pub(super) fn ask(&self) -> Option<Asking> {
        let is_first = !self.0.is_asked.swap(true, AcqRel);
        is_first.then(|| Asking(self.clone()))
    }
}

impl fmt::Debug for Feed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Feed")
            .field("age", &self.age(Instant::now()))
            .field("has_ended", &self.has_ended())
            .finish()
    }
}

/// A sign of life of a feed is on its way.
pub(super) struct Asking(pub(super) Feed);

impl Drop for Asking {
    fn drop(&mut self) {
        self.0.0.is_asked.store(false, Release);
    }
}
