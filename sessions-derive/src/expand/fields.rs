//! The fields struct and its accessors.

use proc_macro2::{Ident, Literal, TokenStream};
use quote::quote_spanned;
use syn::ext::IdentExt;

use super::{data::start, hygienic};
use crate::model::{Field, Kind, Model, Storage};

/// What guards deref to, and derefs to the user's struct. An enum: of a struct the compiler would
/// suggest the field to a user who has misspelt one of their own.
pub(super) fn structure(model: &Model<'_>) -> TokenStream {
    let Model { vis, ident, fields_ident, .. } = model;
    let private = model.private();
    let doc = doc(model);
    hygienic! {
        #[doc = #doc]
        #[allow(deprecated, non_camel_case_types)]
        #vis enum #fields_ident {
            #[doc(hidden)]
            __Tracked(#private::Tracked<#ident>),
        }
    }
}

/// The tracked value in `self`, as mutable as that.
fn tracked() -> TokenStream {
    hygienic!({
        let Self::__Tracked(__tracked) = self;
        __tracked
    })
}

pub(super) fn doc(model: &Model<'_>) -> String {
    format!(
        " The fields of a [`{0}`] session, as a guard shows them: typed accessors, and the \
         [`{0}`] itself to read from.",
        model.ident.unraw()
    )
}

/// What begins with the user's struct: its layer, and the builder of one.
pub(super) fn constructors(model: &Model<'_>) -> TokenStream {
    let Model { krate, vis, ident, .. } = model;
    let private = model.private();
    let require_login = model.user.as_ref().map(|_| {
        hygienic! {
            #[doc = " A layer that lets only those requests pass whose user is logged in: `RequireLogin::new` with this type."]
            #vis fn require_login() -> #krate::RequireLogin<Self> {
                #krate::RequireLogin::new()
            }

            #[doc = " For one with other settings: `RequireLogin::builder` with this type."]
            #vis fn require_login_builder() -> #krate::RequireLoginBuilder<Self> {
                #krate::RequireLogin::builder()
            }
        }
    });
    let [layer, builder] = [
        " A layer that gives requests such sessions: `SessionLayer::new` with this type.\n\n # Panics\n\n \
         As `SessionLayer::new` does.",
        " For a layer with other settings: `SessionLayer::builder` with this type.",
    ];
    hygienic! {
        #[allow(clippy::all, clippy::pedantic, clippy::restriction)]
        impl #ident {
            #[doc = #layer]
            #vis fn layer(
                store: impl #private::IntoStorage,
                keys: #krate::Keys,
            ) -> #krate::SessionLayer<Self> {
                #private::layer(store, keys)
            }

            #[doc = #builder]
            #vis fn layer_builder(
                store: impl #private::IntoStorage,
                keys: #krate::Keys,
            ) -> #krate::SessionLayerBuilder<Self> {
                #krate::SessionLayer::builder(store, keys)
            }

            #require_login

            #private::csrf_layers!(#vis fn);
        }
    }
}

pub(super) fn accessors(model: &Model<'_>) -> TokenStream {
    let Model { ident, fields_ident, .. } = model;
    let private = &model.private();
    let tracked = tracked();
    let methods = model
        .fields
        .iter()
        .flat_map(|field| methods(field, private).into_iter().map(|method| method.write(field)));
    hygienic! {
        #[automatically_derived]
        impl ::core::ops::Deref for #fields_ident {
            type Target = #ident;

            #[inline]
            fn deref(&self) -> &#ident {
                #private::get(#tracked)
            }
        }

        #[allow(clippy::all, clippy::pedantic, clippy::restriction)]
        impl #fields_ident {
            #(#methods)*
        }
    }
}

/// One accessor: `fn name signature { body }`.
pub(super) struct Method<'a> {
    pub(super) name: &'a Ident,
    does: String,
    signature: TokenStream,
    pub(super) body: TokenStream,
}

impl Method<'_> {
    /// The doc comment says what the method does, then what the field is.
    pub(super) fn write(self, field: &Field<'_>) -> TokenStream {
        let Self { name, does, signature, body } = self;
        let Field { vis, docs, deprecated, .. } = field;
        let at = field.at();
        let blank = (!docs.is_empty()).then(|| hygienic!(#[doc = ""]));
        quote_spanned! {at=>
            #[doc = #does]
            #blank
            #(#docs)*
            #deprecated
            #[inline]
            #vis fn #name #signature { #body }
        }
    }
}

/// All accessors of a field. What sets it or sets it back says so; whatever else changes it goes
/// through `foo_mut()`, and of a flash field through what would be in that.
pub(super) fn methods<'a>(field: &'a Field<'_>, private: &TokenStream) -> Vec<Method<'a>> {
    let Field { ident, ty, accessors: names, .. } = field;
    let at = field.at();
    let name = ident.unraw();
    let start = start(field, private);
    let (argument, value) = setter(field);
    let Ways { write, set, reset, is_dirty } = ways(field, private);
    let place = match &names.get_mut {
        Some(get_mut) => hygienic!(self.#get_mut()),
        None => write.clone(),
    };
    let take = take(field, private, &reset, &start);
    let method = |name, does, signature, body| Method { name, does, signature, body };
    let nothing = quote_spanned!(at=> (&mut self));

    let mut methods = Vec::with_capacity(7);
    methods.extend(names.get.as_ref().map(|get| {
        let (read_type, read) = getter(field, private);
        let signature = quote_spanned!(at=> (&self) -> #read_type);
        method(get, format!(" Reads `{name}`."), signature, read)
    }));
    if field.is_user {
        let signature =
            quote_spanned!(at=> <__User: #private::SetByLogin>(&mut self, _value: __User));
        methods.push(method(
            &names.set,
            format!(" Does not compile: `{name}` is set by `Session::login`."),
            signature,
            TokenStream::new(),
        ));
    } else {
        methods.push(method(
            &names.set,
            match field.kind {
                Kind::Option(..) => format!(" Sets `{name}` to `Some(value)`."),
                _ => format!(" Sets `{name}`."),
            },
            quote_spanned!(at=> (&mut self, value: #argument)),
            hygienic!(*#set = #value;),
        ));
    }
    methods.extend(names.clear.as_ref().map(|clear| {
        let body = hygienic!(*#place = ::core::option::Option::None;);
        method(clear, format!(" Sets `{name}` to `None`."), nothing.clone(), body)
    }));
    methods.extend(names.push.as_ref().map(|push| {
        let (argument, value) = element(field);
        let signature = quote_spanned!(at=> (&mut self, value: #argument));
        let body = hygienic!(#place.push(#value););
        method(push, format!(" Appends to `{name}`."), signature, body)
    }));
    methods.extend(names.get_mut.as_ref().map(|get_mut| {
        let does = format!(" Lends `{name}` for changes, and counts it as changed.");
        method(get_mut, does, quote_spanned!(at=> (&mut self) -> &mut #ty), write)
    }));
    methods.push(method(
        &names.take,
        match field.flash {
            true => format!(" Takes `{name}` out: nobody else gets it."),
            false => format!(" Takes `{name}` out, and leaves its default."),
        },
        quote_spanned!(at=> (&mut self) -> #ty),
        take,
    ));
    methods.extend(names.reset.as_ref().map(|name_of_reset| {
        let body = hygienic!(*#reset = #start;);
        method(name_of_reset, format!(" Sets `{name}` back to its default."), nothing, body)
    }));
    methods.push(method(
        &names.is_dirty,
        match field.storage {
            Storage::Stored { .. } => {
                format!(" Whether `{name}` has changes that are not saved yet.")
            }
            Storage::Skipped => format!(" Always `false`, as `{name}` is never saved."),
        },
        quote_spanned!(at=> (&self) -> bool),
        is_dirty,
    ));
    methods.retain(|method| field.has_accessor(method.name));
    methods
}

/// The type of a getter, and its body.
fn getter(field: &Field<'_>, private: &TokenStream) -> (TokenStream, TokenStream) {
    let Field { ident, ty, kind, .. } = field;
    let at = field.at();
    let option = quote_spanned!(at=> ::core::option::Option);
    let tracked = tracked();
    let place = hygienic!(#private::get(#tracked).#ident);
    match kind {
        Kind::Scalar => (quote_spanned!(at=> #ty), place),
        Kind::Str => (quote_spanned!(at=> &str), hygienic!(&#place)),
        Kind::Vec(element) => (quote_spanned!(at=> &[#element]), hygienic!(&#place)),
        Kind::Other => (quote_spanned!(at=> &#ty), hygienic!(&#place)),
        Kind::Option(inner, kind) => match **kind {
            Kind::Scalar => (quote_spanned!(at=> #option<#inner>), place),
            Kind::Str => {
                (quote_spanned!(at=> #option<&str>), hygienic!(#option::as_deref(&#place)))
            }
            _ => (quote_spanned!(at=> #option<&#inner>), hygienic!(#option::as_ref(&#place))),
        },
    }
}

/// The type of a setter's argument, and the field's value made of it.
fn setter(field: &Field<'_>) -> (TokenStream, TokenStream) {
    let target = match field.kind {
        Kind::Option(inner, _) => inner,
        _ => field.ty,
    };
    let (argument, value) = if field.converts {
        (
            quote_spanned!(field.at()=> impl ::core::convert::Into<#target>),
            hygienic!(::core::convert::Into::into(value)),
        )
    } else {
        (hygienic!(#target), hygienic!(value))
    };
    match field.kind {
        Kind::Option(..) => (argument, hygienic!(::core::option::Option::Some(#value))),
        _ => (argument, value),
    }
}

/// The type of what is appended to a list, and the element made of it.
fn element(field: &Field<'_>) -> (TokenStream, TokenStream) {
    let Kind::Vec(element) = field.kind else { return (hygienic!(()), hygienic!(value)) };
    match Kind::from_type(element) {
        Kind::Str => (
            quote_spanned!(field.at()=> impl ::core::convert::Into<#element>),
            hygienic!(::core::convert::Into::into(value)),
        ),
        _ => (hygienic!(#element), hygienic!(value)),
    }
}

/// The ways to a field: to change it in place, to give it a value, to give it its default; and whether
/// it has been changed.
struct Ways {
    write: TokenStream,
    set: TokenStream,
    reset: TokenStream,
    is_dirty: TokenStream,
}

fn ways(field: &Field<'_>, private: &TokenStream) -> Ways {
    let (ident, tracked) = (field.ident, tracked());
    match field.storage {
        Storage::Stored { index, .. } => {
            let index = Literal::usize_unsuffixed(index);
            let place = hygienic!(#tracked, #index, |__data| &mut __data.#ident);
            Ways {
                write: hygienic!(#private::field_mut(#place)),
                set: hygienic!(#private::set(#place)),
                reset: hygienic!(#private::reset(#place)),
                is_dirty: hygienic!(#private::is_dirty(#tracked, #index)),
            }
        }
        Storage::Skipped => {
            let place = hygienic!(#tracked, |__data| &mut __data.#ident);
            let write = hygienic!(#private::skipped_mut(#place));
            let (set, reset) = (write.clone(), write.clone());
            Ways { write, set, reset, is_dirty: hygienic!(false) }
        }
    }
}

/// The body of `take_foo()`. That a flash field was taken is noted: two may not take it.
fn take(
    field: &Field<'_>,
    private: &TokenStream,
    place: &TokenStream,
    start: &TokenStream,
) -> TokenStream {
    let (ident, tracked) = (field.ident, tracked());
    match field.storage {
        Storage::Stored { index, .. } if field.flash => {
            let index = Literal::usize_unsuffixed(index);
            let place = hygienic!(#tracked, #index, |__data| &mut __data.#ident);
            hygienic!(#private::take(#place, #start))
        }
        _ => hygienic!(::core::mem::replace(#place, #start)),
    }
}
