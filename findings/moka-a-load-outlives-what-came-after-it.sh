#!/usr/bin/env bash
# moka: what `get_with` has begun to load is put into the cache when it comes, though the key was invalidated or inserted
# meanwhile.
#
# Versions:  crate moka 0.12.16.
# Expected:  `invalidate` discards what there is of a key, and a load that began before it is of what was there before:
#            it is not kept. And what was inserted later is newer than what was looked up earlier.
# Seen:      the load goes on, and its value is in the cache for its whole lifetime: after `invalidate`, after
#            `invalidate_all`, and in the place of what `insert` has put there meanwhile. Whoever asks after the
#            invalidation waits for the load from before, and gets its value, too.
# Matters:   a cache before a table of sessions, with `get_with` (which has only one of many look, and is recommended for
#            that): a logout deletes the row and invalidates the key. If another request of the session, an image or the
#            other tab, is just looking, the session is in the cache again and serves on until it expires there; and a
#            save that is inserted into the cache is read back as what was before it. A load has to compare a version
#            when it comes (`and_compute_with`), or the cache to forget soon.
# Source:    seen by running it; the documentation of `get_with` and `invalidate` does not speak of it.
set -euo pipefail

T=$(mktemp -d)
trap 'rm -rf "$T"' EXIT
command -v cargo >/dev/null || { echo "cargo is missing: install Rust"; exit 2; }
echo "crate moka 0.12.16"

mkdir "$T/src"
cat >"$T/Cargo.toml" <<'END'
[package]
name = "finding"
version = "0.0.0"
edition = "2024"

[dependencies]
moka = { version = "=0.12.16", features = ["future"] }
tokio = { version = "=1.54.1", features = ["full"] }
END
cat >"$T/src/main.rs" <<'END'
use std::{process::ExitCode, sync::Arc};

use moka::future::Cache;
use tokio::{sync::Notify, task::yield_now};

type Sessions = Cache<u32, &'static str>;

/// Begins to look a session up, does what comes after that, and lets the first look come to its end. What whoever looked
/// has, and what the cache has then.
async fn during_a_load(cache: Sessions, after: impl AsyncFnOnce(&Sessions)) -> (&'static str, Option<&'static str>) {
    let (looks, comes) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let load = {
        let (cache, looks, comes) = (cache.clone(), looks.clone(), comes.clone());
        tokio::spawn(async move {
            let look = async {
                looks.notify_one();
                comes.notified().await;
                "logged in"
            };
            cache.get_with(7, look).await
        })
    };
    looks.notified().await;
    after(&cache).await;
    comes.notify_one();
    let loaded = load.await.unwrap();
    (loaded, cache.get(&7).await)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let new = || Sessions::new(100);
    let nothing = during_a_load(new(), async |_| {}).await;
    let invalidated = during_a_load(new(), async |cache| {
        cache.invalidate(&7).await;
        assert!(!cache.contains_key(&7));
    });
    let invalidated = invalidated.await;
    let all = during_a_load(new(), async |cache| cache.invalidate_all()).await;
    let inserted = during_a_load(new(), async |cache| {
        cache.insert(7, "logged out").await;
        assert_eq!(cache.get(&7).await, Some("logged out"));
    });
    let inserted = inserted.await;
    let mut later = None;
    let asked = during_a_load(new(), async |cache| {
        cache.invalidate(&7).await;
        let cache = cache.clone();
        later = Some(tokio::spawn(async move { cache.get_with(7, async { "logged out" }).await }));
        for _ in 0..10 {
            yield_now().await;
        }
    });
    let asked = asked.await;
    let later = later.unwrap().await.unwrap();

    println!("nothing else: {nothing:?}");
    println!("invalidate during the load: {invalidated:?}");
    println!("invalidate_all during the load: {all:?}");
    println!("insert of \"logged out\" during the load: {inserted:?}");
    println!("invalidate, and another get_with, which would find \"logged out\": {asked:?}; the other: {later:?}");
    let old = ("logged in", Some("logged in"));
    let is_so = [nothing, invalidated, all, inserted, asked] == [old; 5] && later == "logged in";
    if is_so { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
END
cargo build --quiet --manifest-path "$T/Cargo.toml" || { echo "it could not be built"; exit 2; }
if cargo run --quiet --manifest-path "$T/Cargo.toml"; then
    echo "as described: what was looked up before is what is cached"
else
    echo "CHANGED: it no longer behaves as described"
    exit 1
fi
