//! The middleware: configuration, service, and what becomes of the response.

use std::{fmt, sync::Arc};

use tower_layer::Layer;

use crate::{
    data::{SessionData, user::SessionUser},
    error::{BuildError, Error},
    identity::keys::Keys,
    login::sessions::UserSessions,
    save::shared::Shared,
    store::storage::IntoStorage,
    web::rejection::OnRejection,
};

pub(crate) mod builder;
#[cfg(feature = "device-bound")]
pub(crate) mod device;
pub(crate) mod drive;
pub(crate) mod future;
pub(crate) mod headers;
pub(crate) mod response;
pub(crate) mod service;

pub use builder::SessionLayerBuilder;
pub use future::ResponseFuture;
pub use service::SessionService;

/// Gives every request of the services below it a session with the fields of `T`.
///
/// The layer itself does next to nothing to a request whose handler does not ask for the session:
/// the cookie is not even parsed. Two layers with different types, and different cookie names, work
/// side by side. A layer inside of its own clone, as on a nested router, leaves everything to the outer
/// one: a request has one session.
///
/// It goes around all that uses the session: the routes, and a `CsrfLayer` or [`RequireLogin`](crate::RequireLogin).
/// axum's `Router::layer` and actix-web's `App::wrap` put a layer around what was added before it, so this one
/// is added last. In a `tower::ServiceBuilder` the layer that is added first is the outer one.
///
/// Layers that append to `Vary`, as tower-http's for compression and CORS do, belong inside of it, and
/// so does whatever is to see the session. What caches and proxies make of the responses stands in
/// [`proxies`](crate::proxies).
///
/// Cloning is cheap, and all clones share what they hold. An application should build the layer once:
/// two layers are to each other like two processes.
///
/// # In axum
///
/// ```
/// # #[cfg(all(feature = "axum", feature = "derive", feature = "memory", feature = "bincode"))] {
/// use axum::{Router, routing::get};
/// use sessions::{Keys, MemoryStore, Session, SessionLayer};
///
/// #[derive(Session)]
/// struct Visitor {
///     visits: u32,
/// }
///
/// async fn index(session: Session<Visitor>) -> String {
///     session.read().await.visits.to_string()
/// }
///
/// let app: Router = Router::new()
///     .route("/", get(index))
///     .layer(SessionLayer::<Visitor>::new(MemoryStore::new(), Keys::generate()));
/// # }
/// ```
///
/// # In actix-web
///
/// With the feature `actix` it is middleware there: `App::new().wrap(layer.clone())`, in each worker a clone of the
/// one layer. The module `actix` has an example.
///
/// # In any tower service
///
/// ```
/// # #[cfg(all(feature = "derive", feature = "memory", feature = "bincode"))] {
/// use std::convert::Infallible;
///
/// use http::{Request, Response};
/// use sessions::{Keys, MemoryStore, Session, SessionLayer};
/// use tower::ServiceBuilder;
///
/// #[derive(Session)]
/// struct Visitor {
///     visits: u32,
/// }
///
/// async fn index(request: Request<String>) -> Result<Response<String>, Infallible> {
///     let session = match Session::<Visitor>::open(request.extensions()).await {
///         Ok(session) => session,
///         Err(error) => {
///             let mut response = Response::new(String::new());
///             *response.status_mut() = error.status();
///             return Ok(response);
///         }
///     };
///     let visits = session.read().await.visits;
///     Ok(Response::new(visits.to_string()))
/// }
///
/// let service = ServiceBuilder::new()
///     .layer(SessionLayer::<Visitor>::new(MemoryStore::new(), Keys::generate()))
///     .service_fn(index);
/// # }
/// ```
#[doc(alias("SessionManagerLayer", "SessionMiddleware"))]
pub struct SessionLayer<T: SessionData> {
    pub(crate) shared: Arc<Shared<T>>,
    pub(crate) on_rejection: Option<OnRejection>,
}

impl<T: SessionData> SessionLayer<T> {
    /// A layer with the safe defaults that [`SessionLayerBuilder`] lists.
    ///
    /// # Panics
    ///
    /// If the process has a layer of another type with the same keys and the default cookie's name:
    /// a browser keeps one cookie of that name. [`build`](SessionLayerBuilder::build) gives an error
    /// instead. If the default codec would give no value of a field back: the message says what to
    /// write.
    #[cfg(any(feature = "messagepack", feature = "json"))]
    pub fn new(store: impl IntoStorage, keys: Keys) -> Self {
        match Self::builder(store, keys).build() {
            Ok(layer) => layer,
            Err(error) => panic!("{error}"),
        }
    }

    /// For a layer with other settings.
    pub fn builder(store: impl IntoStorage, keys: Keys) -> SessionLayerBuilder<T> {
        SessionLayerBuilder::new(store.into_storage(), keys)
    }

    /// To list the sessions of a user and to end them, outside of a request: for a job, or a program of
    /// the operator's. In a handler [`UserSessions`] is an argument.
    ///
    /// # Errors
    ///
    /// [`NoUserIndex`](crate::ErrorKind::NoUserIndex) if the layer's store cannot list them: a
    /// `PrivateCookie`, or a store of your own that is no [`UserIndex`](crate::UserIndex).
    pub fn user_sessions(&self) -> Result<UserSessions<T>, Error>
    where
        T: SessionUser,
    {
        UserSessions::new(self.shared.clone())
    }

    /// Other keys, for all clones of the layer and for requests under way: from here on the first of them
    /// signs and encrypts, and no key opens anything that is not among them. So a key is rotated without a
    /// restart:
    ///
    /// ```
    /// # #[cfg(all(feature = "derive", feature = "memory", feature = "bincode"))]
    /// # fn main() -> Result<(), sessions::BuildError> {
    /// # #[derive(sessions::Session)] struct Visitor { visits: u32 }
    /// # use sessions::{Keys, MemoryStore, SessionLayer};
    /// let old = Keys::from_base64("b2xkIG9sZCBvbGQgb2xkIG9sZCBvbGQgb2xkIG9sZCE=")?;
    /// let layer = SessionLayer::<Visitor>::new(MemoryStore::new(), old.clone());
    /// // … later, when a signal comes, or the secret's file has changed:
    /// let new = Keys::from_base64("bmV3IG5ldyBuZXcgbmV3IG5ldyBuZXcgbmV3IG5ldyE=")?;
    /// layer.replace_keys(new.with_previous(old))?;
    /// # Ok(()) }
    /// # #[cfg(not(all(feature = "derive", feature = "memory", feature = "bincode")))]
    /// # fn main() {}
    /// ```
    ///
    /// Where several processes serve, first give the new key to all of them *behind* the old one, and put
    /// it in front when each has it: or one process signs what the next cannot verify. Cookies of the old key
    /// come back signed by the new one as they are used; take the old key out once the longest session has
    /// ended. A key that leaked is taken out at once, and its cookies are worth nothing.
    ///
    /// Costs a request nothing: a cookie that was seen a moment ago asks for no key, and the rest takes a
    /// lock for reading.
    ///
    /// # Errors
    ///
    /// If the keys are those of another [tenant](Keys::for_tenant), or if another layer of this process has
    /// one of them, as [`build`](SessionLayerBuilder::build) says. The keys are as before then.
    pub fn replace_keys(&self, keys: Keys) -> Result<(), BuildError> {
        let shared = &*self.shared;
        if keys.tenant() != shared.keys.get().tenant() {
            return Err(BuildError::new(
                "the keys are those of another tenant, whose users are others: build another layer",
            ));
        }
        if let Some(neighbour) = &shared.neighbour {
            neighbour.replace_keys(&keys)?;
        }
        shared.keys.replace(keys.for_type(T::__NAME));
        shared.seen_cookies.forget();
        tracing::info!(keys = ?shared.keys, "the keys of a session layer were replaced");
        Ok(())
    }

    /// How many sessions requests of this layer are using right now.
    pub fn sessions_in_use(&self) -> usize {
        self.shared.registry.len()
    }

    /// Waits until everything is saved that requests left to be saved in the background: what they
    /// wrote before their client hung up, or after their response had left. To be awaited after the
    /// server has stopped and before the program ends.
    pub async fn wait_for_background_saves(&self) {
        self.shared.background.finished().await;
    }
}

impl<T: SessionData> Clone for SessionLayer<T> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone(), on_rejection: self.on_rejection.clone() }
    }
}

impl<T: SessionData> fmt::Debug for SessionLayer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionLayer")
            .field("keys", &self.shared.keys)
            .field("cookie", &self.shared.settings.cookie)
            .field("expiry", &self.shared.settings.expiry)
            .finish_non_exhaustive()
    }
}

impl<S, T: SessionData> Layer<S> for SessionLayer<T> {
    type Service = SessionService<S, T>;

    fn layer(&self, inner: S) -> Self::Service {
        SessionService::new(inner, self.shared.clone(), self.on_rejection.clone())
    }
}
