//! Scalars and lists of them in a codec that does not say what it writes: one byte before them does
//! ([`Plain`]), so that another type's value is never taken for a number or a text.

use std::marker::PhantomData;

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{
        Error as _, IntoDeserializer, SeqAccess, Unexpected, Visitor,
        value::{Error, SeqDeserializer},
    },
};

use super::{
    careful::Notes,
    error::{CodecError, DecodeError, Unreadable},
    form::Form,
    survey::{Kind, Plain},
};
use crate::varint;

/// A codec that writes values one after the other, and nothing else.
pub(super) trait Positional {
    fn put<V: Serialize>(value: &V, out: &mut Vec<u8>) -> Result<(), CodecError>;

    /// Takes a value off the front of `bytes`.
    fn take<'de, V: Deserialize<'de>>(bytes: &mut &'de [u8]) -> Result<V, CodecError>;

    /// The same of an unsigned number of 16 to 64 bits, of which most values are made: also signed
    /// numbers, and the lengths of texts and bytes.
    fn number(bytes: &mut &[u8]) -> Option<u64>;
}

/// Writes a value of which a survey has said that it is plain. `length` is that of an array.
#[inline]
pub(super) fn encode<P: Positional, V: Serialize>(
    value: &V,
    plain: Plain,
    length: usize,
    out: &mut Vec<u8>,
) -> Result<(), CodecError> {
    out.push(plain.0);
    if plain.has(Plain::ARRAY) {
        varint::put(length as u64, out);
    }
    P::put(value, out)
}

#[inline]
pub(super) fn decode<P: Positional, V: for<'de> Deserialize<'de>>(
    mut bytes: &[u8],
    notes: &Notes,
) -> Result<V, DecodeError> {
    let plain = Plain(*bytes.split_off_first().ok_or(Unreadable::Damaged)?);
    if plain.kind().is_none() || plain.has(0x80) {
        return Err(Unreadable::Later.into());
    }
    let length = match plain.has(Plain::ARRAY) {
        true => varint::take(&mut bytes).ok_or(Unreadable::Damaged)?,
        false => 0,
    };
    let rest = &mut bytes;
    let reader = Reader::<'_, '_, P> { plain, length, bytes: rest, notes, codec: PhantomData };
    let value = V::deserialize(reader).map_err(|error| notes.error(error))?;
    match bytes {
        [] => Ok(value),
        _ => Err(Unreadable::Damaged.into()),
    }
}

/// A number that is asked for and stored as one of up to 64 bits. Nothing if there is anything else, or
/// anything wrong with it: [`decode`] says what.
#[inline]
pub(super) fn decode_number<P: Positional, W: Form>(kind: Kind, bytes: &[u8]) -> Option<W::Value> {
    let (plain, mut rest) = bytes.split_first()?;
    if *plain != kind as u8 {
        return None;
    }
    let number = P::number(&mut rest)?;
    let value: Result<_, Error> = match kind {
        Kind::Unsigned => W::deserialize(number.into_deserializer()),
        Kind::Signed => W::deserialize(unfold(number).into_deserializer()),
        _ => return None,
    };
    value.ok().filter(|_| rest.is_empty())
}

/// Both codecs write the small ones of either sign as small numbers (zigzag).
#[inline]
fn unfold(number: u64) -> i64 {
    (number >> 1) as i64 ^ -((number & 1) as i64)
}

/// Gives what it has, whatever it is asked for.
struct Reader<'de, 'a, P> {
    plain: Plain,
    /// Of an array.
    length: u64,
    bytes: &'a mut &'de [u8],
    notes: &'a Notes,
    codec: PhantomData<P>,
}

/// The codecs' own errors quote nothing, but say nothing either.
#[cold]
fn cut_short() -> Error {
    Error::custom("cut short")
}

impl<'de, P: Positional> Reader<'de, '_, P> {
    fn take<V: Deserialize<'de>>(&mut self) -> Result<V, Error> {
        P::take(self.bytes).map_err(|_| cut_short())
    }

    #[inline]
    fn unsigned(&mut self) -> Result<u64, Error> {
        P::number(self.bytes).ok_or_else(cut_short)
    }

    #[inline]
    fn signed(&mut self) -> Result<i64, Error> {
        self.unsigned().map(unfold)
    }

    /// So many bytes as a number says that stands before them.
    #[inline]
    fn sized(&mut self) -> Result<&'de [u8], Error> {
        let length = usize::try_from(self.unsigned()?).unwrap_or(usize::MAX);
        self.bytes.split_off(..length).ok_or_else(cut_short)
    }

    #[inline]
    fn text(&mut self) -> Result<&'de str, Error> {
        str::from_utf8(self.sized()?).map_err(|_| Error::custom("no text"))
    }

    /// Takes off the byte that says whether an `Option` is set.
    fn is(&mut self, set: u8) -> Result<(), Error> {
        match self.bytes.split_off_first() {
            Some(byte) if *byte == set => Ok(()),
            _ => Err(Error::custom("an `Option` that is neither")),
        }
    }

    fn is_none(&self) -> bool {
        self.plain == Plain(Kind::None as u8)
    }

    fn is_list(&self) -> bool {
        self.plain.has(Plain::LIST | Plain::ARRAY)
    }

    /// Without the `Some` around it.
    fn inner(mut self) -> Result<Self, Error> {
        if self.plain.has(Plain::SOME) {
            self.is(1)?;
            self.plain = self.plain.without(Plain::SOME);
        }
        Ok(self)
    }

    fn elements(&mut self) -> Result<u64, Error> {
        match self.plain.has(Plain::LIST) {
            true => self.unsigned(),
            false => Ok(self.length),
        }
    }

    fn octets(mut self) -> Result<&'de [u8], Error> {
        if self.plain.kind() == Some(Kind::Bytes) {
            return self.sized();
        }
        let length = usize::try_from(self.elements()?).unwrap_or(usize::MAX);
        self.bytes.split_off(..length).ok_or_else(cut_short)
    }

    /// Gives what there is.
    #[inline]
    fn give<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, Error> {
        // The most common first: each is a number of its own.
        const UNSIGNED: u8 = Kind::Unsigned as u8;
        const SIGNED: u8 = Kind::Signed as u8;
        const TEXT: u8 = Kind::Text as u8;
        match self.plain.0 {
            UNSIGNED => return visitor.visit_u64(self.unsigned()?),
            SIGNED => return visitor.visit_i64(self.signed()?),
            TEXT => return visitor.visit_borrowed_str(self.text()?),
            _ => {}
        }
        self.give_rare(visitor)
    }

    fn give_rare<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let mut this = self.inner()?;
        if this.is_list() {
            let left = this.elements()?;
            let kind = Plain(this.plain.0).without(Plain::LIST).without(Plain::ARRAY);
            let (bytes, notes) = (this.bytes, this.notes);
            let mut list = Elements::<'_, '_, P> { left, kind, bytes, notes, codec: PhantomData };
            let value = visitor.visit_seq(&mut list)?;
            return match list.left {
                0 => Ok(value),
                _ => Err(Error::custom("fewer elements than are stored")),
            };
        }
        let Some(kind) = this.plain.kind() else { return Err(Error::custom("an unknown kind")) };
        match kind {
            Kind::None => {
                this.is(0)?;
                visitor.visit_unit()
            }
            Kind::Bool => visitor.visit_bool(this.take()?),
            Kind::U8 => visitor.visit_u8(this.take()?),
            Kind::Unsigned => visitor.visit_u64(this.unsigned()?),
            Kind::U128 => visitor.visit_u128(this.take()?),
            Kind::I8 => visitor.visit_i8(this.take()?),
            Kind::Signed => visitor.visit_i64(this.signed()?),
            Kind::I128 => visitor.visit_i128(this.take()?),
            Kind::F32 => visitor.visit_f32(this.take()?),
            Kind::F64 => visitor.visit_f64(this.take()?),
            Kind::Char => visitor.visit_char(this.take()?),
            Kind::Text => visitor.visit_borrowed_str(this.text()?),
            Kind::Bytes => visitor.visit_borrowed_bytes(this.sized()?),
        }
    }
}

fn narrow<'de, V: Visitor<'de>>(number: u64, visitor: V) -> Result<V::Value, Error> {
    match (u8::try_from(number), u16::try_from(number), u32::try_from(number)) {
        (Ok(number), ..) => visitor.visit_u8(number),
        (_, Ok(number), _) => visitor.visit_u16(number),
        (.., Ok(number)) => visitor.visit_u32(number),
        _ => visitor.visit_u64(number),
    }
}

macro_rules! give {
    ($($method:ident($($argument:ty),*))*) => {$(
        #[inline]
        fn $method<V: Visitor<'de>>(self, $(_: $argument,)* visitor: V) -> Result<V::Value, Error> {
            self.give(visitor)
        }
    )*};
}

impl<'de, P: Positional> Deserializer<'de> for Reader<'de, '_, P> {
    type Error = Error;

    fn is_human_readable(&self) -> bool {
        false
    }

    /// A number comes as small as it is, as MessagePack and JSON give it: types that take whatever there
    /// is know the wide one for another.
    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.notes.ask();
        let mut this = self.inner()?;
        match this.plain {
            Plain(kind) if kind == Kind::Unsigned as u8 => narrow(this.unsigned()?, visitor),
            Plain(kind) if kind == Kind::Signed as u8 => {
                let number = this.signed()?;
                match u64::try_from(number) {
                    Ok(number) => narrow(number, visitor),
                    Err(_) => match (i8::try_from(number), i16::try_from(number)) {
                        (Ok(number), _) => visitor.visit_i8(number),
                        (_, Ok(number)) => visitor.visit_i16(number),
                        _ => match i32::try_from(number) {
                            Ok(number) => visitor.visit_i32(number),
                            Err(_) => visitor.visit_i64(number),
                        },
                    },
                }
            }
            _ => this.give(visitor),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, Error> {
        if self.is_none() {
            self.is(0)?;
            return visitor.visit_none();
        }
        // Each `Option` takes it for what is in it, so that a type that is an `Option` of itself would
        // never come to an end.
        self.notes.deeper(|| visitor.visit_some(self.inner()?))
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    /// A text may be the name of a variant; a number is not taken for the variant's.
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let mut this = self.inner()?;
        match this.plain {
            Plain(kind) if kind == Kind::Text as u8 => {
                visitor.visit_enum(this.text()?.into_deserializer())
            }
            _ => Err(Error::invalid_type(Unexpected::Other("no name"), &"the name of a variant")),
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let this = self.inner()?;
        match this.plain {
            Plain(kind) if kind == Kind::Bytes as u8 => {
                let mut octets = SeqDeserializer::<_, Error>::new(this.octets()?.iter().copied());
                let value = visitor.visit_seq(&mut octets)?;
                octets.end()?;
                Ok(value)
            }
            _ => this.give(visitor),
        }
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, v: V) -> Result<V::Value, Error> {
        self.deserialize_seq(v)
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let this = self.inner()?;
        match this.is_list() && this.plain.kind() == Some(Kind::U8) {
            true => visitor.visit_borrowed_bytes(this.octets()?),
            false => this.give(visitor),
        }
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_bytes(visitor)
    }

    /// Bytes that happen to be one are no text.
    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.plain.kind() {
            Some(Kind::Bytes) => Err(Error::invalid_type(Unexpected::Other("bytes"), &visitor)),
            _ => self.give(visitor),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    give! {
        deserialize_bool() deserialize_i8() deserialize_i16() deserialize_i32() deserialize_i64()
        deserialize_i128() deserialize_u8() deserialize_u16() deserialize_u32() deserialize_u64()
        deserialize_u128() deserialize_f32() deserialize_f64() deserialize_char()
        deserialize_unit() deserialize_unit_struct(&'static str) deserialize_map()
        deserialize_struct(&'static str, &'static [&'static str])
        deserialize_tuple_struct(&'static str, usize) deserialize_identifier()
        deserialize_ignored_any()
    }
}

/// What is in a list, all of one kind.
struct Elements<'de, 'a, P> {
    left: u64,
    kind: Plain,
    bytes: &'a mut &'de [u8],
    notes: &'a Notes,
    codec: PhantomData<P>,
}

impl<'de, P: Positional> SeqAccess<'de> for Elements<'de, '_, P> {
    type Error = Error;

    fn next_element_seed<S: serde::de::DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Error> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        let (plain, bytes) = (self.kind, &mut *self.bytes);
        let (length, notes) = (0, self.notes);
        let element = Reader::<P> { plain, length, bytes, notes, codec: PhantomData };
        seed.deserialize(element).map(Some)
    }

    /// A list may claim more than there are bytes.
    fn size_hint(&self) -> Option<usize> {
        usize::try_from(self.left).ok().map(|left| left.min(self.bytes.len()))
    }
}
