use axum::{Router, routing::get};
use axum_session::{DatabasePool, Key, Session, SessionConfig, SessionLayer, SessionStore};
use axum_session_redispool::SessionRedisPool;
use axum_session_sqlx::SessionSqlitePool;
use sessions::adopt::{AxumSession, OldCookie};
use sessions_tests::{
    Client, Server,
    servers::{Folder, Kind, StoreServer},
};

use crate::{CART, OLD_KEY, USER, by_name, moves_in, opens_nothing, shown};

/// Somebody who has logged in with axum_session. That application keeps its sessions in memory, too, so that
/// another one of it, which has just started, is what goes on.
async fn logged_in<P>(pool: P, config: SessionConfig) -> (Client, Server)
where
    P: DatabasePool + Clone + std::fmt::Debug + Send + Sync + 'static,
{
    let login = async |session: Session<P>| {
        session.set("cart", CART);
        session.set("user", USER);
    };
    let show = async |session: Session<P>| {
        let cart: Option<Vec<String>> = session.get("cart");
        shown(session.get("user"), &cart.unwrap_or_default())
    };
    let start = async || {
        let store = SessionStore::new(Some(pool.clone()), config.clone()).await.unwrap();
        let app = Router::new().route("/login", get(login)).route("/", get(show));
        Server::start(app.layer(SessionLayer::new(store))).await
    };
    let server = start().await;
    let client = server.client();
    assert!(client.get("/login").await.status.is_success());
    let next = start().await;
    let moved = next.client();
    moved.set_cookie("session", client.cookie("session").as_deref());
    (moved, next)
}

fn config() -> SessionConfig {
    SessionConfig::default().with_secure(false)
}

#[tokio::test]
async fn from_sqlite() {
    let folder = Folder::new();
    let url = format!("sqlite:{}?mode=rwc", folder.path.join("old.db").display());
    let pool = sqlx::SqlitePool::connect(&url).await.unwrap();
    let before = AxumSession::sqlite(pool.clone());

    let (client, _server) = logged_in(SessionSqlitePool::from(pool.clone()), config()).await;
    moves_in(before.clone(), by_name, "session", &client).await;
    opens_nothing(before.clone(), "session", "01234567-89ab-4def-8123-456789abcdef").await;
    opens_nothing(before.clone(), "session", "nothing").await;

    // With a signed cookie, and records that are encrypted, in a table with another name.
    let key = || Key::from(&OLD_KEY);
    let config = config().with_key(key()).with_database_key(key()).with_table_name("others");
    let (client, _server) = logged_in(SessionSqlitePool::from(pool), config).await;
    assert!(client.cookie("session").unwrap().len() > 36, "it is signed");
    let before = before.with_table("others").with_cookie(OldCookie::new("session"));
    let wrong = before.clone().with_database_key(&[7; 64]).unwrap();
    opens_nothing(wrong, "session", &client.cookie("session").unwrap()).await;
    let before = before.with_database_key(&OLD_KEY).unwrap();
    moves_in(before, by_name, "session", &client).await;
}

#[tokio::test]
async fn from_redis() {
    let Some(server) = StoreServer::start(Kind::Redis) else { return };
    let client = redis::Client::open(server.url()).unwrap();
    let pool = redis_pool::RedisPool::from(client.clone());
    let before = AxumSession::redis(client.get_connection_manager().await.unwrap());
    let (client, _server) = logged_in(SessionRedisPool::from(pool), config()).await;
    moves_in(before, by_name, "session", &client).await;
}
