#!/usr/bin/env bash
# rkyv: a feature that any crate of the program turns on decides how all that is stored is read; what was written without
# it is read as other values, and passes the validation.
#
# Versions:  crate rkyv 0.8.18.
# Expected:  a crate's features are its own matter; that of another one may add something. Bytes that are of another
#            layout are found out: `access` and `from_bytes` look all of them over ("bytecheck").
# Seen:      `unaligned`, `little_endian`, `big_endian` and the `pointer_width`s are features, so that cargo turns them
#            on for the whole program if one crate asks for them. A session of the user 7 that was written without
#            `unaligned` is read with it as one of the user 4294967296, who has no teapots: without an error, since every
#            number is a valid one. With `big_endian`, it is the user 504403158265495552.
# Matters:   an update of some other crate that has begun to use rkyv, and asks for `unaligned`, makes other users of all
#            who are logged in, and no line of the application has changed. Name the format that you mean in your own
#            Cargo.toml (`little_endian`, `pointer_width_32`, `aligned`), so that a build with another one fails; and
#            write before the bytes which it was.
# Source:    https://docs.rs/rkyv/0.8.18/rkyv/#features: "format control".
set -euo pipefail

T=$(mktemp -d)
trap 'rm -rf "$T"' EXIT
command -v cargo >/dev/null || { echo "cargo is missing: install Rust"; exit 2; }
echo "crate rkyv 0.8.18"

mkdir "$T/src"
cat >"$T/Cargo.toml" <<'END'
[package]
name = "finding"
version = "0.0.0"
edition = "2024"

[dependencies]
other = { path = "other", optional = true }
rkyv = "=0.8.18"
END
cat >"$T/src/main.rs" <<'END'
use std::process::ExitCode;

use rkyv::{Archive, Deserialize, Serialize, rancor::Error, util::AlignedVec};

#[derive(Archive, Debug, Deserialize, Serialize)]
struct Session {
    user: u64,
    teapots: u32,
}

/// Writes a session into a file, or says whose is there.
fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    if arguments[1] == "write" {
        let bytes = rkyv::to_bytes::<Error>(&Session { user: 7, teapots: 1 }).unwrap();
        std::fs::write(&arguments[2], bytes).unwrap();
        return ExitCode::SUCCESS;
    }
    let mut bytes = AlignedVec::<16>::new();
    bytes.extend_from_slice(&std::fs::read(&arguments[2]).unwrap());
    match rkyv::from_bytes::<Session, Error>(&bytes) {
        Ok(session) => println!("user {}, teapots {}", session.user, session.teapots),
        Err(error) => println!("{error}"),
    }
    ExitCode::SUCCESS
}
END
# Another crate of the program, which stores something of its own.
mkdir -p "$T/other/src"
: >"$T/other/src/lib.rs"
cat >"$T/other/Cargo.toml" <<'END'
[package]
name = "other"
version = "0.0.0"
edition = "2024"

[features]
unaligned = ["rkyv/unaligned"]
big_endian = ["rkyv/big_endian"]

[dependencies]
rkyv = "=0.8.18"
END

cargo build --quiet --manifest-path "$T/Cargo.toml" || { echo "it could not be built"; exit 2; }
run() { cargo run --quiet --manifest-path "$T/Cargo.toml" "$@"; }
run -- write "$T/session"
failed=0
expect() { # what is seen, and the features of the build
    local seen
    seen=$(run "${@:2}" -- read "$T/session")
    echo "read ${*:2}: $seen"
    [ "$seen" = "$1" ] || failed=1
}
expect "user 7, teapots 1"
expect "user 7, teapots 1" --features other
expect "user 4294967296, teapots 0" --features other/unaligned
expect "user 504403158265495552, teapots 16777216" --features other/big_endian
if [ "$failed" = 0 ]; then
    echo "as described: a feature of another crate makes another user"
else
    echo "CHANGED: it no longer behaves as described"
    exit 1
fi
