#!/usr/bin/env bash
# serde: in an enum with `tag` or `untagged`, an address cannot be read from MessagePack or CBOR, or is read as another
# value; and a map whose keys are numbers cannot be read from JSON.
#
# Versions:  crates serde 1.0.229, serde_json 1.0.154, rmp-serde 1.3.1, ciborium 0.2.2.
# Expected:  a format that keeps `IpAddr` and `HashMap<u32, …>` keeps them wherever they stand: an attribute that says how
#            an enum is told apart has nothing to do with what is in its variants.
# Seen:      for `tag`, `untagged` and `flatten` serde puts what it reads into a buffer of its own, and reads the value out
#            of that. The buffer takes each format for one that people read: an address, which a binary format has as
#            four bytes, has to be a text there, and is not. And it does not know that JSON writes the keys of maps as
#            texts: "7" is no number any more. Where another variant takes those four bytes, there is no error: the
#            address comes back as a list.
# Matters:   "the device of this login, by its address" is saved in a session, and from the next request on it is an error
#            or a default. Changing the codec does not help: each has something that the other can. To read back what
#            is about to be stored is the only test that finds all of it.
# Source:    https://github.com/serde-rs/serde/issues/2172 and https://github.com/serde-rs/serde/issues/1183;
#            https://serde.rs/enum-representations.html does not mention it.
set -euo pipefail

T=$(mktemp -d)
trap 'rm -rf "$T"' EXIT
command -v cargo >/dev/null || { echo "cargo is missing: install Rust"; exit 2; }
echo "crates serde 1.0.229, serde_json 1.0.154, rmp-serde 1.3.1, ciborium 0.2.2"

mkdir "$T/src"
cat >"$T/Cargo.toml" <<'END'
[package]
name = "finding"
version = "0.0.0"
edition = "2024"

[dependencies]
ciborium = "=0.2.2"
rmp-serde = "=1.3.1"
serde = { version = "=1.0.229", features = ["derive"] }
serde_json = "=1.0.154"
END
cat >"$T/src/main.rs" <<'END'
use std::{collections::BTreeMap, fmt::Debug, net::Ipv4Addr, process::ExitCode};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Plain<X> {
    value: X,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind")]
enum Tagged<X> {
    One { value: X },
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum Untagged<X> {
    One { value: X },
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Flat<X> {
    #[serde(flatten)]
    inner: Plain<X>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum Host {
    Address(Ipv4Addr),
    Raw(Vec<u8>),
}

/// What comes back from JSON, MessagePack and CBOR: the same, another value, or nothing.
fn come_back<X: Serialize + DeserializeOwned + PartialEq + Debug>(value: &X) -> [&'static str; 3] {
    let json = serde_json::to_vec(value).unwrap();
    let pack = rmp_serde::to_vec_named(value).unwrap();
    let mut cbor = Vec::new();
    ciborium::into_writer(value, &mut cbor).unwrap();
    let read: [Result<X, String>; 3] = [
        serde_json::from_slice(&json).map_err(|error| error.to_string()),
        rmp_serde::from_slice(&pack).map_err(|error| error.to_string()),
        ciborium::from_reader(&cbor[..]).map_err(|error| error.to_string()),
    ];
    let words = read.each_ref().map(|read| match read {
        Ok(read) if read == value => "the same",
        Ok(_) => "another value",
        Err(_) => "an error",
    });
    println!("{value:?}:\n    JSON: {}, MessagePack: {}, CBOR: {}", words[0], words[1], words[2]);
    for read in read {
        match read {
            Ok(read) if read != *value => println!("    {read:?}"),
            Ok(_) => {}
            Err(error) => println!("    {error}"),
        }
    }
    words
}

fn main() -> ExitCode {
    let address = Ipv4Addr::new(192, 0, 2, 7);
    let map = || BTreeMap::from([(7_u32, 1_u32)]);
    let (same, error, other) = ("the same", "an error", "another value");
    let seen = [
        (come_back(&Plain { value: address }), [same, same, same]),
        (come_back(&Tagged::One { value: address }), [same, error, error]),
        (come_back(&Untagged::One { value: address }), [same, error, error]),
        (come_back(&Flat { inner: Plain { value: address } }), [same, error, error]),
        (come_back(&Host::Raw(vec![1, 2])), [same, same, same]),
        (come_back(&Host::Address(address)), [same, other, other]),
        (come_back(&Plain { value: map() }), [same, same, same]),
        (come_back(&Tagged::One { value: map() }), [error, same, same]),
        (come_back(&Untagged::One { value: map() }), [error, same, same]),
        (come_back(&Flat { inner: Plain { value: map() } }), [error, same, same]),
    ];
    if seen.iter().all(|(seen, described)| seen == described) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
END
cargo build --quiet --manifest-path "$T/Cargo.toml" || { echo "it could not be built"; exit 2; }
if cargo run --quiet --manifest-path "$T/Cargo.toml"; then
    echo "as described: it depends on the codec what a tagged enum can read"
else
    echo "CHANGED: it no longer behaves as described"
    exit 1
fi
