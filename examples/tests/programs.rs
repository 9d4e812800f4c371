//! The examples as a person runs them.

mod support;

use std::process::Command;

use axum::http::Method;
use sessions_tests::{Client, at_once, servers::Folder};

use crate::support::{LISTENS, Program, shop};

const COOKIE: &str = "__Host-id";

#[tokio::test]
async fn the_shop_serves_races_and_ends() {
    let (shop, address) = Program::start(&mut shop(), LISTENS);
    let client = Client::new(address);
    assert!(client.get("/").await.text().contains("<html"));
    assert!(client.cookie(COOKIE).is_some());

    let arrivals = at_once(50, |_| {
        let client = client.clone();
        async move { client.request(Method::POST, "/race/arrive").await.text().to_string() }
    });
    let mut arrivals: Vec<u32> =
        arrivals.await.iter().map(|place| place.parse().expect("a number")).collect();
    arrivals.sort_unstable();
    assert_eq!(arrivals, (1..=50).collect::<Vec<_>>());
    assert_eq!(client.request(Method::POST, "/race/finish").await.text(), "50");

    let before = client.cookie(COOKIE);
    assert_eq!(client.request(Method::POST, "/session/renew").await.status, 303);
    assert_ne!(client.cookie(COOKIE), before);
    assert_eq!(client.request(Method::POST, "/session/forget").await.status, 303);
    assert_eq!(client.cookie(COOKIE), None);
    assert_eq!(shop.terminate(), Some(0));
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
    for url in ["redis://127.0.0.1:1", "postgres://127.0.0.1:1/x", "memcached://127.0.0.1:1"] {
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
