//! What the layers have in common of HTTP: rejections and preflights.

pub(crate) mod preflight;
pub(crate) mod rejection;
