#!/usr/bin/env bash
# serde_json: a feature that any crate of the program may turn on decides whether floats in tagged enums can be read, and
# what MessagePack and CBOR have of a `Value`.
#
# Versions:  crates serde 1.0.229, serde_json 1.0.154, rmp-serde 1.3.1, ciborium 0.2.2.
# Expected:  `arbitrary_precision` keeps the digits of large numbers in a `serde_json::Value`. Cargo turns it on for the
#            whole program if one crate asks for it; whoever has ordinary numbers does not notice.
# Seen:      two things change for all. An f64 in an enum with `tag` or `untagged` cannot be read from JSON any more
#            ("invalid type: map, expected f64"), whether it was written with the feature or without. And in any other
#            format a `Value` has, in place of the number 2, the map {"$serde_json::private::Number": "2"}: read without
#            the feature, it is that object, and no error.
# Matters:   a session that was stored before `cargo update` brought the feature is unreadable afterwards, or, when the
#            crate that asked for it is gone, has an object where its quantity was. The tests of either build are
#            green. `cargo tree -e features -i serde_json` says who asks. A `Value` that is kept across builds belongs
#            into JSON, whose text is the same with and without.
# Source:    https://github.com/serde-rs/json/issues/1108 and https://github.com/serde-rs/json/issues/559;
#            serde_json, src/number.rs: `TOKEN`.
set -euo pipefail

T=$(mktemp -d)
trap 'rm -rf "$T"' EXIT
command -v cargo >/dev/null || { echo "cargo is missing: install Rust"; exit 2; }
echo "crates serde 1.0.229, serde_json 1.0.154, rmp-serde 1.3.1, ciborium 0.2.2"

mkdir "$T/src" "$T/on" "$T/off"
cat >"$T/Cargo.toml" <<'END'
[package]
name = "finding"
version = "0.0.0"
edition = "2024"

[features]
# As if another crate asked for it.
on = ["serde_json/arbitrary_precision"]

[dependencies]
ciborium = "=0.2.2"
rmp-serde = "=1.3.1"
serde = { version = "=1.0.229", features = ["derive"] }
serde_json = "=1.0.154"
END
cat >"$T/src/main.rs" <<'END'
use std::{env, fmt::Debug, fs, path::Path, process::ExitCode};

use serde::{Deserialize, Serialize};
use serde_json::json;

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind")]
enum Discount {
    Rate { rate: f64 },
}

/// What was stored: in which format, and what is in it.
fn stored() -> [(&'static str, Vec<u8>); 4] {
    let cart = json!({ "qty": 2 });
    let mut cbor = Vec::new();
    ciborium::into_writer(&cart, &mut cbor).unwrap();
    [
        ("discount.json", serde_json::to_vec(&Discount::Rate { rate: 0.5 }).unwrap()),
        ("cart.json", serde_json::to_vec(&cart).unwrap()),
        ("cart.messagepack", rmp_serde::to_vec_named(&cart).unwrap()),
        ("cart.cbor", cbor),
    ]
}

fn outcome<X: PartialEq + Debug, E: Debug>(file: &str, read: Result<X, E>, expected: &X) -> &'static str {
    let words = match &read {
        Ok(read) if read == expected => "the same",
        Ok(_) => "another value",
        Err(_) => "an error",
    };
    println!("        {file:17} {words}{}", if words == "the same" { String::new() } else { format!(": {read:?}") });
    words
}

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().collect();
    let folder = Path::new(&arguments[2]);
    if arguments[1] == "write" {
        for (file, bytes) in stored() {
            fs::write(folder.join(file), bytes).unwrap();
        }
        return ExitCode::SUCCESS;
    }
    let (discount, cart) = (Discount::Rate { rate: 0.5 }, json!({ "qty": 2 }));
    let bytes = |file: &str| fs::read(folder.join(file)).unwrap();
    let seen = [
        outcome("discount.json", serde_json::from_slice(&bytes("discount.json")), &discount),
        outcome("cart.json", serde_json::from_slice(&bytes("cart.json")), &cart),
        outcome("cart.messagepack", rmp_serde::from_slice(&bytes("cart.messagepack")), &cart),
        outcome("cart.cbor", ciborium::from_reader(&bytes("cart.cbor")[..]), &cart),
    ];
    if seen.join(", ") == arguments[3] { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
END
build() { cargo build --quiet --manifest-path "$T/Cargo.toml" "$@" || { echo "it could not be built"; exit 2; }; }
run() { cargo run --quiet --manifest-path "$T/Cargo.toml" "${@:4}" -- "$1" "$2" "$3"; }
build
run write "$T/off" ""
build --features on
run write "$T/on" "" --features on
same="the same, the same, the same, the same"
is_so=yes
echo "read with the feature:"
echo "    what was written with it"
run read "$T/on" "an error, the same, the same, the same" --features on || is_so=no
echo "    what was written without"
run read "$T/off" "an error, the same, the same, the same" --features on || is_so=no
build
echo "read without the feature:"
echo "    what was written without"
run read "$T/off" "$same" || is_so=no
echo "    what was written with it"
run read "$T/on" "the same, the same, another value, another value" || is_so=no
if [ $is_so = yes ]; then
    echo "as described: the feature of one crate decides for all"
else
    echo "CHANGED: it no longer behaves as described"
    exit 1
fi
