//! Where a request's time goes: `cargo run --release -p sessions-benches --bin parts`.
//!
//! The parts of a request that no session can do without, each alone and as quick as it can be on
//! this machine; their sum; and beside it what `sessions` takes over axum alone. Below, what other
//! things cost that a request may or may not need.

use std::{
    collections::HashMap,
    hint::black_box,
    sync::{Arc, Mutex},
    time::{Duration, Instant, SystemTime},
};

use axum::{
    Router,
    http::{Extensions, HeaderMap, HeaderValue, header},
};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD as BASE64};
use bincode::{
    config::standard,
    serde::{decode_from_slice, encode_into_slice},
};
use hashbrown::HashTable;
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sessions_benches::{
    client::{ROUTES, Random, call, fill_many, requests},
    peers::Peer,
    table,
};
use sha2::{Digest, Sha256};

const ROUNDS: usize = 200;
const BATCH: usize = 100;
/// How many sessions are stored.
const SIZES: [usize; 2] = [10_000, 1_000_000];

/// The least time that one of many calls took, on average of a batch of them.
fn quickest<R>(mut work: impl FnMut() -> R) -> Duration {
    let batch = |_| {
        let start = Instant::now();
        for _ in 0..BATCH {
            black_box(work());
        }
        start.elapsed().div_f64(BATCH as f64)
    };
    (0..ROUNDS).map(batch).min().unwrap_or_default()
}

#[derive(Serialize, Deserialize)]
struct Visitor {
    user_id: u64,
    name: String,
    theme: String,
    counter: u32,
    recent: [u64; 5],
}

fn visitor() -> Visitor {
    Visitor {
        user_id: 1_234_567,
        name: "Grace Hopper".to_string(),
        theme: "dark".to_string(),
        counter: 1,
        recent: [1_000_003, 1_000_033, 1_000_037, 1_000_039, 1_000_081],
    }
}

/// The cookie's value in a header: pair by pair, and none is read further than its name if that is
/// another one.
fn find(mut header: &[u8]) -> Option<&[u8]> {
    loop {
        let pair = header.trim_ascii_start();
        if let Some(value) = pair.strip_prefix(b"__Host-id=") {
            let (value, rest) = value.split_at_checked(64)?;
            return matches!(rest, [] | [b';', ..]).then_some(value);
        }
        let end = pair.iter().position(|byte| *byte == b';')?;
        header = &pair[end + 1..];
    }
}

/// A stored session, as small as it can be: a key, and the fields in a piece of memory of their own.
type Stored = ([u8; 32], Arc<[u8]>);

fn hash(key: &[u8; 32]) -> u64 {
    u64::from_le_bytes(*key.first_chunk().expect("32 are more than 8"))
}

/// Looks up one of `size` sessions and takes hold of its fields.
fn look_up(size: usize, fields: &[u8]) -> Duration {
    let keys: Vec<[u8; 32]> =
        (0..size as u64).map(|number| Sha256::digest(number.to_le_bytes()).into()).collect();
    let mut sessions = HashTable::<Stored>::with_capacity(size);
    assert_ne!(fields[0], 0);
    for key in &keys {
        sessions.insert_unique(hash(key), (*key, fields.into()), |(key, _)| hash(key));
    }
    let mut random = Random(1);
    let batch = |_| {
        let wanted: Vec<[u8; 32]> = (0..BATCH).map(|_| *random.pick(&keys)).collect();
        let start = Instant::now();
        let mut at = 0;
        while let Some(key) = wanted.get(at) {
            let found = sessions.find(hash(key), |(other, _)| other == key).map(|s| s.1.clone());
            // Which session is next depends on what was found: as in a request, nothing goes on
            // before the fields are there.
            at += usize::from(found.is_some_and(|fields| black_box(fields[0]) > 0));
        }
        start.elapsed().div_f64(BATCH as f64)
    };
    (0..ROUNDS).map(batch).min().unwrap_or_default()
}

/// What `sessions` takes over axum alone, by route.
async fn whole(size: usize) -> [Duration; ROUTES.len()] {
    let mut quickest = [[Duration::MAX; 2]; ROUTES.len()];
    let mut apps: Vec<(Router, Vec<HeaderValue>)> = Vec::new();
    for peer in [Peer::Sessions, Peer::Bare] {
        let mut app = peer.app().await;
        let cookies = fill_many(&mut app, size).await;
        apps.push((app, cookies));
    }
    let mut random = Random(1);
    for _ in 0..ROUNDS {
        for (route, (_, path)) in ROUTES.into_iter().enumerate() {
            for (which, (app, cookies)) in apps.iter_mut().enumerate() {
                let requests = requests(path, cookies, &mut random, BATCH);
                let start = Instant::now();
                for request in requests {
                    drop(call(app, request).await);
                }
                let time = start.elapsed().div_f64(BATCH as f64);
                quickest[route][which] = quickest[route][which].min(time);
            }
        }
    }
    quickest.map(|[ours, bare]| ours.saturating_sub(bare))
}

struct Part {
    what: &'static str,
    times: [Duration; SIZES.len()],
    /// Whether a read, a write and a begin need it.
    needed: [bool; 3],
}

fn needed_parts() -> Vec<Part> {
    const ALL: [bool; 3] = [true; 3];
    const WITH_COOKIE: [bool; 3] = [true, true, false];
    const WRITE: [bool; 3] = [false, true, false];
    const BEGIN: [bool; 3] = [false, false, true];

    let header = [&b"__Host-id="[..], &[b'A'; 64]].concat();
    let (id, name) = ([7_u8; 16], "__Host-id");
    let key = <Hmac<Sha256> as KeyInit>::new_from_slice(&[1; 32]).expect("any length");
    let mut bytes = [0; 48];
    let mut text = [0; 64];
    let mut fields = [0; 128];
    let length = encode_into_slice(visitor(), &mut fields, standard()).expect("there is room");
    let fields = &fields[..length];
    let mut out = [0; 128];
    let mut number = 0_u32;

    let same = |what, needed, time| Part { what, times: [time; SIZES.len()], needed };
    vec![
        same("find the cookie in the header", WITH_COOKIE, {
            quickest(|| find(black_box(&header)).map(<[u8]>::len))
        }),
        same("decode it (base64)", WITH_COOKIE, {
            quickest(|| BASE64.decode_slice(black_box(&header[10..]), &mut bytes))
        }),
        same("16 random bytes from the system", BEGIN, {
            quickest(|| {
                let mut id = [0_u8; 16];
                getrandom::fill(&mut id).map(|()| id)
            })
        }),
        same("verify or sign it (HMAC-SHA256, prepared key)", ALL, {
            quickest(|| {
                let mut mac = key.clone();
                mac.update(black_box(name.as_bytes()));
                mac.update(black_box(&id));
                mac.finalize().into_bytes()
            })
        }),
        same("hash the id (SHA-256)", ALL, quickest(|| Sha256::digest(black_box(id)))),
        Part {
            what: "look the session up",
            times: SIZES.map(|size| look_up(size, fields)),
            needed: WITH_COOKIE,
        },
        same("decode five fields (bincode)", WITH_COOKIE, {
            quickest(|| decode_from_slice::<Visitor, _>(black_box(fields), standard()))
        }),
        same("encode a number (bincode), and put all fields into new memory", WRITE, {
            quickest(|| {
                number += 1;
                let length = encode_into_slice(number, &mut out, standard());
                (length, Arc::<[u8]>::from(black_box(fields)))
            })
        }),
        same("encode five fields (bincode) into new memory", BEGIN, {
            let visitor = visitor();
            quickest(|| {
                let length = encode_into_slice(black_box(&visitor), &mut out, standard());
                length.map(|length| Arc::<[u8]>::from(&out[..length]))
            })
        }),
        same("write the cookie (base64, and the attributes into new memory)", BEGIN, {
            quickest(|| {
                let length = BASE64.encode_slice(black_box(&bytes), &mut text);
                let attributes = "; HttpOnly; SameSite=Lax; Secure; Path=/".as_bytes();
                let cookie = [&b"__Host-id="[..], &text, attributes].concat();
                (length, HeaderValue::from_maybe_shared(cookie))
            })
        }),
    ]
}

/// Things that a request may do, without need or for the sake of something else.
async fn other_parts() -> Vec<(&'static str, Duration)> {
    let mutex = Mutex::new(0);
    let async_mutex = tokio::sync::Mutex::new(0);
    let semaphore = tokio::sync::Semaphore::new(100);
    let arc = Arc::new(0);
    let mut map = HashMap::<u64, u64>::from_iter((0..8).map(|key| (key, key)));
    vec![
        ("ask the system for the time", quickest(SystemTime::now)),
        ("allocate and free 64 bytes", quickest(|| Box::new([0_u64; 8]))),
        ("allocate and free 512 bytes", quickest(|| Box::new([0_u64; 64]))),
        ("move 512 bytes", {
            let (from, mut to) = (Box::new([1_u64; 64]), Box::new([0_u64; 64]));
            quickest(|| to.copy_from_slice(black_box(&*from)))
        }),
        ("clone and drop an `Arc`", quickest(|| arc.clone())),
        ("lock and unlock a std mutex", {
            quickest(|| *mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner) += 1)
        }),
        ("lock and unlock a tokio mutex, trying", {
            quickest(|| async_mutex.try_lock().map(|mut value| *value += 1))
        }),
        ("take and give back a permit of a tokio semaphore, trying", {
            quickest(|| semaphore.try_acquire_many(10).map(drop))
        }),
        ("box a small future", {
            quickest(|| {
                Box::pin(std::future::ready(1)) as std::pin::Pin<Box<dyn Future<Output = i32>>>
            })
        }),
        ("put into a hash map and take out again", {
            quickest(|| {
                map.insert(black_box(9), 9);
                map.remove(&black_box(9))
            })
        }),
        ("put the first value into a request's extensions", {
            quickest(|| {
                let mut extensions = Extensions::new();
                extensions.insert(arc.clone());
                extensions
            })
        }),
        ("put a header beside another", {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
            quickest(|| {
                headers.insert(header::VARY, HeaderValue::from_static("Cookie"));
                headers.remove(header::VARY)
            })
        }),
    ]
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let parts = needed_parts();
    let mut wholes = Vec::new();
    for size in SIZES {
        wholes.push(whole(size).await);
    }
    for (which, size) in SIZES.into_iter().enumerate() {
        println!("\n{} sessions stored.", table::count(size));
        table::head(&["needed", "read", "write", "begin"]);
        for part in &parts {
            let time = table::time(part.times[which]);
            let cell = |needed| if needed { time.clone() } else { String::new() };
            let [read, write, begin] = part.needed.map(cell);
            table::row([part.what.to_string(), read, write, begin]);
        }
        let sum = |kind: usize| -> Duration {
            parts.iter().filter(|part| part.needed[kind]).map(|part| part.times[which]).sum()
        };
        let sums = [sum(0), sum(1), sum(2)];
        let [_, ours @ ..] = wholes[which];
        let row = |what: &str, cell: &dyn Fn(usize) -> String| {
            table::row([what.to_string(), cell(0), cell(1), cell(2)]);
        };
        row("sum", &|kind| table::time(sums[kind]));
        row("`sessions` over bare axum", &|kind| table::time(ours[kind]));
        row("of the sum (goal: ≤ 2)", &|kind| {
            format!("{:.2}", ours[kind].as_secs_f64() / sums[kind].as_secs_f64())
        });
        println!("\nA handler that ignores its session: {}.", table::time(wholes[which][0]));
    }
    table::head(&["what else a request may do", "each"]);
    for (what, time) in other_parts().await {
        table::row([what, &table::time(time)]);
    }
}
