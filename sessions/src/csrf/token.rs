//! Tokens that prove that a page was made for this session.
//!
//! ```text
//! token = base64url(mask ‖ mask xor HMAC-SHA256(key, cookie name ‖ 0 ‖ session id))
//! ```
//!
//! The key is one of its own, made from the layer's. Nothing is stored.

use std::{fmt, marker::PhantomData, sync::Arc};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD as BASE64};

use crate::{
    data::SessionData,
    error::{Error, NoRandomness},
    identity::{
        id::{self, ID_LENGTH, SessionId},
        keys::TAG_LENGTH,
    },
    save::{self, shared::Shared, turn::StoreTurn},
    session::Session,
    slot::plan::{SaveJob, SaveKind},
};

const TOKEN_LENGTH: usize = 2 * TAG_LENGTH;

/// A proof that a page was made for this session: [`Session::csrf_token`].
///
/// To be written into the page with `Display`, as a form's hidden field or in a `meta` element for
/// scripts; it is made of letters, digits, `-` and `_` alone. `Debug` shows nothing of it.
///
/// A handler of axum or actix-web can take it as an argument, in place of the session:
///
/// ```
/// # #[cfg(all(feature = "axum", feature = "derive"))] {
/// # #[derive(sessions::Session)] struct Visitor { visits: u32 }
/// use sessions::CsrfToken;
///
/// async fn page(token: CsrfToken<Visitor>) -> String {
///     format!(r#"<meta name="csrf-token" content="{token}">"#)
/// }
/// # }
/// ```
pub struct CsrfToken<T> {
    text: String,
    data: PhantomData<fn() -> T>,
}

impl<T> CsrfToken<T> {
    /// The tag of a session, under a mask that nobody else gets: a page that is sent compressed does
    /// not give the tag away bit by bit (BREACH).
    fn masked(tag: [u8; TAG_LENGTH]) -> Result<Self, NoRandomness> {
        let mut token = [0; TOKEN_LENGTH];
        let (mask, masked) = token.split_at_mut(TAG_LENGTH);
        for bytes in mask.chunks_exact_mut(ID_LENGTH) {
            bytes.copy_from_slice(&id::random()?);
        }
        for ((masked, mask), tag) in masked.iter_mut().zip(mask).zip(tag) {
            *masked = *mask ^ tag;
        }
        Ok(Self { text: BASE64.encode(token), data: PhantomData })
    }

    /// The token as text.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

/// The tag under the mask, whatever it is worth; `None` if this cannot be a token.
fn unmasked(token: &str) -> Option<[u8; TAG_LENGTH]> {
    let mut bytes = [0; TOKEN_LENGTH];
    // Longer ones are not decoded at all.
    if BASE64.decode_slice(token, &mut bytes).ok()? != TOKEN_LENGTH {
        return None;
    }
    let (mask, masked) = bytes.split_at(TAG_LENGTH);
    Some(std::array::from_fn(|byte| mask[byte] ^ masked[byte]))
}

impl<T> fmt::Display for CsrfToken<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

impl<T> Clone for CsrfToken<T> {
    fn clone(&self) -> Self {
        Self { text: self.text.clone(), data: PhantomData }
    }
}

impl<T> fmt::Debug for CsrfToken<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CsrfToken(<redacted>)")
    }
}

impl<T: SessionData> Shared<T> {
    fn csrf_token(&self, id: &SessionId) -> Result<CsrfToken<T>, Error> {
        Ok(CsrfToken::masked(self.keys.get().csrf_tag(&self.settings.cookie.name, id.as_bytes()))?)
    }

    fn is_csrf_token(&self, id: &SessionId, token: &str) -> bool {
        unmasked(token).is_some_and(|tag| {
            self.keys.get().verify_csrf_tag(&self.settings.cookie.name, id.as_bytes(), &tag)
        })
    }
}

/// Against cross-site request forgery; `CsrfLayer` (features `axum`, `actix`) checks the tokens of all requests.
impl<T: SessionData> Session<T> {
    /// A token for the forms and scripts of a page, that [`verify_csrf`](Self::verify_csrf) knows
    /// when it comes back: no other site can have it.
    ///
    /// ```
    /// # #[cfg(feature = "derive")] {
    /// # #[derive(sessions::Session)] struct Visitor { visits: u32 }
    /// async fn page(session: sessions::Session<Visitor>) -> sessions::Result<String> {
    ///     let token = session.csrf_token().await?;
    ///     Ok(format!(
    ///         r#"<form method="post" action="/buy">
    ///              <input type="hidden" name="csrf_token" value="{token}">
    ///              <button>Buy</button>
    ///            </form>"#
    ///     ))
    /// }
    /// # }
    /// ```
    ///
    /// It belongs to the session's id, and nothing is stored for it: good as often and as long as the
    /// session keeps its id, in every tab, and not one moment longer. Whatever renews the id is to
    /// come first. No two look alike.
    ///
    /// A session that is new has no id yet: it is stored now, with what released guards have written,
    /// or empty, and its cookie goes out with the response. So a page with a form begins a session,
    /// and should not be handed to everybody from a cache. A request that comes
    /// [late with an old cookie](Self::renew_id) gets a token that is good for nothing.
    ///
    /// # Errors
    ///
    /// [`NoRandomness`](crate::ErrorKind::NoRandomness); and for a session that is new those of
    /// [`save`](Self::save), [`NoCookie`](crate::ErrorKind::NoCookie) once the response has left.
    ///
    /// # Cancellation
    ///
    /// If the future is dropped, a session that is new may have been stored or not.
    pub async fn csrf_token(&self) -> Result<CsrfToken<T>, Error> {
        let handle = self.handle();
        let shared = &handle.shared;
        loop {
            let slot = handle.slot();
            if let Some(registration) = slot.registration() {
                return shared.csrf_token(&registration.id);
            }
            if slot.state().has_moved() {
                // Of an id that is nobody's: the page is to be shown all the same.
                return shared.csrf_token(&SessionId::generate()?);
            }
            let mut turn = StoreTurn::for_slot(&slot).await;
            let job = SaveJob { kind: SaveKind::Begin, ..handle.job() };
            let begun = save::save_with_retries(shared, &slot, &mut turn, job).await;
            // Another task of the request may have ended it meanwhile, and begun another one.
            if Arc::ptr_eq(&slot, &handle.slot()) {
                begun?;
                let registration = slot.registration().ok_or_else(Error::ended)?;
                return shared.csrf_token(&registration.id);
            }
        }
    }

    /// Whether `token` was made by [`csrf_token`](Self::csrf_token) for this session and its present
    /// id, with the layer's first key or an older one. Takes the same time for all wrong ones.
    ///
    /// For handlers that find the token where `CsrfLayer` does not look, as in a multipart form. No
    /// token belongs to a session that is new.
    ///
    /// # Errors
    ///
    /// [`Csrf`](crate::ErrorKind::Csrf), which is 403 to the client.
    pub fn verify_csrf(&self, token: &str) -> Result<(), Error> {
        let slot = self.handle().slot();
        let is_good = |id| self.handle().shared.is_csrf_token(id, token);
        match slot.registration() {
            Some(registration) if is_good(&registration.id) => Ok(()),
            _ => Err(Error::csrf()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TAG: [u8; TAG_LENGTH] = *b"a tag of thirty-two bytes, ASCII";

    #[test]
    fn a_token_comes_back_and_looks_different_each_time() {
        let mut tokens: Vec<_> = (0..100).map(|_| CsrfToken::<()>::masked(TAG).unwrap()).collect();
        for token in &tokens {
            assert_eq!(unmasked(token.as_str()), Some(TAG));
            assert_eq!(token.to_string(), token.as_str());
            assert!(token.text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b)));
        }
        // Nothing of it can be learnt from what stays the same: nothing does.
        for place in 0..tokens[0].text.len() - 1 {
            let same = tokens
                .iter()
                .all(|token| token.text.as_bytes()[place] == tokens[0].text.as_bytes()[place]);
            assert!(!same, "place {place}");
        }
        tokens.sort_by(|one, other| one.text.cmp(&other.text));
        tokens.dedup_by(|one, other| one.text == other.text);
        assert_eq!(tokens.len(), 100);
    }

    #[test]
    fn what_is_no_token_has_no_tag() {
        let token = CsrfToken::<()>::masked(TAG).unwrap().text;
        for end in 0..token.len() {
            assert_eq!(unmasked(&token[..end]), None, "cut at {end}");
        }
        let longer = "A".repeat(1 << 20);
        for other in
            [&format!("{token}A"), &format!("{token}=="), &format!(" {token}"), "ö", &longer]
        {
            assert_eq!(unmasked(other), None);
        }
        for place in 0..token.len() {
            for bit in 0..7 {
                let mut bytes = token.clone().into_bytes();
                bytes[place] ^= 1 << bit;
                let flipped = String::from_utf8(bytes).unwrap();
                assert_ne!(unmasked(&flipped), Some(TAG), "bit {bit} of {place}");
            }
        }
    }

    #[test]
    fn debug_does_not_leak_a_token() {
        let token = CsrfToken::<()>::masked(TAG).unwrap();
        assert_eq!(format!("{token:?}"), "CsrfToken(<redacted>)");
    }
}
