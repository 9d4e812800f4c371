//! Collects the errors of one derive, so that all of them come in one compile.

use std::{cell::RefCell, fmt::Display, mem, thread};

use quote::ToTokens;
use syn::{Error, Result};

/// The errors found so far. To forget them would be to accept a wrong struct, so that dropping
/// this without [`finish`](Self::finish) panics.
#[derive(Default)]
pub(crate) struct Errors {
    found: RefCell<Vec<Error>>,
    finished: bool,
}

impl Errors {
    /// Reports `message` at the tokens that are to blame.
    pub(crate) fn at(&self, place: impl ToTokens, message: impl Display) {
        self.push(Error::new_spanned(place, message));
    }

    pub(crate) fn push(&self, error: Error) {
        self.found.borrow_mut().push(error);
    }

    /// All errors in one, if there are any.
    pub(crate) fn finish(mut self) -> Result<()> {
        self.finished = true;
        let found = mem::take(self.found.get_mut());
        let combined = found.into_iter().reduce(|mut all, next| {
            all.combine(next);
            all
        });
        combined.map_or(Ok(()), Err)
    }
}

impl Drop for Errors {
    fn drop(&mut self) {
        assert!(self.finished || thread::panicking(), "the errors of a derive were forgotten");
    }
}
