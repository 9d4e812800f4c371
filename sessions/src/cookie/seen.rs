//! Cookies that were verified a moment ago: most requests come with one of them, and have no need of
//! another HMAC.
//!
//! Of a cookie that comes for the first time a few bytes are noted, which is all that most leave behind: they
//! lie together, so that the many that come once cost little memory that is in no cache. One that comes again
//! is kept whole, and found when it comes for the third time.
//!
//! Ours, and no crate: a cookie opens a session, so it is compared in constant time and wiped when it gives
//! way; and the signature in it serves as its hash.

use std::sync::{
    PoisonError,
    atomic::{AtomicU64, Ordering::SeqCst},
};

use ctutils::CtEq;
use zeroize::Zeroize;

use super::{VALUE_LENGTH, VerifiedCookie};
use crate::sync::{Mutex, MutexGuard};

/// With the ways, a thousand cookies: all that a busy process sees within a second or so.
const SETS: usize = 128;
/// So many cookies that fall into the same set stay side by side.
const WAYS: usize = 8;

type Value = [u8; VALUE_LENGTH];

/// What verifying a cookie has found, for the keys and the name of one layer. Says nothing of its
/// session, which may have ended.
pub(crate) struct SeenCookies {
    sets: Box<[Line]>,
    /// Counts how often the keys were replaced.
    epoch: AtomicU64,
}

/// What is looked at for each request lies in one line of a processor's cache.
#[repr(align(64))]
#[derive(Default)]
struct Line(Mutex<Set>);

#[derive(Default)]
struct Set {
    /// A few bytes of each of those seen.
    tags: [u32; WAYS],
    /// Those that have come again, at the places of their tags.
    repeated: Option<Box<[Option<Seen>; WAYS]>>,
    /// Which places of the box have a cookie, a bit each: the box is other memory, and most requests leave it alone.
    has_repeated: u8,
    /// The one that gives way next.
    next: u8,
}

impl Set {
    fn find(&self, value: &Value) -> Option<VerifiedCookie> {
        let tag = tag(value);
        let at = self.tags.iter().position(|its| *its == tag)?;
        let seen =
            self.repeated.as_ref().filter(|_| self.has_repeated & 1 << at != 0)?[at].as_ref()?;
        is_same(&seen.value, value).then_some(seen.cookie)
    }

    fn note(&mut self, value: &Value, cookie: VerifiedCookie) {
        let tag = tag(value);
        let Some(at) = self.tags.iter().position(|its| *its == tag) else {
            let at = usize::from(self.next) % WAYS;
            self.next = self.next.wrapping_add(1);
            self.tags[at] = tag;
            if self.has_repeated & 1 << at != 0
                && let Some(repeated) = &mut self.repeated
            {
                repeated[at] = None;
                self.has_repeated &= !(1 << at);
            }
            return;
        };
        let cookie = VerifiedCookie { is_repeated: true, ..cookie };
        self.has_repeated |= 1 << at;
        self.repeated.get_or_insert_default()[at] = Some(Seen { value: *value, cookie });
    }
}

struct Seen {
    value: Value,
    cookie: VerifiedCookie,
}

impl SeenCookies {
    pub(crate) fn new() -> Self {
        Self { sets: (0..SETS).map(|_| Line::default()).collect(), epoch: AtomicU64::new(0) }
    }

    /// To be asked before the keys that a cookie is verified with.
    pub(super) fn epoch(&self) -> u64 {
        self.epoch.load(SeqCst)
    }

    /// Forgets all, for the keys are others by now. What is still being verified with the old ones is not
    /// noted.
    pub(crate) fn forget(&self) {
        self.epoch.fetch_add(1, SeqCst);
        for Line(set) in &self.sets {
            *set.lock().unwrap_or_else(PoisonError::into_inner) = Set::default();
        }
    }

    pub(super) fn find(&self, value: &Value) -> Option<VerifiedCookie> {
        self.set(value).find(value)
    }

    /// Remembers a cookie whose signature is good. No other cookie gets here, so that no client can fill the sets with
    /// values that the client has made up. A cookie that was verified in an earlier epoch is not remembered either.
    pub(super) fn note(&self, value: &Value, cookie: VerifiedCookie, epoch: u64) {
        let mut set = self.set(value);
        // Under the lock: a thread that forgets has begun the next epoch before, or gets to this set after.
        if self.epoch() == epoch {
            set.note(value, cookie);
        }
    }

    /// By the end of the signature, which is as good as random in a cookie that is worth noting.
    fn set(&self, value: &Value) -> MutexGuard<'_, Set> {
        let [.., a, b, c, d] = *value;
        // The multiplier is 2³² over the golden ratio: it spreads the letters over the high bits.
        let spread = u32::from_ne_bytes([a, b, c, d]).wrapping_mul(0x9e37_79b9) >> 24;
        let Line(set) = &self.sets[spread as usize % SETS];
        set.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Other bytes of the signature than the set's. That a cookie with these was seen tells nothing of the
/// rest, without which they are worth nothing.
fn tag(value: &Value) -> u32 {
    let [.., a, b, c, d, _, _, _, _] = *value;
    u32::from_ne_bytes([a, b, c, d])
}

/// Takes the same time wherever the two differ: one of them is a client's secret, and the other
/// may be an attempt to guess it.
fn is_same(one: &Value, other: &Value) -> bool {
    one.ct_eq(other).to_bool()
}

/// A client that knows a value holds the session.
impl Drop for Seen {
    fn drop(&mut self) {
        self.value.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::id::SessionId;

    /// A value and what it stands for, different for each number, as it is found again.
    fn cookie(number: u32) -> (Value, VerifiedCookie) {
        let mut value = [b'A'; VALUE_LENGTH];
        let signature = (u64::from(number) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        value[VALUE_LENGTH - 8..].copy_from_slice(&signature.to_le_bytes());
        let mut id = [0; 16];
        id[..4].copy_from_slice(&number.to_le_bytes());
        let cookie = VerifiedCookie::new(SessionId::from_bytes(id), false);
        (value, VerifiedCookie { is_repeated: true, ..cookie })
    }

    #[test]
    fn a_cookie_is_found_by_all_of_its_value() {
        let seen = SeenCookies::new();
        let (value, cookie) = cookie(1);
        assert_eq!(seen.find(&value), None);
        let first = VerifiedCookie { is_repeated: false, ..cookie };
        seen.note(&value, first, 0);
        assert_eq!(seen.find(&value), None, "it may be the only time");
        seen.note(&value, first, 0);
        assert_eq!(seen.find(&value), Some(cookie));
        for at in 0..VALUE_LENGTH {
            for bit in 0..8 {
                let mut other = value;
                other[at] ^= 1 << bit;
                assert_eq!(seen.find(&other), None, "bit {bit} of byte {at}");
            }
        }
    }

    #[test]
    fn what_was_verified_with_other_keys_is_forgotten_and_not_noted_any_more() {
        let seen = SeenCookies::new();
        let (value, cookie) = cookie(1);
        let epoch = seen.epoch();
        let twice = |epoch| (0..2).for_each(|_| seen.note(&value, cookie, epoch));
        twice(epoch);
        assert_eq!(seen.find(&value), Some(cookie));
        seen.forget();
        assert_eq!(seen.find(&value), None);
        twice(epoch);
        assert_eq!(seen.find(&value), None);
        twice(seen.epoch());
        assert_eq!(seen.find(&value), Some(cookie));
    }

    #[test]
    fn the_last_ones_are_found_and_there_are_never_more_than_fit() {
        let seen = SeenCookies::new();
        for number in 0..100_000 {
            let (value, cookie) = cookie(number);
            seen.note(&value, cookie, 0);
            // Half of them come again.
            assert_eq!(seen.find(&value), None);
            if number % 2 == 0 {
                seen.note(&value, cookie, 0);
                assert_eq!(seen.find(&value), Some(cookie));
            }
        }
        let kept = (0..100_000).filter(|number| seen.find(&cookie(*number).0).is_some()).count();
        assert!((SETS * WAYS / 4..SETS * WAYS).contains(&kept), "{kept}");
    }

    #[test]
    #[cfg(target_pointer_width = "64")]
    fn what_every_request_looks_at_is_one_line_of_memory() {
        assert_eq!(size_of::<Line>(), 64);
    }

    /// Linux lets a process read all of its memory, also what it has given back to its allocator.
    #[test]
    #[cfg(target_os = "linux")]
    fn cookies_are_wiped_on_drop() {
        use std::{fs::File, os::unix::fs::FileExt};

        let memory = File::open("/proc/self/mem").unwrap();
        let mut value = [0; VALUE_LENGTH];
        getrandom::fill(&mut value).unwrap();
        let (_, cookie) = cookie(1);
        // The allocator writes into the beginning of what it is given back: the value that is looked
        // for lies behind others.
        let seen = || Some(Seen { value, cookie });
        let set = Set { repeated: Some(Box::new([(); WAYS].map(|()| seen()))), ..Set::default() };
        let last = set.repeated.as_ref().and_then(|seen| seen[WAYS - 1].as_ref()).unwrap();
        let place = std::ptr::from_ref(&last.value).addr() as u64;
        let [mut before, mut after] = [[0; VALUE_LENGTH]; 2];
        memory.read_exact_at(&mut before, place).unwrap();
        assert_eq!(before, value);
        drop(set);
        if memory.read_exact_at(&mut after, place).is_err() {
            return; // the allocator has given it back to the system
        }
        let left = after.iter().zip(&value).filter(|(after, value)| after == value).count();
        assert!(left < VALUE_LENGTH / 4, "{left} of {VALUE_LENGTH} bytes are still there");
    }
}
