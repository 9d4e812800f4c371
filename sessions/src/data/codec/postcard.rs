//! postcard, for [plain](super::plain) values.

use serde::{Deserialize, Serialize};

use super::{error::CodecError, plain::Positional};
use crate::varint;

pub(super) struct Postcard;

impl Positional for Postcard {
    fn put<V: Serialize>(value: &V, out: &mut Vec<u8>) -> Result<(), CodecError> {
        postcard::to_io(value, out)?;
        Ok(())
    }

    fn take<'de, V: Deserialize<'de>>(bytes: &mut &'de [u8]) -> Result<V, CodecError> {
        let (value, rest) = postcard::take_from_bytes(bytes)?;
        *bytes = rest;
        Ok(value)
    }

    #[inline]
    fn number(bytes: &mut &[u8]) -> Option<u64> {
        varint::take(bytes)
    }
}
