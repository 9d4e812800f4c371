//! One request's session, from its cookie to its response.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, Ordering::SeqCst},
};

use http::{HeaderMap, HeaderValue, header};
use tokio::sync::OnceCell;
use tracing::Instrument;

use crate::{
    SessionData,
    cookie::VerifiedCookie,
    error::{Error, ErrorKind},
    layer::decide::{CookieChange, Facts, decide},
    save,
    shared::Shared,
    slot::{Slot, Stage},
};

/// What all clones of a request's [`Session`](crate::Session) share.
pub(crate) struct Handle<T: SessionData> {
    pub(crate) shared: Arc<Shared<T>>,
    cookies: Cookies,
    opened: OnceCell<Mutex<Opened<T>>>,
    /// Held while the request exchanges its session for another, so that the response does not tell
    /// the client of the one while the other takes its place.
    pub(crate) exchange: tokio::sync::Mutex<()>,
    /// A guard of this request has changed something: it is this request's to save.
    wrote: AtomicBool,
    /// The response is being made ready: a session that is not stored by then will have no cookie.
    answered: AtomicBool,
}

/// The request's `Cookie` headers. More than one are unusual, and only under HTTP/2.
struct Cookies {
    first: Option<HeaderValue>,
    more: Vec<HeaderValue>,
}

/// The session that a request has now, and how it came by it.
pub(crate) struct Opened<T: SessionData> {
    pub(crate) slot: Arc<Slot<T>>,
    /// The cookie that opened a session.
    cookie: Option<VerifiedCookie>,
    /// The request has begun its session, and not found it.
    pub(crate) is_new: bool,
    /// The request has ended the session that its cookie opened.
    ended: bool,
    /// How long the cookie may stay has changed.
    pub(crate) resend: bool,
}

/// How a response has to change for what its request did to the session.
#[derive(Default)]
pub(crate) struct Outcome {
    /// The request looked at its session.
    pub(crate) opened: bool,
    pub(crate) cookie: Option<HeaderValue>,
}

impl<T: SessionData> Handle<T> {
    /// Does no work yet: a header's clone shares its bytes.
    pub(crate) fn new(shared: Arc<Shared<T>>, headers: &HeaderMap) -> Self {
        let mut cookies = headers.get_all(header::COOKIE).iter().cloned();
        Self {
            shared,
            cookies: Cookies { first: cookies.next(), more: cookies.collect() },
            opened: OnceCell::new(),
            exchange: tokio::sync::Mutex::new(()),
            wrote: AtomicBool::new(false),
            answered: AtomicBool::new(false),
        }
    }

    /// Finds the session of the request's cookie, or begins one. If the store does not answer, or
    /// the future is dropped, the next call tries again.
    pub(crate) async fn open(&self) -> Result<(), Error> {
        self.opened
            .get_or_try_init(|| async { Ok::<_, Error>(Mutex::new(self.find().await?)) })
            .instrument(tracing::debug_span!("open_session"))
            .await?;
        // The response may have left while we looked; its `finish` then found nothing to close.
        if self.is_answered() {
            self.slot().close_fresh();
        }
        Ok(())
    }

    async fn find(&self) -> Result<Opened<T>, Error> {
        let shared = &self.shared;
        shared.background.note_runtime();
        for cookie in self.verified_cookies() {
            // First the slot, then the record: whatever is saved in this process after the record
            // was loaded is then known to the slot.
            let slot = shared.registry.slot_of(cookie.id);
            let Some(place) = slot.place() else { continue };
            if save::refresh(shared, &slot, &place.key).await? == Stage::Live {
                tracing::debug!("opened a session");
                let cookie = Some(cookie);
                return Ok(Opened { slot, cookie, is_new: false, ended: false, resend: false });
            }
        }
        let slot = Arc::new(Slot::fresh(shared.now()));
        Ok(Opened { slot, cookie: None, is_new: true, ended: false, resend: false })
    }

    /// More than one are as good as never there, so that this does not allocate.
    fn verified_cookies(&self) -> impl Iterator<Item = VerifiedCookie> + use<T> {
        let Shared { cookie, keys, .. } = &*self.shared;
        let headers = self.cookies.first.iter().chain(&self.cookies.more);
        let mut verified = cookie.verified(keys, headers);
        let first = verified.next();
        let more: Vec<VerifiedCookie> = verified.collect();
        first.into_iter().chain(more)
    }

    /// A [`Session`](crate::Session) comes out of `Session::open` alone.
    pub(crate) fn opened(&self) -> MutexGuard<'_, Opened<T>> {
        let opened = self.opened.get().expect("a session is opened before it is handed out");
        // Each change is one assignment or a few that cannot panic.
        opened.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn slot(&self) -> Arc<Slot<T>> {
        self.opened().slot.clone()
    }

    pub(crate) fn note_write(&self) {
        self.wrote.store(true, SeqCst);
    }

    pub(crate) fn is_answered(&self) -> bool {
        self.answered.load(SeqCst)
    }

    /// Gives the request a new session in place of the one that it has ended.
    pub(crate) fn start_over(&self) {
        let mut opened = self.opened();
        opened.slot = Arc::new(Slot::fresh(self.shared.now()));
        opened.ended = opened.cookie.is_some();
        opened.is_new = true;
        if self.is_answered() {
            opened.slot.close_fresh();
        }
    }

    /// There will be no response that could carry a cookie.
    pub(crate) fn cannot_answer(&self) {
        self.answered.store(true, SeqCst);
        if self.opened.initialized() {
            self.slot().close_fresh();
        }
    }

    /// What the response needs, if that can be said without waiting for anything: nothing to save,
    /// nobody in the middle of something.
    pub(crate) fn finish_now(&self) -> Option<Outcome> {
        // First this, then the look at `opened`: `open` does it the other way round, so that one of
        // the two sees the other.
        self.answered.store(true, SeqCst);
        if !self.opened.initialized() {
            return Some(Outcome::default());
        }
        let _exchange = self.exchange.try_lock().ok()?;
        let slot = self.slot();
        if self.has_unsaved(&slot) {
            return None;
        }
        match slot.stage() {
            Stage::Fresh => {
                let _saving = slot.saving.try_lock().ok()?;
                slot.close_fresh();
            }
            Stage::Live if self.refresh(&slot).is_some() => return None,
            _ => {}
        }
        Some(self.outcome())
    }

    /// Saves what this request wrote, and says what the response needs.
    ///
    /// An error means that something was not saved. That the session has been ended by somebody else
    /// is none: the request did nothing wrong, and there is nothing to save it to.
    pub(crate) async fn finish(&self) -> Result<Outcome, Error> {
        let _exchange = self.exchange.lock().await;
        let slot = self.slot();
        if self.has_unsaved(&slot) || slot.stage() == Stage::Fresh {
            let _saving = slot.saving.lock().await;
            if self.has_unsaved(&slot) {
                self.save(&slot).await?;
            }
            slot.close_fresh();
        }
        if let Some(expires_at) = self.refresh(&slot)
            && let Some(place) = slot.place()
        {
            // Noted first, so that of many requests at once one writes. If it fails, nobody's data
            // is lost, and the next opening finds the old expiry and tries again.
            slot.touched(expires_at);
            if let Err(error) = self.shared.store.touch(&place.key, expires_at).await {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "a session's expiry could not be extended"
                );
            }
        }
        Ok(self.outcome())
    }

    /// The caller holds `slot.saving`.
    async fn save(&self, slot: &Arc<Slot<T>>) -> Result<(), Error> {
        match save::save_locked(&self.shared, slot).await {
            Err(error) if error.kind() == ErrorKind::Ended => {
                tracing::info!("a session ended while a request wrote to it: not saved");
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::NoCookie => {
                tracing::debug!("a new session has no response to begin with: not saved");
                Ok(())
            }
            Err(error) => {
                // The client is told; nothing is to be saved behind its back.
                self.wrote.store(false, SeqCst);
                Err(error)
            }
            saved => saved,
        }
    }

    fn has_unsaved(&self, slot: &Slot<T>) -> bool {
        self.wrote.load(SeqCst) && slot.is_dirty()
    }

    fn refresh(&self, slot: &Slot<T>) -> Option<std::time::SystemTime> {
        let shared = &self.shared;
        (slot.stage() == Stage::Live)
            .then(|| shared.expiry.refresh(slot.lifetime(), &slot.record(), shared.now()))?
    }

    fn outcome(&self) -> Outcome {
        let shared = &self.shared;
        let opened = self.opened();
        let (slot, cookie) = (&opened.slot, opened.cookie);
        let place = slot.place().filter(|_| slot.stage() == Stage::Live);
        let change = decide(Facts {
            session: place.map(|place| place.id),
            cookie,
            ended: opened.ended,
            resend: opened.resend,
        });
        let cookie = match change {
            CookieChange::Keep => None,
            CookieChange::Remove => Some(shared.cookie.removal()),
            CookieChange::Set(id) => {
                let created_at = slot.record().created_at;
                let age = shared.expiry.max_age(slot.lifetime(), created_at, shared.now());
                Some(shared.cookie.set(&shared.keys, &id, age))
            }
        };
        Outcome { opened: true, cookie }
    }
}

/// What a request wrote before it was dropped, or after its response had left, is saved without it.
impl<T: SessionData> Drop for Handle<T> {
    fn drop(&mut self) {
        if !*self.wrote.get_mut() || !self.opened.initialized() {
            return;
        }
        let slot = self.slot();
        if !slot.is_dirty() {
            return;
        }
        match slot.stage() {
            Stage::Live => self.shared.save_in_background(slot),
            Stage::Ended => tracing::debug!("written to a session after its end: not saved"),
            // Nobody has its cookie.
            _ => tracing::debug!("written to a new session that has no response: not saved"),
        }
    }
}
