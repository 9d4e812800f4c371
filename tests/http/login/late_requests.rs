//! Requests that come late with the cookie of before a login, and renewals that meet it.

use std::{sync::Arc, time::Duration};

use http::StatusCode;
use sessions::{
    Session, Store, StoreKey,
    testing::{Gate, Operation},
};
use sessions_tests::{Client, Reply, at_once};
use tokio::task::JoinHandle;

use super::{Customer, HOUR, Shop, shop_with};
use crate::{COOKIE, hold_the_next};

async fn key_of(client: &Client) -> StoreKey {
    let digits = client.get("/key").await.text().to_string();
    let byte = |at: usize| u8::from_str_radix(&digits[2 * at..][..2], 16).unwrap();
    StoreKey::from_bytes(std::array::from_fn(byte))
}

/// For so long the old cookie begins no session.
const GRACE: Duration = Duration::from_secs(10);

/// A browser after requests that have given it another session, and a copy with the cookies of before.
async fn after(shop: &Shop, paths: &[&str]) -> (Client, Client) {
    let client = shop.visitor().await;
    let mut late = client.copy();
    for path in paths {
        late = client.copy();
        assert!(client.get(path).await.status.is_success(), "{path}");
        assert_ne!(client.cookie(COOKIE), late.cookie(COOKIE), "{path}");
    }
    (client, late)
}

/// With the same user, with another one, and without a user.
const EXCHANGES: [&[&str]; 4] =
    [&["/login/7"], &["/login/7", "/login/7"], &["/login/7", "/login/8"], &["/renew"]];

#[tokio::test]
async fn a_late_request_does_not_put_another_cookie_in_the_logins_place() {
    for paths in EXCHANGES {
        for two in [false, true] {
            let shops = Shop::two().await;
            let (client, late) = after(&shops[0], paths).await;
            let late = shops[usize::from(two)].in_front_of(&late);
            let stored = shops[0].store.store().len();
            for _ in 0..2 {
                let reply = late.get("/cart/2").await;
                assert_eq!((reply.text(), reply.set_cookies()), ("", vec![]), "{paths:?}");
            }
            assert_eq!(late.get("/cart").await.text(), "[]", "{paths:?}");
            assert_eq!(
                late.get("/key").await.status,
                StatusCode::OK,
                "nothing to save is no error"
            );
            assert_eq!(shops[0].store.store().len(), stored, "{paths:?}");

            shops[0].clock.advance(GRACE);
            assert_eq!(late.get("/cart/2").await.set_cookies().len(), 1, "{paths:?}");
            assert_eq!(late.get("/cart").await.text(), "[2]", "{paths:?}");
            assert_ne!(late.cookie(COOKIE), client.cookie(COOKIE));
        }
    }
}

#[tokio::test]
async fn a_late_request_is_told_that_it_cannot_save() {
    async fn saves(session: Session<Customer>) -> String {
        session.write().await.cart_mut().push(2);
        format!(
            "{:?} {}",
            session.save().await.map_err(|error| error.kind()),
            session.began_in_request()
        )
    }
    let shop = shop_with("/saves", saves).await;
    for paths in EXCHANGES {
        let (_, late) = after(&shop, paths).await;
        let reply = late.get("/saves").await;
        assert_eq!((reply.text(), reply.set_cookies()), ("Err(Ended) true", vec![]), "{paths:?}");
    }
}

#[tokio::test]
async fn a_late_login_is_a_login_of_its_own() {
    let shop = Shop::start().await;
    for paths in EXCHANGES {
        let (client, late) = after(&shop, paths).await;
        assert_eq!(late.get("/login/9").await.set_cookies().len(), 1, "{paths:?}");
        assert_eq!(late.get("/account").await.text(), "user 9 with 0 items");
        assert_eq!(client.get("/cart").await.status, StatusCode::OK);
    }
}

#[tokio::test]
async fn a_late_logout_leaves_the_logins_cookie_alone() {
    let shop = Shop::start().await;
    for paths in EXCHANGES {
        let (client, late) = after(&shop, paths).await;
        let reply = late.get("/logout").await;
        assert_eq!((reply.text(), reply.set_cookies()), ("", vec![]), "{paths:?}");
        if paths[0] != "/renew" {
            assert_eq!(client.get("/account").await.status, StatusCode::OK, "{paths:?}");
        }
        // Its own new session is as good as any.
        assert_eq!(late.get("/cart").await.text(), "[]");
    }
}

/// The session goes on under another id between the look of the logout and its end.
#[tokio::test]
async fn a_logout_in_another_process_that_meets_a_login_does_not_clear_the_way_for_a_late_request()
{
    for path in ["/login/7", "/login-afresh/7", "/renew"] {
        let [one, two] = Shop::two().await;
        let client = one.visitor().await;
        let [ending, late] = [(); 2].map(|()| two.in_front_of(&client));
        let gate = one.store.hold(Operation::Delete);
        let logout = ending.spawn_get("/logout");
        gate.wait_for_caller().await;
        assert!(client.get(path).await.status.is_success(), "{path}");
        gate.release();
        assert_eq!(logout.await.unwrap().status, StatusCode::OK, "{path}");
        let stored = one.store.store().len();
        let reply = late.get("/cart/2").await;
        assert_eq!((reply.text(), reply.set_cookies()), ("", vec![]), "{path}");
        assert_eq!(one.store.store().len(), stored, "{path}");
        assert_eq!(client.get("/cart").await.status, StatusCode::OK, "{path}");
    }
}

#[tokio::test]
async fn an_old_id_that_somebody_touches_is_not_held_for_longer() {
    let shop = Shop::start().await;
    let visitor = shop.visitor().await;
    let old = key_of(&visitor).await;
    let late = visitor.copy();
    visitor.get("/login/7").await.text();
    // By a request that was under way in another process.
    let store = shop.store.store();
    store.touch(&old, shop.clock.now() + HOUR).await.unwrap();
    shop.clock.advance(GRACE);
    assert!(store.load(&old).await.unwrap().is_some());
    assert_eq!(late.get("/cart/2").await.set_cookies().len(), 1);
    assert_eq!(late.get("/cart").await.text(), "[2]");
}

#[tokio::test]
async fn of_two_cookies_the_one_that_still_opens_a_session_does() {
    let shop = Shop::start().await;
    let (client, late) = after(&shop, &["/login/7"]).await;
    let [new, old] = [&client, &late].map(|it| it.cookie(COOKIE).unwrap());
    for pairs in [[&old, &new], [&new, &old]] {
        let line = format!("{COOKIE}={}; {COOKIE}={}", pairs[0], pairs[1]);
        let browser = shop.client();
        assert_eq!(browser.get_with("/who", &[line.into_bytes()]).await.text(), "Some(7)");
    }
}

/// A save, a renewal and a lease that are based on the very first version, and come late.
#[tokio::test]
async fn nothing_brings_back_what_a_login_has_ended() {
    for end in ["/login/8", "/login-afresh/8"] {
        for path in ["/cart/2", "/renew", "/lock"] {
            let [one, two] = Shop::two().await;
            // Without a visit before: its first record is the login's.
            let client = one.client();
            client.get("/login/7").await.text();
            let old = two.in_front_of(&client);
            let late = one.store.hold(Operation::Replace);
            let request = old.spawn_get(path);
            late.wait_for_caller().await;
            // The requests from here on are not held.
            one.store.hold(Operation::Replace).release();
            client.get(end).await.text();
            late.release();
            let reply = request.await.unwrap();
            assert_eq!(reply.set_cookies(), Vec::<String>::new(), "{end} {path}");
            assert_eq!(old.get("/who").await.text(), "None", "{end} {path}");
            assert_eq!(one.sessions_of("7").await, 0, "{end} {path}");
            assert_eq!(client.get("/account").await.text(), "user 8 with 0 items");
        }
    }
}

/// A renewal of the client's session that has replaced the old record once, and is about to confirm it.
async fn renewal_between_its_steps(shop: &Shop, client: &Client) -> (JoinHandle<Reply>, Gate) {
    let first = shop.store.hold(Operation::Replace);
    let renewing = client.spawn_get("/renew");
    (renewing, hold_the_next(&shop.store, first, Operation::Replace).await)
}

#[tokio::test]
async fn a_renewal_may_take_its_time() {
    let shop = Shop::start().await;
    let client = shop.visitor().await;
    let (renewing, gate) = renewal_between_its_steps(&shop, &client).await;
    shop.clock.advance(3 * GRACE);
    gate.release();
    assert_eq!(renewing.await.unwrap().set_cookies().len(), 1);
    assert_eq!(client.get("/cart").await.text(), "[1]");
}

#[tokio::test]
async fn an_end_between_the_steps_of_a_renewal_counts_even_if_the_store_fails() {
    let shop = Shop::start().await;
    for fails in [false, true] {
        let client = shop.visitor().await;
        let key = key_of(&client).await;
        let (renewing, gate) = renewal_between_its_steps(&shop, &client).await;
        assert!(shop.store.store().delete(&key).await.unwrap());
        shop.store.fail_next(Operation::Replace, u64::from(fails));
        gate.release();
        let reply = renewing.await.unwrap();
        assert_eq!((reply.status, reply.set_cookies()), (StatusCode::CONFLICT, vec![]));
        assert!(shop.store.store().is_empty(), "its new session is not kept");
    }
}

/// Writes of every other tab meet the login: whatever the order, the browser is logged in.
#[tokio::test(flavor = "multi_thread")]
async fn writes_beside_a_login_never_log_it_out() {
    for shops in [&[Shop::start().await][..], &Shop::two().await[..]] {
        for round in 0..400 {
            // With another user's data, without a user, and twice at once.
            let (path, logins) = [("/login/7", 1), ("/renew", 1), ("/login/7", 2)][round % 3];
            let visitor = match round % 4 {
                0 => shops[0].logged_in(8).await,
                _ => shops[0].visitor().await,
            };
            let replies = Arc::new(std::sync::Mutex::new(Vec::new()));
            at_once(6, |who| {
                // Each with the cookie from before: what comes back is looked at below.
                let tab = shops[who % shops.len()].in_front_of(&visitor);
                let replies = replies.clone();
                async move {
                    let path = if who < logins { path } else { "/cart/2" };
                    let reply = tab.get(path).await;
                    assert!(reply.status.is_success(), "{path}: {}", reply.status);
                    replies.lock().unwrap().push((path, reply.set_cookies().len()));
                    0
                }
            })
            .await;
            for (path, cookies) in replies.lock().unwrap().iter() {
                assert_eq!(*cookies, usize::from(*path != "/cart/2"), "{path}");
            }
        }
    }
}
