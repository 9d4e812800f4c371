#![cfg_attr(docsrs, feature(doc_cfg))]
#![doc = include_str!("../README.md")]
//!
//! # The guide
//!
//! - [`first_steps`](guide::first_steps): from `cargo new` to a login that survives a restart
//! - [`tour`](guide::tour): everything there is, a paragraph each
//! - [`coming_from`](guide::coming_from) tower-sessions, axum-login, actix-session, axum_session
//! - [`stores`](guide::stores): which one, and what its server has to be told
//! - [`recipes`](guide::recipes): programs for htmx, single-page applications, tenants, jobs and more
//! - [`running`](guide::running): keys, metrics, capacity, deploys, and what users say when something is wrong
//! - [`frameworks`](guide::frameworks): axum, hyper, tonic and others

#[doc(hidden)]
#[path = "private.rs"]
pub mod __private;
#[cfg(feature = "actix")]
pub mod actix;
#[cfg(feature = "adopt")]
pub mod adopt;
mod clock;
mod cookie;
mod csrf;
mod data;
#[cfg(feature = "device-bound")]
mod device_bound;
mod error;
#[cfg(feature = "axum")]
mod extract;
mod identity;
mod layer;
mod login;
mod meters;
#[cfg(all(test, shuttle))]
mod model_tests;
mod record;
mod save;
mod scratch;
mod session;
mod slot;
pub mod store;
mod sync;
#[cfg(feature = "testing")]
pub mod testing;
mod unique;
mod varint;
mod web;

#[doc = include_str!("../docs/concurrency.md")]
pub mod concurrency {}
#[cfg(feature = "device-bound")]
#[doc = include_str!("../docs/devices.md")]
pub mod devices {}
#[doc = include_str!("../docs/fields.md")]
pub mod fields {}
#[cfg(feature = "metrics")]
#[doc = include_str!("../docs/metrics.md")]
pub mod metrics {}
/// A guide: the first ten minutes, everything there is, moving in from another library, stores, programs to copy, and
/// what to do before and after a deploy.
pub mod guide {
    #[doc = include_str!("../docs/guide/coming_from.md")]
    pub mod coming_from {}
    #[doc = include_str!("../docs/guide/first_steps.md")]
    pub mod first_steps {}
    #[doc = include_str!("../docs/guide/frameworks.md")]
    pub mod frameworks {}
    #[doc = include_str!("../docs/guide/recipes.md")]
    pub mod recipes {}
    #[doc = include_str!("../docs/guide/running.md")]
    pub mod running {}
    #[doc = include_str!("../docs/guide/stores.md")]
    pub mod stores {}
    #[doc = include_str!("../docs/guide/tour.md")]
    pub mod tour {}
}
#[doc = include_str!("../docs/proxies.md")]
pub mod proxies {}
#[doc = include_str!("../docs/security.md")]
pub mod security {}
#[doc = include_str!("../docs/surprises.md")]
pub mod surprises {}
#[doc = include_str!("../docs/values.md")]
pub mod values {}

pub use cookie::SameSite;
#[cfg(feature = "axum")]
pub use csrf::{CsrfFuture, CsrfService};
#[cfg(any(feature = "actix", feature = "axum"))]
pub use csrf::{CsrfLayer, CsrfLayerBuilder};
pub use csrf::{CsrfToken, OriginCheck, OriginCheckBuilder};
pub use data::SessionData;
pub use data::codec::Codec;
pub use data::merge::Conflict;
#[cfg(feature = "secret")]
pub use data::secret::Secret;
pub use data::user::SessionUser;
#[cfg(feature = "device-bound")]
pub use device_bound::{DeviceProof, Unproven, UnprovenPolicy, settings::DeviceBinding};
pub use error::store::StoreError;
pub use error::{BuildError, Error, ErrorKind, Result};
pub use identity::id::StoreKey;
pub use identity::keys::Keys;
pub use layer::{ResponseFuture, SessionLayer, SessionLayerBuilder, SessionService};
pub use login::Login;
#[cfg(any(feature = "actix", feature = "axum"))]
pub use login::logged_in::LoggedIn;
pub use login::require::{RequireLogin, RequireLoginBuilder, RequireLoginService};
pub use login::sessions::{SessionInfo, UpdatedSessions, UserSessions};
pub use login::way_back::local_path;
pub use record::Record;
pub use record::device::Device;
pub use record::expiry::Lifetime;
pub use session::Session;
pub use session::guard::{LockGuard, ReadGuard, WriteGuard};
pub use slot::ending::SessionEnd;
#[cfg(feature = "memcached")]
pub use store::MemcachedStore;
#[cfg(feature = "memory")]
pub use store::MemoryStore;
#[cfg(feature = "mysql")]
pub use store::MySqlStore;
#[cfg(feature = "postgres")]
pub use store::PostgresStore;
#[cfg(feature = "private-cookie")]
pub use store::PrivateCookie;
#[cfg(feature = "redis")]
pub use store::RedisStore;
#[cfg(feature = "sqlite")]
pub use store::SqliteStore;
pub use store::storage::IntoStorage;
pub use store::{Created, DeleteExpired, DynUserIndex, Replaced, Store, UserIndex};
pub use web::rejection::{Rejection, RejectionKind};

/// Derives accessors, a layer and login guards from the fields of a struct:
///
/// ```
/// use sessions::Session;
///
/// #[derive(Session)]
/// #[session(rename_all = "kebab-case")]
/// struct Visitor {
///     /// What the visitor wants to be called.
///     display_name: Option<String>,
///     #[session(default = "light")]
///     theme: String,
///     #[session(alias = "hits")]
///     visits: u32,
/// }
///
/// /// A guard derefs to `VisitorFields`, where an application can put methods of its own.
/// impl VisitorFields {
///     fn greet(&mut self) -> String {
///         *self.visits_mut() += 1;
///         let name = self.display_name().unwrap_or("stranger");
///         format!("Hello, {name}, for the {}. time", self.visits())
///     }
/// }
/// ```
///
#[cfg(feature = "derive")]
#[doc(inline)]
pub use sessions_derive::Session;
