//! For tests: of a store, and of an application that uses sessions.
//!
//! - [`conformance()`] checks everything that [`Store`](crate::Store) promises, for any store.
//! - [`SpyStore`] counts the calls of a store, fails them or holds them when it is told to.
//! - [`FaultyStore`] makes a store fail now and then, in every way, as a seed says.
//! - [`TestClient`] drives an application, logged in with one line, and says what each response
//!   did to the session.
//! - [`stored_payload`] and [`read_payload`] keep a release's bytes readable; [`survival`] says which
//!   fields survive which codec.
//! - [`ManualClock`] is a time of day that is set by hand.

mod client;
mod conformance;
mod faulty;
mod spy;
mod values;

pub use self::{
    client::{SessionChange, TestClient, TestResponse},
    conformance::conformance,
    faulty::{Fault, FaultyStore},
    spy::{Calls, Gate, Operation, SpyStore},
    values::{
        FieldFallback, Survival, read_payload, read_value, store_value, stored_payload,
        stored_value, survival,
    },
};
pub use crate::clock::ManualClock;
