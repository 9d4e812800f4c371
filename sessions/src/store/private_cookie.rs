//! Sessions without a store.

use chacha20poly1305::{
    XChaCha20Poly1305,
    aead::{Aead, Nonce, Payload},
};

use crate::{
    Keys, Record,
    clock::{from_millis, to_millis},
    id::{ID_LENGTH, SessionId},
    storage::{IntoStorage, Kind, Storage},
    varint,
};

/// Takes the place of a store: each session is kept by its client, encrypted, in the cookie.
///
/// ```
/// # #[cfg(all(feature = "derive", feature = "bincode"))] {
/// # #[derive(sessions::Session)] struct Visitor { visits: u32 }
/// use sessions::{Keys, PrivateCookie, SessionLayer};
///
/// let layer = SessionLayer::<Visitor>::new(PrivateCookie, Keys::generate());
/// # }
/// ```
///
/// The cookie is encrypted and authenticated (XChaCha20-Poly1305 with a random nonce, under a key
/// of its own made from the layer's [`Keys`]) and bound to its name, so that the client can neither
/// read nor change it, nor move it to another cookie. Everything else is as with a store: fields,
/// guards, both timeouts, rotation of keys.
///
/// # Limits
///
/// - **It cannot be ended by the server.** `destroy` removes the cookie from the browser, and
///   `renew_id` replaces it; but a copy that somebody made before stays good until it expires. Keep
///   the timeouts short, and nothing in it whose loss would hurt.
/// - **It can be played back**: a client can return to an earlier state of its session, also one
///   from before a coupon was used up.
/// - **Overlapping requests do not share it.** Each has the session that its own cookie brought, and
///   the response that arrives last wins. The promises about concurrency hold within one request
///   only.
/// - **4096 bytes** are what browsers take for a cookie, attributes included. A save of more is a
///   [`TooLarge`](crate::ErrorKind::TooLarge) error that says how large; about 2900 bytes of fields
///   fit.
/// - **Whatever is saved has to be sent**: after the response has left, a save is a
///   [`NoCookie`](crate::ErrorKind::NoCookie) error, and if the client hangs up there is nobody to
///   send to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PrivateCookie;

impl IntoStorage for PrivateCookie {
    fn into_storage(self) -> Storage {
        Storage(Kind::Cookie)
    }
}

/// What browsers take: RFC 6265bis, 5.6, counts name and value, others the whole line.
pub(crate) const LARGEST_COOKIE: usize = 4096;

/// Nonce and tag of the cipher.
const OVERHEAD: usize = 24 + 16;

type SealNonce = Nonce<XChaCha20Poly1305>;

/// How long [`seal`] makes this session's cookie, before base64.
pub(crate) fn sealed_len(record: &Record) -> usize {
    OVERHEAD + ID_LENGTH + encode(record).len()
}

/// The session as the value of a cookie called `name`, before base64.
pub(crate) fn seal(
    keys: &Keys,
    name: &str,
    id: &SessionId,
    record: &Record,
) -> Result<Vec<u8>, getrandom::Error> {
    let plain = [id.as_bytes(), &encode(record)[..]].concat();
    let mut nonce = SealNonce::default();
    getrandom::fill(&mut nonce)?;
    let message = Payload { msg: &plain, aad: name.as_bytes() };
    let sealed = keys.first_seal().encrypt(&nonce, message).expect("it is far below 256 GiB");
    Ok([&nonce[..], &sealed].concat())
}

/// The session in a cookie called `name`, and whether it was sealed by an old key.
pub(crate) fn open(keys: &Keys, name: &str, sealed: &[u8]) -> Option<(SessionId, Record, bool)> {
    let (nonce, sealed) = sealed.split_at_checked(size_of::<SealNonce>())?;
    let nonce = SealNonce::try_from(nonce).ok()?;
    let message = || Payload { msg: sealed, aad: name.as_bytes() };
    let (place, plain) = keys
        .seals()
        .enumerate()
        .find_map(|(place, seal)| Some((place, seal.decrypt(&nonce, message()).ok()?)))?;
    let (id, record) = plain.split_first_chunk()?;
    Some((SessionId::from_bytes(*id), decode(record)?, place > 0))
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
    use std::time::SystemTime;

    use super::*;

    fn record(user: Option<&str>) -> Record {
        let now = from_millis(to_millis(SystemTime::now()));
        let payload = (0..=255).collect::<Vec<u8>>().into();
        let user = user.map(Into::into);
        Record { version: 300, created_at: now, expires_at: now, user, payload }
    }

    #[test]
    fn a_session_comes_back_under_its_name_and_key_only() {
        let (keys, id) = (Keys::generate(), SessionId::generate().unwrap());
        for record in [record(None), record(Some("")), record(Some("Zoë"))] {
            let sealed = seal(&keys, "a", &id, &record).unwrap();
            assert_eq!(sealed.len(), sealed_len(&record));
            assert_eq!(open(&keys, "a", &sealed), Some((id, record.clone(), false)));
            assert_eq!(open(&keys, "b", &sealed), None);
            assert_eq!(open(&Keys::generate(), "a", &sealed), None);
            let ring = Keys::generate().with_previous(keys.clone());
            assert_eq!(open(&ring, "a", &sealed), Some((id, record, true)));
        }
    }

    #[test]
    fn no_bit_can_be_changed_and_nothing_cut() {
        let (keys, id) = (Keys::generate(), SessionId::generate().unwrap());
        let sealed = seal(&keys, "a", &id, &record(None)).unwrap();
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
        let (keys, id, record) = (Keys::generate(), SessionId::generate().unwrap(), record(None));
        assert_ne!(seal(&keys, "a", &id, &record), seal(&keys, "a", &id, &record));
    }
}
