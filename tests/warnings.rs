//! What is logged once: for the whole process, or for one request. In a process of its own, because the
//! log is the whole process's.

use std::{
    io,
    sync::{Arc, LazyLock, Mutex},
    time::Duration,
};

use axum::{Router, routing::get};
use http::Request;
use http_body_util::Full;
use sessions::{
    Keys, Lifetime, MemoryStore, Session, SessionLayer, SessionLayerBuilder, testing::TestClient,
};
use sessions_tests::{Client, Server};

#[derive(Session)]
struct Visitor {
    visits: u32,
}

async fn visit(session: Session<Visitor>) {
    *session.write().await.visits_mut() += 1;
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    fn lines(&self, words: &str) -> Vec<String> {
        let log = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        log.lines().filter(|line| line.contains(words)).map(String::from).collect()
    }
}

fn log() -> Log {
    static LOG: LazyLock<Log> = LazyLock::new(|| {
        let log = Log::default();
        let writer = log.clone();
        tracing_subscriber::fmt()
            .with_max_level(tracing::Level::DEBUG)
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .init();
        log
    });
    LOG.clone()
}

async fn serve() -> Server {
    let layer = SessionLayer::<Visitor>::new(MemoryStore::new(), Keys::generate());
    Server::start(Router::new().route("/", get(visit)).fallback(visit).layer(layer)).await
}

/// A request as this browser sends it: `page` and `icon` for what is asked for, `link` for where from.
async fn ask(client: &Client, agent: &str, kind: &str) {
    let here = format!("http://{}/", client.address());
    let mut request = Request::get(if kind == "icon" { "/favicon.ico" } else { "/" });
    request = request.header("user-agent", agent);
    if !agent.starts_with("curl") {
        request = request.header("accept-language", "en");
    }
    request = match kind {
        "icon" => request.header("accept", "*/*").header("referer", here),
        "link" => request.header("accept", "text/html,*/*;q=0.8").header("referer", here),
        _ => request.header("accept", "text/html,*/*;q=0.8").header("sec-fetch-site", "none"),
    };
    let reply = client.call(request.body(Full::default()).unwrap()).await;
    assert!(reply.status.is_success());
}

#[tokio::test]
async fn a_browser_that_drops_the_cookie_is_told_of_once() {
    const WORDS: &str = "insecure_plain_http()";
    const CHROMIUM: &str = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) \
                            Chrome/156.0.0.0 Safari/537.36";
    const WEBKIT: &str = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/605.1.15 (KHTML, like Gecko) \
                          Version/60.5 Safari/605.1.15";
    let log = log();
    let server = serve().await;
    // A script, and a check that the server is alive, keep no cookies; a browser does.
    for _ in 0..10 {
        ask(&server.client(), "curl/8.11.0", "page").await;
        ask(&server.client(), "kube-probe/1.33", "page").await;
    }
    let chromium = server.client();
    for kind in ["page", "icon", "page", "link"] {
        ask(&chromium, CHROMIUM, kind).await;
    }
    assert_eq!(log.lines(WORDS), Vec::<String>::new());
    // What WebKitGTK 2.50 sends for a page, its icon, and the page loaded again.
    for kind in ["page", "icon", "page"] {
        assert_eq!(log.lines(WORDS), Vec::<String>::new());
        ask(&server.client(), WEBKIT, kind).await;
    }
    let said = log.lines(WORDS);
    assert_eq!(said.len(), 1, "{said:?}");
    let host = server.client().address().to_string();
    assert!(said[0].contains("WARN") && said[0].contains(&host), "{said:?}");
    let another = serve().await;
    for server in [&server, &another] {
        for kind in ["page", "link", "link"] {
            ask(&server.client(), WEBKIT, kind).await;
        }
    }
    assert_eq!(log.lines(WORDS).len(), 1, "once per process");
}

#[tokio::test]
async fn an_idle_timeout_that_is_cut_short_is_told_of_once() {
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    const WORDS: &str = "a session's own idle timeout is longer";
    let log = log();
    let layer = SessionLayer::<Visitor>::new(MemoryStore::new(), Keys::generate());
    let mut client = TestClient::new((), &layer);
    let mut set = async |lifetime| {
        client.with_session(async |session| session.set_lifetime(lifetime)).await;
        log.lines(WORDS).len()
    };
    assert_eq!(set(Lifetime::new().with_idle_timeout(DAY / 2)).await, 0);
    assert_eq!(
        set(Lifetime::new().with_idle_timeout(7 * DAY).with_absolute_timeout(7 * DAY)).await,
        0
    );
    assert_eq!(set(Lifetime::new().with_idle_timeout(7 * DAY)).await, 1);
    assert_eq!(set(Lifetime::new().with_idle_timeout(7 * DAY)).await, 1);
}

#[tokio::test]
async fn too_many_cookies_are_told_of_once_a_request() {
    const WORDS: &str = "too many session cookies";
    let log = log();
    let server = serve().await;
    let junk = "__Host-id=A; ".repeat(500).into_bytes();
    for requests in 1..=3 {
        server.client().get_with("/", std::slice::from_ref(&junk)).await.text();
        assert_eq!(log.lines(WORDS).len(), requests);
    }
}

#[tokio::test]
async fn layers_that_answer_to_each_other_are_told_of_when_the_second_is_built() {
    mod one {
        #[derive(sessions::Session)]
        pub(super) struct Member {
            #[session(user)]
            user: Option<u64>,
        }
    }
    mod two {
        #[derive(sessions::Session)]
        pub(super) struct Member {
            #[session(user)]
            user: Option<u64>,
        }
    }
    let log = log();
    let told = |words: &str| {
        let lines = log.lines(words);
        lines.iter().filter(|line| line.contains("Member")).count()
    };
    const TWICE: &str = "two layers of one type answer to each other's cookies";
    const USERS: &str = "the users of one are the users of the other";
    let (store, keys) = (MemoryStore::new(), Keys::generate());
    let first = SessionLayer::<one::Member>::new(store.clone(), keys.clone());
    // The layer itself, and a tenant.
    let _clone = first.clone();
    let _tenant = SessionLayer::<one::Member>::new(store.clone(), keys.for_tenant("a"));
    assert_eq!((told(TWICE), told(USERS)), (0, 0));
    let _again = SessionLayer::<one::Member>::new(store.clone(), keys);
    assert_eq!((told(TWICE), told(USERS)), (1, 0));
    let other = SessionLayer::<two::Member>::builder(store, Keys::generate());
    let _other = other.with_cookie_name("__Host-other").build().unwrap();
    assert_eq!(told(TWICE), 1);
    assert!(told(USERS) > 0, "whose names in the store are the same");
}

/// Not of layers that open each other's cookies, nor of such whose cookies stay beside each other in a browser.
#[tokio::test]
async fn layers_inside_of_each_other_that_replace_each_others_cookies_are_told_of_once() {
    #[derive(Session)]
    struct Nested {
        visits: u32,
    }
    async fn visit(session: Session<Nested>) {
        *session.write().await.visits_mut() += 1;
    }
    type Change = fn(SessionLayerBuilder<Nested>) -> SessionLayerBuilder<Nested>;
    let log = log();
    let ask_twice = async |keys: [&Keys; 2], change: Change| {
        let [outer, inner] = keys.map(|keys| {
            SessionLayer::<Nested>::builder(MemoryStore::new(), keys.clone()).insecure_plain_http()
        });
        let inner = Router::new().route("/", get(visit)).layer(change(inner).build().unwrap());
        let outer = outer.build().unwrap();
        let app = Router::new().nest("/shop", inner).layer(outer.clone());
        let mut client = TestClient::new(app, &outer);
        for _ in 0..2 {
            assert_eq!(client.get("/shop").await.status(), 200);
        }
        log.lines("is inside of another one").len()
    };
    let [one, other] = [Keys::generate(), Keys::generate()];
    assert_eq!(ask_twice([&one, &one], |it| it).await, 0);
    assert_eq!(ask_twice([&one, &other], |it| it.with_cookie_name("shop")).await, 0);
    assert_eq!(ask_twice([&one, &other], |it| it.with_cookie_path("/shop")).await, 0);
    assert_eq!(ask_twice([&one, &other], |it| it).await, 1);
}
