//! The derive macro of the crate `sessions`, which re-exports it.

mod check;
mod duration;
mod errors;
mod expand;
mod model;
mod names;
mod parse;
#[cfg(test)]
mod tests;

use errors::Errors;
use proc_macro2::TokenStream;
use syn::{DeriveInput, Error, Result};

/// Makes a struct the data of a session: each of its named fields is a key.
///
/// A field's type must be `Serialize + DeserializeOwned + Send + Sync + 'static`, and `Default`
/// unless the field has a `default` of its own. The struct itself needs no other derive, and can
/// have no generic parameters.
///
/// Beside the struct, say `Visitor`, there will be a struct `VisitorFields` of the same visibility.
/// It is what a guard derefs to, and derefs to `Visitor` itself, so that every field can be read
/// but none assigned to. Changes go through its methods, which note what has to be saved.
///
/// `Visitor` itself gets functions that are as visible: `Visitor::layer(store, keys)` is its
/// `SessionLayer`, `Visitor::layer_builder(store, keys)` is for one with other settings, and with a `user`
/// `Visitor::require_login()` is its `RequireLogin`, and `Visitor::require_login_builder()` is for another one.
/// With the feature `axum` or `actix`, `Visitor::csrf_layer()` is its `CsrfLayer`, and
/// `Visitor::csrf_layer_builder()` is for another one.
///
/// # Accessors
///
/// | type of `foo` | `foo()` returns | `set_foo(…)` takes |
/// | --- | --- | --- |
/// | a number, `bool`, `char` | the value | the value |
/// | `String` | `&str` | `impl Into<String>` |
/// | `Vec<X>` | `&[X]` | `impl Into<Vec<X>>` |
/// | `Option<X>`, with `X` a number, `bool`, `char` | `Option<X>` | `X` |
/// | `Option<String>` | `Option<&str>` | `impl Into<String>` |
/// | `Option<Vec<X>>` | `Option<&Vec<X>>` | `impl Into<Vec<X>>` |
/// | `Option<X>` | `Option<&X>` | `X`, or `impl Into<X>` with `#[session(into)]` |
/// | any other `X` | `&X` | `X`, or `impl Into<X>` with `#[session(into)]` |
///
/// The setter of an `Option` sets `Some`. Every field has these too:
///
/// | accessor | does |
/// | --- | --- |
/// | `foo_mut()` | lends the field for changes, and counts it as changed |
/// | `take_foo()` | takes the value out, and leaves the default |
/// | `reset_foo()` | sets the default |
/// | `clear_foo()` | sets `None` (of an `Option` only) |
/// | `push_foo(…)` | appends an `X`, or an `impl Into<String>` to a list of those (of a `Vec<X>` only) |
/// | `foo_is_dirty()` | tells whether there are changes that are not saved yet |
///
/// The `user` has only `foo()` and `foo_is_dirty()`; `set_foo(…)` is an error that says `login`.
///
/// A field with `flash` has only `set_foo(…)`, `take_foo()` and `foo_is_dirty()`, and if it is a
/// `Vec<X>` `push_foo(…)`.
///
/// Accessors that set, reset, clear or push return nothing, so that
/// `session.update(|s| s.set_visits(1)).await?` is a whole change. Accessors are as visible as
/// their field and have its documentation. A type is recognized as it is written: by its name alone
/// or by its full path in `std`, `core` or `alloc`. `self::String`, if there is such a type, is not
/// taken for the one in `std`.
///
/// # Attributes of a field
///
/// | `#[session(…)]` | means |
/// | --- | --- |
/// | `codec = json` | how the field is encoded, instead of the layer's codec: `bincode`, `json`, `messagepack` or `postcard` (`sessions::values`) |
/// | `default = …` | where the field starts, instead of at `Default::default()`: an expression of the field's type, or a text that is converted into it (for an `Option`, into what it holds) |
/// | `rename = "key"` | the key in the store, instead of the field's name |
/// | `alias = "old key"` | a key under which earlier builds store the field, and this one stores it too; can be repeated (`sessions::values`) |
/// | `flash` | the value is for one request to show: the request that takes it is the only one that gets it (`sessions::fields`) |
/// | `into` | the setter converts, as in the table above |
/// | `merge = add` | a number that two processes change at once gets both changes: `theirs + ours - base` |
/// | `merge = union` | of a set, map or list: what each has added, without what each has removed |
/// | `merge = path::to::function` | a merge of your own: `fn(base: &F, theirs: &F, ours: &F) -> F` |
/// | `secret` | the field is encrypted in the store and not shown by `Debug`: a `Secret<X>`, or an `Option` or `Vec` of those, with the feature `secret` (`sessions::fields`) |
/// | `skip` | the field is never stored, and starts at its default whenever the session is loaded |
/// | `ttl = "10m"` | the field falls back to its default that long after it was last set: `d`, `h`, `m` and `s`, as in `"1h30m"` (`sessions::fields`) |
/// | `user` | whose session it is: an `Option<X>` that only `Session::login` sets. `X` is named by its `Display`: the stores list a user's sessions under that name |
/// | `user = path::to::function` | the same, named by `fn(&X) -> impl ToString` |
/// | `version = 2` | raise it when the meaning changes: what was stored with another version is dropped |
///
/// What is *set* is stored, also if it is the default: a later build whose default is another one reads
/// what was set. A field that was never set, or set back with `reset_foo()` or `take_foo()`, has the
/// default of the build that reads it. `foo_mut()` and `clear_foo()` set a field unless they leave the
/// default of one that was never set.
///
/// Of serde's attributes those that mean something for one field are honoured, also where the struct
/// has none of serde's derives: `#[serde(with = "…")]`, `serialize_with`, `deserialize_with`, `skip`,
/// `rename`, `alias` and `default`; where `#[session(…)]` says the same, that counts. Any other is an
/// error.
///
/// # Attributes of the struct
///
/// | `#[session(…)]` | means |
/// | --- | --- |
/// | `crate = path::to::sessions` | where the `sessions` crate is, if not at `::sessions` |
/// | `name = "Visitor"` | what cookies and stores call this type of session, instead of the struct's name |
/// | `rename_all = "camelCase"` | the case of all keys without a `rename`: `lowercase`, `UPPERCASE`, `PascalCase`, `camelCase`, `snake_case`, `SCREAMING_SNAKE_CASE`, `kebab-case` or `SCREAMING-KEBAB-CASE` |
///
/// # The name of the type
///
/// A session of one type is nothing to another: cookies are signed, and users are listed, under the
/// name of the struct. It is the struct's name alone, without its path, so that the struct can move
/// to another module. **To rename the struct logs everybody out**, and the lists of a user's
/// sessions begin empty, unless the struct keeps its old name: `#[session(name = "Visitor")]`. Two
/// structs of one name that share a store or keys need a `name` each: if both have users, the second
/// layer in a process warns of that.
#[proc_macro_derive(Session, attributes(session, serde))]
pub fn derive_session(input: proc_macro::TokenStream) -> proc_macro::TokenStream {
    derive(input.into()).unwrap_or_else(Error::into_compile_error).into()
}

fn derive(tokens: TokenStream) -> Result<TokenStream> {
    let DeriveInput { ident, .. } = syn::parse2(tokens.clone())?;
    let written: DeriveInput = syn::parse2(names::spell_out_self(tokens, &ident))?;
    let errors = Errors::default();
    let input = parse::parse(&written, &errors);
    let model = check::check(&input, &errors);
    Ok(match errors.finish() {
        Ok(()) => expand::expand(&model),
        Err(error) => [error.into_compile_error(), expand::stub(&model, &written.generics)]
            .into_iter()
            .collect(),
    })
}
