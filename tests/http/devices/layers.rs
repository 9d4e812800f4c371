//! A layer that binds its sessions, among guards and other layers.

use axum::{Router, routing::get};
use http::StatusCode;
use sessions::{
    DeviceBinding, Keys, MemoryStore, RequireLogin, Session, SessionLayer, testing::ManualClock,
};
use sessions_tests::{
    Server,
    devices::{BOUND, Browser, parameter},
};

use super::{Customer, MINUTE, OFFER, Shop, login, offer_at, who};

#[tokio::test]
async fn neither_a_guard_nor_a_csrf_check_nor_a_limit_of_the_application_is_in_the_way() {
    let clock = ManualClock::new();
    let layer = SessionLayer::<Customer>::builder(MemoryStore::new(), Keys::generate())
        .bind_to_device(DeviceBinding::new())
        .build()
        .unwrap();
    let session = layer.clone();
    let app = Router::new()
        .route("/who", get(who))
        .fallback(async || StatusCode::TOO_MANY_REQUESTS)
        .layer(RequireLogin::<Customer>::new())
        .layer(Customer::csrf_layer())
        .route("/login/{user}", get(login))
        .layer(session);
    let server = Server::start(app).await;
    let mut browser = Browser::new(server.client(), &clock, 1);
    browser.get("/login/7").await.text();
    assert!(browser.bound.is_some());
    assert_eq!(browser.refresh().await.status, StatusCode::OK);
    assert_eq!(browser.get("/who").await.text(), "Some(7)");
}

/// Two types with the same keys and the same cookie's name, as two applications of one host may have them.
#[tokio::test]
async fn what_a_layer_signs_about_devices_is_nothing_to_a_layer_of_another_type() {
    #[derive(Session)]
    #[session(name = "Clerk")]
    struct Clerk {
        #[session(user)]
        user: Option<u64>,
    }
    let shop = Shop::start().await;
    let store = MemoryStore::builder().with_clock(&shop.clock).build();
    let layer = SessionLayer::<Clerk>::builder(store, shop.keys.clone())
        .with_clock(&shop.clock)
        .in_another_process()
        .bind_to_device(DeviceBinding::new())
        .build()
        .unwrap();
    let clerk_login = async |session: Session<Clerk>| session.login(7).await;
    let clerk_proof = async |session: Session<Clerk>| format!("{:?}", session.device_binding());
    let app = Router::new()
        .route("/login/{user}", get(clerk_login))
        .route("/proof", get(clerk_proof))
        .layer(layer);
    let server = Server::start(app).await;
    let customer = shop.bound(1, 7).await;
    let mut clerk = Browser::new(server.client(), &shop.clock, 1);
    let offer = offer_at(&clerk.client, "/login/7").await;

    // The challenge of a customer's login, answered with a clerk's cookie.
    let others = shop.browser(3).client.get("/login/9").await;
    let others = others.header(OFFER);
    assert_eq!(clerk.register(&others).await.status, StatusCode::FORBIDDEN);
    assert_eq!(clerk.register(&offer).await.status, StatusCode::OK);
    shop.clock.advance(2 * MINUTE);
    assert!(clerk.client.get("/proof").await.text().starts_with("Proven"));
    // The name of a customer's binding.
    let named = clerk.refresh_with(&customer.bound().id, None).await;
    assert_eq!(named.status, StatusCode::UNAUTHORIZED);
    // The bound cookie of a customer is none here, not even another one's.
    clerk.client.set_cookie(BOUND, customer.client.cookie(BOUND).as_deref());
    let proof = clerk.client.get("/proof").await;
    assert_eq!(proof.text(), "Unproven { why: NoCookie }");
}

/// With keys of its own each of the two builds, and only the offer shows that they stand in one application.
#[tokio::test]
async fn of_two_layers_with_the_same_paths_the_inner_one_makes_no_offer_that_the_outer_one_would_refuse()
 {
    #[derive(Session)]
    struct Clerk {
        #[session(user)]
        user: Option<u64>,
    }
    let layer_of = |path: Option<&'static str>, keys: Keys| {
        let mut binding = DeviceBinding::new();
        if let Some(path) = path {
            binding = binding.with_path(path);
        }
        SessionLayer::<Clerk>::builder(MemoryStore::new(), keys)
            .with_cookie_name("__Host-clerk")
            .bind_to_device(binding)
            .build()
    };
    let customers = Keys::generate();
    let outer = SessionLayer::<Customer>::builder(MemoryStore::new(), customers.clone())
        .bind_to_device(DeviceBinding::new())
        .build()
        .unwrap();
    let both = async |customer: Session<Customer>, clerk: Session<Clerk>| {
        customer.login(7).await?;
        clerk.login(8).await
    };
    let clerks = async |clerk: Session<Clerk>| clerk.login(8).await;
    let refused = layer_of(None, customers.clone()).unwrap_err().to_string();
    assert!(refused.contains("`DeviceBinding::with_path`"), "{refused}");
    let theirs = "/device-binding/register";
    // Also where the request asks the outer layer for nothing.
    for (inner, of_both, of_clerks) in [
        (layer_of(None, Keys::generate()), &[theirs][..], &[][..]),
        (layer_of(Some("/clerk"), customers), &["/clerk/register", theirs], &["/clerk/register"]),
    ] {
        let app = Router::new()
            .route("/both", get(both))
            .route("/clerks", get(clerks))
            .layer(inner.unwrap())
            .layer(outer.clone());
        let server = Server::start(app).await;
        for (path, offers) in [("/both", of_both), ("/clerks", of_clerks)] {
            let login = server.client().get(path).await;
            let made = login.headers.get_all(OFFER).iter();
            let paths: Vec<_> = made.map(|it| parameter(it.to_str().unwrap(), "path")).collect();
            assert_eq!(paths, offers, "{path}");
        }
    }
}
