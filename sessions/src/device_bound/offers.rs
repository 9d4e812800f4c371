//! Which sessions have been offered a binding lately.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::{Duration, SystemTime},
};

use crate::{clock::to_millis, identity::id::StoreKey};

/// So many sessions are remembered, in 32 KiB. Of two that fall into one place the later is remembered,
/// and the other one is offered a binding sooner than it would be.
const PLACES: usize = 4096;

/// A process's memory of its offers. Lost or confused entries cost a header, and nothing else.
pub(super) struct Offers {
    /// Four bytes of the session's key, and four of the second of its last offer.
    places: Box<[AtomicU64]>,
}

impl Offers {
    pub(super) fn new() -> Self {
        Self { places: (0..PLACES).map(|_| AtomicU64::new(0)).collect() }
    }

    /// Whether the session is to be offered a binding `now`; from here on it has been.
    pub(super) fn take_turn(&self, key: &StoreKey, now: SystemTime, interval: Duration) -> bool {
        let [a, b, c, d, e, f, ..] = *key.as_bytes();
        let place = &self.places[usize::from(u16::from_le_bytes([a, b])) % PLACES];
        let tag = u64::from(u32::from_le_bytes([c, d, e, f]));
        let second = (to_millis(now) / 1000) as u32;
        let last = place.load(Relaxed);
        let is_known = last >> 32 == tag && last != 0;
        let since = u64::from(second.wrapping_sub(last as u32));
        if is_known && since < interval.as_secs() {
            return false;
        }
        let next = tag << 32 | u64::from(second);
        // Of two requests at the same time one makes the offer.
        place.compare_exchange(last, next, Relaxed, Relaxed).is_ok()
    }

    /// The registration has failed for a reason that may pass, or for another session's sake: the next
    /// page is to make the offer again.
    pub(super) fn forget(&self, key: &StoreKey) {
        let [a, b, ..] = *key.as_bytes();
        self.places[usize::from(u16::from_le_bytes([a, b])) % PLACES].store(0, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::from_millis;

    #[test]
    fn one_offer_an_interval_for_each_session() {
        const INTERVAL: Duration = Duration::from_secs(600);
        let offers = Offers::new();
        let now = from_millis(1_767_225_600_000);
        let [one, other] = [[1; 32], [2; 32]].map(StoreKey::from_bytes);
        let turn = |key: &StoreKey, at: SystemTime| offers.take_turn(key, at, INTERVAL);
        assert!(turn(&one, now) && turn(&other, now));
        for seconds in [0, 1, 599] {
            assert!(!turn(&one, now + Duration::from_secs(seconds)));
        }
        let later = now + INTERVAL;
        assert!(turn(&one, later) && !turn(&one, later));
        assert!(turn(&other, later));
        offers.forget(&one);
        assert!(turn(&one, later) && !turn(&other, later));
    }

    #[test]
    fn of_many_requests_at_once_one_makes_the_offer() {
        let offers = Offers::new();
        let key = StoreKey::from_bytes([1; 32]);
        let now = from_millis(1_767_225_600_000);
        let turns: usize = std::thread::scope(|scope| {
            let take = || scope.spawn(|| offers.take_turn(&key, now, Duration::from_secs(600)));
            let threads: Vec<_> = (0..8).map(|_| take()).collect();
            threads.into_iter().map(|thread| usize::from(thread.join().unwrap())).sum()
        });
        assert_eq!(turns, 1);
    }
}
