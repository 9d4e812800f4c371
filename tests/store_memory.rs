//! What `MemoryStore` promises: as a store, about memory, and about its sweep.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::{Duration, SystemTime},
};

use sessions::{
    Created, MemoryStore, Record, Replaced, Store, StoreKey,
    testing::{ManualClock, conformance},
};
use tokio::{
    runtime::{Builder, Handle, Runtime},
    task::yield_now,
    time::{advance, pause, sleep},
};

const SECOND: Duration = Duration::from_secs(1);
const INTERVAL: Duration = Duration::from_secs(10);

/// Keys that are spread over the store's shards, as hashes are.
fn key(number: u64) -> StoreKey {
    let mut bytes = [0; 32];
    for (n, chunk) in (1..).zip(bytes.chunks_mut(8)) {
        // splitmix64
        let mut z = number.wrapping_mul(4).wrapping_add(n).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        chunk.copy_from_slice(&(z ^ (z >> 31)).to_le_bytes());
    }
    StoreKey::from_bytes(bytes)
}

fn record(now: SystemTime, life: Duration) -> Record {
    let payload = *b"payload";
    Record::new(1, now, now + life, payload)
}

async fn create(store: &MemoryStore, number: u64, record: &Record) {
    assert_eq!(store.create(&key(number), record).await.unwrap(), Created::Done);
}

/// Which of the sessions below `numbers` are there.
async fn there(store: &MemoryStore, numbers: u64) -> Vec<u64> {
    let mut found = Vec::new();
    for number in 0..numbers {
        if store.load(&key(number)).await.unwrap().is_some() {
            found.push(number);
        }
    }
    found
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().start_paused(true).build().unwrap()
}

/// Tasks of this runtime, apart from the test itself: the sweep or none.
fn tasks() -> usize {
    Handle::current().metrics().num_alive_tasks()
}

/// Lets the sweep, and whatever else runs here, do what it has to.
async fn settle() {
    for _ in 0..5_000 {
        yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn keeps_the_promises_of_a_store() {
    conformance(MemoryStore::new()).await;
    // As large as the largest number of records that the suite holds at once.
    conformance(MemoryStore::builder().with_capacity(50).build()).await;
}

#[tokio::test]
async fn expiry_is_exact_to_the_millisecond_without_a_sweep() {
    let clock = ManualClock::new();
    let store = MemoryStore::builder().with_clock(&clock).build();
    for number in 0..5 {
        create(&store, number, &record(clock.now(), SECOND)).await;
    }
    clock.advance(SECOND - Duration::from_millis(1));
    assert_eq!(there(&store, 5).await, [0, 1, 2, 3, 4]);
    clock.advance(Duration::from_millis(1));
    assert_eq!(there(&store, 5).await, [0_u64; 0]);

    let new = record(clock.now(), SECOND);
    create(&store, 0, &new).await;
    assert_eq!(store.replace(&key(1), &new, 1).await.unwrap(), Replaced::Missing);
    store.touch(&key(2), clock.now() + SECOND).await.unwrap();
    assert!(!store.delete(&key(3)).await.unwrap());
    assert_eq!(there(&store, 5).await, [0]);
    assert_eq!((store.len(), store.stats().swept), (4, 2), "`create` and `delete` cleaned up");
}

#[tokio::test]
async fn a_record_that_has_expired_already_takes_no_place() {
    let clock = ManualClock::new();
    let store = MemoryStore::builder().with_clock(&clock).with_capacity(1).build();
    create(&store, 0, &record(clock.now(), SECOND)).await;
    create(&store, 1, &record(clock.now(), Duration::ZERO)).await;
    let late = record(clock.now(), Duration::ZERO);
    assert_eq!(store.create(&key(0), &late).await.unwrap(), Created::Exists);
    assert_eq!(there(&store, 2).await, [0]);
    assert_eq!((store.len(), store.stats().evicted), (1, 0));
}

#[tokio::test]
async fn a_large_payload_is_shared_and_not_copied() {
    let store = MemoryStore::new();
    let mut record = record(SystemTime::now(), SECOND * 60).with_payload(vec![7; 513]);
    for (number, user) in [None, Some("ann".into())].into_iter().enumerate() {
        record.user = user;
        create(&store, number as u64, &record).await;
        let loaded = store.load(&key(number as u64)).await.unwrap().unwrap();
        assert!(Arc::ptr_eq(&loaded.payload, &record.payload));
    }
}

#[tokio::test]
async fn debug_shows_numbers_only() {
    let store = MemoryStore::builder().with_capacity(7).build();
    create(&store, 0, &record(SystemTime::now(), SECOND * 60)).await;
    let used = store.memory_used();
    let shown = format!(
        "MemoryStore {{ len: 1, capacity: Some(7), memory_used: {used}, \
         memory_limit: Some(134217728), \
         stats: MemoryStoreStats {{ swept: 0, evicted: 0, refused: 0 }} }}"
    );
    assert_eq!(format!("{store:?}"), shown);
    let unlimited = MemoryStore::builder().with_memory_limit(usize::MAX).build();
    let shown = format!("{unlimited:?}");
    assert!(shown.contains("capacity: None") && shown.contains("memory_limit: None"), "{shown}");
}

mod sweep {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn removes_what_has_expired_and_nothing_else() {
        let clock = ManualClock::new();
        let store = MemoryStore::builder().with_clock(&clock).build();
        for number in 0..10_000 {
            create(&store, number, &record(clock.now(), SECOND * (1 + number as u32 % 4))).await;
        }
        // Extended, by `touch` and by `replace`, and gone.
        for number in (0..10_000).step_by(4) {
            let longer = record(clock.now(), SECOND * 10);
            store.touch(&key(number), longer.expires_at).await.unwrap();
            let replaced = store.replace(&key(number + 1), &longer, 1).await.unwrap();
            assert_eq!(replaced, Replaced::Done);
        }
        assert!(store.delete(&key(2)).await.unwrap());
        assert_eq!(store.len(), 9_999);

        clock.advance(SECOND * 3);
        assert_eq!(store.len(), 9_999);
        sleep(INTERVAL * 2).await;
        assert_eq!((store.len(), store.stats().swept), (7_500, 2_499));
        clock.advance(SECOND);
        sleep(INTERVAL).await;
        assert_eq!((store.len(), store.stats().swept), (5_000, 4_999));
        let expected: Vec<_> = (0..10_000).filter(|number| number % 4 < 2).collect();
        assert_eq!(there(&store, 10_000).await, expected);
        clock.advance(SECOND * 6);
        sleep(INTERVAL).await;
        assert!(store.is_empty());
        assert_eq!(store.stats().evicted, 0);
    }

    #[tokio::test]
    async fn runs_on_its_interval() {
        let clock = ManualClock::new();
        let store = MemoryStore::builder().with_clock(&clock).with_sweep_interval(SECOND).build();
        create(&store, 0, &record(clock.now(), SECOND)).await;
        pause();
        settle().await;
        clock.advance(SECOND);
        advance(SECOND - Duration::from_millis(5)).await;
        settle().await;
        assert_eq!(store.len(), 1);
        advance(Duration::from_millis(10)).await;
        settle().await;
        assert_eq!(store.len(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn lets_others_go_first() {
        let clock = ManualClock::new();
        let store = MemoryStore::builder().with_clock(&clock).build();
        for number in 0..20_000 {
            create(&store, number, &record(clock.now(), SECOND)).await;
        }
        clock.advance(SECOND);
        // On the one thread that there is: how many sessions go while this task waits its turn?
        let (mut before, mut most, mut turns) = (store.len(), 0, 0);
        sleep(INTERVAL).await;
        while !store.is_empty() {
            let now = store.len();
            (most, before, turns) = (most.max(before - now), now, turns + 1);
            yield_now().await;
        }
        assert!(most <= 64 && turns > 500, "{most} at a time, {turns} turns");
    }

    #[tokio::test(start_paused = true)]
    async fn is_one_task_which_ends_with_the_last_clone() {
        let store = MemoryStore::new();
        assert_eq!(tasks(), 0);
        let clone = store.clone();
        for number in 0..10 {
            create(&store, number, &record(SystemTime::now(), SECOND)).await;
            create(&clone, 10 + number, &record(SystemTime::now(), SECOND)).await;
        }
        assert_eq!(tasks(), 1);
        drop(store);
        settle().await;
        assert_eq!(tasks(), 1);
        drop(clone);
        // Without waiting for the interval: paused time does not move while a task is ready.
        settle().await;
        assert_eq!(tasks(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn can_be_stopped_and_awaited() {
        let clock = ManualClock::new();
        let store = MemoryStore::builder().with_clock(&clock).build();
        create(&store, 0, &record(clock.now(), SECOND)).await;
        assert_eq!(tasks(), 1);
        tokio::join!(store.stop_sweep(), store.stop_sweep());
        assert_eq!(tasks(), 0);

        // For good; all else goes on.
        create(&store, 1, &record(clock.now(), SECOND)).await;
        assert_eq!(tasks(), 0);
        clock.advance(SECOND);
        assert_eq!(there(&store, 2).await, [0_u64; 0]);
        sleep(INTERVAL * 2).await;
        assert_eq!(store.len(), 2);
        store.stop_sweep().await;

        let never_started = MemoryStore::new();
        never_started.stop_sweep().await;
        create(&never_started, 0, &record(SystemTime::now(), SECOND)).await;
        assert_eq!(tasks(), 0);
    }

    #[test]
    fn starts_with_the_first_call_in_a_runtime_and_moves_to_the_next() {
        let clock = ManualClock::new();
        let store = MemoryStore::builder().with_clock(&clock).build();
        // `MemoryStore` needs no runtime to answer; any executor will do.
        let waker = std::task::Waker::noop();
        let record = record(clock.now(), SECOND);
        let create = std::pin::pin!(create(&store, 0, &record));
        assert!(create.poll(&mut std::task::Context::from_waker(waker)).is_ready());
        clock.advance(SECOND);

        for round in 1..4 {
            runtime().block_on(async {
                assert_eq!(tasks(), 0);
                assert_eq!(store.load(&key(0)).await.unwrap(), None);
                assert_eq!(tasks(), 1);
                sleep(INTERVAL * 2).await;
                assert_eq!((store.len(), store.stats().swept), (0, round));
                super::create(&store, 0, &super::record(clock.now(), SECOND)).await;
                clock.advance(SECOND);
            });
            assert_eq!(store.len(), 1);
        }
    }
}

mod capacity {
    use super::*;

    #[tokio::test]
    async fn the_session_nearest_to_expiry_makes_room() {
        let clock = ManualClock::new();
        let store = MemoryStore::builder().with_clock(&clock).with_capacity(100).build();
        for number in 0..100 {
            // 3 and 7 are coprime to 100: each life once, in no order.
            create(
                &store,
                number,
                &record(clock.now(), SECOND * (1000 + number as u32 * 37 % 100)),
            )
            .await;
        }
        // The first to go are kept: one is touched, one saved.
        let longer = record(clock.now(), SECOND * 5000);
        store.touch(&key(0), longer.expires_at).await.unwrap();
        let (saved, expected) = (73, 46); // 73 * 37 % 100 == 1, 46 * 37 % 100 == 2
        assert_eq!(store.replace(&key(saved), &longer, 1).await.unwrap(), Replaced::Done);
        assert_eq!((store.len(), store.stats().evicted), (100, 0));

        create(&store, 100, &record(clock.now(), SECOND)).await;
        let gone: Vec<_> = (0..100).filter(|number| *number != expected).chain([100]).collect();
        assert_eq!(there(&store, 101).await, gone);
        // Now that one is the nearest.
        create(&store, 101, &longer).await;
        assert!(!there(&store, 102).await.contains(&100));
        assert_eq!((store.len(), store.stats().evicted), (100, 2));
    }

    #[tokio::test]
    async fn expired_ones_go_before_live_ones() {
        let clock = ManualClock::new();
        let store = MemoryStore::builder().with_clock(&clock).with_capacity(10).build();
        for number in 0..10 {
            create(&store, number, &record(clock.now(), SECOND * (1 + number as u32 % 2))).await;
        }
        clock.advance(SECOND);
        for number in 10..15 {
            create(&store, number, &record(clock.now(), Duration::from_millis(1))).await;
        }
        assert_eq!(there(&store, 15).await, [1, 3, 5, 7, 9, 10, 11, 12, 13, 14]);
        assert_eq!((store.stats().swept, store.stats().evicted), (5, 0));
    }

    #[tokio::test]
    async fn a_key_in_use_evicts_nothing() {
        let clock = ManualClock::new();
        let store = MemoryStore::builder().with_clock(&clock).with_capacity(2).build();
        let short = record(clock.now(), SECOND);
        create(&store, 0, &short).await;
        create(&store, 1, &short).await;
        assert_eq!(store.create(&key(1), &short).await.unwrap(), Created::Exists);
        assert_eq!(store.replace(&key(1), &short, 1).await.unwrap(), Replaced::Done);
        clock.advance(SECOND);
        create(&store, 1, &record(clock.now(), SECOND)).await;
        assert_eq!((store.len(), store.stats().evicted), (2, 0));
        assert!(store.delete(&key(1)).await.unwrap());
        create(&store, 2, &record(clock.now(), SECOND)).await;
        assert_eq!((store.len(), store.stats().evicted), (2, 0));
    }

    #[tokio::test]
    async fn is_at_least_one() {
        let store = MemoryStore::builder().with_capacity(0).build();
        for number in 0..10 {
            create(&store, number, &record(SystemTime::now(), SECOND * 60)).await;
            assert_eq!(there(&store, 10).await, [number]);
        }
        assert_eq!((store.len(), store.stats().evicted), (1, 9));
    }

    #[test]
    fn holds_at_every_moment_from_many_threads() {
        for capacity in [1, 2, 100] {
            let store = MemoryStore::builder().with_capacity(capacity).build();
            let (done, most) = (AtomicBool::new(false), AtomicUsize::new(0));
            thread::scope(|scope| {
                scope.spawn(|| {
                    while !done.load(SeqCst) {
                        most.fetch_max(store.len(), SeqCst);
                        thread::yield_now();
                    }
                });
                let creators: Vec<_> = (0..8)
                    .map(|thread| {
                        let store = &store;
                        scope.spawn(move || {
                            runtime().block_on(async {
                                for n in 0..300 {
                                    let number = thread * 300 + n;
                                    let life = SECOND * (60 + number as u32 * 7919 % 1000);
                                    create(store, number, &record(SystemTime::now(), life)).await;
                                    if n % 10 == 0 {
                                        let _ = store.delete(&key(number)).await.unwrap();
                                    }
                                }
                            });
                        })
                    })
                    .collect();
                // Not unwrapped before the watcher is told: it would be waited for without end.
                let outcomes: Vec<_> = creators.into_iter().map(|creator| creator.join()).collect();
                done.store(true, SeqCst);
                outcomes.into_iter().for_each(|outcome| outcome.unwrap());
            });
            assert!(most.into_inner() <= capacity);
            // What the counter says is what can be found.
            let found = runtime().block_on(there(&store, 2_400)).len();
            assert_eq!(found, store.len());
            assert!(found <= capacity && store.stats().evicted > 1_000);
        }
    }

    /// Two creates of the same key in a full store, over and over: no place may get lost.
    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn no_place_is_lost_when_creates_of_one_key_meet() {
        let store = MemoryStore::builder().with_capacity(4).build();
        for number in 0..500 {
            let tasks = [0; 4].map(|_| {
                let store = store.clone();
                // Each expires later than those before it: the newest is never the one to give way.
                let life = SECOND * 60 + Duration::from_millis(10 * number);
                let record = record(SystemTime::now(), life);
                tokio::spawn(async move { store.create(&key(number), &record).await.unwrap() })
            });
            let mut done = 0;
            for task in tasks {
                done += usize::from(task.await.unwrap() == Created::Done);
            }
            assert_eq!(done, 1);
        }
        let found = there(&store, 500).await.len();
        assert_eq!(found, store.len());
        for number in 500..504 {
            create(&store, number, &record(SystemTime::now(), SECOND * 60)).await;
        }
        assert_eq!((store.len(), there(&store, 504).await.len()), (4, 4));
    }
}

/// What gives way, and what does not.
mod worth {
    use std::error::Error;

    use super::*;

    const LONG: Duration = Duration::from_secs(3_600);

    fn of(user: &str, life: Duration) -> Record {
        record(SystemTime::now(), life).with_user(Some(user.into()))
    }

    fn nobodys(life: Duration) -> Record {
        record(SystemTime::now(), life)
    }

    /// The finding of an audit: a store with a capacity of 1,000, 100 sessions that somebody is logged
    /// in to, and 1,100 requests without a cookie.
    #[tokio::test]
    async fn a_flood_pushes_out_nobody_who_is_logged_in() {
        let store = MemoryStore::builder().with_capacity(1_000).build();
        for number in 0..100 {
            create(&store, number, &of("ann", LONG)).await;
        }
        for number in 100..10_000 {
            create(&store, number, &nobodys(LONG * 2)).await;
        }
        assert_eq!((store.len(), there(&store, 100).await.len()), (1_000, 100));
        let stats = store.stats();
        assert_eq!((stats.evicted, stats.refused), (9_000, 0));
    }

    #[tokio::test]
    async fn the_unused_give_way_before_the_used() {
        let store = MemoryStore::builder().with_capacity(30).build();
        for number in 0..30 {
            create(&store, number, &nobodys(LONG)).await;
        }
        // A request comes back to some: looks, or saves, or both.
        for number in 0..5 {
            assert!(store.load(&key(number)).await.unwrap().is_some());
        }
        for number in 5..10 {
            let replaced = store.replace(&key(number), &nobodys(LONG), 1).await.unwrap();
            assert_eq!(replaced, Replaced::Done);
        }
        for number in 30..1_000 {
            let later = Duration::from_millis(50 * number);
            create(&store, number, &nobodys(LONG * 2 + later)).await;
        }
        let left = there(&store, 1_000).await;
        assert_eq!(left[..10], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
        assert_eq!((left.len(), left[10]), (30, 980), "of the flood, the oldest went first");
    }

    /// Whether the sweep has sorted out which are used, or the request has to that finds no room.
    #[tokio::test(start_paused = true)]
    async fn of_the_used_the_nearest_to_expiry_gives_way_first_and_after_the_unused() {
        for sweeps in [false, true] {
            let store = MemoryStore::builder().with_capacity(1_000).build();
            for number in 0..1_000 {
                create(&store, number, &nobodys(LONG + SECOND * number as u32)).await;
            }
            // All but the last hundred.
            assert_eq!(there(&store, 900).await.len(), 900);
            if sweeps {
                sleep(INTERVAL * 2).await;
            }
            for (newcomer, given_way) in (1_000..1_500).zip((900..1_000).chain(0..)) {
                assert!(store.load(&key(newcomer)).await.unwrap().is_none());
                create(&store, newcomer, &nobodys(LONG * 10)).await;
                assert!(store.load(&key(newcomer)).await.unwrap().is_some(), "used at once");
                assert!(store.load(&key(given_way)).await.unwrap().is_none(), "{given_way}");
                assert_eq!(store.len(), 1_000);
            }
            assert_eq!((store.stats().swept, store.stats().evicted), (0, 500));
        }
    }

    #[tokio::test]
    async fn what_has_expired_gives_way_before_all_else() {
        let clock = ManualClock::new();
        let store = MemoryStore::builder().with_clock(&clock).with_capacity(3).build();
        let soon = record(clock.now(), SECOND).with_user(Some("ann".into()));
        create(&store, 0, &soon).await;
        create(&store, 1, &record(clock.now(), LONG)).await;
        create(&store, 2, &record(clock.now(), LONG)).await;
        clock.advance(SECOND);
        create(&store, 3, &record(clock.now(), LONG)).await;
        assert_eq!(there(&store, 4).await, [1, 2, 3]);
        assert_eq!((store.stats().swept, store.stats().evicted), (1, 0));
    }

    #[tokio::test]
    async fn when_only_those_who_are_logged_in_are_left_the_newcomer_is_refused() {
        for by_capacity in [true, false] {
            let builder = MemoryStore::builder();
            let store = match by_capacity {
                true => builder.with_capacity(20),
                false => builder.with_memory_limit(20 * cost(&of("ann", LONG)).await),
            }
            .build();
            for number in 0..20 {
                create(&store, number, &of("ann", LONG)).await;
            }
            for newcomer in [nobodys(LONG), of("bob", LONG)] {
                let error = store.create(&key(99), &newcomer).await.unwrap_err();
                assert!(error.is_retryable());
                let cause = error.source().unwrap().to_string();
                assert!(
                    cause.contains("full of sessions that somebody is logged in to"),
                    "{cause}"
                );
            }
            assert_eq!((there(&store, 100).await.len(), store.stats().refused), (20, 2));
            // What needs no room is done: a save, and the first of a key that is there.
            assert_eq!(store.create(&key(0), &nobodys(LONG)).await.unwrap(), Created::Exists);
            let saved = store.replace(&key(1), &of("ann", LONG), 1).await.unwrap();
            assert_eq!(saved, Replaced::Done);
            // After a logout there is room.
            assert!(store.delete(&key(0)).await.unwrap());
            create(&store, 99, &nobodys(LONG)).await;
        }
    }

    /// What the store reckons for one such session.
    async fn cost(record: &Record) -> usize {
        let store = MemoryStore::new();
        create(&store, 0, record).await;
        store.memory_used()
    }

    #[tokio::test]
    async fn what_a_session_takes_is_given_back_with_it() {
        let clock = ManualClock::new();
        let store = MemoryStore::builder().with_clock(&clock).build();
        let large = |user: Option<&str>| {
            record(clock.now(), LONG).with_user(user.map(Into::into)).with_payload(vec![0; 100_000])
        };
        create(&store, 0, &record(clock.now(), LONG)).await;
        let small = store.memory_used();
        for user in [None, Some("ann")] {
            assert_eq!(store.replace(&key(0), &large(user), 1).await.unwrap(), Replaced::Done);
            // And a quarter for what lies between pieces of that size.
            assert!((100_000..126_000).contains(&store.memory_used()));
            let back = store.replace(&key(0), &record(clock.now(), LONG), 1).await.unwrap();
            assert_eq!((back, store.memory_used()), (Replaced::Done, small));
        }
        create(&store, 1, &large(Some("ann"))).await;
        assert!(store.delete(&key(1)).await.unwrap());
        create(&store, 2, &large(None)).await;
        assert_eq!(store.replace(&key(2), &large(Some("bob")), 1).await.unwrap(), Replaced::Done);
        clock.advance(LONG);
        assert!(!store.delete(&key(2)).await.unwrap(), "it had expired");
        assert_eq!(store.memory_used(), small);
        create(&store, 0, &large(Some("ann"))).await;
        assert!(store.delete(&key(0)).await.unwrap());
        assert_eq!(store.memory_used(), 0);
    }

    #[tokio::test]
    async fn a_session_that_grows_makes_others_give_way_and_never_itself() {
        let grown = nobodys(LONG).with_payload(vec![0; 5_000]);
        let limit = 50 * cost(&nobodys(LONG)).await;
        let store = MemoryStore::builder().with_memory_limit(limit).build();
        create(&store, 0, &nobodys(SECOND * 60)).await;
        for number in 1..50 {
            create(&store, number, &nobodys(LONG)).await;
        }
        assert_eq!(store.len(), 50);
        // It is the next to expire.
        assert_eq!(store.replace(&key(0), &grown, 1).await.unwrap(), Replaced::Done);
        assert!(store.memory_used() <= limit);
        assert!(store.load(&key(0)).await.unwrap().is_some_and(|it| it.payload.len() == 5_000));
        assert!((5..45).contains(&store.len()), "{store:?}");
    }

    #[tokio::test]
    async fn a_session_that_is_larger_than_the_limit_pushes_out_nobody() {
        let store = MemoryStore::builder().with_memory_limit(10_000).build();
        for number in 0..20 {
            create(&store, number, &nobodys(LONG)).await;
        }
        let huge = nobodys(LONG).with_payload(vec![0; 10_000]);
        for error in [
            store.create(&key(99), &huge).await.unwrap_err(),
            store.replace(&key(0), &huge, 1).await.unwrap_err(),
        ] {
            assert!(!error.is_retryable());
            let cause = error.source().unwrap().to_string();
            assert!(cause.contains("larger than all that it may take: 10000 bytes"), "{cause}");
        }
        assert_eq!((store.len(), store.stats().refused), (20, 2));
    }

    /// Many threads make, save, grow, use and end sessions in a store that is always full: no byte and
    /// no place gets lost, and nobody who is logged in is.
    #[test]
    fn the_limit_holds_from_many_threads() {
        let limit = 60_000;
        let store = MemoryStore::builder().with_memory_limit(limit).with_capacity(150).build();
        runtime().block_on(async {
            for number in 1_000_000..1_000_020 {
                create(&store, number, &of("ann", LONG)).await;
            }
        });
        let (done, most) = (AtomicBool::new(false), AtomicUsize::new(0));
        thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(SeqCst) {
                    most.fetch_max(store.memory_used(), SeqCst);
                    thread::yield_now();
                }
            });
            let workers: Vec<_> = (0..8_u64)
                .map(|worker| {
                    let store = &store;
                    scope.spawn(move || {
                        runtime().block_on(async {
                            for n in 0..600 {
                                let number = worker * 600 + n;
                                let mut record = nobodys(LONG);
                                record.payload = vec![0; number as usize * 7_919 % 900].into();
                                // A place is given to every newcomer, and room as well.
                                create(store, number, &record).await;
                                record.payload = vec![0; number as usize * 104_729 % 900].into();
                                match n % 5 {
                                    0 => _ = store.delete(&key(number)).await.unwrap(),
                                    1 => drop(store.load(&key(number)).await.unwrap()),
                                    _ => _ = store.replace(&key(number), &record, 1).await.unwrap(),
                                }
                            }
                        });
                    })
                })
                .collect();
            let outcomes: Vec<_> = workers.into_iter().map(|worker| worker.join()).collect();
            done.store(true, SeqCst);
            outcomes.into_iter().for_each(|outcome| outcome.unwrap());
        });
        assert!(most.into_inner() <= limit);
        runtime().block_on(async {
            let mut left = 0;
            for number in (0..4_800).chain(1_000_000..1_000_020) {
                left += usize::from(store.delete(&key(number)).await.unwrap());
                assert!(number < 1_000_000 || store.len() < 20);
            }
            assert!(left > 20 && left <= 150);
        });
        assert_eq!((store.len(), store.memory_used()), (0, 0));
    }
}
