#![cfg_attr(docsrs, feature(doc_cfg))]
#![doc = include_str!("../README.md")]

#[doc(hidden)]
#[path = "private.rs"]
pub mod __private;
mod body;
mod clock;
mod codec;
#[doc = include_str!("../docs/concurrency.md")]
pub mod concurrency {}
#[doc = include_str!("../docs/proxies.md")]
pub mod proxies {}
#[doc = include_str!("../docs/security.md")]
pub mod security {}
#[doc = include_str!("../docs/surprises.md")]
pub mod surprises {}
mod cookie;
mod csrf;
mod data;
mod devices;
mod error;
mod expiry;
#[doc = include_str!("../docs/fields.md")]
pub mod fields {}
#[doc = include_str!("../docs/values.md")]
pub mod values {}
#[cfg(feature = "axum")]
mod extract;
mod guard;
mod handle;
mod head;
mod id;
mod keys;
mod layer;
mod lease;
mod lock;
mod login;
mod merge;
#[cfg(all(test, shuttle))]
mod model;
mod next;
mod patch;
mod payload;
mod preflight;
mod record;
mod registry;
mod rejection;
mod require_login;
mod save;
mod sealing;
#[cfg(feature = "secret")]
mod secret;
mod session;
mod shared;
mod slot;
mod storage;
pub mod store;
mod sync;
#[cfg(feature = "testing")]
pub mod testing;
mod tracked;
mod varint;
mod wait;

pub use body::ResponseBody;
pub use codec::Codec;
pub use cookie::SameSite;
#[cfg(feature = "axum")]
pub use csrf::{CsrfFuture, CsrfLayer, CsrfService};
pub use csrf::{CsrfToken, OriginCheck};
pub use data::SessionData;
pub use devices::{Device, SessionInfo, Sessions};
pub use error::{BuildError, Error, ErrorKind, Result};
pub use expiry::Lifetime;
#[cfg(feature = "axum")]
pub use extract::LoggedIn;
pub use guard::{ReadGuard, WriteGuard};
pub use id::StoreKey;
pub use keys::Keys;
pub use layer::{Conflict, ResponseFuture, SessionLayer, SessionLayerBuilder, SessionService};
pub use login::{Login, SessionUser};
pub use next::local_path;
pub use record::Record;
pub use rejection::{Rejection, RejectionKind};
pub use require_login::{RequireLogin, RequireLoginService};
#[cfg(feature = "secret")]
pub use secret::Secret;
pub use session::Session;
pub use storage::IntoStorage;
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
pub use store::{Created, DeleteExpired, Replaced, Store, StoreError, UserIndex};

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
