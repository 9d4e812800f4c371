//! A thousand sessions and a million in each SQL store: whether loads and saves get slower, and what
//! becomes of them while the expired half of the million is removed in batches.
//!
//! `cargo run --release --manifest-path benches/stores/Cargo.toml --bin million` prints the tables;
//! `-- sqlite`, `-- postgres` or `-- mariadb` for one of them.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::{Duration, Instant, SystemTime},
};

use servers::{Folder, Kind, StoreServer};
use sessions::{
    DeleteExpired, Replaced, Store, StoreKey,
    store::{Dialect, SqlStore},
};

const FEW: u64 = 1_000;
const MANY: u64 = 1_000_000;
/// Of each session.
const PAYLOAD: usize = 200;
/// How many load and save at once.
const CLIENTS: u64 = 16;
const TURN: Duration = Duration::from_secs(2);
const TURNS: usize = 4;
/// How many rows a statement fills in.
const FILL: u64 = 1_000;

/// As good as random, and always the same.
fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn bytes_of(number: u64) -> [u8; 32] {
    let words = [0, 1, 2, 3].map(|word| mix(number * 4 + word).to_be_bytes());
    words.as_flattened().try_into().unwrap()
}

/// Every second session is over.
fn is_expired(number: u64) -> bool {
    number % 2 == 1
}

fn millis(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis() as u64
}

/// Statements that fill the table, each a good bite. In the order of the keys, which is faster.
fn fill(table: &str, sessions: u64, blob: impl Fn(&str) -> String) -> impl Iterator<Item = String> {
    let now = millis(SystemTime::now());
    let payload = blob(&"07".repeat(PAYLOAD));
    let mut numbers: Vec<u64> = (0..sessions).collect();
    numbers.sort_by_cached_key(|number| bytes_of(*number));
    (0..sessions.div_ceil(FILL)).map(move |part| {
        let part = (part * FILL) as usize..sessions.min((part + 1) * FILL) as usize;
        let rows = numbers[part].iter().map(|&number| {
            let id = bytes_of(number).map(|byte| format!("{byte:02x}")).concat();
            // Spread over the hours, as sessions are.
            let hours = mix(number) % 3_600_000;
            let expires = if is_expired(number) { now - hours } else { now + 3_600_000 + hours };
            let user = if number % 4 < 2 { format!("'user-{number}'") } else { "NULL".to_string() };
            format!("({}, 1, {now}, {expires}, {user}, {payload})", blob(&id))
        });
        let rows = rows.collect::<Vec<_>>().join(", ");
        format!(
            "INSERT INTO {table} (id, version, created_at, expires_at, user_id, payload) \
             VALUES {rows}"
        )
    })
}

#[derive(Default)]
struct Took {
    loads: Vec<Duration>,
    saves: Vec<Duration>,
}

/// A table, and which version each client has saved of each of its sessions.
struct Table<D: Dialect> {
    store: SqlStore<D>,
    sessions: u64,
    versions: Vec<HashMap<u64, u64>>,
}

impl<D: Dialect> Table<D> {
    /// Loads live sessions all over the table until `stop`, and saves them if `saves` says so.
    async fn requests(
        &mut self,
        saves: bool,
        stop: impl Fn() -> bool + Clone + Send + 'static,
        took: &mut Took,
    ) {
        let clients = self.versions.iter_mut().map(std::mem::take).zip(0..);
        let clients = clients.map(|(versions, client)| {
            let table = (self.store.clone(), self.sessions);
            tokio::spawn(work(table, client, versions, saves, stop.clone()))
        });
        for (client, versions) in clients.collect::<Vec<_>>().into_iter().zip(&mut self.versions) {
            let (more, saved) = client.await.expect("no client fails");
            took.loads.extend(more.loads);
            took.saves.extend(more.saves);
            *versions = saved;
        }
    }
}

async fn work<D: Dialect>(
    (store, sessions): (SqlStore<D>, u64),
    client: u64,
    mut versions: HashMap<u64, u64>,
    saves: bool,
    stop: impl Fn() -> bool,
) -> (Took, HashMap<u64, u64>) {
    let (mut took, mut random) = (Took::default(), client ^ millis(SystemTime::now()));
    while !stop() {
        random = mix(random);
        // One of this client's own, so that it knows its version.
        let number = 2 * (random % (sessions / 2 / CLIENTS) * CLIENTS + client);
        let key = StoreKey::from_bytes(bytes_of(number));
        let begun = Instant::now();
        let found = store.load(&key).await.expect("a load beside others");
        took.loads.push(begun.elapsed());
        let found = found.expect("a live session");
        let version = versions.entry(number).or_insert(1);
        assert_eq!(found.version, *version);
        if !saves {
            continue;
        }
        // Within its refresh window a save of the layer's leaves the expiry as it is.
        let record = found.with_version(*version + 1);
        let begun = Instant::now();
        let saved = store.replace(&key, &record, *version).await.expect("a save beside others");
        took.saves.push(begun.elapsed());
        assert_eq!(saved, Replaced::Done);
        *version += 1;
    }
    (took, versions)
}

/// The middle one, the slowest hundredth, and the slowest.
fn cell(mut took: Vec<Duration>) -> String {
    took.sort_unstable();
    let at = [took.len() / 2, took.len() * 99 / 100, took.len() - 1];
    let [middle, slow, slowest] = at.map(|at| took[at].as_secs_f64() * 1000.0);
    format!("{middle:.2} / {slow:.1} / {slowest:.0} ms")
}

/// How much longer the middle one takes, and all of them together.
fn slower(few: &[Duration], many: &[Duration]) -> String {
    let middle = |took: &[Duration]| {
        let mut took = took.to_vec();
        took.sort_unstable();
        took[took.len() / 2].as_secs_f64()
    };
    let mean = |took: &[Duration]| took.iter().sum::<Duration>().as_secs_f64() / took.len() as f64;
    format!("{:.2} | {:.2}", middle(many) / middle(few), mean(many) / mean(few))
}

/// `batch` is what the store's own sweep removes at once, unless it is told otherwise; `settle` is what
/// the database does by itself some time after so many rows have come.
async fn measure<D: Dialect>(
    name: &str,
    batch: u32,
    connect: impl AsyncFn(&str) -> SqlStore<D>,
    run: impl AsyncFn(String),
    blob: impl Fn(&str) -> String + Copy,
    settle: &[&str],
) {
    let mut tables = Vec::new();
    for (table, sessions) in [("few", FEW), ("many", MANY)] {
        let store = connect(table).await;
        store.migrate().await.unwrap();
        let begun = Instant::now();
        for statement in fill(table, sessions, blob) {
            run(statement).await;
        }
        eprintln!("{name}: {sessions} sessions in {:.0?}", begun.elapsed());
        tables.push(Table { store, sessions, versions: vec![HashMap::new(); CLIENTS as usize] });
    }
    for statement in settle {
        run(statement.to_string()).await;
    }
    for (call, saves) in [("load", false), ("save", true)] {
        let mut took = [vec![], vec![]];
        // In turns, so that a busy moment of the machine hits both; the first is to get warm.
        for turn in 0..=TURNS {
            for (table, took) in tables.iter_mut().zip(&mut took) {
                let (end, mut more) = (Instant::now() + TURN, Took::default());
                table.requests(saves, move || Instant::now() >= end, &mut more).await;
                if turn > 0 {
                    took.extend(if saves { more.saves } else { more.loads });
                }
            }
        }
        let [few, many] = took;
        let times = slower(&few, &many);
        println!("| {name} | {call} | {} | {} | {times} |", cell(few), cell(many));
    }

    let many = &mut tables[1];
    let (store, is_over) = (many.store.clone(), Arc::new(AtomicBool::new(false)));
    let told = is_over.clone();
    let sweep = tokio::spawn(async move {
        let (begun, mut batches) = (Instant::now(), Vec::new());
        let mut total = 0;
        loop {
            let begun = Instant::now();
            let removed = store.delete_expired(batch).await.expect("a batch beside requests");
            batches.push(begun.elapsed());
            total += removed;
            if removed < batch.into() {
                break;
            }
        }
        told.store(true, SeqCst);
        (total, begun.elapsed(), batches)
    });
    let mut beside = Took::default();
    many.requests(true, move || is_over.load(SeqCst), &mut beside).await;
    let (total, time, batches) = sweep.await.expect("the sweep does not fail");
    println!("| {name} | load beside the sweep | | {} | | |", cell(beside.loads));
    println!("| {name} | save beside the sweep | | {} | | |", cell(beside.saves));
    assert_eq!(total, MANY / 2, "every expired session, and no other");
    let (seconds, batches) = (time.as_secs_f64(), cell(batches));
    println!("| {name} | a batch of {batch}; {total} in {seconds:.0} s | | {batches} | | |");
}

/// A part of the program: all of them, or the one that is named.
fn wanted(name: &str) -> bool {
    std::env::args().nth(1).is_none_or(|only| only == name)
}

#[tokio::main]
async fn main() {
    println!(
        "| store | call | 1,000 sessions | 1,000,000 sessions | the middle one | all together |"
    );
    println!("| --- | --- | --- | --- | --- | --- |");
    let hex = |bytes: &str| format!("X'{bytes}'");
    if wanted("sqlite") {
        let folder = Folder::new();
        let url = format!("sqlite:{}", folder.path.join("sessions.db").display());
        let connect = async |table: &str| {
            let builder = SqlStore::<sqlx::Sqlite>::builder().with_table(table);
            builder.without_sweep().connect(&url).await.unwrap()
        };
        connect("few").await;
        // Faster than what the store uses; only to fill the table.
        let options = url.parse::<sqlx::sqlite::SqliteConnectOptions>().unwrap();
        let options =
            [("synchronous", "OFF"), ("cache_size", "-400000"), ("wal_autocheckpoint", "50000")]
                .into_iter()
                .fold(options, |options, (name, value)| options.pragma(name, value));
        let pool = sqlx::sqlite::SqlitePoolOptions::new().max_connections(1);
        let pool = pool.connect_with(options).await.unwrap();
        let run = async |statement: String| {
            sqlx::raw_sql(sqlx::AssertSqlSafe(statement)).execute(&pool).await.unwrap();
        };
        measure("SQLite", 100, connect, run, hex, &["ANALYZE"]).await;
    }
    if wanted("postgres") {
        // Room for the table, as a database of that size is given, and no checkpoint meanwhile.
        let settings = ["shared_buffers=1GB", "max_wal_size=8GB", "checkpoint_timeout=1h"];
        let settings = settings.map(|setting| ["-c", setting]);
        let settings = settings.as_flattened();
        if let Some(server) = StoreServer::start_with(Kind::Postgres, settings) {
            let connect = async |table: &str| {
                let builder = SqlStore::<sqlx::Postgres>::builder().with_table(table);
                builder.without_sweep().connect(&server.url()).await.unwrap()
            };
            let pool = sqlx::PgPool::connect(&server.url()).await.unwrap();
            let run = async |statement: String| {
                sqlx::raw_sql(sqlx::AssertSqlSafe(statement)).execute(&pool).await.unwrap();
            };
            let blob = |bytes: &str| format!("'\\x{bytes}'");
            measure("PostgreSQL", 1000, connect, run, blob, &["VACUUM ANALYZE"]).await;
        }
    }
    if wanted("mariadb") {
        let settings = ["--innodb-buffer-pool-size=1G", "--innodb-log-file-size=512M"];
        if let Some(server) = StoreServer::start_with(Kind::MariaDb, &settings) {
            let connect = async |table: &str| {
                let builder = SqlStore::<sqlx::MySql>::builder().with_table(table);
                builder.without_sweep().connect(&server.url()).await.unwrap()
            };
            let pool = sqlx::MySqlPool::connect(&server.url()).await.unwrap();
            let run = async |statement: String| {
                sqlx::raw_sql(sqlx::AssertSqlSafe(statement)).execute(&pool).await.unwrap();
            };
            measure("MariaDB", 1000, connect, run, hex, &["ANALYZE TABLE few, many"]).await;
        }
    }
}
