//! Registrations, refreshes, renewals and logouts of one browser at the same time, in one process and in two.

use http::StatusCode;
use sessions::{Store, testing::Operation};
use sessions_tests::{
    at_once,
    devices::{BOUND, Bound, Browser},
    eventually,
};

use super::{MINUTE, Shop, in_front_of, link_of, offer_at};
use crate::COOKIE;

#[tokio::test]
async fn of_two_devices_that_register_at_once_one_is_bound() {
    for round in 0..20 {
        let shop = Shop::start().await;
        let twin = shop.twin().await;
        let first = shop.browser(1);
        let offer = offer_at(&first.client, "/login/7").await;
        let mut second = Browser { key: shop.browser(2).key, ..first.clone() };
        if round % 2 == 0 {
            second.client = in_front_of(&twin.server, &first.client);
        }
        let browsers = [first, second];
        // Each has found the session unbound before either binds the session.
        let gate = shop.store.hold(Operation::Create);
        let created = shop.store.calls().create;
        let registering = at_once(2, |number| {
            let (mut browser, offer) = (browsers[number].clone(), offer.clone());
            async move { (browser.register(&offer).await.status, browser) }
        });
        let both_are_there = async || shop.store.calls().create == created + 2;
        let releasing = async {
            eventually("both are about to bind the session", both_are_there).await;
            gate.release();
        };
        let (replies, ()) = tokio::join!(registering, releasing);
        shop.clock.advance(2 * MINUTE);
        let mut bound = 0;
        for (status, mut browser) in replies {
            let proof = browser.get("/proof").await;
            match status.as_u16() {
                200 => {
                    bound += 1;
                    assert!(proof.text().starts_with("Proven"), "{proof:?}");
                }
                403 => {}
                status => panic!("{status}"),
            }
        }
        assert_eq!(bound, 1);
    }
}

/// A browser that has lost its session's cookie logs in and registers its new session, while a page of
/// before refreshes the old one.
#[tokio::test]
async fn a_registration_beside_a_refresh_of_another_binding_is_carried_out_with_both() {
    for round in 0..20 {
        let shop = Shop::start().await;
        let old = shop.bound(1, 7).await;
        old.client.set_cookie(COOKIE, None);
        let offer = offer_at(&old.client, "/login/7").await;
        let new = Browser { bound: None, ..old.clone() };
        let from_here = round % 2 == 0;
        let browsers = [old, new];
        let replies = at_once(2, |number| {
            let (mut browser, offer) = (browsers[number].clone(), offer.clone());
            async move {
                let reply = match number {
                    0 => browser.refresh_from(from_here).await,
                    _ => browser.register(&offer).await,
                };
                (reply.status, browser)
            }
        })
        .await;
        let [(refreshed, _), (registered, mut new)] = replies.try_into().ok().expect("two");
        assert_eq!(registered, StatusCode::OK);
        // From here the session that is not bound yet is nobody's; a binding of another session is
        // over, once there is one.
        let is_expected = match refreshed.as_u16() {
            200 => true,
            401 => from_here,
            _ => false,
        };
        assert!(is_expected, "{refreshed}");
        shop.clock.advance(10 * MINUTE);
        assert_eq!(new.get("/who").await.text(), "Some(7)");
        assert!(new.get("/proof").await.text().starts_with("Proven"));
    }
}

/// A late registration for a session that is bound, beside a refresh of the binding.
#[tokio::test]
async fn a_second_registration_beside_a_refresh_changes_nothing() {
    let shop = Shop::start().await;
    let mut owner = shop.browser(1);
    let offer = offer_at(&owner.client, "/login/7").await;
    assert_eq!(owner.register(&offer).await.status, StatusCode::OK);
    for _ in 0..20 {
        // A thief of the cookie has the offer as well, but not the key.
        let other = Browser { client: owner.client.copy(), bound: None, ..shop.browser(2) };
        let browsers = [owner.clone(), other];
        let replies = at_once(2, |number| {
            let (mut browser, offer) = (browsers[number].clone(), offer.clone());
            async move {
                match number {
                    0 => browser.refresh_from(true).await.status,
                    _ => browser.register(&offer).await.status,
                }
            }
        })
        .await;
        assert_eq!(replies, [StatusCode::OK, StatusCode::FORBIDDEN]);
    }
    shop.clock.advance(2 * MINUTE);
    assert!(owner.get("/proof").await.text().starts_with("Proven"));
}

/// Two tabs have one set of cookies and the same challenge; in another process, if the fleet has two.
#[tokio::test]
async fn two_tabs_that_refresh_at_once_both_show_their_device() {
    let shop = Shop::start().await;
    let twin = shop.twin().await;
    let mut browser = shop.bound(1, 7).await;
    for round in 0..20 {
        shop.clock.advance(10 * MINUTE);
        let second = match round % 2 {
            0 => browser.client.copy(),
            _ => in_front_of(&twin.server, &browser.client),
        };
        let tabs = [browser.clone(), Browser { client: second, ..browser.clone() }];
        let mut tabs = at_once(2, |number| {
            let mut tab = tabs[number].clone();
            async move {
                let status = tab.refresh_from(true).await.status;
                let proof = tab.get("/proof").await;
                (status, proof, tab)
            }
        })
        .await;
        for (status, proof, _) in &tabs {
            assert_eq!(*status, StatusCode::OK);
            assert!(proof.text().starts_with("Proven"), "{proof:?}");
        }
        // The challenge and the cookie of either answer are good for the next time.
        let (.., last) = tabs.swap_remove(round % 2);
        let cookie = last.client.cookie(BOUND);
        browser.bound = last.bound;
        browser.client.set_cookie(BOUND, cookie.as_deref());
        assert_eq!(browser.refreshes, 0, "the tabs are copies");
    }
    assert_eq!(browser.get("/who").await.text(), "Some(7)");
}

#[tokio::test]
async fn no_refresh_falls_between_two_ids_in_a_thousand_renewals() {
    let shop = Shop::start().await;
    let twin = shop.twin().await;
    let mut browser = shop.bound(1, 7).await;
    let Bound { id, challenge, .. } = browser.bound().clone();
    let proof = browser.proof(&challenge.expect("a challenge"));
    let refreshing = {
        let (browser, id) =
            (Browser { client: twin.server.client(), ..browser.clone() }, id.clone());
        tokio::spawn(async move {
            loop {
                let status = browser.refresh_with(&id, Some(&proof)).await.status;
                assert_eq!(status, StatusCode::OK);
            }
        })
    };
    for _ in 0..1_000 {
        browser.client.get("/renew").await.text();
    }
    assert!(!refreshing.is_finished(), "a refresh failed");
    refreshing.abort();
    shop.clock.advance(10 * MINUTE);
    assert_eq!(browser.get("/who").await.text(), "Some(7)");
}

/// Of two renewals at once one wins, wherever its key stands in the link.
#[tokio::test]
async fn renewals_at_once_in_two_processes_keep_the_way_to_the_session() {
    let shop = Shop::start().await;
    let twin = shop.twin().await;
    let mut browser = shop.bound(1, 7).await;
    for _ in 0..50 {
        let clients = [browser.client.copy(), in_front_of(&twin.server, &browser.client)];
        let before = browser.client.cookie(COOKIE);
        let replies = at_once(2, |number| {
            let client = clients[number].clone();
            async move { (client.get("/renew").await.status, client.cookie(COOKIE)) }
        })
        .await;
        let winner = replies.into_iter().find(|(status, cookie)| {
            *status == StatusCode::OK && cookie.is_some() && *cookie != before
        });
        let (_, cookie) = winner.expect("one of them wins");
        browser.client.set_cookie(COOKIE, cookie.as_deref());
        assert_eq!(browser.refresh().await.status, StatusCode::OK);
        assert_eq!(browser.get("/who").await.text(), "Some(7)");
    }
}

#[tokio::test]
async fn a_logout_that_meets_a_renewal_in_another_process_leaves_the_way_to_the_session() {
    let shop = Shop::start().await;
    let twin = shop.twin().await;
    let mut browser = shop.bound(1, 7).await;
    let ending = in_front_of(&twin.server, &browser.client);
    let gate = shop.store.hold(Operation::Delete);
    let logout = ending.spawn_get("/logout");
    gate.wait_for_caller().await;
    browser.get("/renew").await.text();
    gate.release();
    assert_eq!(logout.await.unwrap().status, StatusCode::OK);
    assert!(shop.store.store().load(&link_of(&browser)).await.unwrap().is_some());
    shop.clock.advance(10 * MINUTE);
    // As for a link of another site: without the session's cookie.
    assert_eq!(browser.refresh().await.status, StatusCode::OK);
    assert_eq!(browser.get("/who").await.text(), "Some(7)");
}
