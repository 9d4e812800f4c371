//! Writes the generated code. It only forwards: what there is to do, the runtime does.
//!
//! ```text
//! #[derive(Session)]
//! struct Visitor {
//!     name: Option<String>,
//!     #[session(default = "light")]
//!     theme: String,
//! }
//! ```
//!
//! becomes, without doc comments and `#[inline]`:

//     enum VisitorFields {
//         #[doc(hidden)]
//         __Tracked(::sessions::__private::Tracked<Visitor>),
//     }
//     const _: () = {
//         fn __default_theme() -> String {
//             ::core::convert::Into::into("light")
//         }
//         fn __stored<F: ::sessions::__private::FieldValue>() {}
//         fn __skipped<F: ::sessions::__private::SkippedValue>() {}
//         #[automatically_derived]
//         impl ::sessions::SessionData for Visitor {
//             type Fields = VisitorFields;
//             type Dirty = [u64; 1];
//             const FIELDS: &'static [::sessions::__private::FieldInfo] = &[
//                 ::sessions::__private::FieldInfo::new("name"),
//                 ::sessions::__private::FieldInfo::new("theme"),
//             ];
//             const __NAME: &'static str = "Visitor";
//             fn __load(__reader: &::sessions::__private::PayloadReader<'_>) -> Self {
//                 __stored::<Option<String>>();
//                 __stored::<String>();
//                 Self {
//                     name: __reader
//                         .field::<
//                             Option<String>,
//                         >(0, || ::sessions::__private::default_of::<Option<String>>()),
//                     theme: __reader.field::<String>(1, || __default_theme()),
//                 }
//             }
//             fn __load_field(
//                 &mut self,
//                 __field: usize,
//                 __reader: &::sessions::__private::PayloadReader<'_>,
//             ) {
//                 __stored::<Option<String>>();
//                 __stored::<String>();
//                 match __field {
//                     0 => {
//                         self.name = __reader
//                             .field::<
//                                 Option<String>,
//                             >(0, || ::sessions::__private::default_of::<Option<String>>());
//                     }
//                     1 => self.theme = __reader.field::<String>(1, || __default_theme()),
//                     _ => {}
//                 }
//             }
//             fn __encode(
//                 &self,
//                 __field: usize,
//                 __encoder: &mut ::sessions::__private::Encoder<'_>,
//             ) -> ::core::result::Result<(), ::sessions::__private::EncodeError> {
//                 __stored::<Option<String>>();
//                 __stored::<String>();
//                 match __field {
//                     0 => __encoder.put::<Option<String>>(&self.name),
//                     1 => __encoder.put::<String>(&self.theme),
//                     _ => __encoder.nothing(),
//                 }
//             }
//             fn __probe(
//                 __field: usize,
//                 __probe: ::sessions::__private::Probe,
//             ) -> ::core::result::Result<(), ::sessions::__private::EncodeError> {
//                 __stored::<Option<String>>();
//                 __stored::<String>();
//                 match __field {
//                     0 => __probe.of::<Option<String>>(),
//                     1 => __probe.of::<String>(),
//                     _ => ::core::result::Result::Ok(()),
//                 }
//             }
//             fn __wrap(__tracked: ::sessions::__private::Tracked<Self>) -> Self::Fields {
//                 VisitorFields::__Tracked(__tracked)
//             }
//             fn __tracked(__fields: &Self::Fields) -> &::sessions::__private::Tracked<Self> {
//                 let VisitorFields::__Tracked(__tracked) = __fields;
//                 __tracked
//             }
//             fn __tracked_mut(
//                 __fields: &mut Self::Fields,
//             ) -> &mut ::sessions::__private::Tracked<Self> {
//                 let VisitorFields::__Tracked(__tracked) = __fields;
//                 __tracked
//             }
//         }
//         impl Visitor {
//             fn layer(
//                 store: impl ::sessions::__private::IntoStorage,
//                 keys: ::sessions::Keys,
//             ) -> ::sessions::SessionLayer<Self> {
//                 ::sessions::__private::layer(store, keys)
//             }
//             fn layer_builder(
//                 store: impl ::sessions::__private::IntoStorage,
//                 keys: ::sessions::Keys,
//             ) -> ::sessions::SessionLayerBuilder<Self> {
//                 ::sessions::SessionLayer::builder(store, keys)
//             }
//             ::sessions::__private::csrf_layers!(fn);
//         }
//         #[automatically_derived]
//         impl ::core::ops::Deref for VisitorFields {
//             type Target = Visitor;
//             fn deref(&self) -> &Visitor {
//                 ::sessions::__private::get({
//                     let Self::__Tracked(__tracked) = self;
//                     __tracked
//                 })
//             }
//         }
//         impl VisitorFields {
//             fn name(&self) -> ::core::option::Option<&str> {
//                 ::core::option::Option::as_deref(
//                     &::sessions::__private::get({
//                             let Self::__Tracked(__tracked) = self;
//                             __tracked
//                         })
//                         .name,
//                 )
//             }
//             fn set_name(&mut self, value: impl ::core::convert::Into<String>) {
//                 *::sessions::__private::set(
//                     {
//                         let Self::__Tracked(__tracked) = self;
//                         __tracked
//                     },
//                     0,
//                     |__data| &mut __data.name,
//                 ) = ::core::option::Option::Some(::core::convert::Into::into(value));
//             }
//             fn clear_name(&mut self) {
//                 *self.name_mut() = ::core::option::Option::None;
//             }
//             fn name_mut(&mut self) -> &mut Option<String> {
//                 ::sessions::__private::field_mut(
//                     {
//                         let Self::__Tracked(__tracked) = self;
//                         __tracked
//                     },
//                     0,
//                     |__data| &mut __data.name,
//                 )
//             }
//             fn take_name(&mut self) -> Option<String> {
//                 ::core::mem::replace(
//                     ::sessions::__private::reset(
//                         {
//                             let Self::__Tracked(__tracked) = self;
//                             __tracked
//                         },
//                         0,
//                         |__data| &mut __data.name,
//                     ),
//                     ::sessions::__private::default_of::<Option<String>>(),
//                 )
//             }
//             fn reset_name(&mut self) {
//                 *::sessions::__private::reset(
//                     {
//                         let Self::__Tracked(__tracked) = self;
//                         __tracked
//                     },
//                     0,
//                     |__data| &mut __data.name,
//                 ) = ::sessions::__private::default_of::<Option<String>>();
//             }
//             fn name_is_dirty(&self) -> bool {
//                 ::sessions::__private::is_dirty(
//                     {
//                         let Self::__Tracked(__tracked) = self;
//                         __tracked
//                     },
//                     0,
//                 )
//             }
//             fn theme(&self) -> &str {
//                 &::sessions::__private::get({
//                         let Self::__Tracked(__tracked) = self;
//                         __tracked
//                     })
//                     .theme
//             }
//             fn set_theme(&mut self, value: impl ::core::convert::Into<String>) {
//                 *::sessions::__private::set(
//                     {
//                         let Self::__Tracked(__tracked) = self;
//                         __tracked
//                     },
//                     1,
//                     |__data| &mut __data.theme,
//                 ) = ::core::convert::Into::into(value);
//             }
//             fn theme_mut(&mut self) -> &mut String {
//                 ::sessions::__private::field_mut(
//                     {
//                         let Self::__Tracked(__tracked) = self;
//                         __tracked
//                     },
//                     1,
//                     |__data| &mut __data.theme,
//                 )
//             }
//             fn take_theme(&mut self) -> String {
//                 ::core::mem::replace(
//                     ::sessions::__private::reset(
//                         {
//                             let Self::__Tracked(__tracked) = self;
//                             __tracked
//                         },
//                         1,
//                         |__data| &mut __data.theme,
//                     ),
//                     __default_theme(),
//                 )
//             }
//             fn reset_theme(&mut self) {
//                 *::sessions::__private::reset(
//                     {
//                         let Self::__Tracked(__tracked) = self;
//                         __tracked
//                     },
//                     1,
//                     |__data| &mut __data.theme,
//                 ) = __default_theme();
//             }
//             fn theme_is_dirty(&self) -> bool {
//                 ::sessions::__private::is_dirty(
//                     {
//                         let Self::__Tracked(__tracked) = self;
//                         __tracked
//                     },
//                     1,
//                 )
//             }
//         }
//     };

mod data;
mod fields;
mod stub;

use proc_macro2::TokenStream;

pub(crate) use self::stub::stub;
use crate::model::Model;

/// `quote!` whose local names a user's expression cannot see.
macro_rules! hygienic {
    ($($tokens:tt)*) => {
        ::quote::quote_spanned! { ::proc_macro2::Span::mixed_site()=> $($tokens)* }
    };
}
use hygienic;

pub(crate) fn expand(model: &Model<'_>) -> TokenStream {
    let structure = fields::structure(model);
    let defaults = data::defaults(model);
    let forms = data::forms(model);
    let session_data = data::session_data(model);
    let constructors = fields::constructors(model);
    let accessors = fields::accessors(model);
    let session_user = data::session_user(model);
    hygienic! {
        #structure

        #[allow(
            dead_code, deprecated, non_camel_case_types, non_snake_case, unreachable_pub
        )]
        const _: () = {
            #defaults
            #forms
            #session_data
            #constructors
            #accessors
            #session_user
        };
    }
}
