//! Where a user is logged in, and how to log out there.

use std::sync::Arc;

use axum::extract::Path;
use http::StatusCode;
use sessions::{
    Device, Keys, MemoryStore, Session, SessionLayer,
    testing::{ManualClock, Operation, TestClient},
};
use sessions_tests::at_once;

use super::{Customer, MINUTE, Shop, shop_with};

async fn with_device(
    Path((user, agent)): Path<(u64, String)>,
    session: Session<Customer>,
) -> sessions::Result<()> {
    let device = Device::new().with_user_agent(&agent).with_address("192.0.2.1");
    session.login(user).with_device(device).await
}

#[tokio::test]
async fn a_user_sees_where_they_are_logged_in() {
    let shop = shop_with("/device/{user}/{agent}", with_device).await;
    let sessions = shop.layer.user_sessions().unwrap();
    let (phone, laptop) = (shop.client(), shop.visitor().await);
    phone.get("/device/7/phone").await.text();
    shop.clock.advance(MINUTE);
    laptop.get("/device/7/laptop").await.text();
    shop.logged_in(8).await;
    let list = async || {
        let list = sessions.list(&7).await.unwrap();
        let shown = list.iter().map(|info| {
            let agent = info.device.user_agent().unwrap_or("?");
            let seen = info.last_seen.unwrap().duration_since(info.logged_in_at).unwrap();
            format!("{agent} {} {}", info.device.address().unwrap_or("?"), seen.as_secs() / 60)
        });
        shown.collect::<Vec<_>>()
    };
    assert_eq!(list().await, ["laptop 192.0.2.1 0", "phone 192.0.2.1 0"]);

    // Seen again, even if it only reads.
    shop.clock.advance(30 * MINUTE);
    phone.get("/who").await.text();
    assert_eq!(list().await, ["phone 192.0.2.1 31", "laptop 192.0.2.1 0"]);
    shop.clock.advance(MINUTE);
    laptop.get("/cart/9").await.text();
    assert_eq!(list().await, ["laptop 192.0.2.1 31", "phone 192.0.2.1 31"]);
    // The device stays known through a renewal, and through another login.
    laptop.get("/renew").await.text();
    laptop.get("/login/7").await.text();
    assert_eq!(list().await, ["laptop 192.0.2.1 0", "phone 192.0.2.1 31"]);
}

#[tokio::test]
async fn a_request_that_is_no_use_leaves_the_device_as_it_was_seen() {
    let clock = ManualClock::new();
    let store = MemoryStore::builder().with_clock(&clock).build();
    let builder = SessionLayer::<Customer>::builder(store.clone(), Keys::generate());
    let layer = builder.with_clock(&clock).build().unwrap();
    let sessions = layer.user_sessions().unwrap();
    let seen = async || {
        let list = sessions.list(&7).await.unwrap();
        let seen = list[0].last_seen.unwrap().duration_since(list[0].logged_in_at).unwrap();
        seen.as_secs() / 60
    };
    let mut client = TestClient::new((), &layer);
    let device = Device::new().with_user_agent("phone");
    client.with_session(async |s| s.login(7).with_device(device).await.unwrap()).await;
    clock.advance(30 * MINUTE);
    client.with_session(async |s| drop(s.without_refresh())).await;
    assert_eq!(seen().await, 0);
    let write = async |s: Session<Customer>| {
        s.without_refresh().write().await.set_cart([1]);
    };
    client.with_session(write).await;
    assert_eq!(seen().await, 0);
    client.with_session(async |_| {}).await;
    assert_eq!(seen().await, 30);
}

#[tokio::test]
async fn a_session_knows_itself_in_the_list() {
    let shop = Shop::start().await;
    let sessions = shop.layer.user_sessions().unwrap();
    assert_eq!(shop.client().get("/key").await.text(), "", "nothing is stored");
    let clients = [shop.logged_in(7).await, shop.logged_in(7).await];
    let own = futures(clients.iter().map(async |client| client.get("/key").await.body)).await;
    let list = sessions.list(&7).await.unwrap();
    let mut listed: Vec<_> = list.iter().map(|info| info.key.to_string()).collect();
    listed.sort();
    assert_ne!(own[0], own[1]);
    assert_eq!(listed, {
        let mut own = own.clone();
        own.sort();
        own
    });
    clients[0].get("/renew").await.text();
    assert_ne!(clients[0].get("/key").await.text(), own[0]);
}

#[tokio::test]
async fn what_a_device_says_is_cut_to_a_bounded_length() {
    let long = "ä".repeat(1_000);
    let device = Device::new().with_user_agent(&long).with_address(&long);
    assert_eq!(device.user_agent(), Some(&*"ä".repeat(128)));
    assert_eq!(device.address().unwrap().len(), 256);
    assert_eq!(Device::new().with_user_agent("").user_agent(), None);
}

/// A list of devices is read in a terminal and in a log as well as in a page.
#[test]
fn a_device_has_no_characters_that_change_what_stands_beside_it() {
    let of = |text| Device::new().with_user_agent(text).user_agent().map(str::to_string);
    assert_eq!(of("a\r\nb\u{7}\u{1b}[31m\u{7f}\u{85}c\0"), Some("ab[31mc".into()));
    // "gpj.exe" would be shown as "exe.jpg".
    let overrides = "\u{202e}gpj.exe\u{202c}\u{2066}\u{2069}\u{200f}\u{61c}\u{2028}\u{feff}";
    assert_eq!(of(overrides), Some("gpj.exe".into()));
    assert_eq!(of("\u{e0041}\u{200b}"), None);
    assert_eq!(Device::new().with_address("::1\n").address(), Some("::1"));
    // Letters of all scripts stay, and markup: whoever shows it escapes it.
    let text = "Mözilla <b> 浏览器 مرحبا 👩\u{200d}💻";
    assert_eq!(of(text), Some(text.into()));
}

#[tokio::test]
async fn a_user_ends_one_session_and_nobody_elses() {
    let shop = Shop::start().await;
    let sessions = shop.layer.user_sessions().unwrap();
    let (mine, other, stranger) =
        (shop.logged_in(7).await, shop.logged_in(7).await, shop.logged_in(8).await);
    let strangers = sessions.list(&8).await.unwrap()[0].key;
    assert!(!sessions.end(&7, &strangers).await.unwrap());
    assert_eq!(stranger.get("/who").await.text(), "Some(8)");
    let list = sessions.list(&7).await.unwrap();
    assert_eq!(list.len(), 2);
    assert!(sessions.end(&7, &list[0].key).await.unwrap());
    assert!(!sessions.end(&7, &list[0].key).await.unwrap());
    let left = [&mine, &other].map(async |client| client.get("/who").await.body);
    let mut left = futures(left).await;
    left.sort();
    assert_eq!(left, ["None", "Some(7)"]);
}

async fn futures<R>(futures: impl IntoIterator<Item = impl Future<Output = R>>) -> Vec<R> {
    let mut done = Vec::new();
    for future in futures {
        done.push(future.await);
    }
    done
}

#[tokio::test]
async fn logging_out_everywhere_else_ends_the_others_in_every_process() {
    let [one, two] = Shop::two().await;
    let here = one.logged_in(7).await;
    let others = [one.logged_in(7).await, two.logged_in(7).await, two.logged_in(7).await];
    let stranger = two.logged_in(8).await;
    assert_eq!(one.client().get("/end-others").await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(here.get("/end-others").await.text(), "3");
    for other in &others {
        for shop in [&one, &two] {
            assert_eq!(shop.in_front_of(other).get("/who").await.text(), "None");
        }
    }
    assert_eq!(here.get("/who").await.text(), "Some(7)");
    assert_eq!(stranger.get("/who").await.text(), "Some(8)");
    assert_eq!(here.get("/end-all").await.text(), "1");
    assert_eq!(here.get("/who").await.text(), "None");
    assert_eq!((one.sessions_of("7").await, one.sessions_of("8").await), (0, 1));
}

#[tokio::test]
async fn a_request_under_way_saves_nothing_once_its_session_was_ended_elsewhere() {
    let [one, two] = Shop::two().await;
    let here = one.logged_in(7).await;
    for shop in [&one, &two] {
        let victim = shop.in_front_of(&two.logged_in(7).await);
        let gate = shop.store.hold(Operation::Replace);
        let writing = victim.spawn_get("/cart/2");
        gate.wait_for_caller().await;
        assert_eq!(here.get("/end-others").await.text(), "1");
        gate.release();
        let reply = writing.await.unwrap();
        assert_eq!((reply.text(), reply.set_cookies().len()), ("", 0), "it did nothing wrong");
        assert_eq!(victim.get("/who").await.text(), "None");
    }
    assert_eq!(one.sessions_of("7").await, 1);
}

/// A session that exchanges its id just then must not slip through.
#[tokio::test(flavor = "multi_thread")]
async fn logging_out_everywhere_beats_a_renewal_in_a_thousand_rounds() {
    let shops = Arc::new(Shop::two().await);
    for round in 0..1_000 {
        let here = shops[0].logged_in(7).await;
        let there = shops[1].logged_in(7).await;
        let path = ["/renew", "/cart/2"][round % 2];
        at_once(2, |who| {
            let client = if who == 0 { here.clone() } else { there.clone() };
            async move { client.get(["/end-others", path][who]).await.status.as_u16() }
        })
        .await;
        assert_eq!(there.get("/who").await.text(), "None", "{path}");
        assert_eq!(shops[0].sessions_of("7").await, 1, "{path}");
        assert_eq!(here.get("/end-all").await.text(), "1");
    }
}
