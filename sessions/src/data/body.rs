//! The bytes of one field: what the tag in front of a value says, and how a value is written and read.
//!
//! ```text
//! body = tag  [field-version]  [end]  value
//! ```
//!
//! The tag's bits stand in [`payload`](super::payload), which is a list of such bodies under their keys.

use std::ops::Deref;

use crate::{
    data::{
        FieldInfo, FieldValue,
        codec::{
            self, Codec, Form,
            error::{DecodeError, EncodeError, Unreadable},
            form::Own,
        },
    },
    varint,
};

pub(super) const LAYOUT_BITS: u8 = 0b0111;

/// The layout of a field that was set back to its default.
const UNSET: u8 = 0;

pub(super) const HAS_VERSION: u8 = 0b1000;

pub(super) const HAS_END: u8 = 0b0001_0000;

#[cfg(feature = "secret")]
pub(crate) const SEALED: u8 = 0b0010_0000;

const CONSUMED: u8 = 0b0100_0000;

/// The encoded value of a field, or that it has its default, which leaves a field unstored that is;
/// a short one without an allocation.
#[derive(Clone)]
pub(crate) enum Body {
    Short { bytes: [u8; SHORT], length: u8, is_default: bool },
    Long { bytes: Box<[u8]>, is_default: bool },
}

/// So many that a short body takes no more room than a long one does beside its bytes and their
/// length: 24 bytes in all. A `SmallVec` would make 32 of them, for 16 bytes without an allocation, and
/// a request that writes takes 2 % more instructions with one (`benches/instructions`).
const SHORT: usize = 21;

impl Body {
    pub(crate) fn new(body: &[u8], is_default: bool) -> Self {
        let mut bytes = [0; SHORT];
        match bytes.get_mut(..body.len()) {
            Some(place) => {
                place.copy_from_slice(body);
                Self::Short { bytes, length: body.len() as u8, is_default }
            }
            None => Self::Long { bytes: body.into(), is_default },
        }
    }

    pub(crate) fn is_default(&self) -> bool {
        match self {
            Self::Short { is_default, .. } | Self::Long { is_default, .. } => *is_default,
        }
    }
}

impl From<&[u8]> for Body {
    fn from(body: &[u8]) -> Self {
        Self::new(body, false)
    }
}

impl Deref for Body {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Short { bytes, length, .. } => &bytes[..usize::from(*length)],
            Self::Long { bytes, .. } => bytes,
        }
    }
}

/// What a body has.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found<V> {
    Value(V),
    /// The field was set back to its default.
    Unset,
    /// A value of another field version.
    OtherVersion,
}

#[inline]
pub(crate) fn decode<W: Form>(
    mut body: &[u8],
    version: u32,
) -> Result<Found<W::Value>, DecodeError> {
    let tag = *body.split_off_first().ok_or(Unreadable::Damaged)?;
    if tag & !(LAYOUT_BITS | HAS_VERSION | HAS_END | CONSUMED) != 0 {
        return Err(Unreadable::Later.into());
    }
    let mut written_under = 0;
    if tag & HAS_VERSION != 0 {
        written_under = varint::take(&mut body).ok_or(Unreadable::Damaged)?;
    }
    if tag & HAS_END != 0 {
        varint::take(&mut body).ok_or(Unreadable::Damaged)?;
    }
    if tag & LAYOUT_BITS == UNSET {
        return Ok(Found::Unset);
    }
    if written_under != u64::from(version) {
        return Ok(Found::OtherVersion);
    }
    codec::decode::<W>(tag & LAYOUT_BITS, body).map(Found::Value)
}

/// The body of a field that was set back to its default: not that value, but whatever the default is
/// when it is read.
pub(crate) const UNSET_BODY: &[u8] = &[UNSET];

pub(crate) fn is_unset(body: &[u8]) -> bool {
    body.first().is_some_and(|tag| tag & LAYOUT_BITS == UNSET)
}

#[cfg(feature = "secret")]
pub(crate) fn is_sealed(body: &[u8]) -> bool {
    body.first().is_some_and(|tag| tag & SEALED != 0)
}

/// When the field ends, if it does.
pub(crate) fn end(mut body: &[u8]) -> Option<u64> {
    let tag = *body.split_off_first()?;
    if tag & HAS_END == 0 {
        return None;
    }
    if tag & HAS_VERSION != 0 {
        varint::take(&mut body)?;
    }
    varint::take(&mut body)
}

pub(crate) fn has_ended(body: &[u8], now: u64) -> bool {
    end(body).is_some_and(|end| end <= now)
}

/// Has a body that an [`Encoder`] has written end at this time.
pub(crate) fn set_end(body: &mut Vec<u8>, end: u64) {
    let Some((tag, rest)) = body.split_first_mut() else { return };
    *tag |= HAS_END;
    let mut after_version = &*rest;
    if *tag & HAS_VERSION != 0 {
        let _ = varint::take(&mut after_version);
    }
    let at = 1 + rest.len() - after_version.len();
    let mut bytes = Vec::new();
    varint::put(end, &mut bytes);
    body.splice(at..at, bytes);
}

/// Notes that the writer of `body` has consumed the value that its flash field had before: of two
/// writers that consumed the same value, one is refused.
pub(crate) fn set_consumed(body: &mut [u8]) {
    if let Some(tag) = body.first_mut() {
        *tag |= CONSUMED;
    }
}

pub(crate) fn consumed(body: &[u8]) -> bool {
    body.first().is_some_and(|tag| tag & CONSUMED != 0)
}

/// Whether two bodies have the same value, whether or not a writer consumed another one before.
pub(crate) fn is_same(a: &[u8], b: &[u8]) -> bool {
    match (a.split_first(), b.split_first()) {
        (Some((tag, a)), Some((other, b))) => tag | CONSUMED == other | CONSUMED && a == b,
        (a, b) => a == b,
    }
}

/// Writes the body of one field.
pub struct Encoder<'a> {
    codec: Codec,
    version: u32,
    /// Whether every value is read back.
    is_thorough: bool,
    out: &'a mut Vec<u8>,
}

impl<'a> Encoder<'a> {
    /// `codec` is the layer's; a field may have its own.
    pub(crate) fn new(codec: Codec, info: &FieldInfo, out: &'a mut Vec<u8>) -> Self {
        let (codec, version) = (info.codec.unwrap_or(codec), info.version);
        Self { codec, version, is_thorough: false, out }
    }

    /// In this codec, whatever the field says, and with a value that is read back.
    #[cfg(feature = "testing")]
    pub(crate) fn thorough(codec: Codec, info: &FieldInfo, out: &'a mut Vec<u8>) -> Self {
        Self { codec, version: info.version, is_thorough: true, out }
    }

    /// Encodes `value` as the field's body.
    pub fn put<F: FieldValue>(&mut self, value: &F) -> Result<(), EncodeError> {
        self.put_as::<Own<F>>(value)
    }

    /// The same in another form than the type's own.
    pub fn put_as<W: Form>(&mut self, value: &W::Value) -> Result<(), EncodeError> {
        let version = self.version;
        self.codec.write::<W>(value, self.is_thorough, self.out, |layout, out| match version {
            0 => out.push(layout),
            version => {
                out.push(layout | HAS_VERSION);
                varint::put(version.into(), out);
            }
        })
    }

    /// For a number that no field has.
    pub fn nothing(&mut self) -> Result<(), EncodeError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_what_it_was_made_of() {
        for length in 0..50 {
            let bytes: Vec<u8> = (0..length).collect();
            assert_eq!(*Body::from(&bytes[..]), bytes);
        }
        assert_eq!(size_of::<Body>(), 24);
    }
}
