//! In which form a field's value is given to serde.

use std::{any::TypeId, marker::PhantomData};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::survey::Kind;
use crate::data::FieldValue;

/// How a value is serialized and deserialized: by its own implementations, or by the
/// functions that a field names with `#[serde(with = …)]`.
pub trait Form: Send + Sync + 'static {
    /// The type of the field.
    type Value: Send + Sync + 'static;

    /// Serializes a value of the field.
    fn serialize<S: Serializer>(value: &Self::Value, serializer: S) -> Result<S::Ok, S::Error>;

    /// Deserializes a value of the field.
    fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self::Value, D::Error>;
}

/// The form of a type that has serde's traits.
pub(crate) struct Own<F>(PhantomData<fn() -> F>);

impl<F: FieldValue> Form for Own<F> {
    type Value = F;

    #[inline]
    fn serialize<S: Serializer>(value: &F, serializer: S) -> Result<S::Ok, S::Error> {
        value.serialize(serializer)
    }

    fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<F, D::Error> {
        F::deserialize(deserializer)
    }
}

/// What each value of this form is, where the type alone says so: numbers and texts of the language, which
/// every codec gives back. Not floats: JSON has no NaN. Decided when the program is compiled.
#[inline]
pub(super) fn scalar<W: Form>() -> Option<Kind> {
    let form = TypeId::of::<W>();
    macro_rules! kinds {
        ($($of:ty: $kind:ident,)*) => {
            $(if form == TypeId::of::<Own<$of>>() {
                return Some(Kind::$kind);
            })*
        };
    }
    kinds! {
        bool: Bool,
        char: Char,
        u8: U8,
        u16: Unsigned,
        u32: Unsigned,
        u64: Unsigned,
        i8: I8,
        i16: Signed,
        i32: Signed,
        i64: Signed,
        String: Text,
    }
    None
}

/// A value on its way to a codec.
pub(crate) struct In<'a, W: Form>(pub(crate) &'a W::Value);

impl<W: Form> Serialize for In<'_, W> {
    #[inline]
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        W::serialize(self.0, serializer)
    }
}

/// A value that comes from a codec.
pub(crate) struct Out<W: Form>(pub(crate) W::Value);

impl<'de, W: Form> Deserialize<'de> for Out<W> {
    #[inline]
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        W::deserialize(deserializer).map(Self)
    }
}
