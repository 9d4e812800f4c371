//! Random histories of three processes with near caches on a real Redis, with all that can go wrong on the
//! way: no acknowledged write is lost, and nothing older than the staleness is shown. `SESSIONS_CASES` and
//! `SESSIONS_SEED` as in `history`.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    time::Duration,
};

use sessions::{Keys, RedisStore, SessionLayer, store::NearCache};
use sessions_tests::{
    cases::variable,
    history::{HistorySession, Plan, Process, Random, judge, routes, run},
    servers::{Kind, StoreServer},
};
use tokio::time::sleep;

use crate::{
    cut::Proxy,
    near::{admin, command},
};

const STALENESS: Duration = Duration::from_millis(300);

/// What goes on while the clients are at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    None,
    /// A path stands still for a while, and its connections end.
    Freeze,
    Cut,
    /// The server ends the connections.
    Kicked,
    /// The server is killed, and starts again with what it has on its disk.
    Kill,
    /// The server remembers one reader.
    FullTable,
    /// One of the processes may not be told.
    NoRight,
}

async fn history(trouble: Trouble, seed: u64) {
    // Long: a history from its servers to its judge.
    let Some(mut server) = StoreServer::start(Kind::Redis) else { return };
    let mut tells = admin(&server).await;
    if trouble == Trouble::FullTable {
        let words = ["CONFIG", "SET", "tracking-table-max-keys", "1"];
        let _: String = command(&mut tells, &words).await;
    }
    let words = ["ACL", "SETUSER", "untold", "on", ">secret", "~*", "+@all", "-client|tracking"];
    let _: String = command(&mut tells, &words).await;
    let (mut proxies, mut layers, mut caches) = (Vec::new(), Vec::new(), Vec::new());
    let keys = Keys::generate();
    for number in 0..3 {
        let proxy = Proxy::start(server.port()).await;
        let is_untold = trouble == Trouble::NoRight && number == 0;
        let user = if is_untold { "untold:secret@" } else { "" };
        let url = format!("redis://{user}127.0.0.1:{}", proxy.port());
        let store = RedisStore::builder().with_timeout(Duration::from_secs(1));
        let store = store.connect(&url).await.unwrap();
        let near = NearCache::builder().with_staleness(STALENESS).build(store).unwrap();
        let builder = SessionLayer::<HistorySession>::builder(near.clone(), keys.clone());
        let builder = builder.with_lease_time(Duration::from_millis(600)).in_another_process();
        layers.push(builder.build().unwrap());
        proxies.push(proxy);
        caches.push(near);
    }
    let (is_over, times) = (AtomicBool::new(false), AtomicU64::new(0));
    let make_trouble = async {
        let mut random = Random(seed);
        while !is_over.load(SeqCst) {
            sleep(Duration::from_millis(30 + random.below(200))).await;
            let proxy = &proxies[random.below(3) as usize];
            match trouble {
                Trouble::None | Trouble::FullTable | Trouble::NoRight => {}
                Trouble::Freeze => {
                    proxy.freeze();
                    sleep(Duration::from_millis(random.below(700))).await;
                    proxy.cut().await;
                }
                Trouble::Cut => proxy.cut().await,
                Trouble::Kicked => {
                    let words = ["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"];
                    let _: i64 = command(&mut tells, &words).await;
                }
                Trouble::Kill => tokio::task::block_in_place(|| {
                    server.kill();
                    server.restart();
                }),
            }
            times.fetch_add(1, SeqCst);
        }
    };
    let processes: Vec<_> =
        layers.iter().map(|layer| Process::Here(routes().layer(layer.clone()))).collect();
    let plan = Plan { seed, sessions: 4, clients: 4, requests: 150, hang_ups: 20, ends: 20 };
    let play = run(&plan, &processes, async || {
        is_over.store(true, SeqCst);
        // A lease that nobody gave up is waited for.
        sleep(Duration::from_secs(3)).await;
        for layer in &layers {
            layer.wait_for_background_saves().await;
        }
    });
    let (histories, ()) = tokio::join!(play, make_trouble);
    judge(&format!("{trouble:?}, seed {seed}"), &histories, STALENESS);
    let hits: u64 = caches.iter().map(|cache| cache.stats().hits).sum();
    let requests: usize = histories.iter().map(Vec::len).sum();
    let times = times.load(SeqCst);
    println!("{trouble:?}, seed {seed}: {requests} requests, {hits} hits, trouble {times} times");
    assert!(hits > 0 || trouble == Trouble::FullTable, "the caches have been in use");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn histories_on_a_redis_with_all_that_goes_wrong() {
    use Trouble::*;
    let first = variable("SESSIONS_SEED").unwrap_or(1);
    let cases = variable("SESSIONS_CASES").unwrap_or(1);
    for trouble in [None, Freeze, Cut, Kicked, Kill, FullTable, NoRight] {
        for seed in first..first + cases {
            history(trouble, seed).await;
        }
    }
}
