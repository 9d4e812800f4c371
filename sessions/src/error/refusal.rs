//! Why a change cannot be stored.

use std::{error::Error as StdError, fmt, sync::Arc};

/// Why a change cannot be stored.
#[derive(Clone)]
pub(crate) enum Refusal {
    /// It could not be made into bytes.
    Encode(Arc<EncodeFailure>),
    /// Another request has changed the same field, and the layer says not to overwrite that.
    Conflict,
    /// Another request has taken the same flash field, or put something else in its place.
    Taken,
    /// It was made under a lease that another process has taken over.
    LeaseLost,
    /// It may be stored already, and would count twice if it were stored again.
    Unknown,
    /// It did not fit into the session, which has another id by now.
    TooLarge { size: usize, limit: usize },
}

impl Refusal {
    /// Nothing else of the request is to be stored either, nor what it writes from here on: all of it or
    /// nothing.
    pub(crate) fn is_of_whole_request(&self) -> bool {
        matches!(self, Self::Conflict | Self::Taken)
    }

    /// It is not the value that is in the way. So the request is told whatever it sets the field to later:
    /// what it has made of the earlier value may have been shown already.
    pub(crate) fn is_final(&self) -> bool {
        !matches!(self, Self::Encode(_))
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Encode(error) => return write!(f, "it could not be encoded: {error}"),
            Self::Conflict => "another request has changed the same field",
            Self::Taken => "another request has taken the same flash field",
            Self::LeaseLost => "its lease was lost",
            Self::Unknown => "it may be stored already",
            Self::TooLarge { .. } => "it did not fit in",
        })
    }
}

/// A value that its codec, or the value's own type, refuses. The text says what to write instead, and
/// contains no value.
#[derive(Debug)]
pub(crate) struct EncodeFailure {
    type_name: &'static str,
    problem: Box<dyn StdError + Send + Sync>,
}

impl EncodeFailure {
    pub(crate) fn new(
        type_name: &'static str,
        problem: impl StdError + Send + Sync + 'static,
    ) -> Self {
        Self { type_name, problem: Box::new(problem) }
    }

    /// The Rust type of the field.
    pub(crate) fn type_name(&self) -> &'static str {
        self.type_name
    }
}

impl fmt::Display for EncodeFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.problem.fmt(f)
    }
}

impl StdError for EncodeFailure {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.problem.source()
    }
}
