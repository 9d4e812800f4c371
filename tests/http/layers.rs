//! Layers side by side, none at all, and services outside of axum.

use std::{convert::Infallible, future::poll_fn, pin::pin, task::Poll, time::Duration};

use axum::{
    Router,
    body::{Body, to_bytes},
    routing::get,
};
use http::{HeaderValue, Request, Response, header};
use sessions::{
    Keys, MemoryStore, RequireLogin, Secret, Session, SessionLayer,
    testing::{Operation, SpyStore},
};
use sessions_tests::{Client, Server};
use tokio::{net::TcpListener, task::consume_budget};
use tower::{Layer, ServiceBuilder, ServiceExt, make::Shared};
use tower_http::{limit::RequestBodyLimitLayer, trace::TraceLayer};

use crate::{Visitor, basics};

/// Has a field of the same name as another session's, with another type.
#[derive(Session)]
struct Admin {
    name: u64,
}

#[tokio::test]
async fn two_types_of_session_work_side_by_side() {
    async fn both(visitor: Session<Visitor>, admin: Session<Admin>) -> String {
        visitor.write().await.set_name("Zoe");
        let mut admin = admin.write().await;
        let name = admin.name() + 1;
        admin.set_name(name);
        name.to_string()
    }
    let (store, keys) = (MemoryStore::new(), Keys::generate());
    let visitors = SessionLayer::<Visitor>::new(store.clone(), keys.clone());
    let admins = SessionLayer::<Admin>::builder(store.clone(), keys)
        .with_cookie_name("__Host-admin")
        .build()
        .unwrap();
    let app = basics().route("/both", get(both)).layer(visitors).layer(admins);
    let server = Server::start(app).await;
    let client = server.client();
    assert_eq!(client.get("/both").await.set_cookies().len(), 2);
    let reply = client.get("/both").await;
    assert_eq!((reply.text(), reply.header("vary")), ("2", "Cookie".to_string()));
    assert_eq!(client.get("/name").await.text(), "Zoe");
    assert_eq!(store.len(), 2);
    client.get("/destroy").await.text();
    assert_eq!(client.get("/both").await.text(), "3");
}

#[tokio::test]
async fn without_a_layer_the_extractor_says_so() {
    async fn optional(session: Option<Session<Visitor>>) -> String {
        session.is_some().to_string()
    }
    async fn result(session: sessions::Result<Session<Visitor>>) -> String {
        session.map(drop).unwrap_err().to_string()
    }
    let app = basics().route("/optional", get(optional)).route("/result", get(result));
    let server = Server::start(app).await;
    let client = server.client();
    assert_eq!(client.get("/name").await.status, 500);
    assert_eq!(client.get("/optional").await.text(), "false");
    let message = client.get("/result").await;
    assert!(message.text().contains("not inside a `SessionLayer::<"), "{message:?}");
}

#[tokio::test]
async fn middleware_and_handler_have_the_same_session() {
    async fn middleware(
        request: axum::extract::Request,
        next: axum::middleware::Next,
    ) -> axum::response::Response {
        let session = Session::<Visitor>::open(request.extensions()).await.unwrap();
        session.write().await.set_name("from the middleware");
        next.run(request).await
    }
    let app = basics()
        .layer(axum::middleware::from_fn(middleware))
        .layer(SessionLayer::<Visitor>::new(MemoryStore::new(), Keys::generate()));
    let server = Server::start(app).await;
    assert_eq!(server.client().get("/name").await.text(), "from the middleware");
}

#[tokio::test]
async fn any_tower_service_will_do() {
    async fn count(request: Request<u8>) -> Result<Response<String>, Infallible> {
        let session = Session::<Visitor>::open(request.extensions()).await.unwrap();
        let mut s = session.write().await;
        let visits = s.visits() + 1;
        s.set_visits(visits);
        Ok(Response::new(visits.to_string()))
    }
    let layer = SessionLayer::<Visitor>::new(MemoryStore::new(), Keys::generate());
    let service = ServiceBuilder::new().layer(layer).service_fn(count);
    let first = service.clone().oneshot(Request::new(0)).await.unwrap();
    let cookie = first.headers()["set-cookie"].to_str().unwrap().split(';').next().unwrap();
    let request = Request::builder().header("cookie", cookie).body(0).unwrap();
    let response = service.oneshot(request).await.unwrap();
    assert_eq!(to_bytes(response.into_body(), 100).await.unwrap(), "2");
}

/// None of these bodies has a default, nor can anything else make one.
#[tokio::test]
async fn any_layer_may_be_inside_of_any_other() {
    #[derive(Session)]
    struct Customer {
        #[session(user)]
        user: Option<u64>,
    }
    let store = SpyStore::new(MemoryStore::new());
    let sessions = SessionLayer::<Visitor>::new(store.clone(), Keys::generate());
    let customers = SessionLayer::<Customer>::builder(MemoryStore::new(), Keys::generate());
    let customers = customers.with_cookie_name("__Host-customer").build().unwrap();
    let inside = || {
        ServiceBuilder::new()
            .layer(TraceLayer::new_for_http())
            .layer(RequestBodyLimitLayer::new(1_000))
    };
    let for_users = get(async || "for users")
        .layer(ServiceBuilder::new().layer(RequireLogin::<Customer>::new()).layer(inside()));
    let layers = ServiceBuilder::new()
        .layer(TraceLayer::new_for_http())
        .layer(sessions)
        .layer(customers)
        .layer(inside())
        .layer(Visitor::csrf_layer())
        .layer(inside());
    let server = Server::start(basics().route("/for_users", for_users).layer(layers)).await;
    let client = server.client();
    client.get("/name/Zoe").await.text();
    assert_eq!(client.get("/name").await.text(), "Zoe");
    let reply = client.get("/for_users").await;
    assert_eq!((reply.status.as_u16(), &*reply.body), (401, "Please log in."));
    store.fail_next(Operation::Replace, 1);
    let reply = client.get("/name/Ada").await;
    let words = "The session is not available just now. Please try again.";
    assert_eq!((reply.status.as_u16(), &*reply.body), (503, words));
    assert_eq!(client.get("/late").await.text(), "Ok(())", "a body that is streamed");
}

/// As `axum::serve` takes it.
#[tokio::test]
async fn a_layer_can_be_around_a_router() {
    let sessions = SessionLayer::<Visitor>::new(MemoryStore::new(), Keys::generate());
    let app = sessions.layer(basics());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = tokio::spawn(axum::serve(listener, Shared::new(app)).into_future());
    assert_eq!(Client::new(address).get("/name").await.text(), "nobody");
    serving.abort();
}

#[tokio::test]
async fn an_inner_service_that_fails_keeps_its_error_and_what_it_wrote() {
    async fn fails(request: Request<u8>) -> Result<Response<String>, &'static str> {
        let session = Session::<Visitor>::open(request.extensions()).await.unwrap();
        let fail = *request.body() == 1;
        let mut s = session.write().await;
        let visits = s.visits() + 1;
        s.set_visits(visits);
        if fail { Err("the handler's own") } else { Ok(Response::new(visits.to_string())) }
    }
    let layer = SessionLayer::<Visitor>::new(MemoryStore::new(), Keys::generate());
    let service = ServiceBuilder::new().layer(layer).service_fn(fails);
    let first = service.clone().oneshot(Request::new(0)).await.unwrap();
    let cookie = first.headers()["set-cookie"].to_str().unwrap().split(';').next().unwrap();
    let request = |body| Request::builder().header("cookie", cookie).body(body).unwrap();
    assert_eq!(service.clone().oneshot(request(1)).await.unwrap_err(), "the handler's own");
    let response = service.oneshot(request(0)).await.unwrap();
    assert_eq!(to_bytes(response.into_body(), 100).await.unwrap(), "3");
}

#[test]
fn impossible_layers_are_refused_in_words() {
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    let builder = || SessionLayer::<Visitor>::builder(MemoryStore::new(), Keys::generate());
    let table = [
        (builder().with_cookie_domain("example.com"), "`__Host-` cookie with a domain"),
        (
            builder().with_cookie_name("id").with_cookie_domain("https://example.com:8080"),
            "session cookie `id`: the domain is an address of a page",
        ),
        (builder().with_cookie_path("/app"), "path other than `/`"),
        (builder().with_cookie_name("id").with_cookie_path("/app?a"), "before `?` and `#`"),
        (builder().with_partitioned_cookie(), "add `with_same_site(SameSite::None)`"),
        (
            builder().with_partitioned_cookie().insecure_plain_http(),
            "`Partitioned` without `Secure`",
        ),
        (
            builder().insecure_plain_http().with_same_site(sessions::SameSite::None),
            "`SameSite=None` without `Secure`",
        ),
        (builder().with_cookie_name("a b"), "a name is made of"),
        (builder().with_idle_timeout(None).with_absolute_timeout(None), "never leave the store"),
        (
            builder().with_idle_timeout(7 * DAY),
            "beside `with_idle_timeout` set `with_absolute_timeout`",
        ),
        (builder().with_payload_limit(usize::MAX), "the most is"),
        (builder().with_end_check_interval(Duration::ZERO), "`with_end_check_interval` is zero"),
    ];
    for (builder, words) in table {
        let message = builder.build().unwrap_err().to_string();
        assert!(message.contains(words), "{message}");
    }
    for builder in [
        builder().with_idle_timeout(7 * DAY).with_absolute_timeout(7 * DAY),
        builder().with_absolute_timeout(None).with_idle_timeout(7 * DAY),
        builder().with_absolute_timeout(DAY / 24),
        builder().with_idle_timeout(None),
    ] {
        builder.build().unwrap();
    }
}

#[tokio::test]
async fn a_new_session_without_a_response_is_not_stored() {
    async fn fails(request: Request<u8>) -> Result<Response<String>, &'static str> {
        let session = Session::<Visitor>::open(request.extensions()).await.unwrap();
        session.write().await.set_name("Zoe");
        Err("the handler's own")
    }
    let store = MemoryStore::new();
    let layer = SessionLayer::<Visitor>::new(store.clone(), Keys::generate());
    let service = ServiceBuilder::new().layer(layer.clone()).service_fn(fails);
    assert_eq!(service.oneshot(Request::new(0)).await.unwrap_err(), "the handler's own");
    layer.wait_for_background_saves().await;
    assert!(store.is_empty(), "nobody could ever find it");
}

/// With a secret, which is encrypted when it is saved: such a save is never done in one step.
#[derive(Session)]
struct Guarded {
    visits: u32,
    #[session(secret)]
    code: Option<Secret<u32>>,
}

/// An app on a store that is ready at once, whose handler leaves no budget to the task that runs
/// it: the next lock that the layer takes makes it wait (tokio's cooperative scheduling).
fn app_that_waits(store: MemoryStore) -> (SessionLayer<Guarded>, Router) {
    async fn visit(session: Session<Guarded>) {
        {
            let mut s = session.write().await;
            let visits = s.visits();
            s.set_visits(visits + 1);
        }
        poll_fn(|cx| {
            while pin!(consume_budget()).poll(cx).is_ready() {}
            Poll::Ready(())
        })
        .await;
    }
    let layer = SessionLayer::<Guarded>::new(store, Keys::generate());
    (layer.clone(), Router::new().route("/visit", get(visit)).layer(layer))
}

fn visit(cookie: Option<&HeaderValue>) -> Request<Body> {
    let mut request = Request::get("/visit").body(Body::empty()).unwrap();
    if let Some(cookie) = cookie {
        request.headers_mut().insert(header::COOKIE, cookie.clone());
    }
    request
}

async fn begin(app: &Router) -> HeaderValue {
    let response = app.clone().oneshot(visit(None)).await.unwrap();
    let cookie = response.headers()[header::SET_COOKIE].to_str().unwrap();
    HeaderValue::from_str(cookie.split(';').next().unwrap()).unwrap()
}

async fn visits(layer: &SessionLayer<Guarded>, cookie: &HeaderValue) -> u32 {
    let read = |request: Request<Body>| async move {
        let session = Session::<Guarded>::open(request.extensions()).await.unwrap();
        let visits = session.read().await.visits;
        Ok::<_, Infallible>(Response::new(visits.to_string()))
    };
    let service = ServiceBuilder::new().layer(layer.clone()).service_fn(read);
    let response = service.oneshot(visit(Some(cookie))).await.unwrap();
    let visits = to_bytes(response.into_body(), 100).await.unwrap();
    str::from_utf8(&visits).unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_save_that_has_to_wait_is_carried_out() {
    let (layer, app) = app_that_waits(MemoryStore::new());
    let cookie = begin(&app).await;
    app.clone().oneshot(visit(Some(&cookie))).await.unwrap();
    assert_eq!(visits(&layer, &cookie).await, 2);
}

#[tokio::test]
async fn a_response_that_is_dropped_while_its_save_waits_loses_nothing() {
    let (layer, app) = app_that_waits(MemoryStore::new());
    let cookie = begin(&app).await;
    {
        let mut response = pin!(app.clone().oneshot(visit(Some(&cookie))));
        let waits = poll_fn(|cx| Poll::Ready(response.as_mut().poll(cx).is_pending())).await;
        assert!(waits, "the test has something to drop");
    }
    layer.wait_for_background_saves().await;
    assert_eq!(visits(&layer, &cookie).await, 2);
    assert_eq!(layer.sessions_in_use(), 0);
}
