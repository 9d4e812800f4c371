//! When a session ends by itself: pure functions of limits, record and time.

use std::{
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::{Duration, SystemTime},
};

use crate::{error::BuildError, record::Record};

/// Every limit is cut to ten years, so that no sum of times can overflow.
const LONGEST: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

/// What browsers cut a cookie's `Max-Age` to (RFC 6265bis, 5.5).
pub(crate) const LONGEST_COOKIE: Duration = Duration::from_secs(400 * 24 * 60 * 60);

/// A persistent cookie is not sent again sooner. A session that is used lasts at least
/// [`LONGEST_COOKIE`] less this from its last use on, as far as its cookie goes.
const SENT_AGAIN: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// What one session asks for instead of the layer's limits, as for "remember me". What is not set
/// follows the layer.
///
/// It is kept with the session, so that the next request does not fall back to the layer's limits.
///
/// ```
/// use std::time::Duration;
/// use sessions::Lifetime;
///
/// const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// let remember_me = Lifetime::new().with_idle_timeout(14 * DAY).with_absolute_timeout(90 *
/// DAY).with_persistent_cookie();
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use = "a lifetime does nothing until it is given to `Session::set_lifetime`"]
pub struct Lifetime {
    pub(crate) idle: Option<Duration>,
    pub(crate) absolute: Option<Duration>,
    pub(crate) persistent: Option<bool>,
}

impl Lifetime {
    /// Everything as the layer says.
    pub const fn new() -> Self {
        Self { idle: None, absolute: None, persistent: None }
    }

    /// The session ends when it has not been used for this long. To the millisecond; more than ten
    /// years count as ten.
    ///
    /// An absolute timeout ends it earlier: the layer's (24 hours by default), if the session has none
    /// of its own. For an idle timeout that is longer, set
    /// [`with_absolute_timeout`](Self::with_absolute_timeout) too; a warning in
    /// the log, once per process, says where that was forgotten.
    pub const fn with_idle_timeout(self, timeout: Duration) -> Self {
        Self { idle: Some(as_stored(timeout)), ..self }
    }

    /// The session ends this long after it was first saved, however much it is used. To the
    /// millisecond; more than ten years count as ten.
    pub const fn with_absolute_timeout(self, timeout: Duration) -> Self {
        Self { absolute: Some(as_stored(timeout)), ..self }
    }

    /// The cookie outlives the browser's own session (`Max-Age`).
    pub const fn with_persistent_cookie(self) -> Self {
        Self { persistent: Some(true), ..self }
    }

    /// The cookie goes with the browser's own session, also if the layer's cookies
    /// [stay](crate::SessionLayerBuilder::with_persistent_cookie).
    pub const fn without_persistent_cookie(self) -> Self {
        Self { persistent: Some(false), ..self }
    }
}

/// What a timeout is when it comes back from the store: whole milliseconds, at most ten years.
pub(crate) const fn as_stored(timeout: Duration) -> Duration {
    match timeout.as_millis() {
        millis if millis < LONGEST.as_millis() => Duration::from_millis(millis as u64),
        _ => LONGEST,
    }
}

/// A layer's limits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expiry {
    pub(crate) idle: Option<Duration>,
    pub(crate) absolute: Option<Duration>,
    /// `None`: a twentieth of the idle timeout.
    pub(crate) refresh: Option<Duration>,
    pub(crate) persistent: bool,
}

impl Default for Expiry {
    /// OWASP's ranges for ordinary applications, at their long end.
    fn default() -> Self {
        const HOUR: Duration = Duration::from_secs(60 * 60);
        Self { idle: Some(2 * HOUR), absolute: Some(24 * HOUR), refresh: None, persistent: false }
    }
}

impl Expiry {
    /// `is_absolute_set`: the application has said something about the absolute timeout.
    pub(crate) fn check(&self, is_absolute_set: bool) -> Result<(), BuildError> {
        if let (Some(idle), Some(absolute)) = (self.idle, self.absolute)
            && idle >= absolute
            && !is_absolute_set
        {
            return Err(BuildError::new(format!(
                "the idle timeout is {idle:?}, and the absolute timeout still its default of \
                 {absolute:?}, at which a session ends however much it is used: beside \
                 `with_idle_timeout` set `with_absolute_timeout`, to a longer time or to `None`"
            )));
        }
        match (self.idle, self.absolute) {
            (None, None) => Err(BuildError::new(
                "a session needs an idle or an absolute timeout: without both it would never leave \
                 the store",
            )),
            (Some(Duration::ZERO), _) => Err(BuildError::new("the idle timeout is zero")),
            (_, Some(Duration::ZERO)) => Err(BuildError::new("the absolute timeout is zero")),
            (Some(idle), _) if self.refresh.is_some_and(|window| window >= idle) => {
                Err(BuildError::new(
                    "the refresh window is not shorter than the idle timeout: a session in use \
                     would expire",
                ))
            }
            _ => Ok(()),
        }
    }

    /// Says, once per process, that a session's own idle timeout is cut short by the layer's absolute
    /// one.
    pub(crate) fn check_lifetime(&self, lifetime: Lifetime) {
        static SAID: AtomicBool = AtomicBool::new(false);
        if let Some(absolute) = self.cuts_short(lifetime)
            && !SAID.swap(true, Relaxed)
        {
            tracing::warn!(
                idle = ?lifetime.idle.unwrap_or_default(),
                ?absolute,
                "a session's own idle timeout is longer than the layer's absolute timeout, at which \
                 it ends all the same: give its `Lifetime` an `absolute` timeout too"
            );
        }
    }

    /// The layer's absolute timeout, if it ends a session before it could be idle for as long as it
    /// asks for.
    fn cuts_short(&self, lifetime: Lifetime) -> Option<Duration> {
        let absolute = self.absolute.filter(|_| lifetime.absolute.is_none())?;
        lifetime.idle.is_some_and(|idle| idle > absolute).then_some(absolute)
    }

    /// How long a session lasts that is not used.
    pub(crate) fn idle(&self, lifetime: Lifetime) -> Option<Duration> {
        lifetime.idle.or(self.idle).map(|timeout| timeout.min(LONGEST))
    }

    /// When a session that was first saved at `created_at` ends, however much it is used.
    pub(crate) fn ends_at(&self, lifetime: Lifetime, created_at: SystemTime) -> Option<SystemTime> {
        let timeout = lifetime.absolute.or(self.absolute)?;
        created_at.checked_add(timeout.min(LONGEST))
    }

    /// When a session that is used `now` expires if it is not used again.
    pub(crate) fn expires_at(
        &self,
        lifetime: Lifetime,
        created_at: SystemTime,
        now: SystemTime,
    ) -> SystemTime {
        let idle = self.idle(lifetime).and_then(|timeout| now.checked_add(timeout));
        let absolute = self.ends_at(lifetime, created_at);
        // `check` has seen to it that there is one of the two.
        idle.into_iter().chain(absolute).min().unwrap_or(now)
    }

    /// The same for a session that is saved `now` in place of `before`, whose expiry it keeps where it
    /// would only be a little later: a store has its sessions sorted by expiry, and need not sort.
    pub(crate) fn expires_again_at(
        &self,
        lifetime: Lifetime,
        before: &Record,
        now: SystemTime,
    ) -> SystemTime {
        let expires_at = self.expires_at(lifetime, before.created_at, now);
        // Unless it is earlier: the limits may have been lowered since.
        match expires_at >= before.expires_at {
            true => self.refresh(lifetime, before, now).unwrap_or(before.expires_at),
            false => expires_at,
        }
    }

    /// Whether the layer refuses a record that the store still had: for a store whose clock or
    /// expiry is coarse, and for limits that have been lowered since the record was written.
    pub(crate) fn is_over(&self, record: &Record, lifetime: Lifetime, now: SystemTime) -> bool {
        record.is_expired(now)
            || self.ends_at(lifetime, record.created_at).is_some_and(|end| end <= now)
    }

    /// The new expiry of a session that is used `now`, if it is worth a write.
    pub(crate) fn refresh(
        &self,
        lifetime: Lifetime,
        record: &Record,
        now: SystemTime,
    ) -> Option<SystemTime> {
        let idle = self.idle(lifetime)?;
        // Mostly it was extended a moment ago; whatever the absolute limit says then. In whole seconds, and
        // without a difference of times, which takes longer than the rest.
        let part = |parts| Duration::from_secs(idle.as_secs() / parts);
        let quiet = self.refresh.map_or_else(|| part(20), |window| window.min(part(2)));
        if now.checked_add(idle - quiet).is_some_and(|least| record.expires_at > least) {
            return None;
        }
        let used = idle.saturating_sub(record.expires_at.duration_since(now).unwrap_or_default());
        // A session may ask for less than the layer; its window must still be shorter than that.
        let window = self.refresh.unwrap_or(idle / 20).min(idle / 2);
        if used < window {
            return None;
        }
        let expires_at = self.expires_at(lifetime, record.created_at, now);
        let gained = expires_at.duration_since(record.expires_at).ok()?;
        (gained >= window && !gained.is_zero()).then_some(expires_at)
    }

    /// Whether it is worth a write that a session is seen `now`. Its own limits do not matter: one that
    /// ends on a fixed day, whether it is used or not, is never extended, and is seen all the same.
    pub(crate) fn is_seen_anew(&self, last_seen: SystemTime, now: SystemTime) -> bool {
        let part = |timeout: Option<Duration>| timeout.map(|timeout| timeout / 20);
        let window = self.refresh.or(part(self.idle)).or(part(self.absolute)).unwrap_or_default();
        now.duration_since(last_seen).is_ok_and(|since| since >= window && !since.is_zero())
    }

    fn is_persistent(&self, lifetime: Lifetime) -> bool {
        lifetime.persistent.unwrap_or(self.persistent)
    }

    /// How long a cookie that is sent `now` may stay: `None` until the browser's session ends.
    ///
    /// What ends the session is the server, and the cookie only has to last as long as the session may:
    /// until its absolute timeout, or as long as browsers let it. Where that is less it is sent again:
    /// [`is_cookie_old`](Self::is_cookie_old).
    pub(crate) fn max_age(
        &self,
        lifetime: Lifetime,
        created_at: SystemTime,
        now: impl FnOnce() -> SystemTime,
    ) -> Option<Duration> {
        if !self.is_persistent(lifetime) {
            return None;
        }
        let left = self
            .ends_at(lifetime, created_at)
            .map_or(LONGEST_COOKIE, |end| end.duration_since(now()).unwrap_or_default());
        Some(left.min(LONGEST_COOKIE))
    }

    /// Whether a cookie that was sent at `sent` is to be sent again, because the browser would drop it
    /// before the session has to end.
    pub(crate) fn is_cookie_old(
        &self,
        lifetime: Lifetime,
        created_at: SystemTime,
        sent: SystemTime,
        now: impl FnOnce() -> SystemTime,
    ) -> bool {
        if !self.is_persistent(lifetime) {
            return false;
        }
        let ends_first = |end| sent.checked_add(LONGEST_COOKIE).is_none_or(|gone| end <= gone);
        if self.ends_at(lifetime, created_at).is_some_and(ends_first) {
            return false;
        }
        now().duration_since(sent).is_ok_and(|age| age >= SENT_AGAIN)
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);
    const HOUR: Duration = Duration::from_secs(3600);

    fn at(since: Duration) -> SystemTime {
        UNIX_EPOCH + 1_000 * HOUR + since
    }

    fn record(expires_at: SystemTime) -> Record {
        let payload = [][..].into();
        Record { version: 1, created_at: at(Duration::ZERO), expires_at, user: None, payload }
    }

    #[test]
    fn the_nearer_of_the_two_limits_counts() {
        let layer = Expiry::default();
        let expires = |now| layer.expires_at(Lifetime::new(), at(Duration::ZERO), at(now));
        assert_eq!(expires(HOUR), at(3 * HOUR));
        assert_eq!(expires(23 * HOUR), at(24 * HOUR));
    }

    #[test]
    fn a_session_can_ask_for_its_own() {
        let own = Lifetime::new().with_idle_timeout(10 * HOUR).with_absolute_timeout(100 * HOUR);
        let expires = |now| Expiry::default().expires_at(own, at(Duration::ZERO), at(now));
        assert_eq!(expires(50 * HOUR), at(60 * HOUR));
        assert_eq!(expires(95 * HOUR), at(100 * HOUR));
    }

    #[test]
    fn no_duration_overflows() {
        let own =
            Lifetime::new().with_idle_timeout(Duration::MAX).with_absolute_timeout(Duration::MAX);
        let start = at(Duration::ZERO);
        assert_eq!(Expiry::default().expires_at(own, start, start), start + LONGEST);
        assert_eq!(own.idle, Some(LONGEST));
    }

    #[test]
    fn a_lowered_absolute_limit_ends_what_was_stored_before() {
        let layer = Expiry { absolute: Some(HOUR), ..Expiry::default() };
        let record = record(at(10 * HOUR));
        assert!(!layer.is_over(&record, Lifetime::new(), at(59 * MINUTE)));
        assert!(layer.is_over(&record, Lifetime::new(), at(HOUR)));
    }

    #[test]
    fn sliding_waits_for_the_refresh_window() {
        let layer = Expiry { refresh: Some(10 * MINUTE), ..Expiry::default() };
        let record = record(at(2 * HOUR));
        let refresh = |now| layer.refresh(Lifetime::new(), &record, at(now));
        assert_eq!(refresh(9 * MINUTE), None);
        assert_eq!(refresh(10 * MINUTE), Some(at(2 * HOUR + 10 * MINUTE)));
    }

    #[test]
    fn a_save_keeps_the_expiry_within_the_refresh_window() {
        let layer = Expiry { refresh: Some(10 * MINUTE), ..Expiry::default() };
        let before = record(at(2 * HOUR));
        let expires = |own, now| layer.expires_again_at(own, &before, at(now));
        assert_eq!(expires(Lifetime::new(), 9 * MINUTE), at(2 * HOUR));
        assert_eq!(expires(Lifetime::new(), 10 * MINUTE), at(2 * HOUR + 10 * MINUTE));
        let lowered = Lifetime::new().with_idle_timeout(HOUR);
        assert_eq!(expires(lowered, 9 * MINUTE), at(HOUR + 9 * MINUTE));
    }

    #[test]
    fn sliding_stops_at_the_absolute_limit() {
        let layer = Expiry::default();
        assert_eq!(layer.refresh(Lifetime::new(), &record(at(24 * HOUR)), at(23 * HOUR)), None);
    }

    #[test]
    fn what_is_worth_a_write_case_by_case() {
        const NONE: Option<Duration> = None;
        let second = Duration::from_secs(1);
        // The layer's refresh window, the session's own idle timeout, for how long it was used since
        // its expiry was noted, and when that ends, if it is earlier than the idle timeout would have it;
        // whether it is extended.
        let table = [
            ("just used", NONE, NONE, second, 24 * HOUR, false),
            (
                "a twentieth of the idle timeout, nearly",
                NONE,
                NONE,
                6 * MINUTE - second,
                24 * HOUR,
                false,
            ),
            ("a twentieth of the idle timeout", NONE, NONE, 6 * MINUTE, 24 * HOUR, true),
            ("long ago", NONE, NONE, HOUR, 24 * HOUR, true),
            (
                "a window of its own, nearly",
                Some(10 * MINUTE),
                NONE,
                10 * MINUTE - second,
                24 * HOUR,
                false,
            ),
            ("a window of its own", Some(10 * MINUTE), NONE, 10 * MINUTE, 24 * HOUR, true),
            (
                "a window of its own, long ago",
                Some(10 * MINUTE),
                NONE,
                110 * MINUTE,
                24 * HOUR,
                true,
            ),
            (
                "a session that asks for less, nearly",
                Some(10 * MINUTE),
                Some(4 * MINUTE),
                2 * MINUTE - second,
                24 * HOUR,
                false,
            ),
            (
                "a session that asks for less",
                Some(10 * MINUTE),
                Some(4 * MINUTE),
                2 * MINUTE,
                24 * HOUR,
                true,
            ),
            (
                "a long window, nearly half",
                Some(100 * MINUTE),
                NONE,
                HOUR - second,
                24 * HOUR,
                false,
            ),
            ("a long window, half", Some(100 * MINUTE), NONE, HOUR, 24 * HOUR, true),
            ("less gained than the window", NONE, NONE, 10 * MINUTE, 2 * HOUR + 5 * MINUTE, false),
            ("as much gained as the window", NONE, NONE, 10 * MINUTE, 2 * HOUR + 6 * MINUTE, true),
            ("any use, and none", Some(Duration::ZERO), NONE, Duration::ZERO, 24 * HOUR, false),
            ("any use", Some(Duration::ZERO), NONE, Duration::from_millis(1), 24 * HOUR, true),
        ];
        for (case, refresh, own, used, absolute, is_extended) in table {
            let layer = Expiry { refresh, absolute: Some(absolute), ..Expiry::default() };
            let lifetime =
                own.map_or(Lifetime::new(), |idle| Lifetime::new().with_idle_timeout(idle));
            let idle = own.unwrap_or(2 * HOUR);
            let extended = layer.refresh(lifetime, &record(at(idle)), at(used));
            let expected = is_extended.then(|| at((used + idle).min(absolute)));
            assert_eq!(extended, expected, "{case}");
        }
        // Without an idle timeout nothing is ever extended.
        let layer = Expiry { idle: None, ..Expiry::default() };
        assert_eq!(layer.refresh(Lifetime::new(), &record(at(HOUR)), at(59 * MINUTE)), None);
    }

    #[test]
    fn a_session_is_seen_anew_once_a_window() {
        let layer = Expiry::default();
        let table = [
            (layer, 6 * MINUTE),
            (Expiry { refresh: Some(MINUTE), ..layer }, MINUTE),
            (Expiry { idle: None, ..layer }, 72 * MINUTE),
        ];
        for (layer, window) in table {
            let is_seen = |now| layer.is_seen_anew(at(HOUR), at(now));
            assert!(is_seen(HOUR + window) && is_seen(9 * HOUR), "{layer:?}");
            assert!(!is_seen(HOUR + window - Duration::from_millis(1)), "{layer:?}");
            assert!(!is_seen(59 * MINUTE), "a clock that is behind");
        }
        let always = Expiry { refresh: Some(Duration::ZERO), ..layer };
        assert!(!always.is_seen_anew(at(HOUR), at(HOUR)));
        assert!(always.is_seen_anew(at(HOUR), at(HOUR + Duration::from_millis(1))));
    }

    #[test]
    fn limits_under_which_no_session_could_live_are_refused() {
        let layer = Expiry::default();
        for (expiry, word) in [
            (Expiry { idle: None, absolute: None, ..layer }, "needs an idle or an absolute"),
            (Expiry { idle: Some(Duration::ZERO), ..layer }, "idle timeout is zero"),
            (Expiry { absolute: Some(Duration::ZERO), ..layer }, "absolute timeout is zero"),
            (Expiry { refresh: Some(2 * HOUR), ..layer }, "refresh window"),
        ] {
            let error = expiry.check(true).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
        let good = Expiry { refresh: Some(2 * HOUR - MINUTE), ..layer };
        assert_eq!(good.check(true), Ok(()));
        let longest = Expiry { idle: Some(24 * HOUR), ..layer };
        assert_eq!((longest.check(true), longest.check(false).is_err()), (Ok(()), true));
    }

    #[test]
    fn only_a_persistent_cookie_has_an_age() {
        let layer = Expiry::default();
        let age = |own| layer.max_age(own, at(Duration::ZERO), || at(HOUR));
        assert_eq!(age(Lifetime::new()), None);
        assert_eq!(age(Lifetime::new().with_persistent_cookie()), Some(23 * HOUR));
        let stays = Expiry { persistent: true, absolute: None, ..layer };
        let age = stays.max_age(Lifetime::new(), at(Duration::ZERO), || at(HOUR));
        assert_eq!(age, Some(400 * 24 * HOUR));
    }

    #[test]
    fn a_cookie_is_old_where_the_session_outlives_it() {
        const DAY: Duration = Duration::from_secs(24 * 3600);
        let stays = Expiry { persistent: true, absolute: None, ..Expiry::default() };
        let years = |years: u32| Lifetime::new().with_absolute_timeout(years * 365 * DAY);
        let table = [
            (Lifetime::new(), 0, 29, false),
            (Lifetime::new(), 0, 30, true),
            (Lifetime::new(), 30, 59, false),
            (Lifetime::new(), 30, 500, true),
            (Lifetime::new().without_persistent_cookie(), 0, 500, false),
            // It lasts to the end as it is.
            (years(1), 0, 300, false),
            (years(2), 0, 30, true),
            (years(2), 330, 360, false),
            // Sent by a process whose clock is ahead.
            (Lifetime::new(), 40, 0, false),
        ];
        for (own, sent, now, is_old) in table {
            let [created, sent, now] = [0, sent, now].map(|days| at(days * DAY));
            assert_eq!(stays.is_cookie_old(own, created, sent, || now), is_old, "{own:?} {now:?}");
        }
    }

    #[test]
    fn impossible_limits_are_refused() {
        let default = Expiry::default();
        assert!(default.check(false).is_ok());
        assert!(Expiry { idle: None, absolute: None, ..default }.check(true).is_err());
        assert!(Expiry { idle: Some(Duration::ZERO), ..default }.check(true).is_err());
        assert!(Expiry { refresh: default.idle, ..default }.check(true).is_err());
    }

    #[test]
    fn a_long_idle_timeout_needs_a_word_about_the_absolute_one() {
        let default = Expiry::default();
        for (idle, is_refused) in [
            (Some(7 * 24 * HOUR), true),
            (Some(24 * HOUR), true),
            (Some(23 * HOUR), false),
            (None, false),
        ] {
            let layer = Expiry { idle, ..default };
            assert_eq!(layer.check(false).is_err(), is_refused, "{idle:?}");
            assert!(layer.check(true).is_ok(), "{idle:?}");
        }
        assert!(Expiry { absolute: None, idle: Some(1_000 * HOUR), ..default }.check(true).is_ok());
    }

    #[test]
    fn a_sessions_own_idle_timeout_may_be_cut_short() {
        let layer = Expiry::default();
        let own = Lifetime::new();
        assert_eq!(layer.cuts_short(own.with_idle_timeout(7 * 24 * HOUR)), layer.absolute);
        assert_eq!(layer.cuts_short(own.with_idle_timeout(24 * HOUR)), None);
        assert_eq!(
            layer.cuts_short(own.with_idle_timeout(7 * 24 * HOUR).with_absolute_timeout(HOUR)),
            None
        );
        let endless = Expiry { absolute: None, ..layer };
        assert_eq!(endless.cuts_short(own.with_idle_timeout(7 * 24 * HOUR)), None);
    }
}
