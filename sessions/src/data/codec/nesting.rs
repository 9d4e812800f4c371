//! Tests: how deep values are nested that are stored and read, and that none takes the stack with it.

use std::{collections::BTreeMap, fmt::Debug, thread};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::data::FieldValue;
use crate::data::codec::{
    Codec, DEEPEST, DEEPEST_READ, EncodeError, JSON, MESSAGEPACK,
    error::{DecodeError, Problem, Unreadable},
    form::Own,
};

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Tree {
    children: Vec<Tree>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Chain {
    next: Option<Box<Chain>>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Lists(Vec<Lists>);

#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum Expression {
    Number(u32),
    Not(Box<Expression>),
    Sum(Box<Expression>, Box<Expression>),
    Named { of: Box<Expression> },
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind")]
enum Tagged {
    Node { of: Vec<Tagged> },
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", content = "of")]
enum Adjacent {
    Node(Vec<Adjacent>),
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum Untagged {
    Number(u32),
    List(Vec<Untagged>),
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Flat {
    #[serde(flatten)]
    entries: BTreeMap<String, Flat>,
}

/// Is an `Option` of itself: code that reads one from what is not `None` never comes to an end.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Onion(Option<Box<Onion>>);

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Known {
    known: u32,
}

/// On half the stack that a thread has.
fn on_a_small_stack(test: impl FnOnce() + Send + 'static) {
    let thread = thread::Builder::new().stack_size(1 << 20).spawn(test).unwrap();
    thread.join().unwrap();
}

fn encode<F: FieldValue>(codec: Codec, value: &F) -> Result<(u8, Vec<u8>), EncodeError> {
    let (mut number, mut bytes) = (0, Vec::new());
    codec.write::<Own<F>>(value, true, &mut bytes, |layout, _| number = layout)?;
    Ok((number, bytes))
}

fn decode<F: FieldValue>(layout: u8, bytes: &[u8]) -> Result<F, DecodeError> {
    super::decode::<Own<F>>(layout, bytes)
}

/// `leaf` and how many levels it has, and what nests it in more of them.
fn levels<F: FieldValue + PartialEq + Debug>(
    (leaf, of_leaf): (impl Fn() -> F, u32),
    (nested, more): (impl Fn(F) -> F, u32),
) {
    for &codec in Codec::ALL {
        let mut value = leaf();
        for _ in 0..(DEEPEST - of_leaf) / more {
            value = nested(value);
        }
        let (layout, bytes) = encode(codec, &value).unwrap();
        assert_eq!(decode::<F>(layout, &bytes).unwrap(), value);
        let error = encode(codec, &nested(value)).unwrap_err();
        assert_eq!(error.problem, Problem::TooDeep, "{codec}");
        assert!(error.to_string().contains("64 levels deep"), "{error}");
    }
}

#[test]
fn what_is_nested_as_deep_as_the_limit_comes_back_and_deeper_is_refused() {
    on_a_small_stack(|| {
        let one = || Expression::Number(1);
        levels((|| Value::from(1), 0), (|of| Value::Array(vec![of]), 1));
        levels((|| Value::from(1), 0), (|of| Value::from_iter([("a", of)]), 1));
        levels((|| Tree { children: vec![] }, 1), (|of| Tree { children: vec![of] }, 2));
        levels((|| Chain { next: None }, 1), (|of: Chain| Chain { next: Some(of.into()) }, 2));
        levels((|| Lists(vec![]), 1), (|of| Lists(vec![of]), 2));
        levels((one, 1), (|of: Expression| Expression::Not(of.into()), 1));
        levels((one, 1), (|of: Expression| Expression::Sum(one().into(), of.into()), 2));
        levels((one, 1), (|of: Expression| Expression::Named { of: of.into() }, 2));
        levels((|| Tagged::Node { of: vec![] }, 1), (|of| Tagged::Node { of: vec![of] }, 2));
        levels((|| Adjacent::Node(vec![]), 1), (|of| Adjacent::Node(vec![of]), 2));
        levels((|| Untagged::Number(1), 0), (|of| Untagged::List(vec![of]), 1));
        let flat = |of| Flat { entries: BTreeMap::from([("a".to_string(), of)]) };
        levels((|| Flat { entries: BTreeMap::new() }, 0), (flat, 1));
    });
}

/// So many layers around a leaf.
fn nested(layers: usize, open: &[u8], leaf: &[u8], close: &[u8]) -> Vec<u8> {
    [&open.repeat(layers), leaf, &close.repeat(layers)].concat()
}

/// Each type's own layers, in MessagePack and in JSON, as a store may hold them that others write to.
fn hostile<F: FieldValue>([open, leaf]: [&[u8]; 2], [json_open, json_leaf, json_close]: [&str; 3]) {
    for layers in [DEEPEST_READ as usize + 1, 100_000] {
        let messagepack = nested(layers, open, leaf, b"");
        let json =
            nested(layers, json_open.as_bytes(), json_leaf.as_bytes(), json_close.as_bytes());
        for (layout, bytes) in [(MESSAGEPACK, messagepack), (JSON, json)] {
            let error = decode::<F>(layout, &bytes).err().expect("it is too deep");
            assert_eq!(error.why, Unreadable::TooDeep, "{layout}, {layers}: {:?}", error.source);
        }
    }
}

#[test]
fn what_is_stored_deeper_than_that_takes_no_stack() {
    on_a_small_stack(|| {
        let lists = [&[0x91][..], &[0x90]];
        let in_json = ["[", "[]", "]"];
        hostile::<Value>(lists, in_json);
        hostile::<Lists>(lists, in_json);
        hostile::<Untagged>(lists, in_json);
        hostile::<Onion>([&[0x91], &[1]], ["[", "1", "]"]);
        let maps = [&b"\x81\xa1a"[..], b"\x80"];
        hostile::<Value>(maps, [r#"{"a":"#, "{}", "}"]);
        hostile::<Flat>(maps, [r#"{"a":"#, "{}", "}"]);
        let tree = [&b"\x81\xa8children\x91"[..], b"\x81\xa8children\x90"];
        hostile::<Tree>(tree, [r#"{"children":["#, r#"{"children":[]}"#, "]}"]);
        let chain = [&b"\x81\xa4next"[..], b"\x81\xa4next\xc0"];
        hostile::<Chain>(chain, [r#"{"next":"#, r#"{"next":null}"#, "}"]);
        let not = [&b"\x81\xa3Not"[..], b"\x81\xa6Number\x01"];
        hostile::<Expression>(not, [r#"{"Not":"#, r#"{"Number":1}"#, "}"]);
        let named = [&b"\x81\xa5Named\x81\xa2of"[..], b"\x81\xa6Number\x01"];
        hostile::<Expression>(named, [r#"{"Named":{"of":"#, r#"{"Number":1}"#, "}}"]);
        let tagged = [&b"\x82\xa4kind\xa4Node\xa2of\x91"[..], b"\x82\xa4kind\xa4Node\xa2of\x90"];
        let open = r#"{"kind":"Node","of":["#;
        hostile::<Tagged>(tagged, [open, r#"{"kind":"Node","of":[]}"#, "]}"]);
        hostile::<Adjacent>(tagged, [open, r#"{"kind":"Node","of":[]}"#, "]}"]);
    });
}

#[test]
fn nor_does_what_is_skipped_or_has_no_end() {
    on_a_small_stack(|| {
        for layers in [1_000, 100_000] {
            let lists = nested(layers, &[0x91], &[0x90], b"");
            let bytes = [&b"\x82\xa5known\x01\xa5other"[..], &lists].concat();
            assert!(decode::<Known>(MESSAGEPACK, &bytes).is_err());
            // Behind the value's end.
            assert!(decode::<u32>(MESSAGEPACK, &[&[1], &lists[..]].concat()).is_err());
            let lists = nested(layers, b"[", b"", b"]");
            let bytes = [&br#"{"known":1,"other":"#[..], &lists, b"}"].concat();
            // serde_json skips without recursion.
            assert_eq!(decode::<Known>(JSON, &bytes).unwrap(), Known { known: 1 });
            let bytes = [&br#"[1"#[..], &lists].concat();
            assert!(decode::<Vec<u32>>(JSON, &bytes).is_err());
        }
        for &codec in Codec::ALL {
            for (layout, bytes) in [
                encode(codec, &7_u32).unwrap(),
                encode(codec, &Some("x".to_string())).unwrap(),
                encode(codec, &vec![7_u32]).unwrap(),
                encode(codec, &[7_u8; 2]).unwrap(),
            ] {
                let error = decode::<Onion>(layout, &bytes).unwrap_err();
                assert_eq!(error.why, Unreadable::TooDeep, "{codec}");
                assert!(decode::<Chain>(layout, &bytes).is_err());
            }
            let (layout, bytes) = encode(codec, &Onion(None)).unwrap();
            assert_eq!(decode::<Onion>(layout, &bytes).unwrap(), Onion(None));
        }
    });
}
