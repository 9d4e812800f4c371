//! Sessions that Chromium binds to its device (Device Bound Session Credentials), with a key in software,
//! over HTTPS: nginx stands before the application, with a certificate made for the test.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    thread::sleep,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use axum::{
    Router,
    extract::Request,
    http::{StatusCode, header},
    middleware::{Next, from_fn},
    response::{Html, Response},
    routing::{get, post},
};
use serde_json::{Value, json};
use sessions::{
    DeviceBinding, Keys, MemoryStore, Session, SessionLayer,
    testing::{ManualClock, Operation, SpyStore},
};
use sessions_tests::{
    Client, Server,
    nginx::{Certificate, Nginx},
};
use tokio::runtime::Runtime;

use crate::webdriver::Browser;

const COOKIE: &str = "__Host-id";
const BOUND: &str = "__Host-id-device";
const MINUTE: Duration = Duration::from_secs(60);

#[derive(Session)]
struct Customer {
    #[session(user)]
    user: Option<u64>,
    visits: u32,
}

/// What has come in at the layer's own paths.
#[derive(Default)]
struct Seen {
    registrations: AtomicUsize,
    /// With a proof, and good.
    refreshes: AtomicUsize,
    refused: AtomicUsize,
    /// Refreshes with a signature.
    proofs: AtomicUsize,
    /// Requests that a browser says it has made no refresh for.
    skipped: AtomicUsize,
    /// Of whatever kind, the icon left out.
    requests: AtomicUsize,
    /// Pages that ask for themselves again.
    asked_again: AtomicUsize,
}

/// An application behind TLS, and a browser in front of it.
struct Site {
    browser: Browser,
    seen: Arc<Seen>,
    store: SpyStore<MemoryStore>,
    clock: ManualClock,
    server: Server,
    nginx: Nginx,
    /// A page of another site.
    elsewhere: Server,
    _runtime: Runtime,
}

async fn page(session: Session<Customer>) -> Html<String> {
    let user = session.read().await.user();
    Html(format!(
        "<title>page</title><p id=who>{user:?}</p><form method=post action=/form>\
         <input name=words value='a b'><button>Send</button></form>"
    ))
}

async fn login(session: Session<Customer>) -> sessions::Result<Html<&'static str>> {
    session.login(7).await?;
    Ok(Html("<title>login</title><p id=who>welcome</p>"))
}

async fn logout(session: Session<Customer>) -> sessions::Result<Html<&'static str>> {
    session.logout().await?;
    Ok(Html("<title>logout</title>"))
}

async fn who(session: Session<Customer>) -> String {
    format!("{:?}", session.read().await.user())
}

/// Says what has arrived, and from whom.
async fn form(session: Session<Customer>, body: String) -> Html<String> {
    let mut s = session.write().await;
    *s.visits_mut() += 1;
    Html(format!("<title>form</title><p id=who>{:?} {body} {}</p>", s.user(), s.visits))
}

impl Site {
    fn start(name: &str, binding: DeviceBinding) -> Option<Self> {
        Self::start_in(name, binding, true)
    }

    /// `knows`: the browser knows of such sessions.
    fn start_in(name: &str, binding: DeviceBinding, knows: bool) -> Option<Self> {
        let certificate = Certificate::new();
        let mut flags =
            vec![format!("--ignore-certificate-errors-spki-list={}", certificate.key_hash)];
        if knows {
            let features =
                "DeviceBoundSessions,EnableBoundSessionCredentialsSoftwareKeysForManualTesting";
            flags.push(format!("--enable-features={features}"));
        }
        let browser = Browser::start_flagged(name, flags)?;
        let clock = ManualClock::new();
        let store = SpyStore::new(MemoryStore::builder().with_clock(&clock).build());
        let layer = SessionLayer::<Customer>::builder(store.clone(), Keys::generate())
            .with_clock(&clock)
            .with_persistent_cookie()
            .bind_to_device(binding)
            .build()
            .expect("possible settings");
        let seen = Arc::new(Seen::default());
        let counting = seen.clone();
        let count =
            from_fn(move |request: Request, next: Next| count(counting.clone(), request, next));
        let app = Router::new()
            .route("/", get(page))
            .route("/login", get(login))
            .route("/logout", get(logout))
            .route("/who", get(who))
            .route("/form", post(form))
            .route("/favicon.ico", get(async || StatusCode::NO_CONTENT))
            .layer(layer)
            .layer(count);
        let runtime = Runtime::new().expect("a runtime");
        let (server, elsewhere) = runtime.block_on(async {
            let other = Router::new().route("/", get(async || Html("<title>elsewhere</title>")));
            (Server::start(app).await, Server::start(other).await)
        });
        let nginx = Nginx::start_with_tls(server.client().address(), &certificate)?;
        // nginx has read it.
        drop(certificate);
        Some(Self { browser, seen, store, clock, server, nginx, elsewhere, _runtime: runtime })
    }

    fn address(&self, path: &str) -> String {
        format!("https://localhost:{}{path}", self.nginx.address().port())
    }

    fn open(&self, path: &str) -> String {
        self.browser.go(&self.address(path));
        self.shown()
    }

    /// Who the page that is open says that it is for.
    fn shown(&self) -> String {
        let shown = self.browser.script("return document.querySelector('#who')?.innerText ?? ''");
        shown.as_str().expect("text").to_string()
    }

    fn bind(&self) {
        assert_eq!(self.open("/login"), "welcome");
        eventually("the browser registers", || self.seen.registrations.load(SeqCst) == 1);
        eventually("the browser has the cookie", || self.cookie(BOUND).is_some());
    }

    fn cookies(&self) -> Vec<Value> {
        let cookies = self.browser.devtools("Network.getAllCookies", json!({}));
        cookies["cookies"].as_array().expect("a list").clone()
    }

    fn cookie(&self, name: &str) -> Option<String> {
        let cookies = self.cookies();
        let cookie = cookies.iter().find(|cookie| cookie["name"] == name)?;
        Some(cookie["value"].as_str().expect("text").to_string())
    }

    /// As after ten minutes.
    fn lose_the_bound_cookie(&self) {
        let cookie = json!({ "name": BOUND, "url": self.address("/") });
        self.browser.devtools("Network.deleteCookies", cookie);
        assert_eq!(self.cookie(BOUND), None);
    }

    /// As if the browser had had it for longer.
    fn shorten_the_bound_cookie(&self, seconds: u64) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock that is right");
        let cookie = json!({
            "name": BOUND, "value": self.cookie(BOUND).expect("a cookie"), "url": self.address("/"),
            "path": "/", "secure": true, "httpOnly": true, "sameSite": "Lax",
            "expires": now.as_secs() + seconds,
        });
        let done = self.browser.devtools("Network.setCookie", cookie);
        assert_eq!(done["success"], true, "{done}");
    }

    fn refreshes(&self) -> usize {
        self.seen.refreshes.load(SeqCst)
    }

    /// Another client, with copies of the browser's cookies.
    fn thief(&self) -> Client {
        let thief = self.server.client();
        for name in [COOKIE, BOUND] {
            thief.set_cookie(name, self.cookie(name).as_deref());
        }
        thief
    }

    fn who_is(&self, client: &Client) -> String {
        self._runtime.block_on(async { client.get("/who").await.text().to_string() })
    }
}

async fn count(seen: Arc<Seen>, request: Request, next: Next) -> Response {
    let path = request.uri().path().to_string();
    if path != "/favicon.ico" {
        seen.requests.fetch_add(1, SeqCst);
    }
    if path == "/device-binding/refresh"
        && request.headers().contains_key("secure-session-response")
    {
        seen.proofs.fetch_add(1, SeqCst);
    }
    if request.headers().contains_key("secure-session-skipped") {
        seen.skipped.fetch_add(1, SeqCst);
    }
    let response = next.run(request).await;
    if response.headers().contains_key(header::REFRESH) {
        seen.asked_again.fetch_add(1, SeqCst);
    }
    let counted = match (path.as_str(), response.status().as_u16()) {
        ("/device-binding/register", 200) => &seen.registrations,
        ("/device-binding/refresh", 200) => &seen.refreshes,
        ("/device-binding/refresh", _) => &seen.refused,
        _ => return response,
    };
    counted.fetch_add(1, SeqCst);
    response
}

fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < Duration::from_secs(20), "it never came true that {what}");
        sleep(Duration::from_millis(20));
    }
}

#[test]
fn chromium_binds_a_session_and_refreshes_it_before_whatever_it_asks_for() {
    let Some(mut site) = Site::start("bound", DeviceBinding::new()) else { return };
    site.bind();
    assert_eq!(site.open("/"), "Some(7)");
    assert_eq!(site.refreshes(), 0, "there is nothing to refresh yet");
    // Past the minute in which a request needs no bound cookie.
    site.clock.advance(2 * MINUTE);

    site.lose_the_bound_cookie();
    assert_eq!(site.open("/"), "Some(7)", "a page waits for the refresh");
    assert_eq!(
        (site.refreshes(), site.seen.refused.load(SeqCst)),
        (1, 0),
        "with the challenge at hand"
    );
    site.lose_the_bound_cookie();
    let fetched = site.browser.script("return await (await fetch('/who')).text()");
    assert_eq!((fetched, site.refreshes()), (json!("Some(7)"), 2));
    site.lose_the_bound_cookie();
    site.browser.follow("form button");
    assert_eq!((site.shown().as_str(), site.refreshes()), ("Some(7) words=a+b 1", 3));

    site.lose_the_bound_cookie();
    let five = "return await Promise.all([1, 2, 3, 4, 5].map(
        async () => (await fetch('/who')).text()))";
    assert_eq!(
        site.browser.script(five),
        json!(["Some(7)", "Some(7)", "Some(7)", "Some(7)", "Some(7)"])
    );
    assert_eq!(site.refreshes(), 4, "five requests wait for one refresh");

    // An hour later the challenge is too old, and the answer has another one.
    site.clock.advance(60 * MINUTE);
    site.lose_the_bound_cookie();
    assert_eq!(site.open("/"), "Some(7)");
    assert_eq!((site.refreshes(), site.seen.refused.load(SeqCst)), (5, 1));
    assert_eq!(site.seen.registrations.load(SeqCst), 1, "one key for all of it");

    site.lose_the_bound_cookie();
    site.browser.restart();
    assert_eq!(site.open("/"), "Some(7)", "session and key are there after a restart");
    assert_eq!(site.refreshes(), 6);
    let complaints = site.browser.complaints();
    assert!(complaints.is_empty(), "{complaints:?}");
}

#[test]
fn a_link_of_another_site_finds_the_session_with_a_refresh_before_or_after() {
    let nobody: [&str; 0] = [];
    for (name, binding, asked_again) in [
        ("link-all", DeviceBinding::new(), 0),
        ("link-none", DeviceBinding::new().with_refresh_initiators(nobody), 1),
    ] {
        let Some(site) = Site::start(name, binding) else { return };
        site.bind();
        site.clock.advance(2 * MINUTE);
        site.lose_the_bound_cookie();
        let elsewhere = format!("http://127.0.0.1:{}/", site.elsewhere.client().address().port());
        site.browser.go(&elsewhere);
        let link = format!(
            "const link = document.createElement('a'); link.href = '{}';
             document.body.append(link); link.click()",
            site.address("/")
        );
        site.browser.follow_script(&link);
        // The page that asks for itself again leads there, too.
        eventually("the page is there", || site.shown() == "Some(7)");
        assert_eq!(site.refreshes(), 1, "{name}");
        assert_eq!(site.seen.asked_again.load(SeqCst), asked_again, "{name}");
    }
}

/// A bound cookie of three minutes has less than two left after one, and then Chromium refreshes it with every
/// page. It gets a challenge when half a minute is left, or it would have signed too often after the sixth page.
#[test]
fn chromium_signs_for_a_cookie_of_three_minutes_only_when_it_is_due() {
    let Some(site) = Site::start("short", DeviceBinding::new().with_lifetime(3 * MINUTE)) else {
        return;
    };
    site.bind();
    site.clock.advance(MINUTE);
    for _ in 0..12 {
        let before = site.refreshes();
        site.shorten_the_bound_cookie(100);
        assert_eq!(site.open("/"), "Some(7)");
        eventually("the browser asks for another cookie", || site.refreshes() > before);
    }
    let count = |of: &AtomicUsize| of.load(SeqCst);
    let Seen { proofs, refused, skipped, .. } = &*site.seen;
    assert_eq!((count(proofs), count(refused), count(skipped)), (0, 0, 0));
    // And then it is due, two and a half minutes after the last proof.
    for proof in 1..=3 {
        let before = site.refreshes();
        site.clock.advance(Duration::from_secs(if proof == 1 { 90 } else { 150 }));
        site.shorten_the_bound_cookie(20);
        assert_eq!(site.open("/"), "Some(7)");
        eventually("the browser proves itself", || count(proofs) == proof);
        eventually("it has the cookie", || site.refreshes() > before);
        assert_eq!((count(refused), count(skipped)), (proof, 0));
    }
}

/// As after a restart without the session's cookie, which did not outlast it: the browser has kept the key.
#[test]
fn chromium_with_two_bindings_goes_on_with_that_of_its_session() {
    let Some(site) = Site::start("two-bindings", DeviceBinding::new()) else { return };
    site.bind();
    let cookie = json!({ "name": COOKIE, "url": site.address("/") });
    site.browser.devtools("Network.deleteCookies", cookie);
    assert_eq!(site.open("/login"), "welcome");
    eventually("the browser registers again", || site.seen.registrations.load(SeqCst) == 2);
    site.clock.advance(2 * MINUTE);
    for _ in 0..3 {
        site.lose_the_bound_cookie();
        assert_eq!(site.open("/"), "Some(7)");
    }
    assert_eq!(site.refreshes(), 3);
    // Whichever Chromium asks for first: the first binding at most once.
    assert!(site.seen.refused.load(SeqCst) <= 1);
    let complaints = site.browser.complaints();
    assert!(complaints.is_empty(), "{complaints:?}");
}

#[test]
fn a_store_that_is_down_for_a_while_costs_chromium_no_key_and_a_logout_does() {
    let Some(site) = Site::start("store-down", DeviceBinding::new()) else { return };
    site.bind();
    site.clock.advance(2 * MINUTE);
    site.lose_the_bound_cookie();
    site.store.fail(Operation::Load);
    assert_eq!(site.open("/"), "", "the page is a 503");
    assert_eq!(site.refreshes(), 0);
    site.store.heal(Operation::Load);
    assert_eq!(site.open("/"), "Some(7)");
    assert_eq!(site.refreshes(), 1);

    let refused = site.seen.refused.load(SeqCst);
    site.open("/logout");
    assert_eq!((site.cookie(COOKIE), site.cookie(BOUND)), (None, None));
    assert_eq!(site.open("/"), "None");
    assert_eq!(site.cookie(BOUND), None, "the refresh has not brought it back");
    let told = site.seen.refused.load(SeqCst);
    assert!(told > refused, "the browser was told that it is over");
    for _ in 0..3 {
        assert_eq!(site.open("/"), "None");
    }
    assert_eq!(site.seen.refused.load(SeqCst), told, "and does not ask any more");

    // A new login is bound again.
    assert_eq!(site.open("/login"), "welcome");
    eventually("the browser registers again", || site.seen.registrations.load(SeqCst) == 2);
}

#[test]
fn cookies_that_are_copied_from_chromium_open_nothing_after_ten_minutes() {
    let Some(site) = Site::start("thief", DeviceBinding::new()) else { return };
    site.bind();
    let thief = site.thief();
    let mut minutes = 0;
    while site.who_is(&thief) == "Some(7)" {
        minutes += 1;
        assert!(minutes <= 10, "the copy is good for {minutes} minutes and more");
        site.clock.advance(MINUTE);
    }
    println!("the copy was good for less than {minutes} minutes");
    assert_eq!(minutes, 10);
    for _ in 0..3 {
        // To the browser, ten minutes are over.
        site.lose_the_bound_cookie();
        assert_eq!(site.open("/"), "Some(7)", "the owner goes on");
        assert_eq!(site.who_is(&thief), "None");
        site.clock.advance(30 * MINUTE);
    }
    assert_eq!(site.seen.registrations.load(SeqCst), 1);
}

/// Login, reload, a form, `fetch` and logout, and an hour in between: the requests are those that the pages
/// make, and no more.
#[test]
fn a_chromium_that_knows_nothing_of_it_notices_nothing() {
    let Some(site) = Site::start_in("unaware", DeviceBinding::new(), false) else { return };
    assert_eq!(site.open("/login"), "welcome");
    for _ in 0..3 {
        assert_eq!(site.open("/"), "Some(7)");
        site.browser.follow_script("location.reload()");
        assert_eq!(site.shown(), "Some(7)");
        site.clock.advance(20 * MINUTE);
    }
    let fetched = site.browser.script("return await (await fetch('/who')).text()");
    assert_eq!(fetched, json!("Some(7)"));
    site.browser.follow("form button");
    assert_eq!(site.shown(), "Some(7) words=a+b 1");
    let names: Vec<_> = site.cookies().iter().map(|cookie| cookie["name"].clone()).collect();
    assert_eq!(names, [COOKIE]);
    site.open("/logout");
    assert_eq!(site.open("/"), "None");
    assert_eq!(site.cookies(), Vec::<Value>::new());
    let pages = 1 + 3 * 2 + 2 + 2;
    assert_eq!(site.seen.requests.load(SeqCst), pages);
    assert_eq!((site.seen.registrations.load(SeqCst), site.refreshes()), (0, 0));
    let complaints = site.browser.complaints();
    assert!(complaints.is_empty(), "{complaints:?}");
}
