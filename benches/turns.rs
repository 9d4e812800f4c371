//! What a read of a session costs by how many are used by turns: `cargo run --release -p sessions-benches --bin turns`.
//!
//! A session that was used a moment ago is ready for the next request; of many that come by turns, in a random order,
//! some are and some are not. Beside that, what a request finds in the processor's cache decides: once nothing else
//! happens between the requests, and once a few megabytes of other memory are looked at after each hundred,
//! as a handler's own work might.

use std::time::{Duration, Instant};

use axum::{Router, http::HeaderValue, routing::get};
use sessions::{Keys, MemoryStore, Session, SessionLayer};
use sessions_benches::{
    client::{Random, call, cookie, request, requests},
    table,
};

const ROUNDS: usize = 1_000;
const BATCH: usize = 100;
/// Larger than what a core has for itself.
const OTHER_MEMORY: usize = 8 << 20;

#[derive(Session)]
struct Cart {
    name: String,
    items: Vec<String>,
}

fn app(items: usize) -> Router {
    Router::new()
        .route("/fill", get(move |session| fill(session, items)))
        .route("/name", get(name))
        .layer(SessionLayer::<Cart>::new(MemoryStore::new(), Keys::generate()))
}

async fn fill(session: Session<Cart>, items: usize) {
    let mut s = session.write().await;
    s.set_name("Zoë");
    let item = |number| format!("the article with the number {number}");
    s.set_items((0..items).map(item).collect::<Vec<_>>());
}

async fn name(session: Session<Cart>) -> String {
    session.read().await.name().to_string()
}

/// The time that half of the batches took at most, for each request.
async fn median(app: &mut Router, cookies: &[HeaderValue], other: &mut [u64]) -> Duration {
    let mut random = Random(1);
    let mut times = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        let batch = requests("/name", cookies, &mut random, BATCH);
        other.iter_mut().step_by(8).for_each(|word| *word += 1);
        let start = Instant::now();
        for request in batch {
            drop(call(app, request).await);
        }
        times.push(start.elapsed());
    }
    times.sort_unstable();
    times[ROUNDS / 2].div_f64(BATCH as f64)
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    println!("A request that reads a field, by the median of {ROUNDS} batches.");
    let heads = ["by turns", "two items", "the same, cold", "fifty items", "the same, cold"];
    table::head(&heads);
    let mut other = vec![0; OTHER_MEMORY / size_of::<u64>()];
    for sessions in [1, 100, 500, 1_000, 2_000, 5_000, 100_000] {
        let mut row = vec![table::count(sessions)];
        for items in [2, 50] {
            let mut app = app(items);
            let mut cookies = Vec::with_capacity(sessions);
            for _ in 0..sessions {
                let response = call(&mut app, request("/fill", None)).await;
                cookies.push(cookie(response.headers()).expect("a new session's cookie"));
            }
            row.push(table::time(median(&mut app, &cookies, &mut []).await));
            row.push(table::time(median(&mut app, &cookies, &mut other).await));
        }
        table::row(row);
    }
}
