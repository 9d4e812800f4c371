//! A connection to whichever server Sentinel says is the master now.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use redis::{
    AsyncConnectionConfig, ConnectionAddr, ErrorKind, IntoConnectionInfo, RedisError, RedisResult,
    ServerErrorKind, TlsMode,
    aio::MultiplexedConnection,
    sentinel::{SentinelClient, SentinelNodeConnectionInfo, SentinelServerType},
};
use tokio::time::timeout;

use super::{QUEUE, WRITES};

/// A client that asks these sentinels for the master of that name, or of a URL with the name for a
/// host.
pub(super) fn sentinels(urls: &[&str], master: &str) -> RedisResult<SentinelClient> {
    let (mut name, mut node) = (master.to_string(), None);
    if master.contains("://") {
        let url = master.into_connection_info()?;
        let mut info = SentinelNodeConnectionInfo::default()
            .set_redis_connection_info(url.redis_settings().clone());
        match url.addr() {
            ConnectionAddr::Tcp(host, _) => name = host.to_string(),
            ConnectionAddr::TcpTls { host, insecure, .. } => {
                name = host.to_string();
                let mode = if *insecure { TlsMode::Insecure } else { TlsMode::Secure };
                info = info.set_tls_mode(mode);
            }
            _ => {
                let words = "the master has a name in place of a host, and is no socket";
                return Err((ErrorKind::InvalidClientConfig, words).into());
            }
        }
        node = Some(info);
    }
    SentinelClient::build(urls.to_vec(), name, node, SentinelServerType::Master)
}

#[derive(Clone)]
pub(super) struct Master {
    shared: Arc<Shared>,
}

struct Shared {
    /// Locked by the one who asks for the master; the others wait for what it finds.
    sentinels: tokio::sync::Mutex<SentinelClient>,
    current: Mutex<Current>,
    timeout: Duration,
}

#[derive(Default)]
struct Current {
    connection: Option<MultiplexedConnection>,
    /// Which one it is, so that an error of an old one does not end its successor.
    number: u64,
}

impl Master {
    /// Connects by the first use.
    pub(super) fn new(sentinels: SentinelClient, timeout: Duration) -> Self {
        let sentinels = tokio::sync::Mutex::new(sentinels);
        let shared = Shared { sentinels, current: Mutex::default(), timeout };
        Self { shared: Arc::new(shared) }
    }

    /// Does `work` on a connection to the master. After an error that a failover may be behind, the
    /// next call asks the sentinels again.
    pub(super) async fn query<R>(
        &self,
        work: impl AsyncFnOnce(MultiplexedConnection) -> RedisResult<R>,
    ) -> RedisResult<R> {
        let (connection, number) = self.connect().await?;
        let answer = work(connection).await;
        if answer.as_ref().is_err_and(may_be_failover) {
            self.shared.forget(number);
        }
        answer
    }

    /// The connection to the master and its number.
    pub(super) async fn connect(&self) -> RedisResult<(MultiplexedConnection, u64)> {
        if let Some(current) = self.shared.current() {
            return Ok(current);
        }
        // In a task of its own, because a call that gives up must not take the search with it:
        // with a short deadline nobody would ever find the master.
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

    fn forget(&self, number: u64) {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.number == number {
            current.connection = None;
        }
    }

    async fn search(&self) -> RedisResult<(MultiplexedConnection, u64)> {
        let mut sentinels = self.sentinels.lock().await;
        // Somebody else may have found it while we waited.
        if let Some(current) = self.current() {
            return Ok(current);
        }
        let settings = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.timeout))
            .set_response_timeout(Some(self.timeout))
            .set_pipeline_buffer_size(QUEUE)
            .set_write_backpressure_boundary(WRITES);
        let connection = sentinels.get_async_connection_with_config(&settings).await?;
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        current.number += 1;
        current.connection = Some(connection.clone());
        Ok((connection, current.number))
    }
}

/// Whether another server may be the master now: this one is gone, is silent, or takes no writes.
fn may_be_failover(error: &RedisError) -> bool {
    error.is_unrecoverable_error()
        || error.is_io_error()
        || matches!(
            error.kind(),
            ErrorKind::Server(ServerErrorKind::ReadOnly | ServerErrorKind::MasterDown)
        )
}
