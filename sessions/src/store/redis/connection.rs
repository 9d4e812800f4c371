//! What a store says its commands on.

use redis::{Cmd, FromRedisValue, Pipeline, RedisResult, Value, aio::ConnectionManager};

#[cfg(feature = "redis-sentinel")]
use super::sentinel::Master;

/// It is shared by its clones and connects again by itself.
#[derive(Clone)]
pub(super) enum Connection {
    Single(ConnectionManager),
    #[cfg(feature = "redis-cluster")]
    Cluster(redis::cluster_async::ClusterConnection),
    #[cfg(feature = "redis-sentinel")]
    Sentinel(Master),
}

impl From<ConnectionManager> for Connection {
    fn from(connection: ConnectionManager) -> Self {
        Self::Single(connection)
    }
}

#[cfg(feature = "redis-cluster")]
impl From<redis::cluster_async::ClusterConnection> for Connection {
    fn from(connection: redis::cluster_async::ClusterConnection) -> Self {
        Self::Cluster(connection)
    }
}

impl Connection {
    pub(super) async fn command<T: FromRedisValue>(&self, command: &Cmd) -> RedisResult<T> {
        match self {
            Self::Single(connection) => command.query_async(&mut connection.clone()).await,
            #[cfg(feature = "redis-cluster")]
            Self::Cluster(connection) => command.query_async(&mut connection.clone()).await,
            #[cfg(feature = "redis-sentinel")]
            Self::Sentinel(master) => {
                master
                    .query(async |connection| command.query_async(&mut { connection }).await)
                    .await
            }
        }
    }

    /// Several commands in one round trip. The answer to the last of them, or the first error.
    pub(super) async fn pipeline<T: FromRedisValue>(
        &self,
        mut commands: Pipeline,
    ) -> RedisResult<T> {
        // Otherwise the errors come in one that hides which it is.
        let commands = &*commands.ignore_errors();
        match self {
            Self::Single(connection) => {
                last_of(commands.query_async(&mut connection.clone()).await?)
            }
            #[cfg(feature = "redis-cluster")]
            Self::Cluster(connection) => {
                last_of(commands.query_async(&mut connection.clone()).await?)
            }
            #[cfg(feature = "redis-sentinel")]
            Self::Sentinel(master) => {
                let query =
                    async |connection| last_of(commands.query_async(&mut { connection }).await?);
                master.query(query).await
            }
        }
    }

    /// What it leads to, in a word.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Single(_) => "single",
            #[cfg(feature = "redis-cluster")]
            Self::Cluster(_) => "cluster",
            #[cfg(feature = "redis-sentinel")]
            Self::Sentinel(_) => "sentinel",
        }
    }

    pub(super) fn is_cluster(&self) -> bool {
        match self {
            #[cfg(feature = "redis-cluster")]
            Self::Cluster(_) => true,
            _ => false,
        }
    }
}

fn last_of<T: FromRedisValue>(answers: Vec<Value>) -> RedisResult<T> {
    let mut last = Value::Nil;
    for answer in answers {
        last = answer.extract_error()?;
    }
    Ok(redis::from_redis_value(last)?)
}
