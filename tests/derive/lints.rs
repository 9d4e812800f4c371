//! The generated code under strict lints, without a prelude, and among types with names of `std`.
//! For `missing_docs` see `ui/lints`, as tests have no public items.

use sessions::Session;

use crate::in_session;

mod strict {
    #![deny(
        warnings,
        missing_docs,
        unsafe_code,
        unreachable_pub,
        unused_qualifications,
        unused_lifetimes,
        single_use_lifetimes,
        elided_lifetimes_in_paths,
        explicit_outlives_requirements,
        missing_debug_implementations,
        let_underscore_drop,
        trivial_casts,
        keyword_idents,
        clippy::all,
        clippy::pedantic
    )]

    /// A visitor; nothing of it is used but `visits`.
    #[derive(sessions::Session)]
    pub(super) struct Visitor {
        pub(super) visits: u32,
        /// How many there are.
        pub len: usize,
        pub(crate) into_list: Option<Vec<String>>,
        from_text: Option<String>,
        is_new: bool,
        next: Option<Box<u8>>,
        _unused: (u8, String),
        #[session(skip, default = vec!["a".to_owned()])]
        scratch: Vec<String>,
        #[session(default = if true { 1 } else { 2 })]
        #[deprecated = "not counted any more"]
        counted: i64,
    }
}

#[tokio::test]
async fn strict_lints_find_nothing() {
    in_session(async |session: Session<strict::Visitor>| {
        let mut s = session.write().await;
        s.set_visits(1);
        assert_eq!(s.visits, 1);
    })
    .await;
}

mod bare {
    #![no_implicit_prelude]

    use ::std::{option::Option, string::String, vec::Vec};

    #[derive(::sessions::Session)]
    pub struct Visitor {
        pub name: Option<String>,
        #[session(default = "light")]
        pub theme: String,
        #[session(default = Option::Some(1))]
        pub maybe: Option<u8>,
        pub items: Vec<Option<String>>,
        pub others: Option<Vec<u8>>,
        #[session(skip)]
        pub scratch: ::std::sync::Arc<u8>,
    }
}

#[tokio::test]
async fn no_prelude_is_needed() {
    in_session(async |session: Session<bare::Visitor>| {
        let mut s = session.write().await;
        s.set_name("Ada");
        s.set_items([None]);
        s.set_others([1]);
        assert_eq!((s.name(), s.theme(), s.maybe()), (Some("Ada"), "light", Some(1)));
    })
    .await;
}

mod shadowed {
    #![allow(dead_code, non_camel_case_types)]

    use serde::{Deserialize, Serialize};

    pub struct Vec;
    pub struct Box;
    pub struct Result;
    pub struct Some;
    pub struct None;
    pub struct Ok;
    pub struct Err;
    pub struct Session;
    pub struct SessionData;
    pub struct Tracked;
    pub trait Into {}
    pub trait From {}
    pub trait Default {}
    pub trait Deref {}
    pub trait Send {}
    pub trait Sync {}
    pub trait Sized {}
    pub trait FnOnce {}
    pub mod core {}
    pub mod std {}
    pub mod sessions {}
    pub fn drop() {}

    /// Said to be a type of this module, which its bare name would not.
    #[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
    pub struct String(pub u8);
    #[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
    pub struct Option<T>(pub T);

    #[derive(::sessions::Session)]
    pub struct Visitor {
        pub name: ::std::option::Option<::std::string::String>,
        #[session(default = "light")]
        pub theme: ::std::string::String,
        pub items: ::std::vec::Vec<u8>,
        #[session(default = String(1))]
        pub text: self::String,
        #[session(default = Option(2))]
        pub maybe: self::Option<u8>,
        #[session(skip)]
        pub scratch: bool,
    }
}

#[tokio::test]
async fn names_of_std_may_be_taken() {
    in_session(async |session: Session<shadowed::Visitor>| {
        let mut s = session.write().await;
        s.set_name("Ada");
        s.set_theme("dark");
        s.set_items([1]);
        s.set_text(shadowed::String(3));
        assert_eq!((s.name(), s.theme(), s.items()), (Some("Ada"), "dark", &[1][..]));
        assert_eq!((s.text(), s.maybe()), (&shadowed::String(3), &shadowed::Option(2)));
    })
    .await;
}
