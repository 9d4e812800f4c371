#!/usr/bin/env bash
# http and axum: `headers.extend(other)` drops a cookie that is there, and `headers.extend(other.iter()…)` keeps it.
#
# Versions:  crates http 1.5.0, axum 0.8.9, axum-extra 0.12.6.
# Expected:  a `HeaderMap` has several values for a name, and `extend` adds to what is there, as it does to each
#            collection. That a map is given by itself or entry by entry is a matter of taste.
# Seen:      `HeaderMap` has two `extend`s. With another `HeaderMap`, the names of that one *replace* what was there: of
#            three `Set-Cookie` lines the first is gone. With pairs of a name and a value, they are appended. axum uses
#            the first for a `HeaderMap` in a response: `(jar, headers, page)` loses the jar's cookie if `headers` has
#            one, and `(headers, jar, page)` has all. So does an array of headers replace, also its own first cookie.
# Matters:   a response of another service that is handed on with its headers, or a middleware that adds what it has
#            collected, takes the session's cookie away without a word: the login was good, and the browser never hears of
#            it. Append `Set-Cookie` line by line, or put what may add cookies inside of the layer that sets the session's.
# Source:    http, src/header/map.rs: `impl Extend<(Option<HeaderName>, T)>` and `impl Extend<(HeaderName, T)>`;
#            axum-core, src/response/into_response_parts.rs.
set -euo pipefail

T=$(mktemp -d)
trap 'rm -rf "$T"' EXIT
command -v cargo >/dev/null || { echo "cargo is missing: install Rust"; exit 2; }
echo "crates http 1.5.0, axum 0.8.9, axum-extra 0.12.6"

mkdir "$T/src"
cat >"$T/Cargo.toml" <<'END'
[package]
name = "finding"
version = "0.0.0"
edition = "2024"

[dependencies]
axum = "=0.8.9"
axum-extra = { version = "=0.12.6", features = ["cookie"] }
http = "=1.5.0"
END
cat >"$T/src/main.rs" <<'END'
use std::process::ExitCode;

use axum::response::IntoResponse;
use axum_extra::extract::{CookieJar, cookie::Cookie};
use http::{HeaderMap, HeaderValue, header::SET_COOKIE};

fn cookies(headers: &HeaderMap) -> Vec<&str> {
    headers.get_all(SET_COOKIE).iter().map(|line| line.to_str().unwrap()).collect()
}

fn is(what: &str, headers: &HeaderMap, described: &[&str]) -> bool {
    println!("{what:28} {:?}", cookies(headers));
    cookies(headers) == described
}

fn main() -> ExitCode {
    let mut own = HeaderMap::new();
    own.append(SET_COOKIE, HeaderValue::from_static("id=7"));
    let mut other = HeaderMap::new();
    other.append(SET_COOKIE, HeaderValue::from_static("theme=dark"));
    other.append(SET_COOKIE, HeaderValue::from_static("lang=en"));
    let jar = || CookieJar::new().add(Cookie::new("id", "7"));

    let mut with_map = own.clone();
    with_map.extend(other.clone());
    let mut with_pairs = own;
    with_pairs.extend(other.iter().map(|(name, value)| (name.clone(), value.clone())));
    let behind_jar = (jar(), other.clone(), "page").into_response();
    let before_jar = (other, jar(), "page").into_response();
    let array = [("set-cookie", "theme=dark"), ("set-cookie", "lang=en")];
    let array_behind_jar = (jar(), array, "page").into_response();

    let as_described = [
        is("extend with a map", &with_map, &["theme=dark", "lang=en"]),
        is("extend with pairs", &with_pairs, &["id=7", "theme=dark", "lang=en"]),
        is("axum, (jar, map, page)", behind_jar.headers(), &["theme=dark", "lang=en"]),
        is("axum, (map, jar, page)", before_jar.headers(), &["theme=dark", "lang=en", "id=7"]),
        is("axum, (jar, array, page)", array_behind_jar.headers(), &["lang=en"]),
    ];
    if as_described == [true; 5] { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
END
cargo build --quiet --manifest-path "$T/Cargo.toml" || { echo "it could not be built"; exit 2; }
if cargo run --quiet --manifest-path "$T/Cargo.toml"; then
    echo "as described: what extends a map of headers replaces or appends by its type"
else
    echo "CHANGED: it no longer behaves as described"
    exit 1
fi
