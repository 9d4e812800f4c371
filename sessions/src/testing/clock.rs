use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::{Duration, SystemTime},
};

use crate::clock::{Clock, from_millis};

/// A time of day that stands still until it is told to go on.
///
/// It starts at the first moment of 2026 (UTC). Clones are the same clock.
///
/// ```
/// use std::time::Duration;
///
/// use sessions::testing::ManualClock;
///
/// let clock = ManualClock::new();
/// let before = clock.now();
/// clock.advance(Duration::from_secs(60));
/// assert_eq!(clock.now(), before + Duration::from_secs(60));
/// ```
#[derive(Clone, Debug)]
pub struct ManualClock {
    millis: Arc<AtomicU64>,
}

impl ManualClock {
    /// A new clock.
    pub fn new() -> Self {
        Self { millis: Arc::new(AtomicU64::new(1_767_225_600_000)) }
    }

    /// What the clock shows.
    pub fn now(&self) -> SystemTime {
        from_millis(self.millis.load(SeqCst))
    }

    /// Moves the clock on by `duration`, in whole milliseconds.
    pub fn advance(&self, duration: Duration) {
        let millis = u64::try_from(duration.as_millis()).expect("fewer than 2^64 milliseconds");
        self.millis.fetch_add(millis, SeqCst);
    }

    /// For the parts of the crate that ask for the time.
    pub(crate) fn clock(&self) -> Clock {
        Clock::Manual(self.millis.clone())
    }
}

impl Default for ManualClock {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_clones_and_users_show_the_same_time() {
        let clock = ManualClock::new();
        let (clone, user) = (clock.clone(), clock.clock());
        assert_eq!(clock.now(), from_millis(1_767_225_600_000), "date -ud 2026-01-01 +%s");
        clone.advance(Duration::from_millis(1500));
        assert_eq!(clock.now(), from_millis(1_767_225_601_500));
        assert_eq!(user.now(), clock.now());
    }
}
