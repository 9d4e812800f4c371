//! SQL servers as their administrators have set them.

use std::{
    future::poll_fn,
    pin::pin,
    task::Poll,
    time::{Duration, Instant},
};

use sessions::{
    Created, MySqlStore, PostgresStore, Replaced, SqliteStore, Store, UserIndex,
    store::{Dialect, NearCache, SqlStore},
};
use sessions_tests::{
    at_once, eventually,
    servers::{Folder, Kind, StoreServer},
};
use sqlx::{
    AssertSqlSafe, Connection, Executor, MySqlConnection, PgConnection, PgPool, Row,
    SqliteConnection,
    mysql::MySqlPoolOptions,
    postgres::{PgConnectOptions, PgPoolOptions},
    raw_sql,
};
use tokio::time::sleep;

use crate::{
    app,
    checks::{all_sessions, key, record, user_index},
    under_test,
};

/// Ten processes that begin at once make the table, and none fails.
async fn migrates_at_once<D: Dialect>(url: &str) {
    let url = url.to_string();
    at_once(10, move |_| {
        let url = url.clone();
        async move {
            let builder = SqlStore::<D>::builder().with_max_connections(1);
            builder.connect(&url).await.unwrap().migrate().await.unwrap();
        }
    })
    .await;
}

/// Many sessions are saved, looked at and extended at once, and no call fails: they have nothing to do with each other.
async fn serves_many_at_once<D: Dialect>(store: &SqlStore<D>) {
    let stores = store.clone();
    at_once(40, move |number| {
        let store = stores.clone();
        async move {
            let (session, user) = (key(), format!("user {}", number % 10));
            let made = |version| record(version, Some(&user), &[7; 300]);
            assert_eq!(store.create(&session, &made(1)).await.unwrap(), Created::Done);
            for version in 2..12 {
                let replaced = store.replace(&session, &made(version), version - 1).await.unwrap();
                assert_eq!(replaced, Replaced::Done);
                let expires_at = made(1).expires_at + Duration::from_secs(version);
                store.touch(&session, expires_at).await.unwrap();
                let found = store.load(&session).await.unwrap().expect("it is live");
                assert_eq!(found.version, version);
            }
            assert!(store.delete(&session).await.unwrap());
        }
    })
    .await;
}

/// Ten count in one session at once, each on the ground of what it has read: whoever comes second is told so, none fails,
/// and each counts.
async fn counts_in_one_session<D: Dialect>(store: &SqlStore<D>) {
    let session = key();
    let _ = store.create(&session, &record(1, Some("ann"), &[1; 300])).await.unwrap();
    let stores = store.clone();
    at_once(10, move |_| {
        let store = stores.clone();
        async move {
            let mut counted = 0;
            while counted < 10 {
                let version = store.load(&session).await.unwrap().expect("it is live").version;
                let next = record(version + 1, Some("ann"), &[1; 300]);
                match store.replace(&session, &next, version).await.unwrap() {
                    Replaced::Done => counted += 1,
                    Replaced::Changed => {}
                    Replaced::Missing => panic!("it is live"),
                }
            }
        }
    })
    .await;
    assert_eq!(store.load(&session).await.unwrap().expect("it is live").version, 101);
}

/// What a store does, on a server that has been told something unusual.
async fn serves<D: Dialect>(store: &SqlStore<D>) {
    store.migrate().await.unwrap();
    user_index(store).await;
    serves_many_at_once(store).await;
    counts_in_one_session(store).await;
}

/// With and without `autocommit`, whatever `BEGIN` means, and whatever an UPDATE has to name; and the table is one that
/// its indexes fit into.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mariadb_serves_sessions_whatever_its_settings_make_of_statements() {
    for autocommit in ["--autocommit=1", "--autocommit=0"] {
        let settings = [
            autocommit,
            "--sql-mode=ORACLE,STRICT_TRANS_TABLES,NO_BACKSLASH_ESCAPES",
            "--sql-safe-updates=1",
            "--innodb-default-row-format=compact",
            "--transaction-isolation=SERIALIZABLE",
        ];
        let Some(server) = StoreServer::start_with(Kind::MariaDb, &settings) else { return };
        under_test("MariaDB with unusual settings");
        serves(&MySqlStore::connect(&server.url()).await.unwrap()).await;
        let pool = MySqlPoolOptions::new().max_connections(4).connect(&server.url()).await.unwrap();
        serves(&MySqlStore::builder().with_table("theirs").build(pool).unwrap()).await;
    }
}

/// As MariaDB does by default from 11.6 on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mariadb_serves_sessions_where_what_has_changed_since_it_was_read_is_an_error() {
    for autocommit in ["--autocommit=1", "--autocommit=0"] {
        let settings = [autocommit, "--innodb-snapshot-isolation=ON"];
        let Some(server) = StoreServer::start_with(Kind::MariaDb, &settings) else { return };
        under_test("MariaDB with snapshots");
        serves(&MySqlStore::connect(&server.url()).await.unwrap()).await;
        let pool = MySqlPoolOptions::new().max_connections(4).connect(&server.url()).await.unwrap();
        serves(&MySqlStore::builder().with_table("theirs").build(pool).unwrap()).await;
    }
}

/// Where a value of no bytes is NULL, to which nothing is equal, unequal or greater, all of a user's sessions end, and
/// all sessions are seen.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mariadb_ends_and_lists_sessions_where_empty_values_are_null() {
    let mode = "--sql-mode=EMPTY_STRING_IS_NULL,STRICT_TRANS_TABLES";
    let Some(server) = StoreServer::start_with(Kind::MariaDb, &[mode]) else { return };
    under_test("MariaDB without empty values");
    let store = MySqlStore::connect(&server.url()).await.unwrap();
    store.migrate().await.unwrap();
    all_sessions(&store).await;
    app::logs_out_everywhere(store.clone()).await;
    serves_many_at_once(&store).await;
    let session = key();
    let _ = store.create(&session, &record(1, Some("zoe"), b"x")).await.unwrap();
    assert_eq!(store.delete_sessions_of("zoe", None).await.unwrap(), 1);
    assert!(store.load(&session).await.unwrap().is_none());
}

/// A limit on all results cuts short no list of sessions, and no user who logs out everywhere stays logged in somewhere.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mariadb_lists_all_sessions_where_results_are_cut_short() {
    for limit in [2, 0] {
        let Some(server) = StoreServer::start(Kind::MariaDb) else { return };
        under_test("MariaDB with short results");
        let mut admin = MySqlConnection::connect(&server.url()).await.unwrap();
        let cut_short = format!("SET GLOBAL sql_select_limit = {limit}");
        admin.execute(AssertSqlSafe(cut_short)).await.unwrap();
        let store = MySqlStore::connect(&server.url()).await.unwrap();
        serves(&store).await;
        all_sessions(&store).await;
        app::logs_out_everywhere(store.clone()).await;
        let sessions: Vec<_> = (0..5).map(|_| key()).collect();
        for session in &sessions {
            let _ = store.create(session, &record(1, Some("zoe"), b"x")).await.unwrap();
        }
        assert_eq!(store.sessions_of("zoe").await.unwrap().len(), 5);
        let pool = MySqlPoolOptions::new().max_connections(4).connect(&server.url()).await.unwrap();
        serves(&MySqlStore::builder().with_table("theirs").build(pool).unwrap()).await;
    }
}

/// What a store has saved is there for all, though a commit begins the next transaction, or ends the connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mariadb_keeps_what_is_saved_where_a_commit_begins_the_next_transaction() {
    for kind in ["--completion-type=CHAIN", "--completion-type=RELEASE"] {
        let Some(server) = StoreServer::start_with(Kind::MariaDb, &[kind]) else { return };
        under_test(&format!("MariaDB, {kind}"));
        let others = MySqlStore::connect(&server.url()).await.unwrap();
        serves(&others).await;
        let pool = MySqlPoolOptions::new().max_connections(1).connect(&server.url()).await.unwrap();
        let store = MySqlStore::new(pool.clone());
        let session = key();
        let _ = store.create(&session, &record(1, Some("ann"), b"x")).await.unwrap();
        for version in 2..12 {
            // What the application commits leaves a transaction open on its connection.
            pool.begin().await.unwrap().commit().await.unwrap();
            let next = record(version, None, b"y");
            let replaced = store.replace(&session, &next, version - 1).await.unwrap();
            assert_eq!(replaced, Replaced::Done);
            let found = others.load(&session).await.unwrap().unwrap();
            assert_eq!(found.version, version, "it is committed");
            // A key that is in use, which MariaDB refuses.
            let again = store.create(&session, &record(1, None, b"z")).await.unwrap();
            assert_eq!(again, Created::Exists);
            let begun = "SELECT @@in_transaction LIMIT 1";
            let begun: i64 = pool.fetch_one(begun).await.unwrap().try_get_unchecked(0).unwrap();
            assert_eq!(begun, 0, "no transaction is left to the application");
        }
        serves(&MySqlStore::builder().with_table("theirs").build(pool).unwrap()).await;
    }
}

/// A log that holds statements holds none of READ COMMITTED. The store's own connections do without it there; on a pool of
/// the application's that insists, the error says that no second try helps.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mariadb_serves_sessions_where_statements_are_logged() {
    let log = ["--log-bin=log", "--server-id=1", "--binlog-format=STATEMENT"];
    let Some(server) = StoreServer::start_with(Kind::MariaDb, &log) else { return };
    under_test("MariaDB with a log of statements");
    serves(&MySqlStore::connect(&server.url()).await.unwrap()).await;
    let pool = MySqlPoolOptions::new().max_connections(4).connect(&server.url()).await.unwrap();
    serves(&MySqlStore::builder().with_table("theirs").build(pool.clone()).unwrap()).await;
    let insists = MySqlPoolOptions::new().after_connect(|connection, _| {
        Box::pin(async move {
            let level = "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED";
            connection.execute(level).await.map(|_| ())
        })
    });
    let store = MySqlStore::new(insists.connect(&server.url()).await.unwrap());
    let error = store.create(&key(), &record(1, None, b"x")).await.unwrap_err();
    assert!(!error.is_retryable(), "{error:?}");
}

/// What the connections of a store keep prepared makes room for what is to be prepared now.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mariadb_serves_sessions_with_few_prepared_statements() {
    let few = ["--max-prepared-stmt-count=20"];
    let Some(server) = StoreServer::start_with(Kind::MariaDb, &few) else { return };
    under_test("MariaDB with few prepared statements");
    let store = MySqlStore::builder().with_max_connections(4).connect(&server.url()).await.unwrap();
    serves(&store).await;
    all_sessions(&store).await;
    // Others have all that are left.
    let mut admin = MySqlConnection::connect(&server.url()).await.unwrap();
    admin.execute("SET GLOBAL max_prepared_stmt_count = 0").await.unwrap();
    let error = MySqlStore::connect(&server.url()).await.unwrap().load(&key()).await.unwrap_err();
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(
        error.is_retryable() && cause.contains("raise its `max_prepared_stmt_count`"),
        "{cause}"
    );
}

/// The server knows the table by another name than that which it was given.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mariadb_serves_sessions_where_names_have_small_letters() {
    let small = ["--lower-case-table-names=1"];
    let Some(server) = StoreServer::start_with(Kind::MariaDb, &small) else { return };
    under_test("MariaDB with names in small letters");
    let builder = || MySqlStore::builder().with_table("Visitors");
    serves(&builder().connect(&server.url()).await.unwrap()).await;
    let mut admin = MySqlConnection::connect(&server.url()).await.unwrap();
    admin.execute("CREATE TABLE Others (id INT)").await.unwrap();
    let others = MySqlStore::builder().with_table("Others");
    let error = others.connect(&server.url()).await.unwrap().migrate().await.unwrap_err();
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.contains("lacks `version`"), "{cause}");
}

/// What is to be serialized of single statements is nothing: no save is refused for another session's sake.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_serves_sessions_whatever_the_isolation_of_transactions_is() {
    for level in ["serializable", "repeatable read"] {
        let setting = format!("default_transaction_isolation={level}");
        let Some(server) = StoreServer::start_with(Kind::Postgres, &["-c", &setting]) else {
            return;
        };
        under_test(&format!("PostgreSQL, {level}"));
        migrates_at_once::<sqlx::Postgres>(&server.url()).await;
        let store = PostgresStore::connect(&server.url()).await.unwrap();
        serves(&store).await;
        let pool = PgPoolOptions::new().max_connections(4).connect(&server.url()).await.unwrap();
        serves(&PostgresStore::new(pool)).await;
    }
}

/// An administrator changes the level while the store is in use, for the connections that are there or for those to come;
/// and changes it back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_serves_sessions_though_the_isolation_of_transactions_changes() {
    let Some(server) = StoreServer::start(Kind::Postgres) else { return };
    under_test("PostgreSQL, becoming serializable");
    let mut admin = PgConnection::connect(&server.url()).await.unwrap();
    for set in ["ALTER SYSTEM", "ALTER ROLE CURRENT_USER"] {
        let store = PostgresStore::connect(&server.url()).await.unwrap();
        serves(&store).await;
        for level in ["serializable", "read committed", "serializable"] {
            let change = format!("{set} SET default_transaction_isolation = '{level}'");
            admin.execute(AssertSqlSafe(change)).await.unwrap();
            admin.execute("SELECT pg_reload_conf()").await.unwrap();
            sleep(Duration::from_millis(200)).await;
            if set.contains("ROLE") {
                renew_connections(&mut admin, &store).await;
            }
            serves_many_at_once(&store).await;
        }
        let reset = format!("{set} RESET default_transaction_isolation");
        admin.execute(AssertSqlSafe(reset)).await.unwrap();
        admin.execute("SELECT pg_reload_conf()").await.unwrap();
    }
}

/// Ends the store's connections, as the server does when it restarts, and has the store find that out.
async fn renew_connections(admin: &mut PgConnection, store: &PostgresStore) {
    let end_all = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                   WHERE usename = current_user AND pid <> pg_backend_pid()";
    admin.execute(end_all).await.unwrap();
    sleep(Duration::from_millis(200)).await;
    let look = store.clone();
    let looks = at_once(100, move |_| {
        let store = look.clone();
        async move { drop(store.load(&key()).await) }
    });
    looks.await;
}

/// Saves that wait for the one which finds out that each has to be a transaction are saved all the same.
#[tokio::test]
async fn mariadb_loses_autocommit_while_saves_wait_for_each_other() {
    // A commit that takes longer than saves wait for each other has them go alone.
    let quick = ["--innodb-flush-log-at-trx-commit=0"];
    let Some(server) = StoreServer::start_with(Kind::MariaDb, &quick) else { return };
    under_test("MariaDB, losing autocommit");
    let pool = MySqlPoolOptions::new().max_connections(4).connect(&server.url()).await.unwrap();
    MySqlStore::new(pool.clone()).migrate().await.unwrap();
    let mut admin = MySqlConnection::connect(&server.url()).await.unwrap();
    for round in 0..10 {
        let store = MySqlStore::new(pool.clone());
        let sessions: Vec<_> = (0..20).map(|_| key()).collect();
        for session in &sessions {
            let _ = store.create(session, &record(1, None, b"x")).await.unwrap();
        }
        admin.execute("SET GLOBAL autocommit = 0").await.unwrap();
        // Until it is time to look again.
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(61)).await;
        tokio::time::resume();
        let saved = at_once(sessions.len(), move |number| {
            let (store, session) = (store.clone(), sessions[number]);
            async move { store.replace(&session, &record(2, None, b"y"), 1).await }
        });
        for answer in saved.await {
            assert_eq!(answer.unwrap(), Replaced::Done, "in {round}");
        }
        admin.execute("SET GLOBAL autocommit = 1").await.unwrap();
    }
}

/// Polls so many times at most; whether that was enough.
async fn polled(times: usize, call: impl Future) -> bool {
    let mut call = pin!(call);
    for _ in 0..times {
        if poll_fn(|context| Poll::Ready(call.as_mut().poll(context))).await.is_ready() {
            return true;
        }
        // Not so long that what is awaited has to be there: a call is dropped before and after an answer.
        sleep(Duration::from_micros(200)).await;
    }
    false
}

/// A call that is dropped, wherever it is, leaves the application's connection outside of a transaction: what the
/// application then writes without one is there for all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_call_leaves_no_transaction_to_the_application() {
    let setting = ["-c", "default_transaction_isolation=serializable"];
    let Some(server) = StoreServer::start_with(Kind::Postgres, &setting) else { return };
    under_test("PostgreSQL, serializable, calls that are dropped");
    let pool = PgPoolOptions::new().max_connections(1).connect(&server.url()).await.unwrap();
    let store = PostgresStore::new(pool.clone());
    store.migrate().await.unwrap();
    let (session, mut admin) = (key(), PgConnection::connect(&server.url()).await.unwrap());
    assert!(store.load(&session).await.unwrap().is_none());
    admin.execute("CREATE TABLE notes (note INT)").await.unwrap();
    for round in 1..=100_i64 {
        let is_done = polled(round as usize % 20, store.load(&session)).await;
        pool.execute("INSERT INTO notes VALUES (1)").await.unwrap();
        let notes: i64 =
            admin.fetch_one("SELECT count(*) FROM notes").await.unwrap().try_get(0).unwrap();
        assert_eq!(notes, round, "the call was done: {is_done}");
    }
}

/// What the server says is understood whatever its language is: here, that a statement has to be prepared anew.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_postgres_that_speaks_german_is_understood() {
    let Some(server) = StoreServer::start(Kind::Postgres) else { return };
    let Some(language) = server.add_language("de_DE") else { return };
    let mut admin = PgConnection::connect(&server.url()).await.unwrap();
    let speak = format!("ALTER DATABASE postgres SET lc_messages = '{language}'");
    admin.execute(AssertSqlSafe(speak)).await.unwrap();
    let store = PostgresStore::connect(&server.url()).await.unwrap();
    let error = store.load(&key()).await.unwrap_err();
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.contains("call `migrate`") && cause.contains("existiert nicht"), "{cause}");
    store.migrate().await.unwrap();
    let session = key();
    let _ = store.create(&session, &record(1, Some("ann"), b"x")).await.unwrap();
    assert!(store.load(&session).await.unwrap().is_some());
    admin.execute("ALTER TABLE sessions ALTER user_id TYPE VARCHAR(4000)").await.unwrap();
    assert!(store.load(&session).await.unwrap().is_some());

    let options = server.url().parse::<PgConnectOptions>().unwrap();
    let pool = PgPool::connect_with(options.options([("search_path", "nowhere")])).await.unwrap();
    let error = PostgresStore::new(pool).migrate().await.unwrap_err();
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.contains("set the `search_path`"), "{cause}");
}

/// A large table can be one of partitions, by the hash of the key.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_serves_sessions_from_a_table_of_partitions() {
    let Some(server) = StoreServer::start(Kind::Postgres) else { return };
    let mut admin = PgConnection::connect(&server.url()).await.unwrap();
    let made = "CREATE TABLE sessions (id BYTEA NOT NULL PRIMARY KEY, version BIGINT NOT NULL, \
                    created_at BIGINT NOT NULL, expires_at BIGINT NOT NULL, user_id TEXT, \
                    payload BYTEA NOT NULL) PARTITION BY HASH (id); \
                CREATE TABLE even PARTITION OF sessions FOR VALUES WITH (MODULUS 2, REMAINDER 0); \
                CREATE TABLE odd PARTITION OF sessions FOR VALUES WITH (MODULUS 2, REMAINDER 1)";
    raw_sql(made).execute(&mut admin).await.unwrap();
    let builder = PostgresStore::builder().with_notifications();
    let store = builder.connect(&server.url()).await.unwrap();
    serves(&store).await;
    let near = NearCache::new(store).unwrap();
    let elsewhere = PostgresStore::connect(&server.url()).await.unwrap();
    let session = key();
    let _ = near.create(&session, &record(1, None, b"x")).await.unwrap();
    eventually("it is told", async || {
        let before = near.stats().hits;
        let _ = near.load(&session).await;
        near.stats().hits > before
    })
    .await;
    let replaced = elsewhere.replace(&session, &record(2, None, b"y"), 1).await.unwrap();
    assert_eq!(replaced, Replaced::Done);
    eventually("it is seen", async || near.load(&session).await.unwrap().unwrap().version == 2)
        .await;
}

/// Saves say why they fail, reads go on, and all is well when the lock is gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sqlite_file_that_another_process_has_locked_is_told() {
    let folder = Folder::new();
    let url = format!("sqlite:{}", folder.path.join("sessions.db").display());
    let builder = SqliteStore::builder().with_timeout(Duration::from_millis(500));
    let store = builder.connect(&url).await.unwrap();
    store.migrate().await.unwrap();
    let session = key();
    let _ = store.create(&session, &record(1, None, b"x")).await.unwrap();
    let mut other = SqliteConnection::connect(&url).await.unwrap();
    other.execute("BEGIN IMMEDIATE").await.unwrap();
    let stores = store.clone();
    let begun = Instant::now();
    let errors = at_once(3, move |_| {
        let store = stores.clone();
        async move { store.create(&key(), &record(1, None, b"x")).await.unwrap_err() }
    });
    for error in errors.await {
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert!(error.is_retryable() && cause.contains("lock"), "{error}: {cause}");
    }
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert!(store.load(&session).await.unwrap().is_some());
    other.execute("ROLLBACK").await.unwrap();
    let replaced = store.replace(&session, &record(2, None, b"y"), 1).await.unwrap();
    assert_eq!(replaced, Replaced::Done);
}
