//! What a `CsrfLayer` checks, and its settings. The check itself stands in `check`; `service` makes it for axum
//! and tower, `actix/csrf.rs` for actix-web.

use std::{borrow::Cow, fmt, marker::PhantomData, sync::Arc};

use axum_core::BoxError;
use http::{HeaderName, Response, Uri, request::Parts};

use crate::csrf::origin::{OriginCheck, OriginCheckBuilder};
#[cfg(feature = "axum")]
use crate::csrf::service::CsrfService;
use crate::{
    data::SessionData,
    error::BuildError,
    web::rejection::{OnRejection, Rejection},
};

/// Refuses requests that another site has made its visitor's browser send (cross-site request
/// forgery), before they can change anything or begin a session.
///
/// It belongs inside the [`SessionLayer<T>`](crate::SessionLayer). The service inside of it is given
/// axum's body; in actix-web a form is read and put back.
///
/// ```
/// # #[cfg(all(feature = "axum", feature = "derive", feature = "memory", feature = "bincode"))] {
/// use axum::{Form, Router, response::Html, routing::get};
/// use sessions::{Keys, MemoryStore, Session};
/// # #[derive(serde::Deserialize)] struct Order { teapots: u32 }
///
/// #[derive(Session)]
/// struct Visitor {
///     teapots: u32,
/// }
///
/// async fn page(session: Session<Visitor>) -> sessions::Result<Html<String>> {
///     let token = session.csrf_token().await?;
///     Ok(Html(format!(
///         r#"<form method="post">
///              <input type="hidden" name="csrf_token" value="{token}">
///              <input name="teapots" type="number">
///              <button>Buy</button>
///            </form>"#
///     )))
/// }
///
/// async fn buy(session: Session<Visitor>, Form(order): Form<Order>) {
///     session.write().await.set_teapots(order.teapots);
/// }
///
/// let app: Router = Router::new()
///     .route("/", get(page).post(buy))
///     .layer(Visitor::csrf_layer())
///     // Outside of it: what is added later is passed earlier.
///     .layer(Visitor::layer(MemoryStore::new(), Keys::generate()));
/// # }
/// ```
///
/// # What is checked
///
/// 1. `GET`, `HEAD` and `TRACE` pass: they are to change nothing (RFC 9110, 9.2.1), and cost a look at
///    the method and at one header. So does the `OPTIONS` of a CORS preflight, with `Origin` and
///    `Access-Control-Request-Method`. Everything else is checked.
/// 2. `Sec-Fetch-Site`, which browsers set and pages cannot (W3C, Fetch Metadata Request Headers):
///    `same-origin` and `none` are good; with anything else the `Origin` must be one of
///    [`with_trusted_origin`](CsrfLayerBuilder::with_trusted_origin).
/// 3. Without that header, from an older browser, over plain HTTP, or with a WebSocket of Chromium: an
///    `Origin` must be trusted, or have the host and port that the request was sent to (`Host`; `:authority` with HTTP/2).
///    `Origin: null`, from a page that does not say where it is from, leaves it to the token, and
///    is refused where there is none. So far neither a session nor its store has been asked.
/// 4. The token that [`Session::csrf_token`](crate::Session::csrf_token) gave to this session, in
///    the header `x-csrf-token` or else in the field `csrf_token` of a form
///    (`application/x-www-form-urlencoded`). A form is read for that, up to
///    [a limit](CsrfLayerBuilder::with_form_limit), and handed on whole.
///
/// What is refused gets 403 and a line of text; a form over the limit, 413. A session whose store
/// does not answer gets 503, as with a handler.
/// [`with_rejection_response`](CsrfLayerBuilder::with_rejection_response) makes another response.
///
/// A browser opens a WebSocket from any page, and sends the cookies along. So a `GET` with the header
/// `Upgrade` is checked too, and so is `CONNECT`, which takes its place over HTTP/2: for their origin
/// alone, because they cannot carry a token. Handlers outside of the layer can make the same check:
/// [`OriginCheck`].
///
/// # Scripts
///
/// A script that sends JSON, or a multipart form, puts the token into the header; the page has it in
/// a `<meta name="csrf-token" content="…">`, say. The token changes with the session's id: after a
/// login the page needs a new one.
///
/// # Multipart forms without a script
///
/// They are not searched. Put their routes outside of the layer, and have the handler check the field
/// with [`Session::verify_csrf`](crate::Session::verify_csrf); a `CsrfLayer` that is
/// [`origin_only`](Self::origin_only) can stand before both.
///
/// # In tests
///
/// `testing::TestClient` gets a token by `with_session(async |session| session.csrf_token().await)`.
///
/// # Beside it
///
/// - A `SameSite=Lax` cookie, as the session's is by default, does not come along with a cross-site
///   `POST`. But it does from a neighbour in the same site (`blog.shop.example` for `shop.example`);
///   and without a cookie such a request could begin a session, or log the visitor into somebody
///   else's account. Hence the checks above (OWASP, Cross-Site Request Forgery Prevention Cheat
///   Sheet: tokens, and Fetch Metadata or `SameSite` as a second line).
/// - A `GET` that changes something is not protected. Nor is one of which middleware inside of this layer makes
///   another method, as of `?_method=DELETE`: such middleware goes outside.
/// - A script injected into one of the site's own pages reads the token from it: no token helps
///   against that.
/// - Point 3 does not compare schemes, because behind a proxy nobody knows them. An attacker who can put up a
///   page at the same name over plain HTTP still lacks the token; `Strict-Transport-Security`
///   keeps them out.
/// - A proxy must hand on `Host` as the browser sent it, which neither nginx nor Apache does by
///   default, or the site's own origin has to be named as a trusted one:
///   [`proxies`](crate::proxies#the-host-that-an-origin-is-compared-with).
pub struct CsrfLayer<T> {
    pub(crate) settings: Arc<Settings>,
    data: PhantomData<fn() -> T>,
}

#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(super) origins: OriginCheck,
    pub(super) unchecked_paths: Vec<Cow<'static, str>>,
    pub(super) needs_token: bool,
    pub(crate) header: HeaderName,
    pub(super) field: Cow<'static, str>,
    pub(crate) form_limit: usize,
    pub(super) on_rejection: Option<OnRejection>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            origins: OriginCheck::new(),
            unchecked_paths: Vec::new(),
            needs_token: true,
            header: HeaderName::from_static("x-csrf-token"),
            field: "csrf_token".into(),
            form_limit: 1 << 20,
            on_rejection: None,
        }
    }
}

impl<T: SessionData> CsrfLayer<T> {
    /// Checks the origin and the token. `Visitor::csrf_layer()`, which the derive writes, is the one of the
    /// session type `Visitor`.
    pub fn new() -> Self {
        Self { settings: Arc::default(), data: PhantomData }
    }

    /// The same, which checks the origin alone, so that no page needs a token:
    /// [`without_tokens`](CsrfLayerBuilder::without_tokens).
    #[must_use]
    pub fn origin_only(mut self) -> Self {
        Arc::make_mut(&mut self.settings).needs_token = false;
        self
    }

    /// For a layer with other settings.
    pub fn builder() -> CsrfLayerBuilder<T> {
        CsrfLayerBuilder {
            settings: Settings::default(),
            origins: OriginCheck::builder(),
            data: PhantomData,
        }
    }
}

/// The settings of a [`CsrfLayer`].
///
/// ```
/// # #[cfg(feature = "derive")]
/// # fn main() -> Result<(), sessions::BuildError> {
/// # #[derive(sessions::Session)] struct Visitor { visits: u32 }
/// let layer = Visitor::csrf_layer_builder()
///     .with_trusted_origin("https://pay.example")
///     .with_field("token")
///     .build()?;
/// # Ok(()) }
/// # #[cfg(not(feature = "derive"))]
/// # fn main() {}
/// ```
#[derive(Clone)]
#[must_use = "a builder does nothing until `build` is called"]
pub struct CsrfLayerBuilder<T> {
    settings: Settings,
    origins: OriginCheckBuilder,
    data: PhantomData<fn() -> T>,
}

impl<T: SessionData> CsrfLayerBuilder<T> {
    /// Checks the origin alone, so that no page needs a token. Browsers of the last years all send
    /// what that takes; a request with neither `Sec-Fetch-Site` nor `Origin` passes, because it is
    /// not from a browser, or from one of those that are too old to tell. `Origin: null` alone does not.
    pub fn without_tokens(mut self) -> Self {
        self.settings.needs_token = false;
        self
    }

    /// Takes requests from the pages of another origin too, as `https://pay.example`. They still need
    /// the token, and the cookie still needs a `SameSite` that lets it come along. Can be repeated.
    pub fn with_trusted_origin(mut self, origin: impl Into<String>) -> Self {
        self.origins = self.origins.with_trusted_origin(origin);
        self
    }

    /// Lets a `POST` to this path through, wherever it comes from and without a token: for the one form that a
    /// page of another site sends on purpose, as that of an identity provider (`response_mode=form_post`) or
    /// of a bank after a payment. Can be repeated.
    ///
    /// Any page of any site can send that form too. So the handler either changes nothing, or checks what
    /// only an honest sender can know: the `state` of OAuth 2.0 (RFC 6749, 10.12; RFC 9700, 4.7), or a signature.
    /// The origin is no such thing here: a page with `Referrer-Policy: no-referrer`, as some providers
    /// have, sends `Origin: null` (Fetch, *append a request Origin header*). And the session's cookie does not
    /// come along, unless it is `SameSite=None`: [`proxies`](crate::proxies#cookies-between-sites) says how
    /// the handler finds the session all the same.
    ///
    /// The path is compared byte by byte, without the query. Inside of an axum `Router::nest` a layer sees
    /// paths without the prefix of the nest.
    ///
    /// ```
    /// # #[cfg(feature = "derive")]
    /// # fn main() -> Result<(), sessions::BuildError> {
    /// # #[derive(sessions::Session)] struct Visitor { visits: u32 }
    /// let layer = Visitor::csrf_layer_builder().with_unchecked_path("/login/callback").build()?;
    /// # Ok(()) }
    /// # #[cfg(not(feature = "derive"))]
    /// # fn main() {}
    /// ```
    pub fn with_unchecked_path(mut self, path: impl Into<Cow<'static, str>>) -> Self {
        self.settings.unchecked_paths.push(path.into());
        self
    }

    /// The header in which scripts send the token. Default: `x-csrf-token`.
    pub fn with_header(mut self, name: HeaderName) -> Self {
        self.settings.header = name;
        self
    }

    /// The field in which forms send the token. Default: `csrf_token`.
    pub fn with_field(mut self, name: impl Into<Cow<'static, str>>) -> Self {
        self.settings.field = name.into();
        self
    }

    /// The most bytes that a form may have in which the token is looked for; one with the token in the
    /// header is not read. Default: 1 MiB.
    pub fn with_form_limit(mut self, bytes: usize) -> Self {
        self.settings.form_limit = bytes;
        self
    }

    /// What a client gets whose request is refused, in place of a line of text: see [`Rejection`].
    pub fn with_rejection_response<B>(
        mut self,
        response: impl Fn(&Rejection, &Parts) -> Response<B> + Send + Sync + 'static,
    ) -> Self
    where
        B: http_body::Body<Data = bytes::Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        self.settings.on_rejection = Some(OnRejection::new(response));
        self
    }

    /// The layer.
    ///
    /// # Errors
    ///
    /// If a trusted origin is none: it has a scheme, a host, a port if need be, and nothing else. If an
    /// unchecked path is none: it begins with `/`, and has no query.
    pub fn build(self) -> Result<CsrfLayer<T>, BuildError> {
        for path in &self.settings.unchecked_paths {
            check_path(path)?;
        }
        let settings = Settings { origins: self.origins.build()?, ..self.settings };
        Ok(CsrfLayer { settings: Arc::new(settings), data: PhantomData })
    }
}

/// A path that no request can have would leave its form refused.
fn check_path(path: &str) -> Result<(), BuildError> {
    let is_path = |uri: Uri| uri.authority().is_none() && uri.path() == path;
    if path.starts_with('/') && path.is_ascii() && path.parse().is_ok_and(is_path) {
        return Ok(());
    }
    let what = "a path begins with `/`, is written as in an address, and has no query";
    Err(BuildError::new(format!("unchecked path `{path}`: {what}")))
}

impl<T> fmt::Debug for CsrfLayerBuilder<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CsrfLayerBuilder").field(&self.settings).finish()
    }
}

impl<T: SessionData> Default for CsrfLayer<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Clone for CsrfLayer<T> {
    fn clone(&self) -> Self {
        Self { settings: self.settings.clone(), data: PhantomData }
    }
}

impl<T> fmt::Debug for CsrfLayer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CsrfLayer").field(&self.settings).finish()
    }
}

#[cfg(feature = "axum")]
impl<S, T: SessionData> tower_layer::Layer<S> for CsrfLayer<T> {
    type Service = CsrfService<S, T>;

    fn layer(&self, inner: S) -> Self::Service {
        CsrfService::new(inner, self.settings.clone())
    }
}
