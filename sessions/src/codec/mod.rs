//! How one field becomes bytes, and back. Only here does a codec's name appear.

use std::error::Error as StdError;

use serde::{Serialize, de::DeserializeOwned};

#[cfg(feature = "bincode")]
mod bincode;
#[cfg(feature = "json")]
mod json;
#[cfg(feature = "postcard")]
mod postcard;

/// How the fields of a session are encoded in the store.
///
/// Each stored field says which codec wrote it. A program that changes its codec therefore reads
/// what the old one wrote, as long as the old one's feature stays enabled, and rewrites a field
/// when it next changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Codec {
    /// [bincode 2](https://docs.rs/bincode/2): small and fast; the default.
    ///
    /// Not self-describing: types whose serde implementation depends on the format
    /// (`#[serde(untagged)]`, `flatten`, `skip_serializing_if`, `serde_json::Value`) need
    /// [`Json`](Self::Json).
    #[cfg(feature = "bincode")]
    Bincode,
    /// [postcard 1](https://docs.rs/postcard/1): as small as bincode, with a specified format. Not
    /// self-describing either.
    #[cfg(feature = "postcard")]
    Postcard,
    /// JSON: readable in the store, self-describing, larger and slower.
    #[cfg(feature = "json")]
    Json,
    /// Stands in where no codec is compiled in; no layer can be built with it.
    #[cfg(not(any(feature = "bincode", feature = "postcard", feature = "json")))]
    #[doc(hidden)]
    Missing,
}

/// Why a value could not be encoded or decoded.
pub(crate) type CodecError = Box<dyn StdError + Send + Sync>;

impl Codec {
    /// The codec of a layer that does not choose one: the first of bincode, postcard and JSON that
    /// is compiled in.
    pub(crate) fn preferred() -> Option<Self> {
        let compiled_in: &[Self] = &[
            #[cfg(feature = "bincode")]
            Self::Bincode,
            #[cfg(feature = "postcard")]
            Self::Postcard,
            #[cfg(feature = "json")]
            Self::Json,
        ];
        compiled_in.first().copied()
    }

    /// The number that stands for this codec in a stored field. Never reused.
    pub(crate) fn number(self) -> u8 {
        match self {
            #[cfg(feature = "bincode")]
            Self::Bincode => 1,
            #[cfg(feature = "postcard")]
            Self::Postcard => 2,
            #[cfg(feature = "json")]
            Self::Json => 3,
            #[cfg(not(any(feature = "bincode", feature = "postcard", feature = "json")))]
            Self::Missing => 0,
        }
    }

    pub(crate) fn from_number(number: u8) -> Result<Self, CodecError> {
        match number {
            #[cfg(feature = "bincode")]
            1 => Ok(Self::Bincode),
            #[cfg(feature = "postcard")]
            2 => Ok(Self::Postcard),
            #[cfg(feature = "json")]
            3 => Ok(Self::Json),
            #[cfg(not(feature = "bincode"))]
            1 => Err("written by bincode, and the feature `bincode` is off".into()),
            #[cfg(not(feature = "postcard"))]
            2 => Err("written by postcard, and the feature `postcard` is off".into()),
            #[cfg(not(feature = "json"))]
            3 => Err("written by JSON, and the feature `json` is off".into()),
            _ => Err("written by a codec that this version does not know".into()),
        }
    }

    #[cfg_attr(
        not(any(feature = "bincode", feature = "postcard", feature = "json")),
        expect(unused_variables, clippy::ptr_arg, reason = "there is nothing to use them")
    )]
    pub(crate) fn encode<F: Serialize>(
        self,
        value: &F,
        out: &mut Vec<u8>,
    ) -> Result<(), CodecError> {
        match self {
            #[cfg(feature = "bincode")]
            Self::Bincode => bincode::encode(value, out),
            #[cfg(feature = "postcard")]
            Self::Postcard => postcard::encode(value, out),
            #[cfg(feature = "json")]
            Self::Json => json::encode(value, out),
            #[cfg(not(any(feature = "bincode", feature = "postcard", feature = "json")))]
            Self::Missing => Err("no codec is compiled in".into()),
        }
    }

    /// Decodes all of `bytes`; bytes left over are an error.
    #[cfg_attr(
        not(any(feature = "bincode", feature = "postcard", feature = "json")),
        expect(unused_variables, reason = "there is nothing to use them")
    )]
    pub(crate) fn decode<F: DeserializeOwned>(self, bytes: &[u8]) -> Result<F, CodecError> {
        match self {
            #[cfg(feature = "bincode")]
            Self::Bincode => bincode::decode(bytes),
            #[cfg(feature = "postcard")]
            Self::Postcard => postcard::decode(bytes),
            #[cfg(feature = "json")]
            Self::Json => json::decode(bytes),
            #[cfg(not(any(feature = "bincode", feature = "postcard", feature = "json")))]
            Self::Missing => Err("no codec is compiled in".into()),
        }
    }
}

#[cfg(any(feature = "bincode", feature = "postcard"))]
fn nothing_left(rest: usize) -> Result<(), CodecError> {
    match rest {
        0 => Ok(()),
        rest => Err(format!("{rest} bytes are left over").into()),
    }
}

#[cfg(all(test, feature = "bincode", feature = "postcard", feature = "json"))]
mod tests {
    use std::{collections::BTreeMap, fmt::Debug};

    use super::*;

    const ALL: [Codec; 3] = [Codec::Bincode, Codec::Postcard, Codec::Json];

    fn round_trip<F: Serialize + DeserializeOwned + PartialEq + Debug>(value: F) {
        for codec in ALL {
            let mut bytes = Vec::new();
            codec.encode(&value, &mut bytes).unwrap();
            assert_eq!(codec.decode::<F>(&bytes).unwrap(), value, "{codec:?}");

            bytes.push(0);
            assert!(codec.decode::<F>(&bytes).is_err(), "{codec:?} accepts a byte too many");
            bytes.truncate(bytes.len() - 2);
            assert!(codec.decode::<F>(&bytes).is_err(), "{codec:?} accepts a byte too few");
        }
    }

    #[test]
    fn values_come_back_and_take_exactly_their_bytes() {
        round_trip((300_u32, true));
        round_trip(String::from("Zoë"));
        round_trip(Some(vec![1_u8, 2, 3]));
        round_trip(BTreeMap::from([(1_u16, "one".to_string())]));
    }

    #[test]
    fn numbers_stay_what_they_are() {
        assert_eq!(ALL.map(Codec::number), [1, 2, 3]);
        assert_eq!(ALL.map(|codec| Codec::from_number(codec.number()).unwrap()), ALL);
        assert!(Codec::from_number(0).is_err());
        assert_eq!(Codec::preferred(), Some(Codec::Bincode));
    }

    #[test]
    fn a_claimed_length_reserves_no_memory() {
        // A string of 2^62 bytes, in each codec's own way of saying so.
        let bincode = [&[253_u8][..], &(1_u64 << 62).to_le_bytes()].concat();
        assert!(Codec::Bincode.decode::<String>(&bincode).is_err());
        assert!(Codec::Bincode.decode::<Vec<u64>>(&bincode).is_err());
        let postcard = [0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x40];
        assert!(Codec::Postcard.decode::<String>(&postcard).is_err());
        assert!(Codec::Postcard.decode::<Vec<u64>>(&postcard).is_err());
    }
}
