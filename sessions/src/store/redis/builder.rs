//! How a store in Redis is made, on whatever connection.

use std::{
    sync::{Arc, Mutex, OnceLock, RwLock},
    time::Duration,
};

#[cfg(feature = "redis-cluster")]
use redis::IntoConnectionInfo;
use redis::{Client, aio::ConnectionManager};

#[cfg(feature = "redis-sentinel")]
use super::sentinel;
use super::{
    RedisStore, Shared,
    connection::{Connection, Server},
    errors::classify,
    managed::{Managed, Source},
    recent::RecentRecords,
    scripts::Scripts,
};
#[cfg(feature = "redis-cluster")]
use super::{WRITES, connection::Cluster, nodes::Nodes};
use crate::{
    clock::Clock, error::store::StoreError, store::known_users::KnownUsers, unique::UniqueNumbers,
};

/// The operation in errors of connecting.
const CONNECT: &str = "connect";

/// Makes a [`RedisStore`]; from [`RedisStore::builder`].
#[derive(Clone, Debug)]
#[must_use = "`connect` or `build` makes the store"]
pub struct RedisStoreBuilder {
    prefix: String,
    timeout: Duration,
    clock: Clock,
}

impl RedisStoreBuilder {
    pub(super) fn new() -> Self {
        Self {
            prefix: "sessions".to_string(),
            timeout: Duration::from_secs(5),
            clock: Clock::System,
        }
    }

    /// What all keys begin with, before a colon; `sessions` unless told otherwise. In a cluster,
    /// a prefix must not have `{}` in it.
    pub fn with_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// How long a call may take, and how long connecting; five seconds unless told otherwise. A call that
    /// is made once more, because its connection has ended, has no more time for that.
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Lets the store's sessions expire by a clock that a test sets by hand. When Redis removes
    /// them remains a matter of its own clock.
    #[cfg(feature = "testing")]
    pub fn with_clock(mut self, clock: &crate::clock::ManualClock) -> Self {
        self.clock = clock.clock();
        self
    }

    /// Connects to the server at `url`.
    ///
    /// # Errors
    ///
    /// When the URL makes no sense, or the server is not to be reached; when it wants another password,
    /// or its user lacks a [permission](RedisStore#permissions); when it is a replica, or belongs to a
    /// cluster.
    pub async fn connect(self, url: &str) -> Result<RedisStore, StoreError> {
        let client = Client::open(url).map_err(|error| classify(CONNECT, error))?;
        let connection = Managed::new(Source::Address(client), self.timeout);
        self.checked(Server::Own(connection)).await
    }

    /// Connects to the cluster that the servers at `urls` belong to; some of them are enough.
    ///
    /// # Errors
    ///
    /// When a URL makes no sense, or no server is to be reached; when they want another password, or
    /// the user lacks a [permission](RedisStore#permissions).
    #[cfg(feature = "redis-cluster")]
    pub async fn connect_cluster(self, urls: &[&str]) -> Result<RedisStore, StoreError> {
        let failed = |error| classify(CONNECT, error);
        let client = redis::cluster::ClusterClient::builder(urls.iter().copied())
            .connection_timeout(self.timeout)
            .response_timeout(self.timeout)
            .overall_response_timeout(Some(self.timeout))
            .write_backpressure_boundary(WRITES)
            .build()
            .map_err(failed)?;
        let connection = client.get_async_connection().await.map_err(failed)?;
        let info =
            urls.first().map(|url| url.into_connection_info()).transpose().map_err(failed)?;
        let nodes = info.map(|info| Nodes::new(info, self.timeout));
        self.checked(Server::Cluster(Box::new(Cluster { connection, nodes }))).await
    }

    /// Connects to the master that these sentinels know by that name. After a failover the store
    /// finds the new master by itself; until there is one, its calls are errors that are
    /// [retryable](StoreError::is_retryable).
    ///
    /// `urls` are the sentinels, and some of them are enough. `master` is the name, or a URL with
    /// the name in place of the host, for a master that needs more: `rediss://:secret@mymaster/2`.
    ///
    /// # Errors
    ///
    /// When a URL makes no sense, or no sentinel knows such a master or none is to be reached; when the
    /// master wants another password, or the user lacks a [permission](RedisStore#permissions).
    #[cfg(feature = "redis-sentinel")]
    pub async fn connect_sentinel(
        self,
        urls: &[&str],
        master: &str,
    ) -> Result<RedisStore, StoreError> {
        let failed = |error| classify(CONNECT, error);
        let sentinels = sentinel::sentinels(urls, master).map_err(failed)?;
        self.build_sentinel(sentinels).await
    }

    /// On a client of the sentinels that the application has. It must be one for the
    /// [master](redis::sentinel::SentinelServerType::Master).
    #[cfg(feature = "redis-sentinel")]
    pub async fn build_sentinel(
        self,
        sentinels: redis::sentinel::SentinelClient,
    ) -> Result<RedisStore, StoreError> {
        let master = Managed::new(Source::Sentinels(sentinels), self.timeout);
        self.checked(Server::Own(master)).await
    }

    /// On a connection that the application has.
    pub fn build(self, connection: ConnectionManager) -> RedisStore {
        self.assemble(Server::Application(connection, Mutex::default()))
    }

    /// On a connection to a cluster that the application has.
    ///
    /// Sessions are read from masters, also where the connection reads from replicas: replicas are behind, and do not
    /// know where a session is that is just being moved to another master.
    #[cfg(feature = "redis-cluster")]
    pub fn build_cluster(self, connection: redis::cluster_async::ClusterConnection) -> RedisStore {
        self.assemble(Server::Cluster(Box::new(Cluster { connection, nodes: None })))
    }

    /// A store whose server has been asked whether it serves.
    async fn checked(self, server: Server) -> Result<RedisStore, StoreError> {
        let store = self.assemble(server);
        store.check(CONNECT).await?;
        Ok(store)
    }

    pub(super) fn assemble(self, server: Server) -> RedisStore {
        let shared = Shared {
            connection: Connection::new(server, self.timeout),
            prefix: self.prefix,
            clock: self.clock,
            scripts: Scripts::new(false),
            tracked_scripts: OnceLock::new(),
            write_ids: UniqueNumbers::new(),
            recent: RecentRecords::new(),
            users: KnownUsers::new(),
            watcher: RwLock::default(),
        };
        RedisStore { shared: Arc::new(shared) }
    }
}
