//! What several stores are asked.

use std::{
    collections::BTreeMap,
    ops::ControlFlow,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::{Duration, Instant, SystemTime},
};

use sessions::{
    Created, Record, Replaced, Store, StoreError, StoreKey, UserIndex, store::AllSessions,
};
use sessions_tests::servers::StoreServer;
use tokio::time::{sleep, timeout};

const LONG: Duration = Duration::from_secs(3600);

/// A key that nobody has used.
pub(crate) fn key() -> StoreKey {
    use std::hash::{BuildHasher, RandomState};
    let mut bytes = [0; 32];
    for (number, chunk) in bytes.chunks_mut(8).enumerate() {
        chunk.copy_from_slice(&RandomState::new().hash_one(number).to_le_bytes());
    }
    StoreKey::from_bytes(bytes)
}

/// A record that lives for an hour by the real clock.
pub(crate) fn record(version: u64, user: Option<&str>, payload: &[u8]) -> Record {
    let now = SystemTime::now();
    let user = user.map(Into::into);
    Record::new(version, now, now + LONG, payload).with_user(user)
}

async fn users(store: &impl UserIndex, user: &str) -> Vec<StoreKey> {
    let found = store.sessions_of(user).await.unwrap();
    for (key, record) in &found {
        assert_eq!(record.user.as_deref(), Some(user));
        let loaded = store.load(key).await.unwrap().expect("it is live");
        assert_eq!(&loaded, record);
    }
    let mut keys: Vec<_> = found.into_iter().map(|(key, _)| key).collect();
    keys.sort();
    keys
}

fn sorted(mut keys: Vec<StoreKey>) -> Vec<StoreKey> {
    keys.sort();
    keys
}

/// Everything that [`AllSessions`] promises, of a store that nobody else uses.
pub(crate) async fn all_sessions(store: &impl AllSessions) {
    const SESSIONS: usize = 1_203;
    let before = store.count().await.unwrap();
    let seen = async || {
        let mut seen = BTreeMap::new();
        let note = |key: StoreKey, record: Record| {
            seen.insert(key, record);
            ControlFlow::Continue(())
        };
        store.for_each(note).await.unwrap();
        seen
    };
    assert_eq!(seen().await.len() as u64, before.sessions);
    let mut ours = BTreeMap::new();
    for number in 0..SESSIONS {
        let (key, user) = (key(), format!("all {}", number % 7));
        let user = Some(&*user).filter(|_| number % 3 == 0);
        let record = record(1, user, &[7; 11]);
        assert_eq!(store.create(&key, &record).await.unwrap(), Created::Done);
        ours.insert(key, record.user.clone());
    }
    let short =
        Record::new(1, SystemTime::now(), SystemTime::now() + Duration::from_millis(20), *b"x");
    assert_eq!(store.create(&key(), &short).await.unwrap(), Created::Done);
    sleep(Duration::from_millis(30)).await;
    let found = seen().await;
    assert_eq!(
        found.len(),
        before.sessions as usize + SESSIONS,
        "each once, and none that is over"
    );
    for (key, user) in &ours {
        assert_eq!((&found[key].user, found[key].payload.len()), (user, 11));
        assert_eq!(store.load(key).await.unwrap().as_ref(), Some(&found[key]));
    }
    let after = store.count().await.unwrap();
    let (all, logged_in) = (SESSIONS as u64, SESSIONS.div_ceil(3) as u64);
    assert_eq!(after.sessions - before.sessions, all);
    assert_eq!(after.logged_in - before.logged_in, logged_in);
    assert_eq!(after.bytes - before.bytes, 11 * all);
    let mut first = 0;
    let break_off = |_, _| {
        first += 1;
        ControlFlow::Break(())
    };
    store.for_each(break_off).await.unwrap();
    assert_eq!(first, 1);

    let is_ours = |record: &Record| record.user.as_deref().is_some_and(|it| it.starts_with("all "));
    let ended = store.delete_matching(|_, record| is_ours(record)).await.unwrap();
    assert_eq!(ended, logged_in);
    for (key, user) in &ours {
        assert_eq!(store.load(key).await.unwrap().is_some(), user.is_none());
    }
    let ended = store.delete_matching(|key, _| ours.contains_key(key)).await.unwrap();
    assert_eq!(ended, all - logged_in);
    assert_eq!(store.count().await.unwrap(), before);
}

/// Everything that [`UserIndex`] promises.
pub(crate) async fn user_index(store: &impl UserIndex) {
    assert!(Store::user_index(store).is_some(), "no layer would find it");
    // None that the conformance suite uses: a call that it dropped may still be carried out.
    // What SQL, globs, key spaces and encodings might take for something else.
    let names = [
        "anna",
        "Anna",
        "anna ",
        "o'hara\"; --",
        "a%_*?[]{}:user:",
        "日本 ë 🦀",
        "日本 ë 🦞",
        "a\0b",
        "",
        "\\0",
    ];
    let mut keys = BTreeMap::new();
    for name in names {
        let (one, two) = (key(), key());
        for key in [one, two] {
            let created = store.create(&key, &record(1, Some(name), b"x")).await.unwrap();
            assert_eq!(created, Created::Done);
        }
        keys.insert(name, [one, two]);
    }
    let nobody = key();
    assert_eq!(store.create(&nobody, &record(1, None, b"x")).await.unwrap(), Created::Done);
    for name in names {
        assert_eq!(users(store, name).await, sorted(keys[name].to_vec()), "{name:?}");
    }
    assert!(users(store, "annab").await.is_empty());

    // A login, a change of user and a logout move the session.
    let replaced = store.replace(&nobody, &record(2, Some("anna"), b"y"), 1).await.unwrap();
    assert_eq!(replaced, Replaced::Done);
    assert_eq!(users(store, "anna").await.len(), 3);
    let replaced = store.replace(&nobody, &record(3, Some("bob"), b"y"), 2).await.unwrap();
    assert_eq!(replaced, Replaced::Done);
    assert_eq!(users(store, "anna").await, sorted(keys["anna"].to_vec()));
    assert_eq!(users(store, "bob").await, [nobody]);
    assert_eq!(store.replace(&nobody, &record(4, None, b"y"), 3).await.unwrap(), Replaced::Done);
    assert!(users(store, "bob").await.is_empty());

    // A session that is touched stays in the index; one that is over does not.
    let short = record(1, Some("carl"), b"")
        .with_expires_at(SystemTime::now() + Duration::from_millis(1500));
    let (over, touched) = (key(), key());
    for key in [over, touched] {
        assert_eq!(store.create(&key, &short).await.unwrap(), Created::Done);
    }
    store.touch(&touched, SystemTime::now() + LONG).await.unwrap();
    while store.load(&over).await.unwrap().is_some() {
        sleep(Duration::from_millis(20)).await;
    }
    for _ in 0..2 {
        assert_eq!(users(store, "carl").await, [touched], "the first look may have cleaned up");
    }

    let [kept, other] = keys["anna"];
    assert_eq!(store.delete_sessions_of("anna", Some(&kept)).await.unwrap(), 1);
    assert!(store.load(&other).await.unwrap().is_none());
    assert_eq!(users(store, "anna").await, [kept]);
    for name in names {
        let left = if name == "anna" { 1 } else { 2 };
        assert_eq!(store.delete_sessions_of(name, None).await.unwrap(), left, "{name:?}");
        assert_eq!(store.delete_sessions_of(name, None).await.unwrap(), 0);
        assert!(users(store, name).await.is_empty());
    }
    assert!(store.load(&nobody).await.unwrap().is_some(), "nobody's session is nobody's");
    assert!(store.delete(&nobody).await.unwrap());
    assert!(store.delete(&touched).await.unwrap());
    no_list_misses_a_session_that_exchanges_its_id(store).await;
}

/// It is there under the new id before the record under the old one is nobody's.
async fn no_list_misses_a_session_that_exchanges_its_id(store: &impl UserIndex) {
    const USER: Option<&str> = Some("dora");
    let mut id = key();
    assert_eq!(store.create(&id, &record(1, USER, b"x")).await.unwrap(), Created::Done);
    let is_over = AtomicBool::new(false);
    let exchanges = async {
        for _ in 0..300 {
            let next = key();
            assert_eq!(store.create(&next, &record(1, USER, b"x")).await.unwrap(), Created::Done);
            let left = store.replace(&id, &record(2, None, b"left"), 1).await.unwrap();
            assert_eq!(left, Replaced::Done);
            id = next;
            // Not in step with the looks, or each of them would meet the next exchange.
            sleep(Duration::from_millis(1)).await;
        }
        is_over.store(true, SeqCst);
        id
    };
    let looks = async {
        while !is_over.load(SeqCst) {
            assert!(!store.sessions_of("dora").await.unwrap().is_empty(), "it is always there");
            tokio::task::yield_now().await;
        }
    };
    let (id, ()) = tokio::join!(exchanges, looks);
    assert_eq!(users(store, "dora").await, [id]);
    assert!(store.delete(&id).await.unwrap());
}

/// What a writer was told about one session.
#[derive(Debug)]
struct Told {
    key: StoreKey,
    /// The last version that was acknowledged.
    done: u64,
    /// The last that was tried: what became of it is not known if it failed.
    tried: u64,
}

/// Sessions that are saved without a pause, also while the server is away.
pub(crate) struct Load<S> {
    store: S,
    stop: Arc<AtomicBool>,
    writers: Vec<tokio::task::JoinHandle<(Told, Vec<StoreError>)>>,
}

impl<S: Store + Clone> Load<S> {
    /// Begins with that many sessions.
    pub(crate) async fn start(store: S, sessions: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let writers = (0..sessions).map(|_| {
            let (store, stop) = (store.clone(), stop.clone());
            tokio::spawn(async move { write(store, stop).await })
        });
        Self { writers: writers.collect(), stop, store }
    }

    /// Ends the load and looks what is there: every acknowledged save, and nothing that nobody
    /// tried. Returns the errors that there were.
    pub(crate) async fn finish(self) -> Vec<StoreError> {
        self.stop.store(true, SeqCst);
        let (mut errors, mut saves) = (Vec::new(), 0);
        for writer in self.writers {
            let (told, failed) = writer.await.expect("no writer panics");
            let found = self.store.load(&told.key).await.expect("the server is back");
            let version = found.as_ref().map_or(0, |found| found.version);
            let kept = (told.done..=told.tried).contains(&version);
            assert!(kept, "{told:?}, but the store has version {version}");
            if let Some(found) = found {
                assert_eq!(*found.payload, version.to_le_bytes(), "the payload of that save");
            }
            saves += told.done;
            errors.extend(failed);
        }
        assert!(saves > 0, "there was something to lose");
        errors
    }
}

async fn write(store: impl Store, stop: Arc<AtomicBool>) -> (Told, Vec<StoreError>) {
    let key = key();
    let (mut told, mut errors) = (Told { key, done: 0, tried: 0 }, Vec::new());
    let version_of = |version: u64| record(version, Some("ann"), &version.to_le_bytes());
    while !stop.load(SeqCst) {
        told.tried += 1;
        let outcome = match told.done {
            0 => store.create(&key, &version_of(told.tried)).await.map(|done| match done {
                Created::Done => Replaced::Done,
                Created::Exists => Replaced::Changed,
            }),
            based_on => store.replace(&key, &version_of(told.tried), based_on).await,
        };
        match outcome {
            Ok(Replaced::Done) => told.done = told.tried,
            // A save that failed before had been carried out after all.
            Ok(Replaced::Changed) => {
                if let Ok(Some(found)) = store.load(&key).await {
                    assert!(found.version > told.done, "{told:?}, but found {}", found.version);
                    assert!(found.version < told.tried, "{told:?}, but found {}", found.version);
                    told.done = found.version;
                }
            }
            Ok(Replaced::Missing) => panic!("an acknowledged save is gone: {told:?}"),
            Err(error) => {
                errors.push(error);
                sleep(Duration::from_millis(10)).await;
            }
        }
    }
    (told, errors)
}

/// Waits until the store answers again.
pub(crate) async fn recovers(store: &impl Store) {
    let begun = Instant::now();
    let unknown = key();
    while !matches!(timeout(Duration::from_secs(20), store.load(&unknown)).await, Ok(Ok(None))) {
        assert!(begun.elapsed() < Duration::from_secs(60), "the store never came back");
        sleep(Duration::from_millis(20)).await;
    }
}

/// Errors of a server that is away: each says so, and that it may come back.
pub(crate) fn all_retryable(errors: &[StoreError]) {
    for error in errors {
        let source = std::error::Error::source(error);
        assert!(error.is_retryable(), "{error}: {source:?}");
    }
}

/// How long a store waits in the test of a server that hangs.
pub(crate) const HANGS: Duration = Duration::from_millis(500);

/// A server that takes calls and never answers: each call is an error after the timeout; and when the server goes on,
/// so does the store.
pub(crate) async fn hangs(store: impl Store + Clone, server: &StoreServer) {
    recovers(&store).await;
    server.pause();
    // One is dropped while it waits, as by the layer's own deadline.
    let call = timeout(Duration::from_millis(100), store.load(&key())).await;
    assert!(call.is_err(), "it does not answer");
    let calls: Vec<_> = (0..20)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move { store.load(&key()).await })
        })
        .collect();
    for call in calls {
        let outcome = timeout(Duration::from_secs(20), call).await.expect("no call hangs");
        let error = outcome.expect("no call panics").expect_err("nobody answers");
        assert!(error.is_retryable(), "{error}");
    }
    server.resume();
    recovers(&store).await;
    let key = key();
    assert_eq!(store.create(&key, &record(1, None, b"x")).await.unwrap(), Created::Done);
    assert!(store.load(&key).await.unwrap().is_some());
}

/// Calls that are dropped in the middle leave nothing on a connection that another call takes for its
/// own answer. The store has two connections at most.
pub(crate) async fn dropped_calls_answer_nobody_else(store: &impl Store) {
    let payload = |version: u64| vec![version as u8; 100_000];
    let keys: Vec<_> = (0..20).map(|_| key()).collect();
    for key in &keys {
        assert_eq!(store.create(key, &record(1, None, &payload(1))).await.unwrap(), Created::Done);
    }
    let mut known = [1; 20];
    for round in 0..300 {
        let at = round % keys.len();
        let wait = Duration::from_micros(round as u64 % 100 * 20);
        // Until it is dropped, somewhere between its beginning and its end.
        if let Ok(found) = timeout(wait, store.load(&keys[at])).await {
            let found = found.unwrap().expect("a record that nobody has deleted");
            assert!((known[at]..=known[at] + 1).contains(&found.version), "{found:?}");
            assert_eq!(*found.payload, *payload(found.version), "another version's payload");
            known[at] = found.version;
        }
        let next = record(known[at] + 1, None, &payload(known[at] + 1));
        match timeout(wait, store.replace(&keys[at], &next, known[at])).await {
            Ok(Ok(Replaced::Done)) => known[at] += 1,
            // An earlier one that was dropped has been carried out.
            Ok(Ok(Replaced::Changed)) => {}
            Ok(Err(error)) => assert!(error.is_retryable(), "{error}"),
            Ok(answer) => panic!("{answer:?}"),
            Err(_) => {}
        }
        let found = timeout(Duration::from_secs(3), store.load(&keys[at])).await;
        let found = found.expect("the store goes on").unwrap().expect("it is there");
        assert!((known[at]..=known[at] + 1).contains(&found.version), "{found:?}");
        assert_eq!(*found.payload, *payload(found.version), "another version's payload");
        known[at] = found.version;
    }
}
