//! What a write in a SQL store waits for: the same 64 sessions of four kilobytes, without requests around
//! the store. Of each way to write: writes a second, the processors' time of the client and of all others
//! (the server) a write, how much of the processors is left over, and what the server counts a write.
//! The bare overwrite compares nothing and goes alone: the most that a statement for each write comes to.
//!
//! `cargo run --release --manifest-path benches/stores/Cargo.toml --bin writes -- postgres`, or `mariadb`;
//! what follows is given to the server: `-c synchronous_commit=off`,
//! `--innodb-flush-log-at-trx-commit=0`.

use std::{
    fs,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering::SeqCst},
    },
    time::{Duration, Instant, SystemTime},
};

use servers::{Kind, StoreServer};
use sessions::{Created, MySqlStore, PostgresStore, Record, Replaced, Store, StoreKey};
use sqlx::Row;
use tower_sessions::SessionStore;

const SESSIONS: usize = 64;
const PAYLOAD: usize = 4 * 1024;
const TURN: Duration = Duration::from_secs(1);
const TURNS: usize = 3;

type Write = Pin<Box<dyn Future<Output = ()> + Send>>;
/// Writes the session of that number, which has that version.
type Way = Box<dyn Fn(usize, i64) -> Write>;

fn key(number: usize) -> StoreKey {
    let mut state = number as u64 + 1;
    StoreKey::from_bytes(std::array::from_fn(|_| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as u8
    }))
}

fn record(version: i64) -> Record {
    let now = SystemTime::now();
    Record::new(version as u64, now, now + Duration::from_secs(3600), vec![b'x'; PAYLOAD])
}

/// Ticks of ten milliseconds: of this process, and what the machine was busy and idle.
fn ticks() -> [u64; 3] {
    let own = fs::read_to_string("/proc/self/stat").unwrap();
    let own: Vec<&str> = own.rsplit(')').next().unwrap().split_whitespace().collect();
    let own = own[11].parse::<u64>().unwrap() + own[12].parse::<u64>().unwrap();
    let all = fs::read_to_string("/proc/stat").unwrap();
    let all: Vec<u64> = all
        .lines()
        .next()
        .unwrap()
        .split_whitespace()
        .skip(1)
        .map(|n| n.parse().unwrap())
        .collect();
    [own, all[0] + all[1] + all[2] + all[5] + all[6], all[3] + all[4]]
}

#[derive(Default)]
struct Ways {
    names: Vec<String>,
    ways: Vec<Way>,
    versions: Vec<Arc<Vec<AtomicI64>>>,
}

impl Ways {
    /// Ways that share a table share the versions.
    fn add(
        &mut self,
        name: &str,
        versions: &Arc<Vec<AtomicI64>>,
        way: impl Fn(usize, i64) -> Write + 'static,
    ) {
        self.names.push(name.to_string());
        self.ways.push(Box::new(way));
        self.versions.push(versions.clone());
    }

    /// The ways of the two libraries, each with its load and without. `shared` are the versions of ours.
    async fn add_both(
        &mut self,
        ours: impl Store + Clone,
        theirs: impl SessionStore + Clone,
        shared: &Arc<Vec<AtomicI64>>,
    ) {
        for session in 0..SESSIONS {
            assert_eq!(ours.create(&key(session), &record(1)).await.unwrap(), Created::Done);
        }
        let records = their_records(&theirs).await;
        for loads in [true, false] {
            let store = ours.clone();
            let name = if loads { "load, replace" } else { "replace" };
            self.add(&format!("ours: {name}"), shared, move |session, version| {
                let store = store.clone();
                Box::pin(async move {
                    let (key, next) = (key(session), record(version + 1));
                    if loads {
                        store.load(&key).await.unwrap().unwrap();
                    }
                    let done = store.replace(&key, &next, version as u64).await;
                    assert_eq!(done.unwrap(), Replaced::Done);
                })
            });
            let (store, records) = (theirs.clone(), records.clone());
            let name = if loads { "load, save" } else { "save" };
            self.add(&format!("theirs: {name}"), &versions(), move |session, version| {
                let (store, mut record) = (store.clone(), records[session].clone());
                record.data.insert("visits".to_string(), version.into());
                Box::pin(async move {
                    if loads {
                        store.load(&record.id).await.unwrap().unwrap();
                    }
                    store.save(&record).await.unwrap();
                })
            });
        }
    }

    async fn run(self, counted: impl AsyncFn() -> Vec<(&'static str, f64)>) {
        let mut sums = vec![([0; 3], 0_usize, Vec::new(), Vec::<f64>::new()); self.ways.len()];
        for _ in 0..TURNS {
            for (number, way) in self.ways.iter().enumerate() {
                let (before, count) = (ticks(), counted().await);
                let took = turn(way, &self.versions[number]).await;
                let (after, counted) = (ticks(), counted().await);
                let sum = &mut sums[number];
                for at in 0..3 {
                    sum.0[at] += after[at] - before[at];
                }
                sum.1 += took.len();
                sum.2.extend(took);
                sum.3.resize(counted.len(), 0.0);
                for (at, sum) in sum.3.iter_mut().enumerate() {
                    *sum += counted[at].1 - count[at].1;
                }
            }
        }
        let names = counted().await;
        let names: Vec<&str> = names.iter().map(|(name, _)| *name).collect();
        println!("| way | writes | p99 | client us | server us | idle | {} |", names.join(" | "));
        for (name, (ticks, writes, mut took, counted)) in self.names.iter().zip(sums) {
            took.sort_unstable();
            let p99 = took[took.len() * 99 / 100].as_secs_f64() * 1000.0;
            let rate = writes as f64 / (TURN.as_secs_f64() * TURNS as f64);
            let micros = |ticks: u64| ticks as f64 * 10_000.0 / writes as f64;
            let idle = ticks[2] as f64 * 100.0 / (ticks[1] + ticks[2]) as f64;
            let counted: Vec<String> =
                counted.iter().map(|n| format!("{:.2}", n / writes as f64)).collect();
            println!(
                "| {name} | {rate:.0}/s | {p99:.1} ms | {:.0} | {:.0} | {idle:.0} % | {} |",
                micros(ticks[0]),
                micros(ticks[1] - ticks[0].min(ticks[1])),
                counted.join(" | "),
            );
        }
    }
}

async fn turn(way: &Way, versions: &Arc<Vec<AtomicI64>>) -> Vec<Duration> {
    let end = Instant::now() + TURN;
    // A way is not to be shared, its writes are.
    let mut running = tokio::task::JoinSet::new();
    let begin = |session: usize| {
        let versions = versions.clone();
        let version = versions[session].load(SeqCst);
        let write = way(session, version);
        async move {
            let begun = Instant::now();
            write.await;
            versions[session].store(version + 1, SeqCst);
            (session, begun.elapsed())
        }
    };
    for session in 0..SESSIONS {
        running.spawn(begin(session));
    }
    let mut all = Vec::new();
    while let Some(done) = running.join_next().await {
        let (session, took) = done.unwrap();
        all.push(took);
        if Instant::now() < end {
            running.spawn(begin(session));
        }
    }
    all
}

fn versions() -> Arc<Vec<AtomicI64>> {
    Arc::new((0..SESSIONS).map(|_| AtomicI64::new(1)).collect())
}

async fn postgres(settings: &[&str]) {
    let server = StoreServer::start_with(Kind::Postgres, settings).expect("installed");
    let url = server.url();
    let mut ways = Ways::default();
    let ours = PostgresStore::builder().without_sweep().connect(&url).await.unwrap();
    ours.migrate().await.unwrap();
    let pool = sqlx::postgres::PgPoolOptions::new()
        .max_connections(10)
        .test_before_acquire(false)
        .connect(&url)
        .await
        .unwrap();
    let shared = versions();
    let their_pool = tower_sessions_sqlx_store::sqlx::PgPool::connect(&url).await.unwrap();
    let theirs = tower_sessions_sqlx_store::PostgresStore::new(their_pool);
    theirs.migrate().await.unwrap();
    ways.add_both(ours, theirs, &shared).await;
    let bare = pool.clone();
    ways.add("bare overwrite", &shared, move |session, version| {
        let pool = bare.clone();
        Box::pin(async move {
            let record = record(version + 1);
            sqlx::query("UPDATE sessions SET version = $1, payload = $2 WHERE id = $3")
                .bind(version + 1)
                .bind(&record.payload[..])
                .bind(&key(session).as_bytes()[..])
                .execute(&pool)
                .await
                .unwrap();
        })
    });
    ways.run(async || {
        let row = sqlx::query(
            "SELECT wal_bytes::float8, wal_sync::float8, wal_fpi::float8, \
             (SELECT xact_commit::float8 FROM pg_stat_database WHERE datname = 'postgres'), \
             (SELECT sum(n_tup_hot_upd)::float8 FROM pg_stat_user_tables) FROM pg_stat_wal",
        )
        .fetch_one(&pool)
        .await
        .unwrap();
        vec![
            ("WAL bytes", row.get(0)),
            ("flushes", row.get(1)),
            ("full pages", row.get(2)),
            ("commits", row.get(3)),
            ("HOT", row.get(4)),
        ]
    })
    .await;
}

async fn their_records(store: &impl SessionStore) -> Arc<Vec<tower_sessions::session::Record>> {
    let mut records = Vec::new();
    for _ in 0..SESSIONS {
        let mut record = tower_sessions::session::Record {
            id: Default::default(),
            data: [("text".to_string(), "x".repeat(PAYLOAD).into())].into(),
            expiry_date: (SystemTime::now() + Duration::from_secs(3600)).into(),
        };
        store.create(&mut record).await.unwrap();
        records.push(record);
    }
    Arc::new(records)
}

async fn mariadb(settings: &[&str]) {
    let server = StoreServer::start_with(Kind::MariaDb, settings).expect("installed");
    let url = server.url();
    let mut ways = Ways::default();
    let ours = MySqlStore::builder().without_sweep().connect(&url).await.unwrap();
    ours.migrate().await.unwrap();
    let pool = sqlx::mysql::MySqlPoolOptions::new()
        .max_connections(10)
        .test_before_acquire(false)
        .connect(&url)
        .await
        .unwrap();
    let shared = versions();
    let their_pool = tower_sessions_sqlx_store::sqlx::MySqlPool::connect(&url).await.unwrap();
    let theirs = tower_sessions_sqlx_store::MySqlStore::new(their_pool);
    theirs.migrate().await.unwrap();
    ways.add_both(ours, theirs, &shared).await;
    let bare = pool.clone();
    ways.add("bare overwrite", &shared, move |session, version| {
        let pool = bare.clone();
        Box::pin(async move {
            let record = record(version + 1);
            sqlx::query("UPDATE sessions SET version = ?, payload = ? WHERE id = ?")
                .bind(version + 1)
                .bind(&record.payload[..])
                .bind(&key(session).as_bytes()[..])
                .execute(&pool)
                .await
                .unwrap();
        })
    });
    ways.run(async || {
        let rows = sqlx::query("SHOW GLOBAL STATUS WHERE Variable_name IN ('Innodb_os_log_fsyncs', 'Innodb_os_log_written', 'Innodb_data_fsyncs', 'Innodb_data_written', 'Questions')")
            .fetch_all(&pool).await.unwrap();
        let find = |name: &str| {
            rows.iter().find(|row| row.get::<String, _>(0) == name).map_or(0.0, |row| row.get::<String, _>(1).parse().unwrap())
        };
        vec![("log flushes", find("Innodb_os_log_fsyncs")), ("log bytes", find("Innodb_os_log_written")), ("data flushes", find("Innodb_data_fsyncs")), ("bytes written", find("Innodb_data_written")), ("questions", find("Questions"))]
    }).await;
}

#[tokio::main]
async fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.split_first() {
        Some((&"postgres", settings)) => postgres(settings).await,
        Some((&"mariadb", settings)) => mariadb(settings).await,
        _ => eprintln!("postgres or mariadb?"),
    }
}
