//! Where a request comes from, as its browser says.
//!
//! 1. `Sec-Fetch-Site: same-origin` or `none`, which is the user, by a link or the address bar: good. A page cannot set
//!    this header (W3C Fetch Metadata Request Headers).
//! 2. Any other `Sec-Fetch-Site`: good if the `Origin` is a trusted one.
//! 3. Neither header: not a browser, or an old one that says nothing. Not refused here.
//! 4. An `Origin` alone, as with each WebSocket of Chromium: good if it is a trusted one, or its host and port are those that the
//!    request was sent to (RFC 9110, 7.1).
//! 5. `Origin: null` alone: a page that does not say who it is, as one with `Referrer-Policy:
//!    no-referrer` over plain HTTP, which may be the site's own. Something else has to decide.
//! 6. Anything else is refused: several origins, no host to compare with.

use http::{HeaderMap, HeaderValue, Uri, header};

use crate::error::{BuildError, Error};

const SEC_FETCH_SITE: &str = "sec-fetch-site";

/// So many bytes of what a client has sent are enough to recognize it in a log.
const LONGEST_SHOWN: usize = 100;

/// Whether a request comes from a page of this site, as far as its browser says: the check that
/// `CsrfLayer` makes before it looks for a token, for handlers that make it themselves.
///
/// ```
/// use http::{HeaderMap, Uri};
/// use sessions::OriginCheck;
///
/// async fn feedback(headers: HeaderMap, uri: Uri, message: String) -> sessions::Result<()> {
///     OriginCheck::new().check(&headers, &uri)?;   // or 403
///     // …
///     Ok(())
/// }
/// ```
///
/// A request that changes something is to be checked, whatever its method; and one that opens a
/// WebSocket, which has the cookies of its visitor, wherever the page comes from (RFC 6455, 10.2).
///
/// # What is checked
///
/// 1. `Sec-Fetch-Site`, which browsers set and pages cannot (W3C, Fetch Metadata Request Headers):
///    `same-origin` and `none` are good; with anything else the `Origin` must be one of
///    [`with_trusted_origin`](OriginCheckBuilder::with_trusted_origin).
/// 2. Without that header, from an older browser, over plain HTTP, or with a WebSocket of Chromium: an
///    `Origin` must be trusted, or have the host and port that the request was sent to (`Host`; `:authority` with HTTP/2). A proxy
///    has to hand that on: [`proxies`](crate::proxies).
/// 3. A request with neither passes: it is not from a browser, or from one that is too old to tell. A
///    browser that opens a WebSocket always sends `Origin` (RFC 6455, 4.1).
#[derive(Clone, Debug, Default)]
pub struct OriginCheck {
    /// Origins as browsers write them: `scheme://host`, and the port unless it is the scheme's own.
    trusted: Vec<String>,
}

/// The settings of an [`OriginCheck`].
#[derive(Clone, Debug, Default)]
#[must_use = "a builder does nothing until `build` is called"]
pub struct OriginCheckBuilder {
    trusted: Vec<String>,
}

impl OriginCheckBuilder {
    /// Takes requests from the pages of another origin too, as `https://pay.example`. Can be repeated.
    pub fn with_trusted_origin(mut self, origin: impl Into<String>) -> Self {
        self.trusted.push(origin.into());
        self
    }

    /// The check.
    ///
    /// # Errors
    ///
    /// If a trusted origin is none: it has a scheme, a host, a port if need be, and nothing else.
    pub fn build(self) -> Result<OriginCheck, BuildError> {
        let trusted = self.trusted.iter().map(|origin| parse(origin)).collect::<Result<_, _>>()?;
        Ok(OriginCheck { trusted })
    }
}

/// What a request's headers say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Good,
    /// `Origin: null` and no more.
    Unknown,
    Foreign,
}

impl OriginCheck {
    /// Takes requests from this site alone.
    pub fn new() -> Self {
        Self::default()
    }

    /// For a check with other settings.
    pub fn builder() -> OriginCheckBuilder {
        OriginCheckBuilder::default()
    }

    /// Whether a request with these headers, to this address, comes from this site.
    ///
    /// # Errors
    ///
    /// [`CrossSite`](crate::ErrorKind::CrossSite), which is 403 to the client. Its message has the
    /// origin and the host that were compared, for a log.
    pub fn check(&self, headers: &HeaderMap, uri: &Uri) -> Result<(), Error> {
        match self.judge(headers, uri) {
            Verdict::Good => Ok(()),
            Verdict::Unknown | Verdict::Foreign => Err(refusal(headers, uri)),
        }
    }

    pub(super) fn judge(&self, headers: &HeaderMap, uri: &Uri) -> Verdict {
        let mut sites = headers.get_all(SEC_FETCH_SITE).iter().peekable();
        let says_site = sites.peek().is_some();
        if says_site && sites.all(|site| site == "same-origin" || site == "none") {
            return Verdict::Good;
        }
        let mut origins = headers.get_all(header::ORIGIN).iter();
        let is_trusted = |origin| self.trusted.iter().any(|trusted| origin == trusted.as_str());
        match (origins.next(), origins.next()) {
            (None, _) if !says_site => Verdict::Good,
            (Some(origin), None) if is_trusted(origin) => Verdict::Good,
            (Some(origin), None) if !says_site && origin == "null" => Verdict::Unknown,
            (Some(origin), None) if !says_site && is_own(origin, headers, uri) => Verdict::Good,
            _ => Verdict::Foreign,
        }
    }
}

/// With the two hosts that were compared.
pub(super) fn refusal(headers: &HeaderMap, uri: &Uri) -> Error {
    let origins: Vec<_> = headers.get_all(header::ORIGIN).iter().collect();
    let origin = match origins[..] {
        [] => "not given".to_string(),
        [origin] => shown(origin.as_bytes()),
        _ => "given several times".to_string(),
    };
    let host = match target(headers, uri) {
        Some(host) => shown(host),
        None => "no host".to_string(),
    };
    Error::cross_site(origin, host)
}

/// Quoted, with nothing that could write into a log what was not there, and not at any length.
fn shown(sent: &[u8]) -> String {
    match sent.get(..LONGEST_SHOWN) {
        Some(front) if sent.len() > LONGEST_SHOWN => {
            format!("`{}…` ({} bytes)", front.escape_ascii(), sent.len())
        }
        _ => format!("`{}`", sent.escape_ascii()),
    }
}

/// What the request was sent to. What is in its first line, as always with HTTP/2, goes before the
/// header (RFC 9112, 3.2.2; RFC 9113, 8.3.1).
fn target<'a>(headers: &'a HeaderMap, uri: &'a Uri) -> Option<&'a [u8]> {
    match uri.authority() {
        Some(authority) => Some(authority.as_str().as_bytes()),
        None => headers.get(header::HOST).map(HeaderValue::as_bytes),
    }
}

/// Whether the origin's host and port are the request's. Not the scheme: behind a proxy nobody
/// knows it.
fn is_own(origin: &HeaderValue, headers: &HeaderMap, uri: &Uri) -> bool {
    let target = match target(headers, uri).map(std::str::from_utf8) {
        Some(Ok(target)) if target.is_ascii() => target,
        _ => return false,
    };
    let Some((scheme, origin)) = origin.to_str().ok().and_then(|it| it.split_once("://")) else {
        return false;
    };
    let default_port = match scheme {
        "https" => "443",
        "http" => "80",
        _ => return false,
    };
    let (host, port) = host_and_port(origin, default_port);
    let (target_host, target_port) = host_and_port(target, default_port);
    !host.is_empty() && host.eq_ignore_ascii_case(target_host) && port == target_port
}

fn host_and_port<'a>(authority: &'a str, default_port: &'a str) -> (&'a str, &'a str) {
    match authority.rsplit_once(':') {
        // The colons of an IPv6 address are in brackets.
        Some((host, port)) if !port.contains(']') => {
            (host, if port.is_empty() { default_port } else { port })
        }
        _ => (authority, default_port),
    }
}

/// An origin as a browser would write it, from what a program was given.
fn parse(origin: &str) -> Result<String, BuildError> {
    let refuse = |what| Err(BuildError::new(format!("trusted origin `{origin}`: {what}")));
    let Some((scheme, authority)) = origin.split_once("://") else {
        return refuse("an origin is `https://` and a host, as in `https://shop.example`");
    };
    if !origin.is_ascii() {
        return refuse("browsers send the host in ASCII (`https://xn--…`)");
    }
    let is_authority = authority.parse::<http::uri::Authority>().is_ok();
    if scheme.is_empty() || !is_authority || authority.contains(['@', '*']) {
        return refuse("an origin is scheme, host and port, and nothing else: no path, no `/`");
    }
    let (scheme, authority) = (scheme.to_ascii_lowercase(), authority.to_ascii_lowercase());
    let default_port = match &*scheme {
        "https" => ":443",
        "http" => ":80",
        _ => "",
    };
    let authority = authority.strip_suffix(default_port).unwrap_or(&authority);
    Ok(format!("{scheme}://{authority}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sec-Fetch-Site, Origin, Host; whether it is good.
    type Case = (&'static [&'static str], &'static [&'static str], Option<&'static str>, bool);

    const OWN: Option<&str> = Some("shop.example");

    #[test]
    fn every_case() {
        const TABLE: &[Case] = &[
            // 1. The browser says that it is good.
            (&["same-origin"], &[], OWN, true),
            (&["same-origin"], &["https://shop.example"], OWN, true),
            (&["same-origin"], &["https://shop.example"], Some("inside:8080"), true),
            (&["none"], &[], OWN, true),
            (&["none"], &["null"], OWN, true),
            // 2. It says something else: then the origin has to be trusted.
            (&["cross-site"], &[], OWN, false),
            (&["cross-site"], &["https://evil.example"], OWN, false),
            (&["cross-site"], &["null"], OWN, false),
            (&["cross-site"], &["https://shop.example"], OWN, false),
            (&["cross-site"], &["https://pay.example"], OWN, true),
            (&["cross-site"], &["https://pay.example:8443"], OWN, false),
            (&["cross-site"], &["http://pay.example"], OWN, false),
            (&["cross-site"], &["https://pay.example.evil.example"], OWN, false),
            (&["cross-site"], &["https://pay.example", "https://evil.example"], OWN, false),
            (&["same-site"], &[], OWN, false),
            (&["same-site"], &["https://blog.shop.example"], OWN, false),
            (&["same-site"], &["https://pay.example"], OWN, true),
            (&[""], &["https://shop.example"], OWN, false),
            (&["Same-Origin"], &[], OWN, false),
            (&["same-origin-"], &[], OWN, false),
            (&["same-origin", "cross-site"], &[], OWN, false),
            (&["cross-site", "same-origin"], &[], OWN, false),
            (&["same-origin, cross-site"], &[], OWN, false),
            // 3. It says nothing.
            (&[], &[], OWN, true),
            (&[], &[], None, true),
            // 4. The origin alone.
            (&[], &["https://shop.example"], OWN, true),
            (&[], &["http://shop.example"], OWN, true),
            (&[], &["https://shop.example"], Some("SHOP.Example"), true),
            (&[], &["https://shop.example"], Some("shop.example:443"), true),
            (&[], &["https://shop.example"], Some("shop.example:"), true),
            (&[], &["http://shop.example"], Some("shop.example:80"), true),
            (&[], &["https://shop.example:443"], OWN, true),
            (&[], &["http://shop.example:3000"], Some("shop.example:3000"), true),
            (&[], &["http://[::1]:3000"], Some("[::1]:3000"), true),
            (&[], &["http://[::1]"], Some("[::1]"), true),
            (&[], &["https://[::1]"], Some("[::1]:443"), true),
            (&[], &["https://pay.example"], OWN, true),
            (&[], &["https://evil.example"], OWN, false),
            (&[], &["https://blog.shop.example"], OWN, false),
            (&[], &["https://shop.example.evil.example"], OWN, false),
            (&[], &["https://evilshop.example"], OWN, false),
            (&[], &["https://shop.example:8443"], OWN, false),
            (&[], &["https://shop.example"], Some("shop.example:8443"), false),
            (&[], &["https://shop.example"], Some("shop.example:80"), false),
            (&[], &["http://shop.example"], Some("shop.example:443"), false),
            (&[], &["http://[::1]:3000"], Some("[::1]:3001"), false),
            (&[], &["http://[::1]"], Some("[::2]"), false),
            (&[], &["https://shop.example"], Some("user@shop.example"), false),
            (&[], &["https://shop.example/"], OWN, false),
            (&[], &["https://shop.example, https://evil.example"], OWN, false),
            (&[], &["https://shop.example", "https://evil.example"], OWN, false),
            (&[], &["https://shop.example", "https://shop.example"], OWN, false),
            // 5. Nothing to go by.
            (&[], &["null"], OWN, false),
            (&[], &["null"], Some("null"), false),
            (&[], &["null", "null"], OWN, false),
            (&[], &["NULL"], OWN, false),
            (&[], &[""], OWN, false),
            (&[], &[""], Some(""), false),
            (&[], &["https://"], Some(""), false),
            (&[], &["shop.example"], OWN, false),
            (&[], &["chrome-extension://shop.example"], OWN, false),
            (&[], &["file://shop.example"], OWN, false),
            (&[], &["https://shop.example"], None, false),
            (&[], &["https://shop.\u{e9}xample"], Some("shop.\u{e9}xample"), false),
        ];
        let check =
            OriginCheck::builder().with_trusted_origin("https://pay.example").build().unwrap();
        for (sites, origins, host, is_good) in TABLE {
            let mut headers = HeaderMap::new();
            let value = |text: &str| HeaderValue::from_bytes(text.as_bytes()).unwrap();
            for (name, lines) in [(SEC_FETCH_SITE, *sites), ("origin", *origins)] {
                for line in lines {
                    headers.append(name, value(line));
                }
            }
            if let Some(host) = host {
                headers.insert(header::HOST, value(host));
            }
            let uri = Uri::from_static("/buy");
            let checked = check.check(&headers, &uri);
            assert_eq!(checked.is_ok(), *is_good, "{sites:?} {origins:?} {host:?}");
            // A token decides of one kind of request alone.
            let is_unknown = sites.is_empty() && *origins == ["null"];
            let verdict = check.judge(&headers, &uri);
            assert_eq!(verdict == Verdict::Unknown, is_unknown, "{sites:?} {origins:?} {host:?}");
        }
    }

    #[test]
    fn the_first_lines_host_goes_before_the_header() {
        let uri = Uri::from_static("https://shop.example/buy");
        for (origin, is_good) in [("https://shop.example", true), ("https://other.example", false)]
        {
            let mut headers = HeaderMap::new();
            headers.insert(header::ORIGIN, HeaderValue::from_static(origin));
            headers.insert(header::HOST, HeaderValue::from_static("other.example"));
            assert_eq!(OriginCheck::new().check(&headers, &uri).is_ok(), is_good, "{origin}");
        }
    }

    #[test]
    fn trusted_origins_are_written_as_browsers_do() {
        for (origin, written) in [
            ("https://pay.example", "https://pay.example"),
            ("HTTPS://Pay.Example", "https://pay.example"),
            ("https://pay.example:443", "https://pay.example"),
            ("http://pay.example:80", "http://pay.example"),
            ("https://pay.example:8443", "https://pay.example:8443"),
            ("http://localhost:3000", "http://localhost:3000"),
            ("http://[::1]:3000", "http://[::1]:3000"),
            ("capacitor://localhost", "capacitor://localhost"),
        ] {
            assert_eq!(parse(origin).as_deref(), Ok(written));
        }
        for origin in [
            "",
            "null",
            "pay.example",
            "https://",
            "://pay.example",
            "https://pay.example/",
            "https://pay.example/path",
            "https://pay.example?q",
            "https://pay.example#f",
            "https://user@pay.example",
            "https://*.pay.example",
            "https://pay example",
            "https://päy.example",
        ] {
            assert!(parse(origin).is_err(), "{origin}");
        }
    }

    #[test]
    fn a_refusal_names_what_was_compared_and_not_at_any_length() {
        let long = format!("https://{}.example", "a".repeat(10_000));
        for (origins, host, words) in [
            (
                &["https://shop.example"][..],
                Some("backend:3000"),
                "its origin is `https://shop.example`, and it was sent to `backend:3000`",
            ),
            (&[], None, "its origin is not given, and it was sent to no host"),
            (&["a", "b"], Some("c"), "its origin is given several times, and it was sent to `c`"),
            (&["\u{e9}\t\""], Some("c"), r#"its origin is `\xc3\xa9\t\"`,"#),
            (&[&*long], Some(&*long), "aaa…` (10016 bytes), and it was sent to `https://aaa"),
            (&[&long[..101]], Some("c"), "aaa…` (101 bytes), and"),
            (&[&long[..100]], Some("c"), "aaa`, and it was sent to `c`"),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(SEC_FETCH_SITE, HeaderValue::from_static("cross-site"));
            for origin in origins {
                let origin = HeaderValue::from_bytes(origin.as_bytes()).unwrap();
                headers.append(header::ORIGIN, origin);
            }
            if let Some(host) = host {
                headers.insert(header::HOST, host.parse().unwrap());
            }
            let error = OriginCheck::new().check(&headers, &Uri::from_static("/buy")).unwrap_err();
            let message = error.to_string();
            assert!(message.contains(words), "{message}");
            assert!(message.len() < 500, "{} bytes", message.len());
        }
    }
}
