//! What a response says: the same as in axum.

use std::{convert::Infallible, time::Duration};

use actix_web::{HttpMessage, HttpRequest, HttpResponse, error, middleware::from_fn, web};
use axum::{
    Router,
    http::{HeaderMap, StatusCode, header, request::Parts},
    response::{IntoResponse, Redirect},
    routing::get,
};
use http::Method;
use sessions::{
    ErrorKind, Rejection, RejectionKind, Session, SessionLayerBuilder,
    testing::{Calls, Operation},
};
use sessions_tests::{Client, Reply, at_once};

use crate::{App, Both, COOKIE, Visitor, name, set_zoe};

/// A type of session that no layer has.
#[derive(Session)]
struct Unknown {
    visits: u32,
}

async fn unknown(session: Session<Unknown>) -> String {
    session.read().await.visits.to_string()
}

/// Where it matters what the handler says itself, each framework has a handler of its own.
fn axum_routes() -> Router {
    async fn own(session: Session<Visitor>) -> impl IntoResponse {
        set_zoe(session).await;
        let mut headers = HeaderMap::new();
        headers.append(header::SET_COOKIE, "theirs=1; Path=/".parse().unwrap());
        headers.append(header::SET_COOKIE, "more=2".parse().unwrap());
        headers.append(header::VARY, "Accept-Encoding".parse().unwrap());
        headers.append(header::VARY, "Origin, X-Theme".parse().unwrap());
        headers.append(header::CACHE_CONTROL, "private".parse().unwrap());
        headers
    }
    async fn public(session: Session<Visitor>) -> impl IntoResponse {
        ([(header::CACHE_CONTROL, "public, max-age=60")], name(session).await)
    }
    async fn redirect(session: Session<Visitor>) -> Redirect {
        set_zoe(session).await;
        Redirect::to("/elsewhere")
    }
    async fn status(session: Session<Visitor>, status: StatusCode) -> StatusCode {
        set_zoe(session).await;
        status
    }
    async fn stream(session: Session<Visitor>) -> axum::body::Body {
        set_zoe(session).await;
        let parts = ["some ", "parts"].map(Ok::<_, Infallible>);
        axum::body::Body::from_stream(tokio_stream::iter(parts))
    }
    Router::new()
        .route("/own", get(own))
        .route("/public", get(public))
        .route("/redirect", get(redirect))
        .route("/not-modified", get(|session| status(session, StatusCode::NOT_MODIFIED)))
        .route("/error", get(|session| status(session, StatusCode::INTERNAL_SERVER_ERROR)))
        .route("/stream", get(stream))
        .route("/unknown", get(unknown))
}

fn actix_routes(config: &mut web::ServiceConfig) {
    async fn own(session: Session<Visitor>) -> HttpResponse {
        set_zoe(session).await;
        HttpResponse::Ok()
            .append_header(("set-cookie", "theirs=1; Path=/"))
            .append_header(("set-cookie", "more=2"))
            .append_header(("vary", "Accept-Encoding"))
            .append_header(("vary", "Origin, X-Theme"))
            .append_header(("cache-control", "private"))
            .finish()
    }
    async fn public(session: Session<Visitor>) -> HttpResponse {
        let mut response = HttpResponse::Ok();
        response.append_header(("cache-control", "public, max-age=60"));
        response.body(name(session).await)
    }
    async fn redirect(session: Session<Visitor>) -> HttpResponse {
        set_zoe(session).await;
        HttpResponse::SeeOther().append_header(("location", "/elsewhere")).finish()
    }
    async fn not_modified(session: Session<Visitor>) -> HttpResponse {
        set_zoe(session).await;
        HttpResponse::NotModified().finish()
    }
    async fn fails(session: Session<Visitor>) -> Result<String, actix_web::Error> {
        set_zoe(session).await;
        Err(error::ErrorInternalServerError(""))
    }
    async fn stream(session: Session<Visitor>) -> HttpResponse {
        set_zoe(session).await;
        let parts = ["some ", "parts"].map(|part| Ok::<_, Infallible>(part.into()));
        HttpResponse::Ok().streaming(tokio_stream::iter::<[Result<web::Bytes, _>; 2]>(parts))
    }
    config
        .route("/own", web::get().to(own))
        .route("/own", web::head().to(own))
        .route("/public", web::get().to(public))
        .route("/redirect", web::get().to(redirect))
        .route("/not-modified", web::get().to(not_modified))
        .route("/error", web::get().to(fails))
        .route("/stream", web::get().to(stream))
        .route("/unknown", web::get().to(unknown));
}

async fn both(
    settings: impl Fn(SessionLayerBuilder<Visitor>) -> SessionLayerBuilder<Visitor>,
) -> Both {
    Both::start(axum_routes(), actix_routes, settings).await
}

/// What of a response is the session's, or its error's; not the cookie's value.
fn shape(reply: &Reply) -> String {
    let cookies = reply.set_cookies().into_iter().map(|cookie| match cookie.split_once(';') {
        Some((pair, attributes)) if pair.starts_with(COOKIE) => {
            format!("{COOKIE}=({}); {attributes}", pair.len())
        }
        _ => cookie,
    });
    let cookies: Vec<_> = cookies.collect();
    let [vary, cache, location] =
        ["vary", "cache-control", "location"].map(|header| reply.header(header));
    format!("{} {cookies:?} {vary:?} {cache:?} {location:?} {:?}", reply.status, reply.body)
}

impl Both {
    /// The shape of both replies, which are alike.
    async fn get(&self, clients: &[Client; 2], path: &str) -> String {
        let [axum, actix] = clients;
        let (axum, actix) = (axum.get(path).await, actix.get(path).await);
        assert_eq!(shape(&actix), shape(&axum), "{path}");
        shape(&actix)
    }

    async fn visitors(&self) -> [Client; 2] {
        let clients = self.clients.each_ref().map(Client::copy);
        for client in &clients {
            client.get("/name/Zoe").await.text();
        }
        clients
    }
}

#[tokio::test]
async fn every_response_is_as_in_axum() {
    let both = both(|builder| builder).await;
    const PATHS: [&str; 15] = [
        "/ignore",
        "/name",
        "/name/Ada",
        "/name/Ada",
        "/own",
        "/public",
        "/redirect",
        "/not-modified",
        "/error",
        "/stream",
        "/unknown",
        "/token-of-nobody",
        "/account",
        "/renew",
        "/destroy",
    ];
    for path in PATHS {
        // A browser without a session, one with a session, and one whose session is over.
        let (strangers, visitors, ended) = (
            both.clients.each_ref().map(Client::copy),
            both.visitors().await,
            both.visitors().await,
        );
        for client in &ended {
            client.copy().get("/destroy").await.text();
        }
        for clients in [strangers, visitors, ended] {
            both.get(&clients, path).await;
            both.get(&clients, path).await;
            both.get(&clients, "/name").await;
        }
    }
    // And not all alike in saying nothing.
    let strangers = both.clients.each_ref().map(Client::copy);
    assert_eq!(both.get(&strangers, "/name").await, r#"200 OK [] "Cookie" "private" "" "nobody""#);
    let first = both.get(&strangers, "/name/Zoe").await;
    let attributes = "Path=/; Secure; HttpOnly; SameSite=Lax";
    let has_all = attributes.split("; ").all(|attribute| first.contains(attribute));
    assert!(has_all && first.contains(r#""Cookie" "no-store""#), "{first}");
    let own = both.get(&strangers, "/own").await;
    assert!(own.contains(r#""Accept-Encoding, Origin, X-Theme, Cookie""#), "{own}");
    assert!(both.get(&strangers, "/unknown").await.starts_with("500"));
}

#[tokio::test]
async fn a_request_that_changes_nothing_writes_nothing_and_one_that_ignores_it_reads_nothing() {
    let app = App::start(|_| {}).await;
    let client = app.visitor().await;
    for (path, calls) in [
        ("/ignore", Calls::default()),
        ("/name", Calls { load: 1, ..Calls::default() }),
        ("/name/Zoe", Calls { load: 1, ..Calls::default() }),
        ("/name/Ada", Calls { load: 1, replace: 1, ..Calls::default() }),
    ] {
        app.store.reset();
        assert_eq!(client.get(path).await.set_cookies(), Vec::<String>::new());
        assert_eq!(app.store.calls(), calls, "{path}");
    }
    app.store.reset();
    app.client().request(Method::HEAD, "/name").await;
    assert_eq!(app.store.calls(), Calls::default());
}

#[tokio::test]
async fn a_store_that_fails_is_answered_as_in_axum() {
    let both = both(|builder| builder).await;
    for (operation, path) in [
        (Operation::Load, "/name"),
        (Operation::Load, "/account"),
        (Operation::Create, "/own"),
        (Operation::Replace, "/own"),
        (Operation::Replace, "/stream"),
        (Operation::Replace, "/destroy"),
        (Operation::Replace, "/renew"),
    ] {
        let clients = match operation {
            Operation::Create => both.clients.each_ref().map(Client::copy),
            _ => both.visitors().await,
        };
        // What is there already would not be written.
        for client in &clients {
            if operation != Operation::Create {
                client.get("/name/Ada").await.text();
            }
        }
        both.stores.iter().for_each(|store| store.fail(operation));
        let failed = both.get(&clients, path).await;
        both.stores.iter().for_each(|store| store.heal(operation));
        assert!(failed.starts_with("503") || path == "/destroy", "{path}: {failed}");
        assert!(!failed.contains("theirs=1"), "nothing of the handler's response: {failed}");
        both.get(&clients, "/name").await;
    }
}

#[tokio::test]
async fn a_save_that_fails_is_answered_as_the_application_wants() {
    fn rejected(rejection: &Rejection, request: &Parts) -> axum::response::Response {
        assert_eq!(rejection.kind(), RejectionKind::Session);
        assert_eq!(rejection.error().map(|error| error.kind()), Some(ErrorKind::Store));
        assert!(request.headers.contains_key(header::HOST) && request.method == Method::GET);
        let path = request.uri.path_and_query().unwrap();
        (rejection.status(), [("x-why", "store")], format!("{path}: {rejection}")).into_response()
    }
    let both = both(|builder| builder.with_rejection_response(rejected)).await;
    let clients = both.visitors().await;
    both.stores.iter().for_each(|store| store.fail(Operation::Replace));
    let failed = both.get(&clients, "/visit?a=b").await;
    let words = "The session is not available just now. Please try again.";
    assert!(failed.contains(&format!("/visit?a=b: {words}")), "{failed}");
    assert_eq!(clients[1].get("/visit").await.header("x-why"), "store");
}

#[tokio::test]
async fn a_request_that_waits_for_itself_or_for_too_long_is_given_up() {
    let patient = both(|builder| builder).await;
    let clients = patient.visitors().await;
    let itself = patient.get(&clients, "/waits-for-itself").await;
    assert!(itself.starts_with("500") && itself.contains(r#""Cookie""#), "{itself}");
    // The lock is free.
    assert!(patient.get(&clients, "/name").await.starts_with("200"));

    let both = both(|builder| builder.with_lock_timeout(Duration::from_millis(100))).await;
    let mut answers = Vec::new();
    for client in both.visitors().await {
        let replies = at_once(2, |_| {
            let client = client.clone();
            async move { shape(&client.get("/keeps-the-lock").await) }
        });
        let mut replies = replies.await;
        replies.sort();
        assert!(replies[0].starts_with("200") && replies[1].starts_with("503"), "{replies:?}");
        answers.push(replies);
    }
    assert_eq!(answers[1], answers[0]);
}

/// A middleware inside of the layer that fails is a response to the client, and has the cookie.
#[tokio::test]
async fn an_error_of_a_middleware_has_the_sessions_headers() {
    let app = App::start(|config| {
        let fails = from_fn(async |session: Session<Visitor>, _, _| {
            set_zoe(session).await;
            Err::<actix_web::dev::ServiceResponse, _>(error::ErrorImATeapot("no coffee"))
        });
        let ignores = from_fn(async |_: actix_web::dev::ServiceRequest, _| {
            Err::<actix_web::dev::ServiceResponse, _>(error::ErrorImATeapot("no coffee"))
        });
        let nothing = || web::get().to(async || "nothing");
        config
            .service(web::scope("/fails").wrap(fails).route("", nothing()))
            .service(web::scope("/ignores").wrap(ignores).route("", nothing()));
    })
    .await;
    let client = app.client();
    let reply = client.get("/fails").await;
    assert_eq!((reply.status.as_u16(), &*reply.body), (418, "no coffee"));
    assert_eq!(reply.set_cookies().len(), 1);
    assert_eq!(
        (reply.header("vary"), reply.header("cache-control")),
        ("Cookie".into(), "no-store".into())
    );
    assert_eq!(client.get("/name").await.text(), "Zoe");
    let reply = client.get("/ignores").await;
    assert_eq!((reply.status.as_u16(), &*reply.body), (418, "no coffee"));
    assert_eq!((reply.set_cookies(), reply.header("vary")), (vec![], String::new()));
}

/// A middleware outside of the layer finds the rejection, and an extractor's error.
#[tokio::test]
async fn a_rejection_is_among_the_extensions_of_its_response() {
    let app = App::start(|config| {
        let outer = from_fn(
            async |request: actix_web::dev::ServiceRequest,
                   next: actix_web::middleware::Next<_>| {
                let mut response = next.call(request).await?;
                let rejection = response.response().extensions().get::<Rejection>().cloned();
                let error = response.response().error();
                let kind =
                    error.and_then(|it| it.as_error::<sessions::Error>()).map(|it| it.kind());
                if let Some(rejection) = rejection {
                    let seen = format!("{:?} {kind:?}", rejection.kind());
                    let name = actix_web::http::header::HeaderName::from_static("x-rejection");
                    response.headers_mut().insert(name, seen.parse().unwrap());
                }
                Ok::<_, actix_web::Error>(response)
            },
        );
        let account = web::get().to(crate::account);
        config.service(web::scope("/scope").wrap(outer).route("/account", account));
    })
    .await;
    let reply = app.client().get("/scope/account").await;
    assert_eq!((reply.status.as_u16(), &*reply.body), (401, "Please log in."));
    assert_eq!(reply.header("x-rejection"), "LoginRequired Some(LoginRequired)");
}

/// Opened by a middleware, before actix-web has found the route.
#[tokio::test]
async fn a_middleware_can_open_the_session() {
    let app = App::start(|config| {
        let opens = from_fn(
            async |mut request: actix_web::dev::ServiceRequest,
                   next: actix_web::middleware::Next<_>| {
                let session = request.extract::<Session<Visitor>>().await?;
                session.write().await.set_visits(5);
                request.extensions_mut().insert(5_u8);
                next.call(request).await
            },
        );
        let visit = async |request: HttpRequest, session: Session<Visitor>| {
            assert!(request.extensions().contains::<u8>());
            crate::visit(session).await
        };
        let visit = web::get().to(visit);
        config.service(web::scope("/scope").wrap(opens).route("/{id}/visit", visit));
    })
    .await;
    assert_eq!(app.client().get("/scope/1/visit").await.text(), "6");
}

/// A layer around its own clone leaves the session to the outer one.
#[tokio::test]
async fn a_layer_inside_of_its_clone_sets_no_second_cookie() {
    let app = App::start(|_| {}).await;
    let layer = app.layer.clone();
    let twice = move || {
        let scope = web::scope("").wrap(layer.clone()).configure(crate::basics);
        actix_web::App::new().service(scope).wrap(layer.clone())
    };
    let server = actix_web::HttpServer::new(twice).workers(1).disable_signals();
    let server = server.bind("127.0.0.1:0").unwrap();
    let client = Client::new(server.addrs()[0]);
    let server = server.run();
    let handle = server.handle();
    tokio::spawn(server);
    assert_eq!(client.get("/name/Zoe").await.set_cookies().len(), 1);
    assert_eq!(client.get("/name").await.text(), "Zoe");
    handle.stop(false).await;
}
