//! MessagePack with names, for whatever has a structure.

use rmp_serde::{Deserializer, decode::Error, encode::write_named};
use serde::{
    Deserialize, Serialize,
    de::{DeserializeOwned, IgnoredAny},
};

use super::{
    DEEPEST_READ,
    careful::{Careful, Notes},
    error::{CodecError, DecodeError, Unreadable},
};

/// With the names of fields and variants: whatever changes in a struct, they say what is what.
pub(super) fn encode<V: Serialize>(value: &V, out: &mut Vec<u8>) -> Result<(), CodecError> {
    Ok(write_named(out, value)?)
}

#[inline]
pub(super) fn decode<V: DeserializeOwned>(bytes: &[u8], notes: &Notes) -> Result<V, DecodeError> {
    let mut reader = Deserializer::from_read_ref(bytes);
    // For what is skipped. Whatever else is too deep, `Careful` says so first.
    reader.set_max_depth(2 * DEEPEST_READ as usize);
    let value = V::deserialize(Careful::new(&mut reader, notes));
    let value = value.map_err(|error| notes.error(error))?;
    // The reader does not say where it is; at the end it has no marker any more.
    match IgnoredAny::deserialize(&mut reader) {
        Err(Error::InvalidMarkerRead(_)) => Ok(value),
        _ => Err(Unreadable::Damaged.into()),
    }
}
