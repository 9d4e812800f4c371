//! Stores made of stores.

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::Poll,
    time::{Duration, SystemTime},
};

use sessions::{
    Created, DeleteExpired, DynUserIndex, MemoryStore, Record, Replaced, Store, StoreError,
    StoreKey, UserIndex,
    store::{Cached, Migrating, Mirrored},
    testing::{Calls, Gate, ManualClock, Operation, SpyStore, conformance},
};
use sessions_tests::{
    hand_on,
    servers::{Folder, Kind, StoreServer},
};
use tokio::sync::Notify;

use crate::{
    app,
    checks::{all_sessions, key, record, user_index},
    under_test,
};

const STALENESS: Duration = Duration::from_secs(2);

async fn create(store: &impl Store, record: &Record) -> StoreKey {
    let key = key();
    assert_eq!(store.create(&key, record).await.unwrap(), Created::Done);
    key
}

async fn version(store: &impl Store, key: &StoreKey) -> Option<u64> {
    store.load(key).await.unwrap().map(|record| record.version)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_keeps_the_promises_of_a_store() {
    under_test("MemoryStore, Cached, Mirrored, Migrating");
    let memory = MemoryStore::new;
    user_index(&memory()).await;
    all_sessions(&memory()).await;
    app::logs_out_everywhere(memory()).await;
    let cached = Cached::new(memory(), memory(), STALENESS);
    conformance(cached.clone()).await;
    user_index(&cached).await;
    app::logs_out_everywhere(cached.clone()).await;
    assert!(cached.stats().hits > 0);
    // A cache that has room for almost nothing changes nothing but the speed.
    let small = MemoryStore::builder().with_capacity(1).build();
    conformance(Cached::new(small, memory(), STALENESS)).await;
    let mirrored = Mirrored::new(memory(), memory());
    conformance(mirrored.clone()).await;
    user_index(&mirrored).await;
    app::logs_out_everywhere(mirrored.clone()).await;
    assert_eq!(mirrored.stats().failures, 0);
    let migrating = Migrating::new(memory(), memory());
    conformance(migrating.clone()).await;
    user_index(&migrating).await;
    app::logs_out_everywhere(migrating.clone()).await;
    // In front of a store that takes its time.
    if let Some(server) = StoreServer::start(Kind::Redis) {
        let store = sessions::RedisStore::connect(&server.url()).await.unwrap();
        conformance(Cached::new(memory(), store, STALENESS)).await;
    }
}

/// The records are all in the old store when the suite's calls come: a session is moved by each
/// first `replace`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn migrating_moves_on_write_and_only_then() {
    let (old, new) = (MemoryStore::new(), MemoryStore::new());
    let store = Migrating::new(old.clone(), new.clone());
    let session = create(&old, &record(1, Some("ann"), b"x")).await;
    assert_eq!(version(&store, &session).await, Some(1));
    assert_eq!((old.len(), new.len()), (1, 0), "a read moves nothing");
    assert_eq!(store.create(&session, &record(9, None, b"")).await.unwrap(), Created::Exists);
    let replace = async |to, based_on| {
        store.replace(&session, &record(to, Some("ann"), b"y"), based_on).await.unwrap()
    };
    assert_eq!(replace(3, 2).await, Replaced::Changed);
    assert_eq!((old.len(), new.len()), (1, 0));
    assert_eq!(replace(2, 1).await, Replaced::Done);
    assert_eq!((old.len(), new.len()), (0, 1));
    assert_eq!(replace(2, 1).await, Replaced::Changed);
    assert_eq!(replace(3, 2).await, Replaced::Done);
    assert_eq!(store.sessions_of("ann").await.unwrap().len(), 1);

    // Wherever it is, and even if it is in both, it ends.
    assert_eq!(old.create(&session, &record(1, None, b"x")).await.unwrap(), Created::Done);
    assert!(store.delete(&session).await.unwrap());
    assert_eq!((old.len(), version(&store, &session).await), (0, None));
    assert!(!store.delete(&session).await.unwrap());

    let other = create(&old, &record(1, None, b"x")).await;
    store.touch(&other, SystemTime::now() + Duration::from_secs(9999)).await.unwrap();
    assert_eq!(version(&store, &other).await, Some(1));
    assert!(store.delete(&other).await.unwrap());
    assert_eq!(version(&store, &other).await, None);
}

/// Many saves of one session that is still in the old store: one wins, and none is lost. An end
/// among them is for good.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn migrating_loses_no_race() {
    for round in 0..200 {
        let (old, new) = (MemoryStore::new(), MemoryStore::new());
        let store = Migrating::new(old.clone(), new);
        let session = create(&old, &record(1, None, b"x")).await;
        let ends = round % 2 == 0;
        let tasks: Vec<_> = (0..6)
            .map(|number| {
                let store = store.clone();
                tokio::spawn(async move {
                    if ends && number == 5 {
                        assert!(store.delete(&session).await.unwrap(), "it was there");
                        return 0;
                    }
                    let next = record(2, None, &[number]);
                    let replaced = store.replace(&session, &next, 1).await.unwrap();
                    assert!(version(&store, &session).await.is_some() || ends, "never in between");
                    u32::from(replaced == Replaced::Done)
                })
            })
            .collect();
        let mut done = 0;
        for task in tasks {
            done += task.await.unwrap();
        }
        if ends {
            assert!(done <= 1);
            assert_eq!(version(&store, &session).await, None, "it has ended");
            assert_eq!(old.len(), 0);
        } else {
            assert_eq!((done, version(&store, &session).await), (1, Some(2)));
        }
    }
}

/// What a cache over the old store remembers does not take the place of a later save.
#[tokio::test]
async fn migrating_moves_no_session_that_another_process_has_saved_since() {
    let (old, new) = (MemoryStore::new(), MemoryStore::new());
    let cached = Cached::new(MemoryStore::new(), old.clone(), STALENESS);
    let store = Migrating::new(cached, new.clone());
    let session = create(&old, &record(1, None, b"x")).await;
    assert_eq!(version(&store, &session).await, Some(1));
    assert_eq!(old.replace(&session, &record(2, None, b"y"), 1).await.unwrap(), Replaced::Done);
    assert_eq!(version(&store, &session).await, Some(1), "the cache still has the one before");
    let ours = store.replace(&session, &record(2, None, b"z"), 1).await.unwrap();
    assert_eq!((ours, new.len()), (Replaced::Changed, 0));
    let latest = store.load_latest(&session).await.unwrap();
    assert_eq!(latest.map(|latest| latest.payload), Some(b"y"[..].into()));
}

/// The end of a session that comes in the very middle of its move, by a process that knows the old store alone.
#[tokio::test]
async fn migrating_never_resurrects() {
    let (old, new) = (SpyStore::new(MemoryStore::new()), MemoryStore::new());
    let store = Migrating::new(old.clone(), new.clone());
    let session = create(&old, &record(1, None, b"x")).await;
    let gate = old.hold(Operation::Replace);
    let moving = tokio::spawn({
        let store = store.clone();
        async move { store.replace(&session, &record(2, None, b"y"), 1).await.unwrap() }
    });
    gate.wait_for_caller().await;
    assert_eq!(new.len(), 1, "it is in both now");
    assert_eq!(version(&store, &session).await, Some(2));
    assert!(old.store().delete(&session).await.unwrap());
    assert_eq!(version(&store, &session).await, None);
    gate.release();
    assert_eq!(moving.await.unwrap(), Replaced::Missing);
    assert_eq!(version(&store, &session).await, None);
}

#[tokio::test]
async fn cached_answers_from_the_cache_for_as_long_as_it_was_told() {
    let clock = ManualClock::new();
    let builder = || MemoryStore::builder().with_clock(&clock);
    let remote = SpyStore::new(builder().build());
    let store = || {
        let cache = builder().build();
        Cached::builder(cache, remote.clone(), STALENESS).with_clock(&clock).build()
    };
    let (ours, theirs) = (store(), store());
    let expires_at = clock.now() + Duration::from_secs(60);
    let at = |version| record(version, Some("ann"), b"x").with_expires_at(expires_at);
    let session = create(&ours, &at(1)).await;
    remote.reset();
    for _ in 0..10 {
        assert_eq!(version(&ours, &session).await, Some(1));
    }
    assert_eq!(remote.calls(), Calls::default(), "what it has created it has");

    // What another process changes is seen after the staleness, and not before the compare-and-swap
    // has failed.
    assert_eq!(theirs.replace(&session, &at(2), 1).await.unwrap(), Replaced::Done);
    assert_eq!(version(&ours, &session).await, Some(1));
    clock.advance(STALENESS - Duration::from_millis(1));
    assert_eq!(version(&ours, &session).await, Some(1));
    clock.advance(Duration::from_millis(1));
    assert_eq!(version(&ours, &session).await, Some(2));
    assert_eq!(theirs.replace(&session, &at(3), 2).await.unwrap(), Replaced::Done);
    assert_eq!(ours.replace(&session, &at(3), 2).await.unwrap(), Replaced::Changed);
    assert_eq!(version(&ours, &session).await, Some(3), "it was evicted");

    // What it ends itself is gone at once; what another ends, after the staleness.
    let other = create(&ours, &at(1)).await;
    assert!(ours.delete(&session).await.unwrap());
    assert_eq!(version(&ours, &session).await, None);
    assert!(theirs.delete(&other).await.unwrap());
    assert_eq!(version(&ours, &other).await, Some(1));
    clock.advance(STALENESS);
    assert_eq!(version(&ours, &other).await, None);

    // No staleness outlives the record.
    let expires_at = clock.now() + Duration::from_secs(1);
    let short = create(&ours, &at(1).with_expires_at(expires_at)).await;
    clock.advance(Duration::from_secs(1));
    assert_eq!(version(&ours, &short).await, None);
}

/// A load that was on its way while the session was saved or ended does not bring back what it
/// found before.
#[tokio::test]
async fn cached_is_not_overtaken_by_a_slow_load() {
    for ends in [false, true] {
        let remote = MemoryStore::new();
        let cache = SpyStore::new(MemoryStore::new());
        let store = Cached::new(cache.clone(), remote.clone(), Duration::from_secs(60));
        let session = create(&remote, &record(1, None, b"x")).await;
        // It has the old record, and is about to put it into the cache.
        let gate = cache.hold(Operation::Create);
        let loading = tokio::spawn({
            let store = store.clone();
            async move { version(&store, &session).await }
        });
        gate.wait_for_caller().await;
        let changing = tokio::spawn({
            let store = store.clone();
            async move {
                if ends {
                    assert!(store.delete(&session).await.unwrap());
                } else {
                    let replaced = store.replace(&session, &record(2, None, b"y"), 1).await;
                    assert_eq!(replaced.unwrap(), Replaced::Done);
                }
            }
        });
        if ends {
            changing.await.unwrap();
            gate.release();
        } else {
            gate.wait_for_callers(2).await;
            gate.release();
            changing.await.unwrap();
        }
        assert_eq!(loading.await.unwrap(), Some(1));
        assert_eq!(version(&store, &session).await, (!ends).then_some(2));
    }
}

/// Even if the cache does not forget what it is told to forget, and has it again when it answers again.
#[tokio::test]
async fn what_this_process_ends_is_gone_whatever_becomes_of_the_cache() {
    let cache = SpyStore::new(MemoryStore::new());
    let store = Cached::new(cache.clone(), MemoryStore::new(), Duration::MAX);
    for hangs in [false, true] {
        let ended = create(&store, &record(1, None, b"x")).await;
        let saved = create(&store, &record(1, None, b"x")).await;
        let kept = create(&store, &record(1, None, b"x")).await;
        let operations =
            [Operation::Load, Operation::Create, Operation::Replace, Operation::Delete];
        let gates: Vec<_> = match hangs {
            true => operations.iter().map(|operation| cache.hold(*operation)).collect(),
            false => Vec::new(),
        };
        if !hangs {
            operations.iter().for_each(|operation| cache.fail(*operation));
        }
        let later = record(2, None, b"y");
        let (end, save) = (store.delete(&ended), store.replace(&saved, &later, 1));
        if hangs {
            // They reach the store, and are dropped while they wait for the cache.
            assert!(look_once(pin!(end)).await.is_pending());
            assert!(look_once(pin!(save)).await.is_pending());
        } else {
            assert!(end.await.unwrap());
            assert_eq!(save.await.unwrap(), Replaced::Done);
        }
        operations.iter().for_each(|operation| cache.heal(*operation));
        gates.into_iter().for_each(Gate::release);
        assert_eq!(cache.store().load(&ended).await.unwrap().map(|entry| entry.version), Some(1));
        let hits = store.stats().hits;
        assert_eq!(version(&store, &ended).await, None);
        assert_eq!(version(&store, &saved).await, Some(2));
        assert_eq!(store.stats().hits, hits);
        assert_eq!(
            (version(&store, &kept).await, version(&store, &saved).await),
            (Some(1), Some(2))
        );
        assert_eq!(store.stats().hits, hits + 2, "no other session pays for that");
        assert_eq!(cache.store().load(&ended).await.unwrap(), None, "it is out by now");
    }
}

#[tokio::test]
async fn a_cache_that_fails_is_done_without() {
    let cache = SpyStore::new(MemoryStore::new());
    let store = Cached::new(cache.clone(), MemoryStore::new(), STALENESS);
    for operation in [Operation::Load, Operation::Create, Operation::Replace, Operation::Delete] {
        cache.fail(operation);
    }
    let session = create(&store, &record(1, None, b"x")).await;
    assert_eq!(version(&store, &session).await, Some(1));
    let replaced = store.replace(&session, &record(2, None, b"y"), 1).await.unwrap();
    assert_eq!(replaced, Replaced::Done);
    assert_eq!(version(&store, &session).await, Some(2));
    assert!(store.delete(&session).await.unwrap());
    assert_eq!(version(&store, &session).await, None);
}

#[tokio::test]
async fn mirrored_writes_to_all_and_a_replica_fails_no_request() {
    let (primary, replica) = (MemoryStore::new(), SpyStore::new(MemoryStore::new()));
    let store = Mirrored::new(primary.clone(), replica.clone());
    let session = create(&store, &record(1, None, b"x")).await;
    assert_eq!(version(&replica, &session).await, Some(1));
    assert_eq!(store.replace(&session, &record(2, None, b"y"), 1).await.unwrap(), Replaced::Done);
    let later = SystemTime::now() + Duration::from_secs(9999);
    store.touch(&session, later).await.unwrap();
    let (one, other) = (primary.load(&session).await, replica.store().load(&session).await);
    assert_eq!(one.unwrap(), other.unwrap());

    // It misses saves, and catches up with the next one.
    let operations = [
        Operation::Load,
        Operation::Create,
        Operation::Replace,
        Operation::Touch,
        Operation::Delete,
    ];
    for operation in operations {
        replica.fail(operation);
    }
    let replaced = store.replace(&session, &record(3, None, b"z"), 2).await.unwrap();
    assert_eq!(replaced, Replaced::Done);
    let missed = create(&store, &record(1, None, b"x")).await;
    assert_eq!(store.stats().failures, 2);
    for operation in operations {
        replica.heal(operation);
    }
    for (session, version_now) in [(session, 3), (missed, 1)] {
        let next = record(version_now + 1, None, b"next");
        let replaced = store.replace(&session, &next, version_now).await.unwrap();
        assert_eq!(replaced, Replaced::Done);
        assert_eq!(version(&replica, &session).await, Some(version_now + 1));
        assert!(store.delete(&session).await.unwrap());
        assert_eq!(version(&replica, &session).await, None);
    }

    // One that hangs costs its timeout, and no more.
    let store = Mirrored::builder(primary, replica.clone())
        .with_replica_timeout(Duration::from_millis(20))
        .build();
    let gate = replica.hold(Operation::Load);
    let session = create(&store, &record(1, None, b"x")).await;
    assert_eq!((store.stats().failures, version(&store, &session).await), (1, Some(1)));
    gate.release();
}

/// However a session ends while its save is on the way from the primary to the replica.
#[tokio::test]
async fn a_session_that_ends_while_its_save_is_mirrored_is_ended_in_the_replica() {
    const LONG: Duration = Duration::from_secs(60);
    for begins in [true, false] {
        for by_user in [true, false] {
            let (primary, replica) = (MemoryStore::new(), SpyStore::new(MemoryStore::new()));
            let store = Mirrored::builder(primary.clone(), replica.clone())
                .with_replica_timeout(LONG)
                .build();
            // Another process.
            let other = Mirrored::new(primary.clone(), replica.store().clone());
            let session = key();
            if !begins {
                let record = record(1, Some("ann"), b"x");
                assert_eq!(store.create(&session, &record).await.unwrap(), Created::Done);
            }
            let gate = replica.hold(Operation::Load);
            let saving = tokio::spawn({
                let store = store.clone();
                async move {
                    if begins {
                        let record = record(1, Some("ann"), b"x");
                        assert_eq!(store.create(&session, &record).await.unwrap(), Created::Done);
                    } else {
                        let record = record(2, Some("ann"), b"y");
                        let replaced = store.replace(&session, &record, 1).await.unwrap();
                        assert_eq!(replaced, Replaced::Done);
                    }
                }
            });
            gate.wait_for_caller().await;
            match by_user {
                true => assert_eq!(other.delete_sessions_of("ann", None).await.unwrap(), 1),
                false => assert!(other.delete(&session).await.unwrap()),
            }
            gate.release();
            saving.await.unwrap();
            assert_eq!(version(&replica, &session).await, None, "it lives on in the replica");
            assert_eq!((store.stats().failures, other.stats().failures), (0, 0));
        }
    }
}

#[tokio::test]
async fn a_mirrored_save_that_is_dropped_half_way_counts_as_missed() {
    let replica = SpyStore::new(MemoryStore::new());
    let store = Mirrored::new(MemoryStore::new(), replica.clone());
    let session = create(&store, &record(1, None, b"x")).await;
    for (operation, failures) in [(Operation::Load, 1), (Operation::Delete, 2)] {
        let gate = replica.hold(operation);
        let call = tokio::spawn({
            let store = store.clone();
            async move {
                match operation {
                    Operation::Load => {
                        let _ = store.replace(&session, &record(2, None, b"y"), 1).await;
                    }
                    _ => drop(store.delete(&session).await),
                }
            }
        });
        gate.wait_for_caller().await;
        call.abort();
        assert!(call.await.unwrap_err().is_cancelled());
        assert_eq!(store.stats().failures, failures);
        gate.release();
    }
}

/// What is told to delete expired records: how many it has, or that it fails or hangs.
#[derive(Clone, Copy, Debug)]
enum Expired {
    Has(u64),
    Fails,
    Hangs,
}

impl Store for Expired {
    async fn load(&self, _: &StoreKey) -> Result<Option<Record>, StoreError> {
        Ok(None)
    }

    async fn create(&self, _: &StoreKey, _: &Record) -> Result<Created, StoreError> {
        Ok(Created::Done)
    }

    async fn replace(&self, _: &StoreKey, _: &Record, _: u64) -> Result<Replaced, StoreError> {
        Ok(Replaced::Missing)
    }

    async fn touch(&self, _: &StoreKey, _: SystemTime) -> Result<(), StoreError> {
        Ok(())
    }

    async fn delete(&self, _: &StoreKey) -> Result<bool, StoreError> {
        Ok(false)
    }
}

impl DeleteExpired for Expired {
    async fn delete_expired(&self, batch: u32) -> Result<u64, StoreError> {
        match *self {
            Self::Has(expired) => Ok(expired.min(batch.into())),
            Self::Fails => Err(StoreError::new("expired", "delete_expired", "told to fail")),
            Self::Hangs => std::future::pending().await,
        }
    }
}

/// A sweep goes on until no expired record is left, in the primary and in the replica.
#[tokio::test]
async fn a_mirrored_sweep_goes_on_for_both_and_a_replica_fails_none() {
    use Expired::{Fails, Hangs, Has};
    for (primary, replica, removed, failures) in [
        (Has(0), Has(0), Some(0), 0),
        (Has(3), Has(0), Some(3), 0),
        (Has(0), Has(3), Some(3), 0),
        (Has(2), Has(99), Some(10), 0),
        (Has(3), Fails, Some(3), 1),
        (Has(3), Hangs, Some(3), 1),
        (Fails, Has(3), None, 0),
    ] {
        let timeout = Duration::from_millis(20);
        let store = Mirrored::builder(primary, replica).with_replica_timeout(timeout).build();
        let swept = store.delete_expired(10).await.ok();
        assert_eq!((swept, store.stats().failures), (removed, failures), "{store:?}");
        assert!(format!("{store:?}").contains(&format!("replica: {replica:?}")), "{store:?}");
    }
}

/// For one process alone: a copy may be as old as the session can get.
#[tokio::test]
async fn a_cache_may_keep_what_it_has_without_a_bound() {
    let store = Cached::new(MemoryStore::new(), MemoryStore::new(), Duration::MAX);
    let session = create(&store, &record(1, None, b"x")).await;
    assert_eq!(version(&store, &session).await, Some(1));
    assert_eq!(store.replace(&session, &record(2, None, b"y"), 1).await.unwrap(), Replaced::Done);
    assert_eq!((version(&store, &session).await, store.stats().hits), (Some(2), 2));
    assert!(store.delete(&session).await.unwrap());
    assert_eq!(version(&store, &session).await, None);
    conformance(store).await;
}

/// As a fleet would do it: from a file to a server, with the application running.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn moving_house_from_sqlite_to_redis() {
    let Some(server) = StoreServer::start(Kind::Redis) else { return };
    let folder = Folder::new();
    let url = format!("sqlite:{}", folder.path.join("sessions.db").display());
    let old = sessions::SqliteStore::connect(&url).await.unwrap();
    old.migrate().await.unwrap();
    let new = sessions::RedisStore::connect(&server.url()).await.unwrap();
    let session = create(&old, &record(1, Some("emil"), b"x")).await;
    let store = Migrating::new(old.clone(), new.clone());
    conformance(store.clone()).await;
    user_index(&store).await;
    app::logs_out_everywhere(store.clone()).await;
    let replaced = store.replace(&session, &record(2, Some("emil"), b"y"), 1).await.unwrap();
    assert_eq!(replaced, Replaced::Done);
    assert_eq!((version(&old, &session).await, version(&new, &session).await), (None, Some(2)));
}

/// A store whose answers to writes are lost on the way, if it is told to lose them.
#[derive(Clone, Default)]
struct Lossy {
    store: MemoryStore,
    is_deaf: Arc<AtomicBool>,
}

impl Lossy {
    fn answer<R>(&self, answer: Result<R, StoreError>) -> Result<R, StoreError> {
        match self.is_deaf.load(Relaxed) {
            true => Err(StoreError::new("lossy", "write", "the answer was lost")),
            false => answer,
        }
    }
}

impl Store for Lossy {
    async fn load(&self, key: &StoreKey) -> Result<Option<Record>, StoreError> {
        self.store.load(key).await
    }

    async fn create(&self, key: &StoreKey, record: &Record) -> Result<Created, StoreError> {
        self.answer(self.store.create(key, record).await)
    }

    async fn replace(
        &self,
        key: &StoreKey,
        record: &Record,
        based_on: u64,
    ) -> Result<Replaced, StoreError> {
        self.answer(self.store.replace(key, record, based_on).await)
    }

    async fn touch(&self, key: &StoreKey, expires_at: SystemTime) -> Result<(), StoreError> {
        self.answer(self.store.touch(key, expires_at).await)
    }

    async fn delete(&self, key: &StoreKey) -> Result<bool, StoreError> {
        self.answer(self.store.delete(key).await)
    }

    fn user_index(&self) -> Option<&dyn DynUserIndex> {
        Some(self)
    }
}

impl UserIndex for Lossy {
    async fn sessions_of(&self, user: &str) -> Result<Vec<(StoreKey, Record)>, StoreError> {
        self.store.sessions_of(user).await
    }

    async fn delete_sessions_of(
        &self,
        user: &str,
        except: Option<&StoreKey>,
    ) -> Result<u64, StoreError> {
        self.answer(self.store.delete_sessions_of(user, except).await)
    }
}

/// A store in which the record of a move waits before it is created.
#[derive(Clone, Default)]
struct Stalled {
    store: MemoryStore,
    arrives: Arc<Notify>,
    goes: Arc<Notify>,
}

const MOVED: &[u8] = b"moved";

impl Store for Stalled {
    hand_on!(store: load, replace, touch, delete);

    async fn create(&self, key: &StoreKey, record: &Record) -> Result<Created, StoreError> {
        if record.payload.ends_with(MOVED) {
            self.arrives.notify_one();
            self.goes.notified().await;
        }
        self.store.create(key, record).await
    }

    fn user_index(&self) -> Option<&dyn DynUserIndex> {
        self.store.user_index()
    }
}

/// The session ends between a move's look into the old store and the moment at which the new store gets the
/// record; perhaps with the client whose request moves it. It is not seen again, not even until the move
/// finds that out.
#[tokio::test]
async fn what_has_ended_is_not_seen_while_it_is_moved() {
    for (how, hangs_up) in (0..3).flat_map(|how| [(how, false), (how, true)]) {
        let (old, new) = (SpyStore::new(MemoryStore::new()), Stalled::default());
        let store = Migrating::new(old.clone(), new.clone());
        let session = create(old.store(), &record(1, Some("ann"), b"x")).await;
        let moving = tokio::spawn({
            let store = store.clone();
            async move { store.replace(&session, &record(2, Some("ann"), MOVED), 1).await }
        });
        new.arrives.notified().await;
        match how {
            0 => assert!(store.delete(&session).await.unwrap()),
            1 => assert_eq!(store.delete_sessions_of("ann", None).await.unwrap(), 1),
            // The second try of a `delete` that failed half-way.
            _ => {
                assert!(old.store().delete(&session).await.unwrap());
                assert!(!store.delete(&session).await.unwrap());
            }
        }
        if hangs_up {
            moving.abort();
        }
        let deleting = old.hold(Operation::Delete);
        new.goes.notify_one();
        for _ in 0..100 {
            assert_eq!(version(&store, &session).await, None, "{how}, {hangs_up}");
            tokio::task::yield_now().await;
        }
        deleting.release();
        if !hangs_up {
            assert_eq!(moving.await.unwrap().unwrap(), Replaced::Missing);
        }
        assert_eq!(version(&store, &session).await, None);
        assert_eq!(store.sessions_of("ann").await.unwrap(), []);
        let saved = store.replace(&session, &record(3, None, b"z"), 2).await;
        assert_eq!(saved.unwrap(), Replaced::Missing);
        assert!(!store.delete(&session).await.unwrap(), "it has ended already");
        let again = store.create(&session, &record(1, None, b"again")).await.unwrap();
        assert_eq!((again, version(&store, &session).await), (Created::Done, Some(1)));
    }
}

/// Of a session that is in the new store already another process may be about to move what it has seen in the
/// old one before.
#[tokio::test]
async fn what_has_ended_in_the_new_store_is_not_moved_there_again() {
    let (old, new) = (SpyStore::new(MemoryStore::new()), Stalled::default());
    let store = Migrating::new(old.clone(), new.clone());
    let session = create(old.store(), &record(1, None, b"x")).await;
    let moving = tokio::spawn({
        let store = store.clone();
        async move { store.replace(&session, &record(2, None, MOVED), 1).await }
    });
    new.arrives.notified().await;
    let first = store.replace(&session, &record(2, None, b"y"), 1).await.unwrap();
    assert_eq!((first, old.store().len()), (Replaced::Done, 0));
    assert!(store.delete(&session).await.unwrap());
    let deleting = old.hold(Operation::Delete);
    new.goes.notify_one();
    for _ in 0..100 {
        assert_eq!(version(&store, &session).await, None);
        tokio::task::yield_now().await;
    }
    deleting.release();
    assert_eq!(moving.await.unwrap().unwrap(), Replaced::Missing);
    assert_eq!(version(&store, &session).await, None);
}

/// Nobody knows whether the primary has carried it out.
#[tokio::test]
async fn what_the_primary_has_not_answered_is_in_doubt_and_an_end_is_one_in_the_replica() {
    for by_user in [true, false] {
        let (primary, replica) = (Lossy::default(), MemoryStore::new());
        let store = Mirrored::new(primary.clone(), replica.clone());
        let session = create(&store, &record(1, Some("ann"), b"x")).await;
        primary.is_deaf.store(true, Relaxed);
        assert!(store.replace(&session, &record(2, Some("ann"), b"y"), 1).await.is_err());
        assert_eq!(store.stats().in_doubt, 1);
        match by_user {
            true => assert!(store.delete_sessions_of("ann", None).await.is_err()),
            false => assert!(store.delete(&session).await.is_err()),
        }
        assert_eq!((store.stats().in_doubt, store.stats().failures), (2, 0));
        assert_eq!(version(&primary, &session).await, None);
        assert_eq!(version(&replica, &session).await, None, "it lives on in the replica");
    }
    // And whether it will, if the call is dropped.
    let primary = SpyStore::new(MemoryStore::new());
    let store = Mirrored::new(primary.clone(), MemoryStore::new());
    let session = create(&store, &record(1, None, b"x")).await;
    let gate = primary.hold(Operation::Delete);
    let deleting = tokio::spawn({
        let store = store.clone();
        async move { store.delete(&session).await }
    });
    gate.wait_for_caller().await;
    assert_eq!(store.stats().in_doubt, 0);
    deleting.abort();
    assert!(deleting.await.unwrap_err().is_cancelled());
    assert_eq!((store.stats().in_doubt, store.stats().failures), (1, 0));
}

/// A login that meets the end of all of its user's sessions, and an end whose answer is lost: what is
/// gone is not in the cache either.
#[tokio::test]
async fn a_cache_without_a_bound_forgets_what_has_ended_with_all_of_its_user() {
    let (cache, remote) = (SpyStore::new(MemoryStore::new()), Lossy::default());
    let store = Cached::new(cache.clone(), remote.clone(), Duration::MAX);
    let session = key();
    let gate = cache.hold(Operation::Create);
    let login = tokio::spawn({
        let store = store.clone();
        async move { store.create(&session, &record(1, Some("ann"), b"x")).await }
    });
    gate.wait_for_caller().await;
    assert_eq!(store.delete_sessions_of("ann", None).await.unwrap(), 1);
    gate.release();
    assert_eq!(login.await.unwrap().unwrap(), Created::Done);
    assert_eq!(version(&store, &session).await, None);

    let session = create(&store, &record(1, Some("ann"), b"x")).await;
    assert_eq!(version(&store, &session).await, Some(1));
    remote.is_deaf.store(true, Relaxed);
    assert!(store.delete_sessions_of("ann", None).await.is_err());
    assert_eq!(version(&store, &session).await, None);
}

/// Whether it is done after one look.
async fn look_once<F: Future>(mut future: Pin<&mut F>) -> Poll<F::Output> {
    poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await
}
