//! The response headers that keep caches from handing one client's session to another.

use http::{HeaderMap, HeaderName, HeaderValue, header};

/// The response depends on the session, and so on the cookie (RFC 9110, 12.5.5).
pub(super) fn vary_by_cookie(headers: &mut HeaderMap) {
    if !lists(headers, header::VARY, "*") {
        add_to_list(headers, header::VARY, "Cookie");
    }
}

/// The response carries a session (OWASP Session Management Cheat Sheet, "Web Content Caching").
pub(super) fn never_store(headers: &mut HeaderMap) {
    add_to_list(headers, header::CACHE_CONTROL, "no-store");
}

/// Joins `item` to what the handler has put there, unless it is there already.
fn add_to_list(headers: &mut HeaderMap, name: HeaderName, item: &'static str) {
    if lists(headers, name.clone(), item) {
        return;
    }
    let joined = headers
        .get(&name)
        .filter(|value| !value.as_bytes().trim_ascii().is_empty())
        .and_then(|value| {
            HeaderValue::from_bytes(&[value.as_bytes(), b", ", item.as_bytes()].concat()).ok()
        });
    match joined {
        // The first of several lines; the others stay as they are.
        Some(joined) => {
            if let Some(first) = headers.get_mut(&name) {
                *first = joined;
            }
        }
        None => {
            headers.insert(name, HeaderValue::from_static(item));
        }
    }
}

fn lists(headers: &HeaderMap, name: HeaderName, item: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b','))
        .any(|listed| listed.trim_ascii().eq_ignore_ascii_case(item.as_bytes()))
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
