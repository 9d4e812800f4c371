//! Sessions that live in their cookie.

use std::{sync::Mutex, time::Duration};

use axum::{Router, extract::Path, routing::get};
use sessions::{
    Keys, PrivateCookie, SameSite, Session, SessionLayer, SessionLayerBuilder,
    testing::{ManualClock, SessionChange, TestClient},
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
    session.discard_request_changes();
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

// ---- another domain or path ----

/// A browser that tells cookies of one name apart as browsers do: by domain, path and partition. All of
/// its requests are to a host and in a page that they are valid for, except for their paths.
#[derive(Default)]
struct Browser(Mutex<Vec<Stored>>);

struct Stored {
    /// Domain and whether it is partitioned.
    scope: (String, bool),
    path: String,
    pair: String,
}

impl Browser {
    async fn get(&self, server: &Server, path: &str) -> Reply {
        let mut sent: Vec<(usize, String)> = {
            let stored = self.0.lock().unwrap();
            let fits = stored.iter().filter(|cookie| path.starts_with(&cookie.path));
            fits.map(|cookie| (cookie.path.len(), cookie.pair.clone())).collect()
        };
        // Longer paths first, and of those that are equal the one that was made first.
        sent.sort_by_key(|(length, _)| usize::MAX - length);
        let pairs: Vec<String> = sent.into_iter().map(|(_, pair)| pair).collect();
        let lines = if pairs.is_empty() { vec![] } else { vec![pairs.join("; ").into_bytes()] };
        let reply = server.client().get_with(path, &lines).await;
        reply.set_cookies().iter().for_each(|line| self.keep(line));
        reply
    }

    fn keep(&self, line: &str) {
        let mut parts = line.split("; ");
        let pair = parts.next().unwrap().to_string();
        let attributes: Vec<&str> = parts.collect();
        let value = |name: &str| attributes.iter().find_map(|it| it.strip_prefix(name));
        let scope =
            (value("Domain=").unwrap_or_default().to_string(), attributes.contains(&"Partitioned"));
        let path = value("Path=").unwrap().to_string();
        let mut stored = self.0.lock().unwrap();
        let at = stored.iter().position(|it| it.scope == scope && it.path == path);
        match (at, value("Max-Age=") == Some("0")) {
            (Some(at), true) => drop(stored.remove(at)),
            (Some(at), false) => stored[at].pair = pair,
            (None, true) => {}
            (None, false) => stored.push(Stored { scope, path, pair }),
        }
    }

    fn len(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}

type Settings = fn(SessionLayerBuilder<Visitor>) -> SessionLayerBuilder<Visitor>;

/// What a layer changes from, and to.
const MOVES: [(&str, Settings, Settings); 5] = [
    ("from a domain to the host", in_a_domain, on_the_host),
    ("from the host to a domain", on_the_host, in_a_domain),
    ("from a path", on_a_path, on_the_host),
    ("to a partition", in_frames, in_a_partition),
    ("from a partition", in_a_partition, in_frames),
];

fn on_the_host(builder: SessionLayerBuilder<Visitor>) -> SessionLayerBuilder<Visitor> {
    builder.with_cookie_name("__Secure-s")
}

fn in_a_domain(builder: SessionLayerBuilder<Visitor>) -> SessionLayerBuilder<Visitor> {
    on_the_host(builder).with_cookie_domain("shop.example")
}

fn on_a_path(builder: SessionLayerBuilder<Visitor>) -> SessionLayerBuilder<Visitor> {
    on_the_host(builder).with_cookie_path("/name")
}

fn in_frames(builder: SessionLayerBuilder<Visitor>) -> SessionLayerBuilder<Visitor> {
    builder.with_same_site(SameSite::None)
}

fn in_a_partition(builder: SessionLayerBuilder<Visitor>) -> SessionLayerBuilder<Visitor> {
    in_frames(builder).with_partitioned_cookie()
}

#[tokio::test]
async fn of_two_cookies_the_newest_counts_and_a_logout_is_one() {
    for (case, before, after) in MOVES {
        let (keys, clock) = (Keys::generate(), ManualClock::new());
        let old = serve_with(&keys, &clock, before).await;
        let new = serve_with(&keys, &clock, after).await;
        let browser = Browser::default();
        let name = async |server| browser.get(server, "/name").await.text().to_string();
        browser.get(&old, "/name/Old").await.text();
        assert_eq!(name(&new).await, "Old", "{case}");

        browser.get(&new, "/name/New").await.text();
        assert_eq!(browser.len(), 2, "{case}");
        assert_eq!(name(&new).await, "New", "{case}");
        assert_eq!(name(&old).await, "New", "{case}: while both versions are running");

        clock.advance(Duration::from_secs(1));
        browser.get(&new, "/destroy").await.text();
        assert_eq!(name(&new).await, "nobody", "{case}: logged out");
        assert_eq!(name(&old).await, "nobody", "{case}: logged out");
        browser.get(&new, "/name/Again").await.text();
        assert_eq!(name(&new).await, "Again", "{case}");
    }
}

#[tokio::test]
async fn a_logout_with_the_old_cookie_alone_ends_that() {
    for (case, before, after) in MOVES {
        let (keys, clock) = (Keys::generate(), ManualClock::new());
        let old = serve_with(&keys, &clock, before).await;
        let new = serve_with(&keys, &clock, after).await;
        let browser = Browser::default();
        browser.get(&old, "/name/Old").await.text();
        // Under a path that the old cookie is sent to.
        let out = SessionLayer::builder(PrivateCookie, keys.clone()).with_clock(&clock);
        let routes = Router::new().route("/name", get(crate::destroy));
        let out = Server::start(routes.layer(after(out).build().unwrap())).await;
        browser.get(&out, "/name").await.text();
        assert_eq!(browser.get(&new, "/name").await.text(), "nobody", "{case}");
    }
}

/// Neither the login nor the logout is sent the old cookie, which is valid for some pages only.
#[tokio::test]
async fn a_cookie_that_a_logout_does_not_see_does_not_come_back() {
    let (keys, clock) = (Keys::generate(), ManualClock::new());
    let old = serve_with(&keys, &clock, on_a_path).await;
    let new = serve_with(&keys, &clock, on_the_host).await;
    let browser = Browser::default();
    browser.get(&old, "/name/Old").await.text();
    clock.advance(Duration::from_secs(1));
    browser.get(&new, "/visit").await.text();
    let logout = browser.get(&new, "/destroy").await.set_cookies();
    assert_eq!(logout.len(), 1);
    assert!(logout[0].len() < 200 && logout[0].contains("; Max-Age=34560000"), "{logout:?}");
    assert_eq!(browser.get(&new, "/name").await.text(), "nobody");
}

#[tokio::test]
async fn the_clock_of_another_process_may_be_ahead() {
    let (keys, clock, ahead) = (Keys::generate(), ManualClock::new(), ManualClock::new());
    ahead.advance(HOUR / 2);
    let old = serve_with(&keys, &ahead, in_a_domain).await;
    let new = serve_with(&keys, &clock, on_the_host).await;
    let browser = Browser::default();
    browser.get(&old, "/name/Old").await.text();
    for name in ["One", "Two"] {
        browser.get(&new, &format!("/name/{name}")).await.text();
        assert_eq!(browser.get(&new, "/name").await.text(), name);
    }
    browser.get(&new, "/destroy").await.text();
    assert_eq!(browser.get(&new, "/name").await.text(), "nobody");
}

#[tokio::test]
async fn a_host_cookie_is_removed_and_others_say_that_they_have_ended() {
    for (settings, is_removed) in [(in_frames as Settings, true), (on_the_host, false)] {
        let builder = SessionLayer::<Visitor>::builder(PrivateCookie, Keys::generate());
        let layer = settings(builder).build().unwrap();
        let mut client = TestClient::new(basics().layer(layer.clone()), &layer);
        let mut change = async |path| client.get(path).await.change;
        assert_eq!(change("/name/Zoe").await, SessionChange::Begun);
        assert_eq!(change("/destroy").await, SessionChange::Ended);
        assert_eq!(change("/destroy").await, SessionChange::Kept, "there is none");
        assert_eq!(client.cookie().is_none(), is_removed);
        assert_eq!(client.get("/name/Zoe").await.change, SessionChange::Begun);
    }
}

#[tokio::test]
async fn a_persistent_cookie_is_sent_again_before_the_browser_drops_it() {
    const DAY: Duration = Duration::from_secs(24 * 3_600);
    let clock = ManualClock::new();
    let server = serve_with(&Keys::generate(), &clock, |builder| {
        let long = builder.with_idle_timeout(None).with_absolute_timeout(800 * DAY);
        long.with_persistent_cookie()
    })
    .await;
    let client = server.client();
    client.get("/name/Zoe").await.text();
    for day in 1..=780 {
        clock.advance(DAY);
        let reply = client.get("/name").await;
        assert_eq!(reply.text(), "Zoe");
        // From day 420 on the last one lasts to the end: the first with at most 400 days left.
        let is_due = day % 30 == 0 && day <= 420;
        assert_eq!(reply.set_cookies().len(), usize::from(is_due), "day {day}");
    }
}
