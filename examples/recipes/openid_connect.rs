//! Login at another provider with OpenID Connect: the code flow with PKCE, by the crate `openidconnect`.
//!
//! ```text
//! cargo add axum http-body-util sessions
//! cargo add hyper-util --features client-legacy,http1,tokio
//! cargo add openidconnect --no-default-features
//! cargo add serde --features derive
//! cargo add tokio --features macros,net,rt-multi-thread,time
//! ```
//!
//! `OIDC_ISSUER`, `OIDC_CLIENT_ID` and `OIDC_CLIENT_SECRET` say which provider, and `SITE` under which address
//! browsers find this program; the provider has to know `SITE/callback`. The client here speaks plain HTTP, to a
//! provider on this machine: for `https://` give it the connector of the crate `hyper-rustls`.
//!
//! # A provider that answers with a form
//!
//! `OIDC_RESPONSE_MODE=form_post` asks for that. The form comes from the provider's site: a browser sends it without
//! the session's `Lax` cookie, and a `CsrfLayer` refuses it. So the layer lets it through at this one path, to a
//! handler that asks for no session and changes nothing: it leads on to the same path with a `GET`, which does carry
//! the cookie. What the form said stands in that address. The code in it is worth nothing to anybody else: it goes
//! with the verifier in this session, and once.

use std::{env, error::Error, io, time::Duration};

use axum::{
    Form, Router,
    body::Bytes,
    extract::{Query, State},
    http::StatusCode,
    response::{Html, IntoResponse, Redirect, Response},
    routing::{get, post},
};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use openidconnect::{
    AuthenticationFlow, AuthorizationCode, ClientId, ClientSecret, CsrfToken, EndpointMaybeSet,
    EndpointNotSet, EndpointSet, HttpRequest, HttpResponse, IssuerUrl, Nonce, PkceCodeChallenge,
    PkceCodeVerifier, RedirectUrl, TokenResponse,
    core::{CoreClient, CoreProviderMetadata, CoreResponseType},
    url::form_urlencoded,
};
use serde::{Deserialize, Serialize};
use sessions::{Keys, MemoryStore, Session};
use tokio::{net::TcpListener, time::timeout};

#[derive(Session)]
struct Customer {
    /// The provider's name for the user, which never changes. An e-mail address may.
    #[session(user)]
    user: Option<String>,
    teapots: u32,
    /// A login that has gone to the provider.
    #[session(ttl = "10m")]
    handshake: Option<Handshake>,
}

#[derive(Serialize, Deserialize)]
struct Handshake {
    /// That the answer is to this browser's question.
    state: CsrfToken,
    /// That the token was made for this login.
    nonce: Nonce,
    /// That the code is redeemed by who has asked for it.
    verifier: PkceCodeVerifier,
}

/// What comes back: a code, or else the name of an error.
#[derive(Deserialize)]
struct Answer {
    state: String,
    code: Option<String>,
}

type Failure = Box<dyn Error + Send + Sync>;
type Discovered = CoreClient<
    EndpointSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointMaybeSet,
    EndpointMaybeSet,
>;

#[derive(Clone)]
struct Provider {
    issuer: IssuerUrl,
    id: ClientId,
    secret: ClientSecret,
    callback: RedirectUrl,
    response_mode: Option<String>,
}

/// One request to the provider. It follows no redirect: who answers is who was asked.
async fn ask(request: HttpRequest) -> io::Result<HttpResponse> {
    let client = Client::builder(TokioExecutor::new()).build_http();
    let asking = async {
        let response = client.request(request.map(|body| Full::new(Bytes::from(body)))).await;
        let (head, body) = response.map_err(io::Error::other)?.into_parts();
        let body = Limited::new(body, 1 << 20).collect().await.map_err(io::Error::other)?;
        Ok(HttpResponse::from_parts(head, body.to_bytes().into()))
    };
    timeout(Duration::from_secs(10), asking).await?
}

impl Provider {
    /// Its addresses and keys, which change. A busy site keeps them for some minutes.
    async fn discover(&self) -> Result<Discovered, Failure> {
        let metadata = CoreProviderMetadata::discover_async(self.issuer.clone(), &ask).await?;
        let (id, secret) = (self.id.clone(), self.secret.clone());
        let client = CoreClient::from_provider_metadata(metadata, id, Some(secret));
        Ok(client.set_redirect_uri(self.callback.clone()))
    }

    /// Where to send the browser, and what has to come back.
    async fn begin(&self) -> Result<(String, Handshake), Failure> {
        let (challenge, verifier) = PkceCodeChallenge::new_random_sha256();
        let flow = AuthenticationFlow::<CoreResponseType>::AuthorizationCode;
        let client = self.discover().await?;
        let mut request = client
            .authorize_url(flow, CsrfToken::new_random, Nonce::new_random)
            .set_pkce_challenge(challenge);
        if let Some(mode) = &self.response_mode {
            request = request.add_extra_param("response_mode", mode);
        }
        let (url, state, nonce) = request.url();
        Ok((url.into(), Handshake { state, nonce, verifier }))
    }

    /// Who the user is. Signature, issuer, audience, expiry and nonce of the token are checked.
    async fn user(&self, handshake: Handshake, code: String) -> Result<String, Failure> {
        let client = self.discover().await?;
        let answer = client
            .exchange_code(AuthorizationCode::new(code))?
            .set_pkce_verifier(handshake.verifier)
            .request_async(&ask)
            .await?;
        let token = answer.id_token().ok_or("no ID token")?;
        let claims = token.claims(&client.id_token_verifier(), &handshake.nonce)?;
        Ok(claims.subject().to_string())
    }
}

async fn index(session: Session<Customer>) -> Html<String> {
    let s = session.read().await;
    let user = s.user().unwrap_or("nobody").replace('&', "&amp;").replace('<', "&lt;");
    Html(format!(
        "<!doctype html><html lang=en><title>Shop</title><h1>Hello, {user}</h1><p>{} teapots\
         <form method=post><button formaction=/cart>One more</button>\
         <button formaction=/login>Log in</button><button formaction=/logout>Log out</button></form>",
        s.teapots
    ))
}

async fn cart(session: Session<Customer>) -> Redirect {
    *session.write().await.teapots_mut() += 1;
    Redirect::to("/")
}

fn failed(failure: Failure) -> Response {
    eprintln!("the provider: {failure}");
    (StatusCode::BAD_GATEWAY, "That did not work. Please log in once more.").into_response()
}

async fn login(State(provider): State<Provider>, session: Session<Customer>) -> Response {
    match provider.begin().await {
        Ok((url, handshake)) => {
            session.write().await.set_handshake(handshake);
            Redirect::to(&url).into_response()
        }
        Err(failure) => failed(failure),
    }
}

async fn callback(
    State(provider): State<Provider>,
    session: Session<Customer>,
    Query(answer): Query<Answer>,
) -> sessions::Result<Response> {
    // Good once, in whichever process. An answer to what this browser has not asked takes nothing away.
    let handshake = session.update(|s| {
        let is_ours = s.handshake().is_some_and(|it| *it.state.secret() == answer.state);
        if is_ours { s.take_handshake() } else { None }
    });
    let (Some(handshake), Some(code)) = (handshake.await?, answer.code) else {
        return Ok((StatusCode::FORBIDDEN, "Please log in once more.").into_response());
    };
    match provider.user(handshake, code).await {
        Ok(user) => {
            session.login(user).await?;
            Ok(Redirect::to("/").into_response())
        }
        Err(failure) => Ok(failed(failure)),
    }
}

/// Another site's page sends this, and any page can: it asks for no session.
async fn form_post(Form(answer): Form<Vec<(String, String)>>) -> Redirect {
    let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(answer).finish();
    Redirect::to(&format!("/callback?{query}"))
}

/// Here. The provider still knows its user: its `end_session_endpoint` ends that, too.
async fn logout(session: Session<Customer>) -> sessions::Result<Redirect> {
    session.logout().await?;
    Ok(Redirect::to("/"))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let port = env::args().nth(1).unwrap_or("3000".to_string());
    let listener = TcpListener::bind(format!("127.0.0.1:{port}")).await?;
    let address = format!("http://{}", listener.local_addr()?);
    let provider = Provider {
        issuer: IssuerUrl::new(env::var("OIDC_ISSUER")?)?,
        id: ClientId::new(env::var("OIDC_CLIENT_ID")?),
        secret: ClientSecret::new(env::var("OIDC_CLIENT_SECRET")?),
        callback: RedirectUrl::new(env::var("SITE").unwrap_or(address.clone()) + "/callback")?,
        response_mode: env::var("OIDC_RESPONSE_MODE").ok(),
    };
    let csrf = Customer::csrf_layer_builder().without_tokens().with_unchecked_path("/callback");
    let app = Router::new()
        .route("/", get(index))
        .route("/cart", post(cart))
        .route("/login", post(login))
        .route("/callback", get(callback).post(form_post))
        .route("/logout", post(logout))
        .with_state(provider)
        .layer(csrf.build()?)
        .layer(Customer::layer(MemoryStore::new(), Keys::generate()));
    println!("openid_connect listens on {address}");
    Ok(axum::serve(listener, app).await?)
}
