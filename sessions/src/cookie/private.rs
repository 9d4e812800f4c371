//! Sessions without a store.

use std::time::SystemTime;

use chacha20poly1305::{
    XChaCha20Poly1305,
    aead::{Aead, Nonce, Payload},
};

use crate::{
    clock::{from_millis, to_millis},
    error::NoRandomness,
    identity::{
        id::{ID_LENGTH, SessionId},
        keys::Keys,
    },
    record::Record,
    varint,
};

/// What browsers take: RFC 6265bis, 5.6, counts name and value, others the whole line.
pub(crate) const LARGEST_COOKIE: usize = 4096;

/// Nonce and tag of the cipher.
const OVERHEAD: usize = 24 + 16;

type SealNonce = Nonce<XChaCha20Poly1305>;

/// What stands in a private cookie, before it is encrypted:
///
/// ```text
/// flags (one byte)  written-at  [id (16 bytes)  version  created-at  expires-at  user  payload]
/// ```
///
/// Numbers are [varints](crate::varint), times milliseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Content {
    /// Of several cookies of one browser the newest counts, whatever it holds.
    pub(crate) written_at: SystemTime,
    /// It was sent with `Partitioned`: one without is another cookie to the browser.
    pub(crate) is_partitioned: bool,
    /// `None` if the session has ended: such a cookie takes the place of older ones that the browser
    /// may still have, of another domain or path.
    pub(crate) session: Option<(SessionId, Record)>,
}

const ENDED: u8 = 1;
const PARTITIONED: u8 = 2;

/// How long [`seal`] makes this session's cookie at most, before base64.
pub(crate) fn sealed_len(record: &Record) -> usize {
    const FLAGS: usize = 1;
    const LONGEST_VARINT: usize = 10;
    OVERHEAD + FLAGS + LONGEST_VARINT + ID_LENGTH + encode(record).len()
}

/// The value of a cookie called `name`, before base64.
pub(crate) fn seal(keys: &Keys, name: &str, content: &Content) -> Result<Vec<u8>, NoRandomness> {
    let plain = content.to_bytes();
    let mut nonce = SealNonce::default();
    getrandom::fill(&mut nonce)?;
    let message = Payload { msg: &plain, aad: name.as_bytes() };
    let sealed = keys.first_seal().encrypt(&nonce, message).expect("it is far below 256 GiB");
    Ok([&nonce[..], &sealed].concat())
}

/// What a cookie called `name` holds, and whether it was sealed by an old key.
pub(crate) fn open(keys: &Keys, name: &str, sealed: &[u8]) -> Option<(Content, bool)> {
    let (nonce, sealed) = sealed.split_at_checked(size_of::<SealNonce>())?;
    let nonce = SealNonce::try_from(nonce).ok()?;
    let message = || Payload { msg: sealed, aad: name.as_bytes() };
    let (place, plain) = keys
        .seals()
        .enumerate()
        .find_map(|(place, seal)| Some((place, seal.decrypt(&nonce, message()).ok()?)))?;
    Some((Content::from_bytes(&plain)?, place > 0))
}

impl Content {
    fn to_bytes(&self) -> Vec<u8> {
        let flag = |flag: u8, is_set: bool| if is_set { flag } else { 0 };
        let mut out =
            vec![flag(ENDED, self.session.is_none()) | flag(PARTITIONED, self.is_partitioned)];
        varint::put(to_millis(self.written_at), &mut out);
        if let Some((id, record)) = &self.session {
            out.extend_from_slice(id.as_bytes());
            out.extend(encode(record));
        }
        out
    }

    fn from_bytes(mut bytes: &[u8]) -> Option<Self> {
        let flags = *bytes.split_off_first()?;
        let written_at = from_millis(varint::take(&mut bytes)?);
        let session = match flags & ENDED {
            0 => {
                let (id, record) = bytes.split_first_chunk()?;
                Some((SessionId::from_bytes(*id), decode(record)?))
            }
            _ => None,
        };
        Some(Self { written_at, is_partitioned: flags & PARTITIONED != 0, session })
    }
}

fn encode(record: &Record) -> Vec<u8> {
    let mut out = Vec::with_capacity(record.payload.len() + 32);
    varint::put(record.version, &mut out);
    varint::put(to_millis(record.created_at), &mut out);
    varint::put(to_millis(record.expires_at), &mut out);
    match &record.user {
        None => varint::put(0, &mut out),
        Some(user) => {
            varint::put(user.len() as u64 + 1, &mut out);
            out.extend_from_slice(user.as_bytes());
        }
    }
    out.extend_from_slice(&record.payload);
    out
}

fn decode(mut bytes: &[u8]) -> Option<Record> {
    let version = varint::take(&mut bytes)?;
    let created_at = from_millis(varint::take(&mut bytes)?);
    let expires_at = from_millis(varint::take(&mut bytes)?);
    let user = match varint::take(&mut bytes)? {
        0 => None,
        length => {
            let user = bytes.split_off(..usize::try_from(length - 1).ok()?)?;
            Some(str::from_utf8(user).ok()?.into())
        }
    };
    Some(Record { version, created_at, expires_at, user, payload: bytes.into() })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn content(user: Option<&str>) -> Content {
        let now = from_millis(to_millis(SystemTime::now()));
        let payload = (0..=255).collect::<Vec<u8>>().into();
        let user = user.map(Into::into);
        let record = Record { version: 300, created_at: now, expires_at: now, user, payload };
        let session = Some((SessionId::generate().unwrap(), record));
        Content { written_at: now, is_partitioned: false, session }
    }

    #[test]
    fn a_session_comes_back_under_its_name_and_key_only() {
        let keys = Keys::generate();
        let ended = Content { session: None, ..content(None) };
        let partitioned = Content { is_partitioned: true, ..content(None) };
        for content in [content(None), content(Some("")), content(Some("Zoë")), partitioned, ended]
        {
            let sealed = seal(&keys, "a", &content).unwrap();
            if let Some((_, record)) = &content.session {
                assert!((sealed.len()..sealed.len() + 5).contains(&sealed_len(record)));
            }
            assert_eq!(open(&keys, "a", &sealed), Some((content.clone(), false)));
            assert_eq!(open(&keys, "b", &sealed), None);
            assert_eq!(open(&Keys::generate(), "a", &sealed), None);
            let ring = Keys::generate().with_previous(keys.clone());
            assert_eq!(open(&ring, "a", &sealed), Some((content, true)));
        }
    }

    /// Old cookies must stay readable.
    #[test]
    fn golden() {
        let at = |millis| from_millis(millis);
        let record = Record {
            version: 300,
            created_at: at(1),
            expires_at: at(128),
            user: Some("Zoë".into()),
            payload: b"payload"[..].into(),
        };
        let id = SessionId::from_bytes(*b"0123456789abcdef");
        let content =
            Content { written_at: at(5), is_partitioned: false, session: Some((id, record)) };
        let bytes = b"\x00\x050123456789abcdef\xac\x02\x01\x80\x01\x05Zo\xc3\xabpayload";
        assert_eq!(content.to_bytes(), bytes);
        assert_eq!(Content::from_bytes(bytes), Some(content));
        let ended = Content {
            written_at: SystemTime::UNIX_EPOCH + Duration::from_millis(300),
            is_partitioned: true,
            session: None,
        };
        assert_eq!(ended.to_bytes(), b"\x03\xac\x02");
        assert_eq!(Content::from_bytes(b"\x03\xac\x02"), Some(ended));
    }

    #[test]
    fn no_bit_can_be_changed_and_nothing_cut() {
        let keys = Keys::generate();
        let sealed = seal(&keys, "a", &content(None)).unwrap();
        for bit in 0..sealed.len() * 8 {
            let mut sealed = sealed.clone();
            sealed[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(open(&keys, "a", &sealed), None, "bit {bit}");
        }
        for end in 0..sealed.len() {
            assert_eq!(open(&keys, "a", &sealed[..end]), None, "cut at {end}");
        }
    }

    #[test]
    fn no_two_cookies_are_alike() {
        let (keys, content) = (Keys::generate(), content(None));
        assert_ne!(seal(&keys, "a", &content).unwrap(), seal(&keys, "a", &content).unwrap());
    }
}
