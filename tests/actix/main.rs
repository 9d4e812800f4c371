//! actix-web: what is promised of axum, over real sockets, on a server with two workers. Where a response is
//! the matter, the same handlers are in axum too, and both have to say the same.

mod devices;
mod drops;
mod guards;
mod races;
mod responses;

use std::net::SocketAddr;

use actix_web::{HttpServer, dev::ServerHandle, web};
use axum::{Router, routing};
use sessions::{
    CsrfToken, Keys, LoggedIn, MemoryStore, Session, SessionLayer, SessionLayerBuilder,
    testing::SpyStore,
};
use sessions_tests::{Client, Server, Steps};

/// The name of the default cookie.
const COOKIE: &str = "__Host-id";

/// The session of all tests.
#[derive(Session)]
struct Visitor {
    #[session(user)]
    user: Option<u64>,
    name: Option<String>,
    #[session(default = "light")]
    theme: String,
    visits: u32,
    seen: Vec<u32>,
    points: i64,
    is_admin: bool,
}

type Spied = SpyStore<MemoryStore>;

fn build(
    store: &Spied,
    keys: &Keys,
    settings: impl FnOnce(SessionLayerBuilder<Visitor>) -> SessionLayerBuilder<Visitor>,
) -> SessionLayer<Visitor> {
    settings(SessionLayer::builder(store.clone(), keys.clone())).build().expect("possible settings")
}

/// An application in actix-web, until it is dropped.
struct App {
    address: SocketAddr,
    server: ServerHandle,
    store: Spied,
    keys: Keys,
    layer: SessionLayer<Visitor>,
}

impl App {
    async fn start(routes: impl Fn(&mut web::ServiceConfig) + Copy + Send + 'static) -> Self {
        Self::with(routes, |builder| builder).await
    }

    async fn with(
        routes: impl Fn(&mut web::ServiceConfig) + Copy + Send + 'static,
        settings: impl FnOnce(SessionLayerBuilder<Visitor>) -> SessionLayerBuilder<Visitor>,
    ) -> Self {
        Self::on_memory(MemoryStore::new(), routes, settings)
    }

    fn on_memory(
        store: MemoryStore,
        routes: impl Fn(&mut web::ServiceConfig) + Copy + Send + 'static,
        settings: impl FnOnce(SessionLayerBuilder<Visitor>) -> SessionLayerBuilder<Visitor>,
    ) -> Self {
        let (store, keys) = (SpyStore::new(store), Keys::generate());
        let layer = build(&store, &keys, settings);
        Self::on(store, keys, layer, Steps::default(), routes)
    }

    /// One whose handlers stop in the middle.
    async fn stepwise(
        steps: &Steps,
        routes: impl Fn(&mut web::ServiceConfig) + Copy + Send + 'static,
    ) -> Self {
        let (store, keys) = (SpyStore::new(MemoryStore::new()), Keys::generate());
        let layer = build(&store, &keys, |builder| builder);
        Self::on(store, keys, layer, steps.clone(), routes)
    }

    /// Another process on the same store: for sessions that is what another layer is.
    fn twin(&self) -> Self {
        let (store, keys) = (self.store.clone(), self.keys.clone());
        let layer = build(&store, &keys, |builder| builder);
        Self::on(store, keys, layer, Steps::default(), |_| {})
    }

    fn on(
        store: Spied,
        keys: Keys,
        layer: SessionLayer<Visitor>,
        steps: Steps,
        routes: impl Fn(&mut web::ServiceConfig) + Copy + Send + 'static,
    ) -> Self {
        let app = {
            let layer = layer.clone();
            move || {
                actix_web::App::new()
                    .app_data(web::Data::new(steps.clone()))
                    .configure(routes)
                    .configure(basics)
                    .wrap(layer.clone())
            }
        };
        // By default a handler does not hear that its client has hung up.
        let server = HttpServer::new(app).workers(2).disable_signals().h1_allow_half_closed(false);
        let server = server.bind("127.0.0.1:0").expect("a free port");
        let address = server.addrs()[0];
        let server = server.run();
        let handle = server.handle();
        tokio::spawn(server);
        Self { address, server: handle, store, keys, layer }
    }

    fn client(&self) -> Client {
        Client::new(self.address)
    }

    /// A client that has a session.
    async fn visitor(&self) -> Client {
        let client = self.client();
        client.get("/name/Zoe").await.text();
        assert!(client.cookie(COOKIE).is_some());
        client
    }
}

impl Drop for App {
    fn drop(&mut self) {
        // The command is sent at once; nobody waits for what comes of it.
        drop(self.server.stop(false));
    }
}

// ---- handlers of both frameworks ----

async fn ignore() -> &'static str {
    "ignored"
}

async fn name(session: Session<Visitor>) -> String {
    session.read().await.name().unwrap_or("nobody").to_string()
}

async fn set_zoe(session: Session<Visitor>) -> String {
    session.write().await.set_name("Zoe");
    String::new()
}

async fn set_ada(session: Session<Visitor>) -> String {
    session.write().await.set_name("Ada");
    String::new()
}

async fn visit(session: Session<Visitor>) -> String {
    let mut s = session.write().await;
    let visits = s.visits() + 1;
    s.set_visits(visits);
    visits.to_string()
}

/// Counts exactly, from any number of processes.
async fn update(session: Session<Visitor>) -> sessions::Result<String> {
    session.update(|s| s.set_visits(s.visits() + 1)).await?;
    Ok(String::new())
}

async fn destroy(session: Session<Visitor>) -> sessions::Result<String> {
    session.destroy().await?;
    Ok(String::new())
}

async fn renew(session: Session<Visitor>) -> sessions::Result<String> {
    session.renew_id().await?;
    Ok(String::new())
}

async fn login(session: Session<Visitor>) -> sessions::Result<String> {
    session.login(7).await?;
    Ok(String::new())
}

async fn logout(session: Session<Visitor>) -> sessions::Result<String> {
    session.logout().await?;
    Ok(String::new())
}

async fn account(LoggedIn { user, session }: LoggedIn<Visitor>) -> String {
    format!("{user} {}", session.logged_in_at().is_some())
}

async fn proof(session: Session<Visitor>) -> String {
    format!("{:?}", session.device_binding())
}

async fn token(token: CsrfToken<Visitor>) -> String {
    token.to_string()
}

/// Waits for a guard that it holds itself.
async fn waits_for_itself(session: Session<Visitor>) -> String {
    let _guard = session.write().await;
    session.read().await.visits.to_string()
}

/// Keeps the lock for itself until another request has been refused it.
async fn keeps_the_lock(session: Session<Visitor>) -> String {
    let _guard = session.write().await;
    tokio::time::sleep(std::time::Duration::from_millis(600)).await;
    String::new()
}

/// Routes of both frameworks.
macro_rules! routes {
    ($($path:literal => $handler:path;)+) => {
        fn basics(config: &mut web::ServiceConfig) {
            config$(.route($path, web::get().to($handler)))+;
        }

        fn axum_basics() -> Router {
            Router::new()$(.route($path, routing::get($handler)))+
        }
    };
}

routes! {
    "/ignore" => ignore;
    "/name" => name;
    "/name/Zoe" => set_zoe;
    "/name/Ada" => set_ada;
    "/visit" => visit;
    "/update" => update;
    "/destroy" => destroy;
    "/renew" => renew;
    "/login" => login;
    "/logout" => logout;
    "/account" => account;
    "/proof" => proof;
    "/token" => token;
    "/waits-for-itself" => waits_for_itself;
    "/keeps-the-lock" => keeps_the_lock;
}

/// The same application twice: in axum, and in actix-web.
struct Both {
    _axum: Server,
    _actix: App,
    clients: [Client; 2],
    stores: [Spied; 2],
}

impl Both {
    async fn start(
        axum: Router,
        actix: impl Fn(&mut web::ServiceConfig) + Copy + Send + 'static,
        settings: impl Fn(SessionLayerBuilder<Visitor>) -> SessionLayerBuilder<Visitor>,
    ) -> Self {
        Self::on_memory(MemoryStore::new, axum, actix, settings).await
    }

    /// Each on a store of its own.
    async fn on_memory(
        new_store: impl Fn() -> MemoryStore,
        axum: Router,
        actix: impl Fn(&mut web::ServiceConfig) + Copy + Send + 'static,
        settings: impl Fn(SessionLayerBuilder<Visitor>) -> SessionLayerBuilder<Visitor>,
    ) -> Self {
        let (store, keys) = (SpyStore::new(new_store()), Keys::generate());
        let layer = build(&store, &keys, &settings);
        let server = Server::start(axum.merge(axum_basics()).layer(layer)).await;
        let app = App::on_memory(new_store(), actix, settings);
        let (clients, stores) = ([server.client(), app.client()], [store, app.store.clone()]);
        Self { _axum: server, _actix: app, clients, stores }
    }
}
