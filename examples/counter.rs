//! Counts visits: the smallest program with a session.
//!
//! Run it with `cargo run -p sessions-examples --bin counter`, and reload the page.
//!
//! ```text
//! cargo add axum sessions
//! cargo add tokio --features macros,net,rt-multi-thread
//! ```

use axum::{Router, routing::get};
use sessions::{Keys, MemoryStore, Session};
use tokio::net::TcpListener;

/// Each field is a key of the session. The derive makes the typed accessors.
#[derive(Session)]
struct Visitor {
    visits: u32,
}

async fn index(session: Session<Visitor>) -> String {
    // While the guard lives, other requests of this session wait, and nobody else does.
    let mut s = session.write().await;
    let visits = s.visits + 1;
    s.set_visits(visits);
    format!("{visits} visits")
    // Dropping the guard is all there is to do: the layer saves, and sends the cookie.
}

#[tokio::main]
async fn main() -> std::io::Result<()> {
    // A generated key and sessions in memory both end with the program. A real one reads its keys
    // with `Keys::from_env`, so that a restart logs nobody out.
    let app = Router::new()
        .route("/", get(index))
        .layer(Visitor::layer(MemoryStore::new(), Keys::generate()));

    let port = std::env::args().nth(1).unwrap_or("3000".to_string());
    let listener = TcpListener::bind(format!("127.0.0.1:{port}")).await?;
    println!("counter listens on http://{}", listener.local_addr()?);
    axum::serve(listener, app).await
}
