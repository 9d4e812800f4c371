#!/usr/bin/env bash
# redis-rs: while a slot is moved, the cluster client carries out the first command of a pipeline eight times, the second
# never, and returns an error.
#
# Versions:  crate redis 1.8.1, Redis 7.0.15 (Debian 12).
# Expected:  a slot is moved to another node while the cluster works: for a key that is new, or has gone there already, the
#            old node says ASK, the client asks the other node, with ASKING before the command, and nobody notices.
#            So it does with a single command, and with a pipeline, which is sent as a whole to the one node of its slot.
# Seen:      ASKING is for one command. The client sends one, and the whole pipeline behind it: the first command is
#            carried out, the second is told MOVED, to the old node. There both are told ASK, and so on, until the client
#            has tried 16 times. Of `INCR n; INCR m` in one call, n is 8 afterwards, m is not there, and the error says
#            ASK. A pipeline of one command is carried out once; an atomic one (MULTI) not at all.
# Matters:   while a cluster is enlarged, whatever is written by a pipeline, "SET the session, and put it on its user's
#            list", is written by half, and fails for as long as the slot is on its way; what counts, counts eight. No
#            error is retryable in its looks. What has to go on meanwhile is to be one command, or a script with one
#            key; a script with two keys is told TRYAGAIN, until both are there.
# Source:    https://redis.io/docs/latest/commands/asking/: "the next command"; crate redis, cluster_handling/
#            async_connection: `get_redirected_connection` sends one ASKING, whatever follows.
set -euo pipefail

T=$(mktemp -d)
P=()
trap 'kill "${P[@]}" 2>/dev/null || true; wait; rm -rf "$T"' EXIT
command -v cargo >/dev/null || { echo "cargo is missing: install Rust"; exit 2; }
command -v redis-server >/dev/null || { echo "redis-server is missing: apt-get install redis-server"; exit 2; }
command -v python3 >/dev/null || { echo "python3 is missing: apt-get install python3"; exit 2; }
echo "crate redis 1.8.1; $(redis-server --version)"

mkdir "$T/src"
cat >"$T/Cargo.toml" <<'END'
[package]
name = "finding"
version = "0.0.0"
edition = "2024"

[dependencies]
redis = { version = "=1.8.1", features = ["tokio-comp", "cluster-async"] }
tokio = { version = "=1.54.1", features = ["full"] }
END
cat >"$T/src/main.rs" <<'END'
use std::process::ExitCode;

use redis::{RedisResult, cluster::ClusterClient, cmd, pipe};

#[tokio::main]
async fn main() -> ExitCode {
    let url = format!("redis://127.0.0.1:{}", std::env::args().nth(1).unwrap());
    let client = ClusterClient::new(vec![url]).unwrap();
    let mut redis = client.get_async_connection().await.unwrap();

    let single: RedisResult<i64> = cmd("INCR").arg("{s}single").query_async(&mut redis).await;
    let one: RedisResult<(i64,)> = pipe().cmd("INCR").arg("{s}one").query_async(&mut redis).await;
    let two: RedisResult<(i64, i64)> =
        pipe().cmd("INCR").arg("{s}n").cmd("INCR").arg("{s}m").query_async(&mut redis).await;
    println!("INCR:                         {single:?}");
    println!("a pipeline of one INCR:       {one:?}");
    println!("a pipeline of INCR n, INCR m: {two:?}");
    let mut counts = Vec::new();
    for key in ["{s}single", "{s}one", "{s}n", "{s}m"] {
        let count: Option<i64> = cmd("GET").arg(key).query_async(&mut redis).await.unwrap();
        println!("    {key}: {}", count.map_or("is not there".to_string(), |count| count.to_string()));
        counts.push(count);
    }
    let is_so = single.is_ok() && one.is_ok() && two.is_err() && counts[..2] == [Some(1), Some(1)];
    // How often depends on how often the client tries.
    if is_so && counts[2] > Some(3) && counts[3].is_none() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
END
cargo build --quiet --manifest-path "$T/Cargo.toml" || { echo "it could not be built"; exit 2; }

# Each has a second port, for the cluster.
mapfile -t ports < <(python3 - <<'END'
import socket
sockets = [socket.socket() for _ in range(4)]
for it in sockets:
    it.bind(("127.0.0.1", 0))
print(*(it.getsockname()[1] for it in sockets), sep="\n")
END
)
old=${ports[0]} new=${ports[1]}
for n in 0 1; do
    mkdir "$T/$n"
    redis-server --port "${ports[n]}" --bind 127.0.0.1 --cluster-enabled yes --cluster-port "${ports[n + 2]}" \
        --dir "$T/$n" --save "" >"$T/$n/log" &
    P+=($!)
done
at() { redis-cli -p "$@" 2>&1; }
wait_for() { # what, and a command that says so at last
    for _ in $(seq 300); do [[ "$("${@:2}")" != *$1* ]] || return 0; sleep 0.1; done
    echo "it never said $1: ${*:2}"
    exit 2
}
for port in "$old" "$new"; do wait_for PONG at "$port" ping; done
at "$old" cluster addslotsrange 0 16383 >/dev/null
at "$new" cluster meet 127.0.0.1 "$old" "${ports[2]}" >/dev/null
for port in "$old" "$new"; do
    wait_for cluster_known_nodes:2 at "$port" cluster info
    wait_for cluster_state:ok at "$port" cluster info
done
slot=$(at "$old" cluster keyslot "{s}")
at "$new" cluster setslot "$slot" importing "$(at "$old" cluster myid)" >/dev/null
at "$old" cluster setslot "$slot" migrating "$(at "$new" cluster myid)" >/dev/null
echo "while the slot is moved:"
if cargo run --quiet --manifest-path "$T/Cargo.toml" -- "$old"; then
    echo "as described: the first command is carried out again and again"
else
    echo "CHANGED: it no longer behaves as described"
    exit 1
fi
