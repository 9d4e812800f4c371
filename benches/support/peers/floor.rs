//! The floor: what a request of a signed session in memory takes if it is made of nothing but the parts
//! that it cannot do without, in the fewest steps that keep them: a signature, a hashed id, a record with
//! a version and an expiry, fields as bytes, one writer at a time. One look-up finds the session and takes
//! its lock, and one more gives both back.
//!
//! It is no library: a request that finds a session in use gives up, nobody is told why, a field is no key of its
//! own and cannot be merged, no cookie is sent again, and a dropped request leaves its session locked.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::{Duration, SystemTime},
};

use axum::{
    Router,
    body::Body,
    extract::FromRequestParts,
    http::{HeaderValue, Request, Response, header, request::Parts},
    routing::get,
};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD as BASE64};
use bincode::{
    config::standard,
    serde::{decode_from_slice, encode_into_slice},
};
use hashbrown::HashTable;
use hmac::{Hmac, KeyInit, Mac};
use pin_project_lite::pin_project;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tower::{Service, layer::layer_fn};

use super::{COUNTER, NAME, RECENT, THEME, USER_ID, ignore};

pub(super) fn app() -> Router {
    let shared = Arc::new(Shared::new());
    Router::new()
        .route("/", get(ignore))
        .route("/begin", get(begin))
        .route("/fill", get(fill))
        .route("/name", get(name))
        .route("/count", get(count))
        .layer(layer_fn(move |inner| Floor { inner, shared: shared.clone() }))
}

async fn begin(session: Session) {
    session.write().name = NAME.to_string();
}

async fn fill(session: Session) {
    let mut opened = session.write();
    opened.user_id = USER_ID;
    opened.name = NAME.to_string();
    opened.theme = THEME.to_string();
    opened.counter = COUNTER;
    opened.recent = RECENT;
}

async fn name(session: Session) -> String {
    session.fields().name.clone()
}

async fn count(session: Session) {
    session.write().counter += 1;
}

#[derive(Default, Serialize, Deserialize)]
struct Fields {
    user_id: u64,
    name: String,
    theme: String,
    counter: u32,
    recent: [u64; 5],
}

type Key = [u8; 32];

struct Entry {
    key: Key,
    version: u32,
    expires_at: SystemTime,
    payload: Arc<[u8]>,
    is_in_use: bool,
}

const SHARDS: usize = 2048;
const LIFETIME: Duration = Duration::from_secs(3_600);
const COOKIE: &str = "__Host-id";

struct Shared {
    key: Hmac<Sha256>,
    shards: Box<[Mutex<HashTable<Entry>>]>,
}

fn hash(key: &Key) -> u64 {
    u64::from_le_bytes(*key.first_chunk().expect("32 are more than 8"))
}

impl Shared {
    fn new() -> Self {
        Self {
            key: <Hmac<Sha256> as KeyInit>::new_from_slice(&[1; 32]).expect("any length"),
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
        }
    }

    fn shard(&self, key: &Key) -> MutexGuard<'_, HashTable<Entry>> {
        let [.., a, b] = *key;
        self.shards[usize::from(u16::from_le_bytes([a, b])) % SHARDS].lock().expect("no panic")
    }

    fn mac(&self, id: &[u8]) -> Hmac<Sha256> {
        let mut mac = self.key.clone();
        mac.update(COOKIE.as_bytes());
        mac.update(id);
        mac
    }

    /// The session that a cookie's value names: its key, its version and its fields.
    fn open(&self, cookie: &[u8]) -> Option<Opened> {
        let mut bytes = [0; 48];
        BASE64.decode_slice(cookie, &mut bytes).ok()?;
        let (id, tag) = bytes.split_at(16);
        self.mac(id).verify_slice(tag).ok()?;
        let key: Key = Sha256::digest(id).into();
        let stored = {
            let mut shard = self.shard(&key);
            let entry = shard.find_mut(hash(&key), |entry| entry.key == key)?;
            if entry.is_in_use || entry.expires_at <= SystemTime::now() {
                return None;
            }
            entry.is_in_use = true;
            Stored { key, payload: entry.payload.clone(), version: entry.version }
        };
        let (fields, _) = decode_from_slice(&stored.payload, standard()).ok()?;
        Some(Opened { stored: Some(stored), fields })
    }

    /// Saves what was written, gives the session back, and says which cookie is new.
    fn close(&self, opened: Opened, wrote: bool) -> Option<HeaderValue> {
        let mut buffer = [0; 512];
        let mut encoded = || {
            let length = encode_into_slice(&opened.fields, &mut buffer, standard());
            Arc::<[u8]>::from(&buffer[..length.expect("there is room")])
        };
        let Some(Stored { key, payload, version }) = &opened.stored else {
            return wrote.then(|| self.begin(encoded()));
        };
        let new = if wrote { Some(encoded()) } else { None };
        let new = new.filter(|new| new != payload);
        let mut shard = self.shard(key);
        let entry = shard.find_mut(hash(key), |entry| entry.key == *key)?;
        entry.is_in_use = false;
        if let Some(new) = new
            && entry.version == *version
        {
            entry.version += 1;
            entry.payload = new;
            entry.expires_at = SystemTime::now() + LIFETIME;
        }
        None
    }

    fn begin(&self, payload: Arc<[u8]>) -> HeaderValue {
        let mut bytes = [0; 48];
        getrandom::fill(&mut bytes[..16]).expect("the system has random bytes");
        let tag = self.mac(&bytes[..16]).finalize().into_bytes();
        bytes[16..].copy_from_slice(&tag);
        let key: Key = Sha256::digest(&bytes[..16]).into();
        let expires_at = SystemTime::now() + LIFETIME;
        let entry = Entry { key, version: 1, expires_at, payload, is_in_use: false };
        self.shard(&key).insert_unique(hash(&key), entry, |entry| hash(&entry.key));
        let mut line = String::with_capacity(128);
        line.push_str(COOKIE);
        line.push('=');
        BASE64.encode_string(bytes, &mut line);
        line.push_str("; HttpOnly; SameSite=Lax; Secure; Path=/");
        HeaderValue::try_from(line).expect("ASCII")
    }
}

struct Opened {
    /// Nothing for a session that is new.
    stored: Option<Stored>,
    fields: Fields,
}

struct Stored {
    key: Key,
    payload: Arc<[u8]>,
    version: u32,
}

struct Handle {
    shared: Arc<Shared>,
    cookie: Option<HeaderValue>,
    opened: OnceLock<Mutex<Opened>>,
    wrote: AtomicBool,
}

struct Session(Arc<Handle>);

/// The fields of a session, as a guard shows them.
struct Guard<'a>(MutexGuard<'a, Opened>);

impl std::ops::Deref for Guard<'_> {
    type Target = Fields;

    fn deref(&self) -> &Fields {
        &self.0.fields
    }
}

impl std::ops::DerefMut for Guard<'_> {
    fn deref_mut(&mut self) -> &mut Fields {
        &mut self.0.fields
    }
}

impl Session {
    fn fields(&self) -> Guard<'_> {
        Guard(self.0.opened.get().expect("it is open").lock().expect("no handler panics"))
    }

    fn write(&self) -> Guard<'_> {
        self.0.wrote.store(true, Relaxed);
        self.fields()
    }
}

impl Handle {
    fn open(&self) {
        self.opened.get_or_init(|| {
            let value = self.cookie.as_ref().and_then(|cookie| {
                cookie.as_bytes().strip_prefix(COOKIE.as_bytes())?.strip_prefix(b"=")
            });
            let found = value.map(|value| self.shared.open(value).expect("a session of the bench"));
            Mutex::new(found.unwrap_or_else(|| Opened { stored: None, fields: Fields::default() }))
        });
    }
}

impl<S: Sync> FromRequestParts<S> for Session {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let handle = parts.extensions.get::<Arc<Handle>>().expect("the layer is there");
        handle.open();
        Ok(Self(handle.clone()))
    }
}

#[derive(Clone)]
struct Floor<S> {
    inner: S,
    shared: Arc<Shared>,
}

impl<S: Service<Request<Body>, Response = Response<Body>>> Service<Request<Body>> for Floor<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = Answer<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let handle = Arc::new(Handle {
            shared: self.shared.clone(),
            cookie: request.headers().get(header::COOKIE).cloned(),
            opened: OnceLock::new(),
            wrote: AtomicBool::new(false),
        });
        request.extensions_mut().insert(handle.clone());
        Answer { inner: self.inner.call(request), handle: Some(handle) }
    }
}

pin_project! {
    struct Answer<F> {
        #[pin]
        inner: F,
        handle: Option<Arc<Handle>>,
    }
}

impl<F: Future<Output = Result<Response<Body>, E>>, E> Future for Answer<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let mut response = ready!(this.inner.poll(cx))?;
        // The handler and its request are gone.
        let handle = this.handle.take().and_then(Arc::into_inner).expect("nobody else has it");
        if let Some(opened) = handle.opened.into_inner() {
            let opened = opened.into_inner().expect("no handler panics");
            let cookie = handle.shared.close(opened, handle.wrote.into_inner());
            let headers = response.headers_mut();
            headers.insert(header::VARY, HeaderValue::from_static("Cookie"));
            let caching = if cookie.is_some() { "no-store" } else { "private" };
            headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(caching));
            if let Some(cookie) = cookie {
                headers.insert(header::SET_COOKIE, cookie);
            }
        }
        Poll::Ready(Ok(response))
    }
}
