//! What a session's values are in a store, for tests that keep a release's bytes, and for the choice of
//! a codec.

use std::{any::type_name, fmt, sync::Arc};

use serde::{Serialize, de::DeserializeOwned};

use crate::{
    data::{
        FieldInfo, SessionData,
        body::{self, Encoder, Found},
        codec::{Codec, EncodeError, error::Unreadable, form::Own},
        patch::{Patch, RequestId},
        payload::{Fallbacks, PayloadReader},
        tracked::{DirtyBits, Tracked},
    },
    error::{Error, refusal::Refusal},
};

const FIELD: FieldInfo = FieldInfo::new("value");

/// The bytes of one field's value, as this build stores it with this codec.
///
/// # Errors
///
/// An [`Encode`](crate::ErrorKind::Encode) error, if the codec would not give the value back.
pub fn stored_value<F>(codec: Codec, value: &F) -> Result<Vec<u8>, Error>
where
    F: Serialize + DeserializeOwned + Send + Sync + 'static,
{
    // As much as a save has ready.
    let mut bytes = Vec::with_capacity(64);
    store_value(codec, value, &mut bytes)?;
    Ok(bytes)
}

/// [`stored_value`], into a buffer that is empty, as the buffer of a save is: for benches.
///
/// # Errors
///
/// Those of [`stored_value`].
#[doc(hidden)]
pub fn store_value<F>(codec: Codec, value: &F, buffer: &mut Vec<u8>) -> Result<(), Error>
where
    F: Serialize + DeserializeOwned + Send + Sync + 'static,
{
    let encoded = Encoder::new(codec, &FIELD, buffer).put(value);
    encoded.map_err(|error| refused(FIELD.key, error))
}

/// The value that this build reads from what [`stored_value`] has once given.
///
/// # Errors
///
/// Why the field would have its default instead.
pub fn read_value<F>(bytes: &[u8]) -> Result<F, FieldFallback>
where
    F: Serialize + DeserializeOwned + Send + Sync + 'static,
{
    let why = match body::decode::<Own<F>>(bytes, 0) {
        Ok(Found::Value(value)) => return Ok(value),
        Ok(Found::Unset | Found::OtherVersion) => "nothing is stored".to_string(),
        Err(error) => reason(error.why, error.source),
    };
    Err(FieldFallback { field: FIELD.key, type_name: type_name::<F>(), why })
}

/// The payload of a session in which `write` has set some fields, as this build stores it with this
/// codec (fields with a `codec` of their own with that), but for `secret` fields, which are not
/// encrypted here.
///
/// Keep it in a file, and let a test of every later build read it with [`read_payload`]:
///
/// ```
/// # #[cfg(all(feature = "derive", feature = "bincode"))] {
/// use sessions::{Codec, Session, testing};
///
/// #[derive(Session)]
/// struct Visitor {
///     #[session(default = "light")]
///     theme: String,
///     visits: u32,
/// }
///
/// // Once, with the build that is released:
/// let bytes = testing::stored_payload::<Visitor>(Codec::Bincode, |s| {
///     s.set_theme("dark");
///     s.set_visits(300);
/// })
/// .unwrap();
/// # let in_the_file = b"\x01\x00\x05theme\x07\x05\x0b\x04dark\x06visits\x05\x05\x03\xfb\x2c\x01";
/// # assert_eq!(bytes, in_the_file);
///
/// // Ever after: let in_the_file = include_bytes!("sessions/1.0.bin");
/// let visitor = testing::read_payload::<Visitor>(in_the_file).unwrap();
/// assert_eq!((&*visitor.theme, visitor.visits), ("dark", 300));
/// # }
/// ```
///
/// # Errors
///
/// An [`Encode`](crate::ErrorKind::Encode) error, if the codec would not give a value back.
pub fn stored_payload<T: SessionData>(
    codec: Codec,
    write: impl FnOnce(&mut T::Fields),
) -> Result<Vec<u8>, Error> {
    let fields = written::<T>(write);
    let tracked = T::__tracked(&fields);
    let mut patch = Patch::default();
    for field in tracked.touched_fields(0).fields() {
        let info = &T::FIELDS[field];
        let mut body = Vec::new();
        let codec = info.codec.unwrap_or(codec);
        let encoded =
            tracked.data().__encode(field, &mut Encoder::thorough(codec, info, &mut body));
        encoded.map_err(|error| refused(info.key, error))?;
        patch.set(field, body[..].into(), RequestId(0));
    }
    let mut reader = PayloadReader::empty(T::FIELDS);
    reader.apply(&patch);
    Ok(reader.write(&[]))
}

/// The session that this build reads from what [`stored_payload`], or a store, has kept.
///
/// # Errors
///
/// The fields that would have their defaults although something is stored for them, and why.
pub fn read_payload<T: SessionData>(payload: &[u8]) -> Result<T, Vec<FieldFallback>> {
    let mut reader = PayloadReader::empty(T::FIELDS);
    if reader.read(payload).is_err() {
        let why = "no build of this version could have written that payload".to_string();
        return Err(vec![FieldFallback { field: "", type_name: type_name::<T>(), why }]);
    }
    let fallbacks = Fallbacks::default();
    reader.note_fallbacks(&fallbacks);
    let session = T::__load(&reader);
    let fallbacks = fallbacks.take();
    if fallbacks.is_empty() {
        return Ok(session);
    }
    let told = fallbacks.into_iter().map(|(field, type_name, error)| FieldFallback {
        field: T::FIELDS[field].key,
        type_name,
        why: reason(error.why, error.source),
    });
    Err(told.collect())
}

/// Which fields of a session survive which codec, with the values that `write` has set: each is stored
/// and read back with each codec that is compiled in. `Display` gives a table in Markdown.
///
/// ```
/// # #[cfg(all(feature = "derive", feature = "bincode", feature = "json"))] {
/// use sessions::{Codec, Session, testing};
///
/// #[derive(Session)]
/// struct Visitor {
///     share: f64,
///     visits: u32,
/// }
///
/// let survival = testing::survival::<Visitor>(|s| {
///     s.set_share(f64::NAN);
///     s.set_visits(3);
/// });
/// assert!(survival.survives("share", Codec::Bincode));
/// assert!(!survival.survives("share", Codec::Json), "{survival}");
/// # }
/// ```
pub fn survival<T: SessionData>(write: impl FnOnce(&mut T::Fields)) -> Survival {
    let fields = written::<T>(write);
    let data = T::__tracked(&fields).data();
    let rows = T::FIELDS.iter().enumerate().map(|(field, info)| {
        let outcome = |&codec: &Codec| {
            let mut body = Vec::new();
            let encoded = data.__encode(field, &mut Encoder::thorough(codec, info, &mut body));
            encoded.map(|()| body.len()).map_err(|error| error.to_string())
        };
        (info.key, Codec::ALL.iter().map(outcome).collect())
    });
    Survival { rows: rows.collect() }
}

fn written<T: SessionData>(write: impl FnOnce(&mut T::Fields)) -> T::Fields {
    let mut fields = T::__wrap(Tracked::clean(T::__load(&PayloadReader::empty(T::FIELDS))));
    write(&mut fields);
    fields
}

fn refused(field: &'static str, error: EncodeError) -> Error {
    Error::refused(field, Refusal::Encode(Arc::new(error.into())))
}

/// With the cause, which may quote the value: this is for tests.
fn reason(why: Unreadable, source: Option<Box<dyn std::error::Error + Send + Sync>>) -> String {
    match source {
        Some(source) => format!("{why} ({source})"),
        None => why.to_string(),
    }
}

/// A stored field that would have its default. `Display` says why, and may quote the value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldFallback {
    field: &'static str,
    type_name: &'static str,
    why: String,
}

impl FieldFallback {
    /// The key of the field in the store.
    pub fn field(&self) -> &'static str {
        self.field
    }
}

impl fmt::Display for FieldFallback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` (`{}`) has its default: {}", self.field, self.type_name, self.why)
    }
}

impl std::error::Error for FieldFallback {}

/// What [`survival`] has found.
#[derive(Clone, Debug)]
pub struct Survival {
    /// Of each field, by codec: the number of its bytes, or why it does not survive.
    rows: Vec<(&'static str, Vec<Result<usize, String>>)>,
}

impl Survival {
    /// Whether the field with this key comes back from this codec.
    ///
    /// # Panics
    ///
    /// If there is no such field.
    pub fn survives(&self, field: &str, codec: Codec) -> bool {
        let row = self.rows.iter().find(|(key, _)| *key == field);
        let (_, outcomes) = row.unwrap_or_else(|| panic!("no field is stored as `{field}`"));
        let at = Codec::ALL.iter().position(|known| *known == codec);
        at.is_some_and(|at| outcomes[at].is_ok())
    }
}

impl fmt::Display for Survival {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let codecs: Vec<_> = Codec::ALL.iter().map(Codec::to_string).collect();
        writeln!(f, "| field | {} |", codecs.join(" | "))?;
        writeln!(f, "| --- |{}", " --- |".repeat(codecs.len()))?;
        for (field, outcomes) in &self.rows {
            let outcomes: Vec<_> = outcomes
                .iter()
                .map(|outcome| match outcome {
                    Ok(bytes) => format!("{bytes} B"),
                    Err(why) => why.clone(),
                })
                .collect();
            writeln!(f, "| {field} | {} |", outcomes.join(" | "))?;
        }
        Ok(())
    }
}
