//! The cache by itself: what is kept, what gives way, what is served. Over a whole store in
//! `tests/near`.

use std::{
    mem::ManuallyDrop,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::time::{Instant, advance};

use super::{
    NearCacheStats,
    cache::{Cache, ENTRY, Found, InFlight},
};
use crate::{
    identity::id::StoreKey,
    record::Record,
    store::watch::{Feed, Watcher},
};

const STALENESS: Duration = Duration::from_secs(1);

fn key(number: u16) -> StoreKey {
    let [high, low] = number.to_be_bytes();
    StoreKey::from_bytes(std::array::from_fn(|at| if at % 2 == 0 { low } else { high }))
}

fn record(version: u64, payload: usize) -> Record {
    let now = SystemTime::now();
    let expires_at = now + Duration::from_secs(3600);
    let payload = vec![0; payload].into();
    Record { version, created_at: now, expires_at, user: None, payload }
}

fn cache(records: usize, bytes: usize) -> (Arc<Cache>, Feed) {
    let cache = Arc::new(Cache::new(records, bytes, STALENESS));
    let feed = Watcher::new(&cache).feed();
    (cache, feed)
}

async fn confirmed(feed: &Feed) {
    advance(Duration::from_millis(1)).await;
    feed.confirm(Instant::now().into_std());
}

fn keep(cache: &Cache, key: &StoreKey, record: &Record, feed: &Feed) {
    cache.read(key).keep(record, Some(feed.clone()));
}

/// The version that is served, and whether a sign of life is wanted.
fn found(cache: &Cache, key: &StoreKey) -> Option<(u64, bool)> {
    match cache.find(key, Instant::now(), SystemTime::now()) {
        Found::Fresh(record, feed) => Some((record.version, feed.is_some())),
        Found::Nothing => None,
    }
}

#[tokio::test(start_paused = true)]
async fn a_record_is_served_as_long_as_its_feed_is_confirmed() {
    let (cache, feed) = cache(10, 100_000);
    keep(&cache, &key(1), &record(1, 10), &feed);
    assert_eq!(found(&cache, &key(1)), None, "never confirmed");
    confirmed(&feed).await;
    assert_eq!(found(&cache, &key(1)), Some((1, false)));
    advance(STALENESS / 2).await;
    assert_eq!(found(&cache, &key(1)), Some((1, true)), "a sign of life is wanted");
    advance(STALENESS / 2).await;
    assert_eq!(found(&cache, &key(1)), Some((1, true)), "just as old as it may be");
    advance(Duration::from_millis(1)).await;
    assert_eq!(found(&cache, &key(1)), None);
    confirmed(&feed).await;
    assert_eq!(found(&cache, &key(1)), Some((1, false)), "one sign of life is for all");
    // An answer that comes late says nothing new.
    feed.confirm((Instant::now() - STALENESS).into_std());
    assert_eq!(found(&cache, &key(1)), Some((1, false)));
    feed.end();
    feed.confirm(Instant::now().into_std());
    assert_eq!(found(&cache, &key(1)), None);
    keep(&cache, &key(1), &record(1, 10), &feed);
    assert_eq!(cache.stats().sessions, 0);
}

/// A read that is on its way for as long as the test runs.
fn still(read: InFlight<'_>) {
    let _ = ManuallyDrop::new(read);
}

/// What happens while a read is on its way, and whether its record is kept then.
#[tokio::test(start_paused = true)]
async fn what_a_read_brings_is_kept_unless_something_was_told_since_it_began() {
    type Step = fn(&Cache, &Feed);
    let cases: [(&str, Step, bool); 9] = [
        ("nothing", |_, _| {}, true),
        ("another key changes", |cache, _| cache.changed(&key(2)), true),
        ("the key changes", |cache, _| cache.changed(&key(1)), false),
        ("everything may have changed", |cache, _| cache.clear(), false),
        ("the feed ends", |_, feed| feed.end(), false),
        ("a write begins and ends", |cache, _| drop(cache.write(&key(1))), false),
        ("a later read begins", |cache, _| still(cache.read(&key(1))), false),
        ("a later read comes to nothing", |cache, _| drop(cache.read(&key(1))), false),
        ("another key is read", |cache, _| still(cache.read(&key(2))), true),
    ];
    for (name, step, is_kept) in cases {
        let (cache, feed) = cache(10, 100_000);
        confirmed(&feed).await;
        let read = cache.read(&key(1));
        step(&cache, &feed);
        read.keep(&record(1, 10), Some(feed));
        assert_eq!(found(&cache, &key(1)).is_some(), is_kept, "{name}");
    }
    let (cache, feed) = cache(10, 100_000);
    confirmed(&feed).await;
    cache.read(&key(1)).keep(&record(1, 10), None);
    assert_eq!(found(&cache, &key(1)), None, "nobody tells of its changes");
}

/// News that say which version and expiry a record has now.
#[tokio::test(start_paused = true)]
async fn news_of_what_is_here_already_take_nothing_away() {
    let (cache, feed) = cache(10, 100_000);
    confirmed(&feed).await;
    let here = record(2, 10);
    let tell = |feed: &Feed, version, expires_at| feed.changed_to(&key(1), version, expires_at);
    let later = here.expires_at + Duration::from_secs(1);
    for (version, expires_at, is_kept) in [
        (2, here.expires_at, true),
        (1, here.expires_at, false),
        (3, here.expires_at, false),
        (2, later, false),
    ] {
        keep(&cache, &key(1), &here, &feed);
        tell(&feed, version, expires_at);
        assert_eq!(found(&cache, &key(1)).is_some(), is_kept, "{version}");
    }
    // While it is read or written: what is newer than the news has them in it.
    for (version, expires_at, is_kept) in [
        (2, here.expires_at, true),
        (1, here.expires_at, true),
        (1, later, true),
        (3, here.expires_at, false),
        (2, later, false),
    ] {
        for is_write in [false, true] {
            cache.changed(&key(1));
            let read = if is_write { cache.write(&key(1)) } else { cache.read(&key(1)) };
            tell(&feed, 1, here.expires_at);
            tell(&feed, version, expires_at);
            read.keep(&here, Some(feed.clone()));
            assert_eq!(found(&cache, &key(1)).is_some(), is_kept, "{version} {is_write}");
        }
    }
    let read = cache.read(&key(1));
    tell(&feed, 2, here.expires_at);
    feed.changed(&key(1));
    read.keep(&here, Some(feed.clone()));
    assert_eq!(found(&cache, &key(1)), None, "it is gone");
}

/// A read that was answered before a write, and is looked at while the write is on its way.
#[tokio::test(start_paused = true)]
async fn what_is_read_during_a_write_is_gone_after_it() {
    let (cache, feed) = cache(10, 100_000);
    confirmed(&feed).await;
    keep(&cache, &key(1), &record(1, 10), &feed);
    let write = cache.write(&key(1));
    assert_eq!(found(&cache, &key(1)), None, "not from the beginning of the write on");
    keep(&cache, &key(1), &record(1, 10), &feed);
    assert_eq!(found(&cache, &key(1)), None, "a change of it may pass for the write's echo");
    write.keep(&record(2, 10), Some(feed.clone()));
    assert_eq!(found(&cache, &key(1)), None, "the read has begun last");
    let (first, second) = (cache.write(&key(1)), cache.write(&key(1)));
    second.keep(&record(2, 10), Some(feed.clone()));
    assert_eq!(found(&cache, &key(1)), None, "another write is on its way");
    drop(first);

    let write = cache.write(&key(1));
    keep(&cache, &key(1), &record(1, 10), &feed);
    drop(write);
    assert_eq!(found(&cache, &key(1)), None, "it may have been carried out");
    let write = cache.write(&key(1));
    let read = cache.read(&key(1));
    drop(write);
    read.keep(&record(1, 10), Some(feed.clone()));
    assert_eq!(found(&cache, &key(1)), None, "the read may have been answered before the write");

    cache.write(&key(1)).keep(&record(3, 10), Some(feed.clone()));
    assert_eq!(found(&cache, &key(1)), Some((3, false)), "what was written is there");
    let around = Watcher::new(&cache).around(&key(1));
    assert_eq!(found(&cache, &key(1)), None);
    keep(&cache, &key(1), &record(3, 10), &feed);
    drop(around);
    assert_eq!(found(&cache, &key(1)), None);
}

#[tokio::test(start_paused = true)]
async fn the_limits_hold_and_what_was_used_stays() {
    for (records, bytes, most) in [(10, usize::MAX, 10), (usize::MAX >> 8, 10 * (ENTRY + 100), 10)]
    {
        let (cache, feed) = cache(records, bytes);
        confirmed(&feed).await;
        if records == 10 {
            for number in 0..1_000 {
                keep(&cache, &key(number), &record(1, 100), &feed);
                assert_eq!(found(&cache, &key(0)).map(|it| it.0), Some(1), "in use: {number}");
            }
        } else {
            (0..1_000).for_each(|number| keep(&cache, &key(number), &record(1, 100), &feed));
        }
        let NearCacheStats { sessions, bytes: taken, evictions, .. } = cache.stats();
        assert!(sessions <= most && taken <= most * (ENTRY + 100), "{:?}", cache.stats());
        assert_eq!(evictions, 1_000 - sessions as u64);
        (0..1_000).for_each(|number| cache.changed(&key(number)));
        let NearCacheStats { sessions, bytes, changes, .. } = cache.stats();
        assert_eq!((sessions, bytes, changes), (0, 0, 1_000 - evictions));
    }
    // One that is larger than all of it takes nobody's place.
    let (cache, feed) = cache(10, 1_000);
    confirmed(&feed).await;
    keep(&cache, &key(1), &record(1, 10), &feed);
    keep(&cache, &key(2), &record(1, 1_000), &feed);
    assert_eq!((found(&cache, &key(1)).is_some(), found(&cache, &key(2)).is_some()), (true, false));
    let (none, feed) = self::cache(0, 1_000);
    confirmed(&feed).await;
    keep(&none, &key(1), &record(1, 10), &feed);
    assert_eq!(found(&none, &key(1)), None);
}

#[tokio::test(start_paused = true)]
async fn only_one_asks_for_a_sign_of_life() {
    let (_cache, feed) = cache(10, 1_000);
    let asking = feed.ask();
    assert!(asking.is_some() && feed.ask().is_none());
    drop(asking);
    assert!(feed.ask().is_some(), "also after one that was dropped");
}

/// The feeds beside the records do not keep the cache.
#[tokio::test(start_paused = true)]
async fn a_cache_that_nobody_has_is_gone() {
    let (cache, feed) = cache(10, 10_000);
    confirmed(&feed).await;
    keep(&cache, &key(1), &record(1, 10), &feed);
    let gone = Arc::downgrade(&cache);
    drop(cache);
    assert!(gone.upgrade().is_none());
    feed.changed(&key(1));
    feed.forget_all();
    feed.end();
}
