#!/usr/bin/env bash
# redis-rs: a ConnectionManager that has given up answers the next command with an error of long ago.
#
# Versions:  crate redis 1.8.1, Redis 7.0.15 (Debian 12).
# Expected:  the server was away for a while and is back. The next command connects and is answered; or,
#            if connecting fails, the error is that of an attempt made for this command.
# Seen:      with RESP3 the manager notices the lost connection by itself and tries to reconnect while
#            nobody asks. When its attempts are used up it keeps the last error as its "connection", and
#            hands that error to the next command, however much later that is: "Connection refused" from
#            a server that has been up for seconds, in no time. Only then does it connect anew.
# Matters:   the first request after a quiet outage fails though nothing is wrong any more, and a health
#            check of one command reports a server as down that is up. A store has to repeat a call that
#            fails with a connection error once, also when the error is a refused connection.
# Source:    aio/connection_manager.rs: `reconnect` stores a shared future, `reconnect_if_io_error!`
#            returns its error before it starts another attempt.
set -euo pipefail

T=$(mktemp -d)
trap 'rm -rf "$T"' EXIT
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
redis = { version = "=1.8.1", features = ["tokio-comp", "connection-manager"] }
tokio = { version = "=1.54.1", features = ["full"] }
END
cat >"$T/src/main.rs" <<'END'
use std::{
    net::{TcpListener, TcpStream},
    process::{Child, Command, ExitCode, Stdio},
    time::{Duration, Instant},
};

struct Server(Child);

impl Server {
    fn start(port: u16) -> Self {
        let port = port.to_string();
        let child = Command::new("redis-server")
            .args(["--port", &port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .current_dir(std::env::args().nth(1).unwrap())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        while TcpStream::connect(format!("127.0.0.1:{port}")).is_err() {
            std::thread::sleep(Duration::from_millis(20));
        }
        Self(child)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let server = Server::start(port);
    // Few attempts, so that the outage need not be long; with the defaults there are six, within some seconds.
    let config = redis::aio::ConnectionManagerConfig::new()
        .set_number_of_retries(2)
        .set_max_delay(Duration::from_millis(100));
    let client = redis::Client::open(format!("redis://127.0.0.1:{port}/?protocol=resp3")).unwrap();
    let mut manager = client.get_connection_manager_with_config(config).await.unwrap();
    let pong: String = redis::cmd("PING").query_async(&mut manager).await.unwrap();
    println!("before the outage:              {pong}");

    drop(server);
    tokio::time::sleep(Duration::from_secs(3)).await;
    let _server = Server::start(port);
    tokio::time::sleep(Duration::from_secs(3)).await;
    let mut fresh = client.get_multiplexed_async_connection().await.unwrap();
    let pong: String = redis::cmd("PING").query_async(&mut fresh).await.unwrap();
    println!("up for 3 s, fresh connection:   {pong}");

    let mut answers = Vec::new();
    for n in 1..=3 {
        let begun = Instant::now();
        let answer: Result<String, _> = redis::cmd("PING").query_async(&mut manager).await;
        println!("manager, command {n}:             {answer:?} after {:?}", begun.elapsed());
        answers.push(answer.map_err(|error| error.is_connection_refusal()));
    }
    let as_described = answers[0] == Err(true) && answers[1].is_ok() && answers[2].is_ok();
    if as_described { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
END
cargo build --quiet --manifest-path "$T/Cargo.toml" || { echo "it could not be built"; exit 2; }
if cargo run --quiet --manifest-path "$T/Cargo.toml" -- "$T"; then
    echo "as described: refused once, by a server that is up"
else
    echo "CHANGED: it no longer behaves as described"
    exit 1
fi
