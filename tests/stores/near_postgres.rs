//! Near caches before a real PostgreSQL, which notifies of changes where it can.

use std::time::{Duration, Instant, SystemTime};

use sessions::{
    Created, PostgresStore, Replaced, Store, UserIndex, store::NearCache, testing::conformance,
};
use sessions_tests::{
    ended::every_waiter_hears_of_the_end,
    eventually,
    servers::{Kind, StoreServer},
};
use sqlx::{Connection as _, Executor as _, PgConnection, postgres::PgConnectOptions, raw_sql};
use tokio::time::{sleep, timeout};

use crate::{
    app,
    checks::{all_sessions, dropped_calls_answer_nobody_else, key, record, user_index},
    cut::Proxy,
    near::{Log, hits, version},
    under_test,
};

const STALENESS: Duration = Duration::from_millis(600);

async fn store(url: &str) -> PostgresStore {
    let store = PostgresStore::builder().with_notifications().connect(url).await.unwrap();
    store.migrate().await.unwrap();
    store
}

/// Once it is told.
async fn near(store: PostgresStore) -> NearCache<PostgresStore> {
    let near = NearCache::builder().with_staleness(STALENESS).build(store).unwrap();
    listens(&near).await;
    near
}

async fn listens(near: &NearCache<PostgresStore>) {
    let session = key();
    let _ = near.create(&session, &record(1, None, b"x")).await.unwrap();
    eventually("it listens", async || {
        let before = near.stats().hits;
        let _ = near.load(&session).await;
        near.stats().hits > before
    })
    .await;
    assert!(near.delete(&session).await.unwrap());
}

async fn admin(server: &StoreServer) -> PgConnection {
    PgConnection::connect(&server.url()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_near_cache_keeps_the_promises_of_its_store() {
    let Some(server) = StoreServer::start(Kind::Postgres) else { return };
    under_test("PostgreSQL with a near cache");
    let near = near(store(&server.url()).await).await;
    all_sessions(&near).await;
    conformance(near.clone()).await;
    user_index(&near).await;
    dropped_calls_answer_nobody_else(&near).await;
    app::works_on(near.clone()).await;
    let stats = near.stats();
    assert!(stats.hits > 300, "{stats:?}");
}

/// Each way in which a row is changed, by this process, by another with a cache or without, and by hand.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeated_read_asks_nobody_and_a_change_is_seen() {
    let Some(server) = StoreServer::start(Kind::Postgres) else { return };
    let here = near(store(&server.url()).await).await;
    let there = near(store(&server.url()).await).await;
    let plain = PostgresStore::connect(&server.url()).await.unwrap();
    let session = key();
    let mut at = 1;
    assert_eq!(here.create(&session, &record(1, Some("ann"), b"x")).await.unwrap(), Created::Done);
    for round in 0..30 {
        for store in [&here, &there] {
            assert_eq!(version(store, &session).await, Some(at));
        }
        at += 1;
        let next = record(at, Some("ann"), b"y");
        let replaced = match round % 3 {
            0 => here.replace(&session, &next, at - 1).await,
            1 => there.replace(&session, &next, at - 1).await,
            _ => plain.replace(&session, &next, at - 1).await,
        };
        assert_eq!(replaced.unwrap(), Replaced::Done, "round {round}");
        if round % 3 == 0 {
            let before = here.stats().misses;
            assert_eq!(version(&here, &session).await, Some(at), "one sees what one has written");
            // What is told of one's own save takes nothing away.
            assert_eq!(here.stats().misses, before, "round {round}");
        }
        for store in [&here, &there] {
            eventually("it is seen", async || version(store, &session).await == Some(at)).await;
        }
    }
    sleep(Duration::from_millis(50)).await;
    let before = [here.stats().misses, there.stats().misses];
    for _ in 0..50 {
        assert_eq!(version(&here, &session).await, Some(at));
        assert_eq!(version(&there, &session).await, Some(at));
    }
    assert_eq!([here.stats().misses, there.stats().misses], before, "nobody is asked");

    // As a subscription of logical replication does, or a restore of data alone.
    let mut replica = admin(&server).await;
    let change =
        "SET session_replication_role = replica; UPDATE sessions SET version = version + 1";
    raw_sql(change).execute(&mut replica).await.unwrap();
    at += 1;
    for store in [&here, &there] {
        eventually("it is seen", async || version(store, &session).await == Some(at)).await;
    }

    let later = SystemTime::now() + Duration::from_secs(7200);
    plain.touch(&session, later).await.unwrap();
    eventually("it expires later", async || {
        let found = here.load(&session).await.unwrap().unwrap();
        found.expires_at > later - Duration::from_secs(1)
    })
    .await;
    version(&there, &session).await;
    assert_eq!(there.delete_sessions_of("ann", None).await.unwrap(), 1);
    assert_eq!(version(&there, &session).await, None, "one sees at once what one ends");
    eventually("the end", async || version(&here, &session).await.is_none()).await;

    for by_hand in ["DELETE FROM sessions", "TRUNCATE sessions"] {
        let session = key();
        let _ = here.create(&session, &record(1, None, b"x")).await.unwrap();
        assert_eq!(version(&here, &session).await, Some(1));
        admin(&server).await.execute(by_hand).await.unwrap();
        eventually(by_hand, async || version(&here, &session).await.is_none()).await;
    }
}

/// A connection that the server ends because nothing has happened on it for a while is not a deaf one: when requests come
/// again, the cache serves soon.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_ends_idle_connections_is_listened_to_again() {
    let settings = ["-c", "idle_session_timeout=1000ms"];
    let Some(server) = StoreServer::start_with(Kind::Postgres, &settings) else { return };
    let near = near(store(&server.url()).await).await;
    let session = key();
    let _ = near.create(&session, &record(1, None, b"x")).await.unwrap();
    // The connection that heard something ends, and the next one, that has not.
    sleep(Duration::from_millis(3500)).await;
    let begun = Instant::now();
    eventually("it serves", async || {
        let before = near.stats().hits;
        assert_eq!(version(&near, &session).await, Some(1));
        near.stats().hits > before
    })
    .await;
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

/// One connection for the pool and one that listens: there is none to look with whether a pooler shares them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_listens_with_as_many_connections_as_it_needs_and_no_more() {
    let Some(server) = StoreServer::start(Kind::Postgres) else { return };
    let mut admin = admin(&server).await;
    for statement in
        ["CREATE ROLE few LOGIN CONNECTION LIMIT 2", "GRANT ALL ON SCHEMA public TO few"]
    {
        admin.execute(statement).await.unwrap();
    }
    let url = server.url().replace("//postgres@", "//few@");
    let builder = PostgresStore::builder().with_notifications().with_max_connections(1);
    let store = builder.connect(&url).await.unwrap();
    store.migrate().await.unwrap();
    let near = near(store).await;
    assert!(PgConnection::connect(&url).await.is_err(), "both connections are in use");
    assert!(hits(&near).await > 8);
}

// One thread, which has the log.
#[tokio::test]
async fn a_store_that_is_not_told_goes_without_and_says_so_once() {
    let Some(server) = StoreServer::start(Kind::Postgres) else { return };
    let log = Log::default();
    let writer = log.clone();
    let subscriber =
        tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    let _here = tracing::subscriber::set_default(subscriber);

    let plain = PostgresStore::connect(&server.url()).await.unwrap();
    plain.migrate().await.unwrap();
    let refused = NearCache::new(plain).err().unwrap().to_string();
    assert!(refused.contains("`with_notifications`"), "{refused}");
    let builder = PostgresStore::builder().with_notifications_from("nowhere");
    let refused = NearCache::new(builder.connect(&server.url()).await.unwrap()).err();
    assert!(refused.is_some(), "a URL that makes no sense");

    // The table is of a build that knew of no triggers.
    let builder = PostgresStore::builder().with_notifications();
    let untold = NearCache::new(builder.connect(&server.url()).await.unwrap()).unwrap();
    let session = key();
    let _ = untold.create(&session, &record(1, None, b"x")).await.unwrap();
    eventually("it is told of", async || {
        let _ = untold.load(&session).await.unwrap();
        log.lines("the table has no trigger") == 1
    })
    .await;
    assert_eq!(hits(&untold).await, 0);

    // Connections change hands between transactions.
    let told = store(&server.url()).await;
    let Some(pooler) = StoreServer::start_pooler(&server, 2, &["pool_mode = transaction"]) else {
        return;
    };
    let builder =
        PostgresStore::builder().with_notifications().with_timeout(Duration::from_secs(1));
    let pooled = NearCache::new(builder.connect(&pooler.url()).await.unwrap()).unwrap();
    let session = key();
    let _ = pooled.create(&session, &record(1, None, b"x")).await.unwrap();
    eventually("it is told of", async || {
        assert_eq!(version(&pooled, &session).await, Some(1));
        log.lines("a pooler in `pool_mode = transaction`") == 1
    })
    .await;
    assert!(told.delete(&session).await.unwrap());
    assert_eq!(version(&pooled, &session).await, None, "nothing is believed");
    assert_eq!(hits(&pooled).await, 0);
    assert_eq!(log.lines("does not tell what changes"), 2);
    let mut all = Vec::new();
    for _ in 0..2 {
        let options: PgConnectOptions = pooler.url().parse().unwrap();
        let mut other =
            PgConnection::connect_with(&options.extra_float_digits(None)).await.unwrap();
        other.execute(raw_sql("BEGIN")).await.unwrap();
        let channels = other.fetch_all(raw_sql("SELECT pg_listening_channels()")).await.unwrap();
        assert_eq!(channels.len(), 0, "a connection that others are given is told nothing");
        all.push(other);
    }
    for other in all {
        other.close().await.unwrap();
    }

    // Past the pooler.
    let builder = PostgresStore::builder().with_notifications_from(&server.url());
    let past = near(builder.connect(&pooler.url()).await.unwrap()).await;
    let session = key();
    let _ = past.create(&session, &record(1, None, b"x")).await.unwrap();
    assert_eq!(version(&past, &session).await, Some(1));
    assert!(told.delete(&session).await.unwrap());
    eventually("the end", async || version(&past, &session).await.is_none()).await;
    assert_eq!(log.lines("does not tell what changes"), 2);
}

/// The connection that listens lives, and nothing comes through it; the trigger is off; the server dies.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_sign_of_life_nothing_is_served() {
    let Some(mut server) = StoreServer::start(Kind::Postgres) else { return };
    let plain = store(&server.url()).await;
    let proxy = Proxy::start(server.port()).await;
    let listens_at = server.url().replace(&server.port().to_string(), &proxy.port().to_string());
    let builder = PostgresStore::builder().with_notifications_from(&listens_at);
    let builder = builder.with_timeout(Duration::from_secs(2));
    let here = near(builder.connect(&server.url()).await.unwrap()).await;
    let session = key();
    let _ = here.create(&session, &record(1, None, b"x")).await.unwrap();
    assert_eq!(version(&here, &session).await, Some(1));
    proxy.freeze();
    assert!(plain.delete(&session).await.unwrap());
    sleep(STALENESS).await;
    assert_eq!(version(&here, &session).await, None, "nobody knows, and it is asked for");
    // What does not answer is given up.
    listens(&here).await;

    let _ = here.create(&session, &record(1, None, b"x")).await.unwrap();
    assert_eq!(version(&here, &session).await, Some(1));
    let mut admin = admin(&server).await;
    admin.execute("ALTER TABLE sessions DISABLE TRIGGER sessions_changed").await.unwrap();
    assert!(plain.delete(&session).await.unwrap());
    sleep(STALENESS).await;
    assert_eq!(version(&here, &session).await, None, "nobody is told");
    drop(here);
    admin.execute("ALTER TABLE sessions ENABLE TRIGGER sessions_changed").await.unwrap();

    let here = near(store(&server.url()).await).await;
    let _ = here.create(&session, &record(1, None, b"x")).await.unwrap();
    assert_eq!(version(&here, &session).await, Some(1));
    server.kill();
    eventually("the connection has ended", async || {
        let asked = timeout(Duration::from_secs(10), here.load(&session)).await;
        asked.expect("an answer").is_err()
    })
    .await;
    server.restart();
    eventually("it is asked again", async || here.load(&session).await.is_ok()).await;
    assert_eq!(version(&here, &session).await, Some(1));
    listens(&here).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_logouts_are_told_by_postgres_to_all_who_wait() {
    let Some(server) = StoreServer::start(Kind::Postgres) else { return };
    let stores = [near(store(&server.url()).await).await, near(store(&server.url()).await).await];
    // Nobody looks: PostgreSQL tells.
    every_waiter_hears_of_the_end(stores, Duration::from_secs(1000), 1_000).await;
}
