//! Scalars and lists of them in a codec that does not say what it writes: one byte before them does
//! ([`Plain`]), so that another type's value is never taken for a number or a text.

use std::marker::PhantomData;

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{
        Error as _, IntoDeserializer, SeqAccess, Unexpected, Visitor,
        value::{Error, SeqDeserializer},
    },
    forward_to_deserialize_any,
};

use super::{
    DEEPEST_READ,
    error::{CodecError, DecodeError, Unreadable},
    survey::{Kind, Plain},
};
use crate::varint;

/// A codec that writes values one after the other, and nothing else.
pub(super) trait Positional {
    fn put<V: Serialize>(value: &V, out: &mut Vec<u8>) -> Result<(), CodecError>;

    /// Takes a value off the front of `bytes`.
    fn take<'de, V: Deserialize<'de>>(bytes: &mut &'de [u8]) -> Result<V, CodecError>;
}

/// Writes a value of which a survey has said that it is plain. `length` is that of an array.
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

pub(super) fn decode<P: Positional, V: for<'de> Deserialize<'de>>(
    mut bytes: &[u8],
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
    let reader = Reader::<'_, '_, P> { plain, length, bytes: rest, depth: 0, codec: PhantomData };
    let value = V::deserialize(reader).map_err(|e| DecodeError::new(Unreadable::OtherType, e))?;
    match bytes {
        [] => Ok(value),
        _ => Err(Unreadable::Damaged.into()),
    }
}

/// Gives what it has, whatever it is asked for.
struct Reader<'de, 'a, P> {
    plain: Plain,
    /// Of an array.
    length: u64,
    bytes: &'a mut &'de [u8],
    /// So many `Option`s were asked for around it. Each takes it for what is in it, so that a type that
    /// is an `Option` of itself would never come to an end.
    depth: u32,
    codec: PhantomData<P>,
}

fn taken<'de, P: Positional, V: Deserialize<'de>>(bytes: &mut &'de [u8]) -> Result<V, Error> {
    // The codec's own error quotes nothing, but says nothing either.
    P::take(bytes).map_err(|_| Error::custom("cut short"))
}

impl<'de, P: Positional> Reader<'de, '_, P> {
    fn take<V: Deserialize<'de>>(&mut self) -> Result<V, Error> {
        taken::<P, V>(self.bytes)
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
            true => self.take(),
            false => Ok(self.length),
        }
    }

    fn octets(mut self) -> Result<&'de [u8], Error> {
        if self.plain.kind() == Some(Kind::Bytes) {
            return self.take();
        }
        let length = usize::try_from(self.elements()?).unwrap_or(usize::MAX);
        self.bytes.split_off(..length).ok_or_else(|| Error::custom("cut short"))
    }
}

impl<'de, P: Positional> Deserializer<'de> for Reader<'de, '_, P> {
    type Error = Error;

    fn is_human_readable(&self) -> bool {
        false
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let mut this = self.inner()?;
        if this.is_list() {
            let left = this.elements()?;
            let kind = Plain(this.plain.0).without(Plain::LIST).without(Plain::ARRAY);
            let mut list =
                Elements::<'_, '_, P> { left, kind, bytes: this.bytes, codec: PhantomData };
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
            Kind::Unsigned => visitor.visit_u64(this.take()?),
            Kind::U128 => visitor.visit_u128(this.take()?),
            Kind::I8 => visitor.visit_i8(this.take()?),
            Kind::Signed => visitor.visit_i64(this.take()?),
            Kind::I128 => visitor.visit_i128(this.take()?),
            Kind::F32 => visitor.visit_f32(this.take()?),
            Kind::F64 => visitor.visit_f64(this.take()?),
            Kind::Char => visitor.visit_char(this.take()?),
            Kind::Text => visitor.visit_borrowed_str(this.take()?),
            Kind::Bytes => visitor.visit_borrowed_bytes(this.take()?),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, Error> {
        if self.is_none() {
            self.is(0)?;
            return visitor.visit_none();
        }
        if self.depth == DEEPEST_READ {
            return Err(Error::custom("nested too deeply"));
        }
        self.depth += 1;
        visitor.visit_some(self.inner()?)
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
                visitor.visit_enum(this.take::<&str>()?.into_deserializer())
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
            _ => this.deserialize_any(visitor),
        }
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, v: V) -> Result<V::Value, Error> {
        self.deserialize_seq(v)
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let this = self.inner()?;
        match this.is_list() && this.plain.kind() == Some(Kind::U8) {
            true => visitor.visit_borrowed_bytes(this.octets()?),
            false => this.deserialize_any(visitor),
        }
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_bytes(visitor)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string unit unit_struct
        tuple_struct map struct identifier ignored_any
    }
}

/// What is in a list, all of one kind.
struct Elements<'de, 'a, P> {
    left: u64,
    kind: Plain,
    bytes: &'a mut &'de [u8],
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
        let element = Reader::<P> { plain, length: 0, bytes, depth: 0, codec: PhantomData };
        seed.deserialize(element).map(Some)
    }

    /// A list may claim more than there are bytes.
    fn size_hint(&self) -> Option<usize> {
        usize::try_from(self.left).ok().map(|left| left.min(self.bytes.len()))
    }
}
