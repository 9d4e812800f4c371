//! From a handler that is done to its response: what the request wrote is saved, and what becomes of the
//! client's cookie is decided.
//!
//! 1. `finish_now` answers without waiting if nothing is to be saved, or the store answers at once. It is a
//!    second path, because without it a request that reads takes 2,600 instructions more (a fifth) and one
//!    allocation (`benches/instructions`, `benches/allocations`).
//! 2. Else `finish` waits for its turn at the store, saves, and notes that the session was used.
//! 3. From then on no cookie can be sent: a session that is not stored by then stays so.

use std::{
    sync::{
        Arc, OnceLock, PoisonError,
        atomic::{
            Ordering::{Acquire, Relaxed, SeqCst},
            fence,
        },
    },
    time::{Duration, SystemTime},
};

use http::HeaderValue;

#[cfg(feature = "device-bound")]
use crate::session::device::DeviceOutcome;
use crate::{
    cookie::change::{CookieChange, Facts, decide},
    data::{SessionData, patch::RequestId},
    error::{Error, ErrorKind},
    identity::id::SessionId,
    record::expiry::Lifetime,
    save::{self, load, turn::StoreTurn},
    session::request::{Current, Handle, OpenedSession},
    slot::{
        Slot, SlotState, SlotView,
        plan::{SaveJob, SaveKind, SavedAtOnce},
    },
    sync::AtomicBool,
};
#[cfg(feature = "private-cookie")]
use crate::{
    record::expiry::LONGEST_COOKIE,
    save::{settings::Settings, shared::Shared},
};

/// How a response has to change for what its request did to the session.
#[derive(Default)]
pub(crate) struct Outcome {
    /// The request looked at its session, or tried to.
    pub(crate) opened: bool,
    pub(crate) cookie: Option<HeaderValue>,
    /// Something was not saved.
    pub(crate) error: Option<Error>,
    #[cfg(feature = "device-bound")]
    pub(crate) device: DeviceOutcome,
}

impl Outcome {
    /// Whether the response may be replaced by one of the layer's.
    pub(crate) fn may_replace(&self) -> bool {
        #[cfg(feature = "device-bound")]
        if self.device.asks_again {
            return true;
        }
        self.error.is_some()
    }
}

/// What a response needs to know of the session, from one look at its slot.
#[derive(Clone, Copy)]
struct Seen {
    state: SlotState,
    lifetime: Lifetime,
    created_at: SystemTime,
    /// A cookie of the session that the client has should be sent again.
    is_cookie_old: bool,
    now: SystemTime,
}

impl<T: SessionData> Handle<T> {
    /// Notes that the response is being made ready, and says whether nothing is to be done for it: nobody
    /// has asked for the session, and no layer further inside can have offered a binding in its place.
    #[inline]
    pub(crate) fn begin_answer(self: &Arc<Self>) -> bool {
        #[cfg(feature = "device-bound")]
        if self.shared.devices.is_some() {
            self.answered.store(true, SeqCst);
            return false;
        }
        // Usually the response has the only handle by now: then no task can open the session any more, and no task has to
        // know of the answer. The fence: a task that has dropped its handle may have asked before.
        if Arc::strong_count(self) == 1 {
            fence(Acquire);
            return !self.asked.load(Relaxed);
        }
        // First this, then the looks, at `asked` and later at `current`: `open` does it the other way round,
        // so that one of the two sees the other.
        self.answered.store(true, SeqCst);
        !self.asked.load(SeqCst)
    }

    /// What the response needs, if that can be said without waiting for anything: nothing to save, or
    /// a store that answers at once, and nobody in the middle of something. To be asked after
    /// [`begin_answer`](Self::begin_answer).
    #[inline]
    pub(crate) fn finish_now(self: &mut Arc<Self>) -> Option<Outcome> {
        if self.opened.get().is_none() {
            return Some(Outcome { opened: self.asked.load(Acquire), ..Outcome::default() });
        }
        match Arc::get_mut(self) {
            Some(handle) => handle.finish_alone(),
            None => self.finish_beside_others(),
        }
    }

    /// The same where the response has the only handle, as nearly always: then no task of the request can
    /// do anything meanwhile, and there is nothing to lock.
    fn finish_alone(&mut self) -> Option<Outcome> {
        let mut taken = Taken { opened: self.opened.take(), handle: self };
        let Taken { opened, handle } = &mut taken;
        let opened = opened.as_mut()?;
        let seen_at = opened.opened_at.filter(|_| *handle.has_just_opened.get_mut());
        let writer = opened.writer;
        let current = opened.current.get_mut().unwrap_or_else(PoisonError::into_inner);
        if current.needs_nothing
            && current.has_session_of_cookie()
            && !*handle.wrote.get_mut()
            && *handle.has_just_opened.get_mut()
        {
            taken.give_back();
            return Some(Outcome { opened: true, ..Outcome::default() });
        }
        // Nor does anybody wait for the session's end.
        let is_alone = Arc::strong_count(&current.slot) == 1;
        let saved = match *handle.wrote.get_mut() {
            true => handle.save_at_once(&current.slot, writer, seen_at, is_alone)?,
            false => None,
        };
        *handle.wrote.get_mut() = false;
        let outcome = handle.answer_at_once(current, saved, seen_at)?;
        // Nobody asks for the session any more.
        taken.give_back();
        Some(outcome)
    }

    /// The same while tasks of the request, or its extensions, have handles.
    fn finish_beside_others(self: &Arc<Self>) -> Option<Outcome> {
        let opened = self.opened_session();
        let seen_at = opened.opened_at.filter(|_| self.has_just_opened.load(Relaxed));
        let mut saved = None;
        // Before the save: what a task of the request writes from here on is not part of that. And the save before
        // the look at `current`: what a save drops may have a `Drop` that looks there.
        if self.wrote.swap(false, SeqCst) {
            let slot = self.slot();
            let mut unsaved = Unsaved { wrote: &self.wrote, is_saved: false };
            let seen = self.save_at_once(&slot, opened.writer, seen_at, false)?;
            unsaved.is_saved = true;
            saved = Some((slot, seen));
        }
        let current = self.current();
        // What was seen says nothing of a session that another task has put in its place meanwhile.
        let of_current = saved.as_ref().filter(|(slot, _)| Arc::ptr_eq(slot, &current.slot));
        let seen = of_current.and_then(|(_, seen)| *seen);
        self.answer_at_once(&current, seen, seen_at)
    }

    /// Saves what this request wrote, if that takes no waiting: what the slot shows then, unless there was
    /// nothing to save.
    fn save_at_once(
        &self,
        slot: &Arc<Slot<T>>,
        writer: RequestId,
        seen: Option<SystemTime>,
        is_alone: bool,
    ) -> Option<Option<Seen>> {
        let job = SaveJob { keeps_expiry: !self.counts_as_use(), ..SaveJob::new(Some(writer)) };
        let look = |view: SlotView<'_>, now| self.seen(view, now);
        match save::save_at_once(&self.shared, slot, job, seen, is_alone, look) {
            SavedAtOnce::Nothing => Some(None),
            SavedAtOnce::Done(seen) => Some(Some(seen)),
            SavedAtOnce::No => None,
        }
    }

    /// What the response needs after `saved`, if nothing else has to be waited for.
    fn answer_at_once(
        &self,
        current: &Current<T>,
        saved: Option<Seen>,
        seen_at: Option<SystemTime>,
    ) -> Option<Outcome> {
        let slot = &current.slot;
        let by_old_key =
            current.cookie.is_some_and(|cookie| cookie.by_old_key) && self.counts_as_use();
        if current.is_switching || by_old_key || self.has_unsaved(slot) {
            return None;
        }
        // What has just been saved has its expiry extended with that.
        let (mut seen, refresh) = match saved {
            Some(seen) => (seen, None),
            None => self.look_for_refresh(slot, self.shared.now_after(seen_at)),
        };
        if refresh.is_some() || is_to_send_again(current, seen) {
            return None;
        }
        let mut _turn = None;
        if self.needs_cookie(seen.state) {
            _turn = Some(slot.try_take_turn()?);
            seen = self.inspect(slot, seen.now);
        }
        Some(self.outcome(current, seen, false, None))
    }

    /// Saves what this request wrote, and says what the response needs.
    ///
    /// That another request has ended the session is no error: the request did nothing wrong,
    /// and there is nothing to save it to.
    pub(crate) async fn finish(&self) -> Outcome {
        let _switch = self.begin_switch().await;
        let slot = self.slot();
        let (seen, refresh) = self.look_for_refresh(&slot, self.shared.now());
        let sends_again = is_to_send_again(&self.current(), seen);
        let is_due = self.has_unsaved(&slot) || refresh.is_some() || sends_again;
        let mut turn = match is_due || self.needs_cookie(slot.state()) {
            true => Some(StoreTurn::for_slot(&slot).await),
            false => None,
        };
        let mut error = None;
        let has_saved = self.has_unsaved(&slot);
        if let Some(turn) = &mut turn
            && has_saved
        {
            error = Box::pin(self.save(&slot, turn)).await.err();
        }
        let is_noted = match &mut turn {
            // Unless another request has just done so.
            Some(turn)
                if sends_again
                    && error.is_none()
                    && self.inspect(&slot, self.shared.now()).is_cookie_old =>
            {
                Box::pin(self.note_cookie(&slot, turn)).await
            }
            _ => false,
        };
        if !has_saved && let Some(expires_at) = self.look_for_refresh(&slot, self.shared.now()).1 {
            match &mut turn {
                Some(turn) if slot.has_device() => Box::pin(self.note_seen(&slot, turn)).await,
                _ => Box::pin(self.touch(&slot, expires_at)).await,
            }
        }
        let is_aged = is_noted || self.may_sign_again(&slot, turn.is_some()).await;
        let seen = self.inspect(&slot, self.shared.now());
        self.outcome(&self.current(), seen, is_aged, error)
    }

    fn is_signed_by_old_key(&self) -> bool {
        self.current().cookie.is_some_and(|cookie| cookie.by_old_key)
    }

    /// Whether a cookie that an old key signed can be signed anew: not before another look at the
    /// store, because another process may have ended the session since, and sent a better cookie.
    async fn may_sign_again(&self, slot: &Slot<T>, is_saving: bool) -> bool {
        let is_wanted = self.is_signed_by_old_key() && self.counts_as_use();
        let Some(registration) = slot.registration().filter(|_| is_wanted) else { return false };
        let state = match is_saving {
            true => load::refresh_locked(&self.shared, slot, &registration.key).await,
            false => load::refresh(&self.shared, slot, &registration.key).await,
        };
        matches!(state, Ok(SlotState::Stored))
    }

    async fn touch(&self, slot: &Slot<T>, expires_at: SystemTime) {
        // Noted first, so that of many requests at once one writes. If it fails, nobody's data is
        // lost, and the next request tries again.
        let before = slot.set_expiry(expires_at);
        if let (Some(registration), Some(store)) = (slot.registration(), self.shared.store())
            && let Err(error) = store.touch(&registration.key, expires_at).await
        {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "a session's expiry could not be extended"
            );
            slot.take_expiry_back(expires_at, before);
        }
    }

    /// Notes in the record, for all processes, that the session's cookie is sent again, and says whether
    /// that is so: not if the session has ended, another process has a lease on it, or the store fails.
    async fn note_cookie(&self, slot: &Arc<Slot<T>>, turn: &mut StoreTurn<'_, T>) -> bool {
        let job = SaveJob { kind: SaveKind::NoteCookie, ..SaveJob::new(None) };
        if let Err(error) = save::save_with_retries(&self.shared, slot, turn, job).await
            && error.kind() != ErrorKind::Ended
        {
            tracing::warn!("a session's cookie could not be sent again: {}", error.for_log());
        }
        let seen = self.inspect(slot, self.shared.now());
        seen.state == SlotState::Stored && !seen.is_cookie_old
    }

    /// Extends the expiry with a save, which says when the session was last seen; without one while
    /// another process has a lease on the session, or if it is too large by now.
    async fn note_seen(&self, slot: &Arc<Slot<T>>, turn: &mut StoreTurn<'_, T>) {
        let job = SaveJob { kind: SaveKind::NoteUse, ..SaveJob::new(None) };
        match save::save_with_retries(&self.shared, slot, turn, job).await {
            Err(error) if error.kind() == ErrorKind::Ended => return,
            Err(error) => {
                tracing::warn!("a session's use could not be noted: {}", error.for_log());
                if error.kind() == ErrorKind::Store {
                    return;
                }
            }
            Ok(_) => {}
        }
        if let Some(expires_at) = self.look_for_refresh(slot, self.shared.now()).1
            && expires_at > slot.record().expires_at
        {
            self.touch(slot, expires_at).await;
        }
    }

    /// With it, [until when](crate::save::shared::Shared::refresh_due) the session's use now extends it.
    fn look_for_refresh(&self, slot: &Slot<T>, now: SystemTime) -> (Seen, Option<SystemTime>) {
        let counts_as_use = self.counts_as_use();
        slot.inspect(|view| {
            let refresh = if counts_as_use { self.shared.refresh_due(view, now) } else { None };
            (self.seen(view, now), refresh)
        })
    }

    fn inspect(&self, slot: &Slot<T>, now: SystemTime) -> Seen {
        slot.inspect(|view| self.seen(view, now))
    }

    #[inline]
    fn seen(&self, view: SlotView<'_>, now: SystemTime) -> Seen {
        let SlotView { state, lifetime, record, .. } = view;
        let is_cookie_old = self.counts_as_use() && self.shared.is_cookie_old(view, now);
        Seen { state, lifetime, created_at: record.created_at, is_cookie_old, now }
    }

    async fn save(&self, slot: &Arc<Slot<T>>, turn: &mut StoreTurn<'_, T>) -> Result<(), Error> {
        let writer = self.writer();
        match save::save_with_retries(&self.shared, slot, turn, self.job()).await {
            Err(error) if error.kind() == ErrorKind::Ended => {
                tracing::info!("a session ended while a request wrote to it: not saved");
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::NoCookie => {
                tracing::debug!("a new session has no response to begin with: not saved");
                Ok(())
            }
            Err(error) => {
                // The client is told; nothing is to be saved behind its back, nor shown to others. A task
                // of the request that goes on is told by its next save.
                self.wrote.store(false, SeqCst);
                slot.discard(writer);
                self.current().lost = Some(error.kind());
                Err(error)
            }
            Ok(_) => Ok(()),
        }
    }

    /// What the response needs. From here on no cookie can be sent: if a save would need one, the
    /// caller has the turn at the store.
    fn outcome(
        &self,
        current: &Current<T>,
        seen: Seen,
        is_aged: bool,
        error: Option<Error>,
    ) -> Outcome {
        let shared = &self.shared;
        let slot = &current.slot;
        let registration = slot.registration().filter(|_| seen.state == SlotState::Stored);
        let has_other_lifetime =
            current.lifetime_before.is_some_and(|before| before != seen.lifetime);
        let change = decide(Facts {
            session: registration.map(|registration| registration.id),
            cookie: current.cookie.map(|cookie| cookie.id),
            ended: current.ended,
            changed: has_other_lifetime || self.holds_another(current),
            aged: is_aged || self.is_private_cookie_old(current, seen),
            refreshes: self.counts_as_use(),
            has_rivals: self.has_rivals(current),
        });
        let cookie = match change {
            CookieChange::Keep => Ok(None),
            CookieChange::Remove => Ok(Some(shared.settings.cookie.removal())),
            CookieChange::SetEnded => self.cookie_of_none(current).map(Some),
            CookieChange::Set(id) => {
                if let Some(client) = self.client {
                    shared.plain_http.note_sent(client);
                }
                let age =
                    shared.settings.expiry.max_age(seen.lifetime, seen.created_at, || seen.now);
                self.cookie_for(current, &id, age).map(Some)
            }
        };
        if self.needs_cookie(seen.state) {
            slot.forbid_new_cookie();
        }
        let (cookie, error) = match cookie {
            Ok(cookie) => (cookie, error),
            Err(unsealed) => (None, error.or(Some(unsealed))),
        };
        Outcome {
            opened: true,
            cookie,
            error,
            #[cfg(feature = "device-bound")]
            device: self.device_outcome(current, seen.state),
        }
    }

    #[cfg(feature = "private-cookie")]
    fn cookie_for(
        &self,
        current: &Current<T>,
        id: &SessionId,
        max_age: Option<Duration>,
    ) -> Result<HeaderValue, Error> {
        let Shared { settings: Settings { cookie, .. }, keys, storage, .. } = &*self.shared;
        match storage.is_cookie() {
            true => Ok(cookie.sealed(
                &keys.get(),
                self.write_time(current),
                Some((*id, current.slot.record())),
                max_age,
            )?),
            false => Ok(cookie.signed(&keys.read(), id, max_age)),
        }
    }

    #[cfg(not(feature = "private-cookie"))]
    fn cookie_for(
        &self,
        _current: &Current<T>,
        id: &SessionId,
        max_age: Option<Duration>,
    ) -> Result<HeaderValue, Error> {
        Ok(self.shared.settings.cookie.signed(&self.shared.keys.read(), id, max_age))
    }

    /// A private cookie that says that the session has ended.
    fn cookie_of_none(&self, current: &Current<T>) -> Result<HeaderValue, Error> {
        #[cfg(feature = "private-cookie")]
        if self.shared.storage.is_cookie() {
            let Shared { settings: Settings { cookie, .. }, keys, .. } = &*self.shared;
            // An older one, of a layer with whatever limits, is gone by then.
            let age = Some(LONGEST_COOKIE);
            return Ok(cookie.sealed(&keys.get(), self.write_time(current), None, age)?);
        }
        let _ = current;
        Ok(self.shared.settings.cookie.removal())
    }

    /// When a private cookie counts as written: later than those that the request came with, also if
    /// one of them was written by a process whose clock is ahead.
    #[cfg(feature = "private-cookie")]
    fn write_time(&self, current: &Current<T>) -> SystemTime {
        const STEP: Duration = Duration::from_millis(1);
        let after = current.private.written_at.and_then(|before| before.checked_add(STEP));
        after.map_or(self.shared.now(), |after| after.max(self.shared.now()))
    }

    /// Whether the session is not what its private cookie holds any more.
    fn holds_another(&self, current: &Current<T>) -> bool {
        #[cfg(feature = "private-cookie")]
        if self.shared.storage.is_cookie() {
            let record = current.slot.record();
            return current.private.held != Some((record.version, record.expires_at));
        }
        let _ = current;
        false
    }

    fn is_private_cookie_old(&self, current: &Current<T>, seen: Seen) -> bool {
        #[cfg(feature = "private-cookie")]
        if let Some(sent) = current.private.written_at {
            let (shared, created_at) = (&self.shared, current.slot.record().created_at);
            let Seen { lifetime, now, .. } = seen;
            return shared.settings.expiry.is_cookie_old(lifetime, created_at, sent, || now);
        }
        let _ = (current, seen);
        false
    }

    /// Whether the browser may have another cookie of the name, which holds a session itself.
    fn has_rivals(&self, current: &Current<T>) -> bool {
        #[cfg(feature = "private-cookie")]
        if self.shared.storage.is_cookie() {
            return current.private.has_rivals;
        }
        let _ = current;
        false
    }
}

/// What was opened, taken out of its handle. Unless the session is given back, it is put back there, also by a panic:
/// what the request wrote is then saved without its response.
struct Taken<'a, T: SessionData> {
    opened: Option<Box<OpenedSession<T>>>,
    handle: &'a mut Handle<T>,
}

impl<T: SessionData> Taken<'_, T> {
    fn give_back(mut self) {
        if let Some(opened) = self.opened.take() {
            self.handle.give_back(opened);
        }
    }
}

impl<T: SessionData> Drop for Taken<'_, T> {
    fn drop(&mut self) {
        if let Some(opened) = self.opened.take() {
            self.handle.opened = OnceLock::from(opened);
        }
    }
}

/// Dropped by a save that fails or panics: the request still has something to save.
struct Unsaved<'a> {
    wrote: &'a AtomicBool,
    is_saved: bool,
}

impl Drop for Unsaved<'_> {
    fn drop(&mut self) {
        if !self.is_saved {
            self.wrote.store(true, SeqCst);
        }
    }
}

/// Whether the request's cookie is of the session that it has, and should be sent again.
fn is_to_send_again<T: SessionData>(current: &Current<T>, seen: Seen) -> bool {
    seen.is_cookie_old && current.has_session_of_cookie()
}

#[cfg(test)]
#[cfg(all(feature = "derive", feature = "bincode"))]
mod tests {
    use super::*;

    #[derive(sessions_derive::Session)]
    #[session(crate = crate)]
    struct Data {
        number: u32,
    }

    type HandleOf = Handle<Data>;

    fn size<A, F: Future>(_: impl FnOnce(A) -> F) -> usize {
        size_of::<F>()
    }

    /// What glibc's allocator has in a thread's own cache, which takes no lock (`tcache_max`, and its head);
    /// beside the future of `finish` its box has the handler's response.
    #[test]
    fn the_futures_of_a_response_are_small() {
        let finish = size(|handle: &'static HandleOf| handle.finish());
        assert!(finish <= 1032 - 256, "finish: {finish} bytes");
        type Save =
            (&'static HandleOf, &'static Arc<Slot<Data>>, &'static mut StoreTurn<'static, Data>);
        let save = size(|(handle, slot, turn): Save| handle.save(slot, turn));
        assert!(save <= 1032, "save: {save} bytes");
    }
}
