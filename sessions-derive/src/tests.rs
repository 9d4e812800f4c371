use std::{env, fs, path::PathBuf};

use quote::quote;

use super::*;
use crate::names::{Case, list, nearest};

fn expanded(input: TokenStream) -> String {
    let tokens = derive(input).expect("a struct");
    prettyplease::unparse(&syn::parse2(tokens).expect("items"))
}

/// Compares with what a file in `src` holds; `UPDATE_SNAPSHOTS=1` writes it anew.
fn assert_snapshot(file: &str, expected: impl FnOnce(&str) -> String) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src").join(file);
    let present = fs::read_to_string(&path).unwrap_or_default();
    let expected = expected(&present);
    if env::var_os("UPDATE_SNAPSHOTS").is_some() {
        fs::write(&path, expected).expect("a writable source directory");
    } else {
        assert!(present == expected, "run with UPDATE_SNAPSHOTS=1 to get {file} as\n{expected}");
    }
}

/// The comment in `expand/mod.rs`, without what is beside the point there.
#[test]
fn expansion_of_two_fields() {
    const COMMENT: &str = "//     ";
    let expansion = expanded(quote! {
        struct Visitor {
            name: Option<String>,
            #[session(default = "light")]
            theme: String,
        }
    });
    let is_aside = |line: &&str| {
        ["///", "#[inline]", "#[allow("].iter().any(|start| line.trim_start().starts_with(start))
    };
    assert_snapshot("expand/mod.rs", |source| {
        let is_comment = |line: &&str| line.starts_with(COMMENT);
        let before = source.lines().take_while(|line| !is_comment(line));
        let after = source.lines().skip_while(|line| !is_comment(line)).skip_while(is_comment);
        let mut is_doc = false;
        let comment = expansion.lines().filter(|line| !is_aside(line)).filter(|line| {
            let begins = line.trim_start().starts_with("/**");
            let was_doc = is_doc || begins;
            is_doc = was_doc && !line.ends_with("*/");
            !was_doc
        });
        let comment = comment.map(|line| format!("{COMMENT}{line}"));
        let lines = before.map(str::to_owned).chain(comment).chain(after.map(str::to_owned));
        lines.map(|line| line + "\n").collect()
    });
}

#[test]
fn expansion_with_every_attribute() {
    let expansion = expanded(quote! {
        /// A visitor of the shop.
        #[session(crate = crate::runtime, name = "customer", rename_all = "camelCase")]
        pub(crate) struct Visitor {
            /// When the visitor came,
            /// in days.
            #[session(alias = "since", alias = "from", version = 3, merge = crate::earlier)]
            pub(crate) first_day: Option<u32>,
            #[session(into)]
            home: Url,
            #[session(default = Self::THEME)]
            theme: Theme,
            #[session(default = "guest", rename = "kind")]
            pub r#type: Option<Name>,
            #[session(default = 7, merge = add)]
            visits: u64,
            #[session(user = Person::id)]
            owner: Option<Person>,
            #[session(merge = union)]
            seen: Vec<u32>,
            #[session(flash, merge = union)]
            messages: Vec<String>,
            #[session(ttl = "1h30m")]
            code: Option<u32>,
            #[session(secret)]
            token: Option<Secret<String>>,
            #[deprecated = "unused"]
            #[session(skip, default = vec![Self::default()])]
            others: Vec<Self>,
        }
    });
    assert_snapshot("snapshots/every_attribute.rs", |_| expansion);
}

/// The errors, and beside them the same types and methods as without.
#[test]
fn expansion_of_a_wrong_struct() {
    let expansion = expanded(quote! {
        struct Visitor<T> {
            name: T,
            #[session(defualt = 3)]
            visits: u32,
            set_visits: bool,
        }
    });
    assert_snapshot("snapshots/wrong_struct.rs", |_| expansion);
}

/// Every field of a struct has its own bit.
#[test]
fn a_word_of_dirty_bits_for_each_64_fields() {
    for (count, words) in [(0, 1), (1, 1), (64, 1), (65, 2), (128, 2), (129, 3)] {
        let names = (0..count).map(|number| quote::format_ident!("field{number}"));
        let expansion = expanded(quote!(struct Wide { #(#names: u8,)* #[session(skip)] last: u8 }));
        assert!(expansion.contains(&format!("type Dirty = [u64; {words}];")), "{count} fields");
    }
}

/// The messages of all errors in a struct.
fn messages(input: TokenStream) -> Vec<String> {
    let file: syn::File = syn::parse2(derive(input).expect("a struct")).expect("items");
    let messages = file.items.into_iter().filter_map(|item| match item {
        syn::Item::Macro(item) => Some(item.mac.parse_body::<syn::LitStr>().ok()?.value()),
        _ => None,
    });
    messages.collect()
}

#[track_caller]
fn assert_messages<const N: usize>(input: TokenStream, expected: [&str; N]) {
    assert_eq!(messages(input), expected);
}

#[test]
fn all_errors_come_at_once() {
    assert_messages(
        quote! {
            #[session(rename_all = "camelcase", skip)]
            struct Visitor<'a> {
                #[session(renam = "x", version = "2", into)]
                a: String,
                #[session(rename = "a")]
                b: u8,
                set_b: &'a str,
            }
        },
        [
            "`skip` belongs on a field, not on the struct; write `#[session(skip)]` there",
            "unknown attribute `renam`; did you mean `rename`? On a field there are `alias`, `codec`, \
             `default`, `flash`, `into`, `merge`, `rename`, `secret`, `skip`, `ttl`, \
             `user` and `version`",
            "`version` takes a whole number below 2³²; write `version = 2`",
            "a session outlives every request and cannot borrow; own the data, as `String` \
             instead of `&str`",
            "this setter takes `impl Into<String>` already; remove `into`",
            "a session field has to own its value; write `String` instead of `&str`, or keep the \
             field out of the store with `#[session(skip)]`",
            "unknown case `camelcase`; did you mean `camelCase`? There are `lowercase`, \
             `UPPERCASE`, `PascalCase`, `camelCase`, `snake_case`, `SCREAMING_SNAKE_CASE`, \
             `kebab-case` and `SCREAMING-KEBAB-CASE`",
            "field `b` has the key `a`, and so has field `a`; give one of them another with \
             `#[session(rename = \"…\")]`",
            "fields `b` and `set_b` would both have an accessor `set_b()`; give field `set_b` \
             another name, and keep its key with `#[session(rename = \"set_b\")]`",
        ],
    );
}

#[test]
fn every_accessor_can_collide() {
    let b_after_a = [
        (quote!(a), quote!(set_a)),
        (quote!(a), quote!(clear_a)),
        (quote!(a), quote!(a_mut)),
        (quote!(a), quote!(take_a)),
        (quote!(a), quote!(reset_a)),
        (quote!(a), quote!(a_is_dirty)),
        (quote!(set_a), quote!(a)),
        (quote!(r#type), quote!(set_type)),
    ];
    for (a, b) in b_after_a {
        let [message] = &messages(quote!(struct S { #a: Option<u8>, #b: u8 }))[..] else {
            panic!("one error for {a} and {b}");
        };
        assert!(message.contains(&format!("fields `{a}` and `{b}` would both")), "{message}");
    }
    let of_a_list = messages(quote! {
        struct S {
            a: Vec<u8>,
            push_a: u8,
        }
    });
    assert!(of_a_list[0].contains("an accessor `push_a()`"), "{of_a_list:?}");
    assert_messages(
        quote!(
            struct S {
                a: u8,
                clear_a: u8,
            }
        ),
        [],
    );
}

#[test]
fn cases_are_those_of_serde() {
    let spelt = |field| Case::ALL.map(|(_, case)| case.apply(field));
    assert_eq!(
        spelt("last_seen2"),
        [
            "last_seen2",
            "LAST_SEEN2",
            "LastSeen2",
            "lastSeen2",
            "last_seen2",
            "LAST_SEEN2",
            "last-seen2",
            "LAST-SEEN2",
        ],
    );
    assert_eq!(Case::Camel.apply("_a__b"), "aB");
    assert_eq!(Case::Camel.apply("État"), "État");
    assert_eq!(Case::Pascal.apply("__"), "");
}

#[test]
fn nearest_word_is_near() {
    let words = ["alias", "default", "flash", "into", "rename", "skip", "version"];
    for (wrong, right) in [
        ("renam", Some("rename")),
        ("defualt", Some("default")),
        ("aliases", Some("alias")),
        ("skpi", None),
        ("skips", Some("skip")),
        ("max_age", None),
        ("", None),
    ] {
        assert_eq!(nearest(wrong, words), right, "{wrong}");
    }
}

#[test]
fn lists_read_as_sentences() {
    assert_eq!(list(["a"]), "`a`");
    assert_eq!(list(["a", "b"]), "`a` and `b`");
    assert_eq!(list(["a", "b", "c"]), "`a`, `b` and `c`");
}

#[test]
#[should_panic = "the errors of a derive were forgotten"]
fn errors_cannot_be_forgotten() {
    Errors::default().at(quote!(field), "wrong");
}
