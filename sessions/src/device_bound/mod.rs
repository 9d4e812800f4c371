//! Sessions that are bound to a device: Device Bound Session Credentials, the server's side.
//!
//! ```text
//! arrival    where a request comes from
//! challenge  what a device has to sign
//! cookie     the bound cookie, and what the browser calls a binding
//! jwt        the proof
//! link       the way from a binding to its session
//! offers     which sessions have been offered a binding
//! settings   what the application says, checked; the paths, and what the browser is told
//! ```
//!
//! Everything here is a function of what it is given. `layer/device.rs` answers the browser, `save/link.rs`
//! asks the store, `session/request.rs` decides what a request gets.

pub(crate) mod arrival;
pub(crate) mod challenge;
pub(crate) mod cookie;
pub(crate) mod jwt;
pub(crate) mod link;
mod offers;
pub(crate) mod settings;

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use http::HeaderName;

use crate::{device_bound::cookie::BoundCookie, record::binding::Binding};

/// The headers of the protocol, as browsers call them.
pub(crate) static REGISTRATION: HeaderName = HeaderName::from_static("secure-session-registration");
pub(crate) static RESPONSE: HeaderName = HeaderName::from_static("secure-session-response");
pub(crate) static CHALLENGE: HeaderName = HeaderName::from_static("secure-session-challenge");
pub(crate) static SESSION_ID: HeaderName = HeaderName::from_static("sec-secure-session-id");
pub(crate) static SKIPPED: HeaderName = HeaderName::from_static("secure-session-skipped");

/// So long after a registration a request may come without the bound cookie: it may have been sent
/// before the browser had it.
const GRACE: Duration = Duration::from_secs(60);

/// What a request has shown of its session's device: [`Session::device_binding`](crate::Session::device_binding).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeviceProof {
    /// The session is bound to no device: its browser cannot do that, or has not yet, or nobody is
    /// logged in.
    Unbound,
    /// The request comes with the bound cookie, which its device has got for a proof of its key.
    Proven {
        /// When the device proved that it has the key; when it registered the key, for a request in the
        /// first minute after that.
        at: SystemTime,
    },
    /// The session is bound, and the request does not show that it comes from the device.
    Unproven {
        /// What is wrong.
        why: Unproven,
    },
}

/// Why a request of a bound session shows nothing of the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unproven {
    /// It has no bound cookie that the layer has made.
    NoCookie,
    /// Its bound cookie is older than the layer's [lifetime](crate::DeviceBinding::with_lifetime).
    Expired,
    /// Its bound cookie is of another session, or of another device.
    AnotherBinding,
}

impl Unproven {
    /// What the metrics call it.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::NoCookie => "no_cookie",
            Self::Expired => "expired",
            Self::AnotherBinding => "another_binding",
        }
    }
}

impl fmt::Display for Unproven {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoCookie => "it has no bound cookie",
            Self::Expired => "its bound cookie is too old",
            Self::AnotherBinding => "its bound cookie is of another binding",
        })
    }
}

/// What a request gets that does not show that it comes from the device of its session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UnprovenPolicy {
    /// It counts as logged out: it has an empty session. The cookie and the session stay, for the
    /// request that can show more.
    LogOut,
    /// The same, except for a link of another site or another port, at which a browser may not have
    /// refreshed the bound cookie: it gets a page that asks for itself again, once.
    #[default]
    Reload,
    /// It has the session, and the application decides:
    /// [`Session::device_binding`](crate::Session::device_binding), [`RequireLogin`](crate::RequireLogin).
    Allow,
}

/// What a request shows of the device: the bound cookies that it came with and that have verified, and a
/// lifetime.
pub(crate) fn proof(
    binding: Option<&Binding>,
    cookies: &[BoundCookie],
    now: SystemTime,
    lifetime: Duration,
) -> DeviceProof {
    let Some(binding) = binding else { return DeviceProof::Unbound };
    // What is further ahead was made by a clock that was wrong, and would be good until ours is there.
    let age_of = |at| match now.duration_since(at) {
        Err(ahead) if ahead.duration() > challenge::AHEAD => Duration::MAX,
        age => age.unwrap_or_default(),
    };
    let of_this = cookies.iter().filter(|cookie| cookie.id == binding.id).map(|cookie| cookie.at);
    let last = of_this.max();
    match last {
        Some(at) if age_of(at) < lifetime => DeviceProof::Proven { at },
        _ if age_of(binding.since) < GRACE => DeviceProof::Proven { at: binding.since },
        Some(_) => DeviceProof::Unproven { why: Unproven::Expired },
        None if cookies.is_empty() => DeviceProof::Unproven { why: Unproven::NoCookie },
        None => DeviceProof::Unproven { why: Unproven::AnotherBinding },
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD as BASE64};
    use p256::ecdsa::{Signature, SigningKey, signature::Signer};

    use super::*;
    use crate::{
        clock::from_millis,
        record::binding::{BindingId, DeviceKey},
    };

    /// A device with a key of its own, the same for the same number.
    pub(crate) struct Device(SigningKey);

    impl Device {
        pub(crate) fn new(number: u8) -> Self {
            Self(SigningKey::from_slice(&[number; 32]).unwrap())
        }

        pub(crate) fn key(&self) -> DeviceKey {
            let point = self.0.verifying_key().to_sec1_point(true);
            DeviceKey::from_bytes(point.as_bytes().try_into().unwrap())
        }

        /// `x` and `y` as a JWK has them.
        pub(crate) fn coordinates(&self) -> [String; 2] {
            let point = self.0.verifying_key().to_sec1_point(false);
            let (x, y) = point.as_bytes()[1..].split_at(32);
            [BASE64.encode(x), BASE64.encode(y)]
        }

        pub(crate) fn sign(&self, header: &str, claims: &str) -> String {
            let signed = format!("{}.{}", BASE64.encode(header), BASE64.encode(claims));
            let signature: Signature = self.0.sign(signed.as_bytes());
            format!("{signed}.{}", BASE64.encode(signature.to_bytes()))
        }
    }

    /// The header of a registration.
    pub(crate) fn header_of(device: &Device) -> String {
        let [x, y] = device.coordinates();
        format!(
            r#"{{"alg":"ES256","jwk":{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}},"typ":"dbsc+jwt"}}"#
        )
    }

    #[test]
    fn what_a_request_shows_of_its_device() {
        use DeviceProof::{Proven, Unbound};
        const MINUTE: Duration = Duration::from_secs(60);
        const LIFETIME: Duration = Duration::from_secs(600);
        let since = from_millis(1_767_225_600_000);
        let [ours, others] = [[1; 16], [2; 16]].map(BindingId::from_bytes);
        let binding = Binding { id: ours, key: Device::new(1).key(), since };
        let cookie = |id, minute: u32| BoundCookie { id, at: since + minute * MINUTE };
        let unproven = |why| DeviceProof::Unproven { why };
        let at = |minute: u32| Proven { at: since + minute * MINUTE };
        for (cookies, minute, shown) in [
            (vec![], 0, at(0)),
            (vec![cookie(others, 0)], 0, at(0)),
            (vec![], 1, unproven(Unproven::NoCookie)),
            (vec![cookie(others, 1)], 1, unproven(Unproven::AnotherBinding)),
            (vec![cookie(ours, 0)], 1, at(0)),
            (vec![cookie(ours, 0)], 9, at(0)),
            (vec![cookie(ours, 0)], 10, unproven(Unproven::Expired)),
            (vec![cookie(ours, 9)], 10, at(9)),
            (vec![cookie(ours, 0), cookie(ours, 9)], 10, at(9)),
            (vec![cookie(ours, 9), cookie(ours, 0)], 10, at(9)),
            (vec![cookie(others, 9), cookie(ours, 0)], 10, unproven(Unproven::Expired)),
            (vec![cookie(others, 9), cookie(ours, 8)], 10, at(8)),
            // Made by a process whose clock is ahead.
            (vec![cookie(ours, 12)], 11, at(12)),
            // By a clock that was wrong.
            (vec![cookie(ours, 13)], 11, unproven(Unproven::Expired)),
            (vec![cookie(ours, 100)], 11, unproven(Unproven::Expired)),
        ] {
            let now = since + minute * MINUTE;
            let found = proof(Some(&binding), &cookies, now, LIFETIME);
            assert_eq!(found, shown, "{cookies:?} in minute {minute}");
            assert_eq!(proof(None, &cookies, now, LIFETIME), Unbound);
        }
        let ahead = proof(Some(&binding), &[], since - 2 * MINUTE, LIFETIME);
        assert_eq!(ahead, unproven(Unproven::NoCookie), "no grace for two minutes and more");
        let almost = since + LIFETIME - Duration::from_millis(1);
        assert_eq!(proof(Some(&binding), &[cookie(ours, 0)], almost, LIFETIME), at(0));
    }
}
