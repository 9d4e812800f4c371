//! Why a value cannot be stored, or what is stored cannot be read, and what to write instead.
//!
//! No text here contains a value.

use std::{error::Error as StdError, fmt};

use crate::{
    data::codec::{Codec, DEEPEST},
    error::refusal::EncodeFailure,
};

/// An error of a codec, or of a type's serde implementation. Its text may quote the value.
pub(crate) type CodecError = Box<dyn StdError + Send + Sync>;

/// What is wrong with a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Problem {
    /// `Some(None)`, `Some(())` and the like.
    SomeNothing,
    /// NaN or an infinity in JSON.
    NotFinite,
    /// A key of a map that is not a text or a number in JSON.
    NoKey,
    /// It is nested so deeply that to read it back may take more stack than there is.
    TooDeep,
    /// The type's own `Serialize`, or the codec, refused it.
    Refused,
    /// What is written of it does not decode, or to something else. If another codec does better,
    /// it is named.
    NotReadBack { instead: Option<Codec> },
    /// No codec is compiled in.
    NoCodec,
}

/// A value that cannot be stored as it is.
#[derive(Debug)]
pub struct EncodeError {
    pub(crate) codec: Codec,
    pub(crate) type_name: &'static str,
    pub(crate) problem: Problem,
    pub(crate) source: Option<CodecError>,
}

impl EncodeError {
    pub(crate) fn not_read_back<V>(codec: Codec) -> Self {
        let problem = Problem::NotReadBack { instead: None };
        Self { codec, type_name: std::any::type_name::<V>(), problem, source: None }
    }

    /// The Rust type of the field.
    pub(crate) fn type_name(&self) -> &'static str {
        self.type_name
    }
}

/// What is wrong, and what to write.
impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let codec = self.codec;
        match self.problem {
            Problem::SomeNothing => f.write_str(
                "a `Some` that holds nothing, as `Some(None)` or `Some(())`, would be read back as \
                 `None`; write its type as a tuple of one, `Option<(…,)>`, or as an enum",
            ),
            Problem::NotFinite => f.write_str(
                "JSON has no NaN and no infinities; write `#[session(codec = messagepack)]` on the \
                 field",
            ),
            Problem::NoKey => f.write_str(
                "keys of a map in JSON are texts or numbers; write \
                 `#[session(codec = messagepack)]` on the field",
            ),
            Problem::TooDeep => write!(
                f,
                "it is nested more than {DEEPEST} levels deep; store it flat, as a list whose \
                 elements say which of them holds them, or as a text with `#[serde(with = \"…\")]` on \
                 the field"
            ),
            Problem::Refused => f.write_str(
                "the type's own `Serialize` refuses this value; store another form of it with \
                 `#[serde(with = \"…\")]` on the field, or write `#[session(skip)]`",
            ),
            Problem::NotReadBack { instead: Some(instead) } => write!(
                f,
                "{codec} would not give this value back, and {instead} does; write \
                 `#[session(codec = {})]` on the field",
                instead.name()
            ),
            Problem::NotReadBack { instead: None } => write!(
                f,
                "{codec} would not give this value back, for the type's `Deserialize` does not take \
                 what its `Serialize` makes, or takes it for another value; store another form of it \
                 with `#[serde(with = \"…\")]` on the field, or write `#[session(skip)]`"
            ),
            Problem::NoCodec => f.write_str("no codec is compiled in"),
        }
    }
}

impl From<EncodeError> for EncodeFailure {
    fn from(error: EncodeError) -> Self {
        Self::new(error.type_name, error)
    }
}

impl StdError for EncodeError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

/// Why a stored field falls back to its default.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Unreadable {
    /// Written by a version that did not note what it wrote.
    NotNoted,
    /// Written by a codec whose feature is off.
    #[cfg_attr(
        all(feature = "bincode", feature = "postcard", feature = "json"),
        expect(dead_code, reason = "all are on")
    )]
    FeatureOff(&'static str),
    /// Written by a later version.
    Later,
    /// Cut short, or too long.
    Damaged,
    /// A struct in it has lost fields and got others: it cannot be told whether they were renamed.
    Renamed,
    /// It is nested deeper than what this version stores.
    TooDeep,
    /// Its numbers are written as serde_json writes them in a build with another feature.
    #[cfg_attr(
        not(feature = "messagepack"),
        expect(dead_code, reason = "JSON is the same in both")
    )]
    OtherNumbers,
    /// It is the value of another type.
    OtherType,
}

/// What is wrong, and what to do.
impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotNoted => f.write_str(
                "a version of `sessions` wrote it that did not note what it wrote: it cannot be \
                 told from another type's value. It goes with the next write of the field",
            ),
            Self::FeatureOff(feature) => write!(
                f,
                "another codec wrote it: enable the feature `{feature}` of `sessions` to read it"
            ),
            Self::Later => f.write_str("a later version of `sessions` wrote it"),
            Self::Damaged => f.write_str("its bytes are damaged"),
            Self::Renamed => f.write_str(
                "a struct in it has lost fields and got others, which may be the same under new \
                 names: write `#[serde(alias = \"old name\")]` on those that are, or raise the \
                 field's `#[session(version = …)]`",
            ),
            Self::TooDeep => f.write_str(
                "it is nested deeper than anything that this version stores, and to read it may take \
                 more stack than there is. It goes with the next write of the field",
            ),
            Self::OtherNumbers => f.write_str(
                "it was written where a crate had turned on serde_json's feature `arbitrary_precision`, and \
                 its numbers would be objects here: turn the feature on to read it; with \
                 `#[session(codec = json)]` on the field it will not matter",
            ),
            Self::OtherType => f.write_str(
                "it is not what the type reads: if the type was changed on purpose, raise the \
                 field's `#[session(version = …)]`; if a field or variant was renamed, write \
                 `#[serde(alias = \"old name\")]` on it; if a field was added, `#[serde(default)]`",
            ),
        }
    }
}

/// What did not decode, and what the codec says to it.
#[derive(Debug)]
pub(crate) struct DecodeError {
    pub(crate) why: Unreadable,
    /// For tests and tools: it may quote the value.
    pub(crate) source: Option<CodecError>,
}

impl From<Unreadable> for DecodeError {
    fn from(why: Unreadable) -> Self {
        Self { why, source: None }
    }
}

impl DecodeError {
    pub(crate) fn new(why: Unreadable, source: impl Into<CodecError>) -> Self {
        Self { why, source: Some(source.into()) }
    }
}
