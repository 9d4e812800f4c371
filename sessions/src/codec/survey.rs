//! What a value is made of, found out by serializing it to nowhere: which codec suits it, and what
//! in it no codec would read back.
//!
//! Strings and numbers are not looked at, only what they are. A value that formats itself
//! (`collect_str`) does not get to.

use std::fmt;

use serde::ser::{self, Serialize, Serializer};

use super::{DEEPEST, error::Problem, seen::Place};

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
    /// The same with the numbers of elements, and without what a type may choose anew when it is read
    /// back, as the width of a number.
    pub(super) sum: u64,
    /// Whether it is written as nothing.
    is_nothing: bool,
    /// Whether JSON takes it for a key.
    is_key: bool,
    /// How many elements an array has.
    pub(super) length: usize,
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

    pub(super) fn kind(self) -> Option<Kind> {
        Kind::ALL.get(usize::from(self.0 & Self::KIND)).copied()
    }

    pub(super) fn has(self, mark: u8) -> bool {
        self.0 & mark != 0
    }

    pub(super) fn without(self, mark: u8) -> Self {
        Self(self.0 & !mark)
    }

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

    /// Whatever a type may read back in another width, or as one letter instead of a text.
    fn family(self) -> u64 {
        match self {
            Self::None => 0,
            Self::Bool => 1,
            Self::U8
            | Self::Unsigned
            | Self::U128
            | Self::I8
            | Self::Signed
            | Self::I128
            | Self::F32
            | Self::F64 => 2,
            Self::Char | Self::Text => 3,
            Self::Bytes => 4,
        }
    }
}

// What stands for structure in a shape.
const NOTHING: u64 = 20;
const LIST: u64 = 21;
const TUPLE: u64 = 22;
const MAP: u64 = 23;
const STRUCT: u64 = 24;
const VARIANT: u64 = 25;
/// What is less than this stands for itself; the rest are hashes.
const STRUCTURED: u64 = 63;

/// One step of a hash: two multiplications, for what is not chosen by an enemy.
pub(super) const fn mix(hash: u64, more: u64) -> u64 {
    let mixed = (hash ^ more).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9)
}

/// A name in the code: the same place and length is the same name. Of the same name in two places
/// both are looked at.
fn place_of(name: &'static str) -> u64 {
    mix(name.as_ptr().addr() as u64, name.len() as u64)
}

/// A name by its letters, for what has to be alike in both directions.
fn letters_of(name: &str) -> u64 {
    name.bytes().fold(name.len() as u64, |hash, byte| mix(hash, u64::from(byte)))
}

/// A survey of one value.
pub(super) struct Survey {
    pub(super) rules: Rules,
    pub(super) purpose: Purpose,
    /// Whether an element of a list or map in it is of a shape that has not been read back yet.
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
}

impl Survey {
    pub(super) fn new(rules: Rules, purpose: Purpose) -> Self {
        Self { rules, purpose, has_news: false, depth: 0 }
    }

    pub(super) fn of(&mut self, value: &impl Serialize) -> Result<Node, SurveyError> {
        value.serialize(self)
    }

    /// Looks at what is in another value. It needs stack for each level, and so does whoever reads the
    /// value back.
    fn inside<V: Serialize + ?Sized>(&mut self, value: &V) -> Result<Node, SurveyError> {
        if self.depth >= DEEPEST {
            return Err(Problem::TooDeep.into());
        }
        self.depth += 1;
        let node = value.serialize(&mut *self);
        self.depth -= 1;
        node
    }

    fn scalar(&self, kind: Kind) -> Result<Node, SurveyError> {
        Ok(Node {
            plain: Some(Plain(kind as u8)),
            shape: kind as u64,
            sum: kind.family(),
            is_nothing: false,
            is_key: !matches!(kind, Kind::Bytes),
            length: 0,
        })
    }

    fn float(&self, kind: Kind, is_finite: bool) -> Result<Node, SurveyError> {
        match is_finite || !self.rules.is_json {
            true => self.scalar(kind),
            false => Err(Problem::NotFinite.into()),
        }
    }

    fn nothing(&self, plain: Option<Plain>) -> Result<Node, SurveyError> {
        let (shape, sum) = (NOTHING, NOTHING);
        Ok(Node { plain, shape, sum, is_nothing: true, is_key: false, length: 0 })
    }

    fn compares(&self) -> bool {
        matches!(self.purpose, Purpose::Compare)
    }

    /// Of a list or map, elements that look like this.
    fn element(&mut self, shape: u64) {
        match self.purpose {
            Purpose::Look(place) => self.has_news |= !place.has_seen(shape),
            Purpose::Note(place) => place.note(shape),
            Purpose::Compare => {}
        }
    }

    fn structured(shape: u64, sum: u64) -> Node {
        Node { plain: None, shape, sum, is_nothing: false, is_key: false, length: 0 }
    }

    /// The end of a variant with several values, which is a level of its own.
    fn many(&mut self, variant: &'static str, of: Node) -> Node {
        self.depth -= 1;
        self.variant(variant, of)
    }

    fn variant(&self, variant: &'static str, of: Node) -> Node {
        let sum = if self.compares() { mix(letters_of(variant), of.sum) } else { 0 };
        Self::structured(mix(mix(VARIANT, place_of(variant)), of.shape), sum)
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

impl<'s> Serializer for &'s mut Survey {
    type Ok = Node;
    type Error = SurveyError;
    type SerializeSeq = Elements<'s>;
    type SerializeTuple = Elements<'s>;
    type SerializeTupleStruct = Elements<'s>;
    type SerializeTupleVariant = Elements<'s>;
    type SerializeMap = Elements<'s>;
    type SerializeStruct = Members<'s>;
    type SerializeStructVariant = Members<'s>;

    fn is_human_readable(&self) -> bool {
        self.rules.is_human_readable
    }

    fn serialize_bool(self, _: bool) -> Result<Node, SurveyError> {
        self.scalar(Kind::Bool)
    }

    fn serialize_i8(self, _: i8) -> Result<Node, SurveyError> {
        self.scalar(Kind::I8)
    }

    fn serialize_i16(self, _: i16) -> Result<Node, SurveyError> {
        self.scalar(Kind::Signed)
    }

    fn serialize_i32(self, _: i32) -> Result<Node, SurveyError> {
        self.scalar(Kind::Signed)
    }

    fn serialize_i64(self, _: i64) -> Result<Node, SurveyError> {
        self.scalar(Kind::Signed)
    }

    fn serialize_i128(self, _: i128) -> Result<Node, SurveyError> {
        self.scalar(Kind::I128)
    }

    fn serialize_u8(self, _: u8) -> Result<Node, SurveyError> {
        self.scalar(Kind::U8)
    }

    fn serialize_u16(self, _: u16) -> Result<Node, SurveyError> {
        self.scalar(Kind::Unsigned)
    }

    fn serialize_u32(self, _: u32) -> Result<Node, SurveyError> {
        self.scalar(Kind::Unsigned)
    }

    fn serialize_u64(self, _: u64) -> Result<Node, SurveyError> {
        self.scalar(Kind::Unsigned)
    }

    fn serialize_u128(self, _: u128) -> Result<Node, SurveyError> {
        self.scalar(Kind::U128)
    }

    fn serialize_f32(self, value: f32) -> Result<Node, SurveyError> {
        self.float(Kind::F32, value.is_finite())
    }

    fn serialize_f64(self, value: f64) -> Result<Node, SurveyError> {
        self.float(Kind::F64, value.is_finite())
    }

    fn serialize_char(self, _: char) -> Result<Node, SurveyError> {
        self.scalar(Kind::Char)
    }

    fn serialize_str(self, _: &str) -> Result<Node, SurveyError> {
        self.scalar(Kind::Text)
    }

    fn collect_str<D: fmt::Display + ?Sized>(self, _: &D) -> Result<Node, SurveyError> {
        self.scalar(Kind::Text)
    }

    fn serialize_bytes(self, _: &[u8]) -> Result<Node, SurveyError> {
        self.scalar(Kind::Bytes)
    }

    fn serialize_none(self) -> Result<Node, SurveyError> {
        self.nothing(Some(Plain(Kind::None as u8)))
    }

    fn serialize_some<V: Serialize + ?Sized>(self, value: &V) -> Result<Node, SurveyError> {
        let node = self.inside(value)?;
        if node.is_nothing {
            return Err(Problem::SomeNothing.into());
        }
        let plain = node.plain.filter(|plain| !plain.has(Plain::SOME));
        Ok(Node { plain: plain.map(|plain| Plain(plain.0 | Plain::SOME)), is_key: false, ..node })
    }

    fn serialize_unit(self) -> Result<Node, SurveyError> {
        self.nothing(None)
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<Node, SurveyError> {
        match self.rules.is_json {
            true => self.nothing(None),
            false => Ok(Survey::structured(TUPLE, TUPLE)),
        }
    }

    fn serialize_unit_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
    ) -> Result<Node, SurveyError> {
        let sum = if self.compares() { letters_of(variant) } else { 0 };
        let shape = mix(VARIANT, place_of(variant));
        Ok(Node { is_key: true, ..Survey::structured(shape, sum) })
    }

    fn serialize_newtype_struct<V: Serialize + ?Sized>(
        self,
        name: &'static str,
        value: &V,
    ) -> Result<Node, SurveyError> {
        let node = self.inside(value)?;
        // MessagePack has a special meaning for some names.
        Ok(if name.starts_with('_') { Node { plain: None, ..node } } else { node })
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

    fn serialize_seq(self, length: Option<usize>) -> Result<Elements<'s>, SurveyError> {
        Ok(Elements::new(self, LIST, if length.is_some() { Plain::LIST } else { 0 }))
    }

    fn serialize_tuple(self, _: usize) -> Result<Elements<'s>, SurveyError> {
        Ok(Elements::new(self, TUPLE, Plain::ARRAY))
    }

    fn serialize_tuple_struct(
        self,
        _: &'static str,
        _: usize,
    ) -> Result<Elements<'s>, SurveyError> {
        Ok(Elements::new(self, TUPLE, 0))
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Elements<'s>, SurveyError> {
        self.depth += 1;
        Ok(Elements { variant: Some(variant), ..Elements::new(self, TUPLE, 0) })
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Elements<'s>, SurveyError> {
        Ok(Elements::new(self, MAP, 0))
    }

    fn serialize_struct(self, name: &'static str, _: usize) -> Result<Members<'s>, SurveyError> {
        // serde_json's own names mean something.
        Ok(Members::new(self, if name.starts_with('$') { place_of(name) } else { 0 }))
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Members<'s>, SurveyError> {
        self.depth += 1;
        Ok(Members { variant: Some(variant), ..Members::new(self, 0) })
    }
}

/// The elements of a list, or the keys and values of a map.
pub(super) struct Elements<'s> {
    survey: &'s mut Survey,
    variant: Option<&'static str>,
    base: u64,
    /// How it is marked if its elements are scalars of one kind; 0 if that cannot be.
    mark: u8,
    kind: Option<Plain>,
    /// A bit for each kind of scalar, and one for whatever has a structure.
    kinds: u64,
    /// What is in a tuple, each in its place.
    shape: u64,
    sum: u64,
    length: usize,
}

impl<'s> Elements<'s> {
    fn new(survey: &'s mut Survey, base: u64, mark: u8) -> Self {
        let (variant, kind, kinds, shape, sum, length) = (None, None, 0, base, base, 0);
        Self { survey, variant, base, mark, kind, kinds, shape, sum, length }
    }

    fn add<V: Serialize + ?Sized>(&mut self, value: &V) -> Result<Node, SurveyError> {
        let node = self.survey.inside(value)?;
        self.length += 1;
        let is_scalar = node.plain.is_some_and(Plain::is_scalar);
        match (self.kind, node.plain) {
            (None, Some(plain)) if is_scalar => self.kind = Some(plain),
            (Some(known), Some(plain)) if known == plain => {}
            _ => self.mark = 0,
        }
        if self.base == TUPLE {
            self.shape = mix(self.shape, node.shape);
        } else if node.shape < STRUCTURED {
            self.kinds |= 1 << node.shape;
        } else {
            self.kinds |= 1 << STRUCTURED;
            self.survey.element(node.shape);
        }
        if self.survey.compares() {
            // In whatever order.
            self.sum = self.sum.wrapping_add(mix(self.base, node.sum));
        }
        Ok(node)
    }

    fn node(self) -> Node {
        let shape = mix(self.shape, self.kinds);
        let node = Survey::structured(shape, self.sum);
        let node = Node { plain: self.plain(), length: self.length, ..node };
        match self.variant {
            Some(variant) => self.survey.many(variant, node),
            None => node,
        }
    }

    fn plain(&self) -> Option<Plain> {
        match (self.mark, self.kind) {
            (0, _) | (Plain::ARRAY, None) => None,
            (mark, kind) => Some(Plain(mark | kind.map_or(Kind::None as u8, |kind| kind.0))),
        }
    }
}

impl ser::SerializeSeq for Elements<'_> {
    type Ok = Node;
    type Error = SurveyError;

    fn serialize_element<V: Serialize + ?Sized>(&mut self, value: &V) -> Result<(), SurveyError> {
        self.add(value).map(drop)
    }

    fn end(self) -> Result<Node, SurveyError> {
        Ok(self.node())
    }
}

impl ser::SerializeTuple for Elements<'_> {
    type Ok = Node;
    type Error = SurveyError;

    fn serialize_element<V: Serialize + ?Sized>(&mut self, value: &V) -> Result<(), SurveyError> {
        self.add(value).map(drop)
    }

    fn end(self) -> Result<Node, SurveyError> {
        Ok(self.node())
    }
}

impl ser::SerializeTupleStruct for Elements<'_> {
    type Ok = Node;
    type Error = SurveyError;

    fn serialize_field<V: Serialize + ?Sized>(&mut self, value: &V) -> Result<(), SurveyError> {
        self.add(value).map(drop)
    }

    fn end(self) -> Result<Node, SurveyError> {
        Ok(self.node())
    }
}

impl ser::SerializeTupleVariant for Elements<'_> {
    type Ok = Node;
    type Error = SurveyError;

    fn serialize_field<V: Serialize + ?Sized>(&mut self, value: &V) -> Result<(), SurveyError> {
        self.add(value).map(drop)
    }

    fn end(self) -> Result<Node, SurveyError> {
        Ok(self.node())
    }
}

impl ser::SerializeMap for Elements<'_> {
    type Ok = Node;
    type Error = SurveyError;

    fn serialize_key<K: Serialize + ?Sized>(&mut self, key: &K) -> Result<(), SurveyError> {
        let key = self.add(key)?;
        match key.is_key || !self.survey.rules.is_json {
            true => Ok(()),
            false => Err(Problem::NoKey.into()),
        }
    }

    fn serialize_value<V: Serialize + ?Sized>(&mut self, value: &V) -> Result<(), SurveyError> {
        self.add(value).map(drop)
    }

    fn end(self) -> Result<Node, SurveyError> {
        Ok(self.node())
    }
}

/// The fields of a struct.
pub(super) struct Members<'s> {
    survey: &'s mut Survey,
    variant: Option<&'static str>,
    shape: u64,
    sum: u64,
}

impl<'s> Members<'s> {
    fn new(survey: &'s mut Survey, name: u64) -> Self {
        Self { survey, variant: None, shape: mix(STRUCT, name), sum: STRUCT }
    }

    fn add<V: Serialize + ?Sized>(
        &mut self,
        key: &'static str,
        value: &V,
    ) -> Result<(), SurveyError> {
        let node = self.survey.inside(value)?;
        self.shape = mix(mix(self.shape, place_of(key)), node.shape);
        if self.survey.compares() {
            self.sum = self.sum.wrapping_add(mix(letters_of(key), node.sum));
        }
        Ok(())
    }

    fn node(self) -> Node {
        let node = Survey::structured(self.shape, self.sum);
        match self.variant {
            Some(variant) => self.survey.many(variant, node),
            None => node,
        }
    }
}

impl ser::SerializeStruct for Members<'_> {
    type Ok = Node;
    type Error = SurveyError;

    fn serialize_field<V: Serialize + ?Sized>(
        &mut self,
        key: &'static str,
        value: &V,
    ) -> Result<(), SurveyError> {
        self.add(key, value)
    }

    fn end(self) -> Result<Node, SurveyError> {
        Ok(self.node())
    }
}

impl ser::SerializeStructVariant for Members<'_> {
    type Ok = Node;
    type Error = SurveyError;

    fn serialize_field<V: Serialize + ?Sized>(
        &mut self,
        key: &'static str,
        value: &V,
    ) -> Result<(), SurveyError> {
        self.add(key, value)
    }

    fn end(self) -> Result<Node, SurveyError> {
        Ok(self.node())
    }
}
