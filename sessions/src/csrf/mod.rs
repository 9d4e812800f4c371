//! Whether a request was meant by the site's own pages.

#[cfg(feature = "axum")]
mod layer;
mod origin;
#[cfg(feature = "axum")]
mod service;
mod token;

#[cfg(feature = "axum")]
pub use layer::CsrfLayer;
pub use origin::OriginCheck;
#[cfg(feature = "axum")]
pub use service::{CsrfFuture, CsrfService};
pub use token::CsrfToken;
