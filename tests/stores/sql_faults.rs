//! The SQL stores where what is between them and the table is not as they wish: poolers, failovers,
//! servers with other defaults, roles with few rights.

use std::{
    error::Error,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use sessions::{
    Created, MySqlStore, PostgresStore, Replaced, SqliteStore, Store, StoreError, UserIndex,
    store::{Dialect, SqlStore},
};
use sessions_tests::{
    at_once,
    servers::{Folder, Kind, StoreServer, free_port},
};
use sqlx::{Connection, Executor, mysql::MySqlPoolOptions, postgres::PgPoolOptions};
use tokio::{
    io::AsyncWriteExt,
    time::{sleep, timeout},
};

use crate::{
    checks::{dropped_calls_answer_nobody_else, key, record, user_index},
    cut::Proxy,
    under_test,
};

/// All that an error says.
fn words(error: &StoreError) -> String {
    let cause = error.source().map(ToString::to_string);
    format!("{error}: {}", cause.unwrap_or_default())
}

/// A pool as an application makes its own.
async fn pool(url: &str) -> sqlx::PgPool {
    PgPoolOptions::new().max_connections(10).connect(url).await.unwrap()
}

/// 40 sessions are read while 300 others log out; what was only read is there afterwards, and what
/// was ended is not.
async fn reads_beside_logouts(stores: &[PostgresStore]) {
    let create = async |store: &PostgresStore, user: &str| {
        let session = key();
        let created = store.create(&session, &record(1, Some(user), b"x")).await.unwrap();
        assert_eq!(created, Created::Done);
        session
    };
    let (mut read, mut ended) = (Vec::new(), Vec::new());
    for number in 0..40 {
        read.push(create(&stores[number % stores.len()], "reader").await);
    }
    for number in 0..300 {
        ended.push(create(&stores[number % stores.len()], "leaver").await);
    }
    let is_over = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = read
        .iter()
        .enumerate()
        .map(|(number, &session)| {
            let (store, is_over) = (stores[number % stores.len()].clone(), is_over.clone());
            tokio::spawn(async move {
                while !is_over.load(SeqCst) {
                    let found = store.load(&session).await.map_err(|error| words(&error))?;
                    let user = found.ok_or("a session that was only read is gone")?.user;
                    assert_eq!(user.as_deref(), Some("reader"));
                    // As the list of a user's devices does.
                    let list = store.sessions_of("reader").await.map_err(|error| words(&error))?;
                    assert_eq!(list.len(), 40);
                }
                Ok::<(), String>(())
            })
        })
        .collect();
    let ended = Arc::new(ended);
    let (stores_of, keys) = (Arc::new(stores.to_vec()), ended.clone());
    let logouts = at_once(30, move |client| {
        let (stores, keys) = (stores_of.clone(), keys.clone());
        async move {
            for number in (client..300).step_by(30) {
                let store = &stores[number % stores.len()];
                let deleted = store.delete(&keys[number]).await.map_err(|error| words(&error))?;
                assert!(deleted, "it was there");
            }
            Ok::<(), String>(())
        }
    });
    let logouts = logouts.await;
    is_over.store(true, SeqCst);
    for reader in readers {
        reader.await.expect("no reader panics").unwrap();
    }
    for logout in logouts {
        logout.unwrap();
    }
    for session in &read {
        let found = stores[0].load(session).await.unwrap();
        assert!(found.is_some(), "a session that was only read is gone");
    }
    for session in ended.iter() {
        let found = stores[0].load(session).await.unwrap();
        assert!(found.is_none(), "a session lives after its logout");
    }
    assert_eq!(stores[0].delete_sessions_of("reader", None).await.unwrap(), 40);
}

/// PgBouncer 1.18 knows no prepared statements: what a client has prepared stays with the connection
/// to the server, which the next transaction of another client gets.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_behind_a_pooler_takes_no_statement_for_another() {
    let Some(server) = StoreServer::start(Kind::Postgres) else { return };
    let ignore = ["ignore_startup_parameters = extra_float_digits"];
    let Some(pooler) = StoreServer::start_pooler(&server, 6, &ignore) else { return };
    under_test("PostgreSQL behind PgBouncer");
    let direct = PostgresStore::connect(&server.url()).await.unwrap();
    direct.migrate().await.unwrap();
    let url = pooler.url();

    // Three processes that connect by URL.
    let mut stores = Vec::new();
    for _ in 0..3 {
        stores.push(PostgresStore::connect(&url).await.unwrap());
    }
    stores[0].migrate().await.unwrap();
    reads_beside_logouts(&stores).await;

    // And three with pools of the application's.
    let mut stores = Vec::new();
    for _ in 0..3 {
        stores.push(PostgresStore::new(pool(&url).await));
    }
    reads_beside_logouts(&stores).await;
    user_index(&stores[0]).await;

    // Where the setting says so from the start.
    let builder = || PostgresStore::builder().without_prepared_statements();
    let own = builder().connect(&url).await.unwrap();
    let theirs = builder().build(pool(&url).await).unwrap();
    reads_beside_logouts(&[own, theirs]).await;
}

/// The pooler comes between a running program and its server: the first crossed statement tells.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pooler_that_comes_later_is_recognised() {
    let Some(server) = StoreServer::start(Kind::Postgres) else { return };
    let ignore = ["ignore_startup_parameters = extra_float_digits"];
    let Some(pooler) = StoreServer::start_pooler(&server, 6, &ignore) else { return };
    let proxy = Proxy::start(server.port()).await;
    let url = format!("postgres://postgres@127.0.0.1:{}/postgres", proxy.port());
    let mut stores = Vec::new();
    for number in 0..4 {
        let store = match number % 2 {
            0 => PostgresStore::connect(&url).await.unwrap(),
            _ => PostgresStore::new(pool(&url).await),
        };
        store.migrate().await.unwrap();
        // Looked at while the server was alone.
        assert!(store.load(&key()).await.unwrap().is_none());
        stores.push(store);
    }
    // Another table, whose statements look alike but for its name.
    let builder = PostgresStore::builder().with_table("others");
    let others = builder.connect(&url).await.unwrap();
    others.migrate().await.unwrap();
    let session = key();
    let created = others.create(&session, &record(1, Some("reader"), b"other")).await.unwrap();
    assert_eq!(created, Created::Done);

    proxy.lead_to(pooler.port());
    proxy.cut().await;
    // Each connection that was in the pool may be found out by one call.
    for store in stores.iter().chain([&others]) {
        for _ in 0..50 {
            if store.load(&key()).await.is_ok() {
                break;
            }
        }
    }
    let is_over = Arc::new(AtomicBool::new(false));
    let beside = tokio::spawn({
        let (others, is_over) = (others.clone(), is_over.clone());
        async move {
            while !is_over.load(SeqCst) {
                let found = others.load(&session).await.unwrap().expect("nobody ends it");
                assert_eq!(*found.payload, *b"other");
                assert_eq!(others.sessions_of("reader").await.unwrap().len(), 1);
            }
        }
    });
    reads_beside_logouts(&stores).await;
    is_over.store(true, SeqCst);
    beside.await.unwrap();
}

/// In raw mode Pgpool-II begins a transaction for what is prepared to write, and never ends it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_commits_behind_pgpool() {
    let Some(server) = StoreServer::start(Kind::Postgres) else { return };
    let port = format!("backend_port0 = {}", server.port());
    let lines = ["backend_hostname0 = '127.0.0.1'", "backend_weight0 = 1", &port];
    let Some(pooler) = StoreServer::start_with(Kind::Pgpool, &lines) else { return };
    let direct = PostgresStore::connect(&server.url()).await.unwrap();
    direct.migrate().await.unwrap();
    let small = PgPoolOptions::new().max_connections(2).connect(&pooler.url()).await.unwrap();
    let builder = PostgresStore::builder().with_max_connections(2);
    for store in [builder.connect(&pooler.url()).await.unwrap(), PostgresStore::new(small)] {
        for _ in 0..10 {
            let session = key();
            let created = store.create(&session, &record(1, None, b"x")).await.unwrap();
            assert_eq!(created, Created::Done);
            assert!(direct.load(&session).await.unwrap().is_some(), "acknowledged, and not there");
            assert!(store.delete(&session).await.unwrap());
            assert!(direct.load(&session).await.unwrap().is_none());
        }
    }
}

/// What PgBouncer does not take when a connection is made does not pass by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pooler_that_refuses_a_parameter_is_told_by_it() {
    let Some(server) = StoreServer::start(Kind::Postgres) else { return };
    let Some(pooler) = StoreServer::start_pooler(&server, 2, &[]) else { return };
    let url = pooler.url();
    // By URL the store does not send it.
    let store = PostgresStore::connect(&url).await.unwrap();
    store.migrate().await.unwrap();
    assert!(store.load(&key()).await.unwrap().is_none());

    let lazy = PgPoolOptions::new().connect_lazy(&url).unwrap();
    let error = PostgresStore::new(lazy).load(&key()).await.unwrap_err();
    let said = words(&error);
    assert!(!error.is_retryable(), "{said}");
    for word in ["extra_float_digits", "ignore_startup_parameters"] {
        assert!(said.contains(word), "{said}");
    }
    let more = format!("{url}?options=-c%20search_path%3Dpublic");
    let error = PostgresStore::connect(&more).await.unwrap_err();
    assert!(!error.is_retryable() && words(&error).contains("options"), "{}", words(&error));
    // A database that PgBouncer cannot find stays away; a queue that is too long does not.
    let missing = url.replace("/postgres", "/missing");
    let error = PostgresStore::connect(&missing).await.unwrap_err();
    assert!(!error.is_retryable(), "{}", words(&error));

    let waits = ["query_wait_timeout = 1"];
    let Some(busy) = StoreServer::start_pooler(&server, 1, &waits) else { return };
    let builder = PostgresStore::builder().without_sweep().with_timeout(Duration::from_secs(20));
    let store = builder.connect(&busy.url()).await.unwrap();
    let options = sqlx::postgres::PgConnectOptions::new_without_pgpass();
    let options = options.host("127.0.0.1").port(busy.port()).username("postgres");
    let options = options.database("postgres").extra_float_digits(None);
    let mut other = sqlx::PgConnection::connect_with(&options).await.unwrap();
    let mut held = other.begin().await.unwrap();
    held.execute("SELECT 1").await.unwrap();
    let error = store.load(&key()).await.unwrap_err();
    assert!(error.is_retryable(), "{}", words(&error));
    held.rollback().await.unwrap();
}

/// Writes until `is_over`, and counts what failed.
async fn writes(store: impl Store, is_over: Arc<AtomicBool>, failed: Arc<AtomicUsize>) {
    while !is_over.load(SeqCst) {
        let session = key();
        match store.create(&session, &record(1, None, b"x")).await {
            Ok(created) => assert_eq!(created, Created::Done),
            Err(error) => {
                assert!(error.is_retryable(), "{}", words(&error));
                failed.fetch_add(1, SeqCst);
            }
        }
        sleep(Duration::from_millis(2)).await;
    }
}

/// Twelve clients of each store write while `fail_over` moves the address; at most a few of their
/// writes fail, and none any more afterwards.
async fn follows<S: Store + Clone>(stores: &[S], fail_over: impl AsyncFnOnce()) {
    let is_over = Arc::new(AtomicBool::new(false));
    let failed = Arc::new(AtomicUsize::new(0));
    let clients: Vec<_> = (0..12 * stores.len())
        .map(|client| {
            let store = stores[client % stores.len()].clone();
            tokio::spawn(writes(store, is_over.clone(), failed.clone()))
        })
        .collect();
    sleep(Duration::from_millis(300)).await;
    fail_over().await;
    sleep(Duration::from_millis(2500)).await;
    let soon = failed.load(SeqCst);
    sleep(Duration::from_millis(1000)).await;
    is_over.store(true, SeqCst);
    for client in clients {
        client.await.unwrap();
    }
    assert_eq!(failed.load(SeqCst), soon, "writes still fail long after the failover");
    assert!(soon <= 6 * stores.len(), "{soon} writes failed");
    for store in stores {
        let session = key();
        assert_eq!(store.create(&session, &record(1, None, b"x")).await.unwrap(), Created::Done);
        let replaced = store.replace(&session, &record(2, None, b"y"), 1).await.unwrap();
        assert_eq!(replaced, Replaced::Done);
    }
}

/// The address moves to another server, and the old one goes on, read-only, with the connections
/// that it has.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_follows_a_failover_by_address() {
    let Some(old) = StoreServer::start(Kind::Postgres) else { return };
    let Some(new) = StoreServer::start(Kind::Postgres) else { return };
    under_test("PostgreSQL that fails over");
    for server in [&old, &new] {
        PostgresStore::connect(&server.url()).await.unwrap().migrate().await.unwrap();
    }
    let proxy = Proxy::start(old.port()).await;
    let url = format!("postgres://postgres@127.0.0.1:{}/postgres", proxy.port());
    let stores =
        [PostgresStore::connect(&url).await.unwrap(), PostgresStore::new(pool(&url).await)];
    let mut admin = sqlx::PgConnection::connect(&old.url()).await.unwrap();
    follows(&stores, async || {
        admin.execute("ALTER SYSTEM SET default_transaction_read_only = on").await.unwrap();
        admin.execute("SELECT pg_reload_conf()").await.unwrap();
        proxy.lead_to(new.port());
    })
    .await;
    // Where the server itself is read-only, each call says so, without a wait, and it passes.
    let mut admin = sqlx::PgConnection::connect(&new.url()).await.unwrap();
    admin.execute("ALTER SYSTEM SET default_transaction_read_only = on").await.unwrap();
    admin.execute("SELECT pg_reload_conf()").await.unwrap();
    sleep(Duration::from_millis(200)).await;
    for store in &stores {
        for _ in 0..20 {
            let error = store.create(&key(), &record(1, None, b"x")).await.unwrap_err();
            assert!(error.is_retryable() && words(&error).contains("read-only"), "{error}");
        }
        assert!(store.load(&key()).await.unwrap().is_none(), "reading goes on");
    }
}

/// With users, none of whom is exempt from `read_only`.
const WITH_GRANTS: &str = "--skip-grant-tables=0";

/// Makes a database that is not everybody's, as `test` is, with a user; where they are.
async fn with_user(server: &StoreServer) -> String {
    let mut root = sqlx::MySqlConnection::connect(&server.url()).await.unwrap();
    for statement in [
        "CREATE DATABASE shop",
        "CREATE USER app@'127.0.0.1'",
        "GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, INDEX ON shop.* TO app@'127.0.0.1'",
    ] {
        root.execute(statement).await.unwrap();
    }
    format!("mysql://app@127.0.0.1:{}/shop", server.port())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mariadb_follows_a_failover_by_address() {
    let Some(old) = StoreServer::start_with(Kind::MariaDb, &[WITH_GRANTS]) else { return };
    let Some(new) = StoreServer::start_with(Kind::MariaDb, &[WITH_GRANTS]) else { return };
    under_test("MariaDB that fails over");
    for server in [&old, &new] {
        let url = with_user(server).await;
        MySqlStore::connect(&url).await.unwrap().migrate().await.unwrap();
    }
    let proxy = Proxy::start(old.port()).await;
    let url = format!("mysql://app@127.0.0.1:{}/shop", proxy.port());
    let pool = MySqlPoolOptions::new().connect(&url).await.unwrap();
    let stores = [MySqlStore::connect(&url).await.unwrap(), MySqlStore::new(pool)];
    let mut admin = sqlx::MySqlConnection::connect(&old.url()).await.unwrap();
    follows(&stores, async || {
        admin.execute("SET GLOBAL read_only = 1").await.unwrap();
        proxy.lead_to(new.port());
    })
    .await;
}

/// Whatever the server's default is, what was acknowledged is there for all, and what others wrote
/// is seen.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mariadb_commits_where_autocommit_is_off() {
    let Some(server) = StoreServer::start_with(Kind::MariaDb, &["--autocommit=0"]) else { return };
    under_test("MariaDB without autocommit");
    let own = MySqlStore::connect(&server.url()).await.unwrap();
    own.migrate().await.unwrap();
    let pool = MySqlPoolOptions::new().max_connections(2).connect(&server.url()).await.unwrap();
    let theirs = MySqlStore::new(pool.clone());
    for (writer, reader) in [(&own, &theirs), (&theirs, &own)] {
        let session = key();
        // A snapshot that is older than the session.
        assert!(reader.load(&session).await.unwrap().is_none());
        let created = writer.create(&session, &record(1, Some("ann"), b"x")).await.unwrap();
        assert_eq!(created, Created::Done);
        // Who finds the key in use takes two statements.
        let exists = reader.create(&session, &record(1, Some("ann"), b"y")).await.unwrap();
        assert_eq!(exists, Created::Exists);
        for version in 2..6 {
            let next = record(version, Some("ann"), b"z");
            let replaced =
                timeout(Duration::from_secs(10), writer.replace(&session, &next, version - 1));
            assert_eq!(replaced.await.unwrap().unwrap(), Replaced::Done);
            assert_eq!(reader.load(&session).await.unwrap().unwrap().version, version);
            assert_eq!(reader.sessions_of("ann").await.unwrap().len(), 1);
        }
        assert!(writer.delete(&session).await.unwrap());
        assert!(reader.load(&session).await.unwrap().is_none());
    }
    dropped_calls_answer_nobody_else(&theirs).await;
    user_index(&theirs).await;
    // A connection keeps what was prepared on it: what is prepared anew is also closed each time, and the COMMIT
    // behind that waits.
    let one = MySqlPoolOptions::new().max_connections(1).connect(&server.url()).await.unwrap();
    let theirs = MySqlStore::new(one);
    let mut closed = Vec::new();
    for _ in 0..3 {
        theirs.load(&key()).await.unwrap();
        let status = "SHOW GLOBAL STATUS LIKE 'Com_stmt_close'";
        let (_, number): (String, String) = sqlx::query_as(status).fetch_one(&pool).await.unwrap();
        closed.push(number);
    }
    assert_eq!(closed[1], closed[2]);
    // The application's connections are as the application has them.
    let (off,): (i64,) = sqlx::query_as("SELECT @@autocommit").fetch_one(&pool).await.unwrap();
    assert_eq!(off, 0);
}

/// The default that counts is that of the connections that are yet to come.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mariadb_commits_where_autocommit_is_turned_off() {
    let Some(server) = StoreServer::start(Kind::MariaDb) else { return };
    let own = MySqlStore::connect(&server.url()).await.unwrap();
    own.migrate().await.unwrap();
    let pool = MySqlPoolOptions::new().max_connections(8).connect(&server.url()).await.unwrap();
    pool.execute("SET GLOBAL autocommit = 0").await.unwrap();
    let theirs = MySqlStore::new(pool);
    let stores = [own.clone(), theirs];
    let created = at_once(16, move |number| {
        let store = stores[number % 2].clone();
        async move {
            let session = key();
            let created = store.create(&session, &record(1, None, b"x")).await.unwrap();
            assert_eq!(created, Created::Done);
            session
        }
    });
    for session in created.await {
        assert!(
            own.load(&session).await.unwrap().is_some(),
            "an acknowledged session is not there"
        );
    }
}

/// A pool without a connection that is free, and one that was closed, are told from a server that does not answer.
async fn says_what_its_pool_lacks<D: Dialect>(pool: sqlx::Pool<D>) {
    let short = SqlStore::<D>::builder().with_timeout(Duration::from_millis(100));
    let store = short.without_sweep().build(pool.clone()).unwrap();
    store.migrate().await.unwrap();
    let mut held = Vec::new();
    while held.len() < pool.options().get_max_connections() as usize {
        held.push(pool.acquire().await.unwrap());
    }
    let error = store.load(&key()).await.unwrap_err();
    let said = words(&error);
    assert!(error.is_retryable() && said.contains("no connection was free"), "{said}");
    // One that is dropped in the line takes nothing from those behind it.
    assert!(timeout(Duration::from_millis(10), store.load(&key())).await.is_err());
    held.clear();
    assert!(store.load(&key()).await.unwrap().is_none());
    let waiting = tokio::spawn(async move { pool.close().await });
    waiting.await.unwrap();
    for error in [
        store.load(&key()).await.map(drop).unwrap_err(),
        store.replace(&key(), &record(2, None, b"x"), 1).await.map(drop).unwrap_err(),
        store.migrate().await.unwrap_err(),
    ] {
        let said = words(&error);
        assert!(!error.is_retryable() && said.contains("the pool was closed"), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pool_that_is_exhausted_or_closed_says_so() {
    let folder = Folder::new();
    let url = format!("sqlite:{}?mode=rwc", folder.path.join("sessions.db").display());
    says_what_its_pool_lacks(sqlx::SqlitePool::connect(&url).await.unwrap()).await;
    if let Some(server) = StoreServer::start(Kind::Postgres) {
        says_what_its_pool_lacks(pool(&server.url()).await).await;
    }
    if let Some(server) = StoreServer::start(Kind::MariaDb) {
        let pool = MySqlPoolOptions::new().max_connections(2).connect(&server.url()).await;
        says_what_its_pool_lacks(pool.unwrap()).await;
    }
}

/// `connect` says why.
async fn cannot_connect<D: Dialect>(url: &str, is_retryable: bool, said: &[&str]) {
    let builder = SqlStore::<D>::builder().with_timeout(Duration::from_millis(700));
    let outcome = timeout(Duration::from_secs(20), builder.connect(url)).await;
    let error = outcome.expect("it gives up in time").expect_err(url);
    let text = words(&error);
    assert_eq!(error.is_retryable(), is_retryable, "{text}");
    for word in said {
        assert!(text.contains(word), "{word} is missing: {text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connecting_to_nothing_says_so() {
    let port = free_port();
    let address = format!("127.0.0.1:{port}");
    let said = ["refused", &address];
    cannot_connect::<sqlx::Postgres>(&format!("postgres://a:secret@{address}/b"), true, &said)
        .await;
    cannot_connect::<sqlx::MySql>(&format!("mysql://a:secret@{address}/b"), true, &said).await;
    // One that takes connections and never answers.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let said = ["no answer", &address];
    cannot_connect::<sqlx::Postgres>(&format!("postgres://a:secret@{address}/b"), true, &said)
        .await;
    cannot_connect::<sqlx::MySql>(&format!("mysql://a:secret@{address}/b"), true, &said).await;

    // MySQL's own server has no SQLSTATE to give before the handshake.
    let crowded = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = crowded.local_addr().unwrap();
    let task = tokio::spawn(async move {
        while let Ok((mut stream, _)) = crowded.accept().await {
            let _ = stream.write_all(b"\x17\0\0\0\xff\x10\x04Too many connections").await;
        }
    });
    let said = ["1040: Too many connections", "max_connections"];
    cannot_connect::<sqlx::MySql>(&format!("mysql://a@{address}/b"), true, &said).await;
    task.abort();

    let folder = Folder::new();
    let file = folder.path.join("none/sessions.db");
    let said = [file.to_str().unwrap(), "folder"];
    cannot_connect::<sqlx::Sqlite>(&format!("sqlite:{}", file.display()), false, &said).await;
    // A file that another process has for itself.
    let file = folder.path.join("sessions.db");
    let url = format!("sqlite:{}", file.display());
    SqliteStore::connect(&url).await.unwrap().migrate().await.unwrap();
    let mut other = sqlx::SqliteConnection::connect(&url).await.unwrap();
    other.execute("PRAGMA locking_mode = EXCLUSIVE").await.unwrap();
    other.execute("CREATE TABLE mine (x)").await.unwrap();
    cannot_connect::<sqlx::Sqlite>(&url, true, &["locked"]).await;
    // And one that is none of SQLite's.
    let file = folder.path.join("letter.txt");
    std::fs::write(&file, "x".repeat(4096)).unwrap();
    cannot_connect::<sqlx::Sqlite>(
        &format!("sqlite:{}", file.display()),
        false,
        &["not a database"],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connecting_to_a_postgres_that_refuses_says_why() {
    let Some(server) = StoreServer::start(Kind::Postgres) else { return };
    let mut admin = sqlx::PgConnection::connect(&server.url()).await.unwrap();
    admin.execute("CREATE ROLE few LOGIN CONNECTION LIMIT 0").await.unwrap();
    let of = |user: &str, database: &str| {
        format!("postgres://{user}@127.0.0.1:{}/{database}", server.port())
    };
    let said = ["too many connections for role", "max_connections"];
    cannot_connect::<sqlx::Postgres>(&of("few", "postgres"), true, &said).await;
    let said = [r#"database "missing" does not exist"#];
    cannot_connect::<sqlx::Postgres>(&of("postgres", "missing"), false, &said).await;
    let said = [r#"role "nobody" does not exist"#];
    cannot_connect::<sqlx::Postgres>(&of("nobody", "postgres"), false, &said).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connecting_to_a_mariadb_that_refuses_says_why() {
    // One connection, and one more for an administrator.
    let more = [WITH_GRANTS, "--max-connections=10"];
    let Some(server) = StoreServer::start_with(Kind::MariaDb, &more) else { return };
    with_user(&server).await;
    let of = |user: &str, database: &str| {
        format!("mysql://{user}@127.0.0.1:{}/{database}", server.port())
    };
    cannot_connect::<sqlx::MySql>(&of("app", "missing"), false, &["missing"]).await;
    cannot_connect::<sqlx::MySql>(&of("nobody:x", "shop"), false, &["Access denied"]).await;
    let mut held = Vec::new();
    while let Ok(connection) = sqlx::MySqlConnection::connect(&of("app", "shop")).await {
        held.push(connection);
    }
    // It comes before the handshake, and has no SQLSTATE.
    let said = ["1040", "Too many connections"];
    cannot_connect::<sqlx::MySql>(&of("app", "shop"), true, &said).await;
}

/// A role that may use the table, and no more, can do all but make it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_migrates_under_a_role_without_create() {
    let Some(server) = StoreServer::start(Kind::Postgres) else { return };
    let owner = PostgresStore::connect(&server.url()).await.unwrap();
    let mut admin = sqlx::PgConnection::connect(&server.url()).await.unwrap();
    admin.execute("CREATE ROLE app LOGIN").await.unwrap();
    let url = format!("postgres://app@127.0.0.1:{}/postgres", server.port());
    let store = PostgresStore::connect(&url).await.unwrap();
    // It is not there, and may not be made.
    let error = store.migrate().await.unwrap_err();
    let said = words(&error);
    assert!(!error.is_retryable() && said.contains("CREATE on the schema"), "{said}");

    owner.migrate().await.unwrap();
    store.migrate().await.unwrap();
    let error = store.create(&key(), &record(1, None, b"x")).await.unwrap_err();
    let said = words(&error);
    assert!(!error.is_retryable() && said.contains("INSERT"), "{said}");
    admin.execute("GRANT SELECT ON sessions TO app").await.unwrap();
    store.load(&key()).await.unwrap();
    let error = store.delete(&key()).await.unwrap_err();
    assert!(!error.is_retryable() && words(&error).contains("DELETE"), "{}", words(&error));
    admin.execute("GRANT INSERT, UPDATE, DELETE ON sessions TO app").await.unwrap();
    store.migrate().await.unwrap();
    sessions::testing::conformance(store.clone()).await;
    user_index(&store).await;

    // A table of others in its place.
    admin.execute("CREATE TABLE theirs (id BYTEA, version BIGINT, payload BYTEA)").await.unwrap();
    for url in [&url, &server.url()] {
        let builder = PostgresStore::builder().with_table("theirs");
        let store = builder.connect(url).await.unwrap();
        let error = store.migrate().await.unwrap_err();
        let said = words(&error);
        let lacks = "`created_at`, `expires_at`, `user_id`";
        assert!(!error.is_retryable() && said.contains(lacks), "{said}");
        let error = store.load(&key()).await.unwrap_err();
        assert!(!error.is_retryable() && words(&error).contains("with_table"), "{}", words(&error));
    }

    // No schema to make it in.
    for (path, table, word) in
        [("nowhere", "sessions", "search_path"), ("public", "nowhere.sessions", "CREATE SCHEMA")]
    {
        let url = format!("{}?options=-c%20search_path%3D{path}", server.url());
        let builder = PostgresStore::builder().with_table(table);
        let store = builder.connect(&url).await.unwrap();
        let error = store.migrate().await.unwrap_err();
        assert!(!error.is_retryable() && words(&error).contains(word), "{}", words(&error));
        assert!(store.load(&key()).await.is_err());
    }
    // A schema of its own, which is in no path.
    admin.execute("CREATE SCHEMA web").await.unwrap();
    let builder = || PostgresStore::builder().with_table("web.sessions");
    builder().connect(&server.url()).await.unwrap().migrate().await.unwrap();
    let store = builder().connect(&url).await.unwrap();
    let error = store.load(&key()).await.unwrap_err();
    assert!(words(&error).contains("USAGE on the schema"), "{}", words(&error));
    admin.execute("GRANT USAGE ON SCHEMA web TO app").await.unwrap();
    store.migrate().await.unwrap();
}

/// A process that starts does not wait until all who write have finished, nor has others wait: a long
/// transaction, or a `VACUUM` or `CREATE INDEX CONCURRENTLY`, may be at the table for hours.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn migrate_waits_for_nobody_where_there_is_nothing_to_make() {
    async fn beside_a_writer<D: Dialect>(store: SqlStore<D>, mut writer: impl AsyncFnMut(&str)) {
        store.migrate().await.unwrap();
        let created = store.create(&key(), &record(1, None, b"x")).await.unwrap();
        assert_eq!(created, Created::Done);
        writer("BEGIN").await;
        writer("UPDATE sessions SET version = version").await;
        timeout(Duration::from_secs(3), store.migrate()).await.expect("in no time").unwrap();
        let (session, new) = (key(), record(1, None, b"x"));
        let created = timeout(Duration::from_secs(3), store.create(&session, &new));
        assert_eq!(created.await.expect("nobody stands in line").unwrap(), Created::Done);
        writer("COMMIT").await;
    }
    if let Some(server) = StoreServer::start(Kind::Postgres) {
        let mut writer = sqlx::PgConnection::connect(&server.url()).await.unwrap();
        let store = PostgresStore::builder().with_notifications();
        let store = store.connect(&server.url()).await.unwrap();
        beside_a_writer(store, async |text| {
            writer.execute(sqlx::AssertSqlSafe(text)).await.unwrap();
        })
        .await;
    }
    if let Some(server) = StoreServer::start(Kind::MariaDb) {
        let mut writer = sqlx::MySqlConnection::connect(&server.url()).await.unwrap();
        // Otherwise it locks what is between the sessions as well.
        let level = "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED";
        writer.execute(level).await.unwrap();
        let store = MySqlStore::connect(&server.url()).await.unwrap();
        beside_a_writer(store, async |text| {
            writer.execute(sqlx::AssertSqlSafe(text)).await.unwrap();
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mariadb_migrates_under_a_user_without_create() {
    let Some(server) = StoreServer::start_with(Kind::MariaDb, &[WITH_GRANTS]) else { return };
    let owner = MySqlStore::connect(&with_user(&server).await).await.unwrap();
    let mut root = sqlx::MySqlConnection::connect(&server.url()).await.unwrap();
    root.execute("CREATE USER few@'127.0.0.1'").await.unwrap();
    root.execute("GRANT SELECT ON shop.* TO few@'127.0.0.1'").await.unwrap();
    let url = format!("mysql://few@127.0.0.1:{}/shop", server.port());
    let store = MySqlStore::connect(&url).await.unwrap();
    let error = store.migrate().await.unwrap_err();
    assert!(!error.is_retryable() && words(&error).contains("CREATE"), "{}", words(&error));
    owner.migrate().await.unwrap();
    store.migrate().await.unwrap();
    let error = store.create(&key(), &record(1, None, b"x")).await.unwrap_err();
    assert!(!error.is_retryable() && words(&error).contains("INSERT"), "{}", words(&error));
    root.execute("GRANT INSERT, UPDATE, DELETE ON shop.* TO few@'127.0.0.1'").await.unwrap();
    let store = MySqlStore::connect(&url).await.unwrap();
    store.migrate().await.unwrap();
    user_index(&store).await;

    root.execute("CREATE TABLE shop.theirs (id BINARY(32), version BIGINT)").await.unwrap();
    for url in [&url, &server.url().replace("/test", "/shop")] {
        let store = MySqlStore::builder().with_table("theirs").connect(url).await.unwrap();
        let error = store.migrate().await.unwrap_err();
        let lacks = "`created_at`, `expires_at`, `user_id`, `payload`";
        assert!(!error.is_retryable() && words(&error).contains(lacks), "{}", words(&error));
    }
    let store = MySqlStore::builder().with_table("nowhere.sessions");
    let store = store.connect(&server.url()).await.unwrap();
    let error = store.migrate().await.unwrap_err();
    assert!(!error.is_retryable() && words(&error).contains("nowhere"), "{}", words(&error));
}

#[tokio::test]
async fn sqlite_migrates_a_file_that_it_may_only_read() {
    let folder = Folder::new();
    let url = format!("sqlite:{}", folder.path.join("sessions.db").display());
    let owner = SqliteStore::connect(&url).await.unwrap();
    let pool = sqlx::SqlitePool::connect(&format!("{url}?mode=ro")).await.unwrap();
    let store = SqliteStore::new(pool.clone());
    let error = store.migrate().await.unwrap_err();
    assert!(!error.is_retryable() && words(&error).contains("write"), "{}", words(&error));
    owner.migrate().await.unwrap();
    store.migrate().await.unwrap();
    assert!(store.load(&key()).await.unwrap().is_none());
    let error = store.create(&key(), &record(1, None, b"x")).await.unwrap_err();
    assert!(!error.is_retryable() && words(&error).contains("write"), "{}", words(&error));

    let mut connection = sqlx::SqliteConnection::connect(&url).await.unwrap();
    connection.execute("CREATE TABLE theirs (id BLOB, version INTEGER)").await.unwrap();
    let store = SqliteStore::builder().with_table("theirs").connect(&url).await.unwrap();
    let error = store.migrate().await.unwrap_err();
    let lacks = "`created_at`, `expires_at`, `user_id`, `payload`";
    assert!(!error.is_retryable() && words(&error).contains(lacks), "{}", words(&error));
}
