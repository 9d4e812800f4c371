//! What names a session, and what proves that a client may have it.

pub(crate) mod current;
pub(crate) mod id;
pub(crate) mod keys;
