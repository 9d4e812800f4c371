//! Passkeys, by the crate `webauthn-rs`: an account that is opened and logged in to without a password.
//!
//! ```text
//! cargo add axum sessions
//! cargo add serde --features derive
//! cargo add tokio --features macros,net,rt-multi-thread
//! cargo add webauthn-rs --no-default-features --features danger-allow-state-serialisation
//! ```
//!
//! `SITE` says under which address browsers find this program; a passkey belongs to the name in that address.
//! Without it that is `http://localhost` and the port: browsers make passkeys over HTTPS and for `localhost` alone.
//!
//! What the library has to remember until the browser has answered is a session field, and is taken out before the
//! answer is looked at: so an answer is good once, in whichever process. A copy must not be good again, which is
//! why the library calls it dangerous to store such a state, and why none of this is for a `PrivateCookie`: there the
//! visitor holds all copies.

use std::{
    collections::{HashMap, hash_map::Entry},
    env,
    error::Error,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use axum::{
    Json, Router,
    extract::State,
    http::StatusCode,
    response::Html,
    routing::{get, post},
};
use serde::Deserialize;
use sessions::{Keys, MemoryStore, Session};
use tokio::net::TcpListener;
use webauthn_rs::prelude::{
    CreationChallengeResponse, Passkey, PasskeyAuthentication, PasskeyRegistration,
    PublicKeyCredential, RegisterPublicKeyCredential, RequestChallengeResponse, Url, Uuid,
    Webauthn, WebauthnBuilder,
};

#[derive(Session)]
struct Member {
    #[session(user)]
    user: Option<String>,
    /// The account that is to be opened.
    #[session(ttl = "5m")]
    registration: Option<(String, PasskeyRegistration)>,
    /// The account that is to be logged in to.
    #[session(ttl = "5m")]
    authentication: Option<(String, PasskeyAuthentication)>,
}

/// A real program has a database. A passkey is nothing secret: the private key stays in its device.
type Accounts = HashMap<String, Vec<Passkey>>;

#[derive(Clone)]
struct Site {
    webauthn: Arc<Webauthn>,
    accounts: Arc<Mutex<Accounts>>,
}

impl Site {
    fn accounts(&self) -> MutexGuard<'_, Accounts> {
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Deserialize)]
struct Account {
    name: String,
}

const PAGE: &str = r#"<!doctype html><html lang=en><title>Passkeys</title><h1></h1>
<input aria-label=Name autocomplete=username>
<button id=register>Sign up</button><button id=login>Log in</button><button id=logout>Log out</button><output></output>
<script type=module>
  const find = (selector) => document.querySelector(selector);
  const post = async (path, body) => {
    const headers = { "content-type": "application/json" };
    const reply = await fetch(path, { method: "POST", headers, body: JSON.stringify(body) });
    if (!reply.ok) throw new Error(`${path} says ${reply.status}`);
    return reply;
  };
  const begin = async (path) => (await (await post(path, { name: find("input").value })).json()).publicKey;
  const actions = {
    async register() {
      const publicKey = PublicKeyCredential.parseCreationOptionsFromJSON(await begin("/register"));
      await post("/register/finish", await navigator.credentials.create({ publicKey }));
    },
    async login() {
      const publicKey = PublicKeyCredential.parseRequestOptionsFromJSON(await begin("/login"));
      await post("/login/finish", await navigator.credentials.get({ publicKey }));
    },
    logout: () => post("/logout"),
  };
  const show = async () => (find("h1").textContent = "Hello, " + (await (await fetch("/who")).text()));
  for (const button of document.querySelectorAll("button")) {
    button.onclick = async () => {
      find("output").textContent = "";
      const outcome = await actions[button.id]().then(() => "Done.", (error) => error.message);
      await show();
      find("output").textContent = outcome;
    };
  }
  await show();
</script>"#;

async fn who(session: Session<Member>) -> String {
    session.read().await.user().unwrap_or("nobody").to_string()
}

async fn begin_registration(
    State(site): State<Site>,
    session: Session<Member>,
    Json(Account { name }): Json<Account>,
) -> Result<Json<CreationChallengeResponse>, StatusCode> {
    if name.is_empty() || name.len() > 64 {
        return Err(StatusCode::UNPROCESSABLE_ENTITY);
    }
    // Or a later visitor adds a key to an account of another one.
    if site.accounts().contains_key(&name) {
        return Err(StatusCode::CONFLICT);
    }
    let started = site.webauthn.start_passkey_registration(Uuid::new_v4(), &name, &name, None);
    let (options, state) = started.map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    session.write().await.set_registration((name, state));
    Ok(Json(options))
}

async fn finish_registration(
    State(site): State<Site>,
    session: Session<Member>,
    Json(answer): Json<RegisterPublicKeyCredential>,
) -> sessions::Result<StatusCode> {
    let Some((name, state)) = session.update(|s| s.take_registration()).await? else {
        return Ok(StatusCode::FORBIDDEN);
    };
    let Ok(key) = site.webauthn.finish_passkey_registration(&answer, &state) else {
        return Ok(StatusCode::FORBIDDEN);
    };
    // The name may have been taken meanwhile.
    match site.accounts().entry(name.clone()) {
        Entry::Occupied(_) => return Ok(StatusCode::CONFLICT),
        Entry::Vacant(place) => drop(place.insert(vec![key])),
    }
    session.login(name).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Says whether there is such an account; where that is nobody's business, `webauthn_rs::fake` makes keys up.
async fn begin_login(
    State(site): State<Site>,
    session: Session<Member>,
    Json(Account { name }): Json<Account>,
) -> Result<Json<RequestChallengeResponse>, StatusCode> {
    let keys = site.accounts().get(&name).cloned().ok_or(StatusCode::NOT_FOUND)?;
    let started = site.webauthn.start_passkey_authentication(&keys);
    let (options, state) = started.map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    session.write().await.set_authentication((name, state));
    Ok(Json(options))
}

async fn finish_login(
    State(site): State<Site>,
    session: Session<Member>,
    Json(answer): Json<PublicKeyCredential>,
) -> sessions::Result<StatusCode> {
    let Some((name, state)) = session.update(|s| s.take_authentication()).await? else {
        return Ok(StatusCode::FORBIDDEN);
    };
    let Ok(result) = site.webauthn.finish_passkey_authentication(&answer, &state) else {
        return Ok(StatusCode::FORBIDDEN);
    };
    // The key counts its uses, if it does: a copy of it would fall behind.
    for key in site.accounts().get_mut(&name).into_iter().flatten() {
        key.update_credential(&result);
    }
    session.login(name).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn logout(session: Session<Member>) -> sessions::Result<StatusCode> {
    session.logout().await?;
    Ok(StatusCode::NO_CONTENT)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let port = env::args().nth(1).unwrap_or("3000".to_string());
    let listener = TcpListener::bind(format!("127.0.0.1:{port}")).await?;
    let address = listener.local_addr()?;
    let site = env::var("SITE").unwrap_or(format!("http://localhost:{}", address.port()));
    let url = Url::parse(&site)?;
    let host = url.host_str().ok_or("SITE has no host")?;
    let webauthn = Arc::new(WebauthnBuilder::new(host, &url)?.build()?);
    let app = Router::new()
        .route("/", get(async || Html(PAGE)))
        .route("/who", get(who))
        .route("/register", post(begin_registration))
        .route("/register/finish", post(finish_registration))
        .route("/login", post(begin_login))
        .route("/login/finish", post(finish_login))
        .route("/logout", post(logout))
        .with_state(Site { webauthn, accounts: Arc::default() })
        .layer(Member::csrf_layer().origin_only())
        .layer(Member::layer(MemoryStore::new(), Keys::generate()));
    println!("passkeys is for {site}, and listens on http://{address}");
    Ok(axum::serve(listener, app).await?)
}
