//! The field that says whose session it is.

use std::fmt;

use crate::data::SessionData;

/// A session that says whose it is: a struct with a field that is marked `#[session(user)]`.
///
/// ```
/// # #[cfg(feature = "derive")] {
/// #[derive(sessions::Session)]
/// struct Visitor {
///     #[session(user)]
///     user: Option<u64>,
///     cart: Vec<u32>,
/// }
/// # }
/// ```
///
/// The field is `None` until [`Session::login`](crate::Session::login) sets it. Nothing else can: a user that is written
/// into a session whose id stays what it was is an invitation to session fixation.
///
/// Implemented by the derive. Not meant to be implemented by hand.
#[diagnostic::on_unimplemented(
    message = "no field of `{Self}` says whose session it is",
    note = "mark one: `#[session(user)] user: Option<…>`"
)]
pub trait SessionUser: SessionData {
    /// Who logs in: what the field's `Option` holds.
    type User: Send + Sync + 'static;

    #[doc(hidden)]
    const __FIELD: usize;

    #[doc(hidden)]
    fn __user(&self) -> Option<&Self::User>;

    #[doc(hidden)]
    fn __begin_as(&mut self, user: Self::User);

    /// What stores call the user.
    #[doc(hidden)]
    fn __name(user: &Self::User) -> String;
}

/// How a user is called in a store. Implemented for every type with `Display`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not say what the user is called in the store",
    label = "has no `Display`",
    note = "implement `Display` for `{Self}`, or name a function that gives the user's id: \
            `#[session(user = path::to::function)]` with `fn(&{Self}) -> impl ToString`"
)]
pub trait UserName {
    /// The same name for the same user, and no other user's.
    fn user_name(&self) -> String;
}

impl<U: fmt::Display> UserName for U {
    fn user_name(&self) -> String {
        self.to_string()
    }
}
