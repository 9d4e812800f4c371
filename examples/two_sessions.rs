//! Two kinds of session side by side: each visitor has one, and an administrator a second one,
//! whose cookie goes to one path only and whose limits are stricter.
//!
//! Run it with `cargo run -p sessions-examples --bin two_sessions`.
//!
//! ```text
//! cargo add axum sessions
//! cargo add tokio --features macros,net,rt-multi-thread
//! ```

use std::{error::Error, time::Duration};

use axum::{Router, response::Html, response::Redirect, routing::get, routing::post};
use sessions::{Keys, MemoryStore, SameSite, Session, SessionLayer};
use tokio::net::TcpListener;

#[derive(Session)]
struct Visitor {
    visits: u32,
}

#[derive(Session)]
struct Admin {
    logged_in: bool,
    actions: u32,
}

/// Asks for the visitor's session; the admin's is not even looked for.
async fn index(visitor: Session<Visitor>) -> Html<String> {
    let mut v = visitor.write().await;
    *v.visits_mut() += 1;
    Html(format!("<p>{} visits. <a href=/admin>Administration</a></p>", v.visits))
}

/// Asks for both. They are two locks, two records and two cookies.
async fn admin(visitor: Session<Visitor>, admin: Session<Admin>) -> Html<String> {
    // Reading makes no session: who does not log in gets no admin cookie.
    if !admin.read().await.logged_in {
        return Html("<form method=post action=/admin/login><button>Log in</button></form>".into());
    }
    let visits = visitor.read().await.visits;
    let logout = "<form method=post action=/admin/logout><button>Log out</button></form>";
    let mut a = admin.write().await;
    *a.actions_mut() += 1;
    Html(format!("<p>Action {}, after {visits} visits.</p>{logout}", a.actions))
}

async fn login(admin: Session<Admin>) -> Result<Redirect, sessions::Error> {
    // A real program checks a password here. A session that gains rights gets a new id.
    admin.renew_id().await?;
    admin.write().await.set_logged_in(true);
    Ok(Redirect::to("/admin"))
}

/// Ends the admin's session. The visitor's goes on.
async fn logout(admin: Session<Admin>) -> Result<Redirect, sessions::Error> {
    admin.destroy().await?;
    Ok(Redirect::to("/"))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // The keys can be shared: each type of session derives its own from them. So could a store be.
    let keys = Keys::generate();
    let visitors = SessionLayer::<Visitor>::new(MemoryStore::new(), keys.clone());
    let admins = SessionLayer::<Admin>::builder(MemoryStore::new(), keys)
        // A `__Host-` cookie goes to every path, so this one is `__Secure-`.
        .with_cookie_name("__Secure-admin")
        .with_cookie_path("/admin")
        .with_same_site(SameSite::Strict)
        .with_idle_timeout(Duration::from_secs(10 * 60))
        .with_absolute_timeout(Duration::from_secs(60 * 60))
        .build()?;

    let administration = Router::new()
        .route("/admin", get(admin))
        .route("/admin/login", post(login))
        .route("/admin/logout", post(logout))
        .layer(admins);
    let app = Router::new().route("/", get(index)).merge(administration).layer(visitors);

    let port = std::env::args().nth(1).unwrap_or("3000".to_string());
    let listener = TcpListener::bind(format!("127.0.0.1:{port}")).await?;
    println!("two_sessions listens on http://{}", listener.local_addr()?);
    Ok(axum::serve(listener, app).await?)
}
