//! What happens to the client's cookie.
//!
//! 1. A stored session that the client has no cookie for, because it is new, renewed or begun anew:
//!    set it.
//! 2. A stored session whose cookie may now stay for another time, or holds the session itself, which
//!    has changed: set it again.
//! 3. A stored session whose cookie was signed by an old key, or will be dropped by the browser before
//!    the session ends and was sent long ago: set it again, unless the request does not count as a use
//!    of the session.
//! 4. Any other stored session: leave the cookie alone.
//! 5. No stored session, and the request itself has ended the one that its cookie opened: remove it.
//!    Or, where the browser may have older cookies of the name that hold a session themselves, set one
//!    that says that the session has ended: the newest counts.
//! 6. No stored session otherwise, whatever the cookie was: leave it alone. Another response may
//!    just be setting a good one.

use crate::identity::id::SessionId;

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
    pub(crate) changed: bool,
    /// The cookie is good, and should be replaced before it is not.
    pub(crate) aged: bool,
    /// The request counts as a use of the session.
    pub(crate) refreshes: bool,
    /// The browser may have other cookies of the name, which would hold a session without this one.
    pub(crate) has_rivals: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CookieChange {
    Keep,
    Set(SessionId),
    Remove,
    /// Set one that says that there is no session any more.
    SetEnded,
}

pub(crate) fn decide(facts: Facts) -> CookieChange {
    use CookieChange::{Keep, Remove, Set, SetEnded};
    match (facts.session, facts.cookie) {
        (Some(session), Some(cookie)) if cookie == session => {
            match facts.changed || (facts.aged && facts.refreshes) {
                true => Set(session),
                false => Keep,
            }
        }
        (Some(session), _) => Set(session),
        (None, Some(_)) if facts.ended && facts.has_rivals => SetEnded,
        (None, Some(_)) if facts.ended => Remove,
        (None, _) => Keep,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case() {
        use CookieChange::{Keep, Remove, Set, SetEnded};
        let [a, b] = [1, 2].map(|byte| SessionId::from_bytes([byte; 16]));
        let none = Facts {
            session: None,
            cookie: None,
            ended: false,
            changed: false,
            aged: false,
            refreshes: true,
            has_rivals: false,
        };
        let known = Facts { session: Some(a), cookie: Some(a), ..none };
        let gone = Facts { cookie: Some(a), ..none };
        let unused = |facts| Facts { refreshes: false, ..facts };
        let rivals = |facts| Facts { has_rivals: true, ..facts };
        let table = [
            ("a new session", Facts { session: Some(a), ..none }, Set(a)),
            ("nothing written", none, Keep),
            ("nothing written, rivals", rivals(none), Keep),
            ("known", known, Keep),
            ("known, rivals", rivals(known), Keep),
            ("known, another lifetime or content", Facts { changed: true, ..known }, Set(a)),
            ("the same, unused", unused(Facts { changed: true, ..known }), Set(a)),
            ("known, another key or long ago", Facts { aged: true, ..known }, Set(a)),
            ("the same, unused", unused(Facts { aged: true, ..known }), Keep),
            ("renewed", Facts { session: Some(b), ..known }, Set(b)),
            ("ended, nothing written after", Facts { ended: true, ..gone }, Remove),
            ("the same, rivals", rivals(Facts { ended: true, ..gone }), SetEnded),
            ("ended, written after", Facts { session: Some(b), ended: true, ..gone }, Set(b)),
            ("the same, rivals", rivals(Facts { session: Some(b), ended: true, ..gone }), Set(b)),
            ("ended by another request", gone, Keep),
            ("ended by another request, rivals", rivals(gone), Keep),
            ("ended by another request, another key", Facts { aged: true, ..gone }, Keep),
        ];
        for (case, facts, change) in table {
            assert_eq!(decide(facts), change, "{case}");
        }
    }
}
