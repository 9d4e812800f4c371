#!/usr/bin/env bash
# redis-rs: an argument that is `None` is left out, and those behind it move up: a field's value becomes the next field.
#
# Versions:  Redis 7.0 (Debian 12), crate redis 1.8.0.
# Expected:  `None` among the arguments of a command is an error of the compiler or of the call, or an empty value.
# Seen:      it is nothing at all, and the command is sent without it. `hset_multiple` with the pairs name: None, theme:
#            "dark", lang: "de" sends five words, which the server refuses. With two that are None the number is even again:
#            the call is Ok, and the hash has the field "name" with the value "theme". A script's ARGV[2] is what was to be
#            ARGV[3].
# Matters:   optional fields of a session that is kept as a hash: as long as one is empty each save fails, and when two
#            are, values stand under other fields, and are read as those. Write only the pairs that have a value, and
#            remove the others by HDEL; hand a script an empty text.
# Source:    https://docs.rs/redis/1.8.0/redis/trait.ToRedisArgs.html lists `Option<T>`; what becomes of `None` was seen by running it.
set -euo pipefail

T=$(mktemp -d)
P=()
trap 'kill "${P[@]}" 2>/dev/null || true; wait; rm -rf "$T"' EXIT
command -v cargo >/dev/null || { echo "cargo is missing: install Rust"; exit 2; }
command -v redis-server >/dev/null || { echo "Redis is missing: apt-get install redis-server"; exit 2; }
redis-server --version
echo "crate redis 1.8.0"
redis-server --port 0 --unixsocket "$T/socket" --save "" --dir "$T" >"$T/log" 2>&1 &
P+=($!)
for _ in $(seq 100); do redis-cli -s "$T/socket" ping >/dev/null 2>&1 && break || sleep 0.1; done

mkdir "$T/src"
cat >"$T/Cargo.toml" <<'END'
[package]
name = "finding"
version = "0.0.0"
edition = "2024"

[dependencies]
redis = { version = "=1.8.0", default-features = false, features = ["script"] }
END
cat >"$T/src/main.rs" <<'END'
use std::{collections::BTreeMap, process::ExitCode};

use redis::{Commands, Connection, RedisResult, Script};

type Hash = BTreeMap<String, String>;

/// Saves a session with these optional fields; what is stored then.
fn saved(connection: &mut Connection, name: Option<&str>, theme: Option<&str>) -> Result<Hash, String> {
    let _: () = connection.del("session").unwrap();
    let pairs = [("name", name), ("theme", theme), ("lang", Some("de"))];
    let saved: RedisResult<()> = connection.hset_multiple("session", &pairs);
    saved.map_err(|error| error.to_string())?;
    Ok(connection.hgetall("session").unwrap())
}

fn main() -> ExitCode {
    let socket = std::env::args().nth(1).unwrap();
    let mut connection =
        redis::Client::open(format!("unix://{socket}")).unwrap().get_connection().unwrap();
    let full = saved(&mut connection, Some("Ann"), Some("dark"));
    let one = saved(&mut connection, None, Some("dark"));
    let two = saved(&mut connection, None, None);
    println!("name Ann, theme dark, lang de:   {full:?}");
    println!("name None, theme dark, lang de:  {one:?}");
    println!("name None, theme None, lang de:  {two:?}");

    let script = Script::new("return ARGV[2] or 'nothing'");
    let mut call = script.prepare_invoke();
    let second: String =
        call.arg("first").arg(None::<&str>).arg("third").invoke(&mut connection).unwrap();
    println!("a script's ARGV[2] of first, None, third: {second}");

    let pairs = |pairs: &[(&str, &str)]| -> Hash {
        pairs.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect()
    };
    let is_so = full == Ok(pairs(&[("name", "Ann"), ("theme", "dark"), ("lang", "de")]))
        && one.is_err()
        && two == Ok(pairs(&[("name", "theme"), ("lang", "de")]))
        && second == "third";
    if is_so { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
END
cargo build --quiet --manifest-path "$T/Cargo.toml" || { echo "it could not be built"; exit 2; }
if cargo run --quiet --manifest-path "$T/Cargo.toml" -- "$T/socket"; then
    echo "as described: None is left out, and what is behind it moves up"
else
    echo "CHANGED: it no longer behaves as described"
    exit 1
fi
