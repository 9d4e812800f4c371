#!/usr/bin/env bash
# bincode and postcard: with `skip_serializing_if` a struct decodes to other values, and succeeds.
#
# Versions:  crates bincode 2.0.1 (serde), postcard 1.1.3, serde 1.0.229.
# Expected:  the attribute, which everybody uses for JSON, has no effect in a format without names; or encoding
#            is an error, since serde tells the format which field is left out (`skip_field`, and a length that
#            is smaller by one); or decoding is.
# Seen:      both leave the field out, and read the bytes of the next fields in its place. Most values end in
#            an error by luck; some do not: `{ discount: None, qty: 1, price: 20000, tax: 19 }` comes back as a
#            line with a discount and another quantity and price, with all bytes consumed.
# Matters:   a cart that is stored in a session changes between two requests, without an error or a log line.
#            A codec without names has to refuse such a type when it encodes, or to check what it decoded.
# Source:    bincode's and postcard's serializers: SerializeStruct::skip_field is left at serde's default,
#            which does nothing.
set -euo pipefail

T=$(mktemp -d)
trap 'rm -rf "$T"' EXIT
command -v cargo >/dev/null || { echo "cargo is missing: install Rust"; exit 2; }
echo "crates bincode 2.0.1, postcard 1.1.3, serde 1.0.229"

mkdir "$T/src"
cat >"$T/Cargo.toml" <<'END'
[package]
name = "finding"
version = "0.0.0"
edition = "2024"

[dependencies]
bincode = { version = "=2.0.1", features = ["serde"] }
postcard = { version = "=1.1.3", features = ["use-std"] }
serde = { version = "=1.0.229", features = ["derive"] }
END
cat >"$T/src/main.rs" <<'END'
use std::process::ExitCode;

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Line {
    #[serde(skip_serializing_if = "Option::is_none")]
    discount: Option<u8>,
    qty: u8,
    price: u32,
    tax: u32,
}

fn main() -> ExitCode {
    let stored = Line { discount: None, qty: 1, price: 20_000, tax: 19 };
    println!("stored:    {stored:?}");

    let config = bincode::config::standard();
    let bytes = bincode::serde::encode_to_vec(&stored, config).unwrap();
    let (line, used): (Line, usize) = bincode::serde::decode_from_slice(&bytes, config).unwrap();
    println!("bincode:   {line:?}, {used} of {} bytes used", bytes.len());
    let bincode = line != stored && used == bytes.len();

    let bytes = postcard::to_stdvec(&stored).unwrap();
    let (line, rest): (Line, &[u8]) = postcard::take_from_bytes(&bytes).unwrap();
    println!("postcard:  {line:?}, {} of {} bytes used", bytes.len() - rest.len(), bytes.len());
    let postcard = line != stored && rest.is_empty();

    if bincode && postcard { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
END
cargo build --quiet --manifest-path "$T/Cargo.toml" || { echo "it could not be built"; exit 2; }
if cargo run --quiet --manifest-path "$T/Cargo.toml"; then
    echo "as described: other values, and no error"
else
    echo "CHANGED: it no longer behaves as described"
    exit 1
fi
