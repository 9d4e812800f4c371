//! Where fields begin: whatever a layer remembers of that does not show.

use std::sync::{
    Mutex,
    atomic::{AtomicU32, Ordering::SeqCst},
};

use axum::{Router, extract::Path, routing::get};
use serde::{Deserialize, Serialize, Serializer};
use sessions::{Keys, MemoryStore, Session, SessionData, SessionLayer};
use sessions_tests::Server;

async fn serve<T: SessionData>(routes: Router) -> Server {
    Server::start(routes.layer(SessionLayer::<T>::new(MemoryStore::new(), Keys::generate()))).await
}

static USUAL: AtomicU32 = AtomicU32::new(1);

/// Begins as what a configuration says, which can change while the program runs.
#[derive(Serialize, Deserialize)]
struct Tone(u32);

impl Default for Tone {
    fn default() -> Self {
        Self(USUAL.load(SeqCst))
    }
}

#[tokio::test]
async fn a_value_that_was_the_default_some_time_ago_is_stored() {
    #[derive(Session)]
    struct Toned {
        tone: Tone,
    }
    async fn set(Path(tone): Path<u32>, session: Session<Toned>) {
        session.write().await.set_tone(Tone(tone));
    }
    async fn tone(session: Session<Toned>) -> String {
        session.read().await.tone().0.to_string()
    }
    let routes = Router::new().route("/", get(tone)).route("/set/{tone}", get(set));
    let server = serve::<Toned>(routes).await;
    server.client().get("/set/5").await.text();
    USUAL.store(2, SeqCst);
    let client = server.client();
    assert_eq!(client.get("/").await.text(), "2");
    client.get("/set/1").await.text();
    assert_eq!(client.get("/").await.text(), "1");
}

/// Cannot be encoded as it begins, nor need it be: nobody writes it.
#[derive(Deserialize, Default)]
struct Unready;

impl Serialize for Unready {
    fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        panic!("nobody has written it")
    }
}

#[tokio::test]
async fn the_default_of_a_field_that_nobody_writes_is_not_encoded() {
    #[derive(Session)]
    struct Half {
        count: u32,
        unready: Unready,
    }
    async fn count(session: Session<Half>) -> String {
        let mut s = session.write().await;
        let count = s.count() + 1;
        s.set_count(count);
        let _ = s.unready();
        count.to_string()
    }
    let server = serve::<Half>(Router::new().route("/", get(count))).await;
    let client = server.client();
    for expected in ["1", "2", "3"] {
        assert_eq!(client.get("/").await.text(), expected);
    }
}

static HEARD_BY: Mutex<Option<Session<Echoing>>> = Mutex::new(None);

/// Writes to another session when it is dropped.
#[derive(Serialize, Deserialize, Default)]
struct Echo;

impl Drop for Echo {
    fn drop(&mut self) {
        let session = HEARD_BY.lock().unwrap().clone();
        if let Some(session) = session
            && let Ok(mut s) = session.try_write()
        {
            *s.count_mut() += 1;
        }
    }
}

#[derive(Session)]
struct Echoing {
    count: u32,
    echo: Echo,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fields_drop_may_write_to_a_session_of_the_same_layer() {
    async fn listen(session: Session<Echoing>) {
        *HEARD_BY.lock().unwrap() = Some(session);
    }
    async fn count(session: Session<Echoing>) -> String {
        let mut s = session.write().await;
        s.set_count(7_u32);
        let _ = s.echo();
        s.count().to_string()
    }
    let routes = Router::new().route("/listen", get(listen)).route("/count", get(count));
    let server = serve::<Echoing>(routes).await;
    server.client().get("/listen").await.text();
    assert_eq!(server.client().get("/count").await.text(), "7");
    let heard_by = HEARD_BY.lock().unwrap().take();
    drop(heard_by);
}
