//! What a response says about the session, and when something is written.

use std::{convert::Infallible, sync::Arc};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::Path,
    http::{HeaderMap, Method, StatusCode, header, request::Parts},
    middleware::map_response,
    response::{AppendHeaders, Html, IntoResponse, Redirect, Response},
    routing::{get, post},
};
use http_body_util::Full;
use sessions::{
    ErrorKind, Keys, MemoryStore, Rejection, RejectionKind, Session, SessionLayer,
    testing::{Calls, Operation, SpyStore},
};
use sessions_tests::{Client, Server, eventually};
use tokio::sync::Barrier;
use tower_http::{
    compression::{CompressionLayer, predicate::SizeAbove},
    cors::CorsLayer,
};

use crate::{App, COOKIE, Visitor, basics, name};

#[tokio::test]
async fn reading_creates_nothing() {
    let app = App::start(Router::new()).await;
    let reply = app.client().get("/name").await;
    assert_eq!(reply.text(), "nobody");
    assert_eq!(reply.set_cookies(), Vec::<String>::new());
    assert_eq!(reply.header("vary"), "Cookie");
    assert_eq!(reply.header("cache-control"), "private");
    assert_eq!(app.store.calls(), Calls::default());
}

#[tokio::test]
async fn ignoring_the_session_touches_nothing() {
    let app = App::start(Router::new()).await;
    let client = app.visitor().await;
    app.store.reset();
    let reply = client.get("/ignore").await;
    assert_eq!((reply.header("vary"), reply.set_cookies()), (String::new(), vec![]));
    assert_eq!(app.store.calls(), Calls::default());
}

#[tokio::test]
async fn the_first_write_sets_one_cookie_and_no_later_request_another() {
    let app = App::start(Router::new()).await;
    let client = app.client();
    let reply = client.get("/name/Zoe").await;
    assert_eq!(reply.set_cookies().len(), 1);
    assert_eq!(reply.header("cache-control"), "no-store");
    assert_eq!(app.store.calls(), Calls { create: 1, ..Calls::default() });

    app.store.reset();
    for (path, who_may_keep_it) in [("/name", "private"), ("/name/Ada", "private"), ("/ignore", "")]
    {
        let reply = client.get(path).await;
        assert_eq!(reply.set_cookies(), Vec::<String>::new(), "{path}");
        assert_eq!(reply.header("cache-control"), who_may_keep_it, "{path}");
    }
    assert_eq!(app.store.calls(), Calls { load: 2, replace: 1, ..Calls::default() });
}

#[tokio::test]
async fn a_setter_that_changes_nothing_writes_nothing() {
    async fn same(session: Session<Visitor>) -> String {
        let mut s = session.write().await;
        let name = s.name().unwrap_or_default().to_string();
        s.set_name("another");
        s.set_name(name);
        // A field that is not stored is not set by what leaves its default.
        let visits = s.visits();
        *s.visits_mut() = visits;
        s.take_seen();
        s.reset_theme();
        drop(s);
        session.has_unsaved_changes().to_string()
    }
    let app = App::start(Router::new().route("/same", get(same))).await;
    let client = app.visitor().await;
    app.store.reset();
    assert_eq!(client.get("/same").await.text(), "false");
    assert_eq!(app.store.calls(), Calls { load: 1, ..Calls::default() });
}

#[tokio::test]
async fn a_cookie_that_opens_nothing_is_neither_adopted_nor_removed() {
    let app = App::start(Router::new()).await;
    let client = app.visitor().await;
    let gone = client.cookie(COOKIE);
    client.copy().get("/destroy").await.text();

    let reply = client.get("/name").await;
    assert_eq!((reply.text(), reply.set_cookies()), ("nobody", vec![]));
    assert_eq!(client.get("/name/Ada").await.set_cookies().len(), 1);
    assert_ne!(client.cookie(COOKIE), gone, "an ended id came back");
}

#[tokio::test]
async fn what_the_handler_says_in_its_headers_stays() {
    async fn own(session: Session<Visitor>) -> impl IntoResponse {
        session.write().await.set_name("Zoe");
        let mut headers = HeaderMap::new();
        headers.append(header::SET_COOKIE, "theirs=1; Path=/".parse().unwrap());
        headers.append(header::SET_COOKIE, "more=2".parse().unwrap());
        headers.append(header::VARY, "Accept-Encoding".parse().unwrap());
        headers.append(header::CACHE_CONTROL, "private".parse().unwrap());
        headers
    }
    let app = App::start(Router::new().route("/own", get(own))).await;
    let reply = app.client().get("/own").await;
    let cookies = reply.set_cookies();
    assert_eq!(cookies[..2], ["theirs=1; Path=/", "more=2"]);
    assert!(cookies.len() == 3 && cookies[2].starts_with(COOKIE));
    assert_eq!(reply.header("vary"), "Accept-Encoding, Cookie");
    assert_eq!(reply.header("cache-control"), "private, no-store");
}

/// A page that says in several lines what it depends on.
async fn lines(session: Session<Visitor>) -> impl IntoResponse {
    let headers = ["Accept-Language", "Origin, X-Theme", ""].map(|line| ("vary", line));
    (AppendHeaders(headers), name(session).await)
}

/// Of several lines nginx before 1.23 heeds the last one alone, Traffic Server the first.
#[tokio::test]
async fn one_vary_line_says_all_that_a_response_depends_on() {
    let app = App::start(Router::new().route("/lines", get(lines))).await;
    let visitor = app.visitor().await;
    for client in [app.client(), visitor] {
        let reply = client.get("/lines").await;
        assert_eq!(reply.header("vary"), "Accept-Language, Origin, X-Theme, Cookie");
    }
}

#[tokio::test]
async fn layers_that_append_to_vary_belong_inside() {
    let origin = "https://shop.example";
    let cors = || CorsLayer::new().allow_origin([origin.parse().unwrap()]);
    let asks = async |client: Client| {
        let request = http::Request::get("/lines")
            .header(header::ORIGIN, origin)
            .header(header::ACCEPT_ENCODING, "identity");
        let reply = client.call(request.body(Full::default()).unwrap()).await;
        let lines: Vec<_> = reply.headers.get_all(header::VARY).iter().cloned().collect();
        lines
    };
    let compression = || CompressionLayer::new().compress_when(SizeAbove::new(0));
    let inside =
        App::start(Router::new().route("/lines", get(lines)).layer(compression()).layer(cors()))
            .await;
    let all = "Accept-Language, Origin, X-Theme, accept-encoding, origin, Cookie";
    assert_eq!(asks(inside.visitor().await).await, [all]);

    // Outside of it they do what this crate cannot mend.
    let layer = SessionLayer::<Visitor>::new(MemoryStore::new(), Keys::generate());
    let outside = Router::new().route("/lines", get(lines)).layer(layer);
    let outside = Server::start(outside.layer(compression()).layer(cors())).await;
    assert_eq!(asks(outside.client()).await.len(), 3, "the session's, and one of each");
}

#[tokio::test]
async fn a_response_of_a_session_is_private_unless_the_handler_has_said_who_may_keep_it() {
    async fn says(
        Path(lines): Path<String>,
        session: Session<Visitor>,
    ) -> (AppendHeaders<Vec<(&'static str, String)>>, String) {
        let lines = lines.split(';').filter(|line| *line != "-");
        let headers = lines.map(|line| ("cache-control", line.to_string())).collect();
        (AppendHeaders(headers), name(session).await)
    }
    let ignores = || async { ([("cache-control", "max-age=60")], "the same for all") };
    let routes = Router::new().route("/says/{lines}", get(says)).route("/ignores", get(ignores));
    let app = App::start(routes).await;
    let (stranger, visitor, ended) = (app.client(), app.visitor().await, app.visitor().await);
    ended.copy().get("/destroy").await.text();
    for (said, sent) in [
        ("-", "private"),
        ("no-cache", "no-cache, private"),
        ("max-age=60", "max-age=60, private"),
        ("no-cache;max-age=60", "no-cache, max-age=60, private"),
        ("public,%20max-age=60", "public, max-age=60"),
        ("s-maxage=60", "s-maxage=60"),
        ("private,%20max-age=60", "private, max-age=60"),
        ("no-store", "no-store"),
    ] {
        for client in [&stranger, &visitor, &ended] {
            let reply = client.get(&format!("/says/{said}")).await;
            assert_eq!(reply.header("cache-control"), sent, "{said}");
        }
    }
    assert_eq!(visitor.get("/ignores").await.header("cache-control"), "max-age=60");
    // Where the cookie changes, nobody keeps it, whatever the handler says.
    let reply = visitor.get("/renew").await;
    assert_eq!(reply.header("cache-control"), "no-store");
}

/// Every kind of response: its cookie is sent and its data saved, once.
#[tokio::test]
async fn every_kind_of_response_saves_once() {
    async fn write(session: Session<Visitor>) {
        session.write().await.set_name("Zoe");
    }
    async fn answer(kind: &str, session: Session<Visitor>) -> Response {
        write(session).await;
        match kind {
            "redirect" => Redirect::to("/elsewhere").into_response(),
            "not-modified" => StatusCode::NOT_MODIFIED.into_response(),
            "error" => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
            "panic" => panic!("after the guard is gone"),
            _ => Body::from_stream(futures_stream()).into_response(),
        }
    }
    fn futures_stream() -> impl futures_core::Stream<Item = Result<Bytes, Infallible>> {
        tokio_stream::iter(["some ", "parts"].map(|part| Ok(Bytes::from(part))))
    }
    let route = |kind: &'static str| get(async move |session| answer(kind, session).await);
    let routes = ["redirect", "not-modified", "error", "stream", "panic"]
        .into_iter()
        .fold(Router::new(), |router, kind| router.route(&format!("/{kind}"), route(kind)))
        .layer(tower_http::catch_panic::CatchPanicLayer::new());
    let app = App::start(routes).await;
    let table = [
        (Method::HEAD, "/name/Zoe", 200),
        (Method::GET, "/redirect", 303),
        (Method::GET, "/not-modified", 304),
        (Method::GET, "/stream", 200),
        (Method::GET, "/error", 500),
        (Method::GET, "/panic", 500),
    ];
    for (method, path, status) in table {
        app.store.reset();
        let client = app.client();
        let reply = client.request(method, path).await;
        assert_eq!(reply.status, status, "{path}");
        assert_eq!(reply.set_cookies().len(), 1, "{path}");
        assert_eq!(app.store.calls(), Calls { create: 1, ..Calls::default() }, "{path}");
        assert_eq!(client.get("/name").await.text(), "Zoe", "{path}");
    }
}

#[tokio::test]
async fn a_panic_outside_of_the_layer_loses_no_released_write() {
    async fn panics(session: Session<Visitor>) {
        session.write().await.set_name("before the panic");
        panic!("after the guard is gone");
    }
    // Nothing catches it: hyper drops the connection.
    let app = App::start(Router::new().route("/panics", get(panics))).await;
    let client = app.visitor().await;
    let reply = client.spawn_get("/panics");
    assert!(reply.await.is_err(), "there is no response");
    eventually("the slot is free", async || app.layer.sessions_in_use() == 0).await;
    app.layer.wait_for_background_saves().await;
    assert_eq!(client.get("/name").await.text(), "before the panic");
}

#[tokio::test]
async fn a_save_that_fails_replaces_the_response() {
    async fn boast(session: Session<Visitor>) -> impl IntoResponse {
        session.write().await.set_name("never kept");
        ([("set-cookie", "boast=1")], "saved!")
    }
    let app = App::start(Router::new().route("/boast", get(boast))).await;
    let visitor = app.visitor().await;
    for operation in [Operation::Create, Operation::Replace] {
        let client = if operation == Operation::Create { app.client() } else { visitor.clone() };
        app.store.fail(operation);
        let reply = client.get("/boast").await;
        let words = "The session is not available just now. Please try again.";
        assert_eq!((reply.status.as_u16(), &*reply.body), (503, words));
        assert_eq!(reply.set_cookies(), Vec::<String>::new());
        assert_eq!(reply.header("cache-control"), "no-store");
        app.store.heal(operation);
        assert_eq!(
            client.get("/name").await.text(),
            if client.cookie(COOKIE).is_some() { "Zoe" } else { "nobody" }
        );
        client.get("/boast").await.text();
        assert_eq!(client.get("/name").await.text(), "never kept");
    }
}

/// By the layer, with what the request says; nothing of the handler's response is in it.
#[tokio::test]
async fn a_save_that_fails_is_answered_as_the_application_wants() {
    fn rejected(rejection: &Rejection, request: &Parts) -> Response {
        assert_eq!(rejection.kind(), RejectionKind::Session);
        assert_eq!(rejection.error().map(|error| error.kind()), Some(ErrorKind::Store));
        // Were the session in the copy, it would be in use for as long as this is.
        assert!(request.headers.contains_key(header::HOST));
        let path = request.uri.path();
        match request.headers.get("hx-request") {
            Some(_) => [("hx-redirect", "/sorry")].into_response(),
            None => (rejection.status(), Html(format!("<p>{path}: {rejection}"))).into_response(),
        }
    }
    async fn boast() -> impl IntoResponse {
        ([("cache-control", "public"), ("x-handler", "yes")], "saved!")
    }
    let route = get(async |session: Session<Visitor>| {
        *session.write().await.visits_mut() += 1;
        boast().await
    });
    let routes = Router::new().route("/boast", route);
    let app = App::with(routes, |builder| builder.with_rejection_response(rejected)).await;
    let client = app.visitor().await;
    app.store.fail(Operation::Replace);
    let reply = client.get("/boast").await;
    assert_eq!(reply.status, 503);
    assert_eq!(reply.body, "<p>/boast: The session is not available just now. Please try again.");
    assert_eq!(reply.header("content-type"), "text/html; charset=utf-8");
    assert_eq!(
        (reply.header("cache-control"), reply.header("x-handler")),
        ("no-store".into(), "".into())
    );
    assert_eq!(reply.header("vary"), "Cookie");
    let request = http::Request::get("/boast").header("hx-request", "true");
    let reply = client.call(request.body(Full::default()).unwrap()).await;
    assert_eq!((reply.status.as_u16(), &*reply.header("hx-redirect")), (200, "/sorry"));
    assert_eq!(reply.header("cache-control"), "no-store");
    app.store.heal(Operation::Replace);
    client.get("/boast").await.text();
    assert_eq!(client.get("/visit").await.text(), "2");
    eventually("nothing keeps the session", async || app.layer.sessions_in_use() == 0).await;
}

/// A layer around all others gives them a face, whoever has rejected the request.
#[tokio::test]
async fn what_is_rejected_is_marked_for_outer_layers() {
    async fn marks(mut response: Response) -> Response {
        if let Some(rejection) = response.extensions().get::<Rejection>().cloned() {
            let kind = format!("{:?} {}", rejection.kind(), rejection.status().as_u16());
            response.headers_mut().insert("x-rejection", kind.parse().unwrap());
        }
        response
    }
    let store = SpyStore::new(MemoryStore::new());
    let layer = SessionLayer::<Visitor>::new(store.clone(), Keys::generate());
    let routes = basics()
        .route("/buy", post(async || ()).layer(Visitor::csrf_layer()))
        .layer(layer)
        .layer(map_response(marks));
    let server = Server::start(routes).await;
    let client = server.client();
    client.get("/name/Zoe").await.text();
    let elsewhere = http::Request::post("/buy").header(header::ORIGIN, "https://evil.example");
    let elsewhere = elsewhere.body(Full::<Bytes>::default()).unwrap();
    for (reply, mark) in [
        (client.get("/name").await, ""),
        (client.request(Method::POST, "/buy").await, "Csrf 403"),
        (client.call(elsewhere).await, "CrossSite 403"),
        (
            {
                store.fail_next(Operation::Replace, 1);
                client.get("/name/Ada").await
            },
            "Session 503",
        ),
        (
            {
                store.fail_next(Operation::Load, 1);
                client.get("/name").await
            },
            "Session 503",
        ),
    ] {
        assert_eq!(reply.header("x-rejection"), mark);
        if !mark.is_empty() {
            assert_eq!(reply.header("cache-control"), "no-store", "{mark}");
        }
    }
}

#[tokio::test]
async fn a_store_that_is_down_rejects_and_is_no_empty_session() {
    async fn optional(session: Option<Session<Visitor>>) -> String {
        session.is_some().to_string()
    }
    async fn result(session: sessions::Result<Session<Visitor>>) -> String {
        format!("{:?}", session.err().map(|error| error.kind()))
    }
    let routes = Router::new().route("/optional", get(optional)).route("/result", get(result));
    let app = App::start(routes).await;
    let client = app.visitor().await;
    app.store.fail(Operation::Load);
    for path in ["/name", "/name/Ada", "/optional"] {
        let reply = client.get(path).await;
        assert_eq!(reply.status, 503, "{path}");
        assert_eq!(reply.set_cookies(), Vec::<String>::new());
    }
    let reply = client.get("/result").await;
    assert_eq!(reply.text(), format!("{:?}", Some(ErrorKind::Store)));
    // A client without this cookie would have been told something else.
    assert_eq!((&*reply.header("vary"), &*reply.header("cache-control")), ("Cookie", "private"));
    assert_eq!(client.get("/ignore").await.text(), "ignored");
    app.store.heal(Operation::Load);
    assert_eq!(client.get("/name").await.text(), "Zoe");
}

#[tokio::test]
async fn the_handler_can_look_for_itself() {
    async fn saves(session: Session<Visitor>) -> String {
        session.write().await.set_name("Ada");
        let before = session.has_unsaved_changes();
        let saved = session.save().await.map_err(|error| error.kind());
        let again = session.save().await.map_err(|error| error.kind());
        format!("{before} {saved:?} {again:?} {}", session.has_unsaved_changes())
    }
    let app = App::start(Router::new().route("/saves", get(saves))).await;
    let client = app.client();
    assert_eq!(client.get("/saves").await.text(), "true Ok(()) Ok(()) false");
    assert_eq!(app.store.calls(), Calls { create: 1, ..Calls::default() });

    app.store.fail_next(Operation::Replace, 1);
    client.get("/name/Zoe").await;
    app.store.fail_next(Operation::Replace, 1);
    // The first save fails; the second, and the response, find it all still there to be saved.
    assert_eq!(client.get("/saves").await.text(), "false Ok(()) Ok(()) false", "nothing changed");
    client.get("/name/Zoe").await;
    client.get("/name/Zoe").await.text();
    app.store.fail_next(Operation::Replace, 1);
    assert_eq!(client.get("/saves").await.text(), "true Err(Store) Ok(()) false");
    assert_eq!(client.get("/name").await.text(), "Ada");
}

#[tokio::test]
async fn a_payload_over_the_limit_is_an_error_and_not_a_cut() {
    async fn grow(session: Session<Visitor>) -> String {
        session.write().await.set_name("x".repeat(2_000));
        session.save().await.unwrap_err().to_string()
    }
    let app = App::with(Router::new().route("/grow", get(grow)), |builder| {
        builder.with_payload_limit(1_000)
    })
    .await;
    let client = app.visitor().await;
    let reply = client.get("/grow").await;
    assert_eq!(reply.status, 500, "the handler's own answer would be a lie");
    assert_eq!(client.get("/name").await.text(), "Zoe");
}

#[tokio::test]
async fn discarded_writes_are_not_saved() {
    async fn discards(session: Session<Visitor>) -> String {
        session.write().await.set_name("no");
        session.discard_request_changes();
        let s = session.read().await;
        format!("{:?} {}", s.name(), s.name_is_dirty())
    }
    let app = App::start(Router::new().route("/discards", get(discards))).await;
    let client = app.visitor().await;
    assert_eq!(client.get("/discards").await.text(), r#"Some("Zoe") false"#);
    assert_eq!(client.get("/name").await.text(), "Zoe");
    assert_eq!(app.client().get("/discards").await.text(), "None false");
}

/// A field of which nothing is stored, set by one request and set back by another, is as it was when
/// the first one takes its write back; also if another process has saved in between.
#[tokio::test]
async fn what_was_set_back_is_not_saved_when_the_write_below_it_is_discarded() {
    for saves_in_between in [false, true] {
        let steps = Arc::new(Barrier::new(3));
        let (setting, setting_back) = (steps.clone(), steps.clone());
        let sets = async move |session: Session<Visitor>| {
            session.write().await.set_visits(3);
            setting.wait().await;
            setting.wait().await;
            setting.wait().await;
            session.discard_request_changes();
            setting.wait().await;
        };
        let sets_back = async move |session: Session<Visitor>| {
            setting_back.wait().await;
            session.write().await.reset_visits();
            setting_back.wait().await;
            setting_back.wait().await;
            setting_back.wait().await;
            let s = session.read().await;
            format!("{} {}", s.visits(), s.visits_is_dirty())
        };
        let routes = Router::new().route("/sets", get(sets)).route("/sets-back", get(sets_back));
        let app = App::start(routes).await;
        let client = app.visitor().await;
        let twin = app.twin().await;
        let elsewhere = twin.client();
        elsewhere.set_cookie(COOKIE, client.cookie(COOKIE).as_deref());
        let between = async {
            steps.wait().await;
            steps.wait().await;
            if saves_in_between {
                elsewhere.get("/name/Ada").await;
                // Loads what was saved, and puts what is not saved on top of it.
                assert_eq!(client.get("/name").await.text(), "Ada");
            }
            app.store.reset();
            steps.wait().await;
            steps.wait().await;
        };
        let (_, reply, ()) = tokio::join!(client.get("/sets"), client.get("/sets-back"), between);
        assert_eq!(reply.text(), "0 false", "saves in between: {saves_in_between}");
        assert_eq!(app.store.calls(), Calls::default(), "saves in between: {saves_in_between}");
    }
}

/// A write after the response has left: by `save`, or by the last handle.
#[tokio::test]
async fn a_late_write_is_saved_if_the_client_has_the_cookie() {
    let app = App::start(Router::new()).await;
    assert_eq!(app.client().get("/late").await.text(), "Err(NoCookie)");
    assert_eq!(app.store.calls(), Calls::default());

    let client = app.visitor().await;
    let reply = client.get("/late").await;
    assert_eq!((reply.text(), reply.set_cookies()), ("Ok(())", vec![]));
    eventually("the last handle is gone", async || app.layer.sessions_in_use() == 0).await;
    app.layer.wait_for_background_saves().await;
    assert_eq!(client.get("/name").await.text(), "streamed");
    assert_eq!(client.get("/visit").await.text(), "78");
}
