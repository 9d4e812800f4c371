//! A headless Chromium, driven through the WebDriver protocol as far as the tests need it.

use std::{
    env, fs,
    io::{self, BufRead, BufReader, Read, Write, stderr},
    net::{Ipv4Addr, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    sync::Once,
    thread::sleep,
    time::{Duration, Instant},
};

use base64::prelude::{BASE64_STANDARD, Engine};
use serde_json::{Value, json};

use crate::support::Program;

/// `1` demands the browser, `0` leaves it out; without it, the tests run where there is one.
const SWITCH: &str = "SESSIONS_TEST_BROWSER";

/// How long anything may take. It only bounds the wait for something that will never come.
const PATIENCE: Duration = Duration::from_secs(60);

/// Nothing goes beyond loopback: no name but `localhost` has an address, and what Chromium would do
/// of its own accord is off.
const FLAGS: [&str; 13] = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-default-apps",
    "--no-proxy-server",
    "--hide-scrollbars",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1",
];

/// What a command came to: its value, or the driver's words.
type Outcome = Result<Value, String>;

/// One browser with a profile of its own, and the driver that steers it.
pub(crate) struct Browser {
    /// Under which path the driver knows the running browser.
    session: String,
    driver_port: u16,
    _driver: Program,
    profile: Profile,
    /// Cookies of other sites than the page's are blocked.
    is_blocking: bool,
    /// Beside the usual flags.
    more_flags: Vec<String>,
}

/// The folder where a browser keeps its cookies, removed when the test is over.
struct Profile(PathBuf);

impl Drop for Profile {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl Browser {
    /// Opens a browser with a fresh profile. `None`, and a word on the standard error, where there
    /// is no browser and nobody demands one.
    pub(crate) fn start(name: &str) -> Option<Self> {
        Self::start_with(name, false, Vec::new())
    }

    /// The same, with a browser that blocks the cookies of other sites than the page's.
    pub(crate) fn start_blocking(name: &str) -> Option<Self> {
        Self::start_with(name, true, Vec::new())
    }

    /// The same as [`start`](Self::start), with more flags.
    pub(crate) fn start_flagged(name: &str, flags: Vec<String>) -> Option<Self> {
        Self::start_with(name, false, flags)
    }

    fn start_with(name: &str, is_blocking: bool, more_flags: Vec<String>) -> Option<Self> {
        let switch = env::var(SWITCH).unwrap_or_default();
        if switch == "0" {
            return left_out(&format!("{SWITCH} is 0"));
        }
        for program in ["chromedriver", "chromium"] {
            if !is_on_the_path(program) {
                assert_ne!(switch, "1", "{SWITCH} is 1, but there is no `{program}` on the PATH");
                return left_out(&format!("there is no `{program}` on the PATH"));
            }
        }
        let profile = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let profile = Profile(profile.join(format!("browser-{}-{name}", std::process::id())));
        fs::create_dir_all(&profile.0).expect("a folder for the profile");
        // Chromium keeps some things at home, whatever folder its profile is in.
        let mut command = Command::new("chromedriver");
        let command = command.arg("--port=0").env("HOME", &profile.0);
        let (driver, driver_port) = Program::start(command, "successfully on port ");
        let session = String::new();
        let mut browser =
            Self { session, driver_port, _driver: driver, profile, is_blocking, more_flags };
        browser.open();
        Some(browser)
    }

    /// Closes the browser, and opens it again with what it keeps.
    pub(crate) fn restart(&mut self) {
        self.close().expect("the browser closes");
        self.open();
    }

    fn open(&mut self) {
        let mut flags = FLAGS.map(String::from).to_vec();
        flags.push(format!("--user-data-dir={}", self.profile.0.display()));
        flags.extend(self.more_flags.iter().cloned());
        // Unless a test is about that, cookies of other sites are let through, so that `SameSite` alone
        // decides.
        let settings = json!({ "profile.cookie_controls_mode": u8::from(self.is_blocking) });
        let wishes = json!({
            "goog:chromeOptions": { "args": flags, "prefs": settings },
            "goog:loggingPrefs": { "browser": "ALL" },
        });
        let opened = self.post("/session", json!({ "capabilities": { "alwaysMatch": wishes } }));
        self.session = format!("/session/{}", text(&opened["sessionId"]));
    }

    fn close(&self) -> Outcome {
        self.send("DELETE", &self.session, "")
    }

    /// Opens an address, as if it were typed, and waits until it is loaded.
    pub(crate) fn go(&self, address: &str) {
        self.command("/url", json!({ "url": address }));
    }

    /// What a script in the page returns, or what its promise comes to.
    pub(crate) fn script(&self, script: &str) -> Value {
        self.command("/execute/sync", json!({ "script": script, "args": [] }))
    }

    /// Waits until an expression in the page is true. A page that is just leaving is no answer.
    pub(crate) fn until(&self, expression: &str) {
        let path = format!("{}/execute/sync", self.session);
        let body = json!({ "script": format!("return !!({expression})"), "args": [] }).to_string();
        let began = Instant::now();
        let mut last = self.send("POST", &path, &body);
        while last != Ok(Value::Bool(true)) {
            assert!(began.elapsed() < PATIENCE, "`{expression}` never came true: {last:?}");
            sleep(Duration::from_millis(20));
            last = self.send("POST", &path, &body);
        }
    }

    /// Clicks on what a CSS selector finds.
    pub(crate) fn click(&self, selector: &str) {
        self.command(&format!("{}/click", self.find(selector)), json!({}));
    }

    /// Clicks on what leads to another page, and waits until that is loaded.
    pub(crate) fn follow(&self, selector: &str) {
        self.leave(|| self.click(selector));
    }

    /// Lets a script lead to another page, and waits until that is loaded.
    pub(crate) fn follow_script(&self, script: &str) {
        self.leave(|| drop(self.script(script)));
    }

    fn leave(&self, act: impl FnOnce()) {
        self.script("window.isLeft = true");
        act();
        self.until("!window.isLeft && document.readyState === 'complete'");
    }

    /// Types into a field that is empty, or is emptied first.
    pub(crate) fn fill(&self, selector: &str, words: &str) {
        let field = self.find(selector);
        self.command(&format!("{field}/clear"), json!({}));
        self.command(&format!("{field}/value"), json!({ "text": words }));
    }

    fn find(&self, selector: &str) -> String {
        let found = self.command("/element", json!({ "using": "css selector", "value": selector }));
        // The protocol names elements with this key.
        format!("/element/{}", text(&found["element-6066-11e4-a52e-4f735466cecf"]))
    }

    /// The cookie that this page's server would be sent, as the browser keeps it.
    pub(crate) fn cookie(&self, name: &str) -> Option<Value> {
        let cookies = self.get("/cookie");
        cookies.as_array()?.iter().find(|cookie| cookie["name"] == name).cloned()
    }

    /// Puts a cookie of this page's server into the browser.
    pub(crate) fn set_cookie(&self, cookie: &Value) {
        self.command("/cookie", json!({ "cookie": cookie }));
    }

    /// Clears the cookies of this page's server.
    pub(crate) fn clear_cookies(&self) {
        let path = format!("{}/cookie", self.session);
        self.send("DELETE", &path, "").expect("the cookies go");
    }

    /// The tab that is steered now.
    pub(crate) fn tab(&self) -> Value {
        self.get("/window")
    }

    /// Opens another tab, and steers that one.
    pub(crate) fn open_tab(&self) -> Value {
        let tab = self.command("/window/new", json!({ "type": "tab" }))["handle"].clone();
        self.switch_to(&tab);
        tab
    }

    /// Steers this tab.
    pub(crate) fn switch_to(&self, tab: &Value) {
        self.command("/window", json!({ "handle": tab }));
    }

    /// Gives the page a width, and the colours that its reader prefers, `light` or `dark`.
    pub(crate) fn look(&self, width: u32, colours: &str) {
        self.devtools(
            "Emulation.setDeviceMetricsOverride",
            json!({ "width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600 }),
        );
        let preference = json!({ "name": "prefers-color-scheme", "value": colours });
        self.devtools("Emulation.setEmulatedMedia", json!({ "features": [preference] }));
    }

    /// The whole page as PNG, also what lies below the window.
    pub(crate) fn screenshot(&self) -> Vec<u8> {
        let size = &self.devtools("Page.getLayoutMetrics", json!({}))["cssContentSize"];
        let clip = json!({
            "x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1,
        });
        let picture = self.devtools(
            "Page.captureScreenshot",
            json!({ "format": "png", "captureBeyondViewport": true, "clip": clip }),
        );
        BASE64_STANDARD.decode(text(&picture["data"])).expect("base64")
    }

    /// What the pages have complained of since the last call: broken scripts, blocked resources.
    pub(crate) fn complaints(&self) -> Vec<Value> {
        let mut complaints = self.command("/se/log", json!({ "type": "browser" }));
        complaints.as_array_mut().map(std::mem::take).expect("a list")
    }

    /// A command of Chromium's own protocol.
    pub(crate) fn devtools(&self, command: &str, arguments: Value) -> Value {
        self.command("/goog/cdp/execute", json!({ "cmd": command, "params": arguments }))
    }

    #[track_caller]
    fn get(&self, path: &str) -> Value {
        let path = format!("{}{path}", self.session);
        self.send("GET", &path, "").unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    #[track_caller]
    fn command(&self, path: &str, body: Value) -> Value {
        self.post(&format!("{}{path}", self.session), body)
    }

    #[track_caller]
    fn post(&self, path: &str, body: Value) -> Value {
        let body = body.to_string();
        self.send("POST", path, &body).unwrap_or_else(|error| panic!("{path} {body}: {error}"))
    }

    fn send(&self, method: &str, path: &str, body: &str) -> Outcome {
        let reply = self.exchange(method, path, body);
        let (status, body) = reply.map_err(|error| format!("the driver is silent: {error}"))?;
        let mut reply: Value = serde_json::from_slice(&body).map_err(|error| error.to_string())?;
        match status.contains(" 200 ") {
            true => Ok(reply["value"].take()),
            false => Err(reply["value"]["message"].to_string()),
        }
    }

    /// One request to the driver, on a connection of its own: the status line and the body.
    fn exchange(&self, method: &str, path: &str, body: &str) -> io::Result<(String, Vec<u8>)> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.driver_port))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        stream.write_all(request.as_bytes())?;

        let mut reply = BufReader::new(stream);
        let (mut status, mut length) = (String::new(), 0);
        reply.read_line(&mut status)?;
        loop {
            let mut line = String::new();
            reply.read_line(&mut line)?;
            match line.trim_end().to_ascii_lowercase().split_once(':') {
                Some(("content-length", value)) => {
                    length = value.trim().parse().map_err(io::Error::other)?;
                }
                Some(_) => {}
                None => break,
            }
        }
        let mut body = vec![0; length];
        reply.read_exact(&mut body)?;
        Ok((status, body))
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Or the browser would outlive its driver, which is killed next.
        let _ = self.send("GET", "/shutdown", "");
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("a string, not {value}"))
}

fn is_on_the_path(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// Says it past the test harness, which shows the words of failed tests only.
fn left_out<T>(why: &str) -> Option<T> {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let _ = writeln!(stderr(), "the browser tests are left out: {why}");
    });
    None
}
