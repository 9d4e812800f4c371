//! Routes for users alone: the extractor, the layer, the login page and the way back from there.

use std::{convert::Infallible, time::Duration};

use axum::{
    Router,
    response::{Html, IntoResponse, Response},
    routing::{MethodRouter, any, get, post},
};
use http::{Method, Request, StatusCode, request::Parts};
use http_body_util::Full;
use hyper::body::Bytes;
use sessions::{
    LoggedIn, Rejection, RequireLogin, RequireLoginBuilder, Session, testing::Operation,
};
use sessions_tests::Server;
use tower_http::cors::CorsLayer;

use super::{Customer, MINUTE, Shop, login, shop_with};
use crate::COOKIE;

#[tokio::test]
async fn an_extractor_asks_for_a_login_or_takes_what_there_is() {
    async fn perhaps(login: Option<LoggedIn<Customer>>) -> String {
        login.map_or("nobody".into(), |login| login.user.to_string())
    }
    let shop = shop_with("/perhaps", perhaps).await;
    let client = shop.client();
    let reply = client.get("/account").await;
    assert_eq!((reply.status.as_u16(), &*reply.body), (401, "Please log in."));
    assert_eq!(client.get("/perhaps").await.text(), "nobody");
    client.get("/login/7").await.text();
    assert_eq!(client.get("/account").await.text(), "user 7 with 0 items");
    assert_eq!(client.get("/perhaps").await.text(), "7");
    shop.store.fail_next(Operation::Load, 1);
    assert_eq!(client.get("/perhaps").await.status, 503);
}

#[tokio::test]
async fn a_router_can_be_for_users_only() {
    let shop = Shop::start().await;
    let page = async || "for users";
    let api = Customer::require_login();
    let pages = RequireLogin::<Customer>::builder().with_login_page("/login");
    let recent = pages.clone().with_recent_login(10 * MINUTE).build().unwrap();
    let admin = Customer::require_login_builder().with_requirement(|fields| fields.is_admin);
    let guarded = Router::new()
        .route("/page", get(page).post(page).layer(pages.build().unwrap()))
        .route("/recent", post(page).get(page).layer(recent))
        .route("/admin", get(page).layer::<_, Infallible>(admin.build().unwrap()))
        .route("/api", get(page))
        .route(
            "/promote",
            get(async |session: Session<Customer>| {
                session.write().await.set_is_admin(true);
            }),
        )
        .route_layer(api.clone());
    let app = guarded
        .route("/cors", get(page).options(async || "any").layer(api))
        .merge(Router::new().route("/login/{user}", get(login)));
    let server = Server::start(app.layer(shop.layer.clone())).await;
    let client = server.client();

    assert_eq!(client.get("/api").await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(client.get("/nowhere").await.status, StatusCode::NOT_FOUND);
    assert_eq!(client.request(Method::OPTIONS, "/cors").await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(client.cookie(COOKIE), None, "who is only refused gets no session");

    client.get("/login/7").await.text();
    for path in ["/api", "/page", "/recent"] {
        assert_eq!(client.get(path).await.text(), "for users", "{path}");
    }
    assert_eq!(client.get("/admin").await.status, StatusCode::FORBIDDEN);
    client.get("/promote").await.text();
    assert_eq!(client.get("/admin").await.text(), "for users");

    shop.clock.advance(10 * MINUTE);
    assert_eq!(client.get("/recent").await.text(), "for users");
    shop.clock.advance(Duration::from_millis(1));
    let reply = client.get("/recent").await;
    assert_eq!((reply.status.as_u16(), &*reply.header("location")), (303, "/login?next=%2Frecent"));
    let reply = client.request(Method::POST, "/recent").await;
    assert_eq!((reply.status.as_u16(), &*reply.header("location")), (303, "/login"));
    client.get("/login/7").await.text();
    assert_eq!(client.get("/recent").await.text(), "for users");

    shop.store.fail_next(Operation::Load, 1);
    assert_eq!(client.get("/api").await.status, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn who_is_not_logged_in_is_sent_to_the_login_page_and_back() {
    let shop = Shop::start().await;
    let login =
        RequireLogin::<Customer>::builder().with_login_page("/login?lang=de").build().unwrap();
    let app = Router::new().route("/{*page}", get(async || "in")).layer(login);
    let server = Server::start(app.layer(shop.layer.clone())).await;
    let reply = server.client().get("/orders/7?page=2&sort=a%20b").await;
    assert_eq!(reply.status, StatusCode::SEE_OTHER);
    let location = reply.header("location");
    assert_eq!(location, "/login?lang=de&next=%2Forders%2F7%3Fpage%3D2%26sort%3Da%2520b");
    assert_eq!(reply.header("vary"), "Cookie");
}

/// A router has its way back from any depth, also where a proxy has taken something away.
#[tokio::test]
async fn the_way_back_leads_out_of_nested_routers() {
    let shop = Shop::start().await;
    let page = || get(async || "in");
    let login = RequireLogin::<Customer>::builder().with_login_page("/shop/login");
    let orders = || Router::new().route("/{id}", page());
    let guarded =
        |login: RequireLogin<Customer>| Router::new().nest("/orders", orders().layer(login));
    let behind = login.clone().with_path_prefix("/shop").build().unwrap();
    let login = login.build().unwrap();
    let app = Router::new()
        .nest("/nested", guarded(login.clone()))
        .nest("/behind", guarded(behind.clone()))
        .nest_service("/service", guarded(login.clone()))
        .nest("/own-session", guarded(login.clone()).layer(shop.layer.clone()))
        .route("/flat", page().layer(behind))
        .layer(shop.layer.clone());
    let server = Server::start(app).await;
    for (path, next) in [
        ("/nested/orders/7?page=2", "%2Fnested%2Forders%2F7%3Fpage%3D2"),
        ("/behind/orders/7?page=2", "%2Fshop%2Fbehind%2Forders%2F7%3Fpage%3D2"),
        ("/service/orders/7", "%2Fservice%2Forders%2F7"),
        ("/own-session/orders/7", "%2Fown-session%2Forders%2F7"),
        ("/flat", "%2Fshop%2Fflat"),
    ] {
        let reply = server.client().get(path).await;
        assert_eq!(reply.status, StatusCode::SEE_OTHER);
        assert_eq!(reply.header("location"), format!("/shop/login?next={next}"));
        let reply =
            server.client().call_http2(Request::get(path).body(Full::default()).unwrap()).await;
        assert_eq!(reply.header("location"), format!("/shop/login?next={next}"), "over HTTP/2");
    }
}

#[test]
fn what_is_no_address_of_a_login_page_is_refused_in_words() {
    for page in
        ["/login", "/", "/login?lang=de#form", "https://id.example/login", "HTTP://id.example"]
    {
        RequireLogin::<Customer>::builder().with_login_page(page).build().unwrap();
    }
    let refused = |builder: RequireLoginBuilder<Customer>, what| {
        let message = builder.build().unwrap_err().to_string();
        assert!(message.contains(&format!("`{what}` is no")), "{message}");
        assert!(message.contains("begins with one `/`"), "{message}");
    };
    for page in [
        "",
        "login",
        "./login",
        "?login",
        "#login",
        "login.example/login",
        "//id.example/login",
        "javascript:alert(1)",
        "mailto:a@shop.example",
        "https://",
        "https:login",
        " /login",
        "/login\n",
        "/login\0",
    ] {
        refused(RequireLogin::builder().with_login_page(page), page);
    }
    for prefix in
        ["", "/", "shop", "/shop/", "//shop", "https://shop.example", "/a?b", "/a#b", "/a b"]
    {
        refused(RequireLogin::builder().with_path_prefix(prefix), prefix);
    }
}

/// What a browser asks without cookies, before a request to another site: it gets the headers that
/// answer it. Nothing else passes as one, and nobody reads a page by it.
#[tokio::test]
async fn a_preflight_passes_without_what_is_not_its_own() {
    let shop = Shop::start().await;
    let cors = CorsLayer::new().allow_origin(["https://app.example".parse().unwrap()]);
    let any_page = || -> MethodRouter { any(async || ([("content-length", "9")], "for users")) };
    let never = RequireLogin::<Customer>::builder().with_requirement(|_| false).build().unwrap();
    let app = Router::new()
        .route("/cors", any_page().layer::<_, Infallible>(cors).layer(never.clone()))
        .route("/any", any_page().layer(never))
        .layer(shop.layer.clone());
    let server = Server::start(app).await;
    let client = server.client();
    let asks = async |path: &str, headers: &[(&str, &str)]| {
        let mut request = Request::builder().method(Method::OPTIONS).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        client.call(request.body(Full::default()).unwrap()).await
    };
    let origin = ("origin", "https://app.example");
    let method = ("access-control-request-method", "GET");
    let reply = asks("/cors", &[origin, method]).await;
    assert_eq!(reply.text(), "");
    assert_eq!(reply.header("access-control-allow-origin"), origin.1);
    assert_eq!(asks("/any", &[origin, method]).await.text(), "");
    for headers in [&[][..], &[origin], &[method]] {
        for path in ["/cors", "/any"] {
            let reply = asks(path, headers).await;
            assert_eq!(reply.status, StatusCode::UNAUTHORIZED, "{path} {headers:?}");
        }
    }
}

#[tokio::test]
async fn who_does_not_pass_is_answered_as_the_application_wants() {
    fn rejected(rejection: &Rejection, request: &Parts) -> Response {
        match rejection.login_page() {
            Some(page) if request.headers.contains_key("hx-request") => {
                [("hx-redirect", page)].into_response()
            }
            Some(_) => rejection.response().into_response(),
            None => {
                let kind = rejection.kind();
                (rejection.status(), Html(format!("<h1>{kind:?}</h1>"))).into_response()
            }
        }
    }
    let shop = Shop::start().await;
    let page = || get(async || "for users");
    let pages = RequireLogin::<Customer>::builder()
        .with_login_page("/login")
        .with_rejection_response(rejected);
    let admin = pages.clone().with_requirement(|fields| fields.is_admin).build().unwrap();
    let pages = pages.build().unwrap();
    let api = RequireLogin::<Customer>::builder();
    let api = api.with_rejection_response(rejected).build().unwrap();
    let app = Router::new()
        .route("/page", page().layer(pages.clone()))
        .route("/admin", page().layer(admin))
        .route("/api", page().layer(api))
        .route("/login/{user}", get(login))
        .layer(shop.layer.clone());
    let server = Server::start(app).await;
    let client = server.client();
    let htmx = Request::get("/page?a=b").header("hx-request", "true");
    let reply = client.call(htmx.body(Full::<Bytes>::default()).unwrap()).await;
    assert_eq!(reply.status, StatusCode::OK);
    assert_eq!(reply.header("hx-redirect"), "/login?next=%2Fpage%3Fa%3Db");
    assert_eq!(
        (reply.header("location"), reply.header("cache-control")),
        ("".into(), "no-store".into())
    );
    let reply = client.get("/page").await;
    assert_eq!((reply.status.as_u16(), &*reply.header("location")), (303, "/login?next=%2Fpage"));
    let reply = client.get("/api").await;
    assert_eq!((reply.status.as_u16(), &*reply.body), (401, "<h1>LoginRequired</h1>"));
    client.get("/login/7").await.text();
    let reply = client.get("/admin").await;
    assert_eq!((reply.status.as_u16(), &*reply.body), (403, "<h1>Forbidden</h1>"));
    shop.store.fail_next(Operation::Load, 1);
    let reply = client.get("/page").await;
    assert_eq!((reply.status.as_u16(), &*reply.body), (503, "<h1>Session</h1>"));
    assert_eq!(client.get("/page").await.text(), "for users");
}
