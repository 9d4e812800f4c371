//! A store with a single record.

use std::{sync::Mutex, time::SystemTime};

use sessions::{Created, Record, Replaced, Store, StoreError, StoreKey};

/// Has one record, or none, under every key, and takes each save whatever version the save is based on: for tests that
/// put a record of their own behind the cookie of a session.
#[derive(Debug, Default)]
pub struct SingleRecord(pub Mutex<Option<Record>>);

impl Store for SingleRecord {
    async fn load(&self, _: &StoreKey) -> Result<Option<Record>, StoreError> {
        Ok(self.0.lock().unwrap().clone())
    }

    async fn create(&self, _: &StoreKey, record: &Record) -> Result<Created, StoreError> {
        *self.0.lock().unwrap() = Some(record.clone());
        Ok(Created::Done)
    }

    async fn replace(&self, k: &StoreKey, r: &Record, _: u64) -> Result<Replaced, StoreError> {
        let _ = self.create(k, r).await?;
        Ok(Replaced::Done)
    }

    async fn touch(&self, _: &StoreKey, _: SystemTime) -> Result<(), StoreError> {
        Ok(())
    }

    async fn delete(&self, _: &StoreKey) -> Result<bool, StoreError> {
        Ok(self.0.lock().unwrap().take().is_some())
    }
}
