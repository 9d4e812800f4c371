//! A single-page application on one origin, and its API on another: CORS with credentials, and the CSRF token
//! in a header.
//!
//! Run it with `cargo run -p sessions-examples --bin spa`: it serves both, on two ports. Ports of one host are
//! one *site*, so that the cookie comes along; for two sites the layer needs
//! `with_same_site(SameSite::None)`, and browsers that keep other sites' cookies.
//!
//! ```text
//! cargo add axum http sessions
//! cargo add tokio --features macros,net,rt-multi-thread
//! cargo add tower-http --features cors
//! ```

use axum::{Json, Router, response::Html, routing::get};
use http::{HeaderName, HeaderValue, Method, header};
use sessions::{Keys, MemoryStore, Session};
use tokio::net::TcpListener;
use tower_http::cors::CorsLayer;

#[derive(Session)]
struct Visitor {
    visits: u32,
}

const PAGE: &str = r#"<!doctype html><html lang=en><title>SPA</title><button>Visit</button> <output></output>
<script type=module>
  const api = "API";
  const call = (options) => fetch(api + "/visits", { credentials: "include", ...options });
  document.querySelector("button").onclick = async () => {
    const token = await (await fetch(api + "/token", { credentials: "include" })).text();
    const reply = await call({ method: "POST", headers: { "x-csrf-token": token } });
    document.querySelector("output").textContent = await reply.text();
  };
</script>"#;

/// The page's scripts ask for it once, and again after each login. It begins the session, if there is none.
async fn token(session: Session<Visitor>) -> sessions::Result<String> {
    session.csrf_token().await.map(|token| token.to_string())
}

async fn visits(session: Session<Visitor>) -> Json<u32> {
    Json(session.read().await.visits)
}

async fn visit(session: Session<Visitor>) -> Json<u32> {
    let mut s = session.write().await;
    *s.visits_mut() += 1;
    Json(s.visits)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let port = |at| std::env::args().nth(at).unwrap_or(format!("300{at}"));
    let page = TcpListener::bind(format!("127.0.0.1:{}", port(1))).await?;
    let api = TcpListener::bind(format!("127.0.0.1:{}", port(2))).await?;
    let page_origin = format!("http://{}", page.local_addr()?);
    let api_origin = format!("http://{}", api.local_addr()?);

    // Exactly the page's origin: with credentials a browser takes no `*`, and everybody's would be a hole.
    let cors = CorsLayer::new()
        .allow_origin(HeaderValue::try_from(&page_origin)?)
        .allow_credentials(true)
        .allow_methods([Method::GET, Method::POST])
        .allow_headers([header::CONTENT_TYPE, HeaderName::from_static("x-csrf-token")]);
    let csrf = Visitor::csrf_layer_builder().with_trusted_origin(&page_origin).build()?;
    let routes = Router::new()
        .route("/token", get(token))
        .route("/visits", get(visits).post(visit))
        .layer(csrf)
        .layer(cors)
        .layer(Visitor::layer(MemoryStore::new(), Keys::generate()));

    let html = PAGE.replace("API", &api_origin);
    let pages = Router::new().route("/", get(async move || Html(html)));
    println!("spa: the API is at {api_origin} and the page listens on {page_origin}");
    tokio::try_join!(axum::serve(page, pages), axum::serve(api, routes))?;
    Ok(())
}
