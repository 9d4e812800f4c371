//! What a type asks its codec for, found out by deserializing it from nothing but zeros, when a layer
//! is built: a type that no value of can be read back is refused there.
//!
//! A type that refuses zeros, or asks what there is, gets through: its values are looked at when they
//! are saved.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{self, DeserializeSeed, EnumAccess, MapAccess, SeqAccess, VariantAccess, Visitor},
};

use crate::data::FieldValue;
use crate::data::codec::{
    Codec, EncodeError, Form,
    error::Problem,
    form::{Out, Own},
};

/// So many values a type is asked to make of zeros, and so many variants of its enums are looked at.
const STEPS: u32 = 1000;
const VARIANTS: usize = 16;
/// A list may hold itself.
const DEPTH: u32 = 24;

/// A look at the type of a field.
pub struct Probe {
    pub(crate) codec: Codec,
}

impl Probe {
    /// Whether any value of the type can be stored and read back, as far as that can be told.
    pub fn of<F: FieldValue>(self) -> Result<(), EncodeError> {
        self.of_as::<Own<F>>()
    }

    /// The same in another form than the type's own.
    pub fn of_as<W: Form>(self) -> Result<(), EncodeError> {
        for variant in 0..VARIANTS {
            let codec = self.codec;
            let mut look = Look {
                codec,
                variant,
                steps: 0,
                depth: 0,
                is_key: false,
                found: None,
                has_more: false,
            };
            let _ = Out::<W>::deserialize(&mut look);
            match look.found {
                Some(problem) => return Err(codec.error::<W>(problem, None)),
                None if !look.has_more => break,
                None => {}
            }
        }
        Ok(())
    }
}

struct Look {
    codec: Codec,
    /// Which variant of each enum is looked at.
    variant: usize,
    steps: u32,
    depth: u32,
    /// Whether it is looking at the key of a map.
    is_key: bool,
    found: Option<Problem>,
    /// Whether an enum has more variants than were looked at.
    has_more: bool,
}

/// It goes no further here.
#[derive(Debug)]
struct Stop;

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no further")
    }
}

impl std::error::Error for Stop {}

impl de::Error for Stop {
    fn custom<M: fmt::Display>(_: M) -> Self {
        Self
    }
}

impl Look {
    fn step(&mut self) -> Result<(), Stop> {
        self.steps += 1;
        if self.steps > STEPS || self.found.is_some() { Err(Stop) } else { Ok(()) }
    }

    /// What JSON does not take for a key.
    fn no_key(&mut self) -> Result<(), Stop> {
        self.step()?;
        if self.is_key && self.codec.is_json() {
            self.found = Some(Problem::NoKey);
            return Err(Stop);
        }
        Ok(())
    }

    fn deeper<R>(&mut self, work: impl FnOnce(&mut Self) -> Result<R, Stop>) -> Result<R, Stop> {
        if self.depth == DEPTH {
            return Err(Stop);
        }
        self.depth += 1;
        let was_key = std::mem::replace(&mut self.is_key, false);
        let result = work(self);
        self.is_key = was_key;
        self.depth -= 1;
        result
    }

    fn list<'de, V: Visitor<'de>>(&mut self, left: usize, v: V) -> Result<V::Value, Stop> {
        self.no_key()?;
        self.deeper(|look| v.visit_seq(Zeros { look, left }))
    }
}

macro_rules! zeros {
    ($($method:ident $visit:ident $zero:expr;)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
            self.step()?;
            visitor.$visit($zero)
        }
    )*};
}

impl<'de> Deserializer<'de> for &mut Look {
    type Error = Stop;

    fn is_human_readable(&self) -> bool {
        self.codec.is_json()
    }

    zeros! {
        deserialize_bool visit_bool false;
        deserialize_i8 visit_i8 0;
        deserialize_i16 visit_i16 0;
        deserialize_i32 visit_i32 0;
        deserialize_i64 visit_i64 0;
        deserialize_i128 visit_i128 0;
        deserialize_u8 visit_u8 0;
        deserialize_u16 visit_u16 0;
        deserialize_u32 visit_u32 0;
        deserialize_u64 visit_u64 0;
        deserialize_u128 visit_u128 0;
        deserialize_f32 visit_f32 0.0;
        deserialize_f64 visit_f64 0.0;
        deserialize_char visit_char '0';
        deserialize_str visit_str "0";
        deserialize_string visit_str "0";
    }

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Stop> {
        Err(Stop)
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Stop> {
        Err(Stop)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        self.step()?;
        visitor.visit_unit()
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        self.no_key()?;
        visitor.visit_bytes(&[0])
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        self.deserialize_bytes(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        self.no_key()?;
        self.deeper(|look| visitor.visit_some(look))
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        self.no_key()?;
        visitor.visit_unit()
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Stop> {
        self.deserialize_unit(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Stop> {
        self.step()?;
        // serde_json's `RawValue`, which is a text of JSON and nothing else.
        if name == "$serde_json::private::RawValue" && !self.codec.is_json() {
            self.found = Some(Problem::NotReadBack { instead: Codec::json() });
            return Err(Stop);
        }
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        self.list(1, visitor)
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, v: V) -> Result<V::Value, Stop> {
        self.list(len, v)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, Stop> {
        self.list(len, visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        self.no_key()?;
        self.deeper(|look| visitor.visit_map(Zeros { look, left: 1 }))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Stop> {
        // Some of the names may be others' aliases: in their order the fields have none.
        self.list(fields.len(), visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Stop> {
        self.step()?;
        self.has_more |= self.variant + 1 < variants.len();
        let Some(name) = variants.get(self.variant.min(variants.len().saturating_sub(1))) else {
            return Err(Stop);
        };
        visitor.visit_enum(Variant { look: self, name })
    }
}

/// So many elements, or entries.
struct Zeros<'l> {
    look: &'l mut Look,
    left: usize,
}

impl<'de> SeqAccess<'de> for Zeros<'_> {
    type Error = Stop;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Stop> {
        match self.left {
            0 => Ok(None),
            _ => {
                self.left -= 1;
                seed.deserialize(&mut *self.look).map(Some)
            }
        }
    }
}

impl<'de> MapAccess<'de> for Zeros<'_> {
    type Error = Stop;

    fn next_key_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Stop> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        self.look.is_key = true;
        let key = seed.deserialize(&mut *self.look);
        self.look.is_key = false;
        key.map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Stop> {
        seed.deserialize(&mut *self.look)
    }
}

struct Variant<'l> {
    look: &'l mut Look,
    name: &'static str,
}

impl<'de> EnumAccess<'de> for Variant<'_> {
    type Error = Stop;
    type Variant = Self;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self), Stop> {
        let name = de::value::StrDeserializer::<Stop>::new(self.name);
        Ok((seed.deserialize(name)?, self))
    }
}

impl<'de> VariantAccess<'de> for Variant<'_> {
    type Error = Stop;

    fn unit_variant(self) -> Result<(), Stop> {
        Ok(())
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, Stop> {
        self.look.no_key()?;
        self.look.deeper(|look| seed.deserialize(look))
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Stop> {
        self.look.list(len, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Stop> {
        self.look.list(fields.len(), visitor)
    }
}

#[cfg(all(test, feature = "json", feature = "messagepack"))]
mod tests {
    use std::collections::{BTreeMap, HashMap, HashSet};

    use serde::Serialize;
    use serde_json::Value;

    use super::*;

    #[derive(Serialize, Deserialize)]
    struct Tree {
        name: String,
        children: Vec<Tree>,
        parent: Option<Box<Tree>>,
    }

    #[derive(Serialize, Deserialize)]
    enum Deep {
        Unit,
        Maps { by_place: Option<Vec<BTreeMap<(u8, u8), u8>>> },
    }

    fn problem<F: FieldValue>(codec: Codec) -> Option<Problem> {
        Probe { codec }.of::<F>().err().map(|error| error.problem)
    }

    #[test]
    fn keys_that_json_has_no_words_for_are_found_wherever_they_are() {
        let in_json = [
            problem::<HashMap<(u8, u8), u8>>(Codec::Json),
            problem::<Option<HashMap<Option<u8>, u8>>>(Codec::Json),
            problem::<HashMap<Vec<u8>, u8>>(Codec::Json),
            problem::<Deep>(Codec::Json),
        ];
        assert_eq!(in_json, [Some(Problem::NoKey); 4]);
        assert_eq!(problem::<Deep>(Codec::MessagePack), None);
        assert_eq!(problem::<HashMap<u32, HashMap<String, Vec<u8>>>>(Codec::Json), None);
        assert_eq!(problem::<HashSet<(u8, u8)>>(Codec::Json), None);
        assert_eq!(problem::<HashMap<(), u8>>(Codec::Json), Some(Problem::NoKey));
    }

    #[test]
    fn what_cannot_be_told_gets_through_and_all_types_come_to_an_end() {
        for codec in [Codec::MessagePack, Codec::Json] {
            assert_eq!(problem::<Tree>(codec), None);
            assert_eq!(problem::<Value>(codec), None);
            assert_eq!(problem::<std::num::NonZeroU8>(codec), None);
        }
    }
}
