//! What the check of where a request comes from costs: `cargo run --release -p sessions-benches --bin
//! csrf`.
//!
//! The same handlers without the layer, with one that looks at the origin alone, and with tokens. They
//! take turns, a batch of requests at a time, and each one's quickest batch counts.

use std::time::{Duration, Instant};

use axum::{
    Router,
    body::{Body, Bytes},
    http::{HeaderValue, Method, Request, header},
    routing::{any, get},
};
use sessions::{CsrfLayer, Keys, MemoryStore, Session, SessionLayer};
use sessions_benches::{
    client::{call, cookie, request},
    table,
};

const ROUNDS: usize = 300;
const BATCH: usize = 100;

#[derive(Session)]
struct Visitor {
    counter: u32,
}

async fn count(session: Session<Visitor>) {
    let mut s = session.write().await;
    let counter = s.counter();
    s.set_counter(counter + 1);
}

async fn token(session: Session<Visitor>) -> sessions::Result<String> {
    Ok(session.csrf_token().await?.to_string())
}

fn app(layer: Option<CsrfLayer<Visitor>>) -> Router {
    let routes = Router::new()
        .route("/", any(async || "fine"))
        .route("/count", any(count))
        .route("/token", get(token));
    let routes = match layer {
        Some(layer) => routes.layer(layer),
        None => routes,
    };
    routes.layer(SessionLayer::<Visitor>::new(MemoryStore::new(), Keys::generate())).with_state(())
}

struct Contestant {
    app: Router,
    cookie: HeaderValue,
    token: HeaderValue,
    form: Bytes,
}

impl Contestant {
    async fn new(layer: Option<CsrfLayer<Visitor>>) -> Self {
        let mut app = app(layer);
        let page = call(&mut app, request("/token", None)).await;
        let cookie = cookie(page.headers()).expect("a session");
        let token = axum::body::to_bytes(page.into_body(), 1_000).await.expect("a token");
        let form = [b"csrf_token=", &*token, b"&teapots=1&note=a+gift"].concat().into();
        Self { app, cookie, token: HeaderValue::from_bytes(&token).expect("ASCII"), form }
    }

    fn request(&self, case: &Case) -> Request<Body> {
        let mut request = request(case.path, Some(&self.cookie));
        *request.method_mut() = case.method.clone();
        let headers = request.headers_mut();
        headers.insert("sec-fetch-site", HeaderValue::from_static("same-origin"));
        match case.sends {
            Sends::Nothing => {}
            Sends::Header => drop(headers.insert("x-csrf-token", self.token.clone())),
            Sends::Form => {
                let form = HeaderValue::from_static("application/x-www-form-urlencoded");
                headers.insert(header::CONTENT_TYPE, form);
                *request.body_mut() = self.form.clone().into();
            }
        }
        request
    }

    /// The time of a request.
    async fn batch(&mut self, case: &Case) -> Duration {
        let requests: Vec<_> = (0..BATCH).map(|_| self.request(case)).collect();
        let start = Instant::now();
        for request in requests {
            drop(call(&mut self.app, request).await);
        }
        start.elapsed().div_f64(BATCH as f64)
    }
}

struct Case {
    what: &'static str,
    method: Method,
    path: &'static str,
    sends: Sends,
}

#[derive(Clone, Copy)]
enum Sends {
    Nothing,
    Header,
    Form,
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let case = |what, method, path, sends| Case { what, method, path, sends };
    let cases = [
        case("a GET that ignores its session", Method::GET, "/", Sends::Nothing),
        case("a GET that reads and writes", Method::GET, "/count", Sends::Nothing),
        case("a GET that makes a token", Method::GET, "/token", Sends::Nothing),
        case("a POST that ignores its session, with a header", Method::POST, "/", Sends::Header),
        case("a POST that reads and writes, with a header", Method::POST, "/count", Sends::Header),
        case("a POST that reads and writes, with a form", Method::POST, "/count", Sends::Form),
    ];
    let mut contestants = [
        Contestant::new(None).await,
        Contestant::new(Some(CsrfLayer::new().origin_only())).await,
        Contestant::new(Some(CsrfLayer::new())).await,
    ];
    table::head(&[
        "the handler",
        "without the layer",
        "the origin alone, over that",
        "with tokens, over that",
    ]);
    for case in cases {
        let mut quickest = [Duration::MAX; 3];
        for _ in 0..ROUNDS {
            for (contestant, quickest) in contestants.iter_mut().zip(&mut quickest) {
                *quickest = contestant.batch(&case).await.min(*quickest);
            }
        }
        let [without, origin, tokens] = quickest;
        table::row([
            case.what.to_string(),
            table::time(without),
            table::time(origin.saturating_sub(without)),
            table::time(tokens.saturating_sub(without)),
        ]);
    }
}
