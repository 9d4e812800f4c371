//! The device that a session is bound to. Part of every build, so that one without the feature
//! `device-bound` keeps what another one has stored.

use std::{fmt, time::SystemTime};

/// How many random bytes name a binding.
pub(crate) const BINDING_ID_LENGTH: usize = 16;

/// A point of the curve P-256 in its compressed form (SEC 1, 2.3.3).
const KEY_LENGTH: usize = 33;

/// What a session's record knows of its device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Binding {
    pub(crate) id: BindingId,
    pub(crate) key: DeviceKey,
    /// When the device registered its key.
    pub(crate) since: SystemTime,
}

/// Names a binding, and through it the session, to the browser; another one for each registration. It
/// opens nothing: a browser sends it together with a proof of its key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct BindingId([u8; BINDING_ID_LENGTH]);

impl BindingId {
    pub(crate) const fn from_bytes(bytes: [u8; BINDING_ID_LENGTH]) -> Self {
        Self(bytes)
    }

    pub(crate) fn as_bytes(&self) -> &[u8; BINDING_ID_LENGTH] {
        &self.0
    }
}

/// The first four bytes: enough to tell two apart in a log.
impl fmt::Debug for BindingId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, ..] = self.0;
        write!(f, "BindingId({a:02x}{b:02x}{c:02x}{d:02x}…)")
    }
}

/// The public half of a device's key. Its bytes may be no point: the verification looks.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct DeviceKey([u8; KEY_LENGTH]);

impl DeviceKey {
    pub(crate) fn from_bytes(bytes: [u8; KEY_LENGTH]) -> Self {
        Self(bytes)
    }

    pub(crate) fn as_bytes(&self) -> &[u8; KEY_LENGTH] {
        &self.0
    }
}

impl fmt::Debug for DeviceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DeviceKey(…)")
    }
}
