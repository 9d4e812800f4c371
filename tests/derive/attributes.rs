//! One test for each attribute, and each of them through the store where it matters there.

use serde::{Deserialize, Serialize};
use sessions::Session;

use crate::{Browser, in_session};

mod default {
    use super::*;

    #[derive(Debug, Default, Deserialize, PartialEq, Serialize)]
    struct Name(String);

    impl From<&str> for Name {
        fn from(name: &str) -> Self {
            Self(name.to_owned())
        }
    }

    const LIMIT: u32 = 10;

    fn two() -> u8 {
        2
    }

    #[derive(Session)]
    struct Defaults {
        #[session(default = "light")]
        text: String,
        #[session(default = "Ada")]
        maybe_text: Option<String>,
        #[session(default = "Grace")]
        name: Name,
        #[session(default = "Edsger")]
        maybe_name: Option<Name>,
        #[session(default = None)]
        none: Option<String>,
        #[session(default = Some(5))]
        some: Option<u8>,
        #[session(default = LIMIT * 2)]
        limit: u32,
        #[session(default = two())]
        two: u8,
        #[session(default = Self::three())]
        three: u8,
        #[session(default = vec![Self::three(); 2])]
        items: Vec<u8>,
        #[session(default = { let four = two(); four * 2 })]
        four: u8,
        #[session(default = if LIMIT > 5 { 'a' } else { return 'b' })]
        letter: char,
        #[session(skip, default = "skipped")]
        skipped: &'static str,
    }

    impl Defaults {
        fn three() -> u8 {
            3
        }
    }

    #[tokio::test]
    async fn is_where_a_field_starts() {
        in_session(async |session: Session<Defaults>| {
            let s = session.read().await;
            assert_eq!((s.text(), s.maybe_text(), s.none()), ("light", Some("Ada"), None));
            assert_eq!((s.name(), s.maybe_name()), (&"Grace".into(), Some(&"Edsger".into())));
            assert_eq!((s.some(), s.limit(), s.two(), s.three()), (Some(5), 20, 2, 3));
            assert_eq!((s.items(), s.four(), s.letter()), (&[3, 3][..], 4, 'a'));
            assert_eq!(s.skipped, "skipped");
        })
        .await;
    }

    #[tokio::test]
    async fn comes_back_with_take_and_reset() {
        in_session(async |session: Session<Defaults>| {
            let mut s = session.write().await;
            s.clear_maybe_text();
            s.set_three(9);
            s.set_items([1]);
            s.clear_some();
            s.reset_maybe_text();
            s.take_some();
            assert_eq!((s.take_three(), s.take_items()), (9, vec![1]));
            assert_eq!((s.maybe_text(), s.some(), s.three()), (Some("Ada"), Some(5), 3));
            assert_eq!(s.items(), [3, 3]);
        })
        .await;
    }

    /// A field that was set to `None` is not one that nothing is stored for.
    #[tokio::test]
    async fn does_not_replace_a_stored_none() {
        let mut browser = Browser::new();
        browser.request(async |s: Session<Defaults>| s.write().await.clear_some()).await;
        let some = browser.request(async |s: Session<Defaults>| s.read().await.some()).await;
        assert_eq!(some, None);
    }
}

mod rename {
    use super::*;

    #[derive(Session)]
    #[session(name = "Visitor")]
    struct Long {
        #[session(rename = "th")]
        theme: String,
        #[session(rename = "theme")]
        other: String,
    }

    #[derive(Session)]
    #[session(name = "Visitor")]
    struct Short {
        th: String,
        theme: String,
    }

    #[tokio::test]
    async fn changes_the_key_and_not_the_accessors() {
        let mut browser = Browser::new();
        browser
            .request(async |session: Session<Long>| {
                let mut s = session.write().await;
                s.set_theme("dark");
                s.set_other("other");
            })
            .await;
        browser
            .request(async |session: Session<Short>| {
                let s = session.read().await;
                assert_eq!((s.th(), s.theme()), ("dark", "other"));
            })
            .await;
    }
}

mod alias {
    use super::*;

    #[derive(Session)]
    #[session(name = "Visitor")]
    struct First {
        nick: String,
    }

    #[derive(Session)]
    #[session(name = "Visitor")]
    struct Second {
        #[session(alias = "nick")]
        name: String,
    }

    #[derive(Session)]
    #[session(name = "Visitor")]
    struct Third {
        #[session(alias = "nick", alias = "name")]
        full_name: String,
    }

    #[tokio::test]
    async fn keeps_the_data_of_earlier_builds() {
        let mut browser = Browser::new();
        browser.request(async |s: Session<First>| s.write().await.set_nick("Ada")).await;
        browser.request(async |s: Session<Second>| assert_eq!(s.read().await.name(), "Ada")).await;
        browser
            .request(async |session: Session<Third>| {
                let mut s = session.write().await;
                assert_eq!(s.full_name(), "Ada");
                s.set_full_name("Ada Lovelace");
            })
            .await;
        browser
            .request(async |s: Session<Third>| {
                assert_eq!(s.read().await.full_name(), "Ada Lovelace");
            })
            .await;
    }
}

mod flash {
    use super::*;

    #[derive(Session)]
    struct Flashes {
        #[session(flash)]
        notice: Option<String>,
        #[session(flash, merge = union, rename = "m")]
        messages: Vec<String>,
        #[session(flash)]
        numbers: Vec<u8>,
        #[session(flash)]
        code: u32,
        #[session(flash, into)]
        id: Option<Box<str>>,
        /// Whose names are free.
        reset_notice: u8,
        clear_notice: u8,
        push_notice: u8,
    }

    #[tokio::test]
    async fn is_set_and_taken_and_gone() {
        let mut browser = Browser::new();
        browser
            .request(async |session: Session<Flashes>| {
                let mut s = session.write().await;
                s.set_notice("saved");
                s.push_messages("one");
                s.push_messages("two".to_string());
                s.set_numbers([1]);
                s.push_numbers(2);
                s.set_code(3);
                s.set_id("four");
                s.set_reset_notice(5);
                assert!(s.notice_is_dirty() && s.messages_is_dirty());
            })
            .await;
        browser
            .request(async |session: Session<Flashes>| {
                let mut s = session.write().await;
                assert_eq!(s.take_notice().as_deref(), Some("saved"));
                assert_eq!(s.take_notice(), None);
                assert_eq!(s.take_messages(), ["one", "two"]);
                assert_eq!((s.take_numbers(), s.take_code()), (vec![1, 2], 3));
                assert_eq!(s.take_id().as_deref(), Some("four"));
                assert!(s.notice_is_dirty());
                assert_eq!((s.reset_notice(), s.clear_notice(), s.push_notice()), (5, 0, 0));
            })
            .await;
        browser
            .request(async |session: Session<Flashes>| {
                let mut s = session.write().await;
                assert_eq!((s.take_notice(), s.take_messages().len()), (None, 0));
                assert_eq!((s.take_numbers().len(), s.take_code(), s.take_id()), (0, 0, None));
                drop(s);
                assert!(!session.has_unsaved_changes() && !session.read().await.notice_is_dirty());
            })
            .await;
    }

    #[tokio::test]
    async fn is_there_again_after_a_panic_or_a_discard() {
        let mut browser = Browser::new();
        browser.request(async |s: Session<Flashes>| s.write().await.set_notice("saved")).await;
        browser
            .request(async |session: Session<Flashes>| {
                drop(session.write().await.take_notice());
                session.discard_request_changes();
                let panicking = session.clone();
                let panicked = tokio::spawn(async move {
                    panicking.write().await.take_notice().filter(|_| false).expect("a test");
                });
                assert!(panicked.await.is_err());
                let refused = session.transaction(|s| {
                    assert!(s.take_notice().is_some());
                    Err::<(), Box<dyn std::error::Error + Send + Sync>>("no".into())
                });
                assert!(refused.await.is_err());
                assert_eq!(session.write().await.take_notice().as_deref(), Some("saved"));
            })
            .await;
    }
}

mod ttl {
    use super::*;

    #[derive(Session)]
    struct Ends {
        #[session(ttl = "1s", version = 3, default = 5)]
        code: u32,
        #[session(ttl = "365d", flash, into)]
        notice: Option<Box<str>>,
    }

    #[tokio::test]
    async fn changes_no_accessor() {
        let mut browser = Browser::new();
        browser
            .request(async |session: Session<Ends>| {
                let mut s = session.write().await;
                s.set_code(7);
                s.set_notice("soon gone");
            })
            .await;
        browser
            .request(async |session: Session<Ends>| {
                let mut s = session.write().await;
                assert_eq!(s.code(), 7);
                assert_eq!(s.take_notice().as_deref(), Some("soon gone"));
                assert_eq!((s.take_code(), s.code()), (7, 5));
                s.reset_code();
                *s.code_mut() += 1;
                assert!(s.code_is_dirty());
            })
            .await;
    }
}

mod into {
    use super::*;

    #[derive(Debug, Default, Deserialize, PartialEq, Serialize)]
    struct Id(u64);

    impl From<u32> for Id {
        fn from(id: u32) -> Self {
            Self(id.into())
        }
    }

    #[derive(Session)]
    struct Ids {
        #[session(into)]
        id: Id,
        #[session(into)]
        maybe: Option<Id>,
        plain: Id,
    }

    #[tokio::test]
    async fn makes_the_setter_convert() {
        in_session(async |session: Session<Ids>| {
            let mut s = session.write().await;
            s.set_id(1u32);
            s.set_maybe(2u32);
            s.set_plain(Id(3));
            assert_eq!((s.id(), s.maybe(), s.plain()), (&Id(1), Some(&Id(2)), &Id(3)));
            s.set_id(Id(4));
            s.set_maybe(Id(5));
            assert_eq!((s.id(), s.maybe()), (&Id(4), Some(&Id(5))));
        })
        .await;
    }
}

mod skip {
    use super::*;

    /// Neither serde nor `Default`: a skipped field needs none of serde.
    #[derive(Debug, PartialEq)]
    struct Connection(u8);

    #[derive(Session)]
    struct Skips {
        #[session(skip)]
        scratch: Vec<u8>,
        kept: u8,
        #[session(skip, default = Connection(1))]
        connection: Connection,
        #[session(skip)]
        maybe: Option<String>,
        kept_too: u8,
    }

    #[tokio::test]
    async fn leaves_the_accessors_and_is_never_dirty() {
        in_session(async |session: Session<Skips>| {
            let mut s = session.write().await;
            s.set_scratch([1]);
            s.set_connection(Connection(2));
            s.set_maybe("x");
            s.scratch_mut().push(2);
            assert_eq!((s.scratch(), s.maybe()), (&[1, 2][..], Some("x")));
            assert_eq!(s.take_connection(), Connection(2));
            assert_eq!(s.connection, Connection(1));
            s.clear_maybe();
            s.reset_scratch();
            assert!(s.maybe.is_none() && s.scratch.is_empty());
            assert!(!s.scratch_is_dirty() && !s.connection_is_dirty() && !s.maybe_is_dirty());
        })
        .await;
    }

    #[tokio::test]
    async fn is_not_stored_and_does_not_disturb_its_neighbours() {
        let mut browser = Browser::new();
        browser
            .request(async |session: Session<Skips>| {
                let mut s = session.write().await;
                s.set_scratch([1]);
                s.set_kept(2);
                s.set_kept_too(3);
            })
            .await;
        browser
            .request(async |session: Session<Skips>| {
                let s = session.read().await;
                assert_eq!((s.scratch(), s.kept(), s.kept_too()), (&[][..], 2, 3));
            })
            .await;
    }

    #[tokio::test]
    async fn alone_stores_no_session() {
        let mut browser = Browser::new();
        browser.request(async |s: Session<Skips>| s.write().await.set_scratch([1])).await;
        assert_eq!(browser.cookie, None);
    }
}

mod version {
    use super::*;

    #[derive(Session)]
    #[session(name = "Visitor")]
    struct InMinutes {
        limit: u32,
        name: String,
    }

    #[derive(Session)]
    #[session(name = "Visitor")]
    struct InSeconds {
        #[session(version = 1, default = 60)]
        limit: u32,
        name: String,
    }

    #[tokio::test]
    async fn drops_what_was_stored_with_another() {
        let mut browser = Browser::new();
        browser
            .request(async |session: Session<InMinutes>| {
                let mut s = session.write().await;
                s.set_limit(5);
                s.set_name("Ada");
            })
            .await;
        browser
            .request(async |session: Session<InSeconds>| {
                let mut s = session.write().await;
                assert_eq!((s.limit(), s.name()), (60, "Ada"));
                s.set_limit(300);
            })
            .await;
        browser
            .request(async |s: Session<InSeconds>| assert_eq!(s.read().await.limit(), 300))
            .await;
    }
}

mod rename_all {
    use super::*;

    #[derive(Session)]
    #[session(name = "Visitor", rename_all = "SCREAMING-KEBAB-CASE")]
    struct Spelt {
        first_seen: u8,
        #[session(rename = "last_seen")]
        last: u8,
    }

    #[derive(Session)]
    #[session(name = "Visitor")]
    struct Plain {
        #[session(rename = "FIRST-SEEN")]
        first: u8,
        last_seen: u8,
    }

    #[tokio::test]
    async fn spells_every_key_that_is_not_renamed() {
        let mut browser = Browser::new();
        browser
            .request(async |session: Session<Spelt>| {
                let mut s = session.write().await;
                s.set_first_seen(1);
                s.set_last(2);
            })
            .await;
        browser
            .request(async |session: Session<Plain>| {
                let s = session.read().await;
                assert_eq!((s.first(), s.last_seen()), (1, 2));
            })
            .await;
    }
}

mod krate {
    use super::in_session;

    /// As a library that re-exports the crate, for users who do not depend on it themselves.
    mod framework {
        pub mod parts {
            pub use ::sessions as runtime;
        }
    }

    use framework::parts::runtime as sessions;

    #[derive(sessions::Session)]
    #[session(crate = self::framework::parts::runtime)]
    struct Visitor {
        visits: u32,
    }

    #[tokio::test]
    async fn says_where_the_runtime_is() {
        in_session(async |session: sessions::Session<Visitor>| {
            let mut s = session.write().await;
            s.set_visits(1);
            assert_eq!(s.visits(), 1);
        })
        .await;
    }
}
