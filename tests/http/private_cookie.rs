//! Sessions that live in their cookie.

use std::time::Duration;

use axum::{extract::Path, routing::get};
use sessions::{
    Keys, PrivateCookie, Session, SessionLayer, SessionLayerBuilder, testing::ManualClock,
};
use sessions_tests::{Client, Reply, Server};

use crate::{COOKIE, Visitor, basics};

const HOUR: Duration = Duration::from_secs(3_600);

async fn serve_with(
    keys: &Keys,
    clock: &ManualClock,
    settings: impl FnOnce(SessionLayerBuilder<Visitor>) -> SessionLayerBuilder<Visitor>,
) -> Server {
    async fn grow(Path(bytes): Path<usize>, session: Session<Visitor>) -> String {
        session.write().await.set_name("x".repeat(bytes));
        session.save().await.map_err(|error| error.to_string()).err().unwrap_or_default()
    }
    let builder = SessionLayer::builder(PrivateCookie, keys.clone()).with_clock(clock);
    let routes = basics().route("/grow/{bytes}", get(grow));
    Server::start(routes.layer(settings(builder).build().unwrap())).await
}

async fn serve(keys: &Keys) -> Server {
    serve_with(keys, &ManualClock::new(), |builder| builder).await
}

async fn get_with(client: &Client, cookie: &str) -> Reply {
    client.get_with("/name", &[format!("{COOKIE}={cookie}").into_bytes()]).await
}

#[tokio::test]
async fn a_session_lives_in_its_cookie() {
    let server = serve(&Keys::generate()).await;
    let client = server.client();
    let reply = client.get("/name").await;
    assert_eq!((reply.text(), reply.set_cookies()), ("nobody", vec![]));
    assert_eq!(client.get("/name/Zoe").await.set_cookies().len(), 1);
    let reply = client.get("/name").await;
    assert_eq!((reply.text(), reply.set_cookies()), ("Zoe", vec![]), "unchanged: not sent");
    assert_eq!(client.get("/name/Zoe").await.set_cookies(), Vec::<String>::new());
    for visits in 1..=3 {
        let reply = client.get("/visit").await;
        assert_eq!((reply.text(), reply.set_cookies().len()), (&*visits.to_string(), 1));
    }
    assert_eq!(client.get("/name").await.text(), "Zoe");
}

#[tokio::test]
async fn another_process_with_the_same_keys_opens_it() {
    let keys = Keys::generate();
    let (one, other) = (serve(&keys).await, serve(&keys).await);
    let client = one.client();
    client.get("/name/Zoe").await.text();
    let cookie = client.cookie(COOKIE).unwrap();
    assert_eq!(get_with(&other.client(), &cookie).await.text(), "Zoe");
}

#[tokio::test]
async fn renewing_and_ending() {
    let server = serve(&Keys::generate()).await;
    let client = server.client();
    client.get("/name/Zoe").await.text();
    let before = client.cookie(COOKIE);
    assert_eq!(client.get("/renew").await.set_cookies().len(), 1);
    assert_ne!(client.cookie(COOKIE), before);
    assert_eq!(client.get("/name").await.text(), "Zoe");
    client.get("/destroy").await.text();
    assert_eq!(client.cookie(COOKIE), None);
}

#[tokio::test]
async fn whatever_is_wrong_with_the_cookie_it_opens_nothing() {
    let (keys, clock) = (Keys::generate(), ManualClock::new());
    let server = serve_with(&keys, &clock, |builder| builder).await;
    let client = server.client();
    client.get("/name/Zoe").await.text();
    let good = client.cookie(COOKIE).unwrap();
    assert_eq!(get_with(&client, &good).await.text(), "Zoe");
    assert!(!good.contains("Zoe"));

    for bit in 0..good.len() * 8 {
        let mut bytes = good.clone().into_bytes();
        bytes[bit / 8] ^= 1 << (bit % 8);
        bytes.retain(|byte| *byte >= 0x20 && *byte != 0x7f);
        let line = [COOKIE.as_bytes(), b"=", &bytes].concat();
        assert_eq!(client.get_with("/name", &[line]).await.text(), "nobody", "bit {bit}");
    }
    for wrong in ["", "A", &good[1..], &good[..good.len() - 1], &"A".repeat(60_000)] {
        assert_eq!(get_with(&client, wrong).await.text(), "nobody");
    }

    // Another application's key, and another cookie of the same one.
    let stranger = serve(&Keys::generate()).await;
    assert_eq!(get_with(&stranger.client(), &good).await.text(), "nobody");
    let renamed = serve_with(&keys, &clock, |b| b.with_cookie_name("__Host-other")).await;
    let line = format!("__Host-other={good}").into_bytes();
    assert_eq!(renamed.client().get_with("/name", &[line]).await.text(), "nobody");
    // A signed cookie of a layer with a store, under the same name and keys.
    let layer = SessionLayer::<Visitor>::new(sessions::MemoryStore::new(), keys.clone());
    let stored = Server::start(basics().layer(layer)).await;
    let browser = stored.client();
    browser.get("/name/Zoe").await.text();
    let signed = browser.cookie(COOKIE).unwrap();
    assert_eq!(get_with(&client, &signed).await.text(), "nobody");
    assert_eq!(get_with(&browser, &good).await.text(), "nobody");

    clock.advance(2 * HOUR);
    assert_eq!(get_with(&client, &good).await.text(), "nobody", "expired");
}

#[tokio::test]
async fn use_moves_the_expiry_once_a_refresh_window_up_to_the_absolute_timeout() {
    let clock = ManualClock::new();
    let server = serve_with(&Keys::generate(), &clock, |builder| builder).await;
    let client = server.client();
    client.get("/name/Zoe").await.text();
    clock.advance(Duration::from_secs(60));
    assert_eq!(client.get("/name").await.set_cookies(), Vec::<String>::new());
    for _ in 0..23 {
        clock.advance(HOUR);
        assert_eq!(client.get("/name").await.text(), "Zoe");
    }
    clock.advance(HOUR);
    assert_eq!(client.get("/name").await.text(), "nobody");
}

#[tokio::test]
async fn more_than_a_browser_takes_is_an_error_that_says_how_much() {
    let server = serve(&Keys::generate()).await;
    let client = server.client();
    client.get("/name/Zoe").await.text();
    assert_eq!(client.get("/grow/2800").await.text(), "");
    let line = client.get("/visit").await.set_cookies().remove(0);
    assert!(line.len() <= 4_096, "{}", line.len());
    let before = client.cookie(COOKIE);
    let reply = client.get("/grow/5000").await;
    assert_eq!((reply.status.as_u16(), reply.set_cookies()), (500, vec![]));
    let layer = SessionLayer::<Visitor>::new(PrivateCookie, Keys::generate());
    let service = tower::ServiceBuilder::new().layer(layer).service_fn(too_large);
    let request = http::Request::new(());
    tower::ServiceExt::oneshot(service, request).await.unwrap();
    assert_eq!(client.cookie(COOKIE), before, "the session is as it was");
    assert_eq!(client.get("/visit").await.text(), "2");
}

async fn too_large(
    request: http::Request<()>,
) -> Result<http::Response<String>, std::convert::Infallible> {
    let session = Session::<Visitor>::open(request.extensions()).await.unwrap();
    session.write().await.set_name("x".repeat(5_000));
    let message = session.save().await.unwrap_err().to_string();
    assert!(message.contains("would take 68") && message.contains("4096"), "{message}");
    session.discard();
    Ok(http::Response::new(String::new()))
}

#[tokio::test]
async fn after_the_response_nothing_can_be_saved() {
    let server = serve(&Keys::generate()).await;
    let client = server.client();
    client.get("/name/Zoe").await.text();
    let reply = client.get("/late").await;
    assert_eq!((reply.text(), reply.set_cookies()), ("Err(NoCookie)", vec![]));
    assert_eq!(client.get("/name").await.text(), "Zoe");
}

#[tokio::test]
async fn an_old_keys_cookie_is_opened_and_sealed_anew() {
    let (old, new) = (Keys::generate(), Keys::generate());
    let before = serve(&old).await;
    let rotated = serve(&new.clone().with_previous(old)).await;
    let after = serve(&new).await;
    let browser = before.client();
    browser.get("/name/Zoe").await.text();
    let mut cookie = browser.cookie(COOKIE);
    for server in [&rotated, &after] {
        let browser = server.client();
        browser.set_cookie(COOKIE, cookie.as_deref());
        assert_eq!(browser.get("/name").await.text(), "Zoe");
        assert_eq!(browser.cookie(COOKIE) != cookie, std::ptr::eq(server, &rotated));
        cookie = browser.cookie(COOKIE);
    }
}

#[tokio::test]
async fn there_is_nothing_to_lock_and_the_layer_says_so() {
    async fn locks(session: Session<Visitor>) -> String {
        format!("{:?}", session.lock().await.map(drop).map_err(|error| error.kind()))
    }
    async fn updates(session: Session<Visitor>) -> sessions::Result<()> {
        session.update(|s| *s.visits_mut() += 1).await
    }
    let builder = SessionLayer::<Visitor>::builder(PrivateCookie, Keys::generate());
    let error = builder.with_lease_time(Duration::from_secs(1)).build().unwrap_err();
    assert!(error.to_string().contains("cannot be locked"), "{error}");

    let routes = basics().route("/locks", get(locks)).route("/updates", get(updates));
    let layer = SessionLayer::<Visitor>::new(PrivateCookie, Keys::generate());
    let server = Server::start(routes.layer(layer)).await;
    let client = server.client();
    assert_eq!(client.get("/locks").await.text(), "Err(NoLeases)");
    client.get("/updates").await.text();
    assert_eq!(client.get("/visit").await.text(), "2");
}
