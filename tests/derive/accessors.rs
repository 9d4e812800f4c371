//! Getters and setters for each kind of type, and what they do to a field.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sessions::Session;

use crate::{Browser, in_session};

#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
struct Point {
    x: i32,
}

#[derive(Session)]
struct Kinds {
    count: u8,
    wide: i128,
    ratio: f32,
    flag: bool,
    letter: char,
    text: String,
    items: Vec<u16>,
    maybe_count: Option<u64>,
    maybe_text: Option<String>,
    maybe_items: Option<Vec<u16>>,
    maybe_point: Option<Point>,
    maybe_twice: Option<Option<u8>>,
    point: Point,
    map: BTreeMap<String, Point>,
    array: [u8; 3],
    pair: (u8, String),
    boxed: Box<str>,
}

#[tokio::test]
async fn getters_return_what_is_most_useful() {
    in_session(async |session: Session<Kinds>| {
        let s = session.read().await;
        let _: (u8, i128, f32, bool, char) = (s.count(), s.wide(), s.ratio(), s.flag(), s.letter());
        let _: (&str, &[u16]) = (s.text(), s.items());
        let _: (Option<u64>, Option<&str>) = (s.maybe_count(), s.maybe_text());
        let _: (Option<&Vec<u16>>, Option<&Point>) = (s.maybe_items(), s.maybe_point());
        let _: Option<&Option<u8>> = s.maybe_twice();
        let _: (&Point, &BTreeMap<String, Point>) = (s.point(), s.map());
        let _: (&[u8; 3], &(u8, String)) = (s.array(), s.pair());
        #[expect(clippy::borrowed_box)]
        let _: &Box<str> = s.boxed();
    })
    .await;
}

#[tokio::test]
async fn setters_take_what_is_at_hand() {
    in_session(async |session: Session<Kinds>| {
        let mut s = session.write().await;
        s.set_count(1);
        s.set_wide(-1);
        s.set_ratio(0.5);
        s.set_flag(true);
        s.set_letter('é');
        s.set_text("dark");
        s.set_text(String::from("dark"));
        s.set_text('d');
        s.set_text(Box::from("dark"));
        s.set_items([1, 2]);
        s.set_items(vec![1, 2]);
        s.set_items(&[1][..]);
        s.push_items(2);
        s.set_maybe_count(1);
        s.set_maybe_text("Ada");
        s.set_maybe_items([1, 2]);
        s.set_maybe_point(Point { x: 1 });
        s.set_maybe_twice(Some(2));
        s.set_point(Point { x: 2 });
        s.set_map(BTreeMap::new());
        s.set_array([1, 2, 3]);
        s.set_pair((1, "x".into()));
        s.set_boxed("boxed".into());

        assert_eq!((s.count, s.wide, s.ratio, s.flag, s.letter), (1, -1, 0.5, true, 'é'));
        assert_eq!((s.text(), s.items()), ("dark", &[1, 2][..]));
        assert_eq!((s.maybe_count(), s.maybe_text()), (Some(1), Some("Ada")));
        assert_eq!(s.maybe_items, Some(vec![1, 2]));
        assert_eq!(s.maybe_point(), Some(&Point { x: 1 }));
        assert_eq!(s.maybe_twice, Some(Some(2)));
        assert_eq!((s.point.x, s.array[2], s.pair.0, &*s.boxed), (2, 3, 1, "boxed"));
    })
    .await;
}

/// The kind of a type shows in its name or in its full path.
#[tokio::test]
async fn full_paths_are_recognized() {
    #[derive(Session)]
    struct Paths {
        count: ::core::primitive::u8,
        text: std::string::String,
        items: ::std::vec::Vec<::std::string::String>,
        maybe: ::core::option::Option<std::string::String>,
        short: std::option::Option<i8>,
    }
    in_session(async |session: Session<Paths>| {
        let mut s = session.write().await;
        s.set_count(1);
        s.set_text("a");
        s.push_items("b");
        s.set_maybe("c");
        s.set_short(2);
        let read: (u8, &str, &[String], Option<&str>, Option<i8>) =
            (s.count(), s.text(), s.items(), s.maybe(), s.short());
        assert_eq!(read, (1, "a", &["b".to_owned()][..], Some("c"), Some(2)));
    })
    .await;
}

/// Somebody else's `String` or `Vec` is a type like any other.
#[tokio::test]
async fn other_types_of_the_same_name_are_not_taken_for_those_of_std() {
    mod own {
        #[derive(Debug, Default, PartialEq, serde::Deserialize, serde::Serialize)]
        pub struct String(pub u8);
        #[derive(Debug, Default, PartialEq, serde::Deserialize, serde::Serialize)]
        pub struct Option<T>(pub T);
    }
    #[derive(Session)]
    struct Own {
        text: own::String,
        maybe: own::Option<u8>,
    }
    in_session(async |session: Session<Own>| {
        let mut s = session.write().await;
        s.set_text(own::String(1));
        s.set_maybe(own::Option(2));
        let read: (&own::String, &own::Option<u8>) = (s.text(), s.maybe());
        assert_eq!(read, (&own::String(1), &own::Option(2)));
    })
    .await;
}

#[tokio::test]
async fn fields_can_be_read_as_fields() {
    in_session(async |session: Session<Kinds>| {
        {
            let mut s = session.write().await;
            s.set_text("dark");
            s.set_count(3);
        }
        let s = session.read().await;
        assert_eq!(format!("{} {}", s.text, s.count), "dark 3");
        let kinds: &Kinds = &s;
        assert_eq!(kinds.text, s.text());
    })
    .await;
}

#[derive(Session)]
struct Visitor {
    name: Option<String>,
    #[session(default = "light")]
    theme: String,
    visits: u32,
}

#[tokio::test]
async fn take_returns_the_value_and_leaves_the_default() {
    in_session(async |session: Session<Visitor>| {
        let mut s = session.write().await;
        s.set_name("Ada");
        s.set_theme("dark");
        s.set_visits(3);
        assert_eq!(s.take_name(), Some("Ada".to_owned()));
        assert_eq!((s.take_theme(), s.take_visits()), ("dark".to_owned(), 3));
        assert_eq!((s.name(), s.theme(), s.visits()), (None, "light", 0));
    })
    .await;
}

#[tokio::test]
async fn reset_sets_the_default() {
    in_session(async |session: Session<Visitor>| {
        let mut s = session.write().await;
        s.set_name("Ada");
        s.set_theme("dark");
        s.set_visits(3);
        s.reset_name();
        s.reset_theme();
        s.reset_visits();
        assert_eq!((s.name(), s.theme(), s.visits()), (None, "light", 0));
    })
    .await;
}

#[tokio::test]
async fn clear_sets_none() {
    in_session(async |session: Session<Visitor>| {
        let mut s = session.write().await;
        s.set_name("Ada");
        s.clear_name();
        s.set_visits(1);
        assert_eq!((s.name(), s.visits()), (None, 1));
    })
    .await;
}

#[tokio::test]
async fn mut_lends_the_field() {
    in_session(async |session: Session<Visitor>| {
        let mut s = session.write().await;
        *s.visits_mut() += 2;
        s.theme_mut().push_str("er");
        s.name_mut().get_or_insert_with(|| "Ada".into()).push('!');
        assert_eq!((s.name(), s.theme(), s.visits()), (Some("Ada!"), "lighter", 2));
    })
    .await;
}

#[tokio::test]
async fn whatever_can_change_a_field_makes_it_dirty_and_no_other() {
    type Change = fn(&mut VisitorFields);
    let changes: [(&str, Change); 5] = [
        ("set", |s| s.set_name("Ada")),
        ("clear", |s| s.clear_name()),
        ("mut", |s| _ = s.name_mut()),
        ("take", |s| _ = s.take_name()),
        ("reset", |s| s.reset_name()),
    ];
    for (change, apply) in changes {
        in_session(async |session: Session<Visitor>| {
            let mut s = session.write().await;
            apply(&mut s);
            let dirty = (s.name_is_dirty(), s.theme_is_dirty(), s.visits_is_dirty());
            assert_eq!(dirty, (true, false, false), "{change}");
        })
        .await;
    }
}

#[tokio::test]
async fn reading_makes_nothing_dirty() {
    in_session(async |session: Session<Visitor>| {
        let s = session.write().await;
        let _ = (s.name(), s.theme(), s.visits(), s.visits, &s.theme);
        assert!(!s.name_is_dirty() && !s.theme_is_dirty() && !s.visits_is_dirty());
    })
    .await;
}

#[tokio::test]
async fn every_kind_of_field_is_saved_and_loaded() {
    let mut browser = Browser::new();
    browser
        .request(async |session: Session<Kinds>| {
            let mut s = session.write().await;
            s.set_count(1);
            s.set_wide(i128::MIN);
            s.set_ratio(0.5);
            s.set_flag(true);
            s.set_letter('é');
            s.set_text("dark");
            s.set_items([1, 2]);
            s.set_maybe_count(7);
            s.set_maybe_text("Ada");
            s.set_maybe_items([3]);
            s.set_maybe_point(Point { x: 1 });
            s.set_maybe_twice(Some(2));
            s.set_point(Point { x: 2 });
            s.set_map([("a".to_owned(), Point { x: 3 })].into());
            s.set_array([1, 2, 3]);
            s.set_pair((4, "x".into()));
            s.set_boxed("boxed".into());
        })
        .await;
    browser
        .request(async |session: Session<Kinds>| {
            assert!(!session.began_in_request());
            let s = session.read().await;
            assert_eq!((s.count, s.wide, s.ratio), (1, i128::MIN, 0.5));
            assert_eq!((s.flag, s.letter, s.text()), (true, 'é', "dark"));
            assert_eq!(
                (s.items(), s.maybe_count(), s.maybe_text()),
                (&[1, 2][..], Some(7), Some("Ada"))
            );
            assert_eq!(s.maybe_items, Some(vec![3]));
            assert_eq!((s.maybe_point(), s.maybe_twice), (Some(&Point { x: 1 }), Some(Some(2))));
            assert_eq!((s.point.x, s.map["a"].x, s.array), (2, 3, [1, 2, 3]));
            assert_eq!((&s.pair, &*s.boxed), (&(4, "x".to_owned()), "boxed"));
        })
        .await;
}
