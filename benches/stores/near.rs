//! What a near cache is worth and costs, beside the table of `stores`: round trips as the server counts them,
//! how long a session is read after its end in another process, what a read takes where the path takes half a
//! millisecond, and the memory of a cached session.
//!
//! `cargo run --release --manifest-path benches/stores/Cargo.toml --bin near`

use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant, SystemTime},
};

use servers::{Kind, StoreServer};
use sessions::{
    Created, PostgresStore, Record, RedisStore, Store, StoreKey,
    store::{NearCache, Watch},
};
use tower_sessions::SessionStore;
use tower_sessions_redis_store::fred::prelude::{ClientLike, Config, Pool};

const PAYLOAD: usize = 4 * 1024;

fn key(number: u64) -> StoreKey {
    // Spread as real ones are.
    let mut state = number.wrapping_add(1);
    StoreKey::from_bytes(std::array::from_fn(|_| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as u8
    }))
}

fn record(payload: usize) -> Record {
    let now = SystemTime::now();
    Record::new(1, now, now + Duration::from_secs(3600), vec![7; payload])
}

async fn create(store: &impl Store, key: &StoreKey, payload: usize) {
    assert_eq!(store.create(key, &record(payload)).await.unwrap(), Created::Done);
}

fn percentiles(mut took: Vec<Duration>) -> String {
    took.sort_unstable();
    let at = |part: f64| took[((took.len() - 1) as f64 * part) as usize].as_secs_f64() * 1e6;
    format!("{:.1} / {:.1} / {:.1} us", at(0.5), at(0.99), at(1.0))
}

/// How often the server has read from a connection; this question is one of them.
fn reads(server: &StoreServer) -> u64 {
    let port = server.port().to_string();
    let output = Command::new("redis-cli").args(["-p", &port, "info", "stats"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("total_reads_processed:"));
    line.unwrap().trim().parse().unwrap()
}

async fn round_trips(server: &StoreServer) {
    const READS: u64 = 20_000;
    let plain = RedisStore::connect(&server.url()).await.unwrap();
    let near = NearCache::new(RedisStore::connect(&server.url()).await.unwrap()).unwrap();
    for number in 0..64 {
        create(&plain, &key(number), PAYLOAD).await;
        near.load(&key(number)).await.unwrap();
    }
    // What the question itself costs.
    let (first, second) = (reads(server), reads(server));
    let own = second - first;
    let begun = Instant::now();
    let before = reads(server);
    for number in 0..READS {
        plain.load(&key(number % 64)).await.unwrap().unwrap();
    }
    let of_plain = reads(server) - before - own;
    let before = reads(server);
    for number in 0..READS {
        near.load(&key(number % 64)).await.unwrap().unwrap();
    }
    let of_near = reads(server) - before - own;
    println!(
        "round trips of {READS} repeated reads, one after another, in {:?}: {of_plain} without, {of_near} \
         with a near cache",
        begun.elapsed()
    );
}

/// How long after the acknowledged end of a session in one process another one began a read that still showed
/// it; zero if it began none.
async fn after_a_logout<S: Watch>(name: &str, here: NearCache<S>, there: NearCache<S>) {
    const ROUNDS: u64 = 2_000;
    let (mut late, mut reads) = (Vec::new(), 0);
    for round in 0..ROUNDS {
        let session = key(1_000_000 + round);
        create(&here, &session, PAYLOAD).await;
        // Until it is in the cache.
        loop {
            let before = there.stats().hits;
            there.load(&session).await.unwrap().unwrap();
            if there.stats().hits > before {
                break;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let origin = Instant::now();
        let nanos = move || origin.elapsed().as_nanos() as u64;
        let last = Arc::new(AtomicU64::new(0));
        let reading = tokio::spawn({
            let (there, last) = (there.clone(), last.clone());
            async move {
                let mut reads = 0_u64;
                loop {
                    let begun = nanos();
                    if there.load(&session).await.unwrap().is_none() {
                        return reads;
                    }
                    last.fetch_max(begun, SeqCst);
                    reads += 1;
                    tokio::task::yield_now().await;
                }
            }
        });
        tokio::time::sleep(Duration::from_millis(2)).await;
        assert!(here.delete(&session).await.unwrap());
        let ended = nanos();
        reads += reading.await.unwrap();
        late.push(Duration::from_nanos(last.load(SeqCst).saturating_sub(ended)));
    }
    let none = late.iter().filter(|late| late.is_zero()).count();
    println!(
        "{name}: last read after an acknowledged logout, middle / slowest hundredth / slowest: {}; none in \
         {none} of {ROUNDS} rounds, {reads} reads",
        percentiles(late)
    );
}

/// Leads to a port, and takes a quarter of a millisecond for each way.
fn slow_path(upstream: u16) -> u16 {
    fn carry(mut from: TcpStream, mut to: TcpStream) {
        let mut bytes = vec![0; 1 << 18];
        while let Ok(length @ 1..) = from.read(&mut bytes) {
            let due = Instant::now() + Duration::from_micros(250);
            // Shorter than a timer can do.
            while Instant::now() < due {
                thread::yield_now();
            }
            if to.write_all(&bytes[..length]).is_err() {
                return;
            }
        }
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let server = TcpStream::connect(("127.0.0.1", upstream)).unwrap();
            let _ = (client.set_nodelay(true), server.set_nodelay(true));
            let (back, there) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            thread::spawn(move || carry(client, there));
            thread::spawn(move || carry(server, back));
        }
    });
    port
}

async fn with_a_path(server: &StoreServer) {
    const READS: usize = 3_000;
    let url = format!("redis://127.0.0.1:{}", slow_path(server.port()));
    let plain = RedisStore::connect(&url).await.unwrap();
    let near = NearCache::new(RedisStore::connect(&url).await.unwrap()).unwrap();
    let pool = Pool::new(Config::from_url(&url).unwrap(), None, None, None, 6).unwrap();
    let connection = pool.connect();
    pool.wait_for_connect().await.unwrap();
    let theirs = tower_sessions_redis_store::RedisStore::new(pool);
    let session = key(2_000_000);
    create(&plain, &session, PAYLOAD).await;
    let mut their_record = tower_sessions::session::Record {
        id: Default::default(),
        data: Default::default(),
        expiry_date: tower_sessions::cookie::time::OffsetDateTime::now_utc()
            + Duration::from_secs(3600),
    };
    their_record.data.insert("text".into(), "x".repeat(PAYLOAD).into());
    theirs.create(&mut their_record).await.unwrap();
    let mut took = [const { Vec::new() }; 3];
    for _ in 0..READS {
        let begun = Instant::now();
        plain.load(&session).await.unwrap().unwrap();
        took[0].push(begun.elapsed());
        let begun = Instant::now();
        near.load(&session).await.unwrap().unwrap();
        took[1].push(begun.elapsed());
        let begun = Instant::now();
        theirs.load(&their_record.id).await.unwrap().unwrap();
        took[2].push(begun.elapsed());
    }
    connection.abort();
    let [plain, near, theirs] = took.map(percentiles);
    println!("a load where the path takes 0.5 ms, middle / slowest hundredth / slowest:");
    println!("  sessions {plain}\n  with a near cache {near}\n  tower-sessions {theirs}");
}

/// What the system says that this process has in memory.
fn memory() -> i64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").trim().parse::<i64>().unwrap() * 1024
}

async fn memory_of_a_session(server: &StoreServer, payload: usize, sessions: u64, first: u64) {
    let plain = RedisStore::connect(&server.url()).await.unwrap();
    for number in first..first + sessions {
        create(&plain, &key(number), payload).await;
    }
    let near = NearCache::builder().with_memory_limit(1 << 30).with_capacity(1 << 24);
    let near = near.build(RedisStore::connect(&server.url()).await.unwrap()).unwrap();
    // What the connection and its buffers take is not a session's.
    for number in first..first + 1_000 {
        near.load(&key(number)).await.unwrap().unwrap();
    }
    let (before, taken) = (memory(), near.stats());
    for number in first + 1_000..first + sessions {
        near.load(&key(number)).await.unwrap().unwrap();
    }
    let (after, stats) = (memory(), near.stats());
    let more = (stats.sessions - taken.sessions) as i64;
    println!(
        "memory of a cached session of {payload} bytes: {} bytes by the system, {} by its own reckoning \
         ({more} sessions)",
        (after - before) / more,
        (stats.bytes - taken.bytes) as i64 / more,
    );
}

#[tokio::main]
async fn main() {
    if let Some(server) =
        StoreServer::start_with(Kind::Redis, &["--appendonly", "no", "--save", ""])
    {
        // First, while the memory is fresh.
        memory_of_a_session(&server, PAYLOAD, 21_000, 10_000_000).await;
        memory_of_a_session(&server, 200, 101_000, 20_000_000).await;
        round_trips(&server).await;
        let near =
            async || NearCache::new(RedisStore::connect(&server.url()).await.unwrap()).unwrap();
        after_a_logout("Redis", near().await, near().await).await;
        with_a_path(&server).await;
    }
    if let Some(server) = StoreServer::start(Kind::Postgres) {
        let near = async || {
            let store = PostgresStore::builder().with_notifications();
            let store = store.connect(&server.url()).await.unwrap();
            store.migrate().await.unwrap();
            NearCache::new(store).unwrap()
        };
        after_a_logout("PostgreSQL", near().await, near().await).await;
    }
}
