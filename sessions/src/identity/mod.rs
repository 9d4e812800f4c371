//! What names a session, and what proves that a client may have it.

pub(crate) mod id;
pub(crate) mod keys;
