#!/usr/bin/env bash
# redis (the crate): a blocking pop that waits longer than half a second is an error, and the next element that is pushed
# is taken from the list and given to nobody.
#
# Versions:  crate redis 1.8.1, Redis 7.0.15 (Debian 12).
# Expected:  `blpop("jobs", 5.0)` waits for five seconds, as the command says, and what it takes from the list it
#            returns; one that was given up has taken nothing.
# Seen:      an asynchronous connection gives up on any answer after 500 ms, which is the default, also on that of a
#            command that has a time of its own. The server knows nothing of that and goes on waiting: within the five
#            seconds, the next job is popped, sent, and dropped by the client, which has no one to give it to. No error
#            says so. Until then all other commands of that connection, and of its clones, are errors, too.
# Matters:   a queue of mails, or of sessions to end, with BLPOP or BRPOP in a loop that tries again after an error:
#            while there are many jobs, all is well; when there are few, they are lost, one after each pause. With
#            `AsyncConnectionConfig::set_response_timeout(None)`, and a connection of its own, nothing is.
# Source:    https://docs.rs/redis/1.8.1/redis/struct.AsyncConnectionConfig.html names the default.
set -euo pipefail

command -v redis-server >/dev/null || { echo "redis-server is missing: apt-get install redis-server"; exit 2; }
command -v cargo >/dev/null || { echo "cargo is missing: install Rust"; exit 2; }
T=$(mktemp -d)
P=()
trap 'kill "${P[@]}" 2>/dev/null || true; wait; rm -rf "$T"' EXIT
echo "crate redis 1.8.1"
redis-server --version

redis-server --port 0 --unixsocket "$T/socket" --save "" --dir "$T" >"$T/log" &
P+=($!)
for _ in $(seq 100); do redis-cli -s "$T/socket" PING >/dev/null 2>&1 && break || sleep 0.05; done

mkdir "$T/src"
cat >"$T/Cargo.toml" <<'END'
[package]
name = "finding"
version = "0.0.0"
edition = "2024"

[dependencies]
redis = { version = "=1.8.1", default-features = false, features = ["tokio-comp"] }
tokio = { version = "=1.54.1", features = ["full"] }
END
cat >"$T/src/main.rs" <<'END'
use std::{process::ExitCode, time::Duration};

use redis::{AsyncCommands, AsyncConnectionConfig, Client, RedisResult, aio::MultiplexedConnection};
use tokio::time::sleep;

type Popped = RedisResult<Option<(String, String)>>;

/// What a pop that waits for half a minute returns, and a GET behind it on the same connection; how many jobs are in the
/// list after one was pushed, and what the next pop finds.
async fn pops(waiting: MultiplexedConnection, mut other: MultiplexedConnection) -> [String; 4] {
    let shown = |popped: Popped| match popped {
        Ok(Some((_, job))) => job,
        Ok(None) => "none".into(),
        Err(error) => error.to_string(),
    };
    let blocked = tokio::spawn({
        let mut waiting = waiting.clone();
        async move { waiting.blpop::<_, Option<(String, String)>>("jobs", 30.0).await }
    });
    sleep(Duration::from_millis(100)).await;
    let behind = tokio::spawn({
        let mut waiting = waiting.clone();
        async move { waiting.get::<_, Option<String>>("key").await }
    });
    // Nothing to do for a while.
    sleep(Duration::from_secs(1)).await;
    let _: () = other.rpush("jobs", "the mail").await.unwrap();
    sleep(Duration::from_millis(100)).await;
    let left: i64 = other.llen("jobs").await.unwrap();
    let first = shown(blocked.await.unwrap());
    let next = other.lpop("jobs", None).await.map(|job: Option<String>| job.map(|job| (String::new(), job)));
    let behind = behind.await.unwrap().map_or_else(|error| error.to_string(), |_| "answered".into());
    [first, behind, left.to_string(), shown(next)]
}

#[tokio::main]
async fn main() -> ExitCode {
    let client = Client::open(format!("redis+unix://{}", std::env::args().nth(1).unwrap())).unwrap();
    let plain = async || client.get_multiplexed_async_connection().await.unwrap();
    let config = AsyncConnectionConfig::new().set_response_timeout(None);
    let patient = client.get_multiplexed_async_connection_with_config(&config).await.unwrap();
    let seen = [
        ("by default", pops(plain().await, plain().await).await),
        ("with set_response_timeout(None)", pops(patient, plain().await).await),
    ];
    for (what, [first, behind, left, next]) in &seen {
        println!(
            "{what}: blpop(30 s): {first}; a GET behind it: {behind}; pushed after one second, left in the list: {left}; who asks next gets: {next}"
        );
    }
    let is_so =
        seen[0].1 == ["timed out", "timed out", "0", "none"] && seen[1].1 == ["the mail", "answered", "0", "none"];
    if is_so { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
END
cargo build --quiet --manifest-path "$T/Cargo.toml" || { echo "it could not be built"; exit 2; }
if cargo run --quiet --manifest-path "$T/Cargo.toml" -- "$T/socket"; then
    echo "as described: the pop is an error, and the job is gone"
else
    echo "CHANGED: it no longer behaves as described"
    exit 1
fi
