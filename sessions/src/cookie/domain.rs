//! What browsers take as a cookie's `Domain`. Whatever else it is, they drop the cookie without a word
//! (RFC 6265bis, 5.6.3 and 5.7).

use std::net::{Ipv4Addr, Ipv6Addr};

/// RFC 1035, 2.3.4.
const LONGEST_LABEL: usize = 63;
const LONGEST_DOMAIN: usize = 253;

/// What is wrong with a domain, and what to write instead.
pub(super) fn check(domain: &str) -> Result<(), &'static str> {
    // Long: one rule after the other, each with its message, in the order in which they help most.
    const NAME: &str = "a domain is a name such as `example.com`: labels of letters, digits, `-` and \
                        `_`, with a dot between two of them";
    if domain.is_empty() {
        return Err("the domain is empty: leave it out for a cookie of one host alone");
    }
    if domain.contains('/') {
        return Err(
            "the domain is an address of a page: write the host alone, as in `example.com`",
        );
    }
    if domain.contains('*') {
        return Err(
            "the domain has a `*`: write `example.com`, a cookie goes to all of a domain's \
             subdomains anyway",
        );
    }
    if domain.contains([',', ';']) || domain.contains(char::is_whitespace) {
        return Err("there is one domain, without spaces, `,` or `;` in it");
    }
    if domain.trim_matches(['[', ']']).parse::<Ipv6Addr>().is_ok() {
        return Err(ADDRESS);
    }
    if domain.contains(':') {
        return Err("the domain has a port: write the host alone, cookies are of all its ports");
    }
    if !domain.is_ascii() {
        return Err("the domain is not ASCII: write it as browsers send it, in Punycode, as in \
             `xn--bcher-kva.example` for `bücher.example`");
    }
    // Browsers ignore one dot at the beginning, as older cookies have it.
    let name = domain.strip_prefix('.').unwrap_or(domain);
    if name.parse::<Ipv4Addr>().is_ok() {
        return Err(ADDRESS);
    }
    if name.split('.').any(str::is_empty) {
        return Err("the domain has an empty label: no two dots in a row, and none at the end");
    }
    let is_label = |label: &str| {
        let may_have = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        label.len() <= LONGEST_LABEL
            && label.bytes().all(may_have)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if name.len() > LONGEST_DOMAIN || !name.split('.').all(is_label) {
        return Err(NAME);
    }
    let last = name.rsplit('.').next().unwrap_or_default();
    if last.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(NAME);
    }
    if !name.contains('.') {
        return Err(
            "the domain has one label: from a subdomain of `com` or `localhost` no browser takes a \
             cookie for all of it; leave the domain out for a cookie of one host alone",
        );
    }
    Ok(())
}

const ADDRESS: &str = "an IP address has no subdomains: leave the domain out";

#[cfg(test)]
mod tests {
    use super::*;

    /// As Chromium 156 took and dropped them, except that it takes a single label and an address from
    /// just that host: as it does without a domain.
    #[test]
    fn every_case() {
        let long = "a".repeat(64) + ".example";
        let just = ["a."; 126].concat() + "a";
        let too_long = ["a."; 126].concat() + "aa";
        let table = [
            ("example.com", None),
            ("EXAMPLE.com", None),
            (".example.com", None),
            ("a.b_c.test", None),
            ("xn--bcher-kva.example", None),
            ("b.local", None),
            ("4.example", None),
            ("", Some("empty")),
            ("example.com:8080", Some("port")),
            ("https://example.com", Some("host alone")),
            ("example.com/app", Some("host alone")),
            ("*.example.com", Some("subdomains anyway")),
            ("example.com,example.org", Some("one domain")),
            ("example.com example.org", Some("one domain")),
            ("a\r\nb.com", Some("one domain")),
            ("a;b.com", Some("one domain")),
            ("..example.com", Some("empty label")),
            ("example..com", Some("empty label")),
            ("example.com.", Some("empty label")),
            (".", Some("empty label")),
            ("bücher.example", Some("Punycode")),
            ("127.0.0.1", Some("IP address")),
            ("::1", Some("IP address")),
            ("[::1]", Some("IP address")),
            ("localhost", Some("one label")),
            ("com", Some("one label")),
            ("192.168.1", Some("a domain is a name")),
            ("-a.example", Some("a domain is a name")),
            ("a%b.example", Some("a domain is a name")),
            (&long, Some("a domain is a name")),
            (&just, None),
            (&too_long, Some("a domain is a name")),
        ];
        for (domain, words) in table {
            match (check(domain), words) {
                (Ok(()), None) => {}
                (Err(message), Some(words)) => {
                    assert!(message.contains(words), "{domain}: {message}")
                }
                (outcome, _) => panic!("`{domain}`: {outcome:?}"),
            }
        }
    }
}
