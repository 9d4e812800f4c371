//! Random inputs against what must hold for all of them.
//!
//! 10,000 cases each by default, and `SESSIONS_CASES=1000000` for more. A failure prints the seed of
//! its case; `SESSIONS_SEED` starts with that case.

mod cookies;
mod csrf;
mod devices;
mod model;
mod payloads;
mod tasks;
mod users;
mod visits;

use std::{future::poll_fn, pin::pin, task::Poll};

use sessions_tests::cases::{for_each_seed, variable};

/// Numbers that look random, the same for the same seed (SplitMix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`.
    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    fn pick<'a, V>(&mut self, values: &'a [V]) -> &'a V {
        &values[self.below(values.len())]
    }

    fn bytes(&mut self, most: usize) -> Vec<u8> {
        (0..self.below(most + 1)).map(|_| self.next() as u8).collect()
    }

    /// Flips, cuts, repeats, inserts or overwrites something.
    fn spoil(&mut self, bytes: &mut Vec<u8>) {
        let at = self.below(bytes.len() + 1);
        match self.below(6) {
            0 if at < bytes.len() => bytes[at] ^= 1 << self.below(8),
            1 => bytes.truncate(at),
            2 => drop(bytes.drain(..at)),
            3 => bytes.insert(at, self.next() as u8),
            4 => bytes.extend_from_within(at..),
            _ => {
                let lengths = [0, 1, 0x7f, 0x80, 0xfb, 0xfc, 0xfd, 0xff];
                let byte = *self.pick(&lengths);
                bytes.iter_mut().skip(at).take(self.below(10)).for_each(|b| *b = byte);
            }
        }
    }
}

/// Polls a future at most so many times; after that it is dropped, as where a client hangs up.
async fn polled<F: Future>(future: F, most: usize) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut polls = 0;
    poll_fn(move |cx| {
        polls += 1;
        match future.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending if polls >= most => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// Runs `case` with one seed after the other, in one small runtime. A case that is `size` times as
/// long as others is run so many times less.
fn for_all(what: &str, size: u64, case: impl AsyncFn(&mut Random)) {
    let cases = variable("SESSIONS_CASES").unwrap_or(10_000).div_ceil(size);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for_each_seed(what, cases, |seed| runtime.block_on(case(&mut Random(seed))));
    println!("{what}: {cases} cases");
}
