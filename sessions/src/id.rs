//! Session ids, and the keys under which stores know them.

use std::{cell::RefCell, fmt, process};

use sha2::{Digest, Sha256};
use zeroize::Zeroize;

/// How many random bytes a session id has: 128 bits, twice what OWASP asks for.
pub(crate) const ID_LENGTH: usize = 16;

/// The secret that a cookie carries. Whoever knows it holds the session.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct SessionId([u8; ID_LENGTH]);

impl SessionId {
    /// A new id from the operating system's generator.
    pub(crate) fn generate() -> Result<Self, getrandom::Error> {
        random().map(Self)
    }

    /// Only for ids whose signature has been verified.
    pub(crate) fn from_bytes(bytes: [u8; ID_LENGTH]) -> Self {
        Self(bytes)
    }

    pub(crate) fn as_bytes(&self) -> &[u8; ID_LENGTH] {
        &self.0
    }

    pub(crate) fn store_key(&self) -> StoreKey {
        StoreKey(Sha256::digest(self.0).into())
    }
}

/// As many random bytes as an id has, that nobody else gets.
pub(crate) fn random() -> Result<[u8; ID_LENGTH], getrandom::Error> {
    SUPPLY.with_borrow_mut(Supply::next)
}

/// Random bytes of this thread for the next ids: to ask the system for each costs several times
/// what everything else about an id does.
struct Supply {
    bytes: [u8; 32 * ID_LENGTH],
    left: usize,
    /// Whose bytes these are: a process that was forked off must not hand out the same ones.
    process: u32,
}

impl Supply {
    fn next(&mut self) -> Result<[u8; ID_LENGTH], getrandom::Error> {
        if self.left == 0 || self.process != process::id() {
            // Emptied first: if the system gives no bytes, there are none.
            self.left = 0;
            getrandom::fill(&mut self.bytes)?;
            self.left = self.bytes.len();
            self.process = process::id();
        }
        self.left -= ID_LENGTH;
        let next = &mut self.bytes[self.left..][..ID_LENGTH];
        let id = (&*next).try_into().expect("as long as an id");
        // It is nobody's business any more.
        next.zeroize();
        Ok(id)
    }
}

impl Drop for Supply {
    fn drop(&mut self) {
        self.bytes.zeroize();
    }
}

thread_local! {
    static SUPPLY: RefCell<Supply> =
        const { RefCell::new(Supply { bytes: [0; 32 * ID_LENGTH], left: 0, process: 0 }) };
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionId(<redacted>)")
    }
}

/// The name of a session in a [`Store`](crate::Store): the SHA-256 of its id.
///
/// It does not open the session: a leaked table or dump of a store cannot be turned into cookies.
/// Its bytes are as good as random, so that a store may use them as a hash, or to pick a shard.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StoreKey([u8; 32]);

impl StoreKey {
    /// The key with these bytes, as [`as_bytes`](Self::as_bytes) gave them.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes of the key.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// The key as 64 lower-case hexadecimal digits, for stores whose keys are text.
impl fmt::Display for StoreKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // At once: a store writes it several times a request.
        let mut text = [0; 64];
        for (byte, pair) in self.0.iter().zip(text.as_chunks_mut().0) {
            *pair = [byte >> 4, byte & 15].map(|digit| b"0123456789abcdef"[usize::from(digit)]);
        }
        f.write_str(str::from_utf8(&text).expect("ASCII"))
    }
}

/// The first four bytes: enough to tell two keys apart in a log.
impl fmt::Debug for StoreKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, ..] = self.0;
        write!(f, "StoreKey({a:02x}{b:02x}{c:02x}{d:02x}…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_differ_and_cannot_be_printed() {
        let (one, other) = (SessionId::generate().unwrap(), SessionId::generate().unwrap());
        assert_ne!(one, other);
        assert_eq!(format!("{one:?}"), "SessionId(<redacted>)");
    }

    #[test]
    fn an_id_is_handed_out_once_and_wiped() {
        let mut supply = Supply { bytes: [0; 32 * ID_LENGTH], left: 0, process: 0 };
        let mut seen: Vec<_> = (0..100).map(|_| supply.next().unwrap()).collect();
        assert!(supply.bytes[supply.left..].iter().all(|byte| *byte == 0));
        assert!(supply.bytes[..supply.left].iter().any(|byte| *byte != 0));
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 100);
    }

    #[test]
    fn a_forked_process_asks_for_bytes_of_its_own() {
        let mut supply = Supply { bytes: [0; 32 * ID_LENGTH], left: 0, process: 0 };
        supply.next().unwrap();
        let (before, rest) = (supply.bytes, supply.left);
        supply.process += 1;
        supply.next().unwrap();
        assert_eq!(supply.left, rest);
        assert_ne!(supply.bytes, before);
    }

    #[test]
    fn store_key_is_the_sha256_of_the_id() {
        let key = SessionId::from_bytes([0; 16]).store_key();
        // printf '\0%.0s' {1..16} | sha256sum
        assert_eq!(
            key.to_string(),
            "374708fff7719dd5979ec875d56cd2286f6d3cf7ec317a3b25632aab28ec37bb"
        );
        assert_eq!(format!("{key:?}"), "StoreKey(374708ff…)");
    }
}
