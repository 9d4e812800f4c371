//! What a value is made of, found out by serializing it to nowhere: which codec suits it, and what
//! in it no codec would read back.
//!
//! Strings and numbers are only looked at where two values are compared: otherwise only what they are
//! counts, and a value that formats itself (`collect_str`) does not get to.

use std::fmt;

use serde::ser::{self, Serialize, Serializer};

use self::compound::{Elements, Entries, Members};
use super::{DEEPEST, error::Problem, seen::Place};

mod compound;

/// What a codec cannot tell apart, or has no words for.
#[derive(Clone, Copy)]
pub(super) struct Rules {
    pub(super) is_human_readable: bool,
    /// NaN and the infinities are written as nothing, and keys of maps are texts.
    pub(super) is_json: bool,
}

/// What a value, or a part of one, is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Node {
    /// For a value without names and structure: how its bytes are to be read.
    pub(super) plain: Option<Plain>,
    /// What it is made of: fields, variants, kinds of scalars. Of a list only which kinds there are:
    /// two values of one shape are read back in the same way.
    pub(super) shape: u64,
    /// The same with all numbers and texts in it, where values are compared: what is alike has the same.
    /// In whatever order elements come.
    pub(super) sum: u64,
    /// Whether it is written as nothing.
    is_nothing: bool,
    /// Whether JSON takes it for a key.
    is_key: bool,
    /// How many elements an array has.
    pub(super) length: usize,
}

impl Node {
    /// A value that is one scalar, where two are not compared.
    #[inline]
    pub(super) fn of_scalar(kind: Kind) -> Self {
        Self {
            plain: Some(Plain(kind as u8)),
            shape: kind as u64,
            sum: 0,
            is_nothing: false,
            is_key: !matches!(kind, Kind::Bytes),
            length: 0,
        }
    }
}

/// A scalar, by itself, in an `Option`, in a list, in an array, or in one of the latter two in an
/// `Option`: one byte before its bytes says all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Plain(pub(super) u8);

impl Plain {
    /// In a list, of a length that stands before it.
    pub(super) const LIST: u8 = 0x10;
    /// In an array: its length is written before it.
    pub(super) const ARRAY: u8 = 0x20;
    /// In a `Some`, which codecs without names write as a 1.
    pub(super) const SOME: u8 = 0x40;
    const KIND: u8 = 0x0f;

    #[cfg(any(feature = "bincode", feature = "postcard"))]
    pub(super) fn kind(self) -> Option<Kind> {
        Kind::ALL.get(usize::from(self.0 & Self::KIND)).copied()
    }

    pub(super) fn has(self, mark: u8) -> bool {
        self.0 & mark != 0
    }

    #[cfg(any(feature = "bincode", feature = "postcard"))]
    pub(super) fn without(self, mark: u8) -> Self {
        Self(self.0 & !mark)
    }

    #[inline]
    fn is_scalar(self) -> bool {
        self.0 != Kind::None as u8 && self.0 & !Self::KIND == 0
    }
}

/// The kinds of scalars that codecs without names write in different ways. The numbers are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    /// `None`, which is written as a 0; of a list, that it is empty.
    None = 0,
    Bool = 1,
    U8 = 2,
    /// Of 16 to 64 bits.
    Unsigned = 3,
    U128 = 4,
    I8 = 5,
    Signed = 6,
    I128 = 7,
    F32 = 8,
    F64 = 9,
    Char = 10,
    Text = 11,
    Bytes = 12,
}

#[cfg(any(feature = "bincode", feature = "postcard"))]
impl Kind {
    const ALL: [Self; 13] = [
        Self::None,
        Self::Bool,
        Self::U8,
        Self::Unsigned,
        Self::U128,
        Self::I8,
        Self::Signed,
        Self::I128,
        Self::F32,
        Self::F64,
        Self::Char,
        Self::Text,
        Self::Bytes,
    ];
}

/// A kind, or one of a width of its own: a type may write each in a variant of its own, which codecs do
/// not tell apart.
const fn width_of(kind: Kind, bytes: usize) -> u64 {
    match (kind, bytes) {
        (Kind::Unsigned, 2) => 13,
        (Kind::Unsigned, 8) => 14,
        (Kind::Signed, 2) => 15,
        (Kind::Signed, 8) => 16,
        _ => kind as u64,
    }
}

// What stands for structure in a shape.
const NOTHING: u64 = 20;
const LIST: u64 = 21;
const TUPLE: u64 = 22;
const MAP: u64 = 23;
const STRUCT: u64 = 24;
const VARIANT: u64 = 25;
const UNIT: u64 = 26;
/// A `Some` around what stands for itself is that much more.
const SOME: u64 = 32;
/// What is less than this stands for itself; the rest are hashes.
const STRUCTURED: u64 = 63;

/// One step of a hash: two multiplications, for what is not chosen by an enemy.
#[inline]
const fn mix(hash: u64, more: u64) -> u64 {
    let mixed = (hash ^ more).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9)
}

/// The same of two things at once, in one multiplication: for what every value is looked over for.
#[inline]
pub(super) fn fold(hash: u64, a: u64, b: u64) -> u64 {
    let product = u128::from(hash ^ a).wrapping_mul(u128::from(b ^ 0x9e37_79b9_7f4a_7c15));
    (product >> 64) as u64 ^ product as u64
}

/// A name in the code: the same place and length is the same name. Of the same name in two places
/// both are looked at.
#[inline]
fn place_of(name: &'static str) -> u64 {
    name.as_ptr().addr() as u64 ^ (name.len() as u64).rotate_right(8)
}

/// A name or text by its letters, for what has to be alike in both directions.
fn letters_of(text: &str) -> u64 {
    octets_of(text.as_bytes())
}

fn octets_of(octets: &[u8]) -> u64 {
    octets.iter().fold(octets.len() as u64, |hash, byte| mix(hash, u64::from(*byte)))
}

/// A survey of one value.
pub(super) struct Survey {
    pub(super) rules: Rules,
    pub(super) purpose: Purpose,
    /// Whether an element of a list or map in it is of a shape that has not been read back yet; where a key is looked
    /// for, whether it is there.
    pub(super) has_news: bool,
    /// How deep in the value it is.
    depth: u32,
}

/// What a survey is for.
#[derive(Clone, Copy)]
pub(super) enum Purpose {
    /// To find out whether all of it has been seen before.
    Look(Place),
    /// To note that all of it has been read back.
    Note(Place),
    /// To compare two values: `Node::sum` is wanted.
    Compare,
    /// To find a key of a map that has this sum.
    #[cfg(feature = "messagepack")]
    Find(u64),
}

impl Survey {
    pub(super) fn new(rules: Rules, purpose: Purpose) -> Self {
        Self { rules, purpose, has_news: false, depth: 0 }
    }

    /// Whether a map in the value has this key.
    #[cfg(feature = "messagepack")]
    pub(super) fn has_key(rules: Rules, value: &impl Serialize, key: &str) -> bool {
        let Ok(wanted) = Self::new(rules, Purpose::Compare).visit(&key) else { return false };
        let mut survey = Self::new(rules, Purpose::Find(wanted.sum));
        survey.visit(value).is_ok() && survey.has_news
    }

    #[inline]
    pub(super) fn visit(&mut self, value: &impl Serialize) -> Result<Node, SurveyError> {
        value.serialize(self)
    }

    /// Looks at what is in another value. It needs stack for each level, and so does the code that reads the
    /// value back.
    #[inline]
    fn inside<V: Serialize + ?Sized>(&mut self, value: &V) -> Result<Node, SurveyError> {
        if self.depth >= DEEPEST {
            return Err(Problem::TooDeep.into());
        }
        self.depth += 1;
        let node = value.serialize(&mut *self);
        self.depth -= 1;
        node
    }

    /// `bytes` is how wide it is, and `value` what it is.
    #[inline]
    fn scalar(
        &self,
        kind: Kind,
        bytes: usize,
        value: impl FnOnce() -> u64,
    ) -> Result<Node, SurveyError> {
        let sum = if self.compares() { mix(mix(kind as u64, bytes as u64), value()) } else { 0 };
        Ok(Node { shape: width_of(kind, bytes), sum, ..Node::of_scalar(kind) })
    }

    #[inline]
    fn float(
        &self,
        kind: Kind,
        bytes: usize,
        is_finite: bool,
        value: impl FnOnce() -> u64,
    ) -> Result<Node, SurveyError> {
        match is_finite || !self.rules.is_json {
            true => self.scalar(kind, bytes, value),
            false => Err(Problem::NotFinite.into()),
        }
    }

    #[inline]
    fn nothing(&self, plain: Option<Plain>, shape: u64, sum: u64) -> Result<Node, SurveyError> {
        Ok(Node { plain, shape, sum, is_nothing: true, is_key: false, length: 0 })
    }

    #[inline]
    fn compares(&self) -> bool {
        !matches!(self.purpose, Purpose::Look(_) | Purpose::Note(_))
    }

    /// A sum of what has this name.
    #[inline]
    fn named(&self, sum: u64, name: &str) -> u64 {
        if self.compares() { mix(letters_of(name), sum) } else { 0 }
    }

    /// The bit of what is in a list or map. Of what has a structure, each shape is seen for itself.
    #[inline]
    fn kinds(&mut self, shape: u64) -> u64 {
        if shape < STRUCTURED {
            return 1 << shape;
        }
        match self.purpose {
            Purpose::Look(place) => self.has_news |= !place.has_seen(shape),
            Purpose::Note(place) => place.note(shape),
            _ => {}
        }
        1 << STRUCTURED
    }

    #[inline]
    fn structured(shape: u64, sum: u64) -> Node {
        Node { plain: None, shape, sum, is_nothing: false, is_key: false, length: 0 }
    }

    /// The end of a variant with several values, which is a level of its own.
    fn many(&mut self, variant: &'static str, of: Node) -> Node {
        self.depth -= 1;
        self.variant(variant, of)
    }

    fn variant(&self, variant: &'static str, of: Node) -> Node {
        Self::structured(
            mix(mix(VARIANT, place_of(variant)), of.shape),
            self.named(of.sum, variant),
        )
    }
}

/// Why a survey stopped.
#[derive(Debug)]
pub(super) enum SurveyError {
    Problem(Problem),
    /// The type's own `Serialize` said so.
    Own(String),
}

impl From<Problem> for SurveyError {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

impl fmt::Display for SurveyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Problem(_) => f.write_str("no codec could read it back"),
            Self::Own(message) => f.write_str(message),
        }
    }
}

impl std::error::Error for SurveyError {}

impl ser::Error for SurveyError {
    fn custom<M: fmt::Display>(message: M) -> Self {
        Self::Own(message.to_string())
    }
}

macro_rules! scalars {
    ($($method:ident: $ty:ty, $kind:ident;)*) => {$(
        #[inline]
        fn $method(self, value: $ty) -> Result<Node, SurveyError> {
            self.scalar(Kind::$kind, size_of::<$ty>(), || value as u64)
        }
    )*};
}

impl<'s> Serializer for &'s mut Survey {
    type Ok = Node;
    type Error = SurveyError;
    type SerializeSeq = Elements<'s>;
    type SerializeTuple = Elements<'s>;
    type SerializeTupleStruct = Elements<'s>;
    type SerializeTupleVariant = Elements<'s>;
    type SerializeMap = Entries<'s>;
    type SerializeStruct = Members<'s>;
    type SerializeStructVariant = Members<'s>;

    fn is_human_readable(&self) -> bool {
        self.rules.is_human_readable
    }

    scalars! {
        serialize_bool: bool, Bool;
        serialize_i8: i8, I8;
        serialize_i16: i16, Signed;
        serialize_i32: i32, Signed;
        serialize_i64: i64, Signed;
        serialize_u8: u8, U8;
        serialize_u16: u16, Unsigned;
        serialize_u32: u32, Unsigned;
        serialize_u64: u64, Unsigned;
        serialize_char: char, Char;
    }

    fn serialize_i128(self, value: i128) -> Result<Node, SurveyError> {
        self.scalar(Kind::I128, 16, || octets_of(&value.to_le_bytes()))
    }

    fn serialize_u128(self, value: u128) -> Result<Node, SurveyError> {
        self.scalar(Kind::U128, 16, || octets_of(&value.to_le_bytes()))
    }

    fn serialize_f32(self, value: f32) -> Result<Node, SurveyError> {
        self.float(Kind::F32, 4, value.is_finite(), || value.to_bits().into())
    }

    fn serialize_f64(self, value: f64) -> Result<Node, SurveyError> {
        self.float(Kind::F64, 8, value.is_finite(), || value.to_bits())
    }

    #[inline]
    fn serialize_str(self, text: &str) -> Result<Node, SurveyError> {
        self.scalar(Kind::Text, 0, || letters_of(text))
    }

    fn collect_str<D: fmt::Display + ?Sized>(self, value: &D) -> Result<Node, SurveyError> {
        // As a codec does.
        self.scalar(Kind::Text, 0, || letters_of(&value.to_string()))
    }

    fn serialize_bytes(self, octets: &[u8]) -> Result<Node, SurveyError> {
        self.scalar(Kind::Bytes, 0, || octets_of(octets))
    }

    #[inline]
    fn serialize_none(self) -> Result<Node, SurveyError> {
        self.nothing(Some(Plain(Kind::None as u8)), NOTHING, NOTHING)
    }

    #[inline]
    fn serialize_some<V: Serialize + ?Sized>(self, value: &V) -> Result<Node, SurveyError> {
        let node = self.inside(value)?;
        if node.is_nothing {
            return Err(Problem::SomeNothing.into());
        }
        let plain = node.plain.filter(|plain| !plain.has(Plain::SOME));
        let plain = plain.map(|plain| Plain(plain.0 | Plain::SOME));
        let shape = if node.shape < SOME { SOME + node.shape } else { mix(SOME, node.shape) };
        Ok(Node { plain, shape, sum: mix(NOTHING, node.sum), is_key: false, ..node })
    }

    fn serialize_unit(self) -> Result<Node, SurveyError> {
        self.nothing(None, UNIT, TUPLE)
    }

    fn serialize_unit_struct(self, name: &'static str) -> Result<Node, SurveyError> {
        let sum = self.named(TUPLE, name);
        match self.rules.is_json {
            true => self.nothing(None, UNIT, sum),
            false => Ok(Survey::structured(TUPLE, sum)),
        }
    }

    fn serialize_unit_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
    ) -> Result<Node, SurveyError> {
        let shape = mix(VARIANT, place_of(variant));
        let sum = self.named(VARIANT, variant);
        Ok(Node { is_key: true, ..Survey::structured(shape, sum) })
    }

    #[inline]
    fn serialize_newtype_struct<V: Serialize + ?Sized>(
        self,
        name: &'static str,
        value: &V,
    ) -> Result<Node, SurveyError> {
        let node = self.inside(value)?;
        let sum = self.named(node.sum, name);
        // MessagePack has a special meaning for some names.
        let plain = node.plain.filter(|_| !name.starts_with('_'));
        Ok(Node { plain, sum, ..node })
    }

    fn serialize_newtype_variant<V: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &V,
    ) -> Result<Node, SurveyError> {
        let node = self.inside(value)?;
        Ok(self.variant(variant, node))
    }

    #[inline]
    fn serialize_seq(self, length: Option<usize>) -> Result<Elements<'s>, SurveyError> {
        Ok(Elements::new(self, LIST, if length.is_some() { Plain::LIST } else { 0 }))
    }

    fn serialize_tuple(self, _: usize) -> Result<Elements<'s>, SurveyError> {
        Ok(Elements::new(self, TUPLE, Plain::ARRAY))
    }

    fn serialize_tuple_struct(
        self,
        name: &'static str,
        _: usize,
    ) -> Result<Elements<'s>, SurveyError> {
        let sum = self.named(TUPLE, name);
        Ok(Elements::new(self, TUPLE, 0).with_sum(sum))
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Elements<'s>, SurveyError> {
        self.depth += 1;
        Ok(Elements::new(self, TUPLE, 0).in_variant(variant))
    }

    #[inline]
    fn serialize_map(self, _: Option<usize>) -> Result<Entries<'s>, SurveyError> {
        Ok(Entries::new(self))
    }

    #[inline]
    fn serialize_struct(self, name: &'static str, _: usize) -> Result<Members<'s>, SurveyError> {
        // serde_json's own names mean something.
        let place = if name.starts_with('$') { place_of(name) } else { 0 };
        let sum = self.named(STRUCT, name);
        Ok(Members::new(self, place).with_sum(sum))
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Members<'s>, SurveyError> {
        self.depth += 1;
        Ok(Members::new(self, 0).in_variant(variant))
    }
}
