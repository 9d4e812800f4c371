//! A deadline for every call of a store.

use std::{
    error::Error as StdError,
    fmt,
    future::poll_fn,
    pin::Pin,
    task::Poll,
    time::{Duration, SystemTime},
};

use super::{
    Created, Replaced,
    erased::{Answer, ErasedStore},
};
use crate::error::store::StoreError;
use crate::{identity::id::StoreKey, meters::StoreCall, record::Record, sync::timeout};

/// A store whose calls end in an error when the limit has passed. Their futures are dropped then:
/// the store may have carried them out or not, or may still do so.
#[derive(Clone, Copy)]
pub(crate) struct Timed<'a> {
    pub(crate) store: &'a dyn ErasedStore,
    pub(crate) limit: Duration,
}

// Not `async fn`s: these futures are part of a handler's, whose box a usual allocator serves quickest
// below a kilobyte.
impl<'a> Timed<'a> {
    pub(crate) fn load(
        self,
        key: &'a StoreKey,
    ) -> impl Future<Output = Result<Option<Record>, StoreError>> + Send + 'a {
        within(self.limit, "load", self.store.load(key))
    }

    pub(crate) fn load_latest(
        self,
        key: &'a StoreKey,
    ) -> impl Future<Output = Result<Option<Record>, StoreError>> + Send + 'a {
        within(self.limit, "load", self.store.load_latest(key))
    }

    pub(crate) fn create(
        self,
        key: &'a StoreKey,
        record: &'a Record,
    ) -> impl Future<Output = Result<Created, StoreError>> + Send + 'a {
        within(self.limit, "create", self.store.create(key, record))
    }

    pub(crate) fn replace(
        self,
        key: &'a StoreKey,
        record: &'a Record,
        based_on: u64,
    ) -> impl Future<Output = Result<Replaced, StoreError>> + Send + 'a {
        within(self.limit, "replace", self.store.replace(key, record, based_on))
    }

    pub(crate) fn touch(
        self,
        key: &'a StoreKey,
        expires_at: SystemTime,
    ) -> impl Future<Output = Result<(), StoreError>> + Send + 'a {
        within(self.limit, "touch", self.store.touch(key, expires_at))
    }

    pub(crate) fn delete(
        self,
        key: &'a StoreKey,
    ) -> impl Future<Output = Result<bool, StoreError>> + Send + 'a {
        within(self.limit, "delete", self.store.delete(key))
    }

    pub(crate) fn delete_version(
        self,
        key: &'a StoreKey,
        version: u64,
    ) -> impl Future<Output = Result<bool, StoreError>> + Send + 'a {
        within(self.limit, "delete", self.store.delete_version(key, version))
    }
}

/// A store that answers at once needs no timer.
#[expect(clippy::manual_async_fn, reason = "an `async fn` has room for each argument twice")]
fn within<'a, R: Send + 'a>(
    limit: Duration,
    operation: &'static str,
    mut answer: Answer<'a, R>,
) -> impl Future<Output = Result<R, StoreError>> + Send + 'a {
    async move {
        let call = StoreCall::begin();
        if let Poll::Ready(answer) = poll_fn(|cx| Poll::Ready(Pin::new(&mut answer).poll(cx))).await
        {
            return answer;
        }
        match Box::pin(timeout(limit, answer)).await {
            Ok(answer) => {
                call.end(operation, if answer.is_ok() { "ok" } else { "error" });
                answer
            }
            Err(_) => {
                call.end(operation, "timeout");
                Err(overdue(operation, limit))
            }
        }
    }
}

pub(crate) fn overdue(operation: &'static str, limit: Duration) -> StoreError {
    StoreError::new("session", operation, Overdue(limit))
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
