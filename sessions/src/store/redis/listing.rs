//! The sessions of a user, and all sessions: what is found by other things than its key.

use std::ops::ControlFlow;

use redis::Cmd;

use super::{RedisStore, tracking};
#[cfg(feature = "redis-cluster")]
use super::{connection::Server, errors::classify, nodes};
use crate::{
    error::store::StoreError,
    identity::id::StoreKey,
    record::Record,
    store::{AllSessions, UserIndex, looks::Looks},
};

/// The node whose keys are gone through; nothing where there is only one.
type Place = Option<(String, u16)>;

impl RedisStore {
    async fn places(&self, operation: &'static str) -> Result<Vec<Place>, StoreError> {
        #[cfg(feature = "redis-cluster")]
        if let Server::Cluster(cluster) = self.shared.connection.server() {
            let masters = nodes::masters(&cluster.connection).await;
            let masters = masters.map_err(|error| classify(operation, error))?;
            return Ok(masters.into_iter().map(Some).collect());
        }
        let _ = operation;
        Ok(vec![None])
    }

    async fn scan(
        &self,
        operation: &'static str,
        place: &Place,
        scan: Cmd,
    ) -> Result<(u64, Vec<Vec<u8>>), StoreError> {
        #[cfg(feature = "redis-cluster")]
        if let (Server::Cluster(cluster), Some(place)) = (self.shared.connection.server(), place) {
            let answer = nodes::ask(&cluster.connection, place, scan).await;
            let answer = answer.and_then(|it| Ok(redis::from_redis_value(it)?));
            return answer.map_err(|error| classify(operation, error));
        }
        let _ = place;
        self.query(operation, &scan).await
    }
}

impl AllSessions for RedisStore {
    async fn for_each(
        &self,
        mut visit: impl FnMut(StoreKey, Record) -> ControlFlow<()> + Send,
    ) -> Result<(), StoreError> {
        const OPERATION: &str = "for_each";
        /// How many keys are looked at in one step of the server.
        const STEP: u32 = 500;
        let prefix = format!("{}:{{", self.shared.prefix);
        let mut pattern = String::new();
        for letter in prefix.chars() {
            if matches!(letter, '*' | '?' | '[' | ']' | '\\') {
                pattern.push('\\');
            }
            pattern.push(letter);
        }
        pattern.push_str("*}");
        for place in self.places(OPERATION).await? {
            let mut cursor = 0;
            loop {
                let mut scan = redis::cmd("SCAN");
                scan.arg(cursor).arg("MATCH").arg(&pattern).arg("COUNT").arg(STEP);
                let (next, names) = self.scan(OPERATION, &place, scan).await?;
                let keys = names.iter().filter_map(|name| tracking::session_in(name, &prefix));
                let keys: Vec<StoreKey> = keys.collect();
                if !keys.is_empty() {
                    let mut get = redis::cmd("MGET");
                    get.arg(keys.iter().map(|key| self.key(key)).collect::<Vec<_>>());
                    let values: Vec<Option<Vec<u8>>> = self.query(OPERATION, &get).await?;
                    for (key, value) in keys.into_iter().zip(values) {
                        if let Some(record) = self.record(OPERATION, value)?
                            && visit(key, record).is_break()
                        {
                            return Ok(());
                        }
                    }
                }
                cursor = next;
                if cursor == 0 {
                    break;
                }
            }
        }
        Ok(())
    }
}

impl RedisStore {
    /// The keys in a user's set.
    async fn keys_in(
        &self,
        operation: &'static str,
        set: &str,
    ) -> Result<Vec<StoreKey>, StoreError> {
        let mut range = redis::cmd("ZRANGE");
        range.arg(set).arg(0).arg(-1);
        let members: Vec<Vec<u8>> = self.query(operation, &range).await?;
        let key = |member: Vec<u8>| Some(StoreKey::from_bytes(member.try_into().ok()?));
        Ok(members.into_iter().filter_map(key).collect())
    }

    /// Those of these keys that are sessions of the user, and those under which there is nothing.
    async fn look_up(
        &self,
        operation: &'static str,
        user: &str,
        keys: &[StoreKey],
    ) -> Result<(Vec<(StoreKey, Record)>, Vec<StoreKey>), StoreError> {
        /// How many records are fetched at once.
        const BATCH: usize = 100;
        let (mut found, mut gone) = (Vec::new(), Vec::new());
        for keys in keys.chunks(BATCH) {
            let mut get = redis::cmd("MGET");
            get.arg(keys.iter().map(|key| self.key(key)).collect::<Vec<_>>());
            let values: Vec<Option<Vec<u8>>> = self.query(operation, &get).await?;
            for (key, value) in keys.iter().zip(values) {
                let Some(value) = value else {
                    gone.push(*key);
                    continue;
                };
                // One that has expired, by our clock, may be extended just now.
                if let Some(record) = self.record(operation, Some(value))?
                    && record.user.as_deref() == Some(user)
                {
                    found.push((*key, record));
                }
            }
        }
        Ok((found, gone))
    }
}

impl UserIndex for RedisStore {
    async fn sessions_of(&self, user: &str) -> Result<Vec<(StoreKey, Record)>, StoreError> {
        const OPERATION: &str = "sessions_of";
        let set = self.user_key(user);
        let mut looks = Looks::of(self.keys_in(OPERATION, &set).await?);
        let mut gone = Vec::new();
        let found = loop {
            let (found, missing) = self.look_up(OPERATION, user, looks.keys()).await?;
            gone.extend(missing);
            if !looks.has_missed(&found)
                || !looks.again(self.keys_in(OPERATION, &set).await?, &found)
            {
                break found;
            }
        };
        // In a cluster the set is written before the session, so one that is missing may be just
        // about to begin; its entry goes when its time is over.
        if !gone.is_empty() && !self.shared.connection.is_cluster() {
            let mut remove = redis::cmd("ZREM");
            remove.arg(&set);
            for key in gone {
                remove.arg(key.as_bytes());
            }
            let _: i64 = self.query(OPERATION, &remove).await?;
        }
        Ok(found)
    }
}
