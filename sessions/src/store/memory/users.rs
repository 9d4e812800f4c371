//! Which sessions each user has. A session without a user does not appear here, and costs nothing.

use std::{
    collections::{HashMap, HashSet, hash_map::RandomState},
    hash::BuildHasher,
    ops::{ControlFlow, Deref},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{Inner, MemoryStore, entry::Entry};
use crate::{
    error::store::StoreError,
    identity::id::StoreKey,
    record::Record,
    store::{AllSessions, UserIndex, looks::Looks},
};

/// How many locks there are. Each is held for one look-up, or while a table grows, which looks at each user's
/// name. With a million users that takes 150 microseconds in one of these tables; it took five milliseconds
/// when there were 64. Empty, they are 112 KiB.
const SHARDS: usize = 2048;

type Shard = HashMap<Arc<str>, HashSet<StoreKey>>;

/// Exactly the sessions that have a user: it is changed under the lock of the session's shard, in
/// the same moment as the session itself. So these locks are taken while one of those is held, and
/// never the other way round.
pub(super) struct Users {
    shards: Box<[Mutex<Shard>]>,
    hasher: RandomState,
}

impl Users {
    pub(super) fn new() -> Self {
        Self { shards: (0..SHARDS).map(|_| Mutex::default()).collect(), hasher: RandomState::new() }
    }

    fn lock(&self, user: &str) -> MutexGuard<'_, Shard> {
        let index = self.hasher.hash_one(user) as usize % SHARDS;
        // A refused allocation ends the process, and nothing else in there can panic: a poisoned table is whole.
        self.shards[index].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The session of the first user has become the second's; `None` is nobody's, or no session.
    pub(super) fn change(&self, key: &StoreKey, from: Option<&str>, to: Option<&Arc<str>>) {
        if from == to.map(Deref::deref) {
            return;
        }
        if let Some(user) = from {
            let mut users = self.lock(user);
            if let Some(keys) = users.get_mut(user) {
                keys.remove(key);
                if keys.is_empty() {
                    users.remove(user);
                    // Here and not in the sweep: the tables are small, and most removals move nothing.
                    if is_too_large(users.len(), users.capacity()) {
                        users.shrink_to_fit();
                    }
                } else if is_too_large(keys.len(), keys.capacity()) {
                    keys.shrink_to_fit();
                }
            }
        }
        if let Some(user) = to {
            self.lock(user).entry(user.clone()).or_default().insert(*key);
        }
    }

    fn keys(&self, user: &str) -> Vec<StoreKey> {
        self.lock(user).get(user).map(|keys| keys.iter().copied().collect()).unwrap_or_default()
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().unwrap().len()).sum()
    }
}

/// Whether a table is to move to a smaller one. A table that has just moved is at least half full, so that it
/// does not move with each session that comes and goes.
fn is_too_large(len: usize, capacity: usize) -> bool {
    len == 0 || len < capacity / 4
}

impl Inner {
    fn of_user(&self, user: &str, keys: &[StoreKey]) -> Vec<(StoreKey, Record)> {
        let found = keys.iter().filter_map(|key| Some((*key, self.load(key)?)));
        found.filter(|(_, record)| record.user.as_deref() == Some(user)).collect()
    }
}

impl AllSessions for MemoryStore {
    async fn for_each(
        &self,
        mut visit: impl FnMut(StoreKey, Record) -> ControlFlow<()> + Send,
    ) -> Result<(), StoreError> {
        let inner = self.inner();
        for part in inner.parts() {
            // Not under the lock, which requests wait for.
            for (key, record) in inner.live_in(part) {
                if visit(key, record).is_break() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

impl UserIndex for MemoryStore {
    async fn sessions_of(&self, user: &str) -> Result<Vec<(StoreKey, Record)>, StoreError> {
        let inner = self.inner();
        let mut looks = Looks::of(inner.users.keys(user));
        loop {
            let found = inner.of_user(user, looks.keys());
            if !looks.has_missed(&found) || !looks.again(inner.users.keys(user), &found) {
                return Ok(found);
            }
        }
    }

    async fn delete_sessions_of(
        &self,
        user: &str,
        except: Option<&StoreKey>,
    ) -> Result<u64, StoreError> {
        let inner = self.inner();
        let keys = inner.users.keys(user);
        let others = keys.iter().filter(|key| Some(*key) != except);
        // By now some may be another user's.
        let is_theirs = |entry: &Entry| entry.user().is_some_and(|owner| owner == user);
        Ok(others.filter(|key| inner.delete_if(key, is_theirs)).count() as u64)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::store::{Created, Replaced, Store};

    fn key(number: u8) -> StoreKey {
        StoreKey::from_bytes([number; 32])
    }

    fn record(user: Option<&str>, life: Duration) -> Record {
        let now = SystemTime::now();
        let user = user.map(Into::into);
        Record { version: 1, created_at: now, expires_at: now + life, user, payload: [].into() }
    }

    /// A table that grows moves its sessions; each is of the same part all the same.
    #[tokio::test]
    async fn a_session_is_seen_once_while_others_come_and_go() {
        let store = MemoryStore::new();
        let key = |number: u32| {
            let mut bytes = [0; 32];
            // All bits differ, as in a hash.
            let spread = u64::from(number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            bytes[..8].copy_from_slice(&spread.to_be_bytes());
            bytes[28..].copy_from_slice(&number.to_le_bytes());
            StoreKey::from_bytes(bytes)
        };
        let record = record(None, Duration::from_secs(60));
        const STAY: u32 = 500;
        for number in 0..STAY {
            assert_eq!(store.create(&key(number), &record).await.unwrap(), Created::Done);
        }
        let mut seen = HashMap::<StoreKey, u32>::new();
        for (step, part) in store.inner.parts().enumerate() {
            for (key, _) in store.inner.live_in(part) {
                *seen.entry(key).or_default() += 1;
            }
            // Thousands in the end, of which half go.
            let new = STAY + 10 * step as u32;
            for number in new..new + 10 {
                assert_eq!(store.create(&key(number), &record).await.unwrap(), Created::Done);
            }
            for number in new..new + 5 {
                store.delete(&key(number)).await.unwrap();
            }
        }
        assert!(store.len() > 4 * STAY as usize);
        assert!((0..STAY).all(|number| seen.get(&key(number)) == Some(&1)));
        assert!(seen.values().all(|&times| times == 1));
    }

    /// Whatever takes a session away takes it out of the index.
    #[tokio::test]
    async fn the_index_holds_no_more_than_the_store() {
        const LONG: Duration = Duration::from_secs(60);
        let store = MemoryStore::builder().with_capacity(2).build();
        let users = || store.inner.users.len();

        let create = async |number, record: &Record| store.create(&key(number), record).await;
        assert_eq!(create(1, &record(None, LONG)).await.unwrap(), Created::Done);
        assert_eq!(users(), 0, "nobody's session costs nothing");
        let replace = async |user| store.replace(&key(1), &record(user, LONG), 1).await.unwrap();
        assert_eq!(replace(Some("ann")).await, Replaced::Done);
        assert_eq!(users(), 1, "a login");
        assert_eq!(replace(Some("bob")).await, Replaced::Done);
        assert_eq!((users(), store.sessions_of("ann").await.unwrap().len()), (1, 0));
        assert_eq!(replace(None).await, Replaced::Done);
        assert_eq!(users(), 0, "a logout that keeps the session");
        store.delete(&key(1)).await.unwrap();

        for number in 2..=3 {
            let user = format!("user {number}");
            assert_eq!(create(number, &record(Some(&user), LONG)).await.unwrap(), Created::Done);
        }
        assert!(create(4, &record(Some("user 4"), LONG)).await.is_err());
        assert_eq!((store.len(), users()), (2, 2), "one was refused");
        store.delete(&key(2)).await.unwrap();
        assert_eq!(create(2, &record(None, LONG)).await.unwrap(), Created::Done);
        assert_eq!(create(4, &record(Some("user 4"), LONG)).await.unwrap(), Created::Done);
        assert_eq!((store.len(), users()), (2, 2), "nobody's was evicted");

        let short = record(Some("carl"), Duration::from_millis(20));
        assert_eq!(store.replace(&key(4), &short, 1).await.unwrap(), Replaced::Done);
        tokio::time::sleep(Duration::from_millis(30)).await;
        assert!(store.sessions_of("carl").await.unwrap().is_empty(), "expired");
        let taken = record(Some("dora"), LONG);
        assert_eq!(create(4, &taken).await.unwrap(), Created::Done);
        assert_eq!((users(), store.sessions_of("dora").await.unwrap().len()), (2, 1));

        assert_eq!(store.delete_sessions_of("dora", None).await.unwrap(), 1);
        store.delete(&key(3)).await.unwrap();
        assert_eq!((store.len(), users()), (0, 0));

        assert_eq!(create(5, &short).await.unwrap(), Created::Done);
        assert_eq!(users(), 0, "expired before it began");
        let short = record(Some("carl"), Duration::from_millis(20));
        assert_eq!(create(5, &short).await.unwrap(), Created::Done);
        tokio::time::sleep(Duration::from_millis(30)).await;
        let swept =
            store.inner.sweep_step(store.inner.shard_of(&key(5)), &mut None, &mut Vec::new());
        assert_eq!((swept, users()), (true, 0));
    }

    /// The tables count as part of what sessions cost, so they must not outlive these.
    #[test]
    fn the_tables_of_users_who_are_gone_are_given_back() {
        let users = Users::new();
        let capacity = || {
            let shards = users.shards.iter().map(|shard| shard.lock().unwrap());
            shards.map(|shard| {
                shard.capacity() + shard.values().map(HashSet::capacity).sum::<usize>()
            })
        };
        let key = |number: u32| {
            let mut bytes = [0; 32];
            bytes[..4].copy_from_slice(&number.to_le_bytes());
            StoreKey::from_bytes(bytes)
        };
        // As many users as sessions, and one with many.
        let user = |number: u32| match number < 10_000 {
            true => number.to_string(),
            false => "ann".to_owned(),
        };
        let sessions = || (0..20_000).map(|number| (key(number), user(number)));
        for (key, user) in sessions() {
            users.change(&key, None, Some(&user.into()));
        }
        for (key, user) in sessions().filter(|(key, _)| key.as_bytes()[0] != 0) {
            users.change(&key, Some(&user), None);
        }
        let left = sessions().filter(|(key, _)| key.as_bytes()[0] == 0);
        assert_eq!(left.clone().map(|(_, user)| users.keys(&user).len()).max(), Some(39));
        let room = capacity().sum::<usize>();
        assert!(room < 1_000, "{room}");
        left.for_each(|(key, user)| users.change(&key, Some(&user), None));
        assert_eq!(capacity().max(), Some(0));
    }
}
