//! Every generated item has its documentation.
#![deny(warnings, missing_docs, unsafe_code)]

/// A visitor.
#[derive(sessions::Session)]
pub struct Visitor {
    /// What to call them.
    pub name: Option<String>,
    /// How often they came.
    pub visits: u32,
    #[session(skip)]
    scratch: Vec<u8>,
}

fn main() {}
