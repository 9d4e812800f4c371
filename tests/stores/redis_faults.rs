//! Redis when something is wrong: connections that end, servers that change places, permissions that
//! are missing, keys that somebody has deleted.

use std::{
    error::Error as _,
    time::{Duration, Instant, SystemTime},
};

use axum::{Router, routing::get};
use sessions::{
    Created, Keys, MemoryStore, Record, RedisStore, Replaced, Session, SessionLayer, Store,
    StoreError, StoreKey, UserIndex,
    testing::{ManualClock, conformance},
};
use sessions_tests::{
    Server, hand_on,
    servers::{Kind, RedisCluster, RedisSentinels, StoreServer},
};
use tokio::time::sleep;

use crate::{
    checks::{key, record, recovers, user_index},
    cut::Proxy,
};

type Admin = redis::aio::MultiplexedConnection;

/// A connection past the store.
async fn admin(server: &StoreServer) -> Admin {
    let client = redis::Client::open(server.url()).unwrap();
    client.get_multiplexed_async_connection().await.unwrap()
}

async fn command<T: redis::FromRedisValue>(admin: &mut Admin, words: &[&str]) -> T {
    let mut command = redis::cmd(words[0]);
    command.arg(&words[1..]);
    command.query_async(admin).await.unwrap()
}

/// A number that `INFO` tells.
async fn number(admin: &mut Admin, name: &str) -> i64 {
    let info: String = command(admin, &["INFO", "stats", "commandstats"]).await;
    let line = info.lines().find_map(|line| line.strip_prefix(name));
    line.map_or(0, |line| line.split(',').next().unwrap().parse().unwrap())
}

/// How often the server was asked something over a connection, but for this.
async fn reads(admin: &mut Admin) -> i64 {
    number(admin, "total_reads_processed:").await
}

async fn create(store: &RedisStore, user: Option<&str>, payload: &[u8]) -> StoreKey {
    let session = key();
    assert_eq!(store.create(&session, &record(1, user, payload)).await.unwrap(), Created::Done);
    session
}

fn cause(error: &StoreError) -> String {
    error.source().unwrap().to_string()
}

/// What is told of an error, and of its causes.
fn told(error: &StoreError) -> String {
    format!("{error}: {}", cause(error))
}

// The index of users.

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_is_used_goes_back_into_the_set_of_its_user() {
    let Some(server) = StoreServer::start(Kind::Redis) else { return };
    let store = RedisStore::connect(&server.url()).await.unwrap();
    let mut admin = admin(&server).await;
    let set = "sessions:user:ann";
    for payload in [&[7; 10][..], &[7; 900]] {
        let session = create(&store, Some("ann"), payload).await;
        let other = create(&store, Some("ann"), payload).await;
        let mut loaded = store.load(&session).await.unwrap().unwrap();
        let asking = admin.clone();
        let listed = async |what: &str| {
            let of_ann = store.sessions_of("ann").await.unwrap();
            let keys: Vec<_> = of_ann.iter().map(|(key, _)| *key).collect();
            assert_eq!(keys, [session], "{what}");
            let left: i64 = command(&mut asking.clone(), &["PTTL", set]).await;
            assert!(left > 86_400_000, "{what}: the set lives longer than the session: {left}");
            let _: i64 = command(&mut asking.clone(), &["DEL", set]).await;
        };
        let _: i64 = command(&mut admin, &["DEL", set]).await;
        assert!(store.load(&session).await.unwrap().is_some());
        listed("read").await;

        // Of the same size, so that a large one is patched.
        let mut payload = payload.to_vec();
        payload[5] = 8;
        let next = loaded.clone().with_version(2).with_payload(payload);
        assert_eq!(store.replace(&session, &next, 1).await.unwrap(), Replaced::Done);
        listed("saved").await;

        store.touch(&session, SystemTime::now() + Duration::from_secs(7200)).await.unwrap();
        listed("touched").await;

        // In round trips it costs nothing while all is well.
        let _: i64 = command(&mut admin, &["DEL", set]).await;
        store.load(&session).await.unwrap();
        let before = reads(&mut admin).await;
        loaded = store.load(&session).await.unwrap().unwrap();
        assert_eq!(reads(&mut admin).await - before, 2, "one, and the second question");
        let next = loaded.with_version(3).with_payload(next.payload);
        let before = reads(&mut admin).await;
        assert_eq!(store.replace(&session, &next, 2).await.unwrap(), Replaced::Done);
        assert_eq!(reads(&mut admin).await - before, 2, "one, and the second question");

        // Another process learns by its first look whose it is.
        let elsewhere = RedisStore::connect(&server.url()).await.unwrap();
        elsewhere.load(&other).await.unwrap();
        let _: i64 = command(&mut admin, &["DEL", set]).await;
        elsewhere.load(&other).await.unwrap();
        assert_eq!(elsewhere.delete_sessions_of("ann", None).await.unwrap(), 1);
        assert!(store.load(&other).await.unwrap().is_none());
        store.load(&session).await.unwrap();
        assert_eq!(elsewhere.delete_sessions_of("ann", None).await.unwrap(), 1);
    }
}

/// Of a process that dies while it touches a session, what it has sent last has arrived.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_dies_while_it_touches_hides_no_session_from_its_user() {
    const HOUR: Duration = Duration::from_secs(3600);
    let Some(server) = StoreServer::start(Kind::Redis) else { return };
    let clock = ManualClock::new();
    let builder = || RedisStore::builder().with_clock(&clock);
    let store = builder().connect(&server.url()).await.unwrap();
    let lasting = |time| record(1, Some("ann"), b"x").with_expires_at(clock.now() + time);
    // The process has loaded the session or not; and dies before the answer to its first command, or its second.
    for (has_loaded, answers) in [(true, 0), (false, 0), (false, 1), (false, 2)] {
        let session = key();
        assert_eq!(store.create(&session, &lasting(2 * HOUR)).await.unwrap(), Created::Done);
        let later = clock.now() + 1000 * HOUR;
        let proxy = Proxy::start(server.port()).await;
        let url = format!("redis://127.0.0.1:{}", proxy.port());
        let (dying, touching) = (tokio::runtime::Runtime::new().unwrap(), builder());
        let (ready, is_ready) = tokio::sync::oneshot::channel();
        let (go, goes) = tokio::sync::oneshot::channel::<()>();
        let touch = dying.spawn(async move {
            let store = touching.connect(&url).await.unwrap();
            // The script is known.
            store.touch(&key(), later).await.unwrap();
            if has_loaded {
                store.load(&session).await.unwrap();
            }
            ready.send(()).unwrap();
            goes.await.unwrap();
            store.touch(&session, later).await
        });
        is_ready.await.unwrap();
        proxy.lose_answer(answers);
        go.send(()).unwrap();
        tokio::select! {
            () = proxy.lost() => {}
            // It was done with fewer.
            touched = touch => touched.unwrap().unwrap(),
        }
        dying.shutdown_background();
        drop(proxy);

        // A process that does not know whose it is, and so does not put it back.
        let elsewhere = builder().connect(&server.url()).await.unwrap();
        let found = elsewhere.load(&session).await.unwrap().expect("a live session");
        // Its first end has been over for more than a day, and another one of the user's begins.
        clock.advance(27 * HOUR);
        assert_eq!(elsewhere.create(&key(), &lasting(HOUR)).await.unwrap(), Created::Done);
        let listed = elsewhere.sessions_of("ann").await.unwrap();
        let is_listed = listed.iter().any(|(key, _)| *key == session);
        let lives = found.expires_at > clock.now();
        assert_eq!(is_listed, lives, "{has_loaded} {answers}");
    }
}

/// What is wrong with one session is nothing to the others of its user.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_touch_that_is_refused_leaves_the_set_of_the_user() {
    let Some(server) = StoreServer::start(Kind::Redis) else { return };
    let store = RedisStore::connect(&server.url()).await.unwrap();
    let mut admin = admin(&server).await;
    let [session, other] =
        [create(&store, Some("ann"), b"x").await, create(&store, Some("ann"), b"x").await];
    let _: () = command(&mut admin, &["SET", &format!("sessions:{{{session}}}"), "junk"]).await;
    let later = SystemTime::now() + Duration::from_secs(7200);
    assert!(cause(&store.touch(&session, later).await.unwrap_err()).contains("who else writes"));
    let members: Vec<Vec<u8>> =
        command(&mut admin, &["ZRANGE", "sessions:user:ann", "0", "-1"]).await;
    assert!(members.contains(&other.as_bytes().to_vec()), "{members:?}");

    // By a process that has seen the session, and by one that has not.
    let set = "sessions:user:ann";
    let _: i64 = command(&mut admin, &["DEL", set]).await;
    let _: () = command(&mut admin, &["SET", set, "junk"]).await;
    let elsewhere = RedisStore::connect(&server.url()).await.unwrap();
    for store in [&store, &elsewhere] {
        store.touch(&other, later).await.unwrap_err();
        let found = elsewhere.load(&other).await.unwrap().expect("a live session");
        assert!(found.expires_at < later, "it lives no longer than its user's set says");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_cluster_too_a_session_is_in_its_users_set_for_as_long_as_it_lives() {
    let Some(cluster) = RedisCluster::start() else { return };
    let urls = cluster.urls();
    let urls: Vec<&str> = urls.iter().map(String::as_str).collect();
    let [store, elsewhere, unseen] = [
        RedisStore::connect_cluster(&urls).await.unwrap(),
        RedisStore::connect_cluster(&urls).await.unwrap(),
        RedisStore::connect_cluster(&urls).await.unwrap(),
    ];
    let session = create(&store, Some("ann"), b"x").await;
    let later = SystemTime::now() + Duration::from_secs(7200);
    elsewhere.touch(&session, later).await.unwrap();
    assert!(
        store.load(&session).await.unwrap().unwrap().expires_at + Duration::from_millis(1) > later
    );
    // The set cannot be told: then the session is not touched.
    let client = redis::cluster::ClusterClient::new(urls).unwrap();
    let mut admin = client.get_async_connection().await.unwrap();
    let set = "sessions:user:ann";
    let _: i64 = redis::cmd("DEL").arg(set).query_async(&mut admin).await.unwrap();
    let _: () = redis::cmd("SET").arg(set).arg("junk").query_async(&mut admin).await.unwrap();
    for store in [&store, &elsewhere, &unseen] {
        store.touch(&session, later + Duration::from_secs(3600)).await.unwrap_err();
        assert!(store.load(&session).await.unwrap().unwrap().expires_at <= later);
    }
}

// Connections that end.

/// Ends all connections but the ones that are named.
async fn kill_connections(admin: &mut Admin) {
    let _: i64 = command(admin, &["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).await;
    sleep(Duration::from_millis(20)).await;
}

/// Each call is the first after a cut, and is answered as if there had been none.
async fn first_calls_are_answered(store: &RedisStore, mut cut: impl AsyncFnMut()) {
    for payload in [&[7; 10][..], &[7; 900]] {
        cut().await;
        let session = create(store, Some("ann"), payload).await;
        cut().await;
        let mut loaded = store.load(&session).await.unwrap().expect("a live session");
        cut().await;
        loaded.version = 2;
        assert_eq!(store.replace(&session, &loaded, 1).await.unwrap(), Replaced::Done);
        cut().await;
        assert_eq!(store.replace(&session, &loaded, 1).await.unwrap(), Replaced::Changed);
        cut().await;
        store.touch(&session, SystemTime::now() + Duration::from_secs(7200)).await.unwrap();
        cut().await;
        assert_eq!(store.sessions_of("ann").await.unwrap().len(), 1);
        cut().await;
        assert!(store.delete(&session).await.unwrap());
        cut().await;
        assert!(!store.delete(&session).await.unwrap());
        cut().await;
        assert_eq!(store.replace(&session, &loaded, 1).await.unwrap(), Replaced::Missing);
    }
}

/// The stores that there are on one server: their own connection, with either protocol, and the
/// application's.
async fn on_one_server(url: &str) -> [RedisStore; 4] {
    let resp3 = format!("{url}/?protocol=resp3");
    let manager = async |url: &str| {
        let client = redis::Client::open(url).unwrap();
        RedisStore::new(client.get_connection_manager().await.unwrap())
    };
    [
        RedisStore::connect(url).await.unwrap(),
        RedisStore::connect(&resp3).await.unwrap(),
        manager(url).await,
        manager(&resp3).await,
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_call_after_a_cut_is_answered() {
    let Some(mut server) = StoreServer::start(Kind::Redis) else { return };
    let connection = admin(&server).await;
    let stores = on_one_server(&server.url()).await;
    for store in &stores {
        first_calls_are_answered(store, async || kill_connections(&mut connection.clone()).await)
            .await;
    }

    // A proxy that ends what is idle.
    let proxy = Proxy::start(server.port()).await;
    let proxied = on_one_server(&format!("redis://127.0.0.1:{}", proxy.port())).await;
    for store in &proxied {
        first_calls_are_answered(store, async || proxy.cut().await).await;
    }

    // A restart, with nobody asking in between.
    for round in 0..2 {
        let mut sessions = Vec::new();
        for store in &stores {
            sessions.push(create(store, None, b"x").await);
        }
        server.kill();
        // With the third version of the protocol a client notices, and tries to connect again.
        sleep(Duration::from_millis(600)).await;
        server.restart();
        for (at, (store, session)) in stores.iter().zip(&sessions).enumerate() {
            let found = store.load(session).await;
            assert!(found.is_ok_and(|found| found.is_some()), "store {at}, round {round}");
        }
    }
}

/// With the third version of the protocol a manager connects again by itself, and when its attempts are
/// used up, the next call gets the error of the last, however long ago that was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manager_that_has_given_up_is_asked_once_more() {
    let Some(mut server) = StoreServer::start(Kind::Redis) else { return };
    let client = redis::Client::open(format!("{}/?protocol=resp3", server.url())).unwrap();
    let config = redis::aio::ConnectionManagerConfig::new()
        .set_number_of_retries(1)
        .set_max_delay(Duration::from_millis(10));
    let manager = client.get_connection_manager_with_config(config).await.unwrap();
    let store = RedisStore::new(manager);
    let session = create(&store, None, b"x").await;
    server.kill();
    sleep(Duration::from_millis(600)).await;
    server.restart();
    assert!(store.load(&session).await.unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_call_after_a_cut_is_answered_behind_sentinel() {
    let Some(redis) = RedisSentinels::start() else { return };
    let urls = redis.urls();
    let urls: Vec<&str> = urls.iter().map(String::as_str).collect();
    let store = RedisStore::connect_sentinel(&urls, RedisSentinels::MASTER).await.unwrap();
    let connection = admin(&redis.servers[0]).await;
    first_calls_are_answered(&store, async || kill_connections(&mut connection.clone()).await)
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_call_after_a_cut_is_answered_in_a_cluster() {
    let Some(cluster) = RedisCluster::start() else { return };
    let urls = cluster.urls();
    let urls: Vec<&str> = urls.iter().map(String::as_str).collect();
    let store = RedisStore::connect_cluster(&urls).await.unwrap();
    let mut connections = Vec::new();
    for node in &cluster.nodes {
        connections.push(admin(node).await);
    }
    first_calls_are_answered(&store, async || {
        for connection in &connections {
            kill_connections(&mut connection.clone()).await;
        }
    })
    .await;

    // What the documentation says that a user needs there, on every node.
    for connection in &mut connections {
        let rights = ["ACL", "SETUSER", "store", "on", ">secret", "~sessions:*", "+cluster|slots"];
        let _: String = command(connection, &rights).await;
        for name in COMMANDS {
            let right = format!("+{name}");
            let _: String = command(connection, &["ACL", "SETUSER", "store", &right]).await;
        }
    }
    let of_user = |url: &&str| url.replace("redis://", "redis://store:secret@");
    let urls: Vec<String> = urls.iter().map(of_user).collect();
    let urls: Vec<&str> = urls.iter().map(String::as_str).collect();
    let store = RedisStore::connect_cluster(&urls).await.unwrap();
    conformance(store.clone()).await;
    user_index(&store).await;
    for connection in &mut connections {
        let _: String = command(connection, &["ACL", "SETUSER", "store", "-zadd"]).await;
    }
    let error = RedisStore::connect_cluster(&urls).await.unwrap_err();
    assert!(!error.is_retryable() && cause(&error).contains("ZADD"), "{}", told(&error));
}

/// A connection that nobody has ended, and that leads nowhere any more: one call waits in vain.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_leads_nowhere_is_left_after_one_timeout() {
    let Some(server) = StoreServer::start(Kind::Redis) else { return };
    let proxy = Proxy::start(server.port()).await;
    let builder = RedisStore::builder().with_timeout(Duration::from_secs(2));
    let url = format!("redis://127.0.0.1:{}", proxy.port());
    let store = builder.connect(&url).await.unwrap();
    let session = create(&store, None, b"x").await;
    for _ in 0..3 {
        proxy.freeze();
        assert!(store.load(&session).await.unwrap_err().is_retryable());
        assert!(store.load(&session).await.unwrap().is_some());
    }
}

/// Calls that the server has carried out, and whose answer is lost, are made once more: what they
/// answer is what happened.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_whose_answer_is_lost_tells_what_happened() {
    let Some(server) = StoreServer::start(Kind::Redis) else { return };
    let mut admin = admin(&server).await;
    let proxy = Proxy::start(server.port()).await;
    let elsewhere = RedisStore::connect(&server.url()).await.unwrap();
    for store in on_one_server(&format!("redis://127.0.0.1:{}", proxy.port())).await {
        // The scripts are known, so that each call is one request.
        conformance(store.clone()).await;
        for payload in [&[7; 10][..], &[7; 900]] {
            let _: () = command(&mut admin, &["FLUSHDB"]).await;
            let lose = || {
                proxy.lose_answer(0);
                proxy.go_on();
            };
            lose();
            let session = create(&store, Some("ann"), payload).await;
            lose();
            let mut loaded = store.load(&session).await.unwrap().expect("a live session");
            lose();
            loaded.version = 2;
            assert_eq!(store.replace(&session, &loaded, 1).await.unwrap(), Replaced::Done);
            assert_eq!(elsewhere.load(&session).await.unwrap().as_ref(), Some(&loaded));
            lose();
            loaded.version = 3;
            assert_eq!(store.replace(&session, &loaded, 1).await.unwrap(), Replaced::Changed);

            // The set of the user learns of it as well.
            let later = SystemTime::now() + Duration::from_secs(7200);
            lose();
            store.touch(&session, later).await.unwrap();
            let member: Vec<(Vec<u8>, f64)> =
                command(&mut admin, &["ZRANGE", "sessions:user:ann", "0", "-1", "WITHSCORES"])
                    .await;
            let millis = later.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis();
            assert_eq!(member, [(session.as_bytes().to_vec(), millis as f64)]);

            lose();
            assert!(store.delete(&session).await.unwrap(), "it was there");
            lose();
            assert!(!store.delete(&session).await.unwrap(), "and is no more");
            lose();
            assert!(!store.delete(&key()).await.unwrap(), "a key that was never there");
            let keys: Vec<String> = command(&mut admin, &["KEYS", "sessions:{*}:*"]).await;
            for key in keys {
                let left: i64 = command(&mut admin, &["PTTL", &key]).await;
                assert!((0..=60_000).contains(&left), "{key} stays for {left} ms");
            }
        }
    }
}

/// A save arrives, its answer does not, and before the store tries again another process saves. The store
/// does not say that the save was not carried out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_save_that_was_overtaken_is_not_called_undone() {
    let Some(server) = StoreServer::start(Kind::Redis) else { return };
    let proxy = Proxy::start(server.port()).await;
    let url = format!("redis://127.0.0.1:{}", proxy.port());
    let store = RedisStore::connect(&url).await.unwrap();
    let elsewhere = RedisStore::connect(&server.url()).await.unwrap();
    conformance(store.clone()).await;
    let session = create(&store, None, b"x").await;
    proxy.lose_answer(0);
    let (of_save, ours) = (store.clone(), record(2, None, b"ours"));
    let save = tokio::spawn(async move { of_save.replace(&session, &ours, 1).await });
    proxy.lost().await;
    let theirs = record(3, None, b"theirs");
    assert_eq!(elsewhere.replace(&session, &theirs, 2).await.unwrap(), Replaced::Done);
    proxy.go_on();
    let error = save.await.unwrap().expect_err("nobody can tell");
    assert!(error.is_retryable(), "{}", told(&error));

    // The other process was first: the store can tell.
    let elsewhere_first = record(4, None, b"first");
    assert_eq!(elsewhere.replace(&session, &elsewhere_first, 3).await.unwrap(), Replaced::Done);
    proxy.lose_answer(0);
    proxy.go_on();
    let late = record(4, None, b"late");
    assert_eq!(store.replace(&session, &late, 3).await.unwrap(), Replaced::Changed);
}

#[derive(Session)]
struct Counter {
    /// In front of what changes, so that both ends of a session do.
    #[session(default = "x".repeat(850))]
    filling: String,
    #[session(merge = add)]
    visits: u64,
}

async fn count(session: Session<Counter>) -> String {
    let mut s = session.write().await;
    let visits = s.visits() + 1;
    s.set_visits(visits);
    if visits == 1 {
        // What is the default is not stored.
        s.set_filling("y".repeat(850));
    }
    visits.to_string()
}

async fn show(session: Session<Counter>) -> String {
    session.read().await.visits().to_string()
}

async fn counter(store: impl Store, keys: Keys) -> Server {
    let routes = Router::new().route("/count", get(count)).route("/show", get(show));
    Server::start(routes.layer(SessionLayer::<Counter>::new(store, keys))).await
}

/// The same under an application: it counts each request once, and answers it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_save_that_was_overtaken_counts_once() {
    let Some(server) = StoreServer::start(Kind::Redis) else { return };
    let proxy = Proxy::start(server.port()).await;
    let url = format!("redis://127.0.0.1:{}", proxy.port());
    let keys = Keys::generate();
    let here = counter(RedisStore::connect(&url).await.unwrap(), keys.clone()).await;
    let direct = RedisStore::connect(&server.url()).await.unwrap();
    let there = counter(direct, keys).await;
    let (client, other) = (here.client(), there.client());
    for others in [0, 1, 2, 5] {
        client.set_cookie("__Host-id", None);
        // So often that the server knows all scripts.
        for visits in ["1", "2", "3"] {
            assert_eq!(client.get("/count").await.text(), visits);
        }
        other.set_cookie("__Host-id", client.cookie("__Host-id").as_deref());
        // The load is answered; the save is what is lost.
        proxy.lose_answer(1);
        let counts = client.spawn_get("/count");
        proxy.lost().await;
        for _ in 0..others {
            assert!(other.get("/count").await.status.is_success());
        }
        proxy.go_on();
        let status = counts.await.unwrap().status;
        assert!(status.is_success(), "{status} with {others} others");
        assert_eq!(other.get("/show").await.text(), (4 + others).to_string());
    }
}

/// A store whose client makes a save again without a word, and is overtaken in between: to the
/// session it says that the save was not carried out.
#[derive(Clone)]
struct SaysChanged {
    store: std::sync::Arc<MemoryStore>,
    again: std::sync::Arc<std::sync::atomic::AtomicBool>,
}

impl Store for SaysChanged {
    hand_on!(store: load, create, touch, delete);

    async fn replace(
        &self,
        key: &StoreKey,
        record: &Record,
        based_on: u64,
    ) -> Result<Replaced, StoreError> {
        let done = self.store.replace(key, record, based_on).await?;
        if self.again.swap(false, std::sync::atomic::Ordering::SeqCst) {
            // Somebody else keeps it as it is.
            let next = record.clone().with_version(record.version + 1);
            assert_eq!(self.store.replace(key, &next, record.version).await?, Replaced::Done);
            return self.store.replace(key, record, based_on).await;
        }
        Ok(done)
    }
}

/// Clients of clusters, and proxies, repeat what was not answered, and do not say so.
#[tokio::test]
async fn a_save_that_was_repeated_without_a_word_counts_once() {
    let store = SaysChanged { store: MemoryStore::new().into(), again: Default::default() };
    let server = counter(store.clone(), Keys::generate()).await;
    let client = server.client();
    for visits in 1..=10 {
        assert_eq!(client.get("/count").await.text(), visits.to_string());
        store.again.store(visits % 2 == 0, std::sync::atomic::Ordering::SeqCst);
    }
    assert_eq!(client.get("/show").await.text(), "10");
}

// A server that takes no writes any more, behind an address that leads elsewhere by now.

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_became_a_replica_is_left() {
    let Some(old) = StoreServer::start(Kind::Redis) else { return };
    let new = StoreServer::start(Kind::Redis).expect("as the first");
    let (mut of_old, mut of_new) = (admin(&old).await, admin(&new).await);
    let [old_port, new_port] = [old.port(), new.port()].map(|port| port.to_string());
    let follow = ["REPLICAOF", "127.0.0.1"];
    let _: String = command(&mut of_new, &[follow[0], follow[1], &old_port]).await;
    let proxy = Proxy::start(old.port()).await;
    let url = format!("redis://127.0.0.1:{}", proxy.port());
    let stores = on_one_server(&url).await;
    let mut sessions = Vec::new();
    for store in &stores {
        sessions.push(create(store, Some("ann"), b"x").await);
    }
    let begun = Instant::now();
    loop {
        let replicated: i64 = command(&mut of_new, &["DBSIZE"]).await;
        if replicated == 5 {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "it is not replicated");
        sleep(Duration::from_millis(20)).await;
    }
    let _: String = command(&mut of_new, &["REPLICAOF", "NO", "ONE"]).await;
    let _: String = command(&mut of_old, &[follow[0], follow[1], &new_port]).await;
    // First the old one is no master any more, and a moment later the address leads to the new one.
    for (store, session) in stores.iter().zip(&sessions) {
        let error = store.replace(session, &record(2, Some("ann"), b"y"), 1).await.unwrap_err();
        assert!(error.is_retryable(), "{}", told(&error));
    }
    proxy.lead_to(new.port());
    sleep(Duration::from_millis(200)).await;
    for (at, (store, session)) in stores.iter().zip(&sessions).enumerate() {
        let mut failed = 0;
        for version in 2..50 {
            let next = record(version, Some("ann"), b"y");
            match store.replace(session, &next, version - 1).await {
                Ok(replaced) => assert_eq!(replaced, Replaced::Done),
                Err(error) => {
                    assert!(error.is_retryable(), "{}", told(&error));
                    assert!(cause(&error).contains("replica"), "{}", told(&error));
                    failed += 1;
                    break;
                }
            }
        }
        assert_eq!(failed, 0, "store {at}");
    }
    // Somebody connects to a replica.
    let error = RedisStore::connect(&old.url()).await.expect_err("it takes no writes");
    assert!(error.is_retryable() && cause(&error).contains("replica"), "{}", told(&error));
}

// What passes by itself, and what does not.

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_passes_by_itself_is_retryable() {
    let Some(server) = StoreServer::start(Kind::Redis) else { return };
    let store = RedisStore::connect(&server.url()).await.unwrap();
    let mut admin = admin(&server).await;
    let session = create(&store, Some("ann"), b"x").await;
    let refused = async |code: &str| {
        for error in [
            store.create(&key(), &record(1, Some("ann"), b"x")).await.unwrap_err(),
            store.replace(&session, &record(2, Some("ann"), b"y"), 1).await.unwrap_err(),
        ] {
            assert!(error.is_retryable(), "{code}: {}", told(&error));
            assert!(cause(&error).contains(code), "{}", told(&error));
        }
    };
    let later = SystemTime::now() + Duration::from_secs(7200);

    let _: String = command(&mut admin, &["CONFIG", "SET", "min-replicas-to-write", "1"]).await;
    refused("NOREPLICAS").await;
    assert!(store.touch(&session, later).await.unwrap_err().is_retryable());
    assert!(store.delete(&session).await.unwrap_err().is_retryable());
    let _: String = command(&mut admin, &["CONFIG", "SET", "min-replicas-to-write", "0"]).await;

    // A snapshot that cannot be put in its place.
    let in_the_way = server.folder().join("dump.rdb");
    std::fs::create_dir_all(in_the_way.join("x")).unwrap();
    let _: String = command(&mut admin, &["CONFIG", "SET", "save", "3600 1"]).await;
    let _: String = command(&mut admin, &["BGSAVE"]).await;
    let begun = Instant::now();
    loop {
        let info: String = command(&mut admin, &["INFO", "persistence"]).await;
        if info.contains("rdb_last_bgsave_status:err") {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "{info}");
        sleep(Duration::from_millis(20)).await;
    }
    refused("MISCONF").await;
    assert!(store.load(&session).await.unwrap().is_some());
    let _: String = command(&mut admin, &["CONFIG", "SET", "save", ""]).await;

    // A script of somebody else's that does not end.
    let _: String = command(&mut admin, &["CONFIG", "SET", "lua-time-limit", "10"]).await;
    let mut endless = admin.clone();
    let client = redis::Client::open(server.url()).unwrap();
    let mut other = client.get_multiplexed_async_connection().await.unwrap();
    let endless = tokio::spawn(async move {
        let mut eval = redis::cmd("EVAL");
        let _: Result<i64, _> =
            eval.arg("while true do end").arg(0).query_async(&mut endless).await;
    });
    sleep(Duration::from_millis(200)).await;
    refused("BUSY").await;
    assert!(store.load(&session).await.unwrap_err().is_retryable());
    let _: String = command(&mut other, &["SCRIPT", "KILL"]).await;
    endless.await.unwrap();

    // Nothing of what was refused has stayed.
    let replaced = store.replace(&session, &record(2, Some("ann"), b"y"), 1).await.unwrap();
    assert_eq!(replaced, Replaced::Done);
    assert_eq!(store.sessions_of("ann").await.unwrap().len(), 1);
    let names: Vec<String> = command(&mut other, &["KEYS", "sessions:{*}:*"]).await;
    assert_eq!(names, [] as [&str; 0]);
}

/// Errors of a connection that is made anew pass with what they come from: a server that has no
/// place for one more client, a password that is being changed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_was_refused_comes_back() {
    let Some(server) = StoreServer::start(Kind::Redis) else { return };
    let mut admin = admin(&server).await;
    let rights = ["ACL", "SETUSER", "store", "on", ">secret", "~sessions:*", "+@all"];
    let _: String = command(&mut admin, &rights).await;
    let port = server.port();
    for url in [
        format!("redis://store:secret@127.0.0.1:{port}"),
        format!("redis://store:secret@127.0.0.1:{port}/3"),
        format!("redis://store:secret@127.0.0.1:{port}/?protocol=resp3"),
    ] {
        let store = RedisStore::connect(&url).await.unwrap();
        let session = create(&store, None, b"x").await;
        let _: String = command(&mut admin, &["ACL", "SETUSER", "store", "off"]).await;
        kill_connections(&mut admin).await;
        let error = store.load(&session).await.unwrap_err();
        assert!(cause(&error).contains("password"), "{}", told(&error));
        let _: String = command(&mut admin, &["ACL", "SETUSER", "store", "on"]).await;
        assert!(store.load(&session).await.unwrap().is_some(), "{url}");
    }
}

// Permissions.

/// What the documentation of `RedisStore` says that a user needs.
const COMMANDS: [&str; 16] = [
    "get",
    "getrange",
    "mget",
    "set",
    "setrange",
    "del",
    "rename",
    "pexpire",
    "pttl",
    "eval",
    "evalsha",
    "zadd",
    "zrange",
    "zrem",
    "zscore",
    "zremrangebyscore",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_of_redis_needs_what_is_documented_and_no_more() {
    let Some(server) = StoreServer::start(Kind::Redis) else { return };
    let mut admin = admin(&server).await;
    let rights = ["ACL", "SETUSER", "store", "on", ">secret", "~sessions:*"];
    let _: String = command(&mut admin, &rights).await;
    for command_name in COMMANDS {
        let _: String =
            command(&mut admin, &["ACL", "SETUSER", "store", &format!("+{command_name}")]).await;
    }
    let host = format!("127.0.0.1:{}", server.port());
    let url = format!("redis://store:secret@{host}");
    let store = RedisStore::connect(&url).await.unwrap();
    conformance(store.clone()).await;
    user_index(&store).await;

    // With one less, `connect` says which.
    for name in COMMANDS {
        let right = |sign: &str| format!("{sign}{name}");
        let _: String = command(&mut admin, &["ACL", "SETUSER", "store", &right("-")]).await;
        let error = RedisStore::connect(&url).await.expect_err(name);
        let words = cause(&error);
        let named = words.split(|c: char| !c.is_ascii_alphabetic());
        let named: Vec<_> = named.filter(|word| *word == name.to_uppercase()).collect();
        assert!(!error.is_retryable() && named.len() == 1, "{name}: {}", told(&error));
        let _: String = command(&mut admin, &["ACL", "SETUSER", "store", &right("+")]).await;
    }

    // A database with a number needs one more.
    let error = RedisStore::connect(&format!("{url}/1")).await.unwrap_err();
    assert!(!error.is_retryable() && cause(&error).contains("select"), "{}", told(&error));

    // Other keys than those that it may use.
    let builder = RedisStore::builder().with_prefix("other");
    let error = builder.connect(&url).await.unwrap_err();
    assert!(!error.is_retryable() && cause(&error).contains("~other:*"), "{}", told(&error));

    // Taken away later, it is named by the call that needs it, and nothing stays behind.
    let session = create(&store, Some("ann"), b"x").await;
    for name in ["rename", "zadd", "getrange"] {
        let right = |sign: &str| format!("{sign}{name}");
        let _: String = command(&mut admin, &["ACL", "SETUSER", "store", &right("-")]).await;
        let new = key();
        let error = store.create(&new, &record(1, Some("zoe"), b"x")).await.expect_err(name);
        let words = cause(&error);
        assert!(!error.is_retryable() && words.contains(&name.to_uppercase()), "{}", told(&error));
        let beside = format!("sessions:{{{new}}}:*");
        let names: Vec<String> = command(&mut admin, &["KEYS", &beside]).await;
        assert_eq!(names, [] as [&str; 0], "without {name}");
        let _: String = command(&mut admin, &["ACL", "SETUSER", "store", &right("+")]).await;
    }
    assert!(store.load(&session).await.unwrap().is_some());

    // No password, and a wrong one.
    let _: String = command(&mut admin, &["CONFIG", "SET", "requirepass", "other"]).await;
    for url in [
        format!("redis://{host}"),
        format!("redis://{host}/1"),
        format!("redis://{host}/?protocol=resp3"),
        format!("redis://:wrong@{host}"),
        format!("redis://store:wrong@{host}"),
        format!("redis://store:wrong@{host}/?protocol=resp3"),
    ] {
        let error = RedisStore::connect(&url).await.expect_err(&url);
        let words = cause(&error);
        assert!(!error.is_retryable() && words.contains("password"), "{url}: {}", told(&error));
    }
    let error = RedisStore::connect("redis://127.0.0.1:1").await.unwrap_err();
    assert!(error.is_retryable() && cause(&error).contains("refused"), "{}", told(&error));
    recovers(&store).await;

    // A server that has not got all commands.
    let without = ["--rename-command", "ZADD", ""];
    let server = StoreServer::start_with(Kind::Redis, &without).expect("as the first");
    let error = RedisStore::connect(&server.url()).await.unwrap_err();
    let words = cause(&error);
    let names_it = words.contains("does not know ZADD");
    assert!(!error.is_retryable() && names_it, "{}", told(&error));
}

// Parts of sessions.

/// A session whose fields are merged carries the marks of its last saves, and is sent in parts as
/// any other is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_with_merged_fields_is_patched() {
    let Some(server) = StoreServer::start(Kind::Redis) else { return };
    let store = RedisStore::connect(&server.url()).await.unwrap();
    let mut admin = admin(&server).await;
    let server = counter(store, Keys::generate()).await;
    let client = server.client();
    assert_eq!(client.get("/count").await.text(), "1");
    // The server learns the script.
    assert_eq!(client.get("/count").await.text(), "2");
    let sent = async |admin: &mut Admin| {
        (number(admin, "cmdstat_set:calls=").await, number(admin, "total_net_input_bytes:").await)
    };
    let before = sent(&mut admin).await;
    for visits in 3..=32 {
        assert_eq!(client.get("/count").await.text(), visits.to_string());
    }
    let after = sent(&mut admin).await;
    assert_eq!(after.0 - before.0, 0, "of 30 saves so many sent the whole session");
    let bytes = (after.1 - before.1) / 30;
    assert!(bytes < 700, "{bytes} bytes for a load and a save of a session of 900");
}
