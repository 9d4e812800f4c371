//! What stands beside the errors: the same types and methods as without them, so that one mistake
//! is not followed by an error at every use of the session.

use std::collections::HashSet;

use proc_macro2::TokenStream;
use syn::{Generics, ext::IdentExt, parse_quote};

use super::{fields, hygienic};
use crate::model::Model;

pub(crate) fn stub(model: &Model<'_>, generics: &Generics) -> TokenStream {
    let Model { krate, vis, ident, fields_ident, .. } = model;
    let private = &model.private();
    let (impl_generics, type_generics, where_clause) = generics.split_for_impl();
    let doc = fields::doc(model);
    let body = hygienic!(::core::unreachable!());
    let mut taken = HashSet::new();
    let methods = model.fields.iter().flat_map(|field| {
        fields::methods(field, private).into_iter().map(move |method| (field, method))
    });
    let methods = methods.filter(|(_, method)| taken.insert(method.name.unraw()));
    let methods = methods.map(|(field, mut method)| {
        method.body = body.clone();
        method.write(field)
    });
    let mut bounds = where_clause.cloned();
    if !generics.params.is_empty() {
        let marker = hygienic!(::core::marker);
        let bound = parse_quote!(Self: #marker::Send + #marker::Sync + 'static);
        bounds.get_or_insert_with(|| parse_quote!(where)).predicates.push(bound);
    }
    let session_user = model.user.as_ref().map(|user| {
        let ty = user.ty;
        let option = hygienic!(::core::option::Option);
        hygienic! {
            #[automatically_derived]
            #[allow(deprecated, unused)]
            impl #impl_generics #krate::SessionUser for #ident #type_generics #bounds {
                type User = #ty;
                const __FIELD: usize = 0;
                fn __user(&self) -> #option<&Self::User> { #body }
                fn __begin_as(&mut self, __user: Self::User) { #body }
                fn __name(__user: &Self::User) -> #private::String { #body }
            }
        }
    });
    // They would be in the way of what is generic, which is refused.
    let constructors = generics.params.is_empty().then(|| fields::constructors(model));
    hygienic! {
        #constructors

        #[doc = #doc]
        #[allow(deprecated)]
        #vis enum #fields_ident #generics #where_clause {
            #[doc(hidden)]
            __Tracked(::core::marker::PhantomData<fn() -> #ident #type_generics>),
        }

        #[automatically_derived]
        #[allow(deprecated)]
        impl #impl_generics ::core::ops::Deref for #fields_ident #type_generics #where_clause {
            type Target = #ident #type_generics;
            fn deref(&self) -> &Self::Target { #body }
        }

        #[allow(deprecated, unused)]
        impl #impl_generics #fields_ident #type_generics #where_clause {
            #(#methods)*
        }

        #[automatically_derived]
        #[allow(deprecated, unused)]
        impl #impl_generics #krate::SessionData for #ident #type_generics #bounds {
            type Fields = #fields_ident #type_generics;
            type Dirty = [u64; 1];
            const FIELDS: &'static [#private::FieldInfo] = &[];
            const __NAME: &'static str = "";
            fn __load(__reader: &#private::PayloadReader<'_>) -> Self { #body }
            fn __load_field(&mut self, __field: usize, __reader: &#private::PayloadReader<'_>) { #body }
            fn __encode(
                &self,
                __field: usize,
                __encoder: &mut #private::Encoder<'_>,
            ) -> ::core::result::Result<(), #private::EncodeError> { #body }
            fn __wrap(__tracked: #private::Tracked<Self>) -> Self::Fields { #body }
            fn __tracked(__fields: &Self::Fields) -> &#private::Tracked<Self> { #body }
            fn __tracked_mut(__fields: &mut Self::Fields) -> &mut #private::Tracked<Self> { #body }
        }

        #session_user
    }
}
