//! What the layer counts. In a process of its own, because the recorder is the whole process's.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    time::Duration,
};

use axum::{Router, extract::Path, http::StatusCode, routing::get};
use metrics_util::{
    CompositeKey,
    debugging::{DebugValue, DebuggingRecorder, Snapshotter},
};
use sessions::{
    Conflict, Keys, MemoryStore, Session, SessionLayer, SessionLayerBuilder, UserSessions,
    adopt::{AdoptError, OldCookie, OldId, OldSession, Predecessor, RequestCookies},
    testing::{Fault, FaultyStore, Operation, SpyStore},
};
use sessions_tests::{Client, Server, repository};

#[derive(Session)]
struct Visitor {
    #[session(user)]
    user: Option<u64>,
    #[session(merge = add)]
    visits: u32,
    theme: String,
}

/// A library whose every cookie names a session.
struct Before;

impl Predecessor for Before {
    fn session_id(&self, cookies: &RequestCookies<'_>) -> Option<OldId> {
        OldCookie::new("old").value(cookies).map(OldId::new)
    }

    async fn load(&self, _: &OldId) -> Result<Option<OldSession>, AdoptError> {
        Ok(Some(OldSession::new()))
    }

    async fn end(&self, _: &OldId) -> Result<bool, AdoptError> {
        Ok(true)
    }

    fn cookie_removal(&self) -> Option<http::HeaderValue> {
        None
    }
}

struct App {
    server: Server,
    store: SpyStore<MemoryStore>,
}

type Settings = fn(SessionLayerBuilder<Visitor>) -> SessionLayerBuilder<Visitor>;

/// A process on this store.
async fn app(store: &MemoryStore, keys: &Keys, settings: Settings) -> App {
    let store = SpyStore::new(store.clone());
    let builder = SessionLayer::<Visitor>::builder(store.clone(), keys.clone())
        .in_another_process()
        .adopt(Before, |_, _| Ok(Some(7)));
    let layer = settings(builder).build().unwrap();
    let app = Router::new()
        .route("/visit", get(visit))
        .route("/theme/{theme}", get(theme))
        .route("/login", get(async |session: Session<Visitor>| session.login(7).await))
        .route("/renew", get(async |session: Session<Visitor>| session.renew_id().await))
        .route("/logout", get(async |session: Session<Visitor>| session.logout().await))
        .route("/everywhere", get(everywhere))
        .layer(Visitor::csrf_layer().origin_only())
        .layer(layer);
    App { server: Server::start(app).await, store }
}

async fn visit(session: Session<Visitor>) -> String {
    let mut s = session.write().await;
    let visits = s.visits() + 1;
    s.set_visits(visits);
    visits.to_string()
}

async fn theme(Path(theme): Path<String>, session: Session<Visitor>) {
    session.write().await.set_theme(theme);
}

async fn everywhere(sessions: UserSessions<Visitor>) -> sessions::Result<String> {
    Ok(sessions.end_all(&7).await?.to_string())
}

/// The counters so far, each with its labels; of a histogram how often something was recorded.
fn counted(snapshotter: &Snapshotter, seen: &mut BTreeMap<String, u64>) {
    for (key, _, _, value) in snapshotter.snapshot().into_vec() {
        let count = match value {
            DebugValue::Counter(count) => count,
            DebugValue::Histogram(times) => {
                assert!(times.iter().all(|time| (0.0..60.0).contains(&time.0)), "{times:?}");
                times.len() as u64
            }
            DebugValue::Gauge(_) => continue,
        };
        *seen.entry(written(&key)).or_default() += count;
    }
}

fn written(key: &CompositeKey) -> String {
    let labels = key.key().labels().map(|label| format!(" {}={}", label.key(), label.value()));
    key.key().name().to_string() + &labels.collect::<String>()
}

/// Two processes change one session at once: the first one's save is held until the other is done.
async fn at_once(
    one: &App,
    other: &App,
    client: &Client,
    path: &'static str,
    others: &str,
) -> StatusCode {
    let copy = other.server.client();
    copy.set_cookie("__Host-id", client.cookie("__Host-id").as_deref());
    let gate = one.store.hold(Operation::Replace);
    let request = tokio::spawn({
        let client = client.clone();
        async move { client.get(path).await.status }
    });
    gate.wait_for_caller().await;
    assert!(copy.get(others).await.status.is_success());
    gate.release();
    request.await.unwrap()
}

#[tokio::test]
async fn every_name_of_the_page_is_told_and_no_other() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    recorder.install().expect("the process has no other");
    let mut seen = BTreeMap::new();

    let (store, keys) = (MemoryStore::new(), Keys::generate());
    let one = app(&store, &keys, |builder| builder).await;
    let other = app(&store, &keys, |builder| builder).await;
    let rejecting =
        app(&store, &keys, |builder| builder.with_conflict_policy(Conflict::Reject)).await;

    let client = one.server.client();
    client.get("/visit").await.text();
    client.get("/visit").await.text();
    assert!(client.get("/login").await.status.is_success());
    assert!(client.get("/renew").await.status.is_success());
    assert!(at_once(&one, &other, &client, "/visit", "/visit").await.is_success());
    assert!(at_once(&one, &other, &client, "/theme/dark", "/theme/light").await.is_success());
    let rejected = rejecting.server.client();
    rejected.set_cookie("__Host-id", client.cookie("__Host-id").as_deref());
    let status = at_once(&rejecting, &other, &rejected, "/theme/red", "/theme/blue").await;
    assert_eq!(status, StatusCode::CONFLICT);
    one.store.fail(Operation::Load);
    assert_eq!(client.get("/visit").await.status, StatusCode::SERVICE_UNAVAILABLE);
    one.store.heal(Operation::Load);
    assert_eq!(client.get("/everywhere").await.text(), "1");

    let old = one.server.client();
    old.set_cookie("old", Some("an-old-id"));
    old.get("/visit").await.text();
    assert!(old.get("/logout").await.status.is_success());
    let request = http::Request::post("/visit").header("sec-fetch-site", "cross-site");
    let body = http_body_util::Full::<axum::body::Bytes>::default();
    let reply = old.call(request.body(body).unwrap()).await;
    assert_eq!(reply.status, StatusCode::FORBIDDEN);

    counted(&snapshotter, &mut seen);
    let count = |name: &str| seen.get(name).copied().unwrap_or_default();
    for (name, expected) in [
        ("sessions_begun_total", 2),
        ("sessions_logged_in_total", 1),
        ("sessions_renewed_total", 2),
        ("sessions_adopted_total", 1),
        ("sessions_ended_total", 2),
        ("sessions_fields_merged_total", 1),
        ("sessions_fields_overwritten_total", 1),
        ("sessions_fields_refused_total", 1),
        ("sessions_save_retries_total", 3),
        ("sessions_refused_total reason=unavailable", 1),
        ("sessions_refused_total reason=conflict", 1),
        ("sessions_refused_total reason=cross_site", 1),
    ] {
        assert_eq!(count(name), expected, "{name} of {seen:#?}");
    }
    assert!(count("sessions_opened_total") > 5 && count("sessions_saved_total") > 5, "{seen:#?}");

    slow_store_and_near_cache(&keys).await;
    counted(&snapshotter, &mut seen);
    let count = |name: &str| seen.get(name).copied().unwrap_or_default();
    assert!(count("sessions_store_seconds operation=load outcome=ok") > 0, "{seen:#?}");
    assert!(count("sessions_store_seconds operation=create outcome=timeout") > 0, "{seen:#?}");

    let page = fs::read_to_string(repository().join("sessions/docs/metrics.md")).unwrap();
    let named: BTreeSet<_> =
        page.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
    let mut told: BTreeSet<_> = seen.keys().filter_map(|name| name.split(' ').next()).collect();
    // Needs a store that says what changes: `tests/stores` has one.
    told.insert("sessions_near_cache_total");
    // Needs a browser with a key: `tests/http/devices/metrics.rs` has one.
    told.extend([
        "sessions_devices_bound_total",
        "sessions_devices_let_through_total",
        "sessions_devices_refreshed_total",
        "sessions_devices_refused_total",
    ]);
    assert_eq!(named, told);
}

/// Some calls that are waited for, and one for which the wait is too long.
async fn slow_store_and_near_cache(keys: &Keys) {
    let slow = FaultyStore::new(MemoryStore::new(), 1)
        .with_fault(Fault::Slow, 1000)
        .with_delays_up_to(Duration::from_millis(2));
    let layer = SessionLayer::<Visitor>::builder(slow, keys.clone()).in_another_process();
    let app = Router::new().route("/visit", get(visit));
    let server = Server::start(app.clone().layer(layer.build().unwrap())).await;
    let client = server.client();
    for _ in 0..8 {
        client.get("/visit").await.text();
    }
    let hangs = FaultyStore::new(MemoryStore::new(), 1).with_fault(Fault::Hangs, 1000);
    let layer = SessionLayer::<Visitor>::builder(hangs, keys.clone())
        .in_another_process()
        .with_store_timeout(Duration::from_millis(5));
    let server = Server::start(app.layer(layer.build().unwrap())).await;
    let status = server.client().get("/visit").await.status;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
}
