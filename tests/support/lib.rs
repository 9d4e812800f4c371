//! What the tests share: an application on a real socket and clients that keep cookies as browsers do, servers for
//! stores and proxies, stores with one odd side, random cases and histories, and the sources of this repository.

pub mod cases;
mod client;
pub mod devices;
pub mod ended;
mod hand_on;
pub mod history;
pub mod nginx;
pub mod servers;
mod single_record;
mod sources;
mod steps;
pub mod wire;

use std::net::SocketAddr;

use axum::Router;
use tokio::{net::TcpListener, task::JoinHandle};

pub use client::{Client, Reply};
pub use single_record::SingleRecord;
pub use sources::{repository, rust_sources, sources_of_sessions};
pub use steps::Steps;

/// An app on a loopback port of its own, until it is dropped.
pub struct Server {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Server {
    /// Starts to serve `app`.
    pub async fn start(app: Router) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound socket");
        let task = tokio::spawn(async move {
            axum::serve(listener, app).await.expect("the server runs until it is dropped");
        });
        Self { address, task }
    }

    /// A client without cookies.
    pub fn client(&self) -> Client {
        Client::new(self.address)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Runs `work` for every number below `count` at the same time, and waits for all of it.
pub async fn at_once<R, F>(count: usize, work: impl Fn(usize) -> F) -> Vec<R>
where
    R: Send + 'static,
    F: Future<Output = R> + Send + 'static,
{
    let tasks: Vec<_> = (0..count).map(|number| tokio::spawn(work(number))).collect();
    let mut results = Vec::with_capacity(count);
    for task in tasks {
        results.push(task.await.expect("no task panics"));
    }
    results
}

/// Waits until `condition` holds, and fails with `what` after ten seconds.
pub async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !condition().await {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    if tokio::time::timeout(std::time::Duration::from_secs(10), wait).await.is_err() {
        panic!("it never came true that {what}");
    }
}
