//! Several tenants on one store, told apart by the host of the request: no session, no user and no token of
//! one is anything to another.
//!
//! Run it with `cargo run -p sessions-examples --bin tenants`, and ask for
//! `http://teapots.localhost:3000` and `http://kettles.localhost:3000`.
//!
//! ```text
//! cargo add axum http sessions
//! cargo add tokio --features macros,net,rt-multi-thread
//! cargo add tower --features util
//! ```

use std::{collections::HashMap, sync::Arc};

use axum::{
    Router,
    body::Body,
    extract::State,
    response::{IntoResponse, Response},
    routing::get,
};
use http::{Request, StatusCode, header};
use sessions::{Keys, MemoryStore, Session, UserSessions};
use tokio::net::TcpListener;
use tower::ServiceExt;

#[derive(Session)]
struct Customer {
    #[session(user)]
    user: Option<u64>,
}

async fn index(session: Session<Customer>) -> String {
    format!("{:?}", session.read().await.user())
}

async fn login(session: Session<Customer>) -> sessions::Result<()> {
    session.login(7).await // a real program asks for a password
}

async fn logins(sessions: UserSessions<Customer>) -> sessions::Result<String> {
    Ok(sessions.list(&7).await?.len().to_string())
}

/// One application for each tenant. They share the store and the keys that all are derived from.
fn shop(store: &MemoryStore, keys: &Keys, tenant: &str) -> Router {
    Router::new()
        .route("/", get(index))
        .route("/login", get(login))
        .route("/logins", get(logins))
        .layer(Customer::layer(store.clone(), keys.for_tenant(tenant)))
}

type Shops = Arc<HashMap<&'static str, Router>>;

async fn by_host(State(shops): State<Shops>, request: Request<Body>) -> Response {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    let name = host.and_then(|host| host.split(':').next()).unwrap_or_default();
    match shops.get(name) {
        Some(shop) => shop.clone().oneshot(request).await.into_response(),
        None => (StatusCode::NOT_FOUND, "no such shop").into_response(),
    }
}

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let (store, keys) = (MemoryStore::new(), Keys::generate());
    let hosts = ["teapots.localhost", "kettles.localhost"];
    let shops: Shops = Arc::new(hosts.map(|host| (host, shop(&store, &keys, host))).into());
    let app = Router::new().fallback(by_host).with_state(shops);

    let port = std::env::args().nth(1).unwrap_or("3000".to_string());
    let listener = TcpListener::bind(format!("127.0.0.1:{port}")).await?;
    println!("tenants listens on http://{}", listener.local_addr()?);
    axum::serve(listener, app).await
}
