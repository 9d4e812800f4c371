//! Random cases: how many, from which seed on, and how one that fails is played again.

use std::{
    env,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
};

/// The number in this environment variable, if the variable is set.
pub fn variable(name: &str) -> Option<u64> {
    env::var(name).ok().map(|value| value.parse().expect("a number"))
}

/// Runs `case` with so many seeds, one after the other, beginning with `SESSIONS_SEED` or else with 1. Before it fails
/// it prints how the case that failed is played again.
pub fn for_each_seed(what: &str, cases: u64, mut case: impl FnMut(u64)) {
    let first = variable("SESSIONS_SEED").unwrap_or(1);
    for seed in first..first + cases {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| case(seed))) {
            eprintln!("{what}: SESSIONS_SEED={seed} SESSIONS_CASES=1 replays this case");
            resume_unwind(panic);
        }
    }
}

/// Blocks on `work`, with a clock of tokio's that stands still while something is to be done, and else goes on to the
/// next timer at once.
pub fn in_paused_time<R>(work: impl Future<Output = R>) -> R {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().start_paused(true).build().expect("a runtime");
    runtime.block_on(work)
}
