//! All that generated code names, and nothing else. Not part of the public API.

pub use crate::{
    data::{FieldDefault, FieldInfo, FieldValue},
    login::UserName,
    merge::{Merge, Merged},
    payload::{EncodeError, Encoder, Source},
    tracked::{DirtyBits, Tracked},
};

pub use std::string::String;

use crate::SessionData;

/// What a field that is never stored must be able to do.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a session field, not even a skipped one",
    label = "cannot be shared between threads",
    note = "every session field must be `Send + Sync + 'static`"
)]
pub trait SkippedValue: Send + Sync + 'static {}

impl<F: Send + Sync + 'static> SkippedValue for F {}

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
impl<X: zeroize::Zeroize> SecretField for crate::Secret<X> {}

#[cfg(feature = "secret")]
impl<X: zeroize::Zeroize> SecretField for Option<crate::Secret<X>> {}

#[cfg(feature = "secret")]
impl<X: zeroize::Zeroize> SecretField for Vec<crate::Secret<X>> {}

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

pub fn skipped_mut<T: SessionData, F>(
    tracked: &mut Tracked<T>,
    project: impl FnOnce(&mut T) -> &mut F,
) -> &mut F {
    tracked.skipped_mut(project)
}

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
