#!/usr/bin/env bash
# serde: a field of type `Option` may be missing; with `with` or `deserialize_with` on it, it must not.
#
# Versions:  crates serde 1.0.229, serde_json 1.0.154, serde_with 3.25.0, chrono 0.4.45.
# Expected:  an `Option` that was added to a struct is `None` where what is stored does not have it yet: serde says so,
#            and it is what everybody relies on. How the value looks that is there, which `with` says, has nothing to do
#            with that.
# Seen:      "missing field `last_seen`", though the function that is named after `with` makes `Option`s, as chrono's
#            `ts_seconds_option` does: serde does not ask it. With `default` beside it, the field is `None`; serde_with's
#            macro adds that, but only where the type is written as `Option<…>`. With `skip_serializing_if`, no `None`
#            comes back that the type itself has written.
# Matters:   a build that adds `last_seen: Option<DateTime<Utc>>` with `ts_seconds_option` to what a session holds cannot
#            read one session that is stored: all are logged out, or have an empty cart, and a test that writes and reads
#            with the new type shows nothing. Write `default` wherever there is a `with` on an `Option`.
# Source:    https://github.com/serde-rs/serde/issues/2878
set -euo pipefail

T=$(mktemp -d)
trap 'rm -rf "$T"' EXIT
command -v cargo >/dev/null || { echo "cargo is missing: install Rust"; exit 2; }
echo "crates serde 1.0.229, serde_json 1.0.154, serde_with 3.25.0, chrono 0.4.45"

mkdir "$T/src"
cat >"$T/Cargo.toml" <<'END'
[package]
name = "finding"
version = "0.0.0"
edition = "2024"

[dependencies]
chrono = { version = "=0.4.45", features = ["serde"] }
serde = { version = "=1.0.229", features = ["derive"] }
serde_json = "=1.0.154"
serde_with = "=3.25.0"
END
cat >"$T/src/main.rs" <<'END'
use std::process::ExitCode;

use chrono::{DateTime, Utc, serde::ts_seconds_option};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_with::{DisplayFromStr, serde_as};

type Time = Option<DateTime<Utc>>;

#[derive(Deserialize, Serialize)]
struct Plain {
    user: u32,
    last_seen: Time,
}

#[derive(Deserialize, Serialize)]
struct With {
    user: u32,
    #[serde(with = "ts_seconds_option")]
    last_seen: Time,
}

#[derive(Deserialize, Serialize)]
struct Reads {
    user: u32,
    #[serde(deserialize_with = "ts_seconds_option::deserialize")]
    last_seen: Time,
}

#[derive(Default, Deserialize, Serialize)]
struct Skips {
    user: u32,
    #[serde(with = "ts_seconds_option", skip_serializing_if = "Option::is_none")]
    last_seen: Time,
}

#[derive(Deserialize, Serialize)]
struct Defaults {
    user: u32,
    #[serde(default, with = "ts_seconds_option")]
    last_seen: Time,
}

/// The macro of serde_with adds the `default` by itself.
#[serde_as]
#[derive(Deserialize, Serialize)]
struct As {
    user: u32,
    #[serde_as(as = "Option<DisplayFromStr>")]
    last_seen: Option<DateTime<Utc>>,
}

/// Where it does not see that the type is an `Option`, it does not.
#[serde_as]
#[derive(Deserialize, Serialize)]
struct AsNamed {
    user: u32,
    #[serde_as(as = "Option<DisplayFromStr>")]
    last_seen: Time,
}

fn read<T: DeserializeOwned>(what: &str, stored: &str) -> bool {
    let read = serde_json::from_str::<T>(stored);
    println!("{what}, of {stored}: {}", read.as_ref().map_or_else(|error| error.to_string(), |_| "read".into()));
    read.is_ok()
}

fn main() -> ExitCode {
    // As the build before has written it.
    let old = r#"{"user":7}"#;
    let skipped = serde_json::to_string(&Skips { user: 7, ..Skips::default() }).unwrap();
    let seen = [
        (read::<Plain>("an Option", old), true),
        (read::<With>("with = …", old), false),
        (read::<Reads>("deserialize_with = …", old), false),
        (read::<Skips>("with, skip_serializing_if = …", &skipped), false),
        (read::<Defaults>("default, with = …", old), true),
        (read::<As>("serde_as(as = …)", old), true),
        (read::<AsNamed>("serde_as(as = …), by another name of the type", old), false),
    ];
    if seen.iter().all(|(seen, described)| seen == described) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
END
cargo build --quiet --manifest-path "$T/Cargo.toml" || { echo "it could not be built"; exit 2; }
if cargo run --quiet --manifest-path "$T/Cargo.toml"; then
    echo "as described: an Option with a with has to be there"
else
    echo "CHANGED: it no longer behaves as described"
    exit 1
fi
