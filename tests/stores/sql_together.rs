//! Saves that come at the same time and go to the server together: each is its own compare-and-swap all the same.

use std::time::Duration;

use sessions::{
    Created, Record, Replaced, Store, StoreKey,
    store::{Dialect, SqlStore},
};
use sessions_tests::servers::{Kind, StoreServer};
use sqlx::{Connection, MySqlConnection, PgConnection, Row};
use tokio::{
    task::JoinHandle,
    time::{sleep, timeout},
};

use crate::checks::{key, record};

const SESSIONS: usize = 64;

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
async fn waits_alone_for_a_lock<D: Dialect>(
    store: &SqlStore<D>,
    locks: impl AsyncFnOnce(&StoreKey),
) {
    let keys = create(store).await;
    let mut saves = Vec::new();
    locks(&keys[40]).await;
    // Twice the saves, so that the locked one is in the middle of a group whoever is first.
    saves.extend(save_all(store, &keys, |_| 1));
    let locked = saves.remove(40);
    for (session, answer) in saves.into_iter().enumerate() {
        let answer = timeout(Duration::from_secs(4), answer).await.expect("it waits for no other");
        assert_eq!(answer.unwrap(), Replaced::Done, "{session}");
    }
    assert!(!locked.is_finished());
    locked.abort();
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
            let answer = timeout(Duration::from_secs(4), answer).await.expect("it is answered");
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_saves_go_together() {
    let Some(server) = StoreServer::start(Kind::Postgres) else { return };
    let store = store::<sqlx::Postgres>(&server.url()).await;
    let mut admin = PgConnection::connect(&server.url()).await.unwrap();
    sqlx::raw_sql("CREATE EXTENSION pg_stat_statements").execute(&mut admin).await.unwrap();
    each_has_its_own_answer(&store).await;
    let sums = "SELECT sum(calls)::bigint, sum(rows)::bigint FROM pg_stat_statements \
                WHERE query LIKE 'WITH free%'";
    let row = sqlx::query(sums).fetch_one(&mut admin).await.unwrap();
    let (calls, rows): (Option<i64>, Option<i64>) = (row.get(0), row.get(1));
    let (calls, rows) = (calls.unwrap_or(0), rows.unwrap_or(0));
    assert!(calls >= 6 && rows > 5 * calls, "{rows} saves in {calls} statements");

    a_caller_goes(&store).await;
    let mut holds = admin.begin().await.unwrap();
    waits_alone_for_a_lock(&store, async |key| {
        let lock = sqlx::query("SELECT version FROM sessions WHERE id = $1 FOR UPDATE");
        lock.bind(key.as_bytes().to_vec()).execute(&mut *holds).await.unwrap();
    })
    .await;
}

/// The number of that status.
async fn status(admin: &mut MySqlConnection, name: &str) -> u64 {
    let text = format!("SHOW GLOBAL STATUS LIKE '{name}'");
    let row = sqlx::query(sqlx::AssertSqlSafe(text)).fetch_one(admin).await.unwrap();
    row.get::<String, _>(1).parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mariadb_saves_go_together() {
    let Some(server) = StoreServer::start(Kind::MariaDb) else { return };
    let store = store::<sqlx::MySql>(&server.url()).await;
    let mut admin = MySqlConnection::connect(&server.url()).await.unwrap();
    each_has_its_own_answer(&store).await;

    let keys = create(&store).await;
    let before =
        status(&mut admin, "Com_update").await + status(&mut admin, "Com_update_multi").await;
    for round in 1..=6 {
        for answer in save_all(&store, &keys, |_| round) {
            assert_eq!(answer.await.unwrap(), Replaced::Done);
        }
    }
    let after =
        status(&mut admin, "Com_update").await + status(&mut admin, "Com_update_multi").await;
    let (saves, statements) = (6 * SESSIONS as u64, after - before);
    assert!(saves > 4 * statements, "{saves} saves in {statements} statements");

    a_caller_goes(&store).await;
    let mut holds = admin.begin().await.unwrap();
    waits_alone_for_a_lock(&store, async |key| {
        let lock = sqlx::query("SELECT version FROM sessions WHERE id = ? FOR UPDATE");
        lock.bind(key.as_bytes().to_vec()).execute(&mut *holds).await.unwrap();
    })
    .await;
}
