//! One request's session, from its cookie to its response.

use std::{
    sync::{
        Arc, OnceLock, PoisonError,
        atomic::Ordering::{Relaxed, SeqCst},
    },
    time::{Duration, SystemTime},
};

use http::{HeaderMap, HeaderValue, header};
use tokio::runtime::Handle as Runtime;
use tracing::{Instrument, Level, Span};

#[cfg(feature = "private-cookie")]
use crate::record::expiry::LONGEST_COOKIE;
use crate::{
    cookie::{
        VerifiedCookie,
        change::{CookieChange, Facts, decide},
        plain_http::ClientId,
    },
    data::{SessionData, patch::RequestId},
    error::{Error, ErrorKind},
    identity::id::SessionId,
    record::{Record, expiry::Lifetime, head::Head},
    save::{self, load, shared::Shared, turn::StoreTurn},
    session::wait::Waits,
    slot::{Slot, SlotState, plan::SaveJob},
    sync::{AtomicBool, Mutex, MutexGuard},
};

/// What all clones of a request's [`Session`](crate::Session) share. Every request makes one, so it
/// is small: what only an opened session needs is in a box.
pub(crate) struct Handle<T: SessionData> {
    pub(crate) shared: Arc<Shared<T>>,
    cookies: Cookies,
    /// Who sent the request, where it is worth noting that it is sent a cookie.
    client: Option<ClientId>,
    opened: OnceLock<Box<OpenedSession<T>>>,
    /// The response depends on the cookie, also if the store did not answer.
    asked: AtomicBool,
    /// A guard of this request has changed something: it is this request's to save.
    wrote: AtomicBool,
    /// The response is being made ready: a session that is not stored by then will have no cookie.
    answered: AtomicBool,
    /// The client is gone: what is released from now on is nobody's to save but ours.
    hung_up: AtomicBool,
    /// The request does not count as a use of the session.
    is_no_use: AtomicBool,
    /// The session was opened since the response's future was last polled: what the clock showed then
    /// still holds.
    has_just_opened: AtomicBool,
    pub(crate) waits: Waits,
}

/// The request's `Cookie` headers. More than one are unusual, and only under HTTP/2.
enum Cookies {
    None,
    One(HeaderValue),
    Many(Box<[HeaderValue]>),
}

impl Cookies {
    /// A header's clone shares its bytes.
    fn from_headers(headers: &HeaderMap) -> Self {
        let mut cookies = headers.get_all(header::COOKIE).iter();
        match (cookies.next(), cookies.next()) {
            (None, _) => Self::None,
            (Some(one), None) => Self::One(one.clone()),
            _ => Self::Many(headers.get_all(header::COOKIE).iter().cloned().collect()),
        }
    }

    fn iter(&self) -> std::slice::Iter<'_, HeaderValue> {
        match self {
            Self::None => [].iter(),
            Self::One(cookie) => std::slice::from_ref(cookie).iter(),
            Self::Many(cookies) => cookies.iter(),
        }
    }
}

/// What a request has once it has opened its session.
struct OpenedSession<T: SessionData> {
    current: Mutex<Current<T>>,
    /// Held while the request switches to another session, so that the response does not tell the
    /// client of one session while another takes its place.
    switching: tokio::sync::Mutex<()>,
    /// Set by the first guard that can write.
    writing: OnceLock<AsWriter>,
}

/// A request among those that write to a slot.
struct AsWriter {
    writer: RequestId,
    /// Where the request was when it began to write, for work that has to go on without it.
    runtime: Option<Runtime>,
}

/// The session that a request has now, and how it came by it.
pub(crate) struct Current<T: SessionData> {
    pub(crate) slot: Arc<Slot<T>>,
    /// The cookie that opened a session.
    cookie: Option<VerifiedCookie>,
    /// The request found no session, and has begun this one.
    pub(crate) is_new: bool,
    /// The request has ended the session that its cookie opened.
    ended: bool,
    /// There is a [`SwitchGuard`].
    is_switching: bool,
    /// The lifetime that the session had before this request gave it another.
    pub(crate) lifetime_before: Option<Lifetime>,
    /// What the system's clock showed when the session was opened, if the system's clock is ours.
    opened_at: Option<SystemTime>,
    #[cfg(feature = "private-cookie")]
    private: PrivateCookies,
}

/// What is known of the private cookies that a request came with.
#[cfg(feature = "private-cookie")]
#[derive(Default)]
struct PrivateCookies {
    /// What the newest held: whatever differs from that has to be sent.
    held: Option<(u64, SystemTime)>,
    /// When the newest was written.
    written_at: Option<SystemTime>,
    /// The browser may have others of the name, of another domain or path.
    has_rivals: bool,
}

impl<T: SessionData> Current<T> {
    fn found(slot: Arc<Slot<T>>, cookie: VerifiedCookie) -> Self {
        Self { cookie: Some(cookie), is_new: false, ..Self::unsaved(slot) }
    }

    fn unsaved(slot: Arc<Slot<T>>) -> Self {
        Self {
            slot,
            cookie: None,
            is_new: true,
            ended: false,
            is_switching: false,
            lifetime_before: None,
            opened_at: None,
            #[cfg(feature = "private-cookie")]
            private: PrivateCookies::default(),
        }
    }
}

/// The right to switch the request to another session.
pub(crate) struct SwitchGuard<'a, T: SessionData> {
    handle: &'a Handle<T>,
    _turn: tokio::sync::MutexGuard<'a, ()>,
}

impl<T: SessionData> Drop for SwitchGuard<'_, T> {
    fn drop(&mut self) {
        self.handle.current().is_switching = false;
    }
}

/// How a response has to change for what its request did to the session.
#[derive(Default)]
pub(crate) struct Outcome {
    /// The request looked at its session, or tried to.
    pub(crate) opened: bool,
    pub(crate) cookie: Option<HeaderValue>,
    /// Something was not saved.
    pub(crate) error: Option<Error>,
}

/// What a slot shows in one look.
#[derive(Clone, Copy)]
struct Seen {
    state: SlotState,
    lifetime: Lifetime,
    /// A cookie of the session that the client has should be sent again.
    is_cookie_old: bool,
    now: SystemTime,
}

/// Asked first, because with the feature `log` of `tracing` a disabled span is work too.
fn open_span() -> Span {
    if tracing::enabled!(Level::DEBUG) {
        tracing::debug_span!("open_session")
    } else {
        Span::none()
    }
}

impl<T: SessionData> Handle<T> {
    /// Does no work yet.
    pub(crate) fn new(shared: Arc<Shared<T>>, headers: &HeaderMap) -> Self {
        let client = shared.plain_http.look_at(headers, &shared.cookie);
        Self {
            shared,
            cookies: Cookies::from_headers(headers),
            client,
            opened: OnceLock::new(),
            asked: AtomicBool::new(false),
            wrote: AtomicBool::new(false),
            answered: AtomicBool::new(false),
            hung_up: AtomicBool::new(false),
            is_no_use: AtomicBool::new(false),
            has_just_opened: AtomicBool::new(false),
            waits: Waits::default(),
        }
    }

    /// Finds the session of the request's cookie, or begins one. If the store does not answer, or
    /// the future is dropped, the next call tries again.
    pub(crate) async fn open(&self) -> Result<(), Error> {
        self.asked.store(true, SeqCst);
        if self.opened.get().is_none() && !self.find_at_once() {
            // Boxed, because it would make every handler's future some hundred bytes larger.
            Box::pin(self.find().instrument(open_span())).await?;
        }
        // The response may have left while we looked; its `finish` then found no session to forbid a cookie for.
        if self.is_answered() {
            self.forbid_new_cookie(&self.slot());
        }
        Ok(())
    }

    /// Where the store answers at once it takes no future. False if it does not, or if there is a save
    /// to wait for.
    fn find_at_once(&self) -> bool {
        let shared = &self.shared;
        #[cfg(feature = "private-cookie")]
        if shared.storage.is_cookie() {
            self.found(self.find_in_cookie());
            return true;
        }
        let Some(store) = shared.storage.store_at_once() else { return false };
        let mut has_moved = false;
        for cookie in self.verified_cookies() {
            let slot = shared.registry.slot_of(cookie.id, cookie.key);
            let Some(registration) = slot.registration() else { continue };
            match load::fetch_at_once(shared, store, &slot, &registration.key) {
                Some((SlotState::Stored, seen)) => {
                    tracing::debug!("opened a session");
                    self.found(Current { opened_at: seen, ..Current::found(slot, cookie) });
                    return true;
                }
                Some(_) => has_moved |= slot.has_moved(),
                None => return false,
            }
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
            if load::refresh(shared, &slot, &registration.key).await? == SlotState::Stored {
                tracing::debug!("opened a session");
                self.found(Current::found(slot, cookie));
                return Ok(());
            }
            has_moved |= slot.has_moved();
        }
        self.found_none(has_moved);
        Ok(())
    }

    fn verified_cookies(&self) -> impl Iterator<Item = VerifiedCookie> {
        let Shared { cookie, keys, seen_cookies, .. } = &*self.shared;
        cookie.verified(keys, seen_cookies, self.cookies.iter())
    }

    /// A client whose session has another id since a moment ago has the cookie of that, or is just
    /// getting it: one of a session that begins here would take its place.
    fn found_none(&self, has_moved: bool) {
        let now = self.shared.now();
        let slot = Slot::unsaved(now);
        if has_moved {
            tracing::debug!("the session goes on under another id");
            slot.end_as(true);
        }
        let opened_at = self.shared.clock.of_system(now);
        self.found(Current { opened_at, ..Current::unsaved(Arc::new(slot)) });
    }

    /// If two tasks of one request open at once, the first wins.
    fn found(&self, current: Current<T>) {
        let open = Box::new(OpenedSession {
            current: Mutex::new(current),
            switching: tokio::sync::Mutex::new(()),
            writing: OnceLock::new(),
        });
        self.opened.get_or_init(|| open);
        self.has_just_opened.store(true, Relaxed);
        self.shared.background.note_runtime();
    }

    /// The session that the newest private cookie holds, if it is not over. It is this request's alone, and not entered anywhere.
    #[cfg(feature = "private-cookie")]
    fn find_in_cookie(&self) -> Current<T> {
        let shared = &self.shared;
        let unsaved = || Current::unsaved(Arc::new(Slot::unsaved(shared.now())));
        let Some(newest) = shared.cookie.newest(&shared.keys, self.cookies.iter()) else {
            return unsaved();
        };
        let mut private = PrivateCookies {
            held: None,
            written_at: Some(newest.written_at),
            has_rivals: !newest.is_alone,
        };
        if let Some((cookie, record)) = newest.session {
            private.held = Some((record.version, record.expires_at));
            if let Some((record, head)) = load::usable(shared, record, shared.now()) {
                let slot = Arc::new(Slot::loading(shared.registry.registration(cookie.id)));
                slot.reconcile(record, head, shared.policy, true);
                tracing::debug!("opened a session");
                return Current { private, ..Current::found(slot, cookie) };
            }
        }
        Current { private, ..unsaved() }
    }

    /// A [`Session`](crate::Session) comes out of `Session::open` alone.
    fn opened_session(&self) -> &OpenedSession<T> {
        self.opened.get().expect("a session is opened before it is handed out")
    }

    pub(crate) fn current(&self) -> MutexGuard<'_, Current<T>> {
        // Each change is one assignment or a few that cannot panic.
        self.opened_session().current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until no other task of the request switches.
    pub(crate) async fn begin_switch(&self) -> SwitchGuard<'_, T> {
        let turn = self.opened_session().switching.lock().await;
        self.current().is_switching = true;
        SwitchGuard { handle: self, _turn: turn }
    }

    pub(crate) fn slot(&self) -> Arc<Slot<T>> {
        self.current().slot.clone()
    }

    /// Stands for this request among those that write to a slot.
    pub(crate) fn writer(&self) -> RequestId {
        let begin = || AsWriter { writer: RequestId::next(), runtime: Runtime::try_current().ok() };
        self.opened_session().writing.get_or_init(begin).writer
    }

    /// What this request wants of a save.
    pub(crate) fn job(&self) -> SaveJob<'static> {
        SaveJob { keeps_expiry: self.is_no_use(), ..SaveJob::new(Some(self.writer())) }
    }

    /// The request does not count as a use of its session, however it ends.
    pub(crate) fn note_no_use(&self) {
        self.is_no_use.store(true, SeqCst);
    }

    fn is_no_use(&self) -> bool {
        self.is_no_use.load(SeqCst)
    }

    /// Where this request was when it began to write.
    pub(crate) fn runtime(&self) -> Option<&Runtime> {
        self.opened.get()?.writing.get()?.runtime.as_ref()
    }

    /// Something of this request's in `slot` is not saved yet.
    pub(crate) fn note_write(&self, slot: &Arc<Slot<T>>) {
        self.wrote.store(true, SeqCst);
        if self.hung_up.load(SeqCst) {
            self.save_without_response(slot, None);
        }
    }

    pub(crate) fn is_answered(&self) -> bool {
        self.answered.load(SeqCst)
    }

    /// Gives the request a new session in place of the one that it has ended.
    pub(crate) fn reset_to_new(&self) {
        let mut current = self.current();
        current.slot = Arc::new(Slot::unsaved(self.shared.now()));
        current.ended = current.cookie.is_some();
        current.is_new = true;
        if self.is_answered() {
            self.forbid_new_cookie(&current.slot);
        }
    }

    /// The client has hung up, so that there is no response. Tasks of the request may still use its session.
    pub(crate) fn on_disconnect(&self) {
        self.hung_up.store(true, SeqCst);
        self.on_response_lost();
        if self.opened.get().is_some() {
            self.save_without_response(&self.slot(), None);
        }
    }

    /// What a request wrote before it was dropped, or after its response had left.
    fn save_without_response(&self, slot: &Arc<Slot<T>>, gone: Option<RequestId>) {
        if !self.has_unsaved(slot) {
            return;
        }
        match slot.state() {
            SlotState::Stored if !self.shared.storage.is_cookie() => {
                let job = SaveJob { keeps_expiry: self.is_no_use(), ..SaveJob::new(None) };
                self.shared.save_in_background(slot.clone(), self.runtime(), gone, job);
            }
            SlotState::Ended => tracing::debug!("written to a session after its end: not saved"),
            // Nobody has its cookie.
            _ => tracing::debug!("written to a session that has no response: not saved"),
        }
    }

    /// There will be no response that could carry a cookie: what is written from now on needs a session
    /// that is stored already.
    pub(crate) fn on_response_lost(&self) {
        self.answered.store(true, SeqCst);
        if self.opened.get().is_some() {
            self.forbid_new_cookie(&self.slot());
        }
    }

    /// The response's future is polled, and may poll the handler: what was seen earlier may have
    /// changed.
    pub(crate) fn begin_poll(&self) {
        self.has_just_opened.store(false, Relaxed);
    }

    /// What the response needs, if that can be said without waiting for anything: nothing to save, or
    /// a store that answers at once, and nobody in the middle of something.
    pub(crate) fn finish_now(&self) -> Option<Outcome> {
        // First this, then the look at `current`: `open` does it the other way round, so that one of
        // the two sees the other.
        self.answered.store(true, SeqCst);
        if self.opened.get().is_none() {
            return Some(Outcome { opened: self.asked.load(SeqCst), ..Outcome::default() });
        }
        let has_just_opened = self.has_just_opened.load(Relaxed);
        let seen_at = if has_just_opened { self.current().opened_at } else { None };
        // Before the look at `current`: what a save drops may have a `Drop` that looks there.
        let is_saved = self.save_at_once(seen_at)?;
        let current = self.current();
        let slot = &current.slot;
        let by_old_key =
            current.cookie.is_some_and(|cookie| cookie.by_old_key) && !self.is_no_use();
        if current.is_switching || by_old_key || self.has_unsaved(slot) {
            return None;
        }
        let now = self.shared.now_after(seen_at);
        // What has just been saved has its expiry extended with that.
        let (mut seen, refresh) = match is_saved {
            true => (self.inspect(slot, now), None),
            false => self.look_for_refresh(slot, now),
        };
        if refresh.is_some() || is_to_send_again(&current, seen) {
            return None;
        }
        let mut _turn = None;
        if self.needs_cookie(seen.state) {
            _turn = Some(slot.store_turn.try_lock().ok()?);
            seen = self.inspect(slot, now);
        }
        Some(self.outcome(&current, seen, false, None))
    }

    /// Saves what this request wrote, if that takes no waiting, and says whether there was anything.
    fn save_at_once(&self, seen: Option<SystemTime>) -> Option<bool> {
        if !self.wrote.load(SeqCst) {
            return Some(false);
        }
        let slot = self.slot();
        if !slot.has_unsaved() {
            return Some(false);
        }
        save::save_at_once(&self.shared, &slot, self.job(), seen).then_some(true)
    }

    /// Saves what this request wrote, and says what the response needs.
    ///
    /// That the session has been ended by somebody else is no error: the request did nothing wrong,
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
            error = self.save(&slot, turn).await.err();
        }
        let is_noted = match &mut turn {
            // Unless another request has just done so.
            Some(turn)
                if sends_again
                    && error.is_none()
                    && self.inspect(&slot, self.shared.now()).is_cookie_old =>
            {
                self.note_cookie(&slot, turn).await
            }
            _ => false,
        };
        if !has_saved && let Some(expires_at) = self.look_for_refresh(&slot, self.shared.now()).1 {
            match &mut turn {
                Some(turn) if slot.has_device() => self.note_seen(&slot, turn).await,
                _ => self.touch(&slot, expires_at).await,
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
        let is_wanted = self.is_signed_by_old_key() && !self.is_no_use();
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
            slot.set_expiry(before);
        }
    }

    /// Notes in the record, for all processes, that the session's cookie is sent again, and says whether
    /// that is so: not if the session has ended, another process has a lease on it, or the store fails.
    async fn note_cookie(&self, slot: &Arc<Slot<T>>, turn: &mut StoreTurn<'_>) -> bool {
        let job = SaveJob { is_seen: true, sends_cookie: true, ..SaveJob::new(None) };
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
    async fn note_seen(&self, slot: &Arc<Slot<T>>, turn: &mut StoreTurn<'_>) {
        let job = SaveJob { is_seen: true, ..SaveJob::new(None) };
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

    /// Whether a save after the response would need a cookie that cannot be sent any more.
    fn needs_cookie(&self, state: SlotState) -> bool {
        state == SlotState::Unsaved || self.shared.storage.is_cookie()
    }

    fn forbid_new_cookie(&self, slot: &Slot<T>) {
        if self.needs_cookie(slot.state()) {
            slot.forbid_new_cookie();
        }
    }

    /// With it, until when the session's use now extends it, if that is worth a write; or until when
    /// it lasts anyhow, if it is to be noted that it was seen.
    fn look_for_refresh(&self, slot: &Slot<T>, now: SystemTime) -> (Seen, Option<SystemTime>) {
        let expiry = &self.shared.expiry;
        let is_no_use = self.is_no_use();
        slot.inspect(|state, lifetime, record, head| {
            let is_seen_anew =
                || head.device.as_ref().is_some_and(|device| expiry.is_seen_anew(device.1, now));
            let refresh = match state {
                SlotState::Stored if !is_no_use => expiry
                    .refresh(lifetime, record, now)
                    .or_else(|| is_seen_anew().then_some(record.expires_at)),
                _ => None,
            };
            (self.seen(state, lifetime, record, head, now), refresh)
        })
    }

    fn inspect(&self, slot: &Slot<T>, now: SystemTime) -> Seen {
        slot.inspect(|state, lifetime, record, head| self.seen(state, lifetime, record, head, now))
    }

    fn seen(
        &self,
        state: SlotState,
        lifetime: Lifetime,
        record: &Record,
        head: &Head,
        now: SystemTime,
    ) -> Seen {
        let Shared { expiry, storage, .. } = &*self.shared;
        // A private cookie says itself when it was sent.
        let is_cookie_old =
            state == SlotState::Stored && !storage.is_cookie() && !self.is_no_use() && {
                let (created_at, sent) = (record.created_at, head.cookie_sent);
                let sent = sent.unwrap_or(created_at);
                expiry.is_cookie_old(lifetime, created_at, sent, || now)
            };
        Seen { state, lifetime, is_cookie_old, now }
    }

    async fn save(&self, slot: &Arc<Slot<T>>, turn: &mut StoreTurn<'_>) -> Result<(), Error> {
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
                // The client is told; nothing is to be saved behind its back, nor shown to others.
                self.wrote.store(false, SeqCst);
                slot.discard(writer);
                Err(error)
            }
            Ok(_) => Ok(()),
        }
    }

    fn has_unsaved(&self, slot: &Slot<T>) -> bool {
        self.wrote.load(SeqCst) && slot.has_unsaved()
    }

    /// What the response needs. From here on no cookie can be sent: if a save would need one, the
    /// caller holds `slot.store_turn`.
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
            refreshes: !self.is_no_use(),
            has_rivals: self.has_rivals(current),
        });
        let cookie = match change {
            CookieChange::Keep => Ok(None),
            CookieChange::Remove => Ok(Some(shared.cookie.removal())),
            CookieChange::SetEnded => self.cookie_of_none(current).map(Some),
            CookieChange::Set(id) => {
                if let Some(client) = self.client {
                    shared.plain_http.note_sent(client);
                }
                let record = slot.record();
                let age = shared.expiry.max_age(seen.lifetime, record.created_at, || seen.now);
                self.cookie_for(current, &id, record, age).map(Some)
            }
        };
        if self.needs_cookie(seen.state) {
            slot.forbid_new_cookie();
        }
        match cookie {
            Ok(cookie) => Outcome { opened: true, cookie, error },
            Err(unsealed) => {
                Outcome { opened: true, cookie: None, error: error.or(Some(unsealed)) }
            }
        }
    }

    #[cfg(feature = "private-cookie")]
    fn cookie_for(
        &self,
        current: &Current<T>,
        id: &SessionId,
        record: Record,
        max_age: Option<Duration>,
    ) -> Result<HeaderValue, Error> {
        let Shared { cookie, keys, storage, .. } = &*self.shared;
        match storage.is_cookie() {
            true => {
                Ok(cookie.sealed(keys, self.write_time(current), Some((*id, record)), max_age)?)
            }
            false => Ok(cookie.signed(keys, id, max_age)),
        }
    }

    #[cfg(not(feature = "private-cookie"))]
    fn cookie_for(
        &self,
        _current: &Current<T>,
        id: &SessionId,
        _record: Record,
        max_age: Option<Duration>,
    ) -> Result<HeaderValue, Error> {
        Ok(self.shared.cookie.signed(&self.shared.keys, id, max_age))
    }

    /// A private cookie that says that the session has ended.
    fn cookie_of_none(&self, current: &Current<T>) -> Result<HeaderValue, Error> {
        #[cfg(feature = "private-cookie")]
        if self.shared.storage.is_cookie() {
            let Shared { cookie, keys, .. } = &*self.shared;
            // An older one, of a layer with whatever limits, is gone by then.
            let age = Some(LONGEST_COOKIE);
            return Ok(cookie.sealed(keys, self.write_time(current), None, age)?);
        }
        let _ = current;
        Ok(self.shared.cookie.removal())
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
            return shared.expiry.is_cookie_old(lifetime, created_at, sent, || now);
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

/// Whether the request's cookie is of the session that it has, and should be sent again.
fn is_to_send_again<T: SessionData>(current: &Current<T>, seen: Seen) -> bool {
    let is_same = |id| current.cookie.is_some_and(|cookie| cookie.id == id);
    seen.is_cookie_old
        && current.slot.registration().is_some_and(|registration| is_same(registration.id))
}

/// What a request wrote after its response had left is saved when nobody has it any more.
impl<T: SessionData> Drop for Handle<T> {
    fn drop(&mut self) {
        if *self.wrote.get_mut() {
            self.save_without_response(&self.slot(), Some(self.writer()));
        }
        if let Some(open) = self.opened.take() {
            let current = open.current.into_inner().unwrap_or_else(PoisonError::into_inner);
            // What one request alone is made of is quicker made anew than fetched from memory that
            // has left the processor's cache, and most new sessions are not seen again.
            if current.cookie.is_some_and(|cookie| cookie.is_repeated) {
                self.shared.registry.give_back(current.slot);
            }
        }
    }
}
