use std::{
    collections::{BTreeMap, HashMap},
    fmt::Debug,
    net::Ipv4Addr,
};

use serde::{Deserialize, Serialize};

use super::*;
use crate::data::{FieldValue, codec::form::Own};

fn encode<F: FieldValue>(codec: Codec, value: &F) -> Result<(u8, Vec<u8>), EncodeError> {
    let (mut number, mut bytes) = (0, Vec::new());
    codec.write::<Own<F>>(value, false, &mut bytes, |layout, _| number = layout)?;
    Ok((number, bytes))
}

fn decode<F: FieldValue>((layout, bytes): &(u8, Vec<u8>)) -> Result<F, DecodeError> {
    super::decode::<Own<F>>(*layout, bytes)
}

#[track_caller]
fn round_trip<F: FieldValue + PartialEq + Debug>(value: F) {
    for &codec in Codec::ALL {
        let (layout, mut bytes) = encode(codec, &value).unwrap();
        let read = |bytes: &[u8]| super::decode::<Own<F>>(layout, bytes);
        assert_eq!(read(&bytes).unwrap(), value, "{codec:?}");

        bytes.push(0);
        assert!(read(&bytes).is_err(), "{codec:?} accepts a byte too many");
        bytes.pop();
        for cut in 0..bytes.len() {
            // Of a number in JSON a part is one too.
            let is_number = value_is_number(&bytes) && cut > 0;
            assert!(is_number || read(&bytes[..cut]).is_err(), "{codec:?} accepts {cut} bytes");
        }
    }
}

fn value_is_number(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| byte.is_ascii_digit() || b"-.".contains(byte))
}

#[test]
fn what_the_type_of_a_scalar_says_is_what_a_look_at_its_values_says() {
    fn same<F: FieldValue>(values: impl IntoIterator<Item = F>) {
        let kind = form::scalar::<Own<F>>().expect("a scalar");
        for value in values {
            for &codec in Codec::ALL {
                let look = Purpose::Look(Place::new::<Own<F>>(codec as u8));
                let node = Survey::new(codec.rules(), look).visit(&In::<Own<F>>(&value)).unwrap();
                assert_eq!(node.plain, Node::of_scalar(kind).plain, "{codec:?}");
            }
        }
    }
    same([false, true]);
    same(['a', char::MAX]);
    same([0, u8::MAX]);
    same([0, u16::MAX]);
    same([0, u32::MAX]);
    same([0, u64::MAX]);
    same([i8::MIN, i8::MAX]);
    same([i16::MIN, i16::MAX]);
    same([i32::MIN, i32::MAX]);
    same([i64::MIN, i64::MAX]);
    same([String::new(), "text".to_string()]);
    // What a codec may refuse or lose is looked at, and so is what a function of the field's writes.
    assert!(form::scalar::<Own<f64>>().is_none() && form::scalar::<Own<u128>>().is_none());
    assert!(form::scalar::<Own<Id>>().is_none() && form::scalar::<Own<Option<u32>>>().is_none());
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Shape {
    Point,
    Circle(f64),
    Path { points: Vec<(i32, i32)>, name: Option<Box<str>> },
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Id(u64);

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Bytes(#[serde(with = "bytes")] Vec<u8>);

mod bytes {
    use serde::{Deserializer, Serializer, de};

    pub(crate) fn serialize<S: Serializer>(bytes: &[u8], s: S) -> Result<S::Ok, S::Error> {
        s.serialize_bytes(bytes)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<u8>, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Vec<u8>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("bytes")
            }

            fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
                Ok(bytes.to_vec())
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, mut a: A) -> Result<Vec<u8>, A::Error> {
                let mut bytes = Vec::new();
                while let Some(byte) = a.next_element()? {
                    bytes.push(byte);
                }
                Ok(bytes)
            }
        }
        d.deserialize_bytes(Visitor)
    }
}

#[test]
fn values_come_back_and_take_exactly_their_bytes() {
    round_trip(true);
    round_trip(200_u8);
    round_trip(-100_i8);
    round_trip(70_000_u32);
    for number in [250, 251, 255, 256, 65_535, 65_536, u64::from(u32::MAX), 1 << 32] {
        round_trip(number);
        round_trip(-(number as i64));
        round_trip(vec![number, 1]);
    }
    round_trip("x".repeat(300));
    round_trip(u64::MAX);
    round_trip(i64::MIN);
    round_trip(u128::MAX);
    round_trip(i128::MIN);
    round_trip(0.1_f32);
    round_trip(-0.1_f64);
    round_trip('ß');
    round_trip(String::from("Zoë"));
    round_trip(Some(String::new()));
    round_trip(None::<u8>);
    round_trip(Some(Id(7)));
    round_trip(Bytes(vec![1, 2, 255]));
    round_trip(Some(vec![1_u8, 2, 3]));
    round_trip(Vec::<u32>::new());
    round_trip(vec![vec![1_u8], vec![]]);
    round_trip(vec![Some(1_i32), None]);
    round_trip([1_u64, 1 << 40]);
    round_trip(Some([0_u8; 32]));
    round_trip(("a".to_string(), "b".to_string()));
    round_trip((300_u32, true));
    round_trip(BTreeMap::from([(1_u16, "one".to_string())]));
    round_trip(vec![Shape::Point, Shape::Circle(0.5)]);
    round_trip(Shape::Path { points: vec![(1, -1)], name: Some("x".into()) });
}

#[test]
fn a_scalar_takes_one_byte_more_than_itself_and_names_go_along_with_the_rest() {
    let of = |value: &(u8, Vec<u8>)| (value.0, value.1.clone());
    assert_eq!(of(&encode(Codec::Bincode, &300_u32).unwrap()), (5, vec![3, 251, 44, 1]));
    assert_eq!(of(&encode(Codec::Postcard, &300_u32).unwrap()), (6, vec![3, 172, 2]));
    assert_eq!(of(&encode(Codec::MessagePack, &300_u32).unwrap()), (4, vec![205, 1, 44]));
    assert_eq!(of(&encode(Codec::Json, &300_u32).unwrap()), (3, b"300".to_vec()));
    for codec in [Codec::Bincode, Codec::Postcard, Codec::MessagePack] {
        let (layout, bytes) = encode(codec, &Shape::Circle(1.5)).unwrap();
        assert_eq!(layout, 4);
        assert!(bytes.windows(6).any(|part| part == b"Circle"));
    }
    let arrays = encode(Codec::Bincode, &Some([7_u8, 8])).unwrap();
    assert_eq!(of(&arrays), (5, vec![0x62, 2, 1, 7, 8]));
    assert_eq!(of(&encode(Codec::Bincode, &None::<u8>).unwrap()), (5, vec![0, 0]));
}

#[test]
fn what_was_not_noted_is_not_guessed() {
    for layout in [1, 2] {
        assert_eq!(decode::<u32>(&(layout, vec![5])).unwrap_err().why, Unreadable::NotNoted);
    }
    assert_eq!(decode::<u32>(&(0, vec![])).unwrap_err().why, Unreadable::Later);
    assert_eq!(decode::<u32>(&(7, vec![5])).unwrap_err().why, Unreadable::Later);
    assert_eq!(Codec::preferred(), Codec::Bincode);
}

#[test]
fn a_value_is_never_another_types() {
    for &codec in Codec::ALL {
        let of = |written: Result<(u8, Vec<u8>), EncodeError>| written.unwrap();
        let signed = of(encode(codec, &-3_i32));
        assert!(decode::<u32>(&signed).is_err());
        assert_eq!(decode::<i64>(&of(encode(codec, &1_790_000_000_u32))).unwrap(), 1_790_000_000);
        assert_eq!(decode::<u64>(&of(encode(codec, &5_i8))).unwrap(), 5);
        assert!(decode::<String>(&of(encode(codec, &vec![104_u32, 105]))).is_err());
        assert!(decode::<Shape>(&of(encode(codec, &0_u32))).is_err(), "{codec}");
        assert!(decode::<Vec<Shape>>(&of(encode(codec, &vec![0_u32, 0]))).is_err(), "{codec}");
        assert_eq!(
            decode::<Shape>(&of(encode(codec, &"Point".to_string()))).unwrap(),
            Shape::Point
        );
        assert!(decode::<Shape>(&of(encode(codec, &"Circle".to_string()))).is_err());
        assert_eq!(decode::<Option<u64>>(&of(encode(codec, &1_u32))).unwrap(), Some(1));
        assert_eq!(decode::<u64>(&of(encode(codec, &Some(1_u32)))).unwrap(), 1);
        assert!(decode::<u64>(&of(encode(codec, &None::<u32>))).is_err());
        assert!(decode::<bool>(&of(encode(codec, &1_u8))).is_err());
        assert_eq!(decode::<Vec<u32>>(&of(encode(codec, &[7_u32, 8]))).unwrap(), [7, 8]);
        assert!(decode::<[u32; 3]>(&of(encode(codec, &vec![7_u32, 8]))).is_err());
        assert!(decode::<[u32; 1]>(&of(encode(codec, &vec![7_u32, 8]))).is_err());
    }
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Stored {
    first: String,
    last: String,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Renamed {
    #[serde(default)]
    given: String,
    last: String,
}

/// Takes whatever is stored of it, and looks at nothing of that: it is wanted all the same.
#[derive(Debug, PartialEq, Serialize)]
struct Mark;

impl<'de> Deserialize<'de> for Mark {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        serde::de::IgnoredAny::deserialize(deserializer).map(|_| Self)
    }
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Marked {
    mark: Mark,
}

/// What an earlier build has stored of a `Marked`, which had another field then.
fn marked(codec: Codec, first: String) -> (u8, Vec<u8>) {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Before {
        first: String,
        mark: Mark,
    }
    encode(codec, &Before { first, mark: Mark }).unwrap()
}

#[test]
fn fields_that_may_have_been_renamed_are_not_given_up_in_silence() {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct More {
        #[serde(default)]
        middle: String,
        first: String,
        last: String,
    }
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Less {
        last: String,
    }
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Aliased {
        #[serde(alias = "first")]
        given: String,
        last: String,
    }
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    enum Wrapped {
        #[serde(alias = "Old")]
        New {
            #[serde(default)]
            given: String,
            last: String,
        },
    }
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    enum OldWrapped {
        Old { first: String, last: String },
    }
    let (first, last) = ("Ada".to_string(), "Byron".to_string());
    for codec in [Codec::MessagePack, Codec::Json] {
        let stored = Stored { first: first.clone(), last: last.clone() };
        let stored = encode(codec, &stored).unwrap();
        assert_eq!(decode::<Renamed>(&stored).unwrap_err().why, Unreadable::Renamed);
        let renamed = |text: &str| Renamed { given: text.into(), last: last.clone() };
        assert!(decode::<More>(&stored).is_ok_and(|it| it.first == first));
        assert_eq!(decode::<Less>(&stored).unwrap(), Less { last: last.clone() });
        assert!(decode::<Aliased>(&stored).is_ok_and(|it| it.given == first));
        let own = encode(codec, &renamed("")).unwrap();
        assert_eq!(decode::<Renamed>(&own).unwrap(), renamed(""));
        assert!(decode::<Marked>(&marked(codec, first.clone())).is_ok());
        let old = OldWrapped::Old { first: first.clone(), last: last.clone() };
        let (layout, bytes) = encode(codec, &vec![Some(old)]).unwrap();
        let error = super::decode::<Own<Vec<Option<Wrapped>>>>(layout, &bytes).unwrap_err();
        assert_eq!(error.why, Unreadable::Renamed);
    }
}

#[test]
fn what_would_not_come_back_is_refused() {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(tag = "kind")]
    enum Tagged {
        Big { number: u128 },
        Small { number: u8 },
    }
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Holey {
        #[serde(skip_serializing_if = "Vec::is_empty")]
        list: Vec<u8>,
    }
    #[track_caller]
    fn refused<F: FieldValue>(codec: Codec, value: F) -> Problem {
        let error = encode(codec, &value).unwrap_err();
        assert!(error.to_string().contains("rite"), "no line to write: {error}");
        error.problem
    }
    let in_json = [
        refused(Codec::Json, f64::NAN),
        refused(Codec::Json, Some(f32::INFINITY)),
        refused(Codec::Json, vec![1.0, f64::NEG_INFINITY]),
    ];
    assert_eq!(in_json, [Problem::NotFinite; 3]);
    assert_eq!(refused(Codec::Json, HashMap::from([((1, 2), 3)])), Problem::NoKey);
    for &codec in Codec::ALL {
        assert_eq!(refused(codec, Some(None::<u8>)), Problem::SomeNothing);
        assert_eq!(refused(codec, vec![Some(())]), Problem::SomeNothing);
        let not_read_back = Problem::NotReadBack { instead: None };
        assert_eq!(refused(codec, Tagged::Big { number: 1 }), not_read_back, "{codec}");
        assert!(encode(codec, &Tagged::Small { number: 1 }).is_ok());
        assert_eq!(refused(codec, Holey { list: vec![] }), not_read_back);
        assert!(encode(codec, &Holey { list: vec![1] }).is_ok());
        assert_eq!(
            refused(codec, vec![Holey { list: vec![1] }, Holey { list: vec![] }]),
            not_read_back
        );
        if codec != Codec::Json {
            assert!(encode(codec, &f64::NAN).is_ok());
            assert!(encode(codec, &HashMap::from([((1, 2), 3)])).is_ok());
        }
        assert_eq!(
            decode::<Option<(Option<u8>,)>>(&encode(codec, &Some((None::<u8>,))).unwrap()).unwrap(),
            Some((None,))
        );
    }
}

#[test]
fn what_a_type_takes_for_another_of_its_values_is_refused() {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(untagged)]
    enum Numbers {
        Short(u8),
        Long(u64),
    }
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(untagged)]
    enum Letters {
        One(char),
        Many(String),
    }
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(untagged)]
    enum Options {
        Maybe(Option<u8>),
        Bare(u8),
    }
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Name {
        name: String,
    }
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Title {
        name: String,
    }
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(untagged)]
    enum Called {
        Name(Name),
        Title(Title),
    }
    /// Reads another number than it has written.
    #[derive(Debug, PartialEq, Deserialize)]
    struct Confused(u32);
    impl Serialize for Confused {
        fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.serialize_u32(self.0 + 1)
        }
    }
    #[track_caller]
    fn second<F: FieldValue + PartialEq + Debug>(first: Option<F>, second: F) {
        for &codec in Codec::ALL {
            let error = encode(codec, &second).unwrap_err();
            assert_eq!(error.problem, Problem::NotReadBack { instead: None }, "{codec}");
            if let Some(first) = &first {
                let stored = encode(codec, first).unwrap();
                assert_eq!(&decode::<F>(&stored).unwrap(), first, "{codec}");
            }
        }
    }
    let text = |text: &str| text.to_string();
    second(Some(Numbers::Short(5)), Numbers::Long(5));
    second(Some(Letters::One('x')), Letters::Many(text("x")));
    second(Some(Options::Maybe(Some(5))), Options::Bare(5));
    let name = Called::Name(Name { name: text("Ada") });
    second(Some(name), Called::Title(Title { name: text("Countess") }));
    second(None, Confused(7));

    // In a release build too, where a shape that has been read back counts for all of its values.
    fn is_seen<F: FieldValue>(codec: Codec, value: &F) -> bool {
        encode(codec, value).unwrap();
        let place = Place::new::<Own<F>>(codec as u8);
        let mut survey = Survey::new(codec.rules(), Purpose::Look(place));
        let node = survey.visit(&In::<Own<F>>(value)).unwrap();
        place.has_seen(node.shape)
    }
    for &codec in Codec::ALL {
        assert!(!is_seen(codec, &Numbers::Long(500)), "{codec}");
        assert!(!is_seen(codec, &vec![Numbers::Long(500)]), "{codec}");
        assert!(is_seen(codec, &Name { name: text("Ada") }), "{codec}");
    }
}

/// The parts are the same, and in one kind: only where each stands says which value it is.
#[test]
fn parts_that_come_back_in_each_others_places_are_refused() {
    macro_rules! read_otherwise {
        ($name:ident($of:ty), $read:expr) => {
            #[derive(Serialize)]
            struct $name($of);
            impl<'de> Deserialize<'de> for $name {
                fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                    <$of>::deserialize(d).map($read).map(Self)
                }
            }
        };
    }
    type Texts = BTreeMap<String, String>;
    read_otherwise!(Place((f64, f64)), |(lat, lng)| (lng, lat));
    read_otherwise!(Rgb([u8; 3]), |[r, g, b]| [b, g, r]);
    read_otherwise!(ByName(Texts), |it| it.into_iter().map(|(a, b)| (b, a)).collect());
    read_otherwise!(ByPlace(Texts), |it| {
        let values: Vec<_> = it.values().rev().cloned().collect();
        it.into_keys().zip(values).collect()
    });
    let texts = || ["ab", "cd"].map(|pair| (pair[..1].to_string(), pair[1..].to_string())).into();
    for &codec in Codec::ALL {
        for refused in [
            encode(codec, &Place((47.5, 19.0))),
            encode(codec, &Rgb([1, 2, 3])),
            encode(codec, &ByName(texts())),
            encode(codec, &ByPlace(texts())),
        ] {
            let problem = Problem::NotReadBack { instead: None };
            assert_eq!(refused.unwrap_err().problem, problem, "{codec}");
        }
        // In whatever order the elements of a set come.
        encode(codec, &(0..100_u32).collect::<std::collections::HashSet<_>>()).unwrap();
        encode(codec, &(0..100_u32).map(|key| (key, -5)).collect::<HashMap<_, _>>()).unwrap();
    }
}

#[test]
fn a_type_that_writes_something_else_each_time_is_compared_by_what_it_is_made_of() {
    use std::sync::atomic::{AtomicU32, Ordering};
    #[derive(Deserialize)]
    #[expect(dead_code, reason = "only what it is made of counts")]
    struct TimeLeft(u32);
    impl Serialize for TimeLeft {
        fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            static LEFT: AtomicU32 = AtomicU32::new(1_000);
            serializer.serialize_u32(LEFT.fetch_sub(1, Ordering::Relaxed))
        }
    }
    for &codec in Codec::ALL {
        encode(codec, &TimeLeft(0)).unwrap();
    }
}

#[test]
fn bytes_that_happen_to_be_a_text_are_none() {
    for codec in [Codec::Bincode, Codec::Postcard, Codec::MessagePack] {
        let stored = encode(codec, &Bytes(b"hi".to_vec())).unwrap();
        assert!(decode::<String>(&stored).is_err(), "{codec}");
        assert!(decode::<Option<Box<str>>>(&stored).is_err(), "{codec}");
        assert_eq!(decode::<Bytes>(&stored).unwrap(), Bytes(b"hi".to_vec()));
        let stored = encode(codec, &vec![Bytes(b"hi".to_vec())]).unwrap();
        assert!(decode::<Vec<String>>(&stored).is_err(), "{codec}");
    }
}

#[test]
fn a_type_that_takes_whatever_there_is_takes_a_number_as_small_as_it_is() {
    /// Of how many bytes a number was.
    #[derive(Debug, PartialEq)]
    struct Width(i32);
    impl Serialize for Width {
        fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.serialize_i32(self.0)
        }
    }
    impl<'de> Deserialize<'de> for Width {
        fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
            struct Visitor;
            impl<'de> serde::de::Visitor<'de> for Visitor {
                type Value = Width;

                fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    f.write_str("a number of 32 bits")
                }

                fn visit_i8<E>(self, number: i8) -> Result<Width, E> {
                    Ok(Width(number.into()))
                }

                fn visit_i16<E>(self, number: i16) -> Result<Width, E> {
                    Ok(Width(number.into()))
                }

                fn visit_i32<E>(self, number: i32) -> Result<Width, E> {
                    Ok(Width(number))
                }

                fn visit_u8<E>(self, number: u8) -> Result<Width, E> {
                    Ok(Width(number.into()))
                }

                fn visit_u16<E>(self, number: u16) -> Result<Width, E> {
                    Ok(Width(number.into()))
                }

                fn visit_u32<E: serde::de::Error>(self, number: u32) -> Result<Width, E> {
                    number.try_into().map(Width).map_err(E::custom)
                }
            }
            d.deserialize_any(Visitor)
        }
    }
    for codec in [Codec::Bincode, Codec::Postcard, Codec::MessagePack] {
        for number in [0, 5, -5, 300, -300, 70_000, -70_000, i32::MAX, i32::MIN] {
            let stored = encode(codec, &Width(number)).unwrap();
            assert_eq!(decode::<Width>(&stored).unwrap(), Width(number), "{codec}");
            let stored = encode(codec, &vec![Some(Width(number))]).unwrap();
            assert_eq!(decode::<Vec<Option<Width>>>(&stored).unwrap(), [Some(Width(number))]);
        }
    }
}

#[test]
fn a_claimed_length_reserves_no_memory() {
    // A string or list of 2^62 bytes, in each codec's own way of saying so.
    let bincode = [&[253_u8][..], &(1_u64 << 62).to_le_bytes()].concat();
    let postcard = vec![0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x40];
    for (layout, length) in [(5, bincode), (6, postcard)] {
        for kind in [11, 12, 0x12, 0x13, 0x1b] {
            let bytes = [&[kind][..], &length].concat();
            assert!(decode::<String>(&(layout, bytes.clone())).is_err());
            assert!(decode::<Vec<u64>>(&(layout, bytes)).is_err());
        }
    }
    let messagepack = [0xdf, 0xff, 0xff, 0xff, 0xff];
    assert!(decode::<HashMap<u64, u64>>(&(4, messagepack.to_vec())).is_err());
}

#[test]
fn a_number_is_read_as_whatever_reads_all_else_would_read_it() {
    fn compare<F: FieldValue + PartialEq + Debug>(stored: &(u8, Vec<u8>)) {
        let notes = Notes::default();
        let quick = decode::<F>(stored).map_err(|error| error.why);
        let slow = decode_noting::<Own<F>>(stored.0, &stored.1, &notes).map_err(|error| error.why);
        assert_eq!(quick, slow, "{stored:?} as {}", std::any::type_name::<F>());
    }
    fn as_all(stored: &(u8, Vec<u8>)) {
        compare::<u8>(stored);
        compare::<u16>(stored);
        compare::<u32>(stored);
        compare::<u64>(stored);
        compare::<i8>(stored);
        compare::<i16>(stored);
        compare::<i32>(stored);
        compare::<i64>(stored);
        compare::<bool>(stored);
        compare::<char>(stored);
        compare::<String>(stored);
        compare::<Option<u32>>(stored);
    }
    for &codec in Codec::ALL {
        for power in 0..64 {
            for number in [(1_u64 << power) - 1, 1 << power, u64::MAX >> power] {
                let signed = number.cast_signed();
                for stored in [
                    encode(codec, &number).unwrap(),
                    encode(codec, &signed).unwrap(),
                    encode(codec, &signed.wrapping_neg()).unwrap(),
                    encode(codec, &(number as u8)).unwrap(),
                    encode(codec, &number.to_string()).unwrap(),
                ] {
                    as_all(&stored);
                    // Cut short, and with a byte too many.
                    let (layout, mut bytes) = stored;
                    bytes.push(0);
                    as_all(&(layout, bytes.clone()));
                    bytes.truncate(bytes.len() - 2);
                    as_all(&(layout, bytes));
                }
            }
        }
    }
}

#[test]
fn what_has_other_parts_has_another_shape() {
    #[derive(Serialize, Clone, Copy)]
    enum Part {
        One,
        Number(u32),
        Letter(char),
        Maybe(Option<u32>),
    }
    #[derive(Serialize)]
    struct Two {
        left: Part,
        right: Part,
    }
    #[derive(Serialize)]
    enum Either {
        Tuple(Part, Part),
        Struct { left: Part, right: Part },
    }
    fn shape(value: &impl Serialize) -> u64 {
        let rules = Rules { is_human_readable: false, is_json: false };
        let place = Place::new::<Two>(0);
        Survey::new(rules, Purpose::Look(place)).visit(value).unwrap().shape
    }
    let parts =
        [Part::One, Part::Number(1), Part::Letter('a'), Part::Maybe(None), Part::Maybe(Some(1))];
    let mut shapes = std::collections::HashSet::new();
    for left in parts {
        for right in parts {
            assert!(shapes.insert(shape(&Two { left, right })));
            assert!(shapes.insert(shape(&(left, right))));
            assert!(shapes.insert(shape(&Either::Tuple(left, right))));
            assert!(shapes.insert(shape(&Either::Struct { left, right })));
        }
    }
    // Written alike by every codec, and a type may write them for two of its values.
    assert_ne!(shape(&()), shape(&None::<u8>));
    assert_ne!(shape(&vec![()]), shape(&vec![None::<u8>]));
    assert_ne!(shape(&Some(1)), shape(&1));
    assert_ne!(shape(&vec![Some(1)]), shape(&vec![1]));
    assert_ne!(shape(&Some(Part::One)), shape(&Part::One));
    // What a number is and what a text says is not among them.
    let of = |number| shape(&Two { left: Part::Number(number), right: Part::One });
    assert_eq!(of(1), of(2));
}

/// By default serde_json reads each tenth float as the one beside it.
#[test]
fn a_computed_float_is_the_same_float_afterwards() {
    let mut state = 12345_u64;
    for _ in 0..1000 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        round_trip((state >> 11) as f64 / (1_u64 << 53) as f64 * 1000.0);
    }
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind")]
enum Seen<X> {
    At { place: X },
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum Host {
    Address(Ipv4Addr),
    Raw(Vec<u8>),
}

/// serde's buffer for such enums takes every format for one with texts in place of bytes, and does not know that the
/// keys of JSON's maps are texts.
#[test]
fn in_a_tagged_enum_an_address_and_a_map_come_back_or_are_refused() {
    fn refused<F: FieldValue + PartialEq + Debug>(value: &F) -> Vec<Codec> {
        let refused = |codec: &&Codec| match encode(**codec, value) {
            Ok((layout, bytes)) => {
                assert_eq!(super::decode::<Own<F>>(layout, &bytes).unwrap(), *value, "{codec:?}");
                false
            }
            Err(_) => true,
        };
        Codec::ALL.iter().filter(refused).copied().collect()
    }
    let place = Ipv4Addr::new(192, 0, 2, 7);
    let map = BTreeMap::from([(7_u32, 1_u32)]);
    let no_texts = [Codec::Bincode, Codec::Postcard, Codec::MessagePack];
    assert_eq!(refused(&Seen::At { place }), no_texts);
    assert_eq!(refused(&Host::Address(place)), no_texts);
    assert!(refused(&Host::Raw(vec![192, 0, 2, 7])).is_empty());
    assert_eq!(refused(&Seen::At { place: map }), [Codec::Json]);
}

/// serde makes `None` of what it cannot read there: the address, which its buffer does not know; and what another build
/// has stored.
#[test]
fn what_a_flattened_option_hides_is_refused_where_it_is_set() {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Flattened<X> {
        teapots: u32,
        #[serde(flatten)]
        login: Option<X>,
    }
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Login<A> {
        address: A,
    }
    fn flattened<X>(login: Option<X>) -> Flattened<X> {
        Flattened { teapots: 1, login }
    }
    for &codec in Codec::ALL {
        assert!(encode(codec, &flattened(None::<Login<Ipv4Addr>>)).is_ok());
        let address = Some(Login { address: Ipv4Addr::new(192, 0, 2, 7) });
        match encode(codec, &flattened(address)) {
            Ok(_) => assert_eq!(codec, Codec::Json),
            Err(error) => {
                let instead = Some(Codec::Json);
                assert_eq!(error.problem, Problem::NotReadBack { instead }, "{codec}");
            }
        }
        let stored = encode(codec, &flattened(Some(Login { address: 7_u32 }))).unwrap();
        let read = decode::<Flattened<Login<String>>>(&stored).unwrap();
        assert_eq!(read, Flattened { teapots: 1, login: None }, "{codec}");
    }
}

/// serde gives a format that nobody reads the address and the port alone.
#[test]
fn a_socket_address_keeps_its_interface_in_json() {
    use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6};
    let neighbour = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
    let address = |scope| SocketAddr::from(SocketAddrV6::new(neighbour, 443, 0, scope));
    for &codec in Codec::ALL {
        let stored = encode(codec, &address(3)).unwrap();
        let scope = if codec == Codec::Json { 3 } else { 0 };
        assert_eq!(decode::<SocketAddr>(&stored).unwrap(), address(scope), "{codec}");
    }
}

/// What a build has stored in which a crate had turned on `arbitrary_precision`.
#[test]
fn a_number_of_another_build_is_not_read_as_an_object() {
    use serde_json::{Value, json};
    const NUMBER: &str = "$serde_json::private::Number";
    let (layout, _) = encode(Codec::MessagePack, &json!({ "qty": 2 })).unwrap();
    let number = BTreeMap::from([(NUMBER, "2")]);
    let stored = rmp_serde::to_vec(&BTreeMap::from([("qty", vec![number])])).unwrap();
    let read = super::decode::<Own<Value>>(layout, &stored);
    assert_eq!(read.unwrap_err().why, Unreadable::OtherNumbers);
    let read = super::decode::<Own<BTreeMap<String, Value>>>(layout, &stored);
    assert_eq!(read.unwrap_err().why, Unreadable::OtherNumbers);
    // A type that says what there is has no numbers of serde_json's, and a text is a text.
    let read =
        super::decode::<Own<BTreeMap<String, Vec<BTreeMap<String, String>>>>>(layout, &stored);
    assert_eq!(read.unwrap()["qty"][0][NUMBER], "2");
    round_trip(json!({ "text": NUMBER, "list": [NUMBER, 2, 1.5] }));
}
