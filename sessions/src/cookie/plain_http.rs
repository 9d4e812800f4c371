//! A hint for those who try an application over plain HTTP, where browsers drop the session's cookie
//! without a word.
//!
//! The layer does not see the scheme, nor who sends a request. So it looks for a browser that has been
//! sent a cookie and goes on asking without one:
//!
//! 1. The host is one that development servers have: `localhost`, an address, a name of a local
//!    network. No proxy has passed the request on, as far as its headers tell.
//! 2. The client is a browser, by its name and by the headers that no other client sends. Scripts,
//!    crawlers and health checks keep no cookies, and that is as it should be.
//! 3. Its last request of that host and name has been answered with the session's cookie, not long ago,
//!    and no request has come with the cookie since.
//! 4. It comes again without. Once is enough if it comes from a page of this host: by a link, a form, or
//!    by being loaded again. A picture of such a page, or a page opened anew, may come without cookies
//!    for other reasons, as from another profile of the same browser: that has to happen twice.
//!
//! What the warning claims is no more than that, and what browsers do.

use std::{
    hash::{BuildHasher, RandomState},
    net::{Ipv4Addr, Ipv6Addr},
    sync::{
        PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::{cookie::CookieConfig, sync::Mutex};

/// How many requests are looked at that are no part of a suspicion: a process that has served so many is
/// no longer being tried out, and is not to spend time on this.
const LOOKED_AT: u32 = 10_000;
/// How many clients are remembered.
const CLIENTS: usize = 8;
/// For how long.
const RECENT: Duration = Duration::from_secs(10 * 60);
/// How often a client has to come without its cookie where that is no sign by itself.
const STRIKES: u8 = 2;

/// A name no longer than this is worth a look.
const LONGEST_HOST: usize = 253;

pub(crate) struct PlainHttpHint {
    /// How many more requests are looked at. Zero: none.
    left: AtomicU32,
    clients: Mutex<[Option<Client>; CLIENTS]>,
    /// There has been one of them.
    has_clients: AtomicBool,
    hashes: RandomState,
}

/// A client that has been sent the cookie, and has not sent it yet.
#[derive(Clone, Copy)]
struct Client {
    id: ClientId,
    sent: Instant,
    strikes: u8,
}

/// A hash of host and name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ClientId(u64);

/// What the headers of a request without the cookie say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sign {
    /// Nothing that matters here.
    None,
    /// From a browser, at a host of interest.
    Browser,
    /// And for a page or a part of a page that it may ask for without its cookies.
    Weak,
    /// And for a page, from another page of this host.
    Strong,
}

impl PlainHttpHint {
    /// For a layer with this cookie.
    pub(crate) fn new(cookie: &CookieConfig) -> Self {
        // Where the cookie is for some paths or another domain, it may be missing for that reason.
        let is_of_interest = cookie.is_secure_everywhere();
        Self {
            left: AtomicU32::new(if is_of_interest { LOOKED_AT } else { 0 }),
            clients: Mutex::new([None; CLIENTS]),
            has_clients: AtomicBool::new(false),
            hashes: RandomState::new(),
        }
    }

    /// Whether requests are still looked at.
    #[cfg(feature = "actix")]
    pub(crate) fn is_looking(&self) -> bool {
        self.left.load(Relaxed) > 0
    }

    /// Looks at a request; says who sent it if it is worth noting that it is sent a cookie.
    #[inline]
    pub(crate) fn look_at(
        &self,
        headers: &HeaderMap,
        first_cookies: Option<&HeaderValue>,
        cookie: &CookieConfig,
    ) -> Option<ClientId> {
        let left = self.left.load(Relaxed);
        if left == 0 {
            return None;
        }
        // Nobody is to be forgotten, and this request will be sent no first cookie.
        if !self.has_clients.load(Relaxed) && first_cookies.is_some_and(|it| cookie.is_first_in(it))
        {
            return self.count(left);
        }
        self.look_closer(headers, cookie, left)
    }

    #[cold]
    fn look_closer(
        &self,
        headers: &HeaderMap,
        cookie: &CookieConfig,
        left: u32,
    ) -> Option<ClientId> {
        let Some(host) = host(headers).filter(|_| !is_passed_on(headers)) else {
            return self.count(left);
        };
        let agent = headers.get(header::USER_AGENT).map(|agent| agent.as_bytes());
        let id = ClientId(self.hashes.hash_one((host, agent)));
        if cookie.is_among(headers.get_all(header::COOKIE)) {
            self.forget(id);
            return self.count(left);
        }
        match sign(headers, host) {
            Sign::None => return self.count(left),
            Sign::Browser => {}
            sign => self.suspect(id, sign == Sign::Strong, host),
        }
        Some(id)
    }

    /// Requests that are looked at in the same moment may count for one.
    fn count(&self, left: u32) -> Option<ClientId> {
        self.left.store(left - 1, Relaxed);
        None
    }

    /// The client has been sent the cookie.
    pub(crate) fn note_sent(&self, id: ClientId) {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let sent = Instant::now();
        self.has_clients.store(true, Relaxed);
        match clients.iter_mut().flatten().find(|client| client.id == id) {
            Some(client) => client.sent = sent,
            None => {
                // The oldest gives way.
                clients.rotate_right(1);
                clients[0] = Some(Client { id, sent, strikes: 0 });
            }
        }
    }

    fn forget(&self, id: ClientId) {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        for client in clients.iter_mut() {
            client.take_if(|client| client.id == id);
        }
    }

    fn suspect(&self, id: ClientId, is_enough: bool, host: &str) {
        if self.strike(id, is_enough) {
            self.left.store(0, Relaxed);
            warn(host);
        }
    }

    /// Whether this was one time too many.
    fn strike(&self, id: ClientId, is_enough: bool) -> bool {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let mut known = clients.iter_mut().flatten();
        let Some(client) = known.find(|it| it.id == id && it.sent.elapsed() < RECENT) else {
            return false;
        };
        client.strikes += 1;
        is_enough || client.strikes >= STRIKES
    }
}

/// Once per process.
fn warn(host: &str) {
    static SAID: AtomicBool = AtomicBool::new(false);
    if !SAID.swap(true, Relaxed) {
        tracing::warn!(
            host,
            "a browser was sent the session's cookie and goes on asking without it. Over plain HTTP \
             browsers drop a `Secure` cookie: Safari and other WebKit at every host, Chromium and \
             Firefox at all but localhost. For development there is `insecure_plain_http()` on the \
             layer's builder, for everything else HTTPS"
        );
    }
}

/// The host that the request was sent to, if it is one that development servers have.
fn host(headers: &HeaderMap) -> Option<&str> {
    let host = headers.get(header::HOST)?.to_str().ok()?;
    (host.len() <= LONGEST_HOST && is_plain(without_port(host))).then_some(host)
}

fn without_port(host: &str) -> &str {
    match host.strip_prefix('[') {
        Some(address) => address.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    }
}

/// An address, or a name that is no public one (RFC 6761, RFC 6762, RFC 8375).
fn is_plain(host: &str) -> bool {
    const LOCAL: [&str; 9] = [
        "home",
        "home.arpa",
        "internal",
        "lan",
        "local",
        "localdomain",
        "localhost",
        "test",
        "private",
    ];
    let is_under = |name: &str| {
        let at = host.len().checked_sub(name.len());
        at.and_then(|at| host.split_at_checked(at))
            .is_some_and(|(before, end)| end.eq_ignore_ascii_case(name) && before.ends_with('.'))
    };
    !host.is_empty()
        && (!host.contains('.')
            || host.parse::<Ipv4Addr>().is_ok()
            || host.parse::<Ipv6Addr>().is_ok()
            || LOCAL.into_iter().any(is_under))
}

/// By a proxy, to which the browser may well talk over TLS.
fn is_passed_on(headers: &HeaderMap) -> bool {
    const SET_BY_PROXIES: [HeaderName; 6] = [
        header::FORWARDED,
        header::VIA,
        HeaderName::from_static("x-forwarded-for"),
        HeaderName::from_static("x-forwarded-host"),
        HeaderName::from_static("x-forwarded-proto"),
        HeaderName::from_static("x-real-ip"),
    ];
    SET_BY_PROXIES.iter().any(|name| headers.contains_key(name))
}

fn sign(headers: &HeaderMap, host: &str) -> Sign {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let has = |name: &str, part: &str| text(name).is_some_and(|value| value.contains(part));
    // Crawlers call themselves browsers, and then something else.
    let is_browser = text("user-agent").is_some_and(|agent| agent.starts_with("Mozilla/5.0 ("))
        && !has("user-agent", "compatible")
        && headers.contains_key(header::ACCEPT_LANGUAGE);
    // A frame in another site's page is sent no `SameSite` cookie.
    let is_in_frame = has("sec-fetch-dest", "frame");
    // A browser that sends no `Sec-Fetch-Site` does not trust the host, and takes no `Secure` cookie.
    let is_cross_site =
        text("sec-fetch-site").is_some_and(|site| !matches!(site, "none" | "same-origin"));
    if !is_browser || is_in_frame || is_cross_site {
        return Sign::None;
    }
    let is_here = |address: &str| {
        let rest = address.strip_prefix("http://").and_then(|rest| rest.strip_prefix(host));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    // Where it comes from elsewhere, or over TLS, the host is one that only a proxy sees.
    let origin = text("origin").filter(|origin| *origin != "null");
    let from = [text("referer"), origin];
    if !from.into_iter().flatten().all(is_here) {
        return Sign::None;
    }
    let is_from_here = from.iter().any(Option::is_some) || has("sec-fetch-site", "same-origin");
    // What else a page loads, it may ask for without cookies: a manifest, a font, an icon.
    let is_page = has("accept", "text/html");
    match (is_page, is_from_here) {
        (true, true) => Sign::Strong,
        (true, false) if has("cache-control", "max-age=0") => Sign::Strong,
        (false, false) => Sign::Browser,
        _ => Sign::Weak,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WEBKIT: &str = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/605.1.15 (KHTML, like Gecko) \
                          Version/60.5 Safari/605.1.15";
    const PAGE: (&str, &str) = ("accept", "text/html,application/xhtml+xml");
    const PICTURE: (&str, &str) = ("accept", "image/webp,*/*");
    const HERE: (&str, &str) = ("referer", "http://localhost:3000/one");
    const AGAIN: (&str, &str) = ("cache-control", "max-age=0");
    const COOKIE: (&str, &str) = ("cookie", "a=1; __Host-id=whatever");

    /// Of one request, beside those that all have.
    type Headers<'a> = &'a [(&'a str, &'a str)];

    fn headers(list: Headers<'_>) -> HeaderMap {
        let defaults =
            [("host", "localhost:3000"), ("user-agent", WEBKIT), ("accept-language", "en")];
        let mut headers = HeaderMap::new();
        for (name, value) in defaults.iter().chain(list) {
            headers.insert(HeaderName::try_from(*name).unwrap(), value.parse().unwrap());
        }
        headers
    }

    fn look(hint: &PlainHttpHint, headers: &HeaderMap, cookie: &CookieConfig) -> Option<ClientId> {
        hint.look_at(headers, headers.get(header::COOKIE), cookie)
    }

    /// Whether requests with these headers, each answered with the cookie, end in a warning.
    fn warns(requests: &[Headers<'_>]) -> bool {
        let cookie = CookieConfig::default();
        let hint = PlainHttpHint::new(&cookie);
        for request in requests {
            if let Some(client) = look(&hint, &headers(request), &cookie) {
                hint.note_sent(client);
            }
        }
        hint.left.load(Relaxed) == 0
    }

    #[test]
    fn every_case() {
        let other = ("user-agent", "Mozilla/5.0 (Macintosh) Firefox/140.0");
        let table: [(&str, &[Headers<'_>], bool); _] = [
            ("one page", &[&[PAGE]], false),
            ("two pages", &[&[PAGE], &[PAGE]], false),
            ("three pages", &[&[PAGE], &[PAGE], &[PAGE]], true),
            ("a page and its picture", &[&[PAGE], &[PICTURE, HERE]], false),
            ("the same, and again", &[&[PAGE], &[PICTURE, HERE], &[PAGE]], true),
            ("a link", &[&[PAGE], &[PAGE, HERE]], true),
            ("loaded again", &[&[PAGE], &[PAGE, AGAIN]], true),
            ("a link that says so", &[&[PAGE], &[PAGE, ("sec-fetch-site", "same-origin")]], true),
            ("a form", &[&[PAGE], &[PAGE, ("origin", "http://localhost:3000")]], true),
            ("a form without its origin", &[&[PAGE], &[PAGE, HERE, ("origin", "null")]], true),
            ("the cookie comes", &[&[PAGE], &[PAGE, HERE, COOKIE], &[PAGE, HERE]], false),
            (
                "the cookie comes with a picture",
                &[&[PAGE], &[PICTURE, COOKIE], &[PAGE, HERE]],
                false,
            ),
            ("another browser", &[&[PAGE], &[PAGE, HERE, other]], false),
            ("two browsers in turn", &[&[PAGE], &[PAGE, other], &[PAGE], &[PAGE, other]], false),
            ("calls of a script", &[&[("accept", "*/*")] as Headers<'_>; 9], false),
            ("a frame", &[&[PAGE], &[PAGE, AGAIN, ("sec-fetch-dest", "iframe")]], false),
            ("from another site", &[&[PAGE], &[PAGE, ("sec-fetch-site", "cross-site")]], false),
            ("a page over TLS", &[&[PAGE], &[PAGE, ("referer", "https://localhost:3000/")]], false),
            ("of another host", &[&[PAGE], &[PAGE, ("referer", "http://localhost:30001/")]], false),
        ];
        for (case, requests, expected) in table {
            assert_eq!(warns(requests), expected, "{case}");
        }
    }

    #[test]
    fn only_browsers_at_hosts_of_interest() {
        let with = |extra: &[(&str, &str)]| {
            let host = extra.iter().find(|it| it.0 == "host").map_or("localhost:3000", |it| it.1);
            let referer = format!("http://{host}/one");
            let link = [extra, &[PAGE, ("referer", &referer)]].concat();
            warns(&[&link, &link])
        };
        for host in [
            "localhost",
            "LOCALHOST:80",
            "a.localhost",
            "127.0.0.1:3000",
            "[::1]:3000",
            "192.168.1.7",
            "nas",
            "nas:8080",
            "nas.local",
            "nas.home.arpa",
            "shop.test",
            "203.0.113.5",
        ] {
            assert!(with(&[("host", host)]), "{host}");
        }
        for host in
            ["example.com", "local.example.com", "notlocal.de", "1.2.3.4.example", "", ":80"]
        {
            assert!(!with(&[("host", host)]), "{host}");
        }
        for agent in [
            "curl/8.11.0",
            "kube-probe/1.33",
            "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
            "Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko; compatible; bingbot/2.0) Chrome/140",
        ] {
            assert!(!with(&[("user-agent", agent)]), "{agent}");
        }
        for proxy in ["via", "forwarded", "x-forwarded-for", "x-forwarded-proto", "x-real-ip"] {
            assert!(!with(&[(proxy, "1")]), "{proxy}");
        }
    }

    #[test]
    fn it_gives_up_when_many_requests_have_been_well() {
        let cookie = CookieConfig::default();
        let hint = PlainHttpHint::new(&cookie);
        let well = headers(&[COOKIE]);
        for _ in 0..LOOKED_AT {
            assert_eq!(look(&hint, &well, &cookie), None);
        }
        assert_eq!(look(&hint, &headers(&[PAGE]), &cookie), None);
    }

    #[test]
    fn a_cookie_that_may_be_missing_for_other_reasons_is_not_watched() {
        let changes: [fn(&mut CookieConfig); _] = [
            |it| it.secure = false,
            |it| it.path = "/app".into(),
            |it| it.domain = Some("b.local".into()),
            |it| it.partitioned = true,
        ];
        for change in changes {
            let mut cookie = CookieConfig::default();
            assert!(look(&PlainHttpHint::new(&cookie), &headers(&[PAGE]), &cookie).is_some());
            change(&mut cookie);
            assert_eq!(look(&PlainHttpHint::new(&cookie), &headers(&[PAGE]), &cookie), None);
        }
    }
}
