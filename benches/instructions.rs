//! How many instructions a request takes: `cargo run --release -p sessions-benches --bin
//! instructions`. Needs valgrind.
//!
//! Unlike a time, it is the same in every run, whatever else the machine does. valgrind's processor
//! has no instructions for SHA-256: an HMAC and the hash of an id count for more than they take.
//!
//! With a peer's number, a route's number, a count of requests and one of sessions it only serves
//! them, to see where the instructions go (`callgrind_annotate`).

use sessions_benches::{
    client::{ROUTES, Random, call, fill_many, requests},
    peers::Peer,
    table,
    valgrind::instructions,
};

const REQUESTS: usize = 1_000;
const SESSIONS: usize = 100;

#[tokio::main(flavor = "current_thread")]
async fn serve(peer: Peer, route: usize, count: usize, sessions: usize) {
    let mut app = peer.app().await;
    let cookies = fill_many(&mut app, sessions).await;
    // The requests are made in any case, so that the difference is what serving them takes.
    let made = requests(ROUTES[route].1, &cookies, &mut Random(1), count.max(2 * REQUESTS));
    for request in made.into_iter().take(count) {
        drop(call(&mut app, request).await);
    }
}

fn main() {
    let arguments: Vec<usize> =
        std::env::args().skip(1).map(|argument| argument.parse().expect("numbers")).collect();
    if let [peer, route, count, sessions] = arguments[..] {
        return serve(Peer::ALL[peer], route, count, sessions);
    }
    println!("Instructions of a request.");
    let names = Peer::ALL.map(Peer::name);
    table::head(&[&["the handler"], &names[..]].concat());
    for (route, (what, _)) in ROUTES.into_iter().enumerate() {
        let counts = (0..names.len()).map(|peer| {
            let counted = instructions(&[peer, route, 2 * REQUESTS, SESSIONS])
                - instructions(&[peer, route, REQUESTS, SESSIONS]);
            format!("{:.0}", counted / REQUESTS as f64)
        });
        table::row([what.to_string()].into_iter().chain(counts));
    }
}
