//! What the layer counts, through the facade `metrics`; nothing at all without that feature.
//!
//! The names stand in `docs/metrics.md`; the test `every_name_of_the_page_is_told_and_no_other` compares the
//! two.

/// A counter that has no labels: its key is made when the program is compiled.
macro_rules! counters {
    ($($(#[$doc:meta])* $function:ident, $name:literal;)*) => {$(
        $(#[$doc])*
        #[inline]
        pub(crate) fn $function() {
            #[cfg(feature = "metrics")]
            ::metrics::counter!($name).increment(1);
        }
    )*};
}

counters! {
    /// A request found the session that its cookie names.
    opened, "sessions_opened_total";
    /// A session was stored for the first time.
    begun, "sessions_begun_total";
    /// A session got another id.
    renewed, "sessions_renewed_total";
    /// A user logged in.
    logged_in, "sessions_logged_in_total";
    /// A record was written.
    saved, "sessions_saved_total";
    /// Another process was faster with a compare-and-swap, which is tried again.
    retried, "sessions_save_retries_total";
    /// A field that two requests changed at once was merged.
    merged, "sessions_fields_merged_total";
    /// A field that two requests changed at once has the later value.
    overwrote, "sessions_fields_overwritten_total";
}

/// A field that two requests changed at once keeps the earlier value, and the later one is refused.
#[inline]
pub(crate) fn conflicted() {
    #[cfg(feature = "metrics")]
    ::metrics::counter!("sessions_fields_refused_total").increment(1);
}

/// Sessions were ended by a logout, or with all of a user's sessions.
#[inline]
pub(crate) fn ended(sessions: u64) {
    #[cfg(feature = "metrics")]
    ::metrics::counter!("sessions_ended_total").increment(sessions);
    #[cfg(not(feature = "metrics"))]
    let _ = sessions;
}

/// A request was answered in place of its handler.
#[inline]
pub(crate) fn refused(reason: &'static str) {
    #[cfg(feature = "metrics")]
    ::metrics::counter!("sessions_refused_total", "reason" => reason).increment(1);
    #[cfg(not(feature = "metrics"))]
    let _ = reason;
}

/// A session of an earlier library was adopted.
#[cfg(feature = "adopt")]
#[inline]
pub(crate) fn adopted() {
    #[cfg(feature = "metrics")]
    ::metrics::counter!("sessions_adopted_total").increment(1);
}

/// A session was bound to a device.
#[cfg(feature = "device-bound")]
#[inline]
pub(crate) fn device_bound() {
    #[cfg(feature = "metrics")]
    ::metrics::counter!("sessions_devices_bound_total").increment(1);
}

/// A device got another bound cookie.
#[cfg(feature = "device-bound")]
#[inline]
pub(crate) fn device_refreshed() {
    #[cfg(feature = "metrics")]
    ::metrics::counter!("sessions_devices_refreshed_total").increment(1);
}

/// A device, or a request that does not show its session's device, was refused.
#[cfg(feature = "device-bound")]
#[inline]
pub(crate) fn device_refused(step: &'static str, reason: &'static str) {
    #[cfg(feature = "metrics")]
    ::metrics::counter!("sessions_devices_refused_total", "step" => step, "reason" => reason)
        .increment(1);
    #[cfg(not(feature = "metrics"))]
    let _ = (step, reason);
}

/// A request that does not show its session's device has the session all the same.
#[cfg(feature = "device-bound")]
#[inline]
pub(crate) fn device_let_through(reason: &'static str) {
    #[cfg(feature = "metrics")]
    ::metrics::counter!("sessions_devices_let_through_total", "reason" => reason).increment(1);
    #[cfg(not(feature = "metrics"))]
    let _ = reason;
}

/// A load that a near cache was asked for.
#[inline]
pub(crate) fn near_cache(is_hit: bool) {
    #[cfg(feature = "metrics")]
    match is_hit {
        true => ::metrics::counter!("sessions_near_cache_total", "result" => "hit").increment(1),
        false => ::metrics::counter!("sessions_near_cache_total", "result" => "miss").increment(1),
    }
    #[cfg(not(feature = "metrics"))]
    let _ = is_hit;
}

/// When a call of a store began. Nothing without the feature.
#[derive(Clone, Copy)]
pub(crate) struct StoreCall {
    #[cfg(feature = "metrics")]
    began: std::time::Instant,
}

impl StoreCall {
    #[inline]
    pub(crate) fn begin() -> Self {
        Self {
            #[cfg(feature = "metrics")]
            began: std::time::Instant::now(),
        }
    }

    #[inline]
    pub(crate) fn end(self, operation: &'static str, outcome: &'static str) {
        #[cfg(feature = "metrics")]
        {
            let time = ::metrics::histogram!(
                "sessions_store_seconds", "operation" => operation, "outcome" => outcome
            );
            time.record(self.began.elapsed());
        }
        #[cfg(not(feature = "metrics"))]
        let _ = (self, operation, outcome);
    }
}
