//! Logins, and requests of other sites: the same guards as in axum, and the same answers.

use actix_web::{HttpRequest, web};
use axum::{
    Router,
    routing::{any, get},
};
use http::{HeaderName, HeaderValue, Method};
use http_body_util::Full;
use hyper::body::Bytes;
use sessions::{
    CsrfLayer, ErrorKind, LoggedIn, OriginCheck, RequireLogin, Session, UserSessions,
    testing::Operation,
};
use sessions_tests::{Client, Reply};

use crate::{App, Both, COOKIE, Visitor};

const FORM: &str = "application/x-www-form-urlencoded";

fn shape(reply: &Reply) -> String {
    let [cache, location] = ["cache-control", "location"].map(|header| reply.header(header));
    format!("{} {cache:?} {location:?} {:?}", reply.status, reply.body)
}

fn request(
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> http::Request<Full<Bytes>> {
    let mut request = http::Request::new(Full::from(body.to_string()));
    *request.method_mut() = method;
    *request.uri_mut() = path.parse().unwrap();
    for (name, value) in headers {
        let name: HeaderName = name.parse().unwrap();
        request.headers_mut().append(name, HeaderValue::from_str(value).unwrap());
    }
    request
}

/// Writes, and sends back what has arrived.
async fn buy(session: Session<Visitor>, body: web::Bytes) -> String {
    *session.write().await.visits_mut() += 1;
    String::from_utf8(body.into()).unwrap()
}

async fn still() -> &'static str {
    "nothing"
}

fn csrf() -> CsrfLayer<Visitor> {
    CsrfLayer::builder()
        .with_form_limit(300)
        .with_trusted_origin("https://pay.example")
        .build()
        .unwrap()
}

async fn shop() -> Both {
    let axum =
        Router::new().route("/shop/buy", any(buy)).route("/shop/still", any(still)).layer(csrf());
    let actix = |config: &mut web::ServiceConfig| {
        let shop = web::scope("/shop").wrap(csrf());
        let shop = shop.route("/buy", web::to(buy)).route("/still", web::to(still));
        config.service(shop);
    };
    Both::start(axum, actix, |builder| builder).await
}

#[tokio::test]
async fn requests_of_other_sites_are_refused_as_in_axum() {
    let both = shop().await;
    let mut answers = Vec::new();
    for client in &both.clients {
        let token = client.get("/token").await.text().to_string();
        let host = client.address().to_string();
        let own = format!("http://{host}");
        let token = &*token;
        let form = format!("teapots=1&csrf_token={token}&note=%C3%A4");
        let too_large = format!("{form}&x={}", "x".repeat(300));
        let post = Method::POST;
        let is_form = ("content-type", FORM);
        let is_upgrade = ("upgrade", "websocket");
        let asks = ("access-control-request-method", "POST");
        let mut seen = Vec::new();
        for (method, path, headers, body) in [
            (&Method::GET, "/shop/still", &[][..], ""),
            (&Method::GET, "/shop/still", &[is_upgrade, ("origin", "http://evil.example")], ""),
            (&Method::GET, "/shop/still", &[is_upgrade, ("origin", &*own)], ""),
            (&Method::OPTIONS, "/shop/still", &[("origin", "http://evil.example"), asks], ""),
            (&Method::OPTIONS, "/shop/still", &[("origin", "http://evil.example")], ""),
            (&post, "/shop/buy", &[], ""),
            (&post, "/shop/buy", &[("x-csrf-token", token)], "body"),
            (&post, "/shop/buy", &[("x-csrf-token", "wrong")], "body"),
            (&post, "/shop/buy", &[("x-csrf-token", token), ("origin", "http://evil.example")], ""),
            (&post, "/shop/buy", &[("x-csrf-token", token), ("origin", "https://pay.example")], ""),
            (&post, "/shop/buy", &[("x-csrf-token", token), ("origin", &*own)], ""),
            (&post, "/shop/buy", &[("x-csrf-token", token), ("sec-fetch-site", "cross-site")], ""),
            (&post, "/shop/buy", &[("x-csrf-token", token), ("sec-fetch-site", "same-origin")], ""),
            (&post, "/shop/buy", &[("x-csrf-token", token), ("origin", "null")], ""),
            (&post, "/shop/buy", &[("origin", "null")], ""),
            (&post, "/shop/buy", &[is_form], &*form),
            (&post, "/shop/buy", &[is_form], "csrf_token=wrong"),
            (&post, "/shop/buy", &[is_form], "teapots=1"),
            (&post, "/shop/buy", &[is_form], &*too_large),
            (&Method::DELETE, "/shop/buy", &[], ""),
            (&"BUY".parse().unwrap(), "/shop/buy", &[("x-csrf-token", token)], ""),
        ] {
            let reply = client.call(request(method.clone(), path, headers, body)).await;
            seen.push(format!("{method} {headers:?} {}", shape(&reply)).replace(token, "(token)"));
        }
        seen.push(client.get("/visit").await.text().to_string());
        // A new session has no token, and is not begun by a request that is refused.
        let stranger = client.copy();
        stranger.set_cookie(COOKIE, None);
        let reply = stranger.call(request(post, "/shop/buy", &[("x-csrf-token", token)], "")).await;
        seen.push(format!("{} {:?}", shape(&reply), reply.set_cookies()));
        let seen: Vec<_> = seen.into_iter().map(|line| line.replace(&host, "(host)")).collect();
        answers.push(seen);
    }
    assert_eq!(answers[1], answers[0]);
    let count = |what: &str| answers[1].iter().filter(|line| line.contains(what)).count();
    assert_eq!((count("403 Forbidden"), count("413 Payload"), count("200 OK")), (11, 1, 10));
}

#[tokio::test]
async fn a_form_comes_to_its_handler_whole() {
    #[derive(serde::Deserialize)]
    struct Order {
        teapots: u32,
        note: String,
    }
    async fn order(order: web::Form<Order>) -> String {
        format!("{} {}", order.teapots, order.note)
    }
    let app = App::start(|config| {
        let shop = web::scope("/shop").wrap(CsrfLayer::<Visitor>::new());
        config.service(shop.route("/order", web::post().to(order)));
    })
    .await;
    let client = app.client();
    let token = client.get("/token").await.text().to_string();
    let form = format!("teapots=3&csrf_token={token}&note=%C3%A4");
    let sent = request(Method::POST, "/shop/order", &[("content-type", FORM)], &form);
    assert_eq!(client.call(sent).await.text(), "3 ä");
}

#[tokio::test]
async fn a_handler_can_check_the_origin_itself() {
    async fn feedback(request: HttpRequest) -> sessions::Result<String> {
        let head = sessions::actix::head(&request);
        OriginCheck::new().check(&head.headers, &head.uri)?;
        Ok(format!("{} {} {:?}", head.method, head.uri, head.version))
    }
    let app = App::start(|config| _ = config.route("/feedback", web::post().to(feedback))).await;
    let (client, own) = (app.client(), format!("http://{}", app.address));
    for (origin, status) in [(&*own, 200), ("http://evil.example", 403)] {
        let sent = request(Method::POST, "/feedback?a=b", &[("origin", origin)], "");
        let reply = client.call(sent).await;
        assert_eq!(reply.status, status);
        assert!(status != 200 || reply.body == "POST /feedback?a=b HTTP/1.1", "{reply:?}");
    }
}

// ---- logins ----

async fn become_admin(session: Session<Visitor>) -> String {
    session.write().await.set_is_admin(true);
    String::new()
}

async fn members() -> Both {
    let login = || RequireLogin::<Visitor>::builder().with_login_page("/login-page?theme=dark");
    let admin = move || login().with_requirement(|fields| fields.is_admin).build().unwrap();
    let api = RequireLogin::<Visitor>::new;
    let axum = Router::new()
        .nest("/members", Router::new().route("/page", any(still)).layer(login().build().unwrap()))
        .route("/admin", get(still).layer(admin()))
        .route("/api", any(still).layer(api()))
        .route("/become-admin", get(become_admin));
    let actix = move |config: &mut web::ServiceConfig| {
        let members = web::scope("/members").wrap(login().build().unwrap());
        config
            .service(members.route("/page", web::to(still)))
            .service(web::resource("/admin").wrap(admin()).route(web::get().to(still)))
            .service(web::resource("/api").wrap(api()).route(web::to(still)))
            .route("/become-admin", web::get().to(become_admin));
    };
    Both::start(axum, actix, |builder| builder).await
}

#[tokio::test]
async fn only_users_pass_as_in_axum() {
    let both = members().await;
    let mut answers = Vec::new();
    for (client, store) in both.clients.iter().zip(&both.stores) {
        let mut seen = Vec::new();
        for step in ["/name/Zoe", "/login", "/become-admin", "/logout"] {
            client.get(step).await.text();
            for (method, path) in [
                (Method::GET, "/members/page?a=b"),
                (Method::POST, "/members/page?a=b"),
                (Method::GET, "/admin"),
                (Method::GET, "/api"),
                (Method::GET, "/account"),
            ] {
                let reply = client.call(request(method.clone(), path, &[], "")).await;
                let (vary, cookies) = (reply.header("vary"), reply.set_cookies().len());
                seen.push(format!("{step} {method} {path} {} {vary} {cookies}", shape(&reply)));
            }
            let asks = [("origin", "https://a.example"), ("access-control-request-method", "GET")];
            let reply = client.call(request(Method::OPTIONS, "/api", &asks, "")).await;
            seen.push(format!("{step} preflight {}", shape(&reply)));
            store.fail(Operation::Load);
            let reply = client.get("/api").await;
            store.heal(Operation::Load);
            seen.push(format!("{step} {}", shape(&reply)));
        }
        answers.push(seen);
    }
    assert_eq!(answers[1], answers[0]);
    let has = |what: &str| answers[1].iter().any(|line| line.contains(what));
    assert!(has("/login-page?theme=dark&next=%2Fmembers%2Fpage%3Fa%3Db"), "{:#?}", answers[1]);
    assert!(has("403 Forbidden") && has("401 Unauthorized") && has("7 true") && has("503"));
    assert!(has(r#"preflight 200 OK "" "" """#), "{:#?}", answers[1]);
}

/// actix-web's own `Option` hides what went wrong; `Result` does not.
#[tokio::test]
async fn who_asks_without_insisting_can_tell_nobody_from_a_store_that_fails() {
    async fn who(login: Result<LoggedIn<Visitor>, sessions::Error>) -> sessions::Result<String> {
        match login {
            Ok(login) => Ok(login.user.to_string()),
            Err(error) if error.kind() == ErrorKind::LoginRequired => Ok("nobody".into()),
            Err(error) => Err(error),
        }
    }
    async fn perhaps(login: Option<LoggedIn<Visitor>>) -> String {
        login.is_some().to_string()
    }
    let app = App::start(|config| {
        config.route("/who", web::get().to(who)).route("/perhaps", web::get().to(perhaps));
    })
    .await;
    let client = app.visitor().await;
    assert_eq!(client.get("/who").await.text(), "nobody");
    client.get("/login").await.text();
    assert_eq!(client.get("/who").await.text(), "7");
    assert_eq!(client.get("/perhaps").await.text(), "true");
    app.store.fail(Operation::Load);
    assert_eq!(client.get("/who").await.status, 503);
    assert_eq!(client.get("/perhaps").await.text(), "false");
}

#[tokio::test]
async fn a_user_is_logged_out_everywhere_else() {
    async fn only_here(
        session: Session<Visitor>,
        everywhere: UserSessions<Visitor>,
    ) -> sessions::Result<String> {
        everywhere.end_others(&session).await?;
        Ok(everywhere.list(&7).await?.len().to_string())
    }
    let app = App::start(|config| _ = config.route("/only-here", web::get().to(only_here))).await;
    let clients: [Client; 2] = [app.client(), app.client()];
    for client in &clients {
        client.get("/login").await.text();
        assert_eq!(client.get("/account").await.text(), "7 true");
    }
    assert_eq!(clients[0].get("/only-here").await.text(), "1");
    assert_eq!(clients[0].get("/account").await.text(), "7 true");
    assert_eq!(clients[1].get("/account").await.status, 401);
}
