#!/usr/bin/env bash
# reqwest's cookie jar (cookie_store): of two cookies of one name either may come first, another one each time.
#
# Versions:  crates reqwest 0.13.5 with `cookies`, cookie_store 0.22.1.
# Expected:  as from browsers: the cookie with the longer path first, and of those with equal paths the older one (RFC 6265,
#            5.4). Servers take the first of a name, or the last, and rely on that.
# Seen:      the order is that of a HashMap, whose seed is another one in each process and each jar. Below /shop, where a
#            browser sends "id=shop; id=site", the jar sends that or "id=site; id=shop". The order of the others changes,
#            too.
# Matters:   a test of an application that has two cookies of one name, its own and a neighbour's, passes and fails by
#            chance, and a client that is written with it is logged in now and then. It says nothing about what a
#            browser would do. Test with a jar that sorts, or turn on cookie_store's feature `preserve_order` (which
#            keeps the order in which they were set, and does not sort by path).
# Source:    https://www.rfc-editor.org/rfc/rfc6265#section-5.4; cookie_store, src/cookie_store.rs: `get_request_values`.
set -euo pipefail

T=$(mktemp -d)
trap 'rm -rf "$T"' EXIT
command -v cargo >/dev/null || { echo "cargo is missing: install Rust"; exit 2; }
echo "crates reqwest 0.13.5, cookie_store 0.22.1"

mkdir "$T/src"
cat >"$T/Cargo.toml" <<'END'
[package]
name = "finding"
version = "0.0.0"
edition = "2024"

[dependencies]
cookie_store = "=0.22.1"
reqwest = { version = "=0.13.5", default-features = false, features = ["cookies"] }
END
cat >"$T/src/main.rs" <<'END'
use std::{collections::BTreeMap, process::ExitCode};

use reqwest::{Url, cookie::{CookieStore, Jar}};

fn main() -> ExitCode {
    let below_shop: Url = "http://shop.example/shop/cart".parse().unwrap();
    let mut seen: BTreeMap<String, u32> = BTreeMap::new();
    for _ in 0..100 {
        let jar = Jar::default();
        for cookie in ["id=site; Path=/", "id=shop; Path=/shop"] {
            jar.add_cookie_str(cookie, &below_shop);
        }
        let header = jar.cookies(&below_shop).unwrap();
        *seen.entry(header.to_str().unwrap().to_string()).or_default() += 1;
    }
    for (header, times) in &seen {
        println!("{times:3} of 100 jars send Cookie: {header}");
    }
    let both = ["id=shop; id=site", "id=site; id=shop"];
    if seen.keys().eq(both) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
END
cargo build --quiet --manifest-path "$T/Cargo.toml" || { echo "it could not be built"; exit 2; }
if cargo run --quiet --manifest-path "$T/Cargo.toml"; then
    echo "as described: either is the first"
else
    echo "CHANGED: it no longer behaves as described"
    exit 1
fi
