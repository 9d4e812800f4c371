//! What was in a session of the old library.

use std::fmt;

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

use super::AdoptError;

/// What was in a session of the old library: values under names, as JSON has them.
#[derive(Clone, Default)]
pub struct OldSession {
    values: Map<String, Value>,
}

/// The key under which axum-login keeps who is logged in, unless it was told another.
const AXUM_LOGIN: &str = "axum-login.data";

impl OldSession {
    /// A session without values.
    pub fn new() -> Self {
        Self::default()
    }

    /// The session with one more value.
    ///
    /// # Errors
    ///
    /// If the value cannot be written as JSON.
    pub fn with(mut self, name: &str, value: impl Serialize) -> Result<Self, AdoptError> {
        let value = serde_json::to_value(value);
        let value = value.map_err(|_| cannot_read(name, "it cannot be written as JSON"))?;
        self.values.insert(name.to_string(), value);
        Ok(self)
    }

    /// The value with this name, if the session has one.
    ///
    /// # Errors
    ///
    /// If the value is not a `V`. With `?` in the application's function, the session is then not adopted,
    /// and the log says which value it was.
    pub fn get<V: DeserializeOwned>(&self, name: &str) -> Result<Option<V>, AdoptError> {
        let value = self.values.get(name).map(V::deserialize).transpose();
        value.map_err(|_| has_another_type::<V>(name))
    }

    /// The names of all values.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.values.keys().map(String::as_str)
    }

    /// Whom axum-login had logged in, if anybody, by the id of its `AuthUser`. If the application has given
    /// `AuthManagerLayerBuilder` another `data_key`, take `user_id` of the value with that name.
    ///
    /// axum-login compares a hash of the password with every request; for that there is
    /// [`with_check`](super::Predecessor::with_check).
    ///
    /// # Errors
    ///
    /// If the id is not a `V`.
    pub fn axum_login_user<V: DeserializeOwned>(&self) -> Result<Option<V>, AdoptError> {
        self.axum_login("user_id")
    }

    /// The hash that axum-login compared with `AuthUser::session_auth_hash`.
    ///
    /// # Errors
    ///
    /// If it is not written as axum-login does.
    pub fn axum_login_auth_hash(&self) -> Result<Option<Vec<u8>>, AdoptError> {
        self.axum_login("auth_hash")
    }

    fn axum_login<V: DeserializeOwned>(&self, part: &str) -> Result<Option<V>, AdoptError> {
        let part = self.values.get(AXUM_LOGIN).and_then(|data| data.get(part));
        let part = part.map(Option::<V>::deserialize).transpose();
        part.map(Option::flatten).map_err(|_| has_another_type::<V>(AXUM_LOGIN))
    }

    pub(super) fn from_values(values: Map<String, Value>) -> Self {
        Self { values }
    }

    /// From libraries that keep each value as JSON in a text.
    pub(super) fn from_texts(texts: Map<String, Value>) -> Result<Self, AdoptError> {
        let value = |(name, text): (String, Value)| {
            let text = text.as_str().ok_or_else(|| cannot_read(&name, "it is no text"))?;
            let value =
                serde_json::from_str(text).map_err(|_| cannot_read(&name, "it is no JSON"))?;
            Ok((name, value))
        };
        Ok(Self { values: texts.into_iter().map(value).collect::<Result<_, AdoptError>>()? })
    }
}

/// Says which values there are, and not what they are.
impl fmt::Debug for OldSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OldSession").field("names", &self.values.keys()).finish()
    }
}

/// Not what serde says: that quotes the value.
fn has_another_type<V>(name: &str) -> AdoptError {
    cannot_read(name, &format!("it is not a `{}`", std::any::type_name::<V>()))
}

fn cannot_read(name: &str, why: &str) -> AdoptError {
    AdoptError::unreadable(format!("the value `{name}`: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_by_name_and_type() {
        let old = OldSession::new().with("cart", ["teapot"]).unwrap();
        assert_eq!(old.get::<Vec<String>>("cart").unwrap(), Some(vec!["teapot".to_string()]));
        assert_eq!(old.get::<u64>("user").unwrap(), None);
        let error = old.get::<u64>("cart").unwrap_err();
        assert!(error.to_string().contains("`cart`"), "{error}");
    }

    #[test]
    fn whom_axum_login_had_logged_in() {
        let data = |text: &str| serde_json::from_str::<Value>(text).unwrap();
        let both = data(r#"{"user_id": 7, "auth_hash": [1, 2]}"#);
        let old = OldSession::new().with(AXUM_LOGIN, both).unwrap();
        assert_eq!(old.axum_login_user::<u64>().unwrap(), Some(7));
        assert_eq!(old.axum_login_auth_hash().unwrap(), Some(vec![1, 2]));
        let none = data(r#"{"user_id": null, "auth_hash": null}"#);
        let nobody = OldSession::new().with(AXUM_LOGIN, none).unwrap();
        assert_eq!(nobody.axum_login_user::<u64>().unwrap(), None);
        assert_eq!(OldSession::new().axum_login_user::<u64>().unwrap(), None);
        assert!(old.axum_login_user::<String>().is_err());
    }

    #[test]
    fn no_value_is_printed() {
        let old = OldSession::new().with("name", "Zoë").unwrap();
        let shown = format!("{old:?}");
        assert!(!shown.contains("Zoë"), "{shown}");
        let error = old.get::<u64>("name").unwrap_err();
        assert!(!error.to_string().contains("Zoë"), "{error}");
    }
}
