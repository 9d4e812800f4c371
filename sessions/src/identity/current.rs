//! The keys of a layer, which may be replaced while requests are served.

use std::{
    fmt,
    ops::Deref,
    sync::{Arc, PoisonError, RwLock},
};

use crate::identity::keys::Keys;

/// The keys that count now. Asked where a cookie is made, or verified for the first time, or something is
/// encrypted: next to that, a lock that is hardly ever written to costs nothing. A cookie that was seen a
/// moment ago asks no key.
pub(crate) struct CurrentKeys(RwLock<Arc<Keys>>);

impl CurrentKeys {
    pub(crate) fn new(keys: Keys) -> Self {
        Self(RwLock::new(Arc::new(keys)))
    }

    pub(crate) fn get(&self) -> Arc<Keys> {
        // Each change is one assignment.
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The same for a moment, without a clone.
    pub(crate) fn read(&self) -> impl Deref<Target = Arc<Keys>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request that has got the old ones goes on with them.
    pub(crate) fn replace(&self, keys: Keys) {
        let keys = Arc::new(keys);
        let old =
            std::mem::replace(&mut *self.0.write().unwrap_or_else(PoisonError::into_inner), keys);
        // The last clone of a key is wiped.
        drop(old);
    }
}

impl fmt::Debug for CurrentKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get().fmt(f)
    }
}
