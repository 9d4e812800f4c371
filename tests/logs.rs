//! What is logged, and above all what is not. In a process of its own, because the log is the whole
//! process's.

use std::{
    fmt::Write,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{Router, extract::State, routing::get};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD as BASE64};
use http::{Method, Request};
use http_body_util::Full;
use hyper::body::Bytes;
use p256::ecdsa::{Signature, SigningKey, signature::Signer};
use serde_json::json;
use sessions::{
    Device, DeviceBinding, ErrorKind, Keys, MemoryStore, Session, SessionLayer, UnprovenPolicy,
    testing::{ManualClock, Operation, SpyStore},
};
use sessions_tests::Server;
use sha2::{Digest, Sha256};
use tokio::sync::Notify;
use tracing::{
    Event, Metadata, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id, Record},
};

const COOKIE: &str = "__Host-id";

#[derive(Session)]
struct Visitor {
    name: Option<String>,
    visits: u32,
    #[session(user)]
    user: Option<String>,
}

/// Keeps everything that is logged, of every level, as text.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<String>>);

impl Log {
    fn note(&self, write: impl FnOnce(&mut Line<'_>)) {
        let mut text = self.0.lock().unwrap();
        write(&mut Line(&mut text));
        text.push('\n');
    }

    fn text(&self) -> String {
        self.0.lock().unwrap().clone()
    }
}

struct Line<'a>(&'a mut String);

impl Visit for Line<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        write!(self.0, " {field}={value:?}").unwrap();
    }

    fn record_error(&mut self, field: &Field, error: &(dyn std::error::Error + 'static)) {
        write!(self.0, " {field}={error:?} {error}").unwrap();
    }
}

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("sessions")
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        self.note(|line| {
            line.0.push_str(span.metadata().name());
            span.record(line);
        });
        Id::from_u64(1)
    }

    fn record(&self, _span: &Id, values: &Record<'_>) {
        self.note(|line| values.record(line));
    }

    fn event(&self, event: &Event<'_>) {
        self.note(|line| {
            line.0.push_str(event.metadata().level().as_str());
            event.record(line);
        });
    }

    fn record_follows_from(&self, _span: &Id, _follows: &Id) {}
    fn enter(&self, _span: &Id) {}
    fn exit(&self, _span: &Id) {}
}

/// A JWT as a browser signs it, with its public key if it registers.
fn proof(key: &SigningKey, registers: bool, challenge: &str) -> String {
    let mut header = json!({ "alg": "ES256", "typ": "dbsc+jwt" });
    if registers {
        let point = key.verifying_key().to_sec1_point(false);
        let (x, y) = point.as_bytes()[1..].split_at(32);
        let (x, y) = (BASE64.encode(x), BASE64.encode(y));
        header["jwk"] = json!({ "kty": "EC", "crv": "P-256", "x": x, "y": y });
    }
    let claims = json!({ "jti": challenge });
    let signed =
        format!("{}.{}", BASE64.encode(header.to_string()), BASE64.encode(claims.to_string()));
    let signature: Signature = key.sign(signed.as_bytes());
    format!("{signed}.{}", BASE64.encode(signature.to_bytes()))
}

/// What stands in a structured field between quotes, after this.
fn quoted_after<'a>(header: &'a str, before: &str) -> &'a str {
    let (_, rest) = header.split_once(before).expect("it is there");
    rest.split('"').next().expect("a string")
}

#[tokio::test]
async fn what_becomes_of_a_device_is_logged_and_no_secret_is() {
    const USER: &str = "b.user.whose.name.is.personal@data.example";
    const BOUND: &str = "__Host-id-device";
    async fn login(session: Session<Visitor>) -> sessions::Result<()> {
        session.login(USER.to_string()).await
    }
    async fn name(session: Session<Visitor>) -> String {
        format!("{:?}", session.read().await.user())
    }
    // Of this thread alone, which everything here runs on.
    let log = Log::default();
    let _logging = tracing::subscriber::set_default(log.clone());
    let clock = ManualClock::new();
    let store = SpyStore::new(MemoryStore::builder().with_clock(&clock).build());
    let keys = Keys::generate();
    let serve = async |binding: DeviceBinding| {
        let layer = SessionLayer::<Visitor>::builder(store.clone(), keys.clone())
            .with_clock(&clock)
            .in_another_process()
            .bind_to_device(binding);
        let app = Router::new().route("/login", get(login)).route("/name", get(name));
        Server::start(app.layer(layer.build().unwrap())).await
    };
    let server = serve(DeviceBinding::new()).await;
    let client = server.client();
    let post = async |path: &str, headers: &[(&str, &str)]| {
        let mut post = Request::post(format!("/device-binding/{path}"));
        for (name, value) in headers {
            post = post.header(*name, *value);
        }
        client.call(post.body(Full::<Bytes>::default()).unwrap()).await
    };
    let said = |level: &str, words: &str| {
        let text = log.text();
        let is_there = text.lines().any(|line| line.starts_with(level) && line.contains(words));
        assert!(is_there, "{level} {words:?} is missing in:\n{text}");
    };
    let [key, others] = [1, 2].map(|number| SigningKey::from_slice(&[number; 32]).unwrap());

    // What anybody can send, or so.
    assert_eq!(post("register", &[]).await.status, 400);
    said("DEBUG", "refused a device: the request has no proof");
    assert_eq!(post("register", &[("secure-session-response", "a.b.c")]).await.status, 401);
    said("DEBUG", "refused a device: it has no session");
    assert_eq!(post("refresh", &[("sec-secure-session-id", "nobody")]).await.status, 401);
    said("DEBUG", "refused a device: it names no binding of this layer");
    assert!(!log.text().contains("INFO"), "nobody fills the log:\n{}", log.text());

    let offer = client.get("/login").await.header("secure-session-registration");
    let challenge = quoted_after(&offer, "challenge=\"");
    assert_eq!(post("register", &[("secure-session-response", "a.b.c")]).await.status, 403);
    said("INFO", "refused to bind a session to a device: it is no proof of a device");
    let registered = proof(&key, true, challenge);
    store.fail_next(Operation::Replace, 1);
    let failed = post("register", &[("secure-session-response", &registered)]).await;
    assert_eq!(failed.status, 503);
    said("ERROR", "a device could not be answered");
    let bound = post("register", &[("secure-session-response", &registered)]).await;
    assert_eq!(bound.status, 200);
    said("INFO", "bound a session to a device");
    let next = bound.header("secure-session-challenge");
    let (id, next) = (quoted_after(&next, ";id=\"").to_string(), quoted_after(&next, "\""));
    let names = ("sec-secure-session-id", &*id);
    let refresh = async |proof: &str| {
        post("refresh", &[names, ("secure-session-response", proof)]).await.status
    };
    let refreshed = proof(&key, false, next);
    assert_eq!(refresh(&refreshed).await, 200);
    said("DEBUG", "a device has proved itself");
    assert_eq!(refresh(&proof(&others, false, next)).await, 403);
    said("INFO", "refused to refresh a device: its signature does not verify");
    let secrets = [COOKIE, BOUND].map(|name| client.cookie(name).expect("a cookie"));

    clock.advance(Duration::from_secs(21 * 60));
    assert_eq!(client.copy().get("/name").await.text(), "None");
    said(
        "INFO",
        "a bound session is kept from a request that does not come from its device: its bound",
    );
    assert_eq!(refresh(&refreshed).await, 403);
    said("DEBUG", "a device gets another challenge");
    let allowing = DeviceBinding::new().with_unproven_policy(UnprovenPolicy::Allow);
    let allows_all = serve(allowing).await;
    let unproven = allows_all.client();
    unproven.set_cookie(COOKIE, Some(&secrets[0]));
    assert_eq!(unproven.get("/name").await.text(), format!("Some({USER:?})"));
    said(
        "INFO",
        "a bound session is left to a request that does not come from its device: it has no",
    );
    let text = log.text();
    for secret in
        [&*secrets[0], &*secrets[1], &*id, challenge, next, &*registered, &*refreshed, USER]
    {
        assert!(!text.contains(&secret[..20]), "a secret in:\n{text}");
    }
}

#[tokio::test]
async fn everything_that_matters_is_logged_and_no_secret_is() {
    const VALUE: &str = "a value that is nobody's business";
    const USER: &str = "a.user.whose.name.is.personal@data.example";
    async fn writes(session: Session<Visitor>) {
        session.write().await.set_name(VALUE);
    }
    async fn visit(session: Session<Visitor>) {
        *session.write().await.visits_mut() += 1;
    }
    async fn waits(session: Session<Visitor>) {
        tokio::time::pause();
        let _guard = session.write().await;
        let second = session.write_timeout(Duration::from_secs(8)).await;
        assert_eq!(second.map(drop).unwrap_err().kind(), ErrorKind::Locked);
        tokio::time::resume();
    }
    async fn overtaken(State(steps): State<Arc<[Notify; 2]>>, session: Session<Visitor>) {
        session.write().await.set_visits(50);
        steps[0].notify_one();
        steps[1].notified().await;
    }
    async fn renew(session: Session<Visitor>) -> sessions::Result<()> {
        session.renew_id().await
    }
    async fn destroy(session: Session<Visitor>) -> sessions::Result<()> {
        session.destroy().await
    }
    async fn login(session: Session<Visitor>) -> sessions::Result<()> {
        session.login(USER.to_string()).with_device(Device::new().with_address("192.0.2.7")).await
    }
    async fn logout(session: Session<Visitor>) -> sessions::Result<()> {
        session.logout().await
    }
    async fn token(session: Session<Visitor>) -> sessions::Result<String> {
        Ok(session.csrf_token().await?.to_string())
    }
    let log = Log::default();
    tracing::subscriber::set_global_default(log.clone()).unwrap();
    let (store, keys) = (SpyStore::new(MemoryStore::new()), Keys::generate());
    let layer = || SessionLayer::<Visitor>::new(store.clone(), keys.clone());
    let steps = Arc::new([Notify::new(), Notify::new()]);
    let app = Router::new()
        .route("/overtaken", get(overtaken))
        .with_state(steps.clone())
        .route("/writes", get(writes))
        .route("/visit", get(visit))
        .route("/waits", get(waits))
        .route("/renew", get(renew))
        .route("/destroy", get(destroy))
        .route("/login", get(login))
        .route("/logout", get(logout))
        .route("/token", get(token).post(token).layer(Visitor::csrf_layer()))
        .layer(layer())
        .route("/outside", get(visit));
    let server = Server::start(app).await;
    let other = Server::start(Router::new().route("/visit", get(visit)).layer(layer())).await;
    let client = server.client();
    let mut secrets = vec![VALUE.to_string()];
    client.get("/writes").await.text();
    secrets.extend(client.cookie(COOKIE));
    for path in ["/visit", "/waits", "/renew"] {
        client.get(path).await.text();
        secrets.extend(client.cookie(COOKIE));
    }
    let user = server.client();
    for path in ["/visit", "/login", "/visit", "/login", "/visit", "/logout"] {
        user.get(path).await.text();
        secrets.extend(user.cookie(COOKIE));
    }
    // Of the requests with these headers the first is good.
    let token = client.get("/token").await.text().to_string();
    let spoilt = format!("{token}A");
    for (name, value) in [
        ("x-csrf-token", &*token),
        ("x-csrf-token", &*spoilt),
        ("origin", "https://evil.example"),
        ("accept", "*/*"),
    ] {
        let post = Request::post("/token").header(name, value);
        let reply = client.call(post.body(Full::default()).unwrap()).await;
        assert_eq!(reply.status == 200, value == token);
    }
    server.client().request(Method::POST, "/token").await;
    assert_eq!(server.client().get("/outside").await.status, 500);
    secrets.push(token);
    // Another process changes the same field.
    let slow = client.copy().spawn_get("/overtaken");
    steps[0].notified().await;
    let there = other.client();
    there.set_cookie(COOKIE, client.cookie(COOKIE).as_deref());
    there.get("/visit").await.text();
    steps[1].notify_one();
    slow.await.unwrap().text();
    let forged = format!("{COOKIE}={}", "A".repeat(64));
    server.client().get_with("/visit", &[forged.into_bytes()]).await.text();
    store.fail_next(Operation::Replace, 1);
    assert_eq!(client.get("/visit").await.status, 503);
    client.get("/destroy").await.text();

    let text = log.text();
    for expected in [
        "open_session",
        "save_session",
        "created a session",
        "a user logged in",
        "opened a session",
        "saved a session",
        "renewed a session's id",
        "ended a session",
        "rejected a session cookie",
        "could not be saved",
        "refused a request: the request comes from another site: its origin is \
         `https://evil.example`, and it was sent to `127.0.0.1:",
        "refused a request: it has no CSRF token, neither in this header nor in this field of a form",
        "refused a request: a new session has no CSRF token yet (a page gets one by `Session::csrf_token`",
        "Visitor`: the handler or layer that asks for it is not inside a `SessionLayer::<",
        "so add that one last",
        "a session refused a request: that is no CSRF token of this session",
        "changed in two places at once: the later save wins field=\"visits\"",
        "has been waiting for 5s: now held by a write guard taken at",
    ] {
        assert!(text.contains(expected), "{expected:?} is missing in:\n{text}");
    }
    let text = text.to_lowercase();
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    for secret in &secrets {
        assert!(!text.contains(&secret.to_lowercase()), "a secret in:\n{text}");
        // Nor the id alone, the front of the cookie, nor the key that the store knows.
        assert!(!text.contains(&secret[..20].to_lowercase()), "an id in:\n{text}");
        let Ok(Some(id)) = BASE64.decode(secret).map(|it| it.first_chunk::<16>().copied()) else {
            continue;
        };
        for name in [&id[..], &Sha256::digest(id)[..]] {
            // In whatever form: hexadecimal, as a list of numbers, in base64.
            let numbers = format!("{:?}", &name[..6]);
            let numbers = numbers.trim_matches(['[', ']']);
            let texts = [&hex(&name[..4]), numbers, &BASE64.encode(&name[..12])];
            for part in texts {
                assert!(!text.contains(&part.to_lowercase()), "an id or a key in:\n{text}");
            }
        }
    }
    assert!(secrets.len() > 8, "there were cookies");
    for personal in [USER, "data.example", "192.0.2.7", VALUE] {
        assert!(!text.contains(personal), "who it is in:\n{text}");
    }
    assert!(!text.contains("storekey("), "a store's key in:\n{text}");
}
