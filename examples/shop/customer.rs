//! The routes of users. A login gives the session a new id; the old one is dead.

use std::{convert::Infallible, net::SocketAddr, time::Duration};

use axum::{
    Form, Router,
    extract::{ConnectInfo, Query, Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, Uri, header},
    middleware::{Next, from_fn},
    response::{
        Html, IntoResponse, Redirect, Response,
        sse::{Event, KeepAlive, Sse},
    },
    routing::{get, post},
};
use futures_util::stream::{self, Stream};
use serde::Deserialize;
use sessions::{
    BuildError, Device, Error, Lifetime, LoggedIn, RequireLogin, RequireLoginBuilder, Session,
    SessionEnd, local_path,
};

use crate::{
    accounts::Problem,
    pages::{
        Money,
        customer::{self as pages, Devices, Entries},
    },
    session::Visitor,
    shop::{MONTH, Shop, show},
};

/// A checkout takes a login that is not older than `recent`.
pub(crate) fn routes(recent: Duration) -> Result<Router<Shop>, BuildError> {
    let login = RequireLogin::<Visitor>::builder().with_login_page("/login");
    // The login page leads back to the page that somebody wanted to see. A form is not sent again by
    // that: for an order, it leads to the page that has the form.
    let to_checkout = RequireLogin::<Visitor>::builder().with_login_page("/login?next=/checkout");
    let recently =
        |login: &RequireLoginBuilder<Visitor>| login.clone().with_recent_login(recent).build();
    Ok(Router::new()
        .route("/account", get(account))
        .route("/account/live", get(live))
        .route("/account/end", post(end))
        .route("/account/end-others", post(end_others))
        .route("/account/password", post(password))
        .route_layer(login.clone().build()?)
        .route("/checkout", get(checkout).route_layer(recently(&login)?))
        .route("/checkout", post(order).route_layer(recently(&to_checkout)?))
        .route("/signup", get(signup_page).post(sign_up))
        .route("/login", get(login_page).post(log_in))
        .route("/logout", post(log_out))
        .layer(from_fn(no_store)))
}

/// Nobody finds these pages with the back button after a logout.
async fn no_store(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Where a login leads to. It comes from outside, so it may lead anywhere.
#[derive(Deserialize)]
struct Way {
    next: Option<String>,
}

fn checked(next: &Option<String>) -> Option<&str> {
    next.as_deref().and_then(local_path)
}

async fn signup_page(
    uri: Uri,
    session: Session<Visitor>,
    Query(way): Query<Way>,
) -> Result<Html<String>, Error> {
    let entries = Entries { next: checked(&way.next), ..Entries::default() };
    show(&session, &uri.to_string(), "New account", |page| pages::signup(page, &entries)).await
}

async fn login_page(
    uri: Uri,
    session: Session<Visitor>,
    Query(way): Query<Way>,
) -> Result<Html<String>, Error> {
    let entries = Entries { next: checked(&way.next), ..Entries::default() };
    show(&session, &uri.to_string(), "Log in", |page| pages::login(page, &entries)).await
}

#[derive(Deserialize)]
struct LoginForm {
    name: String,
    password: String,
    /// A browser sends nothing for a box that is not ticked.
    #[serde(default)]
    remember: bool,
    next: Option<String>,
}

impl LoginForm {
    /// What was typed, to go on from; the password is to be typed again.
    fn refused(&self, problem: Problem) -> Entries<'_> {
        let (next, problem) = (checked(&self.next), Some(problem));
        Entries { name: &self.name, remember: self.remember, next, problem }
    }

    fn lead_on(&self) -> Redirect {
        Redirect::to(checked(&self.next).unwrap_or("/account"))
    }
}

async fn sign_up(
    State(shop): State<Shop>,
    ConnectInfo(client): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    session: Session<Visitor>,
    Form(mut form): Form<LoginForm>,
) -> Result<Response, Error> {
    let password = std::mem::take(&mut form.password);
    match shop.accounts.sign_up(&form.name, password).await {
        Ok(user) => {
            // The store may outlive the accounts: who had this name before is another customer.
            if let Some(devices) = &shop.devices {
                devices.end_all(&user).await?;
            }
            let welcome = format!("Welcome, {user}! You have an account now, and are logged in.");
            begin(&session, user, form.remember, device(&headers, client)).await?;
            session.write().await.set_notice(welcome);
            Ok(form.lead_on().into_response())
        }
        Err(problem) => {
            let entries = form.refused(problem);
            let page =
                show(&session, "/signup", "New account", |page| pages::signup(page, &entries));
            Ok((StatusCode::UNPROCESSABLE_ENTITY, page.await?).into_response())
        }
    }
}

async fn log_in(
    State(shop): State<Shop>,
    ConnectInfo(client): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    session: Session<Visitor>,
    Form(mut form): Form<LoginForm>,
) -> Result<Response, Error> {
    let password = std::mem::take(&mut form.password);
    match shop.accounts.check(&form.name, password).await {
        Some(user) => {
            let welcome = format!("Welcome back, {user}!");
            begin(&session, user, form.remember, device(&headers, client)).await?;
            session.write().await.set_notice(welcome);
            Ok(form.lead_on().into_response())
        }
        None => {
            // Not which of the two: that would tell who has an account.
            let entries = form.refused("There is no account with this name and this password.");
            let page = show(&session, "/login", "Log in", |page| pages::login(page, &entries));
            Ok((StatusCode::UNPROCESSABLE_ENTITY, page.await?).into_response())
        }
    }
}

/// The shop is asked directly. Behind a proxy the client's address is in a header, which only counts
/// if that proxy has set it.
fn device(headers: &HeaderMap, client: SocketAddr) -> Device {
    Device::from_headers(headers).with_address(client.ip())
}

/// Makes the session this customer's. What a visitor has put into the cart comes along; what another
/// customer has does not.
async fn begin(
    session: &Session<Visitor>,
    user: String,
    remember: bool,
    device: Device,
) -> Result<(), Error> {
    session.login(user).remember_for(remember.then_some(MONTH)).with_device(device).await?;
    let is_remembered = session.lifetime() != Lifetime::new();
    session.write().await.set_remembered(is_remembered);
    Ok(())
}

/// The notice is the first thing in another session, with another cookie.
async fn log_out(session: Session<Visitor>) -> Result<Redirect, Error> {
    session.logout().await?;
    session.write().await.set_notice("You are logged out.");
    Ok(Redirect::to("/"))
}

async fn account(
    State(shop): State<Shop>,
    LoggedIn { user, session }: LoggedIn<Visitor>,
) -> Result<Html<String>, Error> {
    account_page(&shop, &user, &session, None).await
}

async fn account_page(
    shop: &Shop,
    user: &String,
    session: &Session<Visitor>,
    problem: Option<Problem>,
) -> Result<Html<String>, Error> {
    let devices = match &shop.devices {
        Some(devices) => {
            let (mut list, this) = (devices.list(user).await?, session.store_key());
            list.sort_by_key(|info| Some(info.key) != this);
            Devices::Known(list, this)
        }
        None => Devices::Unknown,
    };
    show(session, "/account", "Your account", |page| pages::account(page, &devices, problem)).await
}

/// Tells an open page when its login has ended, by a click on "log out everywhere" in another browser for
/// example. It goes on when the response has left, and is no use of the session: a page that is left open
/// does not keep anybody logged in.
async fn live(
    State(shop): State<Shop>,
    LoggedIn { session, .. }: LoggedIn<Visitor>,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let ended = session.without_refresh().ended();
    let mut stopping = shop.stopping;
    let news = async move {
        let news = tokio::select! {
            end = ended => match end {
                SessionEnd::Renewed => "renewed",
                _ => "ended",
            },
            _ = stopping.changed() => "stopping",
        };
        // An event without data is none to a browser.
        Ok(Event::default().event(news).data(news))
    };
    Sse::new(stream::once(news)).keep_alive(KeepAlive::default())
}

#[derive(Deserialize)]
struct EndForm {
    session: String,
}

/// Only sessions of this customer are looked through, whatever the form says.
async fn end(
    State(shop): State<Shop>,
    LoggedIn { user, session }: LoggedIn<Visitor>,
    Form(form): Form<EndForm>,
) -> Result<Redirect, Error> {
    let mut has_ended = false;
    if let Some(devices) = &shop.devices {
        let list = devices.list(&user).await?;
        if let Some(info) = list.iter().find(|info| info.key.to_string() == form.session) {
            has_ended = devices.end(&user, &info.key).await?;
        }
    }
    let notice =
        if has_ended { "That device is logged out." } else { "That login had ended already." };
    session.write().await.set_notice(notice);
    Ok(Redirect::to("/account"))
}

async fn end_others(
    State(shop): State<Shop>,
    LoggedIn { session, .. }: LoggedIn<Visitor>,
) -> Result<Redirect, Error> {
    let notice = match &shop.devices {
        Some(devices) => match devices.end_others(&session).await? {
            0 => "You were not logged in anywhere else.".to_string(),
            1 => "One other login has ended.".to_string(),
            ended => format!("{ended} other logins have ended."),
        },
        None => "This shop cannot tell where else you are logged in.".to_string(),
    };
    session.write().await.set_notice(notice);
    Ok(Redirect::to("/account"))
}

#[derive(Deserialize)]
struct PasswordForm {
    old: String,
    new: String,
}

/// A thief who knew the old password may be logged in: so all other sessions end, and this one goes on
/// under another id.
async fn password(
    State(shop): State<Shop>,
    LoggedIn { user, session }: LoggedIn<Visitor>,
    Form(form): Form<PasswordForm>,
) -> Result<Response, Error> {
    if let Err(problem) = shop.accounts.change_password(&user, form.old, form.new).await {
        let page = account_page(&shop, &user, &session, Some(problem)).await?;
        return Ok((StatusCode::UNPROCESSABLE_ENTITY, page).into_response());
    }
    session.renew_id().await?;
    let notice = match &shop.devices {
        Some(devices) => {
            devices.end_others(&session).await?;
            "You have a new password. Wherever else you were logged in, you are logged out."
        }
        None => "You have a new password. Please log out yourself wherever else you are logged in.",
    };
    session.write().await.set_notice(notice);
    Ok(Redirect::to("/account").into_response())
}

async fn checkout(LoggedIn { session, .. }: LoggedIn<Visitor>) -> Result<Html<String>, Error> {
    show(&session, "/checkout", "Your order", pages::checkout).await
}

/// Of two orders at once one finds the cart, and the other finds it empty.
async fn order(LoggedIn { user, session }: LoggedIn<Visitor>) -> Redirect {
    let mut s = session.write().await;
    let (pieces, total) = (s.pieces(), Money(s.total()));
    s.take_cart();
    if pieces == 0 {
        s.set_notice("There was nothing in your cart.");
    } else {
        let noun = if pieces == 1 { "piece" } else { "pieces" };
        s.set_notice(format!("Thank you, {user}! Your order: {pieces} {noun} for {total}."));
    }
    Redirect::to("/")
}
