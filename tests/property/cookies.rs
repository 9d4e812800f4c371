//! No header opens a session but one that holds its cookie.

use std::{cell::Cell, convert::Infallible};

use http::{HeaderValue, Request, Response, header};
use sessions::{
    IntoStorage, Keys, MemoryStore, PrivateCookie, Session, SessionLayer,
    testing::{Calls, SpyStore},
};
use tower::{Layer, ServiceExt};

use crate::{Random, for_all};

#[derive(Session)]
struct Visitor {
    name: String,
}

/// One request with these `Cookie` lines: the name in its session, and the response's cookie.
async fn request(
    layer: &SessionLayer<Visitor>,
    lines: &[Vec<u8>],
    write: bool,
) -> (String, Option<String>) {
    let name = Cell::new(String::new());
    let service = layer.layer(tower::service_fn(|request: Request<()>| {
        let name = &name;
        async move {
            let session = Session::<Visitor>::open(request.extensions()).await.unwrap();
            if write {
                session.write().await.set_name("Zoe");
            }
            name.set(session.read().await.name().to_string());
            Ok::<_, Infallible>(Response::new(String::new()))
        }
    }));
    let mut request = Request::new(());
    for line in lines {
        let line = HeaderValue::from_bytes(line).expect("`lines` leaves out what none may have");
        request.headers_mut().append(header::COOKIE, line);
    }
    let response = service.oneshot(request).await.unwrap();
    let cookie = response
        .headers()
        .get(header::SET_COOKIE)
        .map(|cookie| cookie.to_str().unwrap().split(';').next().unwrap().to_string());
    (name.take(), cookie)
}

/// Lines that have something of a good cookie in them, or nothing.
fn lines(random: &mut Random, good: &str) -> Vec<Vec<u8>> {
    let (name, value) = good.split_once('=').unwrap();
    let mut lines = Vec::new();
    for _ in 0..1 + random.below(3) {
        let mut line = Vec::new();
        for _ in 0..random.below(5) {
            let mut pair = match random.below(4) {
                0 => random.bytes(100),
                1 => format!("{name}={}", "A".repeat(random.below(200))).into_bytes(),
                2 => format!("{}={value}", random.pick(&["a", "__Host-", "id"])).into_bytes(),
                _ => good.as_bytes().to_vec(),
            };
            for _ in 0..random.below(3) {
                random.spoil(&mut pair);
            }
            line.extend(pair);
            line.extend_from_slice(random.pick(&[";", "; ", " ;;", ""]).as_bytes());
        }
        // What a header cannot have never arrives.
        line.retain(|byte| *byte == b'\t' || (*byte >= 0x20 && *byte != 0x7f));
        lines.push(line);
    }
    lines
}

fn holds(lines: &[Vec<u8>], good: &str) -> bool {
    lines
        .iter()
        .flat_map(|line| line.split(|byte| *byte == b';'))
        .any(|pair| pair.trim_ascii() == good.as_bytes())
}

/// `seen` is told of every case, and whether it had a good cookie.
fn only_the_good_cookie_opens(
    what: &str,
    storage: impl IntoStorage,
    begun: impl Fn(),
    seen: impl Fn(bool),
) {
    let layer = SessionLayer::<Visitor>::new(storage, Keys::generate());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (_, good) = runtime.block_on(request(&layer, &[], true));
    let good = good.unwrap();
    begun();
    let opened = Cell::new(0_u32);
    for_all(what, 1, async |random| {
        let lines = lines(random, &good);
        let should_open = holds(&lines, &good);
        let (name, cookie) = request(&layer, &lines, false).await;
        assert_eq!(name == "Zoe", should_open, "{lines:?}");
        assert_eq!(cookie, None);
        opened.set(opened.get() + u32::from(should_open));
        seen(should_open);
    });
    assert!(opened.get() > 0, "no case had a good cookie");
}

#[test]
fn no_signed_cookie_but_a_whole_one_reaches_the_store() {
    let store = SpyStore::new(MemoryStore::new());
    let calls = store.clone();
    let seen = |had_good_cookie: bool| {
        if !had_good_cookie {
            assert_eq!(calls.calls(), Calls::default());
        }
        calls.reset();
    };
    only_the_good_cookie_opens("cookie headers", store, || calls.reset(), seen);
}

#[test]
fn no_private_cookie_but_a_whole_one_opens() {
    only_the_good_cookie_opens("private cookies", PrivateCookie, || {}, |_| {});
}
