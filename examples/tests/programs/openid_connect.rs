//! A login at another provider, with a browser's requests in the order in which it makes them.

use axum::http::{Request, StatusCode, header};
use serde_json::{Value, json};
use sessions_tests::{Client, Reply, Server};

use crate::{COOKIE, FORM, post, provider, support::Program};

/// The shop, its provider, and a browser in front of both, without cookies.
struct Site {
    browser: Client,
    at_provider: Client,
    issuer: String,
    _provider: Server,
    _shop: Program,
}

impl Site {
    async fn start(
        mode: Option<&str>,
        sign: impl Fn(&mut Value) -> u8 + Send + Sync + 'static,
    ) -> Self {
        let provider = provider::start(sign).await;
        let at_provider = provider.client();
        let issuer = format!("http://localhost:{}", at_provider.address().port());
        let (shop, address) = provider::start_shop(&issuer, mode);
        let browser = Client::new(address);
        Self { browser, at_provider, issuer, _provider: provider, _shop: shop }
    }

    /// Presses the button, and lets the provider answer.
    async fn ask(&self) -> Reply {
        let reply = post(&self.browser, "/login", &[], "").await;
        assert_eq!(reply.status, StatusCode::SEE_OTHER, "{reply:?}");
        let location = reply.header("location");
        let path = location.strip_prefix(&self.issuer).expect("it leads to the provider");
        self.at_provider.get(path).await
    }

    /// Where the provider sends the browser: the path at the shop.
    async fn answer(&self) -> String {
        let location = self.ask().await.header("location");
        let shop = format!("http://{}", self.browser.address());
        location.strip_prefix(&shop).expect("it leads back").to_string()
    }

    async fn page(&self) -> String {
        self.browser.get("/").await.text().to_string()
    }

    async fn is_nobody(&self) -> bool {
        self.page().await.contains("<h1>Hello, nobody</h1>")
    }
}

const ADA: &str = "<h1>Hello, ada &lt;1> &amp; co</h1>";

#[tokio::test]
async fn a_login_at_the_provider_keeps_what_the_visitor_had() {
    let site = Site::start(None, |_| provider::KEY).await;
    assert!(site.is_nobody().await);
    post(&site.browser, "/cart", &[], "").await;
    let before = site.browser.cookie(COOKIE);
    let answer = site.answer().await;
    assert_eq!(site.browser.cookie(COOKIE), before, "nothing has happened yet");
    let reply = site.browser.get(&answer).await;
    assert_eq!((reply.status, reply.header("location")), (StatusCode::SEE_OTHER, "/".to_string()));
    assert_ne!(site.browser.cookie(COOKIE), before, "a login renews the id");
    let page = site.page().await;
    assert!(page.contains(ADA) && page.contains("<p>1 teapots"), "{page}");

    post(&site.browser, "/logout", &[], "").await;
    assert!(site.is_nobody().await);
}

#[tokio::test]
async fn an_answer_is_good_once_and_for_who_has_asked_for_it() {
    let site = Site::start(None, |_| provider::KEY).await;
    let answer = site.answer().await;
    let (code, state) = answer.split_once("&state=").expect("both");
    for forged in [
        format!("{code}&state={state}x"),
        format!("{code}&state="),
        format!("/callback?error=access_denied&state=x{state}"),
    ] {
        let reply = site.browser.get(&forged).await;
        assert_eq!(reply.status, StatusCode::FORBIDDEN, "{forged}");
    }
    assert_eq!(site.browser.get(code).await.status, StatusCode::BAD_REQUEST);
    // Somebody else's browser, which is to be logged in as Ada (login forgery): before and after its own question.
    let victim = Client::new(site.browser.address());
    assert_eq!(victim.get(&answer).await.status, StatusCode::FORBIDDEN);
    assert_eq!(victim.cookie(COOKIE), None, "it begins no session");
    post(&victim, "/login", &[], "").await;
    assert_eq!(victim.get(&answer).await.status, StatusCode::FORBIDDEN);

    // None of it has spoilt the honest one.
    assert_eq!(site.browser.get(&answer).await.status, StatusCode::SEE_OTHER);
    post(&site.browser, "/logout", &[], "").await;
    assert_eq!(site.browser.get(&answer).await.status, StatusCode::FORBIDDEN, "a second time");
    assert!(site.is_nobody().await);

    // With a code that was redeemed, or made up: the provider refuses it.
    let answer = site.answer().await;
    let state = answer.split_once("&state=").expect("both").1;
    let reply = site.browser.get(&format!("{code}&state={state}")).await;
    assert_eq!(reply.status, StatusCode::BAD_GATEWAY);
    // A visitor who says no at the provider.
    let answer = site.answer().await;
    let state = answer.split_once("&state=").expect("both").1;
    let reply = site.browser.get(&format!("/callback?error=access_denied&state={state}")).await;
    assert_eq!(reply.status, StatusCode::FORBIDDEN);
    assert!(site.is_nobody().await);
}

#[tokio::test]
async fn a_token_that_is_not_for_this_login_logs_nobody_in() {
    let wrong: [(&str, Sign); 6] = [
        ("signed by another", |_| provider::KEY + 1),
        ("nonce", |claims| set(claims, "nonce", json!("another"))),
        ("no nonce", |claims| set(claims, "nonce", Value::Null)),
        ("audience", |claims| set(claims, "aud", json!("another shop"))),
        ("issuer", |claims| set(claims, "iss", json!("http://evil.example"))),
        ("expired", |claims| {
            let before = claims["iat"].as_u64().expect("a time") - 3600;
            set(claims, "exp", json!(before))
        }),
    ];
    for (name, sign) in wrong {
        let site = Site::start(None, sign).await;
        let answer = site.answer().await;
        assert_eq!(site.browser.get(&answer).await.status, StatusCode::BAD_GATEWAY, "{name}");
        assert!(site.is_nobody().await, "{name}");
    }
}

type Sign = fn(&mut Value) -> u8;

fn set(claims: &mut Value, name: &str, value: Value) -> u8 {
    claims[name] = value;
    provider::KEY
}

#[tokio::test]
async fn a_form_of_the_providers_leads_to_the_session_and_no_other_form_does() {
    let site = Site::start(Some("form_post"), |_| provider::KEY).await;
    post(&site.browser, "/cart", &[], "").await;
    let page = site.ask().await;
    assert!(page.text().contains("method=post"), "{page:?}");
    let value = |name: &str| {
        let (_, rest) = page.body.split_once(&format!(r#"name={name} value=""#)).expect("a field");
        rest.split('"').next().expect("its end").replace("&amp;", "&")
    };
    let (state, code) = (value("state"), value("code"));
    let form = form_urlencoded::Serializer::new(String::new())
        .extend_pairs([("state", &state), ("code", &code)])
        .finish();

    // From the provider's site, without the `Lax` cookie, and as from nowhere.
    let from = [FORM, ("sec-fetch-site", "cross-site"), ("origin", "null")];
    let without_cookie = Client::new(site.browser.address());
    let reply = post(&without_cookie, "/callback", &from, &form).await;
    assert_eq!((reply.status, reply.set_cookies()), (StatusCode::SEE_OTHER, vec![]));
    for path in ["/login", "/cart", "/logout", "/callback/"] {
        let reply = post(&without_cookie, path, &from, &form).await;
        assert_eq!(reply.status, StatusCode::FORBIDDEN, "{path}");
    }
    // A redirect to a `GET` brings the cookie along.
    let location = reply.header("location");
    let request = Request::get(&location).header("sec-fetch-site", "cross-site");
    let reply = site.browser.call(request.body(String::new()).expect("a path")).await;
    assert_eq!(reply.headers[header::LOCATION], "/", "{reply:?}");
    let page = site.page().await;
    assert!(page.contains(ADA) && page.contains("<p>1 teapots"), "{page}");
}
