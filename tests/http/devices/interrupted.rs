//! A registration that is dropped, meets a logout, or gets no answer from its store leaves a session that works.

use axum::{Router, routing::get};
use http::StatusCode;
use sessions::{
    DeviceBinding, Keys, MemoryStore, SessionLayer, Store, UserIndex,
    testing::{Fault, FaultyStore, ManualClock, Operation},
};
use sessions_tests::{
    Server,
    devices::{BOUND, Browser},
};

use super::{Customer, MINUTE, OFFER, Shop, in_front_of, login, offer_at, proof, who};

#[tokio::test]
async fn a_registration_that_is_dropped_anywhere_leaves_a_session_that_works() {
    for operation in [Operation::Load, Operation::Create, Operation::Replace] {
        let shop = Shop::start().await;
        let mut browser = shop.browser(1);
        let offer = offer_at(&browser.client, "/login/7").await;
        let gate = shop.store.hold(operation);
        let call = {
            let (mut browser, offer) = (browser.clone(), offer.clone());
            tokio::spawn(async move { browser.register(&offer).await })
        };
        gate.wait_for_caller().await;
        call.abort();
        assert!(call.await.unwrap_err().is_cancelled());
        gate.release();
        assert_eq!(browser.client.get("/who").await.text(), "Some(7)", "{operation:?}");
        assert_eq!(browser.client.get("/visit").await.text(), "1");
        // It comes too late, is bound, or was bound already.
        let status = browser.register(&offer).await.status;
        assert!([StatusCode::OK, StatusCode::FORBIDDEN].contains(&status), "{status}");
        assert_eq!(browser.client.get("/visit").await.text(), "2");
    }
}

#[tokio::test]
async fn a_logout_during_a_registration_stays_one() {
    for operation in [Operation::Create, Operation::Replace] {
        let shop = Shop::start().await;
        let browser = shop.browser(1);
        let offer = offer_at(&browser.client, "/login/7").await;
        let gate = shop.store.hold(operation);
        let call = {
            let mut browser = browser.clone();
            tokio::spawn(async move { browser.register(&offer).await.status })
        };
        gate.wait_for_caller().await;
        // In another process, which does not wait for this one.
        let keys = shop.store.store().sessions_of("Customer:7").await.unwrap();
        assert!(shop.store.store().delete(&keys[0].0).await.unwrap());
        gate.release();
        assert_eq!(call.await.unwrap(), StatusCode::UNAUTHORIZED, "{operation:?}");
        assert_eq!(shop.sessions_of(7).await, 0, "it has not come back");
    }
}

#[tokio::test]
async fn a_registration_whose_answer_from_the_store_is_lost_is_one() {
    let clock = ManualClock::new();
    let store = MemoryStore::builder().with_clock(&clock).build();
    let mut answers = [0; 2];
    for seed in 0..40 {
        let faulty = FaultyStore::new(store.clone(), seed).with_fault(Fault::AnswerLost, 300);
        let keys = Keys::generate();
        let layer = |builder: sessions::SessionLayerBuilder<Customer>| {
            builder
                .with_clock(&clock)
                .in_another_process()
                .bind_to_device(DeviceBinding::new())
                .build()
                .expect("possible settings")
        };
        let sound = layer(SessionLayer::builder(store.clone(), keys.clone()));
        let unsound = layer(SessionLayer::builder(faulty.clone(), keys));
        let routes = || {
            Router::new()
                .route("/login/{user}", get(login))
                .route("/who", get(who))
                .route("/proof", get(proof))
        };
        let sound = Server::start(routes().layer(sound)).await;
        let unsound = Server::start(routes().layer(unsound)).await;
        let client = sound.client();
        let offer = offer_at(&client, "/login/7").await;
        let through = in_front_of(&unsound, &client);
        let mut browser = Browser::new(through.clone(), &clock, 1);
        let status = browser.register(&offer).await.status;
        client.set_cookie(BOUND, through.cookie(BOUND).as_deref());
        clock.advance(2 * MINUTE);
        // If it is bound, the browser knows it.
        let proof = client.get("/proof").await;
        match (proof.text(), status.as_u16()) {
            ("Unbound", 200 | 503) => {}
            (proof, status) => {
                assert_eq!(status, 200, "seed {seed}");
                assert!(proof.starts_with("Proven"), "{proof}, seed {seed}");
                answers[0] += 1;
            }
        }
        answers[1] += 1;
        assert_eq!(client.get("/who").await.text(), "Some(7)", "seed {seed}");
    }
    let [bound, all] = answers;
    assert!((1..all).contains(&bound), "{bound} of {all} are bound");
}

#[tokio::test]
async fn a_browser_whose_binding_is_in_doubt_is_logged_in_whether_there_is_one_or_not() {
    let shop = Shop::start().await;
    let browser = shop.browser(1);
    let offer = offer_at(&browser.client, "/login/7").await;
    let gate = shop.store.hold(Operation::Replace);
    let registering = {
        let (mut browser, offer) = (browser.clone(), offer.clone());
        tokio::spawn(async move { (browser.register(&offer).await.status, browser) })
    };
    gate.wait_for_caller().await;
    // From here on nothing answers, so that nobody can look whether the session is bound. It is not.
    for operation in [Operation::Replace, Operation::Load] {
        shop.store.fail(operation);
    }
    gate.release();
    let (status, mut first) = registering.await.unwrap();
    assert_eq!(status, StatusCode::OK);
    for operation in [Operation::Replace, Operation::Load] {
        shop.store.heal(operation);
    }
    let reply = browser.client.get("/proof").await;
    assert_eq!(reply.text(), "Unbound");
    // The next page offers a binding again. What the browser has for nothing is refused, and dropped.
    let offer = reply.header(OFFER);
    let mut second = Browser { key: shop.browser(2).key, ..browser.clone() };
    assert_eq!(second.register(&offer).await.status, StatusCode::OK);
    assert_eq!(first.refresh_from(true).await.status, StatusCode::UNAUTHORIZED);
    for _ in 0..3 {
        shop.clock.advance(10 * MINUTE);
        assert_eq!(second.get("/who").await.text(), "Some(7)");
        assert!(second.get("/proof").await.text().starts_with("Proven"));
    }
}
