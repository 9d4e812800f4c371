//! What becomes of a request that comes with a cookie of an earlier library.

use std::sync::atomic::Ordering::Relaxed;

use http::HeaderValue;

use crate::{
    adopt::RequestCookies,
    data::SessionData,
    error::Error,
    meters,
    save::adopt::{Adopted, adopt},
    session::request::{Cookies, Current, Handle},
};

impl<T: SessionData> Handle<T> {
    /// Whether an old cookie may be among those of the request. Not where a device may come again with a
    /// proof: then the request has a session of ours.
    pub(super) fn may_adopt(&self) -> bool {
        self.shared.adoption.is_some()
            && !matches!(self.cookies, Cookies::None)
            && !self.may_prove_itself_yet()
    }

    /// Opens the session that an old one has become, or becomes now; false if there is none.
    ///
    /// Carried to its end even if the request is dropped: the next one finds what it has made.
    pub(super) async fn adopt(&self) -> Result<bool, Error> {
        let Some(adoption) = &self.shared.adoption else { return Ok(false) };
        let cookies = RequestCookies::new(self.cookies.as_slice());
        let Some(old) = adoption.predecessor.session_id(&cookies) else { return Ok(false) };
        let (done, outcome) = tokio::sync::oneshot::channel();
        let shared = self.shared.clone();
        self.shared.background.spawn(async move {
            let Some(adoption) = &shared.adoption else { return };
            // Nobody may be listening any more.
            let _ = done.send(adopt(&shared, adoption, &old).await);
        });
        let adopted = outcome.await.unwrap_or_else(|_| Err(Error::aborted()))?;
        if !matches!(adopted, Adopted::Nobody) {
            self.old_cookie_is_over.store(true, Relaxed);
        }
        match adopted {
            Adopted::Nobody | Adopted::Over => return Ok(false),
            // It may have been bound to a device since.
            Adopted::Session(slot) if self.admits(&slot) => {
                meters::opened();
                tracing::debug!("opened a session by a cookie of an earlier library");
                self.found(Current { is_new: false, ..Current::unsaved(slot) }, None);
            }
            Adopted::Session(_) | Adopted::JustEnded => self.found_none(true),
        }
        Ok(true)
    }

    /// The header that takes the old cookie from the client, if that is worth nothing any more.
    pub(crate) fn old_cookie_removal(&self) -> Option<HeaderValue> {
        let adoption = self.shared.adoption.as_ref()?;
        if !self.shared.settings.ends_predecessor || !self.old_cookie_is_over.load(Relaxed) {
            return None;
        }
        let removal = adoption.predecessor.cookie_removal()?;
        // A layer that goes on with the old one's name sets that cookie itself.
        let name = removal.as_bytes().split(|byte| *byte == b'=').next()?;
        (name != self.shared.settings.cookie.name.as_bytes()).then_some(removal)
    }
}
