//! Redis, alone, behind Sentinel and as a cluster.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    time::{Duration, Instant, SystemTime},
};

use sessions::{
    Created, RedisStore, Replaced, Store, StoreKey, UserIndex, store::AllSessions,
    testing::conformance,
};
use sessions_tests::servers::{Kind, RedisCluster, RedisSentinels, StoreServer};
use tokio::time::sleep;

use crate::{
    app,
    checks::{
        HANGS, Load, all_retryable, all_sessions, dropped_calls_answer_nobody_else, hangs, key,
        record, recovers, user_index,
    },
    under_test,
};

/// A connection past the store.
async fn admin(server: &StoreServer) -> redis::aio::MultiplexedConnection {
    let client = redis::Client::open(server.url()).unwrap();
    client.get_multiplexed_async_connection().await.unwrap()
}

async fn command<T: redis::FromRedisValue>(
    connection: &mut redis::aio::MultiplexedConnection,
    words: &[&str],
) -> T {
    let mut command = redis::cmd(words[0]);
    command.arg(&words[1..]);
    command.query_async(connection).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_keeps_its_promises() {
    let Some(server) = StoreServer::start(Kind::Redis) else { return };
    under_test("Redis");
    let store = RedisStore::connect(&server.url()).await.unwrap();
    all_sessions(&store).await;
    // What a pattern might take for something else.
    let odd = RedisStore::builder().with_prefix("a*b?[c]\\d");
    all_sessions(&odd.connect(&server.url()).await.unwrap()).await;
    assert_eq!(store.count().await.unwrap().sessions, 0);
    conformance(store.clone()).await;
    user_index(&store).await;
    dropped_calls_answer_nobody_else(&store).await;
    app::works_on(store.clone()).await;
    let debug = format!("{store:?}");
    assert!(debug.contains("sessions") && !debug.contains("127.0.0.1"), "{debug}");

    // Two prefixes are two stores.
    let builder = RedisStore::builder().with_prefix("other");
    let other = builder.connect(&server.url()).await.unwrap();
    let session = key();
    assert_eq!(store.create(&session, &record(1, None, b"x")).await.unwrap(), Created::Done);
    assert!(other.load(&session).await.unwrap().is_none());

    // Redis expires by itself, not long after.
    let mut admin = admin(&server).await;
    let name = format!("sessions:{{{session}}}");
    let left: i64 = command(&mut admin, &["PTTL", &name]).await;
    assert!((3_500_000..=3_600_000).contains(&left), "{left}");
    let later = SystemTime::now() + Duration::from_secs(7200);
    store.touch(&session, later).await.unwrap();
    let left: i64 = command(&mut admin, &["PTTL", &name]).await;
    assert!((7_100_000..=7_200_000).contains(&left), "{left}");

    // What others have put there is neither used nor overwritten.
    for (set, at) in [("junk", 1), ("", 2), ("a longer value, which is no session either", 3)] {
        let foreign = key();
        let name = format!("sessions:{{{foreign}}}");
        if set.is_empty() {
            let _: i64 = command(&mut admin, &["LPUSH", &name, "x"]).await;
        } else {
            let _: String = command(&mut admin, &["SET", &name, set]).await;
        }
        for error in [
            store.load(&foreign).await.unwrap_err(),
            store.create(&foreign, &record(1, None, b"x")).await.unwrap_err(),
            store.replace(&foreign, &record(2, None, b"x"), 1).await.unwrap_err(),
            store.delete(&foreign).await.unwrap_err(),
            store.touch(&foreign, later).await.unwrap_err(),
        ] {
            let cause = std::error::Error::source(&error).unwrap().to_string();
            assert!(!error.is_retryable(), "{at} {error} {cause}");
            assert!(cause.contains("who else writes there"), "{at} {error} {cause}");
        }
        let there: i64 = command(&mut admin, &["EXISTS", &name]).await;
        assert_eq!(there, 1);
    }
}

/// A user's set does not grow with the sessions that are over, and goes after the last.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_set_of_a_user_does_not_grow() {
    let Some(server) = StoreServer::start(Kind::Redis) else { return };
    let store = RedisStore::connect(&server.url()).await.unwrap();
    let mut admin = admin(&server).await;
    for _ in 0..20 {
        let session = key();
        let created = store.create(&session, &record(1, Some("ann"), b"")).await.unwrap();
        assert_eq!(created, Created::Done);
        assert!(store.delete(&session).await.unwrap());
    }
    let set = "sessions:user:ann";
    let size: i64 = command(&mut admin, &["ZCARD", set]).await;
    assert_eq!(size, 20, "they are cleaned up when they are met");
    assert!(store.sessions_of("ann").await.unwrap().is_empty());
    let size: i64 = command(&mut admin, &["ZCARD", set]).await;
    assert_eq!(size, 0);

    // Entries that nobody looks at go when their time has been over for a day.
    let ago = (SystemTime::now() - Duration::from_secs(2 * 86_400))
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap()
        .as_millis()
        .to_string();
    let _: i64 = command(&mut admin, &["ZADD", set, &ago, "long gone"]).await;
    assert_eq!(store.create(&key(), &record(1, Some("ann"), b"")).await.unwrap(), Created::Done);
    let size: i64 = command(&mut admin, &["ZCARD", set]).await;
    assert_eq!(size, 1);
    let left: i64 = command(&mut admin, &["PTTL", set]).await;
    assert!(left > 86_400_000, "a day longer than the session: {left}");
}

/// A load is one round trip and a save is one, as the server counts them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_counts_one_round_trip_for_each_call() {
    let Some(server) = StoreServer::start(Kind::Redis) else { return };
    let store = RedisStore::connect(&server.url()).await.unwrap();
    let connection = admin(&server).await;
    // The scripts are known before the count begins.
    conformance(store.clone()).await;
    let calls = async || {
        let number = |info: &str, name: &str| -> i64 {
            let line = info.lines().find_map(|line| line.strip_prefix(name));
            line.map_or(0, |line| line.split(',').next().unwrap().parse().unwrap())
        };
        let info: String =
            command(&mut connection.clone(), &["INFO", "stats", "commandstats"]).await;
        let calls = |name: &str| number(&info, &format!("cmdstat_{name}:calls="));
        // What comes over the wire is GET, SET and EVALSHA; how often the server read something
        // from a connection says how they came.
        let reads = number(&info, "total_reads_processed:");
        [calls("get"), calls("evalsha"), calls("eval"), calls("set"), reads]
    };
    let server = counting_app(store).await;
    let client = server.client();
    for (path, expected) in [
        ("/visit", [0, 1, 0, 1, 1]),
        ("/look", [1, 0, 0, 0, 1]),
        ("/look", [1, 0, 0, 0, 1]),
        ("/visit", [1, 1, 0, 1, 2]),
        ("/ignore", [0, 0, 0, 0, 0]),
    ] {
        let before = calls().await;
        assert!(client.get(path).await.status.is_success());
        let after = calls().await;
        let mut difference: [i64; 5] = std::array::from_fn(|at| after[at] - before[at]);
        // The second question was one, too.
        difference[4] -= 1;
        assert_eq!(difference, expected, "{path}");
    }
}

async fn counting_app(store: RedisStore) -> sessions_tests::Server {
    app::app(store, sessions::Keys::generate()).await
}

/// Whatever happens to the server and its connections: no wrong answer, nothing lost that was
/// acknowledged, and the store recovers by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_loses_nothing_when_it_is_killed() {
    let Some(mut server) = StoreServer::start(Kind::Redis) else { return };
    let store = RedisStore::connect(&server.url()).await.unwrap();

    let load = Load::start(store.clone(), 8).await;
    let mut connection = admin(&server).await;
    for _ in 0..5 {
        sleep(Duration::from_millis(50)).await;
        let _: String = command(&mut connection, &["SCRIPT", "FLUSH"]).await;
    }
    let errors = load.finish().await;
    assert!(errors.is_empty(), "a flush of the scripts is not to be seen: {errors:?}");

    let load = Load::start(store.clone(), 8).await;
    for _ in 0..5 {
        sleep(Duration::from_millis(50)).await;
        let _: i64 = command(&mut connection, &["CLIENT", "KILL", "SKIPME", "yes"]).await;
        recovers(&store).await;
    }
    all_retryable(&load.finish().await);

    let load = Load::start(store.clone(), 8).await;
    for _ in 0..2 {
        sleep(Duration::from_millis(200)).await;
        server.kill();
        sleep(Duration::from_millis(200)).await;
        server.restart();
        recovers(&store).await;
    }
    let errors = load.finish().await;
    assert!(!errors.is_empty(), "the server was away");
    all_retryable(&errors);
    conformance(store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_hangs_is_an_error() {
    let Some(server) = StoreServer::start(Kind::Redis) else { return };
    let builder = RedisStore::builder().with_timeout(HANGS);
    let store = builder.connect(&server.url()).await.unwrap();
    hangs(store, &server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_without_memory_is_an_error() {
    let Some(server) = StoreServer::start(Kind::Redis) else { return };
    let store = RedisStore::connect(&server.url()).await.unwrap();
    let session = key();
    let first = record(1, Some("ann"), &[7; 1000]);
    assert_eq!(store.create(&session, &first).await.unwrap(), Created::Done);
    let mut admin = admin(&server).await;
    let _: String = command(&mut admin, &["CONFIG", "SET", "maxmemory", "1mb"]).await;
    for error in [
        store.create(&key(), &record(1, None, &[7; 1000])).await.unwrap_err(),
        store.replace(&session, &record(2, Some("ann"), b"new"), 1).await.unwrap_err(),
    ] {
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert!(error.is_retryable() && cause.contains("maxmemory"), "{error}: {cause}");
    }
    let found = store.load(&session).await.unwrap().expect("it can still be read");
    assert_eq!((found.version, found.payload), (1, first.payload));
    assert!(store.delete(&session).await.unwrap(), "and it can end");
    let _: String = command(&mut admin, &["CONFIG", "SET", "maxmemory", "0"]).await;
    assert_eq!(store.create(&session, &record(1, None, b"x")).await.unwrap(), Created::Done);
}

/// Nothing stays beside a session, whatever a save finds; and what Redis has evicted there is an
/// error, not a save.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_keeps_nothing_beside_a_session() {
    let Some(server) = StoreServer::start(Kind::Redis) else { return };
    let store = RedisStore::connect(&server.url()).await.unwrap();
    let session = key();
    let first = record(1, Some("ann"), b"x");
    assert_eq!(store.create(&session, &first).await.unwrap(), Created::Done);
    assert_eq!(store.create(&session, &first).await.unwrap(), Created::Exists);
    let second = record(2, Some("ann"), b"y");
    assert_eq!(store.replace(&session, &second, 1).await.unwrap(), Replaced::Done);
    assert_eq!(store.replace(&session, &second, 1).await.unwrap(), Replaced::Changed);
    assert_eq!(store.replace(&key(), &second, 1).await.unwrap(), Replaced::Missing);
    let mut admin = admin(&server).await;
    let mut keys: Vec<String> = command(&mut admin, &["KEYS", "*"]).await;
    keys.sort();
    assert_eq!(keys, ["sessions:user:ann".to_string(), format!("sessions:{{{session}}}")]);

    // A record that is over already is kept a moment, and counts as absent.
    let over = record(3, None, b"z").with_expires_at(SystemTime::now());
    assert_eq!(store.replace(&session, &over, 2).await.unwrap(), Replaced::Done);
    assert!(store.load(&session).await.unwrap().is_none());
    assert_eq!(store.create(&session, &first).await.unwrap(), Created::Done);
}

/// Of a large session only what has changed is sent. Whatever two processes do to it, in whatever
/// order: each finds what the other has saved, whole.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_puts_parts_together_to_what_was_saved() {
    let Some(server) = StoreServer::start(Kind::Redis) else { return };
    let mut admin = admin(&server).await;
    let stores = [
        RedisStore::connect(&server.url()).await.unwrap(),
        RedisStore::connect(&server.url()).await.unwrap(),
    ];
    let mut random = 7_u64;
    let mut below = |most: usize| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (random >> 33) as usize % most
    };
    let (mut whole, mut saves) = (0, 0);
    for round in 0..40 {
        let session = key();
        let first = record(1, (round % 2 == 0).then_some("ann"), &vec![7; 1_000 + 40 * round]);
        assert_eq!(stores[0].create(&session, &first).await.unwrap(), Created::Done);
        // In milliseconds.
        let mut there = stores[0].load(&session).await.unwrap().expect("a live session");
        // As a layer does: it saves what it has made of what it has loaded, however long ago.
        let mut loaded = [there.clone(), there.clone()];
        for _ in 0..40 {
            let at = below(2);
            if below(3) > 0 {
                let found = stores[at].load(&session).await.unwrap().expect("a live session");
                assert_eq!(found, there);
                loaded[at] = found;
            }
            let mut next = loaded[at].clone().with_version(loaded[at].version + 1);
            let mut payload = next.payload.to_vec();
            let (from, by) = (below(payload.len()), 1 + below(20));
            match below(10) {
                0 => payload.truncate(from.max(900)),
                1 | 2 => payload.extend(vec![9; by]),
                3 => payload.iter_mut().for_each(|byte| *byte = byte.wrapping_add(1)),
                4 => next.expires_at += Duration::from_secs(1),
                5 => next.user = Some(format!("user {by}").into()),
                6 => {
                    let later = there.expires_at + Duration::from_secs(5);
                    stores[1 - at].touch(&session, later).await.unwrap();
                    there.expires_at = later;
                }
                _ => payload[from..].iter_mut().take(by).for_each(|byte| *byte ^= 0x55),
            }
            next.payload = payload.into();
            let before = sets(&mut admin).await;
            let saved = stores[at].replace(&session, &next, loaded[at].version).await.unwrap();
            if loaded[at].version == there.version {
                assert_eq!(saved, Replaced::Done);
                (loaded[at], there) = (next.clone(), next);
                saves += 1;
                whole += sets(&mut admin).await - before;
            } else {
                assert_eq!(saved, Replaced::Changed);
            }
            assert_eq!(stores[1 - at].load(&session).await.unwrap().as_ref(), Some(&there));
        }
        // A user's set is right whichever way the last save went.
        if let Some(user) = &there.user {
            let of_user = stores[0].sessions_of(user).await.unwrap();
            assert!(of_user.contains(&(session, there.clone())));
        }
        let gone = loaded[0].clone().with_version(loaded[0].version + 1);
        assert!(stores[1].delete(&session).await.unwrap());
        let saved = stores[0].replace(&session, &gone, loaded[0].version).await.unwrap();
        assert_eq!(saved, Replaced::Missing, "nothing is put together of what has ended");
    }
    assert!(saves > 500, "{saves}");
    assert!((saves / 10..saves * 7 / 10).contains(&whole), "{whole} of {saves} were sent whole");
}

/// How often a whole record has been sent.
async fn sets(admin: &mut redis::aio::MultiplexedConnection) -> u64 {
    let info: String = command(admin, &["INFO", "commandstats"]).await;
    let calls = info.lines().find_map(|line| line.strip_prefix("cmdstat_set:calls="));
    calls.map_or(0, |line| line.split(',').next().unwrap().parse().unwrap())
}

/// Two masters may each have given the same version to another record, when one of them was cut off:
/// a part of the one is never put into the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_part_is_not_put_into_another_record_of_the_same_version() {
    let Some(server) = StoreServer::start(Kind::Redis) else { return };
    let store = RedisStore::connect(&server.url()).await.unwrap();
    let elsewhere = RedisStore::connect(&server.url()).await.unwrap();
    let session = key();
    let first = record(1, None, &[1; 1_000]);
    assert_eq!(store.create(&session, &first).await.unwrap(), Created::Done);
    let first = store.load(&session).await.unwrap().expect("a live session");
    // The same but for its payload.
    assert!(elsewhere.delete(&session).await.unwrap());
    let other = first.clone().with_payload([2; 1_000]);
    assert_eq!(elsewhere.create(&session, &other).await.unwrap(), Created::Done);
    let mut payload = first.payload.to_vec();
    payload[500] = 5;
    let next = first.with_version(2).with_payload(payload);
    assert_eq!(store.replace(&session, &next, 1).await.unwrap(), Replaced::Done);
    assert_eq!(elsewhere.load(&session).await.unwrap(), Some(next), "whole, as it was saved");
}

/// Redis is told how long a record lives, not when it ends.
#[tokio::test]
async fn the_clock_of_redis_does_not_matter() {
    let Some(server) = StoreServer::start(Kind::Redis) else { return };
    // Ours is ten months behind.
    let clock = sessions::testing::ManualClock::new();
    let builder = RedisStore::builder().with_clock(&clock);
    let store = builder.connect(&server.url()).await.unwrap();
    let expires_at = clock.now() + Duration::from_secs(60);
    let record = record(1, None, b"x").with_expires_at(expires_at);
    let session = key();
    assert_eq!(store.create(&session, &record).await.unwrap(), Created::Done);
    clock.advance(Duration::from_millis(59_999));
    assert!(store.load(&session).await.unwrap().is_some());
    clock.advance(Duration::from_millis(1));
    assert!(store.load(&session).await.unwrap().is_none(), "from its very millisecond on");
    assert_eq!(store.replace(&session, &record, 1).await.unwrap(), Replaced::Missing);
    assert!(!store.delete(&session).await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_cluster_keeps_its_promises_through_a_failover() {
    let Some(mut cluster) = RedisCluster::start() else { return };
    under_test("Redis Cluster (three masters, three replicas)");
    let urls = cluster.urls();
    let urls: Vec<&str> = urls.iter().map(String::as_str).collect();
    let store = RedisStore::connect_cluster(&urls).await.unwrap();
    all_sessions(&store).await;
    conformance(store.clone()).await;
    user_index(&store).await;
    app::logs_out_everywhere(store.clone()).await;
    app::counts_from_four_layers(store.clone()).await;

    // A store that does not know about the cluster is no store: it would find a part of the keys.
    for url in &urls {
        let error = RedisStore::connect(url).await.unwrap_err();
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert!(!error.is_retryable() && cause.contains("connect_cluster"), "{error}: {cause}");
    }

    // Sessions in all parts of the cluster, and one of its masters dies.
    let keys: Vec<_> = (0..30).map(|_| key()).collect();
    for key in &keys {
        let created = store.create(key, &record(1, Some("ann"), b"x")).await.unwrap();
        assert_eq!(created, Created::Done);
    }
    // Replication is asynchronous; what has arrived survives.
    cluster.wait_for_replicas();
    cluster.nodes[0].kill();
    let begun = Instant::now();
    for key in &keys {
        loop {
            match store.load(key).await {
                Ok(Some(found)) => break assert_eq!(found.version, 1),
                Ok(None) => panic!("a session that was replicated is gone"),
                Err(error) => {
                    let source = std::error::Error::source(&error);
                    assert!(error.is_retryable(), "{error}: {source:?}");
                    let patient = begun.elapsed() < Duration::from_secs(60);
                    assert!(patient, "{error}: {source:?}\n{}", cluster.describe());
                    sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }
    // The replica that took over does not know the scripts.
    for key in &keys {
        let replaced = store.replace(key, &record(2, Some("ann"), b"y"), 1).await.unwrap();
        assert_eq!(replaced, Replaced::Done);
    }
    assert_eq!(store.delete_sessions_of("ann", None).await.unwrap(), 30);
    conformance(store).await;
}

/// A replica is behind its master, and says "there is none" of what is just being moved to another.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_replicas_do_not_know_is_found_on_a_connection_that_reads_from_them() {
    let Some(cluster) = RedisCluster::start() else { return };
    let client = redis::cluster::ClusterClientBuilder::new(cluster.urls())
        .read_routing_strategy(redis::cluster_read_routing::RandomReplicaStrategy)
        .build()
        .unwrap();
    let connection = client.get_async_connection().await.unwrap();
    let store = RedisStore::builder().build_cluster(connection);
    let keys: Vec<_> = (0..20).map(|_| key()).collect();
    for key in &keys {
        let created = store.create(key, &record(1, Some("ann"), b"x")).await.unwrap();
        assert_eq!(created, Created::Done);
    }
    cluster.wait_for_replicas();
    cluster.begin_to_move("sessions:user:ann");
    for key in &keys[..3] {
        cluster.begin_to_move(&format!("sessions:{{{key}}}"));
    }
    let (mut loaded, mut counted) = (0, 0);
    for key in &keys {
        loaded += usize::from(store.load(key).await.unwrap().is_some());
    }
    store
        .for_each(|_, _| {
            counted += 1;
            std::ops::ControlFlow::Continue(())
        })
        .await
        .unwrap();
    let listed = store.sessions_of("ann").await.unwrap().len();
    assert_eq!((loaded, counted, listed), (20, 20, 20));
}

/// A session that is saved again and again, also while masters come and go.
struct Saved {
    key: StoreKey,
    /// The last version that was acknowledged.
    acknowledged: AtomicU64,
}

/// Saves until it is told to stop. What the new master had not received is lost: then the save goes
/// on from what is there, which must be no less than `floor`, the version that the replica had.
async fn save_through_failover(
    store: RedisStore,
    saved: Arc<Saved>,
    floor: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
) {
    let key = &saved.key;
    while !stop.load(SeqCst) {
        let version = saved.acknowledged.load(SeqCst);
        let next = record(version + 1, None, &(version + 1).to_le_bytes());
        match store.replace(key, &next, version).await {
            Ok(Replaced::Done) => saved.acknowledged.store(version + 1, SeqCst),
            Ok(Replaced::Missing) => panic!("a session that was replicated is gone"),
            Ok(Replaced::Changed) => {
                let Ok(found) = store.load(key).await else { continue };
                let found = found.expect("a session that was replicated").version;
                assert!(found >= floor.load(SeqCst), "{found} is older than what was replicated");
                // At most the save whose answer was lost is newer.
                assert!(found <= version + 1, "{found} was never saved: {version} was");
                saved.acknowledged.store(found, SeqCst);
            }
            Err(error) => {
                assert!(error.is_retryable(), "{error}: {:?}", std::error::Error::source(&error));
                sleep(Duration::from_millis(20)).await;
            }
        }
    }
}

/// While sessions are saved, a master of the cluster dies: every save that its replica had is there,
/// the saves go on by themselves, and no answer is wrong.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn saves_go_on_through_a_failover_of_the_cluster() {
    let Some(mut cluster) = RedisCluster::start() else { return };
    let urls = cluster.urls();
    let urls: Vec<&str> = urls.iter().map(String::as_str).collect();
    let store = RedisStore::connect_cluster(&urls).await.unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let (mut sessions, mut writers) = (Vec::new(), Vec::new());
    for _ in 0..12 {
        let saved = Arc::new(Saved { key: key(), acknowledged: AtomicU64::new(1) });
        let created = store.create(&saved.key, &record(1, None, b"")).await.unwrap();
        assert_eq!(created, Created::Done);
        let floor = Arc::new(AtomicU64::new(1));
        let (stop, other) = (stop.clone(), floor.clone());
        let writer = save_through_failover(store.clone(), saved.clone(), other, stop);
        writers.push(tokio::spawn(writer));
        sessions.push((saved, floor));
    }
    sleep(Duration::from_millis(300)).await;
    for (saved, floor) in &sessions {
        floor.store(saved.acknowledged.load(SeqCst), SeqCst);
    }
    cluster.wait_for_replicas();
    cluster.nodes[0].kill();
    // Each session is saved again, wherever it lives.
    let before: Vec<_> = sessions.iter().map(|(it, _)| it.acknowledged.load(SeqCst)).collect();
    let begun = Instant::now();
    for ((saved, _), before) in sessions.iter().zip(before) {
        while saved.acknowledged.load(SeqCst) <= before + 20 {
            let patient = begun.elapsed() < Duration::from_secs(60);
            assert!(patient, "the saves do not go on: {}", cluster.describe());
            sleep(Duration::from_millis(20)).await;
        }
    }
    stop.store(true, SeqCst);
    for writer in writers {
        writer.await.expect("no answer is wrong");
    }
    for (saved, _) in &sessions {
        let found = store.load(&saved.key).await.unwrap().expect("a session in use");
        assert!(found.version >= saved.acknowledged.load(SeqCst), "nothing is lost any more");
        assert_eq!(*found.payload, found.version.to_le_bytes());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_behind_sentinel_keeps_its_promises_through_a_failover() {
    let Some(mut redis) = RedisSentinels::start() else { return };
    under_test("Redis behind Sentinel (master, replica, three sentinels)");
    let urls = redis.urls();
    let urls: Vec<&str> = urls.iter().map(String::as_str).collect();
    let store = RedisStore::connect_sentinel(&urls, RedisSentinels::MASTER).await.unwrap();
    assert!(format!("{store:?}").contains("sentinel"));
    conformance(store.clone()).await;
    user_index(&store).await;
    app::counts_from_four_layers(store.clone()).await;

    // With the name in a URL, and one sentinel of two that is not there.
    let gone = ["redis://127.0.0.1:1", urls[0]];
    let url = format!("redis://{}/0", RedisSentinels::MASTER);
    let other = RedisStore::connect_sentinel(&gone, &url).await.unwrap();
    assert!(other.load(&key()).await.unwrap().is_none());
    for wrong in ["nobody", "redis://nobody/0"] {
        assert!(RedisStore::connect_sentinel(&urls, wrong).await.is_err());
    }
    assert!(RedisStore::connect_sentinel(&[], RedisSentinels::MASTER).await.is_err());

    // The master dies: what the replica had is there, and the store finds it by itself.
    let keys: Vec<_> = (0..30).map(|_| key()).collect();
    for key in &keys {
        let created = store.create(key, &record(1, Some("ann"), b"x")).await.unwrap();
        assert_eq!(created, Created::Done);
    }
    redis.wait_for_replica();
    redis.servers[0].kill();
    let error = store.load(&keys[0]).await.unwrap_err();
    assert!(error.is_retryable(), "{error}");
    for store in [&store, &other] {
        recovers(store).await;
    }
    for key in &keys {
        assert_eq!(store.load(key).await.unwrap().expect("it was replicated").version, 1);
        // The new master does not know the scripts.
        let replaced = store.replace(key, &record(2, Some("ann"), b"y"), 1).await.unwrap();
        assert_eq!(replaced, Replaced::Done);
    }
    assert_eq!(store.delete_sessions_of("ann", None).await.unwrap(), 30);

    // The old master comes back as the replica, and the store stays where it is. (Until the sentinels
    // have made it a replica it takes itself for a master, with what it had when it died; who asks
    // them finds the new one.)
    let session = key();
    assert_eq!(store.create(&session, &record(1, None, b"x")).await.unwrap(), Created::Done);
    redis.servers[0].restart();
    redis.wait_until_it_follows(0);
    redis.stop_watching();
    assert!(store.load(&session).await.unwrap().is_some());
    let load = Load::start(store.clone(), 8).await;
    sleep(Duration::from_millis(200)).await;
    all_retryable(&load.finish().await);
    conformance(store).await;
}

/// A master that stands still is replaced as well, and what it has been told in vain is an error.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_hangs_is_replaced_by_sentinel() {
    let Some(redis) = RedisSentinels::start() else { return };
    let urls = redis.urls();
    let urls: Vec<&str> = urls.iter().map(String::as_str).collect();
    let builder = RedisStore::builder().with_timeout(Duration::from_secs(2));
    let store = builder.connect_sentinel(&urls, RedisSentinels::MASTER).await.unwrap();
    let session = key();
    assert_eq!(store.create(&session, &record(1, None, b"x")).await.unwrap(), Created::Done);
    redis.wait_for_replica();
    redis.servers[0].pause();
    assert!(store.load(&session).await.unwrap_err().is_retryable());
    recovers(&store).await;
    let replaced = store.replace(&session, &record(2, None, b"y"), 1).await.unwrap();
    assert_eq!(replaced, Replaced::Done);
    redis.servers[0].resume();
    redis.wait_until_it_follows(0);
    recovers(&store).await;
    assert_eq!(store.load(&session).await.unwrap().unwrap().version, 2);
}

/// Of a slot that is moved to another node, new keys are there, and the others still here: no script with two keys runs on
/// either. Each call finds its session, and is carried out, however long that takes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_is_saved_and_ends_while_its_slot_is_moved() {
    let Some(cluster) = RedisCluster::start() else { return };
    let urls = cluster.urls();
    let urls: Vec<&str> = urls.iter().map(String::as_str).collect();
    let store = RedisStore::connect_cluster(&urls).await.unwrap();
    let client = redis::cluster::ClusterClient::new(cluster.urls()).unwrap();
    let mut admin = client.get_async_connection().await.unwrap();
    for is_moved in [true, false] {
        let session = key();
        let begins = record(1, Some("ann"), b"x");
        assert_eq!(store.create(&session, &begins).await.unwrap(), Created::Done);
        let (name, other) = (format!("sessions:{{{session}}}"), format!("{{{session}}}"));
        let set: () = redis::cmd("SET").arg(&other).arg(1).query_async(&mut admin).await.unwrap();
        cluster.begin_to_move(if is_moved { &name } else { &other });
        let begun = Instant::now();
        let version = async || store.load(&session).await.unwrap().map(|record| record.version);
        assert_eq!((set, version().await), ((), Some(1)));
        let mut payload = vec![7; 1000];
        for based_on in 1..4 {
            payload[3] += 1;
            let next = record(based_on + 1, Some("ann"), &payload);
            let replaced = store.replace(&session, &next, based_on + 7).await.unwrap();
            assert_eq!(replaced, Replaced::Changed, "moved: {is_moved}");
            let replaced = store.replace(&session, &next, based_on).await.unwrap();
            assert_eq!(replaced, Replaced::Done, "moved: {is_moved}");
            assert_eq!(version().await, Some(based_on + 1));
        }
        assert_eq!(store.create(&session, &begins).await.unwrap(), Created::Exists);
        store.touch(&session, SystemTime::now() + Duration::from_secs(1_000_000)).await.unwrap();
        assert_eq!(version().await, Some(4));
        assert!(store.delete(&session).await.unwrap());
        assert!(!store.delete(&session).await.unwrap());
        let next = record(5, None, b"x");
        assert_eq!(store.replace(&session, &next, 4).await.unwrap(), Replaced::Missing);
        assert_eq!(version().await, None);
        assert_eq!(store.create(&session, &begins).await.unwrap(), Created::Done);
        assert_eq!(version().await, Some(1));
        assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
        let left = cluster.keys(&format!("{name}:*"));
        assert!(left.is_empty(), "what was written beside the session stays there: {left:?}");
    }
}

/// A deletion leaves a receipt in the session's place, which takes memory that may not be there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_without_memory_ends_sessions() {
    let Some(cluster) = RedisCluster::start() else { return };
    let urls = cluster.urls();
    let urls: Vec<&str> = urls.iter().map(String::as_str).collect();
    let store = RedisStore::connect_cluster(&urls).await.unwrap();
    let session = key();
    assert_eq!(store.create(&session, &record(1, None, b"x")).await.unwrap(), Created::Done);
    for node in &cluster.nodes {
        let _: () = command(&mut admin(node).await, &["CONFIG", "SET", "maxmemory", "1"]).await;
    }
    assert!(store.create(&key(), &record(1, None, b"x")).await.unwrap_err().is_retryable());
    assert!(store.delete(&session).await.unwrap());
    assert_eq!(store.load(&session).await.unwrap(), None);
    assert!(!store.delete(&session).await.unwrap());
}
