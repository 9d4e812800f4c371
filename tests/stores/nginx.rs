//! What nginx makes of the responses: its cache, its `Host`, its limits.

use std::{convert::Infallible, net::SocketAddr, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::Path,
    response::{AppendHeaders, IntoResponse, Response},
    routing::{get, post},
};
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::Full;
use hyper::body::Bytes;
use sessions::{Keys, MemoryStore, PrivateCookie, RequireLogin, Session, SessionLayer};
use sessions_tests::{Client, Server, nginx::Nginx};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    time::timeout,
};
use tokio_stream::StreamExt;
use tower_http::{compression::CompressionLayer, cors::CorsLayer};

const COOKIE: &str = "__Host-id";

#[derive(Session)]
struct Visitor {
    name: Option<String>,
    #[session(user)]
    user: Option<u64>,
}

async fn name(session: Session<Visitor>) -> String {
    session.read().await.name().unwrap_or("nobody").to_string()
}

async fn set_name(Path(name): Path<String>, session: Session<Visitor>) {
    session.write().await.set_name(name);
}

async fn leave(session: Session<Visitor>) -> sessions::Result<()> {
    session.destroy().await
}

/// A page that its handler lets caches keep, and that depends on the session.
async fn public(session: Session<Visitor>) -> impl IntoResponse {
    ([("cache-control", "public, max-age=60")], name(session).await)
}

/// The same, with lines of its own about what it depends on.
async fn lines(session: Session<Visitor>) -> impl IntoResponse {
    let lines = ["Accept-Encoding", "Origin"].map(|line| ("vary", line));
    (AppendHeaders(lines), public(session).await)
}

async fn silent(session: Session<Visitor>) -> String {
    name(session).await
}

async fn for_a_minute(session: Session<Visitor>) -> impl IntoResponse {
    ([("cache-control", "max-age=60")], name(session).await)
}

/// A page with an `ETag`, whose handler now and then writes to the session.
async fn tagged(
    Path(kind): Path<String>,
    headers: HeaderMap,
    session: Session<Visitor>,
) -> Response {
    let (writes, is_known) =
        (headers.contains_key("x-write"), headers.contains_key("if-none-match"));
    if writes {
        session.write().await.set_name("Ada");
    } else {
        drop(session.read().await);
    }
    let tag = [("etag", "\"one\"")];
    let public = (kind != "private").then_some([("cache-control", "public, max-age=1")]);
    match is_known && !(writes && kind == "public-in-full") {
        true => (tag, public, StatusCode::NOT_MODIFIED).into_response(),
        false => (tag, public, "page").into_response(),
    }
}

/// What tells the application that a websocket should begin, and where the request was sent to.
async fn socket(headers: HeaderMap) -> String {
    let said = ["upgrade", "connection", "host"].map(|name| headers.get(name));
    let said = said.map(|value| value.map_or("", |value| value.to_str().unwrap()));
    said.join(" ")
}

/// A stream with one event, which goes on without another.
async fn events(session: Session<Visitor>) -> Response {
    let event = format!("data: {}\n\n", name(session).await);
    let event = tokio_stream::once(Ok::<_, Infallible>(event));
    let body = Body::from_stream(event.chain(tokio_stream::pending()));
    ([("content-type", "text/event-stream")], body).into_response()
}

async fn app() -> Server {
    let origin = "https://app.example".parse().unwrap();
    let layers = Router::new()
        .route("/layers", get(public))
        .layer(CompressionLayer::new())
        .layer(CorsLayer::new().allow_origin([origin]));
    let login = RequireLogin::<Visitor>::builder().with_login_page("/shop/login");
    let routes = Router::new()
        .route("/name/{name}", get(set_name))
        .route("/leave", get(leave))
        .route("/lines", get(lines))
        .route("/silent", get(silent))
        .route("/socket", get(socket))
        .route("/events", get(events))
        .route(
            "/unbuffered",
            get(async |session| ([("x-accel-buffering", "no")], events(session).await)),
        )
        .route("/tagged/{kind}", get(tagged))
        .route("/for_a_minute", get(for_a_minute))
        .route("/same", get(async || ([("cache-control", "max-age=60")], "the same for all")))
        .route("/origin", post(async || "done").layer(Visitor::csrf_layer().origin_only()))
        .route("/orders", get(name).layer(login.clone().build().unwrap()))
        .route("/prefixed", get(name).layer(login.with_path_prefix("/shop").build().unwrap()))
        .merge(layers);
    let layer = SessionLayer::<Visitor>::new(MemoryStore::new(), Keys::generate());
    Server::start(routes.layer(layer)).await
}

/// A visitor of this name, who came through the proxy.
async fn visitor(nginx: &Nginx, name: &str) -> Client {
    let client = nginx.client();
    client.get(&format!("/name/{name}")).await.text();
    client
}

/// Handlers and layers that say what a page depends on, each in a line: nginx before 1.23 heeds the last
/// line alone.
#[tokio::test]
async fn behind_nginx_nobody_gets_the_page_of_another_visitor() {
    let server = app().await;
    let Some(nginx) = Nginx::start(server.client().address(), "", "") else { return };
    let visitors = [visitor(&nginx, "Ada").await, visitor(&nginx, "Zoe").await, nginx.client()];
    for path in ["/lines", "/layers"] {
        let mut hits = 0;
        for round in 0..32 {
            for (client, name) in visitors.iter().zip(["Ada", "Zoe", "nobody"]) {
                let reply = client.get(path).await;
                assert_eq!(reply.text(), name, "{path}, round {round}: {reply:?}");
                hits += u32::from(reply.header("x-cache") == "HIT");
            }
        }
        assert_eq!(hits, 3 * 31, "{path}: the cache is on, and keeps a page for each of them");
    }
}

/// Where the operator has told the cache not to heed `Vary`, and to keep what says nothing.
#[tokio::test]
async fn behind_nginx_a_page_of_a_session_is_not_shared_unless_its_handler_says_so() {
    let server = app().await;
    let more = "proxy_ignore_headers Vary; proxy_cache_valid any 1m;";
    let Some(nginx) = Nginx::start(server.client().address(), more, "") else { return };
    let (ada, zoe, stranger) =
        (visitor(&nginx, "Ada").await, visitor(&nginx, "Zoe").await, nginx.client());
    for path in ["/silent", "/for_a_minute"] {
        for _ in 0..2 {
            for (client, name) in [(&ada, "Ada"), (&zoe, "Zoe"), (&stranger, "nobody")] {
                let reply = client.get(path).await;
                assert_eq!(reply.text(), name, "{path}: {reply:?}");
                assert_eq!(reply.header("x-cache"), "MISS", "{path}");
            }
        }
    }
    // What a session is not asked for is shared as before.
    assert_eq!(ada.get("/same").await.header("x-cache"), "MISS");
    assert_eq!(zoe.get("/same").await.header("x-cache"), "HIT");
    // Nor is a refusal, which the next visitor might not get.
    assert_eq!(stranger.get("/orders").await.status, 303);
    assert_eq!(stranger.get("/orders").await.header("x-cache"), "MISS");

    let before = ada.copy();
    ada.get("/leave").await.text();
    for path in ["/silent", "/for_a_minute"] {
        for client in [&ada, &before, &stranger] {
            assert_eq!(client.get(path).await.text(), "nobody", "{path}");
        }
    }
}

/// nginx asks by itself whether a page has changed, and keeps the headers of the 304 to itself.
#[tokio::test]
async fn behind_nginx_a_cookie_arrives_unless_a_cache_has_asked() {
    let server = app().await;
    let more = "proxy_cache_revalidate on;";
    let Some(nginx) = Nginx::start(server.client().address(), more, "") else { return };
    for (kind, arrives) in [("private", true), ("public", false), ("public-in-full", true)] {
        let (client, path) = (nginx.client(), format!("/tagged/{kind}"));
        assert_eq!(client.get(&path).await.header("x-cache"), "MISS");
        // The first page is in the cache for a second, if at all.
        let reply = loop {
            let request = Request::builder().uri(&path).header("x-write", "1");
            let reply = client.call(request.body(Full::<Bytes>::default()).unwrap()).await;
            if reply.header("x-cache") != "HIT" {
                break reply;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        };
        assert_eq!(reply.text(), "page");
        assert_eq!(reply.header("x-cache") == "REVALIDATED", !arrives, "{kind}: {reply:?}");
        assert_eq!(client.cookie(COOKIE).is_some(), arrives, "{kind}: {reply:?}");
    }
}

/// A cache that is told not to heed what the responses say.
#[tokio::test]
async fn behind_nginx_a_cache_that_heeds_no_header_leaves_cookies_out() {
    let server = app().await;
    let upstream = server.client().address();
    let heedless = "proxy_ignore_headers Vary Cache-Control Set-Cookie; proxy_cache_valid any 1m;";
    let careful = "proxy_cache_bypass $http_cookie; \
                   proxy_no_cache $http_cookie $upstream_http_set_cookie;";
    for (more, is_shared) in [("", true), (careful, false)] {
        let Some(nginx) = Nginx::start(upstream, &format!("{heedless} {more}"), "") else { return };
        let (ada, zoe) = (nginx.client(), nginx.client());
        ada.get("/name/Ada").await.text();
        zoe.get("/name/Ada").await.text();
        assert_eq!(ada.cookie(COOKIE) == zoe.cookie(COOKIE), is_shared, "the session: {more}");
        assert_eq!(nginx.client().get("/same").await.header("x-cache"), "MISS");
        assert_eq!(nginx.client().get("/same").await.header("x-cache"), "HIT");
        ada.get("/silent").await.text();
        let seen = nginx.client().get("/silent").await;
        assert_eq!(seen.text() == "Ada", is_shared, "the page: {more}");
    }
}

/// As `sessions::proxies` says.
#[tokio::test]
async fn behind_nginx_an_origin_is_compared_with_the_host_that_it_hands_on() {
    let server = app().await;
    let upstream = server.client().address();
    let locations = "location /as-sent/ { proxy_pass http://UPSTREAM/; proxy_set_header Host $http_host; }\n\
                     location /without-port/ { proxy_pass http://UPSTREAM/; proxy_set_header Host $host; }";
    let Some(nginx) = Nginx::start(upstream, "", locations) else { return };
    let site = format!("http://{}", nginx.address());
    let upstream = format!("http://{upstream}");
    let default = "/origin";
    for (path, origin, passes) in [
        ("/as-sent/origin", &site, true),
        ("/as-sent/origin", &upstream, false),
        // The default: the upstream's own name.
        (default, &site, false),
        (default, &upstream, true),
        ("/without-port/origin", &site, false),
    ] {
        let request = Request::builder().method(Method::POST).uri(path).header("origin", origin);
        let reply = nginx.client().call(request.body(Full::<Bytes>::default()).unwrap()).await;
        assert_eq!(reply.status == 200, passes, "{origin} at {path}: {reply:?}");
        let request = Request::builder().method(Method::POST).uri(path).header("origin", origin);
        let request = request.header("sec-fetch-site", "same-origin");
        let reply = nginx.client().call(request.body(Full::<Bytes>::default()).unwrap()).await;
        assert_eq!(reply.status, 200, "a browser that says so itself needs no host");
    }
}

#[tokio::test]
async fn behind_nginx_the_way_back_has_the_prefix_that_it_takes_away() {
    let server = app().await;
    let locations = "location /shop/ { proxy_pass http://UPSTREAM/; }";
    let Some(nginx) = Nginx::start(server.client().address(), "", locations) else { return };
    for (path, next) in
        [("/shop/prefixed?page=2", "%2Fshop%2Fprefixed%3Fpage%3D2"), ("/shop/orders", "%2Forders")]
    {
        let reply = nginx.client().get(path).await;
        assert_eq!(reply.header("location"), format!("/shop/login?next={next}"));
    }
}

/// nginx takes 4 KB for all of a response's headers by default, and answers 502 to more.
#[tokio::test]
async fn behind_nginx_a_large_private_cookie_needs_a_larger_buffer() {
    let layer = SessionLayer::<Visitor>::new(PrivateCookie, Keys::generate());
    let server =
        Server::start(Router::new().route("/name/{name}", get(set_name)).layer(layer)).await;
    let upstream = server.client().address();
    let locations = "location /large/ { proxy_pass http://UPSTREAM/; proxy_buffer_size 8k; }";
    let Some(nginx) = Nginx::start(upstream, "", locations) else { return };
    let path = |length: usize| format!("name/{}", "x".repeat(length));
    assert_eq!(nginx.client().get(&format!("/{}", path(1_000))).await.status, 200);
    let large = path(2_800);
    let cookie = server.client().get(&format!("/{large}")).await.set_cookies().remove(0);
    assert!(cookie.len() > 3_800, "{} bytes", cookie.len());
    assert_eq!(nginx.client().get(&format!("/{large}")).await.status, 502);
    assert!(nginx.log().contains("upstream sent too big header"), "{}", nginx.log());
    assert_eq!(nginx.client().get(&format!("/large/{large}")).await.status, 200);
}

/// `$cookie___Host-id` ends at the dash, which is text then.
#[tokio::test]
async fn behind_nginx_a_map_knows_the_session_by_its_cookie() {
    let server = app().await;
    let locations = "location /by-name/ { proxy_pass http://UPSTREAM/; \
                     add_header X-Session $cookie___Host-id always; }\n\
                     location /by-map/ { proxy_pass http://UPSTREAM/; \
                     add_header X-Session $session always; }";
    let Some(nginx) = Nginx::start(server.client().address(), "", locations) else { return };
    for name in ["Ada", "Zoe"] {
        let client = visitor(&nginx, name).await;
        let cookie = client.cookie(COOKIE).expect("a cookie");
        assert_eq!(client.get("/by-map/silent").await.header("x-session"), cookie);
        assert_eq!(client.get("/by-name/silent").await.header("x-session"), "-id");
    }
    let stranger = nginx.client();
    assert_eq!(stranger.get("/by-map/silent").await.headers.get("x-session"), None);
    assert_eq!(stranger.get("/by-name/silent").await.header("x-session"), "-id");
}

/// The first event of a stream that has no second one.
async fn first_event(server: SocketAddr, path: &str) -> String {
    let connection = TcpStream::connect(server).await.unwrap();
    let mut lines = BufReader::new(connection);
    let request = format!("GET {path} HTTP/1.1\r\nHost: {server}\r\n\r\n");
    lines.write_all(request.as_bytes()).await.unwrap();
    let mut line = String::new();
    let event = async {
        while !line.starts_with("data:") {
            line.clear();
            assert_ne!(lines.read_line(&mut line).await.unwrap(), 0, "the stream has ended");
        }
    };
    timeout(Duration::from_secs(30), event).await.expect("nginx keeps the event back");
    line.trim().to_string()
}

/// With the lines that `sessions::proxies` has.
#[tokio::test]
async fn behind_nginx_websockets_and_events_arrive() {
    const PAGE: &str = include_str!("../../sessions/docs/proxies.md");
    let (_, block) = PAGE.split_once("```text\nlocation / {").expect("the lines");
    let (block, _) = block.split_once("```").expect("their end");
    let server = app().await;
    let upstream = server.client().address();
    let locations = format!("location / {{{block}").replace("127.0.0.1:3000", "UPSTREAM");
    let Some(documented) = Nginx::start(upstream, "", &locations) else { return };
    let Some(default) = Nginx::start(upstream, "", "") else { return };

    let request = || {
        let request = Request::builder().uri("/socket").header("upgrade", "websocket");
        request.header("connection", "upgrade").body(Full::<Bytes>::default()).unwrap()
    };
    let arrived = documented.client().call(request()).await;
    assert_eq!(arrived.text(), format!("websocket upgrade {}", documented.address()));
    let arrived = default.client().call(request()).await;
    assert_eq!(arrived.text(), format!(" close {upstream}"));

    assert_eq!(first_event(documented.address(), "/events").await, "data: nobody");
    assert_eq!(first_event(default.address(), "/unbuffered").await, "data: nobody");
    let origin = format!("http://{}", documented.address());
    let request = Request::builder().method(Method::POST).uri("/origin").header("origin", origin);
    let reply = documented.client().call(request.body(Full::<Bytes>::default()).unwrap()).await;
    assert_eq!(reply.status, 200, "{reply:?}");
}
