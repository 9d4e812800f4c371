//! What happens to the client's cookie.
//!
//! 1. A stored session that the client has no cookie for, because it is new, renewed or begun anew:
//!    set it.
//! 2. A stored session whose cookie was signed by an old key, or may now stay for another time, or
//!    holds the session itself, which has changed: set it again.
//! 3. Any other stored session: leave the cookie alone.
//! 4. No stored session, and the request itself has ended the one that its cookie opened: remove it.
//! 5. No stored session otherwise, whatever the cookie was: leave it alone. Another response may
//!    just be setting a good one.

use crate::id::SessionId;

/// All that the decision rests on.
#[derive(Clone, Copy)]
pub(crate) struct Facts {
    /// The session that the request has in the end, if the store has it and it is not over.
    pub(crate) session: Option<SessionId>,
    /// The session that the request's cookie opened.
    pub(crate) cookie: Option<SessionId>,
    /// The request has ended the session of that cookie.
    pub(crate) ended: bool,
    /// The cookie has to change although it is of the right session.
    pub(crate) send_again: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CookieChange {
    Keep,
    Set(SessionId),
    Remove,
}

pub(crate) fn decide(facts: Facts) -> CookieChange {
    match (facts.session, facts.cookie) {
        (Some(session), Some(cookie)) if cookie == session => {
            if facts.send_again {
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
        let table = [
            ("a new session", Some(a), None, false, false, Set(a)),
            ("nothing written", None, None, false, false, Keep),
            ("known", Some(a), Some(a), false, false, Keep),
            ("known, another key or lifetime", Some(a), Some(a), false, true, Set(a)),
            ("renewed", Some(b), Some(a), false, false, Set(b)),
            ("ended, nothing written after", None, Some(a), true, false, Remove),
            ("ended, written after", Some(b), Some(a), true, false, Set(b)),
            ("ended by somebody else", None, Some(a), false, false, Keep),
            ("ended by somebody else, another key", None, Some(a), false, true, Keep),
        ];
        for (case, session, cookie, ended, send_again, change) in table {
            assert_eq!(decide(Facts { session, cookie, ended, send_again }), change, "{case}");
        }
    }
}
