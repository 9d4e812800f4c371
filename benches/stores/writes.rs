//! What a write in a SQL store waits for: the same 64 sessions of four kilobytes, without requests around
//! the store. Of each way to write: writes a second, the processors' time of the client and of all others
//! (the server) a write, and how much of the two processors is left over.
//!
//! `cargo run --release --manifest-path benches/stores/Cargo.toml --bin writes -- postgres`, or `mariadb`;
//! what follows is given to the server: `-c synchronous_commit=off`,
//! `--innodb-flush-log-at-trx-commit=0`.

use std::{
    collections::{HashSet, VecDeque},
    fs,
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant, SystemTime},
};

use sessions::{MySqlStore, PostgresStore, Record, Replaced, Store, StoreKey};
use sessions_tests::servers::{Kind, StoreServer};
use sqlx::{MySqlPool, PgPool, Row};
use tokio::sync::oneshot;
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
    let all: Vec<u64> = all.lines().next().unwrap().split_whitespace().skip(1).map(|n| n.parse().unwrap()).collect();
    [own, all[0] + all[1] + all[2] + all[5] + all[6], all[3] + all[4]]
}

struct Ways {
    names: Vec<String>,
    ways: Vec<Way>,
    versions: Vec<Arc<Vec<AtomicI64>>>,
}

impl Ways {
    /// Ways that share a table share the versions.
    fn add(&mut self, name: &str, versions: &Arc<Vec<AtomicI64>>, way: impl Fn(usize, i64) -> Write + 'static) {
        self.names.push(name.to_string());
        self.ways.push(Box::new(way));
        self.versions.push(versions.clone());
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
            let counted: Vec<String> = counted.iter().map(|n| format!("{:.2}", n / writes as f64)).collect();
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

/// A save that waits for those before it.
struct Waiting {
    session: usize,
    version: i64,
    answer: oneshot::Sender<bool>,
}

/// Writes that come while others are on their way travel together.
struct Groups {
    most: usize,
    state: Mutex<(usize, VecDeque<Waiting>)>,
    sent: AtomicUsize,
}

impl Groups {
    fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, state: Mutex::default(), sent: AtomicUsize::new(0) })
    }

    async fn write<F: Future<Output = HashSet<usize>> + Send + 'static>(
        self: Arc<Self>,
        session: usize,
        version: i64,
        send: impl Fn(Vec<(usize, i64)>) -> F + Send + Sync + 'static,
    ) {
        let (answer, answered) = oneshot::channel();
        let first = {
            let mut state = self.state.lock().unwrap();
            state.1.push_back(Waiting { session, version, answer });
            let first = state.0 < self.most;
            if first {
                state.0 += 1;
            }
            first
        };
        if first {
            let groups = self.clone();
            tokio::spawn(async move {
                loop {
                    let mut group: Vec<Waiting> = {
                        let mut state = groups.state.lock().unwrap();
                        if state.1.is_empty() {
                            state.0 -= 1;
                            break;
                        }
                        let fair = state.1.len();
                        state.1.drain(..fair.min(64)).collect()
                    };
                    group.sort_by_key(|waiting| *key(waiting.session).as_bytes());
                    groups.sent.fetch_add(1, SeqCst);
                    let done = send(group.iter().map(|w| (w.session, w.version)).collect()).await;
                    for waiting in group {
                        let _ = waiting.answer.send(done.contains(&waiting.session));
                    }
                }
            });
        }
        assert!(answered.await.unwrap());
    }
}

async fn group_in_postgres(pool: PgPool, text: &'static str, group: Vec<(usize, i64)>) -> HashSet<usize> {
    let mut ids = Vec::new();
    let mut based = Vec::new();
    let mut new = Vec::new();
    let mut created = Vec::new();
    let mut expires = Vec::new();
    let mut users = Vec::new();
    let mut payloads = Vec::new();
    for (session, version) in &group {
        let record = record(version + 1);
        ids.push(key(*session).as_bytes().to_vec());
        based.push(*version);
        new.push(version + 1);
        created.push(1_800_000_000_000_i64);
        expires.push(1_900_000_000_000_i64);
        users.push(None::<String>);
        payloads.push(record.payload.to_vec());
    }
    let now = 1_700_000_000_000_i64;
    let rows = sqlx::query(text)
        .bind(&ids).bind(based).bind(new).bind(created).bind(expires).bind(users).bind(payloads).bind(now)
        .fetch_all(&pool).await.unwrap();
    let done: HashSet<Vec<u8>> = rows.iter().map(|row| row.get(0)).collect();
    group.iter().zip(&ids).filter(|(_, id)| done.contains(*id)).map(|((session, _), _)| *session).collect()
}

const PLAIN: &str = "UPDATE sessions AS s SET version = n.version, created_at = n.created_at, \
    expires_at = n.expires_at, user_id = n.user_id, payload = n.payload \
    FROM unnest($1::bytea[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::text[], $7::bytea[]) \
    AS n (id, based_on, version, created_at, expires_at, user_id, payload) \
    WHERE s.id = n.id AND s.version = n.based_on AND s.expires_at > $8 RETURNING s.id";

const SKIPPING: &str = "WITH free AS (SELECT ctid FROM sessions WHERE id = ANY($1) AND expires_at > $8 \
    FOR UPDATE SKIP LOCKED) \
    UPDATE sessions AS s SET version = n.version, created_at = n.created_at, \
    expires_at = n.expires_at, user_id = n.user_id, payload = n.payload \
    FROM unnest($1::bytea[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::text[], $7::bytea[]) \
    AS n (id, based_on, version, created_at, expires_at, user_id, payload) \
    WHERE s.id = n.id AND s.version = n.based_on AND s.ctid = ANY(ARRAY(SELECT ctid FROM free)) RETURNING s.id";

async fn postgres(settings: &[&str]) {
    let server = StoreServer::start_with(Kind::Postgres, settings).expect("installed");
    let url = server.url();
    let mut ways = Ways { names: vec![], ways: vec![], versions: vec![] };
    let ours = PostgresStore::builder().without_sweep().connect(&url).await.unwrap();
    ours.migrate().await.unwrap();
    let pool = sqlx::postgres::PgPoolOptions::new().max_connections(10).test_before_acquire(false).connect(&url).await.unwrap();
    for session in 0..SESSIONS {
        ours.create(&key(session), &record(1)).await.unwrap();
    }
    let shared = versions();
    let their_pool = tower_sessions_sqlx_store::sqlx::PgPool::connect(&url).await.unwrap();
    let theirs = tower_sessions_sqlx_store::PostgresStore::new(their_pool);
    theirs.migrate().await.unwrap();
    let records = their_records(&theirs).await;
    let (store, r) = (ours.clone(), records.clone());
    ways.add("ours: load, replace", &shared, move |session, version| {
        let store = store.clone();
        Box::pin(async move {
            store.load(&key(session)).await.unwrap().unwrap();
            let done = store.replace(&key(session), &record(version + 1), version as u64).await;
            assert_eq!(done.unwrap(), Replaced::Done);
        })
    });
    let store = theirs.clone();
    ways.add("theirs: load, save", &versions(), move |session, _| {
        let (store, record) = (store.clone(), r[session].clone());
        Box::pin(async move {
            store.load(&record.id).await.unwrap().unwrap();
            store.save(&record).await.unwrap();
        })
    });
    let store = ours.clone();
    ways.add("ours: replace", &shared, move |session, version| {
        let store = store.clone();
        Box::pin(async move {
            let done = store.replace(&key(session), &record(version + 1), version as u64).await;
            assert_eq!(done.unwrap(), Replaced::Done);
        })
    });
    let (store, r) = (theirs.clone(), records.clone());
    ways.add("theirs: save", &versions(), move |session, _| {
        let (store, record) = (store.clone(), r[session].clone());
        Box::pin(async move { store.save(&record).await.unwrap() })
    });
    let bare = pool.clone();
    ways.add("bare overwrite", &shared, move |session, version| {
        let pool = bare.clone();
        Box::pin(async move {
            let record = record(version + 1);
            sqlx::query("UPDATE sessions SET version = $1, payload = $2 WHERE id = $3")
                .bind(version + 1).bind(&record.payload[..]).bind(&key(session).as_bytes()[..])
                .execute(&pool).await.unwrap();
        })
    });
    for (name, text) in [("plain", PLAIN), ("skipping", SKIPPING)] {
        for most in [1, 2, 4] {
            let groups = Groups::new(most);
            let (pool, store) = (pool.clone(), ours.clone());
            ways.add(&format!("load, grouped {name} {most}"), &shared, move |session, version| {
                let (pool, store, groups) = (pool.clone(), store.clone(), groups.clone());
                Box::pin(async move {
                    store.load(&key(session)).await.unwrap().unwrap();
                    groups.write(session, version, move |group| group_in_postgres(pool.clone(), text, group)).await;
                })
            });
        }
    }
    let groups = Groups::new(2);
    let group_pool = pool.clone();
    ways.add("grouped plain 2 alone", &shared, move |session, version| {
        let (pool, groups) = (group_pool.clone(), groups.clone());
        Box::pin(groups.write(session, version, move |group| group_in_postgres(pool.clone(), PLAIN, group)))
    });
    ways.run(async || {
        let row = sqlx::query(
            "SELECT wal_bytes::float8, wal_sync::float8, wal_fpi::float8, \
             (SELECT xact_commit::float8 FROM pg_stat_database WHERE datname = 'postgres'), \
             (SELECT sum(n_tup_hot_upd)::float8 FROM pg_stat_user_tables) FROM pg_stat_wal",
        ).fetch_one(&pool).await.unwrap();
        vec![("WAL bytes", row.get(0)), ("flushes", row.get(1)), ("full pages", row.get(2)), ("commits", row.get(3)), ("HOT", row.get(4))]
    }).await;
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

async fn group_in_mariadb(pool: MySqlPool, joined: bool, group: Vec<(usize, i64)>) -> HashSet<usize> {
    let now = 1_700_000_000_000_i64;
    let mut connection = pool.acquire().await.unwrap();
    if !joined {
        let mut transaction = sqlx::Connection::begin(&mut *connection).await.unwrap();
        let mut all = HashSet::new();
        for (session, version) in group {
            let record = record(version + 1);
            let done = sqlx::query("UPDATE sessions SET version = ?, created_at = ?, expires_at = ?, user_id = ?, payload = ? WHERE id = ? AND version = ? AND expires_at > ?")
                .bind(version + 1).bind(1_800_000_000_000_i64).bind(1_900_000_000_000_i64).bind(None::<Vec<u8>>)
                .bind(&record.payload[..]).bind(&key(session).as_bytes()[..]).bind(version).bind(now)
                .execute(&mut *transaction).await.unwrap();
            if done.rows_affected() > 0 {
                all.insert(session);
            }
        }
        transaction.commit().await.unwrap();
        return all;
    }
    let one = "SELECT ? AS id, ? AS based_on, ? AS version, ? AS created_at, ? AS expires_at, ? AS user_id, ? AS payload";
    let rows = vec![one; group.len()].join(" UNION ALL ");
    let text = format!("UPDATE ({rows}) AS n STRAIGHT_JOIN sessions AS s ON s.id = n.id SET s.version = n.version, s.created_at = n.created_at, s.expires_at = n.expires_at, s.user_id = n.user_id, s.payload = n.payload WHERE s.version = n.based_on AND s.expires_at > ?");
    let mut query = sqlx::query(sqlx::AssertSqlSafe(text));
    for (session, version) in &group {
        let record = record(version + 1);
        query = query.bind(key(*session).as_bytes().to_vec()).bind(*version).bind(version + 1)
            .bind(1_800_000_000_000_i64).bind(1_900_000_000_000_i64).bind(None::<Vec<u8>>).bind(record.payload.to_vec());
    }
    let done = query.bind(now).execute(&mut *connection).await.unwrap();
    assert_eq!(done.rows_affected(), group.len() as u64);
    group.into_iter().map(|(session, _)| session).collect()
}

async fn mariadb(settings: &[&str]) {
    let server = StoreServer::start_with(Kind::MariaDb, settings).expect("installed");
    let url = server.url();
    let mut ways = Ways { names: vec![], ways: vec![], versions: vec![] };
    let ours = MySqlStore::builder().without_sweep().connect(&url).await.unwrap();
    ours.migrate().await.unwrap();
    let pool = sqlx::mysql::MySqlPoolOptions::new().max_connections(10).test_before_acquire(false).connect(&url).await.unwrap();
    for session in 0..SESSIONS {
        ours.create(&key(session), &record(1)).await.unwrap();
    }
    let shared = versions();
    let their_pool = tower_sessions_sqlx_store::sqlx::MySqlPool::connect(&url).await.unwrap();
    let theirs = tower_sessions_sqlx_store::MySqlStore::new(their_pool);
    theirs.migrate().await.unwrap();
    let records = their_records(&theirs).await;
    let store = ours.clone();
    ways.add("ours: load, replace", &shared, move |session, version| {
        let store = store.clone();
        Box::pin(async move {
            store.load(&key(session)).await.unwrap().unwrap();
            let done = store.replace(&key(session), &record(version + 1), version as u64).await;
            assert_eq!(done.unwrap(), Replaced::Done);
        })
    });
    let (store, r) = (theirs.clone(), records.clone());
    ways.add("theirs: load, save", &versions(), move |session, _| {
        let (store, record) = (store.clone(), r[session].clone());
        Box::pin(async move {
            store.load(&record.id).await.unwrap().unwrap();
            store.save(&record).await.unwrap();
        })
    });
    let store = ours.clone();
    ways.add("ours: replace", &shared, move |session, version| {
        let store = store.clone();
        Box::pin(async move {
            let done = store.replace(&key(session), &record(version + 1), version as u64).await;
            assert_eq!(done.unwrap(), Replaced::Done);
        })
    });
    let (store, r) = (theirs.clone(), records.clone());
    ways.add("theirs: save", &versions(), move |session, _| {
        let (store, record) = (store.clone(), r[session].clone());
        Box::pin(async move { store.save(&record).await.unwrap() })
    });
    let bare = pool.clone();
    ways.add("bare overwrite", &shared, move |session, version| {
        let pool = bare.clone();
        Box::pin(async move {
            let record = record(version + 1);
            sqlx::query("UPDATE sessions SET version = ?, payload = ? WHERE id = ?")
                .bind(version + 1).bind(&record.payload[..]).bind(&key(session).as_bytes()[..])
                .execute(&pool).await.unwrap();
        })
    });
    for (name, joined) in [("one by one", false), ("joined", true)] {
        for most in [1, 2, 4] {
            let groups = Groups::new(most);
            let (pool, store) = (pool.clone(), ours.clone());
            ways.add(&format!("load, grouped {name} {most}"), &shared, move |session, version| {
                let (pool, store, groups) = (pool.clone(), store.clone(), groups.clone());
                Box::pin(async move {
                    store.load(&key(session)).await.unwrap().unwrap();
                    groups.write(session, version, move |group| group_in_mariadb(pool.clone(), joined, group)).await;
                })
            });
        }
    }
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
