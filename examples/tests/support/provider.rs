//! An OpenID Connect provider on loopback, which takes every visitor for Ada.

use std::{
    collections::HashMap,
    net::SocketAddr,
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use axum::{
    Form, Json, Router,
    extract::{Query, State},
    http::{HeaderMap, StatusCode, header},
    response::{Html, IntoResponse, Redirect, Response},
    routing::{get, post},
};
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD as BASE64, Engine};
use p256::ecdsa::{Signature, SigningKey, signature::Signer};
use serde_json::{Value, json};
use sessions_tests::Server;
use sha2::{Digest, Sha256};

use crate::{copies, support::Program};

type Fields = HashMap<String, String>;
/// May change the claims of a token, and says which key signs it.
type Sign = Box<dyn Fn(&mut Value) -> u8 + Send + Sync>;

/// The one that the provider says is its own.
pub(crate) const KEY: u8 = 7;

/// What the provider and its application know of each other.
const CLIENT: (&str, &str) = ("shop", "a secret / of the shop");

struct Ledger {
    /// What was asked for, under the code that answers it.
    codes: Mutex<HashMap<String, Fields>>,
    given: AtomicUsize,
    sign: Sign,
}

type Shared = State<Arc<Ledger>>;

/// Starts it. Its issuer is `http://localhost:PORT`, which is another site than `127.0.0.1`.
pub(crate) async fn start(sign: impl Fn(&mut Value) -> u8 + Send + Sync + 'static) -> Server {
    let ledger =
        Ledger { codes: Mutex::default(), given: AtomicUsize::new(0), sign: Box::new(sign) };
    let routes = Router::new()
        .route("/.well-known/openid-configuration", get(configuration))
        .route("/authorize", get(authorize))
        .route("/token", post(token))
        .route("/keys", get(keys));
    Server::start(routes.with_state(Arc::new(ledger))).await
}

fn key(number: u8) -> SigningKey {
    SigningKey::from_slice(&[number; 32]).expect("a number of the curve")
}

/// As the one who asks has called it.
fn issuer(headers: &HeaderMap) -> String {
    format!("http://{}", headers[header::HOST].to_str().expect("a host"))
}

async fn configuration(headers: HeaderMap) -> Json<Value> {
    let issuer = issuer(&headers);
    Json(json!({
        "issuer": issuer,
        "authorization_endpoint": format!("{issuer}/authorize"),
        "token_endpoint": format!("{issuer}/token"),
        "jwks_uri": format!("{issuer}/keys"),
        "response_types_supported": ["code"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"],
    }))
}

async fn keys() -> Json<Value> {
    let point = key(KEY).verifying_key().to_sec1_bytes();
    let (x, y) = (BASE64.encode(&point[1..33]), BASE64.encode(&point[33..]));
    let key = json!({ "kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": "1", "x": x, "y": y });
    Json(json!({ "keys": [key] }))
}

/// Asks no questions, and sends the browser back: by a redirect, or by a form as Keycloak's, which does not say
/// where it is from.
async fn authorize(State(ledger): Shared, Query(asked): Query<Fields>) -> Response {
    let is_good = asked["client_id"] == CLIENT.0
        && asked["response_type"] == "code"
        && asked["code_challenge_method"] == "S256"
        && asked["scope"].split(' ').any(|scope| scope == "openid");
    if !is_good {
        return StatusCode::BAD_REQUEST.into_response();
    }
    let code = format!("code & {}", ledger.given.fetch_add(1, SeqCst));
    let (callback, state) = (asked["redirect_uri"].clone(), asked["state"].clone());
    let mode = asked.get("response_mode").cloned();
    ledger.codes.lock().expect("no test has failed").insert(code.clone(), asked);
    if mode.as_deref() == Some("form_post") {
        let page = format!(
            r#"<!doctype html><title>Provider</title><form method=post action="{callback}">
               <input name=state value="{state}"><input name=code value="{}"></form>
               <script>document.forms[0].submit()</script>"#,
            code.replace('&', "&amp;"),
        );
        return ([(header::REFERRER_POLICY, "no-referrer")], Html(page)).into_response();
    }
    let answer = [("code", &code), ("state", &state)];
    let answer = form_urlencoded::Serializer::new(String::new()).extend_pairs(answer).finish();
    Redirect::to(&format!("{callback}?{answer}")).into_response()
}

async fn token(
    State(ledger): Shared,
    headers: HeaderMap,
    Form(sent): Form<Fields>,
) -> Result<Json<Value>, (StatusCode, Json<Value>)> {
    // RFC 6749, 2.3.1: each of them is encoded as in a form.
    let encoded = [CLIENT.0, CLIENT.1]
        .map(|it| form_urlencoded::byte_serialize(it.as_bytes()).collect::<String>());
    let client = format!("Basic {}", BASE64_STANDARD.encode(encoded.join(":")));
    let asked = ledger.codes.lock().expect("no test has failed").remove(&sent["code"]);
    let asked = asked.filter(|asked| {
        let challenge = BASE64.encode(Sha256::digest(&sent["code_verifier"]));
        headers[header::AUTHORIZATION] == client
            && asked["code_challenge"] == challenge
            && asked["redirect_uri"] == sent["redirect_uri"]
    });
    let Some(asked) = asked else {
        return Err((StatusCode::BAD_REQUEST, Json(json!({ "error": "invalid_grant" }))));
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_secs();
    let mut claims = json!({
        "iss": issuer(&headers), "aud": CLIENT.0, "sub": "ada <1> & co", "nonce": asked["nonce"],
        "iat": now, "exp": now + 300,
    });
    let signer = key((ledger.sign)(&mut claims));
    let head = BASE64.encode(r#"{"alg":"ES256","kid":"1"}"#);
    let signed = format!("{head}.{}", BASE64.encode(claims.to_string()));
    let signature: Signature = signer.sign(signed.as_bytes());
    let signature = signature.to_bytes();
    let token = format!("{signed}.{}", BASE64.encode(signature));
    Ok(Json(json!({ "access_token": "x", "token_type": "bearer", "id_token": token })))
}

/// The recipe, as an application of the provider with this issuer.
pub(crate) fn start_shop(issuer: &str, mode: Option<&str>) -> (Program, SocketAddr) {
    let mut command = Command::new(copies::program(env!("CARGO_BIN_EXE_openid_connect")));
    command.arg("0").env("OIDC_ISSUER", issuer).env("OIDC_CLIENT_ID", CLIENT.0);
    command.env("OIDC_CLIENT_SECRET", CLIENT.1).env_remove("SITE").env_remove("OIDC_RESPONSE_MODE");
    if let Some(mode) = mode {
        command.env("OIDC_RESPONSE_MODE", mode);
    }
    Program::start(&mut command, "listens on http://")
}
