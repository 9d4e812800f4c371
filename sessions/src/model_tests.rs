//! Requests of one session under the model checker: registry, slot, lock, handle and save path, with
//! a thread switch at every lock and every call of the store. `tests/run model` runs it.

use std::{
    collections::HashMap,
    convert::Infallible,
    sync::{Arc, PoisonError},
    time::SystemTime,
};

use http::{Request, Response, header};
use shuttle::{
    Config, Runner,
    future::{block_on, spawn, yield_now},
    scheduler::{PctScheduler, RandomScheduler},
};
use tower::{Layer, ServiceExt, service_fn};

use crate::{
    error::store::StoreError,
    identity::{id::StoreKey, keys::Keys},
    layer::SessionLayer,
    record::Record,
    session::Session,
    store::{Created, Replaced, Store, memory::MemoryStore},
    sync::Mutex,
};

/// How many random schedules of each scenario.
const SCHEDULES: usize = 1_000;

#[derive(sessions_derive::Session)]
#[session(crate = crate)]
struct Data {
    plain: u32,
    #[session(merge = add)]
    sum: u32,
    other: u32,
}

/// A store that lets others go first before and after each call.
#[derive(Clone, Default)]
struct Switching(Arc<Mutex<HashMap<StoreKey, Record>>>);

impl Switching {
    async fn with<R>(
        &self,
        call: impl FnOnce(&mut HashMap<StoreKey, Record>) -> R,
    ) -> Result<R, StoreError> {
        yield_now().await;
        let answer = call(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
        yield_now().await;
        Ok(answer)
    }
}

impl Store for Switching {
    async fn load(&self, key: &StoreKey) -> Result<Option<Record>, StoreError> {
        self.with(|records| records.get(key).cloned()).await
    }

    async fn create(&self, key: &StoreKey, record: &Record) -> Result<Created, StoreError> {
        self.with(|records| {
            let _ = records.insert(*key, record.clone());
            Created::Done
        })
        .await
    }

    async fn replace(
        &self,
        key: &StoreKey,
        record: &Record,
        based_on: u64,
    ) -> Result<Replaced, StoreError> {
        self.with(|records| match records.get_mut(key) {
            None => Replaced::Missing,
            Some(stored) if stored.version != based_on => Replaced::Changed,
            Some(stored) => {
                *stored = record.clone();
                Replaced::Done
            }
        })
        .await
    }

    async fn touch(&self, _: &StoreKey, _: SystemTime) -> Result<(), StoreError> {
        Ok(())
    }

    async fn delete(&self, key: &StoreKey) -> Result<bool, StoreError> {
        self.with(|records| records.remove(key).is_some()).await
    }
}

type Process = SessionLayer<Data>;

/// One request with this cookie; gives what it sets.
async fn request(process: Process, cookie: String, ask: Ask) -> String {
    let service = process.layer(service_fn(move |request: Request<()>| async move {
        let session = Session::<Data>::open(request.extensions()).await.expect("the store works");
        match ask {
            Ask::Plain => {
                let mut s = session.write().await;
                let plain = s.plain;
                yield_now().await;
                s.set_plain(plain + 1);
            }
            Ask::Sum => *session.write().await.sum_mut() += 1,
            Ask::Other => drop(session.write().await.set_other(1)),
            Ask::Update => session.update(|s| *s.plain_mut() += 1).await.expect("it is live"),
            Ask::Discard => {
                *session.write().await.sum_mut() += 100;
                session.discard_request_changes();
            }
            Ask::Read => drop(session.read().await.plain),
        }
        Ok::<_, Infallible>(Response::new(String::new()))
    }));
    let request = Request::builder().header(header::COOKIE, cookie).body(()).expect("a request");
    let response = service.oneshot(request).await.unwrap_or_else(|never| match never {});
    assert!(response.status().is_success());
    let cookie = response.headers().get(header::SET_COOKIE);
    cookie.map_or_else(String::new, |line| {
        line.to_str().expect("ASCII").split(';').next().unwrap_or_default().to_string()
    })
}

#[derive(Clone, Copy)]
enum Ask {
    Plain,
    Sum,
    Other,
    Update,
    Discard,
    Read,
}

/// Has all of it asked at the same time, of these processes, and gives `plain`, `sum` and `other` as
/// they are stored in the end: on a store that has to be waited for, and on one that answers at once.
fn all_at_once(asks: &'static [(usize, Ask)], check: fn(u32, u32, u32)) {
    all_at_once_on(Switching::default, asks, check);
    all_at_once_on(MemoryStore::new, asks, check);
}

/// Nothing may be left in use.
fn all_at_once_on<S: Store + Clone>(
    store: fn() -> S,
    asks: &'static [(usize, Ask)],
    check: fn(u32, u32, u32),
) {
    let scenario = move || {
        block_on(async move {
            let (store, keys) = (store(), Keys::generate());
            let processes: Vec<Process> =
                (0..2).map(|_| SessionLayer::new(store.clone(), keys.clone())).collect();
            let cookie = request(processes[0].clone(), String::new(), Ask::Other).await;
            let asked: Vec<_> = asks
                .iter()
                .map(|(at, ask)| spawn(request(processes[*at].clone(), cookie.clone(), *ask)))
                .collect();
            for request in asked {
                assert_eq!(request.await.expect("no panic"), "", "a cookie for no reason");
            }
            for process in &processes {
                assert_eq!(process.sessions_in_use(), 0, "a slot is left");
            }
            let service = processes[0].layer(service_fn(|request: Request<()>| async move {
                let session = Session::<Data>::open(request.extensions()).await.expect("works");
                let s = session.read().await;
                let mut shown = Response::new(String::new());
                shown.extensions_mut().insert((s.plain, s.sum, s.other));
                Ok::<_, Infallible>(shown)
            }));
            let last = Request::builder().header(header::COOKIE, cookie).body(()).expect("one");
            let shown = service.oneshot(last).await.unwrap_or_else(|never| match never {});
            let shown = shown.extensions().get::<(u32, u32, u32)>();
            let (plain, sum, other) = *shown.expect("the service's own");
            check(plain, sum, other);
        });
    };
    run(scenario);
}

/// In many orders.
fn run(scenario: impl Fn() + Clone + Send + Sync + 'static) {
    let mut config = Config::new();
    config.stack_size = 1 << 20;
    Runner::new(RandomScheduler::new(SCHEDULES), config.clone()).run(scenario.clone());
    // Fewer switches, at places that are hard to hit.
    Runner::new(PctScheduler::new(3, SCHEDULES), config).run(scenario);
}

#[test]
fn increments_of_one_process_all_count() {
    all_at_once(&[(0, Ask::Plain), (0, Ask::Plain), (0, Ask::Plain)], |plain, _, _| {
        assert_eq!(plain, 3);
    });
}

#[test]
fn increments_of_two_processes_all_count() {
    let asks = &[(0, Ask::Sum), (0, Ask::Sum), (1, Ask::Sum), (1, Ask::Read)];
    all_at_once(asks, |_, sum, _| assert_eq!(sum, 3));
}

#[test]
fn updates_of_two_processes_all_count() {
    let asks = &[(0, Ask::Update), (0, Ask::Update), (1, Ask::Update), (0, Ask::Read)];
    all_at_once(asks, |plain, _, _| assert_eq!(plain, 3));
}

#[test]
fn a_discard_takes_nobody_elses_write_along() {
    let asks = &[(0, Ask::Plain), (0, Ask::Discard), (1, Ask::Other)];
    // Between a guard's end and the discard, another request may have saved it all.
    all_at_once(asks, |plain, sum, other| {
        assert_eq!((plain, other), (1, 1));
        assert!([0, 100].contains(&sum));
    });
}

#[test]
fn different_fields_of_two_processes_are_all_kept() {
    let asks = &[(0, Ask::Plain), (1, Ask::Sum), (0, Ask::Other), (1, Ask::Plain)];
    // `plain` has no merge: of two processes the later one wins.
    all_at_once(asks, |plain, sum, other| {
        assert!((1..=2).contains(&plain));
        assert_eq!((sum, other), (1, 1));
    });
}

/// A task of the request ends the session while the response saves it for the first time: whichever is first, no
/// record stays.
#[test]
fn a_session_that_is_ended_while_it_is_first_saved_leaves_nothing() {
    run(|| {
        block_on(async {
            let store = MemoryStore::new();
            let process = Process::new(store.clone(), Keys::generate());
            let task = Arc::new(Mutex::new(None));
            let begun = task.clone();
            let service = process.layer(service_fn(move |request: Request<()>| {
                let begun = begun.clone();
                async move {
                    let session = Session::<Data>::open(request.extensions()).await.expect("works");
                    session.write().await.set_plain(1);
                    let end = spawn(async move { session.destroy_now().await });
                    *begun.lock().unwrap_or_else(PoisonError::into_inner) = Some(end);
                    Ok::<_, Infallible>(Response::new(String::new()))
                }
            }));
            let request = Request::builder().body(()).expect("a request");
            let response = service.oneshot(request).await;
            assert!(response.unwrap_or_else(|never| match never {}).status().is_success());
            let end = task.lock().unwrap_or_else(PoisonError::into_inner).take();
            end.expect("the handler has run").await.expect("no panic").expect("the store works");
            assert_eq!(store.len(), 0, "a record is left");
            assert_eq!(process.sessions_in_use(), 0, "a slot is left");
        });
    });
}
