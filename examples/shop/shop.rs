//! The shop's routes. Each handler opens a guard, does one thing, and lets the layer save.

use std::{sync::Arc, time::Duration};

use axum::{
    Form, Router,
    body::{Body, to_bytes},
    extract::{Path, Request},
    http::{HeaderValue, StatusCode, header},
    middleware::{Next, from_fn},
    response::{Html, IntoResponse, Redirect, Response},
    routing::{get, post},
};
use serde::Deserialize;
use sessions::{BuildError, Error, ErrorKind, Lifetime, Session, UserSessions, local_path};
use tokio::sync::watch;

use crate::{
    accounts::Accounts,
    catalogue::{self, PRODUCTS},
    customer,
    pages::{self, Page},
    session::{Theme, Visitor},
};

pub(crate) const MONTH: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// What the handlers share.
#[derive(Clone)]
pub(crate) struct Shop {
    pub(crate) accounts: Arc<Accounts>,
    /// Where a customer is logged in; `None` on a store that cannot tell.
    pub(crate) devices: Option<UserSessions<Visitor>>,
    /// How old a login may be at the checkout.
    pub(crate) recent_login: Duration,
    /// Changes when the shop closes.
    pub(crate) stopping: watch::Receiver<()>,
}

/// All of the shop, without its sessions.
pub(crate) fn router(shop: Shop) -> Result<Router, BuildError> {
    let customers = customer::routes(shop.recent_login)?;
    Ok(Router::new()
        .merge(customers)
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
        .route("/account.js", get(|| asset("text/javascript", include_str!("account.js"))))
        .fallback(not_found)
        .with_state(shop)
        // What is added later is passed earlier.
        .layer(Visitor::csrf_layer())
        .layer(from_fn(refusals_are_pages))
        .layer(from_fn(security_headers)))
}

/// A page with forms. The visit is counted, so each visitor has a session from now on.
pub(crate) async fn show(
    session: &Session<Visitor>,
    path: &str,
    title: &str,
    content: impl FnOnce(&Page<'_>) -> String,
) -> Result<Html<String>, Error> {
    // Saved at once, so that no other process can show the same notice.
    let notice = unless_ended(session.update(|s| s.open_page()).await)?.flatten();
    // It belongs to the session's id, so it comes after whatever could give it another.
    let token = Some(session.csrf_token().await?);
    let visitor = &session.read().await;
    let page = Page { path, title, visitor, notice, token };
    Ok(page.html(content(&page)))
}

/// A session that another request has ended or renewed a moment ago can be shown all the same, as one
/// that has nothing in it; only nothing is kept.
fn unless_ended<R>(result: Result<R, Error>) -> Result<Option<R>, Error> {
    match result {
        Err(error) if error.kind() == ErrorKind::Ended => Ok(None),
        result => result.map(Some),
    }
}

/// A page that only reads: a visitor without a session gets none.
async fn show_quietly(
    session: &Session<Visitor>,
    path: &str,
    title: &str,
    content: impl FnOnce(&Page<'_>) -> String,
) -> Result<Html<String>, Error> {
    let token = if session.began_in_request() { None } else { Some(session.csrf_token().await?) };
    let visitor = &session.read().await;
    let page = Page { path, title, visitor, notice: None, token };
    Ok(page.html(content(&page)))
}

async fn products(session: Session<Visitor>) -> Result<Html<String>, Error> {
    show(&session, "/", "Stoneware for every day", |page| pages::products(page, &PRODUCTS)).await
}

async fn product(Path(id): Path<String>, session: Session<Visitor>) -> Result<Response, Error> {
    let Some(product) = catalogue::find(&id) else { return not_found(session).await };
    session.write().await.look_at(product.id);
    let path = format!("/products/{id}");
    let page = show(&session, &path, product.name, |page| pages::product(page, product)).await?;
    Ok(page.into_response())
}

async fn cart(session: Session<Visitor>) -> Result<Html<String>, Error> {
    show(&session, "/cart", "Your cart", pages::cart).await
}

#[derive(Deserialize)]
struct Pieces {
    product: String,
    pieces: u32,
}

/// The forms answer with 303 See Other, so that reloading the page that follows repeats nothing.
async fn add(session: Session<Visitor>, Form(form): Form<Pieces>) -> Result<Response, Error> {
    let Some(product) = catalogue::find(&form.product) else { return not_found(session).await };
    let mut s = session.write().await;
    let pieces = s.pieces_of(product.id).saturating_add(form.pieces);
    s.set_pieces(product.id, pieces);
    let pieces = s.pieces_of(product.id);
    s.set_notice(format!("In your cart: {pieces} × {}.", product.name));
    Ok(Redirect::to("/cart").into_response())
}

async fn set(session: Session<Visitor>, Form(form): Form<Pieces>) -> Result<Response, Error> {
    let Some(product) = catalogue::find(&form.product) else { return not_found(session).await };
    let mut s = session.write().await;
    s.set_pieces(product.id, form.pieces);
    let notice = match s.pieces_of(product.id) {
        0 => format!("No longer in your cart: {}.", product.name),
        pieces => format!("Now in your cart: {pieces} × {}.", product.name),
    };
    s.set_notice(notice);
    Ok(Redirect::to("/cart").into_response())
}

#[derive(Deserialize)]
struct ThemeForm {
    theme: Theme,
    back: String,
}

async fn theme(session: Session<Visitor>, Form(form): Form<ThemeForm>) -> Redirect {
    session.write().await.set_theme(form.theme);
    // Only to pages of ours: `//elsewhere.example` would leave the shop.
    Redirect::to(local_path(&form.back).unwrap_or("/"))
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
    unless_ended(session.save().await)?;
    let times = [session.created_at(), session.expires_at()];
    let token = Some(session.csrf_token().await?);
    let visitor = &session.read().await;
    let page = Page { path: "/session", title: "Your session", visitor, notice, token };
    Ok(page.html(pages::session(&page, &before, &after, times)))
}

#[derive(Deserialize)]
struct NameForm {
    name: String,
}

async fn name(session: Session<Visitor>, Form(form): Form<NameForm>) -> Redirect {
    let name: String = form.name.trim().chars().take(40).collect();
    let mut s = session.write().await;
    if name.is_empty() {
        s.clear_name();
        s.set_notice("You have no name now.");
    } else {
        s.set_notice(format!("Hello, {name}!"));
        s.set_name(name);
    }
    Redirect::to("/session")
}

async fn renew(session: Session<Visitor>) -> Result<Redirect, Error> {
    let done = Redirect::to("/session");
    match session.renew_id().await {
        Ok(()) => {
            session.write().await.set_notice(
                "Your session has a new id, and your browser a new cookie. The old one opens \
                 nothing any more.",
            );
            Ok(done)
        }
        // The second click of a double click: the first has ended the id that both have brought.
        Err(error) if error.kind() == ErrorKind::Ended => Ok(done),
        Err(error) => Err(error),
    }
}

#[derive(Deserialize)]
struct RememberForm {
    remember: bool,
}

async fn remember(session: Session<Visitor>, Form(form): Form<RememberForm>) -> Redirect {
    let mut s = session.write().await;
    s.set_remembered(form.remember);
    if form.remember {
        session.set_lifetime(
            Lifetime::new()
                .with_idle_timeout(MONTH)
                .with_absolute_timeout(MONTH)
                .with_persistent_cookie(),
        );
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

/// A read alone begins no session: a visitor who was forgotten stays so.
async fn forgotten(session: Session<Visitor>) -> Result<Html<String>, Error> {
    show_quietly(&session, "/forgotten", "You are forgotten", |_| pages::FORGOTTEN.into()).await
}

async fn race(session: Session<Visitor>) -> Result<Html<String>, Error> {
    show(&session, "/race", "A race", |_| pages::RACE.into()).await
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

async fn not_found(session: Session<Visitor>) -> Result<Response, Error> {
    let page = show_quietly(&session, "", "There is no such page", |_| pages::NOT_FOUND.into());
    Ok((StatusCode::NOT_FOUND, page.await?).into_response())
}

async fn asset(kind: &'static str, text: &'static str) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, kind)], text)
}

/// What the layers and extractors refuse, they refuse in a line of text: a page makes it readable.
async fn refusals_are_pages(request: Request, next: Next) -> Response {
    let extensions = request.extensions().clone();
    let (mut parts, body) = next.run(request).await.into_parts();
    let is_text = |kind: &HeaderValue| kind.as_bytes().starts_with(b"text/plain");
    let is_refusal = parts.status.is_client_error() || parts.status.is_server_error();
    if !is_refusal || !parts.headers.get(header::CONTENT_TYPE).is_some_and(is_text) {
        return Response::from_parts(parts, body);
    }
    let words = to_bytes(body, 4096).await.unwrap_or_default();
    let words = String::from_utf8_lossy(&words);
    let page = match Session::open(&extensions).await {
        Ok(session) => {
            let content = |_: &Page<'_>| pages::refused(&words);
            show_quietly(&session, "", "That was not done", content).await
        }
        Err(error) => Err(error),
    };
    let (kind, text) = match page {
        Ok(Html(page)) => ("text/html; charset=utf-8", page),
        // There is no session to be had, and this may be the very reason for the refusal.
        Err(_) => ("text/plain; charset=utf-8", words.into_owned()),
    };
    parts.headers.remove(header::CONTENT_LENGTH);
    parts.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    Response::from_parts(parts, Body::from(text))
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
