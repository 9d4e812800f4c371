//! What a request knows of its session, from its cookie to its response.
//!
//! ```text
//! unopened ──open──► opened: a found session, or a new one ──┬─► finish_now / finish: the response
//!                      │ renew_id, login, destroy: another   ├─► on_disconnect: the client has hung up
//!                      └─ session takes its place            └─► on_response_lost: a handler panicked
//! ```
//!
//! The last handle that is dropped saves what was written after the response had left.

use std::{
    sync::{
        Arc, OnceLock, PoisonError,
        atomic::Ordering::{Relaxed, SeqCst},
    },
    time::SystemTime,
};

use http::{HeaderMap, HeaderValue, Method, header};
use tokio::runtime::Handle as Runtime;

#[cfg(feature = "device-bound")]
use crate::session::device::DeviceLook;
use crate::{
    cookie::{VerifiedCookie, plain_http::ClientId},
    data::{SessionData, patch::RequestId},
    error::{Error, ErrorKind},
    record::expiry::Lifetime,
    save::shared::Shared,
    session::wait::Waits,
    slot::{Slot, SlotState, lock::Access, plan::SaveJob},
    sync::{AtomicBool, Mutex, MutexGuard},
};

/// What all clones of a request's [`Session`](crate::Session) share. Every request makes one, so it
/// is small: what only an opened session needs is in a box.
pub(crate) struct Handle<T: SessionData> {
    pub(crate) shared: Arc<Shared<T>>,
    pub(super) cookies: Cookies,
    /// Who sent the request, where it is worth noting that it is sent a cookie.
    pub(super) client: Option<ClientId>,
    pub(super) opened: OnceLock<Box<OpenedSession<T>>>,
    /// The response depends on the cookie, also if the store did not answer.
    pub(super) asked: AtomicBool,
    /// A guard of this request has changed something: it is this request's to save.
    pub(super) wrote: AtomicBool,
    /// The response is being made ready: a session that is not stored by then will have no cookie.
    pub(super) answered: AtomicBool,
    /// The client is gone: what is released from now on is nobody's to save but ours.
    hung_up: AtomicBool,
    /// The request does not count as a use of the session.
    is_without_refresh: AtomicBool,
    /// The session was opened since the response's future was last polled: what the clock showed then
    /// still holds.
    pub(super) has_just_opened: AtomicBool,
    pub(crate) waits: Waits,
    /// `None` on a layer that binds no sessions: its requests pay for a pointer.
    #[cfg(feature = "device-bound")]
    pub(super) device: Option<Box<DeviceLook>>,
    /// The request came with a cookie of an earlier library, whose session is over or one of ours.
    #[cfg(feature = "adopt")]
    pub(super) old_cookie_is_over: AtomicBool,
}

/// The request's `Cookie` headers. More than one come over HTTP/2 alone, where Chromium sends one for each cookie.
pub(super) enum Cookies {
    None,
    One(HeaderValue),
    Many(Box<[HeaderValue]>),
}

impl Cookies {
    /// A header's clone shares its bytes.
    #[inline]
    fn from_headers(headers: &HeaderMap) -> Self {
        let has_one_of_each = headers.len() == headers.keys_len();
        match headers.get(header::COOKIE) {
            None => Self::None,
            Some(one) if has_one_of_each => Self::One(one.clone()),
            Some(_) => Self::Many(headers.get_all(header::COOKIE).iter().cloned().collect()),
        }
    }

    pub(super) fn as_slice(&self) -> &[HeaderValue] {
        match self {
            Self::None => &[],
            Self::One(cookie) => std::slice::from_ref(cookie),
            Self::Many(cookies) => cookies,
        }
    }

    pub(super) fn iter(&self) -> std::slice::Iter<'_, HeaderValue> {
        self.as_slice().iter()
    }
}

/// What a request has once it has opened its session.
pub(super) struct OpenedSession<T: SessionData> {
    pub(super) current: Mutex<Current<T>>,
    /// What the system's clock showed when the session was opened, if the system's clock is ours.
    pub(super) opened_at: Option<SystemTime>,
    /// Held while the request switches to another session, so that the response does not tell the
    /// client of one session while another takes its place.
    pub(super) switching: tokio::sync::Mutex<()>,
    /// The request among those that write to a slot.
    pub(super) writer: RequestId,
}

/// The session that a request has now, and how it came by it.
pub(crate) struct Current<T: SessionData> {
    pub(crate) slot: Arc<Slot<T>>,
    /// The cookie that opened a session.
    pub(super) cookie: Option<VerifiedCookie>,
    /// The request found no session, and has begun this one.
    pub(crate) is_new: bool,
    /// The request has ended the session that its cookie opened.
    pub(super) ended: bool,
    /// There is a [`SwitchGuard`](crate::session::exchange::SwitchGuard).
    pub(super) is_switching: bool,
    /// What was seen when the cookie's session was found: a response needs nothing for it, if the request writes
    /// nothing.
    pub(super) needs_nothing: bool,
    /// The lifetime that the session had before this request gave it another.
    pub(crate) lifetime_before: Option<Lifetime>,
    /// What the request had written was given up with its response, and a task of the request that goes
    /// on has not been told yet.
    pub(super) lost: Option<ErrorKind>,
    /// Where the request was when it began to write, for work that has to go on without it.
    pub(super) runtime: Option<Runtime>,
    #[cfg(feature = "private-cookie")]
    pub(super) private: PrivateCookies,
}

/// What is known of the private cookies that a request came with.
#[cfg(feature = "private-cookie")]
#[derive(Default)]
pub(super) struct PrivateCookies {
    /// What the newest held: whatever differs from that has to be sent.
    pub(super) held: Option<(u64, SystemTime)>,
    /// When the newest was written.
    pub(super) written_at: Option<SystemTime>,
    /// The browser may have others of the name, of another domain or path.
    pub(super) has_rivals: bool,
}

impl<T: SessionData> Current<T> {
    pub(super) fn found(slot: Arc<Slot<T>>, cookie: VerifiedCookie) -> Self {
        Self { cookie: Some(cookie), is_new: false, ..Self::unsaved(slot) }
    }

    pub(super) fn unsaved(slot: Arc<Slot<T>>) -> Self {
        Self {
            slot,
            cookie: None,
            is_new: true,
            ended: false,
            is_switching: false,
            needs_nothing: false,
            lifetime_before: None,
            lost: None,
            runtime: None,
            #[cfg(feature = "private-cookie")]
            private: PrivateCookies::default(),
        }
    }
}

impl<T: SessionData> Current<T> {
    /// Whether the session is the one that the request's cookie names.
    pub(super) fn has_session_of_cookie(&self) -> bool {
        let registration = self.slot.registration();
        self.cookie.is_some_and(|cookie| registration.is_some_and(|it| it.id == cookie.id))
    }

    /// A task of the request is about to write.
    pub(super) fn note_writing(&mut self) {
        if self.runtime.is_none() {
            self.runtime = Runtime::try_current().ok();
        }
    }
}

impl<T: SessionData> Handle<T> {
    /// Does no work yet.
    #[inline]
    pub(crate) fn new(shared: Arc<Shared<T>>, method: &Method, headers: &HeaderMap) -> Self {
        let cookies = Cookies::from_headers(headers);
        let client =
            shared.plain_http.look_at(headers, cookies.iter().next(), &shared.settings.cookie);
        #[cfg(feature = "device-bound")]
        let look = || Box::new(DeviceLook::from_headers(method, headers));
        #[cfg(feature = "device-bound")]
        let device = shared.devices.is_some().then(look);
        #[cfg(not(feature = "device-bound"))]
        let _ = method;
        Self {
            #[cfg(feature = "device-bound")]
            device,
            shared,
            cookies,
            client,
            opened: OnceLock::new(),
            asked: AtomicBool::new(false),
            wrote: AtomicBool::new(false),
            answered: AtomicBool::new(false),
            hung_up: AtomicBool::new(false),
            is_without_refresh: AtomicBool::new(false),
            has_just_opened: AtomicBool::new(false),
            waits: Waits::default(),
            #[cfg(feature = "adopt")]
            old_cookie_is_over: AtomicBool::new(false),
        }
    }

    /// A [`Session`](crate::Session) comes out of `Session::open` alone.
    pub(super) fn opened_session(&self) -> &OpenedSession<T> {
        self.opened.get().expect("a session is opened before it is handed out")
    }

    pub(crate) fn current(&self) -> MutexGuard<'_, Current<T>> {
        // Each change is one assignment or a few that cannot panic.
        self.opened_session().current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The same for a task that is about to take a guard.
    #[inline]
    pub(super) fn current_for(&self, access: Access) -> MutexGuard<'_, Current<T>> {
        let mut current = self.current();
        if access == Access::Write {
            current.note_writing();
        }
        current
    }

    pub(crate) fn slot(&self) -> Arc<Slot<T>> {
        self.current().slot.clone()
    }

    /// Stands for this request among those that write to a slot.
    pub(crate) fn writer(&self) -> RequestId {
        self.opened_session().writer
    }

    /// What this request wants of a save.
    pub(crate) fn job(&self) -> SaveJob<'static> {
        SaveJob { keeps_expiry: !self.counts_as_use(), ..SaveJob::new(Some(self.writer())) }
    }

    /// The request does not count as a use of its session, however it ends.
    pub(crate) fn note_without_refresh(&self) {
        self.is_without_refresh.store(true, SeqCst);
    }

    pub(super) fn counts_as_use(&self) -> bool {
        !self.is_without_refresh.load(SeqCst)
    }

    /// Where this request was when it began to write.
    pub(crate) fn runtime(&self) -> Option<Runtime> {
        self.opened.get().and_then(|_| self.current().runtime.clone())
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

    /// Tells, once, that what the request had written was given up with its response.
    pub(crate) fn check_lost(&self) -> Result<(), Error> {
        match self.current().lost.take() {
            Some(kind) => Err(Error::lost_with_response(kind)),
            None => Ok(()),
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
                let job = SaveJob { keeps_expiry: !self.counts_as_use(), ..SaveJob::new(None) };
                self.shared.save_in_background(slot.clone(), self.runtime().as_ref(), gone, job);
            }
            SlotState::Ended(_) => tracing::debug!("written to a session after its end: not saved"),
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

    /// Whether a save after the response would need a cookie that cannot be sent any more.
    pub(super) fn needs_cookie(&self, state: SlotState) -> bool {
        state == SlotState::Unsaved || self.shared.storage.is_cookie()
    }

    pub(super) fn forbid_new_cookie(&self, slot: &Slot<T>) {
        if self.needs_cookie(slot.state()) {
            slot.forbid_new_cookie();
        }
    }

    /// The request is done with its session.
    #[allow(clippy::boxed_local, reason = "out of the box a large one would be moved once more")]
    pub(super) fn give_back(&self, opened: Box<OpenedSession<T>>) {
        let current = opened.current.into_inner().unwrap_or_else(PoisonError::into_inner);
        // What one request alone is made of is quicker made anew than fetched from memory that
        // has left the processor's cache, and most new sessions are not seen again.
        if current.cookie.is_some_and(|cookie| cookie.is_repeated) {
            self.shared.registry.give_back(current.slot);
        }
    }

    pub(super) fn has_unsaved(&self, slot: &Slot<T>) -> bool {
        self.wrote.load(SeqCst) && slot.has_unsaved()
    }
}

/// What a request wrote after its response had left is saved when nobody has it any more.
impl<T: SessionData> Drop for Handle<T> {
    #[inline]
    fn drop(&mut self) {
        if *self.wrote.get_mut() {
            self.save_without_response(&self.slot(), Some(self.writer()));
        }
        if let Some(opened) = self.opened.take() {
            self.give_back(opened);
        }
    }
}
