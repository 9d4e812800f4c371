//! The response headers that keep caches from handing one client's session to another.

use http::{HeaderMap, HeaderName, HeaderValue, header};

/// The response depends on the session, and so on the cookie (RFC 9110, 12.5.5).
pub(super) fn vary_by_cookie(headers: &mut HeaderMap) {
    const COOKIE: HeaderValue = HeaderValue::from_static("Cookie");
    // Nearly always the header is new, here and below, so that it is looked up once.
    if headers.append(header::VARY, COOKIE) {
        join_last(headers, &header::VARY, |listed| listed == "cookie" || listed == "*");
    }
}

/// The response may show what is in the session: no cache that several clients share keeps it, unless
/// the handler has said for itself who may (RFC 9111, 5.2.2.7).
pub(super) fn keep_private(headers: &mut HeaderMap) {
    const PRIVATE: HeaderValue = HeaderValue::from_static("private");
    if headers.append(header::CACHE_CONTROL, PRIVATE) {
        join_last(headers, &header::CACHE_CONTROL, |listed| {
            matches!(listed, "private" | "public" | "no-store") || listed.starts_with("s-maxage=")
        });
    }
}

/// The response carries a session (OWASP Session Management Cheat Sheet, "Web Content Caching").
pub(super) fn never_store(headers: &mut HeaderMap) {
    const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
    if headers.append(header::CACHE_CONTROL, NO_STORE) {
        join_last(headers, &header::CACHE_CONTROL, |listed| listed == "no-store");
    }
}

/// Joins the last line of this name, which is one item, to the lines that the handler has put there, unless
/// an item is there that `is_enough`; items are lower case to it. What comes out is one line: of several,
/// nginx before 1.23 heeds the last alone, and Apache Traffic Server the first.
#[cold]
fn join_last(headers: &mut HeaderMap, name: &HeaderName, is_enough: impl Fn(&str) -> bool) {
    let lines: Vec<HeaderValue> = headers.get_all(name).iter().cloned().collect();
    let Some((item, before)) = lines.split_last() else { return };
    let items = || before.iter().flat_map(|line| items(line.as_bytes()));
    // `*` is what there is to say about all requests, and nginx knows it alone in its line only.
    let is_any = items().any(|listed| listed == b"*");
    let has_enough = items().any(|listed| {
        std::str::from_utf8(listed).is_ok_and(|listed| is_enough(&listed.to_ascii_lowercase()))
    });
    let mut listed: Vec<&[u8]> = if is_any { vec![b"*"] } else { items().collect() };
    if !has_enough {
        listed.push(item.as_bytes());
    }
    let joined = HeaderValue::from_bytes(&listed.join(&b", "[..]));
    headers.insert(name, joined.unwrap_or_else(|_| item.clone()));
}

/// The items of a list, without those that are empty; a comma between quotes is no end of one
/// (RFC 9110, 5.6.1).
fn items(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    let items = line.split(move |&byte| {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if is_quoted => is_escaped = true,
            b'"' => is_quoted = !is_quoted,
            b',' if !is_quoted => return true,
            _ => {}
        }
        false
    });
    items.map(<[u8]>::trim_ascii).filter(|item| !item.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    type Table<'a> = &'a [(&'a [&'a str], &'a str)];

    fn check(name: HeaderName, change: fn(&mut HeaderMap), table: Table<'_>) {
        for (before, after) in table {
            let mut headers = HeaderMap::new();
            before.iter().for_each(|line| {
                headers.append(&name, HeaderValue::from_str(line).unwrap());
            });
            for _ in 0..2 {
                change(&mut headers);
                let lines: Vec<_> = headers.get_all(&name).iter().collect();
                assert_eq!(lines, [after], "from {before:?}");
            }
        }
    }

    #[test]
    fn one_line_has_what_the_handler_said_and_cookie_once() {
        let table: Table<'_> = &[
            (&[], "Cookie"),
            (&[""], "Cookie"),
            (&["Accept"], "Accept, Cookie"),
            (&["Accept", "Origin"], "Accept, Origin, Cookie"),
            (&["Accept", "", " Origin ,, Cookie"], "Accept, Origin, Cookie"),
            (&["Accept, cookie"], "Accept, cookie"),
            (&["Accept", "COOKIE , Origin"], "Accept, COOKIE, Origin"),
            (&["*"], "*"),
            (&["Accept", "*"], "*"),
            (&["Accept, *, Cookie"], "*"),
            (&["Cookies"], "Cookies, Cookie"),
        ];
        check(header::VARY, vary_by_cookie, table);
    }

    #[test]
    fn a_response_is_private_unless_its_handler_has_said_who_may_keep_it() {
        let table: Table<'_> = &[
            (&[], "private"),
            (&["no-cache"], "no-cache, private"),
            (&["max-age=60"], "max-age=60, private"),
            (&["no-cache", "max-age=60"], "no-cache, max-age=60, private"),
            (&["must-revalidate, max-age=0"], "must-revalidate, max-age=0, private"),
            (&["Private"], "Private"),
            (&["private, max-age=60"], "private, max-age=60"),
            (&["public"], "public"),
            (&["max-age=60", "PUBLIC"], "max-age=60, PUBLIC"),
            (&["s-maxage=60"], "s-maxage=60"),
            (&["max-age=1, S-MaxAge=60"], "max-age=1, S-MaxAge=60"),
            (&["no-store"], "no-store"),
            // Of these, only the fields that they name are not shared.
            (&[r#"private="set-cookie""#], r#"private="set-cookie", private"#),
            (&[r#"no-cache="a, public, b""#], r#"no-cache="a, public, b", private"#),
            (&[r#"x="\", public, ""#], r#"x="\", public, ", private"#),
            (&["publicity"], "publicity, private"),
        ];
        check(header::CACHE_CONTROL, keep_private, table);
    }

    #[test]
    fn no_store_goes_beside_what_is_there() {
        let table: Table<'_> = &[
            (&[], "no-store"),
            (&["private, max-age=60"], "private, max-age=60, no-store"),
            (&["private", "max-age=60"], "private, max-age=60, no-store"),
            (&["No-Store"], "No-Store"),
        ];
        check(header::CACHE_CONTROL, never_store, table);
    }
}
