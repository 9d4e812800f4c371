//! Over loopback HTTP: `cargo run --release -p sessions-benches --bin load`.
//!
//! Starts a server process for each of the apps (this program, told to `serve`), and sends each of
//! them the same numbers of requests over kept-alive connections, one session a connection. The
//! servers take turns; the best of their rounds counts, by requests in a second. Servers and client
//! share the machine's processors, so that a request costs at least what HTTP costs on both sides.

use std::{
    io::{BufRead, BufReader, Read},
    net::SocketAddr,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use axum::{body::Body, http::header};
use http_body_util::BodyExt;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use sessions_benches::{
    client::{self, ROUTES},
    peers::Peer,
    table,
};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

const CONNECTIONS: usize = 8;
const ROUNDS: usize = 8;
/// Of each connection, in a round.
const REQUESTS: usize = 500;

/// Serves until its standard input ends, as it does with the process that started it.
async fn serve(peer: Peer) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    println!("{}", listener.local_addr().expect("an address"));
    let parent = tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()));
    tokio::select! {
        served = axum::serve(listener, peer.app().await) => served.expect("it serves"),
        _ = parent => {}
    }
}

/// A server process. Ends when it is dropped.
struct Server {
    peer: Peer,
    address: SocketAddr,
    process: Child,
    /// The quickest round of each route.
    best: [Option<Round>; ROUTES.len()],
}

struct Round {
    took: Duration,
    /// Of all requests, in order.
    latencies: Vec<Duration>,
}

impl Server {
    fn start(peer: Peer) -> Self {
        let number = Peer::ALL.iter().position(|other| *other == peer).expect("one of all");
        let mut process = Command::new(std::env::current_exe().expect("this program"))
            .args(["serve", &number.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a server");
        let mut line = String::new();
        let output = process.stdout.take().expect("it is piped");
        BufReader::new(output).read_line(&mut line).expect("a line");
        let address = line.trim().parse().expect("its address");
        Self { peer, address, process, best: [const { None }; ROUTES.len()] }
    }

    async fn round(&mut self, route: usize) {
        let mut connections = Vec::new();
        for _ in 0..CONNECTIONS {
            connections.push(Connection::open(self.address).await);
        }
        let start = Instant::now();
        let mut running = JoinSet::new();
        for connection in connections {
            running.spawn(connection.run(ROUTES[route].1));
        }
        let mut latencies = running.join_all().await.concat();
        let took = start.elapsed();
        latencies.sort_unstable();
        if self.best[route].as_ref().is_none_or(|best| took < best.took) {
            self.best[route] = Some(Round { took, latencies });
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        let _ = self.process.wait();
    }
}

struct Connection {
    sender: SendRequest<Body>,
    cookie: Option<header::HeaderValue>,
}

impl Connection {
    async fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("a connection");
        stream.set_nodelay(true).expect("it is open");
        let (sender, connection) = handshake(TokioIo::new(stream)).await.expect("HTTP");
        tokio::spawn(connection);
        let mut this = Self { sender, cookie: None };
        this.cookie = client::cookie(&this.call(client::BEGIN).await);
        this
    }

    async fn call(&mut self, path: &'static str) -> header::HeaderMap {
        let cookie = self.cookie.as_ref().filter(|_| path != client::BEGIN);
        let mut request = client::request(path, cookie);
        request.headers_mut().insert(header::HOST, header::HeaderValue::from_static("localhost"));
        self.sender.ready().await.expect("the connection is kept");
        let response = self.sender.send_request(request).await.expect("a response");
        assert!(response.status().is_success());
        let (head, body) = response.into_parts();
        body.collect().await.expect("a body");
        head.headers
    }

    async fn run(mut self, path: &'static str) -> Vec<Duration> {
        let mut latencies = Vec::with_capacity(REQUESTS);
        for _ in 0..REQUESTS {
            let start = Instant::now();
            self.call(path).await;
            latencies.push(start.elapsed());
        }
        latencies
    }
}

async fn load() {
    let mut servers = Peer::ALL.map(Server::start);
    for _ in 0..ROUNDS {
        for route in 0..ROUTES.len() {
            for server in &mut servers {
                server.round(route).await;
            }
        }
    }
    println!("{CONNECTIONS} connections; requests in a second, half and 99 of 100 within.");
    table::head(&["the handler", "", "requests/s", "p50", "p99"]);
    for (route, (what, _)) in ROUTES.into_iter().enumerate() {
        for server in &servers {
            let Some(Round { took, latencies }) = &server.best[route] else { continue };
            let percentile =
                |percent: usize| table::time(latencies[latencies.len() * percent / 100]);
            table::row([
                what.to_string(),
                server.peer.name().to_string(),
                table::count((latencies.len() as f64 / took.as_secs_f64()) as usize),
                percentile(50),
                percentile(99),
            ]);
        }
    }
}

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => load().await,
        ["serve", number] => serve(Peer::ALL[number.parse::<usize>().expect("a number")]).await,
        _ => eprintln!("takes no arguments"),
    }
}
