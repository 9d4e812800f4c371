//! What a user recognises a session by.

use std::{fmt, sync::Arc};

use http::{HeaderMap, header};

/// The most bytes that are kept of each text of a device.
const LONGEST_TEXT: usize = 256;

/// What a user recognises a session by, kept with the session if a [login](crate::Login::with_device)
/// says so. Personal data: an application that keeps it should say so to its users.
///
/// ```
/// # #[cfg(feature = "derive")] {
/// # #[derive(sessions::Session)] struct Visitor { #[session(user)] user: Option<u64> }
/// # async fn handler(session: sessions::Session<Visitor>, headers: http::HeaderMap,
/// # peer: std::net::SocketAddr) -> sessions::Result<()> {
/// # let user = 7;
/// use sessions::Device;
///
/// let device = Device::from_headers(&headers).with_address(peer.ip());
/// session.login(user).with_device(device).await?;
/// # Ok(()) }
/// # }
/// ```
///
/// Of each text no more than 256 bytes are kept, without control characters and without those that
/// change the direction of what stands beside them (UAX #9), so that it neither breaks a line of a log
/// nor shows its neighbours in another order.
///
/// **Escape these texts where they are shown**, as a template engine does: they are what a client has
/// sent, with whatever markup it likes. To whom they are shown is its user, or whoever is logged in as
/// that user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Device {
    user_agent: Option<Arc<str>>,
    address: Option<Arc<str>>,
}

impl Device {
    /// Without anything but the time at which it was last seen.
    pub fn new() -> Self {
        Self::default()
    }

    /// With the `User-Agent` of a request. Which address a request came from only the application
    /// knows: there may be proxies in front of it.
    pub fn from_headers(headers: &HeaderMap) -> Self {
        match headers.get(header::USER_AGENT) {
            Some(user_agent) => {
                Self::new().with_user_agent(&String::from_utf8_lossy(user_agent.as_bytes()))
            }
            None => Self::new(),
        }
    }

    /// What the browser calls itself, or a shorter text made of that.
    #[must_use]
    pub fn with_user_agent(self, user_agent: &str) -> Self {
        Self { user_agent: shortened(user_agent), ..self }
    }

    /// Where the client is.
    #[must_use]
    pub fn with_address(self, address: impl fmt::Display) -> Self {
        Self { address: shortened(&address.to_string()), ..self }
    }

    /// What the browser called itself at the login.
    pub fn user_agent(&self) -> Option<&str> {
        self.user_agent.as_deref()
    }

    /// Where the client was at the login.
    pub fn address(&self) -> Option<&str> {
        self.address.as_deref()
    }

    pub(crate) fn texts(&self) -> [Option<&str>; 2] {
        [self.user_agent(), self.address()]
    }

    pub(crate) fn from_texts(user_agent: &str, address: &str) -> Self {
        Self { user_agent: shortened(user_agent), address: shortened(address) }
    }
}

/// `None` for an empty one.
fn shortened(text: &str) -> Option<Arc<str>> {
    let mut kept = String::new();
    for character in text.chars().filter(|&character| !is_control(character)) {
        if kept.len() + character.len_utf8() > LONGEST_TEXT {
            break;
        }
        kept.push(character);
    }
    (!kept.is_empty()).then(|| kept.into())
}

/// Whether a character shows nothing itself, and changes what stands beside it.
fn is_control(character: char) -> bool {
    character.is_control()
        || matches!(character,
            // Line and paragraph separators.
            '\u{2028}' | '\u{2029}'
            // Marks, embeddings, overrides and isolates of the bidirectional algorithm, and the
            // deprecated controls behind them.
            | '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}'
            | '\u{2066}'..='\u{206f}'
            // What has no width: a space, a joiner of words, a byte order mark.
            | '\u{200b}' | '\u{2060}' | '\u{feff}'
            // Annotations, and the tags that repeat ASCII unseen.
            | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}
