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
    left: u32,
}

impl Looks {
    pub(crate) fn of(keys: Vec<StoreKey>) -> Self {
        Self { keys, left: MOST }
    }

    pub(crate) fn keys(&self) -> &[StoreKey] {
        &self.keys
    }

    /// Whether under one of the keys there is no session of the user.
    pub(crate) fn has_missed(&self, found: &[(StoreKey, Record)]) -> bool {
        found.len() < self.keys.len()
    }

    /// Takes the keys as they are now. False if none is new: then what was found is all.
    pub(crate) fn again(&mut self, now: Vec<StoreKey>) -> bool {
        self.left -= 1;
        let known: HashSet<&StoreKey> = self.keys.iter().collect();
        let is_any_new = self.left > 0 && now.iter().any(|key| !known.contains(key));
        if is_any_new {
            self.keys = now;
        }
        is_any_new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_new_keys_are_a_reason_to_look_again_and_not_for_ever() {
        let key = |number| StoreKey::from_bytes([number; 32]);
        let mut looks = Looks::of(vec![key(1), key(2)]);
        assert!(looks.has_missed(&[]) && !looks.again(vec![key(2)]) && !looks.again(vec![]));
        assert!(looks.again(vec![key(2), key(3)]));
        assert_eq!(looks.keys(), [key(2), key(3)]);
        let again = (4..100).take_while(|number| looks.again(vec![key(*number)])).count();
        assert!(again < 16, "{again}");
    }
}
