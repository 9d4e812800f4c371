//! Fields that know more: each attribute from outside, in one process and in several.

mod defaults;
mod flash;
mod secret;
mod ttl;

use axum::{
    Extension, Router,
    extract::{Request, State},
    middleware::{self, Next},
    response::Response,
};
use sessions::{
    Keys, MemoryStore, SessionData, SessionLayer,
    testing::{ManualClock, SpyStore},
};
use sessions_tests::{Client, Reply, Server, Steps};

use crate::COOKIE;

/// A layer of its own, which for sessions is what a process is; and a client of it.
struct Process<T: SessionData> {
    layer: SessionLayer<T>,
    client: Client,
    steps: Steps,
    _server: Server,
}

/// Processes on one store, whose clients all have the same session.
struct Fleet<T: SessionData> {
    processes: Vec<Process<T>>,
    store: SpyStore<MemoryStore>,
    clock: ManualClock,
    keys: Keys,
}

impl<T: SessionData> Fleet<T> {
    /// `begin` is the path that begins the session.
    async fn start(count: usize, routes: Router, begin: &str) -> Self {
        let (clock, keys) = (ManualClock::new(), Keys::generate());
        let store = SpyStore::new(MemoryStore::builder().with_clock(&clock).build());
        let mut fleet = Self { processes: Vec::new(), store, clock, keys };
        for _ in 0..count {
            fleet.add(routes.clone(), fleet.keys.clone()).await;
        }
        let first = fleet.processes[0].client.clone();
        first.get(begin).await.text();
        for process in &fleet.processes {
            process.client.set_cookie(COOKIE, first.cookie(COOKIE).as_deref());
        }
        fleet.store.reset();
        fleet
    }

    /// One more process, whose client has no session yet.
    async fn add(&mut self, routes: Router, keys: Keys) {
        let builder = SessionLayer::builder(self.store.clone(), keys).with_clock(&self.clock);
        let layer = builder.build().expect("possible settings");
        let steps = Steps::default();
        let stops = middleware::from_fn_with_state(steps.clone(), stop_after);
        let app = routes.layer(stops).layer(layer.clone()).layer(Extension(self.clock.clone()));
        let app = app.layer(Extension(steps.clone()));
        let server = Server::start(app).await;
        let client = server.client();
        self.processes.push(Process { layer, client, steps, _server: server });
    }

    async fn get(&self, process: usize, path: &str) -> String {
        self.processes[process].client.get(path).await.text().to_string()
    }

    /// Requests `here` in the first process, `there` in the second when the handler of the first is
    /// done and nothing saved, and gives the answer of the first.
    async fn overtaken(&self, here: &str, there: &str) -> Reply {
        let Process { client, steps, .. } = &self.processes[0];
        let slow = client.copy().spawn_get(&format!("{here}?slow"));
        steps.arrived.notified().await;
        self.get(1, there).await;
        steps.go_on.notify_one();
        slow.await.expect("no panic")
    }
}

/// Between the handler of a slow request and its save.
async fn stop_after(State(steps): State<Steps>, request: Request, next: Next) -> Response {
    let is_slow = request.uri().query() == Some("slow");
    let response = next.run(request).await;
    if is_slow {
        steps.stop().await;
    }
    response
}
