//! actix-web: the same session, login and guards as in axum.
//!
//! Run it with `cargo run -p sessions-examples --bin actix`, and open it in a browser.
//!
//! ```text
//! cargo add actix-web --no-default-features
//! cargo add sessions --features actix
//! cargo add tokio --features macros,rt-multi-thread
//! ```

use actix_web::{App, HttpResponse, HttpServer, web};
use sessions::{CsrfLayer, CsrfToken, Keys, LoggedIn, MemoryStore, Session};

#[derive(Session)]
struct Customer {
    #[session(user)]
    user: Option<u64>,
    visits: u32,
}

fn html(body: String) -> HttpResponse {
    HttpResponse::Ok().content_type("text/html; charset=utf-8").body(body)
}

async fn index(session: Session<Customer>, token: CsrfToken<Customer>) -> HttpResponse {
    // While the guard lives, other requests of this session wait, in all workers.
    let mut s = session.write().await;
    let visits = s.visits() + 1;
    s.set_visits(visits);
    html(format!(
        r#"<p>{visits} visits</p><p><a href="/members">for members</a></p>
           <form method="post" action="/login">
             <input type="hidden" name="csrf_token" value="{token}"><button>Log in</button>
           </form>"#
    ))
}

async fn login(session: Session<Customer>) -> sessions::Result<HttpResponse> {
    session.login(7).await?;
    Ok(HttpResponse::SeeOther().insert_header(("location", "/members")).finish())
}

async fn logout(session: Session<Customer>) -> sessions::Result<HttpResponse> {
    session.logout().await?;
    Ok(HttpResponse::SeeOther().insert_header(("location", "/")).finish())
}

async fn members(
    LoggedIn { user, .. }: LoggedIn<Customer>,
    token: CsrfToken<Customer>,
) -> HttpResponse {
    html(format!(
        r#"<p>Customer {user}</p>
           <form method="post" action="/members/logout">
             <input type="hidden" name="csrf_token" value="{token}"><button>Log out</button>
           </form>"#
    ))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // One layer for all workers: they share its sessions and its locks.
    let layer = Customer::layer(MemoryStore::new(), Keys::generate());
    let only_users = Customer::require_login_builder().with_login_page("/").build()?;
    let app = {
        let layer = layer.clone();
        move || {
            let members = web::scope("/members")
                .route("", web::get().to(members))
                .route("/logout", web::post().to(logout))
                .wrap(only_users.clone());
            App::new()
                .route("/", web::get().to(index))
                .route("/login", web::post().to(login))
                .service(members)
                .wrap(CsrfLayer::<Customer>::new())
                // Outside of it: what is added later is passed earlier.
                .wrap(layer.clone())
        }
    };

    let port = std::env::args().nth(1).unwrap_or("3000".to_string());
    let server = HttpServer::new(app).bind(format!("127.0.0.1:{port}"))?;
    println!("actix listens on http://{}", server.addrs()[0]);
    server.run().await?;
    layer.wait_for_background_saves().await;
    Ok(())
}
