//! How a browser that names its binding is led to the session: by a small record beside that of the
//! session, under a key made of the binding's id. It names the keys under which the session may be, for
//! that changes with each renewal and the binding's id does not.
//!
//! ```text
//! payload = MARK (one byte)  store-key (32 bytes)*      the newest first
//! ```
//!
//! A renewal writes its new key before it creates the new record: whichever of two renewals wins, and
//! wherever one is cut short, one of the keys leads to the session.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use sha2::{Digest, Sha256};

use crate::{
    error::store::StoreError,
    identity::id::StoreKey,
    record::{Record, binding::BindingId, next_version},
};

/// No payload of a session begins like this.
const MARK: u8 = 0xfd;

/// How many keys a link names. Of those that renewals have left behind, or have not come to, the oldest
/// give way: so many processes may renew a session at the same time, and the way to the winner stays.
const MOST_KEYS: usize = 8;

const AT_HAND: Duration = Duration::from_secs(60);

/// Where the link of a binding is. No session's key is made of the same bytes.
pub(crate) fn link_key(id: &BindingId) -> StoreKey {
    let hash = Sha256::new_with_prefix("sessions: link of a device binding: ");
    StoreKey::from_bytes(hash.chain_update(id.as_bytes()).finalize().into())
}

/// Whose link it is, to a store: nobody's who has sessions, for those have a `:` in their names. So a
/// store that has to make room takes it for a session with a logged-in user, which it is as
/// good as, and no list of anybody's sessions has it.
fn owner(id: &BindingId) -> Arc<str> {
    format!("device binding {}", link_key(id)).into()
}

/// The first link to the session with one of these keys.
pub(crate) fn first_link(
    id: &BindingId,
    sessions: &[StoreKey],
    now: SystemTime,
    expires_at: SystemTime,
) -> Record {
    Record {
        version: 1,
        created_at: now,
        expires_at,
        user: Some(owner(id)),
        payload: payload(sessions),
    }
}

/// The link that leads to these session keys too, and to them first.
///
/// # Errors
///
/// If the version of `link` is the last.
pub(crate) fn with_session(
    link: &Record,
    sessions: &[StoreKey],
    expires_at: SystemTime,
) -> Result<Record, StoreError> {
    let mut keys = session_keys(link);
    keys.retain(|key| !sessions.contains(key));
    keys.splice(..0, sessions.iter().copied());
    keys.truncate(MOST_KEYS);
    let version = next_version(link.version)?;
    let expires_at = expires_at.max(link.expires_at);
    Ok(Record { version, expires_at, payload: payload(&keys), ..link.clone() })
}

/// What takes the place of a link whose session is over, for as long as another process may have the link
/// at hand.
///
/// # Errors
///
/// If the version of `link` is the last.
pub(crate) fn without_session(link: &Record, now: SystemTime) -> Result<Record, StoreError> {
    let version = next_version(link.version)?;
    let expires_at = link.expires_at.min(now + AT_HAND);
    Ok(Record { version, expires_at, payload: payload(&[]), ..link.clone() })
}

/// Where the session may be; nowhere if this is no link.
pub(crate) fn session_keys(link: &Record) -> Vec<StoreKey> {
    match link.payload.split_first() {
        Some((&MARK, keys)) => {
            let (keys, _) = keys.as_chunks();
            keys.iter().take(MOST_KEYS).map(|key| StoreKey::from_bytes(*key)).collect()
        }
        _ => Vec::new(),
    }
}

fn payload(keys: &[StoreKey]) -> Arc<[u8]> {
    let keys = keys.iter().flat_map(|key| key.as_bytes().iter().copied());
    std::iter::once(MARK).chain(keys).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{data::payload, record::tombstone::is_tombstone};

    #[test]
    fn a_link_leads_to_the_last_few_keys_the_newest_first() {
        let (id, now) = (BindingId::from_bytes([7; 16]), SystemTime::UNIX_EPOCH);
        let key = |byte| StoreKey::from_bytes([byte; 32]);
        let mut link = first_link(&id, &[key(1)], now, now);
        assert_eq!(session_keys(&link), [key(1)]);
        for (byte, keys) in [
            (2, vec![2, 1]),
            (2, vec![2, 1]),
            (3, vec![3, 2, 1]),
            (1, vec![1, 3, 2]),
            (4, vec![4, 1, 3, 2]),
            (5, vec![5, 4, 1, 3, 2]),
            (6, vec![6, 5, 4, 1, 3, 2]),
            (7, vec![7, 6, 5, 4, 1, 3, 2]),
            (8, vec![8, 7, 6, 5, 4, 1, 3, 2]),
            (9, vec![9, 8, 7, 6, 5, 4, 1, 3]),
        ] {
            let version = link.version;
            link = with_session(&link, &[key(byte)], now).unwrap();
            assert_eq!(link.version, version + 1);
            assert_eq!(session_keys(&link), keys.into_iter().map(key).collect::<Vec<_>>());
        }
        // However often a renewal fails, the key that it began with stays.
        for byte in 10..100 {
            link = with_session(&link, &[key(byte), key(3)], now).unwrap();
            assert_eq!(session_keys(&link)[..2], [key(byte), key(3)]);
        }
        assert_eq!(session_keys(&link).len(), MOST_KEYS);
        let over = without_session(&link, now).unwrap();
        assert_eq!((session_keys(&over), over.version), (vec![], link.version + 1));
    }

    #[test]
    fn a_link_is_no_session_and_a_session_no_link() {
        let (id, now) = (BindingId::from_bytes([7; 16]), SystemTime::UNIX_EPOCH);
        let link = first_link(&id, &[StoreKey::from_bytes([1; 32])], now, now);
        assert!(payload::check(&link.payload).is_err());
        assert!(!is_tombstone(&link));
        assert!(!link.user.as_ref().unwrap().contains(':'), "it is no user's");
        for bytes in [&[][..], &[0], &[1, 0], &[1; 33]] {
            assert!(session_keys(&Record { payload: bytes.into(), ..link.clone() }).is_empty());
        }
    }
}
