//! Each store against tower-sessions with its own store on the same server: 64 sessions at once, of
//! four kilobytes each; one request of each session at a time, straight into the router, without
//! HTTP around it. A read looks at one field, a write adds one to it.
//!
//! `cargo run --release --manifest-path benches/stores/Cargo.toml` prints the table; with `-- redis`,
//! `postgres`, `mariadb`, `sqlite` or `memcached` the lines of that one.

use std::time::{Duration, Instant};

use axum::{
    Router,
    body::Body,
    http::{HeaderValue, Request, header},
    routing::get,
};
use http_body_util::BodyExt;
use servers::{Folder, Kind, StoreServer};
use sessions::{
    Keys, MemcachedStore, MySqlStore, PostgresStore, RedisStore, SessionLayer, SqliteStore, Store,
    store::NearCache,
};
use tower::ServiceExt;
use tower_sessions::{SessionManagerLayer, SessionStore, cookie::Key};
use tower_sessions_redis_store::fred::prelude::{ClientLike, Config, Pool};

const SESSIONS: usize = 64;
/// Each is measured for that long, in turns, so that a busy moment of the machine hits both.
const TURN: Duration = Duration::from_secs(2);
const TURNS: usize = 3;
const PAYLOAD: usize = 4 * 1024;

mod ours {
    use sessions::Session;

    #[derive(Session)]
    pub struct Visitor {
        pub text: String,
        pub visits: u32,
    }

    pub async fn begin(session: Session<Visitor>) {
        let mut s = session.write().await;
        s.set_text("x".repeat(super::PAYLOAD));
        s.set_visits(1);
    }

    pub async fn read(session: Session<Visitor>) -> String {
        session.read().await.visits().to_string()
    }

    pub async fn write(session: Session<Visitor>) -> String {
        let mut s = session.write().await;
        *s.visits_mut() += 1;
        s.visits().to_string()
    }
}

mod theirs {
    use tower_sessions::Session;

    pub async fn begin(session: Session) {
        session.insert("text", "x".repeat(super::PAYLOAD)).await.unwrap();
        session.insert("visits", 1_u32).await.unwrap();
    }

    pub async fn read(session: Session) -> String {
        session.get::<u32>("visits").await.unwrap().unwrap().to_string()
    }

    pub async fn write(session: Session) -> String {
        let visits = session.get::<u32>("visits").await.unwrap().unwrap() + 1;
        session.insert("visits", visits).await.unwrap();
        visits.to_string()
    }
}

fn our_app(store: impl Store) -> Router {
    Router::new()
        .route("/begin", get(ours::begin))
        .route("/read", get(ours::read))
        .route("/write", get(ours::write))
        .layer(SessionLayer::<ours::Visitor>::new(store, Keys::generate()))
}

fn their_app(store: impl SessionStore + Clone) -> Router {
    Router::new()
        .route("/begin", get(theirs::begin))
        .route("/read", get(theirs::read))
        .route("/write", get(theirs::write))
        .layer(SessionManagerLayer::new(store).with_signed(Key::generate()))
}

async fn ask(app: &Router, path: &str, cookie: Option<&HeaderValue>) -> Option<HeaderValue> {
    let mut request = Request::get(path).body(Body::empty()).unwrap();
    if let Some(cookie) = cookie {
        request.headers_mut().insert(header::COOKIE, cookie.clone());
    }
    let response = app.clone().oneshot(request).await.unwrap();
    assert!(response.status().is_success(), "{path}: {}", response.status());
    let cookie = response.headers().get(header::SET_COOKIE).cloned();
    response.into_body().collect().await.unwrap();
    cookie
}

/// The app with its sessions begun, and what their cookies are.
async fn begin(app: Router) -> (Router, Vec<HeaderValue>) {
    let mut cookies = Vec::new();
    for _ in 0..SESSIONS {
        let cookie = ask(&app, "/begin", None).await.expect("a new session has a cookie");
        let pair = cookie.to_str().unwrap().split(';').next().unwrap().to_string();
        cookies.push(HeaderValue::try_from(pair).unwrap());
    }
    (app, cookies)
}

/// How long each request took, of all sessions at once.
async fn turn(app: &(Router, Vec<HeaderValue>), path: &'static str) -> Vec<Duration> {
    let end = Instant::now() + TURN;
    let tasks = app.1.iter().cloned().map(|cookie| {
        let app = app.0.clone();
        tokio::spawn(async move {
            let mut took = Vec::new();
            while Instant::now() < end {
                let begun = Instant::now();
                ask(&app, path, Some(&cookie)).await;
                took.push(begun.elapsed());
            }
            took
        })
    });
    let mut all = Vec::new();
    for task in tasks.collect::<Vec<_>>() {
        all.extend(task.await.unwrap());
    }
    all
}

/// Ours, the same with a near cache, and theirs; in turns.
async fn compare(store: &str, apps: [Option<Router>; 3]) {
    let mut begun = Vec::new();
    for app in apps {
        begun.push(match app {
            Some(app) => Some(begin(app).await),
            None => None,
        });
    }
    for path in ["/read", "/write"] {
        let mut took = [const { Vec::new() }; 3];
        for _ in 0..TURNS {
            for (app, took) in begun.iter().zip(&mut took) {
                if let Some(app) = app {
                    took.extend(turn(app, path).await);
                }
            }
        }
        let [ours, near, theirs] = took.map(cell);
        println!("| {store} | {} | {ours} | {near} | {theirs} |", &path[1..]);
    }
}

/// Requests a second, and the slowest hundredth.
fn cell(mut took: Vec<Duration>) -> String {
    if took.is_empty() {
        return "–".to_string();
    }
    took.sort_unstable();
    let rate = took.len() as f64 / (TURN.as_secs_f64() * TURNS as f64);
    let slow = took[took.len() * 99 / 100];
    format!("{rate:.0}/s, p99 {:.1} ms", slow.as_secs_f64() * 1000.0)
}

/// A part of the program: all of them, or the one that is named.
fn wanted(name: &str) -> bool {
    std::env::args().nth(1).is_none_or(|only| only == name)
}

/// Starts a server, if it is wanted.
fn start(name: &str, kind: Kind, settings: &[&str]) -> Option<StoreServer> {
    wanted(name).then(|| StoreServer::start_with(kind, settings))?
}

#[tokio::main]
async fn main() {
    println!("| store | request | sessions | with a near cache | tower-sessions 0.14 |");
    println!("| --- | --- | --- | --- | --- |");

    if let Some(server) = start("redis", Kind::Redis, &["--appendonly", "no"]) {
        let ours = RedisStore::connect(&server.url()).await.unwrap();
        let config = Config::from_url(&server.url()).unwrap();
        let pool = Pool::new(config, None, None, None, 6).unwrap();
        let connection = pool.connect();
        pool.wait_for_connect().await.unwrap();
        let theirs = tower_sessions_redis_store::RedisStore::new(pool);
        let near = NearCache::new(RedisStore::connect(&server.url()).await.unwrap()).unwrap();
        let apps = [our_app(ours), our_app(near.clone()), their_app(theirs)];
        compare("Redis", apps.map(Some)).await;
        eprintln!("the near cache: {:?}", near.stats());
        connection.abort();
    }
    if let Some(server) = start("postgres", Kind::Postgres, &[]) {
        let ours = PostgresStore::connect(&server.url()).await.unwrap();
        ours.migrate().await.unwrap();
        let pool = tower_sessions_sqlx_store::sqlx::PgPool::connect(&server.url()).await.unwrap();
        let theirs = tower_sessions_sqlx_store::PostgresStore::new(pool);
        theirs.migrate().await.unwrap();
        let near = PostgresStore::builder().with_table("near").with_notifications();
        let near = near.connect(&server.url()).await.unwrap();
        near.migrate().await.unwrap();
        let near = NearCache::new(near).unwrap();
        let apps = [our_app(ours), our_app(near.clone()), their_app(theirs)];
        compare("PostgreSQL", apps.map(Some)).await;
        eprintln!("the near cache: {:?}", near.stats());
    }
    if let Some(server) = start("mariadb", Kind::MariaDb, &[]) {
        let ours = MySqlStore::connect(&server.url()).await.unwrap();
        ours.migrate().await.unwrap();
        let pool =
            tower_sessions_sqlx_store::sqlx::MySqlPool::connect(&server.url()).await.unwrap();
        let theirs = tower_sessions_sqlx_store::MySqlStore::new(pool);
        theirs.migrate().await.unwrap();
        compare("MariaDB", [Some(our_app(ours)), None, Some(their_app(theirs))]).await;
    }
    if wanted("sqlite") {
        let folder = Folder::new();
        let url = |name: &str| format!("sqlite:{}?mode=rwc", folder.path.join(name).display());
        let ours = SqliteStore::connect(&url("ours.db")).await.unwrap();
        ours.migrate().await.unwrap();
        let pool = tower_sessions_sqlx_store::sqlx::SqlitePool::connect(&url("theirs.db")).await;
        let theirs = tower_sessions_sqlx_store::SqliteStore::new(pool.unwrap());
        theirs.migrate().await.unwrap();
        compare("SQLite", [Some(our_app(ours)), None, Some(their_app(theirs))]).await;
    }
    if let Some(server) = start("memcached", Kind::Memcached, &[]) {
        let ours = MemcachedStore::connect(&server.url()).await.unwrap();
        compare("memcached", [Some(our_app(ours)), None, None]).await;
    }
}
