//! The examples as a person runs them.

#[path = "support/copies.rs"]
mod copies;
#[path = "programs/openid_connect.rs"]
mod openid_connect;
#[path = "support/provider.rs"]
mod provider;
#[path = "programs/recipes.rs"]
mod recipes;
#[path = "support/shop.rs"]
mod shop;
mod support;

use std::{net::SocketAddr, process::Command, time::Duration};

use axum::http::Request;
use sessions_tests::{Client, Reply, at_once, servers::Folder};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::{
    shop::{LISTENS, shop},
    support::Program,
};

const COOKIE: &str = "__Host-id";

/// The token that a page of the shop has for its forms and scripts.
fn token(page: &str) -> &str {
    let (_, rest) = page.split_once(r#"<meta name="csrf-token" content=""#).expect("a token");
    rest.split('"').next().expect("the text before the next quote")
}

const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");

async fn post(client: &Client, path: &str, headers: &[(&str, &str)], body: &str) -> Reply {
    let mut request = Request::post(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    client.call(request.body(body.to_string()).expect("a path, and headers")).await
}

/// Sends one of the shop's forms as a browser does.
async fn send(client: &Client, action: &str, fields: &str) -> Reply {
    let page = client.get("/").await;
    let form = format!("csrf_token={}&{fields}", token(page.text()));
    post(client, action, &[FORM], &form).await
}

/// What the next page tells.
async fn notice(client: &Client) -> String {
    let page = client.get("/").await.body;
    let (_, rest) = page.split_once(r#"<p class="notice">"#).expect("a notice");
    rest.split("</p>").next().expect("its text").to_string()
}

#[tokio::test]
async fn the_shop_serves_races_and_ends() {
    let (shop, address) = Program::start(&mut shop(), LISTENS);
    let client = Client::new(address);
    let page = client.get("/").await;
    assert!(page.text().contains("<html"));
    assert!(client.cookie(COOKIE).is_some());
    let token = token(page.text()).to_string();

    let arrivals = at_once(50, |_| {
        let (client, token) = (client.clone(), token.clone());
        async move {
            let reply = post(&client, "/race/arrive", &[("x-csrf-token", &token)], "").await;
            reply.text().to_string()
        }
    });
    let mut arrivals: Vec<u32> =
        arrivals.await.iter().map(|place| place.parse().expect("a number")).collect();
    arrivals.sort_unstable();
    assert_eq!(arrivals, (1..=50).collect::<Vec<_>>());
    assert_eq!(send(&client, "/race/finish", "").await.text(), "50");

    let before = client.cookie(COOKIE);
    assert_eq!(send(&client, "/session/renew", "").await.status, 303);
    assert_ne!(client.cookie(COOKIE), before);
    assert_eq!(send(&client, "/session/forget", "").await.status, 303);
    assert_eq!(client.cookie(COOKIE), None);
    assert_eq!(shop.terminate(), Some(0));
}

#[tokio::test]
async fn a_form_without_its_token_is_refused_on_a_page() {
    let (_shop, address) = Program::start(&mut shop(), LISTENS);
    let form = [FORM];
    let elsewhere = [FORM, ("origin", "http://evil.example")];
    let (client, stranger) = (Client::new(address), Client::new(address));
    client.get("/").await.text();
    let cookie = client.cookie(COOKIE);
    let body = format!("product=mug&pieces=1&csrf_token={}", token(stranger.get("/").await.text()));
    for (client, headers, body, words) in [
        (&client, &form[..], "product=mug&pieces=1", "This page is out of date."),
        (&client, &form, &body, "This page is out of date."),
        (&client, &elsewhere, "product=mug&pieces=1", "This request came from another site."),
        (&Client::new(address), &form, &body, "This page is out of date."),
        (&Client::new(address), &elsewhere, &body, "This request came from another site."),
    ] {
        let before = client.cookie(COOKIE);
        let reply = post(client, "/cart/add", headers, body).await;
        assert_eq!(reply.status, 403);
        assert!(reply.body.contains("<h1>That was not done</h1>"), "{reply:?}");
        assert!(reply.body.contains(words), "{reply:?}");
        assert_eq!(client.cookie(COOKIE), before, "no session begins");
    }
    assert_eq!(client.cookie(COOKIE), cookie);
    assert!(client.get("/cart").await.text().contains("There is nothing in it yet."));

    // Other refusals are pages too, and what they quote is escaped.
    let reply = send(&client, "/cart/add", "product=mug&pieces=<b>").await;
    assert_eq!(reply.status, 422);
    assert!(
        reply.body.contains("<h1>That was not done</h1>") && !reply.body.contains("<b>&"),
        "{reply:?}"
    );
}

/// A page of any site can ask a browser for one, and the visitor's cookies come along.
#[tokio::test]
async fn a_websocket_opens_for_a_page_of_its_own_site_alone() {
    let mut websocket = Command::new(copies::program(env!("CARGO_BIN_EXE_websocket")));
    let (_websocket, address) = Program::start::<SocketAddr>(websocket.arg("0"), LISTENS);
    let client = Client::new(address);
    client.get("/").await.text();
    let open = async |origin: &str| {
        let request = Request::get("/socket")
            .header("connection", "Upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
            .header("origin", origin);
        client.call(request.body(String::new()).unwrap()).await
    };
    let reply = open("http://evil.example").await;
    assert_eq!((reply.status.as_u16(), reply.set_cookies().len()), (403, 0));
    let reply = open(&format!("http://{address}")).await;
    assert_eq!((reply.status.as_u16(), reply.set_cookies().len()), (101, 1));
    assert_eq!(open("http://evil.example").await.status, 403, "with a session too");
}

#[tokio::test]
async fn an_account_needs_its_password() {
    let (_shop, address) = Program::start(&mut shop(), LISTENS);
    let client = Client::new(address);
    assert_eq!(client.get("/account").await.header("location"), "/login?next=%2Faccount");
    for (fields, words) in [
        ("name=Ada&password=short", "at least 8 characters, and at most 100."),
        ("name=Ada%0A1&password=correct+horse", "Please choose a name of"),
    ] {
        let reply = send(&client, "/signup", fields).await;
        assert_eq!(reply.status, 422);
        assert!(reply.body.contains(words), "{reply:?}");
    }
    assert_eq!(client.get("/login").await.header("cache-control"), "no-store");
    let reply = send(&client, "/signup", "name=Ada&password=correct+horse&next=/checkout").await;
    assert_eq!((reply.status.as_u16(), &*reply.header("location")), (303, "/checkout"));
    assert!(notice(&client).await.starts_with("Welcome, Ada!"));
    assert_eq!(send(&client, "/logout", "").await.header("location"), "/");
    assert_eq!(notice(&client).await, "You are logged out.");

    let wrong = send(&client, "/login", "name=Ada&password=wrong+horse&next=/cart").await;
    let unknown = send(&client, "/login", "name=Eve&password=wrong+horse&next=/cart").await;
    for (reply, name) in [(wrong, "Ada"), (unknown, "Eve")] {
        assert_eq!(reply.status, 422);
        assert!(reply.body.contains("There is no account with this name and this password."));
        assert!(reply.body.contains(&format!(r#"value="{name}""#)), "what was typed is kept");
        assert!(reply.body.contains(r#"name="next" value="/cart""#), "{reply:?}");
        assert!(!reply.body.contains("wrong horse"), "but not the password");
    }
    for (next, leads_to) in [("/cart", "/cart"), ("//evil.example", "/account")] {
        let fields = format!("name=ADA&password=correct+horse&next={next}");
        let reply = send(&client, "/login", &fields).await;
        assert_eq!((reply.status.as_u16(), &*reply.header("location")), (303, leads_to));
    }
    assert!(client.get("/account").await.text().contains("logged in as <b>Ada</b>"));
}

/// What one customer has in the cart is not for the next one at the same computer.
#[tokio::test]
async fn a_cart_comes_along_into_one_account_and_not_into_the_next() {
    let (_shop, address) = Program::start(&mut shop(), LISTENS);
    let client = Client::new(address);
    let has_mug = async || client.get("/cart").await.text().contains("Morning mug");
    send(&client, "/cart/add", "product=mug&pieces=1").await;
    send(&client, "/signup", "name=Ada&password=correct+horse").await;
    assert!(has_mug().await);
    send(&client, "/login", "name=Ada&password=correct+horse").await;
    assert!(has_mug().await);
    send(&client, "/signup", "name=Ben&password=correct+horse").await;
    assert!(!has_mug().await);
}

/// Accounts end with the shop, and sessions need not: they must not fall to the next of the name.
#[tokio::test]
async fn whoever_gets_the_name_of_an_earlier_account_does_not_get_its_sessions() {
    let keys = "c2Vzc2lvbnMgb2YgYSB0ZXN0LCBub3Qgb2YgYSBzaG9wIQ==";
    let folder = Folder::new();
    let store = format!("sqlite:{}", folder.path.join("shop.db").display());
    let start =
        || Program::start(shop().args(["--store", &store]).env("SESSION_KEYS", keys), LISTENS);
    let (first, address) = start();
    let earlier = Client::new(address);
    send(&earlier, "/signup", "name=Ada&password=correct+horse").await;
    assert_eq!(first.terminate(), Some(0));

    let (_second, address) = start();
    let same_browser = Client::new(address);
    same_browser.set_cookie(COOKIE, earlier.cookie(COOKIE).as_deref());
    same_browser.get("/account").await.text();
    let later = Client::new(address);
    send(&later, "/signup", "name=Ada&password=another+horse").await;
    assert_eq!(same_browser.get("/account").await.header("location"), "/login?next=%2Faccount");
    assert_eq!(later.get("/account").await.text().matches("this one").count(), 1);
}

#[tokio::test]
async fn a_new_password_ends_the_other_logins() {
    let (_shop, address) = Program::start(&mut shop(), LISTENS);
    let (here, there) = (Client::new(address), Client::new(address));
    send(&here, "/signup", "name=Ada&password=correct+horse").await;
    send(&there, "/login", "name=Ada&password=correct+horse").await;
    there.get("/account").await.text();
    let reply = send(&here, "/account/password", "old=wrong+horse&new=battery+staple").await;
    assert_eq!(reply.status, 422);
    assert!(reply.body.contains("That is not your present password."), "{reply:?}");
    there.get("/account").await.text();

    let before = here.cookie(COOKIE);
    let reply = send(&here, "/account/password", "old=correct+horse&new=battery+staple").await;
    assert_eq!(reply.status, 303);
    assert_ne!(here.cookie(COOKIE), before);
    here.get("/account").await.text();
    assert_eq!(there.get("/account").await.header("location"), "/login?next=%2Faccount");
    assert_eq!(send(&there, "/login", "name=Ada&password=correct+horse").await.status, 422);
    assert_eq!(send(&there, "/login", "name=Ada&password=battery+staple").await.status, 303);
}

/// A response that goes on, up to where it says these words.
async fn read_until(connection: &mut TcpStream, words: &str) -> String {
    let mut read = Vec::new();
    loop {
        let mut more = [0; 1024];
        let length = timeout(Duration::from_secs(10), connection.read(&mut more)).await;
        let length = length.unwrap_or_else(|_| panic!("no {words}: {read:?}")).unwrap();
        read.extend(&more[..length]);
        let text = String::from_utf8_lossy(&read);
        if text.contains(words) {
            return text.into_owned();
        }
        assert!(length > 0, "{text}");
    }
}

/// A page that listens.
async fn live(address: SocketAddr, client: &Client) -> TcpStream {
    let mut connection = TcpStream::connect(address).await.unwrap();
    let cookie = client.cookie(COOKIE).unwrap();
    let request = format!(
        "GET /account/live HTTP/1.1\r\nhost: {address}\r\ncookie: {COOKIE}={cookie}\r\n\r\n"
    );
    connection.write_all(request.as_bytes()).await.unwrap();
    read_until(&mut connection, "text/event-stream").await;
    connection
}

#[tokio::test]
async fn an_open_page_is_told_when_its_login_has_ended_in_another_browser() {
    let (shop, address) = Program::start(&mut shop(), LISTENS);
    let (here, there) = (Client::new(address), Client::new(address));
    send(&here, "/signup", "name=Ada&password=correct+horse").await;
    send(&there, "/login", "name=Ada&password=correct+horse").await;
    assert!(here.get("/account").await.text().contains("/account.js"));
    let (mut at_home, mut away) = (live(address, &here).await, live(address, &there).await);
    send(&here, "/account/end-others", "").await;
    read_until(&mut away, "event: ended").await;
    send(&here, "/account/password", "old=correct+horse&new=battery+staple").await;
    read_until(&mut at_home, "event: renewed").await;
    // It holds up nobody who closes the shop.
    let mut at_home = live(address, &here).await;
    let closes = tokio::task::spawn_blocking(move || shop.terminate());
    read_until(&mut at_home, "event: stopping").await;
    drop(at_home);
    assert_eq!(closes.await.unwrap(), Some(0));
}

#[tokio::test]
async fn a_store_that_cannot_tell_where_one_is_logged_in_is_explained() {
    let (_shop, address) = Program::start(shop().args(["--store", "cookie"]), LISTENS);
    let client = Client::new(address);
    send(&client, "/signup", "name=Ada&password=correct+horse").await;
    let page = client.get("/account").await;
    assert!(page.text().contains("So there is no list here"), "{page:?}");
    for action in ["/account/end-others", "/account/end"] {
        assert_eq!(send(&client, action, "session=x").await.status, 303);
    }
    let reply = send(&client, "/account/password", "old=correct+horse&new=battery+staple").await;
    assert_eq!(reply.status, 303);
    assert!(notice(&client).await.contains("Please log out yourself"));
    assert_eq!(send(&client, "/logout", "").await.status, 303);
    assert_eq!(client.get("/account").await.status, 303);
}

#[tokio::test]
async fn sessions_outlive_a_restart_of_the_browser_but_not_of_a_shop_in_memory() {
    let keys = "c2Vzc2lvbnMgb2YgYSB0ZXN0LCBub3Qgb2YgYSBzaG9wIQ==";
    let (first, address) = Program::start(shop().env("SESSION_KEYS", keys), LISTENS);
    let client = Client::new(address);
    client.get("/").await.text();
    assert_eq!(first.terminate(), Some(0));

    let (second, address) = Program::start(shop().env("SESSION_KEYS", keys), LISTENS);
    let same_browser = Client::new(address);
    same_browser.set_cookie(COOKIE, client.cookie(COOKIE).as_deref());
    same_browser.get("/").await.text();
    assert_ne!(same_browser.cookie(COOKIE), client.cookie(COOKIE), "an unknown id was adopted");
    assert_eq!(second.terminate(), Some(0));
}

#[tokio::test]
async fn sessions_in_their_cookies_outlive_the_shop() {
    let keys = "c2Vzc2lvbnMgb2YgYSB0ZXN0LCBub3Qgb2YgYSBzaG9wIQ==";
    let shop = || {
        let mut command = shop();
        command.args(["--store", "cookie"]).env("SESSION_KEYS", keys);
        Program::start(&mut command, LISTENS)
    };
    let (first, address) = shop();
    let browser = Client::new(address);
    browser.get("/products/teapot").await.text();
    assert!(browser.get("/session").await.text().contains("teapot"));
    assert_eq!(first.terminate(), Some(0));

    let (second, address) = shop();
    let same_browser = Client::new(address);
    same_browser.set_cookie(COOKIE, browser.cookie(COOKIE).as_deref());
    assert!(same_browser.get("/session").await.text().contains("teapot"));
    assert_eq!(second.terminate(), Some(0));
}

/// With a store that is durable: the same flag with a server's URL is the same thing.
#[tokio::test]
async fn sessions_in_a_file_outlive_the_shop() {
    let keys = "c2Vzc2lvbnMgb2YgYSB0ZXN0LCBub3Qgb2YgYSBzaG9wIQ==";
    let folder = Folder::new();
    let store = format!("sqlite:{}", folder.path.join("shop.db").display());
    let shop = || {
        let mut command = shop();
        command.args(["--store", &store]).env("SESSION_KEYS", keys);
        Program::start(&mut command, LISTENS)
    };
    let (first, address) = shop();
    let browser = Client::new(address);
    browser.get("/products/teapot").await.text();
    assert!(browser.get("/session").await.text().contains("teapot"));
    // Not asked to end: the power fails, as far as the shop can tell.
    drop(first);

    let (second, address) = shop();
    let same_browser = Client::new(address);
    same_browser.set_cookie(COOKIE, browser.cookie(COOKIE).as_deref());
    assert!(same_browser.get("/session").await.text().contains("teapot"));
    assert_eq!(second.terminate(), Some(0));
}

#[test]
fn a_server_that_is_not_there_is_explained() {
    for url in [
        "redis://127.0.0.1:1",
        "redis-cluster://127.0.0.1:1,127.0.0.1:2",
        "redis-sentinel://127.0.0.1:1,127.0.0.1:2/shop",
        "postgres://127.0.0.1:1/x",
        "memcached://127.0.0.1:1",
    ] {
        let output = shop().args(["--store", url]).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{url}");
        let words = String::from_utf8(output.stderr).unwrap();
        assert!(words.contains("store failed in `connect`: "), "{words}");
    }
}

#[test]
fn wrong_arguments_are_explained() {
    for arguments in [&["--port"][..], &["--port", "many"], &["--prot", "1"]] {
        let output = Command::new(env!("CARGO_BIN_EXE_shop")).args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        let words = String::from_utf8_lossy(&output.stderr);
        assert!(words.contains("--help"), "{words}");
    }
}
