//! Requests that another site makes a browser send.

use std::{convert::Infallible, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::Request,
    response::{IntoResponse, Response},
    routing::{any, get, post},
};
use http::{HeaderName, HeaderValue, Method, StatusCode, header, request::Parts};
use http_body_util::{Full, StreamBody};
use hyper::body::{Bytes, Frame};
use sessions::{
    CsrfLayer, CsrfToken, ErrorKind, Keys, MemoryStore, OriginCheck, PrivateCookie, Rejection,
    Session, SessionLayer,
    testing::{Calls, Operation, TestClient},
};
use sessions_tests::{Client, Reply, Server, at_once, eventually};
use tokio_stream::StreamExt;
use tower::{Service, ServiceBuilder, ServiceExt};

use crate::{App, COOKIE, Visitor, basics};

type Sent = http::Request<Full<Bytes>>;

const FORM: &str = "application/x-www-form-urlencoded";

/// A page with a form, where the form goes to, and a route that does nothing with its session.
fn shop(layer: CsrfLayer<Visitor>) -> Router {
    Router::new()
        .route("/token", get(token))
        .route("/buy", any(buy))
        .route("/still", any(async || "nothing"))
        .layer(layer)
}

fn checked() -> Router {
    shop(CsrfLayer::new())
}

async fn token(session: Session<Visitor>) -> sessions::Result<String> {
    Ok(session.csrf_token().await?.to_string())
}

/// Writes, and sends back what has arrived.
async fn buy(session: Session<Visitor>, body: Bytes) -> Bytes {
    *session.write().await.visits_mut() += 1;
    body
}

fn request(method: Method, path: &str, headers: &[(&str, &str)], body: &str) -> Sent {
    let mut request = http::Request::new(Full::from(body.to_string()));
    *request.method_mut() = method;
    *request.uri_mut() = path.parse().unwrap();
    for (name, value) in headers {
        let name: HeaderName = name.parse().unwrap();
        request.headers_mut().append(name, HeaderValue::from_str(value).unwrap());
    }
    request
}

async fn buy_with(client: &Client, headers: &[(&str, &str)]) -> Reply {
    client.call(request(Method::POST, "/buy", headers, "")).await
}

async fn send_form(client: &Client, form: &str) -> Reply {
    client.call(request(Method::POST, "/buy", &[("content-type", FORM)], form)).await
}

/// A browser with the page in it.
async fn shopper(app: &App) -> (Client, String) {
    let client = app.client();
    let token = client.get("/token").await.text().to_string();
    (client, token)
}

fn is_refused(reply: &Reply) -> bool {
    reply.status == StatusCode::FORBIDDEN && !reply.body.is_empty()
}

#[tokio::test]
async fn a_token_in_the_header_or_in_the_form_is_good() {
    let app = App::start(checked()).await;
    let (client, token) = shopper(&app).await;
    buy_with(&client, &[("x-csrf-token", &token)]).await.text();
    for form in [
        format!("csrf_token={token}"),
        format!("teapots=1&csrf_token={token}&note=x"),
        format!("%63srf_token={}", token.replace('-', "%2D").replace('_', "%5f")),
    ] {
        assert_eq!(send_form(&client, &form).await.text(), form);
    }
    let headers = [("content-type", "Application/X-WWW-Form-Urlencoded; charset=utf-8")];
    let form = format!("csrf_token={token}");
    client.call(request(Method::POST, "/buy", &headers, &form)).await.text();
    for method in [Method::PUT, Method::PATCH, Method::DELETE, "BUY".parse().unwrap()] {
        let headers = [("x-csrf-token", &*token)];
        client.call(request(method.clone(), "/buy", &headers, "")).await.text();
        assert!(is_refused(&client.call(request(method, "/buy", &[], "")).await));
    }
    assert_eq!(client.get("/visit").await.text(), "10", "each of them once");
}

#[tokio::test]
async fn nothing_else_is_a_token() {
    let app = App::start(checked()).await;
    let (client, token) = shopper(&app).await;
    let (_, of_another_session) = shopper(&app).await;
    let cookie = client.cookie(COOKIE).unwrap();
    let mut wrong = vec![
        String::new(),
        "A".repeat(token.len()),
        of_another_session,
        cookie,
        format!("{token}A"),
        format!("{token}="),
        token.repeat(2),
        token[..token.len() - 1].to_string(),
        token[1..].to_string(),
        token.to_ascii_lowercase(),
        "null".into(),
    ];
    for place in [0, 1, 41, 42, 43, 44, token.len() - 2, token.len() - 1] {
        let mut flipped = token.clone().into_bytes();
        flipped[place] = if flipped[place] == b'A' { b'B' } else { b'A' };
        wrong.push(String::from_utf8(flipped).unwrap());
    }
    for wrong in &wrong {
        let headers = [("x-csrf-token", &**wrong)];
        assert!(is_refused(&buy_with(&client, &headers).await), "{wrong}");
        assert!(is_refused(&send_form(&client, &format!("csrf_token={wrong}")).await), "{wrong}");
        // The header is what counts, if there is one.
        let headers = [("x-csrf-token", &**wrong), ("content-type", FORM)];
        let form = format!("csrf_token={token}");
        let reply = client.call(request(Method::POST, "/buy", &headers, &form)).await;
        assert!(is_refused(&reply), "{wrong}");
    }
    for form in [
        String::new(),
        "a=b".into(),
        format!("csrf-token={token}"),
        format!("CSRF_TOKEN={token}"),
        format!("csrf_token=x&csrf_token={token}"),
        format!("a=csrf_token={token}"),
        token.clone(),
    ] {
        assert!(is_refused(&send_form(&client, &form).await), "{form}");
    }
    // A form in other clothes, which pages of other sites can send without asking.
    let form = format!("csrf_token={token}");
    for content_type in ["text/plain", "multipart/form-data", "application/json", ""] {
        let headers = [("content-type", content_type)];
        let reply = client.call(request(Method::POST, "/buy", &headers, &form)).await;
        assert!(is_refused(&reply), "{content_type}");
    }
    // In the address, where it would be seen by others.
    let reply = client.call(request(Method::POST, &format!("/buy?{form}"), &[], "")).await;
    assert!(is_refused(&reply));
    assert_eq!(client.get("/visit").await.text(), "1", "none of them has bought anything");
    buy_with(&client, &[("x-csrf-token", &token)]).await.text();
}

#[tokio::test]
async fn a_token_works_a_hundred_times_in_every_tab_and_never_looks_the_same() {
    let app = App::start(checked()).await;
    let (client, first_tab) = shopper(&app).await;
    app.store.reset();
    let mut tokens = vec![first_tab];
    for _ in 0..100 {
        tokens.push(client.get("/token").await.text().to_string());
        buy_with(&client, &[("x-csrf-token", &tokens[0])]).await.text();
    }
    assert_eq!(app.store.calls().create, 0);
    for token in &tokens {
        send_form(&client, &format!("csrf_token={token}")).await.text();
    }
    assert_eq!(client.get("/visit").await.text(), "202");
    tokens.sort_unstable();
    tokens.dedup();
    assert_eq!(tokens.len(), 101);
}

#[tokio::test]
async fn a_token_changes_with_the_id() {
    for change in ["/renew", "/destroy"] {
        let app = App::start(checked()).await;
        let (client, before) = shopper(&app).await;
        let stolen = client.copy();
        client.get(change).await.text();
        let after = client.get("/token").await.text().to_string();
        assert!(is_refused(&buy_with(&client, &[("x-csrf-token", &before)]).await), "{change}");
        assert!(is_refused(&buy_with(&stolen, &[("x-csrf-token", &before)]).await), "{change}");
        assert!(is_refused(&buy_with(&stolen, &[("x-csrf-token", &after)]).await), "{change}");
        buy_with(&client, &[("x-csrf-token", &after)]).await.text();
        assert_eq!(client.get("/visit").await.text(), "2", "{change}");
    }
}

#[tokio::test]
async fn a_login_needs_the_token_of_its_page_and_ends_it() {
    #[derive(Session)]
    struct Customer {
        #[session(user)]
        user: Option<u64>,
    }
    async fn token(session: &Session<Customer>) -> String {
        session.csrf_token().await.unwrap().to_string()
    }
    async fn login(session: Session<Customer>) -> sessions::Result<String> {
        session.login(7).await?;
        Ok(token(&session).await)
    }
    let layer = SessionLayer::<Customer>::new(MemoryStore::new(), Keys::generate());
    let app = Router::new().route("/login", post(login));
    let app = app.layer(CsrfLayer::<Customer>::new()).layer(layer.clone());
    let mut client = TestClient::new(app, &layer);
    assert_eq!(client.post_form("/login", "").await.status(), 403);
    let before = client.with_session(async |session| token(&session).await).await;
    let mut attacker = client.copy();
    let response = client.post_form("/login", format!("csrf_token={before}")).await;
    assert_eq!(response.status(), 200);
    let body = axum::body::to_bytes(response.response.into_body(), 1_000).await.unwrap();
    let after = String::from_utf8(body.to_vec()).unwrap();
    for (token, status) in [(&before, 403), (&after, 200)] {
        let form = format!("csrf_token={token}");
        assert_eq!(attacker.post_form("/login", form.clone()).await.status(), 403);
        assert_eq!(client.post_form("/login", form).await.status(), status);
    }
}

/// A page that is asked for with the cookie from just before a renewal is shown; its form is not taken.
#[tokio::test]
async fn a_late_page_has_a_token_that_is_worth_nothing() {
    let app = App::start(checked()).await;
    let client = app.visitor().await;
    let late = client.copy();
    client.get("/renew").await.text();
    let reply = late.get("/token").await;
    assert_eq!((reply.status.as_u16(), reply.set_cookies()), (200, vec![]));
    for browser in [&late, &client] {
        assert!(is_refused(&buy_with(browser, &[("x-csrf-token", reply.text())]).await));
    }
}

#[tokio::test]
async fn a_token_given_before_a_renewal_in_the_same_request_is_worth_nothing() {
    async fn both(session: Session<Visitor>) -> sessions::Result<String> {
        let before = session.csrf_token().await?;
        session.verify_csrf(before.as_str())?;
        session.renew_id().await?;
        assert_eq!(session.verify_csrf(before.as_str()).unwrap_err().kind(), ErrorKind::Csrf);
        let after = session.csrf_token().await?;
        Ok(format!("{before} {after}"))
    }
    let app = App::start(checked().route("/both", get(both))).await;
    for client in [app.client(), app.visitor().await] {
        let reply = client.get("/both").await;
        let (before, after) = reply.text().split_once(' ').unwrap();
        assert!(is_refused(&buy_with(&client, &[("x-csrf-token", before)]).await));
        buy_with(&client, &[("x-csrf-token", after)]).await.text();
    }
    // With what each renewal leaves for a moment.
    assert_eq!(app.store.store().len(), 2 + 2);
}

#[tokio::test]
async fn a_token_of_an_old_key_is_good_and_one_of_another_key_is_not() {
    let store = MemoryStore::new();
    let serve = |keys: Keys| {
        let layer = SessionLayer::<Visitor>::new(store.clone(), keys);
        Server::start(checked().merge(basics()).layer(layer))
    };
    let (old, new) = (Keys::generate(), Keys::generate());
    let servers =
        [serve(old.clone()).await, serve(new.clone().with_previous(old)).await, serve(new).await];
    let [before, after, much_later] = servers.each_ref().map(Server::client);
    let token = before.get("/token").await.text().to_string();
    after.set_cookie(COOKIE, before.cookie(COOKIE).as_deref());
    buy_with(&after, &[("x-csrf-token", &token)]).await.text();
    // Signed anew by now; the form in the other tab is still of the old key.
    assert_ne!(after.cookie(COOKIE), before.cookie(COOKIE));
    buy_with(&after, &[("x-csrf-token", &token)]).await.text();
    much_later.set_cookie(COOKIE, after.cookie(COOKIE).as_deref());
    assert!(is_refused(&buy_with(&much_later, &[("x-csrf-token", &token)]).await));
    assert_eq!(much_later.get("/visit").await.text(), "3");
}

#[tokio::test]
async fn a_token_of_another_layers_session_is_not_good() {
    // The same id can be in two layers' cookies only if somebody copies the record: the name counts.
    let (store, keys) = (MemoryStore::new(), Keys::generate());
    let serve = |name| {
        let layer = SessionLayer::<Visitor>::builder(store.clone(), keys.clone());
        let layer = layer.with_cookie_name(name).build().unwrap();
        Server::start(checked().merge(basics()).layer(layer))
    };
    let (shop, office) = (serve("__Host-shop").await, serve("__Host-office").await);
    let (shopper, clerk) = (shop.client(), office.client());
    let token = shopper.get("/token").await.text().to_string();
    clerk.get("/token").await.text();
    assert!(is_refused(&buy_with(&clerk, &[("x-csrf-token", &token)]).await));
}

#[tokio::test]
async fn a_page_with_a_token_begins_a_session_that_is_empty_or_has_what_was_written() {
    async fn greeted(session: Session<Visitor>) -> sessions::Result<String> {
        session.write().await.set_name("Zoe");
        token(session).await
    }
    let app = App::start(checked().route("/greeted", get(greeted))).await;
    for (path, name) in [("/token", "nobody"), ("/greeted", "Zoe")] {
        let client = app.client();
        app.store.reset();
        let reply = client.get(path).await;
        assert_eq!(reply.set_cookies().len(), 1, "{reply:?}");
        assert_eq!(
            (&*reply.header("vary"), &*reply.header("cache-control")),
            ("Cookie", "no-store")
        );
        assert_eq!(app.store.calls(), Calls { create: 1, ..Calls::default() });
        buy_with(&client, &[("x-csrf-token", reply.text())]).await.text();
        assert_eq!(client.get("/name").await.text(), name);
        app.store.reset();
        assert_eq!(client.get("/token").await.set_cookies(), Vec::<String>::new());
        assert_eq!(app.store.calls(), Calls { load: 1, ..Calls::default() });
    }
    assert_eq!(app.store.store().len(), 2);
}

#[tokio::test]
async fn tokens_that_are_asked_for_at_the_same_time_are_of_one_session() {
    async fn many(session: Session<Visitor>) -> String {
        let ask = move |_| {
            let session = session.clone();
            async move { session.csrf_token().await.unwrap().to_string() }
        };
        at_once(20, ask).await.join(" ")
    }
    let app = App::start(checked().route("/many", get(many))).await;
    let client = app.client();
    for token in client.get("/many").await.text().split(' ') {
        buy_with(&client, &[("x-csrf-token", token)]).await.text();
    }
    assert_eq!(app.store.store().len(), 1);
}

#[tokio::test]
async fn a_token_asked_for_while_the_session_is_ended_is_of_one_that_is_not() {
    async fn race(session: Session<Visitor>) -> String {
        let ending = session.clone();
        let ending = tokio::spawn(async move { ending.destroy().await });
        let token = session.csrf_token().await;
        ending.await.unwrap().unwrap();
        token.map_or_else(|error| format!("{:?}", error.kind()), |token| token.to_string())
    }
    let app = App::start(checked().route("/race", get(race))).await;
    for _ in 0..200 {
        let client = app.client();
        let reply = client.get("/race").await;
        let is_good = client.cookie(COOKIE).is_some();
        let bought = buy_with(&client, &[("x-csrf-token", reply.text())]).await;
        // Either the end came first, or it took the session with it that the token was of.
        assert_eq!(bought.status == StatusCode::OK, is_good, "{reply:?}");
    }
    app.layer.wait_for_background_saves().await;
    assert_eq!(app.layer.sessions_in_use(), 0);
}

#[tokio::test]
async fn a_token_that_was_given_up_half_way_loses_nothing() {
    async fn gives_up(session: Session<Visitor>) {
        let asking = session.csrf_token();
        assert!(tokio::time::timeout(Duration::from_millis(20), asking).await.is_err());
    }
    async fn gives_up_and_writes(session: Session<Visitor>) {
        gives_up(session.clone()).await;
        session.write().await.set_name("Zoe");
    }
    let routes = checked()
        .route("/gives_up", get(gives_up))
        .route("/gives_up_and_writes", get(gives_up_and_writes));
    let app = App::start(routes).await;
    for path in ["/gives_up", "/gives_up_and_writes"] {
        let gate = app.store.hold(Operation::Create);
        let client = app.client();
        let asking = client.spawn_get(path);
        gate.wait_for_caller().await;
        tokio::time::sleep(Duration::from_millis(60)).await;
        gate.release();
        asking.await.unwrap().text();
        assert_eq!(client.cookie(COOKIE).is_some(), path == "/gives_up_and_writes");
        let token = client.get("/token").await.text().to_string();
        buy_with(&client, &[("x-csrf-token", &token)]).await.text();
    }
    assert_eq!(app.layer.sessions_in_use(), 0);
}

#[tokio::test]
async fn a_token_after_the_response_is_an_error_unless_the_client_has_the_cookie() {
    async fn late_token(session: Session<Visitor>) -> Body {
        Body::from_stream(tokio_stream::once(session).then(async |session| {
            tokio::time::sleep(Duration::from_millis(1)).await;
            let token = session.csrf_token().await.map(|token| token.to_string());
            let text = token.unwrap_or_else(|error| format!("{:?}", error.kind()));
            Ok::<_, Infallible>(Bytes::from(text))
        }))
    }
    let app = App::start(checked().route("/late_token", get(late_token))).await;
    assert_eq!(app.client().get("/late_token").await.text(), "NoCookie");
    assert_eq!(app.store.store().len(), 0);
    let client = app.visitor().await;
    let token = client.get("/late_token").await.text().to_string();
    buy_with(&client, &[("x-csrf-token", &token)]).await.text();
}

#[tokio::test]
async fn a_store_that_fails_is_503_and_never_a_request_without_its_check() {
    let app = App::start(checked()).await;
    app.store.fail_next(Operation::Create, 1);
    let stranger = app.client();
    let reply = stranger.get("/token").await;
    assert_eq!((reply.status.as_u16(), reply.set_cookies().len()), (503, 0));
    let (client, token) = shopper(&app).await;
    app.store.fail_next(Operation::Load, 1);
    assert_eq!(buy_with(&client, &[("x-csrf-token", &token)]).await.status, 503);
    assert_eq!(client.get("/visit").await.text(), "1");
    // Outside of a session layer.
    let server = Server::start(checked()).await;
    let reply = buy_with(&server.client(), &[("x-csrf-token", &token)]).await;
    assert_eq!(reply.status, StatusCode::INTERNAL_SERVER_ERROR);
}

#[tokio::test]
async fn sessions_in_cookies_have_tokens_too() {
    let layer = SessionLayer::<Visitor>::new(PrivateCookie, Keys::generate());
    let server = Server::start(checked().merge(basics()).layer(layer)).await;
    let client = server.client();
    let reply = client.get("/token").await;
    assert_eq!(reply.set_cookies().len(), 1);
    let token = reply.text();
    for _ in 0..3 {
        // Each time the cookie changes, but not the id in it.
        buy_with(&client, &[("x-csrf-token", token)]).await.text();
    }
    assert_eq!(client.get("/token").await.set_cookies(), Vec::<String>::new());
    assert_eq!(client.get("/visit").await.text(), "4");
    let another = server.client();
    another.get("/token").await.text();
    assert!(is_refused(&buy_with(&another, &[("x-csrf-token", token)]).await));
    client.get("/renew").await.text();
    assert!(is_refused(&buy_with(&client, &[("x-csrf-token", token)]).await));
}

#[tokio::test]
async fn where_a_request_comes_from_goes_before_its_token() {
    let pay = "https://pay.example";
    let layer = CsrfLayer::builder().with_trusted_origin(pay).build().unwrap();
    let app = App::start(shop(layer)).await;
    let (client, token) = shopper(&app).await;
    let own = format!("http://{}", client.address());
    let table: [(&[(&str, &str)], bool); 17] = [
        (&[], true),
        (&[("sec-fetch-site", "same-origin")], true),
        (&[("sec-fetch-site", "same-origin"), ("origin", &own)], true),
        (&[("sec-fetch-site", "none")], true),
        (&[("sec-fetch-site", "same-site")], false),
        (&[("sec-fetch-site", "cross-site"), ("origin", "https://evil.example")], false),
        (&[("sec-fetch-site", "cross-site"), ("origin", &own)], false),
        (&[("sec-fetch-site", "cross-site"), ("origin", pay)], true),
        (&[("sec-fetch-site", "same-site"), ("origin", pay)], true),
        (&[("origin", &own)], true),
        (&[("origin", pay)], true),
        (&[("sec-fetch-site", "cross-site"), ("origin", "null")], false),
        (&[("sec-fetch-site", "same-site"), ("origin", "null")], false),
        (&[("origin", "null"), ("origin", "null")], false),
        // From a page that sends no referrer, over plain HTTP: the token decides.
        (&[("origin", "null")], true),
        (&[("origin", "https://evil.example")], false),
        (&[("origin", "http://127.0.0.1")], false),
    ];
    for (headers, is_good) in table {
        let with_token = [headers, &[("x-csrf-token", &*token)]].concat();
        app.store.reset();
        let reply = buy_with(&client, &with_token).await;
        assert_eq!(reply.status == StatusCode::OK, is_good, "{headers:?}");
        if !is_good {
            assert!(is_refused(&reply), "{headers:?}");
            assert_eq!(app.store.calls(), Calls::default(), "the store was asked: {headers:?}");
            assert_eq!(reply.header("vary"), "");
        }
        let reply = client.call_http2(request(Method::POST, "/buy", &with_token, "")).await;
        assert_eq!(reply.status == StatusCode::OK, is_good, "{headers:?} over HTTP/2");
        // Good or not, it does not do without the token.
        assert!(is_refused(&buy_with(&client, headers).await), "{headers:?}");
    }
    assert_eq!(client.get("/visit").await.text(), "19", "9 of the table, twice each");
}

#[tokio::test]
async fn a_cross_site_post_begins_no_session() {
    for layer in [CsrfLayer::new(), CsrfLayer::new().origin_only()] {
        let app = App::start(shop(layer)).await;
        for headers in [
            [("sec-fetch-site", "cross-site"), ("content-type", FORM)],
            [("origin", "https://evil.example"), ("content-type", FORM)],
        ] {
            let victim = app.client();
            let form = request(Method::POST, "/buy", &headers, "teapots=100");
            let reply = victim.call(form).await;
            assert!(is_refused(&reply));
            assert_eq!(reply.set_cookies(), Vec::<String>::new());
            assert_eq!(app.store.calls(), Calls::default());
        }
        assert_eq!(app.store.store().len(), 0);
    }
}

#[tokio::test]
async fn a_request_without_a_session_is_refused_and_begins_none() {
    let app = App::start(checked()).await;
    let (_, token) = shopper(&app).await;
    app.store.reset();
    let stranger = app.client();
    for reply in [
        buy_with(&stranger, &[("x-csrf-token", &token)]).await,
        send_form(&stranger, &format!("csrf_token={token}")).await,
        // Not even read, so that it is not over a limit either.
        send_form(&stranger, &"x".repeat(1 << 16)).await,
    ] {
        assert!(is_refused(&reply), "{reply:?}");
        assert_eq!(reply.set_cookies(), Vec::<String>::new());
    }
    assert_eq!(app.store.calls(), Calls::default());
}

#[tokio::test]
async fn requests_that_change_nothing_pass_and_do_not_touch_the_store() {
    let app = App::start(checked()).await;
    let (client, _) = shopper(&app).await;
    app.store.reset();
    let headers = [("sec-fetch-site", "cross-site"), ("origin", "https://evil.example")];
    for method in [Method::GET, Method::HEAD, Method::TRACE] {
        client.call(request(method, "/still", &headers, "")).await.text();
    }
    assert_eq!(app.store.calls(), Calls::default());
}

#[tokio::test]
async fn options_pass_as_a_preflight_and_as_nothing_else() {
    for layer in [CsrfLayer::new(), CsrfLayer::new().origin_only()] {
        let app = App::start(shop(layer)).await;
        let (client, _) = shopper(&app).await;
        app.store.reset();
        let asks = ("access-control-request-method", "POST");
        let elsewhere = ("origin", "https://evil.example");
        for (headers, passes) in [
            (&[elsewhere, asks][..], true),
            (&[elsewhere], false),
            (&[elsewhere, ("access-control-request-headers", "x")], false),
            (&[("sec-fetch-site", "cross-site"), asks], false),
            (&[elsewhere, asks, ("upgrade", "websocket")], false),
        ] {
            let reply = client.call(request(Method::OPTIONS, "/still", headers, "")).await;
            assert_eq!(reply.status == 200, passes, "{headers:?}");
            assert!(passes || is_refused(&reply), "{headers:?}");
        }
        assert_eq!(app.store.calls(), Calls::default());
    }
    let app = App::start(checked()).await;
    let (client, token) = shopper(&app).await;
    assert!(is_refused(&client.call(request(Method::OPTIONS, "/buy", &[], "")).await));
    let headers = [("x-csrf-token", &*token)];
    client.call(request(Method::OPTIONS, "/buy", &headers, "")).await.text();
    assert_eq!(client.get("/visit").await.text(), "2");
}

/// Browsers open one from any page, with the cookies of its visitor (RFC 6455, 10.2).
#[tokio::test]
async fn a_websocket_is_opened_by_pages_of_this_site_alone() {
    for builder in [CsrfLayer::builder(), CsrfLayer::builder().without_tokens()] {
        let layer = builder.with_trusted_origin("https://pay.example").build().unwrap();
        let app = App::start(shop(layer)).await;
        let (client, _) = shopper(&app).await;
        app.store.reset();
        let own = format!("http://{}", client.address());
        let handshake = [
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ];
        for (headers, passes) in [
            (&[("origin", &*own)][..], true),
            (&[("origin", "https://pay.example")], true),
            (&[("origin", &own), ("sec-fetch-site", "same-origin")], true),
            // No browser.
            (&[], true),
            (&[("origin", "https://evil.example")], false),
            (&[("origin", "https://evil.example"), ("sec-fetch-site", "cross-site")], false),
            (&[("origin", "https://blog.pay.example"), ("sec-fetch-site", "same-site")], false),
            (&[("sec-fetch-site", "cross-site")], false),
            // It has no token that could decide.
            (&[("origin", "null")], false),
        ] {
            for method in [Method::GET, Method::HEAD, Method::TRACE] {
                let headers = [&handshake[..], headers].concat();
                let reply = client.call(request(method, "/still", &headers, "")).await;
                assert_eq!(reply.status == 200, passes, "{headers:?}");
                assert!(passes || reply.header("cache-control") == "no-store", "{headers:?}");
            }
        }
        assert_eq!(app.store.calls(), Calls::default());
    }
}

#[tokio::test]
async fn a_handler_can_check_the_origin_by_itself() {
    async fn socket(headers: http::HeaderMap, uri: http::Uri) -> sessions::Result<()> {
        OriginCheck::builder()
            .with_trusted_origin("https://pay.example")
            .build()
            .unwrap()
            .check(&headers, &uri)
    }
    let app =
        App::start(Router::new().nest("/live", Router::new().route("/socket", any(socket)))).await;
    let client = app.client();
    let own = format!("http://{}", client.address());
    for (origin, passes) in [
        (&*own, true),
        ("https://pay.example", true),
        ("https://evil.example", false),
        ("null", false),
    ] {
        let headers = [("origin", origin)];
        for http2 in [false, true] {
            let request = request(Method::GET, "/live/socket", &headers, "");
            let reply = match http2 {
                true => client.call_http2(request).await,
                false => client.call(request).await,
            };
            assert_eq!(reply.status == 200, passes, "{origin}");
            assert!(passes || reply.body == "This request came from another site.");
        }
    }
}

#[tokio::test]
async fn what_is_refused_is_answered_as_the_application_wants() {
    fn rejected(rejection: &Rejection, request: &Parts) -> Response {
        let kind = format!("{:?} of {}", rejection.kind(), request.uri.path());
        let headers = [("x-face", "yes"), ("content-type", "application/json")];
        (rejection.status(), headers, format!("\"{kind}\"")).into_response()
    }
    let layer = CsrfLayer::builder()
        .with_form_limit(100)
        .with_rejection_response(rejected)
        .build()
        .unwrap();
    let app = App::start(shop(layer)).await;
    let (client, token) = shopper(&app).await;
    let form = |form: &str| request(Method::POST, "/buy", &[("content-type", FORM)], form);
    let elsewhere = [("origin", "https://evil.example"), ("x-csrf-token", &token)];
    for (request, status, kind) in [
        (request(Method::POST, "/buy", &[], ""), 403, "Csrf"),
        (request(Method::POST, "/buy", &elsewhere, ""), 403, "CrossSite"),
        (form("csrf_token=wrong"), 403, "Csrf"),
        (form(&"a".repeat(101)), 413, "Form"),
    ] {
        let reply = client.call(request).await;
        let body = format!("\"{kind} of /buy\"");
        assert_eq!((reply.status.as_u16(), &reply.body), (status, &body));
        assert_eq!(reply.header("content-type"), "application/json");
        assert_eq!(reply.header("cache-control"), "no-store");
    }
    app.store.fail_next(Operation::Load, 1);
    let reply = buy_with(&client, &[("x-csrf-token", &token)]).await;
    assert_eq!((reply.status.as_u16(), &*reply.body), (503, "\"Session of /buy\""));
    let reply = buy_with(&client, &[("x-csrf-token", &token)]).await;
    assert_eq!(reply.header("x-face"), "", "what passes is the handler's");
    reply.text();
}

#[tokio::test]
async fn the_origin_alone_asks_for_no_session() {
    let layer = CsrfLayer::builder()
        .without_tokens()
        .with_trusted_origin("https://pay.example")
        .build()
        .unwrap();
    let app = App::start(shop(layer)).await;
    let client = app.client();
    let own = format!("http://{}", client.address());
    for (headers, is_good) in [
        (vec![], true),
        (vec![("sec-fetch-site", "same-origin")], true),
        (vec![("sec-fetch-site", "same-site")], false),
        (vec![("origin", &*own)], true),
        (vec![("origin", "null")], false),
        (vec![("origin", "https://evil.example")], false),
        (vec![("sec-fetch-site", "cross-site"), ("origin", "https://pay.example")], true),
    ] {
        let reply = client.call(request(Method::POST, "/still", &headers, "")).await;
        assert_eq!(reply.status == StatusCode::OK, is_good, "{headers:?}");
    }
    assert_eq!(app.store.calls(), Calls::default());
    assert_eq!(buy_with(&client, &[]).await.set_cookies().len(), 1, "it may begin one");
}

/// Sends its pieces one after the other, so that the server reads more than once.
fn in_pieces(
    pieces: Vec<Bytes>,
) -> impl hyper::body::Body<Data = Bytes, Error = Infallible> + Send + Unpin + 'static {
    let pieces = tokio_stream::iter(pieces).then(async |piece| {
        tokio::time::sleep(Duration::from_millis(5)).await;
        Ok::<_, Infallible>(Frame::data(piece))
    });
    StreamBody::new(Box::pin(pieces))
}

#[tokio::test]
async fn a_form_arrives_whole_up_to_the_limit() {
    const LIMIT: usize = 300_000;
    let app = App::start(shop(CsrfLayer::builder().with_form_limit(LIMIT).build().unwrap())).await;
    let (client, token) = shopper(&app).await;
    for (length, status) in [(1_000, 200), (LIMIT, 200), (LIMIT + 1, 413)] {
        let form = format!("csrf_token={token}&note=");
        let form = format!("{form}{}", "x".repeat(length - form.len()));
        let reply = send_form(&client, &form).await;
        assert_eq!(reply.status, status, "{length}");
        assert!(status == 413 || reply.body == form, "{length}");
        // Chunked, which does not say beforehand how long it is; the token comes in the last piece.
        let form = form.split('&').rev().collect::<Vec<_>>().join("&");
        let pieces = form.as_bytes().chunks(length / 3).map(Bytes::copy_from_slice).collect();
        let request = Request::post("/buy").header("content-type", FORM);
        let reply = client.call(request.body(in_pieces(pieces)).unwrap()).await;
        assert_eq!(reply.status, status, "{length} in pieces");
        assert!(status == 413 || reply.body == form, "{length} in pieces");
    }
    // With the header nothing is read, nor limited by this layer.
    let headers = [("x-csrf-token", &*token), ("content-type", FORM)];
    let form = "x".repeat(LIMIT + 1);
    let reply = client.call(request(Method::POST, "/buy", &headers, &form)).await;
    assert_eq!(reply.text(), form);
    let headers = [("x-csrf-token", &*token), ("content-type", "application/json")];
    let reply = client.call(request(Method::POST, "/buy", &headers, &form)).await;
    assert_eq!(reply.text(), form);
}

#[tokio::test]
async fn a_client_that_hangs_up_in_the_middle_of_its_form_leaves_nothing_behind() {
    let app = App::start(checked()).await;
    let (client, token) = shopper(&app).await;
    let form = [format!("csrf_token={token}&note="), "x".into()].map(Bytes::from);
    let endless = tokio_stream::iter(form).chain(tokio_stream::pending());
    let endless = StreamBody::new(Box::pin(endless.map(|it| Ok::<_, Infallible>(Frame::data(it)))));
    let request = Request::post("/buy").header("content-type", FORM).body(endless).unwrap();
    let sending = tokio::spawn({
        let client = client.clone();
        async move { client.call(request).await }
    });
    eventually("its session is in use", async || app.layer.sessions_in_use() == 1).await;
    // Nobody else has to wait for it.
    buy_with(&client, &[("x-csrf-token", &token)]).await.text();
    sending.abort();
    eventually("its session is let go", async || app.layer.sessions_in_use() == 0).await;
    assert_eq!(client.get("/visit").await.text(), "2");
}

#[tokio::test]
async fn the_check_waits_for_nobodys_lock() {
    async fn holds(session: Session<Visitor>) {
        let mut s = session.write().await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        *s.visits_mut() += 1;
    }
    let app = App::start(checked().route("/holds", get(holds))).await;
    let (client, token) = shopper(&app).await;
    let holding = client.spawn_get("/holds");
    eventually("the lock is held", async || app.layer.sessions_in_use() == 1).await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    let still = request(Method::POST, "/still", &[("x-csrf-token", &token)], "");
    client.call(still).await.text();
    assert_eq!(client.get("/token").await.text().len(), token.len());
    assert!(!holding.is_finished(), "it has waited for the lock");
    holding.await.unwrap().text();
}

#[tokio::test]
async fn header_and_field_have_other_names_if_wanted() {
    let layer = CsrfLayer::builder()
        .with_header("x-xsrf".parse().unwrap())
        .with_field("_token")
        .build()
        .unwrap();
    let app = App::start(shop(layer)).await;
    let (client, token) = shopper(&app).await;
    buy_with(&client, &[("x-xsrf", &token)]).await.text();
    send_form(&client, &format!("_token={token}")).await.text();
    assert!(is_refused(&buy_with(&client, &[("x-csrf-token", &token)]).await));
    assert!(is_refused(&send_form(&client, &format!("csrf_token={token}")).await));
}

#[tokio::test]
async fn a_handler_can_check_by_itself() {
    async fn upload(session: Session<Visitor>, body: String) -> sessions::Result<()> {
        session.verify_csrf(&body)?;
        session.write().await.set_name("uploaded");
        Ok(())
    }
    let app = App::start(checked().route("/upload", post(upload))).await;
    let (client, token) = shopper(&app).await;
    let send = |client: &Client, body: &str| {
        let client = client.clone();
        let request = request(Method::POST, "/upload", &[], body);
        async move { client.call(request).await }
    };
    assert!(is_refused(&send(&client, "no token").await));
    assert!(is_refused(&send(&app.client(), &token).await), "a new session");
    assert_eq!(client.get("/name").await.text(), "nobody");
    send(&client, &token).await.text();
    assert_eq!(client.get("/name").await.text(), "uploaded");
}

/// What a WebSocket over HTTP/2 begins with (RFC 8441): it cannot carry a token.
#[tokio::test]
async fn connect_is_checked_for_its_origin_alone() {
    let mut service = ServiceBuilder::new()
        .layer(SessionLayer::<Visitor>::new(MemoryStore::new(), Keys::generate()))
        .layer(CsrfLayer::<Visitor>::new())
        .service_fn(async |_: Request| Ok::<_, Infallible>(Response::new(Body::empty())));
    for (origin, status) in [("https://shop.example", 200), ("https://evil.example", 403)] {
        let request = Request::connect("https://shop.example/live")
            .header(header::ORIGIN, origin)
            .body(Body::empty())
            .unwrap();
        let ready = ServiceExt::<Request>::ready(&mut service).await.unwrap();
        let response = ready.call(request).await.unwrap();
        assert_eq!(response.status(), status, "{origin}");
    }
}

#[tokio::test]
async fn what_is_no_origin_cannot_be_trusted() {
    for origin in ["pay.example", "https://pay.example/", "null", "https://*.example"] {
        let message =
            CsrfLayer::<Visitor>::builder().with_trusted_origin(origin).build().unwrap_err();
        assert!(message.to_string().contains(origin), "{message}");
    }
}

#[tokio::test]
async fn a_token_is_an_argument_of_a_handler() {
    async fn token(token: CsrfToken<Visitor>) -> String {
        token.to_string()
    }
    async fn verify(session: Session<Visitor>, token: String) -> sessions::Result<()> {
        session.verify_csrf(&token)
    }
    let app =
        App::start(Router::new().route("/token", get(token)).route("/verify", post(verify))).await;
    let client = app.client();
    let token = client.get("/token").await.text().to_string();
    let send = async |token: &str| client.call(request(Method::POST, "/verify", &[], token)).await;
    send(&token).await.text();
    assert_eq!(send(&format!("{token}A")).await.status, 403);
    let server = Server::start(Router::new().route("/token", get(self::token_outside))).await;
    assert_eq!(server.client().get("/token").await.status, 500, "outside of the layer");
}

async fn token_outside(_: CsrfToken<Visitor>) {}

/// As an identity provider's page does it, which may not say where it is from, and without the `Lax` cookie.
#[tokio::test]
async fn an_unchecked_path_takes_another_sites_form_and_nothing_beside_it_does() {
    let layers =
        [CsrfLayer::<Visitor>::builder(), CsrfLayer::builder().without_tokens()].map(|builder| {
            builder.with_unchecked_path("/callback").with_unchecked_path("/p%2Fid").build().unwrap()
        });
    for layer in layers {
        // Whatever the path is: this is about what the layer lets through.
        let app = App::start(Router::new().fallback(async || "passed").layer(layer)).await;
        let client = app.visitor().await;
        app.store.reset();
        let from =
            |origin| [("sec-fetch-site", "cross-site"), ("origin", origin), ("content-type", FORM)];
        for origin in ["null", "https://id.example"] {
            for (method, path, passes) in [
                (Method::POST, "/callback", true),
                (Method::POST, "/callback?iss=x", true),
                (Method::POST, "/p%2Fid", true),
                (Method::PUT, "/callback", false),
                (Method::DELETE, "/callback", false),
                (Method::OPTIONS, "/callback", false),
                (Method::POST, "/callback/", false),
                (Method::POST, "/callback/x", false),
                (Method::POST, "/Callback", false),
                (Method::POST, "//callback", false),
                (Method::POST, "/callbac%6b", false),
                (Method::POST, "/x/../callback", false),
                (Method::POST, "/x?/callback", false),
                (Method::POST, "/", false),
                (Method::POST, "/p%2fid", false),
                (Method::POST, "/p/id", false),
            ] {
                let sent = || request(method.clone(), path, &from(origin), "state=x&code=y");
                for reply in [client.call(sent()).await, client.call_http2(sent()).await] {
                    let status = if passes { StatusCode::OK } else { StatusCode::FORBIDDEN };
                    assert_eq!(reply.status, status, "{method} {path} from {origin}");
                }
            }
        }
        assert_eq!(app.store.calls(), Calls::default());
    }
}

#[test]
fn what_is_no_path_cannot_be_unchecked() {
    let build =
        |path: &'static str| CsrfLayer::<Visitor>::builder().with_unchecked_path(path).build();
    for path in ["/", "/callback", "/a/b.c", "/a%20b", "//a"] {
        assert!(build(path).is_ok(), "{path}");
    }
    for path in [
        "",
        "callback",
        "https://shop.example/callback",
        "/callback?x",
        "/callback#x",
        "/a b",
        "/ä",
        "*",
    ] {
        let error = build(path).unwrap_err().to_string();
        assert!(error.contains(&format!("unchecked path `{path}`")), "{error}");
    }
}
