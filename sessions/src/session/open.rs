//! From a request's cookies to its session.
//!
//! 1. The cookies of the layer's name are verified, a few at most; without a good one a new session begins.
//! 2. The registry gives the slot of the id: the one in use, an idle one, or a new one.
//! 3. The record is fetched, and the slot reconciled with it; the first cookie whose session is stored wins.
//! 4. If the store has a tombstone, the session goes on under another id: the request gets a session that
//!    has ended, so that its response replaces no cookie.
//! 5. If none is found, and the layer adopts sessions of an earlier library, its cookie is looked for.
//! 6. A session that is bound to a device counts as found if the request shows the device.

use std::{
    sync::{
        Arc,
        atomic::Ordering::{Relaxed, SeqCst},
    },
    time::SystemTime,
};

use tracing::{Instrument, Level, Span};

use crate::{
    cookie::VerifiedCookie,
    data::{SessionData, patch::RequestId},
    error::Error,
    meters,
    save::{
        load::{self, Fetched},
        shared::Shared,
    },
    session::request::{Current, Handle, OpenedSession},
    slot::{Slot, SlotState, ending::SessionEnd},
    sync::Mutex,
};
#[cfg(feature = "private-cookie")]
use crate::{session::request::PrivateCookies, slot::registry::Registration};

/// Asked first, because with the feature `log` of `tracing` a disabled span is work too.
fn open_span() -> Span {
    if tracing::enabled!(Level::DEBUG) {
        tracing::debug_span!("open_session")
    } else {
        Span::none()
    }
}

impl<T: SessionData> Handle<T> {
    /// Finds the session of the request's cookie, or begins one. If the store does not answer, or
    /// the future is dropped, the next call tries again.
    pub(crate) async fn open(&self) -> Result<(), Error> {
        self.asked.store(true, SeqCst);
        if self.opened.get().is_none() && !self.find_at_once() {
            // Boxed, because it would make every handler's future some hundred bytes larger.
            Box::pin(self.find().instrument(open_span())).await?;
        }
        #[cfg(feature = "device-bound")]
        if self.is_asked_again() {
            return Err(Error::unproven_device());
        }
        // The response may have left while we looked; its `finish` then found no session to forbid a cookie for.
        if self.is_answered() {
            self.forbid_new_cookie(&self.slot());
        }
        Ok(())
    }

    /// Where the store answers at once it takes no future. False if it does not, or if there is a save
    /// to wait for.
    ///
    /// A second path beside [`find`](Self::find), because without it a request that reads takes a tenth more
    /// instructions and one allocation more (`benches/instructions`, `benches/allocations`).
    fn find_at_once(&self) -> bool {
        let shared = &self.shared;
        #[cfg(feature = "private-cookie")]
        if shared.storage.is_cookie() {
            self.found(self.find_in_cookie(), None);
            return true;
        }
        let Some(store) = shared.storage.store_at_once() else { return false };
        let mut has_moved = false;
        for cookie in self.verified_cookies() {
            let (slot, is_new) = shared.registry.slot_or_new(cookie.id, cookie.key);
            let fetched = load::fetch_at_once(shared, store, &slot, &cookie.key, is_new);
            let Some(Fetched { state, seen, needs_nothing }) = fetched else { return false };
            if state == SlotState::Stored && self.admits(&slot) {
                tracing::debug!("opened a session");
                meters::opened();
                let needs_nothing = needs_nothing && !cookie.by_old_key;
                self.found(Current { needs_nothing, ..Current::found(slot, cookie) }, seen);
                return true;
            }
            has_moved |= state.has_moved();
        }
        #[cfg(feature = "adopt")]
        if !has_moved && self.may_adopt() {
            return false;
        }
        self.found_none(has_moved);
        true
    }

    async fn find(&self) -> Result<(), Error> {
        let shared = &self.shared;
        let mut has_moved = false;
        for cookie in self.verified_cookies() {
            // First the slot, then the record: whatever is saved in this process after the record
            // was loaded is then known to the slot.
            let slot = shared.registry.slot_of(cookie.id, cookie.key);
            let Some(registration) = slot.registration() else { continue };
            let state = load::refresh(shared, &slot, &registration.key).await?;
            if state == SlotState::Stored && self.admits(&slot) {
                tracing::debug!("opened a session");
                meters::opened();
                self.found(Current::found(slot, cookie), None);
                return Ok(());
            }
            has_moved |= state.has_moved();
        }
        #[cfg(feature = "adopt")]
        if !has_moved && self.may_adopt() && self.adopt().await? {
            return Ok(());
        }
        self.found_none(has_moved);
        Ok(())
    }

    fn verified_cookies(&self) -> impl Iterator<Item = VerifiedCookie> {
        let Shared { settings, keys, seen_cookies, .. } = &*self.shared;
        settings.cookie.verified(keys, seen_cookies, self.cookies.iter())
    }

    /// A client whose session has another id since a moment ago has the cookie of that, or is just
    /// getting it: one of a session that begins here would take its place.
    pub(super) fn found_none(&self, has_moved: bool) {
        let now = self.shared.now();
        let slot = Arc::new(Slot::unsaved(now));
        if has_moved {
            tracing::debug!("the session goes on under another id");
        }
        // So it is with a device that may come again with a proof.
        if has_moved || self.may_prove_itself_yet() {
            slot.end_as(SessionEnd::Renewed);
        }
        self.found(Current::unsaved(slot), self.shared.settings.clock.of_system(now));
    }

    /// If two tasks of one request open at once, the first wins.
    pub(super) fn found(&self, current: Current<T>, opened_at: Option<SystemTime>) {
        let open = Box::new(OpenedSession {
            current: Mutex::new(current),
            opened_at,
            switching: tokio::sync::Mutex::new(()),
            writer: RequestId::next(),
        });
        if self.opened.set(open).is_ok() {
            self.has_just_opened.store(true, Relaxed);
        }
        self.shared.background.note_runtime();
    }

    /// The session that the newest private cookie holds, if it is not over. The session is this request's alone, and
    /// not entered anywhere.
    #[cfg(feature = "private-cookie")]
    fn find_in_cookie(&self) -> Current<T> {
        let shared = &self.shared;
        let unsaved = || Current::unsaved(Arc::new(Slot::unsaved(shared.now())));
        let Some(newest) = shared.settings.cookie.newest(&shared.keys.get(), self.cookies.iter())
        else {
            return unsaved();
        };
        let mut private = PrivateCookies {
            held: None,
            written_at: Some(newest.written_at),
            has_rivals: !newest.is_alone,
        };
        if let Some((cookie, record)) = newest.session {
            private.held = Some((record.version, record.expires_at));
            if let Some(loaded) = load::usable(shared, record, shared.now()) {
                let slot = Arc::new(Slot::loading(Registration::alone(cookie.id)));
                slot.reconcile(loaded, shared.settings.policy, true);
                tracing::debug!("opened a session");
                meters::opened();
                return Current { private, ..Current::found(slot, cookie) };
            }
        }
        Current { private, ..unsaved() }
    }
}

#[cfg(not(feature = "device-bound"))]
impl<T: SessionData> Handle<T> {
    pub(super) fn admits(&self, _slot: &Slot<T>) -> bool {
        true
    }

    pub(super) fn may_prove_itself_yet(&self) -> bool {
        false
    }

    pub(crate) fn may_stay_bound(&self) -> bool {
        true
    }
}

#[cfg(test)]
#[cfg(all(feature = "derive", feature = "bincode"))]
mod tests {
    use http::{HeaderMap, Method};

    use super::*;
    use crate::{Keys, MemoryStore, SessionLayer};

    #[derive(sessions_derive::Session)]
    #[session(crate = crate)]
    struct Data {
        number: u32,
    }

    #[test]
    fn of_two_that_open_at_once_the_second_says_nothing_of_when_that_was() {
        let layer = SessionLayer::<Data>::new(MemoryStore::new(), Keys::generate());
        let handle = Handle::new(layer.shared.clone(), &Method::GET, &HeaderMap::new());
        handle.found_none(false);
        assert!(handle.has_just_opened.load(Relaxed));
        handle.begin_poll();
        handle.found_none(false);
        assert!(!handle.has_just_opened.load(Relaxed));
    }
}
