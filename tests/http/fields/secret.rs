//! `secret`: encrypted in the store, bound to its session and field, and shown by nothing.

use std::{sync::Mutex, time::Duration};

use axum::{Router, extract::Path, routing::get};
use sessions::{
    Created, Keys, MemoryStore, PrivateCookie, Record, Replaced, Secret, Session, SessionLayer,
    Store, StoreError, StoreKey,
};
use sessions_tests::{Client, Server};

use super::Fleet;
use crate::COOKIE;

#[derive(Debug, Session)]
struct Visitor {
    #[session(secret)]
    token: Option<Secret<String>>,
    #[session(secret, alias = "older", version = 2)]
    other: Secret<String>,
    #[session(secret, flash)]
    recovery: Vec<Secret<String>>,
    #[session(secret, ttl = "10m")]
    code: Option<Secret<u32>>,
    #[session(secret, merge = longest)]
    merged: Secret<String>,
    plain: String,
}

fn longest(_: &Secret<String>, theirs: &Secret<String>, ours: &Secret<String>) -> Secret<String> {
    let is_longer = theirs.expose().len() > ours.expose().len();
    if is_longer { theirs.clone() } else { ours.clone() }
}

fn routes() -> Router {
    Router::new()
        .route(
            "/begin",
            get(async |session: Session<Visitor>| session.write().await.set_plain("x")),
        )
        .route("/set/{field}/{text}", get(set))
        .route("/show", get(show))
        .route("/update/{text}", get(update))
        .route("/take", get(take))
        .route("/renew", get(renew))
        .route(
            "/debug",
            get(async |session: Session<Visitor>| format!("{:?}", session.read().await)),
        )
}

async fn set(Path((field, text)): Path<(String, String)>, session: Session<Visitor>) {
    let mut s = session.write().await;
    match field.as_str() {
        "token" => s.set_token(text),
        "other" => s.set_other(text),
        "recovery" => s.push_recovery(Secret::new(text)),
        "code" => s.set_code(text.len() as u32),
        "merged" => s.set_merged(text),
        _ => s.set_plain(text),
    };
}

async fn show(session: Session<Visitor>) -> String {
    let s = session.read().await;
    let token = s.token().map_or("-", |token| token.expose());
    let code = s.code().map_or(0, |code| *code.expose());
    format!("{token} {} {code} {} {}", s.other().expose(), s.merged().expose(), s.plain())
}

async fn update(Path(text): Path<String>, session: Session<Visitor>) -> sessions::Result<()> {
    session
        .update(|s| {
            let longer = format!("{}{text}", s.other().expose());
            s.set_other(longer);
        })
        .await
}

async fn take(session: Session<Visitor>) -> String {
    let codes = session.write().await.take_recovery();
    codes.iter().map(|code| code.expose().as_str()).collect::<Vec<_>>().join(" ")
}

async fn renew(session: Session<Visitor>) -> sessions::Result<()> {
    session.renew_id().await
}

async fn fleet(processes: usize) -> Fleet<Visitor> {
    Fleet::start(processes, routes(), "/begin").await
}

/// A store that shows its records, and lets a test exchange them.
#[derive(Clone)]
struct Seen(std::sync::Arc<Mutex<Vec<(StoreKey, Record)>>>);

impl Seen {
    fn new() -> Self {
        Self(std::sync::Arc::default())
    }

    fn records(&self) -> Vec<(StoreKey, Record)> {
        self.0.lock().unwrap().clone()
    }

    /// The session; not what a renewal leaves for a moment under its old id.
    fn only(&self) -> (StoreKey, Record) {
        let mut records = self.records();
        records.retain(|(_, record)| !record.payload.starts_with(&[0]));
        assert_eq!(records.len(), 1);
        records[0].clone()
    }

    fn put(&self, key: StoreKey, record: Record) {
        let mut records = self.0.lock().unwrap();
        records.retain(|(other, _)| *other != key);
        records.push((key, record));
    }
}

impl Store for Seen {
    async fn load(&self, key: &StoreKey) -> Result<Option<Record>, StoreError> {
        let records = self.records();
        Ok(records.into_iter().find(|(other, _)| other == key).map(|(_, record)| record))
    }

    async fn create(&self, key: &StoreKey, record: &Record) -> Result<Created, StoreError> {
        self.put(*key, record.clone());
        Ok(Created::Done)
    }

    async fn replace(
        &self,
        key: &StoreKey,
        record: &Record,
        based_on: u64,
    ) -> Result<Replaced, StoreError> {
        match self.load(key).await? {
            None => Ok(Replaced::Missing),
            Some(stored) if stored.version != based_on => Ok(Replaced::Changed),
            Some(_) => {
                self.put(*key, record.clone());
                Ok(Replaced::Done)
            }
        }
    }

    async fn touch(&self, _: &StoreKey, _: std::time::SystemTime) -> Result<(), StoreError> {
        Ok(())
    }

    async fn delete(&self, key: &StoreKey) -> Result<bool, StoreError> {
        let mut records = self.0.lock().unwrap();
        let before = records.len();
        records.retain(|(other, _)| other != key);
        Ok(records.len() < before)
    }
}

async fn process(store: &Seen, keys: &Keys) -> (Server, Client) {
    let layer = SessionLayer::<Visitor>::new(store.clone(), keys.clone());
    let server = Server::start(routes().layer(layer)).await;
    let client = server.client();
    (server, client)
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

#[tokio::test]
async fn the_store_has_neither_a_value_nor_a_stable_image_of_it() {
    let (store, keys) = (Seen::new(), Keys::generate());
    let (_server, client) = process(&store, &keys).await;
    client.get("/set/plain/visible").await.text();
    client.get("/set/token/hidden").await.text();
    let mut payloads = vec![store.only().1.payload];
    for field in ["other", "recovery", "code", "merged", "plain"] {
        client.get(&format!("/set/{field}/hidden")).await.text();
        payloads.push(store.only().1.payload);
    }
    client.get("/renew").await.text();
    payloads.push(store.only().1.payload);
    for payload in &payloads {
        assert_eq!(
            contains(payload, "hidden"),
            contains(payload, "plain\u{9}\u{5}\u{b}\u{6}hidden")
        );
        assert!(contains(payload, "token"));
    }
    // The same value, saved seven times: what follows the key is another nonce and other bytes.
    let images: Vec<&[u8]> = payloads
        .iter()
        .map(|payload| {
            let at = payload.windows(5).position(|window| window == b"token").expect("the key");
            &payload[at + 7..at + 7 + 48]
        })
        .collect();
    for (at, image) in images.iter().enumerate() {
        for other in &images[..at] {
            assert!(image.iter().zip(*other).filter(|(a, b)| a == b).count() < 12);
        }
    }
    assert_eq!(client.get("/show").await.text(), "hidden hidden 6 hidden hidden");
    assert_eq!(client.get("/take").await.text(), "hidden");
    assert_eq!(client.get("/take").await.text(), "");
}

/// Where a field's entry stands in a payload: behind its key, length and all.
fn entry(payload: &[u8], key: &str) -> std::ops::Range<usize> {
    // Behind the head, whose length is in the second byte.
    let mut at = 2 + usize::from(payload[1]);
    while at < payload.len() {
        let length = usize::from(payload[at]);
        let body = at + 1 + length;
        let end = body + 1 + usize::from(payload[body]);
        if &payload[at + 1..body] == key.as_bytes() {
            return body..end;
        }
        at = end;
    }
    panic!("no entry {key}");
}

#[tokio::test]
async fn a_value_that_is_moved_does_not_decrypt() {
    let (store, keys) = (Seen::new(), Keys::generate());
    let (_server, victim) = process(&store, &keys).await;
    victim.get("/set/other/hidden").await.text();
    victim.get("/set/token/hidden").await.text();
    let (at, record) = store.only();
    let payload = record.payload.to_vec();
    let (token, other) = (entry(&payload, "token"), entry(&payload, "other"));
    assert_eq!(token.len(), other.len(), "of one a `Some`, of the other its version");

    // To another field of the same session: the bodies, of what each has.
    let mut moved = payload.clone();
    moved.splice(other.clone(), payload[token.clone()].iter().copied());
    store.put(at, record.clone().with_payload(moved.clone()).with_version(9));
    assert_eq!(victim.get("/show").await.text(), "hidden hidden 0  ", "by its other name");
    let older = entry(&payload, "older");
    moved.splice(older, payload[token.clone()].iter().copied());
    store.put(at, record.clone().with_payload(moved).with_version(10));
    assert_eq!(victim.get("/show").await.text(), "hidden  0  ");

    // To the same field of another session.
    store.put(at, record.clone());
    let attacker = victim.copy();
    attacker.set_cookie(COOKIE, None);
    attacker.get("/set/plain/mine").await.text();
    let (here, mine) =
        store.records().into_iter().find(|(key, _)| *key != at).expect("the other session");
    let stolen = mine.with_payload(payload);
    store.put(here, stolen);
    assert_eq!(attacker.get("/show").await.text(), "-  0  ");
    // And it is not made good by a save there.
    attacker.get("/set/plain/again").await.text();
    assert_eq!(attacker.get("/show").await.text(), "-  0  again");
    assert_eq!(victim.get("/show").await.text(), "hidden hidden 0  ");
}

/// Two fields that differ in their keys alone: the type, the version and the length of what is in
/// them are the same, so that nothing but the seal can tell one from the other.
#[tokio::test]
async fn a_value_that_is_moved_to_a_field_of_the_same_type_does_not_decrypt() {
    #[derive(Session)]
    #[session(name = "twins")]
    struct Twins {
        #[session(secret)]
        left: Secret<String>,
        #[session(secret)]
        twin: Secret<String>,
    }
    async fn set(session: Session<Twins>) {
        {
            let mut s = session.write().await;
            s.set_left("hidden");
            s.set_twin("secret");
        }
    }
    async fn show(session: Session<Twins>) -> String {
        let s = session.read().await;
        format!("{} {}", s.left().expose(), s.twin().expose())
    }
    let (store, keys) = (Seen::new(), Keys::generate());
    let layer = SessionLayer::<Twins>::new(store.clone(), keys);
    let routes = Router::new().route("/set", get(set)).route("/show", get(show));
    let server = Server::start(routes.layer(layer)).await;
    let client = server.client();
    client.get("/set").await.text();
    let (at, record) = store.only();
    let payload = record.payload.to_vec();
    let (left, twin) = (entry(&payload, "left"), entry(&payload, "twin"));
    assert_eq!(left.len(), twin.len());
    let mut moved = payload.clone();
    moved[twin.clone()].copy_from_slice(&payload[left.clone()]);
    store.put(at, record.clone().with_payload(moved).with_version(10));
    assert_eq!(client.get("/show").await.text(), "hidden ");
    // As it was, it is good.
    store.put(at, record.with_version(11));
    assert_eq!(client.get("/show").await.text(), "hidden secret");
}

#[tokio::test]
async fn old_keys_open_it_and_the_next_save_seals_it_with_the_first() {
    let (store, old, new) = (Seen::new(), Keys::generate(), Keys::generate());
    let (_before, client) = process(&store, &old).await;
    client.get("/set/token/hidden").await.text();
    let rotated = new.clone().with_previous(old.clone());
    let (_while, there) = process(&store, &rotated).await;
    there.set_cookie(COOKIE, client.cookie(COOKIE).as_deref());
    assert_eq!(there.get("/show").await.text(), "hidden  0  ");
    there.get("/set/plain/seen").await.text();
    // The cookie is signed by the new key by now.
    let (_after, last) = process(&store, &new).await;
    last.set_cookie(COOKIE, there.cookie(COOKIE).as_deref());
    assert_eq!(last.get("/show").await.text(), "hidden  0  seen");

    // A process that lacks the key neither reads it nor loses it for the others.
    let strangers = Keys::generate().with_previous(old);
    let (_stranger, stranger) = process(&store, &strangers).await;
    stranger.set_cookie(COOKIE, client.cookie(COOKIE).as_deref());
    assert_eq!(stranger.get("/show").await.text(), "-  0  seen");
    stranger.get("/set/plain/written").await.text();
    assert_eq!(last.get("/show").await.text(), "hidden  0  written");
}

#[tokio::test]
async fn a_renewal_and_its_end_keep_it() {
    let fleet = fleet(2).await;
    fleet.get(0, "/set/token/hidden").await;
    fleet.get(0, "/set/code/four").await;
    fleet.get(0, "/renew").await;
    assert_eq!(fleet.get(0, "/show").await, "hidden  4  x");
    fleet.clock.advance(Duration::from_secs(600));
    assert_eq!(fleet.get(0, "/show").await, "hidden  0  x");
}

#[tokio::test]
async fn two_processes_merge_secrets_and_what_is_beside_them() {
    let fleet = fleet(2).await;
    fleet.get(0, "/set/token/first").await;
    assert!(fleet.overtaken("/set/plain/a", "/set/token/second").await.status.is_success());
    assert!(fleet.overtaken("/set/other/b", "/set/plain/c").await.status.is_success());
    assert!(fleet.overtaken("/set/merged/dd", "/set/merged/eee").await.status.is_success());
    assert_eq!(fleet.get(1, "/show").await, "second b 0 eee c");
    assert!(fleet.overtaken("/update/y", "/update/z").await.status.is_success());
    assert_eq!(fleet.get(0, "/show").await, "second byz 0 eee c");
    fleet.get(0, "/set/recovery/once").await;
    assert_eq!(fleet.overtaken("/take", "/take").await.status, 409);
    fleet.store.reset();
    fleet.get(0, "/set/token/second").await;
    assert_eq!(fleet.store.calls().replace, 0, "nothing has changed");
}

#[tokio::test]
async fn a_save_whose_answer_is_lost_is_found_again() {
    use sessions::testing::{Fault, FaultyStore};
    let faults = FaultyStore::new(MemoryStore::new(), 3).with_fault(Fault::AnswerLost, 200);
    let layer = SessionLayer::<Visitor>::new(faults.clone(), Keys::generate());
    let server = Server::start(routes().layer(layer)).await;
    let client = server.client();
    let (mut last, mut failed) = (String::from("-"), 0);
    for number in 0..100 {
        match client.get(&format!("/set/token/{number}")).await.status.as_u16() {
            200 => last = number.to_string(),
            503 => failed += 1,
            other => panic!("{other}"),
        }
    }
    faults.heal();
    assert!(failed < 30, "{failed} of a hundred: the loads and the ones lost twice");
    let shown = client.get("/show").await;
    let shown: u32 = shown.text().split(' ').next().expect("a token").parse().expect("a number");
    assert!(shown >= last.parse().expect("a number"), "{shown} after {last}");
}

#[tokio::test]
async fn it_counts_towards_the_limit_as_it_is_stored() {
    let store = Seen::new();
    let builder = SessionLayer::<Visitor>::builder(store.clone(), Keys::generate());
    let layer = builder.with_payload_limit(1_000).build().expect("possible settings");
    let server = Server::start(routes().layer(layer)).await;
    let client = server.client();
    for length in [600, 640, 750, 820, 900, 950] {
        // Five fields of the struct, one of them under two names and with a note, can grow by 42 bytes each.
        let status = client.get(&format!("/set/token/{}", "x".repeat(length))).await.status;
        assert_eq!(status.is_success(), length < 700, "{length}");
        assert!(store.records().iter().all(|(_, record)| record.payload.len() <= 1_000));
    }
}

#[tokio::test]
async fn nothing_shows_it() {
    let fleet = fleet(1).await;
    fleet.get(0, "/set/token/hidden").await;
    fleet.get(0, "/set/other/hidden").await;
    let shown = fleet.get(0, "/debug").await;
    assert!(!shown.contains("hidden") && shown.contains("other: <redacted>"), "{shown}");
}

#[tokio::test]
async fn a_private_cookie_is_encrypted_as_a_whole() {
    let layer = SessionLayer::<Visitor>::new(PrivateCookie, Keys::generate());
    let server = Server::start(routes().layer(layer)).await;
    let client = server.client();
    client.get("/set/token/hidden").await.text();
    client.get("/set/recovery/once").await.text();
    client.get("/renew").await.text();
    assert_eq!(client.get("/show").await.text(), "hidden  0  ");
    assert_eq!(client.get("/take").await.text(), "once");
    assert_eq!(client.get("/take").await.text(), "");
}

mod before {
    use super::*;

    #[derive(Session)]
    #[session(name = "Visitor")]
    struct Before {
        token: Option<String>,
        #[session(version = 2)]
        older: String,
    }

    #[tokio::test]
    async fn a_field_that_becomes_a_secret_keeps_its_value() {
        async fn fill(session: Session<Before>) {
            {
                let mut s = session.write().await;
                s.set_token("visible");
                s.set_older("moved");
            }
        }
        let (store, keys) = (Seen::new(), Keys::generate());
        let layer = SessionLayer::<Before>::builder(store.clone(), keys.clone());
        let layer = layer.in_another_process().build().unwrap();
        let old = Server::start(Router::new().route("/", get(fill)).layer(layer)).await;
        let first = old.client();
        first.get("/").await.text();
        assert!(contains(&store.only().1.payload, "visible"));
        let (_server, client) = process(&store, &keys).await;
        client.set_cookie(COOKIE, first.cookie(COOKIE).as_deref());
        assert_eq!(client.get("/show").await.text(), "visible moved 0  ");
        client.get("/set/plain/x").await.text();
        let payload = store.only().1.payload;
        assert!(!contains(&payload, "visible") && !contains(&payload, "moved"));
        assert_eq!(client.get("/show").await.text(), "visible moved 0  x");
    }

    /// Once all of them are sealed.
    #[tokio::test]
    async fn a_value_that_is_not_sealed_can_be_refused() {
        async fn fill(session: Session<Before>) {
            {
                let mut s = session.write().await;
                s.set_token("planted");
                s.set_older("planted");
            }
        }
        let (store, keys) = (Seen::new(), Keys::generate());
        let layer = SessionLayer::<Before>::builder(store.clone(), keys.clone());
        let layer = layer.in_another_process().build().unwrap();
        let old = Server::start(Router::new().route("/", get(fill)).layer(layer)).await;
        let first = old.client();
        first.get("/").await.text();
        let builder = SessionLayer::<Visitor>::builder(store.clone(), keys.clone());
        let layer = builder.without_plain_secrets().in_another_process().build().unwrap();
        let server = Server::start(routes().layer(layer)).await;
        let client = server.client();
        client.set_cookie(COOKIE, first.cookie(COOKIE).as_deref());
        assert_eq!(client.get("/show").await.text(), "-  0  ");
        client.get("/set/plain/x").await.text();
        assert_eq!(client.get("/show").await.text(), "-  0  x");
        assert!(!contains(&store.only().1.payload, "planted"));
        // What is sealed is read, and what is written is sealed.
        client.get("/set/token/real").await.text();
        client.get("/set/code/four").await.text();
        assert_eq!(client.get("/show").await.text(), "real  4  x");
        let (_other, there) = process(&store, &keys).await;
        there.set_cookie(COOKIE, client.cookie(COOKIE).as_deref());
        assert_eq!(there.get("/show").await.text(), "real  4  x");
    }
}
