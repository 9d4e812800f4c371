//! A login that survives a restart.

use std::{env, error::Error, time::Duration};

use axum::{Form, Router, response::Redirect, routing::get, routing::post};
use serde::Deserialize;
use sessions::{Keys, LoggedIn, Session, SqliteStore};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

#[derive(Session)]
struct Customer {
    #[session(user)]
    user: Option<u64>,
    cart: Vec<String>,
}

#[derive(Deserialize)]
struct Login {
    password: String,
}

async fn login(s: Session<Customer>, Form(form): Form<Login>) -> sessions::Result<Redirect> {
    // A real program looks the user up, and compares hashes.
    if form.password == "correct horse" {
        s.login(7).remember_for(30 * DAY).await?;
    }
    Ok(Redirect::to("/"))
}

async fn cart(LoggedIn { user, session }: LoggedIn<Customer>) -> String {
    let mut s = session.write().await;
    s.push_cart("teapot");
    format!("user {user}: {:?}", s.cart())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let store = SqliteStore::connect(&env::var("DATABASE")?).await?;
    store.migrate().await?;
    let layer = Customer::layer(store, Keys::from_env("SESSION_KEYS")?);
    let app = Router::new().route("/", get(cart)).route("/login", post(login));
    let app = app.layer(Customer::csrf_layer().origin_only()).layer(layer);
    let listener = tokio::net::TcpListener::bind(env::var("ADDRESS")?).await?;
    println!("listens on http://{}", listener.local_addr()?);
    Ok(axum::serve(listener, app).await?)
}
