#!/usr/bin/env bash
# bytesize: a `ByteSize` is written into JSON as people read it, and read back rounded to a tenth of its unit.
#
# Versions:  crates bytesize 2.7.0, serde_json 1.0.154, rmp-serde 1.3.1.
# Expected:  a newtype of a `u64` is a number, or a text from which the same number comes back. JSON is readable anyway.
# Seen:      a format that people read gets what `Display` prints: 1234567 bytes are "1.2 MiB", and those are 1258291. It
#            is no error, and written again it is the same text, so that no comparison of what is written finds it. A
#            format that they do not read gets the number. Sizes below a kibibyte, and those that are whole tenths of
#            their unit, come back, which are the ones in tests.
# Matters:   "what this visitor has uploaded" in a session or a column of JSON: 900 bytes more each time that it is read,
#            added to and written is nothing at 900 MiB, where a tenth is 100 KiB: the sum never grows, and the quota is
#            never reached. Keep the `u64`, or write `#[serde(with = "…")]`.
# Source:    https://docs.rs/bytesize/2.7.0/bytesize/#serde.
set -euo pipefail

T=$(mktemp -d)
trap 'rm -rf "$T"' EXIT
command -v cargo >/dev/null || { echo "cargo is missing: install Rust"; exit 2; }
echo "crates bytesize 2.7.0, serde_json 1.0.154, rmp-serde 1.3.1"

mkdir "$T/src"
cat >"$T/Cargo.toml" <<'END'
[package]
name = "finding"
version = "0.0.0"
edition = "2024"

[dependencies]
bytesize = { version = "=2.7.0", features = ["serde"] }
rmp-serde = "=1.3.1"
serde_json = "=1.0.154"
END
cat >"$T/src/main.rs" <<'END'
use std::process::ExitCode;

use bytesize::ByteSize;

/// A size by way of JSON, the text there, and by way of MessagePack.
fn come_back(size: u64) -> (u64, String, u64) {
    let json = serde_json::to_string(&ByteSize(size)).unwrap();
    let from_json: ByteSize = serde_json::from_str(&json).unwrap();
    assert_eq!(serde_json::to_string(&from_json).unwrap(), json);
    let pack = rmp_serde::to_vec(&ByteSize(size)).unwrap();
    let from_pack: ByteSize = rmp_serde::from_slice(&pack).unwrap();
    (from_json.0, json, from_pack.0)
}

fn main() -> ExitCode {
    let mut is_so = true;
    for (size, described) in [(900, 900), (1536, 1536), (1_000_000, 1_000_038), (1_234_567, 1_258_291)] {
        let (from_json, json, from_pack) = come_back(size);
        println!("{size}: {json} in JSON, which is {from_json}; by way of MessagePack {from_pack}");
        is_so &= from_json == described && from_pack == size;
    }

    // A thousand uploads of 900 bytes, with what was uploaded before kept in JSON.
    let before = ByteSize::mib(900).0;
    let mut sum = before;
    for _ in 0..1000 {
        sum = come_back(sum + 900).0;
    }
    println!("900 MiB and a thousand times 900 bytes: {} more than before", sum - before);
    is_so &= sum == before;
    if is_so { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
END
cargo build --quiet --manifest-path "$T/Cargo.toml" || { echo "it could not be built"; exit 2; }
if cargo run --quiet --manifest-path "$T/Cargo.toml"; then
    echo "as described: in JSON a size is what people read of it"
else
    echo "CHANGED: it no longer behaves as described"
    exit 1
fi
