//! Saves that come at the same time and go to the server together: each is its own compare-and-swap all the same.

use std::time::Duration;

use sessions::{
    Created, Record, Replaced, Store, StoreKey,
    store::{Dialect, SqlStore},
};
use sessions_tests::servers::{Kind, StoreServer, is_mysql};
use sqlx::{Connection, MySqlConnection, PgConnection, Row};
use tokio::{
    sync::oneshot,
    task::JoinHandle,
    time::{sleep, timeout},
};

use crate::checks::{key, record};

const SESSIONS: usize = 64;

/// Long after the store's own timeout.
const FOREVER: Duration = Duration::from_secs(60);

/// A connection to the server beside those of the store.
trait Admin {
    /// Locks the rows of these sessions, until they are unlocked.
    async fn lock(&mut self, keys: &[StoreKey]);

    async fn unlock(&mut self);

    /// Ends all connections but this one.
    async fn kill_others(&mut self);
}

impl Admin for PgConnection {
    async fn lock(&mut self, keys: &[StoreKey]) {
        sqlx::raw_sql("BEGIN").execute(&mut *self).await.unwrap();
        for key in keys {
            let lock = sqlx::query("SELECT version FROM sessions WHERE id = $1 FOR UPDATE");
            lock.bind(key.as_bytes().to_vec()).execute(&mut *self).await.unwrap();
        }
    }

    async fn unlock(&mut self) {
        sqlx::raw_sql("ROLLBACK").execute(self).await.unwrap();
    }

    async fn kill_others(&mut self) {
        let kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE \
                    backend_type = 'client backend' AND pid <> pg_backend_pid()";
        sqlx::query(kill).execute(self).await.unwrap();
    }
}

impl Admin for MySqlConnection {
    async fn lock(&mut self, keys: &[StoreKey]) {
        sqlx::raw_sql("BEGIN").execute(&mut *self).await.unwrap();
        for key in keys {
            let lock = sqlx::query("SELECT version FROM sessions WHERE id = ? FOR UPDATE");
            lock.bind(key.as_bytes().to_vec()).execute(&mut *self).await.unwrap();
        }
    }

    async fn unlock(&mut self) {
        sqlx::raw_sql("ROLLBACK").execute(self).await.unwrap();
    }

    async fn kill_others(&mut self) {
        let find = "SELECT id FROM information_schema.processlist \
                    WHERE id <> CONNECTION_ID() AND command <> 'Daemon'";
        for row in sqlx::query(find).fetch_all(&mut *self).await.unwrap() {
            let kill = format!("KILL {}", row.try_get_unchecked::<i64, _>(0).unwrap());
            let _ = sqlx::raw_sql(sqlx::AssertSqlSafe(kill)).execute(&mut *self).await;
        }
    }
}

async fn store<D: Dialect>(url: &str) -> SqlStore<D> {
    let store = SqlStore::<D>::builder().without_sweep().connect(url).await.unwrap();
    store.migrate().await.unwrap();
    store
}

/// Payloads of many lengths with bytes of all kinds, now with a user and now without.
fn save(session: usize, version: u64) -> Record {
    let payload: Vec<u8> = (0..session * session * 9).map(|at| (at * 7 + session) as u8).collect();
    let user = format!("bob \\ {} {version}", "é".repeat(session));
    record(
        version,
        Some(&*user).filter(|_| !(session as u64 + version).is_multiple_of(3)),
        &payload,
    )
}

async fn create<D: Dialect>(store: &SqlStore<D>) -> Vec<StoreKey> {
    let mut keys = Vec::new();
    for session in 0..SESSIONS {
        let key = key();
        assert_eq!(store.create(&key, &save(session, 1)).await.unwrap(), Created::Done);
        keys.push(key);
    }
    // From the first write on it is known how this server is to be written to.
    keys
}

/// One save of each session, all at once.
fn save_all<D: Dialect>(
    store: &SqlStore<D>,
    keys: &[StoreKey],
    based_on: impl Fn(usize) -> u64,
) -> Vec<JoinHandle<Replaced>> {
    let saves = keys.iter().copied().enumerate().map(|(session, key)| {
        let (store, based_on) = (store.clone(), based_on(session));
        tokio::spawn(async move {
            store.replace(&key, &save(session, based_on + 1), based_on).await.unwrap()
        })
    });
    saves.collect()
}

/// Rounds of saves of which every seventh is based on another version, every eleventh is of no session, and of
/// one session there are two.
async fn each_has_its_own_answer<D: Dialect>(store: &SqlStore<D>) {
    let keys = create(store).await;
    for round in 1..=6 {
        let mut all = keys.clone();
        for (session, missing) in all.iter_mut().enumerate() {
            if session % 11 == 5 {
                *missing = key();
            }
        }
        let is_wrong = |session: usize| session % 7 == 3;
        let saves = save_all(store, &all, |session| match is_wrong(session) {
            true => round + 40,
            false => round,
        });
        let twice = save_all(store, &all[..1], |_| round);
        for (session, answer) in saves.into_iter().enumerate().skip(1) {
            let expected = match (session % 11 == 5, is_wrong(session)) {
                (true, _) => Replaced::Missing,
                (false, true) => Replaced::Changed,
                (false, false) => Replaced::Done,
            };
            assert_eq!(answer.await.unwrap(), expected, "{session} in {round}");
        }
        for answer in twice {
            let other = answer.await.unwrap();
            assert!(matches!(other, Replaced::Done | Replaced::Changed), "{other:?}");
        }
        for (session, key) in keys.iter().enumerate() {
            let version = if is_wrong(session) || session % 11 == 5 { 1 } else { round + 1 };
            let found = store.load(key).await.unwrap().expect("it is live");
            let expected = save(session, version);
            assert_eq!(found.version, version, "{session}");
            assert_eq!((found.user, found.payload), (expected.user, expected.payload), "{session}");
        }
    }
}

/// A row that somebody has locked keeps the saves waiting that are of its session, and no other.
async fn waits_alone_for_a_lock<D: Dialect>(store: &SqlStore<D>, admin: &mut impl Admin) {
    let keys = create(store).await;
    let mut saves = Vec::new();
    admin.lock(&keys[40..=40]).await;
    // Twice the saves, so that the locked one is in the middle of a group whoever is first.
    saves.extend(save_all(store, &keys, |_| 1));
    let locked = saves.remove(40);
    for (session, answer) in saves.into_iter().enumerate() {
        let answer = timeout(FOREVER, answer).await.expect("it waits for no other");
        assert_eq!(answer.unwrap(), Replaced::Done, "{session}");
    }
    assert!(!locked.is_finished());
    locked.abort();
    admin.unlock().await;
}

/// Callers that go do not take the others with them.
async fn a_caller_goes<D: Dialect>(store: &SqlStore<D>) {
    let keys = create(store).await;
    for round in 1..=10 {
        let mut left = Vec::new();
        for (session, save) in save_all(store, &keys, |_| round).into_iter().enumerate() {
            match session % 3 {
                0 => save.abort(),
                _ => left.push((session, save)),
            }
            if session % 5 == 0 {
                sleep(Duration::from_micros(300)).await;
            }
        }
        for (session, answer) in left {
            let answer = timeout(FOREVER, answer).await.expect("it is answered");
            assert_eq!(answer.unwrap(), Replaced::Done, "{session}");
        }
        // What was aborted is done or not.
        for (session, key) in keys.iter().enumerate().step_by(3) {
            sleep(Duration::from_millis(1)).await;
            let found = store.load(key).await.unwrap().expect("it is live");
            if found.version <= round {
                let again = store.replace(key, &save(session, round + 1), found.version).await;
                assert_ne!(again.unwrap(), Replaced::Missing);
            }
        }
    }
}

/// A runtime whose turn it is to send a group, and that nobody drives any more, keeps no save of another
/// runtime waiting.
async fn needs_no_other_runtime<D: Dialect>(store: &SqlStore<D>, admin: &mut impl Admin) {
    let keys = create(store).await;
    admin.lock(&keys[..2]).await;
    let (are_first, first) = oneshot::channel();
    let (stop, stopped) = oneshot::channel::<()>();
    let (end, ended) = std::sync::mpsc::channel::<()>();
    let (theirs, of_them) = (store.clone(), [keys[0], keys[1]]);
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (one, two) = (save(0, 2), save(1, 2));
            tokio::select! {
                biased;
                _ = theirs.replace(&of_them[0], &one, 1) => panic!("it is locked"),
                _ = theirs.replace(&of_them[1], &two, 1) => panic!("it is locked"),
                _ = async {
                    are_first.send(()).unwrap();
                    stopped.await.unwrap();
                } => {}
            }
        });
        // Its tasks are there, and stand still.
        let _ = ended.recv();
    });
    first.await.unwrap();
    let saves = save_all(store, &keys[2..12], |_| 1);
    sleep(Duration::from_millis(5)).await;
    stop.send(()).unwrap();
    for (session, answer) in saves.into_iter().enumerate() {
        let answer = timeout(FOREVER, answer).await.expect("it goes alone");
        assert_eq!(answer.unwrap(), Replaced::Done, "{session}");
    }
    // A task that is dropped before it has begun leaves its turn to the next.
    end.send(()).unwrap();
    thread.join().unwrap();
    for round in 1..=3 {
        for answer in save_all(store, &keys[20..], |_| round) {
            let answer = timeout(FOREVER, answer).await.expect("it is answered");
            assert_eq!(answer.unwrap(), Replaced::Done);
        }
    }
    admin.unlock().await;
}

/// Two processes that save the same sessions: of two saves that are based on the same version one is done, and
/// none is told of a session that is locked as of one that is not there.
async fn one_of_two_processes_wins<D: Dialect>(store: &SqlStore<D>, other: &SqlStore<D>) {
    let keys = create(store).await;
    create(other).await;
    for round in 1..=20 {
        let saves = save_all(store, &keys, |_| round);
        let others = save_all(other, &keys, |_| round);
        for (session, (ours, theirs)) in saves.into_iter().zip(others).enumerate() {
            let answers = [ours.await.unwrap(), theirs.await.unwrap()];
            let is_good =
                [Replaced::Done, Replaced::Changed].iter().all(|one| answers.contains(one));
            assert!(is_good, "{session} in {round}: {answers:?}");
        }
    }
}

/// Connections that die under the saves: a save is done, or an error.
async fn an_error_when_the_connection_dies<D: Dialect>(
    store: &SqlStore<D>,
    admin: &mut impl Admin,
) {
    let keys = create(store).await;
    let mut versions = [1; SESSIONS];
    for _ in 0..30 {
        let mut saves = Vec::new();
        for (session, key) in keys.iter().copied().enumerate() {
            let (store, version) = (store.clone(), versions[session]);
            saves.push(tokio::spawn(async move {
                store.replace(&key, &save(session, version + 1), version).await
            }));
        }
        admin.kill_others().await;
        for (session, answer) in saves.into_iter().enumerate() {
            match answer.await.unwrap() {
                Ok(answer) => assert_eq!(answer, Replaced::Done, "{session}"),
                Err(error) => {
                    assert!(error.is_retryable(), "{error}");
                    continue;
                }
            }
            versions[session] += 1;
        }
        for (session, key) in keys.iter().enumerate() {
            let found = loop {
                if let Ok(found) = store.load(key).await {
                    break found.expect("it is live").version;
                }
            };
            assert!(found == versions[session] || found == versions[session] + 1, "{session}");
            versions[session] = found;
        }
    }
}

/// Whatever the size of the record, and of the records that had its place in the statement before.
async fn every_size_comes_back<D: Dialect>(store: &SqlStore<D>) {
    const SIZES: [usize; 10] = [0, 1, 255, 256, 257, 16383, 40000, 65534, 65535, 65536];
    let keys = create(store).await;
    for round in 1..=10 {
        let mut saves = Vec::new();
        for (session, key) in keys.iter().copied().enumerate() {
            let store = store.clone();
            saves.push(tokio::spawn(async move {
                let record =
                    sized(SIZES[(session + round as usize) % SIZES.len()], session, round + 1);
                assert_eq!(store.replace(&key, &record, round).await.unwrap(), Replaced::Done);
                (key, record)
            }));
        }
        for save in saves {
            let (key, record) = save.await.unwrap();
            let found = store.load(&key).await.unwrap().expect("it is live");
            assert_eq!(found.user, record.user);
            assert!(found.payload == record.payload, "{}", record.payload.len());
        }
    }
}

fn sized(size: usize, session: usize, version: u64) -> Record {
    let payload: Vec<u8> = (0..size).map(|at| (at * 7 + session) as u8).collect();
    let user = "u".repeat([1020, 1, 255, 0][(session + size) % 4]);
    record(version, Some(&*user).filter(|user| !user.is_empty()), &payload)
}

/// What holds of saves that go together as it does of saves that go alone.
async fn each_save_stands_alone<D: Dialect>(
    store: &SqlStore<D>,
    url: &str,
    admin: &mut impl Admin,
) {
    a_caller_goes(store).await;
    waits_alone_for_a_lock(store, admin).await;
    one_of_two_processes_wins(store, &self::store(url).await).await;
    needs_no_other_runtime(store, admin).await;
    an_error_when_the_connection_dies(store, admin).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_saves_go_together() {
    let Some(server) = StoreServer::start(Kind::Postgres) else { return };
    let store = store::<sqlx::Postgres>(&server.url()).await;
    let mut admin = PgConnection::connect(&server.url()).await.unwrap();
    sqlx::raw_sql("CREATE EXTENSION pg_stat_statements").execute(&mut admin).await.unwrap();
    let sums = "SELECT sum(calls)::bigint, sum(rows)::bigint FROM pg_stat_statements \
                WHERE query LIKE 'WITH free%'";
    // Where a commit takes longer than saves wait for each other, they go alone.
    let go_together = 'seen: {
        for _ in 0..20 {
            each_has_its_own_answer(&store).await;
            let row = sqlx::query(sums).fetch_one(&mut admin).await.unwrap();
            let (calls, rows): (Option<i64>, Option<i64>) = (row.get(0), row.get(1));
            if rows.unwrap_or(0) > calls.unwrap_or(0) + 6 {
                break 'seen true;
            }
        }
        false
    };
    assert!(go_together, "no group in 20 tries");

    every_size_comes_back(&store).await;
    each_save_stands_alone(&store, &server.url(), &mut admin).await;
}

/// How many statements have changed rows.
async fn updates(admin: &mut MySqlConnection) -> u64 {
    let text = "SHOW GLOBAL STATUS WHERE Variable_name IN ('Com_update', 'Com_update_multi')";
    let rows = sqlx::query(text).fetch_all(admin).await.unwrap();
    rows.iter().map(|row| row.get::<String, _>(1).parse::<u64>().unwrap()).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mariadb_saves_go_together() {
    let Some(server) = StoreServer::start(Kind::MariaDb).filter(|_| !is_mysql()) else { return };
    let store = store::<sqlx::MySql>(&server.url()).await;
    let mut admin = MySqlConnection::connect(&server.url()).await.unwrap();
    each_has_its_own_answer(&store).await;

    let keys = create(&store).await;
    // Where a commit takes longer than saves wait for each other, they go alone.
    let go_together = 'seen: {
        for round in 1..=100 {
            let before = updates(&mut admin).await;
            for answer in save_all(&store, &keys, |_| round) {
                assert_eq!(answer.await.unwrap(), Replaced::Done);
            }
            if SESSIONS as u64 > 2 * (updates(&mut admin).await - before) {
                break 'seen true;
            }
        }
        false
    };
    assert!(go_together, "no group in 100 rounds");

    each_save_stands_alone(&store, &server.url(), &mut admin).await;
}

/// Nothing of a group that failed stays on the pool's connections; and a server takes each save that it takes alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mariadb_groups_that_the_server_does_not_take() {
    let Some(server) = StoreServer::start(Kind::MariaDb).filter(|_| !is_mysql()) else { return };
    let mut admin = MySqlConnection::connect(&server.url()).await.unwrap();
    // Nothing that is too long for a column is an error now.
    sqlx::raw_sql("SET GLOBAL sql_mode = ''").execute(&mut admin).await.unwrap();
    every_size_comes_back(&store::<sqlx::MySql>(&server.url()).await).await;

    let pool = sqlx::mysql::MySqlPoolOptions::new().max_connections(4);
    let pool = pool.connect(&server.url()).await.unwrap();
    let store = SqlStore::<sqlx::MySql>::builder().without_sweep().build(pool.clone()).unwrap();
    waits_alone_for_a_lock(&store, &mut admin).await;
    let mut all = Vec::new();
    for _ in 0..4 {
        let mut connection = pool.acquire().await.unwrap();
        let ask =
            "SELECT CAST(@@innodb_lock_wait_timeout AS SIGNED), CAST(@@in_transaction AS SIGNED)";
        let row = sqlx::query(ask).fetch_one(&mut *connection).await.unwrap();
        assert_eq!((row.get::<i64, _>(0), row.get::<i64, _>(1)), (50, 0));
        all.push(connection);
    }
    drop(all);

    sqlx::raw_sql("SET GLOBAL max_allowed_packet = 131072").execute(&mut admin).await.unwrap();
    let store = self::store::<sqlx::MySql>(&server.url()).await;
    let keys = create(&store).await;
    for round in 1..=5 {
        let mut saves = Vec::new();
        for key in keys.iter().take(16) {
            let (store, key) = (store.clone(), *key);
            saves.push(tokio::spawn(async move {
                store.replace(&key, &sized(60_000, 0, round + 1), round).await
            }));
        }
        for save in saves {
            assert_eq!(save.await.unwrap().expect("the server takes it"), Replaced::Done);
        }
    }
}
