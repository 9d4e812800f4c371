#!/usr/bin/env bash
# cookie and axum-extra: of two cookies of one name a jar keeps the last, and browsers send the best one first.
#
# Versions:  crates cookie 0.18.2, axum-extra 0.12.6.
# Expected:  browsers list the cookie with the longest path first (RFC 6265, 5.4), and readers take the first
#            of a name, as Go's net/http and Express do. And a jar to which two cookies with different paths are
#            added answers with two `Set-Cookie` lines: to a browser they are two cookies.
# Seen:      a jar is a set by name alone. Of `id=shop; id=site` it keeps `site`, the *less* specific. Of two
#            that are added, the second replaces the first without a word: one line goes out.
# Matters:   an application below /shop reads the cookie of its neighbour at /, and never its own. And a
#            session layer that uses a jar cannot remove its cookie from an old path and set it at a new one
#            in one response. Read the header in order, and append lines.
# Source:    cookie, src/jar.rs: `HashSet<DeltaCookie>`, compared by name; axum-extra, CookieJar::from_headers.
set -euo pipefail

T=$(mktemp -d)
trap 'rm -rf "$T"' EXIT
command -v cargo >/dev/null || { echo "cargo is missing: install Rust"; exit 2; }
echo "crates cookie 0.18.2, axum-extra 0.12.6"

mkdir "$T/src"
cat >"$T/Cargo.toml" <<'END'
[package]
name = "finding"
version = "0.0.0"
edition = "2024"

[dependencies]
axum-extra = { version = "=0.12.6", features = ["cookie"] }
cookie = "=0.18.2"
http = "=1.5.0"
END
cat >"$T/src/main.rs" <<'END'
use std::process::ExitCode;

use axum_extra::extract::CookieJar;
use cookie::Cookie;
use http::{HeaderMap, HeaderValue, header::COOKIE};

fn main() -> ExitCode {
    let mut headers = HeaderMap::new();
    headers.insert(COOKIE, HeaderValue::from_static("id=shop; id=site"));
    let jar = CookieJar::from_headers(&headers);
    let read = jar.get("id").unwrap().value().to_owned();
    println!("Cookie: id=shop; id=site              the jar reads: {read}");

    let mut jar = cookie::CookieJar::new();
    jar.add(Cookie::build(("id", "")).path("/old").removal());
    jar.add(Cookie::build(("id", "new")).path("/"));
    let lines: Vec<_> = jar.delta().map(|cookie| cookie.to_string()).collect();
    println!("remove at /old, then set at /         the jar sends: {lines:?}");

    let as_described = read == "site" && lines == ["id=new; Path=/"];
    if as_described { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
END
cargo build --quiet --manifest-path "$T/Cargo.toml" || { echo "it could not be built"; exit 2; }
if cargo run --quiet --manifest-path "$T/Cargo.toml"; then
    echo "as described: one cookie for a name, and the last one"
else
    echo "CHANGED: it no longer behaves as described"
    exit 1
fi
