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

#[cfg(feature = "adopt")]
use crate::identity::id::SessionId;
use crate::{error::BuildError, identity::id::ID_LENGTH};

/// As many bytes as HMAC-SHA256 gives; a key with fewer could be guessed with less work.
const SHORTEST_KEY: usize = 32;

/// The length of a signature in bytes.
pub(crate) const TAG_LENGTH: usize = 32;

type HmacSha256 = Hmac<Sha256>;

/// What is made of the bytes of one key: the bytes themselves are used for nothing else.
#[derive(Clone)]
struct Key {
    /// Everything below is derived from it, and the keys of a tenant and of a type.
    root: HmacSha256,
    label: Label,
    signature: HmacSha256,
    csrf: HmacSha256,
    #[cfg(feature = "device-bound")]
    device: HmacSha256,
    #[cfg(feature = "private-cookie")]
    seal: chacha20poly1305::XChaCha20Poly1305,
    #[cfg(feature = "secret")]
    secret: chacha20poly1305::XChaCha20Poly1305,
}

/// The signing keys of a layer: the first signs, all of them verify.
///
/// A cookie carries the session's id and the HMAC-SHA256 over the cookie's name and that id. To
/// rotate, put the new key in front and keep the old one until its cookies have gone; a cookie that
/// was signed by an old key opens its session and comes back signed by the new one. Where several processes
/// serve, also while one replaces another, all of them need the new key behind the old one first: see
/// [`replace_keys`](crate::SessionLayer::replace_keys).
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
/// What a layer signs and encrypts holds for its type of session alone: the layer derives keys of
/// its own from these and from the [name of the type](macro@crate::Session#the-name-of-the-type). For the
/// tenants of one application there is [`for_tenant`](Self::for_tenant).
///
/// Cloning shares the keys; they are wiped from memory when the last clone is dropped.
#[derive(Clone)]
pub struct Keys {
    ring: Arc<[Key]>,
    /// Whose keys they are, written so that neither `:` nor `@` stands in it.
    tenant: Option<Arc<str>>,
}

/// Names a key without giving it away.
pub(crate) type Label = [u8; TAG_LENGTH];

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
        Self::from_list(&Zeroizing::new(text))
            .map_err(|error| BuildError::new(format!("environment variable {variable}: {error}")))
    }

    /// Keys in base64, separated by commas or white space.
    fn from_list(text: &str) -> Result<Self, BuildError> {
        text.split(|c: char| c == ',' || c.is_whitespace())
            .filter(|key| !key.is_empty())
            .map(Self::from_base64)
            .reduce(|keys, older| Ok(keys?.with_previous(older?)))
            .unwrap_or_else(|| Err(BuildError::new("it is empty")))
    }

    /// These keys, and behind them others that verify but do not sign.
    #[must_use]
    pub fn with_previous(self, older: Keys) -> Self {
        let ring = self.ring.iter().chain(older.ring.iter()).cloned().collect();
        Self { ring, ..self }
    }

    /// The keys of one tenant, derived from these and the tenant's name: for an application that
    /// serves several parties who must know nothing of each other, as shops by their host names.
    ///
    /// Tenants have nothing in common, although they share a store and a cookie's name: no cookie and
    /// no CSRF token of one is good at another, no secret field of one can be read by another, and the
    /// user 7 of one is not the user 7 of another, neither in a list of sessions nor when they end.
    ///
    /// ```
    /// # #[cfg(all(feature = "axum", feature = "derive", feature = "memory", feature = "bincode"))] {
    /// # use axum::{Router, routing::get};
    /// # use sessions::{Keys, MemoryStore, Session, SessionLayer};
    /// # #[derive(Session)] struct Customer { #[session(user)] user: Option<u64> }
    /// # async fn index(session: Session<Customer>) {}
    /// let (store, keys) = (MemoryStore::new(), Keys::generate());
    /// // One for each host name; which of them a request goes to, its `Host` says.
    /// let shop_of = |tenant: &str| -> Router {
    ///     let layer = SessionLayer::<Customer>::new(store.clone(), keys.for_tenant(tenant));
    ///     Router::new().route("/", get(index)).layer(layer)
    /// };
    /// let shops = ["teapots.example", "kettles.example"].map(shop_of);
    /// # }
    /// ```
    ///
    /// The name is taken byte by byte: `Teapots.example` is another tenant than `teapots.example`.
    /// The tenant of a tenant is a tenant too. All keys of a rotation become the tenant's.
    #[must_use]
    pub fn for_tenant(&self, tenant: &str) -> Self {
        let written = written_tenant(tenant);
        let tenant_of = self.tenant.as_deref().map(|outer| format!("{outer}/{written}"));
        Self {
            tenant: Some(tenant_of.unwrap_or(written).into()),
            ..self.derived(b"sessions: tenant, version 1: ", tenant)
        }
    }

    /// The keys for the sessions of the type with this name.
    pub(crate) fn for_type(&self, name: &str) -> Self {
        self.derived(b"sessions: type, version 1: ", name)
    }

    fn derived(&self, purpose: &[u8], name: &str) -> Self {
        let derived = |key: &Key| Key::new(&*subkey(&key.root, &[purpose, name.as_bytes()]));
        Self { ring: self.ring.iter().map(derived).collect(), tenant: self.tenant.clone() }
    }

    fn derive(bytes: &[u8]) -> Self {
        Self { ring: Arc::new([Key::new(bytes)]), tenant: None }
    }

    /// Whose keys they are, without `:` and `@`.
    pub(crate) fn tenant(&self) -> Option<&str> {
        self.tenant.as_deref()
    }

    /// Names each of the keys.
    pub(crate) fn labels(&self) -> impl Iterator<Item = Label> {
        self.ring.iter().map(|key| key.label)
    }

    #[cfg(feature = "private-cookie")]
    pub(crate) fn first_seal(&self) -> &chacha20poly1305::XChaCha20Poly1305 {
        &self.ring[0].seal
    }

    /// The ciphers of private cookies: the first seals, all of them open.
    #[cfg(feature = "private-cookie")]
    pub(crate) fn seals(&self) -> impl Iterator<Item = &chacha20poly1305::XChaCha20Poly1305> {
        self.ring.iter().map(|key| &key.seal)
    }

    #[cfg(feature = "secret")]
    pub(crate) fn first_secret(&self) -> &chacha20poly1305::XChaCha20Poly1305 {
        &self.ring[0].secret
    }

    /// The ciphers of secret fields: the first seals, all of them open.
    #[cfg(feature = "secret")]
    pub(crate) fn secrets(&self) -> impl Iterator<Item = &chacha20poly1305::XChaCha20Poly1305> {
        self.ring.iter().map(|key| &key.secret)
    }

    /// Signs `id` for a cookie called `name`, with the first key.
    pub(crate) fn sign(&self, name: &str, id: &[u8; ID_LENGTH]) -> [u8; TAG_LENGTH] {
        mac(&self.ring[0].signature, name, id).finalize().into_bytes().into()
    }

    /// Which key signed this, counted from the first. Takes the same time wherever a wrong tag
    /// differs.
    pub(crate) fn verify(
        &self,
        name: &str,
        id: &[u8; ID_LENGTH],
        tag: &[u8; TAG_LENGTH],
    ) -> Option<usize> {
        self.ring.iter().position(|key| mac(&key.signature, name, id).verify(tag.into()).is_ok())
    }

    /// What a CSRF token of the session `id`, whose cookie is called `name`, has to prove; made with
    /// the first key.
    pub(crate) fn csrf_tag(&self, name: &str, id: &[u8; ID_LENGTH]) -> [u8; TAG_LENGTH] {
        mac(&self.ring[0].csrf, name, id).finalize().into_bytes().into()
    }

    /// Whether any of the keys made this tag. Takes the same time wherever a wrong tag differs.
    pub(crate) fn verify_csrf_tag(
        &self,
        name: &str,
        id: &[u8; ID_LENGTH],
        tag: &[u8; TAG_LENGTH],
    ) -> bool {
        self.ring.iter().any(|key| mac(&key.csrf, name, id).verify(tag.into()).is_ok())
    }

    /// The id of the session that an old one with this id becomes, by the first key.
    #[cfg(feature = "adopt")]
    pub(crate) fn adopted_id(&self, nonce: &[u8; ID_LENGTH], old: &str) -> SessionId {
        self.ring[0].adopted_id(nonce, old)
    }

    /// The same by each of the keys.
    #[cfg(feature = "adopt")]
    pub(crate) fn adopted_ids(
        &self,
        nonce: &[u8; ID_LENGTH],
        old: &str,
    ) -> impl Iterator<Item = SessionId> {
        self.ring.iter().map(move |key| key.adopted_id(nonce, old))
    }

    /// Proves that this layer made a `message` about a device, whose session cookie is called `name`;
    /// made with the first key. No `purpose` has a zero byte, and all messages of one are equally long.
    #[cfg(feature = "device-bound")]
    pub(crate) fn device_tag(
        &self,
        purpose: &str,
        name: &str,
        message: &[&[u8]],
    ) -> [u8; TAG_LENGTH] {
        device_mac(&self.ring[0].device, purpose, name, message).finalize().into_bytes().into()
    }

    /// Whether any of the keys made this tag. Takes the same time wherever a wrong tag differs.
    #[cfg(feature = "device-bound")]
    pub(crate) fn verify_device_tag(
        &self,
        purpose: &str,
        name: &str,
        message: &[&[u8]],
        tag: &[u8; TAG_LENGTH],
    ) -> bool {
        let is_made_with = |key: &Key| device_mac(&key.device, purpose, name, message);
        self.ring.iter().any(|key| is_made_with(key).verify(tag.into()).is_ok())
    }
}

impl Key {
    fn new(bytes: &[u8]) -> Self {
        let root = keyed(bytes);
        Self {
            label: *subkey(&root, &[b"sessions: label, version 1"]),
            signature: keyed(&*subkey(&root, &[b"sessions: cookie signature, version 1"])),
            csrf: keyed(&*subkey(&root, &[b"sessions: CSRF token, version 1"])),
            #[cfg(feature = "device-bound")]
            device: keyed(&*subkey(&root, &[b"sessions: device binding, version 1"])),
            #[cfg(feature = "private-cookie")]
            seal: KeyInit::new((&*subkey(&root, &[b"sessions: private cookie, version 1"])).into()),
            #[cfg(feature = "secret")]
            secret: KeyInit::new((&*subkey(&root, &[b"sessions: secret field, version 1"])).into()),
            root,
        }
    }
}

#[cfg(feature = "adopt")]
impl Key {
    fn adopted_id(&self, nonce: &[u8; ID_LENGTH], old: &str) -> SessionId {
        let purpose: [&[u8]; 3] =
            [b"sessions: adopted session, version 1: ", nonce, old.as_bytes()];
        let mut id = [0; ID_LENGTH];
        id.copy_from_slice(&subkey(&self.root, &purpose)[..ID_LENGTH]);
        SessionId::from_bytes(id)
    }
}

/// A key for one purpose. No purpose is the beginning of another.
fn subkey(root: &HmacSha256, purpose: &[&[u8]]) -> Zeroizing<[u8; TAG_LENGTH]> {
    let mut mac = root.clone();
    purpose.iter().for_each(|part| mac.update(part));
    Zeroizing::new(mac.finalize().into_bytes().into())
}

/// Without the signs that stand around a tenant in a user's name: no two tenants are written alike.
fn written_tenant(tenant: &str) -> String {
    let mut written = String::with_capacity(tenant.len());
    for c in tenant.chars() {
        match c {
            '%' => written.push_str("%25"),
            '/' => written.push_str("%2F"),
            ':' => written.push_str("%3A"),
            '@' => written.push_str("%40"),
            c => written.push(c),
        }
    }
    written
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

#[cfg(feature = "device-bound")]
fn device_mac(key: &HmacSha256, purpose: &str, name: &str, message: &[&[u8]]) -> HmacSha256 {
    let mut mac = key.clone();
    for text in [purpose, name] {
        mac.update(text.as_bytes());
        mac.update(&[0]);
    }
    message.iter().for_each(|part| mac.update(part));
    mac
}

/// Shows how many keys there are, and nothing of them.
impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keys(<{} redacted>)", self.ring.len())
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
    fn keys_of_a_tenant_and_of_a_type_have_nothing_in_common_with_others() {
        let keys = Keys::from_bytes(&counting()).unwrap();
        let all = [
            keys.clone(),
            keys.for_tenant("a"),
            keys.for_tenant("A"),
            keys.for_tenant(""),
            keys.for_type("a"),
            keys.for_tenant("a").for_type("a"),
            keys.for_tenant("a").for_tenant("a"),
            keys.for_tenant("a/a"),
        ];
        for (place, one) in all.iter().enumerate() {
            for (other_place, other) in all.iter().enumerate() {
                let is_same = place == other_place;
                assert_eq!(other.verify("n", &ID, &one.sign("n", &ID)).is_some(), is_same);
                assert_eq!(other.verify_csrf_tag("n", &ID, &one.csrf_tag("n", &ID)), is_same);
                assert_eq!(one.labels().eq(other.labels()), is_same, "{place} {other_place}");
            }
        }
        let again = Keys::from_bytes(&counting()).unwrap().for_tenant("a").for_type("a");
        assert_eq!(again.sign("n", &ID), all[5].sign("n", &ID));
    }

    #[test]
    fn all_keys_of_a_rotation_become_the_tenants() {
        let (new, old) = (Keys::generate(), Keys::generate());
        let ring = new.with_previous(old.clone()).for_tenant("a");
        assert_eq!(ring.verify("n", &ID, &old.for_tenant("a").sign("n", &ID)), Some(1));
        assert_eq!(ring.verify("n", &ID, &old.sign("n", &ID)), None);
        assert_eq!(ring.tenant(), Some("a"));
    }

    #[test]
    fn tenants_are_told_apart_in_writing() {
        let keys = Keys::generate();
        let names = ["", "a", "a:b", "a@b", "a%3Ab", "a/b", "Zoë.example"];
        let written = names.map(|name| keys.for_tenant(name).tenant().unwrap().to_string());
        assert_eq!(written, ["", "a", "a%3Ab", "a%40b", "a%253Ab", "a%2Fb", "Zoë.example"]);
        assert_eq!(keys.for_tenant("a").for_tenant("b").tenant(), Some("a/b"));
        assert_eq!(keys.tenant(), None);
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
    fn a_list_of_keys_is_separated_by_commas_and_white_space() {
        const OTHER: &str = "b2xkIG9sZCBvbGQgb2xkIG9sZCBvbGQgb2xkIG9sZCE=";
        let [one, other] = [TEXT, OTHER].map(|text| Keys::from_base64(text).unwrap());
        for (list, keys) in [
            (TEXT.to_string(), vec![&one]),
            (format!(" {OTHER}\n"), vec![&other]),
            (format!("{TEXT},{OTHER}"), vec![&one, &other]),
            (format!("\t{OTHER} {TEXT}\n"), vec![&other, &one]),
            (format!(",{TEXT},\n ,{OTHER},{TEXT}"), vec![&one, &other, &one]),
        ] {
            let found = Keys::from_list(&list).unwrap();
            assert!(found.labels().eq(keys.iter().flat_map(|keys| keys.labels())), "{list:?}");
        }
        for wrong in ["", " , \n", &format!("{TEXT};{OTHER}"), &format!("{TEXT} short")] {
            assert!(Keys::from_list(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn debug_does_not_leak_a_key() {
        assert_eq!(format!("{:?}", Keys::from_base64(TEXT).unwrap()), "Keys(<1 redacted>)");
    }

    #[test]
    fn what_keys_are_made_of_can_be_wiped() {
        fn wiped<T: ZeroizeOnDrop>() {}
        // An HMAC with a key is two states of this hash.
        wiped::<Sha256>();
    }

    /// Linux lets a process read all of its memory, also what it has given back to its allocator.
    #[test]
    #[cfg(target_os = "linux")]
    fn keys_are_wiped_on_drop() {
        use std::{fs::File, os::unix::fs::FileExt};

        const WORD: usize = 8;
        let memory = File::open("/proc/self/mem").unwrap();
        let (keys, others) = (Keys::generate(), Keys::generate());
        let place = |keys: &Keys| std::ptr::from_ref(&keys.ring[0]).addr() as u64;
        // All of it now: nothing is to take the memory of the keys when they are gone.
        let [mut before, mut other, mut after] = [(); 3].map(|()| vec![0; size_of::<Key>()]);
        memory.read_exact_at(&mut before, place(&keys)).unwrap();
        memory.read_exact_at(&mut other, place(&others)).unwrap();
        let place = place(&keys);
        drop(keys);
        if memory.read_exact_at(&mut after, place).is_err() {
            return; // the allocator has given it back to the system
        }
        // What differs from key to key is the key's; but its label gives nothing away.
        let label = std::mem::offset_of!(Key, label);
        before[label..][..TAG_LENGTH].copy_from_slice(&other[label..][..TAG_LENGTH]);
        let words = || before.chunks(WORD).zip(other.chunks(WORD)).zip(after.chunks(WORD));
        let secret = words().filter(|((before, other), _)| before != other).count();
        let left = words().filter(|((before, other), after)| before != other && before == after);
        assert!(secret > 5 * 32 / WORD, "{secret} words: that cannot be all");
        assert_eq!(left.count(), 0, "of {secret} words that are secret");
        drop(others);
    }
}
