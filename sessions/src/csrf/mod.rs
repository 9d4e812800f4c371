//! Whether a request was meant by the site's own pages.

#[cfg(feature = "axum")]
mod layer;
#[cfg(feature = "axum")]
mod origin;
#[cfg(feature = "axum")]
mod service;
mod token;

#[cfg(feature = "axum")]
pub use layer::CsrfLayer;
#[cfg(feature = "axum")]
pub use service::{CsrfFuture, CsrfService};
pub use token::CsrfToken;

/// What a client is told whose request has no good token.
#[cfg(feature = "axum")]
pub(crate) const OUT_OF_DATE: &str =
    "This page is out of date. Please load it again and repeat what you did.";
