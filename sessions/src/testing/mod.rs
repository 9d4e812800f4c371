//! For tests: of a store, and of an application that uses sessions.
//!
//! - [`conformance()`] checks everything that [`Store`](crate::Store) promises, for any store.
//! - [`SpyStore`] counts the calls of a store, fails them or holds them when it is told to.
//! - [`FaultyStore`] makes a store fail now and then, in every way, as a seed says.
//! - [`ManualClock`] is a time of day that is set by hand.

mod clock;
mod conformance;
mod faulty;
mod spy;

pub use self::{
    clock::ManualClock,
    conformance::conformance,
    faulty::{Fault, FaultyStore},
    spy::{Calls, Gate, Operation, SpyStore},
};
