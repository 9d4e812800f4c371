//! Stores below an application.

use std::time::Duration;

use axum::{Router, extract::Path, routing::get};
use sessions::{
    Keys, Session, SessionLayer, Store, UserIndex, UserSessions,
    testing::{Calls, SpyStore},
};
use sessions_tests::{Server, at_once};
use tokio::time::sleep;

const COOKIE: &str = "__Host-id";

#[derive(Session)]
struct Visitor {
    visits: u32,
}

async fn visit(session: Session<Visitor>) -> String {
    let mut s = session.write().await;
    *s.visits_mut() += 1;
    s.visits().to_string()
}

async fn look(session: Session<Visitor>) -> String {
    session.read().await.visits().to_string()
}

/// Exactly one more, whatever other processes do.
async fn exactly(session: Session<Visitor>) -> &'static str {
    let more = session.update(|s| *s.visits_mut() += 1).await;
    more.expect("the store answers");
    "one more"
}

async fn leave(session: Session<Visitor>) -> &'static str {
    session.destroy().await.expect("the store answers");
    "gone"
}

pub(crate) async fn app(store: impl Store, keys: Keys) -> Server {
    let router = Router::new()
        .route("/visit", get(visit))
        .route("/look", get(look))
        .route("/exactly", get(exactly))
        .route("/leave", get(leave))
        .route("/ignore", get(async || "nothing"));
    Server::start(router.layer(SessionLayer::<Visitor>::new(store, keys))).await
}

/// Each of the checks below that a store of any kind passes.
pub(crate) async fn works_on(store: impl UserIndex + Clone) {
    logs_out_everywhere(store.clone()).await;
    counts_its_calls(store.clone()).await;
    sessions_outlive_the_app(store.clone()).await;
    counts_from_four_layers(store).await;
}

/// A read-only request is one load, a write one load and one save; ignoring the session touches
/// nothing.
pub(crate) async fn counts_its_calls(store: impl Store) {
    let spy = SpyStore::new(store);
    let server = app(spy.clone(), Keys::generate()).await;
    let client = server.client();
    let calls = async |path: &str| {
        spy.reset();
        assert!(client.get(path).await.status.is_success());
        spy.calls()
    };
    assert_eq!(calls("/visit").await, Calls { create: 1, ..Calls::default() });
    assert_eq!(calls("/look").await, Calls { load: 1, ..Calls::default() });
    assert_eq!(calls("/visit").await, Calls { load: 1, replace: 1, ..Calls::default() });
    assert_eq!(calls("/ignore").await, Calls::default());
    assert_eq!(client.get("/look").await.text(), "2");
    assert!(client.get("/leave").await.status.is_success());
}

/// The same, counted by the server: how often it has loaded, created, saved and deleted so far.
pub(crate) async fn counts_on_the_server(store: impl Store, counted: impl AsyncFn() -> [i64; 4]) {
    let server = app(store, Keys::generate()).await;
    let client = server.client();
    let calls = async |path: &str, expected: [i64; 4]| {
        let before = counted().await;
        assert!(client.get(path).await.status.is_success());
        // A server may count a statement a moment after it has answered.
        let mut difference = [0; 4];
        for _ in 0..20 {
            sleep(Duration::from_millis(10)).await;
            let after = counted().await;
            difference = std::array::from_fn(|at| after[at] - before[at]);
        }
        assert_eq!(difference, expected, "loads, creates, saves, deletes of {path}");
    };
    // The first write creates.
    calls("/visit", [0, 1, 0, 0]).await;
    // A read is one load, and writes nothing.
    calls("/look", [1, 0, 0, 0]).await;
    calls("/look", [1, 0, 0, 0]).await;
    // A write is one load and one save.
    calls("/visit", [1, 0, 1, 0]).await;
    // Who does not ask does not pay.
    calls("/ignore", [0; 4]).await;
}

/// A session goes on in the next process that has the same keys and the same store.
pub(crate) async fn sessions_outlive_the_app(store: impl Store + Clone) {
    let keys = Keys::generate();
    let first = app(store.clone(), keys.clone()).await;
    let before = first.client();
    assert_eq!(before.get("/visit").await.text(), "1");
    drop(first);
    let second = app(store, keys).await;
    let after = second.client();
    after.set_cookie(COOKIE, before.cookie(COOKIE).as_deref());
    assert_eq!(after.get("/visit").await.text(), "2");
    assert!(after.get("/leave").await.status.is_success());
}

/// Four layers with nothing in common but the store and the keys, as four processes: of their updates
/// of one field of one session, none is lost.
pub(crate) async fn counts_from_four_layers(store: impl Store + Clone) {
    const LAYERS: usize = 4;
    const UPDATES: usize = 15;
    let keys = Keys::generate();
    let mut servers = Vec::new();
    for _ in 0..LAYERS {
        servers.push(app(store.clone(), keys.clone()).await);
    }
    let first = servers[0].client();
    assert_eq!(first.get("/visit").await.text(), "1");
    let cookie = first.cookie(COOKIE);
    let clients: Vec<_> = servers.iter().map(Server::client).collect();
    for client in &clients {
        client.set_cookie(COOKIE, cookie.as_deref());
    }
    let clients_of = clients.clone();
    at_once(LAYERS, move |number| {
        let client = clients_of[number].clone();
        async move {
            for _ in 0..UPDATES {
                assert_eq!(client.get("/exactly").await.text(), "one more");
            }
        }
    })
    .await;
    let total = (1 + LAYERS * UPDATES).to_string();
    for client in &clients {
        assert_eq!(client.get("/look").await.text(), total);
    }
    assert!(first.get("/leave").await.status.is_success());
}

#[derive(Session)]
struct Customer {
    #[session(user)]
    user: Option<String>,
}

#[derive(Session)]
struct Admin {
    #[session(user)]
    user: Option<String>,
}

/// A customer and an admin of one name are two: neither sees or ends the other's sessions.
async fn keeps_users_of_two_types_apart(store: impl UserIndex + Clone) {
    let customers = SessionLayer::<Customer>::builder(store.clone(), Keys::generate());
    let customers = customers.with_cookie_name("customer").build().unwrap();
    let admins = SessionLayer::<Admin>::builder(store.clone(), Keys::generate());
    let admins = admins.with_cookie_name("admin").build().unwrap();
    let lists = (customers.user_sessions().unwrap(), admins.user_sessions().unwrap());
    let customer = async |session: Session<Customer>| session.login("zoe".to_string()).await;
    let admin = async |session: Session<Admin>| session.login("zoe".to_string()).await;
    let who = async |customer: Session<Customer>, admin: Session<Admin>| {
        format!("{:?} {:?}", customer.read().await.user(), admin.read().await.user())
    };
    let routes = Router::new().route("/customer", get(customer)).route("/admin", get(admin));
    let app = routes.route("/who", get(who)).layer(customers).layer(admins);
    let server = Server::start(app).await;
    let client = server.client();
    client.get("/customer").await.text();
    client.get("/admin").await.text();
    let zoe = "zoe".to_string();
    let [of_customer, of_admin] =
        [lists.0.list(&zoe).await.unwrap(), lists.1.list(&zoe).await.unwrap()];
    assert_eq!((of_customer.len(), of_admin.len()), (1, 1));
    assert_ne!(of_customer[0].key, of_admin[0].key);
    assert!(!lists.0.end(&zoe, &of_admin[0].key).await.unwrap());
    assert_eq!(lists.0.end_all(&zoe).await.unwrap(), 1);
    assert_eq!(client.get("/who").await.text(), r#"None Some("zoe")"#);
    assert_eq!(lists.1.end_all(&zoe).await.unwrap(), 1);
    assert_eq!(client.get("/who").await.text(), "None None");
}

/// A user with four devices, in front of two processes, logs out on all but one of them.
pub(crate) async fn logs_out_everywhere(store: impl UserIndex + Clone) {
    async fn login(Path(user): Path<String>, session: Session<Customer>) -> sessions::Result<()> {
        session.login(user).await
    }
    async fn who(session: Session<Customer>) -> String {
        session.read().await.user().unwrap_or("nobody").to_string()
    }
    async fn end_others(
        sessions: UserSessions<Customer>,
        session: Session<Customer>,
    ) -> sessions::Result<String> {
        Ok(sessions.end_others(&session).await?.to_string())
    }
    let keys = Keys::generate();
    let start = async || {
        let layer = SessionLayer::<Customer>::new(store.clone(), keys.clone());
        let routes = Router::new()
            .route("/login/{user}", get(login))
            .route("/who", get(who))
            .route("/end-others", get(end_others));
        Server::start(routes.layer(layer)).await
    };
    let (one, two) = (start().await, start().await);
    let devices = [one.client(), one.client(), two.client(), two.client()];
    for device in &devices {
        device.get("/login/dora").await.text();
    }
    let stranger = two.client();
    stranger.get("/login/dorian").await.text();
    let [here, others @ ..] = &devices;
    assert_eq!(here.get("/end-others").await.text(), "3");
    for other in others {
        assert_eq!(other.get("/who").await.text(), "nobody");
    }
    assert_eq!(here.get("/who").await.text(), "dora");
    assert_eq!(stranger.get("/who").await.text(), "dorian");
    // Another login exchanges the id, and the list knows the new one alone.
    here.get("/login/dora").await.text();
    assert_eq!(store.sessions_of("Customer:dora").await.unwrap().len(), 1);
    assert_eq!(here.get("/end-others").await.text(), "0");
    keeps_users_of_two_types_apart(store).await;
}
