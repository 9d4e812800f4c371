//! Secret fields between the slot, which has them as they are, and the store, which has them
//! encrypted.
//!
//! ```text
//! sealed body = 32  nonce (24 bytes)  encrypted body, with its tag (16 bytes)
//! ```
//!
//! XChaCha20-Poly1305, with a random nonce for every save and bound to the session and the field's key,
//! so that no body can be moved. A body that cannot be opened stays in the record as it is: another
//! process may have the key.
//!
//! What a seal cannot tell is when it was made: an attacker who can write to the store can put back an earlier
//! sealed body of the same field of the same session. To find that out, something outside of the store
//! would have to remember which one is the latest.

use std::borrow::Cow;

#[cfg(feature = "secret")]
use crate::error::NoRandomness;
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
    return sealed_fields::growth(T::FIELDS);
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
    if const { sealed_fields::growth(T::FIELDS) } > 0 {
        return sealed_fields::sealed::<T>(record, key, &keys.get());
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
    if const { sealed_fields::growth(T::FIELDS) } > 0 {
        return sealed_fields::opened::<T>(record, key, &keys.get(), plain);
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

#[cfg(feature = "secret")]
mod sealed_fields {
    use chacha20poly1305::{
        XChaCha20Poly1305,
        aead::{Aead, Nonce, Payload},
    };
    use zeroize::Zeroizing;

    use super::*;
    use crate::{
        data::{
            FieldInfo,
            body::{SEALED, is_sealed},
            payload::{self, PayloadReader},
        },
        identity::keys::Keys,
    };

    type SealNonce = Nonce<XChaCha20Poly1305>;

    /// The tag of the body, nonce and tag of the cipher, and a longer length before it all.
    const OVERHEAD: usize = 1 + 24 + 16 + 2;

    pub(crate) const fn growth(fields: &[FieldInfo]) -> usize {
        let (mut rest, mut growth) = (fields, 0);
        while let [first, others @ ..] = rest {
            if first.secret {
                // It is stored under its aliases too.
                growth += OVERHEAD * (1 + first.aliases.len());
            }
            rest = others;
        }
        growth
    }

    pub(crate) fn sealed<'a, T: SessionData>(
        record: &'a Record,
        key: &StoreKey,
        keys: &Keys,
    ) -> Result<Cow<'a, Record>, Error> {
        let payload = changed::<T, Error>(&record.payload, |info, body| {
            if is_sealed(body) {
                return Ok(None);
            }
            let mut nonce = SealNonce::default();
            getrandom::fill(&mut nonce).map_err(NoRandomness::from)?;
            let message = Payload { msg: body, aad: &bound_to(info.key, key) };
            let encrypted = keys.first_secret().encrypt(&nonce, message);
            let encrypted = encrypted.expect("it is far below 256 GiB");
            Ok(Some(Zeroizing::new([&[SEALED], &nonce[..], &encrypted].concat())))
        })?;
        Ok(match payload {
            Some(payload) => Cow::Owned(Record { payload: payload[..].into(), ..record.clone() }),
            None => Cow::Borrowed(record),
        })
    }

    pub(crate) fn opened<T: SessionData>(
        record: Record,
        key: &StoreKey,
        keys: &Keys,
        plain: Plain,
    ) -> Record {
        let payload = changed::<T, std::convert::Infallible>(&record.payload, |info, body| {
            match plain {
                _ if is_sealed(body) => {}
                Plain::Read => return Ok(None),
                Plain::Refused => {
                    tracing::warn!(
                        field = info.key,
                        "a secret field was not encrypted in the store \
                         (`SessionLayerBuilder::without_plain_secrets`): default"
                    );
                    // Sealed, and by nobody.
                    return Ok(Some(Zeroizing::new(vec![SEALED])));
                }
            }
            let names = [info.key].into_iter().chain(info.aliases.iter().copied());
            let plain = names.into_iter().find_map(|name| open(body, &bound_to(name, key), keys));
            if plain.is_none() {
                tracing::warn!(
                    field = info.key,
                    "a secret field was sealed with another key, or for another session or field: \
                     default"
                );
            }
            Ok(plain)
        });
        match payload {
            Ok(Some(payload)) => Record { payload: payload[..].into(), ..record },
            Ok(None) => record,
            Err(never) => match never {},
        }
    }

    fn open(body: &[u8], bound_to: &[u8], keys: &Keys) -> Option<Zeroizing<Vec<u8>>> {
        let (nonce, encrypted) = body.get(1..)?.split_at_checked(size_of::<SealNonce>())?;
        let nonce = SealNonce::try_from(nonce).ok()?;
        let message = || Payload { msg: encrypted, aad: bound_to };
        let plain = keys.secrets().find_map(|cipher| cipher.decrypt(&nonce, message()).ok())?;
        Some(Zeroizing::new(plain))
    }

    /// What a body is bound to: the length of the field's key stands in front, so that no other field
    /// and session give the same.
    fn bound_to(name: &str, key: &StoreKey) -> Vec<u8> {
        // The derive refuses keys over 255 bytes.
        [&[name.len() as u8], name.as_bytes(), key.as_bytes()].concat()
    }

    /// The payload with other bodies of its secret fields, if there are any.
    fn changed<T: SessionData, E>(
        payload: &[u8],
        change: impl Fn(&FieldInfo, &[u8]) -> Result<Option<Zeroizing<Vec<u8>>>, E>,
    ) -> Result<Option<Zeroizing<Vec<u8>>>, E> {
        // A payload was checked when it was loaded.
        let Ok(head) = payload::check(payload) else { return Ok(None) };
        let Ok(reader) = PayloadReader::parse(T::FIELDS, payload) else { return Ok(None) };
        let mut changed = Vec::new();
        for (field, info) in T::FIELDS.iter().enumerate().filter(|(_, info)| info.secret) {
            if let Some(body) = reader.body(field)
                && let Some(body) = change(info, body)?
            {
                changed.push((field, body));
            }
        }
        if changed.is_empty() {
            return Ok(None);
        }
        let mut reader = reader;
        for (field, body) in &changed {
            reader.set_body(*field, body);
        }
        Ok(Some(Zeroizing::new(reader.write(head))))
    }
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
        assert_eq!(opened(&by(&Keys::generate()), key(1)).payload.len(), stored.payload.len());
        assert_eq!(opened(&stored, key(2)), stored, "another session's stays sealed");
        let (one, other) = (body::<Data>(&stored, ONE), body::<Data>(&stored, OTHER));
        let swapped = super::tests::record::<Data>(&[(ONE, &other), (OTHER, &one)]);
        assert_eq!(opened(&swapped, key(1)), swapped, "another field's");
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
