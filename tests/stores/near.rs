//! Near caches on real servers: what they are told, and what they serve when they are told nothing.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::{Duration, Instant, SystemTime},
};

use sessions::{
    Created, MemcachedStore, MySqlStore, PostgresStore, RedisStore, Replaced, SqliteStore, Store,
    StoreKey, UserIndex,
    store::{NearCache, Watch},
    testing::conformance,
};
use sessions_tests::{
    ended::every_waiter_hears_of_the_end,
    eventually,
    servers::{Folder, Kind, RedisCluster, RedisSentinels, StoreServer},
};
use tokio::time::{sleep, timeout};

use crate::{
    app,
    checks::{all_sessions, dropped_calls_answer_nobody_else, key, record, user_index},
    cut::Proxy,
    under_test,
};

pub(crate) type Admin = redis::aio::MultiplexedConnection;

pub(crate) async fn admin(server: &StoreServer) -> Admin {
    let client = redis::Client::open(server.url()).unwrap();
    client.get_multiplexed_async_connection().await.unwrap()
}

pub(crate) async fn command<T: redis::FromRedisValue>(admin: &mut Admin, words: &[&str]) -> T {
    let mut command = redis::cmd(words[0]);
    command.arg(&words[1..]);
    command.query_async(admin).await.unwrap()
}

/// How often the server was asked something over a connection, but for this.
async fn questions(admin: &mut Admin) -> i64 {
    let info: String = command(admin, &["INFO", "stats"]).await;
    let line = info.lines().find_map(|line| line.strip_prefix("total_reads_processed:"));
    line.unwrap().trim().parse().unwrap()
}

async fn near(url: &str) -> NearCache<RedisStore> {
    NearCache::new(RedisStore::connect(url).await.unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_near_cache_keeps_the_promises_of_its_store() {
    let Some(server) = StoreServer::start(Kind::Redis) else { return };
    under_test("Redis with a near cache");
    let store = near(&server.url()).await;
    all_sessions(&store).await;
    conformance(store.clone()).await;
    user_index(&store).await;
    dropped_calls_answer_nobody_else(&store).await;
    app::works_on(store.clone()).await;
    let stats = store.stats();
    assert!(stats.hits > 500 && stats.bytes < 64 << 20, "{stats:?}");
}

/// Each way in which a record is written or ended, by this process and by another; then what a
/// read costs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeated_read_asks_nobody_and_a_change_is_seen() {
    let Some(server) = StoreServer::start(Kind::Redis) else { return };
    let (here, there) = (near(&server.url()).await, near(&server.url()).await);
    let mut admin = admin(&server).await;
    for payload in [&[7; 10][..], &[7; 900]] {
        let session = key();
        let created = here.create(&session, &record(1, Some("ann"), payload)).await.unwrap();
        assert_eq!(created, Created::Done);
        let before = questions(&mut admin).await;
        let mut known = here.load(&session).await.unwrap().unwrap();
        assert_eq!(questions(&mut admin).await - before, 1, "what was created is there");
        for round in 0..20 {
            // The first one has nothing to do with it any more once the other one writes.
            let (writer, reader) = if round % 3 == 0 { (&here, &there) } else { (&there, &here) };
            reader.load(&session).await.unwrap().unwrap();
            let mut bytes = payload.to_vec();
            bytes[5] = round;
            let next = record(known.version + 1, Some("ann"), &bytes);
            assert_eq!(
                writer.replace(&session, &next, next.version - 1).await.unwrap(),
                Replaced::Done
            );
            known = writer.load(&session).await.unwrap().unwrap();
            assert_eq!(known.version, next.version, "one sees at once what one has written");
            eventually("the other one sees it", async || {
                reader.load(&session).await.unwrap().unwrap().version == next.version
            })
            .await;
            let before = questions(&mut admin).await;
            for store in [&here, &there] {
                for _ in 0..10 {
                    assert_eq!(store.load(&session).await.unwrap().unwrap().version, next.version);
                }
            }
            let asked = questions(&mut admin).await - before;
            // One is this question's, and one may be a sign of life for each.
            assert!(asked <= 3, "round {round}: {asked} questions");
        }
        // The expiry of a record that is kept moves.
        let later = SystemTime::now() + Duration::from_secs(7200);
        here.touch(&session, later).await.unwrap();
        for store in [&here, &there] {
            eventually("it expires later", async || {
                let found = store.load(&session).await.unwrap().unwrap();
                found.expires_at > SystemTime::now() + Duration::from_secs(7100)
            })
            .await;
        }
        assert_eq!(there.delete_sessions_of("ann", None).await.unwrap(), 1);
        assert!(there.load(&session).await.unwrap().is_none(), "one sees at once what one ends");
        eventually("the other one sees the end", async || {
            here.load(&session).await.unwrap().is_none()
        })
        .await;
    }
}

/// The log.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    pub(crate) fn lines(&self, with: &str) -> usize {
        String::from_utf8_lossy(&self.0.lock().unwrap())
            .lines()
            .filter(|it| it.contains(with))
            .count()
    }
}

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Saves and loads; the record is there, and how many of the loads asked nobody.
pub(crate) async fn hits<S: Watch>(store: &NearCache<S>) -> u64 {
    let (session, before) = (key(), store.stats().hits);
    assert_eq!(store.create(&session, &record(1, None, b"x")).await.unwrap(), Created::Done);
    for _ in 0..10 {
        assert_eq!(store.load(&session).await.unwrap().unwrap().version, 1);
    }
    assert!(store.delete(&session).await.unwrap());
    assert!(store.load(&session).await.unwrap().is_none());
    store.stats().hits - before
}

// One thread, which has the log.
#[tokio::test]
async fn without_the_permission_everything_is_loaded_and_the_log_says_so_once() {
    let Some(server) = StoreServer::start(Kind::Redis) else { return };
    let log = Log::default();
    let writer = log.clone();
    let subscriber =
        tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    let _here = tracing::subscriber::set_default(subscriber);
    let mut admin = admin(&server).await;
    let user = ["ACL", "SETUSER", "store", "on", ">secret", "~sessions:*"];
    let rights = ["+get", "+getrange", "+mget", "+set", "+setrange", "+del", "+rename", "+pexpire"];
    let more = ["+pttl", "+eval", "+evalsha", "+zadd", "+zrange", "+zrem", "+zscore"];
    let words = [&user[..], &rights, &more, &["+zremrangebyscore"]].concat();
    let _: String = command(&mut admin, &words).await;
    let url = server.url().replace("redis://", "redis://store:secret@");
    let store = near(&url).await;
    for _ in 0..3 {
        assert_eq!(hits(&store).await, 0);
        let _: i64 = command(&mut admin, &["CLIENT", "KILL", "USER", "store"]).await;
        sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(log.lines("client|tracking"), 1);
    let _: String = command(&mut admin, &["ACL", "SETUSER", "store", "+client|tracking"]).await;
    let _: i64 = command(&mut admin, &["CLIENT", "KILL", "USER", "store"]).await;
    sleep(Duration::from_millis(20)).await;
    // The first call has to connect again, and what is sent twice is not kept.
    assert!(store.load(&key()).await.unwrap().is_none());
    assert_eq!(hits(&store).await, 10, "what the documentation says that a user needs is enough");
    assert_eq!(log.lines("client|tracking"), 1);
}

#[tokio::test]
async fn a_cache_that_cannot_be_is_not_built_and_another_takes_the_place_of_one_that_is_gone() {
    let Some(server) = StoreServer::start(Kind::Redis) else { return };
    let client = redis::Client::open(server.url()).unwrap();
    let of_application = RedisStore::new(client.get_connection_manager().await.unwrap());
    let refused = NearCache::new(of_application).unwrap_err().to_string();
    assert!(refused.contains("`RedisStore::connect`"), "{refused}");
    let store = RedisStore::connect(&server.url()).await.unwrap();
    let first = NearCache::new(store.clone()).unwrap();
    let refused = NearCache::new(store.clone()).unwrap_err().to_string();
    assert!(refused.contains("has a near cache already"), "{refused}");
    assert_eq!(hits(&first).await, 10);
    let clone = first.clone();
    drop(first);
    assert!(NearCache::new(store.clone()).is_err(), "a clone is left");
    drop(clone);
    let second = NearCache::new(store.clone()).unwrap();
    assert_eq!(hits(&second).await, 10);
    let session = key();
    let _ = second.create(&session, &record(1, None, b"x")).await.unwrap();
    assert!(store.delete(&session).await.unwrap());
    assert_eq!(version(&second, &session).await, None, "the second one is told");
}

/// What the server lacks for a while is tried again.
#[tokio::test]
async fn a_connection_from_a_bad_moment_of_the_server_is_not_kept_for_ever() {
    let Some(server) = StoreServer::start(Kind::Redis) else { return };
    let mut admin = admin(&server).await;
    let moments: [([&[&str]; 2], &str); 2] = [
        (
            [&["CONFIG", "SET", "maxmemory", "1"], &["CONFIG", "SET", "maxmemory", "0"]],
            "short of memory",
        ),
        (
            [&["REPLICAOF", "127.0.0.1", "1"], &["REPLICAOF", "NO", "ONE"]],
            "a replica whose master is not there",
        ),
    ];
    for ([begin, end], moment) in moments {
        let store = near(&server.url()).await;
        let _: String = command(&mut admin, begin).await;
        let begun = Instant::now();
        // The connection is made by this.
        let _ = store.load(&key()).await;
        let _: String = command(&mut admin, end).await;
        // A save that the cache knows of is there: the connection is as good as any.
        eventually(moment, async || {
            let (session, before) = (key(), store.stats().hits);
            let _ = store.create(&session, &record(1, None, b"x")).await;
            let _ = store.load(&session).await;
            store.stats().hits - before == 1
        })
        .await;
        assert!(begun.elapsed() < Duration::from_secs(10));
        assert_eq!(hits(&store).await, 10, "{moment}");
    }
}

const STALENESS: Duration = Duration::from_millis(400);

async fn stale(url: &str) -> NearCache<RedisStore> {
    let store = RedisStore::connect(url).await.unwrap();
    NearCache::builder().with_staleness(STALENESS).build(store).unwrap()
}

pub(crate) async fn version(store: &impl Store, session: &StoreKey) -> Option<u64> {
    store.load(session).await.unwrap().map(|record| record.version)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_server_forgets_or_throws_away_is_gone() {
    let Some(server) = StoreServer::start(Kind::Redis) else { return };
    let store = near(&server.url()).await;
    let mut admin = admin(&server).await;
    for words in [&["FLUSHALL"][..], &["FLUSHDB", "ASYNC"]] {
        let session = key();
        let _ = store.create(&session, &record(1, None, b"x")).await.unwrap();
        assert_eq!(version(&store, &session).await, Some(1));
        let _: String = command(&mut admin, words).await;
        eventually("it is gone", async || version(&store, &session).await.is_none()).await;
    }
    // It remembers fewer readers than there are.
    let most = ["CONFIG", "SET", "tracking-table-max-keys", "10"];
    let _: String = command(&mut admin, &most).await;
    let there = RedisStore::connect(&server.url()).await.unwrap();
    let sessions: Vec<_> = (0..100).map(|_| key()).collect();
    for session in &sessions {
        let _ = store.create(session, &record(1, None, b"x")).await.unwrap();
    }
    for round in 1..4 {
        for session in &sessions {
            let replaced = there.replace(session, &record(round + 1, None, b"y"), round).await;
            assert_eq!(replaced.unwrap(), Replaced::Done);
        }
        for session in &sessions {
            eventually("the change", async || version(&store, session).await == Some(round + 1))
                .await;
        }
    }
}

/// The connection lives, and nothing comes through it; the server is dead.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_sign_of_life_nothing_is_served() {
    let Some(mut server) = StoreServer::start(Kind::Redis) else { return };
    let proxy = Proxy::start(server.port()).await;
    let store = stale(&format!("redis://127.0.0.1:{}", proxy.port())).await;
    let there = RedisStore::connect(&server.url()).await.unwrap();
    let session = key();
    let _ = store.create(&session, &record(1, None, b"x")).await.unwrap();
    assert_eq!(version(&store, &session).await, Some(1));
    proxy.freeze();
    assert!(there.delete(&session).await.unwrap());
    sleep(STALENESS).await;
    let served = timeout(Duration::from_millis(100), store.load(&session)).await;
    assert!(served.is_err(), "nobody knows: {served:?}");
    proxy.cut().await;
    assert_eq!(version(&store, &session).await, None);

    let _ = store.create(&session, &record(1, None, b"x")).await.unwrap();
    assert_eq!(version(&store, &session).await, Some(1));
    server.kill();
    proxy.cut().await;
    assert!(
        store.load(&session).await.is_err(),
        "nothing that was read on a connection that ended"
    );
    server.restart();
    eventually("it is asked again", async || store.load(&session).await.is_ok()).await;
    assert_eq!(version(&store, &session).await, Some(1), "it keeps them on its disk");
    assert_eq!(hits(&store).await, 10);
}

/// What is saved of one session, and when each save was acknowledged.
#[derive(Clone)]
struct History {
    session: StoreKey,
    saved: Arc<Mutex<Vec<(u64, Instant)>>>,
    stop: Arc<AtomicBool>,
}

impl History {
    /// Of a session whose first version is stored.
    fn new(session: StoreKey) -> Self {
        let saved = Arc::new(Mutex::new(vec![(1, Instant::now())]));
        Self { session, saved, stop: Arc::default() }
    }

    fn stop(&self) {
        self.stop.store(true, SeqCst);
    }

    /// Saves until it is stopped; the last version.
    async fn write(self, store: impl Store) -> u64 {
        let mut version = 1;
        while !self.stop.load(SeqCst) {
            let mut payload = vec![7; 900];
            payload[..8].copy_from_slice(&u64::to_be_bytes(version + 1));
            let next = record(version + 1, None, &payload);
            let replaced = store.replace(&self.session, &next, version).await.unwrap();
            assert_eq!(replaced, Replaced::Done);
            version += 1;
            self.saved.lock().unwrap().push((version, Instant::now()));
            sleep(Duration::from_micros(300)).await;
        }
        version
    }

    /// Reads until it is stopped, and sees nothing that was replaced longer ago than the staleness; how often, and
    /// how often there was a newer version.
    async fn read(self, store: impl Store) -> (u64, u64) {
        let (mut reads, mut late) = (0, 0);
        while !self.stop.load(SeqCst) {
            let begun = Instant::now();
            let known = self.saved.lock().unwrap().len();
            let limit = Duration::from_millis(200);
            let Ok(Ok(found)) = timeout(limit, store.load(&self.session)).await else { continue };
            let found = found.expect("it never ends").version;
            let ago = {
                let saved = self.saved.lock().unwrap();
                let replaced = saved.get(found as usize);
                replaced.and_then(|(_, at)| begun.checked_duration_since(*at))
            };
            assert!(ago.is_none_or(|ago| ago <= STALENESS), "{found} {ago:?}");
            reads += 1;
            late += u64::from((found as usize) < known);
            tokio::task::yield_now().await;
        }
        (reads, late)
    }
}

/// A writer saves all the time, past the proxy, and notes when each save was acknowledged; a reader behind
/// the proxy never sees a version that was replaced longer ago than the staleness, whatever happens to
/// its connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_older_than_the_staleness_whatever_happens_to_the_connection() {
    let Some(server) = StoreServer::start(Kind::Redis) else { return };
    let proxy = Proxy::start(server.port()).await;
    let store = stale(&format!("redis://127.0.0.1:{}", proxy.port())).await;
    let there = near(&server.url()).await;
    let session = key();
    let _ = there.create(&session, &record(1, None, &[7; 900])).await.unwrap();
    let history = History::new(session);
    let writing = tokio::spawn(history.clone().write(there));
    let reading = [(); 3].map(|()| tokio::spawn(history.clone().read(store.clone())));
    let mut admin = admin(&server).await;
    for round in 0..12 {
        sleep(Duration::from_millis(150)).await;
        match round % 4 {
            0 => {
                proxy.freeze();
                sleep(STALENESS + Duration::from_millis(150)).await;
                proxy.cut().await;
            }
            1 => proxy.cut().await,
            2 => {
                let words = ["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"];
                let _: i64 = command(&mut admin, &words).await;
            }
            _ => {}
        }
    }
    history.stop();
    let versions = writing.await.unwrap();
    let (mut reads, mut late) = (0, 0);
    for reader in reading {
        let (more, later) = reader.await.unwrap();
        (reads, late) = (reads + more, late + later);
    }
    let stats = store.stats();
    assert!(stats.hits > 100 && reads > 1_000, "{reads} {stats:?}");
    println!("{versions} saves, {reads} reads, {late} of them late, {stats:?}");
    eventually("the last one", async || version(&store, &session).await == Some(versions)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_near_cache_behind_sentinel_goes_on_after_a_failover() {
    let Some(mut redis) = RedisSentinels::start() else { return };
    under_test("Redis behind Sentinel with a near cache");
    let urls = redis.urls();
    let urls: Vec<&str> = urls.iter().map(String::as_str).collect();
    let connect = async || {
        let store = RedisStore::connect_sentinel(&urls, RedisSentinels::MASTER).await.unwrap();
        NearCache::builder().with_staleness(STALENESS).build(store).unwrap()
    };
    let (here, there) = (connect().await, connect().await);
    assert_eq!(hits(&here).await, 10);
    let session = key();
    let _ = here.create(&session, &record(1, None, b"x")).await.unwrap();
    assert_eq!(version(&there, &session).await, Some(1));
    redis.wait_for_replica();
    redis.servers[0].kill();
    sleep(STALENESS).await;
    // From here on one is told by the new master, or that there is none.
    eventually("there is another master", async || {
        let next = record(2, None, b"y");
        matches!(there.replace(&session, &next, 1).await, Ok(Replaced::Done))
            || there.load(&session).await.is_ok_and(|it| it.is_some_and(|it| it.version == 2))
    })
    .await;
    eventually("the other process sees it", async || {
        let found = here.load(&session).await.ok().flatten();
        found.is_some_and(|found| found.version == 2)
    })
    .await;
    assert_eq!(hits(&here).await, 10);
    assert!(there.delete(&session).await.unwrap());
    eventually("and its end", async || version(&here, &session).await.is_none()).await;
}

async fn near_cluster(cluster: &RedisCluster) -> NearCache<RedisStore> {
    let urls = cluster.urls();
    let urls: Vec<&str> = urls.iter().map(String::as_str).collect();
    let store = RedisStore::connect_cluster(&urls).await.unwrap();
    NearCache::builder().with_staleness(STALENESS).build(store).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_near_cache_before_a_cluster_keeps_the_promises_of_its_store() {
    let Some(cluster) = RedisCluster::start() else { return };
    under_test("Redis Cluster with a near cache");
    let (here, there) = (near_cluster(&cluster).await, near_cluster(&cluster).await);
    conformance(here.clone()).await;
    user_index(&here).await;
    app::logs_out_everywhere(here.clone()).await;
    app::counts_from_four_layers(here.clone()).await;
    // On all nodes; what another process does, and what one has done oneself.
    let sessions: Vec<_> = (0..50).map(|_| key()).collect();
    for session in &sessions {
        let _ = here.create(session, &record(1, Some("ann"), &[7; 900])).await.unwrap();
    }
    let before = here.stats().misses;
    for session in &sessions {
        assert_eq!(version(&here, session).await, Some(1));
    }
    assert_eq!(here.stats().misses, before, "what was created is there");
    for at in 2..6 {
        for session in &sessions {
            assert_eq!(version(&there, session).await, Some(at - 1));
            let writer = if at % 2 == 0 { &here } else { &there };
            let mut payload = [7; 900];
            payload[5] = at as u8;
            let replaced =
                writer.replace(session, &record(at, Some("ann"), &payload), at - 1).await;
            assert_eq!(replaced.unwrap(), Replaced::Done);
            for store in [&here, &there] {
                eventually("it is seen", async || version(store, session).await == Some(at)).await;
            }
        }
    }
    let misses = || here.stats().misses + there.stats().misses;
    let before = misses();
    for session in &sessions {
        assert_eq!(version(&here, session).await, Some(5));
        assert_eq!(version(&there, session).await, Some(5));
    }
    assert_eq!(misses(), before, "nobody is asked");
    assert_eq!(here.delete_sessions_of("ann", None).await.unwrap(), 50);
    for session in &sessions {
        assert_eq!(version(&here, session).await, None);
        eventually("the end", async || version(&there, session).await.is_none()).await;
    }

    // An application's own connection.
    let client = redis::cluster::ClusterClient::new(cluster.urls()).unwrap();
    let connection = client.get_async_connection().await.unwrap();
    let refused = NearCache::new(RedisStore::builder().build_cluster(connection)).unwrap_err();
    assert!(refused.to_string().contains("connect_cluster"), "{refused}");
}

/// A master dies; another gives its place to its replica while it lives, and goes on to hear what that
/// one's clients do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_near_cache_before_a_cluster_goes_on_after_failovers() {
    let Some(mut cluster) = RedisCluster::start() else { return };
    let (here, there) = (near_cluster(&cluster).await, near_cluster(&cluster).await);
    let sessions: Vec<_> = (0..30).map(|_| key()).collect();
    for session in &sessions {
        let _ = here.create(session, &record(1, None, b"x")).await.unwrap();
        assert_eq!(version(&there, session).await, Some(1));
    }
    for by_hand in [true, false] {
        cluster.wait_for_replicas();
        if by_hand {
            for replica in &cluster.nodes[3..] {
                let mut admin = admin(replica).await;
                let failover: redis::RedisResult<String> =
                    redis::cmd("CLUSTER").arg("FAILOVER").query_async(&mut admin).await;
                failover.unwrap();
            }
        } else {
            // They are the masters by now.
            cluster.nodes[3].kill();
        }
        sleep(STALENESS).await;
        for session in &sessions {
            let mut at = 0;
            eventually("it can be saved", async || {
                let Ok(Some(found)) = there.load_latest(session).await else { return false };
                at = found.version + 1;
                let next = record(at, None, b"y");
                matches!(there.replace(session, &next, at - 1).await, Ok(Replaced::Done))
            })
            .await;
            eventually("the other one sees it", async || {
                let found = here.load(session).await.ok().flatten();
                found.is_some_and(|found| found.version == at)
            })
            .await;
        }
        eventually("all of them are there again", async || {
            for session in &sessions {
                let _ = here.load(session).await;
            }
            let before = here.stats().misses;
            for session in &sessions {
                let _ = here.load(session).await;
            }
            here.stats().misses == before
        })
        .await;
    }
}

/// While a slot is moved, some of its sessions are on the old node and the others on the new one; then all are on the
/// new one. What one process does is seen by the other all the time, and kept again when the slot has been moved.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_near_cache_before_a_cluster_goes_on_while_slots_are_moved() {
    let Some(cluster) = RedisCluster::start() else { return };
    let (here, there) = (near_cluster(&cluster).await, near_cluster(&cluster).await);
    let client = redis::cluster::ClusterClient::new(cluster.urls()).unwrap();
    let mut admin = client.get_async_connection().await.unwrap();
    for is_moved in [true, false] {
        let session = key();
        let _ = here.create(&session, &record(1, Some("ann"), &[7; 900])).await.unwrap();
        assert_eq!(version(&there, &session).await, Some(1));
        let (name, other) = (format!("sessions:{{{session}}}"), format!("{{{session}}}"));
        let _: () = redis::cmd("SET").arg(&other).arg(1).query_async(&mut admin).await.unwrap();
        let mut saved = 1;
        let mut save_and_look = async |saves: u64| {
            for _ in 0..saves {
                saved += 1;
                let (writer, reader) =
                    if saved % 3 == 0 { (&here, &there) } else { (&there, &here) };
                let mut payload = [7; 900];
                payload[5] = saved as u8;
                let next = record(saved, Some("ann"), &payload);
                let replaced = writer.replace(&session, &next, saved - 1).await.unwrap();
                assert_eq!(replaced, Replaced::Done, "moved: {is_moved}, {saved}");
                assert_eq!(version(writer, &session).await, Some(saved), "one's own");
                let begun = Instant::now();
                eventually("the other one sees it", async || {
                    version(reader, &session).await == Some(saved)
                })
                .await;
                assert!(begun.elapsed() <= STALENESS + Duration::from_millis(50), "{saved}");
            }
            let later = SystemTime::now() + Duration::from_secs(7200 + saved);
            there.touch(&session, later).await.unwrap();
            eventually("the touch is seen", async || {
                let found = here.load(&session).await.unwrap().unwrap();
                found.expires_at + Duration::from_millis(1) > later
            })
            .await;
        };
        save_and_look(4).await;
        let begun = Instant::now();
        let slot_move = cluster.begin_to_move(if is_moved { &name } else { &other });
        save_and_look(8).await;
        cluster.finish_move(slot_move);
        save_and_look(8).await;
        assert!(begun.elapsed() < Duration::from_secs(6), "{:?}", begun.elapsed());
        eventually("it is kept", async || {
            let before = here.stats().misses;
            for _ in 0..3 {
                let _ = version(&here, &session).await;
            }
            here.stats().misses == before
        })
        .await;
        assert!(there.delete(&session).await.unwrap());
        eventually("the end", async || version(&here, &session).await.is_none()).await;
    }
}

/// One process saves all the time, and says when each save was acknowledged, while the session's slot is moved on and
/// on; what another process serves was never replaced longer ago than the staleness.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_older_than_the_staleness_while_a_slot_is_moved() {
    let Some(cluster) = RedisCluster::start() else { return };
    let (store, there) = (near_cluster(&cluster).await, near_cluster(&cluster).await);
    let session = key();
    let _ = there.create(&session, &record(1, None, &[7; 900])).await.unwrap();
    let history = History::new(session);
    let writing = tokio::spawn(history.clone().write(there.clone()));
    let reading = [(); 3].map(|()| tokio::spawn(history.clone().read(store.clone())));
    let name = format!("sessions:{{{session}}}");
    for _ in 0..6 {
        let slot_move = cluster.begin_to_move(&name);
        sleep(Duration::from_millis(100)).await;
        cluster.finish_move(slot_move);
        sleep(Duration::from_millis(200)).await;
    }
    history.stop();
    let versions = writing.await.unwrap();
    let mut reads = 0;
    for reader in reading {
        reads += reader.await.unwrap().0;
    }
    let stats = store.stats();
    assert!(stats.hits > 100 && reads > 1_000 && versions > 500, "{versions} {reads} {stats:?}");
    println!("{versions} saves, {reads} reads, {stats:?}");
    eventually("the last one", async || version(&store, &session).await == Some(versions)).await;
}

/// The same where Valkey moves the slot by itself. The old node goes on to answer for its other slots meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_older_than_the_staleness_while_valkey_moves_a_slot() {
    let Some(cluster) = RedisCluster::start() else { return };
    let (store, there) = (near_cluster(&cluster).await, near_cluster(&cluster).await);
    let session = key();
    let _ = there.create(&session, &record(1, None, &[7; 900])).await.unwrap();
    let name = format!("sessions:{{{session}}}");
    if !cluster.migrate_slot_of(&name) {
        return;
    }
    under_test("Valkey that moves slots");
    let others: Vec<_> = (0..30).map(|_| key()).collect();
    for other in &others {
        let _ = store.create(other, &record(1, None, b"x")).await.unwrap();
    }
    let history = History::new(session);
    let writing = tokio::spawn(history.clone().write(there.clone()));
    let reading = [(); 3].map(|()| tokio::spawn(history.clone().read(store.clone())));
    let asking = tokio::spawn({
        let (store, stop) = (store.clone(), history.stop.clone());
        async move {
            while !stop.load(SeqCst) {
                for other in &others {
                    assert_eq!(store.load_latest(other).await.unwrap().unwrap().version, 1);
                    sleep(Duration::from_millis(2)).await;
                }
            }
        }
    });
    for _ in 0..6 {
        assert!(cluster.migrate_slot_of(&name));
        sleep(Duration::from_millis(300)).await;
    }
    history.stop();
    let versions = writing.await.unwrap();
    asking.await.unwrap();
    let mut reads = 0;
    for reader in reading {
        reads += reader.await.unwrap().0;
    }
    let stats = store.stats();
    assert!(stats.hits > 100 && reads > 1_000 && versions > 500, "{versions} {reads} {stats:?}");
    println!("{versions} saves, {reads} reads, {stats:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_logouts_are_told_by_a_cluster_to_all_who_wait() {
    let Some(cluster) = RedisCluster::start() else { return };
    let stores = [near_cluster(&cluster).await, near_cluster(&cluster).await];
    every_waiter_hears_of_the_end(stores, Duration::from_secs(1000), 1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_logouts_are_told_by_redis_to_all_who_wait() {
    let Some(server) = StoreServer::start(Kind::Redis) else { return };
    let stores = [near(&server.url()).await, near(&server.url()).await];
    // Nobody looks: it is Redis who tells.
    every_waiter_hears_of_the_end(stores, Duration::from_secs(1000), 1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_logouts_are_heard_of_on_each_store() {
    const INTERVAL: Duration = Duration::from_millis(40);
    let folder = Folder::new();
    let url = format!("sqlite:{}", folder.path.join("sessions.db").display());
    let sqlite = async || {
        let store = SqliteStore::connect(&url).await.unwrap();
        store.migrate().await.unwrap();
        store
    };
    every_waiter_hears_of_the_end([sqlite().await, sqlite().await], INTERVAL, 1_000).await;
    if let Some(server) = StoreServer::start(Kind::Redis) {
        let store = async || RedisStore::connect(&server.url()).await.unwrap();
        every_waiter_hears_of_the_end([store().await, store().await], INTERVAL, 1_000).await;
    }
    if let Some(server) = StoreServer::start(Kind::Postgres) {
        let store = async || {
            let store = PostgresStore::connect(&server.url()).await.unwrap();
            store.migrate().await.unwrap();
            store
        };
        every_waiter_hears_of_the_end([store().await, store().await], INTERVAL, 1_000).await;
    }
    if let Some(server) = StoreServer::start(Kind::MariaDb) {
        let store = async || {
            let store = MySqlStore::connect(&server.url()).await.unwrap();
            store.migrate().await.unwrap();
            store
        };
        every_waiter_hears_of_the_end([store().await, store().await], INTERVAL, 1_000).await;
    }
    if let Some(server) = StoreServer::start(Kind::Memcached) {
        let store = async || MemcachedStore::connect(&server.url()).await.unwrap();
        every_waiter_hears_of_the_end([store().await, store().await], INTERVAL, 1_000).await;
    }
}
