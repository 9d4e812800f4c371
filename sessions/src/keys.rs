//! The keys that sign cookies and CSRF tokens.

use std::{fmt, sync::Arc};

use base64::{
    Engine,
    alphabet::{STANDARD, URL_SAFE},
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::{error::BuildError, id::ID_LENGTH};

/// As many bytes as HMAC-SHA256 gives; a key with fewer could be guessed with less work.
const SHORTEST_KEY: usize = 32;

/// The length of a signature in bytes.
pub(crate) const TAG_LENGTH: usize = 32;

type HmacSha256 = Hmac<Sha256>;

/// What is made of the bytes of one key: the bytes themselves are used for nothing else.
#[derive(Clone)]
struct Key {
    signature: HmacSha256,
    csrf: HmacSha256,
    #[cfg(feature = "private-cookie")]
    seal: chacha20poly1305::XChaCha20Poly1305,
    #[cfg(feature = "secret")]
    secret: chacha20poly1305::XChaCha20Poly1305,
}

/// The signing keys of a layer: the first signs, all of them verify.
///
/// A cookie carries the session's id and the HMAC-SHA256 over the cookie's name and that id. To
/// rotate, put the new key in front and keep the old one until its cookies have gone; a cookie that
/// was signed by an old key opens its session and comes back signed by the new one.
///
/// ```
/// # fn main() -> Result<(), sessions::BuildError> {
/// use sessions::Keys;
///
/// let old = Keys::from_base64("b2xkIG9sZCBvbGQgb2xkIG9sZCBvbGQgb2xkIG9sZCE=")?;
/// let new = Keys::from_base64("bmV3IG5ldyBuZXcgbmV3IG5ldyBuZXcgbmV3IG5ldyE=")?;
/// let keys = new.with_previous(old);
/// # Ok(()) }
/// ```
///
/// Cloning shares the keys; they are wiped from memory when the last clone is dropped.
#[derive(Clone)]
pub struct Keys(Arc<[Key]>);

impl Keys {
    /// A new random key. Cookies that it signed are worth nothing after a restart, nor in another
    /// process: for tests, and for programs whose sessions may end with them.
    ///
    /// # Panics
    ///
    /// If the operating system gives no random bytes.
    pub fn generate() -> Self {
        let mut bytes = Zeroizing::new([0; SHORTEST_KEY]);
        getrandom::fill(&mut *bytes).expect("the operating system gives random bytes");
        Self::derive(&*bytes)
    }

    /// The key made of these bytes, at least 32, from a generator of random bytes and not from
    /// somebody's head.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, BuildError> {
        if bytes.len() < SHORTEST_KEY {
            return Err(BuildError::new(format!(
                "a session key needs at least {SHORTEST_KEY} random bytes, this one has {}: make \
                 one with `openssl rand -base64 32`",
                bytes.len()
            )));
        }
        if bytes.iter().all(|byte| *byte == bytes[0]) {
            return Err(BuildError::new(
                "the session key is one byte over and over: make one with `openssl rand -base64 32`",
            ));
        }
        Ok(Self::derive(bytes))
    }

    /// The key in base64, of either alphabet, padded or not.
    pub fn from_base64(text: &str) -> Result<Self, BuildError> {
        const CONFIG: GeneralPurposeConfig =
            GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
        let text = text.trim();
        let alphabet = if text.contains(['-', '_']) { &URL_SAFE } else { &STANDARD };
        // Not the decoder's error: it quotes a byte of the key.
        let bytes = GeneralPurpose::new(alphabet, CONFIG).decode(text).map_err(|_| {
            BuildError::new("a session key is not base64: make one with `openssl rand -base64 32`")
        })?;
        Self::from_bytes(&Zeroizing::new(bytes))
    }

    /// The keys in an environment variable: base64, separated by commas or white space, the one
    /// that signs first.
    pub fn from_env(variable: &str) -> Result<Self, BuildError> {
        let text = std::env::var(variable).map_err(|_| {
            BuildError::new(format!(
                "the environment variable {variable} holds no session key: set it to the output of \
                 `openssl rand -base64 32`"
            ))
        })?;
        let text = Zeroizing::new(text);
        text.split(|c: char| c == ',' || c.is_whitespace())
            .filter(|key| !key.is_empty())
            .map(Self::from_base64)
            .reduce(|keys, older| Ok(keys?.with_previous(older?)))
            .unwrap_or_else(|| Err(BuildError::new("it is empty")))
            .map_err(|error| BuildError::new(format!("environment variable {variable}: {error}")))
    }

    /// These keys, and behind them others that verify but do not sign.
    #[must_use]
    pub fn with_previous(self, older: Keys) -> Self {
        Self(self.0.iter().chain(older.0.iter()).cloned().collect())
    }

    fn derive(bytes: &[u8]) -> Self {
        let root = keyed(bytes);
        let subkey = |purpose: &[u8]| {
            let mut mac = root.clone();
            mac.update(purpose);
            Zeroizing::new(<[u8; TAG_LENGTH]>::from(mac.finalize().into_bytes()))
        };
        Self(Arc::new([Key {
            signature: keyed(&*subkey(b"sessions: cookie signature, version 1")),
            csrf: keyed(&*subkey(b"sessions: CSRF token, version 1")),
            #[cfg(feature = "private-cookie")]
            seal: KeyInit::new((&*subkey(b"sessions: private cookie, version 1")).into()),
            #[cfg(feature = "secret")]
            secret: KeyInit::new((&*subkey(b"sessions: secret field, version 1")).into()),
        }]))
    }

    #[cfg(feature = "private-cookie")]
    pub(crate) fn first_seal(&self) -> &chacha20poly1305::XChaCha20Poly1305 {
        &self.0[0].seal
    }

    /// The ciphers of private cookies: the first seals, all of them open.
    #[cfg(feature = "private-cookie")]
    pub(crate) fn seals(&self) -> impl Iterator<Item = &chacha20poly1305::XChaCha20Poly1305> {
        self.0.iter().map(|key| &key.seal)
    }

    #[cfg(feature = "secret")]
    pub(crate) fn first_secret(&self) -> &chacha20poly1305::XChaCha20Poly1305 {
        &self.0[0].secret
    }

    /// The ciphers of secret fields: the first seals, all of them open.
    #[cfg(feature = "secret")]
    pub(crate) fn secrets(&self) -> impl Iterator<Item = &chacha20poly1305::XChaCha20Poly1305> {
        self.0.iter().map(|key| &key.secret)
    }

    /// Signs `id` for a cookie called `name`, with the first key.
    pub(crate) fn sign(&self, name: &str, id: &[u8; ID_LENGTH]) -> [u8; TAG_LENGTH] {
        mac(&self.0[0].signature, name, id).finalize().into_bytes().into()
    }

    /// Which key signed this, counted from the first. Takes the same time wherever a wrong tag
    /// differs.
    pub(crate) fn verify(
        &self,
        name: &str,
        id: &[u8; ID_LENGTH],
        tag: &[u8; TAG_LENGTH],
    ) -> Option<usize> {
        self.0.iter().position(|key| mac(&key.signature, name, id).verify(tag.into()).is_ok())
    }

    /// What a CSRF token of the session `id`, whose cookie is called `name`, has to prove; made with
    /// the first key.
    pub(crate) fn csrf_tag(&self, name: &str, id: &[u8; ID_LENGTH]) -> [u8; TAG_LENGTH] {
        mac(&self.0[0].csrf, name, id).finalize().into_bytes().into()
    }

    /// Whether any of the keys made this tag. Takes the same time wherever a wrong tag differs.
    pub(crate) fn verify_csrf_tag(
        &self,
        name: &str,
        id: &[u8; ID_LENGTH],
        tag: &[u8; TAG_LENGTH],
    ) -> bool {
        self.0.iter().any(|key| mac(&key.csrf, name, id).verify(tag.into()).is_ok())
    }
}

fn keyed(key: &[u8]) -> HmacSha256 {
    <HmacSha256 as KeyInit>::new_from_slice(key).expect("HMAC takes a key of any length")
}

/// A name cannot contain the zero byte, so that no other pair of name and id gives this message.
fn mac(key: &HmacSha256, name: &str, id: &[u8; ID_LENGTH]) -> HmacSha256 {
    let mut mac = key.clone();
    mac.update(name.as_bytes());
    mac.update(&[0]);
    mac.update(id);
    mac
}

/// Shows how many keys there are, and nothing of them.
impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keys(<{} redacted>)", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use zeroize::ZeroizeOnDrop;

    use super::*;

    const ID: [u8; ID_LENGTH] = *b"sixteen bytes ID";
    const TEXT: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

    fn counting() -> Vec<u8> {
        (0..32).collect()
    }

    /// Cookies that are out there must stay good.
    #[test]
    fn golden_signature() {
        // k=$(printf 'sessions: cookie signature, version 1' | openssl dgst -sha256 -mac HMAC \
        //     -macopt hexkey:000102…1f); printf '__Host-id\0sixteen bytes ID' | openssl dgst … $k
        let tag = Keys::from_bytes(&counting()).unwrap().sign("__Host-id", &ID);
        let hex: String = tag.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "af2a92a5ca6e6554d79ac822b8f791515cb4c5f64a0c1ba5a9eace00b3b3944c");
    }

    #[test]
    fn a_signature_holds_for_its_key_its_name_and_its_id() {
        let keys = Keys::generate();
        let tag = keys.sign("a", &ID);
        assert_eq!(keys.verify("a", &ID, &tag), Some(0));
        assert_eq!(keys.verify("b", &ID, &tag), None);
        assert_eq!(keys.verify("a", b"sixteen bytes iD", &tag), None);
        assert_eq!(Keys::generate().verify("a", &ID, &tag), None);
        for bit in 0..TAG_LENGTH * 8 {
            let mut tag = tag;
            tag[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(keys.verify("a", &ID, &tag), None, "bit {bit}");
        }
    }

    #[test]
    fn the_first_key_signs_and_all_verify() {
        let (new, old, older) = (Keys::generate(), Keys::generate(), Keys::generate());
        let ring = new.clone().with_previous(old.clone()).with_previous(older.clone());
        for keys in [&new, &old, &older] {
            assert!(ring.verify_csrf_tag("a", &ID, &keys.csrf_tag("a", &ID)));
        }
        assert!(new.verify_csrf_tag("a", &ID, &ring.csrf_tag("a", &ID)));
        let place = |keys: &Keys| ring.verify("a", &ID, &keys.sign("a", &ID));
        assert_eq!([&new, &old, &older].map(place), [Some(0), Some(1), Some(2)]);
        assert_eq!(new.verify("a", &ID, &ring.sign("a", &ID)), Some(0));
    }

    /// Forms that are open in a browser must stay good.
    #[test]
    fn golden_csrf_tag() {
        // As above, with k=… 'sessions: CSRF token, version 1'.
        let tag = Keys::from_bytes(&counting()).unwrap().csrf_tag("__Host-id", &ID);
        let hex: String = tag.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "1f878353c4e08da660af05654b6a99d37c7fa5661e8536cba0a947cb3808099d");
    }

    #[test]
    fn a_csrf_tag_is_no_signature() {
        let keys = Keys::generate();
        let (tag, signature) = (keys.csrf_tag("a", &ID), keys.sign("a", &ID));
        assert_eq!(keys.verify("a", &ID, &tag), None);
        assert!(!keys.verify_csrf_tag("a", &ID, &signature));
        assert!(!keys.verify_csrf_tag("b", &ID, &tag));
        assert!(!Keys::generate().verify_csrf_tag("a", &ID, &tag));
    }

    #[test]
    fn every_spelling_of_a_key_is_the_same_key() {
        let tag = Keys::from_bytes(&counting()).unwrap().sign("a", &ID);
        for text in [TEXT, TEXT.trim_end_matches('='), &format!(" {TEXT}\n")] {
            assert_eq!(Keys::from_base64(text).unwrap().sign("a", &ID), tag);
        }
        let bytes = [0xfb; 33].map(|byte| byte).into_iter().chain([1]).collect::<Vec<u8>>();
        let tag = Keys::from_bytes(&bytes).unwrap().sign("a", &ID);
        let (standard, url) = (
            base64::prelude::BASE64_STANDARD.encode(&bytes),
            base64::prelude::BASE64_URL_SAFE_NO_PAD.encode(&bytes),
        );
        assert!(standard.contains('+') && url.contains('-'));
        for text in [standard, url] {
            assert_eq!(Keys::from_base64(&text).unwrap().sign("a", &ID), tag);
        }
    }

    #[test]
    fn weak_keys_are_refused_in_words() {
        let message = |result: Result<Keys, BuildError>| result.unwrap_err().to_string();
        assert!(message(Keys::from_bytes(&[7; 31])).contains("this one has 31"));
        assert!(message(Keys::from_bytes(&[7; 64])).contains("over and over"));
        assert!(message(Keys::from_base64("c2hvcnQ=")).contains("at least 32"));
        let error = message(Keys::from_base64("§ecret, not base64"));
        assert!(error.contains("not base64") && !error.contains("ecret,"), "{error}");
        assert!(message(Keys::from_env("SESSIONS_TEST_NO_SUCH_KEY")).contains("openssl rand"));
    }

    #[test]
    fn debug_does_not_leak_a_key() {
        assert_eq!(format!("{:?}", Keys::from_base64(TEXT).unwrap()), "Keys(<1 redacted>)");
    }

    #[test]
    fn keys_are_wiped_on_drop() {
        fn wiped<T: ZeroizeOnDrop>() {}
        // An HMAC with a key is two states of this hash.
        wiped::<Sha256>();
    }
}
