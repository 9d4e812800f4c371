//! Secret fields between the slot, which has them as they are, and the store, which has them
//! encrypted.
//!
//! ```text
//! sealed body = 32  nonce (24 bytes)  encrypted body, with its tag (16 bytes)
//! ```
//!
//! XChaCha20-Poly1305, with a random nonce for every save, and bound to the session and to the name that the body is
//! stored under, so that no body can be moved: a field with aliases is sealed under each of its names. A body that
//! cannot be opened stays in the record as it is: another process may have the key.
//!
//! What a seal cannot tell is when it was made: an attacker who can write to the store can put back an earlier
//! sealed body of the same field of the same session. To find that out, something outside of the store
//! would have to remember which one is the latest.

use std::borrow::Cow;

#[cfg(feature = "secret")]
mod names;

#[cfg(feature = "secret")]
use self::names::Sealing;
use crate::{
    data::SessionData,
    error::Error,
    identity::{current::CurrentKeys, id::StoreKey},
    record::Record,
};

/// By how much a payload of this type can grow when it is sealed.
#[cfg_attr(
    not(feature = "secret"),
    expect(clippy::extra_unused_type_parameters, reason = "no type has a secret field")
)]
pub(crate) const fn growth<T: SessionData>() -> usize {
    #[cfg(feature = "secret")]
    return names::growth(T::FIELDS);
    #[cfg(not(feature = "secret"))]
    0
}

/// The record as the store `key` is for gets it.
#[cfg_attr(
    not(feature = "secret"),
    expect(clippy::extra_unused_type_parameters, reason = "no type has a secret field")
)]
pub(crate) fn sealed<'a, T: SessionData>(
    record: &'a Record,
    key: &StoreKey,
    keys: &CurrentKeys,
) -> Result<Cow<'a, Record>, Error> {
    #[cfg(feature = "secret")]
    if const { names::growth(T::FIELDS) } > 0 {
        let keys = keys.get();
        let sealing = Sealing { fields: T::FIELDS, key, keys: &keys };
        let payload = sealing.sealed(&record.payload)?;
        return Ok(payload.map_or(Cow::Borrowed(record), |payload| {
            Cow::Owned(Record { payload: payload[..].into(), ..record.clone() })
        }));
    }
    let _ = (key, keys);
    Ok(Cow::Borrowed(record))
}

/// The record as the slot gets it.
#[cfg_attr(
    not(feature = "secret"),
    expect(clippy::extra_unused_type_parameters, reason = "no type has a secret field")
)]
pub(crate) fn opened<T: SessionData>(
    record: Record,
    key: &StoreKey,
    keys: &CurrentKeys,
    plain: Plain,
) -> Record {
    #[cfg(feature = "secret")]
    if const { names::growth(T::FIELDS) } > 0 {
        let keys = keys.get();
        let sealing = Sealing { fields: T::FIELDS, key, keys: &keys };
        return match sealing.opened(&record.payload, plain) {
            Some(payload) => Record { payload: payload[..].into(), ..record },
            None => record,
        };
    }
    let _ = (key, keys, plain);
    record
}

/// What becomes of a value that the store has as it is, in a field that is a secret.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Plain {
    /// It is read, and sealed with the next save: it may be from before the field was a secret.
    #[default]
    Read,
    /// The field has its default: an attacker who can write to the store may have put it there.
    #[cfg(feature = "secret")]
    Refused,
}

#[cfg(test)]
#[cfg(all(feature = "derive", feature = "secret"))]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::{
        data::{body::SEALED, payload::PayloadReader, secret::Secret},
        identity::keys::Keys,
    };

    #[derive(sessions_derive::Session)]
    #[session(crate = crate)]
    struct Data {
        plain: String,
        #[session(secret)]
        one: Option<Secret<String>>,
        #[session(secret, alias = "earlier")]
        other: Option<Secret<String>>,
    }

    /// The same under an earlier name.
    #[derive(sessions_derive::Session)]
    #[session(crate = crate)]
    struct Earlier {
        #[session(secret)]
        earlier: Option<Secret<String>>,
    }

    #[derive(sessions_derive::Session)]
    #[session(crate = crate)]
    struct Open {
        plain: String,
    }

    const PLAIN: usize = 0;
    const ONE: usize = 1;
    const OTHER: usize = 2;

    fn key(byte: u8) -> StoreKey {
        StoreKey::from_bytes([byte; 32])
    }

    fn record<T: SessionData>(bodies: &[(usize, &[u8])]) -> Record {
        let now = SystemTime::UNIX_EPOCH;
        let mut reader = PayloadReader::empty(T::FIELDS);
        for (field, body) in bodies {
            reader.set_body(*field, body);
        }
        let payload = reader.write(&[]).into();
        Record { version: 1, created_at: now, expires_at: now, user: None, payload }
    }

    fn body<T: SessionData>(record: &Record, field: usize) -> Vec<u8> {
        PayloadReader::parse(T::FIELDS, &record.payload).unwrap().body(field).unwrap().into()
    }

    #[test]
    fn it_grows_by_as_much_as_it_is_said_to_and_hardly_less() {
        assert_eq!(growth::<Open>(), 0);
        let keys = CurrentKeys::new(Keys::generate());
        for length in (1..300).chain(16_300..16_400) {
            let long = vec![1; length];
            let record = record::<Data>(&[(PLAIN, &long), (ONE, &long), (OTHER, &long)]);
            let sealed = sealed::<Data>(&record, &key(1), &keys).unwrap();
            let grown = sealed.payload.len() - record.payload.len();
            assert!((grown..=grown + 6).contains(&growth::<Data>()), "{length}: by {grown}");
        }
    }

    #[test]
    fn a_secret_opens_for_its_session_its_field_and_its_keys() {
        let (keys, old) = (Keys::generate(), Keys::generate());
        let ring = CurrentKeys::new(keys.clone().with_previous(old.clone()));
        let current = |keys: &Keys| CurrentKeys::new(keys.clone());
        let texts: [(usize, &[u8]); 3] = [(PLAIN, b"\x01a"), (ONE, b"\x01b"), (OTHER, b"\x01c")];
        let record = record::<Data>(&texts);
        let by =
            |keys: &Keys| sealed::<Data>(&record, &key(1), &current(keys)).unwrap().into_owned();
        let opened = |record: &Record, key: StoreKey| {
            opened::<Data>(record.clone(), &key, &ring, Plain::Refused)
        };
        let stored = by(&keys);
        assert_eq!(body::<Data>(&stored, PLAIN), b"\x01a");
        for field in [ONE, OTHER] {
            assert_eq!(body::<Data>(&stored, field)[0], SEALED);
            assert_ne!(body::<Data>(&stored, field), body::<Data>(&by(&keys), field), "the nonce");
        }
        assert_eq!(opened(&stored, key(1)), record);
        assert_eq!(opened(&by(&old), key(1)), record, "by an old key");
        for (stored, id) in [(&by(&Keys::generate()), key(1)), (&stored, key(2))] {
            let other = opened(stored, id);
            assert_eq!(body::<Data>(&other, ONE), body::<Data>(stored, ONE), "stays sealed");
            assert_eq!(
                *sealed::<Data>(&other, &id, &ring).unwrap(),
                *stored,
                "and under its alias"
            );
        }
        let (one, other) = (body::<Data>(&stored, ONE), body::<Data>(&stored, OTHER));
        let swapped = super::tests::record::<Data>(&[(ONE, &other), (OTHER, &one)]);
        let shown = opened(&swapped, key(1));
        assert_eq!(
            [ONE, OTHER].map(|it| body::<Data>(&shown, it)),
            [other, one],
            "another field's"
        );
        // What is sealed already is not sealed again.
        assert_eq!(*sealed::<Data>(&stored, &key(2), &current(&keys)).unwrap(), stored);

        let earlier = super::tests::record::<Earlier>(&[(0, b"\x01c")]);
        let earlier = sealed::<Earlier>(&earlier, &key(1), &current(&keys)).unwrap();
        assert_eq!(body::<Data>(&opened(&earlier, key(1)), OTHER), b"\x01c", "by its alias");
    }

    #[test]
    fn what_is_plain_in_the_store_is_read_or_refused() {
        let keys = CurrentKeys::new(Keys::generate());
        let record = record::<Data>(&[(PLAIN, b"\x01a"), (ONE, b"\x01b")]);
        let opened = |plain| opened::<Data>(record.clone(), &key(1), &keys, plain);
        assert_eq!(opened(Plain::Read), record);
        let refused = opened(Plain::Refused);
        assert_eq!(body::<Data>(&refused, PLAIN), b"\x01a");
        assert_eq!(body::<Data>(&refused, ONE), [SEALED], "sealed by nobody");
    }
}
