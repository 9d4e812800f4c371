#!/usr/bin/env bash
# serde: `#[serde(flatten)]` on an `Option` makes `None` of whatever cannot be read in it, without an error.
#
# Versions:  crates serde 1.0.229, serde_json 1.0.154, rmp-serde 1.3.1.
# Expected:  an `Option` is `None` if nothing of it is there. If it is there and one of its fields has another type now,
#            or was renamed, that is an error, as it is for every other `Option` and for a struct that is flattened
#            without one.
# Seen:      it is `None`, and all its fields are gone: the street because the postcode is a text now, the user because a
#            new field has no default. In JSON as in MessagePack. What is saved afterwards has nothing of it.
# Matters:   "the fields of a login, if there is one" in a session, flattened so that they stand beside the others: a
#            build in which one field of it has changed reads everybody as a stranger, without a line in any log, and
#            where an error would have kept what is stored, the next save is without. Give each field that is added there
#            a `default`, keep types, or do not flatten.
# Source:    https://github.com/serde-rs/serde/issues/1880
set -euo pipefail

T=$(mktemp -d)
trap 'rm -rf "$T"' EXIT
command -v cargo >/dev/null || { echo "cargo is missing: install Rust"; exit 2; }
echo "crates serde 1.0.229, serde_json 1.0.154, rmp-serde 1.3.1"

mkdir "$T/src"
cat >"$T/Cargo.toml" <<'END'
[package]
name = "finding"
version = "0.0.0"
edition = "2024"

[dependencies]
rmp-serde = "=1.3.1"
serde = { version = "=1.0.229", features = ["derive"] }
serde_json = "=1.0.154"
END
cat >"$T/src/main.rs" <<'END'
use std::process::ExitCode;

use serde::{Deserialize, Serialize, de::DeserializeOwned};

#[derive(Deserialize, Serialize)]
struct Login<P> {
    user: u32,
    postcode: P,
}

/// What the build after the next has added.
#[derive(Deserialize, Serialize)]
struct More {
    user: u32,
    postcode: u32,
    role: String,
}

#[derive(Deserialize, Serialize)]
struct Flattened<L> {
    teapots: u32,
    #[serde(flatten)]
    login: Option<L>,
}

#[derive(Deserialize, Serialize)]
struct Inside<L> {
    teapots: u32,
    login: Option<L>,
}

#[derive(Deserialize, Serialize)]
struct Bare<L> {
    teapots: u32,
    #[serde(flatten)]
    login: L,
}

/// What the new type makes of a value of the old one, in JSON and MessagePack.
fn read<T: DeserializeOwned>(old: &impl Serialize, login: impl Fn(&T) -> bool) -> [&'static str; 2] {
    let says = |read: Option<T>| match read {
        Some(value) if login(&value) => "read",
        Some(_) => "None",
        None => "an error",
    };
    let json = serde_json::to_vec(old).unwrap();
    let pack = rmp_serde::to_vec_named(old).unwrap();
    [says(serde_json::from_slice(&json).ok()), says(rmp_serde::from_slice(&pack).ok())]
}

fn main() -> ExitCode {
    let (teapots, login) = (1, || Login { user: 7, postcode: 12345_u32 });
    let flattened = Flattened { teapots, login: Some(login()) };
    let inside = Inside { teapots, login: Some(login()) };
    let bare = Bare { teapots, login: login() };
    let seen = [
        (
            "Option, flattened; the same type",
            read(&flattened, |new: &Flattened<Login<u32>>| new.login.is_some()),
            "read",
        ),
        (
            "Option, flattened; a field is a text now",
            read(&flattened, |new: &Flattened<Login<String>>| new.login.is_some()),
            "None",
        ),
        ("Option, flattened; a field was added", read(&flattened, |new: &Flattened<More>| new.login.is_some()), "None"),
        (
            "Option, not flattened; a field is a text now",
            read(&inside, |new: &Inside<Login<String>>| new.login.is_some()),
            "an error",
        ),
        (
            "Option, not flattened; a field was added",
            read(&inside, |new: &Inside<More>| new.login.is_some()),
            "an error",
        ),
        ("flattened, no Option; a field is a text now", read(&bare, |_: &Bare<Login<String>>| true), "an error"),
        ("flattened, no Option; a field was added", read(&bare, |_: &Bare<More>| true), "an error"),
    ];
    for (what, [json, pack], _) in &seen {
        println!("{what}: JSON {json}, MessagePack {pack}");
    }
    if seen.iter().all(|(_, seen, described)| *seen == [*described; 2]) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
END
cargo build --quiet --manifest-path "$T/Cargo.toml" || { echo "it could not be built"; exit 2; }
if cargo run --quiet --manifest-path "$T/Cargo.toml"; then
    echo "as described: an error within a flattened Option is None"
else
    echo "CHANGED: it no longer behaves as described"
    exit 1
fi
