//! `MemoryStore` at size: `cargo run --release -p sessions-benches --bin sweep`.
//!
//! A million sessions (or as many as the argument says), half of which expire at once, while another
//! thread reads the others: how long a read takes with and without the sweep, what the sweep costs,
//! and what memory it gives back. Then a flood of new sessions into a store with a capacity.
//!
//! The reads are timed one by one. On a busy machine the longest of them are those that the system
//! interrupted for another program; Linux says for how long a thread had to wait for a processor,
//! and one column is without that.

use std::{
    fs,
    sync::atomic::{AtomicBool, Ordering::SeqCst},
    thread,
    time::{Duration, Instant, SystemTime},
};

use allocation_counter::measure;
use sessions::{Created, MemoryStore, Record, Store, StoreKey, testing::ManualClock};
use sessions_benches::{client::Random, table};
use tokio::{
    runtime::{Builder, Runtime},
    task::yield_now,
    time::sleep,
};

/// About what five small fields take.
const PAYLOAD: [u8; 90] = [1; 90];
const SWEEP_INTERVAL: Duration = Duration::from_millis(100);
const READS_FOR: Duration = Duration::from_secs(3);
/// Room for a million sessions, and little more: how much there may be decides how many shards there are.
const MEMORY_LIMIT: usize = 256 << 20;
const CAPACITY: usize = 100_000;
const FLOOD: usize = 1_000_000;

const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// Keys like those of real sessions: no order, every bit random.
fn key(number: usize) -> StoreKey {
    let mut random = Random(number as u64);
    let words: [[u8; 8]; 4] = std::array::from_fn(|_| random.number().to_ne_bytes());
    let mut bytes = [0; 32];
    bytes.copy_from_slice(words.as_flattened());
    StoreKey::from_bytes(bytes)
}

async fn create(store: &MemoryStore, number: usize, now: SystemTime, lives: Duration) {
    let (expires_at, payload) = (now + lives, PAYLOAD);
    let record = Record::new(1, now, expires_at, payload);
    assert_eq!(store.create(&key(number), &record).await.ok(), Some(Created::Done));
}

/// Times of this thread: on a processor, and waiting for one. Zero where the system is no Linux.
fn processor_times() -> [Duration; 2] {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let mut nanos = text.split(' ').map(|number| number.parse().unwrap_or(0));
    [(); 2].map(|()| Duration::from_nanos(nanos.next().unwrap_or(0)))
}

/// What the system has given this process, in bytes.
fn resident() -> usize {
    let text = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok())
        .map_or(0, |kb: usize| kb << 10)
}

/// How long reads took, or what else happens many times.
struct Reads {
    times: Vec<Duration>,
    /// The longest, without the time that its thread waited for a processor.
    longest_itself: Duration,
    /// How long the thread has waited so far.
    waited: Duration,
}

impl Reads {
    fn new(most: usize) -> Self {
        let [_, waited] = processor_times();
        Self { times: Vec::with_capacity(most), longest_itself: Duration::ZERO, waited }
    }

    fn note(&mut self, time: Duration) {
        const WORTH_A_LOOK: Duration = Duration::from_micros(20);
        self.times.push(time);
        if time > WORTH_A_LOOK {
            let [_, waited] = processor_times();
            let itself = time.saturating_sub(waited - self.waited);
            self.waited = waited;
            self.longest_itself = self.longest_itself.max(itself);
        }
    }

    fn print(mut self, when: &str) {
        self.times.sort_unstable();
        let of = |share: f64| table::time(self.times[(self.times.len() as f64 * share) as usize]);
        let longest = *self.times.last().expect("there were some");
        table::row([
            when.to_string(),
            table::count(self.times.len()),
            of(0.5),
            of(0.99),
            of(0.999),
            table::time(longest),
            table::time(self.longest_itself),
        ]);
    }
}

/// Reads live sessions, the odd ones, until it is told to stop.
async fn read(store: &MemoryStore, sessions: usize, stop: &AtomicBool) -> Reads {
    let mut random = Random(1);
    let mut reads = Reads::new(30_000_000);
    while !stop.load(SeqCst) && reads.times.len() < reads.times.capacity() {
        let key = key(random.number() as usize % (sessions / 2) * 2 + 1);
        let start = Instant::now();
        let record = store.load(&key).await;
        let time = start.elapsed();
        assert!(record.is_ok_and(|record| record.is_some()));
        reads.note(time);
    }
    reads
}

/// Runs `work` on this thread while another one reads.
fn while_reading(store: &MemoryStore, sessions: usize, work: impl FnOnce()) -> Reads {
    let stop = AtomicBool::new(false);
    let stop = &stop;
    thread::scope(|scope| {
        let reader = scope.spawn(move || runtime().block_on(read(store, sessions, stop)));
        // It is past its first reads, and has its memory.
        thread::sleep(Duration::from_millis(100));
        work();
        stop.store(true, SeqCst);
        reader.join().expect("no panic")
    })
}

/// Memory in use: as asked of the allocator, and of the system.
struct Memory {
    live: i64,
    resident: usize,
}

fn megabytes(bytes: usize) -> String {
    format!("{:.0} MB", bytes as f64 / 1e6)
}

fn sweep(sessions: usize) {
    let clock = ManualClock::new();
    let store = MemoryStore::builder().with_clock(&clock).with_sweep_interval(SWEEP_INTERVAL);
    let store = store.with_memory_limit(MEMORY_LIMIT).build();
    let empty = resident();
    // The sweep runs where the first call was made: all of it happens on this thread.
    let runtime = runtime();
    let filled = measure(|| {
        runtime.block_on(async {
            for number in 0..sessions {
                let lives = if number % 2 == 0 { MINUTE } else { DAY };
                create(&store, number, clock.now(), lives).await;
            }
        });
    });
    let before = Memory { live: filled.bytes_current, resident: resident() - empty };

    println!(
        "\n{} sessions, of which half expire. A read of one of the others:",
        table::count(sessions)
    );
    table::head(&[
        "",
        "reads",
        "p50",
        "p99",
        "p99.9",
        "longest",
        "longest, without waiting for a processor",
    ]);
    while_reading(&store, sessions, || runtime.block_on(async { sleep(READS_FOR).await }))
        .print("nothing to sweep");

    let mut times = [[Duration::ZERO; 2]; 2];
    let mut freed = 0;
    let start = Instant::now();
    let reads = while_reading(&store, sessions, || {
        times[0] = processor_times();
        clock.advance(2 * MINUTE);
        let swept = measure(|| {
            runtime.block_on(async {
                while store.len() > sessions / 2 {
                    sleep(Duration::from_millis(1)).await;
                }
                // What the next pass gives back.
                sleep(3 * SWEEP_INTERVAL).await;
            });
        });
        freed = -swept.bytes_current;
        times[1] = processor_times();
    });
    let took = start.elapsed();
    reads.print("while half are swept");
    let swept = store.stats().swept;
    let after = Memory { live: before.live - freed, resident: resident().saturating_sub(empty) };

    steps(&store, &clock, &runtime).print("steps of the sweep, alone");
    let cost = (times[1][0] - times[0][0]).div_f64(swept as f64);
    println!(
        "\nSwept {}: {} of processor time each, all within {}.",
        table::count(swept as usize),
        table::time(cost),
        table::time(took)
    );
    println!(
        "Memory in use: {} before, {} after; of the system's: {} before, {} after.",
        megabytes(before.live as usize),
        megabytes(after.live as usize),
        megabytes(before.resident),
        megabytes(after.resident),
    );
}

/// How long the sweep keeps its thread at a time, while it removes the rest of the sessions: the
/// longest that it can make others wait, but for what the system does to a thread that has a lock.
fn steps(store: &MemoryStore, clock: &ManualClock, runtime: &Runtime) -> Reads {
    runtime.block_on(async {
        let mut steps = Reads::new(1_000_000);
        clock.advance(2 * DAY);
        while !store.is_empty() {
            let start = Instant::now();
            yield_now().await;
            steps.note(start.elapsed());
        }
        steps
    })
}

/// New sessions from two threads into a full store.
fn flood() {
    let store = MemoryStore::builder().with_capacity(CAPACITY).build();
    let now = SystemTime::now();
    let most = AtomicBool::new(false);
    let over = &most;
    let start = Instant::now();
    thread::scope(|scope| {
        for thread in 0..2 {
            let store = &store;
            scope.spawn(move || {
                runtime().block_on(async {
                    for number in 0..FLOOD / 2 {
                        create(store, number * 2 + thread, now, DAY).await;
                        if store.len() > CAPACITY {
                            over.store(true, SeqCst);
                        }
                    }
                });
            });
        }
    });
    let time = start.elapsed().div_f64(FLOOD as f64);
    println!(
        "\n{} new sessions from two threads, capacity {}: {} stored in the end, {} evicted, {} each, \
         {}.",
        table::count(FLOOD),
        table::count(CAPACITY),
        table::count(store.len()),
        table::count(store.stats().evicted as usize),
        table::time(time),
        if over.load(SeqCst) { "for a moment more than the capacity" } else { "never more" },
    );
}

fn main() {
    let sessions = std::env::args().nth(1).map_or(1_000_000, |argument| {
        argument.replace([',', '_'], "").parse().expect("a number of sessions")
    });
    sweep(sessions / 10);
    sweep(sessions);
    flood();
}
