//! What a session costs in memory: `cargo run --release -p sessions-benches --bin allocations`.
//!
//! The allocations of one request, for the same handlers on `sessions` and its peers, over those of
//! axum alone; and the bytes that a stored session takes, as they were asked of the allocator. With
//! 100,000 sessions at random, or as many as the argument says. A program of its own, because counting
//! slows every allocation down.

use allocation_counter::measure;
use axum::Router;
use sessions_benches::{
    client::{ROUTES, Random, call, fill, fill_many, requests},
    peers::Peer,
    table,
};
use tokio::runtime::Runtime;

const REQUESTS: usize = 1_000;
const SESSIONS: usize = 100_000;

/// The allocations of a request of each route, on average.
fn allocations(runtime: &Runtime, app: &mut Router, sessions: usize) -> [f64; ROUTES.len()] {
    let cookies = runtime.block_on(fill_many(app, sessions));
    let mut random = Random(1);
    ROUTES.map(|(_, path)| {
        let mut run = || {
            let requests = requests(path, &cookies, &mut random, REQUESTS);
            let counted = measure(|| {
                runtime.block_on(async {
                    for request in requests {
                        drop(call(app, request).await);
                    }
                });
            });
            counted.count_total as f64 / REQUESTS as f64
        };
        // What happens once and never again does not count.
        run().min(run())
    })
}

/// The bytes of a session with five small fields, on average of many.
fn live_bytes(runtime: &Runtime, app: &mut Router) -> f64 {
    let counted = measure(|| {
        runtime.block_on(async {
            for _ in 0..SESSIONS {
                drop(fill(app).await);
            }
        });
    });
    counted.bytes_current as f64 / SESSIONS as f64
}

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    let sessions = std::env::args().nth(1).map_or(SESSIONS, |it| it.parse().expect("a number"));
    let [sessions, tower, axum, least, floor, empty, bare] = Peer::ALL.map(|peer| {
        let app = || runtime.block_on(peer.app());
        (allocations(&runtime, &mut app(), sessions), live_bytes(&runtime, &mut app()))
    });
    table::head(&[
        "",
        "sessions",
        "tower-sessions",
        "axum_session",
        "the least",
        "the floor",
        "an empty layer",
        "goal",
        "bare axum",
    ]);
    for (route, (what, _)) in ROUTES.into_iter().enumerate() {
        let over = |(allocations, _): ([f64; 4], f64)| allocations[route] - bare.0[route];
        table::row([
            format!("allocations when the handler {what}"),
            format!("{:.1}", over(sessions)),
            format!("{:.1}", over(tower)),
            format!("{:.1}", over(axum)),
            format!("{:.1}", over(least)),
            format!("{:.1}", over(floor)),
            format!("{:.1}", over(empty)),
            if route == 0 { "≤ 2" } else { "" }.to_string(),
            format!("{:.1}", bare.0[route]),
        ]);
    }
    table::row([
        "live bytes of a stored session".to_string(),
        format!("{:.0}", sessions.1),
        format!("{:.0}", tower.1),
        format!("{:.0}", axum.1),
        format!("{:.0}", least.1),
        format!("{:.0}", floor.1),
        String::new(),
        "≤ 200".to_string(),
        String::new(),
    ]);
}
