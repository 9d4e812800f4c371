//! Requests that wait for one session's lock: `cargo run --release -p sessions-benches --bin lock`.
//!
//! One request holds a guard, the others wait. What a waiter costs when it comes, when it gets its turn, and
//! when it hangs up: from the end of the line, from the front, and in no order. A number that grows with the
//! number of waiters would let one client hold up everybody.

use std::{
    convert::Infallible,
    future::poll_fn,
    pin::Pin,
    task::Poll,
    time::{Duration, Instant},
};

use axum::{
    body::Body,
    http::{Request, Response, header},
};
use sessions::{Keys, MemoryStore, Session, SessionLayer};
use sessions_benches::{client::Random, table};
use tokio::runtime::Builder;
use tower::{Layer, Service, ServiceExt, service_fn};

#[derive(Session)]
struct Visitor {
    visits: u32,
}

type Waiting = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>>>>;

/// A request that writes to the session; or, on this path, takes a guard and keeps it.
const HOLD: &str = "/hold";

fn request(path: &str, cookie: &str) -> Request<()> {
    Request::builder().uri(path).header(header::COOKIE, cookie).body(()).expect("a request")
}

async fn handle(request: Request<()>) -> Result<Response<Body>, Infallible> {
    let session = Session::<Visitor>::open(request.extensions()).await.expect("the store works");
    let mut s = session.write().await;
    if request.uri().path() == HOLD {
        std::future::pending::<()>().await;
    }
    *s.visits_mut() += 1;
    drop(s);
    Ok(Response::new(Body::empty()))
}

/// In which order the waiters go.
#[derive(Clone, Copy)]
enum Order {
    Turn,
    LastFirst,
    FirstFirst,
    Random,
}

async fn poll_once(future: &mut Waiting) -> bool {
    poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx).is_ready())).await
}

/// What each of so many waiters takes to come, and to go.
async fn measure(waiters: usize, order: Order) -> [Duration; 2] {
    let layer = SessionLayer::<Visitor>::builder(MemoryStore::new(), Keys::generate())
        .with_waiter_limit(usize::MAX)
        .build()
        .expect("possible settings");
    let mut service = layer.layer(service_fn(handle));
    let response = service.ready().await.expect("ready").call(request("/", "")).await;
    let cookie = response.expect("infallible").headers()[header::SET_COOKIE].clone();
    let cookie = cookie.to_str().expect("ASCII").split(';').next().expect("a cookie").to_string();

    let mut send = |path: &str| -> Waiting { Box::pin(service.call(request(path, &cookie))) };
    let mut holder = send(HOLD);
    assert!(!poll_once(&mut holder).await);
    let mut all: Vec<Waiting> = (0..waiters).map(|_| send("/")).collect();
    let start = Instant::now();
    for waiter in &mut all {
        assert!(!poll_once(waiter).await);
    }
    let come = start.elapsed();

    match order {
        Order::Turn | Order::LastFirst => {}
        Order::FirstFirst => all.reverse(),
        Order::Random => {
            let mut random = Random(1);
            for at in (1..all.len()).rev() {
                all.swap(at, random.number() as usize % (at + 1));
            }
        }
    }
    let start = Instant::now();
    match order {
        Order::Turn => {
            drop(holder);
            for waiter in all {
                assert!(waiter.await.is_ok_and(|response| response.status().is_success()));
            }
        }
        _ => while all.pop().is_some() {},
    }
    [come, start.elapsed()].map(|time| time / waiters as u32)
}

fn main() {
    println!("\nA request that waits for one session's lock:");
    table::head(&[
        "waiters",
        "comes",
        "gets its turn",
        "hangs up, last first",
        "first first",
        "in no order",
    ]);
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    for waiters in [1_000, 10_000, 100_000] {
        let orders = [Order::Turn, Order::LastFirst, Order::FirstFirst, Order::Random];
        let [turn, last, first, random] =
            orders.map(|order| runtime.block_on(measure(waiters, order)));
        table::row([
            table::count(waiters),
            table::time(turn[0]),
            table::time(turn[1]),
            table::time(last[1]),
            table::time(first[1]),
            table::time(random[1]),
        ]);
    }
}
