//! The shop in a real browser, used as a person would: Debian's `chromium` and `chromium-driver`.
//! Where there is none, the tests say so and pass; `SESSIONS_TEST_BROWSER=1` demands it, and
//! `SESSIONS_TEST_BROWSER=0` leaves them out.

#[path = "support/copies.rs"]
#[allow(dead_code, reason = "another test reads what a recipe needs")]
mod copies;
#[path = "browser/devices.rs"]
mod devices;
#[path = "browser/frames.rs"]
mod frames;
#[path = "browser/logins.rs"]
mod logins;
#[path = "support/provider.rs"]
mod provider;
#[path = "support/shop.rs"]
mod shop;
#[path = "browser/streams.rs"]
mod streams;
mod support;
mod webdriver;

use std::{
    env, fs,
    io::{Write, stderr},
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    thread::sleep,
    time::{Duration, SystemTime},
};

use serde_json::{Value, json};

use crate::{
    shop::{LISTENS, shop},
    support::Program,
    webdriver::Browser,
};

const COOKIE: &str = "__Host-id";

/// Somebody with a browser, in front of the shop.
struct Visitor {
    browser: Browser,
    shop: Arc<Program>,
    port: u16,
}

const PASSWORD: &str = "correct horse";

impl Visitor {
    /// `None` where there is no browser. The name is the test's, for its profile.
    fn start(name: &str) -> Option<Self> {
        Self::start_with(name, &[])
    }

    /// In front of a shop with these arguments.
    fn start_with(name: &str, arguments: &[&str]) -> Option<Self> {
        let browser = Browser::start(name)?;
        let (shop, address): (_, SocketAddr) = Program::start(shop().args(arguments), LISTENS);
        Some(Self { browser, shop: Arc::new(shop), port: address.port() })
    }

    /// Somebody with another browser, in front of the same shop.
    fn another(&self, name: &str) -> Option<Self> {
        Some(Self { browser: Browser::start(name)?, shop: self.shop.clone(), port: self.port })
    }

    /// Fills in the form for a name and a password, on the page that is open, and sends it.
    fn identify(&self, action: &str, name: &str, password: &str) {
        self.browser.fill("#name", name);
        self.browser.fill("#password", password);
        self.browser.follow(&format!(r#"form[action="{action}"] .main"#));
    }

    /// Where the browser is, and what the page is headed with.
    fn place(&self) -> (String, String) {
        let path = self.browser.script("return location.pathname");
        (path.as_str().expect("text").to_string(), self.text("h1"))
    }

    /// The devices that the account page shows.
    fn devices(&self) -> usize {
        self.open("/account");
        let count = "return document.querySelectorAll('.devices > li').length";
        self.browser.script(count).as_u64().expect("a number") as usize
    }

    fn is_asked_to_log_in(&self, path: &str) {
        self.open(path);
        assert_eq!(self.place(), ("/login".to_string(), "Log in".to_string()));
    }

    fn open(&self, path: &str) {
        self.browser.go(&format!("http://localhost:{}{path}", self.port));
    }

    fn reload(&self) {
        self.browser.follow_script("location.reload()");
    }

    /// Presses the button of the form that is sent to this address.
    fn press(&self, action: &str) {
        self.browser.follow(&format!(r#"form[action="{action}"] button"#));
    }

    /// From the front page into the cart.
    fn add(&self, product: &str) {
        self.open("/");
        self.browser.follow(&format!(r#"[aria-label="Add {product} to the cart"]"#));
    }

    fn text(&self, selector: &str) -> String {
        let selector = json!(selector);
        let text =
            self.browser.script(&format!("return document.querySelector({selector}).innerText"));
        text.as_str().expect("text").trim().to_string()
    }

    fn pieces_in_cart(&self) -> String {
        self.text(".badge")
    }

    /// Whether the page that is open is the first of its session.
    fn is_new(&self) -> bool {
        self.text("footer").contains("the first page that you open here")
    }

    fn cookie(&self) -> Option<Value> {
        self.browser.cookie(COOKIE)
    }

    fn cookie_value(&self) -> String {
        self.cookie().expect("a cookie")["value"].as_str().expect("text").to_string()
    }

    /// Puts back a value that the cookie once had.
    fn plant(&self, value: &str) {
        let cookie = json!({
            "name": COOKIE, "value": value, "path": "/",
            "secure": true, "httpOnly": true, "sameSite": "Lax",
        });
        self.browser.set_cookie(&cookie);
        assert_eq!(self.cookie_value(), value);
    }
}

#[test]
fn the_cookie_is_a_host_cookie_that_no_script_can_read() {
    let Some(visitor) = Visitor::start("host_cookie") else { return };
    visitor.open("/");
    let cookie = visitor.cookie().expect("a cookie from localhost, without TLS");
    for (attribute, value) in [
        ("domain", json!("localhost")),
        ("path", json!("/")),
        ("secure", json!(true)),
        ("httpOnly", json!(true)),
        ("sameSite", json!("Lax")),
        ("expiry", Value::Null),
    ] {
        assert_eq!(cookie[attribute], value, "{attribute}: {cookie}");
    }
    // A script cannot replace the cookie: it is `HttpOnly`. Nor can it put one of the name before
    // it, for the pages below a path: with the prefix `__Host-`, a cookie is for all of the host.
    for path in ["/", "/cart"] {
        let forge = format!("document.cookie = '{COOKIE}=forged; Secure; Path={path}'");
        visitor.browser.script(&forge);
    }
    visitor.add("Morning mug");
    assert_eq!(visitor.browser.script("return location.pathname"), "/cart");
    assert_eq!(visitor.browser.script("return document.cookie"), "");
    assert_eq!(visitor.cookie(), Some(cookie));
    assert_eq!(visitor.pieces_in_cart(), "1");
    let shop = Arc::into_inner(visitor.shop).expect("nobody else is in front of it");
    assert_eq!(shop.terminate(), Some(0), "the shop ends while a browser is connected");
}

#[test]
fn the_cookie_does_not_come_along_from_other_sites() {
    let Some(visitor) = Visitor::start("other_sites") else { return };
    let Visitor { browser, port, .. } = &visitor;
    visitor.add("Morning mug");
    let cookie = visitor.cookie_value();

    // The same shop under another name is another site to the browser, with a cookie of its own.
    // The shop's pages do nothing to other sites, so this one is freed from the shop's policy.
    let other_site = || {
        browser.devtools("Page.setBypassCSP", json!({ "enabled": true }));
        browser.go(&format!("http://127.0.0.1:{port}/"));
    };
    other_site();
    assert_ne!(visitor.cookie_value(), cookie);
    assert_eq!(visitor.pieces_in_cart(), "0");

    // What a page does by itself carries no cookie, and what comes back sets none.
    let request = "method: 'POST', mode: 'no-cors', credentials: 'include', \
                   body: new URLSearchParams({ product: 'vase', pieces: 9 })";
    let fetch =
        format!("return (await fetch('http://localhost:{port}/cart/add', {{ {request} }})).type");
    assert_eq!(browser.script(&fetch), "opaque", "the request has arrived");

    // A link does carry it: a visitor who follows one is still known to the shop.
    browser.follow_script(&format!("location = 'http://localhost:{port}/cart'"));
    assert_eq!(visitor.cookie_value(), cookie);
    assert_eq!(visitor.pieces_in_cart(), "1");

    // A form does not. The shop refuses it, in words, and neither changes nor begins a session.
    other_site();
    browser.follow_script(&format!(
        "const form = document.querySelector('form[action=\"/cart/add\"]');
         form.action = 'http://localhost:{port}/cart/add';
         form.submit()"
    ));
    assert_eq!(visitor.text("h1"), "That was not done");
    assert!(visitor.text(".lead").contains("This request came from another site."));
    assert_eq!(visitor.cookie_value(), cookie);
    visitor.open("/cart");
    assert_eq!(visitor.pieces_in_cart(), "1");
}

#[test]
fn a_form_of_a_neighbour_in_the_same_site_changes_nothing() {
    let Some(visitor) = Visitor::start("neighbour") else { return };
    let (_neighbour, address): (_, SocketAddr) = Program::start(&mut shop(), LISTENS);
    let Visitor { browser, port, .. } = &visitor;
    visitor.add("Morning mug");
    let cookie = visitor.cookie_value();
    // Neither a site nor its cookies have a port: from here the cookie does come along.
    browser.devtools("Page.setBypassCSP", json!({ "enabled": true }));
    browser.go(&format!("http://localhost:{}/", address.port()));
    visitor.plant(&cookie);
    browser.follow_script(&format!(
        "const form = document.querySelector('form[action=\"/cart/add\"]');
         form.action = 'http://localhost:{port}/cart/add';
         form.submit()"
    ));
    assert_eq!(visitor.text("h1"), "That was not done");
    assert_eq!(visitor.cookie_value(), cookie);
    visitor.open("/cart");
    assert_eq!(visitor.pieces_in_cart(), "1");
}

#[test]
fn fifty_requests_race_and_none_is_lost() {
    let Some(visitor) = Visitor::start("race") else { return };
    let browser = &visitor.browser;
    visitor.open("/race");
    let first_tab = browser.tab();
    for _ in 0..2 {
        browser.click("#start");
        // The cart, in another tab, gets along with a race.
        browser.open_tab();
        visitor.add("Soup bowl");
        browser.switch_to(&first_tab);
        browser.until("!document.querySelector('#start').ariaDisabled");
        let result = visitor.text("#result");
        assert!(result.starts_with("50 of 50 arrived, none was lost."), "{result}");
        let places = browser.script(
            "return [...document.querySelectorAll('#track .in')]
                .map(lane => Number(lane.textContent)).sort((a, b) => a - b)",
        );
        assert_eq!(places, json!((1..=50).collect::<Vec<_>>()));
    }
    visitor.reload();
    assert_eq!(visitor.pieces_in_cart(), "2");
}

#[test]
fn theme_and_cart_outlive_a_reload() {
    let Some(visitor) = Visitor::start("reload") else { return };
    let browser = &visitor.browser;
    visitor.add("Milk jug");
    let mut grounds = vec![];
    for theme in ["dark", "light"] {
        browser.follow(&format!(r#".theme [value="{theme}"]"#));
        assert_eq!(visitor.text("h1"), "Your cart", "choosing a theme leads back to the page");
        visitor.reload();
        assert_eq!(visitor.pieces_in_cart(), "1");
        assert_eq!(browser.script("return document.documentElement.className"), theme);
        grounds.push(browser.script("return getComputedStyle(document.body).backgroundColor"));
    }
    assert_ne!(grounds[0], grounds[1], "the themes look different");

    browser.fill("[name=pieces]", "12");
    visitor.press("/cart/set");
    assert_eq!(visitor.text(".notice"), "Now in your cart: 12 × Milk jug.");
    visitor.reload();
    assert_eq!(visitor.pieces_in_cart(), "12");
    assert_eq!(visitor.text("[role=status]"), "", "a notice is shown once");
}

#[test]
fn two_tabs_share_a_session() {
    let Some(visitor) = Visitor::start("tabs") else { return };
    let browser = &visitor.browser;
    visitor.open("/cart");
    let (first, cookie) = (browser.tab(), visitor.cookie_value());
    let second = browser.open_tab();
    visitor.add("Bud vase");
    assert_eq!(visitor.cookie_value(), cookie);

    browser.switch_to(&first);
    assert_eq!(visitor.pieces_in_cart(), "0", "the first tab does not know yet");
    visitor.reload();
    assert_eq!(visitor.pieces_in_cart(), "1");
    visitor.add("Candle holder");

    // The second tab still shows one product, and changes that one only.
    browser.switch_to(&second);
    browser.fill("[name=pieces]", "5");
    visitor.press("/cart/set");
    assert_eq!(visitor.pieces_in_cart(), "6");
}

#[test]
fn cleared_cookies_begin_a_new_session() {
    let Some(visitor) = Visitor::start("cleared") else { return };
    visitor.add("Round teapot");
    visitor.browser.follow(r#".theme [value="dark"]"#);
    let cookie = visitor.cookie_value();
    visitor.browser.clear_cookies();
    assert_eq!(visitor.cookie(), None);

    // In the middle: the page is still open, and its form belongs to no session any more.
    visitor.press("/cart/set");
    assert!(visitor.text(".lead").contains("This page is out of date."));
    assert_eq!(visitor.cookie(), None, "what is refused begins no session");
    visitor.browser.follow(".main");
    assert!(visitor.is_new());
    assert_eq!(visitor.pieces_in_cart(), "0");
    assert_eq!(visitor.browser.script("return document.documentElement.className"), "auto");
    assert_ne!(visitor.cookie_value(), cookie);
}

#[test]
fn a_session_ends_with_the_browser_unless_it_is_remembered() {
    let Some(mut visitor) = Visitor::start("remembered") else { return };
    visitor.add("Window planter");
    visitor.browser.restart();
    visitor.open("/forgotten");
    assert_eq!(visitor.cookie(), None, "it went with the browser");
    visitor.open("/cart");
    assert!(visitor.is_new());
    assert_eq!(visitor.pieces_in_cart(), "0");

    visitor.add("Window planter");
    visitor.open("/session");
    visitor.press("/session/remember");
    let cookie = visitor.cookie().expect("a cookie");
    let now = SystemTime::UNIX_EPOCH.elapsed().expect("a clock").as_secs();
    let days = (cookie["expiry"].as_u64().expect("a time") - now) / (24 * 60 * 60);
    assert!((29..=30).contains(&days), "{days}");
    visitor.browser.restart();
    visitor.open("/cart");
    assert_eq!(visitor.cookie_value(), cookie["value"], "it stayed, and opens the session");
    assert_eq!(visitor.pieces_in_cart(), "1");

    visitor.open("/session");
    visitor.press("/session/remember");
    assert_eq!(visitor.cookie().expect("a cookie")["expiry"], Value::Null);
    visitor.browser.restart();
    visitor.open("/cart");
    assert!(visitor.is_new());
}

#[test]
fn after_a_renewal_the_old_cookie_opens_nothing() {
    let Some(visitor) = Visitor::start("renewed") else { return };
    visitor.add("Speckled plate");
    let old = visitor.cookie_value();
    visitor.open("/session");
    visitor.press("/session/renew");
    let new = visitor.cookie_value();
    assert_ne!(new, old);
    assert_eq!(visitor.pieces_in_cart(), "1", "the session is the same");

    // As a tab that was a moment too late: there are pages, and nothing in them.
    visitor.plant(&old);
    for path in ["/cart", "/session"] {
        visitor.open(path);
        assert_eq!(visitor.place().0, path);
        assert_eq!(visitor.pieces_in_cart(), "0");
    }
    visitor.add("Window planter");
    assert_eq!(visitor.pieces_in_cart(), "0", "an ended id is never adopted");
    assert_eq!(visitor.cookie_value(), old, "the new cookie would still be there");

    visitor.plant(&new);
    visitor.open("/cart");
    assert_eq!(visitor.pieces_in_cart(), "1");
}

#[test]
fn whoever_is_forgotten_stays_so() {
    let Some(visitor) = Visitor::start("forgotten") else { return };
    visitor.add("Soup bowl");
    let old = visitor.cookie_value();
    visitor.open("/session");
    visitor.press("/session/forget");
    assert_eq!(visitor.text("h1"), "You are forgotten");
    assert_eq!(visitor.cookie(), None);
    visitor.reload();
    assert_eq!(visitor.cookie(), None, "a page that only reads begins no session");

    visitor.plant(&old);
    visitor.open("/cart");
    assert!(visitor.is_new());
    assert_eq!(visitor.pieces_in_cart(), "0");
    assert_ne!(visitor.cookie_value(), old);
}

#[test]
fn one_customer_on_two_devices() {
    let Some(laptop) = Visitor::start("laptop") else { return };
    let Some(phone) = laptop.another("phone") else { return };
    laptop.add("Morning mug");
    let planted = laptop.cookie_value();
    laptop.open("/signup");
    laptop.identify("/signup", "Ada", PASSWORD);
    assert_eq!(laptop.place().0, "/account");
    assert!(laptop.text(".notice").starts_with("Welcome, Ada!"));
    assert_eq!(laptop.pieces_in_cart(), "1", "the cart came along");
    assert_eq!(laptop.text("nav [aria-current]"), "Account");
    assert_eq!(laptop.cookie().expect("a cookie")["expiry"], Value::Null);
    let laptops = laptop.cookie_value();
    assert_eq!(laptop.devices(), 1);

    // Who had this cookie before the login has nothing.
    laptop.plant(&planted);
    laptop.is_asked_to_log_in("/account");
    assert_eq!(laptop.pieces_in_cart(), "0");
    laptop.plant(&laptops);

    let log_in = || {
        phone.is_asked_to_log_in("/account");
        phone.browser.click("[name=remember]");
        phone.identify("/login", "ada", PASSWORD);
    };
    log_in();
    assert_eq!(phone.text(".notice"), "Welcome back, Ada!");
    assert!(phone.cookie().expect("a cookie")["expiry"].is_u64(), "it is remembered");
    phone.add("Soup bowl");
    for device in [&laptop, &phone] {
        assert_eq!(device.devices(), 2);
        assert_eq!(device.text("li:has(.this) h3"), "Chrome on Linux");
        assert!(device.text("footer").starts_with("You are logged in as Ada."));
        assert_eq!(device.pieces_in_cart(), "1", "each has its own session");
    }

    // Everywhere else, which is the phone. It is remembered by the browser, and not by the shop.
    laptop.press("/account/end-others");
    assert_eq!(laptop.text(".notice"), "One other login has ended.");
    assert_eq!(laptop.devices(), 1);
    phone.is_asked_to_log_in("/account");
    assert_eq!(phone.pieces_in_cart(), "0");
    assert_eq!(laptop.pieces_in_cart(), "1");

    // This one, and no other.
    log_in();
    assert_eq!(laptop.devices(), 2);
    laptop.press("/account/end");
    assert_eq!(laptop.text(".notice"), "That device is logged out.");
    assert_eq!(laptop.devices(), 1);
    phone.is_asked_to_log_in("/account");

    log_in();
    laptop.open("/account");
    laptop.press("/logout");
    assert_eq!(
        (laptop.place().0, laptop.text(".notice")),
        ("/".into(), "You are logged out.".into())
    );
    assert_eq!(laptop.pieces_in_cart(), "0");
    laptop.plant(&laptops);
    laptop.is_asked_to_log_in("/account");
    assert_eq!(phone.devices(), 1, "the phone is still logged in");
}

/// The browser keeps the page that was left, and gives it back unless the page said `no-store` and the logout
/// took away the cookie.
#[test]
fn after_a_logout_the_back_button_asks_the_shop() {
    let Some(visitor) = Visitor::start("back") else { return };
    visitor.open("/signup");
    visitor.identify("/signup", "Ada", PASSWORD);
    assert_eq!(visitor.place().0, "/account");
    visitor.press("/logout");
    assert_eq!(visitor.text(".notice"), "You are logged out.");
    visitor.browser.follow_script("history.back()");
    assert_eq!(visitor.place(), ("/login".to_string(), "Log in".to_string()));
}

#[test]
fn the_checkout_asks_for_a_fresh_login() {
    let Some(visitor) = Visitor::start_with("checkout", &["--recent-login", "10"]) else { return };
    visitor.add("Round teapot");
    visitor.browser.follow(r#"[href="/checkout"]"#);
    assert_eq!(visitor.place().0, "/login");
    visitor.browser.follow(r#"[href^="/signup"]"#);
    visitor.identify("/signup", "Ada", PASSWORD);
    assert_eq!(visitor.place().0, "/checkout", "that is where it was to lead");
    let planted = visitor.cookie_value();

    // The page is left open for too long.
    sleep(Duration::from_secs(11));
    visitor.press("/checkout");
    assert_eq!(visitor.place().0, "/login");
    visitor.open("/account");
    assert_eq!(visitor.place().0, "/account", "for the rest the login is good");
    visitor.is_asked_to_log_in("/checkout");
    assert!(visitor.text(".lead").starts_with("You are logged in as Ada."));
    assert_eq!(visitor.pieces_in_cart(), "1", "nothing has been ordered");
    visitor.browser.fill("#password", "wrong horse");
    visitor.browser.follow(".main");
    assert_eq!(
        visitor.text("[role=alert]"),
        "There is no account with this name and this password."
    );
    assert_eq!(visitor.browser.script("return document.querySelector('#name').value"), "Ada");
    visitor.browser.fill("#password", PASSWORD);
    visitor.browser.follow(".main");
    assert_eq!(visitor.place().0, "/checkout");
    assert_ne!(visitor.cookie_value(), planted, "this login renews the id as well");
    visitor.press("/checkout");
    let notice = visitor.text(".notice");
    assert_eq!(notice, "Thank you, Ada! Your order: 1 piece for € 74.00.");
    assert_eq!(visitor.pieces_in_cart(), "0");
}

#[test]
fn every_page_fits_its_window() {
    let Some(visitor) = Visitor::start("pages") else { return };
    let folder = screenshots();
    fs::create_dir_all(&folder).expect("a folder for the screenshots");
    let shoot = |name: &str| {
        for (width, colours) in [(1280, "light"), (1280, "dark"), (360, "light"), (360, "dark")] {
            visitor.browser.look(width, colours);
            let file = folder.join(format!("{name}-{width}-{colours}.png"));
            fs::write(file, visitor.browser.screenshot()).expect("a file");
            let wide = visitor.browser.script("return document.documentElement.scrollWidth");
            assert_eq!(wide, width, "{name} does not fit");
        }
        let complaints = visitor.browser.complaints();
        let is_refusal = ["not-found", "refused", "login-refused"].contains(&name);
        assert!(is_refusal || complaints.is_empty(), "{name}: {complaints:?}");
    };

    visitor.open("/");
    shoot("shop");
    visitor.open("/cart");
    shoot("cart-empty");
    for product in ["teapot", "vase", "bowl", "plate", "candle"] {
        visitor.open(&format!("/products/{product}"));
    }
    shoot("product");
    for product in ["Round teapot", "Window planter", "Candle holder"] {
        visitor.add(product);
    }
    visitor.browser.fill("[name=pieces]", "99");
    visitor.press("/cart/set");
    shoot("cart");
    visitor.open("/products/teapot");
    shoot("product-in-cart");
    visitor.open("/");
    shoot("shop-later");
    visitor.open("/session");
    shoot("session");
    visitor.browser.fill("#name", "Anne-Sophie Wilhelmina von Hohenzollern");
    visitor.press("/session/name");
    visitor.press("/session/remember");
    shoot("session-remembered");
    visitor.open("/race");
    shoot("race");
    visitor.browser.click("#start");
    visitor.browser.until("document.querySelector('#result.good')");
    shoot("race-finished");
    visitor.open("/nowhere");
    shoot("not-found");
    visitor.open("/login");
    shoot("login");
    visitor.identify("/login", "Anne-Sophie", PASSWORD);
    shoot("login-refused");
    visitor.open("/signup");
    shoot("signup");
    visitor.identify("/signup", "Anne-Sophie W. von Hohenzollern-Hechingen", PASSWORD);
    shoot("account");
    let Some(another) = visitor.another("pages_another") else { return };
    another.open("/login");
    another.identify("/login", "Anne-Sophie W. von Hohenzollern-Hechingen", PASSWORD);
    visitor.open("/account");
    shoot("account-two-devices");
    visitor.open("/checkout");
    shoot("checkout");
    visitor.open("/login");
    shoot("login-again");
    visitor
        .browser
        .script("document.querySelectorAll('[name=csrf_token]').forEach(it => it.value = 'x')");
    visitor.browser.follow(".theme [value=auto]");
    shoot("refused");
    visitor.open("/session");
    visitor.press("/session/forget");
    shoot("forgotten");
    let _ = writeln!(stderr(), "screenshots of the shop: {}", folder.display());
}

/// Where the screenshots are left: in the build's folder, unless `SESSIONS_TEST_SCREENSHOTS` names
/// another.
fn screenshots() -> PathBuf {
    match env::var_os("SESSIONS_TEST_SCREENSHOTS") {
        Some(folder) => folder.into(),
        None => Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("browser-screenshots"),
    }
}
