use std::fmt::Debug;

use axum::{Router, routing::get};
use axum_login::{AuthManagerLayerBuilder, AuthSession, AuthUser, AuthnBackend};
use sessions::adopt::{
    AdoptError, OldCookie, OldId, OldSession, Predecessor, RequestCookies, TowerSessions,
};
use sessions_tests::{
    Client, Server,
    servers::{Folder, Kind, StoreServer},
};
use tower_sessions::{
    ExpiredDeletion, Expiry, SessionManagerLayer, SessionStore,
    cookie::{Key, time::Duration},
};
use tower_sessions_15 as newest;
use tower_sessions_redis_store::{RedisStore, fred};
use tower_sessions_sqlx_store::{MySqlStore, PostgresStore, SqliteStore, sqlx as old_sqlx};

use crate::{CART, Fill, OLD_KEY, USER, by_name, moves_in, opens_nothing, shown};

fn routes() -> Router {
    let login = async |session: tower_sessions::Session| {
        session.insert("cart", CART).await.unwrap();
        session.insert("user", USER).await.unwrap();
    };
    let show = async |session: tower_sessions::Session| {
        let cart: Option<Vec<String>> = session.get("cart").await.unwrap();
        shown(session.get("user").await.unwrap(), &cart.unwrap_or_default())
    };
    Router::new().route("/login", get(login)).route("/", get(show))
}

#[derive(Clone, Copy, Debug)]
enum Cookie {
    Plain,
    Signed,
    Private,
}

/// Somebody who has logged in with tower-sessions, and that application.
async fn logged_in(store: impl SessionStore + Clone, cookie: Cookie) -> (Client, Server) {
    let expiry = Expiry::OnInactivity(Duration::hours(1));
    let layer = SessionManagerLayer::new(store).with_secure(false).with_expiry(expiry);
    let app = match cookie {
        Cookie::Plain => routes().layer(layer),
        Cookie::Signed => routes().layer(layer.with_signed(Key::from(&OLD_KEY))),
        Cookie::Private => routes().layer(layer.with_private(Key::from(&OLD_KEY))),
    };
    let server = Server::start(app).await;
    let client = server.client();
    assert!(client.get("/login").await.status.is_success());
    (client, server)
}

fn old_cookie(cookie: Cookie) -> OldCookie {
    let id = OldCookie::new("id");
    match cookie {
        Cookie::Plain => id,
        Cookie::Signed => id.with_signed(&OLD_KEY).unwrap(),
        Cookie::Private => id.with_private(&OLD_KEY).unwrap(),
    }
}

/// Each kind of cookie with the store; after that the store has none of the sessions any more.
async fn all_cookies<S: SessionStore + Clone + Debug>(store: S, before: TowerSessions) {
    for cookie in [Cookie::Plain, Cookie::Signed, Cookie::Private] {
        let (client, server) = logged_in(store.clone(), cookie).await;
        let before = before.clone().with_cookie(old_cookie(cookie));
        moves_in(before.clone(), by_name, "id", &client).await;
        assert_eq!(client.get("/").await.text(), shown(None, &[]), "ended in the old store");
        drop(server);
        opens_nothing(before, "id", "AAAAAAAAAAAAAAAAAAAAAA").await;
    }
}

/// Their store and our pool, on one file.
async fn sqlite() -> (Folder, SqliteStore, sqlx::SqlitePool) {
    let folder = Folder::new();
    let url = format!("sqlite:{}?mode=rwc", folder.path.join("old.db").display());
    let store = SqliteStore::new(old_sqlx::SqlitePool::connect(&url).await.unwrap());
    store.migrate().await.unwrap();
    (folder, store, sqlx::SqlitePool::connect(&url).await.unwrap())
}

#[tokio::test]
async fn from_sqlite() {
    let (_folder, store, pool) = sqlite().await;
    let store = store.with_table_name("old_sessions").unwrap();
    store.migrate().await.unwrap();
    all_cookies(store, TowerSessions::sqlite(pool).with_table("old_sessions")).await;
}

#[tokio::test]
async fn from_postgres() {
    let Some(server) = StoreServer::start(Kind::Postgres) else { return };
    let store = PostgresStore::new(old_sqlx::PgPool::connect(&server.url()).await.unwrap());
    store.migrate().await.unwrap();
    let pool = sqlx::PgPool::connect(&server.url()).await.unwrap();
    all_cookies(store, TowerSessions::postgres(pool)).await;
}

#[tokio::test]
async fn from_mariadb() {
    let Some(server) = StoreServer::start(Kind::MariaDb) else { return };
    let store = MySqlStore::new(old_sqlx::MySqlPool::connect(&server.url()).await.unwrap());
    store.migrate().await.unwrap();
    let pool = sqlx::MySqlPool::connect(&server.url()).await.unwrap();
    all_cookies(store, TowerSessions::mysql(pool)).await;
}

#[tokio::test]
async fn from_redis() {
    use fred::prelude::*;

    let Some(server) = StoreServer::start(Kind::Redis) else { return };
    let config = Config::from_url(&server.url()).unwrap();
    let pool = Pool::new(config, None, None, None, 2).unwrap();
    pool.init().await.unwrap();
    let client = redis::Client::open(server.url()).unwrap();
    let connection = client.get_connection_manager().await.unwrap();
    all_cookies(RedisStore::new(pool), TowerSessions::redis(connection)).await;
}

#[tokio::test]
async fn expired_sessions_stay_where_they_are() {
    let (_folder, store, pool) = sqlite().await;
    let mut record = tower_sessions::session::Record {
        id: Default::default(),
        data: [("user".to_string(), USER.into())].into(),
        expiry_date: time_ago(),
    };
    store.create(&mut record).await.unwrap();
    opens_nothing(TowerSessions::sqlite(pool), "id", &record.id.to_string()).await;
    store.delete_expired().await.unwrap();
}

fn time_ago() -> tower_sessions::cookie::time::OffsetDateTime {
    tower_sessions::cookie::time::OffsetDateTime::now_utc() - Duration::seconds(1)
}

/// The newest tower-sessions, with a store that nothing is built in for: the application's few lines.
#[derive(Clone)]
struct Before {
    store: newest::MemoryStore,
    cookie: OldCookie,
}

impl Predecessor for Before {
    fn session_id(&self, cookies: &RequestCookies<'_>) -> Option<OldId> {
        self.cookie.value(cookies).map(OldId::new)
    }

    async fn load(&self, id: &OldId) -> Result<Option<OldSession>, AdoptError> {
        use newest::SessionStore;

        let Ok(id) = id.as_str().parse() else { return Ok(None) };
        let Some(record) = self.store.load(&id).await.map_err(AdoptError::store)? else {
            return Ok(None);
        };
        let mut values = record.data.into_iter();
        values.try_fold(OldSession::new(), |old, (name, value)| old.with(&name, value)).map(Some)
    }

    async fn end(&self, id: &OldId) -> Result<bool, AdoptError> {
        use newest::SessionStore;

        let Ok(id) = id.as_str().parse() else { return Ok(false) };
        self.store.delete(&id).await.map_err(AdoptError::store)?;
        Ok(true)
    }

    fn cookie_removal(&self) -> Option<axum::http::HeaderValue> {
        Some(self.cookie.removal())
    }
}

#[tokio::test]
async fn from_the_newest_with_a_store_of_the_applications() {
    let login = async |session: newest::Session| {
        session.insert("cart", CART).await.unwrap();
        session.insert("user", USER).await.unwrap();
    };
    let show = async |session: newest::Session| {
        let cart: Option<Vec<String>> = session.get("cart").await.unwrap();
        shown(session.get("user").await.unwrap(), &cart.unwrap_or_default())
    };
    let store = newest::MemoryStore::default();
    let layer = newest::SessionManagerLayer::new(store.clone())
        .with_secure(false)
        .with_signed(newest::cookie::Key::from(&OLD_KEY));
    let app = Router::new().route("/login", get(login)).route("/", get(show)).layer(layer);
    let server = Server::start(app).await;
    let client = server.client();
    assert!(client.get("/login").await.status.is_success());
    let cookie = OldCookie::new("id").with_signed(&OLD_KEY).unwrap();
    moves_in(Before { store, cookie }, by_name, "id", &client).await;
    assert_eq!(client.get("/").await.text(), shown(None, &[]));
}

#[derive(Clone, Debug)]
struct User;

impl AuthUser for User {
    type Id = u64;

    fn id(&self) -> u64 {
        USER
    }

    fn session_auth_hash(&self) -> &[u8] {
        b"hash"
    }
}

#[derive(Clone)]
struct Users;

impl AuthnBackend for Users {
    type User = User;
    type Credentials = ();
    type Error = std::convert::Infallible;

    async fn authenticate(&self, (): ()) -> Result<Option<User>, Self::Error> {
        Ok(Some(User))
    }

    async fn get_user(&self, id: &u64) -> Result<Option<User>, Self::Error> {
        Ok((*id == USER).then_some(User))
    }
}

#[tokio::test]
async fn from_axum_login() {
    let (_folder, store, pool) = sqlite().await;
    let layer = SessionManagerLayer::new(store).with_secure(false);
    let login = async |mut auth: AuthSession<Users>| {
        auth.login(&User).await.unwrap();
        auth.session.insert("cart", CART).await.unwrap();
    };
    let show = async |auth: AuthSession<Users>| {
        let cart: Option<Vec<String>> = auth.session.get("cart").await.unwrap();
        shown(auth.user.map(|user| user.id()), &cart.unwrap_or_default())
    };
    let app = Router::new()
        .route("/login", get(login))
        .route("/", get(show))
        .layer(AuthManagerLayerBuilder::new(Users, layer).build());
    let server = Server::start(app).await;
    let fill: Fill = |old, s| {
        s.set_cart(old.get::<Vec<String>>("cart")?.unwrap_or_default());
        old.axum_login_user()
    };
    let logged_in = async || {
        let client = server.client();
        assert!(client.get("/login").await.status.is_success());
        client
    };
    let client = logged_in().await;
    let is_hash_of = |hash: &'static [u8]| {
        move |old: OldSession| async move { Ok(old.axum_login_auth_hash()? == Some(hash.to_vec())) }
    };
    let before = TowerSessions::sqlite(pool);
    moves_in(before.clone().with_check(is_hash_of(b"hash")), fill, "id", &client).await;

    // The password has changed since.
    let value = logged_in().await.cookie("id").unwrap();
    let before = before.with_check(is_hash_of(b"another"));
    opens_nothing(before, "id", &value).await;
}
