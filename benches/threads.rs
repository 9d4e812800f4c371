//! Whether two threads serve twice as much as one:
//! `cargo run --release -p sessions-benches --bin threads`.
//!
//! Reads and writes of one session by all threads, and of 100,000 sessions (or as many as the
//! argument says) at random. Each thread sends its requests one after the other, in one process,
//! without a network. The quickest of many short rounds counts.

use std::{
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
    thread,
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::Body,
    http::{HeaderValue, Request},
};
use sessions_benches::{
    client::{Random, call, fill_many, requests},
    peers::Peer,
    table,
};
use tokio::runtime::{Builder, Runtime};

const ROUNDS: usize = 60;
/// Of each thread, in a round.
const REQUESTS: usize = 1_000;
const WHAT: [(&str, &str); 2] = [("reads", "/name"), ("reads and writes", "/count")];

/// From when all threads are there until the last one is done.
fn round(runtime: &Runtime, app: &Router, work: Vec<Vec<Request<Body>>>) -> Duration {
    let (threads, there) = (work.len(), AtomicUsize::new(0));
    let there = &there;
    thread::scope(|scope| {
        let threads: Vec<_> = work
            .into_iter()
            .map(|requests| {
                let mut app = app.clone();
                scope.spawn(move || {
                    there.fetch_add(1, SeqCst);
                    // Not asleep: waking up takes longer than some rounds.
                    while there.load(SeqCst) < threads {
                        std::hint::spin_loop();
                    }
                    let start = Instant::now();
                    runtime.block_on(async {
                        for request in requests {
                            drop(call(&mut app, request).await);
                        }
                    });
                    (start, Instant::now())
                })
            })
            .collect();
        let times: Vec<_> =
            threads.into_iter().map(|thread| thread.join().expect("no panic")).collect();
        let start = times.iter().map(|(start, _)| *start).min().expect("a thread");
        let end = times.iter().map(|(_, end)| *end).max().expect("a thread");
        end - start
    })
}

/// Requests in a second, with one thread and with two.
fn measure(
    runtime: &Runtime,
    app: &Router,
    path: &'static str,
    cookies: &[HeaderValue],
) -> [f64; 2] {
    let mut random = Random(1);
    let mut quickest = [Duration::MAX; 2];
    for _ in 0..ROUNDS {
        for threads in [1, 2] {
            let work =
                (0..threads).map(|_| requests(path, cookies, &mut random, REQUESTS)).collect();
            let time = round(runtime, app, work);
            quickest[threads - 1] = quickest[threads - 1].min(time);
        }
    }
    let requests = [REQUESTS as f64, 2.0 * REQUESTS as f64];
    [0, 1].map(|which| requests[which] / quickest[which].as_secs_f64())
}

fn main() {
    let sessions = std::env::args().nth(1).map_or(100_000, |argument| {
        argument.replace([',', '_'], "").parse().expect("a number of sessions")
    });
    // For what the apps do in the background, as the sweep.
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.expect("a runtime");
    let cpus = thread::available_parallelism().map_or(1, usize::from);
    println!("Requests in a second, in thousands, on {cpus} processors.");
    table::head(&["", "", "1 thread", "2 threads", "2 / 1"]);
    for peer in [Peer::Bare].into_iter().chain(Peer::WITH_SESSIONS) {
        for (of, count) in [("one session", 1), (&*table::count(sessions), sessions)] {
            let mut app = runtime.block_on(peer.app());
            let cookies = runtime.block_on(fill_many(&mut app, count));
            for (what, path) in WHAT {
                let [one, two] = measure(&runtime, &app, path, &cookies);
                table::row([
                    peer.name().to_string(),
                    format!("{what} of {of}{}", if count > 1 { " sessions" } else { "" }),
                    format!("{:.0}", one / 1e3),
                    format!("{:.0}", two / 1e3),
                    format!("{:.2}", two / one),
                ]);
            }
        }
    }
}
