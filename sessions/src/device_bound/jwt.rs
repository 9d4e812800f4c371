//! The proof that a browser sends: a JWT in the compact form of a JWS (RFC 7515, 7.1), signed with ES256.
//!
//! Strict about all that decides something, and blind to the rest: browsers may add claims.

use std::fmt;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD as BASE64};
use p256::ecdsa::{Signature, VerifyingKey, signature::Verifier};
use serde::{
    Deserialize,
    de::{DeserializeOwned, IgnoredAny},
};

use crate::record::binding::DeviceKey;

/// A proof of a P-256 key has 342 bytes, with its public key and a challenge of ours less than 600.
const LONGEST: usize = 4096;

/// What the header of a proof says it is.
const TYPE: &str = "dbsc+jwt";

/// A proof whose form is right, and whose signature nobody has looked at yet.
#[derive(Debug)]
pub(crate) struct Proof {
    signed: String,
    signature: Signature,
    jwk: Option<Jwk>,
    challenge: String,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    typ: String,
    jwk: Option<Jwk>,
    /// Extensions that a reader has to know (RFC 7515, 4.1.11). We know none.
    crit: Option<IgnoredAny>,
}

/// A public key (RFC 7518, 6.2.1).
#[derive(Debug, Deserialize)]
struct Jwk {
    kty: String,
    crv: String,
    x: String,
    y: String,
}

#[derive(Deserialize)]
struct Claims {
    /// The challenge that is answered.
    jti: String,
}

/// What is wrong with a proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flaw {
    /// It is no JWT of this kind.
    Malformed,
    TooLong,
    /// It is not signed with ES256, which is the only algorithm that was offered.
    Algorithm,
    /// It is a JWT for something else.
    Type,
    /// It has extensions that have to be understood.
    Extensions,
    /// A registration without a key.
    NoKey,
    /// The key is no point of P-256.
    Key,
    Signature,
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "it is no proof of a device",
            Self::TooLong => "it is too long",
            Self::Algorithm => "it is not signed with ES256",
            Self::Type => "it is a JWT for something else",
            Self::Extensions => "it has critical extensions",
            Self::NoKey => "it has no public key",
            Self::Key => "its key is not one of P-256",
            Self::Signature => "its signature does not verify",
        })
    }
}

impl Proof {
    /// Reads the value of a `Secure-Session-Response` header: browsers send it bare, and the
    /// specification has it in quotes.
    pub(crate) fn parse(value: &[u8]) -> Result<Self, Flaw> {
        if value.len() > LONGEST {
            return Err(Flaw::TooLong);
        }
        let text = str::from_utf8(value).map_err(|_| Flaw::Malformed)?.trim();
        let text = unquoted(text);
        let (signed, signature) = text.rsplit_once('.').ok_or(Flaw::Malformed)?;
        let (header, claims) = signed.split_once('.').ok_or(Flaw::Malformed)?;
        let header: Header = json(header)?;
        // Before anything else is looked at: the algorithm is not the sender's choice.
        if header.alg != "ES256" {
            return Err(Flaw::Algorithm);
        }
        if header.typ != TYPE {
            return Err(Flaw::Type);
        }
        if header.crit.is_some() {
            return Err(Flaw::Extensions);
        }
        let Claims { jti } = json(claims)?;
        // `r` and `s`, 32 bytes each, and neither of them zero (RFC 7518, 3.4).
        let signature = BASE64.decode(signature).map_err(|_| Flaw::Malformed)?;
        let signature = Signature::from_slice(&signature).map_err(|_| Flaw::Signature)?;
        Ok(Self { signed: signed.to_string(), signature, jwk: header.jwk, challenge: jti })
    }

    /// The challenge that the holder of `key` has signed. Whatever key the proof itself names is not
    /// looked at.
    pub(crate) fn verified_by(&self, key: &DeviceKey) -> Result<&str, Flaw> {
        let key = VerifyingKey::from_sec1_bytes(key.as_bytes()).map_err(|_| Flaw::Key)?;
        key.verify(self.signed.as_bytes(), &self.signature).map_err(|_| Flaw::Signature)?;
        Ok(&self.challenge)
    }

    /// The key that a registration brings, and the challenge that was signed with it.
    pub(crate) fn registered(&self) -> Result<(DeviceKey, &str), Flaw> {
        let key = self.jwk.as_ref().ok_or(Flaw::NoKey)?.key()?;
        let challenge = self.verified_by(&key)?;
        Ok((key, challenge))
    }
}

impl Jwk {
    fn key(&self) -> Result<DeviceKey, Flaw> {
        const UNCOMPRESSED: u8 = 4;
        if self.kty != "EC" || self.crv != "P-256" {
            return Err(Flaw::Key);
        }
        let coordinate = |text: &str| {
            let bytes = BASE64.decode(text).map_err(|_| Flaw::Key)?;
            <[u8; 32]>::try_from(bytes).map_err(|_| Flaw::Key)
        };
        let point = [&[UNCOMPRESSED][..], &coordinate(&self.x)?, &coordinate(&self.y)?].concat();
        // Says no to what is not on the curve.
        let key = VerifyingKey::from_sec1_bytes(&point).map_err(|_| Flaw::Key)?;
        let compressed = key.to_sec1_point(true);
        let bytes = compressed.as_bytes().try_into().map_err(|_| Flaw::Key)?;
        Ok(DeviceKey::from_bytes(bytes))
    }
}

fn json<D: DeserializeOwned>(part: &str) -> Result<D, Flaw> {
    let bytes = BASE64.decode(part).map_err(|_| Flaw::Malformed)?;
    // To serde a list of its fields is a struct too.
    if !bytes.trim_ascii_start().starts_with(b"{") {
        return Err(Flaw::Malformed);
    }
    serde_json::from_slice(&bytes).map_err(|_| Flaw::Malformed)
}

/// A structured field's string (RFC 9651, 3.3.3) without its quotes; neither a proof nor a name of ours
/// has a character that would be escaped.
pub(super) fn unquoted(text: &str) -> &str {
    text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use p256::ecdsa::SigningKey;

    use super::*;
    use crate::device_bound::tests::{Device, header_of};

    fn parsed(header: &str, claims: &str, device: &Device) -> Result<(DeviceKey, String), Flaw> {
        let proof = Proof::parse(device.sign(header, claims).as_bytes())?;
        proof.registered().map(|(key, challenge)| (key, challenge.to_string()))
    }

    #[test]
    fn a_proof_as_a_browser_sends_it_is_good() {
        let device = Device::new(1);
        let bare = device.sign(&header_of(&device), r#"{"jti":"abc"}"#);
        for text in [bare.clone(), format!("\"{bare}\""), format!(" {bare} ")] {
            let proof = Proof::parse(text.as_bytes()).unwrap();
            assert_eq!(proof.registered().unwrap(), (device.key(), "abc"));
            assert_eq!(proof.verified_by(&device.key()), Ok("abc"));
        }
        let refresh = device.sign(r#"{"alg":"ES256","typ":"dbsc+jwt"}"#, r#"{"jti":"abc"}"#);
        let refresh = Proof::parse(refresh.as_bytes()).unwrap();
        assert_eq!(refresh.verified_by(&device.key()), Ok("abc"));
        assert_eq!(refresh.registered().unwrap_err(), Flaw::NoKey);
    }

    #[test]
    fn what_we_do_not_know_is_no_reason_to_refuse() {
        let device = Device::new(1);
        let header = header_of(&device).replacen('{', r#"{"kid":7,"new":{"a":[]},"#, 1);
        let claims = r#"{"aud":"https://a.example","authorization":"x","iat":1,"jti":"abc"}"#;
        assert_eq!(parsed(&header, claims, &device), Ok((device.key(), "abc".to_string())));
    }

    #[test]
    fn every_field_wrong_once() {
        let device = Device::new(1);
        let (good, other) = (header_of(&device), header_of(&Device::new(2)));
        let claims = r#"{"jti":"abc"}"#;
        let with = |from: &str, to: &str| {
            assert!(good.contains(from), "{from}");
            good.replacen(from, to, 1)
        };
        let [x, y] = device.coordinates();
        let beside = BASE64.encode([7; 32]);
        let short = BASE64.encode([7; 31]);
        for (header, claims, flaw) in [
            (with("ES256", "none"), claims, Flaw::Algorithm),
            (with("ES256", "None"), claims, Flaw::Algorithm),
            (with("ES256", ""), claims, Flaw::Algorithm),
            (with("ES256", "HS256"), claims, Flaw::Algorithm),
            (with("ES256", "RS256"), claims, Flaw::Algorithm),
            (with("ES256", "ES384"), claims, Flaw::Algorithm),
            (with("ES256", "es256"), claims, Flaw::Algorithm),
            (with("\"ES256\"", "null"), claims, Flaw::Malformed),
            (with("\"ES256\"", "[\"ES256\"]"), claims, Flaw::Malformed),
            (with("\"alg\"", "\"algo\""), claims, Flaw::Malformed),
            (with("{", "{\"alg\":\"none\","), claims, Flaw::Malformed),
            (with("dbsc+jwt", "jwt"), claims, Flaw::Type),
            (with("dbsc+jwt", "JWT"), claims, Flaw::Type),
            (with("\"typ\"", "\"type\""), claims, Flaw::Malformed),
            (with("{", "{\"crit\":[\"b64\"],\"b64\":false,"), claims, Flaw::Extensions),
            (with("\"EC\"", "\"OKP\""), claims, Flaw::Key),
            (with("\"EC\"", "\"oct\""), claims, Flaw::Key),
            (with("P-256", "P-384"), claims, Flaw::Key),
            (with("P-256", "secp256k1"), claims, Flaw::Key),
            (with(&x, &beside), claims, Flaw::Key),
            (with(&x, &short), claims, Flaw::Key),
            (with(&x, ""), claims, Flaw::Key),
            (with(&y, &x), claims, Flaw::Key),
            (with(&x, &format!("{x}=")), claims, Flaw::Key),
            (with("\"jwk\"", "\"jku\""), claims, Flaw::NoKey),
            (other, claims, Flaw::Signature),
            (good.clone(), r#"{"jti":7}"#, Flaw::Malformed),
            (good.clone(), r#"{"nonce":"abc"}"#, Flaw::Malformed),
            (good.clone(), r#"{"jti":"abc","jti":"abc"}"#, Flaw::Malformed),
            (good.clone(), r#"{"jti":"abc"}{"#, Flaw::Malformed),
            (good.clone(), r#"["abc"]"#, Flaw::Malformed),
            (good.clone(), "", Flaw::Malformed),
            (String::new(), claims, Flaw::Malformed),
        ] {
            assert_eq!(parsed(&header, claims, &device), Err(flaw), "{header} {claims}");
        }
    }

    #[test]
    fn no_other_form_is_a_proof() {
        let device = Device::new(1);
        let good = device.sign(&header_of(&device), r#"{"jti":"abc"}"#);
        let parts: Vec<&str> = good.split('.').collect();
        let [header, claims, signature] = parts[..] else { panic!("{good}") };
        for text in [
            "",
            ".",
            "..",
            "...",
            header,
            &format!("{header}.{claims}"),
            &format!("{header}.{claims}."),
            &format!(".{claims}.{signature}"),
            &format!("{header}..{signature}"),
            &format!("{good}."),
            &format!("{good}.{signature}"),
            &format!("{good}="),
            &format!("{header} .{claims}.{signature}"),
            &format!("{header}.{claims}.{}", &signature[..84]),
            &format!("{header}.{claims}.{signature}AAAA"),
            &format!("{header}.{claims}.{}", BASE64.encode([0; 64])),
            &format!("{header}.{claims}.{}", BASE64.encode([0xff; 64])),
            &good[1..],
            &format!("\"{good}"),
            &"a".repeat(LONGEST + 1),
        ] {
            let found = Proof::parse(text.as_bytes());
            let found = found.and_then(|proof| proof.registered().map(|_| ()));
            assert!(found.is_err(), "{text}");
        }
        assert_eq!(Proof::parse(b"\xff.\xff.\xff").unwrap_err(), Flaw::Malformed);
    }

    #[test]
    fn every_bit_of_what_is_signed_counts() {
        let device = Device::new(1);
        let good = device.sign(r#"{"alg":"ES256","typ":"dbsc+jwt"}"#, r#"{"jti":"abc"}"#);
        for at in 0..good.len() {
            for bit in [1, 2, 4, 8, 16, 32, 64] {
                let mut text = good.clone().into_bytes();
                text[at] ^= bit;
                let proof = Proof::parse(&text);
                let found = proof.and_then(|it| it.verified_by(&device.key()).map(|_| ()));
                assert!(found.is_err(), "byte {at}, bit {bit}");
            }
        }
    }

    #[test]
    fn a_key_that_a_refresh_brings_along_is_not_looked_at() {
        let (thief, owner) = (Device::new(1), Device::new(2));
        let text = thief.sign(&header_of(&thief), r#"{"jti":"abc"}"#);
        let proof = Proof::parse(text.as_bytes()).unwrap();
        assert_eq!(proof.verified_by(&owner.key()), Err(Flaw::Signature));
    }

    #[test]
    fn a_stored_key_that_is_no_point_verifies_nothing() {
        let device = Device::new(1);
        let text = device.sign(&header_of(&device), r#"{"jti":"abc"}"#);
        let proof = Proof::parse(text.as_bytes()).unwrap();
        for bytes in [[0; 33], [2; 33], [0xff; 33], [4; 33]] {
            let found = proof.verified_by(&DeviceKey::from_bytes(bytes));
            // By chance, such bytes are the `x` of a point.
            assert!(matches!(found, Err(Flaw::Key | Flaw::Signature)), "{bytes:?}");
        }
    }

    /// RFC 7515, appendix A.3: ES256 as another program makes it, so that we do not only understand ourselves.
    #[test]
    fn the_signature_of_rfc_7515_verifies() {
        let x = BASE64.decode("f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU").unwrap();
        let y = BASE64.decode("x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0").unwrap();
        let key = VerifyingKey::from_sec1_bytes(&[&[4][..], &x, &y].concat()).unwrap();
        let signed = "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6\
                      Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
        let signature = "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTU\
                         JqPP3-Kg6NU1Q";
        let signature = Signature::from_slice(&BASE64.decode(signature).unwrap()).unwrap();
        let proof =
            Proof { signed: signed.to_string(), signature, jwk: None, challenge: String::new() };
        let compressed = key.to_sec1_point(true);
        let key = DeviceKey::from_bytes(compressed.as_bytes().try_into().unwrap());
        assert_eq!(proof.verified_by(&key), Ok(""));
        let _ = SigningKey::from_slice(&[1; 32]).unwrap();
    }
}
