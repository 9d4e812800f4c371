//! JSON, for whatever is asked to be in it.

use serde::{Serialize, de::DeserializeOwned};

use super::{
    careful::{Careful, Notes},
    error::{CodecError, DecodeError},
};

pub(super) fn encode<V: Serialize>(value: &V, out: &mut Vec<u8>) -> Result<(), CodecError> {
    Ok(serde_json::to_writer(out, value)?)
}

pub(super) fn decode<V: DeserializeOwned>(bytes: &[u8], notes: &Notes) -> Result<V, DecodeError> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = V::deserialize(Careful::new(&mut reader, notes));
    let value = value.and_then(|value| reader.end().map(|()| value));
    value.map_err(|error| notes.error(error))
}
