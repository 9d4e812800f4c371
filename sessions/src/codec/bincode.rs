use bincode::{
    config::{self, Configuration, Limit, LittleEndian, Varint},
    serde::{decode_from_slice, encode_into_std_write},
};
use serde::{Serialize, de::DeserializeOwned};

use super::{CodecError, nothing_left};
use crate::payload::LARGEST_PAYLOAD;

/// bincode reserves memory for the length that a string claims before it looks for the bytes: the
/// limit bounds that by what a payload can hold at all.
const CONFIG: Configuration<LittleEndian, Varint, Limit<LARGEST_PAYLOAD>> =
    config::standard().with_limit();

pub(super) fn encode<F: Serialize>(value: &F, out: &mut Vec<u8>) -> Result<(), CodecError> {
    encode_into_std_write(value, out, CONFIG)?;
    Ok(())
}

pub(super) fn decode<F: DeserializeOwned>(bytes: &[u8]) -> Result<F, CodecError> {
    let (value, used) = decode_from_slice(bytes, CONFIG)?;
    nothing_left(bytes.len() - used)?;
    Ok(value)
}
