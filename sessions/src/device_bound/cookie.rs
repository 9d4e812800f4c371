//! The bound cookie: says which device has proved itself, and when. The check asks no store.
//!
//! ```text
//! value = binding-id (16 bytes)  proven-at (8 bytes, milliseconds)  tag (32 bytes)     in base64url
//! ```

use std::time::SystemTime;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD as BASE64};

use crate::{
    clock::{from_millis, to_millis},
    identity::keys::{Keys, TAG_LENGTH},
    record::binding::{BINDING_ID_LENGTH, BindingId},
};

const TIME_LENGTH: usize = 8;
const PURPOSE: &str = "bound cookie";
/// In the header that a browser names its binding with.
const ID_PURPOSE: &str = "binding id";

/// A bound cookie that one of the layer's keys has made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BoundCookie {
    pub(crate) id: BindingId,
    pub(crate) at: SystemTime,
}

impl BoundCookie {
    /// The value of a cookie called `name`, before base64.
    pub(super) fn sign(&self, keys: &Keys, name: &str) -> Vec<u8> {
        let (id, time) = (self.id.as_bytes(), to_millis(self.at).to_be_bytes());
        [&id[..], &time, &keys.device_tag(PURPOSE, name, &[id, &time])].concat()
    }

    pub(super) fn verify(keys: &Keys, name: &str, value: &[u8]) -> Option<Self> {
        let bytes = BASE64.decode(value).ok()?;
        let (id, rest) = bytes.split_first_chunk::<BINDING_ID_LENGTH>()?;
        let (time, tag) = rest.split_first_chunk::<TIME_LENGTH>()?;
        let tag: &[u8; TAG_LENGTH] = tag.try_into().ok()?;
        keys.verify_device_tag(PURPOSE, name, &[id, time], tag).then(|| Self {
            id: BindingId::from_bytes(*id),
            at: from_millis(u64::from_be_bytes(*time)),
        })
    }
}

/// What the browser is to call a binding: the id, with a proof that it is one of ours, so that no other
/// reaches the store.
pub(super) fn write_id(keys: &Keys, name: &str, id: &BindingId) -> String {
    let id = id.as_bytes();
    BASE64.encode([&id[..], &keys.device_tag(ID_PURPOSE, name, &[id])].concat())
}

pub(super) fn read_id(keys: &Keys, name: &str, text: &str) -> Option<BindingId> {
    let bytes = BASE64.decode(text).ok()?;
    let (id, tag) = bytes.split_first_chunk::<BINDING_ID_LENGTH>()?;
    let is_ours = keys.verify_device_tag(ID_PURPOSE, name, &[id], tag.try_into().ok()?);
    is_ours.then(|| BindingId::from_bytes(*id))
}

#[cfg(test)]
mod tests {
    use super::*;

    const COOKIE: BoundCookie =
        BoundCookie { id: BindingId::from_bytes([7; 16]), at: SystemTime::UNIX_EPOCH };

    #[test]
    fn a_bound_cookie_holds_for_its_key_its_name_and_its_content() {
        let keys = Keys::generate();
        let value = BASE64.encode(COOKIE.sign(&keys, "a"));
        assert_eq!(BoundCookie::verify(&keys, "a", value.as_bytes()), Some(COOKIE));
        assert_eq!(BoundCookie::verify(&keys, "b", value.as_bytes()), None);
        assert_eq!(BoundCookie::verify(&Keys::generate(), "a", value.as_bytes()), None);
        let rotated = Keys::generate().with_previous(keys.clone());
        assert_eq!(BoundCookie::verify(&rotated, "a", value.as_bytes()), Some(COOKIE));
        for at in 0..value.len() {
            let mut text = value.clone().into_bytes();
            text[at] = if text[at] == b'A' { b'B' } else { b'A' };
            assert_eq!(BoundCookie::verify(&keys, "a", &text), None, "at {at}");
        }
        for text in ["", "AAAA", &value[1..], &format!("{value}AAAA")] {
            assert_eq!(BoundCookie::verify(&keys, "a", text.as_bytes()), None);
        }
    }

    #[test]
    fn an_id_is_no_bound_cookie_and_nobody_makes_one_up() {
        let keys = Keys::generate();
        let text = write_id(&keys, "a", &COOKIE.id);
        assert_eq!(read_id(&keys, "a", &text), Some(COOKIE.id));
        assert_eq!(read_id(&keys, "b", &text), None);
        assert_eq!(read_id(&Keys::generate(), "a", &text), None);
        assert_eq!(BoundCookie::verify(&keys, "a", text.as_bytes()), None);
        let value = BASE64.encode(COOKIE.sign(&keys, "a"));
        for text in ["", "AAAA", &text[1..], &value, &BASE64.encode([7; 16])] {
            assert_eq!(read_id(&keys, "a", text), None);
        }
    }
}
