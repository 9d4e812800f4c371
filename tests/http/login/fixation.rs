//! A cookie that somebody planted or stole before a login opens nothing after it.

use std::sync::Arc;

use sessions::Session;
use sessions_tests::at_once;
use tokio::sync::Notify;

use super::{Customer, Shop, shop_with};

/// What somebody with a planted or stolen cookie tries while its victim logs in.
const ATTACKS: [&str; 4] = ["/who", "/cart/2", "/cart", "/logout"];

async fn planted_cookies_open_no_login(shops: &[Shop], attacks: &[&'static str]) {
    for round in 0..1_000 {
        let victim = shops[0].visitor().await;
        let planted = victim.copy();
        let attack = attacks[round % attacks.len()];
        let user = 1_000 + round as u64;
        // In both orders, and with two tabs of the attacker's.
        at_once(3, |who| {
            let client = match who {
                1 => victim.clone(),
                _ => shops[who % shops.len()].in_front_of(&planted),
            };
            async move {
                let path = if who == 1 { format!("/login/{user}") } else { attack.to_string() };
                let status = client.get(&path).await.status;
                assert!(!status.is_server_error(), "{path}: {status}");
                if who != 1 {
                    // Whatever cookie the attacker has been given: it is nobody's login.
                    assert_eq!(client.get("/who").await.text(), "None", "{attack}");
                }
                0
            }
        })
        .await;
        for shop in shops {
            assert_eq!(shop.in_front_of(&planted).get("/who").await.text(), "None", "{attack}");
            let mine = shop.in_front_of(&victim).get("/who").await;
            assert_eq!(mine.text(), format!("Some({user})"), "{attack}");
        }
        assert_eq!(shops[0].sessions_of(&user.to_string()).await, 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_planted_cookie_never_opens_the_login_in_a_thousand_rounds() {
    planted_cookies_open_no_login(&[Shop::start().await], &ATTACKS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_planted_cookie_never_opens_the_login_in_another_process_either() {
    planted_cookies_open_no_login(&Shop::two().await, &ATTACKS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewal_by_somebody_else_meets_the_login_in_a_thousand_rounds() {
    planted_cookies_open_no_login(&[Shop::start().await], &["/renew"]).await;
    planted_cookies_open_no_login(&Shop::two().await, &["/renew"]).await;
}

/// The old id keeps what a request that is under way with it has seen: not who has logged in since.
#[tokio::test]
async fn a_request_under_way_does_not_see_who_logs_in() {
    let (arrived, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let slow = {
        let (arrived, go_on) = (arrived.clone(), go_on.clone());
        async move |session: Session<Customer>| {
            arrived.notify_one();
            go_on.notified().await;
            let s = session.read().await;
            format!("{:?} {:?} {:?}", s.user(), s.cart(), session.logged_in_at())
        }
    };
    let shop = shop_with("/slow", slow).await;
    for client in [shop.visitor().await, shop.logged_in(6).await] {
        let user = client.get("/who").await.body;
        let under_way = client.copy().spawn_get("/slow");
        arrived.notified().await;
        client.get("/cart/2").await.text();
        client.get("/login/7").await.text();
        client.get("/cart/3").await.text();
        go_on.notify_one();
        let seen = under_way.await.unwrap();
        assert!(seen.text().starts_with(&format!("{user} [1, 2] ")), "{seen:?}");
        assert_eq!(user == "None", seen.text().ends_with("None"), "{seen:?}");
        let kept = if user == "None" { "[1, 2, 3]" } else { "[3]" };
        assert_eq!(client.get("/cart").await.text(), kept);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_tabs_that_log_in_at_once_are_both_logged_in() {
    let shops = Arc::new(Shop::two().await);
    for _ in 0..200 {
        let before = shops[0].visitor().await;
        at_once(2, |tab| {
            let client = shops[tab].in_front_of(&before);
            async move {
                client.get("/login/7").await.text();
                assert_eq!(client.get("/who").await.text(), "Some(7)");
                0
            }
        })
        .await;
        assert_eq!(before.get("/who").await.text(), "None");
    }
}
