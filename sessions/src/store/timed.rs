//! A deadline for every call of a store.

use std::{
    error::Error as StdError,
    fmt,
    future::poll_fn,
    pin::Pin,
    task::Poll,
    time::{Duration, SystemTime},
};

use tokio::time::timeout;

use super::{
    Created, Replaced, StoreError,
    erased::{Answer, ErasedStore},
};
use crate::{Record, StoreKey};

/// A store whose calls end in an error when the limit has passed. Their futures are dropped then:
/// the store may have carried them out or not, or may still do so.
#[derive(Clone, Copy)]
pub(crate) struct Timed<'a> {
    pub(crate) store: &'a dyn ErasedStore,
    pub(crate) limit: Duration,
}

impl Timed<'_> {
    pub(crate) async fn load(self, key: &StoreKey) -> Result<Option<Record>, StoreError> {
        self.within("load", self.store.load(key)).await
    }

    pub(crate) async fn create(
        self,
        key: &StoreKey,
        record: &Record,
    ) -> Result<Created, StoreError> {
        self.within("create", self.store.create(key, record)).await
    }

    pub(crate) async fn replace(
        self,
        key: &StoreKey,
        record: &Record,
        based_on: u64,
    ) -> Result<Replaced, StoreError> {
        self.within("replace", self.store.replace(key, record, based_on)).await
    }

    pub(crate) async fn touch(
        self,
        key: &StoreKey,
        expires_at: SystemTime,
    ) -> Result<(), StoreError> {
        self.within("touch", self.store.touch(key, expires_at)).await
    }

    pub(crate) async fn delete(self, key: &StoreKey) -> Result<bool, StoreError> {
        self.within("delete", self.store.delete(key)).await
    }

    /// A store that answers at once needs no timer.
    async fn within<R>(
        self,
        operation: &'static str,
        mut answer: Answer<'_, R>,
    ) -> Result<R, StoreError> {
        if let Poll::Ready(answer) = poll_fn(|cx| Poll::Ready(Pin::new(&mut answer).poll(cx))).await
        {
            return answer;
        }
        match Box::pin(timeout(self.limit, answer)).await {
            Ok(answer) => answer,
            Err(_) => Err(StoreError::new("session", operation, Overdue(self.limit))),
        }
    }
}

/// The store has not answered within this time.
#[derive(Debug)]
struct Overdue(Duration);

impl fmt::Display for Overdue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no answer within {:?} (`SessionLayerBuilder::with_store_timeout`)", self.0)
    }
}

impl StdError for Overdue {}

/// Whether the store has not answered in time.
pub(crate) fn is_overdue(error: &StoreError) -> bool {
    error.source().is_some_and(|source| source.is::<Overdue>())
}
