//! The one place where a store's type is forgotten, so that no handler has to name it.

use std::{pin::Pin, time::SystemTime};

use super::{Created, Replaced, Store, StoreError};
use crate::{Record, StoreKey};

pub(crate) type Answer<'a, R> = Pin<Box<dyn Future<Output = Result<R, StoreError>> + Send + 'a>>;

/// [`Store`] with boxed futures.
pub(crate) trait ErasedStore: Send + Sync {
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
}

impl<S: Store> ErasedStore for S {
    fn load<'a>(&'a self, key: &'a StoreKey) -> Answer<'a, Option<Record>> {
        Box::pin(Store::load(self, key))
    }

    fn create<'a>(&'a self, key: &'a StoreKey, record: &'a Record) -> Answer<'a, Created> {
        Box::pin(Store::create(self, key, record))
    }

    fn replace<'a>(
        &'a self,
        key: &'a StoreKey,
        record: &'a Record,
        based_on: u64,
    ) -> Answer<'a, Replaced> {
        Box::pin(Store::replace(self, key, record, based_on))
    }

    fn touch<'a>(&'a self, key: &'a StoreKey, expires_at: SystemTime) -> Answer<'a, ()> {
        Box::pin(Store::touch(self, key, expires_at))
    }

    fn delete<'a>(&'a self, key: &'a StoreKey) -> Answer<'a, bool> {
        Box::pin(Store::delete(self, key))
    }
}
