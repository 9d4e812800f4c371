//! What a store says when it cannot answer.

use std::{error::Error as StdError, fmt};

/// A store could not answer.
///
/// Says which store and which operation failed, whether it may be worth trying again, and keeps
/// the cause as its [`source`](StdError::source).
///
/// ```
/// use sessions::StoreError;
///
/// let error = StoreError::permanent("redis", "create", "a record of 2 MB is too large");
/// assert_eq!(
///     error.to_string(),
///     "the redis store failed in `create`, and would again",
/// );
/// assert!(!error.is_retryable());
/// ```
#[derive(Debug)]
pub struct StoreError {
    store: &'static str,
    operation: &'static str,
    is_retryable: bool,
    source: Box<dyn StdError + Send + Sync>,
}

impl StoreError {
    /// An error of `store` ("redis", "sqlite") in `operation` ("load", "replace") that may be gone
    /// the next time: a lost connection, a timeout, a server that is busy or just starting.
    pub fn new(
        store: &'static str,
        operation: &'static str,
        source: impl Into<Box<dyn StdError + Send + Sync>>,
    ) -> Self {
        Self { store, operation, is_retryable: true, source: source.into() }
    }

    /// An error that stays until somebody does something about it: a record that is too large, a
    /// table that does not exist, a password that is wrong.
    pub fn permanent(
        store: &'static str,
        operation: &'static str,
        source: impl Into<Box<dyn StdError + Send + Sync>>,
    ) -> Self {
        Self { is_retryable: false, ..Self::new(store, operation, source) }
    }

    /// The store that failed.
    pub fn store(&self) -> &'static str {
        self.store
    }

    /// The operation that failed.
    pub fn operation(&self) -> &'static str {
        self.operation
    }

    /// Whether the same call may succeed a little later. The failed call may have been carried out.
    pub fn is_retryable(&self) -> bool {
        self.is_retryable
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the {} store failed in `{}`", self.store, self.operation)?;
        if !self.is_retryable {
            f.write_str(", and would again")?;
        }
        Ok(())
    }
}

impl StdError for StoreError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&*self.source)
    }
}

/// A cause, and what to do about it.
#[cfg(any(feature = "sqlite", feature = "postgres", feature = "mysql", feature = "redis"))]
#[derive(Debug)]
pub(crate) struct Advice<E> {
    pub(crate) advice: String,
    pub(crate) source: E,
}

#[cfg(any(feature = "sqlite", feature = "postgres", feature = "mysql", feature = "redis"))]
impl<E: fmt::Display> fmt::Display for Advice<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.advice, self.source)
    }
}

#[cfg(any(feature = "sqlite", feature = "postgres", feature = "mysql", feature = "redis"))]
impl<E: StdError + 'static> StdError for Advice<E> {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&self.source)
    }
}
