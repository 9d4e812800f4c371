//! `--store`: from its word to the layer on that store.

use sessions::{
    Keys, MemcachedStore, MemoryStore, MySqlStore, PostgresStore, PrivateCookie, RedisStore,
    SessionLayer, SessionLayerBuilder, SqliteStore, StoreError,
};

use crate::session::Visitor;

/// Where the sessions are kept.
#[derive(Debug, PartialEq)]
pub(crate) enum Store {
    Memory,
    Cookie,
    Sqlite(String),
    Postgres(String),
    MySql(String),
    Redis(String),
    /// The URLs of some of its servers.
    RedisCluster(Vec<String>),
    /// The URLs of sentinels, and that of the master, which has its name for a host.
    RedisSentinel(Vec<String>, String),
    Memcached(String),
}

impl Store {
    pub(crate) fn parse(word: &str) -> Option<Self> {
        let url = word.to_string();
        Some(match word.split_once(':').map_or(word, |(scheme, _)| scheme) {
            "memory" if word == "memory" => Self::Memory,
            "cookie" if word == "cookie" => Self::Cookie,
            "sqlite" if word.len() > "sqlite:".len() => Self::Sqlite(url),
            "postgres" | "postgresql" if word.contains("://") => Self::Postgres(url),
            "mysql" if word.contains("://") => Self::MySql(url),
            "redis" | "rediss" if word.contains("://") => Self::Redis(url),
            "redis-cluster" => {
                let (login, hosts) = split_login(word.strip_prefix("redis-cluster://")?);
                Self::RedisCluster(urls(login, hosts)?)
            }
            "redis-sentinel" => {
                let (login, rest) = split_login(word.strip_prefix("redis-sentinel://")?);
                // The login is the master's, and so is a number of a database behind the name.
                let (hosts, name) = rest.split_once('/').filter(|(_, name)| !name.is_empty())?;
                Self::RedisSentinel(urls("", hosts)?, format!("redis://{login}{name}"))
            }
            "memcached" if word.contains("://") => Self::Memcached(url),
            _ => return None,
        })
    }

    /// The one line of an application that says where its sessions are.
    pub(crate) async fn open(
        &self,
        memory: &MemoryStore,
        keys: Keys,
    ) -> Result<SessionLayerBuilder<Visitor>, StoreError> {
        Ok(match self {
            Self::Memory => SessionLayer::builder(memory.clone(), keys),
            Self::Cookie => SessionLayer::builder(PrivateCookie, keys),
            Self::Sqlite(url) => {
                let store = SqliteStore::connect(url).await?;
                store.migrate().await?;
                SessionLayer::builder(store, keys)
            }
            Self::Postgres(url) => {
                let store = PostgresStore::connect(url).await?;
                store.migrate().await?;
                SessionLayer::builder(store, keys)
            }
            Self::MySql(url) => {
                let store = MySqlStore::connect(url).await?;
                store.migrate().await?;
                SessionLayer::builder(store, keys)
            }
            Self::Redis(url) => SessionLayer::builder(RedisStore::connect(url).await?, keys),
            Self::RedisCluster(urls) => {
                let urls: Vec<&str> = urls.iter().map(String::as_str).collect();
                SessionLayer::builder(RedisStore::connect_cluster(&urls).await?, keys)
            }
            Self::RedisSentinel(urls, master) => {
                let urls: Vec<&str> = urls.iter().map(String::as_str).collect();
                SessionLayer::builder(RedisStore::connect_sentinel(&urls, master).await?, keys)
            }
            Self::Memcached(url) => {
                SessionLayer::builder(MemcachedStore::connect(url).await?, keys)
            }
        })
    }
}

/// `user:password@`, or nothing, and what follows.
fn split_login(rest: &str) -> (&str, &str) {
    rest.split_at(rest.rfind('@').map_or(0, |at| at + 1))
}

/// A URL for each of the hosts, which commas separate.
fn urls(login: &str, hosts: &str) -> Option<Vec<String>> {
    let url = |host: &str| (!host.is_empty()).then(|| format!("redis://{login}{host}"));
    hosts.split(',').map(url).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_stores() {
        for (word, store) in [
            ("sqlite:shop.db", Store::Sqlite as fn(_) -> _),
            ("postgres://a@b/c", Store::Postgres),
            ("postgresql://a@b/c", Store::Postgres),
            ("mysql://a@b/c", Store::MySql),
            ("redis://a", Store::Redis),
            ("memcached://a", Store::Memcached),
        ] {
            assert_eq!(Store::parse(word), Some(store(word.to_string())));
        }
        for (word, urls) in [
            ("redis-cluster://a:1", vec!["redis://a:1"]),
            ("redis-cluster://a:1,b:2", vec!["redis://a:1", "redis://b:2"]),
            ("redis-cluster://x:p@q@a:1,b", vec!["redis://x:p@q@a:1", "redis://x:p@q@b"]),
        ] {
            let urls = urls.into_iter().map(String::from).collect();
            assert_eq!(Store::parse(word), Some(Store::RedisCluster(urls)));
        }
        for (word, master) in [
            ("redis-sentinel://a:1,b:2/shop", "redis://shop"),
            ("redis-sentinel://:p@a:1,b:2/shop/3", "redis://:p@shop/3"),
        ] {
            let urls = ["redis://a:1", "redis://b:2"].map(String::from).to_vec();
            assert_eq!(Store::parse(word), Some(Store::RedisSentinel(urls, master.to_string())));
        }
        for wrong in [
            "sqlite",
            "sqlite:",
            "postgres:a",
            "redis",
            "cookie:",
            "memory:",
            "mongodb://a",
            "redis-cluster",
            "redis-cluster:a",
            "redis-cluster://",
            "redis-cluster://a:1,",
            "redis-sentinel://a:1",
            "redis-sentinel://a:1/",
            "redis-sentinel:///shop",
        ] {
            assert_eq!(Store::parse(wrong), None, "{wrong}");
        }
    }
}
