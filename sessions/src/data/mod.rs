//! What `#[derive(Session)]` implements, and what it demands of a field.

pub(crate) mod body;
pub(crate) mod codec;
pub(crate) mod merge;
pub(crate) mod patch;
pub(crate) mod payload;
pub(crate) mod sealing;
#[cfg(feature = "secret")]
pub(crate) mod secret;
pub(crate) mod tracked;
pub(crate) mod user;

use std::ops::Deref;

use serde::{Serialize, de::DeserializeOwned};

use crate::data::{
    body::Encoder,
    codec::{Codec, EncodeError, Probe},
    merge::{Merge, Merged},
    payload::PayloadReader,
    tracked::{DirtyBits, Tracked},
};

/// A struct whose fields are the keys of a session. Derive it:
///
/// ```
/// # #[cfg(feature = "derive")] {
/// #[derive(sessions::Session)]
/// struct Visitor {
///     name: Option<String>,
///     visits: u32,
/// }
/// # }
/// ```
///
/// Not meant to be implemented by hand: everything that is hidden here may change.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a session's data",
    note = "add `#[derive(sessions::Session)]` to `{Self}`"
)]
pub trait SessionData: Sized + Send + Sync + 'static {
    /// The generated struct that a guard derefs to; the accessors of the fields live there.
    type Fields: Deref<Target = Self> + Send + Sync + 'static;

    #[doc(hidden)]
    type Dirty: DirtyBits;

    /// The stored fields in order. A field's place in this table is its number everywhere else.
    #[doc(hidden)]
    const FIELDS: &'static [FieldInfo];

    /// What cookies and stores call this type of session: whatever is signed or listed under another
    /// name is another type's.
    #[doc(hidden)]
    const __NAME: &'static str;

    /// Whether the same payload always gives the same fields, as far as the derive can tell: none of
    /// them is skipped, and no default is an expression. A type's `Default` is taken to be constant.
    #[doc(hidden)]
    const __LOADS_ALIKE: bool = true;

    /// Takes each field from the payload, or its default where the payload has none.
    #[doc(hidden)]
    fn __load(reader: &PayloadReader<'_>) -> Self;

    /// Takes one field anew from the payload, or its default.
    #[doc(hidden)]
    fn __load_field(&mut self, field: usize, reader: &PayloadReader<'_>);

    #[doc(hidden)]
    fn __encode(&self, field: usize, encoder: &mut Encoder<'_>) -> Result<(), EncodeError>;

    /// Whether any value of a field can be stored, as far as its type shows that.
    #[doc(hidden)]
    fn __probe(_field: usize, _probe: Probe) -> Result<(), EncodeError> {
        Ok(())
    }

    /// Merges a field that two saves have changed at once, if it says how.
    #[doc(hidden)]
    fn __merge(_field: usize, merge: Merge<'_>) -> Merged {
        merge.none()
    }

    #[doc(hidden)]
    fn __wrap(tracked: Tracked<Self>) -> Self::Fields;

    #[doc(hidden)]
    fn __tracked(fields: &Self::Fields) -> &Tracked<Self>;

    #[doc(hidden)]
    fn __tracked_mut(fields: &mut Self::Fields) -> &mut Tracked<Self>;
}

/// A stored field, as the derive describes it to the runtime.
#[derive(Clone, Copy, Debug)]
pub struct FieldInfo {
    pub(crate) key: &'static str,
    pub(crate) aliases: &'static [&'static str],
    pub(crate) version: u32,
    pub(crate) merges: bool,
    pub(crate) flash: bool,
    /// In milliseconds; none if it is 0.
    pub(crate) ttl: u64,
    #[cfg(feature = "secret")]
    pub(crate) secret: bool,
    pub(crate) user: bool,
    /// Instead of the layer's.
    pub(crate) codec: Option<Codec>,
}

impl FieldInfo {
    /// A field that is stored under `key`.
    pub const fn new(key: &'static str) -> Self {
        Self {
            key,
            aliases: &[],
            version: 0,
            merges: false,
            flash: false,
            ttl: 0,
            #[cfg(feature = "secret")]
            secret: false,
            user: false,
            codec: None,
        }
    }

    /// Keys under which earlier builds stored the field.
    pub const fn aliases(self, aliases: &'static [&'static str]) -> Self {
        Self { aliases, ..self }
    }

    /// Bytes that were stored with another version are not read.
    pub const fn version(self, version: u32) -> Self {
        Self { version, ..self }
    }

    /// The field says how it is merged.
    pub const fn merges(self) -> Self {
        Self { merges: true, ..self }
    }

    /// The request that takes the field's value is the only one that gets it.
    pub const fn flash(self) -> Self {
        Self { flash: true, ..self }
    }

    /// The field falls back to its default so many milliseconds after it was last set.
    pub const fn ttl(self, millis: u64) -> Self {
        Self { ttl: millis, ..self }
    }

    /// The field is encrypted in the store.
    #[cfg(feature = "secret")]
    pub const fn secret(self) -> Self {
        Self { secret: true, ..self }
    }

    /// No type can be that of a secret field without the feature `secret`.
    #[cfg(not(feature = "secret"))]
    pub const fn secret(self) -> Self {
        self
    }

    /// The field says whose session it is: a login changes it, and no guard.
    pub const fn user(self) -> Self {
        Self { user: true, ..self }
    }

    /// The field has a codec of its own.
    pub const fn codec(self, codec: Codec) -> Self {
        Self { codec: Some(codec), ..self }
    }

    /// Whether any of these fields depends on the time.
    pub(crate) const fn any_has_ttl(fields: &[Self]) -> bool {
        let mut rest = fields;
        while let [first, others @ ..] = rest {
            if first.ttl > 0 {
                return true;
            }
            rest = others;
        }
        false
    }

    /// Whether it would do harm to store a change of the field twice.
    pub(crate) fn counts_changes(&self) -> bool {
        self.merges || self.flash
    }

    /// Whether earlier builds know the field by `key`.
    pub(crate) fn has_alias(&self, key: &[u8]) -> bool {
        self.aliases.iter().any(|alias| alias.as_bytes() == key)
    }
}

/// What a stored field must be able to do. Implemented for every type that is.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a session field",
    label = "cannot be stored in a session",
    note = "a session field must be `Serialize + DeserializeOwned + Send + Sync + 'static`: derive \
            serde's traits for `{Self}`, or, if another crate has it, turn on that crate's feature \
            `serde`; or keep the field out of the store with `#[session(skip)]`"
)]
pub trait FieldValue: Serialize + DeserializeOwned + Send + Sync + 'static {}

impl<F: Serialize + DeserializeOwned + Send + Sync + 'static> FieldValue for F {}

/// Where a field without a `default` of its own starts. Implemented for every type with `Default`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` has no default to start a session with",
    label = "has no `Default`",
    note = "implement `Default` for `{Self}`, or give the field one: `#[session(default = …)]`"
)]
pub trait FieldDefault: Sized {
    /// The value of a field that nothing is stored for.
    fn field_default() -> Self;
}

impl<F: Default> FieldDefault for F {
    fn field_default() -> Self {
        F::default()
    }
}
