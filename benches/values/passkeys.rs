//! The states of a passkey's registration and use.

use webauthn_rs::prelude::*;

pub(crate) enum State {
    Registration(PasskeyRegistration),
    Challenge(CreationChallengeResponse),
    Passkey(Passkey),
    Authentication(PasskeyAuthentication),
    Discoverable(DiscoverableAuthentication),
}

/// A passkey that nobody has, in the form in which webauthn-rs stores one.
const PASSKEY: &str = r#"{"cred":{"cred_id":"AQIDBAUGBwgJCgsMDQ4PEA","cred":{"type_":"ES256","key":{"EC_EC2":{"curve":"SECP256R1","x":"axfR8uEsQkf4vOblY6RA8ncDfYEt6zOg9KE5RdiYwpY","y":"T-NC4v4af5uO5-tKfA-eFivOM1drMV7Oy7ZAaDe_UfU"}}},"counter":0,"transports":null,"user_verified":true,"backup_eligible":false,"backup_state":false,"registration_policy":"preferred","extensions":{"cred_protect":"Ignored","hmac_create_secret":"NotRequested","appid":"NotRequested","cred_props":"Ignored"},"attestation":{"data":"None","metadata":"None"},"attestation_format":"none"}}"#;

pub(crate) fn fill(mut row: impl FnMut(&str, State)) {
    let origin = Url::parse("https://shop.example").expect("an address");
    let webauthn = WebauthnBuilder::new("shop.example", &origin).expect("a site");
    let webauthn = webauthn.build().expect("a site");
    let (challenge, registration) = webauthn
        .start_passkey_registration(Uuid::from_u128(7), "ada", "Ada", None)
        .expect("a registration");
    row("webauthn_rs PasskeyRegistration", State::Registration(registration));
    row("webauthn_rs CreationChallengeResponse", State::Challenge(challenge));
    let passkey: Passkey = serde_json::from_str(PASSKEY).expect("a passkey");
    let (_, authentication) =
        webauthn.start_passkey_authentication(&[passkey.clone()]).expect("a login");
    row("webauthn_rs Passkey", State::Passkey(passkey));
    row("webauthn_rs PasskeyAuthentication", State::Authentication(authentication));
    let (_, discoverable) = webauthn.start_discoverable_authentication().expect("a login");
    row("webauthn_rs DiscoverableAuthentication", State::Discoverable(discoverable));
}
