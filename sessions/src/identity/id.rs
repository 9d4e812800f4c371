//! Session ids, and the keys under which stores know them.

use std::{
    collections::HashMap,
    fmt,
    hash::{BuildHasherDefault, Hasher},
};

use sha2::{Digest, Sha256};

use crate::error::NoRandomness;

/// How many random bytes a session id has: 128 bits, twice what OWASP asks for.
pub(crate) const ID_LENGTH: usize = 16;

/// The secret that a cookie carries. A client that knows the secret holds the session.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct SessionId([u8; ID_LENGTH]);

impl SessionId {
    /// A new id from the operating system's generator.
    pub(crate) fn generate() -> Result<Self, NoRandomness> {
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

/// As many random bytes as an id has, that nobody else gets: asked of the system each time.
///
/// To draw many at once and keep the rest for later would be quicker by a few tenths of a
/// microsecond, and would hand out the same ids twice in a process that is a copy of another: one that
/// was forked off (which a process id does not tell, where both are number 1 of their own PID
/// namespaces), or a virtual machine that was started twice from one snapshot. The kernel's generator
/// is told of the latter, and never knows the former as anything but another caller.
pub(crate) fn random() -> Result<[u8; ID_LENGTH], NoRandomness> {
    Ok(random_from(getrandom::fill)?)
}

fn random_from<E>(fill: impl FnOnce(&mut [u8]) -> Result<(), E>) -> Result<[u8; ID_LENGTH], E> {
    let mut bytes = [0; ID_LENGTH];
    fill(&mut bytes)?;
    Ok(bytes)
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

    /// The key as `Display` writes it: 64 lower-case hexadecimal digits.
    fn digits(&self) -> [u8; 64] {
        let mut digits = [0; 64];
        for (byte, pair) in self.0.iter().zip(digits.as_chunks_mut().0) {
            *pair = [byte >> 4, byte & 15].map(|digit| b"0123456789abcdef"[usize::from(digit)]);
        }
        digits
    }

    /// Writes the key's digits to the end of `text`: a store does so several times a request, and
    /// `format!` takes 1,500 instructions more.
    #[cfg(feature = "redis")]
    pub(crate) fn push_to(&self, text: &mut String) {
        text.push_str(str::from_utf8(&self.digits()).expect("ASCII"));
    }

    /// The key that has these hexadecimal digits.
    #[cfg(any(feature = "postgres", feature = "redis"))]
    pub(crate) fn from_digits(digits: &[u8]) -> Option<Self> {
        let digits: &[u8; 64] = digits.try_into().ok()?;
        let mut key = [0; 32];
        for (byte, [high, low]) in key.iter_mut().zip(digits.as_chunks().0) {
            *byte = digit(*high)? << 4 | digit(*low)?;
        }
        Some(Self(key))
    }
}

#[cfg(any(feature = "postgres", feature = "redis"))]
fn digit(letter: u8) -> Option<u8> {
    match letter {
        b'0'..=b'9' => Some(letter - b'0'),
        b'a'..=b'f' => Some(letter - b'a' + 10),
        b'A'..=b'F' => Some(letter - b'A' + 10),
        _ => None,
    }
}

/// A map from store keys, whose hash is a part of the key.
pub(crate) type KeyMap<V> = HashMap<StoreKey, V, BuildHasherDefault<KeyHasher>>;

/// A store key is a SHA-256 of something random: eight of its bytes are a hash.
#[derive(Default)]
pub(crate) struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn write(&mut self, bytes: &[u8]) {
        if let Some(first) = bytes.first_chunk() {
            self.0 = u64::from_ne_bytes(*first);
        }
    }

    fn write_usize(&mut self, _length: usize) {}

    fn finish(&self) -> u64 {
        self.0
    }
}

/// The key as 64 lower-case hexadecimal digits, for stores whose keys are text.
impl fmt::Display for StoreKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(str::from_utf8(&self.digits()).expect("ASCII"))
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

    /// So that a copy of the process, or of the machine, has none left over that are the same.
    #[test]
    fn each_id_is_drawn_by_itself_and_none_in_advance() {
        let mut drawn = Vec::new();
        for number in 0..100 {
            let id = random_from(|bytes| {
                drawn.push(bytes.len());
                bytes.fill(number);
                Ok::<(), ()>(())
            });
            assert_eq!(id, Ok([number; ID_LENGTH]));
        }
        assert_eq!(drawn, [ID_LENGTH; 100]);
        assert_eq!(random_from(|_| Err("no bytes")), Err("no bytes"));
    }

    #[test]
    fn of_many_ids_in_many_threads_no_two_are_the_same() {
        let threads = [(); 4].map(|()| {
            std::thread::spawn(|| -> Vec<_> {
                (0..10_000).map(|_| *SessionId::generate().unwrap().as_bytes()).collect()
            })
        });
        let mut ids: Vec<_> = threads.into_iter().flat_map(|it| it.join().unwrap()).collect();
        // Each bit is as often set as not.
        for bit in 0..128 {
            let set = ids.iter().filter(|id| id[bit / 8] >> (bit % 8) & 1 == 1).count();
            assert!((18_000..22_000).contains(&set), "bit {bit} is set in {set} of 40,000");
        }
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), 40_000);
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

    #[cfg(feature = "redis")]
    #[test]
    fn a_key_is_read_from_its_digits_and_from_nothing_else() {
        let key = StoreKey::from_bytes(std::array::from_fn(|at| (at * 37) as u8));
        let text = key.to_string();
        let mut pushed = "before ".to_string();
        key.push_to(&mut pushed);
        assert_eq!(pushed, format!("before {text}"));
        assert_eq!(StoreKey::from_digits(text.as_bytes()), Some(key));
        assert_eq!(StoreKey::from_digits(text.to_uppercase().as_bytes()), Some(key));
        let zeros = "0".repeat(62);
        for wrong in ["", &text[1..], &format!("{text}0"), &format!("{text} ")] {
            assert_eq!(StoreKey::from_digits(wrong.as_bytes()), None, "{wrong:?}");
        }
        for pair in ["+f", "-0", " 1", "0g", "/0", ":0", "@0", "G0", "`0", "ë"] {
            let wrong = format!("{pair}{zeros}");
            assert_eq!(StoreKey::from_digits(wrong.as_bytes()), None, "{pair:?}");
        }
    }
}
