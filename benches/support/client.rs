//! A client that calls an application without a network.

use axum::{
    Router,
    body::{Body, Bytes},
    http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Uri, header},
};
use tower::Service;

/// The bench's routes, as `peers` has them.
pub const ROUTES: [(&str, &str); 4] = [
    ("ignores its session", "/"),
    ("reads a field", "/name"),
    ("reads and writes a field", "/count"),
    ("begins a session", BEGIN),
];

/// Of `ROUTES`, the one whose requests come without a cookie. Writes all five fields.
pub const BEGIN: &str = "/fill";

/// A request as hyper makes it: the header is a piece of shared memory, which is in the cache.
pub fn request(path: &'static str, cookie: Option<&HeaderValue>) -> Request<Body> {
    let mut request = Request::new(Body::empty());
    *request.uri_mut() = Uri::from_static(path);
    if let Some(cookie) = cookie {
        let received = Bytes::copy_from_slice(cookie.as_bytes());
        let cookie = HeaderValue::from_maybe_shared(received.clone()).expect("a header's bytes");
        request.headers_mut().insert(header::COOKIE, cookie);
    }
    request
}

/// Calls the application; an answer other than 200 is a mistake of the bench.
pub async fn call(app: &mut Router, request: Request<Body>) -> Response<Body> {
    let response = app.call(request).await.expect("a router never fails");
    assert_eq!(response.status(), StatusCode::OK);
    response
}

/// What the client sends back after it got these headers: `None` if they set no cookie.
pub fn cookie(headers: &HeaderMap) -> Option<HeaderValue> {
    let pairs = headers.get_all(header::SET_COOKIE).iter().map(|cookie| {
        let end = cookie.as_bytes().iter().position(|byte| *byte == b';');
        &cookie.as_bytes()[..end.unwrap_or(cookie.len())]
    });
    let line = pairs.collect::<Vec<_>>().join(&b"; "[..]);
    (!line.is_empty()).then(|| HeaderValue::from_bytes(&line).expect("a header's bytes"))
}

/// Begins a session with all five fields.
pub async fn fill(app: &mut Router) -> Option<HeaderValue> {
    cookie(call(app, request(BEGIN, None)).await.headers())
}

/// Cookies of `sessions` sessions with all five fields; as many of no session where there are none,
/// so that the requests look the same.
pub async fn fill_many(app: &mut Router, sessions: usize) -> Vec<HeaderValue> {
    let mut cookies = Vec::with_capacity(sessions);
    for _ in 0..sessions {
        cookies.push(fill(app).await.unwrap_or(HeaderValue::from_static(NO_SESSION)));
    }
    cookies
}

/// As long as a cookie of `sessions`.
const NO_SESSION: &str =
    "__Host-id=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// Numbers without an order, the same in every run (SplitMix64).
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    /// The next one.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// One of these.
    pub fn pick<'a, V>(&mut self, from: &'a [V]) -> &'a V {
        &from[self.number() as usize % from.len()]
    }
}

/// Requests of one route, each with the cookie of one of the sessions; ready to be sent.
pub fn requests(
    path: &'static str,
    cookies: &[HeaderValue],
    random: &mut Random,
    count: usize,
) -> Vec<Request<Body>> {
    let cookie = |random: &mut Random| (path != BEGIN).then(|| random.pick(cookies));
    (0..count).map(|_| request(path, cookie(random))).collect()
}
