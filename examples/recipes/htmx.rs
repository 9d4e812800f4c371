//! htmx: a request that needs a login makes htmx go to the login page, and not swap that page into this one.
//!
//! Run it with `cargo run -p sessions-examples --bin htmx`.
//!
//! ```text
//! cargo add axum http sessions
//! cargo add tokio --features macros,net,rt-multi-thread
//! ```

use axum::{
    Router,
    response::{Html, IntoResponse, Redirect, Response},
    routing::{get, post},
};
use http::{StatusCode, request::Parts};
use sessions::{Keys, LoggedIn, MemoryStore, Rejection, Session};
use tokio::net::TcpListener;

#[derive(Session)]
struct Reader {
    #[session(user)]
    user: Option<u64>,
    likes: u32,
}

/// htmx sends what stands in `hx-headers` with each request: the token is a header, and no form needs a field.
async fn page(session: Session<Reader>) -> sessions::Result<Html<String>> {
    let token = session.csrf_token().await?;
    Ok(Html(format!(
        r#"<!doctype html><html lang=en><title>htmx</title>
<script src="https://unpkg.com/htmx.org@2.0.4"></script>
<body hx-headers='{{"x-csrf-token": "{token}"}}'>
<button hx-post="/like" hx-swap="outerHTML">Like</button>"#
    )))
}

/// A piece of the page.
async fn like(LoggedIn { session, .. }: LoggedIn<Reader>) -> Html<String> {
    let mut s = session.write().await;
    *s.likes_mut() += 1;
    Html(format!("<p>{} likes</p>", s.likes))
}

async fn login_page() -> Html<&'static str> {
    Html("<form method=post><button>Log in</button></form>")
}

async fn login(session: Session<Reader>) -> sessions::Result<Redirect> {
    session.login(7).await?; // a real program asks for a password
    Ok(Redirect::to("/"))
}

/// htmx follows a redirect by itself, and would swap in what it finds there: it has to be told where to go.
fn rejected(rejection: &Rejection, request: &Parts) -> Response {
    match rejection.login_page() {
        Some(login) if request.headers.contains_key("hx-request") => {
            (StatusCode::UNAUTHORIZED, [("hx-redirect", login)]).into_response()
        }
        _ => rejection.response().into_response(),
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let members = Reader::require_login_builder()
        .with_login_page("/login")
        .with_rejection_response(rejected)
        .build()?;
    let app = Router::new()
        .route("/like", post(like))
        .route_layer(members)
        .route("/", get(page))
        .layer(Reader::csrf_layer())
        // Outside of the check for tokens: who comes here has no session yet.
        .merge(Router::new().route("/login", get(login_page).post(login)))
        .layer(Reader::layer(MemoryStore::new(), Keys::generate()));

    let port = std::env::args().nth(1).unwrap_or("3000".to_string());
    let listener = TcpListener::bind(format!("127.0.0.1:{port}")).await?;
    println!("htmx listens on http://{}", listener.local_addr()?);
    Ok(axum::serve(listener, app).await?)
}
