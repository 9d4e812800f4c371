//! Stores that fail while a session is moved from one to the other.

use std::time::{Duration, SystemTime};

use sessions::{
    Created, MemoryStore, Record, Replaced, Store, StoreKey, UserIndex,
    store::{Migrating, Mirrored},
    testing::{Calls, ManualClock, Operation, SpyStore},
};

const KEY: StoreKey = StoreKey::from_bytes([7; 32]);

fn record(clock: &ManualClock, version: u64, seconds: u64) -> Record {
    let expires_at = clock.now() + Duration::from_secs(seconds);
    let record = Record::new(version, clock.now(), expires_at, [version as u8]);
    record.with_user(Some("ann".into()))
}

struct Stores {
    clock: ManualClock,
    old: SpyStore<MemoryStore>,
    new: SpyStore<MemoryStore>,
    store: Migrating<SpyStore<MemoryStore>, SpyStore<MemoryStore>>,
}

/// With a session in the old store that lives for a minute.
async fn stores() -> Stores {
    let clock = ManualClock::new();
    let store = || SpyStore::new(MemoryStore::builder().with_clock(&clock).build());
    let (old, new) = (store(), store());
    assert_eq!(old.create(&KEY, &record(&clock, 1, 60)).await.unwrap(), Created::Done);
    old.reset();
    let store = Migrating::new(old.clone(), new.clone());
    Stores { clock, old, new, store }
}

impl Stores {
    async fn save(&self, record: &Record) -> Option<Replaced> {
        self.store.replace(&KEY, record, record.version - 1).await.ok()
    }

    async fn load(&self) -> Option<Record> {
        self.store.load(&KEY).await.unwrap()
    }

    /// In the old and in the new store: what was, what is on its way, marks.
    fn kept(&self) -> (usize, usize) {
        (self.old.store().len(), self.new.store().len())
    }
}

#[tokio::test]
async fn each_call_takes_the_round_trips_that_its_documentation_says() {
    let stores = stores().await;
    let calls = || {
        let of_each = [&stores.old, &stores.new].map(|store| {
            let Calls { load, create, replace, touch, delete, .. } = store.calls();
            store.reset();
            load + create + replace + touch + delete
        });
        of_each.iter().sum::<u64>()
    };
    assert!(stores.load().await.is_some());
    assert_eq!(calls(), 2, "a look into the old store");
    let second = record(&stores.clock, 2, 60);
    assert_eq!(stores.save(&second).await, Some(Replaced::Done));
    assert_eq!((calls(), stores.kept()), (6, (0, 1)), "a move");
    assert_eq!(stores.load().await, Some(second));
    assert_eq!(calls(), 1, "a look into the new store");
    assert_eq!(stores.save(&record(&stores.clock, 3, 60)).await, Some(Replaced::Done));
    assert_eq!(calls(), 1, "a save in the new store");
    assert!(stores.store.delete(&KEY).await.unwrap());
    assert_eq!(calls(), 3, "an end in the new store");
    let other = StoreKey::from_bytes([8; 32]);
    assert_eq!(stores.load().await, None);
    assert_eq!((calls(), stores.store.load(&other).await.unwrap()), (1, None), "a look at a mark");
    assert_eq!(calls(), 3, "a look at nothing");
    let first = record(&stores.clock, 1, 60);
    assert_eq!(stores.old.store().create(&other, &first).await.unwrap(), Created::Done);
    assert!(stores.store.delete(&other).await.unwrap());
    assert_eq!(calls(), 2, "an end in the old store");
    assert_eq!(stores.store.create(&other, &first).await.unwrap(), Created::Done);
    assert_eq!(calls(), 2, "a session that begins");
}

/// Two processes stand still, as with the machine that they run on: one before the first step of its move, the other before
/// the last step of its own; and meanwhile a third one ends the session.
#[tokio::test]
async fn what_has_ended_is_not_brought_back_by_moves_that_stood_still_for_longer_than_a_minute() {
    const HOUR: u64 = 3600;
    for has_version in [false, true] {
        let stores = stores().await;
        // Marks go by the system's clock.
        let now = SystemTime::now().duration_since(stores.clock.now()).unwrap();
        stores.clock.advance(now);
        let first = record(&stores.clock, 1, 2 * HOUR);
        assert_eq!(stores.old.create(&KEY, &first).await.unwrap(), Created::Done);
        let second = record(&stores.clock, 2, 2 * HOUR);
        let saves = || {
            let (store, second) = (stores.store.clone(), second.clone());
            tokio::spawn(async move { store.replace(&KEY, &second, 1).await.unwrap() })
        };
        let sets_out = stores.new.hold(Operation::Create);
        let mut late = saves();
        sets_out.wait_for_caller().await;
        stores.new.hold(Operation::Create).release();
        let looks = stores.new.hold(Operation::Replace);
        let moving = saves();
        looks.wait_for_caller().await;
        let arrives = stores.new.hold(Operation::Replace);
        looks.release();
        arrives.wait_for_caller().await;
        stores.new.hold(Operation::Replace).release();

        match has_version {
            true => assert!(stores.store.delete_version(&KEY, 2).await.unwrap()),
            false => {
                stores.store.delete(&KEY).await.unwrap();
            }
        }
        assert_eq!(stores.load().await, None);
        stores.clock.advance(Duration::from_secs(HOUR));
        let marks = stores.old.hold(Operation::Replace);
        sets_out.release();
        tokio::select! {
            _ = &mut late => {}
            () = marks.wait_for_caller() => {}
        }
        arrives.release();
        let _ = moving.await.unwrap();
        assert_eq!(stores.load().await, None, "it is back");
        marks.release();
        if !late.is_finished() {
            assert_eq!(late.await.unwrap(), Replaced::Missing);
        }
        assert_eq!(stores.load().await, None, "it is back");
        // When it would have ended, nothing is left of it.
        stores.clock.advance(Duration::from_secs(HOUR + 60));
        for store in [&stores.old, &stores.new] {
            assert_eq!(store.load(&KEY).await.unwrap(), None);
        }
    }
}

/// The step that fails, and what is left of the session that was moved.
#[tokio::test]
async fn a_move_that_stops_half_way_is_brought_to_its_end_by_the_next_save() {
    for (operation, is_told, left) in
        [(Operation::Replace, None, (1, 1)), (Operation::Delete, Some(Replaced::Done), (1, 1))]
    {
        let stores = stores().await;
        stores.old.fail(operation);
        let second = record(&stores.clock, 2, 90);
        assert_eq!(stores.save(&second).await, is_told);
        assert_eq!((stores.load().await, stores.kept()), (Some(second.clone()), left));
        let listed = stores.store.sessions_of("ann").await.unwrap();
        assert_eq!(listed, [(KEY, second.clone())]);
        assert_eq!(stores.save(&second).await, Some(Replaced::Changed));
        stores.old.heal(operation);
        let third = record(&stores.clock, 3, 90);
        assert_eq!(stores.save(&third).await, Some(Replaced::Done));
        assert_eq!(stores.load().await, Some(third));
        assert_eq!(stores.new.store().load(&KEY).await.unwrap(), stores.load().await);
        // A mark may be left, which is no session.
        assert!(stores.old.store().sessions_of("ann").await.unwrap().is_empty());
        stores.clock.advance(Duration::from_secs(90));
        assert_eq!(stores.load().await, None);
    }
    // The new store fails when all is decided.
    let stores = stores().await;
    let gate = stores.old.hold(Operation::Replace);
    let second = record(&stores.clock, 2, 90);
    let saving = tokio::spawn({
        let (store, second) = (stores.store.clone(), second.clone());
        async move { store.replace(&KEY, &second, 1).await.unwrap() }
    });
    gate.wait_for_caller().await;
    stores.new.fail(Operation::Replace);
    gate.release();
    assert_eq!(saving.await.unwrap(), Replaced::Done);
    stores.new.heal(Operation::Replace);
    assert_eq!((stores.load().await, stores.kept()), (Some(second), (1, 1)));
    let third = record(&stores.clock, 3, 90);
    assert_eq!(stores.save(&third).await, Some(Replaced::Done));
    assert_eq!((stores.load().await, stores.kept()), (Some(third), (0, 1)));
}

#[tokio::test]
async fn what_a_move_leaves_that_stops_half_way_ends_for_good() {
    for by_user in [false, true] {
        let stores = stores().await;
        stores.old.fail(Operation::Replace);
        assert_eq!(stores.save(&record(&stores.clock, 2, 90)).await, None);
        match by_user {
            true => assert_eq!(stores.store.delete_sessions_of("ann", None).await.unwrap(), 1),
            false => assert!(stores.store.delete(&KEY).await.unwrap()),
        }
        stores.old.heal(Operation::Replace);
        assert!(!stores.store.delete(&KEY).await.unwrap());
        assert_eq!(stores.load().await, None);
        assert!(stores.store.sessions_of("ann").await.unwrap().is_empty());
        assert_eq!(stores.save(&record(&stores.clock, 3, 90)).await, Some(Replaced::Missing));
        assert_eq!(stores.old.store().len(), 0);
        stores.clock.advance(Duration::from_secs(90));
        assert_eq!(stores.load().await, None);
    }
}

/// One that was made short-lived, such as the tombstone of a session that goes on under another id, does not give way
/// to what it was before.
#[tokio::test]
async fn what_is_on_its_way_keeps_its_end_and_nothing_comes_back_from_before() {
    let stores = stores().await;
    stores.old.fail(Operation::Replace);
    let short = record(&stores.clock, 2, 10).with_user(None);
    assert_eq!(stores.save(&short).await, None);
    assert_eq!(stores.store.sessions_of("ann").await.unwrap(), []);
    assert_eq!(stores.load().await, Some(short.clone()));
    stores.clock.advance(Duration::from_secs(11));
    // The session layer does not open what has expired.
    assert!(stores.load().await.is_none_or(|found| found == short));
    stores.clock.advance(Duration::from_secs(50));
    assert_eq!(stores.load().await, None);

    // And a touch reaches both copies: neither goes without the other.
    let stores = self::stores().await;
    stores.old.fail(Operation::Replace);
    assert_eq!(stores.save(&record(&stores.clock, 2, 90)).await, None);
    let later = stores.clock.now() + Duration::from_secs(200);
    stores.store.touch(&KEY, later).await.unwrap();
    stores.clock.advance(Duration::from_secs(199));
    assert_eq!(
        stores.load().await.map(|found| (found.version, found.expires_at)),
        Some((2, later))
    );
    stores.clock.advance(Duration::from_secs(1));
    assert_eq!(stores.load().await, None);
    // If the touch fails half-way, what was there before does not outlive the save.
    let stores = self::stores().await;
    stores.old.fail(Operation::Replace);
    assert_eq!(stores.save(&record(&stores.clock, 2, 90)).await, None);
    stores.new.fail(Operation::Touch);
    let later = stores.clock.now() + Duration::from_secs(200);
    assert!(stores.store.touch(&KEY, later).await.is_err());
    stores.clock.advance(Duration::from_secs(90));
    assert_eq!(stores.load().await, None);
}

/// What copies records goes by their versions: they only ever rise.
#[tokio::test]
async fn a_mirror_of_the_new_store_has_what_that_has() {
    let clock = ManualClock::new();
    let memory = || MemoryStore::builder().with_clock(&clock).build();
    let (old, new, replica) = (memory(), memory(), memory());
    let store = Migrating::new(old.clone(), Mirrored::new(new.clone(), replica.clone()));
    assert_eq!(old.create(&KEY, &record(&clock, 1, 60)).await.unwrap(), Created::Done);
    let second = record(&clock, 2, 60);
    assert_eq!(store.replace(&KEY, &second, 1).await.unwrap(), Replaced::Done);
    assert_eq!(replica.load(&KEY).await.unwrap(), Some(second));
    assert!(store.delete(&KEY).await.unwrap());
    let after = Migrating::new(old, replica);
    assert_eq!(after.load(&KEY).await.unwrap(), None, "it lives on in the replica");
}
