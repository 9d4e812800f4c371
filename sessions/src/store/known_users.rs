//! Whose sessions this process has seen lately, so that a look at one session can be a look at its
//! user's list as well.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::identity::id::StoreKey;

/// Of two sessions in one place the later one stays. An empty place is 24 bytes.
const PLACES: usize = 4096;

type Known = Option<Box<(StoreKey, Arc<str>)>>;

pub(super) struct KnownUsers {
    places: Box<[Mutex<Known>]>,
}

impl KnownUsers {
    pub(super) fn new() -> Self {
        Self { places: (0..PLACES).map(|_| Mutex::default()).collect() }
    }

    /// Notes whose session it is now.
    pub(super) fn put(&self, key: &StoreKey, user: Option<&Arc<str>>) {
        let mut place = self.place(key);
        let is_known = place.as_deref().is_some_and(|(of, known)| {
            of == key && user.is_some_and(|user| Arc::ptr_eq(user, known) || user == known)
        });
        if is_known {
            return;
        }
        let before = match user {
            Some(user) => place.replace(Box::new((*key, user.clone()))),
            None => place.take_if(|known| known.0 == *key),
        };
        drop(place);
        drop(before);
    }

    /// Whose session it was when this process saw it last.
    pub(super) fn get(&self, key: &StoreKey) -> Option<Arc<str>> {
        let place = self.place(key);
        place.as_deref().filter(|(of, _)| of == key).map(|(_, user)| user.clone())
    }

    fn place(&self, key: &StoreKey) -> MutexGuard<'_, Known> {
        let [first, second, ..] = key.as_bytes();
        let place = usize::from(u16::from_be_bytes([*first, *second])) % PLACES;
        self.places[place].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_those_that_were_seen_last() {
        let users = KnownUsers::new();
        let key = |last: u8| {
            StoreKey::from_bytes(std::array::from_fn(|at| if at == 31 { last } else { 0 }))
        };
        let [ann, bob] = ["ann", "bob"].map(Arc::<str>::from);
        assert_eq!(users.get(&key(1)), None);
        users.put(&key(1), Some(&ann));
        assert_eq!(users.get(&key(1)), Some(ann.clone()));
        assert_eq!(users.get(&key(2)), None, "in the same place");
        users.put(&key(2), None);
        assert_eq!(users.get(&key(1)), Some(ann.clone()), "of another session");
        users.put(&key(1), Some(&bob));
        assert_eq!(users.get(&key(1)), Some(bob));
        users.put(&key(2), Some(&ann));
        assert_eq!((users.get(&key(1)), users.get(&key(2))), (None, Some(ann)));
        users.put(&key(2), None);
        assert_eq!(users.get(&key(2)), None);
    }
}
