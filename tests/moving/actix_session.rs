use actix_session::{
    Session, SessionMiddleware,
    config::CookieContentSecurity,
    storage::{CookieSessionStore, RedisSessionStore, SessionStore},
};
use actix_web::{App, HttpServer, cookie::Key, web};
use sessions::adopt::{ActixSession, OldCookie};
use sessions_tests::{
    Client,
    servers::{Kind, StoreServer},
};

use crate::{CART, OLD_KEY, USER, by_name, moves_in, opens_nothing, shown};

async fn login(session: Session) -> &'static str {
    session.insert("cart", CART).unwrap();
    session.insert("user", USER).unwrap();
    ""
}

async fn show(session: Session) -> String {
    let cart: Option<Vec<String>> = session.get("cart").unwrap();
    shown(session.get("user").unwrap(), &cart.unwrap_or_default())
}

/// Somebody who has logged in with actix-session; the application goes on as long as the test.
async fn logged_in<S: SessionStore + 'static>(
    store: impl Fn() -> S + Clone + Send + 'static,
    security: CookieContentSecurity,
) -> Client {
    let is_signed = matches!(security, CookieContentSecurity::Signed);
    let server = HttpServer::new(move || {
        let security = match is_signed {
            true => CookieContentSecurity::Signed,
            false => CookieContentSecurity::Private,
        };
        let middleware = SessionMiddleware::builder(store(), Key::from(&OLD_KEY))
            .cookie_secure(false)
            .cookie_content_security(security);
        App::new()
            .wrap(middleware.build())
            .route("/login", web::get().to(login))
            .route("/", web::get().to(show))
    });
    let server = server.workers(1).disable_signals().bind("127.0.0.1:0").unwrap();
    let address = server.addrs()[0];
    tokio::spawn(server.run());
    let client = Client::new(address);
    assert!(client.get("/login").await.status.is_success());
    client
}

#[tokio::test]
async fn from_the_cookie() {
    let private = ActixSession::cookie(&OLD_KEY).unwrap();
    let client = logged_in(|| CookieSessionStore::default(), CookieContentSecurity::Private).await;
    moves_in(private.clone(), by_name, "id", &client).await;
    opens_nothing(private, "id", "eyJ1c2VyIjoiNyJ9").await;

    let cookie = OldCookie::new("id").with_signed(&OLD_KEY).unwrap();
    let signed = ActixSession::cookie(&OLD_KEY).unwrap().with_cookie(cookie);
    let client = logged_in(|| CookieSessionStore::default(), CookieContentSecurity::Signed).await;
    moves_in(signed, by_name, "id", &client).await;
}

#[tokio::test]
async fn from_redis() {
    let Some(server) = StoreServer::start(Kind::Redis) else { return };
    let url = server.url();
    let store = RedisSessionStore::builder(&url).cache_keygen(|key| format!("old:{key}"));
    let store = store.build().await.unwrap();
    let connection = redis::Client::open(url).unwrap().get_connection_manager().await.unwrap();
    let before = ActixSession::redis(connection, &OLD_KEY).unwrap();
    let before = before.with_redis_key(|key| format!("old:{key}"));
    let client = logged_in(move || store.clone(), CookieContentSecurity::Private).await;
    moves_in(before, by_name, "id", &client).await;
    assert_eq!(client.get("/").await.text(), shown(None, &[]), "ended in the old store");
}
