#!/usr/bin/env bash
# redis-rs: whether a missing key is an error, nothing, or an empty value, is decided by the type that one asks for.
#
# Versions:  crate redis 1.8.1, Redis 7.0.15 (Debian 12).
# Expected:  a key that is not there is `None` where an `Option` is asked for, and an error otherwise; or always an error.
#            That is how it looks with `String`, with numbers and with tuples.
# Seen:      `Vec<u8>`, and every other list, set and map, is empty then, and `bool` is false, with `Ok`. Of two
#            sessions that are asked for by MGET as `Vec<Vec<u8>>`, one that is missing is an empty one; as
#            `Vec<String>` the whole answer is an error. `Option<Vec<u8>>` tells them apart.
# Matters:   a store that asks for bytes finds a record under each key that anybody names: whether that is "no
#            session" is for the codec to say, and of codecs without names (bincode, postcard) the empty input is a
#            good value of a struct without fields, or of `()`. And `exists: bool` by GET is false for a key that is
#            there with "0". Ask for an `Option` always.
# Source:    crate redis, src/types.rs: FromRedisValue for Vec, HashMap, bool … takes `Value::Nil`; for String and numbers
#            it does not. https://docs.rs/redis/1.8.1/redis/trait.FromRedisValue.html does not say so.
set -euo pipefail

T=$(mktemp -d)
P=()
trap 'kill "${P[@]}" 2>/dev/null || true; wait; rm -rf "$T"' EXIT
command -v cargo >/dev/null || { echo "cargo is missing: install Rust"; exit 2; }
command -v redis-server >/dev/null || { echo "redis-server is missing: apt-get install redis-server"; exit 2; }
echo "crate redis 1.8.1; $(redis-server --version)"

mkdir "$T/src"
cat >"$T/Cargo.toml" <<'END'
[package]
name = "finding"
version = "0.0.0"
edition = "2024"

[dependencies]
redis = { version = "=1.8.1", default-features = false }
END
cat >"$T/src/main.rs" <<'END'
use std::{collections::HashMap, fmt::Debug, process::ExitCode, time::Duration};

use redis::{Commands, Connection, FromRedisValue};

fn get<X: FromRedisValue + Debug>(redis: &mut Connection, keys: &[&str], seen: &mut Vec<String>) {
    let answer = redis::cmd(if keys.len() == 1 { "GET" } else { "MGET" }).arg(keys).query::<X>(redis);
    let answer = answer.map_or_else(|_| "an error".to_string(), |value| format!("{value:?}"));
    let what = std::any::type_name::<X>().replace("alloc::string::", "").replace("alloc::vec::", "");
    let what = what.replace("core::option::", "").replace("std::collections::hash::map::", "");
    println!("    {:22} as {what:28} {answer}", keys.join(", "));
    seen.push(answer);
}

fn main() -> ExitCode {
    let socket = std::env::args().nth(1).unwrap();
    let client = redis::Client::open(format!("unix://{socket}")).unwrap();
    let mut redis = loop {
        match client.get_connection() {
            Ok(redis) => break redis,
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    };
    let redis = &mut redis;
    let _: () = redis.set("there", "0").unwrap();
    let mut seen = Vec::new();
    get::<Option<Vec<u8>>>(redis, &["missing"], &mut seen);
    get::<String>(redis, &["missing"], &mut seen);
    get::<u64>(redis, &["missing"], &mut seen);
    get::<Vec<u8>>(redis, &["missing"], &mut seen);
    get::<HashMap<String, String>>(redis, &["missing"], &mut seen);
    get::<bool>(redis, &["missing"], &mut seen);
    get::<bool>(redis, &["there"], &mut seen);
    get::<Vec<Vec<u8>>>(redis, &["there", "missing"], &mut seen);
    get::<Vec<String>>(redis, &["there", "missing"], &mut seen);
    get::<Vec<Option<Vec<u8>>>>(redis, &["there", "missing"], &mut seen);
    let described = [
        "None", "an error", "an error", "[]", "{}", "false", "false", "[[48], []]", "an error",
        "[Some([48]), None]",
    ];
    if seen == described { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
END
cargo build --quiet --manifest-path "$T/Cargo.toml" || { echo "it could not be built"; exit 2; }
redis-server --port 0 --unixsocket "$T/socket" --save "" --dir "$T" >"$T/log" &
P+=($!)
if cargo run --quiet --manifest-path "$T/Cargo.toml" -- "$T/socket"; then
    echo "as described: a missing key is an empty list"
else
    echo "CHANGED: it no longer behaves as described"
    exit 1
fi
