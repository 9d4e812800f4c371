//! `impl SessionData`: the table of stored fields, and how to load and encode each of them.

use proc_macro2::{Ident, Literal, Span, TokenStream, TokenTree};
use quote::{format_ident, quote_spanned};
use syn::{Expr, Path, Type, ext::IdentExt, spanned::Spanned};

use super::hygienic;
use crate::model::{Field, Kind, Merge, Model, Start, Storage, With};

pub(super) fn session_data(model: &Model<'_>) -> TokenStream {
    let Model { krate, ident, name, fields_ident, fields, .. } = model;
    let private = &model.private();
    let infos: Vec<_> = fields.iter().filter_map(|field| info(field, private)).collect();
    let words = Literal::usize_unsuffixed(infos.len().div_ceil(64).max(1));
    let checks: &Vec<_> = &fields.iter().map(check).collect();
    let secret_checks = secret_checks(fields, private);
    let loads = fields.iter().map(|field| {
        let (ident, value) = (field.ident, load(field, private));
        hygienic!(#ident: #value)
    });
    let load_arms = fields.iter().filter_map(|field| load_again(field, private));
    let arms = fields.iter().filter_map(encode);
    let probes = fields.iter().filter_map(probe);
    let merge = merge(fields, private);
    let loads_alike = (!fields.iter().all(loads_alike)).then(|| {
        hygienic!(
            const __LOADS_ALIKE: bool = false;
        )
    });
    hygienic! {
        fn __stored<F: #private::FieldValue>() {}
        fn __skipped<F: #private::SkippedValue>() {}

        #[automatically_derived]
        impl #krate::SessionData for #ident {
            type Fields = #fields_ident;
            type Dirty = [u64; #words];

            const FIELDS: &'static [#private::FieldInfo] = &[#(#infos),*];
            const __NAME: &'static str = #name;
            #loads_alike

            fn __load(__reader: &#private::PayloadReader<'_>) -> Self {
                #secret_checks
                #(#checks)*
                Self { #(#loads,)* }
            }

            fn __load_field(&mut self, __field: usize, __reader: &#private::PayloadReader<'_>) {
                #(#checks)*
                match __field {
                    #(#load_arms,)*
                    _ => {}
                }
            }

            fn __encode(
                &self,
                __field: usize,
                __encoder: &mut #private::Encoder<'_>,
            ) -> ::core::result::Result<(), #private::EncodeError> {
                #(#checks)*
                match __field {
                    #(#arms,)*
                    _ => __encoder.nothing(),
                }
            }

            fn __probe(
                __field: usize,
                __probe: #private::Probe,
            ) -> ::core::result::Result<(), #private::EncodeError> {
                #(#checks)*
                match __field {
                    #(#probes,)*
                    _ => ::core::result::Result::Ok(()),
                }
            }

            #merge

            fn __wrap(__tracked: #private::Tracked<Self>) -> Self::Fields {
                #fields_ident::__Tracked(__tracked)
            }

            fn __tracked(__fields: &Self::Fields) -> &#private::Tracked<Self> {
                let #fields_ident::__Tracked(__tracked) = __fields;
                __tracked
            }

            fn __tracked_mut(__fields: &mut Self::Fields) -> &mut #private::Tracked<Self> {
                let #fields_ident::__Tracked(__tracked) = __fields;
                __tracked
            }
        }
    }
}

fn info(field: &Field<'_>, private: &TokenStream) -> Option<TokenStream> {
    let Storage::Stored { key, aliases, version, codec, merge, ttl, secret, .. } = &field.storage
    else {
        return None;
    };
    let codec = codec.map(|codec| {
        let at = Span::mixed_site().located_at(codec.span());
        let codec = format_ident!("{}", codec, span = at);
        let private = respanned(private.clone(), at);
        quote_spanned!(at=> .codec(#private::codecs::#codec::<()>()))
    });
    let aliases = (!aliases.is_empty()).then(|| hygienic!(.aliases(&[#(#aliases),*])));
    let version = version.map(Literal::u32_unsuffixed).map(|version| hygienic!(.version(#version)));
    let merges = merge.as_ref().map(|_| hygienic!(.merges()));
    let flash = field.flash.then(|| hygienic!(.flash()));
    let ttl = ttl.map(Literal::u64_unsuffixed).map(|millis| hygienic!(.ttl(#millis)));
    let secret = secret.then(|| hygienic!(.secret()));
    let user = field.is_user.then(|| hygienic!(.user()));
    let info = hygienic!(#private::FieldInfo::new(#key) #aliases #version #merges);
    Some(hygienic!(#info #flash #ttl #secret #user #codec))
}

/// Whether the field is the same whenever it is loaded from the same bytes: it is stored, and its
/// default is as it stands there.
fn loads_alike(field: &Field<'_>) -> bool {
    let is_fixed = match field.start {
        Start::Default | Start::Text(_) => true,
        Start::Value(value) => is_fixed(value),
    };
    is_fixed && matches!(field.storage, Storage::Stored { .. })
}

/// A literal, or the path of a constant.
fn is_fixed(value: &Expr) -> bool {
    match value {
        Expr::Lit(_) | Expr::Path(_) => true,
        Expr::Unary(unary) => is_fixed(&unary.expr),
        _ => false,
    }
}

/// Asks of the field's type, at its place, what a field must be able to do. Both bodies ask in the
/// same words, before they do anything else with the type: errors that are equal are shown once,
/// and hide those that follow from them.
fn check(field: &Field<'_>) -> TokenStream {
    let ty = field.ty;
    match field.storage {
        Storage::Stored { .. } if field.with.is_none() => {
            quote_spanned!(at(ty)=> __stored::<#ty>();)
        }
        Storage::Stored { .. } => quote_spanned!(at(ty)=> __skipped::<#ty>();),
        Storage::Skipped => quote_spanned!(at(ty)=> __skipped::<#ty>();),
    }
}

/// Asks of the types of secret fields what a secret must be able to do; nothing if there are none.
fn secret_checks(fields: &[Field<'_>], private: &TokenStream) -> Option<TokenStream> {
    let secret = |field: &&Field<'_>| matches!(field.storage, Storage::Stored { secret: true, .. });
    let checks: Vec<_> = fields
        .iter()
        .filter(secret)
        .map(|Field { ty, .. }| quote_spanned!(at(ty)=> __secret::<#ty>();))
        .collect();
    (!checks.is_empty()).then(|| {
        hygienic! {
            fn __secret<F: #private::SecretField>() {}
            #(#checks)*
        }
    })
}

fn load(field: &Field<'_>, private: &TokenStream) -> TokenStream {
    let ty = field.ty;
    let start = start(field, private);
    match field.storage {
        Storage::Stored { index, .. } => {
            let index = Literal::usize_unsuffixed(index);
            match form(field) {
                None => quote_spanned!(at(ty)=> __reader.field::<#ty>(#index, || #start)),
                Some(form) => hygienic!(__reader.field_as::<#form>(#index, || #start)),
            }
        }
        Storage::Skipped => start,
    }
}

fn load_again(field: &Field<'_>, private: &TokenStream) -> Option<TokenStream> {
    let Field { ident, storage: Storage::Stored { index, .. }, .. } = field else { return None };
    let (index, value) = (Literal::usize_unsuffixed(*index), load(field, private));
    Some(hygienic!(#index => self.#ident = #value))
}

fn encode(field: &Field<'_>) -> Option<TokenStream> {
    let Field { ident, ty, storage: Storage::Stored { index, .. }, .. } = field else {
        return None;
    };
    let index = Literal::usize_unsuffixed(*index);
    Some(match form(field) {
        None => quote_spanned!(at(ty)=> #index => __encoder.put::<#ty>(&self.#ident)),
        Some(form) => hygienic!(#index => __encoder.put_as::<#form>(&self.#ident)),
    })
}

fn probe(field: &Field<'_>) -> Option<TokenStream> {
    let Field { ty, storage: Storage::Stored { index, .. }, .. } = field else {
        return None;
    };
    let index = Literal::usize_unsuffixed(*index);
    Some(match form(field) {
        None => quote_spanned!(at(ty)=> #index => __probe.of::<#ty>()),
        Some(form) => hygienic!(#index => __probe.of_as::<#form>()),
    })
}

/// The merges of the fields that have one; nothing if none has.
fn merge(fields: &[Field<'_>], private: &TokenStream) -> Option<TokenStream> {
    let arms: Vec<_> = fields
        .iter()
        .filter_map(|field| {
            let Field { ty, storage: Storage::Stored { index, merge, .. }, .. } = field else {
                return None;
            };
            let index = Literal::usize_unsuffixed(*index);
            let start = start(field, private);
            let by_path = |path: &Path| {
                quote_spanned! { Span::mixed_site().located_at(path.span())=>
                    |__base, __theirs, __ours| #path(__base, __theirs, __ours)
                }
            };
            let merged = match (merge.as_ref()?, form(field)) {
                (merge, Some(form)) => {
                    let merge = match merge {
                        Merge::Add => quote_spanned!(at(ty)=> #private::add::<#ty>),
                        Merge::Union => quote_spanned!(at(ty)=> #private::union::<#ty>),
                        Merge::By(path) => by_path(path),
                    };
                    hygienic!(by_as::<#form>(|| #start, #merge))
                }
                (Merge::Add, None) => quote_spanned!(at(ty)=> by_adding::<#ty>(|| #start)),
                (Merge::Union, None) => quote_spanned!(at(ty)=> by_uniting::<#ty>(|| #start)),
                // Called, and not passed on: a function of `&str` will do for a `String`.
                (Merge::By(path), None) => {
                    let merge = by_path(path);
                    quote_spanned!(at(ty)=> by::<#ty>(|| #start, #merge))
                }
            };
            Some(hygienic!(#index => __merge.#merged))
        })
        .collect();
    (!arms.is_empty()).then(|| {
        hygienic! {
            fn __merge(__field: usize, __merge: #private::Merge<'_>) -> #private::Merged {
                match __field {
                    #(#arms,)*
                    _ => __merge.none(),
                }
            }
        }
    })
}

/// `impl SessionUser`, if a field says whose session it is.
pub(super) fn session_user(model: &Model<'_>) -> Option<TokenStream> {
    let Model { krate, ident, .. } = model;
    let private = &model.private();
    let user = model.user.as_ref()?;
    let field = &model.fields[user.field];
    let Storage::Stored { index, .. } = field.storage else { return None };
    let index = Literal::usize_unsuffixed(index);
    let (name, ty) = (field.ident, user.ty);
    let option = hygienic!(::core::option::Option);
    let user_name = match user.name {
        None => quote_spanned!(at(ty)=> #private::UserName::user_name(__user)),
        Some(path) => {
            let named = quote_spanned! {
                Span::mixed_site().located_at(path.span())=> #path(__user)
            };
            hygienic!(#private::name_of(&#named))
        }
    };
    Some(hygienic! {
        #[automatically_derived]
        impl #krate::SessionUser for #ident {
            type User = #ty;

            const __FIELD: usize = #index;

            fn __user(&self) -> #option<&Self::User> {
                #option::as_ref(&self.#name)
            }

            fn __begin_as(&mut self, __user: Self::User) {
                self.#name = #option::Some(__user);
            }

            fn __name(__user: &Self::User) -> #private::String {
                #user_name
            }
        }
    })
}

/// The name of the form in which a field is stored, if it is not the type's own.
fn form(field: &Field<'_>) -> Option<Ident> {
    let is_stored = matches!(field.storage, Storage::Stored { .. });
    let name = || format_ident!("__Form_{}", field.ident.unraw(), span = Span::mixed_site());
    (is_stored && field.with.is_some()).then(name)
}

/// The forms of the fields that are stored with functions of their own.
pub(super) fn forms(model: &Model<'_>) -> TokenStream {
    let private = &model.private();
    let forms = model.fields.iter().filter_map(|field| {
        let (name, ty) = (form(field)?, field.ty);
        let With { serialize, deserialize } = field.with.as_ref()?;
        let serialize = match serialize {
            None => quote_spanned! {at(ty)=>
                #private::serialize::<#ty, __S>(__value, __serializer)
            },
            Some(path) => quote_spanned! { Span::mixed_site().located_at(path.span())=>
                #path(__value, __serializer)
            },
        };
        let deserialize = match deserialize {
            None => quote_spanned! {at(ty)=>
                #private::deserialize::<#ty, __D>(__deserializer)
            },
            Some(path) => quote_spanned! { Span::mixed_site().located_at(path.span())=>
                #path(__deserializer)
            },
        };
        Some(hygienic! {
            struct #name;

            #[automatically_derived]
            impl #private::Form for #name {
                type Value = #ty;

                fn serialize<__S: #private::Serializer>(
                    __value: &#ty,
                    __serializer: __S,
                ) -> ::core::result::Result<__S::Ok, __S::Error> {
                    #serialize
                }

                fn deserialize<'__de, __D: #private::Deserializer<'__de>>(
                    __deserializer: __D,
                ) -> ::core::result::Result<#ty, __D::Error> {
                    #deserialize
                }
            }
        })
    });
    forms.collect()
}

/// The functions that give the fields with a `default` of their own its value.
pub(super) fn defaults(model: &Model<'_>) -> TokenStream {
    let private = &model.private();
    let defaults = model.fields.iter().filter_map(|field| {
        let value = match (&field.start, &field.kind) {
            (Start::Default, _) => return None,
            (Start::Value(value), _) => hygienic!(#value),
            (Start::Text(text), Kind::Option(..)) => hygienic! {
                ::core::option::Option::Some(::core::convert::Into::into(#text))
            },
            (Start::Text(text), _) => hygienic!(::core::convert::Into::into(#text)),
        };
        let (call, ty) = (start(field, private), field.ty);
        Some(hygienic!(fn #call -> #ty { #value }))
    });
    defaults.collect()
}

/// The call that gives the value a field starts at.
pub(super) fn start(field: &Field<'_>, private: &TokenStream) -> TokenStream {
    let Field { ident, ty, .. } = field;
    match field.start {
        Start::Default => quote_spanned!(at(ty)=> #private::default_of::<#ty>()),
        Start::Text(_) | Start::Value(_) => {
            let name = format_ident!("__default_{}", ident.unraw(), span = Span::mixed_site());
            hygienic!(#name())
        }
    }
}

/// The same with another place, where an error is to be shown.
fn respanned(tokens: TokenStream, at: Span) -> TokenStream {
    let respanned = |mut token: TokenTree| {
        token.set_span(at);
        token
    };
    tokens.into_iter().map(respanned).collect()
}

/// The place of a type, with the hygiene of generated code.
fn at(ty: &Type) -> Span {
    Span::mixed_site().located_at(ty.span())
}
