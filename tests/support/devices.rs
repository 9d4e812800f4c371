//! A browser that binds its sessions to a key, as far as the protocol of Device Bound Session Credentials goes.

use std::{
    collections::VecDeque,
    time::{Duration, SystemTime},
};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD as BASE64};
use http::{Method, Request, StatusCode};
use http_body_util::Full;
use hyper::body::Bytes;
use p256::ecdsa::{Signature, SigningKey, signature::Signer};
use serde_json::Value;
use sessions::testing::ManualClock;

use crate::{Client, Reply};

/// The name of the bound cookie, by default.
pub const BOUND: &str = "__Host-id-device";

/// Where a browser refreshes, by default.
pub const REFRESH: &str = "/device-binding/refresh";

/// A request with these headers, and without a body.
pub fn request(method: Method, path: &str, headers: &[(&str, &str)]) -> Request<Full<Bytes>> {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Full::default()).expect("a request")
}

/// What stands between quotes after `name=` in a structured field.
pub fn parameter<'a>(value: &'a str, name: &str) -> &'a str {
    let (_, rest) = value.split_once(&format!("{name}=\"")).expect("the parameter");
    rest.split('"').next().expect("a string")
}

/// What a browser knows of a binding.
#[derive(Clone)]
pub struct Bound {
    /// Its name.
    pub id: String,
    /// What the next refresh is to sign.
    pub challenge: Option<String>,
    /// When the bound cookie goes.
    pub until: SystemTime,
}

/// A browser as far as the protocol goes, with a key of its own.
#[derive(Clone)]
pub struct Browser {
    /// Its cookies.
    pub client: Client,
    /// The clock by which bound cookies end.
    pub clock: ManualClock,
    /// The key that signs its proofs.
    pub key: SigningKey,
    /// `None` for a browser that has no binding, or has dropped the one that it had.
    pub bound: Option<Bound>,
    /// When it has signed, the newest last.
    pub signatures: VecDeque<SystemTime>,
    /// How often it has refreshed.
    pub refreshes: u32,
}

impl Browser {
    /// A browser without a binding. The number makes its key.
    pub fn new(client: Client, clock: &ManualClock, number: u8) -> Self {
        let key = SigningKey::from_slice(&[number; 32]).expect("a number of the curve");
        let signatures = VecDeque::new();
        Self { client, clock: clock.clone(), key, bound: None, signatures, refreshes: 0 }
    }

    /// GET, after a refresh if the bound cookie is over. Takes the offer of the response.
    pub async fn get(&mut self, path: &str) -> Reply {
        self.send(Method::GET, path).await
    }

    /// The same with any method.
    pub async fn send(&mut self, method: Method, path: &str) -> Reply {
        let is_over = self.bound.as_ref().is_some_and(|bound| bound.until <= self.clock.now());
        if is_over || self.bound.is_some() && self.client.cookie(BOUND).is_none() {
            self.client.set_cookie(BOUND, None);
            self.refresh().await;
        }
        let reply = self.client.call(request(method, path, &[])).await;
        if let Some(offer) = reply.headers.get("secure-session-registration") {
            let offer = offer.to_str().expect("text").to_string();
            self.register(&offer).await;
        }
        reply
    }

    /// Takes an offer.
    pub async fn register(&mut self, offer: &str) -> Reply {
        assert!(offer.starts_with("(ES256);path="), "{offer}");
        let proof = self.registration(parameter(offer, "challenge"));
        let (path, headers) = (parameter(offer, "path"), [("secure-session-response", &*proof)]);
        let reply = self.client.call(request(Method::POST, path, &headers)).await;
        if reply.status == StatusCode::OK {
            self.keep(&reply);
        }
        reply
    }

    /// A proof that brings the key along.
    pub fn registration(&mut self, challenge: &str) -> String {
        let point = self.key.verifying_key().to_sec1_point(false);
        let (x, y) = point.as_bytes()[1..].split_at(32);
        let (x, y) = (BASE64.encode(x), BASE64.encode(y));
        self.sign(
            &format!(
                r#"{{"alg":"ES256","jwk":{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}},"typ":"dbsc+jwt"}}"#
            ),
            challenge,
        )
    }

    /// A proof of a key that is known.
    pub fn proof(&mut self, challenge: &str) -> String {
        self.sign(r#"{"alg":"ES256","typ":"dbsc+jwt"}"#, challenge)
    }

    fn sign(&mut self, header: &str, challenge: &str) -> String {
        self.signatures.push_back(self.clock.now());
        let claims = format!(r#"{{"jti":"{challenge}"}}"#);
        let signed = format!("{}.{}", BASE64.encode(header), BASE64.encode(claims));
        let signature: Signature = self.key.sign(signed.as_bytes());
        format!("{signed}.{}", BASE64.encode(signature.to_bytes()))
    }

    /// As Chromium refreshes: with the challenge at hand, and again with the one that a 403 brings. Forgets
    /// the binding where Chromium does. The last answer.
    ///
    /// Without cookies, as for a page that another site links to.
    pub async fn refresh(&mut self) -> Reply {
        self.refresh_from(false).await
    }

    /// `here`: for a page of this site, with its cookies.
    pub async fn refresh_from(&mut self, here: bool) -> Reply {
        self.refreshes += 1;
        for _ in 0..5 {
            let bound = self.bound.as_mut().expect("a bound session");
            let (id, challenge) = (bound.id.clone(), bound.challenge.take());
            let proof = challenge.map(|challenge| self.proof(&challenge));
            let reply = match here {
                true => self.refresh_with_cookies(&id, proof.as_deref()).await,
                false => self.refresh_with(&id, proof.as_deref()).await,
            };
            match reply.status.as_u16() {
                200 => {
                    self.keep(&reply);
                    // Chromium forgets a binding that gets another name (`kMismatchedSessionId`).
                    assert_eq!(self.bound().id, id);
                    return reply;
                }
                403 => self.note_challenge(&reply),
                500..600 => return reply,
                _ => {
                    self.bound = None;
                    return reply;
                }
            }
        }
        panic!("too many challenges: Chromium would forget the session");
    }

    /// The request of a refresh, as Chromium sends it for a page that another site links to: without the
    /// `SameSite=Lax` cookies.
    pub async fn refresh_with(&self, id: &str, proof: Option<&str>) -> Reply {
        let anonymous = Client::new(self.client.address());
        let reply = anonymous.call(refresh_request(id, proof)).await;
        if let Some(cookie) = anonymous.cookie(BOUND) {
            self.client.set_cookie(BOUND, Some(&cookie));
        }
        reply
    }

    /// The same for a page of this site.
    pub async fn refresh_with_cookies(&self, id: &str, proof: Option<&str>) -> Reply {
        self.client.call(refresh_request(id, proof)).await
    }

    fn keep(&mut self, reply: &Reply) {
        let instructions: Value = serde_json::from_str(reply.text()).expect("JSON");
        let id = instructions["session_identifier"].as_str().expect("an id").to_string();
        assert_eq!(instructions["credentials"][0]["name"], BOUND);
        let cookies = reply.set_cookies();
        let cookie = cookies.iter().find(|it| it.starts_with(BOUND)).expect("a bound cookie");
        let (_, age) = cookie.split_once("Max-Age=").expect("an age");
        let until = self.clock.now() + Duration::from_secs(age.parse().expect("a number"));
        self.bound = Some(Bound { id, challenge: None, until });
        self.note_challenge(reply);
    }

    /// Takes the challenge of an answer, if it brings one.
    pub fn note_challenge(&mut self, reply: &Reply) {
        let header = reply.header("secure-session-challenge");
        if header.is_empty() {
            return;
        }
        let challenge = header.strip_prefix('"').and_then(|rest| rest.split('"').next());
        let bound = self.bound.as_mut().expect("a bound session");
        assert_eq!(parameter(&header, "id"), bound.id);
        bound.challenge = Some(challenge.expect("a challenge").to_string());
    }

    /// What it knows of its binding.
    ///
    /// # Panics
    ///
    /// If it has none.
    pub fn bound(&self) -> &Bound {
        self.bound.as_ref().expect("a bound session")
    }

    /// A client with a copy of all cookies, and without the key.
    pub fn thief(&self) -> Client {
        self.client.copy()
    }
}

fn refresh_request(id: &str, proof: Option<&str>) -> Request<Full<Bytes>> {
    let mut headers = vec![("sec-secure-session-id", id)];
    headers.extend(proof.map(|proof| ("secure-session-response", proof)));
    request(Method::POST, REFRESH, &headers)
}

/// GET with these headers.
pub async fn with_headers(client: &Client, path: &str, headers: &[(&str, &str)]) -> Reply {
    client.call(request(Method::GET, path, headers)).await
}

/// What a browser says of a request for a page that another site links to.
pub const LINK: &[(&str, &str)] = &[
    ("sec-fetch-site", "cross-site"),
    ("sec-fetch-mode", "navigate"),
    ("sec-fetch-dest", "document"),
];
