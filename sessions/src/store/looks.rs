//! How an index of users that is read in two steps, first the keys and then the records, misses no session.

use std::collections::HashSet;

use crate::{identity::id::StoreKey, record::Record};

/// A user who begins sessions all the time cannot hold a list up for ever.
const MOST: u32 = 16;

/// The keys that a user's sessions are looked for under.
///
/// A session that exchanges its id between the two steps is not found under the old one, and has been in the index
/// under the new one since before that: whoever has not found one reads the keys again.
pub(crate) struct Looks {
    keys: Vec<StoreKey>,
    known: HashSet<StoreKey>,
    left: u32,
}

impl Looks {
    pub(crate) fn of(keys: Vec<StoreKey>) -> Self {
        let known = keys.iter().copied().collect();
        Self { keys, known, left: MOST }
    }

    pub(crate) fn keys(&self) -> &[StoreKey] {
        &self.keys
    }

    /// Whether under one of the keys there is no session of the user.
    pub(crate) fn has_missed(&self, found: &[(StoreKey, Record)]) -> bool {
        found.len() < self.keys.len()
    }

    /// Takes the keys as they are now. False if none is new: then what was found is all. Else the next look is at
    /// what was found and at the new ones: what was not found is not the user's again.
    pub(crate) fn again(&mut self, now: Vec<StoreKey>, found: &[(StoreKey, Record)]) -> bool {
        self.left -= 1;
        let new: Vec<StoreKey> = now.into_iter().filter(|key| self.known.insert(*key)).collect();
        if new.is_empty() || self.left == 0 {
            return false;
        }
        self.keys = found.iter().map(|(key, _)| *key).chain(new).collect();
        true
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn only_new_keys_are_a_reason_to_look_again_and_not_for_ever() {
        let key = |number| StoreKey::from_bytes([number; 32]);
        let now = SystemTime::now();
        let found = [(key(2), Record::new(1, now, now, []))];
        let mut looks = Looks::of(vec![key(1), key(2)]);
        assert!(looks.has_missed(&found) && !looks.again(vec![key(2)], &found));
        assert!(looks.again(vec![key(2), key(1), key(3)], &found));
        assert_eq!(looks.keys(), [key(2), key(3)]);
        assert!(looks.has_missed(&found) && !looks.again(vec![key(1), key(3)], &found));
        let again = (4..100).take_while(|number| looks.again(vec![key(*number)], &[])).count();
        assert!(again < 16, "{again}");
    }
}
