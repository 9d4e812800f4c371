#!/usr/bin/env bash
# ciborium: a type that reads its text as `&str` would, such as a `Url`, is written at any length, and read back up to 4096
# bytes.
#
# Versions:  crates ciborium 0.2.2, url 2.5.8, serde_with 3.18.0.
# Expected:  what `into_writer` has written, `from_reader` reads: a type comes back at every length, or at none.
# Seen:      a `Url` of 4096 bytes comes back; one of 4097 is an error, "invalid type: string, expected str". So it is with
#            what `serde_with::DisplayFromStr` reads. A `String` comes back at any length, as do all of them from JSON.
# Matters:   an address with a long query, or a picture as `data:` URL, is saved and cannot be read by the next request; no
#            test with short values shows it. Keep such values as `String`, and parse them after reading.
# Source:    https://docs.rs/ciborium/0.2.2/ciborium/de/fn.from_reader_with_buffer.html has a buffer for what is read so, and
#            does not say that `from_reader` has one of 4096 bytes.
set -euo pipefail

T=$(mktemp -d)
trap 'rm -rf "$T"' EXIT
command -v cargo >/dev/null || { echo "cargo is missing: install Rust"; exit 2; }
echo "crates ciborium 0.2.2, url 2.5.8, serde_with 3.18.0"

mkdir "$T/src"
cat >"$T/Cargo.toml" <<'END'
[package]
name = "finding"
version = "0.0.0"
edition = "2024"

[dependencies]
ciborium = "=0.2.2"
serde = { version = "1", features = ["derive"] }
serde_json = "1"
serde_with = "=3.18.0"
url = { version = "=2.5.8", features = ["serde"] }
END
cat >"$T/src/main.rs" <<'END'
use std::{fmt::Debug, process::ExitCode};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_with::{DisplayFromStr, serde_as};
use url::Url;

/// A text by its `Display`, as a version or a media type would be.
#[serde_as]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Parsed(#[serde_as(as = "DisplayFromStr")] String);

/// Whether CBOR gives it back, and whether JSON does.
fn comes_back<T: Serialize + DeserializeOwned + PartialEq + Debug>(what: &str, value: &T) -> (bool, bool) {
    let mut bytes = Vec::new();
    ciborium::into_writer(value, &mut bytes).unwrap();
    let read = ciborium::from_reader::<T, _>(&bytes[..]);
    let json = serde_json::from_str::<T>(&serde_json::to_string(value).unwrap());
    let seen = match &read {
        Ok(read) if read == value => "comes back".to_string(),
        Ok(_) => "comes back as another value".to_string(),
        Err(error) => format!("error: {error}"),
    };
    println!("{what:38} {seen}");
    (read.is_ok_and(|read| read == *value), json.is_ok_and(|read| read == *value))
}

fn main() -> ExitCode {
    let address = |length: usize| {
        let start = "https://example.com/?q=";
        Url::parse(&format!("{start}{}", "x".repeat(length - start.len()))).unwrap()
    };
    let text = |length| "x".repeat(length);
    let seen = [
        comes_back("a Url of 4096 bytes", &address(4096)),
        comes_back("a Url of 4097 bytes", &address(4097)),
        comes_back("DisplayFromStr, 4096 bytes", &Parsed(text(4096))),
        comes_back("DisplayFromStr, 4097 bytes", &Parsed(text(4097))),
        comes_back("a String of 100,000 bytes", &text(100_000)),
    ];
    let expected = [true, false, true, false, true].map(|in_cbor| (in_cbor, true));
    if seen == expected { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
END
cargo build --quiet --manifest-path "$T/Cargo.toml" || { echo "it could not be built"; exit 2; }
if cargo run --quiet --manifest-path "$T/Cargo.toml"; then
    echo "as described: 4096 bytes are read, and one more is not"
else
    echo "CHANGED: it no longer behaves as described"
    exit 1
fi
