//! The response headers that keep caches from handing one client's session to another.

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{self, Entry},
};

/// The response depends on the session, and so on the cookie (RFC 9110, 12.5.5).
pub(super) fn vary_by_cookie(headers: &mut HeaderMap) {
    add_to_list(headers, header::VARY, "Cookie", &["Cookie", "*"]);
}

/// The response carries a session (OWASP Session Management Cheat Sheet, "Web Content Caching").
pub(super) fn never_store(headers: &mut HeaderMap) {
    add_to_list(headers, header::CACHE_CONTROL, "no-store", &["no-store"]);
}

/// Joins `item` to what the handler has put there, unless there is one of `enough` already.
fn add_to_list(headers: &mut HeaderMap, name: HeaderName, item: &'static str, enough: &[&str]) {
    let mut lines = match headers.entry(name) {
        // Nearly always, so that the header is looked up once.
        Entry::Vacant(place) => {
            place.insert(HeaderValue::from_static(item));
            return;
        }
        Entry::Occupied(lines) => lines,
    };
    if lines.iter().any(|line| lists(line, enough)) {
        return;
    }
    // The first of several lines; the others stay as they are.
    let first = lines.get_mut();
    let joined = match first.as_bytes().trim_ascii() {
        [] => None,
        listed => HeaderValue::from_bytes(&[listed, b", ", item.as_bytes()].concat()).ok(),
    };
    *first = joined.unwrap_or(HeaderValue::from_static(item));
}

fn lists(line: &HeaderValue, items: &[&str]) -> bool {
    let mut listed = line.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    listed.any(|listed| items.iter().any(|item| listed.eq_ignore_ascii_case(item.as_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_handler_said_is_joined_and_never_doubled() {
        let table: [(&[&str], &[&str]); 7] = [
            (&[], &["Cookie"]),
            (&[""], &["Cookie"]),
            (&["Accept"], &["Accept, Cookie"]),
            (&["Accept", "Origin"], &["Accept, Cookie", "Origin"]),
            (&["Accept, cookie"], &["Accept, cookie"]),
            (&["Accept", "COOKIE , Origin"], &["Accept", "COOKIE , Origin"]),
            (&["*"], &["*"]),
        ];
        for (before, after) in table {
            let mut headers = HeaderMap::new();
            before.iter().for_each(|line| {
                headers.append(header::VARY, HeaderValue::from_static(line));
            });
            vary_by_cookie(&mut headers);
            let lines: Vec<_> = headers.get_all(header::VARY).iter().collect();
            assert_eq!(lines, after, "from {before:?}");
        }
    }

    #[test]
    fn no_store_goes_beside_what_is_there() {
        let mut headers = HeaderMap::new();
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, max-age=60"));
        never_store(&mut headers);
        never_store(&mut headers);
        assert_eq!(headers[header::CACHE_CONTROL], "private, max-age=60, no-store");
    }
}
