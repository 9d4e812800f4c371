//! What binding sessions to devices costs a request, in instructions: `cargo run --release -p
//! sessions-benches --features device-bound --bin devices`. Needs valgrind.
//!
//! Three layers of one build: one that binds no sessions, one whose session is not bound so far, and
//! one whose session is bound, with requests that show their device. A fresh request each time, one
//! session.

use axum::{
    Router,
    body::{Body, Bytes},
    http::{HeaderName, HeaderValue, Request, Response, StatusCode, header},
    routing::get,
};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD as BASE64};
use http_body_util::BodyExt;
use p256::ecdsa::{Signature, SigningKey, signature::Signer};
use sessions::{DeviceBinding, Keys, MemoryStore, Session, SessionLayer};
use sessions_benches::{
    client::{cookie, request},
    table,
    valgrind::instructions,
};
use tower::Service;

const REQUESTS: usize = 1_000;
const LAYERS: [&str; 3] = ["binds nobody", "session not bound", "session bound and proven"];
const ROUTES: [(&str, &str); 3] = [
    ("ignores its session", "/"),
    ("reads a field", "/name"),
    ("reads and writes a field", "/count"),
];

#[derive(Session)]
struct Customer {
    #[session(user)]
    user: Option<u64>,
    name: String,
    counter: u32,
}

fn app(binding: Option<DeviceBinding>) -> Router {
    let mut builder = SessionLayer::<Customer>::builder(MemoryStore::new(), Keys::generate());
    if let Some(binding) = binding {
        builder = builder.bind_to_device(binding);
    }
    Router::new()
        .route("/", get(async || ()))
        .route("/login", get(login))
        .route("/name", get(name))
        .route("/count", get(count))
        .layer(builder.build().expect("possible settings"))
}

async fn login(session: Session<Customer>) -> sessions::Result<()> {
    session.write().await.set_name("Ann");
    session.login(7).await
}

async fn name(session: Session<Customer>) -> String {
    session.read().await.name().to_string()
}

async fn count(session: Session<Customer>) {
    *session.write().await.counter_mut() += 1;
}

async fn call(app: &mut Router, request: Request<Body>) -> Response<Body> {
    let response = app.call(request).await.expect("a router never fails");
    assert_eq!(response.status(), StatusCode::OK);
    response
}

/// The parts of a JWT as a browser signs it.
fn proof(offer: &str) -> String {
    let (_, challenge) = offer.split_once("challenge=\"").expect("a challenge");
    let challenge = challenge.split('"').next().expect("its end");
    let key = SigningKey::from_slice(&[7; 32]).expect("a number of the curve");
    let point = key.verifying_key().to_sec1_point(false);
    let [x, y] = [1..33, 33..65].map(|half| BASE64.encode(&point.as_bytes()[half]));
    let header = format!(
        r#"{{"alg":"ES256","jwk":{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}},"typ":"dbsc+jwt"}}"#
    );
    let claims = format!(r#"{{"jti":"{challenge}"}}"#);
    let signed = format!("{}.{}", BASE64.encode(header), BASE64.encode(claims));
    let signature: Signature = key.sign(signed.as_bytes());
    format!("{signed}.{}", BASE64.encode(signature.to_bytes()))
}

/// The cookies of a session that is logged in, and bound if it is to be.
async fn begin(app: &mut Router, is_bound: bool) -> HeaderValue {
    let response = call(app, request("/login", None)).await;
    let session = cookie(response.headers()).expect("the session's cookie");
    if !is_bound {
        return session;
    }
    let offer = &response.headers()["secure-session-registration"];
    let mut register = request("/device-binding/register", Some(&session));
    *register.method_mut() = axum::http::Method::POST;
    let proof = HeaderValue::try_from(proof(offer.to_str().expect("text"))).expect("text");
    let name = HeaderName::from_static("secure-session-response");
    register.headers_mut().insert(name, proof);
    let response = call(app, register).await;
    let bound = cookie(response.headers()).expect("the bound cookie");
    let both = [session.as_bytes(), b"; ", bound.as_bytes()].concat();
    HeaderValue::from_maybe_shared(Bytes::from(both)).expect("a header's bytes")
}

#[tokio::main(flavor = "current_thread")]
async fn serve(layer: usize, route: usize, count: usize) {
    let mut app = app((layer > 0).then(DeviceBinding::new));
    let cookies = begin(&mut app, layer == 2).await;
    assert!(cookies.to_str().expect("text").contains("-device=") == (layer == 2));
    // The requests are made in any case, so that the difference is what serving them takes.
    let made: Vec<_> =
        (0..2 * REQUESTS).map(|_| request(ROUTES[route].1, Some(&cookies))).collect();
    for request in made.into_iter().take(count) {
        let response = call(&mut app, request).await;
        assert!(!response.headers().contains_key(header::SET_COOKIE), "nothing is new");
        if ROUTES[route].1 == "/name" {
            let body = response.into_body().collect().await.expect("a body").to_bytes();
            assert_eq!(body, "Ann", "the request shows its device");
        }
    }
}

fn main() {
    let arguments: Vec<usize> =
        std::env::args().skip(1).map(|argument| argument.parse().expect("numbers")).collect();
    if let [layer, route, count] = arguments[..] {
        return serve(layer, route, count);
    }
    println!("Instructions of a request.");
    table::head(&[&["the handler"], &LAYERS[..]].concat());
    for (route, (what, _)) in ROUTES.into_iter().enumerate() {
        let counts = (0..LAYERS.len()).map(|layer| {
            let counted = instructions(&[layer, route, 2 * REQUESTS])
                - instructions(&[layer, route, REQUESTS]);
            format!("{:.0}", counted / REQUESTS as f64)
        });
        table::row([what.to_string()].into_iter().chain(counts));
    }
}
