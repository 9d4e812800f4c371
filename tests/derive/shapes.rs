//! Where a session struct can stand, and what it can look like.

use sessions::{Session, SessionData};

use crate::{Browser, in_session};

mod shop {
    use sessions::Session;

    /// Its accessors are as visible as its fields.
    #[derive(Session)]
    pub struct Visitor {
        pub visits: u32,
        pub(crate) theme: String,
        pub(in crate::shapes) cart: Vec<u32>,
        pub(super) name: Option<String>,
        private: u32,
    }

    pub fn set_private(fields: &mut VisitorFields) -> u32 {
        fields.set_private(7);
        fields.private()
    }

    #[derive(Session)]
    pub(super) struct Inner {
        pub(super) a: u8,
    }
}

#[tokio::test]
async fn any_visibility() {
    in_session(async |session: Session<shop::Visitor>| {
        let mut s = session.write().await;
        s.set_visits(1);
        s.set_theme("dark");
        s.set_cart([1]);
        s.set_name("Ada");
        assert_eq!(shop::set_private(&mut s), 7);
    })
    .await;
    in_session(async |session: Session<shop::Inner>| {
        let mut s = session.write().await;
        let fields: &mut shop::InnerFields = &mut s;
        fields.set_a(1);
        assert_eq!(fields.a(), 1);
    })
    .await;
}

#[tokio::test]
async fn fields_behind_cfg() {
    #[derive(Session)]
    #[cfg_attr(test, session(rename_all = "UPPERCASE"))]
    struct Visitor {
        #[cfg(not(test))]
        absent: Missing,
        #[cfg(test)]
        #[cfg_attr(test, session(default = 3))]
        #[cfg_attr(not(test), session(default = "not a number"))]
        present: u8,
    }
    in_session(async |session: Session<Visitor>| {
        assert_eq!(session.read().await.present(), 3);
        assert_eq!(size_of::<<Visitor as SessionData>::Dirty>(), 8);
    })
    .await;
}

#[tokio::test]
async fn no_field_at_all() {
    #[derive(Session)]
    struct Empty {}

    let mut browser = Browser::new();
    browser.request(async |s: Session<Empty>| drop(s.write().await)).await;
    assert_eq!(browser.cookie, None);
}

macro_rules! hundred {
    ($($field:ident)*) => {
        #[derive(Session)]
        struct Hundred {
            $($field: u32,)*
        }
        const NAMES: &[&str] = &[$(stringify!($field)),*];

        fn values(hundred: &Hundred) -> Vec<u32> {
            vec![$(hundred.$field),*]
        }
    };
}

hundred! {
    a0 a1 a2 a3 a4 a5 a6 a7 a8 a9 b0 b1 b2 b3 b4 b5 b6 b7 b8 b9 c0 c1 c2 c3 c4 c5 c6 c7 c8 c9
    d0 d1 d2 d3 d4 d5 d6 d7 d8 d9 e0 e1 e2 e3 e4 e5 e6 e7 e8 e9 f0 f1 f2 f3 f4 f5 f6 f7 f8 f9
    g0 g1 g2 g3 g4 g5 g6 g7 g8 g9 h0 h1 h2 h3 h4 h5 h6 h7 h8 h9 i0 i1 i2 i3 i4 i5 i6 i7 i8 i9
    j0 j1 j2 j3 j4 j5 j6 j7 j8 j9
}

#[tokio::test]
async fn a_hundred_fields() {
    assert_eq!((NAMES.len(), size_of::<<Hundred as SessionData>::Dirty>()), (100, 16));
    let mut browser = Browser::new();
    browser
        .request(async |session: Session<Hundred>| {
            let mut s = session.write().await;
            s.set_a0(1);
            s.set_g3(2);
            s.set_g4(3);
            s.set_j9(4);
            assert!(s.g3_is_dirty() && s.g4_is_dirty() && s.j9_is_dirty());
            assert!(!s.g2_is_dirty() && !s.g5_is_dirty() && !s.j8_is_dirty());
        })
        .await;
    browser
        .request(async |session: Session<Hundred>| {
            let values = values(&*session.read().await);
            let set = NAMES.iter().zip(values).filter(|&(_, value)| value != 0);
            assert_eq!(set.collect::<Vec<_>>(), [(&"a0", 1), (&"g3", 2), (&"g4", 3), (&"j9", 4)]);
        })
        .await;
}

macro_rules! session {
    ($vis:vis $name:ident { $($field:ident: $ty:ty = $default:expr, $key:literal;)* }) => {
        #[derive(Session)]
        $vis struct $name {
            $(#[session(default = $default, rename = $key)] $field: $ty,)*
        }
    };
}

/// The types of a macro's arguments come in invisible parentheses.
#[tokio::test]
async fn made_by_a_macro() {
    session! {
        pub Made {
            text: String = "light", "t";
            maybe: Option<String> = "Ada", "m";
            items: Vec<u8> = vec![1], "i";
            number: u8 = 1 + 1, "n";
        }
    }
    in_session(async |session: Session<Made>| {
        let mut s = session.write().await;
        let read: (&str, Option<&str>, &[u8], u8) = (s.text(), s.maybe(), s.items(), s.number());
        assert_eq!(read, ("light", Some("Ada"), &[1][..], 2));
        s.set_text("dark");
        s.set_maybe("Grace");
        s.set_items([2]);
        s.set_number(3);
    })
    .await;
}

/// A field of a type that a macro's caller cannot name, beside one of the caller's.
#[tokio::test]
async fn made_by_a_macro_with_names_of_its_own() {
    macro_rules! counted {
        ($name:ident { $field:ident: $ty:ty }) => {
            #[derive(Session)]
            struct $name {
                count: u32,
                $field: $ty,
            }
        };
    }
    counted! { Visitor { theme: String } }
    in_session(async |session: Session<Visitor>| {
        let mut s = session.write().await;
        s.set_count(1);
        s.set_theme("dark");
        assert_eq!((s.count(), s.theme()), (1, "dark"));
    })
    .await;
}

#[tokio::test]
async fn deprecated_fields_warn_their_users_only() {
    #[derive(Session)]
    struct Visitor {
        #[deprecated = "use `name`"]
        nick: Option<String>,
        name: Option<String>,
    }
    in_session(async |session: Session<Visitor>| {
        let mut s = session.write().await;
        #[expect(deprecated)]
        s.set_nick("Ada");
        #[expect(deprecated)]
        let nick = s.take_nick();
        s.set_name(nick.unwrap_or_default());
        #[expect(deprecated)]
        let _ = (s.nick(), s.nick_is_dirty(), &s.nick);
    })
    .await;
}

#[allow(deprecated)]
mod deprecated {
    #[derive(sessions::Session)]
    #[deprecated]
    pub(super) struct Visitor {
        pub(super) visits: u32,
    }
}

#[tokio::test]
#[expect(deprecated)]
async fn a_deprecated_struct() {
    in_session(async |s: Session<deprecated::Visitor>| s.write().await.set_visits(1)).await;
}

#[tokio::test]
async fn self_in_types_and_defaults_is_the_struct() {
    #[derive(Debug, PartialEq, Session, serde::Deserialize, serde::Serialize)]
    struct Page {
        #[session(default = Self::first())]
        number: u32,
        before: Vec<Self>,
    }
    impl Page {
        fn first() -> u32 {
            [Self { number: 1, before: vec![] }].len() as u32
        }
    }
    in_session(async |session: Session<Page>| {
        let mut s = session.write().await;
        s.set_before([Page { number: 5, before: vec![] }]);
        assert_eq!((s.take_number(), s.take_before()[0].number), (1, 5));
    })
    .await;
}

#[tokio::test]
async fn raw_and_odd_names_of_structs() {
    #[derive(Session)]
    #[allow(non_camel_case_types)]
    struct r#type {
        r#type: u8,
    }
    #[derive(Session)]
    #[allow(non_camel_case_types)]
    struct odd_name {
        a: u8,
    }
    in_session(async |session: Session<r#type>| {
        let mut s = session.write().await;
        let fields: &mut typeFields = &mut s;
        fields.set_type(1);
        assert_eq!(fields.r#type(), 1);
    })
    .await;
    in_session(async |s: Session<odd_name>| s.write().await.set_a(1)).await;
}
