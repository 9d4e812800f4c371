#!/usr/bin/env bash
# openidconnect: a client that was made at the start knows the provider's keys of then. When the provider signs with
# another one, every login fails until the program is started again.
#
# Versions:  crate openidconnect 4.1.0.
# Expected:  providers change their keys, some each day, and publish the next one in advance; a library that was given
#            the provider's address looks again where a token's key is unknown, as libraries of other languages do.
# Seen:      `discover_async` asks for the keys once, and they are part of the client. Nothing asks again: the client has
#            no way to. A token of the new key is "No matching key found", also if it was published for a day; so is
#            every one after it. With metadata that were discovered anew, the same token is good.
# Matters:   "discover at the start, keep the client in the state" passes every test, and logins work for weeks; then, on
#            the day that the provider chose, nobody can log in, and a restart mends it. Discover anew every few minutes,
#            or when a key is unknown (not more often than that).
# Source:    https://github.com/ramosbugs/openidconnect-rs/issues/232; the rotation is in
#            https://openid.net/specs/openid-connect-core-1_0.html#RotateSigKeys.
set -euo pipefail

T=$(mktemp -d)
trap 'rm -rf "$T"' EXIT
command -v cargo >/dev/null || { echo "cargo is missing: install Rust"; exit 2; }
command -v openssl >/dev/null || { echo "openssl is missing: apt-get install openssl"; exit 2; }
echo "crate openidconnect 4.1.0"
for key in monday tuesday; do openssl genrsa -traditional -out "$T/$key.pem" 2048 2>/dev/null; done

mkdir "$T/src"
cat >"$T/Cargo.toml" <<'END'
[package]
name = "finding"
version = "0.0.0"
edition = "2024"

[dependencies]
chrono = "=0.4.45"
openidconnect = { version = "=4.1.0", default-features = false }
serde = "=1.0.229"
serde_json = "=1.0.154"
tokio = { version = "=1.54.1", features = ["full"] }
END
cat >"$T/src/main.rs" <<'END'
use std::{
    convert::Infallible,
    error::Error,
    process::ExitCode,
    sync::{Arc, Mutex},
};

use chrono::{TimeDelta, Utc};
use openidconnect::{
    Audience, AuthUrl, ClientId, EmptyAdditionalClaims, EmptyAdditionalProviderMetadata, EndpointMaybeSet,
    EndpointNotSet, EndpointSet, HttpRequest, HttpResponse, IssuerUrl, JsonWebKeyId, JsonWebKeySetUrl, Nonce,
    PrivateSigningKey, ResponseTypes, StandardClaims, SubjectIdentifier, TokenUrl,
    core::{
        CoreClient, CoreIdToken, CoreIdTokenClaims, CoreJsonWebKeySet, CoreJwsSigningAlgorithm, CoreProviderMetadata,
        CoreResponseType, CoreRsaPrivateSigningKey, CoreSubjectIdentifierType,
    },
};

type Client =
    CoreClient<EndpointSet, EndpointNotSet, EndpointNotSet, EndpointNotSet, EndpointMaybeSet, EndpointMaybeSet>;

const ISSUER: &str = "https://provider.example";

fn json(value: &impl serde::Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap()
}

/// The provider: the keys that it publishes, and how often it was asked for them.
#[derive(Default)]
struct Provider {
    keys: Vec<(&'static str, String)>,
    asked: u32,
}

impl Provider {
    fn key(&self, index: usize) -> CoreRsaPrivateSigningKey {
        let (id, pem) = &self.keys[index];
        CoreRsaPrivateSigningKey::from_pem(pem, Some(JsonWebKeyId::new(id.to_string()))).unwrap()
    }

    fn answer(&mut self, request: &HttpRequest) -> HttpResponse {
        let body = if request.uri().path() == "/keys" {
            self.asked += 1;
            let keys = (0..self.keys.len()).map(|index| self.key(index).as_verification_key()).collect();
            json(&CoreJsonWebKeySet::new(keys))
        } else {
            let url = |path: &str| format!("{ISSUER}{path}");
            let metadata = CoreProviderMetadata::new(
                IssuerUrl::new(ISSUER.into()).unwrap(),
                AuthUrl::new(url("/login")).unwrap(),
                JsonWebKeySetUrl::new(url("/keys")).unwrap(),
                vec![ResponseTypes::new(vec![CoreResponseType::Code])],
                vec![CoreSubjectIdentifierType::Public],
                vec![CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha256],
                EmptyAdditionalProviderMetadata {},
            );
            json(&metadata.set_token_endpoint(Some(TokenUrl::new(url("/token")).unwrap())))
        };
        let mut response = HttpResponse::new(body);
        response.headers_mut().insert("content-type", "application/json".parse().unwrap());
        response
    }

    /// The token of a login, signed with one of the keys.
    fn token(&self, index: usize, nonce: &Nonce) -> CoreIdToken {
        let now = Utc::now();
        let claims = CoreIdTokenClaims::new(
            IssuerUrl::new(ISSUER.into()).unwrap(),
            vec![Audience::new("shop".into())],
            now + TimeDelta::minutes(5),
            now,
            StandardClaims::new(SubjectIdentifier::new("ada".into())),
            EmptyAdditionalClaims {},
        );
        let claims = claims.set_nonce(Some(nonce.clone()));
        let algorithm = CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha256;
        CoreIdToken::new(claims, &self.key(index), algorithm, None, None).unwrap()
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let pem = |number: usize| std::fs::read_to_string(std::env::args().nth(number).unwrap()).unwrap();
    let provider = Arc::new(Mutex::new(Provider::default()));
    let http = {
        let provider = provider.clone();
        move |request: HttpRequest| std::future::ready(Ok::<_, Infallible>(provider.lock().unwrap().answer(&request)))
    };
    let discover = async || {
        let metadata =
            CoreProviderMetadata::discover_async(IssuerUrl::new(ISSUER.into()).unwrap(), &http).await.unwrap();
        CoreClient::from_provider_metadata(metadata, ClientId::new("shop".into()), None)
    };
    let nonce = Nonce::new_random();

    provider.lock().unwrap().keys.push(("monday", pem(1)));
    let client = discover().await;
    let mut seen = Vec::new();
    let mut log_in = |what: &str, client: &Client, index: usize| {
        let token = provider.lock().unwrap().token(index, &nonce);
        let claims = token.claims(&client.id_token_verifier(), &nonce);
        let says = claims.map_or_else(
            |error| format!("{error}: {}", error.source().unwrap()),
            |claims| claims.subject().to_string(),
        );
        println!("{what}: {says}; asked for the keys so far: {}", provider.lock().unwrap().asked);
        seen.push((says == "ada", provider.lock().unwrap().asked));
    };
    log_in("the client of the start, the key of then", &client, 0);
    // The next key is published beside the old one, and used a day later.
    provider.lock().unwrap().keys.push(("tuesday", pem(2)));
    log_in("the same, while the next key is published already", &client, 0);
    log_in("the same, the next key", &client, 1);
    log_in("the same, once more", &client, 1);
    let client = discover().await;
    log_in("a client that was made anew, the same token", &client, 1);
    if seen == [(true, 1), (true, 1), (false, 1), (false, 1), (true, 2)] {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
END
cargo build --quiet --manifest-path "$T/Cargo.toml" || { echo "it could not be built"; exit 2; }
if cargo run --quiet --manifest-path "$T/Cargo.toml" -- "$T/monday.pem" "$T/tuesday.pem"; then
    echo "as described: a key that came later is unknown until the provider is discovered anew"
else
    echo "CHANGED: it no longer behaves as described"
    exit 1
fi
