//! A connection that is made anew as soon as the server behind it may not be the right one any more:
//! it is gone, or it takes no writes. The client's own manager would keep the second kind for ever,
//! and keeps an error of the first kind for the next call.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use redis::{AsyncConnectionConfig, Client, RedisError, RedisResult, aio::MultiplexedConnection};
use tokio::time::timeout;

use super::{
    QUEUE, WRITES,
    connection::{Call, Work, is_demotion},
    tracking::{News, Tracked, Tracking},
};
#[cfg(feature = "redis-cluster")]
use crate::store::watch::Feed;

/// How old a connection is at least when it is given up because its server takes no writes: while
/// every server says so, calls shall not connect again and again.
pub(super) const PATIENCE: Duration = Duration::from_millis(100);

/// How long a connection is used on which the server, as it was just then, could not be asked to tell what
/// changes: before another one is tried. Twice as long after each one that was no better.
const RETRY: Duration = Duration::from_secs(1);
const LONGEST_RETRY: Duration = Duration::from_secs(60);

/// Where to find the server.
pub(super) enum Source {
    /// At an address, which may lead to another server each time.
    Address(Client),
    #[cfg(feature = "redis-sentinel")]
    Sentinels(redis::sentinel::SentinelClient),
}

pub(super) struct Managed {
    shared: Arc<Shared>,
    pub(super) kind: &'static str,
}

struct Shared {
    /// Locked by the call that connects; the other calls wait for what it finds.
    source: tokio::sync::Mutex<Source>,
    current: Mutex<Current>,
    timeout: Duration,
    /// Who wants to know what changes, if anybody does.
    tracking: Mutex<Option<Arc<Tracking>>>,
}

#[derive(Default)]
struct Current {
    open: Option<Open>,
    /// How many there were, so that an error of an old one does not end its successor.
    number: u64,
    since: Option<Instant>,
    /// How many in a row were to be tried again.
    retries: u32,
}

/// A connection that is in use.
#[derive(Clone)]
struct Open {
    connection: MultiplexedConnection,
    number: u64,
    /// If the server tells on it what changes.
    news: Option<News>,
    /// When another connection may tell more.
    retry_at: Option<Instant>,
}

impl Current {
    /// The one that is open, unless it is time to try another.
    fn usable(&mut self) -> Option<Open> {
        if self.open.as_ref()?.retry_at.is_some_and(|at| at <= Instant::now()) {
            self.leave();
        }
        self.open.clone()
    }

    /// Calls that are under way on it keep it until they are answered; what was read on it is told
    /// no changes of any more.
    fn leave(&mut self) {
        if let Some(Open { news: Some(news), .. }) = self.open.take() {
            news.feed.end();
        }
    }
}

impl Managed {
    /// Connects by the first use.
    pub(super) fn new(source: Source, timeout: Duration) -> Self {
        let kind = match &source {
            Source::Address(_) => "single",
            #[cfg(feature = "redis-sentinel")]
            Source::Sentinels(_) => "sentinel",
        };
        let source = tokio::sync::Mutex::new(source);
        let (current, tracking) = Default::default();
        Self { shared: Arc::new(Shared { source, current, timeout, tracking }), kind }
    }

    /// Has the server tell what changes, on every connection from here on.
    pub(super) fn track(&self, tracking: Tracking) {
        *self.shared.tracking() = Some(Arc::new(tracking));
        self.shared.lock().leave();
    }

    /// Whether this feed tells what comes on the connection that is open.
    #[cfg(feature = "redis-cluster")]
    pub(super) fn has_feed(&self, feed: &Feed) -> bool {
        let current = self.shared.lock();
        let news = current.open.as_ref().and_then(|open| open.news.as_ref());
        news.is_some_and(|news| news.feed.is(feed))
    }

    /// Does `work` on the connection. After an error that another server may cure, the next call
    /// connects again. In `call` is left what tells of the changes of what was read. `begun`: a moment before
    /// the work is sent.
    pub(super) async fn query<R, W: Work<R>>(
        &self,
        work: &W,
        call: &mut Call<'_>,
        begun: tokio::time::Instant,
    ) -> RedisResult<R> {
        let mut open = self.open().await?;
        // Before it is sent; of an earlier try nothing is expected any more.
        call.echo = open.news.as_ref().zip(call.saves).and_then(|(it, key)| it.expect_echo(key));
        match work.on(&mut open.connection).await.and_then(W::wanted) {
            Ok(answer) => {
                if let Some(news) = open.news {
                    news.feed.confirm(begun.into_std());
                    call.feed = Some(news.feed);
                }
                Ok(answer)
            }
            Err(error) => {
                call.echo = None;
                self.shared.forget_after(&error, open.number);
                Err(error)
            }
        }
    }

    async fn open(&self) -> RedisResult<Open> {
        let usable = self.shared.lock().usable();
        match usable {
            Some(open) => Ok(open),
            // Boxed, for it is rare.
            None => Box::pin(self.connect()).await,
        }
    }

    async fn connect(&self) -> RedisResult<Open> {
        // In a task of its own, because a call that gives up must not take the search with it:
        // with a short deadline no call would ever find the server.
        let shared = self.shared.clone();
        let search = tokio::spawn(async move { shared.search().await });
        match timeout(self.shared.timeout, search).await {
            Ok(Ok(found)) => found,
            Ok(Err(stopped)) => Err(io::Error::other(stopped).into()),
            Err(_) => Err(io::Error::from(io::ErrorKind::TimedOut).into()),
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tracking(&self) -> MutexGuard<'_, Option<Arc<Tracking>>> {
        self.tracking.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn forget_after(&self, error: &RedisError, number: u64) {
        let is_demoted = is_demotion(error);
        if !is_demoted && !error.is_unrecoverable_error() && !error.is_io_error() {
            return;
        }
        let mut current = self.lock();
        let is_young = current.since.is_some_and(|since| since.elapsed() < PATIENCE);
        if current.number == number && !(is_demoted && is_young) {
            current.leave();
        }
    }

    async fn search(&self) -> RedisResult<Open> {
        let mut source = self.source.lock().await;
        // Another call may have found it while this one waited.
        if let Some(open) = self.lock().usable() {
            return Ok(open);
        }
        let client = match &mut *source {
            Source::Address(client) => client.clone(),
            #[cfg(feature = "redis-sentinel")]
            Source::Sentinels(sentinels) => sentinels.async_get_client().await?,
        };
        let settings = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.timeout))
            .set_response_timeout(Some(self.timeout))
            .set_pipeline_buffer_size(QUEUE)
            .set_write_backpressure_boundary(WRITES);
        let tracking = self.tracking().clone();
        let Tracked { connection, news, may_tell_more } = match &tracking {
            Some(tracking) => tracking.connect(&client, settings).await?,
            None => {
                let connection = client.get_multiplexed_async_connection_with_config(&settings);
                Tracked { connection: connection.await?, news: None, may_tell_more: false }
            }
        };
        let mut current = self.lock();
        current.number += 1;
        let retry = RETRY.saturating_mul(1 << current.retries.min(10)).min(LONGEST_RETRY);
        current.retries = if may_tell_more { current.retries + 1 } else { 0 };
        let retry_at = may_tell_more.then(|| Instant::now() + retry);
        let open = Open { connection, number: current.number, news, retry_at };
        current.open = Some(open.clone());
        current.since = Some(Instant::now());
        Ok(open)
    }
}
