//! The shop's routes. Each handler opens a guard, does one thing, and lets the layer save.

use std::time::Duration;

use axum::{
    Form, Router,
    extract::{Path, Request},
    http::{HeaderValue, StatusCode, header},
    middleware::{Next, from_fn},
    response::{Html, IntoResponse, Redirect, Response},
    routing::{get, post},
};
use serde::Deserialize;
use sessions::{Error, ErrorKind, Lifetime, Session};

use crate::{
    catalogue::{self, PRODUCTS},
    pages::{self, Page},
    session::{Theme, Visitor},
};

/// All of the shop, without its sessions.
pub(crate) fn router() -> Router {
    Router::new()
        .route("/", get(products))
        .route("/products/{id}", get(product))
        .route("/cart", get(cart))
        .route("/cart/add", post(add))
        .route("/cart/set", post(set))
        .route("/theme", post(theme))
        .route("/session", get(session_page))
        .route("/session/name", post(name))
        .route("/session/renew", post(renew))
        .route("/session/remember", post(remember))
        .route("/session/forget", post(forget))
        .route("/forgotten", get(forgotten))
        .route("/race", get(race))
        .route("/race/arrive", post(arrive))
        .route("/race/finish", post(finish))
        .route("/style.css", get(|| asset("text/css", include_str!("style.css"))))
        .route("/app.js", get(|| asset("text/javascript", include_str!("app.js"))))
        .fallback(not_found)
        .layer(from_fn(security_headers))
}

async fn products(session: Session<Visitor>) -> Html<String> {
    let mut s = session.write().await;
    let notice = s.open_page();
    Page { path: "/", title: "Stoneware for every day", visitor: &s, notice }
        .html(pages::products(&s, &PRODUCTS))
}

async fn product(Path(id): Path<String>, session: Session<Visitor>) -> Response {
    let Some(product) = catalogue::find(&id) else { return not_found(session).await };
    let mut s = session.write().await;
    let notice = s.open_page();
    s.look_at(product.id);
    let path = format!("/products/{id}");
    Page { path: &path, title: product.name, visitor: &s, notice }
        .html(pages::product(&s, product))
        .into_response()
}

async fn cart(session: Session<Visitor>) -> Html<String> {
    let mut s = session.write().await;
    let notice = s.open_page();
    Page { path: "/cart", title: "Your cart", visitor: &s, notice }.html(pages::cart(&s))
}

#[derive(Deserialize)]
struct Pieces {
    product: String,
    pieces: u32,
}

/// The forms answer with 303 See Other, so that reloading the page that follows repeats nothing.
async fn add(session: Session<Visitor>, Form(form): Form<Pieces>) -> Response {
    let Some(product) = catalogue::find(&form.product) else { return not_found(session).await };
    let mut s = session.write().await;
    let pieces = s.pieces_of(product.id).saturating_add(form.pieces);
    s.set_pieces(product.id, pieces);
    let pieces = s.pieces_of(product.id);
    s.set_notice(format!("In your cart: {pieces} × {}.", product.name));
    Redirect::to("/cart").into_response()
}

async fn set(session: Session<Visitor>, Form(form): Form<Pieces>) -> Response {
    let Some(product) = catalogue::find(&form.product) else { return not_found(session).await };
    let mut s = session.write().await;
    s.set_pieces(product.id, form.pieces);
    let notice = match s.pieces_of(product.id) {
        0 => format!("No longer in your cart: {}.", product.name),
        pieces => format!("Now in your cart: {pieces} × {}.", product.name),
    };
    s.set_notice(notice);
    Redirect::to("/cart").into_response()
}

#[derive(Deserialize)]
struct ThemeForm {
    theme: Theme,
    back: String,
}

async fn theme(session: Session<Visitor>, Form(form): Form<ThemeForm>) -> Redirect {
    session.write().await.set_theme(form.theme);
    // Only to pages of ours: `//elsewhere.example` would leave the shop.
    let ours = form.back.starts_with('/')
        && !form.back.starts_with("//")
        && form.back.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/-".contains(&byte));
    Redirect::to(if ours { &form.back } else { "/" })
}

/// Shows the session from inside: what is dirty before and after this page's own writes, and the
/// times as they stand once those are saved.
async fn session_page(session: Session<Visitor>) -> Result<Html<String>, Error> {
    let (before, after, notice) = {
        let mut s = session.write().await;
        let before = s.all();
        let notice = s.open_page();
        (before, s.all(), notice)
    };
    // The layer would save as well, only later: this is for the times below.
    session.save().await?;
    let times = [session.created_at(), session.expires_at()];
    let s = session.read().await;
    Ok(Page { path: "/session", title: "Your session", visitor: &s, notice }
        .html(pages::session(&s, &before, &after, times)))
}

#[derive(Deserialize)]
struct NameForm {
    name: String,
}

async fn name(session: Session<Visitor>, Form(form): Form<NameForm>) -> Redirect {
    let name: String = form.name.trim().chars().take(40).collect();
    let mut s = session.write().await;
    if name.is_empty() {
        s.clear_name().set_notice("You have no name now.");
    } else {
        s.set_notice(format!("Hello, {name}!")).set_name(name);
    }
    Redirect::to("/session")
}

async fn renew(session: Session<Visitor>) -> Result<Redirect, Error> {
    let done = Redirect::to("/session");
    // The second click of a double click brings the id that the first has ended. Nothing may be
    // written for it: that would begin another session, whose cookie replaces the renewed one.
    if session.is_new() {
        return Ok(done);
    }
    match session.renew_id().await {
        Ok(()) => {
            session.write().await.set_notice(
                "Your session has a new id, and your browser a new cookie. The old one opens \
                 nothing any more.",
            );
            Ok(done)
        }
        Err(error) if error.kind() == ErrorKind::Ended => Ok(done),
        Err(error) => Err(error),
    }
}

#[derive(Deserialize)]
struct RememberForm {
    remember: bool,
}

async fn remember(session: Session<Visitor>, Form(form): Form<RememberForm>) -> Redirect {
    const MONTH: Duration = Duration::from_secs(30 * 24 * 60 * 60);
    let mut s = session.write().await;
    s.set_remembered(form.remember);
    if form.remember {
        session.set_lifetime(Lifetime::new().idle(MONTH).absolute(MONTH).persistent(true));
        s.set_notice("You will be remembered for 30 days, even if you close the browser.");
    } else {
        session.set_lifetime(Lifetime::new());
        s.set_notice("The shop's usual limits apply again.");
    }
    Redirect::to("/session")
}

async fn forget(session: Session<Visitor>) -> Result<Redirect, Error> {
    session.destroy().await?;
    Ok(Redirect::to("/forgotten"))
}

/// A read alone begins no session: whoever was forgotten stays so.
async fn forgotten(session: Session<Visitor>) -> Html<String> {
    let s = session.read().await;
    Page { path: "/forgotten", title: "You are forgotten", visitor: &s, notice: None }
        .html(pages::FORGOTTEN)
}

async fn race(session: Session<Visitor>) -> Html<String> {
    let mut s = session.write().await;
    let notice = s.open_page();
    Page { path: "/race", title: "A race", visitor: &s, notice }.html(pages::RACE)
}

/// Reads, dawdles, writes. Fifty of these at once are still fifty in the end, because the others
/// wait at `write()` while one of them sleeps.
async fn arrive(session: Session<Visitor>) -> String {
    let mut s = session.write().await;
    let arrivals = s.arrivals;
    tokio::time::sleep(Duration::from_millis(20)).await;
    s.set_arrivals(arrivals + 1);
    s.arrivals.to_string()
}

/// How many have arrived; the next race starts at nought.
async fn finish(session: Session<Visitor>) -> String {
    session.write().await.take_arrivals().to_string()
}

async fn not_found(session: Session<Visitor>) -> Response {
    let s = session.read().await;
    let page = Page { path: "", title: "There is no such page", visitor: &s, notice: None };
    (StatusCode::NOT_FOUND, page.html(pages::NOT_FOUND)).into_response()
}

async fn asset(kind: &'static str, text: &'static str) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, kind)], text)
}

/// Nothing may come from anywhere else, nor be written into the page itself.
async fn security_headers(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    for (name, value) in [
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
             img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
        ),
        (header::REFERRER_POLICY, "same-origin"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}
