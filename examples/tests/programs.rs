//! The examples as a person runs them.

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    process::{Child, Command, Stdio},
};

use axum::http::Method;
use sessions_tests::{Client, at_once};

const COOKIE: &str = "__Host-id";

/// A running program, killed when the test is over.
struct Program(Child);

impl Program {
    /// Starts it, and waits for the line that says where it listens.
    fn start(command: &mut Command) -> (Self, SocketAddr) {
        let mut child = command.stdout(Stdio::piped()).spawn().expect("the program starts");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("it is piped");
        BufReader::new(stdout).read_line(&mut line).expect("a line");
        let (_, address) = line.trim().split_once("http://").expect("an address");
        (Self(child), address.parse().expect("an address"))
    }

    fn terminate(mut self) -> Option<i32> {
        let pid = self.0.id().to_string();
        Command::new("kill").arg(pid).status().expect("kill is everywhere");
        self.0.wait().expect("it ends").code()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
    }
}

fn shop() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_shop"));
    command.args(["--port", "0"]).env_remove("SESSION_KEYS");
    command
}

#[tokio::test]
async fn the_shop_serves_races_and_ends() {
    let (shop, address) = Program::start(&mut shop());
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
    let (first, address) = Program::start(shop().env("SESSION_KEYS", keys));
    let client = Client::new(address);
    client.get("/").await.text();
    assert_eq!(first.terminate(), Some(0));

    let (second, address) = Program::start(shop().env("SESSION_KEYS", keys));
    let same_browser = Client::new(address);
    same_browser.set_cookie(COOKIE, client.cookie(COOKIE).as_deref());
    same_browser.get("/").await.text();
    assert_ne!(same_browser.cookie(COOKIE), client.cookie(COOKIE), "an unknown id was adopted");
    assert_eq!(second.terminate(), Some(0));
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
