//! Sessions that are bound to a device: what the layer says to browsers by itself, and the life of a binding
//! from login to logout. The steps are taken in both frameworks, and both have to answer the same.

use std::time::Duration;

use actix_web::web;
use axum::{Router, routing::get};
use http::{Method, StatusCode};
use sessions::{
    DeviceBinding, MemoryStore, RequireLogin, SessionLayerBuilder, UnprovenPolicy,
    testing::{ManualClock, Operation},
};
use sessions_tests::{
    Client, Reply,
    devices::{BOUND, Browser, LINK, parameter, request, with_headers},
};

use crate::{Both, Spied, Visitor, name};

const MINUTE: Duration = Duration::from_secs(60);

/// The application in both frameworks.
struct Shops {
    both: Both,
    clock: ManualClock,
}

impl Shops {
    async fn with(binding: impl Fn() -> DeviceBinding) -> Self {
        let clock = ManualClock::new();
        let store = || MemoryStore::builder().with_clock(&clock).build();
        let bind = |builder: SessionLayerBuilder<Visitor>| {
            builder.with_clock(&clock).bind_to_device(binding())
        };
        let axum = Router::new().route("/guarded", get(name).layer(RequireLogin::<Visitor>::new()));
        let actix = |config: &mut web::ServiceConfig| {
            let guarded = web::resource("/guarded").wrap(RequireLogin::<Visitor>::new());
            config.service(guarded.route(web::get().to(name)));
        };
        let both = Both::on_memory(store, axum, actix, bind).await;
        Self { both, clock }
    }

    /// Takes the steps in axum, then in actix-web, and compares what the clients were told.
    async fn each(&self, steps: impl AsyncFn(Shop<'_>) -> Vec<String>) {
        let mut told = Vec::new();
        for (client, store) in self.both.clients.iter().zip(&self.both.stores) {
            told.push(steps(Shop { client, store, clock: &self.clock }).await);
        }
        assert_eq!(told[1], told[0]);
    }
}

struct Shop<'a> {
    client: &'a Client,
    store: &'a Spied,
    clock: &'a ManualClock,
}

impl Shop<'_> {
    fn browser(&self, number: u8) -> Browser {
        Browser::new(self.client.copy(), self.clock, number)
    }

    /// A browser that is logged in and bound, and past the first minute.
    async fn bound(&self, number: u8) -> Browser {
        let mut browser = self.browser(number);
        browser.get("/login").await.text();
        assert!(browser.bound.is_some(), "it is not bound");
        self.clock.advance(2 * MINUTE);
        browser
    }
}

/// What a client is told, but for what is new each time.
fn shape(reply: &Reply) -> String {
    let headers = ["cache-control", "content-type", "refresh", "vary"];
    let headers = headers.map(|name| reply.header(name));
    let cookies = reply.set_cookies();
    let cookies = cookies.iter().map(|cookie| {
        let (name, rest) = cookie.split_once('=').expect("a name");
        let (_, attributes) = rest.split_once("; ").expect("attributes");
        format!("{name}; {attributes}")
    });
    let has_challenge = !reply.header("secure-session-challenge").is_empty();
    format!("{} {headers:?} {:?} {has_challenge}", reply.status, cookies.collect::<Vec<_>>())
}

#[tokio::test]
async fn the_layer_offers_a_binding_and_answers_its_paths() {
    let bind = |builder: sessions::SessionLayerBuilder<_>| {
        builder.bind_to_device(DeviceBinding::new().with_path("/device"))
    };
    let both = Both::start(Router::new(), |_| {}, bind).await;
    let mut answers = Vec::new();
    for client in &both.clients {
        let mut seen = Vec::new();
        let reply = client.get("/login").await;
        let offer = reply.header("secure-session-registration");
        assert!(offer.contains("path=\"/device"), "{offer}");
        let path = parameter(&offer, "path");
        for (method, path, name, value) in [
            (Method::POST, path, "x", "x"),
            (Method::POST, path, "secure-session-response", "no.proof.atall"),
            (Method::GET, path, "x", "x"),
            (Method::POST, "/device/refresh", "x", "x"),
            (Method::POST, "/device/refresh", "sec-secure-session-id", "unknown"),
        ] {
            let reply = client.call(request(method.clone(), path, &[(name, value)])).await;
            seen.push(format!(
                "{method} {path} {name}: {} {} {}",
                reply.status,
                reply.header("cache-control"),
                reply.body
            ));
        }
        answers.push(seen);
    }
    assert_eq!(answers[0], answers[1]);
    assert!(answers[1][0].contains("400") && answers[1][1].contains("403"), "{:?}", answers[1]);
}

#[tokio::test]
async fn a_binding_lives_from_login_to_logout() {
    let shops = Shops::with(DeviceBinding::new).await;
    let steps = async |shop: Shop<'_>| {
        let mut browser = shop.browser(1);
        let login = browser.client.get("/login").await;
        assert_eq!(browser.client.get("/proof").await.text(), "Unbound");
        let registered = browser.register(&login.header("secure-session-registration")).await;
        assert_eq!(registered.status, StatusCode::OK);
        assert!(browser.client.cookie(BOUND).is_some());
        shop.clock.advance(2 * MINUTE);
        assert!(browser.get("/proof").await.text().starts_with("Proven"));

        // The bound cookie is over, and the browser signs the challenge that it was given.
        shop.clock.advance(10 * MINUTE);
        browser.signatures.clear();
        assert_eq!(browser.get("/account").await.text(), "7 true");
        assert_eq!((browser.refreshes, browser.signatures.len()), (1, 1));

        // The next challenge is too old, and its answer brings another.
        shop.clock.advance(21 * MINUTE);
        let challenge = browser.bound().challenge.clone().expect("a challenge");
        let (id, proof) = (browser.bound().id.clone(), browser.proof(&challenge));
        let asked = browser.refresh_with(&id, Some(&proof)).await;
        assert_eq!(asked.status, StatusCode::FORBIDDEN);
        browser.note_challenge(&asked);
        let refreshed = browser.refresh().await;
        assert_eq!(refreshed.status, StatusCode::OK);
        assert_eq!(browser.get("/account").await.text(), "7 true");

        let logout = browser.client.get("/logout").await;
        assert_eq!(logout.set_cookies().len(), 2, "both cookies go");
        let ended = browser.refresh().await;
        assert_eq!(ended.status, StatusCode::UNAUTHORIZED);
        assert_eq!(browser.get("/account").await.status, StatusCode::UNAUTHORIZED);
        [login, registered, asked, refreshed, logout, ended].iter().map(shape).collect()
    };
    shops.each(steps).await;
}

#[tokio::test]
async fn a_registration_with_anything_wrong_binds_nobody() {
    let shops = Shops::with(DeviceBinding::new).await;
    let steps = async |shop: Shop<'_>| {
        let (mut browser, other) = (shop.browser(1), shop.browser(2));
        let offer = browser.client.get("/login").await.header("secure-session-registration");
        let others = other.client.get("/login").await.header("secure-session-registration");
        let (path, challenge) = (parameter(&offer, "path"), parameter(&offer, "challenge"));
        let good = browser.registration(challenge);
        let for_another = browser.registration(parameter(&others, "challenge"));
        let without_key = browser.proof(challenge);
        let mut told = Vec::new();
        for (client, proof, status) in [
            (&browser.client, &for_another, 403),
            (&browser.client, &without_key, 403),
            (&other.client, &good, 403),
            (&shop.client.copy(), &good, 401),
        ] {
            let headers = [("secure-session-response", &**proof)];
            let reply = client.call(request(Method::POST, path, &headers)).await;
            assert_eq!(reply.status, status);
            told.push(shape(&reply));
        }
        shop.clock.advance(2 * MINUTE);
        assert_eq!(browser.client.get("/proof").await.text(), "Unbound");
        told
    };
    shops.each(steps).await;
}

#[tokio::test]
async fn whoever_has_the_cookies_and_not_the_key_is_refused() {
    let shops = Shops::with(DeviceBinding::new).await;
    let steps = async |shop: Shop<'_>| {
        let (mut owner, mut other) = (shop.bound(1).await, shop.bound(2).await);
        let thief = owner.thief();
        assert_eq!(thief.get("/account").await.text(), "7 true", "for some minutes");
        shop.clock.advance(10 * MINUTE);
        assert_eq!(thief.copy().get("/proof").await.text(), "Unproven { why: Expired }");
        let refused = thief.get("/account").await;
        assert_eq!(refused.status, StatusCode::UNAUTHORIZED);
        let mut told = vec![shape(&refused)];

        let challenge = owner.bound().challenge.clone().expect("a challenge");
        let id = owner.bound().id.clone();
        for proof in [other.proof(&challenge), other.registration(&challenge), "x".to_string()] {
            let reply = owner.refresh_with(&id, Some(&proof)).await;
            assert_eq!(reply.status, StatusCode::FORBIDDEN);
            assert_eq!(reply.set_cookies(), Vec::<String>::new());
            told.push(shape(&reply));
        }
        // The bound cookie of another session is of no use either.
        assert_eq!(other.refresh().await.status, StatusCode::OK);
        thief.set_cookie(BOUND, other.client.cookie(BOUND).as_deref());
        assert_eq!(thief.get("/proof").await.text(), "Unproven { why: AnotherBinding }");
        assert_eq!(thief.get("/account").await.status, StatusCode::UNAUTHORIZED);
        assert_eq!(owner.get("/account").await.text(), "7 true", "the owner goes on");
        told
    };
    shops.each(steps).await;
}

/// A link brings the session's cookie before the browser has refreshed: such a page asks for itself again.
#[tokio::test]
async fn an_unproven_page_is_logged_out_asked_again_or_let_through() {
    use UnprovenPolicy::{Allow, LogOut, Reload};
    for policy in [LogOut, Reload, Allow] {
        let shops = Shops::with(|| DeviceBinding::new().with_unproven_policy(policy)).await;
        let steps = async |shop: Shop<'_>| {
            let mut owner = shop.bound(1).await;
            let unproven = owner.client.copy();
            unproven.set_cookie(BOUND, None);
            let page = with_headers(&unproven, "/name", LINK).await;
            match policy {
                Reload => {
                    assert_eq!(page.status, StatusCode::UNAUTHORIZED);
                    assert_eq!(page.header("refresh"), "0");
                    assert!(page.header("cache-control").contains("no-store"));
                    assert!(page.body.contains("One moment"));
                }
                _ => assert_eq!((page.text(), page.header("refresh")), ("nobody", String::new())),
            }
            assert_eq!(page.set_cookies(), Vec::<String>::new());
            // A guard asks for a proof also where the layer does not.
            let guarded = with_headers(&unproven, "/guarded", LINK).await;
            assert_eq!(guarded.status, StatusCode::UNAUTHORIZED, "{policy:?}");
            let asks_again = if policy == LogOut { "" } else { "0" };
            assert_eq!(guarded.header("refresh"), asks_again, "{policy:?}");
            let linked = with_headers(&owner.client, "/guarded", LINK).await;
            assert_eq!(linked.text(), "nobody", "the session has no name");
            assert_eq!(owner.get("/account").await.text(), "7 true");
            vec![shape(&page), page.body, shape(&guarded), guarded.body]
        };
        shops.each(steps).await;
    }
}

#[tokio::test]
async fn a_store_that_is_down_ends_no_binding() {
    let shops = Shops::with(DeviceBinding::new).await;
    let steps = async |shop: Shop<'_>| {
        let (mut browser, mut new) = (shop.bound(1).await, shop.browser(2));
        let offer = new.client.get("/login").await.header("secure-session-registration");
        shop.store.fail(Operation::Load);
        let refused = [browser.refresh().await, new.register(&offer).await];
        shop.store.heal(Operation::Load);
        let mut told = Vec::new();
        for reply in &refused {
            assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE);
            told.push(shape(reply));
        }
        for operation in [Operation::Create, Operation::Replace] {
            shop.store.fail(operation);
            let reply = new.register(&offer).await;
            shop.store.heal(operation);
            assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE, "{operation:?}");
            told.push(shape(&reply));
        }
        assert_eq!(new.register(&offer).await.status, StatusCode::OK);
        shop.clock.advance(10 * MINUTE);
        for browser in [&mut browser, &mut new] {
            assert_eq!(browser.get("/account").await.text(), "7 true");
        }
        told
    };
    shops.each(steps).await;
}
