//! What happens to the client's cookie.
//!
//! 1. A stored session that the client has no cookie for, because it is new, renewed or begun anew:
//!    set it.
//! 2. A stored session whose cookie was signed by an old key, or may now stay for another time: set
//!    it again.
//! 3. Any other stored session: leave the cookie alone.
//! 4. No stored session, and the request itself has ended the one that its cookie opened: remove it.
//! 5. No stored session otherwise, whatever the cookie was: leave it alone. Another response may
//!    just be setting a good one.

use crate::{cookie::VerifiedCookie, id::SessionId};

/// All that the decision rests on.
#[derive(Clone, Copy)]
pub(crate) struct Facts {
    /// The session that the request has in the end, if the store has it and it is not over.
    pub(crate) session: Option<SessionId>,
    /// The cookie that opened a session when the request came.
    pub(crate) cookie: Option<VerifiedCookie>,
    /// The request has ended the session of that cookie.
    pub(crate) ended: bool,
    /// How long the cookie may stay has changed.
    pub(crate) resend: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CookieChange {
    Keep,
    Set(SessionId),
    Remove,
}

pub(crate) fn decide(facts: Facts) -> CookieChange {
    match (facts.session, facts.cookie) {
        (Some(session), Some(cookie)) if cookie.id == session => {
            if cookie.by_old_key || facts.resend {
                CookieChange::Set(session)
            } else {
                CookieChange::Keep
            }
        }
        (Some(session), _) => CookieChange::Set(session),
        (None, Some(_)) if facts.ended => CookieChange::Remove,
        (None, _) => CookieChange::Keep,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case() {
        use CookieChange::{Keep, Remove, Set};
        let [a, b] = [1, 2].map(|byte| SessionId::from_bytes([byte; 16]));
        let good = |id| Some(VerifiedCookie { id, by_old_key: false });
        let old = |id| Some(VerifiedCookie { id, by_old_key: true });
        let table = [
            ("a new session", Some(a), None, false, false, Set(a)),
            ("nothing written", None, None, false, false, Keep),
            ("known", Some(a), good(a), false, false, Keep),
            ("known, signed by an old key", Some(a), old(a), false, false, Set(a)),
            ("known, another lifetime", Some(a), good(a), false, true, Set(a)),
            ("renewed", Some(b), good(a), false, false, Set(b)),
            ("ended, nothing written after", None, good(a), true, false, Remove),
            ("ended, written after", Some(b), good(a), true, false, Set(b)),
            ("ended by somebody else", None, good(a), false, false, Keep),
            ("ended by somebody else, old key", None, old(a), false, true, Keep),
        ];
        for (case, session, cookie, ended, resend, change) in table {
            assert_eq!(decide(Facts { session, cookie, ended, resend }), change, "{case}");
        }
    }
}
