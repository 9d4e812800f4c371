#!/usr/bin/env bash
# fred: a pool that was given no reconnect policy, which may be left out, is done with when its connection ends once;
# each call then waits for ever.
#
# Versions:  crate fred 10.1.0, Redis 7.0.15 (Debian 12).
# Expected:  a pool makes connections anew; a policy says how often and how soon. Where one cannot be had, a call is an
#            error.
# Seen:      `None` in `Pool::new`, or a `Builder` without `set_policy`, means that nothing connects again. One `CLIENT
#            KILL`, or one restart of the server, and the task that serves the connection ends. The call after that, and
#            each one that follows, is not an error: it waits, without a limit unless `default_command_timeout` sets one,
#            also long after the server is back. With `ReconnectPolicy::default()` the next call is answered.
# Matters:   `Pool::new(Config::default(), None, None, None, 6)` is how stores of sessions begin in their documentation.
#            All is well until the server is restarted for an update; from then on each request that has a session stands
#            still until its client gives up, and only a restart of the application helps. Give the pool both, a policy
#            and a timeout.
# Source:    https://docs.rs/fred/10.1.0/fred/clients/struct.Pool.html#method.new; the task returned by `connect` ends.
set -euo pipefail

command -v redis-server >/dev/null || { echo "redis-server is missing: apt-get install redis-server"; exit 2; }
command -v cargo >/dev/null || { echo "cargo is missing: install Rust"; exit 2; }
T=$(mktemp -d)
P=()
trap 'kill "${P[@]}" 2>/dev/null || true; wait; rm -rf "$T"' EXIT
echo "crate fred 10.1.0"
redis-server --version

port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
redis-server --port "$port" --bind 127.0.0.1 --save "" --dir "$T" >"$T/log" &
P+=($!)
for _ in $(seq 100); do redis-cli -p "$port" PING >/dev/null 2>&1 && break || sleep 0.05; done

mkdir "$T/src"
cat >"$T/Cargo.toml" <<'END'
[package]
name = "finding"
version = "0.0.0"
edition = "2024"

[dependencies]
fred = { version = "=10.1.0", default-features = false, features = ["i-keys", "i-client"] }
tokio = { version = "=1.54.1", features = ["full"] }
END
cat >"$T/src/main.rs" <<'END'
use std::{
    process::{Command, ExitCode},
    time::Duration,
};

use fred::prelude::*;
use tokio::time::{sleep, timeout};

/// What becomes of three calls, a second after all connections were ended at the server.
async fn calls(port: &str, policy: Option<ReconnectPolicy>, limit: Option<Duration>) -> [&'static str; 3] {
    let config = Config::from_url(&format!("redis://127.0.0.1:{port}")).unwrap();
    let performance =
        limit.map(|limit| PerformanceConfig { default_command_timeout: limit, ..PerformanceConfig::default() });
    let pool = Pool::new(config, performance, None, policy, 2).unwrap();
    let task = pool.init().await.unwrap();
    let _: () = pool.set("session", "ada", None, None, false).await.unwrap();
    let ended = Command::new("redis-cli").args(["-p", port, "CLIENT", "KILL", "TYPE", "normal"]).output().unwrap();
    assert!(ended.status.success());
    sleep(Duration::from_secs(1)).await;
    let mut seen = [""; 3];
    for call in &mut seen {
        *call = match timeout(Duration::from_secs(5), pool.get::<Option<String>, _>("session")).await {
            Ok(Ok(Some(_))) => "answered",
            Ok(Ok(None)) => "none",
            Ok(Err(_)) => "an error",
            Err(_) => "no answer within five seconds",
        };
    }
    task.abort();
    seen
}

#[tokio::main]
async fn main() -> ExitCode {
    let port = std::env::args().nth(1).unwrap();
    let policy = || Some(ReconnectPolicy::new_constant(0, 100));
    let limit = Some(Duration::from_secs(1));
    let seen = [
        ("no policy", calls(&port, None, None).await, "no answer within five seconds"),
        ("no policy, and a limit of one second", calls(&port, None, limit).await, "an error"),
        ("a policy", calls(&port, policy(), None).await, "answered"),
    ];
    for (what, calls, _) in &seen {
        println!("{what}: {calls:?}");
    }
    if seen.iter().all(|(_, calls, described)| calls == &[*described; 3]) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
END
cargo build --quiet --manifest-path "$T/Cargo.toml" || { echo "it could not be built"; exit 2; }
if cargo run --quiet --manifest-path "$T/Cargo.toml" -- "$port"; then
    echo "as described: without a policy nothing connects again, and calls wait"
else
    echo "CHANGED: it no longer behaves as described"
    exit 1
fi
