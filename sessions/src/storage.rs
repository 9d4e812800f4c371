//! Where a layer keeps its sessions.

#[cfg(feature = "memory")]
use std::any::Any;

#[cfg(feature = "memory")]
use crate::store::{MemoryStore, erased::AtOnce};
use crate::store::{Store, erased::ErasedStore};

/// What [`SessionLayer::new`](crate::SessionLayer::new) takes: any [`Store`], or, with the feature
/// `private-cookie`, `PrivateCookie`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a session store",
    note = "use one of `sessions::store`, or implement `sessions::Store`"
)]
pub trait IntoStorage {
    #[doc(hidden)]
    fn into_storage(self) -> Storage;
}

impl<S: Store> IntoStorage for S {
    fn into_storage(self) -> Storage {
        #[cfg(feature = "memory")]
        if let Some(memory) = (&self as &dyn Any).downcast_ref::<MemoryStore>() {
            return Storage(Kind::Store(Box::new(AtOnce(memory.clone()))));
        }
        Storage(Kind::Store(Box::new(self)))
    }
}

/// Opaque: see [`IntoStorage`].
pub struct Storage(pub(crate) Kind);

pub(crate) enum Kind {
    Store(Box<dyn ErasedStore>),
    #[cfg(feature = "private-cookie")]
    Cookie,
}

impl Storage {
    /// The store, unless the sessions are in their cookies.
    pub(crate) fn store(&self) -> Option<&dyn ErasedStore> {
        match &self.0 {
            Kind::Store(store) => Some(&**store),
            #[cfg(feature = "private-cookie")]
            Kind::Cookie => None,
        }
    }

    /// The store, if it answers every call at once.
    pub(crate) fn store_at_once(&self) -> Option<&dyn ErasedStore> {
        self.store().filter(|store| store.is_ready_at_once())
    }

    /// Whether a session is in its cookie, so that whatever is saved has to be sent.
    pub(crate) fn is_cookie(&self) -> bool {
        self.store().is_none()
    }
}
