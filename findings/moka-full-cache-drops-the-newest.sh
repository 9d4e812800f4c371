#!/usr/bin/env bash
# moka: a cache that is full takes a new entry, shows it, and drops it in favour of the old ones.
#
# Versions:  crates moka 0.12.16, tower-sessions-moka-store 0.15.0, tower-sessions-core 0.14.0.
# Expected:  `max_capacity(n)` keeps n entries: a new one takes the place of the one that was not used for longest, as in
#            memcached, or of an older one that is chosen in another way. What has just been put there stays for a while.
# Seen:      the cache keeps those that are asked for most often (TinyLFU). A new entry has been asked for never, or once,
#            and has to have been asked for more often than the one whose place it would take: it is the new one that
#            goes. Not at once, but when the cache next does its housekeeping, a part of a second later: until then it
#            is found. With a store of sessions upon it, of twenty new sessions, each saved without an error and loaded
#            once, all are gone within a second or two, while a hundred old ones are all still there.
# Matters:   when as many visitors as the capacity are active, nobody else can log in: the login is answered, the first
#            page after it too, and the next is for a stranger; and so on with each attempt. Those who are logged in
#            notice nothing. A cache before another store is right to do so; a cache that *is* the store needs
#            `EvictionPolicy::lru()`, which that store does not set, and room for all.
# Source:    https://docs.rs/moka/0.12.16/moka/policy/struct.EvictionPolicy.html says that TinyLFU is the default, and that
#            it has an admission policy; `Cache::insert` says nothing of it.
set -euo pipefail

T=$(mktemp -d)
trap 'rm -rf "$T"' EXIT
command -v cargo >/dev/null || { echo "cargo is missing: install Rust"; exit 2; }
echo "crates moka 0.12.16, tower-sessions-moka-store 0.15.0, tower-sessions-core 0.14.0"

mkdir "$T/src"
cat >"$T/Cargo.toml" <<'END'
[package]
name = "finding"
version = "0.0.0"
edition = "2024"

[dependencies]
moka = { version = "=0.12.16", features = ["future"] }
time = "=0.3.55"
tokio = { version = "=1.54.1", features = ["full"] }
tower-sessions-core = "=0.14.0"
tower-sessions-moka-store = "=0.15.0"
END
cat >"$T/src/main.rs" <<'END'
use std::{process::ExitCode, time::Duration};

use moka::{future::Cache, policy::EvictionPolicy};
use time::OffsetDateTime;
use tokio::time::sleep;
use tower_sessions_core::{
    SessionStore,
    session::{Id, Record},
};
use tower_sessions_moka_store::MokaStore;

const CAPACITY: usize = 100;
const NEW: usize = 20;
/// How often each old entry is asked for before the new ones come.
const OFTEN: usize = 5;

/// How many of the new entries, and of the old ones, are there in the end.
async fn with_policy(policy: EvictionPolicy) -> (usize, usize) {
    let cache = Cache::builder().max_capacity(CAPACITY as u64).eviction_policy(policy).build();
    for number in 0..CAPACITY {
        cache.insert(number, ()).await;
        cache.run_pending_tasks().await;
    }
    for _ in 0..OFTEN {
        for number in 0..CAPACITY {
            assert!(cache.get(&number).await.is_some());
        }
        cache.run_pending_tasks().await;
    }
    for number in CAPACITY..CAPACITY + NEW {
        cache.insert(number, ()).await;
        assert!(cache.get(&number).await.is_some());
        cache.run_pending_tasks().await;
    }
    let is_there = |number: &usize| cache.contains_key(number);
    ((CAPACITY..CAPACITY + NEW).filter(is_there).count(), (0..CAPACITY).filter(is_there).count())
}

async fn create(store: &MokaStore, count: usize) -> Vec<Id> {
    let mut ids = Vec::new();
    for _ in 0..count {
        let expiry_date = OffsetDateTime::now_utc() + Duration::from_secs(3600);
        let mut record = Record { id: Id::default(), data: Default::default(), expiry_date };
        store.create(&mut record).await.expect("the store says that the session is saved");
        ids.push(record.id);
    }
    ids
}

async fn found(store: &MokaStore, ids: &[Id]) -> usize {
    let mut found = 0;
    for id in ids {
        found += usize::from(store.load(id).await.unwrap().is_some());
    }
    found
}

#[tokio::main]
async fn main() -> ExitCode {
    let lru = with_policy(EvictionPolicy::lru()).await;
    let default = with_policy(EvictionPolicy::tiny_lfu()).await;
    println!("a cache for {CAPACITY}, and {NEW} more, with lru: {} new and {} old ones are there", lru.0, lru.1);
    println!("the same with tiny_lfu, the default:        {} new and {} old ones are there", default.0, default.1);

    let store = MokaStore::new(Some(CAPACITY as u64));
    let old = create(&store, CAPACITY).await;
    for _ in 0..OFTEN {
        assert_eq!(found(&store, &old).await, CAPACITY);
    }
    sleep(Duration::from_secs(1)).await;
    let new = create(&store, NEW).await;
    let at_once = found(&store, &new).await;
    // The cache does its housekeeping beside a call, not more often than every 300 ms.
    for _ in 0..2 {
        sleep(Duration::from_secs(1)).await;
        found(&store, &old[..1]).await;
    }
    let (later, old) = (found(&store, &new).await, found(&store, &old).await);
    println!("MokaStore::new(Some({CAPACITY})), {NEW} new sessions: {at_once} found at once, {later} two seconds later");
    println!("of the old sessions {old} are there");

    let described = lru == (NEW, CAPACITY - NEW) && default == (0, CAPACITY);
    if described && (at_once, later, old) == (NEW, 0, CAPACITY) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
END
cargo build --quiet --manifest-path "$T/Cargo.toml" || { echo "it could not be built"; exit 2; }
if cargo run --quiet --manifest-path "$T/Cargo.toml"; then
    echo "as described: the newest are dropped"
else
    echo "CHANGED: it no longer behaves as described"
    exit 1
fi
