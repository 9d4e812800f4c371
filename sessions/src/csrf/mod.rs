//! Whether a request was meant by the site's own pages.

#[cfg(any(feature = "actix", feature = "axum"))]
pub(crate) mod check;
#[cfg(any(feature = "actix", feature = "axum"))]
pub(crate) mod layer;
pub(crate) mod origin;
#[cfg(feature = "axum")]
pub(crate) mod service;
pub(crate) mod token;

#[cfg(any(feature = "actix", feature = "axum"))]
pub use layer::{CsrfLayer, CsrfLayerBuilder};
pub use origin::{OriginCheck, OriginCheckBuilder};
#[cfg(feature = "axum")]
pub use service::{CsrfFuture, CsrfService};
pub use token::CsrfToken;
