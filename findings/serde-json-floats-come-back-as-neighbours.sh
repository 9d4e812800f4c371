#!/usr/bin/env bash
# serde_json: of floats that were computed, each tenth comes back from JSON as the float beside it.
#
# Version:   crate serde_json 1.0.154, without its feature `float_roundtrip`, which is off by default.
# Expected:  an f64 is written with as many digits as tell it from all others, and those digits are read as that f64: the
#            standard library, and JavaScript, do both. So does serde_json, whose digits are right.
# Seen:      the digits are right, and reading takes a short cut: of a million floats between 0 and 1000 some 105,000 come
#            back as another one, by one unit in the last place. The standard library reads the same text correctly.
#            Prices like 19.99, which one writes into tests, are all right: it takes fifteen digits or more.
# Matters:   a sum, a place on a map or a score changes by being saved in a session, and is no longer equal to what it was:
#            "has the total changed since it was shown?" is yes, and a value that is compared in order to save only
#            what has changed is saved again. Any crate in the program that asks for the feature cures it, for
#            all, and brings it back when it is removed. Ask for `float_roundtrip` yourself.
# Source:    https://docs.rs/crate/serde_json/1.0.154/features, `float_roundtrip`: "Use sufficient precision when parsing
#            fixed precision floats from JSON to ensure that they maintain accuracy when round-tripped through JSON".
set -euo pipefail

T=$(mktemp -d)
trap 'rm -rf "$T"' EXIT
command -v cargo >/dev/null || { echo "cargo is missing: install Rust"; exit 2; }
echo "crate serde_json 1.0.154"

mkdir "$T/src"
cat >"$T/Cargo.toml" <<'END'
[package]
name = "finding"
version = "0.0.0"
edition = "2024"

[features]
cured = ["serde_json/float_roundtrip"]

[dependencies]
serde_json = "=1.0.154"
END
cat >"$T/src/main.rs" <<'END'
use std::process::ExitCode;

/// How many of them come back as another one from JSON, and from the same text by the standard library.
fn others(floats: impl Iterator<Item = f64>) -> (u32, u32, Option<(f64, f64)>) {
    let (mut by_json, mut by_std, mut first) = (0, 0, None);
    for float in floats {
        let text = serde_json::to_string(&float).unwrap();
        let read: f64 = serde_json::from_str(&text).unwrap();
        if read != float {
            by_json += 1;
            first.get_or_insert((float, read));
            assert_eq!(read.to_bits().abs_diff(float.to_bits()), 1, "only its neighbour");
        }
        by_std += u32::from(text.parse::<f64>().unwrap() != float);
    }
    (by_json, by_std, first)
}

fn main() -> ExitCode {
    let is_cured = cfg!(feature = "cured");
    println!("float_roundtrip is {}", if is_cured { "on" } else { "off, as by default" });
    let mut state = 12345_u64;
    let computed = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as f64 / (1_u64 << 53) as f64 * 1000.0
    });
    let computed = others(computed.take(1_000_000));
    let prices = others((0..1_000_000).map(|cents| f64::from(cents) / 100.0));
    for (what, (by_json, by_std, first)) in [("computed", computed), ("prices", prices)] {
        println!("    of a million {what}, {by_json} are another one from JSON, {by_std} by the standard library");
        if let Some((float, read)) = first {
            println!("        as {float:?}, which comes back as {read:?}");
        }
    }
    let described = if is_cured { 0..=0 } else { 50_000..=200_000 };
    let is_so = described.contains(&computed.0) && computed.1 == 0 && (prices.0, prices.1) == (0, 0);
    if is_so { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
END
cargo build --quiet --release --manifest-path "$T/Cargo.toml" || { echo "it could not be built"; exit 2; }
if cargo run --quiet --release --manifest-path "$T/Cargo.toml" &&
    cargo run --quiet --release --manifest-path "$T/Cargo.toml" --features cured; then
    echo "as described: each tenth comes back as its neighbour, unless somebody asks for the feature"
else
    echo "CHANGED: it no longer behaves as described"
    exit 1
fi
