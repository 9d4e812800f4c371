//! Sessions that are bound to a device: a browser that has a key, others that have none, and a thief.

mod at_once;
mod costs;
mod interrupted;
mod layers;
mod lifetime;
mod metrics;
mod refresh;
mod registration;
mod rollout;
mod several;
mod thief;
mod unproven;

use std::{future::pending, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{Path, State},
    routing::get,
};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD as BASE64};
use sessions::{
    DeviceBinding, Keys, MemoryStore, RequireLogin, Session, SessionLayer, StoreKey, UserIndex,
    UserSessions,
    testing::{ManualClock, SpyStore},
};
use sessions_tests::{
    Client, Server,
    devices::{BOUND, Browser},
};
use sha2::{Digest, Sha256};
use tokio::sync::Notify;

use crate::COOKIE;

const REGISTER: &str = "/device-binding/register";

/// The header in which a response offers a binding.
const OFFER: &str = "secure-session-registration";

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);

#[derive(Session)]
struct Customer {
    #[session(user)]
    user: Option<u64>,
    visits: u32,
}

type Spied = SpyStore<MemoryStore>;

struct Shop {
    store: Spied,
    clock: ManualClock,
    keys: Keys,
    layer: SessionLayer<Customer>,
    server: Server,
    locked: Arc<Notify>,
}

impl Shop {
    async fn start() -> Self {
        Self::with(DeviceBinding::new()).await
    }

    async fn with(binding: DeviceBinding) -> Self {
        Self::or_without(Some(binding)).await
    }

    async fn or_without(binding: Option<DeviceBinding>) -> Self {
        let clock = ManualClock::new();
        let store = SpyStore::new(MemoryStore::builder().with_clock(&clock).build());
        Self::on(store, clock, Keys::generate(), binding).await
    }

    async fn on(
        store: Spied,
        clock: ManualClock,
        keys: Keys,
        binding: Option<DeviceBinding>,
    ) -> Self {
        let mut builder = SessionLayer::<Customer>::builder(store.clone(), keys.clone())
            .with_clock(&clock)
            .in_another_process();
        if let Some(binding) = binding {
            builder = builder.bind_to_device(binding);
        }
        let layer = builder.build().expect("possible settings");
        let locked = Arc::new(Notify::new());
        let sessions = layer.user_sessions().expect("the store can list them");
        let app = routes().with_state((sessions, locked.clone())).layer(layer.clone());
        let server = Server::start(app).await;
        Self { store, clock, keys, layer, server, locked }
    }

    /// Another process on the same store.
    async fn twin(&self) -> Self {
        let (store, clock, keys) = (self.store.clone(), self.clock.clone(), self.keys.clone());
        Self::on(store, clock, keys, Some(DeviceBinding::new())).await
    }

    fn browser(&self, number: u8) -> Browser {
        Browser::new(self.server.client(), &self.clock, number)
    }

    /// A browser that is logged in and bound, and past the first minute.
    async fn bound(&self, number: u8, user: u64) -> Browser {
        let mut browser = self.browser(number);
        browser.get(&format!("/login/{user}")).await.text();
        assert!(browser.bound.is_some(), "it is not bound");
        self.clock.advance(2 * MINUTE);
        browser
    }

    async fn sessions_of(&self, user: u64) -> usize {
        let user = format!("Customer:{user}");
        self.store.store().sessions_of(&user).await.expect("it answers").len()
    }
}

type AppState = (UserSessions<Customer>, Arc<Notify>);

fn routes() -> Router<AppState> {
    let users = RequireLogin::<Customer>::builder().with_login_page("/login-page");
    let users = users.build().expect("a path");
    Router::new()
        .route("/account", get(who).layer(users))
        .route("/who", get(who).post(who))
        .route("/proof", get(proof))
        .route("/visit", get(visit).post(visit))
        .route("/login/{user}", get(login))
        .route("/logout", get(logout))
        .route("/renew", get(renew))
        .route("/devices/{user}", get(devices))
        .route("/end-others", get(end_others))
        .route("/lock", get(lock))
        .route("/wait", get(wait))
        .route("/still", get(async || "still"))
}

async fn who(session: Session<Customer>) -> String {
    format!("{:?}", session.read().await.user())
}

async fn proof(session: Session<Customer>) -> String {
    format!("{:?}", session.device_binding())
}

async fn visit(session: Session<Customer>) -> String {
    let mut s = session.write().await;
    *s.visits_mut() += 1;
    s.visits.to_string()
}

async fn login(Path(user): Path<u64>, session: Session<Customer>) -> sessions::Result<()> {
    session.login(user).await
}

async fn logout(session: Session<Customer>) -> sessions::Result<()> {
    session.logout().await
}

async fn renew(session: Session<Customer>) -> sessions::Result<()> {
    session.renew_id().await
}

async fn devices(
    Path(user): Path<u64>,
    State((sessions, _)): State<AppState>,
) -> sessions::Result<String> {
    let list = sessions.list(&user).await?;
    Ok(format!("{:?}", list.iter().map(|it| it.bound_since.is_some()).collect::<Vec<_>>()))
}

async fn end_others(
    State((sessions, _)): State<AppState>,
    session: Session<Customer>,
) -> sessions::Result<()> {
    sessions.end_others(&session).await?;
    Ok(())
}

/// Holds its session's lock until its client is gone.
async fn lock(State((_, locked)): State<AppState>, session: Session<Customer>) {
    let _guard = session.write().await;
    locked.notify_one();
    pending::<()>().await;
}

/// Has its session, and takes its time.
async fn wait(State((_, done)): State<AppState>, session: Session<Customer>) -> String {
    done.notified().await;
    who(session).await
}

/// What a page offers its browser; empty if the page offers nothing. A `Client` leaves the offer, a `Browser` takes it.
async fn offer_at(client: &Client, path: &str) -> String {
    client.get(path).await.header(OFFER)
}

/// The same browser in front of another process.
fn in_front_of(server: &Server, client: &Client) -> Client {
    let other = server.client();
    for name in [COOKIE, BOUND] {
        other.set_cookie(name, client.cookie(name).as_deref());
    }
    other
}

/// The browser's cookie of this name, as it stands in a `Cookie` header.
fn pair(browser: &Browser, name: &str) -> String {
    format!("{name}={}", browser.client.cookie(name).expect("a cookie"))
}

/// Where the store has the link of the browser's binding.
fn link_of(browser: &Browser) -> StoreKey {
    let id = BASE64.decode(&browser.bound().id).expect("base64");
    let hash = Sha256::new_with_prefix("sessions: link of a device binding: ");
    StoreKey::from_bytes(hash.chain_update(&id[..16]).finalize().into())
}
