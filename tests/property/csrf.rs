//! No request without a good token gets through, and no `next` leads away.

use std::{cell::Cell, convert::Infallible};

use axum::{
    body::{Body, to_bytes},
    extract::Request,
    response::Response,
};
use http::{HeaderName, HeaderValue, Method, header};
use sessions::{CsrfLayer, Keys, MemoryStore, Session, SessionLayer, local_path};
use tower::{Layer, ServiceExt};
use url::Url;

use crate::{Random, for_all};

#[derive(Session)]
struct Visitor {
    name: String,
}

const FORM: &str = "application/x-www-form-urlencoded";

/// A value with something in it that means something.
fn value(random: &mut Random, words: &[&str]) -> Vec<u8> {
    let mut value = match random.below(4) {
        0 => random.bytes(40),
        _ => random.pick(words).as_bytes().to_vec(),
    };
    for _ in 0..random.below(3) {
        random.spoil(&mut value);
    }
    value
}

#[test]
fn no_request_without_a_good_token_gets_through_whatever_its_headers() {
    let sessions = SessionLayer::<Visitor>::new(MemoryStore::new(), Keys::generate());
    let csrf =
        CsrfLayer::<Visitor>::builder().with_trusted_origin("https://pay.example").build().unwrap();
    let page = sessions.layer(tower::service_fn(async |request: Request| {
        let session = Session::<Visitor>::open(request.extensions()).await.unwrap();
        let token = session.csrf_token().await.unwrap().to_string();
        Ok::<_, Infallible>(Response::new(token))
    }));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let page = runtime.block_on(page.oneshot(Request::new(Body::empty()))).unwrap();
    let (page, token) = page.into_parts();
    let cookie = page.headers[header::SET_COOKIE].to_str().unwrap();
    let cookie = cookie.split(';').next().unwrap();
    let token = runtime.block_on(to_bytes(token, 100)).unwrap();
    let token = str::from_utf8(&token).unwrap();
    let handler = async |_| Ok::<_, Infallible>(Response::new(Body::from("bought")));
    let shop = sessions.layer(csrf.layer(tower::service_fn(handler)));

    let passed = Cell::new(0_u32);
    for_all("csrf headers", 1, async |random| {
        let form = format!("csrf_token={token}&a=b");
        let words: [(&str, &[&str]); 6] = [
            ("cookie", &[cookie]),
            ("sec-fetch-site", &["same-origin", "none", "same-site", "cross-site"]),
            ("origin", &["https://shop.example", "https://pay.example", "null", "http://[::1]:80"]),
            ("host", &["shop.example", "shop.example:443", "[::1]", ":"]),
            ("x-csrf-token", &[token]),
            ("content-type", &[FORM, "application/json"]),
        ];
        let body = value(random, &[&form, &form, "csrf_token", "%", "&=&", "csrf_token=%zz"]);
        let has_token_in_body = body.windows(token.len()).any(|part| part == token.as_bytes());
        let mut request = Request::new(Body::from(body));
        *request.method_mut() = random.pick(&[Method::POST, Method::PUT, Method::DELETE]).clone();
        for (name, words) in words {
            for _ in 0..random.below(8) / 3 {
                // What a header cannot have never arrives.
                if let Ok(value) = HeaderValue::from_bytes(&value(random, words)) {
                    request.headers_mut().append(HeaderName::from_static(name), value);
                }
            }
        }
        let headers = request.headers().clone();
        let has = |name: &str, value: &str| {
            let mut lines = headers.get_all(name).iter();
            lines.any(|line| {
                line.as_bytes().windows(value.len()).any(|part| part == value.as_bytes())
            })
        };
        let may_pass = has("cookie", cookie) && (has("x-csrf-token", token) || has_token_in_body);
        let status = shop.clone().oneshot(request).await.unwrap().status();
        assert!(may_pass || status != 200, "{headers:?}");
        passed.set(passed.get() + u32::from(status == 200));
    });
    assert!(passed.get() > 0, "no case was good");
}

#[test]
fn a_local_path_stays_on_its_host_however_a_browser_reads_it() {
    const PIECES: &[&str] = &[
        "/",
        "/",
        "//",
        "\\",
        "\t",
        "\n",
        "\r",
        " ",
        ".",
        "..",
        "@",
        ":",
        ":80",
        "?",
        "#",
        "%2f",
        "%5c",
        "%09",
        "%00",
        "\0",
        "\u{7f}",
        "\u{a0}",
        "\u{2028}",
        "\u{feff}",
        "\u{ff0f}",
        "\u{2044}",
        "\u{3002}",
        "https:",
        "javascript:",
        "evil.example",
        "a",
        ";",
        "&next=",
        "[::1]",
        "xn--",
        "ß",
    ];
    let base = Url::parse("https://shop.example/orders/7?page=2").unwrap();
    let passed = Cell::new(0_u32);
    for_all("local paths", 1, async |random| {
        let mut next = String::from(*random.pick(&["", "/", "/"]));
        for _ in 0..random.below(8) {
            next.push_str(random.pick::<&str>(PIECES));
        }
        let Some(path) = local_path(&next) else { return };
        assert_eq!(path, next);
        let url = base.join(path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
        assert_eq!(url.origin(), base.origin(), "{path:?}");
        // As a header carries it, and as a page has it in a link.
        assert!(HeaderValue::from_str(path).is_ok(), "{path:?}");
        assert_eq!(base.join(&format!(" {path}\n")).unwrap().origin(), base.origin(), "{path:?}");
        passed.set(passed.get() + 1);
    });
    assert!(passed.get() > 100, "{} are local", passed.get());
}
