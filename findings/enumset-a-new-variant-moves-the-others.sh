#!/usr/bin/env bash
# enumset: a set of an enum is stored as a number, by the places of its variants. A variant that is added between others
# makes other sets of all that are stored, and a removed one leaves without a word.
#
# Versions:  crates enumset 1.1.15, serde 1.0.229, serde_json 1.0.154, rmp-serde 1.3.1.
# Expected:  serde writes the variants of an enum by their names, in JSON and in MessagePack with names, and so it does
#            those of a set of them; variants can be sorted, and added wherever they belong. The enum here has serde's
#            derive.
# Seen:      the set does not ask serde for its variants: {Read, Write} is the number 3, in every format. To a build with
#            `Comment` between the two, 3 is {Read, Comment}, without an error. To one that has removed a variant, the
#            set is without it, also where it was the only one. With `#[enumset(serialize_repr = "list")]`, the names are
#            written, and all is as expected.
# Matters:   "what this user may do" in a session or a token: who could write may comment, or the other way round, and
#            whoever changes the enum sees no session in its file. No format or schema finds it: a number is a number.
#            Write the attribute before the first set is stored; later, the numbers cannot be read with it.
# Source:    https://docs.rs/enumset/1.1.15/enumset/derive.EnumSetType.html#options names the attribute.
set -euo pipefail

T=$(mktemp -d)
trap 'rm -rf "$T"' EXIT
command -v cargo >/dev/null || { echo "cargo is missing: install Rust"; exit 2; }
echo "crates enumset 1.1.15, serde 1.0.229, serde_json 1.0.154, rmp-serde 1.3.1"

mkdir "$T/src"
cat >"$T/Cargo.toml" <<'END'
[package]
name = "finding"
version = "0.0.0"
edition = "2024"

[dependencies]
enumset = { version = "=1.1.15", features = ["serde"] }
rmp-serde = "=1.3.1"
serde = { version = "=1.0.229", features = ["derive"] }
serde_json = "=1.0.154"
END
cat >"$T/src/main.rs" <<'END'
use std::{fmt::Debug, process::ExitCode};

use enumset::{EnumSet, EnumSetType};
use serde::{Deserialize, Serialize};

/// The rights of a build, as numbers and as names.
macro_rules! build {
    ($build:ident: $($right:ident)*) => {
        mod $build {
            use super::*;

            #[derive(Debug, Deserialize, EnumSetType, Serialize)]
            pub enum Right { $($right),* }

            #[derive(Debug, Deserialize, EnumSetType, Serialize)]
            #[enumset(serialize_repr = "list")]
            pub enum Named { $($right),* }
        }
    };
}

build!(old: Read Write Delete);
build!(added: Read Comment Write Delete);
build!(removed: Read Write);

fn check<O: EnumSetType, N: EnumSetType + Debug>(what: &str, old: EnumSet<O>, described: &str) -> bool
where
    EnumSet<O>: Serialize,
    EnumSet<N>: for<'de> Deserialize<'de>,
{
    let shown = |read: Option<EnumSet<N>>| read.map_or("an error".into(), |set| format!("{:?}", Vec::from_iter(set)));
    let (json, pack) = (serde_json::to_string(&old).unwrap(), rmp_serde::to_vec_named(&old).unwrap());
    let from_json = shown(serde_json::from_str(&json).ok());
    let from_pack = shown(rmp_serde::from_slice(&pack).ok());
    println!("{what}: {json} in JSON is read as {from_json}; from MessagePack, {from_pack}");
    from_json == described && from_pack == described
}

fn main() -> ExitCode {
    use old::{Named, Right};
    let (plain, named) = (Right::Read | Right::Write, Named::Read | Named::Write);
    let last = EnumSet::from(Right::Delete);
    let is_so = [
        check::<_, Right>("[Read, Write], by the same build", plain, "[Read, Write]"),
        check::<_, added::Right>("[Read, Write], with a new variant between", plain, "[Read, Comment]"),
        check::<_, removed::Right>("[Delete], without that variant", last, "[]"),
        check::<_, added::Named>("as a list, with a new variant between", named, "[Read, Write]"),
        check::<_, removed::Named>(
            "as a list, [Delete], without that variant",
            EnumSet::from(Named::Delete),
            "an error",
        ),
        check::<_, Named>("stored as a number, read as a list", plain, "an error"),
    ];
    if is_so == [true; 6] { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
END
cargo build --quiet --manifest-path "$T/Cargo.toml" || { echo "it could not be built"; exit 2; }
if cargo run --quiet --manifest-path "$T/Cargo.toml"; then
    echo "as described: a set is a number, and the places of the variants say what it means"
else
    echo "CHANGED: it no longer behaves as described"
    exit 1
fi
