//! Sessions that the real libraries have written, over HTTP, with the stores on real servers: logged in
//! there, still logged in here, and after the logout out for good.

mod actix_session;
mod axum_session;
mod tower_sessions;

use axum::{Router, http::StatusCode, routing::get};
use sessions::{
    Keys, MemoryStore, Session, SessionLayer, UserSessions,
    adopt::{AdoptError, OldSession, Predecessor},
};
use sessions_tests::{Client, Server};

/// What a user who logs in with an old application has in its session.
const USER: u64 = 7;
const CART: [&str; 2] = ["teapot", "Zoë's cup"];

/// A key as the old libraries take it.
const OLD_KEY: [u8; 64] = *b"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

#[derive(Session)]
struct Customer {
    #[session(user)]
    user: Option<u64>,
    cart: Vec<String>,
}

/// What is in a session that an application wrote under plain names.
fn by_name(old: &OldSession, s: &mut CustomerFields) -> Result<Option<u64>, AdoptError> {
    s.set_cart(old.get::<Vec<String>>("cart")?.unwrap_or_default());
    old.get("user")
}

type Fill = fn(&OldSession, &mut CustomerFields) -> Result<Option<u64>, AdoptError>;

/// The new application; its layer leaves the old sessions alone, or ends them.
async fn new_app(before: impl Predecessor, fill: Fill, leaves: bool) -> Server {
    let builder = SessionLayer::<Customer>::builder(MemoryStore::new(), Keys::generate())
        .insecure_plain_http()
        .with_cookie_name("new")
        .adopt(before, fill);
    let builder = if leaves { builder.without_ending_predecessor() } else { builder };
    let app = Router::new()
        .route("/", get(show))
        .route("/logout", get(async |session: Session<Customer>| session.logout().await))
        .route("/sessions", get(count))
        .route("/password", get(password))
        .layer(builder.build().unwrap());
    Server::start(app).await
}

async fn show(session: Session<Customer>) -> String {
    let s = session.read().await;
    shown(s.user(), s.cart())
}

fn shown(user: Option<u64>, cart: &[String]) -> String {
    format!("{user:?} with {cart:?}")
}

async fn count(sessions: UserSessions<Customer>) -> Result<String, sessions::Error> {
    Ok(sessions.list(&USER).await?.len().to_string())
}

async fn password(session: Session<Customer>) -> Result<(), sessions::Error> {
    session.require_recent_login(std::time::Duration::from_secs(600))
}

fn with_cookie(server: &Server, name: &str, value: &str) -> Client {
    let client = server.client();
    client.set_cookie(name, Some(value));
    client
}

/// The promises to somebody who has logged in with the old application.
async fn moves_in(before: impl Predecessor + Clone, fill: Fill, cookie: &str, old: &Client) {
    let value = old.cookie(cookie).expect("the old application has set it");
    let logged_in = shown(Some(USER), &CART.map(Into::into));
    let nobody = shown(None, &[]);

    // A fleet that rolls: the old build goes on with the session, and the new one has one of its own.
    let rolling = new_app(before.clone(), fill, true).await;
    let client = with_cookie(&rolling, cookie, &value);
    assert_eq!(client.get("/").await.text(), logged_in);
    assert_eq!(client.cookie(cookie).as_deref(), Some(&*value));
    assert_eq!(old.get("/").await.text(), logged_in);
    assert!(client.get("/logout").await.status.is_success());
    assert_eq!(client.get("/").await.text(), nobody, "logged out for good");
    assert_eq!(old.get("/").await.text(), logged_in);

    // The same once the old build is gone.
    let server = new_app(before, fill, false).await;
    let client = with_cookie(&server, cookie, &value);
    let first = client.get("/").await;
    assert_eq!(first.text(), logged_in);
    assert!(first.header("cache-control").contains("no-store"), "{first:?}");
    assert_eq!(client.cookie(cookie), None, "the old cookie is taken away");
    assert!(client.cookie("new").is_some());
    assert_eq!(client.get("/").await.text(), logged_in);
    assert_eq!(client.get("/sessions").await.text(), "1");
    let status = client.get("/password").await.status;
    assert_eq!(status, StatusCode::UNAUTHORIZED, "nobody knows when that login was");

    // The response with the new cookie did not arrive: the old one leads to the same session.
    let again = with_cookie(&server, cookie, &value);
    assert_eq!(again.get("/").await.text(), logged_in);
    assert_eq!(again.get("/sessions").await.text(), "1");

    assert!(client.get("/logout").await.status.is_success());
    for client in [&client, &with_cookie(&server, cookie, &value)] {
        assert_eq!(client.get("/").await.text(), nobody, "logged out for good");
    }
    assert_eq!(client.get("/sessions").await.text(), "0");
}

/// A cookie that somebody has made up.
async fn opens_nothing(before: impl Predecessor, cookie: &str, value: &str) {
    let server = new_app(before, by_name, false).await;
    let client = with_cookie(&server, cookie, value);
    let reply = client.get("/").await;
    assert_eq!(reply.text(), shown(None, &[]));
    assert_eq!(reply.set_cookies(), [""; 0]);
}
