//! No bytes in a store panic, take more than a bounded memory, or keep a session from working.

use std::{
    collections::{BTreeMap, HashSet},
    convert::Infallible,
    sync::Arc,
    time::{Duration, SystemTime},
};

use http::{Request, Response, header};
use serde::{Deserialize, Serialize};
use sessions::{Codec, Keys, Record, Secret, Session, SessionLayer};
use sessions_tests::SingleRecord;
use tower::{Layer, ServiceExt};

use crate::for_all;

/// A field may claim 16 MiB, and what its type keeps of that.
const MOST_MEMORY: u64 = 100 << 20;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
enum Shape {
    #[default]
    Point,
    Circle(f64),
    Path {
        points: Vec<(i32, i32)>,
        name: Option<Box<str>>,
    },
}

#[derive(Session)]
struct Everything {
    text: String,
    #[session(alias = "older", version = 3)]
    number: i128,
    maybe: Option<char>,
    list: Vec<u64>,
    bytes: Vec<u8>,
    map: BTreeMap<String, Vec<String>>,
    set: HashSet<u16>,
    shape: Shape,
    nested: Option<Option<(bool, f32, String)>>,
    #[session(secret, alias = "hidden")]
    secret: Option<Secret<String>>,
    #[session(secret, ttl = "1h", version = 2)]
    code: Secret<u64>,
    #[session(flash, merge = union)]
    notices: Vec<String>,
}

async fn request(
    layer: &SessionLayer<Everything>,
    cookie: &str,
    work: impl AsyncFn(&Session<Everything>),
) -> Option<String> {
    let service = layer.layer(tower::service_fn(async |request: Request<()>| {
        let session = Session::<Everything>::open(request.extensions()).await.unwrap();
        work(&session).await;
        Ok::<_, Infallible>(Response::new(String::new()))
    }));
    let request = Request::builder().header(header::COOKIE, cookie).body(()).unwrap();
    let response = service.oneshot(request).await.unwrap();
    assert_eq!(response.status(), 200);
    let cookie = response.headers().get(header::SET_COOKIE)?;
    Some(cookie.to_str().unwrap().split(';').next().unwrap().to_string())
}

async fn fill(session: &Session<Everything>) {
    let mut s = session.write().await;
    s.set_text("Zoë");
    s.set_number(-300);
    s.set_maybe('ß');
    s.set_list([1, 1_000, u64::MAX]);
    s.set_bytes(*b"\x00\xff");
    s.set_shape(Shape::Path { points: vec![(1, -1)], name: None });
    s.map_mut().insert("key".to_string(), vec!["value".to_string()]);
    s.set_mut().extend([1, 2, 3]);
    s.set_nested(Some((true, 0.5, String::new())));
    s.set_secret("hidden");
    s.set_code(7_u64);
    s.push_notices("once");
}

#[test]
fn whatever_the_store_holds_the_session_works() {
    let codecs = [Codec::Bincode, Codec::Postcard, Codec::MessagePack, Codec::Json];
    let store = Arc::new(SingleRecord::default());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let good = codecs.map(|codec| {
        let builder = SessionLayer::builder(store.clone(), Keys::generate());
        let layer = builder.with_codec(codec).build().unwrap();
        let cookie = runtime.block_on(request(&layer, "", fill)).expect("a new session");
        let payload = store.0.lock().unwrap().take().expect("it was saved").payload;
        (layer, cookie, payload)
    });
    for_all("payloads", 1, async |random| {
        let (layer, cookie, payload) = random.pick(&good);
        let mut payload = match random.below(4) {
            0 => random.bytes(300),
            _ => payload.to_vec(),
        };
        for _ in 0..random.below(5) {
            random.spoil(&mut payload);
        }
        let now = SystemTime::now();
        *store.0.lock().unwrap() = Some(Record::new(
            1,
            now - Duration::from_secs(20),
            now + Duration::from_secs(60),
            payload,
        ));
        let memory = allocation_counter::measure(|| {
            // The store answers at once, so that one poll is all.
            let opened = request(layer, cookie, async |session| {
                let s = session.read().await;
                let _ = (s.text().len(), s.secret().is_some(), s.code().expose());
            });
            let mut opened = std::pin::pin!(opened);
            let mut context = std::task::Context::from_waker(std::task::Waker::noop());
            assert!(opened.as_mut().poll(&mut context).is_ready(), "the store made us wait");
        });
        assert!(memory.bytes_max < MOST_MEMORY, "{memory:?}");
        let renewed = request(layer, cookie, async |session| {
            let mut s = session.write().await;
            s.set_text("written");
            s.take_notices();
        });
        let cookie = renewed.await.unwrap_or(cookie.clone());
        if store.0.lock().unwrap().as_ref().is_none_or(|saved| saved.is_expired(SystemTime::now()))
        {
            // The bytes said that the session may not live any longer.
            return;
        }
        request(layer, &cookie, async |session| {
            assert_eq!(session.read().await.text(), "written");
        })
        .await;
    });
}
