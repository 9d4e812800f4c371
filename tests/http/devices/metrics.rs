//! What the metrics count of bindings.

use std::collections::BTreeMap;

use http::{Method, StatusCode};
use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use sessions::{DeviceBinding, UnprovenPolicy};
use sessions_tests::{
    Client,
    devices::{BOUND, Bound, request},
};

use super::{MINUTE, REGISTER, Shop, offer_at};

#[tokio::test]
async fn the_metrics_tell_who_is_bound_and_what_is_refused_and_why() {
    let recorder = DebuggingRecorder::new();
    // Of this thread, which runs the server too.
    let _here = metrics::set_default_local_recorder(&recorder);
    let shop = Shop::start().await;
    let register = async |client: &Client, proof: Option<&str>| {
        let header = proof.map(|proof| ("secure-session-response", proof));
        let headers: Vec<_> = header.into_iter().collect();
        client.call(request(Method::POST, REGISTER, &headers)).await.status.as_u16()
    };
    let mut browser = shop.browser(1);
    let offer = offer_at(&browser.client, "/login/7").await;
    let client = &browser.client.clone();
    let strange = browser.registration("abc");
    assert_eq!(register(client, None).await, 400);
    assert_eq!(register(client, Some("x")).await, 403);
    assert_eq!(register(client, Some(&strange)).await, 403);
    assert_eq!(register(&shop.server.client(), Some(&strange)).await, 401);
    let visitor = shop.server.client();
    visitor.get("/visit").await.text();
    assert_eq!(register(&visitor, Some(&strange)).await, 403);
    assert_eq!(browser.register(&offer).await.status, StatusCode::OK);
    let others = shop.browser(2).registration("abc");
    assert_eq!(register(client, Some(&others)).await, 403);

    shop.clock.advance(2 * MINUTE);
    let thief = browser.thief();
    let Bound { id, challenge, .. } = browser.bound().clone();
    let old = browser.proof(&challenge.expect("a challenge"));
    assert_eq!(browser.refresh_with("no-id-of-ours", None).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(browser.refresh_with(&id, Some("x")).await.status, StatusCode::FORBIDDEN);
    shop.clock.advance(21 * MINUTE);
    assert_eq!(browser.refresh_with(&id, Some(&old)).await.status, StatusCode::FORBIDDEN);
    assert_eq!(browser.get("/who").await.text(), "Some(7)");

    // However often its handler and the guards look.
    assert_eq!(thief.get("/account").await.status, StatusCode::SEE_OTHER);
    thief.set_cookie(BOUND, None);
    assert_eq!(thief.get("/who").await.text(), "None");
    let mut other = shop.bound(2, 8).await;
    thief.set_cookie(BOUND, other.client.cookie(BOUND).as_deref());
    assert_eq!(thief.get("/who").await.text(), "None");
    other.get("/logout").await.text();
    assert_eq!(other.refresh().await.status, StatusCode::UNAUTHORIZED);

    // Where they are let through, as at first, the same is known.
    let allowing = DeviceBinding::new().with_unproven_policy(UnprovenPolicy::Allow);
    let shop = Shop::with(allowing).await;
    let thief = shop.bound(3, 9).await.thief();
    assert_eq!(thief.get("/who").await.text(), "Some(9)");
    thief.set_cookie(BOUND, None);
    assert_eq!(thief.get("/who").await.text(), "Some(9)");

    let counted = recorder.snapshotter().snapshot().into_vec().into_iter();
    let counted: BTreeMap<_, _> = counted
        .filter(|(key, ..)| key.key().name().starts_with("sessions_devices_"))
        .map(|(key, _, _, value)| {
            let labels: Vec<_> = key.key().labels().map(|label| label.value()).collect();
            let name = key.key().name().trim_start_matches("sessions_devices_");
            let DebugValue::Counter(count) = value else { panic!("{name} is no counter") };
            ([&[name][..], &labels].concat().join(" "), count)
        })
        .collect();
    let expected = [
        ("bound_total", 3),
        ("let_through_total no_cookie", 1),
        ("refreshed_total", 1),
        // The browser too has one that is too old, and gets another.
        ("refused_total refresh challenge", 2),
        ("refused_total refresh no_binding", 1),
        ("refused_total refresh no_session", 1),
        ("refused_total refresh proof", 1),
        ("refused_total register bound_already", 1),
        ("refused_total register challenge", 1),
        ("refused_total register login_required", 1),
        ("refused_total register no_session", 1),
        ("refused_total register proof", 2),
        ("refused_total use another_binding", 1),
        ("refused_total use expired", 1),
        ("refused_total use no_cookie", 1),
    ];
    let expected = expected.map(|(name, count)| (name.to_string(), count));
    assert_eq!(counted, BTreeMap::from(expected));
}
