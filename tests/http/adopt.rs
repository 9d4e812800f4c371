//! Sessions of an earlier library: what becomes of two requests at once, of failures, and after the end. The
//! library is made up; what the real ones write, `tests/moving` has.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use axum::{Router, http::StatusCode, routing::get};
use http::HeaderValue;
use sessions::{
    Keys, LoggedIn, MemoryStore, RequireLogin, Session, SessionLayer, SessionLayerBuilder,
    UserSessions,
    adopt::{AdoptError, OldCookie, OldId, OldSession, Predecessor, RequestCookies},
    testing::{ManualClock, Operation, SpyStore},
};
use sessions_tests::{Client, Server, at_once, eventually};

const OLD: &str = "old";
const ID: &str = "an-old-id";
const USER: u64 = 7;
const MINUTE: Duration = Duration::from_secs(60);

#[derive(Session)]
struct Customer {
    #[session(user)]
    user: Option<u64>,
    name: Option<String>,
    #[session(merge = add)]
    visits: u32,
}

/// The library of before, with a session that the user 7 is logged in to.
#[derive(Clone)]
struct Before(Arc<Old>);

struct Old {
    sessions: Mutex<HashMap<String, OldSession>>,
    loads: AtomicUsize,
    fails: AtomicBool,
}

impl Before {
    fn new() -> Self {
        let session = OldSession::new().with("user", USER).unwrap().with("name", "Zoë").unwrap();
        let sessions = Mutex::new([(ID.to_string(), session)].into());
        Self(Arc::new(Old { sessions, loads: 0.into(), fails: false.into() }))
    }

    fn cookie() -> OldCookie {
        OldCookie::new(OLD)
    }

    fn has_session(&self) -> bool {
        self.0.sessions.lock().unwrap().contains_key(ID)
    }
}

impl Predecessor for Before {
    fn session_id(&self, cookies: &RequestCookies<'_>) -> Option<OldId> {
        Self::cookie().value(cookies).map(OldId::new)
    }

    async fn load(&self, id: &OldId) -> Result<Option<OldSession>, AdoptError> {
        self.0.loads.fetch_add(1, SeqCst);
        if self.0.fails.load(SeqCst) {
            return Err(AdoptError::store("the old store is away"));
        }
        Ok(self.0.sessions.lock().unwrap().get(id.as_str()).cloned())
    }

    async fn end(&self, id: &OldId) -> Result<bool, AdoptError> {
        self.0.sessions.lock().unwrap().remove(id.as_str());
        Ok(true)
    }

    fn cookie_removal(&self) -> Option<HeaderValue> {
        Some(Self::cookie().removal())
    }
}

/// What the processes have in common: their store and keys, the library of before, and the time.
struct Fleet {
    before: Before,
    store: MemoryStore,
    keys: Keys,
    clock: ManualClock,
    leaves: bool,
}

/// One process.
struct Process {
    server: Server,
    store: SpyStore<MemoryStore>,
}

type Settings = fn(SessionLayerBuilder<Customer>) -> SessionLayerBuilder<Customer>;

impl Fleet {
    fn new() -> Self {
        let clock = ManualClock::new();
        let store = MemoryStore::builder().with_clock(&clock).build();
        Self { before: Before::new(), store, keys: Keys::generate(), clock, leaves: false }
    }

    /// One that leaves the old sessions where they are.
    fn rolling() -> Self {
        Self { leaves: true, ..Self::new() }
    }

    async fn process(&self) -> Process {
        self.process_with(|builder| builder).await
    }

    async fn process_with(&self, settings: Settings) -> Process {
        let store = SpyStore::new(self.store.clone());
        let builder = SessionLayer::<Customer>::builder(store.clone(), self.keys.clone())
            .with_clock(&self.clock)
            .in_another_process()
            .adopt(self.before.clone(), |old, s| {
                s.set_name(old.get::<String>("name")?.unwrap_or_default());
                old.get("user")
            });
        let builder = if self.leaves { builder.without_ending_predecessor() } else { builder };
        let app = Router::new()
            .route("/", get(show))
            .route("/visit", get(visit))
            .route("/login", get(login))
            .route("/logout", get(async |session: Session<Customer>| session.logout().await))
            .route("/sessions", get(count))
            .route("/password", get(password))
            .route("/account", get(account))
            .route("/members", get(async || "welcome").layer(RequireLogin::<Customer>::new()))
            .layer(settings(builder).build().unwrap());
        Process { server: Server::start(app).await, store }
    }
}

impl Process {
    /// A client that has the old cookie alone.
    fn client(&self) -> Client {
        let client = self.server.client();
        client.set_cookie(OLD, Some(ID));
        client
    }

    async fn sessions(&self) -> String {
        self.server.client().get("/sessions").await.text().to_string()
    }
}

async fn show(session: Session<Customer>) -> String {
    let s = session.read().await;
    format!("{:?} {}", s.user(), s.name().unwrap_or("nobody"))
}

async fn visit(session: Session<Customer>) -> String {
    let mut s = session.write().await;
    let visits = s.visits() + 1;
    s.set_visits(visits);
    visits.to_string()
}

async fn login(session: Session<Customer>) -> sessions::Result<()> {
    session.login(USER).await
}

async fn count(sessions: UserSessions<Customer>) -> sessions::Result<String> {
    Ok(sessions.list(&USER).await?.len().to_string())
}

async fn password(session: Session<Customer>) -> sessions::Result<()> {
    session.require_recent_login(10 * MINUTE)
}

async fn account(LoggedIn { user, session }: LoggedIn<Customer>) -> String {
    format!("{user}, since {:?}", session.logged_in_at())
}

const ADOPTED: &str = "Some(7) Zoë";
const NOBODY: &str = "None nobody";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_at_once_adopt_an_old_session_once() {
    const REQUESTS: usize = 24;
    for leaves in [false, true] {
        let fleet = Fleet { leaves, ..Fleet::new() };
        let processes = [fleet.process().await, fleet.process().await, fleet.process().await];
        let clients: Vec<_> = (0..REQUESTS).map(|number| processes[number % 3].client()).collect();
        let visits = at_once(REQUESTS, |number| {
            let client = clients[number].clone();
            async move { client.get("/visit").await.text().to_string() }
        })
        .await;
        assert_eq!(visits.len(), REQUESTS);
        let cookies: Vec<_> = clients.iter().map(|client| client.cookie(super::COOKIE)).collect();
        assert!(cookies[0].is_some() && cookies.iter().all(|cookie| *cookie == cookies[0]));
        assert_eq!(processes[0].sessions().await, "1");
        let last = (REQUESTS + 1).to_string();
        assert_eq!(clients[0].get("/visit").await.text(), last);
        assert_eq!(fleet.before.has_session(), leaves);
    }
}

#[tokio::test]
async fn a_request_that_is_half_way_at_the_logout_adopts_nothing() {
    let fleet = Fleet::rolling();
    let [slow, other] = [fleet.process().await, fleet.process().await];
    // It has read the old session, and is about to claim it.
    let gate = slow.store.hold(Operation::Create);
    let request = tokio::spawn({
        let client = slow.client();
        async move { client.get("/").await }
    });
    gate.wait_for_caller().await;
    let client = other.client();
    assert_eq!(client.get("/").await.text(), ADOPTED);
    assert!(client.get("/logout").await.status.is_success());
    gate.release();
    assert_eq!(request.await.unwrap().text(), NOBODY);
    assert_eq!(slow.sessions().await, "0");
    assert_eq!(slow.client().get("/").await.text(), NOBODY);
}

#[tokio::test]
async fn an_adopter_that_was_taken_over_takes_its_session_back() {
    let short: Settings = |builder| builder.with_lease_time(Duration::from_millis(30));
    let fleet = Fleet::rolling();
    let [slow, other] = [fleet.process_with(short).await, fleet.process_with(short).await];
    // Its session is stored, and is about to be handed out.
    let gate = slow.store.hold(Operation::Replace);
    let request = tokio::spawn({
        let client = slow.client();
        async move { client.get("/").await }
    });
    gate.wait_for_caller().await;
    assert_eq!(other.sessions().await, "1");
    let client = other.client();
    assert_eq!(client.get("/").await.text(), ADOPTED);
    assert!(client.get("/logout").await.status.is_success());
    gate.release();
    assert_eq!(request.await.unwrap().text(), NOBODY);
    assert_eq!(other.sessions().await, "0", "neither of the two is left");
}

#[tokio::test]
async fn a_store_that_fails_logs_nobody_out() {
    let short: Settings = |builder| builder.with_lease_time(Duration::from_millis(30));
    // The first call of each kind that an adoption makes, and the next ones.
    for (operation, failures) in [
        (Operation::Load, 1),
        (Operation::Create, 1),
        (Operation::Create, 2),
        (Operation::Replace, 1),
        (Operation::Replace, 2),
    ] {
        let fleet = Fleet::new();
        let process = fleet.process_with(short).await;
        let client = process.client();
        process.store.fail_next(operation, failures);
        let mut refused = 0;
        loop {
            let reply = client.get("/").await;
            if reply.status.is_success() {
                assert_eq!(reply.text(), ADOPTED, "{operation:?} {failures}");
                break;
            }
            assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE);
            assert_eq!(client.cookie(OLD).as_deref(), Some(ID));
            refused += 1;
            assert!(refused <= failures, "{operation:?} {failures}");
        }
        assert!(refused > 0, "{operation:?} {failures}");
    }
}

#[tokio::test]
async fn an_old_store_that_does_not_answer_logs_nobody_out() {
    let fleet = Fleet::new();
    let process = fleet.process().await;
    let client = process.client();
    fleet.before.0.fails.store(true, SeqCst);
    let reply = client.get("/visit").await;
    assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(reply.set_cookies(), [""; 0]);
    fleet.before.0.fails.store(false, SeqCst);
    assert_eq!(client.get("/").await.text(), ADOPTED);
}

#[tokio::test]
async fn a_client_that_hangs_up_leaves_the_session_to_the_next_request() {
    let fleet = Fleet::new();
    let process = fleet.process().await;
    let gate = process.store.hold(Operation::Create);
    let request = tokio::spawn({
        let client = process.client();
        async move { client.get("/").await }
    });
    gate.wait_for_caller().await;
    request.abort();
    gate.release();
    eventually("the adoption is carried to its end", async || !fleet.before.has_session()).await;
    assert_eq!(process.client().get("/").await.text(), ADOPTED);
    assert_eq!(process.sessions().await, "1");
}

#[tokio::test]
async fn what_cannot_be_read_is_left_and_its_visitor_is_a_new_one() {
    let fleet = Fleet::new();
    let process = fleet.process().await;
    let wrong = OldSession::new().with("user", "seven").unwrap();
    fleet.before.0.sessions.lock().unwrap().insert(ID.to_string(), wrong);
    let client = process.client();
    assert_eq!(client.get("/").await.text(), NOBODY);
    assert_eq!(client.cookie(OLD).as_deref(), Some(ID));
    assert!(fleet.before.has_session());
    assert_eq!(client.get("/visit").await.text(), "1", "a session of its own");
}

#[tokio::test]
async fn nothing_is_asked_where_a_cookie_of_ours_opens_a_session() {
    let fleet = Fleet::rolling();
    let process = fleet.process().await;
    let client = process.client();
    assert_eq!(client.get("/").await.text(), ADOPTED);
    let loads = fleet.before.0.loads.load(SeqCst);
    assert_eq!(client.get("/").await.text(), ADOPTED);
    assert_eq!(client.cookie(OLD).as_deref(), Some(ID));
    assert_eq!(fleet.before.0.loads.load(SeqCst), loads);
}

#[tokio::test]
async fn an_old_cookie_opens_its_session_for_ten_minutes() {
    let fleet = Fleet::rolling();
    let process = fleet.process().await;
    let owner = process.client();
    assert_eq!(owner.get("/").await.text(), ADOPTED);
    fleet.clock.advance(9 * MINUTE);
    assert_eq!(process.client().get("/").await.text(), ADOPTED);
    fleet.clock.advance(MINUTE);
    assert_eq!(process.client().get("/").await.text(), NOBODY);
    assert_eq!(owner.get("/").await.text(), ADOPTED);
}

#[tokio::test]
async fn after_a_login_the_old_cookie_opens_nothing() {
    let fleet = Fleet::new();
    let process = fleet.process().await;
    let owner = process.client();
    assert_eq!(owner.get("/").await.text(), ADOPTED);
    let status = owner.get("/password").await.status;
    assert_eq!(status, StatusCode::UNAUTHORIZED, "nobody knows when the old login was");
    assert!(owner.get("/login").await.status.is_success());
    assert!(owner.get("/password").await.status.is_success());
    let late = process.client();
    assert_eq!(late.get("/visit").await.text(), "1");
    assert_eq!(late.cookie(super::COOKIE), None, "it is getting the cookie of the login");
    fleet.clock.advance(MINUTE);
    let thief = process.client();
    assert_eq!(thief.get("/").await.text(), NOBODY);
    assert_eq!(thief.cookie(OLD), None, "it is worth nothing");
    assert_eq!(owner.get("/").await.text(), ADOPTED);
}

#[tokio::test]
async fn an_adopted_session_outlives_a_rotation_of_the_keys_at_once() {
    let mut fleet = Fleet::new();
    let first = fleet.process().await;
    assert_eq!(first.client().get("/").await.text(), ADOPTED);
    fleet.keys = Keys::generate().with_previous(fleet.keys);
    let second = fleet.process().await;
    assert_eq!(second.client().get("/").await.text(), ADOPTED);
    assert_eq!(second.sessions().await, "1");
}

#[tokio::test]
async fn sessions_in_their_cookies_adopt_nothing() {
    let builder = SessionLayer::<Customer>::builder(sessions::PrivateCookie, Keys::generate());
    let error = builder.adopt(Before::new(), |_, _| Ok(None)).build().unwrap_err();
    assert!(error.to_string().contains("adopt"), "{error}");
}

/// By whatever asks for a login, in the request that adopts the session and in those after it.
#[tokio::test]
async fn who_was_logged_in_stays_so() {
    for first in ["/account", "/members"] {
        let fleet = Fleet::new();
        let process = fleet.process().await;
        let client = process.client();
        client.get(first).await.text();
        assert_eq!(client.get("/account").await.text(), "7, since None");
        assert_eq!(client.get("/members").await.text(), "welcome");
        assert_eq!(client.get("/password").await.status, StatusCode::UNAUTHORIZED, "not recently");
    }
}
