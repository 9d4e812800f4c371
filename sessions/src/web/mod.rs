//! What the layers have in common of HTTP: bodies, rejections, preflights.

pub(crate) mod body;
pub(crate) mod preflight;
pub(crate) mod rejection;
