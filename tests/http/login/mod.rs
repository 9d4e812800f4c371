//! Logins: who is logged in, how it begins and ends, and that no other cookie opens it.

mod begin_and_end;
mod devices;
mod fixation;
mod guards;
mod interrupted;
mod late_requests;

use std::time::Duration;

use axum::{Router, extract::Path, routing::get};
use sessions::{
    Keys, LoggedIn, MemoryStore, Session, SessionLayer, UserIndex, UserSessions,
    testing::{ManualClock, SpyStore},
};
use sessions_tests::{Client, Server};

use crate::COOKIE;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(24 * 3_600);

#[derive(Session)]
struct Customer {
    #[session(user)]
    user: Option<u64>,
    cart: Vec<u32>,
    is_admin: bool,
}

type Spied = SpyStore<MemoryStore>;

/// A shop, and as many layers on its store as a test wants.
struct Shop {
    store: Spied,
    clock: ManualClock,
    layer: SessionLayer<Customer>,
    server: Server,
}

impl Shop {
    async fn start() -> Self {
        let clock = ManualClock::new();
        let store = SpyStore::new(MemoryStore::builder().with_clock(&clock).build());
        Self::on(store, clock, Keys::generate()).await
    }

    /// Two processes on one store.
    async fn two() -> [Self; 2] {
        let clock = ManualClock::new();
        let store = SpyStore::new(MemoryStore::builder().with_clock(&clock).build());
        let keys = Keys::generate();
        [
            Self::on(store.clone(), clock.clone(), keys.clone()).await,
            Self::on(store, clock, keys).await,
        ]
    }

    async fn on(store: Spied, clock: ManualClock, keys: Keys) -> Self {
        let builder = SessionLayer::<Customer>::builder(store.clone(), keys).with_clock(&clock);
        let layer = builder.build().expect("possible settings");
        let server = Server::start(routes().layer(layer.clone())).await;
        Self { store, clock, layer, server }
    }

    fn client(&self) -> Client {
        self.server.client()
    }

    /// Somebody with a cart, who is not logged in.
    async fn visitor(&self) -> Client {
        let client = self.client();
        client.get("/cart/1").await.text();
        client
    }

    async fn logged_in(&self, user: u64) -> Client {
        let client = self.visitor().await;
        client.get(&format!("/login/{user}")).await.text();
        client
    }

    async fn sessions_of(&self, user: &str) -> usize {
        self.store.store().sessions_of(&format!("Customer:{user}")).await.unwrap().len()
    }

    /// The same browser in front of another process.
    fn in_front_of(&self, client: &Client) -> Client {
        let other = self.client();
        other.set_cookie(COOKIE, client.cookie(COOKIE).as_deref());
        other
    }
}

fn routes() -> Router {
    Router::new()
        .route("/who", get(who))
        .route("/cart/{item}", get(put_into_cart))
        .route("/cart", get(cart))
        .route("/login/{user}", get(login))
        .route("/login-afresh/{user}", get(login_afresh))
        .route("/logout", get(logout))
        .route("/renew", get(renew))
        .route("/lock", get(lock))
        .route("/account", get(account))
        .route("/key", get(key))
        .route("/end-others", get(end_others))
        .route("/end-all", get(end_all))
}

async fn who(session: Session<Customer>) -> String {
    format!("{:?}", session.read().await.user())
}

async fn put_into_cart(Path(item): Path<u32>, session: Session<Customer>) {
    session.write().await.cart_mut().push(item);
}

async fn cart(session: Session<Customer>) -> String {
    format!("{:?}", session.read().await.cart())
}

async fn login(Path(user): Path<u64>, session: Session<Customer>) -> sessions::Result<()> {
    session.login(user).await
}

async fn logout(session: Session<Customer>) -> sessions::Result<()> {
    session.logout().await
}

async fn login_afresh(Path(user): Path<u64>, session: Session<Customer>) -> sessions::Result<()> {
    session.login(user).without_earlier_data().await
}

async fn renew(session: Session<Customer>) -> sessions::Result<()> {
    session.renew_id().await
}

async fn lock(session: Session<Customer>) -> sessions::Result<()> {
    drop(session.lock().await?);
    Ok(())
}

async fn account(LoggedIn { user, session }: LoggedIn<Customer>) -> String {
    format!("user {user} with {} items", session.read().await.cart().len())
}

/// What the store calls the session, after it is saved if need be.
async fn key(session: Session<Customer>) -> sessions::Result<String> {
    session.save().await?;
    Ok(session.store_key().map(|key| key.to_string()).unwrap_or_default())
}

async fn end_others(
    sessions: UserSessions<Customer>,
    session: Session<Customer>,
) -> sessions::Result<String> {
    Ok(sessions.end_others(&session).await?.to_string())
}

async fn end_all(
    sessions: UserSessions<Customer>,
    LoggedIn { user, .. }: LoggedIn<Customer>,
) -> sessions::Result<String> {
    Ok(sessions.end_all(&user).await?.to_string())
}

/// A shop with one more route.
async fn shop_with<H, A>(path: &str, handler: H) -> Shop
where
    H: axum::handler::Handler<A, ()>,
    A: 'static,
{
    shop_of(Router::new().route(path, get(handler))).await
}

async fn shop_of(more: Router) -> Shop {
    let shop = Shop::start().await;
    let app = routes().merge(more).layer(shop.layer.clone());
    Shop { server: Server::start(app).await, ..shop }
}
