//! How one field becomes bytes, and back. Only here does a codec's name appear.
//!
//! No value is read back as another one, whatever has become of its type since. Codecs that write
//! values one after the other, without a word of what they are, are therefore used for scalars and
//! lists of scalars alone, with a byte before them that says what they are; whatever has names or a
//! structure is written with them, in MessagePack or JSON. And what a codec would not give back is
//! not written: each value is [looked over](survey) first, and the first one of each shape is read
//! back; of a type that asks the codec what there is, each.

// No layer can be built without a codec.
#![cfg_attr(
    not(any(feature = "messagepack", feature = "json")),
    allow(
        dead_code,
        unreachable_code,
        unused_imports,
        unused_variables,
        clippy::ptr_arg,
        reason = "without a codec there is no value of `Codec`"
    )
)]

use std::fmt;

#[cfg(feature = "bincode")]
pub(crate) mod bincode;
pub(crate) mod careful;
pub(crate) mod error;
pub(crate) mod form;
#[cfg(feature = "json")]
pub(crate) mod json;
#[cfg(feature = "messagepack")]
pub(crate) mod messagepack;
#[cfg(all(test, feature = "bincode", feature = "postcard", feature = "json"))]
pub(crate) mod nesting;
#[cfg(any(feature = "bincode", feature = "postcard"))]
pub(crate) mod plain;
#[cfg(feature = "postcard")]
pub(crate) mod postcard;
pub(crate) mod probe;
pub(crate) mod seen;
pub(crate) mod survey;
#[cfg(all(test, feature = "bincode", feature = "postcard", feature = "json"))]
mod tests;

#[cfg(feature = "bincode")]
use self::bincode::Bincode;
#[cfg(feature = "postcard")]
use self::postcard::Postcard;
#[cfg(any(feature = "bincode", feature = "postcard"))]
use self::survey::Plain;
use self::{
    careful::Notes,
    error::{CodecError, Problem},
    form::{In, Out},
    seen::Place,
    survey::{Node, Purpose, Rules, Survey, SurveyError},
};

pub(crate) use self::error::{DecodeError, Unreadable};
pub use self::{error::EncodeError, form::Form, probe::Probe};

/// How the fields of a session are encoded in the store: of [all fields](
/// crate::SessionLayerBuilder::with_codec), or of one, with `#[session(codec = …)]`.
///
/// Each stored field says how it was written. A program that changes its codec therefore reads what
/// the old one wrote, as long as the old one's feature stays enabled, and rewrites a field when it
/// next changes.
///
/// What each of them can hold, and what becomes of a stored value when its type changes, stands in
/// [`values`](crate::values).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Codec {
    /// [bincode 2](https://docs.rs/bincode/2) for numbers, texts, bytes and lists of them, with a
    /// byte that says which they are; [`MessagePack`](Self::MessagePack) for everything that has
    /// names or a structure. The default.
    #[cfg(feature = "bincode")]
    Bincode,
    /// The same with [postcard 1](https://docs.rs/postcard/1), whose format is specified.
    #[cfg(feature = "postcard")]
    Postcard,
    /// [MessagePack](https://msgpack.org) with the names of fields and variants: self-describing,
    /// between bincode and JSON in size and time.
    #[cfg(feature = "messagepack")]
    MessagePack,
    /// JSON: readable in the store, self-describing, larger and slower. It has no NaN, and no maps
    /// whose keys are neither texts nor numbers.
    #[cfg(feature = "json")]
    Json,
    /// Stands in where no codec is compiled in; no layer can be built with it.
    #[cfg(not(any(feature = "messagepack", feature = "json")))]
    #[doc(hidden)]
    Missing,
}

/// How deep a value may be nested that is stored: each struct, list, map, `Some` and newtype around a
/// part of it is a level, and so is a variant with data, which is two if that has names or is more than
/// one. The code that reads it back needs stack for each of them, and a stack that ends ends the process.
const DEEPEST: u32 = 64;

/// How deep what is read may be nested. The type may have got more layers than it had when it was
/// stored. Less than where serde_json stops by itself.
const DEEPEST_READ: u32 = 120;

/// How the bytes of one value are laid out.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Layout {
    #[cfg(feature = "bincode")]
    Bincode(Plain),
    #[cfg(feature = "postcard")]
    Postcard(Plain),
    #[cfg(feature = "messagepack")]
    MessagePack,
    #[cfg(feature = "json")]
    Json,
}

// The numbers that stand for a layout in a stored field. Never reused: 1 and 2 were bincode's and
// postcard's before a byte said what they write.
const OLD_BINCODE: u8 = 1;
const OLD_POSTCARD: u8 = 2;
const JSON: u8 = 3;
const MESSAGEPACK: u8 = 4;
const BINCODE: u8 = 5;
const POSTCARD: u8 = 6;

impl Layout {
    fn number(self) -> u8 {
        match self {
            #[cfg(feature = "bincode")]
            Self::Bincode(_) => BINCODE,
            #[cfg(feature = "postcard")]
            Self::Postcard(_) => POSTCARD,
            #[cfg(feature = "messagepack")]
            Self::MessagePack => MESSAGEPACK,
            #[cfg(feature = "json")]
            Self::Json => JSON,
        }
    }
}

/// A value that can be written, and what is known of that.
pub(crate) struct Plan<'a, W: Form> {
    value: &'a W::Value,
    codec: Codec,
    layout: Layout,
    node: Node,
}

impl Codec {
    /// All that are compiled in, as a layer that does not choose prefers them.
    pub(crate) const ALL: &'static [Self] = &[
        #[cfg(feature = "bincode")]
        Self::Bincode,
        #[cfg(feature = "postcard")]
        Self::Postcard,
        #[cfg(feature = "messagepack")]
        Self::MessagePack,
        #[cfg(feature = "json")]
        Self::Json,
    ];

    /// The codec of a layer that does not choose one.
    pub(crate) fn preferred() -> Self {
        #[cfg(any(feature = "messagepack", feature = "json"))]
        return Self::ALL[0];
        #[cfg(not(any(feature = "messagepack", feature = "json")))]
        return Self::Missing;
    }

    /// As `#[session(codec = …)]` has it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            #[cfg(feature = "bincode")]
            Self::Bincode => "bincode",
            #[cfg(feature = "postcard")]
            Self::Postcard => "postcard",
            #[cfg(feature = "messagepack")]
            Self::MessagePack => "messagepack",
            #[cfg(feature = "json")]
            Self::Json => "json",
            #[cfg(not(any(feature = "messagepack", feature = "json")))]
            Self::Missing => "none",
        }
    }

    fn json() -> Option<Self> {
        #[cfg(feature = "json")]
        return Some(Self::Json);
        #[cfg(not(feature = "json"))]
        None
    }

    fn is_json(self) -> bool {
        #[cfg(feature = "json")]
        return self == Self::Json;
        #[cfg(not(feature = "json"))]
        false
    }

    #[inline]
    fn layout(self, node: &Node) -> Option<Layout> {
        Some(match (self, node.plain) {
            #[cfg(feature = "bincode")]
            (Self::Bincode, Some(plain)) => Layout::Bincode(plain),
            #[cfg(feature = "postcard")]
            (Self::Postcard, Some(plain)) => Layout::Postcard(plain),
            #[cfg(feature = "json")]
            (Self::Json, _) => Layout::Json,
            #[cfg(feature = "messagepack")]
            _ => Layout::MessagePack,
            #[cfg(not(any(feature = "messagepack", feature = "json")))]
            (Self::Missing, _) => return None,
        })
    }

    fn rules(self) -> Rules {
        let is_json = self.is_json();
        Rules { is_human_readable: is_json, is_json }
    }

    /// Looks over a value, and writes it behind what is in `out` and behind what `head` writes there, which
    /// is told the number of the layout. Reads the value back, unless one of the same shape has been
    /// already; if `is_thorough`, in any case.
    #[inline]
    pub(crate) fn write<W: Form>(
        self,
        value: &W::Value,
        is_thorough: bool,
        out: &mut Vec<u8>,
        head: impl FnOnce(u8, &mut Vec<u8>),
    ) -> Result<(), EncodeError> {
        // With the look a text of twelve letters took 22 ns to write, and takes 7 without (`benches/values`).
        let (node, is_known) = match form::scalar::<W>() {
            Some(kind) => (Node::of_scalar(kind), true),
            None => self.look::<W>(value)?,
        };
        let plan = self.plan::<W>(value, node)?;
        head(plan.layout.number(), out);
        let start = out.len();
        plan.put(out).map_err(|source| self.error::<W>(Problem::Refused, Some(source)))?;
        match is_known && !is_thorough {
            true => Ok(()),
            false => plan.check(&out[start..]),
        }
    }

    /// What the value is, and whether one of the same shape has been read back already.
    #[inline]
    fn look<W: Form>(self, value: &W::Value) -> Result<(Node, bool), EncodeError> {
        let place = Place::new::<W>(self as u8);
        let mut survey = Survey::new(self.rules(), Purpose::Look(place));
        let node = survey.visit(&In::<W>(value)).map_err(|error| self.refused::<W>(error))?;
        // In development each value is read back, so that a type that does not take all of its own
        // values is found there.
        let is_new = cfg!(debug_assertions) || survey.has_news || !place.has_seen(node.shape);
        Ok((node, !is_new))
    }

    #[inline]
    fn plan<W: Form>(self, value: &W::Value, node: Node) -> Result<Plan<'_, W>, EncodeError> {
        match self.layout(&node) {
            Some(layout) => Ok(Plan { value, codec: self, layout, node }),
            None => Err(self.error::<W>(Problem::NoCodec, None)),
        }
    }

    #[cold]
    fn refused<W: Form>(self, error: SurveyError) -> EncodeError {
        match error {
            SurveyError::Problem(problem) => self.error::<W>(problem, None),
            SurveyError::Own(message) => self.error::<W>(Problem::Refused, Some(message.into())),
        }
    }

    #[cold]
    fn error<W: Form>(self, problem: Problem, source: Option<CodecError>) -> EncodeError {
        EncodeError { codec: self, type_name: std::any::type_name::<W::Value>(), problem, source }
    }

    /// Another codec that gives the value back.
    fn instead<W: Form>(self, value: &W::Value) -> Option<Self> {
        let others = Self::ALL.iter().copied().filter(|codec| *codec != self);
        others.into_iter().find(|codec| {
            let node = Survey::new(codec.rules(), Purpose::Compare).visit(&In::<W>(value));
            let plan = node.ok().and_then(|node| codec.plan::<W>(value, node).ok());
            plan.is_some_and(|plan| {
                let mut bytes = Vec::new();
                plan.put(&mut bytes).is_ok() && plan.reads_back(&bytes, &Notes::default()).is_ok()
            })
        })
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            #[cfg(feature = "bincode")]
            Self::Bincode => "bincode",
            #[cfg(feature = "postcard")]
            Self::Postcard => "postcard",
            #[cfg(feature = "messagepack")]
            Self::MessagePack => "MessagePack",
            #[cfg(feature = "json")]
            Self::Json => "JSON",
            #[cfg(not(any(feature = "messagepack", feature = "json")))]
            Self::Missing => "no codec",
        })
    }
}

impl<W: Form> Plan<'_, W> {
    #[cold]
    fn check(&self, bytes: &[u8]) -> Result<(), EncodeError> {
        let notes = Notes::default();
        match self.reads_back(bytes, &notes) {
            // What decides is in the value: the next one of this shape is another matter.
            Ok(()) if notes.has_asked() => Ok(()),
            Ok(()) => {
                let place = Place::new::<W>(self.codec as u8);
                let mut survey = Survey::new(self.codec.rules(), Purpose::Note(place));
                // It went well a moment ago.
                let _ = survey.visit(&In::<W>(self.value));
                place.note(self.node.shape);
                Ok(())
            }
            Err(source) => {
                let instead = self.codec.instead::<W>(self.value);
                Err(self.codec.error::<W>(Problem::NotReadBack { instead }, source))
            }
        }
    }

    /// Whether it decodes to the same.
    fn reads_back(&self, bytes: &[u8], notes: &Notes) -> Result<(), Option<CodecError>> {
        let read =
            decode_noting::<W>(self.layout.number(), bytes, notes).map_err(|error| error.source)?;
        let of = |value| {
            let mut survey = Survey::new(self.codec.rules(), Purpose::Compare);
            survey.visit(&In::<W>(value)).ok()
        };
        let (Some(written), Some(read)) = (of(self.value), of(&read)) else { return Err(None) };
        // A type may write something else each time (the time that is left, say): of that, only what it
        // is made of can be compared.
        let varies = || of(self.value).is_some_and(|again| again.sum != written.sum);
        match written.sum == read.sum || written.shape == read.shape && varies() {
            true => Ok(()),
            false => Err(None),
        }
    }

    #[inline]
    fn put(&self, out: &mut Vec<u8>) -> Result<(), CodecError> {
        let value = &In::<W>(self.value);
        match self.layout {
            #[cfg(feature = "bincode")]
            Layout::Bincode(plain) => {
                plain::encode::<Bincode, _>(value, plain, self.node.length, out)
            }
            #[cfg(feature = "postcard")]
            Layout::Postcard(plain) => {
                plain::encode::<Postcard, _>(value, plain, self.node.length, out)
            }
            #[cfg(feature = "messagepack")]
            Layout::MessagePack => messagepack::encode(value, out),
            #[cfg(feature = "json")]
            Layout::Json => json::encode(value, out),
        }
    }
}

/// Decodes all of `bytes`; bytes left over are an error. `layout` is what the stored field says.
#[inline]
pub(crate) fn decode<W: Form>(layout: u8, bytes: &[u8]) -> Result<W::Value, DecodeError> {
    // Most fields are numbers, and a `u32` takes a third fewer instructions so.
    let number = match (form::scalar::<W>(), layout) {
        #[cfg(feature = "bincode")]
        (Some(kind), BINCODE) => plain::decode_number::<Bincode, W>(kind, bytes),
        #[cfg(feature = "postcard")]
        (Some(kind), POSTCARD) => plain::decode_number::<Postcard, W>(kind, bytes),
        _ => None,
    };
    match number {
        Some(number) => Ok(number),
        None => decode_noting::<W>(layout, bytes, &Notes::default()),
    }
}

#[inline]
fn decode_noting<W: Form>(
    layout: u8,
    bytes: &[u8],
    notes: &Notes,
) -> Result<W::Value, DecodeError> {
    let value: Result<Out<W>, DecodeError> = match layout {
        #[cfg(feature = "bincode")]
        BINCODE => plain::decode::<Bincode, _>(bytes, notes),
        #[cfg(feature = "postcard")]
        POSTCARD => plain::decode::<Postcard, _>(bytes, notes),
        #[cfg(feature = "messagepack")]
        MESSAGEPACK => messagepack::decode(bytes, notes).and_then(|value: Out<W>| {
            match notes.has_asked() && has_other_numbers::<W>(&value.0, bytes) {
                true => Err(Unreadable::OtherNumbers.into()),
                false => Ok(value),
            }
        }),
        #[cfg(feature = "json")]
        JSON => json::decode(bytes, notes),
        OLD_BINCODE | OLD_POSTCARD => Err(Unreadable::NotNoted.into()),
        #[cfg(not(feature = "bincode"))]
        BINCODE => Err(Unreadable::FeatureOff("bincode").into()),
        #[cfg(not(feature = "postcard"))]
        POSTCARD => Err(Unreadable::FeatureOff("postcard").into()),
        #[cfg(not(feature = "messagepack"))]
        MESSAGEPACK => Err(Unreadable::FeatureOff("messagepack").into()),
        #[cfg(not(feature = "json"))]
        JSON => Err(Unreadable::FeatureOff("json").into()),
        _ => Err(Unreadable::Later.into()),
    };
    value.map(|Out(value)| value)
}

/// Whether a number in it has come out as an object.
///
/// With serde_json's feature `arbitrary_precision`, which any crate of a program turns on for all, a number of a `Value`
/// is a struct of this name with one field of this name. Without the feature, that is read as an object, and
/// written as a map.
#[cfg(feature = "messagepack")]
fn has_other_numbers<W: Form>(value: &W::Value, bytes: &[u8]) -> bool {
    const NUMBER: &str = "$serde_json::private::Number";
    let rules = Rules { is_human_readable: false, is_json: false };
    let mut places = bytes.windows(NUMBER.len());
    places.any(|place| place == NUMBER.as_bytes())
        && Survey::has_key(rules, &In::<W>(value), NUMBER)
}
