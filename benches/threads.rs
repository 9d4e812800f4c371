//! Whether two threads serve twice as much as one:
//! `cargo run --release -p sessions-benches --bin threads`.
//!
//! Reads and writes of one session by all threads, and of 100,000 sessions (or as many as the
//! argument says) at random. Each thread sends its requests one after the other, in one process,
//! without a network. The quickest of many short rounds counts.

use std::{
    sync::{
        Barrier, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use axum::{Router, http::HeaderValue};
use sessions_benches::{
    client::{Random, call, fill_many, requests},
    peers::Peer,
    table,
};
use tokio::runtime::{Builder, Runtime};

const ROUNDS: usize = 100;
/// Of each thread, in a round: so few that a round may go by without an interruption.
const REQUESTS: usize = 300;
const WHAT: [(&str, &str); 2] = [("reads", "/name"), ("reads and writes", "/count")];

/// Requests in a second, with one thread and with two.
fn measure(
    runtime: &Runtime,
    app: &Router,
    path: &'static str,
    cookies: &[HeaderValue],
) -> [f64; 2] {
    let (gate, started) = (Barrier::new(2), AtomicUsize::new(0));
    let times = Mutex::new(Vec::<[Instant; 2]>::new());
    let quickest = Mutex::new([Duration::MAX; 2]);
    let thread = |number: usize| {
        let (mut app, mut random) = (app.clone(), Random(number as u64));
        for round in 0..ROUNDS {
            for threads in [1, 2] {
                // Each thread makes its own: memory goes back to the thread that it came from.
                let work = requests(path, cookies, &mut random, REQUESTS);
                gate.wait();
                if number < threads {
                    started.fetch_add(1, SeqCst);
                    // Not asleep: waking up takes long. In each round there are three starts.
                    while started.load(SeqCst) < round * 3 + threads * 2 - 1 {
                        std::hint::spin_loop();
                    }
                    let start = Instant::now();
                    runtime.block_on(async {
                        for request in work {
                            drop(call(&mut app, request).await);
                        }
                    });
                    times.lock().expect("no panic").push([start, Instant::now()]);
                }
                if gate.wait().is_leader() {
                    let times = std::mem::take(&mut *times.lock().expect("no panic"));
                    let start = times.iter().map(|[start, _]| *start).min().expect("a thread");
                    let end = times.iter().map(|[_, end]| *end).max().expect("a thread");
                    let quickest = &mut quickest.lock().expect("no panic")[threads - 1];
                    *quickest = (end - start).min(*quickest);
                }
            }
        }
    };
    thread::scope(|scope| {
        let thread = &thread;
        scope.spawn(move || thread(0));
        scope.spawn(move || thread(1));
    });
    let quickest = quickest.into_inner().expect("no panic");
    [1, 2].map(|threads| (threads * REQUESTS) as f64 / quickest[threads - 1].as_secs_f64())
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
