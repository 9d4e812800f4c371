//! Near caches before a server in memory that tells what changes ([`sessions_tests::wire`]): one test for
//! each mechanism that keeps them right, and random histories with all of it at once.
//!
//! `SESSIONS_CASES` and `SESSIONS_SEED` as in `history`.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::{Duration, SystemTime},
};

use sessions::{
    Created, Keys, MemoryStore, Record, Replaced, SessionLayer, Store, StoreKey, store::NearCache,
};
use sessions_tests::{
    cases::{for_each_seed, in_paused_time, variable},
    history::{HistorySession, Plan, Process, Random, judge, routes, run},
    wire::{WireServer, WireStore},
};
use tokio::time::{sleep, timeout};

const STALENESS: Duration = Duration::from_millis(100);
const KEY: StoreKey = StoreKey::from_bytes([7; 32]);

fn record(version: u64) -> Record {
    let now = SystemTime::now();
    let payload = version.to_string().into_bytes();
    Record::new(version, now, now + Duration::from_secs(3600), payload)
}

fn memory() -> MemoryStore {
    MemoryStore::builder().with_sweep_interval(Duration::from_secs(100_000)).build()
}

/// Two processes with a near cache each, and their clients.
fn two() -> [(NearCache<WireStore>, WireStore); 2] {
    let server = WireServer::new(memory(), 1, Duration::ZERO);
    [(); 2].map(|()| {
        let client = server.client();
        (NearCache::builder().with_staleness(STALENESS).build(client.clone()).unwrap(), client)
    })
}

async fn version(store: &impl Store) -> Option<u64> {
    store.load(&KEY).await.unwrap().map(|record| record.version)
}

async fn save(store: &impl Store, version: u64) {
    let replaced = store.replace(&KEY, &record(version), version - 1).await.unwrap();
    assert_eq!(replaced, Replaced::Done);
}

async fn create(store: &impl Store) {
    assert_eq!(store.create(&KEY, &record(1)).await.unwrap(), Created::Done);
}

/// Lets everything go on that can.
async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_repeated_read_asks_nobody() {
    let [(here, wire), (there, _)] = two();
    create(&there).await;
    assert_eq!(version(&here).await, Some(1));
    wire.freeze();
    for _ in 0..10 {
        assert_eq!(version(&here).await, Some(1));
    }
    let stats = here.stats();
    assert_eq!((stats.hits, stats.misses, stats.sessions), (10, 1, 1), "{stats:?}");
    wire.thaw();
    // What was written is there as well.
    save(&here, 2).await;
    wire.freeze();
    assert_eq!(version(&here).await, Some(2));
}

#[tokio::test(start_paused = true)]
async fn what_another_process_changes_is_seen() {
    let [(here, _), (there, _)] = two();
    create(&there).await;
    for next in 2..20 {
        let (writer, reader) = if next % 3 == 0 { (&here, &there) } else { (&there, &here) };
        version(reader).await;
        save(writer, next).await;
        settle().await;
        assert_eq!((version(&here).await, version(&there).await), (Some(next), Some(next)));
    }
    assert!(there.delete(&KEY).await.unwrap());
    settle().await;
    assert_eq!(version(&here).await, None);
}

/// The cache takes its token before the load: the server tells of the change behind its answer, before the task that has
/// asked gets to look at the answer.
#[tokio::test(start_paused = true)]
async fn what_changes_while_it_is_loaded_is_not_kept() {
    let [(here, wire), (there, _)] = two();
    create(&there).await;
    wire.freeze();
    let load = tokio::spawn({
        let here = here.clone();
        async move { version(&here).await }
    });
    settle().await;
    save(&there, 2).await;
    wire.thaw();
    assert_eq!(load.await.unwrap(), Some(1), "it was asked before");
    assert_eq!(version(&here).await, Some(2), "and is not kept");
}

/// The same for a save: another process saves before the task that has saved gets to look at its answer.
#[tokio::test(start_paused = true)]
async fn what_changes_while_it_is_saved_is_not_kept() {
    let [(here, wire), (there, _)] = two();
    create(&here).await;
    wire.freeze();
    let saving = tokio::spawn({
        let here = here.clone();
        async move { save(&here, 2).await }
    });
    settle().await;
    save(&there, 3).await;
    wire.thaw();
    saving.await.unwrap();
    assert_eq!(version(&here).await, Some(3));
}

/// The server tells a connection nothing of what that connection has done.
#[tokio::test(start_paused = true)]
async fn what_one_writes_oneself_is_seen_at_once() {
    let [(here, wire), _] = two();
    create(&here).await;
    assert_eq!(version(&here).await, Some(1));
    let later = SystemTime::now() + Duration::from_secs(7200);
    here.touch(&KEY, later).await.unwrap();
    let found = here.load(&KEY).await.unwrap().unwrap();
    assert!(found.expires_at > later - Duration::from_secs(1));
    // Past the cache, by a clone of the store.
    save(&wire, 2).await;
    assert_eq!(version(&here).await, Some(2));
    assert!(wire.delete(&KEY).await.unwrap());
    assert_eq!(version(&here).await, None);
    create(&here).await;
    assert_eq!(version(&here).await, Some(1));
    assert!(here.delete(&KEY).await.unwrap());
    assert_eq!(version(&here).await, None);
}

/// Nobody knows what has become of a call that is dropped.
#[tokio::test(start_paused = true)]
async fn what_a_dropped_call_has_done_is_seen() {
    let [(here, wire), _] = two();
    create(&here).await;
    wire.freeze();
    let saving = timeout(Duration::from_millis(1), save(&here, 2)).await;
    assert!(saving.is_err(), "the answer does not come");
    wire.thaw();
    assert_eq!(version(&here).await, Some(2));
    wire.freeze();
    assert!(timeout(Duration::from_millis(1), here.delete(&KEY)).await.is_err());
    wire.thaw();
    assert_eq!(version(&here).await, None);
}

/// A save that is refused says that what is here is old.
#[tokio::test(start_paused = true)]
async fn a_refused_save_is_followed_by_a_look_at_the_store() {
    let [(here, _), (there, _)] = two();
    create(&there).await;
    version(&here).await;
    save(&there, 2).await;
    let refused = here.replace(&KEY, &record(2), 1).await.unwrap();
    assert_eq!(refused, Replaced::Changed);
    assert_eq!(version(&here).await, Some(2));
}

/// The staleness is a lease: it ends where the connection lives and nothing arrives on it.
#[tokio::test(start_paused = true)]
async fn a_path_that_stands_still_is_not_believed_for_longer_than_the_staleness() {
    let [(here, wire), (there, _)] = two();
    create(&there).await;
    version(&here).await;
    wire.freeze();
    assert!(there.delete(&KEY).await.unwrap());
    settle().await;
    assert_eq!(version(&here).await, Some(1), "nothing has been told");
    sleep(STALENESS + Duration::from_millis(1)).await;
    let late = timeout(Duration::from_secs(1), version(&here)).await;
    assert!(late.is_err(), "it is the store that is asked: {late:?}");
    wire.thaw();
    assert_eq!(version(&here).await, None);
}

/// One sign of life is good for everything that was read.
#[tokio::test(start_paused = true)]
async fn while_there_are_requests_the_store_is_asked_for_signs_of_life_alone() {
    let [(here, _), (there, _)] = two();
    create(&there).await;
    version(&here).await;
    for _ in 0..100 {
        sleep(STALENESS * 2 / 3).await;
        assert_eq!(version(&here).await, Some(1));
        settle().await;
    }
    let stats = here.stats();
    assert_eq!((stats.hits, stats.misses), (100, 1), "{stats:?}");
    // After a pause it is loaded again.
    sleep(STALENESS * 2).await;
    assert_eq!(version(&here).await, Some(1));
    assert_eq!(here.stats().misses, 2);
}

#[tokio::test(start_paused = true)]
async fn when_the_connection_ends_nothing_is_served_that_was_read_on_it() {
    let [(here, wire), (there, _)] = two();
    create(&there).await;
    version(&here).await;
    wire.cut();
    save(&there, 2).await;
    assert_eq!(version(&here).await, Some(2));
    save(&there, 3).await;
    settle().await;
    assert_eq!(version(&here).await, Some(3), "the new connection tells as well");
    assert_eq!(here.stats().sessions, 1);
}

#[tokio::test(start_paused = true)]
async fn when_everything_may_have_changed_nothing_is_served() {
    let server = WireServer::new(memory(), 1, Duration::ZERO);
    let here = NearCache::new(server.client()).unwrap();
    create(&here).await;
    server.tell_all();
    settle().await;
    assert_eq!(here.stats().sessions, 0);
    assert_eq!(version(&here).await, Some(1));
}

#[tokio::test(start_paused = true)]
async fn what_has_expired_is_not_served() {
    let [(here, wire), _] = two();
    let mut short = record(1);
    short.expires_at = SystemTime::now() + Duration::from_millis(300);
    assert_eq!(here.create(&KEY, &short).await.unwrap(), Created::Done);
    assert_eq!(version(&here).await, Some(1));
    wire.freeze();
    std::thread::sleep(Duration::from_millis(310));
    assert!(timeout(Duration::from_millis(1), version(&here)).await.is_err(), "it is asked for");
}

#[test]
fn impossible_caches_are_refused_in_words() {
    let server = WireServer::new(memory(), 1, Duration::ZERO);
    let table = [
        (NearCache::builder().with_staleness(Duration::ZERO), "staleness is zero"),
        (NearCache::builder().with_capacity(0), "capacity is zero"),
        (NearCache::builder().with_memory_limit(4095), "the least is 4096"),
    ];
    let client = server.client();
    for (builder, words) in table {
        let refused = builder.build(client.clone()).err().unwrap().to_string();
        assert!(refused.contains(words), "{refused}");
    }
    let builder = NearCache::builder().with_memory_limit(4096).with_capacity(1);
    let _first = builder.build(client.clone()).unwrap();
    let refused = NearCache::new(client).err().unwrap().to_string();
    assert!(refused.contains("there is a near cache already"), "{refused}");
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_for_a_change_is_told_of_one() {
    let [(here, wire), (there, _)] = two();
    create(&there).await;
    for how in 0..4 {
        version(&here).await;
        let waiting = tokio::spawn({
            let here = here.clone();
            async move { here.next_change(&KEY).await }
        });
        settle().await;
        assert!(!waiting.is_finished());
        let next = version(&there).await.unwrap() + 1;
        match how {
            0 => save(&there, next).await,
            1 => save(&here, next).await,
            2 => wire.cut(),
            _ => drop(there.delete(&KEY).await.unwrap()),
        }
        timeout(Duration::from_secs(1), waiting).await.expect("it is told").unwrap();
    }
}

// Histories.

/// What goes wrong in a history, in thousandths of the moments at which something can.
#[derive(Clone, Copy, Default)]
struct Trouble {
    freeze: u64,
    cut: u64,
    tell_all: u64,
}

fn histories(what: &str, trouble: Trouble, plan: impl Fn(u64) -> Plan) {
    let cases = variable("SESSIONS_CASES").unwrap_or(60);
    let (mut requests, mut hits) = (0, 0);
    for_each_seed(what, cases, |seed| {
        let (events, served) = one(plan(seed), trouble);
        requests += events;
        hits += served;
    });
    println!("{what}: {cases} histories, {requests} requests, {hits} reads from a cache");
    assert!(hits > cases, "the caches have been in use");
}

fn one(plan: Plan, trouble: Trouble) -> (usize, u64) {
    in_paused_time(async {
        let server = WireServer::new(memory(), plan.seed, Duration::from_millis(6));
        let clients: Vec<_> = (0..3).map(|_| server.client()).collect();
        let caches: Vec<_> = clients
            .iter()
            .map(|client| {
                NearCache::builder().with_staleness(STALENESS).build(client.clone()).unwrap()
            })
            .collect();
        let keys = Keys::generate();
        let layers: Vec<_> = caches
            .iter()
            .map(|cache| {
                SessionLayer::<HistorySession>::builder(cache.clone(), keys.clone())
                    .with_lease_time(Duration::from_millis(400))
                    .build()
                    .expect("possible settings")
            })
            .collect();
        let processes: Vec<_> =
            layers.iter().map(|layer| Process::Here(routes().layer(layer.clone()))).collect();
        let is_over = Arc::new(AtomicBool::new(false));
        let troubles = tokio::spawn(make_trouble(
            server,
            clients,
            Random(plan.seed),
            trouble,
            is_over.clone(),
        ));
        let histories = run(&plan, &processes, async || {
            is_over.store(true, SeqCst);
            // Longer than anything is late, and than anything may be stale.
            sleep(Duration::from_secs(60)).await;
            for layer in &layers {
                layer.wait_for_background_saves().await;
            }
        })
        .await;
        troubles.await.expect("it ends");
        for layer in &layers {
            layer.wait_for_background_saves().await;
            assert_eq!(layer.sessions_in_use(), 0, "a slot is left");
        }
        judge("near caches", &histories, STALENESS);
        let hits = caches.iter().map(|cache| cache.stats().hits).sum();
        (histories.iter().map(Vec::len).sum(), hits)
    })
}

async fn make_trouble(
    server: Arc<WireServer>,
    clients: Vec<WireStore>,
    mut random: Random,
    trouble: Trouble,
    is_over: Arc<AtomicBool>,
) {
    while !is_over.load(SeqCst) {
        sleep(Duration::from_millis(random.below(40))).await;
        let client = &clients[random.below(clients.len() as u64) as usize];
        let happens = random.below(1000);
        let Trouble { freeze, cut, tell_all } = trouble;
        if happens < freeze {
            client.freeze();
            let client = client.clone();
            let pause = Duration::from_millis(random.below(400));
            tokio::spawn(async move {
                sleep(pause).await;
                client.thaw();
            });
        } else if happens < freeze + cut {
            client.cut();
        } else if happens < freeze + cut + tell_all {
            server.tell_all();
        }
    }
    clients.iter().for_each(WireStore::thaw);
}

fn usual(seed: u64) -> Plan {
    Plan { seed, sessions: 2, clients: 4, requests: 25, hang_ups: 0, ends: 0 }
}

#[test]
fn histories_with_near_caches() {
    histories("near caches", Trouble::default(), |seed| Plan { ends: 60, ..usual(seed) });
}

#[test]
fn histories_with_near_caches_and_hang_ups() {
    histories("near caches, hang-ups", Trouble::default(), |seed| Plan {
        hang_ups: 200,
        ends: 30,
        ..usual(seed)
    });
}

#[test]
fn histories_with_near_caches_and_connections_that_end() {
    let trouble = Trouble { cut: 150, tell_all: 50, ..Trouble::default() };
    histories("near caches, cuts", trouble, |seed| Plan { ends: 30, hang_ups: 50, ..usual(seed) });
}

#[test]
fn histories_with_near_caches_and_paths_that_stand_still() {
    let trouble = Trouble { freeze: 200, cut: 50, tell_all: 20 };
    histories("near caches, stillness", trouble, |seed| Plan {
        ends: 60,
        hang_ups: 100,
        ..usual(seed)
    });
}
