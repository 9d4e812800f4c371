//! Random histories under every fault, and the promises that they have to keep.
//!
//! 300 seeds by default, and `SESSIONS_CASES=10000` for more. A failure prints the seed of its
//! history; `SESSIONS_SEED` starts with that one. Time is tokio's, paused: a store that hangs for
//! five seconds takes none.

use std::time::Duration;

use sessions::{
    Keys, MemoryStore, SessionLayer, SessionLayerBuilder,
    testing::{Fault, FaultyStore},
};
use sessions_tests::{
    cases::{for_each_seed, in_paused_time, variable},
    history::{
        Asked, Event, HistorySession, Outcome, Plan, Process, Shown, check, judge, routes, run,
    },
};

/// Runs one history a seed, of three layers on one store.
fn histories(
    what: &str,
    plan: impl Fn(u64) -> Plan,
    faults: impl Fn(FaultyStore<MemoryStore>) -> FaultyStore<MemoryStore>,
) {
    let cases = variable("SESSIONS_CASES").unwrap_or(300);
    let mut requests = 0;
    for_each_seed(what, cases, |seed| requests += one(plan(seed), &faults));
    println!("{what}: {cases} histories, {requests} requests");
}

fn layer(store: FaultyStore<MemoryStore>, keys: &Keys) -> SessionLayerBuilder<HistorySession> {
    SessionLayer::builder(store, keys.clone()).with_lease_time(Duration::from_millis(400))
}

fn one(
    plan: Plan,
    faults: &impl Fn(FaultyStore<MemoryStore>) -> FaultyStore<MemoryStore>,
) -> usize {
    in_paused_time(async {
        let memory = MemoryStore::builder().with_sweep_interval(Duration::from_secs(100_000));
        let store = faults(FaultyStore::new(memory.build(), plan.seed));
        let keys = Keys::generate();
        let layers: Vec<_> = (0..3)
            .map(|_| layer(store.clone(), &keys).build().expect("possible settings"))
            .collect();
        let processes: Vec<_> =
            layers.iter().map(|layer| Process::Here(routes().layer(layer.clone()))).collect();
        let histories = run(&plan, &processes, async || {
            store.heal();
            // What is late may take so long.
            tokio::time::sleep(Duration::from_secs(60)).await;
            for layer in &layers {
                layer.wait_for_background_saves().await;
            }
        })
        .await;
        for layer in &layers {
            layer.wait_for_background_saves().await;
            assert_eq!(layer.sessions_in_use(), 0, "a slot is left");
        }
        store.store().stop_sweep().await;
        let tasks = tokio::runtime::Handle::current().metrics().num_alive_tasks();
        assert_eq!(tasks, 0, "a task is left");
        judge("three layers", &histories, Duration::ZERO);
        histories.iter().map(Vec::len).sum()
    })
}

fn usual(seed: u64) -> Plan {
    Plan { seed, sessions: 2, clients: 4, requests: 25, hang_ups: 0, ends: 0 }
}

fn slow(store: FaultyStore<MemoryStore>) -> FaultyStore<MemoryStore> {
    store.with_fault(Fault::Slow, 700)
}

#[test]
fn requests_that_overlap_lose_nothing() {
    histories("overlapping", usual, slow);
}

#[test]
fn hang_ups_lose_nothing() {
    histories("hang-ups", |seed| Plan { hang_ups: 300, ..usual(seed) }, slow);
}

#[test]
fn what_has_ended_stays_ended() {
    histories("ends", |seed| Plan { ends: 60, hang_ups: 50, ..usual(seed) }, slow);
}

#[test]
fn a_store_that_fails_loses_nothing_that_it_has_acknowledged() {
    let faults = |store: FaultyStore<MemoryStore>| {
        store
            .with_fault(Fault::Slow, 500)
            .with_fault(Fault::Refused, 50)
            .with_fault(Fault::AnswerLost, 50)
            .with_fault(Fault::Hangs, 10)
            .with_fault(Fault::AnswerHangs, 10)
            .with_fault(Fault::Late, 50)
    };
    histories("failing store", usual, faults);
}

#[test]
fn all_of_it_at_once() {
    let faults = |store: FaultyStore<MemoryStore>| {
        store
            .with_fault(Fault::Slow, 400)
            .with_fault(Fault::Refused, 20)
            .with_fault(Fault::AnswerLost, 40)
            .with_fault(Fault::AnswerHangs, 5)
            .with_fault(Fault::Late, 40)
            .with_delays_up_to(Duration::from_millis(40))
    };
    histories("all at once", |seed| Plan { ends: 30, hang_ups: 100, ..usual(seed) }, faults);
}

/// The judge has to see what is wrong: a history that is right, and the same with one answer that
/// breaks a promise.
#[test]
fn the_judge_notices_each_broken_promise() {
    let add = Asked::Increment("add");
    let event = |sent, asked, outcome| Event {
        sent,
        answered: sent + 1,
        sent_at: Duration::from_secs(sent),
        answered_at: Duration::from_secs(sent + 1),
        process: 0,
        cookie: 0,
        asked,
        outcome,
    };
    let shown = |counter, a, list: &[u64]| {
        let list = list.to_vec();
        let counters = [counter, 0, 0, 0];
        Outcome::Shown(Some(Shown { owner: 7, counters, fields: [a, 0], list }))
    };
    let history = |last: Outcome| {
        check(
            &[
                event(1, add.clone(), Outcome::Done),
                event(3, Asked::Set("a", 7_000_001), Outcome::Done),
                event(5, Asked::Set("a", 7_000_002), Outcome::Done),
                event(7, Asked::Append(7_000_003), Outcome::Done),
                event(9, Asked::Show, last),
            ],
            Duration::ZERO,
        )
    };
    let list = &[7_000_003];
    assert_eq!(history(shown(1, 7_000_002, list)), Ok(()));
    for (wrong, why) in [
        (shown(0, 7_000_002, list), "add is 0"),
        (shown(2, 7_000_002, list), "add is 2"),
        (shown(1, 7_000_001, list), "is lost"),
        (shown(1, 8_000_002, list), "another session's"),
        (shown(1, 7_000_002, &[]), "is not there"),
        (shown(1, 7_000_002, &[7_000_003, 7_000_003]), "2 times"),
    ] {
        let judged = history(wrong).unwrap_err();
        assert!(judged.contains(why), "{why}: {judged}");
    }
    let back = check(
        &[event(1, Asked::Destroy, Outcome::Done), event(3, Asked::Show, shown(0, 0, &[]))],
        Duration::ZERO,
    );
    assert!(back.unwrap_err().contains("is back"));
}
