//! What `sessions::security` says of an id, and no other test would notice: where it comes from, and
//! where it does not go.

use std::{
    sync::{Arc, Mutex},
    time::SystemTime,
};

use axum::{Router, response::IntoResponse, routing::get};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD as BASE64};
use http::{HeaderMap, Method, Request, header};
use http_body_util::Full;
use sessions::{
    Created, Keys, MemoryStore, Record, Replaced, Session, SessionLayer, Store, StoreError,
    StoreKey,
};
use sessions_tests::{Client, Server};
use sha2::{Digest, Sha256};

use crate::{App, COOKIE, Visitor};

/// Keeps everything that a store is ever handed.
#[derive(Clone, Default)]
struct Listener {
    store: MemoryStore,
    keys: Arc<Mutex<Vec<StoreKey>>>,
    bytes: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Listener {
    fn note(&self, key: &StoreKey, record: Option<&Record>) {
        self.keys.lock().unwrap().push(*key);
        let mut bytes = self.bytes.lock().unwrap();
        bytes.push(key.as_bytes().to_vec());
        if let Some(record) = record {
            bytes.push(record.payload.to_vec());
            bytes.extend(record.user.as_ref().map(|user| user.as_bytes().to_vec()));
        }
    }
}

impl Store for Listener {
    async fn load(&self, key: &StoreKey) -> Result<Option<Record>, StoreError> {
        self.note(key, None);
        self.store.load(key).await
    }

    async fn create(&self, key: &StoreKey, record: &Record) -> Result<Created, StoreError> {
        self.note(key, Some(record));
        self.store.create(key, record).await
    }

    async fn replace(
        &self,
        key: &StoreKey,
        record: &Record,
        based_on: u64,
    ) -> Result<Replaced, StoreError> {
        self.note(key, Some(record));
        self.store.replace(key, record, based_on).await
    }

    async fn touch(&self, key: &StoreKey, expires_at: SystemTime) -> Result<(), StoreError> {
        self.note(key, None);
        self.store.touch(key, expires_at).await
    }

    async fn delete(&self, key: &StoreKey) -> Result<bool, StoreError> {
        self.note(key, None);
        self.store.delete(key).await
    }
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// The id in a client's cookie.
fn id(client: &Client) -> [u8; 16] {
    let value = BASE64.decode(client.cookie(COOKIE).expect("a cookie")).unwrap();
    *value.first_chunk().unwrap()
}

#[tokio::test]
async fn the_store_gets_the_hash_of_an_id_and_never_the_id() {
    let store = Listener::default();
    let layer = SessionLayer::<Visitor>::new(store.clone(), Keys::generate());
    let server = Server::start(crate::basics().layer(layer)).await;
    let client = server.client();
    let mut ids = Vec::new();
    for path in ["/name/Zoe", "/visit", "/renew", "/name"] {
        client.get(path).await.text();
        ids.push(id(&client));
    }
    client.get("/destroy").await.text();
    let hash = |id: &[u8; 16]| StoreKey::from_bytes(Sha256::digest(id).into());
    for key in store.keys.lock().unwrap().iter() {
        assert!(ids.iter().any(|id| hash(id) == *key), "a key that is no id's hash");
    }
    for bytes in store.bytes.lock().unwrap().iter() {
        // Nor a part of it that would spare a guesser anything.
        assert!(!ids.iter().any(|id| id.chunks(8).any(|part| contains(bytes, part))));
    }
}

#[tokio::test]
async fn a_cookie_is_an_id_and_its_signature_and_nothing_of_the_session() {
    let app = App::start(Router::new()).await;
    let client = app.visitor().await;
    let before = client.cookie(COOKIE).unwrap();
    assert_eq!(BASE64.decode(&before).unwrap().len(), 16 + 32);
    for path in ["/name/Somebody-with-a-longer-name", "/visit", "/visit"] {
        client.get(path).await.text();
    }
    assert_eq!(client.cookie(COOKIE), Some(before), "it changes with the session");
}

#[tokio::test]
async fn a_session_is_found_by_its_cookie_and_by_nothing_else() {
    let app = App::start(Router::new()).await;
    let client = app.visitor().await;
    let value = client.cookie(COOKIE).unwrap();
    let pair = format!("{COOKIE}={value}");
    let bearer = format!("Bearer {value}");
    for (name, value) in [
        ("authorization", &bearer),
        ("authorization", &value),
        ("set-cookie", &pair),
        ("cookie2", &pair),
        ("x-session-id", &value),
        ("x-session", &pair),
        ("x-auth-token", &value),
        (COOKIE, &value),
        ("referer", &format!("https://shop.example/?{pair}")),
    ] {
        let request = Request::get("/name").header(name, value);
        let reply = app.client().call(request.body(Full::default()).unwrap()).await;
        assert_eq!(reply.text(), "nobody", "{name}");
    }
    for address in [format!("/name?{pair}"), format!("/name;{pair}"), format!("/name?id={value}")] {
        let reply = app.client().get(&address).await;
        assert!(reply.body != "Zoe", "{address}");
    }
    let form = Request::builder().method(Method::GET).uri("/name");
    let form = form.header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
    let reply = app.client().call(form.body(Full::from(pair.clone())).unwrap()).await;
    assert_eq!(reply.text(), "nobody");
    // So it would have been found.
    let cookie = Request::get("/name").header(header::COOKIE, &pair);
    let reply = app.client().call(cookie.body(Full::default()).unwrap()).await;
    assert_eq!(reply.text(), "Zoe");
}

#[tokio::test]
async fn an_id_is_sent_in_set_cookie_and_nowhere_else() {
    /// A page that shows all that a session says of itself.
    async fn page(session: Session<Visitor>) -> impl IntoResponse {
        let key = session.store_key();
        let shown = format!("{session:?} {:?} {key:?}", session.lifetime());
        let guard = session.read().await;
        format!("{shown} {}", guard.name().unwrap_or_default())
    }
    let app = App::start(Router::new().route("/page", get(page))).await;
    let client = app.client();
    let mut sent = 0;
    for path in ["/page", "/name/Zoe", "/page", "/renew", "/visit", "/page", "/destroy", "/page"] {
        let before = client.cookie(COOKIE);
        let reply = client.get(path).await;
        let ids: Vec<String> = before.into_iter().chain(client.cookie(COOKIE)).collect();
        let mut others: HeaderMap = reply.headers.clone();
        sent += others.get_all(header::SET_COOKIE).iter().count();
        others.remove(header::SET_COOKIE);
        let others = format!("{others:?} {}", reply.body);
        for value in ids {
            let bytes = BASE64.decode(&value).unwrap_or_default();
            let hex: String = bytes.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
            assert!(!others.contains(&value[..16]), "{path}: {others}");
            assert!(hex.is_empty() || !others.contains(&hex), "{path}: {others}");
        }
    }
    assert_eq!(sent, 3, "a new one, a renewed one, a removal");
}

/// Whoever relies on a preflight for `application/json` has none with `text/plain`.
#[tokio::test]
async fn the_origin_is_checked_whatever_the_content_type() {
    async fn change(session: Session<Visitor>) {
        session.write().await.set_name("changed");
    }
    let routes = Router::new()
        .route("/change", get(change).post(change).put(change).delete(change))
        .layer(Visitor::csrf_layer().origin_only());
    let app = App::start(routes).await;
    let client = app.visitor().await;
    for content_type in [
        None,
        Some("application/x-www-form-urlencoded"),
        Some("multipart/form-data; boundary=a"),
        Some("text/plain"),
        Some("application/json"),
        Some("text/plain; application/json"),
        Some("nonsense"),
    ] {
        for method in [Method::POST, Method::PUT, Method::DELETE] {
            for (name, value) in
                [("sec-fetch-site", "cross-site"), ("origin", "https://evil.example")]
            {
                let mut request = Request::builder().method(&method).uri("/change");
                request = request.header(name, value);
                if let Some(content_type) = content_type {
                    request = request.header(header::CONTENT_TYPE, content_type);
                }
                let reply = client.call(request.body(Full::default()).unwrap()).await;
                assert_eq!(reply.status, 403, "{method} {content_type:?} {name}");
            }
        }
    }
    assert_eq!(client.get("/name").await.text(), "Zoe");
}
