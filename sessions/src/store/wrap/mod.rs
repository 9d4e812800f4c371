//! Stores made of other stores.

pub(crate) mod cached;
mod marks;
pub(crate) mod migrating;
pub(crate) mod mirrored;
mod trust;
