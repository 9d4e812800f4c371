//! All that generated code names, and nothing else. Not part of the public API.

pub use serde::{Deserializer, Serializer};

pub use crate::data::{
    FieldDefault, FieldInfo, FieldValue,
    body::Encoder,
    codec::{EncodeError, Form, Probe},
    merge::{Merge, Merged},
    payload::PayloadReader,
    tracked::{DirtyBits, Tracked},
    user::UserName,
};

pub use crate::store::storage::IntoStorage;
pub use std::string::String;

#[cfg(feature = "secret")]
use crate::data::secret::Secret;
use crate::{data::SessionData, identity::keys::Keys, layer::SessionLayer};

/// What a field that is never stored must be able to do.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a session field, not even a skipped one",
    label = "cannot be shared between threads",
    note = "every session field must be `Send + Sync + 'static`"
)]
pub trait SkippedValue: Send + Sync + 'static {}

impl<F: Send + Sync + 'static> SkippedValue for F {}

/// What the user of a session is set from: nothing. Asked of the argument of its setter, so that this
/// says what to write.
#[diagnostic::on_unimplemented(
    message = "the user of a session is set by `Session::login`, and by nothing else",
    label = "not by a setter",
    note = "write `session.login(user).await?`: the session gets another id, so that one which was \
            planted before is worth nothing"
)]
pub trait SetByLogin {}

/// What a secret field must be: a type that neither shows its value nor leaves it in memory.
#[cfg_attr(
    feature = "secret",
    diagnostic::on_unimplemented(
        message = "`{Self}` cannot be a secret field",
        label = "can be shown by accident",
        note = "write `Secret<{Self}>` with `sessions::Secret`, or an `Option` or `Vec` of a `Secret`"
    )
)]
#[cfg_attr(
    not(feature = "secret"),
    diagnostic::on_unimplemented(
        message = "`#[session(secret)]` needs the feature `secret` of the crate `sessions`",
        label = "cannot be encrypted without it",
        note = "in Cargo.toml: `sessions = {{ version = \"…\", features = [\"secret\"] }}`"
    )
)]
pub trait SecretField {}

#[cfg(feature = "secret")]
impl<X: zeroize::Zeroize> SecretField for Secret<X> {}

#[cfg(feature = "secret")]
impl<X: zeroize::Zeroize> SecretField for Option<Secret<X>> {}

#[cfg(feature = "secret")]
impl<X: zeroize::Zeroize> SecretField for Vec<Secret<X>> {}

/// The codecs that a field can ask for, as they are written there; each a function that cannot be called
/// without the feature.
pub mod codecs {
    use crate::data::codec::Codec;

    #[diagnostic::on_unimplemented(
        message = "`codec = bincode` needs the feature `bincode` of the crate `sessions`",
        label = "is not compiled in",
        note = "in Cargo.toml: `sessions = {{ version = \"…\", features = [\"bincode\"] }}`"
    )]
    pub trait Bincode {
        const CODEC: Codec;
    }

    #[cfg(feature = "bincode")]
    impl Bincode for () {
        const CODEC: Codec = Codec::Bincode;
    }

    pub const fn bincode<Feature: Bincode>() -> Codec {
        Feature::CODEC
    }

    #[diagnostic::on_unimplemented(
        message = "`codec = json` needs the feature `json` of the crate `sessions`",
        label = "is not compiled in",
        note = "in Cargo.toml: `sessions = {{ version = \"…\", features = [\"json\"] }}`"
    )]
    pub trait Json {
        const CODEC: Codec;
    }

    #[cfg(feature = "json")]
    impl Json for () {
        const CODEC: Codec = Codec::Json;
    }

    pub const fn json<Feature: Json>() -> Codec {
        Feature::CODEC
    }

    #[diagnostic::on_unimplemented(
        message = "`codec = messagepack` needs the feature `messagepack` of the crate `sessions`",
        label = "is not compiled in",
        note = "in Cargo.toml: `sessions = {{ version = \"…\", features = [\"messagepack\"] }}`"
    )]
    pub trait MessagePack {
        const CODEC: Codec;
    }

    #[cfg(feature = "messagepack")]
    impl MessagePack for () {
        const CODEC: Codec = Codec::MessagePack;
    }

    pub const fn messagepack<Feature: MessagePack>() -> Codec {
        Feature::CODEC
    }

    #[diagnostic::on_unimplemented(
        message = "`codec = postcard` needs the feature `postcard` of the crate `sessions`",
        label = "is not compiled in",
        note = "in Cargo.toml: `sessions = {{ version = \"…\", features = [\"postcard\"] }}`"
    )]
    pub trait Postcard {
        const CODEC: Codec;
    }

    #[cfg(feature = "postcard")]
    impl Postcard for () {
        const CODEC: Codec = Codec::Postcard;
    }

    pub const fn postcard<Feature: Postcard>() -> Codec {
        Feature::CODEC
    }
}

/// For a field that is serialized by its type, and deserialized by a function.
pub fn serialize<F: serde::Serialize, S: Serializer>(
    value: &F,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    value.serialize(serializer)
}

/// For one that is deserialized by its type.
pub fn deserialize<'de, F: serde::Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<F, D::Error> {
    F::deserialize(deserializer)
}

/// For `merge = add` of a field that is stored in another form.
pub fn add<F: crate::data::merge::Add>(base: &F, theirs: &F, ours: &F) -> F {
    F::add(base, theirs, ours)
}

/// For `merge = union` of one.
pub fn union<F: crate::data::merge::Union>(base: &F, theirs: &F, ours: &F) -> F {
    F::union(base, theirs, ours)
}

pub fn get<T: SessionData>(tracked: &Tracked<T>) -> &T {
    tracked.data()
}

pub fn is_dirty<T: SessionData>(tracked: &Tracked<T>, field: usize) -> bool {
    tracked.is_dirty(field)
}

pub fn field_mut<T: SessionData, F>(
    tracked: &mut Tracked<T>,
    field: usize,
    project: impl FnOnce(&mut T) -> &mut F,
) -> &mut F {
    tracked.field_mut(field, project)
}

/// For a setter.
pub fn set<T: SessionData, F>(
    tracked: &mut Tracked<T>,
    field: usize,
    project: impl FnOnce(&mut T) -> &mut F,
) -> &mut F {
    tracked.assign(field, project)
}

/// For what sets a field back to its default.
pub fn reset<T: SessionData, F>(
    tracked: &mut Tracked<T>,
    field: usize,
    project: impl FnOnce(&mut T) -> &mut F,
) -> &mut F {
    tracked.reset(field, project)
}

pub fn skipped_mut<T: SessionData, F>(
    tracked: &mut Tracked<T>,
    project: impl FnOnce(&mut T) -> &mut F,
) -> &mut F {
    tracked.skipped_mut(project)
}

/// For the `layer` of a struct.
pub fn layer<T: SessionData>(store: impl IntoStorage, keys: Keys) -> SessionLayer<T> {
    match SessionLayer::builder(store, keys).build() {
        Ok(layer) => layer,
        Err(error) => panic!("{error}"),
    }
}

/// The `CsrfLayer`s of a struct, if there are any. A macro, because the derive does not know which features
/// are on.
#[cfg(feature = "axum")]
#[macro_export]
#[doc(hidden)]
macro_rules! __csrf_layers {
    ($vis:vis fn) => {
        /// Refuses what another site sends: `CsrfLayer::new` with this type.
        $vis fn csrf_layer() -> $crate::CsrfLayer<Self> {
            $crate::CsrfLayer::new()
        }

        /// For one with other settings: `CsrfLayer::builder` with this type.
        $vis fn csrf_layer_builder() -> $crate::CsrfLayerBuilder<Self> {
            $crate::CsrfLayer::builder()
        }
    };
}

#[cfg(not(feature = "axum"))]
#[macro_export]
#[doc(hidden)]
macro_rules! __csrf_layers {
    ($vis:vis fn) => {};
}

pub use crate::__csrf_layers as csrf_layers;

pub fn name_of<N: ToString + ?Sized>(name: &N) -> String {
    name.to_string()
}

pub fn take<T: SessionData, F>(
    tracked: &mut Tracked<T>,
    field: usize,
    project: impl FnOnce(&mut T) -> &mut F,
    default: F,
) -> F {
    tracked.take(field, project, default)
}

pub fn default_of<F: FieldDefault>() -> F {
    F::field_default()
}
