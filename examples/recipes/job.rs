//! A job in the background that ends sessions: of accounts that were suspended, as by an administrator, a
//! fraud check or a message from elsewhere.
//!
//! Run it with `cargo run -p sessions-examples --bin job`: log in at `/login/7`, and suspend `/suspend/7`.
//!
//! ```text
//! cargo add axum sessions
//! cargo add tokio --features macros,net,rt-multi-thread,sync
//! ```

use axum::{
    Router,
    extract::{Path, State},
    routing::get,
};
use sessions::{Keys, LoggedIn, MemoryStore, Session, UserSessions};
use tokio::{net::TcpListener, sync::mpsc};

#[derive(Session)]
struct Member {
    #[session(user)]
    user: Option<u64>,
}

async fn index(LoggedIn { user, .. }: LoggedIn<Member>) -> String {
    format!("member {user}")
}

async fn login(Path(user): Path<u64>, session: Session<Member>) -> sessions::Result<()> {
    session.login(user).await // a real program asks for a password, and whether the account is suspended
}

async fn suspend(Path(user): Path<u64>, State(suspended): State<mpsc::Sender<u64>>) {
    // A real program notes it in its database first, so that nobody logs in again.
    let _ = suspended.send(user).await;
}

/// Ends every session of each suspended account: in all processes, and for requests under way.
async fn end_sessions(sessions: UserSessions<Member>, mut suspended: mpsc::Receiver<u64>) {
    while let Some(user) = suspended.recv().await {
        match sessions.end_all(&user).await {
            Ok(count) => println!("member {user} is suspended: {count} sessions ended"),
            // A real program tries again later: until then the sessions go on.
            Err(error) => eprintln!("the sessions of member {user} go on: {error}"),
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let layer = Member::layer(MemoryStore::new(), Keys::generate());
    let (sender, receiver) = mpsc::channel(100);
    tokio::spawn(end_sessions(layer.user_sessions()?, receiver));
    let app = Router::new()
        .route("/", get(index))
        .route("/login/{user}", get(login))
        .route("/suspend/{user}", get(suspend))
        .with_state(sender)
        .layer(layer);

    let port = std::env::args().nth(1).unwrap_or("3000".to_string());
    let listener = TcpListener::bind(format!("127.0.0.1:{port}")).await?;
    println!("job listens on http://{}", listener.local_addr()?);
    Ok(axum::serve(listener, app).await?)
}
