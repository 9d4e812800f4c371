//! A connection that is made anew as soon as the server behind it may not be the right one any more:
//! it is gone, or it takes no writes. The client's own manager would keep the second kind for ever,
//! and keeps an error of the first kind for the next call.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use redis::{AsyncConnectionConfig, Client, RedisError, RedisResult, aio::MultiplexedConnection};
use tokio::time::timeout;

use super::{QUEUE, WRITES, connection::is_demotion};

/// How old a connection is at least when it is given up because its server takes no writes: while
/// every server says so, calls shall not connect again and again.
pub(super) const PATIENCE: Duration = Duration::from_millis(100);

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
    /// Locked by the call that connects; the others wait for what it finds.
    source: tokio::sync::Mutex<Source>,
    current: Mutex<Current>,
    timeout: Duration,
}

#[derive(Default)]
struct Current {
    connection: Option<MultiplexedConnection>,
    /// Which one it is, so that an error of an old one does not end its successor.
    number: u64,
    since: Option<Instant>,
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
        let shared = Shared { source, current: Mutex::default(), timeout };
        Self { shared: Arc::new(shared), kind }
    }

    /// Does `work` on the connection. After an error that another server may cure, the next call
    /// connects again.
    pub(super) async fn query<R>(
        &self,
        work: impl AsyncFnOnce(MultiplexedConnection) -> RedisResult<R>,
    ) -> RedisResult<R> {
        let (connection, number) = self.connect().await?;
        let answer = work(connection).await;
        if let Err(error) = &answer {
            self.shared.forget_after(error, number);
        }
        answer
    }

    /// The connection and its number.
    pub(super) async fn connect(&self) -> RedisResult<(MultiplexedConnection, u64)> {
        if let Some(current) = self.shared.current() {
            return Ok(current);
        }
        // In a task of its own, because a call that gives up must not take the search with it:
        // with a short deadline nobody would ever find the server.
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
    fn current(&self) -> Option<(MultiplexedConnection, u64)> {
        let current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        current.connection.clone().map(|connection| (connection, current.number))
    }

    /// Calls that are under way on it keep it until they are answered.
    fn forget_after(&self, error: &RedisError, number: u64) {
        let is_demoted = is_demotion(error);
        if !is_demoted && !error.is_unrecoverable_error() && !error.is_io_error() {
            return;
        }
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let is_young = current.since.is_some_and(|since| since.elapsed() < PATIENCE);
        if current.number == number && !(is_demoted && is_young) {
            current.connection = None;
        }
    }

    async fn search(&self) -> RedisResult<(MultiplexedConnection, u64)> {
        let mut source = self.source.lock().await;
        // Another call may have found it while this one waited.
        if let Some(current) = self.current() {
            return Ok(current);
        }
        let settings = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.timeout))
            .set_response_timeout(Some(self.timeout))
            .set_pipeline_buffer_size(QUEUE)
            .set_write_backpressure_boundary(WRITES);
        let connection = match &mut *source {
            Source::Address(client) => {
                client.get_multiplexed_async_connection_with_config(&settings).await?
            }
            #[cfg(feature = "redis-sentinel")]
            Source::Sentinels(sentinels) => {
                sentinels.get_async_connection_with_config(&settings).await?
            }
        };
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        current.number += 1;
        current.connection = Some(connection.clone());
        current.since = Some(Instant::now());
        Ok((connection, current.number))
    }
}
