//! Where the crate gets the time of day from.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// The system's clock or, in tests, one that is set by hand (`testing::ManualClock`).
#[derive(Clone, Debug, Default)]
pub(crate) enum Clock {
    #[default]
    System,
    #[cfg_attr(not(feature = "testing"), expect(dead_code, reason = "made by `testing` alone"))]
    Manual(Arc<AtomicU64>),
}

impl Clock {
    pub(crate) fn now(&self) -> SystemTime {
        match self {
            Self::System => SystemTime::now(),
            Self::Manual(millis) => from_millis(millis.load(Ordering::SeqCst)),
        }
    }

    /// What the clock shows, given what the system's clock showed a moment ago.
    pub(crate) fn now_after(&self, seen: Option<SystemTime>) -> SystemTime {
        match (self, seen) {
            (Self::System, Some(seen)) => seen,
            _ => self.now(),
        }
    }

    /// `time`, if the system's clock has shown it: then another part of the crate need not look again.
    pub(crate) fn of_system(&self, time: SystemTime) -> Option<SystemTime> {
        matches!(self, Self::System).then_some(time)
    }
}

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
#[cfg(feature = "testing")]
#[derive(Clone, Debug)]
pub struct ManualClock {
    millis: Arc<AtomicU64>,
}

#[cfg(feature = "testing")]
impl ManualClock {
    /// A new clock.
    pub fn new() -> Self {
        Self { millis: Arc::new(AtomicU64::new(1_767_225_600_000)) }
    }

    /// What the clock shows.
    pub fn now(&self) -> SystemTime {
        from_millis(self.millis.load(Ordering::SeqCst))
    }

    /// Moves the clock on by `duration`, in whole milliseconds.
    pub fn advance(&self, duration: Duration) {
        let millis = u64::try_from(duration.as_millis()).expect("fewer than 2^64 milliseconds");
        self.millis.fetch_add(millis, Ordering::SeqCst);
    }

    /// For the parts of the crate that ask for the time.
    pub(crate) fn clock(&self) -> Clock {
        Clock::Manual(self.millis.clone())
    }
}

#[cfg(feature = "testing")]
impl Default for ManualClock {
    fn default() -> Self {
        Self::new()
    }
}

/// Milliseconds since 1970; times before that count as 1970.
pub(crate) fn to_millis(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// The time that [`to_millis`] made into `millis`; times out of the clock's range count as 1970.
pub(crate) fn from_millis(millis: u64) -> SystemTime {
    UNIX_EPOCH.checked_add(Duration::from_millis(millis)).unwrap_or(UNIX_EPOCH)
}

#[cfg(all(test, feature = "testing"))]
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

    #[test]
    fn what_the_system_has_shown_counts_for_its_own_clock_alone() {
        let (seen, manual) = (from_millis(7), ManualClock::new());
        assert_eq!(Clock::System.now_after(Some(seen)), seen);
        assert!(Clock::System.now_after(None) > seen);
        assert_eq!(manual.clock().now_after(Some(seen)), manual.now());
        assert_eq!(Clock::System.of_system(seen), Some(seen));
        assert_eq!(manual.clock().of_system(seen), None);
    }
}
