//! For tests: of a store, and of an application that uses sessions.
//!
//! - [`conformance()`] checks everything that [`Store`](crate::Store) promises, for any store.
//! - [`SpyStore`] counts the calls of a store, fails them or holds them when it is told to.
//! - [`ManualClock`] is a time of day that is set by hand.

mod clock;
mod conformance;
mod spy;

pub use self::{
    clock::ManualClock,
    conformance::conformance,
    spy::{Calls, Gate, Operation, SpyStore},
};
