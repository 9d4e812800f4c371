//! What a device has to sign: a time, and a proof that the challenge is ours. Nothing of it is stored.
//!
//! ```text
//! challenge = made-at (8 bytes, milliseconds)  tag (32 bytes)     in base64url
//! ```
//!
//! It is for one session, to register with, or for one binding, to refresh with; and good for a while.
//! Within that, the same challenge may be answered several times: tabs refresh at the same time, and a
//! browser that has got no new challenge answers the last one again.

use std::time::{Duration, SystemTime};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD as BASE64};

use crate::{
    clock::{from_millis, to_millis},
    identity::{id::StoreKey, keys::Keys},
    record::binding::BindingId,
};

/// By how much the clock of the process that made a challenge, or a bound cookie, may be ahead of ours.
pub(super) const AHEAD: Duration = Duration::from_secs(60);

const TIME_LENGTH: usize = 8;

/// Whom a challenge is for.
#[derive(Clone, Copy)]
pub(super) enum Purpose<'a> {
    /// To bind the session of this key.
    Register(&'a StoreKey),
    /// To prove the device of this binding.
    Refresh(&'a BindingId),
}

impl Purpose<'_> {
    fn parts(&self) -> (&'static str, &[u8]) {
        match self {
            Self::Register(key) => ("challenge to register", key.as_bytes()),
            Self::Refresh(id) => ("challenge to refresh", id.as_bytes()),
        }
    }
}

/// What is wrong with a challenge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unusable {
    /// It was not made by us, or for another session or another purpose.
    Foreign,
    Old,
}

/// Made `now`, for the layer whose session cookie has this name.
pub(super) fn make(keys: &Keys, name: &str, purpose: Purpose<'_>, now: SystemTime) -> String {
    let time = to_millis(now).to_be_bytes();
    let (purpose, subject) = purpose.parts();
    BASE64.encode([&time[..], &keys.device_tag(purpose, name, &[subject, &time])].concat())
}

/// Whether a challenge that has been signed is of ours, and not older than `age`.
pub(super) fn check(
    keys: &Keys,
    name: &str,
    purpose: Purpose<'_>,
    challenge: &str,
    now: SystemTime,
    age: Duration,
) -> Result<(), Unusable> {
    let bytes = BASE64.decode(challenge).map_err(|_| Unusable::Foreign)?;
    let (time, tag) = bytes.split_first_chunk::<TIME_LENGTH>().ok_or(Unusable::Foreign)?;
    let tag = tag.try_into().map_err(|_| Unusable::Foreign)?;
    let (purpose, subject) = purpose.parts();
    if !keys.verify_device_tag(purpose, name, &[subject, time], tag) {
        return Err(Unusable::Foreign);
    }
    let made_at = from_millis(u64::from_be_bytes(*time));
    let is_usable = match now.duration_since(made_at) {
        Ok(since) => since <= age,
        Err(ahead) => ahead.duration() <= AHEAD,
    };
    if is_usable { Ok(()) } else { Err(Unusable::Old) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AGE: Duration = Duration::from_secs(20 * 60);
    const NAME: &str = "__Host-id";

    fn now() -> SystemTime {
        from_millis(1_767_225_600_000)
    }

    #[test]
    fn a_challenge_is_good_for_a_while_and_as_often_as_is_needed() {
        let (keys, id) = (Keys::generate(), BindingId::from_bytes([7; 16]));
        let challenge = make(&keys, NAME, Purpose::Refresh(&id), now());
        let check = |at: SystemTime| check(&keys, NAME, Purpose::Refresh(&id), &challenge, at, AGE);
        const MILLI: Duration = Duration::from_millis(1);
        for (at, answer) in [
            (now(), Ok(())),
            (now(), Ok(())),
            (now() + AGE, Ok(())),
            (now() + AGE + MILLI, Err(Unusable::Old)),
            (now() - AHEAD, Ok(())),
            (now() - AHEAD - MILLI, Err(Unusable::Old)),
        ] {
            assert_eq!(check(at), answer);
        }
    }

    #[test]
    fn a_challenge_is_for_one_session_one_purpose_one_cookie_and_one_key() {
        let keys = Keys::generate();
        let [one, other] = [[1; 16], [2; 16]].map(BindingId::from_bytes);
        let [first, second] = [[1; 32], [2; 32]].map(StoreKey::from_bytes);
        let purposes = [
            Purpose::Refresh(&one),
            Purpose::Refresh(&other),
            Purpose::Register(&first),
            Purpose::Register(&second),
        ];
        for (at, made_for) in purposes.into_iter().enumerate() {
            let challenge = make(&keys, NAME, made_for, now());
            for (place, purpose) in purposes.into_iter().enumerate() {
                let is_same = at == place;
                let found = check(&keys, NAME, purpose, &challenge, now(), AGE);
                assert_eq!(found, if is_same { Ok(()) } else { Err(Unusable::Foreign) });
                for (keys, name) in [(&keys, "id"), (&Keys::generate(), NAME)] {
                    let found = check(keys, name, purpose, &challenge, now(), AGE);
                    assert_eq!(found, Err(Unusable::Foreign));
                }
            }
        }
        let rotated = Keys::generate().with_previous(keys.clone());
        let challenge = make(&keys, NAME, purposes[0], now());
        assert_eq!(check(&rotated, NAME, purposes[0], &challenge, now(), AGE), Ok(()));
    }

    #[test]
    fn nothing_else_is_a_challenge() {
        let (keys, id) = (Keys::generate(), BindingId::from_bytes([7; 16]));
        let purpose = Purpose::Refresh(&id);
        let good = make(&keys, NAME, purpose, now());
        let check = |text: &str| check(&keys, NAME, purpose, text, now(), AGE);
        assert_eq!(check(&good), Ok(()));
        for at in 0..good.len() {
            let mut text = good.clone().into_bytes();
            text[at] = if text[at] == b'A' { b'B' } else { b'A' };
            assert!(check(str::from_utf8(&text).unwrap()).is_err(), "at {at}");
        }
        for text in ["", "a", &good[1..], &good[..53], &format!("{good}AA"), &format!("{good}=")] {
            assert_eq!(check(text), Err(Unusable::Foreign), "{text:?}");
        }
    }
}
