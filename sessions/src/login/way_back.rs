//! The way back after a login, which comes from the outside and must not lead there.

/// Longer addresses are no way back.
const LONGEST: usize = 2048;

/// Gives back `next`, from a request's query or form, if a redirect to it cannot leave the site.
///
/// That is a path of this site, as it stands in an address: `/orders?page=2`. Everything else is
/// `None`, however a browser would understand it: other schemes and hosts, `//host`, backslashes
/// (which browsers take for slashes), control characters and white space (which they leave out), what
/// is not ASCII (a URL has that percent-encoded), and more than 2048 bytes.
///
/// ```
/// use sessions::local_path;
///
/// assert_eq!(local_path("/orders?page=2#last"), Some("/orders?page=2#last"));
/// for elsewhere in ["https://evil.example", "//evil.example", "/\\evil.example", "/\t/evil.example"] {
///     assert_eq!(local_path(elsewhere), None);
/// }
/// ```
///
/// It says nothing about what is at that path: a `GET` there must change nothing.
pub fn local_path(next: &str) -> Option<&str> {
    let rest = next.strip_prefix('/')?;
    let is_plain = |byte: u8| byte.is_ascii_graphic() && byte != b'\\';
    let is_local = !rest.starts_with('/') && next.len() <= LONGEST && next.bytes().all(is_plain);
    is_local.then_some(next)
}

/// The address of the login page with the way back to `uri` below `prefix` in its query; without one
/// if that is not a path of this site.
pub(crate) fn with_next(login_page: &str, prefix: &str, uri: &http::Uri) -> String {
    // Both by themselves, too: `//evil.example` below a prefix is no way back either.
    let path = uri.path_and_query().and_then(|path| local_path(path.as_str()));
    let path = path.map(|path| [prefix, path].concat());
    let Some(next) = path.as_deref().and_then(local_path) else {
        return login_page.to_string();
    };
    let (page, fragment) = match login_page.find('#') {
        Some(start) => login_page.split_at(start),
        None => (login_page, ""),
    };
    let separator = match page.find('?') {
        None => "?",
        Some(_) if page.ends_with(['?', '&']) => "",
        Some(_) => "&",
    };
    let next: String = form_urlencoded::byte_serialize(next.as_bytes()).collect();
    [page, separator, "next=", &next, fragment].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: &[&str] = &[
        "/",
        "/orders",
        "/orders/7?page=2&sort=name",
        "/a//b",
        "/?next=//evil.example",
        "/search?q=https://evil.example",
        "/%5cevil.example",
        "/%2f%2fevil.example",
        "/%09/evil.example",
        "/%0d%0aSet-Cookie:%20a=b",
        "/..//evil.example",
        "/.//evil.example",
        "/@evil.example",
        "/:80",
        "/#/route",
        "/stra%C3%9Fe",
        "/a;b='c'",
    ];

    const ELSEWHERE: &[&str] = &[
        "",
        "orders",
        "?page=2",
        "#top",
        ".",
        "..//evil.example",
        "./orders",
        "https://evil.example",
        "HTTPS://evil.example",
        "https:evil.example",
        "https:/evil.example",
        "https:///evil.example",
        "http:\\\\evil.example",
        "https://shop.example",
        "https://shop.example@evil.example",
        "javascript:alert(1)",
        "java\nscript:alert(1)",
        "data:text/html,x",
        "mailto:a@evil.example",
        "evil.example",
        "@evil.example",
        ":80",
        "//evil.example",
        "///evil.example",
        "////evil.example",
        "//",
        "//evil.example/%2f..",
        "/\\evil.example",
        "\\evil.example",
        "\\\\evil.example",
        "\\/evil.example",
        "/\\/evil.example",
        "//\\evil.example",
        "/a\\b",
        "/\t/evil.example",
        "/\n/evil.example",
        "/\r/evil.example",
        "/\r\nSet-Cookie: a=b",
        "\t//evil.example",
        " //evil.example",
        " /orders",
        "/ /evil.example",
        "/\0/evil.example",
        "/\x0b/evil.example",
        "/\x7f/evil.example",
        "/orders page",
        "/orders\n",
        "/\u{a0}/evil.example",
        "/\u{85}/evil.example",
        "/\u{2028}/evil.example",
        "/\u{200b}/evil.example",
        "/\u{feff}/evil.example",
        "/\u{2f}/evil.example",
        "\u{ff0f}\u{ff0f}evil.example",
        "/\u{ff0f}evil.example",
        "/\u{2044}evil.example",
        "/\u{2215}evil.example",
        "/\u{ff3c}evil.example",
        "/straße",
    ];

    #[test]
    fn paths_of_this_site_and_no_others() {
        for next in HERE {
            assert_eq!(local_path(next), Some(*next));
        }
        for next in ELSEWHERE {
            assert_eq!(local_path(next), None, "{next:?}");
        }
        let longest = format!("/{}", "a".repeat(LONGEST - 1));
        assert_eq!(local_path(&longest), Some(&*longest));
        assert_eq!(local_path(&(longest + "a")), None);
    }

    #[test]
    fn the_way_back_goes_into_the_login_pages_query() {
        for (login_page, uri, address) in [
            ("/login", "/", "/login?next=%2F"),
            ("/login", "/orders?page=2&q=a%20b", "/login?next=%2Forders%3Fpage%3D2%26q%3Da%2520b"),
            ("/login", "https://shop.example/orders", "/login?next=%2Forders"),
            ("/login", "https://shop.example", "/login?next=%2F"),
            ("/login?theme=dark", "/orders", "/login?theme=dark&next=%2Forders"),
            ("/login?", "/orders", "/login?next=%2Forders"),
            ("/login?a&", "/orders", "/login?a&next=%2Forders"),
            ("/login#form", "/orders", "/login?next=%2Forders#form"),
            ("/login?a=b#f?", "/orders", "/login?a=b&next=%2Forders#f?"),
            ("https://id.example/login", "/orders", "https://id.example/login?next=%2Forders"),
            ("/login", "//evil.example", "/login"),
            ("/login", "*", "/login"),
        ] {
            assert_eq!(with_next(login_page, "", &uri.parse().unwrap()), address);
        }
        let long = format!("/{}", "a".repeat(LONGEST)).parse().unwrap();
        assert_eq!(with_next("/login", "", &long), "/login");

        let below = |uri: &str| with_next("/login", "/shop", &uri.parse().unwrap());
        assert_eq!(below("/orders?page=2"), "/login?next=%2Fshop%2Forders%3Fpage%3D2");
        assert_eq!(below("/"), "/login?next=%2Fshop%2F");
        assert_eq!(below("//evil.example"), "/login");
        let long = format!("/{}", "a".repeat(LONGEST - 2));
        assert_eq!(below(&long), "/login", "longer than a way back may be, with its prefix");
    }
}
