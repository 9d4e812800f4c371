//! Passkeys in Chromium, with an authenticator in software that knows its user.

#[path = "../../tests/support/copies.rs"]
#[allow(dead_code, reason = "another test reads what a recipe needs")]
mod copies;
#[path = "../../tests/support/mod.rs"]
#[allow(dead_code, reason = "the shop's tests also ask it to end")]
mod support;
#[path = "../../tests/webdriver/mod.rs"]
#[allow(dead_code, reason = "the shop's tests do more with a browser")]
mod webdriver;

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    process::Command,
};

use serde_json::{Value, json};

use crate::{support::Program, webdriver::Browser};

const COOKIE: &str = "__Host-id";

struct Visitor {
    browser: Browser,
    authenticator: Value,
}

impl Visitor {
    /// On the page, with a device that has no keys yet.
    fn start(name: &str, address: SocketAddr) -> Option<Self> {
        let browser = Browser::start(name)?;
        browser.devtools("WebAuthn.enable", json!({}));
        let options = json!({
            "protocol": "ctap2", "transport": "internal", "hasResidentKey": true,
            "hasUserVerification": true, "isUserVerified": true,
            "automaticPresenceSimulation": true,
        });
        let added =
            browser.devtools("WebAuthn.addVirtualAuthenticator", json!({ "options": options }));
        browser.go(&format!("http://localhost:{}/", address.port()));
        browser.until("document.querySelector('h1').textContent === 'Hello, nobody'");
        // What the page sends is to be seen.
        browser.script(
            "window.sent = {};
             const fetched = window.fetch;
             window.fetch = (path, options) => {
                 window.sent[path] = options?.body;
                 return fetched(path, options);
             }",
        );
        Some(Self { browser, authenticator: added["authenticatorId"].clone() })
    }

    fn authenticator(&self, command: &str, mut arguments: Value) {
        arguments["authenticatorId"] = self.authenticator.clone();
        self.browser.devtools(&format!("WebAuthn.{command}"), arguments);
    }

    /// Presses a button. What comes of it, and who the page then says that the visitor is.
    fn press(&self, button: &str) -> (String, String) {
        self.browser.click(&format!("#{button}"));
        self.browser.until("document.querySelector('output').textContent");
        let text = |selector| {
            let script = format!("return document.querySelector('{selector}').textContent");
            self.browser.script(&script).as_str().expect("text").to_string()
        };
        (text("output"), text("h1"))
    }

    fn cookie(&self) -> Value {
        self.browser.cookie(COOKIE).expect("a session")["value"].clone()
    }

    /// Sends once more what the page has sent to this path.
    fn repeat(&self, path: &str) -> Value {
        self.browser.script(&format!(
            "const headers = {{ 'content-type': 'application/json' }};
             const options = {{ method: 'POST', headers, body: window.sent['{path}'] }};
             return (await fetch('{path}', options)).status"
        ))
    }
}

fn shows(outcome: &str, name: &str) -> (String, String) {
    (outcome.to_string(), format!("Hello, {name}"))
}

fn send_without_cookie(address: SocketAddr, path: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("it listens");
    let length = body.len();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all((head + body).as_bytes()).expect("it reads");
    let mut reply = String::new();
    stream.read_to_string(&mut reply).expect("it answers, and closes");
    reply
}

#[test]
fn an_account_is_opened_and_logged_in_to_with_a_key_of_the_device_and_nothing_else() {
    let mut command = Command::new(copies::program(env!("CARGO_BIN_EXE_passkeys")));
    let (_program, address): (_, SocketAddr) =
        Program::start(command.arg("0").env_remove("SITE"), "listens on http://");
    // So much without a browser, too.
    let reply = send_without_cookie(address, "/login", r#"{"name":"Ada"}"#);
    assert!(reply.starts_with("HTTP/1.1 404 "), "{reply}");
    let Some(ada) = Visitor::start("ada", address) else { return };

    ada.browser.fill("input", "Ada");
    assert_eq!(ada.press("login"), shows("/login says 404", "nobody"));
    assert_eq!(ada.press("register"), shows("Done.", "Ada"));
    let first = ada.cookie();
    assert_eq!(ada.press("logout"), shows("Done.", "nobody"));
    assert_eq!(ada.press("login"), shows("Done.", "Ada"));
    assert_ne!(ada.cookie(), first);

    // Good once, and of this browser: in another one it begins not even a session.
    assert_eq!(ada.repeat("/login/finish"), 403);
    assert_eq!(ada.repeat("/register/finish"), 403);
    assert_eq!(ada.press("logout"), shows("Done.", "nobody"));
    assert_eq!(ada.repeat("/login/finish"), 403);
    let old = ada.browser.script("return window.sent['/login/finish']");
    let old = old.as_str().expect("JSON").to_string();
    let reply = send_without_cookie(address, "/login/finish", &old);
    assert!(reply.starts_with("HTTP/1.1 403 ") && !reply.contains("set-cookie:"), "{reply}");
    // Nor to another question of the same browser.
    assert_eq!(ada.repeat("/login"), 200);
    assert_eq!(ada.repeat("/login/finish"), 403);

    // The device does not know who holds it.
    ada.authenticator("setUserVerified", json!({ "isUserVerified": false }));
    let (outcome, hello) = ada.press("login");
    assert!(outcome != "Done." && hello == "Hello, nobody", "{outcome}");
    ada.authenticator("setUserVerified", json!({ "isUserVerified": true }));
    assert_eq!(ada.press("login"), shows("Done.", "Ada"));

    // Somebody else, with a device of their own.
    let Some(eve) = Visitor::start("eve", address) else { return };
    eve.browser.fill("input", "Ada");
    assert_eq!(eve.press("register"), shows("/register says 409", "nobody"));
    let (outcome, hello) = eve.press("login");
    assert!(outcome != "Done." && hello == "Hello, nobody", "{outcome}");
    eve.browser.fill("input", "Eve");
    assert_eq!(eve.press("register"), shows("Done.", "Eve"));
    // And an end for the first one, whose next page knows nobody.
    assert_eq!(ada.press("logout"), shows("Done.", "nobody"));
}
