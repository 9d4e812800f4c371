//! What somebody can do who has copied a browser's cookies, and has no key or another one.

use http::StatusCode;
use sessions_tests::devices::{BOUND, Bound, LINK, with_headers};

use super::{MINUTE, SECOND, Shop};

#[tokio::test]
async fn a_stolen_cookie_opens_nothing_once_the_bound_cookie_is_over() {
    let shop = Shop::start().await;
    let mut owner = shop.bound(1, 7).await;
    let thief = owner.thief();
    let Bound { id, challenge, .. } = owner.bound().clone();
    // Two of its ten minutes are over.
    for second in 0..480 {
        shop.clock.advance(SECOND);
        let expected = if second < 479 { "Some(7)" } else { "None" };
        assert_eq!(thief.get("/who").await.text(), expected, "second {second}");
    }
    for _ in 0..20 {
        assert_eq!(owner.get("/who").await.text(), "Some(7)", "the owner goes on");
        assert_eq!(thief.get("/who").await.text(), "None");
        shop.clock.advance(5 * MINUTE);
    }
    // With what was stolen besides: the names and challenges that the browser was sent. And with a challenge
    // that whoever knows the name is given.
    let mut other_key = shop.browser(2);
    other_key.bound = owner.bound.clone();
    let old = other_key.proof(&challenge.expect("a challenge"));
    let reply = other_key.refresh_with(&id, None).await;
    other_key.note_challenge(&reply);
    let fresh = other_key.bound().challenge.clone().expect("a challenge");
    let fresh = other_key.proof(&fresh);
    for proof in [None, Some(&*old), Some(&*fresh), Some("x")] {
        let reply = other_key.refresh_with(&id, proof).await;
        assert_eq!(reply.status, StatusCode::FORBIDDEN);
        assert!(reply.set_cookies().is_empty());
    }
    // What a browser says of itself proves nothing.
    for skipped in ["quota_exceeded", "server_error", "unreachable"] {
        let value = format!("{skipped};session_identifier=\"{id}\"");
        let reply = with_headers(&thief, "/who", &[("secure-session-skipped", &value)]).await;
        assert_eq!(reply.text(), "None");
        assert!(reply.set_cookies().is_empty(), "the owner's cookie stays");
    }
    assert_eq!(with_headers(&thief, "/who", LINK).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(thief.get("/account").await.status, StatusCode::SEE_OTHER);
    assert_eq!(owner.get("/who").await.text(), "Some(7)");
}

/// A bound cookie is of one binding, and a proof answers one binding's challenge.
#[tokio::test]
async fn what_proves_one_session_proves_no_other() {
    let shop = Shop::start().await;
    let (mut owner, mut other) = (shop.bound(1, 7).await, shop.bound(2, 8).await);
    shop.clock.advance(10 * MINUTE);
    other.refresh().await.text();
    let mixed = owner.client.copy();
    mixed.set_cookie(BOUND, other.client.cookie(BOUND).as_deref());
    let proof = mixed.copy().get("/proof").await;
    assert_eq!(proof.text(), "Unproven { why: AnotherBinding }");
    assert_eq!(mixed.get("/who").await.text(), "None");

    let id = owner.bound().id.clone();
    let challenges = [owner.bound().challenge.clone(), other.bound().challenge.clone()];
    let [ours, theirs] = challenges.map(|it| it.expect("a challenge"));
    for (what, proof) in [
        ("another's key", other.proof(&ours)),
        ("another's challenge", owner.proof(&theirs)),
        ("another's proof", other.proof(&theirs)),
        ("a registration's", other.registration(&ours)),
    ] {
        let reply = owner.refresh_with(&id, Some(&proof)).await;
        assert_eq!(reply.status, StatusCode::FORBIDDEN, "{what}");
    }
    assert_eq!(owner.get("/who").await.text(), "Some(7)");
    assert!(owner.bound.is_some(), "nothing of that has harmed the owner");
}
