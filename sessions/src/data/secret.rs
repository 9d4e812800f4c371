//! The type of a secret field's value.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroize;

/// A value that is not shown by accident and is wiped from memory when it is dropped: the type of a
/// field with `#[session(secret)]`, which is encrypted in the store.
///
/// ```
/// # #[cfg(feature = "derive")] {
/// use sessions::{Secret, Session};
///
/// #[derive(Debug, Session)]
/// struct Visitor {
///     #[session(secret)]
///     token: Option<Secret<String>>,
/// }
///
/// async fn call_the_other_service(session: Session<Visitor>) {
///     let mut s = session.write().await;
///     s.set_token("s3cr3t");
///     assert_eq!(s.token().map(|token| token.expose().as_str()), Some("s3cr3t"));
///     assert_eq!(format!("{s:?}"), "Visitor { token: Some(<redacted>) }");
/// }
/// # }
/// ```
///
/// Its `Debug` is `<redacted>`, it has no `Display`, and its value comes out of
/// [`expose`](Self::expose) alone. It is serialized as the value itself, so that a store or a codec
/// gets it: do not serialize it to anywhere else.
///
/// What is wiped is the memory of the value as it is dropped. Where it was before it got here, and
/// whatever `expose` was copied to, is not; see [`fields`](crate::fields).
#[derive(Clone, Default)]
pub struct Secret<X: Zeroize>(X);

impl<X: Zeroize> Secret<X> {
    /// Keeps `value` from being shown.
    pub const fn new(value: X) -> Self {
        Self(value)
    }

    /// The value itself.
    pub const fn expose(&self) -> &X {
        &self.0
    }

    /// The value itself, to be changed.
    pub const fn expose_mut(&mut self) -> &mut X {
        &mut self.0
    }
}

impl<X: Zeroize> Drop for Secret<X> {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// Shows nothing of the value.
impl<X: Zeroize> fmt::Debug for Secret<X> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<redacted>")
    }
}

impl<X: Zeroize> From<X> for Secret<X> {
    fn from(value: X) -> Self {
        Self(value)
    }
}

impl From<&str> for Secret<String> {
    fn from(value: &str) -> Self {
        Self(value.to_string())
    }
}

impl<X: Zeroize + Serialize> Serialize for Secret<X> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de, X: Zeroize + Deserialize<'de>> Deserialize<'de> for Secret<X> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        X::deserialize(deserializer).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[test]
    fn debug_does_not_leak_a_secret() {
        let secret = Secret::from("hidden");
        assert_eq!(
            format!("{secret:?} {:#?}", Some(&secret)),
            "<redacted> Some(\n    <redacted>,\n)"
        );
    }

    /// Notes that it was wiped.
    struct Witness(Arc<Mutex<u32>>);

    impl Zeroize for Witness {
        fn zeroize(&mut self) {
            *self.0.lock().unwrap() += 1;
        }
    }

    #[test]
    fn a_secret_is_wiped_when_it_is_replaced_or_dropped() {
        let wiped = Arc::new(Mutex::new(0));
        let witness = || Secret::new(Witness(wiped.clone()));
        let mut field = Some(witness());
        assert_eq!(*wiped.lock().unwrap(), 0);
        field.replace(witness());
        assert_eq!(*wiped.lock().unwrap(), 1);
        drop(field);
        assert_eq!(*wiped.lock().unwrap(), 2);
    }
}
