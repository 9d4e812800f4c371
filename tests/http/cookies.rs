//! What a request's cookies can and cannot do.

use std::time::Duration;

use axum::Router;
use sessions::{Keys, MemoryStore, SessionLayer, testing::Calls};
use sessions_tests::Server;

use crate::{App, COOKIE, Visitor, basics};

fn line(value: &str) -> Vec<u8> {
    format!("{COOKIE}={value}").into_bytes()
}

/// Every way to spoil a good cookie that we could think of.
fn spoiled(good: &str, keys_of_another: &str) -> Vec<Vec<Vec<u8>>> {
    let mut all = vec![
        vec![],
        vec![b"".to_vec()],
        vec![line("")],
        vec![COOKIE.as_bytes().to_vec()],
        vec![line(&"A".repeat(64))],
        vec![line(&"A".repeat(60_000))],
        vec![line(keys_of_another)],
        vec![line(&format!("\"{good}\""))],
        vec![line(&format!("{good}="))],
        vec![line(&format!(" {good}"))],
        vec![line(&good.to_lowercase())],
        vec![[COOKIE.as_bytes(), b"=\xff\xfe\x80", good.as_bytes()].concat()],
        vec![format!("id={good}").into_bytes()],
        vec![format!("__Secure-id={good}").into_bytes()],
        vec![format!("x{COOKIE}={good}").into_bytes()],
        vec![line("A"), line("B"), line(&"C".repeat(64))],
    ];
    all.extend((0..good.len()).map(|end| vec![line(&good[..end])]));
    all.extend((0..good.len() * 8).map(|bit| {
        let mut bytes = good.as_bytes().to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        // Bytes that a header cannot have never arrive.
        bytes.retain(|byte| *byte >= 0x20 && *byte != 0x7f);
        vec![[COOKIE.as_bytes(), b"=", &bytes[..]].concat()]
    }));
    all
}

#[tokio::test]
async fn a_cookie_that_does_not_verify_never_reaches_the_store() {
    let app = App::start(Router::new()).await;
    let other = App::start(Router::new()).await;
    let good = app.visitor().await.cookie(COOKIE).unwrap();
    let foreign = other.visitor().await.cookie(COOKIE).unwrap();
    let client = app.client();
    app.store.reset();
    for lines in spoiled(&good, &foreign) {
        let reply = client.get_with("/name", &lines).await;
        assert_eq!(reply.text(), "nobody", "{lines:?}");
        assert_eq!(reply.set_cookies(), Vec::<String>::new(), "{lines:?}");
    }
    assert_eq!(app.store.calls(), Calls::default());
    assert_eq!(client.get_with("/name", &[line(&good)]).await.text(), "Zoe");
}

#[tokio::test]
async fn the_session_is_found_among_many_cookies_and_in_several_lines() {
    let app = App::start(Router::new()).await;
    let good = app.visitor().await.cookie(COOKIE).unwrap();
    let among = format!("a=1;b; {COOKIE}=forged; =;;{COOKIE}={good} ; c=\"3\"");
    let client = app.client();
    assert_eq!(client.get_with("/name", &[among.into_bytes()]).await.text(), "Zoe");
    let lines = [b"a=\xff".to_vec(), line("forged"), line(&good), b"z=1".to_vec()];
    assert_eq!(client.get_with("/name", &lines).await.text(), "Zoe");
    assert_eq!(client.get_with_http2("/name", &lines).await.text(), "Zoe");
}

#[tokio::test]
async fn of_several_good_cookies_the_one_with_a_session_counts() {
    let app = App::start(Router::new()).await;
    let (ended, live) = (app.visitor().await, app.visitor().await);
    let dead = ended.cookie(COOKIE).unwrap();
    ended.get("/destroy").await.text();
    let lines = [line(&dead), line(&live.cookie(COOKIE).unwrap())];
    assert_eq!(app.client().get_with("/name", &lines).await.text(), "Zoe");
}

#[tokio::test]
async fn well_signed_cookies_of_dead_sessions_cost_a_handful_of_loads() {
    let app = App::start(Router::new()).await;
    let mut dead = Vec::new();
    for _ in 0..20 {
        let client = app.visitor().await;
        dead.push(line(&client.cookie(COOKIE).unwrap()));
        client.get("/destroy").await.text();
    }
    let good = line(&app.visitor().await.cookie(COOKIE).unwrap());
    for (others, name, load) in [(3, "Zoe", 4), (4, "nobody", 4), (20, "nobody", 4)] {
        let lines = [&dead[..others], std::slice::from_ref(&good)].concat();
        app.store.reset();
        let reply = app.client().get_with("/name", &lines).await;
        assert_eq!(reply.text(), name, "behind {others} others");
        assert_eq!(app.store.calls(), Calls { load, ..Calls::default() });
    }
    // Other applications may have cookies of the same name.
    let lines = [vec![line("theirs"); 12], vec![good]].concat();
    assert_eq!(app.client().get_with("/name", &lines).await.text(), "Zoe");
}

#[tokio::test]
async fn an_old_keys_cookie_opens_its_session_and_comes_back_signed_by_the_new() {
    let store = MemoryStore::new();
    let (old, new) = (Keys::generate(), Keys::generate());
    let serve = async |keys: Keys| {
        let layer = SessionLayer::<Visitor>::new(store.clone(), keys);
        Server::start(basics().layer(layer)).await
    };
    let before = serve(old.clone()).await;
    let rotated = serve(new.clone().with_previous(old)).await;
    let after = serve(new).await;

    let browser = before.client();
    browser.get("/name/Zoe").await.text();
    let signed_by_old = browser.cookie(COOKIE).unwrap();
    let open = async |server: &Server, cookie: &str| {
        let client = server.client();
        client.set_cookie(COOKIE, Some(cookie));
        let name = client.get("/name").await.text().to_string();
        (name, client.cookie(COOKIE).unwrap())
    };
    assert_eq!(open(&after, &signed_by_old).await.0, "nobody");
    let (name, signed_by_new) = open(&rotated, &signed_by_old).await;
    assert_eq!(name, "Zoe");
    assert_ne!(signed_by_new, signed_by_old);
    assert_eq!(signed_by_new[..21], signed_by_old[..21], "the same id");
    assert_eq!(open(&after, &signed_by_new).await, ("Zoe".to_string(), signed_by_new.clone()));
    assert_eq!(open(&rotated, &signed_by_new).await.1, signed_by_new, "sent once");
}

#[tokio::test]
async fn a_cookie_signed_under_another_name_opens_nothing() {
    let store = MemoryStore::new();
    let keys = Keys::generate();
    let serve = async |name: &'static str| {
        let builder = SessionLayer::<Visitor>::builder(store.clone(), keys.clone());
        let layer = builder.with_cookie_name(name).build().unwrap();
        Server::start(basics().layer(layer)).await
    };
    let (one, other) = (serve("__Host-one").await, serve("__Host-other").await);
    let browser = one.client();
    browser.get("/name/Zoe").await.text();
    let value = browser.cookie("__Host-one").unwrap();
    for (server, name) in [(&one, "Zoe"), (&other, "nobody")] {
        let cookie = format!("__Host-one={value}; __Host-other={value}").into_bytes();
        assert_eq!(server.client().get_with("/name", &[cookie]).await.text(), name);
    }
}

#[tokio::test]
async fn the_cookie_has_the_flags_that_the_layer_was_given() {
    let flags = async |settings: fn(
        sessions::SessionLayerBuilder<Visitor>,
    ) -> sessions::SessionLayerBuilder<Visitor>| {
        let app = App::with(Router::new(), settings).await;
        let client = app.client();
        let set = client.get("/name/Zoe").await.set_cookies().remove(0);
        let removed = client.get("/destroy").await.set_cookies().remove(0);
        let (name, rest) = set.split_once('=').unwrap();
        let (_, attributes) = rest.split_once("; ").unwrap();
        let attributes_before_age = attributes.split("; Max-Age").next().unwrap();
        assert!(removed.starts_with(&format!("{name}=; {attributes_before_age}; Max-Age=0")));
        format!("{name}: {attributes}")
    };
    assert_eq!(flags(|b| b).await, "__Host-id: HttpOnly; SameSite=Lax; Secure; Path=/");
    assert_eq!(flags(|b| b.insecure_plain_http()).await, "id: HttpOnly; SameSite=Lax; Path=/");
    let lan = flags(|b| b.with_cookie_name("__host-http-s").insecure_plain_http());
    assert_eq!(lan.await, "s: HttpOnly; SameSite=Lax; Path=/");
    let framed = flags(|b| b.with_same_site(sessions::SameSite::None).with_partitioned_cookie());
    assert_eq!(framed.await, "__Host-id: HttpOnly; SameSite=None; Partitioned; Secure; Path=/");
    let elsewhere = flags(|b| {
        b.with_cookie_name("__Secure-s")
            .with_cookie_domain("example.com")
            .with_cookie_path("/name")
            .with_same_site(sessions::SameSite::None)
            .insecure_script_access()
            .with_persistent_cookie()
            .with_absolute_timeout(Duration::from_secs(90))
    });
    assert_eq!(
        elsewhere.await,
        "__Secure-s: SameSite=None; Secure; Path=/name; Domain=example.com; Max-Age=90"
    );
}
