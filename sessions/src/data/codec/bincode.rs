//! bincode 2, for [plain](super::plain) values.

use bincode::{
    config::{self, Configuration, Limit, LittleEndian, Varint},
    serde::{borrow_decode_from_slice, encode_into_std_write},
};
use serde::{Deserialize, Serialize};

use crate::data::codec::{error::CodecError, plain::Positional};
use crate::record::LARGEST_PAYLOAD;

/// bincode reserves memory for the length that a string claims before it looks for the bytes: the
/// limit bounds that by what a payload can hold at all.
const CONFIG: Configuration<LittleEndian, Varint, Limit<LARGEST_PAYLOAD>> =
    config::standard().with_limit();

pub(crate) struct Bincode;

impl Positional for Bincode {
    fn put<V: Serialize>(value: &V, out: &mut Vec<u8>) -> Result<(), CodecError> {
        encode_into_std_write(value, out, CONFIG)?;
        Ok(())
    }

    fn take<'de, V: Deserialize<'de>>(bytes: &mut &'de [u8]) -> Result<V, CodecError> {
        let (value, used) = borrow_decode_from_slice(bytes, CONFIG)?;
        *bytes = &bytes[used..];
        Ok(value)
    }

    /// The first byte is the number, or says in how many bytes the number follows.
    #[inline]
    fn number(bytes: &mut &[u8]) -> Option<u64> {
        Some(match *bytes.split_off_first()? {
            small @ ..=250 => small.into(),
            251 => u16::from_le_bytes(chunk(bytes)?).into(),
            252 => u32::from_le_bytes(chunk(bytes)?).into(),
            253 => u64::from_le_bytes(chunk(bytes)?),
            _ => return None,
        })
    }
}

fn chunk<const LENGTH: usize>(bytes: &mut &[u8]) -> Option<[u8; LENGTH]> {
    bytes.split_off(..LENGTH)?.try_into().ok()
}
