//! What a session costs a request: `cargo run --release -p sessions-benches --bin requests`.
//!
//! The same handlers on `sessions`, its peers and axum alone, called in one process without a
//! network, with 1 and with 100,000 sessions stored; or as many as the arguments say. Each request
//! is of a random one of them.
//!
//! The contestants take turns, a batch of requests at a time, and each one's quickest batch counts:
//! whatever else the machine does makes a batch slower, never quicker.

use std::time::{Duration, Instant};

use axum::{Router, http::HeaderValue};
use sessions_benches::{
    client::{ROUTES, Random, call, fill_many, requests},
    peers::Peer,
    table,
};

const ROUNDS: usize = 200;
/// So few that a batch fits into a time slice of the system's scheduler, and its requests into the
/// processor's cache.
const BATCH: usize = 100;

/// Of tower-sessions' time over axum's, what `sessions` may take, by route, with one session stored and with
/// many: half of what commit 0f2cdb1 took. Of a request that ignores its session see [`LEAST`].
const GOALS: [[f64; ROUTES.len()]; 2] = [[0.0, 0.215, 0.22, 0.41], [0.0, 0.48, 0.37, 0.44]];
/// Of what the least takes, what `sessions` may take for a request that ignores its session.
const LEAST: f64 = 1.15;

struct Contestant {
    peer: Peer,
    app: Router,
    cookies: Vec<HeaderValue>,
    /// The quickest so far, by route.
    quickest: [Duration; ROUTES.len()],
}

impl Contestant {
    async fn new(peer: Peer, sessions: usize) -> Self {
        let mut app = peer.app().await;
        let cookies = fill_many(&mut app, sessions).await;
        Self { peer, app, cookies, quickest: [Duration::MAX; ROUTES.len()] }
    }

    async fn batch(&mut self, route: usize, random: &mut Random) {
        let requests = requests(ROUTES[route].1, &self.cookies, random, BATCH);
        let start = Instant::now();
        for request in requests {
            drop(call(&mut self.app, request).await);
        }
        let quickest = &mut self.quickest[route];
        *quickest = start.elapsed().div_f64(BATCH as f64).min(*quickest);
    }
}

async fn measure(sessions: usize) -> Vec<Contestant> {
    let mut contestants = Vec::new();
    for peer in Peer::ALL {
        contestants.push(Contestant::new(peer, sessions).await);
    }
    let mut random = Random(1);
    for _ in 0..ROUNDS {
        for route in 0..ROUTES.len() {
            for contestant in &mut contestants {
                contestant.batch(route, &mut random).await;
            }
        }
    }
    contestants
}

fn print(sessions: usize, contestants: &[Contestant]) {
    let of = |peer| contestants.iter().find(|contestant| contestant.peer == peer).expect("all");
    let bare = of(Peer::Bare);
    println!(
        "\n{} stored; time over bare axum's, which is in the last column.",
        match sessions {
            1 => "One session".to_string(),
            many => format!("{} sessions", table::count(many)),
        }
    );
    table::head(&[
        "the handler",
        "sessions",
        "tower-sessions",
        "axum_session",
        "the least",
        "the floor",
        "an empty layer",
        "sessions / tower-sessions",
        "goal",
        "bare axum",
    ]);
    for (route, (what, _)) in ROUTES.into_iter().enumerate() {
        let over = |peer| of(peer).quickest[route].saturating_sub(bare.quickest[route]);
        let ours = over(Peer::Sessions);
        let ratio = ours.as_secs_f64() / over(Peer::TowerSessions).as_secs_f64();
        table::row([
            what.to_string(),
            table::time(ours),
            table::time(over(Peer::TowerSessions)),
            table::time(over(Peer::AxumSession)),
            table::time(over(Peer::Least)),
            table::time(over(Peer::Floor)),
            table::time(over(Peer::EmptyLayer)),
            format!("{ratio:.3}"),
            match route {
                0 => format!("≤ {LEAST} × the least"),
                _ => format!("≤ {}", GOALS[usize::from(sessions > 1)][route]),
            },
            table::time(bare.quickest[route]),
        ]);
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let arguments: Vec<usize> = std::env::args()
        .skip(1)
        .map(|argument| argument.replace([',', '_'], "").parse().expect("numbers of sessions"))
        .collect();
    for sessions in if arguments.is_empty() { vec![1, 100_000] } else { arguments } {
        print(sessions, &measure(sessions).await);
    }
}
