//! Reads a codec with names a little more carefully than serde does by itself:
//!
//! - a struct that has lost fields and got others since it was stored is refused: the new ones may be
//!   the lost ones under other names, and would silently begin at their defaults;
//! - a number is neither taken for the number of a variant nor for that of a field, and bytes that happen
//!   to be a text are none;
//! - what is nested too deeply is refused before the stack ends.
//!
//! What a type reads by way of serde's own buffers (`untagged`, `tag`, `flatten`) is read without.

use std::{any::type_name, cell::Cell, fmt};

use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error, IgnoredAny, MapAccess, SeqAccess,
    VariantAccess, Visitor,
};

use crate::data::codec::{
    DEEPEST_READ,
    error::{CodecError, DecodeError, Unreadable},
};

/// What was found on the way, and how deep in the value that is.
#[derive(Default)]
pub(crate) struct Notes {
    found: Cell<Option<Unreadable>>,
    depth: Cell<u32>,
    /// Whether the type has asked what there is, somewhere in it.
    asks: Cell<bool>,
}

impl Notes {
    pub(crate) fn error(&self, error: impl Into<CodecError>) -> DecodeError {
        DecodeError::new(self.found.get().unwrap_or(Unreadable::OtherType), error)
    }

    #[inline]
    pub(super) fn ask(&self) {
        self.asks.set(true);
    }

    /// Whether what it reads may be decided by what is in the value, and not by what that is made of.
    pub(super) fn has_asked(&self) -> bool {
        self.asks.get()
    }

    /// Reads what may have an inside.
    #[inline]
    pub(super) fn deeper<R, E: Error>(&self, read: impl FnOnce() -> Result<R, E>) -> Result<R, E> {
        let depth = self.depth.get();
        if depth == DEEPEST_READ {
            self.found.set(Some(Unreadable::TooDeep));
            return Err(E::custom("nested too deeply"));
        }
        self.depth.set(depth + 1);
        let result = read();
        self.depth.set(depth);
        result
    }
}

/// A deserializer, and all that comes out of it.
pub(crate) struct Careful<'n, X> {
    inner: X,
    notes: &'n Notes,
}

impl<'n, X> Careful<'n, X> {
    pub(crate) fn new(inner: X, notes: &'n Notes) -> Self {
        Self { inner, notes }
    }
}

macro_rules! pass_on {
    ($($method:ident)*) => {$(
        #[inline]
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
            self.inner.$method(visitor)
        }
    )*};
}

macro_rules! pass_on_with {
    ($wrap:ident: $($method:ident($($argument:ident: $ty:ty),*))*) => {$(
        #[inline]
        fn $method<V: Visitor<'de>>(
            self,
            $($argument: $ty,)*
            visitor: V,
        ) -> Result<V::Value, Self::Error> {
            let visitor = self.$wrap(visitor);
            self.notes.deeper(|| self.inner.$method($($argument,)* visitor))
        }
    )*};
}

impl<'n, X> Careful<'n, X> {
    fn inside<V>(&self, visitor: V) -> Inside<'n, V> {
        Inside { visitor, fields: None, notes: self.notes }
    }
}

impl<'de, X: Deserializer<'de>> Deserializer<'de> for Careful<'_, X> {
    type Error = X::Error;

    fn is_human_readable(&self) -> bool {
        self.inner.is_human_readable()
    }

    pass_on! {
        deserialize_bool deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64
        deserialize_i128 deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64
        deserialize_u128 deserialize_f32 deserialize_f64 deserialize_char deserialize_bytes
        deserialize_byte_buf deserialize_unit deserialize_identifier deserialize_ignored_any
    }

    #[inline]
    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, X::Error> {
        self.inner.deserialize_str(NoBytes(visitor))
    }

    #[inline]
    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, X::Error> {
        self.inner.deserialize_string(NoBytes(visitor))
    }

    #[inline]
    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, X::Error> {
        self.notes.ask();
        let visitor = self.inside(visitor);
        self.notes.deeper(|| self.inner.deserialize_any(visitor))
    }

    pass_on_with! { inside:
        deserialize_option()
        deserialize_unit_struct(name: &'static str)
        deserialize_newtype_struct(name: &'static str)
        deserialize_seq()
        deserialize_tuple(length: usize)
        deserialize_tuple_struct(name: &'static str, length: usize)
        deserialize_map()
        deserialize_enum(name: &'static str, variants: &'static [&'static str])
    }

    #[inline]
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, X::Error> {
        let visitor = Inside { fields: Some(fields), ..self.inside(visitor) };
        self.notes.deeper(|| self.inner.deserialize_struct(name, fields, visitor))
    }
}

/// A visitor of what has an inside.
struct Inside<'n, V> {
    visitor: V,
    /// Of a struct.
    fields: Option<&'static [&'static str]>,
    notes: &'n Notes,
}

macro_rules! visit {
    ($visitor:tt: $($method:ident: $ty:ty)*) => {$(
        #[inline]
        fn $method<E: Error>(self, value: $ty) -> Result<V::Value, E> {
            self.$visitor.$method(value)
        }
    )*};
}

/// A visitor of whatever is written as one scalar, without bytes: those are refused by `Visitor` itself.
struct NoBytes<V>(V);

impl<'de, V: Visitor<'de>> Visitor<'de> for NoBytes<V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.expecting(f)
    }

    visit! { 0:
        visit_bool: bool visit_i8: i8 visit_i16: i16 visit_i32: i32 visit_i64: i64 visit_i128: i128
        visit_u8: u8 visit_u16: u16 visit_u32: u32 visit_u64: u64 visit_u128: u128 visit_f32: f32
        visit_f64: f64 visit_char: char visit_str: &str visit_borrowed_str: &'de str
        visit_string: String
    }
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Inside<'_, V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.visitor.expecting(f)
    }

    visit! { visitor:
        visit_bool: bool visit_i8: i8 visit_i16: i16 visit_i32: i32 visit_i64: i64 visit_i128: i128
        visit_u8: u8 visit_u16: u16 visit_u32: u32 visit_u64: u64 visit_u128: u128 visit_f32: f32
        visit_f64: f64 visit_char: char visit_str: &str visit_borrowed_str: &'de str
        visit_string: String visit_bytes: &[u8] visit_borrowed_bytes: &'de [u8]
        visit_byte_buf: Vec<u8>
    }

    #[inline]
    fn visit_none<E: Error>(self) -> Result<V::Value, E> {
        self.visitor.visit_none()
    }

    #[inline]
    fn visit_unit<E: Error>(self) -> Result<V::Value, E> {
        self.visitor.visit_unit()
    }

    #[inline]
    fn visit_some<D: Deserializer<'de>>(self, inner: D) -> Result<V::Value, D::Error> {
        self.visitor.visit_some(Careful { inner, notes: self.notes })
    }

    #[inline]
    fn visit_newtype_struct<D: Deserializer<'de>>(self, inner: D) -> Result<V::Value, D::Error> {
        self.visitor.visit_newtype_struct(Careful { inner, notes: self.notes })
    }

    #[inline]
    fn visit_seq<A: SeqAccess<'de>>(self, inner: A) -> Result<V::Value, A::Error> {
        self.visitor.visit_seq(Careful { inner, notes: self.notes })
    }

    #[inline]
    fn visit_map<A: MapAccess<'de>>(self, inner: A) -> Result<V::Value, A::Error> {
        let notes = self.notes;
        match self.fields {
            None => self.visitor.visit_map(Careful { inner, notes }),
            Some(fields) => self.visitor.visit_map(Members {
                inner,
                fields,
                wanted: 0,
                has_unwanted: false,
                notes,
            }),
        }
    }

    #[inline]
    fn visit_enum<A: EnumAccess<'de>>(self, inner: A) -> Result<V::Value, A::Error> {
        self.visitor.visit_enum(Careful { inner, notes: self.notes })
    }
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Careful<'_, S> {
    type Value = S::Value;

    #[inline]
    fn deserialize<D: Deserializer<'de>>(self, inner: D) -> Result<S::Value, D::Error> {
        self.inner.deserialize(Careful { inner, notes: self.notes })
    }
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Careful<'_, A> {
    type Error = A::Error;

    #[inline]
    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        inner: S,
    ) -> Result<Option<S::Value>, A::Error> {
        self.inner.next_element_seed(Careful { inner, notes: self.notes })
    }

    #[inline]
    fn size_hint(&self) -> Option<usize> {
        self.inner.size_hint()
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Careful<'_, A> {
    type Error = A::Error;

    #[inline]
    fn next_key_seed<S: DeserializeSeed<'de>>(
        &mut self,
        inner: S,
    ) -> Result<Option<S::Value>, A::Error> {
        self.inner.next_key_seed(Careful { inner, notes: self.notes })
    }

    #[inline]
    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, inner: S) -> Result<S::Value, A::Error> {
        self.inner.next_value_seed(Careful { inner, notes: self.notes })
    }

    #[inline]
    fn size_hint(&self) -> Option<usize> {
        self.inner.size_hint()
    }
}

/// The fields of a struct as they were stored.
struct Members<'n, A> {
    inner: A,
    /// The names that the struct has now, aliases too.
    fields: &'static [&'static str],
    /// How many of the values the struct has taken.
    wanted: usize,
    /// There was one that the struct has ignored: its name is none of the struct's.
    has_unwanted: bool,
    notes: &'n Notes,
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Members<'_, A> {
    type Error = A::Error;

    #[inline]
    fn next_key_seed<S: DeserializeSeed<'de>>(
        &mut self,
        inner: S,
    ) -> Result<Option<S::Value>, A::Error> {
        let key = self.inner.next_key_seed(ByName { inner })?;
        if key.is_none() && self.has_unwanted && self.wanted < self.fields.len() {
            self.notes.found.set(Some(Unreadable::Renamed));
            return Err(A::Error::custom("fields were lost and others added"));
        }
        Ok(key)
    }

    #[inline]
    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, inner: S) -> Result<S::Value, A::Error> {
        // What serde's derive makes of a name that is none of the struct's; no field has this type, because
        // nothing can be stored of it. Known when the code is compiled.
        match type_name::<S::Value>() == type_name::<IgnoredAny>() {
            true => self.has_unwanted = true,
            false => self.wanted += 1,
        }
        self.inner.next_value_seed(Careful { inner, notes: self.notes })
    }

    #[inline]
    fn size_hint(&self) -> Option<usize> {
        self.inner.size_hint()
    }
}

impl<'de, 'n, A: EnumAccess<'de>> EnumAccess<'de> for Careful<'n, A> {
    type Error = A::Error;
    type Variant = Careful<'n, A::Variant>;

    #[inline]
    fn variant_seed<S: DeserializeSeed<'de>>(
        self,
        inner: S,
    ) -> Result<(S::Value, Self::Variant), A::Error> {
        let (name, variant) = self.inner.variant_seed(ByName { inner })?;
        Ok((name, Careful { inner: variant, notes: self.notes }))
    }
}

impl<'de, A: VariantAccess<'de>> VariantAccess<'de> for Careful<'_, A> {
    type Error = A::Error;

    #[inline]
    fn unit_variant(self) -> Result<(), A::Error> {
        self.inner.unit_variant()
    }

    #[inline]
    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, inner: S) -> Result<S::Value, A::Error> {
        self.inner.newtype_variant_seed(Careful { inner, notes: self.notes })
    }

    #[inline]
    fn tuple_variant<V: Visitor<'de>>(
        self,
        length: usize,
        visitor: V,
    ) -> Result<V::Value, A::Error> {
        let visitor = Inside { visitor, fields: None, notes: self.notes };
        self.notes.deeper(|| self.inner.tuple_variant(length, visitor))
    }

    #[inline]
    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, A::Error> {
        let visitor = Inside { visitor, fields: Some(fields), notes: self.notes };
        self.notes.deeper(|| self.inner.struct_variant(fields, visitor))
    }
}

/// What reads the name of a field or variant: as a seed, as a deserializer, as a visitor.
struct ByName<X> {
    inner: X,
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for ByName<S> {
    type Value = S::Value;

    #[inline]
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<S::Value, D::Error> {
        self.inner.deserialize(ByName { inner: deserializer })
    }
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for ByName<D> {
    type Error = D::Error;

    fn is_human_readable(&self) -> bool {
        self.inner.is_human_readable()
    }

    #[inline]
    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.inner.deserialize_identifier(ByName { inner: visitor })
    }

    pass_on! {
        deserialize_any deserialize_bool deserialize_i8 deserialize_i16 deserialize_i32
        deserialize_i64 deserialize_i128 deserialize_u8 deserialize_u16 deserialize_u32
        deserialize_u64 deserialize_u128 deserialize_f32 deserialize_f64 deserialize_char
        deserialize_str deserialize_string deserialize_bytes deserialize_byte_buf deserialize_unit
        deserialize_option deserialize_seq deserialize_map deserialize_ignored_any
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.inner.deserialize_unit_struct(name, visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.inner.deserialize_newtype_struct(name, visitor)
    }

    fn deserialize_tuple<V: Visitor<'de>>(
        self,
        length: usize,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.inner.deserialize_tuple(length, visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        length: usize,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.inner.deserialize_tuple_struct(name, length, visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.inner.deserialize_struct(name, fields, visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.inner.deserialize_enum(name, variants, visitor)
    }
}

/// Takes texts alone: whatever else comes is refused by `Visitor` itself.
impl<'de, V: Visitor<'de>> Visitor<'de> for ByName<V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.expecting(f)
    }

    visit! { inner:
        visit_str: &str visit_borrowed_str: &'de str visit_string: String visit_bytes: &[u8]
        visit_borrowed_bytes: &'de [u8] visit_byte_buf: Vec<u8>
    }
}
