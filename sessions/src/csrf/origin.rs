//! Where a request comes from, as its browser says.
//!
//! 1. `Sec-Fetch-Site: same-origin` or `none`, which is the user himself: good. A page cannot set
//!    this header (W3C Fetch Metadata Request Headers).
//! 2. Any other `Sec-Fetch-Site`: good if the `Origin` is a trusted one.
//! 3. Neither header: not a browser, or an old one that says nothing. Not refused here.
//! 4. An `Origin` alone: good if it is a trusted one, or its host and port are those that the
//!    request was sent to (RFC 9110, 7.1).
//! 5. Anything else is refused: `Origin: null`, several origins, no host to compare with.

use http::{HeaderMap, HeaderValue, Uri, header};

use crate::error::BuildError;

const SEC_FETCH_SITE: &str = "sec-fetch-site";

/// The request comes from another site, or nobody can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Foreign;

/// Origins as browsers write them: `scheme://host`, and the port unless it is the scheme's own.
pub(super) type Origins = Vec<String>;

pub(super) fn check(headers: &HeaderMap, uri: &Uri, trusted: &Origins) -> Result<(), Foreign> {
    let mut sites = headers.get_all(SEC_FETCH_SITE).iter().peekable();
    let says_site = sites.peek().is_some();
    if says_site && sites.all(|site| site == "same-origin" || site == "none") {
        return Ok(());
    }
    let mut origins = headers.get_all(header::ORIGIN).iter();
    match (origins.next(), origins.next()) {
        (None, _) if !says_site => Ok(()),
        (Some(origin), None) if trusted.iter().any(|trusted| origin == trusted.as_str()) => Ok(()),
        (Some(origin), None) if !says_site && is_own(origin, headers, uri) => Ok(()),
        _ => Err(Foreign),
    }
}

/// Whether the origin's host and port are the request's. Not the scheme: behind a proxy nobody
/// knows it.
fn is_own(origin: &HeaderValue, headers: &HeaderMap, uri: &Uri) -> bool {
    // What is in the request's first line, as always with HTTP/2, goes before the header
    // (RFC 9112, 3.2.2; RFC 9113, 8.3.1).
    let target = match uri.authority() {
        Some(authority) => authority.as_str(),
        None => match headers.get(header::HOST).map(HeaderValue::to_str) {
            Some(Ok(host)) => host,
            _ => return false,
        },
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

/// An origin as a browser would write it, from what somebody has put into a program.
pub(super) fn parse(origin: &str) -> Result<String, BuildError> {
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
            (&[], &[""], OWN, false),
            (&[], &[""], Some(""), false),
            (&[], &["https://"], Some(""), false),
            (&[], &["shop.example"], OWN, false),
            (&[], &["chrome-extension://shop.example"], OWN, false),
            (&[], &["file://shop.example"], OWN, false),
            (&[], &["https://shop.example"], None, false),
            (&[], &["https://shop.\u{e9}xample"], Some("shop.\u{e9}xample"), false),
        ];
        let trusted = vec!["https://pay.example".to_string()];
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
            let checked = check(&headers, &Uri::from_static("/buy"), &trusted);
            assert_eq!(checked.is_ok(), *is_good, "{sites:?} {origins:?} {host:?}");
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
            assert_eq!(check(&headers, &uri, &Vec::new()).is_ok(), is_good, "{origin}");
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
}
