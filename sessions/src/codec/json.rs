use serde::{Serialize, de::DeserializeOwned};

use super::CodecError;

pub(super) fn encode<F: Serialize>(value: &F, out: &mut Vec<u8>) -> Result<(), CodecError> {
    Ok(serde_json::to_writer(out, value)?)
}

/// `from_slice` itself refuses what is left over.
pub(super) fn decode<F: DeserializeOwned>(bytes: &[u8]) -> Result<F, CodecError> {
    Ok(serde_json::from_slice(bytes)?)
}
