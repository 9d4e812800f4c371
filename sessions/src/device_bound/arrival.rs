//! Where a request comes from, as far as that says why it has no bound cookie.
//!
//! Nothing of this is proof of anything: it only decides how a request is refused.

use http::{HeaderMap, HeaderName, HeaderValue, Method};

static SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
static MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
static DESTINATION: HeaderName = HeaderName::from_static("sec-fetch-dest");

/// What a request's headers say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// From a page of this site, or typed: the browser would have refreshed the cookie, if it could.
    #[default]
    Here,
    /// A page that a link of another site, or of another origin of this site, leads to. The browser may
    /// have sent it without a refresh, and does refresh when the page asks for itself again.
    Link,
    /// Something else from another origin, which cannot be asked for again.
    Elsewhere,
    /// The browser says that it has a binding and could not refresh, just now.
    Skipped,
}

impl Arrival {
    /// Fetch metadata (<https://w3c.github.io/webappsec-fetch-metadata/>), and what a browser says that
    /// has tried.
    pub(crate) fn from_headers(method: &Method, headers: &HeaderMap) -> Self {
        let is = |name, value: &str| headers.get(name).is_some_and(|it| it == value);
        let site = headers.get(&SITE).map(HeaderValue::as_bytes);
        let is_from_elsewhere = matches!(site, Some(b"cross-site" | b"same-site"));
        if headers.contains_key(&super::SKIPPED) {
            Self::Skipped
        } else if !is_from_elsewhere {
            Self::Here
        } else if method == Method::GET && is(&MODE, "navigate") && is(&DESTINATION, "document") {
            Self::Link
        } else {
            Self::Elsewhere
        }
    }

    /// Whether the browser may well have the key: then its session's cookie is not to be replaced by
    /// that of another session.
    pub(crate) fn may_have_the_key(self) -> bool {
        self != Self::Here
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case() {
        use Arrival::{Elsewhere, Here, Link, Skipped};
        let arrival = |method: &Method, site: &'static str, mode, dest, skipped| {
            let mut headers = HeaderMap::new();
            for (name, value) in [
                ("sec-fetch-site", site),
                ("sec-fetch-mode", mode),
                ("sec-fetch-dest", dest),
                ("secure-session-skipped", skipped),
            ] {
                if !value.is_empty() {
                    let name = HeaderName::from_static(name);
                    headers.insert(name, HeaderValue::from_static(value));
                }
            }
            Arrival::from_headers(method, &headers)
        };
        let (get, post) = (&Method::GET, &Method::POST);
        for (method, site, mode, dest, skipped, expected) in [
            (get, "", "", "", "", Here),
            (get, "none", "navigate", "document", "", Here),
            (get, "same-origin", "navigate", "document", "", Here),
            (get, "same-origin", "cors", "empty", "", Here),
            (post, "same-origin", "navigate", "document", "", Here),
            (get, "cross-site", "navigate", "document", "", Link),
            (get, "same-site", "navigate", "document", "", Link),
            (post, "cross-site", "navigate", "document", "", Elsewhere),
            (get, "cross-site", "navigate", "iframe", "", Elsewhere),
            (get, "cross-site", "no-cors", "image", "", Elsewhere),
            (get, "same-site", "cors", "empty", "", Elsewhere),
            (get, "same-origin", "navigate", "document", "quota_exceeded", Skipped),
            (get, "cross-site", "navigate", "document", "unreachable", Skipped),
        ] {
            let found = arrival(method, site, mode, dest, skipped);
            assert_eq!(found, expected, "{method} {site} {mode} {dest} {skipped}");
            assert_eq!(found.may_have_the_key(), expected != Here);
        }
    }
}
