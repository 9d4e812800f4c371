//! A browser that binds its sessions to a key, as Chromium does, in several tabs on two processes with a store that
//! fails and lets others go first; and a thief who copies its cookies. What a seed says happens at once; then the
//! store is sound again, and it is looked at what has come of it:
//!
//! - A browser that has lost no answer for good, and was told that its user is logged in, has that session, with
//!   all that was acknowledged.
//! - A thief has a bound session until the copied bound cookie is over, and never after.
//! - What was logged out stays so, whatever refreshes.
//!
//! One of the processes may make no offers, as in the deploy before the one that begins to bind. Or it may know nothing
//! of bindings, which costs a browser its key: then its user can log in again, and stays so at the process that binds.

use std::{
    cell::{Cell, RefCell},
    future::{Future, poll_fn},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
    task::Poll,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use axum::{
    Router,
    body::{Body, to_bytes},
    routing::{get, post},
};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD as BASE64};
use http::{HeaderMap, Method, Request, StatusCode, header};
use p256::ecdsa::{Signature, SigningKey, signature::Signer};
use serde_json::Value;
use sessions::{
    Created, DeviceBinding, Keys, MemoryStore, Record, Replaced, Session, SessionLayer, Store,
    StoreError, StoreKey, UnprovenPolicy, testing::ManualClock,
};
use sessions_tests::devices::parameter;
use tokio::task::yield_now;
use tower::ServiceExt;

use crate::{Random, for_all, polled};

const COOKIE: &str = "__Host-id";
const BOUND: &str = "__Host-id-device";
const REFRESH: &str = "/device-binding/refresh";
const LIFETIME: Duration = Duration::from_secs(600);

#[derive(Session)]
struct Data {
    #[session(user)]
    user: Option<u64>,
    #[session(merge = add)]
    visits: u32,
}

/// A store that lets others go first before and after each call, and fails now and then, before it has done what it
/// was told or after.
#[derive(Clone)]
struct Unsteady {
    store: MemoryStore,
    random: Arc<Mutex<Random>>,
    /// How many of a hundred calls fail.
    faults: Arc<AtomicU32>,
}

impl Unsteady {
    async fn call<R>(&self, call: impl Future<Output = R>) -> Result<R, StoreError> {
        self.pause().await;
        self.may_fail()?;
        let answer = call.await;
        self.pause().await;
        self.may_fail()?;
        Ok(answer)
    }

    async fn pause(&self) {
        let pauses = self.random.lock().unwrap().below(4);
        for _ in 0..pauses {
            yield_now().await;
        }
    }

    fn may_fail(&self) -> Result<(), StoreError> {
        let fails = self.random.lock().unwrap().below(200) < self.faults.load(SeqCst) as usize;
        if fails { Err(StoreError::new("unsteady", "call", "it is unsteady")) } else { Ok(()) }
    }
}

impl Store for Unsteady {
    async fn load(&self, key: &StoreKey) -> Result<Option<Record>, StoreError> {
        self.call(self.store.load(key)).await?
    }

    async fn create(&self, key: &StoreKey, record: &Record) -> Result<Created, StoreError> {
        self.call(self.store.create(key, record)).await?
    }

    async fn replace(
        &self,
        key: &StoreKey,
        record: &Record,
        based_on: u64,
    ) -> Result<Replaced, StoreError> {
        self.call(self.store.replace(key, record, based_on)).await?
    }

    async fn touch(&self, key: &StoreKey, expires_at: SystemTime) -> Result<(), StoreError> {
        self.call(self.store.touch(key, expires_at)).await?
    }

    async fn delete(&self, key: &StoreKey) -> Result<bool, StoreError> {
        self.call(self.store.delete(key)).await?
    }
}

async fn who(session: Session<Data>) -> String {
    let guard = session.read().await;
    format!("{:?} {}", guard.user, guard.visits)
}

async fn visit(session: Session<Data>) -> String {
    let mut guard = session.write().await;
    *guard.visits_mut() += 1;
    format!("{:?} {}", guard.user, guard.visits)
}

/// Begins a session for a browser that has none.
async fn page(session: Session<Data>) -> sessions::Result<String> {
    let _ = session.csrf_token().await?;
    Ok(format!("{:?}", session.read().await.user))
}

async fn login(session: Session<Data>) -> sessions::Result<()> {
    session.login(7).await
}

async fn logout(session: Session<Data>) -> sessions::Result<()> {
    session.logout().await
}

async fn renew(session: Session<Data>) -> sessions::Result<()> {
    session.renew_id().await
}

/// What the session has to say of its device, to any request with its cookie.
async fn proof(session: Session<Data>) -> String {
    let session = session.without_refresh();
    format!("{:?} {:?}", session.device_binding(), session.read().await.user)
}

struct Process {
    app: Router,
    layer: SessionLayer<Data>,
    /// Lets everybody through.
    looking: Router,
}

/// What a process does about devices.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Binds {
    Yes,
    /// It offers nothing.
    WhatIsBound,
    Nothing,
}

impl Process {
    fn new(store: &Unsteady, keys: &Keys, clock: &ManualClock, binds: Binds) -> Self {
        let layer = |policy| {
            let builder = SessionLayer::<Data>::builder(store.clone(), keys.clone())
                .with_clock(clock)
                .in_another_process()
                .with_idle_timeout(Duration::from_secs(20 * 3_600))
                .with_absolute_timeout(Duration::from_secs(20 * 24 * 3_600));
            let binding = DeviceBinding::new().with_unproven_policy(policy);
            let builder = match binds {
                Binds::Yes => builder.bind_to_device(binding),
                Binds::WhatIsBound => builder.bind_to_device(binding.without_offers()),
                Binds::Nothing => builder,
            };
            builder.build().unwrap()
        };
        let usual = layer(UnprovenPolicy::Reload);
        let app = Router::new()
            .route("/who", get(who))
            .route("/visit", get(visit))
            .route("/page", get(page))
            .route("/login", post(login))
            .route("/logout", post(logout))
            .route("/renew", post(renew))
            .layer(usual.clone());
        let looking = Router::new().route("/", get(proof)).layer(layer(UnprovenPolicy::Allow));
        Self { app, layer: usual, looking }
    }
}

struct Reply {
    status: StatusCode,
    headers: HeaderMap,
    body: String,
}

async fn call(app: &Router, method: Method, path: &str, headers: &[(&str, String)]) -> Reply {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, value);
    }
    let response = app.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    let (head, body) = response.into_parts();
    let body = to_bytes(body, 1 << 16).await.unwrap();
    let body = String::from_utf8(body.to_vec()).unwrap();
    Reply { status: head.status, headers: head.headers, body }
}

#[derive(Clone)]
struct Binding {
    id: String,
    key: SigningKey,
    challenge: Option<String>,
}

#[derive(Clone, Default)]
struct Jar {
    session: Option<String>,
    bound: Option<(String, SystemTime)>,
}

impl Jar {
    fn header(&self) -> Vec<(&'static str, String)> {
        let bound = self.bound.as_ref().map(|(value, _)| value);
        let pairs = [(COOKIE, self.session.as_ref()), (BOUND, bound)];
        let pairs =
            pairs.into_iter().filter_map(|(name, value)| Some(format!("{name}={}", value?)));
        let line = pairs.collect::<Vec<_>>().join("; ");
        if line.is_empty() { vec![] } else { vec![("cookie", line)] }
    }

    fn keep(&mut self, headers: &HeaderMap, now: SystemTime) {
        for line in headers.get_all(header::SET_COOKIE) {
            let line = line.to_str().unwrap();
            let (pair, attributes) = line.split_once(';').unwrap();
            let (name, value) = pair.split_once('=').unwrap();
            let age = attributes.split("Max-Age=").nth(1);
            let age = age.map(|age| age.split(';').next().unwrap().parse::<u64>().unwrap());
            let is_removed = age == Some(0);
            match name {
                COOKIE => self.session = (!is_removed).then(|| value.to_string()),
                BOUND => {
                    let until = now + Duration::from_secs(age.unwrap());
                    self.bound = (!is_removed).then(|| (value.to_string(), until));
                }
                other => panic!("{other}"),
            }
        }
    }
}

/// What happens to the answers of a request, as a seed says.
#[derive(Clone, Copy, Debug)]
struct Luck {
    process: usize,
    /// The connection is closed after so many polls.
    most_polls: usize,
    /// Also the connections on which the browser tries again.
    stays_bad: bool,
    /// The request is started by a page of another site.
    is_link: bool,
}

struct Browser {
    jar: RefCell<Jar>,
    bindings: RefCell<Vec<Binding>>,
    /// Requests wait for the refresh that another one has started.
    refreshing: tokio::sync::Mutex<()>,
    keys: Cell<u8>,
    /// A registration's answer is lost for good: its session may be bound to a key that the browser has dropped.
    has_lost_registration: Cell<bool>,
    /// A process that knows nothing of bindings has answered a refresh, and the browser has forgotten the key.
    has_lost_key: Cell<bool>,
}

struct World {
    processes: Vec<Process>,
    /// So many of them ask for a device.
    binding: usize,
    store: Unsteady,
    clocks: Vec<ManualClock>,
    /// What has happened, to be told of a case that fails.
    trace: RefCell<Vec<String>>,
}

impl World {
    fn now(&self) -> SystemTime {
        self.clocks[0].now()
    }

    fn note(&self, what: String) {
        self.trace.borrow_mut().push(what);
    }

    async fn send(
        &self,
        luck: Luck,
        method: Method,
        path: &str,
        headers: &[(&str, String)],
    ) -> Option<Reply> {
        let app = &self.processes[luck.process].app;
        let reply = polled(call(app, method.clone(), path, headers), luck.most_polls).await;
        let outcome = reply.as_ref().map(|reply| {
            let has = |name| reply.headers.contains_key(name);
            let (cookie, offer) = (has("set-cookie"), has("secure-session-registration"));
            format!("{} {:?}, cookie: {cookie}, offer: {offer}", reply.status, reply.body)
        });
        self.note(format!("  {method} {path} at {} -> {outcome:?}", luck.process));
        reply
    }

    /// As a browser does it that has sent a request on a connection that is closed: three times.
    async fn send_again(
        &self,
        luck: Luck,
        path: &str,
        headers: &[(&str, String)],
    ) -> Option<Reply> {
        for attempt in 0..3 {
            let most_polls =
                if attempt == 0 || luck.stays_bad { luck.most_polls } else { usize::MAX };
            let luck = Luck { most_polls, ..luck };
            if let Some(reply) = self.send(luck, Method::POST, path, headers).await {
                return Some(reply);
            }
        }
        None
    }
}

fn signed(key: &SigningKey, header: &str, challenge: &str) -> String {
    let claims = format!(r#"{{"jti":"{challenge}"}}"#);
    let signed = format!("{}.{}", BASE64.encode(header), BASE64.encode(claims));
    let signature: Signature = key.sign(signed.as_bytes());
    format!("{signed}.{}", BASE64.encode(signature.to_bytes()))
}

fn challenge_in(headers: &HeaderMap) -> Option<String> {
    let header = headers.get("secure-session-challenge")?.to_str().unwrap();
    Some(header.strip_prefix('"').unwrap().split('"').next().unwrap().to_string())
}

impl Browser {
    fn new() -> Self {
        Self {
            jar: RefCell::default(),
            bindings: RefCell::default(),
            refreshing: tokio::sync::Mutex::new(()),
            keys: Cell::new(1),
            has_lost_registration: Cell::new(false),
            has_lost_key: Cell::new(false),
        }
    }

    fn drop_old_cookies(&self, now: SystemTime) {
        self.jar.borrow_mut().bound.take_if(|(_, until)| *until <= now);
    }

    /// A request of a page, with the refresh that goes before it, and the registration that comes after it.
    async fn request(
        &self,
        world: &World,
        luck: Luck,
        method: Method,
        path: &str,
    ) -> Option<Reply> {
        self.drop_old_cookies(world.now());
        let mut headers = Vec::new();
        let lacks_cookie = || {
            self.drop_old_cookies(world.now());
            self.jar.borrow().bound.is_none() && !self.bindings.borrow().is_empty()
        };
        if lacks_cookie() {
            let _one = self.refreshing.lock().await;
            while lacks_cookie() {
                if !self.refresh(world, luck).await {
                    headers.push(("secure-session-skipped", "server_error".to_string()));
                    break;
                }
            }
        }
        headers.extend(self.jar.borrow().header());
        let reply = world.send(luck, method, path, &headers).await?;
        self.jar.borrow_mut().keep(&reply.headers, world.now());
        if let Some(offer) = reply.headers.get("secure-session-registration") {
            self.register(world, luck, offer.to_str().unwrap()).await;
        }
        Some(reply)
    }

    /// False if it could not be done just now.
    async fn refresh(&self, world: &World, luck: Luck) -> bool {
        for _ in 0..5 {
            let Some(mut binding) = self.bindings.borrow().first().cloned() else { return true };
            let mut headers = vec![("sec-secure-session-id", binding.id.clone())];
            if !luck.is_link {
                headers.extend(self.jar.borrow().header());
            }
            if let Some(challenge) = binding.challenge.take() {
                let header = r#"{"alg":"ES256","typ":"dbsc+jwt"}"#;
                let proof = signed(&binding.key, header, &challenge);
                headers.push(("secure-session-response", proof));
            }
            let Some(reply) = world.send_again(luck, REFRESH, &headers).await else { return false };
            self.jar.borrow_mut().keep(&reply.headers, world.now());
            let mut bindings = self.bindings.borrow_mut();
            let Some(at) = bindings.iter().position(|it| it.id == binding.id) else { continue };
            match reply.status.as_u16() {
                200 => {
                    if let Some(challenge) = challenge_in(&reply.headers) {
                        bindings[at].challenge = Some(challenge);
                    }
                    return true;
                }
                403 => bindings[at].challenge = Some(challenge_in(&reply.headers).unwrap()),
                500..600 => return false,
                status => {
                    if status == 404 {
                        self.has_lost_key.set(true);
                    }
                    bindings.remove(at);
                    return true;
                }
            }
        }
        panic!("five challenges");
    }

    async fn register(&self, world: &World, luck: Luck, offer: &str) {
        let number = self.keys.get();
        self.keys.set(number + 1);
        let key = SigningKey::from_slice(&[number; 32]).unwrap();
        let point = key.verifying_key().to_sec1_point(false);
        let (x, y) = point.as_bytes()[1..].split_at(32);
        let (x, y) = (BASE64.encode(x), BASE64.encode(y));
        let header = format!(
            r#"{{"alg":"ES256","jwk":{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}},"typ":"dbsc+jwt"}}"#
        );
        let proof = signed(&key, &header, parameter(offer, "challenge"));
        let mut headers = vec![("secure-session-response", proof)];
        headers.extend(self.jar.borrow().header());
        let path = parameter(offer, "path").to_string();
        let Some(reply) = world.send_again(luck, &path, &headers).await else {
            self.has_lost_registration.set(true);
            return;
        };
        self.jar.borrow_mut().keep(&reply.headers, world.now());
        if reply.status == StatusCode::OK {
            let instructions: Value = serde_json::from_str(&reply.body).unwrap();
            let id = instructions["session_identifier"].as_str().unwrap().to_string();
            let challenge = challenge_in(&reply.headers);
            self.bindings.borrow_mut().push(Binding { id, key, challenge });
        }
    }
}

/// A copy of a browser's cookies, and when its device had proved itself.
struct Stolen {
    jar: Jar,
    proven_at: Option<SystemTime>,
}

impl Stolen {
    fn from(browser: &Browser) -> Self {
        let jar = browser.jar.borrow().clone();
        let proven_at = jar.bound.as_ref().map(|(value, _)| {
            let bytes = BASE64.decode(value).unwrap();
            let millis = u64::from_be_bytes(bytes[16..24].try_into().unwrap());
            UNIX_EPOCH + Duration::from_millis(millis)
        });
        Self { jar, proven_at }
    }

    /// Uses the copy, with what was copied and what a browser may say.
    async fn use_it(&self, world: &World, random: &mut Random) {
        let process = &world.processes[random.below(world.binding)];
        let alone = Jar { bound: None, ..self.jar.clone() };
        let shown = call(&process.looking, Method::GET, "/", &alone.header()).await;
        let mut headers = self.jar.header();
        if random.below(3) == 0 {
            headers.push(("secure-session-skipped", "unreachable".to_string()));
        }
        let path = *random.pick(&["/who", "/visit"]);
        let reply = call(&process.app, Method::GET, path, &headers).await;
        let is_bound = shown.body.starts_with("Unproven");
        let is_over = self.proven_at.is_none_or(|at| world.now() >= at + LIFETIME + SKEW);
        if is_bound && is_over {
            assert!(!reply.body.contains("Some(7)"), "a thief has the session: {}", reply.body);
        }
    }
}

/// By how much the clocks of the two processes differ at most.
const SKEW: Duration = Duration::from_secs(30);

/// What the browser was told.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Told {
    LoggedIn,
    LoggedOut,
    /// Whatever: an answer is lost that mattered, or two have changed the session at once.
    Nothing,
}

struct History {
    world: World,
    browser: Browser,
    told: Told,
    /// Visits that were acknowledged since the last login.
    visits: u32,
    stolen: Vec<Stolen>,
    /// Cookies of sessions that were logged out.
    ended: Vec<String>,
}

impl History {
    /// `other`: what the second process does about devices.
    fn new(random: &mut Random, other: Binds) -> Self {
        let clocks = vec![ManualClock::new(), ManualClock::new()];
        if random.below(3) == 0 {
            // What is left of a session tells for ten seconds that it goes on elsewhere.
            let most = if other == Binds::Nothing { SKEW / 6 } else { SKEW };
            clocks[random.below(2)].advance(most);
        }
        let store = Unsteady {
            store: MemoryStore::builder()
                .with_sweep_interval(Duration::from_secs(3_600))
                .with_clock(&clocks[0])
                .build(),
            random: Arc::new(Mutex::new(Random(random.next()))),
            faults: Arc::default(),
        };
        let keys = Keys::generate();
        let processes = clocks.iter().zip([Binds::Yes, other]);
        let processes =
            processes.map(|(clock, binds)| Process::new(&store, &keys, clock, binds)).collect();
        let binding = if other == Binds::Nothing { 1 } else { 2 };
        let world = World { processes, binding, store, clocks, trace: RefCell::default() };
        Self {
            world,
            browser: Browser::new(),
            told: Told::LoggedOut,
            visits: 0,
            stolen: Vec::new(),
            ended: Vec::new(),
        }
    }

    async fn round(&mut self, random: &mut Random) {
        let faults = *random.pick(&[0, 0, 5, 30]);
        self.world.store.faults.store(faults, SeqCst);
        let tabs = 1 + random.below(3);
        let mut changes = 0;
        let requests: Vec<_> = (0..tabs)
            .map(|_| {
                let changes_already = if changes > 0 { 12 } else { 0 };
                let (method, path) = match random.below(16 + changes_already) {
                    0..5 if self.told != Told::LoggedIn => (Method::POST, "/login"),
                    0 | 1 => (Method::POST, "/login"),
                    2 => (Method::POST, "/logout"),
                    3 | 4 => (Method::POST, "/renew"),
                    5..10 => (Method::GET, "/page"),
                    10..16 => (Method::GET, "/who"),
                    _ => (Method::GET, "/visit"),
                };
                // Beside a login, what begins a session of its own may have the last word.
                let may_begin = self.told != Told::LoggedIn && path != "/who";
                changes += usize::from(method == Method::POST || may_begin);
                let most_polls =
                    if random.below(8) == 0 { 1 + random.below(30) } else { usize::MAX };
                let luck = Luck {
                    process: random.below(2),
                    most_polls,
                    stays_bad: random.below(4) == 0,
                    is_link: random.below(5) == 0,
                };
                (method, path, luck)
            })
            .collect();
        self.world.note(format!("round with {faults} faults: {requests:?}"));
        let sent = self.browser.jar.borrow().session.clone();
        let (browser, world) = (&self.browser, &self.world);
        let replies = requests
            .iter()
            .map(|(method, path, luck)| browser.request(world, *luck, method.clone(), path));
        let replies = join_all(replies.collect()).await;
        for ((method, path, _), reply) in requests.iter().zip(replies) {
            self.note(method, path, reply, changes, sent.as_deref());
        }
        if self.browser.has_lost_registration.take() || self.browser.has_lost_key.take() {
            self.told = Told::Nothing;
        }
    }

    /// Whatever has become of a key, its user can log in anywhere, and is logged in everywhere.
    async fn log_in_again(&mut self, random: &mut Random) {
        self.world.store.faults.store(0, SeqCst);
        self.world.note("logs in again".to_string());
        let luck =
            |process| Luck { process, most_polls: usize::MAX, stays_bad: false, is_link: false };
        let (browser, world) = (&self.browser, &self.world);
        // A browser whose bound cookie is not good any more loses that cookie with this request.
        browser.request(world, luck(0), Method::GET, "/who").await.unwrap();
        let process = random.below(2);
        let reply = browser.request(world, luck(process), Method::POST, "/login").await.unwrap();
        assert_eq!(reply.status, StatusCode::OK, "{}", reply.body);
        browser.has_lost_key.set(false);
        self.told = Told::LoggedIn;
        self.visits = 0;
    }

    fn note(
        &mut self,
        method: &Method,
        path: &str,
        reply: Option<Reply>,
        changes: usize,
        sent: Option<&str>,
    ) {
        let is_done = reply.as_ref().is_some_and(|reply| reply.status == StatusCode::OK);
        if *method == Method::GET {
            let is_users = reply.is_some_and(|reply| reply.body.starts_with("Some(7)"));
            self.visits += u32::from(is_done && is_users && path == "/visit" && changes == 0);
            return;
        }
        self.told = match (path, is_done) {
            _ if changes > 1 => Told::Nothing,
            ("/login", true) => {
                self.visits = 0;
                Told::LoggedIn
            }
            ("/logout", true) => {
                self.ended.extend(sent.map(ToString::to_string));
                Told::LoggedOut
            }
            ("/renew", true) => self.told,
            // Its answer is lost, and so may be the cookie; or it has failed half-way.
            _ => Told::Nothing,
        };
    }

    /// With a sound store and sound connections.
    async fn look(&mut self, random: &mut Random) {
        self.world.store.faults.store(0, SeqCst);
        for process in &self.world.processes {
            process.layer.wait_for_background_saves().await;
        }
        let luck = Luck {
            process: random.below(2),
            most_polls: usize::MAX,
            stays_bad: false,
            is_link: false,
        };
        self.world.note(format!("look, told {:?}", self.told));
        let mut body = String::new();
        // A browser whose bound cookie is not good any more loses that cookie with this request.
        for _ in 0..2 {
            let path = *random.pick(&["/who", "/page"]);
            self.browser.request(&self.world, luck, Method::GET, path).await.unwrap();
            let reply = self.browser.request(&self.world, luck, Method::GET, "/who").await.unwrap();
            body = reply.body;
            if body.starts_with("Some(7)") {
                break;
            }
        }
        self.shows_what_was_told(&body);
        for cookie in &self.ended {
            let jar = Jar { session: Some(cookie.clone()), bound: None };
            let app = &self.world.processes[random.below(2)].looking;
            let shown = call(app, Method::GET, "/", &jar.header()).await;
            assert!(!shown.body.contains("Some(7)"), "back: {}", shown.body);
        }
        for stolen in &self.stolen {
            stolen.use_it(&self.world, random).await;
        }
    }

    /// Fails if a page contradicts what the browser was told before.
    fn shows_what_was_told(&self, body: &str) {
        match self.told {
            Told::LoggedIn => {
                let visits = body.strip_prefix("Some(7) ");
                let visits: u32 =
                    visits.unwrap_or_else(|| self.fail("logged out")).parse().unwrap();
                assert!(visits >= self.visits, "{visits} of {} visits", self.visits);
            }
            Told::LoggedOut if body.starts_with("Some") => self.fail("logged in"),
            _ => {}
        }
    }

    /// [`look`](Self::look), unless the browser loses its key over it; says whether it has.
    async fn look_while_deploying(&mut self, random: &mut Random) -> bool {
        let luck = Luck { process: 0, most_polls: usize::MAX, stays_bad: false, is_link: false };
        self.world.store.faults.store(0, SeqCst);
        let is_at_binding = random.below(2) == 0;
        let luck = Luck { process: usize::from(!is_at_binding), ..luck };
        let mut body = String::new();
        for _ in 0..2 {
            let reply = self.browser.request(&self.world, luck, Method::GET, "/who").await.unwrap();
            assert_eq!(reply.status, StatusCode::OK);
            body = reply.body;
        }
        let has_lost_key = self.browser.has_lost_key.take();
        // A browser that has lost its key may be logged out at the process that binds. The process that asks for no
        // device has the session all the same.
        if !(has_lost_key && is_at_binding && matches!(self.told, Told::LoggedIn)) {
            self.shows_what_was_told(&body);
        }
        for stolen in &self.stolen {
            stolen.use_it(&self.world, random).await;
        }
        if has_lost_key {
            self.told = Told::Nothing;
        }
        has_lost_key
    }

    fn fail(&self, what: &str) -> ! {
        for line in self.world.trace.borrow().iter() {
            println!("{line}");
        }
        panic!("the browser is {what}");
    }

    fn wait(&self, random: &mut Random) {
        let seconds = *random.pick(&[0, 1, 12, 50, 70, 130, 480, 585, 595, 605, 700, 1_300]);
        self.world.note(format!("{seconds} seconds"));
        for clock in &self.world.clocks {
            clock.advance(Duration::from_secs(seconds));
        }
    }
}

async fn join_all<F: Future>(futures: Vec<F>) -> Vec<F::Output> {
    let mut futures: Vec<_> = futures.into_iter().map(Box::pin).collect();
    let mut outputs: Vec<_> = futures.iter().map(|_| None).collect();
    poll_fn(|cx| {
        for (future, output) in futures.iter_mut().zip(&mut outputs) {
            if output.is_none()
                && let Poll::Ready(it) = future.as_mut().poll(cx)
            {
                *output = Some(it);
            }
        }
        match outputs.iter().all(Option::is_some) {
            true => Poll::Ready(outputs.drain(..).flatten().collect()),
            false => Poll::Pending,
        }
    })
    .await
}

#[test]
fn a_device_keeps_its_session_and_a_thief_does_not() {
    let looks = Cell::new([0_u32; 3]);
    for_all("devices", 100, async |random| {
        let other = *random.pick(&[Binds::Yes, Binds::Yes, Binds::WhatIsBound]);
        let mut history = History::new(random, other);
        for _ in 0..12 {
            history.round(random).await;
            if random.below(3) == 0 && history.stolen.len() < 4 {
                history.stolen.push(Stolen::from(&history.browser));
            }
            history.wait(random);
            if random.below(2) == 0 {
                history.look(random).await;
                let mut counts = looks.get();
                counts[history.told as usize] += 1;
                looks.set(counts);
            }
        }
        history.look(random).await;
    });
    let looks = looks.get();
    println!("{looks:?}");
    assert!(looks.iter().all(|count| *count > 0), "{looks:?}");
}

/// A deploy that begins to bind, or goes back from that, and has not reached one of two processes.
#[test]
fn beside_a_process_that_knows_of_no_bindings_nothing_is_lost_that_a_login_does_not_mend() {
    let keys_lost = Cell::new([0_u32; 2]);
    for_all("devices_deploy", 100, async |random| {
        let mut history = History::new(random, Binds::Nothing);
        for _ in 0..12 {
            history.round(random).await;
            if random.below(3) == 0 && history.stolen.len() < 4 {
                history.stolen.push(Stolen::from(&history.browser));
            }
            history.wait(random);
            if history.told == Told::Nothing {
                history.log_in_again(random).await;
            }
            let is_lost = history.look_while_deploying(random).await;
            let mut counts = keys_lost.get();
            counts[usize::from(is_lost)] += 1;
            keys_lost.set(counts);
        }
    });
    let keys_lost = keys_lost.get();
    println!("{keys_lost:?}");
    assert!(keys_lost.iter().all(|count| *count > 0), "{keys_lost:?}");
}
