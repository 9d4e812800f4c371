//! The claim of an old session: who has adopted it, and what has become of that. A small record in the
//! layer's store, under a key that is made of the old session's id.
//!
//! ```text
//! payload = MARK (one byte)  state (one byte)  nonce (16 bytes)  store key of the session (32 bytes)
//!
//! none, free ──create, replace──► adopting ──replace──► adopted
//!                                  │    ▲
//!              free ◄──replace─────┘    └── replace, with another nonce: a process that takes over
//! ```

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use sha2::{Digest, Sha256};

use super::OldId;
use crate::{
    error::NoRandomness,
    identity::{
        id::{ID_LENGTH, SessionId, StoreKey, random},
        keys::Keys,
    },
    record::Record,
};

/// No payload of a session begins like this, nor a tombstone's, nor the link of a device binding.
const MARK: u8 = 0xfc;

/// How long an old cookie opens the session that was made of its own.
pub(crate) const GRACE: Duration = Duration::from_secs(10 * 60);

/// How long a claim stays after its old session has ended for good: longer than any request that has read
/// the old session before.
pub(crate) const AFTER_END: Duration = Duration::from_secs(24 * 60 * 60);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// An adoption has failed: the next request may try.
    Free,
    Adopting,
    Adopted,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) state: State,
    nonce: [u8; ID_LENGTH],
    session: StoreKey,
}

/// Where the claim of an old session is. The prefix is that of the layer's users: its type and tenant.
pub(crate) fn key_of(prefix: &str, old: &OldId) -> StoreKey {
    let hash = Sha256::new_with_prefix("sessions: claim of an old session, version 1: ");
    // No prefix has a zero byte, so that no other pair gives the same bytes.
    let hash = hash.chain_update(prefix).chain_update([0]).chain_update(old.as_str());
    StoreKey::from_bytes(hash.finalize().into())
}

impl Claim {
    /// A new claim, and the id of the session that it leads to.
    pub(crate) fn begin(keys: &Keys, old: &OldId) -> Result<(Self, SessionId), NoRandomness> {
        let nonce = random()?;
        let id = keys.adopted_id(&nonce, old.as_str());
        Ok((Self { state: State::Adopting, nonce, session: id.store_key() }, id))
    }

    pub(crate) fn with_state(self, state: State) -> Self {
        Self { state, ..self }
    }

    /// The id of the session that the claim leads to; `None` if the key that it was made with is gone.
    pub(crate) fn session_id(&self, keys: &Keys, old: &OldId) -> Option<SessionId> {
        let mut ids = keys.adopted_ids(&self.nonce, old.as_str());
        ids.find(|id| id.store_key() == self.session)
    }

    pub(crate) fn record(
        &self,
        key: &StoreKey,
        version: u64,
        now: SystemTime,
        expires_at: SystemTime,
    ) -> Record {
        let state = match self.state {
            State::Free => 0,
            State::Adopting => 1,
            State::Adopted => 2,
        };
        let payload = [&[MARK, state], &self.nonce[..], self.session.as_bytes()].concat();
        // A store that has to make room takes it for the session of a user, and no list of anybody's
        // sessions has it: the names of users have a `:`.
        let user: Arc<str> = format!("adoption {key}").into();
        Record { version, created_at: now, expires_at, user: Some(user), payload: payload.into() }
    }

    /// `None` if the record is no claim, or one of a later build.
    pub(crate) fn from_record(record: &Record) -> Option<Self> {
        let [MARK, state, rest @ ..] = &*record.payload else { return None };
        let state = match state {
            0 => State::Free,
            1 => State::Adopting,
            2 => State::Adopted,
            _ => return None,
        };
        let (nonce, session) = rest.split_first_chunk()?;
        let session = StoreKey::from_bytes(session.try_into().ok()?);
        Some(Self { state, nonce: *nonce, session })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_comes_back_from_its_record() {
        let (keys, old) = (Keys::generate(), OldId::new("old"));
        let (claim, id) = Claim::begin(&keys, &old).unwrap();
        let key = key_of("Customer:", &old);
        let now = SystemTime::now();
        for state in [State::Free, State::Adopting, State::Adopted] {
            let claim = claim.with_state(state);
            let record = claim.record(&key, 1, now, now);
            assert_eq!(Claim::from_record(&record), Some(claim));
            for end in 0..record.payload.len() {
                let cut = Record { payload: record.payload[..end].into(), ..record.clone() };
                assert_eq!(Claim::from_record(&cut), None);
            }
        }
        assert_eq!(claim.session_id(&keys, &old), Some(id));
    }

    #[test]
    fn a_session_is_found_by_the_keys_and_the_old_id_alone() {
        let (keys, old) = (Keys::generate(), OldId::new("old"));
        let (claim, id) = Claim::begin(&keys, &old).unwrap();
        assert_eq!(claim.session_id(&keys, &OldId::new("another")), None);
        assert_eq!(claim.session_id(&Keys::generate(), &old), None);
        let rotated = Keys::generate().with_previous(keys);
        assert_eq!(claim.session_id(&rotated, &old), Some(id));
        assert_ne!(Claim::begin(&rotated, &old).unwrap().1, id);
    }

    #[test]
    fn claims_of_other_types_and_other_sessions_are_others() {
        let keys: Vec<_> = [("a:", "b"), ("a:", "c"), ("b:", "b"), ("a", ":b")]
            .map(|(prefix, id)| key_of(prefix, &OldId::new(id)))
            .into();
        for (at, key) in keys.iter().enumerate() {
            assert!(!keys[..at].contains(key));
        }
    }
}
