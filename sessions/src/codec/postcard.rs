use serde::{Serialize, de::DeserializeOwned};

use super::{CodecError, nothing_left};

pub(super) fn encode<F: Serialize>(value: &F, out: &mut Vec<u8>) -> Result<(), CodecError> {
    postcard::to_io(value, out)?;
    Ok(())
}

pub(super) fn decode<F: DeserializeOwned>(bytes: &[u8]) -> Result<F, CodecError> {
    let (value, rest) = postcard::take_from_bytes(bytes)?;
    nothing_left(rest.len())?;
    Ok(value)
}
