//! Why a session of the old library is not adopted: for good, or not now.

use std::{error::Error as StdError, fmt};

use crate::error::store::StoreError;

/// Why a session of the old library is not adopted.
#[derive(Debug)]
pub struct AdoptError(Why);

#[derive(Debug)]
enum Why {
    Unreadable(Box<dyn StdError + Send + Sync>),
    Store(StoreError),
}

impl AdoptError {
    /// The old session is nothing to go on with: the reason is logged, and the visitor is a new one. The
    /// reason should hold no values.
    pub fn unreadable(reason: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self(Why::Unreadable(reason.into()))
    }

    /// The old store, or whatever else was asked, did not answer: the request is answered with 503, and the
    /// next one tries again.
    pub fn store(error: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        StoreError::new("predecessor's", "adopt", error).into()
    }

    /// The store's error, if it is that.
    pub(crate) fn into_store(self) -> Result<StoreError, Self> {
        match self.0 {
            Why::Store(error) => Ok(error),
            why => Err(Self(why)),
        }
    }
}

impl From<StoreError> for AdoptError {
    fn from(error: StoreError) -> Self {
        Self(Why::Store(error))
    }
}

impl fmt::Display for AdoptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Why::Unreadable(reason) => write!(f, "it cannot be read: {reason}"),
            Why::Store(error) => error.fmt(f),
        }
    }
}

impl StdError for AdoptError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match &self.0 {
            Why::Unreadable(reason) => Some(&**reason),
            Why::Store(error) => error.source(),
        }
    }
}
