//! What a request has to prove, in whichever framework it comes.

use axum_core::{BoxError, body::Body};
use bytes::Bytes;
use http::{HeaderMap, Method, Response, Uri, header, request::Parts};

use super::{
    layer::Settings,
    origin::{self, Verdict},
};
use crate::{
    data::SessionData,
    error::Error,
    session::Session,
    web::{
        preflight::is_preflight,
        rejection::{self, Rejection},
    },
};

/// What becomes of a request, before its session is asked.
pub(crate) enum Judged {
    Passes,
    NeedsToken,
    Refused(Refusal),
}

/// Where a request has its token.
pub(crate) enum TokenPlace {
    /// It was there, and is the session's.
    Header,
    /// It is to be looked for.
    Form,
}

impl Settings {
    pub(crate) fn judge(&self, method: &Method, headers: &HeaderMap, uri: &Uri) -> Judged {
        let check = self.check(method, uri, headers);
        let is_good = check == Check::Nothing
            || match self.origins.judge(headers, uri) {
                Verdict::Good => true,
                Verdict::Unknown => check == Check::OriginAndToken,
                Verdict::Foreign => false,
            };
        match check {
            _ if !is_good => Judged::Refused(Refusal::Origin(origin::refusal(headers, uri))),
            Check::OriginAndToken => Judged::NeedsToken,
            Check::Nothing | Check::Origin => Judged::Passes,
        }
    }

    fn check(&self, method: &Method, uri: &Uri, headers: &HeaderMap) -> Check {
        let is_unchecked = |path| self.unchecked_paths.iter().any(|unchecked| unchecked == path);
        match *method {
            Method::POST if is_unchecked(uri.path()) => Check::Nothing,
            _ => Check::for_request(method, headers, self.needs_token),
        }
    }

    /// Checks the token, as far as that can be done without the body.
    pub(crate) fn check_before_body<T: SessionData>(
        &self,
        session: &Session<T>,
        headers: &HeaderMap,
    ) -> Result<TokenPlace, Refusal> {
        // Before a body is read that cannot help.
        if session.began_in_request() {
            return Err(Refusal::NewSession);
        }
        if let Some(token) = headers.get(&self.header) {
            session.verify_csrf(token.to_str().unwrap_or_default())?;
            Ok(TokenPlace::Header)
        } else if is_form(headers) {
            Ok(TokenPlace::Form)
        } else {
            Err(Refusal::NoToken)
        }
    }

    /// The token in a form.
    pub(crate) fn token_in(&self, form: &Bytes) -> Result<String, Refusal> {
        let mut fields = form_urlencoded::parse(form);
        let (_, token) = fields.find(|(name, _)| *name == self.field).ok_or(Refusal::NoToken)?;
        Ok(token.into_owned())
    }

    /// The response to a request that does not get any further.
    pub(crate) fn refuse(&self, refusal: Refusal, request: &Parts) -> Response<Body> {
        let rejection = refusal.into_rejection(self);
        rejection::respond(self.on_rejection.as_ref(), &rejection, request)
    }
}

/// What a request has to prove.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Check {
    Nothing,
    Origin,
    OriginAndToken,
}

impl Check {
    fn for_request(method: &Method, headers: &HeaderMap, needs_token: bool) -> Self {
        // A page of any site can have its browser open a WebSocket; no page can put a token into that.
        let is_upgrade = headers.contains_key(header::UPGRADE);
        match *method {
            Method::CONNECT => Self::Origin,
            Method::GET | Method::HEAD | Method::TRACE if is_upgrade => Self::Origin,
            Method::GET | Method::HEAD | Method::TRACE => Self::Nothing,
            _ if is_preflight(method, headers) && !is_upgrade => Self::Nothing,
            _ if needs_token => Self::OriginAndToken,
            _ => Self::Origin,
        }
    }
}

/// Why a request does not get any further.
pub(crate) enum Refusal {
    /// It comes from a page of another site.
    Origin(Error),
    /// The store does not answer, or the token is a wrong one.
    Session(Error),
    /// No token could belong to its session.
    NewSession,
    NoToken,
    TooLarge,
    /// The client has not sent it to its end.
    Broken(BoxError),
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self::Session(error)
    }
}

impl Refusal {
    pub(super) fn into_rejection(self, settings: &Settings) -> Rejection {
        match self {
            Self::Origin(error) => {
                tracing::info!("refused a request: {error}");
                Rejection::from(error)
            }
            Self::Session(error) => {
                error.log();
                Rejection::from(error)
            }
            Self::NewSession => {
                tracing::info!(
                    "refused a request: a new session has no CSRF token yet (a page gets one by \
                     `Session::csrf_token`; `CsrfLayer::origin_only` does without)"
                );
                Rejection::from(Error::csrf())
            }
            Self::NoToken => {
                tracing::info!(
                    header = settings.header.as_str(),
                    field = &*settings.field,
                    "refused a request: it has no CSRF token, neither in this header nor in this field of a form"
                );
                Rejection::from(Error::csrf())
            }
            Self::TooLarge => {
                let limit = settings.form_limit;
                tracing::info!(limit, "refused a form: it is too large to look for a CSRF token");
                Rejection::form_too_large()
            }
            Self::Broken(error) => {
                tracing::debug!("a form did not arrive: {error}");
                Rejection::form_broken()
            }
        }
    }
}

fn is_form(headers: &HeaderMap) -> bool {
    const FORM: &str = "application/x-www-form-urlencoded";
    let essence = headers
        .get(header::CONTENT_TYPE)
        .and_then(|content_type| content_type.to_str().ok()?.split(';').next());
    essence.is_some_and(|essence| essence.trim().eq_ignore_ascii_case(FORM))
}
