//! Which sessions a user has: an item for each user, of the same form as a session, whose payload is
//! the list.
//!
//! ```text
//! payload = ( key of the session (32 bytes)  day until which to look for it (4 bytes) )*
//! ```
//!
//! A session is entered before it is saved, so that none escapes, and taken out after it has ended.
//! What a crash leaves in the list is found not to be there, and left out; its entry goes when its days
//! are over.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;

use super::{
    Found, MemcachedStore, Place, TRIES,
    pool::server_of,
    protocol::{Stored, gets},
};
use crate::{
    error::store::StoreError,
    identity::id::StoreKey,
    record::Record,
    store::{Store, UserIndex, looks::Looks, packed::stored_millis},
};

const DAY: u64 = 24 * 60 * 60 * 1000;

const KEY: usize = 32;
const ENTRY: usize = KEY + 4;

/// A list of more bytes is not read beside each session: some 110 sessions.
const LARGE: usize = 4096;

/// What is known of the lists.
pub(super) struct Lists {
    /// The users that were last seen to have a large one.
    large: Mutex<VecDeque<Arc<str>>>,
    /// How many lists on other servers than the session's are looked at, beside the calls, at once.
    looks: Arc<Semaphore>,
}

impl Lists {
    pub(super) fn new() -> Self {
        Self { large: Mutex::default(), looks: Arc::new(Semaphore::new(16)) }
    }

    fn is_large(&self, user: &str) -> bool {
        let large = self.large.lock().unwrap_or_else(PoisonError::into_inner);
        large.iter().any(|known| **known == *user)
    }

    fn note_large(&self, user: &Arc<str>) {
        const KEPT: usize = 64;
        let mut large = self.large.lock().unwrap_or_else(PoisonError::into_inner);
        if !large.contains(user) {
            large.truncate(KEPT - 1);
            large.push_front(user.clone());
        }
    }
}

/// The last day on which a record of this expiry may be there, and one more for what a `touch` whose
/// answer got lost may have added.
fn last_day(expires_at: SystemTime) -> u32 {
    u32::try_from(stored_millis(expires_at) / DAY + 1).unwrap_or(u32::MAX)
}

/// The list with this session in it, and without the expired sessions.
fn with_entry(list: &[u8], key: &StoreKey, last: u32, today: u32) -> Vec<u8> {
    let mut new = Vec::with_capacity(list.len() + ENTRY);
    for entry in list.as_chunks::<ENTRY>().0 {
        if entry[..KEY] != key.as_bytes()[..] && day_of(entry) >= today {
            new.extend(entry);
        }
    }
    new.extend(key.as_bytes());
    new.extend(last.to_be_bytes());
    new
}

/// The list without these sessions; `None` if it has none of them.
fn without(list: &[u8], keys: &[StoreKey]) -> Option<Vec<u8>> {
    let entries = list.as_chunks::<ENTRY>().0;
    let stays = |entry: &&[u8; ENTRY]| !keys.iter().any(|key| entry[..KEY] == key.as_bytes()[..]);
    let left: Vec<u8> = entries.iter().filter(stays).flatten().copied().collect();
    (left.len() < list.len()).then_some(left)
}

fn day_of(entry: &[u8; ENTRY]) -> u32 {
    entry.last_chunk().map_or(0, |day| u32::from_be_bytes(*day))
}

fn key_of(entry: &[u8; ENTRY]) -> StoreKey {
    StoreKey::from_bytes(entry.first_chunk().copied().unwrap_or_default())
}

impl MemcachedStore {
    /// Enters a session in its user's list, unless it is there as of the record before.
    pub(super) async fn enter(
        &self,
        operation: &'static str,
        key: &StoreKey,
        record: &Record,
        before: Option<&Record>,
    ) -> Result<(), StoreError> {
        let Some(user) = &record.user else { return Ok(()) };
        let last = last_day(record.expires_at);
        let is_there = |before: &Record| {
            before.user.as_ref() == Some(user) && last_day(before.expires_at) == last
        };
        if before.is_some_and(is_there) {
            return Ok(());
        }
        let today = u32::try_from(self.now() / DAY).unwrap_or(u32::MAX);
        let at = &self.list_of(user);
        for _ in 0..TRIES {
            let (list, unique) = match self.get(operation, at).await? {
                Found::Live(list, unique) => (list.payload, Some(unique)),
                Found::Expired(unique) => ([].into(), Some(unique)),
                Found::Nothing => ([].into(), None),
            };
            let payload = with_entry(&list, key, last, today);
            let days = payload.as_chunks().0.iter().map(day_of).max().unwrap_or(last);
            let until = Duration::from_millis((u64::from(days) + 1).saturating_mul(DAY));
            let list = Record {
                version: 1,
                created_at: UNIX_EPOCH,
                expires_at: UNIX_EPOCH.checked_add(until).unwrap_or(record.expires_at),
                user: None,
                payload: payload.into(),
            };
            if let Stored::Done = self.put(operation, at, &list, unique).await? {
                return Ok(());
            }
        }
        Err(Self::overtaken(operation))
    }

    /// The record under a session's key. If this process knows whose it is, its user's list is looked at
    /// as well, in the same round trip or beside it: memcached may have forgotten the list before the
    /// session, which is entered again then.
    pub(super) async fn find(
        &self,
        operation: &'static str,
        key: &StoreKey,
        at: &Place<'_>,
    ) -> Result<Found, StoreError> {
        let lists = &self.shared.lists;
        let user = self.shared.users.get(key).filter(|user| !lists.is_large(user));
        let list_at = user.as_deref().map(|user| self.list_of(user));
        let near = list_at.as_ref().filter(|list_at| std::ptr::eq(list_at.server, at.server));
        let (found, list) = match near {
            Some(list_at) => {
                let both = [&*at.name, &*list_at.name];
                let get = async |connection: &mut _| gets(connection, both).await;
                let [session, list] = self.on(operation, at.server, get).await?;
                let list = self.found(operation, list).ok();
                (self.found(operation, session)?, list)
            }
            None => (self.get(operation, at).await?, None),
        };
        let Found::Live(record, _) = &found else { return Ok(found) };
        self.shared.users.put(key, record.user.as_ref());
        if let Some(user) = user.filter(|user| record.user.as_ref() == Some(user)) {
            match list {
                Some(list) => self.enter_again(operation, key, record, &user, list).await,
                None if near.is_none() => self.look_beside(operation, *key, record, user),
                None => {}
            }
        }
        Ok(found)
    }

    /// Enters a session of this user if the list has it no more. Whatever comes of that, the session is
    /// there.
    async fn enter_again(
        &self,
        operation: &'static str,
        key: &StoreKey,
        record: &Record,
        user: &Arc<str>,
        list: Found,
    ) {
        let list = match list {
            Found::Live(list, _) => list.payload,
            Found::Expired(_) | Found::Nothing => [].into(),
        };
        if list.len() > LARGE {
            self.shared.lists.note_large(user);
        }
        if !list.as_chunks().0.iter().any(|entry| key_of(entry) == *key) {
            tracing::debug!("a session is put back into the list of its user");
            let _ = self.enter(operation, key, record, None).await;
        }
    }

    /// The same for a list on another server, which no call waits for.
    fn look_beside(&self, operation: &'static str, key: StoreKey, record: &Record, user: Arc<str>) {
        let Ok(permit) = self.shared.lists.looks.clone().try_acquire_owned() else { return };
        let (store, record) = (self.clone(), record.clone());
        tokio::spawn(async move {
            if let Ok(list) = store.get(operation, &store.list_of(&user)).await {
                store.enter_again(operation, &key, &record, &user, list).await;
            }
            drop(permit);
        });
    }

    /// Takes sessions that have ended, or have another user now, out of a user's list. If that fails,
    /// nothing but a little room is lost until their days are over.
    pub(super) async fn leave(&self, operation: &'static str, user: &str, keys: &[StoreKey]) {
        if let Err(error) = self.try_to_leave(operation, user, keys).await {
            tracing::debug!(%error, "a user's list in memcached has sessions that have ended");
        }
    }

    async fn try_to_leave(
        &self,
        operation: &'static str,
        user: &str,
        keys: &[StoreKey],
    ) -> Result<(), StoreError> {
        let at = &self.list_of(user);
        for _ in 0..TRIES {
            let Found::Live(list, unique) = self.get(operation, at).await? else { return Ok(()) };
            let Some(left) = without(&list.payload, keys) else { return Ok(()) };
            // An empty one too: it cannot be deleted unless nobody has entered a session meanwhile,
            // and memcached knows no such command.
            let list = Record { payload: left.into(), ..list };
            match self.put(operation, at, &list, Some(unique)).await? {
                Stored::Done | Stored::Missing => return Ok(()),
                Stored::Exists => {}
            }
        }
        Err(Self::overtaken(operation))
    }

    /// Where a user's list is.
    fn list_of(&self, user: &str) -> Place<'_> {
        let hash = StoreKey::from_bytes(Sha256::digest(user).into());
        let name = format!("{}:user:{hash}", self.shared.prefix);
        Place { server: server_of(&self.shared.servers, &hash), name }
    }
}

impl MemcachedStore {
    /// The keys in a user's list.
    async fn keys_in(&self, list: &Place<'_>) -> Result<Vec<StoreKey>, StoreError> {
        Ok(match self.get("sessions_of", list).await? {
            Found::Live(list, _) => list.payload.as_chunks().0.iter().map(key_of).collect(),
            Found::Expired(_) | Found::Nothing => Vec::new(),
        })
    }
}

impl UserIndex for MemcachedStore {
    async fn sessions_of(&self, user: &str) -> Result<Vec<(StoreKey, Record)>, StoreError> {
        let list = self.list_of(user);
        let mut looks = Looks::of(self.keys_in(&list).await?);
        loop {
            let mut found = Vec::new();
            for key in looks.keys() {
                if let Some(record) = self.load(key).await?
                    && record.user.as_deref() == Some(user)
                {
                    found.push((*key, record));
                }
            }
            if !looks.has_missed(&found) || !looks.again(self.keys_in(&list).await?, &found) {
                return Ok(found);
            }
        }
    }

    async fn delete_sessions_of(
        &self,
        user: &str,
        except: Option<&StoreKey>,
    ) -> Result<u64, StoreError> {
        let mut ended = Vec::new();
        let mut outcome = Ok(());
        for (key, _) in self.sessions_of(user).await? {
            if Some(&key) != except {
                match self.end("delete_sessions_of", &key).await {
                    Ok(Some(_)) => ended.push(key),
                    Ok(None) => {}
                    Err(error) => outcome = Err(error),
                }
            }
        }
        // At once, whatever became of the other deletions: the list is as long as there are sessions.
        self.leave("delete_sessions_of", user, &ended).await;
        outcome.map(|()| ended.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_has_each_session_once_and_forgets_what_is_over() {
        let [one, two] = [1, 2].map(|byte| StoreKey::from_bytes([byte; KEY]));
        let list = with_entry(&[], &one, 10, 5);
        let list = with_entry(&list, &two, 20, 5);
        let list = with_entry(&list, &two, 21, 5);
        let shown = |list: &[u8]| -> Vec<_> {
            list.as_chunks().0.iter().map(|entry| (key_of(entry), day_of(entry))).collect()
        };
        assert_eq!(shown(&list), [(one, 10), (two, 21)]);
        assert_eq!(shown(&with_entry(&list, &two, 22, 10)), [(one, 10), (two, 22)]);
        assert_eq!(shown(&with_entry(&list, &two, 22, 11)), [(two, 22)]);
        assert_eq!(without(&list, &[one]).as_deref().map(shown), Some(vec![(two, 21)]));
        assert_eq!(without(&list, &[two, one]), Some(Vec::new()));
        assert_eq!(without(&list, &[StoreKey::from_bytes([3; KEY])]), None);
    }
}
