//! Numbers that no other process draws, and no secrets.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::{SystemTime, UNIX_EPOCH},
};

/// Counts from a random number on, and adds the time: two copies of a process, as a virtual machine's
/// snapshot makes them, count alike, and do not draw their numbers in the same nanosecond. Random numbers of
/// the operating system would do as well: two of them were 6.7 % of what a process does for a write to Redis.
pub(crate) struct UniqueNumbers(AtomicU64);

impl UniqueNumbers {
    pub(crate) fn new() -> Self {
        // Without random numbers there are no session ids either; the time will do for this.
        Self(AtomicU64::new(getrandom::u64().unwrap_or_else(|_| nanoseconds(SystemTime::now()))))
    }

    /// `now` as the caller has just seen it.
    pub(crate) fn draw_at(&self, now: SystemTime) -> u64 {
        self.at(nanoseconds(now))
    }

    /// The next number of the count alone: for what stays in this process.
    pub(crate) fn count(&self) -> u64 {
        self.0.fetch_add(1, Relaxed)
    }

    #[cfg(test)]
    pub(crate) fn count_from(&self, number: u64) {
        self.0.store(number, Relaxed);
    }

    /// All bits of a number depend on all bits of the count and of the time (the multipliers are those of
    /// SplitMix64), so that a part of the number will do.
    fn at(&self, time: u64) -> u64 {
        let mut number = self.count().wrapping_add(time.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        number ^ (number >> 31)
    }
}

fn nanoseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_secs().wrapping_mul(1_000_000_000).wrapping_add(since.subsec_nanos().into())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn neither_the_count_nor_the_time_alone_makes_the_number() {
        let copies = [(); 2].map(|()| UniqueNumbers(AtomicU64::new(7)));
        let [one, other] = copies.each_ref().map(|numbers| numbers.at(1_000_000_000));
        assert_eq!(one, other, "the same count at the same time");
        let drawn: HashSet<_> =
            (0..10_000).flat_map(|time| copies.each_ref().map(|it| it.at(time * 2))).collect();
        assert_eq!(drawn.len(), 10_000, "copies that count alike, at the same times");
        let [one, other] = copies;
        let mut drawn: HashSet<_> = (0..10_000).map(|_| one.at(5) >> 32).collect();
        drawn.extend((0..10_000).map(|time| other.at(time) >> 32));
        // Of 20,000 random numbers of 32 bits two are the same in one of 20 tries.
        assert!(drawn.len() >= 19_998, "{}", drawn.len());
    }

    #[test]
    fn two_processes_do_not_count_alike() {
        assert_ne!(UniqueNumbers::new().count(), UniqueNumbers::new().count());
    }
}
