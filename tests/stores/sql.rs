//! SQLite, PostgreSQL, MariaDB.

use std::{
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use sessions::{
    Created, DeleteExpired, MySqlStore, PostgresStore, SqliteStore, Store,
    store::{Dialect, SqlStore},
    testing::{ManualClock, conformance},
};
use sessions_tests::{
    at_once, eventually,
    servers::{Folder, Kind, StoreServer},
};
use tokio::{runtime, time::sleep};

use crate::{
    app,
    checks::{
        HANGS, Load, all_retryable, all_sessions, dropped_calls_answer_nobody_else, hangs, key,
        record, recovers, user_index,
    },
    under_test,
};

/// What all three promise; `connect` makes a store of its own each time.
async fn promises<D: Dialect>(url: &str) {
    let store = SqlStore::<D>::connect(url).await.unwrap();
    let error = store.load(&key()).await.unwrap_err();
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(!error.is_retryable() && cause.contains("call `migrate`"), "{error}: {cause}");

    // Ten processes at once, as far as the database can tell.
    let url_of = url.to_string();
    at_once(10, move |_| {
        let url = url_of.clone();
        async move {
            let builder = SqlStore::<D>::builder().with_max_connections(1);
            builder.connect(&url).await.unwrap().migrate().await.unwrap();
        }
    })
    .await;
    store.migrate().await.unwrap();

    all_sessions(&store).await;
    conformance(store.clone()).await;
    user_index(&store).await;
    app::works_on(store.clone()).await;
    sweep::<D>(url).await;
    sweep_beside_requests::<D>(url).await;
    let builder = SqlStore::<D>::builder().with_max_connections(2);
    dropped_calls_answer_nobody_else(&builder.connect(url).await.unwrap()).await;

    // A user that no index takes is refused, and not cut off.
    let long = "x".repeat(1021);
    let error = store.create(&key(), &record(1, Some(&long), b"")).await.unwrap_err();
    assert!(!error.is_retryable());
    let long = "é".repeat(510);
    let session = key();
    let created = store.create(&session, &record(1, Some(&long), b"")).await.unwrap();
    assert_eq!(created, Created::Done);
    assert_eq!(store.load(&session).await.unwrap().unwrap().user.as_deref(), Some(&*long));

    let debug = format!("{store:?}");
    assert!(!debug.contains("127.0.0.1") && debug.contains("sessions"), "{debug}");
    for wrong in ["", "a b", "a\"b", "a;b", "1a"] {
        let builder = SqlStore::<D>::builder().with_table(wrong);
        assert!(builder.connect(url).await.is_err(), "{wrong}");
    }
}

/// `delete_expired` removes what has expired, in batches, and nothing else; the runner does it by
/// itself.
async fn sweep<D: Dialect>(url: &str) {
    let clock = ManualClock::new();
    let builder = SqlStore::<D>::builder().with_table("swept").with_clock(&clock);
    let store = builder.without_sweep().connect(url).await.unwrap();
    store.migrate().await.unwrap();
    let at = |seconds| {
        record(1, None, b"x")
            .with_created_at(clock.now())
            .with_expires_at(clock.now() + Duration::from_secs(seconds))
    };
    let live = key();
    assert_eq!(store.create(&live, &at(60)).await.unwrap(), Created::Done);
    for _ in 0..25 {
        assert_eq!(store.create(&key(), &at(10)).await.unwrap(), Created::Done);
    }
    assert_eq!(store.delete_expired(10).await.unwrap(), 0);
    clock.advance(Duration::from_secs(10));
    for removed in [10, 10, 5, 0] {
        assert_eq!(store.delete_expired(10).await.unwrap(), removed);
    }
    assert!(store.load(&live).await.unwrap().is_some());

    for _ in 0..25 {
        assert_eq!(store.create(&key(), &at(10)).await.unwrap(), Created::Done);
    }
    clock.advance(Duration::from_secs(10));
    let builder = SqlStore::<D>::builder().with_table("swept").with_clock(&clock);
    let builder = builder.with_sweep_interval(Duration::from_millis(20)).with_sweep_batch(10);
    let sweeper = builder.connect(url).await.unwrap();
    // The runner has to do the work, and not the count below, which removes what it counts.
    eventually("the runner has removed them all", async || {
        sleep(Duration::from_millis(50)).await;
        count(&sweeper).await == 0
    })
    .await;
    assert!(store.load(&live).await.unwrap().is_some());
    drop(sweeper);
}

/// How many expired rows there are, one at most, by a step that removes them.
async fn count<D: Dialect>(store: &SqlStore<D>) -> u64 {
    store.delete_expired(1).await.unwrap()
}

/// Ten thousand expired sessions are removed in batches while others load and save: no call
/// fails, nothing live goes, and a save gets its turn between two batches.
async fn sweep_beside_requests<D: Dialect>(url: &str) {
    const EXPIRED: usize = 10_000;
    let clock = ManualClock::new();
    let connect = async || {
        let builder = SqlStore::<D>::builder().with_table("beside").with_clock(&clock);
        builder.without_sweep().connect(url).await.unwrap()
    };
    let store = connect().await;
    store.migrate().await.unwrap();
    let at = |seconds| {
        record(1, None, b"x")
            .with_created_at(clock.now())
            .with_expires_at(clock.now() + Duration::from_secs(seconds))
    };
    let (short, long) = (at(10), at(60));
    let store_of = store.clone();
    at_once(8, move |_| {
        let (store, short) = (store_of.clone(), short.clone());
        async move {
            for _ in 0..EXPIRED / 8 {
                assert_eq!(store.create(&key(), &short).await.unwrap(), Created::Done);
            }
        }
    })
    .await;
    let is_over = Arc::new(AtomicBool::new(false));
    let mut clients = Vec::new();
    for _ in 0..4 {
        let (session, long) = (key(), long.clone());
        assert_eq!(store.create(&session, &long).await.unwrap(), Created::Done);
        let (store, is_over) = (store.clone(), is_over.clone());
        clients.push(tokio::spawn(async move {
            let mut version = 1;
            while !is_over.load(SeqCst) {
                let next = long.clone().with_version(version + 1);
                let replaced = store.replace(&session, &next, version).await.unwrap();
                assert_eq!(replaced, sessions::Replaced::Done);
                version += 1;
                assert_eq!(store.load(&session).await.unwrap().unwrap().version, version);
            }
            version
        }));
    }
    clock.advance(Duration::from_secs(10));
    // As two processes do.
    let sweep = async |store: SqlStore<D>| {
        let mut total = 0;
        loop {
            let removed = store.delete_expired(500).await.unwrap();
            total += removed;
            if removed < 500 {
                return total;
            }
        }
    };
    let (one, other) = tokio::join!(sweep(store.clone()), sweep(connect().await));
    is_over.store(true, SeqCst);
    for client in clients {
        assert!(client.await.expect("no call fails") > 1, "it was heard");
    }
    // Each leaves to the other what that is just removing.
    let rest = sweep(store).await;
    assert_eq!(one + other + rest, EXPIRED as u64);
}

/// The server is killed under load and comes back: nothing acknowledged is lost, and the store
/// recovers by itself.
async fn survives_kills<S: Store + Clone>(store: S, mut server: StoreServer) {
    let load = Load::start(store.clone(), 8).await;
    sleep(Duration::from_millis(300)).await;
    for _ in 0..2 {
        server.kill();
        sleep(Duration::from_millis(100)).await;
        server.restart();
        recovers(&store).await;
        sleep(Duration::from_millis(200)).await;
    }
    let errors = load.finish().await;
    assert!(!errors.is_empty(), "the server was away");
    all_retryable(&errors);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_keeps_its_promises() {
    under_test("SQLite");
    let folder = Folder::new();
    let file = folder.path.join("sessions.db");
    promises::<sqlx::Sqlite>(&format!("sqlite:{}", file.display())).await;
    // In memory there is one connection, which must never end.
    let store = SqliteStore::connect("sqlite::memory:").await.unwrap();
    store.migrate().await.unwrap();
    conformance(store).await;
    // On a pool of the application, and in a table of its own.
    let pool = sqlx::SqlitePool::connect(&format!("sqlite:{}", file.display())).await.unwrap();
    let store = SqliteStore::builder().with_table("own").build(pool).unwrap();
    store.migrate().await.unwrap();
    conformance(store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_keeps_its_promises() {
    let Some(server) = StoreServer::start(Kind::Postgres) else { return };
    under_test("PostgreSQL");
    promises::<sqlx::Postgres>(&server.url()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mariadb_keeps_its_promises() {
    let packet = ["--max-allowed-packet=16M"];
    let Some(server) = StoreServer::start_with(Kind::MariaDb, &packet) else { return };
    under_test("MariaDB");
    promises::<sqlx::MySql>(&server.url()).await;
    // A payload larger than a packet.
    let store = MySqlStore::connect(&server.url()).await.unwrap();
    let large = vec![7; 17 * 1024 * 1024];
    assert!(store.create(&key(), &record(1, None, &large)).await.is_err());
    recovers(&store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_loses_nothing_when_it_is_killed() {
    let Some(server) = StoreServer::start(Kind::Postgres) else { return };
    let store = PostgresStore::connect(&server.url()).await.unwrap();
    store.migrate().await.unwrap();

    // Its connections are ended one and all, under load.
    let load = Load::start(store.clone(), 8).await;
    let admin = sqlx::PgPool::connect(&server.url()).await.unwrap();
    for _ in 0..3 {
        sleep(Duration::from_millis(100)).await;
        let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                   WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'";
        sqlx::raw_sql(end).execute(&admin).await.unwrap();
        recovers(&store).await;
    }
    all_retryable(&load.finish().await);
    drop(admin);

    survives_kills(store, server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mariadb_loses_nothing_when_it_is_killed() {
    let Some(server) = StoreServer::start(Kind::MariaDb) else { return };
    let store = MySqlStore::connect(&server.url()).await.unwrap();
    store.migrate().await.unwrap();
    survives_kills(store, server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_postgres_that_hangs_is_an_error() {
    let Some(server) = StoreServer::start(Kind::Postgres) else { return };
    let builder = PostgresStore::builder().with_timeout(HANGS).without_sweep();
    let store = builder.connect(&server.url()).await.unwrap();
    store.migrate().await.unwrap();
    hangs(store, &server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mariadb_that_hangs_is_an_error() {
    let Some(server) = StoreServer::start(Kind::MariaDb) else { return };
    let builder = MySqlStore::builder().with_timeout(HANGS).without_sweep();
    let store = builder.connect(&server.url()).await.unwrap();
    store.migrate().await.unwrap();
    hangs(store, &server).await;
}

/// The sweep goes on with whoever calls next, when the runtime that it began in has ended.
#[test]
fn expired_rows_are_swept_in_the_next_runtime() {
    let runtime = || runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let folder = Folder::new();
    let url = format!("sqlite:{}", folder.path.join("sessions.db").display());
    let clock = ManualClock::new();
    let builder = SqliteStore::builder().with_clock(&clock);
    let store = runtime().block_on(async {
        let builder = builder.with_sweep_interval(Duration::from_millis(20));
        let store = builder.connect(&url).await.unwrap();
        store.migrate().await.unwrap();
        store
    });
    runtime().block_on(async {
        let rows = sqlx::SqlitePool::connect(&url).await.unwrap();
        let count = async || -> i64 {
            let count = sqlx::query_scalar("SELECT count(*) FROM sessions");
            count.fetch_one(&rows).await.unwrap()
        };
        let expires_at = clock.now() + Duration::from_secs(10);
        let expires = record(1, None, b"x").with_expires_at(expires_at);
        assert_eq!(store.create(&key(), &expires).await.unwrap(), Created::Done);
        assert_eq!(count().await, 1);
        clock.advance(Duration::from_secs(10));
        eventually("it is swept", async || count().await == 0).await;
    });
}

/// Two processes whose clocks differ by a minute: each ends a session by its own clock, and neither
/// takes from the other what it should not.
#[tokio::test]
async fn clocks_that_differ_disagree_by_no_more_than_that() {
    let folder = Folder::new();
    let url = format!("sqlite:{}", folder.path.join("sessions.db").display());
    let (ours, theirs) = (ManualClock::new(), ManualClock::new());
    theirs.advance(Duration::from_secs(60));
    let connect = async |clock| {
        let builder = SqliteStore::builder().with_clock(clock).without_sweep();
        builder.connect(&url).await.unwrap()
    };
    let (slow, fast) = (connect(&ours).await, connect(&theirs).await);
    slow.migrate().await.unwrap();
    let expires_at = ours.now() + Duration::from_secs(90);
    let session = key();
    let first = record(1, None, b"x").with_expires_at(expires_at);
    assert_eq!(slow.create(&session, &first).await.unwrap(), Created::Done);
    assert!(fast.load(&session).await.unwrap().is_some());
    for clock in [&ours, &theirs] {
        clock.advance(Duration::from_secs(30));
    }
    assert!(fast.load(&session).await.unwrap().is_none(), "90 seconds by the fast clock");
    assert!(slow.load(&session).await.unwrap().is_some(), "30 by the slow one");
    for clock in [&ours, &theirs] {
        clock.advance(Duration::from_secs(60));
    }
    assert!(slow.load(&session).await.unwrap().is_none(), "a minute later");
}

/// A request is as many statements as its calls: the server counts them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_counts_one_statement_for_each_call() {
    let Some(server) = StoreServer::start(Kind::Postgres) else { return };
    let builder = PostgresStore::builder().without_sweep();
    let store = builder.connect(&server.url()).await.unwrap();
    store.migrate().await.unwrap();
    let admin = sqlx::PgPool::connect(&server.url()).await.unwrap();
    sqlx::raw_sql("CREATE EXTENSION pg_stat_statements").execute(&admin).await.unwrap();
    let counted = async |verb: &str| -> i64 {
        let sum = "SELECT coalesce(sum(calls), 0)::bigint FROM pg_stat_statements \
                   WHERE query LIKE $1 AND query LIKE '%\"sessions\"%'";
        let query = sqlx::query_scalar(sum).bind(format!("{verb}%"));
        query.fetch_one(&admin).await.unwrap()
    };
    let verbs = async || {
        let mut all = [0; 4];
        for (count, verb) in all.iter_mut().zip(["SELECT id", "INSERT", "UPDATE", "DELETE"]) {
            *count = counted(verb).await;
        }
        all
    };
    app::counts_on_the_server(store, verbs).await;
}

/// The environment variable that makes this test binary a process that writes until it is killed.
const WRITER: &str = "SESSIONS_TEST_SQLITE_WRITER";

/// Not a test by itself: see the next one.
#[tokio::test]
async fn sqlite_writer() {
    use std::io::Write;
    let Ok(url) = std::env::var(WRITER) else { return };
    let store = SqliteStore::connect(&url).await.unwrap();
    let (key, mut version) = (key(), 1);
    let _ = store.create(&key, &record(version, None, b"")).await.unwrap();
    let mut out = std::io::stderr();
    // Bounded, in case nobody kills it.
    for _ in 0..200_000 {
        let next = record(version + 1, None, &(version + 1).to_le_bytes());
        let replaced = store.replace(&key, &next, version).await.unwrap();
        assert_eq!(replaced, sessions::Replaced::Done);
        version += 1;
        // Acknowledged: from here on it must not get lost.
        writeln!(out, "saved {key} {version}").unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_loses_nothing_when_its_process_is_killed() {
    let folder = Folder::new();
    let url = format!("sqlite:{}", folder.path.join("sessions.db").display());
    let store = SqliteStore::connect(&url).await.unwrap();
    store.migrate().await.unwrap();
    for round in 0..3 {
        let said = folder.path.join(format!("said-{round}"));
        let file = std::fs::File::create(&said).unwrap();
        let mut writer = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "sql::sqlite_writer", "--nocapture"])
            .env(WRITER, &url)
            .stdout(Stdio::null())
            .stderr(file)
            .spawn()
            .unwrap();
        let saved = || std::fs::read_to_string(&said).unwrap();
        eventually("the writer has saved something", async || saved().lines().count() > 50).await;
        writer.kill().unwrap();
        writer.wait().unwrap();
        let saved = saved();
        let last = saved.lines().rfind(|line| line.starts_with("saved ")).unwrap();
        // The last line may have been cut off by the kill.
        let whole = match saved.ends_with('\n') {
            true => last,
            false => saved.lines().nth_back(1).unwrap(),
        };
        let mut words = whole.split(' ').skip(1);
        let hex = words.next().unwrap();
        let mut bytes = [0; 32];
        for (at, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap();
        }
        let version: u64 = words.next().unwrap().parse().unwrap();
        let found = store.load(&sessions::StoreKey::from_bytes(bytes)).await.unwrap().unwrap();
        assert!(found.version >= version, "{} of {version} survived", found.version);
        assert_eq!(*found.payload, found.version.to_le_bytes());
    }
    conformance(store).await;
}
