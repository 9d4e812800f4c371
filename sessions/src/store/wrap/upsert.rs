//! How a copy of a record gets into a second store.

use crate::{
    error::store::StoreError,
    store::{Created, Replaced, Store},
};
use crate::{identity::id::StoreKey, record::Record};

/// How often other processes may be faster before this one leaves it to them: each has written something
/// newer, or removed the record.
const TRIES: usize = 8;

/// What became of the copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Put {
    /// The store had none.
    Created,
    /// It took the place of an older one, or what is there does not give way.
    Kept,
    /// Other writers of the record were faster each time.
    Overtaken,
}

/// Keeps `record` in `store` unless that has the same version or a newer one. So of two copies
/// that are on their way at once the newer one stays, in whatever order they arrive.
pub(crate) async fn put_newer(
    store: &impl Store,
    key: &StoreKey,
    record: &Record,
) -> Result<Put, StoreError> {
    put_if(store, key, record, |found| found.version < record.version).await
}

/// Keeps `record` in `store` in place of whatever was there.
pub(crate) async fn put_always(
    store: &impl Store,
    key: &StoreKey,
    record: &Record,
) -> Result<Put, StoreError> {
    put_if(store, key, record, |_| true).await
}

/// Keeps `record` in `store` unless something is there that does not give way.
pub(crate) async fn put_if(
    store: &impl Store,
    key: &StoreKey,
    record: &Record,
    gives_way: impl Fn(&Record) -> bool,
) -> Result<Put, StoreError> {
    for _ in 0..TRIES {
        match store.load(key).await? {
            None => {
                if store.create(key, record).await? == Created::Done {
                    return Ok(Put::Created);
                }
            }
            Some(found) if gives_way(&found) => {
                if store.replace(key, record, found.version).await? == Replaced::Done {
                    return Ok(Put::Kept);
                }
            }
            Some(_) => return Ok(Put::Kept),
        }
    }
    Ok(Put::Overtaken)
}
