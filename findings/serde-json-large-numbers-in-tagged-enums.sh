#!/usr/bin/env bash
# serde and serde_json: a u128 that JSON stores and reads cannot be read inside of a tagged enum, however
# small it is.
#
# Versions:  crates serde 1.0.229, serde_json 1.0.154.
# Expected:  what serde_json has written it reads back into the same type. A struct with a u128 does so, also
#            beyond 64 bits; an enum of such a struct with `#[serde(tag = "…")]` is one more name beside it.
# Seen:      it is written, and reading fails: "u128 is not supported", also for the number 7. So it is with
#            `flatten` and, with a message that names no cause, `untagged`: for all three serde first puts the
#            object into a buffer of its own, and asks the buffer for a u128, which it has no kind for.
# Matters:   an id or an amount of money as u128 makes a session that is saved without an error and can never
#            be loaded. Reading back once what is about to be stored is the only test that finds it.
# Source:    https://serde.rs/enum-representations.html does not mention it; serde's `private::de::Content` has
#            no variant for 128 bits.
set -euo pipefail

T=$(mktemp -d)
trap 'rm -rf "$T"' EXIT
command -v cargo >/dev/null || { echo "cargo is missing: install Rust"; exit 2; }
echo "crates serde 1.0.229, serde_json 1.0.154"

mkdir "$T/src"
cat >"$T/Cargo.toml" <<'END'
[package]
name = "finding"
version = "0.0.0"
edition = "2024"

[dependencies]
serde = { version = "=1.0.229", features = ["derive"] }
serde_json = "=1.0.154"
END
cat >"$T/src/main.rs" <<'END'
use std::{fmt::Debug, process::ExitCode};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Plain {
    cents: u128,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum External {
    Paid { cents: u128 },
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "state")]
enum Tagged {
    Paid { cents: u128 },
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum Untagged {
    Paid { cents: u128 },
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Flat {
    #[serde(flatten)]
    plain: Plain,
}

fn round<T: Serialize + DeserializeOwned + PartialEq + Debug>(name: &str, value: T) -> bool {
    let text = serde_json::to_string(&value).expect("all of them are written");
    let read = serde_json::from_str::<T>(&text);
    let is_back = read.as_ref().is_ok_and(|read| *read == value);
    let seen = read.map_or_else(|error| error.to_string(), |_| "read back".into());
    println!("{name:10} {text:42} {seen}");
    is_back
}

fn main() -> ExitCode {
    let back = [
        round("struct", Plain { cents: 7 }),
        round("struct", Plain { cents: 1 << 70 }),
        round("enum", External::Paid { cents: 7 }),
        round("tag", Tagged::Paid { cents: 7 }),
        round("untagged", Untagged::Paid { cents: 7 }),
        round("flatten", Flat { plain: Plain { cents: 7 } }),
    ];
    println!("{back:?}");
    if back[..3] == [true; 3] && !back[3] { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
END
cargo build --quiet --manifest-path "$T/Cargo.toml" || { echo "it could not be built"; exit 2; }
if cargo run --quiet --manifest-path "$T/Cargo.toml"; then
    echo "as described: written, and not to be read"
else
    echo "CHANGED: it no longer behaves as described"
    exit 1
fi
