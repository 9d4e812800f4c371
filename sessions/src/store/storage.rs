//! Where a layer keeps its sessions.

#[cfg(feature = "memory")]
use std::any::Any;

use crate::store::{
    Store,
    erased::{DynUserIndex, ErasedStore},
};
#[cfg(feature = "memory")]
use crate::store::{erased::AtOnce, memory::MemoryStore};

/// What [`SessionLayer::new`](crate::SessionLayer::new) takes: any [`Store`], or, with the feature
/// `private-cookie`, `PrivateCookie`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a session store",
    note = "use one of `sessions::store`, or implement `sessions::Store`; what `connect` returns has to be \
            awaited first: `.await?`"
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

/// Takes the place of a store: each session is kept by its client, encrypted, in the cookie.
///
/// ```
/// # #[cfg(all(feature = "derive", feature = "bincode"))] {
/// # #[derive(sessions::Session)] struct Visitor { visits: u32 }
/// use sessions::{Keys, PrivateCookie, SessionLayer};
///
/// let layer = SessionLayer::<Visitor>::new(PrivateCookie, Keys::generate());
/// # }
/// ```
///
/// The cookie is encrypted and authenticated (XChaCha20-Poly1305 with a random nonce, under a key
/// of its own made from the layer's [`Keys`](crate::Keys)) and bound to its name, so that the client can neither
/// read nor change it, nor move it to another cookie. Everything else is as with a store: fields,
/// guards, both timeouts, rotation of keys.
///
/// # Another domain or path
///
/// When a layer gets another cookie domain or path, browsers go on sending the old cookie beside the
/// new one, and mostly before it (RFC 6265bis, 5.8.3). Each cookie says when it was written, and the
/// newest counts, also one that says that the session has ended: under a name on which several cookies
/// are possible, `destroy` does not take the cookie away but sets one of some hundred bytes that says
/// so, for as long as a browser could keep an older one (400 days, or until a session begins). Under a
/// `__Host-` name, as the default is, and without `Partitioned`, there is one cookie, and it is
/// removed.
///
/// # Limits
///
/// - **It cannot be ended by the server.** `destroy` removes the cookie from the browser, and
///   `renew_id` replaces it; but a copy that was made before stays good until it expires. Keep
///   the timeouts short, and nothing in it whose loss would hurt.
/// - **It can be played back**: a client can return to an earlier state of its session, also one
///   from before a coupon was used up.
/// - **Overlapping requests do not share it.** Each has the session that its own cookie brought, and
///   the response that arrives last wins. The promises about concurrency hold within one request
///   only.
/// - **4096 bytes** are what browsers take for a cookie, attributes included. A save of more is a
///   [`TooLarge`](crate::ErrorKind::TooLarge) error that says how large; about 2900 bytes of fields
///   fit. A proxy may take less: nginx answers 502 when all headers of a response together are larger
///   than its `proxy_buffer_size`, 4 or 8 KB by default, and 400 for a request's that are larger than
///   `large_client_header_buffers`.
/// - **Whatever is saved has to be sent**: after the response has left, a save is a
///   [`NoCookie`](crate::ErrorKind::NoCookie) error, and if the client hangs up there is nobody to
///   send to.
#[cfg(feature = "private-cookie")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PrivateCookie;

#[cfg(feature = "private-cookie")]
impl IntoStorage for PrivateCookie {
    fn into_storage(self) -> Storage {
        Storage(Kind::Cookie)
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

    /// How to find the sessions of a user, where the store can.
    pub(crate) fn user_index(&self) -> Option<&dyn DynUserIndex> {
        self.store()?.user_index()
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
