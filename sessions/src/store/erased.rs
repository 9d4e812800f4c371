//! The one place where a store's type is forgotten, so that no handler has to name it.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::SystemTime,
};

use super::{Created, Replaced, Store, UserIndex};
use crate::error::store::StoreError;
#[cfg(feature = "memory")]
use crate::store::memory::MemoryStore;
use crate::{identity::id::StoreKey, record::Record};

pub(crate) type Boxed<'a, R> = Pin<Box<dyn Future<Output = Result<R, StoreError>> + Send + 'a>>;

/// A store's word that something has changed.
pub(crate) type Change<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// A store's answer: in a box while it is waited for.
pub(crate) enum Answer<'a, R> {
    #[cfg(feature = "memory")]
    Ready(Option<Result<R, StoreError>>),
    Waiting(Boxed<'a, R>),
}

impl<R> Answer<'_, R> {
    /// The answer, if it has not to be waited for; else the call is given up.
    pub(crate) fn now(self) -> Option<Result<R, StoreError>> {
        match self {
            #[cfg(feature = "memory")]
            Self::Ready(answer) => answer,
            Self::Waiting(_) => None,
        }
    }
}

impl<R> Unpin for Answer<'_, R> {}

impl<R> Future for Answer<'_, R> {
    type Output = Result<R, StoreError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.get_mut() {
            #[cfg(feature = "memory")]
            Self::Ready(answer) => Poll::Ready(answer.take().expect("polled once")),
            Self::Waiting(answer) => answer.as_mut().poll(cx),
        }
    }
}

/// What a store says of a record that it still has.
pub(crate) struct Unchanged {
    pub(crate) expires_at: SystemTime,
    /// When the store has looked, if by the system's clock.
    pub(crate) seen: Option<SystemTime>,
}

/// [`Store`] with futures of one type.
pub(crate) trait ErasedStore: Send + Sync {
    /// Whether no answer has to be waited for.
    fn is_ready_at_once(&self) -> bool {
        false
    }

    /// What the store knows of a session if the store has this very record of it, and can say so at
    /// once: a record that is known already need not be handed out.
    fn has_still(&self, _key: &StoreKey, _known: &Record) -> Option<Unchanged> {
        None
    }

    /// [`load`](Self::load), if the store answers at once and does not fail; and when the store has
    /// looked, if by the system's clock.
    fn load_at_once(&self, key: &StoreKey) -> Option<(Option<Record>, Option<SystemTime>)> {
        Some((self.load(key).now()?.ok()?, None))
    }

    /// [`create`](Self::create), if the store answers at once. `seen` is what the system's clock has
    /// shown a moment ago.
    fn create_at_once(
        &self,
        key: &StoreKey,
        record: &Record,
        _seen: Option<SystemTime>,
    ) -> Option<Result<Created, StoreError>> {
        self.create(key, record).now()
    }

    fn load<'a>(&'a self, key: &'a StoreKey) -> Answer<'a, Option<Record>>;
    fn create<'a>(&'a self, key: &'a StoreKey, record: &'a Record) -> Answer<'a, Created>;
    fn replace<'a>(
        &'a self,
        key: &'a StoreKey,
        record: &'a Record,
        based_on: u64,
    ) -> Answer<'a, Replaced>;
    fn touch<'a>(&'a self, key: &'a StoreKey, expires_at: SystemTime) -> Answer<'a, ()>;
    fn delete<'a>(&'a self, key: &'a StoreKey) -> Answer<'a, bool>;
    fn delete_version<'a>(&'a self, key: &'a StoreKey, version: u64) -> Answer<'a, bool>;

    fn user_index(&self) -> Option<&dyn DynUserIndex>;

    fn load_latest<'a>(&'a self, key: &'a StoreKey) -> Answer<'a, Option<Record>>;
    fn next_change<'a>(&'a self, key: &'a StoreKey) -> Change<'a>;
}

impl<S: Store> ErasedStore for S {
    fn load<'a>(&'a self, key: &'a StoreKey) -> Answer<'a, Option<Record>> {
        Answer::Waiting(Box::pin(Store::load(self, key)))
    }

    fn create<'a>(&'a self, key: &'a StoreKey, record: &'a Record) -> Answer<'a, Created> {
        Answer::Waiting(Box::pin(Store::create(self, key, record)))
    }

    fn replace<'a>(
        &'a self,
        key: &'a StoreKey,
        record: &'a Record,
        based_on: u64,
    ) -> Answer<'a, Replaced> {
        Answer::Waiting(Box::pin(Store::replace(self, key, record, based_on)))
    }

    fn touch<'a>(&'a self, key: &'a StoreKey, expires_at: SystemTime) -> Answer<'a, ()> {
        Answer::Waiting(Box::pin(Store::touch(self, key, expires_at)))
    }

    fn delete<'a>(&'a self, key: &'a StoreKey) -> Answer<'a, bool> {
        Answer::Waiting(Box::pin(Store::delete(self, key)))
    }

    fn delete_version<'a>(&'a self, key: &'a StoreKey, version: u64) -> Answer<'a, bool> {
        Answer::Waiting(Box::pin(Store::delete_version(self, key, version)))
    }

    fn user_index(&self) -> Option<&dyn DynUserIndex> {
        Store::user_index(self)
    }

    fn load_latest<'a>(&'a self, key: &'a StoreKey) -> Answer<'a, Option<Record>> {
        Answer::Waiting(Box::pin(Store::load_latest(self, key)))
    }

    fn next_change<'a>(&'a self, key: &'a StoreKey) -> Change<'a> {
        Box::pin(Store::next_change(self, key))
    }
}

/// A [`UserIndex`] whose type is forgotten: what [`Store::user_index`] gives.
///
/// Implemented for every `UserIndex`; not meant to be implemented by hand.
pub trait DynUserIndex: Send + Sync {
    /// [`UserIndex::sessions_of`].
    fn dyn_sessions_of<'a>(&'a self, user: &'a str) -> Boxed<'a, Vec<(StoreKey, Record)>>;

    /// [`UserIndex::delete_sessions_of`].
    fn dyn_delete_sessions_of<'a>(
        &'a self,
        user: &'a str,
        except: Option<&'a StoreKey>,
    ) -> Boxed<'a, u64>;
}

impl<S: UserIndex> DynUserIndex for S {
    fn dyn_sessions_of<'a>(&'a self, user: &'a str) -> Boxed<'a, Vec<(StoreKey, Record)>> {
        Box::pin(self.sessions_of(user))
    }

    fn dyn_delete_sessions_of<'a>(
        &'a self,
        user: &'a str,
        except: Option<&'a StoreKey>,
    ) -> Boxed<'a, u64> {
        Box::pin(self.delete_sessions_of(user, except))
    }
}

/// The index of a store that stands behind the one called `name`.
///
/// # Errors
///
/// If the store has none.
pub(super) fn index_behind<'a>(
    store: &'a impl Store,
    name: &'static str,
    operation: &'static str,
) -> Result<&'a dyn DynUserIndex, StoreError> {
    Store::user_index(store).ok_or_else(|| {
        StoreError::permanent(name, operation, "the store behind it has no `user_index`")
    })
}

/// A [`MemoryStore`], which answers without a future: nothing is boxed.
#[cfg(feature = "memory")]
pub(crate) struct AtOnce(pub(crate) MemoryStore);

#[cfg(feature = "memory")]
impl ErasedStore for AtOnce {
    fn is_ready_at_once(&self) -> bool {
        true
    }

    fn has_still(&self, key: &StoreKey, known: &Record) -> Option<Unchanged> {
        self.0.inner().has_still(key, known)
    }

    fn load_at_once(&self, key: &StoreKey) -> Option<(Option<Record>, Option<SystemTime>)> {
        Some(self.0.inner().load_and_look(key))
    }

    fn create_at_once(
        &self,
        key: &StoreKey,
        record: &Record,
        seen: Option<SystemTime>,
    ) -> Option<Result<Created, StoreError>> {
        Some(self.0.inner().create(key, record, seen))
    }

    fn load<'a>(&'a self, key: &'a StoreKey) -> Answer<'a, Option<Record>> {
        Answer::Ready(Some(Ok(self.0.inner().load(key))))
    }

    fn create<'a>(&'a self, key: &'a StoreKey, record: &'a Record) -> Answer<'a, Created> {
        Answer::Ready(Some(self.0.inner().create(key, record, None)))
    }

    fn replace<'a>(
        &'a self,
        key: &'a StoreKey,
        record: &'a Record,
        based_on: u64,
    ) -> Answer<'a, Replaced> {
        Answer::Ready(Some(self.0.inner().replace(key, record, based_on)))
    }

    fn touch<'a>(&'a self, key: &'a StoreKey, expires_at: SystemTime) -> Answer<'a, ()> {
        self.0.inner().touch(key, expires_at);
        Answer::Ready(Some(Ok(())))
    }

    fn delete<'a>(&'a self, key: &'a StoreKey) -> Answer<'a, bool> {
        Answer::Ready(Some(Ok(self.0.inner().delete(key))))
    }

    fn delete_version<'a>(&'a self, key: &'a StoreKey, version: u64) -> Answer<'a, bool> {
        Answer::Ready(Some(Ok(self.0.inner().delete_version(key, version))))
    }

    fn user_index(&self) -> Option<&dyn DynUserIndex> {
        Store::user_index(&self.0)
    }

    fn load_latest<'a>(&'a self, key: &'a StoreKey) -> Answer<'a, Option<Record>> {
        ErasedStore::load(self, key)
    }

    fn next_change<'a>(&'a self, key: &'a StoreKey) -> Change<'a> {
        Box::pin(Store::next_change(&self.0, key))
    }
}
